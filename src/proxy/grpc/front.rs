//! What clients talk to: the services of a member, answered from what is shared or passed on.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, Method, Request, uri::PathAndQuery};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tokio::sync::Semaphore;

use super::{
    Options,
    cluster::Registration,
    http::Plain,
    kv::Kv,
    lease::Leases,
    namespace::Namespace,
    upstream::{BytesCodec, Outgoing, Upstream, status_of},
    watch::{Client, Watches},
};
use crate::{
    api::{
        Call, Keepalive, decode,
        status::Status,
        wire::{
            Encoding, Http2Service, Inbound, Outbound, PREFIX_BYTES, Tally, answer, finish, is_grpc, prefix, refuse,
            send_plain, unless_reset,
        },
    },
    client,
    metrics::{self, GrpcMethod, MethodKind},
    pb::etcdserverpb::{RangeRequest, RangeStreamResponse},
    types::Code,
};

/// Everything one proxy serves.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) upstream: Arc<Upstream>,
    pub(super) kv: Kv,
    pub(super) watches: Watches,
    pub(super) leases: Arc<Leases>,
    pub(super) registration: Registration,
    pub(super) plain: Plain,
    pub(super) plain_places: Semaphore,
    pub(super) namespace: Namespace,
    pub(super) options: Options,
}

impl Http2Service for Front {
    fn limits(&self) -> (Keepalive, u32) {
        (self.options.keepalive, self.options.concurrent_streams_max)
    }

    async fn answer(self: Arc<Self>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.serve(request, respond).await;
    }
}

/// Most requests for health and metrics that are answered over HTTP/2 at a time: an answer may be long, and a connection
/// carries any number of requests.
pub(super) const PLAIN_ANSWERS_MAX: usize = 64;
/// How long a client may take to read such an answer.
const PLAIN_PATIENCE: Duration = Duration::from_secs(10);
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// A call of a client.
struct Incoming {
    path: PathAndQuery,
    headers: HeaderMap,
    counters: &'static GrpcMethod,
    encoding: Encoding,
}

impl Front {
    async fn serve(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        if request.method() != Method::POST || !is_grpc(request.headers()) {
            return Box::pin(self.serve_plain(request, respond)).await;
        }
        let (known, body) = known(request);
        match known {
            // Ten thousand calls wait in a watch: what others need besides is not kept room for.
            Ok(incoming) if incoming.path.path() == WATCH => self.serve_watch(incoming, body, respond).await,
            Ok(incoming) if incoming.counters.kind == MethodKind::Unary => {
                Box::pin(self.serve_unary(incoming, body, respond)).await;
            }
            Ok(incoming) => Box::pin(self.serve_stream(incoming, body, respond)).await,
            Err(status) => {
                refuse(&mut respond, &status);
                finish(body).await;
            }
        }
    }

    /// Health and metrics over HTTP/2. The place is kept until the client has taken its answer, but not for long.
    async fn serve_plain(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let Ok(_place) = self.plain_places.try_acquire() else {
            return refuse_plain(respond);
        };
        let Some(Ok(response)) = unless_reset(self.plain.answer(request), &mut respond).await else { return };
        let (head, body) = response.into_parts();
        let Ok(body) = body.collect().await;
        let sent = send_plain(http::Response::from_parts(head, ()), body.to_bytes(), respond);
        // A client that is gone, or takes nothing, does not want its answer.
        drop(tokio::time::timeout(PLAIN_PATIENCE, sent).await);
    }

