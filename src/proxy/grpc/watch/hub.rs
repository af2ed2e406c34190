//! Who watches what, and which watches on the cluster that takes. A value: requests and what the cluster delivers go in,
//! responses are put into the outboxes of the streams, and orders for the cluster are listed.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    mem,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    feed::{Feed, Line, revision_of, run_from},
    outbox::{End, Outbox},
};
use crate::{
    api::status::Status,
    metrics,
    pb::{
        etcdserverpb::{ResponseHeader, WatchCreateRequest, watch_create_request::FilterType},
        mvccpb::Event,
    },
    proxy::grpc::{cache::copied, upstream::Token},
    types::{Code, GRPC_OVERHEAD_BYTES, KeyRange, REQUEST_BYTES_MAX_DEFAULT, Rejection},
    watch::{
        Batch, Body, Cut, Cuts, NO_WATCHER, RefusalReason,
        slab::{Key, Slab},
    },
};

/// Most watchers of all clients together: at some two hundred bytes each, with what the streams need, they fit into a
/// gigabyte.
pub(super) const WATCHERS_MAX: usize = 1_000_000;
/// Most streams of all clients together that have no watcher: enough for those that have just come back all at once.
pub(super) const IDLE_STREAMS_MAX: usize = 65_536;
/// Ids of a stream that stay taken after compaction has cancelled their watchers; the first one is free again after that.
const COMPACTED_IDS_MAX: usize = 256;
/// Bytes of keys and values that all watches on the cluster keep together for clients that join late.
const RECENT_BYTES_TOTAL_MAX: usize = 16 * 1024 * 1024;
/// Where a response is split for clients that accept fragments, as at a member with default limits.
const SPLIT_AT_BYTES: usize = REQUEST_BYTES_MAX_DEFAULT + GRPC_OVERHEAD_BYTES;

const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// What is to be done on a stream to the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Order {
    /// Begin a watch, which [`Hub::request_of`] describes.
    Open(Line, Key),
    /// End one.
    Close(Line, Key),
    /// Ask how far the stream is.
    Progress(Line),
}

/// All watch streams of the proxy's clients.
#[derive(Debug, Default)]
pub(super) struct Hub {
    streams: Slab<Stream>,
    /// Streams without watchers.
    idle_streams: usize,
    watchers: Slab<Watcher>,
    interests: Slab<Interest>,
    by_range: HashMap<KeyRange, Key>,
    feeds: Slab<Feed>,
    /// Who answered last, and the newest revision heard of.
    header: ResponseHeader,
    orders: Vec<Order>,
    /// Streams that wait for progress.
    waiting: BTreeSet<Key>,
}

#[derive(Debug)]
struct Stream {
    outbox: Arc<Outbox>,
    token: Option<Token>,
    wants_leader: bool,
    /// By id; `None` behind those of watchers that compaction has cancelled.
    ids: Vec<(i64, Option<Key>)>,
    /// The latter, in the order they were cancelled: clients give them up, and get an answer to that.
    compacted: VecDeque<i64>,
    watchers: usize,
    next_id: i64,
    /// Watchers without a feed that wait for room.
    parked: Vec<Key>,
    /// Lines that have not said how far they are, and the lowest revision that others have said.
    progress: (Vec<Line>, i64),
}

#[derive(Debug)]
struct Watcher {
    stream: Key,
    interest: Key,
    id: i64,
    /// Nothing below is delivered. Where there is no feed: what is to be delivered next.
    start: i64,
    /// The feed, and the place among its watchers.
    feed: Option<(Key, usize)>,
    cut: Cut,
    fragment: bool,
    progress_notify: bool,
}

/// Keys that somebody watches.
#[derive(Debug)]
struct Interest {
    range: KeyRange,
    key: Bytes,
    range_end: Bytes,
    feeds: Vec<Key>,
    watchers: usize,
}

