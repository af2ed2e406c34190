//! One member of the real parts on a disk that loses power, in one thread and from one seed.
//!
//! What the server's threads do is done here in steps, in an order that chance chooses among those the threads allow:
//! raft hands out batches, the log syncs them and reports, what is committed is applied and answered, the keeper makes
//! the state durable and lets the log go behind it. The power fails between two steps or at any operation of a disk.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::mem;
use std::panic::{self, AssertUnwindSafe};

use quorate::apply::{self, Applier, ApplyOptions, CompactionProgress};
use quorate::disk::{Loss, MemoryDirectory};
use quorate::etcdfile::snap;
use quorate::pb::raftpb::Entry;
use quorate::raft::{self, Effect, Input, LogBatch, Member, Proposal, Standing};
use quorate::server::durability::{Mark, WalOrder, carry_out, save_snapshot};
use quorate::server::recovery::{self, Bootstrap, Parts, Settings};
use quorate::server::{Identity, raft_change};
use quorate::storage::{Engine, MemoryEngine, MemorySnapshot, Row, StorageError, Writes};
use quorate::types::{LogIndex, MemberId, RequestId, RequestIds, Term};
use quorate::wal::{self, Wal};

use crate::model::{LEARNERS_MAX, TTL_MIN};
use crate::oracle::{Found, Oracle, Wrong};
use crate::request::{Encoded, Request, VERSION};
use crate::support::random::Random;

/// Steps of a life, at most.
const STEPS_MAX: u64 = 400;
/// Steps within which a member that is left alone must have done everything.
const QUIET_STEPS_MAX: u64 = 5_000;
/// Steps are so few that no life needs more identifiers.
const REQUESTS_PER_LIFE_MAX: u64 = 4 * STEPS_MAX;
/// Entries that wait to be applied while clients still send.
const BACKLOG_MAX: usize = 60;

/// A mistake put in on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    /// The log reports batches durable that it has only written.
    ReportsBeforeSync,
    /// The keeper records a mark for a state that it has not made durable.
    MarksBeforePersist,
}

/// What happened how often.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

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
    wal: MemoryDirectory,
    snap: MemoryDirectory,
    engine: MemoryEngine,
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
    settings: Settings,
    bootstrap: Bootstrap,
    /// Values are up to this long: a record may span several sectors.
    value_bytes_max: u64,
    snapshot_entries: u64,
    catchup_entries: u64,
    files_kept: Option<usize>,
    group_entries_max: u64,
    compaction_rows_max: u64,
}

/// The process.
struct Life {
    identity: Identity,
    member: Member,
    wal: Wal<MemoryDirectory>,
    applier: Applier<MemoryEngine>,
    ids: RequestIds,
    effects: Vec<Effect>,
    /// What waits for raft.
    for_raft: Vec<Order>,
    /// What waits for the log, and the terms of batches on their way.
    for_wal: Vec<WalOrder>,
    terms: VecDeque<(u64, Term)>,
    /// What waits to be applied.
    for_apply: VecDeque<Entry>,
    /// What waits for the keeper.
    mark: Option<Mark>,
    entries_since_mark: u64,
    compaction_due: bool,
    published_itself: bool,
    standing: Standing,
    /// What each read has to see.
    reads: BTreeMap<RequestId, LogIndex>,
    /// How much each part gets done in this life.
    weights: [u64; Actor::ALL.len()],
}

/// What waits for raft.
enum Order {
    Propose(Proposal),
    Input(Input),
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

/// Why a step was not carried out.
enum Stop {
    /// The power is gone.
    Down(String),
    /// A promise is broken.
    Wrong(Wrong),
}

impl From<Wrong> for Stop {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

/// Only a failure made to order excuses an error.
fn excused(error: &(dyn Error + 'static)) -> Stop {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    if text.contains("injected failure") { Stop::Down(text) } else { Stop::Wrong(format!("refused: {text}")) }
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
            wal: MemoryDirectory::default(),
            snap: MemoryDirectory::default(),
            engine: MemoryEngine::new(),
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
            Err(Stop::Wrong(wrong)) => return Err(wrong),
        };
        drop(life);
        self.lose_power(&how);
        Ok(())
    }

