//! gRPC passed through as HTTP/2: calls, streams and their ends, whatever the messages in them mean.
//!
//! A client's connection has one connection to one member behind it, made when the first call comes and made anew, to the
//! next member in turn, when that one is lost. So windows, resets and the death of a member touch the client they belong to
//! and nobody else. A call that was not sent goes to another member; one that was sent and lost ends with *unavailable*,
//! which clients know how to take.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::JoinSet;

use super::{
    Node,
    answer::{self, GrpcCode},
    body::{self, Body, Broken},
    forward::causes,
};
use crate::{config::ProxyMode, proxy::endpoints::Endpoint};

/// How often a call that was not sent is tried on a new connection.
const ATTEMPTS_MAX: usize = 4;
/// How often a member with calls under way is asked whether it is there. Members refuse to be asked more often than every
/// 5 s, or than an operator has told them.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long it has for the answer.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// Calls that change nothing: what a read-only proxy lets through.
const READS: [&str; 13] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/RangeStream",
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Maintenance/Snapshot",
    "/etcdserverpb.Auth/Authenticate",
    "/etcdserverpb.Auth/AuthStatus",
    "/v3electionpb.Election/Leader",
];
/// Services all of whose calls change nothing.
const READ_SERVICES: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// The connection to a member behind one client's connection.
#[derive(Debug)]
pub(super) struct Link {
    node: Arc<Node>,
    open: tokio::sync::Mutex<Option<Open>>,
    /// Moves the connections; ends with the client's.
    driving: Mutex<JoinSet<()>>,
}

#[derive(Clone, Debug)]
struct Open {
    endpoint: Arc<Endpoint>,
    requests: http2::SendRequest<Body>,
}

impl Link {
    /// None yet.
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node, open: tokio::sync::Mutex::new(None), driving: Mutex::default() }
    }

    /// Answers one call with what a member answers.
    ///
    /// # Errors
    /// A stream that the member reset; the client's is reset alike.
    pub(super) async fn call(&self, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
        if self.node.options().mode == ProxyMode::ReadOnly && !is_read(request.uri().path()) {
            return Ok(answer::grpc(GrpcCode::Unimplemented, "this proxy is read-only: write through another one"));
        }
        let mut request = request.map(body::passed);
        for _ in 0..ATTEMPTS_MAX {
            let Some(mut open) = self.open().await else { break };
            name_authority(request.uri_mut(), &open.endpoint);
            let mut failure = match open.requests.try_send_request(request).await {
                Ok(response) => return Ok(relayed(response, &open.endpoint)),
                Err(failure) => failure,
            };
            match failure.take_message() {
                Some(unsent) => request = unsent,
                None if is_reset(failure.error()) => return Err(failure.into_error().into()),
                None => return Ok(answer::grpc(GrpcCode::Unavailable, &lost(&open.endpoint, failure.error()))),
            }
            self.close(&open).await;
        }
        let count = self.node.endpoints().all().len();
        let message = format!("httpproxy: unable to get response from {count} endpoint(s)");
        Ok(answer::grpc(GrpcCode::Unavailable, &message))
    }

    /// The connection, made if need be; nothing if no member can be reached. Whoever calls meanwhile waits for the same.
    async fn open(&self) -> Option<Open> {
        let mut slot = self.open.lock().await;
        if let Some(open) = slot.as_ref().filter(|open| !open.requests.is_closed()) {
            return Some(open.clone());
        }
        // Once around: with a short failure wait the first may be tried again for ever.
        for _ in 0..self.node.endpoints().all().len() {
            let endpoint = self.node.endpoints().pick()?;
            match self.connect(&endpoint).await {
                Ok(requests) => {
                    self.node.endpoints().report_reached(&endpoint);
                    let open = Open { endpoint, requests };
                    *slot = Some(open.clone());
                    return Some(open);
                }
                Err(error) => self.node.endpoints().report_failed(&endpoint, &causes(&error)),
            }
        }
        None
    }

    async fn connect(&self, endpoint: &Endpoint) -> io::Result<http2::SendRequest<Body>> {
        let io = TokioIo::new(self.node.dial(&endpoint.address).await?);
        let window = self.node.room.window();
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(window.stream())
            .initial_connection_window_size(window.connection())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_PATIENCE)
            .handshake(io);
        let (requests, connection) = handshake.await.map_err(io::Error::other)?;
        let mut driving = self.driving.lock().unwrap_or_else(PoisonError::into_inner);
        while driving.try_join_next().is_some() {}
        driving.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = causes(&error), "a connection to a member broke");
            }
            drop(window);
        });
        Ok(requests)
    }

    /// Gives up a connection that takes no calls, unless somebody has made another one already.
    async fn close(&self, lost: &Open) {
        let mut slot = self.open.lock().await;
        if slot.as_ref().is_some_and(|open| Arc::ptr_eq(&open.endpoint, &lost.endpoint) && open.requests.is_closed()) {
            *slot = None;
        }
    }
}

/// HTTP/2 wants every request to name a host. One that names none gets the member's.
fn name_authority(uri: &mut Uri, endpoint: &Endpoint) {
    if uri.authority().is_some() && uri.scheme().is_some() {
        return;
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if let Ok(whole) = format!("{}{path}", endpoint.address).parse() {
        *uri = whole;
    }
}

/// Whether a call changes nothing.
fn is_read(path: &str) -> bool {
    READS.contains(&path) || READ_SERVICES.iter().any(|service| path.starts_with(service))
}

/// Whether the member ended this stream alone.
fn is_reset(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_reset() && cause.is_remote())
}

fn lost(endpoint: &Endpoint, error: &hyper::Error) -> String {
    format!("httpproxy: the connection to {} was lost: {}", endpoint.address, causes(error))
}

/// The member's answer, piece by piece as it comes.
fn relayed(response: Response<Incoming>, endpoint: &Arc<Endpoint>) -> Response<Body> {
    let endpoint = Arc::clone(endpoint);
    response.map(|body| Relayed { body, endpoint, has_ended: false }.boxed_unsync())
}

/// The body of an answer. Where the connection to the member is lost it ends with *unavailable* instead of breaking off.
struct Relayed {
    body: Incoming,
    endpoint: Arc<Endpoint>,
    has_ended: bool,
}

impl http_body::Body for Relayed {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let Some(frame) = std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(match frame {
            Ok(frame) => Ok(frame),
            Err(error) => {
                self.has_ended = true;
                if is_reset(&error) {
                    Err(error.into())
                } else {
                    let message = lost(&self.endpoint, &error);
                    Ok(Frame::trailers(answer::grpc_trailers(GrpcCode::Unavailable, &message)))
                }
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_proxy_knows_what_changes_nothing() {
        for path in ["/etcdserverpb.KV/Range", "/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/X"]
        {
            assert!(is_read(path), "{path}");
        }
        for path in ["/etcdserverpb.KV/Put", "/etcdserverpb.KV/Txn", "/etcdserverpb.Lease/LeaseGrant", "/"] {
            assert!(!is_read(path), "{path}");
        }
    }
}
