//! What do ten thousand client watches on ten keys cost a gRPC proxy? Ours and etcd's stand before the same kind of member in
//! turn: how many watches the member serves, memory for each client watch, and how many events a second arrive at clients.
//!
//! `BENCH_RUNS=3` is the number of runs (3), `BENCH_CONNECTIONS=100` and `BENCH_STREAMS=10` say how the watches are spread
//! (100 connections of 10 streams of 10 watches), `BENCH_WATCHES=10` how many are on one stream, `BENCH_PUTS=30` how often each
//! key is changed, `SUBJECT_BIN=path` names another executable in our place. One thread makes the load, so that the proxy has
//! the rest of the machine.

#[path = "compare/process.rs"]
mod process;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "grpc_proxy/watcher.rs"]
mod watcher;

use process::{Usage, resident_bytes};
use std::{net::SocketAddr, time::Duration};
use support::{
    daemon::{Daemon, free_ports},
    grpc::{Client, put},
    http as plain, now,
    program::Program,
    setting,
    standin::StandIn,
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use watcher::{Arrived, Watcher};

const KEYS: usize = 10;
const VALUE_BYTES: usize = 256;
/// Longest wait for everything to arrive.
const PATIENCE: Duration = Duration::from_mins(3);
/// Time for memory to come to rest, and the puts meanwhile.
const REST: Duration = Duration::from_secs(4);
const REST_PUTS: u32 = 40;

/// How the watches are spread.
#[derive(Clone, Copy)]
struct Shape {
    connections: usize,
    streams: usize,
    watches: usize,
    puts: usize,
}

impl Shape {
    fn watches(self) -> usize {
        self.connections * self.streams * self.watches
    }
}

/// One figure of a run.
type Figure = fn(&Measured) -> f64;

/// What one run has shown.
#[derive(Debug)]
struct Measured {
    member_watches: u64,
    bytes_per_watch: f64,
    events_per_second: f64,
    cpu_micros_per_event: f64,
}

fn main() {
    let shape = Shape {
        connections: setting("BENCH_CONNECTIONS", 100),
        streams: setting("BENCH_STREAMS", 10),
        watches: setting("BENCH_WATCHES", 10),
        puts: setting("BENCH_PUTS", 30),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let proxies = [Program::subject(), Program::etcd()];
    let mut all: [Vec<Measured>; 2] = [Vec::new(), Vec::new()];
    for run in 1..=setting("BENCH_RUNS", 3) {
        // Turn and turn about, so that both sides meet the same moods of the machine.
        for (proxy, measured) in proxies.iter().zip(&mut all) {
            let one = runtime.block_on(measure(proxy, shape));
            eprintln!("run {run}: {}: {one:?}", proxy.name);
            measured.push(one);
        }
    }
    report(shape, &proxies, &all);
}

fn report(shape: Shape, proxies: &[Program; 2], all: &[Vec<Measured>; 2]) {
    let Shape { connections, streams, watches, puts } = shape;
    println!(
        "{} client watches on {KEYS} keys: {connections} connections × {streams} streams × {watches} watches,",
        shape.watches()
    );
    println!("each key changed {puts} times; medians of {} runs", all.first().map_or(0, Vec::len));
    println!("{:<24}{:>14}{:>14}{:>10}", "", proxies[0].name, proxies[1].name, "ratio");
    let rows: [(&str, Figure); 4] = [
        ("watches at the member", |one| f64::from(u32::try_from(one.member_watches).unwrap_or(u32::MAX))),
        ("bytes per client watch", |one| one.bytes_per_watch),
        ("events per second", |one| one.events_per_second),
        ("CPU µs per event", |one| one.cpu_micros_per_event),
    ];
    for (name, pick) in rows {
        let [ours, theirs] = all.each_ref().map(|runs| median(runs.iter().map(pick).collect()));
        println!("{name:<24}{ours:>14.2}{theirs:>14.2}{:>10.2}", ours / theirs);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn measure(program: &Program, shape: Shape) -> Measured {
    let member = Daemon::start(&Program::subject(), &[]);
    let [address] = free_ports();
    let (listen, endpoints) = (format!("--listen-addr={address}"), format!("--endpoints={}", member.client));
    let advertised = format!("--advertise-client-url={address}");
    let words = ["grpc-proxy", "start", &listen, &endpoints, &advertised];
    let proxy = StandIn::start(&program.path, &words, "started gRPC proxy");
    let pid = proxy.pid().to_string();
    // The first connection of a proxy builds what all share.
    let mut writer = Client::connect(&member.endpoint()).await.expect("the member listens");
    let mut through = Client::connect(&format!("http://{address}")).await.expect("it listens");
    rest(&mut through).await;
    let before = resident_bytes(&pid);
    let (arrived, mut arrivals) = mpsc::channel(1_024);
    let mut clients = JoinSet::new();
    for _ in 0..shape.connections {
        let mut watcher = Watcher::connect(address).await;
        for _ in 0..shape.streams {
            watcher.open((0..shape.watches).map(|number| format!("key{}", number % KEYS)));
        }
        clients.spawn(watcher.listen(arrived.clone()));
    }
    let created = wait_for(&mut arrivals, shape.watches(), |arrived| arrived.created).await;
    assert_eq!(created, shape.watches(), "every watch is created: {}", proxy.log());
    rest(&mut through).await;
    let bytes = resident_bytes(&pid).saturating_sub(before);
    let member_watches = metric(member.client, "etcd_debugging_mvcc_watcher_total");
    let expected = shape.watches() * shape.puts;
    let (usage, started) = (Usage::of(&pid), now());
    let value = "v".repeat(VALUE_BYTES);
    let writing = async {
        for _ in 0..shape.puts {
            for key in 0..KEYS {
                writer.kv.put(put(format!("key{key}"), value.clone())).await.expect("a put");
            }
        }
    };
    let ((), seen) = tokio::join!(writing, wait_for(&mut arrivals, expected, |arrived| arrived.events));
    let (took, usage) = (started.elapsed(), Usage::of(&pid).since(usage));
    assert_eq!(seen, expected, "every event arrives at every client: {}", proxy.log());
    #[expect(clippy::cast_precision_loss, reason = "counts of a bench")]
    let (bytes, watches, expected) = (bytes as f64, shape.watches() as f64, expected as f64);
    Measured {
        member_watches,
        bytes_per_watch: bytes / watches,
        events_per_second: expected / took.as_secs_f64(),
        cpu_micros_per_event: usage.cpu.as_secs_f64() * 1e6 / expected,
    }
}

/// Lets memory come to rest. A little traffic goes on, because allocators give memory back when they are used.
async fn rest(through: &mut Client) {
    for _ in 0..REST_PUTS {
        through.kv.put(put("rest", "now")).await.expect("a put");
        tokio::time::sleep(REST / REST_PUTS).await;
    }
}

fn metric(address: SocketAddr, name: &str) -> u64 {
    let page = plain::get(address, "/metrics").expect("the member tells").body;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok());
    value.expect("the member counts its watchers")
}

/// Counts arrivals of one kind until there are `expected`, or for as long as there is patience.
async fn wait_for(arrivals: &mut mpsc::Receiver<Arrived>, expected: usize, pick: fn(Arrived) -> usize) -> usize {
    let mut count = 0;
    let counting = async {
        while count < expected {
            let Some(arrived) = arrivals.recv().await else { return };
            count += pick(arrived);
        }
    };
    drop(timeout(PATIENCE, counting).await);
    count
}
