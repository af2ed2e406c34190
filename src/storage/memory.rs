//! The engine in memory, with separate volatile and durable halves, for tests and the simulator.

use std::ops::Bound;

use bytes::Bytes;

use super::{Engine, Read, Scan, StorageError, Writes};

/// The state in memory. Clones share it, so that a test can keep one while the daemon owns another.
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine {}

/// What the engine held at one moment.
#[derive(Clone, Debug)]
pub struct MemorySnapshot {}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    /// A power cut: forgets every commit that was not persisted, and the poison.
    pub fn crash(&self) {
        todo!()
    }

    /// A kinder power cut: keeps the first `kept` of the commits that were not persisted.
    pub fn crash_keeping(&self, _kept: u64) {
        todo!()
    }

    /// Makes the `nth` commit from now fail (1 is the next one).
    pub fn fail_commit(&self, _nth: u64) {
        todo!()
    }

    /// Makes the `nth` persist from now fail (1 is the next one).
    pub fn fail_persist(&self, _nth: u64) {
        todo!()
    }
}

impl Engine for MemoryEngine {
    type Snapshot = MemorySnapshot;

    fn snapshot(&self) -> MemorySnapshot {
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

impl Read for MemorySnapshot {
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
