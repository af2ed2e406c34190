//! The write-ahead log, in etcd's format byte for byte.
//!
//! The log is the redo log of everything: what it holds durably is what this member has promised to its cluster.
//! [`Wal`] appends and syncs on one thread; a [`Reader`] fetches entries for peers that lag; the module knows nothing
//! of raft beyond entries, hard states and snapshot marks.
//!
//! Invariants:
//! - A record is durable after [`Wal::sync`] has returned, with everything appended before it.
//! - After a failed write or sync the log is poisoned: every later call fails, and only a restart reads what is there.
//! - Only the end of the last segment can be torn, and only there is a broken record cut off (a copy stays beside it,
//!   `.broken`). A broken record anywhere else is refused, naming file and offset.
//! - No length read from a file is trusted: nothing is allocated beyond what the file holds.

use thiserror::Error;

use crate::{
    disk::Directory,
    pb::{raftpb, walpb},
    types::{ClusterId, LogIndex, MemberId, Term},
};

/// A segment is closed after the batch that fills it to here; etcd's size.
pub const SEGMENT_BYTES: u64 = 64_000_000;

/// How the log behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// See [`SEGMENT_BYTES`]. Tests use less.
    pub segment_bytes: u64,
    /// `unsafe-no-fsync`: promises survive a killed process, but no power failure.
    pub unsafe_no_fsync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, unsafe_no_fsync: false }
    }
}

/// Whose log it is: written at the head of every segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
}

/// Neighbouring entries of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermRun {
    /// The first of them.
    pub first: LogIndex,
    /// Their term.
    pub term: Term,
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Whose it is.
    pub metadata: Metadata,
    /// The last hard state; zeros if there is none.
    pub hard_state: raftpb::HardState,
    /// The position before the first readable entry, with its term.
    pub start: (LogIndex, Term),
    /// Terms of the readable entries, oldest first.
    pub terms: Vec<TermRun>,
    /// The last entry; `start` if there is none.
    pub last: LogIndex,
    /// Every snapshot mark that was read, in order of writing.
    pub snapshots: Vec<walpb::Snapshot>,
    /// What was cut off the torn end, if anything.
    pub repaired: Option<Repair>,
}

/// A torn end that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The segment.
    pub file: String,
    /// Where it ends now.
    pub offset: u64,
}

/// The log could not be read or written.
#[derive(Debug, Error)]
pub enum WalError {
    /// Something is wrong with the files.
    #[error("write-ahead log: {0}")]
    Other(String),
}

/// A log open for appending. Belongs to one thread.
#[derive(Debug)]
pub struct Wal<D: Directory> {
    directory: D,
}

/// Reads entries back while the log is being written. Clones share the map of the log.
#[derive(Clone, Debug)]
pub struct Reader<D: Directory> {
    directory: D,
}

impl<D: Directory> Wal<D> {
    /// Whether `directory` holds a log.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn exists(directory: &D) -> Result<bool, WalError> {
        let names = directory.names().map_err(|error| WalError::Other(error.to_string()))?;
        Ok(!names.is_empty())
    }

    /// Creates the first segment, durably.
    ///
    /// # Errors
    /// If there is a log already, or on failure to write.
    pub fn create(directory: D, metadata: Metadata, options: &Options) -> Result<Self, WalError> {
        let _ = (metadata, options);
        Ok(Self { directory })
    }

    /// Opens the log to go on after `applied`, the position (and its term) of the durable state: reads from the
    /// segment that holds it, repairs a torn end, and locks every segment.
    ///
    /// # Errors
    /// If the log is damaged, foreign, locked, starts after `applied` or contradicts its term.
    pub fn open(directory: D, applied: (LogIndex, Term), options: &Options) -> Result<(Self, Log), WalError> {
        let _ = (directory, applied, options);
        Err(WalError::Other(String::new()))
    }

    /// Adds entries, then the hard state, to the batch being built. The first entry may replace earlier ones.
    ///
    /// # Errors
    /// If the log is poisoned or a write fails: a large batch is written as it grows.
    pub fn append(&mut self, entries: &[raftpb::Entry], state: Option<&raftpb::HardState>) -> Result<(), WalError> {
        let _ = (entries, state, &mut self.directory);
        Ok(())
    }

    /// Adds a snapshot mark: the state at this index is durable outside the log. A mark that does not match the
    /// log's own entry replaces the whole log before it.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn mark_snapshot(&mut self, snapshot: &walpb::Snapshot) -> Result<(), WalError> {
        let _ = (snapshot, &mut self.directory);
        Ok(())
    }

    /// Writes the batch without making it durable (a hard state of which only the commit index changed).
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn flush(&mut self) -> Result<(), WalError> {
        let _ = &mut self.directory;
        Ok(())
    }

    /// Writes the batch and makes everything appended so far durable: one write, one `fdatasync`.
    ///
    /// # Errors
    /// On failure to write or sync, which poisons the log.
    pub fn sync(&mut self) -> Result<(), WalError> {
        let _ = &mut self.directory;
        Ok(())
    }

    /// Removes segments that hold nothing after `index`, oldest first, as long as more than `keep` remain. Returns
    /// how many were removed.
    ///
    /// # Errors
    /// On failure to remove.
    pub fn release(&mut self, index: LogIndex, keep: usize) -> Result<usize, WalError> {
        let _ = (index, keep, &mut self.directory);
        Ok(0)
    }

    /// A reader for another thread.
    pub fn reader(&self) -> Reader<D> {
        Reader { directory: self.directory.clone() }
    }
}

impl<D: Directory> Reader<D> {
    /// Entries from `first` to `last`, at most; stops after the entry that makes their encoded size exceed
    /// `bytes_max`. At least one entry.
    ///
    /// # Errors
    /// If the entries are gone or damaged.
    pub fn entries(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Result<Vec<raftpb::Entry>, WalError> {
        let _ = (first, last, bytes_max, &self.directory);
        Ok(Vec::new())
    }
}
