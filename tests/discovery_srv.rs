//! Discovery by SRV records, with a real name server (dnsmasq) on a host of its own.

#![expect(clippy::indexing_slicing, reason = "hosts are counted by the tests that made them")]

mod support;

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quorate::membership::founding_member_id;
use support::{
    certificates::Authority,
    cluster::ctl,
    daemon::ended_by,
    hosts::{Disk, Hosts},
    http, now,
    program::Program,
    wait_for,
};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(40);
/// The host of the name server, behind those of the members.
const SERVER: usize = 3;
/// The tokens of the reference's example.
const TOKEN: &str = "--initial-cluster-token=etcd-cluster-1";

/// Three hosts for members, and one whose name server they ask.
struct Domain {
    // Before the hosts, so that no process outlives its own.
    server: Option<Child>,
    nodes: Vec<Node>,
    hosts: Hosts,
    /// `http` or `https`, between members.
    scheme: &'static str,
    /// What every node's environment has besides the test's own.
    variables: Vec<(&'static str, String)>,
}

struct Node {
    child: Child,
    log: PathBuf,
    client: SocketAddr,
}

impl Domain {
    /// A domain `example.com` of these records, in dnsmasq's form, in which `infra0` and so on are hosts.
    fn new(records: &[String]) -> Self {
        let hosts = Hosts::new(4, Disk::Plain);
        let server = hosts.host(SERVER).address;
        for number in 0..SERVER {
            hosts.host(number).run(&format!(
                "echo nameserver {server} > /data/etcd/resolv.conf && mount --bind /data/etcd/resolv.conf /etc/resolv.conf"
            ));
        }
        let mut domain = Self { server: None, nodes: Vec::new(), hosts, scheme: "http", variables: Vec::new() };
        domain.serve(records);
        domain
    }

    /// Starts the name server, anew with other records.
    fn serve(&mut self, records: &[String]) {
        self.stop_serving();
        let host = self.hosts.host(SERVER);
        let mut command = host.command(Path::new("dnsmasq"));
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"]);
        command.args(["--pid-file=", "--bind-interfaces", "--local=/example.com/", "--local-ttl=1", "--port=53"]);
        command.arg(format!("--listen-address={}", host.address));
        command.args(
            (0..SERVER)
                .map(|number| format!("--host-record=infra{number}.example.com,{}", self.hosts.host(number).address)),
        );
        command.args(records);
        let log = File::create(self.hosts.directory().join("dnsmasq.log")).expect("our own directory");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file handle")).stderr(log);
        self.server = Some(command.spawn().expect("setpriv runs; dnsmasq is Debian's package dnsmasq-base"));
        let asks = wait_for(PATIENCE, || {
            let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x06infra0\x07example\x03com\0\0\x01\0\x01";
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
            socket.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
            socket.send_to(query, (host.address, 53)).ok()?;
            socket.recv(&mut [0; 512]).ok()
        });
        let said = fs::read_to_string(self.hosts.directory().join("dnsmasq.log")).unwrap_or_default();
        assert!(asks.is_some(), "dnsmasq (Debian's package dnsmasq-base) does not answer: {said}");
    }

    fn stop_serving(&mut self) {
        if let Some(mut server) = self.server.take() {
            drop(server.kill());
            drop(server.wait());
        }
    }

    /// Starts a node on host `number` that knows the domain alone.
    fn start(&mut self, program: &Program, number: usize, advertised: &str, more: &[&str]) -> usize {
        let host = self.hosts.host(number);
        let (address, client) = (host.address, SocketAddr::from((host.address, 2379)));
        let log = self.hosts.directory().join(format!("node.{number}.{}.log", self.nodes.len()));
        let file = File::create(&log).expect("our own directory");
        let mut command = host.command(&program.path);
        command.args([format!("--name=etcd{number}"), "--discovery-srv=example.com".to_owned(), TOKEN.to_owned()]);
        command.args([
            format!("--data-dir=/data/etcd/data{}", self.nodes.len()),
            format!("--listen-peer-urls={}://{address}:2380", self.scheme),
            format!("--initial-advertise-peer-urls={advertised}"),
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
        ]);
        command.envs(self.variables.iter().cloned());
        command.args(more).stdin(Stdio::null()).stdout(file.try_clone().expect("a file handle")).stderr(file);
        let child = command.spawn().expect("setpriv runs");
        self.nodes.push(Node { child, log, client });
        self.nodes.len() - 1
    }

