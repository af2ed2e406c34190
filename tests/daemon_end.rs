//! How the process ends: which signal does what, what a failure says last, and with which exit code.

#[path = "support/mod.rs"]
mod support;

use std::{fs, io::Write as _, net::TcpStream, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use support::{
    daemon::{Daemon, STOP_LIMIT, ended_by},
    grpc::{self, Client},
    http,
    program::Program,
    wait_for,
};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
/// More than a process that may open 200 files has room for; as many wait in the queue of a listener.
const IDLE_CONNECTIONS: usize = 100;
/// What makes a WebSocket of a connection.
const UPGRADE: &[u8] = b"GET /v3/watch HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

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
    let mut daemon = Daemon::start(&after("trap '' XFSZ", place.path()), &[]);
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

/// Whoever connects and says nothing takes no descriptor that the log and the state need: a member that had none left for
/// its next file stopped.
#[test]
fn idle_connections_leave_descriptors_for_the_state() {
    let place = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start(&after("ulimit -n 200", place.path()), &["--snapshot-count=100"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut client = runtime.block_on(Client::connect(&daemon.endpoint())).expect("it listens");
    // Whoever has asked for something does not give way.
    runtime.block_on(client.kv.put(grpc::put("a", "b"))).expect("a put");
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).map_or(0, Iterator::count);
    let before = descriptors();
    let idle: Vec<TcpStream> = [daemon.peer, daemon.client]
        .into_iter()
        .flat_map(|address| {
            (0..IDLE_CONNECTIONS).map(move |_| TcpStream::connect(address).expect("the system takes it"))
        })
        .collect();
    let accepted = || descriptors().saturating_sub(before);
    wait_for(STOP_LIMIT, || (accepted() > 15).then_some(())).expect("it accepts what it has room for");
    assert!(accepted() < 60, "{} of {}", accepted(), 2 * IDLE_CONNECTIONS);
    for number in 0..300 {
        let put = grpc::put(format!("a{number}"), vec![b'A'; 400_000]);
        runtime.block_on(client.kv.put(put)).unwrap_or_else(|status| panic!("{status}\n{}", daemon.log()));
    }
    assert_eq!(daemon.exited(), None, "{}", daemon.log());
    drop(idle);
    http::get(daemon.client, "/health").expect("those who come now are served");
    assert!(!daemon.log().contains("cannot accept"), "{}", daemon.log());
}

/// A WebSocket keeps the place that its connection had.
#[test]
fn sockets_leave_descriptors_for_the_state() {
    let place = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start(&after("ulimit -n 200", place.path()), &[]);
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).map_or(0, Iterator::count);
    let before = descriptors();
    let sockets: Vec<TcpStream> = (0..IDLE_CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(daemon.client).expect("the system takes it");
            stream.write_all(UPGRADE).expect("a request");
            stream
        })
        .collect();
    let accepted = || descriptors().saturating_sub(before);
    wait_for(STOP_LIMIT, || (accepted() > 15).then_some(())).expect("it accepts what it has room for");
    let too_many = wait_for(Duration::from_secs(1), || (accepted() >= 60).then_some(()));
    assert!(too_many.is_none(), "{} of {}", accepted(), sockets.len());
    drop(sockets);
    http::get(daemon.client, "/health").expect("those who come now are served");
    assert_eq!(daemon.exited(), None, "{}", daemon.log());
}

/// etcd's text, for those who look for it.
#[test]
fn too_few_descriptors_are_refused_at_the_start() {
    let place = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), &after("ulimit -n 150", place.path()), &[]);
    daemon.spawn();
    let status = wait_for(STOP_LIMIT, || daemon.exited()).expect("it ends");
    assert_eq!(status.code(), Some(1));
    let text = "file descriptor limit of etcd process is too low; please set higher";
    assert!(daemon.log().contains(text), "{}", daemon.log());
}

/// The daemon as it starts after a command of the shell: `trap '' XFSZ` lets a write beyond the limit fail as on a broken
/// disk.
fn after(command: &str, place: &std::path::Path) -> Program {
    let quorate = Program::subject();
    let path = place.join("quorate");
    fs::write(&path, format!("#!/bin/sh\n{command}\nexec {} \"$@\"\n", quorate.path.display())).expect("written");
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
