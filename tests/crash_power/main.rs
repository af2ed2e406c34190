//! Power failures. One member of the real raft, log, state machine and recovery lives on a disk that forgets everything
//! that was not synced, torn sectors included, and loses its power at any step: while it is founded, starts, appends, cuts
//! or releases a segment, makes its state durable, writes a snapshot file, compacts. After every failure:
//!
//! - every entry that was applied, and could be read by somebody, is there and leads to the same again;
//! - the state is exactly what it was at its applied index, no half of any request in it, leases and members included;
//! - every revision that is not compacted holds what it held, and hashes of the history stay the same;
//! - terms, revisions and what was made durable never go back, and the member is who it was;
//! - whatever was refused never happens, and whatever happens was asked for, once;
//! - a mark in the log stands for a durable state, and a released segment lies behind such a mark.
//!
//! `make test` lives the seeds 0 to 199; `POWER_ROUNDS=n` makes it long, `POWER_FIRST=n` begins elsewhere, and
//! `POWER_SEED=n` replays one seed and tells what happened in it.

mod oracle;
mod request;
#[path = "../support/simulated/mod.rs"]
mod simulated;
#[path = "../support/mod.rs"]
mod support;
mod world;

use simulated::Tally;
use support::setting;
use world::{Ended, Mistake, run};

/// Seeds of the short form.
const ROUNDS: u64 = 200;
/// Seeds lived twice.
const TWICE: u64 = 5;
/// Seeds within which a mistake must be noticed.
const MISTAKE_SEEDS: u64 = 20;
/// The end of a trace that is shown with a failure.
const SHOWN_LINES: usize = 40;
/// The name of the member.
const NAME: &str = "alone";

/// What the short form must have met, so that none of it slips out of reach unnoticed.
const MET: [&str; 19] = [
    "compactions finished",
    "configuration changes",
    "cuts between two steps",
    "cuts in a commit",
    "cuts in a compaction",
    "cuts in a founding",
    "cuts in a snapshot",
    "cuts in a start",
    "cuts in the log",
    "entries applied again",
    "kills of the process alone",
    "losses of everything not synced",
    "losses of nothing",
    "losses of torn sectors",
    "proposals dropped",
    "segments cut",
    "segments released",
    "snapshots",
    "torn ends repaired",
];

#[test]
fn what_was_answered_survives_power_failures() {
    if let Ok(seed) = setting::<i64>("POWER_SEED", -1).try_into() {
        let ended = run(seed, Mistake::None);
        println!("{}", ended.trace.join("\n"));
        return told(seed, ended).map_or_else(|why| panic!("{why}"), drop);
    }
    let (first, rounds) = (setting("POWER_FIRST", 0), setting("POWER_ROUNDS", ROUNDS));
    let mut total = Tally::new();
    for seed in first..first + rounds {
        let tally = told(seed, run(seed, Mistake::None)).unwrap_or_else(|why| panic!("{why}"));
        for (what, n) in tally {
            *total.entry(what).or_default() += n;
        }
    }
    println!("{rounds} seeds: {total:#?}");
    if rounds >= ROUNDS {
        let missed: Vec<_> = MET.into_iter().filter(|what| total.get(what).copied().unwrap_or(0) == 0).collect();
        assert!(missed.is_empty(), "never met: {missed:?}");
    }
}

#[test]
fn one_seed_has_one_story() {
    for seed in 0..TWICE {
        assert_eq!(run(seed, Mistake::None).trace, run(seed, Mistake::None).trace, "seed {seed} lived twice");
    }
}

#[test]
fn a_batch_reported_before_its_sync_is_noticed() {
    notices(Mistake::ReportsBeforeSync, "the log ends at");
}

#[test]
fn a_mark_without_a_durable_state_is_noticed() {
    notices(Mistake::MarksBeforePersist, "and the state is at");
}

/// Some seed goes wrong in the way that the mistake must go wrong.
fn notices(mistake: Mistake, how: &str) {
    let wrongs: Vec<_> = (0..MISTAKE_SEEDS).filter_map(|seed| run(seed, mistake).outcome.err()).collect();
    assert!(wrongs.iter().any(|wrong| wrong.contains(how)), "{mistake:?} led to {wrongs:#?}");
}

fn told(seed: u64, ended: Ended) -> Result<Tally, String> {
    let Ended { trace, tally, outcome } = ended;
    outcome.map(|()| tally).map_err(|wrong| {
        let shown = trace.get(trace.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("\n");
        format!(
            "{shown}\nseed {seed}: {wrong}\nPOWER_SEED={seed} cargo test --test crash_power survives -- --nocapture"
        )
    })
}
