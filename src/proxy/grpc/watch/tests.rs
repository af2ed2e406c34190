//! The hub against a history in memory: a cluster that carries out its orders, clients that read or do not.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{
    feed::Line,
    hub::{Hub, IDLE_STREAMS_MAX, Order},
    outbox::{End, Outbox, Taken},
};
use crate::{
    pb::{
        etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse, watch_create_request::FilterType},
        mvccpb::{Event, KeyValue, event::EventType},
    },
    proxy::grpc::upstream::Token,
    types::KeyRange,
    watch::slab::Key,
};

/// A cluster as a proxy sees it: its whole history, and the watches the proxy has on it.
struct World {
    hub: Hub,
    history: Vec<Event>,
    revision: i64,
    compact_revision: i64,
    /// Next revision and request of each watch, in the order they were made.
    feeds: Vec<(Key, Line, i64, WatchCreateRequest)>,
    opened: usize,
}

impl World {
    fn new() -> Self {
        let (hub, feeds) = (Hub::default(), Vec::new());
        Self { hub, history: Vec::new(), revision: 1, compact_revision: 0, feeds, opened: 0 }
    }

    fn stream(&mut self) -> (Key, Arc<Outbox>) {
        self.stream_of(None)
    }

    fn stream_of(&mut self, token: Option<Token>) -> (Key, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::default());
        (self.hub.open(Arc::clone(&outbox), token, false).unwrap(), outbox)
    }

    fn create(&mut self, stream: Key, request: &WatchCreateRequest) {
        self.hub.create(stream, request, self.revision);
        self.obey();
    }

    fn change(&mut self, kind: EventType, key: &str, bytes: usize) {
        self.revision += 1;
        let kv = KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: vec![b'v'; bytes].into(),
            mod_revision: self.revision,
            ..KeyValue::default()
        };
        let prev_kv = Some(KeyValue { mod_revision: self.revision - 1, ..kv.clone() });
        self.history.push(Event { r#type: kind.into(), kv: Some(kv), prev_kv });
    }

    fn put(&mut self, key: &str) {
        self.change(EventType::Put, key, 1);
    }

    fn header(&self) -> ResponseHeader {
        ResponseHeader { revision: self.revision, cluster_id: 7, ..ResponseHeader::default() }
    }

    /// Carries out what the hub ordered.
    fn obey(&mut self) {
        for order in self.hub.take_orders() {
            match order {
                Order::Open(line, feed) => {
                    if let Some(request) = self.hub.request_of(feed) {
                        assert!(request.prev_kv && request.progress_notify);
                        self.opened += 1;
                        self.feeds.push((feed, line, request.start_revision, request));
                    }
                }
                Order::Close(_, feed) => self.feeds.retain(|(open, ..)| *open != feed),
                Order::Progress(line) => self.hub.is_complete(&line, self.header()),
            }
        }
    }

    /// Delivers up to `revisions` of what watch `number` has not got.
    fn deliver(&mut self, number: usize, revisions: i64) {
        let Some((feed, _, next, request)) = self.feeds.get(number).cloned() else { return };
        if next < self.compact_revision {
            self.hub.compacted(feed, self.compact_revision);
            return self.obey();
        }
        let end = next.saturating_add(revisions).min(self.revision + 1);
        let range = KeyRange::new(request.key.clone(), &request.range_end);
        let is_due = |event: &&Event| {
            let kv = event.kv.as_ref().unwrap();
            (next..end).contains(&kv.mod_revision) && range.contains(&kv.key)
        };
        let events: Vec<Event> = self.history.iter().filter(is_due).cloned().collect();
        self.feeds[number].2 = end.max(next);
        if !events.is_empty() {
            self.hub.deliver(feed, self.header(), events);
        }
        self.obey();
    }

    fn deliver_all(&mut self) {
        let mut rounds = 0;
        while let Some(number) = self.feeds.iter().position(|(_, _, next, _)| *next <= self.revision) {
            self.deliver(number, i64::MAX);
            rounds += 1;
            assert!(rounds < 10_000, "the cluster and the hub go round in circles");
        }
    }

    /// A client reads everything; returns what it got.
    fn read(&mut self, stream: Key, outbox: &Outbox) -> Vec<WatchResponse> {
        let mut read = Vec::new();
        loop {
            let responses = outbox.drain();
            if responses.is_empty() {
                return read;
            }
            read.extend(responses);
            if outbox.sent() {
                self.hub.return_room(stream);
                self.obey();
                self.deliver_all();
            }
        }
    }
}

