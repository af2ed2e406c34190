//! Everything there is, in one thread and from one seed: machines, the network between them, clients, and trouble.
//!
//! Time is a number, and what is to happen waits in a queue by its time. What the server's threads do is done here in
//! turns of a member's actors; each turn takes some time, and between two turns anything can happen to the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use quorate::apply::{self, Applier, ApplyOptions};
use quorate::etcdfile::{snap, v2json};
use quorate::lease::SCAN_INTERVAL_MS;
use quorate::membership::Founding;
use quorate::pb::etcdserverpb::InternalRaftRequest;
use quorate::pb::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};
use quorate::pb::raftpb::{Entry, Message, MessageType, Snapshot, SnapshotMetadata};
use quorate::pb::walpb;
use quorate::raft::{self, Effect, Fetched, Input, LogBatch};
use quorate::server::durability::{WalOrder, carry_out};
use quorate::server::leadership::Trust;
use quorate::server::lease_office::{self, Renewal};
use quorate::server::raft_change;
use quorate::server::recovery::Bootstrap;
use quorate::server::ticker::Due;
use quorate::storage::{Engine, MemoryEngine, Row};
use quorate::types::{LogIndex, MemberId, Rejection, RequestId};
use quorate::wal::Wal;

use crate::bug::Bug;
use crate::clients::{Client, Reply, Request};
use crate::host::{Actor, ApplyOrder, Awaited, Host, Life, MS, Reader, SECOND, TICK, Time, Waiter, rows_of};
use crate::net::Net;
use crate::oracle::Oracle;
use crate::simulated::disk::Disk;
use crate::simulated::model::VERSION;
use crate::simulated::process;
use crate::simulated::{Stop, Tally, Wrong, excused};
use crate::support::linear::{self, Operation, Verdict};
use crate::support::random::Random;
use crate::watchers::{WatchIn, WatchOut, Watcher};

/// How often a member looks after its leases and itself.
const SCAN: Duration = Duration::from_millis(SCAN_INTERVAL_MS);
/// An election timeout in milliseconds.
const ELECTION_MS: u64 = raft::ELECTION_TICKS_DEFAULT as u64 * TICK.as_millis() as u64;
/// Trouble is over by then.
pub(crate) const CHAOS: Time = 20 * SECOND;
/// Peace must have come this long after the end of trouble.
const PEACE: Time = 90 * SECOND;
/// How often it is looked whether peace has come.
const LOOK: Time = SECOND;
/// What happens in one world, at most: more means that it runs in circles.
const EVENTS_MAX: u64 = 2_000_000;
/// Entries in the queue of a member from which it counts as loaded, for a bug.
const LOADED: usize = 8;

/// What is to happen. Those with the number of a process concern that process alone.
pub(crate) enum Event {
    Turn(usize, u64, Actor),
    Tick(usize, u64),
    Scan(usize, u64),
    Leave(usize, u64),
    Renew(usize, u64, Waiter, Renewal),
    Start(usize),
    Message(usize, Box<Message>),
    Snapshot {
        from: usize,
        to: usize,
        message: Box<Message>,
        rows: Arc<Vec<Row>>,
    },
    ToRaft(usize, u64, Box<Input>),
    /// A client's request arrives, an answer arrives, a client gives up, or goes on.
    Request(usize, Request),
    Reply(usize, u64, Box<Reply>),
    GiveUp(usize, u64),
    Next(usize),
    WatchIn(usize, WatchIn),
    WatchOut(usize, WatchOut),
    WatchNext(usize),
    Trouble,
    HandOver,
    Look,
}

/// How the members of this world are set up.
pub(crate) struct Habits {
    work: process::Habits,
    /// The mean pause between two pieces of trouble.
    pub(crate) calm: Time,
    pub(crate) think: Time,
    pub(crate) value_bytes_max: u64,
    pub(crate) drift_max: i64,
}

/// The world.
pub(crate) struct World {
    pub(crate) now: Time,
    next: u64,
    queue: BTreeMap<(Time, u64), Event>,
    pub(crate) random: Random,
    pub(crate) bug: Option<Bug>,
    pub(crate) habits: Habits,
    pub(crate) hosts: Vec<Host>,
    pub(crate) net: Net,
    pub(crate) oracle: Oracle,
    pub(crate) clients: Vec<Client>,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) history: Vec<Operation>,
    pub(crate) values: u64,
    /// The newest revision in any answer.
    pub(crate) newest_revision: i64,
    /// Until when each lease exists, unless a client gives it up.
    pub(crate) promises: BTreeMap<i64, Time>,
    pub(crate) healing: bool,
    /// A promise found broken where nobody could say so.
    broken: Option<Wrong>,
    lives: u64,
    traced: bool,
    pub(crate) trace: Vec<String>,
    pub(crate) tally: Tally,
}

/// A world that has ended.
pub(crate) struct Ended {
    pub(crate) trace: Vec<String>,
    pub(crate) tally: Tally,
    /// How long it lasted.
    pub(crate) lasted: Time,
    pub(crate) outcome: Result<(), Wrong>,
}

/// How a world begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    pub(crate) seed: u64,
    pub(crate) members: usize,
    pub(crate) bug: Option<Bug>,
    pub(crate) traced: bool,
}

