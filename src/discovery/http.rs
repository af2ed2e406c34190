//! Requests to a discovery service, each on a connection of its own, perhaps through an HTTP proxy.
//!
//! Every answer is bounded in bytes and time. Connections are made in one place, [`Site::dial`]; what is encrypted shows no
//! certificate and is trusted as the system trusts it, as in etcd.

use std::{io, pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, LOCATION, PROXY_AUTHORIZATION},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    select,
    time::{Instant, timeout, timeout_at},
};

use super::{Cause, web::WebUrl};
use crate::tls::{Dialler, HANDSHAKE_PATIENCE, Protocol, words};

/// Time for a connection (etcd's).
const DIAL_LIMIT: Duration = Duration::from_secs(30);
/// Longest answer that is read: a thousand members with several URLs each are a fraction of it.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Redirections that are followed for one request (etcd's).
const REDIRECTS_MAX: usize = 10;
/// Longest answer of a proxy that is asked for a tunnel.
const TUNNEL_BYTES_MAX: usize = 16 * 1024;

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A service that is asked.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// The URL everything is relative to.
    pub(super) url: WebUrl,
    proxy: Option<WebUrl>,
    dialler: Dialler,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    /// Below the site's URL.
    pub(super) path: String,
    pub(super) parameters: String,
    /// The body of a form.
    pub(super) form: Option<String>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Nobody answered: asking again may help.
#[derive(Debug, Error)]
pub(super) enum Unreachable {
    /// The connection, or what came over it.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// In the time there was.
    #[error("context deadline exceeded")]
    Deadline,
    /// With a status of 500 and above, or because of too many requests.
    #[error("client: etcd member {base} has no leader or is not available: {status}")]
    Unavailable {
        /// Who.
        base: String,
        /// The status.
        status: StatusCode,
    },
    /// Too often, or to somewhere that cannot be asked.
    #[error("{0}")]
    Redirected(String),
}

impl Site {
    /// A site at `url`, reached by way of `proxy`.
    ///
    /// # Errors
    /// [`Cause::BadUrl`], [`Cause::BadProxy`].
    pub(super) fn new(url: &str, proxy: Option<&str>) -> Result<Self, Cause> {
        let url = WebUrl::parse(url).map_err(Cause::BadUrl)?;
        Ok(Self { url, proxy: proxy.map(proxy_url).transpose()?, dialler: Dialler::default() })
    }

    /// Asks, and follows redirections.
    ///
    /// # Errors
    /// [`Unreachable`]; statuses of 500 and above, and that of too many requests, are among it.
    pub(super) async fn ask(&self, question: &Question, limit: Duration) -> Result<Answer, Unreachable> {
        let deadline = Instant::now() + limit;
        let mut url = self.url.clone();
        let mut path = url.below(&question.path, &question.parameters);
        for _ in 0..=REDIRECTS_MAX {
            let asked = timeout_at(deadline, self.ask_once(&url, &path, question)).await;
            let answer = asked.map_err(|_| Unreachable::Deadline)??;
            if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
                return Err(Unreachable::Unavailable { base: url.base(), status: answer.status });
            }
            if !answer.status.is_redirection() {
                return Ok(answer);
            }
            let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok());
            let location = location.ok_or_else(|| Unreachable::Redirected("location header not set".to_owned()))?;
            (url, path) = url.redirected(location).map_err(Unreachable::Redirected)?;
        }
        Err(Unreachable::Redirected("client: too many redirects".to_owned()))
    }

    async fn ask_once(&self, url: &WebUrl, path: &str, question: &Question) -> io::Result<Answer> {
        let stream = self.dial(url).await?;
        // A tunnel leads to the service, and nobody between reads along.
        let by_proxy = self.proxy.as_ref().filter(|_| !url.is_tls);
        let target = if by_proxy.is_some() { format!("{}{path}", url.base()) } else { path.to_owned() };
        let request = self.request(url, &target, question)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let mut answering = pin!(async {
            let answer = sender.send_request(request).await.map_err(broken)?;
            whole(answer).await
        });
        select! {
            answer = &mut answering => return answer,
            // What it has read is still to be taken; an error reaches whoever waits for the answer.
            _ = connection => {}
        }
        answering.await
    }

    fn request(&self, url: &WebUrl, target: &str, question: &Question) -> io::Result<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::from(question.form.clone().unwrap_or_default()));
        *request.method_mut() = question.method.clone();
        *request.uri_mut() = target.parse().map_err(io::Error::other)?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&url.authority).map_err(io::Error::other)?);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if question.form.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        // A password is for the place it was given for, and not for where that redirects to.
        if let Some(authorization) = self.url.authorization.clone().filter(|_| url.authority == self.url.authority) {
            headers.insert(AUTHORIZATION, authorization);
        }
        let proxy = self.proxy.as_ref().filter(|_| !url.is_tls);
        if let Some(authorization) = proxy.and_then(|proxy| proxy.authorization.clone()) {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }
        Ok(request)
    }

    /// Connects to what `url` names, by way of the proxy if there is one.
    async fn dial(&self, url: &WebUrl) -> io::Result<Box<dyn Io>> {
        let mut stream = tcp(self.proxy.as_ref().unwrap_or(url)).await?;
        if !url.is_tls {
            return Ok(Box::new(stream));
        }
        if let Some(proxy) = &self.proxy {
            tunnel(&mut stream, proxy, url).await?;
        }
        let shaking = timeout(HANDSHAKE_PATIENCE, self.dialler.connect(&url.host, Protocol::Unnamed, stream)).await;
        let shaken = shaking.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "net/http: TLS handshake timeout"))?;
        Ok(Box::new(shaken.map_err(|error| io::Error::new(error.kind(), words(&error)))?))
    }
}

