//! The configurations of the field (`tests/config/field`) mean to us what they mean to the real etcd: it is started with
//! each, and what it says it took is held against `quorate config show`, field by field.
//!
//! etcd says so in one record of its log, "starting an etcd server", and in a few others around it, and is ended as soon
//! as they are there. It runs on a host of its own that has every address of the file, so that the file is what it is in
//! the field, but for directories, which become the test's own, and what would keep the records from being written.
//! What `config convert` makes of the file is given to etcd, too.

mod support;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::{Map, Value as Json, json};
use support::{
    corpus::configurations,
    hosts::{Disk, Host, Hosts},
    program::Program,
};
use tempfile::TempDir;

const FIELD: &str = "tests/config/field";
/// Longest wait for etcd to tell what it took, or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lines of its log that wait to be read.
const LINES: usize = 16;
/// The record that tells what etcd took.
const RECORD: &str = "starting an etcd server";
/// The record behind the last that is compared, where a member comes to serve clients by itself.
const SERVING: &str = "now serving peer/client/metrics";
/// Directories of the field; paths below them become paths below a temporary one.
const ROOTS: [&str; 5] = ["/bitnami/", "/data/", "/etc/", "/srv/", "/var/"];

/// What is changed in a file before anybody sees it: what it says, what it says instead, and why.
const CHANGED: [(&str, &str, &str, &str); 3] = [
    ("fedora_sections.env", "\"warn\"", "\"info\"", "etcd tells what it took at level info"),
    ("statefulset_3.6.env", "=console", "=json", "the record is read as JSON"),
    ("quorate_cluster.toml", "\"/var/log/quorate/a b.log\", ", "", "the record is read from standard error"),
];

/// The variables of a file whose lines are more than `NAME=VALUE` with a pair of quotes, as systemd hands them over.
const ODD_VARIABLES: (&str, [(&str, &str); 11]) = (
    "handwritten_oddities.env",
    [
        ("ETCD_NAME", "odd# the name"),
        ("ETCD_DATA_DIR", "/srv/etcd data"),
        ("ETCD_INITIAL_ADVERTISE_PEER_URLS", "http://10.9.9.1:2380"),
        ("ETCD_LISTEN_PEER_URLS", "http://10.9.9.1:2380"),
        ("ETCD_INITIAL_CLUSTER", "odd# the name=http://10.9.9.1:2380,second=http://10.9.9.2:2380"),
        ("ETCD_INITIAL_CLUSTER_TOKEN", "a \"quoted\" $token"),
        ("ETCD_LISTEN_CLIENT_URLS", "http://10.9.9.1:2379, http://127.0.0.1:2379"),
        ("ETCD_ADVERTISE_CLIENT_URLS", "http://10.9.9.1:2379"),
        ("ETCD_SNAPSHOT_COUNTER", "20000"),
        ("ETCD_HEARTBEAT_INTERVAL", "150"),
        ("ETCD_ELECTION_TIMEOUT", "0x5DC"),
    ],
);

/// Flags that etcd 3.7 refuses ("flag provided but not defined"), in the order in which it complains: they were removed
/// in 3.6 or 3.7, and we take them, so that the members of older clusters need no new command lines. What is left is
/// compared.
const REFUSED: [(&str, &[&str]); 5] = [
    ("guide_discovery.flags", &["discovery"]),
    ("kubeadm_3.5.flags", &["experimental-initial-corrupt-check", "experimental-watch-progress-notify-interval"]),
    ("kubeadm_join.flags", &["experimental-initial-corrupt-check", "experimental-watch-progress-notify-interval"]),
    ("openshift4.flags", &["experimental-initial-corrupt-check"]),
    ("rke1.flags", &["enable-v2"]),
];

/// Where we mean something else on purpose: file, field or record, and why. Of a file that was converted etcd takes what
/// we do, as it holds today's names.
const DIFFERENCES: [(&str, &str, &str); 7] = [
    ("guide_discovery.flags", "initial-cluster", "to be found by discovery, the flag of which etcd 3.7 refuses"),
    ("kubeadm_3.5.flags", "feature-gates", OLD_NAME),
    ("kubeadm_join.flags", "feature-gates", OLD_NAME),
    ("kubespray.env", "feature-gates", OLD_NAME),
    (
        "openshift3.env",
        "starting with peer TLS",
        "the name of before 3.4 (ETCD_PEER_CA_FILE), which etcd 3.7 passes over",
    ),
    ("openshift4.flags", "feature-gates", OLD_NAME),
    ("rke2.yml", "feature-gates", OLD_NAME),
];
/// The one that lasts.
const NO_LONGER_THERE: &str = "guide_discovery.flags";
const OLD_NAME: &str =
    "the name of before 3.6 (experimental-initial-corrupt-check), which etcd 3.7 refuses or passes over";

