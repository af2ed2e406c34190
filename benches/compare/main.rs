//! Is it faster, smaller and sooner ready than etcd? Both daemons take the same load in turn, one process each on
//! loopback, three for the cases called `c3…`, and the table shows the medians and their ratios.
//!
//! `BENCH_ONLY=put64,get` chooses cases, `BENCH_RUNS=3` the number of runs (5), `BENCH_SUBJECT=ours|etcd` one side only,
//! `BENCH_SCALE=10` a tenth of the requests and keys, `SUBJECT_BIN=path` another executable in our place. One thread
//! makes the load, so that the daemon has the rest of the machine.

mod cases;
mod cluster;
#[allow(dead_code, reason = "shared with other benches, and each uses its own part")]
mod load;
mod process;
#[allow(dead_code, reason = "shared with other benches, and each uses its own part")]
mod report;
#[path = "../../tests/support/mod.rs"]
mod support;
#[allow(dead_code, reason = "shared with other benches, and each uses its own part")]
mod wire;

use cases::{Case, Scale};
use cluster::ClusterCase;
use report::Report;
use std::collections::BTreeSet;
use support::program::{self, Program};
use support::setting;

/// Runs of which the median is taken.
const RUNS: usize = 5;
/// Both sides get room for a million keys, and nothing else that is not their default.
const FLAGS: [&str; 1] = ["--quota-backend-bytes=8589934592"];

fn main() {
    let only: BTreeSet<String> = names("BENCH_ONLY");
    let there_are: Vec<&str> =
        Case::ALL.map(Case::name).into_iter().chain(ClusterCase::ALL.map(ClusterCase::name)).collect();
    let unknown: Vec<_> = only.iter().filter(|name| !there_are.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "BENCH_ONLY names {unknown:?}; there are {there_are:?}");
    let is_chosen = |name: &str| only.is_empty() || only.contains(name);
    let alone: Vec<Case> = Case::ALL.into_iter().filter(|case| is_chosen(case.name())).collect();
    let together: Vec<ClusterCase> = ClusterCase::ALL.into_iter().filter(|case| is_chosen(case.name())).collect();
    let subjects = Program::compared();
    let runs = setting("BENCH_RUNS", RUNS);
    let scale = Scale { divisor: setting("BENCH_SCALE", 1) };
    let mut report = Report::new(subjects.iter().map(|subject| subject.name.clone()).collect());
    for run in 1..=runs {
        // Turn and turn about, so that both sides meet the same moods of the machine.
        for (side, subject) in subjects.iter().enumerate() {
            eprintln!("run {run} of {runs}: {}", subject.name);
            cases::run(subject, &alone, scale, |case, measured| report.add(side, case, measured));
            cluster::run(subject, &together, scale, |case, measured| report.add(side, case, measured));
        }
    }
    print!("{}", report.table());
    let file = program::target_dir().join("compare.csv");
    std::fs::write(&file, report.csv()).expect("the target directory is writable");
    println!("every run: {}", file.display());
}

fn names(variable: &str) -> BTreeSet<String> {
    let text: String = setting(variable, String::new());
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