/// Lives one seed to its end. A panic of the code under test is a broken promise like any other.
pub(crate) fn run(begin: Begin) -> Ended {
    let mut world = World::new(begin);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    let outcome = outcome.unwrap_or_else(|_| Err("it panicked, see above".to_owned()));
    let World { mut trace, tally, now, .. } = world;
    trace.extend(outcome.as_ref().err().map(|wrong| format!("WRONG {wrong}")));
    Ended { trace, tally, lasted: now, outcome }
}

impl World {
    fn new(Begin { seed, members, bug, traced }: Begin) -> Self {
        let mut random = Random::new(seed);
        let habits = Habits::any(&mut random);
        let names: Vec<String> = (0..members).map(|number| format!("m{number}")).collect();
        let initial_cluster = names.iter().map(|name| (name.clone(), vec![url(name)])).collect();
        let bootstrap = Bootstrap::new(initial_cluster, "sim");
        let founding = Founding::new(&bootstrap.initial_cluster, &bootstrap.token).expect("founding members");
        let founders: BTreeSet<u64> = founding.configuration().voters.iter().copied().collect();
        let mut world = Self {
            now: SECOND,
            next: 0,
            queue: BTreeMap::new(),
            net: Net::any(&mut random),
            random,
            bug,
            habits,
            hosts: Vec::new(),
            oracle: Oracle::new(founders),
            clients: Vec::new(),
            watchers: Vec::new(),
            history: Vec::new(),
            values: 0,
            newest_revision: 0,
            promises: BTreeMap::new(),
            healing: false,
            broken: None,
            lives: 0,
            traced,
            trace: Vec::new(),
            tally: Tally::new(),
        };
        for name in names {
            let member = founding.named(&name).expect("it is among them").id;
            world.add_host(name, bootstrap.clone(), member);
        }
        world.add_clients();
        world.add_watchers();
        world.at(world.habits.calm, Event::Trouble);
        world
    }

    /// A new machine, which starts soon.
    pub(crate) fn add_host(&mut self, name: String, bootstrap: Bootstrap, member: MemberId) {
        let most = self.habits.drift_max;
        let number = self.hosts.len();
        self.hosts.push(Host {
            name,
            bootstrap,
            member,
            settings: self.habits.work.settings.clone(),
            disk: Disk::default(),
            staged: None,
            drift: self.random.between(-most, most),
            paused_until: 0,
            stalled_until: 0,
            sync_time: 200 + self.random.below(4 * MS),
            starts: 0,
            life: None,
            gone: false,
            compacting_at_crash: false,
        });
        let delay = self.random.below(50 * MS);
        self.at(delay, Event::Start(number));
    }

    fn run(&mut self) -> Result<(), Wrong> {
        for _ in 0..EVENTS_MAX {
            let Some(((time, _), event)) = self.queue.pop_first() else {
                return Err("nothing is left to happen".to_owned());
            };
            self.now = self.now.max(time);
            if matches!(event, Event::Look) {
                if self.is_at_peace()? {
                    return self.check_end();
                }
                continue;
            }
            self.happen(event)?;
            if let Some(wrong) = self.broken.take() {
                return Err(wrong);
            }
        }
        Err("there is no end to what happens".to_owned())
    }

    /// Lets something happen after `delay`.
    pub(crate) fn at(&mut self, delay: Time, event: Event) {
        self.at_time(self.now + delay, event);
    }

    pub(crate) fn at_time(&mut self, time: Time, event: Event) {
        self.next += 1;
        self.queue.insert((time, self.next), event);
    }

    fn happen(&mut self, event: Event) -> Result<(), Wrong> {
        let host = match &event {
            Event::Turn(host, ..)
            | Event::Tick(host, _)
            | Event::Scan(host, _)
            | Event::Leave(host, _)
            | Event::Renew(host, ..)
            | Event::Message(host, _)
            | Event::Snapshot { to: host, .. }
            | Event::ToRaft(host, ..)
            | Event::Request(host, _)
            | Event::WatchIn(host, _) => Some(*host),
            _ => None,
        };
        if let Some(host) = host
            && self.hosts[host].is_paused(self.now)
        {
            let until = self.hosts[host].paused_until;
            self.at_time(until, event);
            return Ok(());
        }
        match event {
            Event::Turn(host, life, actor) => self.with(host, Some(life), |world, life| world.turn(life, actor)),
            Event::Tick(host, life) => self.with(host, Some(life), |world, life| {
                world.tick(life);
                Ok(())
            }),
            Event::Scan(host, life) => self.with(host, Some(life), World::scan),
            Event::Leave(host, life) => self.with(host, Some(life), |_, _| Err(Stop::Ended("it was removed"))),
            Event::Renew(host, life, waiter, renewal) => {
                self.with(host, Some(life), |world, life| world.keep_alive(life, waiter, renewal))
            }
            Event::Start(host) => self.start(host),
            Event::Message(host, message) => self.receive(host, *message),
            Event::Snapshot { from, to, message, rows } => self.receive_snapshot(from, to, *message, &rows),
            Event::ToRaft(host, life, input) => self.with(host, Some(life), |_, life| {
                life.process.tell(*input);
                Ok(())
            }),
            Event::Request(host, request) => self.with(host, None, |world, life| world.requested(life, request)),
            Event::Reply(client, number, reply) => self.replied(client, number, *reply),
            Event::GiveUp(client, number) => {
                self.gives_up(client, number);
                Ok(())
            }
            Event::Next(client) => {
                self.asks(client);
                Ok(())
            }
            Event::WatchIn(host, order) => self.with(host, None, |world, life| {
                world.watch_in(life, order);
                Ok(())
            }),
            Event::WatchOut(watcher, out) => self.watch_out(watcher, out),
            Event::WatchNext(watcher) => {
                self.watcher_acts(watcher);
                Ok(())
            }
            Event::Trouble => self.trouble(),
            Event::HandOver => self.hand_over_office(),
            Event::Look => Ok(()),
        }
    }

