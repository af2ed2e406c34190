//! What the threads of a member and its callers share.
//!
//! Each value here has one writer, named beside it; everybody else only reads.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    apply::Response,
    auth::Tokens,
    clock::{Chance as _, Clock, SystemChance, SystemClock},
    lease::Lessor,
    membership::Member,
    metrics,
    raft::{FetchRequest, Proposal, Role, Standing},
    storage::{Engine as _, FjallEngine},
    transport::Transport,
    types::{ClusterId, LogIndex, MemberId, Rejection, RequestIds, Term, Ticks},
};

use super::{
    Options, ServerFailure, State, Tunables,
    apply_thread::{ApplyOrder, ApplyWork},
    arrivals::Arrivals,
    desk::Desk,
    digests::Digests,
    durability::WalOrder,
    hashes::Hashes,
    inbox::{Inbox, Refused},
    leadership::{Doubts, Leadership},
    log_reader, login,
    raft_thread::{RaftOrder, RaftWork},
    reads::Reads,
    reclaim::Reclaims,
    snapshots::Snapshots,
    space_alarm::ByQuota,
    ticker,
    v2::V2,
    waiters::Waiters,
    watch_thread::WatchOrder,
};

/// Orders that may wait for one thread. Their number follows from the proposals in flight, which
/// [`PROPOSAL_BYTES_IN_FLIGHT_MAX`] and [`PROPOSAL_SHARE_BYTES_MIN`] bound to 65 536; each proposal causes at most a few
/// orders, so a full inbox means a broken invariant and stops the member.
const ORDERS_MAX: usize = 1 << 19;
/// Encoded proposals between their arrival and their answer.
pub(super) const PROPOSAL_BYTES_IN_FLIGHT_MAX: usize = 64 << 20;
/// The least a proposal counts for, which bounds their number.
pub(super) const PROPOSAL_SHARE_BYTES_MIN: usize = 1 << 10;

/// Who this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// This member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
}

/// Where the replicated state is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) engine: FjallEngine,
    /// Its directory.
    pub(super) generation: Option<PathBuf>,
}

/// The threads that must make progress for the member to be alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// Ticks and steps; never idle for longer than a tick.
    Raft,
    /// Writes and syncs the log.
    Wal,
    /// Applies entries.
    Apply,
}

impl Thread {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Raft, Self::Wal, Self::Apply];

    /// Its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Wal => "wal",
            Self::Apply => "apply",
        }
    }
}

/// When a thread last began to work, and whether it still does.
#[derive(Debug, Default)]
struct Pulse {
    /// Milliseconds of the clock, plus one; zero while idle.
    busy_since: AtomicU64,
    /// Milliseconds of the clock when it last began.
    last: AtomicU64,
}

/// Marks a thread as working until dropped.
pub(super) struct Busy<'a>(&'a Pulse);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy_since.store(0, Ordering::Relaxed);
    }
}

/// The answer to a proposal.
pub(super) type Reply = Result<Response, Rejection>;

