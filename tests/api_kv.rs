//! Ranges, puts, deletes, transactions and compaction as etcd's clients see them on one fresh member: contents, headers,
//! codes and texts. The same file runs against the real etcd with `SUBJECT_BIN`.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use bytes::Bytes;
use quorate::pb::{
    etcdserverpb::{
        CompactionRequest, Compare, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest, LeaseTimeToLiveRequest,
        PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::KeyValue,
};
use support::{
    daemon::Daemon,
    grpc::{Client, get, put},
    program::Program,
};
use tonic::{Code, Status};

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const EMPTY_KEY: &str = "etcdserver: key is not provided";
const NO_SUCH_KEY: &str = "etcdserver: key not found";
const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
const TOO_MANY_OPS: &str = "etcdserver: too many operations in txn request";

/// A member of its own and a connection to it.
async fn member(arguments: &[&str]) -> (Daemon, Client) {
    let daemon = Daemon::start(&Program::subject(), arguments);
    let client = Client::connect(&daemon.endpoint()).await.unwrap();
    (daemon, client)
}

/// What a refused call ended with.
fn refusal<T: std::fmt::Debug>(outcome: Result<tonic::Response<T>, Status>) -> (Code, String) {
    let status = outcome.expect_err("the call is refused");
    (status.code(), status.message().to_owned())
}

fn invalid(text: &str) -> (Code, String) {
    (Code::InvalidArgument, text.to_owned())
}

fn out_of_range(text: &str) -> (Code, String) {
    (Code::OutOfRange, text.to_owned())
}

impl Client {
    async fn read(&mut self, request: RangeRequest) -> RangeResponse {
        self.kv.range(request).await.unwrap().into_inner()
    }

    async fn write(&mut self, request: PutRequest) -> i64 {
        self.kv.put(request).await.unwrap().into_inner().header.unwrap().revision
    }

    async fn transact(&mut self, request: TxnRequest) -> TxnResponse {
        self.kv.txn(request).await.unwrap().into_inner()
    }

    async fn compact(&mut self, revision: i64) -> Result<tonic::Response<impl std::fmt::Debug + use<>>, Status> {
        self.kv.compact(CompactionRequest { revision, physical: false }).await
    }
}

fn interval(key: &'static [u8], end: &'static [u8]) -> RangeRequest {
    RangeRequest { key: Bytes::from_static(key), range_end: Bytes::from_static(end), ..Default::default() }
}

fn all() -> RangeRequest {
    interval(b"\0", b"\0")
}

fn keys(response: &RangeResponse) -> Vec<Bytes> {
    response.kvs.iter().map(|kv| kv.key.clone()).collect()
}

fn revision(response: &RangeResponse) -> i64 {
    response.header.unwrap().revision
}

#[tokio::test]
async fn headers_tell_who_answered_and_where_the_store_stands() {
    let (_daemon, mut client) = member(&[]).await;
    let first = client.read(get("k")).await;
    assert_eq!((revision(&first), first.count, first.kvs.len(), first.more), (1, 0, 0, false));
    let header = first.header.unwrap();
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0);
    assert_eq!(client.write(put("k", "v")).await, 2);
    let old = client.read(RangeRequest { revision: 1, ..get("k") }).await;
    assert_eq!((revision(&old), old.count), (2, 0), "the header shows the store, not the revision asked for");
    let again = client.read(get("k")).await.header.unwrap();
    assert_eq!((again.cluster_id, again.member_id, again.revision), (header.cluster_id, header.member_id, 2));
    let list = client.cluster.member_list(quorate::pb::etcdserverpb::MemberListRequest::default()).await.unwrap();
    let list = list.into_inner();
    assert_eq!(list.header.unwrap().revision, 0);
    assert_eq!(list.members.first().map(|member| member.id), Some(header.member_id));
    assert_eq!(
        client
            .maintenance
            .defragment(quorate::pb::etcdserverpb::DefragmentRequest {})
            .await
            .unwrap()
            .into_inner()
            .header,
        None
    );
}

