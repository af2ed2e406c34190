//! `etcdserverpb.Cluster`.

use std::sync::Arc;

use super::Call;
use crate::{
    api::{Api, status::Status},
    pb::etcdserverpb::{
        MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
        MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
    },
};

/// Lists the members, ordered by identifier.
pub(super) async fn list(api: Arc<Api>, _: Call, request: MemberListRequest) -> Result<MemberListResponse, Status> {
    if request.linearizable {
        api.server().read_index().await?;
    }
    let members = api.server().published().cluster.to_pb();
    Ok(MemberListResponse { header: Some(api.header(0)), members })
}

/// Adds a member.
pub(super) async fn add(_: Arc<Api>, _: Call, _: MemberAddRequest) -> Result<MemberAddResponse, Status> {
    Err(not_yet())
}

/// Removes a member.
pub(super) async fn remove(_: Arc<Api>, _: Call, _: MemberRemoveRequest) -> Result<MemberRemoveResponse, Status> {
    Err(not_yet())
}

/// Changes a member's peer URLs.
pub(super) async fn update(_: Arc<Api>, _: Call, _: MemberUpdateRequest) -> Result<MemberUpdateResponse, Status> {
    Err(not_yet())
}

/// Makes a learner a voter.
pub(super) async fn promote(_: Arc<Api>, _: Call, _: MemberPromoteRequest) -> Result<MemberPromoteResponse, Status> {
    Err(not_yet())
}

fn not_yet() -> Status {
    Status::unimplemented("quorate: this version runs clusters of one member, which cannot be changed")
}
