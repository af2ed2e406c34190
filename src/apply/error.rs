//! Why this member cannot go on applying.

use thiserror::Error;

use super::EntryError;
use crate::{
    auth::AuthRowError,
    lease::LeaseRowError,
    membership::{RowError, Version},
    storage::StorageError,
    types::{ClusterId, LogIndex, Rejection},
};

/// A failure of this member alone: going on would let it diverge from the others, so it stops.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The store failed while an entry was applied.
    #[error("applying entry {index}")]
    Storage {
        /// The entry.
        index: LogIndex,
        /// What failed.
        #[source]
        cause: StorageError,
    },
    /// The entry is not understood completely.
    #[error("applying entry {index}")]
    Entry {
        /// The entry.
        index: LogIndex,
        /// What is wrong with it.
        #[source]
        cause: EntryError,
    },
    /// Entries are missing.
    #[error("entry {index} follows entry {applied}: the entries between them are missing")]
    Gap {
        /// The entry at hand.
        index: LogIndex,
        /// The last applied entry.
        applied: LogIndex,
    },
    /// The cluster has agreed on a version that this member does not speak.
    #[error(
        "entry {index} raises the cluster version to {cluster}, but this member speaks {own}; start it with a newer version"
    )]
    VersionTooOld {
        /// The entry.
        index: LogIndex,
        /// What the cluster agreed on.
        cluster: Version,
        /// What this member reports.
        own: Version,
    },
    /// Reading or writing the state outside of any entry failed.
    #[error("reading the replicated state")]
    Open(#[from] OpenError),
    /// The key space refused to remove what it had agreed to remove.
    #[error("removing compacted rows behind entry {applied} was refused: {rejection}")]
    Compaction {
        /// The last applied entry.
        applied: LogIndex,
        /// The refusal.
        rejection: Rejection,
    },
    /// An earlier failure was final.
    #[error("applying has failed before; restart the member")]
    Failed,
}

/// Why a state cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A damaged row about the cluster.
    #[error(transparent)]
    Cluster(#[from] RowError),
    /// A damaged lease row.
    #[error(transparent)]
    Lease(#[from] LeaseRowError),
    /// A damaged alarm row.
    #[error("alarm row {0} is damaged")]
    Alarm(String),
    /// A damaged row about the state itself.
    #[error("state row {0:?} is damaged")]
    Meta(&'static str),
    /// Rows and position are not of one moment.
    #[error(
        "the state says that it was at revision {recorded} after entry {index}, but its rows are at revision {found}: its \
         files are damaged; check the disk, then remove this member from the cluster and add it again with an empty data \
         directory, or restore the data directory from a backup"
    )]
    Torn {
        /// The last applied entry, by the row that says so.
        index: LogIndex,
        /// The revision in that row.
        recorded: i64,
        /// The revision of the newest change.
        found: i64,
    },
    /// The state belongs to another cluster.
    #[error(
        "the state belongs to cluster {stored}, but this member belongs to cluster {own}; check the data directory"
    )]
    OtherCluster {
        /// In the state.
        stored: ClusterId,
        /// Asked for.
        own: ClusterId,
    },
    /// A damaged row about users, roles or authentication.
    #[error(transparent)]
    AuthRow(#[from] AuthRowError),
    /// The cluster has agreed on a version that this member does not speak.
    #[error("the cluster runs at version {cluster}, but this member speaks {own}; start it with a newer version")]
    VersionTooOld {
        /// What the cluster agreed on.
        cluster: Version,
        /// What this member reports.
        own: Version,
    },
}
