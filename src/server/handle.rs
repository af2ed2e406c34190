//! What callers can ask of a running member.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    apply::{self, Response},
    auth,
    clock::Clock as _,
    membership::Version,
    metrics,
    mvcc::{HashKv, ReadError, check},
    pb::etcdserverpb::{CompactionRequest, CompactionResponse, InternalRaftRequest, RequestHeader},
    raft::Proposal,
    storage::{Engine as _, Read as _, StorageError, Table},
    transport::Transport,
    types::{ClusterId, LeaseId, LogIndex, MemberId, Rejection, Term},
};

use super::{
    State, Tunables,
    inbox::Refused,
    options::APPLY_GAP_MAX,
    raft_thread::RaftOrder,
    shared::{PROPOSAL_BYTES_IN_FLIGHT_MAX, PROPOSAL_SHARE_BYTES_MIN, Shared},
    watch_thread::WatchStream,
};

/// How long a lease call lets apply catch up with commit (etcd's limit).
const APPLY_CATCH_UP: Duration = Duration::from_secs(1);
/// How often a call that waits for another part of the member looks again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Why a call was not carried out.
#[derive(Clone, Debug, Error)]
pub enum ServerError {
    /// In etcd's words. A time-out means *unknown*; everything else means *did not happen*.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// This member's store failed; it is about to stop.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The disk has no room for what has to be written meanwhile.
    #[error("quorate: {0}")]
    NoRoom(String),
}

impl From<ReadError> for ServerError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Rejected(rejection) => Self::Rejected(rejection),
            ReadError::Storage(cause) => Self::Storage(cause),
        }
    }
}

/// How a member stands, for `Status`, `/health` and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// This member.
    pub member_id: MemberId,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// The leader, if known.
    pub leader: Option<MemberId>,
    /// The current raft term.
    pub term: Term,
    /// The last entry known to be committed.
    pub commit_index: LogIndex,
    /// The last applied entry.
    pub applied_index: LogIndex,
    /// Whether this member has no vote.
    pub is_learner: bool,
    /// Bytes of the state on disk.
    pub db_size: u64,
    /// Bytes of it that hold what may still be read, as far as that is known: the others are given back as files are
    /// merged.
    pub db_size_in_use: u64,
    /// The quota in bytes; `None` if there is none.
    pub quota: Option<u64>,
    /// The version this member reports.
    pub version: Version,
    /// The cluster version, once decided.
    pub cluster_version: Option<Version>,
}

