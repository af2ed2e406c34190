//! A leader that is told to stop hands over first: somebody else leads within half a second, in the next term, and clients
//! that try again notice nothing.
//!
//! `make test` runs a few rounds; `make cluster` runs `ROUNDS`.

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use support::{
    deployment::{Deployment, ELECTION_TIMEOUT, PATIENCE},
    faults::subjects,
    grpc::{self, Client},
    hosts::Disk,
    now, setting, wait_for,
};

const ROUNDS: usize = 10;
/// An election that nobody planned begins after one election timeout at the earliest.
const PLANNED: Duration = Duration::from_millis(500);
/// How long a client waits for one answer: what a follower forwards to a leader that is just going is lost in etcd. Here
/// it waits for the next leader, unless the process is gone already.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// How long it tries again before it tells its caller.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_leader_told_to_stop_hands_over() {
    for subject in subjects() {
        let mut cluster = Deployment::start(&subject, 3, Disk::Plain);
        let mut times: Vec<Duration> =
            (0..setting("ROUNDS", ROUNDS)).map(|round| one_round(&mut cluster, round)).collect();
        cluster.assert_equal_states();
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        let [median, p99, worst] = [50, 99, 100].map(|percent| at(percent).unwrap_or_default());
        println!("handover by {}: median {median:?}, p99 {p99:?}, worst {worst:?}", subject.name);
        assert!(median < PLANNED, "{times:?}");
    }
}

fn one_round(cluster: &mut Deployment, round: usize) -> Duration {
    let leader = cluster.settle();
    let before = cluster.status(leader).expect("the leader answers");
    let client = RetryingClient::start(cluster.endpoints(&[0, 1, 2]), round);
    std::thread::sleep(Duration::from_millis(100));

    let since = now();
    cluster.signal(leader, Signal::SIGTERM);
    let took = successor_of(cluster, leader, before.member, since);
    cluster.wait_end(leader);
    let successor = cluster.settle();
    let after = cluster.status(successor).expect("the leader answers");
    assert_eq!(after.term, before.term + 1, "round {round}: one election");
    cluster.restart(leader);

    let written = client.stop();
    println!("round {round}: etcd{} goes, etcd{} leads after {took:?}; {written:?}", leader + 1, successor + 1);
    assert!(took < ELECTION_TIMEOUT, "round {round}: the next leader was elected, not appointed: {took:?}");
    took
}

/// Waits until the others know another leader than `old`.
fn successor_of(cluster: &Deployment, leader: usize, old: u64, since: Instant) -> Duration {
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    let found = wait_for(PATIENCE, || {
        let states = others.iter().filter_map(|number| cluster.status(*number));
        states
            .into_iter()
            .find(|status| status.leader == status.member && status.leader != old)
            .map(|_| since.elapsed())
    });
    found.unwrap_or_else(|| panic!("nobody leads:\n{}", cluster.describe()))
}

/// Writes all the time, and tries every refusal again at the next member.
struct RetryingClient {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Written>,
}

/// What a client has seen, though its caller did not.
#[derive(Debug, Default)]
struct Written {
    writes: usize,
    slowest: Duration,
    /// Refusals, and who gave them.
    retries: BTreeMap<String, usize>,
}

impl RetryingClient {
    fn start(endpoints: Vec<String>, round: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(write_until(&flag, &endpoints, round))
        };
        Self { stop, thread: std::thread::spawn(work) }
    }

    /// Ends it; its thread panicked if a write failed for good.
    fn stop(self) -> Written {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("no client error")
    }
}

async fn write_until(stop: &AtomicBool, endpoints: &[String], round: usize) -> Written {
    let connections: Vec<Client> = endpoints.iter().map(|endpoint| Client::lazy(endpoint)).collect();
    let mut written = Written::default();
    while !stop.load(Ordering::SeqCst) {
        let began = now();
        for attempt in 0.. {
            let next = (written.writes + attempt) % connections.len();
            let mut client = connections.get(next).expect("a remainder").clone();
            let put = client.kv.put(grpc::put(format!("handover/{round}"), written.writes.to_string()));
            let refusal = match tokio::time::timeout(ATTEMPT_LIMIT, put).await {
                Ok(Ok(_)) => break,
                Ok(Err(status)) => status.message().to_owned(),
                Err(_) => format!("no answer in {ATTEMPT_LIMIT:?}"),
            };
            assert!(began.elapsed() < CLIENT_PATIENCE, "write {} fails for good: {refusal}", written.writes);
            *written.retries.entry(format!("etcd{}: {refusal}", next + 1)).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        written.slowest = written.slowest.max(began.elapsed());
        written.writes += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    written
}
