//! `etcdserverpb.Lease`.

use std::sync::Arc;

use prost::Message as _;

use super::{
    Call, decode_streamed,
    kv::{propose, unexpected},
};
use crate::{
    api::{
        Api,
        status::Status,
        wire::{Inbound, Outbound},
    },
    apply::{LEASE_COST_BYTES, Response},
    metrics,
    pb::etcdserverpb::{
        InternalRaftRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
        LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    },
    server::{LeaseLife, ServerError},
    types::{LeaseId, Rejection},
};

/// The time to live in the answer about a lease nobody knows.
const UNKNOWN_LEASE_TTL: i64 = -1;

/// Grants a lease; the member picks the identifier if the client does not.
pub(super) async fn grant(
    api: Arc<Api>,
    _: Call,
    mut request: LeaseGrantRequest,
) -> Result<LeaseGrantResponse, Status> {
    api.server().check_quota(LEASE_COST_BYTES).await?;
    if request.id == 0 {
        request.id = api.server().next_lease_id().0;
    }
    let proposal = InternalRaftRequest { lease_grant: Some(request), ..Default::default() };
    match propose(&api, "LeaseGrant", proposal).await? {
        Response::LeaseGrant(mut answer) => {
            api.complete(&mut answer.header);
            Ok(answer)
        }
        other => Err(unexpected(&other)),
    }
}

/// Revokes a lease and deletes its keys.
pub(super) async fn revoke(api: Arc<Api>, _: Call, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Status> {
    let proposal = InternalRaftRequest { lease_revoke: Some(request), ..Default::default() };
    match propose(&api, "LeaseRevoke", proposal).await? {
        Response::LeaseRevoke(mut answer) => {
            api.complete(&mut answer.header);
            Ok(answer)
        }
        other => Err(unexpected(&other)),
    }
}

/// Renews leases, one answer per request, in order.
pub(super) async fn keep_alive(
    api: Arc<Api>,
    call: &Call,
    inbound: Inbound,
    outbound: &mut Outbound,
) -> Result<(), Status> {
    api.admit_stream(call)?;
    tokio::select! {
        ended = renew_all(&api, inbound, outbound) => ended,
        cut = api.cut(call) => Err(cut),
    }
}

async fn renew_all(api: &Api, mut inbound: Inbound, outbound: &mut Outbound) -> Result<(), Status> {
    loop {
        let request = tokio::select! {
            request = inbound.next() => request?,
            () = outbound.closed() => return Err(Status::canceled()),
        };
        let Some(request) = request else { return Ok(()) };
        let answer = renew(api, decode_streamed(request)?).await?;
        if outbound.send(answer.encode_to_vec().into()).await.is_err() {
            metrics::STREAM_FAILURES.with(["lease-keepalive", "send"]).inc();
            return Err(Status::canceled());
        }
    }
}

/// The header shows the store before the renewal. A lease nobody knows is no error: its time to live is zero.
async fn renew(api: &Api, request: LeaseKeepAliveRequest) -> Result<LeaseKeepAliveResponse, Status> {
    let header = Some(api.header_now());
    let ttl = match api.server().lease_renew(LeaseId(request.id)).await {
        Err(ServerError::Rejected(Rejection::LeaseNotFound)) => 0,
        renewed => renewed?,
    };
    Ok(LeaseKeepAliveResponse { header, id: request.id, ttl })
}

/// How long a lease has to live, and on request its keys.
pub(super) async fn time_to_live(
    api: Arc<Api>,
    _: Call,
    request: LeaseTimeToLiveRequest,
) -> Result<LeaseTimeToLiveResponse, Status> {
    let lease = LeaseId(request.id);
    let known = match api.server().lease_time_to_live(lease, request.keys).await {
        Err(ServerError::Rejected(Rejection::LeaseNotFound)) => None,
        // This member stopped leading while it looked.
        Err(ServerError::Rejected(Rejection::NotPrimaryLessor)) => return Err(Rejection::LeaderChanged.into()),
        known => known?,
    };
    let mut answer = LeaseTimeToLiveResponse { id: request.id, ttl: UNKNOWN_LEASE_TTL, ..Default::default() };
    if let Some(LeaseLife { remaining, granted, keys }) = known {
        (answer.ttl, answer.granted_ttl, answer.keys) = (remaining, granted, keys);
    }
    answer.header = Some(api.header_now());
    Ok(answer)
}

/// All leases this member knows.
pub(super) async fn leases(api: Arc<Api>, _: Call, _: LeaseLeasesRequest) -> Result<LeaseLeasesResponse, Status> {
    let leases = api.server().leases().into_iter().map(|lease| LeaseStatus { id: lease.0 }).collect();
    Ok(LeaseLeasesResponse { header: Some(api.header_now()), leases })
}
