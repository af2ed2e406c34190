//! One story with authentication on, told to a member of ours and to one of etcd: first over gRPC, then over JSON.

use prost::Message as _;
use quorate::pb::{
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb::{self as pb, RequestOp, WatchCreateRequest, WatchRequest, request_op::Request as Op, watch_request},
    v3electionpb as election, v3lockpb as lock,
};

use super::{
    caller::{Ask, Caller, Who, ask},
    support::{daemon::Daemon, grpc::Client, program::Program},
};

/// What happens next.
enum Step {
    /// Somebody asks.
    Ask(Who, Ask),
    /// A user logs in, or tries to.
    LogIn(&'static str, &'static str),
}
use Step::LogIn;

const ROOT: Who = Who::User("root");
const U: Who = Who::User("u");
const V: Who = Who::User("v");
const GARBAGE: Who = Who::Saying("garbage");
/// Of the form of a token, and of none that was given away.
const FORGED: Who = Who::Saying("abcdefghijklmnop.3");

fn put(key: &'static str, lease: i64, prev_kv: bool) -> Ask {
    let (key, value) = (key.into(), "value".into());
    ask("/etcdserverpb.KV/Put", &pb::PutRequest { key, value, lease, prev_kv, ..Default::default() })
}

fn range(key: &'static str, range_end: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

fn get(key: &'static str, range_end: &'static str) -> Ask {
    ask("/etcdserverpb.KV/Range", &range(key, range_end))
}

fn get_serializable(key: &'static str, range_end: &'static str) -> Ask {
    ask("/etcdserverpb.KV/Range", &pb::RangeRequest { serializable: true, ..range(key, range_end) })
}

fn delete(key: &'static str, range_end: &'static str, prev_kv: bool) -> Ask {
    let (key, range_end) = (key.into(), range_end.into());
    ask("/etcdserverpb.KV/DeleteRange", &pb::DeleteRangeRequest { key, range_end, prev_kv })
}

fn op(op: Op) -> RequestOp {
    RequestOp { request: Some(op) }
}

fn compare(key: &'static str) -> pb::Compare {
    pb::Compare { key: key.into(), target_union: Some(pb::compare::TargetUnion::Version(0)), ..Default::default() }
}

fn txn(compares: &[&'static str], success: Vec<Op>, failure: Vec<Op>) -> Ask {
    let request = pb::TxnRequest {
        compare: compares.iter().map(|key| compare(key)).collect(),
        success: success.into_iter().map(op).collect(),
        failure: failure.into_iter().map(op).collect(),
    };
    ask("/etcdserverpb.KV/Txn", &request)
}

fn put_op(key: &'static str, lease: i64) -> Op {
    Op::RequestPut(pb::PutRequest { key: key.into(), lease, ..Default::default() })
}

fn grant_lease(id: i64) -> Ask {
    ask("/etcdserverpb.Lease/LeaseGrant", &pb::LeaseGrantRequest { ttl: 600, id })
}

fn revoke_lease(id: i64) -> Ask {
    ask("/etcdserverpb.Lease/LeaseRevoke", &pb::LeaseRevokeRequest { id })
}

fn keep_alive(id: i64) -> Ask {
    ask("/etcdserverpb.Lease/LeaseKeepAlive", &pb::LeaseKeepAliveRequest { id })
}

fn time_to_live(id: i64, keys: bool) -> Ask {
    ask("/etcdserverpb.Lease/LeaseTimeToLive", &pb::LeaseTimeToLiveRequest { id, keys })
}

fn watch(key: &'static str, range_end: &'static str, start_revision: i64) -> Ask {
    let (key, range_end) = (key.into(), range_end.into());
    let create = WatchCreateRequest { key, range_end, start_revision, ..Default::default() };
    let request = WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) };
    ask("/etcdserverpb.Watch/Watch", &request)
}

fn user_add(name: &str, password: &str) -> Ask {
    let request = pb::AuthUserAddRequest { name: name.into(), password: password.into(), ..Default::default() };
    ask("/etcdserverpb.Auth/UserAdd", &request)
}

