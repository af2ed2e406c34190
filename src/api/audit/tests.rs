use std::{fs, path::PathBuf, time::Duration};

use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::{
    audit::{Options, Target},
    pb::etcdserverpb::{
        AuthUserAddRequest, Compare, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, MemberAddRequest,
        MemberAddResponse, PutRequest, PutResponse, RangeRequest, RequestOp, TxnRequest, TxnResponse,
        WatchCreateRequest, WatchRequest, compare::TargetUnion, request_op::Request, watch_request::RequestUnion,
    },
    types::Rejection,
};

/// What no line may hold.
const SECRET: &str = "geheim";

/// An audit log that keeps no reads.
struct World {
    audit: Arc<Audit>,
    path: PathBuf,
    _place: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("audit.log");
        let options = Options { target: Target::File(path.clone()), reads_per_million: 0, rotation: None };
        Self { audit: Audit::start(options).unwrap(), path, _place: place }
    }

    fn begin(&self) -> Arc<Entry> {
        let from = "[::ffff:10.0.0.7]:4711".parse().unwrap();
        let caller = Caller { from: Some(from), at: None, common_name: Some("apiserver".into()), via: Via::Gateway };
        Entry::begin(&self.audit, caller, "/s/M")
    }

    /// All lines.
    fn lines(self) -> Vec<Value> {
        assert!(self.audit.close(Duration::from_secs(10)));
        let text = fs::read_to_string(self.path).unwrap();
        assert!(!text.contains(SECRET), "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The line of a request that was answered so.
fn line(request: &impl Audited, answer: &impl Message) -> Value {
    let world = World::new();
    let entry = world.begin();
    entry.tell(request);
    entry.end(&Ok(()), &answer.encode_to_vec());
    drop(entry);
    let lines = world.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].clone()
}

fn header(revision: i64) -> ResponseHeader {
    ResponseHeader { cluster_id: 1, member_id: 2, revision, raft_term: 3 }
}

fn put(key: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: SECRET.into(), lease: 0x1f, ..Default::default() }
}

#[test]
fn a_line_tells_who_what_and_how_it_ended() {
    let world = World::new();
    let entry = world.begin();
    entry.recognised("alice");
    entry.tell(&put("a"));
    let answer = PutResponse { header: Some(header(7)), prev_kv: None };
    entry.end(&Ok(()), &answer.encode_to_vec());
    let lines = world.lines();
    let mut line = lines[0].as_object().unwrap().clone();
    let names: Vec<_> = line.keys().map(String::as_str).collect();
    let all = ["ts", "user", "from", "certificate", "via", "method", "key", "lease", "revision", "code", "took"];
    assert_eq!(names, all);
    let (took, time) = (line.remove("took").unwrap(), line.remove("ts").unwrap());
    assert!(took.as_str().unwrap().ends_with('s'), "{took}");
    assert!(humantime::parse_rfc3339(time.as_str().unwrap()).is_ok(), "{time}");
    let expected = json!({
        "user": "alice", "from": "10.0.0.7:4711", "certificate": "apiserver", "via": "gateway", "method": "/s/M",
        "key": "a", "lease": "1f", "revision": 7, "code": "OK",
    });
    assert_eq!(Value::from(line), expected);
}

#[test]
fn transactions_are_told_operation_by_operation() {
    let operation = |request| RequestOp { request: Some(request) };
    let inner = TxnRequest { success: vec![operation(Request::RequestPut(put("inner")))], ..Default::default() };
    let compared = Some(TargetUnion::Value(SECRET.into()));
    let range = RangeRequest { key: "a".into(), range_end: "b".into(), ..Default::default() };
    let txn = TxnRequest {
        compare: vec![Compare { key: "c".into(), target_union: compared, ..Default::default() }],
        success: vec![operation(Request::RequestPut(put("d"))), operation(Request::RequestTxn(inner))],
        failure: vec![operation(Request::RequestRange(range))],
    };
    let told = line(&txn, &TxnResponse { header: Some(header(8)), succeeded: true, responses: vec![] });
    let put = |key: &str| json!({"op": "put", "key": key, "lease": "1f"});
    let expected = json!({
        "then": [put("d"), {"op": "txn", "then": [put("inner")]}],
        "else": [{"op": "range", "key": "a", "range_end": "b"}],
        "compare": [{"key": "c"}],
    });
    assert_eq!(told["txn"], expected);
    assert_eq!((&told["succeeded"], &told["revision"]), (&json!(true), &json!(8)));
}

