//! What is true after all options were read: typed, related, complete. Impossible states have no spelling here.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use super::url::{ListenUrl, Url};

/// Where in the data directory scheduled snapshots go, unless `snapshot-dir` names another place.
pub const SCHEDULED_SNAPSHOTS: &str = "snapshots";

/// The configuration of one daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The etcd minor version whose reported version, defaults and texts are imitated.
    pub compat: Compat,
    /// This member: who it is and where its data lies.
    pub member: Member,
    /// Sockets to listen on.
    pub listen: Listen,
    /// Addresses told to others.
    pub advertise: Advertise,
    /// How a member without data finds its cluster.
    pub bootstrap: Bootstrap,
    /// Raft timing.
    pub raft: Raft,
    /// Log, snapshots, quota and compaction.
    pub storage: Storage,
    /// What one client may ask for at a time.
    pub limits: Limits,
    /// gRPC keepalive on client connections.
    pub keepalive: Keepalive,
    /// The HTTP side of the client listeners.
    pub http: Http,
    /// TLS of both kinds of listeners.
    pub tls: Tls,
    /// Users, passwords and tokens.
    pub auth: Auth,
    /// Watches, slow requests and checks.
    pub watch: Watch,
    /// Periodic integrity checks.
    pub integrity: Integrity,
    /// Switches of etcd's feature gates.
    pub gates: FeatureGates,
    /// Log records.
    pub log: Log,
    /// The audit log, when on.
    pub audit: Option<AuditLog>,
    /// Metrics and profiling.
    pub metrics: Metrics,
    /// OpenTelemetry export, when on.
    pub tracing: Option<Tracing>,
    /// The v2 store and the v2 HTTP proxy.
    pub legacy: Legacy,
    /// Worker threads that `GOMAXPROCS` of old units asks for.
    pub threads: Option<NonZeroUsize>,
}

/// What a node is to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes part.
    Member,
    /// It stands in for the members.
    Proxy(ProxyMode),
}

/// A data directory that says two things.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid datadir. Both member and proxy directories exist. ({}): remove proxy/ if this node is a member of its cluster, \
     else move member/ away",
    .0.display()
)]
pub struct TwoRoles(pub PathBuf);

impl Config {
    /// What this node is: what its data directory says, whatever the options, or else what the options say.
    ///
    /// etcd makes `member/` before it asks a discovery service, and leaves it when the cluster was full: without a log it is
    /// nothing beside `proxy/`. An empty `proxy/` is what a start has left that failed.
    ///
    /// # Errors
    /// A directory with data of both.
    pub fn role(&self) -> Result<Role, TwoRoles> {
        let asked = self.legacy.proxy;
        match (self.member.data_dir.join("member").is_dir(), holds_anything(&self.member.data_dir.join("proxy"))) {
            (true, true) if self.member.is_initialized() => Err(TwoRoles(self.member.data_dir.clone())),
            (_, true) => Ok(Role::Proxy(asked.unwrap_or(ProxyMode::On))),
            (true, false) => Ok(Role::Member),
            (false, false) => Ok(asked.map_or(Role::Member, Role::Proxy)),
        }
    }

    /// Where scheduled snapshots go.
    pub fn snapshot_dir(&self) -> PathBuf {
        self.storage.scheduled.dir.clone().unwrap_or_else(|| self.member.data_dir.join(SCHEDULED_SNAPSHOTS))
    }

    /// Whether this node, as a proxy, was told its cluster before.
    pub fn has_proxy_cluster(&self) -> bool {
        self.member.data_dir.join("proxy/cluster").exists()
    }
}

/// Minor version of etcd that is imitated (`compat-version`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compat {
    /// etcd 3.5.
    V3_5,
    /// etcd 3.6.
    V3_6,
    /// etcd 3.7.
    #[default]
    V3_7,
}

impl Compat {
    /// All values, oldest first.
    pub const ALL: [Self; 3] = [Self::V3_5, Self::V3_6, Self::V3_7];

    /// As the option spells it: `3.7`.
    pub const fn minor(self) -> &'static str {
        match self {
            Self::V3_5 => "3.5",
            Self::V3_6 => "3.6",
            Self::V3_7 => "3.7",
        }
    }

    /// The full version that `--version`, `/version` and `Status` report.
    pub const fn version(self) -> &'static str {
        match self {
            Self::V3_5 => "3.5.30",
            Self::V3_6 => "3.6.6",
            Self::V3_7 => "3.7.1",
        }
    }

    /// The value that `text` spells.
    pub fn from_minor(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compat| compat.minor() == text)
    }
}