/// `--discovery-proxy`, whose scheme may be left out.
fn proxy_url(text: &str) -> Result<WebUrl, Cause> {
    let address = if text.starts_with("http") { text.to_owned() } else { format!("http://{text}") };
    let url = WebUrl::parse(&address).map_err(|why| Cause::BadProxy { address: text.to_owned(), why })?;
    if url.is_tls {
        let why = "TLS towards a proxy is not supported".to_owned();
        return Err(Cause::BadProxy { address: text.to_owned(), why });
    }
    tracing::info!(proxy_url = url.base(), "running proxy with discovery");
    Ok(url)
}

async fn tcp(to: &WebUrl) -> io::Result<TcpStream> {
    let dialled = timeout(DIAL_LIMIT, TcpStream::connect((to.host.as_str(), to.port))).await;
    let stream = dialled.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")).flatten();
    stream.map_err(|cause| io::Error::new(cause.kind(), format!("dial tcp {}: {cause}", to.authority)))
}

/// Asks `proxy` for a connection to what `url` names.
async fn tunnel(stream: &mut TcpStream, proxy: &WebUrl, url: &WebUrl) -> io::Result<()> {
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let place = format!("{host}:{}", url.port);
    let authorization = proxy.authorization.as_ref().and_then(|value| value.to_str().ok());
    let authorization = authorization.map_or_else(String::new, |value| format!("Proxy-Authorization: {value}\r\n"));
    stream.write_all(format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{authorization}\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    // Byte by byte, because what follows the head is no longer the proxy's.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == TUNNEL_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer of the proxy is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    let said = String::from_utf8_lossy(&head);
    let line = said.lines().next().unwrap_or_default();
    if line.starts_with("HTTP/1.") && line.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
        return Ok(());
    }
    Err(io::Error::other(format!("proxy {} refuses: {line}", proxy.authority)))
}

/// The body of an answer, as far as it is no longer than answers are.
async fn whole(answer: Response<Incoming>) -> io::Result<Answer> {
    let (parts, mut body) = answer.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
            let why = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Answer { status: parts.status, headers: parts.headers, body: bytes.freeze() })
}

fn broken(error: hyper::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_of_a_proxy_may_be_left_out() {
        assert_eq!(proxy_url("proxy:3128").unwrap().base(), "http://proxy:3128");
        let refused = proxy_url("http://").unwrap_err().to_string();
        assert!(refused.starts_with("invalid proxy address \"http://\": "), "{refused}");
        assert!(proxy_url("https://proxy:3128").is_err());
    }
}
