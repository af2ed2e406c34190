//! What does a snapshot cost those who go on writing? One member of each kind in turn holds a state of some gigabytes; clients
//! put so many keys a second, first alone and then while each kind's own tool saves a snapshot.
//!
//! `BENCH_GIGABYTES=4` is the size of the state, `BENCH_RUNS=3` the number of runs (1), `BENCH_ROUNDS=3` how many snapshots are
//! saved of each state, `BENCH_SECONDS=10` the length of the load alone, `BENCH_SUBJECT=ours|etcd` one side only, `SUBJECT_BIN=path` another executable in our place. Memory is what the kernel
//! calls resident, pages of mapped files included.

#[allow(dead_code, reason = "shared with another bench, and each uses its own part")]
#[path = "compare/load.rs"]
mod load;
#[allow(dead_code, reason = "shared with another bench, and each uses its own part")]
#[path = "compare/process.rs"]
mod process;
#[allow(dead_code, reason = "shared with another bench, and each uses its own part")]
#[path = "compare/report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;
#[allow(dead_code, reason = "shared with another bench, and each uses its own part")]
#[path = "compare/wire.rs"]
mod wire;

use bytes::Bytes;
use load::{Latencies, drive_until};
use process::resident_bytes;
use report::{Figure, Measured, Report};
use std::{
    process::{Child, Stdio},
    time::Duration,
};
use support::{
    daemon::Daemon,
    grpc, now,
    program::{self, Program},
    random::Random,
    setting,
};
use wire::Wire;

/// Bytes of a value of the state, about a small object of Kubernetes.
const VALUE_BYTES: usize = 8 * 1_024;
/// Clients that fill the state.
const FILLERS: usize = 32;
/// Clients of the puts that go on, and how many they are.
const CLIENTS: usize = 8;
const PUTS_PER_SECOND: u32 = 400;
/// Bytes of what they put, and how many keys they put to.
const PUT_BYTES: usize = 256;
const KEYS: usize = 1_000;
/// Puts that are measured at a time: so often it is asked whether the snapshot is done.
const SLICE: Duration = Duration::from_millis(500);
/// How long the member is left to merge what it was filled with.
const SETTLES: Duration = Duration::from_secs(40);
/// More than the state takes.
const QUOTA: &str = "--quota-backend-bytes=17179869184";

fn main() {
    let subjects = Program::compared();
    let mut report = Report::new(subjects.iter().map(|subject| subject.name.clone()).collect());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for run in 1..=setting("BENCH_RUNS", 1) {
        for (side, subject) in subjects.iter().enumerate() {
            eprintln!("run {run}: {} is filled", subject.name);
            let bench = runtime.block_on(Bench::start(subject));
            runtime.block_on(bench.measure(|case, measured| report.add(side, case, measured)));
        }
    }
    print!("{}", report.table());
    let file = program::target_dir().join("snapshot.csv");
    std::fs::write(&file, report.csv()).expect("the target directory is ours");
    println!("every run: {}", file.display());
}

/// A member with a large state.
struct Bench {
    daemon: Daemon,
    tool: Program,
    connections: Vec<Wire>,
}

impl Bench {
    async fn start(program: &Program) -> Self {
        let daemon = Daemon::start_in(&program::target_dir().join("tmp"), program, &[QUOTA]);
        let tool = if program.name == "etcd" { Program::etcdctl() } else { Program::quoratectl() };
        let connections = load::connect(&daemon.endpoint(), FILLERS).await;
        let bench = Self { daemon, tool, connections };
        bench.fill(setting("BENCH_GIGABYTES", 4)).await;
        bench
    }

    async fn fill(&self, gigabytes: usize) {
        let keys = gigabytes * 1_000_000_000 / VALUE_BYTES;
        let mut fillers = tokio::task::JoinSet::new();
        for (number, mut client) in self.connections.iter().cloned().enumerate() {
            fillers.spawn(async move {
                let mut random = Random::new(number as u64);
                for key in (number..keys).step_by(FILLERS) {
                    let put = grpc::put(format!("state/{key:09}"), random.bytes(VALUE_BYTES));
                    client.call(wire::PUT, wire::framed(&put)).await.expect("the member takes it");
                }
            });
        }
        while let Some(filled) = fillers.join_next().await {
            filled.expect("a filler does not panic");
        }
    }

    async fn measure(&self, mut report: impl FnMut(&'static str, Measured)) {
        let seconds = Duration::from_secs(setting("BENCH_SECONDS", 10));
        // What the filling has left to do is no part of it.
        self.puts(SETTLES).await;
        for _ in 0..setting("BENCH_ROUNDS", 3) {
            self.round(seconds, &mut report).await;
        }
    }

    async fn round(&self, seconds: Duration, report: &mut impl FnMut(&'static str, Measured)) {
        let alone = self.puts(seconds).await;
        let before = self.resident();
        report("put alone", latency(&alone));
        let (mut most, mut each, begun) = (before, Vec::new(), now());
        let mut saving = self.save();
        while saving.try_wait().expect("it was started").is_none() {
            each.extend(self.puts(SLICE).await.each);
            most = most.max(self.resident());
        }
        assert!(saving.wait().expect("it was started").success(), "the snapshot is saved");
        let took = begun.elapsed();
        let beside = Latencies::of(took, each);
        let mut measured = latency(&beside);
        measured.push((Figure::GrownMegabytes, most - before));
        measured.push((Figure::ResidentMegabytes, most));
        measured.push((Figure::Seconds, took.as_secs_f64()));
        report("put beside a snapshot", measured);
    }

    fn save(&self) -> Child {
        let file = self.daemon.directory().join("saved.db");
        let mut command = self.tool.command();
        command.arg(format!("--endpoints={}", self.daemon.client)).args(["snapshot", "save"]).arg(file);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the tool starts")
    }

    async fn puts(&self, time: Duration) -> Latencies {
        let value = Bytes::from(vec![b'x'; PUT_BYTES]);
        let put = move |mut client: Wire, number: usize| {
            let frame = wire::framed(&grpc::put(format!("put/{:04}", number % KEYS), value.clone()));
            async move { client.call(wire::PUT, frame).await.map(drop) }
        };
        drive_until(&self.connections, CLIENTS, Some(PUTS_PER_SECOND), now() + time, put).await
    }

    fn resident(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "megabytes of a process")]
        let bytes = resident_bytes(&self.daemon.pid().to_string()) as f64;
        bytes / 1e6
    }
}

fn latency(latencies: &Latencies) -> Measured {
    let micros = |percent| latencies.percentile(percent).as_secs_f64() * 1e6;
    vec![(Figure::MedianMicros, micros(50)), (Figure::P99Micros, micros(99))]
}
