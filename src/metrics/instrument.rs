//! Counters, gauges and histograms: lock-free cells that can stand in a `static`.

use std::{
    fmt,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that moves both ways.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// A gauge at zero.
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Replaces the value by a count or a size; what does not fit shows as the largest number.
    pub fn set_count(&self, value: u64) {
        self.set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.add(-1);
    }

    /// The present value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one unit of a histogram stands for when a duration is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds, or a plain number.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// Counts observations below each of its bounds.
pub struct Histogram {
    bounds: &'static [f64],
    unit: Unit,
    /// One cell per bound, then the one without bound; cells beyond the bounds stay unused.
    cells: [AtomicU64; HISTOGRAM_BOUNDS_MAX + 1],
    /// The bits of an `f64`.
    sum: AtomicU64,
}

/// Most bounds of one histogram: the lease lengths have 24.
pub const HISTOGRAM_BOUNDS_MAX: usize = 24;

impl Histogram {
    /// An empty histogram over `bounds`, ascending.
    ///
    /// # Panics
    /// With more than [`HISTOGRAM_BOUNDS_MAX`] bounds; the table is built at compile time, so the compiler says so.
    pub const fn new(bounds: &'static [f64], unit: Unit) -> Self {
        assert!(bounds.len() <= HISTOGRAM_BOUNDS_MAX, "HISTOGRAM_BOUNDS_MAX covers every histogram of the table");
        Self { bounds, unit, cells: [const { AtomicU64::new(0) }; HISTOGRAM_BOUNDS_MAX + 1], sum: AtomicU64::new(0) }
    }

    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        self.observe_value(self.value_of(duration));
    }

    /// Counts `count` things that took so long together, each with its share.
    pub fn observe_shares(&self, together: Duration, count: u32) {
        if count > 0 {
            self.count_value(self.value_of(together) / f64::from(count), count);
        }
    }

    /// Counts a number in the histogram's own unit.
    pub fn observe_value(&self, value: f64) {
        self.count_value(value, 1);
    }

    fn value_of(&self, duration: Duration) -> f64 {
        match self.unit {
            Unit::Seconds => duration.as_secs_f64(),
            Unit::Milliseconds => duration.as_secs_f64() * 1_000.0,
        }
    }

    fn count_value(&self, value: f64, count: u32) {
        let cell = self.bounds.partition_point(|bound| *bound < value);
        if let Some(cell) = self.cells.get(cell) {
            cell.fetch_add(count.into(), Ordering::Relaxed);
        }
        let add = |bits| Some((f64::from_bits(bits) + value * f64::from(count)).to_bits());
        // The closure never declines, so there is no refusal to handle.
        let (Ok(_) | Err(_)) = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// For each bound the number of observations at or below it.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.bounds.iter().zip(&self.cells).scan(0, |below, (bound, cell)| {
            *below += cell.load(Ordering::Relaxed);
            Some((*bound, *below))
        })
    }

    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.cells.iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    /// Sum of all observed numbers.
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.sum.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").field("count", &self.count()).field("sum", &self.sum()).finish_non_exhaustive()
    }
}

/// The bounds `first`, `2 × first`, `4 × first`, … as etcd's histograms have them.
pub const fn doubling<const N: usize>(first: f64) -> [f64; N] {
    let mut bounds = [first; N];
    let mut rest: &mut [f64] = &mut bounds;
    let mut bound = first;
    while let Some((cell, tail)) = rest.split_first_mut() {
        *cell = bound;
        bound *= 2.0;
        rest = tail;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_includes_its_own_value() {
        let histogram = Histogram::new(&const { doubling::<3>(1.0) }, Unit::Seconds);
        for value in [0.5, 1.0, 1.5, 4.0, 9.0] {
            histogram.observe_value(value);
        }
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(1.0, 2), (2.0, 3), (4.0, 4)]);
        assert_eq!((histogram.count(), histogram.sum().to_bits()), (5, 16.0_f64.to_bits()));
    }

    #[test]
    fn shares_are_counted_each_and_add_up() {
        let histogram = Histogram::new(&[0.001, 0.1], Unit::Seconds);
        histogram.observe_shares(Duration::from_millis(8), 4);
        histogram.observe_shares(Duration::from_secs(1), 0);
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(0.001, 0), (0.1, 4)]);
        assert_eq!((histogram.count(), histogram.sum().to_bits()), (4, 0.008_f64.to_bits()));
    }

    #[test]
    fn durations_are_counted_in_the_unit_of_the_histogram() {
        let histogram = Histogram::new(&[100.0, 200.0], Unit::Milliseconds);
        histogram.observe(Duration::from_millis(150));
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(100.0, 0), (200.0, 1)]);
    }
}
