//! The gRPC proxy: many clients of the v3 API on few connections, watches and renewals to the cluster.
//!
//! [`start`] is given sockets and serves until it is told to stop. What can be shared between clients is shared: watches
//! (`watch`), renewals of leases (`lease`), answers that may be stale (`cache`). Everything else is passed on as the
//! bytes it came in (`upstream`), whatever it says.
//!
//! Invariants: every call carries the token of its client, and nobody is answered from what another user was told; what is
//! kept for clients is bounded in number and bytes; nothing here has to be restarted when the whole cluster was away.

mod cache;
mod cluster;
mod front;
mod http;
mod identity;
mod kv;
mod lease;
mod namespace;
mod rounds;
mod upstream;
mod watch;

use std::{io, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::http::Plain;
use crate::{
    api::{
        Accept, Accepted, Keepalive,
        wire::{Prefixed, Protocol, begun_within, serve_http2},
    },
    client,
    proxy::endpoints::{Endpoint, Endpoints, Recovery},
    tls::Dialler,
    types::{GRPC_OVERHEAD_BYTES, REQUEST_BYTES_MAX_DEFAULT},
};
use cache::Cache;
use cluster::Registration;
use front::Front;
use kv::Kv;
use lease::Leases;
use namespace::Namespace;
use upstream::Upstream;
use watch::Watches;

/// How an endpoint that failed comes back: the next call is the test.
pub const RECOVERY: Recovery = Recovery::AfterWait(Duration::from_millis(250));
/// Time a client has to send the head of a request, the first one included.
const HEAD_PATIENCE: Duration = Duration::from_mins(5);
/// How long accepting pauses after the system refused it for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long running calls may take to end.
const DRAIN: Duration = Duration::from_millis(700);

/// What one proxy is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Keys of clients begin with this, and clients never see it.
    pub namespace: String,
    /// The address clients reach this proxy at; empty if it is not to be told.
    pub advertised: String,
    /// Where proxies register; empty for none.
    pub resolver_prefix: String,
    /// How long a registration outlives its proxy.
    pub resolver_ttl: Duration,
    /// This host's name, as it is registered.
    pub host: String,
    /// Longest message of a client, in bytes.
    pub request_bytes_max: usize,
    /// Most calls at a time on one connection.
    pub concurrent_streams_max: u32,
    /// Most connections of clients at a time; further ones wait until one ends.
    pub connections_max: usize,
    /// Rules for pings.
    pub keepalive: Keepalive,
    /// How to dial the cluster. Its endpoints are those of the pool.
    pub client: client::Options,
    /// How to dial the proxy itself, if its listener is encrypted.
    pub own_tls: Option<Dialler>,
    /// How often the endpoints become what the cluster says its members are; `None` for never.
    pub sync_interval: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            advertised: String::new(),
            resolver_prefix: String::new(),
            resolver_ttl: Duration::ZERO,
            host: String::new(),
            request_bytes_max: REQUEST_BYTES_MAX_DEFAULT + GRPC_OVERHEAD_BYTES,
            concurrent_streams_max: u32::MAX,
            connections_max: 16_384,
            keepalive: Keepalive::default(),
            client: client::Options { dial_timeout: Duration::from_secs(5), ..client::Options::default() },
            own_tls: None,
            sync_interval: None,
        }
    }
}

/// A proxy that serves.
#[derive(Clone, Debug)]
pub struct Proxy {
    front: Arc<Front>,
    places: Arc<Semaphore>,
    running: TaskTracker,
    stop: CancellationToken,
}

