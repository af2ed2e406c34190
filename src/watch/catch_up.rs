//! Pieces of the past that lagging watchers need, and where they are found.

use std::{collections::VecDeque, sync::Arc};

use super::{
    encode::{Batch, Cut, Run, Selected, push},
    slab::Key,
};
use crate::{
    mvcc::{Changes, History, HistoryLimits, RevisionEvents},
    pb::mvccpb::Event,
    types::KeyRange,
};

/// Watchers served in one round.
pub const WATCHERS_PER_ROUND_MAX: usize = 512;
/// Distinct revisions in one response of the past.
pub const HISTORY_REVISIONS_MAX: usize = 1_000;
/// Bytes of keys and values from which on a response of the past takes no further revision.
pub const HISTORY_BYTES_MAX: usize = 256 * 1024;
/// Rows of the past looked at for one piece, matching or not.
pub const HISTORY_ROWS_MAX: usize = 20_000;
/// Revisions kept in memory for watchers that lag only a little.
const RECENT_REVISIONS_MAX: usize = 1_024;
/// Bytes of keys and values kept for them.
const RECENT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// One piece of the past to be read: for all watchers of one interval that stand at about the same revision.
#[derive(Debug)]
pub struct CatchUp {
    /// What to read.
    pub range: KeyRange,
    /// Where to begin.
    pub from: i64,
    /// Whether a watcher wants previous pairs.
    pub prev_kv: bool,
    pub(super) watchers: Vec<Key>,
}

/// What was found.
#[derive(Debug)]
pub enum Past {
    /// The events, from a view at or above the hub's revision or below it, either is fine.
    Read(History),
    /// The beginning is compacted away.
    Compacted {
        /// The compact revision of the view.
        compact_revision: i64,
    },
}

impl CatchUp {
    /// The limits for [`crate::mvcc::View::history`].
    pub fn limits(&self) -> HistoryLimits {
        HistoryLimits {
            revisions_max: HISTORY_REVISIONS_MAX,
            bytes_max: HISTORY_BYTES_MAX,
            rows_max: HISTORY_ROWS_MAX,
            prev_kv: self.prev_kv,
        }
    }
}

/// A piece of the past inside one interval, in order.
pub(super) struct Strip<'a> {
    /// The batches that hold events of the interval, with those events.
    pub(super) pieces: Vec<(&'a Batch, Vec<Run>)>,
    /// The first revision not looked at.
    pub(super) next: i64,
}

/// The newest revisions.
#[derive(Debug, Default)]
pub(super) struct Recent {
    batches: VecDeque<Batch>,
    bytes: usize,
}

impl Strip<'_> {
    /// The events that `cut` takes, behind the first `skip` batches.
    pub(super) fn select(&self, skip: usize, cut: Cut) -> Selected {
        Batch::select_all(self.pieces.get(skip..).unwrap_or_default(), cut)
    }
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

    /// Everything inside `range` from `from` on, as far as the limits allow; nothing if it reaches back too little.
    pub(super) fn since(&self, range: &KeyRange, from: i64) -> Option<Strip<'_>> {
        let first = self.batches.front().map(Batch::revision)?;
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        let mut strip = Strip { pieces: Vec::new(), next: from };
        let mut bytes = 0;
        for batch in self.batches.iter().skip(skip) {
            if strip.pieces.len() >= HISTORY_REVISIONS_MAX || bytes >= HISTORY_BYTES_MAX {
                break;
            }
            strip.next = batch.revision() + 1;
            let runs = runs_inside(range, batch.events());
            if !runs.is_empty() {
                bytes += batch.weight();
                strip.pieces.push((batch, runs));
            }
        }
        Some(strip)
    }
}

/// The batches of a piece that was read, none of them above `revision`.
pub(super) fn batches_of(revisions: Vec<RevisionEvents>, revision: i64) -> Vec<Batch> {
    let batch = |RevisionEvents { revision, events }| Batch::new(Arc::new(Changes { revision, events }));
    revisions.into_iter().filter(|events| events.revision <= revision).map(batch).collect()
}

/// All events of all batches.
pub(super) fn whole(batches: &[Batch], next: i64) -> Strip<'_> {
    let all = |batch: &Batch| vec![Run::first(batch.events().len())];
    Strip { pieces: batches.iter().map(|batch| (batch, all(batch))).collect(), next }
}

fn runs_inside(range: &KeyRange, events: &[Event]) -> Vec<Run> {
    let mut runs = Vec::new();
    for (place, event) in (0_u32..).zip(events) {
        if event.kv.as_ref().is_some_and(|kv| range.contains(&kv.key)) {
            push(&mut runs, place);
        }
    }
    runs
}
