//! Clients of the v2 API that nobody here wrote: python-etcd, and etcdctl 3.5 and 3.4 with `ETCDCTL_API=2`. Against our
//! daemon they must print what they print against etcd 3.5.1, the last kind that serves them, and exit alike.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::daemon::{Daemon, tail};
use support::mask::{self, Mask};
use support::program::{self, Program};
use support::{setting, wait_for};

/// Longest walk of one client, in seconds.
const WALK_SECONDS: u64 = 120;
/// Longest run of one command, in seconds.
const COMMAND_SECONDS: &str = "30";
/// Longest wait for what a watch prints.
const WATCH_LIMIT: Duration = Duration::from_secs(5);
/// A watch has reached the member when so much time has passed.
const WATCH_SET_UP: Duration = Duration::from_millis(700);
const FLAGS: [&str; 1] = ["--enable-v2=true"];

#[test]
fn python_etcd() {
    let [(ours, complaint), (theirs, trouble)] =
        [Program::subject(), Program::etcd_3_5_1()].map(|daemon| walk(&daemon));
    assert!(theirs.ends_with("done\n"), "the walk does not even end against etcd:\n{theirs}{trouble}");
    if let Some(difference) = mask::difference(&ours, &theirs) {
        panic!("{difference}\nthe client's complaints:\n{}", tail(&complaint, 3_000));
    }
}

