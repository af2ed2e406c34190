//! The value at the centre: requests, changes, time and room in, deliveries out.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    Body, CatchUp, Delivery, HISTORY_REVISIONS_MAX, Past, RefusalReason, StreamId, WATCHERS_PER_ROUND_MAX,
    catch_up::{Recent, batches_of},
    delivery::NO_WATCHER,
    encode::{Batch, Cut},
    matcher::{Matcher, Place},
    serve::Need,
    slab::{Key, Slab},
    stream::Stream,
};
use crate::{
    mvcc::Changes,
    pb::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request::RequestUnion},
    types::{KeyRange, Ticks},
};

/// All watch streams of a member.
#[derive(Debug)]
pub struct Hub {
    /// The last revision handed in.
    pub(super) revision: i64,
    pub(super) compact_revision: i64,
    pub(super) recent: Recent,
    pub(super) streams: Slab<Stream>,
    pub(super) watchers: Slab<Watcher>,
    pub(super) matcher: Matcher,
    /// Watchers with a cursor whose stream had room when they were put here. Keys of watchers that are gone may stay.
    pub(super) ready: VecDeque<Key>,
    pub(super) ticks: BTreeSet<(Ticks, StreamId)>,
    pub(super) events_sent: u64,
}

/// Counts for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubStats {
    /// Open streams.
    pub streams: usize,
    /// Watchers, synced or not.
    pub watchers: usize,
    /// Watchers that are not synced.
    pub unsynced: usize,
    /// Events handed out so far, once for each watcher that got them.
    pub events_sent: u64,
}

#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) stream: StreamId,
    pub(super) id: i64,
    pub(super) range: KeyRange,
    /// The revision the client asked for; nothing below it is delivered. Zero: from creation on.
    pub(super) start: i64,
    pub(super) cut: Cut,
    pub(super) fragment: bool,
    /// No events since the last progress tick.
    pub(super) quiet: bool,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Gets every new revision.
    Synced(Place),
    /// Needs the past from this revision on.
    Behind(i64),
}

impl Hub {
    /// A hub without streams, where the store stands at these revisions.
    pub fn new(revision: i64, compact_revision: i64) -> Self {
        Self {
            revision,
            compact_revision,
            recent: Recent::default(),
            streams: Slab::default(),
            watchers: Slab::default(),
            matcher: Matcher::default(),
            ready: VecDeque::new(),
            ticks: BTreeSet::new(),
            events_sent: 0,
        }
    }

    /// Opens a stream. Its watchers with `progress_notify` hear every `interval_ms` (jitter included) from now on.
    pub fn open(&mut self, now: Ticks, interval_ms: u64) -> StreamId {
        let next_tick = Ticks(now.0.saturating_add(interval_ms.max(1)));
        let stream = StreamId(self.streams.insert(Stream::new(interval_ms.max(1), next_tick)));
        self.ticks.insert((next_tick, stream));
        stream
    }

    /// Ends a stream and all its watchers. Returned room and requests of it are ignored from now on.
    pub fn close(&mut self, stream: StreamId) {
        let Some(closed) = self.streams.remove(stream.0) else { return };
        self.ticks.remove(&(closed.next_tick, stream));
        for watcher in closed.ids.into_values().flatten() {
            self.drop_watcher(watcher);
        }
    }

