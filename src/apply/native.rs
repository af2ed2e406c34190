//! The state as the rows of our own tables, for members of our own kind: read from one engine, loaded into another.
//!
//! ```text
//! magic, block…         block: length u32 LE of what follows the checksum, CRC-32C u32 LE, kind, payload
//!   head    cluster, index, term, bytes on disk (u64 LE each), raft's configuration
//!   rows    for each row: lengths of key and value (varints), key, value; the keys ascend through all blocks
//!   end     number of rows, bytes of rows (u64 LE each)
//! ```
//!
//! The checksum of a block goes on from the one of the block before, so that a block that is missing, repeated or out of
//! its place shows as well as a damaged one. A stream without its end is not taken.

use std::{io, ops::Bound, sync::Arc};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use thiserror::Error;

use super::Published;
use crate::{
    codec::{crc, varint},
    pb::raftpb::ConfState,
    storage::{KEY_BYTES_MAX, Read, Row, Scan, StorageError, VALUE_BYTES_MAX},
    types::{ClusterId, LogIndex, Term},
};

/// What a stream begins with: the form and its version.
const MAGIC: &[u8; 16] = b"quorate rows  1\n";
/// A block of rows is closed when it has grown to here; a longer row has a block of its own.
pub const BLOCK_BYTES: usize = 256 << 10;
/// The longest payload that is read: a row of the longest key and value with their lengths.
const PAYLOAD_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + 2 * varint::BYTES_MAX + BLOCK_BYTES;
/// Length and checksum.
const PREFIX_BYTES: usize = 8;
/// The numbers of a head.
const HEAD_BYTES: usize = 32;
/// The numbers of an end.
const END_BYTES: usize = 16;

const HEAD: u8 = 1;
const ROWS: u8 = 2;
const END: u8 = 3;

/// Which state a stream carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The last entry that it includes.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// About how many bytes it will take on a disk.
    pub disk_bytes: u64,
    /// Raft's configuration there.
    pub configuration: ConfState,
}

/// Why a stream was not taken.
#[derive(Debug, Error)]
pub enum NativeError {
    /// It broke off, or its sender did.
    #[error("receiving the state")]
    Source(#[from] io::Error),
    /// It is not what was sent, or nothing of ours.
    #[error("the state was damaged on its way: {0}")]
    Damaged(&'static str),
}

/// The blocks of a stream, in order.
pub struct Blocks<'a> {
    rows: Scan<'a>,
    head: Option<Head>,
    crc: u32,
    count: u64,
    bytes: u64,
    ended: bool,
}

/// Writes `published`, which takes about `disk_bytes` on the disk, as a stream. Nothing is read before it is asked for.
pub fn write<S: Read>(published: &Published<S>, disk_bytes: u64) -> Blocks<'_> {
    let head = Head {
        cluster: published.cluster.id(),
        index: published.applied,
        term: published.term,
        disk_bytes,
        configuration: published.cluster.configuration().clone(),
    };
    let rows = published.view.snapshot().scan(Bound::Unbounded, Bound::Unbounded);
    Blocks { rows, head: Some(head), crc: 0, count: 0, bytes: 0, ended: false }
}

