//! Tokens in a cluster with etcd's v2 API, under the keys of the public service's first generation: every request goes to
//! the cluster, and its answer comes back as it is.
//!
//! A token with a lifetime is a directory with that time to live from its creation on; v2 cannot prolong one without
//! waking everybody who waits. When members registered v2 does not tell.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    registry::{Ask, Pending, Registered, Registry, RegistryError, Roster, STORE_PATIENCE, WAIT_MAX, What},
    token::{Node, Token},
    tree::{REGISTRY, Reply},
};
use crate::tls::{Dialler, Protocol, words};

/// Longest answer of the cluster, in bytes: the list of all tokens is the longest, at some 100 bytes each.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Time for a connection to a member of the cluster.
const DIAL_PATIENCE: Duration = Duration::from_secs(3);
/// How long the mark of a probe stays that nobody removes.
const MARK_LIFETIME: Duration = Duration::from_mins(1);
/// Headers of an answer that go on to the client.
const PASSED_ON: [HeaderName; 5] = [
    CONTENT_TYPE,
    HeaderName::from_static("x-etcd-cluster-id"),
    HeaderName::from_static("x-etcd-index"),
    HeaderName::from_static("x-raft-index"),
    HeaderName::from_static("x-raft-term"),
];

/// Tokens in a cluster with the v2 API.
#[derive(Debug)]
pub struct V2 {
    members: Vec<V2Member>,
    dialler: Dialler,
    /// The member that answered last.
    good: AtomicUsize,
    lifetime: Option<Duration>,
}

/// Where one member of the cluster serves v2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V2Member {
    /// `host:port`.
    pub authority: String,
    /// Whether by TLS.
    pub secure: bool,
}

/// What one member of the cluster said.
struct Said {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// A request as it is written to the cluster.
struct Sent {
    method: Method,
    /// Path and query.
    target: String,
    /// A form, for writes.
    form: Option<String>,
    /// How long the answer may take.
    patience: Duration,
    /// Whether there may be nothing to answer for that long.
    waits: bool,
}

impl Sent {
    fn read(target: String) -> Self {
        Self { method: Method::GET, target, form: None, patience: STORE_PATIENCE, waits: false }
    }

    fn write(method: Method, target: String, form: Option<String>) -> Self {
        Self { method, target, form, patience: STORE_PATIENCE, waits: false }
    }
}

/// Why a member of the cluster has not answered.
struct Silent {
    /// Whether the request certainly had no effect, so that another member may be asked.
    unsent: bool,
    cause: io::Error,
}

/// The part of v2's answers that is read here.
#[derive(Deserialize)]
struct Answer {
    node: Listed,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Listed {
    key: String,
    value: String,
    dir: bool,
    ttl: i64,
    nodes: Vec<Listed>,
    #[serde(rename = "createdIndex")]
    created: u64,
}

impl V2 {
    /// A registry in the cluster with `members`, whose tokens live for `lifetime`, or for ever.
    pub fn new(members: Vec<V2Member>, dialler: Dialler, lifetime: Option<Duration>) -> Self {
        Self { members, dialler, good: AtomicUsize::new(0), lifetime }
    }

