//! Members that find each other, agree, change their number, and leave: real processes on loopback.

mod support;

use std::time::Duration;

use support::{
    cluster::{Cluster, PATIENCE},
    daemon::{Daemon, STOP_LIMIT, ended_by},
    http, wait_for,
};

const TERM: i32 = 15;

/// Every member answers for all; one may die, and what was acknowledged is there when it comes back.
#[test]
fn three_members_serve_through_any_of_them_and_outlive_one() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.ctl(0, &["put", "a", "1"]).unwrap();
    for number in 0..3 {
        assert_eq!(cluster.ctl(number, &["get", "a", "--print-value-only"]).unwrap(), "1");
        cluster.ctl(number, &["put", &format!("by{number}"), "x"]).unwrap();
    }
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    let lease = cluster.ctl(follower, &["lease", "grant", "60"]).unwrap();
    let lease = lease.split_whitespace().nth(1).unwrap();
    cluster.ctl(follower, &["put", "leased", "x", "--lease", lease]).unwrap();
    for number in 0..3 {
        let kept = cluster.ctl(number, &["lease", "keep-alive", "--once", lease]).unwrap();
        assert!(kept.contains("keepalived with TTL(60)"), "{kept}");
        let life = cluster.ctl(number, &["lease", "timetolive", lease, "--keys"]).unwrap();
        assert!(life.contains("granted with TTL(60s)") && life.contains("attached keys([leased])"), "{life}");
    }
    let unknown = cluster.ctl(follower, &["lease", "timetolive", "1234"]).unwrap();
    assert!(unknown.contains("already expired"), "{unknown}");

    cluster.members[leader].kill();
    cluster.ctl_until(follower, &["put", "a", "2"]);
    cluster.members[leader].restart();
    assert_eq!(cluster.ctl(leader, &["get", "a", "--print-value-only"]).unwrap(), "2");
}

/// A leader that is asked to stop hands over first: one election, and nothing is refused meanwhile.
#[test]
fn stopping_leader_hands_over() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let term = cluster.term(one).unwrap();
    let (status, took) = cluster.members[leader].terminate();
    assert!(ended_by(status, TERM), "{status}");
    assert!(took < STOP_LIMIT);
    let successor = cluster.leader();
    assert_ne!(successor, leader);
    assert_eq!([one, other].map(|number| cluster.term(number)), [Some(term + 1); 2]);
    cluster.ctl(one, &["put", "a", "1"]).unwrap();
    assert!(cluster.members[successor].log().contains("became leader"));
}

#[test]
fn leadership_moves_on_demand() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    let (from, to) = (cluster.id(leader).unwrap(), cluster.id(follower).unwrap());
    let target = format!("{to:x}");
    let refused = cluster.ctl(follower, &["move-leader", &target]).unwrap_err();
    assert!(refused.contains("no leader endpoint given at"), "{refused}");
    assert_eq!(cluster.ctl(leader, &["move-leader", "1"]).unwrap_err(), "Error: etcdserver: bad leader transferee");
    let moved = cluster.ctl(leader, &["move-leader", &target]).unwrap();
    assert_eq!(moved, format!("Leadership transferred from {from:x} to {to:x}"));
    assert_eq!(cluster.leader_of(follower), Some(follower));
}

/// With one of three left nothing linearizable is served, in etcd's words; what is there can still be read.
#[test]
fn lost_quorum_serves_only_what_needs_none() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.ctl(0, &["put", "a", "1"]).unwrap();
    cluster.members[1].kill();
    cluster.members[2].kill();
    let leaderless = wait_for(PATIENCE, || {
        let fields = cluster.ctl(0, &["endpoint", "status", "-w", "fields"]).ok()?;
        fields.contains("\"Leader\" : 0").then_some(fields)
    });
    assert!(leaderless.expect("the leader is lost").contains("etcdserver: no leader"));
    let patient = ["--command-timeout=20s"];
    let ask = |words: &[&str]| cluster.ctl(0, &[words, &patient].concat());
    let refused = ask(&["put", "a", "2"]).unwrap_err();
    assert_eq!(refused, "Error: rpc error: code = DeadlineExceeded desc = context deadline exceeded");
    // The client tries a read again until its own time is over; what it hears is in the answer to a plain request.
    let read = http::post(cluster.members[0].client, "/v3/kv/range", r#"{"key":"YQ=="}"#).expect("an answer");
    assert!(read.body.contains("etcdserver: request timed out"), "{}", read.body);
    assert_eq!(ask(&["get", "a", "--consistency=s", "--print-value-only"]).unwrap(), "1");
}

