//! The discovery service: who has registered for a cluster that is to be.
//!
//! `GET /new?size=3` makes a token; nodes started with its URL register below it, wait for each other and found the
//! cluster. Routes, texts and shapes are those of the public service, as far as clients of etcd 2 to 3.6 and people with curl
//! rely on them; `/` is a page for browsers. Where tokens are kept is a [`Registry`]: a member in this process or a cluster
//! ([`V3`]), or a cluster with the v2 API ([`V2`]). Left to others: sockets of a member, options, the life of the process.
//!
//! Invariants:
//! - A registration is answered after the registry has it for good; `prevExist=false` never overwrites.
//! - Strangers make tokens by `/new` alone, and only so many: nothing is ever made by a request below an unknown token.
//! - What strangers change below a token is bounded in number, size and pace, and nobody writes over the founders of a
//!   complete cluster.
//! - Every answer is complete before it is sent, and bounded; every wait ends by itself.

mod ask;
mod limits;
mod listen;
mod page;
mod registry;
mod store;
mod token;
mod tree;
mod v2;
mod v3;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, LOCATION, REFERRER_POLICY, RETRY_AFTER,
        X_CONTENT_TYPE_OPTIONS,
    },
    request::Parts,
};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{self, Clock as _},
    metrics::{self, Collect as _, Counter, Family},
};

use ask::{Parameters, Route};
use limits::{RateLimit, Turns, Waits};
use page::Subject;
use tree::{Refusal, Why, key};

pub use ask::{QUERY_BYTES_MAX, VALUE_BYTES_MAX};
pub use limits::{SOURCES_MAX, WAITS_MAX, WAITS_PER_TOKEN_MAX};
pub use listen::{Source, serve};
pub use registry::{Ask, Pending, Registered, Registry, RegistryError, Roster, STORE_PATIENCE, WAIT_MAX, What};
pub use store::Store;
pub use token::{MEMBER_BYTES_MAX, MemberName, Node, Token};
pub use tree::Reply;
pub use v2::{V2, V2Member};
pub use v3::V3;

/// Members of a cluster if `/new` is not told how many (as the public service).
pub const SIZE_DEFAULT: u32 = 3;
/// Most members of a cluster: far more than raft is good for.
pub const SIZE_MAX: u32 = 64;
/// Most members registered under one token beyond its size. Surplus nodes find a full cluster and do not register; this is
/// room for those that race for the last place. Several services in front of one store may exceed it by their number.
pub const SURPLUS_MAX: usize = 16;
/// Most tokens at a time unless told otherwise, at about a kilobyte each.
pub const TOKENS_MAX_DEFAULT: usize = 10_000;
/// New tokens of one address in a minute unless told otherwise.
pub const NEW_PER_MINUTE_DEFAULT: u32 = 60;
/// Registrations and removals that one address may make for each token that it may: those of a small cluster, and some
/// that are tried again.
const CHANGES_PER_TOKEN: u32 = 8;
/// How long a token stays at least unless told otherwise (the public service's week).
pub const LIFETIME_DEFAULT: Duration = Duration::from_hours(168);
/// Longest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Time a client has for its body.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// How old the number of tokens may be when another one is made.
const COUNT_AGE_MAX: Duration = Duration::from_secs(10);
/// How long what `/health` found is told again: it writes, and probes are many.
const HEALTH_AGE_MAX: Duration = Duration::from_secs(5);
/// When a client may try again that found everything taken, in seconds.
const RETRY_SECONDS: u64 = 10;
/// Where requests without an address are counted: those through a socket file.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Header of proxies with the address of their client.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How a service behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What token URLs begin with, without a slash at the end; `None` for the host that a request names.
    pub public_url: Option<String>,
    /// Most tokens at a time.
    pub tokens_max: usize,
    /// New tokens of one address in a minute; it makes `CHANGES_PER_TOKEN` times as many changes.
    pub new_per_minute: u32,
    /// Addresses of proxies whose `X-Forwarded-For` is believed.
    pub proxies: Vec<IpAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            public_url: None,
            tokens_max: TOKENS_MAX_DEFAULT,
            new_per_minute: NEW_PER_MINUTE_DEFAULT,
            proxies: Vec::new(),
        }
    }
}

