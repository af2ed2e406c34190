//! Clients: each has one operation at a time, against any member, and remembers what it asked and heard.

use bytes::Bytes;
use quorate::apply::Response;
use quorate::pb::etcdserverpb::Compare;
use quorate::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, compare, request_op::Request as Op,
};
use quorate::pb::mvccpb::KeyValue;
use quorate::server::leadership::Trust;
use quorate::server::lease_office::{RenewStep, Renewal};
use quorate::types::{LeaseId, Rejection};

use crate::bug::Bug;
use crate::host::{Awaited, Life, MS, Reader, SECOND, Time, Waiter};
use crate::simulated::model::{self, answer_of};
use crate::simulated::{Stop, Wrong};
use crate::support::linear::{Answer, Call, Operation, Value};
use crate::world::{Event, World};

/// Those that do all kinds of things.
const CLIENTS: usize = 5;
/// Those that take a long lease, renew it once and late, and leave it for the next: by then it is recorded that little of
/// its time remains, and a later leader counts on from there unless the renewal is recorded too.
const LATE_KEEPERS: usize = 2;
/// Seconds of such a lease: two checkpoints come before the renewal, and none after it.
const LONG_TTL: i64 = 7;
/// How much of its time has gone when it is renewed, in percent.
const LATE: (i64, i64) = (80, 88);
/// Keys that are read and written alone: the first partitions.
const ALONE: u64 = 4;
/// Pairs of keys that are read and written together: the partitions behind them.
const PAIRS: u64 = 2;
/// How long a client waits.
const PATIENCE: Time = 3 * SECOND;
/// Readers in a hundred that hang up within a moment, and go on with something else.
const HASTY: u64 = 5;
/// That moment, at most.
const MOMENT: Time = 20 * MS;
/// Messages between a client and a member in a thousand that are lost.
const LOSS: u64 = 5;
/// Clocks differ by so many millionths, at most, from that of the client.
const DRIFT_MAX: u64 = 50_000;
/// After a pause a buggy leader trusts its office for so long.
const TRUST: Time = 2 * SECOND;
/// A member that has to wait before it can renew a lease looks again so soon.
const LOOK_AGAIN: Time = 50 * MS;

/// What a client wants of a member.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) client: usize,
    pub(crate) number: u64,
    pub(crate) asked: Asked,
}

/// The request itself.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Write(Box<InternalRaftRequest>),
    /// A linearizable read.
    Read(RangeRequest),
    /// A read of whatever the member has.
    Serializable(RangeRequest),
    Renew(LeaseId),
}

/// What a member answers.
#[derive(Debug)]
pub(crate) enum Reply {
    Applied(Result<Response, Rejection>),
    /// Pairs and the revision of the header.
    Read(Result<(Vec<KeyValue>, i64), Rejection>),
    /// Seconds; zero if the lease does not exist.
    Renewed(i64),
    /// It did not happen, and it will not.
    Refused,
}

/// One client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    number: u64,
    pending: Option<Pending>,
    /// What it last saw under each key.
    known: [Value; (ALONE + PAIRS) as usize],
    lease: Option<Lease>,
    leases: i64,
    /// It does nothing but renew a long lease when so many percent of its time have gone.
    late: Option<u64>,
    /// The last operation in peace was answered.
    content: bool,
    /// The newest revision each member has shown it.
    seen: Vec<i64>,
}

/// A lease a client keeps alive.
#[derive(Clone, Debug)]
struct Lease {
    id: i64,
    ttl: i64,
    /// It lives at least as long after this as it has time to live.
    renewed: Time,
}

impl Lease {
    /// It exists until then, whatever clocks say.
    fn promised_until(&self) -> Time {
        let ttl = u64::try_from(self.ttl).unwrap_or(0) * SECOND;
        self.renewed + ttl - ttl * DRIFT_MAX / 1_000_000
    }

    /// When so many percent of its time have gone.
    fn after(&self, percent: u64) -> Time {
        self.renewed + u64::try_from(self.ttl).unwrap_or(0) * SECOND * percent / 100
    }
}

#[derive(Debug)]
struct Pending {
    host: usize,
    began: Time,
    what: What,
    /// What had been answered to anybody when it began.
    floor: i64,
}

