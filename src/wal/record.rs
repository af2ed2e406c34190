//! Records and their frames, byte for byte as etcd 3.5 and 3.6 write them.
//!
//! A frame is an eight-byte little-endian length field, a protobuf record, and zeros up to a multiple of eight bytes.
//! The record holds its type, a CRC-32C and its data; the CRC runs over the data of all records since the log began.
//! Zero-valued fields are written out, which is why the encoding is by hand: etcd's generated code does so, and tools
//! compare.

use bytes::Buf;

use crate::pb::{raftpb, walpb};

/// Whose log it is.
pub(super) const METADATA: u8 = 1;
/// A [`raftpb::Entry`].
pub(super) const ENTRY: u8 = 2;
/// A [`raftpb::HardState`].
pub(super) const STATE: u8 = 3;
/// The running CRC; opens each segment.
pub(super) const CRC: u8 = 4;
/// A [`walpb::Snapshot`].
pub(super) const SNAPSHOT: u8 = 5;

/// The length field before each record.
pub(super) const LENGTH_BYTES: usize = 8;
/// Longest record that is read or written: far above any request a member accepts, far below what would hurt.
pub const RECORD_BYTES_MAX: usize = 512 << 20;

const PADDING_FLAG: u64 = 0x80 << 56;
const LENGTH_MASK: u64 = (1 << 56) - 1;

/// Appends frames to a buffer and carries the running CRC.
#[derive(Clone, Debug, Default)]
pub(super) struct Encoder {
    pub(super) buffer: Vec<u8>,
    pub(super) crc: u32,
}

impl Encoder {
    pub(super) fn metadata(&mut self, member: u64, cluster: u64) {
        let mut data = Head::default();
        data.field(1, member);
        data.field(2, cluster);
        self.record(METADATA, data.bytes(), &[]);
    }

    pub(super) fn entry(&mut self, entry: &raftpb::Entry) {
        let mut data = Head::default();
        data.field(1, u64::from(entry.r#type.unsigned_abs()));
        data.field(2, entry.term);
        data.field(3, entry.index);
        if !entry.data.is_empty() {
            data.length(4, entry.data.len());
        }
        self.record(ENTRY, data.bytes(), &entry.data);
    }

    pub(super) fn state(&mut self, state: &raftpb::HardState) {
        let mut data = Head::default();
        data.field(1, state.term);
        data.field(2, state.vote);
        data.field(3, state.commit);
        self.record(STATE, data.bytes(), &[]);
    }

    pub(super) fn snapshot(&mut self, snapshot: &walpb::Snapshot) {
        let mut data = Head::default();
        data.field(1, snapshot.index);
        data.field(2, snapshot.term);
        let conf_state = snapshot.conf_state.as_ref().map(conf_state).unwrap_or_default();
        if snapshot.conf_state.is_some() {
            data.length(3, conf_state.len());
        }
        self.record(SNAPSHOT, data.bytes(), &conf_state);
    }

    /// The running CRC as a record of its own.
    pub(super) fn crc_record(&mut self) {
        self.frame(CRC, None);
    }

    /// A record whose data is in two parts.
    pub(super) fn record(&mut self, kind: u8, head: &[u8], tail: &[u8]) {
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, head), tail);
        self.frame(kind, Some((head, tail)));
    }

    fn frame(&mut self, kind: u8, data: Option<(&[u8], &[u8])>) {
        let mut record = Head::default();
        record.field(1, u64::from(kind));
        record.field(2, u64::from(self.crc));
        let (head, tail) = data.unwrap_or_default();
        if data.is_some() {
            record.length(3, head.len() + tail.len());
        }
        let length = record.bytes().len() + head.len() + tail.len();
        let padding = padding(length);
        let flag = if padding == 0 { 0 } else { PADDING_FLAG | ((padding as u64) << 56) };
        self.buffer.extend_from_slice(&(length as u64 | flag).to_le_bytes());
        for part in [record.bytes(), head, tail] {
            self.buffer.extend_from_slice(part);
        }
        self.buffer.resize(self.buffer.len() + padding, 0);
    }
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(8) - length
}

/// As etcd's generated code: one tag per element, the flag always.
fn conf_state(conf_state: &raftpb::ConfState) -> Vec<u8> {
    let raftpb::ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = conf_state;
    let mut bytes = Vec::new();
    for (number, ids) in [(1, voters), (2, learners), (3, voters_outgoing), (4, learners_next)] {
        for id in ids {
            let mut field = Head::default();
            field.field(number, *id);
            bytes.extend_from_slice(field.bytes());
        }
    }
    bytes.extend_from_slice(&[5 << 3, u8::from(*auto_leave)]);
    bytes
}

/// A few protobuf fields on the stack: at most three varint fields and a length.
struct Head {
    bytes: [u8; HEAD_BYTES],
    length: usize,
}

/// Three tags and varints of ten bytes each, a tag and a length.
const HEAD_BYTES: usize = 48;

impl Default for Head {
    fn default() -> Self {
        Self { bytes: [0; HEAD_BYTES], length: 0 }
    }
}

