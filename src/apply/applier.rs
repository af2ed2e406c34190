//! The single writer of the replicated state.

use std::sync::Arc;

use super::{
    Alarms, Applied, ApplyError, Digest, OpenError,
    state::{Proof, State, lease_rows, write_cluster_id, write_rows},
};
use crate::{
    auth::Auth,
    lease::{LeaseRow, TTL_MIN_SECONDS_DEFAULT},
    membership::{Cluster, LEARNERS_MAX_DEFAULT, Version},
    mvcc::{CompactionStep, Compactor, ReadError, View},
    pb::raftpb::{ConfState, Entry},
    storage::{Batch, Engine, Read, Writes},
    types::{ClusterId, LogIndex, MemberId, Term},
};

/// What must be equal on all members, or is this member's own.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// This member.
    pub member: MemberId,
    /// The etcd version this member reports; a higher cluster version stops it.
    pub server_version: Version,
    /// Shortest time to live of a lease in seconds ([`crate::lease::ttl_min_seconds`]). Members may differ in it
    /// while their election timeouts are changed, so digests leave times to live out.
    pub lease_ttl_min: i64,
    /// Learners the cluster may have; equal on all members. `None` to who does not know: then an entry that depends on it is
    /// an error.
    pub learners_max: Option<usize>,
    /// Disk quota of this member; `None` switches it off.
    pub quota_bytes: Option<u64>,
}

impl ApplyOptions {
    /// etcd's defaults, and no quota.
    pub const fn new(member: MemberId, server_version: Version) -> Self {
        Self {
            member,
            server_version,
            lease_ttl_min: TTL_MIN_SECONDS_DEFAULT,
            learners_max: Some(LEARNERS_MAX_DEFAULT),
            quota_bytes: None,
        }
    }
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
    /// Users and roles.
    pub auth: Arc<Auth>,
    /// What entries have changed up to here.
    pub digest: Digest,
}

/// Where the removal of compacted rows stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionProgress {
    /// Nothing to remove.
    Idle,
    /// Call again.
    Working,
    /// The compaction at this revision is complete, and no other is waiting.
    Finished(i64),
}

/// The single writer of the replicated state.
#[derive(Debug)]
pub struct Applier<E: Engine> {
    engine: E,
    state: State,
    published: Published<E::Snapshot>,
    compactor: Option<Compactor>,
    /// Memory may be ahead of the engine: nothing may be built on it.
    failed: bool,
}

impl<E: Engine> Applier<E> {
    /// Reads the state and takes it over.
    ///
    /// # Errors
    /// [`ApplyError::Open`].
    pub fn open(engine: E, options: ApplyOptions) -> Result<Self, ApplyError> {
        let snapshot = engine.snapshot();
        let state = State::read(&snapshot, options)?;
        let published = state.publish_with(snapshot);
        Ok(Self { engine, state, published, compactor: None, failed: false })
    }

    /// Records to which cluster a new state belongs and with which configuration raft begins (empty for a member that
    /// joins). A configuration that is stored already stays. The caller persists the engine before raft starts.
    /// Harmless when repeated.
    ///
    /// # Errors
    /// [`ApplyError::Open`] if the state belongs to another cluster.
    pub fn establish(&mut self, cluster: ClusterId, configuration: &ConfState) -> Result<(), ApplyError> {
        let stored = self.state.cluster.id();
        if stored == cluster {
            return Ok(());
        }
        if stored != ClusterId(0) {
            return Err(OpenError::OtherCluster { stored, own: cluster }.into());
        }
        self.in_batch(|state, batch| {
            state.establish(batch, cluster, configuration);
            Ok(())
        })
    }

    /// Applies committed entries in order, in one batch. Entries at or below the applied index are passed over.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing of the call is committed, and the value is unusable from then on.
    pub fn apply(&mut self, entries: &[Entry]) -> Result<Vec<Applied>, ApplyError> {
        self.in_batch(|state, batch| state.apply_entries(batch, entries))
    }

    /// What readers may see: everything applied so far.
    pub fn published(&self) -> Published<E::Snapshot> {
        self.published.clone()
    }

    /// Tells the size of the state on disk, against which the quota is judged.
    pub fn observe_disk(&mut self, bytes: u64) {
        self.state.disk_bytes = bytes;
    }

    /// Takes new values of what may change while the member runs.
    pub fn tune(&mut self, quota_bytes: Option<u64>, lease_ttl_min: i64) {
        let options = &mut self.state.options;
        (options.quota_bytes, options.lease_ttl_min) = (quota_bytes, lease_ttl_min);
    }

