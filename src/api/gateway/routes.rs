//! Which path is which method.

use std::{collections::HashMap, sync::OnceLock};

use bytes::Bytes;
use prost::{DecodeError, Message};
use serde::Serialize;

use crate::{
    api::v3::{self, Method},
    pb::{
        etcdserverpb::{
            AlarmResponse, AuthDisableResponse, AuthEnableResponse, AuthRoleAddResponse, AuthRoleDeleteResponse,
            AuthRoleGetResponse, AuthRoleGrantPermissionResponse, AuthRoleListResponse,
            AuthRoleRevokePermissionResponse, AuthStatusResponse, AuthUserAddResponse, AuthUserChangePasswordResponse,
            AuthUserDeleteResponse, AuthUserGetResponse, AuthUserGrantRoleResponse, AuthUserListResponse,
            AuthUserRevokeRoleResponse, AuthenticateResponse, CompactionResponse, DefragmentResponse,
            DeleteRangeResponse, DowngradeResponse, HashKvResponse, HashResponse, LeaseGrantResponse,
            LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse,
            MemberAddResponse, MemberListResponse, MemberPromoteResponse, MemberRemoveResponse, MemberUpdateResponse,
            MoveLeaderResponse, PutResponse, RangeResponse, SnapshotResponse, StatusResponse, WatchResponse,
        },
        nested::decode_txn_response,
        v3electionpb::{CampaignResponse, LeaderResponse, ProclaimResponse, ResignResponse},
        v3lockpb::{LockResponse, UnlockResponse},
    },
};

/// From an encoded answer to its JSON.
pub(super) type ToJson = fn(Bytes) -> Result<String, String>;

/// One path of the gateway.
#[derive(Debug)]
pub(super) struct Route {
    /// Below `/v3/`.
    pub(super) path: &'static str,
    method: &'static str,
    /// The full name of the request message.
    pub(super) request: &'static str,
    /// How answers are shown.
    pub(super) to_json: ToJson,
}

impl Route {
    /// The method behind the path.
    pub(super) fn method(&self) -> &'static Method {
        v3::find(self.method).expect("every route names a method; a test goes through all")
    }
}

/// The route of a path below `/v3/`.
pub(super) fn find(path: &str) -> Option<&'static Route> {
    static INDEX: OnceLock<HashMap<&'static str, &'static Route>> = OnceLock::new();
    INDEX.get_or_init(|| ROUTES.iter().map(|route| (route.path, route)).collect()).get(path).copied()
}

fn json<M: Message + Default + Serialize>(answer: Bytes) -> Result<String, String> {
    show(M::decode(answer))
}

/// [`json`] of an answer that may be deeper than prost goes.
#[expect(clippy::needless_pass_by_value, reason = "every answer is handed over")]
fn txn_json(answer: Bytes) -> Result<String, String> {
    show(decode_txn_response(&answer))
}

fn show(answer: Result<impl Serialize, DecodeError>) -> Result<String, String> {
    let answer = answer.map_err(|error| error.to_string())?;
    serde_json::to_string(&answer).map_err(|error| error.to_string())
}

macro_rules! shown {
    ($response:ty) => {
        json::<$response>
    };
    ($response:ty, $show:ident) => {
        $show
    };
}

macro_rules! routes {
    ($($path:literal => $method:literal, $request:literal -> $response:ty $(as $show:ident)?;)*) => {
        /// Every path of the gateway.
        pub(super) static ROUTES: &[Route] = &[
            $(Route { path: $path, method: $method, request: $request, to_json: shown!($response $(, $show)?) },)*
        ];
    };
}