impl Stream {
    /// The id for a new watcher: the client's, or the next of the stream's own. `None` if the client's is in use.
    fn pick_id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return self.place_of(wanted).is_err().then_some(wanted);
        }
        while self.place_of(self.next_id).is_ok() {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    fn place_of(&self, id: i64) -> Result<usize, usize> {
        self.ids.binary_search_by_key(&id, |(id, _)| *id)
    }

    fn set(&mut self, id: i64, watcher: Key) {
        if let Err(place) = self.place_of(id) {
            self.ids.insert(place, (id, Some(watcher)));
        }
    }

    fn set_compacted(&mut self, id: i64) {
        let Some(known) = self.place_of(id).ok().and_then(|place| self.ids.get_mut(place)) else { return };
        known.1 = None;
        self.compacted.push_back(id);
        if self.compacted.len() > COMPACTED_IDS_MAX
            && let Some(first) = self.compacted.pop_front()
        {
            self.remove(first);
        }
    }

    fn remove(&mut self, id: i64) -> Option<(i64, Option<Key>)> {
        let removed = self.place_of(id).ok().map(|place| self.ids.remove(place))?;
        if removed.1.is_none() {
            self.compacted.retain(|compacted| *compacted != id);
        }
        Some(removed)
    }
}

impl Hub {
    /// Opens the stream of a client.
    ///
    /// # Errors
    /// `ResourceExhausted` if too many have no watcher.
    pub(super) fn open(
        &mut self,
        outbox: Arc<Outbox>,
        token: Option<Token>,
        wants_leader: bool,
    ) -> Result<Key, Status> {
        if self.idle_streams >= IDLE_STREAMS_MAX {
            let message =
                format!("quorate: this proxy serves no more than {IDLE_STREAMS_MAX} streams without a watcher");
            return Err(Status::new(Code::ResourceExhausted, message));
        }
        self.idle_streams += 1;
        Ok(self.streams.insert(Stream {
            outbox,
            token,
            wants_leader,
            ids: Vec::new(),
            compacted: VecDeque::new(),
            watchers: 0,
            next_id: 0,
            parked: Vec::new(),
            progress: (Vec::new(), 0),
        }))
    }

    /// Ends a stream and all its watchers.
    pub(super) fn close(&mut self, stream: Key) {
        self.give_up_watchers(stream);
        if self.streams.remove(stream).is_some() {
            self.idle_streams -= 1;
        }
    }

    fn give_up_watchers(&mut self, key: Key) {
        self.waiting.remove(&key);
        let Some(stream) = self.streams.get_mut(key) else { return };
        let ids = mem::take(&mut stream.ids);
        stream.compacted.clear();
        for watcher in ids.into_iter().filter_map(|(_, watcher)| watcher) {
            self.drop_watcher(watcher);
        }
    }

    /// The cluster is another one: every stream ends, and nothing that was heard before counts.
    pub(super) fn start_over(&mut self) {
        self.end_streams(End::OtherCluster, |_| true);
        for stream in self.streams.keys().collect::<Vec<Key>>() {
            self.give_up_watchers(stream);
        }
        self.header = ResponseHeader::default();
    }

    /// Creates a watcher whose client may have it; `revision` is that of the store.
    pub(super) fn create(&mut self, stream: Key, request: &WatchCreateRequest, revision: i64) {
        self.header.revision = self.header.revision.max(revision);
        match self.try_create(stream, request) {
            Ok((watcher, id, at)) => {
                self.answer(stream, id, at, Body::Created);
                self.attach(watcher);
            }
            Err(reason) => self.refuse(stream, reason.into()),
        }
    }

    /// Answers a request to create a watcher with a refusal.
    pub(super) fn refuse(&mut self, stream: Key, reason: RefusalReason) {
        self.answer(stream, NO_WATCHER, self.header.revision, Body::Refused(reason));
    }

    /// Why a request is refused whoever asks, before the cluster is asked.
    pub(super) fn objection(request: &WatchCreateRequest) -> Option<String> {
        if request.start_revision < 0 {
            return Some(Rejection::Compacted.to_string());
        }
        range_of(request).is_empty().then(|| EMPTY_RANGE.to_owned())
    }

    /// Cancels a watcher at its client's wish; an unknown id is ignored.
    pub(super) fn cancel(&mut self, stream: Key, id: i64) {
        let Some((_, known)) = self.streams.get_mut(stream).and_then(|stream| stream.remove(id)) else { return };
        if let Some(watcher) = known {
            self.drop_watcher(watcher);
        }
        self.answer(stream, id, self.header.revision, Body::Canceled);
    }

    /// A client asks how far its watchers are: the cluster is asked, on every stream that one of them hangs on. Nothing
    /// happens while one of them waits for room.
    pub(super) fn progress(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let all: Option<Vec<Key>> = stream.ids.iter().map(|(_, watcher)| *watcher).collect();
        let Some(lines) = all.and_then(|watchers| lines_of(&watchers, &self.watchers, &self.feeds)) else { return };
        if lines.is_empty() {
            return;
        }
        self.orders.extend(lines.iter().cloned().map(Order::Progress));
        stream.progress = (lines, i64::MAX);
        self.waiting.insert(key);
    }

