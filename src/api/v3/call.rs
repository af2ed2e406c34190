//! What a client says about its call besides the request.

use std::{borrow::Cow, fmt, str, sync::Arc, time::Duration};

use http::HeaderMap;

use crate::{
    api::{
        Api,
        audit::{Caller, Entry},
        status::Status,
    },
    metrics,
    types::{Code, Rejection},
};

/// The value of the label `type` for unary calls.
pub(super) const UNARY: &str = "unary";
/// The value of the label `type` for streaming calls.
pub(super) const STREAM: &str = "stream";

const HAS_LEADER: &str = "hasleader";
const CLIENT_API_VERSION: &str = "client-api-version";
const TOKEN: &str = "token";
const AUTHORIZATION: &str = "authorization";
const BEARER: &str = "Bearer ";
/// The mark of calls that came as JSON, or want to be taken for such.
const GATEWAY_MARK: &str = "grpcgateway-accept";
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// Digits of a `grpc-timeout`.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// The metadata of one call. Only the first value of a repeated key counts.
#[derive(Clone, Default)]
pub(crate) struct Call {
    metadata: HeaderMap,
    caller: Caller,
    /// Its line in the audit log, where that has begun before the request was read.
    entry: Option<Arc<Entry>>,
}

/// Tokens are among the metadata.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

impl Call {
    /// The call with these request headers.
    pub(crate) fn new(metadata: HeaderMap) -> Self {
        Self { metadata, ..Self::default() }
    }

    /// The call, of who speaks on its connection.
    pub(in crate::api) fn of(self, caller: Caller) -> Self {
        Self { caller, ..self }
    }

    /// The call, whose line has begun.
    pub(in crate::api) fn told_by(self, entry: Option<Arc<Entry>>) -> Self {
        Self { entry, ..self }
    }

    /// Its line, if that has begun.
    pub(in crate::api) fn entry(&self) -> Option<&Arc<Entry>> {
        self.entry.as_ref()
    }

    /// Who speaks on the connection.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What the client says who it is by.
    pub(super) fn token(&self) -> Option<Cow<'_, str>> {
        let token = self.value(TOKEN).or_else(|| self.value(AUTHORIZATION))?;
        Some(String::from_utf8_lossy(token.strip_prefix(BEARER.as_bytes()).unwrap_or(token)))
    }

    /// The common name of the certificate the client has shown. JSON is spoken by proxies, whose names are not those of
    /// their clients.
    pub(super) fn common_name(&self) -> Option<&str> {
        self.caller.common_name.as_deref().filter(|_| self.value(GATEWAY_MARK).is_none())
    }

    /// The headers of the request.
    pub(super) fn metadata(&self) -> &HeaderMap {
        &self.metadata
    }

    fn value(&self, key: &str) -> Option<&[u8]> {
        self.metadata.get(key).map(http::HeaderValue::as_bytes)
    }

    /// Whether the call is to fail while the member knows no leader.
    pub(crate) fn wants_leader(&self) -> bool {
        self.value(HAS_LEADER) == Some(b"true")
    }

    fn client_version(&self) -> Result<&str, Rejection> {
        let version = self.value(CLIENT_API_VERSION).unwrap_or(b"unknown");
        str::from_utf8(version).map_err(|_| Rejection::InvalidClientApiVersion)
    }

    /// How long the client waits; nothing if it does not say.
    ///
    /// # Errors
    /// `Internal` for a value that is not a number and a unit.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, Status> {
        let Some(text) = self.value(GRPC_TIMEOUT) else { return Ok(None) };
        let malformed = || {
            let text = String::from_utf8_lossy(text).into_owned();
            Status::new(Code::Internal, format!("malformed grpc-timeout: {text:?}"))
        };
        parse_timeout(text).map(Some).ok_or_else(malformed)
    }

    /// The outcome of `work`, or `DeadlineExceeded` once the client's time is over.
    pub(crate) async fn within_deadline(&self, work: impl Future<Output = Result<(), Status>>) -> Result<(), Status> {
        match self.timeout()? {
            None => work.await,
            Some(patience) => tokio::time::timeout(patience, work).await.unwrap_or(Err(Status::deadline_exceeded())),
        }
    }
}

