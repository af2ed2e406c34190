//! What clients ask of one member while they watch another: reads, writes, transactions, leases, watches.

use super::support::{
    cluster::PATIENCE,
    grpc::{self, Client},
    now,
};
use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use quorate::pb::{
    etcdserverpb::{
        self as pb, Compare, RequestOp, compare::TargetUnion, request_op::Request, response_op::Response,
        watch_request::RequestUnion,
    },
    mvccpb::{Event, KeyValue},
};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

/// Seconds of leases that are revoked before they end.
const LONG_TTL: i64 = 600;
/// Seconds of leases that end: the shortest there are at the usual election timeout.
const SHORT_TTL: i64 = 2;
/// How much later than its time a lease may end: leaders look twice a second, and revoking is a write.
const LATE: Duration = Duration::from_secs(5);

/// Two members, and keys that nobody else uses.
pub(crate) struct Pair {
    pub(crate) asked: Client,
    pub(crate) other: Client,
    pub(crate) prefix: String,
}

impl Pair {
    pub(crate) async fn connect(asked: &str, other: &str, prefix: String) -> Self {
        let [asked, other] =
            [asked, other].map(|endpoint| async move { Client::connect(endpoint).await.expect("it serves") });
        Self { asked: asked.await, other: other.await, prefix }
    }

    /// # Panics
    /// If anything is not as one member alone would answer.
    pub(crate) async fn check(&mut self) {
        let (requests, mut events) = watch(&mut self.asked, &self.prefix, 0).await;
        self.writes_are_seen().await;
        self.transactions_decide().await;
        self.leases_are_known_to_all().await;
        drop(requests);
        let expected = ["by asked", "by other", "first", "deleted", "leased", "deleted"];
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let response = timeout(PATIENCE, events.message()).await.expect("events in time");
            let response = response.expect("an open watch").expect("more events");
            seen.extend(response.events.iter().map(what_happened));
        }
        assert_eq!(seen, expected);
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn writes_are_seen(&mut self) {
        let key = self.key("key");
        let put = self.asked.kv.put(grpc::put(key.clone(), "by asked")).await.expect("a forwarded write");
        let revision = put.into_inner().header.expect("a header").revision;
        let seen = get(&mut self.other, &key, false).await.expect("it is there");
        assert_eq!((seen.value.as_ref(), seen.mod_revision), (b"by asked".as_slice(), revision));
        let here = get(&mut self.asked, &key, true).await.expect("who answered has applied it");
        assert_eq!(here, seen);

        self.other.kv.put(grpc::put(key.clone(), "by other")).await.expect("a write");
        let seen = get(&mut self.asked, &key, false).await.expect("it is there");
        assert_eq!((seen.value.as_ref(), seen.version), (b"by other".as_slice(), here.version + 1));
    }

