//! Reading the key space at a revision, from a snapshot or from a batch in the making.
//!
//! The newest version of a living key is one lookup in the `Live` table, and a list of living keys is one scan of it. Only
//! a read at an older revision looks at superseded versions: a version in `Live` that is not newer than the revision is
//! the one, otherwise the first row of the key in `Version` at or below the revision is.

use std::{iter::Peekable, ops::Bound};

use bytes::{Buf, Bytes};

use super::{
    counts::Counts,
    rows::{self, Trace, Version},
};
use crate::{
    storage::{Read, Scan, StorageError, Table},
    types::{KeyEnd, KeyRange, Revision},
};

/// Rows of one key that are stepped over before a seek is cheaper.
const STEPS_MAX: usize = if cfg!(test) { 2 } else { 16 };

/// A key and its version.
pub(super) type Pair = (Bytes, Version);
/// Pairs in key order.
pub(super) type Pairs<'a> = Box<dyn Iterator<Item = Result<Pair, StorageError>> + 'a>;

/// The key space as one reader sees it.
#[derive(Debug)]
pub(super) struct State<'a, R> {
    pub(super) read: &'a R,
    /// The newest revision there is, that of a change in the making included.
    pub(super) revision: i64,
    pub(super) compact_revision: i64,
    pub(super) counts: &'a Counts,
}

impl<R> Clone for State<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for State<'_, R> {}

impl<'a, R: Read> State<'a, R> {
    /// The newest version of a living key.
    pub(super) fn newest(self, key: &[u8]) -> Result<Option<Version>, StorageError> {
        let row = self.read.row(Table::Live, key)?;
        row.map(|row| Version::decode_live(key, row)).transpose()
    }

    /// The version of `key` that lived at `revision`.
    pub(super) fn at(self, key: &[u8], revision: i64) -> Result<Option<Version>, StorageError> {
        let newest = self.newest(key)?;
        if revision >= self.revision || newest.as_ref().is_some_and(|newest| newest.modified.main <= revision) {
            return Ok(newest);
        }
        let upper = past(&rows::version_prefix(key));
        let versions = OldVersions::new(self.read, &rows::version_prefix(key), upper, revision);
        versions.into_iter().next().map_or(Ok(None), |found| Ok(found?.1))
    }

    /// The version that the change at exactly `revision` wrote, unless compaction removed it.
    pub(super) fn written_at(self, key: &[u8], revision: Revision) -> Result<Option<Version>, StorageError> {
        if let Some(newest) = self.newest(key)?.filter(|newest| newest.modified == revision) {
            return Ok(Some(newest));
        }
        let row_key = rows::version_key(key, revision);
        let Some(row) = self.read.get(&row_key)? else { return Ok(None) };
        let put = rows::decode_superseded(&row_key, row)?;
        Ok(put.map(|put| Version { modified: revision, put }))
    }

