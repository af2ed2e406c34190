//! The member: the raft crate's node behind checks, batches and conversions.

use std::{collections::VecDeque, fmt, mem};

use ::raft::{
    RawNode, Ready, SnapshotStatus, StateRole,
    eraftpb::{ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType},
};
use prost::Message as _;

use crate::{
    pb::raftpb,
    types::{LogIndex, MemberId, RequestId, Term},
};

use super::{
    Change, DropReason, Effect, Fetched, Input, LogBatch, Options, Proposal, Recovered, RecoveryError, Standing,
    convert,
    door::{self, Turned, View},
    held::Held,
    log::MemberLog,
    patience::Patience,
    reads::{self, Reads},
    recovery, trace,
};

mod office;

/// Reads of followers a leader keeps while it waits for its quorum.
const PEER_READS_MAX: usize = 4096;
/// Payloads that travel to the leader in one message; a single larger one travels alone.
const FORWARD_BYTES_MAX: usize = 1 << 20;
/// Election timeouts for which a peer's proposal waits for a leader: a transfer that fails is given up after one.
const HELD_ELECTIONS_MAX: u64 = 2;

/// One member of a raft group. See the module for its invariants.
pub struct Member {
    node: RawNode<MemberLog>,
    /// Ticks of an election timeout, as it is now.
    election_ticks: u64,
    /// What it was at the start, which the raft crate goes on counting to: the time that it sees pass is scaled.
    crate_ticks: u64,
    /// Parts of a tick that the raft crate has not seen pass yet, in units of one `election_ticks`th.
    owed_ticks: u64,
    patience: Patience,
    unapplied_bytes_max: usize,
    /// Ticks since the start.
    now: u64,
    standing: Standing,
    committed: u64,
    conf_state: ConfState,
    /// The last snapshot taken: the configuration is at least the one of its index.
    installed: u64,
    /// What the state machine was given: entries and snapshots up to here.
    handed_out: u64,
    /// What the state machine has applied; the raft crate follows once it has seen the entries durable.
    applied: u64,
    /// Batches whose sync was not reported yet, oldest first.
    unsynced: VecDeque<Unsynced>,
    /// The term and vote of the last batch.
    vote_batched: (u64, u64),
    /// A hard state of which only the commit index is new, and the tick since when it waits for company.
    commit_unwritten: Option<(raftpb::HardState, u64)>,
    reads: Reads,
    /// Reads for the next round of a leader: they wait for its first commit, or for the round under way.
    next_reads: Vec<Message>,
    /// The tick at which the last round of reads began.
    reads_asked: u64,
    /// The term and the highest index of what was acknowledged to its leader.
    acknowledged: (u64, u64),
    /// Proposals of peers that wait for a leader.
    held: Held,
    /// The tick at which a stalled leader began to hand over.
    handing_over_since: Option<u64>,
    /// The entry that removed this member, while the others may not know that it is committed.
    leaving: Option<u64>,
    /// An election was asked for before everything committed was applied.
    campaign_due: bool,
    /// The highest commit index a leader has told this member.
    leader_commit: u64,
}

/// A batch on its way to the disk.
#[derive(Debug)]
struct Unsynced {
    /// The number given to the driver.
    number: u64,
    /// The last round of the raft crate that is durable with it.
    covers: u64,
    /// The tick of its birth.
    since: u64,
    /// Whether it holds a new term or vote.
    holds_vote: bool,
    /// What may leave once it is durable.
    promises: Vec<raftpb::Message>,
}

/// How far a peer has come, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The peer.
    pub id: MemberId,
    /// The last entry known to be durable there.
    pub matched: LogIndex,
    /// Whether it was heard of within the last election timeout.
    pub active: bool,
    /// Whether it has no vote.
    pub learner: bool,
    /// Whether it is being sent a snapshot.
    pub in_snapshot: bool,
}