/// What a client is doing.
#[derive(Clone, Debug)]
enum What {
    /// Part of the history that must be linearizable.
    Checked {
        partition: u64,
        call: Call,
    },
    Grant {
        id: i64,
    },
    Renew,
    PutLeased,
    Revoke,
    Compact,
    /// A transaction that reads the past beside its writes.
    ReadPast {
        key: Bytes,
        revision: i64,
    },
    Serializable {
        range: RangeRequest,
    },
}

impl What {
    /// Whether it changes nothing, so that nobody has to know whether it happened.
    fn is_read(&self) -> bool {
        matches!(self, Self::Checked { call: Call::Get | Call::GetBoth, .. } | Self::Serializable { .. })
    }
}

impl Client {
    pub(crate) fn waits_for(&self, host: usize) -> Option<u64> {
        self.pending.as_ref().filter(|pending| pending.host == host).map(|_| self.number)
    }

    pub(crate) fn is_content(&self) -> bool {
        self.content
    }
}

impl World {
    pub(crate) fn add_clients(&mut self) {
        for client in 0..CLIENTS + LATE_KEEPERS {
            let late = (client >= CLIENTS).then(|| self.random.between(LATE.0, LATE.1).unsigned_abs());
            self.clients.push(Client { late, ..Client::default() });
            let delay = self.random.below(500 * MS);
            self.at(delay, Event::Next(client));
        }
    }

    /// A client begins its next operation.
    pub(crate) fn asks(&mut self, client: usize) {
        if self.clients[client].pending.is_some() {
            return;
        }
        if let Some(until) = self.idles_until(client) {
            return self.at_time(until, Event::Next(client));
        }
        let hosts: Vec<usize> = (0..self.hosts.len()).filter(|host| self.hosts[*host].life.is_some()).collect();
        if hosts.is_empty() {
            return self.goes_on(client);
        }
        let mut host = *self.random.pick(&hosts);
        let (what, asked) = self.next_operation(client);
        if matches!(what, What::Renew) {
            // A member that does not lead would forward it; there may be two that think they do.
            let leads = |host: &usize| self.hosts[*host].life.as_ref().is_some_and(|life| life.process.leads());
            let leaders: Vec<usize> = hosts.iter().copied().filter(leads).collect();
            host = if leaders.is_empty() { host } else { *self.random.pick(&leaders) };
        }
        self.note(|world| format!("c{client} asks {}: {what:?}", world.hosts[host].name));
        let is_hasty = !self.healing && what.is_read() && self.random.chance(HASTY);
        let patience = if is_hasty { self.random.below(MOMENT) } else { PATIENCE };
        let (began, floor) = (self.now, self.newest_revision);
        let this = &mut self.clients[client];
        this.number += 1;
        let number = this.number;
        this.pending = Some(Pending { host, began, what, floor });
        if self.random.below(1000) >= LOSS {
            let delay = self.client_delay();
            self.at(delay, Event::Request(host, Request { client, number, asked }));
        }
        self.at(patience, Event::GiveUp(client, number));
    }

    /// Until when the keeper of a long lease has nothing to do.
    fn idles_until(&self, client: usize) -> Option<Time> {
        let Client { late, lease, .. } = &self.clients[client];
        let until = lease.as_ref()?.after((*late)?);
        (until > self.now && !self.healing).then_some(until)
    }

    fn client_delay(&mut self) -> Time {
        100 + self.random.below(3 * MS)
    }

    fn goes_on(&mut self, client: usize) {
        let think = self.habits.think;
        let delay = 1 + self.random.below(2 * think);
        self.at(delay, Event::Next(client));
    }

    /// A value nobody else writes.
    fn new_value(&mut self) -> (Value, Bytes) {
        self.values += 1;
        let length = self.random.below(self.habits.value_bytes_max);
        let mut value = format!("{}:", self.values).into_bytes();
        value.resize(value.len() + usize::try_from(length).unwrap_or(0), b'.');
        (self.values, value.into())
    }