/// Who this member is and how it treats its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `name`: the left side of its own entry in `initial-cluster`.
    pub name: String,
    /// `data-dir`, with the default `${name}.etcd` filled in.
    pub data_dir: PathBuf,
    /// `wal-dir` when one was given; see [`Member::wal_dir`].
    pub wal_dir_dedicated: Option<PathBuf>,
    /// `strict-reconfig-check`: refuse membership changes that would lose quorum.
    pub strict_reconfig_check: bool,
    /// `max-learners`: learners allowed in the membership.
    pub learners_max: usize,
    /// `force-new-cluster`: restart from existing data as a cluster of one.
    pub force_new_cluster: bool,
}

impl Member {
    /// Where the log lies: `wal-dir`, else `<data-dir>/member/wal`.
    pub fn wal_dir(&self) -> PathBuf {
        self.wal_dir_dedicated.clone().unwrap_or_else(|| self.data_dir.join("member").join("wal"))
    }

    /// Where `.snap` files lie: `<data-dir>/member/snap`.
    pub fn snap_dir(&self) -> PathBuf {
        self.data_dir.join("member").join("snap")
    }

    /// Whether the member was started before: its log directory holds a `*.wal` file. Every `initial-*` and
    /// `discovery*` option is then without effect.
    pub fn is_initialized(&self) -> bool {
        holds_log(&self.wal_dir())
    }
}

/// Whether it is a directory with more in it than a file whose writing was cut short. One that cannot be read counts as such.
fn holds_anything(dir: &Path) -> bool {
    let whole = |entry: std::fs::DirEntry| entry.file_name() != "cluster.bak";
    dir.is_dir() && std::fs::read_dir(dir).map_or(true, |entries| entries.flatten().any(whole))
}

fn holds_log(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| Path::new(&entry.file_name()).extension().is_some_and(|ext| ext == "wal"))
}

/// Sockets to listen on. Sorted as text and free of repetitions, as etcd keeps its lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// `listen-client-urls`: gRPC, and HTTP unless `client_http` is given.
    pub client: Vec<ListenUrl>,
    /// `listen-client-http-urls`: HTTP only; shares no URL with `client`.
    pub client_http: Vec<ListenUrl>,
    /// `listen-peer-urls`.
    pub peer: Vec<ListenUrl>,
    /// `listen-metrics-urls`: `/metrics`, `/health` and their kin.
    pub metrics: Vec<ListenUrl>,
    /// `socket-reuse-port`: `SO_REUSEPORT` on every listener.
    pub reuse_port: bool,
    /// `socket-reuse-address`: `SO_REUSEADDR` on every listener.
    pub reuse_address: bool,
}

/// Addresses told to others. Sorted as text and free of repetitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// `advertise-client-urls`.
    pub client: Vec<Url>,
    /// `initial-advertise-peer-urls`; the member ID is computed from it.
    pub peer: Vec<Url>,
}

/// How a member without data finds its cluster. Without effect once [`Member::is_initialized`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// `initial-cluster-state`.
    pub state: ClusterState,
    /// `initial-cluster-token`: mixed into cluster and member IDs.
    pub token: String,
    /// Where the first list of members comes from.
    pub method: BootstrapMethod,
}

/// `initial-cluster-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// Found a cluster.
    New,
    /// Join one.
    Existing,
}

/// The one source of the first list of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapMethod {
    /// `initial-cluster`.
    Static(InitialCluster),
    /// `discovery-srv` and `discovery-srv-name`.
    DnsSrv {
        /// The domain that is asked.
        domain: String,
        /// Suffix of the service name, without the dash; empty for none.
        service: String,
    },
    /// `discovery`: the v2 discovery service.
    DiscoveryV2 {
        /// The token's URL.
        url: String,
        /// `discovery-proxy`: HTTP proxy on the way there.
        proxy: Option<String>,
        /// `discovery-fallback`: become a v2 proxy when the cluster is full.
        fall_back_to_proxy: bool,
    },
    /// `discovery-endpoints` and `discovery-token`: discovery through an etcd cluster's v3 API.
    DiscoveryV3(Box<DiscoveryV3>),
}

/// The members of `initial-cluster`, by name, each with its peer URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialCluster(pub BTreeMap<String, Vec<Url>>);

