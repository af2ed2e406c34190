//! A data directory of ours whose daemon does not run, opened as a start opens it: torn ends repaired, interrupted
//! installations finished, and then everything applied that is known to be committed.

use std::path::{Path, PathBuf};

use super::{OfflineError, entries};
use crate::{
    apply::{Applier, Published},
    disk::FileDirectory,
    membership::Version,
    pb::raftpb::{Entry, HardState},
    server::{
        Bootstrap, DataDir, Identity,
        durability::Mark,
        open::OnDisk,
        recovery::{self, Parts, Settings},
    },
    storage::{Engine as _, FjallEngine, FjallOptions, FjallSnapshot},
    types::LogIndex,
    wal::{self, Survey, Wal},
};

/// A member of ours that does not run. Its directory is locked.
pub(super) struct Resident {
    pub(super) identity: Identity,
    /// With a commit index that includes what is applied.
    pub(super) hard_state: HardState,
    pub(super) last: LogIndex,
    survey: Survey<FileDirectory>,
    applier: Applier<FjallEngine>,
    _wal: Wal<FileDirectory>,
    _dir: DataDir,
}

impl Resident {
    /// Opens the directory.
    ///
    /// # Errors
    /// [`OfflineError`]: those of a start, and a directory that is none of ours.
    pub(super) fn open(root: &Path, wal_dir: Option<&Path>, server_version: Version) -> Result<Self, OfflineError> {
        let wal_dir = check(root, wal_dir)?;
        let dir = DataDir::claim(root, wal_dir.as_deref())?;
        if !dir.has_log() {
            return Err(dir.torn(true).into());
        }
        let on_disk = OnDisk { dir: &dir, engine: FjallOptions::default() };
        let (log, settings) = (FileDirectory::new(dir.wal()), Settings::new(server_version));
        let nobody = Bootstrap::new([].into(), "");
        let (parts, _) = recovery::resume(&on_disk, log.clone(), &settings, &nobody)?;
        let Parts { identity, applier, wal, .. } = parts;
        let survey = wal::survey(&log)?;
        let mut resident =
            Self { identity, hard_state: survey.hard_state, last: survey.last, survey, applier, _wal: wal, _dir: dir };
        resident.catch_up()?;
        Ok(resident)
    }

    /// Applies what is committed: of a lone voter everything that is in its log.
    fn catch_up(&mut self) -> Result<(), OfflineError> {
        let state = self.applier.published();
        let own = [self.identity.member.0];
        let alone = state.cluster.configuration().voters == own;
        let known = LogIndex(self.hard_state.commit.max(state.applied.0));
        let end = self.last.max(state.applied);
        let commit = if alone { end } else { known.min(end) };
        entries(&self.survey.reader, state.applied, commit, |entries| {
            self.applier.apply(entries)?;
            Ok(())
        })?;
        self.applier.engine().persist()?;
        self.hard_state.commit = commit.0;
        Ok(())
    }

    /// The state.
    pub(super) fn state(&self) -> Published<FjallSnapshot> {
        self.applier.published()
    }

    /// Where it stands.
    pub(super) fn mark(&self) -> Mark {
        let state = self.applier.published();
        Mark { index: state.applied, term: state.term, cluster: state.cluster }
    }

    /// Gives the entries behind the state, in pieces, to `take`.
    ///
    /// # Errors
    /// Those of `take`, and a log that is damaged.
    pub(super) fn entries(&self, take: impl FnMut(&[Entry]) -> Result<(), OfflineError>) -> Result<(), OfflineError> {
        entries(&self.survey.reader, self.applier.published().applied, self.last, take)
    }
}

/// Whether `root` is ours and founded; where its log is, if not inside.
fn check(root: &Path, wal_dir: Option<&Path>) -> Result<Option<PathBuf>, OfflineError> {
    let log = log_in(root)?.ok_or_else(|| OfflineError::NotOurs(root.to_owned()))?;
    Ok(Some(wal_dir.map_or(log, Path::to_owned)))
}

/// Where the log of the member in `root` is, if that is one of ours. Where it was when the member was founded is asked only if
/// there is none inside: a copy of a directory has its own.
pub(super) fn log_in(root: &Path) -> Result<Option<PathBuf>, OfflineError> {
    let Some(founded) = DataDir::log_of(root)? else { return Ok(None) };
    let inside = root.join("member/wal");
    Ok(Some(if !inside.is_dir() && founded.is_dir() { founded } else { inside }))
}
