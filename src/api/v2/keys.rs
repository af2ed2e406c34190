//! `/v2/keys`.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::Request as HttpRequest,
    http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, StatusCode},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream::{StreamExt as _, unfold};

use super::{
    auth,
    form::{Form, unescaped_path},
    json::{self, GOT_END, Got},
    json_body,
    scribes::Scribes,
    with_cluster_id, wrong_method,
};
use crate::{
    api::{Api, Remote, audit::Refused, hot::Aim},
    metrics,
    server::v2::{RaftPlace, V2Error, V2Found, V2Watch},
    types::Rejection,
    v2store::{Action, Depth, Error, ErrorCode, Event, KEYS_PREFIX, Method, Nanos, Path, Request, Step, Watch},
};

const PREFIX: &str = "/v2/keys";
/// In the order in which clients are told of them.
const METHODS: [HttpMethod; 5] =
    [HttpMethod::HEAD, HttpMethod::GET, HttpMethod::PUT, HttpMethod::POST, HttpMethod::DELETE];
pub(in crate::api) const ETCD_INDEX: HeaderName = HeaderName::from_static("x-etcd-index");
const RAFT_INDEX: HeaderName = HeaderName::from_static("x-raft-index");
const RAFT_TERM: HeaderName = HeaderName::from_static("x-raft-term");
/// Keys and values that are read for one piece of an answer.
const PIECE_BYTES: usize = 64 << 10;
/// Every parameter of a request.
const PARAMETERS: [&str; 14] = [
    "value",
    "prevIndex",
    "waitIndex",
    "recursive",
    "sorted",
    "wait",
    "dir",
    "quorum",
    "stream",
    "prevValue",
    "noValueOnSuccess",
    "ttl",
    "prevExist",
    "refresh",
];
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Answers a request of keys.
pub(super) async fn serve(api: Arc<Api>, request: HttpRequest) -> Response {
    if let Some(refusal) = wrong_method(&request, &METHODS) {
        return refusal;
    }
    let answer = match answer(&api, request).await {
        Ok(answer) => answer,
        Err(why) => {
            let written = api.scribes.write(cause_bytes(&why), move || refusal(&why)).await;
            written.unwrap_or_else(|why| refusal(&why))
        }
    };
    with_cluster_id(&api, answer)
}

/// What a refusal tells of values: a comparison that failed shows both.
fn cause_bytes(why: &V2Error) -> usize {
    if let V2Error::Store(error) = why { error.cause.len() } else { 0 }
}

/// Checks in etcd's order: the form, who asks, the request itself.
async fn answer(api: &Arc<Api>, request: HttpRequest) -> Result<Response, V2Error> {
    let method = request.method().clone();
    let whole = unescaped_path(request.uri().path());
    let key = whole.get(PREFIX.len()..).unwrap_or_default().to_vec();
    let from = request.extensions().get().map(|Remote(from)| *from);
    // By the whole path: the third API has keys of the same names.
    api.hot.count(Some(Aim { key: &whole, writes: Method::named(method.as_str().as_bytes()).is_some() }), from);
    let who = auth::Asker::of(&request);
    let form = Form::read(request, &PARAMETERS, &api.forms)
        .await
        .map_err(|text| Error::new(ErrorCode::InvalidForm, text, 0))?;
    let asked = Asked::read(&method, &form)?;
    if !auth::may_use_keys(api, &who, &method, &key, asked.recursive).await {
        return Err(Error::new(ErrorCode::Unauthorized, "Insufficient credentials", 0).into());
    }
    let path = Path::below(KEYS_PREFIX, &key);
    match Method::named(method.as_str().as_bytes()) {
        None if asked.wait && !asked.quorum => watch(api, path, &asked).await,
        None => read(api, path, &asked, &method).await,
        Some(kind) => write(api, kind, &path, asked).await,
    }
}

async fn read(api: &Api, path: Path, asked: &Asked, method: &HttpMethod) -> Result<Response, V2Error> {
    let depth = if asked.recursive { Depth::All } else { Depth::Children };
    let quorum = asked.quorum && method == HttpMethod::GET;
    let counted = Counted::begin(if quorum { "QGET" } else { method.as_str() });
    let found = counted.end(api.server().v2_read(path, depth, quorum).await)?;
    let index = found.index();
    let body = found_body(Rest { scribes: api.scribes.clone(), got: Got::default(), found }).await?;
    let mut response = json_body(StatusCode::OK, body);
    put_places(response.headers_mut(), index, api.server().raft_place());
    Ok(response)
}

/// Small answers at once, larger ones piece by piece, as the client takes them.
async fn found_body(whole: Rest) -> Result<Body, V2Error> {
    let (rest, first) = piece(whole).await?;
    let Some(rest) = rest else { return Ok(first.into()) };
    let rest = unfold(Some(rest), next_piece);
    Ok(Body::from_stream(futures_util::stream::iter([Ok(first)]).chain(rest)))
}

