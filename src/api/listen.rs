//! Listeners and their connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::header::UPGRADE;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, OwnedSemaphorePermit},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::clock::Stopwatch;

use super::{
    Api, Serves, Service,
    cut::Cut,
    options::Keepalive,
    room::{Room, Seat},
    wire::{Http2Service, Impatient, Prefixed, Protocol, begun_within, serve_http2, watched},
};

/// Time a client has to send the head of a request, the first one included; gRPC's on HTTP/2 may connect ahead of time.
const HEAD_PATIENCE: Duration = Duration::from_mins(5);
/// Lines in the head of an HTTP/1 request. etcd limits their bytes alone; so many are room for any chain of proxies.
const HEADERS_MAX: usize = 500;
/// How long a peer may keep this member waiting for its bytes, or leave this member's bytes untaken (etcd's limit). An
/// answer that goes on for ever is no wait.
const PEER_PATIENCE: Duration = Duration::from_secs(5);
/// How long accepting pauses after the system refused it for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// So often at most the log says that connections are refused.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(30);

/// A connection, ready for its first request.
#[derive(Debug)]
pub struct Accepted<I> {
    /// The bytes.
    pub io: I,
    /// Whether both sides have agreed on HTTP/2 or HTTP/1 (by ALPN); unknown on plain-text connections.
    pub http2: Option<bool>,
    /// Whether it is encrypted.
    pub secure: bool,
    /// The other end; nothing on a socket file.
    pub from: Option<SocketAddr>,
    /// This end; nothing on a socket file.
    pub at: Option<SocketAddr>,
    /// The common name of the certificate that the other end has shown and that was verified; empty if it has none.
    pub common_name: Option<Arc<str>>,
}

/// Where connections come from.
pub trait Accept: Send {
    /// What is read and written.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Makes a connection ready (a TLS handshake, for one) and takes no longer than it should. Runs beside other
    /// connections.
    type Ready: Future<Output = io::Result<Accepted<Self::Io>>> + Send + 'static;

    /// Waits for the next connection.
    ///
    /// # Errors
    /// What accepting failed with; it is tried again.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Ready>> + Send;
}

impl Accept for TcpListener {
    type Io = TcpStream;
    type Ready = std::future::Ready<io::Result<Accepted<TcpStream>>>;

    async fn accept(&mut self) -> io::Result<Self::Ready> {
        let (io, Ends { from, at }) = self.next().await?;
        Ok(std::future::ready(Ok(Accepted { io, http2: None, secure: false, from, at, common_name: None })))
    }
}

/// The addresses of a connection; none of a socket file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// Of the other end.
    pub from: Option<SocketAddr>,
    /// Of this one.
    pub at: Option<SocketAddr>,
}

/// Where connections come from before anything is said on them.
pub trait Source: Send {
    /// What is read and written.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and its addresses.
    ///
    /// # Errors
    /// What accepting failed with.
    fn next(&mut self) -> impl Future<Output = io::Result<(Self::Io, Ends)>> + Send;
}

impl Source for TcpListener {
    type Io = TcpStream;

    async fn next(&mut self) -> io::Result<(TcpStream, Ends)> {
        let (io, remote) = TcpListener::accept(self).await?;
        // Both settings are improvements; a socket that refuses them still works.
        if let Err(error) = io.set_nodelay(true).and(setsockopt(&io, sockopt::KeepAlive, &true).map_err(Into::into)) {
            tracing::debug!(%error, "cannot tune a client connection");
        }
        let ends = Ends { from: Some(remote), at: io.local_addr().ok() };
        Ok((io, ends))
    }
}

impl Source for UnixListener {
    type Io = UnixStream;

    async fn next(&mut self) -> io::Result<(UnixStream, Ends)> {
        let (io, _) = UnixListener::accept(self).await?;
        Ok((io, Ends::default()))
    }
}

impl Accept for UnixListener {
    type Io = UnixStream;
    type Ready = std::future::Ready<io::Result<Accepted<UnixStream>>>;

    async fn accept(&mut self) -> io::Result<Self::Ready> {
        let (io, Ends { from, at }) = self.next().await?;
        Ok(std::future::ready(Ok(Accepted { io, http2: None, secure: false, from, at, common_name: None })))
    }
}

