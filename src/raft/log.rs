//! The log as the raft crate reads it: in memory, so that nobody ever waits for a file.
//!
//! Invariants:
//! - Every entry after the applied index is in memory; the terms of all readable entries are.
//! - An entry leaves memory only when it is applied, and therefore durable here and never replaced.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    mem,
};

use ::raft::{
    Error, GetEntriesContext, RaftState, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata},
};

use crate::{
    pb::raftpb,
    types::{LogIndex, Term},
};

use super::{FetchRequest, Fetched, convert, terms::Terms};

/// What an entry costs beyond its data: its other fields and its places in queues.
const ENTRY_OVERHEAD_BYTES: usize = 160;
/// What is read back at once for a peer that lags: a few messages of the largest size.
const FETCH_BYTES_MAX: usize = 4 << 20;
/// Peers that can wait for one fetch, more than a cluster has members; one left out asks again with its next heartbeat.
const FETCH_WAITERS_MAX: usize = 16;

/// The raft crate's storage.
#[derive(Debug)]
pub(super) struct MemberLog {
    initial: RaftState,
    terms: Terms,
    /// The newest entries without gaps, up to the log's end.
    entries: VecDeque<Entry>,
    entries_bytes: usize,
    applied: u64,
    unapplied_bytes: usize,
    kept_bytes_max: usize,
    /// What a peer that needs a snapshot is told: the state machine's position and the configuration there.
    snapshot: SnapshotMetadata,
    fetches: RefCell<Fetches>,
}

#[derive(Debug, Default)]
struct Fetches {
    number_last: u64,
    /// By first entry.
    waiting: BTreeMap<u64, Waiting>,
    requests: Vec<FetchRequest>,
    /// The last entries that were fetched, from the first on without gaps.
    fetched: Vec<Entry>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    contexts: Vec<GetEntriesContext>,
}

fn entry_bytes(entry: &Entry) -> usize {
    entry.data.len() + ENTRY_OVERHEAD_BYTES
}

impl MemberLog {
    /// A log that was checked: `entries` continue `terms` to its end and reach back to `applied` at least.
    pub(super) fn new(
        hard_state: HardState,
        conf_state: ConfState,
        applied: u64,
        terms: Terms,
        entries: Vec<Entry>,
        kept_bytes_max: usize,
    ) -> Self {
        let term = terms.at(applied).unwrap_or(0);
        let mut snapshot = SnapshotMetadata { index: applied, term, ..Default::default() };
        snapshot.set_conf_state(conf_state.clone());
        let unapplied_bytes = entries.iter().filter(|entry| entry.index > applied).map(entry_bytes).sum();
        Self {
            initial: RaftState::new(hard_state, conf_state),
            terms,
            entries_bytes: entries.iter().map(entry_bytes).sum(),
            entries: entries.into(),
            applied,
            unapplied_bytes,
            kept_bytes_max,
            snapshot,
            fetches: RefCell::default(),
        }
    }