/// Fields of the record that nothing of ours stands against, and why.
const WITHOUT_COUNTERPART: [(&str, &str); 10] = [
    ("etcd-version", "of the program"),
    ("git-sha", "of the program"),
    ("go-version", "of the program"),
    ("go-os", "of the program"),
    ("go-arch", "of the program"),
    ("max-cpu-set", "of the machine"),
    ("max-cpu-available", "of the machine"),
    ("member-initialized", "of the data directory, which is empty"),
    ("initial-corrupt-check", "false whatever was set: since 3.6 the feature gate tells, which is compared"),
    ("local-address", "what the gate SetMemberLocalAddr infers; no file of the field opens it, and it is empty"),
];

/// Options that files of the field set and no record of etcd tells, and why that is so.
const UNTOLD: [(&[&str], &str); 3] = [
    (
        &[
            "discovery",
            "discovery-fallback",
            "enable-v2",
            "log-package-levels",
            "proxy",
            "proxy-dial-timeout",
            "proxy-failure-wait",
            "proxy-read-timeout",
            "proxy-refresh-interval",
            "proxy-write-timeout",
        ],
        "of what etcd 3.7 has not: the v2 API, its proxy and its discovery, levels of packages",
    ),
    (&["log-format", "log-level", "log-outputs", "logger"], "of the log, which is read where and how the file says"),
    (
        &[
            "auth-token",
            "client-transport-security/auto-tls",
            "compaction-batch-limit",
            "compaction-sleep-interval",
            "grpc-keepalive-interval",
            "grpc-keepalive-min-time",
            "grpc-keepalive-timeout",
            "listen-client-http-urls",
            "max-txn-ops",
            "metrics",
            "peer-transport-security/auto-tls",
            "self-signed-cert-validity",
            "strict-reconfig-check",
            "unsafe-no-fsync",
            "watch-progress-notify-interval",
        ],
        "etcd takes it and says nothing of it",
    ),
];

/// Fields that are lengths of time, written as Go writes them.
const TIMES: [&str; 11] = [
    "heartbeat-interval",
    "election-timeout",
    "corrupt-check-time-interval",
    "compact-check-time-interval",
    "auto-compaction-retention",
    "auto-compaction-interval",
    "discovery-dial-timeout",
    "discovery-request-timeout",
    "discovery-keepalive-time",
    "discovery-keepalive-timeout",
    "downgrade-check-interval",
];

/// What we say of something, from all that we say.
type Ours<T> = fn(&Own) -> T;

