//! The hub against a history in memory, one rule per test, and all of them at once against a model.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    mvcc::{Changes, History, RevisionEvents},
    pb::{
        etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse},
        mvccpb::{Event, KeyValue, event::EventType},
    },
    types::{KeyRange, Ticks},
};

const INTERVAL_MS: u64 = 600_000;

/// A store's history, a hub beside it, and clients that read everything unless told otherwise.
struct World {
    hub: Hub,
    past: Vec<Arc<Changes>>,
    compact_revision: i64,
    values: BTreeMap<Bytes, KeyValue>,
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn watch(key: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: bytes(key), ..WatchCreateRequest::default() }
}

fn watch_range(key: &str, end: &str) -> WatchCreateRequest {
    WatchCreateRequest { range_end: bytes(end), ..watch(key) }
}

fn from(start_revision: i64, request: WatchCreateRequest) -> WatchCreateRequest {
    WatchCreateRequest { start_revision, ..request }
}

/// A short form of a response: what a test compares.
fn short(response: &WatchResponse) -> String {
    let WatchResponse { created, canceled, compact_revision, cancel_reason, fragment, events, .. } = response;
    let mut words = vec![format!("{}@{}", response.watch_id, response.header.as_ref().unwrap().revision)];
    for (flag, name) in [(created, "created"), (canceled, "canceled"), (fragment, "fragment")] {
        words.extend(flag.then(|| name.to_owned()));
    }
    words.extend((*compact_revision != 0).then(|| format!("compacted={compact_revision}")));
    words.extend((!cancel_reason.is_empty()).then(|| format!("({cancel_reason})")));
    words.extend(events.iter().map(short_event));
    words.join(" ")
}

fn short_event(event: &Event) -> String {
    let kv = event.kv.as_ref().unwrap();
    let sign = if event.r#type() == EventType::Put { '+' } else { '-' };
    let previous = event.prev_kv.as_ref().map_or_else(String::new, |previous| format!("<{}", previous.mod_revision));
    format!("{sign}{}@{}{previous}", String::from_utf8_lossy(&kv.key), kv.mod_revision)
}

fn respond(delivery: Delivery) -> Vec<WatchResponse> {
    delivery.frames(Header::default(), usize::MAX).map(|frame| frame.to_response()).collect()
}

impl World {
    fn new() -> Self {
        Self { hub: Hub::new(1, -1), past: Vec::new(), compact_revision: -1, values: BTreeMap::new() }
    }

    fn open(&mut self) -> StreamId {
        self.hub.open(Ticks(0), INTERVAL_MS)
    }

    fn revision(&self) -> i64 {
        1 + i64::try_from(self.past.len()).unwrap()
    }

    /// `+key` puts, `-key` deletes; all in one revision.
    fn commit(&mut self, ops: &[&str]) -> Arc<Changes> {
        let revision = self.revision() + 1;
        let events = ops.iter().map(|op| self.event(op, revision)).collect();
        let changes = Arc::new(Changes { revision, events });
        self.past.push(changes.clone());
        changes
    }

    fn event(&mut self, op: &str, revision: i64) -> Event {
        let (sign, key) = op.split_at(1);
        let previous = self.values.remove(key.as_bytes());
        let mut kv = KeyValue { key: bytes(key), mod_revision: revision, ..KeyValue::default() };
        if sign == "-" {
            return Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv: previous };
        }
        kv.create_revision = previous.as_ref().map_or(revision, |previous| previous.create_revision);
        kv.value = bytes(&format!("{key} at {revision}"));
        self.values.insert(kv.key.clone(), kv.clone());
        Event { r#type: EventType::Put.into(), kv: Some(kv), prev_kv: previous }
    }

    /// Commits and tells the hub.
    fn write(&mut self, ops: &[&str]) -> Vec<Delivery> {
        let changes = self.commit(ops);
        let mut out = Vec::new();
        self.hub.changes(changes, &mut out);
        out
    }

    fn compact(&mut self, revision: i64) {
        self.compact_revision = revision;
        self.hub.compacted(revision);
    }