/// Where a request came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The other end of its connection; nothing for a socket file.
    pub address: Option<IpAddr>,
    /// Whether the connection is encrypted.
    pub secure: bool,
}

/// The discovery service, whichever sockets it is served on.
#[derive(Debug)]
pub struct Service {
    registry: Box<dyn Registry>,
    options: Options,
    /// Of new tokens.
    rate: Mutex<RateLimit>,
    /// Of changes below tokens.
    changes: Mutex<RateLimit>,
    waits: Waits,
    /// Of changes below one token.
    turns: Turns,
    /// The number of tokens and when it was looked up.
    counted: Mutex<Option<(usize, Duration)>>,
    /// What the last probe found, and when.
    probed: tokio::sync::Mutex<Option<(Result<(), &'static str>, Duration)>>,
    requests: [(&'static str, Family<Counter, 2>); 3],
    stop: CancellationToken,
}

/// A request with its body.
struct Asked {
    parts: Parts,
    parameters: Parameters,
    /// Who has to be patient: the address its proxies name, or its own.
    source: IpAddr,
    secure: bool,
}

impl Service {
    /// A service over `registry`. Once `stop` is cancelled, waits end.
    pub fn new(registry: Box<dyn Registry>, options: Options, stop: CancellationToken) -> Arc<Self> {
        let family = || Family::new(["code", "method"], Counter::new);
        let names = ["endpoint_new_requests_total", "endpoint_token_requests_total", "endpoint_health_requests_total"];
        Arc::new(Self {
            registry,
            rate: Mutex::new(RateLimit::new(options.new_per_minute)),
            changes: Mutex::new(RateLimit::new(options.new_per_minute.saturating_mul(CHANGES_PER_TOKEN))),
            options,
            waits: Waits::default(),
            turns: Turns::default(),
            counted: Mutex::default(),
            probed: tokio::sync::Mutex::default(),
            requests: names.map(|name| (name, family())),
            stop,
        })
    }

    /// Whether a member that has the service on its client port leaves requests for `path` to it. Probes and metrics there
    /// are the member's own.
    pub fn wants(path: &str) -> bool {
        matches!(Route::of(path), Some(Route::Page | Route::New | Route::Tree(..) | Route::Robots))
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// What the store, or the way to it, says.
    pub async fn check(&self) -> Result<(), RegistryError> {
        self.registry.count().await.map(drop)
    }

    /// Answers one request, whatever it asks for.
    pub async fn answer<B>(&self, request: Request<B>, origin: Origin) -> Response<Full<Bytes>>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let (method, route) = (parts.method.clone(), Route::of(parts.uri.path()));
        let reply = match (&route, read(&parts, body).await) {
            (None, _) => Reply::text(StatusCode::NOT_FOUND, "404 page not found\n"),
            (Some(route), Err(why)) => unreadable(route, why),
            (Some(route), Ok(form)) => self.route(route, parts, &form, origin).await,
        };
        if let Some(route) = &route {
            self.count(route, &method, reply.status);
        }
        finished(reply)
    }

    async fn route(&self, route: &Route, parts: Parts, form: &str, origin: Origin) -> Reply {
        let query = parts.uri.query().unwrap_or_default();
        let parameters = match Parameters::parse(form, query) {
            Ok(parameters) => parameters,
            Err(why) => return unreadable(route, why),
        };
        let source = self.source(&parts, origin);
        let asked = Asked { parts, parameters, source, secure: origin.secure };
        match route {
            Route::Page => self.page(&asked).await,
            Route::New => self.new_token(&asked).await,
            Route::Tree(token, node) => self.tree(token, node, &asked).await,
            Route::Health => self.health().await,
            Route::Robots => Reply::text(StatusCode::OK, "User-agent: *\nDisallow: /\n"),
            Route::Metrics => self.metrics(),
        }
    }

    /// Whose requests these are: the client's address, or the last one in `X-Forwarded-For` that is no proxy's of ours.
    fn source(&self, parts: &Parts, origin: Origin) -> IpAddr {
        let direct = origin.address.unwrap_or(NOWHERE);
        let is_proxy = |address: &IpAddr| self.options.proxies.contains(&address.to_canonical());
        if !is_proxy(&direct) {
            return direct;
        }
        let texts = parts.headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let listed: Vec<&str> = texts.flat_map(|text| text.split(',')).map(str::trim).collect();
        let mut known = listed.iter().rev().map_while(|text| text.parse::<IpAddr>().ok());
        known.find(|address| !is_proxy(address)).unwrap_or(direct)
    }

    /// `/new`: the URL of a new token, as plain text without a line's end.
    async fn new_token(&self, asked: &Asked) -> Reply {
        if !matches!(asked.parts.method, Method::GET | Method::PUT | Method::POST) {
            return Reply::wrong_method("GET,PUT,POST");
        }
        match self.make(asked).await {
            Ok((_, url)) => Reply::text(StatusCode::OK, url),
            Err(reply) => reply,
        }
    }

    /// A new token and its URL.
    async fn make(&self, asked: &Asked) -> Result<(Token, String), Reply> {
        let size = size(asked.parameters.get("size").unwrap_or_default())
            .map_err(|why| Reply::text(StatusCode::BAD_REQUEST, why + "\n"))?;
        let prefix = self.prefix(asked)?;
        let tired = |seconds| later(StatusCode::TOO_MANY_REQUESTS, "too many new tokens: try again later\n", seconds);
        admit(&self.rate, asked.source).map_err(tired)?;
        let (token, failed) = (Token::fresh(), |error: RegistryError| {
            tracing::warn!(%error, "cannot make a token");
            later(StatusCode::SERVICE_UNAVAILABLE, "Unable to generate token\n", RETRY_SECONDS)
        });
        if self.tokens().await.map_err(failed)? >= self.options.tokens_max {
            let text = "Unable to generate token: there are as many as this service keeps\n";
            return Err(later(StatusCode::SERVICE_UNAVAILABLE, text, RETRY_SECONDS));
        }
        self.registry.found(&token, size).await.map_err(failed)?;
        if let Some((count, _)) = self.counted.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            *count += 1;
        }
        let url = format!("{prefix}/{token}");
        Ok((token, url))
    }

    /// About how many tokens there are.
    async fn tokens(&self) -> Result<usize, RegistryError> {
        let now = clock::system().monotonic();
        let known = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((count, _)) = known.filter(|(_, at)| now.saturating_sub(*at) < COUNT_AGE_MAX) {
            return Ok(count);
        }
        let count = self.registry.count().await?;
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some((count, now));
        Ok(count)
    }

    /// What a token URL begins with.
    fn prefix(&self, asked: &Asked) -> Result<String, Reply> {
        if let Some(url) = &self.options.public_url {
            return Ok(url.clone());
        }
        let named = asked.parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = asked.parts.uri.authority().map(http::uri::Authority::as_str).or(named).unwrap_or_default();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_plain) {
            let text = "400 Bad Request: the Host header names no host; start the service with --public-url\n";
            return Err(Reply::text(StatusCode::BAD_REQUEST, text));
        }
        Ok(format!("{}://{host}", if asked.secure { "https" } else { "http" }))
    }

    /// One request to the tree of a token.
    async fn tree(&self, token: &Token, node: &Node, asked: &Asked) -> Reply {
        let what = match ask::understand(token, node, &asked.parts.method, &asked.parameters) {
            Ok(what) => what,
            Err(reply) => return reply,
        };
        let ask = Ask { token: token.clone(), node: node.clone(), what };
        match ask.what {
            What::Get { .. } => self.registry.ask(ask).await.unwrap_or_else(unavailable),
            What::Wait { .. } => self.wait(ask).await,
            What::Put { .. } | What::Delete { .. } => {
                let changed = self.change(ask, asked.source).await;
                changed.unwrap_or_else(|reply| reply)
            }
        }
    }

    async fn wait(&self, ask: Ask) -> Reply {
        let Some(_waiting) = self.waits.begin(&ask.token) else {
            return busy("too many clients wait: try again later");
        };
        tokio::select! {
            answered = self.registry.ask(ask) => answered.unwrap_or_else(unavailable),
            () = self.stop.cancelled() => Reply::nothing_yet(None),
        }
    }

    /// Makes a change, if it may be made now, and at all. What it may is told by who has registered, and stays true until it
    /// is made: changes of one token take turns.
    async fn change(&self, ask: Ask, source: IpAddr) -> Result<Reply, Reply> {
        admit(&self.changes, source).map_err(|seconds| {
            let refusal =
                Refusal::of_request(Why::TooManyRequests, "too many changes from this address: try again later");
            Reply::refusal(&refusal).with(RETRY_AFTER, seconds.into())
        })?;
        let turn = self.turns.take(&ask.token, STORE_PATIENCE).await;
        let _turn = turn.ok_or_else(|| busy("too many changes are under way: try again later"))?;
        self.permit(&ask).await?;
        self.registry.ask(ask).await.map_err(unavailable)
    }

    /// Whether those who have registered leave room for this change.
    async fn permit(&self, Ask { token, node, what }: &Ask) -> Result<(), Reply> {
        let refuse = |why, cause| Err(Reply::refusal(&Refusal { why, cause, index: 0 }));
        match self.registry.roster(token).await.map_err(unavailable)? {
            None => refuse(Why::KeyNotFound, key(token, &Node::Directory)),
            Some(roster) => match roster.refuses(what) {
                None => Ok(()),
                Some(Why::Complete) => {
                    let cause = "the cluster is complete: remove this registration before another takes its place";
                    refuse(Why::Complete, format!("{}: {cause}", key(token, node)))
                }
                Some(why) => refuse(why, key(token, node)),
            },
        }
    }

    /// `/health`: writes something and removes it again, as the public service does, but not for every probe.
    async fn health(&self) -> Reply {
        let mut probed = self.probed.lock().await;
        let now = clock::system().monotonic();
        let known = probed.filter(|(_, at)| now.saturating_sub(*at) < HEALTH_AGE_MAX);
        let found = match known {
            Some((found, _)) => found,
            None => self.probe().await,
        };
        if known.is_none() {
            // The time behind the probe: those who waited for it hear what it found.
            *probed = Some((found, clock::system().monotonic()));
        }
        match found {
            Ok(()) => Reply::text(StatusCode::OK, "OK"),
            Err(why) => Reply::text(StatusCode::SERVICE_UNAVAILABLE, why),
        }
    }

    async fn probe(&self) -> Result<(), &'static str> {
        let warn = |error: RegistryError| tracing::warn!(%error, "the registry of the discovery service fails");
        self.registry.mark().await.map_err(warn).map_err(|()| "health failed to setupToken\n")?;
        self.registry.unmark().await.map_err(warn).map_err(|()| "health failed to deleteToken\n")
    }