/// Every other field of the record, and what we say of it.
const FIELDS: [(&str, Ours<Json>); 48] = [
    ("name", |own| own.of("name")),
    ("data-dir", |own| own.of("data-dir")),
    ("wal-dir", |own| own.of("wal-dir")),
    ("wal-dir-dedicated", |own| own.of("wal-dir")),
    ("member-dir", |own| Path::new(&own.text("data-dir")).join("member").to_str().into()),
    ("force-new-cluster", |own| own.of("force-new-cluster")),
    ("heartbeat-interval", |own| own.milliseconds("heartbeat-interval", 1)),
    ("election-timeout", |own| own.milliseconds("election-timeout", own.number("heartbeat-interval"))),
    ("initial-election-tick-advance", |own| own.of("initial-election-tick-advance")),
    ("snapshot-count", |own| own.of("snapshot-count")),
    ("max-wals", |own| own.of("max-wals")),
    ("max-snapshots", |own| own.of("max-snapshots")),
    ("snapshot-catchup-entries", |own| own.of("snapshot-catchup-entries")),
    ("initial-advertise-peer-urls", |own| own.list("initial-advertise-peer-urls")),
    ("listen-peer-urls", |own| own.list("listen-peer-urls")),
    ("advertise-client-urls", |own| own.list("advertise-client-urls")),
    ("listen-client-urls", |own| own.list("listen-client-urls")),
    ("listen-metrics-urls", |own| own.list("listen-metrics-urls")),
    ("cors", |own| own.list("cors")),
    ("host-whitelist", |own| own.list("host-whitelist")),
    ("initial-cluster", |own| own.of("initial-cluster")),
    ("initial-cluster-state", |own| own.of("initial-cluster-state")),
    ("initial-cluster-token", |own| own.of("initial-cluster-token")),
    ("quota-backend-bytes", Own::quota),
    ("max-request-bytes", |own| own.of("max-request-bytes")),
    ("max-concurrent-streams", |own| own.of("max-concurrent-streams")),
    ("pre-vote", |own| own.of("pre-vote")),
    ("feature-gates", |own| own.of("feature-gates")),
    ("corrupt-check-time-interval", |own| own.of("corrupt-check-time")),
    ("compact-check-time-interval", |own| own.of("compact-hash-check-time")),
    ("auto-compaction-mode", |own| own.of("auto-compaction-mode")),
    ("auto-compaction-retention", Own::retention),
    ("auto-compaction-interval", Own::retention),
    ("discovery-token", |own| own.of("discovery-config/token")),
    ("discovery-endpoints", |own| own.joined("discovery-config/client/endpoints")),
    ("discovery-dial-timeout", |own| own.of("discovery-config/client/dial-timeout")),
    ("discovery-request-timeout", |own| own.of("discovery-config/client/request-timeout")),
    ("discovery-keepalive-time", |own| own.of("discovery-config/client/keepalive-time")),
    ("discovery-keepalive-timeout", |own| own.of("discovery-config/client/keepalive-timeout")),
    ("discovery-insecure-transport", |own| own.of("discovery-config/client/secure/insecure-transport")),
    ("discovery-insecure-skip-tls-verify", |own| own.of("discovery-config/client/secure/insecure-skip-tls-verify")),
    ("discovery-cert", |own| own.of("discovery-config/client/secure/cert")),
    ("discovery-key", |own| own.of("discovery-config/client/secure/key")),
    ("discovery-cacert", |own| own.of("discovery-config/client/secure/cacert")),
    ("discovery-user", |own| own.of("discovery-config/client/auth/username")),
    ("downgrade-check-interval", |own| own.of("downgrade-check-time")),
    ("max-learners", |own| own.of("max-learners")),
    ("v2-deprecation", |own| own.of("v2-deprecation")),
];

/// Records that are there only where something is set, and what we say of their fields.
const MORE: [(&str, Ours<Option<Json>>); 4] = [
    ("configuring socket options", Own::sockets),
    ("starting with peer TLS", |own| own.tls("peer-transport-security", "peer-crl-file")),
    ("starting with client TLS", |own| own.tls("client-transport-security", "client-crl-file")),
    ("pprof is enabled", |own| own.is("enable-pprof").then(|| json!({"path": "/debug/pprof"}))),
];
/// The quota of etcd where none is set, in bytes.
const QUOTA_DEFAULT: i64 = 2 << 30;

/// What `config show` says.
struct Own {
    shown: Json,
    /// What was looked at.
    seen: RefCell<BTreeSet<String>>,
}

impl Own {
    /// The value of an option, `/` between the keys that lead to it.
    fn of(&self, path: &str) -> Json {
        let value = self.value(path).unwrap_or_else(|| panic!("config show has {path}: {}", self.shown));
        value.clone()
    }

    fn value(&self, path: &str) -> Option<&Json> {
        self.seen.borrow_mut().insert(path.to_owned());
        self.shown.pointer(&format!("/{path}"))
    }

    fn text(&self, path: &str) -> String {
        self.of(path).as_str().expect("text").to_owned()
    }

    fn number(&self, path: &str) -> i64 {
        self.of(path).as_i64().expect("a number")
    }

    /// A list that is shown as text, and not at all if it is empty.
    fn list(&self, path: &str) -> Json {
        let text = self.value(path).map_or("", |text| text.as_str().expect("text"));
        text.split(',').filter(|part| !part.is_empty()).collect()
    }

    fn is(&self, path: &str) -> bool {
        self.of(path).as_bool().expect("true or false")
    }

