//! The service on a socket of its own.

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Origin, Service};
use crate::{
    api::wire::sniff_within,
    tls::{Acceptor, words},
};

/// Time a client has for the first bytes of its connection, and then for the head of each request.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Lines in the head of a request.
const HEADERS_MAX: usize = 100;
/// Streams on one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;
/// How long connections may take to end when the service stops. Waits are told before.
const DRAIN: Duration = Duration::from_millis(500);
/// How long accepting pauses after the system refused it for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket.
#[derive(Debug)]
pub enum Source {
    /// TCP.
    Tcp(TcpListener),
    /// A socket file.
    Unix(UnixListener),
}

/// Serves one socket until `stop` is cancelled, encrypted if there is an `acceptor`. As long as there is no place for another
/// connection, none is accepted.
pub async fn serve(
    source: Source,
    acceptor: Option<Acceptor>,
    service: Arc<Service>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = next(&source, &places) => match accepted {
                Ok((place, stream, address)) => {
                    let (acceptor, service, stop) = (acceptor.clone(), Arc::clone(&service), stop.clone());
                    connections.spawn(async move {
                        let origin = Origin { address, secure: acceptor.is_some() };
                        match encrypted(stream, acceptor, address).await {
                            Ok(stream) => connection(stream, service, origin, stop).await,
                            Err(error) => tracing::debug!(error, ?address, "rejected a connection of discovery"),
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections of the discovery service; they wait");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(source);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// A panic in a connection is a defect; it ends that connection alone.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection of the discovery service ended by a defect of this program");
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

type Accepted = (tokio::sync::OwnedSemaphorePermit, Box<dyn Stream>, Option<IpAddr>);

async fn next(source: &Source, places: &Arc<Semaphore>) -> io::Result<Accepted> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    match source {
        Source::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            // An improvement only.
            drop(stream.set_nodelay(true));
            Ok((place, Box::new(stream), Some(peer.ip().to_canonical())))
        }
        Source::Unix(listener) => Ok((place, Box::new(listener.accept().await?.0), None)),
    }
}

/// The connection behind its handshake, which is bounded in time.
async fn encrypted(
    io: Box<dyn Stream>,
    acceptor: Option<Acceptor>,
    address: Option<IpAddr>,
) -> Result<Box<dyn Stream>, String> {
    let Some(acceptor) = acceptor else { return Ok(io) };
    match acceptor.accept(io, address).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(rejected) => Err(words(&rejected.cause)),
    }
}

async fn connection(io: Box<dyn Stream>, service: Arc<Service>, origin: Origin, stop: CancellationToken) {
    let started = tokio::select! {
        started = sniff_within(HEAD_PATIENCE, io) => started,
        () = stop.cancelled() => return,
    };
    let io = match started {
        Ok((_, io)) => io,
        Err(error) => return tracing::debug!(%error, "a connection of discovery never began"),
    };
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request, origin).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX).keep_alive_interval(HEAD_PATIENCE);
    let connection = builder.serve_connection(TokioIo::new(io), answer);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the discovery service broke");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::{super::tests::service, *};

    #[tokio::test]
    async fn what_was_said_is_not_lost() {
        let (mut client, io) = tokio::io::duplex(64 * 1024);
        client.write_all(b"PUT /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        connection(Box::new(io), service(), Origin::default(), CancellationToken::new()).await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
}
