//! Sending: a fresh snapshot of the published state, in the form its receiver takes.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    apply::native,
    clock::{Clock as _, Stopwatch},
    metrics,
    pb::raftpb::{Message, Snapshot, SnapshotMetadata},
    raft::Input,
    storage::Engine as _,
    transport::{SendError, SnapshotForm, Transport},
    types::{LogIndex, MemberId, with_causes},
};

use super::{
    super::{State, durability, raft_thread::RaftOrder, shared::Shared},
    Snapshots,
    budget::Pace,
    export::ExportError,
    holds::Reach,
};

/// Blocks that are read ahead of the network, for each receiver.
pub(super) const BLOCKS_AHEAD: usize = 4;
/// How long after a failure raft hears of it: it will want to send again at once.
const FAILURE_PAUSE: Duration = Duration::from_secs(2);
/// How long a snapshot may serve receivers that come later.
pub(super) const SHARED_FOR: Duration = Duration::from_secs(10);

/// Why a snapshot was not sent.
#[derive(Debug, Error)]
enum Failure {
    #[error("the member is not connected with its peers")]
    NotConnected,
    #[error(transparent)]
    Behind(#[from] Behind),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("starting a thread that reads the state")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// There is no state any more, or not yet, that includes what a receiver needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the state was replaced meanwhile")]
pub(super) struct Behind;

/// What several receivers can share.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The newest snapshot being sent, and since when.
    newest: Mutex<Option<(Duration, Weak<State>)>>,
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
    pub(super) fn source(&self, shared: &Shared, index: LogIndex) -> Result<Arc<State>, Behind> {
        let now = shared.clock.monotonic();
        let mut newest = self.sources.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = newest.as_ref().filter(|(since, _)| now < *since + SHARED_FOR);
        if let Some(state) = fresh.and_then(|(_, state)| state.upgrade()).filter(|state| state.applied >= index) {
            return Ok(state);
        }
        let state = shared.published();
        if state.applied < index {
            return Err(Behind);
        }
        *newest = Some((now, Arc::downgrade(&state)));
        Ok(state)
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
        let rows = native::write(&state, disk_bytes).map(|block| block.map_err(io::Error::other));
        pass_on(&for_reader, Pace::for_members(&for_reader), rows, &blocks);
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
    message.snapshot = Some(exported.head().clone());
    let (blocks, body) = mpsc::channel(BLOCKS_AHEAD);
    let (for_reader, file) = (Arc::clone(shared), Arc::clone(&exported));
    let read = move || {
        pass_on(&for_reader, Pace::for_members(&for_reader), file.blocks(native::BLOCK_BYTES), &blocks);
    };
    super::super::spawn("snapshot-reader", read).map_err(Failure::Thread)?;
    transport.send_snapshot(message, SnapshotForm::Bbolt, ReceiverStream::new(body)).await?;
    Ok(index)
}

/// What goes before the data: where the state stands, and the members as etcd 3.5 looks for them.
pub(super) fn head_of(state: &State) -> Snapshot {
    let conf_state = Some(state.cluster.configuration().clone());
    let metadata = SnapshotMetadata { conf_state, index: state.applied.0, term: state.term.0 };
    Snapshot { data: durability::v2_tree(&state.cluster), metadata: Some(metadata) }
}

/// Reads blocks at this pace, until the receiver is gone.
pub(super) fn pass_on(
    shared: &Shared,
    mut pace: Pace,
    blocks: impl Iterator<Item = io::Result<Bytes>>,
    to: &mpsc::Sender<io::Result<Bytes>>,
) {
    for block in blocks {
        let (bytes, failed) = (block.as_ref().map_or(0, Bytes::len), block.is_err());
        // To wait for the receiver is no work.
        let rest = pace.due(shared, bytes);
        if to.blocking_send(block).is_err() || failed {
            return;
        }
        pace.rest(shared, rest);
    }
}

impl Shared {
    /// How far the log has come.
    pub(in crate::server) fn reach(&self) -> Reach {
        let bytes = self.log_bytes.load(std::sync::atomic::Ordering::Relaxed);
        Reach { applied: self.applied(), bytes }
    }
}
