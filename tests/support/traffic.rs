//! Clients that write, read and compare a few keys through every member, and remember what they were told.

#![allow(clippy::indexing_slicing, reason = "members are counted by the tests that made them")]

use super::grpc::{self, Client};
use super::linear::{self, ABSENT, Answer, Call, Operation, Verdict};
use super::random::Random;
use super::{now, wait_for};
use quorate::pb::etcdserverpb::{
    self as pb, Compare, RequestOp, compare::TargetUnion, request_op::Request, response_op::Response,
};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::Status;

/// Clients at work at once; each begins at another member.
const CLIENTS: usize = 9;
/// Keys they meet at.
const KEYS: usize = 3;
/// How long a client waits for an answer before it calls the outcome unknown and turns to the next member.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(10);
/// Before the next attempt after one that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for the answer to a read after everything has healed.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// Clients at work.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    history: Arc<Mutex<History>>,
    thread: JoinHandle<()>,
}

impl Traffic {
    /// Starts clients of `endpoints` on keys that begin with `label`, which nobody else uses.
    ///
    /// # Panics
    /// If there is no thread for them.
    pub fn start(endpoints: &[String], label: &str, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let keys = (0..KEYS).map(|key| format!("{label}/{key}"));
        let history =
            History { begun: now(), registers: keys.map(|key| (key, Vec::new())).collect(), refusals: BTreeMap::new() };
        let history = Arc::new(Mutex::new(history));
        let (flag, log, endpoints) = (Arc::clone(&stop), Arc::clone(&history), endpoints.to_vec());
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(all_clients(&endpoints, seed, &flag, &log));
        };
        Self { stop, history, thread: std::thread::Builder::new().spawn(work).expect("a thread") }
    }

    /// Ends the load, once every request under way has its answer or has waited long enough.
    ///
    /// # Panics
    /// If a client panicked.
    pub fn stop(self) -> History {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("no client panics");
        let history = Arc::into_inner(self.history).expect("every client has ended");
        history.into_inner().expect("no client panics")
    }
}

/// What clients were told.
#[derive(Debug)]
pub struct History {
    begun: Instant,
    registers: BTreeMap<String, Vec<Operation>>,
    /// Errors by their text.
    pub refusals: BTreeMap<String, usize>,
}

impl History {
    /// Nanoseconds since the load began.
    fn clock(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("a test ends within centuries")
    }

    pub fn acknowledged(&self) -> usize {
        self.registers.values().flatten().filter(|operation| operation.answer != Answer::Unknown).count()
    }

    pub fn unknown(&self) -> usize {
        self.registers.values().flatten().count() - self.acknowledged()
    }

    /// Adds a read of every key through each of `endpoints`, one after the other, so that whatever was acknowledged must
    /// be seen; then looks for an order that explains everything.
    ///
    /// # Panics
    /// If a read fails, or if there is none.
    pub fn check(mut self, endpoints: &[String]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let keys: Vec<String> = self.registers.keys().cloned().collect();
        for endpoint in endpoints {
            for key in &keys {
                let began = self.clock();
                let seen = runtime.block_on(read_patiently(endpoint, key));
                let answer = seen.unwrap_or_else(|error| panic!("get {key} through {endpoint}: {error}"));
                let read = Operation { partition: 0, call: Call::Get, answer, began, ended: self.clock() };
                self.registers.get_mut(key).expect("a known key").push(read);
            }
        }
        for (key, operations) in &self.registers {
            match linear::check(operations) {
                Verdict::Linearizable => {}
                Verdict::Illegal(_, around) => panic!("{key} is not linearizable: no order explains {around:#?}"),
                Verdict::Undecided(_) => panic!("{key}: {} operations have too many orders", operations.len()),
            }
        }
    }
}

async fn read_patiently(endpoint: &str, key: &str) -> Result<Answer, Status> {
    let client = Client::lazy(endpoint);
    let deadline = now() + READ_LIMIT;
    loop {
        match get(client.clone(), key).await {
            Err(error) if now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            Ok(seen) => return Ok(seen),
        }
    }
}

async fn all_clients(endpoints: &[String], seed: u64, stop: &Arc<AtomicBool>, history: &Arc<Mutex<History>>) {
    let connections: Vec<Client> = endpoints.iter().map(|endpoint| Client::lazy(endpoint)).collect();
    let values = Arc::new(AtomicU64::new(ABSENT + 1));
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let worker = Worker {
            connections: connections.clone(),
            at: number,
            random: Random::new(seed.wrapping_mul(1_000).wrapping_add(number as u64)),
            values: Arc::clone(&values),
            seen: ABSENT,
            history: Arc::clone(history),
        };
        tasks.spawn(worker.run(Arc::clone(stop)));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no client panics");
    }
}

