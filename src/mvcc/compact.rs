//! Removing what no reader may ask for any more.
//!
//! Of each key the newest version at or below the compaction's revision stays, unless it is a tombstone below that
//! revision; a tombstone exactly at it stays until the next compaction. Every change says which version it superseded, so
//! only the changes between two compactions need to be looked at: the versions they superseded, and the tombstones among
//! them, those kept at the previous revision included, are all there is to remove.

use bytes::Bytes;

use super::{
    ReadError, View, rows,
    rows::Trace,
    state::State,
    store::{FINISHED, NEVER, SCHEDULED, meta_revision, meta_value},
};
use crate::{
    storage::{Read, StorageError, Table, Writes},
    types::Revision,
};

/// Row of the `Meta` table: the change that a compaction at work looks at next, and the revision it compacts to.
const PROGRESS: &[u8] = b"compactProgress";

/// A compaction at work: walks the revision table from the last finished compaction to the scheduled one.
#[derive(Debug)]
pub struct Compactor {
    /// The compaction whose rows are gone.
    finished: i64,
    target: i64,
    next: Revision,
}

/// What one step wants committed.
#[derive(Debug)]
pub struct CompactionStep {
    /// The deletes of this step, and the mark of progress.
    pub writes: Writes,
    /// Changes looked at.
    pub rows: usize,
    /// Versions and tombstones removed.
    pub removed: usize,
    /// Whether the compaction is complete once `writes` are committed.
    pub finished: bool,
}

impl Compactor {
    /// The compaction that `view` still owes: accepted but not finished. Nothing if there is none.
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn due<S: Read>(view: &View<S>) -> Result<Option<Self>, ReadError> {
        let rows = view.snapshot();
        let target = meta_revision(rows, SCHEDULED)?.unwrap_or(NEVER);
        let finished = meta_revision(rows, FINISHED)?.unwrap_or(NEVER);
        if target <= finished {
            return Ok(None);
        }
        let next = progress(rows, target)?.unwrap_or(Revision { main: finished.max(0), sub: 0 });
        Ok(Some(Self { finished, target, next }))
    }

    /// The revision being compacted to.
    pub fn revision(&self) -> i64 {
        self.target
    }

    /// The revision compacted to before; −1 if there was none.
    pub fn previous(&self) -> i64 {
        self.finished
    }

    /// Looks at up to `rows_max` changes and lists what to delete. The writes may be committed with anything else, as
    /// long as steps are committed in order; a step that is lost is done again by [`Self::due`].
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn step<S: Read>(&mut self, view: &View<S>, rows_max: usize) -> Result<CompactionStep, ReadError> {
        let mut step = CompactionStep { writes: Writes::default(), rows: 0, removed: 0, finished: false };
        let state: State<'_, S> = view.state();
        for change in state.changes(self.next, self.target) {
            let (revision, trace) = change?;
            if step.rows >= rows_max.max(1) {
                self.next = revision;
                step.writes.put_row(Table::Meta, PROGRESS, progress_value(revision, self.target));
                return Ok(step);
            }
            step.rows += 1;
            self.look_at(revision, &trace, &mut step);
        }
        step.finished = true;
        step.writes.put_row(Table::Meta, FINISHED, meta_value(self.target));
        step.writes.delete_row(Table::Meta, PROGRESS);
        Ok(step)
    }

    fn look_at(&self, revision: Revision, trace: &Trace, step: &mut CompactionStep) {
        if let Some(superseded) = trace.supersedes.filter(|_| revision.main > self.finished) {
            step.remove(&trace.key, superseded);
        }
        if trace.tombstone && revision.main < self.target {
            step.remove(&trace.key, revision);
        }
    }
}

impl CompactionStep {
    fn remove(&mut self, key: &[u8], revision: Revision) {
        self.removed += 1;
        self.writes.delete(rows::version_key(key, revision));
        self.writes.delete(Bytes::copy_from_slice(&rows::revision_key(revision)));
    }
}

/// Where a compaction that was interrupted goes on. If it was one to a lower revision, a tombstone at exactly that
/// revision was kept and must be looked at again.
fn progress(read: &impl Read, target: i64) -> Result<Option<Revision>, StorageError> {
    let Some(row) = read.row(Table::Meta, PROGRESS)? else { return Ok(None) };
    let split = || Some((row.get(..17)?, i64::from_be_bytes(row.get(17..)?.try_into().ok()?)));
    let (next, made_for) = split().ok_or_else(|| StorageError::corrupt(Table::Meta, PROGRESS, "it does not decode"))?;
    let next = rows::split_revision_key(next)?;
    Ok(Some(if made_for == target { next } else { Revision { sub: 0, ..next } }))
}

fn progress_value(next: Revision, target: i64) -> Bytes {
    [rows::revision_key(next).as_slice(), &target.to_be_bytes()].concat().into()
}