    fn joined(&self, path: &str) -> Json {
        let list = self.of(path);
        let parts: Vec<&str> = list.as_array().expect("a list").iter().filter_map(Json::as_str).collect();
        parts.join(",").into()
    }

    /// Nanoseconds from milliseconds, of which whole multiples of `step` count.
    fn milliseconds(&self, path: &str, step: i64) -> Json {
        (self.number(path) / step * step * 1_000_000).into()
    }

    fn quota(&self) -> Json {
        let bytes = self.number("quota-backend-bytes");
        if bytes == 0 { QUOTA_DEFAULT } else { bytes }.into()
    }

    fn sockets(&self) -> Option<Json> {
        let [reuse_address, reuse_port] =
            ["reuse-address", "reuse-port"].map(|name| self.is(&format!("socket-options/{name}")));
        (reuse_address || reuse_port).then(|| json!({"reuse-address": reuse_address, "reuse-port": reuse_port}))
    }

    /// What etcd prints of one side's certificates, if it has any.
    fn tls(&self, side: &str, crl: &str) -> Option<Json> {
        let text = |name: &str| self.text(&format!("{side}/{name}"));
        let [cert, key] = ["cert-file", "key-file"].map(text);
        if cert.is_empty() && key.is_empty() {
            return None;
        }
        let [client_cert, client_key, ca] = ["client-cert-file", "client-key-file", "trusted-ca-file"].map(text);
        let auth = self.is(&format!("{side}/client-cert-auth"));
        let info = format!(
            "cert = {cert}, key = {key}, client-cert={client_cert}, client-key={client_key}, trusted-ca = {ca}, \
             client-cert-auth = {auth}, crl-file = {}",
            self.text(crl)
        );
        Some(json!({"tls-info": info, "cipher-suites": self.of("cipher-suites")}))
    }

    /// Whether etcd, told the same, comes to serve clients without other members.
    fn founds_alone(&self) -> bool {
        self.text("initial-cluster-state") == "new" && !self.text("initial-cluster").contains(',')
    }

    /// A number of hours, a length of time, or a number of revisions, which etcd keeps as nanoseconds.
    fn retention(&self) -> Json {
        let retention = self.text("auto-compaction-retention");
        let number = retention.parse::<i64>();
        match (self.text("auto-compaction-mode").as_str(), number) {
            ("revision", Ok(revisions)) => revisions.into(),
            (_, Ok(hours)) => (hours * 3_600_000_000_000).into(),
            (_, Err(_)) => nanoseconds(&retention).into(),
        }
    }
}

/// A length of time as Go writes it, like `1h30m0s` or `1.5µs`.
fn nanoseconds(text: &str) -> i64 {
    const UNITS: [(&str, f64); 7] =
        [("h", 3.6e12), ("ms", 1e6), ("m", 6e10), ("µs", 1e3), ("us", 1e3), ("ns", 1.0), ("s", 1e9)];
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, unit) = rest.split_at(digits);
        let found = UNITS.into_iter().find(|(name, _)| unit.starts_with(name));
        let (name, factor) = found.unwrap_or_else(|| panic!("{text} is no length of time"));
        sum += number.parse::<f64>().unwrap_or_else(|_| panic!("{text} is no length of time")) * factor;
        rest = unit.strip_prefix(name).unwrap_or_default();
    }
    #[expect(clippy::cast_possible_truncation, reason = "a configured length of time is far below 2^53 ns")]
    let whole = sum.round() as i64;
    whole
}

/// How a configuration is given.
#[derive(Debug)]
enum Given {
    Variables(Vec<(String, String)>),
    Flags(Vec<String>),
    /// etcd's own file.
    File(PathBuf),
    /// A file of any form, which our commands take.
    AnyFile(PathBuf),
}

impl Given {
    fn to(&self, command: &mut Command) {
        match self {
            Self::Variables(variables) => command.envs(variables.iter().map(|(name, value)| (name, value))),
            Self::Flags(flags) => command.args(flags),
            Self::File(path) => command.arg("--config-file").arg(path),
            Self::AnyFile(path) => command.arg(path),
        };
    }
}

/// Records of a log by their messages, without what every record has.
type Records = BTreeMap<String, Map<String, Json>>;

