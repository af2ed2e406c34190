//! Rounds of `kill -9` under load. After every restart the whole history since the last check is read back, and:
//!
//! - every acknowledged write stands at the revision its answer named, unchanged;
//! - every event a watcher was shown before the kill still stands;
//! - a transaction is there whole or not at all;
//! - a revision never changes its content, none is skipped and none goes backwards;
//! - nothing stands there that nobody asked for: what was not acknowledged is one of the requests cut off by the kill;
//! - the present state is what the history adds up to.
//!
//! `make test` runs a few rounds; `CRASH_ROUNDS=200` makes it long, `CRASH_SEED=n` chooses other moments.

mod support;

use bytes::Bytes;
use quorate::pb::etcdserverpb::{self as pb, RequestOp, request_op::Request, watch_request::RequestUnion};
use quorate::pb::mvccpb::{Event, event::EventType};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::daemon::Daemon;
use support::grpc::{self, Client};
use support::program::Program;
use support::{random::Random, setting};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

/// Kills of the short form.
const ROUNDS: u64 = 15;
/// Clients writing at once, each to its own keys.
const WRITERS: u64 = 12;
/// Keys of each writer; few, so that they are overwritten and deleted.
const KEYS_EACH: u64 = 5;
/// Snapshots often, so that a kill also meets log release.
const FLAGS: [&str; 1] = ["--snapshot-count=200"];

/// Key and new value; `None` is a deletion.
type Change = (Bytes, Option<Bytes>);
/// Everything that happened at one revision.
type Changes = Vec<Change>;

#[test]
fn acknowledged_writes_survive_kills() {
    let mut random = Random::new(setting("CRASH_SEED", 1));
    let rounds = setting("CRASH_ROUNDS", ROUNDS);
    let mut daemon = Daemon::start(&Program::subject(), &FLAGS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut ledger = Ledger::default();
    let mut acknowledged = 0;
    for round in 0..rounds {
        let load = runtime.block_on(run_until_killed(&mut daemon, random.clone(), round));
        acknowledged += load.acknowledged.len();
        random.bits();
        if random.chance(30) {
            // A second kill, somewhere in the recovery from the first.
            daemon.spawn();
            std::thread::sleep(Duration::from_millis(random.below(150)));
            daemon.kill();
        }
        daemon.restart();
        runtime.block_on(ledger.check(&daemon, load, round));
    }
    println!("{rounds} kills, {acknowledged} acknowledged writes, {} revisions, all there", ledger.history.len());
    assert!(acknowledged > 0, "the load was cut off before its first answer in every round");
}

/// What the clients know when the daemon is gone.
#[derive(Default)]
struct Load {
    acknowledged: BTreeMap<i64, Changes>,
    /// Requests without an answer: they happened or they did not.
    unknown: Vec<Changes>,
    /// Events shown to a watcher.
    shown: Vec<Event>,
}

/// Writes until the daemon is killed after a random while.
async fn run_until_killed(daemon: &mut Daemon, mut random: Random, round: u64) -> Load {
    let client = Client::connect(&daemon.endpoint()).await.expect("the daemon serves");
    let load = Arc::new(Mutex::new(Load::default()));
    let mut tasks = JoinSet::new();
    tasks.spawn(watch_everything(client.clone(), Arc::clone(&load)));
    for number in 0..WRITERS {
        let writer = Writer { number, round, count: 0, random: Random::new(random.bits()) };
        tasks.spawn(writer.run(client.clone(), Arc::clone(&load)));
    }
    tokio::time::sleep(Duration::from_millis(random.below(300) + 20)).await;
    daemon.kill();
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a client task does not panic");
    }
    std::mem::take(&mut *load.lock().expect("no client panicked"))
}

/// One client and its own keys.
struct Writer {
    number: u64,
    round: u64,
    count: u64,
    random: Random,
}

