//! etcdctl 3.4, 3.5 and 3.7 as released, side by side against our daemon and against etcd: the same commands must print
//! the same, in every output format, and exit alike.

mod support;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::daemon::Daemon;
use support::features::{self, Feature};
use support::mask::{self, Mask};
use support::program::{self, Program};
use support::wait_for;

/// Longest run of one command, in seconds.
const COMMAND_SECONDS: &str = "30";
/// Longest wait for the events of a watch.
const WATCH_LIMIT: Duration = Duration::from_secs(20);

/// One command line. `LEASE` stands for the lease granted last, `MEMBER` for the id of the member.
#[derive(Clone, Copy)]
enum Step {
    Run(&'static str),
    /// With standard input.
    Feed(&'static str, &'static str),
    /// Killed after so many lines of output.
    Watch(&'static str, usize),
}
use Step::{Feed, Run, Watch};

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
];

/// These need a feature each, and come last.
const FEATURE_STEPS: &[(Feature, &[Step])] = &[
    (
        Feature::Members,
        &[
            Run("member update MEMBER --peer-urls=http://localhost:12345"),
            Run("member remove 4242"),
            Run("member promote MEMBER"),
        ],
    ),
    (
        Feature::Auth,
        &[
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
        ],
    ),
];

/// The name of a difference, and how to take it out.
type Masked = (&'static str, fn(&str) -> String);

/// What may differ, by name.
const MASKED: &[Masked] = &[
    ("sizes of the database are the engine's own", |text| {
        let text =
            ["dbSize", "dbSizeInUse"].iter().fold(text.to_owned(), |text, field| mask::without_numbers(&text, field));
        [" kB", " MB", " B", "%"].iter().fold(text, |text, unit| without_amounts(&text, unit))
    }),
    ("log positions count the entries of start-up", |text| {
        ["raftIndex", "raftAppliedIndex"]
            .iter()
            .fold(text.to_owned(), |text, field| mask::without_numbers(&text, field))
    }),
    ("work takes its time", |text| words(&words(text, "took = "), "took ")),
    ("leases are counted down", |text| words(text, "remaining(")),
    ("tables are as wide as their ids", |text| {
        let mut last = None;
        text.chars().filter(|c| last.replace(*c) != Some(*c) || !" ─-".contains(*c)).collect()
    }),
    ("lock keys carry a lease of their own", |text| words(text, "mutex/")),
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
    let built = FEATURE_STEPS.iter().filter(|(feature, _)| features::built(*feature));
    for step in STEPS.iter().chain(built.flat_map(|(_, steps)| *steps)) {
        let [got, expected] = sides.each_mut().map(|side| side.perform(*step));
        if got != expected {
            differences.push(format!("$ {}\nours:\n{got}etcd:\n{expected}", command_line(*step)));
        }
    }
    let names: Vec<_> = MASKED.iter().map(|(name, _)| *name).collect();
    let count = differences.len();
    assert!(count == 0, "{}, masked: {names:?}\n{count} commands differ:\n{}", tool.name, differences.join("\n"));
}

fn command_line(step: Step) -> &'static str {
    let (Run(line) | Feed(line, _) | Watch(line, _)) = step;
    line
}

/// One tool at one daemon.
struct Session<'a> {
    tool: &'a Program,
    daemon: &'a Daemon,
    mask: Mask,
    lease: String,
    member: String,
}

impl<'a> Session<'a> {
    fn new(tool: &'a Program, daemon: &'a Daemon) -> Self {
        let mask = Mask::of(daemon);
        let member = mask.member().to_owned();
        Self { tool, daemon, mask, lease: String::new(), member }
    }

    /// Output and exit code, masked.
    fn perform(&mut self, step: Step) -> String {
        let mut command = self.command(command_line(step));
        let output = match step {
            Run(_) => run(command.stdin(Stdio::null())),
            Feed(_, input) => run(command.stdin(self.file_with(input))),
            Watch(_, lines) => self.watch(&mut command, lines),
        };
        if let Some(lease) = granted(&output) {
            self.lease = format!("{lease:x}");
            self.mask.add_lease(lease);
        }
        MASKED.iter().fold(self.mask.apply(&output), |text, (_, mask)| mask(&text))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg(COMMAND_SECONDS).arg(&self.tool.path).arg(format!("--endpoints={}", self.daemon.client));
        for word in line.split(' ') {
            command.arg(word.replace("LEASE", &self.lease).replace("MEMBER", &self.member));
        }
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.daemon.directory().join(name)
    }

    fn file_with(&self, text: &str) -> File {
        std::fs::write(self.path("input"), text).expect("the test's own directory");
        File::open(self.path("input")).expect("just written")
    }

    fn watch(&self, command: &mut Command, lines: usize) -> String {
        let path = self.path("watched");
        let out = File::create(&path).expect("the test's own directory");
        let mut child =
            command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn().expect("the tool starts");
        let seen = || std::fs::read_to_string(&path).unwrap_or_default();
        wait_for(WATCH_LIMIT, || (seen().lines().count() >= lines).then_some(()));
        // `timeout` passes the signal on; a watch that ended by itself shows in its output.
        let pid = i32::try_from(child.id()).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
        drop(child.wait());
        seen()
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the tool starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), complaints(&output.stderr));
    format!("{out}{err}[exit {}]\n", output.status.code().unwrap_or(-1))
}

/// What a tool says on standard error, without the log lines of its client library.
fn complaints(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().filter(|line| !line.starts_with('{')).map(|line| line.to_owned() + "\n").collect()
}

/// The id in `lease 694d… granted with TTL(600s)`.
fn granted(output: &str) -> Option<i64> {
    let id = output.strip_prefix("lease ")?.split_once(" granted")?.0;
    i64::from_str_radix(id, 16).ok()
}

/// Replaces the rest of the word behind every `mark`.
fn words(text: &str, mark: &str) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.find([' ', '\n', ')']).and_then(|end| part.get(end..)).unwrap_or_default();
        out = out + mark + "…" + rest;
    }
    out
}

/// Replaces the number before every `unit`.
fn without_amounts(text: &str, unit: &str) -> String {
    let mut parts = text.split(unit).peekable();
    let mut out = String::new();
    while let Some(part) = parts.next() {
        let number = parts.peek().is_some_and(|_| part.ends_with(|c: char| c.is_ascii_digit()));
        let kept = if number { part.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') } else { part };
        out = out + kept + if number { "N" } else { "" } + if parts.peek().is_some() { unit } else { "" };
    }
    out
}

/// A snapshot taken from us by the real etcdctl opens in the real etcdutl and tells the same story.
#[test]
fn snapshots_open_in_etcdutl() {
    let subjects = if features::built(Feature::Snapshot) { Program::subject() } else { Program::etcd() };
    let stories = [subjects, Program::etcd()].map(|program| {
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
