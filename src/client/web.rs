//! One plain HTTP request to a member: what it serves beside the API, such as `/metrics`.
//!
//! Every answer is bounded in bytes and in time. Each request has a connection of its own.

use std::{future::poll_fn, io, pin::Pin, pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, header};
use http_body::Body as _;
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::endpoint::{Address, Endpoint, Security};
use crate::tls::{self, Dialler, Protocol};

/// What a member answered to a plain HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The status.
    pub status: StatusCode,
    /// What the server's clock showed, as it words it in the `Date` header.
    pub date: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PageError {
    /// No connection.
    #[error("{0}")]
    Dial(String),
    /// A connection, and no agreement on how to encrypt it.
    #[error("{0}")]
    Handshake(String),
    /// No HTTP came over the connection.
    #[error("{0}")]
    Exchange(String),
    /// More than the caller reads.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// What the caller reads, in bytes.
        limit: usize,
    },
    /// The caller's time is over.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// What HTTP is spoken over.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Asks the member at `endpoint` for `path`, and reads at most `bytes_max` bytes within `limit`.
///
/// # Errors
/// [`PageError`]. Any status is an answer.
pub async fn page(
    endpoint: &Endpoint,
    path: &str,
    tls: Option<&Dialler>,
    limit: Duration,
    bytes_max: usize,
) -> Result<Page, PageError> {
    let asking = async {
        let io = dial(endpoint, tls).await?;
        ask(io, endpoint, path, bytes_max).await
    };
    timeout(limit, asking).await.unwrap_or(Err(PageError::Late(limit)))
}

/// The certificate that the server at `endpoint` shows, in DER; `None` if the connection is not encrypted, or the server
/// shows none. The caller's dialler decides whether it has to be a good one.
///
/// # Errors
/// [`PageError`].
pub async fn certificate(
    endpoint: &Endpoint,
    tls: Option<&Dialler>,
    limit: Duration,
) -> Result<Option<Vec<u8>>, PageError> {
    let Some(dialler) = dialler_for(endpoint, tls) else { return Ok(None) };
    let asking = async {
        match &endpoint.address {
            Address::Tcp(authority) => shown(tcp(authority).await?, &dialler, host(authority)).await,
            Address::Unix(path) => shown(unix(path).await?, &dialler, LOCALHOST).await,
        }
    };
    timeout(limit, asking).await.unwrap_or(Err(PageError::Late(limit)))
}

async fn shown<I>(io: I, dialler: &Dialler, host: &str) -> Result<Option<Vec<u8>>, PageError>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let shaken = dialler.connect(host, Protocol::Unnamed, io).await.map_err(|error| handshake(&error))?;
    let (_, session) = shaken.get_ref();
    Ok(session.peer_certificates().and_then(|chain| chain.first()).map(|certificate| certificate.to_vec()))
}

async fn dial(endpoint: &Endpoint, tls: Option<&Dialler>) -> Result<Box<dyn Io>, PageError> {
    let dialler = dialler_for(endpoint, tls);
    match &endpoint.address {
        Address::Tcp(authority) => encrypted(tcp(authority).await?, dialler, host(authority)).await,
        Address::Unix(path) => encrypted(unix(path).await?, dialler, LOCALHOST).await,
    }
}

/// How to encrypt, if that is to be done.
fn dialler_for(endpoint: &Endpoint, tls: Option<&Dialler>) -> Option<Dialler> {
    match endpoint.security {
        Security::Clear => None,
        Security::AsConfigured => tls.cloned(),
        Security::Required => Some(tls.cloned().unwrap_or_default()),
    }
}

async fn encrypted<I>(io: I, dialler: Option<Dialler>, host: &str) -> Result<Box<dyn Io>, PageError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(dialler) = dialler else { return Ok(Box::new(io)) };
    let shaken = dialler.connect(host, Protocol::Unnamed, io).await.map_err(|error| handshake(&error))?;
    Ok(Box::new(shaken))
}