    fn arm(&mut self, place: Place) {
        match place {
            Place::Wal(n) => self.wal.fail_after(n),
            Place::Snap(n) => self.snap.fail_after(n),
            Place::Persist(n) => self.engine.fail_persist(n),
            Place::Commit(n) => self.engine.fail_commit(n),
            Place::Between | Place::Nowhere => {}
        }
    }

    /// Takes away what was not durable: the process alone is killed, or the power is cut, more or less kindly.
    fn lose_power(&mut self, how: &str) {
        let seed = self.random.bits();
        let loss = match self.random.below(100) {
            0..20 => None,
            20..45 => Some(Loss::All),
            45..55 => Some(Loss::Nothing),
            _ => Some(Loss::Torn(seed)),
        };
        let unpersisted = self.engine.unpersisted();
        let kept = self.random.below(unpersisted + 1);
        self.engine = match loss {
            None => self.engine.kill(),
            Some(Loss::All) => self.engine.crash(),
            Some(Loss::Nothing) => self.engine.crash_keeping(u64::MAX),
            Some(Loss::Torn(_)) => self.engine.crash_keeping(kept),
        };
        for directory in [&self.wal, &self.snap] {
            loss.map_or_else(|| directory.kill(), |loss| directory.crash(loss));
        }
        self.count(match loss {
            None => "kills of the process alone",
            Some(Loss::All) => "losses of everything not synced",
            Some(Loss::Nothing) => "losses of nothing",
            Some(Loss::Torn(_)) => "losses of torn sectors",
        });
        self.note(format!("down, {how}; lost {loss:?}, {kept} of {unpersisted} commits"));
    }

