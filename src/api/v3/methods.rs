//! The table of methods.

use std::{collections::HashMap, sync::OnceLock};

use super::{Handler, Method, auth, cluster, election, health, insight, kv, lease, lock, maintenance, plain, watch};
use crate::{
    api::status::Status,
    metrics::{GrpcMethod, rpc},
};

/// A unary method of which all but the function itself is common to most.
macro_rules! unary {
    ($path:literal, $counters:ident, $serve:path) => {
        Method {
            path: $path,
            counters: &rpc::$counters,
            handler: Handler::Unary(|session, request| Box::pin(plain(session, request, $serve))),
        }
    };
}

/// A unary method that decodes and encodes by itself.
macro_rules! special {
    ($path:literal, $counters:ident, $serve:path) => {
        Method {
            path: $path,
            counters: &rpc::$counters,
            handler: Handler::Unary(|session, request| Box::pin($serve(session, request))),
        }
    };
}

/// A streaming method.
macro_rules! stream {
    ($path:literal, $counters:ident, $serve:path) => {
        Method {
            path: $path,
            counters: &rpc::$counters,
            handler: Handler::Stream(|session, inbound, outbound| Box::pin($serve(session, inbound, outbound))),
        }
    };
}

/// Every method of every service.
pub(crate) static METHODS: &[Method] = &[
    special!("/etcdserverpb.KV/Range", RANGE, kv::range),
    unary!("/etcdserverpb.KV/Put", PUT, kv::put),
    special!("/etcdserverpb.KV/Txn", TXN, kv::txn),
    unary!("/etcdserverpb.KV/DeleteRange", DELETE_RANGE, kv::delete_range),
    unary!("/etcdserverpb.KV/Compact", COMPACT, kv::compact),
    stream!("/etcdserverpb.KV/RangeStream", RANGE_STREAM, kv::range_stream),
    stream!("/etcdserverpb.Watch/Watch", WATCH, watch::watch),
    unary!("/etcdserverpb.Lease/LeaseGrant", LEASE_GRANT, lease::grant),
    unary!("/etcdserverpb.Lease/LeaseRevoke", LEASE_REVOKE, lease::revoke),
    stream!("/etcdserverpb.Lease/LeaseKeepAlive", LEASE_KEEP_ALIVE, lease::keep_alive),
    unary!("/etcdserverpb.Lease/LeaseTimeToLive", LEASE_TIME_TO_LIVE, lease::time_to_live),
    unary!("/etcdserverpb.Lease/LeaseLeases", LEASE_LEASES, lease::leases),
    unary!("/etcdserverpb.Cluster/MemberAdd", MEMBER_ADD, cluster::add),
    unary!("/etcdserverpb.Cluster/MemberRemove", MEMBER_REMOVE, cluster::remove),
    unary!("/etcdserverpb.Cluster/MemberUpdate", MEMBER_UPDATE, cluster::update),
    unary!("/etcdserverpb.Cluster/MemberList", MEMBER_LIST, cluster::list),
    unary!("/etcdserverpb.Cluster/MemberPromote", MEMBER_PROMOTE, cluster::promote),
    unary!("/etcdserverpb.Maintenance/Alarm", ALARM, maintenance::alarm),
    special!("/etcdserverpb.Maintenance/Status", STATUS, maintenance::status),
    unary!("/etcdserverpb.Maintenance/Defragment", DEFRAGMENT, maintenance::defragment),
    unary!("/etcdserverpb.Maintenance/Hash", HASH, maintenance::hash),
    unary!("/etcdserverpb.Maintenance/HashKV", HASH_KV, maintenance::hash_kv),
    stream!("/etcdserverpb.Maintenance/Snapshot", SNAPSHOT, maintenance::snapshot),
    unary!("/etcdserverpb.Maintenance/MoveLeader", MOVE_LEADER, maintenance::move_leader),
    unary!("/etcdserverpb.Maintenance/Downgrade", DOWNGRADE, maintenance::downgrade),
    unary!("/etcdserverpb.Auth/AuthEnable", AUTH_ENABLE, auth::enable),
    unary!("/etcdserverpb.Auth/AuthDisable", AUTH_DISABLE, auth::disable),
    unary!("/etcdserverpb.Auth/AuthStatus", AUTH_STATUS, auth::status),
    unary!("/etcdserverpb.Auth/Authenticate", AUTHENTICATE, auth::authenticate),
    unary!("/etcdserverpb.Auth/UserAdd", USER_ADD, auth::user_add),
    unary!("/etcdserverpb.Auth/UserGet", USER_GET, auth::user_get),
    unary!("/etcdserverpb.Auth/UserList", USER_LIST, auth::user_list),
    unary!("/etcdserverpb.Auth/UserDelete", USER_DELETE, auth::user_delete),
    unary!("/etcdserverpb.Auth/UserChangePassword", USER_CHANGE_PASSWORD, auth::user_change_password),
    unary!("/etcdserverpb.Auth/UserGrantRole", USER_GRANT_ROLE, auth::user_grant_role),
    unary!("/etcdserverpb.Auth/UserRevokeRole", USER_REVOKE_ROLE, auth::user_revoke_role),
    unary!("/etcdserverpb.Auth/RoleAdd", ROLE_ADD, auth::role_add),
    unary!("/etcdserverpb.Auth/RoleGet", ROLE_GET, auth::role_get),
    unary!("/etcdserverpb.Auth/RoleList", ROLE_LIST, auth::role_list),
    unary!("/etcdserverpb.Auth/RoleDelete", ROLE_DELETE, auth::role_delete),
    unary!("/etcdserverpb.Auth/RoleGrantPermission", ROLE_GRANT_PERMISSION, auth::role_grant_permission),
    unary!("/etcdserverpb.Auth/RoleRevokePermission", ROLE_REVOKE_PERMISSION, auth::role_revoke_permission),
    unary!("/v3electionpb.Election/Campaign", CAMPAIGN, election::campaign),
    unary!("/v3electionpb.Election/Proclaim", PROCLAIM, election::proclaim),
    unary!("/v3electionpb.Election/Leader", LEADER, election::leader),
    stream!("/v3electionpb.Election/Observe", OBSERVE, election::observe),
    unary!("/v3electionpb.Election/Resign", RESIGN, election::resign),
    unary!("/v3lockpb.Lock/Lock", LOCK, lock::lock),
    unary!("/v3lockpb.Lock/Unlock", UNLOCK, lock::unlock),
    special!("/quorate.Insight/Hot", HOT, insight::hot),
    special!("/grpc.health.v1.Health/Check", HEALTH_RPC_CHECK, health::check),
    special!("/grpc.health.v1.Health/List", HEALTH_RPC_LIST, health::list),
    stream!("/grpc.health.v1.Health/Watch", HEALTH_RPC_WATCH, health::watch),
];

