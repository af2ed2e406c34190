//! etcd's `HashKV`, from the stored sum of every row.
//!
//! etcd feeds its rows (revision key, then value) in order into one CRC-32C. Here every change carries length and sum of
//! its row, and sums are joined without the rows. Which rows count, for a hash at `R` with a compaction at `C`:
//!
//! - none above `R`, and all between `C` and `R`;
//! - at or below `C`, those that still live at `R`; and if nothing lives at `R`, those that lived at `C` (a quirk of etcd:
//!   it filters by what lives, and does not filter at all if that is nothing);
//! - no tombstone at or below `C`.
//!
//! A version lives at `R` unless a change up to `R` superseded it. So the changes above the last finished compaction are
//! looked at first, to know what they superseded at or below `C`; then all changes, to join their sums. What is known at
//! one time is bounded: if there is more, old changes are joined up to where knowledge reaches, and both walks go on.

use std::collections::{BinaryHeap, VecDeque};

use super::{
    ReadError, View,
    rows::Trace,
    store::{BUMPED, FINISHED, NEVER, meta_revision},
};
use crate::{
    codec::crc::{self, Joiner},
    storage::{Read, StorageError},
    types::{Rejection, Revision},
};

/// Superseded versions known at one time: 24 bytes each, six megabytes.
const KNOWN_MAX: usize = if cfg!(test) { 3 } else { 256 * 1024 };
/// Hashes of compactions that are remembered, as etcd does.
const REMEMBERED_MAX: usize = 10;

/// The answer to `HashKV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C as etcd computes it.
    pub hash: u32,
    /// The revision hashed.
    pub revision: i64,
    /// The compaction the hash is relative to; −1 if there was none.
    pub compact_revision: i64,
    /// The store's current revision.
    pub current_revision: i64,
}

/// A hash in the making, in bounded steps. It owns its view.
#[derive(Debug)]
pub struct HashWork<S> {
    view: View<S>,
    work: Work,
}

impl<S: Read> HashWork<S> {
    /// Begins the hash at `revision` (0: the current one).
    ///
    /// # Errors
    /// [`Rejection::Compacted`], [`Rejection::FutureRevision`].
    pub fn new(view: View<S>, revision: i64) -> Result<Self, ReadError> {
        let revision = if revision == 0 { view.revision() } else { revision };
        // A negative revision is a time before the first row, whatever was compacted.
        if (1..view.compact_revision()).contains(&revision) {
            return Err(Rejection::Compacted.into());
        }
        if revision > view.revision() {
            return Err(Rejection::FutureRevision.into());
        }
        let compacted = view.compact_revision();
        Ok(Self::begin(view, revision, compacted)?)
    }

    /// Begins the hash that etcd takes while it compacts to `revision`: what [`Self::new`] would have said of that revision
    /// before, when the compaction accepted last was `previous`. `view` is of a time when the compaction was accepted and
    /// has removed nothing yet.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn of_compaction(view: View<S>, revision: i64, previous: i64) -> Result<Self, StorageError> {
        Self::begin(view, revision, previous)
    }

    fn begin(view: View<S>, revision: i64, compacted: i64) -> Result<Self, StorageError> {
        let finished = meta_revision(view.snapshot(), FINISHED)?.unwrap_or(NEVER);
        // There the empty key lives, too.
        let bumped = meta_revision(view.snapshot(), BUMPED)?.is_some_and(|bumped| bumped <= revision);
        let work = Work {
            revision,
            compacted,
            finished,
            known_max: KNOWN_MAX,
            phase: Phase::Count,
            next: Revision { main: revision.saturating_add(1), sub: 0 },
            living: i64::try_from(view.keys()).unwrap_or(i64::MAX).saturating_add(bumped.into()),
            known: Known::default(),
            joiner: Joiner::default(),
            // etcd hashes the name of its bucket first.
            crc: crc::append(0, b"key"),
        };
        Ok(Self { view, work })
    }

    /// Looks at up to `rows_max` changes; the hash once all were seen.
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn step(&mut self, rows_max: usize) -> Result<Option<HashKv>, ReadError> {
        if self.work.revision < 0 {
            return Ok(Some(self.hash()));
        }
        let mut rows_left = rows_max.max(1);
        while self.walk(&mut rows_left)? {
            if self.work.turn() {
                return Ok(Some(self.hash()));
            }
        }
        Ok(None)
    }

    /// The hash, in one go.
    pub(super) fn finish(mut self) -> Result<HashKv, ReadError> {
        loop {
            if let Some(hash) = self.step(usize::MAX)? {
                return Ok(hash);
            }
        }
    }

    fn hash(&self) -> HashKv {
        HashKv {
            hash: self.work.crc,
            revision: self.work.revision,
            compact_revision: self.work.compacted,
            current_revision: self.view.revision(),
        }
    }

    /// Walks on in the present phase; true at its end.
    fn walk(&mut self, rows_left: &mut usize) -> Result<bool, StorageError> {
        let Self { view, work } = self;
        let to = if work.phase == Phase::Count { view.revision() } else { work.revision };
        for change in view.state().changes(work.next, to) {
            let (revision, trace) = change?;
            if work.phase == Phase::Join && work.known.to.is_some_and(|to| revision >= to) {
                break;
            }
            if *rows_left == 0 {
                work.next = revision;
                return Ok(false);
            }
            *rows_left -= 1;
            work.look_at(revision, &trace);
        }
        Ok(true)
    }
}

