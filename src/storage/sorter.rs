//! Sorting more rows than memory holds, so that they can be loaded in bulk.
//!
//! Rows are collected up to a limit, sorted, and written to a file as a run; reading merges the runs. Rows that never
//! reached the limit never reach the disk. The file is scratch: it is removed when the last reader goes, and a start
//! removes what a crash has left ([`clear`]).

use std::{cmp::Reverse, collections::BinaryHeap, io, sync::Arc};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Row, StorageError};
use crate::{
    codec::crc,
    disk::{Directory, DiskFile},
};

/// Bytes of rows that are sorted at once, and the memory a sorter takes until it is read.
pub const SORT_BYTES_DEFAULT: usize = 64 << 20;
/// Memory for reading all runs together.
const MERGE_BYTES: usize = 16 << 20;
/// Bytes read from one run at a time: at least so many, when there are thousands of runs.
const READ_BYTES_MIN: usize = 4 << 10;
/// Bytes read from one run at a time: no more than that.
const READ_BYTES_MAX: usize = 1 << 20;
/// Bytes written at a time.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes before a row in a run: the lengths of key and value.
const LENGTHS_BYTES: usize = 8;
/// What the names of these files end with.
const SUFFIX: &str = ".sort";

/// Removes the files that an interrupted sort has left in `directory`.
///
/// # Errors
/// On failure to list or remove.
pub fn clear<D: Directory>(directory: &D) -> io::Result<()> {
    let names = directory.names()?;
    names.iter().filter(|name| name.ends_with(SUFFIX)).try_for_each(|name| directory.remove(name))
}

/// Collects rows in any order.
#[derive(Debug)]
pub struct Sorter<D: Directory> {
    directory: D,
    name: String,
    bytes_max: usize,
    rows: Collected,
    spill: Option<Spill<D>>,
}

/// Rows, ready to be read in ascending order of their keys, as often as wanted.
#[derive(Debug)]
pub struct Sorted<D: Directory> {
    spill: Option<Arc<Scratch<D>>>,
    runs: Vec<Run>,
    /// The rows that were not written.
    rest: Arc<Collected>,
}

/// One reading of sorted rows.
pub struct Merge<D: Directory> {
    sources: Vec<Source<D>>,
    /// The next row of each source.
    heads: BinaryHeap<Reverse<(Bytes, usize, Bytes)>>,
    failed: Option<StorageError>,
}

/// Rows in memory, in one piece.
#[derive(Debug, Default)]
struct Collected {
    bytes: Vec<u8>,
    /// Where each row begins.
    starts: Vec<usize>,
}

/// The file of a sorter that has outgrown its memory.
#[derive(Debug)]
struct Spill<D: Directory> {
    scratch: Scratch<D>,
    runs: Vec<Run>,
    end: u64,
}

/// A file that is removed when nobody reads it any more.
struct Scratch<D: Directory> {
    directory: D,
    name: String,
    file: D::File,
}

/// Where sorted rows lie in the file.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    end: u64,
    /// CRC-32C of all of it.
    crc: u32,
}

impl<D: Directory> Sorter<D> {
    /// A sorter whose file, if it needs one, is called `name` in `directory`. `bytes_max` bounds its memory; a row that
    /// is longer is taken all the same.
    pub fn new(directory: D, name: &str, bytes_max: usize) -> Self {
        let name = format!("{name}{SUFFIX}");
        Self { directory, name, bytes_max, rows: Collected::default(), spill: None }
    }

    /// Takes a row whose key is the parts of `key`, and its value those of `value`, one behind the other.
    ///
    /// # Errors
    /// On failure to write.
    pub fn push(&mut self, key: &[&[u8]], value: &[&[u8]]) -> Result<(), StorageError> {
        self.rows.push(key, value)?;
        if self.rows.memory() < self.bytes_max {
            return Ok(());
        }
        let written = self.write_run();
        written.map_err(|cause| self.failed("writing rows to be sorted", cause))
    }

    /// Ends the collection.
    ///
    /// # Errors
    /// On failure to write.
    pub fn finish(mut self) -> Result<Sorted<D>, StorageError> {
        self.rows.sort();
        let (spill, runs) = match self.spill {
            Some(Spill { scratch, runs, .. }) => (Some(Arc::new(scratch)), runs),
            None => (None, Vec::new()),
        };
        Ok(Sorted { spill, runs, rest: Arc::new(self.rows) })
    }

    fn failed(&self, action: &'static str, cause: io::Error) -> StorageError {
        StorageError::engine(&self.directory.path(&self.name), action, cause)
    }

    fn write_run(&mut self) -> io::Result<()> {
        if self.spill.is_none() {
            self.spill = Some(Spill::create(&self.directory, &self.name)?);
        }
        self.rows.sort();
        let Some(spill) = &mut self.spill else { return Ok(()) };
        spill.write(&self.rows)?;
        self.rows.clear();
        Ok(())
    }
}

