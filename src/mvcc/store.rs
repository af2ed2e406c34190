//! The single writer's side.

use super::{Change, ReadError, View};
use crate::storage::{Batch, Read, StorageError};

/// The single writer's value: where the key space stands, and what is worth keeping in memory about it.
#[derive(Debug)]
pub struct Store {
    revision: i64,
    compact_revision: i64,
}

impl Store {
    /// Rebuilds the value from the rows in `read`; an empty state stands at revision 1, never compacted (−1).
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] on rows that contradict each other.
    pub fn open(_read: &impl Read) -> Result<Self, StorageError> {
        todo!()
    }

    /// The current revision, from 1.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The revision of the newest accepted compaction; −1 if there was none.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// Begins one request. Everything the batch holds already is visible to it.
    pub fn begin<'a, R: Read>(&'a mut self, _batch: &'a mut Batch<R>) -> Change<'a, R> {
        todo!()
    }

    /// The read state over `snapshot`, which must hold exactly what this store has written so far.
    pub fn view<S: Read>(&self, _snapshot: S) -> View<S> {
        todo!()
    }

    /// Accepts a compaction at `revision`: reads below it fail from now on; [`super::Compactor`] removes the rows.
    ///
    /// # Errors
    /// [`Rejection::Compacted`](crate::types::Rejection::Compacted),
    /// [`Rejection::FutureRevision`](crate::types::Rejection::FutureRevision).
    pub fn compact<R: Read>(&mut self, _batch: &mut Batch<R>, _revision: i64) -> Result<(), ReadError> {
        todo!()
    }
}
