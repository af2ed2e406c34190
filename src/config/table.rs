//! The option table: every option of etcd 3.3 to 3.8 and ours, each once.
//!
//! It is the single source of the flag parser, variables, file keys, `--help`, sample files and reload. A name of etcd
//! never leaves it: what etcd removed is still read, with a warning.

use super::{Compat, feature::Support, go};

/// How a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A boolean; as a flag it needs no value.
    Switch,
    /// A Go `uint`.
    Uint,
    /// A Go `uint32`.
    Uint32,
    /// A Go `int` or `int64`.
    Int,
    /// A Go duration.
    Duration,
    /// Any text.
    Text,
    /// A file or directory.
    Path,
    /// One of these words; anything else is refused as it is read.
    Select(&'static [&'static str]),
    /// URLs, sorted and unique; an empty list leaves the weaker layer's.
    Urls,
    /// `*`, or URLs.
    Origins,
    /// Words in the order given.
    Words,
    /// Words, sorted and unique.
    WordSet,
    /// `Name=bool` of feature gates.
    Gates,
    /// Anything, and it does not matter; as a flag it needs no value.
    Ignored,
}

impl Kind {
    /// Whether the flag alone, without a value, means `true`.
    pub fn is_switch(self) -> bool {
        matches!(self, Self::Switch | Self::Ignored)
    }

    /// As `--help` and error messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Switch => "a boolean",
            Self::Uint | Self::Uint32 => "an unsigned integer",
            Self::Int => "an integer",
            Self::Duration => "a duration",
            Self::Text => "text",
            Self::Path => "a path",
            Self::Select(_) => "one of a few words",
            Self::Urls => "a list of URLs",
            Self::Origins => "* or a list of URLs",
            Self::Words | Self::WordSet => "a list of words",
            Self::Gates => "a list of Gate=true|false",
            Self::Ignored => "anything",
        }
    }
}

/// What a bare number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "units")]
pub enum Unit {
    None,
    Milliseconds,
    Seconds,
    Bytes,
    Megabytes,
    Entries,
    Files,
    Years,
    PerMillion,
}

impl Unit {
    /// As help names it; nothing for plain numbers and text.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::None => return None,
            Self::Milliseconds => "milliseconds",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Megabytes => "megabytes",
            Self::Entries => "log entries",
            Self::Files => "files",
            Self::Years => "years",
            Self::PerMillion => "per million",
        })
    }
}

/// Whether a running daemon can take a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// On reload.
    Live,
    /// Only at the next start.
    Restart,
}

/// Section of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "etcd's sections, and two of ours")]
pub enum Group {
    Sources,
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Tracing,
    Features,
    Unsafe,
    Old,
}

impl Group {
    /// All sections, in the order of `--help`.
    pub const ALL: [Self; 11] = [
        Self::Sources,
        Self::Member,
        Self::Clustering,
        Self::Security,
        Self::Auth,
        Self::Monitoring,
        Self::Logging,
        Self::Tracing,
        Self::Features,
        Self::Unsafe,
        Self::Old,
    ];

    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sources => "Configuration sources",
            Self::Member => "Member",
            Self::Clustering => "Clustering",
            Self::Security => "Security",
            Self::Auth => "Auth",
            Self::Monitoring => "Profiling and Monitoring",
            Self::Logging => "Logging",
            Self::Tracing => "Distributed tracing",
            Self::Features => "Features",
            Self::Unsafe => "Unsafe feature",
            Self::Old => "Old names, still read",
        }
    }
}

/// Where etcd's YAML file keeps the option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum YamlKey {
    /// At the top, under the flag's name.
    Same,
    /// There too, but only for us: etcd has no key for it in its file.
    Ours,
    /// At a dotted path.
    At(&'static str),
    /// Nowhere: it makes no sense in a file.
    None,
}

