//! Why a search failed: etcd's words, and what an operator can do.

use thiserror::Error;

use super::{RegistrationError, keys::Refusal};
use crate::{client::ClientError, tls::TlsError};

/// What was attempted when a search failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// To become a member.
    Join,
    /// To learn who the members are.
    Get,
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Join => "join",
            Self::Get => "get",
        })
    }
}

/// A search that failed for good.
#[derive(Debug, Error)]
#[error("failed to {op} discovery cluster ({cause}): {}", cause.remedy())]
pub struct DiscoveryError {
    /// What was attempted.
    pub op: Op,
    /// Why it failed.
    pub cause: Cause,
}

/// Why a search failed. The first words are etcd's.
#[derive(Debug, Error)]
pub enum Cause {
    /// The token is not known there.
    #[error("discovery: size key not found{}", .0.as_ref().map_or_else(String::new, |said| format!(": {said}")))]
    SizeNotFound(Option<Refusal>),
    /// The size is no number, or none a cluster can have.
    #[error("discovery: size key is bad: it says {said:?}")]
    BadSize {
        /// What it says.
        said: String,
    },
    /// Whoever answers is no discovery service.
    #[error("discovery: bad discovery endpoint: {0}")]
    BadEndpoint(String),
    /// The service refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An answer that cannot be read, from a service that could be read before.
    #[error("client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint: {0}")]
    Garbled(String),
    /// Somebody is registered under this member's identifier, and nothing here tells that it was this node.
    #[error("discovery: found duplicate id")]
    DuplicateId {
        /// The identifier.
        id: String,
    },
    /// Two members have one name.
    #[error("discovery: found duplicate name: {listed}")]
    DuplicateName {
        /// All registrations.
        listed: String,
    },
    /// A registration that names no URL.
    #[error("discovery: invalid URL: {0}")]
    InvalidUrl(String),
    /// Two members have one URL.
    #[error("discovery cluster {cluster} has duplicate url")]
    DuplicateUrl {
        /// All registrations.
        cluster: String,
        /// The URL.
        url: String,
    },
    /// Others have taken all places.
    #[error("discovery: cluster is full")]
    Full,
    /// The service has lost what this node has registered.
    #[error("discovery: the service no longer has the registration of this member ({0})")]
    OwnMissing(String),
    /// The service has something else than what this node has registered.
    #[error("discovery: this member is registered as {own}, and the service says {listed}")]
    OwnChanged {
        /// What was registered.
        own: String,
        /// What the service says.
        listed: String,
    },
    /// A URL that cannot be asked.
    #[error("{0}")]
    BadUrl(String),
    /// The address of the HTTP proxy makes no sense.
    #[error("invalid proxy address {address:?}: {why}")]
    BadProxy {
        /// The address.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The v3 client refuses, or was refused, for good.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Certificates for the way to the service that cannot be used.
    #[error("setting up TLS for discovery: {0}")]
    Tls(TlsError),
    /// What was registered cannot be written down, or read.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
}

impl Cause {
    /// What an operator can do, in one line.
    pub fn remedy(&self) -> String {
        match self {
            Self::SizeNotFound(_) => {
                "create the token first: ask the service for a new one, or write the number of members to TOKEN/_config/size"
                    .to_owned()
            }
            Self::BadSize { .. } => {
                format!("TOKEN/_config/size has to be a number from 1 to {}: use a new token", super::census::SIZE_MAX)
            }
            Self::BadEndpoint(_) | Self::Garbled(_) | Self::BadUrl(_) => {
                "give the URL of a token of a discovery service, such as http://HOST:2379/v2/keys/discovery/TOKEN".to_owned()
            }
            Self::DuplicateId { id } => format!(
                "check the given data dir path if the previous bootstrap succeeded; if it failed, delete TOKEN/{id} at the service or use a new discovery token; if the cluster runs, replace this member by member remove and member add"
            ),
            Self::DuplicateName { .. } => {
                "give every member a --name of its own and use a new discovery token".to_owned()
            }
            Self::InvalidUrl(_) => {
                "somebody has registered something that is no member: use a new discovery token".to_owned()
            }
            Self::DuplicateUrl { .. } => {
                "give every member an --initial-advertise-peer-urls of its own and use a new discovery token".to_owned()
            }
            Self::Refused(_) | Self::Full => {
                "please generate a new discovery token and try to bootstrap again, or start this node as a proxy".to_owned()
            }
            Self::OwnMissing(_) => "start this member again, or use a new discovery token if the old one has expired".to_owned(),
            Self::OwnChanged { .. } => "do not reuse a discovery token: generate a new one".to_owned(),
            Self::BadProxy { .. } => "write --discovery-proxy like http://proxy:3128".to_owned(),
            Self::Tls(_) => "check --discovery-cert, --discovery-key and --discovery-cacert".to_owned(),
            Self::Client(_) => "check --discovery-endpoints, --discovery-user and the certificates".to_owned(),
            Self::Registration(_) => "check the data directory, its owner and the free space".to_owned(),
        }
    }
}
