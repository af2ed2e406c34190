//! What a log of entries must lead to, computed without any of the code under test: the golden state machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::Bytes;
use prost::Message as _;
use quorate::apply::{Applied, Response};
use quorate::lease::{LeaseRow, TTL_MIN_SECONDS_DEFAULT};
use quorate::membership::{Attributes, Cluster, LEARNERS_MAX_DEFAULT, Member, MemberChange};
use quorate::mvcc::View;
use quorate::pb::etcdserverpb::{
    self as pb, InternalRaftRequest, RequestOp, ResponseHeader, compare, request_op, response_op,
};
use quorate::pb::mvccpb::{Event, KeyValue, event::EventType};
use quorate::pb::raftpb::{Entry, EntryType};
use quorate::storage::Read;
use quorate::types::{Rejection, RequestId};

use super::Wrong;

/// The version every member speaks.
pub const VERSION: &str = "3.7.0";

/// One thing that happened to a key: its new value, or `None` if it went.
pub type Change = (Bytes, Option<Bytes>);

/// What an entry must lead to. Answers carry no headers but the outermost revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub request: Option<RequestId>,
    pub revision: i64,
    pub answer: Result<Answer, Rejection>,
    pub changes: Vec<Change>,
}

impl Expected {
    /// Whether the entry has led to that.
    pub fn check(&self, applied: &Applied) -> Result<(), Wrong> {
        let answer = applied.outcome.as_ref().map(answer_of).map_err(|rejection| *rejection);
        let revision = applied.changes.as_ref().map_or(self.revision, |changes| changes.revision);
        let answered_at = answer.as_ref().map_or(0, |(_, revision)| *revision);
        let wrong_header = !matches!(answer, Err(_) | Ok((Answer::Silent, _))) && answered_at != self.revision;
        let answer = answer.map(|(answer, _)| answer);
        let changes = applied.changes.as_ref().map(|changes| changes_of(&changes.events)).unwrap_or_default();
        let same = answer == self.answer && changes == self.changes && revision == self.revision;
        if same && !wrong_header {
            return Ok(());
        }
        let index = applied.index;
        Err(format!("entry {index}: {answer:?} {changes:?} at {answered_at}, {revision}; expected {self:?}"))
    }
}

/// The telling part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A header with the current revision, and nothing more.
    Header,
    Put(Option<KeyValue>),
    Deleted(i64, Vec<KeyValue>),
    Range(Vec<KeyValue>),
    Txn(bool, Vec<Answer>),
    Granted(i64),
    /// No header.
    Silent,
}

/// The state.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub revision: i64,
    pub compacted: i64,
    /// Every state of every key, by the revision that brought it about.
    keys: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
    /// Time to live, and what is left of it.
    pub leases: BTreeMap<i64, (i64, i64)>,
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
    version: Option<String>,
    changes: Vec<Change>,
}

impl Model {
    /// The state of a cluster that these have just founded.
    pub fn founded_by(voters: BTreeSet<u64>) -> Self {
        Self { revision: 1, compacted: -1, voters, ..Self::default() }
    }

    /// Who has a vote, and who only listens.
    pub fn configuration(&self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        (self.voters.clone(), self.learners.clone())
    }