/// Output and complaints of one walk against a fresh daemon.
fn walk(program: &Program) -> (String, String) {
    let daemon = Daemon::start(program, &FLAGS);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/python/smoke_etcd2.py");
    let output = Command::new("timeout")
        .arg(setting("WALK_SECONDS", WALK_SECONDS).to_string())
        .arg(program::clients_with("python_etcd2").join("etcd2/bin/python"))
        .args([script, &daemon.endpoint()])
        .stdin(Stdio::null())
        .output()
        .expect("timeout is part of every system");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// One command line. `MEMBER` stands for the id of the member, `PEER` for its address among members.
#[derive(Clone, Copy)]
enum Step {
    Run(&'static str),
    /// A watch, and the command that ends it.
    Watch(&'static str, &'static str),
}
use Step::{Run, Watch};

const STEPS: &[Step] = &[
    Run("set /greeting hello"),
    Run("set /greeting again"),
    Run("get /greeting"),
    Run("-o extended get /greeting"),
    Run("-o json get /greeting"),
    Run("get --quorum /greeting"),
    Run("get /nothing"),
    Run("get /nothing/here"),
    Run("mk /greeting new"),
    Run("mk /made new"),
    Run("mk --in-order /queue 1"),
    Run("mk --in-order /queue 2"),
    Run("mkdir /dir"),
    Run("mkdir /dir"),
    Run("mkdir /mortal --ttl 1000"),
    Run("setdir /dir2"),
    Run("setdir /dir2 --ttl 1000"),
    Run("set /dir/sub/a 1"),
    Run("set /dir/b 2"),
    Run("set /dir/_hidden 3"),
    Run("set /dir value"),
    Run("get /dir"),
    Run("ls --sort"),
    Run("ls --sort /dir"),
    Run("ls --sort --recursive /dir"),
    Run("ls --sort --recursive -p /"),
    Run("ls --quorum --sort /dir"),
    Run("-o json ls --sort /dir"),
    Run("ls /greeting"),
    Run("ls /nothing"),
    Run("set /cas 1"),
    Run("set /cas 2 --swap-with-value 1"),
    Run("set /cas 3 --swap-with-value 1"),
    Run("set /cas 3 --swap-with-index 1"),
    Run("set /lasting x --ttl 1000"),
    Run("update /lasting y --ttl 2000"),
    Run("update /nothing y"),
    Run("update /lasting z"),
    Run("rm /dir"),
    Run("rmdir /dir"),
    Run("rm /dir/b --with-value wrong"),
    Run("rm /dir/b --with-index 1"),
    Run("rm /dir/b --with-value 2"),
    Run("-o extended rm /dir/sub/a"),
    Run("rm /dir --recursive"),
    Run("rm /nothing"),
    Run("rmdir /dir2"),
    Run("rm --dir /mortal"),
    Run("set / root"),
    Watch("watch /watched", "set /watched 1"),
    Watch("watch --recursive /", "set /elsewhere/x 1"),
    Watch("-o extended watch --recursive /below", "set /below/a/b 1"),
    Watch("watch --forever --recursive /below", "rm /below --recursive"),
    Watch("watch --after-index 4 /greeting", "set /nothing/more 1"),
    Watch("exec-watch --recursive /exec -- sh -c echo${IFS}$ETCD_WATCH_ACTION${IFS}$ETCD_WATCH_KEY", "set /exec/x 1"),
    Run("cluster-health"),
    Run("member list"),
    Run("member update MEMBER http://PEER"),
    Run("member update 4242 http://127.0.0.1:1"),
    Run("member remove 4242"),
    Run("member add twin http://PEER"),
    Run("role add app"),
    Run("role add app"),
    Run("role grant app --path /app/* --readwrite"),
    Run("role grant app --path /shared --read"),
    Run("role grant app --path /shared --read"),
    Run("role get app"),
    Run("role revoke app --path /shared --read"),
    Run("role get app"),
    Run("role get nothing"),
    Run("role list"),
    Run("user add root:secret"),
    Run("user add worker:secret"),
    Run("user add worker:secret"),
    Run("user grant worker --roles app"),
    Run("user grant worker --roles app"),
    Run("user get worker"),
    Run("user get nobody"),
    Run("user list"),
    Run("auth enable"),
    Run("auth enable"),
    Run("-u root:secret role revoke guest --path /* --readwrite"),
    Run("get /greeting"),
    Run("set /app/x 1"),
    Run("-u worker:secret set /app/x 1"),
    Run("-u worker:secret get /greeting"),
    Run("-u worker:wrong get /app/x"),
    Run("-u worker:secret user list"),
    Run("-u root:secret get /greeting"),
    Run("-u root:secret user passwd worker"),
    Run("-u root:secret user revoke worker --roles app"),
    Run("-u root:secret user revoke worker --roles app"),
    Run("-u root:secret user remove worker"),
    Run("-u root:secret role remove app"),
    Run("-u root:secret user remove root"),
    Run("auth disable"),
    Run("-u root:secret auth disable"),
    Run("get /greeting"),
];

/// What etcd 3.4 and 3.5 got wrong and 3.3 did not: the time to live of a directory can no longer be changed. The tool
/// takes the refusal for a missing leader.
const REPAIRED: [(&str, &str, &str); 1] = [("updatedir /queue --ttl 1000", "[exit 0]", "has no leader")];

/// The name of a difference, and how to take it out.
type Masked = (&'static str, fn(&str) -> String);

const MASKED: &[Masked] = &[
    ("the time a key expires at", |text| behind(&behind(text, "\"expiration\":\""), "TTL: ")),
    ("what remains of a time to live", |text| mask::without_numbers(text, "ttl")),
];

#[test]
fn etcdctl_3_5() {
    compare(&Program::new("etcdctl 3.5.1", program::clients_with("etcd_351").join("etcdctl-3.5.1")));
}

#[test]
fn etcdctl_3_4() {
    compare(&Program::new("etcdctl 3.4", "etcdctl"));
}

/// Runs every step with the tool at our daemon and at etcd.
fn compare(tool: &Program) {
    let (ours, theirs) = (Daemon::start(&Program::subject(), &FLAGS), Daemon::start(&Program::etcd_3_5_1(), &FLAGS));
    let sides = [Session::new(tool, &ours), Session::new(tool, &theirs)];
    let mut differences = Vec::new();
    for step in STEPS {
        let [got, expected] = sides.each_ref().map(|side| side.perform(*step));
        if got != expected {
            differences.push(format!("$ {}\nours:\n{got}etcd:\n{expected}", command_line(*step)));
        }
    }
    for (line, ours, etcds) in REPAIRED {
        let [got, expected] = sides.each_ref().map(|side| side.perform(Run(line)));
        let as_told = (got.contains(ours) || got == expected) && expected.contains(etcds);
        if !as_told {
            differences.push(format!("$ {line}\nours:\n{got}etcd:\n{expected}"));
        }
    }
    let names: Vec<_> = MASKED.iter().map(|(name, _)| *name).collect();
    let count = differences.len();
    assert!(count == 0, "{}, masked: {names:?}\n{count} commands differ:\n{}", tool.name, differences.join("\n"));
}

fn command_line(step: Step) -> &'static str {
    let (Run(line) | Watch(line, _)) = step;
    line
}

/// One tool at one daemon.
struct Session<'a> {
    tool: &'a Program,
    daemon: &'a Daemon,
    mask: Mask,
}

impl<'a> Session<'a> {
    fn new(tool: &'a Program, daemon: &'a Daemon) -> Self {
        Self { tool, daemon, mask: Mask::of(daemon) }
    }

    /// Output and exit code, masked.
    fn perform(&self, step: Step) -> String {
        let output = match step {
            Run(line) => run(&mut self.command(line)),
            Watch(line, cause) => self.watch(line, cause),
        };
        MASKED.iter().fold(self.mask.apply(&output), |text, (_, mask)| mask(&text))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg(COMMAND_SECONDS).arg(&self.tool.path).arg("--endpoints").arg(self.daemon.endpoint());
        for word in line.split(' ') {
            let word = word.replace("MEMBER", self.mask.member()).replace("PEER", &self.daemon.peer.to_string());
            command.arg(word.replace("${IFS}", " "));
        }
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("ETCDCTL_API", "2");
        command.stdin(Stdio::null());
        command
    }

    /// What the watch prints once `cause` has run.
    fn watch(&self, line: &str, cause: &str) -> String {
        let path = self.daemon.directory().join("watched");
        let out = File::create(&path).expect("the test's own directory");
        let complaints = out.try_clone().expect("a file handle");
        let mut child = self.command(line).stdout(out).stderr(complaints).spawn().expect("the tool starts");
        std::thread::sleep(WATCH_SET_UP);
        let caused = run(&mut self.command(cause));
        let seen = || std::fs::read_to_string(&path).unwrap_or_default();
        let mut last = String::new();
        let quiet = || {
            std::thread::sleep(WATCH_SET_UP / 2);
            let now = seen();
            let done = !now.is_empty() && now == last;
            last = now;
            done.then_some(())
        };
        let told = wait_for(WATCH_LIMIT, quiet).map_or("told nothing", |()| "told");
        // `timeout` passes the signal on. A watch that has ended by itself was told so in its output.
        let pid = i32::try_from(child.id()).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap_or_default();
        drop(child.wait());
        format!("{}{told}\n{caused}", seen())
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the tool starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}[exit {}]\n", text(&output.stdout), text(&output.stderr), output.status.code().unwrap_or(-1))
}

/// Replaces what stands behind every `mark`, up to the end of the word.
fn behind(text: &str, mark: &str) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.find([' ', '\n', '"']).and_then(|end| part.get(end..)).unwrap_or_default();
        out = out + mark + "…" + rest;
    }
    out
}
