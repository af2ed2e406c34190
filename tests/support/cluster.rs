//! Several daemons on loopback that form one cluster.

#![allow(clippy::indexing_slicing, reason = "members are counted by the tests that made them")]

use super::{daemon::Daemon, program::Program, wait_for};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// Longest wait for anything a healthy cluster does.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of each log that a failure shows.
const LOG_LINES_SHOWN: usize = 25;

/// A cluster whose members can be killed, stopped and started one by one. Members are counted from 0.
pub struct Cluster {
    pub members: Vec<Daemon>,
    /// Names and peer addresses in the order of members; nothing for those that have left.
    places: Vec<Option<(String, SocketAddr)>>,
    /// `http` or `https`.
    peer_scheme: &'static str,
}

impl Cluster {
    /// Starts `size` founders and waits until each serves.
    ///
    /// # Panics
    /// If they do not form a cluster in time.
    pub fn start(size: usize, arguments: &[&str]) -> Self {
        Self::start_of(&Program::subject(), size, arguments)
    }

    /// As [`start`](Self::start), with members of another kind.
    ///
    /// # Panics
    /// If they do not form a cluster in time.
    pub fn start_of(program: &Program, size: usize, arguments: &[&str]) -> Self {
        Self::found(std::iter::repeat_n((program, arguments), size))
    }

