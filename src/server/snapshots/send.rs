//! Sending: a fresh snapshot of the published state, in the form its receiver takes.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    apply::{exchange, native},
    clock::{Clock as _, Stopwatch},
    disk::{Directory as _, DiskFile, FileDirectory},
    metrics,
    pb::raftpb::{Message, Snapshot, SnapshotMetadata},
    raft::Input,
    storage::Engine as _,
    transport::{SendError, SnapshotForm, Transport},
    types::{LogIndex, MemberId},
};

use super::{
    super::{State, durability, raft_thread::RaftOrder, shared::Shared},
    Snapshots,
    holds::Reach,
    receive::with_causes,
    space::{self, Looks, NoRoom},
};

/// Blocks that are read ahead of the network, for each receiver.
const BLOCKS_AHEAD: usize = 4;
/// How long after a failure raft hears of it: it will want to send again at once.
const FAILURE_PAUSE: Duration = Duration::from_secs(2);
/// How long a snapshot may serve receivers that come later.
const SHARED_FOR: Duration = Duration::from_secs(10);

/// Why a snapshot was not sent.
#[derive(Debug, Error)]
enum Failure {
    #[error("the member is not connected with its peers")]
    NotConnected,
    #[error("the state was replaced meanwhile")]
    Behind,
    #[error("writing the state as etcd's database: {0}")]
    Export(String),
    #[error("no room for the state as etcd's database: {0}")]
    NoRoom(#[from] NoRoom),
    #[error("starting a thread that reads the state")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// What several receivers can share.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The newest snapshot being sent, and since when.
    newest: Mutex<Option<(Duration, Weak<State>)>>,
    /// The newest database being sent. Locked while one is written: one at a time.
    exported: tokio::sync::Mutex<Weak<Exported>>,
}

/// A state as etcd's database in a file that goes with the last receiver.
#[derive(Debug)]
struct Exported {
    directory: FileDirectory,
    name: String,
    since: Duration,
    /// What goes before it.
    snapshot: Snapshot,
}

impl Drop for Exported {
    fn drop(&mut self) {
        if let Err(cause) = self.directory.remove(&self.name) {
            tracing::warn!(path = ?self.directory.path(&self.name), %cause, "cannot remove a database that was sent");
        }
    }
}

impl Snapshots {
    /// Raft wants a snapshot sent to `message.to`. Its end is reported with [`Input::SnapshotSent`], whatever it is.
    ///
    /// Called by the raft thread at its work: nothing in here may wait.
    pub(in crate::server) fn send(&self, shared: &Arc<Shared>, message: &Message) {
        let Some(runtime) = self.runtime.get() else { return report(shared, MemberId(message.to), false) };
        runtime.spawn(carry(Arc::clone(shared), message.clone()));
    }

    /// A state at or above `index`, the one that others are being sent if it is new enough.
    fn source(&self, shared: &Shared, index: LogIndex) -> Result<Arc<State>, Failure> {
        let now = shared.clock.monotonic();
        let mut newest = self.sources.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = newest.as_ref().filter(|(since, _)| now < *since + SHARED_FOR);
        if let Some(state) = fresh.and_then(|(_, state)| state.upgrade()).filter(|state| state.applied >= index) {
            return Ok(state);
        }
        let state = shared.published();
        if state.applied < index {
            return Err(Failure::Behind);
        }
        *newest = Some((now, Arc::downgrade(&state)));
        Ok(state)
    }