impl Head {
    fn field(&mut self, number: u8, value: u64) {
        self.varint(u64::from(number << 3));
        self.varint(value);
    }

    fn length(&mut self, number: u8, length: usize) {
        self.varint(u64::from(number << 3 | 2));
        self.varint(length as u64);
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let (byte, rest) = (value.to_le_bytes()[0] & 0x7f, value >> 7);
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = if rest == 0 { byte } else { byte | 0x80 };
                self.length += 1;
            }
            if rest == 0 {
                return;
            }
            value = rest;
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// What stands at the beginning of some bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A record.
    Record {
        /// Its type.
        kind: i64,
        /// The running CRC after its data; of a CRC record, the value to go on with.
        crc: u32,
        /// Its data.
        data: &'a [u8],
        /// Bytes of the whole frame.
        length: usize,
    },
    /// No more records: a length field of zero, or no bytes at all.
    End,
    /// The record goes on: the frame has this many bytes.
    Short(usize),
    /// No record can look like this. The frame would have this many bytes.
    Broken(usize, &'static str),
}

/// Looks at the beginning of `bytes`. Never panics and allocates nothing, whatever the bytes.
pub fn decode_frame(bytes: &[u8]) -> Frame<'_> {
    let Some(field) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return if bytes.is_empty() { Frame::End } else { Frame::Short(LENGTH_BYTES) };
    };
    let field = u64::from_le_bytes(*field);
    if field == 0 {
        return Frame::End;
    }
    let Ok(length) = usize::try_from(field & LENGTH_MASK) else { return Frame::Broken(0, "its length is impossible") };
    if length > RECORD_BYTES_MAX {
        return Frame::Broken(0, "its length is impossible");
    }
    let padding = padding(length);
    let flag = if padding == 0 { 0 } else { PADDING_FLAG | ((padding as u64) << 56) };
    if field != length as u64 | flag {
        return Frame::Broken(0, "its length is impossible");
    }
    let total = LENGTH_BYTES + length + padding;
    if bytes.len() < total {
        return Frame::Short(total);
    }
    match bytes.get(LENGTH_BYTES..LENGTH_BYTES + length).and_then(decode_record) {
        Some((kind, crc, data)) => Frame::Record { kind, crc, data, length: total },
        None => Frame::Broken(total, "it is not a record"),
    }
}

fn decode_record(bytes: &[u8]) -> Option<(i64, u32, &[u8])> {
    let (mut kind, mut crc, mut data) = (0, 0, &[][..]);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Varint(value)) => kind = value.cast_signed(),
            (2, Value::Varint(value)) => crc = u32::try_from(value).ok()?,
            (3, Value::Bytes(value)) => data = value,
            (1..=3, _) => return None,
            _ => {}
        }
    }
    Some((kind, crc, data))
}

/// The greatest type an entry has: a conf change of the second kind.
const ENTRY_TYPE_MAX: u64 = 2;

/// Term and index of an encoded entry, without its data. `None` if it does not parse, or is no entry: the type of a record
/// is under no checksum, and a hard state parses as an entry without data, of a type that such an entry never has.
pub(super) fn entry_head(bytes: &[u8]) -> Option<(u64, u64)> {
    let (mut kind, mut term, mut index, mut empty) = (0, 0, 0, true);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Varint(value)) => kind = value,
            (2, Value::Varint(value)) => term = value,
            (3, Value::Varint(value)) => index = value,
            (4, Value::Bytes(data)) => empty = data.is_empty(),
            (1..=4, _) => return None,
            _ => {}
        }
    }
    let is_entry = term > 0 && index > 0 && kind <= ENTRY_TYPE_MAX && (kind == 0 || !empty);
    is_entry.then_some((term, index))
}

/// A hard state. `None` if it does not parse, or is none: what else parses as one has no term, or more fields.
pub(super) fn hard_state(bytes: &[u8]) -> Option<raftpb::HardState> {
    let mut state = raftpb::HardState::default();
    for field in Fields(bytes) {
        match field? {
            (1, Value::Varint(value)) => state.term = value,
            (2, Value::Varint(value)) => state.vote = value,
            (3, Value::Varint(value)) => state.commit = value,
            _ => return None,
        }
    }
    (state.term > 0).then_some(state)
}

/// The byte of `data` in which a single bit is not as it was written, if that alone explains why the running CRC after it
/// is `computed` and not `expected`: the difference of two CRCs depends on the difference of the data alone, and is
/// followed back from the end.
pub(super) fn byte_of_one_bit(data: &[u8], computed: u32, expected: u32) -> Option<usize> {
    /// Castagnoli's polynomial, reversed: also what a single bit leaves in an empty register.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    const LAST: u32 = 1 << 31;
    let mut difference = computed ^ expected;
    let from_the_end = (0..data.len().saturating_mul(8)).find(|_| {
        let here = difference == POLYNOMIAL;
        difference = if difference & LAST == 0 { difference << 1 } else { (difference ^ POLYNOMIAL) << 1 | 1 };
        here
    })?;
    Some(data.len() - 1 - from_the_end / 8)
}

