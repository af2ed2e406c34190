//! The thread that makes the state durable in the background and lets the log go behind it.
//!
//! A raft snapshot here is a statement: "the state on disk includes everything up to S". Order of durability: the state
//! is persisted, then `.snap` is written, then the log thread records the mark, and only then segments are released.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    time::Duration,
};

use crate::{
    disk::FileDirectory,
    metrics,
    raft::Input,
    storage::{Engine, FjallEngine},
    types::LogIndex,
};

use super::{
    ServerFailure,
    durability::{KeeperError, Mark, WalOrder, save_snapshot},
    raft_thread::RaftOrder,
    shared::Shared,
};

/// Bytes of entries after which the log is compacted, however few they are: replay after a crash stays short.
pub const SNAPSHOT_BYTES_DEFAULT: usize = 64 << 20;
/// How often the size on disk is looked up.
const SIZE_INTERVAL: Duration = Duration::from_millis(500);

/// The apply thread's side: counts, and asks for a snapshot when it is time.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    marks: SyncSender<Mark>,
    entries: u64,
    bytes: usize,
}

impl Keeper {
    /// The two sides; run the second in a thread of its own. One snapshot may wait while one is made.
    pub(super) fn new(shared: &Arc<Shared>, engine: FjallEngine, snap: FileDirectory) -> (Self, KeeperThread) {
        let (marks, orders) = mpsc::sync_channel(1);
        let keeper = Self { shared: Arc::clone(shared), marks, entries: 0, bytes: 0 };
        (keeper, KeeperThread { shared: Arc::clone(shared), engine, snap, orders })
    }

    /// So many bytes of entries up to `index` are applied and published.
    pub(super) fn applied(&mut self, entries: usize, bytes: usize) {
        self.entries += u64::try_from(entries).unwrap_or(u64::MAX);
        self.bytes += bytes;
        let options = &self.shared.options;
        if self.entries >= options.snapshot_entries || self.bytes >= options.snapshot_bytes {
            self.mark();
        }
    }

    /// Asks for a snapshot of the published state; while one is waiting already, the next group asks again.
    pub(super) fn mark(&mut self) {
        let state = self.shared.published();
        let mark = Mark { index: state.applied, term: state.term, cluster: Arc::clone(&state.cluster) };
        match self.marks.try_send(mark) {
            Ok(()) => (self.entries, self.bytes) = (0, 0),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// What runs in the keeper's thread.
#[derive(Debug)]
pub(super) struct KeeperThread {
    shared: Arc<Shared>,
    engine: FjallEngine,
    snap: FileDirectory,
    orders: Receiver<Mark>,
}

impl KeeperThread {
    /// Runs until the apply thread is gone, then makes everything durable once more.
    pub(super) fn run(self) {
        let outcome = self.serve().and_then(|()| Ok(self.engine.persist()?));
        if let Err(cause) = outcome {
            self.shared.fail(ServerFailure::Keeper(cause));
        }
    }

    fn serve(&self) -> Result<(), KeeperError> {
        loop {
            self.look_up_size();
            match self.orders.recv_timeout(SIZE_INTERVAL) {
                Ok(mark) => self.snapshot(&mark)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn look_up_size(&self) {
        let bytes = self.engine.disk_bytes();
        self.shared.disk_bytes.store(bytes, Ordering::Relaxed);
        metrics::DB_TOTAL_BYTES.set_count(bytes);
        metrics::DB_IN_USE_BYTES.set_count(bytes);
        metrics::DB_OPEN_READS.set_count(self.engine.open_snapshots() as u64);
    }

    fn snapshot(&self, mark: &Mark) -> Result<(), KeeperError> {
        let options = &self.shared.options;
        let record = save_snapshot(&self.engine, &self.snap, mark, options.snapshots_max)?;
        let release = LogIndex(mark.index.0.saturating_sub(options.catchup_entries));
        self.shared.order_wal(WalOrder::Snapshot { mark: record, release, segments_kept: 0 });
        self.shared.order_raft(RaftOrder::Input(Box::new(Input::Compact(release))));
        Ok(())
    }
}
