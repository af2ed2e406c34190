//! What is wrong with certificates and handshakes, in the words etcd's users know.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use rustls::{
    AlertDescription, CertificateError, Error, PeerIncompatible,
    pki_types::{ServerName, UnixTime},
};
use thiserror::Error;

use super::signers::TOO_LONG;

/// Why TLS cannot be set up. The texts of the causes are Go's.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("open {}: {}", path.display(), go_words(cause))]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {what}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it and what would be right.
        what: String,
    },
    /// A generated certificate cannot be kept.
    #[error("making a certificate in {}: {what}: check the directory, its owner and permissions", path.display())]
    Generate {
        /// Where.
        path: PathBuf,
        /// What failed.
        what: String,
    },
    /// The options contradict what the library can do.
    #[error("{0}")]
    Rules(String),
    /// The system has no trusted certificates.
    #[error(
        "no trusted certificates were found on this system{0}: install the package ca-certificates, or name a CA file"
    )]
    NoSystemRoots(String),
}

impl TlsError {
    pub(super) fn content(path: &Path, what: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), what: what.into() }
    }
}

/// Go's text for the usual failures of a system call.
fn go_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Why a handshake failed, as etcd's log and its clients tell it; any other failure in its own words.
pub fn words(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => tls_words(error),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
            io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
            io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
            _ => error.to_string(),
        },
    }
}

fn tls_words(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => format!("remote error: tls: {}", alert_words(*alert)),
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        // Our own refusal; the library's has a context.
        Error::InvalidCertificate(CertificateError::NotValidForName) => {
            "client certificate authentication failed".to_owned()
        }
        Error::InvalidCertificate(why) => {
            format!("tls: failed to verify certificate: x509: {}", certificate_words(why))
        }
        Error::InvalidMessage(_) => "tls: first record does not look like a TLS handshake".to_owned(),
        Error::PeerIncompatible(why) => incompatible_words(why),
        Error::NoApplicationProtocol => "tls: client requested unsupported application protocols".to_owned(),
        other => format!("tls: {other}"),
    }
}

fn incompatible_words(why: &PeerIncompatible) -> String {
    match why {
        PeerIncompatible::NoCipherSuitesInCommon => "tls: no cipher suite supported by both client and server".into(),
        PeerIncompatible::NoKxGroupsInCommon | PeerIncompatible::NoEcPointFormatsInCommon => {
            "tls: no ECDHE curve supported by both client and server".into()
        }
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "tls: peer doesn't support any of the certificate's signature algorithms".into()
        }
        PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            "tls: server selected unsupported protocol version".into()
        }
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic => "tls: client offered only unsupported versions".into(),
        other => format!("tls: {other:?}"),
    }
}

fn certificate_words(why: &CertificateError) -> String {
    match why {
        // Somebody with the name of a known authority and another key is as unknown as anybody.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => out_of_time(*time, "after", *not_after),
        CertificateError::NotValidYetContext { time, not_before } => out_of_time(*time, "before", *not_before),
        CertificateError::NotValidForNameContext { expected, presented } => other_name(expected, presented),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".to_owned()
        }
        CertificateError::BadEncoding => "malformed certificate".to_owned(),
        CertificateError::Other(other) if other.0.downcast_ref() == Some(&TOO_LONG) => {
            "too many intermediates for path length constraint".to_owned()
        }
        CertificateError::Other(other) => other.to_string(),
        other => other.to_string(),
    }
}

fn out_of_time(now: UnixTime, side: &str, limit: UnixTime) -> String {
    let shown = |time: UnixTime| {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs())).unwrap_or(UNIX_EPOCH);
        humantime::format_rfc3339_seconds(time)
    };
    format!("certificate has expired or is not yet valid: current time {} is {side} {}", shown(now), shown(limit))
}

/// Go's texts for a certificate of somebody else. The library lists what the certificate names as `DnsName("a")` and
/// `IpAddress(1.2.3.4)`.
fn other_name(expected: &ServerName<'_>, presented: &[String]) -> String {
    let wanted = expected.to_str();
    let of_kind = |kind: &str| -> Vec<&str> {
        let inner = |name: &'_ str| name.len() - kind.len();
        let names = presented.iter().filter(|name| name.starts_with(kind) && inner(name) > 0);
        names.map(|name| name.get(kind.len()..).unwrap_or_default().trim_matches(['(', ')', '"'])).collect()
    };
    let names = match expected {
        ServerName::IpAddress(_) => of_kind("IpAddress"),
        _ => of_kind("DnsName"),
    };
    match (expected, names.is_empty()) {
        (ServerName::IpAddress(_), true) => {
            format!("cannot validate certificate for {wanted} because it doesn't contain any IP SANs")
        }
        (_, true) => format!("certificate is not valid for any names, but wanted to match {wanted}"),
        (_, false) => format!("certificate is valid for {}, not {wanted}", names.join(", ")),
    }
}

/// The names Go gives alerts.
fn alert_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CloseNotify => "close notify",
        AlertDescription::UnexpectedMessage => "unexpected message",
        AlertDescription::BadRecordMac => "bad record MAC",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::IllegalParameter => "illegal parameter",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InsufficientSecurity => "insufficient security level",
        AlertDescription::InternalError => "internal error",
        AlertDescription::UserCanceled => "user canceled",
        AlertDescription::MissingExtension => "missing extension",
        AlertDescription::UnsupportedExtension => "unsupported extension",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        other => return format!("alert({})", u8::from(other)),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: Error) -> String {
        words(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn failures_are_told_in_the_words_of_go() {
        let name = |text: &str| ServerName::try_from(text.to_owned()).unwrap();
        let other = |expected, presented: &[&str]| {
            let presented = presented.iter().map(ToString::to_string).collect();
            told(Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }))
        };
        for (text, expected) in [
            (told(Error::AlertReceived(AlertDescription::BadCertificate)), "remote error: tls: bad certificate"),
            (told(Error::NoCertificatesPresented), "tls: client didn't provide a certificate"),
            (
                told(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ),
            (
                told(Error::InvalidCertificate(CertificateError::ExpiredContext {
                    time: UnixTime::since_unix_epoch(Duration::from_hours(24)),
                    not_after: UnixTime::since_unix_epoch(Duration::from_secs(0)),
                })),
                "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time \
                 1970-01-02T00:00:00Z is after 1970-01-01T00:00:00Z",
            ),
            (
                other(name("localhost"), &["DnsName(\"a.example\")", "DnsName(\"b\")", "IpAddress(127.0.0.1)"]),
                "tls: failed to verify certificate: x509: certificate is valid for a.example, b, not localhost",
            ),
            (
                other(name("10.0.0.1"), &["DnsName(\"a\")"]),
                "tls: failed to verify certificate: x509: cannot validate certificate for 10.0.0.1 because it doesn't \
                 contain any IP SANs",
            ),
            (
                other(name("a"), &[]),
                "tls: failed to verify certificate: x509: certificate is not valid for any names, but wanted to match a",
            ),
            (words(&io::ErrorKind::UnexpectedEof.into()), "EOF"),
        ] {
            assert_eq!(text, expected);
        }
    }
}