    /// The client of a stream has taken what kept its watchers waiting.
    pub(super) fn return_room(&mut self, stream: Key) {
        let Some(stream) = self.streams.get_mut(stream) else { return };
        for watcher in mem::take(&mut stream.parked) {
            if self.watchers.get(watcher).is_some_and(|watcher| watcher.feed.is_none()) {
                self.attach(watcher);
            }
        }
    }

    /// The cluster delivered events of a feed.
    pub(super) fn deliver(&mut self, feed: Key, header: ResponseHeader, events: Vec<Event>) {
        if self.feeds.get(feed).is_none() {
            return;
        }
        self.heard(header);
        let Some(known) = self.feeds.get_mut(feed) else { return };
        if !known.accept(events) {
            return;
        }
        let stuck = self.broadcast(feed, header);
        for watcher in stuck {
            self.park(watcher);
        }
        let share = RECENT_BYTES_TOTAL_MAX / self.feeds.len().max(1);
        if let Some(known) = self.feeds.get_mut(feed) {
            known.forget(share);
        }
        self.merge(feed);
    }

    /// Nothing happened in a feed up to the revision of `header`.
    pub(super) fn is_quiet(&mut self, feed: Key, header: ResponseHeader) {
        if self.feeds.get(feed).is_none() {
            return;
        }
        self.heard(header);
        let Some(known) = self.feeds.get_mut(feed) else { return };
        known.skip_to(header.revision);
        for key in &known.watchers {
            let Some(watcher) = self.watchers.get(*key) else { continue };
            if !watcher.progress_notify || watcher.start > header.revision {
                continue;
            }
            let Some(stream) = self.streams.get(watcher.stream).filter(|stream| stream.outbox.has_room()) else {
                continue;
            };
            stream.outbox.put(Body::Progress.frames(header, watcher.id, SPLIT_AT_BYTES), 0);
        }
        self.merge(feed);
    }

    /// A stream to the cluster is complete up to the revision of `header`.
    pub(super) fn is_complete(&mut self, line: &Line, header: ResponseHeader) {
        if self.waiting.is_empty() {
            return;
        }
        self.heard(header);
        let waiting: Vec<Key> = self.waiting.iter().copied().collect();
        for key in waiting {
            let Some(stream) = self.streams.get_mut(key) else { continue };
            let before = stream.progress.0.len();
            stream.progress.0.retain(|waits_for| waits_for != line);
            if stream.progress.0.len() < before {
                stream.progress.1 = stream.progress.1.min(header.revision);
            }
            if stream.progress.0.is_empty() {
                self.waiting.remove(&key);
                self.tell_progress(key);
            }
        }
    }

    /// The cluster has compacted what a feed would deliver next.
    pub(super) fn compacted(&mut self, feed: Key, compact_revision: i64) {
        for key in self.end_feed(feed) {
            match self.watchers.get(key).map(|watcher| (watcher.start, watcher.stream, watcher.id)) {
                Some((start, ..)) if start >= compact_revision => self.attach(key),
                Some((_, stream, id)) => {
                    self.drop_watcher(key);
                    if let Some(stream) = self.streams.get_mut(stream) {
                        stream.set_compacted(id);
                    }
                    self.answer(stream, id, 0, Body::Compacted { compact_revision });
                }
                None => {}
            }
        }
    }

    /// The cluster does not deliver a feed (any more). Watchers of other users try with their own names.
    pub(super) fn refused(&mut self, feed: Key, reason: &str) {
        let token = self.feeds.get(feed).map(|feed| feed.line.token.clone());
        for key in self.end_feed(feed) {
            let Some(watcher) = self.watchers.get(key) else { continue };
            let (stream, id) = (watcher.stream, watcher.id);
            let theirs = self.streams.get(stream).map(|stream| stream.token.clone());
            if theirs != token {
                self.attach(key);
                continue;
            }
            self.drop_watcher(key);
            if let Some(stream) = self.streams.get_mut(stream) {
                stream.remove(id);
            }
            self.answer(stream, id, self.header.revision, Body::Ended(reason.to_owned().into()));
        }
    }

    /// The cluster has no leader: streams that asked for one end.
    pub(super) fn is_leaderless(&mut self) {
        self.end_streams(End::NoLeader, |stream| stream.wants_leader);
    }