/// v3 discovery: where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryV3 {
    /// `discovery-token`.
    pub token: String,
    /// `discovery-endpoints`; none is empty.
    pub endpoints: Vec<String>,
    /// `discovery-dial-timeout`.
    pub dial_timeout: Duration,
    /// `discovery-request-timeout`.
    pub request_timeout: Duration,
    /// `discovery-keepalive-time`.
    pub keepalive_time: Duration,
    /// `discovery-keepalive-timeout`.
    pub keepalive_timeout: Duration,
    /// `discovery-insecure-transport`.
    pub insecure_transport: bool,
    /// `discovery-insecure-skip-tls-verify`.
    pub insecure_skip_tls_verify: bool,
    /// `discovery-cert` and `discovery-key`.
    pub pair: Option<KeyPair>,
    /// `discovery-cacert`.
    pub ca: Option<PathBuf>,
    /// `discovery-user`.
    pub user: String,
    /// `discovery-password`.
    pub password: String,
}

/// Raft timing. `election` is at least five heartbeats and at most 50 s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raft {
    /// `heartbeat-interval`, one raft tick.
    pub heartbeat: Duration,
    /// `election-timeout`.
    pub election: Duration,
    /// `initial-election-tick-advance`: skip most of the first election timeout after boot.
    pub advance_first_election: bool,
    /// `pre-vote`.
    pub pre_vote: bool,
    /// `raft-read-timeout`: read deadline on peer connections, at least 5 s.
    pub peer_read_timeout: Duration,
    /// `raft-write-timeout`: write deadline on peer connections, at least 5 s.
    pub peer_write_timeout: Duration,
}

impl Raft {
    /// Heartbeats in one election timeout, rounded down, at least 5.
    pub fn election_ticks(&self) -> u32 {
        let ticks = self.election.as_millis() / self.heartbeat.as_millis().max(1);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// How long the server lets a request wait: 5 s and two election timeouts.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + self.election * 2
    }

    /// How long dialling a peer may take: 1 s and one election timeout.
    pub fn peer_dial_timeout(&self) -> Duration {
        Duration::from_secs(1) + self.election
    }
}

/// Log, snapshots, quota and compaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// `snapshot-count`: applied entries between raft snapshots.
    pub snapshot_entries: u64,
    /// `snapshot-catchup-entries`: entries kept behind a snapshot for slow followers.
    pub catchup_entries: u64,
    /// `max-snapshots`: `.snap` files retained; `None` keeps all.
    pub snapshots_max: Option<usize>,
    /// `max-wals`: log files retained; `None` keeps all.
    pub wals_max: Option<usize>,
    /// `quota-backend-bytes`.
    pub quota: Quota,
    /// `nospace-disarm=auto`: the member lifts its own NOSPACE alarm once it is back under its quota.
    pub lifts_no_space: bool,
    /// `auto-compaction-mode` and `auto-compaction-retention`.
    pub auto_compaction: AutoCompaction,
    /// `compaction-batch-limit`: revisions deleted in one batch.
    pub compaction_batch_max: usize,
    /// `compaction-sleep-interval`: pause between batches.
    pub compaction_pause: Duration,
    /// `snapshot-schedule` and what belongs to it.
    pub scheduled: ScheduledSnapshots,
    /// `unsafe-no-fsync`: promise durability without having it. Tests only.
    pub unsafe_no_fsync: bool,
}

/// Snapshot files that the member takes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledSnapshots {
    /// `snapshot-schedule`: time between two, at least a second; `None` for none.
    pub period: Option<Duration>,
    /// `snapshot-dir`; `None` for a directory of the data directory ([`Config::snapshot_dir`]).
    pub dir: Option<PathBuf>,
    /// `snapshot-keep`: so many; `None` for any number.
    pub files_max: Option<usize>,
    /// `snapshot-keep-time`: none that is older, but for the newest; `None` for any age.
    pub age_max: Option<Duration>,
}

/// `quota-backend-bytes`: the size that raises `NOSPACE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// No limit (a negative value).
    Disabled,
    /// The default of 2 GiB (zero or not given).
    Default,
    /// So many bytes.
    Bytes(u64),
}

impl Quota {
    /// The limit in bytes, if there is one.
    pub fn limit_bytes(self) -> Option<u64> {
        match self {
            Self::Disabled => None,
            Self::Default => Some(QUOTA_BYTES_DEFAULT),
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

/// Quota when none is chosen: 2 GiB, as etcd's.
pub const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;

/// Compaction by the server itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// None.
    Off,
    /// Keep the history of so long; never zero.
    Periodic(Duration),
    /// Keep so many revisions; above zero.
    Revision(i64),
}

/// What one client may ask for at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `max-txn-ops`: operations on one level of a transaction.
    pub txn_ops_max: usize,
    /// `max-request-bytes`: encoded size of one request.
    pub request_bytes_max: usize,
    /// `max-concurrent-streams` of one HTTP/2 connection.
    pub concurrent_streams_max: u32,
}

/// gRPC keepalive on client connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// `grpc-keepalive-min-time`: a client that pings more often is disconnected.
    pub min_time: Duration,
    /// `grpc-keepalive-interval` and `grpc-keepalive-timeout`: the server's own pings, off when either is zero.
    pub ping: Option<Ping>,
}

