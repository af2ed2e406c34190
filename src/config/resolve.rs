//! From what was typed to what is true: relations between options, checked in etcd's order and told in etcd's words.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use thiserror::Error;

use super::{
    Compat, Config, Notice, Problem, gates, go,
    layers::Layers,
    model::{
        Advertise, Allowed, AuditLog, Auth, AutoCompaction, Bootstrap, BootstrapMethod, ClusterState, DiscoveryV3,
        FeatureGates, Http, InitialCluster, Integrity, Keepalive, KeyPair, Legacy, Limits, Listen, Log, LogFormat,
        LogLevel, LogOutput, Member, Metrics, Ping, Presented, ProxyMode, Quota, Raft, Role, Rotation,
        ScheduledSnapshots, Storage, Tls, TlsSide, TlsVersion, TokenProvider, Tracing, Watch,
    },
    raw::RawConfig,
    rotation, table,
    url::{self, ListenUrl, Scheme, Url},
};

/// Longest election timeout, as in etcd.
const ELECTION_MAX: Duration = Duration::from_secs(50);
/// Shortest read and write deadline between members; shorter ones are raised to it.
const PEER_DEADLINE_MIN: Duration = Duration::from_secs(5);
/// Snapshots that the member takes by itself are at least so far apart.
const SNAPSHOT_PERIOD_MIN: Duration = Duration::from_secs(1);
/// All reads.
const AUDIT_SAMPLE_MAX: u32 = 1_000_000;
/// Largest file of the audit log: a terabyte.
const AUDIT_FILE_MB_MAX: u32 = 1 << 20;
/// Most files of the audit log that are set aside: each is renamed when another one joins them.
const AUDIT_FILES_MAX: u32 = 1_000;
/// From this size on etcd warns of a quota.
const QUOTA_BYTES_SUGGESTED_MAX: u64 = 8 << 30;
/// From this size on etcd warns of the request limit.
const REQUEST_BYTES_SUGGESTED_MAX: usize = 10 << 20;
const BCRYPT_COST_DEFAULT: u32 = 10;
/// What to do about a listener that could be encrypted.
const ENCRYPT: &str = "write https, or unixs, if connections are to be encrypted";
/// What stands before the name of a credential.
const CREDENTIAL: &str = "credential:";
/// Suites by the names that etcd takes, those of TLS 1.3 among them.
const CIPHER_SUITES: [&str; 27] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
];

/// Relates the options to each other. The mistakes are all of them; without mistakes the configuration is true.
pub(super) fn resolve(
    raw: &RawConfig,
    layers: &Layers,
    threads: Option<&str>,
    default_host: Option<IpAddr>,
) -> (Config, Vec<Problem>, Vec<Notice>) {
    let mut resolver = Resolver { raw, layers, default_host, problems: Vec::new(), notices: Vec::new() };
    let config = resolver.config(threads);
    resolver.refuse_blind_proxy(&config);
    (config, resolver.problems, resolver.notices)
}

/// Collects mistakes while it builds. After a mistake it goes on with any value, which nobody will see.
struct Resolver<'l> {
    raw: &'l RawConfig,
    layers: &'l Layers,
    default_host: Option<IpAddr>,
    problems: Vec<Problem>,
    notices: Vec<Notice>,
}

