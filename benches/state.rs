//! What does the replicated state cost, without network, log and consensus?
//!
//! One million keys of 256 bytes on disk. Prints the median of several rounds, as CPU time of the calling thread, which
//! other load on the machine changes little, and in brackets as time that passed. A number as argument is another count of
//! keys: `cargo bench --bench state -- 150000`.

use std::time::Duration;

use bytes::Bytes;
use nix::{
    sys::resource::{UsageWho, getrusage},
    time::{ClockId, clock_gettime},
};
use quorate::{
    mvcc::{Compactor, HistoryLimits, Store, View},
    pb::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request},
    storage::{Batch, Engine, FjallEngine, FjallOptions, FjallSnapshot},
    types::KeyRange,
};

const ROUNDS: u64 = 7;
const VALUE_BYTES: usize = 256;
const GROUP: u64 = 50;

fn main() {
    let keys = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let directory = tempfile::tempdir().expect("a directory for the state");
    let path = directory.path().join("state");
    let options = FjallOptions::default();
    let mut bench = Bench::open(FjallEngine::open(&path, &options).expect("a new state"), keys);
    memory("empty");
    bench.load();
    memory("loaded");
    bench.reads();
    bench.writes();
    memory("after writes");
    bench.compaction();
    memory("after compaction");
    bench.engine.persist().expect("synced");
    let rows = keys;
    drop(bench);

    let opened = Clock::start();
    let engine = FjallEngine::open(&path, &options).expect("the same state");
    report("open the engine", 1, &[opened.stop()]);
    let opened = Clock::start();
    let bench = Bench::open(engine, rows);
    report("open the store", 1, &[opened.stop()]);
    println!("{} keys, {} MiB on disk", bench.view().keys(), bench.engine.disk_bytes() >> 20);
    memory("reopened");
}

struct Bench {
    engine: FjallEngine,
    store: Store,
    keys: u64,
    value: Bytes,
}

impl Bench {
    fn open(engine: FjallEngine, keys: u64) -> Self {
        let store = Store::open(&engine.snapshot()).expect("a sound state");
        let value = (0..VALUE_BYTES as u64).map(|index| scatter(index).to_le_bytes()[1]).collect();
        Self { engine, store, keys, value }
    }

    fn view(&self) -> View<FjallSnapshot> {
        self.store.view(self.engine.snapshot())
    }

    /// Puts keys as one group of entries: one batch, one commit.
    fn put(&mut self, numbers: impl Iterator<Item = u64>) {
        let mut batch = Batch::new(self.engine.snapshot());
        for number in numbers {
            let request = PutRequest { key: key(number), value: self.value.clone(), ..PutRequest::default() };
            let mut change = self.store.begin(&mut batch);
            change.put(&request, &|_| true).expect("put");
            change.end();
        }
        self.engine.commit(batch.into_writes()).expect("committed");
    }

    fn load(&mut self) {
        let (clock, process) = (Clock::start(), cpu_of_process());
        for group in 0..self.keys / GROUP {
            let keys = self.keys;
            self.put((group * GROUP..(group + 1) * GROUP).map(|number| permute(number, keys)));
        }
        report("load, groups of 50: put of a new key", self.keys, &[clock.stop()]);
        let all = nanoseconds(cpu_of_process().saturating_sub(process)) / self.keys;
        println!("{:>52} {all} ns per put with flushes and merges", "");
    }