/// One member's shared state.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    /// Written by [`super::Handle::tune`].
    tunables: ArcSwap<Tunables>,
    /// Told after each change of them.
    pub(super) tuned: watch::Sender<()>,
    pub(super) identity: Identity,
    pub(super) clock: SystemClock,
    pub(super) ids: RequestIds,
    /// Written by the apply thread after each group of entries.
    published: ArcSwap<State>,
    /// Written by the raft thread.
    standing: Mutex<Standing>,
    committed: AtomicU64,
    /// Whether this member is the only voter; written by the raft thread.
    sole_voter: AtomicBool,
    /// Whether every earlier acknowledged write is applied here because no other member can acknowledge any: this
    /// member leads, is the only voter, and has applied an entry of its term. Written by raft and apply threads, both
    /// through [`Shared::update_alone`].
    alone: AtomicBool,
    /// The last term of which an entry was applied.
    applied_term: AtomicU64,
    /// Bytes of the state on disk; written by the keeper thread.
    pub(super) disk_bytes: AtomicU64,
    /// An estimate of those that are needed; written with them.
    pub(super) in_use_bytes: AtomicU64,
    /// Estimated cost of the requests accepted since then, so that a burst between two looks does not pass the quota.
    pub(super) accepted_bytes: AtomicU64,
    /// Bytes of entries applied since the start; written by the apply thread.
    pub(super) log_bytes: AtomicU64,
    /// Where the state is; replaced by the apply thread when it installs a snapshot.
    place: ArcSwap<Place>,
    pub(super) waiters: Waiters<Reply>,
    pub(super) shares: Arc<Semaphore>,
    pub(super) reads: Reads,
    lessor: Mutex<Lessor>,
    /// Assigned and forgotten by the apply thread, renewed by whoever meets one.
    tokens: Mutex<Tokens>,
    /// Turns at signatures of tokens.
    pub(super) signature_turns: Arc<Semaphore>,
    pub(super) raft: Desk<RaftWork>,
    pub(super) wal: Inbox<WalOrder>,
    pub(super) apply: Desk<ApplyWork>,
    pub(super) watch: Inbox<WatchOrder>,
    /// Written by whoever applies.
    pub(super) digests: Digests,
    pub(super) hashes: Hashes,
    /// Entries wanted back from the log's files.
    pub(super) fetches: Inbox<FetchRequest>,
    /// Messages of peers that raft has not taken yet.
    pub(super) arrivals: Arrivals,
    /// Nothing before the daemon has connected the member, and after it has stopped.
    pub(super) transport: ArcSwapOption<Transport>,
    /// The members this one was told to join; nothing for all others.
    pub(super) remotes: Vec<Member>,
    pub(super) snapshots: Snapshots,
    /// Written by the raft thread.
    leadership: Mutex<Leadership>,
    /// Raised by the raft thread.
    pub(super) doubts: Doubts,
    /// Peers that answered as if this member were removed, until somebody has looked into it.
    pub(super) removal_told_by: Mutex<BTreeSet<MemberId>>,
    pub(super) removal_told: Notify,
    /// Told when the removal of this member was applied.
    pub(super) removed: Notify,
    pub(super) v2: V2,
    /// The watch streams opened so far.
    pub(super) next_stream: AtomicU64,
    /// How many of them are open. Counted from before the hub hears of one until after it hears of its end.
    pub(super) streams_open: AtomicUsize,
    /// Told when an applied write exceeded the quota.
    pub(super) quota_exceeded: Notify,
    pub(super) alarm_by_quota: ByQuota,
    pub(super) reclaims: Reclaims,
    /// The last revision at which a compaction finished.
    pub(super) compacted: watch::Sender<i64>,
    pulses: [Pulse; Thread::ALL.len()],
    failure: OnceLock<ServerFailure>,
    /// Cancelled when the member stops, by order or by failure.
    pub(super) stopping: CancellationToken,
}

impl Shared {
    pub(super) fn new(
        options: Options,
        identity: Identity,
        first: State,
        lessor: Lessor,
        remotes: Vec<Member>,
        place: Place,
        snapshots: Snapshots,
    ) -> Self {
        let clock = SystemClock::new();
        let inbox_capacity = ORDERS_MAX;
        let compacted = watch::Sender::new(first.view.compact_revision());
        let digests = Digests::default();
        digests.begin(first.applied, first.digest);
        metrics::AUTH_REVISION.set_count(first.auth.revision());
        Self {
            ids: RequestIds::new(identity.member, SystemChance.next_u64()),
            applied_term: AtomicU64::new(0),
            published: ArcSwap::from_pointee(first),
            standing: Mutex::default(),
            committed: AtomicU64::new(0),
            sole_voter: AtomicBool::new(false),
            alone: AtomicBool::new(false),
            disk_bytes: AtomicU64::new(0),
            in_use_bytes: AtomicU64::new(0),
            accepted_bytes: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            place: ArcSwap::from_pointee(place),
            waiters: Waiters::default(),
            shares: Arc::new(Semaphore::new(PROPOSAL_BYTES_IN_FLIGHT_MAX)),
            reads: Reads::default(),
            lessor: Mutex::new(lessor),
            tokens: Mutex::new(Tokens::new(&options.tokens)),
            signature_turns: login::signature_turns(),
            raft: Desk::new(inbox_capacity),
            wal: Inbox::new(inbox_capacity),
            apply: Desk::new(inbox_capacity),
            watch: Inbox::new(inbox_capacity),
            digests,
            hashes: Hashes::default(),
            fetches: Inbox::new(log_reader::REQUESTS_MAX),
            arrivals: Arrivals::default(),
            transport: ArcSwapOption::empty(),
            remotes,
            snapshots,
            leadership: Mutex::default(),
            doubts: Doubts::default(),
            removal_told_by: Mutex::default(),
            removal_told: Notify::new(),
            removed: Notify::new(),
            v2: V2::default(),
            next_stream: AtomicU64::new(0),
            streams_open: AtomicUsize::new(0),
            quota_exceeded: Notify::new(),
            alarm_by_quota: ByQuota::default(),
            reclaims: Reclaims::default(),
            compacted,
            pulses: std::array::from_fn(|_| Pulse::default()),
            failure: OnceLock::new(),
            stopping: CancellationToken::new(),
            tunables: ArcSwap::from_pointee(options.tunables),
            tuned: watch::Sender::new(()),
            options,
            identity,
            clock,
        }
    }