fn without_password(name: &str) -> Ask {
    let options = Some(UserAddOptions { no_password: true });
    ask("/etcdserverpb.Auth/UserAdd", &pb::AuthUserAddRequest { name: name.into(), options, ..Default::default() })
}

fn user_delete(name: &str) -> Ask {
    ask("/etcdserverpb.Auth/UserDelete", &pb::AuthUserDeleteRequest { name: name.into() })
}

fn user_get(name: &str) -> Ask {
    ask("/etcdserverpb.Auth/UserGet", &pb::AuthUserGetRequest { name: name.into() })
}

fn change_password(name: &str, password: &str) -> Ask {
    let (name, password) = (name.to_owned(), password.to_owned());
    let request = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
    ask("/etcdserverpb.Auth/UserChangePassword", &request)
}

fn grant_role(user: &str, role: &str) -> Ask {
    let (user, role) = (user.to_owned(), role.to_owned());
    ask("/etcdserverpb.Auth/UserGrantRole", &pb::AuthUserGrantRoleRequest { user, role })
}

fn revoke_role(name: &str, role: &str) -> Ask {
    let (name, role) = (name.to_owned(), role.to_owned());
    ask("/etcdserverpb.Auth/UserRevokeRole", &pb::AuthUserRevokeRoleRequest { name, role })
}

fn role_add(name: &str) -> Ask {
    ask("/etcdserverpb.Auth/RoleAdd", &pb::AuthRoleAddRequest { name: name.into() })
}

fn role_delete(role: &str) -> Ask {
    ask("/etcdserverpb.Auth/RoleDelete", &pb::AuthRoleDeleteRequest { role: role.into() })
}

fn role_get(role: &str) -> Ask {
    ask("/etcdserverpb.Auth/RoleGet", &pb::AuthRoleGetRequest { role: role.into() })
}

fn grant(name: &str, kind: Type, key: &'static str, range_end: &'static str) -> Ask {
    let perm = Some(Permission { perm_type: kind.into(), key: key.into(), range_end: range_end.into() });
    ask("/etcdserverpb.Auth/RoleGrantPermission", &pb::AuthRoleGrantPermissionRequest { name: name.into(), perm })
}

fn revoke(role: &str, key: &'static str, range_end: &'static str) -> Ask {
    let (role, key, range_end) = (role.to_owned(), key.into(), range_end.into());
    ask("/etcdserverpb.Auth/RoleRevokePermission", &pb::AuthRoleRevokePermissionRequest { role, key, range_end })
}

fn enable() -> Ask {
    ask("/etcdserverpb.Auth/AuthEnable", &pb::AuthEnableRequest {})
}

fn disable() -> Ask {
    ask("/etcdserverpb.Auth/AuthDisable", &pb::AuthDisableRequest {})
}

fn status() -> Ask {
    ask("/etcdserverpb.Auth/AuthStatus", &pb::AuthStatusRequest {})
}

fn alarm(action: pb::alarm_request::AlarmAction) -> Ask {
    ask("/etcdserverpb.Maintenance/Alarm", &pb::AlarmRequest { action: action.into(), ..Default::default() })
}

/// Before authentication is on: users, roles, keys and leases.
fn prepared() -> Vec<Step> {
    let mut steps = vec![LogIn("root", "secret")];
    steps.extend(
        [
            enable(),
            user_add("root", "secret"),
            enable(),
            grant_role("root", "root"),
            role_add("root"),
            user_add("u", "secret"),
            user_add("v", ""),
            user_add("w", "secret"),
            without_password("certificate"),
            role_add("low"),
            role_add("high"),
            grant("low", Type::Read, "a", "c"),
            grant("low", Type::Write, "a", ""),
            grant("low", Type::Readwrite, "k", "l"),
            grant("high", Type::Read, "c", "f"),
            grant("high", Type::Readwrite, "x", "\0"),
            grant_role("u", "low"),
            grant_role("u", "high"),
            grant_role("w", "low"),
            grant_lease(7),
            grant_lease(8),
            grant_lease(9),
            put("a", 7, false),
            put("b", 8, false),
            put("k1", 8, false),
            put("k2", 0, false),
            put("m", 0, false),
            put("y", 0, false),
            status(),
            enable(),
        ]
        .map(|what| Step::Ask(Who::Nobody, what)),
    );
    steps
}