    fn next_operation(&mut self, client: usize) -> (What, Asked) {
        if self.healing {
            return self.checked_operation(client, 0);
        }
        if self.clients[client].late.is_some() {
            return self.use_long_lease(client);
        }
        match self.random.below(100) {
            0..70 => {
                let kind = self.random.below(100);
                self.checked_operation(client, kind)
            }
            70..85 => self.lease_operation(client),
            85..90 => {
                let newest = self.newest_revision;
                let revision = self.random.between((newest - 15).max(1), newest + 1);
                // Where a key went is where compactions have gone wrong.
                let went =
                    |(_, changes): &(&i64, &Vec<model::Change>)| changes.iter().any(|(_, value)| value.is_none());
                let gone = self.oracle.history.range(revision..).find(went).map(|(revision, _)| *revision);
                let revision = gone.filter(|_| self.random.chance(50)).unwrap_or(revision);
                let compaction = Some(CompactionRequest { revision, physical: false });
                (What::Compact, write(InternalRaftRequest { compaction, ..Default::default() }))
            }
            90..95 => self.read_past(),
            _ => {
                let range = everything();
                (What::Serializable { range: range.clone() }, Asked::Serializable(range))
            }
        }
    }

    fn checked_operation(&mut self, client: usize, kind: u64) -> (What, Asked) {
        let partition = self.random.below(ALONE + PAIRS);
        let [left, right] = keys_of(partition);
        let (value, bytes) = self.new_value();
        let known = self.clients[client].known[partition as usize];
        let paired = partition >= ALONE;
        let (call, asked) = match kind {
            0..40 if paired => (Call::GetBoth, Asked::Read(range(left, Some(right)))),
            0..40 => (Call::Get, Asked::Read(range(left, None))),
            _ if paired => {
                let puts = vec![op(Op::RequestPut(put(left, &bytes, 0))), op(Op::RequestPut(put(right, &bytes, 0)))];
                (Call::PutBoth(value), txn(Vec::new(), puts, Vec::new()))
            }
            40..70 => {
                let put = Some(put(left, &bytes, 0));
                (Call::Put(value), write(InternalRaftRequest { put, ..Default::default() }))
            }
            70..90 => {
                let held = self.holds(&left, known);
                let read = vec![op(Op::RequestRange(range(left.clone(), None)))];
                (Call::Swap(known, value), txn(vec![held], vec![op(Op::RequestPut(put(left, &bytes, 0)))], read))
            }
            _ => {
                let delete_range = Some(DeleteRangeRequest { key: left, ..Default::default() });
                (Call::Delete, write(InternalRaftRequest { delete_range, ..Default::default() }))
            }
        };
        (What::Checked { partition, call }, asked)
    }

    /// The comparison "the key has this value", whose bytes the history of values tells.
    fn holds(&self, key: &Bytes, known: Value) -> Compare {
        let (target, union) = if known == 0 {
            (compare::CompareTarget::Version, compare::TargetUnion::Version(0))
        } else {
            let pairs = self.oracle.model.range_at(key, &Bytes::new(), i64::MAX);
            let found = pairs.into_iter().find(|pair| value_of(&pair.value) == known);
            let value = found.map_or_else(|| Bytes::from(format!("{known}:")), |pair| pair.value);
            (compare::CompareTarget::Value, compare::TargetUnion::Value(value))
        };
        Compare {
            result: compare::CompareResult::Equal.into(),
            target: target.into(),
            key: key.clone(),
            target_union: Some(union),
            ..Default::default()
        }
    }

    fn lease_operation(&mut self, client: usize) -> (What, Asked) {
        let Some(lease) = self.clients[client].lease.clone() else {
            let ttl = self.random.between(2, 8);
            return self.grant(client, ttl);
        };
        match self.random.below(100) {
            0..60 => (What::Renew, Asked::Renew(LeaseId(lease.id))),
            60..85 => {
                let (_, bytes) = self.new_value();
                let key = Bytes::from(format!("leased/{}/{}", lease.id, self.random.below(3)));
                let put = Some(put(key, &bytes, lease.id));
                (What::PutLeased, write(InternalRaftRequest { put, ..Default::default() }))
            }
            85..93 => {
                let lease_revoke = Some(LeaseRevokeRequest { id: lease.id });
                self.promises.remove(&lease.id);
                (What::Revoke, write(InternalRaftRequest { lease_revoke, ..Default::default() }))
            }
            _ => {
                // It is left to expire.
                self.clients[client].lease = None;
                (What::Renew, Asked::Renew(LeaseId(lease.id)))
            }
        }
    }

