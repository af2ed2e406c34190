//! Listeners and their connections.

use std::{io, sync::Arc, time::Duration};

use axum::body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::clock::Stopwatch;

use super::{
    Api, Serves, Service,
    wire::{Impatient, Prefixed, Protocol, serve_http2, sniff},
};

/// Time a client has to send the head of a request, the first one included.
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
}

/// Where connections come from.
pub trait Accept: Send {
    /// What is read and written.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Makes a connection ready (a TLS handshake, for one). Runs beside other connections.
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
        let (io, _) = TcpListener::accept(self).await?;
        // Both settings are improvements; a socket that refuses them still works.
        if let Err(error) = io.set_nodelay(true).and(setsockopt(&io, sockopt::KeepAlive, &true).map_err(Into::into)) {
            tracing::debug!(%error, "cannot tune a client connection");
        }
        Ok(std::future::ready(Ok(Accepted { io, http2: None })))
    }
}

impl Accept for UnixListener {
    type Io = UnixStream;
    type Ready = std::future::Ready<io::Result<Accepted<UnixStream>>>;

    async fn accept(&mut self) -> io::Result<Self::Ready> {
        let (io, _) = UnixListener::accept(self).await?;
        Ok(std::future::ready(Ok(Accepted { io, http2: None })))
    }
}

/// Serves one listener until `stop` is cancelled; then waits for running calls as long as a request may take and cuts
/// off the rest. As long as the member has no place for another connection, none is accepted: it waits in the system's
/// queue.
pub async fn serve<L: Accept>(mut listener: L, api: Arc<Api>, serves: Serves, secure: bool, stop: CancellationToken) {
    let service = Service::new(Arc::clone(&api), serves, secure);
    let places = api.connections.of(serves);
    let mut connections = JoinSet::new();
    let mut warned: Option<Stopwatch> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            ended = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = next(&mut listener, &places) => match accepted {
                Ok((place, ready)) => {
                    let running = connection(ready, Arc::clone(&service), stop.clone());
                    connections.spawn(async move {
                        running.await;
                        drop(place);
                    });
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
    drop(listener);
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

/// The next connection, once there is a place for it.
async fn next<L: Accept>(listener: &mut L, places: &Arc<Semaphore>) -> io::Result<(OwnedSemaphorePermit, L::Ready)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    Ok((place, listener.accept().await?))
}

/// A panic in a connection is a defect; it ends that connection alone.
fn report(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended {
        tracing::error!(%error, "a client connection ended by a defect of this program");
    }
}

async fn connection<I, R>(ready: R, service: Arc<Service>, stop: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Future<Output = io::Result<Accepted<I>>>,
{
    let patience = service.patience();
    let started = timeout(patience, async {
        let Accepted { io, http2 } = ready.await?;
        let io = Impatient::new(io, service.is_for_peers().then_some(PEER_PATIENCE));
        match http2 {
            Some(true) => Ok((Protocol::Http2, Prefixed::untouched(io))),
            Some(false) => Ok((Protocol::Http1, Prefixed::untouched(io))),
            None => sniff(io).await,
        }
    });
    let started = tokio::select! {
        started = started => started,
        () = stop.cancelled() => return,
    };
    // A client that says nothing, breaks off or speaks nonsense harms nobody but itself.
    let ended = match started {
        Ok(Ok((Protocol::Http2, io))) => serve_http2(io, service, stop).await.map_err(|error| error.to_string()),
        Ok(Ok((Protocol::Http1, io))) => serve_http1(io, service, stop).await.map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(elapsed) => Err(elapsed.to_string()),
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a client connection broke");
    }
}

impl Service {
    fn is_for_peers(&self) -> bool {
        self.serves == Serves::Peers
    }

    /// How long the other side may take for the head of a request.
    fn patience(&self) -> Duration {
        if self.is_for_peers() { PEER_PATIENCE } else { HEAD_PATIENCE }
    }
}

async fn serve_http1<I>(io: Prefixed<I>, service: Arc<Service>, stop: CancellationToken) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if service.serves == Serves::Grpc {
        return Ok(());
    }
    let answer = service_fn(|request: hyper::Request<Incoming>| {
        let service = Arc::clone(&service);
        async move { Ok::<_, std::convert::Infallible>(service.http(request.map(Body::new)).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(service.patience())
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(io), answer)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
