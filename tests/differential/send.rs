//! Sends one request to one side and reduces the answer to what must be equal.

use crate::generate::Op;
use crate::support::grpc::Client;
use crate::ties;
use quorate::pb::etcdserverpb::{self as pb, ResponseHeader, ResponseOp, response_op, watch_request};
use quorate::pb::mvccpb::Event;
use std::fmt::Debug;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

/// Longest wait for one answer; a request that hangs is a difference, not a hung test.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Requests waiting in one of our streams; the test sends one at a time.
const STREAM_SLOTS: usize = 4;

/// Events in order, as text.
pub(crate) type Events = Vec<String>;

/// What a side made of a request, without what may differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub text: String,
    pub accepted: bool,
    pub revision: i64,
}

impl Outcome {
    fn answer(header: Option<&ResponseHeader>, response: &impl Debug) -> Self {
        Self { text: format!("{response:?}"), accepted: true, revision: header.map_or(0, |header| header.revision) }
    }

    fn refusal(status: &Status) -> Self {
        Self { text: format!("{:?}: {}", status.code(), status.message()), accepted: false, revision: 0 }
    }
}

/// One daemon with the streams the test keeps open to it.
pub(crate) struct Side {
    client: Client,
    renewals: Option<Renewals>,
    watch: Watch,
}

impl Side {
    /// # Panics
    /// If a connection or stream cannot be opened.
    pub(crate) async fn connect(endpoint: &str) -> Self {
        let mut client = Client::connect(endpoint).await.expect("the daemon listens");
        let everything = pb::WatchCreateRequest { prev_kv: true, ..everything() };
        let watch = Watch::open(&mut client, everything).await.expect("a watch");
        Self { client, renewals: None, watch }
    }

    pub(crate) async fn send(&mut self, op: &Op) -> Outcome {
        let answer = tokio::time::timeout(ANSWER_LIMIT, self.perform(op)).await;
        match answer {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(status)) => Outcome::refusal(&status),
            Err(_) => Outcome::refusal(&Status::new(Code::DeadlineExceeded, "no answer to the test")),
        }
    }

    async fn perform(&mut self, op: &Op) -> Result<Outcome, Status> {
        let client = &mut self.client;
        Ok(match op.clone() {
            Op::Range(request) => {
                let mut response = client.kv.range(request.clone()).await?.into_inner();
                ties::settle_range(&request, &mut response);
                whole(response)
            }
            Op::RangeStream(request) => merge(client.kv.range_stream(request).await?.into_inner()).await?,
            Op::Put(request) => whole(client.kv.put(request).await?.into_inner()),
            Op::Delete(request) => whole(client.kv.delete_range(request).await?.into_inner()),
            Op::Txn(request) => {
                let mut response = client.kv.txn(request.clone()).await?.into_inner();
                ties::settle_txn(&request, &mut response);
                whole(response)
            }
            Op::Compact(request) => whole(client.kv.compact(request).await?.into_inner()),
            Op::Large(request) => self.put_and_delete(request).await?,
            Op::HashKv(request) => whole(client.maintenance.hash_kv(request).await?.into_inner()),
            Op::Grant(request) => whole(client.lease.lease_grant(request).await?.into_inner()),
            Op::Revoke(request) => whole(client.lease.lease_revoke(request).await?.into_inner()),
            Op::GrantAndRevoke(request) => self.grant_and_revoke(request).await?,
            Op::TimeToLive(request) => time_to_live(client.lease.lease_time_to_live(request).await?.into_inner()),
            Op::Leases => whole(client.lease.lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner()),
            Op::KeepAlive(request) => self.keep_alive(request).await?,
            Op::History(request, until) => self.history(request, until).await?,
        })
    }

    /// A value near the size limit comes and goes, so that later lists stay small.
    async fn put_and_delete(&mut self, request: pb::PutRequest) -> Result<Outcome, Status> {
        let key = request.key.clone();
        let put = self.client.kv.put(request).await.map(|response| whole(response.into_inner()));
        let put = put.unwrap_or_else(|status| Outcome::refusal(&status));
        let delete = pb::DeleteRangeRequest { key, ..Default::default() };
        let deleted = whole(self.client.kv.delete_range(delete).await?.into_inner());
        Ok(Outcome { text: format!("{} then {}", put.text, deleted.text), ..deleted })
    }

    /// A lease whose id the server chose, or that would expire during the test, is gone before the next request.
    async fn grant_and_revoke(&mut self, request: pb::LeaseGrantRequest) -> Result<Outcome, Status> {
        let chosen = request.id;
        let mut granted = self.client.lease.lease_grant(request).await?.into_inner();
        let revoke = pb::LeaseRevokeRequest { id: granted.id };
        let revoked = whole(self.client.lease.lease_revoke(revoke).await?.into_inner());
        if chosen == 0 {
            granted.id = granted.id.signum();
        }
        granted.header.mask();
        Ok(Outcome { text: format!("{granted:?} then {}", revoked.text), ..revoked })
    }

    async fn keep_alive(&mut self, request: pb::LeaseKeepAliveRequest) -> Result<Outcome, Status> {
        let renewed = match &mut self.renewals {
            Some(renewals) => renewals.renew(request).await?,
            None => self.renewals.insert(Renewals::open(&mut self.client, request).await?).next().await?,
        };
        Ok(whole(renewed))
    }

    /// Events from a past revision to `until`, or the refusal of the watch.
    async fn history(&mut self, request: pb::WatchCreateRequest, until: i64) -> Result<Outcome, Status> {
        let mut watch = Watch::open(&mut self.client, request).await?;
        let events = watch.until(until).await?;
        Ok(Outcome { text: events.join("\n"), accepted: watch.canceled.is_none(), revision: 0 })
    }

    /// Every event of every key up to `revision` that was not read before.
    pub(crate) async fn events_until(&mut self, revision: i64) -> Events {
        match tokio::time::timeout(ANSWER_LIMIT, self.watch.until(revision)).await {
            Ok(Ok(events)) => events,
            Ok(Err(status)) => vec![Outcome::refusal(&status).text],
            Err(_) => vec![format!("no event of revision {revision} in {ANSWER_LIMIT:?}; last {}", self.watch.seen)],
        }
    }
}

