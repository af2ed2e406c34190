//! One request being carried out.

use bytes::Bytes;

use super::{
    Changes, LeaseExists, REVISION_MAX, ReadError, Store, plan,
    rows::{Put, Version},
    state::State,
    txn::{self, Path},
    write::Writer,
};
use crate::{
    pb::{
        etcdserverpb::{
            DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
            ResponseHeader, ResponseOp, TxnRequest, TxnResponse, request_op::Request, response_op::Response,
        },
        mvccpb::{Event, KeyValue, event::EventType},
    },
    storage::{Batch, Read, StorageError},
    types::{KeyRange, LeaseId, Rejection, Revision},
};

/// One request being carried out: everything it changes gets one revision, and successive sub-revisions.
///
/// A refusal leaves the batch as it was. After a [`ReadError::Storage`] batch and store are useless.
#[derive(Debug)]
pub struct Change<'a, R> {
    writer: Writer<'a, R>,
    events: Vec<Event>,
}

impl<'a, R: Read> Change<'a, R> {
    pub(super) fn new(store: &'a mut Store, batch: &'a mut Batch<R>) -> Self {
        Self { writer: Writer { store, batch }, events: Vec::new() }
    }

    /// Puts one pair. `header.revision` of the answer is the revision of the put.
    ///
    /// # Errors
    /// [`Rejection::LeaseNotFound`](crate::types::Rejection::LeaseNotFound),
    /// [`Rejection::KeyNotFound`](crate::types::Rejection::KeyNotFound) for `ignore_…` on a missing key; nothing is
    /// written then.
    pub fn put(&mut self, request: &PutRequest, leases: LeaseExists<'_>) -> Result<PutResponse, ReadError> {
        txn::check_lease(request, leases)?;
        txn::check_kept(self.state(), request)?;
        self.check_revision()?;
        self.carry_out_put(request)
    }

    /// Deletes an interval. `header.revision` is the new revision if anything was deleted, else the current one.
    ///
    /// # Errors
    /// [`Rejection::RevisionsUsed`], [`ReadError::Storage`].
    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, ReadError> {
        let range = KeyRange::new(request.key.clone(), &request.range_end);
        let dying = self.state().pairs(&range, i64::MAX).collect::<Result<Vec<_>, _>>()?;
        if !dying.is_empty() {
            self.check_revision()?;
        }
        let mut response = DeleteRangeResponse { deleted: count(dying.len()), ..DeleteRangeResponse::default() };
        for (key, old) in dying {
            if request.prev_kv {
                response.prev_kvs.push(old.key_value(key.clone()));
            }
            self.remove(key, old)?;
        }
        response.header = Some(self.header());
        Ok(response)
    }

    /// Reads an interval, this change's writes included.
    ///
    /// # Errors
    /// [`Rejection::Compacted`](crate::types::Rejection::Compacted),
    /// [`Rejection::FutureRevision`](crate::types::Rejection::FutureRevision).
    pub fn range(&mut self, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        plan::answer(self.state(), request)
    }

    /// Carries out a transaction: compares, checks of the chosen path, then its operations.
    ///
    /// # Errors
    /// Any failing check refuses the whole transaction; nothing is written then.
    pub fn txn(&mut self, request: &TxnRequest, leases: LeaseExists<'_>) -> Result<TxnResponse, ReadError> {
        let path = txn::choose(self.state(), request)?;
        txn::check(self.state(), request, &path, leases)?;
        if let Err(used) = self.check_revision()
            && txn::writes(self.state(), request, &path)?
        {
            return Err(used.into());
        }
        let mut response = self.carry_out(request, &mut path.walk())?;
        response.header = Some(self.header());
        Ok(response)
    }

