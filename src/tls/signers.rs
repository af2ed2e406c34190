//! Authorities that sign for others, and how many more each of them lets stand between itself and a certificate.
//!
//! The library keeps an authority's subject and key alone, and so checks the limits of those in the middle of a chain, but not
//! that of the one at its end. Go does, and tries another chain where there is one.

use std::{ptr, sync::Arc};

use rustls::{
    CertificateError, Error, OtherError, RootCertStore,
    pki_types::{CertificateDer, UnixTime},
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::{certificate::Certificate, rules::provider};

/// Authorities, and their limits.
#[derive(Debug)]
pub(super) struct Signers {
    roots: Arc<RootCertStore>,
    /// Of each root in turn.
    limits: Vec<Option<u32>>,
}

impl Signers {
    /// Those of `certificates` that can be read.
    pub(super) fn new<'c>(certificates: impl IntoIterator<Item = CertificateDer<'c>>) -> Self {
        let (mut roots, mut limits) = (RootCertStore::empty(), Vec::new());
        for certificate in certificates {
            let limit = Certificate::read(&certificate).map(|read| read.between_max);
            if roots.add(certificate.into_owned()).is_ok() {
                limits.push(limit.unwrap_or_default());
            }
        }
        Self { roots: Arc::new(roots), limits }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    pub(super) fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }

    /// Whether a certificate that the library takes for `usage` has a chain that is short enough for who is at its end.
    ///
    /// The chain is searched for a second time, signatures included: the library's first search takes no rule of ours, and what
    /// both sides are told of everything else that may be wrong with a certificate comes from there. It is done only where
    /// certificates stand between and an authority has a limit, and costs no more than the first, which the library bounds.
    ///
    /// # Errors
    /// Nothing else than that it has none.
    pub(super) fn check_length(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<(), Error> {
        if between.is_empty() || self.limits.iter().all(Option::is_none) {
            return Ok(());
        }
        let is_short = |path: &VerifiedPath<'_>| self.is_short(path).then_some(()).ok_or(TOO_LONG);
        let algorithms = provider().signature_verification_algorithms.all;
        let found = EndEntityCert::try_from(certificate).and_then(|end| {
            end.verify_for_usage(algorithms, &self.roots.roots, between, now, usage, None, Some(&is_short)).map(drop)
        });
        found.map_err(|_| CertificateError::Other(OtherError(Arc::new(TOO_LONG))).into())
    }

    fn is_short(&self, path: &VerifiedPath<'_>) -> bool {
        let mut known = self.roots.roots.iter().zip(&self.limits);
        let limit = known.find(|(root, _)| ptr::eq(*root, path.anchor())).and_then(|(_, limit)| *limit);
        let between = path.intermediate_certificates().count();
        limit.is_none_or(|limit| u32::try_from(between).is_ok_and(|between| between <= limit))
    }
}

/// What the library says of those in the middle of a chain.
pub(super) const TOO_LONG: webpki::Error = webpki::Error::PathLenConstraintViolated;

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        pki_types::ServerName,
    };

    use super::*;

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn params(name: &str, limit: Option<BasicConstraints>) -> CertificateParams {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = limit.map_or(IsCa::NoCa, IsCa::Ca);
        params
    }

    fn key() -> KeyPair {
        KeyPair::generate().unwrap()
    }

    fn root(limit: BasicConstraints) -> Issuer {
        Issuer::self_signed(params("root", Some(limit)), key()).unwrap()
    }

    /// Who is signed by `above`, and signs without a limit.
    fn below(above: &Issuer, name: &str) -> Issuer {
        Issuer::signed_by(params(name, Some(BasicConstraints::Unconstrained)), key(), above).unwrap()
    }

    fn certificate(above: &Issuer) -> CertificateDer<'static> {
        params("end", None).signed_by(&key(), above).unwrap().der().clone()
    }

    fn is_short(trusted: &[&Issuer], certificate: &CertificateDer<'_>, between: &[&Issuer]) -> bool {
        let between: Vec<_> = between.iter().map(|issuer| issuer.der().clone()).collect();
        let signers = Signers::new(trusted.iter().map(|issuer| issuer.der().clone()));
        let library = WebPkiServerVerifier::builder_with_provider(signers.roots(), Arc::clone(provider())).build();
        let name = ServerName::try_from("localhost").unwrap();
        library.unwrap().verify_server_cert(certificate, &between, &name, &[], UnixTime::now()).unwrap();
        let usages = [KeyUsage::server_auth(), KeyUsage::client_auth()];
        let is_taken = |usage| signers.check_length(certificate, &between, usage, UnixTime::now()).is_ok();
        let [server, client] = usages.map(is_taken);
        assert_eq!(server, client);
        server
    }

    #[test]
    fn as_many_may_stand_between_as_the_authority_says() {
        for (limit, expected) in [
            (BasicConstraints::Unconstrained, [true, true, true]),
            (BasicConstraints::Constrained(0), [true, false, false]),
            (BasicConstraints::Constrained(1), [true, true, false]),
            (BasicConstraints::Constrained(2), [true, true, true]),
        ] {
            let root = root(limit);
            let first = below(&root, "first");
            let second = below(&first, "second");
            let found = [
                is_short(&[&root], &certificate(&root), &[&first, &second]),
                is_short(&[&root], &certificate(&first), &[&first]),
                is_short(&[&root], &certificate(&second), &[&first, &second]),
            ];
            assert_eq!(found, expected, "{limit:?}");
        }
    }

    #[test]
    fn another_authority_may_end_a_shorter_chain() {
        let (strict, first) = {
            let strict = root(BasicConstraints::Constrained(0));
            let first = below(&strict, "first");
            (strict, first)
        };
        assert!(!is_short(&[&strict], &certificate(&first), &[&first]));
        assert!(is_short(&[&strict, &first], &certificate(&first), &[&first]), "who is trusted himself");
    }
}
