//! What the state must be after a sequence of requests, computed without any of the code under test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::Bytes;
use quorate::lease::LeaseRow;
use quorate::membership::{Cluster, Member, MemberChange};
use quorate::mvcc::View;
use quorate::pb::etcdserverpb::RangeRequest;
use quorate::pb::mvccpb::{Event, event::EventType};
use quorate::storage::Read;
use quorate::types::Rejection;

use crate::request::{Request, VERSION};

/// Shortest time to live of a lease.
pub(crate) const TTL_MIN: i64 = 2;
/// Learners the cluster may have.
pub(crate) const LEARNERS_MAX: usize = 1;

/// One thing that happened to a key: its new value, or `None` if it went.
pub(crate) type Change = (Bytes, Option<Bytes>);

/// What a request must lead to: the revision in its answer's header (zero where there is none), and its changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) answer: Result<i64, Rejection>,
    pub(crate) changes: Vec<Change>,
}

#[derive(Clone, Debug)]
struct Pair {
    value: Bytes,
    created: i64,
    modified: i64,
    version: i64,
    lease: i64,
}

/// The state.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    /// A voter from the first instant on, before its founding entry is applied.
    founder: u64,
    pairs: BTreeMap<Bytes, Pair>,
    /// Time to live, and what is left of it.
    leases: BTreeMap<i64, (i64, i64)>,
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    version: Option<String>,
    /// The changes of the request at hand.
    changes: Vec<Change>,
}

impl Model {
    /// The state of a cluster that has just been founded by one member.
    pub(crate) fn founded_by(founder: u64) -> Self {
        Self {
            revision: 1,
            compacted: -1,
            founder,
            pairs: BTreeMap::new(),
            leases: BTreeMap::new(),
            members: BTreeMap::new(),
            removed: BTreeSet::new(),
            version: None,
            changes: Vec::new(),
        }
    }

    /// Carries out one request.
    pub(crate) fn apply(&mut self, request: &Request) -> Expected {
        let answer = self.carry_out(request);
        let changes = std::mem::take(&mut self.changes);
        self.revision += i64::from(!changes.is_empty());
        let answer = answer.map(|has_header| if has_header { self.revision } else { 0 });
        Expected { answer, changes }
    }