#[test]
fn long_transactions_are_cut() {
    let operation = RequestOp { request: Some(Request::RequestPut(put("some key or other"))) };
    let txn = TxnRequest { success: vec![operation; 10_000], ..Default::default() };
    let told = line(&txn, &TxnResponse { header: Some(header(8)), ..Default::default() });
    let shown = told["txn"]["then"].as_array().unwrap().len();
    assert_eq!(told["txn"]["then_left_out"], 10_000 - shown);
    assert!((100..200).contains(&shown), "{shown}");
    assert_eq!(told["succeeded"], false);
}

#[test]
fn of_users_the_names_are_told() {
    let user = AuthUserAddRequest {
        name: "bob".to_owned(),
        password: SECRET.to_owned(),
        hashed_password: SECRET.to_owned(),
        ..Default::default()
    };
    assert_eq!(line(&user, &PutResponse { header: Some(header(1)), prev_kv: None })["name"], "bob");
    let granted = LeaseGrantResponse { header: Some(header(1)), id: 0xabc, ttl: 5, error: String::new() };
    let told = line(&LeaseGrantRequest { ttl: 5, id: 0 }, &granted);
    assert_eq!((&told["lease"], &told["ttl"]), (&json!("abc"), &json!(5)));
}

#[test]
fn a_new_member_has_its_number_from_the_answer() {
    let urls = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect();
    let asked = MemberAddRequest { peer_ur_ls: urls(&["http://bob:geheim@a:1", "http://b:1"]), is_learner: false };
    let added = Member { id: 0xabc, peer_ur_ls: urls(&["http://a:1"]), ..Default::default() };
    let answer = MemberAddResponse { header: Some(header(1)), member: Some(added), members: vec![] };
    let told = line(&asked, &answer);
    assert_eq!((&told["member"], &told["peer_urls"]), (&json!("abc"), &json!(["http://a:1", "http://b:1"])));
}

#[test]
fn who_claims_to_be_somebody_is_named_until_it_is_proven() {
    let world = World::new();
    for is_true in [false, true] {
        let entry = world.begin();
        entry.claimed("alice");
        if is_true {
            entry.recognised("alice");
        }
        entry.end(&Ok(()), &[]);
    }
    let lines = world.lines();
    let told: Vec<_> = lines.iter().map(|line| (line["user"].as_str().unwrap(), line["name"].as_str())).collect();
    assert_eq!(told, [("", Some("alice")), ("alice", None)]);
}

#[test]
fn a_watch_has_the_number_that_it_was_given() {
    let world = World::new();
    let entry = world.begin();
    for watch_id in [0, 7] {
        let create = WatchCreateRequest { key: "w".into(), watch_id, ..Default::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        entry.step(&request).created(if watch_id == 0 { 12 } else { watch_id });
    }
    drop(entry);
    let lines = world.lines();
    assert_eq!(lines.iter().map(|line| line["watch"].as_i64()).collect::<Vec<_>>(), [Some(12), Some(7), None]);
}

#[test]
fn reads_are_left_out_unless_they_fail() {
    let world = World::new();
    let read = |outcome: Result<(), Status>| {
        let entry = world.begin();
        entry.tell(&RangeRequest { key: "k".into(), ..Default::default() });
        entry.end(&outcome, &[]);
    };
    read(Ok(()));
    read(Err(Status::canceled()));
    read(Err(Rejection::PermissionDenied.into()));
    // What could not be read, and is dropped.
    drop(world.begin());
    let lines = world.lines();
    let ends: Vec<_> =
        lines.iter().map(|line| (line["code"].as_str().unwrap(), line["error"].as_str().unwrap())).collect();
    assert_eq!(ends, [("PermissionDenied", "etcdserver: permission denied"), ("Canceled", "context canceled")]);
}

#[test]
fn requests_of_one_call_have_a_line_each() {
    let world = World::new();
    let entry = world.begin();
    let step = entry.step(&LeaseKeepAliveRequest { id: 5 });
    entry.recognised("alice");
    step.end(&Ok(()));
    entry.step(&LeaseKeepAliveRequest { id: 6 }).end(&Err::<(), _>(Status::from(Rejection::NoLeader)));
    entry.end(&Err::<(), _>(Status::from(Rejection::NoLeader)), &[]);
    let lines = world.lines();
    assert_eq!(lines.len(), 2, "a renewal is a read: {lines:?}");
    assert_eq!((&lines[0]["lease"], &lines[0]["user"]), (&json!("6"), &json!("alice")));
    assert_eq!(lines[0]["code"], "Unavailable");
    assert_eq!((&lines[1]["op"], &lines[1]["lease"]), (&json!("end"), &Value::Null));
}

#[test]
fn answers_without_a_header_tell_nothing() {
    let mut subject = Subject::default();
    for answer in [&b""[..], b"\x08\x01", b"\x0a\x05ab", b"\x0a\x02\x08"] {
        subject.tell_answer(answer);
    }
    assert!(subject.fields.is_empty());
}
