//! What makes promises and state durable, step by step, for the threads that do it and for tests that cut the power
//! between two steps. In each function the order of the steps is the safety argument.

use std::sync::Arc;

use bytes::Bytes;
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
    /// One round of the protocol. One with a snapshot goes through [`install`].
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

impl WalOrder {
    /// Whether it is for [`install`] and not for [`carry_out`].
    pub fn is_install(&self) -> bool {
        matches!(self, Self::Batch(batch) if batch.snapshot.is_some())
    }
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

/// Why a received snapshot could not be installed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The snapshot file failed.
    #[error("writing the snapshot file of a received snapshot")]
    Snap(#[from] SnapError),
    /// The log failed.
    #[error("recording a received snapshot in the log")]
    Wal(#[from] WalError),
    /// The new generation could not become the live one.
    #[error("making the state of a received snapshot the live one")]
    Live(#[source] Box<dyn std::error::Error + Send + Sync>),
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
    let (mut promised, mut unneeded) = (None, None);
    // 1. Everything is appended, in order.
    for order in orders.drain(..) {
        match order {
            WalOrder::Batch(batch) => {
                wal.append(&batch.entries, batch.hard_state.as_ref())?;
                promised = batch.must_sync.then_some(batch.number).or(promised);
            }
            WalOrder::Snapshot { mark, release, segments_kept } => {
                wal.mark_snapshot(&mark)?;
                unneeded = Some((mark, release, segments_kept));
            }
        }
    }
    // 2. It becomes durable, unless nobody waits for it.
    if promised.is_none() && unneeded.is_none() {
        wal.flush()?;
        return Ok(None);
    }
    sync(wal)?;
    // 3. What lies behind a mark goes once the mark is durable: a reader without our state has no other way in.
    if let Some((mark, release, segments_kept)) = unneeded {
        let released = wal.release(release, segments_kept)?;
        tracing::info!(index = mark.index, term = mark.term, released, "saved snapshot");
    }
    Ok(promised)
}

/// Makes a received snapshot the beginning of the log and the live state. Before: all its rows are durable in a generation
/// of their own, beside the live one. After: the batch is durable, and [`crate::raft::Input::Synced`] of its number is due.
///
/// A cut of the power before step 3 leaves the old log and the old state; from there on the log stands for the snapshot,
/// and [`super::recovery::resume`] finishes what is left.
///
/// # Errors
/// The first failure, after which nothing may be acknowledged.
pub fn install<D: Directory, S: Directory, E: std::error::Error + Send + Sync + 'static>(
    wal: &mut Wal<D>,
    snap: &S,
    batch: &LogBatch,
    staged: &Mark,
    files_kept: Option<usize>,
    sync: impl FnOnce(&mut Wal<D>) -> Result<(), WalError>,
    make_live: impl FnOnce() -> Result<(), E>,
) -> Result<Option<u64>, InstallError> {
    // 1. etcd's snapshot file: who reads the mark without our state looks for it.
    let mark = write_file(snap, staged, files_kept)?;
    // 2. The log begins anew behind the snapshot; the hard state, in the same batch, commits it.
    wal.mark_snapshot(&mark)?;
    wal.append(&batch.entries, batch.hard_state.as_ref())?;
    // 3. From here on there is no way back.
    sync(wal)?;
    // 4. A start finds the new state.
    make_live().map_err(|cause| InstallError::Live(Box::new(cause)))?;
    // 5. Nobody needs what was before.
    let released = wal.release(staged.index, 0)?;
    tracing::info!(index = mark.index, term = mark.term, released, "installed a received snapshot");
    Ok(batch.must_sync.then_some(batch.number))
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
    Ok(write_file(directory, mark, files_kept)?)
}

/// Writes etcd's snapshot file for `mark`, durably.
pub(super) fn write_file<D: Directory>(
    directory: &D,
    mark: &Mark,
    files_kept: Option<usize>,
) -> Result<walpb::Snapshot, SnapError> {
    let (index, term, conf_state) = (mark.index.0, mark.term.0, Some(mark.cluster.configuration().clone()));
    let data = v2_tree(&mark.cluster);
    let metadata = raftpb::SnapshotMetadata { conf_state: conf_state.clone(), index, term };
    snap::write(directory, &raftpb::Snapshot { data, metadata: Some(metadata) })?;
    if let Some(keep) = files_kept {
        snap::prune(directory, keep)?;
    }
    Ok(walpb::Snapshot { index, term, conf_state })
}

/// The cluster as etcd 3.5 looks for it: in the data of a snapshot.
pub(super) fn v2_tree(cluster: &Cluster) -> Bytes {
    v2json::write(&tree(cluster)).into()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::{Loss, MemoryDirectory},
        types::{ClusterId, MemberId},
        wal,
    };

    /// Segments used to go before the mark they lie behind was synced: after a power failure the log began in the
    /// middle, and nothing in it said that a snapshot holds what was before.
    #[test]
    fn segments_stay_until_the_mark_before_which_they_lie_is_durable() {
        let directory = MemoryDirectory::default();
        let metadata = wal::Metadata { member: MemberId(1), cluster: ClusterId(1) };
        let options = wal::Options { segment_bytes: 512, unsafe_no_fsync: false };
        let mut wal = Wal::create(directory.clone(), metadata, &options).unwrap();
        for index in 1..=20 {
            let entry = raftpb::Entry { index, term: 1, data: vec![7; 100].into(), ..Default::default() };
            let hard_state = Some(raftpb::HardState { term: 1, vote: 1, commit: index });
            let batch =
                LogBatch { number: index, entries: vec![entry], hard_state, must_sync: true, ..LogBatch::default() };
            let promised = carry_out(&mut wal, &mut vec![WalOrder::Batch(batch)], Wal::sync).unwrap();
            assert_eq!(promised, Some(index));
        }
        let mark = walpb::Snapshot { index: 20, term: 1, conf_state: None };
        let order = WalOrder::Snapshot { mark: mark.clone(), release: LogIndex(20), segments_kept: 0 };
        assert_eq!(carry_out(&mut wal, &mut vec![order], Wal::sync).unwrap(), None);
        directory.crash(Loss::All);
        let survey = wal::survey(&directory).unwrap();
        assert!(survey.first.0 > 1, "segments went");
        assert_eq!(survey.snapshots.last(), Some(&mark));
    }
}