/// Member and cluster of an encoded metadata record. `None` if it does not parse.
pub(super) fn metadata(bytes: &[u8]) -> Option<(u64, u64)> {
    let (mut member, mut cluster) = (0, 0);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Varint(value)) => member = value,
            (2, Value::Varint(value)) => cluster = value,
            _ => {}
        }
    }
    Some((member, cluster))
}

/// The fields of a protobuf message, in order. Ends after the first that does not parse, given as `None`.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.skip(8)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.skip(4)?,
            _ => return None,
        };
        (tag >> 3 != 0).then_some((tag >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        prost::encoding::decode_varint(&mut self.0).ok()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, length: usize) -> Option<Value<'a>> {
        (self.0.remaining() >= length).then(|| self.0.advance(length))?;
        Some(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_fresh_log_has_the_bytes_and_checksums_of_etcds_fixture() {
        let mut encoder = Encoder::default();
        encoder.crc_record();
        assert_eq!(encoder.buffer, [4, 0, 0, 0, 0, 0, 0, 0x84, 8, 4, 0x10, 0, 0, 0, 0, 0]);
        encoder.record(METADATA, b"somedata", &[]);
        assert_eq!(encoder.crc, 0x741f_6a05);
        encoder.buffer.clear();
        encoder.snapshot(&walpb::Snapshot::default());
        assert_eq!(encoder.crc, 0x1820_6d80);
        assert_eq!(encoder.buffer[LENGTH_BYTES + 10..LENGTH_BYTES + 14], [8, 0, 0x10, 0]);
    }

    #[test]
    fn zeros_are_written_out() {
        let data = |encoder: &Encoder| match decode_frame(&encoder.buffer) {
            Frame::Record { data, .. } => data.to_vec(),
            other => panic!("{other:?}"),
        };
        let mut encoder = Encoder::default();
        encoder.state(&raftpb::HardState { term: 1, vote: 0, commit: 1 });
        assert_eq!(data(&encoder), [8, 1, 0x10, 0, 0x18, 1]);
        encoder.buffer.clear();
        encoder.entry(&raftpb::Entry { r#type: 0, term: 2, index: 2, data: Bytes::new() });
        assert_eq!(data(&encoder), [8, 0, 0x10, 2, 0x18, 2]);
        encoder.buffer.clear();
        let conf_state = raftpb::ConfState { voters: vec![1, 300], learners: vec![2], ..Default::default() };
        encoder.snapshot(&walpb::Snapshot { index: 5, term: 0, conf_state: Some(conf_state) });
        let expected = [8, 5, 0x10, 0, 0x1a, 9, 8, 1, 8, 0xac, 2, 0x10, 2, 0x28, 0];
        assert_eq!(data(&encoder), expected);
    }

    #[test]
    fn length_fields_are_never_trusted() {
        let with_field = |field: u64| field.to_le_bytes();
        assert!(matches!(decode_frame(&with_field(u64::MAX)), Frame::Broken(0, _)));
        assert!(matches!(decode_frame(&with_field(RECORD_BYTES_MAX as u64 + 1)), Frame::Broken(0, _)));
        assert_eq!(decode_frame(&with_field(104)), Frame::Short(112));
        assert!(matches!(decode_frame(&with_field(100)), Frame::Broken(0, _)), "records are padded");
        assert_eq!(decode_frame(&with_field(0)), Frame::End);
        assert_eq!(decode_frame(&[1, 2]), Frame::Short(8));
        assert_eq!(decode_frame(&[]), Frame::End);
    }

    fn entries() -> impl Strategy<Value = raftpb::Entry> {
        (0..2, 1..=u64::MAX, 1..=u64::MAX, prop::collection::vec(any::<u8>(), 1..300))
            .prop_map(|(r#type, term, index, data)| raftpb::Entry { r#type, term, index, data: data.into() })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(entry in entries(), crc in any::<u32>()) {
            let mut encoder = Encoder { crc, ..Encoder::default() };
            encoder.entry(&entry);
            prop_assert_eq!(encoder.buffer.len() % 8, 0);
            match decode_frame(&encoder.buffer) {
                Frame::Record { kind, crc: after, data, length } => {
                    prop_assert_eq!((kind, length), (i64::from(ENTRY), encoder.buffer.len()));
                    prop_assert_eq!(after, crc32c::crc32c_append(crc, data));
                    prop_assert_eq!(raftpb::Entry::decode(data).unwrap(), entry.clone());
                    prop_assert_eq!(entry_head(data), Some((entry.term, entry.index)));
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            match decode_frame(&bytes) {
                Frame::Record { length, .. } => prop_assert!(length <= bytes.len()),
                Frame::Short(length) => prop_assert!(length > bytes.len()),
                Frame::End | Frame::Broken(..) => {}
            }
        }

        #[test]
        fn record_bodies_are_judged_as_prost_does(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let (Some((kind, crc, data)), Ok(record)) = (decode_record(&bytes), walpb::Record::decode(bytes.as_slice())) {
                prop_assert_eq!((kind, crc, data), (record.r#type, record.crc, record.data.as_ref()));
            }
        }
    }
}
