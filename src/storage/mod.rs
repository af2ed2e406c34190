//! The replicated state's engine: ordered bytes, atomic batches, snapshots.
//!
//! One flat space of byte keys, divided into tables by a prefix byte ([`Table`]). Writers collect a [`Writes`] (most
//! often through a [`Batch`], which reads its own writes) and hand it to [`Engine::commit`], which is atomic but not
//! durable; [`Engine::persist`] makes everything committed before it durable. The write-ahead log is the redo log:
//! what was committed and not persisted may be lost together, youngest first, and is applied again from there.
//!
//! Invariants:
//! - a snapshot sees all of a commit or nothing of it, and never changes;
//! - after a crash the state is that of some prefix of the commits, at least as long as at the last `persist`;
//! - the first failed write or sync is final: every later write fails with [`StorageError::Poisoned`], which names it;
//! - no key longer than [`KEY_BYTES_MAX`] reaches an engine, neither in a write nor as a bound of a read.

mod background;
mod batch;
mod bounds;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod damage;
mod error;
pub mod fjall;
mod format;
mod inventory;
mod journal;
mod likeness;
mod manifest;
pub mod memory;
mod reports;
pub mod sorter;
mod tables;
mod writes;

use std::ops::Bound;

use bytes::Bytes;

pub use batch::Batch;
pub use error::StorageError;
pub use fjall::{FjallEngine, FjallOptions, FjallSnapshot};
pub use format::FORMAT_FILE;
pub use memory::{MemoryEngine, MemorySnapshot};
pub use sorter::{Sorted, Sorter};
pub use tables::Table;
pub use writes::Writes;

/// Longest key an engine stores, table prefix included.
pub const KEY_BYTES_MAX: usize = 65_535;
/// Longest value an engine stores: 1 GiB, far above what one request can carry.
pub const VALUE_BYTES_MAX: usize = 1 << 30;

/// One stored pair: the full key (table prefix included) and the value.
pub type Row = (Bytes, Bytes);
/// Rows in key order, or in descending order from [`Read::scan_back`].
pub type Scan<'a> = Box<dyn Iterator<Item = Result<Row, StorageError>> + 'a>;

/// A state that does not change while it is read: a snapshot, or a [`Batch`] between two of its writes.
pub trait Read {
    /// The value under `key`, or nothing; keys above [`KEY_BYTES_MAX`] are never there.
    ///
    /// # Errors
    /// [`StorageError`] if the engine cannot read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// The rows between two bounds in ascending order. Reversed bounds give nothing.
    fn scan(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Scan<'_>;

    /// The rows between two bounds in descending order.
    fn scan_back(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Scan<'_>;

    /// The value under `key` of `table`.
    ///
    /// # Errors
    /// [`StorageError`] if the engine cannot read.
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.get(&table.key(key))
    }

    /// All rows of `table` in key order, keys without the table's prefix.
    fn rows(&self, table: Table) -> Scan<'_> {
        let (lower, upper) = table.bounds();
        Box::new(self.scan(Bound::Included(&lower), Bound::Excluded(&upper)).map(|row| {
            let (key, value) = row?;
            Ok((key.slice(1.min(key.len())..), value))
        }))
    }
}

/// What an engine keeps on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All of it, as [`Engine::disk_bytes`] says.
    pub disk_bytes: u64,
    /// Bytes of the files that are merged from time to time.
    pub table_bytes: u64,
    /// Rows in those files, however often each is there.
    pub table_rows: u64,
    /// The most of them that may be removed or replaced already: everything that was written later, and deletes.
    pub hidden_rows_max: u64,
}

impl Usage {
    /// An estimate of the bytes that would be left if everything was merged now, while about `rows_needed` rows are
    /// needed. What is not known to be unneeded counts as needed.
    pub fn bytes_in_use(&self, rows_needed: u64) -> u64 {
        let hidden = self.table_rows.saturating_sub(rows_needed).min(self.hidden_rows_max);
        let bytes = u128::from(self.table_bytes) * u128::from(hidden) / u128::from(self.table_rows.max(1));
        self.disk_bytes.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

/// A place that keeps the replicated state.
pub trait Engine: Send + Sync + 'static {
    /// A consistent, unchanging view; cheap to clone.
    type Snapshot: Read + Clone + Send + Sync + 'static;

    /// The state after the newest commit.
    fn snapshot(&self) -> Self::Snapshot;

    /// Applies `writes` atomically, without making them durable. May block while the engine catches up.
    ///
    /// # Errors
    /// Any failure poisons the engine.
    fn commit(&self, writes: Writes) -> Result<(), StorageError>;

    /// Makes everything committed before durable.
    ///
    /// # Errors
    /// Any failure poisons the engine.
    fn persist(&self) -> Result<(), StorageError>;

    /// Loads `rows`, which ascend by key, into an empty state, and makes them durable. Far cheaper than commits.
    ///
    /// # Errors
    /// Those of `rows`, [`StorageError::OutOfOrder`], and failures of the engine. The state is useless then and must be
    /// removed.
    fn ingest(&self, rows: &mut dyn Iterator<Item = Result<Row, StorageError>>) -> Result<(), StorageError>;

    /// Gives back the space of removed and replaced rows that no snapshot holds; reads and writes go on meanwhile. Takes
    /// as long as reading and writing everything once.
    ///
    /// # Errors
    /// Any failure poisons the engine.
    fn reclaim(&self) -> Result<(), StorageError>;

    /// Bytes the engine occupies on disk, in the sense of etcd's `dbSize`.
    fn disk_bytes(&self) -> u64;

    /// What these bytes are. An engine that keeps nothing but what is needed has no table files.
    fn usage(&self) -> Usage {
        Usage { disk_bytes: self.disk_bytes(), ..Usage::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_what_is_needed_as_far_as_that_is_known() {
        let usage = Usage { disk_bytes: 1_100, table_bytes: 1_000, table_rows: 100, hidden_rows_max: 30 };
        for (needed, in_use) in [(100, 1_100), (1_000, 1_100), (90, 1_000), (70, 800), (0, 800)] {
            assert_eq!(usage.bytes_in_use(needed), in_use, "{needed}");
        }
        assert_eq!(Usage { disk_bytes: 5, ..Usage::default() }.bytes_in_use(0), 5);
        let all =
            Usage { disk_bytes: u64::MAX, table_bytes: u64::MAX, table_rows: u64::MAX, hidden_rows_max: u64::MAX };
        assert_eq!(all.bytes_in_use(0), 0);
    }
}
