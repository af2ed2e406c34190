//! What this version does not have yet, and what follows for the options that ask for it.
//!
//! The rule: an option whose absence weakens security or durability or changes the node's role refuses to start; any
//! other warns. A feature that arrives leaves [`Feature::absence`] and nothing else changes.

/// Something options can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// TLS on any connection.
    Tls,
    /// Users, passwords and tokens.
    Auth,
    /// JSON web tokens.
    Jwt,
    /// Bootstrap through the v2 discovery service.
    DiscoveryV2,
    /// Bootstrap through an etcd cluster.
    DiscoveryV3,
    /// Bootstrap through DNS SRV records.
    DiscoverySrv,
    /// The v2 HTTP proxy.
    V2Proxy,
    /// The v2 API.
    V2Api,
    /// OpenTelemetry export.
    Tracing,
}

/// What the lack of a [`Feature`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Starting without it would be unsafe or another role: the reason.
    Refuse(&'static str),
    /// Starting without it is safe: the reason.
    Warn(&'static str),
}

impl Feature {
    /// As a message names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "TLS",
            Self::Auth => "authentication",
            Self::Jwt => "JSON web tokens",
            Self::DiscoveryV2 => "v2 discovery",
            Self::DiscoveryV3 => "v3 discovery",
            Self::DiscoverySrv => "DNS discovery",
            Self::V2Proxy => "the v2 HTTP proxy",
            Self::V2Api => "the v2 API",
            Self::Tracing => "distributed tracing",
        }
    }

    /// What its lack means; `None` once it exists.
    pub fn absence(self) -> Option<Absence> {
        Some(match self {
            Self::Tls => Absence::Refuse("connections would be neither encrypted nor authenticated"),
            Self::Jwt => Absence::Refuse("tokens would not be verified"),
            Self::DiscoveryV2 | Self::DiscoveryV3 | Self::DiscoverySrv => {
                Absence::Refuse("the member would found a cluster of its own")
            }
            Self::V2Proxy => Absence::Refuse("the node would become a member instead of a proxy"),
            Self::Auth => Absence::Warn("no user can be created"),
            Self::V2Api => Absence::Warn("requests under /v2 answer 404"),
            Self::Tracing => Absence::Warn("no spans are exported"),
        })
    }

    /// Whether it matters only before the member has data: later etcd ignores the options that ask for it.
    pub fn is_for_bootstrap(self) -> bool {
        matches!(self, Self::DiscoveryV2 | Self::DiscoveryV3 | Self::DiscoverySrv)
    }

    /// Whether asking for it refuses the configuration.
    pub fn refuses(self) -> bool {
        matches!(self.absence(), Some(Absence::Refuse(_)))
    }
}

/// How well an option is honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what etcd's does.
    Works,
    /// It is read and checked and means nothing here: the reason.
    NoEffect(&'static str),
    /// It works once a feature exists.
    Needs(Feature),
    /// It says how a feature works that other options ask for: without the feature there is nothing to say.
    Tunes(Feature),
}