#[tokio::test]
async fn ranges_select_count_cut_and_look_back() {
    let (_daemon, mut client) = member(&[]).await;
    for key in ["a", "ab", "b", "c", "\0", "\u{7f}"] {
        client.write(put(key, format!("value of {key}"))).await;
    }
    client.write(put(&b"\xff\xff\x01"[..], "")).await;
    assert_eq!(refusal(client.kv.range(RangeRequest::default()).await), invalid(EMPTY_KEY));
    for (order, target) in [(3, 0), (-1, 0), (0, 5), (1, 9)] {
        let request = RangeRequest { sort_order: order, sort_target: target, ..get("a") };
        assert_eq!(refusal(client.kv.range(request).await), invalid("etcdserver: invalid sort option"));
    }

    assert_eq!(keys(&client.read(get("a")).await), ["a"]);
    assert_eq!(keys(&client.read(interval(b"a", b"b")).await), ["a", "ab"]);
    assert_eq!(keys(&client.read(interval(b"b", b"\0")).await), [&b"b"[..], b"c", b"\x7f", b"\xff\xff\x01"]);
    assert_eq!(keys(&client.read(interval(b"\xff\xff", b"\0")).await), [&b"\xff\xff\x01"[..]]);
    assert_eq!(client.read(all()).await.count, 7);
    for end in [b"a", b"b"] {
        let empty = client.read(interval(b"b", end)).await;
        assert_eq!((empty.count, empty.kvs.len()), (0, 0));
    }
    assert_eq!(keys(&client.read(get("\0")).await), ["\0"]);

    let cut = client.read(RangeRequest { limit: 2, ..all() }).await;
    assert_eq!((cut.count, cut.more, keys(&cut)), (7, true, vec!["\0".into(), "a".into()]));
    let exact = client.read(RangeRequest { limit: 7, ..all() }).await;
    assert_eq!((exact.kvs.len(), exact.more), (7, false));
    for limit in [0, -1] {
        assert_eq!(client.read(RangeRequest { limit, ..all() }).await.kvs.len(), 7);
    }
    let counted = client.read(RangeRequest { count_only: true, limit: 1, ..all() }).await;
    assert_eq!((counted.count, counted.kvs.len(), counted.more), (7, 0, false));
    let bare = client.read(RangeRequest { keys_only: true, ..get("a") }).await.kvs.remove(0);
    assert_eq!((bare.value.len(), bare.version, bare.create_revision), (0, 1, 2));

    client.kv.delete_range(DeleteRangeRequest { key: "a".into(), ..Default::default() }).await.unwrap();
    let last = client.write(put("new", "")).await;
    let past = client.read(RangeRequest { revision: last - 2, ..all() }).await;
    assert!(keys(&past).contains(&"a".into()) && !keys(&past).contains(&"new".into()));
    assert_eq!(past.count, 7);
    let future = RangeRequest { revision: last + 1, ..get("a") };
    assert_eq!(refusal(client.kv.range(future).await), out_of_range(FUTURE));
    assert_eq!(client.read(RangeRequest { revision: -5, ..get("new") }).await.count, 1);
}

#[tokio::test]
async fn ranges_sort_and_filter_before_the_limit() {
    let (_daemon, mut client) = member(&[]).await;
    // By key: a b c. By creation: c a b. By change and version: b (2), c (3), a (4).
    for (key, value) in [("c", "2"), ("a", "9"), ("b", "5"), ("c", "1"), ("a", "7"), ("a", "3")] {
        client.write(put(key, value)).await;
    }
    let sorted = |order, target, limit| RangeRequest { sort_order: order, sort_target: target, limit, ..all() };
    let expected = [(0, "abc"), (1, "bca"), (2, "cab"), (3, "bca"), (4, "cab")];
    for (target, order) in expected {
        let ascending: Vec<Bytes> = order.chars().map(|key| key.to_string().into()).collect();
        let descending: Vec<Bytes> = ascending.iter().rev().cloned().collect();
        assert_eq!(keys(&client.read(sorted(1, target, 0)).await), ascending, "target {target}");
        assert_eq!(keys(&client.read(sorted(2, target, 0)).await), descending, "target {target}");
        let cut = client.read(sorted(2, target, 2)).await;
        assert_eq!((keys(&cut), cut.more, cut.count), (descending[..2].to_vec(), true, 3));
    }
    assert_eq!(keys(&client.read(sorted(0, 2, 0)).await), ["c", "a", "b"], "no order and a target sorts ascending");

    let created = RangeRequest { min_create_revision: 3, max_create_revision: 4, ..all() };
    let created = client.read(created).await;
    assert_eq!((keys(&created), created.count), (vec!["a".into(), "b".into()], 3));
    let changed = RangeRequest { min_mod_revision: 5, max_mod_revision: 7, max_create_revision: 2, ..all() };
    assert_eq!(keys(&client.read(changed).await), ["c"]);
}

