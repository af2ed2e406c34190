//! Instruments with labels, at most a named number of them.

use std::{
    cmp::Ordering,
    fmt,
    sync::{Arc, RwLock},
};

/// Most series of one family whose label values come from outside (client versions, peers, error texts).
pub const SERIES_MAX: usize = 128;
/// The label value that stands for everything beyond [`SERIES_MAX`].
pub const OTHER: &str = "other";

/// The instruments of one name, told apart by `L` label values.
///
/// A series begins to exist when it is first asked for. When [`SERIES_MAX`] of them exist, every new combination
/// of values shares the one whose values are all [`OTHER`], so that no client can grow memory.
pub struct Family<I, const L: usize> {
    labels: [&'static str; L],
    fresh: fn() -> I,
    /// Ascending by values.
    series: RwLock<Vec<Series<I, L>>>,
}

struct Series<I, const L: usize> {
    values: [Box<str>; L],
    instrument: Arc<I>,
}

impl<I, const L: usize> Family<I, L> {
    /// A family without series; `labels` ascend, as they are printed.
    pub const fn new(labels: [&'static str; L], fresh: fn() -> I) -> Self {
        Self { labels, fresh, series: RwLock::new(Vec::new()) }
    }

    /// The instrument with these label values, made if need be. Callers on a hot path keep the answer.
    pub fn with(&self, values: [&str; L]) -> Arc<I> {
        self.find(values).unwrap_or_else(|| self.insert(values))
    }

    fn find(&self, values: [&str; L]) -> Option<Arc<I>> {
        let series = self.series.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let at = series.binary_search_by(|one| compare(&one.values, &values)).ok()?;
        series.get(at).map(|one| Arc::clone(&one.instrument))
    }

    fn insert(&self, values: [&str; L]) -> Arc<I> {
        let mut series = self.series.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let values = if series.len() < SERIES_MAX { values } else { [OTHER; L] };
        match series.binary_search_by(|one| compare(&one.values, &values)) {
            Ok(at) => series.get(at).map_or_else(|| Arc::new((self.fresh)()), |one| Arc::clone(&one.instrument)),
            Err(at) => {
                let instrument = Arc::new((self.fresh)());
                series.insert(at, Series { values: values.map(Box::from), instrument: Arc::clone(&instrument) });
                instrument
            }
        }
    }

    /// The label names.
    pub(super) fn labels(&self) -> &[&'static str; L] {
        &self.labels
    }

    /// Shows every series with its label values, in their order.
    pub fn each(&self, mut show: impl FnMut([&str; L], &I)) {
        let series = self.series.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        for one in series.iter() {
            show(one.values.each_ref().map(|value| &**value), &one.instrument);
        }
    }
}

fn compare<const L: usize>(have: &[Box<str>; L], want: &[&str; L]) -> Ordering {
    have.iter().map(|value| &**value).cmp(want.iter().copied())
}

impl<I, const L: usize> fmt::Debug for Family<I, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("labels", &self.labels).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Counter;

    #[test]
    fn values_beyond_the_cap_share_one_series() {
        let family = Family::<Counter, 1>::new(["client"], Counter::new);
        for client in 0..SERIES_MAX + 10 {
            family.with([&client.to_string()]).inc();
        }
        assert_eq!(family.with([OTHER]).get(), 10);
        assert_eq!(family.with(["0"]).get(), 1, "series made before the cap stay");
    }

    #[test]
    fn one_combination_of_values_is_one_instrument() {
        let family = Family::<Counter, 2>::new(["a", "b"], Counter::new);
        family.with(["x", "y"]).inc();
        family.with(["x", "y"]).inc();
        family.with(["xy", ""]).inc();
        let mut seen = Vec::new();
        family.each(|values, counter| seen.push((values.map(str::to_owned), counter.get())));
        assert_eq!(seen, [(["x".into(), "y".into()], 2), (["xy".into(), String::new()], 1)]);
    }
}
