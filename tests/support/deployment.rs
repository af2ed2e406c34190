//! A cluster deployed on hosts as the guide says: one environment file for each, everything else left alone.

#![allow(clippy::indexing_slicing, reason = "members are counted by the tests that made them")]

use super::hosts::{Disk, Hosts};
use super::program::{self, Program};
use super::{daemon, grpc, http, now, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate::config::env_file;
use quorate::pb::etcdserverpb as pb;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Output, Stdio};
use std::time::Duration;

/// The election timeout, which the guide leaves at its default; times without a leader are told in multiples of it.
pub const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for anything a cluster with a quorum does.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Longest wait for an answer about a member's state.
const QUESTION_LIMIT: Duration = Duration::from_millis(700);

/// What a member says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub member: u64,
    /// 0 if it knows none.
    pub leader: u64,
    pub term: u64,
    pub revision: i64,
    pub is_learner: bool,
}

/// Members on hosts, both counted from 0. Dropping it ends all of them.
pub struct Deployment {
    // Before the hosts, so that no process outlives its own.
    members: Vec<Member>,
    pub hosts: Hosts,
    runtime: tokio::runtime::Runtime,
}

struct Member {
    program: Program,
    variables: BTreeMap<String, String>,
    child: Option<Child>,
    starts: usize,
}

impl Deployment {
    /// Starts a cluster of `size` on as many hosts and waits until each member serves.
    ///
    /// # Panics
    /// If there can be no hosts, or if they do not form a cluster.
    pub fn start(program: &Program, size: usize, disk: Disk) -> Self {
        Self::start_team(&vec![program.clone(); size], disk)
    }