    /// What may change while the member runs, as it is now.
    pub(super) fn tunables(&self) -> Tunables {
        **self.tunables.load()
    }

    /// From here on these hold. Who waits for a time of theirs is woken.
    pub(super) fn tune(&self, tunables: Tunables) {
        self.tunables.store(Arc::new(tunables));
        self.tuned.send_replace(());
    }

    /// The newest state readers may see.
    pub(super) fn published(&self) -> Arc<State> {
        self.published.load_full()
    }

    /// The engine that holds the state. Hold it no longer than a call: a received snapshot brings another one.
    pub(super) fn engine(&self) -> FjallEngine {
        self.place.load().engine.clone()
    }

    /// Goes on with another engine, and returns the one before.
    pub(super) fn replace_engine(&self, place: Place) -> Arc<Place> {
        self.place.swap(Arc::new(place))
    }

    /// The member's time, as the synchronous floors count it.
    pub(super) fn now(&self) -> Ticks {
        self.clock.monotonic().into()
    }

    pub(super) fn applied(&self) -> LogIndex {
        self.published.load().applied
    }

    /// Whether something was proposed here that is not applied: each proposal holds its share up to then.
    pub(super) fn has_proposals(&self) -> bool {
        self.shares.available_permits() < PROPOSAL_BYTES_IN_FLIGHT_MAX
    }

    pub(super) fn standing(&self) -> Standing {
        *self.lock_standing()
    }