    /// Takes new entries in; the first may replace an earlier one and everything after it.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while self.entries.back().is_some_and(|last| last.index >= first.index) {
            self.forget_last();
        }
        for entry in entries {
            self.terms.put(entry.index, entry.term);
            self.entries_bytes += entry_bytes(entry);
            self.unapplied_bytes += entry_bytes(entry);
        }
        self.entries.extend(entries.iter().cloned());
    }

    fn forget_last(&mut self) {
        if let Some(entry) = self.entries.pop_back() {
            self.entries_bytes -= entry_bytes(&entry);
            self.unapplied_bytes = self.unapplied_bytes.saturating_sub(entry_bytes(&entry));
        }
    }

    /// Replaces the whole log by a received snapshot.
    pub(super) fn install(&mut self, snapshot: &SnapshotMetadata) {
        self.terms = Terms::new((LogIndex(snapshot.index), Term(snapshot.term)));
        self.entries.clear();
        self.entries_bytes = 0;
        self.unapplied_bytes = 0;
        self.fetches.borrow_mut().fetched.clear();
    }

    /// The state machine is at `index`, with this configuration.
    pub(super) fn applied_to(&mut self, index: u64, conf_state: ConfState) {
        let Some(term) = self.terms.at(index) else { return };
        self.unapplied_bytes -= self.bytes_between(self.applied, index).min(self.unapplied_bytes);
        self.applied = index;
        self.snapshot.index = index;
        self.snapshot.term = term;
        self.snapshot.set_conf_state(conf_state);
        self.evict();
    }

    fn bytes_between(&self, after: u64, to: u64) -> usize {
        let skip = after.saturating_add(1).saturating_sub(self.memory_first());
        let entries = self.entries.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX));
        entries.take_while(|entry| entry.index <= to).map(entry_bytes).sum()
    }

    /// Drops applied entries from memory while there are too many.
    fn evict(&mut self) {
        while self.entries_bytes > self.kept_bytes_max && self.memory_first() <= self.applied {
            self.forget_first();
        }
    }

    /// Makes entries up to `index` unreadable, as far as they are applied.
    pub(super) fn compact(&mut self, index: u64) {
        let index = index.min(self.applied);
        self.terms.compact(index);
        while self.memory_first() <= index {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.entries_bytes -= entry_bytes(&entry);
        }
    }

    /// Bytes of entries that wait to be applied.
    pub(super) fn unapplied_bytes(&self) -> usize {
        self.unapplied_bytes
    }

    /// The index of the first entry in memory; one past the end if there is none.
    fn memory_first(&self) -> u64 {
        self.entries.front().map_or(self.terms.last() + 1, |entry| entry.index)
    }

    /// Fetches that became necessary since the last call.
    pub(super) fn take_requests(&mut self) -> Vec<FetchRequest> {
        mem::take(&mut self.fetches.get_mut().requests)
    }

    /// Takes fetched entries and returns who waits for them. Entries that do not fit the log make everything before
    /// memory unreadable, so that those who wait get a snapshot.
    pub(super) fn take_fetched(&mut self, answer: Fetched) -> Vec<GetEntriesContext> {
        let fetches = self.fetches.get_mut();
        let found = fetches.waiting.iter().find(|(_, waiting)| waiting.number == answer.number);
        let Some(first) = found.map(|(first, _)| *first) else { return Vec::new() };
        let Some(waiting) = fetches.waiting.remove(&first) else { return Vec::new() };
        let entries = answer.entries.filter(|entries| fits(&self.terms, first, entries));
        let gone = entries.is_none();
        fetches.fetched = entries.unwrap_or_default().into_iter().map(convert::entry_in).collect();
        if gone && first > self.terms.start() {
            self.compact(self.memory_first() - 1);
        }
        waiting.contexts
    }

    /// Forgets what peers wait for: they ask again.
    pub(super) fn forget_fetches(&mut self) {
        let fetches = self.fetches.get_mut();
        fetches.waiting.clear();
        fetches.requests.clear();
        fetches.fetched.clear();
    }

    fn in_memory(&self, low: u64, high: u64, bytes_max: u64) -> Vec<Entry> {
        let skip = usize::try_from(low.saturating_sub(self.memory_first())).unwrap_or(usize::MAX);
        let take = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX);
        limited(self.entries.iter().skip(skip).take(take), bytes_max)
    }

    fn in_fetched(&self, low: u64, high: u64, bytes_max: u64) -> Vec<Entry> {
        let fetches = self.fetches.borrow();
        let Some(first) = fetches.fetched.first().map(|entry| entry.index).filter(|first| *first <= low) else {
            return Vec::new();
        };
        let skip = usize::try_from(low - first).unwrap_or(usize::MAX);
        let inside = fetches.fetched.iter().skip(skip).take_while(|entry| entry.index < high);
        limited(inside, bytes_max)
    }

    fn request(&self, first: u64, last: u64, context: GetEntriesContext) {
        let mut fetches = self.fetches.borrow_mut();
        if let Some(waiting) = fetches.waiting.get_mut(&first) {
            if waiting.contexts.len() < FETCH_WAITERS_MAX {
                waiting.contexts.push(context);
            }
            return;
        }
        fetches.number_last += 1;
        let number = fetches.number_last;
        fetches.waiting.insert(first, Waiting { number, contexts: vec![context] });
        let (first, last) = (LogIndex(first), LogIndex(last));
        fetches.requests.push(FetchRequest { number, first, last, bytes_max: FETCH_BYTES_MAX });
    }
}

/// Whether entries read back are the ones the log knows at this place.
fn fits(terms: &Terms, first: u64, entries: &[raftpb::Entry]) -> bool {
    let normal_or_change = 0..=1;
    !entries.is_empty()
        && (first..).zip(entries).all(|(index, entry)| {
            entry.index == index && terms.at(index) == Some(entry.term) && normal_or_change.contains(&entry.r#type)
        })
}

/// Entries until their bytes exceed the limit, and at least one.
fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: u64) -> Vec<Entry> {
    let mut bytes = 0;
    let within = |(position, entry): &(usize, &Entry)| {
        bytes += entry.data.len() as u64 + 16;
        *position == 0 || bytes <= bytes_max
    };
    entries.enumerate().take_while(within).map(|(_, entry)| entry.clone()).collect()
}

