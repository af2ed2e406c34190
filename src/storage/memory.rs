//! The engine in memory, for tests and the simulator: what was committed and what was persisted are kept apart.
//!
//! Every key has its values by the number of the commit that set them. A snapshot is the number of the newest commit at
//! its time, and so is the durable half; values that neither can see any more are dropped when the key is written again.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{Engine, Read, Row, Scan, StorageError, Writes, bounds, writes};

/// Rows a scan takes at a time.
const PAGE_ROWS: usize = 64;

/// The state in memory. Clones share it, so that a test can keep one while a member owns another.
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine {
    shared: Arc<Mutex<State>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    rows: BTreeMap<Bytes, Vec<Version>>,
    /// Number of commits.
    newest: u64,
    /// The newest commit that was persisted.
    durable: u64,
    /// How many snapshots stand at a commit.
    snapshots: BTreeMap<u64, usize>,
    /// Bytes of keys and newest values.
    bytes: u64,
    commits_until_failure: Option<u64>,
    persists_until_failure: Option<u64>,
    poison: Option<Arc<str>>,
}

/// One value of a key, from a commit on.
#[derive(Clone, Debug)]
struct Version {
    commit: u64,
    value: Option<Bytes>,
}

/// What the engine held at one moment.
#[derive(Clone, Debug)]
pub struct MemorySnapshot {
    pin: Arc<Pin>,
}

/// Keeps the values that a snapshot sees.
#[derive(Debug)]
struct Pin {
    engine: MemoryEngine,
    commit: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.engine.state().unpin(self.commit);
    }
}

/// A failure made to order.
#[derive(Debug, thiserror::Error)]
#[error("injected failure")]
struct Injected;

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    /// The engine as it is found after a power cut now: without the commits that were not persisted, and without
    /// poison. This one and its snapshots go on as if nothing had happened.
    #[must_use]
    pub fn crash(&self) -> Self {
        self.crash_keeping(0)
    }

    /// A kinder power cut: the first `kept` of the commits that were not persisted survive it.
    #[must_use]
    pub fn crash_keeping(&self, kept: u64) -> Self {
        let before = self.state();
        let newest = before.newest.min(before.durable.saturating_add(kept));
        let mut state = State { newest, durable: newest, ..State::default() };
        for (key, versions) in &before.rows {
            if let Some(value) = visible(versions, newest) {
                state.bytes += size(key, Some(&value));
                state.rows.insert(key.clone(), vec![Version { commit: newest, value: Some(value) }]);
            }
        }
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    /// The engine as it is found after its process alone was killed now: everything committed is there, what was not
    /// persisted can still be lost by a power cut, and there is no poison. This one and its snapshots are on their own.
    #[must_use]
    pub fn kill(&self) -> Self {
        let State { rows, newest, durable, bytes, .. } = self.state().clone();
        let state = State { rows, newest, durable, bytes, ..State::default() };
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    /// How many commits a power cut could take away.
    pub fn unpersisted(&self) -> u64 {
        let state = self.state();
        state.newest.saturating_sub(state.durable)
    }

    /// Makes the `nth` commit from now fail (1 is the next one).
    pub fn fail_commit(&self, nth: u64) {
        self.state().commits_until_failure = Some(nth);
    }

    /// Makes the `nth` persist from now fail (1 is the next one).
    pub fn fail_persist(&self, nth: u64) {
        self.state().persists_until_failure = Some(nth);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that can panic, so a poisoned lock says nothing about it.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check_poison(&self) -> Result<(), StorageError> {
        self.poison.as_ref().map_or(Ok(()), |first| Err(StorageError::Poisoned { first: first.clone() }))
    }

    fn fail(&mut self, action: &'static str) -> StorageError {
        self.poisoned(StorageError::engine(Path::new("memory"), action, Injected))
    }

    fn poisoned(&mut self, error: StorageError) -> StorageError {
        self.poison = Some(error.with_causes().into());
        error
    }

    fn write(&mut self, key: &Bytes, value: Option<Bytes>) {
        let floor = self.snapshots.keys().next().copied().unwrap_or(self.newest).min(self.durable);
        let added = size(key, value.as_ref());
        let versions = self.rows.entry(key.clone()).or_default();
        let removed = versions.last().map_or(0, |newest| size(key, newest.value.as_ref()));
        versions.retain(|version| version.commit != self.newest);
        let unseen = versions.partition_point(|version| version.commit <= floor).saturating_sub(1);
        versions.drain(..unseen);
        versions.push(Version { commit: self.newest, value });
        self.bytes = (self.bytes + added).saturating_sub(removed);
        if versions.iter().all(|version| version.value.is_none()) {
            self.rows.remove(key);
        }
    }

    fn unpin(&mut self, commit: u64) {
        if let Some(count) = self.snapshots.get_mut(&commit) {
            *count -= 1;
            if *count == 0 {
                self.snapshots.remove(&commit);
            }
        }
    }
}

/// The value that a snapshot at `commit` sees.
fn visible(versions: &[Version], commit: u64) -> Option<Bytes> {
    versions.iter().rev().find(|version| version.commit <= commit)?.value.clone()
}

fn size(key: &Bytes, value: Option<&Bytes>) -> u64 {
    value.map_or(0, |value| (key.len() + value.len()) as u64)
}

/// Counts down to an ordered failure; true when it is due.
fn due(countdown: &mut Option<u64>) -> bool {
    *countdown = countdown.map(|left| left.saturating_sub(1));
    countdown.take_if(|left| *left == 0).is_some()
}

impl Engine for MemoryEngine {
    type Snapshot = MemorySnapshot;

    fn snapshot(&self) -> MemorySnapshot {
        let mut state = self.state();
        let commit = state.newest;
        *state.snapshots.entry(commit).or_default() += 1;
        drop(state);
        MemorySnapshot { pin: Arc::new(Pin { engine: self.clone(), commit }) }
    }

    fn commit(&self, writes: Writes) -> Result<(), StorageError> {
        let mut state = self.state();
        state.check_poison()?;
        if due(&mut state.commits_until_failure) {
            return Err(state.fail("writing"));
        }
        writes.check_sizes().map_err(|error| state.poisoned(error))?;
        state.newest += 1;
        for (key, value) in writes.into_rows() {
            state.write(&key, value);
        }
        Ok(())
    }

    fn persist(&self) -> Result<(), StorageError> {
        let mut state = self.state();
        state.check_poison()?;
        if due(&mut state.persists_until_failure) {
            return Err(state.fail("syncing"));
        }
        state.durable = state.newest;
        Ok(())
    }

    fn ingest(&self, rows: &mut dyn Iterator<Item = Result<Row, StorageError>>) -> Result<(), StorageError> {
        let (mut writes, mut last) = (Writes::default(), Bytes::new());
        for row in rows {
            let row = row?;
            writes::check_next(&row, &mut last)?;
            writes.put(row.0, row.1);
        }
        self.commit(writes)?;
        self.persist()
    }

    fn reclaim(&self) -> Result<(), StorageError> {
        self.persist()
    }

    fn disk_bytes(&self) -> u64 {
        self.state().bytes
    }
}

impl Read for MemorySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let state = self.pin.engine.state();
        Ok(state.rows.get(key).and_then(|versions| visible(versions, self.pin.commit)))
    }

    fn scan(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Scan<'_> {
        self.pages(lower, upper, false)
    }

    fn scan_back(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Scan<'_> {
        self.pages(lower, upper, true)
    }
}