fn watch(key: &str, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: Bytes::copy_from_slice(key.as_bytes()), start_revision, ..WatchCreateRequest::default() }
}

/// A short form of responses: what a test compares.
fn short(responses: &[WatchResponse]) -> Vec<String> {
    let one = |response: &WatchResponse| {
        let revisions: Vec<i64> = response.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
        let kind = match (response.created, response.canceled, revisions.is_empty()) {
            (true, false, _) => "created",
            (true, true, _) => "refused",
            (false, true, _) => "canceled",
            (false, false, true) => "progress",
            (false, false, false) => return format!("{} {revisions:?}", response.watch_id),
        };
        format!("{} {kind}@{}", response.watch_id, response.header.unwrap().revision)
    };
    responses.iter().map(one).collect()
}

fn token(text: &'static str) -> Option<Token> {
    Token::of(&HeaderMap::from_iter([(HeaderName::from_static("token"), HeaderValue::from_static(text))]))
}

#[test]
fn a_thousand_watchers_of_ten_keys_cost_ten_watches() {
    let mut world = World::new();
    let streams: Vec<_> = (0..100).map(|_| world.stream()).collect();
    for number in 0..1_000 {
        let (stream, _) = &streams[number % 100];
        world.create(*stream, &watch(&format!("key{}", number / 100), 0));
        world.put("other");
    }
    assert_eq!((world.opened, world.feeds.len()), (10, 10));
    world.put("key3");
    world.deliver_all();
    for (stream, outbox) in &streams {
        let got = short(&world.read(*stream, outbox));
        assert_eq!((got.len(), got.last().unwrap().as_str()), (11, "3 [1002]"));
    }
    for (stream, _) in &streams {
        world.hub.close(*stream);
    }
    world.obey();
    assert_eq!((world.hub.counts(), world.feeds.len()), ([0, 0, 0, 0], 0));
}

#[test]
fn each_watcher_gets_what_it_asked_for_of_a_shared_watch() {
    let mut world = World::new();
    let (stream, outbox) = world.stream();
    world.create(stream, &WatchCreateRequest { filters: vec![FilterType::Noput.into()], ..watch("k", 0) });
    world.create(stream, &WatchCreateRequest { prev_kv: true, watch_id: 9, ..watch("k", 0) });
    world.create(stream, &WatchCreateRequest { watch_id: 9, ..watch("k", 0) });
    world.create(stream, &watch("k", 4));
    world.put("k");
    world.change(EventType::Delete, "k", 0);
    world.put("k");
    world.deliver(0, 1);
    world.deliver_all();
    let got = world.read(stream, &outbox);
    assert_eq!(
        short(&got),
        ["0 created@1", "9 created@1", "-1 refused@1", "1 created@1", "9 [2]", "0 [3]", "9 [3, 4]", "1 [4]"]
    );
    assert!(
        got.iter()
            .all(|response| response.header.unwrap().cluster_id == if response.events.is_empty() { 0 } else { 7 })
    );
    assert!(got.iter().flat_map(|r| &r.events).any(|event| event.prev_kv.is_some()));
    assert!(got[7].events[0].prev_kv.is_none());
    assert_eq!(world.opened, 1);
}

#[test]
fn who_comes_late_is_served_from_what_was_kept_or_by_a_watch_of_its_own_until_they_meet() {
    let mut world = World::new();
    for _ in 0..5 {
        world.put("k");
    }
    let [(early, early_box), (late, late_box), (past, past_box)] = [(); 3].map(|()| world.stream());
    world.create(early, &watch("k", 0));
    world.put("k");
    world.put("k");
    world.deliver_all();
    world.create(late, &watch("k", 7));
    assert_eq!(world.opened, 1, "it was kept");
    assert_eq!(short(&world.read(late, &late_box)), ["0 created@8", "0 [7, 8]"]);
    world.create(past, &watch("k", 3));
    assert_eq!((world.opened, world.feeds.len()), (2, 2));
    assert!(world.feeds[1].1.is_past);
    world.deliver(1, 2);
    assert_eq!(world.feeds.len(), 2, "they have not met");
    world.deliver(1, 2);
    assert_eq!(world.feeds.len(), 1, "what is missing was kept");
    assert_eq!(short(&world.read(past, &past_box)), ["0 created@8", "0 [3, 4]", "0 [5, 6]", "0 [7, 8]"]);
    world.put("k");
    world.deliver_all();
    for (stream, outbox) in [(early, &early_box), (late, &late_box), (past, &past_box)] {
        assert_eq!(short(&world.read(stream, outbox)).last().unwrap(), "0 [9]");
    }
}