    /// Lets a process do something, and takes the consequences.
    pub(crate) fn with(
        &mut self,
        host: usize,
        number: Option<u64>,
        what: impl FnOnce(&mut Self, &mut Life) -> Result<(), Stop>,
    ) -> Result<(), Wrong> {
        let running = self.hosts[host].life.as_ref().is_some_and(|life| number.is_none_or(|n| n == life.number));
        let Some(mut life) = running.then(|| self.hosts[host].life.take()).flatten() else { return Ok(()) };
        match what(self, &mut life) {
            Ok(()) => {
                self.wake_who_can(&mut life);
                self.hosts[host].life = Some(life);
                Ok(())
            }
            Err(Stop::Wrong(wrong)) => Err(format!("{}: {wrong}", self.hosts[host].name)),
            Err(Stop::Down(how)) => {
                self.count("failures of a disk");
                self.end_life(&life);
                self.lose_power(host, &how);
                Ok(())
            }
            Err(Stop::Ended(why)) => {
                self.note(|world| format!("{} ends: {why}", world.hosts[host].name));
                self.hosts[host].gone = true;
                self.end_life(&life);
                Ok(())
            }
        }
    }

    /// Whoever has something to do gets a turn.
    fn wake_who_can(&mut self, life: &mut Life) {
        for actor in Actor::ALL {
            if life.can(actor) && life.awake.insert(actor) {
                let delay = self.time_of(life.host, actor);
                self.at(delay, Event::Turn(life.host, life.number, actor));
            }
        }
    }

    fn time_of(&mut self, host: usize, actor: Actor) -> Time {
        let Host { sync_time, stalled_until, .. } = self.hosts[host];
        let stall = stalled_until.saturating_sub(self.now);
        match actor {
            Actor::Raft => 10 + self.random.below(100),
            Actor::Wal => sync_time / 2 + self.random.below(sync_time) + stall,
            Actor::Apply => 20 + self.random.below(2 * MS),
            Actor::Keeper => MS + self.random.below(30 * MS) + stall,
            Actor::Compactor => MS + self.random.below(20 * MS),
            Actor::Watch => 50 + self.random.below(3 * MS),
        }
    }

    fn tick(&mut self, life: &mut Life) {
        let now = self.hosts[life.host].monotonic(self.now);
        let Due { ticks, slept } = life.ticker.due(now);
        if slept {
            life.doubts.raise();
        }
        life.looked_at = now;
        life.process.tick(ticks);
        let wait = self.hosts[life.host].really(life.ticker.wait(now)).max(1);
        self.at(wait, Event::Tick(life.host, life.number));
    }

    // ---------------------------------------------------------------------------------------------- life and death

    fn start(&mut self, host: usize) -> Result<(), Wrong> {
        if self.hosts[host].life.is_some() || self.hosts[host].gone {
            return Ok(());
        }
        self.hosts[host].starts += 1;
        self.hosts[host].settings.raft.election_seed = self.random.bits();
        self.lives += 1;
        let parts = match self.hosts[host].recover() {
            Ok(parts) => parts,
            Err(Stop::Wrong(wrong)) => return Err(format!("{} cannot start: {wrong}", self.hosts[host].name)),
            Err(Stop::Down(how)) => {
                self.count("failures in a start");
                self.lose_power(host, &how);
                return Ok(());
            }
            Err(Stop::Ended(_)) => return Ok(()),
        };
        let now = self.hosts[host].monotonic(self.now);
        let mut life = Box::new(Life::new(parts, host, self.lives, now));
        let state = life.process.applier.published();
        let (id, leases) =
            (life.process.identity.member.0, life.process.applier.leases().map_err(|error| error.to_string())?);
        self.note(|world| {
            let (name, last) = (&world.hosts[host].name, life.log.last());
            format!("{name} starts: state {}, log to {last}, {:?}", state.applied, life.process.standing)
        });
        if state.applied.0 > 0 {
            self.oracle.published(id, &state)?;
            self.oracle.check_state(id, &state, &leases)?;
        }
        if self.random.chance(50) {
            let ahead = raft::ELECTION_TICKS_DEFAULT - 1;
            life.process.tell(Input::AdvanceElection(ahead));
        }
        // Committed entries may wait.
        life.process.tick(1);
        let number = life.number;
        self.wake_who_can(&mut life);
        self.hosts[host].life = Some(life);
        let scan = self.random.below(self.hosts[host].really(SCAN));
        self.at(1, Event::Tick(host, number));
        self.at(scan, Event::Scan(host, number));
        Ok(())
    }

    /// A process ends: those connected to it hear of it soon, if their connection is whole.
    pub(crate) fn end_life(&mut self, life: &Life) {
        let host = life.host;
        for client in 0..self.clients.len() {
            if let Some(number) = self.clients[client].waits_for(host) {
                let delay = MS + self.random.below(20 * MS);
                self.at(delay, Event::GiveUp(client, number));
            }
        }
        for (watcher, connection) in life.streams.values() {
            let delay = MS + self.random.below(20 * MS);
            self.at(delay, Event::WatchOut(*watcher, WatchOut::Broken(*connection)));
        }
        self.hosts[host].compacting_at_crash = life.process.compaction_due;
    }

