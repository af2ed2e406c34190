//! What the hub does inside: creating, delivering live and past events, moving watchers between the two.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Body, CatchUp, Delivery, StreamId,
    catch_up::Strip,
    encode::{Batch, Cut, Cuts, Selected},
    hub::{Hub, State, Watcher},
    matcher::{Matcher, Place},
    slab::{Key, Slab},
    stream::Stream,
};
use crate::{
    pb::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType},
    types::{KeyRange, Rejection},
};

const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// A watcher that needs the past from this revision on.
pub(super) type Need = (i64, Key);

impl Hub {
    /// Creates a watcher and returns its id, or the reason why not (v3 semantics, §7.1, in this order).
    pub(super) fn try_create(&mut self, id: StreamId, request: &WatchCreateRequest) -> Result<i64, String> {
        if request.start_revision < 0 {
            return Err(Rejection::Compacted.to_string());
        }
        let range = range_of(request);
        if range.is_empty() {
            return Err(EMPTY_RANGE.to_owned());
        }
        let stream = self.streams.get_mut(id.0).ok_or_else(|| Rejection::WatchCanceled.to_string())?;
        let watch_id = stream.pick_id(request.watch_id).ok_or(DUPLICATE_ID)?;
        let key = self.watchers.insert(Watcher::new(id, watch_id, range, request));
        stream.ids.insert(watch_id, Some(key));
        stream.unsynced += 1;
        if request.progress_notify {
            stream.notified.insert(key);
        }
        if request.start_revision > self.revision {
            stream.future.insert((request.start_revision, key));
        }
        match request.start_revision {
            start if start > 0 && start <= self.revision => self.ready.push_back(key),
            _ => self.sync(key),
        }
        Ok(watch_id)
    }

    /// Queues a response that is no event.
    pub(super) fn answer(&mut self, id: StreamId, watch_id: i64, body: Body, out: &mut Vec<Delivery>) {
        let Some(stream) = self.streams.get_mut(id.0) else { return };
        stream.take_room(0);
        let revision = if matches!(body, Body::Compacted { .. }) { 0 } else { self.revision };
        out.push(Delivery { stream: id, watch_id, revision, body });
    }

    /// Sends a batch to every synced watcher it concerns. A stream without room turns them into cursors.
    pub(super) fn deliver_live(&mut self, batch: &Batch, out: &mut Vec<Delivery>) {
        self.matcher.touch(batch.events());
        let mut stuck = Vec::new();
        for (_, group) in self.matcher.touched() {
            let mut cuts = Cuts::default();
            for key in &group.watchers {
                let Some(watcher) = self.watchers.get_mut(*key).filter(|w| w.start <= batch.revision()) else {
                    continue;
                };
                let selected = cuts.get(watcher.cut, || batch.select(&group.runs, watcher.cut));
                let sent = send(watcher, &mut self.streams, batch.revision(), selected, Stream::has_room, out);
                match sent {
                    Some(events) => self.events_sent += events,
                    None => stuck.push(*key),
                }
            }
        }
        for key in stuck {
            self.fall_behind(key, batch.revision());
        }
    }