    /// Removes compacted rows, looking at up to `rows_max`, in a batch of its own.
    ///
    /// # Errors
    /// [`ApplyError`] as for [`Self::apply`].
    pub fn compact_some(&mut self, rows_max: usize) -> Result<CompactionProgress, ApplyError> {
        self.guard(|applier| applier.compact_step(rows_max))
    }

    /// The stored leases, for the countdowns of a leader.
    ///
    /// # Errors
    /// [`ApplyError::Open`] if a row is damaged or cannot be read.
    pub fn leases(&self) -> Result<Vec<LeaseRow>, ApplyError> {
        Ok(lease_rows(&self.engine.snapshot())?)
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// Runs `work` on a batch and commits it.
    fn in_batch<T>(
        &mut self,
        work: impl FnOnce(&mut State, &mut Batch<E::Snapshot>) -> Result<T, ApplyError>,
    ) -> Result<T, ApplyError> {
        self.guard(|applier| {
            let mut batch = Batch::new(applier.engine.snapshot());
            let done = work(&mut applier.state, &mut batch)?;
            if !batch.is_empty() {
                applier.commit(batch.into_writes())?;
            }
            Ok(done)
        })
    }

    fn compact_step(&mut self, rows_max: usize) -> Result<CompactionProgress, ApplyError> {
        let running = self.compactor.take().map_or_else(|| self.due_compaction(), |running| Ok(Some(running)))?;
        let Some(mut compactor) = running else { return Ok(CompactionProgress::Idle) };
        let step = compactor.step(&self.published.view, rows_max);
        let CompactionStep { writes, finished, .. } = step.map_err(|error| self.state.stopped_by(error))?;
        self.commit(writes)?;
        let revision = compactor.revision();
        self.compactor = if finished { self.due_compaction()? } else { Some(compactor) };
        let done = self.compactor.is_none();
        Ok(if done { CompactionProgress::Finished(revision) } else { CompactionProgress::Working })
    }

    fn due_compaction(&self) -> Result<Option<Compactor>, ApplyError> {
        Compactor::due(&self.published.view).map_err(|error| self.state.stopped_by(error))
    }

    fn commit(&mut self, writes: Writes) -> Result<(), ApplyError> {
        let index = self.state.applied;
        self.engine.commit(writes).map_err(|cause| ApplyError::Storage { index, cause })?;
        self.published = self.state.publish_with(self.engine.snapshot());
        Ok(())
    }

    /// Makes the first failure the last.
    fn guard<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, ApplyError>) -> Result<T, ApplyError> {
        if self.failed {
            return Err(ApplyError::Failed);
        }
        let result = work(self);
        self.failed = result.is_err();
        result
    }
}

impl State {
    fn apply_entries<R: Read>(&mut self, batch: &mut Batch<R>, entries: &[Entry]) -> Result<Vec<Applied>, ApplyError> {
        let mut done = Vec::with_capacity(entries.len());
        let before = self.applied.0;
        for entry in entries.iter().skip_while(|entry| entry.index <= before) {
            let (index, applied) = (LogIndex(entry.index), self.applied);
            if index.0 != applied.0 + 1 {
                return Err(ApplyError::Gap { index, applied });
            }
            done.push(self.apply_entry(batch, entry)?);
            (self.applied, self.term) = (index, Term(entry.term));
        }
        let telling = entries.iter().rev().find(|entry| entry.index > before && !entry.data.is_empty());
        self.proof = telling.map_or(self.proof, Proof::of);
        if !done.is_empty() {
            self.write_position(batch);
        }
        Ok(done)
    }

    fn establish<R: Read>(&mut self, batch: &mut Batch<R>, id: ClusterId, configuration: &ConfState) {
        let known = self.cluster.configuration() != &ConfState::default();
        let cluster = Arc::make_mut(&mut self.cluster);
        cluster.establish(id, (!known).then(|| configuration.clone()));
        write_cluster_id(batch, id);
        write_rows(batch, [cluster.configuration_row()]);
    }

    fn publish_with<S: Read>(&self, snapshot: S) -> Published<S> {
        Published {
            view: self.store.view(snapshot),
            applied: self.applied,
            term: self.term,
            cluster: self.cluster.clone(),
            alarms: self.alarms.clone(),
            auth: self.auth.clone(),
            digest: self.digest,
        }
    }

    /// A failure outside of any entry. Removing compacted rows is never refused.
    fn stopped_by(&self, error: ReadError) -> ApplyError {
        match error {
            ReadError::Storage(cause) => ApplyError::Storage { index: self.applied, cause },
            ReadError::Rejected(rejection) => ApplyError::Compaction { applied: self.applied, rejection },
        }
    }
}
