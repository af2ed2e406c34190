//! A running daemon takes a new configuration: at SIGHUP, and by itself when a file of it has changed. Every option that the
//! table calls live is seen to take effect, every other one to be reported; a broken edit changes nothing.

#![expect(clippy::indexing_slicing, reason = "what is missing fails the test")]

#[path = "support/mod.rs"]
mod support;

use std::{
    ffi::OsString,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::symlink, net::UnixDatagram},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use quorate::config::{
    self, Form, Sources,
    table::{Kind, OPTIONS, OptionSpec, Reload, YamlKey},
};
use serde_json::Value as Json;
use support::{cluster::Cluster, daemon::Daemon, http, now, program::Program, wait_for};

/// Longest wait for what a reload brings about.
const PATIENCE: Duration = Duration::from_secs(20);
/// What every record of a reload begins with.
const RECORD: &str = "the configuration was ";

/// A daemon and the file it reads.
struct World {
    daemon: Daemon,
    file: PathBuf,
    _place: tempfile::TempDir,
}

impl World {
    /// What the file begins with in all tests; `CompactHashCheck` is what `compact-hash-check-time` is for.
    const BASE: &str = "feature-gates = \"CompactHashCheck=true\"\n";

    fn start() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("quorate.toml");
        fs::write(&file, Self::BASE).expect("written");
        let daemon = Daemon::start(&Program::subject(), &[&format!("--config={}", file.display())]);
        Self { daemon, file, _place: place }
    }

    /// Writes these lines behind the first ones and reloads; the record that tells of it.
    fn set(&self, lines: &str) -> Json {
        fs::write(&self.file, format!("{}{lines}\n", Self::BASE)).expect("written");
        hangup(&self.daemon)
    }

    /// As [`World::set`]; it must be taken.
    fn take(&self, lines: &str) -> Json {
        let record = self.set(lines);
        assert!(!field(&record, "msg").contains("not reloaded"), "{lines}: {record}");
        record
    }

    fn log_since(&self, begun: usize) -> String {
        self.daemon.log().get(begun..).unwrap_or_default().to_owned()
    }

    /// Waits until the log says `what` behind its first `begun` bytes.
    fn says(&self, begun: usize, what: &str) {
        let said = wait_for(PATIENCE, || self.log_since(begun).contains(what).then_some(()));
        assert!(said.is_some(), "{what:?} in\n{}", self.log_since(begun));
    }

    fn post(&self, path: &str, body: &str) -> http::Answer {
        http::post(self.daemon.client, path, body).expect("an answer")
    }

    fn put(&self, bytes: usize) -> http::Answer {
        // `AAAA` is three bytes in base64.
        self.post("/v3/kv/put", &format!(r#"{{"key":"YQ==","value":"{}"}}"#, "AAAA".repeat(bytes / 3)))
    }

    fn metrics(&self) -> String {
        http::get(self.daemon.client, "/metrics").expect("metrics").body
    }
}

fn records(daemon: &Daemon) -> Vec<Json> {
    let log = daemon.log();
    let records = log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    records.filter(|record| field(record, "msg").starts_with(RECORD)).collect()
}

/// The record of the next reload after `before` of them.
fn next_record(daemon: &Daemon, before: usize) -> Json {
    let record = wait_for(PATIENCE, || records(daemon).get(before).cloned());
    record.unwrap_or_else(|| panic!("no record of a reload:\n{}", daemon.log()))
}

fn hangup(daemon: &Daemon) -> Json {
    let before = records(daemon).len();
    daemon.signal("HUP");
    next_record(daemon, before)
}

fn field<'r>(record: &'r Json, name: &str) -> &'r str {
    record.get(name).and_then(Json::as_str).unwrap_or_default()
}