async fn tcp(authority: &str) -> Result<TcpStream, PageError> {
    TcpStream::connect(authority).await.map_err(|error| PageError::Dial(error.to_string()))
}

async fn unix(path: &str) -> Result<UnixStream, PageError> {
    UnixStream::connect(path).await.map_err(|error| PageError::Dial(error.to_string()))
}

fn host(authority: &str) -> &str {
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

fn handshake(error: &io::Error) -> PageError {
    PageError::Handshake(tls::words(error))
}

async fn ask(io: Box<dyn Io>, endpoint: &Endpoint, path: &str, bytes_max: usize) -> Result<Page, PageError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
    let request = request(endpoint, path)?;
    let mut answering = pin!(async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        let status = response.status();
        Ok(Page { status, date, body: whole(response.into_body(), bytes_max).await? })
    });
    tokio::select! {
        answer = &mut answering => return answer,
        // What it has read is still to be taken; its error reaches whoever waits for the answer.
        _ = connection => {}
    }
    answering.await
}

fn request(endpoint: &Endpoint, path: &str) -> Result<Request<Empty<Bytes>>, PageError> {
    let host = match &endpoint.address {
        Address::Tcp(authority) => authority.as_str(),
        Address::Unix(_) => LOCALHOST,
    };
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = path.parse().map_err(|error| PageError::Exchange(format!("{path}: {error}")))?;
    let host = HeaderValue::from_str(host).map_err(|error| PageError::Exchange(format!("{host}: {error}")))?;
    request.headers_mut().insert(header::HOST, host);
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

async fn whole(mut incoming: Incoming, limit: usize) -> Result<Bytes, PageError> {
    let mut body = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await {
        let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
        if body.len() + piece.len() > limit {
            return Err(PageError::TooLong { limit });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of a conversion")]
fn broken(error: hyper::Error) -> PageError {
    PageError::Exchange(error.to_string())
}

/// Whom a socket file leads to.
const LOCALHOST: &str = "localhost";

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Asks a server that answers with `text` whatever it is asked.
    async fn asked(text: &'static str, limit: Duration, bytes_max: usize) -> Result<Page, PageError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::parse(&listener.local_addr().unwrap().to_string());
        let serving = async {
            let (mut io, _) = listener.accept().await.unwrap();
            let read = io.read(&mut [0; 4_096]).await.unwrap();
            io.write_all(text.as_bytes()).await.unwrap();
            if !text.is_empty() {
                return read;
            }
            std::future::pending().await
        };
        let asking = page(&endpoint, "/metrics", None, limit, bytes_max);
        tokio::select! {
            page = asking => page,
            page = async { serving.await; std::future::pending().await } => page,
        }
    }

    #[tokio::test]
    async fn an_answer_has_a_status_a_date_and_a_body() {
        let text = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 3\r\n\r\nx 1";
        let page = asked(text, LIMIT, 100).await.unwrap();
        assert_eq!((page.status, page.body), (StatusCode::OK, Bytes::from_static(b"x 1")));
        assert_eq!(page.date.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    }

    #[tokio::test]
    async fn answers_are_bounded_in_bytes_and_in_time() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nx 1";
        assert_eq!(asked(text, LIMIT, 2).await, Err(PageError::TooLong { limit: 2 }));
        let soon = Duration::from_millis(50);
        assert_eq!(asked("", soon, 2).await, Err(PageError::Late(soon)));
    }

    #[tokio::test]
    async fn what_is_no_http_is_told_apart_from_what_does_not_listen() {
        let garbage = asked("\u{15}\u{3}\u{3}\0\u{2}\u{2}F\r\n\r\n", LIMIT, 100).await;
        assert!(matches!(garbage, Err(PageError::Exchange(_))), "{garbage:?}");
        let nobody = page(&Endpoint::parse("127.0.0.1:1"), "/", None, LIMIT, 100).await;
        assert!(matches!(nobody, Err(PageError::Dial(_))), "{nobody:?}");
    }
}
