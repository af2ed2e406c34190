//! `make-mirror`: between etcd and ourselves, in both directions and with both clients, the destination comes to hold what
//! the source holds, and goes on holding it.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use support::{daemon::Daemon, program::Program, wait_for};

/// Longest wait for a change to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that mirrors until it is dropped.
struct Mirror(Child);

impl Mirror {
    fn begin(client: &Program, from: &Daemon, to: &Daemon, flags: &[&str]) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&client.path);
        command.args(["--endpoints", &from.endpoint(), "make-mirror", &to.endpoint()]).args(flags);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

fn ctl(daemon: &Daemon, words: &[&str]) -> String {
    let mut command = Program::quoratectl().command();
    let output = command.args(["--endpoints", &daemon.endpoint()]).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until everything below `prefix` reads as `expected`.
fn expect(daemon: &Daemon, prefix: &str, expected: &str) {
    let read = || ctl(daemon, &["get", "--prefix", prefix]);
    let arrived = wait_for(PATIENCE, || (read() == expected).then_some(()));
    assert!(arrived.is_some(), "{prefix}: expected\n{expected}\nand heard\n{}", read());
}

/// One transaction that writes two keys and deletes one.
fn write_together(daemon: &Daemon, prefix: &str) {
    let mut command = Program::quoratectl().command();
    command.args(["--endpoints", &daemon.endpoint(), "txn"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = format!("\nput {prefix}x 1\nput {prefix}y 2\ndel {prefix}a\n\n\n");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn mirrors(client: &Program, source: &Program, destination: &Program) {
    let (from, to) = (Daemon::start(source, &[]), Daemon::start(destination, &[]));
    for (key, value) in [("p/a", "1"), ("p/b", "2"), ("q", "3")] {
        ctl(&from, &["put", key, value]);
    }

    let everything = Mirror::begin(client, &from, &to, &[]);
    expect(&to, "", "p/a\n1\np/b\n2\nq\n3\n");
    ctl(&from, &["put", "p/c", "4"]);
    ctl(&from, &["del", "q"]);
    expect(&to, "", "p/a\n1\np/b\n2\np/c\n4\n");
    drop(everything);

    let renamed = Mirror::begin(client, &from, &to, &["--prefix", "p/", "--dest-prefix", "r/", "--max-txn-ops", "1"]);
    expect(&to, "r/", "r/a\n1\nr/b\n2\nr/c\n4\n");
    write_together(&from, "p/");
    expect(&to, "r/", "r/b\n2\nr/c\n4\nr/x\n1\nr/y\n2\n");
    drop(renamed);

    let since = ctl(&from, &["put", "p/d", "5", "--prev-kv", "-w", "json"]);
    let since: serde_json::Value = serde_json::from_str(&since).unwrap();
    let revision = since.pointer("/header/revision").unwrap().to_string();
    let flags = ["--prefix", "p/", "--dest-prefix", "s/", "--rev", &revision];
    let _changes = Mirror::begin(client, &from, &to, &flags);
    expect(&to, "s/", "s/d\n5\n");
    ctl(&from, &["put", "q", "not of the prefix"]);
    ctl(&from, &["del", "p/", "--prefix"]);
    expect(&to, "s/", "");
}

#[test]
fn our_client_mirrors_between_etcd_and_us() {
    mirrors(&Program::quoratectl(), &Program::etcd(), &Program::subject());
    mirrors(&Program::quoratectl(), &Program::subject(), &Program::etcd());
}

#[test]
fn etcdctl_mirrors_between_etcd_and_us_alike() {
    mirrors(&Program::etcdctl(), &Program::subject(), &Program::subject());
    mirrors(&Program::etcdctl(), &Program::etcd(), &Program::subject());
}
