//! Members whose states went apart are found out; equal ones are left alone. Real processes on loopback.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread::sleep,
    time::Duration,
};

use bytes::Bytes;
use quorate::{
    lease::LeaseRow,
    storage::{Engine as _, FjallEngine, FjallOptions, Read as _, Table, Writes},
    types::LeaseId,
};
use support::{
    cluster::{Cluster, PATIENCE},
    daemon::Daemon,
    http::{self, Answer},
    now,
    program::Program,
    wait_for,
};

/// A lease that only the corrupted member has. It is refused by the others what is attached to it.
const PLANTED: i64 = 7;
const ATTACHED: &str = r#"{"key":"YQ==","value":"MQ==","lease":"7"}"#;

/// The state of a member that does not run.
fn state(data_dir: &Path) -> FjallEngine {
    let states = data_dir.join("member/state");
    let state = states.join(fs::read_to_string(states.join("CURRENT")).unwrap().trim());
    FjallEngine::open(&state, &FjallOptions::default()).unwrap()
}

fn write(engine: &FjallEngine, key: Bytes, value: Bytes) {
    engine.commit(Writes::from_rows(vec![(key, Some(value))])).unwrap();
    engine.persist().unwrap();
}

/// Plants a lease in the state of a member that does not run.
fn corrupt(data_dir: &Path) {
    let lease = LeaseRow { id: LeaseId(PLANTED), ttl: 10_000, remaining: 0 };
    write(&state(data_dir), Table::Lease.key(&LeaseRow::key_of(lease.id)), lease.value());
}

/// Turns a bit of the sum of the first change, as a disk might. No entry ever shows it.
fn rot(data_dir: &Path) {
    let engine = state(data_dir);
    let (key, value) = engine.snapshot().rows(Table::Revision).next().unwrap().unwrap();
    // Flags, the length of a short row in one byte, and its sum.
    let mut value = value.to_vec();
    value[2] ^= 1;
    write(&engine, Table::Revision.key(&key), value.into());
}

/// Does something to the state of a follower while it is down: its number.
fn tamper(cluster: &mut Cluster, with: fn(&Path)) -> usize {
    let follower = (cluster.leader() + 1) % 3;
    cluster.members[follower].terminate();
    with(&cluster.members[follower].data_dir());
    cluster.members[follower].restart();
    follower
}

/// A cluster of three, one of whose followers holds what the others do not: its number.
fn with_a_corrupted_follower(arguments: &[&str]) -> (Cluster, usize) {
    let mut cluster = Cluster::start(3, arguments);
    cluster.ctl(0, &["put", "before", "x"]).unwrap();
    let follower = tamper(&mut cluster, corrupt);
    (cluster, follower)
}

/// The alarms that are up, once there are any.
fn alarms(cluster: &Cluster, number: usize) -> String {
    let listed = || cluster.ctl(number, &["alarm", "list"]).ok().filter(|alarms| !alarms.is_empty());
    wait_for(PATIENCE, listed).expect("an alarm")
}

/// Puts a key a few times and compacts to the newest revision: `before` lives on, and three versions go.
fn compact(cluster: &Cluster, number: usize) {
    for value in ["1", "2", "3", "4"] {
        cluster.ctl_until(number, &["put", "a", value]);
    }
    let read: serde_json::Value = serde_json::from_str(&cluster.ctl_until(number, &["get", "a", "-w=json"])).unwrap();
    cluster.ctl_until(number, &["compact", &read["header"]["revision"].to_string()]);
}

fn await_log(member: &Daemon, text: &str) {
    let said = wait_for(PATIENCE, || member.log().contains(text).then_some(()));
    assert!(said.is_some(), "nobody says {text:?}:\n{}", member.log());
}