    async fn serve_unary(&self, incoming: Incoming, body: RecvStream, mut respond: SendResponse<Bytes>) {
        let Incoming { encoding, counters, .. } = incoming;
        let mut inbound = Inbound::http2(body, encoding, self.options.request_bytes_max, counters);
        let tally = Tally::start(counters);
        let work = async {
            let Some(request) = inbound.next().await? else { return Err(Status::unknown("EOF")) };
            self.unary(&incoming, request).await
        };
        // A client that resets its stream takes the call with it; the tally counts that as cancelled.
        let Some(outcome) = unless_reset(work, &mut respond).await else { return };
        match &outcome {
            Ok(message) => match framed(message) {
                Ok(frame) => answer(&mut respond, frame, encoding, counters),
                Err(status) => refuse(&mut respond, &status),
            },
            Err(status) => refuse(&mut respond, status),
        }
        tally.end(&outcome);
        inbound.finish().await;
    }

    async fn unary(&self, incoming: &Incoming, request: Bytes) -> Result<Bytes, Status> {
        let Incoming { path, headers, .. } = incoming;
        let call = Outgoing::of(headers, Call::new(headers.clone()).timeout()?);
        match path.path() {
            "/etcdserverpb.KV/Range" => self.kv.range(headers, &call, request).await,
            "/etcdserverpb.KV/Put" => self.kv.put(&call, request).await,
            "/etcdserverpb.KV/DeleteRange" => self.kv.delete_range(&call, request).await,
            "/etcdserverpb.KV/Txn" => self.kv.txn(headers, &call, request).await,
            "/etcdserverpb.KV/Compact" => self.kv.compact(&call, request).await,
            "/etcdserverpb.Lease/LeaseRevoke" => self.leases.revoke(&call, request).await,
            "/etcdserverpb.Lease/LeaseTimeToLive" => self.leases.time_to_live(&call, request).await,
            "/etcdserverpb.Cluster/MemberList" => match self.registration.members(&self.upstream, &call).await? {
                Some(members) => Ok(members),
                None => self.upstream.unary(path, &call, request, true).await,
            },
            other => {
                let answer = self.upstream.unary(path, &call, request, client::is_repeatable(other)).await;
                if changes_rights(other) {
                    self.kv.forget_answers();
                }
                answer
            }
        }
    }

    async fn serve_watch(&self, incoming: Incoming, body: RecvStream, respond: SendResponse<Bytes>) {
        let Incoming { encoding, counters, headers, .. } = incoming;
        let inbound = Inbound::http2(body, encoding, self.options.request_bytes_max, counters);
        let mut outbound = Outbound::http2(respond, encoding, counters);
        let tally = Tally::start(counters);
        let client = Client::of(headers);
        let outcome = match client {
            Ok((client, None)) => self.watches.serve(&client, inbound, &mut outbound).await,
            Ok((client, Some(patience))) => {
                let served = Box::pin(self.watches.serve(&client, inbound, &mut outbound));
                tokio::time::timeout(patience, served).await.unwrap_or_else(|_| Err(Status::deadline_exceeded()))
            }
            Err(status) => Err(status),
        };
        tally.end(&outcome);
        outbound.finish(&outcome);
    }

    async fn serve_stream(&self, incoming: Incoming, body: RecvStream, respond: SendResponse<Bytes>) {
        let Incoming { encoding, counters, ref headers, .. } = incoming;
        let inbound = Inbound::http2(body, encoding, self.options.request_bytes_max, counters);
        let mut outbound = Outbound::http2(respond, encoding, counters);
        let tally = Tally::start(counters);
        let call = Call::new(headers.clone());
        let outcome = call.within_deadline(self.stream(&incoming, inbound, &mut outbound)).await;
        tally.end(&outcome);
        outbound.finish(&outcome);
    }

    async fn stream(&self, incoming: &Incoming, inbound: Inbound, outbound: &mut Outbound) -> Result<(), Status> {
        match incoming.path.path() {
            "/etcdserverpb.Lease/LeaseKeepAlive" => self.leases.keep_alive(inbound, outbound).await,
            "/etcdserverpb.KV/RangeStream" if !self.namespace.is_empty() => {
                self.range_stream(incoming, inbound, outbound).await
            }
            _ => self.pass_on(incoming, inbound, outbound, Ok, Ok).await,
        }
    }

