//! A member whose quota is used up is freed the way etcd's operators know: compact, defragment, disarm the alarm; with
//! the real etcdctl. The quota was once never left: space that compaction had freed was not given back.

mod support;

use std::{fmt::Write as _, process::Output, time::Duration};
use support::daemon::Daemon;
use support::program::Program;
use support::random::Random;
use support::wait_for;

/// The quota of the member.
const FLAGS: [&str; 1] = ["--quota-backend-bytes=16777216"];
/// Puts that must be refused at last: three quotas full.
const PUTS_MAX: u64 = 500;
const VALUE_BYTES: usize = 100_000;
/// Longest wait for space to be given back.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn quota_is_left_by_compacting_defragmenting_and_disarming() {
    let mut subject = Program::subject();
    // etcd knows no other way; a variable that it does not know is a warning to it.
    subject.variables.push(("ETCD_NOSPACE_DISARM", "manual"));
    let daemon = Daemon::start(&subject, &FLAGS);
    for round in 1..=2 {
        fill(&daemon);
        assert!(told(&daemon, &["alarm", "list"]).contains("alarm:NOSPACE"), "round {round}");
        let status = told(&daemon, &["endpoint", "status", "-w", "json"]);
        let revision = number(&status, "\"revision\":");
        assert!(number(&status, "\"dbSize\":") > 12 << 20, "round {round}: {status}");
        told(&daemon, &["compact", &revision.to_string()]);
        told(&daemon, &["defrag"]);
        // Ours may still be at it behind its answer.
        let size = || number(&told(&daemon, &["endpoint", "status", "-w", "json"]), "\"dbSize\":");
        let small = wait_for(PATIENCE, || (size() < 2 << 20).then_some(()));
        assert!(small.is_some(), "round {round}: {}", size());
        assert!(told(&daemon, &["alarm", "disarm"]).contains("alarm:NOSPACE"), "round {round}");
        assert_eq!(told(&daemon, &["alarm", "list"]), "", "round {round}");
        assert_eq!(told(&daemon, &["put", "after", "all"]), "OK\n", "round {round}");
        assert_eq!(told(&daemon, &["get", "after"]), "after\nall\n", "round {round}");
        assert_eq!(told(&daemon, &["alarm", "list"]), "", "round {round}");
    }
}

/// Puts until that is refused.
fn fill(daemon: &Daemon) {
    for put in 0..PUTS_MAX {
        let bytes = Random::new(put).bytes(VALUE_BYTES / 2);
        let value = hexadecimal(&bytes);
        let output = run(daemon, &["put", "key", &value]);
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("etcdserver: mvcc: database space exceeded"), "{text}");
            return;
        }
    }
    panic!("{PUTS_MAX} puts of {VALUE_BYTES} bytes fit into the quota");
}

fn run(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut command = Program::etcdctl().command();
    command.arg(format!("--endpoints={}", daemon.endpoint())).args(arguments).output().expect("etcdctl runs")
}

/// What a command prints that must succeed.
fn told(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = run(daemon, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The number behind `name` in a JSON text.
fn number(text: &str, name: &str) -> u64 {
    let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("no {name} in {text}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("digits")
}

/// Two digits a byte: values that no compression shortens much.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
