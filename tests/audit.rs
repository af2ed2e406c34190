//! The audit log: whatever a client does, and through whichever door, there is one line that says who did what to which key and
//! how it ended, and no line that says a secret. What the lines are written to holds up nobody.

mod support;

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};
use quorate::pb::{
    authpb,
    etcdserverpb::{
        self as pb, auth_client::AuthClient, compare::TargetUnion, request_op::Request as Op,
        watch_request::RequestUnion,
    },
};
use serde_json::{Value, json};
use support::{
    daemon::{Daemon, free_ports},
    grpc::{Client, get, put},
    http, now,
    program::Program,
    v2, wait_for,
};
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

/// Longest wait for a line.
const PATIENCE: Duration = Duration::from_secs(20);
/// Values and passwords all hold this, and no line does.
const SECRET: &str = "geheim";
/// Authentication that costs little time.
const CHEAP: &str = "--bcrypt-cost=4";

/// A daemon with an audit log.
struct World {
    daemon: Daemon,
    path: PathBuf,
    runtime: Runtime,
    _place: tempfile::TempDir,
}

impl World {
    fn start(flags: &[&str]) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("audit/audit.log");
        let named = format!("--audit-log={}", path.display());
        let daemon = Daemon::start(&Program::subject(), &[&[named.as_str(), CHEAP], flags].concat());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { daemon, path, runtime, _place: place }
    }

    fn client(&self) -> Client {
        self.runtime.block_on(Client::connect(&self.daemon.endpoint())).expect("the member serves")
    }

    fn auth(&self) -> AuthClient<tonic::transport::Channel> {
        AuthClient::new(self.client().channel)
    }

    /// All lines until one is there that `is_last`.
    fn lines_until(&self, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let found = wait_for(PATIENCE, || Some(lines(&self.path)).filter(|lines| lines.iter().any(&is_last)));
        found.unwrap_or_else(|| panic!("the last line does not come:\n{}", read(&self.path)))
    }

    /// A user, his roles, and the switch.
    fn make_users(&self) {
        let mut auth = self.auth();
        self.runtime.block_on(async {
            for name in ["root", "alice"] {
                let (name, password) = (name.to_owned(), format!("{SECRET}-{name}"));
                auth.user_add(pb::AuthUserAddRequest { name, password, ..Default::default() }).await.expect("a user");
            }
            for (user, role) in [("root", "root"), ("alice", "readers")] {
                let (user, role) = (user.to_owned(), role.to_owned());
                auth.role_add(pb::AuthRoleAddRequest { name: role.clone() }).await.expect("a role");
                auth.user_grant_role(pb::AuthUserGrantRoleRequest { user, role }).await.expect("a grant");
            }
            let perm = authpb::Permission { perm_type: 0, key: "a".into(), range_end: "b".into() };
            let name = "readers".to_owned();
            let grant = pb::AuthRoleGrantPermissionRequest { name, perm: Some(perm) };
            auth.role_grant_permission(grant).await.expect("a permission");
            auth.auth_enable(pb::AuthEnableRequest {}).await.expect("authentication");
        });
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = read(path);
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The fields of `expected`, as the line has them.
fn has(line: &Value, expected: &Value) -> bool {
    expected.as_object().expect("fields").iter().all(|(name, value)| line.get(name) == Some(value))
}

/// The one line with these fields.
fn the<'l>(lines: &'l [Value], expected: &Value) -> &'l Value {
    let found: Vec<&Value> = lines.iter().filter(|line| has(line, expected)).collect();
    let shown = || lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(found.len(), 1, "{} lines with {expected} in\n{}", found.len(), shown());
    found.first().expect("one")
}

/// The value of a metric with these labels; zero if it is not there.
fn metric(address: SocketAddr, result: &str) -> u64 {
    let text = http::get(address, "/metrics").expect("metrics").body;
    let row = format!("quorate_audit_records_total{{result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&row)).map_or(0, |count| count.parse().expect("a number"))
}

fn with<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().expect("a token"));
    request
}