impl Blocks<'_> {
    fn block(&mut self, kind: u8, payload: &[u8]) -> Bytes {
        self.crc = crc::append(crc::append(self.crc, &[kind]), payload);
        let mut block = BytesMut::with_capacity(PREFIX_BYTES + 1 + payload.len());
        // A payload is far below 4 GiB: no row is longer than an engine takes.
        block.put_u32_le(u32::try_from(payload.len() + 1).unwrap_or(u32::MAX));
        block.put_u32_le(self.crc);
        block.put_u8(kind);
        block.put_slice(payload);
        block.freeze()
    }

    fn first(&mut self, head: &Head) -> Bytes {
        let mut payload = Vec::with_capacity(HEAD_BYTES);
        for number in [head.cluster.0, head.index.0, head.term.0, head.disk_bytes] {
            payload.put_u64_le(number);
        }
        payload.extend(head.configuration.encode_to_vec());
        [&MAGIC[..], &self.block(HEAD, &payload)].concat().into()
    }

    /// The next rows; nothing once there are no more.
    fn some_rows(&mut self) -> Result<Option<Bytes>, StorageError> {
        let mut payload = Vec::new();
        while payload.len() < BLOCK_BYTES {
            let Some(row) = self.rows.next() else { break };
            let (key, value) = row?;
            varint::put(key.len() as u64, &mut payload);
            varint::put(value.len() as u64, &mut payload);
            payload.extend_from_slice(&key);
            payload.extend_from_slice(&value);
            self.count += 1;
            self.bytes += (key.len() + value.len()) as u64;
        }
        Ok((!payload.is_empty()).then(|| self.block(ROWS, &payload)))
    }

    fn last(&mut self) -> Bytes {
        self.ended = true;
        let mut payload = Vec::with_capacity(END_BYTES);
        payload.put_u64_le(self.count);
        payload.put_u64_le(self.bytes);
        self.block(END, &payload)
    }
}

impl Iterator for Blocks<'_> {
    type Item = Result<Bytes, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if let Some(head) = self.head.take() {
            return Some(Ok(self.first(&head)));
        }
        match self.some_rows() {
            Ok(Some(block)) => Some(Ok(block)),
            Ok(None) => Some(Ok(self.last())),
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

/// The rows of a stream, in order, for [`crate::storage::Engine::ingest`]. After them comes an error unless the stream
/// has its end, and nothing behind it.
#[derive(Debug)]
pub struct Rows<I> {
    source: Source<I>,
    block: Bytes,
    count: u64,
    bytes: u64,
    ended: bool,
}

/// The stream as it comes, cut into blocks.
#[derive(Debug)]
struct Source<I> {
    pieces: I,
    buffer: BytesMut,
    crc: u32,
}

/// Reads a stream up to its rows. Memory is taken for what has come, not for what was announced.
///
/// # Errors
/// [`NativeError`].
pub fn read<I: Iterator<Item = io::Result<Bytes>>>(pieces: I) -> Result<(Head, Rows<I>), NativeError> {
    let mut source = Source { pieces, buffer: BytesMut::new(), crc: 0 };
    if source.take(MAGIC.len())?[..] != MAGIC[..] {
        return Err(NativeError::Damaged("it does not begin as a state of ours, or one of another version"));
    }
    let head = match source.block()? {
        (HEAD, payload) => head(payload)?,
        _ => return Err(NativeError::Damaged("it has no head")),
    };
    Ok((head, Rows { source, block: Bytes::new(), count: 0, bytes: 0, ended: false }))
}

fn head(mut payload: Bytes) -> Result<Head, NativeError> {
    if payload.len() < HEAD_BYTES {
        return Err(NativeError::Damaged("its head is too short"));
    }
    Ok(Head {
        cluster: ClusterId(payload.get_u64_le()),
        index: LogIndex(payload.get_u64_le()),
        term: Term(payload.get_u64_le()),
        disk_bytes: payload.get_u64_le(),
        configuration: ConfState::decode(payload).map_err(|_| NativeError::Damaged("its head does not parse"))?,
    })
}

impl<I: Iterator<Item = io::Result<Bytes>>> Source<I> {
    /// Exactly so many bytes.
    fn take(&mut self, bytes: usize) -> Result<Bytes, NativeError> {
        while self.buffer.len() < bytes {
            let piece = self.pieces.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
            self.buffer.extend_from_slice(&piece);
        }
        Ok(self.buffer.split_to(bytes).freeze())
    }

    fn block(&mut self) -> Result<(u8, Bytes), NativeError> {
        let mut prefix = self.take(PREFIX_BYTES)?;
        let (length, expected) = (prefix.get_u32_le() as usize, prefix.get_u32_le());
        if length == 0 || length > PAYLOAD_BYTES_MAX {
            return Err(NativeError::Damaged("a block has no possible length"));
        }
        let mut block = self.take(length)?;
        self.crc = crc::append(self.crc, &block);
        if self.crc != expected {
            return Err(NativeError::Damaged("the checksum of a block does not match"));
        }
        Ok((block.get_u8(), block))
    }

    /// Nothing follows.
    fn end(&mut self) -> Result<(), NativeError> {
        for piece in self.pieces.by_ref() {
            self.buffer.extend_from_slice(&piece?);
            if !self.buffer.is_empty() {
                break;
            }
        }
        if self.buffer.is_empty() { Ok(()) } else { Err(NativeError::Damaged("something follows its end")) }
    }
}

impl<I: Iterator<Item = io::Result<Bytes>>> Rows<I> {
    fn next_row(&mut self) -> Result<Option<Row>, NativeError> {
        while self.block.is_empty() {
            match self.source.block()? {
                (ROWS, payload) => self.block = payload,
                (END, payload) => return self.finish(payload).map(|()| None),
                _ => return Err(NativeError::Damaged("a block is of no known kind")),
            }
        }
        let row = self.take_row().ok_or(NativeError::Damaged("a row does not fit its block"))?;
        self.count += 1;
        self.bytes += (row.0.len() + row.1.len()) as u64;
        Ok(Some(row))
    }

    fn take_row(&mut self) -> Option<Row> {
        let mut rest = &*self.block;
        let key = usize::try_from(varint::take(&mut rest)?).ok()?;
        let value = usize::try_from(varint::take(&mut rest)?).ok()?;
        let lengths = self.block.len() - rest.len();
        if rest.len() < key.checked_add(value)? {
            return None;
        }
        self.block.advance(lengths);
        Some((self.block.split_to(key), self.block.split_to(value)))
    }

    fn finish(&mut self, mut payload: Bytes) -> Result<(), NativeError> {
        let counted = (self.count, self.bytes);
        if payload.len() != END_BYTES || (payload.get_u64_le(), payload.get_u64_le()) != counted {
            return Err(NativeError::Damaged("it has not as many rows as it should"));
        }
        self.source.end()
    }
}

impl<I: Iterator<Item = io::Result<Bytes>>> Iterator for Rows<I> {
    type Item = Result<Row, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.next_row();
        self.ended = !matches!(row, Ok(Some(_)));
        row.map_err(|cause| StorageError::Source(Arc::new(cause))).transpose()
    }
}

