//! Answers to requests under `/raft`, with etcd's checks in etcd's order.

use std::{io, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::ALLOW, request::Parts};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    ResponseBody, SnapshotBody, SnapshotForm, SnapshotRefusal, Transport,
    codec::{CodecError, MessageDecoder, decode_message},
    deliver::{deliver, is_snapshot},
    headers::{self, Caller},
    inbound::{Pieces, RequestBody},
    outbox::StreamKind,
    outgoing::Outgoing,
    peer::Peer,
    probe,
    response::{body, empty, text},
};
use crate::{clock::Stopwatch, metrics, pb::raftpb::Message, types::MemberId};

/// What a member of etcd takes as the order to stop for good.
const REMOVED: &str = r#"{"message":"cannot process message from removed member"}"#;
/// The label of snapshots from senders nobody knows, as in etcd.
const UNKNOWN_SENDER: &str = "UNKNOWN_SNAPSHOT_SENDER";

type Answer = Response<ResponseBody>;
/// An answer given instead of what was asked for.
type Refusal = Box<Answer>;

/// Answers one request.
pub(super) async fn serve(transport: &Transport, request: Request<RequestBody>) -> Answer {
    let (parts, body) = request.into_parts();
    match parts.uri.path() {
        probe::PATH => super::response::body("application/json", probe::answer()),
        "/raft" => named(transport, post(transport, &parts, body).await),
        "/raft/snapshot" => named(transport, snapshot(transport, &parts, body).await),
        path if path.starts_with("/raft/stream/") => named(transport, stream(transport, &parts)),
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

/// An answer, or the refusal that comes instead of one.
fn named(transport: &Transport, answer: Result<Answer, Refusal>) -> Answer {
    let mut answer = answer.unwrap_or_else(|refusal| *refusal);
    answer.headers_mut().extend(headers::answer(&*transport.shared().local));
    answer
}

/// A refusal in a few words.
fn refuse(status: StatusCode, words: &str) -> Refusal {
    Box::new(text(status, words))
}

/// The checks that every request has to pass: method, version, cluster. A sender nobody knows is remembered.
fn admit(transport: &Transport, parts: &Parts, method: &Method) -> Result<Caller, Refusal> {
    if parts.method != *method {
        return Err(wrong_method(method));
    }
    headers::check(&*transport.shared().local, &parts.headers)
        .map_err(|incompatible| refuse(StatusCode::PRECONDITION_FAILED, incompatible.text()))?;
    let caller = Caller::read(&parts.headers);
    transport.meet(&caller);
    Ok(caller)
}

fn wrong_method(method: &Method) -> Refusal {
    let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    if let Ok(allowed) = HeaderValue::from_str(method.as_str()) {
        answer.headers_mut().insert(ALLOW, allowed);
    }
    answer
}

fn stream(transport: &Transport, parts: &Parts) -> Result<Answer, Refusal> {
    let caller = admit(transport, parts, &Method::GET)?;
    let local = &*transport.shared().local;
    let not_found = |what| refuse(StatusCode::NOT_FOUND, what);
    let (kind, from) = stream_path(parts.uri.path()).ok_or_else(|| not_found("invalid path"))?;
    let from = headers::member(from).ok_or_else(|| not_found("invalid from"))?;
    if local.is_removed(from) {
        return Err(refuse(StatusCode::GONE, "removed member"));
    }
    let peer = transport.peer(from).ok_or_else(|| not_found("error sender not found"))?;
    if caller.to != local.member().to_string() {
        return Err(refuse(StatusCode::PRECONDITION_FAILED, "to field mismatch"));
    }
    let contested = caller.process.is_some_and(|process| peer.is_contested(process));
    let mut answer = Response::new(ResponseBody::endless(Outgoing::attach(peer, kind)));
    if contested {
        answer.headers_mut().insert(headers::CONTESTED, headers::YES);
    }
    Ok(answer)
}

fn stream_path(path: &str) -> Option<(StreamKind, &str)> {
    [StreamKind::MsgApp, StreamKind::Message]
        .into_iter()
        .find_map(|kind| Some((kind, path.strip_prefix(kind.path()).filter(|from| !from.contains('/'))?)))
}

async fn post(transport: &Transport, parts: &Parts, body: RequestBody) -> Result<Answer, Refusal> {
    let caller = admit(transport, parts, &Method::POST)?;
    let local = &*transport.shared().local;
    let peer = caller.from.and_then(|from| transport.peer(from));
    let _slot = slot(peer.as_ref().map_or(&transport.budget().unknown_posts, |peer| &peer.posts))?;
    let allowance = transport.budget().bytes(peer.is_some());
    let bytes = Pieces::new(body, received_bytes(peer.as_deref())).whole(allowance).await;
    let message = decode_message(&bytes.map_err(|error| unreadable(&error))?)
        .map_err(|_| refuse(StatusCode::BAD_REQUEST, "error unmarshalling raft message"))?;
    refuse_removed(transport, &message)?;
    match deliver(local, caller.from, message).await {
        Ok(()) => Ok(empty(StatusCode::NO_CONTENT)),
        Err(super::deliver::Undelivered::Busy) => Err(busy()),
        // Not etcd's 403 for a misdirected message: the sender would take it for its removal.
        Err(reason) => Err(refuse(StatusCode::BAD_REQUEST, &reason.to_string())),
    }
}

/// Bytes are counted for members only: what strangers send must not become labels.
fn received_bytes(peer: Option<&Peer>) -> Arc<metrics::Counter> {
    peer.map_or_else(
        || metrics::PEER_RECEIVED_BYTES.with([metrics::OTHER]),
        |peer| Arc::clone(&peer.counters.received_bytes),
    )
}

fn slot(of: &Arc<tokio::sync::Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    Arc::clone(of).try_acquire_owned().map_err(|_| busy())
}

fn busy() -> Refusal {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "too many requests")
}

fn unreadable(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::InvalidData => refuse(StatusCode::PAYLOAD_TOO_LARGE, "request body too large"),
        io::ErrorKind::OutOfMemory => busy(),
        _ => refuse(StatusCode::BAD_REQUEST, "error reading raft message"),
    }
}