/// Every method there is, with a request that does no harm to those that follow; the `privileged` are not asked for what
/// would.
fn everything(privileged: bool) -> Vec<Ask> {
    let add = |urls: &[&str]| pb::MemberAddRequest {
        peer_ur_ls: urls.iter().map(ToString::to_string).collect(),
        is_learner: false,
    };
    let mut asks = vec![
        get("a", ""),
        get_serializable("a", ""),
        get("", ""),
        put("a", 0, false),
        put("", 0, false),
        delete("n", "", false),
        txn(&[], vec![Op::RequestRange(range("a", ""))], Vec::new()),
        txn(&["a"], vec![put_op("k2", 0)], Vec::new()),
        ask("/etcdserverpb.KV/Compact", &pb::CompactionRequest { revision: 10_000, physical: false }),
        ask("/etcdserverpb.KV/RangeStream", &range("a", "b")),
        watch("a", "b", 0),
        watch("a", "b", -1),
        watch("b", "a", 0),
        watch("", "", 0),
        grant_lease(8),
        revoke_lease(4),
        revoke_lease(8),
        grant_lease(8),
        keep_alive(8),
        keep_alive(4),
        time_to_live(8, false),
        time_to_live(8, true),
        time_to_live(4, true),
        ask("/etcdserverpb.Lease/LeaseLeases", &pb::LeaseLeasesRequest {}),
        ask("/etcdserverpb.Cluster/MemberAdd", &add(&["no url"])),
        ask("/etcdserverpb.Cluster/MemberRemove", &pb::MemberRemoveRequest { id: 1 }),
        ask(
            "/etcdserverpb.Cluster/MemberUpdate",
            &pb::MemberUpdateRequest { id: 1, peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()] },
        ),
        ask("/etcdserverpb.Cluster/MemberList", &pb::MemberListRequest { linearizable: true }),
        ask("/etcdserverpb.Cluster/MemberList", &pb::MemberListRequest { linearizable: false }),
        ask("/etcdserverpb.Cluster/MemberPromote", &pb::MemberPromoteRequest { id: 1 }),
        alarm(pb::alarm_request::AlarmAction::Get),
        alarm(pb::alarm_request::AlarmAction::Deactivate),
        ask("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}),
        ask("/etcdserverpb.Maintenance/Defragment", &pb::DefragmentRequest {}),
        ask("/etcdserverpb.Maintenance/Hash", &pb::HashRequest {}),
        ask("/etcdserverpb.Maintenance/HashKV", &pb::HashKvRequest { revision: 0 }),
        ask("/etcdserverpb.Maintenance/Snapshot", &pb::SnapshotRequest {}),
        ask("/etcdserverpb.Maintenance/MoveLeader", &pb::MoveLeaderRequest { target_id: 1 }),
        ask("/etcdserverpb.Maintenance/Downgrade", &pb::DowngradeRequest { action: 0, version: "3.2".to_owned() }),
        status(),
        enable(),
        user_add("a", "secret"),
        user_get("a"),
        user_get("u"),
        ask("/etcdserverpb.Auth/UserList", &pb::AuthUserListRequest {}),
        change_password("a", "other"),
        grant_role("a", "low"),
        revoke_role("a", "low"),
        user_delete("a"),
        role_add("a"),
        role_get("a"),
        role_get("low"),
        role_get("root"),
        ask("/etcdserverpb.Auth/RoleList", &pb::AuthRoleListRequest {}),
        grant("a", Type::Read, "n", ""),
        revoke("a", "n", ""),
        role_delete("a"),
        ask("/v3electionpb.Election/Leader", &election::LeaderRequest { name: "e".into() }),
        ask("/v3electionpb.Election/Resign", &election::ResignRequest::default()),
        ask("/v3electionpb.Election/Proclaim", &election::ProclaimRequest::default()),
        ask("/v3lockpb.Lock/Unlock", &lock::UnlockRequest { key: "lock".into() }),
    ];
    if !privileged {
        asks.extend([
            ask("/etcdserverpb.Cluster/MemberAdd", &add(&["http://127.0.0.1:1"])),
            ask(
                "/v3electionpb.Election/Campaign",
                &election::CampaignRequest { name: "e".into(), lease: 9, ..Default::default() },
            ),
            ask("/v3lockpb.Lock/Lock", &lock::LockRequest { name: "l".into(), lease: 9 }),
            disable(),
        ]);
    }
    asks
}

