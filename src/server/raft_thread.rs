//! The raft member at its desk, and the thread that owns it. It ticks, steps and hands out work; nobody at this desk
//! ever waits for a disk, for the state machine or for a client.

use std::{mem, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use crate::{
    clock::Clock as _,
    metrics,
    pb::raftpb::Message,
    raft::{
        DropReason, Effect, FetchRequest, Fetched, Input, LogBatch, Member, PeerProgress, Proposal, RefuseReason, Role,
        Standing,
    },
    types::{LogIndex, MemberId, Rejection, RequestId},
};

use super::{
    ServerFailure,
    apply_thread::ApplyOrder,
    arrivals::Arrival,
    desk::Work,
    durability::WalOrder,
    inbox::{Refused, Taken},
    raft_driver::RaftDriver,
    shared::{Shared, Thread},
    snapshots::Staged,
    ticker::Ticker,
};

/// How often a refused message of a peer is told of.
const REFUSALS_TOLD_EVERY: Duration = Duration::from_secs(5);

/// What others want of the raft thread.
#[derive(Debug)]
pub(super) enum RaftOrder {
    /// One payload to append.
    Propose(Proposal),
    /// Somebody has joined an empty list of readers.
    ReadsWaiting,
    /// A peer has sent a message.
    Arrived(Arrival),
    /// A peer has sent a snapshot. It is staged, or not above what is committed here.
    Snapshot {
        /// The message, without data.
        message: Box<Message>,
        /// What it stands for.
        staged: Option<Box<Staged>>,
        /// Told when raft has looked at it.
        done: oneshot::Sender<()>,
    },
    /// Somebody wants to know how far the members have come.
    Survey(oneshot::Sender<Survey>),
    /// Anything else raft can be told.
    Input(Box<Input>),
}

/// How far the members have come, as a leader knows it; on other members nothing is known of the peers.
#[derive(Clone, Debug)]
pub(super) struct Survey {
    /// The end of this member's log.
    pub(super) last: LogIndex,
    /// The other members, by ascending identifier.
    pub(super) peers: Vec<PeerProgress>,
    /// Who is best prepared to lead.
    pub(super) successor: Option<MemberId>,
}

/// Runs until the desk is closed. Ticks are this thread's: passers-by, who bring an order and carry it out themselves,
/// neither tick nor count as a sign of life.
pub(super) fn run(shared: &Shared) {
    let mut pace = shared.tunables();
    let mut ticker = Ticker::new(pace.tick, shared.clock.monotonic());
    loop {
        let now = shared.clock.monotonic();
        let newest = shared.tunables();
        if (pace.tick, pace.election) != (newest.tick, newest.election) {
            pace = newest;
            ticker = Ticker::new(pace.tick, now);
            shared.raft.work(|raft, _| raft.set_election_ticks(pace.election_ticks()));
            shared.apply.wake();
        }
        if shared.raft.wait(Some(ticker.wait(now))) == Taken::Closed {
            break;
        }
        let due = ticker.due(shared.clock.monotonic());
        // Whoever sees by the pulse that this thread is awake has to see its doubt.
        if due.slept {
            metrics::HEARTBEAT_SEND_FAILURES.inc();
            shared.doubts.raise();
        }
        let busy = shared.pulse(Thread::Raft);
        shared.raft.work(|raft, _| raft.tick(due.ticks));
        shared.apply.wake();
        drop(busy);
    }
    shared.raft.give_up();
}

/// The member and what happens to it.
pub(super) struct RaftWork {
    driver: RaftDriver,
    shared: Arc<Shared>,
    /// The snapshot that raft is being told of.
    staged: Option<Box<Staged>>,
    /// Entries ordered to be applied, and not told of yet.
    committed: usize,
    /// When a refused message was last told of, and how many were refused since.
    refusals: (Option<Duration>, u64),
}

impl Work for RaftWork {
    type Order = RaftOrder;
    /// How many committed entries wait for the apply desk: whoever carried out the orders sees to them, without the
    /// lock of this desk.
    type Outcome = usize;

    fn work(&mut self, orders: &mut Vec<RaftOrder>) -> usize {
        orders.drain(..).for_each(|order| self.accept(order));
        self.settle();
        mem::take(&mut self.committed)
    }
}

impl RaftWork {
    pub(super) fn new(member: Member, shared: Arc<Shared>) -> Self {
        let driver = RaftDriver::new(member);
        let work = Self { driver, shared, staged: None, committed: 0, refusals: (None, 0) };
        work.take_standing(Standing::default(), work.driver.member().standing());
        work
    }

    fn tick(&mut self, ticks: u32) {
        if ticks > 0 {
            self.driver.tick(ticks);
            self.settle();
        }
    }

    fn set_election_ticks(&mut self, ticks: u32) {
        self.driver.accept(Input::ElectionTicks(ticks));
        self.settle();
    }

    fn accept(&mut self, order: RaftOrder) {
        match order {
            RaftOrder::Propose(proposal) => self.driver.propose(proposal),
            RaftOrder::ReadsWaiting => self.driver.readers_wait(),
            RaftOrder::Arrived(Arrival { message, .. }) => self.driver.accept(Input::FromPeer(message)),
            RaftOrder::Snapshot { message, staged, done } => {
                self.receive_snapshot(message, staged);
                // The transport may have given up.
                let _given_up = done.send(());
            }
            RaftOrder::Survey(asker) => {
                // Whoever asked may have gone.
                drop(asker.send(self.survey()));
            }
            RaftOrder::Input(input) => self.driver.accept(*input),
        }
    }

    /// Raft takes a snapshot at once or not at all.
    fn receive_snapshot(&mut self, message: Box<Message>, staged: Option<Box<Staged>>) {
        self.settle();
        self.staged = staged;
        self.driver.accept(Input::FromPeer(message));
        self.settle();
        if let Some(unwanted) = self.staged.take() {
            tracing::info!(index = %unwanted.mark.index, "a received snapshot is not needed any more");
            self.shared.snapshots.discard(unwanted);
        }
    }

    fn survey(&self) -> Survey {
        let member = self.driver.member();
        Survey { last: member.last_index(), peers: member.progress(), successor: member.best_successor() }
    }

    fn settle(&mut self) {
        while let Some(effects) = self.driver.next(|| self.shared.reads.start_round(self.shared.ids.next())) {
            for effect in effects {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(batch) => self.persist(batch),
            Effect::Apply(entries) => {
                self.committed += entries.len();
                self.shared.order_apply_quietly(ApplyOrder::Entries(entries));
            }
            Effect::ReadReady { context, index } => {
                self.shared.reads.confirm(context, index, || self.shared.applied());
            }
            Effect::ReadLost(context) => {
                metrics::READ_INDEXES_FAILED.inc();
                self.shared.reads.fail_round(context, Rejection::Timeout);
            }
            Effect::Standing { from, to } => self.take_standing(from, to),
            Effect::Committed(index) => self.shared.set_committed(index),
            Effect::Dropped { ids, reason } => self.dropped(&ids, reason),
            Effect::Configured { conf_state, .. } => {
                self.shared.set_sole_voter(conf_state.voters == [self.shared.identity.member.0]);
            }
            Effect::LogLost { acknowledged, last } => {
                self.shared.fail(ServerFailure::LogLost { acknowledged, last });
            }
            Effect::Refused { from, reason } => self.refused(from, reason),
            Effect::Send(messages) => self.shared.send(messages),
            Effect::Fetch(request) => self.fetch(request),
        }
    }

    /// A peer whose entries nobody has time to read is sent a snapshot instead.
    fn fetch(&self, request: FetchRequest) {
        if let Err(Refused::Full(FetchRequest { number, .. })) = self.shared.fetches.push(request) {
            let fetched = Fetched { number, entries: None };
            self.shared.order_raft(RaftOrder::Input(Box::new(Input::Fetched(fetched))));
        }
    }

    /// A peer that goes on sending what is refused must not fill the log.
    fn refused(&mut self, from: MemberId, reason: RefuseReason) {
        let now = self.shared.clock.monotonic();
        let (told, since) = self.refusals;
        if told.is_some_and(|told| now < told + REFUSALS_TOLD_EVERY) {
            self.refusals = (told, since + 1);
            return;
        }
        self.refusals = (Some(now), 0);
        tracing::warn!(%from, %reason, not_told = since, "refused a message of a peer");
    }

    fn persist(&mut self, batch: LogBatch) {
        if batch.snapshot.is_some() {
            let Some(staged) = self.staged.take() else {
                return self.shared.fail(ServerFailure::UnexpectedSnapshot);
            };
            let voters = &staged.mark.cluster.configuration().voters;
            self.shared.set_sole_voter(*voters == [self.shared.identity.member.0]);
            self.shared.snapshots.hand_over(staged);
        }
        // The log's thread comes by when it has synced. Until then a lone voter gains nothing from appending more.
        self.shared.raft.announce();
        self.shared.order_wal(WalOrder::Batch(batch));
    }

    fn dropped(&self, ids: &[RequestId], reason: DropReason) {
        metrics::PROPOSALS_FAILED.add(u64::try_from(ids.len()).unwrap_or(u64::MAX));
        let why = match reason {
            DropReason::Overloaded => Rejection::TooManyRequests,
            _ => Rejection::ProposalDropped,
        };
        for id in ids {
            self.shared.waiters.answer(*id, || Err(why));
        }
    }

    fn take_standing(&self, from: Standing, to: Standing) {
        let id = self.shared.identity.member;
        self.shared.set_standing(to);
        if (from.role, from.term) != (to.role, to.term) {
            tracing::info!("{id} became {} at term {}", role_name(to.role), to.term);
        }
        if from.leader != to.leader {
            log_leader(id, from, to);
            metrics::HAS_LEADER.set(i64::from(to.leader.is_some()));
            metrics::IS_LEADER.set(i64::from(to.leader == Some(id)));
            if to.leader.is_some() {
                metrics::LEADER_CHANGES.inc();
            }
        }
        // Whoever waits for the word of a leader that others have replaced asks again; a read can be repeated.
        if self.shared.note_leader(to.leader) {
            self.shared.reads.fail_rounds(Rejection::LeaderChanged);
        }
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

fn log_leader(id: MemberId, from: Standing, to: Standing) {
    match (from.leader, to.leader) {
        (None, Some(leader)) => tracing::info!("raft.node: {id} elected leader {leader} at term {}", to.term),
        (Some(old), Some(new)) => {
            tracing::info!("raft.node: {id} changed leader from {old} to {new} at term {}", to.term);
        }
        (Some(old), None) => tracing::info!("raft.node: {id} lost leader {old} at term {}", to.term),
        (None, None) => {}
    }
}