    pub fn is_member(&self, id: u64) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// Carries out one entry.
    pub fn apply(&mut self, entry: &Entry) -> Result<Expected, String> {
        self.changes.clear();
        let (request, answer) = if entry.r#type == i32::from(EntryType::EntryConfChange) {
            let (id, change) = MemberChange::decode(entry.data.clone()).map_err(|error| error.to_string())?;
            (Some(id).filter(|id| id.0 != 0), self.change_members(&change).map(|()| Answer::Silent))
        } else if entry.data.is_empty() {
            (None, Ok(Answer::Silent))
        } else {
            let request = InternalRaftRequest::decode(entry.data.clone()).map_err(|error| error.to_string())?;
            let id = request.header.as_ref().map(|header| RequestId(header.id));
            (id, self.carry_out(&request))
        };
        let changes = std::mem::take(&mut self.changes);
        self.revision += i64::from(!changes.is_empty());
        Ok(Expected { request, revision: self.revision, answer, changes })
    }

    fn carry_out(&mut self, request: &InternalRaftRequest) -> Result<Answer, Rejection> {
        if let Some(put) = &request.put {
            self.check_lease(put)?;
            return Ok(self.put(put));
        }
        if let Some(delete) = &request.delete_range {
            return Ok(self.delete(delete));
        }
        if let Some(txn) = &request.txn {
            return self.txn(txn);
        }
        if let Some(compaction) = &request.compaction {
            return self.compact(compaction.revision);
        }
        if let Some(grant) = &request.lease_grant {
            return self.grant(grant);
        }
        if let Some(revoke) = &request.lease_revoke {
            return self.revoke(revoke.id);
        }
        if let Some(checkpoint) = &request.lease_checkpoint {
            let stored = self.version.is_some();
            for pb::LeaseCheckpoint { id, remaining_ttl } in &checkpoint.checkpoints {
                if let Some(row) = self.leases.get_mut(id).filter(|_| stored) {
                    row.1 = *remaining_ttl;
                }
            }
            return Ok(Answer::Header);
        }
        if let Some(set) = &request.cluster_member_attr_set {
            if self.removed.contains(&set.member_id) {
                return Ok(Answer::Silent);
            }
            let member = self.members.get_mut(&set.member_id).ok_or(Rejection::MemberNotFound)?;
            let said = set.member_attributes.clone().unwrap_or_default();
            member.attributes = Attributes { name: said.name, client_urls: said.client_urls };
            return Ok(Answer::Silent);
        }
        if let Some(set) = &request.cluster_version_set {
            self.version = Some(set.ver.clone());
        }
        Ok(Answer::Silent)
    }

    fn check_lease(&self, put: &pb::PutRequest) -> Result<(), Rejection> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) { Err(Rejection::LeaseNotFound) } else { Ok(()) }
    }

    fn put(&mut self, put: &pb::PutRequest) -> Answer {
        let modified = self.revision + 1;
        let old = self.now(&put.key).cloned();
        let (created, version) = old.as_ref().map_or((modified, 0), |old| (old.create_revision, old.version));
        let pair = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: created,
            mod_revision: modified,
            version: version + 1,
            lease: put.lease,
        };
        self.keys.entry(put.key.clone()).or_default().push((modified, Some(pair)));
        self.changes.push((put.key.clone(), Some(put.value.clone())));
        Answer::Put(old.filter(|_| put.prev_kv))
    }

    fn delete(&mut self, delete: &pb::DeleteRangeRequest) -> Answer {
        let gone = self.range_at(&delete.key, &delete.range_end, i64::MAX);
        for pair in &gone {
            self.remove(&pair.key);
        }
        let count = i64::try_from(gone.len()).unwrap_or(i64::MAX);
        Answer::Deleted(count, if delete.prev_kv { gone } else { Vec::new() })
    }

    fn remove(&mut self, key: &Bytes) {
        self.keys.entry(key.clone()).or_default().push((self.revision + 1, None));
        self.changes.push((key.clone(), None));
    }

    fn txn(&mut self, txn: &pb::TxnRequest) -> Result<Answer, Rejection> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        for RequestOp { request } in branch {
            match request {
                Some(request_op::Request::RequestPut(put)) => self.check_lease(put)?,
                Some(request_op::Request::RequestRange(range)) if range.revision > self.revision => {
                    return Err(Rejection::FutureRevision);
                }
                Some(request_op::Request::RequestRange(range))
                    if range.revision > 0 && range.revision < self.compacted =>
                {
                    return Err(Rejection::Compacted);
                }
                _ => {}
            }
        }
        let mut answers = Vec::new();
        for RequestOp { request } in branch {
            answers.push(match request {
                Some(request_op::Request::RequestPut(put)) => self.put(put),
                Some(request_op::Request::RequestDeleteRange(delete)) => self.delete(delete),
                Some(request_op::Request::RequestRange(range)) => {
                    let at = if range.revision == 0 { i64::MAX } else { range.revision };
                    Answer::Range(self.range_at(&range.key, &range.range_end, at))
                }
                _ => Answer::Silent,
            });
        }
        Ok(Answer::Txn(succeeded, answers))
    }

    fn holds(&self, compare: &pb::Compare) -> bool {
        let pair = self.now(&compare.key);
        let zero = KeyValue::default();
        let (found, wanted) = match &compare.target_union {
            Some(compare::TargetUnion::Value(value)) => {
                return pair.is_some_and(|pair| pair.value == *value);
            }
            Some(compare::TargetUnion::ModRevision(wanted)) => (pair.unwrap_or(&zero).mod_revision, *wanted),
            Some(compare::TargetUnion::Version(wanted)) => (pair.unwrap_or(&zero).version, *wanted),
            Some(compare::TargetUnion::CreateRevision(wanted)) => (pair.unwrap_or(&zero).create_revision, *wanted),
            _ => (0, 0),
        };
        match compare.result() {
            compare::CompareResult::Equal => found == wanted,
            compare::CompareResult::Greater => found > wanted,
            compare::CompareResult::Less => found < wanted,
            compare::CompareResult::NotEqual => found != wanted,
        }
    }

    fn compact(&mut self, revision: i64) -> Result<Answer, Rejection> {
        if revision <= self.compacted {
            return Err(Rejection::Compacted);
        }
        if revision > self.revision {
            return Err(Rejection::FutureRevision);
        }
        self.compacted = revision;
        Ok(Answer::Header)
    }

    fn grant(&mut self, grant: &pb::LeaseGrantRequest) -> Result<Answer, Rejection> {
        if self.leases.contains_key(&grant.id) {
            return Err(Rejection::LeaseExists);
        }
        let ttl = grant.ttl.max(TTL_MIN_SECONDS_DEFAULT);
        self.leases.insert(grant.id, (ttl, 0));
        Ok(Answer::Granted(ttl))
    }

    fn revoke(&mut self, lease: i64) -> Result<Answer, Rejection> {
        self.leases.remove(&lease).ok_or(Rejection::LeaseNotFound)?;
        let attached: Vec<Bytes> = self
            .keys
            .iter()
            .filter(|(_, states)| states.last().is_some_and(|(_, p)| p.as_ref().is_some_and(|p| p.lease == lease)))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &attached {
            self.remove(key);
        }
        Ok(Answer::Header)
    }

    fn change_members(&mut self, change: &MemberChange) -> Result<(), Rejection> {
        let id = change.id().0;
        if self.removed.contains(&id) {
            return Err(Rejection::MemberNotFound);
        }
        match change {
            MemberChange::Add { member, .. } => {
                let learners = self.members.values().filter(|member| member.is_learner).count();
                if self.members.contains_key(&id) {
                    return Err(Rejection::MemberExists);
                }
                if self.members.values().any(|other| other.peer_urls == member.peer_urls) {
                    return Err(Rejection::PeerUrlExists);
                }
                if member.is_learner && learners >= LEARNERS_MAX_DEFAULT {
                    return Err(Rejection::TooManyLearners);
                }
                self.members.insert(id, member.clone());
                if member.is_learner { &mut self.learners } else { &mut self.voters }.insert(id);
            }
            MemberChange::Promote(_) => {
                let member = self.members.get_mut(&id).ok_or(Rejection::MemberNotFound)?;
                if !std::mem::take(&mut member.is_learner) {
                    return Err(Rejection::NotLearner);
                }
                self.learners.remove(&id);
                self.voters.insert(id);
            }
            MemberChange::Update { peer_urls, .. } => {
                let member = self.members.get_mut(&id).ok_or(Rejection::MemberNotFound)?;
                member.peer_urls.clone_from(peer_urls);
            }
            MemberChange::Remove(_) => {
                self.members.remove(&id).ok_or(Rejection::MemberNotFound)?;
                self.learners.remove(&id);
                self.voters.remove(&id);
                self.removed.insert(id);
            }
        }
        Ok(())
    }

    fn now(&self, key: &Bytes) -> Option<&KeyValue> {
        self.keys.get(key)?.last()?.1.as_ref()
    }

    /// The pairs in a range as they were at a revision.
    pub fn range_at(&self, key: &Bytes, range_end: &Bytes, revision: i64) -> Vec<KeyValue> {
        let inside = |found: &&Bytes| {
            let below = range_end.as_ref() == b"\0" || *found < range_end;
            if range_end.is_empty() { *found == key } else { *found >= key && below }
        };
        let range = self.keys.iter().filter(|(found, _)| inside(found));
        range.filter_map(|(_, states)| states.iter().rev().find(|(at, _)| *at <= revision)?.1.clone()).collect()
    }

    /// The whole state as text.
    pub fn render(&self) -> String {
        let mut text = format!("revision {} compacted {}\n", self.revision, self.compacted);
        for pair in self.keys.values().filter_map(|states| states.last()?.1.as_ref()) {
            pair_line(&mut text, pair);
        }
        for (id, (ttl, remaining)) in &self.leases {
            line(&mut text, format_args!("lease {id} {ttl} {remaining}"));
        }
        for member in self.members.values() {
            line(&mut text, format_args!("{member:?}"));
        }
        let Self { voters, learners, removed, version, .. } = self;
        line(&mut text, format_args!("{voters:?} {learners:?} {removed:?} {version:?}"));
        text
    }
}