    /// A range in pieces, of keys that have a prefix.
    async fn range_stream(&self, incoming: &Incoming, inbound: Inbound, outbound: &mut Outbound) -> Result<(), Status> {
        let prefix = |request: Bytes| {
            let mut request: RangeRequest = decode(request)?;
            self.namespace.prefix_range(&mut request)?;
            Ok(request.encode_to_vec().into())
        };
        let strip = |piece: Bytes| {
            let mut piece: RangeStreamResponse = decode(piece)?;
            self.namespace.strip_piece(&mut piece);
            Ok(piece.encode_to_vec().into())
        };
        self.pass_on(incoming, inbound, outbound, prefix, strip).await
    }

    /// A call with one request and many answers. An answer is not asked for before the client has taken the one before it.
    async fn pass_on(
        &self,
        incoming: &Incoming,
        mut inbound: Inbound,
        outbound: &mut Outbound,
        change: impl Fn(Bytes) -> Result<Bytes, Status>,
        change_back: impl Fn(Bytes) -> Result<Bytes, Status>,
    ) -> Result<(), Status> {
        let Some(request) = inbound.next().await? else { return Err(Status::unknown("EOF")) };
        let request = change(request)?;
        let call = Outgoing::of(&incoming.headers, Call::new(incoming.headers.clone()).timeout()?);
        let codec = || BytesCodec;
        let opening = self.upstream.open(&incoming.path, &call, codec, || tokio_stream::once(request.clone()));
        let mut answers = tokio::select! {
            answers = opening => answers?,
            () = outbound.closed() => return Err(Status::canceled()),
        };
        loop {
            let message = tokio::select! {
                message = answers.message() => message.map_err(|status| status_of(&status))?,
                () = outbound.closed() => return Err(Status::canceled()),
            };
            let Some(message) = message else { return Ok(()) };
            outbound.send(change_back(message)?).await?;
        }
    }
}

/// What there is to know about a call, if its method exists.
fn known(request: Request<RecvStream>) -> (Result<Incoming, Status>, RecvStream) {
    let (head, body) = request.into_parts();
    (incoming(head.uri.path(), head.headers), body)
}

fn incoming(path: &str, headers: HeaderMap) -> Result<Incoming, Status> {
    static METHODS: OnceLock<HashMap<String, &'static GrpcMethod>> = OnceLock::new();
    let by_path = |method: &&'static GrpcMethod| (format!("/{}/{}", method.service, method.method), *method);
    let methods = METHODS.get_or_init(|| metrics::METHODS.iter().map(by_path).collect());
    let unknown = || Status::unimplemented(format!("unknown method {path}"));
    let counters = methods.get(path).copied().ok_or_else(unknown)?;
    let encoding = Encoding::of(&headers)?;
    let path = PathAndQuery::try_from(path).map_err(|_| unknown())?;
    Ok(Incoming { path, headers, counters, encoding })
}

/// Says that there is no place for a request for health or metrics.
fn refuse_plain(mut respond: SendResponse<Bytes>) {
    let mut refusal = http::Response::new(());
    *refusal.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    // A client that is gone does not want its answer.
    drop(respond.send_response(refusal, true));
}

fn framed(message: &Bytes) -> Result<Bytes, Status> {
    let too_long = |_| Status::new(Code::ResourceExhausted, "grpc: trying to send a message of 4 GiB or more");
    let bytes = u32::try_from(message.len()).map_err(too_long)?;
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_slice(&prefix(bytes));
    frame.put_slice(message);
    Ok(frame.freeze())
}

/// Whether a call may take a right from somebody.
fn changes_rights(path: &str) -> bool {
    const READS: [&str; 6] = ["Authenticate", "AuthStatus", "UserGet", "UserList", "RoleGet", "RoleList"];
    path.strip_prefix("/etcdserverpb.Auth/").is_some_and(|name| !READS.contains(&name))
}