    /// As [`start`](Self::start), with founders of any kinds, each with flags of its own.
    ///
    /// # Panics
    /// If they do not form a cluster in time.
    pub fn found<'a>(founders: impl IntoIterator<Item = (&'a Program, &'a [&'a str])>) -> Self {
        Self::found_over("http", founders)
    }

    /// As [`found`](Self::found), with peers that speak over this scheme.
    ///
    /// # Panics
    /// If they do not form a cluster in time.
    pub fn found_over<'a>(
        peer_scheme: &'static str,
        founders: impl IntoIterator<Item = (&'a Program, &'a [&'a str])>,
    ) -> Self {
        let mut cluster = Self { members: Vec::new(), places: Vec::new(), peer_scheme };
        for (program, arguments) in founders {
            cluster.prepare_of(program, arguments);
        }
        let list = cluster.initial_cluster();
        for member in &mut cluster.members {
            member.add_argument(format!("--initial-cluster={list}"));
            member.spawn();
        }
        for member in &mut cluster.members {
            assert!(member.wait_ready(PATIENCE), "a founder does not become ready:\n{}", member.log());
        }
        cluster
    }

    /// Chooses name, ports and directory for one more member and returns its number.
    pub fn prepare(&mut self, arguments: &[&str]) -> usize {
        self.prepare_of(&Program::subject(), arguments)
    }

    /// As [`prepare`](Self::prepare), with a member of another kind.
    pub fn prepare_of(&mut self, program: &Program, arguments: &[&str]) -> usize {
        let name = format!("m{}", self.members.len() + 1);
        let mut member = Daemon::prepare(&std::env::temp_dir(), program, arguments);
        member.peer_scheme = self.peer_scheme;
        member.add_argument(format!("--name={name}"));
        self.places.push(Some((name, member.peer)));
        self.members.push(member);
        self.members.len() - 1
    }

    /// Starts member `number`, which the cluster has a place for, and waits until it serves.
    ///
    /// # Panics
    /// If it does not serve in time.
    pub fn join(&mut self, number: usize) {
        let (list, name) = (self.initial_cluster(), format!("m{}", number + 1));
        self.begin(number, &name, &list, "existing");
        let member = &mut self.members[number];
        assert!(member.wait_ready(PATIENCE), "a newcomer does not become ready:\n{}", member.log());
    }

    /// Starts member `number` with these settings, again if it has run before.
    pub fn begin(&mut self, number: usize, name: &str, list: &str, state: &str) {
        let member = &mut self.members[number];
        member.kill();
        for argument in [format!("--name={name}"), format!("--initial-cluster={list}")] {
            member.add_argument(argument);
        }
        member.add_argument(format!("--initial-cluster-state={state}"));
        member.spawn();
    }

    /// Waits until member `number` has ended and checks that the last line of its log says why.
    ///
    /// # Panics
    /// If it does not end, or says something else.
    pub fn expect_refusal(&mut self, number: usize, why: &str) {
        let member = &mut self.members[number];
        let ended = wait_for(PATIENCE, || member.exited());
        let log = member.log();
        assert!(ended.is_some_and(|status| !status.success()), "{ended:?} instead of {why:?}:\n{log}");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains("\"level\":\"fatal\"") && last.contains(why), "{why:?} in\n{log}");
    }

    /// Ends member `number`, which has left the cluster or is about to.
    pub fn retire(&mut self, number: usize) {
        self.members[number].kill();
        self.places[number] = None;
    }

    /// All prepared members that have not left in the form of `initial-cluster`.
    pub fn initial_cluster(&self) -> String {
        let entries = self.places.iter().flatten().map(|(name, peer)| format!("{name}={}://{peer}", self.peer_scheme));
        entries.collect::<Vec<_>>().join(",")
    }

    /// Runs our client, called `etcdctl`'s way, against member `number`; what it printed.
    ///
    /// # Errors
    /// What it said instead, if it failed.
    pub fn ctl(&self, number: usize, words: &[&str]) -> Result<String, String> {
        ctl(&self.members[number].endpoint(), words)
    }

    /// The number of the member that leads, as `number` sees it.
    pub fn leader_of(&self, number: usize) -> Option<usize> {
        let fields = self.ctl(number, &["endpoint", "status", "-w", "fields"]).ok()?;
        let leader = field(&fields, "Leader").filter(|id| *id != 0)?;
        (0..self.members.len()).find(|other| self.id(*other) == Some(leader))
    }

    /// The number of the member that leads.
    ///
    /// # Panics
    /// If nobody does for long.
    pub fn leader(&self) -> usize {
        let running = || (0..self.members.len()).filter(|number| self.members[*number].is_running());
        wait_for(PATIENCE, || running().find_map(|number| self.leader_of(number))).expect("somebody leads")
    }

    /// The identifier of a running member.
    pub fn id(&self, number: usize) -> Option<u64> {
        if !self.members[number].is_running() {
            return None;
        }
        let fields = self.ctl(number, &["endpoint", "status", "-w", "fields"]).ok()?;
        field(&fields, "MemberID")
    }

    /// The cluster member `number` belongs to.
    pub fn cluster_id(&self, number: usize) -> Option<u64> {
        field(&self.ctl(number, &["endpoint", "status", "-w", "fields"]).ok()?, "ClusterID")
    }

    /// The term member `number` is in.
    pub fn term(&self, number: usize) -> Option<u64> {
        field(&self.ctl(number, &["endpoint", "status", "-w", "fields"]).ok()?, "RaftTerm")
    }

    /// Calls the client until it succeeds.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn ctl_until(&self, number: usize, words: &[&str]) -> String {
        let mut said = String::new();
        let done = wait_for(PATIENCE, || match self.ctl(number, words) {
            Ok(printed) => Some(printed),
            Err(why) => {
                said = why;
                None
            }
        });
        done.unwrap_or_else(|| panic!("{words:?} does not succeed at {number}: {said}\n{}", self.ends_of_logs()))
    }

    /// What the members said last.
    pub fn ends_of_logs(&self) -> String {
        let end = |(number, member): (usize, &Daemon)| {
            let log = member.log();
            let lines: Vec<_> = log.lines().collect();
            let last = lines.len().saturating_sub(LOG_LINES_SHOWN);
            format!("--- member {number}:\n{}\n", lines[last..].join("\n"))
        };
        self.members.iter().enumerate().map(end).collect()
    }
}

/// Runs our client against `endpoints`; what it printed.
///
/// # Errors
/// What it said instead, if it failed.
///
/// # Panics
/// If the client cannot be started.
pub fn ctl(endpoints: &str, words: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_quoratectl"))
        .args(["--endpoints", endpoints])
        .args(words)
        .output()
        .expect("our client starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        let said = text(&output.stderr);
        Err(said.lines().last().unwrap_or_default().to_owned())
    }
}

fn field(fields: &str, name: &str) -> Option<u64> {
    let prefix = format!("\"{name}\" : ");
    fields.lines().find_map(|line| line.strip_prefix(&prefix)?.trim().parse().ok())
}