impl Member {
    /// Starts a member from its log and state. Call [`Member::settle`] first: committed entries may wait.
    ///
    /// # Errors
    /// If log, state and options contradict each other; nothing is changed on disk.
    pub fn new(options: &Options, recovered: Recovered) -> Result<Self, RecoveryError> {
        let applied = recovered.applied;
        let conf_state = convert::conf_state_in(recovered.conf_state.clone());
        let config = recovery::config(options, applied)?;
        let log = recovery::log(options, recovered)?;
        let mut node =
            RawNode::new(&config, log, &trace::logger()).map_err(|error| RecoveryError::Options(error.to_string()))?;
        let ticks = config.min_election_tick()..config.max_election_tick();
        let mut patience = Patience::new(ticks, options.election_seed ^ options.id.0);
        patience.redraw(&mut node.raft);
        let hard_state = node.raft.hard_state();
        Ok(Self {
            election_ticks: options.election_ticks as u64,
            crate_ticks: options.election_ticks as u64,
            owed_ticks: 0,
            patience,
            unapplied_bytes_max: options.unapplied_bytes_max,
            now: 0,
            standing: Standing { term: Term(hard_state.term), ..Standing::default() },
            committed: hard_state.commit,
            conf_state,
            installed: 0,
            handed_out: applied.0,
            applied: applied.0,
            unsynced: VecDeque::new(),
            vote_batched: (hard_state.term, hard_state.vote),
            commit_unwritten: None,
            reads: Reads::default(),
            next_reads: Vec::new(),
            reads_asked: 0,
            acknowledged: (0, 0),
            held: Held::default(),
            handing_over_since: None,
            leaving: None,
            campaign_due: false,
            leader_commit: 0,
            node,
        })
    }

    /// Takes one input and lists what follows from it.
    pub fn handle(&mut self, input: Input, effects: &mut Vec<Effect>) {
        self.accept(input, effects);
        self.settle(effects);
    }

