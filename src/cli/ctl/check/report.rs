//! What came of many writes, in a bounded space: times are not kept one by one.

use std::{collections::BTreeMap, time::Duration};

/// Times and failures of writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Report {
    /// Writes that were carried out.
    done: u32,
    mean_seconds: f64,
    /// The sum of the squared distances from the mean (Welford's way to a variance).
    squares: f64,
    slowest_seconds: f64,
    errors: BTreeMap<String, u64>,
    total: Duration,
}

impl Report {
    /// Adds a write.
    pub(super) fn add(&mut self, outcome: Result<(), String>, took: Duration) {
        if let Err(error) = outcome {
            let known = self.errors.len() < ERRORS_MAX || self.errors.contains_key(&error);
            *self.errors.entry(if known { error } else { OTHERS.to_owned() }).or_default() += 1;
            return;
        }
        let seconds = took.as_secs_f64();
        self.done = self.done.saturating_add(1);
        let off = seconds - self.mean_seconds;
        self.mean_seconds += off / f64::from(self.done);
        self.squares += off * (seconds - self.mean_seconds);
        self.slowest_seconds = self.slowest_seconds.max(seconds);
    }

    /// Ends the counting: all of it took `total`.
    pub(super) fn ended_after(self, total: Duration) -> Self {
        Self { total, ..self }
    }

    /// Writes carried out each second.
    pub(super) fn per_second(&self) -> f64 {
        let seconds = self.total.as_secs_f64();
        if seconds > 0.0 { f64::from(self.done) / seconds } else { 0.0 }
    }

    /// The same, cut to a whole number.
    pub(super) fn whole_per_second(&self) -> u128 {
        let nanos = self.total.as_nanos().max(1);
        u128::from(self.done) * 1_000_000_000 / nanos
    }

    /// The longest time of one, in seconds.
    pub(super) fn slowest(&self) -> f64 {
        self.slowest_seconds
    }

    /// The standard deviation of their times, in seconds.
    pub(super) fn deviation(&self) -> f64 {
        if self.done == 0 { 0.0 } else { (self.squares / f64::from(self.done)).sqrt() }
    }

    /// What went wrong, and how often.
    pub(super) fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }
}

/// Texts of errors that are told apart.
const ERRORS_MAX: usize = 100;
/// What stands for the others.
const OTHERS: &str = "other errors";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_up() {
        let mut report = Report::default();
        for millis in [2, 4, 4, 4, 5, 5, 7, 9] {
            report.add(Ok(()), Duration::from_millis(millis));
        }
        let report = report.ended_after(Duration::from_secs(3));
        assert!((report.deviation() - 0.002).abs() < 1e-9, "{report:?}");
        assert!((report.slowest() - 0.009).abs() < 1e-9);
        assert_eq!((report.whole_per_second(), report.per_second() > 2.6), (2, true));
    }

    #[test]
    fn errors_are_counted_by_their_text_in_a_bounded_space() {
        let mut report = Report::default();
        for number in 0..ERRORS_MAX * 2 {
            report.add(Err(format!("e{number}")), Duration::ZERO);
        }
        report.add(Err("e0".to_owned()), Duration::ZERO);
        assert_eq!((report.errors().len(), report.errors()["e0"]), (ERRORS_MAX + 1, 2));
        assert_eq!((report.errors()[OTHERS], report.deviation().to_string().as_str()), (100, "0"));
    }
}
