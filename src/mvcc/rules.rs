//! Single rules of etcd's key space, one test each; the numbers in brackets are those of the conformance list.

use bytes::Bytes;

use super::{
    Compactor, HistoryLimits, REVISION_MAX, ReadError,
    harness::{Member, bytes, in_memory, put},
};
use crate::{
    pb::etcdserverpb::{
        Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest, TxnResponse,
        compare::TargetUnion, request_op::Request, response_op::Response,
    },
    storage::{Engine, MemoryEngine},
    types::{KeyRange, LeaseId, Rejection},
};

fn ranged(member: &Member<MemoryEngine>, request: &RangeRequest) -> Result<Vec<Bytes>, Rejection> {
    match member.view().range(request) {
        Ok(response) => Ok(response.kvs.into_iter().map(|pair| pair.key).collect()),
        Err(ReadError::Rejected(rejection)) => Err(rejection),
        Err(ReadError::Storage(error)) => panic!("{error}"),
    }
}

fn get(key: &str, revision: i64) -> RangeRequest {
    RangeRequest { key: bytes(key), revision, ..Default::default() }
}

fn all() -> RangeRequest {
    RangeRequest { key: bytes("\0"), range_end: bytes("\0"), ..Default::default() }
}

fn run(member: &mut Member<MemoryEngine>, success: Vec<Request>) -> Result<TxnResponse, Rejection> {
    let success = success.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
    let request = TxnRequest { success, ..Default::default() };
    let answer = member.change(|change| change.txn(&request, &|lease| lease == LeaseId(1))).0;
    answer.map_err(|error| match error {
        ReadError::Rejected(rejection) => rejection,
        ReadError::Storage(error) => panic!("{error}"),
    })
}

/// `header.revision` of each answer in a transaction.
fn revisions(response: &TxnResponse) -> Vec<i64> {
    let header = |answer: &ResponseOp| match answer.response.as_ref().unwrap() {
        Response::ResponseRange(range) => range.header,
        Response::ResponsePut(put) => put.header,
        Response::ResponseDeleteRange(delete) => delete.header,
        Response::ResponseTxn(txn) => txn.header,
    };
    response.responses.iter().map(|answer| header(answer).unwrap().revision).collect()
}

fn delete(key: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), ..Default::default() }
}

#[test]
fn fresh_store_stands_at_revision_one_and_was_never_compacted() {
    let member = in_memory();
    assert_eq!((member.store.revision(), member.store.compact_revision()), (1, -1));
    let answer = member.view().range(&get("missing", 0)).unwrap();
    assert_eq!((answer.header.unwrap().revision, answer.count, answer.more), (1, 0, false));
}

/// The second put behind a bump to nearly the largest number was one too many, and ended the member.
#[test]
fn nothing_is_changed_behind_the_last_revision() {
    let mut member = in_memory();
    member.store.revision = REVISION_MAX - 1;
    let leased = PutRequest { lease: 1, ..put("k", "last") };
    member.change(|change| change.put(&leased, &|_| true)).0.unwrap();
    assert_eq!(member.store.revision(), REVISION_MAX);
    let used = |answer: Result<(), ReadError>| matches!(answer, Err(ReadError::Rejected(Rejection::RevisionsUsed)));
    assert!(used(member.change(|change| change.put(&put("k", "more"), &|_| true).map(drop)).0));
    assert!(used(member.change(|change| change.delete_range(&delete("k")).map(drop)).0));
    assert!(used(member.change(|change| change.delete_lease_keys(LeaseId(1)).map(drop)).0));
    assert_eq!(run(&mut member, vec![Request::RequestPut(put("l", "more"))]), Err(Rejection::RevisionsUsed));
    // What changes nothing needs none, whatever the branches say that are not taken.
    let range = || Request::RequestRange(get("k", 0));
    let operation = |request| RequestOp { request: Some(request) };
    let nested = TxnRequest {
        success: vec![operation(range())],
        failure: vec![operation(Request::RequestPut(put("k", "more")))],
        ..Default::default()
    };
    for reading in [range(), Request::RequestTxn(nested.clone()), Request::RequestDeleteRange(delete("absent"))] {
        assert!(run(&mut member, vec![reading]).is_ok());
    }
    let unmet = Compare { key: bytes("absent"), result: 2, ..Compare::default() };
    let writing = Request::RequestTxn(TxnRequest { compare: vec![unmet], ..nested });
    for writing in [writing, Request::RequestDeleteRange(delete("k"))] {
        assert_eq!(run(&mut member, vec![range(), writing]), Err(Rejection::RevisionsUsed));
    }
    assert_eq!(member.change(|change| change.delete_range(&delete("absent"))).0.unwrap().deleted, 0);
    let again = Member::open(member.engine);
    assert_eq!((again.store.revision(), again.list("k", "", 0)[0].mod_revision), (REVISION_MAX, REVISION_MAX));
}

