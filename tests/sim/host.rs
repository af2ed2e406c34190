//! A machine: disks that forget, a clock that is wrong, and the process that runs there while it runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use quorate::apply::Applier;
use quorate::disk::MemoryDirectory;
use quorate::lease::{LeaseRow, Lessor, LessorOptions};
use quorate::membership::Cluster;
use quorate::pb::etcdserverpb::RangeRequest;
use quorate::pb::raftpb::Entry;
use quorate::server::leadership::{Doubts, Leadership, Trust};
use quorate::server::lease_office::{Checkpoint, Renewal};
use quorate::server::recovery::{self, Bootstrap, Parts, PartsError, Settings};
use quorate::server::ticker::{self, Ticker};
use quorate::storage::{Engine, MemoryEngine, Row};
use quorate::types::{LogIndex, MemberId, RequestId, Ticks};
use quorate::wal::{Wal, WalError};
use quorate::watch::{Hub, StreamId};

use crate::oracle::Log;
use crate::simulated::disk::Disk;
use crate::simulated::process::Process;
use crate::simulated::{Stop, Wrong, excused};

/// Microseconds since the world began.
pub(crate) type Time = u64;

pub(crate) const MS: Time = 1_000;
pub(crate) const SECOND: Time = 1_000 * MS;
/// One tick of raft.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// One machine.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) member: MemberId,
    pub(crate) settings: Settings,
    pub(crate) disk: Disk,
    /// A received generation of the state, durable, and the snapshot it holds.
    pub(crate) staged: Option<(LogIndex, MemoryEngine)>,
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
    /// A compaction was under way when the power was cut.
    pub(crate) compacting_at_crash: bool,
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

/// Somebody who waits until a read is linearizable. Who wants to act as the leader settles so many doubts by that.
pub(crate) enum Reader {
    Client(Waiter, RangeRequest),
    Renewal(Waiter, Renewal, u64),
    Scan(u64),
    /// A renewal of a lease that may have been granted elsewhere.
    CatchUp(Waiter, Renewal),
}

/// What becomes of an answer.
pub(crate) enum Awaited {
    Client(Waiter),
    /// The seconds that a client hears once its renewal is recorded.
    Renewal(Waiter, i64),
    Checkpoint(Box<Checkpoint>),
}

/// One process.
pub(crate) struct Life {
    /// Tells apart the processes of all machines.
    pub(crate) number: u64,
    pub(crate) host: usize,
    pub(crate) process: Process<Reader>,
    pub(crate) lessor: Lessor,
    pub(crate) hub: Hub,
    /// What raft's log holds, and what of it is durable.
    pub(crate) log: Log,
    pub(crate) durable: Log,
    pub(crate) sole_voter: bool,
    /// Which actors have a turn coming.
    pub(crate) awake: BTreeSet<Actor>,
    pub(crate) for_apply: VecDeque<ApplyOrder>,
    /// Entries that are waited for.
    pub(crate) awaited: BTreeMap<RequestId, Awaited>,
    /// Whose stream it is, and the connection.
    pub(crate) streams: BTreeMap<StreamId, (usize, u64)>,
    /// Who led, and whether it is certain that this member still does.
    pub(crate) leadership: Leadership,
    pub(crate) doubts: Doubts,
    pub(crate) ticker: Ticker,
    /// When its raft thread last looked whether to tick, by its own clock.
    pub(crate) looked_at: Duration,
    /// The end of its last pause.
    pub(crate) resumed_at: Time,
}

