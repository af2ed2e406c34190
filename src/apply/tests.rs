//! The applier on the memory engine: one rule per test, then grouping and restart against a straight run.

use std::ops::Bound;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{
    disk::{Directory, MemoryDirectory, MemoryFile},
    etcdfile::{bbolt, database},
    membership::{Attributes, Founding, Member, MemberChange, Version},
    pb::{
        etcdserverpb::{
            self as pb, InternalRaftRequest, RequestHeader, RequestOp, ResponseOp, request_op::Request as Op,
            response_op::Response as OpResponse,
        },
        membershippb,
        raftpb::{ConfState, Entry, EntryType},
    },
    storage::{Engine, MemoryEngine, Read, Table, Writes},
    types::ClusterId,
};

const OPTIONS: ApplyOptions = ApplyOptions::new(MemberId(1), Version::minor(3, 7));

/// An applier and the log it is fed.
struct World {
    applier: Applier<MemoryEngine>,
    log: Vec<Entry>,
}

impl World {
    fn new() -> Self {
        Self::with(OPTIONS)
    }

    fn with(options: ApplyOptions) -> Self {
        Self { applier: Applier::open(MemoryEngine::new(), options).unwrap(), log: Vec::new() }
    }

    fn entry(&mut self, data: impl Into<Bytes>, kind: EntryType) -> Entry {
        let index = self.log.len() as u64 + 1;
        let entry = Entry { r#type: kind.into(), term: 3, index, data: data.into() };
        self.log.push(entry.clone());
        entry
    }

    fn apply(&mut self, data: impl Into<Bytes>, kind: EntryType) -> Applied {
        let entry = self.entry(data, kind);
        let mut applied = self.applier.apply(&[entry]).unwrap();
        assert_eq!(applied.len(), 1);
        applied.remove(0)
    }

    fn request(&mut self, request: &InternalRaftRequest) -> Applied {
        self.apply(request.encode_to_vec(), EntryType::EntryNormal)
    }

    fn change(&mut self, change: &MemberChange) -> Applied {
        self.apply(change.encode(RequestId(5)).encode_to_vec(), EntryType::EntryConfChange)
    }

    fn fails_with(&mut self, request: &InternalRaftRequest) -> String {
        let entry = self.entry(request.encode_to_vec(), EntryType::EntryNormal);
        let error = self.applier.apply(&[entry]).unwrap_err();
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        format!("{error}{cause}")
    }

    fn get(&self, key: &str) -> Option<String> {
        let range = pb::RangeRequest { key: bytes(key), ..Default::default() };
        let kvs = self.applier.published().view.range(&range).unwrap().kvs;
        kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
    }

    fn rows(&self, table: Table) -> Vec<(Bytes, Bytes)> {
        self.applier.engine().snapshot().rows(table).collect::<Result<_, _>>().unwrap()
    }

    fn revision(&self) -> i64 {
        self.applier.published().view.revision()
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn with_id(request: InternalRaftRequest) -> InternalRaftRequest {
    InternalRaftRequest { header: Some(RequestHeader { id: 7, ..Default::default() }), ..request }
}

fn put_request(key: &str, value: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), lease, ..Default::default() }
}

fn put(key: &str, value: &str) -> InternalRaftRequest {
    put_leased(key, value, 0)
}

fn put_leased(key: &str, value: &str, lease: i64) -> InternalRaftRequest {
    with_id(InternalRaftRequest { put: Some(put_request(key, value, lease)), ..Default::default() })
}

fn delete(key: &str, range_end: &str) -> InternalRaftRequest {
    let delete = pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false };
    with_id(InternalRaftRequest { delete_range: Some(delete), ..Default::default() })
}

fn txn(success: Vec<Op>) -> InternalRaftRequest {
    let success = success.into_iter().map(|op| RequestOp { request: Some(op) }).collect();
    let txn = pb::TxnRequest { success, ..Default::default() };
    with_id(InternalRaftRequest { txn: Some(txn), ..Default::default() })
}

fn compact(revision: i64) -> InternalRaftRequest {
    let compaction = pb::CompactionRequest { revision, physical: false };
    with_id(InternalRaftRequest { compaction: Some(compaction), ..Default::default() })
}

fn grant(id: i64, ttl: i64) -> InternalRaftRequest {
    with_id(InternalRaftRequest { lease_grant: Some(pb::LeaseGrantRequest { ttl, id }), ..Default::default() })
}

fn revoke(id: i64) -> InternalRaftRequest {
    with_id(InternalRaftRequest { lease_revoke: Some(pb::LeaseRevokeRequest { id }), ..Default::default() })
}

fn checkpoint(id: i64, remaining_ttl: i64) -> InternalRaftRequest {
    let checkpoints = vec![pb::LeaseCheckpoint { id, remaining_ttl }];
    let request = pb::LeaseCheckpointRequest { checkpoints };
    with_id(InternalRaftRequest { lease_checkpoint: Some(request), ..Default::default() })
}

fn alarm(action: i32, member_id: u64, alarm: i32) -> InternalRaftRequest {
    let request = pb::AlarmRequest { action, member_id, alarm };
    with_id(InternalRaftRequest { alarm: Some(request), ..Default::default() })
}

fn cluster_version(version: &str) -> InternalRaftRequest {
    let set = membershippb::ClusterVersionSetRequest { ver: version.to_owned() };
    with_id(InternalRaftRequest { cluster_version_set: Some(set), ..Default::default() })
}

fn attributes(member_id: u64, name: &str) -> InternalRaftRequest {
    let member_attributes = Some(membershippb::Attributes { name: name.to_owned(), client_urls: vec![] });
    let set = membershippb::ClusterMemberAttrSetRequest { member_id, member_attributes };
    with_id(InternalRaftRequest { cluster_member_attr_set: Some(set), ..Default::default() })
}

fn downgrade(enabled: bool, version: &str) -> InternalRaftRequest {
    let set = membershippb::DowngradeInfoSetRequest { enabled, ver: version.to_owned() };
    with_id(InternalRaftRequest { downgrade_info_set: Some(set), ..Default::default() })
}

fn member(id: u64, is_learner: bool) -> Member {
    Member { id: MemberId(id), peer_urls: vec![format!("http://h{id}:1")], is_learner, ..Member::default() }
}

const GET: i32 = 0;
const ACTIVATE: i32 = 1;
const DEACTIVATE: i32 = 2;
const NOSPACE: i32 = 1;
const CORRUPT: i32 = 2;

#[test]
fn every_entry_moves_index_and_term_even_without_effect() {
    let mut world = World::new();
    let applied = world.apply("", EntryType::EntryNormal);
    assert_eq!((applied.index, applied.term, applied.request), (LogIndex(1), Term(3), None));
    assert_eq!(applied.outcome, Ok(Response::NewLeader));
    assert_eq!(world.request(&revoke(9)).outcome, Err(Rejection::LeaseNotFound));
    let published = world.applier.published();
    assert_eq!((published.applied, published.term), (LogIndex(2), Term(3)));
    let proof = Proof::of(world.log.last().unwrap());
    let position = Position { index: LogIndex(2), term: Term(3), revision: 1, proof };
    assert_eq!(super::position(&world.applier.engine().snapshot()).unwrap(), position);
}

