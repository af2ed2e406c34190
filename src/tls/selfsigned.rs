//! Certificates a member makes for itself: `auto-tls` and `peer-auto-tls`.
//!
//! As etcd's they are in the data directory, stay there over restarts, and have organisation `etcd` and the hosts of the
//! listeners. Their keys are P-256, because the library signs nothing with etcd's P-521; and they sign nobody else, so
//! that they can be given to clients as the authority they trust.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};

use super::{PairFiles, TlsError};
use crate::{
    clock::{self, Clock as _},
    disk::private_directories,
};

/// Seconds of a year, as etcd counts them.
const YEAR: Duration = Duration::from_hours(365 * 24);
/// Longest validity in years: what comes later does not fit into a certificate's date.
const YEARS_MAX: u32 = 5000;
/// Bytes of a line of PEM (RFC 7468).
const PEM_LINE_BYTES: usize = 64;

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct SelfSigned<'a> {
    /// Where it is kept.
    pub directory: &'a Path,
    /// Hosts it counts for: addresses, and names.
    pub hosts: &'a [String],
    /// Years it counts for, from 1.
    pub years: u32,
}

/// The pair in the directory, made if it is not there.
///
/// # Errors
/// [`TlsError::Generate`].
pub fn self_signed(wanted: SelfSigned<'_>) -> Result<PairFiles, TlsError> {
    let failed = |what: String| TlsError::Generate { path: wanted.directory.to_owned(), what };
    let files = PairFiles::new(wanted.directory.join("cert.pem"), wanted.directory.join("key.pem"));
    if files.cert.exists() && files.key.exists() {
        return Ok(files);
    }
    let (cert, key) = generate(wanted).map_err(|error| failed(error.to_string()))?;
    let keep = || -> io::Result<()> {
        private_directories().recursive(true).create(wanted.directory)?;
        write(&files.cert, 0o644, &pem("CERTIFICATE", &cert))?;
        write(&files.key, 0o600, &pem("PRIVATE KEY", &key))
    };
    keep().map_err(|error| failed(error.to_string()))?;
    tracing::info!(directory = %wanted.directory.display(), "created cert file and key file");
    Ok(files)
}

fn generate(wanted: SelfSigned<'_>) -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    let now = clock::system().wall();
    params.not_before = (UNIX_EPOCH + now).into();
    params.not_after = (UNIX_EPOCH + now + YEAR.saturating_mul(wanted.years.clamp(1, YEARS_MAX))).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names =
        wanted.hosts.iter().filter(|host| !host.is_empty()).map(|host| san(host)).collect::<Result<_, _>>()?;
    Ok((params.self_signed(&key)?.der().to_vec(), key.serialize_der()))
}

fn san(host: &str) -> Result<SanType, rcgen::Error> {
    Ok(match host.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(host.try_into()?),
    })
}

/// Complete under its name, or not there.
fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let unfinished = PathBuf::from(format!("{}.tmp", path.display()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = BASE64_STANDARD.encode(der);
    let lines = body.as_bytes().chunks(PEM_LINE_BYTES).map(String::from_utf8_lossy);
    let lines: Vec<_> = lines.collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