/// Starts a proxy in front of the cluster at `endpoints`, without any listener. Must run inside a tokio runtime.
pub fn start(endpoints: Arc<Endpoints>, options: Options, stop: CancellationToken) -> Proxy {
    let running = TaskTracker::new();
    let upstream = Upstream::new(endpoints, options.client.clone());
    let namespace = Namespace::new(&options.namespace);
    let cache = Arc::new(Cache::new(Arc::clone(upstream.identity())));
    let leases = Arc::new(Leases::start(Arc::clone(&upstream), namespace.clone(), &running, stop.clone()));
    let registration = Registration {
        advertised: options.advertised.clone(),
        prefix: options.resolver_prefix.clone(),
        ttl: options.resolver_ttl,
        host: options.host.clone(),
        namespace: options.namespace.clone(),
    };
    let front = Arc::new(Front {
        kv: Kv::new(Arc::clone(&upstream), Arc::clone(&cache), namespace.clone()),
        watches: Watches::new(Arc::clone(&upstream), cache, namespace.clone(), stop.clone()),
        leases,
        registration,
        plain: Plain::new(Arc::clone(&upstream), own(&options)),
        plain_places: Semaphore::new(front::PLAIN_ANSWERS_MAX),
        namespace,
        upstream,
        options,
    });
    let places = Arc::new(Semaphore::new(front.options.connections_max.min(Semaphore::MAX_PERMITS)));
    let registered = Arc::clone(&front);
    let stopped = stop.clone();
    running.spawn(async move {
        registered.registration.keep(&registered.upstream, &registered.leases, stopped).await;
    });
    running.spawn(follow_members(Arc::clone(&front), stop.clone()));
    Proxy { front, places, running, stop }
}

/// The way to the proxy itself.
fn own(options: &Options) -> Option<Arc<Upstream>> {
    if options.advertised.is_empty() {
        return None;
    }
    let endpoints = Endpoints::new(RECOVERY);
    endpoints.replace(&[Endpoint::new(options.advertised.clone())]);
    Some(Upstream::new(endpoints, client::Options { tls: options.own_tls.clone(), ..options.client.clone() }))
}

/// Keeps the endpoints what the cluster says its members are.
async fn follow_members(front: Arc<Front>, stop: CancellationToken) {
    let Some(interval) = front.options.sync_interval else { return };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(interval) => {}
        }
        match cluster::client_urls(&front.upstream).await {
            Ok(urls) if !urls.is_empty() => {
                if front.upstream.endpoints().replace(&urls) {
                    let urls: Vec<&str> = urls.iter().map(|url| url.address.as_str()).collect();
                    tracing::info!(endpoints = ?urls, "endpoints have changed");
                }
            }
            Ok(_) => {}
            Err(status) => tracing::warn!(message = status.message(), "cannot ask the cluster for its members"),
        }
    }
}

impl Proxy {
    /// Serves clients that come by `listener` until the proxy is told to stop.
    pub async fn serve<L: Accept>(&self, mut listener: L) {
        loop {
            let place = tokio::select! {
                () = self.stop.cancelled() => return,
                place = Arc::clone(&self.places).acquire_owned() => place,
            };
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(ready) => {
                    let proxy = self.clone();
                    self.running.spawn(async move {
                        proxy.connection(ready).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits for what is under way after the proxy was told to stop, within bounds.
    pub async fn drained(&self) {
        self.running.close();
        // Whoever has not ended by then is cut off.
        drop(timeout(DRAIN, self.running.wait()).await);
    }

    async fn connection<I, R>(&self, ready: R)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        R: Future<Output = io::Result<Accepted<I>>>,
    {
        let started = async {
            let Accepted { io, http2, .. } = ready.await?;
            begun_within(HEAD_PATIENCE, io, http2).await
        };
        let started = tokio::select! {
            started = started => started,
            () = self.stop.cancelled() => return,
        };
        // A client that says nothing, breaks off or speaks nonsense harms nobody but itself.
        let ended = match started {
            Ok((Protocol::Http2, io)) => {
                let served = serve_http2(io, Arc::clone(&self.front), self.stop.clone()).await;
                served.map_err(|error| error.to_string())
            }
            Ok((Protocol::Http1, io)) => self.http1(io).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a client connection broke");
        }
    }

    async fn http1<I>(&self, io: Prefixed<I>) -> Result<(), hyper::Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = service_fn(|request| self.front.plain.answer(request));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .serve_connection(TokioIo::new(io), answer);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}
