//! What depends on the time, but changes at few moments only.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// A value that is made anew only when one of the moments at which it changes has passed.
#[derive(Debug)]
pub(super) struct Timely<V>(Mutex<Made<V>>);

#[derive(Debug)]
struct Made<V> {
    /// While it holds, since the epoch.
    holds: Range<Duration>,
    value: Option<V>,
}

impl<V> Default for Timely<V> {
    fn default() -> Self {
        Self(Mutex::new(Made { holds: Duration::ZERO..Duration::ZERO, value: None }))
    }
}

impl<V: Clone> Timely<V> {
    /// The value at a time; `make` makes it, and it changes at `moments`.
    pub(super) fn at(
        &self,
        at: Duration,
        moments: impl Iterator<Item = Duration>,
        make: impl FnOnce() -> Option<V>,
    ) -> Option<V> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.holds.contains(&at) {
            *held = Made { holds: between(at, moments), value: make() };
        }
        held.value.clone()
    }
}

/// The time between two of `moments` in which `at` lies.
fn between(at: Duration, moments: impl Iterator<Item = Duration>) -> Range<Duration> {
    moments.fold(Duration::ZERO..Duration::MAX, |around, moment| {
        if moment <= at { around.start.max(moment)..around.end } else { around.start..around.end.min(moment) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_anew_when_a_moment_passes_and_not_before() {
        let (timely, seconds) = (Timely::default(), Duration::from_secs);
        let asked = |at| {
            let mut is_new = false;
            let make = || {
                is_new = true;
                (at >= 10).then_some(at)
            };
            (timely.at(seconds(at), [10, 20, 30].map(seconds).into_iter(), make), is_new)
        };
        assert_eq!(asked(9), (None, true));
        assert_eq!(asked(3), (None, false));
        assert_eq!(asked(10), (Some(10), true));
        assert_eq!(asked(19), (Some(10), false));
        assert_eq!(asked(35), (Some(35), true));
        assert_eq!(asked(15), (Some(15), true), "clocks go back, too");
    }
}
