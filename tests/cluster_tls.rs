//! Members that speak TLS with each other: of our kind and of etcd's, known to each other by an authority or, with
//! certificates of their own making, not at all.

#![expect(clippy::indexing_slicing, reason = "members are counted by the tests that made them")]

mod support;

use std::time::Duration;

use support::{
    certificates::{Authority, Pair},
    cluster::{Cluster, PATIENCE},
    program::Program,
    wait_for,
};

/// Where all members are.
const HERE: [&str; 1] = ["127.0.0.1"];
/// Longer than members need to find each other.
const LONG_ENOUGH: Duration = Duration::from_secs(6);

/// Flags of a member that shows `pair` and demands one of `authority`.
fn mutual(authority: &Authority, pair: &Pair) -> Vec<String> {
    let trusted = format!("--peer-trusted-ca-file={}", authority.file().display());
    pair.flags("--peer-").into_iter().chain(["--peer-client-cert-auth".to_owned(), trusted]).collect()
}

/// Founders of these kinds, each with its flags.
fn found(founders: &[(Program, Vec<String>)]) -> Cluster {
    let flags: Vec<Vec<&str>> = founders.iter().map(|(_, flags)| flags.iter().map(String::as_str).collect()).collect();
    Cluster::found_over("https", founders.iter().zip(&flags).map(|((program, _), flags)| (program, flags.as_slice())))
}

/// What is written at each member can be read at the next one, with leases, whoever leads.
fn expect_agreement(cluster: &Cluster) {
    let size = cluster.members.len();
    for writer in 0..size {
        let (reader, value) = ((writer + 1) % size, format!("from {writer}"));
        cluster.ctl_until(writer, &["put", "key", &value]);
        assert_eq!(cluster.ctl_until(reader, &["get", "key", "--print-value-only"]), value);
        let granted = cluster.ctl_until(writer, &["lease", "grant", "60"]);
        let lease = granted.split(' ').nth(1).expect("an identifier");
        assert!(cluster.ctl_until(reader, &["lease", "timetolive", lease]).contains("granted with TTL(60s)"));
    }
}

#[test]
fn members_know_each_other_by_their_authority() {
    let authority = Authority::new("ca");
    let flags = mutual(&authority, &authority.issue("peer", &HERE));
    let mut cluster = found(&vec![(Program::subject(), flags); 3]);
    expect_agreement(&cluster);
    assert!(cluster.members[0].log().contains("starting with peer TLS"));
    let leader = cluster.leader();
    cluster.members[leader].kill();
    let other = (leader + 1) % 3;
    cluster.ctl_until(other, &["put", "key", "without the leader"]);
    cluster.members[leader].restart();
    expect_agreement(&cluster);
}