impl<D: Directory> Sorted<D> {
    /// Reads all rows in ascending order.
    pub fn merge(&self) -> Merge<D> {
        let read_bytes = (MERGE_BYTES / self.runs.len().max(1)).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        let stored = self.spill.iter().flat_map(|scratch| {
            self.runs.iter().map(|run| Source::Stored(RunReader::new(Arc::clone(scratch), *run, read_bytes)))
        });
        let kept = Source::Kept { rows: Arc::clone(&self.rest), next: 0 };
        let sources: Vec<_> = stored.chain([kept]).collect();
        let mut merge = Merge { heads: BinaryHeap::with_capacity(sources.len()), sources, failed: None };
        (0..merge.sources.len()).for_each(|number| merge.advance(number));
        merge
    }
}

impl<D: Directory> Merge<D> {
    /// A reading of no rows.
    pub fn empty() -> Self {
        Self { sources: Vec::new(), heads: BinaryHeap::new(), failed: None }
    }

    /// Takes the next row of a source.
    fn advance(&mut self, number: usize) {
        match self.sources.get_mut(number).and_then(Source::next) {
            Some(Ok((key, value))) => self.heads.push(Reverse((key, number, value))),
            Some(Err(error)) => self.failed = Some(error),
            None => {}
        }
    }
}

impl<D: Directory> Iterator for Merge<D> {
    type Item = Result<Row, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.heads.clear();
            return Some(Err(error));
        }
        let Reverse((key, number, value)) = self.heads.pop()?;
        self.advance(number);
        Some(Ok((key, value)))
    }
}

impl<D: Directory> std::fmt::Debug for Merge<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merge").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