    /// The proxy stops: every stream ends.
    pub(super) fn stop(&mut self) {
        self.end_streams(End::Stopped, |_| true);
    }

    fn end_streams(&self, end: End, whose: impl Fn(&Stream) -> bool) {
        for stream in self.streams.keys().filter_map(|key| self.streams.get(key)).filter(|stream| whose(stream)) {
            stream.outbox.end(end);
        }
    }

    /// What to ask the cluster for, from where the feed is now; `None` if nobody wants it any more.
    pub(super) fn request_of(&self, feed: Key) -> Option<WatchCreateRequest> {
        let feed = self.feeds.get(feed)?;
        let interest = self.interests.get(feed.interest)?;
        Some(WatchCreateRequest {
            key: interest.key.clone(),
            range_end: interest.range_end.clone(),
            start_revision: feed.next,
            progress_notify: true,
            prev_kv: true,
            fragment: true,
            ..WatchCreateRequest::default()
        })
    }

    /// What is to be done at the cluster since this was asked last.
    pub(super) fn take_orders(&mut self) -> Vec<Order> {
        mem::take(&mut self.orders)
    }

    /// The watcher, its id, and the revision its client is told.
    fn try_create(&mut self, key: Key, request: &WatchCreateRequest) -> Result<(Key, i64, i64), String> {
        if let Some(objection) = Self::objection(request) {
            return Err(objection);
        }
        if self.watchers.len() >= WATCHERS_MAX {
            return Err(format!("quorate: this proxy serves no more than {WATCHERS_MAX} watchers"));
        }
        let stream = self.streams.get_mut(key).ok_or_else(|| Rejection::WatchCanceled.to_string())?;
        let id = stream.pick_id(request.watch_id).ok_or(DUPLICATE_ID)?;
        let interest = self.interest(request);
        let (start, at) = self.start_of(request.start_revision);
        let watcher = self.watchers.insert(Watcher {
            stream: key,
            interest,
            id,
            start,
            feed: None,
            cut: cut_of(request),
            fragment: request.fragment,
            progress_notify: request.progress_notify,
        });
        if let Some(stream) = self.streams.get_mut(key) {
            stream.set(id, watcher);
            stream.watchers += 1;
            self.idle_streams -= usize::from(stream.watchers == 1);
        }
        Ok((watcher, id, at))
    }

    /// Where a new watcher starts, and the revision its client is told. "Now" is any moment while the request is under way:
    /// where the member that was asked for the revision lags behind what was heard since, it is the latest. No feed has
    /// delivered anything later, and one that begins in the future says nothing about now.
    fn start_of(&self, wanted: i64) -> (i64, i64) {
        let now = self.header.revision;
        if wanted > 0 { (wanted, now) } else { (now.saturating_add(1), now) }
    }

    fn interest(&mut self, request: &WatchCreateRequest) -> Key {
        let range = range_of(request);
        let key = self.by_range.get(&range).copied().unwrap_or_else(|| {
            // What is kept is not a part of the message it came in.
            let [key, range_end] = [&request.key, &request.range_end].map(|bytes| Bytes::copy_from_slice(bytes));
            let range = copied(&range);
            let interest = Interest { range: range.clone(), key, range_end, feeds: Vec::new(), watchers: 0 };
            let key = self.interests.insert(interest);
            self.by_range.insert(range, key);
            key
        });
        if let Some(interest) = self.interests.get_mut(key) {
            interest.watchers += 1;
        }
        key
    }

    /// Finds a feed that still has what a watcher needs next, or orders one.
    fn attach(&mut self, key: Key) {
        let Some(watcher) = self.watchers.get(key) else { return };
        let (interest, start, stream) = (watcher.interest, watcher.start, watcher.stream);
        let Some(known) = self.interests.get(interest) else { return };
        let fits = |feed: &&Key| {
            let feed = self.feeds.get(**feed);
            feed.is_some_and(|feed| {
                start >= feed.reaches_back_to() && (feed.is_in_the_present() || start <= feed.horizon)
            })
        };
        match known.feeds.iter().find(fits).copied() {
            Some(feed) => self.join(key, feed),
            None => self.order_feed(key, interest, start, stream),
        }
    }

    fn order_feed(&mut self, watcher: Key, interest: Key, start: i64, stream: Key) {
        let token = self.streams.get(stream).and_then(|stream| stream.token.clone());
        let horizon = self.header.revision;
        let line = Line { token, is_past: start <= horizon };
        let feed = self.feeds.insert(Feed::new(interest, line.clone(), start, horizon));
        if let Some(interest) = self.interests.get_mut(interest) {
            interest.feeds.push(feed);
        }
        self.orders.push(Order::Open(line, feed));
        self.join(watcher, feed);
    }