/// Rows of one moment beside a position of another, as damage once left them, led the log to be applied twice.
#[test]
fn rows_that_are_not_of_the_positions_moment_are_refused() {
    let mut world = World::new();
    world.request(&put("a", "1"));
    let engine = world.applier.engine().clone();
    let position = engine.snapshot().row(Table::Meta, b"position").unwrap().unwrap();
    world.request(&put("a", "2"));
    Applier::open(engine.clone(), OPTIONS).unwrap();
    let mut writes = Writes::default();
    writes.put_row(Table::Meta, b"position", position);
    engine.commit(writes).unwrap();
    let refused = Applier::open(engine, OPTIONS).unwrap_err();
    let ApplyError::Open(OpenError::Torn { index: LogIndex(1), recorded: 2, found: 3 }) = refused else {
        panic!("{refused}")
    };
}

#[test]
fn applied_entries_are_passed_over_and_gaps_are_errors() {
    let mut world = World::new();
    world.request(&put("a", "1"));
    let (first, second) = (world.log[0].clone(), world.entry(put("a", "2").encode_to_vec(), EntryType::EntryNormal));
    let applied = world.applier.apply(&[first.clone(), second]).unwrap();
    assert_eq!(applied.iter().map(|applied| applied.index).collect::<Vec<_>>(), [LogIndex(2)]);
    assert!(world.applier.apply(&[first]).unwrap().is_empty());
    assert_eq!(world.get("a").unwrap(), "2");
    world.entry("", EntryType::EntryNormal);
    let fourth = world.entry("", EntryType::EntryNormal);
    let gap = world.applier.apply(&[fourth]).unwrap_err();
    assert!(matches!(gap, ApplyError::Gap { index: LogIndex(4), applied: LogIndex(2) }));
    assert!(matches!(world.applier.compact_some(1), Err(ApplyError::Failed)));
}

#[test]
fn entries_of_one_call_see_each_other() {
    let mut world = World::new();
    let entries = [grant(4, 60), put_leased("a", "1", 4), put("b", "2"), delete("a", "z")];
    let entries: Vec<Entry> =
        entries.iter().map(|request| world.entry(request.encode_to_vec(), EntryType::EntryNormal)).collect();
    let applied = world.applier.apply(&entries).unwrap();
    let Ok(Response::DeleteRange(deleted)) = &applied[3].outcome else { panic!("a delete expected") };
    assert_eq!((deleted.deleted, world.revision()), (2, 4));
    let revisions: Vec<_> =
        applied.iter().map(|applied| applied.changes.as_ref().map(|changes| changes.revision)).collect();
    assert_eq!(revisions, [None, Some(2), Some(3), Some(4)]);
    assert!(applied.iter().all(|applied| applied.request == Some(RequestId(7))));
}

#[test]
fn put_answers_with_its_revision() {
    let mut world = World::new();
    let applied = world.request(&put("a", "1"));
    let Ok(Response::Put(response)) = applied.outcome else { panic!("a put expected") };
    assert_eq!(response.header.unwrap().revision, 2);
    let events = &applied.changes.unwrap().events;
    assert_eq!((events.len(), events[0].kv.as_ref().unwrap().mod_revision), (1, 2));
}

#[test]
fn refused_transaction_leaves_no_row() {
    let mut world = World::new();
    let refused =
        world.request(&txn(vec![Op::RequestPut(put_request("a", "1", 0)), Op::RequestPut(put_request("b", "1", 99))]));
    assert_eq!(refused.outcome, Err(Rejection::LeaseNotFound));
    assert!(refused.changes.is_none());
    assert_eq!((world.get("a"), world.revision()), (None, 1));
    let range = pb::RangeRequest { key: bytes("a"), revision: 9, ..Default::default() };
    let future = world.request(&txn(vec![Op::RequestPut(put_request("a", "1", 0)), Op::RequestRange(range)]));
    assert_eq!(future.outcome, Err(Rejection::FutureRevision));
    assert_eq!(world.revision(), 1);
}

#[test]
fn transaction_reads_its_own_writes() {
    let mut world = World::new();
    let range = pb::RangeRequest { key: bytes("a"), ..Default::default() };
    let applied = world.request(&txn(vec![Op::RequestPut(put_request("a", "1", 0)), Op::RequestRange(range)]));
    let Ok(Response::Txn(response)) = applied.outcome else { panic!("a transaction expected") };
    let [_, ResponseOp { response: Some(OpResponse::ResponseRange(range)) }] = &response.responses[..] else {
        panic!("a range expected")
    };
    assert_eq!((response.header.unwrap().revision, range.kvs.len()), (2, 1));
}

#[test]
fn grant_raises_the_ttl_to_the_minimum_and_refuses_bad_ones() {
    let mut world = World::new();
    let applied = world.request(&grant(-4, 1));
    assert_eq!(applied.effects, [Effect::LeaseGranted { id: LeaseId(-4), ttl: 2 }]);
    let Ok(Response::LeaseGrant(response)) = applied.outcome else { panic!("a grant expected") };
    assert_eq!((response.id, response.ttl, response.header.unwrap().revision), (-4, 2, 1));
    assert_eq!(world.request(&grant(-4, 9)).outcome, Err(Rejection::LeaseExists));
    assert_eq!(world.request(&grant(0, 9)).outcome, Err(Rejection::LeaseNotFound));
    assert_eq!(world.request(&grant(1, 9_000_000_001)).outcome, Err(Rejection::LeaseTtlTooLarge));
    assert_eq!(world.applier.leases().unwrap(), [crate::lease::LeaseRow { id: LeaseId(-4), ttl: 2, remaining: 0 }]);
}

#[test]
fn revocation_deletes_attached_keys_in_order_under_one_revision() {
    let mut world = World::new();
    world.request(&grant(4, 60));
    for key in ["c", "a", "b"] {
        world.request(&put_leased(key, "1", 4));
    }
    world.request(&put("b", "detached"));
    let applied = world.request(&revoke(4));
    let changes = applied.changes.unwrap();
    let keys: Vec<_> = changes.events.iter().map(|event| event.kv.as_ref().unwrap().key.clone()).collect();
    assert_eq!((changes.revision, keys), (6, vec![bytes("a"), bytes("c")]));
    assert_eq!(applied.effects, [Effect::LeaseRevoked(LeaseId(4))]);
    assert!(matches!(applied.outcome, Ok(Response::LeaseRevoke(response)) if response.header.unwrap().revision == 6));
    assert!(world.rows(Table::Lease).is_empty() && world.rows(Table::LeaseKey).is_empty());
    assert_eq!(world.request(&put_leased("d", "1", 4)).outcome, Err(Rejection::LeaseNotFound));
}

#[test]
fn revocation_without_keys_makes_no_revision() {
    let mut world = World::new();
    world.request(&grant(4, 60));
    let applied = world.request(&revoke(4));
    assert!(applied.changes.is_none() && applied.outcome.is_ok());
    assert_eq!(world.revision(), 1);
}