/// What becomes of an etcd.
enum Answer {
    Took(Records),
    /// It ended, with what it had printed.
    Ended(String),
}

/// The host where everything runs, and the files that are there.
struct Bench {
    hosts: Hosts,
    place: TempDir,
    /// Certificate and key, which etcd has made.
    pair: (Vec<u8>, Vec<u8>),
    addresses: BTreeSet<String>,
}

impl Bench {
    fn new() -> Self {
        let hosts = Hosts::new(1, Disk::Plain);
        hosts.host(0).run("ip route add default via 10.5.12.1");
        let place = tempfile::tempdir().expect("a directory");
        let mut bench = Self { hosts, place, pair: (Vec::new(), Vec::new()), addresses: BTreeSet::new() };
        bench.pair = bench.certificate();
        bench
    }

    /// What stands for `/`.
    fn root(&self) -> PathBuf {
        self.place.path().join("root")
    }

    fn host(&self) -> &Host {
        self.hosts.host(0)
    }

    /// A command on the host, in an empty directory, with nothing in its environment.
    fn command(&self, program: &Program) -> Command {
        let directory = self.place.path().join("work");
        drop(fs::remove_dir_all(&directory));
        fs::create_dir_all(&directory).expect("a directory");
        // The way to the host ends in its root.
        let mut command = self.host().command(Path::new("env"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg("--chdir").arg(directory).arg(&program.path);
        command
    }

    /// What etcd says until `last` is there.
    fn etcd(&self, given: &Given, last: &str) -> Answer {
        let mut command = self.command(&Program::etcd());
        given.to(&mut command);
        let mut etcd = Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("setpriv runs"));
        let said = BufReader::new(etcd.0.stderr.take().expect("it is piped"));
        let (to, lines) = mpsc::sync_channel(LINES);
        thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        let (mut told, mut records) = (Vec::new(), Records::new());
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    if let Ok(mut record) = serde_json::from_str::<Map<String, Json>>(&line) {
                        let message = record.get("msg").and_then(Json::as_str).unwrap_or_default().to_owned();
                        record.retain(|name, _| !["level", "ts", "caller", "logger", "msg"].contains(&name.as_str()));
                        records.insert(message, record);
                    }
                    told.push(line);
                    if records.contains_key(last) {
                        return Answer::Took(records);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Answer::Ended(told.join("\n")),
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("etcd neither starts nor ends:\n{}", told.join("\n")),
            }
        }
    }

    /// Certificate and key that etcd makes for itself.
    fn certificate(&self) -> (Vec<u8>, Vec<u8>) {
        let data = self.place.path().join("self-signed");
        let flag = |name: &str, value: &str| format!("--{name}={value}");
        let url = "https://127.0.0.1:2379";
        let flags = vec![
            flag("data-dir", data.to_str().expect("a plain name")),
            flag("auto-tls", "true"),
            flag("listen-client-urls", url),
            flag("advertise-client-urls", url),
        ];
        if let Answer::Ended(said) = self.etcd(&Given::Flags(flags), RECORD) {
            panic!("etcd makes no certificate:\n{said}");
        }
        let read = |name: &str| fs::read(data.join("fixtures/client").join(name)).expect("etcd has written it");
        (read("cert.pem"), read("key.pem"))
    }

    /// Writes a file of the field as this host has it.
    fn copy(&mut self, path: &Path) -> PathBuf {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let mut text = fs::read_to_string(path).expect("read");
        for (_, old, new, _) in CHANGED.iter().filter(|(file, ..)| *file == name) {
            assert!(text.contains(old), "{name} says {old}");
            text = text.replace(old, new);
        }
        // What the file before has left there is not this one's.
        drop(fs::remove_dir_all(self.root()));
        let own = self.place.path().join(name);
        fs::write(&own, self.moved(&text)).expect("written");
        for address in addresses(&text) {
            if self.addresses.insert(address.clone()) {
                self.host().run(&format!("ip addr show to {address} | grep -q . || ip addr add {address}/32 dev lo"));
            }
        }
        own
    }

