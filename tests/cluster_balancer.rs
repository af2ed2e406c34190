//! The guide's cluster behind the guide's HAProxy: three hosts, and a fourth whose port 4001 passes connections on to them.
//!
//! The guide lets HAProxy check port 4001 of hosts where nothing listens on it, so that it takes every server for dead.
//! Its file works unchanged when the members listen there as well; `examples/haproxy` checks `/health` instead. The
//! cluster is the same whether its hosts are listed or find each other by the URL of a token, as the guide has it; whoever
//! comes after them stands in for them.

mod support;

use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use support::{
    certificates::Authority,
    daemon,
    deployment::{Deployment, PATIENCE, guide_file},
    hosts::Disk,
    program::Program,
    wait_for,
};

/// The guide's file of its balancer, letter by letter.
const GUIDE: &str = include_str!("guide/haproxy.cfg");
/// What the guide's file presumes: somewhere to ask for the state of the servers, a mode for the backend.
const PRESUMED: &str = "defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n";
/// The host of the balancer, and where clients reach it.
const BALANCER: usize = 3;
const ADDRESS: &str = "http://10.5.12.19:4001";
/// The host of the discovery service, and where nodes reach it.
const SERVICE: usize = 4;
const SERVICE_URL: &str = "https://10.5.12.20:8087";
/// The host of a node that comes when all places are taken.
const LATE: usize = 5;
const MEMBERS: usize = 3;
/// Longest wait until HAProxy has noticed something: the guide has it look three times in 900 ms.
const NOTICE: Duration = Duration::from_secs(10);
/// How often each client calls before, and after, a member is killed.
const CALLS: usize = 12;

#[test]
fn the_guides_check_of_a_port_without_listener_takes_every_member_down() {
    let cluster = cluster_listening_on(&[2379]);
    let balancer = Balancer::start(&cluster);
    balancer.wait_for_states(["DOWN"; MEMBERS]);
    let output = etcdctl(&["endpoint", "health", "--command-timeout", "1s"]);
    assert!(!output.status.success(), "nobody is behind the balancer: {output:?}");
}

#[test]
fn with_a_listener_on_the_checked_port_the_guides_file_works_and_survives_a_member() {
    let mut cluster = cluster_listening_on(&[2379, 4001]);
    let balancer = Balancer::start(&cluster);
    balancer.wait_for_states(["UP"; MEMBERS]);
    for client in CLIENTS {
        let retries = call_repeatedly(client);
        assert_eq!(retries, 0, "{}: all members are there", client.name);
    }
    let mut watch = Watch::start();

    cluster.kill(1);
    for client in CLIENTS {
        call_repeatedly(client);
    }
    balancer.wait_for_states(["UP", "DOWN", "UP"]);
    cluster.restart(1);
    balancer.wait_for_states(["UP"; MEMBERS]);
    for client in CLIENTS {
        let retries = call_repeatedly(client);
        assert_eq!(retries, 0, "{}: all members are back", client.name);
    }
    watch.sees(&cluster);
    for number in 0..MEMBERS {
        cluster.signal(number, Signal::SIGTERM);
        cluster.wait_end(number);
    }
}

#[test]
fn hosts_that_find_each_other_by_a_token_serve_and_a_late_one_stands_in_for_them_for_good() {
    let mut cluster = Deployment::prepare(&Program::subject(), LATE + 1, Disk::Plain);
    let authority = Authority::new("authority of the service");
    let trusted = authority.file().display().to_string();
    let service = start_service(&cluster, &authority);
    let token = wait_for(PATIENCE, || new_token(&trusted)).expect("the service answers");
    assert!(token.starts_with(&format!("{SERVICE_URL}/")), "{token}");
    for number in [0, 1, 2, LATE] {
        cluster.configure(number, &guide_file(number, 0));
        cluster.set(number, "ETCD_DISCOVERY", &token);
        cluster.set(number, "SSL_CERT_FILE", &trusted);
        let address = cluster.address(number);
        let listen = format!("http://{address}:2379,http://127.0.0.1:2379,http://{address}:4001");
        cluster.set(number, "ETCD_LISTEN_CLIENT_URLS", &listen);
    }
    for number in 0..MEMBERS {
        cluster.spawn(number);
    }
    for number in 0..MEMBERS {
        cluster.wait_ready(number);
    }
    cluster.settle();
    let balancer = Balancer::start(&cluster);
    balancer.wait_for_states(["UP"; MEMBERS]);
    for client in CLIENTS {
        assert_eq!(call_repeatedly(client), 0, "{}", client.name);
    }

    cluster.restart(LATE);
    stands_in(&cluster, "before");
    drop(service);
    cluster.signal(LATE, Signal::SIGTERM);
    cluster.wait_end(LATE);
    cluster.kill(2);
    cluster.restart(LATE);
    stands_in(&cluster, "after");
}

