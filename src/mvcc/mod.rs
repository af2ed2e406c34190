//! The multi-version key space: revisions, ranges, transactions, compaction, hashes.
//!
//! [`Store`] is the single writer's value. For each request it opens a [`Change`] over the batch of the group of
//! entries; what the change writes is in the batch, what happened is in the [`Changes`] it ends with. [`View`] is what
//! readers get: a snapshot together with the revision it stands at. Rows are described in `rows`.
//!
//! Invariants:
//! - a living key has one row in `Live`, its newest version; every other version, and every tombstone, that compaction
//!   has not removed has one in `Version`; and each of them has one in `Revision`;
//! - a request changes the revision by one if it changes anything, and not at all if it does not;
//! - all of it follows from the log alone: no clock, no chance, no configuration.

mod change;
pub mod check;
mod compact;
mod counts;
mod digest;
#[cfg(test)]
mod harness;
mod hash;
mod history;
mod load;
#[cfg(test)]
mod model;
mod plan;
mod rows;
#[cfg(test)]
mod rules;
mod state;
mod store;
mod transfer;
mod txn;
#[cfg(test)]
mod vectors;
mod verify;
mod view;
mod write;

use thiserror::Error;

use crate::{
    pb::mvccpb::Event,
    storage::StorageError,
    types::{LeaseId, Rejection},
};

pub use change::Change;
pub use compact::{CompactionStep, Compactor};
pub use hash::{CompactionHashes, HashKv, HashWork};
pub use history::{History, HistoryLimits, RevisionEvents};
pub use load::{ImportError, Loader, RowCheck};
pub use plan::{Chunk, RangePlan};
pub use store::Store;
pub use transfer::{COMPACTION_ROWS, EtcdRow, EtcdRows};
pub use verify::Verified;
pub use view::{View, attached};

/// The last revision that a change can have: what comes behind it, such as where a watch goes on, is still a number.
pub const REVISION_MAX: i64 = i64::MAX - 1;
/// The last revision that others can be passed over up to: at least as many are left for changes.
pub const REVISION_BUMPED_MAX: i64 = i64::MAX / 2;

/// Why a read or a change was not carried out.
#[derive(Debug, Clone, Error)]
pub enum ReadError {
    /// Every member refuses alike; nothing was written.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// This member's store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Answers whether a lease exists, from the replicated rows.
pub type LeaseExists<'a> = &'a dyn Fn(LeaseId) -> bool;

/// What one request changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// The new revision of the store.
    pub revision: i64,
    /// In the order of their sub-revisions. `kv` is always there (of a delete: key and mod revision only); `prev_kv`
    /// whenever the change replaced or removed a living pair. The watch layer strips what a watcher did not ask for.
    pub events: Vec<Event>,
}
