//! The key space against a model of it: every version ever written, in maps.
//!
//! The model is slow and plain on purpose: it follows the written rules one by one and shares no code with the store.

use std::{cmp::Ordering, collections::BTreeMap};

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, sample::select};
use prost::Message;

use super::{
    Changes, HistoryLimits, ReadError, Store, check,
    harness::{Member, in_memory, on_disk},
};
use crate::{
    pb::{
        etcdserverpb::{
            Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
            RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
            compare::{CompareResult, CompareTarget, TargetUnion},
            request_op::Request,
            response_op::Response,
        },
        mvccpb::{Event, KeyValue},
    },
    storage::{Engine, MemoryEngine, Read, Table},
    types::{KeyRange, LeaseId, Rejection, Revision},
};

/// Leases that exist.
const LEASES: [i64; 2] = [1, 2];

#[derive(Clone, Default)]
struct Model {
    revision: i64,
    compacted: i64,
    /// Every version ever written; nothing is a tombstone.
    keys: BTreeMap<Bytes, Vec<(Revision, Option<KeyValue>)>>,
    /// The rows that etcd would have after its compactions: tombstone or not, and the pair.
    rows: BTreeMap<Revision, (bool, KeyValue)>,
    /// The events of the request at work.
    events: Vec<Event>,
}

impl Model {
    fn new() -> Self {
        Self { revision: 1, compacted: -1, ..Self::default() }
    }

    fn visible(&self) -> i64 {
        self.revision + i64::from(!self.events.is_empty())
    }

    fn at(&self, key: &[u8], revision: i64) -> Option<KeyValue> {
        let versions = self.keys.get(key)?;
        versions.iter().rev().find(|(at, _)| at.main <= revision)?.1.clone()
    }

    fn living(&self, key: &Bytes, end: &Bytes, revision: i64) -> Vec<KeyValue> {
        let range = KeyRange::new(key.clone(), end);
        let inside = self.keys.keys().filter(|key| range.contains(key));
        inside.filter_map(|key| self.at(key, revision)).collect()
    }

