//! Automatic compaction: when to propose which revision (etcd `--auto-compaction-mode`, `--auto-compaction-retention`).
//!
//! A value that is told the time and the revision and says what to compact; the driver proposes it on the leader only.

use std::{collections::VecDeque, time::Duration};

/// How often the revision mode looks (etcd's constant).
const REVISION_INTERVAL: Duration = Duration::from_mins(5);
/// The longest pause between two compactions of the periodic mode.
const PERIODIC_INTERVAL_MAX: Duration = Duration::from_hours(1);
/// Samples of the revision taken between two compactions of the periodic mode.
const SAMPLES_PER_INTERVAL: u32 = 10;
/// Most samples remembered: a retention of years is cut to what fits, and compacts a little early in hourly steps.
const SAMPLES_MAX: usize = 100_000;

/// What to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Everything younger than this.
    Periodic(Duration),
    /// The newest so many revisions.
    Revisions(i64),
}

/// Decides when history may go.
#[derive(Debug)]
pub(super) struct AutoCompactor {
    policy: Policy,
    /// Periodic: the revision at each past sample, oldest first, one per `interval`.
    samples: VecDeque<i64>,
    next: Duration,
    samples_since_compaction: u32,
    last: i64,
}

impl AutoCompactor {
    /// Starts counting at `now`.
    pub(super) fn new(policy: Policy, now: Duration) -> Self {
        Self { policy, samples: VecDeque::new(), next: now + interval(policy), samples_since_compaction: 0, last: 0 }
    }

    /// How long until the next [`AutoCompactor::tick`] does anything.
    pub(super) fn patience(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now)
    }

    /// The revision to compact to, if it is time.
    pub(super) fn tick(&mut self, now: Duration, revision: i64) -> Option<i64> {
        if now < self.next {
            return None;
        }
        self.next = now + interval(self.policy);
        let target = match self.policy {
            Policy::Revisions(kept) => revision - kept,
            Policy::Periodic(retention) => self.sample(retention, revision)?,
        };
        (target > self.last).then(|| {
            self.last = target;
            target
        })
    }

    fn sample(&mut self, retention: Duration, revision: i64) -> Option<i64> {
        let window = usize::try_from(retention.as_nanos() / interval(self.policy).as_nanos().max(1));
        let window = window.unwrap_or(SAMPLES_MAX).clamp(1, SAMPLES_MAX);
        self.samples.push_back(revision);
        self.samples_since_compaction += 1;
        if self.samples.len() <= window {
            return None;
        }
        let oldest = self.samples.pop_front();
        if self.samples_since_compaction < SAMPLES_PER_INTERVAL {
            return None;
        }
        self.samples_since_compaction = 0;
        oldest
    }
}

fn interval(policy: Policy) -> Duration {
    match policy {
        Policy::Revisions(_) => REVISION_INTERVAL,
        Policy::Periodic(retention) => retention.min(PERIODIC_INTERVAL_MAX) / SAMPLES_PER_INTERVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(minutes: u64) -> Duration {
        Duration::from_mins(minutes)
    }

    #[test]
    fn revision_mode_keeps_the_newest() {
        let mut compactor = AutoCompactor::new(Policy::Revisions(100), Duration::ZERO);
        assert_eq!(compactor.tick(minutes(4), 1000), None);
        assert_eq!(compactor.tick(minutes(5), 1000), Some(900));
        assert_eq!(compactor.tick(minutes(10), 1000), None, "nothing new to compact");
        assert_eq!(compactor.tick(minutes(15), 1001), Some(901));
        assert_eq!(AutoCompactor::new(Policy::Revisions(100), Duration::ZERO).tick(minutes(5), 50), None);
    }

    #[test]
    fn periodic_mode_never_removes_what_is_younger_than_the_retention() {
        for hours in [1, 3, 5] {
            let retention = Duration::from_hours(hours);
            let mut compactor = AutoCompactor::new(Policy::Periodic(retention), Duration::ZERO);
            let mut compactions = 0;
            for minute in 1..=hours * 60 * 4 {
                // The revision is the minute, so the compaction revision tells the age of what was removed.
                if let Some(target) = compactor.tick(minutes(minute), i64::try_from(minute).unwrap()) {
                    assert!(minute - u64::try_from(target).unwrap() >= hours * 60, "{target} removed at {minute}");
                    compactions += 1;
                }
            }
            assert!(compactions >= hours * 3 - 1, "{compactions} compactions with a retention of {hours} h");
        }
    }
}