/// The state under test as the same text.
pub fn render<S: Read>(view: &View<S>, leases: &[LeaseRow], cluster: &Cluster) -> Result<String, String> {
    let everything = Bytes::from_static(b"\0");
    let request = pb::RangeRequest { key: everything.clone(), range_end: everything, ..Default::default() };
    let pairs = view.range(&request).map_err(|error| format!("the state cannot be read: {error}"))?.kvs;
    let mut text = format!("revision {} compacted {}\n", view.revision(), view.compact_revision());
    for pair in &pairs {
        pair_line(&mut text, pair);
    }
    for lease in leases {
        line(&mut text, format_args!("lease {} {} {}", lease.id.0, lease.ttl, lease.remaining));
    }
    for member in cluster.members() {
        line(&mut text, format_args!("{member:?}"));
    }
    let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
    let (voters, learners) = (set(&cluster.configuration().voters), set(&cluster.configuration().learners));
    let removed: BTreeSet<_> = cluster.removed().map(|id| id.0).collect();
    let version = cluster.version().map(|version| version.to_string());
    line(&mut text, format_args!("{voters:?} {learners:?} {removed:?} {version:?}"));
    Ok(text)
}

/// The changes that events tell of.
pub fn changes_of(events: &[Event]) -> Vec<Change> {
    let change = |event: &Event| {
        let pair = event.kv.clone().unwrap_or_default();
        (pair.key, (event.r#type == EventType::Put as i32).then_some(pair.value))
    };
    events.iter().map(change).collect()
}

/// The telling part of an answer under test, and the revision of its header.
pub fn answer_of(response: &Response) -> (Answer, i64) {
    let at = |header: &Option<ResponseHeader>| header.as_ref().map_or(0, |header| header.revision);
    match response {
        Response::Put(put) => (Answer::Put(put.prev_kv.clone()), at(&put.header)),
        Response::DeleteRange(delete) => (Answer::Deleted(delete.deleted, delete.prev_kvs.clone()), at(&delete.header)),
        Response::Range(range) => (Answer::Range(range.kvs.clone()), at(&range.header)),
        Response::Txn(txn) => (txn_of(txn), at(&txn.header)),
        Response::Compaction(compaction) => (Answer::Header, at(&compaction.header)),
        Response::LeaseGrant(grant) => (Answer::Granted(grant.ttl), at(&grant.header)),
        Response::LeaseRevoke(revoke) => (Answer::Header, at(&revoke.header)),
        Response::LeaseCheckpoint(checkpoint) => (Answer::Header, at(&checkpoint.header)),
        _ => (Answer::Silent, 0),
    }
}

/// The telling part of a transaction's answer.
pub fn txn_of(txn: &pb::TxnResponse) -> Answer {
    let one = |op: &pb::ResponseOp| match &op.response {
        Some(response_op::Response::ResponsePut(put)) => Answer::Put(put.prev_kv.clone()),
        Some(response_op::Response::ResponseRange(range)) => Answer::Range(range.kvs.clone()),
        Some(response_op::Response::ResponseDeleteRange(delete)) => {
            Answer::Deleted(delete.deleted, delete.prev_kvs.clone())
        }
        _ => Answer::Silent,
    };
    Answer::Txn(txn.succeeded, txn.responses.iter().map(one).collect())
}

fn pair_line(text: &mut String, pair: &KeyValue) {
    let KeyValue { key, value, create_revision, mod_revision, version, lease } = pair;
    let (sum, length) = (crc32c::crc32c(value), value.len());
    line(text, format_args!("{key:?} {sum:08x} {length} {create_revision} {mod_revision} {version} {lease}"));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes everything");
}
