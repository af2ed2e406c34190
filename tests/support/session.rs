//! Commands of etcdctl at one daemon, and what may differ between what they print at two.

use super::daemon::Daemon;
use super::mask::{self, Mask};
use super::program::Program;
use super::wait_for;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest run of one command, in seconds.
const COMMAND_SECONDS: &str = "30";
/// Longest wait for the events of a watch.
const WATCH_LIMIT: Duration = Duration::from_secs(20);

/// One command line. `LEASE` stands for the lease granted last, `MEMBER` for the id of the member.
#[derive(Clone, Copy)]
pub enum Step {
    Run(&'static str),
    /// With standard input.
    Feed(&'static str, &'static str),
    /// Killed after so many lines of output.
    Watch(&'static str, usize),
}
use Step::{Feed, Run, Watch};

/// The name of a difference, and how to take it out.
pub type Masked = (&'static str, fn(&str) -> String);

/// What may differ, by name.
pub const MASKED: &[Masked] = &[
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
    ("keys of locks and elections carry a lease of their own", |text| words(&words(text, "mutex/"), "el/")),
    ("members are listed by their ids, which are chance", |text| {
        text.lines().map(|line| in_order(line, "ETCD_INITIAL_CLUSTER=\"") + "\n").collect()
    }),
];

/// The words of a command.
pub fn command_line(step: Step) -> &'static str {
    let (Run(line) | Feed(line, _) | Watch(line, _)) = step;
    line
}

/// One tool at one daemon.
pub struct Session<'a> {
    tool: &'a Program,
    daemon: &'a Daemon,
    /// Flags of every command.
    flags: Vec<String>,
    mask: Mask,
    /// What stands for what in commands.
    names: Vec<(&'static str, String)>,
}

impl<'a> Session<'a> {
    pub fn new(tool: &'a Program, daemon: &'a Daemon) -> Self {
        Self::with(tool, daemon, Mask::of(daemon), &[])
    }

    /// A session that gives every command these flags as well.
    pub fn with(tool: &'a Program, daemon: &'a Daemon, mask: Mask, flags: &[String]) -> Self {
        let names = vec![("MEMBER", mask.member().to_owned())];
        Self { tool, daemon, flags: flags.to_vec(), mask, names }
    }

    /// Lets `name` stand for `value` in commands, and the other way round in what they print.
    pub fn name(&mut self, name: &'static str, value: String) {
        self.mask.add(value.clone(), name);
        self.names.insert(0, (name, value));
    }

    /// Output and exit code, masked.
    pub fn perform(&mut self, step: Step) -> String {
        self.perform_as(step, &[])
    }

    /// As [`perform`](Self::perform), with these flags as well.
    pub fn perform_as(&mut self, step: Step, flags: &[&str]) -> String {
        let mut command = self.command(command_line(step));
        command.args(flags);
        let output = match step {
            Run(_) => run(command.stdin(Stdio::null())),
            Feed(_, input) => run(command.stdin(self.file_with(input))),
            Watch(_, lines) => self.watch(&mut command, lines),
        };
        if let Some(lease) = granted(&output) {
            self.names.insert(0, ("LEASE", format!("{lease:x}")));
            self.mask.add_lease(lease);
        }
        if let Some(member) = added(&output) {
            self.name("NEWCOMER", member);
        }
        MASKED.iter().fold(self.mask.apply(&output), |text, (_, mask)| mask(&text))
    }

    /// The command of these words, with what stands for what filled in.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg(COMMAND_SECONDS).arg(&self.tool.path).arg(format!("--endpoints={}", self.daemon.client));
        command.args(&self.flags).args(line.split(' ').map(|word| self.filled_in(word)));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    fn filled_in(&self, word: &str) -> String {
        self.names.iter().fold(word.to_owned(), |word, (name, value)| word.replace(name, value))
    }

    /// A file of that name beside the daemon's.
    pub fn path(&self, name: &str) -> PathBuf {
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
        let pid = i32::try_from(child.id()).expect("a process id");
        let mut ended = || child.try_wait().is_ok_and(|status| status.is_some());
        wait_for(WATCH_LIMIT, || (seen().lines().count() >= lines || ended()).then_some(()));
        // `timeout` passes the signal on; a watch that ended by itself shows in its output.
        if !ended() {
            kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
        }
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

/// The id in `Member 8e9e… added to cluster …`.
fn added(output: &str) -> Option<String> {
    let id = output.strip_prefix("Member ")?.split_once(" added")?.0;
    Some(id.trim().to_owned())
}

/// A line with what is listed behind `mark` in the order of letters.
fn in_order(line: &str, mark: &str) -> String {
    let Some(list) = line.strip_prefix(mark).and_then(|rest| rest.strip_suffix('"')) else { return line.to_owned() };
    let mut items: Vec<&str> = list.split(',').collect();
    items.sort_unstable();
    format!("{mark}{}\"", items.join(","))
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