/// What a client does with keys, and what the log says of it.
#[test]
fn every_request_has_a_line() {
    let world = World::start(&[]);
    let mut client = world.client();
    let lease = world.runtime.block_on(async {
        let lease = client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await.expect("a lease");
        let lease = lease.into_inner().id;
        let leased = pb::PutRequest { lease, ..put("leased", SECRET) };
        client.kv.put(leased).await.expect("a put");
        client.kv.put(put(&b"odd\xff\\"[..], SECRET)).await.expect("a put");
        let range = pb::RangeRequest { range_end: "p".into(), ..get("l") };
        assert_eq!(client.kv.range(range).await.expect("a range").into_inner().count, 2);
        let compare = pb::Compare {
            key: "leased".into(),
            target: 3,
            target_union: Some(TargetUnion::Value(SECRET.into())),
            ..Default::default()
        };
        let operation = |request| pb::RequestOp { request: Some(request) };
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![operation(Op::RequestPut(put("by-txn", SECRET)))],
            failure: vec![operation(Op::RequestRange(get("other")))],
        };
        assert!(client.kv.txn(txn).await.expect("a transaction").into_inner().succeeded);
        watch(&mut client).await;
        let keep = tokio_stream::once(pb::LeaseKeepAliveRequest { id: lease });
        let mut kept = client.lease.lease_keep_alive(keep).await.expect("a stream").into_inner();
        assert_eq!(kept.message().await.expect("an answer").expect("an answer").id, lease);
        client.lease.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await.expect("revoked");
        let delete = pb::DeleteRangeRequest { key: "by-txn".into(), range_end: "c".into(), ..Default::default() };
        client.kv.delete_range(delete).await.expect("deleted");
        let gone = client.lease.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await.expect_err("it is gone");
        assert_eq!(gone.code(), Code::NotFound);
        lease
    });
    drop(client);
    let (address, lease) = (world.daemon.client, format!("{lease:x}"));
    let body = json!({"key": BASE64_STANDARD.encode("by-json"), "value": BASE64_STANDARD.encode(SECRET)});
    assert_eq!(http::post(address, "/v3/kv/put", &body.to_string()).expect("an answer").status, 200);
    assert_eq!(v2::ask(address, "PUT", "/v2/keys/dir/x%20y", &format!("value={SECRET}")).status, 201);
    let compared = format!("/v2/keys/dir/x%20y?prevValue={SECRET}2");
    assert_eq!(v2::ask(address, "PUT", &compared, "value=geheim3").status, 412);
    assert_eq!(v2::ask(address, "GET", "/v2/keys/none", "").status, 404);

    let lines = world.lines_until(|line| line["path"] == "/v2/keys/none");
    for line in &lines {
        assert_eq!(line["user"], "", "{line}");
        let from = line["from"].as_str().expect("an address").parse::<SocketAddr>().expect("an address");
        assert!(from.ip().is_loopback() && from.port() > 0, "{line}");
        assert!(humantime::parse_rfc3339(line["ts"].as_str().expect("a time")).is_ok(), "{line}");
    }
    let grpc = |method: &str, more: Value| {
        let mut expected = json!({"via": "grpc", "method": format!("/etcdserverpb.{method}"), "code": "OK"});
        expected.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        expected
    };
    assert_eq!(the(&lines, &grpc("Lease/LeaseGrant", json!({"ttl": 60})))["lease"], lease.as_str());
    let line = the(&lines, &grpc("KV/Put", json!({"key": "leased", "lease": lease, "revision": 2})));
    assert!(line["took"].as_str().expect("a time").ends_with('s'), "{line}");
    the(&lines, &grpc("KV/Put", json!({"key": "odd\\xff\\\\", "revision": 3})));
    the(&lines, &grpc("KV/Range", json!({"key": "l", "range_end": "p", "revision": 3})));
    let txn = json!({
        "then": [{"op": "put", "key": "by-txn"}],
        "else": [{"op": "range", "key": "other"}],
        "compare": [{"key": "leased"}],
    });
    the(&lines, &grpc("KV/Txn", json!({"txn": txn, "succeeded": true, "revision": 4})));
    the(&lines, &grpc("Watch/Watch", json!({"op": "create", "key": "w", "range_end": "x", "watch": 7})));
    the(&lines, &grpc("Watch/Watch", json!({"op": "cancel", "watch": 7})));
    the(&lines, &json!({"method": "/etcdserverpb.Watch/Watch", "op": "end"}));
    the(&lines, &grpc("Lease/LeaseKeepAlive", json!({"lease": lease})));
    the(&lines, &grpc("Lease/LeaseRevoke", json!({"lease": lease, "revision": 5})));
    the(&lines, &grpc("KV/DeleteRange", json!({"key": "by-txn", "range_end": "c", "revision": 6})));
    let error = "etcdserver: requested lease not found";
    the(&lines, &json!({"method": "/etcdserverpb.Lease/LeaseRevoke", "code": "NotFound", "error": error}));
    let json =
        json!({"via": "gateway", "method": "/etcdserverpb.KV/Put", "key": "by-json", "revision": 7, "code": "OK"});
    the(&lines, &json);
    the(&lines, &json!({"via": "v2", "method": "PUT", "path": "/v2/keys/dir/x y", "code": "OK", "status": 201}));
    let refused = json!({"via": "v2", "code": "FailedPrecondition", "error": "Compare failed", "status": 412});
    the(&lines, &refused);
    the(&lines, &json!({"via": "v2", "method": "GET", "code": "NotFound", "error": "Key not found"}));
    assert!(!read(&world.path).contains(SECRET), "{}", read(&world.path));
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&world.path), mode(world.path.parent().expect("a directory"))), (0o600, 0o700));
    assert_eq!(metric(address, "written"), lines.len() as u64);
}

