//! What a certificate says: for checks of names, for probes of files, and to know when it ends.

use std::{net::IpAddr, path::Path, time::Duration};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ExtendedKeyUsage, GeneralName},
    prelude::FromDer as _,
    x509::X509Version,
};

use super::{
    TlsError,
    kept::{FileText, contents},
};

/// Longest file of certificates or keys that is read; a bundle of a system has a quarter of a million bytes.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;

/// One certificate, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The common name of its subject, the last one if there are several, empty if there is none.
    pub common_name: String,
    /// The names of hosts among its alternative names.
    pub dns_names: Vec<String>,
    /// The addresses among its alternative names.
    pub addresses: Vec<IpAddr>,
    /// From when on it counts, since the Unix epoch; zero for whatever is before.
    pub not_before: Duration,
    /// Until when, since the Unix epoch.
    pub not_after: Duration,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// How many others may stand between it and what is signed in the end, if it sets a limit.
    pub between_max: Option<u32>,
    /// What it may be used for.
    pub uses: Uses,
}

/// What a certificate may be used for, as Go sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Whether what it has signed counts: one of an old form may sign without saying so, and none may whose key is for other
    /// things.
    pub signing: bool,
    /// Whether servers may show it, or one that it has signed.
    pub servers: bool,
    /// Whether clients may.
    pub clients: bool,
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| format!("x509: {error}"))?;
        let validity = certificate.validity();
        // The last one, where a subject has several (as Go).
        let common_name = certificate.subject().iter_common_name().last();
        let failed = |error| format!("x509: {error}");
        let is_ca = certificate.is_ca();
        let constraints = certificate.basic_constraints().map_err(failed)?;
        let usage = certificate.key_usage().map_err(failed)?;
        let signs = usage.is_none_or(|usage| usage.value.key_cert_sign());
        let extended = certificate.extended_key_usage().map_err(failed)?;
        let may_be = |of: fn(&ExtendedKeyUsage<'_>) -> bool| {
            extended.as_ref().is_none_or(|uses| uses.value.any || of(uses.value))
        };
        let mut read = Self {
            common_name: common_name.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            not_before: since_epoch(validity.not_before.timestamp()),
            not_after: since_epoch(validity.not_after.timestamp()),
            is_ca,
            between_max: constraints.and_then(|constraints| constraints.value.path_len_constraint),
            uses: Uses {
                signing: signs && (is_ca || certificate.version() != X509Version::V3),
                servers: may_be(|uses| uses.server_auth),
                clients: may_be(|uses| uses.client_auth),
            },
        };
        let names = certificate.subject_alternative_name().map_err(|error| format!("x509: {error}"))?;
        for name in names.into_iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => read.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => read.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(read)
    }

    /// Whether it counts at `now`, since the Unix epoch.
    pub fn is_valid_at(&self, now: Duration) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// When that changes, in whole seconds since the Unix epoch.
    pub(super) fn changes(&self) -> [Duration; 2] {
        [self.not_before, self.not_after.saturating_add(Duration::from_secs(1))]
    }
}

fn since_epoch(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The certificates of a PEM file, in its order, at least one.
///
/// # Errors
/// [`TlsError::Open`], [`TlsError::Content`].
pub fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, TlsError> {
    Ok(chain(path)?.into_iter().map(|certificate| certificate.to_vec()).collect())
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    chain_of(&FileText { path: path.to_owned(), bytes: contents(path, FILE_BYTES_MAX)? })
}

pub(super) fn chain_of(text: &FileText) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let FileText { path, bytes } = text;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let chain = chain.map_err(|error| TlsError::content(path, format!("the PEM text is damaged: {error}")))?;
    if chain.is_empty() {
        let what = "tls: failed to find any PEM data in certificate input: it needs a section BEGIN CERTIFICATE";
        return Err(TlsError::content(path, what));
    }
    Ok(chain)
}

/// When the first of these certificates ends, since the Unix epoch, as far as they can be read.
pub(super) fn first_end(chain: &[CertificateDer<'_>]) -> Option<Duration> {
    chain.iter().filter_map(|der| Certificate::read(der).ok()).map(|certificate| certificate.not_after).min()
}
