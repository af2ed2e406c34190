//! Rules for the names in certificates and lists of revoked ones: the same certificates are let in and turned away as by the
//! real etcd, on client and on peer listeners.

mod support;

use std::{fs, os::unix::fs::symlink, path::Path, process::Command, time::Duration};

use support::{
    certificates::{Authority, Pair},
    daemon::{Daemon, READY_LIMIT},
    program::Program,
    wait_for,
};

/// Whom the certificates of servers name.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];
/// Longest wait for something a daemon writes.
const PATIENCE: Duration = Duration::from_secs(20);
/// What etcd says of a certificate without the right name.
const UNNAMED: &str = "client certificate authentication failed";

/// The kind of listener that is knocked at.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Client,
    Peer,
}

impl Side {
    fn prefix(self) -> &'static str {
        if self == Self::Client { "" } else { "peer-" }
    }
}

/// What the certificates of a test are signed by, and who shows them.
struct World {
    authority: Authority,
    server: Pair,
    /// Those who knock, by what is special about them.
    clients: Vec<(&'static str, Pair)>,
}

impl World {
    fn new() -> Self {
        let authority = Authority::new("ca");
        let server = authority.issue("server", &HOSTS);
        let own = ["127.0.0.1", "localhost"];
        let clients = vec![
            ("plain", authority.issue("plain", &own)),
            ("nameless", authority.issue("nameless", &[])),
            ("c.example", authority.issue("cn-c.example", &["127.0.0.1", "c.example"])),
            ("capitals", authority.issue("CAPITALS", &["127.0.0.1", "C.EXAMPLE"])),
            ("wildcard", authority.issue("wildcard", &["127.0.0.1", "*.example"])),
            ("other address", authority.issue("other", &["10.1.2.3"])),
        ];
        Self { authority, server, clients }
    }

    fn client(&self, name: &str) -> &Pair {
        self.clients.iter().find(|(own, _)| *own == name).map(|(_, pair)| pair).expect("there is one")
    }

