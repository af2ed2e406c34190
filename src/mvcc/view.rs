//! The readers' side.

use bytes::Bytes;

use super::{HashKv, History, HistoryLimits, RangePlan, ReadError};
use crate::{
    pb::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse},
    storage::Read,
    types::{KeyRange, LeaseId},
};

/// A read state: a snapshot and the revision it stands at. Cheap to clone; never changes.
#[derive(Clone, Debug)]
pub struct View<S> {
    _snapshot: S,
    revision: i64,
    compact_revision: i64,
}

impl<S: Read> View<S> {
    /// The store's revision at the snapshot.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compaction accepted at the snapshot; −1 if there was none.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// Answers a range in one piece, `header.revision` included.
    ///
    /// # Errors
    /// [`Rejection::Compacted`](crate::types::Rejection::Compacted),
    /// [`Rejection::FutureRevision`](crate::types::Rejection::FutureRevision).
    pub fn range(&self, _request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        todo!()
    }

    /// Prepares the same answer for delivery in chunks: the exact encoded size first, then bounded pieces.
    ///
    /// # Errors
    /// As [`Self::range`].
    pub fn plan(&self, _request: &RangeRequest) -> Result<RangePlan<S>, ReadError> {
        todo!()
    }

    /// Answers a transaction that only reads (`check::is_read_only`).
    ///
    /// # Errors
    /// As [`Self::range`], for any range of the chosen path.
    pub fn read_txn(&self, _request: &TxnRequest) -> Result<TxnResponse, ReadError> {
        todo!()
    }

    /// The changes inside `range` from revision `from` on, for a watcher that catches up.
    ///
    /// # Errors
    /// [`Rejection::Compacted`](crate::types::Rejection::Compacted) if `from` lies below the compaction.
    pub fn history(&self, _range: &KeyRange, _from: i64, _limits: HistoryLimits) -> Result<History, ReadError> {
        todo!()
    }

    /// etcd's hash of the key space at `revision` (0: the current one), computed in one go.
    ///
    /// # Errors
    /// [`Rejection::Compacted`](crate::types::Rejection::Compacted),
    /// [`Rejection::FutureRevision`](crate::types::Rejection::FutureRevision).
    pub fn hash_kv(&self, _revision: i64) -> Result<HashKv, ReadError> {
        todo!()
    }

    /// The keys attached to `lease`, in key order.
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn lease_keys(&self, _lease: LeaseId) -> Result<Vec<Bytes>, ReadError> {
        todo!()
    }
}