    /// As [`start`](Self::start), with a program for each member.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_team(team: &[Program], disk: Disk) -> Self {
        let (mut cluster, size) = (Self::prepare_team(team, disk), team.len());
        for number in 0..size {
            cluster.configure(number, &guide_file(number, size));
            cluster.spawn(number);
        }
        cluster.wait_all_ready();
        cluster.settle();
        cluster
    }

    /// Makes hosts without starting anything on them.
    ///
    /// # Panics
    /// If there can be no hosts.
    pub fn prepare(program: &Program, hosts: usize, disk: Disk) -> Self {
        Self::prepare_team(&vec![program.clone(); hosts], disk)
    }

    fn prepare_team(team: &[Program], disk: Disk) -> Self {
        // On the bridge there is no way out any more to fetch one.
        program::oracle();
        let hosts = Hosts::new(team.len(), disk);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let vacant =
            |program: &Program| Member { program: program.clone(), variables: BTreeMap::new(), child: None, starts: 0 };
        Self { members: team.iter().map(vacant).collect(), hosts, runtime }
    }

    /// Gives member `number` the environment file it has from its next start on.
    ///
    /// # Panics
    /// If it is no environment file.
    pub fn configure(&mut self, number: usize, file: &str) {
        let parsed = env_file::parse(file.as_bytes()).expect("text");
        self.members[number].variables = parsed.assignments.into_iter().map(|(_, name, value)| (name, value)).collect();
    }

    /// Adds one variable to those of member `number`.
    pub fn set(&mut self, number: usize, name: &str, value: &str) {
        self.members[number].variables.insert(name.to_owned(), value.to_owned());
    }

    /// Starts member `number` and returns at once.
    ///
    /// # Panics
    /// If it runs already.
    pub fn spawn(&mut self, number: usize) {
        let log = |starts| self.hosts.directory().join(format!("etcd{}.{starts}.log", number + 1));
        let member = &mut self.members[number];
        assert!(member.child.is_none(), "etcd{} runs already", number + 1);
        member.starts += 1;
        let log = File::create(log(member.starts)).expect("our own directory");
        let mut command = self.hosts.host(number).command(&member.program.path);
        command.envs(member.program.variables.iter().copied()).envs(&member.variables).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file handle")).stderr(log);
        member.child = Some(command.spawn().expect("nsenter runs"));
    }

    /// Waits until member `number` serves.
    ///
    /// # Panics
    /// If it does not, with the end of its log.
    pub fn wait_ready(&mut self, number: usize) {
        let address = SocketAddr::from((self.address(number), 2379));
        let ready = wait_for(PATIENCE, || {
            let healthy = || http::get(address, "/health").is_ok_and(|said| said.body.contains(r#""health":"true""#));
            if self.exited(number).is_some() { Some(false) } else { healthy().then_some(true) }
        });
        assert!(ready == Some(true), "etcd{} does not serve:\n{}", number + 1, daemon::tail(&self.log(number), 4_000));
    }

    fn wait_all_ready(&mut self) {
        for number in self.running() {
            self.wait_ready(number);
        }
    }

    /// Starts member `number` again and waits until it serves.
    ///
    /// # Panics
    /// If it still runs, or does not serve.
    pub fn restart(&mut self, number: usize) {
        self.spawn(number);
        self.wait_ready(number);
    }

    /// Kills member `number`, if it runs.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.members[number].child.take() {
            // An error means that it has ended already; waiting reaps it either way.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Sends `signal` to member `number`.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, number: usize, signal: Signal) {
        let pid = i32::try_from(self.pid(number)).expect("a process id");
        kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
    }

    /// The process of member `number`.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self, number: usize) -> u32 {
        self.members[number].child.as_ref().expect("the member runs").id()
    }

    /// How member `number` has ended, if it has.
    pub fn exited(&mut self, number: usize) -> Option<ExitStatus> {
        self.members[number].child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Waits until member `number`, which was told to stop, has stopped.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_end(&mut self, number: usize) -> ExitStatus {
        let status = wait_for(PATIENCE, || self.exited(number));
        let status = status.unwrap_or_else(|| panic!("etcd{} does not end:\n{}", number + 1, self.log(number)));
        self.members[number].child = None;
        status
    }

    /// The members whose processes were started and not ended by us.
    pub fn running(&self) -> Vec<usize> {
        let started = self.members.iter().enumerate().filter(|(_, member)| member.child.is_some());
        started.map(|(number, _)| number).collect()
    }

    pub fn address(&self, number: usize) -> Ipv4Addr {
        self.hosts.host(number).address
    }

    /// The base URL that clients of member `number` dial.
    pub fn endpoint(&self, number: usize) -> String {
        format!("http://{}:2379", self.address(number))
    }

    pub fn endpoints(&self, members: &[usize]) -> Vec<String> {
        members.iter().map(|number| self.endpoint(*number)).collect()
    }

    /// What member `number` has printed since its last start.
    pub fn log(&self, number: usize) -> String {
        let path: PathBuf =
            self.hosts.directory().join(format!("etcd{}.{}.log", number + 1, self.members[number].starts));
        fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Asks member `number` for its state; `None` without a quick answer.
    pub fn status(&self, number: usize) -> Option<Status> {
        let said = self.ask(number, async |mut client| client.maintenance.status(pb::StatusRequest {}).await)?;
        let header = said.header?;
        let (leader, is_learner) = (said.leader, said.is_learner);
        let (member, revision) = (header.member_id, header.revision);
        Some(Status { member, leader, term: said.raft_term, revision, is_learner })
    }

    /// Sends one request to member `number`; `None` without a quick answer, or if it is a refusal.
    pub fn ask<T>(
        &self,
        number: usize,
        question: impl AsyncFnOnce(grpc::Client) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Option<T> {
        let (limit, endpoint) = (QUESTION_LIMIT, self.endpoint(number));
        self.runtime.block_on(async {
            let answer = tokio::time::timeout(limit, question(grpc::Client::lazy(&endpoint))).await;
            answer.ok()?.ok().map(tonic::Response::into_inner)
        })
    }

    /// Runs `work` against a connection to member `number`, without a limit of time.
    pub fn run<T>(&self, number: usize, work: impl AsyncFnOnce(grpc::Client) -> T) -> T {
        let endpoint = self.endpoint(number);
        self.runtime.block_on(async { work(grpc::Client::lazy(&endpoint)).await })
    }

    /// The running member that leads now, and its term.
    pub fn leader_now(&self) -> Option<(usize, u64)> {
        let states = self.running().into_iter().filter_map(|number| Some((number, self.status(number)?)));
        let leaders = states.filter(|(_, status)| status.leader == status.member);
        leaders.map(|(number, status)| (number, status.term)).max_by_key(|(_, term)| *term)
    }

    /// Waits until all running members agree on one of them who leads, and returns it.
    ///
    /// # Panics
    /// If they do not.
    pub fn settle(&self) -> usize {
        let agreed = || {
            let states: Option<Vec<Status>> = self.running().into_iter().map(|number| self.status(number)).collect();
            let states = states?;
            let first = states.first()?;
            let alike = states.iter().all(|status| (status.leader, status.term) == (first.leader, first.term));
            let leader = states.iter().position(|status| status.member == first.leader)?;
            alike.then(|| self.running().get(leader).copied()).flatten()
        };
        wait_for(PATIENCE, agreed).unwrap_or_else(|| panic!("the members do not settle:\n{}", self.describe()))
    }

    /// What every running member says about itself, and the end of its log.
    pub fn describe(&self) -> String {
        let one = |number: usize| {
            let log = self.log(number);
            format!("etcd{}: {:?}\n{}\n", number + 1, self.status(number), daemon::tail(&log, 2_000))
        };
        self.running().into_iter().map(one).collect()
    }

    /// Waits until all running members have applied the same changes and checks that they hold the same.
    ///
    /// # Panics
    /// If they do not.
    pub fn assert_equal_states(&self) {
        let started = now();
        let equal = || {
            let revision =
                self.running().into_iter().filter_map(|number| self.status(number)).map(|s| s.revision).max()?;
            let hash = |number| {
                self.ask(number, async |mut client| client.maintenance.hash_kv(pb::HashKvRequest { revision }).await)
            };
            let hashes: Option<Vec<_>> = self.running().into_iter().map(hash).collect();
            hashes.map(|hashes| (revision, hashes))
        };
        let found = wait_for(PATIENCE, equal);
        let (revision, hashes) =
            found.unwrap_or_else(|| panic!("no hashes in {:?}:\n{}", started.elapsed(), self.describe()));
        let distinct: std::collections::BTreeSet<_> =
            hashes.iter().map(|said| (said.hash, said.compact_revision)).collect();
        assert_eq!(distinct.len(), 1, "the members differ at revision {revision}: {hashes:?}");
    }

    /// Runs etcd's own client against `members`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn etcdctl(&self, members: &[usize], words: &[&str]) -> Output {
        let endpoints = self.endpoints(members).join(",");
        let mut command = Program::etcdctl().command();
        command.args(["--endpoints", &endpoints]).args(words).output().expect("etcdctl starts")
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.describe());
        }
        for number in 0..self.members.len() {
            self.kill(number);
        }
    }
}

