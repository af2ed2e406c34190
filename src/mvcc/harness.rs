//! A store with an engine under it, for tests.

use bytes::Bytes;
use tempfile::TempDir;

use super::{Change, Changes, Compactor, HashKv, ReadError, Store, View};
use crate::{
    pb::{
        etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest},
        mvccpb::KeyValue,
    },
    storage::{Batch, Engine, FjallEngine, FjallOptions, MemoryEngine},
};

/// A member's key space: every request is a commit of its own.
pub(super) struct Member<E: Engine> {
    pub(super) engine: E,
    pub(super) store: Store,
}

/// A member in memory.
pub(super) fn in_memory() -> Member<MemoryEngine> {
    Member::open(MemoryEngine::new())
}

/// A member on disk, which flushes and merges all the time.
pub(super) fn on_disk() -> (TempDir, Member<FjallEngine>) {
    let directory = tempfile::tempdir().unwrap();
    let options = FjallOptions { cache_bytes: 1 << 20, memtable_bytes: 8 << 10, ..FjallOptions::default() };
    let engine = FjallEngine::open(&directory.path().join("state"), &options).unwrap();
    (directory, Member::open(engine))
}

impl<E: Engine> Member<E> {
    pub(super) fn open(engine: E) -> Self {
        let store = Store::open(&engine.snapshot()).unwrap();
        Self { engine, store }
    }

    /// Carries out one request.
    pub(super) fn change<T>(
        &mut self,
        request: impl FnOnce(&mut Change<'_, E::Snapshot>) -> Result<T, ReadError>,
    ) -> (Result<T, ReadError>, Option<Changes>) {
        let mut batch = Batch::new(self.engine.snapshot());
        let mut change = self.store.begin(&mut batch);
        let answer = request(&mut change);
        let changes = change.end();
        self.engine.commit(batch.into_writes()).unwrap();
        (answer, changes)
    }

    pub(super) fn view(&self) -> View<E::Snapshot> {
        self.store.view(self.engine.snapshot())
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        let request = put(key, value);
        self.change(|change| change.put(&request, &|_| true)).0.unwrap();
    }

    pub(super) fn delete(&mut self, key: &str, end: &str) {
        let request = DeleteRangeRequest { key: bytes(key), range_end: bytes(end), prev_kv: false };
        self.change(|change| change.delete_range(&request)).0.unwrap();
    }

    pub(super) fn list(&self, key: &str, end: &str, revision: i64) -> Vec<KeyValue> {
        let request = RangeRequest { key: bytes(key), range_end: bytes(end), revision, ..Default::default() };
        self.view().range(&request).unwrap().kvs
    }

    pub(super) fn schedule(&mut self, revision: i64) -> Result<(), ReadError> {
        let mut batch = Batch::new(self.engine.snapshot());
        self.store.compact(&mut batch, revision)?;
        self.engine.commit(batch.into_writes()).unwrap();
        Ok(())
    }

    /// One step of the compaction that is due; false if there is none.
    pub(super) fn compact_step(&mut self, rows_max: usize) -> bool {
        let view = self.view();
        let Some(mut compactor) = Compactor::due(&view).unwrap() else { return false };
        let step = compactor.step(&view, rows_max).unwrap();
        self.engine.commit(step.writes).unwrap();
        true
    }

    pub(super) fn compact(&mut self, revision: i64) {
        self.schedule(revision).unwrap();
        while self.compact_step(3) {}
    }

    pub(super) fn hash(&self, revision: i64) -> HashKv {
        self.view().hash_kv(revision).unwrap()
    }
}

pub(super) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
