//! Receiving: the data goes straight into a generation of its own, which raft hears of once it is durable.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::{
    apply::{
        self, Applier, ApplyError,
        exchange::{self, ExchangeError, ImportOptions},
        native::{self, NativeError},
    },
    clock::{Clock as _, Stopwatch},
    disk::{Directory as _, DiskFile as _, FileDirectory},
    metrics,
    pb::raftpb::{ConfState, Message, Snapshot, SnapshotMetadata},
    storage::{Engine as _, FjallEngine, StorageError, sorter::SORT_BYTES_DEFAULT},
    transport::{SnapshotBody, SnapshotForm, SnapshotRefusal},
    types::{ClusterId, LogIndex, MemberId, Term, with_causes},
};

use super::{
    super::{
        OpenError, ServerFailure, datadir::DataDirError, durability::Mark, generations::Generations, open,
        raft_thread::RaftOrder, shared::Shared,
    },
    Place, Snapshots, Staged,
    space::{self, Looks, NoRoom},
    turns::{self, Claim, NoTurn, Turn},
};

/// Pieces of a body that wait to be written: each is what the network brought at once, some tens of kilobytes.
const PIECES_AHEAD: usize = 16;
/// The received database, for as long as it is loaded.
const DATABASE: &str = "received.db";
/// Space that loading a database takes beside it, as a multiple of its size: the rows to be sorted, and the new state.
const LOAD_FACTOR: u64 = 2;

