//! The two threads that keep fjall's files in order.
//!
//! fjall's own workers either flush and merge in one thread, so that writers wait for a merge, or hand merges around
//! between threads without rest. So its only worker flushes and never merges, and two threads of ours sleep until they are
//! woken: the *rotator* replaces a full memtable, which frees an old one and takes milliseconds that no writer should
//! spend; the *merger* merges table files until there is nothing left to merge.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use fjall::{AbstractTree, Database, Keyspace, PersistMode, compaction::Leveled};

use super::StorageError;

/// Size of a table file: small enough that merging one into the next level stays short.
const TABLE_BYTES: u64 = 16 << 20;
/// Files of the youngest level, which overlap, before they are merged into the next one.
const YOUNG_FILES_MAX: u8 = 4;
/// How often the merger looks whether a flush under way is done.
const FLUSH_POLL: Duration = Duration::from_millis(50);

/// A thread that sleeps until it is woken; stopped and joined when this is dropped.
pub(super) struct Worker {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

/// What a worker waits for.
#[derive(Default)]
pub(super) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// There may be something to do.
    work: bool,
    stop: bool,
}

impl Worker {
    /// Starts the thread `name`, awake. It does `work` each time it is woken, until that fails: `failed` hears why.
    pub(super) fn start(
        name: &str,
        mut work: impl FnMut(&Signal) -> Result<(), fjall::Error> + Send + 'static,
        failed: impl FnOnce(fjall::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let signal = Arc::new(Signal::default());
        signal.wake();
        let seen = Arc::clone(&signal);
        let run = move || {
            let mut outcome = Ok(());
            while outcome.is_ok() && seen.wait() {
                outcome = work(&seen);
            }
            if let Err(cause) = outcome {
                failed(cause);
            }
        };
        let thread = thread::Builder::new().name(name.into()).spawn(run)?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// Says that there may be something to do.
    pub(super) fn wake(&self) {
        self.signal.wake();
    }

    /// What wakes the thread, for another thread.
    pub(super) fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.signal)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.signal.set(|state| state.stop = true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed already, and nothing depends on its end.
            drop(thread.join());
        }
    }
}

impl Signal {
    /// Says that there may be something to do.
    pub(super) fn wake(&self) {
        self.set(|state| state.work = true);
    }

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

/// The database, and where its files are.
pub(super) struct Files {
    pub(super) path: PathBuf,
    pub(super) database: Database,
    pub(super) keyspace: Keyspace,
    /// Size from which a memtable is full.
    pub(super) memtable_bytes: u64,
}

impl Files {
    /// A failure of fjall on these files.
    pub(super) fn error(&self, action: &'static str, cause: fjall::Error) -> StorageError {
        StorageError::of_fjall(&self.path, action, cause)
    }

    /// Bytes in the memtable that is written to.
    pub(super) fn memtable_len(&self) -> u64 {
        self.keyspace.tree.active_memtable().size()
    }

    /// Writes the journal out without holding up writers: fjall syncs it with its lock held, before every flush and when
    /// asked to, and finds little left to do then.
    pub(super) fn sync_ahead(&self) -> Result<(), fjall::Error> {
        self.database.persist(PersistMode::Buffer)?;
        for entry in fs::read_dir(&self.path)? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "jnl") {
                match fs::File::open(file) {
                    Ok(journal) => journal.sync_data()?,
                    // Its rows have reached table files since the directory was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Replaces the memtable if it is full, and says so to the merger.
    pub(super) fn rotate(&self, merger: &Signal) -> Result<(), fjall::Error> {
        if self.memtable_len() > self.memtable_bytes {
            self.sync_ahead()?;
            self.keyspace.rotate_memtable()?;
            merger.wake();
        }
        Ok(())
    }

    /// Writes everything that is only in memory to table files, and all table files anew without what is not needed. The
    /// memtable must not be empty: it is when it is replaced that fjall looks which rows somebody may still read.
    pub(super) fn reclaim(&self) -> Result<(), fjall::Error> {
        self.sync_ahead()?;
        self.keyspace.rotate_memtable()?;
        while self.keyspace.tree.sealed_memtable_count() > 0 {
            self.database.persist(PersistMode::Buffer)?;
            thread::sleep(FLUSH_POLL);
        }
        let unneeded = self.database.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
        self.keyspace.tree.major_compact(TABLE_BYTES, unneeded)?;
        Ok(())
    }

    /// Merges until there is nothing to merge and no flush under way.
    pub(super) fn merge(&self, signal: &Signal) -> Result<(), fjall::Error> {
        let strategy = Arc::new(strategy());
        loop {
            self.merge_all(signal, &strategy)?;
            let flushing = self.keyspace.tree.sealed_memtable_count() > 0;
            if !flushing || !signal.pause() {
                return Ok(());
            }
        }
    }

    /// Merges until a round changes nothing.
    fn merge_all(&self, signal: &Signal, strategy: &Arc<Leveled>) -> Result<(), fjall::Error> {
        let tree = &self.keyspace.tree;
        while !signal.stopped() {
            let before = tree.current_version().id();
            tree.compact(strategy.clone(), self.database.supervisor.snapshot_tracker.get_seqno_safe_to_gc())?;
            if tree.current_version().id() == before {
                break;
            }
        }
        Ok(())
    }
}

fn strategy() -> Leveled {
    Leveled::default().with_table_target_size(TABLE_BYTES).with_l0_threshold(YOUNG_FILES_MAX)
}

/// What fjall's own worker is given: a strategy that never finds enough to merge.
pub(super) fn never() -> Arc<Leveled> {
    Arc::new(Leveled::default().with_table_target_size(1 << 48).with_l0_threshold(u8::MAX))
}