/// One keepalive stream.
struct Renewals {
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    responses: Streaming<pb::LeaseKeepAliveResponse>,
}

impl Renewals {
    /// Opens the stream with its first request: etcd sends no header before the first answer.
    async fn open(client: &mut Client, first: pb::LeaseKeepAliveRequest) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(STREAM_SLOTS);
        requests.send(first).await.map_err(|_| ended())?;
        let responses = client.lease.lease_keep_alive(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    async fn renew(&mut self, request: pb::LeaseKeepAliveRequest) -> Result<pb::LeaseKeepAliveResponse, Status> {
        self.requests.send(request).await.map_err(|_| ended())?;
        self.next().await
    }

    async fn next(&mut self) -> Result<pb::LeaseKeepAliveResponse, Status> {
        self.responses.message().await?.ok_or_else(ended)
    }
}

fn ended() -> Status {
    Status::internal("the stream ended")
}

/// One watcher on a stream of its own.
struct Watch {
    /// Dropping the sender would half-close the stream.
    _requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
    /// Revision of the last event read, or the one the watch was created at.
    seen: i64,
    /// The response that ended the watch.
    canceled: Option<String>,
}

impl Watch {
    async fn open(client: &mut Client, create: pb::WatchCreateRequest) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(STREAM_SLOTS);
        let past = create.start_revision > 0;
        let create = pb::WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) };
        requests.send(create).await.map_err(|_| ended())?;
        let mut responses = client.watch.watch(Request::new(ReceiverStream::new(stream))).await?.into_inner();
        let created = responses.message().await?.ok_or_else(ended)?;
        let seen = if past { 0 } else { created.header.as_ref().map_or(0, |header| header.revision) };
        let canceled = created.canceled.then(|| masked(created));
        Ok(Self { _requests: requests, responses, seen, canceled })
    }

    /// The next events, up to and including those of `revision`; a cancellation ends them early.
    async fn until(&mut self, revision: i64) -> Result<Events, Status> {
        let mut events = Vec::new();
        while self.seen < revision && self.canceled.is_none() {
            let response = self.responses.message().await?.ok_or_else(ended)?;
            self.seen = response.events.iter().map(event_revision).max().unwrap_or(self.seen).max(self.seen);
            events.extend(response.events.iter().map(|event| format!("{event:?}")));
            self.canceled = response.canceled.then(|| masked(response));
        }
        events.extend(self.canceled.clone());
        Ok(events)
    }
}

