//! How the process ends: which signal does what, what a failure says last, and with which exit code.

#[path = "support/mod.rs"]
mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use support::{
    daemon::{Daemon, STOP_LIMIT, ended_by},
    http,
    program::Program,
    wait_for,
};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// The level and the message of the last record.
fn last_record(log: &str) -> (String, String) {
    let line = log.lines().last().expect("a record");
    let record: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let text = |key: &str| record.get(key).and_then(|value| value.as_str()).expect("a text").to_owned();
    (text("level"), text("msg"))
}

#[test]
fn term_and_interrupt_end_it_in_order_and_it_dies_by_the_signal() {
    for (name, signal) in [("TERM", SIGTERM), ("INT", SIGINT)] {
        let mut daemon = Daemon::start(&Program::subject(), &[]);
        daemon.signal(name);
        let status = wait_for(STOP_LIMIT, || daemon.exited()).expect("it ends");
        assert!(ended_by(status, signal), "{name}: {status:?}");
        let log = daemon.log();
        assert!(log.contains("received signal; shutting down") && log.contains("closed etcd server"), "{log}");
        assert!(!log.contains(r#""level":"error""#) && !log.contains(r#""level":"fatal""#), "{log}");
    }
}

#[test]
fn hangup_and_a_broken_pipe_do_not_end_it() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    daemon.signal("HUP");
    daemon.signal("PIPE");
    let told = wait_for(STOP_LIMIT, || daemon.log().contains("read again: nothing has changed").then_some(()));
    assert!(told.is_some(), "{}", daemon.log());
    assert!(http::get(daemon.client, "/health").expect("it answers").body.contains("true"));
}

#[test]
fn quit_ends_it_at_once_with_a_last_word() {
    let mut daemon = Daemon::start(&Program::subject(), &[]);
    daemon.signal("QUIT");
    let status = wait_for(STOP_LIMIT, || daemon.exited()).expect("it ends");
    assert_eq!(status.code(), Some(2));
    assert_eq!(last_record(&daemon.log()), ("fatal".to_owned(), "received signal; quitting".to_owned()));
    assert!(!daemon.log().contains("closing etcd server"));
}

#[test]
fn a_failed_start_says_discovery_failed() {
    let taken = Daemon::start(&Program::subject(), &[]);
    let url = format!("--listen-client-urls=http://{}", taken.client);
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), &Program::subject(), &[&url]);
    daemon.spawn();
    let status = wait_for(STOP_LIMIT, || daemon.exited()).expect("it ends");
    assert_eq!(status.code(), Some(1));
    assert_eq!(last_record(&daemon.log()), ("fatal".to_owned(), "discovery failed".to_owned()));
    assert!(daemon.log().contains("bind: address already in use"), "{}", daemon.log());
}

/// A member founded by a start that could not listen would keep the URLs of that start, whatever the next one says.
#[test]
fn a_start_that_cannot_listen_founds_nothing() {
    let taken = Daemon::start(&Program::subject(), &[]);
    let url = format!("--listen-client-urls=http://{}", taken.client);
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), &Program::subject(), &[&url]);
    daemon.spawn();
    wait_for(STOP_LIMIT, || daemon.exited()).expect("it ends");
    assert!(!daemon.data_dir().join("member/wal").exists(), "{}", daemon.log());
}

/// `discovery failed` would send its reader to options that have nothing to do with it.
#[test]
fn a_disk_that_fails_while_it_serves_is_no_failed_start() {
    let place = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start(&deaf_to_file_limits(place.path()), &[]);
    let pid = daemon.pid().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, "--fsize=1048576"]).status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit");
    let value = "A".repeat(400_000);
    for _ in 0..10 {
        let body = format!(r#"{{"key":"YQ==","value":"{value}"}}"#);
        if http::post(daemon.client, "/v3/kv/put", &body).is_err() {
            break;
        }
    }
    let status = wait_for(STOP_LIMIT, || daemon.exited()).expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    assert_eq!(last_record(&daemon.log()), ("fatal".to_owned(), "the member stopped".to_owned()));
}

/// The daemon under a shell that ignores SIGXFSZ, so that a write beyond the limit fails as on a broken disk.
fn deaf_to_file_limits(place: &std::path::Path) -> Program {
    let quorate = Program::subject();
    let path = place.join("quorate");
    fs::write(&path, format!("#!/bin/sh\ntrap '' XFSZ\nexec {} \"$@\"\n", quorate.path.display())).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
    Program { path, ..quorate }
}

/// Callers that start it with `--log-level=warn` wait for this record.
#[test]
fn at_level_warn_readiness_shows_too() {
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), &Program::subject(), &["--log-level=warn"]);
    daemon.spawn();
    let said =
        wait_for(STOP_LIMIT, || daemon.log().contains("simple token is not cryptographically signed").then_some(()));
    assert!(said.is_some(), "{}", daemon.log());
    assert!(!daemon.log().contains("cannot campaign"), "{}", daemon.log());
}