#[test]
fn a_client_that_does_not_read_costs_a_number_and_loses_nothing() {
    let mut world = World::new();
    let [(slow, slow_box), (quick, quick_box)] = [(); 2].map(|()| world.stream());
    world.create(slow, &watch("k", 0));
    world.create(quick, &watch("k", 0));
    let mut quick_got = Vec::new();
    for _ in 0..100 {
        world.change(EventType::Put, "k", 64 * 1024);
        world.deliver_all();
        quick_got.extend(world.read(quick, &quick_box));
    }
    assert_eq!(quick_got.iter().flat_map(|response| &response.events).count(), 100);
    let waiting: usize = {
        let got = slow_box.drain();
        let events: usize = got.iter().map(|response| response.events.len()).sum();
        assert!(slow_box.sent(), "it waits for room");
        events
    };
    assert!(waiting < 20, "{waiting} events wait");
    world.hub.return_room(slow);
    world.obey();
    world.deliver_all();
    let rest = world.read(slow, &slow_box);
    let revisions: Vec<i64> =
        rest.iter().flat_map(|r| &r.events).map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
    let first = 2 + i64::try_from(waiting).unwrap();
    assert_eq!(revisions, (first..=101).collect::<Vec<_>>());
    world.put("k");
    world.deliver_all();
    assert_eq!(world.feeds.len(), 1, "in the present there is one watch again");
}

#[test]
fn compaction_ends_who_needs_the_past_and_nobody_else() {
    let mut world = World::new();
    for _ in 0..5 {
        world.put("k");
    }
    let (stream, outbox) = world.stream();
    world.create(stream, &watch("k", 2));
    world.create(stream, &watch("k", 5));
    world.compact_revision = 4;
    world.deliver_all();
    let got = world.read(stream, &outbox);
    assert_eq!(short(&got), ["0 created@6", "1 created@6", "0 canceled@0", "1 [5, 6]"]);
    assert_eq!(got[2].compact_revision, 4);
    world.create(stream, &WatchCreateRequest { watch_id: 0, ..watch("k", 0) });
    world.hub.cancel(stream, 0);
    let got = short(&world.read(stream, &outbox));
    assert_eq!(got, ["2 created@6", "0 canceled@6"], "the id stays taken until its client gives it up");
}

#[test]
fn ids_that_compaction_left_behind_are_bounded() {
    let mut world = World::new();
    for _ in 0..5 {
        world.put("k");
    }
    world.compact_revision = 4;
    let (stream, outbox) = world.stream();
    for _ in 0..1_000 {
        world.create(stream, &watch("k", 2));
        world.deliver_all();
        world.read(stream, &outbox);
    }
    for id in 0..1_000 {
        world.hub.cancel(stream, id);
    }
    let answered = short(&world.read(stream, &outbox));
    assert_eq!(answered.len(), 256, "the last ones are known still");
    assert_eq!((answered[0].as_str(), answered[255].as_str()), ("744 canceled@6", "999 canceled@6"));
}

#[test]
fn streams_without_watchers_are_bounded_and_those_with_are_not_counted() {
    let mut world = World::new();
    let (busy, _) = world.stream();
    world.create(busy, &watch("k", 0));
    let mut idle: Vec<Key> = (0..IDLE_STREAMS_MAX).map(|_| world.stream().0).collect();
    let open =
        |world: &mut World| world.hub.open(Arc::default(), None, false).map_err(|status| status.message().to_owned());
    assert!(open(&mut world).unwrap_err().contains("streams without a watcher"));
    world.create(idle[0], &watch("k", 0));
    let another = open(&mut world).unwrap();
    world.hub.cancel(busy, 0);
    world.hub.close(idle.pop().unwrap());
    assert!(open(&mut world).is_err(), "a stream whose last watcher has gone counts again");
    world.hub.close(another);
    assert!(open(&mut world).is_ok());
}