/// The newcomer asks over TLS who belongs to the cluster, is sent a snapshot, and takes part.
#[test]
fn newcomer_joins_over_tls() {
    let authority = Authority::new("ca");
    let mut flags = mutual(&authority, &authority.issue("peer", &HERE));
    flags.extend(["--snapshot-count=10", "--snapshot-catchup-entries=1"].map(str::to_owned));
    let mut cluster = found(&[(Program::subject(), flags.clone())]);
    for number in 0..40 {
        cluster.ctl_until(0, &["put", &format!("key{number}"), "value"]);
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let new = cluster.prepare(&flags);
    let peer = format!("--peer-urls=https://{}", cluster.members[new].peer);
    cluster.ctl_until(0, &["member", "add", "m2", &peer]);
    cluster.join(new);
    assert_eq!(cluster.ctl_until(new, &["get", "key39", "--print-value-only"]), "value");
    expect_agreement(&cluster);
}

#[test]
fn members_of_both_kinds_speak_tls_with_each_other() {
    let authority = Authority::new("ca");
    let flags = mutual(&authority, &authority.issue("peer", &HERE));
    let (ours, theirs) = (Program::subject(), Program::etcd());
    let mut cluster = found(&[(theirs, flags.clone()), (ours.clone(), flags.clone()), (ours, flags.clone())]);
    expect_agreement(&cluster);
    // Whoever leads, the others hear of it over TLS.
    for next in [0, 1, 0] {
        let id = format!("{:x}", cluster.id(next).expect("it runs"));
        cluster.ctl_until(cluster.leader(), &["move-leader", &id]);
        expect_agreement(&cluster);
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let new = cluster.prepare(&flags);
    let peer = format!("--peer-urls=https://{}", cluster.members[new].peer);
    cluster.ctl_until(0, &["member", "add", "m4", &peer]);
    cluster.join(new);
    expect_agreement(&cluster);
}

/// etcd's own certificates have keys that the library can neither use nor check.
#[test]
fn certificates_of_their_own_making_are_not_looked_at() {
    let flags = vec!["--peer-auto-tls".to_owned()];
    let (ours, theirs) = (Program::subject(), Program::etcd());
    let cluster = found(&[(theirs, flags.clone()), (ours.clone(), flags.clone()), (ours, flags)]);
    expect_agreement(&cluster);
    assert!(cluster.members[1].data_dir().join("fixtures/peer/cert.pem").exists());
}

/// Two founders that know each other, and a third whose certificates say something else: it never takes part, and both
/// sides say why.
fn expect_left_out(third: &[String], known: &[String], told: &str, heard: &str) {
    let mut cluster = Cluster::found_over("https", []);
    for flags in [known, known, third] {
        cluster.prepare(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let list = cluster.initial_cluster();
    for member in &mut cluster.members {
        member.add_argument(format!("--initial-cluster={list}"));
        member.spawn();
    }
    for member in &mut cluster.members[..2] {
        assert!(member.wait_ready(PATIENCE), "{}", member.log());
    }
    let log = || cluster.members[0].log() + &cluster.members[1].log();
    let line = wait_for(PATIENCE, || {
        log().lines().find(|line| line.contains("rejected connection on peer endpoint")).map(str::to_owned)
    });
    let line = line.unwrap_or_else(|| panic!("nobody is rejected:\n{}", log()));
    assert!(line.contains(told), "{line}");
    assert!(!cluster.members[2].wait_ready(LONG_ENOUGH), "it serves:\n{}", cluster.members[2].log());
    assert!(cluster.members[2].log().contains(heard), "{heard:?} is not in\n{}", cluster.members[2].log());
    cluster.ctl_until(0, &["put", "key", "value"]);
}

#[test]
fn member_with_a_foreign_authority_is_not_let_in() {
    let (authority, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let known = mutual(&authority, &authority.issue("peer", &HERE));
    // It trusts the others, who do not trust it.
    let third = mutual(&authority, &stranger.issue("peer", &HERE));
    let unknown = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    expect_left_out(&third, &known, unknown, "remote error: tls: ");
    // They would trust it, which does not trust them.
    let third = mutual(&stranger, &authority.issue("peer3", &HERE));
    expect_left_out(&third, &known, "remote error: tls: ", unknown);
}

/// A certificate that was taken from another host is of no use, unless the names are not to be compared. Its member is
/// dialled by the others all the same.
#[test]
fn members_show_certificates_where_these_belong() {
    let authority = Authority::new("ca");
    let mut flags = mutual(&authority, &authority.issue("peer", &HERE));
    flags.extend(authority.issue("elsewhere", &["10.9.8.7"]).flags("--peer-client-"));
    let told = "x509: certificate is valid for 10.9.8.7, not 127.0.0.1";
    let mut cluster = Cluster::found_over("https", []);
    for _ in 0..2 {
        cluster.prepare(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let list = cluster.initial_cluster();
    for member in &mut cluster.members {
        member.add_argument(format!("--initial-cluster={list}"));
        member.spawn();
    }
    let rejected = wait_for(PATIENCE, || cluster.members[0].log().contains(told).then_some(()));
    assert!(rejected.is_some(), "{}", cluster.members[0].log());
    flags.push("--peer-skip-client-san-verification".to_owned());
    let cluster = found(&vec![(Program::subject(), flags); 2]);
    expect_agreement(&cluster);
    assert!(!cluster.members[0].log().contains("rejected connection"));
}