    /// Takes one input without drawing the conclusions yet. Several inputs accepted before one [`Member::settle`]
    /// share a batch.
    pub fn accept(&mut self, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Tick => self.tick(),
            Input::ElectionTicks(ticks) => self.set_election_ticks(ticks),
            Input::AdvanceElection(ticks) => self.advance_election(ticks),
            Input::FromPeer(message) => self.step(*message, effects),
            Input::Propose(proposals) => self.propose(proposals, effects),
            Input::ProposeConfChange { id, change } => self.propose_change(id, &change, effects),
            Input::ReadIndex(context) => self.read(context, effects),
            Input::CancelRead(context) => drop(self.reads.remove(context)),
            Input::Synced(number) => self.synced(number, effects),
            Input::Applied(index) => self.applied(index),
            Input::ApplyConfChange { index, change } => self.apply_change(index, change, effects),
            Input::Compact(index) => self.node.mut_store().compact(index.0),
            Input::Fetched(fetched) => self.fetched(fetched),
            Input::TransferLeader(to) => self.node.transfer_leader(to.0),
            Input::Campaign => self.campaign(),
            Input::Undelivered(proposal) => self.take_back(*proposal),
            Input::Unreachable(peer) => self.node.report_unreachable(peer.0),
            Input::Gone(peer) => self.gone(peer),
            Input::SnapshotSent { to, delivered } => self.snapshot_sent(to, delivered),
        }
        self.patience.redraw(&mut self.node.raft);
    }

    /// Lists what follows from the inputs accepted since the last call.
    pub fn settle(&mut self, effects: &mut Vec<Effect>) {
        self.leave_if_known();
        self.note_standing(effects);
        self.ask_reads();
        self.release_held();
        while self.node.has_ready() {
            self.on_ready(effects);
            self.note_standing(effects);
            self.ask_reads();
            self.release_held();
        }
        self.write_lonely_commit(effects);
        effects.extend(self.node.mut_store().take_requests().into_iter().map(Effect::Fetch));
    }

    /// Role, term and leader.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The commit index.
    pub fn committed(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// The last entry of the log, durable or not.
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.last_index())
    }

    /// How far each other member has come, by ascending identifier. Empty unless this member leads.
    pub fn progress(&self) -> Vec<PeerProgress> {
        if !self.leads() {
            return Vec::new();
        }
        let learners = self.node.raft.prs().conf().learners();
        let peers = self.node.raft.prs().iter().filter(|(id, _)| **id != self.node.raft.id);
        let mut progress: Vec<_> = peers
            .map(|(id, progress)| PeerProgress {
                id: MemberId(*id),
                matched: LogIndex(progress.matched),
                active: progress.recent_active,
                learner: learners.contains(id),
                in_snapshot: progress.state == ::raft::ProgressState::Snapshot,
            })
            .collect();
        progress.sort_unstable_by_key(|peer| peer.id);
        progress
    }

    /// The voter that is best prepared to lead in this member's place. `None` unless this member leads and has an
    /// active peer.
    pub fn best_successor(&self) -> Option<MemberId> {
        let active = self.progress().into_iter().filter(|peer| peer.active && !peer.learner);
        active.max_by_key(|peer| (peer.matched, std::cmp::Reverse(peer.id))).map(|peer| peer.id)
    }

    /// Carries out one round of the raft crate. The order of the steps is the safety argument.
    fn on_ready(&mut self, effects: &mut Vec<Effect>) {
        let mut ready = self.node.ready();
        let holds_vote = self.note_vote(&ready);
        // 1. Whoever asked for an index hears it: this promises nothing.
        for state in ready.take_read_states() {
            self.read_answered(&state.request_ctx, LogIndex(state.index), effects);
        }
        // 2. A leader may replicate while its own disk is still writing (raft thesis §10.2.1), unless the vote that
        //    made it leader is not durable: it could come back and lead the same term a second time.
        let (now, promises) = self.sort_messages(&mut ready, holds_vote);
        if !now.is_empty() {
            effects.push(Effect::Send(now));
        }
        // 3. A received snapshot replaces the log; new entries are readable from memory at once.
        let snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());
        if let Some(snapshot) = &snapshot {
            self.node.mut_store().install(snapshot.get_metadata());
            self.conf_state = snapshot.get_metadata().get_conf_state().clone();
            self.handed_out = snapshot.get_metadata().index;
            self.installed = self.handed_out;
        }
        self.node.mut_store().append(ready.entries());
        // 4. The log makes them durable, in order. What depends on that waits in `unsynced`.
        let number = ready.number();
        let must_sync = ready.must_sync();
        let hard_state = self.written_with(ready.hs().map(convert::hard_state_out), must_sync);
        if must_sync {
            let snapshot = snapshot.map(convert::snapshot_out);
            let entries = ready.take_entries().into_iter().map(convert::entry_out).collect();
            effects.push(Effect::Persist(LogBatch { number, snapshot, entries, hard_state, must_sync }));
        }
        // 5. What is committed and durable here is applied.
        self.note_commit(effects);
        let committed = ready.take_committed_entries();
        if let Some(last) = committed.last() {
            self.handed_out = last.index;
            effects.push(Effect::Apply(committed.into_iter().map(convert::entry_out).collect()));
        }
        // 6. The raft crate goes on; what depends on the disk waits for `synced`.
        self.node.advance_append_async(ready);
        self.await_sync(number, must_sync, holds_vote, promises, effects);
    }

    /// The hard state to write in this round. One of which only the commit index is new waits for the next batch that
    /// is synced anyway: losing it loses nothing, and the log thread need not wake up for it.
    fn written_with(&mut self, fresh: Option<raftpb::HardState>, must_sync: bool) -> Option<raftpb::HardState> {
        if must_sync {
            let waiting = self.commit_unwritten.take().map(|(hard_state, _)| hard_state);
            return fresh.or(waiting);
        }
        if let Some(hard_state) = fresh {
            let since = self.commit_unwritten.map_or(self.now, |(_, since)| since);
            self.commit_unwritten = Some((hard_state, since));
        }
        None
    }

    /// Writes a commit index that has found no company for an election timeout, so that the log of an idle member
    /// tells what is committed.
    fn write_lonely_commit(&mut self, effects: &mut Vec<Effect>) {
        if let Some((hard_state, since)) = self.commit_unwritten
            && self.now >= since + self.election_ticks
        {
            self.commit_unwritten = None;
            let hard_state = Some(hard_state);
            effects.push(Effect::Persist(LogBatch { hard_state, ..LogBatch::default() }));
        }
    }

    /// Whether this round brings a new term or vote.
    fn note_vote(&mut self, ready: &Ready) -> bool {
        let vote = ready.hs().map_or(self.vote_batched, |hard_state| (hard_state.term, hard_state.vote));
        mem::replace(&mut self.vote_batched, vote) != vote
    }

    /// Splits the messages of a round into those that may leave now and those that promise durability.
    fn sort_messages(&self, ready: &mut Ready, holds_vote: bool) -> (Vec<raftpb::Message>, Vec<raftpb::Message>) {
        let vote_unsynced = holds_vote || self.unsynced.iter().any(|batch| batch.holds_vote);
        let (mut now, mut promises) = (Vec::new(), Vec::new());
        for message in ready.take_messages() {
            if vote_unsynced { &mut promises } else { &mut now }.push(convert::message_out(message));
        }
        for message in ready.take_persisted_messages() {
            if is_promise(&message) { &mut promises } else { &mut now }.push(convert::message_out(message));
        }
        (now, promises)
    }

    /// Keeps promises until their batch is durable, or lets them go if nothing before them has to be.
    fn await_sync(
        &mut self,
        number: u64,
        must_sync: bool,
        holds_vote: bool,
        promises: Vec<raftpb::Message>,
        effects: &mut Vec<Effect>,
    ) {
        if must_sync {
            let since = self.now;
            self.unsynced.push_back(Unsynced { number, covers: number, since, holds_vote, promises });
        } else if let Some(batch) = self.unsynced.back_mut() {
            batch.covers = number;
            batch.promises.extend(promises);
        } else {
            self.node.on_persist_ready(number);
            if !promises.is_empty() {
                effects.push(Effect::Send(promises));
            }
        }
    }

    /// The log reports batch `number` durable: its promises leave now.
    fn synced(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let mut promises = Vec::new();
        while let Some(batch) = self.unsynced.pop_front_if_at_most(number) {
            self.node.on_persist_ready(batch.covers);
            promises.extend(batch.promises);
        }
        if !promises.is_empty() {
            effects.push(Effect::Send(without_superseded(promises)));
        }
        self.advance_applied();
        if self.unsynced.front().is_none_or(|batch| !self.is_stalled(batch)) {
            self.handing_over_since = None;
        }
    }

    fn note_standing(&mut self, effects: &mut Vec<Effect>) {
        self.patience.redraw(&mut self.node.raft);
        let soft = self.node.raft.soft_state();
        let leader = (soft.leader_id != 0).then_some(MemberId(soft.leader_id));
        let to = Standing { term: Term(self.node.raft.term), role: convert::role_out(soft.raft_state), leader };
        let from = mem::replace(&mut self.standing, to);
        if from == to {
            return;
        }
        self.reads.ask_again();
        self.next_reads.clear();
        self.node.mut_store().forget_fetches();
        effects.push(Effect::Standing { from, to });
    }

    fn note_commit(&mut self, effects: &mut Vec<Effect>) {
        let committed = self.node.raft.raft_log.committed;
        if committed > self.committed {
            self.committed = committed;
            effects.push(Effect::Committed(LogIndex(committed)));
        }
    }

    fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Time passes. An election does not start while the log waits for its disk: the candidate could neither vote nor
    /// keep its log.
    fn tick(&mut self) {
        self.now += 1;
        self.held.expire(self.now, HELD_ELECTIONS_MAX * self.election_ticks);
        if self.leads() {
            self.check_stall();
            self.hand_over_before_leaving();
            return self.tick_leader();
        }
        for _ in 0..self.passed() {
            if self.election_is_near() && !self.may_campaign() {
                return;
            }
            self.node.tick();
        }
    }

    /// A heartbeat, whatever an election timeout is. The raft crate counts this tick as one of that timeout; what it should
    /// count beyond, or less, is made up for before; nothing can be taken back from a timeout that has just begun.
    fn tick_leader(&mut self) {
        let passed = usize::try_from(self.passed()).unwrap_or(usize::MAX);
        let elapsed = self.node.raft.election_elapsed;
        self.node.raft.election_elapsed = elapsed.saturating_add(passed).saturating_sub(1);
        self.node.tick();
    }

    /// How many of its own ticks the raft crate has to see pass with one of ours.
    fn passed(&mut self) -> u64 {
        self.owed_ticks += self.crate_ticks;
        let passed = self.owed_ticks / self.election_ticks;
        self.owed_ticks %= self.election_ticks;
        passed
    }

    /// An election timeout is so many ticks from now on, at least one. The raft crate draws its times in a number of ticks
    /// that is fixed, so its clock for elections goes slower or faster instead; heartbeats go with every tick.
    fn set_election_ticks(&mut self, ticks: u32) {
        self.election_ticks = u64::from(ticks).max(1);
        self.owed_ticks = 0;
    }

    fn election_is_near(&self) -> bool {
        self.node.raft.election_elapsed + 1 >= self.node.raft.randomized_election_timeout()
    }

    /// The raft crate asserts that a new leader's log is durable to its end, and that what it has not applied is
    /// readable, which it is not while a snapshot is being installed.
    fn may_campaign(&self) -> bool {
        let log = &self.node.raft.raft_log;
        self.unsynced.is_empty() && log.persisted == log.last_index() && log.applied + 1 >= log.first_index()
    }

    /// Among what is committed but not applied may be the change that makes this member a voter: the raft crate refuses
    /// an election before it is applied, and the next one would come an election timeout later.
    fn campaign(&mut self) {
        self.campaign_due = self.node.raft.raft_log.applied < self.node.raft.raft_log.committed;
        if !self.campaign_due && self.node.raft.promotable() && self.may_campaign() {
            // It cannot fail: a member that may not campaign ignores the request.
            drop(self.node.campaign());
        }
    }

    fn advance_election(&mut self, ticks: usize) {
        if !self.leads() {
            let limit = self.node.raft.election_timeout().saturating_sub(1);
            let elapsed = self.node.raft.election_elapsed;
            self.node.raft.election_elapsed = elapsed.max(elapsed.saturating_add(ticks).min(limit));
        }
    }

    fn view(&self) -> View {
        View {
            id: self.node.raft.id,
            term: self.node.raft.term,
            leads: self.leads(),
            last: self.node.raft.raft_log.last_index(),
            overloaded: self.is_overloaded(),
            leaving: self.leaving.is_some(),
            unsynced: !self.may_campaign(),
            reads_full: self.next_reads.len() + self.node.raft.pending_read_count() >= PEER_READS_MAX,
        }
    }

    fn is_overloaded(&self) -> bool {
        self.node.store().unapplied_bytes() > self.unapplied_bytes_max
    }

    fn step(&mut self, message: raftpb::Message, effects: &mut Vec<Effect>) {
        let from = MemberId(message.from);
        match door::admit(self.view(), message) {
            Ok(message) => self.step_admitted(message),
            Err(Turned::Away(reason)) => effects.push(Effect::Refused { from, reason }),
            Err(Turned::LogLost(acknowledged)) => {
                effects.push(Effect::LogLost { acknowledged, last: self.last_index() });
            }
        }
    }

    /// What fails here was lost on its way, as far as the sender knows.
    fn step_admitted(&mut self, message: Message) {
        self.note_leader_commit(&message);
        match message.get_msg_type() {
            MessageType::MsgPropose => self.take_forwarded(message),
            MessageType::MsgReadIndex if self.leads() => self.next_reads.push(message),
            MessageType::MsgAppend => self.step_append(message),
            _ => drop(self.node.step(message)),
        }
    }

    /// An append without entries that brings a new commit index wants no answer if what is before it was acknowledged
    /// already. Without news it may be the leader's question whether an acknowledgement was lost, and is answered.
    fn step_append(&mut self, message: Message) {
        let committed = self.node.raft.raft_log.committed;
        let tells_commit = message.entries.is_empty() && message.commit > committed;
        drop(self.node.step(message));
        let raft = &mut self.node.raft;
        let accepted = |answer: &Message| answer.get_msg_type() == MessageType::MsgAppendResponse && !answer.reject;
        let Some(index) = raft.msgs.last().filter(|answer| accepted(answer)).map(|answer| answer.index) else { return };
        let told_before = self.acknowledged.0 == raft.term && self.acknowledged.1 >= index;
        if !told_before {
            self.acknowledged = (raft.term, index);
        } else if tells_commit && raft.raft_log.committed > committed {
            raft.msgs.pop();
        }
    }

    /// A proposal of a peer. The next leader may be the one it comes from, and turns away what comes from itself, so it
    /// travels on as this member's.
    fn take_forwarded(&mut self, mut proposal: Message) {
        if self.has_taker() {
            // Lost here is lost on the way, as far as its sender knows.
            proposal.from = self.node.raft.id;
            self.step_proposal(proposal);
        } else {
            self.held.keep(proposal, None, self.now);
        }
    }

    /// A proposal that did not get away waits for another leader, or another term of the same. It was checked when it came.
    fn take_back(&mut self, proposal: raftpb::Message) {
        let given_to = (proposal.to, self.node.raft.term);
        let proposal = convert::message_in(proposal, MessageType::MsgPropose);
        self.held.keep(proposal, Some(given_to), self.now);
    }

    /// Whether a proposal can be appended here, or sent to a leader.
    fn has_taker(&self) -> bool {
        let raft = &self.node.raft;
        if self.leads() { raft.lead_transferee.is_none() } else { raft.leader_id != ::raft::INVALID_ID }
    }

    fn release_held(&mut self) {
        if self.held.any() && self.has_taker() {
            let office = (self.node.raft.leader_id, self.node.raft.term);
            for mut proposal in self.held.take_for(office) {
                proposal.from = self.node.raft.id;
                self.step_proposal(proposal);
            }
        }
    }

    /// A leader appends all payloads at once; a follower forwards them in messages of bounded size.
    fn propose(&mut self, proposals: Vec<Proposal>, effects: &mut Vec<Effect>) {
        let bytes_max = if self.leads() { usize::MAX } else { FORWARD_BYTES_MAX };
        let (mut ids, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
        for Proposal { id, payload, only_in } in proposals {
            if only_in.is_some_and(|term| !(self.leads() && self.node.raft.term == term.0)) {
                effects.push(Effect::Dropped { ids: vec![id], reason: DropReason::Deposed });
                continue;
            }
            if !entries.is_empty() && bytes.saturating_add(payload.len()) > bytes_max {
                self.append(mem::take(&mut ids), mem::take(&mut entries), effects);
                bytes = 0;
            }
            bytes = bytes.saturating_add(payload.len());
            ids.push(id);
            entries.push(Entry { data: payload, ..Entry::default() });
        }
        if !entries.is_empty() {
            self.append(ids, entries, effects);
        }
    }

    fn propose_change(&mut self, id: RequestId, change: &raftpb::ConfChange, effects: &mut Vec<Effect>) {
        if !door::is_known(change) {
            effects.push(Effect::Dropped { ids: vec![id], reason: DropReason::InvalidChange });
            return;
        }
        let mut entry = Entry { data: change.encode_to_vec().into(), ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChange);
        self.append(vec![id], vec![entry], effects);
    }

    fn append(&mut self, ids: Vec<RequestId>, entries: Vec<Entry>, effects: &mut Vec<Effect>) {
        let mut proposal = Message::default();
        proposal.set_msg_type(MessageType::MsgPropose);
        proposal.from = self.node.raft.id;
        proposal.set_entries(entries.into());
        let reason = if self.is_overloaded() {
            DropReason::Overloaded
        } else if self.leaving.is_some() {
            DropReason::Transferring
        } else if self.step_proposal(proposal) {
            return;
        } else if self.node.raft.leader_id == ::raft::INVALID_ID {
            DropReason::NoLeader
        } else {
            DropReason::Transferring
        };
        effects.push(Effect::Dropped { ids, reason });
    }

    /// A leader appends; a follower forwards to its leader. False if the proposal is dropped.
    ///
    /// The leader's part of the raft crate would parse configuration changes with its own decoder, which knows neither
    /// etcd's numbers nor limits; its rules are carried out here instead.
    fn step_proposal(&mut self, mut proposal: Message) -> bool {
        if !self.leads() {
            return self.node.step(proposal).is_ok();
        }
        let raft = &mut self.node.raft;
        if raft.lead_transferee.is_some() || raft.prs().get(raft.id).is_none() {
            return false;
        }
        let mut entries = proposal.take_entries().into_vec();
        for (index, entry) in (raft.raft_log.last_index() + 1..).zip(&mut entries) {
            if entry.get_entry_type() == EntryType::EntryNormal {
                continue;
            }
            if raft.has_pending_conf() {
                // One change at a time (raft thesis §4.1): an entry without effect takes its place, as in etcd.
                *entry = Entry::default();
            } else {
                raft.pending_conf_index = index;
            }
        }
        let appended = raft.append_entry(&mut entries);
        raft.bcast_append();
        appended
    }

    fn read(&mut self, context: RequestId, effects: &mut Vec<Effect>) {
        if !self.reads.add(context) {
            effects.push(Effect::ReadLost(context));
        }
    }

    /// Asks for the reads that are due, if there is somebody to ask.
    fn ask_reads(&mut self) {
        let answerable = match self.node.raft.state {
            StateRole::Leader => self.node.raft.commit_to_current_term(),
            _ => self.node.raft.leader_id != ::raft::INVALID_ID,
        };
        if !answerable {
            return;
        }
        let due = self.reads.due(self.now).into_iter().map(reads::request);
        if self.leads() {
            self.next_reads.extend(due);
            self.start_round();
        } else {
            due.for_each(|request| drop(self.node.step(request)));
        }
    }

    /// Confirms with one question to the others all reads that wait, of this member and of its peers. What comes during
    /// a round waits for the next, up to a tick: the round may be lost.
    fn start_round(&mut self) {
        let raft = &mut self.node.raft;
        let is_under_way = raft.pending_read_count() > 0 && self.now == self.reads_asked;
        if is_under_way {
            return;
        }
        let (id, committed, alone) = (raft.id, raft.raft_log.committed, raft.prs().is_singleton());
        let Some(last) = self.next_reads.pop() else { return };
        self.reads_asked = self.now;
        for read in mem::take(&mut self.next_reads) {
            if alone {
                drop(self.node.step(read));
            } else {
                self.node.raft.read_only.add_request(committed, read, id);
            }
        }
        drop(self.node.step(last));
    }

    fn read_answered(&mut self, context: &[u8], index: LogIndex, effects: &mut Vec<Effect>) {
        if let Some(context) = reads::decode(context)
            && self.reads.remove(context)
        {
            effects.push(Effect::ReadReady { context, index });
        }
    }

    fn applied(&mut self, index: LogIndex) {
        self.applied = self.applied.max(index.0.min(self.handed_out));
        self.advance_applied();
        if self.campaign_due {
            self.campaign();
        }
    }

    /// Lets the raft crate follow the state machine, as far as it can: a snapshot may be applied before its batch is
    /// reported durable.
    fn advance_applied(&mut self) {
        let log = &self.node.raft.raft_log;
        let index = self.applied.min(log.committed).min(log.persisted);
        if index > log.applied {
            self.node.advance_apply_to(index);
            let conf_state = self.conf_state.clone();
            self.node.mut_store().applied_to(index, conf_state);
        }
    }

    /// The state machine may still be behind a snapshot that has brought a later configuration.
    fn apply_change(&mut self, index: LogIndex, change: Change, effects: &mut Vec<Effect>) {
        if index.0 <= self.installed {
            return;
        }
        self.leave();
        let own = self.node.raft.id;
        if change == Change::Remove(MemberId(own)) {
            self.conf_state.voters.retain(|id| *id != own);
            self.conf_state.learners.retain(|id| *id != own);
            self.leaving = Some(index.0);
            // The others' answers tell that they know.
            self.node.ping();
        } else if let Some(change) = convert::change_in(change) {
            self.reconfigure(&change);
        }
        let conf_state = convert::conf_state_out(self.conf_state.clone());
        effects.push(Effect::Configured { index, conf_state });
    }

    fn reconfigure(&mut self, change: &ConfChangeV2) {
        match self.node.apply_conf_change(change) {
            Ok(conf_state) => self.conf_state = conf_state,
            Err(error) => tracing::error!(%error, "raft refuses a committed configuration change"),
        }
    }

    fn note_leader_commit(&mut self, message: &Message) {
        let from_leader = matches!(message.get_msg_type(), MessageType::MsgAppend | MessageType::MsgHeartbeat);
        if from_leader && message.term >= self.node.raft.term {
            self.leader_commit = self.leader_commit.max(message.commit);
        }
    }

    fn fetched(&mut self, fetched: Fetched) {
        for context in self.node.mut_store().take_fetched(fetched) {
            self.node.on_entries_fetched(context);
        }
    }

    fn snapshot_sent(&mut self, to: MemberId, delivered: bool) {
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(to.0, status);
    }
}

