//! Discovery by a token of the v2 protocol, with a real etcd's v2 keys as the service.

mod support;

use std::{os::unix::net::UnixDatagram, time::Duration};

use quorate::membership::founding_member_id;
use support::{
    cluster::ctl,
    daemon::{Daemon, ended_by},
    discovery::{expect_refusal, member_list, node, v2_service, v2_token, wait_log, wait_ready},
    http,
    program::Program,
};

fn of_token(url: &str, name: &str, more: &[&str]) -> Daemon {
    let discovery = format!("--discovery={url}");
    let arguments: Vec<&str> = std::iter::once(discovery.as_str()).chain(more.iter().copied()).collect();
    node(&Program::subject(), name, &arguments)
}

fn id(node: &Daemon, url: &str) -> String {
    founding_member_id(&[format!("http://{}", node.peer)], url).to_string()
}

/// The node waits, and has told the service of itself.
fn wait_registered(node: &mut Daemon) {
    wait_log(node, "waiting for more");
}

#[test]
fn three_members_form_a_cluster_and_a_fourth_comes_too_late() {
    let service = v2_service();
    let url = v2_token(&service, "T", "3");
    let mut members: Vec<Daemon> = ["m1", "m2", "m3"].map(|name| of_token(&url, name, &[])).into();
    members[0].spawn();
    wait_registered(&mut members[0]);
    assert!(!members[0].data_dir().join("member").exists(), "it is no member yet");

    // A start that is cut short, and one that is asked to end, know their registration again.
    members[0].kill();
    members[0].spawn();
    wait_log(&mut members[0], "found the registration of an earlier start");
    wait_registered(&mut members[0]);
    let (status, took) = members[0].terminate();
    assert!(ended_by(status, 15), "{status:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    members[0].spawn();

    for member in &mut members[1..] {
        member.spawn();
    }
    for member in &mut members {
        wait_ready(member);
    }
    let listed = member_list(&members[0]);
    assert_eq!(listed.len(), 3, "{listed:?}");
    for (number, member) in members.iter().enumerate() {
        let expected = format!("{}, started, m{}, http://{}", id(member, &url), number + 1, member.peer);
        assert!(listed.iter().any(|line| line.starts_with(&expected)), "{expected:?} in {listed:?}");
        assert!(!member.data_dir().join("REGISTRATION").exists(), "a member needs none");
    }
    let registered = http::get(service.client, "/v2/keys/discovery/T").expect("an answer").body;
    assert_eq!(registered.matches("createdIndex").count(), 4, "the directory and three members: {registered}");

    let mut late = of_token(&url, "m4", &["--discovery-fallback=exit"]);
    late.spawn();
    expect_refusal(&mut late, "failed to join discovery cluster (discovery: cluster is full): please generate a new");
    assert!(late.log().contains("failed to bootstrap; discovery token was already used"), "{}", late.log());
    assert!(!late.data_dir().join("member").exists());

    // Once there is a log, nobody asks the service any more.
    drop(service);
    for member in &mut members {
        member.kill();
    }
    for member in &mut members {
        member.spawn();
    }
    for member in &mut members {
        wait_ready(member);
        assert!(member.log().contains("discovery token is ignored since cluster already initialized"));
    }
}

#[test]
fn members_of_etcd_and_ours_find_each_other() {
    let service = v2_service();
    let url = v2_token(&service, "T", "3");
    let discovery = format!("--discovery={url}");
    let mut members = [
        node(&Program::etcd_3_5_1(), "m1", &[&discovery]),
        node(&Program::subject(), "m2", &[&discovery, "--compat-version=3.5"]),
        node(&Program::subject(), "m3", &[&discovery, "--compat-version=3.5"]),
    ];
    for member in &mut members {
        member.spawn();
    }
    for member in &mut members {
        wait_ready(member);
    }
    let listed = member_list(&members[0]);
    assert_eq!(listed, member_list(&members[1]));
    assert!(listed.iter().any(|line| line.starts_with(&id(&members[0], &url))), "{listed:?}");
    ctl(&members[2].endpoint(), &["put", "a", "1"]).expect("the cluster takes writes");
}

/// Waits, events and refusals of our own v2 keys are what a node looks for.
#[test]
fn members_find_each_other_at_our_own() {
    let service = Daemon::start(&Program::subject(), &[]);
    let url = v2_token(&service, "T", "2");
    let mut members = [of_token(&url, "m1", &[]), of_token(&url, "m2", &[])];
    members[0].spawn();
    wait_registered(&mut members[0]);
    members[0].kill();
    members[0].spawn();
    wait_log(&mut members[0], "found the registration of an earlier start");
    members[1].spawn();
    for member in &mut members {
        wait_ready(member);
    }
    assert_eq!(member_list(&members[0]).len(), 2);
}

#[test]
fn one_of_two_who_race_for_the_last_place_gets_it() {
    let service = v2_service();
    let url = v2_token(&service, "T", "1");
    let mut nodes = ["m1", "m2"].map(|name| of_token(&url, name, &["--discovery-fallback=exit"]));
    for node in &mut nodes {
        node.spawn();
    }
    let late = support::wait_for(Duration::from_secs(20), || (0..2).find(|number| nodes[*number].exited().is_some()));
    let late = late.unwrap_or_else(|| panic!("both have a place:\n{}\n{}", nodes[0].log(), nodes[1].log()));
    expect_refusal(&mut nodes[late], "discovery: cluster is full");
    wait_ready(&mut nodes[1 - late]);
    // Who has lost loses again, and not to itself.
    nodes[late].kill();
    nodes[late].spawn();
    expect_refusal(&mut nodes[late], "discovery: cluster is full");
}

#[test]
fn service_that_comes_later_is_waited_for() {
    let mut service = Daemon::prepare(&std::env::temp_dir(), &Program::etcd_3_5_1(), &["--enable-v2"]);
    let url = format!("{}/v2/keys/discovery/T", service.endpoint());
    let mut member = of_token(&url, "m1", &[]);
    member.spawn();
    wait_log(&mut member, "retry connecting to discovery service");
    service.spawn();
    wait_ready(&mut service);
    v2_token(&service, "T", "1");
    // The pauses are 2, 4 and 8 seconds; a token that is not there yet ends the search.
    if member.exited().is_some() {
        member.kill();
        member.spawn();
    }
    wait_ready(&mut member);
}

#[test]
fn lost_directory_meets_its_own_registration_as_a_strangers() {
    let service = v2_service();
    let url = v2_token(&service, "T", "2");
    let mut member = of_token(&url, "m1", &[]);
    member.spawn();
    wait_registered(&mut member);
    member.kill();
    std::fs::remove_dir_all(member.data_dir()).expect("our own directory");
    member.spawn();
    expect_refusal(
        &mut member,
        "failed to join discovery cluster (discovery: found duplicate id): check the given data dir",
    );
    let log = member.log();
    for line in [
        "member has been registered with discovery service",
        "but could not find valid cluster configuration",
        "check data dir if previous bootstrap succeeded",
        "or use a new discovery token if previous bootstrap failed",
    ] {
        assert!(log.contains(line), "{line:?} in\n{log}");
    }
}

#[test]
fn two_members_of_one_name_are_refused_by_all() {
    let service = v2_service();
    let url = v2_token(&service, "T", "2");
    let mut members = [of_token(&url, "same", &[]), of_token(&url, "same", &[])];
    for member in &mut members {
        member.spawn();
    }
    for member in &mut members {
        expect_refusal(member, "discovery: found duplicate name");
        assert!(member.log().contains("member with duplicated name has already been registered"));
    }
}

#[test]
fn token_that_makes_no_sense_is_refused_in_etcds_words() {
    let service = v2_service();
    let mut unknown = of_token(&format!("{}/v2/keys/discovery/U", service.endpoint()), "m1", &[]);
    unknown.spawn();
    expect_refusal(&mut unknown, "discovery: size key not found: 100: Key not found (/discovery)");
    for size in ["three", "0"] {
        let url = v2_token(&service, size, size);
        let mut member = of_token(&url, "m1", &[]);
        member.spawn();
        expect_refusal(&mut member, "discovery: size key is bad");
    }
    let mut elsewhere = of_token(&format!("{}/version", service.endpoint()), "m1", &[]);
    elsewhere.spawn();
    expect_refusal(&mut elsewhere, "discovery: bad discovery endpoint");
}

#[test]
fn a_cluster_that_exists_is_not_discovered() {
    let mut member = of_token("http://127.0.0.1:1/T", "m1", &["--initial-cluster-state=existing"]);
    member.spawn();
    let ended = support::wait_for(Duration::from_secs(10), || member.exited());
    assert_eq!(ended.and_then(|status| status.code()), Some(1));
    let text = "discovery URL should not be set when joining existing initial cluster";
    assert!(member.log().contains(text), "{}", member.log());
}

#[test]
fn service_manager_hears_whom_a_node_waits_for() {
    let service = v2_service();
    let url = v2_token(&service, "T", "2");
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
    let mut program = Program::subject();
    program.variables.push(("NOTIFY_SOCKET", path.display().to_string().leak()));
    let mut member = node(&program, "m1", &[&format!("--discovery={url}")]);
    member.spawn();
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).expect("a datagram");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(!text.contains("READY=1"), "{text}");
        if text.contains("STATUS=discovery: waiting for 1 of 2 members") {
            assert!(text.contains("EXTEND_TIMEOUT_USEC="), "{text}");
            break;
        }
    }
    assert!(member.exited().is_none());
}