#[tokio::test]
async fn nothing_is_left_of_a_cluster_that_was_here_before() {
    let mut world = World::new();
    for _ in 0..9 {
        world.put("k");
    }
    let (stream, outbox) = world.stream();
    world.create(stream, &watch("k", 0));
    world.create(stream, &watch("other", 500));
    world.hub.progress(stream);
    world.hub.start_over();
    let closed = world.hub.take_orders();
    assert_eq!(closed.iter().filter(|order| matches!(order, Order::Close(..))).count(), 2);
    assert_eq!(world.hub.counts(), [1, 0, 0, 0]);
    assert!(matches!(outbox.take().await, Taken::End(End::OtherCluster)));
    world.hub.close(stream);
    // What the old one still says is not heard.
    let (feed, line, ..) = world.feeds[0].clone();
    world.hub.deliver(feed, world.header(), world.history.clone());
    world.hub.is_quiet(feed, world.header());
    world.hub.is_complete(&line, world.header());
    world.feeds.clear();
    world.history.clear();
    world.revision = 2;
    let (stream, outbox) = world.stream();
    world.create(stream, &watch("k", 0));
    world.put("k");
    world.deliver_all();
    assert_eq!(short(&world.read(stream, &outbox)), ["0 created@2", "0 [3]"]);
}

#[test]
fn a_cancelled_watcher_hears_nothing_more_and_the_last_one_ends_the_watch() {
    let mut world = World::new();
    let (stream, outbox) = world.stream();
    world.create(stream, &watch("k", 0));
    world.create(stream, &watch("k", 0));
    world.hub.cancel(stream, 0);
    world.hub.cancel(stream, 77);
    world.put("k");
    world.deliver_all();
    assert_eq!(short(&world.read(stream, &outbox)), ["0 created@1", "1 created@1", "0 canceled@1", "1 [2]"]);
    world.hub.cancel(stream, 1);
    world.obey();
    assert!(world.feeds.is_empty());
    assert_eq!(world.hub.counts(), [1, 0, 0, 0]);
}

#[test]
fn who_watches_from_the_future_on_moves_nobodys_present() {
    let mut world = World::new();
    let (future, _) = world.stream();
    world.create(future, &watch("k", 1_000));
    let (present, outbox) = world.stream();
    world.create(present, &watch("k", 0));
    world.put("k");
    world.deliver_all();
    assert_eq!(short(&world.read(present, &outbox)), ["0 created@1", "0 [2]"]);
}

#[test]
fn progress_is_not_told_while_the_past_is_on_its_way() {
    let mut world = World::new();
    world.put("k");
    let (stream, outbox) = world.stream();
    world.create(stream, &watch("l", 0));
    let header = world.header();
    world.hub.progress(stream);
    let asked = world.hub.take_orders();
    world.create(stream, &watch("k", 1));
    for order in asked {
        if let Order::Progress(line) = order {
            world.hub.is_complete(&line, header);
        }
    }
    let got = short(&world.read(stream, &outbox));
    assert!(got.iter().all(|one| !one.contains("progress")), "{got:?}");
    world.deliver_all();
    assert_eq!(short(&world.read(stream, &outbox)).last().unwrap(), "1 [2]");
}

#[test]
fn progress_is_told_to_those_who_asked() {
    let mut world = World::new();
    let (stream, outbox) = world.stream();
    world.hub.progress(stream);
    world.create(stream, &WatchCreateRequest { progress_notify: true, ..watch("k", 0) });
    world.create(stream, &watch("k", 0));
    world.create(stream, &watch("l", 0));
    world.put("other");
    let (feed, header) = (world.feeds[0].0, world.header());
    world.hub.is_quiet(feed, header);
    world.hub.progress(stream);
    world.obey();
    let got = short(&world.read(stream, &outbox));
    assert_eq!(got[3..], ["0 progress@2", "-1 progress@2"]);
}

#[test]
fn a_refusal_ends_the_watchers_of_that_user_and_others_go_on() {
    let mut world = World::new();
    let (gone, gone_box) = world.stream_of(token("gone"));
    let (here, here_box) = world.stream_of(token("here"));
    world.create(gone, &watch("k", 0));
    world.create(here, &watch("k", 0));
    assert_eq!(world.feeds.len(), 1);
    let feed = world.feeds[0].0;
    world.hub.refused(feed, "etcdserver: invalid auth token");
    world.put("k");
    world.obey();
    world.deliver_all();
    let got = world.read(gone, &gone_box);
    assert_eq!(short(&got), ["0 created@1", "0 canceled@1"]);
    assert_eq!(got[1].cancel_reason, "etcdserver: invalid auth token");
    assert_eq!(short(&world.read(here, &here_box)), ["0 created@1", "0 [2]"]);
    let feed = world.feeds[0].0;
    world.hub.refused(feed, "etcdserver: permission denied");
    assert_eq!(short(&world.read(here, &here_box)), ["0 canceled@2"]);
}

