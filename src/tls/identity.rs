//! A certificate and its key, kept up to date with their files.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    Error, InconsistentKeys, SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    TlsError,
    certificate::{FILE_BYTES_MAX, chain_of, first_end},
    kept::{FileText, Kept, Look, Material},
    key::private_key,
    rules::provider,
};

/// Where a certificate and its key are, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// The certificate, followed by those between it and the authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The file with the passwords that the key may be encrypted with, one a line.
    pub password: Option<PathBuf>,
}

impl PairFiles {
    /// A pair whose key is not encrypted.
    pub fn new(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { cert: cert.into(), key: key.into(), password: None }
    }
}

/// What one side of a connection shows for itself. Clones share what was read.
///
/// The files are looked at before every handshake and read again after a change, as etcd does. Files that cannot be used
/// then leave the last good pair in place.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Kept<Pair>>);

/// A certificate and its key, read.
#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    ends: Option<Duration>,
}

impl Identity {
    /// Reads a pair.
    ///
    /// # Errors
    /// [`TlsError::Open`], [`TlsError::Content`] if one of the files is not what it should be, or the key is not that of
    /// the certificate.
    pub fn read(files: PairFiles) -> Result<Self, TlsError> {
        Kept::read([files.cert, files.key].into_iter().chain(files.password).collect()).map(Self)
    }

    pub(super) fn looked_at(&self) -> Arc<dyn Look> {
        Arc::clone(&self.0) as _
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current().key))
    }
}

impl ResolvesClientCert for Identity {
    /// Whatever authorities the server names: it may trust more than it says.
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current().key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Material for Pair {
    const KIND: &'static str = "certificate";
    const BYTES_MAX: u64 = FILE_BYTES_MAX;

    fn parse(files: &[FileText]) -> Result<Self, TlsError> {
        let [cert, key, passwords @ ..] = files else { return Err(TlsError::Rules("a pair is two files".to_owned())) };
        let chain = chain_of(cert)?;
        let ends = first_end(&chain);
        let key = Arc::new(certified(cert, key, private_key(key, passwords.first())?, chain)?);
        Ok(Self { key, ends })
    }

    fn ends(&self) -> Option<Duration> {
        self.ends
    }
}

fn certified(
    cert: &FileText,
    key: &FileText,
    private: PrivateKeyDer<'static>,
    chain: Vec<CertificateDer<'static>>,
) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(chain, private, provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let cert = cert.path.display();
            let what = format!("tls: private key does not match public key: it is not the key of {cert}");
            TlsError::content(&key.path, what)
        }
        Error::InvalidCertificate(_) => {
            TlsError::content(&cert.path, format!("tls: failed to parse certificate: {error}"))
        }
        _ => TlsError::content(
            &key.path,
            "tls: failed to parse private key: it must be RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519",
        ),
    })
}
