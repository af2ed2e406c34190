//! The hashes of compactions: taken beside the apply thread, remembered in memory.
//!
//! As in etcd, they are what `HashKV` said of the compacted revision just before, and it goes on saying so for the last
//! ten: members that compacted at the same revision can be compared there, however far apart they are. A hash reads a row
//! for every change that is kept, so it is taken only where somebody may ask for it: where the check is on, or a member of
//! etcd takes part. One is taken at a time; a compaction accepted meanwhile gets none, as in etcd, and the checks pass over
//! it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Error;
use tokio::{select, sync::Notify};

use crate::{
    apply::{Applied, Effect},
    mvcc::{CompactionHashes, HashKv, HashWork, View},
    storage::{Engine, FjallEngine},
};

use super::{Handle, ServerError, State, shared::Shared};

/// Changes looked at before a pause.
const ROWS_PER_STEP: usize = 8 * 1024;
/// Pause between two steps, so that whoever serves clients gets the processor.
const PAUSE: Duration = Duration::from_millis(1);

/// A hash to take: of a compaction, and the one before it.
#[derive(Debug)]
struct Wanted {
    view: View<<FjallEngine as Engine>::Snapshot>,
    revision: i64,
    previous: i64,
}

/// What is remembered, and what is to be taken.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    memory: Mutex<Memory>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Memory {
    remembered: CompactionHashes,
    wanted: Option<Wanted>,
    /// One is being taken or waits for it.
    busy: bool,
    /// Counts the states of this member: what was taken of an earlier one says nothing about this one.
    state: u64,
}

impl Hashes {
    /// The remembered hash of the compaction at `revision`.
    pub(super) fn get(&self, revision: i64) -> Option<HashKv> {
        self.lock().remembered.get(revision)
    }

    /// All that are remembered, the newest first.
    pub(super) fn newest_first(&self) -> Vec<HashKv> {
        self.lock().remembered.newest_first().copied().collect()
    }

    /// The state of this member is another one now.
    pub(super) fn forget(&self) {
        let mut memory = self.lock();
        *memory = Memory { state: memory.state + 1, ..Memory::default() };
    }

    fn want(&self, wanted: Wanted) {
        let mut memory = self.lock();
        if memory.busy {
            let compact_revision = wanted.revision;
            tracing::info!(compact_revision, "previous compaction was interrupted, skip storing compaction hash value");
            return;
        }
        (memory.busy, memory.wanted) = (true, Some(wanted));
        self.wanted.notify_one();
    }

    fn take(&self) -> Option<(Wanted, u64)> {
        let mut memory = self.lock();
        Some((memory.wanted.take()?, memory.state))
    }

    /// `hash` was taken of the state of that number; nothing if it could not be.
    fn done(&self, hash: Option<HashKv>, state: u64) {
        let mut memory = self.lock();
        if memory.state != state {
            return;
        }
        memory.busy = false;
        if let Some(hash) = hash {
            let HashKv { hash: value, revision, compact_revision, .. } = hash;
            tracing::info!(hash = value, revision, compact_revision, "storing new hash");
            memory.remembered.remember(hash);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Orders the hashes of the compactions in `applied`, a group of entries between the states `before` and `after`.
    /// Called by whoever applies, before `after` is published.
    pub(super) fn want_hashes(&self, before: &State, after: &State, applied: &[Applied]) {
        let revisions = applied.iter().flat_map(|entry| &entry.effects).filter_map(|effect| match effect {
            Effect::CompactionRequested { revision } => Some(*revision),
            _ => None,
        });
        let mut previous = before.view.compact_revision();
        for revision in revisions {
            if self.tunables().compact_hash_check.is_some() || self.is_mixed() {
                self.hashes.want(Wanted { view: after.view.clone(), revision, previous });
            }
            previous = revision;
        }
    }

    fn take_hash(&self, wanted: Wanted) -> Result<Option<HashKv>, ServerError> {
        let Wanted { view, revision, previous } = wanted;
        let mut work = HashWork::of_compaction(view, revision, previous)?;
        while !self.is_stopping() {
            if let Some(hash) = work.step(ROWS_PER_STEP)? {
                return Ok(Some(hash));
            }
            thread::sleep(PAUSE);
        }
        Ok(None)
    }
}

/// Takes the hashes of compactions for as long as the member runs.
///
/// # Errors
/// Never; of a store that cannot be read others will tell.
pub async fn hash_compactions(handle: Handle) -> Result<(), Error> {
    loop {
        select! {
            () = handle.shared.hashes.wanted.notified() => {}
            () = handle.stopped() => return Ok(()),
        }
        let Some((wanted, state)) = handle.shared.hashes.take() else { continue };
        let (revision, shared) = (wanted.revision, handle.shared.clone());
        let hash = handle.blocking(move || shared.take_hash(wanted)).await.unwrap_or_else(|why| {
            tracing::warn!(revision, %why, "failed to take the hash of a compaction");
            None
        });
        handle.shared.hashes.done(hash, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::Store;

    fn wanted(engine: &FjallEngine, revision: i64) -> Wanted {
        let snapshot = engine.snapshot();
        let store = Store::open(&snapshot).unwrap();
        Wanted { view: store.view(snapshot), revision, previous: -1 }
    }

    fn hash(revision: i64) -> HashKv {
        HashKv { hash: 5, revision, compact_revision: -1, current_revision: revision }
    }

    #[test]
    fn one_hash_is_taken_at_a_time_and_one_of_an_earlier_state_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let engine = FjallEngine::open(&dir.path().join("state"), &crate::storage::FjallOptions::default()).unwrap();
        let hashes = Hashes::default();
        hashes.want(wanted(&engine, 2));
        hashes.want(wanted(&engine, 3));
        let (first, state) = hashes.take().unwrap();
        assert_eq!((first.revision, hashes.take().is_none()), (2, true));
        hashes.want(wanted(&engine, 4));
        hashes.done(Some(hash(2)), state);
        assert_eq!((hashes.get(2), hashes.get(3), hashes.take().is_none()), (Some(hash(2)), None, true));

        hashes.want(wanted(&engine, 5));
        let (_, state) = hashes.take().unwrap();
        hashes.forget();
        hashes.done(Some(hash(5)), state);
        assert_eq!(hashes.newest_first(), []);
        hashes.want(wanted(&engine, 6));
        assert!(hashes.take().is_some(), "a new state begins anew");
    }
}
