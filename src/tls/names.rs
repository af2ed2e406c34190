//! Rules for the names in certificates, as Go compares them.

use std::net::IpAddr;

use rustls::{CertificateError, Error};

use super::certificate::Certificate;

/// Which names the certificate of the other side must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedNames {
    /// Whatever it has.
    #[default]
    Any,
    /// One of these as its common name, to the letter.
    Common(Vec<String>),
    /// One of these hosts or addresses among its alternative names.
    Hosts(Vec<String>),
}

impl AllowedNames {
    /// Whether a certificate that is believed has one of the names.
    ///
    /// # Errors
    /// [`CertificateError::NotValidForName`], which [`super::words`] tells as etcd does.
    pub(super) fn check(&self, certificate: &[u8]) -> Result<(), Error> {
        if *self == Self::Any {
            return Ok(());
        }
        let read = Certificate::read(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let is_allowed = match self {
            Self::Any => true,
            Self::Common(names) => names.contains(&read.common_name),
            Self::Hosts(hosts) => hosts.iter().any(|host| is_for(&read, host)),
        };
        if is_allowed { Ok(()) } else { Err(CertificateError::NotValidForName.into()) }
    }
}

/// Whether the alternative names of `certificate` have `host` among them (Go's `VerifyHostname`): an address, also in
/// brackets, among the addresses; a name among the names, one of which may have `*` for its first label.
fn is_for(certificate: &Certificate, host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return certificate.addresses.iter().any(|own| own.to_canonical() == address.to_canonical());
    }
    certificate.dns_names.iter().any(|pattern| {
        if is_valid(host, false) && is_valid(pattern, true) {
            matches(pattern, host)
        } else {
            !["", "."].contains(&host) && pattern.eq_ignore_ascii_case(host)
        }
    })
}

/// Whether a text is the name of a host, or in a certificate a pattern for some.
fn is_valid(name: &str, is_pattern: bool) -> bool {
    let name = if is_pattern { name } else { name.strip_suffix('.').unwrap_or(name) };
    let is_label = |label: &str| {
        let is_taken =
            |(at, byte): (usize, u8)| byte.is_ascii_alphanumeric() || byte == b'_' || (byte == b'-' && at > 0);
        !label.is_empty() && label.bytes().enumerate().all(is_taken)
    };
    let mut labels = name.split('.');
    let first = labels.next().unwrap_or_default();
    let is_wild = is_pattern && first == "*" && name != "*";
    (is_wild || is_label(first)) && labels.all(is_label)
}

fn matches(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let (patterns, labels): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    let fits = |(at, (pattern, label)): (usize, (&&str, &&str))| {
        (at == 0 && *pattern == "*") || pattern.eq_ignore_ascii_case(label)
    };
    patterns.len() == labels.len() && patterns.iter().zip(&labels).enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    use super::{super::certificate::Uses, *};

    fn certificate(names: &[&str], addresses: &[&str]) -> Certificate {
        Certificate {
            common_name: String::new(),
            dns_names: names.iter().map(ToString::to_string).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            not_before: std::time::Duration::ZERO,
            not_after: std::time::Duration::ZERO,
            is_ca: false,
            between_max: None,
            uses: Uses::default(),
        }
    }

    #[test]
    fn hosts_are_compared_as_in_go() {
        for (own, host, expected) in [
            ("a.example", "A.Example", true),
            ("a.example", "a.example.", true),
            ("a.example.", "a.example", false),
            ("*.example", "a.example", true),
            ("*.example", "b.a.example", false),
            ("*.example", "example", false),
            ("*", "a", false),
            ("a*.example", "ab.example", false),
            ("a*.example", "a*.example", true),
            ("a b", "A B", true),
            ("-a", "-a", true),
            ("", "", false),
            (".", ".", false),
            ("127.0.0.1", "127.0.0.1", false),
        ] {
            assert_eq!(is_for(&certificate(&[own], &[]), host), expected, "{own} {host}");
        }
        for (own, host, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("::1", "[::1]", true),
            ("::1", "a", false),
        ] {
            assert_eq!(is_for(&certificate(&[], &[own]), host), expected, "{own} {host}");
        }
    }
}
