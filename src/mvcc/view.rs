//! The readers' side.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{
    EtcdRows, HashKv, HashWork, History, HistoryLimits, RangePlan, ReadError, Verified, counts::Counts, history, plan,
    rows, state::State, txn, verify,
};
use crate::{
    pb::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse},
    storage::{Read, StorageError},
    types::{KeyRange, LeaseId},
};

/// A read state: a snapshot and the revision it stands at. Cheap to clone; never changes.
///
/// The snapshot keeps memory and files of the engine from being freed: hold a view as long as an answer takes, not longer.
#[derive(Clone, Debug)]
pub struct View<S> {
    snapshot: S,
    revision: i64,
    compact_revision: i64,
    digest: u64,
    counts: Arc<Counts>,
}

impl<S: Read> View<S> {
    pub(super) fn new(snapshot: S, revision: i64, compact_revision: i64, digest: u64, counts: Arc<Counts>) -> Self {
        Self { snapshot, revision, compact_revision, digest, counts }
    }

    pub(super) fn state(&self) -> State<'_, S> {
        let Self { snapshot, revision, compact_revision, digest: _, counts } = self;
        State { read: snapshot, revision: *revision, compact_revision: *compact_revision, counts }
    }

    /// The rows underneath, for the tables of other modules.
    pub fn snapshot(&self) -> &S {
        &self.snapshot
    }

    /// The store's revision at the snapshot.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compaction accepted at the snapshot; −1 if there was none.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// One number for all changes up to the store's revision: members that applied the same changes from the same
    /// beginning agree on it.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Number of living keys.
    pub fn keys(&self) -> u64 {
        self.counts.total()
    }

    /// About how many rows may still be read, rather too many than too few; as long as nothing was compacted, all.
    ///
    /// What lived at the compaction and does not now was deleted by a change since; every version has two rows.
    pub fn rows_needed(&self) -> u64 {
        if self.compact_revision < 0 {
            return u64::MAX;
        }
        let changes = self.revision.abs_diff(self.compact_revision);
        2 * (self.keys() + 2 * changes)
    }

    /// Answers a range in one piece, `header.revision` included.
    ///
    /// # Errors
    /// [`Rejection::Compacted`](crate::types::Rejection::Compacted),
    /// [`Rejection::FutureRevision`](crate::types::Rejection::FutureRevision).
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        plan::answer(self.state(), request)
    }

    /// Prepares the same answer for delivery in chunks: the exact encoded size first, then bounded pieces.
    ///
    /// # Errors
    /// As [`Self::range`].
    pub fn plan(&self, request: &RangeRequest) -> Result<RangePlan<S>, ReadError>
    where
        S: Clone,
    {
        RangePlan::new(self.clone(), request)
    }

    /// Answers a transaction that only reads (`check::is_read_only`).
    ///
    /// # Errors
    /// As [`Self::range`], for any range of the chosen path.
    pub fn read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, ReadError> {
        txn::read(self.state(), request)
    }

    /// Whether the ranges of a transaction, on the path it would take now, read what is there.
    ///
    /// # Errors
    /// [`Rejection::Compacted`](crate::types::Rejection::Compacted),
    /// [`Rejection::FutureRevision`](crate::types::Rejection::FutureRevision); or the store cannot be read.
    pub fn check_ranges(&self, request: &TxnRequest) -> Result<(), ReadError> {
        txn::check_ranges(self.state(), request)
    }

    /// The changes inside `range` from revision `from` on, for a watcher that catches up.
    ///
    /// # Errors
    /// [`Rejection::Compacted`](crate::types::Rejection::Compacted) if `from` lies below the compaction.
    pub fn history(&self, range: &KeyRange, from: i64, limits: HistoryLimits) -> Result<History, ReadError> {
        self.history_of(&|key| range.contains(key), from, limits)
    }

    /// As [`Self::history`] for any set of keys, so that one pass over the past serves many watchers.
    ///
    /// # Errors
    /// As [`Self::history`].
    pub fn history_of(
        &self,
        wanted: &dyn Fn(&[u8]) -> bool,
        from: i64,
        limits: HistoryLimits,
    ) -> Result<History, ReadError> {
        history::read(self.state(), wanted, from, limits)
    }

    /// etcd's hash of the key space at `revision` (0: the current one), computed in one go.
    ///
    /// # Errors
    /// [`Rejection::Compacted`](crate::types::Rejection::Compacted),
    /// [`Rejection::FutureRevision`](crate::types::Rejection::FutureRevision).
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError>
    where
        S: Clone,
    {
        HashWork::new(self.clone(), revision)?.finish()
    }

    /// The rows etcd would have in its bucket `key`, byte for byte and in their order.
    pub fn etcd_rows(&self) -> EtcdRows<'_, S> {
        EtcdRows::new(self.state())
    }

    /// Compares the tables of the key space with each other, and every version with the checksum of its change. Reads
    /// everything.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn verify(&self) -> Result<Verified, StorageError> {
        verify::verify(self.state())
    }

    /// The keys attached to `lease`, in key order.
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn lease_keys(&self, lease: LeaseId) -> Result<Vec<Bytes>, ReadError> {
        Ok(attached(&self.snapshot, lease)?)
    }
}

/// The keys attached to `lease`, in key order.
///
/// # Errors
/// [`StorageError`] if the engine cannot read.
pub fn attached(read: &impl Read, lease: LeaseId) -> Result<Vec<Bytes>, StorageError> {
    let lower = rows::lease_key(lease.0, &[]);
    let attached = read.scan(Bound::Included(&lower), Bound::Unbounded);
    let attached = attached.take_while(|row| row.as_ref().map_or(true, |(key, _)| key.starts_with(&lower)));
    attached.map(|row| Ok(row?.0.slice(lower.len()..))).collect()
}
