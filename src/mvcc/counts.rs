//! How many keys live in each chunk of neighbouring keys.
//!
//! A count over an interval adds the chunks inside it and looks at the keys of at most two chunks at its ends. The chunks
//! are rows of the `Count` table, written together with the keys they count; this is the same list in memory, one entry
//! for some hundreds of keys, shared between the writer and every view: copying it copies one pointer per block.
//!
//! Invariants: the first chunk begins at the empty key, so that every key has a chunk; no other chunk is empty; the
//! chunks' counts add up to the number of rows in the `Live` table.

use std::{cmp::Ordering, sync::Arc};

use bytes::Bytes;

use crate::{
    codec::varint,
    storage::{Batch, Read, StorageError, Table},
};

/// Keys of a chunk before it is split. Half of that is looked at, on average, at either end of a count.
const CHUNK_KEYS_MAX: u32 = if cfg!(test) { 4 } else { 256 };
/// Neighbours with fewer keys than that together become one chunk.
const CHUNK_KEYS_MIN: u32 = if cfg!(test) { 2 } else { 32 };
/// Chunks of a block before it is split.
const BLOCK_CHUNKS_MAX: usize = if cfg!(test) { 4 } else { 512 };

/// All chunks in key order.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    blocks: Vec<Arc<Block>>,
    total: u64,
}

/// Neighbouring chunks.
#[derive(Clone, Debug, Default)]
struct Block {
    /// Where each chunk begins. Changes only when chunks come and go.
    starts: Arc<Vec<Bytes>>,
    keys: Vec<u32>,
    sum: u64,
}

/// Position of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    block: usize,
    chunk: usize,
}

/// A chunk that has grown too large: its keys have to be looked at to split it.
#[derive(Debug)]
pub(super) struct Overfull {
    place: Place,
    /// First possible key of the chunk.
    pub(super) start: Bytes,
    /// First possible key of the next chunk; nothing behind the last one.
    pub(super) end: Option<Bytes>,
}

/// An interval as counts see it: whole chunks, and the keys to be looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Keys in the chunks that lie inside.
    pub(super) whole: u64,
    /// Parts of chunks, as lower bound (included) and upper bound (excluded; nothing: no bound).
    pub(super) parts: Vec<(Bytes, Option<Bytes>)>,
}

impl Counts {
    /// Reads the chunks from the `Count` table.
    pub(super) fn load(read: &impl Read) -> Result<Self, StorageError> {
        let mut chunks = vec![(Bytes::new(), 0)];
        for row in read.rows(Table::Count) {
            let (start, value) = row?;
            let keys = decode(&start, &value)?;
            match chunks.first_mut() {
                Some(first) if start.is_empty() => first.1 = keys,
                _ => chunks.push((start, keys)),
            }
        }
        let blocks = chunks.chunks(BLOCK_CHUNKS_MAX / 2).map(|part| Arc::new(part.iter().cloned().collect()));
        Ok(Self { blocks: blocks.collect(), total: chunks.iter().map(|(_, keys)| u64::from(*keys)).sum() })
    }

    /// Number of living keys.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Counts one more living key. A chunk that is handed back must be split.
    pub(super) fn add<R: Read>(&mut self, key: &[u8], batch: &mut Batch<R>) -> Option<Overfull> {
        let place = self.place(key);
        let keys = self.change(place, |keys| keys.saturating_add(1));
        self.total += 1;
        let (start, keys) = keys?;
        store(&start, keys, batch);
        (keys > CHUNK_KEYS_MAX).then(|| Overfull { place, end: self.start(self.after(place)), start })
    }

    /// Counts one living key less.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if there was none in its chunk.
    pub(super) fn remove<R: Read>(&mut self, key: &[u8], batch: &mut Batch<R>) -> Result<(), StorageError> {
        let place = self.place(key);
        let counted = self.keys(place) > 0;
        let Some((start, keys)) = self.change(place, |keys| keys.saturating_sub(1)).filter(|_| counted) else {
            return Err(StorageError::corrupt(Table::Count, key, "the chunk of a living key counts no keys"));
        };
        self.total -= 1;
        store(&start, keys, batch);
        self.join_with_previous(place, batch);
        Ok(())
    }

