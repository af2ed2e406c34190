//! A machine: disks that forget, a clock that is wrong, and the process that runs there while it runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::sync::Arc;

use quorate::apply::Applier;
use quorate::disk::MemoryDirectory;
use quorate::lease::{LeaseRow, Lessor, LessorOptions};
use quorate::membership::Cluster;
use quorate::pb::etcdserverpb::{InternalRaftRequest, RequestHeader};
use quorate::pb::raftpb::Entry;
use quorate::raft::{self, Input, Member, Proposal, Standing};
use quorate::server::Identity;
use quorate::server::durability::{Mark, WalOrder};
use quorate::server::recovery::{self, Bootstrap, Parts, PartsError, Settings};
use quorate::storage::{Engine, MemoryEngine, Row};
use quorate::types::{LogIndex, MemberId, RequestId, RequestIds, Ticks};
use quorate::wal::{Wal, WalError};
use quorate::watch::{Hub, StreamId};

use crate::clients::Asked;
use crate::oracle::{Log, Wrong};

/// Microseconds since the world began.
pub(crate) type Time = u64;

pub(crate) const MS: Time = 1_000;
pub(crate) const SECOND: Time = 1_000 * MS;

/// Why a step was not carried out.
pub(crate) enum Stop {
    /// The power is gone.
    Down(String),
    /// The member ends by itself, as it should.
    Ended(&'static str),
    /// A promise is broken.
    Wrong(Wrong),
}

impl From<Wrong> for Stop {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

/// Only a failure made to order excuses an error.
pub(crate) fn excused(error: &(dyn Error + 'static)) -> Stop {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    if text.contains("injected failure") { Stop::Down(text) } else { Stop::Wrong(format!("refused: {text}")) }
}

/// One machine.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) member: MemberId,
    pub(crate) settings: Settings,
    pub(crate) disk: Disk,
    /// Its clock runs so many millionths too fast, or too slow.
    pub(crate) drift: i64,
    /// Nothing runs until then.
    pub(crate) paused_until: Time,
    /// Disk operations that begin before this time end after it.
    pub(crate) stalled_until: Time,
    /// The usual time of a sync.
    pub(crate) sync_time: Time,
    pub(crate) starts: u64,
    pub(crate) life: Option<Box<Life>>,
    /// Its member was removed: it never starts again.
    pub(crate) gone: bool,
    /// The cut of the power that is under way.
    pub(crate) compacting_at_crash: bool,
}

/// What outlives a process.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) wal: MemoryDirectory,
    pub(crate) snap: MemoryDirectory,
    /// The live generation of the state.
    pub(crate) engine: MemoryEngine,
    /// A received generation, durable, and the snapshot it holds.
    pub(crate) staged: Option<(LogIndex, MemoryEngine)>,
}

/// What waits for raft.
pub(crate) enum Order {
    Propose(Proposal),
    Input(Input),
}

/// What waits for the state machine.
pub(crate) enum ApplyOrder {
    Entry(Entry),
    /// A received state takes the place of the old one.
    Install(LogIndex),
}

/// The parts of a process that do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Actor {
    Raft,
    Wal,
    Apply,
    Keeper,
    Compactor,
    Watch,
}

impl Actor {
    pub(crate) const ALL: [Self; 6] = [Self::Raft, Self::Wal, Self::Apply, Self::Keeper, Self::Compactor, Self::Watch];
}

/// Somebody who waits for an answer: a client and the number of its operation.
pub(crate) type Waiter = (usize, u64);

