//! Whole clusters in one thread, from one seed each.
//!
//! Members are made of the real raft, log, state machine, leases, membership rules and watch hub, on disks in memory;
//! only threads, sockets and clocks are replaced. Chance loses, delays, doubles and reorders messages, cuts links in one
//! direction or both, cuts the power of machines and takes what they had not synced, pauses processes, stalls disks,
//! makes clocks run fast or slow, adds, promotes and removes members, moves leadership. After every step every promise of
//! raft and of the key space is checked; clients check that what they hear is linearizable, watchers that they hear
//! everything once and in order. Then trouble ends, and the cluster must agree, serve, and have lost nothing.
//!
//! `make test` lives the seeds 0 to 499. `make sim SEEDS=n` makes it long, `SIM_FIRST=n` begins elsewhere, and
//! `SIM_SEED=n` replays one seed and tells what happened in it (`SIM_MEMBERS=n` among so many members, `SIM_BUG=name` with
//! a bug put in on purpose).

#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "machines, clients and watchers are few, numbered from 0, and never taken away"
)]

mod bug;
mod clients;
mod damage;
mod host;
mod net;
mod oracle;
#[path = "../support/simulated/mod.rs"]
mod simulated;
#[path = "../support/mod.rs"]
mod support;
mod trouble;
mod watchers;
mod world;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bug::Bug;
use simulated::Tally;
use support::setting;
use world::{Begin, Ended, run};

/// Seeds of the short form.
const SEEDS: u64 = 500;
/// What the short form must have met, so that none of it slips out of reach unnoticed.
const MET: [&str; 18] = [
    "compactions finished",
    "entries fetched from the log",
    "failures in a start",
    "failures of a disk",
    "leases expired",
    "losses of torn sectors",
    "members joined",
    "members removed",
    "messages doubled",
    "partitions in one direction",
    "pauses",
    "pieces of the past read",
    "responses in fragments",
    "rounds of reads given up",
    "snapshots installed",
    "stalled disks",
    "watches given up between fragments",
    "watches cancelled by compaction",
];
/// The end of a trace that is shown with a failure.
const SHOWN_LINES: usize = 60;

#[test]
fn clusters_keep_their_promises_in_chaos() {
    if let Ok(seed) = setting::<i64>("SIM_SEED", -1).try_into() {
        return replay(seed);
    }
    let (first, seeds) = (setting("SIM_FIRST", 0), setting("SIM_SEEDS", SEEDS));
    let report = live(first, seeds);
    println!("{seeds} seeds, {:.1} simulated hours: {:#?}", report.hours, report.tally);
    assert!(report.wrongs.is_empty(), "{}", report.wrongs.join("\n\n"));
    if seeds >= SEEDS {
        let missed: Vec<_> = MET.into_iter().filter(|what| !report.tally.contains_key(what)).collect();
        assert!(missed.is_empty(), "never met: {missed:?}");
    }
}

struct Report {
    wrongs: Vec<String>,
    tally: Tally,
    hours: f64,
}

/// The cluster that a seed stands for.
fn members_of(seed: u64) -> usize {
    match seed % 10 {
        0..5 => 3,
        5..8 => 5,
        8 => 1,
        _ => 7,
    }
}

fn begin(seed: u64) -> Begin {
    Begin { seed, members: members_of(seed), bug: None, traced: false }
}

/// Lives many seeds, on every processor.
fn live(first: u64, seeds: u64) -> Report {
    let next = AtomicU64::new(first);
    let report = Mutex::new(Report { wrongs: Vec::new(), tally: Tally::new(), hours: 0.0 });
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let ended = run(begin(seed));
                    take(&mut report.lock().expect("no worker panics with it"), seed, ended, seeds);
                }
            });
        }
    });
    report.into_inner().expect("no worker panics with it")
}

fn take(report: &mut Report, seed: u64, ended: Ended, seeds: u64) {
    report.hours += ended.lasted as f64 / 3.6e9;
    for (what, n) in ended.tally {
        *report.tally.entry(what).or_default() += n;
    }
    *report.tally.entry("worlds").or_default() += 1;
    let done = report.tally["worlds"];
    if done.is_multiple_of(500) && seeds > SEEDS {
        println!("{done} of {seeds} seeds, {:.1} simulated hours, {} wrong", report.hours, report.wrongs.len());
    }
    if let Err(wrong) = ended.outcome {
        // Once more, to tell what led to it.
        let again = run(Begin { traced: true, ..begin(seed) });
        let shown = again.trace.get(again.trace.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("\n");
        let told = format!("{shown}\nseed {seed}: {wrong}\nSIM_SEED={seed} cargo test --test sim chaos -- --nocapture");
        println!("{told}");
        report.wrongs.push(told);
    }
}

fn replay(seed: u64) {
    let name = setting("SIM_BUG", String::new());
    let bug = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
    let members = setting("SIM_MEMBERS", members_of(seed));
    let ended = run(Begin { members, bug, traced: true, ..begin(seed) });
    println!("{}\n{:#?}", ended.trace.join("\n"), ended.tally);
    if let Err(wrong) = ended.outcome {
        panic!("seed {seed}: {wrong}");
    }
}

#[test]
fn one_seed_has_one_story() {
    for seed in [0, 5, 8, 9] {
        let begin = Begin { traced: true, ..begin(seed) };
        let (first, second) = (run(begin).trace, run(begin).trace);
        let differs = first.iter().zip(&second).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
    let distinct: BTreeSet<String> =
        [0, 1].map(|seed| run(Begin { traced: true, ..begin(seed) }).trace.join("\n")).into();
    assert_eq!(distinct.len(), 2);
}

/// How many seeds it took, and how the bug showed.
type Noticed = (u64, String);

/// Seeds within which every bug must be noticed.
const BUG_SEEDS: u64 = 200;

#[test]
fn known_bugs_are_noticed() {
    let found: Mutex<Vec<(Bug, Option<Noticed>)>> = Mutex::default();
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let noticed = notice(*bug);
                    found.lock().expect("no worker panics with it").push((*bug, noticed));
                }
            });
        }
    });
    let mut found = found.into_inner().expect("no worker panics with it");
    found.sort_by_key(|(bug, _)| Bug::ALL.iter().position(|one| one == bug));
    println!("| bug | seeds | noticed as |\n|---|---|---|");
    for (bug, noticed) in &found {
        let (seeds, how) = noticed.as_ref().map_or((0, "never"), |(seeds, how)| (*seeds, how.as_str()));
        println!("| {bug:?} | {seeds} | {how} |");
    }
    let missed: Vec<Bug> = found.iter().filter(|(_, noticed)| noticed.is_none()).map(|(bug, _)| *bug).collect();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

/// How many seeds it takes to notice a bug, and how it shows.
fn notice(bug: Bug) -> Option<Noticed> {
    (0..BUG_SEEDS).find_map(|seed| {
        let ended = run(Begin { seed, members: bug.members(), bug: Some(bug), traced: false });
        let wrong = ended.outcome.err()?;
        let without = run(Begin { seed, members: bug.members(), bug: None, traced: false });
        assert_eq!(without.outcome, Ok(()), "seed {seed} goes wrong without {bug:?}");
        let line = wrong.lines().next().unwrap_or_default();
        Some((seed + 1, line.chars().take(100).collect()))
    })
}