    /// Takes away what was not durable: the process alone is killed, or the power is cut, more or less kindly.
    pub(crate) fn lose_power(&mut self, host: usize, how: &str) {
        let before = self.hosts[host].disk.engine.clone();
        let lost = self.hosts[host].disk.lose_power(&mut self.random);
        let power = lost.loss.is_some();
        if let Some((_, engine)) = self.hosts[host].staged.as_mut().filter(|_| power) {
            *engine = engine.crash();
        }
        self.damage(host, &before, power);
        self.count(lost.kind());
        self.note(|world| format!("{} is down, {how}; {lost}", world.hosts[host].name));
        let delay = 20 * MS + self.random.below(3 * SECOND);
        self.at(delay, Event::Start(host));
    }

    // ------------------------------------------------------------------------------------------------------ actors

    fn turn(&mut self, life: &mut Life, actor: Actor) -> Result<(), Stop> {
        life.awake.remove(&actor);
        match actor {
            Actor::Raft => self.settle(life),
            Actor::Wal => self.write(life),
            Actor::Apply => self.apply(life),
            Actor::Keeper => self.keep(life),
            Actor::Compactor => self.compact(life),
            Actor::Watch => self.catch_up(life),
        }
    }

    /// One round of the raft thread.
    fn settle(&mut self, life: &mut Life) -> Result<(), Stop> {
        life.process.take_orders();
        while let Some(effects) = life.process.next_effects(|reader| has_hung_up(&self.clients, life.host, reader)) {
            effects.into_iter().try_for_each(|effect| self.perform(life, effect))?;
        }
        self.tally("rounds of reads given up", mem::take(&mut life.process.rounds_abandoned));
        Ok(())
    }

    fn perform(&mut self, life: &mut Life, effect: Effect) -> Result<(), Stop> {
        match effect {
            Effect::Persist(batch) => self.persist(life, batch),
            Effect::Apply(entries) => life.for_apply.extend(entries.into_iter().map(ApplyOrder::Entry)),
            Effect::Send(messages) => self.send(life, messages)?,
            Effect::ReadReady { context, index } => {
                let readers = life.process.confirm(context, index);
                self.serve(life, readers)?;
            }
            Effect::ReadLost(context) => {
                let readers = life.process.rounds.fail_round(context);
                self.refuse_readers(readers);
            }
            Effect::Standing { to, .. } => self.stand(life, to)?,
            Effect::Dropped { ids, reason } => self.dropped(life, &ids, reason),
            Effect::Configured { index, conf_state } => {
                self.oracle.configured(life.process.identity.member.0, index, &conf_state)?;
                life.sole_voter = conf_state.voters == [life.process.identity.member.0];
                self.note(|world| {
                    let name = &world.hosts[life.host].name;
                    format!("{name} is configured at {index}: {:x?} {:x?}", conf_state.voters, conf_state.learners)
                });
            }
            Effect::Fetch(request) => {
                let entries = life.process.wal.reader().entries(request.first, request.last, request.bytes_max).ok();
                self.count("entries fetched from the log");
                let answer = Input::Fetched(Fetched { number: request.number, entries });
                let delay = MS + self.random.below(20 * MS);
                self.at(delay, Event::ToRaft(life.host, life.number, Box::new(answer)));
            }
            Effect::Committed(_) => {}
            Effect::Refused { from, reason } => {
                self.count("messages refused");
                self.note(|world| format!("{} refuses a message of {from}: {reason}", world.hosts[life.host].name));
            }
            Effect::LogLost { acknowledged, last } => {
                return Err(Stop::Wrong(format!("{acknowledged} was acknowledged, and the log ends at {last}")));
            }
        }
        Ok(())
    }

    fn stand(&mut self, life: &mut Life, to: raft::Standing) -> Result<(), Stop> {
        self.note(|world| format!("{} stands: {to:?}", world.hosts[life.host].name));
        life.process.standing = to;
        if to.role == raft::Role::Leader {
            self.count("elections won");
            self.oracle.leads(life.process.identity.member.0, to.term.0, &life.log)?;
        } else if self.bug != Some(Bug::ForgetsToExtendLeases) {
            life.lessor.demote();
        }
        let now = self.hosts[life.host].monotonic(self.now);
        if life.leadership.note(to.leader, now) {
            let readers = life.process.rounds.fail_rounds();
            self.refuse_readers(readers);
        }
        Ok(())
    }

    fn dropped(&mut self, life: &mut Life, ids: &[RequestId], reason: raft::DropReason) {
        self.tally("proposals dropped", ids.len() as u64);
        for id in ids {
            match life.awaited.remove(id) {
                Some(Awaited::Client(waiter) | Awaited::Renewal(waiter, _)) => self.refuse(waiter),
                Some(Awaited::Checkpoint(checkpoint)) => {
                    let now = self.hosts[life.host].clock(self.now);
                    checkpoint.failed(Some(Rejection::ProposalDropped), &mut life.lessor, now);
                }
                None => {}
            }
        }
        self.note(|world| format!("{} drops {ids:?}: {reason}", world.hosts[life.host].name));
    }

    fn persist(&mut self, life: &mut Life, mut batch: LogBatch) {
        life.log.take(&batch);
        self.bug_in_batch(life, &mut batch);
        life.process.for_wal.push(WalOrder::Batch(batch));
    }

