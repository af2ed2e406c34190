//! The methods of the v3 API, in an order in which one fresh member can be asked for all of them.

use super::support::session::Step::{self, Feed, Run, Watch};

/// One method, and how clients ask for it.
pub(crate) struct Row {
    /// `Service/Method`.
    pub(crate) method: &'static str,
    /// With etcdctl, or why that never asks for it.
    pub(crate) etcdctl: Result<Step, &'static str>,
    /// Over JSON: path and body, or why there is none.
    pub(crate) gateway: Result<(&'static str, &'static str), &'static str>,
}

const fn row(method: &'static str, etcdctl: Step, path: &'static str, body: &'static str) -> Row {
    Row { method, etcdctl: Ok(etcdctl), gateway: Ok((path, body)) }
}

const fn only_json(method: &'static str, why: &'static str, path: &'static str, body: &'static str) -> Row {
    Row { method, etcdctl: Err(why), gateway: Ok((path, body)) }
}

const NO_COMMAND: &str = "etcdctl has no command for it";
const BY_TXN: &str = "etcdctl elects and locks by transactions";

/// `LEASE`, `NEWCOMER`, `ELECTED` and the like stand for what an answer before has told.
pub(crate) const ROWS: &[Row] = &[
    row("KV/Put", Run("put list/a 1"), "/v3/kv/put", r#"{"key":"bGlzdC9h","value":"MQ=="}"#),
    row("KV/Range", Run("get --prefix list/ -w json"), "/v3/kv/range", r#"{"key":"bGlzdC8=","range_end":"bGlzdDA="}"#),
    Row {
        method: "KV/RangeStream",
        etcdctl: Ok(Run("get --prefix list/ --stream -w json")),
        gateway: Err("etcd has no path for it"),
    },
    row(
        "KV/Txn",
        Feed("txn", "version(\"list/a\") > \"0\"\n\nput list/b yes\nget list/a\n\nput list/b no\n\n"),
        "/v3/kv/txn",
        r#"{"compare":[{"key":"bGlzdC9h","result":"GREATER","target":"VERSION","version":"0"}],
            "success":[{"requestPut":{"key":"bGlzdC9i","value":"eWVz"}},{"requestRange":{"key":"bGlzdC9h"}}]}"#,
    ),
    row("KV/DeleteRange", Run("del list/a --prev-kv"), "/v3/kv/deleterange", r#"{"key":"bGlzdC9h","prev_kv":true}"#),
    row(
        "Watch/Watch",
        Watch("watch --prefix list/ --rev=2", 6),
        "/v3/watch",
        r#"{"create_request":{"key":"bGlzdC8=","range_end":"bGlzdDA=","start_revision":"2"}}"#,
    ),
    row("KV/Compact", Run("compaction 2"), "/v3/kv/compaction", r#"{"revision":"2"}"#),
    only_json("Maintenance/Hash", NO_COMMAND, "/v3/maintenance/hash", "{}"),
    row("Maintenance/HashKV", Run("endpoint hashkv -w json"), "/v3/maintenance/hashkv", "{}"),
    row("Lease/LeaseGrant", Run("lease grant 600"), "/v3/lease/grant", r#"{"ID":"77","TTL":"600"}"#),
    row("Lease/LeaseKeepAlive", Run("lease keep-alive --once LEASE"), "/v3/lease/keepalive", r#"{"ID":"77"}"#),
    row(
        "Lease/LeaseTimeToLive",
        Run("lease timetolive LEASE --keys"),
        "/v3/lease/timetolive",
        r#"{"ID":"77","keys":true}"#,
    ),
    row("Lease/LeaseLeases", Run("lease list"), "/v3/lease/leases", "{}"),
    row(
        "Election/Campaign",
        Watch("elect el one", 2),
        "/v3/election/campaign",
        r#"{"name":"ZWw=","lease":"77","value":"djE="}"#,
    ),
    only_json("Election/Proclaim", BY_TXN, "/v3/election/proclaim", r#"{"leader":ELECTED,"value":"djI="}"#),
    only_json("Election/Leader", BY_TXN, "/v3/election/leader", r#"{"name":"ZWw="}"#),
    only_json("Election/Observe", BY_TXN, "/v3/election/observe", r#"{"name":"ZWw="}"#),
    only_json("Election/Resign", BY_TXN, "/v3/election/resign", r#"{"leader":ELECTED}"#),
    row("Lock/Lock", Run("lock mutex echo held"), "/v3/lock/lock", r#"{"name":"bXV0ZXg=","lease":"77"}"#),
    only_json("Lock/Unlock", BY_TXN, "/v3/lock/unlock", r#"{"key":"LOCKED"}"#),
    row("Lease/LeaseRevoke", Run("lease revoke LEASE"), "/v3/lease/revoke", r#"{"ID":"77"}"#),
    row("Cluster/MemberList", Run("member list -w json"), "/v3/cluster/member/list", "{}"),
    row(
        "Cluster/MemberAdd",
        Run("member add two --learner --peer-urls=http://127.0.0.1:1"),
        "/v3/cluster/member/add",
        r#"{"peerURLs":["http://127.0.0.1:1"],"isLearner":true}"#,
    ),
    row(
        "Cluster/MemberUpdate",
        Run("member update NEWCOMER --peer-urls=http://127.0.0.1:2"),
        "/v3/cluster/member/update",
        r#"{"ID":"NEWCOMER","peerURLs":["http://127.0.0.1:2"]}"#,
    ),
    row("Cluster/MemberPromote", Run("member promote NEWCOMER"), "/v3/cluster/member/promote", r#"{"ID":"NEWCOMER"}"#),
    row("Cluster/MemberRemove", Run("member remove NEWCOMER"), "/v3/cluster/member/remove", r#"{"ID":"NEWCOMER"}"#),
    row("Maintenance/Alarm", Run("alarm list"), "/v3/maintenance/alarm", r#"{"action":"GET"}"#),
    row("Maintenance/Status", Run("endpoint status -w json"), "/v3/maintenance/status", "{}"),
    row("Maintenance/Defragment", Run("defrag"), "/v3/maintenance/defragment", "{}"),
    row("Maintenance/Snapshot", Run("snapshot save FILE"), "/v3/maintenance/snapshot", "{}"),
    row(
        "Maintenance/MoveLeader",
        Run("move-leader MEMBER"),
        "/v3/maintenance/transfer-leadership",
        r#"{"targetID":"MEMBER"}"#,
    ),
    row(
        "Maintenance/Downgrade",
        Run("downgrade validate 3.6"),
        "/v3/maintenance/downgrade",
        r#"{"action":"VALIDATE","version":"3.6"}"#,
    ),
    row("Auth/UserAdd", Run("user add ann:secret"), "/v3/auth/user/add", r#"{"name":"ann","password":"secret"}"#),
    row("Auth/UserGet", Run("user get ann"), "/v3/auth/user/get", r#"{"name":"ann"}"#),
    row("Auth/UserList", Run("user list"), "/v3/auth/user/list", "{}"),
    row(
        "Auth/UserChangePassword",
        Feed("user passwd ann --interactive=false", "other"),
        "/v3/auth/user/changepw",
        r#"{"name":"ann","password":"other"}"#,
    ),
    row("Auth/RoleAdd", Run("role add reader"), "/v3/auth/role/add", r#"{"name":"reader"}"#),
    row(
        "Auth/RoleGrantPermission",
        Run("role grant-permission reader read list/ --prefix"),
        "/v3/auth/role/grant",
        r#"{"name":"reader","perm":{"permType":"READ","key":"bGlzdC8=","range_end":"bGlzdDA="}}"#,
    ),
    row("Auth/RoleGet", Run("role get reader"), "/v3/auth/role/get", r#"{"role":"reader"}"#),
    row("Auth/RoleList", Run("role list"), "/v3/auth/role/list", "{}"),
    row(
        "Auth/UserGrantRole",
        Run("user grant-role ann reader"),
        "/v3/auth/user/grant",
        r#"{"user":"ann","role":"reader"}"#,
    ),
    row("Auth/AuthEnable", Run("auth enable"), "/v3/auth/enable", "{}"),
    row(
        "Auth/Authenticate",
        Run("get list/b --user=ann:other"),
        "/v3/auth/authenticate",
        r#"{"name":"ann","password":"other"}"#,
    ),
    row("Auth/AuthStatus", Run("auth status"), "/v3/auth/status", "{}"),
    row(
        "Auth/UserRevokeRole",
        Run("user revoke-role ann reader"),
        "/v3/auth/user/revoke",
        r#"{"name":"ann","role":"reader"}"#,
    ),
    row(
        "Auth/RoleRevokePermission",
        Run("role revoke-permission reader list/ --prefix"),
        "/v3/auth/role/revoke",
        r#"{"role":"reader","key":"bGlzdC8=","range_end":"bGlzdDA="}"#,
    ),
    row("Auth/RoleDelete", Run("role delete reader"), "/v3/auth/role/delete", r#"{"role":"reader"}"#),
    row("Auth/UserDelete", Run("user delete ann"), "/v3/auth/user/delete", r#"{"name":"ann"}"#),
    row("Auth/AuthDisable", Run("auth disable"), "/v3/auth/disable", "{}"),
];