impl Life {
    /// `now` is the time that the process sees.
    pub(crate) fn new(
        mut parts: Parts<MemoryEngine, MemoryDirectory>,
        host: usize,
        number: u64,
        now: Duration,
    ) -> Self {
        let leases = mem::take(&mut parts.leases);
        let process = Process::new(parts, now.as_millis() as u64 + number);
        let (state, last) = (process.applier.published(), process.driver.member().last_index());
        let behind = LogIndex(state.applied.0 + 1);
        let entries = process.wal.reader().entries(behind, last, usize::MAX).unwrap_or_default();
        let log = Log::from((state.applied.0, state.term.0), &entries);
        let voters = &state.cluster.configuration().voters;
        Self {
            number,
            host,
            sole_voter: *voters == [process.identity.member.0],
            durable: log.clone(),
            log,
            hub: Hub::new(state.view.revision(), state.view.compact_revision()),
            lessor: Lessor::new(lessor_options(), leases),
            process,
            awake: BTreeSet::new(),
            for_apply: VecDeque::new(),
            awaited: BTreeMap::new(),
            streams: BTreeMap::new(),
            leadership: Leadership::default(),
            doubts: Doubts::default(),
            ticker: Ticker::new(TICK, now),
            looked_at: now,
            resumed_at: 0,
        }
    }

    /// A received state takes the place of the old one.
    pub(crate) fn install(&mut self, applier: Applier<MemoryEngine>, leases: Vec<LeaseRow>) {
        let state = applier.published();
        self.hub.skip_to(state.view.revision(), state.view.compact_revision());
        self.lessor = Lessor::new(lessor_options(), leases);
        self.process.applier = applier;
        self.process.compaction_due = true;
    }

    /// Whether a read here and now needs nobody's word.
    pub(crate) fn is_alone(&self) -> bool {
        let Process { applier, standing, .. } = &self.process;
        self.process.leads() && self.sole_voter && applier.published().term == standing.term
    }

    /// Whether it may act as the leader at `now`, which is the time that it sees.
    pub(crate) fn trust(&self, now: Duration) -> Trust {
        self.doubts.weigh(self.process.leads(), ticker::is_asleep(now.saturating_sub(self.looked_at), TICK))
    }

    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        self.process.applier.published().cluster
    }

    pub(crate) fn can(&self, actor: Actor) -> bool {
        match actor {
            Actor::Raft => self.process.has_orders(),
            Actor::Wal => !self.process.for_wal.is_empty(),
            Actor::Apply => !self.for_apply.is_empty(),
            Actor::Keeper => self.process.mark.is_some(),
            Actor::Compactor => self.process.compaction_due,
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

    /// The same, as threads see it.
    pub(crate) fn monotonic(&self, now: Time) -> Duration {
        Duration::from_micros(self.local(now))
    }

    fn local(&self, now: Time) -> Time {
        let now = i128::from(now);
        u64::try_from(now + now * i128::from(self.drift) / 1_000_000).unwrap_or(0)
    }

    /// How long a duration of its clock really takes.
    pub(crate) fn really(&self, duration: Duration) -> Time {
        let (million, drift) = (1_000_000_i128, i128::from(self.drift));
        u64::try_from(duration.as_micros() as i128 * million / (million + drift)).unwrap_or(0)
    }

    pub(crate) fn is_paused(&self, now: Time) -> bool {
        self.paused_until > now
    }

    /// The parts of its member, founded, joined or recovered.
    pub(crate) fn recover(&mut self) -> Result<Parts<MemoryEngine, MemoryDirectory>, Stop> {
        let Self { settings, bootstrap, disk, staged, name, .. } = self;
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
                let (_, engine) = staged
                    .take()
                    .filter(|(staged, _)| *staged == index)
                    .ok_or_else(|| format!("the log begins with the snapshot at {index}, and no state holds it"))?;
                disk.engine = engine;
                restart(disk)
            }
            other => other,
        };
        *staged = None;
        parts.map_err(|error| excused(&error))
    }
}

/// All rows of a state, as a snapshot carries them.
pub(crate) fn rows_of(engine: &MemoryEngine) -> Result<Vec<Row>, Wrong> {
    use quorate::storage::Read as _;
    use std::ops::Bound::Unbounded;
    engine.snapshot().scan(Unbounded, Unbounded).collect::<Result<_, _>>().map_err(|error| error.to_string())
}