    /// One round of the log's thread. The order of the steps is that of the durability of a received snapshot.
    fn write(&mut self, life: &mut Life) -> Result<(), Stop> {
        let host = life.host;
        // 1. A received state is durable beside the live one by now; its mark goes into the log before its hard state.
        let mut orders = Vec::new();
        let mut installs = Vec::new();
        for order in mem::take(&mut life.process.for_wal) {
            if let WalOrder::Batch(LogBatch { snapshot: Some(Snapshot { metadata: Some(metadata), .. }), .. }) = &order
            {
                installs.push(LogIndex(metadata.index));
                let (index, term, conf_state) = (metadata.index, metadata.term, metadata.conf_state.clone());
                let data = v2json::write(&v2json::Tree::default()).into();
                let file = Snapshot { data, metadata: Some(metadata.clone()) };
                snap::write(&self.hosts[host].disk.snap, &file).map_err(|error| excused(&error))?;
                let mark = walpb::Snapshot { index, term, conf_state };
                orders.push(WalOrder::Snapshot { mark, release: LogIndex(0), segments_kept: usize::MAX });
            }
            orders.push(order);
        }
        // 2. Everything becomes durable.
        let batches: Vec<LogBatch> = orders.iter().filter_map(batch_of).cloned().collect();
        let lies = self.bug == Some(Bug::AcknowledgesBeforeSync);
        let sync = |wal: &mut Wal<_>| if lies { wal.flush() } else { wal.sync() };
        let promised = carry_out(&mut life.process.wal, &mut orders, sync).map_err(|error| excused(&error))?;
        for batch in batches {
            self.oracle.writes(life.process.identity.member.0, &life.durable, &batch.entries)?;
            life.durable.take(&batch);
        }
        // 3. The new state becomes the live one.
        for index in installs {
            let staged = self.hosts[host].staged.take().filter(|(staged, _)| *staged == index);
            let (_, engine) = staged.ok_or_else(|| format!("the snapshot at {index} was never staged"))?;
            self.hosts[host].disk.engine = engine;
            life.for_apply.push_back(ApplyOrder::Install(index));
        }
        if let Some(number) = promised {
            life.process.tell(Input::Synced(number));
        }
        Ok(())
    }

    /// One group of the apply thread.
    fn apply(&mut self, life: &mut Life) -> Result<(), Stop> {
        let most = self.habits.work.any_group(&mut self.random);
        let loaded = life.for_apply.len() >= LOADED;
        let mut group = Vec::new();
        while let Some(order) = life.for_apply.pop_front() {
            match order {
                ApplyOrder::Entry(entry) => group.push(entry),
                ApplyOrder::Install(index) if group.is_empty() => return self.install(life, index),
                ApplyOrder::Install(index) => {
                    life.for_apply.push_front(ApplyOrder::Install(index));
                    break;
                }
            }
            if group.len() >= most {
                break;
            }
        }
        if group.is_empty() { Ok(()) } else { self.apply_group(life, &group, loaded) }
    }

    /// A received state takes the place of the old one.
    fn install(&mut self, life: &mut Life, index: LogIndex) -> Result<(), Stop> {
        let engine = self.hosts[life.host].disk.engine.clone();
        let options = ApplyOptions { member: life.process.identity.member, ..self.habits.work.settings.apply };
        let applier = Applier::open(engine, options).map_err(|error| excused(&error))?;
        let leases = applier.leases().map_err(|error| excused(&error))?;
        let state = applier.published();
        if state.applied != index {
            return Err(Stop::Wrong(format!("the snapshot at {index} holds a state at {}", state.applied)));
        }
        self.count("snapshots installed");
        self.note(|world| format!("{} installs the snapshot at {index}", world.hosts[life.host].name));
        self.oracle.published(life.process.identity.member.0, &state)?;
        self.oracle.check_state(life.process.identity.member.0, &state, &leases)?;
        life.install(applier, leases);
        life.process.tell(Input::Applied(index));
        self.serve_applied(life)
    }

    /// The order of the steps is that of the server's apply thread.
    fn apply_group(&mut self, life: &mut Life, group: &[Entry], loaded: bool) -> Result<(), Stop> {
        let id = life.process.identity.member.0;
        // 1. Rows.
        let changed = self.bug_in_group(life, group, loaded);
        let applied = life.process.apply(changed.as_deref().unwrap_or(group))?;
        let state = life.process.applier.published();
        self.note(|world| {
            let (name, revision) = (&world.hosts[life.host].name, state.view.revision());
            format!("{name} applies {} entries to {}, revision {revision}", group.len(), state.applied)
        });
        for (entry, applied) in group.iter().zip(&applied) {
            self.oracle.applied(id, entry, applied)?;
        }
        self.oracle.published(id, &state)?;
        // 2. Raft and countdowns learn what the entries mean.
        let mut removed = false;
        for entry in &applied {
            let now = self.hosts[life.host].clock(self.now);
            lease_office::note(&mut life.lessor, entry, life.process.standing, now, ELECTION_MS);
            for effect in &entry.effects {
                removed |= self.take_effect(life, entry.index, effect);
            }
        }
        // 3. The hub has the events before anybody can see the revision.
        let mut deliveries = Vec::new();
        for changes in applied.iter().filter_map(|entry| entry.changes.clone()) {
            life.hub.changes(changes, &mut deliveries);
        }
        life.hub.compacted(state.view.compact_revision());
        let compacts = applied.iter().flat_map(|entry| &entry.effects).any(is_compaction);
        self.deliver(life, deliveries, compacts);
        // 4. Readers see the state, and 5. writers hear their answers.
        self.serve_applied(life)?;
        for entry in applied {
            match entry.request.and_then(|request| life.awaited.remove(&request)) {
                Some(Awaited::Client(waiter)) => self.reply(waiter, Reply::Applied(entry.outcome)),
                Some(Awaited::Renewal(waiter, ttl)) => self.reply(waiter, Reply::Renewed(ttl)),
                Some(Awaited::Checkpoint(_)) | None => {}
            }
        }
        life.process.applied(group.len(), &self.habits.work);
        self.check_applied(life)?;
        if removed {
            // It stays for a while, so that the others hear of the removal and a leader can hand over.
            self.count("members removed");
            self.at(SECOND, Event::Leave(life.host, life.number));
        }
        Ok(())
    }