/// What took the place of an old option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Successor {
    /// Nothing: the option stands for itself.
    None,
    /// This option, with the same value.
    Option(&'static str),
    /// This feature gate, with the same value.
    Gate(&'static str),
    /// `trusted-ca-file` and `client-cert-auth` of the side with this prefix.
    CaFile(&'static str),
    /// `log-level=debug` when true.
    DebugLevel,
}

/// Which file an option of our own belongs to, or which etcd minors know the option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// First etcd 3.x minor that knows it; 0 for ours.
    pub since: u8,
    /// Last one; `None` while etcd keeps it.
    pub until: Option<u8>,
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// The flag without dashes, which is also the TOML key.
    pub name: &'static str,
    /// The key in etcd's YAML file.
    pub yaml: YamlKey,
    /// How its value is read.
    pub kind: Kind,
    /// What a bare number counts.
    pub unit: Unit,
    /// The default, as text.
    pub default: &'static str,
    /// The default that held before an etcd minor.
    pub default_before: Option<(Compat, &'static str)>,
    /// Which etcd minors know it.
    pub versions: Versions,
    /// From when on its use is deprecated, and what etcd says then.
    pub deprecated: Option<(Compat, &'static str)>,
    /// What took its place.
    pub successor: Successor,
    /// Whether a running daemon can take a new value.
    pub reload: Reload,
    /// Its section.
    pub group: Group,
    /// How well it is honoured.
    pub support: Support,
    /// A correct value for messages.
    pub example: &'static str,
    /// What it does, one sentence.
    pub help: &'static str,
    /// Whether its value must not be repeated in messages.
    pub secret: bool,
    /// The words a text is to be one of, when something else than its kind refuses others.
    words: &'static [&'static str],
}

impl OptionSpec {
    const fn new(group: Group, name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Self {
        Self {
            name,
            yaml: YamlKey::Same,
            kind,
            unit: Unit::None,
            default,
            default_before: None,
            versions: Versions { since: 3, until: None },
            deprecated: None,
            successor: Successor::None,
            reload: Reload::Restart,
            group,
            support: Support::Works,
            example: default,
            help,
            secret: false,
            words: &[],
        }
    }

    /// Known to etcd from this minor on.
    const fn since(mut self, minor: u8) -> Self {
        self.versions.since = minor;
        self
    }

    /// Known to etcd up to this minor.
    const fn until(mut self, minor: u8) -> Self {
        self.versions.until = Some(minor);
        self
    }

    const fn ours(self) -> Self {
        self.since(0)
    }

    const fn yaml(mut self, path: &'static str) -> Self {
        self.yaml = YamlKey::At(path);
        self
    }

    const fn yaml_of_ours(mut self) -> Self {
        self.yaml = YamlKey::Ours;
        self
    }

    const fn no_yaml(mut self) -> Self {
        self.yaml = YamlKey::None;
        self
    }

    const fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    const fn before(mut self, compat: Compat, default: &'static str) -> Self {
        self.default_before = Some((compat, default));
        self
    }

    const fn deprecated(mut self, since: Compat, text: &'static str) -> Self {
        self.deprecated = Some((since, text));
        self
    }

    const fn succeeded(mut self, successor: Successor) -> Self {
        self.successor = successor;
        self
    }

    const fn live(mut self) -> Self {
        self.reload = Reload::Live;
        self
    }

    const fn no_effect(mut self, why: &'static str) -> Self {
        self.support = Support::NoEffect(why);
        self
    }

    const fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// What a text is to be one of.
    const fn words(mut self, words: &'static [&'static str]) -> Self {
        self.words = words;
        self
    }

    /// The words that the value is one of; none where any text will do.
    pub fn choices(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Select(words) => words,
            _ => self.words,
        }
    }

    /// Whether etcd advises against it, or ignores it.
    pub fn is_deprecated(&self) -> bool {
        self.deprecated.is_some() || self.kind == Kind::Ignored
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// The default under an imitated version.
    pub fn default_for(&self, compat: Compat) -> &'static str {
        match self.default_before {
            Some((from, default)) if compat < from => default,
            _ => self.default,
        }
    }

    /// The dotted path in etcd's YAML file, extensions included.
    pub fn yaml_path(&self) -> Option<&'static str> {
        match self.yaml {
            YamlKey::Same | YamlKey::Ours => Some(self.name),
            YamlKey::At(path) => Some(path),
            YamlKey::None => None,
        }
    }

    /// Whether the option is set under its own name, not through a successor.
    pub fn is_current(&self) -> bool {
        self.successor == Successor::None && self.kind != Kind::Ignored
    }

    /// What etcd says, if anything, when the option is set to `value` under `compat`.
    pub fn deprecation(&self, compat: Compat, value: &str) -> Option<String> {
        let (since, text) = self.deprecated?;
        let successor = match self.successor {
            Successor::Option(name) | Successor::Gate(name) => name,
            _ => "",
        };
        let filled = text.replace("%N", self.name).replace("%S", successor);
        (compat >= since).then(|| filled.replace("%V", value).replace("%Q", &go::quote(value)))
    }
}

/// The option called `name`.
pub fn find(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|spec| spec.name == name)
}

/// The option behind an `ETCD_…` variable.
pub fn find_variable(variable: &str) -> Option<&'static OptionSpec> {
    let rest = variable.strip_prefix("ETCD_")?;
    if rest.chars().any(|c| c.is_ascii_lowercase() || c == '-') {
        return None;
    }
    find(&rest.to_ascii_lowercase().replace('_', "-"))
}

/// The option at a dotted path of etcd's YAML file; letter case does not count.
pub fn find_yaml(path: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|spec| spec.yaml_path().is_some_and(|own| own.eq_ignore_ascii_case(path)))
}

const V35: &str = "--%N is deprecated in 3.5 and will be decommissioned in 3.6.";
const V36: &str = "--%N is deprecated in v3.6 and will be decommissioned in v3.7. Use '--%S' instead.";
const V36_GATE: &str =
    "--%N is deprecated in v3.6 and will be decommissioned in v3.7. Use '--feature-gates=%S=true' instead.";
const OTHER_ENGINE: &str = "the storage engine has no such setting";
const OFF_ON: &[&str] = &["off", "readonly", "on"];
const V2_STAGES: &[&str] = &["not-yet", "write-only", "write-only-skip-check", "write-only-drop-data", "gone"];

const fn opt(group: Group, name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec::new(group, name, kind, default, help)
}

/// An `experimental-…` name of etcd 3.4 to 3.6 whose place an option took.
const fn promoted(
    name: &'static str,
    kind: Kind,
    since: u8,
    successor: &'static str,
    default: &'static str,
) -> OptionSpec {
    opt(Group::Old, name, kind, default, "Old name.")
        .since(since)
        .until(6)
        .deprecated(Compat::V3_6, V36)
        .succeeded(Successor::Option(successor))
}

/// An `experimental-…` name of etcd 3.4 to 3.6 whose place a feature gate took.
const fn gated(name: &'static str, since: u8, gate: &'static str, default: &'static str) -> OptionSpec {
    opt(Group::Old, name, Kind::Switch, default, "Old name of a feature gate.")
        .since(since)
        .until(6)
        .deprecated(Compat::V3_6, V36_GATE)
        .succeeded(Successor::Gate(gate))
        .example("true")
}

/// A name that etcd has ignored since its first versions.
const fn ignored(name: &'static str) -> OptionSpec {
    opt(Group::Old, name, Kind::Ignored, "", "Ignored, as in every etcd 3.").no_yaml()
}

