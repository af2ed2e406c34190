//! The v2 API on clusters of processes: writes at any member, waiting through a change of leader, expiry by another leader,
//! restarts, newcomers, and members of etcd, which must not be sent what they do not survive.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails in a helper fails the test")]

mod support;

use std::{net::SocketAddr, time::Duration};

use support::{
    cluster::{Cluster, PATIENCE},
    program::Program,
    v2::{self, Answer, Waiting},
    wait_for,
};

fn client(cluster: &Cluster, number: usize) -> SocketAddr {
    cluster.members[number].client
}

fn get(cluster: &Cluster, number: usize, path: &str) -> Answer {
    v2::ask(client(cluster, number), "GET", &format!("/v2/keys{path}"), "")
}

fn put(cluster: &Cluster, number: usize, path: &str, form: &str) -> Answer {
    v2::ask(client(cluster, number), "PUT", &format!("/v2/keys{path}"), form)
}

/// Writes until it works, as clients do while a leader is elected.
fn put_until(cluster: &Cluster, number: usize, path: &str, form: &str) -> Answer {
    let mut last = None;
    let done = wait_for(PATIENCE, || {
        let answer = put(cluster, number, path, form);
        let done = answer.status < 300;
        last = Some(answer.clone());
        done.then_some(answer)
    });
    done.unwrap_or_else(|| panic!("{path} is not written: {last:?}"))
}

/// The value of a key, once this member has it.
fn wait_for_value(cluster: &Cluster, number: usize, path: &str, value: &str) -> Answer {
    let found = wait_for(PATIENCE, || {
        let answer = get(cluster, number, path);
        (answer.status == 200 && answer.json()["node"]["value"] == value).then_some(answer)
    });
    found.unwrap_or_else(|| panic!("member {number} does not have {path}:\n{}", cluster.members[number].log()))
}

fn follower(cluster: &Cluster) -> usize {
    let leader = cluster.leader();
    (0..cluster.members.len()).find(|number| *number != leader && cluster.members[*number].is_running()).unwrap()
}