    /// Whether the member itself was removed.
    fn take_effect(&mut self, life: &mut Life, index: LogIndex, effect: &apply::Effect) -> bool {
        match effect {
            apply::Effect::LeaseRevoked(id) => {
                let too_early = self.promises.remove(&id.0).is_some_and(|until| self.now < until);
                if too_early {
                    self.broken.get_or_insert(format!("lease {} is revoked at {index}, too early", id.0));
                }
            }
            apply::Effect::ConfChange(change) => {
                let change = change.as_ref().map_or(raft::Change::None, raft_change);
                let change = self.bug_in_change(change);
                self.tally("configuration changes", u64::from(change != raft::Change::None));
                life.process.tell(Input::ApplyConfChange { index, change });
            }
            apply::Effect::CompactionRequested { .. } => life.process.compaction_due = true,
            apply::Effect::RemovedSelf(_) => return true,
            _ => {}
        }
        false
    }

    /// What must be true of a member behind every group of entries.
    fn check_applied(&mut self, life: &mut Life) -> Result<(), Stop> {
        let (id, state) = (life.process.identity.member.0, life.process.applier.published());
        if self.oracle.knows_state_at(state.applied) && self.random.chance(25) {
            let leases = life.process.applier.leases().map_err(|error| excused(&error))?;
            self.oracle.check_state(id, &state, &leases)?;
            let stored: BTreeSet<_> = leases.iter().map(|lease| lease.id).collect();
            let counted: BTreeSet<_> = life.lessor.leases().into_iter().collect();
            if stored != counted {
                return Err(Stop::Wrong(format!("leases {stored:?} are stored, {counted:?} counted")));
            }
        }
        if self.random.chance(10) {
            let revision = self.random.between(state.view.compact_revision().max(1), state.view.revision());
            let hash = state.view.hash_kv(revision).map_err(|error| excused(&error))?;
            self.oracle.hashed(id, hash)?;
        }
        Ok(())
    }

    /// One snapshot of the keeper.
    fn keep(&mut self, life: &mut Life) -> Result<(), Stop> {
        // A state that was received meanwhile is durable, and has its own mark.
        life.process.mark.take_if(|mark| life.log.first() > mark.index.0);
        let (engine, snap) = (life.process.applier.engine().clone(), &self.hosts[life.host].disk.snap);
        if let Some(index) = life.process.keep(&engine, snap, &self.habits.work)? {
            self.count("snapshots");
            self.note(|world| format!("{} marks {index}", world.hosts[life.host].name));
        }
        Ok(())
    }

    fn compact(&mut self, life: &mut Life) -> Result<(), Stop> {
        let finished = life.process.compact(&mut self.random, &self.habits.work)?;
        self.tally("compactions finished", u64::from(finished));
        Ok(())
    }

    /// What a member does without being asked.
    fn scan(&mut self, life: &mut Life) -> Result<(), Stop> {
        let host = &self.hosts[life.host];
        let (scan, now, trust) = (host.really(SCAN), host.clock(self.now), life.trust(host.monotonic(self.now)));
        self.at(scan, Event::Scan(life.host, life.number));
        match trust {
            Trust::Leads => self.look_after_leases(life),
            Trust::Follows => {}
            Trust::Ask(doubts) => self.read(life, Reader::Scan(doubts))?,
        }
        if life.process.standing.leader.is_some() {
            self.publish(life);
        }
        let mut deliveries = Vec::new();
        life.hub.tick(now, &mut deliveries);
        self.deliver(life, deliveries, false);
        Ok(())
    }

    /// On a member that leads.
    pub(crate) fn look_after_leases(&mut self, life: &mut Life) {
        let now = self.hosts[life.host].clock(self.now);
        for (lease, request) in lease_office::revocations(&mut life.lessor, now) {
            self.count("leases expired");
            self.note(|world| format!("{} finds lease {} expired", world.hosts[life.host].name, lease.0));
            life.process.propose_as_leader(request);
        }
        if let Some(checkpoint) = lease_office::checkpoint(&mut life.lessor, now) {
            let id = life.process.propose_as_leader(checkpoint.request.clone());
            life.awaited.insert(id, Awaited::Checkpoint(Box::new(checkpoint)));
        }
    }