struct Worker {
    connections: Vec<Client>,
    at: usize,
    random: Random,
    values: Arc<AtomicU64>,
    /// What it last saw in any key.
    seen: u64,
    history: Arc<Mutex<History>>,
}

impl Worker {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::SeqCst) {
            let (key, call) = self.next_call();
            let began = self.history.lock().expect("no panic").clock();
            let client = self.connections[self.at % self.connections.len()].clone();
            let answer = tokio::time::timeout(ATTEMPT_LIMIT, perform(client, &key, call)).await;
            let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
            let failed = answer.is_err();
            self.remember(key, call, began, answer);
            if failed {
                self.at += 1;
            }
            tokio::time::sleep(if failed { RETRY_PAUSE } else { PACE }).await;
        }
    }

    fn next_call(&mut self) -> (String, Call) {
        let key = self.random.index(KEYS);
        let key = self.history.lock().expect("no panic").registers.keys().nth(key).cloned().unwrap_or_default();
        let value = self.values.fetch_add(1, Ordering::SeqCst);
        let call = match self.random.below(10) {
            0..4 => Call::Put(value),
            4..8 => Call::Get,
            _ => Call::Swap(self.seen, value),
        };
        (key, call)
    }

    /// A read without an answer tells nothing.
    fn remember(&mut self, key: String, call: Call, began: u64, answer: Result<Answer, Status>) {
        let mut history = self.history.lock().expect("no panic");
        let answer = answer.unwrap_or_else(|status| {
            *history.refusals.entry(status.message().to_owned()).or_default() += 1;
            Answer::Unknown
        });
        if let Answer::Got([seen, _]) | Answer::NotSwapped(seen) = answer {
            self.seen = seen;
        }
        if (call, answer) != (Call::Get, Answer::Unknown) {
            let ended = history.clock();
            history.registers.entry(key).or_default().push(Operation { partition: 0, call, answer, began, ended });
        }
    }
}

async fn perform(mut client: Client, key: &str, call: Call) -> Result<Answer, Status> {
    match call {
        Call::Put(value) => {
            client.kv.put(grpc::put(key.to_owned(), value.to_string())).await?;
            Ok(Answer::Done)
        }
        Call::Get => get(client, key).await,
        Call::Swap(from, to) => swap(client, key, from, to).await,
        Call::Delete | Call::PutBoth(_) | Call::GetBoth => unreachable!("nobody here asks for {call:?}"),
    }
}

async fn get(mut client: Client, key: &str) -> Result<Answer, Status> {
    let seen = value_of(&client.kv.range(grpc::get(key.to_owned())).await?.into_inner())?;
    Ok(Answer::Got([seen, ABSENT]))
}

async fn swap(mut client: Client, key: &str, from: u64, to: u64) -> Result<Answer, Status> {
    // An absent key has version 0 and equals no value.
    let (target, target_union) = match from {
        ABSENT => (pb::compare::CompareTarget::Version, TargetUnion::Version(0)),
        _ => (pb::compare::CompareTarget::Value, TargetUnion::Value(from.to_string().into())),
    };
    let compare = Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: target.into(),
        key: key.to_owned().into(),
        target_union: Some(target_union),
        ..Default::default()
    };
    let op = |request| vec![RequestOp { request: Some(request) }];
    let request = pb::TxnRequest {
        compare: vec![compare],
        success: op(Request::RequestPut(grpc::put(key.to_owned(), to.to_string()))),
        failure: op(Request::RequestRange(grpc::get(key.to_owned()))),
    };
    let said = client.kv.txn(request).await?.into_inner();
    match said.responses.into_iter().next().and_then(|one| one.response) {
        Some(Response::ResponsePut(_)) if said.succeeded => Ok(Answer::Swapped),
        Some(Response::ResponseRange(range)) if !said.succeeded => value_of(&range).map(Answer::NotSwapped),
        other => panic!("a transaction answered {other:?}"),
    }
}

fn value_of(range: &pb::RangeResponse) -> Result<u64, Status> {
    let Some(kv) = range.kvs.first() else { return Ok(ABSENT) };
    let text = std::str::from_utf8(&kv.value).unwrap_or_default();
    text.parse().map_err(|_| Status::internal(format!("{:?} is nobody's value", kv.value)))
}

