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

use quorate::{
    lease::LeaseRow,
    storage::{Engine as _, FjallEngine, FjallOptions, Table, Writes},
    types::LeaseId,
};
use support::{
    cluster::{Cluster, PATIENCE},
    http::{self, Answer},
    now, wait_for,
};

/// A lease that only the corrupted member has. It is refused by the others what is attached to it.
const PLANTED: i64 = 7;
const ATTACHED: &str = r#"{"key":"YQ==","value":"MQ==","lease":"7"}"#;

/// Plants a lease in the state of a member that does not run.
fn corrupt(data_dir: &Path) {
    let states = data_dir.join("member/state");
    let state = states.join(fs::read_to_string(states.join("CURRENT")).unwrap().trim());
    let engine = FjallEngine::open(&state, &FjallOptions::default()).unwrap();
    let lease = LeaseRow { id: LeaseId(PLANTED), ttl: 10_000, remaining: 0 };
    let row = (Table::Lease.key(&LeaseRow::key_of(lease.id)), Some(lease.value()));
    engine.commit(Writes::from_rows(vec![row])).unwrap();
    engine.persist().unwrap();
}

/// A cluster of three, one of whose followers holds what the others do not: its number.
fn with_a_corrupted_follower(arguments: &[&str]) -> (Cluster, usize) {
    let mut cluster = Cluster::start(3, arguments);
    cluster.ctl(0, &["put", "before", "x"]).unwrap();
    let follower = (cluster.leader() + 1) % 3;
    cluster.members[follower].terminate();
    corrupt(&cluster.members[follower].data_dir());
    cluster.members[follower].restart();
    (cluster, follower)
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
    let alarms = wait_for(PATIENCE, || {
        let alarms = cluster.ctl(leader, &["alarm", "list"]).unwrap();
        (!alarms.is_empty()).then_some(alarms)
    });
    println!("known after {:?}", begun.elapsed());
    let id = cluster.id(wrong).unwrap();
    assert_eq!(alarms.as_deref(), Some(format!("memberID:{id} alarm:CORRUPT").as_str()));
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