/// Creates a watcher, and takes it back.
async fn watch(client: &mut Client) {
    let (asking, asked) = mpsc::channel(1);
    let create = pb::WatchCreateRequest { key: "w".into(), range_end: "x".into(), watch_id: 7, ..Default::default() };
    let request = |union| pb::WatchRequest { request_union: Some(union) };
    asking.send(request(RequestUnion::CreateRequest(create))).await.expect("asked");
    let mut answers = client.watch.watch(ReceiverStream::new(asked)).await.expect("a stream").into_inner();
    assert!(answers.message().await.expect("an answer").expect("an answer").created);
    let cancel = pb::WatchCancelRequest { watch_id: 7 };
    asking.send(request(RequestUnion::CancelRequest(cancel))).await.expect("asked");
    assert!(answers.message().await.expect("an answer").expect("an answer").canceled);
}

/// Who is recognised is named, who is not is refused by name, and nobody's password or token is told.
#[test]
fn users_are_named_and_their_secrets_are_not() {
    let world = World::start(&[]);
    world.make_users();
    let (mut client, mut auth) = (world.client(), world.auth());
    let token = world.runtime.block_on(async {
        let wrong = pb::AuthenticateRequest { name: "alice".to_owned(), password: format!("{SECRET}-wrong") };
        assert_eq!(auth.authenticate(wrong).await.expect_err("refused").code(), Code::InvalidArgument);
        let right = pb::AuthenticateRequest { name: "alice".to_owned(), password: format!("{SECRET}-alice") };
        let token = auth.authenticate(right).await.expect("a token").into_inner().token;
        client.kv.range(with(get("a"), &token)).await.expect("she may read it");
        let refused = client.kv.put(with(put("a", SECRET), &token)).await.expect_err("she may not write");
        assert_eq!(refused.code(), Code::PermissionDenied);
        let made_up = format!("{SECRET}.17");
        let refused = client.kv.range(with(get("a"), &made_up)).await.expect_err("nobody's token");
        assert_eq!(refused.code(), Code::Unauthenticated);
        let create = pb::WatchCreateRequest { key: "z".into(), ..Default::default() };
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let mut answers =
            client.watch.watch(with(tokio_stream::once(create), &token)).await.expect("a stream").into_inner();
        while !answers.message().await.expect("an answer").expect("an answer").canceled {}
        let password = format!("{SECRET}-new");
        let change = pb::AuthUserChangePasswordRequest { name: "root".to_owned(), password, ..Default::default() };
        auth.user_change_password(with(change, &token)).await.expect_err("she is not root");
        token
    });
    drop((client, auth));
    // While users of the third API are asked for, the second one lets in nobody but root.
    let address = world.daemon.client;
    let basic = |words: &str| format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(words));
    let ask = |path: &str, who: &str| v2::ask_with(address, "GET", path, &basic(who), "").status;
    assert_eq!(ask("/v2/keys/", &format!("root:{SECRET}-root")), 200);
    assert_eq!(ask("/v2/keys/last", &format!("root:{SECRET}-wrong")), 401);

    let lines = world.lines_until(|line| line["path"] == "/v2/keys/last");
    let call = |method: &str, user: &str, code: &str| json!({"method": format!("/etcdserverpb.{method}"), "user": user, "code": code});
    let by = |method: &str, user: &str, code: &str, more: Value| {
        let mut expected = call(method, user, code);
        expected.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        expected
    };
    the(&lines, &by("Auth/UserAdd", "", "OK", json!({"name": "alice"})));
    the(&lines, &by("Auth/UserGrantRole", "", "OK", json!({"name": "alice", "role": "readers"})));
    let granted = json!({"role": "readers", "permission": "READ", "key": "a", "range_end": "b"});
    the(&lines, &by("Auth/RoleGrantPermission", "", "OK", granted));
    the(&lines, &call("Auth/AuthEnable", "", "OK"));
    the(&lines, &by("Auth/Authenticate", "", "InvalidArgument", json!({"name": "alice"})));
    the(&lines, &by("Auth/Authenticate", "", "OK", json!({"name": "alice"})));
    the(&lines, &by("KV/Range", "alice", "OK", json!({"key": "a"})));
    let denied = json!({"key": "a", "error": "etcdserver: permission denied"});
    the(&lines, &by("KV/Put", "alice", "PermissionDenied", denied));
    the(&lines, &by("KV/Range", "", "Unauthenticated", json!({"error": "etcdserver: invalid auth token"})));
    the(&lines, &by("Watch/Watch", "alice", "PermissionDenied", json!({"op": "create", "key": "z"})));
    the(&lines, &by("Auth/UserChangePassword", "alice", "PermissionDenied", json!({"name": "root"})));
    the(&lines, &json!({"via": "v2", "user": "root", "path": "/v2/keys/", "code": "OK"}));
    // Named as whoever fails to log in to the third API: by what he claims.
    the(&lines, &json!({"via": "v2", "user": "", "name": "root", "path": "/v2/keys/last", "code": "Unauthenticated"}));
    assert_eq!(the(&lines, &json!({"via": "v2", "user": "root"})).get("name"), None);
    let text = read(&world.path);
    for secret in [SECRET, &token, &BASE64_STANDARD.encode(format!("{SECRET}-alice"))] {
        assert!(!text.contains(secret), "{secret:?} in\n{text}");
    }
}

