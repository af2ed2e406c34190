//! How fast is a Kubernetes cluster's store? Three members of each kind take what its apiservers do, over TLS and through etcd's
//! own Go client, in turn; the table shows medians of the runs and their ratios. A request that fails ends the bench, and so
//! does a watch or a cache that is wrong.
//!
//! `BENCH_MINUTES=10` is the length of a run, `BENCH_RUNS=3` their number (1), `BENCH_SUBJECT=ours|etcd` one side only,
//! `SUBJECT_BIN=path` another executable in our place. The clients of the load take more of the machine than the members do.

#[path = "compare/process.rs"]
mod process;
#[allow(dead_code, reason = "shared with other benches, and each uses its own part")]
#[path = "compare/report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use process::Usage;
use report::{Figure, Measured, Report};
use support::{
    daemon::Daemon,
    kubernetes::{KINDS, Load, Outcome, Trio},
    program::{self, Program},
    setting,
};

/// Length of a run unless said otherwise.
const MINUTES: f64 = 10.0;

fn main() {
    let seconds = std::time::Duration::from_secs_f64(setting("BENCH_MINUTES", MINUTES) * 60.0).as_secs();
    let subjects = Program::compared();
    let mut report = Report::new(subjects.iter().map(|subject| subject.name.clone()).collect());
    for run in 1..=setting("BENCH_RUNS", 1) {
        // Turn and turn about, so that both sides meet the same moods of the machine.
        for (side, subject) in subjects.iter().enumerate() {
            eprintln!("run {run}: {}", subject.name);
            measure(subject, Load::long(seconds), |case, measured| report.add(side, case, measured));
        }
    }
    print!("{}", report.table());
    let file = program::target_dir().join("kubernetes.csv");
    std::fs::write(&file, report.csv()).expect("the target directory is ours");
    println!("every run: {}", file.display());
}

fn measure(subject: &Program, load: Load, mut report: impl FnMut(&'static str, Measured)) {
    let trio = Trio::start(subject);
    let pids: Vec<_> = trio.cluster.members.iter().map(|member| member.pid().to_string()).collect();
    let usage = || pids.iter().map(|pid| Usage::of(pid)).sum::<Usage>();
    let before = usage();
    let outcome = trio.run(load);
    let used = usage().since(before);
    tell(&outcome, &trio.cluster.members);
    let mut requests = 0;
    for case in KINDS {
        let Some(kind) = outcome.of(case) else { continue };
        requests += if case == "watch" { 0 } else { kind.count };
        report(
            case,
            vec![
                (Figure::PerSecond, ratio(kind.count, outcome.seconds)),
                (Figure::MedianMicros, kind.p50_micros.into()),
                (Figure::P99Micros, kind.p99_micros.into()),
            ],
        );
    }
    let resident: u64 = pids.iter().map(|pid| process::resident_bytes(pid)).sum();
    report(
        "all requests",
        vec![
            (Figure::PerSecond, ratio(requests, outcome.seconds)),
            (Figure::CpuMicros, used.cpu.as_secs_f64() * 1e6 / ratio(requests, 1)),
            (Figure::WrittenBytes, ratio(used.written_bytes, requests)),
            (Figure::ResidentMegabytes, ratio(resident, 1_000_000)),
        ],
    );
}

/// What was checked on the way.
fn tell(outcome: &Outcome, members: &[Daemon]) {
    let elections =
        |log: &str| ["elected leader ", "changed leader "].map(|told| log.matches(told).count()).iter().sum();
    let elections: usize = members.iter().map(|member| elections(&member.log())).max().unwrap_or_default();
    eprintln!(
        "  no error; {} caches and {} controllers that came and went agree with lists; {} events told once and in order, {} of \
         them ends of leases; {} progress responses ahead of events; {} objects in the caches at the end; {elections} elections",
        outcome.caches, outcome.visits, outcome.events, outcome.expired, outcome.early, outcome.objects
    );
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
