//! The single writer of the replicated state.

use std::sync::Arc;

use super::{Alarms, Applied, ApplyError};
use crate::{
    membership::{Cluster, Version},
    mvcc::View,
    pb::raftpb::{ConfState, Entry},
    storage::Engine,
    types::{ClusterId, LogIndex, MemberId, Term},
};

/// What must be equal on all members, or is this member's own.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// This member.
    pub member: MemberId,
    /// The etcd version this member reports; a higher cluster version stops it.
    pub server_version: Version,
    /// Shortest time to live of a lease in seconds ([`crate::lease::ttl_min_seconds`]); equal on all members.
    pub lease_ttl_min: i64,
    /// Learners the cluster may have; equal on all members.
    pub learners_max: usize,
    /// Disk quota of this member; `None` switches it off.
    pub quota_bytes: Option<u64>,
}

/// What readers get: one consistent state.
#[derive(Clone, Debug)]
pub struct Published<S> {
    /// The key space.
    pub view: View<S>,
    /// The last applied entry.
    pub applied: LogIndex,
    /// Its term.
    pub term: Term,
    /// Members and versions.
    pub cluster: Arc<Cluster>,
    /// Raised alarms.
    pub alarms: Arc<Alarms>,
}

/// Where the removal of compacted rows stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionProgress {
    /// Nothing to remove.
    Idle,
    /// Call again.
    Working,
    /// The compaction at this revision is complete.
    Finished(i64),
}

/// The single writer of the replicated state.
#[derive(Debug)]
pub struct Applier<E> {
    engine: E,
}

impl<E: Engine> Applier<E> {
    /// Reads the state and takes it over.
    ///
    /// # Errors
    /// [`ApplyError::Open`].
    pub fn open(_engine: E, _options: ApplyOptions) -> Result<Self, ApplyError> {
        todo!()
    }

    /// Records to which cluster a new state belongs and with which configuration raft begins (empty for a member that
    /// joins). The caller persists the engine before raft starts. Harmless when repeated.
    ///
    /// # Errors
    /// [`ApplyError::Open`] if the state belongs to another cluster.
    pub fn establish(&mut self, _cluster: ClusterId, _configuration: &ConfState) -> Result<(), ApplyError> {
        todo!()
    }

    /// Applies committed entries in order, in one batch.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing of the call is committed, and the value is unusable from then on.
    pub fn apply(&mut self, _entries: &[Entry]) -> Result<Vec<Applied>, ApplyError> {
        todo!()
    }

    /// What readers may see: everything applied so far.
    pub fn published(&self) -> Published<E::Snapshot> {
        todo!()
    }

    /// Tells the size of the state on disk, against which the quota is judged.
    pub fn observe_disk(&mut self, _bytes: u64) {
        todo!()
    }

    /// Removes compacted rows, looking at up to `rows_max`, in a batch of its own.
    ///
    /// # Errors
    /// [`ApplyError`] as for [`Self::apply`].
    pub fn compact_some(&mut self, _rows_max: usize) -> Result<CompactionProgress, ApplyError> {
        todo!()
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.engine
    }
}