#[tokio::test]
async fn puts_count_versions_and_honour_their_flags() {
    let (_daemon, mut client) = member(&[]).await;
    let created = client.kv.put(PutRequest { prev_kv: true, ..put("k", "1") }).await.unwrap().into_inner();
    assert_eq!(created.prev_kv, None);
    let replaced = client.kv.put(PutRequest { prev_kv: true, ..put("k", "") }).await.unwrap().into_inner();
    let before =
        KeyValue { key: "k".into(), create_revision: 2, mod_revision: 2, version: 1, value: "1".into(), lease: 0 };
    assert_eq!(replaced.prev_kv, Some(before.clone()));
    let now = client.read(get("k")).await.kvs.remove(0);
    assert_eq!(now, KeyValue { mod_revision: 3, version: 2, value: Bytes::new(), ..before });
    client.kv.delete_range(DeleteRangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
    client.write(put("k", "again")).await;
    let reborn = client.read(get("k")).await.kvs.remove(0);
    assert_eq!((reborn.version, reborn.create_revision), (1, 5));

    assert_eq!(refusal(client.kv.put(PutRequest::default()).await), invalid(EMPTY_KEY));
    let both = PutRequest { ignore_value: true, ..put("k", "x") };
    assert_eq!(refusal(client.kv.put(both).await), invalid("etcdserver: value is provided"));
    let both = PutRequest { ignore_lease: true, lease: 7, ..put("k", "x") };
    assert_eq!(refusal(client.kv.put(both).await), invalid("etcdserver: lease is provided"));
    for request in [
        PutRequest { ignore_value: true, ..put("missing", "") },
        PutRequest { ignore_lease: true, ..put("missing", "") },
    ] {
        assert_eq!(refusal(client.kv.put(request).await), invalid(NO_SUCH_KEY));
    }
    client.write(PutRequest { ignore_value: true, ..put("k", "") }).await;
    let touched = client.read(get("k")).await.kvs.remove(0);
    assert_eq!((touched.version, touched.value), (2, "again".into()));
}

#[tokio::test]
async fn leases_attach_move_and_detach() {
    let (_daemon, mut client) = member(&[]).await;
    for id in [7, 8] {
        client.lease.lease_grant(LeaseGrantRequest { ttl: 60, id }).await.unwrap();
    }
    let before = client.write(PutRequest { lease: 7, ..put("k", "v") }).await;
    let unknown = client.kv.put(PutRequest { lease: 9, ..put("k", "w") }).await;
    assert_eq!(refusal(unknown), (Code::NotFound, "etcdserver: requested lease not found".into()));
    let kept = client.read(get("k")).await;
    assert_eq!((revision(&kept), &kept.kvs[0].value[..], kept.kvs[0].lease), (before, &b"v"[..], 7));
    client.write(PutRequest { ignore_lease: true, ..put("k", "w") }).await;
    assert_eq!(client.read(get("k")).await.kvs[0].lease, 7);
    let mut attached = async |id| {
        let request = LeaseTimeToLiveRequest { id, keys: true };
        client.lease.lease_time_to_live(request).await.unwrap().into_inner().keys
    };
    assert_eq!((attached(7).await, attached(8).await), (vec![Bytes::from("k")], vec![]));
    client.write(PutRequest { lease: 8, ..put("k", "w") }).await;
    let mut attached = async |id| {
        let request = LeaseTimeToLiveRequest { id, keys: true };
        client.lease.lease_time_to_live(request).await.unwrap().into_inner().keys
    };
    assert_eq!((attached(7).await, attached(8).await), (vec![], vec![Bytes::from("k")]));
    client.write(put("k", "w")).await;
    assert_eq!(client.read(get("k")).await.kvs[0].lease, 0);
}

#[tokio::test]
async fn requests_have_a_size() {
    let (_daemon, mut client) = member(&[]).await;
    let mut sized = async |bytes: usize| client.kv.put(put("k", vec![b'v'; bytes])).await;
    sized(1_572_000).await.unwrap();
    assert_eq!(refusal(sized(1_573_000).await), invalid("etcdserver: request is too large"));
    let (code, text) = refusal(sized(2_097_153).await);
    assert_eq!(code, Code::ResourceExhausted);
    assert!(text.starts_with("grpc: received message larger than max (20971"), "{text}");
    assert!(text.ends_with(" vs. 2097152)"), "{text}");
}

#[tokio::test]
async fn deletes_count_and_show_what_was() {
    let (_daemon, mut client) = member(&[]).await;
    for key in ["a", "b", "c", "d", "e"] {
        client.write(put(key, key)).await;
    }
    let delete = |key: &'static str, end: &'static [u8], prev_kv| DeleteRangeRequest {
        key: key.into(),
        range_end: Bytes::from_static(end),
        prev_kv,
    };
    assert_eq!(refusal(client.kv.delete_range(DeleteRangeRequest::default()).await), invalid(EMPTY_KEY));
    let mut gone = async |request| {
        let answer = client.kv.delete_range(request).await.unwrap().into_inner();
        let prev: Vec<Bytes> = answer.prev_kvs.into_iter().map(|kv| kv.key).collect();
        (answer.deleted, answer.header.unwrap().revision, prev)
    };
    assert_eq!(gone(delete("x", b"", true)).await, (0, 6, vec![]));
    assert_eq!(gone(delete("b", b"a", true)).await, (0, 6, vec![]));
    assert_eq!(gone(delete("a", b"", false)).await, (1, 7, vec![]));
    assert_eq!(gone(delete("b", b"d", true)).await, (2, 8, vec!["b".into(), "c".into()]));
    assert_eq!(gone(delete("\0", b"\0", true)).await, (2, 9, vec!["d".into(), "e".into()]));
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put_op(key: &'static str, value: &'static str) -> RequestOp {
    op(Request::RequestPut(put(key, value)))
}

fn get_op(key: &'static str) -> RequestOp {
    op(Request::RequestRange(get(key)))
}

fn delete_op(key: &'static [u8], end: &'static [u8]) -> RequestOp {
    let range_end = Bytes::from_static(end);
    op(Request::RequestDeleteRange(DeleteRangeRequest { key: Bytes::from_static(key), range_end, prev_kv: false }))
}

fn txn_op(request: TxnRequest) -> RequestOp {
    op(Request::RequestTxn(request))
}

fn then(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..Default::default() }
}

fn when(compare: Compare) -> TxnRequest {
    TxnRequest { compare: vec![compare], ..Default::default() }
}

fn compare(key: &'static str, target: CompareTarget, result: CompareResult, operand: Option<TargetUnion>) -> Compare {
    let (result, target) = (result.into(), target.into());
    Compare { result, target, key: key.into(), range_end: Bytes::new(), target_union: operand }
}

#[tokio::test]
async fn compares_hold_as_etcds_do() {
    let (_daemon, mut client) = member(&[]).await;
    client.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 5 }).await.unwrap();
    client.write(put("k", "m")).await;
    client.write(PutRequest { lease: 5, ..put("k", "m") }).await;
    client.write(put("k2", "m")).await;
    // The pair k: created at 2, changed at 3, version 2, lease 5, value m.
    let targets: [(CompareTarget, [TargetUnion; 3]); 5] = [
        (CompareTarget::Version, [1, 2, 3].map(TargetUnion::Version)),
        (CompareTarget::Create, [1, 2, 3].map(TargetUnion::CreateRevision)),
        (CompareTarget::Mod, [2, 3, 4].map(TargetUnion::ModRevision)),
        (CompareTarget::Lease, [4, 5, 6].map(TargetUnion::Lease)),
        (CompareTarget::Value, ["l", "m", "n"].map(|value| TargetUnion::Value(value.into()))),
    ];
    let results = [
        (CompareResult::Equal, [false, true, false]),
        (CompareResult::NotEqual, [true, false, true]),
        (CompareResult::Greater, [true, false, false]),
        (CompareResult::Less, [false, false, true]),
    ];
    for (target, operands) in targets {
        for (result, expected) in results {
            for (operand, holds) in operands.iter().zip(expected) {
                let request = when(compare("k", target, result, Some(operand.clone())));
                assert_eq!(client.transact(request).await.succeeded, holds, "{target:?} {result:?} {operand:?}");
            }
        }
    }

    let mut holds = async |compare: Compare| client.transact(when(compare)).await.succeeded;
    for target in [CompareTarget::Version, CompareTarget::Create, CompareTarget::Mod, CompareTarget::Lease] {
        assert!(holds(compare("missing", target, CompareResult::Equal, None)).await, "{target:?}");
    }
    for result in [CompareResult::Equal, CompareResult::NotEqual, CompareResult::Less, CompareResult::Greater] {
        let value = Some(TargetUnion::Value(Bytes::new()));
        assert!(!holds(compare("missing", CompareTarget::Value, result, value)).await, "{result:?}");
    }
    let mismatched = Some(TargetUnion::Lease(2));
    assert!(!holds(compare("k", CompareTarget::Version, CompareResult::Equal, mismatched.clone())).await);
    assert!(holds(compare("missing", CompareTarget::Version, CompareResult::Equal, mismatched)).await);

    let over =
        |target, result, operand| Compare { range_end: "l".into(), ..compare("k", target, result, Some(operand)) };
    let value = |value: &'static str| TargetUnion::Value(value.into());
    assert!(holds(over(CompareTarget::Value, CompareResult::Equal, value("m"))).await, "both keys have it");
    assert!(!holds(over(CompareTarget::Version, CompareResult::Equal, TargetUnion::Version(2))).await, "one has not");
    let nobody = Compare { range_end: "y".into(), ..compare("x", CompareTarget::Version, CompareResult::Equal, None) };
    assert!(holds(nobody).await, "an empty interval is like a missing key");
}