impl Resolver<'_> {
    /// The order of the fields is the order of etcd's checks, so that the first mistake is the one etcd names.
    fn config(&mut self, threads: Option<&str>) -> Config {
        self.refuse_proxy_fallback();
        let log = self.log();
        let audit = self.audit_log(&log.outputs);
        let listen = self.listen();
        let advertise = self.advertise(&listen);
        let bootstrap = self.bootstrap(&advertise);
        let raft = self.raft();
        self.require_advertised_clients();
        let storage = self.storage();
        let tracing = self.tracing();
        let gates = self.gates();
        let integrity = self.integrity();
        let member = self.member();
        let tls = self.tls(&listen);
        Config {
            compat: self.layers.compat,
            member,
            listen,
            advertise,
            bootstrap,
            raft,
            storage,
            limits: self.limits(),
            keepalive: self.keepalive(),
            http: self.http(),
            tls,
            auth: self.auth(),
            watch: self.watch(),
            integrity,
            gates,
            log,
            audit,
            metrics: self.metrics(),
            tracing,
            legacy: self.legacy(),
            threads: threads.and_then(|text| text.parse::<NonZeroUsize>().ok()),
        }
    }

    /// Not about an option some layer of which was refused already.
    fn refuse(&mut self, option: &str, what: impl Into<String>) {
        if !self.layers.is_broken(option) {
            self.problems.push(self.layers.problem(option, what.into()));
        }
    }

    fn warn(&mut self, option: &'static str, message: &str, fields: Vec<(&'static str, String)>, remedy: &str) {
        let notice = Notice::warn(message, fields).about(Some(option), self.layers.origin(option));
        self.notices.push(notice.with_remedy(remedy));
    }

    /// A duration, which a negative number is not.
    fn duration(&mut self, option: &str, nanos: i64) -> Duration {
        let Ok(nanos) = u64::try_from(nanos) else {
            self.refuse(option, format!("--{option} must not be negative (set to {})", go::format_duration(nanos)));
            return Duration::ZERO;
        };
        Duration::from_nanos(nanos)
    }

    /// A duration whose zero stands for etcd's default.
    fn duration_or(&mut self, option: &str, nanos: i64, default: Duration) -> Duration {
        Some(self.duration(option, nanos)).filter(|duration| !duration.is_zero()).unwrap_or(default)
    }

    /// etcd knows the word and does not do it since 3.6; its own file has no such key any more.
    fn refuse_proxy_fallback(&mut self) {
        let is_old = self.layers.compat < Compat::V3_6 || self.layers.is_exclusive;
        // Where v2 discovery is asked for it is served, whatever is imitated, and so is its fallback.
        if self.raw.discovery_fallback == "proxy" && !is_old && self.raw.discovery.is_empty() {
            let what = "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"";
            self.refuse("discovery-fallback", what);
        }
    }

    fn log(&mut self) -> Log {
        match self.raw.logger.as_str() {
            "zap" => {}
            "capnslog" => self.refuse("logger", "--logger=capnslog is removed in v3.5"),
            other => self.refuse("logger", format!("unknown logger option {}", go::quote(other))),
        }
        let outputs = self.log_outputs();
        let format = match self.raw.log_format.as_str() {
            "json" | "" => LogFormat::Json,
            "console" => LogFormat::Console,
            other => {
                self.refuse("log-format", format!("unknown log format: {other}, supported values json, console"));
                LogFormat::Json
            }
        };
        Log { level: self.log_level(), format, rotation: self.rotation(&outputs), outputs }
    }

    fn log_level(&mut self) -> LogLevel {
        match self.raw.log_level.to_ascii_lowercase().as_str() {
            "debug" => LogLevel::Debug,
            "info" | "" => LogLevel::Info,
            "warn" => LogLevel::Warn,
            "error" => LogLevel::Error,
            "panic" | "dpanic" => LogLevel::Panic,
            "fatal" => LogLevel::Fatal,
            _ => {
                self.refuse("log-level", format!("unrecognized level: {}", go::quote(&self.raw.log_level)));
                LogLevel::Info
            }
        }
    }

    fn log_outputs(&mut self) -> Vec<LogOutput> {
        let words = &self.raw.log_outputs;
        let has = |word: &str| words.iter().any(|other| other == word);
        if words.len() > 1 && has("default") {
            self.refuse("log-outputs", "multi logoutput for \"default\" is not supported yet");
        } else if words.len() > 1 && has("systemd/journal") {
            let quoted: Vec<String> = words.iter().map(|word| go::quote(word)).collect();
            let what = format!(
                "running with systemd/journal but other '--log-outputs' values ([{}]) are configured with 'default'; \
                 override 'default' value with something else",
                quoted.join(" ")
            );
            self.refuse("log-outputs", what);
        }
        let outputs: Vec<LogOutput> = words
            .iter()
            .map(|word| match word.as_str() {
                "default" | "stderr" => LogOutput::Stderr,
                "stdout" => LogOutput::Stdout,
                "systemd/journal" => LogOutput::Journal,
                path => LogOutput::File(PathBuf::from(path)),
            })
            .collect();
        if outputs.is_empty() { vec![LogOutput::Stderr] } else { outputs }
    }

    fn rotation(&mut self, outputs: &[LogOutput]) -> Option<Rotation> {
        if !self.raw.enable_log_rotation {
            return None;
        }
        let files = outputs.iter().filter(|output| matches!(output, LogOutput::File(_))).count();
        if outputs.len() > 1 || files != 1 {
            let what = "--log-outputs requires a single file path when --log-rotate-config-json is defined";
            self.refuse("log-outputs", what);
        }
        rotation::parse(&self.raw.log_rotation_config_json)
            .map_err(|what| self.refuse("log-rotation-config-json", what))
            .ok()
    }

    fn audit_log(&mut self, log: &[LogOutput]) -> Option<AuditLog> {
        let raw = self.raw;
        let reads_per_million = self.at_most("audit-log-sample", raw.audit_log_sample, AUDIT_SAMPLE_MAX);
        let size_mb = self.at_most("audit-log-rotate-size", raw.audit_log_rotate_size, AUDIT_FILE_MB_MAX);
        let files_max = self.at_most("audit-log-rotate-keep", raw.audit_log_rotate_keep, AUDIT_FILES_MAX);
        let output = match raw.audit_log.as_str() {
            "" => return None,
            path if is_stream(path, "stdout", 1) => LogOutput::Stdout,
            path if is_stream(path, "stderr", 2) => LogOutput::Stderr,
            path if path.ends_with('/') => {
                self.refuse(
                    "audit-log",
                    format!("--audit-log must name a file, not a directory ({})", go::quote(path)),
                );
                return None;
            }
            path => LogOutput::File(PathBuf::from(path)),
        };
        let goes_there = |log: &LogOutput| match (log, &output) {
            (LogOutput::File(path), LogOutput::Stdout) => is_stream(&path.to_string_lossy(), "stdout", 1),
            (LogOutput::File(path), LogOutput::Stderr) => is_stream(&path.to_string_lossy(), "stderr", 2),
            (log, output) => log == output,
        };
        if log.iter().any(goes_there) {
            // Whoever reads it slowly would hold up whatever the member logs.
            let what = format!("--audit-log {} is where the log goes, too (--log-outputs)", raw.audit_log);
            self.refuse_beside("audit-log", what, "name a file, or a stream that the log does not use");
        }
        let file_bytes_max = (size_mb > 0).then_some(u64::from(size_mb) << 20);
        Some(AuditLog { output, reads_per_million, file_bytes_max, files_max })
    }

    /// A number that may not be larger than `most`.
    fn at_most(&mut self, option: &str, number: u64, most: u32) -> u32 {
        u32::try_from(number).ok().filter(|number| *number <= most).unwrap_or_else(|| {
            self.refuse(option, format!("--{option} must be at most {most} (set to {number})"));
            most
        })
    }

    fn listen(&mut self) -> Listen {
        let listen = Listen {
            peer: self.listeners("listen-peer-urls", &self.raw.listen_peer_urls),
            client: self.listeners("listen-client-urls", &self.raw.listen_client_urls),
            client_http: self.listeners("listen-client-http-urls", &self.raw.listen_client_http_urls),
            metrics: self.listeners("listen-metrics-urls", &self.raw.listen_metrics_urls),
            reuse_port: self.raw.socket_reuse_port,
            reuse_address: self.raw.socket_reuse_address,
        };
        if listen.client_http.is_empty() {
            let message = "Running http and grpc server on single port. This is not recommended for production.";
            self.warn("listen-client-http-urls", message, vec![], "set listen-client-http-urls, or leave it so");
        }
        if let Some(shared) = listen.client_http.iter().find(|url| listen.client.contains(url)) {
            let url = &shared.url;
            self.refuse(
                "listen-client-http-urls",
                format!("cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"),
            );
        }
        listen
    }

    fn listeners(&mut self, option: &str, texts: &[String]) -> Vec<ListenUrl> {
        let urls = self.urls(option, texts);
        let bound: Vec<_> = urls.into_iter().map(ListenUrl::new).collect();
        bound.into_iter().filter_map(|url| url.map_err(|what| self.refuse(option, what)).ok()).collect()
    }

    /// URLs that connections of this member use.
    fn urls(&mut self, option: &str, texts: &[String]) -> Vec<Url> {
        Url::sorted(texts.iter().map(String::as_str)).unwrap_or_else(|what| {
            self.refuse(option, what);
            Vec::new()
        })
    }

    fn advertise(&mut self, listen: &Listen) -> Advertise {
        let peer = self.urls("initial-advertise-peer-urls", &self.raw.initial_advertise_peer_urls);
        let peer = self.reachable("initial-advertise-peer-urls", peer, &listen.peer);
        self.demand_host("initial-advertise-peer-urls", &peer, "must be \"host:port\"");
        let client = Url::sorted(self.raw.advertise_client_urls.iter().map(String::as_str)).unwrap_or_default();
        let form = if self.layers.compat < Compat::V3_7 {
            "must be \"host:port\""
        } else {
            "must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\""
        };
        self.demand_host("advertise-client-urls", &client, form);
        let client = self.reachable("advertise-client-urls", client, &listen.client);
        Advertise { client, peer }
    }

    /// The default, by which nobody else reaches this member, gives way to the machine's own address if the member listens
    /// at all of them, which etcd tells by the first listener alone.
    fn reachable(&mut self, option: &str, urls: Vec<Url>, listeners: &[ListenUrl]) -> Vec<Url> {
        let default = table::find(option).map_or("", |spec| spec.default);
        let listener = listeners.first().map(|listener| &listener.url).filter(|url| url.host() == "0.0.0.0");
        let (Some(listener), [url]) = (listener, urls.as_slice()) else { return urls };
        if url.as_str() != default {
            return urls;
        }
        let own = self.default_host.and_then(|host| {
            let own = Url::parse(&format!("http://{}", SocketAddr::new(host, listener.port()))).ok()?;
            Some((host, own))
        });
        let (notice, urls) = match own {
            Some((host, own)) => {
                let fields = vec![("host", host.to_string())];
                (Notice::info("detected default host for advertise", fields), vec![own])
            }
            None => (Notice::info("failed to detect default host", vec![]), urls),
        };
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
        urls
    }

    fn demand_host(&mut self, option: &str, urls: &[Url], form: &str) {
        if let Some(url) = urls.iter().find(|url| url.host().is_empty()) {
            let all = urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
            self.refuse(option, format!("--{option} {} {form} (unexpected empty host ({url}))", go::quote(&all)));
        }
    }

    fn bootstrap(&mut self, advertise: &Advertise) -> Bootstrap {
        let raw = self.raw;
        let state = if raw.initial_cluster_state == "existing" { ClusterState::Existing } else { ClusterState::New };
        let has_cluster = self.layers.is_set("initial-cluster") && !raw.initial_cluster.is_empty();
        let v3 = !raw.discovery_endpoints.is_empty() || !raw.discovery_token.is_empty();
        let asks_v3 = !raw.discovery_endpoints.is_empty();
        let ways = [
            ("initial-cluster", has_cluster),
            ("discovery-srv", !raw.discovery_srv.is_empty()),
            ("discovery", !raw.discovery.is_empty()),
            ("discovery-endpoints", asks_v3),
        ];
        let taken: Vec<&str> = ways.into_iter().filter(|(_, is_taken)| *is_taken).map(|(option, _)| option).collect();
        if let [first, _, ..] = taken.as_slice() {
            self.refuse_ways(first, &taken);
        } else {
            self.refuse_two_generations();
        }
        let method = if !raw.discovery.is_empty() {
            self.discovery_v2()
        } else if v3 {
            self.discovery_v3()
        } else if raw.discovery_srv.is_empty() {
            BootstrapMethod::Static(self.initial_cluster(advertise))
        } else {
            let service = raw.discovery_srv_name.clone();
            BootstrapMethod::DnsSrv { domain: raw.discovery_srv.clone(), service }
        };
        Bootstrap { state, token: raw.initial_cluster_token.clone(), method }
    }

    /// Several options are set of which each is a way to find the cluster.
    fn refuse_ways(&mut self, option: &str, taken: &[&str]) {
        let names = match self.layers.compat {
            Compat::V3_5 => "\"initial-cluster\", \"discovery\" or \"discovery-srv\"",
            Compat::V3_6 => "\"initial-cluster\", \"discovery\", \"discovery-endpoints\" or \"discovery-srv\"",
            Compat::V3_7 => "\"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
        };
        let what = format!("multiple discovery or bootstrap flags are set. Choose one of {names}");
        let names: Vec<String> = taken.iter().map(|name| self.layers.spelled(name)).collect();
        self.refuse_beside(option, what, &format!("leave all but one of {} empty", names.join(" and ")));
    }

    /// What would be right alone.
    fn refuse_beside(&mut self, option: &str, what: impl Into<String>, remedy: &str) {
        if !self.layers.is_broken(option) {
            self.problems.push(self.layers.problem(option, what.into()).with_remedy(remedy.to_owned()));
        }
    }

    fn refuse_two_generations(&mut self) {
        let raw = self.raw;
        let v2 = [&raw.discovery, &raw.discovery_proxy];
        let v3 = [
            &raw.discovery_token,
            &raw.discovery_cert,
            &raw.discovery_key,
            &raw.discovery_cacert,
            &raw.discovery_user,
            &raw.discovery_password,
        ];
        let is_v3 = !raw.discovery_endpoints.is_empty() || v3.iter().any(|text| !text.is_empty());
        if is_v3 && v2.iter().any(|text| !text.is_empty()) {
            let what = "both v2 discovery settings (discovery, discovery-proxy) and v3 discovery settings \
                        (discovery-token, discovery-endpoints, discovery-cert, discovery-key, discovery-cacert, \
                        discovery-user, discovery-password) are set";
            let option = if raw.discovery.is_empty() { "discovery-proxy" } else { "discovery" };
            self.refuse_beside(option, what, "leave those of one kind empty");
        }
    }

    /// Whoever comes too late becomes a proxy unless told otherwise, whatever version of etcd is imitated: it is what
    /// this kind of discovery promises.
    fn discovery_v2(&mut self) -> BootstrapMethod {
        let raw = self.raw;
        if let Err(why) = url::check_web(&raw.discovery) {
            self.refuse("discovery", why);
        }
        let proxy = Some(raw.discovery_proxy.clone()).filter(|proxy| !proxy.is_empty());
        let told = self.layers.is_set("discovery-fallback");
        let fall_back_to_proxy = !told || raw.discovery_fallback == "proxy";
        BootstrapMethod::DiscoveryV2 { url: raw.discovery.clone(), proxy, fall_back_to_proxy }
    }

    /// v3 discovery has members register, and nothing for others to read before that.
    fn refuse_blind_proxy(&mut self, config: &Config) {
        let is_proxy = matches!(config.role(), Ok(Role::Proxy(_)));
        let by_v3 = matches!(config.bootstrap.method, BootstrapMethod::DiscoveryV3(_));
        if is_proxy && by_v3 && !config.has_proxy_cluster() {
            let option =
                if self.raw.discovery_endpoints.is_empty() { "discovery-token" } else { "discovery-endpoints" };
            self.refuse(option, "v3 discovery tells a proxy nothing: name the members with --initial-cluster");
        }
    }

    fn discovery_v3(&mut self) -> BootstrapMethod {
        let raw = self.raw;
        if raw.discovery_token.is_empty() || raw.discovery_endpoints.is_empty() {
            let given = if raw.discovery_token.is_empty() { "discovery-endpoints" } else { "discovery-token" };
            let what = "both --discovery-token and --discovery-endpoints must be set";
            self.refuse_beside(given, what, "set the other one, too");
        }
        if raw.discovery_endpoints.iter().any(String::is_empty) {
            self.refuse("discovery-endpoints", "--discovery-endpoints must not contain empty endpoints");
        }
        BootstrapMethod::DiscoveryV3(Box::new(DiscoveryV3 {
            token: raw.discovery_token.clone(),
            endpoints: raw.discovery_endpoints.clone(),
            dial_timeout: self.duration("discovery-dial-timeout", raw.discovery_dial_timeout),
            request_timeout: self.duration("discovery-request-timeout", raw.discovery_request_timeout),
            keepalive_time: self.duration("discovery-keepalive-time", raw.discovery_keepalive_time),
            keepalive_timeout: self.duration("discovery-keepalive-timeout", raw.discovery_keepalive_timeout),
            insecure_transport: raw.discovery_insecure_transport,
            insecure_skip_tls_verify: raw.discovery_insecure_skip_tls_verify,
            pair: self.pair(["discovery-cert", "discovery-key"], &raw.discovery_cert, &raw.discovery_key, server_pair),
            ca: self.file("discovery-cacert", &raw.discovery_cacert),
            user: raw.discovery_user.clone(),
            password: raw.discovery_password.clone(),
        }))
    }

    /// Not given, or left at its default: this member alone. Given as nothing, it names nobody, this member neither: what
    /// filled it in has failed, and a cluster of one is not what was meant.
    fn initial_cluster(&mut self, advertise: &Advertise) -> InitialCluster {
        let text = &self.raw.initial_cluster;
        let default = table::find("initial-cluster").map_or("", |spec| spec.default);
        if !self.layers.is_set("initial-cluster") || text == default {
            return InitialCluster(BTreeMap::from([(self.raw.name.clone(), advertise.peer.clone())]));
        }
        InitialCluster::parse(text).unwrap_or_else(|why| {
            self.refuse("initial-cluster", format!("error setting up initial cluster: {why}"));
            InitialCluster::default()
        })
    }

    fn raft(&mut self) -> Raft {
        let raw = self.raw;
        let (heartbeat, election) = (raw.heartbeat_interval, raw.election_timeout);
        let broken = self.layers.is_broken("heartbeat-interval") || self.layers.is_broken("election-timeout");
        if heartbeat == 0 {
            self.refuse("heartbeat-interval", "--heartbeat-interval must be >0 (set to 0ms)");
        }
        if election == 0 {
            self.refuse("election-timeout", "--election-timeout must be >0 (set to 0ms)");
        } else if heartbeat > 0 && heartbeat.saturating_mul(5) > election && !broken {
            self.refuse_ratio(heartbeat, election);
        } else if Duration::from_millis(election) > ELECTION_MAX {
            self.refuse(
                "election-timeout",
                format!("--election-timeout[{election}ms] is too long, and should be set less than 50000ms"),
            );
        }
        Raft {
            heartbeat: Duration::from_millis(heartbeat),
            election: Duration::from_millis(election),
            advance_first_election: raw.initial_election_tick_advance,
            pre_vote: raw.pre_vote,
            peer_read_timeout: self.peer_deadline("raft-read-timeout", raw.raft_read_timeout),
            peer_write_timeout: self.peer_deadline("raft-write-timeout", raw.raft_write_timeout),
        }
    }

    fn refuse_ratio(&mut self, heartbeat: u64, election: u64) {
        let what = format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        );
        let (blamed, right) = if self.layers.is_set("election-timeout") {
            ("election-timeout", heartbeat.saturating_mul(5))
        } else {
            ("heartbeat-interval", election / 10)
        };
        let example = table::find(blamed).map(|spec| self.layers.form(blamed).spell(spec, &right.to_string()));
        self.problems.push(self.layers.problem(blamed, what).with_example(example));
    }

    fn peer_deadline(&mut self, option: &'static str, nanos: i64) -> Duration {
        let given = self.duration(option, nanos);
        if given < PEER_DEADLINE_MIN {
            let fields = vec![("given", go::format_duration(nanos)), ("used", "5s".to_owned())];
            self.notices.push(Notice::info(&format!("--{option} is raised to its minimum"), fields));
        }
        given.max(PEER_DEADLINE_MIN)
    }

    /// Listening elsewhere without saying where clients find it is a mistake, except in etcd's own file or as a proxy.
    fn require_advertised_clients(&mut self) {
        let proxy = self.raw.proxy != "off";
        let listens = self.layers.is_set("listen-client-urls");
        if listens && !self.layers.is_set("advertise-client-urls") && !self.layers.is_exclusive && !proxy {
            let example = self.raw.listen_client_urls.join(",");
            let what = "--advertise-client-urls is required when --listen-client-urls is set explicitly";
            let problem = self.layers.problem("listen-client-urls", what.to_owned());
            let spell = |spec| self.layers.form("listen-client-urls").spell(spec, &example);
            self.problems.push(problem.with_example(table::find("advertise-client-urls").map(spell)));
        }
    }

    fn storage(&mut self) -> Storage {
        let raw = self.raw;
        Storage {
            snapshot_entries: raw.snapshot_count,
            catchup_entries: raw.snapshot_catchup_entries,
            snapshots_max: some_unless_zero(raw.max_snapshots),
            wals_max: some_unless_zero(raw.max_wals),
            quota: self.quota(),
            lifts_no_space: raw.nospace_disarm == "auto",
            auto_compaction: self.auto_compaction(),
            compaction_batch_max: self.compaction_batch(),
            compaction_pause: self.duration_or(
                "compaction-sleep-interval",
                raw.compaction_sleep_interval,
                Duration::from_millis(10),
            ),
            scheduled: self.scheduled_snapshots(),
            unsafe_no_fsync: raw.unsafe_no_fsync,
        }
    }

    fn scheduled_snapshots(&mut self) -> ScheduledSnapshots {
        let raw = self.raw;
        let some = |duration: Duration| Some(duration).filter(|duration| !duration.is_zero());
        let period = some(self.duration("snapshot-schedule", raw.snapshot_schedule));
        if period.is_some_and(|period| period < SNAPSHOT_PERIOD_MIN) {
            self.refuse("snapshot-schedule", "--snapshot-schedule must be at least a second, or 0 for no snapshots");
        }
        ScheduledSnapshots {
            period,
            dir: path(&raw.snapshot_dir),
            files_max: some_unless_zero(raw.snapshot_keep),
            age_max: some(self.duration("snapshot-keep-time", raw.snapshot_keep_time)),
        }
    }

    fn quota(&mut self) -> Quota {
        let quota = match self.raw.quota_backend_bytes {
            0 => Quota::Default,
            bytes => u64::try_from(bytes).map_or(Quota::Disabled, Quota::Bytes),
        };
        if let Some(bytes) = quota.limit_bytes().filter(|bytes| *bytes > QUOTA_BYTES_SUGGESTED_MAX) {
            let fields =
                vec![("quota-size-bytes", bytes.to_string()), ("quota-maximum-size-bytes", (8_u64 << 30).to_string())];
            self.warn("quota-backend-bytes", "quota exceeds the maximum value", fields, "set 8589934592 or less");
        }
        quota
    }

    fn compaction_batch(&mut self) -> usize {
        match self.raw.compaction_batch_limit {
            0 => 1000,
            limit => usize::try_from(limit).unwrap_or_else(|_| {
                self.refuse("compaction-batch-limit", "--compaction-batch-limit must not be negative");
                1000
            }),
        }
    }

    fn auto_compaction(&mut self) -> AutoCompaction {
        let (mode, retention) = (self.raw.auto_compaction_mode.as_str(), self.raw.auto_compaction_retention.trim());
        let is_number = retention.parse::<u64>().is_ok();
        match mode {
            "periodic" | "revision" => {}
            // etcd 3.5 reads an empty mode with a number as "off" in its file.
            "" if self.layers.is_exclusive && self.layers.compat == Compat::V3_5 && is_number => {
                return AutoCompaction::Off;
            }
            "" => {
                self.refuse("auto-compaction-mode", "undefined auto-compaction-mode");
                return AutoCompaction::Off;
            }
            other => {
                self.refuse("auto-compaction-mode", format!("unknown auto-compaction-mode {}", go::quote(other)));
                return AutoCompaction::Off;
            }
        }
        let chosen = match retention.parse::<u64>() {
            Ok(0) => return AutoCompaction::Off,
            Ok(revisions) if mode == "revision" => i64::try_from(revisions).ok().map(AutoCompaction::Revision),
            Ok(hours) => hours.checked_mul(3600).map(|s| AutoCompaction::Periodic(Duration::from_secs(s))),
            Err(_) if retention.is_empty() => return AutoCompaction::Off,
            Err(_) if mode == "revision" => return self.retention_in_nanos(retention),
            Err(_) => return self.retention_period(retention),
        };
        chosen.unwrap_or_else(|| self.refuse_retention(retention))
    }

    /// etcd reads a duration and counts its nanoseconds as revisions.
    fn retention_in_nanos(&mut self, text: &str) -> AutoCompaction {
        match go::parse_duration(text).ok().filter(|nanos| *nanos >= 0) {
            Some(0) => AutoCompaction::Off,
            Some(revisions) => {
                let message =
                    format!("--auto-compaction-retention={text} means {revisions} revisions in mode revision");
                self.warn("auto-compaction-retention", &message, vec![], "write a number of revisions");
                AutoCompaction::Revision(revisions)
            }
            None => self.refuse_retention(text),
        }
    }

    fn refuse_retention(&mut self, text: &str) -> AutoCompaction {
        let why = go::parse_duration(text).err().unwrap_or_else(|| go::invalid_duration(text));
        self.refuse("auto-compaction-retention", format!("error parsing CompactionRetention: {why}"));
        AutoCompaction::Off
    }

    fn retention_period(&mut self, text: &str) -> AutoCompaction {
        match go::parse_duration(text).ok().and_then(|nanos| u64::try_from(nanos).ok()) {
            Some(0) => AutoCompaction::Off,
            Some(nanos) => AutoCompaction::Periodic(Duration::from_nanos(nanos)),
            None => self.refuse_retention(text),
        }
    }

    fn tracing(&mut self) -> Option<Tracing> {
        if !self.raw.enable_distributed_tracing {
            return None;
        }
        let rate = self.raw.distributed_tracing_sampling_rate;
        let limit = if rate < 0 { "must be positive" } else { "must be less than 1000000" };
        if !(0..=1_000_000).contains(&rate) {
            let what = format!("distributed tracing configurition is not valid: (tracing sampling rate {limit})");
            self.refuse("distributed-tracing-sampling-rate", what);
        }
        let address = &self.raw.distributed_tracing_address;
        // What only belongs to a URL would be taken for a host.
        let is_bare = !address.contains(['/', '@', '?', '#']) && address.trim() == address;
        let has_port = Url::parse(&format!("http://{address}")).is_ok_and(|url| url.port() != 0);
        // As it will be dialled: names beyond ASCII have another form there.
        let host = if address.starts_with(':') { "localhost" } else { "" };
        let is_dialled = format!("http://{host}{address}").parse::<http::Uri>().is_ok();
        if !(is_bare && has_port && is_dialled) {
            let what = format!("--distributed-tracing-address {} must be \"host:port\"", go::quote(address));
            let remedy = "name the collector's host and port and nothing else, as in localhost:4317";
            self.refuse_beside("distributed-tracing-address", what, remedy);
        }
        Some(Tracing {
            address: self.raw.distributed_tracing_address.clone(),
            service_name: self.raw.distributed_tracing_service_name.clone(),
            instance_id: self.raw.distributed_tracing_instance_id.clone(),
            samples_per_million: u32::try_from(rate).unwrap_or(0),
        })
    }

    fn gates(&mut self) -> FeatureGates {
        let gates = gates::resolve(&self.layers.chosen_gates());
        let old = self.layers.compat == Compat::V3_5;
        if gates.lease_checkpoint_persist && !gates.lease_checkpoint {
            self.problems.push(self.layers.gate_problem(
                "LeaseCheckpointPersist",
                if old {
                    "setting experimental-enable-lease-checkpoint-persist requires experimental-enable-lease-checkpoint"
                } else {
                    "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"
                },
            ));
        }
        if gates.lease_checkpoint && !gates.lease_checkpoint_persist {
            let what = if old {
                "experimental-enable-lease-checkpoint-persist"
            } else {
                "feature gate LeaseCheckpointPersist"
            };
            let message = "Detected that checkpointing is enabled without persistence. Consider enabling";
            let remedy = "set feature-gates=LeaseCheckpoint=true,LeaseCheckpointPersist=true";
            self.warn("feature-gates", &format!("{message} {what}"), vec![], remedy);
        }
        gates
    }

    fn integrity(&mut self) -> Integrity {
        let raw = self.raw;
        let nanos = raw.compact_hash_check_time;
        if nanos <= 0 {
            let set_to = go::format_duration(nanos);
            self.refuse("compact-hash-check-time", format!("--compact-hash-check-time must be >0 (set to {set_to})"));
        }
        Integrity {
            corrupt_check: Some(self.duration("corrupt-check-time", raw.corrupt_check_time)).filter(|d| !d.is_zero()),
            compact_hash_check: Duration::from_nanos(nanos.unsigned_abs()),
            downgrade_check: self.duration("downgrade-check-time", raw.downgrade_check_time),
        }
    }

    fn member(&mut self) -> Member {
        let raw = self.raw;
        if raw.name == "default" && self.layers.compat >= Compat::V3_6 {
            let message = "it isn't recommended to use default name, please set a value for --name. Note that etcd might \
                           run into issue when multiple members have the same default name";
            self.warn("name", message, vec![("name", raw.name.clone())], "give every member a name of its own");
        }
        let data_dir = path(&raw.data_dir).unwrap_or_else(|| {
            let default = format!("{}.etcd", raw.name);
            let fields = vec![("data-dir", default.clone())];
            self.warn("data-dir", "'data-dir' was empty; using default", fields, "set data-dir to an absolute path");
            PathBuf::from(default)
        });
        let learners_max = usize::try_from(raw.max_learners).unwrap_or_else(|_| {
            self.refuse("max-learners", "--max-learners must not be negative");
            0
        });
        Member {
            name: raw.name.clone(),
            data_dir,
            wal_dir_dedicated: path(&raw.wal_dir),
            strict_reconfig_check: raw.strict_reconfig_check,
            learners_max,
            force_new_cluster: raw.force_new_cluster,
        }
    }

    fn limits(&mut self) -> Limits {
        let raw = self.raw;
        let request_bytes_max = count(raw.max_request_bytes);
        if request_bytes_max > REQUEST_BYTES_SUGGESTED_MAX {
            let fields = vec![("max-request-bytes", request_bytes_max.to_string())];
            self.warn("max-request-bytes", "exceeded recommended request limit", fields, "set 10485760 or less");
        }
        Limits {
            txn_ops_max: count(raw.max_txn_ops),
            request_bytes_max,
            // gRPC's own reading of zero.
            concurrent_streams_max: if raw.max_concurrent_streams == 0 { u32::MAX } else { raw.max_concurrent_streams },
        }
    }

    fn keepalive(&mut self) -> Keepalive {
        let raw = self.raw;
        let ping = Ping {
            interval: self.duration("grpc-keepalive-interval", raw.grpc_keepalive_interval),
            timeout: self.duration("grpc-keepalive-timeout", raw.grpc_keepalive_timeout),
        };
        let is_on = !ping.interval.is_zero() && !ping.timeout.is_zero();
        Keepalive {
            min_time: self.duration("grpc-keepalive-min-time", raw.grpc_keepalive_min_time),
            ping: Some(ping).filter(|_| is_on),
        }
    }

    fn http(&mut self) -> Http {
        let raw = self.raw;
        Http {
            gateway: raw.enable_grpc_gateway,
            cors: allowed(&raw.cors),
            host_whitelist: allowed(&raw.host_whitelist),
            pprof: raw.enable_pprof,
            discovery_service: raw.discovery_service,
        }
    }

    fn watch(&mut self) -> Watch {
        let raw = self.raw;
        Watch {
            progress_interval: self.duration_or(
                "watch-progress-notify-interval",
                raw.watch_progress_notify_interval,
                Duration::from_mins(10),
            ),
            warn_apply: self.duration("warning-apply-duration", raw.warning_apply_duration),
            // Zero is none to etcd.
            warn_unary: self.duration_or(
                "warning-unary-request-duration",
                raw.warning_unary_request_duration,
                Duration::from_millis(300),
            ),
        }
    }

    fn metrics(&mut self) -> Metrics {
        let level = self.raw.metrics.as_str();
        if level != "basic" && level != "extensive" {
            let fields = vec![("metrics", level.to_owned())];
            self.warn("metrics", "unknown level of metrics, using basic", fields, "set basic or extensive");
        }
        Metrics { extensive: level == "extensive" }
    }

    fn auth(&mut self) -> Auth {
        let cost = u32::try_from(self.raw.bcrypt_cost).ok().filter(|cost| (4..=31).contains(cost));
        if cost.is_none() {
            let fields = vec![("given-cost", self.raw.bcrypt_cost.to_string()), ("default-cost", "10".to_owned())];
            let message = "use default bcrypt cost instead of the invalid given cost";
            self.warn("bcrypt-cost", message, fields, "set a cost from 4 to 31");
        }
        Auth {
            token: self.token(),
            token_ttl: Duration::from_secs(self.raw.auth_token_ttl),
            bcrypt_cost: cost.unwrap_or(BCRYPT_COST_DEFAULT),
        }
    }

    fn token(&mut self) -> TokenProvider {
        let mut words = self.raw.auth_token.split(',');
        match words.next().unwrap_or_default() {
            "" => TokenProvider::None,
            "simple" => TokenProvider::Simple,
            "jwt" => self.jwt(words),
            _ => {
                self.refuse("auth-token", "auth: invalid auth options");
                TokenProvider::None
            }
        }
    }

    fn jwt<'w>(&mut self, words: impl Iterator<Item = &'w str>) -> TokenProvider {
        let mut options = BTreeMap::new();
        for word in words {
            let pair = word.split_once('=');
            let is_new = pair.is_some_and(|(name, value)| options.insert(name.to_owned(), value.to_owned()).is_none());
            if !is_new {
                self.refuse("auth-token", "auth: invalid auth options");
                break;
            }
        }
        TokenProvider::Jwt(options)
    }

    fn tls(&mut self, listen: &Listen) -> Tls {
        let (min_version, max_version) = self.tls_versions();
        let client = self.client_side();
        let peer = self.peer_side();
        self.demand_pairs(listen, &client, &peer);
        self.tell_ignored(listen, &client, &peer);
        let years = u32::try_from(self.raw.self_signed_cert_validity).unwrap_or(u32::MAX).max(1);
        Tls {
            client,
            peer,
            cipher_suites: self.cipher_suites(min_version),
            min_version,
            max_version,
            self_signed_years: years,
        }
    }

    fn tls_versions(&mut self) -> (TlsVersion, Option<TlsVersion>) {
        let raw = self.raw;
        let min = self.tls_version("tls-min-version", &raw.tls_min_version).unwrap_or(TlsVersion::V1_2);
        let max = self.tls_version("tls-max-version", &raw.tls_max_version);
        if max.is_some_and(|max| min > max) {
            let (low, high) = (&raw.tls_min_version, &raw.tls_max_version);
            self.refuse("tls-min-version", format!("min version ({low}) is greater than max version ({high})"));
        }
        (min, max)
    }

    fn tls_version(&mut self, option: &str, text: &str) -> Option<TlsVersion> {
        match text {
            "" => None,
            "TLS1.2" => Some(TlsVersion::V1_2),
            "TLS1.3" => Some(TlsVersion::V1_3),
            other => {
                let quoted = go::quote(other);
                self.refuse(option, format!("unexpected TLS version {quoted} (must be one of: TLS1.2, TLS1.3)"));
                None
            }
        }
    }

    fn cipher_suites(&mut self, min: TlsVersion) -> Vec<String> {
        let suites = &self.raw.cipher_suites;
        if !suites.is_empty() && min == TlsVersion::V1_3 {
            self.refuse("cipher-suites", "cipher suites cannot be configured when only TLS1.3 is enabled");
        }
        if let Some(odd) = suites.iter().find(|suite| !CIPHER_SUITES.contains(&suite.as_str())) {
            self.refuse("cipher-suites", format!("unexpected TLS cipher suite {}", go::quote(odd)));
        }
        suites.clone()
    }

    fn client_side(&mut self) -> TlsSide {
        let raw = self.raw;
        let (cns, names) = (filled(&raw.client_cert_allowed_cn), filled(&raw.client_cert_allowed_hostname));
        self.demand_one_kind_of_names("client-cert-allowed-cn", &cns, &names);
        TlsSide {
            server: self.shown("", raw.auto_tls, [&raw.cert_file, &raw.key_file]),
            client: self.pair(
                ["client-cert-file", "client-key-file"],
                &raw.client_cert_file,
                &raw.client_key_file,
                client_pair,
            ),
            client_cert_auth: raw.client_cert_auth,
            trusted_ca: self.file("trusted-ca-file", &raw.trusted_ca_file),
            crl: self.file("client-crl-file", &raw.client_crl_file),
            allowed_cns: cns,
            allowed_hostnames: names,
            skip_client_san: false,
        }
        .with_password(self.file("key-password-file", &raw.key_password_file).as_ref())
    }

    fn peer_side(&mut self) -> TlsSide {
        let raw = self.raw;
        let (cns, names) = (filled(&raw.peer_cert_allowed_cn), filled(&raw.peer_cert_allowed_hostname));
        self.demand_one_kind_of_names("peer-cert-allowed-cn", &cns, &names);
        TlsSide {
            server: self.shown("peer-", raw.peer_auto_tls, [&raw.peer_cert_file, &raw.peer_key_file]),
            client: self.pair(
                ["peer-client-cert-file", "peer-client-key-file"],
                &raw.peer_client_cert_file,
                &raw.peer_client_key_file,
                client_pair,
            ),
            client_cert_auth: raw.peer_client_cert_auth,
            trusted_ca: self.file("peer-trusted-ca-file", &raw.peer_trusted_ca_file),
            crl: self.file("peer-crl-file", &raw.peer_crl_file),
            allowed_cns: cns,
            allowed_hostnames: names,
            skip_client_san: raw.peer_skip_client_san_verification,
        }
        .with_password(self.file("peer-key-password-file", &raw.peer_key_password_file).as_ref())
    }

    /// Common names or hosts, not both.
    fn demand_one_kind_of_names(&mut self, option: &str, cns: &[String], hosts: &[String]) {
        if cns.is_empty() || hosts.is_empty() {
            return;
        }
        let list = |words: &[String]| words.iter().map(|word| go::quote(word)).collect::<Vec<_>>().join(" ");
        let both = format!("(cns=[{}], hostnames=[{}])", list(cns), list(hosts));
        self.refuse(option, format!("AllowedCNs and AllowedHostnames are mutually exclusive {both}"));
    }

    /// Certificate and key, both or neither. `text` gives etcd's words for one of them alone.
    fn pair(
        &mut self,
        options: [&'static str; 2],
        cert: &str,
        key: &str,
        text: fn(&str, &str) -> String,
    ) -> Option<KeyPair> {
        let [cert_option, key_option] = options;
        match (self.file(cert_option, cert), self.file(key_option, key)) {
            (Some(cert), Some(key)) => Some(KeyPair { cert, key, password: None }),
            (None, None) => None,
            (given, _) => {
                let option = if given.is_some() { cert_option } else { key_option };
                self.refuse_unshown(option, text(key, cert), &format!("give both {cert_option} and {key_option}"));
                None
            }
        }
    }

    /// A file by its path, or as `credential:NAME` one that the service manager has handed over (systemd.exec(5)).
    fn file(&mut self, option: &'static str, text: &str) -> Option<PathBuf> {
        let Some(name) = text.strip_prefix(CREDENTIAL) else { return path(text) };
        if name.is_empty() || name.contains('/') || name == ".." {
            let what = format!("{} is no name of a credential: write {CREDENTIAL}NAME", go::quote(name));
            self.refuse(option, what);
            return None;
        }
        let Some(directory) = &self.layers.credentials else {
            let remedy = format!("write LoadCredential={name}:/path/to/the/file into the unit, or name a file");
            self.warn(option, "no credentials were handed over", vec![("credential", name.to_owned())], &remedy);
            return path(text);
        };
        Some(directory.join(name))
    }

    /// What the listeners of the side whose options begin with `prefix` show; a pair is stronger than a generated one.
    fn shown(&mut self, prefix: &'static str, auto: bool, [cert, key]: [&str; 2]) -> Option<Presented> {
        let (options, auto_option, side) = match prefix {
            "" => (["cert-file", "key-file"], "auto-tls", "client"),
            _ => (["peer-cert-file", "peer-key-file"], "peer-auto-tls", "peer"),
        };
        let pair = self.pair(options, cert, key, server_pair);
        if auto && !(cert.is_empty() && key.is_empty()) {
            let remedy = format!("leave {auto_option} out");
            self.warn(auto_option, &format!("ignoring {side} auto TLS since certs given"), vec![], &remedy);
        }
        match pair {
            Some(pair) => Some(Presented::Files(pair)),
            None => auto.then_some(Presented::Generated),
        }
    }

    /// Encrypted listeners have something to show.
    fn demand_pairs(&mut self, listen: &Listen, client: &TlsSide, peer: &TlsSide) {
        let encrypted = |urls: &[ListenUrl]| urls.iter().map(|url| url.url.clone()).find(|url| url.scheme().is_tls());
        let raw = self.raw;
        // Half a pair was refused already.
        let is_client_shown = client.server.is_some() || !(raw.cert_file.is_empty() && raw.key_file.is_empty());
        let is_peer_shown = peer.server.is_some() || !(raw.peer_cert_file.is_empty() && raw.peer_key_file.is_empty());
        if let Some(url) =
            encrypted(&listen.client).or_else(|| encrypted(&listen.client_http)).filter(|_| !is_client_shown)
        {
            let what = format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
            );
            self.refuse_unshown("listen-client-urls", what, "give cert-file and key-file, or auto-tls");
        }
        if let Some(url) = encrypted(&listen.peer).filter(|_| !is_peer_shown) {
            let place =
                if url.scheme().is_unix() { url.host().to_owned() } else { format!("{}:{}", url.host(), url.port()) };
            let what = format!("cannot listen on TLS for {place}: KeyFile and CertFile are not presented");
            self.refuse_unshown("listen-peer-urls", what, "give peer-cert-file and peer-key-file, or peer-auto-tls");
        }
        if encrypted(&listen.metrics).is_some() && !is_client_shown {
            let what = "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url";
            self.refuse_unshown("listen-metrics-urls", what, "give cert-file and key-file, or auto-tls");
        }
    }

    fn refuse_unshown(&mut self, option: &str, what: impl Into<String>, remedy: &str) {
        if !self.layers.is_broken(option) {
            self.problems.push(self.layers.problem(option, what.into()).with_remedy(remedy.to_owned()));
        }
    }

    /// Listeners that are not encrypted beside what only encrypted ones use, in etcd's words.
    fn tell_ignored(&mut self, listen: &Listen, client: &TlsSide, peer: &TlsSide) {
        let plain = |urls: &[ListenUrl], is_plain: fn(Scheme) -> bool| -> Vec<String> {
            let plain = urls.iter().filter(|url| is_plain(url.url.scheme()));
            plain.map(|url| url.url.to_string()).collect()
        };
        for url in plain(&listen.peer, |scheme| scheme == Scheme::Http) {
            let field = ("peer-url", url);
            if peer.server.is_some() {
                let message = "scheme is HTTP while key and cert files are present; ignoring key and cert files";
                self.warn("listen-peer-urls", message, vec![field.clone()], ENCRYPT);
            }
            if peer.client_cert_auth {
                let message = "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth for \
                               this URL";
                self.warn("listen-peer-urls", message, vec![field], ENCRYPT);
            }
        }
        let options = [("listen-client-urls", &listen.client), ("listen-client-http-urls", &listen.client_http)];
        for (option, urls) in options {
            for url in plain(urls, |scheme| !scheme.is_tls()) {
                let field = ("client-url", url);
                if client.server.is_some() {
                    let message =
                        "scheme is http or unix while key and cert files are present; ignoring key and cert files";
                    self.warn(option, message, vec![field.clone()], ENCRYPT);
                }
                if client.client_cert_auth {
                    let message = "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth \
                                   for this URL";
                    self.warn(option, message, vec![field], ENCRYPT);
                }
            }
        }
    }

    fn legacy(&mut self) -> Legacy {
        let raw = self.raw;
        let proxy = match raw.proxy.as_str() {
            "on" => Some(ProxyMode::On),
            "readonly" => Some(ProxyMode::ReadOnly),
            _ => None,
        };
        Legacy {
            enable_v2: raw.enable_v2,
            proxy,
            proxy_failure_wait: Duration::from_millis(raw.proxy_failure_wait),
            proxy_refresh_interval: Duration::from_millis(raw.proxy_refresh_interval),
            proxy_dial_timeout: Duration::from_millis(raw.proxy_dial_timeout),
            proxy_write_timeout: Duration::from_millis(raw.proxy_write_timeout),
            proxy_read_timeout: Duration::from_millis(raw.proxy_read_timeout),
        }
    }
}