    fn metrics(&self) -> Reply {
        let mut text = metrics::exposition();
        for (name, family) in &self.requests {
            let mut samples = String::new();
            family.samples(name, &mut samples);
            let head = format!("# HELP {name} Requests answered, by status and method.\n# TYPE {name} counter\n");
            text.push_str(if samples.is_empty() { "" } else { &head });
            text.push_str(&samples);
        }
        let mut reply = Reply::text(StatusCode::OK, text);
        reply.headers = vec![(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE))];
        reply
    }

    fn count(&self, route: &Route, method: &Method, status: StatusCode) {
        let [new, token, health] = &self.requests;
        let (_, family) = match route {
            Route::New => new,
            Route::Tree(..) => token,
            Route::Health => health,
            Route::Page | Route::Robots | Route::Metrics => return,
        };
        family.with([status.as_str(), &method.as_str().to_lowercase()]).inc();
    }

    /// The page: a token made by its form, or one that somebody asks for, or the forms alone.
    async fn page(&self, asked: &Asked) -> Reply {
        match asked.parts.method {
            Method::POST => match self.make(asked).await {
                Ok((token, _)) => see_other(&token),
                Err(reply) => Self::trouble(&reply),
            },
            Method::GET | Method::HEAD => self.show(asked).await,
            _ => Reply::wrong_method("HEAD,GET,POST"),
        }
    }

    /// The refusal of a new token, for people.
    fn trouble(reply: &Reply) -> Reply {
        let what = String::from_utf8_lossy(&reply.body);
        let mut page = html(reply.status, &Subject::Trouble { what: what.trim() });
        page.headers.extend(reply.headers.iter().filter(|(name, _)| *name == RETRY_AFTER).cloned());
        page
    }

    async fn show(&self, asked: &Asked) -> Reply {
        let Some(text) = asked.parameters.get("token").map(str::trim).filter(|text| !text.is_empty()) else {
            return html(StatusCode::OK, &Subject::Start);
        };
        let unknown = || html(StatusCode::NOT_FOUND, &Subject::Unknown { asked: text });
        // People paste the whole URL.
        let Some(token) = Token::parse(text.trim_end_matches('/').rsplit('/').next().unwrap_or_default()) else {
            return unknown();
        };
        let prefix = match self.prefix(asked) {
            Ok(prefix) => prefix,
            Err(reply) => return reply,
        };
        match self.registry.roster(&token).await {
            Ok(None) => unknown(),
            Ok(Some(roster)) => {
                let (url, now) = (format!("{prefix}/{token}"), clock::system().wall());
                html(StatusCode::OK, &Subject::Token { url: &url, roster: &roster, now })
            }
            Err(error) => {
                tracing::warn!(%error, "cannot show a token");
                let what = "The store behind this service does not answer. Try again in a moment.";
                html(StatusCode::SERVICE_UNAVAILABLE, &Subject::Trouble { what })
            }
        }
    }
}