    /// `text` with the directories of the field below a temporary one, where the certificates are that it names.
    fn moved(&self, text: &str) -> String {
        let root = self.root();
        let mut moved = String::new();
        for (at, letter) in text.char_indices() {
            let (before, path) = text.split_at(at);
            let is_first = before.chars().next_back().is_none_or(|c| matches!(c, '=' | '"' | '\'' | ' ' | '\n'));
            if is_first && ROOTS.iter().any(|root| path.starts_with(root)) {
                moved.push_str(root.to_str().expect("a plain name"));
                let end = path.find(['"', '\'', ' ', ',', '\n']).unwrap_or(path.len());
                self.write_certificate(&root, path.get(..end).unwrap_or_default());
            }
            moved.push(letter);
        }
        moved
    }

    fn write_certificate(&self, root: &Path, path: &str) {
        let own = root.join(path.trim_start_matches('/'));
        let (certificate, key) = &self.pair;
        let bytes = match own.extension().and_then(|extension| extension.to_str()) {
            Some("key") => key,
            Some("pem") if path.ends_with("-key.pem") => key,
            Some("crt" | "pem") => certificate,
            _ => return,
        };
        fs::create_dir_all(own.parent().expect("it is below the root")).expect("a directory");
        fs::write(own, bytes).expect("written");
    }