#[test]
fn what_no_member_takes_is_refused_here() {
    let mut world = World::new();
    let (stream, outbox) = world.stream();
    world.create(stream, &watch("k", -1));
    world.create(stream, &WatchCreateRequest { range_end: Bytes::from_static(b"a"), ..watch("k", 0) });
    let got = world.read(stream, &outbox);
    assert_eq!(got[0].cancel_reason, "etcdserver: mvcc: required revision has been compacted");
    assert_eq!(got[1].cancel_reason, "mvcc: watcher range is empty");
    assert_eq!(short(&got), ["-1 refused@1", "-1 refused@1"]);
}

#[derive(Clone, Debug)]
enum Move {
    Create { stream: usize, key: usize, from: Option<i64> },
    Cancel { stream: usize, id: i64 },
    Put { key: usize, large: bool },
    Deliver { feed: usize, revisions: i64 },
    Read { stream: usize },
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        2 => (0..3_usize, 0..3_usize, prop::option::of(1..40_i64)).prop_map(|(stream, key, from)| Move::Create { stream, key, from }),
        1 => (0..3_usize, 0..6_i64).prop_map(|(stream, id)| Move::Cancel { stream, id }),
        4 => (0..3_usize, prop::bool::weighted(0.3)).prop_map(|(key, large)| Move::Put { key, large }),
        4 => (0..6_usize, 1..6_i64).prop_map(|(feed, revisions)| Move::Deliver { feed, revisions }),
        2 => (0..3_usize).prop_map(|stream| Move::Read { stream }),
    ]
}

/// What one watcher must have got, and has.
#[derive(Debug)]
struct Expected {
    key: String,
    from: i64,
    got: Vec<i64>,
    over: bool,
}

/// For each stream the watchers asked for and not yet confirmed, and where they start.
type Asked = Vec<VecDeque<(String, Option<i64>)>>;

const KEYS: [&str; 3] = ["a", "b", "c"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Whatever the order of things: every watcher gets every event of its key from its start on, once and in order.
    #[test]
    fn every_watcher_gets_everything_once(moves in prop::collection::vec(moves(), 1..80)) {
        let mut world = World::new();
        let streams = [(); 3].map(|()| world.stream());
        let mut expected: Vec<BTreeMap<i64, Expected>> = (0..3).map(|_| BTreeMap::new()).collect();
        let mut asked: Asked = vec![VecDeque::new(); 3];
        let mut check = |world: &mut World, stream: usize, asked: &mut Asked| {
            let (key, outbox) = &streams[stream];
            for response in world.read(*key, outbox) {
                if response.created {
                    let (watched, from) = asked[stream].pop_front().unwrap();
                    let from = from.unwrap_or(response.header.unwrap().revision + 1);
                    let new = Expected { key: watched, from, got: Vec::new(), over: false };
                    expected[stream].insert(response.watch_id, new);
                    continue;
                }
                let watcher = expected[stream].get_mut(&response.watch_id).expect("it was created before");
                assert!(!watcher.over, "nothing follows the end of a watcher");
                watcher.over = response.canceled;
                watcher.got.extend(response.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
            }
        };
        for one in moves {
            match one {
                Move::Create { stream, key, from } => {
                    let from = from.map(|from| from.min(world.revision + 5));
                    asked[stream].push_back((KEYS[key].to_owned(), from));
                    world.create(streams[stream].0, &watch(KEYS[key], from.unwrap_or(0)));
                }
                Move::Cancel { stream, id } => {
                    world.hub.cancel(streams[stream].0, id);
                    world.obey();
                }
                Move::Put { key, large } => world.change(EventType::Put, KEYS[key], if large { 400_000 } else { 1 }),
                Move::Deliver { feed, revisions } => world.deliver(feed, revisions),
                Move::Read { stream } => check(&mut world, stream, &mut asked),
            }
        }
        world.deliver_all();
        for stream in 0..3 {
            check(&mut world, stream, &mut asked);
        }
        for watcher in expected.iter().flat_map(BTreeMap::values) {
            let all: Vec<i64> = world.history.iter().filter_map(|event| event.kv.as_ref())
                .filter(|kv| kv.mod_revision >= watcher.from && kv.key == watcher.key.as_bytes())
                .map(|kv| kv.mod_revision).collect();
            if watcher.over {
                prop_assert!(all.starts_with(&watcher.got), "{:?} of {:?}", watcher, all);
            } else {
                prop_assert_eq!(&watcher.got, &all, "{:?}", watcher);
            }
        }
    }
}
