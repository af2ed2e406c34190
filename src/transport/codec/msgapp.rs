//! The append stream ("msgAppV2"): appends that follow one another are written without repeating what is known.

use prost::{Message as _, encoding::encode_varint, encoding::encoded_len_varint};

use super::{Arrived, CodecError, ENTRIES_MAX, MESSAGE_BYTES_MAX, Pieces, checked_length, decode_message, length};
use crate::{
    pb::raftpb::{Entry, Message, MessageType},
    types::MemberId,
};

const HEARTBEAT: u8 = 0;
const SHORT: u8 = 1;
const FULL: u8 = 2;
/// Bytes of the kind and one number.
const HEAD_BYTES: usize = 1 + 8;
/// The key of an entry's data, its last field.
const DATA_KEY: u8 = 0x22;
/// Room made for entries before they arrive.
const ENTRIES_RESERVED_MAX: usize = 64;

/// Where the last append ended: the next one may be short if it begins here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    term: u64,
    index: u64,
}

impl Position {
    fn after(message: &Message) -> Self {
        let index = message.entries.last().map_or(message.index, |entry| entry.index);
        Self { term: message.term, index }
    }
}

/// Writes one append stream.
#[derive(Debug, Default)]
pub(in crate::transport) struct MsgAppEncoder {
    position: Position,
}

impl MsgAppEncoder {
    /// Appends a link heartbeat.
    pub(in crate::transport) fn heartbeat(out: &mut Pieces) {
        out.byte(HEARTBEAT);
    }

    /// Appends one message.
    pub(in crate::transport) fn encode(&mut self, message: &Message, out: &mut Pieces) {
        if self.continues(message) {
            short(message, out);
        } else {
            full(message, out);
        }
        self.position = Position::after(message);
    }