fn event_revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn masked(mut response: pb::WatchResponse) -> String {
    response.header.mask();
    format!("{response:?}")
}

/// A watch on every key.
pub(crate) fn everything() -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() }
}

/// A response compared as it is.
fn whole<R: Answer>(mut response: R) -> Outcome {
    response.header_mut().mask();
    let header = *response.header_mut();
    Outcome::answer(header.as_ref(), &response)
}

/// The chunks of a streamed range as the one response they make.
async fn merge(mut chunks: Streaming<pb::RangeStreamResponse>) -> Result<Outcome, Status> {
    let mut merged = pb::RangeResponse::default();
    let mut headers = 0;
    while let Some(chunk) = chunks.message().await? {
        let chunk = chunk.range_response.unwrap_or_default();
        headers += usize::from(chunk.header.is_some());
        let kvs = std::mem::take(&mut merged.kvs);
        merged = pb::RangeResponse { kvs: [kvs, chunk.kvs].concat(), ..chunk };
    }
    let mut outcome = whole(merged);
    outcome.text = format!("{headers} headers, {}", outcome.text);
    Ok(outcome)
}

/// Remaining seconds tick on each side by themselves; the order of the keys is undefined.
fn time_to_live(mut response: pb::LeaseTimeToLiveResponse) -> Outcome {
    /// The test may take this long between grant and question.
    const ELAPSED_SECONDS_MAX: i64 = 3_600;
    if (response.granted_ttl - ELAPSED_SECONDS_MAX..=response.granted_ttl).contains(&response.ttl) {
        response.ttl = response.granted_ttl;
    }
    response.keys.sort();
    whole(response)
}

/// Replaces what identifies a member by whether it is there.
trait Mask {
    fn mask(&mut self);
}

impl Mask for Option<ResponseHeader> {
    fn mask(&mut self) {
        if let Some(header) = self {
            header.cluster_id = header.cluster_id.min(1);
            header.member_id = header.member_id.min(1);
            header.raft_term = header.raft_term.min(1);
        }
    }
}

/// Responses and the headers inside them.
trait Answer: Debug {
    fn header_mut(&mut self) -> &mut Option<ResponseHeader>;
}

macro_rules! answers {
    ($($response:ident),*) => {
        $(impl Answer for pb::$response {
            fn header_mut(&mut self) -> &mut Option<ResponseHeader> {
                &mut self.header
            }
        })*
    };
}
answers!(
    RangeResponse,
    PutResponse,
    DeleteRangeResponse,
    TxnResponse,
    CompactionResponse,
    HashKvResponse,
    LeaseGrantResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    LeaseLeasesResponse,
    LeaseKeepAliveResponse
);

/// Headers of sub-responses carry a revision alone, so nothing in them needs a mask; this says so for good.
#[test]
fn masks_reach_only_the_outer_header() {
    let inner = pb::PutResponse { header: Some(ResponseHeader { member_id: 9, ..Default::default() }), prev_kv: None };
    let op = ResponseOp { response: Some(response_op::Response::ResponsePut(inner)) };
    let outer = Some(ResponseHeader { cluster_id: 5, member_id: 6, revision: 7, raft_term: 8 });
    let outcome = whole(pb::TxnResponse { header: outer, succeeded: true, responses: vec![op] });
    assert!(outcome.text.contains("member_id: 9"), "{}", outcome.text);
    assert!(!outcome.text.contains("member_id: 6"), "{}", outcome.text);
    assert_eq!(outcome.revision, 7);
}