    fn grant(&mut self, client: usize, ttl: i64) -> (What, Asked) {
        self.clients[client].leases += 1;
        let id = (client as i64 + 1) * 1_000 + self.clients[client].leases;
        let lease_grant = Some(LeaseGrantRequest { id, ttl });
        (What::Grant { id }, write(InternalRaftRequest { lease_grant, ..Default::default() }))
    }

    fn use_long_lease(&mut self, client: usize) -> (What, Asked) {
        if let Some(Lease { id, .. }) = self.clients[client].lease {
            return (What::Renew, Asked::Renew(LeaseId(id)));
        }
        self.grant(client, LONG_TTL)
    }

    /// Writes one key and reads another as it was some time ago, which may be compacted.
    fn read_past(&mut self) -> (What, Asked) {
        let newest = self.newest_revision;
        let revision = self.random.between((newest - 20).max(1), newest);
        let [key, _] = keys_of(self.random.below(ALONE));
        let past = RangeRequest { revision, ..range(key.clone(), None) };
        let (_, bytes) = self.new_value();
        let own = Bytes::from(format!("past/{}", self.random.below(2)));
        let ops = vec![op(Op::RequestPut(put(own, &bytes, 0))), op(Op::RequestRange(past))];
        (What::ReadPast { key, revision }, txn(Vec::new(), ops, Vec::new()))
    }

    // ---------------------------------------------------------------------------------------- at the member's door

    /// A client's request has reached a member.
    pub(crate) fn requested(&mut self, life: &mut Life, request: Request) -> Result<(), Stop> {
        let waiter = (request.client, request.number);
        match request.asked {
            Asked::Write(_) if life.process.standing.leader.is_none() => self.refuse(waiter),
            Asked::Write(write) => {
                let id = life.process.propose(*write);
                life.awaited.insert(id, Awaited::Client(waiter));
            }
            Asked::Serializable(range) => {
                let read = life.process.applier.published().view.range(&range);
                self.answer_read(waiter, read)?;
            }
            Asked::Read(range) if self.trusts_itself(life) => {
                let read = life.process.applier.published().view.range(&range);
                self.answer_read(waiter, read)?;
            }
            Asked::Read(range) => self.read(life, Reader::Client(waiter, range))?,
            Asked::Renew(lease) => self.keep_alive(life, waiter, Renewal::new(lease))?,
        }
        Ok(())
    }

    /// One attempt to renew a lease, on a member that leads for sure.
    pub(crate) fn keep_alive(&mut self, life: &mut Life, waiter: Waiter, renewal: Renewal) -> Result<(), Stop> {
        match life.trust(self.hosts[life.host].monotonic(self.now)) {
            Trust::Leads => return self.renew(life, waiter, renewal),
            Trust::Follows => self.refuse(waiter),
            Trust::Ask(doubts) => self.read(life, Reader::Renewal(waiter, renewal, doubts))?,
        }
        Ok(())
    }

    /// Serves `reader` as soon as its read is linearizable.
    pub(crate) fn read(&mut self, life: &mut Life, reader: Reader) -> Result<(), Stop> {
        if life.is_alone() {
            return self.serve(life, [reader]);
        }
        life.process.read(reader);
        Ok(())
    }

    fn renew(&mut self, life: &mut Life, waiter: Waiter, mut renewal: Renewal) -> Result<(), Stop> {
        let now = self.hosts[life.host].clock(self.now);
        match renewal.attempt(&mut life.lessor, now) {
            RenewStep::Record(ttl, request) if self.bug != Some(Bug::LeavesCheckpoints) => {
                let id = life.process.propose(*request);
                life.awaited.insert(id, Awaited::Renewal(waiter, ttl));
            }
            RenewStep::Renewed(ttl) | RenewStep::Record(ttl, _) => {
                self.note(|world| format!("{} renews for c{} for {ttl} s", world.hosts[life.host].name, waiter.0));
                self.reply(waiter, Reply::Renewed(ttl));
            }
            RenewStep::CatchUp => self.read(life, Reader::CatchUp(waiter, renewal))?,
            // Unless its client has hung up.
            RenewStep::LookAgain if self.clients[waiter.0].waits_for(life.host) == Some(waiter.1) => {
                self.at(LOOK_AGAIN, Event::Renew(life.host, life.number, waiter, renewal));
            }
            RenewStep::LookAgain => {}
            RenewStep::Refused(_) => self.reply(waiter, Reply::Renewed(0)),
        }
        Ok(())
    }

