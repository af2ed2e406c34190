//! The programs under `examples/` run against a fresh daemon and show what their first lines promise.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use support::daemon::Daemon;
use support::program::{self, Program};
use support::{http, wait_for};

#[test]
fn follow_config_lists_and_follows() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    // `config/a` = 1 is there before, `config/a` = 2 and the deletion come after it has been listed.
    put(&daemon, "Y29uZmlnL2E=", "MQ==");
    let follower = start(&daemon, "follow_config", &["config/", "2"]);
    let watches = || http::get(daemon.client, "/metrics").ok().filter(|answer| answer.body.contains("watcher_total 1"));
    wait_for(support::daemon::READY_LIMIT, watches).expect("the example watches");
    put(&daemon, "Y29uZmlnL2E=", "Mg==");
    call(&daemon, "deleterange", r#"{"key":"Y29uZmlnL2E="}"#);
    let output = finish(follower);
    assert_eq!(output, "config/a = 1\nconfig/a = 2\nconfig/a is gone\n");
}

#[test]
fn only_one_works_at_a_time() {
    executable("only_one");
    let daemon = Daemon::start(&Program::subject(), &[]);
    let workers = ["first", "second"].map(|name| start(&daemon, "only_one", &[name]));
    let outputs = workers.map(finish);
    for output in &outputs {
        assert!(output.ends_with("is done\n"), "{outputs:?}");
    }
    assert_eq!(outputs.iter().filter(|output| output.contains("waits")).count(), 1, "{outputs:?}");
}

#[test]
fn gateway_speaks_json() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gateway.sh");
    let output = Command::new(script).arg(daemon.client.to_string()).output().expect("the script starts");
    let output = succeeded(&output);
    // Put, range, transaction, the watch's creation and its two events, and the delete.
    assert!(output.contains(r#""succeeded":true"#) && output.contains(r#""created":true"#), "{output}");
    assert!(output.contains(r#""deleted":"1""#), "{output}");
}

fn put(daemon: &Daemon, key: &str, value: &str) {
    call(daemon, "put", &format!(r#"{{"key":"{key}","value":"{value}"}}"#));
}

fn call(daemon: &Daemon, method: &str, body: &str) {
    let answer = http::post(daemon.client, &format!("/v3/kv/{method}"), body).expect("the gateway answers");
    assert_eq!(answer.status, 200, "{}", answer.body);
}

fn start(daemon: &Daemon, example: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new("timeout");
    command.arg("60").arg(executable(example)).args(arguments).env("ENDPOINT", daemon.client.to_string());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    child.expect("cargo builds examples with the tests")
}

fn finish(child: Child) -> String {
    succeeded(&child.wait_with_output().expect("the example ends"))
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Where cargo puts the example, brought up to date by the first test that asks.
fn executable(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--examples", "--target-dir"]).arg(program::target_dir());
        succeeded(&cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo starts"));
        program::target_dir().join("debug/examples")
    });
    directory.join(name)
}