    fn log(&self, node: usize) -> String {
        fs::read_to_string(&self.nodes[node].log).unwrap_or_default()
    }

    fn exited(&mut self, node: usize) -> Option<ExitStatus> {
        self.nodes[node].child.try_wait().ok().flatten()
    }

    fn wait_ready(&mut self, node: usize) {
        let client = self.nodes[node].client;
        let ready = wait_for(PATIENCE, || {
            let healthy = http::get(client, "/health").is_ok_and(|answer| answer.body.contains(r#""health":"true""#));
            if self.exited(node).is_some() { Some(false) } else { healthy.then_some(true) }
        });
        assert_eq!(ready, Some(true), "node {node} does not serve:\n{}", self.log(node));
    }

    fn expect_refusal(&mut self, node: usize, why: &str) {
        let ended = wait_for(PATIENCE, || self.exited(node));
        let log = self.log(node);
        assert_eq!(ended.and_then(|status| status.code()), Some(1), "{log}");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains("\"level\":\"fatal\"") && last.contains(why), "{why:?} in\n{log}");
    }

    /// All three hosts' members, with the `first` of another kind, form the cluster that the records name.
    fn form_a_cluster(&mut self, first: &Program, more: &[&str]) {
        let ours = Program::subject();
        for number in 0..SERVER {
            let program = if number == 0 { first } else { &ours };
            self.start(program, number, &format!("{}://infra{number}.example.com:2380", self.scheme), more);
        }
        for node in 0..SERVER {
            self.wait_ready(node);
        }
        let endpoint = format!("http://{}", self.nodes[1].client);
        let named = wait_for(PATIENCE, || {
            let list = ctl(&endpoint, &["member", "list"]).ok()?;
            (0..SERVER).all(|number| list.contains(&line(self.scheme, number))).then_some(list)
        });
        assert!(named.is_some(), "{:?}", ctl(&endpoint, &["member", "list"]));
        ctl(&endpoint, &["put", "a", "1"]).expect("the cluster takes writes");
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        self.stop_serving();
        for node in &mut self.nodes {
            drop(node.child.kill());
            drop(node.child.wait());
        }
    }
}

/// How a member is listed: its identifier is made of the record's name.
fn line(scheme: &str, number: usize) -> String {
    let url = format!("{scheme}://infra{number}.example.com:2380");
    let id = founding_member_id(&[url.as_str()], "etcd-cluster-1");
    format!("{id}, started, etcd{number}, {url}")
}

fn records(service: &str, hosts: std::ops::Range<usize>) -> Vec<String> {
    hosts.map(|number| format!("--srv-host=_{service}._tcp.example.com,infra{number}.example.com,2380")).collect()
}

#[test]
fn records_without_tls_alone_found_a_cluster_whose_members_agree() {
    let mut domain = Domain::new(&records("etcd-server", 0..3));
    domain.form_a_cluster(&Program::subject(), &[]);
    // Members of ours compare digests twice a second, founding entries included.
    std::thread::sleep(Duration::from_secs(3));
    let alarms = ctl(&format!("http://{}", domain.nodes[0].client), &["alarm", "list"]).expect("an answer");
    assert_eq!(alarms, "");
}

#[test]
fn members_of_etcd_and_ours_find_each_other() {
    let mut domain = Domain::new(&records("etcd-server", 0..3));
    support::program::oracle();
    domain.form_a_cluster(&Program::etcd(), &[]);
}

/// Members that a domain names are known by certificates of the domain, whatever their hosts are called.
#[test]
fn members_with_tls_show_certificates_of_the_domain() {
    let authority = Authority::new("ca");
    let pair = authority.issue("peer", &["example.com"]).flags("--peer-");
    let mut domain = Domain::new(&records("etcd-server-ssl", 0..3));
    domain.scheme = "https";
    domain.variables.push(("SSL_CERT_FILE", authority.file().display().to_string()));
    domain.form_a_cluster(&Program::etcd(), &pair.each_ref().map(String::as_str));
}

#[test]
fn services_have_names() {
    let mut all = records("etcd-server-prod", 0..3);
    all.extend(records("etcd-server", 0..1));
    Domain::new(&all).form_a_cluster(&Program::subject(), &["--discovery-srv-name=prod"]);
}

#[test]
fn domains_that_name_no_cluster_or_another_are_refused_in_etcds_words() {
    let mut domain = Domain::new(&[]);
    let subject = Program::subject();
    let server = domain.hosts.host(SERVER).address;
    let node = domain.start(&subject, 0, "http://infra0.example.com:2380", &[]);
    let missing = |service: &str| {
        format!(
            "error querying DNS SRV records for _{service} lookup _{service}._tcp.example.com on {server}:53: no such host"
        )
    };
    // In a JSON string quotes are escaped.
    let expected = format!(
        "error setting up initial cluster: srv: too many errors querying DNS SRV records (\\\"{}\\\", \\\"{}\\\")",
        missing("etcd-server-ssl"),
        missing("etcd-server")
    );
    domain.expect_refusal(node, &expected);

    domain.serve(&records("etcd-server", 1..3));
    let node = domain.start(&subject, 0, "http://infra0.example.com:2380", &[]);
    domain.expect_refusal(node, "cannot find local etcd member \\\"etcd0\\\" in SRV records");

    // The port is part of the place.
    let node = domain.start(&subject, 1, "http://infra1.example.com:2381", &[]);
    domain.expect_refusal(node, "cannot find local etcd member \\\"etcd1\\\" in SRV records");

    let twice = [records("etcd-server", 0..1), records("etcd-server", 0..1)].concat();
    domain.serve(&twice);
    let node = domain.start(&subject, 0, "http://infra0.example.com:2380", &[]);
    domain.wait_ready(node);
}

#[test]
fn names_and_addresses_lead_to_the_same_place() {
    let mut domain = Domain::new(&records("etcd-server", 0..1));
    let address = domain.hosts.host(0).address;
    let node = domain.start(&Program::subject(), 0, &format!("http://{address}:2380"), &[]);
    domain.wait_ready(node);
}

/// A founder that left out what it alone cannot find would found a cluster of its own.
#[test]
fn a_target_without_an_address_ends_the_start_with_its_name() {
    let mut all = records("etcd-server", 0..1);
    all.push("--srv-host=_etcd-server._tcp.example.com,gone.example.com,2380".to_owned());
    let mut domain = Domain::new(&all);
    let node = domain.start(&Program::subject(), 0, "http://infra0.example.com:2380", &[]);
    domain.expect_refusal(node, "failed to resolve the target gone.example.com:2380 of _etcd-server (");
    assert!(domain.log(node).contains("failed to resolve a target of an SRV record; retrying"), "{}", domain.log(node));
}

/// The same of a service that nobody can tell of, because the server that has its zone is away.
#[test]
fn a_service_nobody_can_tell_of_does_not_count_as_none() {
    let mut all = records("etcd-server", 0..1);
    all.push("--server=/_etcd-server-ssl._tcp.example.com/127.0.0.1#1".to_owned());
    let mut domain = Domain::new(&all);
    domain.hosts.host(0).run("echo options timeout:1 attempts:1 >> /etc/resolv.conf");
    let node = domain.start(&Program::subject(), 0, "http://infra0.example.com:2380", &[]);
    let why = "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl lookup";
    domain.expect_refusal(node, why);
}

/// A domain that names its one member to clients, too.
fn domain_for_clients() -> Domain {
    support::program::oracle();
    let mut all = records("etcd-server", 0..1);
    all.push("--srv-host=_etcd-client._tcp.example.com,infra0.example.com,2379".to_owned());
    let mut domain = Domain::new(&all);
    let node = domain.start(&Program::subject(), 0, "http://infra0.example.com:2380", &[]);
    domain.wait_ready(node);
    domain
}

#[test]
fn clients_find_members_by_their_domain() {
    let domain = domain_for_clients();
    for (name, said) in [
        (
            "example.com",
            "cannot find local etcd member \"default\" in SRV records: let one of the records (http://infra0.ex",
        ),
        ("absent.example.com", "error: discovery-srv: error setting up initial cluster: srv: too many errors"),
    ] {
        let mut check = domain.hosts.host(1).command(&Program::subject().path);
        check.args(["config", "check", "--deep", "--data-dir=/data/etcd/new", &format!("--discovery-srv={name}")]);
        let output = check.output().expect("setpriv runs");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(out.contains(said), "{said:?} in {out}");
    }
    for client in [Program::quoratectl(), Program::etcdctl()] {
        let run = |words: &[&str]| {
            let output = domain.hosts.host(1).command(&client.path).args(words).output().expect("setpriv runs");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.success(), text(&output.stdout), text(&output.stderr))
        };
        let (fine, said, complaint) = run(&["--discovery-srv=example.com", "put", "a", "1"]);
        assert!(fine && said == "OK\n", "{}: {said}{complaint}", client.name);
        // Nothing of the domain may be used then, and nobody is at the default.
        let words = ["-d", "example.com", "--insecure-discovery=false", "--command-timeout=1s", "get", "a"];
        let (fine, _, complaint) = run(&words);
        let expected = "ignoring discovered insecure endpoint \"http://infra0.example.com.:2379\"";
        assert!(!fine && complaint.contains(expected), "{}: {complaint}", client.name);
        let (fine, _, complaint) = run(&["--discovery-srv=absent.example.com", "get", "a"]);
        let expected = "dns lookup errors: lookup _etcd-client-ssl._tcp.absent.example.com on ";
        assert!(!fine && complaint.contains(expected), "{}: {complaint}", client.name);
    }
}

/// The gateway and the gRPC proxy on another host, which know nothing but the domain.
#[test]
fn proxies_find_members_by_their_domain() {
    let domain = domain_for_clients();
    for kind in ["gateway", "grpc-proxy"] {
        let host = domain.hosts.host(1);
        let log = fs::File::create(domain.hosts.directory().join(kind)).expect("our own directory");
        let mut command = host.command(&Program::subject().path);
        command.args([kind, "start", "--listen-addr=127.0.0.1:23790", "--endpoints=127.0.0.1:1"]);
        command.args(["--discovery-srv=example.com", "--insecure-discovery"]).stdin(Stdio::null()).stderr(log);
        let mut proxy = command.spawn().expect("setpriv runs");
        let put = wait_for(PATIENCE, || {
            let mut client = host.command(&Program::etcdctl().path);
            let words = ["--endpoints=127.0.0.1:23790", "--command-timeout=2s", "put", "by", kind];
            let output = client.args(words).output().expect("setpriv runs");
            output.status.success().then_some(output.stdout)
        });
        drop(proxy.kill());
        drop(proxy.wait());
        let said = fs::read_to_string(domain.hosts.directory().join(kind)).unwrap_or_default();
        assert_eq!(put.as_deref(), Some(&b"OK\n"[..]), "{kind}:\n{said}");
        assert!(said.contains("discovered endpoints"), "{kind}:\n{said}");
    }
}

/// Whoever waits for a name server cannot be interrupted; the process ends all the same.
#[test]
fn a_stop_does_not_wait_for_name_servers() {
    let mut domain = Domain::new(&[]);
    domain.hosts.host(0).run("echo nameserver 10.5.12.99 > /etc/resolv.conf");
    let address = domain.hosts.host(0).address;
    let more = ["--discovery-srv=", "--discovery=http://discovery.example.com:2379/T"];
    let node = domain.start(&Program::subject(), 0, &format!("http://{address}:2380"), &more);
    std::thread::sleep(Duration::from_secs(1));
    let asked = now();
    let pid = i32::try_from(domain.nodes[node].child.id()).expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
    let ended = wait_for(PATIENCE, || domain.exited(node));
    assert!(ended.is_some_and(|status| ended_by(status, 15)), "{ended:?}: {}", domain.log(node));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[test]
fn name_server_that_is_away_ends_the_start_with_its_name() {
    let mut domain = Domain::new(&[]);
    let server = domain.hosts.host(SERVER).address;
    domain.stop_serving();
    domain.hosts.host(0).run("echo options timeout:1 attempts:1 >> /etc/resolv.conf");
    let address = domain.hosts.host(0).address;
    let node = domain.start(&Program::subject(), 0, &format!("http://{address}:2380"), &[]);
    domain.expect_refusal(node, &format!("lookup _etcd-server._tcp.example.com on {server}:53:"));
}