#[test]
fn second_life_of_a_key_begins_anew() {
    let mut member = in_memory();
    member.put("k", "1");
    member.put("k", "2");
    member.delete("k", "");
    member.put("k", "3");
    let pair = &member.list("k", "", 0)[0];
    assert_eq!((pair.create_revision, pair.mod_revision, pair.version), (5, 5, 1));
    let before = &member.list("k", "", 3)[0];
    assert_eq!((before.create_revision, before.mod_revision, before.version), (2, 3, 2));
    assert!(member.list("k", "", 4).is_empty());
}

#[test]
fn revisions_outside_history_are_refused_and_negative_ones_mean_the_newest() {
    let mut member = in_memory();
    member.put("k", "1");
    member.put("k", "2");
    member.put("k", "3");
    member.schedule(3).unwrap();
    assert_eq!(ranged(&member, &get("k", 2)), Err(Rejection::Compacted));
    assert_eq!(ranged(&member, &get("k", 3)), Ok(vec![bytes("k")]));
    assert_eq!(ranged(&member, &get("k", 5)), Err(Rejection::FutureRevision));
    assert_eq!(ranged(&member, &get("k", -7)), Ok(vec![bytes("k")]));
}

#[test]
fn order_none_with_a_field_sorts_what_the_limit_left() {
    let mut member = in_memory();
    for key in ["c", "d", "b", "a"] {
        member.put(key, "");
    }
    let by_create = |sort_order, limit| RangeRequest { sort_order, sort_target: 2, limit, ..all() };
    assert_eq!(ranged(&member, &by_create(1, 2)).unwrap(), ["c", "d"]);
    // The three first keys are a, b and c; of these the two created first.
    assert_eq!(ranged(&member, &by_create(0, 2)).unwrap(), ["c", "b"]);
    assert_eq!(ranged(&member, &by_create(2, 1)).unwrap(), ["a"]);
}

#[test]
fn count_ignores_limit_and_filters() {
    let mut member = in_memory();
    for key in ["a", "b", "c", "d"] {
        member.put(key, "");
    }
    let request = RangeRequest { limit: 1, min_create_revision: 4, ..all() };
    let answer = member.view().range(&request).unwrap();
    assert_eq!((answer.kvs[0].key.clone(), answer.more, answer.count), (bytes("c"), true, 4));
}

#[test]
fn keys_only_from_the_index_has_no_lease() {
    let mut member = in_memory();
    let leased = PutRequest { lease: 1, ..put("k", "value") };
    member.change(|change| change.put(&leased, &|_| true)).0.unwrap();
    let keys_only = |sort_target| RangeRequest { keys_only: true, sort_target, ..get("k", 0) };
    let shown = |request| {
        let pair = member.view().range(&request).unwrap().kvs.remove(0);
        (pair.value, pair.lease, pair.version)
    };
    assert_eq!(shown(keys_only(0)), (Bytes::new(), 0, 1));
    assert_eq!(shown(keys_only(4)), (Bytes::new(), 1, 1));
}