/// The body of a request, if it is a form, within its limits.
async fn read<B>(parts: &Parts, body: B) -> Result<String, String>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if parts.uri.query().is_some_and(|query| query.len() > QUERY_BYTES_MAX) {
        return Err(format!("the query is longer than {QUERY_BYTES_MAX} bytes"));
    }
    if !ask::has_form(parts) {
        return Ok(String::new());
    }
    let whole = Limited::new(body, BODY_BYTES_MAX).collect();
    let whole = timeout(BODY_PATIENCE, whole).await.map_err(|_| "the body did not come".to_owned())?;
    let bytes = whole.map_err(|_| "http: POST too large".to_owned())?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Counts one request of `source`.
///
/// # Errors
/// How long to wait for the next one, in whole seconds.
fn admit(rate: &Mutex<RateLimit>, source: IpAddr) -> Result<(), u64> {
    rate.lock().unwrap_or_else(PoisonError::into_inner).take(source, clock::system().monotonic())
}

/// The answer to a request that cannot be read, in JSON where clients expect it.
fn unreadable(route: &Route, why: String) -> Reply {
    match route {
        Route::Tree(..) => Reply::refusal(&Refusal::of_request(Why::InvalidForm, why)),
        _ => Reply::text(StatusCode::BAD_REQUEST, why + "\n"),
    }
}