/// The method at `path`.
///
/// # Errors
/// `Unimplemented`, in the words of gRPC servers, for a path that names no method.
pub(crate) fn find(path: &str) -> Result<&'static Method, Status> {
    static INDEX: OnceLock<HashMap<&'static str, &'static Method>> = OnceLock::new();
    let index = INDEX.get_or_init(|| METHODS.iter().map(|method| (method.path, method)).collect());
    index.get(path).copied().ok_or_else(|| unknown(path))
}

fn unknown(path: &str) -> Status {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
        return Status::unimplemented(format!("malformed method name: {path:?}"));
    };
    let known = |method: &&GrpcMethod| method.service == service;
    if METHODS.iter().map(|method| method.counters).any(|counters| known(&counters)) {
        Status::unimplemented(format!("unknown method {method} for service {service}"))
    } else {
        Status::unimplemented(format!("unknown service {service}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::MethodKind;

    #[test]
    fn the_path_of_a_method_is_that_of_its_counters() {
        for method in METHODS {
            let GrpcMethod { service, method: name, kind, .. } = method.counters;
            assert_eq!(method.path, format!("/{service}/{name}"));
            assert_eq!(matches!(method.handler, Handler::Unary(_)), *kind == MethodKind::Unary, "{}", method.path);
        }
    }

    #[test]
    fn unknown_paths_are_answered_in_grpcs_words() {
        let message = |path| find(path).map(|method| method.path).unwrap_err().message().to_owned();
        assert_eq!(message("/etcdserverpb.KV/Get"), "unknown method Get for service etcdserverpb.KV");
        assert_eq!(message("/etcd.KV/Range"), "unknown service etcd.KV");
        assert_eq!(message("Range"), "malformed method name: \"Range\"");
        assert_eq!(find("/etcdserverpb.KV/Range").map(|method| method.path), Ok("/etcdserverpb.KV/Range"));
    }
}