/// From `member add` to a removed member that does not come back.
#[test]
fn members_are_added_as_learners_promoted_and_removed() {
    let mut cluster = Cluster::start(3, &[]);
    let follower = (cluster.leader() + 1) % 3;
    cluster.ctl(0, &["put", "a", "1"]).unwrap();

    let new = cluster.prepare(&[]);
    let urls = format!("--peer-urls=http://{}", cluster.members[new].peer);
    assert_eq!(
        cluster.ctl(0, &["member", "add", "m4", "--peer-urls=nope"]).unwrap_err(),
        "Error: URL scheme must be http, https, unix, or unixs: nope"
    );
    let added = cluster.ctl_until(follower, &["member", "add", "m4", &urls, "--learner"]);
    let id = added.split_whitespace().nth(1).unwrap().to_owned();
    assert!(added.contains(&format!("Member {id:>16} added as learner to cluster")), "{added}");
    // Asked of the same member: another one may not have been connected for long enough.
    let second = cluster.ctl(follower, &["member", "add", "m5", "--peer-urls=http://127.0.0.1:1", "--learner"]);
    assert_eq!(second.unwrap_err(), "Error: etcdserver: too many learner members in cluster");
    let early = cluster.ctl(follower, &["member", "promote", &id]).unwrap_err();
    assert_eq!(early, "Error: etcdserver: can only promote a learner member which is in sync with leader");

    cluster.join(new);
    let learner = |words: &[&str]| cluster.ctl(new, words);
    assert_eq!(learner(&["get", "a", "--consistency=s", "--print-value-only"]).unwrap(), "1");
    assert_eq!(learner(&["put", "a", "2"]).unwrap_err(), "Error: etcdserver: rpc not supported for learner");
    assert_eq!(learner(&["get", "a"]).unwrap_err(), "Error: etcdserver: rpc not supported for learner");

    let promoted = cluster.ctl_until(follower, &["member", "promote", &id]);
    assert!(promoted.starts_with(&format!("Member {id:>16} promoted in cluster")), "{promoted}");
    let again = cluster.ctl(follower, &["member", "promote", &id]).unwrap_err();
    assert_eq!(again, "Error: etcdserver: can only promote a learner member");
    cluster.ctl_until(new, &["put", "a", "2"]);
    assert_eq!(cluster.ctl(new, &["member", "list"]).unwrap().lines().count(), 4);

    let removed = cluster.ctl_until(follower, &["member", "remove", &id]);
    assert!(removed.starts_with(&format!("Member {id:>16} removed from cluster")), "{removed}");
    assert_eq!(cluster.ctl(follower, &["member", "remove", &id]).unwrap_err(), "Error: etcdserver: member not found");
    let ended = wait_for(PATIENCE, || cluster.members[new].exited()).expect("a removed member stops");
    assert!(ended.success(), "{ended}");
    assert!(cluster.members[new].log().contains("the member has been permanently removed from the cluster"));
    cluster.members[new].kill();
    cluster.members[new].spawn();
    let ended = wait_for(PATIENCE, || cluster.members[new].exited()).expect("it does not come back");
    assert!(!ended.success());
    cluster.expect_refusal(new, "has been permanently removed from the cluster");
}

/// A member that was removed while it was down learns it from its peers, and a leader that removes itself hands over.
#[test]
fn removed_members_learn_it_from_their_peers() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = format!("{:x}", cluster.id(one).unwrap());
    let of_leader = format!("{:x}", cluster.id(leader).unwrap());
    cluster.members[one].kill();
    cluster.ctl_until(leader, &["member", "remove", &id]);
    cluster.members[one].spawn();
    wait_for(PATIENCE, || cluster.members[one].exited()).expect("a removed member stops");
    let log = cluster.members[one].log();
    let removed: Vec<_> = log.lines().filter(|line| line.contains("has been permanently removed")).collect();
    assert_eq!(removed.len(), 1, "{log}");
    assert!(removed[0].contains(r#""level":"warn""#) && removed[0].contains("delete it, run `member add`"), "{log}");
    assert!(log.matches("no stream from a peer").count() <= 4, "one line for each peer and cause:\n{log}");

    cluster.ctl_until(leader, &["member", "remove", &of_leader]);
    wait_for(PATIENCE, || cluster.members[leader].exited()).expect("the removed leader stops");
    cluster.ctl_until(other, &["put", "a", "1"]);
    assert_eq!(cluster.ctl(other, &["member", "list"]).unwrap().lines().count(), 1);
}

/// What keeps a newcomer out, each time one line that names the cause.
#[test]
fn newcomers_are_refused_with_a_reason() {
    let mut cluster = Cluster::start(3, &[]);
    let founders = cluster.initial_cluster();
    let new = cluster.prepare(&[]);
    let peer = cluster.members[new].peer;

    cluster.begin(new, "m4", &format!("{founders},m4=http://{peer}"), "existing");
    cluster.expect_refusal(new, "member count is unequal: --initial-cluster must list every member");
    cluster.begin(new, "m4", &format!("m4=http://{peer},m5=http://127.0.0.1:1"), "existing");
    cluster.expect_refusal(new, "could not retrieve cluster information from the given urls");

    cluster.ctl_until(0, &["member", "add", "m4", &format!("--peer-urls=http://{peer}")]);
    let elsewhere = founders.replacen("m3=http://127.0.0.1:", "m3=http://127.0.0.9:", 1);
    cluster.begin(new, "m4", &format!("{elsewhere},m4=http://{peer}"), "existing");
    cluster.expect_refusal(new, "PeerURLs: no match found for existing member");
    let renamed = founders.replacen("m1=", "x=", 1);
    cluster.begin(new, "m1", &format!("{renamed},m1=http://{peer}"), "existing");
    cluster.expect_refusal(new, "already: give this member a --name of its own");
    cluster.begin(new, "m4", &format!("{founders},m4=http://{peer}"), "new");
    cluster.expect_refusal(new, "cluster ID mismatch");
    cluster.begin(new, "m4", &format!("{founders},m4=http://{peer}"), "existing");
    assert!(cluster.members[new].wait_ready(PATIENCE), "{}", cluster.members[new].log());

    cluster.members[2].kill();
    std::fs::remove_dir_all(cluster.members[2].data_dir()).unwrap();
    cluster.members[2].spawn();
    wait_for(PATIENCE, || cluster.members[2].exited()).expect("a founder without its data is refused");
    cluster.expect_refusal(2, "has already been bootstrapped");
}

/// Founders with different tokens do not found a cluster, and say why instead of waiting.
#[test]
fn founders_with_different_tokens_say_so() {
    let mut cluster = Cluster::start(0, &[]);
    for token in ["one", "other"] {
        cluster.prepare(&[&format!("--initial-cluster-token={token}")]);
    }
    let list = cluster.initial_cluster();
    for (number, name) in ["m1", "m2"].into_iter().enumerate() {
        cluster.begin(number, name, &list, "new");
    }
    let refused = wait_for(PATIENCE, || (0..2).find(|number| cluster.members[*number].exited().is_some()));
    cluster.expect_refusal(refused.expect("one of them gives up"), "cluster ID mismatch");
}

/// What is left of a lost cluster goes on as one member, with its data.
#[test]
fn forced_new_cluster_keeps_the_data_and_one_voter() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.ctl(0, &["put", "a", "1"]).unwrap();
    assert_eq!(cluster.ctl(1, &["get", "a", "--print-value-only"]).unwrap(), "1");
    cluster.members.iter_mut().for_each(Daemon::kill);
    cluster.members[1].add_argument("--force-new-cluster".to_owned());
    cluster.members[1].restart();
    assert_eq!(cluster.ctl(1, &["get", "a", "--print-value-only"]).unwrap(), "1");
    assert_eq!(cluster.ctl(1, &["member", "list"]).unwrap().lines().count(), 1);
    cluster.ctl(1, &["put", "a", "2"]).unwrap();
}