    fn lock_standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn leadership(&self) -> Leadership {
        *self.leadership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes down who leads now. True if somebody replaced another leader.
    pub(super) fn note_leader(&self, leader: Option<MemberId>) -> bool {
        let now = self.clock.monotonic();
        self.leadership.lock().unwrap_or_else(PoisonError::into_inner).note(leader, now)
    }

    pub(super) fn committed(&self) -> LogIndex {
        LogIndex(self.committed.load(Ordering::Acquire))
    }

    pub(super) fn lessor(&self) -> MutexGuard<'_, Lessor> {
        self.lessor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a read here and now is linearizable without asking anybody.
    pub(super) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    pub(super) fn set_committed(&self, index: LogIndex) {
        self.committed.store(index.0, Ordering::Release);
        metrics::PROPOSALS_COMMITTED.set_count(index.0);
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        *self.lock_standing() = standing;
        self.update_alone();
        if standing.role != Role::Leader {
            self.lessor().demote();
        }
    }

    /// Called by the raft thread before the new configuration can have any effect.
    pub(super) fn set_sole_voter(&self, sole: bool) {
        self.sole_voter.store(sole, Ordering::Release);
        self.update_alone();
    }

    /// The lock is held until the flag is stored, so that of two callers the later one's view wins.
    fn update_alone(&self) {
        let standing = self.lock_standing();
        let applied_term = Term(self.applied_term.load(Ordering::Acquire));
        let leads = standing.role == Role::Leader && applied_term == standing.term;
        self.alone.store(leads && self.sole_voter.load(Ordering::Acquire), Ordering::Release);
    }

    /// Gives readers a new state, then lets those go on who waited for it.
    pub(super) fn publish(&self, state: State) {
        let (applied, term) = (state.applied, state.term);
        metrics::AUTH_REVISION.set_count(state.auth.revision());
        self.published.store(Arc::new(state));
        metrics::PROPOSALS_APPLIED.set_count(applied.0);
        if self.applied_term.swap(term.0, Ordering::AcqRel) != term.0 {
            self.update_alone();
        }
        self.reads.applied(applied);
    }

    /// Looks up how much room `engine`, which holds the published state, takes on disk.
    pub(super) fn look_up_size(&self, engine: &FjallEngine) {
        let usage = engine.usage();
        let in_use = usage.bytes_in_use(self.published().view.rows_needed());
        self.disk_bytes.store(usage.disk_bytes, Ordering::Relaxed);
        self.in_use_bytes.store(in_use, Ordering::Relaxed);
        self.accepted_bytes.store(0, Ordering::Relaxed);
        metrics::DB_TOTAL_BYTES.set_count(usage.disk_bytes);
        metrics::DB_IN_USE_BYTES.set_count(in_use);
    }

    /// Whether somebody may be watching.
    pub(super) fn is_watched(&self) -> bool {
        self.streams_open.load(Ordering::SeqCst) > 0
    }

    /// Stops the member. Only the first cause is kept.
    pub(super) fn fail(&self, cause: ServerFailure) {
        if self.failure.set(cause).is_ok() {
            self.stopping.cancel();
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Why the member stopped by itself, if it did.
    pub(super) fn failure(&self) -> Option<&ServerFailure> {
        self.failure.get()
    }

    pub(super) fn order_raft(&self, order: RaftOrder) {
        self.check_room(&self.raft.push(order), "raft");
    }

    /// Tells raft here and now, if it is idle.
    ///
    /// # Errors
    /// Hands the order back when raft lags or has ended.
    pub(super) fn bring_raft(&self, order: RaftOrder) -> Result<(), Refused<RaftOrder>> {
        if self.raft.bring(order)?.is_some_and(|committed| committed > 0) {
            self.apply.wake();
        }
        Ok(())
    }

    /// Does not wake the thread: it comes round with its next tick at the latest.
    pub(super) fn order_raft_quietly(&self, order: RaftOrder) {
        self.check_room(&self.raft.push_quietly(order), "raft");
    }

    /// Proposes, here and now if raft and the disk are idle. While the disk works a proposal waits for the log's thread,
    /// which comes by with the news of its sync, unless a message or a tick comes first: what is proposed meanwhile becomes
    /// one batch, here and on the way to others.
    ///
    /// # Errors
    /// Hands the order back when raft lags or has ended.
    pub(super) fn propose(&self, proposal: Proposal) -> Result<(), Refused<RaftOrder>> {
        if self.raft.bring_or_leave(RaftOrder::Propose(proposal))?.is_some() {
            self.apply.wake();
        }
        Ok(())
    }

    pub(super) fn order_wal(&self, order: WalOrder) {
        self.check_room(&self.wal.push(order), "wal");
    }

    /// Does not wake the thread: whoever carried out raft's orders sees to what came of them.
    pub(super) fn order_apply_quietly(&self, order: ApplyOrder) {
        self.check_room(&self.apply.push_quietly(order), "apply");
    }

    /// A closed queue belongs to a member that stops.
    fn check_room<T>(&self, pushed: &Result<(), Refused<T>>, thread: &'static str) {
        if let Err(Refused::Full(_)) = pushed {
            self.fail(ServerFailure::Overrun { thread });
        }
    }

    /// Applies what waits, if it is little and nobody applies already.
    pub(super) fn apply_here(&self) {
        if let Some(Err(failure)) = self.apply.carry_out_if_any() {
            self.fail(failure);
        }
    }

    pub(super) fn pulse(&self, thread: Thread) -> Busy<'_> {
        let now = self.now().0;
        let pulse = self.pulse_of(thread);
        pulse.last.store(now, Ordering::Release);
        pulse.busy_since.store(now + 1, Ordering::Relaxed);
        Busy(pulse)
    }

    /// A thread that has been at one piece of work for longer than `patience`, or the raft thread if it has not come
    /// round for so long.
    pub(super) fn stuck(&self, patience: Duration) -> Option<Thread> {
        let now = self.now().0;
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        Thread::ALL.into_iter().find(|thread| {
            let pulse = self.pulse_of(*thread);
            let busy_since = pulse.busy_since.load(Ordering::Relaxed);
            let silent = *thread == Thread::Raft && now.saturating_sub(pulse.last.load(Ordering::Relaxed)) > patience;
            silent || (busy_since > 0 && now.saturating_sub(busy_since - 1) > patience)
        })
    }

    /// Whether the raft thread sleeps ([`ticker::is_asleep`]).
    pub(super) fn is_asleep(&self) -> bool {
        let silence = self.now().0.saturating_sub(self.pulse_of(Thread::Raft).last.load(Ordering::Acquire));
        ticker::is_asleep(Duration::from_millis(silence), self.tunables().tick)
    }

    fn pulse_of(&self, thread: Thread) -> &Pulse {
        let index = Thread::ALL.iter().position(|one| *one == thread);
        let pulse = index.and_then(|index| self.pulses.get(index));
        pulse.unwrap_or_else(|| unreachable!("one pulse per thread"))
    }
}
