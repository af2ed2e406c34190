//! One member of the real parts on a disk that loses power, in one thread and from one seed.
//!
//! What the server's threads do is done here in steps, in an order that chance chooses among those the threads allow:
//! raft hands out batches, the log syncs them and reports, what is committed is applied and answered, the keeper makes
//! the state durable and lets the log go behind it. The power fails between two steps or at any operation of a disk.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::panic::{self, AssertUnwindSafe};

use quorate::apply;
use quorate::disk::MemoryDirectory;
use quorate::etcdfile::snap;
use quorate::pb::raftpb::Entry;
use quorate::raft::{self, Effect, Input, LogBatch, Proposal};
use quorate::server::durability::{WalOrder, carry_out};
use quorate::server::raft_change;
use quorate::server::recovery::{self, Bootstrap, Parts};
use quorate::storage::{Engine, MemoryEngine, MemorySnapshot, Row, StorageError, Writes};
use quorate::types::{LogIndex, Term};
use quorate::wal::{self, Wal};

use crate::oracle::{Found, Oracle};
use crate::request::{Encoded, Request};
use crate::simulated::disk::Disk;
use crate::simulated::process::{self, Process};
use crate::simulated::{Stop, Tally, Wrong, excused};
use crate::support::random::Random;

/// Steps of a life, at most.
const STEPS_MAX: u64 = 400;
/// Steps within which a member that is left alone must have done everything.
const QUIET_STEPS_MAX: u64 = 5_000;
/// Steps are so few that no life needs more identifiers.
const REQUESTS_PER_LIFE_MAX: u64 = 4 * STEPS_MAX;
/// Entries that wait to be applied while clients still send.
const BACKLOG_MAX: usize = 60;

/// Readers at a time.
const READERS_MAX: usize = 3;

/// A mistake put in on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    /// The log reports batches durable that it has only written.
    ReportsBeforeSync,
    /// The keeper records a mark for a state that it has not made durable.
    MarksBeforePersist,
}

/// A world that has ended.
pub(crate) struct Ended {
    pub(crate) trace: Vec<String>,
    pub(crate) tally: Tally,
    pub(crate) outcome: Result<(), Wrong>,
}

/// The disk, and everything that outlives the process.
struct World {
    random: Random,
    mistake: Mistake,
    habits: Habits,
    disk: Disk,
    /// From the moment a cluster is founded.
    oracle: Option<Oracle>,
    /// Requests so far.
    requests: u64,
    starts: u64,
    trace: Vec<String>,
    tally: Tally,
}

/// How this member is set up.
struct Habits {
    work: process::Habits,
    bootstrap: Bootstrap,
    /// Values are up to this long: a record may span several sectors.
    value_bytes_max: u64,
}

/// The process.
struct Life {
    /// Who reads has to see that far.
    process: Process<LogIndex>,
    /// Terms of the batches on their way to the disk.
    terms: VecDeque<(u64, Term)>,
    /// What waits to be applied.
    for_apply: VecDeque<Entry>,
    published_itself: bool,
    /// Reads that are not confirmed.
    reads: usize,
    /// How much each part gets done in this life.
    weights: [u64; Actor::ALL.len()],
}

/// Who can do the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Actor {
    Client,
    Reader,
    Raft,
    Wal,
    Apply,
    Keeper,
    Compactor,
}

impl Actor {
    const ALL: [Self; 7] =
        [Self::Client, Self::Reader, Self::Raft, Self::Wal, Self::Apply, Self::Keeper, Self::Compactor];
}

/// What brings a life to its end.
#[derive(Clone, Copy, Debug)]
struct Death {
    /// The step before which the disk begins to count, 0 for before the start; or before which the power fails.
    step: u64,
    place: Place,
}

/// Where the power fails: at the n-th operation of one kind from then on, or at once.
#[derive(Clone, Copy, Debug)]
enum Place {
    Between,
    Wal(u64),
    Snap(u64),
    Persist(u64),
    Commit(u64),
    Nowhere,
}

