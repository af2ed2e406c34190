//! Merging of table files in the background.
//!
//! fjall's own workers either flush and merge in one thread, so that writers wait for a merge, or hand merges around
//! between threads without rest. So its workers are told never to merge, and this thread does: it sleeps until a
//! memtable was handed to the flush, merges until there is nothing more to merge, and sleeps again.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use fjall::{AbstractTree, Database, Keyspace, compaction::Leveled};

use super::StorageError;

/// Size of a table file: small enough that merging one into the next level stays short.
const TABLE_BYTES: u64 = 16 << 20;
/// Files of the youngest level, which overlap, before they are merged into the next one.
const YOUNG_FILES_MAX: u8 = 4;
/// How often to look whether a flush under way is done.
const FLUSH_POLL: Duration = Duration::from_millis(50);

/// The thread, stopped and joined when this is dropped.
pub(super) struct Merger {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// A memtable was handed to the flush since the thread last looked.
    work: bool,
    stop: bool,
}

impl Merger {
    /// Starts the thread; `failed` hears why it stopped, if it had to.
    pub(super) fn start(
        database: Database,
        keyspace: Keyspace,
        failed: impl FnOnce(StorageError) + Send + 'static,
    ) -> Result<Self, StorageError> {
        let shared = Arc::new(Shared::default());
        shared.set(|state| state.work = true);
        let seen = Arc::clone(&shared);
        let work = move || {
            if let Err(cause) = run(&seen, &database, &keyspace) {
                failed(StorageError::engine("merging its files", cause));
            }
        };
        let thread = thread::Builder::new().name("state-merger".into()).spawn(work);
        let thread = thread.map_err(|cause| StorageError::engine("starting a thread", cause))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Says that a memtable was handed to the flush.
    pub(super) fn wake(&self) {
        self.shared.set(|state| state.work = true);
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        self.shared.set(|state| state.stop = true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed already, and nothing depends on its end.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits for work; false when the thread is to stop.
    fn wait(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(state, |state| !state.work && !state.stop);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.work = false;
        !state.stop
    }

    /// Waits a little; false when the thread is to stop.
    fn pause(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, FLUSH_POLL, |state| !state.stop);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    fn stopped(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stop
    }
}

fn run(shared: &Shared, database: &Database, keyspace: &Keyspace) -> Result<(), fjall::Error> {
    let strategy = Arc::new(strategy());
    while shared.wait() {
        loop {
            merge_all(shared, database, keyspace, &strategy)?;
            let flushing = keyspace.tree.sealed_memtable_count() > 0;
            if !flushing || !shared.pause() {
                break;
            }
        }
    }
    Ok(())
}

/// Merges until a round changes nothing.
fn merge_all(
    shared: &Shared,
    database: &Database,
    keyspace: &Keyspace,
    strategy: &Arc<Leveled>,
) -> Result<(), fjall::Error> {
    while !shared.stopped() {
        let before = keyspace.tree.current_version().id();
        let unread = database.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
        keyspace.tree.compact(strategy.clone(), unread)?;
        if keyspace.tree.current_version().id() == before {
            break;
        }
    }
    Ok(())
}

fn strategy() -> Leveled {
    Leveled::default().with_table_target_size(TABLE_BYTES).with_l0_threshold(YOUNG_FILES_MAX)
}

/// What fjall's own workers are given: a strategy that never finds enough to merge.
pub(super) fn never() -> Arc<Leveled> {
    Arc::new(Leveled::default().with_table_target_size(1 << 48).with_l0_threshold(u8::MAX))
}
