//! Writes in the making, over the snapshot they start from.

use std::{collections::BTreeMap, iter::Peekable, ops::Bound};

use bytes::Bytes;

use super::{Read, Row, Scan, StorageError, Table, Writes, bounds};

/// An overlay over a snapshot: reads, scans included, see the writes made so far.
#[derive(Debug)]
pub struct Batch<R> {
    base: R,
    changes: BTreeMap<Bytes, Option<Bytes>>,
}

impl<R: Read> Batch<R> {
    /// An empty overlay over `base`.
    pub fn new(base: R) -> Self {
        Self { base, changes: BTreeMap::new() }
    }

    /// The state underneath.
    pub fn base(&self) -> &R {
        &self.base
    }

    /// Sets the full key `key` to `value`.
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.changes.insert(key, Some(value));
    }

    /// Removes the full key `key`.
    pub fn delete(&mut self, key: Bytes) {
        self.changes.insert(key, None);
    }

    /// Sets the row `key` of `table`.
    pub fn put_row(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.put(table.key(key), value);
    }

    /// Removes the row `key` of `table`.
    pub fn delete_row(&mut self, table: Table, key: &[u8]) {
        self.delete(table.key(key));
    }

    /// Adds ready-made changes, as those of a compaction step.
    pub fn extend(&mut self, writes: Writes) {
        self.changes.extend(writes.into_rows());
    }

    /// Number of changed keys.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in key order, one for each changed key.
    pub fn into_writes(self) -> Writes {
        Writes::from_rows(self.changes.into_iter().collect())
    }
}

impl<R: Read> Read for Batch<R> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Scan<'_> {
        let Some(bounds) = bounds::clamp(lower, upper) else { return Box::new(std::iter::empty()) };
        let mut changes = self.changes.range::<[u8], _>(bounds).peekable();
        let base = self.base.scan(lower, upper);
        match changes.peek() {
            Some(_) => Box::new(Merged { changes, base: base.peekable(), descending: false }),
            None => base,
        }
    }

    fn scan_back(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Scan<'_> {
        let Some(bounds) = bounds::clamp(lower, upper) else { return Box::new(std::iter::empty()) };
        let changes = self.changes.range::<[u8], _>(bounds).rev().peekable();
        let base = self.base.scan_back(lower, upper).peekable();
        Box::new(Merged { changes, base, descending: true })
    }
}

/// Two ordered sequences as one; where both have a key, the change counts.
struct Merged<'a, C: Iterator> {
    changes: Peekable<C>,
    base: Peekable<Scan<'a>>,
    descending: bool,
}

/// Where the next row comes from.
enum Source {
    Changes,
    Base,
    /// The base has the same key, which the change hides.
    Both,
}

impl<'a, C: Iterator<Item = (&'a Bytes, &'a Option<Bytes>)>> Merged<'a, C> {
    fn source(&mut self) -> Option<Source> {
        let Some((change, _)) = self.changes.peek() else {
            return self.base.peek().map(|_| Source::Base);
        };
        let Some(Ok((base, _))) = self.base.peek() else {
            // At the end of the base, or at its error, which the next look reports.
            return Some(if self.base.peek().is_some() { Source::Base } else { Source::Changes });
        };
        let order = change.as_ref().cmp(base.as_ref());
        Some(match if self.descending { order.reverse() } else { order } {
            std::cmp::Ordering::Less => Source::Changes,
            std::cmp::Ordering::Equal => Source::Both,
            std::cmp::Ordering::Greater => Source::Base,
        })
    }
}

impl<'a, C: Iterator<Item = (&'a Bytes, &'a Option<Bytes>)>> Iterator for Merged<'a, C> {
    type Item = Result<Row, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.source()? {
                Source::Base => return self.base.next(),
                Source::Changes => {}
                Source::Both => drop(self.base.next()),
            }
            if let (key, Some(value)) = self.changes.next()? {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::{Engine, MemoryEngine};

    /// Changes of one-letter keys; a missing value is a delete.
    fn changes() -> impl Strategy<Value = Vec<(u8, Option<u8>)>> {
        proptest::collection::vec((b'a'..=b'h', proptest::option::of(any::<u8>())), 0..12)
    }

    fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
        let key = proptest::collection::vec(b'a'..=b'h', 1..=1);
        prop_oneof![Just(Bound::Unbounded), key.clone().prop_map(Bound::Included), key.prop_map(Bound::Excluded)]
    }

    fn rows(scan: Scan<'_>) -> Vec<Row> {
        scan.map(Result::unwrap).collect()
    }

    proptest! {
        #[test]
        fn overlay_reads_as_if_it_were_committed(
            base in changes(), over in changes(), lower in bound(), upper in bound(),
        ) {
            let engine = MemoryEngine::new();
            let key = |letter: u8| Bytes::from(vec![letter]);
            let value = |value: Option<u8>| value.map(|value| Bytes::from(vec![value]));
            let as_writes = |changes: Vec<(u8, Option<u8>)>| {
                Writes::from_rows(changes.into_iter().map(|(k, v)| (key(k), value(v))).collect())
            };
            engine.commit(as_writes(base)).unwrap();
            let mut batch = Batch::new(engine.snapshot());
            batch.extend(as_writes(over));
            let (lower, upper) = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
            let ascending = rows(batch.scan(lower, upper));
            let descending = rows(batch.scan_back(lower, upper));
            let gets: Vec<_> = (b'a'..=b'h').map(|letter| batch.get(&[letter]).unwrap()).collect();

            engine.commit(batch.into_writes()).unwrap();
            let committed = engine.snapshot();
            prop_assert_eq!(&ascending, &rows(committed.scan(lower, upper)));
            prop_assert_eq!(descending, ascending.into_iter().rev().collect::<Vec<_>>());
            prop_assert_eq!(gets, (b'a'..=b'h').map(|letter| committed.get(&[letter]).unwrap()).collect::<Vec<_>>());
        }
    }
}