/// Why a snapshot was not staged.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Space(#[from] NoRoom),
    #[error("receiving its data")]
    Body(#[source] io::Error),
    #[error("{action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error(transparent)]
    Native(#[from] NativeError),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Directory(#[from] DataDirError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("it is one of cluster {found}, and this member belongs to {own}")]
    OtherCluster { found: ClusterId, own: ClusterId },
    #[error("its data stand at index {index} and term {term}, and its message says otherwise")]
    OtherPosition { index: LogIndex, term: Term },
    #[error("its data and its message name different members")]
    OtherConfiguration,
    #[error(transparent)]
    Turn(#[from] NoTurn),
}

/// A piece of a body, or its end: a body that just stops has broken off.
enum Piece {
    Bytes(Bytes),
    Failed(io::Error),
    End,
}

/// What is known of a snapshot before its data come.
struct Arriving {
    metadata: SnapshotMetadata,
    form: SnapshotForm,
    cluster: ClusterId,
    turn: Turn,
}

impl Snapshots {
    /// A snapshot is arriving; resolves once it is staged durably and raft has it.
    pub(in crate::server) fn receive(
        shared: Arc<Shared>,
        message: Message,
        form: SnapshotForm,
        body: SnapshotBody,
    ) -> BoxFuture<'static, Result<(), SnapshotRefusal>> {
        Box::pin(receive(shared, message, form, body))
    }
}

async fn receive(
    shared: Arc<Shared>,
    mut message: Message,
    form: SnapshotForm,
    body: SnapshotBody,
) -> Result<(), SnapshotRefusal> {
    let refused = |text: &str| SnapshotRefusal::Save(text.to_owned());
    let Snapshot { data, metadata } = message.snapshot.take().unwrap_or_default();
    let metadata = metadata.ok_or_else(|| refused("it has no metadata"))?;
    let (from, term) = (MemberId(message.from), Term(message.term));
    turns::check(from, term, shared.standing()).map_err(|why| refused(&why.to_string()))?;
    exchange::check_tree(&data).map_err(|cause| SnapshotRefusal::Save(cause.to_string()))?;
    // Raft reads the metadata; the members come from the data.
    message.snapshot = Some(Snapshot { data: Bytes::new(), metadata: Some(metadata.clone()) });
    let passes_by = || LogIndex(metadata.index) <= shared.committed();
    if passes_by() {
        return pass_by(&shared, message, form, body).await;
    }
    let turn = shared.snapshots.turns.take(from, term, || shared.standing()).await;
    let turn = turn.map_err(|why| refused(&why.to_string()))?;
    if passes_by() {
        // It came another way while this one waited.
        drop(turn);
        return pass_by(&shared, message, form, body).await;
    }
    let (index, begun) = (metadata.index, shared.clock.monotonic());
    tracing::info!(%from, index, ?form, "receiving a snapshot");
    let arriving = Arriving { metadata, form, cluster: shared.identity.cluster, turn };
    let staged = staged(&shared, arriving, body).await.inspect_err(|refusal| {
        tracing::warn!(%from, index, cause = %refusal, "a snapshot was not received");
    })?;
    let took = shared.clock.monotonic().saturating_sub(begun);
    metrics::SNAP_DB_SAVE.observe(took);
    tracing::info!(%from, index, ?took, "received a snapshot");
    tell_raft(&shared, message, Some(staged)).await
}

/// What it holds is here already: raft answers with how far this member has come. A member of etcd takes an answer before
/// its last byte for a broken connection.
async fn pass_by(
    shared: &Shared,
    message: Message,
    form: SnapshotForm,
    mut body: SnapshotBody,
) -> Result<(), SnapshotRefusal> {
    if form == SnapshotForm::Bbolt {
        while body.piece().await.map_err(|cause| SnapshotRefusal::Save(cause.to_string()))?.is_some() {}
    }
    tell_raft(shared, message, None).await
}

/// Resolves when raft has stepped the message. What it does not want of a staged snapshot is removed again.
async fn tell_raft(shared: &Shared, message: Message, staged: Option<Box<Staged>>) -> Result<(), SnapshotRefusal> {
    let (done, stepped) = oneshot::channel();
    shared.order_raft(RaftOrder::Snapshot { message: Box::new(message), staged, done });
    stepped.await.map_err(|_| SnapshotRefusal::Process("the member is stopping".to_owned()))
}

/// Loads the body in a thread of its own, which the network feeds.
async fn staged(shared: &Shared, arriving: Arriving, mut body: SnapshotBody) -> Result<Box<Staged>, SnapshotRefusal> {
    let place = shared.snapshots.place.clone();
    let (pieces, to_write) = mpsc::channel(PIECES_AHEAD);
    let (done, staged) = oneshot::channel();
    let claim = Arc::clone(arriving.turn.claim());
    let received = Pieces { arrived: to_write, claim: Arc::clone(&claim), ended: false };
    // Nobody listens any more if the member stops, or if another snapshot has taken the turn.
    let stage = move || drop(done.send(stage(&place, arriving, received)));
    let save = |cause: &dyn std::error::Error| SnapshotRefusal::Save(with_causes(cause));
    super::super::spawn("snapshot-writer", stage).map_err(|cause| save(&cause))?;
    let feed = async {
        loop {
            claim.wait();
            let piece = match body.piece().await {
                Ok(Some(bytes)) => {
                    claim.came(bytes.len());
                    Piece::Bytes(bytes)
                }
                Ok(None) => Piece::End,
                Err(cause) => Piece::Failed(cause),
            };
            let last = !matches!(piece, Piece::Bytes(_));
            // The writer has failed and says why, or has all it wants.
            if pieces.send(piece).await.is_err() || last {
                break;
            }
        }
        drop(pieces);
        staged.await
    };
    let staged = tokio::select! {
        staged = feed => staged,
        () = shared.stopping.cancelled() => return Err(SnapshotRefusal::Process("the member is stopping".to_owned())),
        // The writer sees a body that breaks off, and cleans up.
        () = claim.displaced() => return Err(save(&NoTurn::Displaced)),
    };
    let staged = staged.map_err(|_| SnapshotRefusal::Save("its thread panicked".to_owned()))?;
    staged.map_err(|cause| {
        let refusal = save(&cause);
        // Its sender would try for ever, and this member would serve nobody.
        if let Some(why) = cause.hopeless() {
            shared.fail(ServerFailure::Unservable(why));
        }
        refusal
    })
}

impl Failure {
    /// A failure at the received database.
    fn file(action: &'static str, scratch: &FileDirectory) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = scratch.path(DATABASE);
        move |cause| Self::File { action, path, cause }
    }

    /// Why no snapshot of this cluster can be taken before an operator has acted, if that is so.
    fn hopeless(self) -> Option<ApplyError> {
        match self {
            Self::Exchange(ExchangeError::Open(why)) | Self::Apply(ApplyError::Open(why)) => {
                matches!(why, apply::OpenError::VersionTooOld { .. }).then_some(why.into())
            }
            _ => None,
        }
    }
}

/// The pieces of a body as a thread reads them.
struct Pieces {
    arrived: mpsc::Receiver<Piece>,
    claim: Arc<Claim>,
    ended: bool,
}

impl Iterator for Pieces {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.ended {
            return None;
        }
        let piece = self.arrived.blocking_recv();
        self.ended = !matches!(piece, Some(Piece::Bytes(_)));
        match piece {
            Some(Piece::Bytes(bytes)) => Some(Ok(bytes)),
            Some(Piece::Failed(cause)) => Some(Err(cause)),
            Some(Piece::End) => self.claim.settle().err().map(|why| Err(io::Error::other(why))),
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Stages a snapshot, or leaves nothing behind.
fn stage(place: &Place, arriving: Arriving, pieces: Pieces) -> Result<Box<Staged>, Failure> {
    let generation = place.generations.create()?;
    stage_in(place, &generation, arriving, pieces).inspect_err(|_| {
        if let Err(cause) = place.generations.remove(&generation) {
            tracing::warn!(path = ?generation, %cause, "cannot remove half a snapshot; the next start will");
        }
    })
}

/// The order of the steps: raft may hear of it when this returns.
fn stage_in(place: &Place, generation: &Path, arriving: Arriving, pieces: Pieces) -> Result<Box<Staged>, Failure> {
    // 1. The rows, where they stand included, become durable.
    let engine = open::open_engine(generation, &place.options)?;
    match arriving.form {
        SnapshotForm::Native => load_native(place, &engine, &arriving, pieces)?,
        SnapshotForm::Bbolt => load_database(place, &engine, &arriving, pieces)?,
    }
    // Whatever else comes from now on, this one is handed over.
    arriving.turn.claim().settle()?;
    // 2. So do their names: from the moment the log has the snapshot, a start looks for them.
    Generations::sync(generation)?;
    // 3. They are a state this member can go on with, and the one that was announced.
    let applier = Applier::open(engine.clone(), place.apply)?;
    let leases = applier.leases()?;
    let state = applier.published();
    check(&state.cluster, state.applied, state.term, &arriving)?;
    let mark = Mark { index: state.applied, term: state.term, cluster: state.cluster };
    let generation = generation.to_owned();
    Ok(Box::new(Staged { generation, engine, applier, leases, mark, _turn: arriving.turn }))
}

fn check(
    cluster: &crate::membership::Cluster,
    index: LogIndex,
    term: Term,
    arriving: &Arriving,
) -> Result<(), Failure> {
    if cluster.id() != arriving.cluster {
        return Err(Failure::OtherCluster { found: cluster.id(), own: arriving.cluster });
    }
    if (index.0, term.0) != (arriving.metadata.index, arriving.metadata.term) {
        return Err(Failure::OtherPosition { index, term });
    }
    let announced = arriving.metadata.conf_state.as_ref();
    if announced.map(sorted) != Some(sorted(cluster.configuration())) {
        return Err(Failure::OtherConfiguration);
    }
    Ok(())
}

/// Voters and learners, in any order.
fn sorted(configuration: &ConfState) -> (Vec<u64>, Vec<u64>) {
    let (mut voters, mut learners) = (configuration.voters.clone(), configuration.learners.clone());
    voters.sort_unstable();
    learners.sort_unstable();
    (voters, learners)
}

fn load_native(place: &Place, engine: &FjallEngine, arriving: &Arriving, pieces: Pieces) -> Result<(), Failure> {
    let (head, rows) = native::read(Watched::new(place, pieces))?;
    if head.cluster != arriving.cluster {
        return Err(Failure::OtherCluster { found: head.cluster, own: arriving.cluster });
    }
    if (head.index.0, head.term.0) != (arriving.metadata.index, arriving.metadata.term) {
        return Err(Failure::OtherPosition { index: head.index, term: head.term });
    }
    space::check(place, head.disk_bytes)?;
    Ok(engine.ingest(&mut { rows })?)
}

fn load_database(place: &Place, engine: &FjallEngine, arriving: &Arriving, pieces: Pieces) -> Result<(), Failure> {
    let scratch = FileDirectory::new(&place.scratch);
    let loaded = save_database(place, &scratch, pieces).and_then(|bytes| {
        space::check(place, bytes.saturating_mul(LOAD_FACTOR))?;
        let options = ImportOptions {
            cluster: arriving.cluster,
            server_version: place.apply.server_version,
            index: Some(LogIndex(arriving.metadata.index)),
            configuration: arriving.metadata.conf_state.as_ref(),
            memory_bytes: SORT_BYTES_DEFAULT,
        };
        let file = scratch.open(DATABASE).map_err(Failure::file("opening", &scratch))?;
        exchange::import(file, engine, &scratch, &options)?;
        Ok(())
    });
    if let Err(cause) = scratch.remove(DATABASE)
        && cause.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = ?scratch.path(DATABASE), %cause, "cannot remove a received database; the next start will");
    }
    loaded
}

/// Writes the database as it comes and returns its length.
fn save_database(place: &Place, scratch: &FileDirectory, pieces: Pieces) -> Result<u64, Failure> {
    let file = scratch.create(DATABASE).map_err(Failure::file("creating", scratch))?;
    let mut bytes = 0;
    for piece in Watched::new(place, pieces) {
        let piece = piece.map_err(Failure::Body)?;
        file.write_at(&piece, bytes).map_err(Failure::file("writing", scratch))?;
        bytes += piece.len() as u64;
    }
    let written = Stopwatch::start();
    file.sync().map_err(Failure::file("syncing", scratch))?;
    metrics::SNAP_DB_FSYNC.observe(written.elapsed());
    Ok(bytes)
}

/// Pieces that stop coming when the disk is about to be full.
struct Watched<'a> {
    place: &'a Place,
    pieces: Pieces,
    looks: Looks,
}

impl<'a> Watched<'a> {
    fn new(place: &'a Place, pieces: Pieces) -> Self {
        Self { place, pieces, looks: Looks::default() }
    }
}

impl Iterator for Watched<'_> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        let piece = self.pieces.next()?;
        let bytes = piece.as_ref().map_or(0, Bytes::len) as u64;
        if let Err(cause) = self.looks.cover(bytes, |ahead| space::check(self.place, ahead)) {
            return Some(Err(io::Error::new(io::ErrorKind::StorageFull, cause.to_string())));
        }
        Some(piece)
    }
}
