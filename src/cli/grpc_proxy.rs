//! `quorate grpc-proxy`: the command line of the gRPC proxy. What it does is the daemon's; here it is read, checked and
//! explained.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use super::{
    go_text,
    parse::Call,
    speak::complain,
    standin,
    table::{Command, Flag, Kind, Running, Values},
};
use crate::tls::{PairFiles, Rules, Version};

const fn list(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag { kind: Kind::List, ..Flag::text(name, default, help) }
}

const fn file(name: &'static str, help: &'static str) -> Flag {
    Flag::text(name, "", help).values(Values::Files)
}

const LISTEN_ADDR: Flag = Flag::text("listen-addr", "127.0.0.1:23790", "address to listen on");
const METRICS_ADDR: Flag =
    Flag::text("metrics-addr", "", "URL to serve health and metrics on, beside the address above");
const ENDPOINTS: Flag = list("endpoints", "127.0.0.1:2379", "members to connect to");
const ENDPOINTS_FILE: Flag =
    file("endpoints-file", "file with the members to connect to, taken over whenever it changes");
const ENDPOINTS_SYNC: Flag = Flag::duration(
    "endpoints-auto-sync-interval",
    "0s",
    "time after which the members to connect to become those the cluster names, 0 for never",
);
const DISCOVERY_SRV: Flag = Flag::text("discovery-srv", "", "DNS domain whose SRV records name the members");
const DISCOVERY_SRV_NAME: Flag = Flag::text("discovery-srv-name", "", "suffix of the service that is asked for");
const INSECURE_DISCOVERY: Flag =
    Flag::switch("insecure-discovery", "take SRV records of services without TLS without a check");
const ADVERTISE: Flag =
    Flag::text("advertise-client-url", "127.0.0.1:23790", "address that clients are told to reach the proxy at");
const RESOLVER_PREFIX: Flag = Flag::text("resolver-prefix", "", "prefix of the keys that proxies register under");
const RESOLVER_TTL: Flag = Flag::integer("resolver-ttl", "seconds that a registration outlives its proxy");
const NAMESPACE: Flag = Flag::text("namespace", "", "prefix in front of all keys of clients, which they do not see");
const PPROF: Flag = Flag::switch("enable-pprof", "taken for etcd's sake; this program has no Go profiles");
const DATA_DIR: Flag = file("data-dir", "directory for generated certificates").default("default.proxy");
const SEND_BYTES: Flag =
    Flag::integer("max-send-bytes", "longest request sent to a member, in bytes").default("1572864");
const RECEIVE_BYTES: Flag =
    Flag::integer("max-recv-bytes", "longest answer taken from a member, in bytes").default("2147483647");
const STREAMS: Flag =
    Flag::integer("max-concurrent-streams", "most calls at a time on one connection").default("4294967295");
const DIAL_KEEPALIVE_TIME: Flag = Flag::duration(
    "dial-keepalive-time",
    "30s",
    "silence after which the connection to a member is pinged, 0 for never",
);
const DIAL_KEEPALIVE_TIMEOUT: Flag =
    Flag::duration("dial-keepalive-timeout", "20s", "time a member may take to answer a ping");
const PERMIT_WITHOUT_STREAM: Flag =
    Flag::switch("permit-without-stream", "ping members on connections without calls, too");
const KEEPALIVE_MIN: Flag =
    Flag::duration("grpc-keepalive-min-time", "5s", "clients that ping more often are disconnected");
const KEEPALIVE_INTERVAL: Flag =
    Flag::duration("grpc-keepalive-interval", "2h0m0s", "time between pings to a client, 0 for never");
const KEEPALIVE_TIMEOUT: Flag =
    Flag::duration("grpc-keepalive-timeout", "20s", "time a client may take to answer a ping");
const ORDERING: Flag =
    Flag::switch("experimental-serializable-ordering", "never answer from an older revision than the one before");
