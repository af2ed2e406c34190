//! Linearizable reads that wait for an index.
//!
//! The raft crate drops a read without notice when nobody leads or the leader has committed nothing in its term, and
//! the network may drop it too. Here a read stays until it is answered or cancelled, and is asked again.

use std::collections::BTreeMap;

use ::raft::eraftpb::{Entry, Message, MessageType};
use bytes::Bytes;

use crate::types::RequestId;

/// Reads of this member that may wait at once. The server joins its clients' reads into rounds, a few at a time.
const READS_MAX: usize = 1024;
/// Ticks after which an unanswered read is asked again: half a second, as in etcd.
const RETRY_TICKS: u64 = 5;

/// The reads of this member, oldest context first.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The tick at which each was last asked; `None` when it must be asked at the next opportunity.
    asked: BTreeMap<RequestId, Option<u64>>,
}

impl Reads {
    /// Takes a read. False if too many wait already.
    pub(super) fn add(&mut self, context: RequestId) -> bool {
        if self.asked.len() >= READS_MAX && !self.asked.contains_key(&context) {
            return false;
        }
        self.asked.entry(context).or_insert(None);
        true
    }

    /// Forgets a read. False if it did not wait.
    pub(super) fn remove(&mut self, context: RequestId) -> bool {
        self.asked.remove(&context).is_some()
    }

    /// Whoever was asked is not responsible any more.
    pub(super) fn ask_again(&mut self) {
        self.asked.values_mut().for_each(|asked| *asked = None);
    }

    /// The reads to ask for now, which count as asked from here on.
    pub(super) fn due(&mut self, now: u64) -> Vec<RequestId> {
        let due = |asked: Option<u64>| asked.is_none_or(|at| now >= at + RETRY_TICKS);
        let mut contexts = Vec::new();
        for (context, asked) in self.asked.iter_mut().filter(|(_, asked)| due(**asked)) {
            *asked = Some(now);
            contexts.push(*context);
        }
        contexts
    }
}

/// The question for the leader. A context travels as etcd sends it: eight bytes, big-endian.
pub(super) fn request(context: RequestId) -> Message {
    let mut request = Message::default();
    request.set_msg_type(MessageType::MsgReadIndex);
    let data = Bytes::copy_from_slice(&context.0.to_be_bytes());
    request.set_entries(vec![Entry { data, ..Entry::default() }].into());
    request
}

/// The context of an answer; `None` if it cannot be ours.
pub(super) fn decode(context: &[u8]) -> Option<RequestId> {
    context.try_into().ok().map(|bytes| RequestId(u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unanswered_read_is_asked_again() {
        let mut reads = Reads::default();
        assert!(reads.add(RequestId(1)));
        assert_eq!(reads.due(10), [RequestId(1)]);
        assert_eq!(reads.due(14), []);
        assert_eq!(reads.due(15), [RequestId(1)]);
        reads.ask_again();
        assert_eq!(reads.due(16), [RequestId(1)]);
        assert!(reads.remove(RequestId(1)));
        assert!(!reads.remove(RequestId(1)));
        assert_eq!(reads.due(99), []);
    }

    #[test]
    fn waiting_reads_are_bounded() {
        let mut reads = Reads::default();
        assert!((0..READS_MAX as u64).all(|context| reads.add(RequestId(context))));
        assert!(!reads.add(RequestId(u64::MAX)));
        assert!(reads.add(RequestId(0)));
    }

    #[test]
    fn contexts_are_eight_bytes_big_endian() {
        let context = &request(RequestId(0x0102)).entries[0].data;
        assert_eq!(context[..], [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(decode(context), Some(RequestId(0x0102)));
        assert_eq!(decode(b"short"), None);
    }
}