    fn create(&mut self, stream: StreamId, request: &WatchCreateRequest) -> Vec<String> {
        let mut out = Vec::new();
        self.hub.create(stream, request, &mut out);
        self.read(out)
    }

    /// The client takes everything at once.
    fn read(&mut self, deliveries: Vec<Delivery>) -> Vec<String> {
        let mut responses = Vec::new();
        for delivery in deliveries {
            self.hub.return_room(delivery.stream, 1, delivery.event_bytes());
            responses.extend(respond(delivery).iter().map(short));
        }
        responses
    }

    fn written(&mut self, ops: &[&str]) -> Vec<String> {
        let out = self.write(ops);
        self.read(out)
    }

    fn history(&self, item: &CatchUp) -> Past {
        if item.from < self.compact_revision {
            return Past::Compacted { compact_revision: self.compact_revision };
        }
        let inside = |changes: &Changes| {
            let concerns = |event: &&Event| item.matcher.concerns(&event.kv.as_ref().unwrap().key);
            let events = changes.events.iter().filter(concerns).cloned().collect();
            RevisionEvents { revision: changes.revision, events }
        };
        let mut history = History { revisions: Vec::new(), next: item.from };
        for changes in self.past.iter().filter(|changes| changes.revision >= item.from) {
            if history.revisions.len() == HISTORY_REVISIONS_MAX {
                break;
            }
            history.next = changes.revision + 1;
            history.revisions.extend(Some(inside(changes)).filter(|found| !found.events.is_empty()));
        }
        Past::Read(history)
    }

    /// One round.
    fn round(&mut self) -> Vec<Delivery> {
        let mut out = Vec::new();
        for item in self.hub.plan(&mut out) {
            let past = self.history(&item);
            self.hub.caught_up(item, past, &mut out);
        }
        out
    }

    /// Rounds until nobody is behind; the client takes everything.
    fn catch_up(&mut self) -> Vec<String> {
        let mut responses = Vec::new();
        while self.hub.has_work() {
            let out = self.round();
            responses.extend(self.read(out));
        }
        responses
    }

    fn cancel(&mut self, stream: StreamId, watch_id: i64) -> Vec<String> {
        let mut out = Vec::new();
        self.hub.cancel(stream, watch_id, &mut out);
        self.read(out)
    }

    fn progress(&mut self, stream: StreamId) -> Vec<String> {
        let mut out = Vec::new();
        self.hub.progress(stream, &mut out);
        self.read(out)
    }

    fn tick(&mut self, now: u64) -> Vec<String> {
        let mut out = Vec::new();
        self.hub.tick(Ticks(now), &mut out);
        self.read(out)
    }
}

#[test]
fn w01_created_comes_first_with_the_current_revision() {
    let mut world = World::new();
    world.written(&["+a"]);
    let stream = world.open();
    assert_eq!(world.create(stream, &watch("a")), ["0@2 created"]);
}

#[test]
fn w02_ids_are_per_stream_and_duplicates_are_refused() {
    let mut world = World::new();
    let (one, two) = (world.open(), world.open());
    assert_eq!(world.create(one, &watch("a")), ["0@1 created"]);
    assert_eq!(world.create(one, &watch("a")), ["1@1 created"]);
    assert_eq!(world.create(two, &watch("a")), ["0@1 created"]);
    let chosen = WatchCreateRequest { watch_id: 7, ..watch("a") };
    assert_eq!(world.create(one, &chosen), ["7@1 created"]);
    let refused = "-1@1 created canceled (mvcc: duplicate watch ID provided on the WatchStream)";
    assert_eq!(world.create(one, &chosen), [refused]);
    assert_eq!(world.cancel(one, 7), ["7@1 canceled"]);
    assert_eq!(world.create(one, &chosen), ["7@1 created"]);
}

#[test]
fn w03_start_zero_gets_only_later_events() {
    let mut world = World::new();
    world.written(&["+a"]);
    let stream = world.open();
    world.create(stream, &watch("a"));
    assert!(world.catch_up().is_empty());
    assert_eq!(world.written(&["+a"]), ["0@3 +a@3"]);
}