    /// The first of two equal transactions writes, the second sees what the first wrote.
    async fn transactions_decide(&mut self) {
        let key = self.key("txn");
        let compare = Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Version.into(),
            key: key.clone().into(),
            target_union: Some(TargetUnion::Version(0)),
            ..Default::default()
        };
        let op = |request| RequestOp { request: Some(request) };
        let request = pb::TxnRequest {
            compare: vec![compare],
            success: vec![
                op(Request::RequestPut(grpc::put(key.clone(), "first"))),
                op(Request::RequestRange(grpc::get(key.clone()))),
            ],
            failure: vec![op(Request::RequestDeleteRange(pb::DeleteRangeRequest {
                key: key.clone().into(),
                prev_kv: true,
                ..Default::default()
            }))],
        };
        let first = self.asked.kv.txn(request.clone()).await.expect("a transaction").into_inner();
        assert!(first.succeeded, "{first:?}");
        let second = self.other.kv.txn(request).await.expect("a transaction").into_inner();
        let deleted = second.responses.into_iter().next().and_then(|response| response.response);
        let Some(Response::ResponseDeleteRange(deleted)) = deleted else { panic!("{deleted:?}") };
        assert_eq!(deleted.prev_kvs.first().map(|kv| kv.value.as_ref()), Some(b"first".as_slice()));
        assert_eq!(get(&mut self.asked, &key, false).await, None);
    }

    /// Granted by one, used and kept alive by the other, revoked by the first.
    async fn leases_are_known_to_all(&mut self) {
        let key = self.key("leased");
        let lease = grant(&mut self.asked, LONG_TTL).await;
        let put = pb::PutRequest { lease, ..grpc::put(key.clone(), "leased") };
        self.other.kv.put(put).await.expect("a put with a lease");
        for client in [&mut self.other, &mut self.asked] {
            assert_eq!(keep_alive(client, lease).await, LONG_TTL);
            let life = time_to_live(client, lease).await;
            assert_eq!((life.granted_ttl, life.keys), (LONG_TTL, vec![Bytes::from(key.clone())]));
            assert!(life.ttl > LONG_TTL - 60, "{} seconds left", life.ttl);
        }
        self.other.lease.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await.expect("a revocation");
        assert_eq!(get(&mut self.asked, &key, false).await, None);
        assert_eq!(time_to_live(&mut self.asked, lease).await.ttl, -1);
    }

    /// A lease lives as long as it is kept alive, and ends in time when it is not.
    ///
    /// # Panics
    /// If it ends early or late.
    pub(crate) async fn lease_ends_in_time(&mut self) {
        let key = self.key("short");
        let lease = grant(&mut self.asked, SHORT_TTL).await;
        let put = pb::PutRequest { lease, ..grpc::put(key.clone(), "for a while") };
        self.asked.kv.put(put).await.expect("a put with a lease");
        let mut renewed = now();
        for _ in 0..4 {
            sleep(Duration::from_secs(1)).await;
            renewed = now();
            assert_eq!(keep_alive(&mut self.other, lease).await, SHORT_TTL);
        }
        assert!(get(&mut self.asked, &key, false).await.is_some(), "it was kept alive");
        let ttl = Duration::from_secs(SHORT_TTL.unsigned_abs());
        while get(&mut self.other, &key, false).await.is_some() {
            assert!(renewed.elapsed() < ttl + LATE, "the key outlives its lease");
            sleep(Duration::from_millis(20)).await;
        }
        assert!(renewed.elapsed() >= ttl, "gone after {:?}", renewed.elapsed());
        for client in [&mut self.asked, &mut self.other] {
            assert_eq!(time_to_live(client, lease).await.ttl, -1);
        }
    }
}

fn what_happened(event: &Event) -> String {
    let value = event.kv.as_ref().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
    value.filter(|value| !value.is_empty()).unwrap_or_else(|| "deleted".to_owned())
}

async fn get(client: &mut Client, key: &str, serializable: bool) -> Option<KeyValue> {
    let request = pb::RangeRequest { serializable, ..grpc::get(key.to_owned()) };
    client.kv.range(request).await.expect("a read").into_inner().kvs.into_iter().next()
}

async fn grant(client: &mut Client, ttl: i64) -> i64 {
    let granted = client.lease.lease_grant(pb::LeaseGrantRequest { ttl, id: 0 }).await.expect("a lease").into_inner();
    assert_eq!(granted.ttl, ttl);
    granted.id
}

async fn keep_alive(client: &mut Client, lease: i64) -> i64 {
    let (requests, receiver) = mpsc::channel(1);
    requests.send(pb::LeaseKeepAliveRequest { id: lease }).await.expect("an open stream");
    let answers = client.lease.lease_keep_alive(ReceiverStream::new(receiver)).await;
    let answer = timeout(PATIENCE, answers.expect("a stream").into_inner().message()).await.expect("in time");
    answer.expect("an open stream").expect("an answer").ttl
}

async fn time_to_live(client: &mut Client, lease: i64) -> pb::LeaseTimeToLiveResponse {
    let request = pb::LeaseTimeToLiveRequest { id: lease, keys: true };
    client.lease.lease_time_to_live(request).await.expect("an answer").into_inner()
}

/// Watches every key below `prefix` (all keys, if it is empty), from revision `start` on (from now on, if it is 0).
async fn watch(
    client: &mut Client,
    prefix: &str,
    start: i64,
) -> (mpsc::Sender<pb::WatchRequest>, tonic::Streaming<pb::WatchResponse>) {
    let end = match prefix.strip_suffix('/') {
        None => "\0".to_owned(),
        Some(folder) => format!("{folder}0"),
    };
    let key = if prefix.is_empty() { "\0" } else { prefix };
    let create = pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: end.into(),
        start_revision: start,
        ..Default::default()
    };
    let (requests, receiver) = mpsc::channel(1);
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.send(request).await.expect("an open stream");
    let mut events = client.watch.watch(ReceiverStream::new(receiver)).await.expect("a watch").into_inner();
    assert!(events.message().await.expect("an open watch").expect("an answer").created);
    (requests, events)
}