#[tokio::test]
async fn transactions_are_checked_before_they_run() {
    let (_daemon, mut client) = member(&[]).await;
    let mut refused = async |request: TxnRequest| refusal(client.kv.txn(request).await);
    let many = |count| vec![get_op("k"); count];
    let compares = |count| vec![compare("k", CompareTarget::Version, CompareResult::Equal, None); count];
    assert_eq!(refused(then(many(129))).await, invalid(TOO_MANY_OPS));
    assert_eq!(refused(TxnRequest { failure: many(129), ..Default::default() }).await, invalid(TOO_MANY_OPS));
    assert_eq!(refused(TxnRequest { compare: compares(129), ..Default::default() }).await, invalid(TOO_MANY_OPS));
    let mut nested = many(100);
    nested.push(txn_op(then(many(28))));
    assert_eq!(refused(then(nested.clone())).await, invalid(TOO_MANY_OPS), "nested operations share the limit");

    let empty = Compare { key: Bytes::new(), ..compare("k", CompareTarget::Version, CompareResult::Equal, None) };
    assert_eq!(refused(when(empty)).await, invalid(EMPTY_KEY));
    assert_eq!(refused(then(vec![put_op("", "v")])).await, invalid(EMPTY_KEY));
    assert_eq!(refused(TxnRequest { failure: vec![get_op("")], ..Default::default() }).await, invalid(EMPTY_KEY));
    assert_eq!(refused(then(vec![RequestOp { request: None }])).await, invalid(NO_SUCH_KEY));

    assert_eq!(refused(then(vec![put_op("k", "1"), put_op("k", "2")])).await, invalid(DUPLICATE));
    assert_eq!(refused(then(vec![put_op("b", "1"), delete_op(b"a", b"c")])).await, invalid(DUPLICATE));
    assert_eq!(refused(then(vec![delete_op(b"a", b"c"), put_op("b", "1")])).await, invalid(DUPLICATE));
    let inner = |key| txn_op(then(vec![put_op(key, "v")]));
    assert_eq!(refused(then(vec![inner("k"), inner("k")])).await, invalid(DUPLICATE));

    nested.pop();
    nested.push(txn_op(then(many(27))));
    for allowed in [
        then(many(128)),
        then(nested),
        then(vec![put_op("c", "1"), delete_op(b"a", b"c")]),
        then(vec![delete_op(b"a", b"c"), delete_op(b"b", b"d")]),
        then(vec![txn_op(TxnRequest {
            success: vec![put_op("k", "1")],
            failure: vec![put_op("k", "2")],
            ..Default::default()
        })]),
        TxnRequest { success: vec![put_op("k", "1")], failure: vec![put_op("k", "2")], ..Default::default() },
    ] {
        client.kv.txn(allowed).await.unwrap();
    }
}

