//! The thread that makes the state durable in the background and lets the log go behind it.
//!
//! A raft snapshot here is a statement: "the state on disk includes everything up to S". Order of durability: the state
//! is persisted, then `.snap` is written, then the log thread records the mark, and only then segments are released.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    time::Duration,
};

use crate::{clock::Clock as _, disk::FileDirectory, metrics, raft::Input, storage::Engine as _, types::LogIndex};

use super::{
    ServerFailure,
    durability::{KeeperError, Mark, WalOrder, save_snapshot},
    raft_thread::RaftOrder,
    shared::Shared,
    snapshots::Reach,
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

/// Bytes of entries that stay behind a snapshot for members that lag, however many `snapshot-catchup-entries` asks for.
const CATCHUP_BYTES_MAX: u64 = 256 << 20;

impl Keeper {
    /// The two sides; run the second in a thread of its own. One snapshot may wait while one is made.
    pub(super) fn new(shared: &Arc<Shared>, snap: FileDirectory) -> (Self, KeeperThread) {
        let (marks, orders) = mpsc::sync_channel(1);
        let keeper = Self { shared: Arc::clone(shared), marks, entries: 0, bytes: 0 };
        (keeper, KeeperThread { shared: Arc::clone(shared), snap, orders, saved: VecDeque::new() })
    }

    /// So many bytes of entries up to `index` are applied and published.
    pub(super) fn applied(&mut self, entries: usize, bytes: usize) {
        self.entries += u64::try_from(entries).unwrap_or(u64::MAX);
        self.bytes += bytes;
        self.shared.log_bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        let entries_max = self.shared.tunables().snapshot_entries;
        if self.entries >= entries_max || self.bytes >= self.shared.options.snapshot_bytes {
            self.mark();
        }
    }

    /// The state was replaced by one that is durable.
    pub(super) fn installed(&mut self) {
        (self.entries, self.bytes) = (0, 0);
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
    snap: FileDirectory,
    orders: Receiver<Mark>,
    /// Where the log stood at the last snapshots, oldest first: as many as are needed to count bytes.
    saved: VecDeque<Reach>,
}

impl KeeperThread {
    /// Runs until the apply thread is gone, then makes everything durable once more.
    pub(super) fn run(mut self) {
        let outcome = self.serve().and_then(|()| Ok(self.shared.engine().persist()?));
        if let Err(cause) = outcome {
            self.shared.fail(ServerFailure::Keeper { path: self.shared.engine().path().to_owned(), cause });
        }
    }

    fn serve(&mut self) -> Result<(), KeeperError> {
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
        let engine = self.shared.engine();
        self.shared.look_up_size(&engine);
        metrics::DB_OPEN_READS.set_count(engine.open_snapshots() as u64);
    }

    fn snapshot(&mut self, mark: &Mark) -> Result<(), KeeperError> {
        let files_kept = self.shared.options.snapshots_max;
        let record = save_snapshot(&self.shared.engine(), &self.snap, mark, files_kept)?;
        let release = self.release(mark.index);
        tracing::info!(snapshot_index = %mark.index, compact_index = %release, "compacted Raft logs");
        self.shared.order_wal(WalOrder::Snapshot { mark: record, release, segments_kept: 0 });
        self.shared.order_raft(RaftOrder::Input(Box::new(Input::Compact(release))));
        Ok(())
    }

    /// Up to where the log may go behind a snapshot at `index`: members that lag a little find what they miss, in
    /// entries and in bytes, and so do those that are being sent a snapshot.
    fn release(&mut self, index: LogIndex) -> LogIndex {
        let (now, reach) = (self.shared.clock.monotonic(), self.shared.reach());
        let by_entries = LogIndex(index.0.saturating_sub(self.shared.tunables().catchup_entries));
        let by_bytes = self.note(Reach { applied: index, ..reach }, reach.bytes);
        let limit = self.shared.snapshots.holds().limit(now, reach);
        by_entries.max(by_bytes).min(limit.unwrap_or(index))
    }

    /// The newest of the last snapshots behind which there are too many bytes already.
    fn note(&mut self, saved: Reach, bytes: u64) -> LogIndex {
        self.saved.push_back(saved);
        let far = |saved: &&Reach| bytes.saturating_sub(saved.bytes) > CATCHUP_BYTES_MAX;
        let far = self.saved.iter().take_while(far).count();
        let newest = far.checked_sub(1).and_then(|at| self.saved.get(at)).map(|saved| saved.applied);
        self.saved.drain(..far.saturating_sub(1));
        newest.unwrap_or_default()
    }
}