impl MemorySnapshot {
    fn pages(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>, descending: bool) -> Scan<'_> {
        let Some((lower, upper)) = bounds::clamp(lower, upper) else { return Box::new(std::iter::empty()) };
        let owned = |bound: Bound<&[u8]>| bound.map(Bytes::copy_from_slice);
        let (lower, upper) = (owned(lower), owned(upper));
        Box::new(Pages { snapshot: self, lower, upper, descending, page: VecDeque::new() })
    }
}

/// A scan that holds the lock only while it takes a page.
struct Pages<'a> {
    snapshot: &'a MemorySnapshot,
    lower: Bound<Bytes>,
    upper: Bound<Bytes>,
    descending: bool,
    page: VecDeque<Row>,
}

impl Pages<'_> {
    fn take_page(&mut self) {
        let (lower, upper) = (self.lower.as_ref().map(Bytes::as_ref), self.upper.as_ref().map(Bytes::as_ref));
        let Some(bounds) = bounds::clamp(lower, upper) else { return };
        let state = self.snapshot.pin.engine.state();
        let rows = state.rows.range::<[u8], _>(bounds);
        let commit = self.snapshot.pin.commit;
        let seen = |(key, versions): (&Bytes, &Vec<Version>)| Some((key.clone(), visible(versions, commit)?));
        self.page = if self.descending {
            rows.rev().filter_map(seen).take(PAGE_ROWS).collect()
        } else {
            rows.filter_map(seen).take(PAGE_ROWS).collect()
        };
        drop(state);
        if let Some((last, _)) = self.page.back() {
            let side = if self.descending { &mut self.upper } else { &mut self.lower };
            *side = Bound::Excluded(last.clone());
        }
    }
}

impl Iterator for Pages<'_> {
    type Item = Result<Row, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() {
            self.take_page();
        }
        self.page.pop_front().map(Ok)
    }
}