    /// The pairs of `range` that lived at `revision`, in key order.
    pub(super) fn pairs(self, range: &KeyRange, revision: i64) -> Pairs<'a> {
        if range.is_empty() {
            return Box::new(std::iter::empty());
        }
        if range.end == KeyEnd::Single {
            let pair = self.at(&range.start, revision);
            let key = range.start.clone();
            return Box::new(pair.transpose().map(|version| Ok((key, version?))).into_iter());
        }
        let live = self.live(range, false);
        if revision >= self.revision {
            return live;
        }
        let lower = rows::version_from(&range.start);
        let upper = match &range.end {
            KeyEnd::Before(end) => rows::version_from(end),
            _ => Table::Version.bounds().1.to_vec(),
        };
        let old = OldVersions::new(self.read, &lower, upper, revision).peekable();
        Box::new(Past { live: live.peekable(), old, revision })
    }

    /// The pairs of `range` at the newest revision, in descending order.
    pub(super) fn pairs_back(self, range: &KeyRange) -> Pairs<'a> {
        self.live(range, true)
    }

    fn live(self, range: &KeyRange, descending: bool) -> Pairs<'a> {
        let (lower, upper) = live_bounds(range);
        let (lower, upper) = (Bound::Included(lower.as_ref()), Bound::Excluded(upper.as_ref()));
        let rows = if descending { self.read.scan_back(lower, upper) } else { self.read.scan(lower, upper) };
        Box::new(rows.map(|row| {
            let (mut key, value) = row?;
            key.advance(1.min(key.len()));
            let version = Version::decode_live(&key, value)?;
            Ok((key, version))
        }))
    }

    /// Number of keys of `range` that lived at `revision`.
    pub(super) fn count(self, range: &KeyRange, revision: i64) -> Result<u64, StorageError> {
        if range.is_empty() {
            return Ok(0);
        }
        if range.end == KeyEnd::Single {
            return Ok(self.at(&range.start, revision)?.is_some().into());
        }
        let newest = self.count_newest(range)?;
        let past = u64::try_from(self.revision.saturating_sub(revision)).unwrap_or_default();
        match past {
            0 => Ok(newest),
            past if past < newest => self.count_back(range, revision, newest),
            _ => self.pairs(range, revision).try_fold(0, |count, pair| pair.map(|_| count + 1)),
        }
    }

    /// Number of keys of `range` behind `key` at the newest revision. `pairs` has just read `key`: it goes on to the end
    /// of the chunk, and the chunks behind are added.
    pub(super) fn count_behind(self, range: &KeyRange, key: &[u8], pairs: Pairs<'a>) -> Result<u64, StorageError> {
        let boundary = self.counts.chunk_end(key);
        let mut count = 0;
        for pair in pairs {
            let (key, _) = pair?;
            if let Some(boundary) = boundary.filter(|boundary| key >= *boundary) {
                let behind = KeyRange { start: boundary.clone(), end: range.end.clone() };
                return Ok(count + self.count_newest(&behind)?);
            }
            count += 1;
        }
        Ok(count)
    }

    /// Adds whole chunks, and looks at the keys of the chunks that are cut.
    fn count_newest(self, range: &KeyRange) -> Result<u64, StorageError> {
        let upper = match &range.end {
            KeyEnd::Before(end) => Some(end.as_ref()),
            _ => None,
        };
        let span = self.counts.span(&range.start, upper);
        span.parts.into_iter().try_fold(span.whole, |count, (lower, upper)| {
            let part = KeyRange { start: lower, end: upper.map_or(KeyEnd::Open, KeyEnd::Before) };
            let (lower, upper) = live_bounds(&part);
            let rows = self.read.scan(Bound::Included(&lower), Bound::Excluded(&upper));
            rows.into_iter().try_fold(count, |count, row| row.map(|_| count + 1))
        })
    }

    /// Undoes, in the newest count, what the changes behind `revision` did to it.
    fn count_back(self, range: &KeyRange, revision: i64, newest: u64) -> Result<u64, StorageError> {
        // Undone in the order they were made, so that the number can be negative on the way.
        let mut count = i64::try_from(newest).unwrap_or(i64::MAX);
        for change in self.changes(Revision { main: revision.saturating_add(1), sub: 0 }, self.revision) {
            let (_, trace) = change?;
            if range.contains(&trace.key) {
                count -= trace.growth();
            }
        }
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// The changes from `from` up to and including the revision `to`.
    pub(super) fn changes(self, from: Revision, to: i64) -> Changes<'a> {
        // Keys hold revisions without sign.
        let lower = rows::revision_key(from.max(Revision::default()));
        let upper = rows::revision_key(Revision { main: to.saturating_add(1), sub: 0 });
        Changes(self.read.scan(Bound::Included(&lower), Bound::Excluded(&upper)))
    }
}

/// Bounds of `range` in the `Live` table: lower included, upper excluded.
pub(super) fn live_bounds(range: &KeyRange) -> (Bytes, Bytes) {
    let upper = match &range.end {
        KeyEnd::Single => after(&range.start),
        KeyEnd::Before(end) => Table::Live.key(end),
        KeyEnd::Open => Bytes::copy_from_slice(&Table::Live.bounds().1),
    };
    (Table::Live.key(&range.start), upper)
}

/// The first possible row key of the `Live` table above that of `key`.
fn after(key: &[u8]) -> Bytes {
    let mut row_key = Vec::with_capacity(key.len() + 2);
    row_key.push(Table::Live.prefix());
    row_key.extend_from_slice(key);
    row_key.push(0);
    row_key.into()
}

/// The first key above everything that begins with `prefix`, which does not consist of 255s alone.
fn past(prefix: &[u8]) -> Vec<u8> {
    let mut upper = prefix.to_vec();
    while upper.pop_if(|last| *last == u8::MAX).is_some() {}
    if let Some(last) = upper.last_mut() {
        *last += 1;
    }
    upper
}