routes! {
    "kv/range" => "/etcdserverpb.KV/Range", ".etcdserverpb.RangeRequest" -> RangeResponse;
    "kv/put" => "/etcdserverpb.KV/Put", ".etcdserverpb.PutRequest" -> PutResponse;
    "kv/deleterange" => "/etcdserverpb.KV/DeleteRange", ".etcdserverpb.DeleteRangeRequest" -> DeleteRangeResponse;
    "kv/txn" => "/etcdserverpb.KV/Txn", ".etcdserverpb.TxnRequest" -> TxnResponse as txn_json;
    "kv/compaction" => "/etcdserverpb.KV/Compact", ".etcdserverpb.CompactionRequest" -> CompactionResponse;
    "watch" => "/etcdserverpb.Watch/Watch", ".etcdserverpb.WatchRequest" -> WatchResponse;
    "lease/grant" => "/etcdserverpb.Lease/LeaseGrant", ".etcdserverpb.LeaseGrantRequest" -> LeaseGrantResponse;
    "lease/revoke" => "/etcdserverpb.Lease/LeaseRevoke", ".etcdserverpb.LeaseRevokeRequest" -> LeaseRevokeResponse;
    "kv/lease/revoke" => "/etcdserverpb.Lease/LeaseRevoke", ".etcdserverpb.LeaseRevokeRequest" -> LeaseRevokeResponse;
    "lease/keepalive" => "/etcdserverpb.Lease/LeaseKeepAlive",
        ".etcdserverpb.LeaseKeepAliveRequest" -> LeaseKeepAliveResponse;
    "lease/timetolive" => "/etcdserverpb.Lease/LeaseTimeToLive",
        ".etcdserverpb.LeaseTimeToLiveRequest" -> LeaseTimeToLiveResponse;
    "kv/lease/timetolive" => "/etcdserverpb.Lease/LeaseTimeToLive",
        ".etcdserverpb.LeaseTimeToLiveRequest" -> LeaseTimeToLiveResponse;
    "lease/leases" => "/etcdserverpb.Lease/LeaseLeases", ".etcdserverpb.LeaseLeasesRequest" -> LeaseLeasesResponse;
    "kv/lease/leases" => "/etcdserverpb.Lease/LeaseLeases", ".etcdserverpb.LeaseLeasesRequest" -> LeaseLeasesResponse;
    "cluster/member/add" => "/etcdserverpb.Cluster/MemberAdd", ".etcdserverpb.MemberAddRequest" -> MemberAddResponse;
    "cluster/member/remove" => "/etcdserverpb.Cluster/MemberRemove",
        ".etcdserverpb.MemberRemoveRequest" -> MemberRemoveResponse;
    "cluster/member/update" => "/etcdserverpb.Cluster/MemberUpdate",
        ".etcdserverpb.MemberUpdateRequest" -> MemberUpdateResponse;
    "cluster/member/list" => "/etcdserverpb.Cluster/MemberList",
        ".etcdserverpb.MemberListRequest" -> MemberListResponse;
    "cluster/member/promote" => "/etcdserverpb.Cluster/MemberPromote",
        ".etcdserverpb.MemberPromoteRequest" -> MemberPromoteResponse;
    "maintenance/alarm" => "/etcdserverpb.Maintenance/Alarm", ".etcdserverpb.AlarmRequest" -> AlarmResponse;
    "maintenance/status" => "/etcdserverpb.Maintenance/Status", ".etcdserverpb.StatusRequest" -> StatusResponse;
    "maintenance/defragment" => "/etcdserverpb.Maintenance/Defragment",
        ".etcdserverpb.DefragmentRequest" -> DefragmentResponse;
    "maintenance/hash" => "/etcdserverpb.Maintenance/Hash", ".etcdserverpb.HashRequest" -> HashResponse;
    "maintenance/hashkv" => "/etcdserverpb.Maintenance/HashKV", ".etcdserverpb.HashKVRequest" -> HashKvResponse;
    "maintenance/snapshot" => "/etcdserverpb.Maintenance/Snapshot",
        ".etcdserverpb.SnapshotRequest" -> SnapshotResponse;
    "maintenance/transfer-leadership" => "/etcdserverpb.Maintenance/MoveLeader",
        ".etcdserverpb.MoveLeaderRequest" -> MoveLeaderResponse;
    "maintenance/downgrade" => "/etcdserverpb.Maintenance/Downgrade",
        ".etcdserverpb.DowngradeRequest" -> DowngradeResponse;
    "auth/enable" => "/etcdserverpb.Auth/AuthEnable", ".etcdserverpb.AuthEnableRequest" -> AuthEnableResponse;
    "auth/disable" => "/etcdserverpb.Auth/AuthDisable", ".etcdserverpb.AuthDisableRequest" -> AuthDisableResponse;
    "auth/status" => "/etcdserverpb.Auth/AuthStatus", ".etcdserverpb.AuthStatusRequest" -> AuthStatusResponse;
    "auth/authenticate" => "/etcdserverpb.Auth/Authenticate",
        ".etcdserverpb.AuthenticateRequest" -> AuthenticateResponse;
    "auth/user/add" => "/etcdserverpb.Auth/UserAdd", ".etcdserverpb.AuthUserAddRequest" -> AuthUserAddResponse;
    "auth/user/get" => "/etcdserverpb.Auth/UserGet", ".etcdserverpb.AuthUserGetRequest" -> AuthUserGetResponse;
    "auth/user/list" => "/etcdserverpb.Auth/UserList", ".etcdserverpb.AuthUserListRequest" -> AuthUserListResponse;
    "auth/user/delete" => "/etcdserverpb.Auth/UserDelete",
        ".etcdserverpb.AuthUserDeleteRequest" -> AuthUserDeleteResponse;
    "auth/user/changepw" => "/etcdserverpb.Auth/UserChangePassword",
        ".etcdserverpb.AuthUserChangePasswordRequest" -> AuthUserChangePasswordResponse;
    "auth/user/grant" => "/etcdserverpb.Auth/UserGrantRole",
        ".etcdserverpb.AuthUserGrantRoleRequest" -> AuthUserGrantRoleResponse;
    "auth/user/revoke" => "/etcdserverpb.Auth/UserRevokeRole",
        ".etcdserverpb.AuthUserRevokeRoleRequest" -> AuthUserRevokeRoleResponse;
    "auth/role/add" => "/etcdserverpb.Auth/RoleAdd", ".etcdserverpb.AuthRoleAddRequest" -> AuthRoleAddResponse;
    "auth/role/get" => "/etcdserverpb.Auth/RoleGet", ".etcdserverpb.AuthRoleGetRequest" -> AuthRoleGetResponse;
    "auth/role/list" => "/etcdserverpb.Auth/RoleList", ".etcdserverpb.AuthRoleListRequest" -> AuthRoleListResponse;
    "auth/role/delete" => "/etcdserverpb.Auth/RoleDelete",
        ".etcdserverpb.AuthRoleDeleteRequest" -> AuthRoleDeleteResponse;
    "auth/role/grant" => "/etcdserverpb.Auth/RoleGrantPermission",
        ".etcdserverpb.AuthRoleGrantPermissionRequest" -> AuthRoleGrantPermissionResponse;
    "auth/role/revoke" => "/etcdserverpb.Auth/RoleRevokePermission",
        ".etcdserverpb.AuthRoleRevokePermissionRequest" -> AuthRoleRevokePermissionResponse;
    "election/campaign" => "/v3electionpb.Election/Campaign", ".v3electionpb.CampaignRequest" -> CampaignResponse;
    "election/proclaim" => "/v3electionpb.Election/Proclaim", ".v3electionpb.ProclaimRequest" -> ProclaimResponse;
    "election/leader" => "/v3electionpb.Election/Leader", ".v3electionpb.LeaderRequest" -> LeaderResponse;
    "election/observe" => "/v3electionpb.Election/Observe", ".v3electionpb.LeaderRequest" -> LeaderResponse;
    "election/resign" => "/v3electionpb.Election/Resign", ".v3electionpb.ResignRequest" -> ResignResponse;
    "lock/lock" => "/v3lockpb.Lock/Lock", ".v3lockpb.LockRequest" -> LockResponse;
    "lock/unlock" => "/v3lockpb.Lock/Unlock", ".v3lockpb.UnlockRequest" -> UnlockResponse;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::gateway::schema::Schema;

    #[test]
    fn every_route_names_a_method_and_a_message() {
        for route in ROUTES {
            assert_eq!(route.method().path, route.method);
            assert!(Schema::get().message(route.request).is_some(), "{}", route.request);
        }
    }

    #[test]
    fn every_method_of_etcds_gateway_has_a_route() {
        let routed: BTreeSet<_> = ROUTES.iter().map(|route| route.method).collect();
        let unrouted = v3::METHODS.iter().map(|method| method.path).filter(|path| !routed.contains(path));
        let unrouted: Vec<_> = unrouted.filter(|path| !path.starts_with("/grpc.health.")).collect();
        assert_eq!(unrouted, ["/etcdserverpb.KV/RangeStream", "/quorate.Insight/Hot"]);
    }

    #[test]
    fn answers_are_shown_in_the_canonical_form() {
        use crate::pb::{
            etcdserverpb::ResponseHeader,
            mvccpb::{Event, KeyValue},
        };

        let header = Some(ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: 5, raft_term: 2 });
        let kv = Some(KeyValue { key: "foo".into(), mod_revision: 5, ..Default::default() });
        let events = vec![Event { kv: kv.clone(), ..Default::default() }, Event { r#type: 1, kv, prev_kv: None }];
        let response = WatchResponse { header, events, ..Default::default() };
        assert_eq!(
            (find("watch").unwrap().to_json)(response.encode_to_vec().into()).unwrap(),
            r#"{"header":{"cluster_id":"18446744073709551615","member_id":"1","revision":"5","raft_term":"2"},"#
                .to_owned()
                + r#""events":[{"kv":{"key":"Zm9v","mod_revision":"5"}},"#
                + r#"{"type":"DELETE","kv":{"key":"Zm9v","mod_revision":"5"}}]}"#
        );
        let hash = HashKvResponse { hash: 7, compact_revision: -1, ..Default::default() };
        assert_eq!(
            (find("maintenance/hashkv").unwrap().to_json)(hash.encode_to_vec().into()).unwrap(),
            r#"{"hash":7,"compact_revision":"-1"}"#
        );
    }
}
