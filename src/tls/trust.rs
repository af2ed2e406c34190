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
use webpki::KeyUsage;

use super::{
    AllowedNames, TlsError,
    certificate::{Certificate, FILE_BYTES_MAX, chain_of, first_end},
    kept::{FileText, Kept, Material},
    rules::provider,
    signers::Signers,
    timely::Timely,
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
    /// As they stand in the file, and what they say; nothing of the system's, which are left to the library.
    exact: Vec<(CertificateDer<'static>, Certificate)>,
    /// By all of them: for signatures, and for who is to be named to clients.
    servers: Chains<WebPkiServerVerifier>,
    clients: Chains<dyn ClientCertVerifier>,
    /// Chains that end in those that may sign for such a side at the moment.
    server_chains: Timely<Chains<WebPkiServerVerifier>>,
    client_chains: Timely<Chains<dyn ClientCertVerifier>>,
    ends: Option<Duration>,
}

/// What verifies chains: all but their length, and that.
#[derive(Debug)]
struct Chains<V: ?Sized> {
    library: Arc<V>,
    signers: Arc<Signers>,
}

impl<V: ?Sized> Clone for Chains<V> {
    fn clone(&self) -> Self {
        Self { library: Arc::clone(&self.library), signers: Arc::clone(&self.signers) }
    }
}

/// Who shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

impl Role {
    fn fits(self, certificate: &Certificate) -> bool {
        match self {
            Self::Server => certificate.uses.servers,
            Self::Client => certificate.uses.clients,
        }
    }
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
        let mut exact = Vec::new();
        for certificate in chain_of(file)? {
            let failed = |error: String| {
                let what = format!("tls: failed to parse certificate: {error}: list authorities only");
                TlsError::content(&file.path, what)
            };
            RootCertStore::empty().add(certificate.clone()).map_err(|error| failed(error.to_string()))?;
            let read = Certificate::read(&certificate).map_err(failed)?;
            exact.push((certificate, read));
        }
        Self::new(signers(exact.iter()), exact)
    }

    fn ends(&self) -> Option<Duration> {
        self.ends
    }
}

impl Trusted {
    fn new(all: Signers, exact: Vec<(CertificateDer<'static>, Certificate)>) -> Result<Self, TlsError> {
        let all = Arc::new(all);
        let (servers, clients) = (of_servers(Arc::clone(&all))?, of_clients(all)?);
        let ders: Vec<_> = exact.iter().map(|(certificate, _)| certificate.clone()).collect();
        let ends = first_end(&ders);
        Ok(Self { exact, servers, clients, server_chains: Timely::default(), client_chains: Timely::default(), ends })
    }

    fn server_chains(&self, now: UnixTime) -> Result<Chains<WebPkiServerVerifier>, Error> {
        if self.exact.is_empty() {
            return Ok(self.servers.clone());
        }
        self.chains(&self.server_chains, Role::Server, now, of_servers)
    }

    fn client_chains(&self, now: UnixTime) -> Result<Chains<dyn ClientCertVerifier>, Error> {
        if self.exact.is_empty() {
            return Ok(self.clients.clone());
        }
        self.chains(&self.client_chains, Role::Client, now, of_clients)
    }

    /// What verifies chains for `role` at the moment.
    fn chains<V: Clone>(
        &self,
        timely: &Timely<V>,
        role: Role,
        now: UnixTime,
        of: impl FnOnce(Arc<Signers>) -> Result<V, TlsError>,
    ) -> Result<V, Error> {
        let at = Duration::from_secs(now.as_secs());
        let make = || self.signers(role, at).and_then(|signers| of(signers).ok());
        let moments = self.exact.iter().flat_map(|(_, read)| read.changes());
        timely.at(at, moments, make).ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    /// Those that may sign for `role` and count at the moment, if there are any. The library believes whatever is given to it
    /// as an authority.
    fn signers(&self, role: Role, at: Duration) -> Option<Arc<Signers>> {
        let signs = |read: &Certificate| read.uses.signing && role.fits(read) && read.is_valid_at(at);
        let signers = signers(self.exact.iter().filter(|(_, read)| signs(read)));
        (!signers.is_empty()).then(|| Arc::new(signers))
    }

    /// Whether this certificate is itself one of them, which then has to count at the moment and for `role`.
    fn has(&self, certificate: &CertificateDer<'_>, role: Role, now: UnixTime) -> Result<bool, Error> {
        let Some((_, read)) = self.exact.iter().find(|(trusted, _)| trusted == certificate) else { return Ok(false) };
        if !role.fits(read) {
            return Err(CertificateError::InvalidPurpose.into());
        }
        check_time(read, now).map(|()| true)
    }
}

impl Chains<WebPkiServerVerifier> {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        status: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        self.library.verify_server_cert(certificate, between, name, status, now)?;
        self.signers.check_length(certificate, between, KeyUsage::server_auth(), now)
    }
}

impl Chains<dyn ClientCertVerifier> {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        self.library.verify_client_cert(certificate, between, now)?;
        self.signers.check_length(certificate, between, KeyUsage::client_auth(), now)
    }
}