/// While it is on.
fn checked() -> Vec<Step> {
    let mut steps = vec![
        LogIn("root", "wrong"),
        LogIn("nobody", "secret"),
        LogIn("certificate", "secret"),
        LogIn("certificate", ""),
        LogIn("", ""),
        LogIn("root", "secret"),
        LogIn("u", "secret"),
        LogIn("v", ""),
        LogIn("w", "secret"),
    ];
    for (who, privileged) in
        [(Who::Nobody, false), (GARBAGE, false), (FORGED, false), (V, false), (U, false), (ROOT, true)]
    {
        steps.extend(everything(privileged).into_iter().map(|what| Step::Ask(who, what)));
    }
    for showing in [
        Who::Showing("u", "token", "Bearer "),
        Who::Showing("u", "token", "bearer "),
        Who::Showing("u", "authorization", ""),
        Who::Showing("u", "authorization", "Bearer "),
        Who::Showing("u", "authorization", "Basic "),
        Who::Saying(""),
        Who::Saying("."),
        Who::Saying("a.b.c"),
    ] {
        steps.push(Step::Ask(showing, get("a", "")));
    }
    steps.extend(of_u().into_iter().map(|what| Step::Ask(U, what)));
    steps
}

/// What a user with two roles may do, and what is just beyond it.
fn of_u() -> Vec<Ask> {
    let nested = |inner: Op| Op::RequestTxn(pb::TxnRequest { failure: vec![op(inner)], ..Default::default() });
    vec![
        get("a", "f"),
        get("a", "g"),
        get("a", "e"),
        get("b", "a"),
        get("f", "a"),
        get("x", "\0"),
        get("w", "\0"),
        get("\0", "\0"),
        get("k", "l"),
        get("k", "k1"),
        ask("/etcdserverpb.KV/RangeStream", &range("a", "g")),
        put("b", 0, false),
        put("a", 0, true),
        put("k1", 0, true),
        put("k1", 7, false),
        put("k1", 8, false),
        put("k1", 9, false),
        put("k1", 10, false),
        delete("a", "", false),
        delete("a", "", true),
        delete("k", "l", true),
        delete("k", "m", false),
        delete("x", "\0", true),
        txn(&["b"], vec![put_op("a", 0)], Vec::new()),
        txn(&["m"], vec![put_op("a", 0)], Vec::new()),
        txn(&["b"], vec![put_op("a", 0)], vec![put_op("b", 0)]),
        txn(&["b"], vec![put_op("b", 0)], vec![put_op("a", 0)]),
        txn(&["b"], Vec::new(), vec![Op::RequestRange(range("m", ""))]),
        txn(&[], vec![put_op("k1", 8)], Vec::new()),
        txn(&[], vec![nested(put_op("m", 0))], Vec::new()),
        txn(&[], vec![nested(put_op("k1", 0))], Vec::new()),
        txn(&[], vec![nested(Op::RequestRange(range("m", "")))], Vec::new()),
        revoke_lease(7),
        revoke_lease(8),
        revoke_lease(9),
        grant_lease(11),
        grant_lease(7),
        keep_alive(8),
        keep_alive(7),
        time_to_live(8, true),
        watch("a", "f", 0),
        watch("a", "g", 0),
        watch("x", "\0", 0),
        watch("w", "\0", 0),
        watch("k1", "\0", 0),
        watch("", "\0", 0),
        user_get("u"),
        user_get("root"),
        role_get("high"),
        role_get("root"),
        change_password("u", "other"),
    ]
}