/// Of a watch the answer says what became of it: its number, which the server chooses, or why there is none.
#[test]
fn watches_are_told_as_they_were_answered() {
    let world = World::start(&[]);
    let mut client = world.client();
    world.runtime.block_on(async {
        for number in 0..4 {
            client.kv.put(put("k", number.to_string())).await.expect("a put");
        }
        client.kv.compact(pb::CompactionRequest { revision: 4, physical: true }).await.expect("compacted");
        let create = |key: &str| pb::WatchCreateRequest { key: key.to_owned().into(), ..Default::default() };
        let asked = [
            create("chosen"),
            pb::WatchCreateRequest { watch_id: 7, ..create("own") },
            pb::WatchCreateRequest { watch_id: 7, ..create("twice") },
            pb::WatchCreateRequest { range_end: "a".into(), ..create("empty") },
            pb::WatchCreateRequest { watch_id: 9, start_revision: 2, ..create("past") },
            pb::WatchCreateRequest { start_revision: -1, ..create("never") },
        ];
        let (asking, requests) = mpsc::channel(asked.len());
        for create in asked {
            let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            asking.send(request).await.expect("asked");
        }
        let mut answers = client.watch.watch(ReceiverStream::new(requests)).await.expect("a stream").into_inner();
        let mut canceled = 0;
        while canceled < 4 {
            canceled += u32::from(answers.message().await.expect("an answer").expect("an answer").canceled);
        }
    });
    drop(client);
    let lines = world.lines_until(|line| line["op"] == "canceled");
    let created = |key: &str| the(&lines, &json!({"op": "create", "key": key}));
    assert_eq!((&created("chosen")["code"], &created("chosen")["watch"]), (&json!("OK"), &json!(0)));
    assert_eq!((&created("own")["code"], &created("own")["watch"]), (&json!("OK"), &json!(7)));
    let refused = |key: &str| (created(key)["code"].clone(), created(key)["error"].clone());
    let twice = "mvcc: duplicate watch ID provided on the WatchStream";
    assert_eq!(refused("twice"), (json!("InvalidArgument"), json!(twice)));
    assert_eq!(refused("empty"), (json!("InvalidArgument"), json!("mvcc: watcher range is empty")));
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(refused("never"), (json!("OutOfRange"), json!(compacted)));
    assert_eq!(created("past")["code"], "OK");
    the(&lines, &json!({"op": "canceled", "watch": 9, "code": "OutOfRange", "error": compacted}));
}