#[test]
fn w04_start_in_the_past_gets_history_then_live_without_gap_or_duplicate() {
    let mut world = World::new();
    world.written(&["+a"]);
    world.written(&["+b"]);
    world.written(&["+a"]);
    let stream = world.open();
    world.create(stream, &from(2, watch("a")));
    assert!(world.written(&["-a"]).is_empty(), "behind, so not yet");
    assert_eq!(world.catch_up(), ["0@5 +a@2 +a@4 -a@5"]);
    assert_eq!(world.written(&["+a"]), ["0@6 +a@6"]);
}

#[test]
fn w05_start_in_the_future_waits() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &from(4, watch("a")));
    assert!(world.written(&["+a"]).is_empty());
    assert!(world.written(&["+a"]).is_empty());
    assert_eq!(world.written(&["+a"]), ["0@4 +a@4"]);
}

#[test]
fn w06_start_below_the_compaction_is_canceled_and_its_id_stays_taken() {
    let mut world = World::new();
    for _ in 0..4 {
        world.written(&["+a"]);
    }
    world.compact(4);
    let stream = world.open();
    assert_eq!(world.create(stream, &from(3, watch("a"))), ["0@5 created"]);
    assert_eq!(world.catch_up(), ["0@0 canceled compacted=4"]);
    assert!(world.written(&["+a"]).is_empty());
    assert_eq!(world.create(stream, &watch("a")), ["1@6 created"]);
    assert_eq!(world.cancel(stream, 0), ["0@6 canceled"]);
}

#[test]
fn w07_start_at_the_compaction_is_served() {
    let mut world = World::new();
    for _ in 0..4 {
        world.written(&["+a"]);
    }
    world.compact(4);
    let stream = world.open();
    world.create(stream, &from(4, watch("a")));
    assert_eq!(world.catch_up(), ["0@5 +a@4 +a@5"]);
}

#[test]
fn w08_negative_start_is_refused() {
    let mut world = World::new();
    let stream = world.open();
    let refused = "-1@1 created canceled (etcdserver: mvcc: required revision has been compacted)";
    assert_eq!(world.create(stream, &from(-1, watch_range("b", "a"))), [refused]);
}

#[test]
fn w09_empty_range_is_refused_before_a_duplicate_id() {
    let mut world = World::new();
    let stream = world.open();
    let taken = WatchCreateRequest { watch_id: 3, ..watch("a") };
    world.create(stream, &taken);
    let both = WatchCreateRequest { range_end: bytes("a"), ..taken };
    assert_eq!(world.create(stream, &both), ["-1@1 created canceled (mvcc: watcher range is empty)"]);
}

#[test]
fn w10_empty_key_is_the_lowest_key_and_with_open_end_everything() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &watch(""));
    world.create(stream, &watch_range("", "\0"));
    assert_eq!(world.written(&["+a"]), ["1@2 +a@2"]);
    assert_eq!(world.written(&["+\0"]), ["0@3 +\0@3", "1@3 +\0@3"]);
}

#[test]
fn w12_previous_pairs_come_only_if_asked_for_and_there() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &watch("a"));
    world.create(stream, &WatchCreateRequest { prev_kv: true, ..watch("a") });
    assert_eq!(world.written(&["+a"]), ["0@2 +a@2", "1@2 +a@2"]);
    assert_eq!(world.written(&["+a"]), ["0@3 +a@3", "1@3 +a@3<2"]);
    assert_eq!(world.written(&["-a"]), ["0@4 -a@4", "1@4 -a@4<3"]);
}

#[test]
fn w13_filters_drop_events_and_empty_responses() {
    let mut world = World::new();
    let stream = world.open();
    let filtered = |filters: &[i32]| WatchCreateRequest { filters: filters.to_vec(), ..watch_range("a", "z") };
    world.create(stream, &filtered(&[0]));
    world.create(stream, &filtered(&[1, 9]));
    world.create(stream, &filtered(&[0, 1]));
    assert_eq!(world.written(&["+a", "+b"]), ["1@2 +a@2 +b@2"]);
    assert_eq!(world.written(&["-a", "+c", "-b"]), ["0@3 -a@3 -b@3", "1@3 +c@3"]);
}