/// The next piece of a large answer. One that cannot be read breaks the answer off, which clients notice.
async fn next_piece(rest: Option<Rest>) -> Option<(Result<Bytes, V2Error>, Option<Rest>)> {
    match piece(rest?).await {
        Ok((rest, piece)) => Some((Ok(piece), rest)),
        Err(why) => Some((Err(why), None)),
    }
}

/// What is left of an answer, and how far it is written.
struct Rest {
    scribes: Scribes,
    got: Got,
    found: V2Found,
}

/// The next piece, which is not empty, and what is left then.
async fn piece(rest: Rest) -> Result<(Option<Rest>, Bytes), V2Error> {
    let Rest { scribes, mut got, mut found } = rest;
    let mut piece = Vec::new();
    // Where much is hidden, there may be nothing to show for several steps.
    while piece.is_empty() {
        let steps;
        (found, steps) = found.steps(PIECE_BYTES).await?;
        let bytes = steps.iter().map(Step::bytes).sum();
        let write = move || {
            got.write(&steps, &mut piece);
            (got, piece)
        };
        (got, piece) = scribes.write(bytes, write).await?;
        if found.is_done() {
            piece.extend_from_slice(GOT_END);
            return Ok((None, piece.into()));
        }
    }
    Ok((Some(Rest { scribes, got, found }), piece.into()))
}

async fn write(api: &Api, kind: Method, path: &Path, asked: Asked) -> Result<Response, V2Error> {
    let counted = Counted::begin(kind.name());
    let brief = asked.no_value_on_success;
    let done = counted.end(api.server().v2_write(asked.request(kind, path, api.server().v2_now())).await)?;
    success(api, done, brief).await
}

async fn success(api: &Api, event: Arc<Event>, brief: bool) -> Result<Response, V2Error> {
    let index = event.index;
    let is_put = matches!(event.action, Action::Set | Action::CompareAndSwap | Action::Create | Action::Update);
    let status = if event.is_creation() { StatusCode::CREATED } else { StatusCode::OK };
    let body = api.scribes.write(event.bytes(), move || json::event(&event, brief && is_put)).await?;
    let mut response = json_body(status, body);
    put_places(response.headers_mut(), index, api.server().raft_place());
    Ok(response)
}

/// Waits: the headers go at once, and each event is a line of the body.
async fn watch(api: &Arc<Api>, path: Path, asked: &Asked) -> Result<Response, V2Error> {
    let (recursive, stream) = (asked.recursive, asked.stream);
    let watcher = api.server().v2_watch(Watch { path, recursive, stream }, asked.wait_index).await?;
    let (index, place) = (watcher.index(), api.server().raft_place());
    let lines = Lines { api: Arc::clone(api), watcher, stream };
    let mut response = json_body(StatusCode::OK, Body::from_stream(unfold(Some(lines), Lines::next)));
    put_places(response.headers_mut(), index, place);
    Ok(response)
}

/// The body of an answer that waits.
struct Lines {
    api: Arc<Api>,
    watcher: V2Watch,
    stream: bool,
}

impl Lines {
    async fn next(lines: Option<Self>) -> Option<(Result<Bytes, Infallible>, Option<Self>)> {
        let mut lines = lines?;
        let event = tokio::select! {
            event = lines.watcher.next() => event?,
            () = lines.api.stopping() => return None,
        };
        // Nobody writes any more where the process ends, and the line is the last one as above.
        let line = lines.api.scribes.write(event.bytes(), move || json::event(&event, false)).await.ok()?;
        Some((Ok(line.into()), lines.stream.then_some(lines)))
    }
}

fn put_places(headers: &mut HeaderMap, index: u64, raft: RaftPlace) {
    for (name, number) in [(ETCD_INDEX, index), (RAFT_INDEX, raft.index), (RAFT_TERM, raft.term)] {
        headers.insert(name, HeaderValue::from(number));
    }
}

pub(super) fn refusal(why: &V2Error) -> Response {
    let error = told(why);
    let mut response = json_body(status(why), json::error(&error));
    response.headers_mut().insert(ETCD_INDEX, HeaderValue::from(error.index));
    response.extensions_mut().insert(Refused(error.code.message()));
    response
}

/// The refusal as clients know it.
fn told(why: &V2Error) -> Error {
    match why {
        V2Error::Store(error) => error.clone(),
        // A member without a leader has waited as long as for an answer.
        V2Error::Server(crate::server::ServerError::Rejected(Rejection::DeadlineExceeded)) => {
            Error::new(ErrorCode::RaftInternal, Rejection::Timeout.to_string(), 0)
        }
        why => Error::new(ErrorCode::RaftInternal, why.to_string(), 0),
    }
}

