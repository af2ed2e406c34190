//! What the daemon decides about the client listeners.

use std::{collections::BTreeSet, time::Duration};

use crate::types::{GRPC_OVERHEAD_BYTES, REQUEST_BYTES_MAX_DEFAULT, TXN_OPS_MAX_DEFAULT};

/// What one listener serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// gRPC and HTTP, told apart per connection or request: `listen-client-urls` by themselves.
    #[default]
    Everything,
    /// gRPC alone: `listen-client-urls` beside `listen-client-http-urls`.
    Grpc,
    /// The JSON gateway and the endpoints without gRPC: `listen-client-http-urls`.
    Http,
    /// `/metrics`, `/health`, `/livez` and `/readyz` alone: `listen-metrics-urls`.
    Metrics,
    /// `/members` and `/version`, which other members ask for before they join: `listen-peer-urls`.
    Peers,
}

impl Serves {
    /// Whether gRPC is among it.
    pub(super) fn grpc(self) -> bool {
        matches!(self, Self::Everything | Self::Grpc)
    }

    /// As metrics name it.
    pub(super) fn endpoint(self) -> &'static str {
        match self {
            Self::Everything | Self::Grpc | Self::Http => "client",
            Self::Metrics => "metrics",
            Self::Peers => "peer",
        }
    }
}

/// Connections that a member serves at a time, by what they are for; further ones wait until one ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Of clients, on all their listeners together.
    pub clients: usize,
    /// Of peers.
    pub peers: usize,
    /// On listeners of metrics alone.
    pub metrics: usize,
}

/// A list of names, or everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowList {
    /// `*`.
    #[default]
    Any,
    /// These alone.
    Only(BTreeSet<String>),
}

impl AllowList {
    /// Whether `name` is on the list.
    pub fn allows(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// Rules for the pings of gRPC clients and for the server's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Pings that follow each other faster count against the client (`grpc-keepalive-min-time`).
    pub client_min: Duration,
    /// Time between the server's own pings (`grpc-keepalive-interval`); `None` sends none.
    pub interval: Option<Duration>,
    /// How long a ping may stay unanswered before the connection is closed (`grpc-keepalive-timeout`).
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            client_min: Duration::from_secs(5),
            interval: Some(Duration::from_hours(2)),
            timeout: Duration::from_secs(20),
        }
    }
}

/// Everything about the client API that is configured, the same for all listeners of a member.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Longest encoded proposal (`max-request-bytes`); gRPC messages may be [`GRPC_OVERHEAD_BYTES`] longer.
    pub request_bytes_max: usize,
    /// Most operations on one level of a transaction (`max-txn-ops`).
    pub txn_ops_max: usize,
    /// Most calls at a time on one HTTP/2 connection (`max-concurrent-streams`).
    pub concurrent_streams_max: u32,
    /// Pings.
    pub keepalive: Keepalive,
    /// Whether JSON is served under `/v3/` (`enable-grpc-gateway`).
    pub gateway: bool,
    /// Whether the common name of a client's certificate names a user (`client-cert-auth`).
    pub client_cert_auth: bool,
    /// Cost of hashes of passwords, a power of two (`bcrypt-cost`).
    pub bcrypt_cost: u32,
    /// Whether the v2 API is served under `/v2/` (`enable-v2`).
    pub v2: bool,
    /// Origins browsers may call from (`cors`).
    pub cors: AllowList,
    /// Values of `Host` accepted on plain-text listeners (`host-whitelist`).
    pub host_whitelist: AllowList,
    /// The member's election timeout; streams that ask for a leader end after three of them without one.
    pub election_timeout: Duration,
    /// How long a graceful shutdown waits for running calls.
    pub request_timeout: Duration,
    /// Unary calls that take longer are told of in the log (`warning-unary-request-duration`).
    pub warn_unary: Duration,
}

impl ServeOptions {
    /// Longest gRPC message accepted.
    pub fn message_bytes_max(&self) -> usize {
        self.request_bytes_max.saturating_add(GRPC_OVERHEAD_BYTES)
    }
}

/// The cost of hashes, unless configured (etcd's).
pub const BCRYPT_COST_DEFAULT: u32 = 10;

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            request_bytes_max: REQUEST_BYTES_MAX_DEFAULT,
            txn_ops_max: TXN_OPS_MAX_DEFAULT,
            concurrent_streams_max: u32::MAX,
            keepalive: Keepalive::default(),
            gateway: true,
            client_cert_auth: false,
            bcrypt_cost: BCRYPT_COST_DEFAULT,
            v2: true,
            cors: AllowList::Any,
            host_whitelist: AllowList::Any,
            election_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(7),
            warn_unary: Duration::from_millis(300),
        }
    }
}