#[test]
fn w14_changes_of_one_revision_arrive_together_and_in_order() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &watch_range("a", "c"));
    assert_eq!(world.written(&["+b", "+z", "+a", "-b"]), ["0@2 +b@2 +a@2 -b@2"]);
}

#[test]
fn w15_long_history_comes_in_batches_of_a_thousand_revisions() {
    let mut world = World::new();
    for _ in 0..2_500 {
        world.commit(&["+a"]);
    }
    world.hub.skip_to(2_501, -1);
    let stream = world.open();
    world.create(stream, &from(2, watch("a")));
    let responses = world.catch_up();
    assert_eq!(responses.len(), 3);
    assert!(responses.iter().all(|response| response.starts_with("0@2501 ")));
    assert!(responses[0].ends_with(" +a@1001") && responses[1].ends_with(" +a@2001"));
    assert_eq!(world.written(&["+a"]), ["0@2502 +a@2502"]);
}

#[test]
fn w16_fragments_are_sent_only_to_clients_that_accept_them() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &watch_range("a", "z"));
    world.create(stream, &WatchCreateRequest { fragment: true, ..watch_range("a", "z") });
    let out = world.write(&["+a", "+b", "+c"]);
    let frames: Vec<Vec<String>> = out
        .into_iter()
        .map(|delivery| delivery.frames(Header::default(), 50).map(|frame| short(&frame.to_response())).collect())
        .collect();
    assert_eq!(frames[0], ["0@2 +a@2 +b@2 +c@2"]);
    assert_eq!(frames[1], ["1@2 fragment +a@2 +b@2", "1@2 +c@2"]);
}

#[test]
fn w17_w18_cancel_is_answered_and_ends_only_that_watcher() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &watch("a"));
    world.create(stream, &watch("a"));
    assert!(world.cancel(stream, 9).is_empty());
    assert_eq!(world.cancel(stream, 0), ["0@1 canceled"]);
    assert_eq!(world.written(&["+a"]), ["1@2 +a@2"]);
    assert!(world.cancel(stream, 0).is_empty());
}

#[test]
fn canceled_watcher_gets_nothing_of_a_read_under_way() {
    let mut world = World::new();
    world.commit(&["+a"]);
    world.hub.skip_to(2, -1);
    let stream = world.open();
    world.create(stream, &from(2, watch("a")));
    let mut out = Vec::new();
    let item = world.hub.plan(&mut out).pop().unwrap();
    world.cancel(stream, 0);
    let past = world.history(&item);
    world.hub.caught_up(item, past, &mut out);
    assert!(out.is_empty());
    assert_eq!(world.hub.stats(), HubStats { streams: 1, ..HubStats::default() });
}

#[test]
fn w19_w20_quiet_watchers_hear_of_progress_at_every_tick() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &WatchCreateRequest { progress_notify: true, ..watch("a") });
    world.create(stream, &watch("b"));
    world.written(&["+b"]);
    assert!(world.tick(INTERVAL_MS - 1).is_empty());
    assert_eq!(world.tick(INTERVAL_MS), ["0@2"]);
    world.written(&["+a"]);
    assert!(world.tick(2 * INTERVAL_MS).is_empty(), "it heard of the put");
    assert_eq!(world.hub.next_tick(), Some(Ticks(3 * INTERVAL_MS)));
    assert_eq!(world.tick(3 * INTERVAL_MS), ["0@3"]);
}

#[test]
fn watcher_of_the_future_hears_of_no_progress() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &WatchCreateRequest { progress_notify: true, ..from(3, watch("a")) });
    assert!(world.tick(INTERVAL_MS).is_empty());
    assert!(world.progress(stream).is_empty());
    world.written(&["+b"]);
    world.written(&["+b"]);
    assert_eq!(world.progress(stream), ["-1@3"]);
    assert_eq!(world.tick(2 * INTERVAL_MS), ["0@3"]);
}