    fn trusts_itself(&self, life: &Life) -> bool {
        let recently = life.resumed_at > 0 && self.now < life.resumed_at + TRUST;
        life.process.leads()
            && (self.bug == Some(Bug::SkipsReadIndex) || (self.bug == Some(Bug::ReadsStaleAfterPause) && recently))
    }

    /// Serves those whose index is applied by now.
    pub(crate) fn serve_applied(&mut self, life: &mut Life) -> Result<(), Stop> {
        let readers = life.process.rounds.applied(life.process.applier.published().applied);
        self.serve(life, readers)
    }

    /// A read here and now is linearizable.
    pub(crate) fn serve(&mut self, life: &mut Life, readers: impl IntoIterator<Item = Reader>) -> Result<(), Stop> {
        for reader in readers {
            match reader {
                Reader::Client(waiter, range) => {
                    let read = life.process.applier.published().view.range(&range);
                    self.answer_read(waiter, read)?;
                }
                Reader::Renewal(waiter, renewal, doubts) => {
                    life.doubts.settle(doubts);
                    if life.process.leads() {
                        self.renew(life, waiter, renewal)?;
                    } else {
                        self.refuse(waiter);
                    }
                }
                Reader::CatchUp(waiter, renewal) => self.keep_alive(life, waiter, renewal)?,
                Reader::Scan(doubts) => {
                    life.doubts.settle(doubts);
                    if life.process.leads() {
                        self.look_after_leases(life);
                    }
                }
            }
        }
        Ok(())
    }

    /// Nobody confirms their rounds any more.
    pub(crate) fn refuse_readers(&mut self, readers: impl IntoIterator<Item = Reader>) {
        for reader in readers {
            match reader {
                Reader::Client(waiter, _) | Reader::Renewal(waiter, ..) | Reader::CatchUp(waiter, _) => {
                    self.refuse(waiter);
                }
                Reader::Scan(_) => {}
            }
        }
    }

    fn answer_read(
        &mut self,
        waiter: (usize, u64),
        read: Result<quorate::pb::etcdserverpb::RangeResponse, quorate::mvcc::ReadError>,
    ) -> Result<(), Stop> {
        let read = match read {
            Ok(response) => Ok((response.kvs, response.header.map_or(0, |header| header.revision))),
            Err(quorate::mvcc::ReadError::Rejected(rejection)) => Err(rejection),
            Err(quorate::mvcc::ReadError::Storage(error)) => return Err(Stop::Wrong(error.to_string())),
        };
        self.reply(waiter, Reply::Read(read));
        Ok(())
    }

    /// An answer is on its way.
    pub(crate) fn reply(&mut self, (client, number): (usize, u64), reply: Reply) {
        if self.random.below(1000) >= LOSS {
            let delay = self.client_delay();
            self.at(delay, Event::Reply(client, number, Box::new(reply)));
        }
    }

    // ------------------------------------------------------------------------------------------- back at the client

    /// Nothing was heard: what was asked may have happened, or not.
    pub(crate) fn gives_up(&mut self, client: usize, number: u64) {
        if self.clients[client].number != number {
            return;
        }
        let Some(pending) = self.clients[client].pending.take() else { return };
        self.count(if pending.what.is_read() { "reads given up" } else { "operations of unknown fate" });
        match pending.what {
            What::Checked { partition, call } if !matches!(call, Call::Get | Call::GetBoth) => {
                self.record(partition, call, Answer::Unknown, pending.began);
            }
            What::Revoke => self.clients[client].lease = None,
            _ => {}
        }
        self.goes_on(client);
    }

    fn record(&mut self, partition: u64, call: Call, answer: Answer, began: Time) {
        self.history.push(Operation { partition, call, answer, began, ended: self.now });
    }