impl Writer {
    /// Sends requests one after the other until one is not answered.
    async fn run(mut self, mut client: Client, load: Arc<Mutex<Load>>) {
        let mut last = 0;
        loop {
            let changes = self.next_changes();
            match client.kv.txn(as_txn(&changes)).await {
                Ok(response) => {
                    let revision = response.into_inner().header.map_or(0, |header| header.revision);
                    assert!(revision >= last, "revision {revision} after {last}");
                    last = revision;
                    let before = load.lock().expect("no panic").acknowledged.insert(revision, changes);
                    assert_eq!(before, None, "revision {revision} was given to two requests");
                }
                Err(_) => return load.lock().expect("no panic").unknown.push(changes),
            }
        }
    }

    /// A put, or two puts that belong together, or a put and a delete; always with one change for certain, so that
    /// every request has a revision of its own.
    fn next_changes(&mut self) -> Changes {
        self.count += 1;
        let key = self.random.below(KEYS_EACH);
        let (number, value) = (self.number, Bytes::from(format!("{}-{}-{}", self.round, self.number, self.count)));
        let name = |kind: &str, key: u64| Bytes::from(format!("{kind}/{number}/{key}"));
        match self.random.below(10) {
            0..5 => ["left", "right"].map(|side| (name(side, key), Some(value.clone()))).into(),
            5 => vec![(name("alone", key), Some(value)), (name("alone", (key + 1) % KEYS_EACH), None)],
            _ => vec![(name("alone", key), Some(value))],
        }
    }
}

fn as_txn(changes: &Changes) -> pb::TxnRequest {
    let op = |(key, value): &Change| match value {
        Some(value) => Request::RequestPut(grpc::put(key.clone(), value.clone())),
        None => Request::RequestDeleteRange(pb::DeleteRangeRequest { key: key.clone(), ..Default::default() }),
    };
    let success = changes.iter().map(|change| RequestOp { request: Some(op(change)) }).collect();
    pb::TxnRequest { success, ..Default::default() }
}

/// Collects events until the stream breaks.
async fn watch_everything(mut client: Client, load: Arc<Mutex<Load>>) {
    let (_open, stream) = open_watch(0).await;
    let Ok(responses) = client.watch.watch(stream).await else { return };
    let mut responses = responses.into_inner();
    while let Ok(Some(response)) = responses.message().await {
        load.lock().expect("no panic").shown.extend(response.events);
    }
}

/// The request stream of one watch on every key; it stays open as long as the sender lives.
async fn open_watch(start_revision: i64) -> (mpsc::Sender<pb::WatchRequest>, ReceiverStream<pb::WatchRequest>) {
    let (sender, receiver) = mpsc::channel(1);
    let every = Bytes::from_static(b"\0");
    let create = pb::WatchCreateRequest { key: every.clone(), range_end: every, start_revision, ..Default::default() };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    sender.send(request).await.expect("the receiver is here");
    (sender, ReceiverStream::new(receiver))
}

/// Everything read back so far.
#[derive(Default)]
struct Ledger {
    history: BTreeMap<i64, Changes>,
    state: BTreeMap<Bytes, Bytes>,
}

impl Ledger {
    async fn check(&mut self, daemon: &Daemon, load: Load, round: u64) {
        let mut client = Client::connect(&daemon.endpoint()).await.expect("the daemon serves");
        let known = self.history.last_key_value().map_or(1, |(revision, _)| *revision);
        let (current, state) = read_state(&mut client).await;
        assert!(current >= known, "round {round}: revision {current} after {known}");
        let events = read_history(&mut client, known + 1, current).await;
        for (offset, (revision, changes)) in (1..).zip(&events) {
            assert_eq!(known + offset, *revision, "round {round}: a revision was skipped");
            self.replay(changes);
        }
        self.history.extend(events);
        assert_eq!(
            self.history.last_key_value().map_or(1, |(last, _)| *last),
            current,
            "round {round}: history ends early"
        );
        assert_eq!(state, self.state, "round {round}: the state is not what the history adds up to");
        self.check_load(&load, known, round);
    }