    /// Splits a chunk at `key`, below which `below` of its keys lie.
    pub(super) fn split<R: Read>(&mut self, chunk: &Overfull, key: Bytes, below: u32, batch: &mut Batch<R>) {
        let place = chunk.place;
        let above = self.keys(place).saturating_sub(below);
        self.change(place, |_| below);
        store(&chunk.start, below, batch);
        store(&key, above, batch);
        let Some(block) = self.blocks.get_mut(place.block).map(Arc::make_mut) else { return };
        block.insert(place.chunk + 1, key, above);
        if block.keys.len() > BLOCK_CHUNKS_MAX {
            let upper = block.split_off(BLOCK_CHUNKS_MAX / 2);
            self.blocks.insert(place.block + 1, Arc::new(upper));
        }
    }

    /// What a count from `lower` (included) to `upper` (excluded; nothing: no bound) is made of.
    pub(super) fn span(&self, lower: &[u8], upper: Option<&[u8]>) -> Span {
        // No key is empty, so that the smallest key there can be is as good as no bound.
        let lower = if lower == [0] { &[] } else { lower };
        let first = self.place(lower);
        let last = upper.map(|upper| self.place(upper));
        let part = |from: &[u8], to: Option<Bytes>| (Bytes::copy_from_slice(from), to);
        let upper_end = upper.map(Bytes::copy_from_slice);
        if Some(first) == last {
            return Span { whole: 0, parts: vec![part(lower, upper_end)] };
        }
        let mut parts = Vec::new();
        let mut from = first;
        if self.start(first).is_none_or(|start| start != lower) {
            from = self.after(first);
            parts.push(part(lower, self.start(from)));
        }
        let last_start = last.and_then(|last| self.start(last)).filter(|start| Some(start.as_ref()) != upper);
        parts.extend(last_start.map(|start| (start, upper_end)));
        Span { whole: self.sum_before(last).saturating_sub(self.sum_before(Some(from))), parts }
    }

    /// All chunks: where they begin, and their keys.
    pub(super) fn chunks(&self) -> Vec<(Bytes, u32)> {
        let chunks = self.blocks.iter().flat_map(|block| block.starts.iter().cloned().zip(block.keys.iter().copied()));
        chunks.collect()
    }

    /// Where the chunk of `key` ends; nothing for the last one.
    pub(super) fn chunk_end(&self, key: &[u8]) -> Option<&Bytes> {
        let next = self.after(self.place(key));
        self.blocks.get(next.block)?.starts.get(next.chunk)
    }

    /// Keys in all chunks before `place`; all keys if there is no such place.
    fn sum_before(&self, place: Option<Place>) -> u64 {
        let Some(place) = place else { return self.total };
        let blocks: u64 = self.blocks.iter().take(place.block).map(|block| block.sum).sum();
        let block = self.blocks.get(place.block);
        let chunks = block.map_or(0, |block| block.keys.iter().take(place.chunk).copied().map(u64::from).sum());
        blocks + chunks
    }

    /// The chunk that `key` belongs to.
    fn place(&self, key: &[u8]) -> Place {
        let not_above = |start: &Bytes| start.as_ref().cmp(key) != Ordering::Greater;
        let begins_below = |block: &Arc<Block>| block.starts.first().is_some_and(not_above);
        let block = self.blocks.partition_point(begins_below).saturating_sub(1);
        let chunks = self.blocks.get(block).map_or(0, |block| block.starts.partition_point(not_above));
        Place { block, chunk: chunks.saturating_sub(1) }
    }

    fn after(&self, place: Place) -> Place {
        match self.blocks.get(place.block) {
            Some(block) if place.chunk + 1 < block.keys.len() => Place { chunk: place.chunk + 1, ..place },
            _ => Place { block: place.block + 1, chunk: 0 },
        }
    }

    fn before(&self, place: Place) -> Option<Place> {
        if let Some(chunk) = place.chunk.checked_sub(1) {
            return Some(Place { chunk, ..place });
        }
        let block = place.block.checked_sub(1)?;
        Some(Place { block, chunk: self.blocks.get(block)?.keys.len().checked_sub(1)? })
    }

    fn start(&self, place: Place) -> Option<Bytes> {
        self.blocks.get(place.block)?.starts.get(place.chunk).cloned()
    }

    fn keys(&self, place: Place) -> u32 {
        self.blocks.get(place.block).and_then(|block| block.keys.get(place.chunk)).copied().unwrap_or_default()
    }

