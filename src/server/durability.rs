//! What makes promises and state durable, step by step, for the threads that do it and for tests that cut the power
//! between two steps. In each function the order of the steps is the safety argument.

use std::sync::Arc;

use thiserror::Error;

use crate::{
    disk::Directory,
    etcdfile::{
        snap::{self, SnapError},
        v2json,
    },
    membership::{Cluster, Member},
    pb::{raftpb, walpb},
    raft::LogBatch,
    storage::{Engine, StorageError},
    types::{LogIndex, Term},
    wal::{Wal, WalError},
};

/// What others want of the log.
#[derive(Debug)]
pub enum WalOrder {
    /// One round of the protocol.
    Batch(LogBatch),
    /// The state is durable at this snapshot: record it, and let go of segments behind `release`.
    Snapshot {
        /// The record.
        mark: walpb::Snapshot,
        /// Entries up to here are no longer needed.
        release: LogIndex,
        /// Whole segments kept beyond that.
        segments_kept: usize,
    },
}

/// A published position, up to which the state may be declared durable.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The last entry the state includes.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The cluster there.
    pub cluster: Arc<Cluster>,
}

/// Why the state could not be made durable.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// The engine failed.
    #[error("making the state durable")]
    Storage(#[from] StorageError),
    /// The snapshot file failed.
    #[error("writing a snapshot file")]
    Snap(#[from] SnapError),
}

/// Carries out everything ordered of the log, with one `sync` for all of it. Returns the number of the newest batch that
/// others wait for and that is durable now.
///
/// # Errors
/// The first failure, after which nothing may be acknowledged: what the disk holds is known only after a restart.
pub fn carry_out<D: Directory>(
    wal: &mut Wal<D>,
    orders: &mut Vec<WalOrder>,
    sync: impl FnOnce(&mut Wal<D>) -> Result<(), WalError>,
) -> Result<Option<u64>, WalError> {
    let mut promised = None;
    for order in orders.drain(..) {
        match order {
            WalOrder::Batch(batch) => {
                wal.append(&batch.entries, batch.hard_state.as_ref())?;
                promised = batch.must_sync.then_some(batch.number).or(promised);
            }
            WalOrder::Snapshot { mark, release, segments_kept } => {
                wal.mark_snapshot(&mark)?;
                let released = wal.release(release, segments_kept)?;
                tracing::info!(index = mark.index, term = mark.term, released, "saved snapshot");
            }
        }
    }
    if promised.is_none() {
        wal.flush()?;
        return Ok(None);
    }
    sync(wal)?;
    Ok(promised)
}

/// Makes the state durable at or above `mark`, which was published before this call, and says so in a `.snap` file, of
/// which the newest `files_kept` stay. Returns the record for the log; segments may be released once that is durable.
///
/// # Errors
/// [`KeeperError`].
pub fn save_snapshot<E: Engine, D: Directory>(
    engine: &E,
    directory: &D,
    mark: &Mark,
    files_kept: Option<usize>,
) -> Result<walpb::Snapshot, KeeperError> {
    // 1. The state, at or above the mark.
    engine.persist()?;
    // 2. etcd's snapshot file.
    let (index, term, conf_state) = (mark.index.0, mark.term.0, Some(mark.cluster.configuration().clone()));
    let data = v2json::write(&tree(&mark.cluster)).into();
    let metadata = raftpb::SnapshotMetadata { conf_state: conf_state.clone(), index, term };
    snap::write(directory, &raftpb::Snapshot { data, metadata: Some(metadata) })?;
    if let Some(keep) = files_kept {
        snap::prune(directory, keep)?;
    }
    Ok(walpb::Snapshot { index, term, conf_state })
}

fn tree(cluster: &Cluster) -> v2json::Tree {
    v2json::Tree {
        members: cluster.members().map(tree_member).collect(),
        removed: cluster.removed().collect(),
        version: cluster.version().map(|version| version.to_string()),
    }
}

fn tree_member(member: &Member) -> v2json::TreeMember {
    let attributes =
        member.is_started().then(|| (member.attributes.name.clone(), member.attributes.client_urls.clone()));
    v2json::TreeMember { id: member.id, peer_urls: member.peer_urls.clone(), is_learner: member.is_learner, attributes }
}
