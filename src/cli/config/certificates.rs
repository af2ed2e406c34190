//! Certificates and keys as `config check --deep` looks at them: whether they fit, still count, and name the hosts that
//! are told to others.

use std::{
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use super::finding::{Finding, Severity};
use crate::{
    clock::{self, Clock as _},
    config::{Config, KeyPair, TlsSide, Url},
    tls::{Certificate, ENDS_SOON, Identity, PairFiles, certificates, is_suite_available, revocation_list_due},
};

/// The options of one side: what listeners show, what is shown to others, authorities, and what they have revoked.
const CLIENT_OPTIONS: [&str; 4] = ["cert-file", "client-cert-file", "trusted-ca-file", "client-crl-file"];
/// As [`CLIENT_OPTIONS`].
const PEER_OPTIONS: [&str; 4] = ["peer-cert-file", "peer-client-cert-file", "peer-trusted-ca-file", "peer-crl-file"];

/// Looks at everything that the options about TLS name.
pub(super) fn all(config: &Config) -> Vec<Finding> {
    let (client, peer) = (&config.tls.client, &config.tls.peer);
    let mut findings = Vec::new();
    side(client, CLIENT_OPTIONS, &config.advertise.client, &mut findings);
    side(peer, PEER_OPTIONS, &config.advertise.peer, &mut findings);
    let missing = config.tls.cipher_suites.iter().filter(|name| !is_suite_available(name));
    findings.extend(missing.map(|name| {
        Finding::probed(Severity::Warning, "cipher-suites", format!("{name} is not available and never agreed on"))
    }));
    findings
}

fn side(side: &TlsSide, options: [&'static str; 4], advertised: &[Url], findings: &mut Vec<Finding>) {
    let [server, client, authority, list] = options;
    if let Some(files) = side.server_files() {
        findings.extend(pair(server, files));
        findings.extend(names(server, &files.cert, advertised));
    }
    findings.extend(side.client.iter().flat_map(|files| pair(client, files)));
    findings.extend(side.trusted_ca.iter().flat_map(|path| authorities(authority, path)));
    findings.extend(side.crl.iter().map(|path| revoked(list, path)));
}

/// Whether a list of revoked certificates can be read, and when it should be renewed.
fn revoked(option: &'static str, path: &Path) -> Finding {
    let shown = path.display();
    match revocation_list_due(path) {
        Err(error) => Finding::probed(Severity::Error, option, error.to_string()),
        Ok(Some(due)) if due < clock::system().wall() => {
            let text = format!("the list in {shown} should have been renewed at {}: fetch a new one", date(due));
            Finding::probed(Severity::Warning, option, text)
        }
        Ok(_) => Finding::probed(Severity::Fine, option, format!("{shown} is a list of revoked certificates")),
    }
}

/// Whether key and certificate fit, and how long it counts.
fn pair(option: &'static str, files: &KeyPair) -> Vec<Finding> {
    let read = Identity::read(PairFiles {
        cert: files.cert.clone(),
        key: files.key.clone(),
        password: files.password.clone(),
    });
    if let Err(error) = read {
        return vec![Finding::probed(Severity::Error, option, error.to_string())];
    }
    let fits = format!("{} is the key of {}", files.key.display(), files.cert.display());
    let mut findings = vec![Finding::probed(Severity::Fine, option, fits)];
    findings.extend(first(&files.cert).map(|certificate| dates(option, &files.cert, &certificate, Severity::Error)));
    findings
}

fn authorities(option: &'static str, path: &Path) -> Vec<Finding> {
    let read = match certificates(path) {
        Ok(read) => read,
        Err(error) => return vec![Finding::probed(Severity::Error, option, error.to_string())],
    };
    let look = |der: &Vec<u8>| match Certificate::read(der) {
        Ok(certificate) => dates(option, path, &certificate, Severity::Warning),
        Err(why) => Finding::probed(Severity::Error, option, format!("{}: {why}", path.display())),
    };
    read.iter().map(look).collect()
}

fn first(path: &Path) -> Option<Certificate> {
    Certificate::read(certificates(path).ok()?.first()?).ok()
}

/// `over` is how bad it is that the certificate does not count.
fn dates(option: &'static str, path: &Path, certificate: &Certificate, over: Severity) -> Finding {
    let now = clock::system().wall();
    let (shown, ends) = (path.display(), date(certificate.not_after));
    if now < certificate.not_before {
        let begins = date(certificate.not_before);
        return Finding::probed(over, option, format!("the certificate in {shown} does not count before {begins}"));
    }
    if !certificate.is_valid_at(now) {
        return Finding::probed(over, option, format!("the certificate in {shown} has ended at {ends}: renew it"));
    }
    let soon = certificate.not_after.saturating_sub(now) < ENDS_SOON;
    let severity = if soon { Severity::Warning } else { Severity::Fine };
    Finding::probed(severity, option, format!("the certificate in {shown} ends at {ends}"))
}

fn date(since_epoch: Duration) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH))
}

/// Hosts that others are told to dial and the certificate does not name.
fn names(option: &'static str, path: &Path, advertised: &[Url]) -> Vec<Finding> {
    let Some(certificate) = first(path) else { return Vec::new() };
    let dialled = advertised.iter().filter(|url| url.scheme().is_tls() && !url.scheme().is_unix());
    let unnamed = dialled.filter(|url| !is_named(&certificate, url));
    unnamed
        .map(|url| {
            let text = format!("the certificate in {} does not name {}, which others dial", path.display(), url.host());
            Finding::probed(Severity::Warning, option, text)
        })
        .collect()
}

fn is_named(certificate: &Certificate, url: &Url) -> bool {
    let host = url.host();
    let under = |wildcard: &str| host.split_once('.').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(wildcard));
    let matches = |name: &String| match name.strip_prefix("*.") {
        Some(wildcard) => under(wildcard),
        None => name.eq_ignore_ascii_case(host),
    };
    match url.ip() {
        Some(ip) => certificate.addresses.contains(&ip),
        None => certificate.dns_names.iter().any(matches),
    }
}
