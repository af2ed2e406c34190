//! Who led when, as this member saw it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::types::MemberId;

/// What the raft thread takes down about leaders. Times are those of the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leadership {
    /// Who leads.
    leader: Option<MemberId>,
    /// Who led last, whether it still does or not.
    last: Option<MemberId>,
    /// When this member last saw a leader elected.
    elected: Option<Duration>,
}

impl Leadership {
    /// The leader from `now` on. True if somebody replaced another one.
    pub(super) fn note(&mut self, leader: Option<MemberId>, now: Duration) -> bool {
        if leader == self.leader {
            return false;
        }
        self.leader = leader;
        if leader.is_none() {
            return false;
        }
        self.elected = Some(now);
        self.last.replace(leader.unwrap_or_default()).is_some()
    }

    /// Whether a request that began at `begun` may have been lost with the leader before this one: it began after
    /// two election timeouts before the election, and before it.
    pub(super) fn may_have_lost(&self, begun: Duration, election: Duration) -> bool {
        self.elected.is_some_and(|elected| begun < elected && begun + 2 * election > elected)
    }
}

/// Whether this member may have been deposed without having heard of it, because it slept. Doubts are counted, so that an
/// answer settles those from before its question and no later one.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    raised: AtomicU64,
    settled: AtomicU64,
}

impl Doubts {
    pub(super) fn raise(&self) {
        self.raised.fetch_add(1, Ordering::AcqRel);
    }

    /// The doubts to settle; `None` if all are settled.
    pub(super) fn open(&self) -> Option<u64> {
        let raised = self.raised.load(Ordering::Acquire);
        (raised > self.settled.load(Ordering::Acquire)).then_some(raised)
    }

    /// Others have confirmed this member after the first `raised` doubts.
    pub(super) fn settle(&self, raised: u64) {
        self.settled.fetch_max(raised, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn first_leader_replaces_nobody() {
        let mut leadership = Leadership::default();
        assert!(!leadership.note(Some(MemberId(1)), SECOND));
        assert!(!leadership.note(None, 2 * SECOND));
        assert!(leadership.note(Some(MemberId(2)), 3 * SECOND));
        assert!(!leadership.note(Some(MemberId(2)), 4 * SECOND), "nothing has changed");
    }

    #[test]
    fn answer_settles_the_doubts_from_before_its_question() {
        let doubts = Doubts::default();
        assert_eq!(doubts.open(), None);
        doubts.raise();
        let asked = doubts.open();
        doubts.raise();
        doubts.settle(asked.unwrap());
        assert_eq!((asked, doubts.open()), (Some(1), Some(2)));
        doubts.settle(2);
        assert_eq!(doubts.open(), None);
    }

    #[test]
    fn requests_shortly_before_an_election_may_be_lost() {
        let mut leadership = Leadership::default();
        assert!(!leadership.may_have_lost(SECOND, SECOND));
        leadership.note(Some(MemberId(1)), 10 * SECOND);
        let lost = [7, 8, 9, 10, 11].map(|begun| leadership.may_have_lost(begun * SECOND, SECOND));
        assert_eq!(lost, [false, false, true, false, false]);
    }
}