    pub(crate) fn replied(&mut self, client: usize, number: u64, reply: Reply) -> Result<(), Wrong> {
        if self.clients[client].number != number {
            return Ok(());
        }
        let Some(pending) = self.clients[client].pending.take() else { return Ok(()) };
        self.note(|_| format!("c{client} hears {number}: {reply:?}"));
        self.goes_on(client);
        let heard = self.hear(client, pending, reply);
        heard.map_err(|wrong| format!("client {client}, operation {number}: {wrong}"))
    }

    fn hear(&mut self, client: usize, pending: Pending, reply: Reply) -> Result<(), Wrong> {
        let Pending { host, began, what, floor } = pending;
        if matches!(reply, Reply::Refused) {
            self.count("operations refused");
            return Ok(());
        }
        match (what, reply) {
            (What::Checked { partition, call }, reply) => {
                self.hear_checked(client, partition, call, reply, began, floor)
            }
            (What::Grant { id }, Reply::Applied(Ok(Response::LeaseGrant(grant)))) => {
                let lease = Lease { id, ttl: grant.ttl, renewed: began };
                self.promises.insert(id, lease.promised_until());
                self.clients[client].lease = Some(lease);
                Ok(())
            }
            (What::Renew, Reply::Renewed(0)) | (What::PutLeased, Reply::Applied(Err(Rejection::LeaseNotFound))) => {
                self.lease_is_gone(client)
            }
            (What::Renew, Reply::Renewed(ttl)) => {
                if let Some(lease) = &mut self.clients[client].lease {
                    (lease.ttl, lease.renewed) = (ttl, lease.renewed.max(began));
                    let promised = lease.promised_until();
                    if let Some(until) = self.promises.get_mut(&lease.id) {
                        *until = promised.max(*until);
                    }
                }
                if self.clients[client].late.is_some() {
                    self.clients[client].lease = None;
                    let delay = self.random.below(SECOND);
                    self.at(delay, Event::HandOver);
                }
                Ok(())
            }
            (What::Revoke, Reply::Applied(_)) => {
                self.clients[client].lease = None;
                Ok(())
            }
            (What::ReadPast { key, revision }, Reply::Applied(Ok(response))) => {
                self.hear_past(&key, revision, &response)
            }
            (What::Serializable { range }, Reply::Read(Ok((pairs, revision)))) => {
                self.hear_serializable(client, host, &range, &pairs, revision)
            }
            _ => Ok(()),
        }
    }

    fn hear_checked(
        &mut self,
        client: usize,
        partition: u64,
        call: Call,
        reply: Reply,
        began: Time,
        floor: i64,
    ) -> Result<(), Wrong> {
        let (answer, revision) = match reply {
            Reply::Read(Ok((pairs, revision))) => {
                self.check_read(partition, &pairs, revision)?;
                (Answer::Got(state_of(partition, &pairs)), revision)
            }
            Reply::Applied(Ok(response)) => {
                let (answer, revision) = answer_of(&response);
                (heard(call, &answer), revision)
            }
            // A store that is at its quota, or the like: it did not happen.
            _ => return Ok(()),
        };
        // What was answered before this began is part of what this saw.
        if revision < floor {
            return Err(format!("{call:?} is answered at revision {revision}, after {floor} was answered"));
        }
        self.newest_revision = self.newest_revision.max(revision);
        let known = match (call, answer) {
            (_, Answer::Got([value, _]) | Answer::NotSwapped(value))
            | (Call::Put(value) | Call::PutBoth(value), _)
            | (Call::Swap(_, value), Answer::Swapped) => value,
            _ => 0,
        };
        self.clients[client].known[partition as usize] = known;
        self.clients[client].content |= self.healing;
        self.record(partition, call, answer, began);
        Ok(())
    }

    /// What a read shows is what was there at its revision.
    fn check_read(&self, partition: u64, pairs: &[KeyValue], revision: i64) -> Result<(), Wrong> {
        let [left, right] = keys_of(partition);
        let end = if partition >= ALONE { after(&right) } else { Bytes::new() };
        let expected = self.oracle.model.range_at(&left, &end, revision);
        if expected == pairs {
            Ok(())
        } else {
            Err(format!("at revision {revision} it reads {pairs:?}, not {expected:?}"))
        }
    }