    /// Tells the cluster who this member is, and as its leader which version it speaks.
    fn publish(&mut self, life: &mut Life) {
        let (cluster, id) = (life.cluster(), life.process.identity.member);
        let client_urls = vec![format!("http://client:{}", self.hosts[life.host].starts)];
        let published = cluster.member(id).is_none_or(|member| member.attributes.client_urls == client_urls);
        if !published {
            let member_attributes = Some(Attributes { name: self.hosts[life.host].name.clone(), client_urls });
            let set = ClusterMemberAttrSetRequest { member_id: id.0, member_attributes };
            life.process.propose(InternalRaftRequest { cluster_member_attr_set: Some(set), ..Default::default() });
        }
        if life.process.leads() && cluster.version().is_none() {
            let set = ClusterVersionSetRequest { ver: VERSION.to_owned() };
            life.process.propose(InternalRaftRequest { cluster_version_set: Some(set), ..Default::default() });
        }
    }

    // ----------------------------------------------------------------------------------------------------- network

    fn send(&mut self, life: &mut Life, messages: Vec<Message>) -> Result<(), Stop> {
        for message in messages {
            self.oracle.sent(&message)?;
            let Some(to) = self.hosts.iter().position(|host| host.member.0 == message.to && !host.gone) else {
                continue;
            };
            if message.r#type == i32::from(MessageType::MsgSnap) {
                self.send_snapshot(life, to, message)?;
            } else {
                self.dispatch(life, to, message);
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, life: &mut Life, to: usize, message: Message) {
        let from = life.host;
        if self.net.is_cut(from, to) || self.random.below(1000) < self.net.loss {
            self.count("messages lost");
            if self.random.chance(30) {
                let told = Input::Unreachable(MemberId(message.to));
                self.at(MS, Event::ToRaft(from, life.number, Box::new(told)));
            }
            // Rightly or not: who cannot be reached may be taken for dead.
            if self.random.chance(10) {
                let told = Input::Gone(MemberId(message.to));
                self.at(MS, Event::ToRaft(from, life.number, Box::new(told)));
            }
            return;
        }
        // A connection delivers a request once; what raft itself repeats may arrive twice.
        let repeats = message.r#type != i32::from(MessageType::MsgProp);
        if repeats && self.random.below(1000) < self.net.duplication {
            self.count("messages doubled");
            let delay = self.net.delay(from, to, &mut self.random);
            self.at(delay, Event::Message(to, Box::new(message.clone())));
        }
        let delay = self.net.delay(from, to, &mut self.random);
        self.at(delay, Event::Message(to, Box::new(message)));
    }

    /// A fresh snapshot, its rows beside it.
    fn send_snapshot(&mut self, life: &mut Life, to: usize, mut message: Message) -> Result<(), Stop> {
        let (from, state) = (life.host, life.process.applier.published());
        let lowest = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
        if lowest.is_some_and(|lowest| lowest.index > state.applied.0) {
            let applied = state.applied;
            return Err(Stop::Wrong(format!("raft wants a snapshot above {applied}: {lowest:?}")));
        }
        let conf_state = Some(state.cluster.configuration().clone());
        let metadata = SnapshotMetadata { conf_state, index: state.applied.0, term: state.term.0 };
        message.snapshot = Some(Snapshot { data: bytes::Bytes::new(), metadata: Some(metadata) });
        let rows = Arc::new(rows_of(life.process.applier.engine())?);
        self.count("snapshots sent");
        let delay = 10 * MS + 5 * self.net.delay(from, to, &mut self.random);
        if self.net.is_cut(from, to) || self.random.chance(10) {
            let told = Input::SnapshotSent { to: MemberId(message.to), delivered: false };
            self.at(delay, Event::ToRaft(from, life.number, Box::new(told)));
            return Ok(());
        }
        self.at(delay, Event::Snapshot { from, to, message: Box::new(message), rows });
        Ok(())
    }

    fn receive(&mut self, host: usize, message: Message) -> Result<(), Wrong> {
        self.with(host, None, |_, life| {
            // The transport hangs up on members that are known to be removed.
            if !life.cluster().is_removed(MemberId(message.from)) {
                life.process.tell(Input::FromPeer(Box::new(message)));
            }
            Ok(())
        })
    }

    /// The rows are staged durably beside the live state before raft hears of the snapshot.
    fn receive_snapshot(&mut self, from: usize, to: usize, message: Message, rows: &[Row]) -> Result<(), Wrong> {
        let delivered = self.hosts[to].life.is_some();
        let index = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()).map_or(0, |m| m.index);
        let peer = MemberId(message.to);
        let staging = self.bug == Some(Bug::AcknowledgesSnapshotEarly);
        self.with(to, None, |world, life| {
            let waits = life
                .process
                .for_wal
                .iter()
                .any(|order| matches!(order, WalOrder::Batch(LogBatch { snapshot: Some(_), .. })));
            if waits || life.cluster().is_removed(MemberId(message.from)) {
                return Ok(());
            }
            let engine = MemoryEngine::new();
            if staging {
                let mut writes = quorate::storage::Writes::default();
                for (key, value) in rows {
                    writes.put(key.clone(), value.clone());
                }
                engine.commit(writes).map_err(|error| excused(&error))?;
            } else {
                engine.ingest(&mut rows.iter().cloned().map(Ok)).map_err(|error| excused(&error))?;
            }
            // Only one is staged at a time; raft may still be about to write the mark of an earlier one.
            if life.process.has_snapshot_order() {
                return Ok(());
            }
            world.hosts[to].staged = Some((LogIndex(index), engine));
            life.process.tell(Input::FromPeer(Box::new(message)));
            Ok(())
        })?;
        let answer = Input::SnapshotSent { to: peer, delivered };
        if let Some(life) = self.hosts[from].life.as_ref().map(|life| life.number) {
            let delay = self.net.delay(to, from, &mut self.random);
            self.at(delay, Event::ToRaft(from, life, Box::new(answer)));
        }
        Ok(())
    }