/// What is refused before anybody asks who calls has the name of him whose token it came with all the same.
#[test]
fn whom_a_limit_refuses_is_named() {
    let world = World::start(&["--max-txn-ops=1"]);
    world.make_users();
    let (mut client, mut auth) = (world.client(), world.auth());
    world.runtime.block_on(async {
        let right = pb::AuthenticateRequest { name: "alice".to_owned(), password: format!("{SECRET}-alice") };
        let token = auth.authenticate(right).await.expect("a token").into_inner().token;
        let operation = pb::RequestOp { request: Some(Op::RequestRange(get("a"))) };
        let txn = pb::TxnRequest { success: vec![operation; 2], ..Default::default() };
        for token in [&token, "nobodys.17"] {
            let refused = client.kv.txn(with(txn.clone(), token)).await.expect_err("too many operations");
            assert_eq!(refused.code(), Code::InvalidArgument);
        }
        client.kv.range(with(get("a"), &token)).await.expect("she may read it");
    });
    let lines = world.lines_until(|line| has(line, &json!({"method": "/etcdserverpb.KV/Range"})));
    for user in ["alice", ""] {
        let refused = json!({"method": "/etcdserverpb.KV/Txn", "user": user, "code": "InvalidArgument"});
        the(&lines, &refused);
    }
}

/// A request in JSON that does not come as far as its method has a line: one that cannot be read, one that is too long, and
/// one whose client does not wait for its turn.
#[test]
fn what_the_gateway_refuses_has_a_line() {
    let world = World::start(&["--max-concurrent-streams=1", "--max-request-bytes=1000"]);
    let address = world.daemon.client;
    let post = |path: &str, body: &str| http::post(address, path, body).expect("an answer").status;
    assert_eq!(post("/v3/kv/put", "{\"key\":7}"), 400);
    let long = json!({"key": BASE64_STANDARD.encode(vec![b'k'; 600_000])}).to_string();
    assert_eq!(post("/v3/kv/range", &long), 429);
    assert_eq!(post("/v3/watch", "{\"create_request\":7}"), 400);
    let refused = world.lines_until(|line| line["method"] == "/etcdserverpb.Watch/Watch");
    the(&refused, &json!({"via": "gateway", "method": "/etcdserverpb.KV/Put", "code": "InvalidArgument"}));
    the(&refused, &json!({"via": "gateway", "method": "/etcdserverpb.KV/Range", "code": "ResourceExhausted"}));

    let ask = |path: &str, body: &str| {
        let mut stream = TcpStream::connect(address).expect("connected");
        let length = body.len();
        write!(stream, "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}")
            .expect("sent");
        stream
    };
    let mut watching = ask("/v3/watch", r#"{"create_request":{"key":"aw=="}}"#);
    assert!(watching.read(&mut [0; 1_024]).expect("an answer") > 0);
    let canceled = json!({"via": "gateway", "method": "/etcdserverpb.KV/DeleteRange", "code": "Canceled"});
    let told = wait_for(PATIENCE, || {
        let mut waiting = ask("/v3/kv/deleterange", "{}");
        waiting.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
        waiting.read(&mut [0; 1]).expect_err("it has no turn");
        drop(waiting);
        lines(&world.path).iter().any(|line| has(line, &canceled)).then_some(())
    });
    assert!(told.is_some(), "{}", read(&world.path));
}

/// A new member is told with the number that it was given, and never with what could log in at its URL.
#[test]
fn a_new_member_is_told_by_its_number() {
    let world = World::start(&[]);
    let mut client = world.client();
    let member = world.runtime.block_on(async {
        let add = |url: &str| pb::MemberAddRequest { peer_ur_ls: vec![url.to_owned()], is_learner: true };
        let added = client.cluster.member_add(add("http://127.0.0.1:1")).await.expect("a learner").into_inner();
        // Taken or not: it is told.
        drop(client.cluster.member_add(add(&format!("http://bob:{SECRET}@127.0.0.1:2"))).await);
        added.member.expect("it").id
    });
    let add = |url: &str| json!({"method": "/etcdserverpb.Cluster/MemberAdd", "peer_urls": [url]});
    let lines = world.lines_until(|line| has(line, &add("http://127.0.0.1:2")));
    assert_eq!(the(&lines, &add("http://127.0.0.1:1"))["member"], format!("{member:x}").as_str());
    assert!(!read(&world.path).contains(SECRET), "{}", read(&world.path));
}

/// The discovery service on the client port is a door as well.
#[test]
fn the_discovery_service_is_a_door() {
    let world = World::start(&["--discovery-service"]);
    let address = world.daemon.client;
    let token = v2::ask(address, "PUT", "/new?size=3", "").body;
    let token = token.rsplit('/').next().expect("a token").trim().to_owned();
    assert_eq!(token.len(), 32, "{token}");
    assert_eq!(v2::ask(address, "GET", &format!("/{token}"), "").status, 200);
    let lines = world.lines_until(|line| line["path"] == format!("/{token}").as_str());
    let made = json!({"via": "discovery", "method": "PUT", "path": "/new", "code": "OK", "status": 200});
    assert!(the(&lines, &made)["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")));
    the(&lines, &json!({"via": "discovery", "method": "GET", "code": "OK"}));
    assert!(!read(&world.path).contains("size"), "{}", read(&world.path));
}

