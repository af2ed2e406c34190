//! A member that was out of space goes on by itself when it has space again: nobody disarms its alarm, unless
//! `nospace-disarm` says that somebody has to, as in etcd (`compat_nospace.rs`).

mod support;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value as Json;
use std::time::Duration;
use support::cluster::Cluster;
use support::daemon::Daemon;
use support::program::Program;
use support::random::Random;
use support::{http, now, wait_for};

const QUOTA_BYTES: u64 = 16 << 20;
/// Longest wait for what was removed to become space.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long an alarm is seen to stay: the member looks once a second.
const STAYS: Duration = Duration::from_secs(5);
const VALUE_BYTES: usize = 100_000;
/// Puts that must be refused at last: three quotas full.
const PUTS_MAX: u64 = 500;
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

#[test]
fn writes_are_accepted_again_after_deletes_and_compaction() {
    let daemon = start(&[]);
    for round in 1..=2 {
        fill_for_good(&daemon, "many");
        let revision = delete(&daemon, "many");
        post(&daemon, "/v3/kv/compaction", &format!(r#"{{"revision":"{revision}"}}"#));
        accepted(&daemon);
        assert_eq!(alarms(&daemon), [] as [Json; 0], "round {round}");
    }
    let log = daemon.log();
    assert!(log.matches("alarm lifted").count() >= 2, "{log}");
}

#[test]
fn overwritten_values_become_space_with_their_history_alone() {
    let daemon = start(&[]);
    fill_for_good(&daemon, "one");
    let revision = revision(&daemon);
    post(&daemon, "/v3/kv/compaction", &format!(r#"{{"revision":"{revision}"}}"#));
    accepted(&daemon);
    assert!(post(&daemon, "/v3/kv/range", &format!(r#"{{"key":"{}"}}"#, base64("one"))).contains("\"count\":\"1\""));
}

#[test]
fn manual_disarming_is_etcds_and_both_survive_a_restart() {
    let mut daemon = start(&["--nospace-disarm=manual"]);
    fill(&daemon, "many");
    let revision = delete(&daemon, "many");
    post(&daemon, "/v3/kv/compaction", &format!(r#"{{"revision":"{revision}","physical":true}}"#));
    post(&daemon, "/v3/maintenance/defragment", "{}");
    let small = wait_for(PATIENCE, || (number(&status(&daemon), "dbSize") < QUOTA_BYTES / 2).then_some(()));
    assert!(small.is_some(), "{}", status(&daemon));
    stays(&daemon);
    assert!(put(&daemon, "k", "v").contains(NO_SPACE));
    daemon.terminate();
    daemon.spawn();
    assert!(wait_for(PATIENCE, || http::get(daemon.client, "/version").ok()).is_some(), "{}", daemon.log());
    stays(&daemon);
    // The stronger flag stands behind.
    daemon.terminate();
    daemon.add_argument("--nospace-disarm=auto".to_owned());
    daemon.spawn();
    accepted(&daemon);
}

/// An alarm that no quota has raised says something that no free space answers.
#[test]
fn nobody_elses_alarm_is_lifted() {
    let daemon = start(&[]);
    assert_eq!(put(&daemon, "k", "v").matches("header").count(), 1);
    // What is up when the member starts may be its quota's; it has to have seen that there is none.
    std::thread::sleep(STAYS);
    let own = status(&daemon).pointer("/header/member_id").and_then(Json::as_str).expect("a member").to_owned();
    for (member, alarm) in [("17", "NOSPACE"), (own.as_str(), "NOSPACE"), (own.as_str(), "CORRUPT")] {
        let raise = format!(r#"{{"action":"ACTIVATE","alarm":"{alarm}","memberID":"{member}"}}"#);
        assert!(post(&daemon, "/v3/maintenance/alarm", &raise).contains(alarm));
    }
    std::thread::sleep(STAYS);
    assert_eq!(alarms(&daemon).len(), 3, "{:?}", alarms(&daemon));
}

/// Each member whose quota was exceeded lifts its own alarm, and the cluster writes again.
#[test]
fn every_member_lifts_its_own() {
    let quota = format!("--quota-backend-bytes={QUOTA_BYTES}");
    let cluster = Cluster::start(3, &[&quota]);
    let first = &cluster.members[0];
    fill(first, "many");
    let revision = delete(first, "many");
    post(first, "/v3/kv/compaction", &format!(r#"{{"revision":"{revision}"}}"#));
    accepted(first);
    for member in &cluster.members {
        assert!(put(member, "k", "v").contains("header"), "{}", member.log());
    }
}

/// A client of etcd gives up after five seconds; a large state takes longer, and nobody waits for it.
#[test]
fn defragmenting_returns_at_once_and_stops_nobody() {
    const PUTS: u64 = 600;
    let daemon = Daemon::start(&Program::subject(), &[]);
    for number in 0..PUTS {
        assert!(put(&daemon, "one", Random::new(number).bytes(VALUE_BYTES)).contains("header"));
    }
    let full = number(&status(&daemon), "dbSize");
    assert!(full > PUTS / 2 * VALUE_BYTES as u64, "{full}");
    let revision = revision(&daemon);
    post(&daemon, "/v3/kv/compaction", &format!(r#"{{"revision":"{revision}"}}"#));
    let (client, begun) = (daemon.client, now());
    let defragmenting = std::thread::spawn(move || {
        let answer = http::post(client, "/v3/maintenance/defragment", "{}").expect("an answer");
        (answer.status, begun.elapsed())
    });
    let (mut slowest, mut puts) = (Duration::ZERO, 0);
    let small = wait_for(PATIENCE, || {
        let begun = now();
        assert!(put(&daemon, "other", "v").contains("header"));
        (slowest, puts) = (slowest.max(begun.elapsed()), puts + 1);
        (number(&status(&daemon), "dbSize") < full / 4).then_some(())
    });
    assert!(small.is_some(), "{} of {full} bytes are kept", status(&daemon));
    let (status, took) = defragmenting.join().expect("no panic");
    assert!(status == 200 && took < Duration::from_secs(4), "{status} after {took:?}");
    assert!(slowest < Duration::from_secs(2), "a put took {slowest:?} of {puts}");
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn start(flags: &[&str]) -> Daemon {
    let quota = format!("--quota-backend-bytes={QUOTA_BYTES}");
    Daemon::start(&Program::subject(), &[&[quota.as_str()], flags].concat())
}

/// Puts values under `key` and a number, or all under `one`, until that is refused.
fn fill(daemon: &Daemon, key: &str) {
    for number in 0..PUTS_MAX {
        let key = if key == "one" { key.to_owned() } else { format!("{key}{number}") };
        // What compresses would fall under the quota by itself, once it is in files.
        let answer = put(daemon, &key, Random::new(number).bytes(VALUE_BYTES));
        if !answer.contains("header") {
            assert!(answer.contains(NO_SPACE), "{answer}");
            return;
        }
    }
    panic!("{PUTS_MAX} puts of {VALUE_BYTES} bytes fit into the quota");
}

/// As [`fill`], until the alarm stays: rows that are being written to files count twice, which is much of a quota as small.
fn fill_for_good(daemon: &Daemon, key: &str) {
    const FILLS_MAX: usize = 10;
    for _ in 0..FILLS_MAX {
        fill(daemon, key);
        std::thread::sleep(STAYS);
        if alarms(daemon).len() == 1 {
            return;
        }
    }
    panic!("no alarm stays:\n{}", daemon.log());
}

fn put(daemon: &Daemon, key: &str, value: impl AsRef<[u8]>) -> String {
    post(daemon, "/v3/kv/put", &format!(r#"{{"key":"{}","value":"{}"}}"#, base64(key), base64(value)))
}

/// Deletes all keys that begin so; the revision of that.
fn delete(daemon: &Daemon, prefix: &str) -> u64 {
    let end = format!("{prefix}~");
    let request = format!(r#"{{"key":"{}","range_end":"{}"}}"#, base64(prefix), base64(&end));
    let answer = post(daemon, "/v3/kv/deleterange", &request);
    number(&serde_json::from_str(&answer).expect("JSON"), "/header/revision")
}

fn post(daemon: &Daemon, path: &str, body: &str) -> String {
    http::post(daemon.client, path, body).expect("an answer").body
}

fn status(daemon: &Daemon) -> Json {
    serde_json::from_str(&post(daemon, "/v3/maintenance/status", "{}")).expect("JSON")
}

fn revision(daemon: &Daemon) -> u64 {
    number(&status(daemon), "/header/revision")
}

/// A number, which this JSON writes as text.
fn number(json: &Json, at: &str) -> u64 {
    let value = if at.starts_with('/') { json.pointer(at) } else { json.get(at) };
    value.and_then(Json::as_str).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {at} in {json}"))
}

fn alarms(daemon: &Daemon) -> Vec<Json> {
    let answer: Json = serde_json::from_str(&post(daemon, "/v3/maintenance/alarm", "{}")).expect("JSON");
    answer.get("alarms").and_then(Json::as_array).cloned().unwrap_or_default()
}

/// Waits until a put works.
fn accepted(daemon: &Daemon) {
    let put = wait_for(PATIENCE, || {
        http::post(daemon.client, "/v3/kv/put", r#"{"key":"YQ==","value":"YQ=="}"#)
            .ok()
            .filter(|answer| answer.status == 200)
    });
    assert!(put.is_some(), "no put was accepted again:\n{}", daemon.log());
}

fn stays(daemon: &Daemon) {
    std::thread::sleep(STAYS);
    assert_eq!(alarms(daemon).len(), 1, "{}", daemon.log());
}