fn status(why: &V2Error) -> StatusCode {
    match why {
        V2Error::Unavailable(_) | V2Error::TooManyWatchers(_) => StatusCode::SERVICE_UNAVAILABLE,
        V2Error::Store(error) => status_of(error.code),
        V2Error::Server(_) => status_of(ErrorCode::RaftInternal),
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::KeyNotFound => StatusCode::NOT_FOUND,
        ErrorCode::NotFile | ErrorCode::DirNotEmpty => StatusCode::FORBIDDEN,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::TestFailed | ErrorCode::NodeExist => StatusCode::PRECONDITION_FAILED,
        ErrorCode::RaftInternal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// One request among etcd's numbers of this API.
struct Counted {
    method: &'static str,
    begun: crate::clock::Stopwatch,
}

impl Counted {
    fn begin(method: &str) -> Self {
        let known = ["GET", "QGET", "HEAD", "PUT", "POST", "DELETE"];
        let method = known.into_iter().find(|name| *name == method).unwrap_or("GET");
        metrics::V2_RECEIVED.with([method]).inc();
        Self { method, begun: crate::clock::Stopwatch::start() }
    }

    fn end<T>(self, outcome: Result<T, V2Error>) -> Result<T, V2Error> {
        match &outcome {
            Ok(_) => metrics::V2_SUCCESS_DURATION.with([self.method]).observe(self.begun.elapsed()),
            Err(why) => {
                metrics::V2_FAILED.with([status(why).as_str(), self.method]).inc();
            }
        }
        outcome
    }
}

/// What a client asks for.
#[derive(Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "etcd's parameters")]
struct Asked {
    recursive: bool,
    wait: bool,
    dir: bool,
    quorum: bool,
    stream: bool,
    no_value_on_success: bool,
    wait_index: u64,
    prev_index: u64,
    prev_value: Bytes,
    prev_exist: Option<bool>,
    refresh: Option<bool>,
    /// In seconds.
    ttl: Option<u64>,
    value: Bytes,
}

impl Asked {
    /// Reads the parameters, in etcd's order: of several mistakes the first one is told.
    fn read(method: &HttpMethod, form: &Form<'_>) -> Result<Self, Error> {
        let mut asked = Self { value: form.text("value"), ..Self::default() };
        let number = |name: &str| form.number(name).map_err(|()| field(ErrorCode::IndexNotANumber, name));
        let switch = |name: &str| form.switch(name).map_err(|()| field(ErrorCode::InvalidField, name));
        asked.prev_index = number("prevIndex")?;
        asked.wait_index = number("waitIndex")?;
        asked.recursive = switch("recursive")?;
        // Listings are always sorted.
        switch("sorted")?;
        asked.wait = switch("wait")?;
        asked.dir = switch("dir")?;
        asked.quorum = switch("quorum")?;
        asked.stream = switch("stream")?;
        if asked.wait && method != HttpMethod::GET {
            return Err(bad(ErrorCode::InvalidField, "\"wait\" can only be used with GET requests"));
        }
        asked.prev_value = form.text("prevValue");
        if form.get("prevValue").is_some_and(<[u8]>::is_empty) {
            return Err(bad(ErrorCode::PrevValueRequired, "\"prevValue\" cannot be empty"));
        }
        asked.no_value_on_success = switch("noValueOnSuccess")?;
        if !form.text("ttl").is_empty() {
            asked.ttl = Some(form.number("ttl").map_err(|()| field(ErrorCode::TtlNotANumber, "ttl"))?);
        }
        asked.read_conditions(form)?;
        Ok(asked)
    }

    fn read_conditions(&mut self, form: &Form<'_>) -> Result<(), Error> {
        let invalid = |text: &'static str| move |()| bad(ErrorCode::InvalidField, text);
        self.prev_exist = form.optional_switch("prevExist").map_err(invalid("invalid value for prevExist"))?;
        self.refresh = form.optional_switch("refresh").map_err(invalid("invalid value for refresh"))?;
        if self.refresh != Some(true) {
            return Ok(());
        }
        if !self.value.is_empty() {
            return Err(bad(ErrorCode::RefreshValue, "A value was provided on a refresh"));
        }
        if self.ttl.is_none() { Err(bad(ErrorCode::RefreshTtlRequired, "No TTL value set")) } else { Ok(()) }
    }

    /// As it goes into the log, received at `now`.
    fn request(self, kind: Method, path: &Path, now: Nanos) -> Request {
        let Self { recursive, dir, prev_index, prev_value, prev_exist, refresh, ttl, value, .. } = self;
        let expiration = ttl.map_or(0, |seconds| expiration(now, seconds));
        Request {
            value,
            dir,
            prev_value,
            prev_index,
            prev_exist,
            expiration,
            recursive,
            refresh,
            ..Request::new(kind, path, now)
        }
    }
}

/// Gigantic times to live overflow, as they do in etcd: the store takes what is long past for none.
fn expiration(now: Nanos, seconds: u64) -> Nanos {
    now.wrapping_add(seconds.cast_signed().wrapping_mul(NANOS_PER_SECOND))
}

fn bad(code: ErrorCode, cause: &'static str) -> Error {
    Error::new(code, cause, 0)
}

fn field(code: ErrorCode, name: &str) -> Error {
    Error::new(code, format!("invalid value for \"{name}\""), 0)
}
