//! Writes in the making, over the snapshot they start from.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use super::{Read, Scan, StorageError, Table, Writes};

/// An overlay over a snapshot: reads, scans included, see the writes made so far.
#[derive(Debug)]
pub struct Batch<R> {
    base: R,
    changes: BTreeMap<Bytes, Option<Bytes>>,
}

impl<R: Read> Batch<R> {
    /// An empty overlay over `base`.
    pub fn new(base: R) -> Self {
        Self { base, changes: BTreeMap::new() }
    }

    /// The state underneath.
    pub fn base(&self) -> &R {
        &self.base
    }

    /// Sets the full key `key` to `value`.
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.changes.insert(key, Some(value));
    }

    /// Removes the full key `key`.
    pub fn delete(&mut self, key: Bytes) {
        self.changes.insert(key, None);
    }

    /// Sets the row `key` of `table`.
    pub fn put_row(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.put(table.key(key), value);
    }

    /// Removes the row `key` of `table`.
    pub fn delete_row(&mut self, table: Table, key: &[u8]) {
        self.delete(table.key(key));
    }

    /// Adds ready-made changes, as those of a compaction step.
    pub fn extend(&mut self, writes: Writes) {
        self.changes.extend(writes.into_rows());
    }

    /// Number of changed keys.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in key order, one for each changed key.
    pub fn into_writes(self) -> Writes {
        let _ = self;
        todo!()
    }
}

impl<R: Read> Read for Batch<R> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, _lower: Bound<&[u8]>, _upper: Bound<&[u8]>) -> Scan<'_> {
        todo!()
    }

    fn scan_back(&self, _lower: Bound<&[u8]>, _upper: Bound<&[u8]>) -> Scan<'_> {
        todo!()
    }
}