    /// Whether everything but entries and commit follows from what was sent before.
    fn continues(&self, message: &Message) -> bool {
        let Message { r#type, to: _, from: _, term, log_term, index, entries, commit: _, .. } = message;
        let Message { snapshot, reject, reject_hint, context, .. } = message;
        *r#type == i32::from(MessageType::MsgApp)
            && *term == *log_term
            && self.position == (Position { term: *log_term, index: *index })
            && entries.iter().zip(1_u64..).all(|(entry, offset)| index.checked_add(offset) == Some(entry.index))
            && snapshot.is_none()
            && !reject
            && *reject_hint == 0
            && context.is_empty()
    }
}

fn full(message: &Message, out: &mut Pieces) {
    let bytes = message.encoded_len();
    out.byte(FULL);
    out.number(length(bytes));
    message.encode_raw(out.room(bytes));
}

fn short(message: &Message, out: &mut Pieces) {
    out.byte(SHORT);
    out.number(length(message.entries.len()));
    for each in &message.entries {
        entry(each, out);
    }
    out.number(message.commit);
}

/// Length and entry. The data comes last and is not copied if it is long.
fn entry(entry: &Entry, out: &mut Pieces) {
    let Entry { r#type, term, index, data } = entry;
    let front = Entry { r#type: *r#type, term: *term, index: *index, data: bytes::Bytes::new() };
    let front_bytes = front.encoded_len();
    let data_bytes = length(data.len());
    let data_head = if data.is_empty() { 0 } else { 1 + encoded_len_varint(data_bytes) };
    out.number(length(front_bytes + data_head + data.len()));
    let room = out.room(front_bytes + data_head);
    front.encode_raw(room);
    if !data.is_empty() {
        room.extend_from_slice(&[DATA_KEY]);
        encode_varint(data_bytes, room);
        out.data(data);
    }
}

/// Reads one append stream.
#[derive(Debug)]
pub(in crate::transport) struct MsgAppDecoder {
    arrived: Arrived,
    position: Position,
    from: MemberId,
    to: MemberId,
    short: Option<Short>,
}

/// A short append that has not arrived completely.
#[derive(Debug)]
struct Short {
    left: u64,
    bytes: usize,
    entries: Vec<Entry>,
}

impl MsgAppDecoder {
    /// Reads what `from` sends to `to`.
    pub(in crate::transport) fn new(from: MemberId, to: MemberId) -> Self {
        Self { arrived: Arrived::default(), position: Position::default(), from, to, short: None }
    }

    /// Takes bytes as they arrive.
    pub(in crate::transport) fn extend(&mut self, bytes: &[u8]) {
        self.arrived.extend(bytes);
    }

    /// The next complete message; link heartbeats are left out.
    ///
    /// # Errors
    /// [`CodecError`]; nothing sensible follows.
    pub(in crate::transport) fn next(&mut self) -> Result<Option<Message>, CodecError> {
        loop {
            if self.short.is_some() {
                return self.short();
            }
            match self.arrived.first() {
                None => return Ok(None),
                Some(HEARTBEAT) => self.arrived.consume(1),
                Some(SHORT) => {
                    let Some(count) = self.arrived.number(1) else { return Ok(None) };
                    self.begin_short(count)?;
                }
                Some(FULL) => return self.full(),
                Some(kind) => return Err(CodecError::Kind(kind)),
            }
        }
    }

    fn full(&mut self) -> Result<Option<Message>, CodecError> {
        let Some(named) = self.arrived.number(1) else { return Ok(None) };
        let bytes = checked_length(named)?;
        let Some(part) = self.arrived.part(HEAD_BYTES, bytes) else { return Ok(None) };
        let message = decode_message(part)?;
        self.arrived.consume(HEAD_BYTES + bytes);
        self.position = Position::after(&message);
        Ok(Some(message))
    }

    fn begin_short(&mut self, count: u64) -> Result<(), CodecError> {
        if count > ENTRIES_MAX {
            return Err(CodecError::TooMany(count));
        }
        self.arrived.consume(HEAD_BYTES);
        let reserved = usize::try_from(count).map_or(ENTRIES_RESERVED_MAX, |count| count.min(ENTRIES_RESERVED_MAX));
        self.short = Some(Short { left: count, bytes: 0, entries: Vec::with_capacity(reserved) });
        Ok(())
    }

    /// Takes the entries that are there, and the message once it is complete.
    fn short(&mut self) -> Result<Option<Message>, CodecError> {
        while let Some(short) = self.short.as_mut().filter(|short| short.left > 0) {
            let Some(named) = self.arrived.number(0) else { return Ok(None) };
            let bytes = checked_length(named)?;
            checked_length(length(short.bytes + bytes))?;
            let Some(part) = self.arrived.part(8, bytes) else { return Ok(None) };
            let entry = Entry::decode(part)?;
            follows(&entry, self.position.index, short.entries.len())?;
            short.bytes += bytes;
            short.left -= 1;
            short.entries.push(entry);
            self.arrived.consume(8 + bytes);
        }
        let Some(commit) = self.arrived.number(0) else { return Ok(None) };
        let Some(short) = self.short.take() else { return Ok(None) };
        self.arrived.consume(8);
        Ok(Some(self.append(short.entries, commit)))
    }

    fn append(&mut self, entries: Vec<Entry>, commit: u64) -> Message {
        let Position { term, index } = self.position;
        let message = Message {
            r#type: MessageType::MsgApp.into(),
            from: self.from.0,
            to: self.to.0,
            term,
            log_term: term,
            index,
            entries,
            commit,
            ..Message::default()
        };
        self.position = Position::after(&message);
        message
    }
}

/// The entries of a short append stand behind its index without gaps.
fn follows(entry: &Entry, index: u64, before: usize) -> Result<(), CodecError> {
    let want = index.saturating_add(length(before)).saturating_add(1);
    if entry.index == want { Ok(()) } else { Err(CodecError::Order { have: entry.index, want }) }
}

const _: () = assert!(MESSAGE_BYTES_MAX < usize::MAX / 2, "sums of two lengths do not overflow");

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::transport::codec::pieces::SHARED_BYTES_MIN;

    fn data() -> impl Strategy<Value = Bytes> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from),
            1 => any::<u8>().prop_map(|byte| Bytes::from(vec![byte; SHARED_BYTES_MIN + 1])),
        ]
    }

    fn entries(first: u64) -> impl Strategy<Value = Vec<Entry>> {
        prop::collection::vec((0..2_i32, any::<u64>(), data()), 0..5).prop_map(move |parts| {
            let entry = |((r#type, term, data), index)| Entry { r#type, term, index, data };
            parts.into_iter().zip(first..).map(entry).collect()
        })
    }

    prop_compose! {
        /// Any message, as the message stream carries it.
        pub(in crate::transport::codec) fn messages()(
            r#type in 2..19_i32, to in 1_u64.., from in 1_u64.., term in any::<u64>(), index in 0..u64::MAX - 10,
            entries in entries(7), commit in any::<u64>(), reject in any::<bool>(), context in data(),
        ) -> Message {
            Message {
                r#type, to, from, term, log_term: term / 2, index, entries, commit, reject, reject_hint: index / 2, context,
                snapshot: None,
            }
        }
    }

    /// Appends of one leader: most follow one another, some begin elsewhere or in a new term.
    fn appends() -> impl Strategy<Value = Vec<Message>> {
        prop::collection::vec((0..4_u8, entries(0), any::<u64>()), 0..12).prop_map(|parts| {
            let mut position = Position { term: 3, index: 10 };
            let mut append = |(jump, mut entries, commit): (u8, Vec<Entry>, u64)| {
                position.term += u64::from(jump == 0);
                position.index += u64::from(jump == 1);
                entries.iter_mut().zip(position.index + 1..).for_each(|(entry, index)| entry.index = index);
                let log_term = position.term - u64::from(jump == 0);
                let Position { term, index } = position;
                let kind = MessageType::MsgApp.into();
                let message = Message {
                    r#type: kind,
                    from: 1,
                    to: 2,
                    term,
                    log_term,
                    index,
                    entries,
                    commit,
                    ..Default::default()
                };
                position = Position::after(&message);
                message
            };
            parts.into_iter().map(&mut append).collect()
        })
    }

    fn decoder() -> MsgAppDecoder {
        MsgAppDecoder::new(MemberId(1), MemberId(2))
    }

    fn decode(bytes: &[u8], cut: usize) -> Result<Vec<Message>, CodecError> {
        let mut decoder = decoder();
        let mut received = Vec::new();
        for chunk in bytes.chunks(cut) {
            decoder.extend(chunk);
            while let Some(message) = decoder.next()? {
                received.push(message);
            }
        }
        Ok(received)
    }

    fn encode(sent: &[Message]) -> Vec<u8> {
        let mut encoder = MsgAppEncoder::default();
        let mut pieces = Pieces::default();
        for message in sent {
            encoder.encode(message, &mut pieces);
            MsgAppEncoder::heartbeat(&mut pieces);
        }
        pieces.take().concat()
    }

    proptest! {
        #[test]
        fn appends_come_back_whatever_the_pieces(sent in appends(), cut in 1_usize..64) {
            prop_assert_eq!(decode(&encode(&sent), cut).unwrap(), sent);
        }

        #[test]
        fn other_messages_come_back_too(sent in prop::collection::vec(messages(), 0..5)) {
            prop_assert_eq!(decode(&encode(&sent), 1 << 20).unwrap(), sent);
        }

        #[test]
        fn any_bytes_are_survived(kind in 0..4_u8, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut hostile = vec![kind];
            hostile.extend(bytes);
            drop(decode(&hostile, 7));
        }
    }

    fn append(term: u64, index: u64, count: u64) -> Message {
        let entry = |index| Entry { term, index, data: Bytes::from_static(b"x"), ..Default::default() };
        Message {
            r#type: MessageType::MsgApp.into(),
            from: 1,
            to: 2,
            term,
            log_term: term,
            index,
            entries: (index + 1..=index + count).map(entry).collect(),
            commit: index,
            ..Default::default()
        }
    }

    #[test]
    fn what_follows_is_written_short_as_etcd_does() {
        let bytes = encode(&[append(5, 7, 1), append(5, 8, 1), append(5, 9, 0)]);
        let second = bytes.iter().skip(1 + 8 + append(5, 7, 1).encoded_len() + 1).copied().collect::<Vec<_>>();
        let short =
            [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 16, 5, 24, 9, 34, 1, 120, 0, 0, 0, 0, 0, 0, 0, 8, 0];
        assert_eq!(second[..short.len()], short);
        assert_eq!(second[short.len()..], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0]);
    }

    #[test]
    fn hostile_counts_and_lengths_are_refused_before_their_bytes_arrive() {
        let frame = |kind: u8, number: u64| [&[kind][..], &number.to_be_bytes()].concat();
        assert!(matches!(decode(&frame(SHORT, u64::MAX), 99), Err(CodecError::TooMany(_))));
        assert!(matches!(decode(&frame(FULL, u64::MAX), 99), Err(CodecError::TooLong(_))));
        assert!(matches!(decode(&[3], 99), Err(CodecError::Kind(3))));
        let entry = [frame(SHORT, 1), u64::MAX.to_be_bytes().to_vec()].concat();
        assert!(matches!(decode(&entry, 99), Err(CodecError::TooLong(_))));
    }

    #[test]
    fn entries_that_do_not_follow_are_refused() {
        let mut pieces = Pieces::default();
        short(&append(5, 7, 1), &mut pieces);
        let refused = decode(&pieces.take().concat(), 99);
        assert!(matches!(refused, Err(CodecError::Order { have: 8, want: 1 })));
    }

    #[test]
    fn the_sum_of_entries_is_limited() {
        let mut decoder = decoder();
        decoder.short = Some(Short { left: 1, bytes: MESSAGE_BYTES_MAX, entries: Vec::new() });
        decoder.extend(&1_u64.to_be_bytes());
        assert!(matches!(decoder.next(), Err(CodecError::TooLong(_))));
    }
}