impl InitialCluster {
    /// Reads `name=url,name=url,…`; a name may be repeated for several URLs.
    ///
    /// # Errors
    /// etcd's text for the first bad URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut texts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, url) = item.split_once('=').unwrap_or((item, ""));
            texts.entry(name.trim()).or_default().push(url);
        }
        let members = texts.into_iter().map(|(name, urls)| Ok((name.to_owned(), Url::sorted(urls)?)));
        members.collect::<Result<_, String>>().map(Self)
    }

    /// A URL that two members claim, or one member twice over.
    pub fn repeated(&self) -> Option<&Url> {
        let mut all: Vec<&Url> = self.0.values().flatten().collect();
        all.sort();
        all.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first().copied())
    }
}

impl std::fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = self.0.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
        f.write_str(&words.collect::<Vec<_>>().join(","))
    }
}

/// Looks a host name up. `None`: unknown here, take it for right.
pub type Lookup<'l> = &'l dyn Fn(&str) -> Option<Vec<std::net::IpAddr>>;

/// A founding member's own entry does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what} (--{option}); {remedy}")]
pub struct OwnEntryError {
    /// The option at fault, without dashes.
    pub option: &'static str,
    /// What is wrong, in etcd's words.
    pub what: String,
    /// What an operator can do about it.
    pub remedy: String,
}