/// What is accepted must be readable as an entry of the log. The library of this client reads answers to a depth of 49
/// transactions; that a deeper one was carried out is looked up.
#[tokio::test]
async fn the_deepest_transaction_survives_a_restart_and_a_deeper_one_is_refused() {
    let (mut daemon, mut client) = member(&[]).await;
    let nest = |levels| (0..levels).fold(then(vec![put_op("deep", "1")]), |inner, _| then(vec![txn_op(inner)]));
    let answer = client.kv.txn(nest(48)).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().revision, 2);
    let unread = client.kv.txn(nest(127)).await.unwrap_err();
    assert!(unread.message().contains("recursion limit reached"), "{unread}");
    for levels in [128, 1_000] {
        assert_eq!(refusal(client.kv.txn(nest(levels)).await), invalid(TOO_MANY_OPS), "{levels}");
    }
    daemon.kill();
    daemon.restart();
    let mut client = Client::connect(&daemon.endpoint()).await.unwrap();
    assert_eq!(client.read(get("deep")).await.kvs.first().map(|kv| kv.mod_revision), Some(3));
}

#[tokio::test]
async fn transactions_take_one_revision_and_see_their_own_writes() {
    let (_daemon, mut client) = member(&[]).await;
    client.write(put("old", "1")).await;
    let request = then(vec![
        get_op("k"),
        put_op("k", "v"),
        get_op("k"),
        put_op("k2", "v"),
        delete_op(b"old", b""),
        txn_op(then(vec![put_op("k3", "v")])),
    ]);
    let answer = client.transact(request).await;
    assert!(answer.succeeded);
    assert_eq!(answer.header.unwrap().revision, 3);
    let parts: Vec<&Response> =
        answer.responses.iter().map(|part: &ResponseOp| part.response.as_ref().unwrap()).collect();
    let [
        Response::ResponseRange(before),
        Response::ResponsePut(written),
        Response::ResponseRange(after),
        Response::ResponsePut(_),
        Response::ResponseDeleteRange(deleted),
        Response::ResponseTxn(nested),
    ] = parts[..]
    else {
        panic!("{parts:?}")
    };
    assert_eq!((before.count, revision(before)), (0, 2));
    assert_eq!((after.count, revision(after)), (1, 3));
    let header = written.header.unwrap();
    assert_eq!((header.revision, header.member_id, header.raft_term), (3, 0, 0));
    assert_eq!((deleted.deleted, deleted.header.unwrap().revision), (1, 3));
    assert_eq!(nested.header.unwrap_or_default(), ResponseHeader::default());
    assert!(nested.succeeded);
    let kvs = client.read(all()).await.kvs;
    assert_eq!(kvs.iter().map(|kv| kv.mod_revision).collect::<Vec<_>>(), [3, 3, 3]);

    let nothing = client.transact(then(vec![delete_op(b"x", b"y"), get_op("k")])).await;
    assert_eq!(nothing.header.unwrap().revision, 3);
    let exists = compare("k", CompareTarget::Version, CompareResult::Greater, None);
    let branches = |compare| TxnRequest {
        compare: vec![compare],
        success: vec![
            put_op("k", "w"),
            txn_op(TxnRequest {
                compare: vec![compare_value("k", "v")],
                success: vec![get_op("k")],
                failure: vec![get_op("k"), get_op("k")],
            }),
        ],
        failure: vec![get_op("k")],
    };
    let taken = client.transact(branches(exists.clone())).await;
    assert_eq!((taken.succeeded, taken.responses.len()), (true, 2));
    let Some(Response::ResponseTxn(inner)) = &taken.responses[1].response else { panic!("{taken:?}") };
    assert_eq!((inner.succeeded, inner.responses.len()), (true, 1), "compares look at the state before");
    let other = client.transact(branches(Compare { key: "x".into(), ..exists })).await;
    assert_eq!((other.succeeded, other.responses.len()), (false, 1));
    let empty = client.transact(TxnRequest::default()).await;
    assert!(empty.succeeded && empty.responses.is_empty());
}