/// `quorate discovery` with a certificate, on its own host.
fn start_service(cluster: &Deployment, authority: &Authority) -> Started {
    let host = cluster.hosts.host(SERVICE);
    let pair = authority.issue("service", &["10.5.12.20"]);
    let log = File::create(cluster.hosts.directory().join("discovery.log")).expect("our own directory");
    let mut command = host.command(&Program::subject().path);
    command.args(["discovery", "--data-dir=/data/etcd/tokens", "--listen-urls", SERVICE_URL]).args(pair.flags("--"));
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file handle")).stderr(log);
    Started(command.spawn().expect("setpriv runs"))
}

/// The URL of a token for three members, if the service answers yet.
fn new_token(trusted: &str) -> Option<String> {
    let mut command = Command::new("curl");
    let words = ["--silent", "--fail", "--max-time", "10", "--cacert", trusted];
    let output = command.args(words).arg(format!("{SERVICE_URL}/new?size=3")).output().expect("curl starts");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A v2 and a v3 client, each on the late host and knowing nothing but its own port 2379.
fn stands_in(cluster: &Deployment, key: &str) {
    let here = |program: &Path, words: &[&str]| {
        let output = cluster.hosts.host(LATE).command(program).args(words).output().expect("setpriv runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{} {words:?}: {output:?}\n{}", program.display(), cluster.log(LATE));
        said
    };
    let etcdctl = Program::etcdctl().path;
    assert_eq!(here(&etcdctl, &["put", key, "by v3"]), "OK\n");
    assert_eq!(here(&etcdctl, &["get", "--print-value-only", key]), "by v3\n");
    let url = format!("http://127.0.0.1:2379/v2/keys/{key}");
    let put = here(Path::new("curl"), &["--silent", "--request", "PUT", &url, "--data", "value=by+v2"]);
    assert!(put.contains(r#""action":"set""#), "{put}");
    let got = here(Path::new("curl"), &["--silent", &url]);
    assert!(got.contains(r#""value":"by v2""#), "{got}");
    assert_eq!(printed(&cluster.etcdctl(&[0], &["get", "--print-value-only", key])), "by v3\n");
    let members = printed(&cluster.etcdctl(&[0], &["member", "list"]));
    assert_eq!(members.lines().count(), MEMBERS, "the late node is no member:\n{members}");
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A process that ends with the value.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // An error means that it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A client of the balancer: the words of one call, and what it prints.
#[derive(Clone, Copy)]
struct Client {
    name: &'static str,
    call: fn() -> Output,
    says: &'static str,
}

const CLIENTS: [Client; 8] = [
    Client { name: "etcdctl put", call: || etcdctl(&["put", "greeting", "hello"]), says: "OK" },
    Client { name: "etcdctl get", call: || etcdctl(&["get", "greeting"]), says: "greeting\nhello" },
    Client { name: "curl /health", call: || curl("/health", &[]), says: r#"{"health":"true","reason":""}"# },
    Client {
        name: "curl /v3/kv/range",
        call: || curl("/v3/kv/range", &["--data", r#"{"key":"Z3JlZXRpbmc="}"#]),
        says: r#""value":"aGVsbG8=""#,
    },
    Client { name: "etcdctl set", call: || etcdctl_v2(&["set", "/greeting", "hello"]), says: "hello" },
    Client { name: "etcdctl get of v2", call: || etcdctl_v2(&["get", "/greeting"]), says: "hello" },
    Client {
        name: "curl PUT /v2/keys",
        call: || curl("/v2/keys/greeting", &["--request", "PUT", "--data", "value=hello"]),
        says: r#""action":"set""#,
    },
    Client { name: "curl /v2/keys", call: || curl("/v2/keys/greeting", &[]), says: r#""value":"hello""# },
];

/// Calls often, and again after a failure; returns the number of second tries.
///
/// # Panics
/// If a second try fails as well.
fn call_repeatedly(client: Client) -> usize {
    let mut retries = 0;
    for _ in 0..CALLS {
        let first = (client.call)();
        if !answered(client, &first) {
            retries += 1;
            let second = (client.call)();
            assert!(answered(client, &second), "{}: {first:?}, and again: {second:?}", client.name);
        }
    }
    retries
}

fn answered(client: Client, output: &Output) -> bool {
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains(client.says)
}

fn etcdctl(words: &[&str]) -> Output {
    let mut command = Program::etcdctl().command();
    command.args(["--endpoints", ADDRESS]).args(words).output().expect("etcdctl starts")
}

/// The client of Debian, as the guide's users call it.
fn etcdctl_v2(words: &[&str]) -> Output {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "2").args(["--no-sync", "--endpoints", ADDRESS]).args(words);
    command.output().expect("etcdctl starts (apt-get install etcd-client)")
}

fn curl(path: &str, words: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "10", &format!("{ADDRESS}{path}")]).args(words);
    command.output().expect("curl starts (apt-get install curl)")
}

/// The guide's three members, each also on other ports of its address.
fn cluster_listening_on(ports: &[u16]) -> Deployment {
    let mut cluster = Deployment::prepare(&Program::subject(), MEMBERS + 1, Disk::Plain);
    for number in 0..MEMBERS {
        let address = cluster.address(number);
        let listen: Vec<String> = ports.iter().map(|port| format!("http://{address}:{port}")).collect();
        cluster.configure(number, &guide_file(number, MEMBERS));
        cluster.set(number, "ETCD_LISTEN_CLIENT_URLS", &format!("{},http://127.0.0.1:2379", listen.join(",")));
        cluster.spawn(number);
    }
    for number in 0..MEMBERS {
        cluster.wait_ready(number);
    }
    cluster.settle();
    cluster
}

/// HAProxy with the guide's file on its host.
struct Balancer {
    _process: Started,
    statistics: PathBuf,
    log: PathBuf,
}

impl Balancer {
    fn start(cluster: &Deployment) -> Self {
        let directory = cluster.hosts.directory();
        let (statistics, log) = (directory.join("haproxy.sock"), directory.join("haproxy.log"));
        let presumed = format!("global\n stats socket {} level user\n{PRESUMED}", statistics.display());
        let files = [("presumed.cfg", presumed.as_str()), ("haproxy.cfg", GUIDE)];
        let mut command = cluster.hosts.host(BALANCER).command(Path::new("haproxy"));
        for (name, text) in files {
            std::fs::write(directory.join(name), text).expect("our own directory");
            command.arg("-f").arg(directory.join(name));
        }
        let file = File::create(&log).expect("our own directory");
        command.arg("-db").stdin(Stdio::null()).stdout(file.try_clone().expect("a file handle")).stderr(file);
        let process = Started(command.spawn().expect("setpriv runs"));
        let balancer = Self { _process: process, statistics, log };
        let started = wait_for(NOTICE, || balancer.states().map(drop));
        assert!(started.is_some(), "haproxy (apt-get install haproxy): {}", balancer.log());
        balancer
    }

    /// The states of the servers, in the order of the file.
    fn states(&self) -> Option<Vec<String>> {
        let mut socket = UnixStream::connect(&self.statistics).ok()?;
        socket.write_all(b"show stat\n").ok()?;
        let mut table = String::new();
        socket.read_to_string(&mut table).ok()?;
        let servers = table.lines().filter(|line| line.starts_with("etcd,etcd"));
        let state =
            |line: &str| line.split(',').nth(STATE).and_then(|state| state.split(' ').next()).map(str::to_owned);
        servers.map(state).collect()
    }

    fn wait_for_states(&self, expected: [&str; MEMBERS]) {
        let seen = wait_for(NOTICE, || (self.states()? == expected).then_some(()));
        assert!(seen.is_some(), "{:?} instead of {expected:?}: {}", self.states(), self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).map(|log| daemon::tail(&log, 2_000).to_owned()).unwrap_or_default()
    }
}

/// The column of `show stat` that tells whether a server is up.
const STATE: usize = 17;

/// A watch through the balancer, by etcd's own client.
struct Watch {
    process: Started,
}

impl Watch {
    fn start() -> Self {
        let mut command = Program::etcdctl().command();
        command.args(["--endpoints", ADDRESS, "watch", "awaited"]).stdin(Stdio::null()).stdout(Stdio::piped());
        Self { process: Started(command.spawn().expect("etcdctl starts")) }
    }

    /// Waits for a change made past the balancer, whichever member the watch is at by now.
    fn sees(&mut self, cluster: &Deployment) {
        assert!(cluster.etcdctl(&[0], &["put", "awaited", "1"]).status.success());
        let mut output = self.process.0.stdout.take().expect("piped");
        let (said, heard) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut bytes = [0; 64];
            let length = output.read(&mut bytes).unwrap_or(0);
            said.send(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
        });
        let event = heard.recv_timeout(NOTICE).unwrap_or_default();
        assert!(event.starts_with("PUT\nawaited"), "the watch says {event:?}");
    }
}
