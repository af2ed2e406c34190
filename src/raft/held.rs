//! Proposals of peers that nobody here can take at the moment: leadership is about to move, or has just moved.
//!
//! They are lost on the way in etcd, and their callers wait for a time-out. To hold one back is to receive it later, which
//! any network may do with it: it is still appended once at most. Whoever leads by then appends it, or is sent it.

use ::raft::eraftpb::Message;

/// Bytes of payloads held back. Beyond that they are lost.
const HELD_BYTES_MAX: usize = 8 << 20;
/// Messages held back. Beyond that they are lost.
const HELD_MAX: usize = 1024;

/// Proposals in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Held {
    messages: Vec<Message>,
    bytes: usize,
    /// The tick at which the oldest came.
    since: u64,
}

impl Held {
    /// Holds back a proposal that has come at tick `now`.
    pub(super) fn keep(&mut self, proposal: Message, now: u64) {
        let bytes: usize = proposal.get_entries().iter().map(|entry| entry.data.len()).sum();
        if self.messages.len() >= HELD_MAX || self.bytes + bytes > HELD_BYTES_MAX {
            return;
        }
        if self.messages.is_empty() {
            self.since = now;
        }
        self.bytes += bytes;
        self.messages.push(proposal);
    }

    /// Whether there is any.
    pub(super) fn any(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Hands out all of them.
    pub(super) fn take(&mut self) -> Vec<Message> {
        std::mem::take(self).messages
    }

    /// Gives up on all of them if the oldest has waited for so many ticks: their callers will not wait much longer.
    pub(super) fn expire(&mut self, now: u64, patience: u64) {
        if self.any() && now.saturating_sub(self.since) >= patience {
            *self = Self::default();
        }
    }
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
        (0..=HELD_MAX).for_each(|_| held.keep(proposal(1), 0));
        assert_eq!(held.take().len(), HELD_MAX);
        held.keep(proposal(HELD_BYTES_MAX), 5);
        held.keep(proposal(1), 6);
        held.expire(14, 10);
        assert_eq!(held.take().len(), 1);
        held.keep(proposal(1), 7);
        held.expire(17, 10);
        assert!(!held.any());
    }
}
