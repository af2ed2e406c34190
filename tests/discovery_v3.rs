//! Discovery by a token in v3 keys, of a real etcd and of our own daemon.

mod support;

use quorate::membership::founding_member_id;
use support::{
    cluster::ctl,
    daemon::Daemon,
    discovery::{expect_refusal, member_list, node, wait_log, wait_ready},
    program::Program,
};

const TOKEN: &str = "tok-v3";

fn of_token(program: &Program, service: &Daemon, name: &str, more: &[&str]) -> Daemon {
    let endpoints = format!("--discovery-endpoints={}", service.endpoint());
    let mut arguments = vec!["--discovery-token=tok-v3", endpoints.as_str()];
    arguments.extend(more);
    node(program, name, &arguments)
}

fn write_size(service: &Daemon, more: &[&str], size: &str) {
    let mut words = vec!["put", "/_etcd/registry/tok-v3/_config/size", size];
    words.extend(more);
    ctl(&service.endpoint(), &words).expect("the service takes a token");
}

fn id(node: &Daemon) -> String {
    founding_member_id(&[format!("http://{}", node.peer)], TOKEN).to_string()
}

/// Three members, the first of them of `first`, at `service`; what was written there.
fn form_a_cluster(service: &Daemon, first: &Program) {
    write_size(service, &[], "3");
    let ours = Program::subject();
    let mut members =
        [(first, "m1"), (&ours, "m2"), (&ours, "m3")].map(|(program, name)| of_token(program, service, name, &[]));
    members[1].spawn();
    wait_log(&mut members[1], "waiting for peers from discovery service");
    assert!(!members[1].data_dir().join("member").exists(), "it is no member yet");
    members[1].kill();
    for member in &mut members {
        member.spawn();
    }
    for member in &mut members {
        wait_ready(member);
    }
    let listed = member_list(&members[2]);
    assert_eq!(listed.len(), 3, "{listed:?}");
    let keys = ctl(&service.endpoint(), &["get", "--prefix", "/_etcd/registry/tok-v3/members/"]).expect("an answer");
    for (number, member) in members.iter().enumerate() {
        let (id, name) = (id(member), format!("m{}", number + 1));
        let expected = format!("{id}, started, {name}, http://{}", member.peer);
        assert!(listed.iter().any(|line| line.starts_with(&expected)), "{expected:?} in {listed:?}");
        let pair = format!("/_etcd/registry/tok-v3/members/{id}\n{name}=http://{}", member.peer);
        assert!(keys.contains(&pair), "{pair:?} in {keys}");
    }
    let mut late = of_token(&ours, service, "m4", &[]);
    late.spawn();
    expect_refusal(&mut late, "failed to join discovery cluster (discovery: cluster is full)");
}

#[test]
fn members_of_etcd_and_ours_find_each_other_at_a_real_etcd() {
    form_a_cluster(&Daemon::start(&Program::etcd(), &[]), &Program::etcd());
}

#[test]
fn members_find_each_other_at_our_own() {
    form_a_cluster(&Daemon::start(&Program::subject(), &[]), &Program::subject());
}

#[test]
fn tokens_that_make_no_sense_are_refused_in_etcds_words() {
    let service = Daemon::start(&Program::subject(), &[]);
    let mut member = of_token(&Program::subject(), &service, "m1", &[]);
    member.spawn();
    expect_refusal(&mut member, "failed to join discovery cluster (discovery: size key not found)");
    for size in ["0", "many"] {
        write_size(&service, &[], size);
        member.kill();
        member.spawn();
        expect_refusal(&mut member, "discovery: size key is bad");
    }
}

#[test]
fn what_is_no_registration_is_passed_over() {
    let service = Daemon::start(&Program::subject(), &[]);
    write_size(&service, &[], "1");
    ctl(&service.endpoint(), &["put", "/_etcd/registry/tok-v3/members/x", "nonsense"]).expect("written");
    let mut member = of_token(&Program::subject(), &service, "m1", &[]);
    member.spawn();
    wait_ready(&mut member);
    assert!(member.log().contains("invalid peer info returned from discovery service"));
}

/// What a node that is gone has left under this identifier is this node's place and says from now on what this node says: that
/// is how a start that was cut short goes on in etcd, too.
#[test]
fn a_registration_that_is_left_over_is_taken_over_as_by_etcd() {
    let service = Daemon::start(&Program::etcd(), &[]);
    for program in [Program::etcd(), Program::subject()] {
        write_size(&service, &[], "1");
        let mut member = of_token(&program, &service, "m1", &[]);
        let key = format!("/_etcd/registry/tok-v3/members/{}", id(&member));
        ctl(&service.endpoint(), &["put", &key, "gone=http://127.0.0.1:1"]).expect("written");
        member.spawn();
        wait_ready(&mut member);
        let expected = format!("{}, started, m1, http://{}", id(&member), member.peer);
        let listed = member_list(&member);
        assert!(listed.len() == 1 && listed[0].starts_with(&expected), "{}: {listed:?}", program.name);
        let written = ctl(&service.endpoint(), &["get", &key]).expect("an answer");
        assert_eq!(written, format!("{key}\nm1=http://{}", member.peer), "{}", program.name);
        ctl(&service.endpoint(), &["del", &key]).expect("the place is free again");
    }
}

#[test]
fn service_with_users_wants_a_password() {
    let service = Daemon::start(&Program::etcd(), &[]);
    for words in [&["user", "add", "root:secret"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]] {
        let output = Program::etcdctl().command().args(["--endpoints", &service.endpoint()]).args(words).output();
        assert!(output.expect("etcdctl runs").status.success(), "{words:?}");
    }
    let output = Program::etcdctl()
        .command()
        .args(["--endpoints", &service.endpoint(), "--user=root:secret"])
        .args(["put", "/_etcd/registry/tok-v3/_config/size", "1"])
        .output();
    assert!(output.expect("etcdctl runs").status.success());
    let mut wrong = of_token(&Program::subject(), &service, "m1", &["--discovery-user=root:guess"]);
    wrong.spawn();
    expect_refusal(&mut wrong, "etcdserver: authentication failed, invalid user ID or password");
    let mut right =
        of_token(&Program::subject(), &service, "m1", &["--discovery-user=root", "--discovery-password=secret"]);
    right.spawn();
    wait_ready(&mut right);
}

#[test]
fn service_that_is_away_is_waited_for() {
    let mut service = Daemon::start(&Program::subject(), &[]);
    write_size(&service, &[], "1");
    service.kill();
    let mut member = of_token(&Program::subject(), &service, "m1", &["--discovery-request-timeout=500ms"]);
    member.spawn();
    wait_log(&mut member, "retry connecting to discovery service");
    service.restart();
    wait_ready(&mut member);
}