fn compare_value(key: &'static str, value: &'static str) -> Compare {
    compare(key, CompareTarget::Value, CompareResult::Equal, Some(TargetUnion::Value(value.into())))
}

#[tokio::test]
async fn a_failing_operation_takes_the_whole_transaction_with_it() {
    let (_daemon, mut client) = member(&[]).await;
    let last = client.write(put("k", "v")).await;
    let lease = |key: &'static str| op(Request::RequestPut(PutRequest { lease: 99, ..put(key, "w") }));
    let mut refused = async |request: TxnRequest| refusal(client.kv.txn(request).await);
    let no_lease = (Code::NotFound, "etcdserver: requested lease not found".to_owned());
    assert_eq!(refused(then(vec![put_op("k", "w"), lease("k2")])).await, no_lease);
    let at = |revision| op(Request::RequestRange(RangeRequest { revision, ..get("k") }));
    assert_eq!(refused(then(vec![put_op("k", "w"), at(last + 1)])).await, out_of_range(FUTURE));
    let ignoring = op(Request::RequestPut(PutRequest { ignore_value: true, ..put("missing", "") }));
    assert_eq!(refused(then(vec![put_op("k", "w"), ignoring])).await, invalid(NO_SUCH_KEY));
    let kept = client.read(get("k")).await;
    assert_eq!((revision(&kept), &kept.kvs[0].value[..]), (last, &b"v"[..]));
    let untaken = TxnRequest { success: vec![put_op("k", "w")], failure: vec![lease("k2")], ..Default::default() };
    assert!(client.transact(untaken).await.succeeded);
    client.write(put("k", "x")).await;
    client.compact(4).await.unwrap();
    let mut refused = async |request: TxnRequest| refusal(client.kv.txn(request).await);
    for revision in [2, -2] {
        assert_eq!(refused(then(vec![put_op("k", "w"), at(revision)])).await, out_of_range(COMPACTED));
        assert_eq!(refused(then(vec![at(revision)])).await, out_of_range(COMPACTED));
    }
}

