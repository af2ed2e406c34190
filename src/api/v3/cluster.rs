//! `etcdserverpb.Cluster`.

use std::sync::Arc;

use super::Call;
use crate::{
    api::{Api, status::Status},
    pb::etcdserverpb::{
        self as pb, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
        MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
    },
    types::MemberId,
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
pub(super) async fn add(api: Arc<Api>, _: Call, request: MemberAddRequest) -> Result<MemberAddResponse, Status> {
    let (member, cluster) = api.server().member_add(&request.peer_ur_ls, request.is_learner).await?;
    let header = Some(api.header(0));
    Ok(MemberAddResponse { header, member: Some(pb::Member::from(&member)), members: cluster.to_pb() })
}

/// Removes a member.
pub(super) async fn remove(
    api: Arc<Api>,
    _: Call,
    request: MemberRemoveRequest,
) -> Result<MemberRemoveResponse, Status> {
    let cluster = api.server().member_remove(MemberId(request.id)).await?;
    Ok(MemberRemoveResponse { header: Some(api.header(0)), members: cluster.to_pb() })
}

/// Changes a member's peer URLs.
pub(super) async fn update(
    api: Arc<Api>,
    _: Call,
    request: MemberUpdateRequest,
) -> Result<MemberUpdateResponse, Status> {
    let cluster = api.server().member_update(MemberId(request.id), &request.peer_ur_ls).await?;
    Ok(MemberUpdateResponse { header: Some(api.header(0)), members: cluster.to_pb() })
}

/// Makes a learner a voter.
pub(super) async fn promote(
    api: Arc<Api>,
    _: Call,
    request: MemberPromoteRequest,
) -> Result<MemberPromoteResponse, Status> {
    let members = api.server().member_promote(MemberId(request.id)).await?;
    let members = members.iter().map(pb::Member::from).collect();
    Ok(MemberPromoteResponse { header: Some(api.header(0)), members })
}
