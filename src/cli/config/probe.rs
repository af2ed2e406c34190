//! `config check --deep`: what only the host can tell. Every probe leaves the host as it found it.
//!
//! Sockets are bound and closed, socket files are not created. The disk is measured in a file that has no name by the
//! time the first byte is written, so that not even a kill leaves it behind.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{AccessFlags, access, geteuid};

use super::{
    certificates,
    finding::{Finding, Severity},
    holder,
};
use crate::{
    audit,
    auth::Jwt,
    clock::Stopwatch,
    config::{
        AuditLog, Bind, BootstrapMethod, Config, ListenUrl, LogOutput, Role, TlsSide, TokenProvider, Url, check_entry,
        check_own_entry, first_bound,
    },
    discovery::{Own, dns::Resolver, srv::Domain},
    server::DataDir,
    tls::jws::key_file,
};

/// Less free space than this refuses: not even the first log segment (64 MB) and a snapshot would fit.
const FREE_BYTES_MIN: u64 = 256 << 20;
/// Syncs that are measured; the slowest counts.
const SYNCS: usize = 20;
/// Bytes written before each sync: one small entry's worth of log page.
const SYNC_BYTES: usize = 4096;
/// A disk whose syncs take longer costs elections under load.
const SYNC_SLOW: Duration = Duration::from_millis(10);

/// Runs every probe.
pub(super) fn all(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    listeners(config, &mut findings);
    names(config, &mut findings);
    findings.extend(records(config));
    files(config, &mut findings);
    findings.extend(certificates::all(config));
    findings.extend(tokens(config));
    directories(config, &mut findings);
    findings
}

/// Whether the keys of JSON web tokens can be used.
fn tokens(config: &Config) -> Option<Finding> {
    let TokenProvider::Jwt(options) = &config.auth.token else { return None };
    Some(match Jwt::new(options, key_file) {
        Ok(_) => Finding::probed(Severity::Fine, "auth-token", "the keys are there and belong together".to_owned()),
        Err(error) => Finding::probed(Severity::Error, "auth-token", error.to_string()),
    })
}

fn listeners(config: &Config, findings: &mut Vec<Finding>) {
    let listen = &config.listen;
    let all = [
        ("listen-peer-urls", &listen.peer),
        ("listen-client-urls", &listen.client),
        ("listen-client-http-urls", &listen.client_http),
        ("listen-metrics-urls", &listen.metrics),
    ];
    for (option, urls) in all {
        findings.extend(urls.iter().map(|url| listener(config, option, url)));
    }
}

/// Whether the daemon could listen there, by the daemon's own rule.
fn listener(config: &Config, option: &'static str, url: &ListenUrl) -> Finding {
    let bound = match &url.bind {
        Bind::Unix(path) => bindable_file(path).map_err(|error| (None, error)),
        bind => first_bound(&bind.addresses()).map(drop).map_err(|(address, error)| (Some(address), error)),
    };
    match bound {
        Ok(()) => Finding::probed(Severity::Fine, option, format!("{url} can be bound")),
        Err((Some(address), error)) if error.kind() == io::ErrorKind::AddrInUse => in_use(config, option, url, address),
        Err((_, error)) => Finding::probed(Severity::Error, option, format!("{url} cannot be bound: {error}")),
    }
}

/// A running member has its addresses; a stopped one has none, and others may have those of both.
fn in_use(config: &Config, option: &'static str, url: &ListenUrl, address: SocketAddr) -> Finding {
    let dir = &config.member.data_dir;
    let is_running = DataDir::is_in_use(dir);
    // Where the system does not tell, the member is believed to have what it asked for.
    if is_running && holder::has_address(&DataDir::lock_path(dir), address).unwrap_or(true) {
        let text = format!("{url} is in use by the running member of this data directory");
        return Finding::probed(Severity::Fine, option, text);
    }
    let by_whom = if is_running {
        "not by the member that runs in this data directory"
    } else {
        "and no member runs in this data directory"
    };
    Finding::probed(Severity::Error, option, format!("{url}: address already in use, {by_whom}"))
}