fn signers<'e>(exact: impl Iterator<Item = &'e (CertificateDer<'static>, Certificate)>) -> Signers {
    Signers::new(exact.map(|(certificate, _)| certificate.clone()))
}

fn of_servers(signers: Arc<Signers>) -> Result<Chains<WebPkiServerVerifier>, TlsError> {
    let builder = WebPkiServerVerifier::builder_with_provider(signers.roots(), Arc::clone(provider()));
    Ok(Chains { library: builder.build().map_err(unusable)?, signers })
}

fn of_clients(signers: Arc<Signers>) -> Result<Chains<dyn ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(signers.roots(), Arc::clone(provider()));
    Ok(Chains { library: builder.build().map_err(unusable)?, signers })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what a builder fails with")]
fn unusable(error: VerifierBuilderError) -> TlsError {
    TlsError::Rules(error.to_string())
}

fn of_system() -> Result<Signers, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let signers = Signers::new(found.certs);
    if signers.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(TlsError::NoSystemRoots(why));
    }
    Ok(signers)
}

/// Whether a certificate counts at the moment, itself being trusted.
fn check_time(read: &Certificate, now: UnixTime) -> Result<(), Error> {
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
        if trusted.has(certificate, Role::Server, now)? {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        } else {
            trusted.server_chains(now)?.verify(certificate, between, name, status, now)?;
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
        self.trust.current().servers.library.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.current().servers.library.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.current().servers.library.supported_verify_schemes()
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
        self.trusted.clients.library.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !self.trusted.has(certificate, Role::Client, now)? {
            self.trusted.client_chains(now)?.verify(certificate, between, now)?;
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
        self.trusted.clients.library.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trusted.clients.library.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.clients.library.supported_verify_schemes()
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

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
        date_time_ymd,
    };

    use super::*;

    const NOW: Duration = Duration::from_secs(1_796_000_000);

    fn params() -> CertificateParams {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2040, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    /// Whether servers and clients are believed that show a certificate signed by such an authority, and ones that show its own.
    fn believed(change: impl FnOnce(&mut CertificateParams)) -> [bool; 4] {
        let mut own = params();
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        own.extended_key_usages.clear();
        change(&mut own);
        let issuer = CertifiedIssuer::self_signed(own, KeyPair::generate().unwrap()).unwrap();
        let signed = params().signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let exact = vec![(issuer.der().clone(), Certificate::read(issuer.der()).unwrap())];
        let trusted = Arc::new(Trusted::new(signers(exact.iter()), exact).unwrap());
        let now = UnixTime::since_unix_epoch(NOW);
        let name = ServerName::try_from("localhost").unwrap();
        let server = |shown: &CertificateDer<'_>| {
            let is_own = trusted.has(shown, Role::Server, now);
            let chains = || trusted.server_chains(now)?.verify(shown, &[], &name, &[], now);
            is_own.and_then(|is_own| if is_own { Ok(()) } else { chains() }).is_ok()
        };
        let clients = OfClients { trusted: Arc::clone(&trusted), names: AllowedNames::Any };
        let client = |shown: &CertificateDer<'_>| clients.verify_client_cert(shown, &[], now).is_ok();
        [server(signed.der()), client(signed.der()), server(issuer.der()), client(issuer.der())]
    }

    #[test]
    fn only_what_may_sign_is_believed_about_others() {
        assert_eq!(believed(|_| ()), [true; 4]);
        let pinned = |params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa;
        assert_eq!(believed(pinned), [false, false, true, true], "a pinned certificate stands for itself alone");
        assert_eq!(
            believed(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
            [false, false, true, true]
        );
        assert_eq!(believed(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]), [true; 4]);
    }

    #[test]
    fn uses_of_an_authority_are_those_of_what_it_signs() {
        let uses = |purpose| move |params: &mut CertificateParams| params.extended_key_usages = vec![purpose];
        assert_eq!(believed(uses(ExtendedKeyUsagePurpose::ServerAuth)), [true, false, true, false]);
        assert_eq!(believed(uses(ExtendedKeyUsagePurpose::ClientAuth)), [false, true, false, true]);
        assert_eq!(believed(uses(ExtendedKeyUsagePurpose::Any)), [true; 4]);
    }

    #[test]
    fn an_authority_that_has_ended_is_believed_no_longer() {
        assert_eq!(believed(|params| params.not_after = date_time_ymd(2021, 1, 1)), [false; 4]);
        assert_eq!(believed(|params| params.not_before = date_time_ymd(2039, 1, 1)), [false; 4]);
    }
}
