//! Writing one change into all tables that know of it.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Store, digest,
    rows::{self, Put, Trace, Version},
    state::State,
};
use crate::{
    pb::mvccpb::KeyValue,
    storage::{Batch, Read, StorageError, Table},
    types::{KEY_BYTES_MAX, KeyEnd, KeyRange, Revision},
};

/// The store and the batch it writes to.
#[derive(Debug)]
pub(super) struct Writer<'a, R> {
    pub(super) store: &'a mut Store,
    pub(super) batch: &'a mut Batch<R>,
}

impl<R: Read> Writer<'_, R> {
    /// The newest state, `revision` being its revision.
    pub(super) fn state(&self, revision: i64) -> State<'_, Batch<R>> {
        let compact_revision = self.store.compact_revision();
        State { read: self.batch, revision, compact_revision, counts: &self.store.counts }
    }

    /// Writes a new version of `key` over `old`, and returns it as clients see it.
    ///
    /// # Errors
    /// [`StorageError::KeyTooLong`]: such a key is refused before it is proposed; in a foreign log or file it cannot be
    /// written and must not be skipped.
    pub(super) fn replace(
        &mut self,
        key: &Bytes,
        at: Revision,
        old: Option<&Version>,
        put: Put,
    ) -> Result<KeyValue, StorageError> {
        check_key(key)?;
        let new = Version { modified: at, put };
        let pair = new.key_value(key.clone());
        self.trace(at, key, old, Some(&pair));
        self.batch.put(Table::Live.key(key), new.encode_live());
        self.attach(key, old.map_or(0, |old| old.put.lease), new.put.lease);
        match old {
            Some(old) => self.batch.put(rows::version_key(key, old.modified), old.encode_superseded()),
            None => self.count_one_more(key)?,
        }
        Ok(pair)
    }

    /// Writes a tombstone of `key` over `old`; there is none in a file that begins with the tombstone.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub(super) fn remove(&mut self, key: &Bytes, at: Revision, old: Option<&Version>) -> Result<(), StorageError> {
        check_key(key)?;
        self.trace(at, key, old, None);
        self.batch.put(rows::version_key(key, at), rows::tombstone());
        let Some(old) = old else { return Ok(()) };
        self.batch.delete(Table::Live.key(key));
        self.batch.put(rows::version_key(key, old.modified), old.encode_superseded());
        self.attach(key, old.put.lease, 0);
        Arc::make_mut(&mut self.store.counts).remove(key, self.batch)
    }

    /// Writes the row of the `Revision` table for a change to `new`, or for a tombstone.
    fn trace(&mut self, at: Revision, key: &Bytes, old: Option<&Version>, new: Option<&KeyValue>) {
        let grave = rows::etcd_tombstone(key.clone());
        let tombstone = new.is_none();
        let (len, crc) = rows::etcd_sum(at, tombstone, new.unwrap_or(&grave), &mut self.store.scratch);
        self.store.digest = digest::extend(self.store.digest, len, crc);
        self.store.changed = digest::extend(self.store.changed, len, crc);
        let (creates, supersedes) = (old.is_none() && !tombstone, old.map(|old| old.modified));
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
        let keys = self.state(i64::MAX).pairs(&range, i64::MAX);
        let keys = keys.map(|pair| Ok(pair?.0)).collect::<Result<Vec<_>, StorageError>>()?;
        // Keys that arrive in order fill a chunk and leave it: then the new chunk begins with the newest key.
        let at = if keys.last().is_some_and(|last| last == key) { keys.len() - 1 } else { keys.len() / 2 };
        if let (Some(first), Ok(below)) = (keys.get(at), u32::try_from(at)) {
            Arc::make_mut(&mut self.store.counts).split(&overfull, first.clone(), below, self.batch);
        }
        Ok(())
    }
}

fn check_key(key: &Bytes) -> Result<(), StorageError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(StorageError::KeyTooLong { bytes: key.len(), table: Table::Live.prefix() });
    }
    Ok(())
}
