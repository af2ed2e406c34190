//! Clients that mean harm, at every listener of one member: thousands of connections that stall, floods of malformed frames,
//! bytes that drip, bodies without end. A healthy client goes on meanwhile, the memory stays within a bound for each
//! connection, and what was refused is counted.
//!
//! `HOSTILE_CONNECTIONS`, `HOSTILE_FRAMES` and `HOSTILE_SECONDS` make it long (`make hostile`). How much slower the healthy
//! client gets is printed.

#![expect(clippy::disallowed_methods, reason = "clients of a test end with it, in whatever state they are")]

mod attack;
mod frames;
#[path = "../support/mod.rs"]
mod support;
mod target;

use std::time::Duration;

use attack::{Kind, stall};
use support::{setting, wait_for};
use target::{Port, Target};

/// Memory that one connection may cost, whatever it has begun: a handshake, the head of a request, streams.
const CONNECTION_KIB_MAX: u64 = 96;
/// Memory that may come on top, for what all connections share.
const SHARED_KIB_MAX: u64 = 64 * 1024;
/// Longest wait until the daemon has noticed that clients have gone.
const FORGETS_WITHIN: Duration = Duration::from_mins(1);
/// How long a peer may keep the daemon waiting, and time to act on it.
const PEER_PATIENCE: Duration = Duration::from_secs(15);
/// The body that nobody takes.
const BODY_BYTES: u64 = 2 << 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_stall_cost_little() {
    let count = setting("HOSTILE_CONNECTIONS", 1_000);
    let target = Target::start();
    let before = (target.memory_kib(), target.descriptors());
    let alone = target.healthy().await;
    let held = stall(&target, count).await;
    let beside = target.healthy().await;
    let grown = target.memory_kib().saturating_sub(before.0);
    println!("{} of {count} connections stall; memory +{grown} KiB; put {}", held.len(), beside.against(&alone));
    assert!(grown <= SHARED_KIB_MAX + CONNECTION_KIB_MAX * count as u64, "+{grown} KiB for {count} connections");
    drop(held);
    let forgotten = wait_for(FORGETS_WITHIN, || (target.descriptors() <= before.1 + 8).then_some(()));
    assert!(forgotten.is_some(), "{} descriptors, {} before", target.descriptors(), before.1);
    // Whoever breaks off within a handshake was refused, and is counted.
    let handshakes = target.metric("quorate_tls_handshakes_failed_total", "client");
    assert!(handshakes > 0, "no handshake was counted as failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_frames_end_their_connection_alone() {
    let count = setting("HOSTILE_FRAMES", 20_000);
    let target = Target::start();
    let before = target.memory_kib();
    let alone = target.healthy().await;
    let (sent, beside) = tokio::join!(frames::flood(&target, count), target.healthy());
    let grown = target.memory_kib().saturating_sub(before);
    let counted = target.metric("quorate_connections_cut_total", "client");
    println!(
        "{} frames on {} connections, {} refused, {counted} counted; memory +{grown} KiB; put {}",
        sent.frames,
        sent.connections,
        sent.refused,
        beside.against(&alone)
    );
    assert!(grown <= SHARED_KIB_MAX, "+{grown} KiB");
    // Whoever hangs up while he is told why counts as gone.
    let least = sent.refused - sent.refused.div_ceil(100);
    assert!(sent.refused > 0 && counted >= least, "{counted} of {} refusals counted", sent.refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_messages_are_answered_and_counted() {
    let count = setting("HOSTILE_FRAMES", 20_000) / 20;
    let target = Target::start();
    let before = target.refused_calls();
    let answered = frames::messages(&target, count).await;
    let counted = target.refused_calls() - before;
    println!("{answered} malformed messages refused, {counted} counted");
    assert_eq!(counted, answered);
    target.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drops_of_a_request_do_not_hold_a_listener() {
    // More at each listener than that for metrics has places: those that have not asked for anything give way.
    let count = setting("HOSTILE_CONNECTIONS", 1_000).max(400);
    let target = Target::start();
    let alone = target.healthy().await;
    let mut held = Vec::new();
    for port in Port::ALL {
        held.extend(attack::hold(&target, port, Kind::Drops, count / Port::ALL.len()).await);
    }
    let beside = target.healthy().await;
    println!("{} connections drip; put {}", held.len(), beside.against(&alone));
    assert!(target.metric("quorate_connections_cut_total", "crowded") > 0, "nobody gave way");
    // A peer that takes longer than etcd allows is cut off at once, a client after minutes.
    let cut = wait_for(PEER_PATIENCE, || {
        (target.metric("quorate_connections_cut_total", "peer") >= (count / Port::ALL.len()) as u64).then_some(())
    });
    assert!(cut.is_some(), "{} peers cut", target.metric("quorate_connections_cut_total", "peer"));
}

/// On HTTP/2 such a peer was waited for without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_begin_and_ask_nothing_are_cut_off() {
    let (target, count) = (Target::start(), 8);
    let mut held = Vec::new();
    let kinds = [Kind::Nothing, Kind::Head, Kind::Preface, Kind::Headers];
    for kind in kinds {
        held.extend(attack::hold(&target, Port::Peer, kind, count).await);
    }
    let cut = || target.metric("quorate_connections_cut_total", "peer");
    let all = wait_for(PEER_PATIENCE, || (cut() >= (count * kinds.len()) as u64).then_some(()));
    assert!(all.is_some(), "{} of {} cut", cut(), held.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_two_gigabytes_are_refused_and_counted() {
    let target = Target::start();
    let before = target.memory_kib();
    for body in attack::BODIES {
        let counted = target.refusals();
        let (taken, answer) = attack::send_endless(&target, body, BODY_BYTES).await;
        let grown = target.memory_kib().saturating_sub(before);
        println!("{}: {taken} bytes taken, answer {answer:?}; memory +{grown} KiB", body.name);
        assert!(grown <= SHARED_KIB_MAX, "{}: +{grown} KiB", body.name);
        assert!(taken < BODY_BYTES / 4, "{}: {taken} bytes taken", body.name);
        let told = wait_for(PEER_PATIENCE, || (target.refusals() > counted).then_some(()));
        assert!(told.is_some(), "{}: not counted", body.name);
    }
    target.healthy().await;
}
