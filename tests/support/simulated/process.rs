//! A process: the real parts of a member, and what waits between them. Each method is one turn of a thread of the server.

use std::mem;

use prost::Message as _;
use quorate::apply::{Applied, Applier, CompactionProgress};
use quorate::disk::{Directory, MemoryDirectory};
use quorate::pb::etcdserverpb::{InternalRaftRequest, RequestHeader};
use quorate::pb::raftpb::Entry;
use quorate::raft::{self, Effect, Input, Proposal, Standing};
use quorate::server::Identity;
use quorate::server::durability::{Mark, WalOrder, save_snapshot};
use quorate::server::raft_driver::RaftDriver;
use quorate::server::reads::Rounds;
use quorate::server::recovery::{Parts, Settings};
use quorate::storage::{Engine, MemoryEngine};
use quorate::types::{LogIndex, RequestId, RequestIds, Term};
use quorate::wal::Wal;

use super::model::VERSION;
use super::{Stop, excused};
use crate::support::random::Random;

/// How a process works: every seed has other habits.
pub struct Habits {
    pub settings: Settings,
    snapshot_entries: u64,
    catchup_entries: u64,
    pub files_kept: Option<usize>,
    group_entries_max: u64,
    compaction_rows_max: u64,
}

impl Habits {
    pub fn any(random: &mut Random) -> Self {
        Self {
            settings: settings(random),
            snapshot_entries: 3 + random.below(60),
            catchup_entries: *random.pick(&[0, 0, 5, 20]),
            files_kept: *random.pick(&[None, None, Some(1), Some(2), Some(5)]),
            group_entries_max: *random.pick(&[1, 4, 50]),
            compaction_rows_max: *random.pick(&[1, 5, 100]),
        }
    }

    /// Entries that are applied together, at most.
    pub fn any_group(&self, random: &mut Random) -> usize {
        usize::try_from(1 + random.below(self.group_entries_max)).unwrap_or(1)
    }
}

fn settings(random: &mut Random) -> Settings {
    let mut settings = Settings::new(VERSION.parse().expect("a version"));
    settings.raft.pre_vote = random.chance(70);
    settings.raft.kept_bytes_max = *random.pick(&[0, 4096, raft::KEPT_BYTES_MAX_DEFAULT]);
    settings.wal.segment_bytes = 1024 << random.below(6);
    settings
}

/// What waits for raft.
enum Order {
    Propose(Proposal),
    /// Somebody has joined an empty list of readers.
    ReadersWait,
    Ticks(u32),
    Input(Input),
}

/// The parts that every simulator drives. `R` is who reads.
pub struct Process<R> {
    pub identity: Identity,
    pub driver: RaftDriver,
    pub rounds: Rounds<R>,
    pub wal: Wal<MemoryDirectory>,
    pub applier: Applier<MemoryEngine>,
    pub ids: RequestIds,
    pub standing: Standing,
    for_raft: Vec<Order>,
    pub for_wal: Vec<WalOrder>,
    /// What waits for the keeper.
    pub mark: Option<Mark>,
    entries_since_mark: u64,
    pub compaction_due: bool,
    /// Rounds of reads that raft was told to forget, because everybody had given up.
    pub rounds_abandoned: u64,
}

impl<R> Process<R> {
    /// `start` tells its identifiers of requests from those of earlier starts.
    pub fn new(parts: Parts<MemoryEngine, MemoryDirectory>, start: u64) -> Self {
        let Parts { identity, applier, wal, member, .. } = parts;
        Self {
            identity,
            standing: member.standing(),
            driver: RaftDriver::new(member),
            rounds: Rounds::default(),
            wal,
            applier,
            ids: RequestIds::new(identity.member, start),
            for_raft: Vec::new(),
            for_wal: Vec::new(),
            mark: None,
            entries_since_mark: 0,
            compaction_due: true,
            rounds_abandoned: 0,
        }
    }

    pub fn leads(&self) -> bool {
        self.standing.role == raft::Role::Leader
    }

    /// Ticks are due.
    pub fn tick(&mut self, ticks: u32) {
        if ticks > 0 {
            self.for_raft.push(Order::Ticks(ticks));
        }
    }

    /// Lets raft know, at its next turn.
    pub fn tell(&mut self, input: Input) {
        self.for_raft.push(Order::Input(input));
    }

    /// Proposes on the member's own behalf, or on that of a client.
    pub fn propose(&mut self, request: InternalRaftRequest) -> RequestId {
        self.propose_in(request, None)
    }

