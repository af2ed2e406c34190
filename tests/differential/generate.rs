//! The stream of requests: mostly sensible, often at an edge, sometimes wrong.
//!
//! The generator remembers the revision, the compact revision and the leases, so that "a past revision" or "a lease that
//! exists" are choices and not luck. It learns them from etcd's answers alone.

use crate::send::{Outcome, everything};
use crate::support::random::Random;
use bytes::Bytes;
use quorate::pb::etcdserverpb::{
    self as pb, Compare, RequestOp, TxnRequest, compare::TargetUnion, request_op::Request as Sub,
};
use std::collections::BTreeSet;

/// Keys in play; few, so that requests meet.
const KEYS: usize = 96;
/// Lease ids in play.
const LEASES: [i64; 12] = [1, 2, 3, 5, 8, 13, 21, -1, i64::MIN, i64::MAX, 0x7fff_0000, 77];
/// Leases live in steps of this many seconds: the list is ordered by remaining time, and no two must tie by an accident.
const TTL_STEP_SECONDS: i64 = 100_000;
/// The largest request etcd takes unless told otherwise.
const REQUEST_BYTES_MAX: usize = 1_572_864;
/// The largest message etcd reads at all.
const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 512 * 1024;

/// One request of the stream.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Range(pb::RangeRequest),
    RangeStream(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(pb::CompactionRequest),
    /// A put near the size limits and the delete of its key.
    Large(pb::PutRequest),
    HashKv(pb::HashKvRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(pb::LeaseRevokeRequest),
    /// A grant that may not stay, and its revocation.
    GrantAndRevoke(pb::LeaseGrantRequest),
    TimeToLive(pb::LeaseTimeToLiveRequest),
    Leases,
    KeepAlive(pb::LeaseKeepAliveRequest),
    /// A watch of every key from the past up to the revision given.
    History(pb::WatchCreateRequest, i64),
}

impl Op {
    /// What the request is, for the tally.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Range(_) => "range",
            Self::RangeStream(_) => "range stream",
            Self::Put(_) => "put",
            Self::Delete(_) => "delete",
            Self::Txn(_) => "txn",
            Self::Compact(_) => "compact",
            Self::Large(_) => "large put",
            Self::HashKv(_) => "hash",
            Self::Grant(_) => "grant",
            Self::Revoke(_) => "revoke",
            Self::GrantAndRevoke(_) => "grant and revoke",
            Self::TimeToLive(_) => "time to live",
            Self::Leases => "leases",
            Self::KeepAlive(_) => "keepalive",
            Self::History(..) => "history",
        }
    }

    /// The hash of everything up to now.
    pub(crate) fn hash_now() -> Self {
        Self::HashKv(pb::HashKvRequest { revision: 0 })
    }
}

/// The source of requests.
pub(crate) struct Generator {
    random: Random,
    keys: Vec<Bytes>,
    revision: i64,
    compacted: i64,
    leases: BTreeSet<i64>,
}

impl Generator {
    pub(crate) fn new(mut random: Random) -> Self {
        let keys = key_pool(&mut random);
        Self { random, keys, revision: 1, compacted: 0, leases: BTreeSet::new() }
    }

    /// The store's revision after everything learnt.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// Takes what the answer to `op` says about the store.
    pub(crate) fn learn(&mut self, op: &Op, outcome: &Outcome) {
        self.revision = self.revision.max(outcome.revision);
        match op {
            Op::Compact(request) if outcome.accepted => self.compacted = request.revision,
            Op::Grant(request) if outcome.accepted => drop(self.leases.insert(request.id)),
            Op::Revoke(request) => drop(self.leases.remove(&request.id)),
            _ => {}
        }
    }

