//! How fast snapshots may leave.
//!
//! All senders share so many bytes a second; and each rests at least as long as it has worked, so that on a machine that
//! has no time to spare, where the same work takes longer, it asks for less of it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Bytes of snapshots that leave in a second, for all receivers together: a state of 2 GB takes a minute, and a quarter
/// of a 1 Gbit/s line.
const BYTES_PER_SECOND: u64 = 32 << 20;
/// Longest rest after one block: receivers take a pause of five seconds for the end.
const REST_MAX: Duration = Duration::from_secs(1);

/// What all senders share.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// The time up to which what has left is paid for.
    paid: Mutex<Duration>,
}

impl Budget {
    /// How long to rest after `bytes` that took `worked` to make ready, now.
    pub(super) fn rest(&self, now: Duration, bytes: usize, worked: Duration) -> Duration {
        let nanos =
            u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(1_000_000_000) / u128::from(BYTES_PER_SECOND);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        *paid = (*paid).max(now) + cost;
        paid.saturating_sub(now).max(worked).min(REST_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_senders_share_the_rate() {
        let budget = Budget::default();
        let second = usize::try_from(BYTES_PER_SECOND).unwrap();
        let ms = Duration::from_millis;
        assert_eq!(budget.rest(ms(1_000), second / 4, Duration::ZERO), ms(250));
        assert_eq!(budget.rest(ms(1_000), second / 4, Duration::ZERO), ms(500));
        assert_eq!(budget.rest(ms(9_000), second / 4, Duration::ZERO), ms(250), "what was not used is not saved up");
    }

    #[test]
    fn sender_rests_as_long_as_it_worked_but_never_too_long() {
        let budget = Budget::default();
        assert_eq!(budget.rest(Duration::ZERO, 1, Duration::from_millis(300)), Duration::from_millis(300));
        assert_eq!(budget.rest(Duration::ZERO, 1, Duration::from_secs(9)), REST_MAX);
        assert_eq!(budget.rest(Duration::ZERO, usize::MAX, Duration::ZERO), REST_MAX);
    }
}