/// A hash in the making, without the rows.
#[derive(Debug)]
struct Work {
    revision: i64,
    /// The compaction accepted last.
    compacted: i64,
    /// The compaction whose rows are gone.
    finished: i64,
    known_max: usize,
    phase: Phase,
    /// Where the phase goes on.
    next: Revision,
    /// Keys that live at the hashed revision, once the first phase has counted back from the newest one. On the way
    /// there it can be negative.
    living: i64,
    known: Known,
    joiner: Joiner,
    crc: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Counts back the keys that live at the revision.
    Count,
    /// Learns what was superseded.
    Learn,
    /// Joins the sums of changes.
    Join,
}

impl Work {
    fn look_at(&mut self, revision: Revision, trace: &Trace) {
        match self.phase {
            Phase::Count => self.living -= trace.growth(),
            Phase::Learn => self.learn(revision, trace),
            Phase::Join => {
                if self.counts(revision, trace) {
                    self.crc = self.joiner.join(self.crc, trace.crc, trace.len);
                }
            }
        }
    }

    /// Goes to the next phase; true after the last.
    fn turn(&mut self) -> bool {
        match self.phase {
            Phase::Count => self.start_learning(),
            Phase::Learn => {
                self.known.sort();
                (self.phase, self.next) = (Phase::Join, self.known.from);
            }
            Phase::Join => match self.known.to.take() {
                None => return true,
                Some(to) => {
                    self.known.from = to;
                    self.start_learning();
                }
            },
        }
        false
    }

    fn start_learning(&mut self) {
        (self.phase, self.next) = (Phase::Learn, Revision { main: self.finished.max(0), sub: 0 });
    }

    fn learn(&mut self, revision: Revision, trace: &Trace) {
        if let Some(version) = trace.supersedes.filter(|version| version.main <= self.compacted) {
            self.known.learn(Superseded { version, removed: revision.main <= self.compacted }, self.known_max);
        }
    }

    /// Whether etcd would hash the row of this change.
    fn counts(&mut self, revision: Revision, trace: &Trace) -> bool {
        if revision.main > self.compacted {
            return true;
        }
        let lives = match self.known.look_up(revision) {
            None => true,
            Some(superseded) => self.living == 0 && !superseded.removed,
        };
        lives && !trace.tombstone
    }
}

/// Versions at or below the compaction that a later change superseded. An excerpt: those from one version to another.
#[derive(Debug, Default)]
struct Known {
    /// Changes below this one are joined already.
    from: Revision,
    /// Nothing is known from here on; no such place: all is known.
    to: Option<Revision>,
    /// While learning, the largest on top.
    heap: BinaryHeap<Superseded>,
    /// While joining, in ascending order.
    sorted: VecDeque<Superseded>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Superseded {
    version: Revision,
    /// By a change at or below the compaction: the row is gone, or on its way.
    removed: bool,
}

impl Known {
    /// Takes a version in, and gives up the largest when there are too many.
    fn learn(&mut self, superseded: Superseded, known_max: usize) {
        if superseded.version < self.from || self.to.is_some_and(|to| superseded.version >= to) {
            return;
        }
        self.heap.push(superseded);
        if self.heap.len() > known_max {
            self.to = self.heap.pop().map(|largest| largest.version);
        }
    }

    fn sort(&mut self) {
        self.sorted = std::mem::take(&mut self.heap).into_sorted_vec().into();
    }

    /// What is known about a version; asked in ascending order.
    fn look_up(&mut self, version: Revision) -> Option<Superseded> {
        while self.sorted.front()?.version < version {
            self.sorted.pop_front();
        }
        self.sorted.front().filter(|first| first.version == version).copied()
    }
}

/// The hashes taken just before the newest compactions, for etcd's compact-hash check.
#[derive(Clone, Debug, Default)]
pub struct CompactionHashes {
    /// The oldest first.
    hashes: VecDeque<HashKv>,
}

impl CompactionHashes {
    /// Remembers the hash of a compaction; the oldest of more than ten is forgotten.
    pub fn remember(&mut self, hash: HashKv) {
        self.hashes.push_back(hash);
        if self.hashes.len() > REMEMBERED_MAX {
            self.hashes.pop_front();
        }
    }

    /// The remembered hash of the compaction at `revision`.
    pub fn get(&self, revision: i64) -> Option<HashKv> {
        self.hashes.iter().rev().find(|hash| hash.revision == revision).copied()
    }

    /// All remembered hashes, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &HashKv> {
        self.hashes.iter().rev()
    }
}