    pub(crate) fn next_op(&mut self) -> Op {
        match self.random.below(10_000) {
            0..3_200 => Op::Put(self.put()),
            3_200..5_600 => Op::Range(self.range()),
            5_600..6_000 => Op::RangeStream(self.stream()),
            6_000..6_900 => Op::Delete(self.delete()),
            6_900..8_800 => Op::Txn(self.txn(2)),
            8_800..8_870 => Op::Compact(self.compaction()),
            8_870..8_877 => Op::Large(self.large()),
            8_877..8_950 => Op::HashKv(pb::HashKvRequest { revision: self.past() }),
            8_950..8_975 => self.history(),
            8_975..9_250 => Op::Grant(self.grant()),
            9_250..9_300 => Op::GrantAndRevoke(self.brief_grant()),
            9_300..9_480 => Op::Revoke(pb::LeaseRevokeRequest { id: self.lease() }),
            9_480..9_700 => {
                Op::TimeToLive(pb::LeaseTimeToLiveRequest { id: self.lease(), keys: self.random.chance(70) })
            }
            9_700..9_800 => Op::Leases,
            _ => Op::KeepAlive(pb::LeaseKeepAliveRequest { id: self.lease() }),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        let (ignore_value, ignore_lease) = (self.random.chance(6), self.random.chance(6));
        // An ignored field must be empty; one time in eight it is not.
        let value = if ignore_value && !self.random.chance(12) { Bytes::new() } else { self.value() };
        let lease = if ignore_lease && !self.random.chance(12) { 0 } else { self.lease_or_none() };
        pb::PutRequest { key: self.key(), value, lease, prev_kv: self.random.chance(40), ignore_value, ignore_lease }
    }

    fn large(&mut self) -> pb::PutRequest {
        let (limit, distance) =
            (*self.random.pick(&[REQUEST_BYTES_MAX, MESSAGE_BYTES_MAX]), self.random.index(2_000) + 200);
        let size = if self.random.chance(50) { limit + distance } else { limit - distance };
        pb::PutRequest { key: Bytes::from_static(b"large"), value: vec![b'x'; size].into(), ..Default::default() }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.interval();
        pb::RangeRequest {
            key,
            range_end,
            limit: *self.random.pick(&[0, 0, 0, 0, 1, 2, 3, 7, 20, -1, i64::MAX]),
            revision: if self.random.chance(45) { self.past() } else { 0 },
            sort_order: *self.random.pick(&[0, 0, 0, 1, 1, 2, 2, 2, 0, 0, 0, 0, 1, 2, 9]),
            sort_target: *self.random.pick(&[0, 0, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 0, -3]),
            serializable: self.random.chance(30),
            keys_only: self.random.chance(20),
            count_only: self.random.chance(12),
            min_mod_revision: self.filter(),
            max_mod_revision: self.filter(),
            min_create_revision: self.filter(),
            max_create_revision: self.filter(),
        }
    }

    /// Streams refuse sorting and filters, and their own quirk with a sort target alone is not copied.
    fn stream(&mut self) -> pb::RangeRequest {
        let odd = self.random.chance(10);
        let range = self.range();
        if odd {
            return pb::RangeRequest { sort_order: 2, sort_target: range.sort_target.max(0), ..range };
        }
        let (limit, revision) = (range.limit, range.revision);
        let (key, range_end, keys_only, count_only) = (range.key, range.range_end, range.keys_only, range.count_only);
        pb::RangeRequest { key, range_end, limit, revision, keys_only, count_only, ..Default::default() }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let wide = self.random.chance(12);
        let (key, range_end) = if wide { self.interval() } else { (self.key(), Bytes::new()) };
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.random.chance(50) }
    }