#[test]
fn checkpoints_are_stored_from_cluster_version_3_6_on() {
    let mut world = World::new();
    world.request(&grant(4, 600));
    let applied = world.request(&checkpoint(4, 30));
    assert_eq!(applied.effects, [Effect::LeaseCheckpointed { id: LeaseId(4), remaining: 30 }]);
    assert_eq!(world.applier.leases().unwrap()[0].remaining, 0);
    world.request(&cluster_version("3.6.0"));
    world.request(&checkpoint(4, 30));
    assert_eq!(world.applier.leases().unwrap()[0].remaining, 30);
    assert!(world.request(&checkpoint(5, 30)).effects.is_empty(), "an unknown lease is skipped");
}

fn alarms_of(applied: Applied) -> Vec<(u64, i32)> {
    let Ok(Response::Alarm(response)) = applied.outcome else { panic!("alarms expected") };
    response.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect()
}

#[test]
fn alarms_are_raised_listed_and_cleared_idempotently() {
    let mut world = World::new();
    assert_eq!(alarms_of(world.request(&alarm(ACTIVATE, 5, NOSPACE))), [(5, NOSPACE)]);
    let again = world.request(&alarm(ACTIVATE, 5, NOSPACE));
    assert!(again.effects.is_empty());
    assert_eq!(alarms_of(again), [(5, NOSPACE)]);
    world.request(&alarm(ACTIVATE, 0, CORRUPT));
    assert_eq!(alarms_of(world.request(&alarm(GET, 9, 0))), [(5, NOSPACE), (0, CORRUPT)]);
    assert_eq!(alarms_of(world.request(&alarm(GET, 9, CORRUPT))), [(0, CORRUPT)]);
    assert!(alarms_of(world.request(&alarm(ACTIVATE, 5, 0))).is_empty());
    assert!(alarms_of(world.request(&alarm(DEACTIVATE, 6, NOSPACE))).is_empty());
    let cleared = world.request(&alarm(DEACTIVATE, 5, NOSPACE));
    assert_eq!(cleared.effects, [Effect::AlarmsChanged]);
    assert_eq!(alarms_of(cleared), [(5, NOSPACE)]);
    assert_eq!(world.rows(Table::Alarm).iter().map(|row| row.0.clone()).collect::<Vec<_>>(), [b"\x10\x02".as_slice()]);
    assert_eq!(world.request(&alarm(7, 5, NOSPACE)).outcome, Err(Rejection::UnknownAlarmAction));
    assert!(world.applier.published().alarms.is_raised(AlarmKind::Corrupt));
}

#[test]
fn corrupt_alarm_refuses_everything_that_trusts_the_data_before_no_space() {
    let mut world = World::new();
    world.request(&alarm(ACTIVATE, 5, NOSPACE));
    world.request(&alarm(ACTIVATE, 5, CORRUPT));
    let range = InternalRaftRequest {
        range: Some(pb::RangeRequest { key: bytes("a"), ..Default::default() }),
        ..Default::default()
    };
    for request in [put("a", "1"), delete("a", ""), txn(vec![]), compact(1), grant(1, 1), revoke(1), range] {
        assert_eq!(world.request(&request).outcome, Err(Rejection::Corrupt), "{request:?}");
    }
    assert!(world.request(&checkpoint(1, 1)).outcome.is_ok());
    assert!(world.request(&alarm(GET, 0, 0)).outcome.is_ok());
}

#[test]
fn no_space_alarm_refuses_what_costs() {
    let mut world = World::new();
    world.request(&put("a", "1"));
    world.request(&grant(3, 60));
    world.request(&alarm(ACTIVATE, 5, NOSPACE));
    let writing = txn(vec![Op::RequestPut(put_request("a", "1", 0))]);
    for request in [put("a", "1"), grant(1, 1), writing] {
        assert_eq!(world.request(&request).outcome, Err(Rejection::NoSpace), "{request:?}");
    }
    for request in [delete("a", ""), txn(vec![]), compact(2), revoke(3)] {
        assert!(world.request(&request).outcome.is_ok(), "{request:?}");
    }
}

#[test]
fn write_over_quota_is_done_but_answered_with_no_space() {
    let mut world = World::with(ApplyOptions { quota_bytes: Some(1_000), ..OPTIONS });
    world.applier.observe_disk(742);
    assert!(world.request(&put("a", "")).outcome.is_ok());
    world.applier.observe_disk(743);
    let over = world.request(&put("a", ""));
    assert_eq!((over.outcome, over.effects), (Err(Rejection::NoSpace), vec![Effect::QuotaExceeded]));
    assert!(over.changes.is_some());
    assert_eq!(world.revision(), 3);
    assert!(world.request(&delete("a", "")).outcome.is_ok());
}

#[test]
fn compaction_is_accepted_at_once_and_carried_out_in_steps() {
    let mut world = World::new();
    for number in 0..20 {
        world.request(&put("a", &number.to_string()));
    }
    assert_eq!(world.applier.compact_some(5).unwrap(), CompactionProgress::Idle);
    assert_eq!(world.request(&compact(99)).outcome, Err(Rejection::FutureRevision));
    let accepted = world.request(&compact(15));
    assert_eq!(accepted.effects, [Effect::CompactionRequested { revision: 15 }]);
    assert!(matches!(accepted.outcome, Ok(Response::Compaction(response)) if response.header.unwrap().revision == 21));
    assert_eq!(world.request(&compact(15)).outcome, Err(Rejection::Compacted));
    let before = world.rows(Table::Revision).len();
    let mut steps = 0;
    let finished = loop {
        steps += 1;
        match world.applier.compact_some(5).unwrap() {
            CompactionProgress::Working => {}
            progress => break progress,
        }
    };
    assert_eq!(finished, CompactionProgress::Finished(15));
    assert!(steps >= 3, "{steps} steps");
    assert!(world.rows(Table::Revision).len() < before);
    assert_eq!(world.applier.compact_some(5).unwrap(), CompactionProgress::Idle);
    assert_eq!(world.get("a").unwrap(), "19");
}

