//! The node's listeners and their connections.

use std::{
    io::{self, Cursor},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, join, split},
    select,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Node, Serves, grpc::Link, room::Window};
use crate::{
    api::wire::{Protocol, sniff_within, watched},
    proxy::{
        accept::{self, Accept},
        dial::Io,
    },
    tls::{self, Acceptor},
};

/// Time a client has for the first bytes of its connection, and then for the head of each request.
const HEAD_PATIENCE: Duration = Duration::from_mins(5);
/// Lines in the head of an HTTP/1 request, as many as members take.
const HEADERS_MAX: usize = 500;
/// The first byte of a TLS connection (RFC 8446, §5.1).
const TLS_HANDSHAKE: u8 = 22;
/// How long open calls may take to end when the node stops.
const DRAIN: Duration = Duration::from_millis(500);

/// How a listener encrypts.
#[derive(Clone, Debug)]
pub struct Encryption {
    /// Shakes hands.
    pub acceptor: Acceptor,
    /// Whether plain text is served beside it: there is a URL without TLS for the same address.
    pub plain_too: bool,
}

/// Serves one listener until `stop` is cancelled; then lets open requests end for a moment and cuts the rest.
pub async fn serve<L>(
    listener: L,
    node: Arc<Node>,
    serves: Serves,
    encryption: Option<Encryption>,
    stop: CancellationToken,
) where
    L: Accept,
    L::Io: AsyncRead + AsyncWrite + Unpin,
{
    let each = |io: L::Io, client| {
        let (node, encryption, stop) = (Arc::clone(&node), encryption.clone(), stop.clone());
        async move {
            let opened = select! {
                opened = begun(open(io, client, encryption)) => opened,
                () = stop.cancelled() => return,
            };
            match opened {
                Ok(begun) => connection(begun, client, node, serves, stop).await,
                Err(error) => tracing::debug!(error = tls::words(&error), ?client, "rejected connection"),
            }
        }
    };
    accept::each(listener, node.places(serves), each, stop.clone(), DRAIN).await;
}

/// A connection whose protocol is known.
struct Begun {
    io: Box<dyn Io>,
    protocol: Protocol,
}

/// The connection once its client has said so much that its protocol is known.
async fn begun(opened: impl Future<Output = io::Result<Box<dyn Io>>>) -> io::Result<Begun> {
    let (protocol, io) = sniff_within(HEAD_PATIENCE, opened.await?).await?;
    Ok(Begun { io: Box::new(io), protocol })
}

/// The connection as its client speaks on it: encrypted, or in plain text where that is served.
async fn open<I>(mut io: I, client: Option<IpAddr>, encryption: Option<Encryption>) -> io::Result<Box<dyn Io>>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Some(Encryption { acceptor, plain_too }) = encryption else { return Ok(Box::new(io)) };
    if !plain_too {
        return Ok(Box::new(acceptor.accept(io, client).await.map_err(|rejected| rejected.cause)?));
    }
    let first = timeout(HEAD_PATIENCE, io.read_u8()).await??;
    let (reader, writer) = split(io);
    let io = join(Cursor::new([first]).chain(reader), writer);
    if first != TLS_HANDSHAKE {
        return Ok(Box::new(io));
    }
    Ok(Box::new(acceptor.accept(io, client).await.map_err(|rejected| rejected.cause)?))
}

async fn connection(begun: Begun, client: Option<IpAddr>, node: Arc<Node>, serves: Serves, stop: CancellationToken) {
    let link = Arc::new(Link::new(Arc::clone(&node)));
    let window = (begun.protocol == Protocol::Http2).then(|| node.room.window());
    let builder = builder(&node, window.as_ref());
    let answer = service_fn(move |request: Request<Incoming>| {
        let (node, link) = (Arc::clone(&node), Arc::clone(&link));
        async move {
            match serves {
                Serves::Everything => node.answer(request, client, &link).await,
                Serves::Metrics => Ok(node.answer_monitoring(&request).await),
            }
        }
    });
    let (io, lookout) = watched(begun.io);
    let serving = async {
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), answer));
        select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    // On HTTP/2 the library always reads, and sees for itself.
    let ended = match begun.protocol {
        Protocol::Http1 => lookout.unless_gone(serving).await.unwrap_or(Ok(())),
        Protocol::Http2 => serving.await,
    };
    // A client that says nothing, breaks off or speaks nonsense harms nobody but itself.
    if let Err(error) = ended {
        tracing::debug!(%error, "a client connection broke");
    }
}

fn builder(node: &Node, window: Option<&Window>) -> auto::Builder<TokioExecutor> {
    let options = node.options();
    let builder = auto::Builder::new(TokioExecutor::new());
    // Scripts look for headers as etcd writes them.
    let mut builder = builder.title_case_headers(true);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_headers(HEADERS_MAX);
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.concurrent_streams_max)
        .initial_stream_window_size(window.map(Window::stream))
        .initial_connection_window_size(window.map(Window::connection));
    if let Some(ping) = &options.ping {
        http2.keep_alive_interval(ping.interval).keep_alive_timeout(ping.timeout);
    }
    builder
}