    /// Asks the members in turn, the one that answered last first. A write that may have been received is not sent twice,
    /// and one that is late is not followed by another, so that the time is bounded: the next request begins elsewhere.
    async fn send(&self, sent: &Sent) -> Result<Said, RegistryError> {
        let first = self.good.load(Ordering::Relaxed);
        let mut failure = RegistryError("there are no members to ask".to_owned());
        for step in 0..self.members.len() {
            let place = (first + step) % self.members.len();
            let Some(member) = self.members.get(place) else { continue };
            match exchange(member, &self.dialler, sent).await {
                Ok(said) => {
                    self.good.store(place, Ordering::Relaxed);
                    return Ok(said);
                }
                Err(Silent { unsent, cause }) => {
                    failure = RegistryError(format!("{}: {}", member.authority, words(&cause)));
                    let is_late = !unsent && cause.kind() == io::ErrorKind::TimedOut;
                    if is_late && !sent.waits {
                        self.good.store((place + 1) % self.members.len(), Ordering::Relaxed);
                    }
                    if is_late || (!unsent && sent.method != Method::GET) {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    /// A request that has to succeed, or to find what is there already.
    async fn change(&self, method: Method, target: String, form: &str) -> Result<StatusCode, RegistryError> {
        let said = self.send(&Sent::write(method, target, Some(form.to_owned()))).await?;
        let was_gone = said.status == StatusCode::NOT_FOUND && is_v2(&said);
        if said.status.is_success() || was_gone {
            return Ok(said.status);
        }
        Err(strange(&said))
    }

    async fn make(&self, token: &Token, size: u32) -> Result<(), RegistryError> {
        let directory = path(token, &Node::Directory);
        if let Some(lifetime) = self.lifetime {
            let ttl = lifetime.as_secs().max(1);
            let form = format!("dir=true&ttl={ttl}&prevExist=false");
            self.change(Method::PUT, directory, &form).await?;
        }
        self.change(Method::PUT, path(token, &Node::Size), &format!("value={size}")).await.map(drop)
    }

    async fn list(&self, target: String) -> Result<Option<Listed>, RegistryError> {
        let said = self.send(&Sent::read(target)).await?;
        match said.status {
            StatusCode::NOT_FOUND if is_v2(&said) => Ok(None),
            StatusCode::OK => {
                serde_json::from_slice::<Answer>(&said.body).map(|answer| Some(answer.node)).map_err(|_| strange(&said))
            }
            _ => Err(strange(&said)),
        }
    }

    async fn read_roster(&self, token: &Token) -> Result<Option<Roster>, RegistryError> {
        let Some(directory) = self.list(path(token, &Node::Directory) + "?quorum=true").await? else { return Ok(None) };
        let size = self.list(path(token, &Node::Size) + "?quorum=true").await?;
        if !directory.dir || size.is_none() {
            return Ok(None);
        }
        let mut nodes = directory.nodes;
        nodes.sort_by_key(|node| node.created);
        let members = nodes.into_iter().filter(|node| !node.dir).map(|node| Registered {
            name: node.key.rsplit('/').next().unwrap_or_default().to_owned(),
            value: node.value,
            since: None,
        });
        let expires_in = u64::try_from(directory.ttl).ok().filter(|ttl| *ttl > 0).map(Duration::from_secs);
        let size = size.and_then(|size| size.value.parse().ok());
        Ok(Some(Roster { size, members: members.collect(), expires_in }))
    }

    async fn answer(&self, ask: Ask) -> Result<Reply, RegistryError> {
        let is_wait = matches!(ask.what, What::Wait { .. });
        match self.send(&sent(&ask)).await {
            Ok(said) => Ok(passed_on(said)),
            Err(_) if is_wait && self.list(path(&ask.token, &Node::Size)).await.is_ok() => Ok(Reply::nothing_yet(None)),
            Err(error) => Err(error),
        }
    }
}

impl Registry for V2 {
    fn found<'a>(&'a self, token: &'a Token, size: u32) -> Pending<'a, ()> {
        Box::pin(self.make(token, size))
    }

    fn mark(&self) -> Pending<'_, ()> {
        let form = format!("value=1&ttl={}", MARK_LIFETIME.as_secs());
        Box::pin(async move { self.change(Method::PUT, mark(), &form).await.map(drop) })
    }

    fn unmark(&self) -> Pending<'_, ()> {
        Box::pin(async move { self.change(Method::DELETE, mark(), "").await.map(drop) })
    }

    fn roster<'a>(&'a self, token: &'a Token) -> Pending<'a, Option<Roster>> {
        Box::pin(self.read_roster(token))
    }

    fn count(&self) -> Pending<'_, usize> {
        Box::pin(async move {
            let all = self.list(format!("/v2/keys{REGISTRY}")).await?;
            Ok(all.map_or(0, |all| all.nodes.len()))
        })
    }

    fn ask(&self, ask: Ask) -> Pending<'_, Reply> {
        Box::pin(self.answer(ask))
    }
}

/// The mark of a probe, hidden among the tokens.
fn mark() -> String {
    format!("/v2/keys{REGISTRY}/_probe")
}

fn path(token: &Token, node: &Node) -> String {
    format!("/v2/keys{REGISTRY}/{token}{}", node.path())
}

/// The request as it is asked of v2.
fn sent(ask: &Ask) -> Sent {
    let path = path(&ask.token, &ask.node);
    match &ask.what {
        What::Get { sorted } => Sent::read(format!("{path}?quorum=true&sorted={sorted}")),
        What::Wait { index } => {
            let index = index.map_or_else(String::new, |index| format!("&waitIndex={index}"));
            let target = format!("{path}?recursive=true&wait=true{index}");
            Sent { patience: WAIT_MAX, waits: true, ..Sent::read(target) }
        }
        What::Put { value, exists, .. } => {
            let exists = exists.map_or_else(String::new, |exists| format!("?prevExist={exists}"));
            Sent::write(Method::PUT, path + &exists, Some(format!("value={}", escape(value))))
        }
        What::Delete { .. } => Sent::write(Method::DELETE, path, None),
    }
}

/// Form encoding of whatever is more than a letter or a digit.
fn escape(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    escaped.collect()
}

async fn exchange(member: &V2Member, dialler: &Dialler, sent: &Sent) -> Result<Said, Silent> {
    let unsent = |cause| Silent { unsent: true, cause };
    let late = |doing| io::Error::new(io::ErrorKind::TimedOut, format!("{doing} took too long"));
    let connected = timeout(DIAL_PATIENCE, dial(member, dialler)).await;
    let io = connected.map_err(|_| unsent(late("connecting")))?.map_err(unsent)?;
    let request = request(&member.authority, sent).map_err(unsent)?;
    let answered = timeout(sent.patience, converse(io, request)).await;
    let answered = answered.unwrap_or_else(|_| Err(late("the answer")));
    answered.map_err(|cause| Silent { unsent: false, cause })
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn dial(member: &V2Member, dialler: &Dialler) -> io::Result<Box<dyn Stream>> {
    let plain = TcpStream::connect(&member.authority).await?;
    if !member.secure {
        return Ok(Box::new(plain));
    }
    let host = member.authority.rsplit_once(':').map_or(member.authority.as_str(), |(host, _)| host);
    Ok(Box::new(dialler.connect(host, Protocol::Unnamed, plain).await?))
}

fn request(member: &str, sent: &Sent) -> io::Result<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::from(sent.form.clone().unwrap_or_default()));
    *request.method_mut() = sent.method.clone();
    *request.uri_mut() = sent.target.parse().map_err(io::Error::other)?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(member).map_err(io::Error::other)?);
    if sent.form.is_some() {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form);
    }
    Ok(request)
}