/// A socket file can be made where there is none, or only an old socket, in a directory that can be written.
fn bindable_file(path: &Path) -> io::Result<()> {
    let is_free = fs::symlink_metadata(path).map_or(true, |metadata| metadata.file_type().is_socket());
    if !is_free {
        return Err(io::Error::other("another file has this name"));
    }
    Ok(access(parent(path), AccessFlags::W_OK | AccessFlags::X_OK)?)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn names(config: &Config, findings: &mut Vec<Finding>) {
    let mut urls: Vec<(&'static str, &Url)> = Vec::new();
    urls.extend(config.advertise.client.iter().map(|url| ("advertise-client-urls", url)));
    urls.extend(config.advertise.peer.iter().map(|url| ("initial-advertise-peer-urls", url)));
    if let BootstrapMethod::Static(cluster) = &config.bootstrap.method {
        urls.extend(cluster.0.values().flatten().map(|url| ("initial-cluster", url)));
    }
    let named = urls.into_iter().filter(|(_, url)| !url.scheme().is_unix() && url.ip().is_none());
    let mut hosts: Vec<(&'static str, &str)> = named.map(|(option, url)| (option, url.host())).collect();
    hosts.sort_by_key(|(_, host)| *host);
    hosts.dedup_by_key(|(_, host)| *host);
    findings.extend(hosts.into_iter().map(|(option, host)| match look_up(host) {
        Some(addresses) => {
            let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
            Finding::probed(Severity::Fine, option, format!("{host} is {}", addresses.join(", ")))
        }
        None => Finding::probed(Severity::Error, option, format!("{host} does not resolve")),
    }));
    if config.member.is_initialized() {
        return;
    }
    if let Err(own) = check_own_entry(config, &look_up) {
        findings.push(Finding::probed(Severity::Error, own.option, own.what).with_remedy(own.remedy));
    }
}

/// Whether the domain that is to name the members does so. It is asked once; a start asks again for a while what nobody
/// knows yet.
fn records(config: &Config) -> Option<Finding> {
    let BootstrapMethod::DnsSrv { domain: name, service } = &config.bootstrap.method else { return None };
    if config.member.is_initialized() {
        return None;
    }
    let domain = Domain { domain: name.clone(), suffix: service.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime
        .map_err(|error| format!("starting tokio: {error}"))
        .and_then(|runtime| runtime.block_on(named(config, &domain, &Resolver::of_system())));
    Some(match asked {
        Ok(urls) => Finding::probed(Severity::Fine, "discovery-srv", format!("{name} names {}", urls.join(", "))),
        Err(why) => Finding::probed(Severity::Error, "discovery-srv", why),
    })
}

/// The peer URLs that this node would go by, or why it would end: by the daemon's rules, which are strict with founders and
/// leave a proxy what there is.
async fn named(config: &Config, domain: &Domain, resolver: &Resolver) -> Result<Vec<String>, String> {
    if matches!(config.role(), Ok(Role::Proxy(_))) {
        return domain.peers(resolver).await.map_err(|error| error.to_string());
    }
    let peer_urls = config.advertise.peer.iter().map(Url::to_string).collect();
    let own = Own { name: config.member.name.clone(), peer_urls };
    let found = domain.founders_at_once(resolver, &own, &config.bootstrap.token).await;
    let founders = found.map_err(|error| error.to_string())?.founders;
    let listed = founders.listed()?;
    check_entry(config, &listed, &founders.own, &look_up).map_err(|error| error.to_string())?;
    Ok(listed.0.values().flatten().map(Url::to_string).collect())
}

fn look_up(host: &str) -> Option<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = (host, 0).to_socket_addrs().ok()?.map(|address| address.ip()).collect();
    addresses.sort();
    addresses.dedup();
    Some(addresses).filter(|addresses| !addresses.is_empty())
}

/// Certificates, keys and lists must at least be there for this user.
fn files(config: &Config, findings: &mut Vec<Finding>) {
    let client = [
        "cert-file",
        "key-file",
        "key-password-file",
        "client-cert-file",
        "client-key-file",
        "trusted-ca-file",
        "client-crl-file",
    ];
    let peer = [
        "peer-cert-file",
        "peer-key-file",
        "peer-key-password-file",
        "peer-client-cert-file",
        "peer-client-key-file",
        "peer-trusted-ca-file",
        "peer-crl-file",
    ];
    for (options, side) in [(client, &config.tls.client), (peer, &config.tls.peer)] {
        let given = options.into_iter().zip(side_files(side));
        findings.extend(given.filter_map(|(option, path)| path.map(|path| readable(option, path))));
    }
}

/// The files of one side, in the order in which [`files`] names their options.
fn side_files(side: &TlsSide) -> [Option<&Path>; 7] {
    [
        side.server_files().map(|pair| pair.cert.as_path()),
        side.server_files().map(|pair| pair.key.as_path()),
        side.server_files().and_then(|pair| pair.password.as_deref()),
        side.client.as_ref().map(|pair| pair.cert.as_path()),
        side.client.as_ref().map(|pair| pair.key.as_path()),
        side.trusted_ca.as_deref(),
        side.crl.as_deref(),
    ]
}

fn readable(option: &'static str, path: &Path) -> Finding {
    let shown = path.display();
    match File::open(path) {
        Ok(_) => Finding::probed(Severity::Fine, option, format!("{shown} can be read")),
        Err(error) => Finding::probed(Severity::Error, option, format!("{shown} cannot be read: {error}")),
    }
}

fn directories(config: &Config, findings: &mut Vec<Finding>) {
    let data_dir = &config.member.data_dir;
    findings.extend(directory("data-dir", data_dir));
    if let Some(wal_dir) = &config.member.wal_dir_dedicated {
        findings.extend(directory("wal-dir", wal_dir));
    }
    if config.storage.scheduled.period.is_some() {
        snapshots(config, findings);
    }
    if let Some(AuditLog { output: LogOutput::File(path), .. }) = &config.audit {
        audit_log(config, path, findings);
    }
    if let Some(place) = existing(data_dir) {
        findings.extend(free_space(&place, config.storage.quota.limit_bytes()));
    }
    if let Some(place) = existing(&config.member.wal_dir()) {
        findings.push(sync_time(&place));
    }
}

/// The directory itself, or the nearest one above it that exists: there it will be made.
fn existing(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find(|place| place.is_dir()).map(Path::to_owned)
}

fn directory(option: &'static str, path: &Path) -> Vec<Finding> {
    let shown = path.display();
    if path.exists() && !path.is_dir() {
        return vec![Finding::probed(Severity::Error, option, format!("{shown} is no directory"))];
    }
    let Some(place) = existing(path) else {
        return vec![Finding::probed(Severity::Error, option, format!("{shown} cannot be found"))];
    };
    let mut findings = Vec::new();
    let what = if path.is_dir() { "can be written".to_owned() } else { format!("can be made in {}", place.display()) };
    findings.push(match access(place.as_path(), AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Finding::probed(Severity::Fine, option, format!("{shown} {what}")),
        Err(error) => {
            Finding::probed(Severity::Error, option, format!("{} cannot be written: {}", place.display(), error.desc()))
        }
    });
    if let Some(metadata) = fs::metadata(path).ok().filter(fs::Metadata::is_dir) {
        findings.extend(looseness(option, path, &metadata));
    }
    findings
}

fn looseness(option: &'static str, path: &Path, metadata: &fs::Metadata) -> Vec<Finding> {
    let shown = path.display();
    let mode = metadata.mode() & 0o777;
    let mut findings = Vec::new();
    if mode & 0o077 != 0 {
        findings.push(Finding::probed(
            Severity::Warning,
            option,
            format!("{shown} has mode {mode:o}; 700 keeps others out"),
        ));
    }
    if metadata.uid() != geteuid().as_raw() {
        let owner = metadata.uid();
        findings.push(Finding::probed(
            Severity::Warning,
            option,
            format!("{shown} belongs to user {owner}, not to this one"),
        ));
    }
    findings
}

fn free_space(place: &Path, quota: Option<u64>) -> Option<Finding> {
    let stat = nix::sys::statvfs::statvfs(place).ok()?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let text = format!("{} MiB are free at {}", free >> 20, place.display());
    Some(match quota {
        _ if free < FREE_BYTES_MIN => Finding::probed(
            Severity::Error,
            "data-dir",
            format!("only {text}; at least {} are needed", FREE_BYTES_MIN >> 20),
        ),
        Some(quota) if free < quota => {
            let less = format!("only {text}, less than the quota of {} MiB", quota >> 20);
            Finding::probed(Severity::Warning, "quota-backend-bytes", less)
        }
        _ => Finding::probed(Severity::Fine, "data-dir", text),
    })
}

/// Where scheduled snapshots go, and whether there is room for any.
fn snapshots(config: &Config, findings: &mut Vec<Finding>) {
    let dir = config.snapshot_dir();
    findings.extend(directory("snapshot-dir", &dir));
    let Some(stat) = existing(&dir).and_then(|place| nix::sys::statvfs::statvfs(&place).ok()) else { return };
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    if free < FREE_BYTES_MIN {
        let text = format!(
            "only {} MiB are free at {}; at least {} are needed",
            free >> 20,
            dir.display(),
            FREE_BYTES_MIN >> 20
        );
        findings.push(Finding::probed(Severity::Error, "snapshot-dir", text));
    }
}

/// Where the audit log goes: whether it can, and whether that is what was meant.
fn audit_log(config: &Config, path: &Path, findings: &mut Vec<Finding>) {
    const OPTION: &str = "audit-log";
    let shown = path.display();
    findings.push(match audit::check(path) {
        Ok(text) => Finding::probed(Severity::Fine, OPTION, text),
        Err(text) => Finding::probed(Severity::Error, OPTION, text),
    });
    let mut tell = |severity, text: String, remedy: &str| {
        findings.push(Finding::probed(severity, OPTION, text).with_remedy(remedy.to_owned()));
    };
    // Whether anybody reads it cannot be tried: who waits for its first writer would take this for the last one, too.
    if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        let text = format!("{shown} is a pipe, and a start is refused while nobody reads it");
        tell(Severity::Warning, text, "start its reader ahead of the daemon");
    }
    if path.components().count() == 1 && path.is_relative() {
        let text = format!("{shown} is a file in the directory in which the daemon is started");
        let remedy = "write the whole path of a file; for a stream, stdout or stderr in small letters";
        tell(Severity::Warning, text, remedy);
    }
    let place = settled(path);
    if config.log.outputs.iter().any(|output| matches!(output, LogOutput::File(log) if settled(log) == place)) {
        let text = format!("{shown} is where the log goes, too (--log-outputs)");
        tell(Severity::Error, text, "name a file of its own");
    }
    let dirs = [Some(&config.member.data_dir), config.member.wal_dir_dedicated.as_ref()];
    for dir in dirs.into_iter().flatten().filter(|dir| place.starts_with(settled(dir))) {
        let text = format!("{shown} lies in {}, which holds the member's data and nothing else", dir.display());
        tell(Severity::Warning, text, "name a file elsewhere, as /var/log/quorate/audit.log");
    }
}

/// The absolute path behind all links, as far as there is something.
fn settled(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = absolute.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, real)) = found else { return absolute };
    absolute.strip_prefix(above).map_or_else(|_| real.clone(), |rest| real.join(rest))
}