const LEASING: Flag = Flag::text("experimental-leasing-prefix", "", "prefix of the keys that own what is cached");
const GRPC_LOGGING: Flag = Flag::switch("experimental-enable-grpc-logging", "log what the gRPC library says");
const DEBUG: Flag = Flag::switch("debug", "log more");

const CERT: Flag = file("cert", "certificate for members");
const KEY: Flag = file("key", "key of that certificate");
const CACERT: Flag = file("cacert", "certificate authority that members are checked with");
const SKIP_VERIFY: Flag = Flag::switch("insecure-skip-tls-verify", "do not check the certificates of members");
const CERT_FILE: Flag = file("cert-file", "certificate for clients");
const KEY_FILE: Flag = file("key-file", "key of that certificate");
const TRUSTED_CA_FILE: Flag = file("trusted-ca-file", "certificate authority that clients are checked with");
const AUTO_TLS: Flag = Flag::switch("auto-tls", "serve clients with a generated certificate");
const CRL_FILE: Flag = file("client-crl-file", "list of certificates of clients that were revoked");
const CIPHER_SUITES: Flag = list("listen-cipher-suites", "", "cipher suites for clients");
const TLS_MIN: Flag = Flag::text("tls-min-version", "TLS1.2", "lowest version of TLS for clients");
const TLS_MAX: Flag = Flag::text("tls-max-version", "", "highest version of TLS for clients");
const VALIDITY: Flag =
    Flag::integer("self-signed-cert-validity", "years that a generated certificate is valid").default("1");

/// The spellings of versions of TLS.
const VERSIONS: [(&str, Version); 2] = [("TLS1.2", Version::V1_2), ("TLS1.3", Version::V1_3)];

/// The commands behind `grpc-proxy`.
pub(super) static ROOT: Command = Command {
    name: "grpc-proxy",
    about: "Stands between many gRPC clients and a cluster.",
    commands: &[Command {
        name: "start",
        about: "Starts the proxy",
        flags: &[
            LISTEN_ADDR,
            METRICS_ADDR,
            ENDPOINTS,
            ENDPOINTS_FILE,
            ENDPOINTS_SYNC,
            DISCOVERY_SRV,
            DISCOVERY_SRV_NAME,
            INSECURE_DISCOVERY,
            ADVERTISE,
            RESOLVER_PREFIX,
            RESOLVER_TTL,
            NAMESPACE,
            PPROF,
            DATA_DIR,
            SEND_BYTES,
            RECEIVE_BYTES,
            STREAMS,
            DIAL_KEEPALIVE_TIME,
            DIAL_KEEPALIVE_TIMEOUT,
            PERMIT_WITHOUT_STREAM,
            KEEPALIVE_MIN,
            KEEPALIVE_INTERVAL,
            KEEPALIVE_TIMEOUT,
            ORDERING,
            LEASING,
            GRPC_LOGGING,
            DEBUG,
            CERT,
            KEY,
            CACERT,
            SKIP_VERIFY,
            CERT_FILE,
            KEY_FILE,
            TRUSTED_CA_FILE,
            AUTO_TLS,
            CRL_FILE,
            CIPHER_SUITES,
            TLS_MIN,
            TLS_MAX,
            VALIDITY,
        ],
        run: Some(start),
        ..Command::EMPTY
    }],
    ..Command::EMPTY
};

