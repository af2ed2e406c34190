//! Where members are, or are said to be: addresses, certificates, clocks.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, UNIX_EPOCH},
};

use super::{
    super::facts::{Cluster, LOGIN_ERRORS, Seat, Trouble, host, id, is_loopback, is_unspecified, same_place},
    Found, Rule, list,
};
use crate::tls::Certificate;

pub(super) const RULES: &[Rule] = &[
    unreachable,
    login_needed,
    advertised,
    shared_url,
    duplicate_endpoints,
    mixed_schemes,
    missing_endpoints,
    certificates,
    clocks,
];

/// Endpoints that do not answer, each with the likeliest reason.
fn unreachable(cluster: &Cluster, found: &mut Found) {
    for seat in &cluster.seats {
        let Some(trouble) = &seat.trouble else { continue };
        let at = &seat.endpoint;
        match trouble {
            Trouble::Silent(why) if seat.is_given => found.error(
                "unreachable-endpoint",
                format_args!("{at} does not answer: {why}"),
                "start the member, let its port through the firewall, or correct --endpoints",
            ),
            Trouble::Silent(why) => found.error(
                "unreachable-member",
                format_args!("{at}, which a member advertises, does not answer: {why}"),
                "start the member, or correct its advertise-client-urls",
            ),
            Trouble::WantsTls => found.error(
                "tls-expected",
                format_args!("{at} wants TLS and was spoken to without"),
                "write https:// before it, and give --cacert",
            ),
            Trouble::WantsPlain => found.error(
                "plain-expected",
                format_args!("{at} does not speak TLS"),
                "write http:// before it, or give the member a certificate",
            ),
            Trouble::Handshake(why) => found.error(
                "handshake-failed",
                format_args!("{at}: {why}"),
                "give the authority of its certificate as --cacert, and --cert and --key if it asks clients for one",
            ),
            Trouble::PeerPort => found.error(
                "peer-port",
                format_args!("{at} is where members speak with each other"),
                "use the address of listen-client-urls, mostly port 2379",
            ),
            Trouble::Other(why) => found.error(
                "no-member",
                format_args!("{at} answers, but not as a member: {why}"),
                "look into its log, and whether something else has that port",
            ),
        }
    }
}

/// Authentication is on, and nobody was named.
fn login_needed(cluster: &Cluster, found: &mut Found) {
    let asks = |seat: &&Seat| seat.read_error.as_deref().is_some_and(|error| LOGIN_ERRORS.contains(&error));
    let Some(seat) = cluster.seats.iter().find(asks) else { return };
    let (at, why) = (&seat.endpoint, seat.read_error.as_deref().unwrap_or_default());
    if cluster.has_credentials {
        found.error("login-refused", format_args!("{at}: {why}"), "give another --user, or a token that has not ended");
    } else {
        found.error(
            "login-needed",
            format_args!("{at} has authentication enabled: {why}"),
            "give --user, or --auth-jwt-token",
        );
    }
}

/// Advertised addresses that lead others nowhere.
fn advertised(cluster: &Cluster, found: &mut Found) {
    let urls = || cluster.members.iter().flat_map(|member| &member.client_ur_ls);
    let used = urls().map(String::as_str).chain(cluster.given.iter().map(String::as_str));
    let is_spread = used.into_iter().any(|url| !is_loopback(url) && !is_unspecified(url));
    for member in &cluster.members {
        let name = &member.name;
        for url in member.client_ur_ls.iter().filter(|url| is_unspecified(url)) {
            found.error(
                "unspecified-advertised",
                format_args!("member {name} advertises {url}, which no client can connect to"),
                "set its advertise-client-urls to an address of the host",
            );
        }
        for url in member.client_ur_ls.iter().filter(|url| is_spread && is_loopback(url)) {
            found.warning(
                "loopback-advertised",
                format_args!("member {name} advertises {url}, which leads every client back to itself"),
                "set its advertise-client-urls to an address that other hosts reach",
            );
        }
        if member.client_ur_ls.is_empty() && !name.is_empty() {
            found.warning(
                "nothing-advertised",
                format_args!("member {name} advertises no client URL"),
                "set its advertise-client-urls, so that clients find it",
            );
        }
    }
}

/// Two members that say they are at one place.
fn shared_url(cluster: &Cluster, found: &mut Found) {
    let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for member in &cluster.members {
        for url in &member.client_ur_ls {
            owners.entry(url).or_default().push(&member.name);
        }
    }
    for (url, names) in owners.into_iter().filter(|(_, names)| names.len() > 1) {
        found.warning(
            "shared-url",
            format_args!("members {} all advertise {url}", list(names)),
            "give each its own advertise-client-urls",
        );
    }
}