#[tokio::test]
async fn compaction_gives_up_history_and_nothing_else() {
    let (mut daemon, mut client) = member(&[]).await;
    for value in ["1", "2", "3", "4"] {
        client.write(put("k", value)).await;
    }
    client.write(put("gone", "")).await;
    client.kv.delete_range(DeleteRangeRequest { key: "gone".into(), ..Default::default() }).await.unwrap();
    let at = |revision| RangeRequest { revision, ..get("k") };
    assert_eq!(refusal(client.compact(8).await), out_of_range(FUTURE));
    client.compact(4).await.unwrap();
    assert_eq!(refusal(client.kv.range(at(3)).await), out_of_range(COMPACTED));
    assert_eq!(&client.read(at(4)).await.kvs[0].value[..], b"3");
    for again in [4, 3, 0, -1] {
        assert_eq!(refusal(client.compact(again).await), out_of_range(COMPACTED));
    }
    assert_eq!(revision(&client.read(get("k")).await), 7);
    client.kv.compact(CompactionRequest { revision: 7, physical: true }).await.unwrap();
    let hash = client.maintenance.hash_kv(HashKvRequest { revision: 7 }).await.unwrap().into_inner();
    assert_eq!(hash.hash_revision, 7);
    let below = client.maintenance.hash_kv(HashKvRequest { revision: 6 }).await;
    assert_eq!(refusal(below), out_of_range(COMPACTED));
    let above = client.maintenance.hash_kv(HashKvRequest { revision: 8 }).await;
    assert_eq!(refusal(above), out_of_range(FUTURE));

    daemon.terminate();
    daemon.restart();
    let mut client = Client::connect(&daemon.endpoint()).await.unwrap();
    let kept = client.read(get("k")).await;
    assert_eq!((revision(&kept), &kept.kvs[0].value[..]), (7, &b"4"[..]), "the deleted key still counts");
}

