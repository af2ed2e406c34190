//! The client of the v2 API: HTTP/1.1 with whichever endpoint answers, and the meaning of what it says.
//!
//! A [`Cluster`] asks one endpoint after the other, beginning with the one that answered last, and words its failures as
//! etcd's own client does. What the calls are for is left to its callers, and so is their time limit: dropping a call
//! breaks it off.
//!
//! Invariants:
//! - A creation and a deletion are sent to one endpoint only: a second try could meet the work of the first.
//! - Every connection is made in `dial`, carries one request, and is driven by whoever waits for the answer.
//! - No answer is read beyond [`ANSWER_BYTES_MAX`].

mod action;
mod auth;
mod connection;
mod dial;
mod endpoint;
mod error;
mod json;
mod keys;
mod members;

use std::{mem, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::LOCATION};
use tokio::time::timeout;

pub use action::canonical_path;
pub use auth::{Access, Permissions, Role, User};
pub use connection::ANSWER_BYTES_MAX;
pub use endpoint::Endpoint;
pub use error::{Attempt, V2Error};
pub use keys::{Condition, Deletion, Node, Reading, Response, Watch, Writing};
pub use members::Member;

use crate::{
    clock::{Chance as _, SystemChance},
    tls::Dialler,
};
use action::Action;

/// Redirections of one request that are followed.
const REDIRECTIONS_MAX: usize = 10;

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the members listen for clients. Never empty in a useful cluster.
    pub endpoints: Vec<Endpoint>,
    /// Time for connecting and for the head of an answer, at each endpoint; zero sets no limit. Watches have none.
    pub header_timeout: Duration,
    /// Time for connecting alone.
    pub dial_timeout: Duration,
    /// How to encrypt, at endpoints that want it.
    pub tls: Dialler,
    /// Name and password of the caller.
    pub credentials: Option<(String, String)>,
    /// Is told every request, as a command line of curl.
    pub observer: Option<fn(&str)>,
}

/// A cluster that is reached through several endpoints.
#[derive(Clone, Debug)]
pub struct Cluster {
    options: Options,
    /// The place of the endpoint that is asked first.
    first: usize,
}

/// What an endpoint answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Cluster {
    /// Prepares to ask the endpoints, in an order left to chance; connects to nothing.
    ///
    /// # Errors
    /// [`V2Error::NoEndpoints`].
    pub fn new(options: Options) -> Result<Self, V2Error> {
        let mut cluster = Self { options, first: 0 };
        let endpoints = mem::take(&mut cluster.options.endpoints);
        cluster.replace(endpoints)?;
        Ok(cluster)
    }

    /// The endpoints in the order they are asked.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.options.endpoints
    }

    /// Asks for the members and goes on with the addresses that they announce.
    ///
    /// # Errors
    /// As [`members`](Self::members), and [`V2Error::NoEndpoints`] if no member announces any.
    pub async fn sync(&mut self) -> Result<(), V2Error> {
        let members = self.members().await?;
        let urls = members.iter().flat_map(|member| &member.client_urls);
        let endpoints = urls.map(|url| Endpoint::parse(url)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(V2Error::NoEndpoints);
        }
        if sorted(&endpoints) == sorted(&self.options.endpoints) {
            return Ok(());
        }
        self.replace(endpoints)
    }

    fn replace(&mut self, mut endpoints: Vec<Endpoint>) -> Result<(), V2Error> {
        if endpoints.is_empty() {
            return Err(V2Error::NoEndpoints);
        }
        shuffle(&mut endpoints);
        self.options.endpoints = endpoints;
        self.first = 0;
        Ok(())
    }

    /// Whether a member says that it is healthy; asks `url` alone, whatever the endpoints of this cluster are. The observer
    /// is not told, and there is no limit but that on dialling.
    ///
    /// # Errors
    /// As a single try: [`V2Error::Attempt`], or [`V2Error::BadJson`] for an answer that nobody understands.
    pub async fn health(&self, url: &str) -> Result<bool, V2Error> {
        let endpoint = Endpoint::parse(url)?;
        let asked = self.exchange(&endpoint, &Action::get("/health").waiting(), None).await;
        let answer = asked.map_err(V2Error::Attempt)?;
        json::health(&answer.body)
    }

    /// Performs `action` at the first endpoint that can answer it.
    async fn perform(&mut self, action: &Action) -> Result<Answer, V2Error> {
        let mut failures = Vec::new();
        let count = self.options.endpoints.len();
        for place in (self.first..self.first + count).map(|place| place % count) {
            let Some(endpoint) = self.options.endpoints.get(place) else { break };
            let failure = match self.ask(endpoint, action).await {
                Ok(answer) if answer.status.is_server_error() => Attempt::refused(endpoint, answer.status),
                Ok(answer) => {
                    self.first = place;
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            if action.is_once {
                self.first = (place + 1) % count;
                return Err(V2Error::Attempt(failure));
            }
            failures.push(failure);
        }
        Err(V2Error::Unavailable(failures))
    }

    /// Performs `action` at one endpoint and wherever it sends us.
    async fn ask(&self, endpoint: &Endpoint, action: &Action) -> Result<Answer, Attempt> {
        let mut answer = self.try_once(endpoint, action).await?;
        for _ in 0..REDIRECTIONS_MAX {
            if !answer.status.is_redirection() {
                return Ok(answer);
            }
            let location = answer.headers.get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()));
            let location = location.ok_or_else(|| Attempt::other("location header not set"))?;
            let target = Endpoint::parse(&location)
                .map_err(|_| Attempt::other(format_args!("location header not valid URL: {location}")))?;
            answer = self.try_once(&target, &action.redirected()).await?;
        }
        if answer.status.is_redirection() { Err(Attempt::other("client: too many redirects")) } else { Ok(answer) }
    }

    /// Tells the request to the observer and performs it at one endpoint.
    async fn try_once(&self, endpoint: &Endpoint, action: &Action) -> Result<Answer, Attempt> {
        if let Some(observer) = self.options.observer {
            observer(&action.as_curl(endpoint, &action.target(endpoint)));
        }
        self.exchange(endpoint, action, self.options.credentials.as_ref()).await
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        action: &Action,
        credentials: Option<&(String, String)>,
    ) -> Result<Answer, Attempt> {
        let begun = connection::begin(
            endpoint,
            action.request(endpoint, credentials),
            self.options.dial_timeout,
            &self.options.tls,
        );
        let limit = self.options.header_timeout;
        let (connection, response) = if action.waits || limit.is_zero() {
            begun.await?
        } else {
            timeout(limit, begun)
                .await
                .map_err(|_| Attempt::other(format_args!("client: endpoint {endpoint} exceeded header timeout")))??
        };
        connection::finish(connection, response).await
    }
}