/// One place named twice, which gets more than its share of calls and counts for nothing when it is gone.
fn duplicate_endpoints(cluster: &Cluster, found: &mut Found) {
    for (at, endpoint) in cluster.given.iter().enumerate() {
        let twin = cluster.given.iter().take(at).find(|other| same_place(other, endpoint));
        if let Some(twin) = twin {
            found.warning(
                "duplicate-endpoint",
                format_args!("{endpoint} and {twin} in --endpoints are one place"),
                "name every member once",
            );
        }
    }
    let mut seen: Vec<(u64, &str)> = Vec::new();
    for seat in cluster.seats.iter().filter(|seat| seat.is_given) {
        let Some(status) = &seat.status else { continue };
        let member = id(status);
        match seen.iter().find(|(known, _)| *known == member) {
            Some((_, other)) => found.hint(
                "same-member",
                format_args!("{other} and {} in --endpoints lead to one member", seat.endpoint),
                "name every member once",
            ),
            None => seen.push((member, &seat.endpoint)),
        }
    }
}

/// Members some of which speak TLS with clients and some do not.
fn mixed_schemes(cluster: &Cluster, found: &mut Found) {
    let urls: Vec<&String> = cluster.members.iter().flat_map(|member| &member.client_ur_ls).collect();
    let (tls, plain): (Vec<&&String>, Vec<&&String>) = urls.iter().partition(|url| url.starts_with("https://"));
    if !tls.is_empty() && !plain.is_empty() {
        found.warning(
            "mixed-schemes",
            format_args!("{} take clients without TLS, beside members with it", list(plain)),
            "give every member a certificate, and https:// in its URLs",
        );
    }
}

/// Members that calls do not go to, so that they cannot help when others are gone.
fn missing_endpoints(cluster: &Cluster, found: &mut Found) {
    let is_used = |url: &&String| cluster.given.iter().any(|given| same_place(given, url));
    let voters = cluster.members.iter().filter(|member| !member.is_learner && !member.client_ur_ls.is_empty());
    let unused: Vec<&String> = voters
        .filter(|member| !member.client_ur_ls.iter().any(|url| is_used(&url)))
        .filter_map(|member| member.client_ur_ls.first())
        .collect();
    if !unused.is_empty() {
        found.hint(
            "missing-endpoints",
            format_args!("--endpoints names no way to {}", list(&unused)),
            "name every member, so that clients go on when one is gone",
        );
    }
}

/// Certificates that have ended, end soon, or are for somebody else.
fn certificates(cluster: &Cluster, found: &mut Found) {
    for seat in &cluster.seats {
        let Some(certificate) = &seat.certificate else { continue };
        dates(cluster.now, seat, certificate, found);
        let host = host(&seat.endpoint);
        if !is_named(certificate, &host) {
            found.error(
                "certificate-names",
                format_args!("the certificate of {} does not name {host}", seat.endpoint),
                "make one with that name or address among its alternative names, or use a name that it has",
            );
        }
    }
}

fn dates(now: Duration, seat: &Seat, certificate: &Certificate, found: &mut Found) {
    let (at, ends) = (&seat.endpoint, date(certificate.not_after));
    if now < certificate.not_before {
        let begins = date(certificate.not_before);
        found.error(
            "certificate-not-yet",
            format_args!("the certificate of {at} does not count before {begins}"),
            "set the clock of this machine, or make another certificate",
        );
    } else if !certificate.is_valid_at(now) {
        found.error("certificate-ended", format_args!("the certificate of {at} has ended at {ends}"), "renew it");
    } else if certificate.not_after.saturating_sub(now) < ENDS_SOON {
        found.warning("certificate-ends", format_args!("the certificate of {at} ends at {ends}"), "renew it");
    }
}

fn date(since_epoch: Duration) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH))
}

fn is_named(certificate: &Certificate, host: &str) -> bool {
    let under = |wildcard: &str| host.split_once('.').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(wildcard));
    let matches = |name: &String| match name.strip_prefix("*.") {
        Some(wildcard) => under(wildcard),
        None => name.eq_ignore_ascii_case(host),
    };
    match host.parse::<IpAddr>() {
        Ok(address) => certificate.addresses.contains(&address),
        Err(_) => certificate.dns_names.iter().any(matches),
    }
}

/// Clocks that are not this machine's.
fn clocks(cluster: &Cluster, found: &mut Found) {
    for seat in &cluster.seats {
        let Some(ahead) = seat.clock_ahead_seconds.filter(|ahead| ahead.abs() > CLOCK_SECONDS_MAX) else { continue };
        let (off, way) = (ahead.abs(), if ahead > 0.0 { "ahead of" } else { "behind" });
        found.warning(
            "clock-off",
            format_args!("the clock of {} is {off:.0} s {way} this machine's", seat.endpoint),
            "have chrony or systemd-timesyncd set both",
        );
    }
}

/// A certificate that ends sooner deserves a warning.
const ENDS_SOON: Duration = Duration::from_hours(30 * 24);
/// Clocks may differ by this much.
const CLOCK_SECONDS_MAX: f64 = 2.0;