/// A `GET` with a body, as members ask each other.
fn ask(address: SocketAddr, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(stream, "GET /members/hashkv HTTP/1.0\r\n{headers}Content-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), body: body.to_owned() }
}

fn differences(cluster: &Cluster) -> usize {
    let count = |log: String| log.lines().filter(|line| line.contains("the states of two members differ")).count();
    cluster.members.iter().map(|member| count(member.log())).sum()
}

/// The digests of all members once they stand at the same entry.
fn settled_digests(cluster: &Cluster) -> Vec<serde_json::Value> {
    let told = || {
        let said = cluster.members.iter().map(|member| http::get(member.peer, "/members/digest").ok());
        let said: Option<Vec<serde_json::Value>> =
            said.map(|answer| serde_json::from_str(&answer?.body).ok()).collect();
        let points: Vec<_> = said?.iter().map(|said| said["points"][0].clone()).collect();
        points.iter().all(|point| point["index"] == points[0]["index"]).then_some(points)
    };
    wait_for(PATIENCE, told).expect("members that have applied the same entries")
}

#[test]
fn first_differing_entry_is_found_and_stops_all_writes() {
    let (cluster, wrong) = with_a_corrupted_follower(&[]);
    let leader = cluster.leader();
    cluster.ctl_until(leader, &["put", "still", "equal"]);
    sleep(Duration::from_secs(1));
    assert_eq!((differences(&cluster), cluster.ctl(leader, &["alarm", "list"]).unwrap()), (0, String::new()));

    let begun = now();
    let refused = http::post(cluster.members[leader].client, "/v3/kv/put", ATTACHED).unwrap();
    assert!(refused.body.contains("requested lease not found"), "{}", refused.body);
    let alarms = alarms(&cluster, leader);
    println!("known after {:?}", begun.elapsed());
    let id = cluster.id(wrong).unwrap();
    assert_eq!(alarms, format!("memberID:{id} alarm:CORRUPT"));
    for number in 0..3 {
        let refused = cluster.ctl(number, &["put", "a", "2"]).unwrap_err();
        assert!(refused.ends_with("etcdserver: corrupt cluster"), "{refused}");
    }
    let log = cluster.members[leader].log();
    let told = log.lines().find(|line| line.contains("the states of two members differ")).expect("an error record");
    let told: serde_json::Value = serde_json::from_str(told).unwrap();
    assert_eq!((told["level"].as_str(), told["peer"].as_str()), (Some("error"), Some(format!("{id:x}").as_str())));
    assert!(told["index"].is_u64() && told["own"] != told["theirs"], "{told}");
}

#[test]
fn equal_members_agree_whatever_happens() {
    let mut cluster = Cluster::start(3, &[]);
    for round in 0..4_usize {
        let number = round % 3;
        let lease = cluster.ctl_until(number, &["lease", "grant", "600"]);
        let lease = lease.split_whitespace().nth(1).unwrap().to_owned();
        for key in ["a", "b", "c"] {
            cluster.ctl_until(number, &["put", key, &format!("{round}"), "--lease", &lease]);
        }
        cluster.ctl_until(number, &["del", "b"]);
        cluster.ctl_until(number, &["lease", "revoke", &lease]);
        let revision = cluster.ctl_until(number, &["get", "a", "--write-out=json"]);
        let revision: serde_json::Value = serde_json::from_str(&revision).unwrap();
        cluster.ctl_until(number, &["compact", &revision["header"]["revision"].to_string()]);
        let leader = cluster.leader();
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        cluster.members[victim].kill();
        cluster.ctl_until((victim + 1) % 3, &["put", "meanwhile", "x"]);
        cluster.members[victim].restart();
        sleep(Duration::from_millis(600));
    }
    let digests = settled_digests(&cluster);
    assert!(digests.iter().all(|digest| *digest == digests[0] && digest["since"] == 0), "{digests:?}");
    assert_eq!((differences(&cluster), cluster.ctl_until(0, &["alarm", "list"])), (0, String::new()));
}

#[test]
fn hash_is_told_on_the_peer_port_as_etcd_tells_it() {
    let cluster = Cluster::start(1, &[]);
    let peer = cluster.members[0].peer;
    for value in ["1", "2", "3"] {
        cluster.ctl(0, &["put", "a", value]).unwrap();
    }
    cluster.ctl(0, &["compact", "3"]).unwrap();
    let answer = ask(peer, "", r#"{"revision":4}"#);
    let told: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let by_client = http::post(cluster.members[0].client, "/v3/maintenance/hashkv", r#"{"revision":4}"#).unwrap();
    let by_client: serde_json::Value = serde_json::from_str(&by_client.body).unwrap();
    assert_eq!(told["hash"], by_client["hash"]);
    assert_eq!(told["header"], serde_json::json!({ "revision": 4 }));
    assert_eq!((&told["compact_revision"], &told["hash_revision"]), (&3.into(), &4.into()));

    for (headers, body, status, text) in [
        ("", r#"{"revision":2}"#, 400, "mvcc: required revision has been compacted\n"),
        ("", r#"{"revision":99}"#, 400, "mvcc: required revision is a future revision\n"),
        ("", "nonsense", 400, "error unmarshalling request\n"),
        ("X-Etcd-Cluster-ID: 1\r\n", "{}", 412, "cluster ID mismatch\n"),
    ] {
        let answer = ask(peer, headers, body);
        assert_eq!((answer.status, answer.body.as_str()), (status, text), "{headers}{body}");
    }
    assert_eq!(http::post(peer, "/members/hashkv", "{}").unwrap().status, 405);
}

#[test]
fn periodic_check_finds_what_no_entry_shows() {
    let mut cluster = Cluster::start(3, &["--corrupt-check-time=1s"]);
    cluster.ctl(0, &["put", "before", "x"]).unwrap();
    compact(&cluster, 0);
    let leader = cluster.leader();
    await_log(&cluster.members[leader], "finished peer corruption check");
    sleep(Duration::from_secs(2));
    assert_eq!(cluster.ctl(leader, &["alarm", "list"]).unwrap(), "");

    let wrong = tamper(&mut cluster, rot);
    let id = cluster.id(wrong).unwrap();
    assert_eq!(alarms(&cluster, leader), format!("memberID:{id} alarm:CORRUPT"));
    await_log(&cluster.members[leader], "same compact revision then hashes must match");
    assert_eq!(differences(&cluster), 0);
}

#[test]
fn check_at_compactions_finds_what_no_entry_shows() {
    let flags = ["--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=1s"];
    let mut cluster = Cluster::start(3, &flags);
    cluster.ctl(0, &["put", "before", "x"]).unwrap();
    compact(&cluster, 0);
    let leader = cluster.leader();
    await_log(&cluster.members[leader], "successfully checked hash on whole cluster");

    let wrong = tamper(&mut cluster, rot);
    sleep(Duration::from_secs(2));
    assert_eq!(cluster.ctl(leader, &["alarm", "list"]).unwrap(), "", "there was no compaction");
    compact(&cluster, leader);
    let id = cluster.id(wrong).unwrap();
    assert_eq!(alarms(&cluster, leader), format!("memberID:{id} alarm:CORRUPT"));
    await_log(&cluster.members[leader], "Detected compaction hash mismatch");
    assert_eq!(differences(&cluster), 0);
}

#[test]
fn member_that_differs_does_not_begin_to_serve_where_that_is_asked_for() {
    let mut cluster = Cluster::start(3, &["--feature-gates=InitialCorruptCheck=true"]);
    cluster.ctl(0, &["put", "before", "x"]).unwrap();
    compact(&cluster, 0);
    let checked = tamper(&mut cluster, |_| {});
    await_log(&cluster.members[checked], "initial corruption checking passed; no corruption");

    cluster.members[checked].terminate();
    rot(&cluster.members[checked].data_dir());
    cluster.members[checked].spawn();
    cluster.expect_refusal(checked, "found data inconsistency with peers: at revision ");
    assert_eq!(cluster.ctl(cluster.leader(), &["alarm", "list"]).unwrap(), "");
}

/// Adds a member and waits until it serves: its number.
fn add(cluster: &mut Cluster, program: &Program, arguments: &[&str]) -> usize {
    let newcomer = cluster.prepare_of(program, arguments);
    let urls = format!("--peer-urls=http://{}", cluster.members[newcomer].peer);
    cluster.ctl_until(0, &["member", "add", &format!("m{}", newcomer + 1), &urls]);
    cluster.join(newcomer);
    newcomer
}

/// Each leader asks the other for the hash of a compaction, and finds its own.
#[test]
fn hash_of_a_compaction_is_that_of_etcd_whoever_leads() {
    let flags = ["--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=1s"];
    for (leader, follower) in [(Program::subject(), Program::etcd()), (Program::etcd(), Program::subject())] {
        let mut cluster = Cluster::start_of(&leader, 1, &flags);
        cluster.ctl(0, &["put", "before", "x"]).unwrap();
        let follower = add(&mut cluster, &follower, &flags);
        for round in 1..3 {
            cluster.ctl_until(follower, &["del", "a"]);
            compact(&cluster, follower);
            let checked = || {
                let log = cluster.members[0].log();
                let checks = log.lines().filter(|line| line.contains("successfully checked hash on whole cluster"));
                (checks.count() == round).then_some(())
            };
            assert!(wait_for(PATIENCE, checked).is_some(), "check {round} in\n{}", cluster.members[0].log());
        }
        assert_eq!(cluster.ctl(0, &["alarm", "list"]).unwrap(), "");
    }
}

/// A member of etcd leads. A member of ours that is not what the others are notices by itself, and leaves them alone.
#[test]
fn wrong_member_among_those_of_etcd_stops_alone() {
    const WHY: &str = "the key space of this member is not that of member ";
    let mut cluster = Cluster::start_of(&Program::etcd(), 1, &[]);
    cluster.ctl(0, &["put", "before", "x"]).unwrap();
    add(&mut cluster, &Program::etcd(), &[]);
    let ours = add(&mut cluster, &Program::subject(), &["--corrupt-check-time=1s"]);
    for _ in 0..3 {
        compact(&cluster, ours);
        sleep(Duration::from_secs(1));
    }
    assert!(cluster.members[ours].exited().is_none(), "{}", cluster.members[ours].log());

    // A row that is not what was written: the hash differs. The second time the bit is as it was.
    cluster.members[ours].terminate();
    rot(&cluster.members[ours].data_dir());
    cluster.members[ours].spawn();
    cluster.ctl_until(0, &["put", "a", "5"]);
    cluster.expect_refusal(ours, WHY);
    cluster.members[ours].kill();
    rot(&cluster.members[ours].data_dir());

    // An entry that this member alone takes: the others never reach its revision.
    corrupt(&cluster.members[ours].data_dir());
    cluster.members[ours].restart();
    let refused = http::post(cluster.members[0].client, "/v3/kv/put", ATTACHED).unwrap();
    assert!(refused.body.contains("requested lease not found"), "{}", refused.body);
    cluster.expect_refusal(ours, WHY);
    assert!(cluster.members[ours].log().contains("which the same entries have not brought the other to"));
    // Nothing has changed, and so it stops again.
    cluster.members[ours].kill();
    cluster.members[ours].spawn();
    cluster.expect_refusal(ours, WHY);
    cluster.ctl_until(0, &["put", "a", "6"]);
    assert_eq!(cluster.ctl(0, &["alarm", "list"]).unwrap(), "");
}

/// Two members of ours behind a leader of etcd compare their digests, and the one that is wrong stops at once: `HashKV` is
/// not due for a minute.
#[test]
fn members_of_ours_compare_digests_behind_a_leader_of_etcd() {
    let mut cluster = Cluster::start_of(&Program::etcd(), 1, &[]);
    cluster.ctl(0, &["put", "before", "x"]).unwrap();
    let right = add(&mut cluster, &Program::subject(), &[]);
    let wrong = add(&mut cluster, &Program::subject(), &[]);
    cluster.members[wrong].terminate();
    corrupt(&cluster.members[wrong].data_dir());
    cluster.members[wrong].restart();
    cluster.ctl_until(wrong, &["put", "still", "equal"]);
    sleep(Duration::from_secs(5));
    assert_eq!(cluster.leader(), 0);
    let refused = http::post(cluster.members[0].client, "/v3/kv/put", ATTACHED).unwrap();
    assert!(refused.body.contains("requested lease not found"), "{}", refused.body);
    cluster.expect_refusal(wrong, "the key space of this member is not that of member ");
    assert!(cluster.members[wrong].log().contains("the states of two members differ"));
    cluster.ctl_until(right, &["put", "a", "6"]);
    assert_eq!(cluster.ctl(right, &["alarm", "list"]).unwrap(), "");
}

/// A member of ours leads, beside one of etcd and one of either kind, and believes what the others refuse. It says so to its
/// client, who cannot be helped, and then stops by itself; the others elect one of themselves and go on without an alarm.
#[test]
fn wrong_leader_among_members_of_etcd_stops_alone() {
    for third in [Program::etcd(), Program::subject()] {
        let mut cluster = Cluster::start_of(&Program::etcd(), 1, &[]);
        cluster.ctl(0, &["put", "before", "x"]).unwrap();
        let third = add(&mut cluster, &third, &[]);
        let wrong = add(&mut cluster, &Program::subject(), &["--corrupt-check-time=1s"]);
        cluster.members[wrong].terminate();
        corrupt(&cluster.members[wrong].data_dir());
        cluster.members[wrong].restart();
        let id = format!("{:x}", cluster.id(wrong).unwrap());
        cluster.ctl_until(cluster.leader(), &["move-leader", &id]);
        cluster.ctl_until(wrong, &["put", "still", "equal"]);
        assert_eq!(cluster.leader(), wrong);

        let believed = http::post(cluster.members[wrong].client, "/v3/kv/put", ATTACHED).unwrap();
        assert_eq!(believed.status, 200, "{}", believed.body);
        cluster.expect_refusal(wrong, "the key space of this member is not that of member ");
        for number in [0, third] {
            assert_eq!(cluster.ctl_until(number, &["get", "a"]), "", "nobody else has it");
            cluster.ctl_until(number, &["put", "after", "x"]);
            assert_eq!(cluster.ctl_until(number, &["alarm", "list"]), "");
        }
        assert!(cluster.leader() != wrong);
    }
}

/// Members whose digests begin at different entries, because they took their states from a member of etcd. One of them goes
/// astray in the moment before the leader is gone: the next leader finds it, though it has never judged anybody before.
#[test]
fn next_leader_finds_what_went_wrong_under_the_last() {
    let forgetful = ["--snapshot-count=100", "--snapshot-catchup-entries=10"];
    let mut cluster = Cluster::start_of(&Program::etcd(), 1, &forgetful);
    for number in 1..4 {
        let through = number - 1;
        for _ in 0..250 {
            http::post(cluster.members[through].client, "/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#).unwrap();
        }
        add(&mut cluster, &Program::subject(), &forgetful);
    }
    let (first, last) = (format!("{:x}", cluster.id(1).unwrap()), format!("{:x}", cluster.id(0).unwrap()));
    cluster.ctl_until(0, &["move-leader", &first]);
    cluster.ctl_until(1, &["member", "remove", &last]);
    cluster.members[0].kill();
    let since = |number: usize| {
        let said = http::get(cluster.members[number].peer, "/members/digest").unwrap().body;
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["points"][0]["since"].as_u64().unwrap()
    };
    assert!(since(1) != since(2) && since(2) != since(3) && since(3) != since(1));

    let leader = cluster.leader();
    let wrong = 1 + leader % 3;
    let other = 1 + wrong % 3;
    cluster.members[wrong].terminate();
    corrupt(&cluster.members[wrong].data_dir());
    cluster.members[wrong].restart();
    cluster.ctl_until(wrong, &["put", "still", "equal"]);
    sleep(Duration::from_secs(2));
    assert_eq!(cluster.ctl(other, &["alarm", "list"]).unwrap(), "");
    let refused = http::post(cluster.members[leader].client, "/v3/kv/put", ATTACHED).unwrap();
    cluster.members[leader].kill();
    assert!(refused.body.contains("requested lease not found"), "{}", refused.body);
    // Two of three are left, and neither has a majority.
    assert_eq!(alarms(&cluster, other), "alarm:CORRUPT", "the zero of no member is not printed");
}
