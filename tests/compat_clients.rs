//! Other people's client libraries, unchanged, walk through their own features against our daemon and against etcd, and
//! must print the same. The programs are under `tests/clients/`; each masks what differs between any two fresh members.

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use support::daemon::{Daemon, tail};
use support::program::{self, Program};
use support::{mask, setting};

/// Longest walk of one client, in seconds.
const WALK_SECONDS: u64 = 120;

#[test]
fn go_clientv3_with_concurrency() {
    compare(&["go-smoke"]);
}

#[test]
fn rust_etcd_client() {
    compare(&["rust-smoke"]);
}

#[test]
fn python_etcd3() {
    compare(&["etcd3/bin/python", "smoke_etcd3.py"]);
}

#[test]
fn python_aetcd() {
    compare(&["aetcd/bin/python", "smoke_aetcd.py"]);
}

/// Runs the client against both daemons, a fresh one each.
fn compare(client: &[&str]) {
    let (theirs, complaint) = walk(&Program::etcd(), client);
    assert!(theirs.ends_with("done\n"), "the walk does not even end against etcd:\n{theirs}{complaint}");
    let (ours, complaint) = walk(&Program::subject(), client);
    if let Some(difference) = mask::difference(&ours, &theirs) {
        panic!("{client:?}: {difference}\nthe client's complaints:\n{}", tail(&complaint, 3_000));
    }
}

/// Output and complaints of one walk.
fn walk(program: &Program, client: &[&str]) -> (String, String) {
    let daemon = Daemon::start(program, &[]);
    let output = Command::new("timeout")
        .arg(setting("WALK_SECONDS", WALK_SECONDS).to_string())
        .args(client.iter().map(|part| locate(part)))
        .arg(daemon.endpoint())
        .stdin(Stdio::null())
        .output()
        .expect("timeout is part of every system");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Scripts lie with the sources, programs where they were built.
fn locate(name: &str) -> PathBuf {
    if std::path::Path::new(name).extension().is_some_and(|extension| extension == "py") {
        return [env!("CARGO_MANIFEST_DIR"), "tests/clients/python", name].iter().collect();
    }
    program::clients().join(name)
}
