//! The frames of the WebSocket protocol (RFC 6455, §5).

use bytes::{Buf as _, BytesMut};
use thiserror::Error;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// One frame of a client, its mask undone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    /// Whether the message ends here.
    pub(super) last: bool,
    pub(super) payload: BytesMut,
}

/// Why a client is no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Fault {
    #[error("a frame with reserved bits or of an unknown kind")]
    Unknown,
    #[error("a frame without mask")]
    Unmasked,
    #[error("a control frame that is long or in pieces")]
    Control,
    #[error("a message above the limit")]
    TooLong,
}

/// Longest payload of a control frame.
const CONTROL_BYTES_MAX: usize = 125;

/// Finds frames in what a client sends.
#[derive(Debug)]
pub(super) struct Reader {
    message_bytes_max: usize,
    /// Bytes of the message whose end has not come.
    message_bytes: usize,
}

impl Reader {
    /// Messages may have `message_bytes_max`, all their frames together.
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, message_bytes: 0 }
    }

    /// Takes the next whole frame off the begin of `buffer`.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        let Some(head) = Head::read(buffer)? else { return Ok(None) };
        let control = matches!(head.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        let before = if control { 0 } else { self.message_bytes };
        let total = before.saturating_add(head.payload_bytes);
        if total > self.message_bytes_max {
            return Err(Fault::TooLong);
        }
        if buffer.len() < head.bytes + head.payload_bytes {
            return Ok(None);
        }
        buffer.advance(head.bytes);
        let mut payload = buffer.split_to(head.payload_bytes);
        payload.iter_mut().zip(head.mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        if !control {
            self.message_bytes = if head.last { 0 } else { total };
        }
        Ok(Some(Frame { opcode: head.opcode, last: head.last, payload }))
    }
}

/// What stands before the payload.
struct Head {
    opcode: Opcode,
    last: bool,
    mask: [u8; 4],
    bytes: usize,
    payload_bytes: usize,
}

impl Head {
    /// `None` until the whole head is there.
    fn read(buffer: &[u8]) -> Result<Option<Self>, Fault> {
        let Some((&[first, second], rest)) = buffer.split_first_chunk::<2>() else { return Ok(None) };
        let opcode = opcode(first)?;
        if second & 0x80 == 0 {
            return Err(Fault::Unmasked);
        }
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk::<2>() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        let payload_bytes = usize::try_from(length).map_err(|_| Fault::TooLong)?;
        let last = first & 0x80 != 0;
        if opcode as u8 >= Opcode::Close as u8 && (payload_bytes > CONTROL_BYTES_MAX || !last) {
            return Err(Fault::Control);
        }
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        Ok(Some(Self { opcode, last, mask: *mask, bytes: buffer.len() - rest.len(), payload_bytes }))
    }
}

fn opcode(first: u8) -> Result<Opcode, Fault> {
    Ok(match first & 0x7f {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return Err(Fault::Unknown),
    })
}

/// A whole message of the server, which carries no mask.
pub(super) fn encode(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode as u8];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..126), _) => frame.push(short),
        (_, Ok(medium)) => {
            frame.push(126);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = encode(Opcode::Text, payload);
        frame[0] = first;
        frame[1] |= 0x80;
        let head = frame.len() - payload.len();
        let mask = [1, 2, 3, 4];
        let body: Vec<u8> =
            frame.split_off(head).iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        frame.extend_from_slice(&mask);
        frame.extend_from_slice(&body);
        frame
    }

    #[test]
    fn frames_of_all_lengths_are_read() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let mut buffer = BytesMut::from(&masked(0x81, &payload)[..]);
            let frame = Reader::new(70_000).next(&mut buffer).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.last, frame.payload), (Opcode::Text, true, payload[..].into()));
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let refused = |bytes: &[u8]| Reader::new(100).next(&mut BytesMut::from(bytes)).unwrap_err();
        assert_eq!(refused(&[0x81, 0x01, b'x']), Fault::Unmasked);
        assert_eq!(refused(&[0x83, 0x80]), Fault::Unknown);
        assert_eq!(refused(&[0xc1, 0x80]), Fault::Unknown);
        assert_eq!(refused(&masked(0x09, b"ping in pieces")), Fault::Control);
        assert_eq!(refused(&masked(0x89, &[0; 126])), Fault::Control);
        assert_eq!(refused(&masked(0x81, &[0; 101])), Fault::TooLong);
        assert_eq!(refused(&[0x81, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]), Fault::TooLong);
    }

    #[test]
    fn pieces_of_a_message_share_its_limit() {
        let mut reader = Reader::new(10);
        let mut buffer = BytesMut::from(&masked(0x01, &[0; 6])[..]);
        buffer.extend_from_slice(&masked(0x89, &[0; 8]));
        buffer.extend_from_slice(&masked(0x80, &[0; 5]));
        assert_eq!(reader.next(&mut buffer).unwrap().map(|frame| frame.opcode), Some(Opcode::Text));
        assert_eq!(reader.next(&mut buffer).unwrap().map(|frame| frame.opcode), Some(Opcode::Ping));
        assert_eq!(reader.next(&mut buffer), Err(Fault::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (mut reader, mut buffer) = (Reader::new(200), BytesMut::from(&bytes[..]));
            while let Ok(Some(frame)) = reader.next(&mut buffer) {
                prop_assert!(frame.payload.len() <= 200);
            }
        }
    }
}