    /// Sends a piece of the past, complete up to `next`, to the watchers of an item, each from where it stands.
    pub(super) fn deliver_past<'a>(
        &mut self,
        item: &mut CatchUp,
        batches: impl Iterator<Item = &'a Batch>,
        next: i64,
        out: &mut Vec<Delivery>,
    ) {
        let mut strips = item.strips(batches);
        for (key, group) in item.matcher.groups() {
            let strip = strips.remove(&key).unwrap_or_default();
            self.deliver_strip(&group.watchers, &strip, next, out);
        }
    }

    fn deliver_strip(&mut self, watchers: &[Key], strip: &Strip<'_>, next: i64, out: &mut Vec<Delivery>) {
        let mut cuts: BTreeMap<usize, Cuts> = BTreeMap::new();
        for key in watchers {
            let Some(watcher) = self.watchers.get_mut(*key) else { continue };
            let State::Behind(stands) = watcher.state else { continue };
            let skip = strip.partition_point(|(batch, _)| batch.revision() < stands);
            let rest = strip.get(skip..).unwrap_or_default();
            let selected = cuts.entry(skip).or_default().get(watcher.cut, || Batch::select_all(rest, watcher.cut));
            let sent = send(watcher, &mut self.streams, self.revision, selected, Stream::has_room_to_catch_up, out);
            if let Some(events) = sent {
                self.events_sent += events;
                watcher.state = State::Behind(stands.max(next));
            }
            self.queue(*key);
        }
    }

    /// Serves needs from memory that are recent enough for it; gives back the others.
    pub(super) fn serve_recent(&mut self, needs: Vec<Need>, out: &mut Vec<Delivery>) -> Vec<Need> {
        let recent = std::mem::take(&mut self.recent);
        let first = recent.first().unwrap_or(i64::MAX);
        let (served, rest) = needs.into_iter().partition::<Vec<Need>, _>(|(next, _)| *next >= first);
        if let Some(mut item) = self.item(&served) {
            let (batches, next) = recent.since(item.from);
            self.deliver_past(&mut item, batches.into_iter(), next, out);
        }
        self.recent = recent;
        rest
    }

    /// What a watcher that is behind needs next; nothing if it needs room, a farewell, or no more.
    pub(super) fn needs_past(&mut self, key: Key, out: &mut Vec<Delivery>) -> Option<Need> {
        let watcher = self.watchers.get(key)?;
        let State::Behind(next) = watcher.state else { return None };
        let stream = self.streams.get_mut(watcher.stream.0)?;
        if !stream.has_room_to_catch_up() {
            stream.parked.push(key);
            return None;
        }
        if next < self.compact_revision {
            self.bid_farewell(key, out);
            return None;
        }
        if next > self.revision {
            self.sync(key);
            return None;
        }
        Some((next, key))
    }

    /// One pass over the past for all these needs, which are in order.
    pub(super) fn item(&self, needs: &[Need]) -> Option<CatchUp> {
        let (from, _) = needs.first()?;
        let mut item = CatchUp { matcher: Matcher::default(), from: *from, prev_kv: false };
        for (_, key) in needs {
            if let Some(watcher) = self.watchers.get(*key) {
                item.matcher.add(&watcher.range, *key);
                item.prev_kv |= watcher.cut.prev_kv;
            }
        }
        Some(item)
    }

    /// A synced watcher gets a cursor.
    pub(super) fn fall_behind(&mut self, key: Key, next: i64) {
        let Some(watcher) = self.watchers.get_mut(key) else { return };
        let State::Synced(place) = watcher.state else { return };
        watcher.state = State::Behind(next.max(watcher.start));
        if let Some(stream) = self.streams.get_mut(watcher.stream.0) {
            stream.unsynced += 1;
        }
        let moved = self.matcher.remove(place);
        self.replace(moved, place);
        self.queue(key);
    }

    /// Tells a watcher's client that nothing happened, unless something did.
    pub(super) fn notify(&mut self, key: Key, out: &mut Vec<Delivery>) {
        let Some(watcher) = self.watchers.get_mut(key) else { return };
        let was_quiet = std::mem::replace(&mut watcher.quiet, true);
        let in_sync = matches!(watcher.state, State::Synced(_)) && watcher.start <= self.revision;
        let (stream, watch_id) = (watcher.stream, watcher.id);
        let has_room = self.streams.get(stream.0).is_some_and(Stream::has_room);
        if was_quiet && in_sync && has_room {
            self.answer(stream, watch_id, Body::Progress, out);
        }
    }

    /// Removes a watcher whose id its stream has given up already.
    pub(super) fn drop_watcher(&mut self, key: Key) {
        let Some(watcher) = self.watchers.remove(key) else { return };
        if let Some(stream) = self.streams.get_mut(watcher.stream.0) {
            stream.notified.remove(&key);
            stream.future.remove(&(watcher.start, key));
            stream.unsynced -= usize::from(matches!(watcher.state, State::Behind(_)));
        }
        if let State::Synced(place) = watcher.state {
            let moved = self.matcher.remove(place);
            self.replace(moved, place);
        }
    }

    /// The watcher's past is compacted away. Its id stays taken until the client cancels.
    fn bid_farewell(&mut self, key: Key, out: &mut Vec<Delivery>) {
        let Some((stream, watch_id)) = self.watchers.get(key).map(|watcher| (watcher.stream, watcher.id)) else {
            return;
        };
        self.drop_watcher(key);
        if let Some(stream) = self.streams.get_mut(stream.0) {
            stream.ids.insert(watch_id, None);
        }
        self.answer(stream, watch_id, Body::Compacted { compact_revision: self.compact_revision }, out);
    }

    /// A watcher that is behind waits for its next round, if it still needs one.
    fn queue(&mut self, key: Key) {
        match self.watchers.get(key).map(|watcher| watcher.state) {
            Some(State::Behind(next)) if next > self.revision => self.sync(key),
            Some(State::Behind(_)) => self.ready.push_back(key),
            _ => {}
        }
    }

    /// A watcher that is behind has caught up.
    fn sync(&mut self, key: Key) {
        let Some(watcher) = self.watchers.get_mut(key) else { return };
        watcher.state = State::Synced(self.matcher.add(&watcher.range, key));
        if let Some(stream) = self.streams.get_mut(watcher.stream.0) {
            stream.unsynced -= 1;
        }
    }

    /// Another watcher moved into a place that became free.
    fn replace(&mut self, moved: Option<Key>, place: Place) {
        if let Some(watcher) = moved.and_then(|key| self.watchers.get_mut(key)) {
            watcher.state = State::Synced(place);
        }
    }
}

impl Watcher {
    fn new(stream: StreamId, id: i64, range: KeyRange, request: &WatchCreateRequest) -> Self {
        let filtered = |kind: FilterType| request.filters.contains(&kind.into());
        let cut = Cut {
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
            prev_kv: request.prev_kv,
        };
        let start = request.start_revision;
        Self { stream, id, range, start, cut, fragment: request.fragment, quiet: true, state: State::Behind(start) }
    }
}

/// What a client asks to watch: an empty key stands for the lowest one.
fn range_of(request: &WatchCreateRequest) -> KeyRange {
    let key = if request.key.is_empty() { Bytes::from_static(b"\0") } else { request.key.clone() };
    KeyRange::new(key, &request.range_end)
}

/// Queues events for a watcher and counts them; `None` if its stream has no room for them.
fn send(
    watcher: &mut Watcher,
    streams: &mut Slab<Stream>,
    revision: i64,
    Selected { bytes, events }: Selected,
    has_room: fn(&Stream) -> bool,
    out: &mut Vec<Delivery>,
) -> Option<u64> {
    if events == 0 {
        return Some(0);
    }
    let stream = streams.get_mut(watcher.stream.0).filter(|stream| has_room(stream))?;
    stream.take_room(bytes.len());
    watcher.quiet = false;
    let body = Body::Events { events: bytes, fragment: watcher.fragment };
    out.push(Delivery { stream: watcher.stream, watch_id: watcher.id, revision, body });
    Some(events)
}