/// The founding member's own entry in `initial-cluster` against its advertised peer URLs, as etcd compares them before
/// the first start. Hosts are compared as addresses when `lookup` knows them.
///
/// # Errors
/// [`OwnEntryError`].
pub fn check_own_entry(config: &Config, lookup: Lookup<'_>) -> Result<(), OwnEntryError> {
    if config.role() != Ok(Role::Member) {
        // Who stands in for the members is none of them.
        return Ok(());
    }
    match &config.bootstrap.method {
        BootstrapMethod::Static(cluster) => check_entry(config, cluster, &config.member.name, lookup),
        BootstrapMethod::DnsSrv { .. } => Ok(()),
        BootstrapMethod::DiscoveryV2 { .. } | BootstrapMethod::DiscoveryV3(_) => check_state(config),
    }
}

/// Discovery founds clusters, and lets nobody join one.
fn check_state(config: &Config) -> Result<(), OwnEntryError> {
    if config.bootstrap.state == ClusterState::New {
        return Ok(());
    }
    Err(OwnEntryError {
        option: "initial-cluster-state",
        what: "discovery URL should not be set when joining existing initial cluster".to_owned(),
        remedy: "give --initial-cluster with all members instead of discovery, or found a cluster".to_owned(),
    })
}

/// The entry called `name` in a founding list against the advertised peer URLs; see [`check_own_entry`].
///
/// # Errors
/// [`OwnEntryError`].
pub fn check_entry(
    config: &Config,
    cluster: &InitialCluster,
    name: &str,
    lookup: Lookup<'_>,
) -> Result<(), OwnEntryError> {
    let advertised = (config.bootstrap.state == ClusterState::New).then_some(config.advertise.peer.as_slice());
    check_founder(cluster, name, advertised, lookup)
}