/// Serves one listener until `stop` is cancelled; then waits for running calls as long as a request may take and cuts
/// off the rest. As long as the member has no place for another connection and none gives way, one waits at the door and
/// the others in the system's queue.
pub async fn serve<L: Accept>(listener: L, api: Arc<Api>, serves: Serves, stop: CancellationToken) {
    let services = Arc::new(Services::new(&api, serves));
    let room = api.connections.of(serves);
    let mut door = Door { listener, room: Arc::clone(&room), waiting: None };
    let mut connections = JoinSet::new();
    let mut warned: Option<Stopwatch> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            ended = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = door.next() => match accepted {
                Ok((place, ready)) => {
                    connections.spawn(connection(ready, Arc::clone(&services), room.seat(place), stop.clone()));
                }
                Err(error) => {
                    if warned.as_ref().is_none_or(|since| since.elapsed() > REFUSAL_INTERVAL) {
                        warned = Some(Stopwatch::start());
                        tracing::warn!(%error, ?serves, "cannot accept connections; they wait");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(door);
    if serves == Serves::Peers {
        // What peers have open never ends by itself.
        return connections.shutdown().await;
    }
    api.sockets.close();
    let drained = async {
        while connections.join_next().await.is_some() {}
        api.sockets.wait().await;
    };
    let patience = api.options().request_timeout;
    if timeout(patience, drained).await.is_err() {
        connections.shutdown().await;
    }
}

/// A listener, and the connection that has come and waits for a place: nobody has to give way to one that may never come.
struct Door<L: Accept> {
    listener: L,
    room: Arc<Room>,
    waiting: Option<L::Ready>,
}

impl<L: Accept> Door<L> {
    /// The next connection, once there is a place for it. Dropped early, it loses none.
    async fn next(&mut self) -> io::Result<(OwnedSemaphorePermit, L::Ready)> {
        if self.waiting.is_none() {
            self.waiting = Some(self.listener.accept().await?);
        }
        let place = self.room.place().await;
        place.zip(self.waiting.take()).ok_or_else(|| io::Error::other("the listeners have been closed"))
    }
}

/// A panic in a connection is a defect; it ends that connection alone.
fn report(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended {
        tracing::error!(%error, "a client connection ended by a defect of this program");
    }
}

/// What a listener serves on plain and on encrypted connections.
struct Services {
    plain: Arc<Service>,
    encrypted: Arc<Service>,
}

impl Services {
    fn new(api: &Arc<Api>, serves: Serves) -> Self {
        let of = |secure| Service::new(Arc::clone(api), serves, secure);
        Self { plain: of(false), encrypted: of(true) }
    }

    fn of(&self, secure: bool) -> Arc<Service> {
        Arc::clone(if secure { &self.encrypted } else { &self.plain })
    }
}

async fn connection<I, R>(ready: R, services: Arc<Services>, seat: Seat, stop: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Future<Output = io::Result<Accepted<I>>>,
{
    let (endpoint, seat) = (services.plain.serves.endpoint(), Arc::new(seat));
    let served = async {
        let started = tokio::select! {
            started = start(ready, &services) => started?,
            () = stop.cancelled() => return Ok(()),
        };
        match started {
            (Protocol::Http2, io, service) => {
                seat.speaks();
                let (patience, asked) = (service.patience(), service.asks_soon().then(Arc::<Notify>::default));
                let service = Arc::new(Asked { service, seat: Arc::clone(&seat), noted: asked.clone() });
                tokio::select! {
                    ended = serve_http2(io, service, stop.clone()) => ended.map_err(Cut::from),
                    () = silence(patience, asked.as_deref()) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                }
            }
            (Protocol::Http1, io, service) => {
                serve_http1(io, service, Arc::clone(&seat), stop.clone()).await.map_err(Cut::from)
            }
        }
    };
    let ended = tokio::select! {
        // First: a request that comes at the same moment must not begin and be dropped.
        biased;
        () = seat.cut() => Err(Cut::for_room()),
        ended = served => ended,
    };
    // A client that says nothing, breaks off or speaks nonsense harms nobody but itself.
    if let Err(cut) = ended {
        cut.tell(endpoint);
    }
}

/// Makes a connection ready, and finds out what is spoken on it.
async fn start<I, R>(ready: R, services: &Services) -> io::Result<(Protocol, Prefixed<Impatient<I>>, Arc<Service>)>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Future<Output = io::Result<Accepted<I>>>,
{
    let Accepted { io, http2, secure, from, at, common_name } = ready.await?;
    let service = services.of(secure).of_client(Ends { from, at }, common_name);
    let io = Impatient::new(io, service.is_for_peers().then_some(PEER_PATIENCE));
    let (protocol, io) = begun_within(service.patience(), io, http2).await?;
    Ok((protocol, io, service))
}

/// A service whose connection is silent until its first request.
struct Asked {
    service: Arc<Service>,
    seat: Arc<Seat>,
    /// Told of each request where the first one has to come soon.
    noted: Option<Arc<Notify>>,
}

/// Resolves if `asked` was not told of anything within `patience`.
async fn silence(patience: Duration, asked: Option<&Notify>) {
    let Some(asked) = asked else { return std::future::pending().await };
    if timeout(patience, asked.notified()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

impl Http2Service for Asked {
    fn limits(&self) -> (Keepalive, u32) {
        self.service.limits()
    }

    fn answer(
        self: Arc<Self>,
        request: hyper::Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.seat.end();
        if let Some(noted) = &self.noted {
            noted.notify_one();
        }
        Arc::clone(&self.service).answer(request, respond)
    }
}

impl Service {
    fn is_for_peers(&self) -> bool {
        self.serves == Serves::Peers
    }

    /// Whether nobody connects here ahead of time, as clients of gRPC do.
    fn asks_soon(&self) -> bool {
        !self.serves.grpc()
    }

    /// How long the other side may take for the head of a request.
    fn patience(&self) -> Duration {
        if self.is_for_peers() { PEER_PATIENCE } else { HEAD_PATIENCE }
    }
}

async fn serve_http1<I>(
    io: Prefixed<I>,
    service: Arc<Service>,
    seat: Arc<Seat>,
    stop: CancellationToken,
) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if service.serves == Serves::Grpc {
        return Ok(());
    }
    let answer = service_fn(|request: hyper::Request<Incoming>| {
        seat.end();
        let (service, mut request) = (Arc::clone(&service), request.map(Body::new));
        if request.headers().contains_key(UPGRADE) {
            // What comes of it may outlive this connection.
            request.extensions_mut().insert(Arc::clone(&seat));
        }
        async move { Ok::<_, std::convert::Infallible>(service.http(request).await) }
    });
    let (io, lookout) = watched(io);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(service.patience())
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(io), answer)
        .with_upgrades();
    let serving = async {
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    lookout.unless_gone(serving).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn who_speaks_http2_and_asks_nothing_is_not_waited_for_where_nobody_connects_ahead() {
        let asked = Notify::new();
        silence(SHORT, Some(&asked)).await;
        asked.notify_one();
        for asked in [Some(&asked), None] {
            assert!(timeout(SHORT * 3, silence(SHORT, asked)).await.is_err());
        }
    }
}
