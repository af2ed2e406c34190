//! The engine on disk: one fjall keyspace.

use std::{ops::Bound, path::Path};

use bytes::Bytes;

use super::{Engine, Read, Scan, StorageError, Writes};

/// Sizes of the on-disk engine.
#[derive(Clone, Debug)]
pub struct FjallOptions {
    /// Bytes of blocks kept in memory.
    pub cache_bytes: u64,
    /// Bytes of writes kept in memory before they are flushed to a table file.
    pub memtable_bytes: u64,
}

/// The state on disk. Cheap to clone; the last clone closes the files.
#[derive(Clone)]
pub struct FjallEngine {}

/// What the engine held at one moment.
#[derive(Clone)]
pub struct FjallSnapshot {}

impl FjallEngine {
    /// Opens the state in `path`, or creates an empty one if there is none.
    ///
    /// # Errors
    /// [`StorageError::Format`] if `path` holds something else or a newer format; [`StorageError::Engine`] if it cannot
    /// be read.
    pub fn open(_path: &Path, _options: &FjallOptions) -> Result<Self, StorageError> {
        todo!()
    }

    /// Reads every row once and checks it against the engine's checksums.
    ///
    /// # Errors
    /// The first damage found.
    pub fn verify(&self) -> Result<(), StorageError> {
        todo!()
    }
}

impl Engine for FjallEngine {
    type Snapshot = FjallSnapshot;

    fn snapshot(&self) -> FjallSnapshot {
        todo!()
    }

    fn commit(&self, _writes: Writes) -> Result<(), StorageError> {
        todo!()
    }

    fn persist(&self) -> Result<(), StorageError> {
        todo!()
    }

    fn disk_bytes(&self) -> u64 {
        todo!()
    }
}

impl Read for FjallSnapshot {
    fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        todo!()
    }

    fn scan(&self, _lower: Bound<&[u8]>, _upper: Bound<&[u8]>) -> Scan<'_> {
        todo!()
    }

    fn scan_back(&self, _lower: Bound<&[u8]>, _upper: Bound<&[u8]>) -> Scan<'_> {
        todo!()
    }
}
