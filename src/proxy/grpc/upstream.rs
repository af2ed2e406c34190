//! Calls to the cluster, passed on as encoded bytes.
//!
//! Whom to ask is for [`Endpoints`] to say; here is one connection for each of them, dialled when it is first needed and
//! again after a loss. Invariant: a request is sent a second time only when it certainly never left this process, or when
//! carrying it out twice is carrying it out once.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use http::{HeaderMap, HeaderName, uri::PathAndQuery};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{
    Request, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::Channel,
};

use super::identity::{Identity, header_of};
use crate::{
    api::status::Status,
    client::{self, ClientError},
    proxy::endpoints::{Endpoint, Endpoints},
    tls::Dialler,
    types::{Code, Rejection},
};

/// Longest wait of one call for an endpoint that answers; etcd's clients give up after as long without one.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(5);
/// Most times one call is sent, as in etcd's client.
const ATTEMPTS_MAX: u32 = 100;
/// Pause before a call is sent again, unless there is somebody else to send it to.
const BACKOFF: Duration = Duration::from_millis(25);

/// Calls whose answer may rightly take any time: it waits for another client, or for a whole file.
const LONG: [&str; 3] = ["/v3lockpb.", "/v3electionpb.", "/etcdserverpb.Maintenance/"];

/// What travels with a call of a client besides its request: who it is, and what it wants of the member.
const PASSED_ON: [&str; 3] = ["token", "hasleader", "client-api-version"];

/// A call as it is passed on.
#[derive(Clone, Debug, Default)]
pub(super) struct Outgoing {
    metadata: MetadataMap,
    /// When the client stops waiting.
    deadline: Option<Instant>,
}

impl Outgoing {
    /// With the headers of a client's call, and with its time.
    pub(super) fn of(headers: &HeaderMap, patience: Option<Duration>) -> Self {
        let mut passed = HeaderMap::new();
        for name in PASSED_ON {
            if let Some(value) = headers.get(name) {
                passed.insert(HeaderName::from_static(name), value.clone());
            }
        }
        let deadline = patience.map(|patience| Instant::now() + patience);
        Self { metadata: MetadataMap::from_headers(passed), deadline }
    }

    /// A call of the proxy itself that is over after `patience`.
    pub(super) fn within(patience: Duration) -> Self {
        Self { metadata: MetadataMap::new(), deadline: Some(Instant::now() + patience) }
    }

    /// On behalf of whoever has this token; only a member with a leader may serve it.
    pub(super) fn with_leader(token: Option<&Token>) -> Self {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(HeaderName::from_static("hasleader"), http::HeaderValue::from_static("true"));
        if let Some(Token(token)) = token {
            headers.insert(HeaderName::from_static("token"), token.clone());
        }
        Self { metadata: MetadataMap::from_headers(headers), deadline: None }
    }

    /// The same, over after `patience`.
    pub(super) fn until(self, patience: Duration) -> Self {
        Self { deadline: Some(Instant::now() + patience), ..self }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        request
    }
}

/// The token of a user, as it travels.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Token(http::HeaderValue);

impl Token {
    /// The token in the headers of a call.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get("token").cloned().map(Self)
    }
}

impl fmt::Debug for Token {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The cluster behind the proxy.
#[derive(Debug)]
pub(super) struct Upstream {
    endpoints: Arc<Endpoints>,
    options: client::Options,
    /// By address. What is no endpoint any more is dropped at the next call.
    channels: Mutex<BTreeMap<String, Channel>>,
    identity: Arc<Identity>,
}

/// An endpoint and the connection to it.
pub(super) struct Picked {
    endpoint: Arc<Endpoint>,
    channel: Channel,
}

impl Upstream {
    /// A cluster at `endpoints`, dialled as `options` say.
    pub(super) fn new(endpoints: Arc<Endpoints>, options: client::Options) -> Arc<Self> {
        Arc::new(Self { endpoints, options, channels: Mutex::default(), identity: Arc::default() })
    }

    /// Which cluster it is.
    pub(super) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Where it is.
    pub(super) fn endpoints(&self) -> &Arc<Endpoints> {
        &self.endpoints
    }