/// Revision and key of every event from `start` to `last`, as a watch through `endpoint` shows them.
///
/// # Panics
/// If they do not come in time.
pub(crate) async fn past(endpoint: &str, start: i64, last: i64) -> Vec<(i64, Bytes)> {
    let mut client = Client::connect(endpoint).await.expect("it serves");
    let (_requests, mut events) = watch(&mut client, "", start).await;
    let mut seen: Vec<(i64, Bytes)> = Vec::new();
    while seen.last().is_none_or(|(revision, _)| *revision < last) {
        let response = timeout(PATIENCE, events.message()).await.expect("events in time");
        let response = response.expect("an open watch").expect("more events");
        assert!(!response.canceled, "{response:?}");
        let kvs = response.events.into_iter().filter_map(|event| event.kv);
        seen.extend(kvs.map(|kv| (kv.mod_revision, kv.key)));
    }
    seen
}

/// A transaction that writes, and reads what was at `revision`; what is said if it is refused.
pub(crate) async fn put_and_read(endpoint: &str, revision: i64) -> Option<String> {
    let mut client = Client::connect(endpoint).await.expect("it serves");
    let read = pb::RangeRequest { revision, ..grpc::get("a") };
    let ops = [Request::RequestPut(grpc::put("a", "1")), Request::RequestRange(read)];
    let success = ops.map(|op| RequestOp { request: Some(op) }).to_vec();
    let request = pb::TxnRequest { success, ..Default::default() };
    client.kv.txn(request).await.err().map(|status| status.message().to_owned())
}

/// What somebody says in fields that no release of etcd has.
pub(crate) const NEWS: &str = "what nobody here can read";

#[derive(Clone, PartialEq, Message)]
struct NewerPut {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(string, tag = "15")]
    news: String,
}

#[derive(Clone, PartialEq, Message)]
struct NewerTxn {
    #[prost(message, repeated, tag = "2")]
    success: Vec<NewerOp>,
    #[prost(string, tag = "15")]
    news: String,
}

#[derive(Clone, PartialEq, Message)]
struct NewerOp {
    #[prost(message, optional, tag = "2")]
    put: Option<NewerPut>,
    #[prost(message, optional, boxed, tag = "4")]
    txn: Option<Box<NewerTxn>>,
    #[prost(string, tag = "15")]
    news: String,
}

/// Writes two keys with requests that say more than anybody knows: one alone, and one in a transaction in a transaction.
///
/// # Panics
/// If it fails.
pub(crate) async fn put_news(endpoint: &str, keys: [&str; 2]) {
    let client = Client::connect(endpoint).await.expect("it serves");
    let [alone, inside] =
        keys.map(|key| NewerPut { key: key.to_owned(), value: endpoint.to_owned(), news: NEWS.to_owned() });
    let txn = |op: NewerOp| NewerTxn { success: vec![NewerOp { news: NEWS.to_owned(), ..op }], news: NEWS.to_owned() };
    let inner = txn(NewerOp { put: Some(inside), ..NewerOp::default() });
    let outer = txn(NewerOp { txn: Some(Box::new(inner)), ..NewerOp::default() });
    call::<_, pb::PutResponse>(&client, "/etcdserverpb.KV/Put", alone).await;
    assert!(call::<_, pb::TxnResponse>(&client, "/etcdserverpb.KV/Txn", outer).await.succeeded);
}

async fn call<Q: Message + 'static, A: Message + Default + 'static>(
    client: &Client,
    method: &'static str,
    request: Q,
) -> A {
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.expect("a connection");
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    let answer = grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(method), codec).await;
    answer.expect("an answer").into_inner()
}

/// Every key below `prefix`, as this member has it.
pub(crate) async fn below(endpoint: &str, prefix: &str) -> Vec<KeyValue> {
    let mut client = Client::connect(endpoint).await.expect("it serves");
    let range_end = format!("{}0", prefix.trim_end_matches('/'));
    let request = pb::RangeRequest { serializable: true, range_end: range_end.into(), ..grpc::get(prefix.to_owned()) };
    client.kv.range(request).await.expect("a read").into_inner().kvs
}

/// The newest revision that a member has, and its hash at a given one (0 is the newest).
pub(crate) async fn hash(endpoint: &str, revision: i64) -> Option<Hash> {
    let mut client = Client::connect(endpoint).await.ok()?;
    let answer = client.maintenance.hash_kv(pb::HashKvRequest { revision }).await.ok()?.into_inner();
    let newest = answer.header.as_ref().map_or(0, |header| header.revision);
    Some(Hash { newest, compacted: answer.compact_revision, sum: answer.hash })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash {
    pub(crate) newest: i64,
    pub(crate) compacted: i64,
    pub(crate) sum: u32,
}