    fn txn(&mut self, depth: usize) -> TxnRequest {
        let most = if self.random.chance(1) { 140 } else { 4 };
        let compares_most = if self.random.chance(1) { 140 } else { 4 };
        let compares = self.random.index(compares_most);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.branch(depth, most),
            failure: self.branch(depth, most),
        }
    }

    fn branch(&mut self, depth: usize, most: usize) -> Vec<RequestOp> {
        (0..self.random.index(most)).map(|_| RequestOp { request: self.sub(depth) }).collect()
    }

    fn sub(&mut self, depth: usize) -> Option<Sub> {
        match self.random.below(100) {
            0..40 | 98 => Some(Sub::RequestRange(self.range_inside())),
            40..80 => Some(Sub::RequestPut(self.put())),
            80..90 => Some(Sub::RequestDeleteRange(self.delete())),
            90..98 if depth > 0 => Some(Sub::RequestTxn(self.txn(depth - 1))),
            _ => None,
        }
    }

    /// Most ranges inside a transaction ask for its own view.
    fn range_inside(&mut self) -> pb::RangeRequest {
        let revision = if self.random.chance(10) { self.past() } else { 0 };
        pb::RangeRequest { revision, ..self.range() }
    }

    fn compare(&mut self) -> Compare {
        let (key, range_end) = if self.random.chance(25) { self.interval() } else { (self.key(), Bytes::new()) };
        let number = match self.random.below(4) {
            0 => 0,
            1 => self.random.between(1, 4),
            _ => self.random.between(self.compacted, self.revision),
        };
        let target_union = match self.random.below(11) {
            0 | 1 => Some(TargetUnion::Version(number)),
            2 | 3 => Some(TargetUnion::CreateRevision(number)),
            4 | 5 => Some(TargetUnion::ModRevision(number)),
            6 | 7 => Some(TargetUnion::Value(self.value())),
            8 | 9 => Some(TargetUnion::Lease(self.lease_or_none())),
            _ => None,
        };
        // Target and operand usually agree; a stray operand counts as zero.
        let target = match &target_union {
            Some(TargetUnion::Version(_)) => 0,
            Some(TargetUnion::CreateRevision(_)) | None => 1,
            Some(TargetUnion::ModRevision(_)) => 2,
            Some(TargetUnion::Value(_)) => 3,
            Some(TargetUnion::Lease(_)) => 4,
        };
        let target = if self.random.chance(5) { i32::try_from(self.random.below(5)).unwrap_or(0) } else { target };
        Compare { result: i32::try_from(self.random.below(4)).unwrap_or(0), target, key, range_end, target_union }
    }

    fn compaction(&mut self) -> pb::CompactionRequest {
        let revision = match self.random.below(10) {
            0 => self.compacted,
            1 => self.compacted - 1,
            2 => self.revision + self.random.between(1, 3),
            3 => self.revision,
            4 => self.random.between(-2, 1),
            _ => self.random.between(self.compacted + 1, self.revision),
        };
        pb::CompactionRequest { revision, physical: self.random.chance(70) }
    }

    /// A watch from some past revision. Its end is known when the newest revision is not compacted.
    fn history(&mut self) -> Op {
        let start_revision = match self.random.below(6) {
            0 => self.random.between(1, self.compacted.max(1)),
            _ => self.random.between(self.compacted + 1, self.revision),
        };
        let create = pb::WatchCreateRequest { start_revision, prev_kv: self.random.chance(50), ..everything() };
        let awaited = if self.compacted < self.revision { self.revision } else { 0 };
        Op::History(create, if self.revision > 1 { awaited } else { 0 })
    }

    fn grant(&mut self) -> pb::LeaseGrantRequest {
        let steps = self.random.between(1, 80_000);
        let ttl =
            if self.random.chance(4) { 9_000_000_000 + self.random.between(0, 2) } else { steps * TTL_STEP_SECONDS };
        pb::LeaseGrantRequest { ttl, id: *self.random.pick(&LEASES) }
    }

    fn brief_grant(&mut self) -> pb::LeaseGrantRequest {
        pb::LeaseGrantRequest { ttl: *self.random.pick(&[-5, 0, 1, 2, 3, 60]), id: *self.random.pick(&[0, 1_000_001]) }
    }

    /// A lease, most often one that exists.
    fn lease(&mut self) -> i64 {
        let known: Vec<_> = self.leases.iter().copied().collect();
        if known.is_empty() || self.random.chance(25) { *self.random.pick(&LEASES) } else { *self.random.pick(&known) }
    }

    fn lease_or_none(&mut self) -> i64 {
        match self.random.below(100) {
            0..65 => 0,
            65..67 => 424_242,
            _ if self.leases.is_empty() => 0,
            _ => {
                let known: Vec<_> = self.leases.iter().copied().collect();
                *self.random.pick(&known)
            }
        }
    }

    /// A revision worth asking for: mostly readable ones, with all the edges.
    fn past(&mut self) -> i64 {
        match self.random.below(20) {
            0 => self.revision + self.random.between(1, 5),
            1 => self.compacted - self.random.between(1, 5),
            2 => self.compacted,
            3 => self.compacted + 1,
            4 => self.revision,
            5 => self.revision - 1,
            6 => *self.random.pick(&[-1, 1, i64::MIN, i64::MAX, 0]),
            _ => self.random.between(self.compacted, self.revision),
        }
    }

    /// A bound on a revision; usually none.
    fn filter(&mut self) -> i64 {
        match self.random.below(100) {
            0..90 => 0,
            90..99 => self.random.between(1, self.revision),
            _ => -1,
        }
    }

    fn key(&mut self) -> Bytes {
        match self.random.below(200) {
            0 => Bytes::new(),
            1 | 2 => {
                let length = self.random.index(64) + 1;
                self.random.bytes(length).into()
            }
            _ => self.random.pick(&self.keys).clone(),
        }
    }

    fn value(&mut self) -> Bytes {
        match self.random.below(100) {
            0..5 => Bytes::new(),
            5..60 => Bytes::from(format!("v{}", self.random.below(20))),
            60..97 => {
                let length = self.random.index(200);
                self.random.bytes(length).into()
            }
            _ => {
                let length = self.random.index(6_000);
                self.random.bytes(length).into()
            }
        }
    }

    fn interval(&mut self) -> (Bytes, Bytes) {
        let key = self.key();
        let end = match self.random.below(20) {
            0..5 => Bytes::new(),
            5..10 => prefix_end(&key),
            10..16 => self.key(),
            16 => return (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            17 => Bytes::from_static(b"\0"),
            18 => key.clone(),
            _ => return (Bytes::new(), Bytes::from_static(b"\0")),
        };
        (key, end)
    }
}

