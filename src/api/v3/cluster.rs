//! `etcdserverpb.Cluster`.

use super::Session;
use crate::{
    api::status::Status,
    membership::check_peer_urls,
    pb::etcdserverpb::{
        self as pb, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
        MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
    },
    types::MemberId,
};

/// Lists the members, ordered by identifier.
pub(super) async fn list(session: Session, request: MemberListRequest) -> Result<MemberListResponse, Status> {
    if request.linearizable {
        session.linearize().await?;
    }
    let members = session.for_users().await?.published().cluster.to_pb();
    Ok(MemberListResponse { header: Some(session.header(0)), members })
}

/// Adds a member.
pub(super) async fn add(session: Session, request: MemberAddRequest) -> Result<MemberAddResponse, Status> {
    check_peer_urls(&request.peer_ur_ls)?;
    let (member, cluster) = session.for_admins().await?.member_add(&request.peer_ur_ls, request.is_learner).await?;
    let header = Some(session.header(0));
    Ok(MemberAddResponse { header, member: Some(pb::Member::from(&member)), members: cluster.to_pb() })
}

/// Removes a member.
pub(super) async fn remove(session: Session, request: MemberRemoveRequest) -> Result<MemberRemoveResponse, Status> {
    let cluster = session.for_admins().await?.member_remove(MemberId(request.id)).await?;
    Ok(MemberRemoveResponse { header: Some(session.header(0)), members: cluster.to_pb() })
}

/// Changes a member's peer URLs.
pub(super) async fn update(session: Session, request: MemberUpdateRequest) -> Result<MemberUpdateResponse, Status> {
    let cluster = session.for_admins().await?.member_update(MemberId(request.id), &request.peer_ur_ls).await?;
    Ok(MemberUpdateResponse { header: Some(session.header(0)), members: cluster.to_pb() })
}

/// Makes a learner a voter.
pub(super) async fn promote(session: Session, request: MemberPromoteRequest) -> Result<MemberPromoteResponse, Status> {
    let members = session.for_admins().await?.member_promote(MemberId(request.id)).await?;
    let members = members.iter().map(pb::Member::from).collect();
    Ok(MemberPromoteResponse { header: Some(session.header(0)), members })
}
