//! etcd's `HashKV`, from the stored sum of every row.

use super::{ReadError, View};
use crate::storage::Read;

/// The answer to `HashKV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C as etcd computes it.
    pub hash: u32,
    /// The revision hashed.
    pub revision: i64,
    /// The compaction the hash is relative to; −1 if there was none.
    pub compact_revision: i64,
    /// The store's current revision.
    pub current_revision: i64,
}

/// A hash in the making, in bounded steps. It owns its view.
#[derive(Debug)]
pub struct HashWork<S> {
    _view: View<S>,
}

impl<S: Read> HashWork<S> {
    /// Begins the hash at `revision` (0: the current one).
    ///
    /// # Errors
    /// [`Rejection::Compacted`](crate::types::Rejection::Compacted),
    /// [`Rejection::FutureRevision`](crate::types::Rejection::FutureRevision).
    pub fn new(_view: View<S>, _revision: i64) -> Result<Self, ReadError> {
        todo!()
    }

    /// Looks at up to `rows_max` rows; the hash once all were seen.
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn step(&mut self, _rows_max: usize) -> Result<Option<HashKv>, ReadError> {
        todo!()
    }
}

/// The hashes taken just before the newest compactions, for etcd's compact-hash check.
#[derive(Clone, Debug, Default)]
pub struct CompactionHashes {}

impl CompactionHashes {
    /// Remembers the hash of a compaction; the oldest of more than ten is forgotten.
    pub fn remember(&mut self, _hash: HashKv) {
        todo!()
    }

    /// The remembered hash of the compaction at `revision`.
    pub fn get(&self, _revision: i64) -> Option<HashKv> {
        todo!()
    }

    /// All remembered hashes, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &HashKv> {
        [].iter()
    }
}
