//! `top` shows members at work: one frame as text, and a terminal that is given back.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    time::Duration,
};

use support::{daemon::Daemon, program::Program, v2, wait_for};

fn once(endpoints: &str, flags: &[&str]) -> Vec<String> {
    let mut command = Program::quoratectl().command();
    command.args(["top", "--once", "--interval", "300ms", "--endpoints", endpoints]).args(flags);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn shows_members_at_work(program: &Program) {
    let daemon = Daemon::start(program, &[]);
    let endpoint = daemon.endpoint();
    let put = |key: &str| {
        let output =
            Program::quoratectl().command().args(["--endpoints", &endpoint, "put", key, "v"]).output().unwrap();
        assert!(output.status.success());
    };
    put("a");
    let lines = once(&format!("{endpoint},127.0.0.1:1"), &["--command-timeout", "1s"]);
    assert!(lines[0].contains(", 1 of 2 up, ") && lines[0].ends_with("revision 2, by endpoint"), "{lines:?}");
    assert!(lines[1].starts_with("ENDPOINT ") && lines[1].contains("PUT/s"), "{lines:?}");
    let row: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!((row[0], row[1], row[2]), (endpoint.as_str(), "m1", "leader"), "{lines:?}");
    assert!(lines[3].starts_with("127.0.0.1:1 ") && lines[3].contains("does not answer"), "{lines:?}");
    let cluster = once(&daemon.client.to_string(), &["--cluster", "--sort", "puts"]);
    let is_over = cluster.get(3).is_none_or(|line| line.starts_with("PREFIX "));
    assert!(cluster[2].starts_with(&endpoint) && is_over, "{cluster:?}");
}

/// Requests of somebody who asks for the same keys again and again.
#[test]
fn busy_prefixes_and_clients_are_shown() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    let endpoint = daemon.endpoint();
    let runs = |words: &[&str]| {
        let output = Program::quoratectl().command().args(["--endpoints", &endpoint]).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    // All of them have to fall into one window of a few seconds, which a busy machine does not grant at once.
    let seen = wait_for(Duration::from_mins(1), || {
        for number in 0..3 {
            runs(&["put", &format!("/registry/pods/{number}"), "v"]);
        }
        for _ in 0..2 {
            runs(&["get", "/registry/nodes/0"]);
        }
        assert_eq!(v2::ask(daemon.client, "PUT", "/v2/keys/app/x", "value=1").status / 100, 2);
        let lines = once(&endpoint, &[]);
        let prefixes = ["/registry/pods/ ", "/registry/nodes/ ", "/v2/keys/app/ "];
        let headings = [&["PREFIX "], &prefixes[..], &["CLIENT ", "127.0.0.1 "]].concat();
        let at = |heading: &&str| lines.iter().position(|line| line.starts_with(heading));
        headings.iter().map(at).eq((3..9).map(Some)).then_some(())
    });
    assert!(seen.is_some(), "{:?}", once(&endpoint, &[]));

    for words in [&["user", "add", "root:secret"][..], &["user", "add", "bob:secret"], &["auth", "enable"]] {
        runs(words);
    }
    let as_bob = once(&endpoint, &["--user", "bob:secret"]);
    assert_eq!(as_bob[3], "prefixes and clients are not told: etcdserver: permission denied", "{as_bob:?}");
    let as_root = ["--user", "root:secret"];
    let seen = wait_for(Duration::from_mins(1), || {
        runs(&[&as_root[..], &["put", "/registry/pods/0", "v"]].concat());
        once(&endpoint, &as_root).iter().any(|line| line.starts_with("PREFIX ")).then_some(())
    });
    assert!(seen.is_some(), "{:?}", once(&endpoint, &as_root));
}

#[test]
fn our_members_are_shown() {
    shows_members_at_work(&Program::subject());
}

#[test]
fn members_of_etcd_are_shown_alike() {
    shows_members_at_work(&Program::etcd());
}

#[test]
fn a_terminal_is_taken_and_given_back() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    let program = Program::quoratectl();
    let top = format!("{} top --interval 300ms --endpoints {}", program.path.display(), daemon.endpoint());
    // `script` gives it a terminal, which has no size by itself.
    let line = format!("stty rows 24 cols 200; exec {top}");
    let mut command = Command::new("script");
    command.args(["-qefc", &line, "/dev/null"]).env("TERM", "xterm");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("script: {error}; apt-get install bsdutils installs it"));
    let mut keys = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1_024);
    let reading = std::thread::spawn(move || {
        let mut piece = [0; 4_096];
        while let Ok(length @ 1..) = output.read(&mut piece) {
            if sender.send(piece[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut seen = Vec::new();
    let mut shows = |text: &str| {
        let shown = wait_for(Duration::from_secs(20), || {
            seen.extend(receiver.try_iter().flatten());
            String::from_utf8_lossy(&seen).contains(text).then_some(())
        });
        assert!(shown.is_some(), "{text:?} in {}", String::from_utf8_lossy(&seen));
    };
    shows("\u{1b}[?1049h");
    shows("leader");
    keys.write_all(b"s").unwrap();
    shows("size");
    keys.write_all(b"q").unwrap();
    shows("\u{1b}[?1049l");
    assert!(child.wait().unwrap().success());
    reading.join().unwrap();
}
