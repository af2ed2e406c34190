//! Medians, ratios, and how to print them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A figure, its unit, and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    PerSecond,
    PerSecondAndCore,
    PerSecondBeside,
    MedianMicros,
    P99Micros,
    CpuMicros,
    WrittenBytes,
    ResidentMegabytes,
    GrownMegabytes,
    Seconds,
    ReadyMillis,
    FirstWriteMedianMillis,
    FirstWriteWorstMillis,
    LoaderCpuMicros,
}

impl Figure {
    fn label(self) -> &'static str {
        match self {
            Self::PerSecond => "ops/s",
            Self::PerSecondAndCore => "ops/s and core",
            Self::PerSecondBeside => "(others/s meanwhile)",
            Self::MedianMicros => "p50 us",
            Self::P99Micros => "p99 us",
            Self::CpuMicros => "server CPU us/op",
            Self::WrittenBytes => "bytes written/op",
            Self::ResidentMegabytes => "RSS MB",
            Self::GrownMegabytes => "RSS MB more",
            Self::Seconds => "(seconds)",
            Self::ReadyMillis => "ready ms",
            Self::FirstWriteMedianMillis => "first write p50 ms",
            Self::FirstWriteWorstMillis => "first write max ms",
            Self::LoaderCpuMicros => "(loader CPU us/op)",
        }
    }
}

/// One case's figures from one run.
pub(crate) type Measured = Vec<(Figure, f64)>;

/// Everything measured, by case and figure in the order first seen, then by subject.
pub(crate) struct Report {
    subjects: Vec<String>,
    order: Vec<(&'static str, Figure)>,
    values: BTreeMap<(&'static str, Figure, usize), Vec<f64>>,
}

impl Report {
    pub(crate) fn new(subjects: Vec<String>) -> Self {
        Self { subjects, order: Vec::new(), values: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, subject: usize, case: &'static str, measured: Measured) {
        for (figure, value) in measured {
            if !self.order.contains(&(case, figure)) {
                self.order.push((case, figure));
            }
            self.values.entry((case, figure, subject)).or_default().push(value);
        }
    }

    /// Medians side by side, with the first subject divided by the second and the spread of that over the runs.
    pub(crate) fn table(&self) -> String {
        let mut out = format!("{:<14} {:<20}", "case", "figure");
        for subject in &self.subjects {
            write!(out, " {subject:>12}").expect("a string takes everything");
        }
        out.push_str(if self.subjects.len() == 2 { "   ratio (range over runs)\n" } else { "\n" });
        for (case, figure) in &self.order {
            write!(out, "{case:<14} {:<20}", figure.label()).expect("a string takes everything");
            for subject in 0..self.subjects.len() {
                let median = median(self.runs(case, *figure, subject));
                write!(out, " {:>12}", median.map_or("-".to_owned(), number)).expect("a string takes everything");
            }
            out.push_str(&self.ratio(case, *figure).unwrap_or_default());
            out.push('\n');
        }
        out
    }

    fn ratio(&self, case: &'static str, figure: Figure) -> Option<String> {
        let (ours, theirs) = (self.runs(case, figure, 0), self.runs(case, figure, 1));
        let ratio = Some(median(ours)? / median(theirs)?).filter(|ratio| ratio.is_finite())?;
        let each = || ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
        // Runs in which etcd's figure was zero say nothing about the range.
        let each = || each().filter(|ratio| ratio.is_finite());
        let (low, high) = (each().fold(f64::INFINITY, f64::min), each().fold(0.0, f64::max));
        Some(format!("   {ratio:>5.2} ({low:.2}..{high:.2})"))
    }

    fn runs(&self, case: &'static str, figure: Figure, subject: usize) -> &[f64] {
        self.values.get(&(case, figure, subject)).map_or(&[], Vec::as_slice)
    }

    /// One line for every run.
    pub(crate) fn csv(&self) -> String {
        let mut out = "case,figure,subject,run,value\n".to_owned();
        for ((case, figure, subject), runs) in &self.values {
            let name = self.subjects.get(*subject).map_or("", String::as_str);
            for (run, value) in runs.iter().enumerate() {
                writeln!(out, "{case},{},{name},{},{value}", figure.label(), run + 1)
                    .expect("a string takes everything");
            }
        }
        out
    }
}

fn median(runs: &[f64]) -> Option<f64> {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.get(sorted.len() / 2).copied()?;
    if sorted.len() % 2 == 1 {
        return Some(middle);
    }
    sorted.get(sorted.len() / 2 - 1).map(|below| f64::midpoint(*below, middle))
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}
