//! etcdctl 3.4, 3.5 and 3.7 as released, side by side against our daemon and against etcd: the same commands must print
//! the same, in every output format, and exit alike.

mod support;

use std::path::Path;
use support::daemon::Daemon;
use support::mask;
use support::program::{self, Program};
use support::session::{
    MASKED, Session,
    Step::{self, Feed, Run, Watch},
    command_line,
};

const STEPS: &[Step] = &[
    Run("put greeting hello"),
    Run("put --prev-kv greeting again"),
    Feed("put piped", "from standard input"),
    Run("get greeting"),
    Run("get greeting -w json"),
    Run("get greeting -w fields"),
    Run("get greeting --rev=2 -w simple"),
    Run("get greeting --print-value-only"),
    Run("get nothing -w json"),
    Run("put list/a 3"),
    Run("put list/b 2"),
    Run("put list/c 1"),
    Run("get --prefix list/"),
    Run("get --prefix list/ --keys-only"),
    Run("get --prefix list/ --limit=2 -w json"),
    Run("get --prefix list/ --sort-by=VALUE --order=ASCEND"),
    Run("get --prefix list/ --count-only -w fields"),
    Run("get list/a list/c -w json"),
    Run("get --from-key list/b"),
    Run("get greeting --consistency=s"),
    Run("del list/a"),
    Run("del --prev-kv --prefix list/ -w json"),
    Run("del nothing"),
    Feed("txn", "value(\"greeting\") = \"again\"\n\nput txn yes\nget greeting\n\nput txn no\n\n"),
    Feed("txn -w json", "version(\"greeting\") > \"5\"\n\nput txn yes\n\ndel txn\nget greeting\n\n"),
    Watch("watch --rev=2 greeting", 6),
    Watch("watch --rev=2 --prefix --prev-kv list/", 24),
    Watch("watch --rev=2 greeting -w json", 1),
    Run("endpoint hashkv"),
    Run("lease grant 600"),
    Run("put leased value --lease=LEASE"),
    Run("lease timetolive LEASE --keys"),
    Run("lease list"),
    Run("lease keep-alive --once LEASE"),
    Run("get leased -w json"),
    Run("lease revoke LEASE"),
    Run("lease timetolive LEASE"),
    Run("lease revoke 4242"),
    Run("get leased"),
    Run("put a b --lease=4242"),
    Run("compaction 4 --physical"),
    Run("compaction 4"),
    Run("compaction 4000"),
    Run("get greeting --rev=2"),
    Run("get greeting --rev=4000"),
    Run("put --ignore-value greeting"),
    Run("put --ignore-lease nothing value"),
    Run("endpoint health"),
    Run("endpoint status"),
    Run("endpoint status -w json"),
    Run("endpoint status -w table"),
    Run("member list"),
    Run("member list -w json"),
    Run("member list -w table"),
    Run("member list -w fields"),
    Run("member add broken --peer-urls=not-a-url"),
    Run("alarm list"),
    Run("alarm disarm"),
    Run("move-leader 4242"),
    Run("defrag"),
    Run("role add reader"),
    Run("role grant-permission reader read --prefix list/"),
    Run("role grant-permission reader readwrite from to"),
    Run("role get reader"),
    Run("role list"),
    Run("role revoke-permission reader from to"),
    Run("role get nobody"),
    Run("user add root:secret"),
    Run("user add guest:secret"),
    Run("user add guest:secret"),
    Run("user grant-role guest reader"),
    Run("user get guest"),
    Run("user get guest --detail"),
    Run("user list"),
    Run("lock mutex echo held"),
    Run("member update MEMBER --peer-urls=http://localhost:12345"),
    Run("member remove 4242"),
    Run("member promote MEMBER"),
    Run("auth enable"),
    Run("role add root"),
    Run("user grant-role root root"),
    Run("auth enable"),
    Run("get greeting"),
    Run("get greeting --user=guest:secret"),
    Run("get --prefix list/ --user=guest:secret"),
    Run("put greeting stolen --user=guest:secret"),
    Run("get greeting --user=guest:wrong"),
    Run("user list --user=guest:secret"),
    Run("user delete root --user=root:secret"),
    Run("role delete reader --user=root:secret"),
    Run("auth disable --user=root:secret"),
    Run("get greeting"),
];

#[test]
fn etcdctl_3_7() {
    compare(&Program::etcdctl());
}

#[test]
fn etcdctl_3_5() {
    compare(&Program::new("etcdctl 3.5.1", program::clients().join("etcdctl-3.5.1")));
}

#[test]
fn etcdctl_3_4() {
    compare(&Program::new("etcdctl 3.4", "etcdctl"));
}

/// Runs every step with the tool at our daemon and at etcd.
fn compare(tool: &Program) {
    let (ours, theirs) = (Daemon::start(&Program::subject(), &[]), Daemon::start(&Program::etcd(), &[]));
    let mut sides = [Session::new(tool, &ours), Session::new(tool, &theirs)];
    let mut differences = Vec::new();
    for step in STEPS {
        let [got, expected] = sides.each_mut().map(|side| side.perform(*step));
        if got != expected {
            differences.push(format!("$ {}\nours:\n{got}etcd:\n{expected}", command_line(*step)));
        }
    }
    let names: Vec<_> = MASKED.iter().map(|(name, _)| *name).collect();
    let count = differences.len();
    assert!(count == 0, "{}, masked: {names:?}\n{count} commands differ:\n{}", tool.name, differences.join("\n"));
}

/// A snapshot taken from us by the real etcdctl opens in the real etcdutl and tells the same story.
#[test]
fn snapshots_open_in_etcdutl() {
    let stories = [Program::subject(), Program::etcd()].map(|program| {
        let daemon = Daemon::start(&program, &[]);
        let tool = Program::etcdctl();
        let mut session = Session::new(&tool, &daemon);
        for line in ["put a 1", "put b 2", "put a 3", "del b", "compaction 3"] {
            session.perform(Run(line));
        }
        let file = session.path("snapshot.db");
        let saved = session.command(&format!("snapshot save {}", file.display())).output().expect("the tool starts");
        assert!(saved.status.success(), "{}: {}", program.name, String::from_utf8_lossy(&saved.stderr));
        story(&file, daemon.directory())
    });
    let [ours, theirs] = stories;
    assert_eq!(ours, theirs);
}

/// Revision and version of a snapshot, and what a member restored from it holds.
fn story(file: &Path, directory: &Path) -> String {
    let tool = Program::etcdutl();
    let status = tool.command().args(["snapshot", "status", "-w", "json"]).arg(file).output().expect("the tool starts");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    let restored = directory.join("restored");
    let restore =
        tool.command().args(["snapshot", "restore", "--data-dir"]).args([&restored, &file.to_owned()]).output();
    let restore = restore.expect("the tool starts");
    assert!(restore.status.success(), "{}", String::from_utf8_lossy(&restore.stderr));
    let fields = ["revision", "version"].map(|field| mask::number_after(&status, field));
    let hash = tool.command().args(["hashkv", "-w", "json"]).arg(restored.join("member/snap/db")).output();
    format!("{fields:?} {}", String::from_utf8_lossy(&hash.expect("the tool starts").stdout))
}
