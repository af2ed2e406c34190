//! A cluster under load grows from one member to three, five and seven, shrinks back to one, and has a dead member
//! replaced, without losing anything.
//!
//! `make test` stops at four members; `make cluster` sets `CLUSTER_GROW_TO=7`.

mod support;

use std::time::Duration;

use quorate::pb::etcdserverpb as pb;
use support::{
    deployment::{Deployment, PATIENCE, guide_file, initial_cluster},
    grpc::Client,
    hosts::Disk,
    program::Program,
    setting,
    traffic::Traffic,
    wait_for,
};
use tonic::Status;

/// How many members it grows to.
const SIZE: usize = 4;

#[test]
fn a_cluster_grows_and_shrinks_under_load() {
    let size = setting("CLUSTER_GROW_TO", SIZE);
    let mut cluster = Deployment::prepare(&Program::subject(), size, Disk::Plain);
    cluster.configure(0, &guide_file(0, 1));
    cluster.spawn(0);
    cluster.wait_ready(0);
    let everybody: Vec<usize> = (0..size).collect();
    let traffic = Traffic::start(&cluster.endpoints(&everybody), "grow", 1);
    for number in 1..size {
        add(&mut cluster, number);
        println!("{} members", number + 1);
    }
    cluster.settle();
    cluster.assert_equal_states();

    // Leaders and followers go alike: the first to go is whoever leads, then the others by their numbers.
    let last = cluster.settle();
    let mut leaving: Vec<usize> = everybody.iter().copied().filter(|number| *number != last).collect();
    leaving.insert(0, last);
    for number in leaving.iter().copied().take(size - 1) {
        remove(&mut cluster, number);
        println!("{} members", cluster.running().len());
    }
    let history = traffic.stop();
    println!("{} answers, {} unknown {:?}", history.acknowledged(), history.unknown(), history.refusals);
    let left = cluster.running();
    assert_eq!(left.len(), 1);
    history.check(&cluster.endpoints(&left));
}

#[test]
fn a_lost_member_is_replaced_under_load() {
    let mut cluster = Deployment::start(&Program::subject(), 3, Disk::Plain);
    let leader = cluster.settle();
    let traffic = Traffic::start(&cluster.endpoints(&[0, 1, 2]), "replace", 2);
    for lost in [(leader + 1) % 3, leader] {
        let id = cluster.status(lost).expect("it still runs").member;
        cluster.kill(lost);
        cluster.hosts.host(lost).wipe();
        let somebody = cluster.settle();
        ask(&cluster, somebody, &Change::Remove { id });
        add(&mut cluster, lost);
        cluster.settle();
        assert_ne!(cluster.status(lost).expect("it runs again").member, id, "a replacement is another member");
    }
    let history = traffic.stop();
    println!("{} answers, {} unknown {:?}", history.acknowledged(), history.unknown(), history.refusals);
    history.check(&cluster.endpoints(&[0, 1, 2]));
    cluster.assert_equal_states();
}

/// Adds a member on host `number`, which has none, and waits until it serves.
fn add(cluster: &mut Deployment, number: usize) {
    let somebody = cluster.settle();
    let peer_url = format!("http://{}:2380", cluster.address(number));
    ask(cluster, somebody, &Change::Add { peer_url });
    let size = (cluster.running().into_iter().max().unwrap_or(0)).max(number) + 1;
    cluster.configure(number, &guide_file(number, size));
    assert_eq!(initial_cluster(size).matches("http").count(), cluster.running().len() + 1);
    cluster.set(number, "ETCD_INITIAL_CLUSTER_STATE", "existing");
    cluster.spawn(number);
    cluster.wait_ready(number);
}

/// Removes the member on host `number` and waits until it has ended by itself.
fn remove(cluster: &mut Deployment, number: usize) {
    cluster.settle();
    let id = cluster.status(number).expect("it runs").member;
    // Whoever is removed may be gone before its answer is.
    let stays = cluster.running().into_iter().find(|other| *other != number).expect("somebody stays");
    ask(cluster, stays, &Change::Remove { id });
    cluster.wait_end(number);
    cluster.hosts.host(number).wipe();
    cluster.settle();
}

/// Longest wait for the answer to one attempt.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// What etcd says to a change that was made before.
const DONE_ALREADY: [&str; 2] = ["etcdserver: member not found", "etcdserver: Peer URLs already exists"];

/// A change of the membership.
enum Change {
    Add { peer_url: String },
    Remove { id: u64 },
}

impl Change {
    async fn propose(&self, mut client: Client) -> Result<(), Status> {
        match self {
            Self::Add { peer_url } => {
                let request = pb::MemberAddRequest { peer_ur_ls: vec![peer_url.clone()], ..Default::default() };
                client.cluster.member_add(request).await.map(drop)
            }
            Self::Remove { id } => client.cluster.member_remove(pb::MemberRemoveRequest { id: *id }).await.map(drop),
        }
    }
}

/// Asks until the cluster agrees: right after a change it may say that too few members are connected yet.
fn ask(cluster: &Deployment, number: usize, change: &Change) {
    let mut said = String::new();
    let agreed = wait_for(PATIENCE, || {
        let answer =
            cluster.run(number, async |client| tokio::time::timeout(ANSWER_LIMIT, change.propose(client)).await);
        match answer {
            Ok(Ok(())) => Some(()),
            // The answer to an earlier attempt was lost, but the request was not.
            Ok(Err(status)) if DONE_ALREADY.contains(&status.message()) => Some(()),
            Ok(Err(status)) => {
                said = status.to_string();
                None
            }
            Err(_) => None,
        }
    });
    assert!(agreed.is_some(), "the cluster does not agree: {said}\n{}", cluster.describe());
}