/// The guide's `/opt/kubernetes/cfg/etcd.conf` of host `number` of `founders`.
pub fn guide_file(number: usize, founders: usize) -> String {
    let (own, list) = (address(number), initial_cluster(founders));
    format!(
        r#"ETCD_NAME=etcd{}
ETCD_DATA_DIR="/data/etcd"
ETCD_LISTEN_CLIENT_URLS="http://{own}:2379,http://127.0.0.1:2379"
ETCD_LISTEN_PEER_URLS="http://{own}:2380"
ETCD_INITIAL_ADVERTISE_PEER_URLS="http://{own}:2380"
ETCD_INITIAL_CLUSTER="{list}"
ETCD_INITIAL_CLUSTER_STATE="new"
ETCD_INITIAL_CLUSTER_TOKEN="etcd-cluster"
ETCD_ADVERTISE_CLIENT_URLS="http://{own}:2379"
"#,
        number + 1
    )
}

/// The first `members` in the form of `initial-cluster`.
pub fn initial_cluster(members: usize) -> String {
    let entry = |number| format!("etcd{}=http://{}:2380", number + 1, address(number));
    (0..members).map(entry).collect::<Vec<_>>().join(",")
}

fn address(number: usize) -> String {
    format!("10.5.12.{}", 16 + number)
}
