//! Discovery by a token in the v3 keys of a cluster (etcd 3.6 and newer).
//!
//! ```text
//! /_etcd/registry/TOKEN/_config/size      written by hand
//! /_etcd/registry/TOKEN/members/ID        name=url,…, in the order of creation
//! ```
//!
//! As with [`V2`](super::V2), the list is read anew after each change. A registration is an ordinary put, so that a second
//! start overwrites its own; it is written down here all the same, because a start that was cut short after everybody was
//! there needs the cluster no more.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{
    Cause, Listed, Outcome, Own, Progress, Registration, Service, Watch,
    backoff::Backoff,
    census::{self, Census, Registered},
};
use crate::{
    client::{Client, ClientError, Credentials, Options, Rpc},
    pb::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest},
    tls::Dialler,
};

/// Time until the list is read again although nothing was heard.
const WATCH_LIMIT: Duration = Duration::from_mins(2);
/// Waits that end sooner than this, and with nothing new, are followed by a pause as long.
const PAUSE: Duration = Duration::from_secs(1);
/// How often in a row the list may lack this member, which is registered.
const MISSING_MAX: usize = 10;

/// How the cluster that is asked is reached.
#[derive(Clone, Debug)]
pub struct Access {
    /// The token.
    pub token: String,
    /// Where its members listen for clients.
    pub endpoints: Vec<String>,
    /// Time to authenticate.
    pub dial_timeout: Duration,
    /// Time for one request.
    pub request_timeout: Duration,
    /// Time between pings.
    pub keepalive_time: Duration,
    /// Time a ping may stay unanswered.
    pub keepalive_timeout: Duration,
    /// `user` or `user:password`; empty for nobody.
    pub user: String,
    /// The password, unless it stands behind the user.
    pub password: String,
    /// How to encrypt; without it only what `https` demands is encrypted, as the system trusts it.
    pub tls: Option<Dialler>,
}

/// A token in the keys of a cluster.
pub struct V3<'w> {
    access: Access,
    client: Client,
    watch: Watch<'w>,
}

struct Look {
    census: Census,
    size: usize,
    revision: i64,
}

impl Access {
    fn options(&self) -> Options {
        Options {
            endpoints: self.endpoints.clone(),
            dial_timeout: self.dial_timeout,
            keepalive_time: self.keepalive_time,
            keepalive_timeout: self.keepalive_timeout,
            response_bytes_max: RESPONSE_BYTES_MAX,
            credentials: self.credentials(),
            tls: self.tls.clone(),
            ..Options::default()
        }
    }

    fn credentials(&self) -> Credentials {
        let (user, password) = match self.user.split_once(':') {
            Some((user, password)) if self.password.is_empty() => (user, password),
            _ => (self.user.as_str(), self.password.as_str()),
        };
        if user.is_empty() {
            return Credentials::Nobody;
        }
        Credentials::Password { user: user.to_owned(), password: password.to_owned() }
    }

    fn key(&self, below: &str) -> String {
        format!("/_etcd/registry/{}/{below}", self.token)
    }
}

impl<'w> V3<'w> {
    /// Connects, and authenticates if there is a password, however long that takes.
    ///
    /// # Errors
    /// [`Cause::Client`]: endpoints that cannot be dialled, and a refused password.
    pub async fn connect(access: Access, watch: Watch<'w>) -> Result<Self, Cause> {
        let mut backoff = Backoff::default();
        watch(Progress::Asking(access.endpoints.join(",")));
        loop {
            let error = match Client::connect(access.options()).await {
                Ok(client) => return Ok(Self { access, client, watch }),
                Err(error) => error,
            };
            let may_pass = matches!(error, ClientError::DeadlineExceeded { .. } | ClientError::Status { .. });
            if !may_pass {
                return Err(error.into());
            }
            pause(&access, watch, "authentication", &error, &mut backoff).await;
        }
    }

    /// Registers `own` and waits until everybody is there, unless others have taken all places.
    ///
    /// # Errors
    /// [`Cause`]. What cannot be reached is asked again, for ever.
    pub async fn join(&self, own: &Own, registration: &mut Registration) -> Result<Outcome, Cause> {
        let token = self.access.token.as_str();
        let service = Service::of(own, token);
        if let Some(founders) = registration.founders(&service) {
            return Ok(Outcome::Founders(Listed::of_text(founders).founders(own, token)?));
        }
        let key = self.access.key(&format!("members/{}", service.member));
        if let Census::Full(listed) = self.look(Some(&key)).await?.census {
            return Ok(Outcome::Full(listed));
        }
        registration.begin(&service)?;
        self.register(&key, &service).await;
        let listed = match self.await_all(&key).await? {
            Census::Complete(listed) => listed,
            Census::Full(listed) => return Ok(Outcome::Full(listed)),
            Census::Waiting { .. } => return Err(Cause::OwnMissing(key)),
        };
        let founders = listed.founders(own, token)?;
        registration.complete(&service, &listed.text())?;
        Ok(Outcome::Founders(founders))
    }

    async fn look(&self, own: Option<&str>) -> Result<Look, Cause> {
        let mut backoff = Backoff::default();
        loop {
            match self.look_once(own).await? {
                Ok(look) => return Ok(look),
                Err(error) => self.pause("cluster status check", &error, &mut backoff).await,
            }
        }
    }