    /// The state as a database, the one that others are being sent if it is new enough.
    async fn database(&self, shared: &Arc<Shared>, index: LogIndex) -> Result<Arc<Exported>, Failure> {
        let mut exported = self.sources.exported.lock().await;
        let now = shared.clock.monotonic();
        let usable = |exported: &Arc<Exported>| exported.index() >= index && now < exported.since + SHARED_FOR;
        if let Some(exported) = exported.upgrade().filter(usable) {
            return Ok(exported);
        }
        let (state, for_export) = (self.source(shared, index)?, Arc::clone(shared));
        let (done, fresh) = oneshot::channel();
        // Nobody listens any more if the member stops.
        let export = move || drop(done.send(export(&for_export, &state)));
        super::super::spawn("snapshot-export", export).map_err(Failure::Thread)?;
        let fresh = fresh.await.map_err(|_| Failure::Export("its thread panicked".to_owned()))??;
        *exported = Arc::downgrade(&fresh);
        Ok(fresh)
    }
}

impl Exported {
    fn index(&self) -> LogIndex {
        LogIndex(self.snapshot.metadata.as_ref().map_or(0, |metadata| metadata.index))
    }
}

/// Sends one snapshot and tells raft what became of it.
async fn carry(shared: Arc<Shared>, message: Message) {
    let to = MemberId(message.to);
    let begun = shared.clock.monotonic();
    // Everything behind this is needed; the state that is sent is not older.
    let reach = shared.reach();
    shared.snapshots.holds.begin(to, reach);
    let sent = tokio::select! {
        sent = attempt(&shared, message) => sent,
        () = shared.stopping.cancelled() => return,
    };
    let delivered = sent.is_ok();
    match sent {
        Ok(index) => {
            let took = shared.clock.monotonic().saturating_sub(begun);
            shared.snapshots.holds.arrived(to, shared.clock.monotonic());
            tracing::info!(%to, %index, ?took, "sent a snapshot");
        }
        Err(cause) => {
            tracing::warn!(%to, cause = %with_causes(&cause), "could not send a snapshot; raft will ask for another");
            shared.snapshots.holds.end(to);
            tokio::time::sleep(FAILURE_PAUSE).await;
        }
    }
    report(&shared, to, delivered);
}

fn report(shared: &Shared, to: MemberId, delivered: bool) {
    shared.order_raft(RaftOrder::Input(Box::new(Input::SnapshotSent { to, delivered })));
}

async fn attempt(shared: &Arc<Shared>, message: Message) -> Result<LogIndex, Failure> {
    let transport = shared.transport.load_full().ok_or(Failure::NotConnected)?;
    let least = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    let least = LogIndex(least.map_or(0, |metadata| metadata.index));
    let native = transport.capabilities(MemberId(message.to)).is_some_and(|can| can.native_snapshot);
    if native {
        send_native(shared, &transport, message, least).await
    } else {
        send_database(shared, &transport, message, least).await
    }
}

async fn send_native(
    shared: &Arc<Shared>,
    transport: &Transport,
    mut message: Message,
    least: LogIndex,
) -> Result<LogIndex, Failure> {
    let state = shared.snapshots.source(shared, least)?;
    let index = state.applied;
    message.snapshot = Some(head_of(&state));
    let (blocks, body) = mpsc::channel(BLOCKS_AHEAD);
    let for_reader = Arc::clone(shared);
    // The thread alone holds the state, so that it is let go of as soon as its last row is read.
    let read = move || {
        let disk_bytes = for_reader.engine().disk_bytes();
        pass_on(&for_reader, native::write(&state, disk_bytes).map(|block| block.map_err(io::Error::other)), &blocks);
    };
    super::super::spawn("snapshot-reader", read).map_err(Failure::Thread)?;
    let begun = Stopwatch::start();
    transport.send_snapshot(message, SnapshotForm::Native, ReceiverStream::new(body)).await?;
    metrics::BACKEND_SNAPSHOT.observe(begun.elapsed());
    Ok(index)
}

async fn send_database(
    shared: &Arc<Shared>,
    transport: &Transport,
    mut message: Message,
    least: LogIndex,
) -> Result<LogIndex, Failure> {
    let exported = shared.snapshots.database(shared, least).await?;
    let index = exported.index();
    message.snapshot = Some(exported.snapshot.clone());
    let (blocks, body) = mpsc::channel(BLOCKS_AHEAD);
    let (for_reader, file) = (Arc::clone(shared), Arc::clone(&exported));
    let read = move || pass_on(&for_reader, file_blocks(&file), &blocks);
    super::super::spawn("snapshot-reader", read).map_err(Failure::Thread)?;
    transport.send_snapshot(message, SnapshotForm::Bbolt, ReceiverStream::new(body)).await?;
    Ok(index)
}

/// What goes before the data: where the state stands, and the members as etcd 3.5 looks for them.
fn head_of(state: &State) -> Snapshot {
    let conf_state = Some(state.cluster.configuration().clone());
    let metadata = SnapshotMetadata { conf_state, index: state.applied.0, term: state.term.0 };
    Snapshot { data: durability::v2_tree(&state.cluster), metadata: Some(metadata) }
}

/// Reads blocks at the pace of the budget, until the receiver is gone.
fn pass_on(shared: &Shared, blocks: impl Iterator<Item = io::Result<Bytes>>, to: &mpsc::Sender<io::Result<Bytes>>) {
    let mut begun = shared.clock.monotonic();
    for block in blocks {
        let (bytes, failed) = (block.as_ref().map_or(0, Bytes::len), block.is_err());
        let now = shared.clock.monotonic();
        if to.blocking_send(block).is_err() || failed {
            return;
        }
        std::thread::sleep(shared.snapshots.budget.rest(now, bytes, now.saturating_sub(begun)));
        begun = shared.clock.monotonic();
    }
}

fn file_blocks(exported: &Exported) -> impl Iterator<Item = io::Result<Bytes>> {
    let mut file = exported.directory.open(&exported.name).map_err(Some);
    let mut offset = 0;
    std::iter::from_fn(move || {
        let file = match &mut file {
            Ok(file) => file,
            Err(cause) => return cause.take().map(Err),
        };
        let mut block = vec![0; native::BLOCK_BYTES];
        match file.read_at(&mut block, offset) {
            Ok(0) => None,
            Ok(read) => {
                block.truncate(read);
                offset += read as u64;
                Some(Ok(block.into()))
            }
            Err(cause) => Some(Err(cause)),
        }
    })
}

/// Writes `state` as a database, at the pace of the budget, if there is room.
fn export(shared: &Arc<Shared>, state: &State) -> Result<Arc<Exported>, Failure> {
    // An estimate: nothing is begun that cannot be finished, and what turns out longer is given up on the way.
    let place = &shared.snapshots.place;
    space::check(place, shared.in_use_bytes.load(Ordering::Relaxed).min(shared.engine().disk_bytes()))?;
    let begun = shared.clock.monotonic();
    let directory = FileDirectory::new(&place.scratch);
    let name = format!("{:016x}-{}.db", state.applied.0, begun.as_nanos());
    let failed = |cause: &dyn std::error::Error| Failure::Export(with_causes(cause));
    let file = directory.create(&name).map_err(|cause| failed(&cause))?;
    let exported = Exported { directory, name, since: begun, snapshot: head_of(state) };
    let no_room = Arc::new(OnceLock::new());
    let file = Paced { file, shared: Arc::clone(shared), looks: Mutex::default(), no_room: Arc::clone(&no_room) };
    exchange::export(state, file).map_err(|cause| no_room.get().cloned().map_or_else(|| failed(&cause), Into::into))?;
    metrics::BACKEND_SNAPSHOT.observe(shared.clock.monotonic().saturating_sub(begun));
    Ok(Arc::new(exported))
}

/// A file that is written at the pace of the budget, as long as there is room.
struct Paced {
    file: <FileDirectory as crate::disk::Directory>::File,
    shared: Arc<Shared>,
    looks: Mutex<Looks>,
    /// Why it was given up.
    no_room: Arc<OnceLock<NoRoom>>,
}

impl Paced {
    fn check_room(&self, bytes: u64) -> io::Result<()> {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let covered = looks.cover(bytes, |ahead| space::check(&self.shared.snapshots.place, ahead));
        covered.map_err(|cause| {
            let text = cause.to_string();
            self.no_room.get_or_init(|| cause);
            io::Error::new(io::ErrorKind::StorageFull, text)
        })
    }
}

impl DiskFile for Paced {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_room(bytes.len() as u64)?;
        self.file.write_at(bytes, offset)?;
        let now = self.shared.clock.monotonic();
        std::thread::sleep(self.shared.snapshots.budget.rest(now, bytes.len(), Duration::ZERO));
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.file.allocate(size)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.file.set_size(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}

impl Shared {
    /// How far the log has come.
    pub(in crate::server) fn reach(&self) -> Reach {
        let bytes = self.log_bytes.load(std::sync::atomic::Ordering::Relaxed);
        Reach { applied: self.applied(), bytes }
    }
}
