//! The local node: etcd's v2 HTTP proxy, which passes v3 through as well, so that a machine's own `127.0.0.1:2379` is all
//! that its clients need to know.
//!
//! HTTP/1 requests (v2, the JSON gateway, everything else) go to a member one by one (`forward`); gRPC is passed through
//! as HTTP/2 (`grpc`); `/health`, `/metrics` and `/v2/config/local/proxy` are the node's own (`local`). Texts and codes
//! are those of etcd's proxy.
//!
//! Invariants: nothing is held of a body but what is under way, and of a request at most what is needed to send it again, and
//! both only as long as there is room (`room`); a
//! client that goes takes its request at the member with it; an event of a watch is handed on when it comes.

mod answer;
mod body;
mod forward;
mod grpc;
mod headers;
mod local;
mod room;
mod serve;

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header::ORIGIN};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::sync::Semaphore;

use super::{
    dial::{self, Io},
    endpoints::{Endpoints, Recovery},
    timed::Timed,
};
use crate::{
    config::{Allowed, Ping, ProxyMode},
    tls::{Dialler, Protocol},
};
use body::{Body, Broken};
use grpc::Link;
use room::Room;
pub use serve::{Encryption, serve};

/// Idle connections kept to one member (etcd's number).
const IDLE_CONNECTIONS_MAX: usize = 128;
/// How long they are kept.
const IDLE_TIME: Duration = Duration::from_secs(90);
/// Connections to listeners of metrics alone: scrapers and probes are few.
const METRICS_CONNECTIONS_MAX: usize = 64;
/// Lines in the head of an answer.
const HEADERS_MAX: usize = 500;

/// What one listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// v2, v3 and what the node says of itself: `listen-client-urls`, `listen-client-http-urls`.
    Everything,
    /// `/metrics` and `/health` alone: `listen-metrics-urls`.
    Metrics,
}

/// Everything about the node that is configured.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Whether writes pass.
    pub mode: ProxyMode,
    /// How long a member that failed is left alone (`proxy-failure-wait`).
    pub failure_wait: Duration,
    /// Time to connect to a member (`proxy-dial-timeout`).
    pub dial_timeout: Duration,
    /// Time for each write to a member (`proxy-write-timeout`); zero for none.
    pub write_timeout: Duration,
    /// Time for each read from a member outside gRPC (`proxy-read-timeout`); zero for none.
    pub read_timeout: Duration,
    /// Origins browsers may call from (`cors`).
    pub cors: Allowed,
    /// Most calls at a time on one HTTP/2 connection (`max-concurrent-streams`).
    pub concurrent_streams_max: u32,
    /// The node's own pings to its clients, if it sends any.
    pub ping: Option<Ping>,
    /// The version of etcd that is imitated.
    pub version: &'static str,
}

/// One node, shared by all its listeners.
#[derive(Debug)]
pub struct Node {
    endpoints: Arc<Endpoints>,
    dial: Arc<Dialling>,
    client: Client<Connector, Body>,
    room: Room,
    clients: Arc<Semaphore>,
    scrapers: Arc<Semaphore>,
}

/// How members are dialled, by options that may change.
#[derive(Debug)]
struct Dialling {
    options: ArcSwap<NodeOptions>,
    tls: Dialler,
    own: Arc<[SocketAddr]>,
}

impl Node {
    /// Between clients and `endpoints`, for at most `connections_max` clients at a time. `tls` dials members that want it,
    /// `own` is where the node listens.
    pub fn new(
        endpoints: Arc<Endpoints>,
        options: NodeOptions,
        tls: Dialler,
        own: Vec<SocketAddr>,
        connections_max: usize,
    ) -> Arc<Self> {
        endpoints.set_recovery(Recovery::AfterWait(options.failure_wait));
        let dial = Arc::new(Dialling { options: ArcSwap::from_pointee(options), tls, own: own.into() });
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_headers(HEADERS_MAX)
            .http1_title_case_headers(true)
            .build(Connector(Arc::clone(&dial)));
        let clients = Arc::new(Semaphore::new(connections_max.clamp(1, Semaphore::MAX_PERMITS)));
        let scrapers = Arc::new(Semaphore::new(METRICS_CONNECTIONS_MAX));
        Arc::new(Self { endpoints, dial, client, room: Room::default(), clients, scrapers })
    }

    /// Takes over new options; connections keep those of their begin.
    pub fn set_options(&self, options: NodeOptions) {
        self.endpoints.set_recovery(Recovery::AfterWait(options.failure_wait));
        self.dial.options.store(Arc::new(options));
    }

    /// What is configured now.
    fn options(&self) -> Guard<Arc<NodeOptions>> {
        self.dial.options.load()
    }

    fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    fn places(&self, serves: Serves) -> &Arc<Semaphore> {
        match serves {
            Serves::Everything => &self.clients,
            Serves::Metrics => &self.scrapers,
        }
    }

    /// Sends a request whose URI is a member's.
    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        self.client.request(request).await
    }

    /// A connection for HTTP/2 to a member's URL; it may be silent for ever.
    async fn dial(&self, url: &str) -> io::Result<Timed<Box<dyn Io>>> {
        let url = url.parse().map_err(io::Error::other)?;
        self.dial.dial(&url, Protocol::Http2, Duration::ZERO).await
    }

    /// Answers one request.
    async fn answer(
        &self,
        request: Request<Incoming>,
        client: Option<IpAddr>,
        link: &Link,
    ) -> Result<Response<Body>, Broken> {
        if headers::is_grpc(request.headers()) && request.method() == Method::POST {
            return link.call(request).await;
        }
        if self.options().mode == ProxyMode::ReadOnly && request.method() != Method::GET {
            return Ok(answer::empty(StatusCode::NOT_IMPLEMENTED));
        }
        let cors = cors(&self.options().cors, request.headers());
        let mut response = match *request.method() {
            Method::OPTIONS => answer::empty(StatusCode::OK),
            Method::CONNECT => answer::not_allowed(),
            _ => self.answer_plain(request, client).await,
        };
        response.headers_mut().extend(cors);
        Ok(response)
    }

    async fn answer_plain(&self, request: Request<Incoming>, client: Option<IpAddr>) -> Response<Body> {
        let is_get = request.method() == Method::GET;
        match request.uri().path() {
            "/metrics" => local::metrics(),
            "/v2/config/local/proxy" if is_get => local::endpoints(self),
            "/v2/config/local/proxy" => answer::not_allowed(),
            "/health" => self.answer_monitoring(&request).await,
            "/version" if is_get && self.endpoints.available().is_empty() => local::version(self),
            _ => forward::forward(self, request, client).await,
        }
    }

    /// Answers on a listener of metrics alone.
    async fn answer_monitoring<B>(&self, request: &Request<B>) -> Response<Body> {
        match (request.uri().path(), request.method()) {
            ("/metrics", _) => local::metrics(),
            ("/health", &Method::GET) => {
                local::health(self, request.uri().path_and_query().map_or("/health", |path| path.as_str())).await
            }
            ("/health", _) => answer::not_allowed(),
            _ => answer::of_type(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".to_owned()),
        }
    }
}

/// What tells a browser whether it may see the answer, as members do.
fn cors(allowed: &Allowed, headers: &HeaderMap) -> HeaderMap {
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    let told = match allowed {
        Allowed::Any => "*",
        Allowed::Only(_) if !origin.is_empty() && allowed.contains(origin) => origin,
        Allowed::Only(_) => return HeaderMap::new(),
    };
    let pairs = [
        ("access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE"),
        ("access-control-allow-origin", told),
        ("access-control-allow-headers", "accept, content-type, authorization"),
    ];
    pairs
        .into_iter()
        .filter_map(|(key, value)| Some((HeaderName::from_static(key), HeaderValue::from_str(value).ok()?)))
        .collect()
}

impl Dialling {
    async fn dial(&self, url: &Uri, protocol: Protocol, read: Duration) -> io::Result<Timed<Box<dyn Io>>> {
        let options = self.options.load_full();
        let dialler = dial::Dialler { patience: options.dial_timeout, own: Arc::clone(&self.own) };
        Ok(Timed::new(dialler.dial_url(url, &self.tls, protocol).await?, read, options.write_timeout))
    }
}

/// Makes the connections that HTTP/1 requests share.
#[derive(Clone, Debug)]
struct Connector(Arc<Dialling>);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Timed<Box<dyn Io>>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let dial = Arc::clone(&self.0);
        Box::pin(async move {
            let read = dial.options.load().read_timeout;
            dial.dial(&url, Protocol::Unnamed, read).await.map(TokioIo::new)
        })
    }
}

impl Connection for Timed<Box<dyn Io>> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_hear_what_members_would_tell_them() {
        let mut headers = HeaderMap::new();
        assert_eq!(cors(&Allowed::Any, &headers)["access-control-allow-origin"], "*");
        let one = Allowed::Only(vec!["http://a".to_owned()]);
        assert!(cors(&one, &headers).is_empty());
        headers.insert(ORIGIN, HeaderValue::from_static("http://a"));
        assert_eq!(cors(&one, &headers)["access-control-allow-origin"], "http://a");
        headers.insert(ORIGIN, HeaderValue::from_static("http://b"));
        assert!(cors(&one, &headers).is_empty());
    }
}