/// What the proxy is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcProxyOptions {
    /// `--listen-addr`.
    pub listen_addr: String,
    /// `--metrics-addr`; empty for none.
    pub metrics_addr: String,
    /// `--endpoints`.
    pub endpoints: Vec<String>,
    /// `--endpoints-file`.
    pub endpoints_file: Option<PathBuf>,
    /// `--endpoints-auto-sync-interval`.
    pub sync_interval: Option<Duration>,
    /// `--discovery-srv`; empty for none.
    pub discovery_srv: String,
    /// `--discovery-srv-name`; empty for none.
    pub discovery_srv_name: String,
    /// `--insecure-discovery`.
    pub insecure_discovery: bool,
    /// `--advertise-client-url`; empty for none.
    pub advertised: String,
    /// `--resolver-prefix`; empty for none.
    pub resolver_prefix: String,
    /// `--resolver-ttl`.
    pub resolver_ttl: Duration,
    /// `--namespace`.
    pub namespace: String,
    /// `--max-send-bytes`.
    pub send_bytes_max: usize,
    /// `--max-recv-bytes`.
    pub receive_bytes_max: usize,
    /// `--max-concurrent-streams`.
    pub concurrent_streams_max: u32,
    /// `--dial-keepalive-time`; zero for no pings. etcd's default is none, so that a member that hangs holds its clients for ever.
    pub dial_keepalive_time: Duration,
    /// `--dial-keepalive-timeout`.
    pub dial_keepalive_timeout: Duration,
    /// `--grpc-keepalive-min-time`.
    pub keepalive_min: Duration,
    /// `--grpc-keepalive-interval`; zero for no pings.
    pub keepalive_interval: Duration,
    /// `--grpc-keepalive-timeout`.
    pub keepalive_timeout: Duration,
    /// `--debug`.
    pub debug: bool,
    /// Everything about TLS.
    pub tls: ProxyTls,
}

/// What the proxy is told of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyTls {
    /// `--cert` and `--key`: what members are shown.
    pub pair: Option<PairFiles>,
    /// `--cacert`.
    pub ca: Option<PathBuf>,
    /// `--insecure-skip-tls-verify`.
    pub is_unverified: bool,
    /// `--cert-file` and `--key-file`: what clients are shown.
    pub listen_pair: Option<PairFiles>,
    /// `--trusted-ca-file`: clients must have a certificate that it signed.
    pub clients_ca: Option<PathBuf>,
    /// `--client-crl-file`: and that does not stand in it.
    pub revoked_clients: Option<PathBuf>,
    /// `--auto-tls`, with `--self-signed-cert-validity` in years.
    pub generated_years: Option<u32>,
    /// `--data-dir`, for generated certificates.
    pub data_dir: PathBuf,
    /// `--tls-min-version`, `--tls-max-version` and `--listen-cipher-suites`.
    pub rules: Rules,
}

/// Reads the words behind `grpc-proxy`.
///
/// # Errors
/// The exit code, after everything was said: help was asked for, or the words are wrong.
pub fn read(words: &[OsString]) -> Result<GrpcProxyOptions, ExitCode> {
    let call = standin::read("quorate grpc-proxy", &ROOT, words)?;
    if let Some(complaint) = complaint(&call) {
        complain(complaint);
        return Err(ExitCode::FAILURE);
    }
    Ok(options(&call))
}

/// What is wrong with the flags, in etcd's words where etcd has words.
fn complaint(call: &Call) -> Option<String> {
    let flags = &call.flags;
    let (prefix, ttl) = (flags.text(&RESOLVER_PREFIX), flags.integer(&RESOLVER_TTL));
    if !prefix.is_empty() && ttl < 1 {
        return Some(format!("invalid resolver-ttl {ttl}"));
    }
    if prefix.is_empty() && ttl > 0 {
        return Some(format!("invalid resolver-prefix {}", go_text::quote(prefix.as_bytes())));
    }
    if !prefix.is_empty() && flags.text(&ADVERTISE).is_empty() {
        return Some("invalid advertise-client-url \"\"".to_owned());
    }
    tls_complaint(call).or_else(|| lack(call))
}

