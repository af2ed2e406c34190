//! Lets one of many processes do the work: the first takes a key bound to a lease and keeps it alive; the others wait
//! until the key is gone, be it given up or expired with its holder.
//!
//! `cargo run --example only_one -- NAME` against a daemon on port 2379, or `ENDPOINT=host:port`. Start it twice.

use bytes::Bytes;
use quorate::client::{Client, ClientError, Options};
use quorate::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest, compare::CompareTarget, compare::TargetUnion, request_op::Request,
};
use quorate::types::LeaseId;
use std::time::Duration;

const KEY: Bytes = Bytes::from_static(b"only-one/holder");
/// How long the others wait for a holder that died.
const TTL_SECONDS: i64 = 5;
/// How long the work takes.
const WORK: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ClientError> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "nameless".to_owned());
    let client = Client::connect(options()).await?;
    let lease = client.call(LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 }, None).await?.id;
    let mut alive = client.keep_alive(LeaseId(lease), WORK);
    let work = async {
        let held_since = take(&client, &name, lease).await?;
        println!("{name} holds the key since revision {held_since}");
        tokio::time::sleep(WORK).await;
        println!("{name} is done");
        // Deleting under the condition that the key is still ours: the lease may have expired without our noticing.
        let delete = Request::RequestDeleteRange(DeleteRangeRequest { key: KEY, ..Default::default() });
        client
            .call(TxnRequest { compare: vec![created_at(held_since)], success: ops([delete]), failure: vec![] }, None)
            .await
    };
    tokio::select! {
        done = work => drop(done?),
        () = async { while alive.next().await.is_some() {} } => println!("{name} lost the lease and stops"),
    }
    client.call(LeaseRevokeRequest { id: lease }, None).await.map(drop)
}

/// Waits until the key is ours; returns the revision it is ours from.
async fn take(client: &Client, name: &str, lease: i64) -> Result<i64, ClientError> {
    let put = PutRequest { key: KEY, value: Bytes::from(name.to_owned()), lease, ..Default::default() };
    let get = RangeRequest { key: KEY, ..Default::default() };
    loop {
        let attempt = TxnRequest {
            compare: vec![created_at(0)],
            success: ops([Request::RequestPut(put.clone())]),
            failure: ops([Request::RequestRange(get.clone())]),
        };
        let answer = client.call(attempt, None).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        if answer.succeeded {
            return Ok(revision);
        }
        println!("{name} waits");
        let mut watcher = client.watcher();
        watcher.watch(WatchCreateRequest { key: KEY, start_revision: revision + 1, ..Default::default() });
        watcher.next().await;
    }
}

/// Holds if the key was created at `revision`; 0 means that there is no such key.
fn created_at(revision: i64) -> Compare {
    let target_union = Some(TargetUnion::CreateRevision(revision));
    Compare { key: KEY, target: CompareTarget::Create as i32, target_union, ..Default::default() }
}

fn ops<const N: usize>(requests: [Request; N]) -> Vec<RequestOp> {
    requests.map(|request| RequestOp { request: Some(request) }).into()
}

fn options() -> Options {
    let endpoint = std::env::var_os("ENDPOINT").and_then(|endpoint| endpoint.into_string().ok());
    Options { endpoints: vec![endpoint.unwrap_or_else(|| "127.0.0.1:2379".to_owned())], ..Options::default() }
}
