//! How fast snapshots may leave.
//!
//! All that go to members share so many bytes a second, and so do all that are made for clients; and each rests at least as
//! long as it has worked, so that on a machine that has no time to spare, where the same work takes longer, it asks for less of
//! it. What is made for clients does not rest while nobody writes: then nobody's writes wait for the disk.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{clock::Clock as _, metrics, types::LogIndex};

use super::super::shared::Shared;

/// Bytes of snapshots that leave in a second, for all members together: a state of 2 GB takes a minute, and a quarter of a
/// 1 Gbit/s line.
const MEMBERS_BYTES_PER_SECOND: u64 = 32 << 20;
/// The same for clients while others write: what a disk takes beside the log without letting it wait.
const CLIENTS_BYTES_PER_SECOND: u64 = 64 << 20;
/// Nobody writes if nothing was applied for so long, and nothing waits to be.
const QUIET_AFTER: Duration = Duration::from_millis(100);
/// Longest rest after one block: receivers take a pause of five seconds for the end.
const REST_MAX: Duration = Duration::from_secs(1);

/// What all of one kind share.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_per_second: u64,
    /// The time up to which what has left is paid for.
    paid: Mutex<Duration>,
}

impl Budget {
    pub(super) fn of_members() -> Self {
        Self { bytes_per_second: MEMBERS_BYTES_PER_SECOND, paid: Mutex::default() }
    }

    pub(super) fn of_clients() -> Self {
        Self { bytes_per_second: CLIENTS_BYTES_PER_SECOND, paid: Mutex::default() }
    }

    /// How long to rest after `bytes` that took `worked` to make ready, now.
    fn rest(&self, now: Duration, bytes: usize, worked: Duration) -> Duration {
        let nanos = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(1_000_000_000)
            / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        *paid = (*paid).max(now) + cost;
        paid.saturating_sub(now).max(worked).min(REST_MAX)
    }
}

/// The pace of one thread.
#[derive(Debug)]
pub(super) struct Pace {
    is_for_clients: bool,
    /// When the last rest ended.
    rested: Duration,
    /// How far the log had come, and when it was seen to come on.
    applied: LogIndex,
    wrote: Duration,
}

impl Pace {
    pub(super) fn for_members(shared: &Shared) -> Self {
        let now = shared.clock.monotonic();
        Self { is_for_clients: false, rested: now, applied: shared.applied(), wrote: now }
    }

    pub(super) fn for_clients(shared: &Shared) -> Self {
        Self { is_for_clients: true, ..Self::for_members(shared) }
    }

    /// How long to rest after `bytes` that were made ready since the last rest.
    pub(super) fn due(&mut self, shared: &Shared, bytes: usize) -> Duration {
        let now = shared.clock.monotonic();
        if self.is_for_clients && self.is_quiet(shared, now) {
            return Duration::ZERO;
        }
        let snapshots = &shared.snapshots;
        let budget = if self.is_for_clients { &snapshots.for_clients } else { &snapshots.for_members };
        budget.rest(now, bytes, now.saturating_sub(self.rested))
    }

    /// Whether nobody writes. A disk that is slow keeps those who do from being applied.
    fn is_quiet(&mut self, shared: &Shared, now: Duration) -> bool {
        let applied = shared.applied();
        let is_behind = shared.committed() > applied || metrics::PROPOSALS_PENDING.get() > 0;
        if applied != self.applied || is_behind {
            (self.applied, self.wrote) = (applied, now);
        }
        now.saturating_sub(self.wrote) >= QUIET_AFTER
    }

    /// Rests for so long.
    pub(super) fn rest(&mut self, shared: &Shared, rest: Duration) {
        std::thread::sleep(rest);
        self.rested = shared.clock.monotonic();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_senders_share_the_rate() {
        let budget = Budget::of_members();
        let second = usize::try_from(MEMBERS_BYTES_PER_SECOND).unwrap();
        let ms = Duration::from_millis;
        assert_eq!(budget.rest(ms(1_000), second / 4, Duration::ZERO), ms(250));
        assert_eq!(budget.rest(ms(1_000), second / 4, Duration::ZERO), ms(500));
        assert_eq!(budget.rest(ms(9_000), second / 4, Duration::ZERO), ms(250), "what was not used is not saved up");
    }

    #[test]
    fn sender_rests_as_long_as_it_worked_but_never_too_long() {
        let budget = Budget::of_members();
        assert_eq!(budget.rest(Duration::ZERO, 1, Duration::from_millis(300)), Duration::from_millis(300));
        assert_eq!(budget.rest(Duration::ZERO, 1, Duration::from_secs(9)), REST_MAX);
        assert_eq!(budget.rest(Duration::ZERO, usize::MAX, Duration::ZERO), REST_MAX);
    }
}
