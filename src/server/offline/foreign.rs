//! etcd's data directory as it lies there: nothing in it is changed.
//!
//! etcd applies beside its log. After a kill the database may stand behind the log's commit index, at which it was not told to
//! stop, and in a cluster even behind the log's last entry, which others have. All of that is sound; only a database
//! behind the newest snapshot is not, unless the one that etcd was about to put in its place lies beside it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{CHUNK_BYTES, OfflineError, entries, fence, voters};
use crate::{
    apply::{self, ApplyError, EntryError, exchange},
    disk::{Directory as _, DiskFile as _, FileDirectory, Locker, OpenFile},
    etcdfile::{
        bbolt::Reader,
        database::{self, Position},
        snap::{self, SnapError},
    },
    membership::Cluster,
    pb::{
        raftpb::{ConfState, Entry, HardState},
        walpb,
    },
    types::LogIndex,
    wal::{self, Metadata, Repair, Survey},
};

/// etcd's data directory, locked against etcd.
#[derive(Debug)]
pub(super) struct Foreign {
    pub(super) metadata: Metadata,
    /// With a commit index that includes what was applied.
    pub(super) hard_state: HardState,
    /// Where the database stands.
    pub(super) position: Position,
    /// Who votes there, unless only the database says it.
    pub(super) voters: Option<ConfState>,
    /// Behind which snapshot the log goes on.
    pub(super) base: walpb::Snapshot,
    /// The last entry; that of `base` if there is none.
    pub(super) last: LogIndex,
    pub(super) torn: Option<Repair>,
    log: wal::Reader<FileDirectory>,
    database: PathBuf,
    _lock: OpenFile,
}

impl Foreign {
    /// Reads the log of `root`, or that in `wal_dir`, and where the database stands.
    ///
    /// # Errors
    /// [`OfflineError`]; among them a directory that a process uses, and one whose parts do not belong together.
    pub(super) fn read(root: &Path, wal_dir: Option<&Path>) -> Result<Self, OfflineError> {
        let (snaps, wal) = (root.join("member/snap"), wal_dir.map_or_else(|| root.join("member/wal"), Path::to_owned));
        let database = snaps.join("db");
        let lock = lock(root, &database)?;
        if !is_there(&wal)? {
            return Err(OfflineError::NoLog(wal));
        }
        // Those that may not be read do not tell whom they belong to.
        fs::read_dir(&wal).map_err(OfflineError::unread(&wal))?;
        let survey = wal::survey(&FileDirectory::read_only(&wal))?;
        let snaps = FileDirectory::read_only(snaps);
        check_tree(&snaps)?;
        let (database, position) = newest_database(&snaps, database, &survey)?;
        let base = base(&survey, &position)?;
        let Survey { metadata, hard_state, last, torn, reader: log, .. } = survey;
        let hard_state = matched(hard_state, &position, last);
        let last = LogIndex(last.0.max(base.index));
        let file = OpenFile::read_only(&database).map_err(OfflineError::io("opening", &database))?;
        let at = LogIndex(position.index);
        let voters = voters::voters(&snaps, &log, &base, at, &voters::Known::read(file)?)?;
        let foreign = Self { metadata, hard_state, position, voters, base, last, torn, log, database, _lock: lock };
        foreign.check_term()?;
        Ok(foreign)
    }

    /// The database, for reading.
    ///
    /// # Errors
    /// [`OfflineError::Io`].
    pub(super) fn database(&self) -> Result<OpenFile, OfflineError> {
        OpenFile::read_only(&self.database).map_err(OfflineError::io("opening", &self.database))
    }

    /// Where the log says that the state may be.
    pub(super) fn commit(&self) -> LogIndex {
        LogIndex(self.hard_state.commit)
    }

    /// Gives the entries behind `after`, up to and including `last`, in pieces, to `take`.
    ///
    /// # Errors
    /// Those of `take`, and a log that is damaged.
    pub(super) fn entries(
        &self,
        after: LogIndex,
        last: LogIndex,
        take: impl FnMut(&[Entry]) -> Result<(), OfflineError>,
    ) -> Result<(), OfflineError> {
        entries(&self.log, after, last, take)
    }

    /// The members behind the last entry that is committed, where `cluster` are those of the database.
    ///
    /// # Errors
    /// [`EntryError::LearnersUnknown`], as applying it fails; a log that is damaged.
    pub(super) fn behind(&self, cluster: &Cluster) -> Result<Cluster, OfflineError> {
        let mut cluster = cluster.clone();
        for (index, change) in voters::changes(&self.log, LogIndex(self.position.index), self.commit())? {
            if cluster.depends_on_learners_max(&change) {
                return Err(ApplyError::Entry { index, cause: EntryError::LearnersUnknown }.into());
            }
            if cluster.check(&change, usize::MAX).is_ok() {
                cluster.apply(&change);
            }
        }
        Ok(cluster)
    }

    /// Whether every entry can be carried out here, and no key of the v2 API was written by those that etcd has applied.
    ///
    /// # Errors
    /// [`OfflineError::Entry`].
    pub(super) fn check_entries(&self) -> Result<(), OfflineError> {
        self.entries(LogIndex(self.base.index), self.last, |entries| {
            entries.iter().try_for_each(|entry| check_entry(entry, self.position.index))
        })
    }