#[test]
fn chunks_come_from_the_state_the_plan_was_made_of() {
    let mut member = in_memory();
    for number in 0..9 {
        member.put(&format!("k{number}"), "a value of some length, so that chunks are many");
    }
    let mut plan = member.view().plan(&all()).unwrap();
    member.delete("\0", "\0");
    member.put("k5", "later");
    let mut seen = Vec::new();
    loop {
        let chunk = plan.next_chunk(4, 1 << 20).unwrap();
        if chunk.is_empty() {
            break;
        }
        seen.extend(chunk.into_iter().map(|pair| pair.mod_revision));
    }
    assert_eq!(seen, (2..=10).collect::<Vec<_>>());
    assert_eq!((plan.kvs(), plan.frame().count), (9, 9));
}

#[test]
fn put_with_another_lease_moves_the_key() {
    let mut member = in_memory();
    let with = |lease| PutRequest { lease, ..put("k", "v") };
    member.change(|change| change.put(&with(1), &|_| true)).0.unwrap();
    member.change(|change| change.put(&with(2), &|_| true)).0.unwrap();
    let attached = |member: &Member<MemoryEngine>, lease| member.view().lease_keys(LeaseId(lease)).unwrap();
    assert_eq!((attached(&member, 1), attached(&member, 2)), (vec![], vec![bytes("k")]));
    let kept = PutRequest { ignore_lease: true, ..put("k", "w") };
    member.change(|change| change.put(&kept, &|_| true)).0.unwrap();
    assert_eq!(attached(&member, 2), ["k"]);
    member.put("k", "v");
    assert!(attached(&member, 2).is_empty());
}

#[test]
fn refused_put_changes_nothing() {
    let mut member = in_memory();
    let (answer, changes) = member.change(|change| change.put(&PutRequest { lease: 9, ..put("k", "v") }, &|_| false));
    assert!(matches!(answer, Err(ReadError::Rejected(Rejection::LeaseNotFound))));
    assert_eq!((changes, member.store.revision(), member.engine.disk_bytes()), (None, 1, 0));
}

#[test]
fn delete_of_nothing_leaves_the_revision() {
    let mut member = in_memory();
    member.put("k", "v");
    let (answer, changes) = member.change(|change| change.delete_range(&delete("x")));
    let answer = answer.unwrap();
    assert_eq!((answer.deleted, answer.header.unwrap().revision, changes), (0, 2, None));
}

