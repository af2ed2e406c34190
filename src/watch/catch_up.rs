//! Pieces of the past that lagging watchers need, and where they are found.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    encode::{Batch, Run},
    matcher::Matcher,
    slab::Key,
};
use crate::{
    mvcc::{Changes, History, HistoryLimits, ReadError, RevisionEvents, View},
    storage::{Read, StorageError},
};

/// Watchers served in one round.
pub const WATCHERS_PER_ROUND_MAX: usize = 512;
/// Distinct revisions in one piece, and so in one response, of the past.
pub const HISTORY_REVISIONS_MAX: usize = 1_000;
/// Bytes of keys and values from which on a piece of the past takes no further revision.
pub const HISTORY_BYTES_MAX: usize = 256 * 1024;
/// Rows of the past looked at for one piece, matching or not.
pub const HISTORY_ROWS_MAX: usize = 20_000;
/// Revisions kept in memory for watchers that lag only a little.
const RECENT_REVISIONS_MAX: usize = 1_024;
/// Bytes of keys and values kept for them.
const RECENT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// One piece of the past to be read in one pass: for watchers that stand at about the same revision.
#[derive(Debug)]
pub struct CatchUp {
    /// The watchers by what they watch.
    pub(super) matcher: Matcher,
    /// The revision of the one that is farthest behind.
    pub(super) from: i64,
    /// Whether one of them wants previous pairs.
    pub(super) prev_kv: bool,
}

/// What was found.
#[derive(Debug)]
pub enum Past {
    /// The events, up to any revision: below, at or above the hub's.
    Read(History),
    /// The beginning is compacted away.
    Compacted {
        /// The compact revision of the view.
        compact_revision: i64,
    },
}

impl CatchUp {
    /// Reads the piece. Blocks for the reads. `view` must be at least as new as the last changes handed to the hub, or
    /// the same piece will be asked for again.
    ///
    /// # Errors
    /// [`StorageError`] if the store cannot read; the member must stop then.
    pub fn read<S: Read>(&self, view: &View<S>) -> Result<Past, StorageError> {
        let compact_revision = view.compact_revision();
        match view.history_of(&|key| self.matcher.concerns(key), self.from, self.limits()) {
            Ok(history) => Ok(Past::Read(history)),
            Err(ReadError::Rejected(_)) => Ok(Past::Compacted { compact_revision }),
            Err(ReadError::Storage(error)) => Err(error),
        }
    }

    fn limits(&self) -> HistoryLimits {
        HistoryLimits {
            revisions_max: HISTORY_REVISIONS_MAX,
            bytes_max: HISTORY_BYTES_MAX,
            rows_max: HISTORY_ROWS_MAX,
            prev_kv: self.prev_kv,
        }
    }

    /// Sorts events out to the watchers that share them.
    pub(super) fn strips<'a>(&mut self, batches: impl Iterator<Item = &'a Batch>) -> BTreeMap<Key, Strip<'a>> {
        let mut strips: BTreeMap<Key, Strip<'a>> = BTreeMap::new();
        for batch in batches {
            self.matcher.touch(batch.events());
            for (key, group) in self.matcher.touched() {
                strips.entry(key).or_default().push((batch, group.runs.clone()));
            }
        }
        strips
    }
}

/// Events of the past that one group of watchers shares: batches, and the events of each.
pub(super) type Strip<'a> = Vec<(&'a Batch, Vec<Run>)>;

/// The newest revisions.
#[derive(Debug, Default)]
pub(super) struct Recent {
    batches: VecDeque<Batch>,
    bytes: usize,
}

impl Recent {
    pub(super) fn push(&mut self, batch: Batch) {
        self.bytes += batch.weight();
        self.batches.push_back(batch);
        while self.batches.len() > RECENT_REVISIONS_MAX || (self.bytes > RECENT_BYTES_MAX && self.batches.len() > 1) {
            let oldest = self.batches.pop_front();
            self.bytes -= oldest.map_or(0, |batch| batch.weight());
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives up what a compaction covers: the pairs that its revision replaced must not be shown any more, and the store
    /// knows how to leave them out.
    pub(super) fn compacted(&mut self, compact_revision: i64) {
        while self.first().is_some_and(|first| first <= compact_revision) {
            let oldest = self.batches.pop_front();
            self.bytes -= oldest.map_or(0, |batch| batch.weight());
        }
    }

    /// The first revision that is still here.
    pub(super) fn first(&self) -> Option<i64> {
        self.batches.front().map(Batch::revision)
    }

    /// As many batches from the revision `from` on as make one piece, and the first revision behind them.
    pub(super) fn since(&self, from: i64) -> (Vec<&Batch>, i64) {
        let skip = self.first().and_then(|first| usize::try_from(from - first).ok()).unwrap_or(0);
        let (mut piece, mut bytes) = (Vec::new(), 0);
        for batch in self.batches.iter().skip(skip).take(HISTORY_REVISIONS_MAX) {
            if bytes >= HISTORY_BYTES_MAX {
                break;
            }
            bytes += batch.weight();
            piece.push(batch);
        }
        let next = piece.last().map_or(from, |last| last.revision() + 1);
        (piece, next)
    }
}

/// The batches of a piece that was read, none of them above `revision`.
pub(super) fn batches_of(revisions: Vec<RevisionEvents>, revision: i64) -> Vec<Batch> {
    let batch = |RevisionEvents { revision, events }| Batch::new(Arc::new(Changes { revision, events }));
    revisions.into_iter().filter(|events| events.revision <= revision).map(batch).collect()
}
