//! Authorities and the certificates they sign, made for one test and gone with it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams,
};

/// How long a certificate counts before and behind the moment it is made.
const HOURS: Duration = Duration::from_hours(24);

/// Somebody who signs certificates. Its files are removed with it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Serial numbers, by the files of the certificates.
    serials: RefCell<HashMap<PathBuf, u64>>,
    directory: tempfile::TempDir,
}

/// The files of a certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    /// Flags that name both, each behind `prefix`: `--peer-` and so on.
    pub fn flags(&self, prefix: &str) -> [String; 2] {
        [format!("{prefix}cert-file={}", self.cert.display()), format!("{prefix}key-file={}", self.key.display())]
    }

    /// Flags of etcdctl that name both.
    pub fn client_flags(&self) -> [String; 2] {
        [format!("--cert={}", self.cert.display()), format!("--key={}", self.key.display())]
    }
}

impl Authority {
    /// An authority of that name, with a directory of its own.
    ///
    /// # Panics
    /// If there is no temporary directory.
    pub fn new(name: &str) -> Self {
        Self::with(name, BasicConstraints::Unconstrained)
    }

    /// One that lets so many others stand between itself and a certificate.
    pub fn limited(name: &str, between: u8) -> Self {
        Self::with(name, BasicConstraints::Constrained(between))
    }

    /// One that is signed by this one.
    pub fn below(&self, name: &str) -> Self {
        let params = signing(name, BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self::of(CertifiedIssuer::signed_by(params, key, &self.issuer).expect("a certificate"))
    }

    fn with(name: &str, limit: BasicConstraints) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self::of(CertifiedIssuer::self_signed(signing(name, limit), key).expect("a certificate"))
    }

    fn of(issuer: CertifiedIssuer<'static, KeyPair>) -> Self {
        let directory = tempfile::Builder::new().prefix("quorate-certs-").tempdir().expect("temporary directory");
        let authority = Self { issuer, serials: RefCell::default(), directory };
        write(&authority.file(), "CERTIFICATE", authority.issuer.der());
        authority
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for these hosts, good for servers and clients.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Pair {
        self.issue_until(name, hosts, HOURS)
    }

    /// One that is shown together with that of this authority.
    pub fn issue_chain(&self, name: &str, hosts: &[&str]) -> Pair {
        let pair = self.issue(name, hosts);
        let chain = [&pair.cert, &self.file()].map(|file| fs::read_to_string(file).expect("our own file"));
        replace(&pair.cert, chain.concat().as_bytes());
        pair
    }

    /// One that has ended an hour ago.
    pub fn issue_expired(&self, name: &str, hosts: &[&str]) -> Pair {
        self.issue_until(name, hosts, Duration::ZERO)
    }

    /// One that ends that much later.
    pub fn issue_until(&self, name: &str, hosts: &[&str], left: Duration) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(name, hosts, left);
        let serial = 0x1234 + self.serials.borrow().len() as u64;
        params.serial_number = Some(serial.into());
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair = Pair { cert: self.path(name, "crt"), key: self.path(name, "key") };
        self.serials.borrow_mut().insert(pair.cert.clone(), serial);
        write(&pair.cert, "CERTIFICATE", signed.der());
        write(&pair.key, "PRIVATE KEY", key.serialized_der());
        pair
    }

    /// The serial number of a certificate it has signed.
    ///
    /// # Panics
    /// If it has not.
    pub fn serial(&self, pair: &Pair) -> u64 {
        *self.serials.borrow().get(&pair.cert).expect("it has signed this one")
    }

    /// A list of these certificates as revoked, by itself and in PEM, in files of that name.
    ///
    /// # Panics
    /// If one of them is not its own.
    pub fn revoke(&self, name: &str, pairs: &[&Pair]) -> [PathBuf; 2] {
        let revoked = |pair: &&Pair| RevokedCertParams {
            serial_number: self.serial(pair).into(),
            revocation_time: wall().into(),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: wall().into(),
            next_update: (wall() + HOURS).into(),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: pairs.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        let files = [self.path(name, "crl"), self.path(name, "crl.pem")];
        replace(&files[0], list.der());
        write(&files[1], "X509 CRL", list.der());
        files
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.{kind}"))
    }
}

/// Writes a file as careful people do: whole, and then under its name.
///
/// # Panics
/// If the directory cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, bytes).expect("a file in our own directory");
    fs::rename(&unfinished, path).expect("the same directory");
}

fn signing(name: &str, limit: BasicConstraints) -> CertificateParams {
    let mut params = params(name, &[], HOURS);
    params.is_ca = IsCa::Ca(limit);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = Vec::new();
    params
}

fn params(name: &str, hosts: &[&str], left: Duration) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).expect("names of hosts");
    params.not_before = (wall() - HOURS).into();
    params.not_after = (wall() + left - if left.is_zero() { HOURS / 24 } else { Duration::ZERO }).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

#[expect(clippy::disallowed_methods, reason = "certificates have dates, and the daemon's clock is not the test's")]
fn wall() -> SystemTime {
    SystemTime::now()
}

fn write(path: &Path, label: &str, der: &[u8]) {
    let body = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"));
    fs::write(path, text).expect("a file in our own directory");
}
