//! Proposals that wait for a leader: those of peers that came while leadership was about to move, or had just moved, and
//! those that this member has forwarded to a leader that is gone, and that have not left it.
//!
//! They are lost in etcd, and their callers wait for a time-out. To hold one back is to receive or to send it later, which
//! any network may do with it: it is still appended once at most. Whoever leads by then appends it, or is sent it.

use ::raft::eraftpb::Message;

/// Bytes of payloads held back. Beyond that they are lost.
const HELD_BYTES_MAX: usize = 8 << 20;
/// Messages held back. Beyond that they are lost.
const HELD_MAX: usize = 1024;

/// A leader and its term.
pub(super) type Office = (u64, u64);

/// Proposals in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// With the leader that could not be reached.
    messages: Vec<(Message, Option<Office>)>,
    bytes: usize,
    /// The tick at which the oldest came.
    since: u64,
}

impl Held {
    /// Holds back a proposal that has come at tick `now`, from `unreached` if it is one that was forwarded.
    pub(super) fn keep(&mut self, proposal: Message, unreached: Option<Office>, now: u64) {
        let bytes = weight(&proposal);
        if self.messages.len() >= HELD_MAX || self.bytes + bytes > HELD_BYTES_MAX {
            return;
        }
        if self.messages.is_empty() {
            self.since = now;
        }
        self.bytes += bytes;
        self.messages.push((proposal, unreached));
    }

    /// Whether there is any.
    pub(super) fn any(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Hands out those that `office` has not missed.
    pub(super) fn take_for(&mut self, office: Office) -> Vec<Message> {
        let missed = |(_, unreached): &(Message, Option<Office>)| *unreached == Some(office);
        let (kept, taken): (Vec<_>, Vec<_>) = std::mem::take(&mut self.messages).into_iter().partition(missed);
        self.messages = kept;
        self.bytes = self.messages.iter().map(|(proposal, _)| weight(proposal)).sum();
        taken.into_iter().map(|(proposal, _)| proposal).collect()
    }

    /// Gives up on all of them if the oldest has waited for so many ticks: their callers will not wait much longer.
    pub(super) fn expire(&mut self, now: u64, patience: u64) {
        if self.any() && now.saturating_sub(self.since) >= patience {
            *self = Self::default();
        }
    }
}

fn weight(proposal: &Message) -> usize {
    proposal.get_entries().iter().map(|entry| entry.data.len()).sum()
}

#[cfg(test)]
mod tests {
    use ::raft::eraftpb::Entry;

    use super::*;

    fn proposal(bytes: usize) -> Message {
        let entry = Entry { data: vec![0; bytes].into(), ..Entry::default() };
        let mut message = Message::default();
        message.set_entries(vec![entry].into());
        message
    }

    #[test]
    fn what_is_held_is_bounded_in_number_bytes_and_time() {
        let mut held = Held::default();
        (0..=HELD_MAX).for_each(|_| held.keep(proposal(1), None, 0));
        assert_eq!(held.take_for((1, 1)).len(), HELD_MAX);
        held.keep(proposal(HELD_BYTES_MAX), None, 5);
        held.keep(proposal(1), None, 6);
        held.expire(14, 10);
        assert_eq!(held.take_for((1, 1)).len(), 1);
        held.keep(proposal(1), None, 7);
        held.expire(17, 10);
        assert!(!held.any());
    }

    #[test]
    fn what_a_leader_has_missed_waits_for_another() {
        let mut held = Held::default();
        held.keep(proposal(1), Some((1, 5)), 0);
        held.keep(proposal(2), None, 0);
        assert_eq!(held.take_for((1, 5)).iter().map(weight).collect::<Vec<_>>(), [2]);
        assert_eq!(held.take_for((1, 5)), []);
        assert_eq!(held.take_for((1, 6)).iter().map(weight).collect::<Vec<_>>(), [1]);
        assert!(!held.any());
    }
}