    /// Whether the answer has a header, or why nothing happens.
    fn carry_out(&mut self, request: &Request) -> Result<bool, Rejection> {
        match request {
            Request::Put { key, value, lease } => {
                if *lease != 0 && !self.leases.contains_key(lease) {
                    return Err(Rejection::LeaseNotFound);
                }
                self.put(key, value, *lease);
            }
            Request::Delete { key, range_end } => {
                let range =
                    |found: &Bytes| found == key || (!range_end.is_empty() && found >= key && found < range_end);
                self.delete_all(range);
            }
            Request::Pair { left, right, gone, there, missing } => {
                let value = if self.pairs.contains_key(left) { there } else { missing };
                self.put(left, value, 0);
                self.delete_all(|key| key == gone);
                self.put(right, value, 0);
            }
            Request::Grant { lease, ttl } => {
                if self.leases.contains_key(lease) {
                    return Err(Rejection::LeaseExists);
                }
                self.leases.insert(*lease, (*ttl.max(&TTL_MIN), 0));
            }
            Request::Revoke { lease } => {
                self.leases.remove(lease).ok_or(Rejection::LeaseNotFound)?;
                let attached: BTreeSet<_> =
                    self.pairs.iter().filter(|(_, pair)| pair.lease == *lease).map(|(key, _)| key.clone()).collect();
                self.delete_all(|key| attached.contains(key));
            }
            Request::Checkpoint { lease, remaining } => {
                let stored = self.version.is_some();
                if let Some(row) = self.leases.get_mut(lease).filter(|_| stored) {
                    row.1 = *remaining;
                }
            }
            Request::Compact { revision } => self.compact(*revision)?,
            Request::Publish { member, client_url } => {
                let member = self.members.get_mut(member).ok_or(Rejection::MemberNotFound)?;
                crate::NAME.clone_into(&mut member.attributes.name);
                member.attributes.client_urls = vec![client_url.clone()];
                return Ok(false);
            }
            Request::Version => {
                self.version = Some(VERSION.to_owned());
                return Ok(false);
            }
            Request::Member(change) => {
                self.change_members(change)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, lease: i64) {
        let modified = self.revision + 1;
        let old = self.pairs.get(key).map_or((modified, 0), |old| (old.created, old.version));
        let pair = Pair { value: value.clone(), created: old.0, modified, version: old.1 + 1, lease };
        self.pairs.insert(key.clone(), pair);
        self.changes.push((key.clone(), Some(value.clone())));
    }

    fn delete_all(&mut self, goes: impl Fn(&Bytes) -> bool) {
        let gone: Vec<_> = self.pairs.keys().filter(|key| goes(key)).cloned().collect();
        for key in gone {
            self.pairs.remove(&key);
            self.changes.push((key, None));
        }
    }

    fn compact(&mut self, revision: i64) -> Result<(), Rejection> {
        if revision <= self.compacted {
            return Err(Rejection::Compacted);
        }
        if revision > self.revision {
            return Err(Rejection::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }

    fn change_members(&mut self, change: &MemberChange) -> Result<(), Rejection> {
        let id = change.id().0;
        if self.removed.contains(&id) {
            return Err(Rejection::MemberNotFound);
        }
        match change {
            MemberChange::Add { member, .. } => self.add(member),
            MemberChange::Update { peer_urls, .. } => {
                let member = self.members.get_mut(&id).ok_or(Rejection::MemberNotFound)?;
                member.peer_urls.clone_from(peer_urls);
                Ok(())
            }
            MemberChange::Remove(_) => {
                self.members.remove(&id).ok_or(Rejection::MemberNotFound)?;
                self.removed.insert(id);
                Ok(())
            }
            MemberChange::Promote(_) => Err(Rejection::MemberNotFound),
        }
    }

    fn add(&mut self, member: &Member) -> Result<(), Rejection> {
        if self.members.contains_key(&member.id.0) {
            return Err(Rejection::MemberExists);
        }
        let learners = self.members.values().filter(|member| member.is_learner).count();
        if member.is_learner && learners >= LEARNERS_MAX {
            return Err(Rejection::TooManyLearners);
        }
        self.members.insert(member.id.0, member.clone());
        Ok(())
    }

    /// The whole state as text.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("revision {} compacted {}\n", self.revision, self.compacted);
        for (key, pair) in &self.pairs {
            let Pair { value, created, modified, version, lease } = pair;
            line(&mut text, key, value, [*created, *modified, *version, *lease]);
        }
        for (id, (ttl, remaining)) in &self.leases {
            put_line(&mut text, format_args!("lease {id} {ttl} {remaining}"));
        }
        for member in self.members.values() {
            put_line(&mut text, format_args!("{member:?}"));
        }
        let learners: Vec<_> =
            self.members.values().filter(|member| member.is_learner).map(|member| member.id.0).collect();
        let voters = [self.founder];
        put_line(&mut text, format_args!("{voters:?} {learners:?} {:?} {:?}", self.removed, self.version));
        text
    }
}

/// The state under test as the same text.
pub(crate) fn render<S: Read>(view: &View<S>, leases: &[LeaseRow], cluster: &Cluster) -> Result<String, String> {
    let everything = Bytes::from_static(b"\0");
    let request = RangeRequest { key: everything.clone(), range_end: everything, ..Default::default() };
    let pairs = view.range(&request).map_err(|error| format!("the state cannot be read: {error}"))?.kvs;
    let mut text = format!("revision {} compacted {}\n", view.revision(), view.compact_revision());
    for pair in &pairs {
        let numbers = [pair.create_revision, pair.mod_revision, pair.version, pair.lease];
        line(&mut text, &pair.key, &pair.value, numbers);
    }
    for lease in leases {
        put_line(&mut text, format_args!("lease {} {} {}", lease.id.0, lease.ttl, lease.remaining));
    }
    for member in cluster.members() {
        put_line(&mut text, format_args!("{member:?}"));
    }
    let removed: BTreeSet<_> = cluster.removed().map(|id| id.0).collect();
    let version = cluster.version().map(|version| version.to_string());
    let (voters, learners) = (&cluster.configuration().voters, &cluster.configuration().learners);
    put_line(&mut text, format_args!("{voters:?} {learners:?} {removed:?} {version:?}"));
    Ok(text)
}

/// The changes that events tell of.
pub(crate) fn changes_of(events: &[Event]) -> Vec<Change> {
    let change = |event: &Event| {
        let pair = event.kv.clone().unwrap_or_default();
        (pair.key, (event.r#type == EventType::Put as i32).then_some(pair.value))
    };
    events.iter().map(change).collect()
}

fn line(text: &mut String, key: &Bytes, value: &Bytes, numbers: [i64; 4]) {
    let (sum, start) = (crc32c::crc32c(value), value.get(..value.len().min(12)).unwrap_or_default());
    put_line(text, format_args!("{key:?} {} {sum:08x} {} {numbers:?}", start.escape_ascii(), value.len()));
}

fn put_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes everything");
}