/// Reads up to eight digits and a unit: `H`, `M`, `S`, `m`, `u` or `n`.
fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount: u64 = str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3_600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

impl Api {
    /// The checks before every method, in etcd's order: learner, client version, leader. Counts the request.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) fn admit(&self, call: &Call, kind: &'static str, learners_serve: bool) -> Result<(), Status> {
        if !learners_serve && self.is_learner() {
            return Err(Rejection::NotSupportedForLearner.into());
        }
        metrics::CLIENT_REQUESTS.with([call.client_version()?, kind]).inc();
        if call.wants_leader() && !self.server().has_leader() {
            return Err(Rejection::NoLeader.into());
        }
        Ok(())
    }

    /// Ends when a stream must: with `NoLeader` after three election timeouts in a row without a leader, if the call
    /// asks for one, or with `Stopped` when the member shuts down.
    pub(super) async fn cut(&self, call: &Call) -> Status {
        let leaderless = async {
            if !call.wants_leader() {
                std::future::pending::<()>().await;
            }
            let mut misses = 0;
            while misses < LEADER_MISSES_MAX {
                let timeout = self.options().election_timeout;
                tokio::time::sleep(timeout).await;
                misses = if self.server().has_leader() { 0 } else { misses + 1 };
            }
        };
        tokio::select! {
            () = leaderless => Rejection::NoLeader.into(),
            () = self.stopping() => Rejection::Stopped.into(),
        }
    }
}

/// Looks at the leader in a row that may find none before a stream is cut.
const LEADER_MISSES_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn call(key: &'static str, value: &[u8]) -> Call {
        let mut metadata = HeaderMap::new();
        metadata.insert(key, HeaderValue::from_bytes(value).unwrap());
        Call::new(metadata)
    }

    #[test]
    fn only_the_exact_word_asks_for_a_leader() {
        assert!(call(HAS_LEADER, b"true").wants_leader());
        assert!(!call(HAS_LEADER, b"True").wants_leader());
        assert!(!Call::default().wants_leader());
    }

    #[test]
    fn tokens_come_in_two_places() {
        let metadata = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(key, value)| (HeaderName::from_static(key), HeaderValue::from_static(value))).collect()
        };
        let token = |pairs| Call::new(metadata(pairs)).token().map(Cow::into_owned);
        assert_eq!(token(&[]), None);
        assert_eq!(token(&[("token", "a.1")]).as_deref(), Some("a.1"));
        assert_eq!(token(&[("authorization", "Bearer a.1")]).as_deref(), Some("a.1"));
        assert_eq!(token(&[("authorization", "b.2"), ("token", "Bearer a.1")]).as_deref(), Some("a.1"));
        assert_eq!(token(&[("authorization", "bearer a.1")]).as_deref(), Some("bearer a.1"));
        assert_eq!(token(&[("token", "")]).as_deref(), Some(""));
    }

    #[test]
    fn names_of_certificates_are_not_taken_from_the_gateway() {
        let caller = Caller { common_name: Some("n".into()), ..Caller::default() };
        assert_eq!(Call::default().of(caller.clone()).common_name(), Some("n"));
        assert_eq!(call(GATEWAY_MARK, b"*/*").of(caller).common_name(), None);
        assert_eq!(Call::default().common_name(), None);
    }

    #[test]
    fn the_client_version_must_be_text() {
        assert_eq!(call(CLIENT_API_VERSION, b"3.7").client_version(), Ok("3.7"));
        assert_eq!(Call::default().client_version(), Ok("unknown"));
        assert_eq!(call(CLIENT_API_VERSION, b"\xff").client_version(), Err(Rejection::InvalidClientApiVersion));
    }

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        assert_eq!(parse_timeout(b"5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout(b"99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(parse_timeout(b"4999742u"), Some(Duration::from_micros(4_999_742)));
        for bad in [&b""[..], b"S", b"5", b"123456789n", b"-1S", b"5x", b"1.5S"] {
            assert_eq!(parse_timeout(bad), None, "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(call(GRPC_TIMEOUT, b"soon").timeout().unwrap_err().code(), Code::Internal);
    }
}