    /// How its connections are encrypted, where an endpoint does not say.
    pub(super) fn dialler(&self) -> Option<&Dialler> {
        self.options.tls.as_ref()
    }

    /// One request, one answer. `repeatable` says that carrying it out twice is carrying it out once.
    ///
    /// # Errors
    /// What the member answered last, or that there is none.
    pub(super) async fn unary(
        &self,
        path: &PathAndQuery,
        call: &Outgoing,
        request: Bytes,
        repeatable: bool,
    ) -> Result<Bytes, Status> {
        let (mut attempt, patience) = (0, Instant::now() + CONNECTION_PATIENCE);
        loop {
            let picked = self.pick(call, patience).await?;
            let error = match self.send(path, call, request.clone(), &picked).await {
                Ok(answer) => {
                    if let Some(header) = header_of(&answer) {
                        self.identity.see(&header);
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let again = self.judge(&picked, &error) || (repeatable && error.code() == tonic::Code::Unavailable);
            attempt += 1;
            if !again || attempt >= ATTEMPTS_MAX {
                return Err(status_of(&error));
            }
            self.back_off(attempt).await;
        }
    }

    /// Opens a call that is answered by many messages. `requests` is asked for the messages of each attempt.
    ///
    /// # Errors
    /// As [`Upstream::unary`].
    pub(super) async fn open<S, Q, A, C>(
        &self,
        path: &PathAndQuery,
        call: &Outgoing,
        codec: impl Fn() -> C,
        requests: impl FnMut() -> S,
    ) -> Result<Streaming<A>, Status>
    where
        S: tokio_stream::Stream<Item = Q> + Send + 'static,
        C: Codec<Encode = Q, Decode = A> + Send + 'static,
        Q: Send + Sync + 'static,
        A: Send + Sync + 'static,
    {
        self.open_within(path, call, codec, requests, Duration::MAX).await.map(|(answers, _)| answers)
    }

    /// As [`Upstream::open`], for requests that every member answers at once, and that harm nobody when they are sent twice: a
    /// member that says nothing for as long as `silence` is given up for the next. Names the one that answers.
    ///
    /// # Errors
    /// As [`Upstream::unary`].
    pub(super) async fn open_within<S, Q, A, C>(
        &self,
        path: &PathAndQuery,
        call: &Outgoing,
        codec: impl Fn() -> C,
        mut requests: impl FnMut() -> S,
        silence: Duration,
    ) -> Result<(Streaming<A>, Picked), Status>
    where
        S: tokio_stream::Stream<Item = Q> + Send + 'static,
        C: Codec<Encode = Q, Decode = A> + Send + 'static,
        Q: Send + Sync + 'static,
        A: Send + Sync + 'static,
    {
        let (mut attempt, patience) = (0, Instant::now() + CONNECTION_PATIENCE);
        loop {
            let picked = self.pick(call, patience).await?;
            let request = call.request(requests());
            let mut grpc = self.grpc(picked.channel.clone());
            let opening = async {
                grpc.ready().await.map_err(|error| tonic::Status::from_error(error.into()))?;
                grpc.streaming(request, path.clone(), codec()).await
            };
            attempt += 1;
            let error = match timeout(silence, opening).await {
                Ok(Ok(answers)) => {
                    self.endpoints.report_answered(&picked.endpoint);
                    return Ok((answers.into_inner(), picked));
                }
                Ok(Err(error)) => error,
                Err(_) if attempt < ATTEMPTS_MAX => {
                    self.give_up(&picked, silence);
                    continue;
                }
                Err(_) => return Err(nobody()),
            };
            if !self.judge(&picked, &error) || attempt >= ATTEMPTS_MAX {
                return Err(status_of(&error));
            }
            self.back_off(attempt).await;
        }
    }

    /// A member took what it was sent and said nothing for as long as `silence`: it is left alone for a while, and reached by
    /// a new connection then.
    pub(super) fn give_up(&self, picked: &Picked, silence: Duration) {
        self.lock().remove(&picked.endpoint.address);
        self.endpoints.report_failed(&picked.endpoint, &format!("no answer within {silence:?}"));
    }

    async fn send(
        &self,
        path: &PathAndQuery,
        call: &Outgoing,
        request: Bytes,
        picked: &Picked,
    ) -> Result<Bytes, tonic::Status> {
        let asked = self.endpoints.ask(&picked.endpoint);
        let asked = if may_take_long(path.path()) { asked.without_limit() } else { asked };
        let sent = async {
            let mut grpc = self.grpc(picked.channel.clone());
            grpc.ready().await.map_err(|error| tonic::Status::from_error(error.into()))?;
            grpc.unary(call.request(request), path.clone(), BytesCodec).await.map(tonic::Response::into_inner)
        };
        let answer = match call.deadline {
            None => Ok(sent.await),
            Some(deadline) => timeout_at(deadline, sent).await,
        };
        let late = || tonic::Status::deadline_exceeded(Rejection::DeadlineExceeded.to_string());
        let answer = answer.map_err(|_| late())?;
        match &answer {
            Err(error) if is_late(error) => {}
            Err(error) if is_broken(error) => asked.ended(),
            Ok(_) | Err(_) => asked.answered(),
        }
        answer
    }

    fn grpc(&self, channel: Channel) -> Grpc<Channel> {
        Grpc::new(channel).max_decoding_message_size(self.options.response_bytes_max)
    }

    /// Waits for an endpoint that may be asked, until `patience` is over or that of the client.
    async fn pick(&self, call: &Outgoing, patience: Instant) -> Result<Picked, Status> {
        let until = call.deadline.map_or(patience, |deadline| deadline.min(patience));
        loop {
            let Ok(endpoint) = timeout_at(until, self.endpoints.wait_for_one()).await else {
                return Err(if until < patience { Rejection::DeadlineExceeded.into() } else { nobody() });
            };
            match self.channel(&endpoint) {
                Ok(channel) => return Ok(Picked { endpoint, channel }),
                Err(error) => self.endpoints.report_failed(&endpoint, &error),
            }
        }
    }

    fn channel(&self, endpoint: &Endpoint) -> Result<Channel, ClientError> {
        let mut channels = self.lock();
        if let Some(channel) = channels.get(&endpoint.address) {
            return Ok(channel.clone());
        }
        let known = self.endpoints.all();
        channels.retain(|address, _| known.iter().any(|endpoint| endpoint.address == *address));
        let channel = client::connect_lazily(&client::Endpoint::parse(&endpoint.address), &self.options)?;
        channels.insert(endpoint.address.clone(), channel.clone());
        Ok(channel)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the request never left this process. An endpoint whose connection broke is left alone for a while.
    fn judge(&self, picked: &Picked, error: &tonic::Status) -> bool {
        let never_sent = client::never_sent(error);
        if is_broken(error) {
            self.endpoints.report_failed(&picked.endpoint, &client::root_cause(error));
        }
        never_sent
    }

    /// One round over the endpoints goes without pause, then there is one.
    async fn back_off(&self, attempt: u32) {
        let count = u32::try_from(self.endpoints.available().len()).unwrap_or(u32::MAX).max(1);
        if attempt.is_multiple_of(count) {
            sleep(BACKOFF).await;
        }
    }
}

/// Calls that members answer when something happens.
fn may_take_long(path: &str) -> bool {
    LONG.iter().any(|begin| path.starts_with(begin))
}

/// Whether the client's time was over before anything came.
fn is_late(error: &tonic::Status) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<tonic::TimeoutExpired>)
}

/// Whether the connection failed, not the member's answer.
fn is_broken(error: &tonic::Status) -> bool {
    client::never_sent(error) || (std::error::Error::source(error).is_some() && !is_late(error))
}

/// What a client hears when no endpoint answers.
fn nobody() -> Status {
    Status::new(Code::Unavailable, "etcdclient: no available endpoints")
}

/// A status as a text, in the words of etcd's client, which its proxy passes on: of what etcd refuses, the reason alone.
pub(super) fn text_of(status: &Status) -> String {
    ClientError::from_parts(tonic::Code::from_i32(status.code() as i32), status.message()).to_string()
}

/// A status of the member, or of this side, as it is passed on.
pub(super) fn status_of(error: &tonic::Status) -> Status {
    let known = ClientError::from_status(error);
    let message = match &known {
        ClientError::Status { message, .. } => message.clone(),
        other => other.to_string(),
    };
    Status::new(code_of(known.code()), message)
}

fn code_of(code: tonic::Code) -> Code {
    match code {
        tonic::Code::Cancelled => Code::Canceled,
        tonic::Code::InvalidArgument => Code::InvalidArgument,
        tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
        tonic::Code::NotFound => Code::NotFound,
        tonic::Code::PermissionDenied => Code::PermissionDenied,
        tonic::Code::ResourceExhausted => Code::ResourceExhausted,
        tonic::Code::FailedPrecondition | tonic::Code::AlreadyExists | tonic::Code::Aborted => Code::FailedPrecondition,
        tonic::Code::OutOfRange => Code::OutOfRange,
        tonic::Code::Unimplemented => Code::Unimplemented,
        tonic::Code::Internal => Code::Internal,
        tonic::Code::Unavailable => Code::Unavailable,
        tonic::Code::DataLoss => Code::DataLoss,
        tonic::Code::Unauthenticated => Code::Unauthenticated,
        tonic::Code::Ok | tonic::Code::Unknown => Code::Unknown,
    }
}

/// Messages that nobody looks into.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::endpoints::Recovery;

    #[test]
    fn only_what_concerns_the_member_is_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("token", "secret"), ("hasleader", "true"), ("te", "trailers"), ("x-other", "1")] {
            headers.insert(name, http::HeaderValue::from_static(value));
        }
        let passed = Outgoing::of(&headers, None).metadata.into_headers();
        assert_eq!(
            (passed.len(), &passed["token"], &passed["hasleader"]),
            (2, &headers["token"], &headers["hasleader"])
        );
        assert_eq!(format!("{:?}", Token::of(&headers)), "Some(Token)");
    }