fn unavailable(error: RegistryError) -> Reply {
    tracing::warn!(%error, "a request of discovery was not carried out");
    Reply::refusal(&Refusal::of_request(Why::Internal, error.0)).with(RETRY_AFTER, RETRY_SECONDS.into())
}

fn busy(what: &str) -> Reply {
    Reply::refusal(&Refusal::of_request(Why::Internal, what)).with(RETRY_AFTER, RETRY_SECONDS.into())
}

fn later(status: StatusCode, text: &'static str, seconds: u64) -> Reply {
    Reply::text(status, text).with(RETRY_AFTER, seconds.into())
}

/// How many members are meant; the texts for what is no number are those of Go's parser, as in the public service.
fn size(text: &str) -> Result<u32, String> {
    if text.is_empty() {
        return Ok(SIZE_DEFAULT);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("strconv.Atoi: parsing {text:?}: invalid syntax"));
    }
    let size = text.parse().ok().filter(|size| (1..=SIZE_MAX).contains(size));
    size.ok_or_else(|| format!("size must be between 1 and {SIZE_MAX}, not {text}"))
}

fn see_other(token: &Token) -> Reply {
    let mut reply = Reply::text(StatusCode::SEE_OTHER, "");
    if let Ok(location) = HeaderValue::from_str(&format!("/?token={token}")) {
        reply.headers.push((LOCATION, location));
    }
    reply
}

fn html(status: StatusCode, subject: &Subject<'_>) -> Reply {
    let mut reply = Reply::text(status, page::page(subject, SIZE_MAX));
    reply.headers = vec![(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))];
    if let Ok(policy) = HeaderValue::from_str(page::policy()) {
        reply.headers.push((CONTENT_SECURITY_POLICY, policy));
    }
    reply
}

/// The answer as it is sent. A token is a secret in a URL: no browser passes it on or guesses at types, no cache keeps it.
fn finished(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, value) in reply.headers {
        headers.insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests;
