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
//! - What [`Wal::open`] returns is durable: it may have been read from the page cache of a process that was killed
//!   before its sync.
//! - No length read from a file is trusted: nothing is allocated beyond what the file holds.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::{
    pb::{raftpb, walpb},
    types::{ClusterId, LogIndex, MemberId, Term},
};

mod ahead;
mod map;
mod reader;
mod record;
mod scan;
mod segment;
mod writer;

pub use ahead::Filler;
pub use reader::{Reader, Survey, survey};
pub use record::{Frame, RECORD_BYTES_MAX, decode_frame};
pub use writer::Wal;

#[cfg(test)]
mod tests;

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
    /// The position before the first readable entry, with its term. Never after what is applied.
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
    /// The segment. Its former contents are in a file of this name with `.broken` appended.
    pub file: String,
    /// Where it ends now.
    pub offset: u64,
    /// What was found there.
    pub what: &'static str,
}

/// The log could not be read or written.
#[derive(Debug, Error)]
pub enum WalError {
    /// The operating system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its answer.
        #[source]
        cause: io::Error,
    },
    /// There is a log already.
    #[error("{} holds a write-ahead log already; start without forming a new cluster, or move it away", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// There is no log.
    #[error("{} holds no write-ahead log", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Another process uses the log.
    #[error("{} is locked by another process; is this member running already?", path.display())]
    Locked {
        /// The segment.
        path: PathBuf,
    },
    /// A segment is gone.
    #[error(
        "segments are missing between {} and {}; \
         bring them back, or remove this member from the cluster and add it again",
        before.display(), after.display()
    )]
    MissingSegment {
        /// The last segment before the gap.
        before: PathBuf,
        /// The first segment after it.
        after: PathBuf,
    },
    /// A record is damaged where no interrupted write can have damaged it.
    #[error(
        "{} is damaged at offset {offset}: {what}; this is no interrupted write: check the disk, \
         then remove this member from the cluster and add it again, or restore from a snapshot",
        path.display()
    )]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where the damaged record begins.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A record of a kind this version does not know.
    #[error(
        "{} holds a record of unknown type {kind} at offset {offset}; \
         if a newer version wrote it, start that version; otherwise it is damaged: check the disk, then remove this member \
         from the cluster and add it again, or restore from a snapshot",
        path.display()
    )]
    UnknownRecord {
        /// The segment.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// Its type.
        kind: i64,
    },
    /// The log has dropped what the state machine needs next.
    #[error(
        "the log starts after entry {start}, but the state has applied only {applied}; \
         remove this member from the cluster and add it again, or restore from a snapshot"
    )]
    StartsAfter {
        /// What the log starts after.
        start: LogIndex,
        /// What the state machine holds.
        applied: LogIndex,
    },
    /// A snapshot was received and logged, but the state machine does not hold it: finish its installation, then open
    /// the log with its position.
    #[error("the log begins with the snapshot at {index}, but the state has applied only {applied}")]
    SnapshotAhead {
        /// The snapshot's index.
        index: LogIndex,
        /// Its term.
        term: Term,
        /// What the state machine holds.
        applied: LogIndex,
    },
    /// State and log are not of one history.
    #[error(
        "entry {index} is of term {log} in the log but of term {state} in the state; \
         the two are not from the same member: check the data directories"
    )]
    OtherHistory {
        /// The state machine's position.
        index: LogIndex,
        /// Its term in the log.
        log: Term,
        /// Its term in the state machine.
        state: Term,
    },
    /// A write or sync failed before. Nothing more is written.
    #[error("the log is closed after a failed write to {}; restart the member", path.display())]
    Poisoned {
        /// The segment.
        path: PathBuf,
    },
    /// The record is longer than any reader accepts.
    #[error("an entry of {bytes} bytes is too long for the log")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The entry is not readable any more, or not yet.
    #[error("entry {index} is not in the log files")]
    Gone {
        /// The entry.
        index: LogIndex,
    },
}

impl WalError {
    fn io(action: &'static str, path: PathBuf, cause: io::Error) -> Self {
        Self::Io { action, path, cause }
    }
}