/// The server's pings to an idle client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Time between two pings.
    pub interval: Duration,
    /// How long to wait for the answer.
    pub timeout: Duration,
}

/// The HTTP side of the client listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// `enable-grpc-gateway`: JSON under `/v3/`.
    pub gateway: bool,
    /// `cors`.
    pub cors: Allowed,
    /// `host-whitelist`: accepted `Host` values on plain HTTP.
    pub host_whitelist: Allowed,
    /// `enable-pprof`.
    pub pprof: bool,
    /// `discovery-service`: `/new`, its tokens and the page on the client port.
    pub discovery_service: bool,
}

/// A list in which `*` stands for everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Everything (`*`, or an empty list).
    Any,
    /// These, sorted.
    Only(Vec<String>),
}

impl Allowed {
    /// Whether `value` is let through.
    pub fn contains(&self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(list) => list.iter().any(|entry| entry == value),
        }
    }
}

/// TLS of both kinds of listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Client listeners.
    pub client: TlsSide,
    /// Peer listeners and peer connections.
    pub peer: TlsSide,
    /// `cipher-suites` of TLS 1.2; empty for the library's choice.
    pub cipher_suites: Vec<String>,
    /// `tls-min-version`.
    pub min_version: TlsVersion,
    /// `tls-max-version`.
    pub max_version: Option<TlsVersion>,
    /// `self-signed-cert-validity` in years, from 1.
    pub self_signed_years: u32,
}

/// Certificate and key, always together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// `[peer-]key-password-file`: passwords for it, one a line.
    pub password: Option<PathBuf>,
}

/// What encrypted listeners of one kind show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// `[peer-]cert-file` and `[peer-]key-file`.
    Files(KeyPair),
    /// What `[peer-]auto-tls` makes.
    Generated,
}

/// TLS of one kind of listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSide {
    /// What listeners show; there is none whose URL demands it if there is nothing to show.
    pub server: Option<Presented>,
    /// `[peer-]client-cert-file` and `[peer-]client-key-file`: shown when dialling.
    pub client: Option<KeyPair>,
    /// `[peer-]client-cert-auth`.
    pub client_cert_auth: bool,
    /// `[peer-]trusted-ca-file`; given alone it already demands client certificates.
    pub trusted_ca: Option<PathBuf>,
    /// `client-crl-file`, `peer-crl-file`.
    pub crl: Option<PathBuf>,
    /// `client-cert-allowed-cn`, `peer-cert-allowed-cn`.
    pub allowed_cns: Vec<String>,
    /// `client-cert-allowed-hostname`, `peer-cert-allowed-hostname`; empty when `allowed_cns` is not.
    pub allowed_hostnames: Vec<String>,
    /// `peer-skip-client-san-verification`.
    pub skip_client_san: bool,
}

impl Tls {
    /// Whether versions and suites are left to the library.
    pub fn has_default_rules(&self) -> bool {
        self.cipher_suites.is_empty() && self.min_version == TlsVersion::V1_2 && self.max_version.is_none()
    }
}

impl TlsSide {
    /// The same with these passwords for its keys.
    pub(super) fn with_password(mut self, password: Option<&PathBuf>) -> Self {
        let server = match &mut self.server {
            Some(Presented::Files(pair)) => Some(pair),
            Some(Presented::Generated) | None => None,
        };
        for pair in server.into_iter().chain(&mut self.client) {
            pair.password = password.cloned();
        }
        self
    }

    /// Whether listeners demand certificates of those who connect.
    pub fn demands_certificates(&self) -> bool {
        self.client_cert_auth || self.trusted_ca.is_some()
    }

    /// The pair of files that listeners show, if it is files.
    pub fn server_files(&self) -> Option<&KeyPair> {
        match self.server.as_ref()? {
            Presented::Files(pair) => Some(pair),
            Presented::Generated => None,
        }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// Users, passwords and tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// `auth-token`.
    pub token: TokenProvider,
    /// `auth-token-ttl` of simple tokens.
    pub token_ttl: Duration,
    /// `bcrypt-cost`, 4 to 31.
    pub bcrypt_cost: u32,
}

/// `auth-token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenProvider {
    /// Empty: authentication by token is off.
    None,
    /// `simple`.
    Simple,
    /// `jwt` with its options, as written.
    Jwt(BTreeMap<String, String>),
}