/// The end of the interval of keys that begin with `prefix`; `\0`, no end, if there is none.
fn prefix_end(prefix: &Bytes) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

/// Keys with everything that can go wrong in an ordering: prefixes of each other, zero and 0xff bytes, long runs.
fn key_pool(random: &mut Random) -> Vec<Bytes> {
    let fixed: [&[u8]; 18] = [
        b"\0",
        b"\0\0",
        b"\0\x01",
        b"\xff",
        b"\xff\xff",
        b"\xff\0",
        b"a",
        b"a\0",
        b"a\0\0",
        b"a\0\x01",
        b"a\x01",
        b"a\xff",
        b"a\xff\xff",
        b"aa",
        b"ab",
        b"b",
        b"/",
        b"/a/",
    ];
    let mut keys: Vec<Bytes> = fixed.iter().map(|key| Bytes::copy_from_slice(key)).collect();
    keys.extend((0..30).map(|n| Bytes::from(format!("/registry/pods/default/pod-{n:03}"))));
    while keys.len() < KEYS {
        let length = *random.pick(&[1, 2, 3, 8, 31, 32, 33, 200]);
        let alphabet: &[u8] = if random.chance(50) { b"\0\x01\xfe\xff" } else { b"abc/" };
        keys.push((0..length).map(|_| *random.pick(alphabet)).collect());
    }
    keys.push(vec![0; 2_000].into());
    keys.push(vec![b'k'; 10_000].into());
    keys
}
