//! What clients talk to: the v3 gRPC services, the same as JSON, and the plain HTTP endpoints.
//!
//! [`Api`] is what all listeners of a member share. [`serve`] runs one listener: it accepts connections, tells HTTP/2
//! from HTTP/1, gRPC from the rest, and ends them when told to. Everything about agreement and state is behind
//! [`Handle`]; this module adds checks, encodings, limits and the words clients know.
//!
//! Invariants: a text or code sent to a client comes from `status` or from a [`Rejection`](crate::types::Rejection);
//! no request makes this module hold more than its own size plus a bounded piece of its answer; reads that may wait for
//! a disk run on blocking threads, except those of a few single keys.

pub mod gateway;
mod http;
mod listen;
mod options;
pub mod status;
mod v3;
mod wire;

use std::{num::NonZero, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use axum::{Router, body::Body};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use listen::{Accept, Accepted, serve};
pub use options::{AllowList, Keepalive, Places, ServeOptions, Serves};

use crate::{
    server::Handle,
    types::{ClusterId, MemberId},
};
use status::Status;

/// Reads that may block at a time for each processor; further ones wait their turn without holding anything. More than one,
/// because some wait for a disk; few, because the others only take the processors from one another.
const BLOCKING_READS_PER_PROCESSOR: usize = 4;

/// The client API of one member, shared by all its listeners.
#[derive(Debug)]
pub struct Api {
    server: Handle,
    options: ArcSwap<ServeOptions>,
    identity: Identity,
    blocking: Semaphore,
    /// Calls in JSON at a time; another one after a change of `max-concurrent-streams`.
    gateway: ArcSwap<Semaphore>,
    connections: Connections,
    /// Connections that have become a WebSocket each.
    sockets: TaskTracker,
    stop: CancellationToken,
}

/// Places for connections.
#[derive(Debug)]
struct Connections {
    clients: Arc<Semaphore>,
    peers: Arc<Semaphore>,
    metrics: Arc<Semaphore>,
}

impl Connections {
    fn new(places: Places) -> Self {
        let room = |places: usize| Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { clients: room(places.clients), peers: room(places.peers), metrics: room(places.metrics) }
    }

    fn of(&self, serves: Serves) -> Arc<Semaphore> {
        Arc::clone(match serves {
            Serves::Everything | Serves::Grpc | Serves::Http => &self.clients,
            Serves::Metrics => &self.metrics,
            Serves::Peers => &self.peers,
        })
    }
}

/// Who answers; it never changes while the member runs.
#[derive(Clone, Copy, Debug)]
struct Identity {
    cluster: ClusterId,
    member: MemberId,
}

impl Api {
    /// The API in front of `server`; once `stop` is cancelled, streams end and no connection is accepted.
    pub fn new(server: Handle, options: ServeOptions, places: Places, stop: CancellationToken) -> Arc<Self> {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Arc::new(Self {
            identity: Identity { cluster: server.cluster_id(), member: server.member_id() },
            server,
            gateway: ArcSwap::from_pointee(json_calls(&options)),
            options: ArcSwap::from_pointee(options),
            blocking: Semaphore::new(BLOCKING_READS_PER_PROCESSOR * processors),
            connections: Connections::new(places),
            sockets: TaskTracker::new(),
            stop,
        })
    }

    /// The member behind it.
    pub fn server(&self) -> &Handle {
        &self.server
    }

    /// Hold it for a moment only, and over no wait.
    fn options(&self) -> Guard<Arc<ServeOptions>> {
        self.options.load()
    }

    /// Calls that begin from now on follow `options`, and so do the streams of connections that do; whether there is a
    /// gateway was decided when the listeners began.
    pub fn set_options(&self, options: ServeOptions) {
        if options.concurrent_streams_max != self.options().concurrent_streams_max {
            self.gateway.store(Arc::new(json_calls(&options)));
        }
        self.options.store(Arc::new(options));
    }

    /// Waits for a turn among the calls in JSON.
    async fn json_turn(&self) -> Result<OwnedSemaphorePermit, Status> {
        let turns = self.gateway.load_full();
        turns.acquire_owned().await.map_err(|closed| Status::unknown(closed.to_string()))
    }

    fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether this member is a learner, as the member list says.
    fn is_learner(&self) -> bool {
        self.server.published().cluster.member(self.identity.member).is_some_and(|member| member.is_learner)
    }

    /// Resolves when the member shuts down.
    async fn stopping(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.server.stopped() => {}
        }
    }

    /// Runs work that may wait for a disk on a thread that may wait.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
        let _permit = self.blocking.acquire().await.map_err(|closed| Status::unknown(closed.to_string()))?;
        tokio::task::spawn_blocking(work).await.map_err(|panic| Status::unknown(panic.to_string()))
    }
}

/// Turns for as many calls in JSON at a time as one connection may have streams.
fn json_calls(options: &ServeOptions) -> Semaphore {
    let calls = usize::try_from(options.concurrent_streams_max).unwrap_or(Semaphore::MAX_PERMITS);
    Semaphore::new(calls.min(Semaphore::MAX_PERMITS))
}

/// What one listener serves, and with what.
struct Service {
    api: Arc<Api>,
    serves: Serves,
    router: Router,
}

impl Service {
    fn new(api: Arc<Api>, serves: Serves, secure: bool) -> Arc<Self> {
        let router = http::router(&api, serves, secure);
        Arc::new(Self { api, serves, router })
    }

    /// Answers a request that is not gRPC.
    async fn http(&self, request: ::http::Request<Body>) -> axum::response::Response {
        match tower::ServiceExt::oneshot(self.router.clone(), request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