/// One process.
pub(crate) struct Life {
    /// Tells apart the processes of all machines.
    pub(crate) number: u64,
    pub(crate) host: usize,
    pub(crate) identity: Identity,
    pub(crate) member: Member,
    pub(crate) wal: Wal<MemoryDirectory>,
    pub(crate) applier: Applier<MemoryEngine>,
    pub(crate) lessor: Lessor,
    pub(crate) hub: Hub,
    pub(crate) ids: RequestIds,
    /// What raft's log holds, and what of it is durable.
    pub(crate) log: Log,
    pub(crate) durable: Log,
    pub(crate) standing: Standing,
    pub(crate) sole_voter: bool,
    /// Which actors have a turn coming.
    pub(crate) awake: BTreeSet<Actor>,
    pub(crate) effects: Vec<raft::Effect>,
    pub(crate) for_raft: Vec<Order>,
    pub(crate) for_wal: Vec<WalOrder>,
    pub(crate) for_apply: VecDeque<ApplyOrder>,
    pub(crate) mark: Option<Mark>,
    pub(crate) entries_since_mark: u64,
    pub(crate) compaction_due: bool,
    /// Clients that wait for an entry.
    pub(crate) waiters: BTreeMap<RequestId, Waiter>,
    /// Renewals that wait until a checkpoint is cleared, with their answer.
    pub(crate) renewals: BTreeMap<RequestId, (Waiter, i64)>,
    /// Reads that wait for the next round, by round, and by the index that must be applied first.
    pub(crate) reads_waiting: Vec<(Waiter, Asked)>,
    pub(crate) rounds: BTreeMap<RequestId, Vec<(Waiter, Asked)>>,
    pub(crate) rounds_began: BTreeMap<RequestId, Time>,
    pub(crate) reads_applying: BTreeMap<LogIndex, Vec<(Waiter, Asked)>>,
    /// Whose stream it is, and the connection.
    pub(crate) streams: BTreeMap<StreamId, (usize, u64)>,
    /// The end of its last pause.
    pub(crate) resumed_at: Time,
    /// When the last round of reads that was confirmed began.
    pub(crate) confirmed_at: Time,
}

impl Life {
    pub(crate) fn new(parts: Parts<MemoryEngine, MemoryDirectory>, host: usize, number: u64, now_ms: u64) -> Self {
        let Parts { identity, applier, leases, wal, member, .. } = parts;
        let state = applier.published();
        let behind = LogIndex(state.applied.0 + 1);
        let entries = wal.reader().entries(behind, member.last_index(), usize::MAX).unwrap_or_default();
        let log = Log::from((state.applied.0, state.term.0), &entries);
        let voters = &state.cluster.configuration().voters;
        Self {
            number,
            host,
            identity,
            standing: member.standing(),
            sole_voter: *voters == [identity.member.0],
            durable: log.clone(),
            log,
            hub: Hub::new(state.view.revision(), state.view.compact_revision()),
            lessor: Lessor::new(lessor_options(), leases),
            ids: RequestIds::new(identity.member, now_ms + number),
            member,
            wal,
            applier,
            awake: BTreeSet::new(),
            effects: Vec::new(),
            for_raft: Vec::new(),
            for_wal: Vec::new(),
            for_apply: VecDeque::new(),
            mark: None,
            entries_since_mark: 0,
            compaction_due: true,
            waiters: BTreeMap::new(),
            renewals: BTreeMap::new(),
            reads_waiting: Vec::new(),
            rounds: BTreeMap::new(),
            rounds_began: BTreeMap::new(),
            reads_applying: BTreeMap::new(),
            streams: BTreeMap::new(),
            resumed_at: 0,
            confirmed_at: 0,
        }
    }

    /// A received state takes the place of the old one.
    pub(crate) fn install(&mut self, applier: Applier<MemoryEngine>, leases: Vec<LeaseRow>) {
        let state = applier.published();
        self.hub.skip_to(state.view.revision(), state.view.compact_revision());
        self.lessor = Lessor::new(lessor_options(), leases);
        self.applier = applier;
        self.compaction_due = true;
    }

    /// Whether a read here and now needs nobody's word.
    pub(crate) fn is_alone(&self) -> bool {
        let leads = self.standing.role == raft::Role::Leader;
        leads && self.sole_voter && self.applier.published().term == self.standing.term
    }