#[test]
fn w21_w22_progress_is_answered_only_in_sync() {
    let mut world = World::new();
    let stream = world.open();
    assert!(world.progress(stream).is_empty(), "no watchers");
    world.create(stream, &watch("a"));
    assert_eq!(world.progress(stream), ["-1@1"]);
    world.written(&["+a"]);
    world.create(stream, &from(2, watch("a")));
    assert!(world.progress(stream).is_empty(), "one is behind");
    world.catch_up();
    assert_eq!(world.progress(stream), ["-1@2"]);
}

#[test]
fn w23_progress_never_overtakes_events_that_found_no_room() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &watch("a"));
    let mut queue = Vec::new();
    for _ in 0..ROOM_RESPONSES + 5 {
        queue.extend(world.write(&["+a"]));
    }
    assert_eq!(queue.len(), ROOM_RESPONSES);
    assert!(world.progress(stream).is_empty());
    world.read(queue);
    assert!(world.progress(stream).is_empty(), "there is room, but the watcher is behind");
    let revision = world.revision();
    assert_eq!(world.catch_up().len(), 1);
    assert_eq!(world.progress(stream), [format!("-1@{revision}")]);
}

#[test]
fn w28_watchers_of_one_key_with_different_options_are_all_served() {
    let mut world = World::new();
    let (one, two) = (world.open(), world.open());
    world.create(one, &watch("a"));
    world.create(one, &WatchCreateRequest { prev_kv: true, ..watch("a") });
    world.create(two, &watch_range("a", "b"));
    world.create(two, &WatchCreateRequest { filters: vec![0], ..watch("a") });
    world.written(&["+a"]);
    assert_eq!(world.written(&["+a"]), ["0@3 +a@3", "1@3 +a@3<2", "0@3 +a@3"]);
}

#[test]
fn watchers_of_the_same_events_share_their_bytes() {
    let mut world = World::new();
    let (one, two) = (world.open(), world.open());
    world.create(one, &watch("a"));
    world.create(two, &watch("a"));
    world.create(two, &watch_range("a", "b"));
    let pointers: Vec<_> = world
        .write(&["+a"])
        .iter()
        .map(|delivery| match &delivery.body {
            Body::Events { events, .. } => events.as_ptr(),
            _ => std::ptr::null(),
        })
        .collect();
    assert_eq!(pointers.len(), 3);
    assert!(pointers.iter().all(|pointer| *pointer == pointers[0]));
}

#[test]
fn w29_slow_stream_costs_cursors_and_catches_up_without_loss() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &watch("a"));
    world.create(stream, &watch("b"));
    let mut queue = Vec::new();
    for _ in 0..3 * ROOM_RESPONSES {
        queue.extend(world.write(&["+a"]));
    }
    assert_eq!(queue.len(), ROOM_RESPONSES);
    assert!(world.round().is_empty());
    assert!(!world.hub.has_work(), "it waits for room, not in a loop");
    assert_eq!(world.hub.stats().unsynced, 1);
    let mut responses = world.read(queue);
    responses.extend(world.catch_up());
    let events: Vec<&str> = responses.iter().flat_map(|response| response.split(' ').skip(1)).collect();
    let expected: Vec<String> = (2..=world.revision()).map(|revision| format!("+a@{revision}")).collect();
    assert_eq!(events, expected);
    assert_eq!(world.written(&["+a", "+b"]).len(), 2);
}

#[test]
fn slow_watcher_whose_past_is_compacted_is_canceled_once_there_is_room() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &watch("a"));
    let mut queue = Vec::new();
    for _ in 0..ROOM_RESPONSES + 9 {
        queue.extend(world.write(&["+a"]));
    }
    world.compact(world.revision());
    assert!(world.round().is_empty());
    world.read(queue);
    assert_eq!(world.catch_up(), [format!("0@0 canceled compacted={}", world.revision())]);
    assert_eq!(world.hub.stats().unsynced, 0);
}