/// The entry called `name` in a founding list against the peer URLs it advertises, if those have to agree.
///
/// # Errors
/// [`OwnEntryError`].
pub fn check_founder(
    cluster: &InitialCluster,
    name: &str,
    advertised: Option<&[Url]>,
    lookup: Lookup<'_>,
) -> Result<(), OwnEntryError> {
    let Some(urls) = cluster.0.get(name) else {
        let quoted = go::quote(name);
        let what = format!("couldn't find local name {quoted} in the initial cluster configuration");
        let remedy = format!("add {name}=URL to --initial-cluster, or correct --name");
        return Err(OwnEntryError { option: "initial-cluster", what, remedy });
    };
    if let Some(url) = cluster.repeated() {
        let what = format!("initial cluster {cluster} has duplicate url");
        let remedy = format!("list {url} once: every member needs a peer URL of its own");
        return Err(OwnEntryError { option: "initial-cluster", what, remedy });
    }
    match advertised {
        Some(advertised) if !same_hosts(urls, advertised, lookup) => Err(mismatch(name, urls, advertised)),
        _ => Ok(()),
    }
}

/// Whether both lists name the same places. A host nobody can look up counts as right.
pub fn same_hosts(left: &[Url], right: &[Url], lookup: Lookup<'_>) -> bool {
    let places = |urls: &[Url]| -> Option<Vec<String>> {
        let place = |url: &Url| match url.ip() {
            Some(ip) => Some(format!("{ip}:{}", url.port())),
            None if url.scheme().is_unix() => Some(url.to_string()),
            None => lookup(url.host())?.into_iter().min().map(|ip| format!("{ip}:{}", url.port())),
        };
        let mut places = urls.iter().map(place).collect::<Option<Vec<_>>>()?;
        places.sort();
        Some(places)
    };
    if left == right {
        return true;
    }
    match (places(left), places(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left.len() == right.len(),
    }
}

fn mismatch(name: &str, urls: &[Url], advertised: &[Url]) -> OwnEntryError {
    let remedy = format!("list the same URLs for {name} in --initial-cluster as in --initial-advertise-peer-urls");
    let join =
        |urls: &[&Url], prefix: &str| urls.iter().map(|url| format!("{prefix}{url}")).collect::<Vec<_>>().join(",");
    let all = |urls: &[Url]| urls.iter().map(|url| go::quote(url.as_str())).collect::<Vec<_>>().join(" ");
    let only_in =
        |left: &[Url], right: &[Url]| left.iter().filter(|url| !right.contains(url)).cloned().collect::<Vec<_>>();
    let missing = only_in(urls, advertised);
    if missing.is_empty() {
        let extra = only_in(advertised, urls);
        let has = join(&extra.iter().collect::<Vec<_>>(), "");
        let cluster = join(&advertised.iter().collect::<Vec<_>>(), &format!("{name}="));
        let what = format!("--initial-advertise-peer-urls has {has} but missing from --initial-cluster={cluster}");
        return OwnEntryError { option: "initial-advertise-peer-urls", what, remedy };
    }
    let differing = advertised.iter().zip(urls).find(|(own, wanted)| own != wanted);
    let why = match differing.filter(|_| advertised.len() == urls.len()) {
        Some((own, wanted)) => format!("resolved urls: {} != {}", go::quote(own.as_str()), go::quote(wanted.as_str())),
        None => format!("len([{}]) != len([{}])", all(advertised), all(urls)),
    };
    let has = join(&missing.iter().collect::<Vec<_>>(), &format!("{name}="));
    let given = join(&advertised.iter().collect::<Vec<_>>(), "");
    let what = format!("--initial-cluster has {has} but missing from --initial-advertise-peer-urls={given} ({why})");
    OwnEntryError { option: "initial-cluster", what, remedy }
}

fn server_pair(key: &str, cert: &str) -> String {
    format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")
}

fn client_pair(key: &str, cert: &str) -> String {
    format!("ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {cert}]")
}

/// Whether a name stands for a standard stream of the process, by its word or by its path.
fn is_stream(name: &str, word: &str, descriptor: u8) -> bool {
    let paths = [format!("/dev/{word}"), format!("/dev/fd/{descriptor}"), format!("/proc/self/fd/{descriptor}")];
    name == word || paths.iter().any(|path| path == name)
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn some_unless_zero(number: u64) -> Option<usize> {
    (number > 0).then(|| count(number))
}

fn filled(words: &[String]) -> Vec<String> {
    words.iter().filter(|word| !word.is_empty()).cloned().collect()
}

fn allowed(words: &[String]) -> Allowed {
    let words = filled(words);
    if words.is_empty() || words.iter().any(|word| word == "*") { Allowed::Any } else { Allowed::Only(words) }
}