    /// What must be true of the disk whenever nobody uses it.
    fn check_disk(&mut self) -> Result<(), Wrong> {
        if self.oracle.is_none() {
            return Ok(());
        }
        let survey = wal::survey(&self.wal).map_err(|error| format!("the log cannot be surveyed: {error}"))?;
        let applied = apply::position(&self.engine.snapshot()).map_err(|error| error.to_string())?.index;
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
        if newest.index > 0 && self.habits.files_kept.is_none() {
            let name = snap::name(newest.term, newest.index);
            snap::read(&self.snap, &name).map_err(|error| format!("the log marks what is not there: {error}"))?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<Life, Stop> {
        self.starts += 1;
        let Habits { settings, bootstrap, .. } = &self.habits;
        let (engine, log) = (self.engine.clone(), self.wal.clone());
        let parts = if Wal::exists(&self.wal).map_err(|error| excused(&error))? {
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
            let state = life.applier.published();
            let leads = life.standing.role == raft::Role::Leader && life.standing.term == state.term;
            if busy.is_empty() && life.for_raft.is_empty() && leads && state.applied == life.member.last_index() {
                let leases = life.applier.leases().map_err(|error| excused(&error))?;
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
                let read = life.ids.next();
                life.reads.insert(read, self.oracle()?.last_seen());
                life.for_raft.push(Order::Input(Input::ReadIndex(read)));
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
        let leads = life.standing.leader.is_some();
        if life.for_apply.len() > BACKLOG_MAX || !(leads || self.random.chance(5)) {
            return Ok(());
        }
        if leads && !mem::replace(&mut life.published_itself, true) {
            let member = life.identity.member.0;
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
        let id = life.ids.next();
        life.for_raft.push(match self.oracle()?.issue(id, request) {
            Encoded::Payload(payload) => Order::Propose(Proposal::new(id, payload)),
            Encoded::Change(change) => Order::Input(Input::ProposeConfChange { id, change }),
        });
        Ok(())
    }

    /// One round of the raft thread.
    fn settle(&mut self, life: &mut Life) -> Result<(), Stop> {
        let mut proposals = Vec::new();
        for order in life.for_raft.drain(..) {
            match order {
                Order::Propose(proposal) => proposals.push(proposal),
                Order::Input(input) => {
                    if !proposals.is_empty() {
                        life.member.accept(Input::Propose(mem::take(&mut proposals)), &mut life.effects);
                    }
                    life.member.accept(input, &mut life.effects);
                }
            }
        }
        if !proposals.is_empty() {
            life.member.accept(Input::Propose(proposals), &mut life.effects);
        }
        if self.random.chance(40) {
            life.member.accept(Input::Tick, &mut life.effects);
        }
        life.member.settle(&mut life.effects);
        mem::take(&mut life.effects).into_iter().try_for_each(|effect| self.perform(life, effect))
    }

    fn perform(&mut self, life: &mut Life, effect: Effect) -> Result<(), Stop> {
        match effect {
            Effect::Persist(batch) => self.persist(life, batch),
            Effect::Apply(entries) => life.for_apply.extend(entries),
            Effect::ReadReady { context, index } => {
                let floor = life.reads.remove(&context).unwrap_or_default();
                if index < floor {
                    return Err(Stop::Wrong(format!("a read that has to see {floor} is told to wait for {index}")));
                }
            }
            Effect::Standing { to, .. } => {
                self.note(format!("raft: {to:?}"));
                life.standing = to;
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
        life.for_wal.push(WalOrder::Batch(batch));
    }

    /// One round of the log's thread.
    fn write(&mut self, life: &mut Life) -> Result<(), Stop> {
        let segments = life.wal.segments();
        let liar = self.mistake == Mistake::ReportsBeforeSync;
        let sync = |wal: &mut Wal<MemoryDirectory>| if liar { wal.flush() } else { wal.sync() };
        let marks = life.for_wal.iter().filter(|order| matches!(order, WalOrder::Snapshot { .. })).count();
        let done = carry_out(&mut life.wal, &mut life.for_wal, sync);
        let promised = done.map_err(|error| self.cut_in("cuts in the log", &error))?;
        let now = life.wal.segments();
        self.note(format!("log: synced {promised:?}, {marks} marks, {segments} segments, then {now}"));
        self.tally("segments cut", u64::from(now > segments));
        self.tally("segments released", segments.saturating_sub(now) as u64);
        let Some(number) = promised else { return Ok(()) };
        let durable = life.terms.partition_point(|(batch, _)| *batch <= number);
        for (_, term) in life.terms.drain(..durable) {
            self.oracle()?.term_durable(term);
        }
        life.for_raft.push(Order::Input(Input::Synced(number)));
        Ok(())
    }

    /// One group of the apply thread.
    fn apply(&mut self, life: &mut Life) -> Result<(), Stop> {
        let group = 1 + self.random.below(self.habits.group_entries_max);
        let group = usize::try_from(group).unwrap_or(1).min(life.for_apply.len());
        let group: Vec<Entry> = life.for_apply.drain(..group).collect();
        let applied = life.applier.apply(&group).map_err(|error| self.cut_in("cuts in a commit", &error))?;
        if applied.len() != group.len() {
            return Err(Stop::Wrong(format!("{} of {} entries are applied", applied.len(), group.len())));
        }
        let seen = self.oracle()?.last_seen();
        for (entry, applied) in group.iter().zip(&applied) {
            for effect in &applied.effects {
                self.take_effect(life, applied.index, effect);
            }
            self.oracle()?.applied(entry, applied)?;
        }
        let again = group.iter().filter(|entry| entry.index <= seen.0).count();
        self.tally("entries applied again", again as u64);
        let state = life.applier.published();
        self.note(format!("apply: {} entries to {}, revision {}", group.len(), state.applied, state.view.revision()));
        self.check_published(life)?;
        life.for_raft.push(Order::Input(Input::Applied(state.applied)));
        life.entries_since_mark += group.len() as u64;
        if life.entries_since_mark >= self.habits.snapshot_entries && life.mark.is_none() {
            life.mark = Some(Mark { index: state.applied, term: state.term, cluster: state.cluster });
            life.entries_since_mark = 0;
        }
        Ok(())
    }

    fn take_effect(&mut self, life: &mut Life, index: LogIndex, effect: &apply::Effect) {
        match effect {
            apply::Effect::ConfChange(change) => {
                let change = change.as_ref().map_or(raft::Change::None, raft_change);
                self.tally("configuration changes", u64::from(change != raft::Change::None));
                life.for_raft.push(Order::Input(Input::ApplyConfChange { index, change }));
            }
            apply::Effect::CompactionRequested { .. } => life.compaction_due = true,
            _ => {}
        }
    }

    /// What a leader that is the only voter serves without asking anybody, and what operators compare.
    fn check_published(&mut self, life: &Life) -> Result<(), Stop> {
        let view = life.applier.published().view;
        let known = self.oracle()?.revision();
        let alone = life.standing.role == raft::Role::Leader && life.standing.term == life.applier.published().term;
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
        let Some(mark) = life.mark.take() else { return Ok(()) };
        let files_kept = self.habits.files_kept;
        let saved = if self.mistake == Mistake::MarksBeforePersist {
            save_snapshot(&Lazy(self.engine.clone()), &self.snap, &mark, files_kept)
        } else {
            save_snapshot(&self.engine, &self.snap, &mark, files_kept)
        };
        let record = saved.map_err(|error| self.cut_in("cuts in a snapshot", &error))?;
        if self.mistake == Mistake::None {
            self.oracle()?.state_durable(mark.index);
        }
        self.count("snapshots");
        self.note(format!("keeper: mark {}", mark.index));
        let release = LogIndex(mark.index.0.saturating_sub(self.habits.catchup_entries));
        life.for_wal.push(WalOrder::Snapshot { mark: record, release, segments_kept: 0 });
        life.for_raft.push(Order::Input(Input::Compact(release)));
        Ok(())
    }

    fn compact(&mut self, life: &mut Life) -> Result<(), Stop> {
        let rows = 1 + self.random.below(self.habits.compaction_rows_max);
        let progress = life.applier.compact_some(usize::try_from(rows).unwrap_or(1));
        let progress = progress.map_err(|error| self.cut_in("cuts in a compaction", &error))?;
        self.note(format!("compaction: {progress:?}"));
        life.compaction_due = progress == CompactionProgress::Working;
        self.tally("compactions finished", u64::from(matches!(progress, CompactionProgress::Finished(_))));
        Ok(())
    }

    fn cut_in(&mut self, what: &'static str, error: &(dyn Error + 'static)) -> Stop {
        self.count(what);
        excused(error)
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
        let Parts { identity, applier, wal, member, .. } = parts;
        Self {
            identity,
            standing: member.standing(),
            member,
            wal,
            applier,
            ids: RequestIds::new(identity.member, starts * REQUESTS_PER_LIFE_MAX),
            effects: Vec::new(),
            for_raft: vec![Order::Input(Input::AdvanceElection(raft::ELECTION_TICKS_DEFAULT - 1))],
            for_wal: Vec::new(),
            terms: VecDeque::new(),
            for_apply: VecDeque::new(),
            mark: None,
            entries_since_mark: 0,
            compaction_due: true,
            published_itself: false,
            reads: BTreeMap::new(),
            weights,
        }
    }

    fn can(&self, actor: Actor) -> bool {
        match actor {
            Actor::Client | Actor::Raft => true,
            Actor::Reader => self.reads.len() < 3,
            Actor::Wal => !self.for_wal.is_empty(),
            Actor::Apply => !self.for_apply.is_empty(),
            Actor::Keeper => self.mark.is_some(),
            Actor::Compactor => self.compaction_due,
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
        let election = 10 + usize::try_from(random.below(10)).unwrap_or(0);
        let raft = raft::Options {
            election_jitter: Some(election..election + 1),
            pre_vote: random.chance(50),
            kept_bytes_max: *random.pick(&[0, 4096, raft::KEPT_BYTES_MAX_DEFAULT]),
            ..raft::Options::new(MemberId(0))
        };
        let apply = ApplyOptions {
            member: MemberId(0),
            server_version: VERSION.parse().expect("a version"),
            lease_ttl_min: TTL_MIN,
            learners_max: LEARNERS_MAX,
            quota_bytes: None,
        };
        let wal = wal::Options { segment_bytes: 1024 << random.below(6), unsafe_no_fsync: false };
        let urls = vec!["http://localhost:2380".to_owned()];
        Self {
            settings: Settings { raft, apply, wal },
            bootstrap: Bootstrap {
                initial_cluster: BTreeMap::from([(crate::NAME.to_owned(), urls)]),
                token: "power".to_owned(),
                joining: None,
                alone_at: None,
            },
            value_bytes_max: *random.pick(&[60, 600, 2500]),
            snapshot_entries: 3 + random.below(40),
            catchup_entries: *random.pick(&[0, 0, 5, 20]),
            files_kept: *random.pick(&[None, None, Some(1), Some(2), Some(5)]),
            group_entries_max: *random.pick(&[1, 4, 50]),
            compaction_rows_max: *random.pick(&[1, 5, 100]),
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
