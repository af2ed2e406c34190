//! Who led when, as this member saw it.

use std::time::Duration;

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
    fn requests_shortly_before_an_election_may_be_lost() {
        let mut leadership = Leadership::default();
        assert!(!leadership.may_have_lost(SECOND, SECOND));
        leadership.note(Some(MemberId(1)), 10 * SECOND);
        let lost = [7, 8, 9, 10, 11].map(|begun| leadership.may_have_lost(begun * SECOND, SECOND));
        assert_eq!(lost, [false, false, true, false, false]);
    }
}