#[test]
fn large_responses_fill_a_stream_by_bytes() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &watch("a"));
    let large = |revision| {
        let kv = KeyValue { key: bytes("a"), value: vec![0; 300_000].into(), ..KeyValue::default() };
        Arc::new(Changes { revision, events: vec![Event { kv: Some(kv), ..Event::default() }] })
    };
    let mut out = Vec::new();
    for revision in 2..20 {
        world.hub.changes(large(revision), &mut out);
    }
    assert_eq!(out.len(), 4, "a response may exceed the room, none follows it");
}

#[test]
fn skipped_revisions_are_fetched_from_the_past() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &watch("a"));
    world.create(stream, &from(5, watch("a")));
    world.commit(&["+a"]);
    world.commit(&["+a"]);
    assert!(world.written(&["+a"]).is_empty(), "revision 4 came without 2 and 3");
    assert_eq!(world.catch_up(), ["0@4 +a@2 +a@3 +a@4"]);
    let mut both = world.written(&["+a"]);
    both.sort_unstable();
    assert_eq!(both, ["0@5 +a@5", "1@5 +a@5"]);
}

#[test]
fn repeated_revisions_are_ignored() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &watch("a"));
    world.written(&["+a"]);
    let mut out = Vec::new();
    world.hub.changes(world.past[0].clone(), &mut out);
    assert!(out.is_empty());
}

#[test]
fn events_beyond_the_hubs_revision_are_left_to_the_live_path() {
    let mut world = World::new();
    world.commit(&["+a"]);
    world.hub.skip_to(2, -1);
    let stream = world.open();
    world.create(stream, &from(2, watch("a")));
    let ahead = world.commit(&["+a"]);
    assert_eq!(world.catch_up(), ["0@2 +a@2"]);
    let mut out = Vec::new();
    world.hub.changes(ahead, &mut out);
    assert_eq!(world.read(out), ["0@3 +a@3"]);
}

#[test]
fn closed_stream_leaves_nothing_behind() {
    let mut world = World::new();
    let stream = world.open();
    world.create(stream, &WatchCreateRequest { progress_notify: true, ..watch("a") });
    world.create(stream, &watch_range("a", "\0"));
    world.hub.close(stream);
    assert!(world.written(&["+a"]).is_empty());
    assert!(world.tick(INTERVAL_MS).is_empty());
    assert!(world.create(stream, &watch("a")).is_empty());
    assert_eq!(world.hub.stats(), HubStats::default());
    assert_eq!(world.hub.next_tick(), None);
}

#[test]
fn round_serves_a_bounded_number_of_watchers_in_one_pass() {
    let mut world = World::new();
    for _ in 0..10 {
        world.commit(&["+a", "+b"]);
    }
    world.hub.skip_to(11, -1);
    let mut out = Vec::new();
    for number in 0..600 {
        let stream = world.open();
        let request = if number % 2 == 0 { watch("a") } else { watch_range("b", "c") };
        world.hub.create(stream, &from(2 + number % 8, request), &mut out);
    }
    out.clear();
    let items = world.hub.plan(&mut out);
    assert_eq!(items.iter().map(|item| item.from).collect::<Vec<_>>(), [2], "one pass for all of them");
    for item in items {
        let past = world.history(&item);
        world.hub.caught_up(item, past, &mut out);
    }
    assert_eq!(out.len(), WATCHERS_PER_ROUND_MAX);
    assert_eq!(world.catch_up().len(), 600 - WATCHERS_PER_ROUND_MAX);
}

#[test]
fn watchers_far_apart_are_served_in_passes_of_their_own() {
    let mut world = World::new();
    for _ in 0..3_000 {
        world.commit(&["+a"]);
    }
    world.hub.skip_to(3_001, -1);
    let stream = world.open();
    for start in [2, 900, 1_002, 2_500] {
        world.create(stream, &from(start, watch("a")));
    }
    let items = world.hub.plan(&mut Vec::new());
    assert_eq!(items.iter().map(|item| item.from).collect::<Vec<_>>(), [2, 1_002, 2_500]);
}

