//! How much of the past is kept: the newest events, as many as [`HISTORY_EVENTS`] and [`HISTORY_BYTES_MAX`] allow.
//!
//! What is kept follows from the events alone: the longest row of the newest ones that is within both bounds, and always
//! the newest. So members agree on it, whenever each of them was started, updated or sent a snapshot; how long the rows
//! are is remembered only to look at each of them once.

use std::{collections::VecDeque, ops::Range};

use super::{
    HISTORY_BYTES_MAX, HISTORY_EVENTS,
    node::{self, damaged},
    tree::oldest_event,
};
use crate::storage::{Read, StorageError};

/// How long the rows of the events are that are kept. Empty at first: it is read from them when it is needed.
#[derive(Debug, Default)]
pub struct History(Option<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Index and length of each row, the oldest first.
    events: VecDeque<(u64, usize)>,
    /// All of them.
    bytes: usize,
    /// The oldest index that bytes have left; zero if they never were too many.
    floor: u64,
}

impl History {
    /// Looks at the rows, once. Older ones than are kept are not read.
    pub(super) fn open(&mut self, rows: &impl Read) -> Result<(), StorageError> {
        if self.0.is_some() {
            return Ok(());
        }
        let mut kept = Kept { floor: node::oldest(rows)?, ..Kept::default() };
        for row in node::events_back(rows) {
            let (key, row) = row?;
            let index = node::event_index(&key).ok_or_else(|| damaged(&key))?;
            kept.events.push_front((index, row.len()));
            kept.bytes += row.len();
            if kept.bytes > HISTORY_BYTES_MAX {
                break;
            }
        }
        self.0 = Some(kept);
        Ok(())
    }

    /// Takes in an event whose row is so long. The indexes of the rows that go because there are too many bytes; those that
    /// go because there are too many events are not among them.
    pub(super) fn push(&mut self, index: u64, bytes: usize) -> Range<u64> {
        let kept = self.0.get_or_insert_default();
        while kept.events.front().is_some_and(|(oldest, _)| oldest.saturating_add(HISTORY_EVENTS) <= index) {
            kept.pop();
        }
        kept.events.push_back((index, bytes));
        kept.bytes += bytes;
        let first = kept.floor.max(oldest_event(index));
        while kept.bytes > HISTORY_BYTES_MAX && kept.events.len() > 1 {
            kept.floor = kept.pop() + 1;
        }
        first..kept.floor
    }
}

impl Kept {
    /// Forgets the oldest event. Its index.
    fn pop(&mut self) -> u64 {
        let (index, bytes) = self.events.pop_front().unwrap_or_default();
        self.bytes -= bytes;
        index
    }
}
