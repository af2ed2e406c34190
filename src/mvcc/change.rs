//! One request being carried out.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Changes, LeaseExists, ReadError, Store, plan,
    rows::{self, Put, Trace, Version},
    state::State,
    txn::{self, Path},
};
use crate::{
    pb::{
        etcdserverpb::{
            DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
            ResponseHeader, ResponseOp, TxnRequest, TxnResponse, request_op::Request, response_op::Response,
        },
        mvccpb::{Event, KeyValue, event::EventType},
    },
    storage::{Batch, Read, StorageError, Table},
    types::{KEY_BYTES_MAX, KeyEnd, KeyRange, LeaseId, Revision},
};

/// One request being carried out: everything it changes gets one revision, and successive sub-revisions.
///
/// A refusal leaves the batch as it was. After a [`ReadError::Storage`] batch and store are useless.
#[derive(Debug)]
pub struct Change<'a, R> {
    store: &'a mut Store,
    batch: &'a mut Batch<R>,
    events: Vec<Event>,
}

impl<'a, R: Read> Change<'a, R> {
    pub(super) fn new(store: &'a mut Store, batch: &'a mut Batch<R>) -> Self {
        Self { store, batch, events: Vec::new() }
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
        self.carry_out_put(request)
    }

    /// Deletes an interval. `header.revision` is the new revision if anything was deleted, else the current one.
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, ReadError> {
        let range = KeyRange::new(request.key.clone(), &request.range_end);
        let dying = self.state().pairs(&range, i64::MAX).collect::<Result<Vec<_>, _>>()?;
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
        let mut response = self.carry_out(request, &mut path.walk())?;
        response.header = Some(self.header());
        Ok(response)
    }

    /// Deletes every key attached to `lease`, in key order, as its revocation does; the lease row itself is the
    /// caller's. Returns the number of keys.
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn delete_lease_keys(&mut self, lease: LeaseId) -> Result<u64, ReadError> {
        let keys = super::view::attached(self.batch, lease)?;
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
        self.store.revision += 1;
        Some(Changes { revision: self.store.revision, events: self.events })
    }

    /// The newest state, this change's writes included.
    fn state(&self) -> State<'_, Batch<R>> {
        State {
            read: self.batch,
            revision: self.store.revision + i64::from(!self.events.is_empty()),
            compact_revision: self.store.compact_revision(),
            counts: &self.store.counts,
        }
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
        if request.key.len() > KEY_BYTES_MAX {
            // Refused before it is proposed; in a foreign log it cannot be applied and must not be skipped.
            return Err(StorageError::KeyTooLong { bytes: request.key.len(), table: Table::Live.prefix() }.into());
        }
        let old = self.state().newest(&request.key)?;
        let kept = old.as_ref().map(|old| &old.put);
        // Checked before: only an operation of the same transaction can have removed a key whose value or lease is to be
        // kept (etcd's check lets some such pass, and etcd then stops). Nothing is kept then.
        let main = self.store.revision + 1;
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
        let new = Version { modified: self.next_revision(), put };
        let pair = new.key_value(key.clone());
        self.trace(new.modified, &key, old.as_ref(), Some(&pair));
        self.batch.put(Table::Live.key(&key), new.encode_live());
        self.attach(&key, old.as_ref().map_or(0, |old| old.put.lease), new.put.lease);
        match &old {
            Some(old) => self.batch.put(rows::version_key(&key, old.modified), old.encode_superseded()),
            None => self.count_one_more(&key)?,
        }
        self.push_event(EventType::Put, pair, key, old);
        Ok(())
    }

    /// Writes a tombstone of `key` over `old`.
    fn remove(&mut self, key: Bytes, old: Version) -> Result<(), StorageError> {
        let modified = self.next_revision();
        self.trace(modified, &key, Some(&old), None);
        self.batch.delete(Table::Live.key(&key));
        self.batch.put(rows::version_key(&key, old.modified), old.encode_superseded());
        self.batch.put(rows::version_key(&key, modified), rows::tombstone());
        self.attach(&key, old.put.lease, 0);
        Arc::make_mut(&mut self.store.counts).remove(&key, self.batch)?;
        let pair = KeyValue { key: key.clone(), mod_revision: modified.main, ..KeyValue::default() };
        self.push_event(EventType::Delete, pair, key, Some(old));
        Ok(())
    }

    fn next_revision(&self) -> Revision {
        Revision { main: self.store.revision + 1, sub: count(self.events.len()) }
    }

    /// Writes the row of the `Revision` table for a change to `new`, or for a tombstone.
    fn trace(&mut self, at: Revision, key: &Bytes, old: Option<&Version>, new: Option<&KeyValue>) {
        let grave = rows::etcd_tombstone(key.clone());
        let tombstone = new.is_none();
        let (len, crc) = rows::etcd_sum(at, tombstone, new.unwrap_or(&grave), &mut self.store.scratch);
        self.store.digest = super::digest::extend(self.store.digest, len, crc);
        let (creates, supersedes) = (old.is_none(), old.map(|old| old.modified));
        let trace = Trace { tombstone, creates, supersedes, len, crc, digest: self.store.digest, key: key.clone() };
        self.batch.put(Bytes::copy_from_slice(&rows::revision_key(at)), trace.encode());
    }

    /// Moves `key` from one lease to another; zero is no lease.
    fn attach(&mut self, key: &[u8], from: i64, to: i64) {
        if from == to {
            return;
        }
        if from != 0 {
            self.batch.delete(rows::lease_key(from, key));
        }
        if to != 0 {
            self.batch.put(rows::lease_key(to, key), Bytes::new());
        }
    }

    fn count_one_more(&mut self, key: &[u8]) -> Result<(), StorageError> {
        let counts = Arc::make_mut(&mut self.store.counts);
        let Some(overfull) = counts.add(key, self.batch) else { return Ok(()) };
        let end = overfull.end.clone().map_or(KeyEnd::Open, KeyEnd::Before);
        let range = KeyRange { start: overfull.start.clone(), end };
        let keys =
            self.state().pairs(&range, i64::MAX).map(|pair| Ok(pair?.0)).collect::<Result<Vec<_>, StorageError>>()?;
        // Keys that arrive in order fill a chunk and leave it: then the new chunk begins with the newest key.
        let at = if keys.last().is_some_and(|last| last == key) { keys.len() - 1 } else { keys.len() / 2 };
        if let (Some(first), Ok(below)) = (keys.get(at), u32::try_from(at)) {
            Arc::make_mut(&mut self.store.counts).split(&overfull, first.clone(), below, self.batch);
        }
        Ok(())
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