    /// Whether log and database know the same entry where the database stands.
    fn check_term(&self) -> Result<(), OfflineError> {
        let at = LogIndex(self.position.index);
        if at.0 <= self.base.index || at > self.last {
            return Ok(());
        }
        let found = self.log.entries(at, at, CHUNK_BYTES)?;
        match found.first().filter(|entry| entry.term != self.position.term) {
            Some(entry) => Err(OfflineError::OtherHistory { index: at, log: entry.term, database: self.position.term }),
            None => Ok(()),
        }
    }
}

/// What etcd applied it has understood; only keys of the v2 API would be lost, because they are not in the database.
fn check_entry(entry: &Entry, applied: u64) -> Result<(), OfflineError> {
    match apply::check_entry(entry) {
        Err(EntryError::V2 { method, .. }) if entry.index <= applied && !WRITES.contains(&method.as_str()) => Ok(()),
        Err(cause) if entry.index > applied || matches!(cause, EntryError::V2 { .. }) => {
            Err(OfflineError::Entry { index: LogIndex(entry.index), cause })
        }
        _ => Ok(()),
    }
}

/// The methods of the v2 API that change keys.
const WRITES: [&str; 3] = ["PUT", "POST", "DELETE"];

/// Whether there is something at `path`; who may not look has no answer.
pub(super) fn is_there(path: &Path) -> Result<bool, OfflineError> {
    match fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(cause) => Err(OfflineError::unread(path)(cause)),
    }
}

/// Takes the lock that etcd holds as long as it runs.
fn lock(root: &Path, database: &Path) -> Result<OpenFile, OfflineError> {
    if let Some(note) = fence::find(root) {
        return Err(OfflineError::HandedOn(note));
    }
    if !is_there(database)? {
        return Err(OfflineError::NotEtcds(root.to_owned()));
    }
    let file = OpenFile::read_only(database).map_err(OfflineError::unread(database))?;
    match file.try_lock() {
        Ok(true) => Ok(file),
        Ok(false) => Err(OfflineError::InUse { path: root.to_owned(), holder: Locker::of(database) }),
        Err(cause) => Err(OfflineError::io("locking", database)(cause)),
    }
}

/// Refuses keys of the v2 API in the newest snapshot file that can be read.
fn check_tree(snaps: &FileDirectory) -> Result<(), OfflineError> {
    for name in snap::list(snaps)? {
        match snap::read(snaps, &name) {
            Ok(snapshot) => return Ok(exchange::check_tree(&snapshot.data)?),
            Err(SnapError::Damaged { .. }) => {}
            Err(cause) => return Err(cause.into()),
        }
    }
    Ok(())
}

/// The database, or the one of a received snapshot that etcd had no time to put in its place.
fn newest_database(
    snaps: &FileDirectory,
    database: PathBuf,
    survey: &Survey<FileDirectory>,
) -> Result<(PathBuf, Position), OfflineError> {
    let position = position(&database)?;
    let committed = survey.snapshots.iter().filter(|mark| mark.index <= survey.hard_state.commit);
    let newest = committed.map(|mark| mark.index).max().unwrap_or(0);
    if position.index >= newest {
        return Ok((database, position));
    }
    let received = snaps.path(&format!("{newest:016x}.snap.db"));
    let behind = OfflineError::Behind { database, stands: LogIndex(position.index), snapshot: LogIndex(newest) };
    if !received.is_file() {
        return Err(behind);
    }
    let position = self::position(&received)?;
    if position.index < newest { Err(behind) } else { Ok((received, position)) }
}

fn position(database: &Path) -> Result<Position, OfflineError> {
    let file = OpenFile::read_only(database).map_err(OfflineError::io("opening", database))?;
    let reader = Reader::open(file).map_err(exchange::ExchangeError::from)?;
    Ok(database::position(&reader).map_err(exchange::ExchangeError::from)?)
}

/// The newest snapshot that the log goes on from without a gap, at or behind the database; the database itself if it stands
/// behind the end of the log.
fn base(survey: &Survey<FileDirectory>, position: &Position) -> Result<walpb::Snapshot, OfflineError> {
    if position.index > survey.last.0 {
        return Ok(walpb::Snapshot { index: position.index, term: position.term, conf_state: None });
    }
    let reaches = |mark: &&walpb::Snapshot| mark.index <= position.index && mark.index + 1 >= survey.first.0;
    let newest = survey.snapshots.iter().filter(reaches).max_by_key(|mark| mark.index);
    newest.cloned().ok_or(OfflineError::NoStart { first: survey.first, stands: LogIndex(position.index) })
}

/// What was applied is committed, and was so in a term that this member knew, whether its log got to say so or not.
fn matched(hard_state: HardState, position: &Position, last: LogIndex) -> HardState {
    let commit = hard_state.commit.max(position.index);
    let commit = if position.index > last.0 { position.index } else { commit.min(last.0) };
    if position.term > hard_state.term {
        // In that term it cannot have told anybody of a vote: that is synced before.
        return HardState { term: position.term, vote: 0, commit };
    }
    HardState { commit, ..hard_state }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_applied_is_committed() {
        let state = |term, vote, commit| HardState { term, vote, commit };
        let position = |index, term| Position { index, term, storage_version: None };
        let last = LogIndex(10);
        assert_eq!(matched(state(2, 7, 5), &position(8, 2), last), state(2, 7, 8), "commits are synced late");
        assert_eq!(matched(state(2, 7, 9), &position(8, 2), last), state(2, 7, 9));
        assert_eq!(matched(state(2, 7, 12), &position(8, 2), last), state(2, 7, 10), "a torn end was cut off");
        assert_eq!(matched(state(2, 7, 5), &position(12, 3), last), state(3, 0, 12), "applied beside the log");
    }
}