    /// Whether it slept, and has not heard since that it still leads.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.resumed_at > self.confirmed_at
    }

    pub(crate) fn leads(&self) -> bool {
        self.standing.role == raft::Role::Leader
    }

    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        self.applier.published().cluster
    }

    /// Proposes on the member's own behalf, or on that of a client.
    pub(crate) fn propose(&mut self, mut request: InternalRaftRequest) -> RequestId {
        use prost::Message as _;
        let id = self.ids.next();
        request.header = Some(RequestHeader { id: id.0, ..Default::default() });
        self.for_raft.push(Order::Propose(Proposal::new(id, request.encode_to_vec())));
        id
    }

    /// What only the leader of the term may want.
    pub(crate) fn propose_as_leader(&mut self, request: InternalRaftRequest) {
        let only_in = Some(self.standing.term);
        self.propose(request);
        if let Some(Order::Propose(proposal)) = self.for_raft.last_mut() {
            proposal.only_in = only_in;
        }
    }

    pub(crate) fn can(&self, actor: Actor) -> bool {
        match actor {
            Actor::Raft => !self.for_raft.is_empty() || !self.reads_waiting.is_empty(),
            Actor::Wal => !self.for_wal.is_empty(),
            Actor::Apply => !self.for_apply.is_empty(),
            Actor::Keeper => self.mark.is_some(),
            Actor::Compactor => self.compaction_due,
            Actor::Watch => self.hub.has_work(),
        }
    }
}

fn lessor_options() -> LessorOptions {
    LessorOptions { retry_ms: 2_000, checkpoint_ms: Some(2_500) }
}

impl Host {
    /// The time its process sees, in milliseconds.
    pub(crate) fn clock(&self, now: Time) -> Ticks {
        Ticks(self.local(now) / MS)
    }

    fn local(&self, now: Time) -> Time {
        let now = i128::from(now);
        u64::try_from(now + now * i128::from(self.drift) / 1_000_000).unwrap_or(0)
    }

    /// How long a duration of its clock really takes.
    pub(crate) fn really(&self, duration: Time) -> Time {
        let (million, drift) = (1_000_000_i128, i128::from(self.drift));
        u64::try_from(i128::from(duration) * million / (million + drift)).unwrap_or(duration)
    }

    pub(crate) fn is_paused(&self, now: Time) -> bool {
        self.paused_until > now
    }

    /// The parts of its member, founded, joined or recovered.
    pub(crate) fn recover(&mut self) -> Result<Parts<MemoryEngine, MemoryDirectory>, Stop> {
        let Self { settings, bootstrap, disk, name, .. } = self;
        if !Wal::exists(&disk.wal).map_err(|error| excused(&error))? {
            let (engine, log) = (disk.engine.clone(), disk.wal.clone());
            let parts = match &bootstrap.joining {
                Some(joining) => recovery::join(engine, log, settings, joining.identity),
                None => recovery::found(engine, log, settings, bootstrap, name),
            };
            return parts.map_err(|error| excused(&error));
        }
        let restart = |disk: &Disk| recovery::restart(disk.engine.clone(), disk.wal.clone(), settings, bootstrap);
        let parts = match restart(disk) {
            Err(PartsError::Wal(WalError::SnapshotAhead { index, .. })) => {
                // The log knows of the received state: what is left is to make it the live one.
                let staged = disk.staged.take().filter(|(staged, _)| *staged == index);
                let (_, engine) = staged
                    .ok_or_else(|| format!("the log begins with the snapshot at {index}, and no state holds it"))?;
                disk.engine = engine;
                restart(disk)
            }
            other => other,
        };
        disk.staged = None;
        parts.map_err(|error| excused(&error))
    }
}

/// All rows of a state, as a snapshot carries them.
pub(crate) fn rows_of(engine: &MemoryEngine) -> Result<Vec<Row>, Wrong> {
    use quorate::storage::Read as _;
    use std::ops::Bound::Unbounded;
    engine.snapshot().scan(Unbounded, Unbounded).collect::<Result<_, _>>().map_err(|error| error.to_string())
}
