//! Versions and suites, under the names etcd gives them.

use std::sync::{Arc, OnceLock};

use rustls::{
    CipherSuite, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    version::{TLS12, TLS13},
};

use super::TlsError;

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the versions")]
pub enum Version {
    #[default]
    V1_2,
    V1_3,
}

/// Which versions and suites may be agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The lowest version.
    pub min: Version,
    /// The highest; `None` for the newest.
    pub max: Option<Version>,
    /// Suites of TLS 1.2 by the names etcd takes, at any order; empty for all there are. Those of TLS 1.3 are always
    /// there, as in etcd, whether or not they are named.
    pub suites: Vec<String>,
}

impl Rules {
    pub(super) fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let max = self.max.unwrap_or(Version::V1_3);
        let all = [(Version::V1_2, &TLS12), (Version::V1_3, &TLS13)];
        all.into_iter().filter(|(version, _)| (self.min..=max).contains(version)).map(|(_, known)| known).collect()
    }

    /// The suites as a provider has them.
    ///
    /// # Errors
    /// [`TlsError::Rules`] if TLS 1.2 alone is allowed and none of the named suites is there.
    pub(super) fn provider(&self) -> Result<Arc<CryptoProvider>, TlsError> {
        if self.suites.is_empty() {
            return Ok(Arc::clone(provider()));
        }
        let mut suites = provider().cipher_suites.clone();
        suites.retain(|suite| {
            is_newest(suite) || self.suites.iter().any(|name| suite_named(name) == Some(suite.suite()))
        });
        let has_old = suites.iter().any(|suite| !is_newest(suite));
        if self.max == Some(Version::V1_2) && !has_old {
            let names = self.suites.join(",");
            return Err(TlsError::Rules(format!(
                "none of the cipher suites {names} can be used with TLS1.2: name one that is, or leave tls-max-version at \
                 its default"
            )));
        }
        Ok(Arc::new(CryptoProvider { cipher_suites: suites, ..CryptoProvider::clone(provider()) }))
    }
}

/// Whether a suite of that name can be agreed on; a name may be one that etcd takes and nobody should use.
pub fn is_suite_available(name: &str) -> bool {
    suite_named(name).is_some()
}

/// The cryptography of the whole program.
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider()))
}

fn is_newest(suite: &SupportedCipherSuite) -> bool {
    suite.version() == &TLS13
}

/// Names without `_SHA256` are Go's older spelling.
fn suite_named(name: &str) -> Option<CipherSuite> {
    Some(match name {
        "TLS_AES_128_GCM_SHA256" => CipherSuite::TLS13_AES_128_GCM_SHA256,
        "TLS_AES_256_GCM_SHA384" => CipherSuite::TLS13_AES_256_GCM_SHA384,
        "TLS_CHACHA20_POLY1305_SHA256" => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites(names: &[&str], max: Option<Version>) -> Result<usize, String> {
        let suites = names.iter().map(ToString::to_string).collect();
        let rules = Rules { max, suites, ..Rules::default() };
        rules.provider().map(|provider| provider.cipher_suites.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn named_suites_restrict_the_older_version_alone() {
        assert_eq!(suites(&[], None), Ok(9));
        assert_eq!(suites(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"], None), Ok(4));
        assert_eq!(suites(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_RSA_WITH_RC4_128_SHA"], None), Ok(4));
        assert_eq!(suites(&["TLS_AES_128_GCM_SHA256"], None), Ok(3));
        assert!(suites(&["TLS_RSA_WITH_RC4_128_SHA"], Some(Version::V1_2)).unwrap_err().contains("none of the cipher"));
    }

    #[test]
    fn versions_are_bounded_on_both_sides() {
        let count = |min, max| Rules { min, max, ..Rules::default() }.versions().len();
        assert_eq!(count(Version::V1_2, None), 2);
        assert_eq!(count(Version::V1_2, Some(Version::V1_2)), 1);
        assert_eq!(count(Version::V1_3, None), 1);
    }
}