/// One request and its answer on a connection of their own, which moves only while the answer is awaited.
async fn converse(io: Box<dyn Stream>, request: Request<Full<Bytes>>) -> io::Result<Said> {
    let (mut requests, connection) = http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    let exchange = std::pin::pin!(async move {
        let (head, body) = requests.send_request(request).await.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?;
        Ok(Said { status: head.status, headers: head.headers, body: body.to_bytes() })
    });
    match select(exchange, std::pin::pin!(connection)).await {
        Either::Left((said, _)) => said,
        // The other side has closed the connection; what it said before is complete, or an error.
        Either::Right((_, exchange)) => exchange.await,
    }
}

fn passed_on(said: Said) -> Reply {
    let headers = PASSED_ON.into_iter().filter_map(|name| Some((name.clone(), said.headers.get(&name)?.clone())));
    Reply { status: said.status, headers: headers.collect(), body: said.body }
}

/// Whether an error is v2's own, and not that of a server that has no v2.
fn is_v2(said: &Said) -> bool {
    serde_json::from_slice::<serde_json::Value>(&said.body).is_ok_and(|body| body.get("errorCode").is_some())
}

fn strange(said: &Said) -> RegistryError {
    const SHOWN_CHARS: usize = 200;
    let body: String = String::from_utf8_lossy(&said.body).chars().take(SHOWN_CHARS).collect();
    let hint =
        if said.status == StatusCode::NOT_FOUND { "; does the cluster serve the v2 API (--enable-v2)?" } else { "" };
    RegistryError(format!("unexpected answer {}: {}{hint}", said.status, body.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::service::token::MemberName;

    #[test]
    fn requests_are_written_anew_for_the_cluster() {
        let token = Token::parse("0123456789abcdef0123456789abcdef").unwrap();
        let name = MemberName::parse("a1").unwrap();
        let node = Node::Member(name.clone());
        let put = What::Put { name, value: "m=http://a:1&dir=true".into(), exists: Some(false) };
        let sent = sent(&Ask { token, node, what: put });
        assert_eq!(sent.target, "/v2/keys/_etcd/registry/0123456789abcdef0123456789abcdef/a1?prevExist=false");
        assert_eq!(sent.form.as_deref(), Some("value=m%3Dhttp%3A%2F%2Fa%3A1%26dir%3Dtrue"));
    }
}