/// Writes through every member at a steady pace, whether the last ones were answered or not, so that it knows how long
/// nobody could write.
pub struct Probe {
    stop: Arc<AtomicBool>,
    /// Writes that were acknowledged.
    writes: Arc<Mutex<Vec<Write>>>,
    thread: JoinHandle<()>,
}

/// An acknowledged write.
#[derive(Clone, Debug)]
struct Write {
    key: String,
    invoked: Instant,
    returned: Instant,
}

impl Probe {
    /// Between two writes through one member.
    const EVERY: Duration = Duration::from_millis(20);
    /// Longest wait for a write.
    const LIMIT: Duration = Duration::from_mins(1);

    /// Starts writing through `endpoints`.
    ///
    /// # Panics
    /// If there is no thread for it.
    pub fn start(endpoints: &[String], label: &str) -> Self {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (flag, log, label, endpoints) =
            (Arc::clone(&stop), Arc::clone(&writes), label.to_owned(), endpoints.to_vec());
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(write_steadily(&endpoints, &label, &flag, &log));
        };
        Self { stop, writes, thread: std::thread::Builder::new().spawn(work).expect("a thread") }
    }

    /// Waits for a write that was begun after `since`; how long after that it was acknowledged.
    ///
    /// # Panics
    /// If there is none for long.
    pub fn first_write(&self, since: Instant) -> Duration {
        let first = || {
            let writes = self.writes.lock().expect("no panic");
            writes.iter().filter(|write| write.invoked > since).map(|write| write.returned).min()
        };
        let found = wait_for(Self::LIMIT, first).unwrap_or_else(|| panic!("no write for {:?}", Self::LIMIT));
        found - since
    }

    /// Ends it.
    ///
    /// # Panics
    /// If it panicked.
    pub fn stop(self) -> Probed {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("no panic");
        Probed { writes: std::mem::take(&mut self.writes.lock().expect("no panic")) }
    }
}

/// What a probe was told.
pub struct Probed {
    writes: Vec<Write>,
}

impl Probed {
    /// The longest time between `since` and `until` in which no write was acknowledged.
    pub fn longest_gap(&self, since: Instant, until: Instant) -> Duration {
        let inside = self.writes.iter().map(|write| write.returned).filter(|at| (since..until).contains(at));
        let mut moments: Vec<Instant> = inside.chain([since, until]).collect();
        moments.sort_unstable();
        moments.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
    }

    /// Checks through `endpoints` that what was acknowledged is there.
    ///
    /// # Panics
    /// If it is not.
    pub fn check(&self, endpoints: &[String], label: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        for endpoint in endpoints {
            let there = runtime.block_on(keys_below(endpoint, &format!("{label}/probe/")));
            let lost: Vec<&Write> = self.writes.iter().filter(|write| !there.contains(write.key.as_bytes())).collect();
            assert!(lost.is_empty(), "acknowledged and lost through {endpoint}: {lost:?}");
        }
    }
}

async fn keys_below(endpoint: &str, prefix: &str) -> HashSet<Vec<u8>> {
    let mut client = Client::lazy(endpoint);
    let range_end = format!("{}0", prefix.trim_end_matches('/'));
    let request = pb::RangeRequest { keys_only: true, range_end: range_end.into(), ..grpc::get(prefix.to_owned()) };
    let found = client.kv.range(request).await.expect("a healed cluster serves").into_inner();
    found.kvs.into_iter().map(|kv| kv.key.to_vec()).collect()
}

async fn write_steadily(endpoints: &[String], label: &str, stop: &AtomicBool, log: &Arc<Mutex<Vec<Write>>>) {
    let connections: Vec<Client> = endpoints.iter().map(|endpoint| Client::lazy(endpoint)).collect();
    let mut attempts = JoinSet::new();
    let mut ticks = tokio::time::interval(Probe::EVERY);
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        ticks.tick().await;
        for client in &connections {
            count += 1;
            let (mut client, key, log) = (client.clone(), format!("{label}/probe/{count}"), Arc::clone(log));
            attempts.spawn(async move {
                let invoked = now();
                let put = client.kv.put(grpc::put(key.clone(), "1"));
                if let Ok(Ok(_)) = tokio::time::timeout(ATTEMPT_LIMIT, put).await {
                    log.lock().expect("no panic").push(Write { key, invoked, returned: now() });
                }
            });
        }
        while attempts.try_join_next().is_some() {}
    }
    while attempts.join_next().await.is_some() {}
}