#[test]
fn any_member_writes_and_all_count_alike() {
    let mut cluster = Cluster::start(3, &[]);
    let (leader, follower) = (cluster.leader(), follower(&cluster));
    let written = put(&cluster, follower, "/a", "value=1");
    assert_eq!(written.status, 201, "{written:?}");
    let index = written.index();
    for number in 0..3 {
        let found = wait_for_value(&cluster, number, "/a", "1");
        assert_eq!(found.json()["node"]["modifiedIndex"].as_u64(), Some(index), "member {number}");
    }
    let in_order = v2::ask(client(&cluster, leader), "POST", "/v2/keys/q", "value=1");
    assert_eq!(in_order.json()["node"]["key"], format!("/q/{:020}", index + 1));
    let large = "x".repeat(9 << 20);
    assert_eq!(put(&cluster, follower, "/large", &format!("value={large}")).status, 201);
    wait_for_value(&cluster, leader, "/large", &large);
    let quorum = get(&cluster, follower, "/q?quorum=true");
    assert_eq!(quorum.json()["node"]["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(
        v2::ask(client(&cluster, leader), "GET", "/v2/stats/leader", "").json()["followers"].as_object().unwrap().len(),
        2
    );
    let elsewhere = v2::ask(client(&cluster, follower), "GET", "/v2/stats/leader", "");
    assert_eq!((elsewhere.status, elsewhere.body.as_str()), (403, r#"{"message":"not current leader"}"#));

    // Everybody stops and comes back: the tree, the index and the past are there.
    for member in &mut cluster.members {
        member.terminate();
    }
    cluster.members.iter_mut().for_each(support::daemon::Daemon::spawn);
    for member in &mut cluster.members {
        assert!(member.wait_ready(PATIENCE), "{}", member.log());
    }
    let mut past = Waiting::begin(client(&cluster, 0), &format!("/v2/keys/a?wait=true&waitIndex={index}"));
    assert_eq!(past.next().unwrap()["node"]["modifiedIndex"].as_u64(), Some(index));
    assert!(put_until(&cluster, 1, "/b", "value=1").index() > index + 2);

    // One is away while another starts again: who it is says the state.
    cluster.members[2].kill();
    cluster.members[1].terminate();
    cluster.members[1].restart();
    put_until(&cluster, 1, "/c", "value=1");
}

#[test]
fn who_waits_at_a_follower_hears_of_what_happens_under_the_next_leader() {
    let mut cluster = Cluster::start(3, &[]);
    let (leader, follower) = (cluster.leader(), follower(&cluster));
    put(&cluster, follower, "/a", "value=1");
    let mut waiting = Waiting::begin(client(&cluster, follower), "/v2/keys/a?wait=true");
    let at_leader = Waiting::begin(client(&cluster, leader), "/v2/keys/a?wait=true");
    cluster.members[leader].kill();
    drop(at_leader);
    let written = put_until(&cluster, follower, "/a", "value=2");
    assert_eq!(waiting.next().unwrap()["node"]["modifiedIndex"].as_u64(), Some(written.index()));
    cluster.members[leader].restart();
    wait_for_value(&cluster, leader, "/a", "2");
}

#[test]
fn nodes_expire_under_another_leader() {
    let mut cluster = Cluster::start(3, &[]);
    let (leader, follower) = (cluster.leader(), follower(&cluster));
    put(&cluster, leader, "/t", "value=1&ttl=2");
    put(&cluster, leader, "/kept", "value=1&ttl=600");
    wait_for_value(&cluster, follower, "/t", "1");
    let mut waiting = Waiting::begin(client(&cluster, follower), "/v2/keys/t?wait=true");
    cluster.members[leader].kill();
    let event = waiting.next().unwrap();
    assert_eq!((event["action"].as_str(), event["prevNode"]["value"].as_str()), (Some("expire"), Some("1")));
    cluster.members[leader].restart();
    wait_for(PATIENCE, || (get(&cluster, leader, "/t").status == 404).then_some(())).expect("it is gone everywhere");
    assert!(get(&cluster, leader, "/kept").json()["node"]["ttl"].as_u64().is_some_and(|ttl| ttl > 500));
}

#[test]
fn newcomer_takes_the_tree_with_a_snapshot() {
    let mut cluster = Cluster::start(1, &["--snapshot-count=10", "--experimental-snapshot-catchup-entries=5"]);
    for number in 0..40 {
        put(&cluster, 0, &format!("/d/{}", number % 10), &format!("value={number}"));
    }
    put(&cluster, 0, "/t", "value=1&ttl=600");
    let newcomer = cluster.prepare(&[]);
    let peer = format!("--peer-urls=http://{}", cluster.members[newcomer].peer);
    cluster.ctl_until(0, &["member", "add", "m2", &peer]);
    cluster.join(newcomer);
    wait_for_value(&cluster, newcomer, "/d/9", "39");
    for path in ["/?recursive=true", "/d/3"] {
        let [old, new] = [0, newcomer].map(|number| get(&cluster, number, path));
        let without_ttl = |answer: &Answer| {
            answer
                .body
                .split("\"ttl\":")
                .map(|part| part.trim_start_matches(char::is_numeric).to_owned())
                .collect::<String>()
        };
        assert_eq!(without_ttl(&old), without_ttl(&new), "{path}");
    }
    let mut past = Waiting::begin(client(&cluster, newcomer), "/v2/keys/d/3?wait=true&waitIndex=5");
    assert_eq!(past.next().unwrap()["node"]["value"], "3");
    let written = put_until(&cluster, newcomer, "/d/3", "value=new");
    wait_for_value(&cluster, 0, "/d/3", "new");
    assert_eq!(get(&cluster, 0, "/d/3").json()["node"]["modifiedIndex"].as_u64(), Some(written.index()));
}

#[test]
fn minority_reads_what_it_has_and_writes_nothing() {
    let mut cluster = Cluster::start(2, &[]);
    put_until(&cluster, 0, "/a", "value=1");
    wait_for_value(&cluster, 1, "/a", "1");
    cluster.members[0].kill();
    assert_eq!(get(&cluster, 1, "/a").status, 200);
    for answer in [get(&cluster, 1, "/a?quorum=true"), put(&cluster, 1, "/a", "value=2")] {
        let (status, code, cause) = answer.refusal();
        assert_eq!((status, code), (500, 300), "{answer:?}");
        assert!(cause.starts_with("etcdserver: "), "{cause}");
    }
    let during = v2::ask(client(&cluster, 1), "GET", "/v2/members/leader", "");
    assert_eq!((during.status, during.body.as_str()), (503, r#"{"message":"During election"}"#));
}

#[test]
fn beside_a_member_of_etcd_the_api_is_read_only() {
    let (ours, etcd) = (Program::subject(), Program::etcd());
    let none: &[&str] = &[];
    let mut cluster = Cluster::found([(&ours, none), (&ours, none), (&etcd, none)]);
    for (method, path, form) in [("PUT", "/a", "value=1"), ("POST", "/a", "value=1"), ("DELETE", "/a", "")] {
        let answer = v2::ask(client(&cluster, 0), method, &format!("/v2/keys{path}"), form);
        let (status, code, cause) = answer.refusal();
        assert_eq!((status, code), (503, 300), "{answer:?}");
        let id = cluster.id(2).unwrap();
        assert!(cause.contains(&format!("{id:x}")) && cause.contains("the v2 API is read-only"), "{cause}");
    }
    assert_eq!(get(&cluster, 1, "/?quorum=true").status, 200);
    assert_eq!(v2::ask(client(&cluster, 1), "GET", "/v2/members", "").json()["members"].as_array().unwrap().len(), 3);
    cluster.ctl(0, &["put", "k", "v"]).unwrap();
    assert!(cluster.members[2].exited().is_none(), "{}", cluster.members[2].log());
    let id = format!("{:x}", cluster.id(2).unwrap());
    cluster.ctl_until(0, &["member", "remove", &id]);
    cluster.retire(2);
    put_until(&cluster, 1, "/a", "value=1");
}

#[test]
fn member_of_etcd_is_not_sent_what_it_does_not_survive() {
    let mut cluster = Cluster::start(2, &[]);
    put_until(&cluster, 0, "/a", "value=1");
    let foreign = cluster.prepare_of(&Program::etcd(), &[]);
    let peer = format!("--peer-urls=http://{}", cluster.members[foreign].peer);
    cluster.ctl_until(0, &["member", "add", "m3", "--learner", &peer]);
    let list = cluster.initial_cluster();
    cluster.begin(foreign, "m3", &list, "existing");
    let told = |cluster: &Cluster| {
        (0..2).any(|number| cluster.members[number].log().contains("a member of etcd is sent nothing"))
    };
    wait_for(PATIENCE, || told(&cluster).then_some(())).unwrap_or_else(|| panic!("{}", cluster.members[0].log()));
    std::thread::sleep(Duration::from_secs(2));
    assert!(cluster.members[foreign].exited().is_none(), "{}", cluster.members[foreign].log());
    assert_eq!(put(&cluster, 0, "/a", "value=2").status, 503);
    cluster.ctl(0, &["put", "k", "v"]).unwrap();
    assert_eq!(get(&cluster, 0, "/a").json()["node"]["value"], "1");
}