    // -------------------------------------------------------------------------------------------------------- peace

    /// Whether everybody who belongs to the cluster agrees and nobody waits any more.
    fn is_at_peace(&mut self) -> Result<bool, Wrong> {
        self.at(LOOK, Event::Look);
        let last = self.oracle.last_seen();
        let model = &self.oracle.model;
        let members: Vec<usize> =
            (0..self.hosts.len()).filter(|host| model.is_member(self.hosts[*host].member.0)).collect();
        let settled = |host: &usize| {
            let life = self.hosts[*host].life.as_ref();
            life.is_some_and(|life| {
                let applied = life.process.applier.published().applied.0;
                applied == last && life.log.last() == last && life.for_apply.is_empty() && !life.process.compaction_due
            })
        };
        let leaders =
            members.iter().filter_map(|host| self.hosts[*host].life.as_ref()).filter(|life| life.process.leads());
        let calm = leaders.count() == 1 && members.iter().all(settled);
        let served =
            self.clients.iter().all(Client::is_content) && self.watchers.iter().all(|watcher| watcher.is_content(self));
        if calm && served && self.oracle.model.leases.is_empty() {
            return Ok(true);
        }
        if self.now > CHAOS + PEACE {
            return Err(self.unrest(last));
        }
        Ok(false)
    }

    fn unrest(&self, last: u64) -> Wrong {
        let mut text = vec![format!("no peace: entry {last}, leases {:?}", self.oracle.model.leases)];
        for host in &self.hosts {
            let life = host.life.as_ref().map(|life| {
                let applied = life.process.applier.published().applied;
                (life.process.standing, applied, life.log.last(), life.for_apply.len(), life.process.compaction_due)
            });
            let name = &host.name;
            text.push(format!("{name} {:x} gone {}: {life:?}", host.member.0, host.gone));
        }
        for client in &self.clients {
            text.push(format!("{client:?}"));
        }
        for watcher in self.watchers.iter().filter(|watcher| !watcher.is_content(self)) {
            text.push(format!("{watcher:?}"));
        }
        text.join("\n")
    }

    fn check_end(&mut self) -> Result<(), Wrong> {
        for host in 0..self.hosts.len() {
            if !self.oracle.model.is_member(self.hosts[host].member.0) {
                continue;
            }
            let Some(life) = self.hosts[host].life.take() else { continue };
            let (id, state) = (life.process.identity.member.0, life.process.applier.published());
            let leases = life.process.applier.leases().map_err(|error| error.to_string())?;
            self.oracle.check_state(id, &state, &leases)?;
            state.view.verify().map_err(|error| format!("{id:x}: {error}"))?;
            let hash = state.view.hash_kv(0).map_err(|error| error.to_string())?;
            self.oracle.hashed(id, hash)?;
        }
        self.tally("operations checked", self.history.len() as u64);
        self.tally("entries applied", self.oracle.last_seen());
        match linear::check(&self.history) {
            Verdict::Linearizable => Ok(()),
            Verdict::Undecided(partition) => {
                self.count("histories undecided");
                self.note(|_| format!("undecided: {partition}"));
                Ok(())
            }
            Verdict::Illegal(partition, around) => {
                let told: Vec<_> = around.iter().map(|operation| format!("{operation:?}")).collect();
                Err(format!("not linearizable: keys {partition}\n{}", told.join("\n")))
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------- telling

    pub(crate) fn count(&mut self, what: &'static str) {
        self.tally(what, 1);
    }

    pub(crate) fn tally(&mut self, what: &'static str, n: u64) {
        // What never happened is not in the tally.
        if n > 0 {
            *self.tally.entry(what).or_default() += n;
        }
    }

    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.traced {
            let line = format!("{:>9.3} {}", self.now as f64 / MS as f64, line(self));
            self.trace.push(line);
        }
    }

    /// A client's operation is refused: it did not and will not happen.
    pub(crate) fn refuse(&mut self, waiter: (usize, u64)) {
        self.reply(waiter, Reply::Refused);
    }
}

/// Whether nobody waits for what this reader of a member would hear.
fn has_hung_up(clients: &[Client], host: usize, reader: &Reader) -> bool {
    match reader {
        Reader::Client((client, number), _)
        | Reader::Renewal((client, number), ..)
        | Reader::CatchUp((client, number), _) => clients[*client].waits_for(host) != Some(*number),
        Reader::Scan(_) => false,
    }
}

fn batch_of(order: &WalOrder) -> Option<&LogBatch> {
    match order {
        WalOrder::Batch(batch) => Some(batch),
        WalOrder::Snapshot { .. } => None,
    }
}

fn is_compaction(effect: &apply::Effect) -> bool {
    matches!(effect, apply::Effect::CompactionRequested { .. })
}

pub(crate) fn url(name: &str) -> String {
    format!("http://{name}:2380")
}

impl Habits {
    fn any(random: &mut Random) -> Self {
        Self {
            work: process::Habits::any(random),
            calm: *random.pick(&[200 * MS, 600 * MS, 2 * SECOND]),
            think: *random.pick(&[100 * MS, 200 * MS, 400 * MS]),
            value_bytes_max: *random.pick(&[20, 60, 800]),
            drift_max: *random.pick(&[0, 1_000, 50_000]),
        }
    }
}