    fn write(&mut self, key: &Bytes, pair: Option<KeyValue>) {
        let main = self.revision + 1;
        let at = Revision { main, sub: self.events.len().try_into().unwrap() };
        let grave = KeyValue { key: key.clone(), ..Default::default() };
        self.rows.insert(at, (pair.is_none(), pair.clone().unwrap_or(grave.clone())));
        let prev_kv = self.at(key, self.revision).filter(|_| !is_created(pair.as_ref()));
        let kv = pair.clone().unwrap_or(KeyValue { mod_revision: main, ..grave });
        self.events.push(Event { r#type: i32::from(pair.is_none()), kv: Some(kv), prev_kv });
        self.keys.entry(key.clone()).or_default().push((at, pair));
    }

    fn end(&mut self) -> Option<Changes> {
        let events = std::mem::take(&mut self.events);
        if events.is_empty() {
            return None;
        }
        self.revision += 1;
        Some(Changes { revision: self.revision, events })
    }

    fn header(&self) -> ResponseHeader {
        ResponseHeader { revision: self.visible(), ..Default::default() }
    }

    fn check_lease(request: &PutRequest) -> Result<(), Rejection> {
        let missing = request.lease != 0 && !LEASES.contains(&request.lease);
        if missing { Err(Rejection::LeaseNotFound) } else { Ok(()) }
    }

    fn check_kept(&self, request: &PutRequest) -> Result<(), Rejection> {
        let missing = (request.ignore_value || request.ignore_lease) && self.at(&request.key, self.revision).is_none();
        if missing { Err(Rejection::KeyNotFound) } else { Ok(()) }
    }

    fn put(&mut self, request: &PutRequest) -> PutResponse {
        let old = self.at(&request.key, self.visible());
        let main = self.revision + 1;
        let mut new = KeyValue {
            key: request.key.clone(),
            create_revision: main,
            mod_revision: main,
            version: 1,
            value: request.value.clone(),
            lease: request.lease,
        };
        if let Some(old) = &old {
            new.create_revision = old.create_revision;
            new.version = old.version + 1;
            if request.ignore_value {
                new.value = old.value.clone();
            }
            if request.ignore_lease {
                new.lease = old.lease;
            }
        }
        self.write(&request.key, Some(new));
        PutResponse { header: Some(self.header()), prev_kv: old.filter(|_| request.prev_kv) }
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let dying = self.living(&request.key, &request.range_end, self.visible());
        for pair in &dying {
            self.write(&pair.key, None);
        }
        let deleted = dying.len().try_into().unwrap();
        DeleteRangeResponse {
            header: Some(self.header()),
            deleted,
            prev_kvs: if request.prev_kv { dying } else { vec![] },
        }
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Rejection> {
        if request.revision > self.visible() {
            return Err(Rejection::FutureRevision);
        }
        let revision = if request.revision <= 0 { self.visible() } else { request.revision };
        if revision < self.compacted {
            return Err(Rejection::Compacted);
        }
        let mut pairs = self.living(&request.key, &request.range_end, revision);
        let mut response =
            RangeResponse { header: Some(self.header()), count: pairs.len().try_into().unwrap(), ..Default::default() };
        if request.count_only {
            return Ok(response);
        }
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let filters = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        let by_default = request.sort_order == 0 || (request.sort_order == 1 && request.sort_target == 0);
        if by_default && filters == [0; 4] {
            pairs.truncate(limit.map_or(usize::MAX, |limit| limit + 1));
        }
        pairs.retain(|pair| {
            (filters[0] == 0 || pair.mod_revision >= filters[0])
                && (filters[1] == 0 || pair.mod_revision <= filters[1])
                && (filters[2] == 0 || pair.create_revision >= filters[2])
                && (filters[3] == 0 || pair.create_revision <= filters[3])
        });
        sort(&mut pairs, request.sort_target, request.sort_order == 2);
        if let Some(limit) = limit.filter(|limit| pairs.len() > *limit) {
            pairs.truncate(limit);
            response.more = true;
        }
        if request.keys_only {
            for pair in &mut pairs {
                pair.value.clear();
                pair.lease = if request.sort_target == 4 { pair.lease } else { 0 };
            }
        }
        response.kvs = pairs;
        Ok(response)
    }

    fn holds(&self, compare: &Compare) -> bool {
        let pairs = self.living(&compare.key, &compare.range_end, self.revision);
        if pairs.is_empty() {
            return compare.target != CompareTarget::Value as i32 && holds_for(compare, &KeyValue::default());
        }
        pairs.iter().all(|pair| holds_for(compare, pair))
    }

    fn choose(&self, request: &TxnRequest, path: &mut Vec<bool>) {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        path.push(succeeded);
        for operation in if succeeded { &request.success } else { &request.failure } {
            if let Some(Request::RequestTxn(nested)) = &operation.request {
                self.choose(nested, path);
            }
        }
    }

    fn check(&self, request: &TxnRequest, path: &mut impl Iterator<Item = bool>) -> Result<(), Rejection> {
        let operations = if path.next().unwrap() { &request.success } else { &request.failure };
        for operation in operations {
            match operation.request.as_ref().unwrap() {
                Request::RequestRange(range) if range.revision > self.revision => {
                    return Err(Rejection::FutureRevision);
                }
                Request::RequestRange(range) if range.revision != 0 && range.revision < self.compacted => {
                    return Err(Rejection::Compacted);
                }
                Request::RequestPut(put) => {
                    Self::check_lease(put)?;
                    self.check_kept(put)?;
                }
                Request::RequestTxn(nested) => self.check(nested, path)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Rejection> {
        let mut path = Vec::new();
        self.choose(request, &mut path);
        self.check(request, &mut path.iter().copied())?;
        let mut response = self.carry_out(request, &mut path.into_iter());
        response.header = Some(self.header());
        Ok(response)
    }

    fn carry_out(&mut self, request: &TxnRequest, path: &mut impl Iterator<Item = bool>) -> TxnResponse {
        let succeeded = path.next().unwrap();
        let mut responses = Vec::new();
        for operation in if succeeded { &request.success } else { &request.failure } {
            let response = match operation.request.as_ref().unwrap() {
                Request::RequestRange(range) => Response::ResponseRange(self.range(range).unwrap()),
                Request::RequestPut(put) => Response::ResponsePut(self.put(put)),
                Request::RequestDeleteRange(delete) => Response::ResponseDeleteRange(self.delete(delete)),
                Request::RequestTxn(nested) => Response::ResponseTxn(self.carry_out(nested, path)),
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses }
    }

    fn compact(&mut self, revision: i64) -> Result<(), Rejection> {
        if revision <= self.compacted {
            return Err(Rejection::Compacted);
        }
        if revision > self.revision {
            return Err(Rejection::FutureRevision);
        }
        self.compacted = revision;
        let newest = self.newest_rows(revision);
        self.rows.retain(|at, (tombstone, pair)| match at.main.cmp(&revision) {
            Ordering::Greater => true,
            Ordering::Equal if *tombstone => true,
            _ => newest[&pair.key] == *at && !*tombstone,
        });
        Ok(())
    }

    /// For each key its newest row up to `revision`.
    fn newest_rows(&self, revision: i64) -> BTreeMap<Bytes, Revision> {
        let until = self.rows.iter().filter(|(at, _)| at.main <= revision);
        until.map(|(at, (_, pair))| (pair.key.clone(), *at)).collect()
    }

    /// As etcd computes it.
    fn hash(&self, revision: i64) -> u32 {
        let mut keep: Vec<_> = self.newest_rows(revision).into_values().collect();
        keep.retain(|at| !self.rows[at].0);
        let mut fed = b"key".to_vec();
        for (at, (tombstone, pair)) in &self.rows {
            let compacted = at.main <= self.compacted;
            if at.main > revision
                || (compacted && !keep.is_empty() && !keep.contains(at))
                || (at.main == self.compacted && *tombstone)
            {
                continue;
            }
            fed.extend(at.main.to_be_bytes());
            fed.push(b'_');
            fed.extend(at.sub.to_be_bytes());
            fed.extend(tombstone.then_some(b't'));
            fed.extend(pair.encode_to_vec());
        }
        crc32c::crc32c(&fed)
    }

    /// All events from `from` on that watchers of the interval see.
    fn history(&self, range: &KeyRange, from: i64) -> Vec<(i64, Event)> {
        let mut events = Vec::new();
        for (at, (tombstone, pair)) in self.rows.range(Revision { main: from, sub: 0 }..) {
            if !range.contains(&pair.key) {
                continue;
            }
            let hidden = at.main <= self.compacted || (!tombstone && is_created(Some(pair)));
            let prev_kv = self.at(&pair.key, at.main - 1).filter(|_| !hidden);
            let kv = if *tombstone { KeyValue { mod_revision: at.main, ..pair.clone() } } else { pair.clone() };
            events.push((at.main, Event { r#type: i32::from(*tombstone), kv: Some(kv), prev_kv }));
        }
        events
    }
}

/// What a put created has no pair before it, even if the same request removed one.
fn is_created(pair: Option<&KeyValue>) -> bool {
    pair.is_some_and(|pair| pair.create_revision == pair.mod_revision)
}

fn sort(pairs: &mut [KeyValue], target: i32, descending: bool) {
    pairs.sort_by(|a, b| {
        let order = match target {
            0 => a.key.cmp(&b.key),
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            _ => a.value.cmp(&b.value),
        };
        if descending { order.reverse() } else { order }
    });
}

fn holds_for(compare: &Compare, pair: &KeyValue) -> bool {
    let operand = match compare.target_union {
        Some(TargetUnion::Version(number)) if compare.target == 0 => number,
        Some(TargetUnion::CreateRevision(number)) if compare.target == 1 => number,
        Some(TargetUnion::ModRevision(number)) if compare.target == 2 => number,
        Some(TargetUnion::Lease(number)) if compare.target == 4 => number,
        _ => 0,
    };
    let value = match &compare.target_union {
        Some(TargetUnion::Value(value)) => value.clone(),
        _ => Bytes::new(),
    };
    let order = match compare.target {
        0 => pair.version.cmp(&operand),
        1 => pair.create_revision.cmp(&operand),
        2 => pair.mod_revision.cmp(&operand),
        3 => pair.value.cmp(&value),
        _ => pair.lease.cmp(&operand),
    };
    match CompareResult::try_from(compare.result).unwrap() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}

/// One thing that happens to both.
#[derive(Clone, Debug)]
enum Step {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Revoke(i64),
    /// So many revisions back from the newest one.
    Compact(i64),
    CompactSomeRows(usize),
    Reopen,
    Look(RangeRequest),
}

/// Keys that sort and escape in every way there is.
fn key() -> impl Strategy<Value = Bytes> {
    let keys: [&[u8]; 12] =
        [b"a", b"a\0", b"a\0b", b"ab", b"b", b"b\x01", b"b\xff", b"c", b"\0", b"\0\xff", b"\xff", b"\xff\xff"];
    select(keys.map(Bytes::from_static).to_vec())
}

fn end() -> impl Strategy<Value = Bytes> {
    prop_oneof![3 => Just(Bytes::new()), 2 => Just(Bytes::from_static(b"\0")), 5 => key()]
}

fn value() -> impl Strategy<Value = Bytes> {
    let letters = select(vec!["", "x", "y", "zz"]).prop_map(Bytes::from);
    prop_oneof![4 => letters, 1 => Just(Bytes::from(vec![b'l'; 150]))]
}

fn put() -> impl Strategy<Value = PutRequest> {
    let flags = (any::<bool>(), proptest::bool::weighted(0.15), proptest::bool::weighted(0.15));
    (key(), value(), select(vec![0, 0, 0, 1, 2, 3]), flags).prop_map(|(key, value, lease, flags)| PutRequest {
        key,
        value: if flags.1 { Bytes::new() } else { value },
        lease: if flags.2 { 0 } else { lease },
        prev_kv: flags.0,
        ignore_value: flags.1,
        ignore_lease: flags.2,
    })
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest { key, range_end, prev_kv })
}

/// A range, its revision to be taken back from the newest one; most are asked at the newest.
fn range() -> impl Strategy<Value = RangeRequest> {
    let sort = (0..3_i32, 0..5_i32, -1..4_i64);
    let filters = (small(), small(), small(), small());
    let flags = (proptest::bool::weighted(0.2), proptest::bool::weighted(0.1));
    (key(), end(), revision(), sort, filters, flags).prop_map(|(key, range_end, revision, sort, filters, flags)| {
        RangeRequest {
            key,
            range_end,
            limit: sort.2,
            revision,
            sort_order: sort.0,
            sort_target: sort.1,
            serializable: false,
            keys_only: flags.0,
            count_only: flags.1,
            min_mod_revision: filters.0,
            max_mod_revision: filters.1,
            min_create_revision: filters.2,
            max_create_revision: filters.3,
        }
    })
}

fn small() -> impl Strategy<Value = i64> {
    prop_oneof![8 => Just(0), 1 => 1..30_i64]
}

fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 5 => 1..40_i64, 1 => Just(-1)]
}

fn compare() -> impl Strategy<Value = Compare> {
    let operand = prop_oneof![
        (0..4_i64).prop_map(TargetUnion::Version),
        (0..20_i64).prop_map(TargetUnion::CreateRevision),
        (0..20_i64).prop_map(TargetUnion::ModRevision),
        value().prop_map(TargetUnion::Value),
        (0..3_i64).prop_map(TargetUnion::Lease),
    ];
    (0..4_i32, 0..5_i32, key(), option::of(operand), end()).prop_map(
        |(result, target, key, target_union, range_end)| Compare { result, target, key, range_end, target_union },
    )
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let operation = prop_oneof![
        3 => range().prop_map(Request::RequestRange),
        3 => put().prop_map(Request::RequestPut),
        2 => delete().prop_map(Request::RequestDeleteRange),
    ];
    let leaf = txn_of(operation.prop_map(|request| RequestOp { request: Some(request) }).boxed());
    leaf.prop_recursive(2, 8, 3, |inner| {
        let nested = inner.prop_map(|txn| RequestOp { request: Some(Request::RequestTxn(txn)) });
        let plain = put().prop_map(|put| RequestOp { request: Some(Request::RequestPut(put)) });
        txn_of(prop_oneof![nested, plain].boxed())
    })
}

fn txn_of(operation: BoxedStrategy<RequestOp>) -> BoxedStrategy<TxnRequest> {
    (vec(compare(), 0..2), vec(operation.clone(), 0..4), vec(operation, 0..3))
        .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
        .boxed()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => put().prop_map(Step::Put),
        3 => delete().prop_map(Step::Delete),
        4 => txn().prop_map(Step::Txn),
        1 => select(LEASES.to_vec()).prop_map(Step::Revoke),
        2 => (-1..12_i64).prop_map(Step::Compact),
        3 => (1..6_usize).prop_map(Step::CompactSomeRows),
        1 => Just(Step::Reopen),
        8 => range().prop_map(Step::Look),
    ]
}

fn rejection<T>(answer: Result<T, ReadError>) -> Result<T, Rejection> {
    answer.map_err(|error| match error {
        ReadError::Rejected(rejection) => rejection,
        ReadError::Storage(error) => panic!("{error}"),
    })
}

/// Does the same to both, and compares what they answer.
fn take(step: Step, member: &mut Member<impl Engine>, model: &mut Model) {
    let leases = |lease: LeaseId| LEASES.contains(&lease.0);
    match step {
        Step::Put(request) => {
            let (answer, changes) = member.change(|change| change.put(&request, &leases));
            let checked = Model::check_lease(&request).and_then(|()| model.check_kept(&request));
            assert_eq!(rejection(answer), checked.map(|()| model.put(&request)));
            assert_eq!(changes, model.end());
        }
        Step::Delete(request) => {
            let (answer, changes) = member.change(|change| change.delete_range(&request));
            assert_eq!(rejection(answer), Ok(model.delete(&request)));
            assert_eq!(changes, model.end());
        }
        Step::Txn(request) if check::check_txn(&request, 128).is_err() => {}
        Step::Txn(request) => take_txn(&request, member, model),
        Step::Revoke(lease) => {
            member.change(|change| change.delete_lease_keys(LeaseId(lease))).0.unwrap();
            let living = model.living(&Bytes::from_static(b"\0"), &Bytes::from_static(b"\0"), model.revision);
            for pair in living.into_iter().filter(|pair| pair.lease == lease) {
                model.write(&pair.key, None);
            }
            model.end();
        }
        Step::Compact(back) => {
            let revision = model.revision - back;
            if let Some(hash) = member.view().hash_kv(revision).ok().filter(|_| revision > 0) {
                assert_eq!(hash.hash, model.hash(revision), "before the compaction at {revision}");
            }
            assert_eq!(rejection(member.schedule(revision)), model.compact(revision));
        }
        Step::CompactSomeRows(rows) => drop(member.compact_step(rows)),
        Step::Reopen => {
            let known = |store: &Store| {
                (store.revision, store.compact_revision(), store.digest, store.counts.total(), store.counts.chunks())
            };
            let before = known(&member.store);
            member.store = Store::open(&member.engine.snapshot()).unwrap();
            assert_eq!(known(&member.store), before);
        }
        Step::Look(request) => look(&request, member, model),
    }
}

fn take_txn(request: &TxnRequest, member: &mut Member<impl Engine>, model: &mut Model) {
    let leases = |lease: LeaseId| LEASES.contains(&lease.0);
    if check::is_read_only(request) {
        assert_eq!(rejection(member.view().read_txn(request)), model.clone().txn(request));
    }
    let (answer, changes) = member.change(|change| change.txn(request, &leases));
    assert_eq!(rejection(answer), model.txn(request));
    assert_eq!(changes, model.end());
}

/// Asks both for one range, the store also in chunks and in a change.
fn look(request: &RangeRequest, member: &mut Member<impl Engine>, model: &Model) {
    let expected = model.range(request);
    let view = member.view();
    assert_eq!(rejection(view.range(request)), expected, "{request:?}");
    assert_eq!(rejection(member.change(|change| change.range(request)).0), expected);
    let Ok(expected) = expected else { return };
    let mut plan = view.plan(request).unwrap();
    let bytes: usize = expected.kvs.iter().map(|pair| prost::encoding::message::encoded_len(2, pair)).sum();
    assert_eq!((plan.kvs(), plan.kvs_bytes()), (expected.kvs.len() as u64, bytes as u64));
    let mut answer = plan.frame().clone();
    loop {
        let chunk = plan.next_chunk(2, 40).unwrap();
        assert!(chunk.len() <= 2);
        if chunk.is_empty() {
            break;
        }
        answer.kvs.extend(chunk);
    }
    assert_eq!(answer, expected);
}

/// Compares everything that can be asked.
fn compare_all(member: &mut Member<impl Engine>, model: &Model) {
    let view = member.view();
    assert_eq!((view.revision(), view.compact_revision()), (model.revision, model.compacted));
    let all = Bytes::from_static(b"\0");
    let ranges = [(all.clone(), all.clone()), ("a".into(), Bytes::new()), ("a\0".into(), "b\u{1}".into())];
    for revision in model.compacted.max(1)..=model.revision {
        assert_eq!(view.hash_kv(revision).unwrap().hash, model.hash(revision), "hash at {revision}");
        for (key, range_end) in ranges.clone() {
            let request = RangeRequest { key, range_end, revision, ..Default::default() };
            look(&request, member, model);
            look(&RangeRequest { count_only: true, ..request }, member, model);
        }
    }
    // At the compacted revision itself rows may or may not be left that the same request replaced.
    for (from, (key, end)) in (model.compacted + 1..=model.revision + 1).zip(ranges.iter().cycle()) {
        let range = KeyRange::new(key.clone(), end);
        assert_eq!(history(member, &range, from), model.history(&range, from), "history from {from}");
    }
    let living = model.living(&all, &all, model.revision);
    for lease in LEASES {
        let attached = living.iter().filter(|pair| pair.lease == lease).map(|pair| pair.key.clone());
        assert_eq!(view.lease_keys(LeaseId(lease)).unwrap(), attached.collect::<Vec<_>>());
    }
    assert_eq!(view.verify().unwrap().keys, living.len() as u64);
    assert_eq!(view.keys(), living.len() as u64);
}

/// The whole history in small pieces.
fn history(member: &Member<impl Engine>, range: &KeyRange, from: i64) -> Vec<(i64, Event)> {
    let view = member.view();
    let limits = HistoryLimits { revisions_max: 2, bytes_max: 60, rows_max: 3, prev_kv: true };
    let mut events = Vec::new();
    let mut next = from;
    while next <= view.revision() {
        let piece = view.history(range, next, limits).unwrap();
        assert!(piece.next > next && piece.revisions.len() <= 2);
        next = piece.next;
        for revision in piece.revisions {
            events.extend(revision.events.into_iter().map(|event| (revision.revision, event)));
        }
    }
    events
}

/// Ends the compaction under way, and looks for rows that should not be there.
fn compact_all(member: &mut Member<impl Engine>, model: &Model) {
    while member.compact_step(2) {}
    let snapshot = member.engine.snapshot();
    let rows = |table| snapshot.rows(table).count();
    assert_eq!(rows(Table::Revision), model.rows.len());
    assert_eq!(rows(Table::Live) + rows(Table::Version), model.rows.len());
    let exported: Vec<_> = member.view().etcd_rows().map(|row| row.unwrap().1).collect();
    let expected: Vec<_> = model.rows.values().map(|(_, pair)| Bytes::from(pair.encode_to_vec())).collect();
    assert_eq!(exported, expected);
}

fn run(member: &mut Member<impl Engine>, steps: Vec<Step>) {
    let mut model = Model::new();
    for step in steps {
        take(step, member, &mut model);
    }
    compare_all(member, &model);
    compact_all(member, &model);
    compare_all(member, &model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn store_in_memory_is_its_model(steps in vec(step(), 1..60)) {
        run(&mut in_memory(), steps);
    }

    #[test]
    fn equal_requests_make_equal_states(steps in vec(step(), 1..40)) {
        let dump = |steps: Vec<Step>| {
            let mut member: Member<MemoryEngine> = in_memory();
            run(&mut member, steps);
            let rows = member.engine.snapshot().scan(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded).map(Result::unwrap).collect::<Vec<_>>();
            (rows, member.view().digest())
        };
        prop_assert_eq!(dump(steps.clone()), dump(steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn store_on_disk_is_its_model(steps in vec(step(), 1..150)) {
        let (_directory, mut member) = on_disk();
        run(&mut member, steps);
    }
}