    /// Proposes what only the leader of the term may want.
    pub fn propose_as_leader(&mut self, request: InternalRaftRequest) -> RequestId {
        self.propose_in(request, Some(self.standing.term))
    }

    fn propose_in(&mut self, mut request: InternalRaftRequest, only_in: Option<Term>) -> RequestId {
        let id = self.ids.next();
        request.header = Some(RequestHeader { id: id.0, ..Default::default() });
        self.for_raft.push(Order::Propose(Proposal { only_in, ..Proposal::new(id, request.encode_to_vec()) }));
        id
    }

    /// Proposes what somebody else has encoded.
    pub fn propose_encoded(&mut self, proposal: Proposal) {
        self.for_raft.push(Order::Propose(proposal));
    }

    /// Somebody wants to read what is there by now.
    pub fn read(&mut self, reader: R) {
        if self.rounds.join(reader) {
            self.for_raft.push(Order::ReadersWait);
        }
    }

    /// Whether something waits for raft.
    pub fn has_orders(&self) -> bool {
        !self.for_raft.is_empty()
    }

    /// Whether a received snapshot waits for raft.
    pub fn has_snapshot_order(&self) -> bool {
        let has = |order: &Order| matches!(order, Order::Input(Input::FromPeer(m)) if m.snapshot.is_some());
        self.for_raft.iter().any(has)
    }

    /// The raft thread takes what waits for it.
    pub fn take_orders(&mut self) {
        for order in mem::take(&mut self.for_raft) {
            match order {
                Order::Propose(proposal) => self.driver.propose(proposal),
                Order::ReadersWait => self.driver.readers_wait(),
                Order::Ticks(ticks) => self.driver.tick(ticks),
                Order::Input(input) => self.driver.accept(input),
            }
        }
    }

    /// What the raft thread does next.
    pub fn next_effects(&mut self, has_given_up: impl Fn(&R) -> bool) -> Option<Vec<Effect>> {
        let Self { driver, rounds, ids, rounds_abandoned, .. } = self;
        driver.next(|| {
            let started = rounds.start(ids.next(), has_given_up);
            *rounds_abandoned += started.abandoned.len() as u64;
            started
        })
    }

    /// Raft has confirmed a round. Returns who may read at once.
    pub fn confirm(&mut self, round: RequestId, index: LogIndex) -> Vec<R> {
        self.rounds.confirm(round, index, self.applier.published().applied)
    }

    /// One group of the apply thread.
    pub fn apply(&mut self, group: &[Entry]) -> Result<Vec<Applied>, Stop> {
        let applied = self.applier.apply(group).map_err(|error| excused(&error))?;
        if applied.len() != group.len() {
            return Err(Stop::Wrong(format!("{} of {} entries are applied", applied.len(), group.len())));
        }
        Ok(applied)
    }

    /// Behind a group: raft hears of it, and now and then the state is to be made durable.
    pub fn applied(&mut self, entries: usize, habits: &Habits) {
        let state = self.applier.published();
        self.tell(Input::Applied(state.applied));
        self.entries_since_mark += entries as u64;
        if self.entries_since_mark >= habits.snapshot_entries && self.mark.is_none() {
            self.mark = Some(Mark { index: state.applied, term: state.term, cluster: state.cluster });
            self.entries_since_mark = 0;
        }
    }

    /// One snapshot of the keeper. Returns what it has marked.
    pub fn keep(
        &mut self,
        engine: &impl Engine,
        snap: &impl Directory,
        habits: &Habits,
    ) -> Result<Option<LogIndex>, Stop> {
        let Some(mark) = self.mark.take() else { return Ok(None) };
        let record = save_snapshot(engine, snap, &mark, habits.files_kept).map_err(|error| excused(&error))?;
        let release = LogIndex(mark.index.0.saturating_sub(habits.catchup_entries));
        self.for_wal.push(WalOrder::Snapshot { mark: record, release, segments_kept: 0 });
        self.tell(Input::Compact(release));
        Ok(Some(mark.index))
    }

    /// One piece of a compaction. True if it was the last.
    pub fn compact(&mut self, random: &mut Random, habits: &Habits) -> Result<bool, Stop> {
        let rows = usize::try_from(1 + random.below(habits.compaction_rows_max)).unwrap_or(1);
        let progress = self.applier.compact_some(rows).map_err(|error| excused(&error))?;
        self.compaction_due = progress == CompactionProgress::Working;
        Ok(matches!(progress, CompactionProgress::Finished(_)))
    }
}