/// What root gives and takes.
fn administered() -> Vec<Step> {
    let mut steps = Vec::new();
    steps.extend(
        [user_delete("root"), revoke_role("root", "root"), role_delete("root"), grant_role("v", "root"), user_get("v")]
            .map(|what| Step::Ask(ROOT, what)),
    );
    // Any user with the role of root is one.
    steps.push(Step::Ask(V, ask("/etcdserverpb.Auth/UserList", &pb::AuthUserListRequest {})));
    steps.push(Step::Ask(V, put("anything", 0, false)));
    steps.push(Step::Ask(ROOT, revoke_role("v", "root")));
    steps.push(Step::Ask(V, put("anything", 0, false)));
    // What is taken is taken at once.
    steps.push(Step::Ask(ROOT, revoke("low", "a", "c")));
    steps.push(Step::Ask(U, get("a", "")));
    steps.push(Step::Ask(ROOT, role_delete("high")));
    steps.push(Step::Ask(U, get("x", "\0")));
    // Tokens go with passwords and users.
    steps.push(Step::Ask(ROOT, change_password("u", "other")));
    steps.push(Step::Ask(U, get("k1", "")));
    steps.push(LogIn("u", "secret"));
    steps.push(LogIn("u", "other"));
    steps.push(Step::Ask(U, get("k1", "")));
    steps.push(Step::Ask(ROOT, change_password("u", "")));
    steps.push(LogIn("u", ""));
    steps.push(LogIn("u", "other"));
    steps.push(Step::Ask(Who::User("w"), get("k1", "")));
    steps.push(Step::Ask(ROOT, user_delete("w")));
    steps.push(Step::Ask(Who::User("w"), get("k1", "")));
    steps.push(LogIn("w", "secret"));
    steps.push(Step::Ask(ROOT, user_add("w", "secret")));
    steps.push(Step::Ask(Who::User("w"), get("k1", "")));
    // Nobody is asked any more, and what was shown before is forgotten.
    steps.push(Step::Ask(V, disable()));
    steps.push(Step::Ask(ROOT, disable()));
    steps.push(Step::Ask(Who::Nobody, get("a", "z")));
    steps.push(Step::Ask(GARBAGE, get("a", "z")));
    steps.push(LogIn("root", "secret"));
    steps.push(Step::Ask(Who::Nobody, status()));
    steps.push(Step::Ask(Who::Nobody, enable()));
    steps.push(Step::Ask(ROOT, get("a", "z")));
    steps.push(LogIn("root", "secret"));
    steps.push(Step::Ask(ROOT, get("a", "z")));
    steps
}

const FLAGS: &[&str] = &["--bcrypt-cost=4", "--unsafe-no-fsync"];

#[tokio::test]
async fn everybody_is_answered_as_by_etcd() {
    let [mut ours, theirs] = [Program::subject(), Program::etcd()].map(|program| Daemon::start(&program, FLAGS));
    let mut callers = Vec::new();
    for daemon in [&ours, &theirs] {
        callers.push(Caller::new(Client::connect(&daemon.endpoint()).await.expect("the member serves").channel));
    }
    let mut callers = callers.into_iter();
    let (mut us, mut them) = (callers.next().expect("two"), callers.next().expect("two"));
    let mut differences = Vec::new();
    let mut asked = 0;
    for step in prepared().into_iter().chain(checked()).chain(administered()) {
        asked += 1;
        let (name, got, expected) = match &step {
            Step::Ask(who, what) => {
                let name = format!("{who:?} {} {}", what.path, what.request.escape_ascii());
                (name, us.answer(*who, what).await, them.answer(*who, what).await)
            }
            LogIn(user, password) => {
                let name = format!("{user} logs in with {password:?}");
                (name, us.log_in(user, password).await, them.log_in(user, password).await)
            }
        };
        if got != expected {
            differences.push(format!("{name}\n  ours {got}\n  etcd {expected}"));
        }
    }
    assert!(differences.is_empty(), "{} of {asked} differ:\n{}", differences.len(), differences.join("\n"));
    println!("{asked} calls answered alike");

    // Users outlive the process, their tokens do not; and nothing of either stands in the log.
    let token = us.token("root").to_owned();
    ours.kill();
    ours.restart();
    let mut us = Caller::new(Client::connect(&ours.endpoint()).await.expect("the member serves again").channel);
    let forgotten = format!("{:?}: etcdserver: invalid auth token", tonic::Code::Unauthenticated);
    let showing = [("token".to_owned(), token.clone())];
    assert_eq!(us.answer_with(&showing, &get("a", "")).await, forgotten);
    assert_eq!(us.answer(Who::Nobody, &get("a", "")).await, "InvalidArgument: etcdserver: user name is empty");
    assert_eq!(us.log_in("root", "secret").await, "OK");
    assert!(us.answer(ROOT, &user_get("v")).await.starts_with('b'), "users are there");
    let log = ours.log();
    assert!(!log.contains("secret") && !log.contains(&token), "secrets in the log:\n{log}");
}