    fn given(&self, path: &Path) -> Given {
        let text = fs::read_to_string(path).expect("read");
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("env") if path.ends_with(ODD_VARIABLES.0) => {
                let pair = |(name, value): (&str, &str)| (name.to_owned(), self.moved(value));
                Given::Variables(ODD_VARIABLES.1.into_iter().map(pair).collect())
            }
            Some("env") => Given::Variables(variables(&text)),
            Some("flags") => Given::Flags(flags(&text)),
            // etcd reads no TOML: what becomes of it in another form.
            Some("toml") => {
                let yaml = path.with_extension("converted.yml");
                fs::write(&yaml, self.quorate(&["convert", "--to=yaml"], &Given::AnyFile(path.to_owned())))
                    .expect("written");
                Given::File(yaml)
            }
            _ => Given::File(path.to_owned()),
        }
    }

    /// What our daemon prints about a configuration.
    fn quorate(&self, words: &[&str], given: &Given) -> String {
        self.try_quorate(words, given).unwrap_or_else(|said| panic!("{words:?} {given:?}: {said}"))
    }

    /// The same, or what it prints when it fails.
    fn try_quorate(&self, words: &[&str], given: &Given) -> Result<String, String> {
        let program = Program::new("quorate", env!("CARGO_BIN_EXE_quorate"));
        let mut command = self.command(&program);
        command.arg("config").args(words);
        given.to(&mut command);
        let output = command.output().expect("setpriv runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// A file in another form, as etcd is given that. Forms that cannot hold all that it says are left out.
    fn converted(&self, file: &Given, form: &str) -> Option<Given> {
        let text = match self.try_quorate(&["convert", &format!("--to={form}")], file) {
            Ok(text) => text,
            Err(said) if said.trim_end().ends_with("choose another form") => return None,
            Err(said) => panic!("{file:?} as {form}: {said}"),
        };
        let path = self.place.path().join("converted");
        fs::write(&path, &text).expect("written");
        Some(match form {
            "env" => {
                let said = self.shell("set -a; . \"$0\"; exec env -0", &path);
                let pairs = said.into_iter().filter_map(|line| Some(owned(line.split_once('=')?)));
                Given::Variables(pairs.filter(|(name, _)| name.starts_with("ETCD_")).collect())
            }
            "flags" => {
                Given::Flags(self.shell(
                    "eval \"set -- $(tr '\\n' ' ' <\"$0\")\"; for word; do printf '%s\\0' \"$word\"; done",
                    &path,
                ))
            }
            _ => Given::File(path),
        })
    }

    /// The words that a script prints about a file, each with a zero behind it.
    fn shell(&self, script: &str, path: &Path) -> Vec<String> {
        let output =
            self.command(&Program::new("sh", "sh")).args(["-euc", script]).arg(path).output().expect("sh runs");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    /// Forgets the data of a member.
    fn forget(&self, own: &Own) {
        for directory in [own.text("data-dir"), own.text("wal-dir")].iter().filter(|path| path.starts_with('/')) {
            assert!(Path::new(directory).starts_with(self.root()), "{directory} is not the test's own");
            drop(fs::remove_dir_all(directory));
        }
    }

    fn show(&self, given: &Given, words: &[&str]) -> Json {
        let words = [&["show", "--format=json"], words].concat();
        serde_json::from_str(&self.quorate(&words, given)).expect("JSON")
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The variables of a plain environment file.
fn variables(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';', '['])) {
        let Some((name, value)) = line.split_once('=') else { continue };
        let quoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        found.push((name.to_owned(), quoted.unwrap_or(value).to_owned()));
    }
    found
}

/// The flags of a command line, of a unit's `ExecStart=`, or of a manifest's list.
fn flags(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(str::split_whitespace).filter(|word| !matches!(*word, "-" | "\\"));
    let words = words.map(|word| word.replace('"', ""));
    // What stands before the first is the program and what runs it; `nice` has a flag of one letter.
    words.skip_while(|word| !word.starts_with("--")).collect()
}

/// The flags without `name` and its value.
fn without(flags: Vec<String>, name: &str) -> Vec<String> {
    let mut left: Vec<String> = Vec::new();
    let mut value_follows = false;
    for flag in flags {
        let is_value = value_follows && !flag.starts_with("--");
        value_follows = flag == format!("--{name}");
        if !value_follows && !is_value && !flag.starts_with(&format!("--{name}=")) {
            left.push(flag);
        }
    }
    left
}

/// The addresses in the URLs of a file, without those that every host has.
fn addresses(text: &str) -> BTreeSet<String> {
    let hosts = text.split("//").skip(1).filter_map(|rest| rest.split(':').next());
    let addresses = hosts.filter_map(|host| host.parse::<std::net::Ipv4Addr>().ok());
    addresses.filter(|one| !one.is_loopback() && !one.is_unspecified()).map(|one| one.to_string()).collect()
}

/// What etcd takes from a file, and the flags that it refuses to take.
fn taken(bench: &Bench, mut given: Given, last: &str) -> (Records, Vec<String>) {
    let mut refused = Vec::new();
    loop {
        let said = match bench.etcd(&given, last) {
            Answer::Took(records) => return (records, refused),
            Answer::Ended(said) => said,
        };
        let complaint = said.lines().find_map(|line| line.strip_prefix("flag provided but not defined: -"));
        given = match (given, complaint) {
            (Given::Flags(flags), Some(name)) => {
                refused.push(name.to_owned());
                Given::Flags(without(flags, name))
            }
            (given, _) => panic!("etcd does not start with {given:?}:\n{said}"),
        };
    }
}

/// What etcd took and we did not, or the other way round.
fn differences(records: &Records, own: &Own, last: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, ours) in MORE {
        // Clients are served last.
        if last == RECORD && name == "starting with client TLS" {
            continue;
        }
        let (theirs, ours) = (records.get(name).cloned().map(Json::Object), ours(own));
        if theirs != ours {
            let told = |said: Option<Json>| said.map_or_else(|| "nothing".to_owned(), |said| said.to_string());
            found.push((name.to_owned(), format!("etcd took {}, we {}", told(theirs), told(ours))));
        }
    }
    let record = records.get(RECORD).expect("the record was waited for");
    for (field, theirs) in record.iter().filter(|(field, _)| !WITHOUT_COUNTERPART.iter().any(|(name, _)| name == field))
    {
        let theirs = match theirs.as_str() {
            Some(text) if TIMES.contains(&field.as_str()) => nanoseconds(text).into(),
            _ => theirs.clone(),
        };
        let ours = FIELDS.iter().find(|(name, _)| name == field).map(|(_, ours)| ours(own));
        if ours.as_ref() != Some(&theirs) {
            let ours = ours.map_or_else(|| "nothing, it has no line in FIELDS".to_owned(), |ours| ours.to_string());
            found.push((field.clone(), format!("etcd took {theirs}, we {ours}")));
        }
    }
    found
}

/// What came of all files.
#[derive(Default)]
struct Comparison {
    wrong: Vec<String>,
    /// Options that files set, and options that were compared.
    set: BTreeSet<String>,
    seen: BTreeSet<String>,
    /// Files that were converted and given to etcd.
    converted: usize,
}

