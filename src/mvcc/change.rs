//! One request being carried out.

use super::{Changes, LeaseExists, ReadError, Store};
use crate::{
    pb::etcdserverpb::{
        DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest,
        TxnResponse,
    },
    storage::{Batch, Read},
    types::LeaseId,
};

/// One request being carried out: everything it changes gets one revision, and successive sub-revisions.
#[derive(Debug)]
pub struct Change<'a, R> {
    _store: &'a mut Store,
    _batch: &'a mut Batch<R>,
}

impl<R: Read> Change<'_, R> {
    /// Puts one pair. `header.revision` of the answer is the revision of the put.
    ///
    /// # Errors
    /// [`Rejection::LeaseNotFound`](crate::types::Rejection::LeaseNotFound),
    /// [`Rejection::KeyNotFound`](crate::types::Rejection::KeyNotFound) for `ignore_…` on a missing key; nothing is
    /// written then.
    pub fn put(&mut self, _request: &PutRequest, _leases: LeaseExists<'_>) -> Result<PutResponse, ReadError> {
        todo!()
    }

    /// Deletes an interval. `header.revision` is the new revision if anything was deleted, else the current one.
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn delete_range(&mut self, _request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, ReadError> {
        todo!()
    }

    /// Reads an interval, this change's writes included.
    ///
    /// # Errors
    /// [`Rejection::Compacted`](crate::types::Rejection::Compacted),
    /// [`Rejection::FutureRevision`](crate::types::Rejection::FutureRevision).
    pub fn range(&mut self, _request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        todo!()
    }

    /// Carries out a transaction: compares, checks of the chosen path, then its operations.
    ///
    /// # Errors
    /// Any failing check refuses the whole transaction; nothing is written then.
    pub fn txn(&mut self, _request: &TxnRequest, _leases: LeaseExists<'_>) -> Result<TxnResponse, ReadError> {
        todo!()
    }

    /// Deletes every key attached to `lease`, in key order, as its revocation does; the lease row itself is the
    /// caller's. Returns the number of keys.
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn delete_lease_keys(&mut self, _lease: LeaseId) -> Result<u64, ReadError> {
        todo!()
    }

    /// Ends the request; nothing if it changed nothing.
    pub fn end(self) -> Option<Changes> {
        todo!()
    }
}
