//! A learner catches up by a snapshot of a large state while the leader serves: what its clients and its memory notice.
//!
//! `make test` takes a small state; `make cluster` takes `LEARNER_MEGABYTES=2048`, and etcd beside us.

mod support;

use std::{
    fmt, fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use quorate::pb::etcdserverpb as pb;
use support::{
    deployment::{Deployment, guide_file},
    faults::subjects,
    grpc::{self, Client},
    hosts::Disk,
    http, now,
    program::Program,
    random::Random,
    setting, wait_for,
};
use tokio::task::JoinSet;

const MEGABYTES: u64 = 64;
/// Large enough to fill a state soon, small enough that its entries outnumber what a leader keeps for slow followers.
const VALUE_BYTES: usize = 8 << 10;
/// Requests under way while the state is filled.
const FILLERS: u64 = 32;
/// Clients whose waiting is measured.
const CLIENTS: u64 = 4;
/// How long the leader is watched before the learner comes, in seconds, unless `LEARNER_BASELINE_SECONDS` says otherwise.
const BASELINE_SECONDS: u64 = 4;
/// Longest wait until the learner has caught up, for each megabyte of state.
const LIMIT_PER_MEGABYTE: Duration = Duration::from_millis(500);
/// Room for the largest state.
const SETTINGS: [(&str, &str); 2] = [("ETCD_QUOTA_BACKEND_BYTES", "8589934592"), ("ETCD_SNAPSHOT_COUNT", "1000")];

#[test]
fn a_learner_catches_up_by_snapshot_beside_the_leaders_clients() {
    for subject in subjects() {
        let megabytes = setting("LEARNER_MEGABYTES", MEGABYTES);
        let [before, during] = learn(&subject, megabytes);
        println!("{} without a learner: {before}", subject.name);
        println!("{} with a learner of {megabytes} MB: {during}", subject.name);
        assert!(during.writes > 0, "the leader serves nobody while the learner catches up");
    }
}

fn learn(subject: &Program, megabytes: u64) -> [Figures; 2] {
    let mut cluster = Deployment::prepare(subject, 4, Disk::Plain);
    for number in 0..3 {
        cluster.configure(number, &guide_file(number, 3));
        configure_and_spawn(&mut cluster, number);
    }
    (0..3).for_each(|number| cluster.wait_ready(number));
    let leader = cluster.settle();
    cluster.run(leader, async |client| fill(client, megabytes).await);

    let pid = cluster.pid(leader);
    let load = Load::start(cluster.endpoint(leader), pid);
    std::thread::sleep(Duration::from_secs(setting("LEARNER_BASELINE_SECONDS", BASELINE_SECONDS)));
    let before = load.stop();

    let load = Load::start(cluster.endpoint(leader), pid);
    let peer_ur_ls = vec![format!("http://{}:2380", cluster.address(3))];
    let request = pb::MemberAddRequest { peer_ur_ls, is_learner: true };
    cluster.run(leader, async |mut client| client.cluster.member_add(request).await).expect("a place for a learner");
    cluster.configure(3, &guide_file(3, 4));
    cluster.set(3, "ETCD_INITIAL_CLUSTER_STATE", "existing");
    configure_and_spawn(&mut cluster, 3);
    let began = now();
    let limit = LIMIT_PER_MEGABYTE * u32::try_from(megabytes).expect("a size in megabytes") + Duration::from_secs(20);
    let caught_up = || {
        let (learner, leader) = (cluster.status(3)?, cluster.status(leader)?);
        (learner.is_learner && learner.revision > 1 && learner.revision + 1_000 > leader.revision).then_some(())
    };
    wait_for(limit, caught_up).unwrap_or_else(|| panic!("the learner is not there yet:\n{}", cluster.describe()));
    println!("{}: the learner has caught up after {:?}", subject.name, began.elapsed());
    let during = load.stop();
    assert!(sent_snapshots(&cluster, leader) > 0, "it was caught up from the log: the state is too small");

    let id = cluster.status(3).expect("the learner runs").member;
    let promote = || {
        let request = pb::MemberPromoteRequest { id };
        cluster.run(leader, async |mut client| client.cluster.member_promote(request).await).ok().map(drop)
    };
    wait_for(limit, promote).unwrap_or_else(|| panic!("the learner is not promoted:\n{}", cluster.describe()));
    cluster.settle();
    cluster.assert_equal_states();
    [before, during]
}

fn configure_and_spawn(cluster: &mut Deployment, number: usize) {
    for (name, value) in SETTINGS {
        cluster.set(number, name, value);
    }
    cluster.spawn(number);
}

async fn fill(client: Client, megabytes: u64) {
    let count = (megabytes << 20) / VALUE_BYTES as u64;
    let mut tasks = JoinSet::new();
    for filler in 0..FILLERS {
        let mut client = client.clone();
        tasks.spawn(async move {
            let mut random = Random::new(filler);
            for number in (filler..count).step_by(usize::try_from(FILLERS).expect("few")) {
                let value = random.bytes(VALUE_BYTES);
                client.kv.put(grpc::put(format!("state/{number:010}"), value)).await.expect("a put");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
}

fn sent_snapshots(cluster: &Deployment, number: usize) -> usize {
    let metrics = http::get((cluster.address(number), 2379).into(), "/metrics").expect("metrics").body;
    let sent = metrics.lines().filter(|line| line.starts_with("etcd_network_snapshot_send_success"));
    sent.filter(|line| !line.ends_with(" 0")).count()
}

/// What clients of the leader and its memory noticed.
struct Figures {
    writes: usize,
    median: Duration,
    p99: Duration,
    /// The most there was, as far as samples tell.
    resident_megabytes: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writes, median, p99, resident_megabytes } = self;
        write!(out, "{writes} puts, median {median:?}, p99 {p99:?}, leader's memory {resident_megabytes} MB")
    }
}

/// Clients that write, and an eye on the leader's memory.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Figures>,
}

impl Load {
    fn start(endpoint: String, pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(measure(&endpoint, pid, &flag))
        });
        Self { stop, thread }
    }

    fn stop(self) -> Figures {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("every put is answered")
    }
}

async fn measure(endpoint: &str, pid: u32, stop: &Arc<AtomicBool>) -> Figures {
    let client = Client::connect(endpoint).await.expect("the leader listens");
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let (mut client, stop, latencies) = (client.clone(), Arc::clone(stop), Arc::clone(&latencies));
        let value = Bytes::from(vec![b'v'; 256]);
        tasks.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let began = now();
                client.kv.put(grpc::put(format!("load/{number}"), value.clone())).await.expect("a put");
                latencies.lock().expect("no panic").push(began.elapsed());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    let mut resident_megabytes = 0;
    while !stop.load(Ordering::SeqCst) {
        resident_megabytes = resident_megabytes.max(memory_of(pid));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("every put is answered");
    }
    let mut sorted = std::mem::take(&mut *latencies.lock().expect("no panic"));
    sorted.sort_unstable();
    let at = |percent: usize| sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default();
    Figures { writes: sorted.len(), median: at(50), p99: at(99), resident_megabytes }
}

fn memory_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kilobytes: u64 = line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
    kilobytes >> 10
}
