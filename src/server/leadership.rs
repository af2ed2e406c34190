//! Who led when, as this member saw it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::types::MemberId;

/// What the raft thread takes down about leaders. Times are those of the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leadership {
    /// Who leads.
    leader: Option<MemberId>,
    /// Who led last, whether it still does or not.
    last: Option<MemberId>,
    /// When this member last saw a leader elected.
    elected: Option<Duration>,
}

impl Leadership {
    /// The leader from `now` on. True if somebody replaced another one.
    pub fn note(&mut self, leader: Option<MemberId>, now: Duration) -> bool {
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

    /// When this member last saw a leader elected, by the monotonic clock.
    pub fn elected(&self) -> Option<Duration> {
        self.elected
    }

    /// Whether a request that began at `begun` may have been lost with the leader before this one: it began after
    /// two election timeouts before the election, and before it.
    pub fn may_have_lost(&self, begun: Duration, election: Duration) -> bool {
        self.elected.is_some_and(|elected| begun < elected && begun + 2 * election > elected)
    }
}

/// Whether this member may have been deposed without having heard of it, because it slept. Doubts are counted, so that an
/// answer settles those from before its question and no later one.
#[derive(Debug, Default)]
pub struct Doubts {
    raised: AtomicU64,
    settled: AtomicU64,
}

/// Whether a member may act as the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It leads.
    Leads,
    /// It does not.
    Follows,
    /// While it slept the others may have elected another: it leads if a linearizable read succeeds and it leads after
    /// that, which settles so many doubts.
    Ask(u64),
}

impl Doubts {
    /// The member has slept.
    pub fn raise(&self) {
        self.raised.fetch_add(1, Ordering::AcqRel);
    }

    /// What a member may do that leads or does not, as far as it knows. One that is `asleep` has not raised its doubt yet.
    pub fn weigh(&self, leads: bool, asleep: bool) -> Trust {
        match self.open() {
            _ if !leads => Trust::Follows,
            None if !asleep => Trust::Leads,
            doubts => Trust::Ask(doubts.unwrap_or_default()),
        }
    }

    /// The doubts to settle; `None` if all are settled.
    fn open(&self) -> Option<u64> {
        let raised = self.raised.load(Ordering::Acquire);
        (raised > self.settled.load(Ordering::Acquire)).then_some(raised)
    }

    /// Others have confirmed this member after the first `raised` doubts.
    pub fn settle(&self, raised: u64) {
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
    fn who_slept_asks_before_it_acts() {
        let doubts = Doubts::default();
        assert_eq!((doubts.weigh(true, false), doubts.weigh(false, true)), (Trust::Leads, Trust::Follows));
        assert_eq!(doubts.weigh(true, true), Trust::Ask(0), "it is still asleep");
        doubts.raise();
        assert_eq!((doubts.weigh(true, false), doubts.weigh(false, false)), (Trust::Ask(1), Trust::Follows));
        doubts.settle(1);
        assert_eq!(doubts.weigh(true, false), Trust::Leads);
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