/// Whether a message of a member that does not lead may leave only when what it refers to is durable. Requests, answers
/// to heartbeats and refusals promise nothing; a pre-vote is not a vote.
fn is_promise(message: &Message) -> bool {
    match message.get_msg_type() {
        MessageType::MsgAppendResponse => !message.reject,
        MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgPropose
        | MessageType::MsgReadIndex
        | MessageType::MsgTransferLeader
        | MessageType::MsgTimeoutNow => false,
        _ => true,
    }
}

/// Leaves out acknowledgements that a later one of the same term to the same peer includes.
fn without_superseded(promises: Vec<raftpb::Message>) -> Vec<raftpb::Message> {
    let acknowledges = |message: &raftpb::Message| message.r#type == i32::from(raftpb::MessageType::MsgAppResp);
    let supersedes = |later: &raftpb::Message, earlier: &raftpb::Message| {
        acknowledges(later) && later.to == earlier.to && later.term == earlier.term && later.index >= earlier.index
    };
    let mut kept: Vec<raftpb::Message> = Vec::with_capacity(promises.len());
    for message in promises {
        if let Some(last) = kept.last_mut()
            && acknowledges(last)
            && supersedes(&message, last)
        {
            *last = message;
        } else {
            kept.push(message);
        }
    }
    kept
}

/// Takes batches off the queue in order.
trait Batches {
    fn pop_front_if_at_most(&mut self, number: u64) -> Option<Unsynced>;
}

impl Batches for VecDeque<Unsynced> {
    fn pop_front_if_at_most(&mut self, number: u64) -> Option<Unsynced> {
        if self.front()?.number <= number { self.pop_front() } else { None }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("id", &self.node.raft.id)
            .field("standing", &self.standing)
            .field("committed", &self.committed)
            .field("applied", &self.applied)
            .field("unsynced", &self.unsynced)
            .finish_non_exhaustive()
    }
}