/// 403 ends a member of etcd, so nothing but the applied state may lead to it.
fn refuse_removed(transport: &Transport, message: &Message) -> Result<(), Refusal> {
    if !transport.shared().local.is_removed(MemberId(message.from)) {
        return Ok(());
    }
    let mut answer = body("application/json", REMOVED);
    *answer.status_mut() = StatusCode::FORBIDDEN;
    Err(Box::new(answer))
}

async fn snapshot(transport: &Transport, parts: &Parts, body: RequestBody) -> Result<Answer, Refusal> {
    let caller = admit(transport, parts, &Method::POST)?;
    let peer = caller.from.and_then(|from| transport.peer(from));
    let _slot = slot(peer.as_ref().map_or(&transport.budget().unknown_snapshots, |peer| &peer.snapshots))?;
    let from = peer.as_ref().map_or_else(|| UNKNOWN_SENDER.to_owned(), |peer| peer.id.to_string());
    let pieces = Pieces::new(body, received_bytes(peer.as_deref()));
    let _measured = Receiving::begin(&from);
    let received = receive(transport, &caller, snapshot_form(&parts.headers), pieces).await;
    let outcome =
        if received.is_ok() { &metrics::SNAPSHOT_RECEIVE_SUCCESS } else { &metrics::SNAPSHOT_RECEIVE_FAILURES };
    outcome.with([&from]).inc();
    received
}

async fn receive(
    transport: &Transport,
    caller: &Caller,
    form: SnapshotForm,
    mut pieces: Pieces,
) -> Result<Answer, Refusal> {
    let local = &transport.shared().local;
    let (message, first) = envelope(&mut pieces)
        .await
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, &format!("failed to decode raft message ({error})")))?;
    if !is_snapshot(&message) {
        return Err(refuse(StatusCode::BAD_REQUEST, "wrong raft message type"));
    }
    refuse_removed(transport, &message)?;
    if caller.from.is_some_and(|from| from.0 != message.from) || message.to != local.member().0 {
        return Err(refuse(StatusCode::BAD_REQUEST, "misdirected raft message"));
    }
    let data = SnapshotBody::behind(first, pieces);
    match Arc::clone(local).receive_snapshot(message, form, data).await {
        Ok(()) => Ok(empty(StatusCode::NO_CONTENT)),
        Err(refusal @ (SnapshotRefusal::Save(_) | SnapshotRefusal::Process(_))) => {
            Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, &refusal.to_string()))
        }
    }
}

fn snapshot_form(headers: &HeaderMap) -> SnapshotForm {
    let native = headers.get(headers::SNAPSHOT_FORM).is_some_and(|form| *form == headers::NATIVE);
    if native { SnapshotForm::Native } else { SnapshotForm::Bbolt }
}

/// The message in front of a snapshot's data, and what of the data came with it.
async fn envelope(pieces: &mut Pieces) -> io::Result<(Message, bytes::Bytes)> {
    let invalid = |error: CodecError| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut decoder = MessageDecoder::default();
    loop {
        if let Some(message) = decoder.any().map_err(invalid)? {
            return Ok((message, decoder.rest()));
        }
        let piece = pieces.next().await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        decoder.extend(&piece);
    }
}

/// Measures a snapshot being received, whatever ends it.
struct Receiving {
    inflight: Arc<metrics::Gauge>,
    duration: Arc<metrics::Histogram>,
    begun: Stopwatch,
}

impl Receiving {
    fn begin(from: &str) -> Self {
        let inflight = metrics::SNAPSHOT_RECEIVE_INFLIGHTS.with([from]);
        inflight.inc();
        Self { inflight, duration: metrics::SNAPSHOT_RECEIVE_DURATION.with([from]), begun: Stopwatch::start() }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.inflight.dec();
        self.duration.observe(self.begun.elapsed());
    }
}