/// Of reads as many as are asked for, of everything else all; files are set aside when they are full; and at SIGHUP the file is
/// opened by its name.
#[test]
fn reads_are_sampled_and_files_rotate() {
    let world = World::start(&["--audit-log-sample=0", "--audit-log-rotate-size=1", "--audit-log-rotate-keep=1"]);
    let address = world.daemon.client;
    assert_eq!(v2::ask(address, "GET", "/v2/keys/", "").status, 200);
    let mut client = world.client();
    // Each byte takes five of the line.
    let (key, range_end) = (vec![0xfe; 1_000], vec![0xff; 1_000]);
    world.runtime.block_on(async {
        client.kv.range(get("read")).await.expect("a range");
        let to_come = pb::RangeRequest { revision: 99, ..get("refused") };
        client.kv.range(to_come).await.expect_err("there is no such revision");
        for _ in 0..110 {
            let (key, range_end) = (key.clone().into(), range_end.clone().into());
            let delete = pb::DeleteRangeRequest { key, range_end, ..Default::default() };
            client.kv.delete_range(delete).await.expect("deleted");
        }
        client.kv.put(put("last", "")).await.expect("a put");
    });
    world.lines_until(|line| line["key"] == "last");
    let aside = PathBuf::from(format!("{}.1", world.path.display()));
    let (first, second) = (lines(&aside), lines(&world.path));
    assert_eq!(first.len() + second.len(), 112);
    let bytes = fs::metadata(&aside).expect("a file").len();
    assert!((1 << 20) - 12_000 < bytes && bytes <= 1 << 20, "{bytes}");
    the(&first, &json!({"key": "refused", "code": "OutOfRange"}));

    fs::rename(&world.path, &aside).expect("moved");
    world.daemon.signal("HUP");
    let reloaded = wait_for(PATIENCE, || world.daemon.log().contains("the configuration was read again").then_some(()));
    assert!(reloaded.is_some(), "{}", world.daemon.log());
    world.runtime.block_on(client.kv.put(put("anew", ""))).expect("a put");
    assert_eq!(world.lines_until(|line| line["key"] == "anew").len(), 1);
}