    /// Gives a watcher what its feed has kept, and from now on what the feed delivers.
    fn join(&mut self, key: Key, feed: Key) {
        let Some(known) = self.feeds.get_mut(feed) else { return };
        let Some(watcher) = self.watchers.get_mut(key) else { return };
        let Some(stream) = self.streams.get(watcher.stream) else { return };
        // Whoever asked how far it is did not ask about this feed; etcd's members answer nobody, either, who lags behind.
        self.waiting.remove(&watcher.stream);
        let mut is_stuck = false;
        for batch in known.since(watcher.start) {
            let header = ResponseHeader { revision: batch.revision(), ..self.header };
            if !send(watcher, &stream.outbox, batch, None, header) {
                is_stuck = true;
                break;
            }
            watcher.start = batch.revision() + 1;
        }
        if is_stuck {
            return self.park(key);
        }
        if !known.watchers.is_empty() {
            metrics::PROXY_WATCHERS_COALESCED.inc();
        }
        watcher.feed = Some((feed, known.watchers.len()));
        known.watchers.push(key);
    }

    /// Sends the newest batch of a feed to its watchers; gives back those whose streams have no room.
    fn broadcast(&mut self, feed: Key, header: ResponseHeader) -> Vec<Key> {
        let Some((known, batch)) = self.feeds.get(feed).and_then(|feed| Some((feed, feed.latest()?))) else {
            return Vec::new();
        };
        let mut cuts = Cuts::default();
        let mut stuck = Vec::new();
        for key in &known.watchers {
            let Some(watcher) = self.watchers.get(*key) else { continue };
            let Some(stream) = self.streams.get(watcher.stream) else { continue };
            if !send(watcher, &stream.outbox, batch, Some(&mut cuts), header) {
                stuck.push(*key);
            }
        }
        metrics::PROXY_EVENTS_COALESCED.add(known.watchers.len().saturating_sub(1) as u64);
        let first = batch.events().first().map_or(0, revision_of);
        for key in &stuck {
            if let Some(watcher) = self.watchers.get_mut(*key) {
                watcher.start = watcher.start.max(first);
            }
        }
        stuck
    }

    /// A watcher waits without a feed until its stream has room.
    fn park(&mut self, key: Key) {
        self.leave(key);
        let Some(watcher) = self.watchers.get(key) else { return };
        if let Some(stream) = self.streams.get_mut(watcher.stream) {
            stream.parked.push(key);
        }
    }

    /// Where two feeds of one interest have met, one goes on for both.
    fn merge(&mut self, feed: Key) {
        let Some(interest) = self.feeds.get(feed).and_then(|known| self.interests.get(known.interest)) else { return };
        if interest.feeds.len() < 2 {
            return;
        }
        let others: Vec<Key> = interest.feeds.iter().copied().filter(|other| *other != feed).collect();
        for other in others {
            let Some((mine, theirs)) = self.feeds.get(feed).zip(self.feeds.get(other)) else { return };
            let (behind, ahead, next) =
                if mine.next <= theirs.next { (feed, other, mine.next) } else { (other, feed, theirs.next) };
            let meets = |ahead: &Feed| ahead.is_in_the_present() && next >= ahead.reaches_back_to();
            if !self.feeds.get(ahead).is_some_and(meets) {
                continue;
            }
            for watcher in self.end_feed(behind) {
                self.join(watcher, ahead);
            }
        }
    }

    /// Ends a feed; its watchers go on from where it was, elsewhere.
    fn end_feed(&mut self, feed: Key) -> Vec<Key> {
        let Some(ended) = self.feeds.remove(feed) else { return Vec::new() };
        metrics::PROXY_WATCHERS_COALESCED.add(1 - i64::try_from(ended.watchers.len().max(1)).unwrap_or(1));
        for key in &ended.watchers {
            if let Some(watcher) = self.watchers.get_mut(*key) {
                watcher.feed = None;
                watcher.start = watcher.start.max(ended.next);
            }
        }
        if let Some(interest) = self.interests.get_mut(ended.interest) {
            interest.feeds.retain(|other| *other != feed);
        }
        self.orders.push(Order::Close(ended.line, feed));
        ended.watchers
    }