impl Collected {
    fn push(&mut self, key: &[&[u8]], value: &[&[u8]]) -> Result<(), StorageError> {
        let len = |parts: &[&[u8]]| parts.iter().map(|part| part.len()).sum::<usize>();
        let length = |bytes| u32::try_from(bytes).map_err(|_| StorageError::ValueTooLong { bytes });
        self.starts.push(self.bytes.len());
        self.bytes.put_u32_le(length(len(key))?);
        self.bytes.put_u32_le(length(len(value))?);
        for part in key.iter().chain(value) {
            self.bytes.extend_from_slice(part);
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        self.bytes.len() + self.starts.len() * size_of::<usize>()
    }

    fn sort(&mut self) {
        let Self { bytes, starts } = self;
        starts.sort_unstable_by(|a, b| key_at(bytes, *a).cmp(key_at(bytes, *b)));
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    /// The row that begins at `start`, lengths included.
    fn row(&self, start: usize) -> &[u8] {
        let rest = self.bytes.get(start..).unwrap_or_default();
        let len = lengths(rest).map_or(0, |(key, value)| LENGTHS_BYTES + key + value);
        rest.get(..len).unwrap_or_default()
    }
}

fn key_at(bytes: &[u8], start: usize) -> &[u8] {
    let rest = bytes.get(start..).unwrap_or_default();
    let key_len = lengths(rest).map_or(0, |(key, _)| key);
    rest.get(LENGTHS_BYTES..LENGTHS_BYTES + key_len).unwrap_or_default()
}

/// Lengths of key and value.
fn lengths(mut bytes: &[u8]) -> Option<(usize, usize)> {
    (bytes.len() >= LENGTHS_BYTES).then(|| (bytes.get_u32_le() as usize, bytes.get_u32_le() as usize))
}

impl<D: Directory> Spill<D> {
    fn create(directory: &D, name: &str) -> io::Result<Self> {
        let file = directory.create(name)?;
        let scratch = Scratch { directory: directory.clone(), name: name.to_owned(), file };
        Ok(Self { scratch, runs: Vec::new(), end: 0 })
    }

    fn write(&mut self, rows: &Collected) -> io::Result<()> {
        let (start, mut crc) = (self.end, 0);
        let mut buffer = Vec::with_capacity(WRITE_BYTES);
        for at in &rows.starts {
            buffer.extend_from_slice(rows.row(*at));
            if buffer.len() >= WRITE_BYTES {
                crc = self.append(&mut buffer, crc)?;
            }
        }
        crc = self.append(&mut buffer, crc)?;
        self.runs.push(Run { start, end: self.end, crc });
        Ok(())
    }

    /// Writes the buffer out and continues the checksum.
    fn append(&mut self, buffer: &mut Vec<u8>, crc: u32) -> io::Result<u32> {
        self.scratch.file.write_at(buffer, self.end)?;
        self.end += buffer.len() as u64;
        let crc = crc::append(crc, buffer);
        buffer.clear();
        Ok(crc)
    }
}

impl<D: Directory> Scratch<D> {
    fn failed(&self, action: &'static str, cause: io::Error) -> StorageError {
        StorageError::engine(&self.directory.path(&self.name), action, cause)
    }
}

impl<D: Directory> std::fmt::Debug for Scratch<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<D: Directory> Drop for Scratch<D> {
    fn drop(&mut self) {
        // Nobody can be told; what stays is removed by the next `clear`.
        drop(self.directory.remove(&self.name));
    }
}

/// One of the sequences that are merged.
enum Source<D: Directory> {
    Stored(RunReader<D>),
    Kept { rows: Arc<Collected>, next: usize },
}

impl<D: Directory> Source<D> {
    fn next(&mut self) -> Option<Result<Row, StorageError>> {
        match self {
            Self::Stored(reader) => reader.next_row().transpose(),
            Self::Kept { rows, next } => {
                let start = *rows.starts.get(*next)?;
                *next += 1;
                // A copy: a row that somebody keeps must not keep all of them.
                take_row(&mut Bytes::copy_from_slice(rows.row(start))).map(Ok)
            }
        }
    }
}

/// Splits the first row off `bytes`, if all of it is there.
fn take_row(bytes: &mut Bytes) -> Option<Row> {
    let (key_len, value_len) = lengths(bytes)?;
    if bytes.len() < LENGTHS_BYTES + key_len + value_len {
        return None;
    }
    bytes.advance(LENGTHS_BYTES);
    let key = bytes.split_to(key_len);
    Some((key, bytes.split_to(value_len)))
}

/// Reads one run from its beginning to its end.
struct RunReader<D: Directory> {
    scratch: Arc<Scratch<D>>,
    run: Run,
    read_bytes: usize,
    at: u64,
    crc: u32,
    buffer: Bytes,
}

impl<D: Directory> RunReader<D> {
    fn new(scratch: Arc<Scratch<D>>, run: Run, read_bytes: usize) -> Self {
        Self { scratch, run, read_bytes, at: run.start, crc: 0, buffer: Bytes::new() }
    }

    fn next_row(&mut self) -> Result<Option<Row>, StorageError> {
        loop {
            if let Some(row) = take_row(&mut self.buffer) {
                return Ok(Some(row));
            }
            if !self.fill().map_err(|cause| self.scratch.failed("reading sorted rows", cause))? {
                return Ok(None);
            }
        }
    }

    /// Reads the next piece, as long as the row it begins with; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let left = self.run.end - self.at;
        if left == 0 {
            let whole = self.buffer.is_empty() && self.crc == self.run.crc;
            return if whole { Ok(false) } else { Err(io::Error::other("they were damaged on the disk")) };
        }
        let row = lengths(&self.buffer).map_or(0, |(key, value)| LENGTHS_BYTES + key + value);
        let wanted = self.read_bytes.max(row.saturating_sub(self.buffer.len()));
        let wanted = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut bytes = BytesMut::zeroed(self.buffer.len() + wanted);
        let (kept, new) = bytes.split_at_mut(self.buffer.len());
        kept.copy_from_slice(&self.buffer);
        if self.scratch.file.read_at(new, self.at)? < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.crc = crc::append(self.crc, new);
        self.at += wanted as u64;
        self.buffer = bytes.freeze();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::MemoryDirectory;

    fn sorted(rows: &[(Vec<u8>, Vec<u8>)], bytes_max: usize) -> (MemoryDirectory, Sorted<MemoryDirectory>) {
        let directory = MemoryDirectory::default();
        let mut sorter = Sorter::new(directory.clone(), "test", bytes_max);
        for (key, value) in rows {
            let (first, second) = key.split_at(key.len() / 2);
            sorter.push(&[first, second], &[value]).unwrap();
        }
        (directory, sorter.finish().unwrap())
    }

    proptest! {
        #[test]
        fn rows_come_out_in_order(
            rows in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..9),
                prop::collection::vec(any::<u8>(), 0..200), 0..60),
            bytes_max in 1..20_000_usize, turn in any::<prop::sample::Index>(),
        ) {
            let ascending: Vec<_> = rows.into_iter().collect();
            let mut turned = ascending.clone();
            turned.rotate_left(turn.index(ascending.len().max(1)));
            let (_, sorted) = sorted(&turned, bytes_max);
            for _ in 0..2 {
                let found = sorted.merge().map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())));
                prop_assert_eq!(&found.collect::<Result<Vec<_>, _>>().unwrap(), &ascending);
            }
        }
    }

    fn numbered(count: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
        (0..count).rev().map(|number| (vec![number], vec![number; 100])).collect()
    }

    #[test]
    fn few_rows_stay_in_memory_and_many_leave_no_file_behind() {
        assert!(sorted(&numbered(9), 1 << 20).0.names().unwrap().is_empty());
        let (directory, sorted) = sorted(&numbered(90), 1_000);
        assert_eq!(directory.names().unwrap(), ["test.sort"]);
        let merge = sorted.merge();
        drop(sorted);
        assert_eq!(merge.count(), 90);
        assert!(directory.names().unwrap().is_empty());
    }

    #[test]
    fn what_an_interrupted_sort_left_is_removed() {
        let directory = MemoryDirectory::default();
        directory.create("old.sort").unwrap();
        directory.create("other").unwrap();
        clear(&directory).unwrap();
        assert_eq!(directory.names().unwrap(), ["other"]);
    }

    #[test]
    fn damage_on_the_disk_is_found() {
        let (directory, sorted) = sorted(&numbered(90), 1_000);
        directory.corrupt("test.sort", 1_500, |byte| byte ^ 1);
        assert!(sorted.merge().any(|row| row.is_err()));
    }
}