    #[test]
    fn refusals_keep_code_and_words() {
        let refused = tonic::Status::out_of_range("etcdserver: mvcc: required revision has been compacted");
        assert_eq!(status_of(&refused), Rejection::Compacted.into());
        assert_eq!(text_of(&Rejection::PermissionDenied.into()), "etcdserver: permission denied");
        let unknown = Status::new(Code::Unavailable, "what now");
        assert_eq!(text_of(&unknown), "rpc error: code = Unavailable desc = what now");
        let odd = status_of(&tonic::Status::unknown("what now"));
        assert_eq!((odd.code(), odd.message()), (Code::Unknown, "what now"));
    }

    /// It takes whatever it is sent, as the system does for a process that stands still.
    #[tokio::test]
    async fn a_member_that_says_nothing_is_passed_over() {
        let still = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = still.local_addr().unwrap().to_string();
        let endpoints = Endpoints::new(Recovery::AfterWait(Duration::from_millis(20)));
        endpoints.replace(&[Endpoint::new(silent.as_str())]);
        let upstream = Upstream::new(Arc::clone(&endpoints), client::Options::default());
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
        let call = Outgoing::within(Duration::from_millis(1_200));
        upstream.unary(&path, &call, Bytes::new(), true).await.unwrap_err();
        endpoints.replace(&[Endpoint::new(silent.as_str()), Endpoint::new("other")]);
        let picked: Vec<_> = (0..3).filter_map(|_| endpoints.pick()).map(|picked| picked.address.clone()).collect();
        assert_eq!(picked, ["other", "other", "other"]);
        // Alone it is asked nevertheless.
        endpoints.replace(&[Endpoint::new(silent.as_str())]);
        assert_eq!(endpoints.wait_for_one().await.address, silent);
    }

    #[tokio::test]
    async fn a_call_that_nobody_takes_ends_with_the_time_of_its_client() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let endpoints = Endpoints::new(Recovery::AfterWait(Duration::from_millis(20)));
        endpoints.replace(&[Endpoint::new(closed.to_string())]);
        let upstream = Upstream::new(endpoints, client::Options::default());
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
        let call = Outgoing::within(Duration::from_millis(150));
        let refused = upstream.unary(&path, &call, Bytes::new(), true).await.unwrap_err();
        assert_eq!(refused, Rejection::DeadlineExceeded.into());
    }
}