    async fn look_once(&self, own: Option<&str>) -> Result<Result<Look, ClientError>, Cause> {
        let key = self.access.key("_config/size").into_bytes();
        let size = match self.call(RangeRequest { key: key.into(), ..RangeRequest::default() }).await {
            Ok(answer) => answer.kvs.into_iter().next().ok_or(Cause::SizeNotFound(None))?,
            Err(error) => return Ok(Err(error)),
        };
        let size = census::size(&String::from_utf8_lossy(&size.value))?;
        // etcd's prefix, without a slash at its end.
        let (key, range_end) = prefix(&self.access.key("members"));
        let range = RangeRequest { key: key.into(), range_end: range_end.into(), ..RangeRequest::default() };
        let answer = match self.call(range).await {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        let registered =
            answer.kvs.into_iter().filter_map(|pair| registered(&pair.key, &pair.value, pair.create_revision));
        let census = Census::of(registered.collect(), size, own);
        Ok(Ok(Look { census, size, revision: answer.header.unwrap_or_default().revision }))
    }

    async fn register(&self, key: &str, service: &Service) {
        let mut backoff = Backoff::default();
        loop {
            let (key, value) = (key.as_bytes().to_vec().into(), service.entry.as_bytes().to_vec().into());
            match self.call(PutRequest { key, value, ..PutRequest::default() }).await {
                Ok(_) => return,
                Err(error) => self.pause("register member itself", &error, &mut backoff).await,
            }
        }
    }

    async fn await_all(&self, own: &str) -> Result<Census, Cause> {
        let mut missing = 0;
        let mut before = None;
        loop {
            let Look { census, size, revision } = self.look(Some(own)).await?;
            let Census::Waiting { found, own: is_there } = census else {
                tracing::info!(cluster_size = size, "found all needed peers from discovery service");
                return Ok(census);
            };
            missing = if is_there { 0 } else { missing + 1 };
            if missing > MISSING_MAX {
                return Ok(census);
            }
            if before != Some(found) {
                tracing::info!(cluster_size = size, found_peers = found, "waiting for peers from discovery service");
            }
            (self.watch)(Progress::Waiting { found, size });
            let begun = Instant::now();
            // What comes, and whether it fails, the next look will tell.
            let limit = if missing > 0 { PAUSE } else { WATCH_LIMIT };
            drop(timeout(limit, self.await_change(revision)).await);
            if before.replace(found) == Some(found) {
                sleep(PAUSE.saturating_sub(begun.elapsed())).await;
            }
        }
    }

    async fn await_change(&self, revision: i64) {
        let (key, range_end) = prefix(&self.access.key("members"));
        let mut watcher = self.client.watcher();
        let start_revision = revision.saturating_add(1);
        watcher.watch(WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision,
            ..WatchCreateRequest::default()
        });
        loop {
            let delivery = watcher.next().await;
            if delivery.over || !delivery.response.events.is_empty() {
                return;
            }
        }
    }

    async fn call<R: Rpc>(&self, request: R) -> Result<R::Response, ClientError> {
        self.client.call(request, Some(self.access.request_timeout)).await
    }

    async fn pause(&self, reason: &str, cause: &ClientError, backoff: &mut Backoff) {
        pause(&self.access, self.watch, reason, cause, backoff).await;
    }
}

async fn pause(access: &Access, watch: Watch<'_>, reason: &str, cause: &ClientError, backoff: &mut Backoff) {
    let (pause, endpoints) = (backoff.next(), access.endpoints.join(","));
    tracing::warn!(endpoints, reason, error = %cause, backoff = ?pause, "retry connecting to discovery service");
    watch(Progress::Retrying { whom: endpoints, cause: cause.to_string(), pause });
    sleep(pause).await;
}

/// A registration; what is none is passed over, as by etcd.
fn registered(key: &[u8], value: &[u8], created: i64) -> Option<Registered> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let (id, entry) = (text(key), text(value));
    if !entry.contains('=') {
        tracing::warn!(member_key = id, member_info = entry, "invalid peer info returned from discovery service");
        return None;
    }
    Some(Registered { id, entry, created: u64::try_from(created).unwrap_or(0) })
}

/// A prefix as a range of keys.
fn prefix(text: &str) -> (Vec<u8>, Vec<u8>) {
    let mut end = text.as_bytes().to_vec();
    // The last byte is a letter, so there is a next one.
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    (text.as_bytes().to_vec(), end)
}

/// Longest answer that is read.
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn access(user: &str, password: &str) -> Access {
        Access {
            token: "t".to_owned(),
            endpoints: Vec::new(),
            dial_timeout: PAUSE,
            request_timeout: PAUSE,
            keepalive_time: PAUSE,
            keepalive_timeout: PAUSE,
            user: user.to_owned(),
            password: password.to_owned(),
            tls: None,
        }
    }

    #[test]
    fn password_may_stand_behind_the_user() {
        let both = |user, password| match access(user, password).credentials() {
            Credentials::Password { user, password } => Some((user, password)),
            _ => None,
        };
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(both("root:a:b", ""), pair("root", "a:b"));
        assert_eq!(both("root", "a:b"), pair("root", "a:b"));
        assert_eq!(both("", "x"), None);
    }

    #[test]
    fn keys_are_etcds() {
        assert_eq!(access("", "").key("_config/size"), "/_etcd/registry/t/_config/size");
        let (from, to) = prefix("/members");
        assert_eq!((from.as_slice(), to.as_slice()), (b"/members".as_slice(), b"/membert".as_slice()));
    }

    #[test]
    fn what_is_no_registration_is_passed_over() {
        assert_eq!(registered(b"/k", b"nonsense", 3), None);
        let expected = Registered { id: "/k".to_owned(), entry: "a=http://a:1".to_owned(), created: 3 };
        assert_eq!(registered(b"/k", b" a=http://a:1\n", 3), Some(expected));
    }
}