fn sync_time(place: &Path) -> Finding {
    match slowest_sync(place) {
        Ok(slowest) => {
            let text = format!("the slowest of {SYNCS} syncs at {} took {slowest:.1?}", place.display());
            if slowest > SYNC_SLOW {
                let text = format!("{text}; above {SYNC_SLOW:?} elections suffer under load");
                return Finding::probed(Severity::Warning, "wal-dir", text);
            }
            Finding::probed(Severity::Fine, "wal-dir", text)
        }
        Err(error) => {
            Finding::probed(Severity::Error, "wal-dir", format!("{} cannot be measured: {error}", place.display()))
        }
    }
}

fn slowest_sync(place: &Path) -> io::Result<Duration> {
    let mut file = nameless_file(place)?;
    let page = [0_u8; SYNC_BYTES];
    let mut slowest = Duration::ZERO;
    for _ in 0..SYNCS {
        file.write_all(&page)?;
        let watch = Stopwatch::start();
        file.sync_data()?;
        slowest = slowest.max(watch.elapsed());
    }
    Ok(slowest)
}

/// A file that loses its name before it gets its first byte.
fn nameless_file(place: &Path) -> io::Result<File> {
    let path = place.join(format!(".quorate-probe-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use ::domain::base::iana::Rcode;

    use super::*;
    use crate::{
        config::{Sources, load},
        discovery::dns::{
            Settings,
            tests::{Given, answer, server},
        },
    };

    /// What a node that is reached at `url` makes of a domain that names 127.0.0.1:2380 without TLS, and whose name server
    /// says `of_tls` when it is asked for members with TLS.
    async fn named_to(url: &str, more: &[&str], of_tls: Rcode) -> Result<Vec<String>, String> {
        let (address, _server) = server(move |question| {
            let record = [Given::Srv("_etcd-server._tcp.example.com.", 2380, "127.0.0.1")];
            let (records, code) = if question.windows(4).any(|word| word == b"-ssl") {
                (&record[..0], of_tls)
            } else {
                (&record[..], Rcode::NOERROR)
            };
            vec![answer(question, records, |header| header.set_rcode(code))]
        })
        .await;
        let place = tempfile::tempdir().expect("a directory");
        let words = [
            "--name=a".to_owned(),
            "--discovery-srv=example.com".to_owned(),
            format!("--data-dir={}", place.path().join("a").display()),
            format!("--listen-peer-urls={url}"),
            format!("--initial-advertise-peer-urls={url}"),
        ];
        let args = words.iter().map(OsString::from).chain(more.iter().map(OsString::from)).collect();
        let config = load(&Sources { args, ..Sources::default() }).unwrap_or_else(|errors| panic!("{errors}")).config;
        let domain = Domain { domain: "example.com".to_owned(), suffix: String::new() };
        let settings = Settings { timeout: Duration::from_secs(2), attempts: 1, ..Settings::new(vec![address]) };
        named(&config, &domain, &Resolver::new(settings)).await
    }

    #[tokio::test]
    async fn a_domain_is_judged_as_a_start_would() {
        let (url, all) = ("http://127.0.0.1:2380", vec!["http://127.0.0.1:2380".to_owned()]);
        assert_eq!(named_to(url, &[], Rcode::NXDOMAIN).await, Ok(all.clone()));
        let why = named_to(url, &[], Rcode::SERVFAIL).await.expect_err("others may be left out");
        assert!(why.contains("error querying DNS SRV records for _etcd-server-ssl") && why.contains("misbehaving"));
        let why = named_to("http://127.0.0.9:2380", &[], Rcode::NXDOMAIN).await.expect_err("no record of its own");
        assert!(why.contains("cannot find local etcd member \"a\" in SRV records"), "{why}");
        assert_eq!(named_to("http://127.0.0.9:2380", &["--proxy=on"], Rcode::SERVFAIL).await, Ok(all));
    }

    #[test]
    fn probing_a_directory_leaves_nothing_in_it() {
        let place = tempfile::tempdir().expect("a directory");
        let inner = place.path().join("a/b");
        let findings = directory("data-dir", &inner);
        assert!(findings.iter().all(|finding| finding.severity == Severity::Fine), "{findings:?}");
        assert_eq!(sync_time(place.path()).option.as_deref(), Some("wal-dir"));
        assert_eq!(fs::read_dir(place.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(directory("data-dir", file.path()).first().map(|finding| finding.severity), Some(Severity::Error));
    }

    #[test]
    fn a_loose_directory_is_a_warning() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().expect("a directory");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("owned");
        let findings = directory("data-dir", place.path());
        assert!(findings.iter().any(|finding| finding.message.ends_with("has mode 755; 700 keeps others out")));
    }

    #[test]
    fn a_socket_file_needs_a_free_name() {
        let place = tempfile::tempdir().expect("a directory");
        assert!(bindable_file(&place.path().join("s")).is_ok());
        fs::write(place.path().join("f"), "x").expect("written");
        assert!(bindable_file(&place.path().join("f")).is_err());
    }
}
