//! How fast snapshots may leave.
//!
//! All that go to members share so many bytes a second, and so do all that are made for clients; and each rests at least as
//! long as it has worked, so that on a machine that has no time to spare, where the same work takes longer, it asks for less of
//! it. What is made for clients does not rest while nobody writes: then nobody's writes wait for the disk.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{clock::Clock as _, types::LogIndex};

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

/// What the member knows of those who write.
#[derive(Clone, Copy, Debug)]
struct Writes {
    /// How far the log has come.
    applied: LogIndex,
    /// Whether something is on its way there. A disk that is slow keeps it there.
    are_waiting: bool,
}

impl Writes {
    fn of(shared: &Shared) -> Self {
        let applied = shared.applied();
        Self { applied, are_waiting: shared.committed() > applied || shared.has_proposals() }
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
        Self::new(false, shared.applied(), shared.clock.monotonic())
    }

    pub(super) fn for_clients(shared: &Shared) -> Self {
        Self::new(true, shared.applied(), shared.clock.monotonic())
    }

    fn new(is_for_clients: bool, applied: LogIndex, now: Duration) -> Self {
        Self { is_for_clients, rested: now, applied, wrote: now }
    }

    /// How long to rest after `bytes` that were made ready since the last rest.
    pub(super) fn due(&mut self, shared: &Shared, bytes: usize) -> Duration {
        let snapshots = &shared.snapshots;
        let budget = if self.is_for_clients { &snapshots.for_clients } else { &snapshots.for_members };
        self.due_at(shared.clock.monotonic(), budget, bytes, Writes::of(shared))
    }

    fn due_at(&mut self, now: Duration, budget: &Budget, bytes: usize, writes: Writes) -> Duration {
        if self.is_for_clients && self.is_quiet(now, writes) {
            return Duration::ZERO;
        }
        budget.rest(now, bytes, now.saturating_sub(self.rested))
    }

    /// Whether nobody writes.
    fn is_quiet(&mut self, now: Duration, writes: Writes) -> bool {
        if writes.applied != self.applied || writes.are_waiting {
            (self.applied, self.wrote) = (writes.applied, now);
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
    use crate::{clock::ManualClock, types::Ticks};

    use super::*;

    const BLOCK_BYTES: usize = 1 << 20;
    /// What it takes to make a block ready: much less than the rate asks for.
    const BLOCK_WORK: Duration = Duration::from_millis(1);

    /// Blocks that leave within `time` while the member knows this of its writes, and the milliseconds that took.
    fn left(pace: &mut Pace, clock: &ManualClock, time: Duration, writes: impl Fn(Duration) -> Writes) -> [u128; 2] {
        let (budget, began, mut blocks) = (Budget::of_clients(), clock.monotonic(), 0);
        while clock.monotonic() < began + time {
            clock.advance(BLOCK_WORK);
            let now = clock.monotonic();
            clock.advance(pace.due_at(now, &budget, BLOCK_BYTES, writes(now)));
            pace.rested = clock.monotonic();
            blocks += 1;
        }
        [blocks, clock.monotonic().saturating_sub(began).as_millis()]
    }

    /// Whether so much in so long is the rate while others write: not more than a block above it, and not much less.
    fn is_bounded([blocks, ms]: [u128; 2]) -> bool {
        let bound = u128::from(CLIENTS_BYTES_PER_SECOND) * ms / 1_000 / BLOCK_BYTES as u128;
        (bound * 4 / 5..=bound + 1).contains(&blocks)
    }

    fn client() -> (Pace, ManualClock) {
        (Pace::new(true, LogIndex(7), Duration::ZERO), ManualClock::default())
    }

    fn nothing_since(applied: u64) -> impl Fn(Duration) -> Writes {
        move |_| Writes { applied: LogIndex(applied), are_waiting: false }
    }

    #[test]
    fn while_nobody_writes_clients_snapshots_do_not_rest() {
        let (mut pace, clock) = client();
        assert!(is_bounded(left(&mut pace, &clock, QUIET_AFTER, nothing_since(7))), "nobody knows yet");
        let [blocks, ms] = left(&mut pace, &clock, Duration::from_secs(2), nothing_since(7));
        assert_eq!(blocks * BLOCK_WORK.as_millis(), ms, "it did nothing but work");
    }

    #[test]
    fn while_entries_are_applied_clients_snapshots_keep_to_their_rate() {
        let (mut pace, clock) = client();
        left(&mut pace, &clock, Duration::from_secs(1), nothing_since(7));
        // One entry in 50 ms.
        let busy = |now: Duration| Writes { applied: LogIndex(Ticks::from(now).0 / 50), are_waiting: false };
        let sent = left(&mut pace, &clock, Duration::from_secs(5), busy);
        assert!(is_bounded(sent), "{sent:?}");
    }

    #[test]
    fn a_disk_that_is_slow_is_not_taken_for_a_quiet_one() {
        let (mut pace, clock) = client();
        let stalled = |_| Writes { applied: LogIndex(7), are_waiting: true };
        let sent = left(&mut pace, &clock, Duration::from_secs(5), stalled);
        assert!(is_bounded(sent), "{sent:?}");
        let now = clock.monotonic();
        assert!(!pace.is_quiet(now + QUIET_AFTER / 2, nothing_since(7)(now)), "the last one came just now");
        assert!(pace.is_quiet(now + QUIET_AFTER, nothing_since(7)(now)));
    }

    #[test]
    fn what_members_are_sent_rests_whether_anybody_writes_or_not() {
        let mut pace = Pace::new(false, LogIndex(7), Duration::ZERO);
        let later = QUIET_AFTER * 2;
        let rest = pace.due_at(later, &Budget::of_members(), BLOCK_BYTES, nothing_since(7)(later));
        assert!(rest >= later, "as long as it worked: {rest:?}");
    }

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