    /// Compares what the clients saw with what is there.
    fn check_load(&self, load: &Load, known: i64, round: u64) {
        for (revision, changes) in &load.acknowledged {
            let stands =
                self.history.get(revision).unwrap_or_else(|| panic!("round {round}: {revision} lost: {changes:?}"));
            assert_eq!(effective(stands), effective(changes), "round {round}: revision {revision} changed");
        }
        for event in &load.shown {
            let (revision, change) = change_of(event);
            let stands = self.history.get(&revision);
            assert!(
                stands.is_some_and(|stands| stands.contains(&change)),
                "round {round}: {change:?} was shown at {revision}"
            );
        }
        let mut unknown: Vec<_> = load.unknown.iter().map(effective).collect();
        for (revision, changes) in self.history.range(known + 1..).filter(|(at, _)| !load.acknowledged.contains_key(at))
        {
            let asked = unknown.iter().position(|changes_asked| *changes_asked == effective(changes));
            let asked = asked.unwrap_or_else(|| panic!("round {round}: nobody asked for {changes:?} at {revision}"));
            unknown.swap_remove(asked);
        }
    }

    fn replay(&mut self, changes: &Changes) {
        for (key, value) in changes {
            match value {
                Some(value) => drop(self.state.insert(key.clone(), value.clone())),
                None => assert!(self.state.remove(key).is_some(), "a deletion of {key:?}, which was not there"),
            }
        }
    }
}

/// The changes that leave a trace for certain: deleting what is not there is no event.
fn effective(changes: &Changes) -> Changes {
    changes.iter().filter(|(_, value)| value.is_some()).cloned().collect()
}

async fn read_state(client: &mut Client) -> (i64, BTreeMap<Bytes, Bytes>) {
    let every = Bytes::from_static(b"\0");
    let request = pb::RangeRequest { key: every.clone(), range_end: every, ..Default::default() };
    let response = client.kv.range(request).await.expect("a restarted daemon answers").into_inner();
    let revision = response.header.expect("every answer has a header").revision;
    (revision, response.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect())
}

/// Every event from revision `from` to `to`, both included.
async fn read_history(client: &mut Client, from: i64, to: i64) -> BTreeMap<i64, Changes> {
    let mut history: BTreeMap<i64, Changes> = BTreeMap::new();
    let (_open, stream) = open_watch(from).await;
    let mut responses = client.watch.watch(stream).await.expect("a watch").into_inner();
    while from <= to && history.last_key_value().is_none_or(|(last, _)| *last < to) {
        let response = responses.message().await.expect("the watch goes on").expect("the watch goes on");
        assert!(!response.canceled, "nothing was compacted: {response:?}");
        for event in &response.events {
            let (revision, change) = change_of(event);
            history.entry(revision).or_default().push(change);
        }
    }
    history
}

fn change_of(event: &Event) -> (i64, Change) {
    let kv = event.kv.clone().expect("every event has a pair");
    let put = event.r#type == EventType::Put as i32;
    (kv.mod_revision, (kv.key, put.then_some(kv.value)))
}

fn ledger_of(history: &[(i64, &str)]) -> Ledger {
    let history = history.iter().map(|(revision, key)| (*revision, vec![change(key)])).collect();
    Ledger { history, ..Ledger::default() }
}

fn change(key: &str) -> Change {
    (Bytes::copy_from_slice(key.as_bytes()), Some(Bytes::from_static(b"v")))
}

#[test]
fn an_unanswered_request_may_stand_or_not() {
    let load = Load { unknown: vec![vec![change("b")]], ..Load::default() };
    ledger_of(&[(2, "a")]).check_load(&load, 2, 0);
    ledger_of(&[(2, "a"), (3, "b")]).check_load(&load, 2, 0);
}

#[test]
#[should_panic(expected = "3 lost")]
fn a_lost_write_is_noticed() {
    let load = Load { acknowledged: BTreeMap::from([(3, vec![change("b")])]), ..Load::default() };
    ledger_of(&[(2, "a")]).check_load(&load, 2, 0);
}

#[test]
#[should_panic(expected = "revision 3 changed")]
fn half_a_transaction_is_noticed() {
    let load = Load { acknowledged: BTreeMap::from([(3, vec![change("a"), change("b")])]), ..Load::default() };
    ledger_of(&[(3, "b")]).check_load(&load, 2, 0);
}

#[test]
#[should_panic(expected = "nobody asked")]
fn a_write_applied_twice_is_noticed() {
    let load = Load { unknown: vec![vec![change("b")]], ..Load::default() };
    ledger_of(&[(3, "b"), (4, "b")]).check_load(&load, 2, 0);
}