/// A user in a header of HTTP, and the statuses that go with refusals.
#[tokio::test]
async fn json_is_answered_as_by_etcd() {
    let sides = [Program::subject(), Program::etcd()].map(|program| Daemon::start(&program, FLAGS));
    let mut answers = Vec::new();
    for daemon in &sides {
        let caller = Caller::new(Client::connect(&daemon.endpoint()).await.expect("the member serves").channel);
        for step in prepared() {
            if let Step::Ask(who, what) = step {
                caller.answer(who, &what).await;
            }
        }
        answers.push(json_story(&daemon.endpoint()));
    }
    let (ours, theirs) = (answers.first().expect("two"), answers.last().expect("two"));
    let apart: Vec<_> = ours.iter().zip(theirs).filter(|(ours, theirs)| ours != theirs).collect();
    assert!(apart.is_empty() && ours.len() == theirs.len(), "{apart:#?}");
    println!("{} answers in JSON alike", answers.first().map_or(0, Vec::len));
}

fn json_story(endpoint: &str) -> Vec<String> {
    let post = |headers: &[String], path: &str, body: &str| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "-w", " %{http_code}", "-d", body]);
        for header in headers {
            curl.args(["-H", header]);
        }
        let output = curl.arg(format!("{endpoint}{path}")).output().expect("curl, which apt-get install curl installs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let login = |name: &str, password: &str| {
        post(&[], "/v3/auth/authenticate", &format!(r#"{{"name":"{name}","password":"{password}"}}"#))
    };
    let token = |answer: &str| {
        let rest = answer.split_once(r#""token":""#).map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split('"').next()).expect("a token").to_owned()
    };
    let (root, u) = (token(&login("root", "secret")), token(&login("u", "secret")));
    let header = |before: &str, token: &str| vec![format!("{before}{token}")];
    let refused = [login("root", "wrong"), login("certificate", "secret")];
    let mut told = refused.map(|answer| without_identity(&answer)).to_vec();
    for headers in [
        Vec::new(),
        header("Authorization: ", &u),
        header("Authorization: Bearer ", &u),
        header("Grpc-Metadata-Token: ", &u),
        header("Token: ", &u),
        header("Authorization: ", "garbage"),
        header("Authorization: ", &root),
    ] {
        for (path, body) in [
            ("/v3/kv/range", r#"{"key":"YQ=="}"#),
            ("/v3/kv/range", r#"{"key":"bQ=="}"#),
            ("/v3/kv/put", r#"{"key":"azE=","value":"YQ=="}"#),
            ("/v3/auth/user/list", "{}"),
            ("/v3/lease/leases", "{}"),
            ("/v3/lease/keepalive", r#"{"ID":"8"}"#),
            ("/v3/maintenance/alarm", "{}"),
            ("/v3/maintenance/transfer-leadership", "{}"),
        ] {
            told.push(format!("{} {path} {body} {}", headers.len(), without_identity(&post(&headers, path, body))));
        }
    }
    told
}

/// Without the numbers by which a member is known.
fn without_identity(answer: &str) -> String {
    // Go puts blanks behind commas, or not, by lot.
    let mut text = answer.replace(", \"", ",\"").replace(", {", ",{");
    for name in ["cluster_id", "member_id", "revision", "raft_term", "TTL"] {
        text = super::support::mask::without_numbers(&text, name);
    }
    text
}

/// What a request says, for messages.
#[test]
fn requests_are_encoded() {
    assert_eq!(get("a", "").request, range("a", "").encode_to_vec());
}