    fn hear_past(&mut self, key: &Bytes, revision: i64, response: &Response) -> Result<(), Wrong> {
        let (answer, _) = answer_of(response);
        let model::Answer::Txn(_, answers) = &answer else {
            return Err(format!("a transaction is answered by {answer:?}"));
        };
        let expected = self.oracle.model.range_at(key, &Bytes::new(), revision);
        match answers.last() {
            Some(model::Answer::Range(pairs)) if *pairs == expected => Ok(()),
            other => Err(format!("at revision {revision} there was {expected:?}, and it reads {other:?}")),
        }
    }

    /// A serializable read may be old, but it shows one moment, and a member never goes back.
    fn hear_serializable(
        &mut self,
        client: usize,
        host: usize,
        range: &RangeRequest,
        pairs: &[KeyValue],
        revision: i64,
    ) -> Result<(), Wrong> {
        let expected = self.oracle.model.range_at(&range.key, &range.range_end, revision);
        if expected != pairs {
            return Err(format!("at revision {revision} there was {expected:?}, and it reads {pairs:?}"));
        }
        let (starts, seen) = (self.hosts[host].starts, &mut self.clients[client].seen);
        let place = host * 64 + usize::try_from(starts % 64).unwrap_or(0);
        if seen.len() <= place {
            seen.resize(place + 1, 0);
        }
        if revision < seen[place] {
            return Err(format!("a member that was at revision {} is at {revision}", seen[place]));
        }
        seen[place] = revision;
        Ok(())
    }

    /// The lease of a client does not exist any more: it must have had its time.
    fn lease_is_gone(&mut self, client: usize) -> Result<(), Wrong> {
        let Some(lease) = self.clients[client].lease.take() else { return Ok(()) };
        self.count("leases found expired");
        let lived = self.now - lease.renewed;
        if self.now >= lease.promised_until() {
            return Ok(());
        }
        Err(format!("lease {} was renewed for {} s, and is gone after {} ms", lease.id, lease.ttl, lived / MS))
    }
}

/// The answer to a write, in the words of the history.
fn heard(call: Call, answer: &model::Answer) -> Answer {
    match (call, answer) {
        (Call::Delete, model::Answer::Deleted(count, _)) => Answer::Deleted(*count > 0),
        (Call::Swap(..), model::Answer::Txn(true, _)) => Answer::Swapped,
        (Call::Swap(..), model::Answer::Txn(false, answers)) => match answers.first() {
            Some(model::Answer::Range(pairs)) => {
                Answer::NotSwapped(pairs.first().map_or(0, |pair| value_of(&pair.value)))
            }
            _ => Answer::NotSwapped(0),
        },
        _ => Answer::Done,
    }
}

fn keys_of(partition: u64) -> [Bytes; 2] {
    if partition < ALONE {
        return [Bytes::from(format!("alone/{partition}")), Bytes::new()];
    }
    ["left", "right"].map(|side| Bytes::from(format!("pair/{partition}/{side}")))
}

fn state_of(partition: u64, pairs: &[KeyValue]) -> [Value; 2] {
    let [left, right] = keys_of(partition);
    [left, right].map(|key| pairs.iter().find(|pair| pair.key == key).map_or(0, |pair| value_of(&pair.value)))
}

/// The number at the head of a value.
fn value_of(value: &Bytes) -> Value {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

fn after(key: &Bytes) -> Bytes {
    [key.as_ref(), b"\0"].concat().into()
}

pub(crate) fn everything() -> RangeRequest {
    let all = Bytes::from_static(b"\0");
    RangeRequest { key: all.clone(), range_end: all, ..Default::default() }
}

fn range(key: Bytes, last: Option<Bytes>) -> RangeRequest {
    RangeRequest { key, range_end: last.map(|last| after(&last)).unwrap_or_default(), ..Default::default() }
}

fn put(key: Bytes, value: &Bytes, lease: i64) -> PutRequest {
    PutRequest { key, value: value.clone(), lease, ..Default::default() }
}

fn op(op: Op) -> RequestOp {
    RequestOp { request: Some(op) }
}

fn txn(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> Asked {
    write(InternalRaftRequest { txn: Some(TxnRequest { compare, success, failure }), ..Default::default() })
}

fn write(request: InternalRaftRequest) -> Asked {
    Asked::Write(Box::new(request))
}