/// Rows of the `Revision` table, read.
pub(super) struct Changes<'a>(Scan<'a>);

impl Iterator for Changes<'_> {
    type Item = Result<(Revision, Trace), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = |row: Result<(Bytes, Bytes), StorageError>| {
            let (row_key, value) = row?;
            let revision = rows::split_revision_key(&row_key)?;
            Ok((revision, Trace::decode(revision, value)?))
        };
        self.0.next().map(read)
    }
}

/// A key, and its version unless it was dead.
type Old = (Bytes, Option<Version>);

/// For every key with superseded versions: the newest of them at or below a revision.
struct OldVersions<'a, R> {
    read: &'a R,
    rows: Scan<'a>,
    upper: Vec<u8>,
    revision: i64,
    /// What the rows of the key found last begin with: they are not looked at any more.
    done: Vec<u8>,
    /// Rows stepped over since the last seek.
    steps: usize,
}

impl<'a, R: Read> OldVersions<'a, R> {
    fn new(read: &'a R, lower: &[u8], upper: Vec<u8>, revision: i64) -> Self {
        let rows = read.scan(Bound::Included(lower), Bound::Excluded(&upper));
        Self { read, rows, upper, revision, done: Vec::new(), steps: 0 }
    }

    /// Steps over a row; after too many, goes to `target` at once.
    fn step_over(&mut self, target: impl FnOnce() -> Vec<u8>) {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            self.rows = self.read.scan(Bound::Included(&target()), Bound::Excluded(&self.upper));
            self.steps = 0;
        }
    }

    /// What a row says: nothing if it is to be stepped over.
    fn look_at(&mut self, row_key: &Bytes, value: Bytes) -> Result<Option<Old>, StorageError> {
        if !self.done.is_empty() && row_key.starts_with(&self.done) {
            let next = past(&self.done);
            self.step_over(|| next);
            return Ok(None);
        }
        let (key, modified) = rows::split_version_key(row_key)?;
        if modified.main > self.revision {
            let newest = Revision { main: self.revision, sub: i64::MAX };
            self.step_over(|| rows::version_key(&key, newest).into());
            return Ok(None);
        }
        self.done = row_key.get(..row_key.len().saturating_sub(16)).unwrap_or_default().to_vec();
        self.steps = 0;
        let put = rows::decode_superseded(row_key, value)?;
        Ok(Some((key, put.map(|put| Version { modified, put }))))
    }
}

impl<R: Read> Iterator for OldVersions<'_, R> {
    type Item = Result<Old, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = match self.rows.next()? {
                Ok((row_key, value)) => self.look_at(&row_key, value),
                Err(error) => Err(error),
            };
            if let Some(found) = found.transpose() {
                return Some(found);
            }
        }
    }
}

/// What is found at a key: in `Live`, and among the superseded versions.
type Both = (Option<Pair>, Option<Old>);

/// The pairs that lived at a revision in the past.
struct Past<'a, R: Read> {
    live: Peekable<Pairs<'a>>,
    old: Peekable<OldVersions<'a, R>>,
    revision: i64,
}

impl<R: Read> Past<'_, R> {
    /// Takes what both sources say about the next key.
    fn next_key(&mut self) -> Option<Result<Both, StorageError>> {
        let order = match (self.live.peek(), self.old.peek()) {
            (None, None) => return None,
            (Some(Err(_)), _) | (Some(_), None) => std::cmp::Ordering::Less,
            (_, Some(Err(_))) | (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(Ok((live, _))), Some(Ok((old, _)))) => live.cmp(old),
        };
        let live = self.live.next_if(|_| order.is_le()).transpose();
        let old = self.old.next_if(|_| order.is_ge()).transpose();
        Some(live.and_then(|live| Ok((live, old?))))
    }
}

impl<R: Read> Iterator for Past<'_, R> {
    type Item = Result<Pair, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (live, old) = match self.next_key()? {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            let live = live.filter(|(_, version)| version.modified.main <= self.revision);
            let old = old.and_then(|(key, version)| Some((key, version?)));
            if let Some(pair) = live.or(old) {
                return Some(Ok(pair));
            }
        }
    }
}
