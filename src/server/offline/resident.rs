//! A data directory of ours whose daemon does not run, opened as a start opens it: torn ends repaired, interrupted
//! installations finished, and then everything applied that is known to be committed. Where nothing can be written, that is
//! done to a likeness of its state.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use super::{
    OfflineError, entries,
    scratch::{Scratch, live},
};
use crate::{
    apply::{Applier, ApplyError, ApplyOptions, Position, Proof, Published, position},
    disk::FileDirectory,
    membership::Version,
    pb::{
        raftpb::{Entry, HardState},
        walpb,
    },
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
    _hold: Hold,
}

/// What lasts as long as somebody works on a member.
#[expect(dead_code, reason = "that it is there is all")]
enum Hold {
    /// Its directory is locked for writing.
    Writing(Box<Wal<FileDirectory>>, DataDir),
    /// Its directory is locked for reading, if it can be, and its state has a likeness elsewhere.
    Reading(Scratch, Option<File>),
}

impl Resident {
    /// Opens the directory.
    ///
    /// # Errors
    /// [`OfflineError`]: those of a start, and a directory that is none of ours.
    pub(super) fn open(root: &Path, wal_dir: Option<&Path>, server_version: Version) -> Result<Self, OfflineError> {
        let log = log_of(root, wal_dir)?;
        let dir = DataDir::claim(root, Some(&log))?;
        if !dir.has_log() {
            return Err(dir.torn(true).into());
        }
        let on_disk = OnDisk { dir: &dir, engine: FjallOptions::default() };
        let (log, mut settings) = (FileDirectory::new(dir.wal()), Settings::new(server_version));
        settings.apply.learners_max = None;
        let nobody = Bootstrap::new([].into(), "");
        let (parts, _) = recovery::resume(&on_disk, log.clone(), &settings, &nobody)?;
        let Parts { identity, applier, wal, .. } = parts;
        let survey = wal::survey(&log)?;
        let hold = Hold::Writing(Box::new(wal), dir);
        let mut resident =
            Self { identity, hard_state: survey.hard_state, last: survey.last, survey, applier, _hold: hold };
        resident.catch_up()?;
        Ok(resident)
    }

    /// As [`Self::open`], for who only reads its state. A directory that cannot be written is not written.
    ///
    /// # Errors
    /// As [`Self::open`]; [`OfflineError::Interrupted`] if something has to be written there first.
    pub(super) fn look(root: &Path, wal_dir: Option<&Path>, server_version: Version) -> Result<Self, OfflineError> {
        let log = log_of(root, wal_dir)?;
        let places = [root.to_owned(), DataDir::lock_path(root), root.join("member/state"), log.clone()];
        match places.into_iter().find(|place| place.exists() && access(place, AccessFlags::W_OK).is_err()) {
            Some(read_only) => Self::read(root, &log, read_only, server_version),
            None => Self::open(root, wal_dir, server_version),
        }
    }

    fn read(root: &Path, log: &Path, read_only: PathBuf, server_version: Version) -> Result<Self, OfflineError> {
        let lock = DataDir::lock_for_reading(root)?;
        let (state, scratch) = (live(root)?, Scratch::new()?);
        let told = |cause: OfflineError| scratch.said_of(&state, &cause);
        let survey = wal::survey(&FileDirectory::read_only(log))?;
        let engine = scratch.look(&state).map_err(|cause| told(cause.into()))?;
        let stands = position(&engine.snapshot()).map_err(|cause| told(ApplyError::from(cause).into()))?;
        let is_due = |mark: &walpb::Snapshot| (stands.index.0 + 1..=survey.hard_state.commit).contains(&mark.index);
        if survey.snapshots.iter().any(is_due) {
            return Err(OfflineError::Interrupted { root: root.to_owned(), read_only });
        }
        together(&survey, &stands)?;
        let wal::Metadata { member, cluster } = survey.metadata;
        let options = ApplyOptions { learners_max: None, ..ApplyOptions::new(member, server_version) };
        let applier = Applier::open(engine, options).map_err(|cause| told(cause.into()))?;
        let (identity, hold) = (Identity { member, cluster }, Hold::Reading(scratch, lock));
        let hard_state = survey.hard_state;
        let mut resident = Self { identity, hard_state, last: survey.last, survey, applier, _hold: hold };
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

/// Where the log of the member in `root` is, which has to be one of ours.
fn log_of(root: &Path, wal_dir: Option<&Path>) -> Result<PathBuf, OfflineError> {
    let log = log_in(root)?.ok_or_else(|| OfflineError::NotOurs(root.to_owned()))?;
    Ok(wal_dir.map_or(log, Path::to_owned))
}

/// Whether log and state are of one member; how many entries are behind the state.
///
/// # Errors
/// [`OfflineError::Apart`], a log that cannot be read.
pub(super) fn together(survey: &Survey<FileDirectory>, position: &Position) -> Result<u64, OfflineError> {
    let Position { index, proof, .. } = position;
    if index.0 > survey.last.0 || index.0 + 1 < survey.first.0 {
        return Err(OfflineError::Apart { state: *index, first: survey.first, last: survey.last });
    }
    if (survey.first..=survey.last).contains(&proof.index) {
        let entries = survey.reader.entries(proof.index, proof.index, usize::MAX)?;
        if entries.iter().any(|entry| Proof::of(entry) != *proof) {
            return Err(OfflineError::Apart { state: *index, first: survey.first, last: survey.last });
        }
    }
    Ok(survey.last.0 - index.0)
}

/// Where the log of the member in `root` is, if that is one of ours. Where it was when the member was founded is asked only if
/// there is none inside: a copy of a directory has its own.
pub(super) fn log_in(root: &Path) -> Result<Option<PathBuf>, OfflineError> {
    let Some(founded) = DataDir::log_of(root)? else { return Ok(None) };
    let inside = root.join("member/wal");
    Ok(Some(if !inside.is_dir() && founded.is_dir() { founded } else { inside }))
}
