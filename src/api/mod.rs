//! What clients talk to: the v3 gRPC services, the same as JSON, and the plain HTTP endpoints.
//!
//! [`Api`] is what all listeners of a member share. [`serve`] runs one listener: it accepts connections, tells HTTP/2
//! from HTTP/1, gRPC from the rest, and ends them when told to. Everything about agreement and state is behind
//! [`Handle`]; this module adds checks, encodings, limits and the words clients know.
//!
//! Invariants: a text or code sent to a client comes from `status` or from a [`Rejection`](crate::types::Rejection);
//! no request makes this module hold more than its own size plus a bounded piece of its answer; reads that may wait for
//! a disk run on blocking threads, except those of a few single keys.

mod audit;
mod cut;
pub mod gateway;
mod guest;
mod hot;
mod http;
mod listen;
mod options;
mod passwords;
mod room;
mod secure;
pub mod status;
mod turns;
mod v2;
mod v3;
pub(crate) mod wire;

use std::{
    net::SocketAddr,
    num::NonZero,
    sync::{Arc, OnceLock},
};

use arc_swap::{ArcSwap, Guard};
use axum::{Router, body::Body};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use guest::{Guest, GuestBody, Visit};
pub use listen::{Accept, Accepted, Ends, Source, serve};
pub use options::{AllowList, BCRYPT_COST_DEFAULT, Keepalive, Places, ServeOptions, Serves};
pub use secure::{Beside, Secure};

use crate::{
    audit::Audit,
    metrics,
    server::Handle,
    spans::Spans,
    types::{ClusterId, MemberId},
};
use audit::{Caller, Via};
use hot::Hot;
use passwords::Passwords;
use room::Room;
use status::Status;
pub(crate) use v3::{Call, decode};

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
    /// Room for long forms of the v2 API.
    forms: v2::Room,
    /// Who writes long answers of the v2 API.
    scribes: v2::Scribes,
    connections: Connections,
    /// Passwords of users of either API.
    passwords: Passwords,
    /// Users of the v2 API.
    auth: v2::auth::Auth,
    /// Connections that have become a WebSocket each.
    sockets: TaskTracker,
    /// Who else answers on the listeners of clients.
    guest: OnceLock<Box<dyn Guest>>,
    /// What most requests are about.
    hot: Hot,
    /// Who is told of every request.
    audit: OnceLock<Arc<Audit>>,
    /// Who traces calls.
    spans: OnceLock<Arc<Spans>>,
    stop: CancellationToken,
}

/// Places for connections.
#[derive(Debug)]
struct Connections {
    clients: Arc<Room>,
    peers: Arc<Room>,
    metrics: Arc<Room>,
}

impl Connections {
    fn new(places: Places) -> Self {
        let Places { clients, peers, metrics } = places;
        Self { clients: Room::new(clients), peers: Room::new(peers), metrics: Room::new(metrics) }
    }

    fn of(&self, serves: Serves) -> Arc<Room> {
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
            forms: v2::Room::default(),
            scribes: v2::Scribes::default(),
            blocking: Semaphore::new(BLOCKING_READS_PER_PROCESSOR * processors),
            connections: Connections::new(places),
            passwords: Passwords::new(options.bcrypt_cost),
            auth: v2::auth::Auth::default(),
            sockets: TaskTracker::new(),
            guest: OnceLock::new(),
            hot: Hot::default(),
            audit: OnceLock::new(),
            spans: OnceLock::new(),
            options: ArcSwap::from_pointee(options),
            stop,
        })
    }

    /// Lets `guest` answer what this API has no answer to, on listeners that begin from now on. There is one at most: a
    /// second one is not let in.
    pub fn set_guest(&self, guest: Box<dyn Guest>) {
        drop(self.guest.set(guest));
    }

    /// Tells `audit` of every request, on listeners that begin from now on. There is one at most.
    pub fn set_audit(&self, audit: Arc<Audit>) {
        drop(self.audit.set(audit));
    }

    /// Lets `spans` trace calls that begin from now on. There is one at most.
    pub fn set_spans(&self, spans: Arc<Spans>) {
        drop(self.spans.set(spans));
    }

    /// Whoever rotates logs has put another file in the place of the audit log.
    pub fn reopen_audit(&self) {
        if let Some(audit) = self.audit.get() {
            audit.reopen();
        }
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

/// The common name of the certificate that the client of a request has shown.
#[derive(Clone, Debug)]
struct CommonName(Arc<str>);

/// The other end of the connection that a request came on, where anybody wants to know.
#[derive(Clone, Copy, Debug)]
struct Remote(SocketAddr);

/// This end of it.
#[derive(Clone, Copy, Debug)]
struct Local(SocketAddr);

/// What one listener serves, and with what.
struct Service {
    api: Arc<Api>,
    serves: Serves,
    router: Router,
    /// The addresses of the connection, if it has any.
    ends: Ends,
    /// The common name of the certificate that the client has shown.
    common_name: Option<Arc<str>>,
}

impl Service {
    fn new(api: Arc<Api>, serves: Serves, secure: bool) -> Arc<Self> {
        let router = http::router(&api, serves, secure);
        Arc::new(Self { api, serves, router, ends: Ends::default(), common_name: None })
    }

    /// The service as one connection has it: whoever tells of a call tells whose it was, and a certificate may name a user.
    fn of_client(self: Arc<Self>, ends: Ends, common_name: Option<Arc<str>>) -> Arc<Self> {
        if ends.from.is_none() && common_name.is_none() {
            return self;
        }
        let (api, router) = (Arc::clone(&self.api), self.router.clone());
        Arc::new(Self { api, serves: self.serves, router, ends, common_name })
    }

    /// Who is at the other end.
    fn caller(&self) -> Caller {
        let Ends { from, at } = self.ends;
        Caller { from, at, common_name: self.common_name.clone(), via: Via::Grpc }
    }

    /// Answers a request that is not gRPC.
    async fn http(&self, mut request: ::http::Request<Body>) -> axum::response::Response {
        if let Some(from) = self.ends.from {
            request.extensions_mut().insert(Remote(from));
        }
        if let Some(at) = self.ends.at {
            request.extensions_mut().insert(Local(at));
        }
        if let Some(name) = &self.common_name {
            request.extensions_mut().insert(CommonName(Arc::clone(name)));
        }
        let response = match tower::ServiceExt::oneshot(self.router.clone(), request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        metrics::HTTP_RESPONSES.with([response.status().as_str(), self.serves.endpoint()]).inc();
        response
    }
}