#[test]
fn operations_of_a_transaction_see_each_other_and_share_one_revision() {
    let mut member = in_memory();
    member.put("k", "old");
    let range = || Request::RequestRange(get("k", 0));
    let operations = vec![
        range(),
        Request::RequestDeleteRange(delete("missing")),
        Request::RequestPut(put("k", "new")),
        range(),
        Request::RequestDeleteRange(delete("missing")),
        Request::RequestTxn(TxnRequest::default()),
    ];
    let response = run(&mut member, operations).unwrap();
    assert_eq!(response.header.unwrap().revision, 3);
    assert_eq!(revisions(&response), [2, 2, 3, 3, 3, 0]);
    let value = |index: usize| match response.responses[index].response.as_ref().unwrap() {
        Response::ResponseRange(range) => range.kvs[0].value.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((value(0), value(3)), (bytes("old"), bytes("new")));
}

#[test]
fn ranges_can_be_checked_ahead_on_the_path_that_would_be_taken() {
    let mut member = in_memory();
    member.put("k", "1");
    member.put("k", "2");
    member.schedule(3).unwrap();
    let op = |request| RequestOp { request: Some(request) };
    let at = |revision| vec![op(Request::RequestPut(put("x", ""))), op(Request::RequestRange(get("k", revision)))];
    let nested = |success, failure| vec![op(Request::RequestTxn(TxnRequest { success, failure, compare: vec![] }))];
    let checked = |success| {
        let request = TxnRequest { success, failure: at(99), compare: vec![] };
        member.view().check_ranges(&request).map_err(|error| error.to_string())
    };
    assert_eq!(checked(at(3)), Ok(()));
    assert_eq!(checked(at(2)), Err(Rejection::Compacted.to_string()));
    assert_eq!(checked(at(4)), Err(Rejection::FutureRevision.to_string()));
    assert_eq!(checked(nested(at(3), at(2))), Ok(()), "the other branch is not taken");
    assert_eq!(checked(nested(at(2), at(3))), Err(Rejection::Compacted.to_string()));
}

#[test]
fn revisions_of_ranges_are_checked_before_the_transaction() {
    let mut member = in_memory();
    member.put("k", "1");
    member.put("k", "2");
    let at = |revision| vec![Request::RequestPut(put("x", "")), Request::RequestRange(get("k", revision))];
    assert_eq!(run(&mut member, at(4)).unwrap_err(), Rejection::FutureRevision);
    assert_eq!(run(&mut member, at(-2)).unwrap_err(), Rejection::Compacted);
    assert!(run(&mut member, at(-1)).is_ok());
    member.schedule(3).unwrap();
    assert_eq!(run(&mut member, at(-1)).unwrap_err(), Rejection::Compacted);
    assert_eq!(run(&mut member, at(2)).unwrap_err(), Rejection::Compacted);
    assert_eq!(member.store.revision(), 4);
}

#[test]
fn compare_of_no_key_counts_as_zero_but_has_no_value() {
    let mut member = in_memory();
    let mut succeeds = |result, target, operand| {
        let compare = Compare { result, target, key: bytes("k"), target_union: Some(operand), ..Default::default() };
        let request = TxnRequest { compare: vec![compare], ..Default::default() };
        member.change(|change| change.txn(&request, &|_| true)).0.unwrap().succeeded
    };
    assert!(succeeds(0, 0, TargetUnion::Version(0)));
    assert!(succeeds(2, 1, TargetUnion::CreateRevision(1)));
    assert!(!succeeds(3, 3, TargetUnion::Value(bytes("v"))));
    // An operand of another kind counts as zero, an unknown target as equal, an unknown result as true.
    assert!(succeeds(0, 2, TargetUnion::Version(7)));
    assert!(succeeds(0, 99, TargetUnion::Version(7)));
    assert!(succeeds(99, 0, TargetUnion::Version(7)));
}

#[test]
fn compaction_is_accepted_once_and_upwards() {
    let mut member = in_memory();
    member.put("k", "1");
    let schedule = |member: &mut Member<MemoryEngine>, revision| match member.schedule(revision) {
        Ok(()) => None,
        Err(ReadError::Rejected(rejection)) => Some(rejection),
        Err(ReadError::Storage(error)) => panic!("{error}"),
    };
    assert_eq!(schedule(&mut member, -1), Some(Rejection::Compacted));
    assert_eq!(schedule(&mut member, 0), None);
    assert_eq!(schedule(&mut member, 0), Some(Rejection::Compacted));
    assert_eq!(schedule(&mut member, 3), Some(Rejection::FutureRevision));
    assert_eq!(schedule(&mut member, 2), None);
}

#[test]
fn tombstone_at_the_compaction_goes_with_the_next_one_and_the_revision_stays() {
    let mut member = in_memory();
    member.put("k", "1");
    member.delete("k", "");
    member.compact(3);
    let all_of = |member: &Member<MemoryEngine>| member.view().etcd_rows().count();
    assert_eq!(all_of(&member), 1);
    let mut member = Member::open(member.engine);
    assert_eq!((member.store.revision(), member.store.compact_revision()), (3, 3));
    member.put("other", "");
    member.compact(4);
    assert_eq!(all_of(&member), 1);
    assert_eq!(Member::open(member.engine).store.revision(), 4);
}

#[test]
fn unfinished_compaction_goes_on_after_a_crash() {
    let mut member = in_memory();
    for round in 0..20 {
        member.put("k", &round.to_string());
    }
    member.schedule(21).unwrap();
    member.engine.persist().unwrap();
    member.compact_step(5);
    member.compact_step(5);
    let mut member = Member::open(member.engine.crash_keeping(1));
    let due = Compactor::due(&member.view()).unwrap().unwrap();
    assert_eq!((due.revision(), due.previous()), (21, -1));
    while member.compact_step(5) {}
    assert_eq!(member.view().etcd_rows().count(), 1);
    assert!(Compactor::due(&member.view()).unwrap().is_none());
}

#[test]
fn history_never_splits_a_revision_and_says_where_it_ends() {
    let mut member = in_memory();
    run(&mut member, ["a", "b", "c"].map(|key| Request::RequestPut(put(key, "v"))).into()).unwrap();
    member.put("a", "w");
    let range = KeyRange::new(bytes("\0"), &bytes("\0"));
    let limits = HistoryLimits { revisions_max: 1, bytes_max: 1, rows_max: 1, prev_kv: true };
    let first = member.view().history(&range, 2, limits).unwrap();
    assert_eq!((first.revisions[0].events.len(), first.next), (3, 3));
    let second = member.view().history(&range, first.next, limits).unwrap();
    assert_eq!(second.revisions[0].events[0].prev_kv.as_ref().unwrap().value, "v");
    assert_eq!(second.next, 4);
    let third = member.view().history(&range, second.next, limits).unwrap();
    assert_eq!((third.revisions.len(), third.next), (0, 4));
}

#[test]
fn history_below_the_compaction_is_refused_and_shows_no_pair_before_it() {
    let mut member = in_memory();
    for value in ["1", "2", "3"] {
        member.put("k", value);
    }
    member.schedule(3).unwrap();
    let range = KeyRange::single(bytes("k"));
    let limits = HistoryLimits { revisions_max: 9, bytes_max: 999, rows_max: 9, prev_kv: true };
    let refused = member.view().history(&range, 2, limits);
    assert!(matches!(refused, Err(ReadError::Rejected(Rejection::Compacted))));
    let history = member.view().history(&range, 3, limits).unwrap();
    let before: Vec<_> = history.revisions.iter().map(|revision| revision.events[0].prev_kv.is_some()).collect();
    assert_eq!(before, [false, true]);
}

#[test]
fn ten_hashes_of_compactions_are_remembered() {
    let mut member = in_memory();
    let mut hashes = super::CompactionHashes::default();
    for revision in 2..14 {
        member.put("k", &revision.to_string());
        hashes.remember(member.hash(revision));
        member.compact(revision);
    }
    assert_eq!(hashes.newest_first().map(|hash| hash.revision).collect::<Vec<_>>(), (4..14).rev().collect::<Vec<_>>());
    assert_eq!(hashes.get(3), None);
    let remembered = hashes.get(13).unwrap();
    assert_eq!((remembered.compact_revision, member.hash(13).compact_revision), (12, 13));
}

/// Taken afterwards, from what the compaction has not removed yet, and even if another was accepted meanwhile.
#[test]
fn hash_of_a_compaction_is_that_of_its_revision_before() {
    let mut member = in_memory();
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1")] {
        member.put(key, value);
    }
    member.delete("b", "");
    member.compact(3);
    member.put("a", "3");
    member.delete("c", "");
    member.put("d", "1");
    let before = [7, 8].map(|revision| member.hash(revision));
    member.schedule(7).unwrap();
    let between = member.hash(8);
    member.put("a", "4");
    member.schedule(8).unwrap();
    let taken = |revision, previous| {
        super::HashWork::of_compaction(member.view(), revision, previous).unwrap().finish().unwrap()
    };
    let here = |hash: super::HashKv| super::HashKv { current_revision: 10, ..hash };
    assert_eq!(taken(7, 3), here(before[0]));
    assert_eq!(taken(8, 7), here(between));
    assert_ne!(between.hash, before[1].hash, "it is relative to the compaction before");
}

#[test]
fn longest_key_made_of_zero_bytes_is_stored() {
    let mut member = in_memory();
    let key = "\0".repeat(crate::types::KEY_BYTES_MAX);
    member.put(&key, "1");
    member.put(&key, "2");
    assert_eq!(member.list(&key, "", 2)[0].value, "1");
    assert_eq!(member.list("\0", "\0", 0).len(), 1);
    let longer = format!("{key}\0");
    let request = put(&longer, "");
    let refused = member.change(|change| change.put(&request, &|_| true)).0;
    assert!(matches!(refused, Err(ReadError::Storage(_))), "it must not be skipped: {refused:?}");
    assert!(member.list(&longer, "\0", 0).is_empty());
}