/// A pipe that nobody empties stops its thread, and nobody else: the queue fills, the rest is counted, and a stop does not wait.
#[test]
fn nobody_waits_for_what_lines_are_written_to() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("pipe");
    mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
    let open = || OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path).expect("opened");
    let mut reader: File = open();
    let mut daemon = Daemon::start(&Program::subject(), &[&format!("--audit-log={}", path.display())]);
    // Lines of several kilobytes, so that the queue of some megabytes is full soon.
    let long = BASE64_STANDARD.encode([0xff; 900]);
    let ask_until_dropped = |method: &str, body: Value, result: &str| {
        let (body, address) = (body.to_string(), daemon.client);
        let request =
            format!("POST /v3/kv/{method} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let dropped = wait_for(PATIENCE, || {
            let mut stream = TcpStream::connect(address).expect("connected");
            for _ in 0..50 {
                stream.write_all(request.as_bytes()).expect("written");
                let mut answer = [0; 4_096];
                assert!(stream.read(&mut answer).expect("an answer") > 0);
            }
            Some(metric(address, result)).filter(|count| *count > 0)
        });
        assert!(dropped.is_some(), "the queue takes all");
    };
    // Whom nobody knows and who is refused, fills his part, and nobody else's.
    let range = json!({"requestRange": {"key": long}});
    let refused = json!({"success": [range, range, {"requestPut": {"key": ""}}]});
    ask_until_dropped("txn", refused, "stranger");
    assert_eq!(metric(daemon.client, "dropped"), 0);
    ask_until_dropped("deleterange", json!({"key": long, "range_end": long}), "dropped");
    let begun = now();
    let body = json!({"key": BASE64_STANDARD.encode("k"), "value": ""}).to_string();
    for _ in 0..20 {
        assert_eq!(http::post(daemon.client, "/v3/kv/put", &body).expect("an answer").status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "puts took {:?}", begun.elapsed());
    assert!(daemon.log().contains("records of the audit log were dropped"), "{}", daemon.log());
    let mut first = [0; 10];
    reader.read_exact(&mut first).expect("a line");
    assert_eq!(first.first_chunk(), Some(b"{\"ts\":\""));
    let (_, took) = daemon.terminate();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(daemon.log().contains("the audit log could not be written to its end"), "{}", daemon.log());
}

/// A disk without room costs lines, and no more; when there is room again, lines come again.
#[test]
fn a_full_disk_costs_lines_alone() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("audit.log");
    std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
    let daemon = Daemon::start(&Program::subject(), &[&format!("--audit-log={}", path.display())]);
    let put = || http::post(daemon.client, "/v3/kv/put", r#"{"key":"aw=="}"#).expect("an answer").status;
    assert_eq!(put(), 200);
    assert!(wait_for(PATIENCE, || (metric(daemon.client, "failed") > 0).then_some(())).is_some());
    assert!(daemon.log().contains("records of the audit log were lost"), "{}", daemon.log());
    fs::remove_file(&path).expect("there is room");
    let written = wait_for(PATIENCE, || {
        assert_eq!(put(), 200);
        Some(lines(&path)).filter(|lines| !lines.is_empty())
    });
    assert!(written.is_some_and(|lines| has(&lines[0], &json!({"key": "k", "code": "OK"}))));
    assert!(wait_for(PATIENCE, || daemon.log().contains("the audit log is written again").then_some(())).is_some());
}

/// A file that standard output goes to as well is taken where both append to it, and stays where it is; else each would write
/// over the other, which a start refuses.
#[test]
fn a_file_of_standard_output_has_to_be_appended_to() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("both.log");
    let start = |output: File| {
        let mut command = Program::subject().command();
        let [client, peer] = free_ports::<2>().map(|address| format!("http://{address}"));
        command.arg(format!("--data-dir={}", place.path().join("data").display()));
        command.args([format!("--audit-log={}", path.display()), "--audit-log-rotate-size=1".to_owned()]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        let child = command.stdout(output).stderr(Stdio::piped()).spawn().expect("it starts");
        (child, client)
    };
    let (child, _) = start(File::create(&path).expect("a file"));
    let output = child.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("name another file, or say stdout or stderr to write where that stream goes"), "{told}");

    let (mut child, client) = start(OpenOptions::new().append(true).open(&path).expect("a file"));
    let address = client.trim_start_matches("http://").parse().expect("an address");
    let body = json!({"key": BASE64_STANDARD.encode("k")}).to_string();
    let put = || http::post(address, "/v3/kv/put", &body).is_ok_and(|answer| answer.status == 200).then_some(());
    let written =
        wait_for(PATIENCE, put).and_then(|()| wait_for(PATIENCE, || (!lines(&path).is_empty()).then_some(())));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(written.is_some(), "{}", read(&path));
    the(&lines(&path), &json!({"key": "k", "code": "OK"}));
}

/// A place where no line can ever stand is a mistake, which a start tells together with what to do.
#[test]
fn a_start_refuses_a_place_without_a_directory() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("no/such/audit.log");
    let mut daemon = Daemon::prepare(place.path(), &Program::subject(), &[&format!("--audit-log={}", path.display())]);
    daemon.spawn();
    let ended = wait_for(PATIENCE, || daemon.exited()).expect("it ends");
    assert_eq!(ended.code(), Some(1));
    let told = format!("opening the audit log {} (--audit-log): make the directory above it", path.display());
    assert!(daemon.log().contains(&told), "{}", daemon.log());
}