#[test]
fn accepted_change_reaches_rows_raft_and_answer() {
    let mut world = World::new();
    let applied = world.change(&MemberChange::add(member(1, false)));
    assert_eq!(applied.request, Some(RequestId(5)));
    let told = MemberChange::add(member(1, false)).for_raft();
    assert_eq!(applied.effects, [Effect::ConfChange(told), Effect::MembersChanged]);
    let Ok(Response::Members(cluster)) = applied.outcome else { panic!("members expected") };
    assert_eq!(cluster.members().len(), 1);
    world.change(&MemberChange::add(member(2, true)));
    world.change(&MemberChange::Promote(MemberId(2)));
    assert_eq!(world.applier.published().cluster.configuration().voters, [1, 2]);
    let rows = world.rows(Table::Member);
    assert_eq!(rows[1], (bytes("2"), bytes(r#"{"id":2,"peerURLs":["http://h2:1"]}"#)));
    world.change(&MemberChange::Remove(MemberId(2)));
    assert_eq!(world.rows(Table::Member).len(), 1);
    assert_eq!(world.rows(Table::Removed), [(bytes("2"), bytes("removed"))]);
    let stored = world.rows(Table::Meta).into_iter().find(|(key, _)| key == "confState").unwrap().1;
    assert_eq!(stored, r#"{"voters":[1],"auto_leave":false}"#);
}

#[test]
fn refused_change_is_told_to_raft_and_alters_nothing() {
    let mut world = World::new();
    world.change(&MemberChange::add(member(1, false)));
    let before = world.applier.published().cluster;
    let refused = world.change(&MemberChange::Promote(MemberId(1)));
    assert_eq!((refused.outcome, refused.effects), (Err(Rejection::NotLearner), vec![Effect::ConfChange(None)]));
    assert_eq!(world.applier.published().cluster, before);
}

#[test]
fn member_that_removes_itself_is_told() {
    let mut world = World::new();
    world.change(&MemberChange::add(member(1, false)));
    let applied = world.change(&MemberChange::Remove(MemberId(1)));
    assert_eq!(applied.effects.last(), Some(&Effect::RemovedSelf(MemberId(1))));
}

#[test]
fn attributes_are_published_for_members_only() {
    let mut world = World::new();
    world.change(&MemberChange::add(member(1, false)));
    assert_eq!(world.request(&attributes(1, "one")).effects, [Effect::MembersChanged]);
    let published = world.applier.published().cluster;
    assert_eq!(
        published.member(MemberId(1)).unwrap().attributes,
        Attributes { name: "one".into(), client_urls: vec![] }
    );
    assert_eq!(world.request(&attributes(9, "x")).outcome, Err(Rejection::MemberNotFound));
    world.change(&MemberChange::Remove(MemberId(1)));
    let late = world.request(&attributes(1, "x"));
    assert_eq!((late.outcome, late.effects), (Ok(Response::Done), vec![]));
}

#[test]
fn cluster_version_rises_and_may_be_lowered() {
    let mut world = World::new();
    let raised = world.request(&cluster_version("3.7.0"));
    assert_eq!(raised.effects, [Effect::ClusterVersionChanged { lowered: false }]);
    assert_eq!(world.request(&downgrade(true, "3.6.0")).effects, [Effect::DowngradeChanged]);
    let lowered = world.request(&cluster_version("3.6.0"));
    assert_eq!(lowered.effects, [Effect::ClusterVersionChanged { lowered: true }]);
    let cluster = world.applier.published().cluster;
    assert_eq!(
        (cluster.version(), cluster.downgrade().target),
        (Some(Version::minor(3, 6)), Some(Version::minor(3, 6)))
    );
    let downgrade_row = r#"{"target-version":"3.6.0","enabled":true}"#;
    let rows = [(bytes("clusterVersion"), bytes("3.6.0")), (bytes("downgrade"), bytes(downgrade_row))];
    assert_eq!(world.rows(Table::Cluster), rows);
    world.request(&downgrade(false, ""));
    assert_eq!(world.applier.published().cluster.downgrade().target, None);
}

#[test]
fn higher_cluster_version_stops_the_member() {
    let mut world = World::new();
    let text = world.fails_with(&cluster_version("3.8.0"));
    assert_eq!(
        text,
        "entry 1 raises the cluster version to 3.8.0, but this member speaks 3.7.0; start it with a newer version"
    );
    assert!(world.rows(Table::Meta).is_empty(), "nothing of the entry is written");
}

fn user_add(name: &str) -> InternalRaftRequest {
    let add =
        pb::AuthUserAddRequest { name: name.to_owned(), hashed_password: "eA==".to_owned(), ..Default::default() };
    InternalRaftRequest { auth_user_add: Some(add), ..Default::default() }
}

#[test]
fn users_are_kept_and_told_and_nobody_is_authenticated() {
    let mut world = World::new();
    let before = world.applier.published().digest;
    let added = world.request(&user_add("u"));
    assert_eq!((added.outcome, added.operation), (Ok(Response::AuthChanged), Some("AuthUserAdd")));
    assert_eq!(world.request(&user_add("u")).outcome, Err(Rejection::UserExists));
    assert_ne!(world.applier.published().digest, before);
    assert_eq!(world.rows(Table::AuthUser), [(bytes("u"), bytes("\n\x01u\x12\x01x\x22\0"))]);
    assert_eq!(world.rows(Table::Auth), [(bytes("authRevision"), bytes("\0\0\0\0\0\0\0\x02"))]);

    let status = InternalRaftRequest { auth_status: Some(pb::AuthStatusRequest::default()), ..Default::default() };
    let Ok(Response::AuthStatus(status)) = world.request(&status).outcome else { panic!("a status expected") };
    assert_eq!((status.enabled, status.auth_revision), (false, 2));
    let get = |name: &str| {
        let get = pb::AuthUserGetRequest { name: name.to_owned() };
        InternalRaftRequest { auth_user_get: Some(get), ..Default::default() }
    };
    assert!(matches!(world.request(&get("u")).outcome, Ok(Response::AuthUserGet(_))));
    assert_eq!(world.request(&get("v")).outcome, Err(Rejection::UserNotFound));
    let login = pb::InternalAuthenticateRequest::default();
    let login = InternalRaftRequest { authenticate: Some(login), ..Default::default() };
    assert_eq!(world.request(&login).outcome, Err(Rejection::AuthNotEnabled));
    let again = reopen(world.applier.engine()).unwrap().published().auth;
    assert_eq!((again.user_names(), again.revision()), (vec!["u".to_owned()], 2));
}

/// A world in which requests are checked, and `u` is a user beside root.
fn checked_world() -> World {
    let mut world = World::new();
    let options = Some(crate::pb::authpb::UserAddOptions { no_password: false });
    let add = |name: &str| {
        let user = pb::AuthUserAddRequest { name: name.to_owned(), options, ..Default::default() };
        InternalRaftRequest { auth_user_add: Some(user), ..Default::default() }
    };
    let (user, role) = ("root".to_owned(), "root".to_owned());
    let grant = pb::AuthUserGrantRoleRequest { user, role };
    let grant = InternalRaftRequest { auth_user_grant_role: Some(grant), ..Default::default() };
    let enable = InternalRaftRequest { auth_enable: Some(pb::AuthEnableRequest {}), ..Default::default() };
    for request in [add("root"), add("u"), grant, enable] {
        assert_eq!(world.request(&request).outcome, Ok(Response::AuthChanged));
    }
    world
}

fn as_root(request: InternalRaftRequest, auth_revision: u64) -> InternalRaftRequest {
    let header = Some(pb::RequestHeader { id: 1, username: "root".into(), auth_revision });
    InternalRaftRequest { header, ..request }
}

#[test]
fn token_names_the_entry_before_the_one_that_assigns_it() {
    let mut world = checked_world();
    let login = |name: &'static str, simple_token: &'static str| {
        let login = pb::InternalAuthenticateRequest {
            name: name.into(),
            simple_token: simple_token.into(),
            ..Default::default()
        };
        InternalRaftRequest { authenticate: Some(login), ..Default::default() }
    };
    for index in [4, 5] {
        let applied = world.request(&login("u", "letters"));
        let token = crate::auth::Token::assigned("letters", LogIndex(index));
        assert_eq!(token.reveal(), format!("letters.{index}"));
        assert_eq!(applied.outcome, Ok(Response::Authenticated(token.clone())));
        assert_eq!(applied.effects, [Effect::TokenAssigned { user: "u".to_owned(), token }]);
        assert!(!format!("{applied:?}").contains("letters"), "a secret is shown");
    }
    let refused = world.request(&login("nobody", "letters"));
    assert_eq!((refused.outcome, refused.effects), (Err(Rejection::AuthFailed), Vec::new()));
    assert_eq!(world.request(&login("u", "")).effects, Vec::new(), "another kind of token");
}

#[test]
fn tokens_are_forgotten_with_their_user_his_password_and_authentication() {
    let mut world = checked_world();
    let name = "u".to_owned();
    let change = pb::AuthUserChangePasswordRequest { name: name.clone(), ..Default::default() };
    let change = InternalRaftRequest { auth_user_change_password: Some(change), ..Default::default() };
    let delete = pb::AuthUserDeleteRequest { name: name.clone() };
    let delete = InternalRaftRequest { auth_user_delete: Some(delete), ..Default::default() };
    let disable = InternalRaftRequest { auth_disable: Some(pb::AuthDisableRequest {}), ..Default::default() };
    assert_eq!(world.request(&delete).effects, Vec::new(), "of nobody it is refused");
    for (request, effects) in [
        (change, vec![Effect::UserForgotten(name.clone())]),
        (delete, vec![Effect::UserForgotten(name)]),
        (disable.clone(), vec![Effect::TokensForgotten]),
        (disable, Vec::new()),
    ] {
        let revision = world.applier.published().auth.revision();
        assert_eq!(world.request(&as_root(request, revision)).effects, effects);
    }
}

#[test]
fn password_in_plain_text_stops_the_member() {
    let add = pb::AuthUserAddRequest { name: "u".to_owned(), password: "p".to_owned(), ..Default::default() };
    let text = World::new().fails_with(&InternalRaftRequest { auth_user_add: Some(add), ..Default::default() });
    assert!(text.starts_with("applying entry 1: the entry holds a password in plain text"), "{text}");
}

#[test]
fn foreign_key_that_the_store_cannot_hold_stops_the_member() {
    let mut world = World::new();
    let text = world.fails_with(&put(&"k".repeat(32_001), ""));
    assert!(text.starts_with("applying entry 1: the entry puts a key of 32001 bytes"), "{text}");
}

#[test]
fn failed_commit_is_final_and_what_readers_see_stays_behind() {
    let mut world = World::new();
    world.request(&put("a", "1"));
    let before = world.applier.published();
    world.applier.engine().fail_commit(1);
    let second = world.entry(put("a", "2").encode_to_vec(), EntryType::EntryNormal);
    let failed = world.applier.apply(std::slice::from_ref(&second)).unwrap_err();
    assert!(matches!(failed, ApplyError::Storage { .. }));
    assert!(matches!(world.applier.apply(&[second]), Err(ApplyError::Failed)));
    let after = world.applier.published();
    assert_eq!((after.applied, after.view.revision()), (before.applied, before.view.revision()));
    assert_eq!(world.get("a").unwrap(), "1");
}

fn reopen(engine: &MemoryEngine) -> Result<Applier<MemoryEngine>, String> {
    Applier::open(engine.clone(), OPTIONS).map_err(|error| std::error::Error::source(&error).unwrap().to_string())
}

#[test]
fn state_belongs_to_one_cluster() {
    let engine = MemoryEngine::new();
    let voters = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let mut applier = reopen(&engine).unwrap();
    applier.establish(ClusterId(7), &voters).unwrap();
    applier.establish(ClusterId(7), &ConfState::default()).unwrap();
    let mut again = reopen(&engine).unwrap();
    let cluster = again.published().cluster;
    assert_eq!((cluster.id(), cluster.configuration()), (ClusterId(7), &voters));
    let other = again.establish(ClusterId(8), &voters).unwrap_err();
    assert!(matches!(other, ApplyError::Open(OpenError::OtherCluster { stored: ClusterId(7), own: ClusterId(8) })));
}

#[test]
fn state_with_damaged_users_or_a_newer_version_is_refused() {
    for (table, key, value, why) in [
        (Table::Auth, "authEnabled", &b"\x02"[..], "row authEnabled of table Auth is damaged"),
        (Table::AuthUser, "root", b"", "row root of table AuthUser is damaged"),
        (Table::AuthRole, "root", b"", "row root of table AuthRole is damaged"),
    ] {
        let engine = MemoryEngine::new();
        let mut writes = Writes::default();
        writes.put_row(table, key.as_bytes(), Bytes::copy_from_slice(value));
        engine.commit(writes).unwrap();
        assert!(reopen(&engine).unwrap_err().starts_with(why), "{key}");
    }
    let engine = MemoryEngine::new();
    let mut writes = Writes::default();
    writes.put_row(Table::Cluster, b"clusterVersion", bytes("3.8.0"));
    writes.put_row(Table::Auth, b"authEnabled", Bytes::from_static(&[0]));
    engine.commit(writes).unwrap();
    assert!(reopen(&engine).unwrap_err().starts_with("the cluster runs at version 3.8.0"));
}

#[test]
fn state_survives_a_restart() {
    let mut world = World::new();
    world.change(&MemberChange::add(member(1, false)));
    world.request(&grant(4, 60));
    world.request(&put_leased("a", "1", 4));
    world.request(&alarm(ACTIVATE, 5, NOSPACE));
    world.request(&cluster_version("3.5.0"));
    let before = world.applier.published();
    let mut again = reopen(world.applier.engine()).unwrap();
    let after = again.published();
    assert_eq!(
        (after.applied, after.term, after.view.revision()),
        (before.applied, before.term, before.view.revision())
    );
    assert_eq!((after.cluster, after.alarms), (before.cluster, before.alarms));
    let next = world.entry(revoke(4).encode_to_vec(), EntryType::EntryNormal);
    assert!(again.apply(&[next]).unwrap()[0].changes.is_some());
}

fn v2_request(method: &str, path: &str, with: impl FnOnce(&mut v2store::Request)) -> InternalRaftRequest {
    let (method, path) = (bytes(method), bytes(path));
    let mut request = v2store::Request { id: 7, method, path, time: 2_000_000_000_000_000_000, ..Default::default() };
    with(&mut request);
    with_id(InternalRaftRequest { v2: request.encode_to_vec().into(), ..Default::default() })
}

fn v2_put(path: &str) -> InternalRaftRequest {
    v2_request("PUT", path, |_| {})
}

fn v2_outcome(applied: Applied) -> Arc<v2store::Outcome> {
    match applied.outcome {
        Ok(Response::V2(outcome)) => outcome,
        other => panic!("a v2 request is answered by {other:?}"),
    }
}

#[test]
fn v2_requests_count_with_the_members_part() {
    let mut world = World::new();
    world.change(&MemberChange::add(member(1, false)));
    world.request(&attributes(1, "m"));
    world.request(&cluster_version("3.6.0"));
    assert!(world.rows(Table::V2).is_empty(), "who does not use the v2 API has no row of it");
    assert_eq!(world.applier.published().v2().index().unwrap(), 3);
    let outcome = v2_outcome(world.request(&v2_put("/1/a")));
    assert_eq!(outcome.answer.as_ref().unwrap().as_ref().unwrap().index, 4);
    world.request(&attributes(1, "n"));
    world.change(&MemberChange::add(member(2, true)));
    world.change(&MemberChange::Remove(MemberId(2)));
    world.request(&cluster_version("3.7.0"));
    assert_eq!(world.applier.published().v2().index().unwrap(), 8);
    let refused = v2_outcome(world.request(&v2_put("/1/a/b")));
    assert_eq!(refused.answer.as_ref().unwrap().as_ref().unwrap_err().index, 8);
}

#[test]
fn alarms_are_not_about_the_v2_tree() {
    let mut world = World::new();
    world.request(&alarm(ACTIVATE, 5, NOSPACE));
    world.request(&alarm(ACTIVATE, 5, CORRUPT));
    assert!(v2_outcome(world.request(&v2_put("/1/a"))).answer.as_ref().unwrap().is_ok());
}

#[test]
fn digest_tells_v2_trees_apart() {
    let digest = |path: &str| {
        let mut world = World::new();
        world.request(&v2_put(path)).digest
    };
    assert_eq!(digest("/1/a"), digest("/1/a"));
    assert_ne!(digest("/1/a"), digest("/1/b"));
}

#[test]
fn state_with_v2_keys_is_not_written_as_etcds_database() {
    let mut world = World::new();
    world.request(&v2_put("/1/a"));
    let export = |world: &World| {
        let file = MemoryDirectory::default().create("db").unwrap();
        exchange::export(&world.applier.published(), file).map(|_| ())
    };
    assert!(matches!(export(&world), Err(exchange::ExchangeError::V2KeysHere)));
    world.request(&v2_request("DELETE", "/1/a", |_| {}));
    export(&world).unwrap();
}

/// The state of `applier` as etcd's database.
fn exported(applier: &Applier<MemoryEngine>) -> MemoryFile {
    let file = MemoryDirectory::default().create("db").unwrap();
    exchange::export(&applier.published(), file).unwrap().file
}

fn imported(file: MemoryFile, options: &exchange::ImportOptions) -> Result<MemoryEngine, String> {
    let engine = MemoryEngine::new();
    exchange::import(file, &engine, &MemoryDirectory::default(), options).map_err(|error| error.to_string())?;
    Ok(engine)
}

const IMPORT: exchange::ImportOptions<'_> = exchange::ImportOptions {
    configuration: None,
    cluster: ClusterId(0),
    server_version: Version::minor(3, 7),
    index: None,
    memory_bytes: 1_000,
};

fn rows_of(file: MemoryFile) -> Vec<bbolt::Row> {
    bbolt::Reader::open(file).unwrap().rows().unwrap().collect::<Result<_, _>>().unwrap()
}

/// A state with a row in every bucket that a state can have.
fn rich_world() -> World {
    let mut world = World::new();
    world.change(&MemberChange::add(member(1, false)));
    world.change(&MemberChange::add(member(2, true)));
    world.change(&MemberChange::Remove(MemberId(2)));
    world.request(&grant(4, 60));
    world.request(&put_leased("a", "1", 4));
    world.request(&put("a", "2"));
    world.request(&delete("a", ""));
    world.request(&alarm(ACTIVATE, 5, NOSPACE));
    world.request(&cluster_version("3.6.0"));
    world.request(&compact(3));
    world
}

#[test]
fn export_has_all_buckets_as_etcd_spells_them() {
    let world = rich_world();
    let file = exported(&world.applier);
    let reader = bbolt::Reader::open(file).unwrap();
    assert_eq!(reader.bucket_names().unwrap(), database::Bucket::ALL.map(database::Bucket::name));
    let keys = |bucket: &str| {
        let rows = reader.bucket(bucket.as_bytes()).unwrap();
        rows.map(|row| row.unwrap().key.escape_ascii().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys("meta"), ["confState", "consistent_index", "scheduledCompactRev", "storageVersion", "term"]);
    assert_eq!(keys("auth"), ["authRevision"]);
    assert_eq!((keys("members"), keys("members_removed")), (vec!["1".to_owned()], vec!["2".to_owned()]));
    assert_eq!((keys("alarm").len(), keys("lease").len(), keys("key").len()), (1, 1, 3));
    assert_eq!(database::position(&reader).unwrap().storage_version.as_deref(), Some("3.6.0"));
}

#[test]
fn users_travel_in_both_directions() {
    let mut world = rich_world();
    world.request(&user_add("u"));
    let role = pb::AuthRoleAddRequest { name: "r".to_owned() };
    world.request(&InternalRaftRequest { auth_role_add: Some(role), ..Default::default() });
    let engine = MemoryEngine::new();
    exchange::import(exported(&world.applier), &engine, &MemoryDirectory::default(), &IMPORT).unwrap();
    let rows =
        |snapshot: &dyn Fn(Table) -> Vec<(Bytes, Bytes)>| [Table::Auth, Table::AuthUser, Table::AuthRole].map(snapshot);
    let there = rows(&|table| engine.snapshot().rows(table).collect::<Result<_, _>>().unwrap());
    assert_eq!(there, rows(&|table| world.rows(table)));
    assert!(there.iter().all(|rows| rows.len() == 1));
}

#[test]
fn file_of_a_cluster_before_3_6_carries_no_version() {
    let mut world = World::new();
    world.request(&cluster_version("3.5.0"));
    let reader = bbolt::Reader::open(exported(&world.applier)).unwrap();
    assert_eq!(database::position(&reader).unwrap().storage_version, None);
}

#[test]
fn state_before_the_first_entry_is_not_handed_on() {
    let file = MemoryDirectory::default().create("db").unwrap();
    let refusal = exchange::export(&World::new().applier.published(), file).unwrap_err();
    assert!(matches!(refusal, exchange::ExchangeError::Nothing));
}

#[test]
fn import_says_where_the_state_stands() {
    let world = rich_world();
    let engine = MemoryEngine::new();
    let options = exchange::ImportOptions { cluster: ClusterId(8), index: Some(LogIndex(10)), ..IMPORT };
    let done = exchange::import(exported(&world.applier), &engine, &MemoryDirectory::default(), &options).unwrap();
    assert_eq!((done.applied, done.term, done.cluster.id()), (LogIndex(10), Term(3), ClusterId(8)));
    assert_eq!(done.cluster.configuration().voters, [1]);
    assert_eq!(engine.unpersisted(), 0);
    let again = exchange::import(exported(&world.applier), &engine, &MemoryDirectory::default(), &options);
    assert!(matches!(again, Err(exchange::ExchangeError::NotEmpty)));
}

#[test]
fn new_cluster_takes_the_state_and_none_of_the_members() {
    let world = rich_world();
    let founding = Founding::new(&[("n".to_owned(), vec!["http://n:1".to_owned()])].into(), "t").unwrap();
    let refounded = |revisions_skipped| {
        let refounding = exchange::Refounding {
            founding: &founding,
            server_version: Version::minor(3, 7),
            revisions_skipped,
            memory_bytes: 1_000,
        };
        let (file, engine) = (exported(&world.applier), MemoryEngine::new());
        exchange::refound(file, &engine, &MemoryDirectory::default(), &refounding)
            .map(|done| (done, Applier::open(engine, ApplyOptions::new(MemberId(1), Version::minor(3, 7))).unwrap()))
    };
    let (done, applier) = refounded(None).unwrap();
    assert_eq!((done.applied, done.term, done.cluster.id()), (LogIndex(1), Term(1), founding.cluster_id()));
    assert!(done.cluster.members().eq(founding.members()) && done.cluster.removed().len() == 0);
    assert_eq!(done.cluster.version(), Some(Version::minor(3, 6)));
    let (own, theirs) = (applier.published(), world.applier.published());
    assert_eq!(own.view.hash_kv(0).unwrap(), theirs.view.hash_kv(0).unwrap());
    assert_eq!(own.alarms, theirs.alarms);
    assert_eq!(applier.leases().unwrap().len(), 1);

    let last = theirs.view.hash_kv(0).unwrap().revision;
    let bumped = refounded(Some(100)).unwrap().1.published().view.hash_kv(0).unwrap();
    assert_eq!((bumped.revision, bumped.compact_revision), (last + 100, last + 100));
    let refused = refounded(Some(u64::MAX)).unwrap_err().to_string();
    assert!(refused.contains("cannot be raised by"), "{refused}");
    let last = last.cast_unsigned();
    assert!(refounded(Some(crate::mvcc::REVISION_BUMPED_MAX.cast_unsigned() - last)).is_ok());
    assert!(refounded(Some(crate::mvcc::REVISION_BUMPED_MAX.cast_unsigned() - last + 1)).is_err());
}

#[test]
fn what_cannot_be_served_is_refused() {
    let world = rich_world();
    let rows = rows_of(exported(&world.applier));
    let refusal = |bucket: &'static str, key: &'static str, value: &'static [u8]| {
        let directory = MemoryDirectory::default();
        let mut writer = bbolt::Writer::new(directory.create("db").unwrap());
        let forged = bbolt::Row { bucket: bytes(bucket), key: bytes(key), value: Bytes::from_static(value) };
        for name in database::Bucket::ALL.map(database::Bucket::name) {
            writer.bucket(name).unwrap();
            let of_bucket = rows.iter().filter(|row| row.bucket == name && !(name == bucket && row.key == key));
            let mut of_bucket: Vec<_> = of_bucket.chain((name == bucket).then_some(&forged)).collect();
            of_bucket.sort_by_key(|row| row.key.clone());
            for row in of_bucket {
                writer.put(row.key.clone(), row.value.clone()).unwrap();
            }
        }
        let file = writer.finish().unwrap().file;
        let examined = bbolt::Reader::open(directory.open("db").unwrap()).map_err(Into::into);
        let examined = examined.and_then(|reader| exchange::examine(&reader, &IMPORT)).unwrap_err().to_string();
        let refused = imported(file, &IMPORT).unwrap_err();
        assert_eq!(examined, refused, "an examination finds what an import finds");
        refused
    };
    assert!(refusal("auth", "authEnabled", &[2]).contains("row authEnabled of table Auth"));
    assert!(refusal("authUsers", "root", b"").contains("row root of table AuthUser"));
    assert!(refusal("authRoles", "root", b"").contains("row root of table AuthRole"));
    assert!(refusal("cluster", "clusterVersion", b"3.8.0").contains("the cluster runs at version 3.8.0"));
    assert!(refusal("cluster", "clusterVersion", b"new").contains("row \"clusterVersion\""));
    assert!(refusal("meta", "storageVersion", b"3.8.0").contains("made for etcd 3.8.0"));
    assert!(refusal("meta", "term", b"\0\0\0\0\0\0\0\0").contains("start it once with etcd 3.5"));
    assert!(refusal("meta", "confState", b"{").contains("\"confState\""));
    assert!(refusal("meta", "scheduledCompactRev", b"3").contains("the revision does not decode"));
    assert!(refusal("members", "1", b"{}").contains("row \"1\""));
    assert!(refusal("lease", "x", b"").contains("lease row x"));
    assert!(refusal("alarm", "x", b"").contains("alarm row x"));
    assert!(refusal("key", "x", b"").contains("row x of the bucket `key`"));
    let other = exchange::ImportOptions { index: Some(LogIndex(7)), ..IMPORT };
    assert!(imported(exported(&world.applier), &other).unwrap_err().contains("stands at index 10"));
}

#[test]
fn v2_keys_are_refused() {
    exchange::check_tree(b"").unwrap();
    let tree = |node: &str| {
        format!(r#"{{"Root":{{"Children":{{"1":{{"Children":{{{node}}}}}}}}},"CurrentIndex":1,"CurrentVersion":2}}"#)
    };
    exchange::check_tree(tree("").as_bytes()).unwrap();
    let held = exchange::check_tree(tree(r#""mine":{"Value":"x"}"#).as_bytes());
    assert!(matches!(held, Err(exchange::ExchangeError::V2Keys)));
    assert!(matches!(exchange::check_tree(b"{"), Err(exchange::ExchangeError::Tree(_))));
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "d", "ab"]).prop_map(str::to_owned)
}

fn op() -> impl Strategy<Value = Op> {
    let range_end = prop::sample::select(vec!["", "b", "d", "\0"]);
    prop_oneof![
        (key(), "[xy]{0,3}", 0_i64..3).prop_map(|(key, value, lease)| Op::RequestPut(put_request(&key, &value, lease))),
        (key(), range_end.clone()).prop_map(|(key, end)| Op::RequestDeleteRange(pb::DeleteRangeRequest {
            key: bytes(&key),
            range_end: bytes(end),
            prev_kv: true
        })),
        (key(), range_end, -1_i64..8).prop_map(|(key, end, revision)| Op::RequestRange(pb::RangeRequest {
            key: bytes(&key),
            range_end: bytes(end),
            revision,
            ..Default::default()
        })),
    ]
}

/// Paths that meet as siblings, parents and hidden nodes; half of the nodes expire before some of the syncs.
fn v2() -> impl Strategy<Value = InternalRaftRequest> {
    let method = prop::sample::select(vec!["PUT", "PUT", "PUT", "POST", "DELETE", "SYNC", "KNOW"]);
    let condition = (prop::option::of(any::<bool>()), 0_u64..9, any::<[bool; 3]>());
    (method, "/1(/[ab_]){0,3}", condition, 0_i64..4).prop_map(|(method, path, condition, seconds)| {
        let (prev_exist, prev_index, [dir, recursive, compares]) = condition;
        v2_request(method, &path, |request| {
            request.time += seconds * 1_000_000_000;
            request.expiration = if dir { request.time } else { 0 };
            request.prev_index = if compares { prev_index } else { 0 };
            (request.prev_exist, request.dir, request.recursive) = (prev_exist, dir, recursive);
        })
    })
}

fn request() -> impl Strategy<Value = InternalRaftRequest> {
    prop_oneof![
        6 => (key(), "[xyz]{0,4}", 0_i64..3).prop_map(|(key, value, lease)| put_leased(&key, &value, lease)),
        2 => (key(), prop::sample::select(vec!["", "b", "\0"])).prop_map(|(key, end)| delete(&key, end)),
        4 => prop::collection::vec(op(), 0..4).prop_map(txn),
        2 => (1_i64..4, 0_i64..9).prop_map(|(id, ttl)| grant(id, ttl)),
        1 => (1_i64..4).prop_map(revoke),
        1 => (1_i64..4, 0_i64..9).prop_map(|(id, remaining)| checkpoint(id, remaining)),
        1 => (0_i32..4, 0_u64..3, 0_i32..2).prop_map(|(action, member, kind)| alarm(action, member, kind)),
        1 => (0_i64..30).prop_map(compact),
        1 => prop::sample::select(vec!["3.5.0", "3.6.0"]).prop_map(cluster_version),
        1 => (1_u64..5).prop_map(|id| attributes(id, "name")),
        1 => any::<bool>().prop_map(|enabled| downgrade(enabled, "3.5.0")),
    ]
}

fn change() -> impl Strategy<Value = MemberChange> {
    (1_u64..5, 0_u8..5).prop_map(|(id, kind)| match kind {
        0 => MemberChange::add(member(id, false)),
        1 => MemberChange::add(member(id, true)),
        2 => MemberChange::Promote(MemberId(id)),
        3 => MemberChange::Update { id: MemberId(id), peer_urls: vec![format!("http://u{}:1", id % 3)] },
        _ => MemberChange::Remove(MemberId(id)),
    })
}

/// A log of random entries.
fn log() -> impl Strategy<Value = Vec<Entry>> {
    log_of(prop_oneof![3 => request(), 1 => v2()])
}

fn log_of(request: impl Strategy<Value = InternalRaftRequest>) -> impl Strategy<Value = Vec<Entry>> {
    let normal = |data: Vec<u8>| (EntryType::EntryNormal, data);
    let entry = prop_oneof![
        12 => request.prop_map(move |request| normal(request.encode_to_vec())),
        2 => change().prop_map(|change| (EntryType::EntryConfChange, change.encode(RequestId(1)).encode_to_vec())),
        1 => Just(normal(Vec::new())),
    ];
    prop::collection::vec(entry, 1..60).prop_map(|entries| {
        (1..)
            .zip(entries)
            .map(|(index, (kind, data))| Entry { r#type: kind.into(), term: 1 + index / 9, index, data: data.into() })
            .collect()
    })
}

fn dump(engine: &MemoryEngine) -> Vec<(Bytes, Bytes)> {
    engine.snapshot().scan(Bound::Unbounded, Bound::Unbounded).collect::<Result<_, _>>().unwrap()
}

/// What an entry led to, without what may differ between members.
fn essence(applied: Vec<Applied>) -> Vec<String> {
    applied
        .into_iter()
        .map(|Applied { index, term, request, operation: _, outcome, changes, effects, digest: _ }| {
            format!("{index} {term} {request:?} {outcome:?} {changes:?} {effects:?}")
        })
        .collect()
}

fn straight_run(log: &[Entry]) -> (MemoryEngine, Vec<String>) {
    let engine = MemoryEngine::new();
    let mut applier = Applier::open(engine.clone(), OPTIONS).unwrap();
    let one = |entry: &Entry| essence(applier.apply(std::slice::from_ref(entry)).unwrap());
    let outcomes = log.iter().flat_map(one).collect();
    (engine, outcomes)
}

fn finish_compaction(engine: &MemoryEngine) {
    let mut applier = Applier::open(engine.clone(), OPTIONS).unwrap();
    while applier.compact_some(7).unwrap() != CompactionProgress::Idle {}
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn grouping_changes_neither_rows_nor_outcomes(log in log(), sizes in prop::collection::vec(1_usize..9, 60)) {
        let (straight, expected) = straight_run(&log);
        let engine = MemoryEngine::new();
        let mut applier = Applier::open(engine.clone(), OPTIONS).unwrap();
        let (mut rest, mut outcomes) = (&log[..], Vec::new());
        for size in sizes {
            let (group, behind) = rest.split_at(size.min(rest.len()));
            outcomes.extend(essence(applier.apply(group).unwrap()));
            rest = behind;
        }
        prop_assert_eq!(outcomes, expected);
        prop_assert_eq!(dump(&engine), dump(&straight));
    }

    #[test]
    fn restart_after_any_power_cut_equals_a_straight_run(
        log in log(),
        steps in prop::collection::vec((1_usize..9, 0_u8..6), 1..30),
    ) {
        let (straight, _) = straight_run(&log);
        finish_compaction(&straight);
        let mut engine = MemoryEngine::new();
        let mut applier = Applier::open(engine.clone(), OPTIONS).unwrap();
        for (size, event) in steps {
            let from = usize::try_from(applier.published().applied.0).unwrap();
            applier.apply(&log[from..(from + size).min(log.len())]).unwrap();
            match event {
                0 => {
                    engine = engine.crash_keeping(u64::from(size % 3 == 0));
                    applier = Applier::open(engine.clone(), OPTIONS).unwrap();
                }
                1 => engine.persist().unwrap(),
                2 => drop(applier.compact_some(3).unwrap()),
                _ => {}
            }
        }
        applier.apply(&log[usize::try_from(applier.published().applied.0).unwrap()..]).unwrap();
        drop(applier);
        finish_compaction(&engine);
        prop_assert_eq!(dump(&engine), dump(&straight));
    }

    #[test]
    fn state_that_went_through_etcds_database_goes_on_alike(log in log_of(request()), at in any::<prop::sample::Index>()) {
        let (before, after) = log.split_at(1 + at.index(log.len()));
        let (straight, _) = straight_run(before);
        let mut original = Applier::open(straight, OPTIONS).unwrap();
        let copy = imported(exported(&original), &IMPORT).unwrap();
        let mut copy = Applier::open(copy, OPTIONS).unwrap();
        prop_assert_eq!(essence(copy.apply(after).unwrap()), essence(original.apply(after).unwrap()));
        for applier in [&mut original, &mut copy] {
            while applier.compact_some(7).unwrap() != CompactionProgress::Idle {}
        }
        let (ours, theirs) = (copy.published(), original.published());
        ours.view.verify().unwrap();
        prop_assert_eq!(rows_of(exported(&copy)), rows_of(exported(&original)));
        prop_assert_eq!((ours.cluster, ours.alarms), (theirs.cluster, theirs.alarms));
        for revision in ours.view.compact_revision().max(1)..=ours.view.revision() {
            prop_assert_eq!(ours.view.hash_kv(revision).unwrap(), theirs.view.hash_kv(revision).unwrap());
        }
        prop_assert_eq!(ours.view.lease_keys(LeaseId(1)).unwrap(), theirs.view.lease_keys(LeaseId(1)).unwrap());
    }

    #[test]
    fn any_bytes_are_applied_or_refused_without_panic(data in prop::collection::vec(any::<u8>(), 0..64), kind in 0_i32..4) {
        let mut applier = Applier::open(MemoryEngine::new(), OPTIONS).unwrap();
        let entry = Entry { r#type: kind, term: 1, index: 1, data: data.into() };
        let outcome = applier.apply(&[entry]);
        let understood = matches!(&outcome, Ok(applied) if applied.len() == 1);
        prop_assert!(understood || matches!(&outcome, Err(ApplyError::Entry { .. })), "{:?}", outcome);
    }
}