impl Comparison {
    fn compare(&mut self, bench: &mut Bench, path: &Path) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let copy = bench.copy(path);
        let (given, file) = (bench.given(&copy), Given::AnyFile(copy));
        let own = Own { shown: bench.show(&file, &[]), seen: RefCell::default() };
        if bench.show(&given, &[]) != own.shown {
            self.wrong.push(format!("{name} is something else than {given:?}"));
        }
        let last = if own.founds_alone() { SERVING } else { RECORD };
        let (records, refused) = taken(bench, given, last);
        let expected = REFUSED.iter().find(|(file, _)| *file == name).map_or(&[][..], |(_, flags)| flags);
        if refused != expected {
            self.wrong.push(format!("{name}: etcd refuses {refused:?}, not {expected:?}"));
        }
        self.judge(name, name, &differences(&records, &own, last));
        for form in ["env", "yaml", "flags"] {
            bench.forget(&own);
            let Some(converted) = bench.converted(&file, form) else { continue };
            let (records, _) = taken(bench, converted, last);
            let lasting = if name == NO_LONGER_THERE { name } else { "" };
            self.judge(&format!("{name} as {form}"), lasting, &differences(&records, &own, last));
            self.converted += 1;
        }
        self.set.extend(paths_of(&bench.show(&file, &["--set"])));
        self.seen.append(&mut own.seen.borrow_mut());
    }

    /// Tells the differences that are not those of `file`, and those that are missing.
    fn judge(&mut self, what: &str, file: &str, found: &[(String, String)]) {
        let intended: Vec<_> = DIFFERENCES.iter().filter(|(name, ..)| *name == file).collect();
        let strange = found.iter().filter(|(field, _)| !intended.iter().any(|(_, name, _)| name == field));
        self.wrong.extend(strange.map(|(field, told)| format!("{what}: {field}: {told}")));
        let stale = intended.iter().filter(|(_, field, _)| !found.iter().any(|(name, _)| name == field));
        self.wrong.extend(
            stale.map(|(_, field, why)| format!("{what}: {field} does not differ any more, and should: {why}")),
        );
    }

    /// Options that are compared with nothing have a line that says so, and no others have.
    fn judge_options(&mut self) {
        let untold: BTreeSet<&str> = self.set.difference(&self.seen).map(String::as_str).collect();
        let listed: BTreeSet<&str> = UNTOLD.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        let compared = untold.difference(&listed).map(|path| format!("{path} is compared with nothing"));
        let told = listed.difference(&untold);
        let told = told.map(|path| format!("{path} has a line in UNTOLD, and is compared, or set by no file"));
        self.wrong.extend(compared.chain(told));
    }
}

#[test]
fn files_of_the_field_mean_what_they_mean_to_etcd() {
    let (mut bench, mut comparison) = (Bench::new(), Comparison::default());
    let paths = configurations(FIELD);
    assert!(paths.len() >= 30, "{} files", paths.len());
    for path in &paths {
        comparison.compare(&mut bench, path);
    }
    comparison.judge_options();
    assert!(comparison.wrong.is_empty(), "{}", comparison.wrong.join("\n"));
    // One file says that something is empty, which no environment file can.
    assert_eq!(comparison.converted, 3 * paths.len() - 1);
}

/// Where the values of an object are, `/` between the keys that lead to each.
fn paths_of(shown: &Json) -> Vec<String> {
    let Some(object) = shown.as_object() else { return vec![String::new()] };
    let inside = |(key, value): (&String, &Json)| {
        let below = paths_of(value).into_iter();
        below.map(|path| format!("{key}/{path}").trim_end_matches('/').to_owned()).collect::<Vec<_>>()
    };
    object.iter().flat_map(inside).collect()
}

#[test]
fn every_field_of_the_record_has_one_line() {
    let names = FIELDS.iter().map(|(name, _)| *name).chain(WITHOUT_COUNTERPART.iter().map(|(name, _)| *name));
    let distinct: BTreeSet<&str> = names.clone().collect();
    assert_eq!(distinct.len(), names.count());
    assert!(TIMES.iter().all(|name| FIELDS.iter().any(|(field, _)| field == name)));
}

#[test]
fn lengths_of_time_are_read_as_go_writes_them() {
    let cases =
        [("0s", 0), ("1µs", 1_000), ("1.5ms", 1_500_000), ("8h0m0s", 28_800_000_000_000), ("90m", 5_400_000_000_000)];
    for (text, expected) in cases {
        assert_eq!(nanoseconds(text), expected, "{text}");
    }
}