#[tokio::test]
async fn streams_of_a_range_add_up_to_the_range() {
    let (_daemon, mut client) = member(&[]).await;
    for number in 0..1_000 {
        client.write(put(format!("k{number:04}"), vec![b'v'; 4_000])).await;
    }
    let prefix = interval(b"k", b"l");
    for request in [
        prefix.clone(),
        RangeRequest { limit: 25, ..prefix.clone() },
        RangeRequest { count_only: true, ..prefix.clone() },
        RangeRequest { keys_only: true, ..prefix.clone() },
        RangeRequest { revision: 500, ..prefix.clone() },
        RangeRequest { sort_order: 1, ..prefix.clone() },
        interval(b"x", b"y"),
    ] {
        let whole = client.read(request.clone()).await;
        let mut stream = client.kv.range_stream(request.clone()).await.unwrap().into_inner();
        let mut merged = RangeResponse::default();
        let (mut messages, mut first) = (0, 0);
        while let Some(message) = stream.message().await.unwrap() {
            let part = message.range_response.unwrap();
            assert!(merged.header.is_none(), "only the last message has a header");
            if messages == 0 {
                first = part.kvs.len();
            }
            messages += 1;
            merged.kvs.extend(part.kvs);
            (merged.header, merged.more, merged.count) = (part.header, part.more, part.count);
        }
        assert_eq!(merged, whole, "{request:?}");
        assert!(first <= 10, "{first}");
        assert_eq!(messages > 1, whole.kvs.len() > 10);
    }
    let refused = async |client: &mut Client, request| {
        let mut stream = match client.kv.range_stream(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return (status.code(), status.message().to_owned()),
        };
        let status = stream.message().await.expect_err("the stream is refused");
        (status.code(), status.message().to_owned())
    };
    let orders = "RangeStream does not support custom sort orders".to_owned();
    let filters = "RangeStream does not support revision filters".to_owned();
    let descending = RangeRequest { sort_order: 2, ..prefix.clone() };
    assert_eq!(refused(&mut client, descending).await, (Code::Unimplemented, orders));
    let filtered = RangeRequest { min_mod_revision: 1, ..prefix.clone() };
    assert_eq!(refused(&mut client, filtered).await, (Code::Unimplemented, filters));
    assert_eq!(refused(&mut client, RangeRequest::default()).await, invalid(EMPTY_KEY));
    let future = RangeRequest { revision: 5_000, ..prefix };
    assert_eq!(refused(&mut client, future).await, out_of_range(FUTURE));
}

#[tokio::test]
async fn the_quota_is_looked_at_before_the_request_and_raises_the_alarm() {
    let (_daemon, mut client) = member(&["--quota-backend-bytes=1"]).await;
    let no_space = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned());
    assert_eq!(refusal(client.kv.put(PutRequest::default()).await), no_space);
    assert_eq!(refusal(client.kv.put(put("k", "v")).await), no_space);
    assert_eq!(refusal(client.kv.txn(then(vec![put_op("k", "v")])).await), no_space);
    let grant = client.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 1 }).await;
    assert_eq!(refusal(grant), no_space);
    client.kv.delete_range(DeleteRangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
    client.transact(then(vec![get_op("k"), delete_op(b"k", b"")])).await;
    client.compact(1).await.unwrap();
    let alarms = client.maintenance.alarm(quorate::pb::etcdserverpb::AlarmRequest::default()).await.unwrap();
    assert_eq!(alarms.into_inner().alarms.iter().map(|alarm| alarm.alarm).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn a_burst_does_not_pass_the_quota() {
    let (_daemon, mut client) = member(&["--quota-backend-bytes=2000000"]).await;
    let value = bytes::Bytes::from(vec![b'v'; 400_000]);
    let mut accepted = 0;
    for number in 0..12 {
        accepted += usize::from(client.kv.put(put(format!("k{number}"), value.clone())).await.is_ok());
    }
    assert!((1..=5).contains(&accepted), "{accepted} puts of 400 kB fit into 2 MB");
}
