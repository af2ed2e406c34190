//! Messages of peers between their arrival and raft.
//!
//! Each class has room of its own: proposals that wait can neither keep out appends, nor appends the heartbeats and
//! votes. A message holds its share of the room of its class until raft has taken it, whatever happens in between.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    pb::raftpb::{Message, MessageType},
    transport::Busy,
};

/// Forwarded proposals that may wait: half of what this member's own clients may have in flight.
const PROPOSAL_BYTES_MAX: usize = 32 << 20;
/// Entries that may wait to be appended: one full window of a leader in small messages, 64 of its largest.
const APPEND_BYTES_MAX: usize = 64 << 20;
/// Everything else: 16 384 messages.
const OTHER_BYTES_MAX: usize = 16 << 20;
/// The least a message counts for, which bounds their number.
const SHARE_BYTES_MIN: usize = 1 << 10;
/// What an entry costs beyond its data.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// The room of every class.
#[derive(Debug)]
pub(super) struct Arrivals {
    proposals: Room,
    appends: Room,
    others: Room,
}

#[derive(Debug)]
struct Room {
    bytes: usize,
    free: Arc<Semaphore>,
}

/// A message with its share of the room.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) message: Box<Message>,
    _share: OwnedSemaphorePermit,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            proposals: Room::new(PROPOSAL_BYTES_MAX),
            appends: Room::new(APPEND_BYTES_MAX),
            others: Room::new(OTHER_BYTES_MAX),
        }
    }
}

impl Arrivals {
    /// Takes a message in.
    ///
    /// # Errors
    /// [`Busy`] if its class has no room left.
    pub(super) fn admit(&self, message: Message) -> Result<Arrival, Busy> {
        let share = self.room(&message).take(bytes_of(&message))?;
        Ok(Arrival { message: Box::new(message), _share: share })
    }

    fn room(&self, message: &Message) -> &Room {
        match message.r#type() {
            MessageType::MsgProp => &self.proposals,
            MessageType::MsgApp => &self.appends,
            _ => &self.others,
        }
    }
}

impl Room {
    fn new(bytes: usize) -> Self {
        Self { bytes, free: Arc::new(Semaphore::new(bytes)) }
    }

    /// A message larger than the whole room has it for itself.
    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Busy> {
        let share = u32::try_from(bytes.clamp(SHARE_BYTES_MIN, self.bytes)).map_err(|_| Busy)?;
        Arc::clone(&self.free).try_acquire_many_owned(share).map_err(|_| Busy)
    }
}

fn bytes_of(message: &Message) -> usize {
    let entries = message.entries.iter().map(|entry| entry.data.len() + ENTRY_OVERHEAD_BYTES);
    entries.sum::<usize>().saturating_add(message.context.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::raftpb::Entry;

    fn message(kind: MessageType, bytes: usize) -> Message {
        let entry = Entry { data: vec![0; bytes].into(), ..Entry::default() };
        Message { r#type: kind.into(), entries: vec![entry], ..Message::default() }
    }

    #[test]
    fn one_class_cannot_use_up_the_room_of_another() {
        let arrivals = Arrivals::default();
        let whole = arrivals.admit(message(MessageType::MsgProp, PROPOSAL_BYTES_MAX)).unwrap();
        assert_eq!(arrivals.admit(message(MessageType::MsgProp, 1)).unwrap_err(), Busy);
        arrivals.admit(message(MessageType::MsgApp, 1)).unwrap();
        arrivals.admit(message(MessageType::MsgHeartbeat, 0)).unwrap();
        drop(whole);
        arrivals.admit(message(MessageType::MsgProp, 1)).unwrap();
    }

    #[test]
    fn messages_are_bounded_in_number_too() {
        let arrivals = Arrivals::default();
        let taken: Vec<_> = (0..).map_while(|_| arrivals.admit(message(MessageType::MsgHeartbeat, 0)).ok()).collect();
        assert_eq!(taken.len(), OTHER_BYTES_MAX / SHARE_BYTES_MIN);
    }
}