    /// Carries out one request of a client. Unknown streams and empty requests are ignored.
    pub fn request(&mut self, stream: StreamId, request: WatchRequest, out: &mut Vec<Delivery>) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(stream, &create, out),
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(stream, cancel.watch_id, out),
            Some(RequestUnion::ProgressRequest(_)) => self.progress(stream, out),
            None => {}
        }
    }

    /// Creates a watcher. Permission was checked before (a refusal for want of it goes through [`Hub::refuse`], but only
    /// if `start_revision` is not negative: that refusal comes first).
    pub fn create(&mut self, stream: StreamId, request: &WatchCreateRequest, out: &mut Vec<Delivery>) {
        match self.try_create(stream, request) {
            Ok(watch_id) => self.answer(stream, watch_id, Body::Created, out),
            Err(reason) => self.refuse(stream, reason.into(), out),
        }
    }

    /// Answers a request to create a watcher with a refusal.
    pub fn refuse(&mut self, stream: StreamId, reason: RefusalReason, out: &mut Vec<Delivery>) {
        self.answer(stream, NO_WATCHER, Body::Refused(reason), out);
    }

    /// Cancels a watcher at its client's wish; an unknown id is ignored.
    pub fn cancel(&mut self, stream: StreamId, watch_id: i64, out: &mut Vec<Delivery>) {
        let Some(known) = self.streams.get_mut(stream.0).and_then(|stream| stream.ids.remove(&watch_id)) else {
            return;
        };
        if let Some(watcher) = known {
            self.drop_watcher(watcher);
        }
        self.answer(stream, watch_id, Body::Canceled, out);
    }

    /// Answers a request for progress: one response if all watchers of the stream are in sync and none waits for a
    /// later revision, else nothing; nothing either without room.
    pub fn progress(&mut self, stream: StreamId, out: &mut Vec<Delivery>) {
        let revision = self.revision;
        let in_sync = |stream: &mut Stream| stream.has_room() && stream.is_in_sync(revision);
        if self.streams.get_mut(stream.0).is_some_and(in_sync) {
            self.answer(stream, NO_WATCHER, Body::Progress, out);
        }
    }

    /// Takes the changes of the next revision. If revisions were left out, every watcher goes through the past.
    pub fn changes(&mut self, changes: Arc<Changes>, out: &mut Vec<Delivery>) {
        if changes.revision <= self.revision {
            return;
        }
        if changes.revision > self.revision + 1 {
            self.skip_to(changes.revision - 1, self.compact_revision);
        }
        self.revision = changes.revision;
        let batch = Batch::new(changes);
        self.deliver_live(&batch, out);
        self.recent.push(batch);
    }

    /// The store jumped to `revision` without handing in what lies between, as after a received snapshot.
    pub fn skip_to(&mut self, revision: i64, compact_revision: i64) {
        let lost = self.revision + 1;
        self.revision = self.revision.max(revision);
        self.recent.clear();
        self.compacted(compact_revision);
        let all: Vec<Key> = self.watchers.keys().collect();
        for key in all {
            self.fall_behind(key, lost);
        }
    }

    /// A compaction was accepted: the past below `compact_revision` can no longer be read.
    pub fn compacted(&mut self, compact_revision: i64) {
        self.compact_revision = self.compact_revision.max(compact_revision);
        self.recent.compacted(self.compact_revision);
    }

    /// The client of `stream` took responses with this many bytes of events ([`Delivery::event_bytes`]).
    pub fn return_room(&mut self, stream: StreamId, responses: usize, event_bytes: usize) {
        let Some(stream) = self.streams.get_mut(stream.0) else { return };
        stream.return_room(responses, event_bytes);
        if stream.has_room_to_catch_up() {
            self.ready.extend(stream.parked.drain(..));
        }
    }

    /// Sends the progress notifications that are due.
    pub fn tick(&mut self, now: Ticks, out: &mut Vec<Delivery>) {
        while let Some((due, id)) = self.ticks.first().copied().filter(|(due, _)| *due <= now) {
            self.ticks.remove(&(due, id));
            let Some(stream) = self.streams.get_mut(id.0) else { continue };
            stream.next_tick = Ticks(now.0.saturating_add(stream.interval_ms));
            self.ticks.insert((stream.next_tick, id));
            let notified: Vec<Key> = stream.notified.iter().copied().collect();
            for watcher in notified {
                self.notify(watcher, out);
            }
        }
    }

    /// When [`Hub::tick`] has something to do next.
    pub fn next_tick(&self) -> Option<Ticks> {
        self.ticks.first().map(|(due, _)| *due)
    }

    /// Whether [`Hub::plan`] has something to do.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }

    /// One round for up to [`WATCHERS_PER_ROUND_MAX`] watchers that are behind: those who need only recent revisions, or
    /// nothing but a farewell, are served at once; for the others lists what to read. Every item goes back through
    /// [`Hub::caught_up`].
    pub fn plan(&mut self, out: &mut Vec<Delivery>) -> Vec<CatchUp> {
        let mut needs: Vec<Need> = Vec::new();
        for _ in 0..WATCHERS_PER_ROUND_MAX {
            let Some(key) = self.ready.pop_front() else { break };
            needs.extend(self.needs_past(key, out));
        }
        needs.sort_unstable();
        let rest = self.serve_recent(needs, out);
        chunks(&rest).filter_map(|chunk| self.item(chunk)).collect()
    }

    /// Hands in what was found for an item of [`Hub::plan`].
    pub fn caught_up(&mut self, mut item: CatchUp, past: Past, out: &mut Vec<Delivery>) {
        match past {
            Past::Compacted { compact_revision } => {
                self.compacted(compact_revision.max(item.from + 1));
                self.ready.extend(item.matcher.groups().flat_map(|(_, group)| &group.watchers));
            }
            Past::Read(history) => {
                let next = history.next.min(self.revision + 1);
                let batches = batches_of(history.revisions, self.revision);
                self.deliver_past(&mut item, batches.iter(), next, out);
            }
        }
    }

    /// Counts for metrics.
    pub fn stats(&self) -> HubStats {
        HubStats {
            streams: self.streams.len(),
            watchers: self.watchers.len(),
            unsynced: self.streams.keys().filter_map(|key| self.streams.get(key)).map(|stream| stream.unsynced).sum(),
            events_sent: self.events_sent,
        }
    }

    /// The last revision handed in.
    pub fn revision(&self) -> i64 {
        self.revision
    }
}

/// Divides ordered needs where they are so far apart that one pass over the past would not reach the later ones.
fn chunks(needs: &[Need]) -> impl Iterator<Item = &[Need]> {
    let reach = i64::try_from(HISTORY_REVISIONS_MAX).unwrap_or(i64::MAX);
    let mut rest = needs;
    std::iter::from_fn(move || {
        let (first, _) = *rest.first()?;
        let (chunk, behind) = rest.split_at(rest.partition_point(|(next, _)| next.saturating_sub(first) < reach));
        rest = behind;
        Some(chunk)
    })
}
