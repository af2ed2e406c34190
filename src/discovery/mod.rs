//! How a node without data finds its cluster: by a token at the v2 discovery service, by a token in a cluster's v3 keys,
//! or by SRV records of a domain. And the discovery service itself ([`service`]), which keeps who has registered.
//!
//! Everything here asks others and decides nothing about this node but who its founders are. What the daemon does with
//! that, and how it waits, is its own affair (`daemon::discovery`). Floor 5.
//!
//! Invariants:
//! - A member is written down at the service only after the data directory says durably that it will be
//!   ([`Registration`]), so that the next start knows its own registration from somebody else's.
//! - Nothing a service or a name server says is believed beyond its form: answers, lists and waits are bounded, and the
//!   founders that come out include this member as it described itself.
//! - Whatever fails to be reached is asked again, for ever and less and less often; whatever is refused ends at once.

mod backoff;
mod census;
pub mod dns;
mod error;
mod http;
mod keys;
mod registration;
pub mod service;
pub mod srv;
mod v2;
mod v3;
mod web;

use std::{collections::BTreeMap, fmt, time::Duration};

pub use census::Listed;
pub use error::{Cause, DiscoveryError, Op};
pub use registration::{Registration, RegistrationError, Service};
pub use v2::V2;
pub use v3::{Access, V3};

use crate::{config::InitialCluster, membership::founding_member_id};

/// A node that looks for its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its `--name`.
    pub name: String,
    /// Its advertised peer URLs, as they enter its identifier.
    pub peer_urls: Vec<String>,
}

impl Own {
    /// What it is registered as: `name=url`, once for each URL.
    pub fn entry(&self) -> String {
        let mut words: Vec<String> = self.peer_urls.iter().map(|url| format!("{}={url}", self.name)).collect();
        words.sort_unstable();
        words.join(",")
    }

    /// The identifier it will have in a cluster of this token, as services know it.
    fn id(&self, token: &str) -> String {
        founding_member_id(&self.peer_urls, token).to_string()
    }
}

/// The members a cluster is founded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founders {
    /// Their peer URLs by name.
    pub members: BTreeMap<String, Vec<String>>,
    /// The cluster's token.
    pub token: String,
    /// Which of them this node is.
    pub own: String,
}

impl Founders {
    /// All of them, as `--initial-cluster` lists members.
    ///
    /// # Errors
    /// What is wrong with the list, in one line.
    pub fn listed(&self) -> Result<InitialCluster, String> {
        let words = self.members.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
        InitialCluster::parse(&words.collect::<Vec<_>>().join(","))
    }
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This node is one of the founders.
    Founders(Founders),
    /// The cluster has all its members already, and this node is none of them.
    Full(Listed),
}

/// Where a search is, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Somebody is being asked.
    Asking(String),
    /// Others have to come.
    Waiting {
        /// Members that are there.
        found: usize,
        /// Members that are needed.
        size: usize,
    },
    /// Somebody could not be reached and will be asked again.
    Retrying {
        /// Whom.
        whom: String,
        /// Why.
        cause: String,
        /// In how long.
        pause: Duration,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asking(whom) => write!(f, "discovery: asking {whom}"),
            Self::Waiting { found, size } => {
                write!(f, "discovery: waiting for {} of {size} members", size.saturating_sub(*found))
            }
            Self::Retrying { whom, cause, pause } => {
                write!(f, "discovery: {whom} cannot be reached ({cause}), asking again in {} s", pause.as_secs())
            }
        }
    }
}

/// Told where a search is, every time it gets somewhere else.
pub type Watch<'w> = &'w (dyn Fn(Progress) + Send + Sync);

#[cfg(test)]
mod tests {
    use super::*;

    fn own(urls: &[&str]) -> Own {
        Own { name: "etcd1".to_owned(), peer_urls: urls.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn entry_lists_every_url_in_order() {
        assert_eq!(own(&["http://b:1", "http://a:1"]).entry(), "etcd1=http://a:1,etcd1=http://b:1");
    }

    #[test]
    fn identifiers_are_those_of_the_reference() {
        let one = own(&["http://10.5.12.16:2380"]);
        let url = "https://discovery.etcd.io/3e86b59982e49066c5d813af1c2e2579cbf573de";
        assert_eq!(one.id(url), "160f24c0b9488f40");
        let url = "https://myetcd.local/v2/keys/discovery/6c007a14875d53d9bf0ef5a6fc0257c817f0fb83";
        assert_eq!(one.id(url), "3275bf6b4e38ac1");
        assert_eq!(one.id("tok-v3"), "61db57ca04bc9118");
    }
}