/// What is wrong with the flags about TLS.
fn tls_complaint(call: &Call) -> Option<String> {
    let flags = &call.flags;
    if flags.switch(&AUTO_TLS) && flags.integer(&VALIDITY) <= 0 {
        return Some("selfSignedCertValidity is invalid,it should be greater than 0".to_owned());
    }
    for (cert, key) in [(&CERT, &KEY), (&CERT_FILE, &KEY_FILE)] {
        if flags.text(cert).is_empty() != flags.text(key).is_empty() {
            return Some(format!("--{} and --{} go together: name both files", cert.name, key.name));
        }
    }
    let (min, max) = (flags.text(&TLS_MIN), flags.text(&TLS_MAX));
    let Some(lowest) = version(min) else {
        return Some(format!("tls-min-version is invalid: unexpected TLS version {}", go_text::quote(min.as_bytes())));
    };
    match version(max) {
        None if !max.is_empty() => {
            Some(format!("tls-max-version is invalid: unexpected TLS version {}", go_text::quote(max.as_bytes())))
        }
        Some(highest) if lowest > highest => Some(format!("min version ({min}) is greater than max version ({max})")),
        _ if lowest == Version::V1_3 && !flags.list(&CIPHER_SUITES).is_empty() => {
            Some("cipher suites cannot be configured when only TLS1.3 is enabled".to_owned())
        }
        _ => None,
    }
}

fn version(text: &str) -> Option<Version> {
    VERSIONS.iter().find(|(known, _)| *known == text).map(|(_, version)| *version)
}

/// What is asked for and does not exist here.
fn lack(call: &Call) -> Option<String> {
    let flags = &call.flags;
    let lacking = [(&ORDERING, flags.switch(&ORDERING)), (&LEASING, !flags.text(&LEASING).is_empty())];
    let (flag, _) = lacking.into_iter().find(|(_, is_asked_for)| *is_asked_for)?;
    Some(format!("--{}: this version does not have this experiment: leave the flag out", flag.name))
}

fn options(call: &Call) -> GrpcProxyOptions {
    let flags = &call.flags;
    let text = |flag: &Flag| flags.text(flag).to_owned();
    let bytes = |flag: &Flag| usize::try_from(flags.integer(flag)).ok().filter(|bytes| *bytes > 0);
    let seconds = u64::try_from(flags.integer(&RESOLVER_TTL)).unwrap_or(0);
    GrpcProxyOptions {
        listen_addr: text(&LISTEN_ADDR),
        metrics_addr: text(&METRICS_ADDR),
        endpoints: flags.list(&ENDPOINTS).to_vec(),
        endpoints_file: Some(flags.text(&ENDPOINTS_FILE)).filter(|path| !path.is_empty()).map(PathBuf::from),
        sync_interval: Some(flags.duration(&ENDPOINTS_SYNC)).filter(|interval| !interval.is_zero()),
        discovery_srv: text(&DISCOVERY_SRV),
        discovery_srv_name: text(&DISCOVERY_SRV_NAME),
        insecure_discovery: flags.switch(&INSECURE_DISCOVERY),
        advertised: text(&ADVERTISE),
        resolver_prefix: text(&RESOLVER_PREFIX),
        resolver_ttl: Duration::from_secs(seconds),
        namespace: text(&NAMESPACE),
        send_bytes_max: bytes(&SEND_BYTES).unwrap_or(usize::MAX),
        receive_bytes_max: bytes(&RECEIVE_BYTES).unwrap_or(usize::MAX),
        concurrent_streams_max: u32::try_from(flags.integer(&STREAMS)).unwrap_or(u32::MAX),
        dial_keepalive_time: flags.duration(&DIAL_KEEPALIVE_TIME),
        dial_keepalive_timeout: flags.duration(&DIAL_KEEPALIVE_TIMEOUT),
        keepalive_min: flags.duration(&KEEPALIVE_MIN),
        keepalive_interval: flags.duration(&KEEPALIVE_INTERVAL),
        keepalive_timeout: flags.duration(&KEEPALIVE_TIMEOUT),
        debug: flags.switch(&DEBUG),
        tls: tls(call),
    }
}