    /// Takes a watcher off its feed, which ends with its last one.
    fn leave(&mut self, key: Key) {
        let Some((feed, place)) = self.watchers.get_mut(key).and_then(|watcher| watcher.feed.take()) else { return };
        let Some(known) = self.feeds.get_mut(feed) else { return };
        if place < known.watchers.len() {
            known.watchers.swap_remove(place);
        }
        if let Some(moved) = known.watchers.get(place).and_then(|moved| self.watchers.get_mut(*moved)) {
            moved.feed = Some((feed, place));
        }
        if known.watchers.is_empty() {
            self.end_feed(feed);
        } else {
            metrics::PROXY_WATCHERS_COALESCED.dec();
        }
    }

    /// Removes a watcher; its id is for the caller to give up.
    fn drop_watcher(&mut self, key: Key) {
        self.leave(key);
        let Some(watcher) = self.watchers.remove(key) else { return };
        if let Some(stream) = self.streams.get_mut(watcher.stream) {
            stream.watchers -= 1;
            self.idle_streams += usize::from(stream.watchers == 0);
        }
        let Some(interest) = self.interests.get_mut(watcher.interest) else { return };
        interest.watchers -= 1;
        if interest.watchers == 0
            && let Some(interest) = self.interests.remove(watcher.interest)
        {
            self.by_range.remove(&interest.range);
        }
    }

    fn tell_progress(&mut self, key: Key) {
        let Some(stream) = self.streams.get(key) else { return };
        let revision = stream.progress.1;
        let is_there = |(_, watcher): &(i64, Option<Key>)| {
            let watcher = watcher.and_then(|watcher| self.watchers.get(watcher));
            watcher.is_some_and(|watcher| watcher.feed.is_some() && watcher.start <= revision.saturating_add(1))
        };
        if stream.ids.iter().all(is_there) && stream.outbox.has_room() {
            self.answer(key, NO_WATCHER, revision, Body::Progress);
        }
    }

    fn answer(&mut self, stream: Key, id: i64, revision: i64, body: Body) {
        let header = ResponseHeader { revision, ..self.header };
        if let Some(stream) = self.streams.get(stream) {
            stream.outbox.put(body.frames(header, id, SPLIT_AT_BYTES), 0);
        }
    }

    fn heard(&mut self, header: ResponseHeader) {
        self.header = ResponseHeader { revision: self.header.revision.max(header.revision), ..header };
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> [usize; 4] {
        [self.streams.len(), self.watchers.len(), self.interests.len(), self.feeds.len()]
    }
}

/// Puts what a watcher wants of a batch into its stream's outbox; `false` if there is no room for it.
fn send(watcher: &Watcher, outbox: &Outbox, batch: &Batch, cuts: Option<&mut Cuts>, header: ResponseHeader) -> bool {
    let run = run_from(batch, watcher.start);
    let select = || batch.select(&[run], watcher.cut);
    let selected = match cuts {
        Some(cuts) if run.start == 0 => cuts.get(watcher.cut, select),
        _ => select(),
    };
    if selected.events == 0 {
        return true;
    }
    if !outbox.has_room() {
        return false;
    }
    let event_bytes = selected.bytes.len();
    let body = Body::Events { events: selected.bytes, fragment: watcher.fragment };
    outbox.put(body.frames(header, watcher.id, SPLIT_AT_BYTES), event_bytes);
    true
}

/// The lines that watchers hang on; `None` if one of them has none.
fn lines_of(watchers: &[Key], all: &Slab<Watcher>, feeds: &Slab<Feed>) -> Option<Vec<Line>> {
    let mut lines: Vec<Line> = Vec::new();
    for watcher in watchers {
        let (feed, _) = all.get(*watcher)?.feed?;
        let line = &feeds.get(feed)?.line;
        if !lines.contains(line) {
            lines.push(line.clone());
        }
    }
    Some(lines)
}

/// What a client asks to watch: an empty key stands for the lowest one.
fn range_of(request: &WatchCreateRequest) -> KeyRange {
    let key = if request.key.is_empty() { Bytes::from_static(b"\0") } else { request.key.clone() };
    KeyRange::new(key, &request.range_end)
}

fn cut_of(request: &WatchCreateRequest) -> Cut {
    let filtered = |kind: FilterType| request.filters.contains(&kind.into());
    Cut { no_put: filtered(FilterType::Noput), no_delete: filtered(FilterType::Nodelete), prev_kv: request.prev_kv }
}