/// Every option, in the order of `--help`.
pub const OPTIONS: &[OptionSpec] = &[
    // Where options come from.
    opt(Group::Sources, "config", Kind::Path, "", "TOML file, weaker than environment files, variables and flags.")
        .ours()
        .no_yaml()
        .example("/etc/quorate/quorate.toml"),
    opt(
        Group::Sources,
        "env-file",
        Kind::Path,
        "",
        "File of ETCD_* assignments in systemd's EnvironmentFile grammar; may be repeated, the later is the stronger. A leading - allows it to be missing.",
    )
    .ours()
    .no_yaml()
    .example("/etc/etcd/etcd.conf"),
    opt(
        Group::Sources,
        "config-file",
        Kind::Path,
        "",
        "etcd's YAML or JSON file. It stands alone: flags, variables and other files are ignored.",
    )
    .no_yaml()
    .example("/etc/etcd/etcd.conf.yml"),
    opt(
        Group::Sources,
        "compat-version",
        Kind::Select(&["3.5", "3.6", "3.7"]),
        "3.7",
        "etcd version that is reported and whose defaults and texts hold.",
    )
    .ours()
    .yaml_of_ours(),
    opt(Group::Sources, "version", Kind::Switch, "false", "Print the version and exit.").no_yaml(),
    // Member.
    opt(Group::Member, "name", Kind::Text, "default", "Name of this member, unique in its cluster.").example("etcd1"),
    opt(Group::Member, "data-dir", Kind::Path, "", "Data directory; ${name}.etcd when empty.").example("/var/lib/etcd"),
    opt(Group::Member, "wal-dir", Kind::Path, "", "Directory of the log, when it has one of its own.")
        .example("/var/lib/etcd-wal"),
    opt(Group::Member, "snapshot-count", Kind::Uint, "10000", "Applied entries between two raft snapshots.").live()
        .unit(Unit::Entries)
        .before(Compat::V3_6, "100000"),
    opt(Group::Member, "heartbeat-interval", Kind::Uint, "100", "Time between two heartbeats.").live().unit(Unit::Milliseconds),
    opt(Group::Member, "election-timeout", Kind::Uint, "1000", "Silence of the leader that starts an election.").live()
        .unit(Unit::Milliseconds),
    opt(
        Group::Member,
        "initial-election-tick-advance",
        Kind::Switch,
        "true",
        "Shorten the first election timeout after start.",
    ),
    opt(Group::Member, "listen-peer-urls", Kind::Urls, "http://localhost:2380", "URLs to listen on for members."),
    opt(
        Group::Member,
        "listen-client-urls",
        Kind::Urls,
        "http://localhost:2379",
        "URLs to listen on for clients: gRPC, and HTTP unless listen-client-http-urls is given.",
    ),
    opt(Group::Member, "listen-client-http-urls", Kind::Urls, "", "URLs to listen on for HTTP clients only.")
        .since(4)
        .example("http://localhost:2378"),
    opt(Group::Member, "max-snapshots", Kind::Uint, "5", "Snapshot files to keep, 0 for all.")
        .unit(Unit::Files)
        .until(7)
        .deprecated(Compat::V3_6, "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
    opt(
        Group::Member,
        "snapshot-schedule",
        Kind::Duration,
        "0s",
        "Time between two snapshot files that the member takes by itself, such as 6h; 0 for none.",
    )
    .ours()
    .yaml_of_ours()
    .live()
    .example("6h"),
    opt(
        Group::Member,
        "snapshot-dir",
        Kind::Path,
        "",
        "Directory of scheduled snapshots, best on another disk; snapshots in the data directory when empty.",
    )
    .ours()
    .yaml_of_ours()
    .example("/srv/backup/quorate"),
    opt(Group::Member, "snapshot-keep", Kind::Uint, "7", "Scheduled snapshots to keep, the newest; 0 for any number.")
        .ours()
        .yaml_of_ours()
        .live()
        .unit(Unit::Files),
    opt(
        Group::Member,
        "snapshot-keep-time",
        Kind::Duration,
        "0s",
        "Scheduled snapshots that are older go, but for the newest; 0 for any age.",
    )
    .ours()
    .yaml_of_ours()
    .live()
    .example("168h"),
    opt(Group::Member, "max-wals", Kind::Uint, "5", "Log files to keep, 0 for all.")
.no_effect("log files are removed as soon as no member needs them").unit(Unit::Files),
    opt(Group::Member, "memory-mlock", Kind::Switch, "false", "Lock database pages in memory.")
        .since(6)
        .no_effect("the database is not mapped into memory"),
    opt(Group::Member, "quota-backend-bytes", Kind::Int, "0", "Size that raises NOSPACE; 0 for 2 GiB, negative for none.").live()
        .unit(Unit::Bytes)
        .example("8589934592"),
    opt(
        Group::Member,
        "nospace-disarm",
        Kind::Select(&["auto", "manual"]),
        "auto",
        "auto: a member that is back under its quota lifts its NOSPACE alarm. manual: it stays until it is disarmed, as in etcd.",
    )
    .ours()
    .yaml_of_ours()
    .live()
    .example("manual"),
    opt(Group::Member, "backend-bbolt-freelist-type", Kind::Text, "map", "Kind of bbolt free list.").words(&["map", "array"])
        .since(5)
        .no_effect(OTHER_ENGINE),
    opt(Group::Member, "backend-batch-interval", Kind::Duration, "0s", "Longest time between two backend commits.")
        .since(4)
        .example("100ms")
        .no_effect("every batch of entries is one commit"),
    opt(Group::Member, "backend-batch-limit", Kind::Int, "0", "Most operations between two backend commits.")
        .since(4)
        .no_effect("every batch of entries is one commit"),
    opt(Group::Member, "max-txn-ops", Kind::Uint, "128", "Operations allowed in a transaction.").live(),
    opt(Group::Member, "max-request-bytes", Kind::Uint, "1572864", "Largest request of a client.").live().unit(Unit::Bytes),
    opt(Group::Member, "max-concurrent-streams", Kind::Uint32, "4294967295", "Streams of one client connection, 0 for any number.").live().since(4),
    opt(Group::Member, "grpc-keepalive-min-time", Kind::Duration, "5s", "Shortest time between two pings of a client."),
    opt(Group::Member, "grpc-keepalive-interval", Kind::Duration, "2h0m0s", "Time between two pings to a client, 0 for none."),
    opt(Group::Member, "grpc-keepalive-timeout", Kind::Duration, "20s", "How long a client may take to answer a ping, 0 for no pings."),
    opt(Group::Member, "socket-reuse-port", Kind::Switch, "false", "Set SO_REUSEPORT on listeners.")
.no_effect("listeners are bound without SO_REUSEPORT")
        .since(5)
        .yaml("socket-options.reuse-port"),
    opt(Group::Member, "socket-reuse-address", Kind::Switch, "false", "Set SO_REUSEADDR on listeners.")
        .since(5)
        .yaml("socket-options.reuse-address"),
    opt(Group::Member, "enable-grpc-gateway", Kind::Switch, "true", "Serve the JSON gateway.").since(4),
    opt(Group::Member, "raft-read-timeout", Kind::Duration, "5s", "Read deadline on connections between members.")
.no_effect("connections between members have fixed deadlines").since(5).yaml_of_ours(),
    opt(Group::Member, "raft-write-timeout", Kind::Duration, "5s", "Write deadline on connections between members.")
.no_effect("connections between members have fixed deadlines").since(5).yaml_of_ours(),
    opt(Group::Member, "feature-gates", Kind::Gates, "", "Switches of features that are not settled: Name=true|false,…")
        .since(6)
        .example("InitialCorruptCheck=true"),
    // Clustering.
    opt(
        Group::Clustering,
        "initial-advertise-peer-urls",
        Kind::Urls,
        "http://localhost:2380",
        "Peer URLs of this member, as the others reach it.",
    ),
    opt(
        Group::Clustering,
        "initial-cluster",
        Kind::Text,
        "default=http://localhost:2380",
        "Members of a new cluster: name=url,…; a name may be repeated.",
    )
    .example("etcd1=http://10.0.0.1:2380,etcd2=http://10.0.0.2:2380"),
    opt(
        Group::Clustering,
        "initial-cluster-state",
        Kind::Select(&["new", "existing"]),
        "new",
        "Found a cluster or join one; ignored once the member has data.",
    ),
    opt(Group::Clustering, "initial-cluster-token", Kind::Text, "etcd-cluster", "Keeps clusters apart: mixed into all IDs."),
    opt(
        Group::Clustering,
        "advertise-client-urls",
        Kind::Urls,
        "http://localhost:2379",
        "Client URLs of this member, as clients reach it.",
    ),
    opt(Group::Clustering, "discovery", Kind::Text, "", "URL of a token of the v2 discovery service.")
        .until(6)
        .example("https://discovery.example.com/TOKEN"),
    opt(Group::Clustering, "discovery-token", Kind::Text, "", "v3 discovery: the token.")
        .since(6)
        .yaml("discovery-config.token")
        .example("TOKEN"),
    opt(Group::Clustering, "discovery-endpoints", Kind::Words, "", "v3 discovery: endpoints of the cluster that is asked.")
        .since(6)
        .yaml("discovery-config.client.endpoints")
        .example("http://10.0.0.9:2379"),
    opt(Group::Clustering, "discovery-dial-timeout", Kind::Duration, "2s", "v3 discovery: time to connect.")
        .since(6)
        .yaml("discovery-config.client.dial-timeout"),
    opt(Group::Clustering, "discovery-request-timeout", Kind::Duration, "5s", "v3 discovery: time for one request.")
        .since(6)
        .yaml("discovery-config.client.request-timeout"),
    opt(Group::Clustering, "discovery-keepalive-time", Kind::Duration, "2s", "v3 discovery: time between pings.")
        .since(6)
        .yaml("discovery-config.client.keepalive-time"),
    opt(Group::Clustering, "discovery-keepalive-timeout", Kind::Duration, "6s", "v3 discovery: time for an answer to a ping.")
        .since(6)
        .yaml("discovery-config.client.keepalive-timeout"),
    opt(Group::Clustering, "discovery-insecure-transport", Kind::Switch, "true", "v3 discovery: connect without TLS.")
        .since(6)
        .yaml("discovery-config.client.secure.insecure-transport"),
    opt(
        Group::Clustering,
        "discovery-insecure-skip-tls-verify",
        Kind::Switch,
        "false",
        "v3 discovery: do not verify the server's certificate.",
    )
    .since(6)
    .yaml("discovery-config.client.secure.insecure-skip-tls-verify"),
    opt(Group::Clustering, "discovery-cert", Kind::Path, "", "v3 discovery: client certificate.")
        .since(6)
        .yaml("discovery-config.client.secure.cert")
        .example("/etc/etcd/pki/discovery.crt"),
    opt(Group::Clustering, "discovery-key", Kind::Path, "", "v3 discovery: key of the client certificate.")
        .since(6)
        .yaml("discovery-config.client.secure.key")
        .example("/etc/etcd/pki/discovery.key"),
    opt(Group::Clustering, "discovery-cacert", Kind::Path, "", "v3 discovery: CA of the server.")
        .since(6)
        .yaml("discovery-config.client.secure.cacert")
        .example("/etc/etcd/pki/ca.crt"),
    opt(Group::Clustering, "discovery-user", Kind::Text, "", "v3 discovery: user[:password].")
        .since(6)
        .yaml("discovery-config.client.auth.username")
        .example("root")
        .secret(),
    opt(Group::Clustering, "discovery-password", Kind::Text, "", "v3 discovery: the password.")
        .since(6)
        .yaml("discovery-config.client.auth.password")
        .example("SECRET")
        .secret(),
    opt(
        Group::Clustering,
        "discovery-fallback",
        Kind::Select(&["exit", "proxy"]),
        "exit",
        "What to do when discovery finds the cluster full. With --discovery the default is always 'proxy'.",
    )
    .before(Compat::V3_6, "proxy"),
    opt(Group::Clustering, "discovery-proxy", Kind::Text, "", "HTTP proxy on the way to the v2 discovery service.")
        .until(6)
        .example("http://proxy:3128"),
    opt(Group::Clustering, "discovery-srv", Kind::Text, "", "Domain whose SRV records list the members.")
        .example("example.com"),
    opt(Group::Clustering, "discovery-srv-name", Kind::Text, "", "Suffix of the SRV service name.").since(4).example("prod"),
    opt(
        Group::Clustering,
        "discovery-service",
        Kind::Switch,
        "false",
        "Serve the discovery service on the client port, too: /new for tokens of other clusters, and a page at /.",
    )
    .ours()
    .yaml_of_ours()
    .example("true"),
    opt(Group::Clustering, "strict-reconfig-check", Kind::Switch, "true", "Refuse membership changes that would lose quorum."),
    opt(Group::Clustering, "pre-vote", Kind::Switch, "true", "Ask before standing for election.").since(4),
    opt(
        Group::Clustering,
        "auto-compaction-retention",
        Kind::Text,
        "0",
        "History to keep: hours, a duration or revisions, by mode; 0 keeps all.",
    )
    .live()
    .example("1h"),
    opt(Group::Clustering, "auto-compaction-mode", Kind::Text, "periodic", "periodic or revision.").words(&["periodic", "revision"]).live(),
    opt(
        Group::Clustering,
        "v2-deprecation",
        Kind::Select(V2_STAGES),
        "write-only",
        "How far the v2 store is phased out in etcd.",
    )
    .since(5)
    .until(7)
    .before(Compat::V3_6, "not-yet")
    .no_effect("the v2 API stays under every value; --enable-v2=false switches it off")
    .deprecated(
        Compat::V3_6,
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
    ),
    // Security.
    opt(Group::Security, "cert-file", Kind::Path, "", "Certificate of the client listeners.")
        .yaml("client-transport-security.cert-file")
        .example("/etc/etcd/pki/server.crt"),
    opt(Group::Security, "key-file", Kind::Path, "", "Key of the client listeners.")
        .yaml("client-transport-security.key-file")
        .example("/etc/etcd/pki/server.key"),
    opt(Group::Security, "key-password-file", Kind::Path, "", "Passwords of encrypted keys of clients' listeners, one a line.")
        .ours()
        .yaml("client-transport-security.key-password-file")
        .example("/etc/etcd/pki/server.pass"),
    opt(Group::Security, "client-cert-auth", Kind::Switch, "false", "Demand client certificates.")
        .yaml("client-transport-security.client-cert-auth")
        .example("true"),
    opt(Group::Security, "client-cert-file", Kind::Path, "", "Certificate the server shows when it dials itself.")
        .since(5)
        .yaml("client-transport-security.client-cert-file")
        .no_effect("the gateway does not dial the member it is part of")
        .example("/etc/etcd/pki/client.crt"),
    opt(Group::Security, "client-key-file", Kind::Path, "", "Key of client-cert-file.")
        .since(5)
        .yaml("client-transport-security.client-key-file")
        .no_effect("the gateway does not dial the member it is part of")
        .example("/etc/etcd/pki/client.key"),
    opt(Group::Security, "client-crl-file", Kind::Path, "", "Revoked client certificates.")
        .yaml_of_ours()
        .example("/etc/etcd/pki/client.crl"),
    opt(Group::Security, "client-cert-allowed-hostname", Kind::Words, "", "Accepted names in client certificates.")
        .since(4)
        .yaml("client-transport-security.allowed-hostname")
        .example("client.example.com"),
    opt(Group::Security, "client-cert-allowed-cn", Kind::Words, "", "Accepted common names of clients.")
        .ours()
        .yaml("client-transport-security.allowed-cn")
        .example("etcd-client"),
    opt(Group::Security, "trusted-ca-file", Kind::Path, "", "CA of client certificates.")
        .yaml("client-transport-security.trusted-ca-file")
        .example("/etc/etcd/pki/ca.crt"),
    opt(Group::Security, "auto-tls", Kind::Switch, "false", "Make a certificate for the client listeners.")
        .yaml("client-transport-security.auto-tls")
        .example("true"),
    opt(Group::Security, "peer-cert-file", Kind::Path, "", "Certificate between members.")
        .yaml("peer-transport-security.cert-file")
        .example("/etc/etcd/pki/peer.crt"),
    opt(Group::Security, "peer-key-file", Kind::Path, "", "Key between members.")
        .yaml("peer-transport-security.key-file")
        .example("/etc/etcd/pki/peer.key"),
    opt(Group::Security, "peer-key-password-file", Kind::Path, "", "Passwords of encrypted keys between members, one a line.")
        .ours()
        .yaml("peer-transport-security.key-password-file")
        .example("/etc/etcd/pki/peer.pass"),
    opt(Group::Security, "peer-client-cert-auth", Kind::Switch, "false", "Demand certificates of members.")
        .yaml("peer-transport-security.client-cert-auth")
        .example("true"),
    opt(Group::Security, "peer-client-cert-file", Kind::Path, "", "Certificate shown when dialling a member.")
        .since(5)
        .yaml("peer-transport-security.client-cert-file")
        .example("/etc/etcd/pki/peer-client.crt"),
    opt(Group::Security, "peer-client-key-file", Kind::Path, "", "Key of peer-client-cert-file.")
        .since(5)
        .yaml("peer-transport-security.client-key-file")
        .example("/etc/etcd/pki/peer-client.key"),
    opt(Group::Security, "peer-trusted-ca-file", Kind::Path, "", "CA of members.")
        .yaml("peer-transport-security.trusted-ca-file")
        .example("/etc/etcd/pki/peer-ca.crt"),
    opt(Group::Security, "peer-cert-allowed-cn", Kind::Words, "", "Accepted common names of members.")
        .yaml("peer-transport-security.allowed-cn")
        .example("etcd-peer"),
    opt(Group::Security, "peer-cert-allowed-hostname", Kind::Words, "", "Accepted names in certificates of members.")
        .since(4)
        .yaml("peer-transport-security.allowed-hostname")
        .example("etcd1.example.com"),
    opt(Group::Security, "peer-auto-tls", Kind::Switch, "false", "Make a certificate for the peer listeners.")
        .yaml("peer-transport-security.auto-tls")
        .example("true"),
    opt(Group::Security, "peer-crl-file", Kind::Path, "", "Revoked certificates of members.")
        .yaml_of_ours()
        .example("/etc/etcd/pki/peer.crl"),
    opt(
        Group::Security,
        "peer-skip-client-san-verification",
        Kind::Switch,
        "false",
        "Do not compare names in a member's certificate with its address.",
    )
    .since(6)
    .yaml("peer-transport-security.skip-client-san-verification"),
    opt(Group::Security, "self-signed-cert-validity", Kind::Uint, "1", "Lifetime of certificates made by auto-tls.")
        .since(5)
        .unit(Unit::Years),
    opt(Group::Security, "cipher-suites", Kind::Words, "", "TLS 1.2 cipher suites; empty for the library's choice.")
        .example("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    opt(Group::Security, "tls-min-version", Kind::Text, "TLS1.2", "Lowest TLS version: TLS1.2, TLS1.3.").words(&["TLS1.2", "TLS1.3"])
        .since(4),
    opt(Group::Security, "tls-max-version", Kind::Text, "", "Highest TLS version: TLS1.2, TLS1.3; empty for the newest.").words(&["", "TLS1.2", "TLS1.3"])
        .since(4)
        .example("TLS1.3"),
    opt(Group::Security, "cors", Kind::Origins, "*", "Origins that browsers may come from; * for all.").live(),
    opt(Group::Security, "host-whitelist", Kind::WordSet, "*", "Accepted Host values on plain HTTP; * for all.")
        .since(4)
        .live(),
    // Auth.
    opt(Group::Auth, "auth-token", Kind::Text, "simple", "Kind of tokens: simple, or jwt with its options.")
        .example("jwt,pub-key=app.rsa.pub,priv-key=app.rsa,sign-method=RS512,ttl=10m"),
    opt(Group::Auth, "bcrypt-cost", Kind::Uint, "10", "Cost of password hashes, 4 to 31.").since(4),
    opt(Group::Auth, "auth-token-ttl", Kind::Uint, "300", "Lifetime of simple tokens.")
        .unit(Unit::Seconds),
    // Profiling and monitoring.
    opt(Group::Monitoring, "enable-pprof", Kind::Switch, "false", "Serve profiles under /debug/pprof/.")
.no_effect("there are no profiles to serve"),
    opt(Group::Monitoring, "metrics", Kind::Text, "basic", "basic, or extensive with gRPC histograms.").live().words(&["basic", "extensive"]),
    opt(Group::Monitoring, "listen-metrics-urls", Kind::Urls, "", "URLs that serve /metrics and /health only.")
        .example("http://127.0.0.1:2381"),
    // Logging.
    opt(Group::Logging, "logger", Kind::Text, "zap", "Only zap: structured records.").words(&["zap"]).since(4),
    opt(
        Group::Logging,
        "log-outputs",
        Kind::WordSet,
        "default",
        "Targets: default, stderr, stdout, systemd/journal or files, comma separated.",
    ).live()
    .since(4),
    opt(Group::Logging, "log-level", Kind::Text, "info", "debug, info, warn, error, panic or fatal.").words(&["debug", "info", "warn", "error", "panic", "fatal"]).since(4).live(),
    opt(Group::Logging, "log-format", Kind::Text, "json", "json or console.").words(&["json", "console"]).since(6),
    opt(
        Group::Logging,
        "enable-log-rotation",
        Kind::Switch,
        "false",
        "Set the one file in log-outputs aside when it is full, as FILE.1, FILE.2, and so on.",
    )
    .since(5),
    opt(
        Group::Logging,
        "log-rotation-config-json",
        Kind::Text,
        "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}",
        "When a log file is full (maxsize, in MB), and how long (maxage, in days), how many (maxbackups) and whether compressed (compress) those set aside are kept; 0 is no limit, of files it is 1000. Their names have numbers and no times, in whatever zone (localtime).",
    )
    .since(5),
    opt(
        Group::Logging,
        "audit-log",
        Kind::Path,
        "",
        "File that tells who asked what of which key, one JSON object a request; stdout or stderr where the log does not go there; none when empty.",
    )
    .ours()
    .yaml_of_ours()
    .example("/var/log/quorate/audit.log"),
    opt(
        Group::Logging,
        "audit-log-sample",
        Kind::Uint,
        "1000000",
        "Successful reads that the audit log tells of; writes, logins and failures always have a record.",
    )
    .ours()
    .yaml_of_ours()
    .unit(Unit::PerMillion)
    .example("1000"),
    opt(
        Group::Logging,
        "audit-log-rotate-size",
        Kind::Uint,
        "100",
        "Size from which on a file of the audit log is set aside as FILE.1, FILE.2, and so on; 0 for never.",
    )
    .ours()
    .yaml_of_ours()
    .unit(Unit::Megabytes),
    opt(Group::Logging, "audit-log-rotate-keep", Kind::Uint, "10", "Files of the audit log that were set aside to keep.")
        .ours()
        .yaml_of_ours()
        .unit(Unit::Files),
    opt(Group::Logging, "warning-unary-request-duration", Kind::Duration, "300ms", "Log unary requests slower than this.")
        .since(6)
        .live(),
    // Distributed tracing.
    opt(Group::Tracing, "enable-distributed-tracing", Kind::Switch, "false", "Export spans by OTLP.")
        .since(6)
        .example("true"),
    opt(Group::Tracing, "distributed-tracing-address", Kind::Text, "localhost:4317", "The collector.")
        .since(6),
    opt(Group::Tracing, "distributed-tracing-service-name", Kind::Text, "etcd", "Service name, one per cluster.")
        .since(6),
    opt(Group::Tracing, "distributed-tracing-instance-id", Kind::Text, "", "Instance ID, one per member.")
        .since(6)
        .example("etcd1"),
    opt(Group::Tracing, "distributed-tracing-sampling-rate", Kind::Int, "0", "Sampled spans, 0 to 1000000.")
        .since(6)
        .unit(Unit::PerMillion),
    // Features.
    opt(Group::Features, "corrupt-check-time", Kind::Duration, "0s", "Time between hash checks of all members, 0 for none.").live()
        .since(6)
        .example("4h"),
    opt(Group::Features, "compact-hash-check-time", Kind::Duration, "1m0s", "Time between checks of compaction hashes.").live()
        .since(6),
    opt(Group::Features, "compaction-batch-limit", Kind::Int, "0", "Revisions compacted at a time; 0 for 1000.")
        .since(6)
        .live()
        .example("1000"),
    opt(Group::Features, "compaction-sleep-interval", Kind::Duration, "0s", "Pause between compaction batches; 0 for 10ms.")
        .since(6)
        .live()
        .example("10ms"),
    opt(Group::Features, "watch-progress-notify-interval", Kind::Duration, "0s", "Time between progress messages of a watch; 0 for 10m.")
        .since(6)
        .example("10m0s"),
    opt(Group::Features, "warning-apply-duration", Kind::Duration, "100ms", "Log entries that take longer to apply.")
        .since(6)
        .live(),
    opt(
        Group::Features,
        "bootstrap-defrag-threshold-megabytes",
        Kind::Uint,
        "0",
        "Defragment at start when this much would be freed.",
    )
    .since(6)
    .unit(Unit::Megabytes)
    .no_effect("the database needs no defragmentation"),
    opt(Group::Features, "max-learners", Kind::Int, "1", "Learners allowed in the membership.").since(6),
    opt(Group::Features, "downgrade-check-time", Kind::Duration, "5s", "Time between checks of a running downgrade.")
        .since(6),
    opt(Group::Features, "snapshot-catchup-entries", Kind::Uint, "5000", "Log entries kept for slow followers.").live()
        .since(6)
        .unit(Unit::Entries),
    // Unsafe.
    opt(Group::Unsafe, "force-new-cluster", Kind::Switch, "false", "Restart from existing data as a cluster of one.")
        .example("true"),
    opt(Group::Unsafe, "unsafe-no-fsync", Kind::Switch, "false", "Never sync to disk. Loses data.").since(4),
    // Names of etcd 3.4 to 3.6 that have a successor.
    promoted("experimental-snapshot-catchup-entries", Kind::Uint, 5, "snapshot-catchup-entries", "5000")
        .yaml("experimental-snapshot-catch-up-entries"),
    promoted(
        "experimental-peer-skip-client-san-verification",
        Kind::Switch,
        3,
        "peer-skip-client-san-verification",
        "false",
    ),
    promoted("experimental-corrupt-check-time", Kind::Duration, 3, "corrupt-check-time", "0s"),
    promoted("experimental-compact-hash-check-time", Kind::Duration, 5, "compact-hash-check-time", "1m0s"),
    promoted("experimental-compaction-batch-limit", Kind::Int, 4, "compaction-batch-limit", "0"),
    promoted("experimental-compaction-sleep-interval", Kind::Duration, 5, "compaction-sleep-interval", "0s"),
    promoted("experimental-watch-progress-notify-interval", Kind::Duration, 4, "watch-progress-notify-interval", "0s"),
    promoted("experimental-warning-apply-duration", Kind::Duration, 4, "warning-apply-duration", "100ms"),
    promoted("experimental-warning-unary-request-duration", Kind::Duration, 6, "warning-unary-request-duration", "0s"),
    promoted(
        "experimental-bootstrap-defrag-threshold-megabytes",
        Kind::Uint,
        5,
        "bootstrap-defrag-threshold-megabytes",
        "0",
    ),
    promoted("experimental-memory-mlock", Kind::Switch, 5, "memory-mlock", "false"),
    promoted("experimental-max-learners", Kind::Int, 5, "max-learners", "1"),
    promoted("experimental-downgrade-check-time", Kind::Duration, 5, "downgrade-check-time", "5s"),
    promoted("experimental-enable-distributed-tracing", Kind::Switch, 5, "enable-distributed-tracing", "false"),
    promoted(
        "experimental-distributed-tracing-address",
        Kind::Text,
        5,
        "distributed-tracing-address",
        "localhost:4317",
    ),
    promoted(
        "experimental-distributed-tracing-service-name",
        Kind::Text,
        5,
        "distributed-tracing-service-name",
        "etcd",
    ),
    promoted("experimental-distributed-tracing-instance-id", Kind::Text, 5, "distributed-tracing-instance-id", "").example("etcd1"),
    promoted("experimental-distributed-tracing-sampling-rate", Kind::Int, 5, "distributed-tracing-sampling-rate", "0"),
    gated("experimental-initial-corrupt-check", 3, "InitialCorruptCheck", "false"),
    gated("experimental-compact-hash-check-enabled", 5, "CompactHashCheck", "false"),
    gated("experimental-stop-grpc-service-on-defrag", 5, "StopGRPCServiceOnDefrag", "false"),
    gated("experimental-txn-mode-write-with-shared-buffer", 5, "TxnModeWriteWithSharedBuffer", "true"),
    gated("experimental-enable-lease-checkpoint", 4, "LeaseCheckpoint", "false"),
    gated("experimental-enable-lease-checkpoint-persist", 4, "LeaseCheckpointPersist", "false"),
    opt(Group::Old, "experimental-backend-bbolt-freelist-type", Kind::Text, "map", "Old name.")
        .since(4)
        .until(4)
        .deprecated(Compat::V3_5, "--%N is gone since 3.5. Use '--%S' instead.")
        .succeeded(Successor::Option("backend-bbolt-freelist-type")),
    opt(Group::Old, "experimental-enable-v2v3", Kind::Text, "", "Serve the v2 API over v3 keys with this prefix.")
        .until(5)
        .deprecated(Compat::V3_5, V35)
        .no_effect("the v2 API has a store of its own, which loses nothing")
        .example("/v2"),
    // Names of etcd 3.3 to 3.5.
    opt(Group::Old, "ca-file", Kind::Path, "", "Old name of trusted-ca-file together with client-cert-auth.")
        .until(3)
        .yaml("client-transport-security.ca-file")
        .deprecated(Compat::V3_5, "--%N is gone since 3.4. Use '--trusted-ca-file' and '--client-cert-auth' instead.")
        .succeeded(Successor::CaFile(""))
        .example("/etc/etcd/pki/ca.crt"),
    opt(Group::Old, "peer-ca-file", Kind::Path, "", "Old name of peer-trusted-ca-file together with peer-client-cert-auth.")
        .until(3)
        .yaml("peer-transport-security.ca-file")
        .deprecated(
            Compat::V3_5,
            "--%N is gone since 3.4. Use '--peer-trusted-ca-file' and '--peer-client-cert-auth' instead.",
        )
        .succeeded(Successor::CaFile("peer-"))
        .example("/etc/etcd/pki/peer-ca.crt"),
    opt(Group::Old, "debug", Kind::Switch, "false", "Old name of log-level=debug.")
        .until(4)
        .deprecated(Compat::V3_5, "[WARNING] Deprecated '--debug' flag is set to %V (use '--log-level=debug' instead")
        .succeeded(Successor::DebugLevel),
    opt(Group::Old, "log-output", Kind::WordSet, "default", "Old name of log-outputs.")
        .until(4)
        .deprecated(Compat::V3_5, "[WARNING] Deprecated '--log-output' flag is set to %Q")
        .succeeded(Successor::Option("log-outputs")),
    opt(Group::Old, "log-package-levels", Kind::Text, "", "Levels per package.")
        .until(4)
        .deprecated(Compat::V3_5, "[WARNING] Deprecated '--log-package-levels=%V' flag is set; use '--logger=zap' flag instead")
        .no_effect("one level holds for the whole program")
        .example("etcdserver=WARNING"),
    opt(Group::Old, "enable-v2", Kind::Switch, "true", "Serve the v2 API.")
        .until(5)
        .deprecated(Compat::V3_5, V35),
    opt(Group::Old, "proxy", Kind::Select(OFF_ON), "off", "Run as a v2 HTTP proxy.")
        .until(5)
        .deprecated(Compat::V3_5, V35),
    opt(Group::Old, "proxy-failure-wait", Kind::Uint, "5000", "v2 proxy: how long a failed member is left alone.")
        .until(5)
        .unit(Unit::Milliseconds)
        .deprecated(Compat::V3_5, V35),
    opt(Group::Old, "proxy-refresh-interval", Kind::Uint, "30000", "v2 proxy: time between two looks at the membership.")
        .until(5)
        .unit(Unit::Milliseconds)
        .deprecated(Compat::V3_5, V35),
    opt(Group::Old, "proxy-dial-timeout", Kind::Uint, "1000", "v2 proxy: time to connect to a member.")
        .until(5)
        .unit(Unit::Milliseconds)
        .deprecated(Compat::V3_5, V35),
    opt(Group::Old, "proxy-write-timeout", Kind::Uint, "5000", "v2 proxy: time for a write to a member.")
        .until(5)
        .unit(Unit::Milliseconds)
        .deprecated(Compat::V3_5, V35),
    opt(Group::Old, "proxy-read-timeout", Kind::Uint, "0", "v2 proxy: time for a read from a member, 0 for no limit.")
        .until(5)
        .unit(Unit::Milliseconds)
        .deprecated(Compat::V3_5, V35),
    opt(
        Group::Old,
        "next-cluster-version-compatible",
        Kind::Switch,
        "false",
        "etcd 3.4: read data that a failed upgrade to 3.5 left.",
    )
    .since(4)
    .until(4)
    .no_effect("data of every imitated version is read anyway"),
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Value;

    /// Flags of etcd 3.3 to 3.8, one per line.
    const ETCD_FLAGS: &str = include_str!("../../tests/config/etcd_flags.txt");

    fn unique(texts: impl Iterator<Item = String>) {
        let mut seen = BTreeSet::new();
        for text in texts {
            assert!(seen.insert(text.to_ascii_lowercase()), "{text} twice");
        }
    }

    #[test]
    fn every_option_of_etcd_is_in_the_table() {
        let missing: Vec<_> = ETCD_FLAGS.lines().filter(|name| find(name).is_none()).collect();
        assert_eq!(missing, Vec::<&str>::new());
    }

    #[test]
    fn names_variables_and_keys_are_unique() {
        unique(OPTIONS.iter().map(|spec| spec.name.to_owned()));
        unique(OPTIONS.iter().map(OptionSpec::variable));
        unique(OPTIONS.iter().filter_map(|spec| spec.yaml_path().map(str::to_owned)));
    }

    #[test]
    fn every_name_is_found_by_flag_variable_and_key() {
        for spec in OPTIONS {
            assert_eq!(find(spec.name), Some(spec));
            let by_variable = find_variable(&spec.variable());
            assert_eq!(by_variable, Some(spec), "{}", spec.variable());
            assert!(spec.yaml_path().is_none_or(|path| find_yaml(&path.to_ascii_uppercase()) == Some(spec)));
        }
    }

    #[test]
    fn every_default_and_every_example_is_allowed() {
        for spec in OPTIONS {
            for compat in Compat::ALL {
                assert!(Value::parse(spec.kind, spec.default_for(compat)).is_ok(), "{}", spec.name);
            }
            assert!(Value::parse(spec.kind, spec.example).is_ok(), "{}", spec.name);
            assert!(!spec.example.is_empty() || spec.kind == Kind::Ignored, "{} has no example", spec.name);
        }
    }

    #[test]
    fn successors_exist_and_read_the_same_kind_of_value() {
        for spec in OPTIONS {
            match spec.successor {
                Successor::Option(name) => {
                    let new = find(name).expect("in the table");
                    assert!(new.is_current() && new.kind == spec.kind, "{} -> {name}", spec.name);
                }
                Successor::Gate(gate) => assert!(crate::config::gates::find(gate).is_some(), "{gate}"),
                Successor::None | Successor::CaFile(_) | Successor::DebugLevel => {}
            }
        }
    }

    #[test]
    fn old_names_tell_what_took_their_place() {
        let text = |name: &str, compat, value| find(name).expect("in the table").deprecation(compat, value);
        let told = "--experimental-corrupt-check-time is deprecated in v3.6 and will be decommissioned in v3.7. Use \
                    '--corrupt-check-time' instead.";
        assert_eq!(text("experimental-corrupt-check-time", Compat::V3_6, "1s").as_deref(), Some(told));
        assert_eq!(text("experimental-corrupt-check-time", Compat::V3_5, "1s"), None);
        let told = "--proxy is deprecated in 3.5 and will be decommissioned in 3.6.";
        assert_eq!(text("proxy", Compat::V3_7, "off").as_deref(), Some(told));
        for spec in OPTIONS.iter().filter(|spec| !spec.is_current() && spec.kind != Kind::Ignored) {
            assert!(spec.deprecated.is_some(), "{} says nothing", spec.name);
        }
    }

    #[test]
    fn lower_case_names_are_no_variables() {
        assert_eq!(find_variable("ETCD_name"), None);
        assert_eq!(find_variable("NAME"), None);
    }
}
