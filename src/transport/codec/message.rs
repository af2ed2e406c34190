//! The message stream: each message behind its length. Also the head of a snapshot's body.

use bytes::Bytes;
use prost::Message as _;

use super::{Arrived, CodecError, Pieces, checked_length, decode_message, length};
use crate::pb::raftpb;

/// The link heartbeat: a `MsgHeartbeat` from nobody to nobody.
const HEARTBEAT: [u8; 2] = [0x08, 0x08];
/// Bytes of the length in front of a message.
const LENGTH_BYTES: usize = 8;

/// Appends one message.
pub(in crate::transport) fn encode_message(message: &raftpb::Message, out: &mut Pieces) {
    let bytes = message.encoded_len();
    out.number(length(bytes));
    message.encode_raw(out.room(bytes));
}

/// Appends a link heartbeat.
pub(in crate::transport) fn encode_heartbeat(out: &mut Pieces) {
    out.number(length(HEARTBEAT.len()));
    out.room(HEARTBEAT.len()).extend_from_slice(&HEARTBEAT);
}

/// What goes in front of the data of a snapshot.
pub(in crate::transport) fn envelope(message: &raftpb::Message) -> Bytes {
    let mut pieces = Pieces::default();
    encode_message(message, &mut pieces);
    pieces.take().concat().into()
}

/// Reads messages from the bytes of a stream.
#[derive(Debug, Default)]
pub(in crate::transport) struct MessageDecoder(Arrived);

impl MessageDecoder {
    /// Takes bytes as they arrive.
    pub(in crate::transport) fn extend(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// The next complete message; link heartbeats are left out.
    ///
    /// # Errors
    /// [`CodecError`]; nothing sensible follows.
    pub(in crate::transport) fn next(&mut self) -> Result<Option<raftpb::Message>, CodecError> {
        while let Some(message) = self.any()? {
            if !is_link_heartbeat(&message) {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// The next complete message, whatever it is: the head of a snapshot.
    ///
    /// # Errors
    /// [`CodecError`]; nothing sensible follows.
    pub(in crate::transport) fn any(&mut self) -> Result<Option<raftpb::Message>, CodecError> {
        let Some(named) = self.0.number(0) else { return Ok(None) };
        let bytes = checked_length(named)?;
        let Some(part) = self.0.part(LENGTH_BYTES, bytes) else { return Ok(None) };
        let message = decode_message(part)?;
        self.0.consume(LENGTH_BYTES + bytes);
        Ok(Some(message))
    }

    /// What has arrived beyond the messages taken.
    pub(in crate::transport) fn rest(self) -> Bytes {
        self.0.0.freeze()
    }
}

fn is_link_heartbeat(message: &raftpb::Message) -> bool {
    message.r#type == i32::from(raftpb::MessageType::MsgHeartbeat) && message.from == 0 && message.to == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transport::codec::{MESSAGE_BYTES_MAX, msgapp::tests::messages};

    proptest! {
        #[test]
        fn messages_come_back_whatever_the_pieces(
            sent in prop::collection::vec(messages(), 0..8), cut in 1_usize..64,
        ) {
            let mut pieces = Pieces::default();
            for message in &sent {
                encode_message(message, &mut pieces);
                encode_heartbeat(&mut pieces);
            }
            let bytes = pieces.take().concat();
            let mut decoder = MessageDecoder::default();
            let mut received = Vec::new();
            for chunk in bytes.chunks(cut) {
                decoder.extend(chunk);
                while let Some(message) = decoder.next().unwrap() {
                    received.push(message);
                }
            }
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = MessageDecoder::default();
            decoder.extend(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_its_bytes_arrive() {
        let mut decoder = MessageDecoder::default();
        decoder.extend(&(length(MESSAGE_BYTES_MAX) + 1).to_be_bytes());
        assert!(matches!(decoder.next(), Err(CodecError::TooLong(_))));
        let mut decoder = MessageDecoder::default();
        decoder.extend(&length(MESSAGE_BYTES_MAX).to_be_bytes());
        assert!(decoder.next().unwrap().is_none());
        assert!(decoder.0.0.capacity() < 1024, "nothing is allocated for what was only announced");
    }

    #[test]
    fn heartbeats_with_all_zeros_spelled_out_are_swallowed() {
        let spelled = [8, 8, 16, 0, 24, 0, 32, 0, 40, 0, 48, 0, 64, 0, 74, 2, 18, 0, 80, 0, 88, 0];
        let mut decoder = MessageDecoder::default();
        decoder.extend(&length(spelled.len()).to_be_bytes());
        decoder.extend(&spelled);
        assert!(decoder.next().unwrap().is_none());
        assert!(decoder.rest().is_empty());
    }
}