/// One step of the model test.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(bool, u8)>),
    /// Commit without telling the hub: a gap for it.
    Skip(u8),
    Create {
        stream: u8,
        key: u8,
        end: u8,
        back: i64,
        prev_kv: bool,
        filter: u8,
    },
    Cancel {
        stream: u8,
        id: i64,
    },
    Drain {
        stream: u8,
        count: usize,
    },
    Round,
    Progress(u8),
    Compact(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0_u8..5;
    let step = prop_oneof![
        6 => prop::collection::vec((any::<bool>(), key.clone()), 1..4).prop_map(Step::Write),
        1 => key.clone().prop_map(Step::Skip),
        3 => (0_u8..3, key.clone(), 0_u8..7, -3_i64..12, any::<bool>(), 0_u8..3).prop_map(
            |(stream, key, end, back, prev_kv, filter)| Step::Create { stream, key, end, back, prev_kv, filter }
        ),
        1 => (0_u8..3, 0_i64..6).prop_map(|(stream, id)| Step::Cancel { stream, id }),
        3 => (0_u8..3, 0_usize..40).prop_map(|(stream, count)| Step::Drain { stream, count }),
        3 => Just(Step::Round),
        2 => (0_u8..3).prop_map(Step::Progress),
        1 => (0_i64..8).prop_map(Step::Compact),
    ];
    prop::collection::vec(step, 1..250)
}

/// What the model knows of one watcher.
struct Expected {
    range: KeyRange,
    filter: u8,
    /// Everything below was received, or must not be.
    next: i64,
    /// The client has heard of it.
    created: bool,
    alive: bool,
}

struct Model {
    world: World,
    streams: Vec<StreamId>,
    queues: Vec<Vec<Delivery>>,
    watchers: BTreeMap<(usize, i64), Expected>,
}

fn key_name(key: u8) -> String {
    char::from(b'a' + key).to_string()
}

impl Model {
    fn new() -> Self {
        let mut world = World::new();
        let streams: Vec<StreamId> = (0..3).map(|_| world.open()).collect();
        // Little room, so that it runs out often.
        for stream in &streams {
            world.hub.streams.get_mut(stream.0).unwrap().responses = ROOM_RESPONSES - 6;
        }
        Self { world, streams, queues: vec![Vec::new(), Vec::new(), Vec::new()], watchers: BTreeMap::new() }
    }

