//! How raft messages are written on streams and in bodies: pure functions between messages and bytes.
//!
//! The decoders take bytes as they arrive and trust none of them: lengths and counts are compared with the limits here
//! before anything is done with them, and memory grows only with bytes that are there.

mod message;
mod msgapp;
mod pieces;
mod scan;

pub(super) use message::{MessageDecoder, encode_heartbeat, encode_message, envelope};
pub(super) use msgapp::{MsgAppDecoder, MsgAppEncoder};
pub(super) use pieces::Pieces;

use bytes::{Buf as _, BytesMut};
use prost::Message as _;
use thiserror::Error;

use crate::pb::raftpb;

/// Longest message taken from a peer, and longest sum of the entries of one short append: 64 MiB. etcd sends appends
/// of at most 1 MiB or one entry, and an entry is at most `max-request-bytes` long.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most entries of one message. An append of 1 MiB holds about 100 000 of the smallest entries there are.
pub(super) const ENTRIES_MAX: u64 = 1 << 18;
/// Most bytes that describe a raft configuration inside a message: thousands of members.
const CONFIGURATION_BYTES_MAX: u64 = 64 * 1024;
/// A buffer that grew beyond this for one message is given back afterwards.
const IDLE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// Why bytes from a peer make no sense. The connection they came on is of no use any more.
#[derive(Debug, Error)]
pub(super) enum CodecError {
    /// A length beyond the limit.
    #[error("a length of {0} bytes exceeds the limit")]
    TooLong(u64),
    /// A count beyond the limit.
    #[error("{0} entries exceed the limit for one message")]
    TooMany(u64),
    /// An unknown kind of frame.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// A short append whose entries do not follow the message before it.
    #[error("an entry at index {have} where {want} was expected")]
    Order {
        /// The index of the entry.
        have: u64,
        /// What should have come.
        want: u64,
    },
    /// Not protobuf, or not of the expected shape.
    #[error("decoding a raft message")]
    Garbled(#[from] prost::DecodeError),
    /// Protobuf that no message is written in.
    #[error("a malformed field in a raft message")]
    Field,
}

/// Decodes one message after checking that it holds no more items than a peer may send.
///
/// # Errors
/// [`CodecError`].
pub(super) fn decode_message(bytes: &[u8]) -> Result<raftpb::Message, CodecError> {
    scan::check(bytes)?;
    Ok(raftpb::Message::decode(bytes)?)
}

/// Bytes that have arrived and are not decoded yet.
#[derive(Debug, Default)]
struct Arrived(BytesMut);

impl Arrived {
    fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn first(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The number at `offset`, once it is there.
    fn number(&self, offset: usize) -> Option<u64> {
        let bytes = self.0.get(offset..offset.checked_add(8)?)?;
        bytes.try_into().ok().map(u64::from_be_bytes)
    }

    /// The `length` bytes at `offset`, once all of them are there.
    fn part(&self, offset: usize, length: usize) -> Option<&[u8]> {
        self.0.get(offset..offset.checked_add(length)?)
    }

    fn consume(&mut self, length: usize) {
        self.0.advance(length.min(self.0.len()));
        if self.0.is_empty() && self.0.capacity() > IDLE_BUFFER_BYTES_MAX {
            self.0 = BytesMut::new();
        }
    }
}

/// Takes a length named by a peer.
fn checked_length(length: u64) -> Result<usize, CodecError> {
    usize::try_from(length).ok().filter(|length| *length <= MESSAGE_BYTES_MAX).ok_or(CodecError::TooLong(length))
}

/// A length for a peer. Nothing in memory is longer than 64 bits can say.
fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