impl std::fmt::Debug for Blocks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks").field("count", &self.count).field("ended", &self.ended).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        apply::{Applier, ApplyOptions},
        membership::Version,
        pb::{etcdserverpb as pb, raftpb},
        storage::{Engine as _, MemoryEngine},
        types::MemberId,
    };

    fn options() -> ApplyOptions {
        ApplyOptions::new(MemberId(1), Version::minor(3, 7))
    }

    /// A state with these values under keys of their own, each written twice.
    fn state(values: &[Vec<u8>]) -> Applier<MemoryEngine> {
        let mut applier = Applier::open(MemoryEngine::new(), options()).unwrap();
        let configuration = ConfState { voters: vec![1, 2], learners: vec![3], ..ConfState::default() };
        applier.establish(ClusterId(7), &configuration).unwrap();
        for (index, value) in (1..).zip(values.iter().chain(values)) {
            let key = format!("key-{}", index % values.len().max(1) as u64).into();
            let put = pb::PutRequest { key, value: value.clone().into(), ..Default::default() };
            let header = Some(pb::RequestHeader { id: index, ..Default::default() });
            let request = pb::InternalRaftRequest { header, put: Some(put), ..Default::default() };
            let data = request.encode_to_vec().into();
            applier.apply(&[raftpb::Entry { index, term: 4, data, ..Default::default() }]).unwrap();
        }
        applier
    }

    fn stream(applier: &Applier<MemoryEngine>) -> Vec<u8> {
        write(&applier.published(), 99).map(|block| block.unwrap()).collect::<Vec<_>>().concat()
    }

    /// What a receiver makes of a stream that comes in pieces of this many bytes.
    fn load(stream: &[u8], piece_bytes: usize) -> Result<(Head, MemoryEngine), String> {
        let pieces = stream.chunks(piece_bytes.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece)));
        let (head, mut rows) = read(pieces).map_err(|error| error.to_string())?;
        let engine = MemoryEngine::new();
        engine.ingest(&mut rows).map_err(|error| error.with_causes())?;
        Ok((head, engine))
    }

    fn rows(engine: &MemoryEngine) -> Vec<Row> {
        engine.snapshot().scan(Bound::Unbounded, Bound::Unbounded).collect::<Result<_, _>>().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn state_arrives_as_it_is(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
            long in prop_oneof![Just(0_usize), Just(3 * BLOCK_BYTES)], piece_bytes in 1..400_000_usize,
        ) {
            let mut values = values;
            values.push(vec![7; long]);
            let applier = state(&values);
            let (head, engine) = load(&stream(&applier), piece_bytes).unwrap();
            let published = applier.published();
            prop_assert_eq!((head.cluster, head.index, head.term), (ClusterId(7), published.applied, Term(4)));
            prop_assert_eq!((head.disk_bytes, &head.configuration), (99, published.cluster.configuration()));
            prop_assert_eq!(rows(&engine), rows(applier.engine()));
            let copy = Applier::open(engine, options()).unwrap().published();
            prop_assert_eq!(copy.view.hash_kv(0).unwrap(), published.view.hash_kv(0).unwrap());
        }

        #[test]
        fn any_damage_is_refused(at in any::<prop::sample::Index>(), flip in 1..=255_u8, kind in 0..4) {
            let whole = stream(&state(&[vec![1; 50], vec![2; BLOCK_BYTES], vec![3; 50]]));
            let at = at.index(whole.len());
            let mut damaged = whole.clone();
            match kind {
                0 => damaged[at] ^= flip,
                1 => damaged.truncate(at),
                2 => damaged.insert(at, flip),
                _ => drop(damaged.remove(at)),
            }
            prop_assume!(damaged != whole);
            // A head is believed before the rows, and no more than its checksum allows.
            prop_assert!(load(&damaged, 10_000).is_err());
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(load(&[&MAGIC[..], &bytes].concat(), 50).is_err());
        }
    }

    /// Each block is whole, so that only their order can tell.
    #[test]
    fn blocks_are_taken_in_their_order_and_once() {
        let applier = state(&[vec![1; BLOCK_BYTES], vec![2; BLOCK_BYTES], vec![3; BLOCK_BYTES]]);
        let blocks: Vec<Bytes> = write(&applier.published(), 0).map(|block| block.unwrap()).collect();
        assert!(blocks.len() > 4);
        let load = |order: &[usize]| {
            load(&order.iter().map(|at| blocks[*at].clone()).collect::<Vec<_>>().concat(), 1 << 20).is_ok()
        };
        let whole: Vec<usize> = (0..blocks.len()).collect();
        assert!(load(&whole));
        for at in 1..blocks.len() - 1 {
            let mut left_out = whole.clone();
            left_out.remove(at);
            let mut repeated = whole.clone();
            repeated.insert(at, at);
            let mut swapped = whole.clone();
            swapped.swap(at, at + 1);
            assert!(!load(&left_out) && !load(&repeated) && !load(&swapped), "block {at}");
        }
    }

    #[test]
    fn sender_that_fails_is_noticed() {
        let whole = stream(&state(&[vec![1; 50]]));
        let pieces = [Ok(Bytes::from(whole)), Err(io::Error::from(io::ErrorKind::TimedOut))];
        let (_, mut rows) = read(pieces.into_iter()).unwrap();
        assert!(MemoryEngine::new().ingest(&mut rows).is_err());
    }
}
