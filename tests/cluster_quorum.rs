//! As long as a majority is there, a cluster serves; without one it serves nothing that needs one, and says why.

mod support;

use std::time::Duration;

use quorate::pb::etcdserverpb as pb;
use support::{
    deployment::{Deployment, PATIENCE},
    grpc,
    hosts::Disk,
    program::Program,
    wait_for,
};
use tonic::{Code, Request, Status};

/// Longer than any limit of the daemon's own (etcd gives up after five seconds and two election timeouts).
const OWN_LIMIT: Duration = Duration::from_secs(15);
/// What etcd says to a reader when nobody leads: the caller may come again.
const REASONS: [&str; 3] = ["etcdserver: request timed out", "etcdserver: leader changed", "etcdserver: no leader"];

#[test]
fn five_members_serve_without_two_of_them() {
    let mut cluster = Deployment::start(&Program::subject(), 5, Disk::Plain);
    let leader = cluster.settle();
    cluster.kill(leader);
    cluster.kill((leader + 1) % 5);
    cluster.settle();
    for number in cluster.running() {
        put(&cluster, number, "five").expect("three of five serve");
        assert_eq!(read(&cluster, number, "five", false).expect("three of five serve"), 1);
    }
    for number in [leader, (leader + 1) % 5] {
        cluster.restart(number);
        assert_eq!(read(&cluster, number, "five", false).expect("all five serve"), 1);
    }
    cluster.assert_equal_states();
}

#[test]
fn one_of_three_serves_nothing_that_needs_the_others() {
    let mut cluster = Deployment::start(&Program::subject(), 3, Disk::Plain);
    let leader = cluster.settle();
    let (left, other) = ((leader + 1) % 3, (leader + 2) % 3);
    put(&cluster, leader, "before").expect("three of three serve");
    cluster.kill(leader);
    cluster.settle();
    put(&cluster, left, "with two").expect("two of three serve");
    cluster.kill(other);
    wait_for(PATIENCE, || cluster.status(left).filter(|status| status.leader == 0)).expect("nobody leads");

    // Without a leader a write never reaches the log, and etcd answers with the end of its own patience.
    let refused = put(&cluster, left, "lost").expect_err("one of three writes nothing");
    assert_eq!((refused.code(), refused.message()), (Code::DeadlineExceeded, "context deadline exceeded"));
    let refused = read(&cluster, left, "with two", false).expect_err("one of three reads nothing");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(REASONS.contains(&refused.message()), "{refused}");
    let told = ask_for_leader(&cluster, left).expect_err("nobody leads");
    assert_eq!((told.code(), told.message()), (Code::Unavailable, "etcdserver: no leader"));
    assert_eq!(read(&cluster, left, "with two", true).expect("what is there can be read"), 1);

    cluster.restart(other);
    cluster.settle();
    assert_eq!(read(&cluster, left, "with two", false).expect("two of three serve"), 1);
    put(&cluster, left, "after").expect("two of three serve");
    cluster.restart(leader);
    assert_eq!(read(&cluster, leader, "after", false).expect("three of three serve"), 1);
    cluster.assert_equal_states();
}

fn put(cluster: &Deployment, number: usize, key: &str) -> Result<(), Status> {
    let request = grpc::put(key.to_owned(), "1");
    cluster.run(number, async |mut client| within(client.kv.put(request)).await.map(drop))
}

/// How many of `key` there are.
fn read(cluster: &Deployment, number: usize, key: &str, serializable: bool) -> Result<usize, Status> {
    let request = pb::RangeRequest { serializable, ..grpc::get(key.to_owned()) };
    cluster.run(number, async |mut client| Ok(within(client.kv.range(request)).await?.into_inner().kvs.len()))
}

/// A read of what needs no leader, by a client that wants one.
fn ask_for_leader(cluster: &Deployment, number: usize) -> Result<(), Status> {
    let mut request = Request::new(pb::RangeRequest { serializable: true, ..grpc::get("with two") });
    request.metadata_mut().insert("hasleader", "true".parse().expect("a header"));
    cluster.run(number, async |mut client| within(client.kv.range(request)).await.map(drop))
}

async fn within<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(OWN_LIMIT, answer).await.expect("the daemon gives up before we do")
}
