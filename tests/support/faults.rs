//! Rounds of one fault against the leader and its followers in turn, under load: when writes go on, whether what was
//! acknowledged is there, whether what was told can be explained, whether all members hold the same.

#![allow(clippy::indexing_slicing, reason = "members are counted by the tests that made them")]

use super::deployment::{Deployment, ELECTION_TIMEOUT};
use super::hosts::Disk;
use super::program::Program;
use super::random::Random;
use super::traffic::{Probe, Traffic};
use super::{now, setting};
use std::fmt;
use std::time::Duration;

/// Something that happens to one member and ends again.
pub trait Fault {
    /// How it is called in tables.
    fn name(&self) -> &'static str;

    /// Lets it happen to `member`, calls `resumed` at once, and ends it afterwards. `resumed` takes as long as the cluster
    /// needs to serve a write.
    fn strike(&mut self, cluster: &mut Deployment, member: usize, resumed: &mut dyn FnMut());

    /// Whether clients reach the member in the meantime.
    fn answers_clients(&self) -> bool {
        false
    }

    /// What the hosts need for it.
    fn disk(&self) -> Disk {
        Disk::Plain
    }
}

/// Generous, because tests share the machine; `make cluster` prints what it really was.
const RESUME_LIMIT: Duration = Duration::from_secs(20);

/// Runs `fault` against the daemon under test in `rounds` rounds, or `ROUNDS`, on 3 members or each of `CLUSTER_SIZES`.
/// The times of all [`subjects`], and of a mixed team if `CLUSTER_MIXED=1` asks for one, are printed side by side.
///
/// # Panics
/// If anything is lost, contradicts itself or stays down.
pub fn campaign(fault: &mut dyn Fault, rounds: usize) {
    let rounds = setting("ROUNDS", rounds);
    let sizes: String = setting("CLUSTER_SIZES", "3".to_owned());
    for size in sizes.split(',').map(|size| size.parse().expect("CLUSTER_SIZES lists numbers")) {
        for (name, team) in teams(size) {
            for times in run(fault, &name, &team, rounds) {
                println!("{times}");
            }
        }
    }
}

/// The daemon under test, and the real etcd beside it if `CLUSTER_COMPARE=1` asks for it.
pub fn subjects() -> Vec<Program> {
    let beside = (setting("CLUSTER_COMPARE", 0) > 0).then(Program::etcd);
    [Program::subject()].into_iter().chain(beside).collect()
}

/// Clusters of `size` members: all of one kind; of both kinds in turn, if `CLUSTER_MIXED=1` asks for it.
fn teams(size: usize) -> Vec<(String, Vec<Program>)> {
    let alike = subjects().into_iter().map(|subject| (subject.name.clone(), vec![subject; size]));
    let mixed = || [Program::etcd().checking_itself(), Program::subject()].into_iter().cycle().take(size).collect();
    let mixed = (setting("CLUSTER_MIXED", 0) > 0).then(|| ("mixed".to_owned(), mixed()));
    alike.chain(mixed).collect()
}

/// What one round showed.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// From the fault to the first acknowledged write that was begun after it.
    first_write: Duration,
    /// The longest time in which no write was acknowledged, from the fault until the cluster is whole again.
    longest_gap: Duration,
}

/// All rounds of one fault with one kind of victim.
struct Times {
    subject: String,
    size: usize,
    fault: &'static str,
    victim: &'static str,
    rounds: Vec<Round>,
}

impl fmt::Display for Times {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, size, fault, victim, rounds } = self;
        let first = in_elections(rounds.iter().map(|round| round.first_write));
        let gap = in_elections(rounds.iter().map(|round| round.longest_gap));
        let count = rounds.len();
        write!(out, "{fault:<13} of {victim:<8} in {size} of {subject:<8}, {count} rounds, in election timeouts: ")?;
        write!(out, "first write {first}; longest gap {gap}")
    }
}

fn in_elections(times: impl Iterator<Item = Duration>) -> String {
    let mut sorted: Vec<f64> = times.map(|time| time.div_duration_f64(ELECTION_TIMEOUT)).collect();
    sorted.sort_by(f64::total_cmp);
    let at = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    let [median, p99, worst] = [50, 99, 100].map(|percent| at(percent).unwrap_or(0.0));
    format!("median {median:.3}, p99 {p99:.3}, worst {worst:.3}")
}

fn run(fault: &mut dyn Fault, subject: &str, team: &[Program], rounds: usize) -> [Times; 2] {
    let (mut cluster, size) = (Deployment::start_team(team, fault.disk()), team.len());
    let mut random = Random::new(setting("CLUSTER_SEED", 1));
    let times = |victim| Times { subject: subject.to_owned(), size, fault: fault.name(), victim, rounds: Vec::new() };
    let mut both = [times("leader"), times("follower")];
    for round in 0..rounds {
        let shown = one_round(fault, &mut cluster, &mut random, round);
        assert!(shown.longest_gap < RESUME_LIMIT, "{} round {round}: {shown:?}", fault.name());
        both[round % 2].rounds.push(shown);
    }
    cluster.assert_equal_states();
    both
}

/// The leader is the victim of even rounds.
fn one_round(fault: &mut dyn Fault, cluster: &mut Deployment, random: &mut Random, round: usize) -> Round {
    let leader = cluster.settle();
    let members = cluster.running();
    let followers: Vec<usize> = members.iter().copied().filter(|number| *number != leader).collect();
    let victim = if round.is_multiple_of(2) { leader } else { *random.pick(&followers) };
    let witnesses: Vec<usize> =
        members.iter().copied().filter(|number| *number != victim || fault.answers_clients()).collect();
    let label = format!("{}/{round}", fault.name());
    let traffic = Traffic::start(&cluster.endpoints(&members), &label, random.bits());
    let probe = Probe::start(&cluster.endpoints(&witnesses), &label);
    std::thread::sleep(Duration::from_millis(300 + random.below(300)));

    let (mut first_write, mut since) = (Duration::ZERO, now());
    fault.strike(cluster, victim, &mut || {
        since = now();
        first_write = probe.first_write(since);
    });
    cluster.settle();
    let until = now();

    let (history, probed) = (traffic.stop(), probe.stop());
    let shown = Round { first_write, longest_gap: probed.longest_gap(since, until) };
    println!(
        "{} round {round}: etcd{} ({}), {shown:?}, {} answers, {} unknown {:?}",
        fault.name(),
        victim + 1,
        if victim == leader { "leader" } else { "follower" },
        history.acknowledged(),
        history.unknown(),
        history.refusals,
    );
    assert!(history.acknowledged() > 0, "the load was never answered");
    let endpoints = cluster.endpoints(&members);
    history.check(&endpoints);
    probed.check(&endpoints, &label);
    shown
}
