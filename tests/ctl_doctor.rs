//! `doctor` at living clusters: it is silent at one that is well, and names what it finds wrong from outside. What no living
//! cluster can be brought to in a test is planted among the unit tests of its rules.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{net::TcpListener, time::Duration};

use support::{certificates::Authority, cluster::Cluster, daemon::Daemon, program::Program, wait_for};

/// The names of what was found, and the exit code.
fn examined(endpoints: &str, flags: &[&str]) -> (Vec<String>, i32) {
    let mut command = Program::quoratectl().command();
    let output = command.args(["doctor", "-w", "json", "--endpoints", endpoints]).args(flags).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let findings: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{endpoints}: {error}: {said}"));
    let codes = findings.as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap().to_owned());
    (codes.collect(), output.status.code().unwrap())
}

fn found(endpoints: &str, flags: &[&str], codes: &[&str]) {
    let exit = i32::from(codes.iter().any(|code| !HINTS.contains(code)));
    let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
    assert_eq!(examined(endpoints, flags), (codes, exit), "{endpoints}");
}

/// The same once a cluster is over what has just happened to it.
fn eventually(endpoints: &str, codes: &[&str]) {
    let settled = wait_for(PATIENCE, || {
        let (found, _) = examined(endpoints, &["--command-timeout=2s"]);
        (found == codes).then_some(())
    });
    assert!(settled.is_some(), "{endpoints}: {:?}", examined(endpoints, &["--command-timeout=2s"]));
}

/// Longest wait for an election.
const PATIENCE: Duration = Duration::from_secs(30);

/// Findings that do not count as failures.
const HINTS: [&str; 3] = ["missing-endpoints", "same-member", "single-member"];

#[test]
fn a_cluster_that_is_well_and_then_loses_a_member() {
    let mut cluster = Cluster::start(3, &[]);
    let endpoints: Vec<String> = cluster.members.iter().map(Daemon::endpoint).collect();
    let all = endpoints.join(",");
    found(&all, &["--hashes"], &[]);
    let mut command = Program::quoratectl().command();
    let output = command.args(["doctor", "--endpoints", &all]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "no mistake found: 3 members, 3 endpoints\n");
    found(&endpoints[0], &[], &["missing-endpoints"]);

    cluster.members[2].kill();
    // It may have been the leader: the others first elect another.
    eventually(&endpoints[..2].join(","), &["unreachable-member", "missing-endpoints"]);
    eventually(&all, &["unreachable-endpoint"]);
    cluster.members[1].kill();
    let (codes, exit) = examined(&endpoints[0], &["--command-timeout=2s"]);
    assert!(codes.iter().any(|code| code == "no-leader" || code == "no-quorum"), "{codes:?}");
    assert_eq!(exit, 1);
}

#[test]
fn mistakes_in_endpoints_are_told_apart() {
    let (one, other) = (Daemon::start(&Program::subject(), &[]), Daemon::start(&Program::etcd(), &[]));
    let (endpoint, place) = (one.endpoint(), one.client.to_string());
    found(&endpoint, &[], &["single-member"]);
    found(&format!("{endpoint},{place}"), &[], &["duplicate-endpoint", "single-member"]);
    found(&format!("{endpoint},http://localhost:{}", one.client.port()), &[], &["same-member", "single-member"]);
    found(&format!("{endpoint},{}", other.endpoint()), &[], &["different-clusters", "single-member"]);
    found(&format!("https://{place}"), &["--command-timeout=1s"], &["plain-expected"]);
    found(&one.peer.to_string(), &["--command-timeout=1s"], &["peer-port"]);
    found(&other.peer.to_string(), &["--command-timeout=1s"], &["peer-port"]);

    // Something that listens and never answers, and a port where nobody does.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let limits = ["--command-timeout=1s", "--dial-timeout=1s"];
    found(&silent.local_addr().unwrap().to_string(), &limits, &["unreachable-endpoint"]);
    let closed = silent.local_addr().unwrap();
    drop(silent);
    found(&closed.to_string(), &limits, &["unreachable-endpoint"]);
}

#[test]
fn certificates_are_looked_at() {
    let authority = Authority::new("our authority");
    let ca = format!("--cacert={}", authority.file().display());
    // The certificates of these tests end within a day.
    let served = encrypted(&authority.issue("server", &["127.0.0.1"]).flags("--"));
    let place = served.client.to_string();
    found(&format!("https://{place}"), &[&ca], &["certificate-ends", "single-member"]);
    found(&format!("http://{place}"), &["--command-timeout=1s"], &["tls-expected"]);
    let (codes, _) = examined(&format!("https://{place}"), &["--command-timeout=1s"]);
    assert!(codes.contains(&"handshake-failed".to_owned()), "{codes:?}");
    let misnamed = encrypted(&authority.issue("misnamed", &["elsewhere.example"]).flags("--"));
    let (codes, _) = examined(&format!("https://{}", misnamed.client), &[&ca, "--command-timeout=1s"]);
    assert!(codes.contains(&"certificate-names".to_owned()), "{codes:?}");
}

fn encrypted(flags: &[String; 2]) -> Daemon {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), &Program::subject(), &flags);
    daemon.client_scheme = "https";
    daemon.restart();
    daemon
}

#[test]
fn authentication_wants_a_name() {
    let daemon = Daemon::start(&Program::etcd(), &[]);
    let endpoint = daemon.endpoint();
    for words in
        [vec!["user", "add", "root:secret"], vec!["user", "grant-role", "root", "root"], vec!["auth", "enable"]]
    {
        let output = Program::etcdctl().command().args(["--endpoints", &endpoint]).args(&words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let (codes, exit) = examined(&endpoint, &[]);
    assert!(codes.contains(&"login-needed".to_owned()) && exit == 1, "{codes:?}");
    found(&endpoint, &["--user=root:secret"], &["single-member"]);
}