/// Watches and slow requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// `watch-progress-notify-interval`.
    pub progress_interval: Duration,
    /// `warning-apply-duration`.
    pub warn_apply: Duration,
    /// `warning-unary-request-duration`.
    pub warn_unary: Duration,
}

/// Periodic checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integrity {
    /// `corrupt-check-time`; `None` when off.
    pub corrupt_check: Option<Duration>,
    /// `compact-hash-check-time`, above zero; used while the gate is on.
    pub compact_hash_check: Duration,
    /// `downgrade-check-time`.
    pub downgrade_check: Duration,
}

/// Switches of etcd's feature gates, after stages and old names were resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one switch per gate, named as etcd names them")]
pub struct FeatureGates {
    /// `StopGRPCServiceOnDefrag`.
    pub stop_grpc_service_on_defrag: bool,
    /// `InitialCorruptCheck`.
    pub initial_corrupt_check: bool,
    /// `CompactHashCheck`.
    pub compact_hash_check: bool,
    /// `TxnModeWriteWithSharedBuffer`.
    pub txn_mode_write_with_shared_buffer: bool,
    /// `LeaseCheckpoint`.
    pub lease_checkpoint: bool,
    /// `LeaseCheckpointPersist`; never without `lease_checkpoint`.
    pub lease_checkpoint_persist: bool,
    /// `SetMemberLocalAddr`.
    pub set_member_local_addr: bool,
    /// `FastLeaseKeepAlive`.
    pub fast_lease_keep_alive: bool,
    /// `PriorityRequest`.
    pub priority_request: bool,
}

/// Log records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `log-level`.
    pub level: LogLevel,
    /// `log-format`.
    pub format: LogFormat,
    /// `log-outputs`; never empty.
    pub outputs: Vec<LogOutput>,
    /// `log-rotation-config-json` while `enable-log-rotation` is on; then `outputs` is one file.
    pub rotation: Option<Rotation>,
}

/// `log-level`. etcd's `panic` and `fatal` show nothing below themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are etcd's own")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}

/// `log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Tab-separated text.
    Console,
}

/// One target of log records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// `default` and `stderr`.
    Stderr,
    /// `stdout`.
    Stdout,
    /// `systemd/journal`: the journal's native socket.
    Journal,
    /// A file, opened for appending.
    File(PathBuf),
}

/// When a log file is set aside. Zero means "no limit" for age and backups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// `maxsize` in MB.
    pub size_mb_max: u64,
    /// `maxage` in days.
    pub age_days_max: u64,
    /// `maxbackups` in files.
    pub backups_max: u64,
    /// `compress`: gzip backups.
    pub compress: bool,
}

/// The audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLog {
    /// `audit-log`; never the journal.
    pub output: LogOutput,
    /// `audit-log-sample`: records kept per million successful reads, at most a million.
    pub reads_per_million: u32,
    /// `audit-log-rotate-size` in bytes; `None` for never.
    pub file_bytes_max: Option<u64>,
    /// `audit-log-rotate-keep`.
    pub files_max: u32,
}

/// Metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// `metrics=extensive`: histograms of gRPC handling times.
    pub extensive: bool,
}

/// OpenTelemetry export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// `distributed-tracing-address`, host and port of the collector.
    pub address: String,
    /// `distributed-tracing-service-name`.
    pub service_name: String,
    /// `distributed-tracing-instance-id`.
    pub instance_id: String,
    /// `distributed-tracing-sampling-rate`, samples per million spans.
    pub samples_per_million: u32,
}

/// The v2 store and the v2 HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Legacy {
    /// `enable-v2`: serve `/v2`.
    pub enable_v2: bool,
    /// `proxy`: run as a v2 HTTP proxy instead of a member.
    pub proxy: Option<ProxyMode>,
    /// `proxy-failure-wait`.
    pub proxy_failure_wait: Duration,
    /// `proxy-refresh-interval`.
    pub proxy_refresh_interval: Duration,
    /// `proxy-dial-timeout`.
    pub proxy_dial_timeout: Duration,
    /// `proxy-write-timeout`; zero for none.
    pub proxy_write_timeout: Duration,
    /// `proxy-read-timeout`; zero for none.
    pub proxy_read_timeout: Duration,
}

/// `proxy`, when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// Reads and writes.
    On,
    /// Reads only.
    ReadOnly,
}

/// Where a listener binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// Every address of the host.
    Any(u16),
    /// The name `localhost`, resolved when binding.
    Localhost(u16),
    /// One address.
    Address(IpAddr, u16),
    /// A socket file.
    Unix(PathBuf),
}