/// The texts of endpoints in an order that two lists of the same endpoints share.
fn sorted(endpoints: &[Endpoint]) -> Vec<String> {
    let mut texts: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

/// Every order is as likely as every other (Fisher and Yates).
fn shuffle(endpoints: &mut [Endpoint]) {
    for last in (1..endpoints.len()).rev() {
        let places = u64::try_from(last + 1).unwrap_or(u64::MAX);
        endpoints.swap(last, usize::try_from(SystemChance.next_u64() % places).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(urls: &[&str]) -> Options {
        Options {
            endpoints: urls.iter().map(|url| Endpoint::parse(url).unwrap()).collect(),
            header_timeout: Duration::from_secs(2),
            dial_timeout: Duration::from_secs(2),
            tls: Dialler::default(),
            credentials: None,
            observer: None,
        }
    }

    #[test]
    fn endpoints_are_shuffled_and_none_is_lost() {
        let urls = ["http://a:1", "http://b:1", "http://c:1"];
        let cluster = Cluster::new(options(&urls)).unwrap();
        assert_eq!(sorted(cluster.endpoints()), urls);
        assert_eq!(Cluster::new(options(&[])).unwrap_err(), V2Error::NoEndpoints);
    }

    #[tokio::test]
    async fn every_endpoint_is_tried_and_its_failure_told() {
        let mut cluster = Cluster::new(options(&["ftp://a:1", "localhost:1"])).unwrap();
        cluster.options.endpoints.sort_by_key(ToString::to_string);
        let failure = cluster.members().await.unwrap_err();
        let text = "client: etcd cluster is unavailable or misconfigured; \
                    error #0: unsupported protocol scheme \"ftp\"\n; error #1: unsupported protocol scheme \"localhost\"\n";
        assert_eq!(failure.to_string(), text);
        assert!(!failure.is_connection_failure());
    }

    #[tokio::test]
    async fn a_creation_is_tried_once() {
        let mut cluster = Cluster::new(options(&["ftp://a:1", "ftp://b:1"])).unwrap();
        let create =
            Writing { condition: Condition { exists: Some(false), ..Condition::default() }, ..Writing::default() };
        let failure = cluster.set(b"/k", b"v", &create).await.unwrap_err();
        assert_eq!(failure.to_string(), "unsupported protocol scheme \"ftp\"");
        assert_eq!(cluster.first, 1, "the next call begins with the other endpoint");
    }
}
