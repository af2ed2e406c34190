//! The client of the v3 API that the command-line tools, the proxies and discovery share. That of the v2 API is [`v2`].
//!
//! A [`Client`] keeps one connection per endpoint, spreads calls over those that are up and decides which failures may
//! be repeated. It leaves the meaning of answers to its callers. Floor 4.
//!
//! Invariants:
//! - A request that can change the store is sent again only when it certainly never left this process.
//! - A call without a time limit waits until some endpoint is up; a call with one ends at that limit whatever happens.
//! - A watch continues behind the last revision it delivered: nothing is delivered twice and nothing is skipped.

mod auth;
mod balance;
mod call;
mod dial;
mod endpoint;
mod error;
mod lease;
mod stream;
#[cfg(test)]
mod tests;
pub mod v2;
mod watch;
pub mod web;

use std::{sync::Arc, time::Duration};

pub use auth::Credentials;
pub use balance::connect_lazily;
pub use call::{Rpc, is_repeatable, never_sent, root_cause};
pub use endpoint::{Address, Endpoint, Security};
pub use error::{ClientError, Refusal};
pub use lease::KeepAlive;
pub use stream::Messages;
pub use watch::{Delivery, WatchKey, Watcher};

use tokio::time::Instant;

use crate::tls::Dialler;
use auth::Auth;
use balance::Balancer;

/// Longest request a client sends unless told otherwise: 2 MiB, what a member with default limits still reads.
pub const REQUEST_BYTES_MAX_DEFAULT: usize = 2 * 1024 * 1024;
/// Longest answer a client reads unless told otherwise; ranges can be far larger than requests.
pub const RESPONSE_BYTES_MAX_DEFAULT: usize = i32::MAX as usize;

/// Silence after which a connection with calls on it is pinged, unless told otherwise.
pub const KEEPALIVE_TIME_DEFAULT: Duration = Duration::from_secs(30);
/// Time a ping may stay unanswered, unless told otherwise; as long as members give their clients.
pub const KEEPALIVE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the members listen, as their operators write it: `host:port`, `http://host:port`, `https://host:port`,
    /// `unix:///path`, `unixs:///path`.
    pub endpoints: Vec<String>,
    /// Time for the authentication that [`Client::connect`] performs when there is a password.
    pub dial_timeout: Duration,
    /// Silence after which a connection with calls on it is pinged; zero pings never, less than 10 s means 10 s.
    pub keepalive_time: Duration,
    /// Time a ping may stay unanswered before the connection is given up.
    pub keepalive_timeout: Duration,
    /// Longest encoded request in bytes.
    pub request_bytes_max: usize,
    /// Longest encoded answer in bytes.
    pub response_bytes_max: usize,
    /// Who is calling.
    pub credentials: Credentials,
    /// How to encrypt. Endpoints without a scheme are encrypted if there is one; `https` endpoints are without it, too, with
    /// the authorities of the system.
    pub tls: Option<Dialler>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            dial_timeout: Duration::from_secs(2),
            keepalive_time: KEEPALIVE_TIME_DEFAULT,
            keepalive_timeout: KEEPALIVE_TIMEOUT_DEFAULT,
            request_bytes_max: REQUEST_BYTES_MAX_DEFAULT,
            response_bytes_max: RESPONSE_BYTES_MAX_DEFAULT,
            credentials: Credentials::Nobody,
            tls: None,
        }
    }
}

/// A handle on a cluster; clones share the connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    balancer: Balancer,
    auth: Auth,
    request_bytes_max: usize,
    response_bytes_max: usize,
}

impl Client {
    /// Starts connecting to every endpoint and, when there is a password, authenticates within the dial timeout.
    ///
    /// Without a password this returns at once: calls wait for a connection themselves. Must run inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`ClientError::NoEndpoints`], [`ClientError::BadEndpoint`], or whatever authentication answered.
    pub async fn connect(options: Options) -> Result<Self, ClientError> {
        let endpoints = Endpoint::parse_all(&options.endpoints)?;
        let client = Self {
            inner: Arc::new(Inner {
                balancer: Balancer::start(endpoints, &options)?,
                auth: Auth::new(options.credentials)?,
                request_bytes_max: options.request_bytes_max,
                response_bytes_max: options.response_bytes_max,
            }),
        };
        client.authenticate(Some(options.dial_timeout)).await?;
        Ok(client)
    }

    /// Waits until some endpoint is up, at most for `limit`; zero waits for ever.
    ///
    /// # Errors
    /// [`ClientError::DeadlineExceeded`], with what failed last.
    pub async fn reach(&self, limit: Duration) -> Result<(), ClientError> {
        let deadline = Some(limit).filter(|limit| !limit.is_zero()).map(|limit| Instant::now() + limit);
        self.pick(deadline).await.map(drop)
    }

    /// How many endpoints this client spreads its calls over.
    pub fn endpoint_count(&self) -> usize {
        self.inner.balancer.len()
    }
}