    fn reads(&mut self) {
        let keys = self.keys;
        let view = self.view();
        let get = |number| view.range(&RangeRequest { key: key(number), ..RangeRequest::default() }).expect("got");
        measure("get, any key", 20_000, |n| drop(get(scatter(n) % keys)));
        measure("get, the same 1000 keys", 20_000, |n| drop(get(n % 1000)));
        measure("get, missing key", 20_000, |n| drop(get(keys + n)));
        let list = |from: u64, limit, end: &'static [u8], count_only| {
            let range_end = Bytes::from_static(end);
            view.range(&RangeRequest { key: key(from), range_end, limit, count_only, ..RangeRequest::default() })
                .expect("listed")
        };
        measure("list 500 of all, any place", 100, |n| drop(list(scatter(n) % keys, 500, b"\0", false)));
        measure("list 500 of all, the same", 100, |_| drop(list(7, 500, b"\0", false)));
        let everything = RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            count_only: true,
            ..RangeRequest::default()
        };
        measure("count everything", 1000, |_| drop(view.range(&everything).expect("counted")));
        measure("count from the first key on", 1000, |_| drop(list(0, 0, b"\0", true)));
        measure("count from any key on", 1000, |n| drop(list(scatter(n) % keys, 0, b"\0", true)));
        measure("view (snapshot included)", 10_000, |_| drop(self.view()));
        measure("hash of all", 1, |_| assert!(view.hash_kv(0).is_ok()));
    }

    fn writes(&mut self) {
        let keys = self.keys;
        measure("put, one by one, any key", 10_000, |n| self.put(std::iter::once(scatter(n) % keys)));
        measure("put, one by one, the same 100 keys", 10_000, |n| self.put(std::iter::once(n % 100)));
        measure("put, one by one, new keys", 10_000, |n| self.put(std::iter::once(keys + n)));
        let group = measure("50 puts in one group, any key", 400, |n| {
            self.put((0..GROUP).map(|index| scatter(n * GROUP + index) % keys));
        });
        println!("{:>52} {} ns per put", "", group / GROUP);
        measure("txn of a get and a put, any key", 10_000, |n| self.txn(scatter(n) % keys));
        let view = self.view();
        let limits = HistoryLimits { revisions_max: 1000, bytes_max: 4 << 20, rows_max: 10_000, prev_kv: false };
        let all = KeyRange::new(key(0), &Bytes::from_static(b"\0"));
        let from = view.revision() - 5000;
        measure("history of 1000 revisions", 10, |n| {
            drop(view.history(&all, from + i64::try_from(n).unwrap_or_default() * 10, limits).expect("read"));
        });
        let revision = view.revision() - 1000;
        let request = RangeRequest {
            key: key(7),
            range_end: Bytes::from_static(b"\0"),
            limit: 500,
            revision,
            ..RangeRequest::default()
        };
        measure("list 500, 1000 revisions ago", 20, |_| drop(view.range(&request).expect("listed")));
    }

    fn txn(&mut self, number: u64) {
        let range = RangeRequest { key: key(number), ..RangeRequest::default() };
        let put = PutRequest { key: key(number), value: self.value.clone(), ..PutRequest::default() };
        let operations = [Request::RequestRange(range), Request::RequestPut(put)];
        let success = operations.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
        let mut batch = Batch::new(self.engine.snapshot());
        let mut change = self.store.begin(&mut batch);
        change.txn(&TxnRequest { success, ..TxnRequest::default() }, &|_| true).expect("txn");
        change.end();
        self.engine.commit(batch.into_writes()).expect("committed");
    }

    fn compaction(&mut self) {
        let mut batch = Batch::new(self.engine.snapshot());
        self.store.compact(&mut batch, self.store.revision()).expect("accepted");
        self.engine.commit(batch.into_writes()).expect("committed");
        let mut compactor = Compactor::due(&self.view()).expect("read").expect("due");
        let (mut rounds, mut finished) = (Vec::new(), false);
        let mut rows = 0;
        while !finished {
            let clock = Clock::start();
            let step = compactor.step(&self.view(), 1000).expect("stepped");
            (finished, rows) = (step.finished, rows + step.rows);
            self.engine.commit(step.writes).expect("committed");
            rounds.push(clock.stop());
        }
        report("compaction, step of 1000 changes", 1, &rounds);
        println!("{:>52} {rows} changes in {} steps", "", rounds.len());
    }
}

fn key(number: u64) -> Bytes {
    format!("/registry/pods/namespace-{}/pod-{number:09}", number % 100).into()
}

/// Any number from a number.
fn scatter(number: u64) -> u64 {
    let mixed = (number ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

/// Each number below `count` once, in no order.
fn permute(number: u64, count: u64) -> u64 {
    // A factor without common divisor with the count.
    number.wrapping_mul(7_368_787) % count
}

struct Clock {
    cpu: Duration,
    passed: Duration,
}

impl Clock {
    fn start() -> Self {
        Self { cpu: now(ClockId::CLOCK_THREAD_CPUTIME_ID), passed: now(ClockId::CLOCK_MONOTONIC) }
    }

    fn stop(&self) -> (Duration, Duration) {
        let since = |clock, start| now(clock).saturating_sub(start);
        (since(ClockId::CLOCK_THREAD_CPUTIME_ID, self.cpu), since(ClockId::CLOCK_MONOTONIC, self.passed))
    }
}

fn now(clock: ClockId) -> Duration {
    clock_gettime(clock).expect("the system has this clock").into()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn cpu_of_process() -> Duration {
    now(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// Runs `work` many times in each of several rounds; returns the median CPU time in nanoseconds.
fn measure(name: &str, times: u64, mut work: impl FnMut(u64)) -> u64 {
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let clock = Clock::start();
        (0..times).for_each(|index| work(round * times + index));
        rounds.push(clock.stop());
    }
    report(name, times, &rounds)
}

fn report(name: &str, times: u64, rounds: &[(Duration, Duration)]) -> u64 {
    let median = |mut all: Vec<Duration>| {
        all.sort();
        all.get(all.len() / 2).map_or(0, |middle| nanoseconds(*middle) / times)
    };
    let cpu = median(rounds.iter().map(|(cpu, _)| *cpu).collect());
    let passed = median(rounds.iter().map(|(_, passed)| *passed).collect());
    println!("{name:>52} {cpu:>12} ns  ({passed} ns)");
    cpu
}

fn memory(when: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("unknown");
    let peak = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss());
    println!("{:>52} {} resident, {} MiB at most", format!("memory, {when}:"), resident.trim(), peak >> 10);
}