    /// Changes the count of a chunk; returns where it begins and its new count.
    fn change(&mut self, place: Place, change: impl FnOnce(u32) -> u32) -> Option<(Bytes, u32)> {
        let block = Arc::make_mut(self.blocks.get_mut(place.block)?);
        let keys = block.keys.get_mut(place.chunk)?;
        let before = *keys;
        *keys = change(before);
        block.sum = (block.sum + u64::from(*keys)).saturating_sub(u64::from(before));
        Some((block.starts.get(place.chunk)?.clone(), *keys))
    }

    /// Keeps the number of chunks in proportion when keys go.
    fn join_with_previous<R: Read>(&mut self, place: Place, batch: &mut Batch<R>) {
        let Some(previous) = self.before(place) else { return };
        let together = self.keys(previous).saturating_add(self.keys(place));
        if self.keys(place) > 0 && together >= CHUNK_KEYS_MIN {
            return;
        }
        if let Some((start, _)) = self.change(previous, |_| together) {
            store(&start, together, batch);
        }
        self.drop_chunk(place, batch);
    }

    fn drop_chunk<R: Read>(&mut self, place: Place, batch: &mut Batch<R>) {
        let Some(block) = self.blocks.get_mut(place.block).map(Arc::make_mut) else { return };
        if let Some(start) = block.remove(place.chunk) {
            batch.delete_row(Table::Count, &start);
        }
        if block.keys.is_empty() {
            self.blocks.remove(place.block);
        }
    }
}

impl Block {
    fn insert(&mut self, at: usize, start: Bytes, keys: u32) {
        Arc::make_mut(&mut self.starts).insert(at, start);
        self.keys.insert(at, keys);
        self.sum += u64::from(keys);
    }

    fn remove(&mut self, at: usize) -> Option<Bytes> {
        if at >= self.keys.len() {
            return None;
        }
        let keys = self.keys.remove(at);
        self.sum = self.sum.saturating_sub(u64::from(keys));
        Some(Arc::make_mut(&mut self.starts).remove(at))
    }

    fn split_off(&mut self, at: usize) -> Self {
        let starts = Arc::make_mut(&mut self.starts).split_off(at);
        let upper: Self = starts.into_iter().zip(self.keys.split_off(at)).collect();
        self.sum = self.sum.saturating_sub(upper.sum);
        upper
    }
}

impl FromIterator<(Bytes, u32)> for Block {
    fn from_iter<I: IntoIterator<Item = (Bytes, u32)>>(chunks: I) -> Self {
        let (starts, keys): (Vec<_>, Vec<_>) = chunks.into_iter().unzip();
        let sum = keys.iter().copied().map(u64::from).sum();
        Self { starts: Arc::new(starts), keys, sum }
    }
}

/// Makes the rows of all chunks from keys that come in order.
#[derive(Debug, Default)]
pub(super) struct Chunker {
    start: Bytes,
    keys: u32,
}

impl Chunker {
    /// Keys of a chunk: neither the next one nor the loss of some changes the number of chunks.
    const KEYS: u32 = CHUNK_KEYS_MAX / 4 * 3;

    /// Counts the next key. Returns the row of the chunk that it ends, if it does.
    pub(super) fn add(&mut self, key: &Bytes) -> Option<(Bytes, Bytes)> {
        let full = if self.keys < Self::KEYS { None } else { std::mem::take(self).end() };
        if full.is_some() {
            self.start = key.clone();
        }
        self.keys += 1;
        full
    }

    /// The row of the last chunk, if there is one.
    pub(super) fn end(self) -> Option<(Bytes, Bytes)> {
        (self.keys > 0).then(|| (self.start, encode(self.keys)))
    }
}

/// Writes the row of the chunk that begins at `start`.
fn store<R: Read>(start: &[u8], keys: u32, batch: &mut Batch<R>) {
    if keys == 0 {
        return batch.delete_row(Table::Count, start);
    }
    batch.put_row(Table::Count, start, encode(keys));
}

fn encode(keys: u32) -> Bytes {
    let mut value = Vec::with_capacity(varint::len(keys.into()));
    varint::put(keys.into(), &mut value);
    value.into()
}

fn decode(start: &[u8], value: &Bytes) -> Result<u32, StorageError> {
    let mut rest = value.as_ref();
    let keys = varint::take(&mut rest).filter(|_| rest.is_empty()).and_then(|keys| u32::try_from(keys).ok());
    keys.ok_or_else(|| StorageError::corrupt(Table::Count, start, "the count does not decode"))
}
