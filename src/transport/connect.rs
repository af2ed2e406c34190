//! Connections this member makes: dialled, driven and read under deadlines.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header::HOST};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::patience::Patience;
use crate::tls::{self, Dialler, Protocol};

/// What is sent with a request.
pub(super) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// Seconds without traffic after which the system asks whether the other side still exists.
const KEEPALIVE_IDLE_SECONDS: u32 = 30;
/// Room made for an answer before it arrives.
const ANSWER_RESERVED_BYTES_MAX: usize = 8 * 1024;

/// Whom a socket file leads to.
const LOCALHOST: &str = "localhost";

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One HTTP/1.1 connection. It moves only while one of its methods is awaited: no task stands behind it, so that
/// reading a stream wakes one task and not two.
pub(super) struct Connection {
    requests: http1::SendRequest<RequestBody>,
    driver: Driver,
    host: HeaderValue,
}

struct Driver {
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    ended: bool,
}

impl Connection {
    /// Dials the peer URL; by `dialler` if it wants TLS.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] after `patience`, what the handshake failed with in the words of etcd.
    pub(super) async fn dial(url: &str, dialler: &Dialler, patience: Duration) -> io::Result<Self> {
        timeout(patience, Self::establish(url, dialler)).await.map_err(|_| too_slow("connecting"))?
    }

    async fn establish(url: &str, dialler: &Dialler) -> io::Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (io, host): (Box<dyn Io>, &str) = match scheme {
            "http" => (Box::new(tcp(authority).await?), authority),
            "https" => (Box::new(encrypted(dialler, host_of(authority), tcp(authority).await?).await?), authority),
            "unix" => (Box::new(UnixStream::connect(rest).await?), LOCALHOST),
            "unixs" => (Box::new(encrypted(dialler, LOCALHOST, UnixStream::connect(rest).await?).await?), LOCALHOST),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the scheme is none that members have")),
        };
        let (requests, connection) = http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
        let host = HeaderValue::from_str(host).map_err(io::Error::other)?;
        Ok(Self { requests, driver: Driver { connection: Box::pin(connection), ended: false }, host })
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// If the connection breaks. There is no deadline.
    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: RequestBody,
    ) -> io::Result<Response<Incoming>> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(io::Error::other)?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, self.host.clone());
        let Self { requests, driver, .. } = self;
        driver.drive(requests.ready()).await.map_err(broken)?;
        driver.drive(requests.send_request(request)).await.map_err(broken)
    }

    /// The next bytes of an answer, `None` after the last.
    ///
    /// # Errors
    /// If the connection breaks, or nothing comes before `patience` runs out.
    pub(super) async fn piece(&mut self, body: &mut Incoming, patience: &mut Patience) -> io::Result<Option<Bytes>> {
        loop {
            let frame = poll_fn(|context| {
                self.driver.poll(context);
                if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
                    patience.renew();
                    return Poll::Ready(frame.transpose().map_err(broken));
                }
                patience.poll_over(context).map(|()| Err(too_slow("reading")))
            });
            match frame.await?.map(http_body::Frame::into_data) {
                Some(Ok(data)) => return Ok(Some(data)),
                Some(Err(_trailers)) => {}
                None => return Ok(None),
            }
        }
    }

    /// The rest of an answer.
    ///
    /// # Errors
    /// If the connection breaks, pauses for longer than `pause_max`, or says more than `bytes_max`.
    pub(super) async fn whole(
        &mut self,
        mut body: Incoming,
        bytes_max: usize,
        pause_max: Duration,
    ) -> io::Result<Bytes> {
        let mut patience = Patience::new(pause_max);
        let mut whole = BytesMut::with_capacity(ANSWER_RESERVED_BYTES_MAX.min(bytes_max));
        while let Some(piece) = self.piece(&mut body, &mut patience).await? {
            if whole.len() + piece.len() > bytes_max {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

impl Driver {
    fn poll(&mut self, context: &mut Context<'_>) {
        // Its error reaches whoever waits for an answer, in words of its own.
        self.ended = self.ended || self.connection.as_mut().poll(context).is_ready();
    }

    async fn drive<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        poll_fn(|context| {
            self.poll(context);
            future.as_mut().poll(context)
        })
        .await
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("host", &self.host).finish_non_exhaustive()
    }
}

/// The host of `host:port`.
fn host_of(authority: &str) -> &str {
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// Members of etcd offer HTTP/2 by name and speak HTTP/1.1 to whoever names nothing.
async fn encrypted<I>(dialler: &Dialler, host: &str, io: I) -> io::Result<tls::ClientStream<I>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let stream = dialler.connect(host, Protocol::Unnamed, io).await;
    stream.map_err(|error| io::Error::new(error.kind(), tls::words(&error)))
}

async fn tcp(authority: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    let kept_alive = setsockopt(&stream, sockopt::KeepAlive, &true)
        .and_then(|()| setsockopt(&stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_SECONDS));
    // An improvement only: the deadlines notice a dead peer sooner.
    if let Err(error) = kept_alive {
        tracing::debug!(%error, "cannot tune a connection to a peer");
    }
    Ok(stream)
}

/// A body known in full.
pub(super) fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn broken(error: hyper::Error) -> io::Error {
    let kind =
        if error.is_incomplete_message() { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::ConnectionAborted };
    io::Error::new(kind, error)
}

fn too_slow(doing: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{doing} took too long"))
}