    /// A daemon with these rules, and who is let in.
    fn outcome(&self, program: &Program, side: Side, rules: &[String]) -> (Vec<&'static str>, Daemon) {
        let prefix = format!("--{}", side.prefix());
        let mut flags: Vec<String> = self.server.flags(&prefix).into();
        flags.push(format!("{prefix}trusted-ca-file={}", self.authority.file().display()));
        flags.extend(rules.iter().map(|rule| format!("--{rule}")));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut daemon = Daemon::prepare(&std::env::temp_dir(), program, &flags);
        match side {
            Side::Client => daemon.client_scheme = "https",
            Side::Peer => daemon.peer_scheme = "https",
        }
        daemon.spawn();
        assert!(daemon.wait_ready(READY_LIMIT), "{} {rules:?}:\n{}", program.name, daemon.log());
        let url = match side {
            Side::Client => format!("https://{}/version", daemon.client),
            Side::Peer => format!("https://{}/version", daemon.peer),
        };
        let is_let_in = |(name, pair): &(&'static str, Pair)| self.knocks(pair, &url).then_some(*name);
        (self.clients.iter().filter_map(is_let_in).collect(), daemon)
    }

    fn knocks(&self, pair: &Pair, url: &str) -> bool {
        let output = Command::new("curl")
            .args(["-sS", "--http1.1", "--no-alpn", "--max-time", "10", "--cacert"])
            .arg(self.authority.file())
            .arg("--cert")
            .arg(&pair.cert)
            .arg("--key")
            .arg(&pair.key)
            .arg(url)
            .output()
            .expect("curl is installed: apt-get install curl");
        output.status.success()
    }

    /// Both let in the same ones, who are told.
    fn expect_same(&self, side: Side, rules: &[String], expected: &[&str]) {
        for program in [Program::etcd(), Program::subject()] {
            let (let_in, daemon) = self.outcome(&program, side, rules);
            assert_eq!(let_in, expected, "{} {rules:?}:\n{}", program.name, daemon.log());
        }
    }
}

/// How a list of names or revoked certificates is told to a side, as flags.
fn rule(name: &str, value: &str) -> Vec<String> {
    vec![format!("{name}={value}")]
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn names_of_clients_are_compared_as_by_etcd() {
    let world = World::new();
    for (hosts, expected) in [
        ("c.example", vec!["c.example", "capitals", "wildcard"]),
        ("nobody,10.1.2.3", vec!["other address"]),
        ("localhost", vec!["plain"]),
        ("plain", vec![]),
    ] {
        world.expect_same(Side::Client, &rule("client-cert-allowed-hostname", hosts), &expected);
    }
}

#[test]
fn names_of_members_are_compared_as_by_etcd() {
    let world = World::new();
    for (option, names, expected) in [
        ("peer-cert-allowed-cn", "plain,CAPITALS,other", vec!["plain", "capitals"]),
        ("peer-cert-allowed-cn", "capitals", vec![]),
        ("peer-cert-allowed-hostname", "b.example,127.0.0.1", vec!["plain", "c.example", "capitals", "wildcard"]),
    ] {
        world.expect_same(Side::Peer, &rule(option, names), &expected);
    }
    let skipping =
        [&rule("peer-cert-allowed-cn", "other,nameless")[..], &rule("peer-skip-client-san-verification", "true")];
    world.expect_same(Side::Peer, &skipping.concat(), &["nameless", "other address"]);
    let (_, daemon) = world.outcome(&Program::subject(), Side::Peer, &rule("peer-cert-allowed-cn", "x"));
    let told = wait_for(PATIENCE, || daemon.log().contains(UNNAMED).then_some(()));
    assert!(told.is_some(), "{}", daemon.log());
}

/// How many others may stand beneath an authority was not looked at.
#[test]
fn chains_that_are_too_long_are_turned_away_as_by_etcd() {
    let authority = Authority::limited("strict", 1);
    let first = authority.below("first");
    let clients = vec![
        ("none between", authority.issue("none", &HOSTS)),
        ("one between", first.issue_chain("one", &HOSTS)),
        ("two between", {
            let second = first.below("second");
            let pair = second.issue_chain("two", &HOSTS);
            let chain = [&pair.cert, &first.file()].map(|file| fs::read_to_string(file).expect("a file"));
            let (cert, key) = (first.file().with_file_name("two.crt"), first.file().with_file_name("two.key"));
            fs::write(&cert, chain.concat()).expect("a file");
            fs::copy(&pair.key, &key).expect("a file");
            Pair { cert, key }
        }),
    ];
    let world = World { server: authority.issue("server", &HOSTS), authority, clients };
    for side in [Side::Client, Side::Peer] {
        world.expect_same(side, &[], &["none between", "one between"]);
    }
}

#[test]
fn revoked_certificates_are_turned_away_as_by_etcd() {
    let world = World::new();
    let revoked = ["plain", "wildcard", "other address"].map(|name| world.client(name));
    let [der, pem] = world.authority.revoke("some", &revoked);
    let [none, _] = world.authority.revoke("none", &[]);
    let left = ["nameless", "c.example", "capitals"];
    world.expect_same(Side::Client, &rule("client-crl-file", &path(&der)), &left);
    world.expect_same(Side::Peer, &rule("peer-crl-file", &path(&der)), &left);
    let everybody: Vec<&str> = world.clients.iter().map(|(name, _)| *name).collect();
    world.expect_same(Side::Client, &rule("client-crl-file", &path(&none)), &everybody);
    // etcd 3.7 takes no list in PEM and turns everybody away then; 3.4 read both kinds.
    let (let_in, daemon) = world.outcome(&Program::subject(), Side::Client, &rule("client-crl-file", &path(&pem)));
    assert_eq!(let_in, left);
    let serial = format!("transport: certificate serial {:x} revoked", world.authority.serial(revoked[0]));
    assert!(daemon.log().contains(&serial), "{serial}:\n{}", daemon.log());
    assert_eq!(world.outcome(&Program::etcd(), Side::Client, &rule("client-crl-file", &path(&pem))).0, [""; 0]);
}

/// A list that is put in place of another one, by name or by a link as Kubernetes does it, counts at once.
#[test]
fn a_new_list_counts_for_the_next_connection() {
    let world = World::new();
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let plain = world.client("plain");
    for (version, revoked) in [("v1", &[][..]), ("v2", &[plain])] {
        fs::create_dir(place(version)).expect("a directory");
        fs::copy(&world.authority.revoke(version, revoked)[0], place(version).join("crl")).expect("a copy");
    }
    symlink("v1", place("..data")).expect("a link");
    symlink("..data/crl", place("crl")).expect("a link");
    let (let_in, daemon) =
        world.outcome(&Program::subject(), Side::Client, &rule("client-crl-file", &path(&place("crl"))));
    assert!(let_in.contains(&"plain"), "{let_in:?}");
    symlink("v2", place("..new")).expect("a link");
    fs::rename(place("..new"), place("..data")).expect("a swap");
    let url = format!("https://{}/version", daemon.client);
    assert!(!world.knocks(plain, &url), "it counts at once");
    assert!(world.knocks(world.client("c.example"), &url));
    fs::write(place("v2/crl"), "damaged").expect("written");
    assert!(!world.knocks(plain, &url), "the last good list stays in force");
    assert!(world.knocks(world.client("c.example"), &url));
    let told = wait_for(PATIENCE, || daemon.log().contains("cannot use a changed revocation list").then_some(()));
    assert!(told.is_some(), "{}", daemon.log());
}

#[test]
fn rules_that_cannot_be_kept_end_the_start() {
    let world = World::new();
    let both = [rule("peer-cert-allowed-cn", "a"), rule("peer-cert-allowed-hostname", "b,c")].concat();
    let told = r#"AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a"], hostnames=["b" "c"])"#;
    let key = path(&world.server.key);
    for (rules, told, both_say) in [
        (both, told, true),
        (rule("client-crl-file", "/absent.crl"), "open /absent.crl: no such file or directory", false),
        (rule("client-crl-file", &key), "x509: malformed crl: it needs a section BEGIN X509 CRL", false),
    ] {
        for program in [Program::etcd(), Program::subject()].iter().filter(|own| both_say || own.name != "etcd") {
            let mut flags: Vec<String> = [world.server.flags("--"), world.server.flags("--peer-")].concat();
            flags.push(format!("--trusted-ca-file={}", world.authority.file().display()));
            flags.extend(rules.iter().map(|rule| format!("--{rule}")));
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let mut daemon = Daemon::prepare(&std::env::temp_dir(), program, &flags);
            (daemon.client_scheme, daemon.peer_scheme) = ("https", "https");
            daemon.spawn();
            let ended = wait_for(PATIENCE, || daemon.exited());
            assert_eq!(ended.and_then(|status| status.code()), Some(1), "{}: {}", program.name, daemon.log());
            let log = daemon.log().replace("\\\"", "\"");
            assert!(log.contains(told), "{}: {told}:\n{log}", program.name);
        }
    }
}
