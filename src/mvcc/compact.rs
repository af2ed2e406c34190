//! Removing what no reader may ask for any more.

use super::{ReadError, View};
use crate::storage::{Read, Writes};

/// A compaction at work: walks the revision table from the last finished compaction to the scheduled one.
#[derive(Debug)]
pub struct Compactor {
    _target: i64,
}

/// What one step wants committed.
#[derive(Debug)]
pub struct CompactionStep {
    /// The deletes of this step, and the mark of progress.
    pub writes: Writes,
    /// Whether the compaction is complete once `writes` are committed.
    pub finished: bool,
}

impl Compactor {
    /// The compaction that `view` still owes: accepted but not finished. Nothing if there is none.
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn due<S: Read>(_view: &View<S>) -> Result<Option<Self>, ReadError> {
        todo!()
    }

    /// The revision being compacted to.
    pub fn revision(&self) -> i64 {
        todo!()
    }

    /// Looks at up to `rows_max` rows of the revision table and lists what to delete. The writes may be committed with
    /// anything else, as long as steps are committed in order; a step that is lost is done again by [`Self::due`].
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn step<S: Read>(&mut self, _view: &View<S>, _rows_max: usize) -> Result<CompactionStep, ReadError> {
        todo!()
    }
}