/// The members it leaves behind said once a second, for ever, that they were removed.
#[test]
fn members_left_behind_by_a_forced_new_cluster_say_so_once_and_what_to_do() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.members[0].kill();
    cluster.members[0].add_argument("--force-new-cluster".to_owned());
    cluster.members[0].restart();
    let told = |cluster: &Cluster, number: usize| {
        cluster.members[number].log().matches("a peer says that this member was removed").count()
    };
    for number in [1, 2] {
        wait_for(PATIENCE, || (told(&cluster, number) > 0).then_some(())).expect("it is told");
    }
    std::thread::sleep(Duration::from_secs(5));
    for number in [1, 2] {
        let log = cluster.members[number].log();
        assert_eq!(told(&cluster, number), 1, "{log}");
        assert!(log.contains("--force-new-cluster or from a backup") && log.contains("run `member add`"), "{log}");
        assert!(log.matches("no stream from a peer").count() <= 4, "{log}");
        cluster.ctl_until(number, &["put", "a", "1"]);
    }
}

/// The cluster's version can be led down and back.
#[test]
fn downgrades_are_allowed_and_taken_back() {
    let cluster = Cluster::start(1, &[]);
    let ctl = |words: &[&str]| cluster.ctl(0, words);
    assert_eq!(
        ctl(&["downgrade", "validate", "x"]).unwrap_err(),
        "Error: etcdserver: wrong downgrade target version format"
    );
    assert_eq!(
        ctl(&["downgrade", "validate", "3.5"]).unwrap_err(),
        "Error: etcdserver: invalid downgrade target version"
    );
    let success = |what: &str| format!("Downgrade {what} success, cluster version 3.7");
    assert_eq!(ctl(&["downgrade", "validate", "3.6"]).unwrap(), success("validate"));
    assert_eq!(ctl(&["downgrade", "enable", "3.6.0"]).unwrap(), success("enable"));
    assert_eq!(
        ctl(&["downgrade", "validate", "3.6"]).unwrap_err(),
        "Error: etcdserver: cluster has a downgrade job in progress"
    );
    let fields = ctl(&["endpoint", "status", "-w", "fields"]).unwrap();
    assert!(fields.contains("\"DowngradeTargetVersion\" : \"3.6.0\""), "{fields}");
    let lowered = wait_for(Duration::from_secs(15), || {
        ctl(&["endpoint", "status", "-w", "fields"]).ok()?.contains("\"StorageVersion\" : \"3.6.0\"").then_some(())
    });
    assert!(lowered.is_some(), "the leader lowers the version");
    ctl(&["downgrade", "cancel"]).unwrap();
    let fields = ctl(&["endpoint", "status", "-w", "fields"]).unwrap();
    assert!(fields.contains("\"DowngradeEnabled\" : false"), "{fields}");
}