/// A running member, as its callers see it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// [`Handle::propose_as`] of nobody: what is asked of the key space or of users is refused while requests are checked.
    ///
    /// # Errors
    /// As [`Handle::propose_as`].
    pub async fn propose(&self, request: InternalRaftRequest) -> Result<Response, ServerError> {
        self.propose_as(request, &auth::Identity::default()).await
    }

    /// Appends `request` of `who` to the log and waits until it is applied. The header is filled here.
    ///
    /// # Errors
    /// [`Rejection::TooManyRequests`] and [`Rejection::RequestTooLarge`] before anything happens;
    /// [`Rejection::DeadlineExceeded`] if nobody led in time; [`Rejection::Timeout`] if the outcome is unknown; otherwise
    /// what applying the entry says.
    pub async fn propose_as(
        &self,
        request: InternalRaftRequest,
        who: &auth::Identity,
    ) -> Result<Response, ServerError> {
        self.propose_encoded(self.encode(request, who)?).await
    }

    /// [`Handle::propose`] of an entry that is made already.
    pub(super) async fn propose_encoded(&self, proposal: Proposal) -> Result<Response, ServerError> {
        let shared = &*self.shared;
        let _pending = Pending;
        metrics::PROPOSALS_PENDING.inc();
        let begun = shared.clock.monotonic();
        let accepted = AtomicBool::new(false);
        let submitted = self.submit(proposal, &accepted);
        timeout(shared.tunables().request_timeout, submitted).await.unwrap_or_else(|_| {
            metrics::PROPOSALS_FAILED.inc();
            let accepted = accepted.load(Ordering::Relaxed);
            Err(if accepted { self.why_unanswered(begun) } else { Rejection::DeadlineExceeded }.into())
        })
    }

    /// [`Handle::propose_as`] this very member of what the leader of `term` alone may want: it dies with the term instead
    /// of being forwarded to a later leader.
    ///
    /// # Errors
    /// [`Rejection::ProposalDropped`] if this member does not lead in `term`; as [`Handle::propose`].
    pub(super) async fn propose_in_term(
        &self,
        request: InternalRaftRequest,
        term: Term,
    ) -> Result<Response, ServerError> {
        let proposal = Proposal { only_in: Some(term), ..self.encode(request, &self.own_identity())? };
        let submitted = timeout(self.shared.tunables().request_timeout, self.submit_once(proposal));
        submitted.await.unwrap_or(Err(Rejection::Timeout.into()))
    }

    /// The entry for `request`, if there may be one now.
    fn encode(&self, mut request: InternalRaftRequest, who: &auth::Identity) -> Result<Proposal, Rejection> {
        let shared = &*self.shared;
        self.check_gap()?;
        // What is committed must be decodable, whoever proposed it.
        if request.txn.as_ref().is_some_and(|txn| !check::txn_fits_entry(txn)) {
            return Err(Rejection::TooManyOps);
        }
        let id = shared.ids.next();
        let username = who.user.clone().into();
        request.header = Some(RequestHeader { id: id.0, username, auth_revision: who.revision });
        let payload = request.encode_to_vec();
        if payload.len() > shared.tunables().request_bytes_max {
            return Err(Rejection::RequestTooLarge);
        }
        Ok(Proposal::new(id, payload))
    }

    /// Refuses proposals while too much is committed that is not applied.
    ///
    /// # Errors
    /// [`Rejection::TooManyRequests`].
    pub fn check_gap(&self) -> Result<(), Rejection> {
        let behind = self.shared.committed().0 > self.shared.applied().0 + APPLY_GAP_MAX;
        if behind { Err(Rejection::TooManyRequests) } else { Ok(()) }
    }

    /// Waits for a leader, for its share of the bytes in flight, and for the answer. `accepted` tells whether raft has
    /// the proposal, so that its outcome is unknown. One that raft refuses while leadership moves was not appended and
    /// never will be: it is proposed again to whoever leads then.
    async fn submit(&self, proposal: Proposal, accepted: &AtomicBool) -> Result<Response, ServerError> {
        loop {
            self.await_leader().await?;
            accepted.store(true, Ordering::Relaxed);
            match self.submit_once(proposal.clone()).await {
                Err(ServerError::Rejected(Rejection::ProposalDropped)) => accepted.store(false, Ordering::Relaxed),
                answer => return answer,
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn submit_once(&self, proposal: Proposal) -> Result<Response, ServerError> {
        let shared = &*self.shared;
        let share = proposal.payload.len().clamp(PROPOSAL_SHARE_BYTES_MIN, PROPOSAL_BYTES_IN_FLIGHT_MAX);
        let share = Arc::clone(&shared.shares).acquire_many_owned(u32::try_from(share).unwrap_or(u32::MAX));
        let share = share.await.map_err(|_| Rejection::Stopped)?;
        let answer = shared.waiters.register(proposal.id, share);
        match shared.propose(proposal) {
            Ok(()) => {}
            Err(Refused::Full(_)) => return Err(Rejection::TooManyRequests.into()),
            Err(Refused::Closed(_)) => return Err(Rejection::Stopped.into()),
        }
        Ok(answer.await.map_err(|_| Rejection::Stopped)??)
    }

    /// What etcd says about a proposal that began at `begun` and was not applied in time: its outcome is unknown.
    fn why_unanswered(&self, begun: Duration) -> Rejection {
        let shared = &*self.shared;
        if shared.leadership().may_have_lost(begun, shared.tunables().election) {
            return Rejection::TimeoutLeaderFailure;
        }
        let waited = shared.clock.monotonic().saturating_sub(begun);
        let since_then = |id: MemberId| {
            id == self.member_id() || self.connected_for(id).is_some_and(|connected| connected >= waited)
        };
        let connected = match shared.standing().leader {
            None => true,
            Some(leader) if leader == self.member_id() => {
                let members: Vec<MemberId> = shared.peers().into_keys().collect();
                2 * members.iter().filter(|id| since_then(**id)).count() > members.len()
            }
            Some(leader) => since_then(leader),
        };
        if connected { Rejection::Timeout } else { Rejection::TimeoutConnectionLost }
    }

    pub(super) async fn await_leader(&self) -> Result<(), Rejection> {
        if self.has_leader() {
            return Ok(());
        }
        let led = async {
            while !self.has_leader() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::select! {
            () = led => Ok(()),
            () = self.stopped() => Err(Rejection::Stopped),
        }
    }

    /// Whether [`Handle::read_index`] has nothing to wait for.
    pub fn reads_at_once(&self) -> bool {
        self.shared.is_alone()
    }

    /// Waits until a read of [`Handle::published`] is linearizable: it then sees every write acknowledged before the
    /// call.
    ///
    /// # Errors
    /// [`Rejection::LeaderChanged`], [`Rejection::Timeout`] or [`Rejection::Stopped`].
    pub async fn read_index(&self) -> Result<(), ServerError> {
        let shared = &*self.shared;
        // Alone, every acknowledged write is already published here, and nobody else can acknowledge one.
        if shared.is_alone() {
            return Ok(());
        }
        let (confirmed, first) = shared.reads.join();
        if first && shared.raft.push(RaftOrder::ReadsWaiting).is_err() {
            return Err(Rejection::Stopped.into());
        }
        match timeout(shared.tunables().request_timeout, confirmed).await {
            Ok(Ok(confirmed)) => Ok(confirmed?),
            Ok(Err(_)) => Err(Rejection::Stopped.into()),
            Err(_) => {
                metrics::SLOW_READ_INDEXES.inc();
                Err(Rejection::Timeout.into())
            }
        }
    }

    /// What speaks with the peers; nothing while the member is not connected.
    pub fn transport(&self) -> Option<Arc<Transport>> {
        self.shared.transport.load_full()
    }

    /// The newest state this member has applied. Linearizable only after [`Handle::read_index`].
    pub fn published(&self) -> Arc<State> {
        self.shared.published()
    }

    /// How the member stands.
    pub fn status(&self) -> MemberStatus {
        let shared = &*self.shared;
        let (state, standing) = (shared.published(), shared.standing());
        let id = shared.identity.member;
        let db_size = shared.disk_bytes.load(Ordering::Relaxed);
        MemberStatus {
            member_id: id,
            cluster_id: shared.identity.cluster,
            leader: standing.leader,
            term: standing.term,
            commit_index: shared.committed(),
            applied_index: state.applied,
            is_learner: state.cluster.member(id).is_some_and(|member| member.is_learner),
            db_size,
            db_size_in_use: shared.in_use_bytes.load(Ordering::Relaxed).min(db_size),
            quota: shared.tunables().quota_bytes,
            version: shared.options.version,
            cluster_version: state.cluster.version(),
        }
    }

    /// This member.
    pub fn member_id(&self) -> MemberId {
        self.shared.identity.member
    }

    /// Its cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.shared.identity.cluster
    }

    /// Whether this member knows a leader.
    pub fn has_leader(&self) -> bool {
        self.shared.standing().leader.is_some()
    }

    /// An identifier for a lease whose client leaves the choice to the server.
    pub fn next_lease_id(&self) -> LeaseId {
        self.shared.ids.next_lease()
    }

    /// Refuses a request of this estimated cost ([`apply::quota_cost`]) if it does not fit the quota, after raising the
    /// alarm.
    ///
    /// # Errors
    /// [`Rejection::NoSpace`].
    pub async fn check_quota(&self, cost: u64) -> Result<(), ServerError> {
        let shared = &*self.shared;
        let Some(quota) = shared.tunables().quota_bytes else { return Ok(()) };
        if cost == 0 {
            return Ok(());
        }
        let used = shared.disk_bytes.load(Ordering::Relaxed) + shared.accepted_bytes.load(Ordering::Relaxed);
        if used + cost < quota {
            shared.accepted_bytes.fetch_add(cost, Ordering::Relaxed);
            return Ok(());
        }
        self.raise_no_space().await?;
        Err(Rejection::NoSpace.into())
    }

    /// Proposes a compaction; a physical one returns once history is removed and the removal is durable.
    ///
    /// # Errors
    /// As [`Handle::propose`].
    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, ServerError> {
        let request = InternalRaftRequest { compaction: Some(request), ..Default::default() };
        let physical = request.compaction.is_some_and(|compaction| compaction.physical);
        let outcome = self.propose(request).await;
        if physical && matches!(outcome, Ok(_) | Err(ServerError::Rejected(Rejection::Compacted))) {
            self.await_compaction().await?;
        }
        match outcome? {
            Response::Compaction(response) => Ok(response),
            other => unreachable!("a compaction is answered by {other:?}"),
        }
    }

    pub(super) async fn await_compaction(&self) -> Result<(), ServerError> {
        let revision = self.published().view.compact_revision();
        let mut compacted = self.shared.compacted.subscribe();
        tokio::select! {
            done = compacted.wait_for(|done| *done >= revision) => done.map(|_| ()).map_err(|_| Rejection::Stopped)?,
            () = self.stopped() => return Err(Rejection::Stopped.into()),
        }
        self.persist().await
    }

    /// Makes everything applied so far durable in the state itself.
    ///
    /// # Errors
    /// If the engine fails; the member then stops.
    pub async fn persist(&self) -> Result<(), ServerError> {
        let engine = self.shared.engine();
        self.blocking(move || Ok(engine.persist()?)).await
    }

    /// All leases this member knows.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.shared.lessor().leases()
    }

    /// Waits until everything committed now is applied.
    pub(super) async fn catch_up(&self) -> Result<(), Rejection> {
        let target = self.shared.committed();
        let applied = async {
            while self.shared.applied() < target {
                tokio::time::sleep(LOOK_AGAIN / 10).await;
            }
        };
        timeout(APPLY_CATCH_UP, applied).await.map_err(|_| Rejection::TimeoutApply)
    }

    /// Opens a watch stream without watchers.
    pub fn watch_open(&self) -> WatchStream {
        WatchStream::open(&self.shared)
    }

    /// The hash of the key space at `revision` (zero: the current one), equal to etcd's. Of a compaction that is remembered
    /// it is the one taken then.
    ///
    /// # Errors
    /// [`Rejection::Compacted`], [`Rejection::FutureRevision`], or a store that cannot be read.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKv, ServerError> {
        let state = self.published();
        if let Some(remembered) = self.shared.hashes.get(revision) {
            return Ok(HashKv { current_revision: state.view.revision(), ..remembered });
        }
        let started = self.shared.clock.monotonic();
        let hash = self.blocking(move || Ok(state.view.hash_kv(revision)?)).await;
        metrics::MVCC_HASH_REV.observe(self.shared.clock.monotonic().saturating_sub(started));
        hash
    }

    /// A CRC-32C over every replicated row but the applied position, and the revision it was taken at.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn hash(&self) -> Result<(u32, i64), ServerError> {
        let (engine, revision) = (self.shared.engine(), self.published().view.revision());
        self.blocking(move || {
            let snapshot = engine.snapshot();
            let mut crc = 0;
            for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
                for row in snapshot.rows(table) {
                    let (key, value) = row?;
                    crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &key), &value);
                }
            }
            Ok((crc, revision))
        })
        .await
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ServerError> + Send + 'static,
    ) -> Result<T, ServerError> {
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(Rejection::Stopped.into()))
    }

    /// Resolves when the member begins to stop.
    pub async fn stopped(&self) {
        self.shared.stopping.cancelled().await;
    }

    /// A thread of the member that has made no progress for `patience`.
    pub fn stuck(&self, patience: Duration) -> Option<&'static str> {
        self.shared.stuck(patience).map(super::Thread::name)
    }

    /// Takes new values of what may change while the member runs.
    pub fn tune(&self, tunables: Tunables) {
        self.shared.tune(tunables);
        if let Some(transport) = self.transport() {
            transport.set_election_timeout(tunables.election);
        }
    }

    /// What may change while the member runs, as it is now.
    pub fn tunables(&self) -> Tunables {
        self.shared.tunables()
    }

    /// The longest request a client may send, before gRPC's own overhead.
    pub fn request_bytes_max(&self) -> usize {
        self.shared.tunables().request_bytes_max
    }

    /// What a request will cost on disk, as etcd estimates it.
    pub fn quota_cost(request: &InternalRaftRequest) -> u64 {
        apply::quota_cost(request)
    }
}

/// Keeps the gauge of pending proposals right even when the caller goes away.
struct Pending;

impl Drop for Pending {
    fn drop(&mut self) {
        metrics::PROPOSALS_PENDING.dec();
    }
}