impl ::raft::Storage for MemberLog {
    fn initial_state(&self) -> ::raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> ::raft::Result<Vec<Entry>> {
        if low <= self.terms.start() {
            return Err(Error::Store(StorageError::Compacted));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let memory_first = self.memory_first();
        if low >= memory_first {
            return Ok(self.in_memory(low, high, bytes_max));
        }
        let fetched = self.in_fetched(low, high, bytes_max);
        if !fetched.is_empty() {
            return Ok(fetched);
        }
        if !context.can_async() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        self.request(low, high.min(memory_first).saturating_sub(1), context);
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> ::raft::Result<u64> {
        let missing = if index < self.terms.start() { StorageError::Compacted } else { StorageError::Unavailable };
        self.terms.at(index).ok_or(Error::Store(missing))
    }

    fn first_index(&self) -> ::raft::Result<u64> {
        Ok(self.terms.start() + 1)
    }

    fn last_index(&self) -> ::raft::Result<u64> {
        Ok(self.terms.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> ::raft::Result<Snapshot> {
        if self.snapshot.index == 0 || self.snapshot.index < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(self.snapshot.clone());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use ::raft::Storage as _;
    use bytes::Bytes;

    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: Bytes::from(vec![0; 100]), ..Default::default() }
    }

    /// Ten entries of term 1, of which three fit into memory once applied.
    fn log() -> MemberLog {
        let kept_bytes_max = 3 * (100 + ENTRY_OVERHEAD_BYTES);
        let terms = Terms::new((LogIndex(0), Term(0)));
        let mut log = MemberLog::new(HardState::default(), ConfState::default(), 0, terms, Vec::new(), kept_bytes_max);
        log.append(&(1..=10).map(|index| entry(index, 1)).collect::<Vec<_>>());
        log
    }

    fn indexes(entries: ::raft::Result<Vec<Entry>>) -> Vec<u64> {
        entries.unwrap().iter().map(|entry| entry.index).collect()
    }

    fn context() -> GetEntriesContext {
        GetEntriesContext::empty(true)
    }

    #[test]
    fn unapplied_entries_stay_in_memory() {
        let mut log = log();
        assert_eq!(log.unapplied_bytes(), 10 * (100 + ENTRY_OVERHEAD_BYTES));
        log.applied_to(5, ConfState::default());
        assert_eq!(log.memory_first(), 6);
        assert_eq!(indexes(log.entries(6, 11, None, context())), [6, 7, 8, 9, 10]);
        log.applied_to(10, ConfState::default());
        assert_eq!(log.memory_first(), 8);
        assert_eq!(log.unapplied_bytes(), 0);
    }

    #[test]
    fn replaced_entries_no_longer_count() {
        let mut log = log();
        log.append(&[entry(4, 2)]);
        assert_eq!(log.last_index().unwrap(), 4);
        assert_eq!(log.term(4).unwrap(), 2);
        assert_eq!(log.term(5), Err(Error::Store(StorageError::Unavailable)));
        assert_eq!(log.unapplied_bytes(), 4 * (100 + ENTRY_OVERHEAD_BYTES));
    }

    #[test]
    fn entries_on_disk_are_fetched_once_for_all_who_wait() {
        let mut log = log();
        log.applied_to(10, ConfState::default());
        for _ in 0..2 {
            let answer = log.entries(2, 11, None, context());
            assert_eq!(answer, Err(Error::Store(StorageError::LogTemporarilyUnavailable)));
        }
        let requests = log.take_requests();
        assert_eq!(requests.len(), 1);
        assert_eq!((requests[0].first, requests[0].last), (LogIndex(2), LogIndex(7)));
        let entries = (2..=5).map(|index| convert::entry_out(entry(index, 1))).collect();
        let waiting = log.take_fetched(Fetched { number: requests[0].number, entries: Some(entries) });
        assert_eq!(waiting.len(), 2);
        assert_eq!(indexes(log.entries(2, 11, None, context())), [2, 3, 4, 5]);
        assert_eq!(indexes(log.entries(3, 5, Some(0), context())), [3]);
    }

    #[test]
    fn entries_that_are_gone_or_wrong_lead_to_a_snapshot() {
        let wrong_term = vec![convert::entry_out(entry(2, 9))];
        for answer in [None, Some(wrong_term)] {
            let mut log = log();
            log.applied_to(10, ConfState::default());
            log.entries(2, 11, None, context()).unwrap_err();
            let number = log.take_requests()[0].number;
            assert_eq!(log.take_fetched(Fetched { number, entries: answer }).len(), 1);
            assert_eq!(log.entries(2, 11, None, context()), Err(Error::Store(StorageError::Compacted)));
            assert_eq!(indexes(log.entries(8, 11, None, context())), [8, 9, 10]);
            assert_eq!(log.term(7).unwrap(), 1);
        }
    }

    #[test]
    fn compaction_stops_at_what_is_applied() {
        let mut log = log();
        log.applied_to(4, ConfState::default());
        log.compact(9);
        assert_eq!(log.first_index().unwrap(), 5);
        assert_eq!(log.term(4).unwrap(), 1);
        assert_eq!(log.term(3), Err(Error::Store(StorageError::Compacted)));
        assert_eq!(indexes(log.entries(5, 11, None, context())), [5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn a_snapshot_carries_the_configuration_at_what_is_applied() {
        let mut log = log();
        assert_eq!(log.snapshot(0, 2), Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable)));
        let conf_state = ConfState { voters: vec![1, 2], ..Default::default() };
        log.applied_to(7, conf_state.clone());
        let snapshot = log.snapshot(0, 2).unwrap();
        assert_eq!((snapshot.get_metadata().index, snapshot.get_metadata().term), (7, 1));
        assert_eq!(snapshot.get_metadata().get_conf_state(), &conf_state);
    }
}