/// Lives one seed to its end. A panic of the code under test is a broken promise like any other.
pub(crate) fn run(seed: u64, mistake: Mistake) -> Ended {
    let mut world = World::new(seed, mistake);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    let outcome = outcome.unwrap_or_else(|_| Err("it panicked, see above".to_owned()));
    let World { mut trace, tally, .. } = world;
    trace.extend(outcome.as_ref().err().map(|wrong| format!("WRONG {wrong}")));
    Ended { trace, tally, outcome }
}

impl World {
    fn new(seed: u64, mistake: Mistake) -> Self {
        let mut random = Random::new(seed);
        let habits = Habits::any(&mut random);
        Self {
            random,
            mistake,
            habits,
            disk: Disk::default(),
            oracle: None,
            requests: 0,
            starts: 0,
            trace: Vec::new(),
            tally: Tally::new(),
        }
    }

    fn run(&mut self) -> Result<(), Wrong> {
        for _ in 0..3 + self.random.below(6) {
            let death = Death::any(&mut self.random, self.oracle.is_some());
            self.live(death)?;
        }
        self.live(Death { step: STEPS_MAX, place: Place::Nowhere })
    }

    /// From a start to the next failure of the power.
    fn live(&mut self, death: Death) -> Result<(), Wrong> {
        self.note(format!("life {} until {death:?}", self.starts));
        self.check_disk()?;
        if death.step == 0 {
            self.arm(death.place);
        }
        let was_founded = self.oracle.is_some();
        let mut life = match self.start() {
            Ok(life) => life,
            Err(Stop::Wrong(wrong)) => return Err(wrong),
            Err(Stop::Ended(why)) => return Err(why.to_owned()),
            Err(Stop::Down(how)) => {
                self.count(if was_founded { "cuts in a start" } else { "cuts in a founding" });
                self.lose_power(&how);
                return Ok(());
            }
        };
        let how = match self.steps(&mut life, death) {
            Ok(()) => {
                self.count("cuts between two steps");
                "between two steps".to_owned()
            }
            Err(Stop::Down(how)) => how,
            Err(Stop::Ended(why)) => return Err(why.to_owned()),
            Err(Stop::Wrong(wrong)) => return Err(wrong),
        };
        drop(life);
        self.lose_power(&how);
        Ok(())
    }

    fn arm(&mut self, place: Place) {
        match place {
            Place::Wal(n) => self.disk.wal.fail_after(n),
            Place::Snap(n) => self.disk.snap.fail_after(n),
            Place::Persist(n) => self.disk.engine.fail_persist(n),
            Place::Commit(n) => self.disk.engine.fail_commit(n),
            Place::Between | Place::Nowhere => {}
        }
    }

    fn lose_power(&mut self, how: &str) {
        let lost = self.disk.lose_power(&mut self.random);
        self.count(lost.kind());
        self.note(format!("down, {how}; {lost}"));
    }