    fn queue(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            let stream = self.streams.iter().position(|stream| *stream == delivery.stream).unwrap();
            self.queues[stream].push(delivery);
        }
    }

    fn step(&mut self, step: Step) {
        let mut out = Vec::new();
        match step {
            Step::Write(ops) => {
                let ops: Vec<String> = ops
                    .iter()
                    .map(|(put, key)| format!("{}{}", if *put { '+' } else { '-' }, key_name(*key)))
                    .collect();
                out = self.world.write(&ops.iter().map(String::as_str).collect::<Vec<_>>());
            }
            Step::Skip(key) => drop(self.world.commit(&[&format!("+{}", key_name(key))])),
            Step::Create { stream, key, end, back, prev_kv, filter } => {
                self.create(stream.into(), key, end, back, prev_kv, filter, &mut out);
            }
            Step::Cancel { stream, id } => self.world.hub.cancel(self.streams[usize::from(stream)], id, &mut out),
            Step::Drain { stream, count } => self.drain(stream.into(), count),
            Step::Round => out = self.world.round(),
            Step::Progress(stream) => self.world.hub.progress(self.streams[usize::from(stream)], &mut out),
            Step::Compact(back) => {
                let revision = (self.world.hub.revision() - back).max(self.world.compact_revision);
                self.world.compact(revision);
            }
        }
        self.queue(out);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one step")]
    fn create(
        &mut self,
        stream: usize,
        key: u8,
        end: u8,
        back: i64,
        prev_kv: bool,
        filter: u8,
        out: &mut Vec<Delivery>,
    ) {
        let end = match end {
            0 => String::new(),
            6 => "\0".to_owned(),
            end => key_name(key + end),
        };
        let start = (self.world.hub.revision() - back).max(0);
        let filters = if filter == 0 { vec![] } else { vec![i32::from(filter) - 1] };
        let request = WatchCreateRequest { prev_kv, filters, ..from(start, watch_range(&key_name(key), &end)) };
        self.world.hub.create(self.streams[stream], &request, out);
        let next = if start == 0 { self.world.hub.revision() + 1 } else { start };
        let range = KeyRange::new(request.key, &request.range_end);
        let expected = Expected { range, filter, next, created: false, alive: true };
        self.watchers.insert((stream, out.last().unwrap().watch_id), expected);
    }

    /// A client takes responses and the model judges each.
    fn drain(&mut self, stream: usize, count: usize) {
        let count = count.min(self.queues[stream].len());
        for delivery in self.queues[stream].drain(..count).collect::<Vec<_>>() {
            self.world.hub.return_room(delivery.stream, 1, delivery.event_bytes());
            for response in respond(delivery) {
                self.judge(stream, &response);
            }
        }
    }

    fn judge(&mut self, stream: usize, response: &WatchResponse) {
        let revision = response.header.as_ref().unwrap().revision;
        if response.watch_id == NO_WATCHER {
            let in_stream =
                self.watchers.iter().filter(|((of, _), known)| *of == stream && known.created && known.alive);
            for ((_, id), expected) in in_stream {
                let missed = self.missed(expected, revision);
                assert_eq!(missed, Vec::<String>::new(), "progress at {revision} overtook watcher {id}");
            }
            return;
        }
        let missed_before = |model: &Self, last| model.missed(&model.watchers[&(stream, response.watch_id)], last);
        if response.created {
            self.watchers.get_mut(&(stream, response.watch_id)).unwrap().created = true;
        } else if response.canceled {
            let compacted = response.compact_revision > 0;
            let expected = self.watchers.get_mut(&(stream, response.watch_id)).unwrap();
            assert!(!compacted || expected.next < response.compact_revision, "canceled although nothing was lost");
            expected.alive = false;
        } else if let Some(last) = response.events.last().map(|event| event.kv.as_ref().unwrap().mod_revision) {
            let got: Vec<String> = short(response).split(' ').skip(1).map(plain).collect();
            assert!(self.watchers[&(stream, response.watch_id)].alive);
            assert_eq!(got, missed_before(self, last), "watcher {} of stream {stream}", response.watch_id);
            self.watchers.get_mut(&(stream, response.watch_id)).unwrap().next = last + 1;
        }
    }

    /// The events up to `last` that a watcher has not got.
    fn missed(&self, expected: &Expected, last: i64) -> Vec<String> {
        let Expected { range, filter, next, .. } = expected;
        let wanted =
            |event: &&Event| range.contains(&event.kv.as_ref().unwrap().key) && i32::from(*filter) != event.r#type + 1;
        let between = self.world.past.iter().filter(|changes| changes.revision >= *next && changes.revision <= last);
        let events: Vec<Event> = between.flat_map(|changes| changes.events.iter().filter(wanted).cloned()).collect();
        let response = WatchResponse { header: Some(ResponseHeader::default()), events, ..WatchResponse::default() };
        short(&response).split(' ').skip(1).map(plain).collect()
    }

    /// Everybody reads everything; then nobody alive may have missed anything.
    fn settle(&mut self) {
        let out = self.world.write(&["+a", "+b", "+c", "+d", "+e"]);
        self.queue(out);
        while self.world.hub.has_work() || self.queues.iter().any(|queue| !queue.is_empty()) {
            (0..3).for_each(|stream| self.drain(stream, usize::MAX));
            let out = self.world.round();
            self.queue(out);
        }
        for (name, expected) in self.watchers.iter().filter(|(_, expected)| expected.alive) {
            assert_eq!(self.missed(expected, self.world.hub.revision()), Vec::<String>::new(), "watcher {name:?}");
        }
        let alive = self.watchers.values().filter(|expected| expected.alive).count();
        let stats = self.world.hub.stats();
        assert_eq!((stats.watchers, stats.unsynced), (alive, 0));
    }
}

/// Without the previous pair: the model does not follow that option.
fn plain(event: &str) -> String {
    event.split('<').next().unwrap_or(event).to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn every_watcher_gets_every_event_once_and_in_order(steps in steps()) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.settle();
    }
}
