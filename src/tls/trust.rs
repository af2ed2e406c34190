//! Whose certificates count.
//!
//! As in Go, and unlike in the library, a certificate that is itself among the trusted ones is trusted, even one that may
//! sign others: whoever made a certificate with `openssl req -x509` uses it as both.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{
    AllowedNames, TlsError,
    certificate::{Certificate, FILE_BYTES_MAX, chain_of, first_end},
    kept::{FileText, Kept, Material},
    rules::provider,
};

/// Which authorities are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those of the system.
    #[default]
    System,
    /// Those in a PEM file, and no others.
    File(PathBuf),
}

/// What is trusted, read.
#[derive(Debug)]
pub(super) struct Trusted {
    /// As they stand in the file.
    exact: Vec<CertificateDer<'static>>,
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
    ends: Option<Duration>,
}

impl Trust {
    /// Reads it.
    ///
    /// # Errors
    /// [`TlsError`] for a file that cannot be used, or a system without authorities.
    pub(super) fn read(self) -> Result<Arc<Kept<Trusted>>, TlsError> {
        Kept::read(match self {
            Self::System => Vec::new(),
            Self::File(path) => vec![path],
        })
    }
}

impl Material for Trusted {
    const KIND: &'static str = "authority";
    const BYTES_MAX: u64 = FILE_BYTES_MAX;

    fn parse(files: &[FileText]) -> Result<Self, TlsError> {
        let Some(file) = files.first() else { return Self::new(of_system()?, Vec::new()) };
        let exact = chain_of(file)?;
        let mut roots = RootCertStore::empty();
        for certificate in &exact {
            roots.add(certificate.clone()).map_err(|error| {
                let what = format!("tls: failed to parse certificate: {error}: list authorities only");
                TlsError::content(&file.path, what)
            })?;
        }
        Self::new(roots, exact)
    }

    fn ends(&self) -> Option<Duration> {
        self.ends
    }
}

impl Trusted {
    fn new(roots: RootCertStore, exact: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let (roots, failed) = (Arc::new(roots), |error: VerifierBuilderError| TlsError::Rules(error.to_string()));
        let provider = || Arc::clone(provider());
        Ok(Self {
            servers: WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider())
                .build()
                .map_err(failed)?,
            clients: WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(failed)?,
            ends: first_end(&exact),
            exact,
        })
    }

    /// Whether this certificate is itself one of them, which then has to count at the moment.
    fn has(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<bool, Error> {
        if !self.exact.iter().any(|trusted| trusted == certificate) {
            return Ok(false);
        }
        check_time(certificate, now).map(|()| true)
    }
}

fn of_system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(TlsError::NoSystemRoots(why));
    }
    Ok(roots)
}

/// Whether `certificate` counts at the moment, itself being trusted.
fn check_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let read = Certificate::read(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let time = |since: Duration| UnixTime::since_unix_epoch(since);
    let at = Duration::from_secs(now.as_secs());
    if at < read.not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before: time(read.not_before) }.into());
    }
    if at > read.not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after: time(read.not_after) }.into());
    }
    Ok(())
}

/// The check that a client makes of a server: by what is trusted at that moment.
#[derive(Debug)]
pub(super) struct OfServers {
    pub(super) trust: Arc<Kept<Trusted>>,
    pub(super) names: AllowedNames,
}

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        status: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trusted = self.trust.current();
        if trusted.has(certificate, now)? {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        } else {
            trusted.servers.verify_server_cert(certificate, between, name, status, now)?;
        }
        self.names.check(certificate)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.current().servers.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.current().servers.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.current().servers.supported_verify_schemes()
    }
}

/// The check that a server makes of its clients, who must show a certificate.
#[derive(Debug)]
pub(super) struct OfClients {
    pub(super) trusted: Arc<Trusted>,
    pub(super) names: AllowedNames,
}

impl ClientCertVerifier for OfClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trusted.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !self.trusted.has(certificate, now)? {
            self.trusted.clients.verify_client_cert(certificate, between, now)?;
        }
        self.names.check(certificate)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trusted.clients.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trusted.clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.clients.supported_verify_schemes()
    }
}

/// Takes everybody for whom they say they are: what `--peer-auto-tls` and `--insecure-skip-tls-verify` ask for. As nobody
/// is known, signatures prove nothing and are not looked at, so that keys the library cannot use do not matter either:
/// etcd makes its own certificates with P-521. Names prove nothing then, either: where some are demanded nobody is let in
/// (etcd's rule).
#[derive(Debug)]
pub(super) struct Anybody(pub(super) AllowedNames);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.0 != AllowedNames::Any {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
        ]
    }
}