    /// What must be true of the disk whenever nobody uses it.
    fn check_disk(&mut self) -> Result<(), Wrong> {
        if self.oracle.is_none() {
            return Ok(());
        }
        let survey = wal::survey(&self.disk.wal).map_err(|error| format!("the log cannot be surveyed: {error}"))?;
        let applied = apply::position(&self.disk.engine.snapshot()).map_err(|error| error.to_string())?.index;
        let newest = survey.snapshots.iter().max_by_key(|mark| mark.index).cloned().unwrap_or_default();
        self.note(format!("disk: log from {}, mark {}, state {applied}", survey.first, newest.index));
        if survey.torn.is_some() {
            self.count("torn ends repaired");
        }
        if newest.index > applied.0 {
            return Err(format!("the log has a mark at {}, and the state is at {applied}", newest.index));
        }
        if survey.first.0 > newest.index + 1 {
            return Err(format!("the log begins at {}, and its newest mark is at {}", survey.first, newest.index));
        }
        if newest.index > 0 && self.habits.work.files_kept.is_none() {
            let name = snap::name(newest.term, newest.index);
            snap::read(&self.disk.snap, &name).map_err(|error| format!("the log marks what is not there: {error}"))?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<Life, Stop> {
        self.starts += 1;
        let Habits { work, bootstrap, .. } = &mut self.habits;
        let settings = &mut work.settings;
        settings.raft.election_seed = self.random.bits();
        let (engine, log) = (self.disk.engine.clone(), self.disk.wal.clone());
        let parts = if Wal::exists(&self.disk.wal).map_err(|error| excused(&error))? {
            recovery::restart(engine, log, settings, bootstrap)
        } else {
            recovery::found(engine, log, settings, bootstrap, crate::NAME)
        };
        let parts = parts.map_err(|error| excused(&error))?;
        self.check_start(&parts)?;
        let weights = std::array::from_fn(|_| *self.random.pick(&[1, 3, 10, 30]));
        Ok(Life::new(parts, self.starts, weights))
    }

    fn check_start(&mut self, parts: &Parts<MemoryEngine, MemoryDirectory>) -> Result<(), Wrong> {
        if self.oracle.is_some() && !parts.restarted {
            return Err("the member was founded a second time".to_owned());
        }
        let (state, last) = (parts.applier.published(), parts.member.last_index());
        let behind = LogIndex(state.applied.0 + 1);
        let entries = parts.wal.reader().entries(behind, last, usize::MAX).map_err(|error| error.to_string())?;
        let term = parts.member.standing().term;
        self.note(format!("up: state {}, log to {last}, term {term}", state.applied));
        let identity = parts.identity;
        let oracle = self.oracle.get_or_insert_with(|| Oracle::new(identity));
        oracle.recovered(&Found { identity, term, last, entries: &entries, state: &state, leases: &parts.leases })
    }

    fn steps(&mut self, life: &mut Life, death: Death) -> Result<(), Stop> {
        for step in 1..=STEPS_MAX {
            if step == death.step {
                if matches!(death.place, Place::Between) {
                    return Ok(());
                }
                self.arm(death.place);
            }
            let actor = life.next_actor(&mut self.random);
            self.step(life, actor)?;
        }
        if matches!(death.place, Place::Nowhere) { self.come_to_rest(life) } else { Ok(()) }
    }

    /// Left alone, the member does everything it was asked to do.
    fn come_to_rest(&mut self, life: &mut Life) -> Result<(), Stop> {
        for _ in 0..QUIET_STEPS_MAX {
            let busy = [Actor::Wal, Actor::Apply, Actor::Keeper, Actor::Compactor];
            let busy: Vec<_> = busy.into_iter().filter(|actor| life.can(*actor)).collect();
            let state = life.process.applier.published();
            let leads = life.process.standing.role == raft::Role::Leader && life.process.standing.term == state.term;
            if busy.is_empty()
                && !life.process.has_orders()
                && leads
                && state.applied == life.process.driver.member().last_index()
            {
                let leases = life.process.applier.leases().map_err(|error| excused(&error))?;
                let oracle = self.oracle()?;
                oracle.check_state(&state, &leases)?;
                return Ok(oracle.check_end(state.applied)?);
            }
            let actor = if busy.is_empty() || self.random.chance(30) { Actor::Raft } else { *self.random.pick(&busy) };
            self.step(life, actor)?;
        }
        Err(Stop::Wrong("the member does not come to rest".to_owned()))
    }

    fn step(&mut self, life: &mut Life, actor: Actor) -> Result<(), Stop> {
        match actor {
            Actor::Client => self.ask(life),
            Actor::Reader => {
                life.process.read(self.oracle()?.last_seen());
                life.reads += 1;
                Ok(())
            }
            Actor::Raft => self.settle(life),
            Actor::Wal => self.write(life),
            Actor::Apply => self.apply(life),
            Actor::Keeper => self.keep(life),
            Actor::Compactor => self.compact(life),
        }
    }

    /// Clients send a few requests.
    fn ask(&mut self, life: &mut Life) -> Result<(), Stop> {
        let leads = life.process.standing.leader.is_some();
        if life.for_apply.len() > BACKLOG_MAX || !(leads || self.random.chance(5)) {
            return Ok(());
        }
        if leads && !mem::replace(&mut life.published_itself, true) {
            let member = life.process.identity.member.0;
            self.propose(life, Request::Publish { member, client_url: format!("http://client:{}", self.starts) })?;
            self.propose(life, Request::Version)?;
        }
        for _ in 0..=self.random.below(4) {
            self.requests += 1;
            let revision = self.oracle()?.revision();
            let longest = self.habits.value_bytes_max;
            let request = Request::any(&mut self.random, self.requests, revision, longest);
            self.propose(life, request)?;
        }
        Ok(())
    }

    fn propose(&mut self, life: &mut Life, request: Request) -> Result<(), Stop> {
        let id = life.process.ids.next();
        match self.oracle()?.issue(id, request) {
            Encoded::Payload(payload) => life.process.propose_encoded(Proposal::new(id, payload)),
            Encoded::Change(change) => life.process.tell(Input::ProposeConfChange { id, change }),
        }
        Ok(())
    }

    /// One round of the raft thread.
    fn settle(&mut self, life: &mut Life) -> Result<(), Stop> {
        if self.random.chance(40) {
            life.process.tick(1);
        }
        life.process.take_orders();
        while let Some(effects) = life.process.next_effects(|_| false) {
            effects.into_iter().try_for_each(|effect| self.perform(life, effect))?;
        }
        Ok(())
    }

    fn perform(&mut self, life: &mut Life, effect: Effect) -> Result<(), Stop> {
        match effect {
            Effect::Persist(batch) => self.persist(life, batch),
            Effect::Apply(entries) => life.for_apply.extend(entries),
            Effect::ReadReady { context, index } => {
                let readers = life.process.rounds.confirm(context, index, index);
                life.reads -= readers.len();
                if let Some(floor) = readers.into_iter().find(|floor| index < *floor) {
                    return Err(Stop::Wrong(format!("a read that has to see {floor} is told to wait for {index}")));
                }
            }
            Effect::Standing { to, .. } => {
                self.note(format!("raft: {to:?}"));
                life.process.standing = to;
            }
            Effect::Dropped { ids, reason } => {
                self.count("proposals dropped");
                self.note(format!("raft: dropped {ids:?}, {reason}"));
                self.oracle()?.dropped(&ids)?;
            }
            // A learner is told things, and never answers.
            Effect::Send(_) | Effect::Fetch(_) | Effect::Committed(_) | Effect::Configured { .. } => {}
            Effect::ReadLost(_) | Effect::Refused { .. } | Effect::LogLost { .. } => {
                return Err(Stop::Wrong(format!("raft wants {effect:?}")));
            }
        }
        Ok(())
    }

    fn persist(&mut self, life: &mut Life, batch: LogBatch) {
        let last = batch.entries.last().map(|entry| entry.index);
        self.note(format!("raft: batch {} {:?} to {last:?}", batch.number, batch.hard_state));
        if let Some(hard_state) = &batch.hard_state {
            life.terms.push_back((batch.number, Term(hard_state.term)));
        }
        life.process.for_wal.push(WalOrder::Batch(batch));
    }

    /// One round of the log's thread.
    fn write(&mut self, life: &mut Life) -> Result<(), Stop> {
        let segments = life.process.wal.segments();
        let liar = self.mistake == Mistake::ReportsBeforeSync;
        let sync = |wal: &mut Wal<MemoryDirectory>| if liar { wal.flush() } else { wal.sync() };
        let marks = life.process.for_wal.iter().filter(|order| matches!(order, WalOrder::Snapshot { .. })).count();
        let done = carry_out(&mut life.process.wal, &mut life.process.for_wal, sync);
        let promised = done.map_err(|error| self.cut_in("cuts in the log", excused(&error)))?;
        let now = life.process.wal.segments();
        self.note(format!("log: synced {promised:?}, {marks} marks, {segments} segments, then {now}"));
        self.tally("segments cut", u64::from(now > segments));
        self.tally("segments released", segments.saturating_sub(now) as u64);
        let Some(number) = promised else { return Ok(()) };
        let durable = life.terms.partition_point(|(batch, _)| *batch <= number);
        for (_, term) in life.terms.drain(..durable) {
            self.oracle()?.term_durable(term);
        }
        life.process.tell(Input::Synced(number));
        Ok(())
    }

    /// One group of the apply thread.
    fn apply(&mut self, life: &mut Life) -> Result<(), Stop> {
        let group = self.habits.work.any_group(&mut self.random).min(life.for_apply.len());
        let group: Vec<Entry> = life.for_apply.drain(..group).collect();
        let applied = life.process.apply(&group).map_err(|stop| self.cut_in("cuts in a commit", stop))?;
        let seen = self.oracle()?.last_seen();
        for (entry, applied) in group.iter().zip(&applied) {
            for effect in &applied.effects {
                self.take_effect(life, applied.index, effect);
            }
            self.oracle()?.applied(entry, applied)?;
        }
        let again = group.iter().filter(|entry| entry.index <= seen.0).count();
        self.tally("entries applied again", again as u64);
        let state = life.process.applier.published();
        self.note(format!("apply: {} entries to {}, revision {}", group.len(), state.applied, state.view.revision()));
        self.check_published(life)?;
        life.process.applied(group.len(), &self.habits.work);
        Ok(())
    }

    fn take_effect(&mut self, life: &mut Life, index: LogIndex, effect: &apply::Effect) {
        match effect {
            apply::Effect::ConfChange(change) => {
                let change = change.as_ref().map_or(raft::Change::None, raft_change);
                self.tally("configuration changes", u64::from(change != raft::Change::None));
                life.process.tell(Input::ApplyConfChange { index, change });
            }
            apply::Effect::CompactionRequested { .. } => life.process.compaction_due = true,
            _ => {}
        }
    }

    /// What a leader that is the only voter serves without asking anybody, and what operators compare.
    fn check_published(&mut self, life: &Life) -> Result<(), Stop> {
        let view = life.process.applier.published().view;
        let known = self.oracle()?.revision();
        let alone = life.process.standing.role == raft::Role::Leader
            && life.process.standing.term == life.process.applier.published().term;
        if alone && view.revision() != known {
            return Err(Stop::Wrong(format!("a reader sees revision {}, and {known} was answered", view.revision())));
        }
        if self.random.chance(20) {
            let revision = self.random.between(view.compact_revision().max(1), view.revision());
            let hash = view.hash_kv(revision).map_err(|error| excused(&error))?;
            self.oracle()?.hashed(hash)?;
        }
        Ok(())
    }

    /// One snapshot of the keeper.
    fn keep(&mut self, life: &mut Life) -> Result<(), Stop> {
        let (Disk { engine, snap, .. }, work) = (&self.disk, &self.habits.work);
        let kept = if self.mistake == Mistake::MarksBeforePersist {
            life.process.keep(&Lazy(engine.clone()), snap, work)
        } else {
            life.process.keep(engine, snap, work)
        };
        let Some(index) = kept.map_err(|stop| self.cut_in("cuts in a snapshot", stop))? else { return Ok(()) };
        if self.mistake == Mistake::None {
            self.oracle()?.state_durable(index);
        }
        self.count("snapshots");
        self.note(format!("keeper: mark {index}"));
        Ok(())
    }

    fn compact(&mut self, life: &mut Life) -> Result<(), Stop> {
        let finished = life.process.compact(&mut self.random, &self.habits.work);
        let finished = finished.map_err(|stop| self.cut_in("cuts in a compaction", stop))?;
        self.note(format!("compaction: finished {finished}"));
        self.tally("compactions finished", u64::from(finished));
        Ok(())
    }

    fn cut_in(&mut self, what: &'static str, stop: Stop) -> Stop {
        self.count(what);
        stop
    }

    fn oracle(&mut self) -> Result<&mut Oracle, Wrong> {
        self.oracle.as_mut().ok_or_else(|| "nothing was founded".to_owned())
    }

    fn count(&mut self, what: &'static str) {
        self.tally(what, 1);
    }

    fn tally(&mut self, what: &'static str, n: u64) {
        *self.tally.entry(what).or_default() += n;
    }

    fn note(&mut self, line: String) {
        self.trace.push(line);
    }
}

impl Life {
    fn new(parts: Parts<MemoryEngine, MemoryDirectory>, starts: u64, weights: [u64; Actor::ALL.len()]) -> Self {
        let mut process = Process::new(parts, starts * REQUESTS_PER_LIFE_MAX);
        process.tell(Input::AdvanceElection(raft::ELECTION_TICKS_DEFAULT - 1));
        Self { process, terms: VecDeque::new(), for_apply: VecDeque::new(), published_itself: false, reads: 0, weights }
    }

    fn can(&self, actor: Actor) -> bool {
        match actor {
            Actor::Client | Actor::Raft => true,
            Actor::Reader => self.reads < READERS_MAX,
            Actor::Wal => !self.process.for_wal.is_empty(),
            Actor::Apply => !self.for_apply.is_empty(),
            Actor::Keeper => self.process.mark.is_some(),
            Actor::Compactor => self.process.compaction_due,
        }
    }

    fn next_actor(&self, random: &mut Random) -> Actor {
        let able: Vec<_> = Actor::ALL.into_iter().zip(self.weights).filter(|(actor, _)| self.can(*actor)).collect();
        let mut ticket = random.below(able.iter().map(|(_, weight)| weight).sum());
        for (actor, weight) in able {
            if ticket < weight {
                return actor;
            }
            ticket -= weight;
        }
        Actor::Raft
    }
}

impl Death {
    fn any(random: &mut Random, founded: bool) -> Self {
        if random.chance(if founded { 30 } else { 60 }) {
            return Self { step: 0, place: Place::of_a_start(random) };
        }
        let place = match random.below(100) {
            0..25 => return Self { step: 1 + random.below(STEPS_MAX), place: Place::Between },
            25..65 => Place::Wal(random.below(60)),
            65..80 => Place::Snap(random.below(12)),
            80..90 => Place::Persist(1 + random.below(3)),
            _ => Place::Commit(1 + random.below(40)),
        };
        Self { step: 1 + random.below(STEPS_MAX / 2), place }
    }
}

impl Place {
    /// A start takes few operations.
    fn of_a_start(random: &mut Random) -> Self {
        match random.below(100) {
            0..80 => Self::Wal(random.below(12)),
            80..90 => Self::Persist(1),
            _ => Self::Commit(1 + random.below(2)),
        }
    }
}

impl Habits {
    fn any(random: &mut Random) -> Self {
        let urls = vec!["http://localhost:2380".to_owned()];
        Self {
            work: process::Habits::any(random),
            bootstrap: Bootstrap::new(BTreeMap::from([(crate::NAME.to_owned(), urls)]), "power"),
            value_bytes_max: *random.pick(&[60, 600, 2500]),
        }
    }
}

/// An engine that never makes anything durable.
struct Lazy(MemoryEngine);

impl Engine for Lazy {
    type Snapshot = MemorySnapshot;

    fn snapshot(&self) -> MemorySnapshot {
        self.0.snapshot()
    }

    fn commit(&self, writes: Writes) -> Result<(), StorageError> {
        self.0.commit(writes)
    }

    fn persist(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn ingest(&self, rows: &mut dyn Iterator<Item = Result<Row, StorageError>>) -> Result<(), StorageError> {
        self.0.ingest(rows)
    }

    fn reclaim(&self) -> Result<(), StorageError> {
        self.0.reclaim()
    }

    fn disk_bytes(&self) -> u64 {
        self.0.disk_bytes()
    }
}