fn tls(call: &Call) -> ProxyTls {
    let flags = &call.flags;
    let path = |flag: &Flag| Some(flags.text(flag)).filter(|path| !path.is_empty()).map(PathBuf::from);
    let pair = |cert, key| path(cert).zip(path(key)).map(|(cert, key)| PairFiles::new(cert, key));
    let years = u32::try_from(flags.integer(&VALIDITY)).ok();
    ProxyTls {
        pair: pair(&CERT, &KEY),
        ca: path(&CACERT),
        is_unverified: flags.switch(&SKIP_VERIFY),
        listen_pair: pair(&CERT_FILE, &KEY_FILE),
        clients_ca: path(&TRUSTED_CA_FILE),
        revoked_clients: path(&CRL_FILE),
        generated_years: years.filter(|_| flags.switch(&AUTO_TLS)),
        data_dir: flags.text(&DATA_DIR).into(),
        rules: Rules {
            min: version(flags.text(&TLS_MIN)).unwrap_or_default(),
            max: version(flags.text(&TLS_MAX)),
            suites: flags.list(&CIPHER_SUITES).to_vec(),
        },
    }
}

/// Never called: the daemon takes what [`read`] hands out.
fn start(_: Call) -> Running {
    Box::pin(std::future::ready(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::tests::check;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn complaint_of(line: &str) -> Option<String> {
        complaint(&standin::read("quorate grpc-proxy", &ROOT, &words(line)).unwrap())
    }

    #[test]
    fn the_table_is_sound() {
        check(&ROOT);
    }

    #[test]
    fn defaults_are_etcds() {
        let options = read(&words("start")).unwrap();
        assert_eq!((options.listen_addr.as_str(), options.advertised.as_str()), ("127.0.0.1:23790", "127.0.0.1:23790"));
        assert_eq!((options.endpoints, options.sync_interval), (vec!["127.0.0.1:2379".to_owned()], None));
        assert_eq!((options.send_bytes_max, options.receive_bytes_max), (1_572_864, 2_147_483_647));
        assert_eq!((options.keepalive_interval, options.concurrent_streams_max), (Duration::from_hours(2), u32::MAX));
    }

    #[test]
    fn flags_that_contradict_each_other_are_told_in_etcds_words() {
        assert_eq!(complaint_of("start --resolver-prefix=p").unwrap(), "invalid resolver-ttl 0");
        assert_eq!(complaint_of("start --resolver-ttl=5").unwrap(), "invalid resolver-prefix \"\"");
        let line = "start --resolver-ttl=5 --resolver-prefix=p --advertise-client-url=";
        assert_eq!(complaint_of(line).unwrap(), "invalid advertise-client-url \"\"");
        assert_eq!(complaint_of("start --resolver-ttl=5 --resolver-prefix=p --namespace=n/"), None);
    }

    #[test]
    fn what_is_missing_is_refused_by_name() {
        for flag in ["--experimental-leasing-prefix=l", "--experimental-serializable-ordering"] {
            let name = flag.split('=').next().unwrap();
            assert!(complaint_of(&format!("start {flag}")).unwrap().starts_with(&format!("{name}: ")), "{flag}");
        }
    }

    #[test]
    fn tls_flags_go_together() {
        let said = |line: &str| complaint_of(&format!("start {line}"));
        assert_eq!(said("--cert=a --key=b --cacert=c --auto-tls --tls-max-version=TLS1.3"), None);
        assert_eq!(said("--cert-file=a").unwrap(), "--cert-file and --key-file go together: name both files");
        assert_eq!(
            said("--tls-min-version=SSL3").unwrap(),
            "tls-min-version is invalid: unexpected TLS version \"SSL3\""
        );
        let line = "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2";
        assert_eq!(said(line).unwrap(), "min version (TLS1.3) is greater than max version (TLS1.2)");
        let said = said("--auto-tls --self-signed-cert-validity=0").unwrap();
        assert_eq!(said, "selfSignedCertValidity is invalid,it should be greater than 0");
    }

    #[test]
    fn anything_else_ends_here() {
        for line in ["", "--help", "start --help", "stop", "start now", "start --resolver-ttl=soon", "start --nothing"]
        {
            assert!(read(&words(line)).is_err(), "{line}");
        }
    }
}
