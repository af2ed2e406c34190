//! gRPC's message frame: one flag byte, the length in four bytes, the message.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;

/// Bytes in front of every message.
pub(crate) const PREFIX_BYTES: usize = 5;

/// The prefix of an uncompressed message.
pub(crate) fn prefix(message_bytes: u32) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = message_bytes.to_be_bytes();
    [0, a, b, c, d]
}

/// A message with its prefix.
///
/// # Panics
/// For a message of 4 GiB or more, which no caller builds in one piece.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let bytes = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    frame.put_slice(&prefix(u32::try_from(bytes).expect("whole answers stay below 4 GiB")));
    message.encode_raw(&mut frame);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::LeaseStatus;

    #[test]
    fn a_frame_is_flag_length_message() {
        assert_eq!(framed(&LeaseStatus { id: 300 }).as_ref(), [0, 0, 0, 0, 3, 8, 0xac, 2]);
        assert_eq!(framed(&LeaseStatus::default()).as_ref(), [0; 5]);
        assert_eq!(prefix(0x0102_0304), [0, 1, 2, 3, 4]);
    }
}
