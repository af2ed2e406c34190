//! One watch stream: its ids, its room, its clock.

use std::collections::{BTreeMap, BTreeSet};

use super::slab::Key;
use crate::types::Ticks;

/// Responses that may wait for a stream's client before its watchers turn into cursors (they are a few numbers and
/// shared bytes each; a thousand watchers of one stream must fit several times).
pub const ROOM_RESPONSES: usize = 4_096;
/// Bytes of events that may wait for a stream's client; one response may exceed it.
pub const ROOM_BYTES: usize = 1024 * 1024;
/// Bytes of events that may wait while a stream still gets pieces of the past: with a piece of
/// [`super::HISTORY_BYTES_MAX`] on top a stream holds half a mebibyte of its own, whatever its client does.
pub(super) const ROOM_BYTES_CATCH_UP: usize = 256 * 1024;

/// Names a stream of one [`super::Hub`]; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) Key);

#[derive(Debug)]
pub(super) struct Stream {
    /// Ids in use; `None` behind those of watchers that compaction has cancelled.
    pub(super) ids: BTreeMap<i64, Option<Key>>,
    next_id: i64,
    /// Responses on their way.
    pub(super) responses: usize,
    /// Their bytes of events.
    pub(super) bytes: usize,
    /// Watchers with a cursor that wait for room.
    pub(super) parked: Vec<Key>,
    /// Watchers that are not synced.
    pub(super) unsynced: usize,
    /// Watchers that wait for a revision which did not exist when they were created.
    pub(super) future: BTreeSet<(i64, Key)>,
    /// Watchers that want to hear of progress.
    pub(super) notified: BTreeSet<Key>,
    pub(super) interval_ms: u64,
    pub(super) next_tick: Ticks,
}

impl Stream {
    pub(super) fn new(interval_ms: u64, next_tick: Ticks) -> Self {
        Self {
            ids: BTreeMap::new(),
            next_id: 0,
            responses: 0,
            bytes: 0,
            parked: Vec::new(),
            unsynced: 0,
            future: BTreeSet::new(),
            notified: BTreeSet::new(),
            interval_ms,
            next_tick,
        }
    }

    /// The id for a new watcher: the client's, or the next of the stream's own. `None` if the client's is in use.
    pub(super) fn pick_id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return (!self.ids.contains_key(&wanted)).then_some(wanted);
        }
        while self.ids.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    pub(super) fn has_room(&self) -> bool {
        self.responses < ROOM_RESPONSES && self.bytes < ROOM_BYTES
    }

    /// Whether the past may be read for this stream.
    pub(super) fn has_room_to_catch_up(&self) -> bool {
        self.responses < ROOM_RESPONSES && self.bytes < ROOM_BYTES_CATCH_UP
    }

    pub(super) fn take_room(&mut self, bytes: usize) {
        self.responses += 1;
        self.bytes += bytes;
    }

    pub(super) fn return_room(&mut self, responses: usize, bytes: usize) {
        self.responses = self.responses.saturating_sub(responses);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Whether every watcher has got, or will never get, everything up to `revision`. One that compaction has cancelled
    /// got less, and counts until its client gives up its id.
    pub(super) fn is_in_sync(&mut self, revision: i64) -> bool {
        while self.future.first().is_some_and(|(start, _)| *start <= revision) {
            self.future.pop_first();
        }
        let complete = self.unsynced == 0 && self.future.is_empty();
        complete && !self.ids.is_empty() && self.ids.values().all(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_ids_count_up_never_back_and_skip_ids_in_use() {
        let mut stream = Stream::new(1, Ticks(1));
        let mut pick = |wanted: i64, release: bool| {
            let id = stream.pick_id(wanted)?;
            if !release {
                stream.ids.insert(id, None);
            }
            Some(id)
        };
        assert_eq!(
            [pick(0, true), pick(0, false), pick(2, false), pick(0, false)],
            [Some(0), Some(1), Some(2), Some(3)]
        );
        assert_eq!([pick(2, false), pick(-7, false), pick(0, false)], [None, Some(-7), Some(4)]);
    }
}
