//! What was seen of a cluster, as plain values.

use std::{net::IpAddr, time::Duration};

use super::super::metrics::Samples;
use crate::{
    client::Endpoint,
    pb::etcdserverpb::{AlarmMember, HashKvResponse, Member, StatusResponse},
    tls::Certificate,
};

/// A cluster as it was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    /// This machine's clock, since the Unix epoch.
    pub(super) now: Duration,
    /// The endpoints as they were given.
    pub(super) given: Vec<String>,
    /// Every endpoint that was looked at: those given, then those that members advertise.
    pub(super) seats: Vec<Seat>,
    /// The members, as the first one that answered lists them.
    pub(super) members: Vec<Member>,
    /// Whether a user or a token was given.
    pub(super) has_credentials: bool,
}

impl Cluster {
    /// The endpoints that answered, each with what its member says; of two endpoints of one member the first.
    pub(super) fn answering(&self) -> Vec<(&Seat, &StatusResponse)> {
        let mut found: Vec<(&Seat, &StatusResponse)> = Vec::new();
        for (seat, status) in self.seats.iter().filter_map(|seat| Some((seat, seat.status.as_ref()?))) {
            if !found.iter().any(|(_, known)| id(known) == id(status)) {
                found.push((seat, status));
            }
        }
        found
    }

    /// What the leader says, if it was asked and all is as it says.
    pub(super) fn leader(&self) -> Option<&StatusResponse> {
        self.answering().into_iter().map(|(_, status)| status).find(|status| id(status) == status.leader)
    }
}

/// The member an answer is from.
pub(super) fn id(status: &StatusResponse) -> u64 {
    status.header.map_or(0, |header| header.member_id)
}

/// One endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat {
    pub(super) endpoint: String,
    /// Whether it was given, and not only advertised.
    pub(super) is_given: bool,
    /// What the member says of itself; `None` if it does not answer.
    pub(super) status: Option<StatusResponse>,
    /// Why it does not answer.
    pub(super) trouble: Option<Trouble>,
    /// How long it took to tell its status.
    pub(super) took: Duration,
    /// Why a read that needs a quorum failed.
    pub(super) read_error: Option<String>,
    /// The members as this one knows them.
    pub(super) members: Vec<Member>,
    pub(super) alarms: Vec<AlarmMember>,
    /// The hash of its history at a revision that all of them have.
    pub(super) hash: Option<HashKvResponse>,
    /// By how many seconds its clock is ahead of this machine's.
    pub(super) clock_ahead_seconds: Option<f64>,
    pub(super) certificate: Option<Certificate>,
    pub(super) samples: Samples,
}

impl Seat {
    /// Whether a URL leads here, as far as its text tells.
    pub(super) fn is_at(&self, url: &str) -> bool {
        same_place(&self.endpoint, url)
    }
}

/// Why an endpoint does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no connection.
    Silent(String),
    /// It wants TLS and was spoken to without.
    WantsTls,
    /// It was spoken to with TLS, which it does not speak.
    WantsPlain,
    /// The handshake failed.
    Handshake(String),
    /// Members are to be spoken to there, not clients.
    PeerPort,
    /// Something else than a member answers, or a member in trouble.
    Other(String),
}

/// How a member says that it wants to know who asks.
pub(super) const LOGIN_ERRORS: [&str; 2] = ["etcdserver: user name is empty", "etcdserver: invalid auth token"];

/// Whether two texts name one place, however it is spoken to there.
pub(super) fn same_place(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(Endpoint::parse);
    one.authority().trim_end_matches('/') == other.authority().trim_end_matches('/')
}

/// The host of a URL or endpoint, without brackets.
pub(super) fn host(url: &str) -> String {
    let endpoint = Endpoint::parse(url);
    let authority = endpoint.authority();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// Whether a URL leads back to the machine that uses it.
pub(super) fn is_loopback(url: &str) -> bool {
    let host = host(url);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a URL has the address that stands for all of a machine's own.
pub(super) fn is_unspecified(url: &str) -> bool {
    host(url).parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart_by_host_and_port() {
        assert!(same_place("10.0.0.1:2379", "http://10.0.0.1:2379/") && same_place("https://a:1", "http://a:1"));
        assert!(!same_place("10.0.0.1:2379", "http://10.0.0.1:2380"));
        assert_eq!((host("https://[::1]:2379").as_str(), host("a:1").as_str()), ("::1", "a"));
        assert!(is_loopback("http://localhost:1") && is_loopback("[::1]:1") && !is_loopback("http://10.0.0.1:1"));
        assert!(is_unspecified("http://0.0.0.0:2379") && !is_unspecified("http://localhost:1"));
    }
}