/// The value of a metric; the sum over its labels.
fn metric(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter(|rest| rest.starts_with([' ', '{'])).filter_map(|rest| rest.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

/// An option, and how it is seen to take effect.
type Observation = (&'static str, fn(&World));

const OBSERVATIONS: &[Observation] = &[
    ("log-level", log_level),
    ("log-outputs", log_outputs),
    ("auto-compaction-retention", auto_compaction),
    ("auto-compaction-mode", auto_compaction),
    ("compaction-batch-limit", compaction_steps),
    ("compaction-sleep-interval", compaction_steps),
    ("warning-apply-duration", slow_applies),
    ("warning-unary-request-duration", slow_calls),
    ("cors", cors),
    ("host-whitelist", host_whitelist),
    ("max-txn-ops", transactions),
    ("max-request-bytes", requests),
    ("max-concurrent-streams", streams),
    ("metrics", extensive_metrics),
    ("snapshot-count", snapshots),
    ("snapshot-catchup-entries", snapshots),
    ("corrupt-check-time", corruption_checks),
    ("compact-hash-check-time", compaction_checks),
    ("quota-backend-bytes", quota),
    ("nospace-disarm", disarming),
    ("snapshot-schedule", scheduled_snapshots),
    ("snapshot-keep", scheduled_snapshots),
    ("snapshot-keep-time", scheduled_snapshots),
    ("heartbeat-interval", pace),
    ("election-timeout", pace),
];

fn log_level(world: &World) {
    let nonsense = || {
        let mut stream = TcpStream::connect(world.daemon.client).expect("connected");
        stream.write_all(b"nonsense\r\n\r\n").expect("written");
        let mut answer = Vec::new();
        // The server may answer or cut the connection.
        drop(stream.read_to_end(&mut answer));
    };
    nonsense();
    assert!(!world.daemon.log().contains(r#""level":"debug""#));
    let record = world.take("log-level = \"debug\"");
    assert_eq!(field(&record, "applied"), format!("log-level: info → debug ({}:2)", world.file.display()));
    nonsense();
    world.says(0, r#""level":"debug""#);
    let begun = world.daemon.log().len();
    world.take("log-level = \"info\"");
    nonsense();
    sleep(Duration::from_millis(200));
    assert!(!world.log_since(begun).contains(r#""msg":"a client connection broke""#), "{}", world.log_since(begun));
}

fn log_outputs(world: &World) {
    let file = world.file.with_file_name("second.log");
    let lines = format!("log-outputs = [\"stderr\", \"{}\"]", file.display());
    world.take(&lines);
    let first = fs::read_to_string(&file).expect("a log file");
    assert!(first.contains("the configuration was reloaded"), "{first}");
    // What rotates logs has moved it away: the next reload opens another.
    fs::rename(&file, file.with_extension("1")).expect("moved");
    world.take(&lines);
    let second = fs::read_to_string(&file).expect("another log file");
    assert!(second.contains("nothing has changed"), "{second}");
    let refused = world.set("log-outputs = [\"stderr\", \"/nonexistent/quorate.log\"]\nlog-level = \"debug\"");
    assert!(field(&refused, "errors").contains("/nonexistent/quorate.log"), "{refused}");
    assert_eq!(field(&world.take(&lines), "applied"), "", "nothing of it was applied");
}

fn auto_compaction(world: &World) {
    let (done, begun) = ("completed auto compaction", world.daemon.log().len());
    let puts = |count: usize| {
        for _ in 0..count {
            assert_eq!(world.put(3).status, 200);
            sleep(Duration::from_millis(100));
        }
    };
    puts(3);
    world.take("auto-compaction-retention = \"1s\"");
    let compacted = wait_for(PATIENCE, || {
        puts(1);
        world.log_since(begun).contains(done).then_some(())
    });
    assert!(compacted.is_some(), "{}", world.log_since(begun));
    // So many revisions there are not.
    world.take("auto-compaction-mode = \"revision\"\nauto-compaction-retention = \"1s\"");
    let begun = world.daemon.log().len();
    puts(30);
    assert!(!world.log_since(begun).contains(done), "{}", world.log_since(begun));
}

/// Compacts ten revisions of one key away; how long it took and in how many steps.
fn compact(world: &World) -> (Duration, f64) {
    const STEPS: &str = "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count";
    let answers: Vec<http::Answer> = (0..10).map(|_| world.put(3)).collect();
    let last: Json = serde_json::from_str(&answers[9].body).expect("JSON");
    let revision = last["header"]["revision"].as_str().expect("a revision");
    let body = format!(r#"{{"revision":"{revision}","physical":true}}"#);
    let (steps, begun) = (metric(&world.metrics(), STEPS), now());
    assert_eq!(world.post("/v3/kv/compaction", &body).status, 200);
    (begun.elapsed(), metric(&world.metrics(), STEPS) - steps)
}

fn compaction_steps(world: &World) {
    world.take("");
    let (_, few) = compact(world);
    world.take("compaction-batch-limit = 1");
    let (quick, many) = compact(world);
    assert!(many > few + 5.0, "{few} steps, then {many}");
    world.take("compaction-batch-limit = 1\ncompaction-sleep-interval = \"300ms\"");
    let (slow, _) = compact(world);
    assert!(slow > Duration::from_secs(2) && slow > quick * 2, "{quick:?}, then {slow:?}");
}

fn slow_applies(world: &World) {
    world.take("warning-apply-duration = \"1ns\"");
    let begun = world.daemon.log().len();
    world.put(3);
    world.says(begun, "apply request took too long");
}

fn slow_calls(world: &World) {
    world.take("warning-unary-request-duration = \"1ns\"");
    let begun = world.daemon.log().len();
    world.put(1);
    world.says(begun, "request stats");
}

/// The head of the answer to a request for `/version` with these headers.
fn head(address: SocketAddr, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.write_all(format!("GET /version HTTP/1.0\r\n{headers}\r\n").as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.to_ascii_lowercase()
}

fn cors(world: &World) {
    let answer = || head(world.daemon.client, "Host: a\r\nOrigin: http://b:80\r\n");
    assert!(answer().contains("access-control-allow-origin: *"), "{}", answer());
    world.take("cors = \"http://a:80\"");
    assert!(!answer().contains("access-control-allow-origin"), "{}", answer());
}

fn host_whitelist(world: &World) {
    let answer = || head(world.daemon.client, "Host: b\r\n");
    assert!(answer().starts_with("http/1.0 200") || answer().starts_with("http/1.1 200"), "{}", answer());
    world.take("host-whitelist = \"a\"");
    assert!(answer().contains("421"), "{}", answer());
}

fn transactions(world: &World) {
    let put = r#"{"requestPut":{"key":"YQ==","value":"YQ=="}}"#;
    let other = r#"{"requestPut":{"key":"Yg==","value":"YQ=="}}"#;
    let two = || world.post("/v3/kv/txn", &format!(r#"{{"success":[{put},{other}]}}"#));
    assert_eq!(two().status, 200, "{}", two().body);
    world.take("max-txn-ops = 1");
    assert!(two().body.contains("too many operations in txn request"), "{}", two().body);
}

fn requests(world: &World) {
    assert_eq!(world.put(3_000).status, 200);
    world.take("max-request-bytes = 1000");
    assert!(world.put(3_000).body.contains("request is too large"), "{}", world.put(3_000).body);
}

/// What a server tells of streams in the settings it begins an HTTP/2 connection with (RFC 9113, §6.5).
fn streams_max(address: SocketAddr) -> u32 {
    const MAX_CONCURRENT_STREAMS: u8 = 3;
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("written");
    let mut head = [0; 9];
    stream.read_exact(&mut head).expect("a frame");
    assert_eq!(head[3], 4, "settings come first");
    let mut settings = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut settings).expect("settings");
    let told = settings.chunks(6).find(|setting| setting[1] == MAX_CONCURRENT_STREAMS);
    told.map_or(u32::MAX, |setting| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]))
}

fn streams(world: &World) {
    assert_eq!(streams_max(world.daemon.client), u32::MAX);
    world.take("max-concurrent-streams = 7");
    assert_eq!(streams_max(world.daemon.client), 7);
}

fn extensive_metrics(world: &World) {
    let timed = "grpc_server_handling_seconds_bucket";
    world.put(3);
    assert!(!world.metrics().contains(timed));
    world.take("metrics = \"extensive\"");
    world.put(3);
    assert!(world.metrics().contains(timed));
}

fn snapshots(world: &World) {
    let begun = world.daemon.log().len();
    let kept = || {
        let log = world.log_since(begun);
        let last = log.lines().rfind(|line| line.contains("compacted Raft logs"))?;
        let record: Json = serde_json::from_str(last).ok()?;
        let index = |name: &str| field(&record, name).parse::<u64>().ok();
        Some(index("snapshot-index")? - index("compact-index")?)
    };
    let puts = || (0..10).for_each(|_| assert_eq!(world.put(3).status, 200));
    puts();
    assert_eq!(kept(), None, "{}", world.log_since(begun));
    world.take("snapshot-count = 5\nsnapshot-catchup-entries = 2");
    puts();
    assert!(wait_for(PATIENCE, || kept().filter(|kept| *kept == 2)).is_some(), "{:?}", kept());
    let snap = world.daemon.data_dir().join("member/snap");
    assert!(fs::read_dir(&snap).expect("a directory").flatten().any(|file| file.path().extension().is_some()));
    world.take("snapshot-count = 5\nsnapshot-catchup-entries = 3");
    puts();
    assert!(wait_for(PATIENCE, || kept().filter(|kept| *kept == 3)).is_some(), "{:?}", kept());
}

fn corruption_checks(world: &World) {
    let begun = world.daemon.log().len();
    world.take("corrupt-check-time = \"300ms\"");
    world.says(begun, "enabled corruption checking");
    world.says(begun, "finished peer corruption check");
    world.take("");
    world.says(begun, "disabled corruption checking");
}

fn compaction_checks(world: &World) {
    let begun = world.daemon.log().len();
    sleep(Duration::from_secs(1));
    assert!(!world.log_since(begun).contains("starting compact hash check"));
    world.take("compact-hash-check-time = \"300ms\"");
    world.says(begun, "starting compact hash check");
}

fn quota(world: &World) {
    assert_eq!(world.put(3).status, 200);
    world.take("nospace-disarm = \"manual\"\nquota-backend-bytes = 1");
    assert!(world.put(3).body.contains("database space exceeded"), "{}", world.put(3).body);
    world.take("nospace-disarm = \"manual\"");
    // As in etcd, more room does not disarm what was raised.
    let raised: Json = serde_json::from_str(&world.post("/v3/maintenance/alarm", "{}").body).expect("alarms");
    let member = raised["alarms"][0]["memberID"].as_str().expect("a member");
    let disarm = format!(r#"{{"action":"DEACTIVATE","alarm":"NOSPACE","memberID":"{member}"}}"#);
    assert_eq!(world.post("/v3/maintenance/alarm", &disarm).status, 200);
    assert_eq!(world.put(3).status, 200);
}

fn scheduled_snapshots(world: &World) {
    let place = world.daemon.data_dir().join("snapshots");
    let kept = || fs::read_dir(&place).map_or(0, Iterator::count);
    assert_eq!(kept(), 0);
    world.take("snapshot-schedule = \"1s\"");
    assert!(wait_for(PATIENCE, || (kept() > 3).then_some(())).is_some(), "{}", world.daemon.log());
    world.take("snapshot-schedule = \"1s\"\nsnapshot-keep = 2");
    assert!(wait_for(PATIENCE, || (kept() == 2).then_some(())).is_some(), "{} are kept", kept());
    world.take("snapshot-schedule = \"1s\"\nsnapshot-keep-time = \"1ms\"");
    assert!(wait_for(PATIENCE, || (kept() == 1).then_some(())).is_some(), "{} are kept", kept());
    world.take("");
    let left = kept();
    sleep(Duration::from_secs(3));
    assert!(kept() <= left + 1, "one may have been under way: {} after {left}", kept());
}

fn disarming(world: &World) {
    world.take("nospace-disarm = \"manual\"\nquota-backend-bytes = 1");
    assert!(world.put(3).body.contains("database space exceeded"), "{}", world.put(3).body);
    world.take("nospace-disarm = \"manual\"");
    sleep(Duration::from_secs(3));
    assert!(world.put(3).body.contains("database space exceeded"), "{}", world.put(3).body);
    let begun = world.daemon.log().len();
    world.take("");
    world.says(begun, "alarm lifted");
    assert_eq!(world.put(3).status, 200);
}

/// Heartbeats and elections are between members: two of them share the file here.
fn pace(_: &World) {
    const SENT: &str = "etcd_network_peer_sent_bytes_total";
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("quorate.toml");
    fs::write(&file, "").expect("written");
    let cluster = Cluster::start(2, &[&format!("--config={}", file.display())]);
    let metrics = |at: usize| http::get(cluster.members[at].client, "/metrics").expect("metrics").body;
    let leads = |at: &usize| metric(&metrics(*at), "etcd_server_is_leader") > 0.0;
    let leader = wait_for(PATIENCE, || [0, 1].into_iter().find(leads)).expect("a leader");
    let sent = |time: Duration| {
        let before = metric(&metrics(leader), SENT);
        sleep(time);
        metric(&metrics(leader), SENT) - before
    };
    let take = |lines: &str| {
        fs::write(&file, lines).expect("written");
        for member in &cluster.members {
            let record = hangup(member);
            assert!(!field(&record, "msg").contains("not reloaded"), "{record}");
        }
    };
    let second = Duration::from_secs(2);
    let slow = sent(second);
    take("heartbeat-interval = 10\n");
    let fast = sent(second);
    assert!(fast > slow * 3.0, "{slow} bytes at a heartbeat each 100 ms, {fast} at one each 10 ms");
    take("heartbeat-interval = 100\nelection-timeout = 4000\n");
    let (old, follower) = (&cluster.members[leader], &cluster.members[1 - leader]);
    let campaigns = |since: usize| follower.log().get(since..).is_some_and(|log| log.contains("became pre-candidate"));
    // Once more it hears the leader at the new pace.
    sleep(Duration::from_millis(500));
    let since = follower.log().len();
    old.signal("STOP");
    // One to two election timeouts, which were two seconds at most before.
    let early = wait_for(Duration::from_millis(3_500), || campaigns(since).then_some(()));
    let late = wait_for(PATIENCE, || campaigns(since).then_some(()));
    old.signal("CONT");
    assert!(early.is_none() && late.is_some(), "{early:?} {late:?}\n{}", follower.log());
}

#[test]
fn every_live_option_takes_effect() {
    let live: Vec<_> = OPTIONS.iter().filter(|spec| spec.reload == Reload::Live && spec.is_current()).collect();
    for spec in &live {
        let seen = OBSERVATIONS.iter().any(|(name, _)| *name == spec.name);
        assert!(seen, "{} is live, and nothing here looks whether it is", spec.name);
    }
    for (name, _) in OBSERVATIONS {
        assert!(live.iter().any(|spec| spec.name == *name), "{name} is not live");
    }
    let world = World::start();
    let mut done: Vec<fn(&World)> = Vec::new();
    for (_, observe) in OBSERVATIONS {
        if !done.iter().any(|other| std::ptr::fn_addr_eq(*other, *observe)) {
            done.push(*observe);
            world.take("");
            observe(&world);
        }
    }
    assert!(metric(&world.metrics(), "quorate_config_reloads_total") > 20.0);
}

/// Another value of a restart-only option than its default.
fn other_value(spec: &OptionSpec) -> Option<String> {
    let value = match (spec.name, spec.kind) {
        ("initial-cluster-token" | "distributed-tracing-service-name", _) => "other",
        ("log-format", _) => "console",
        ("backend-bbolt-freelist-type", _) => "array",
        ("compat-version", _) => "3.6",
        ("v2-deprecation", _) => "gone",
        ("distributed-tracing-address", _) => "localhost:1",
        ("log-rotation-config-json", _) => "{}",
        ("tls-min-version", _) => "TLS1.3",
        ("distributed-tracing-sampling-rate", _) => "1",
        ("feature-gates", _) => "CompactHashCheck=true,LeaseCheckpoint=true,LeaseCheckpointPersist=true",
        ("auth-token", _) => "",
        (_, Kind::Switch) => return Some((spec.default != "true").to_string()),
        (_, Kind::Uint | Kind::Uint32 | Kind::Int) => "7",
        (_, Kind::Duration) => "7s",
        _ => spec.example,
    };
    (value != spec.default).then(|| value.to_owned())
}

#[test]
fn every_restart_only_option_is_reported_and_keeps_its_value() {
    let world = World::start();
    let arguments = ["data-dir", "listen-client-urls", "advertise-client-urls", "listen-peer-urls"];
    let arguments = [&arguments[..], &["name", "initial-advertise-peer-urls", "initial-cluster"]].concat();
    let mut seen = 0;
    for spec in OPTIONS {
        let in_file = spec.yaml != YamlKey::None && spec.is_current() && spec.reload == Reload::Restart;
        // Flags of this process are stronger than its file.
        if !in_file || arguments.contains(&spec.name) {
            continue;
        }
        let Some(value) = other_value(spec) else { continue };
        let line = if spec.name == "feature-gates" { String::new() } else { Form::Toml.spell(spec, &value) };
        let record = if spec.name == "feature-gates" {
            fs::write(&world.file, format!("{}\n", Form::Toml.spell(spec, &value))).expect("written");
            hangup(&world.daemon)
        } else {
            world.set(&line)
        };
        if field(&record, "msg").contains("not reloaded") {
            assert!(!is_loadable(&line), "{line}: {record}");
            continue;
        }
        seen += 1;
        assert!(field(&record, "needs-restart").contains(&format!("{}: ", spec.name)), "{line}: {record}");
        assert_eq!(field(&record, "applied"), "", "{line}: {record}");
        assert!(field(&record, "msg").contains("needs a restart"), "{record}");
    }
    assert!(seen > 35, "{seen} options were reported");
    // One that waits keeps nothing else from being applied, and is told of as long as it waits.
    let record = world.take("max-learners = 7\nmax-txn-ops = 9");
    assert!(field(&record, "applied").starts_with("max-txn-ops: 128 → 9"), "{record}");
    assert!(field(&record, "needs-restart").starts_with("max-learners: 1 → 7"), "{record}");
    let record = world.take("max-learners = 7\nmax-txn-ops = 9");
    assert_eq!((field(&record, "applied"), field(&record, "needs-restart").is_empty()), ("", false), "{record}");
    assert_eq!(field(&world.take("max-txn-ops = 9"), "needs-restart"), "", "it was taken back");
}

/// Whether a start would take a file of this line.
fn is_loadable(line: &str) -> bool {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("quorate.toml");
    fs::write(&file, format!("{line}\n")).expect("written");
    let file = format!("--config={}", file.display());
    let cluster =
        ["--name=m1", "--initial-cluster=m1=http://localhost:2380", "--advertise-client-urls=http://localhost:1"];
    let args = [&file].into_iter().map(OsString::from).chain(cluster.map(OsString::from)).collect();
    config::load(&Sources { args, ..Sources::default() }).is_ok()
}

#[test]
fn a_broken_edit_is_refused_whole_and_the_service_goes_on() {
    let world = World::start();
    for broken in [
        "max-txn-ops = 1\nheartbeat-interval = \"x\"",
        "max-txn-ops = 1\nno-such-option = 1",
        "max-txn-ops = 1\nelection-timeout = 100",
        "max-txn-ops = 1\nheartbeat-interval = 300\nelection-timeout = 3000",
        "max-txn-ops = 1\nname = ",
    ] {
        let record = world.set(broken);
        assert!(field(&record, "msg").contains("not reloaded"), "{record}");
        assert!(field(&record, "errors").contains(&world.file.display().to_string()), "{record}");
        assert_eq!(world.put(3).status, 200);
    }
    fs::remove_file(&world.file).expect("removed");
    assert!(field(&hangup(&world.daemon), "errors").contains("no such file"));
    assert_eq!(field(&world.take(""), "applied"), "", "nothing was applied");
    assert!(http::get(world.daemon.client, "/health").expect("it answers").body.contains("true"));
    let rejected = world.metrics().lines().any(|line| line == r#"quorate_config_reloads_total{result="rejected"} 6"#);
    assert!(rejected, "{}", world.metrics());
}

#[test]
fn a_changed_file_is_taken_over_without_being_asked() {
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    let write = |path: &Path, text: &str| fs::write(path, text).expect("written");
    // As Kubernetes mounts a ConfigMap.
    for (version, text) in [("one", "max-txn-ops = 1\n"), ("two", "max-txn-ops = 2\n")] {
        fs::create_dir(at(version)).expect("made");
        write(&at(version).join("quorate.toml"), text);
    }
    symlink("one", at("..data")).expect("linked");
    symlink("..data/quorate.toml", at("quorate.toml")).expect("linked");
    let daemon = Daemon::start(&Program::subject(), &[&format!("--config={}", at("quorate.toml").display())]);
    let expect = |step: usize, applied: &str| {
        let record = next_record(&daemon, step);
        assert_eq!(field(&record, "trigger"), "a changed file", "{record}");
        assert!(field(&record, "applied").starts_with(applied), "{applied:?}: {record}");
        record
    };
    symlink("two", at("..tmp")).expect("linked");
    fs::rename(at("..tmp"), at("..data")).expect("swapped");
    expect(0, "max-txn-ops: 1 → 2");
    write(&at("new"), "max-txn-ops = 3\n");
    fs::rename(at("new"), at("two/quorate.toml")).expect("renamed");
    expect(1, "max-txn-ops: 2 → 3");
    // A broken file is refused, once, and its correction taken.
    write(&at("two/quorate.toml"), "max-txn-ops = 4\nmax-txn");
    let record = expect(2, "");
    assert!(field(&record, "msg").contains("not reloaded"), "{record}");
    write(&at("two/quorate.toml"), "max-txn-ops = 4\n");
    expect(3, "max-txn-ops: 3 → 4");
    // Empty is what a file is while it is written anew; whoever means it says so.
    write(&at("two/quorate.toml"), "");
    let told = wait_for(PATIENCE, || daemon.log().contains("is empty or gone").then_some(()));
    assert!(told.is_some() && records(&daemon).len() == 4, "{}", daemon.log());
    assert!(field(&hangup(&daemon), "applied").starts_with("max-txn-ops: 4 → 128"));
}

/// A program with further variables, which live as long as the test.
fn with_variables(variables: &[(&'static str, String)]) -> Program {
    let mut program = Program::subject();
    program.variables.extend(variables.iter().map(|(name, value)| (*name, &*value.clone().leak())));
    program
}

#[test]
fn the_service_manager_hears_of_each_reload_and_its_end() {
    let place = tempfile::tempdir().expect("a directory");
    let (path, file) = (place.path().join("notify"), place.path().join("quorate.toml"));
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    fs::write(&file, "").expect("written");
    let program = with_variables(&[("NOTIFY_SOCKET", path.display().to_string())]);
    let daemon = Daemon::start(&program, &[&format!("--config={}", file.display())]);
    let next = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line == wanted) {
                return text;
            }
            assert!(!text.contains("READY=1") && !text.contains("RELOADING=1"), "{wanted} before {text}");
        }
    };
    next("READY=1");
    for (text, ends) in [("max-txn-ops = 1\n", false), ("max-txn-ops = x\n", true), ("max-txn-ops = 2\n", false)] {
        fs::write(&file, text).expect("written");
        let asked = quorate::clock::since_boot().as_micros();
        daemon.signal("HUP");
        let begun = next("RELOADING=1");
        let time = begun.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        let time: u128 = time.and_then(|time| time.parse().ok()).expect("a time in the same datagram");
        assert!(asked <= time && time <= quorate::clock::since_boot().as_micros(), "{asked}, {time}");
        let ended = next("READY=1");
        assert_eq!(ended.contains("reload rejected"), ends, "{text}: {ended}");
        assert!(ended.contains("STATUS=leader"), "{ended}");
    }
}

#[test]
fn an_edited_environment_file_reaches_the_process_if_the_unit_names_it() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("env");
    fs::write(&file, "ETCD_MAX_TXN_OPS=5\nETCD_MAX_REQUEST_BYTES=1000\n").expect("written");
    let variables = [("ETCD_MAX_TXN_OPS", "5".to_owned()), ("ETCD_MAX_REQUEST_BYTES", "2000".to_owned())];
    let named = [("QUORATE_ENV_FILES", format!("-{}:-/nonexistent/quorate.env", file.display()))];
    let daemon = Daemon::start(&with_variables(&[&variables[..], &named[..]].concat()), &[]);
    fs::write(&file, "ETCD_MAX_TXN_OPS=6\nETCD_MAX_REQUEST_BYTES=3000\nETCD_CORS=http://a:80\n").expect("written");
    let record = hangup(&daemon);
    let path = file.display();
    let applied = format!("max-txn-ops: 5 → 6 ({path}:1); cors: * → http://a:80 ({path}:3)");
    assert_eq!(field(&record, "applied"), applied, "{record}");
    assert!(field(&record, "remarks").starts_with("ETCD_MAX_REQUEST_BYTES was edited, but"), "{record}");
    // Where no file is named, whoever edits one is told that it is in vain.
    let daemon = Daemon::start(&with_variables(&variables), &[]);
    let record = hangup(&daemon);
    assert!(field(&record, "remarks").contains("QUORATE_ENV_FILES"), "{record}");
}