    /// Deletes every key attached to `lease`, in key order, as its revocation does; the lease row itself is the
    /// caller's. Returns the number of keys.
    ///
    /// # Errors
    /// [`Rejection::RevisionsUsed`], [`ReadError::Storage`].
    pub fn delete_lease_keys(&mut self, lease: LeaseId) -> Result<u64, ReadError> {
        let keys = super::view::attached(self.writer.batch, lease)?;
        if !keys.is_empty() {
            self.check_revision()?;
        }
        let mut deleted = 0;
        for key in keys {
            if let Some(old) = self.state().newest(&key)? {
                self.remove(key, old)?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Ends the request; nothing if it changed nothing.
    pub fn end(self) -> Option<Changes> {
        if self.events.is_empty() {
            return None;
        }
        self.writer.store.revision += 1;
        Some(Changes { revision: self.writer.store.revision, events: self.events })
    }

    /// The newest state, this change's writes included.
    fn state(&self) -> State<'_, Batch<R>> {
        self.writer.state(self.writer.store.revision + i64::from(!self.events.is_empty()))
    }

    /// Refuses a change for which there is no revision, before anything of it is written.
    fn check_revision(&self) -> Result<(), Rejection> {
        if self.writer.store.revision < REVISION_MAX { Ok(()) } else { Err(Rejection::RevisionsUsed) }
    }

    fn header(&self) -> ResponseHeader {
        ResponseHeader { revision: self.state().revision, ..ResponseHeader::default() }
    }

    fn carry_out(&mut self, request: &TxnRequest, path: &mut Path<'_>) -> Result<TxnResponse, ReadError> {
        let succeeded = path.next();
        let operations = txn::branch(request, succeeded);
        let responses = operations.iter().map(|operation| self.carry_out_operation(operation, path));
        let responses = responses.collect::<Result<_, _>>()?;
        // A nested answer has a header that says nothing; the outermost one is filled by the caller.
        Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses })
    }

    fn carry_out_operation(&mut self, operation: &RequestOp, path: &mut Path<'_>) -> Result<ResponseOp, ReadError> {
        let response = match &operation.request {
            Some(Request::RequestRange(range)) => Some(Response::ResponseRange(self.range(range)?)),
            Some(Request::RequestPut(put)) => Some(Response::ResponsePut(self.carry_out_put(put)?)),
            Some(Request::RequestDeleteRange(delete)) => {
                Some(Response::ResponseDeleteRange(self.delete_range(delete)?))
            }
            Some(Request::RequestTxn(txn)) => Some(Response::ResponseTxn(self.carry_out(txn, path)?)),
            None => None,
        };
        Ok(ResponseOp { response })
    }

    fn carry_out_put(&mut self, request: &PutRequest) -> Result<PutResponse, ReadError> {
        let old = self.state().newest(&request.key)?;
        let kept = old.as_ref().map(|old| &old.put);
        // Checked before: only an operation of the same transaction can have removed a key whose value or lease is to be
        // kept (etcd's check lets some such pass, and etcd then stops). Nothing is kept then.
        let main = self.writer.store.revision + 1;
        let put = Put {
            create: kept.map_or(main, |kept| kept.create),
            version: kept.map_or(0, |kept| kept.version).wrapping_add(1),
            lease: kept.filter(|_| request.ignore_lease).map_or(request.lease, |kept| kept.lease),
            value: kept
                .filter(|_| request.ignore_value)
                .map_or_else(|| request.value.clone(), |kept| kept.value.clone()),
        };
        let prev_kv = old.as_ref().filter(|_| request.prev_kv).map(|old| old.key_value(request.key.clone()));
        self.replace(request.key.clone(), old, put)?;
        Ok(PutResponse { header: Some(self.header()), prev_kv })
    }

    /// Writes a new version of `key` over `old`.
    fn replace(&mut self, key: Bytes, old: Option<Version>, put: Put) -> Result<(), StorageError> {
        let pair = self.writer.replace(&key, self.next_revision(), old.as_ref(), put)?;
        self.push_event(EventType::Put, pair, key, old);
        Ok(())
    }

    /// Writes a tombstone of `key` over `old`.
    fn remove(&mut self, key: Bytes, old: Version) -> Result<(), StorageError> {
        let at = self.next_revision();
        self.writer.remove(&key, at, Some(&old))?;
        let pair = KeyValue { key: key.clone(), mod_revision: at.main, ..KeyValue::default() };
        self.push_event(EventType::Delete, pair, key, Some(old));
        Ok(())
    }

    fn next_revision(&self) -> Revision {
        Revision { main: self.writer.store.revision + 1, sub: count(self.events.len()) }
    }

    fn push_event(&mut self, kind: EventType, kv: KeyValue, key: Bytes, old: Option<Version>) {
        let prev_kv = match old {
            // Watchers see the pair before the request, not one in the middle of it.
            Some(old) if old.modified.main == kv.mod_revision => {
                let earlier = self.events.iter().find(|event| event.kv.as_ref().is_some_and(|kv| kv.key == key));
                earlier.and_then(|event| event.prev_kv.clone())
            }
            old => old.map(|old| old.key_value(key)),
        };
        self.events.push(Event { r#type: kind.into(), kv: Some(kv), prev_kv });
    }
}

/// A length as the wire has it.
fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
