//! `etcdserverpb.Lease`.

use bytes::Bytes;
use prost::Message as _;

use super::{Session, decode_streamed, kv::unexpected};
use crate::{
    api::{
        status::Status,
        wire::{Inbound, Outbound},
    },
    apply::{LEASE_COST_BYTES, Response},
    auth::Access,
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
pub(super) async fn grant(session: Session, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
    grant_to(&session, request).await
}

/// [`grant`] within another call.
pub(super) async fn grant_to(session: &Session, mut request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
    session.check_quota(LEASE_COST_BYTES).await?;
    let server = session.for_users().await?;
    if request.id == 0 {
        request.id = server.next_lease_id().0;
    }
    let proposal = InternalRaftRequest { lease_grant: Some(request), ..Default::default() };
    match session.propose("LeaseGrant", proposal).await? {
        Response::LeaseGrant(mut answer) => {
            session.complete(&mut answer.header);
            Ok(answer)
        }
        other => Err(unexpected(&other)),
    }
}

/// Revokes a lease and deletes its keys.
pub(super) async fn revoke(session: Session, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Status> {
    session.for_users().await?;
    let proposal = InternalRaftRequest { lease_revoke: Some(request), ..Default::default() };
    match session.propose("LeaseRevoke", proposal).await? {
        Response::LeaseRevoke(mut answer) => {
            session.complete(&mut answer.header);
            Ok(answer)
        }
        other => Err(unexpected(&other)),
    }
}

/// Renews leases, one answer per request, in order.
pub(super) async fn keep_alive(session: &Session, inbound: Inbound, outbound: &mut Outbound) -> Result<(), Status> {
    session.admit_stream()?;
    tokio::select! {
        ended = renew_all(session, inbound, outbound) => ended,
        cut = session.cut() => Err(cut),
    }
}

async fn renew_all(session: &Session, mut inbound: Inbound, outbound: &mut Outbound) -> Result<(), Status> {
    loop {
        let request = tokio::select! {
            request = inbound.next() => request?,
            () = outbound.closed() => return Err(Status::canceled()),
        };
        let Some(request) = request else { return Ok(()) };
        let request = decode_streamed(request)?;
        let step = session.step(&request);
        let answer = renew(session, request).await;
        if let Some(step) = step {
            step.end(&answer);
        }
        let answer = answer?;
        if outbound.send(answer.encode_to_vec().into()).await.is_err() {
            metrics::STREAM_FAILURES.with(["lease-keepalive", "send"]).inc();
            return Err(Status::canceled());
        }
    }
}

/// The header shows the store before the renewal. A lease nobody knows is no error: its time to live is zero. Who renews
/// one keeps its keys, so he must be allowed to write them.
async fn renew(session: &Session, request: LeaseKeepAliveRequest) -> Result<LeaseKeepAliveResponse, Status> {
    let (header, lease) = (Some(session.header_now()), LeaseId(request.id));
    let server = session.for_keys_of(vec![lease], Access::Write).await?;
    let ttl = match server.lease_renew(lease).await {
        Err(ServerError::Rejected(Rejection::LeaseNotFound)) => 0,
        renewed => renewed?,
    };
    Ok(LeaseKeepAliveResponse { header, id: request.id, ttl })
}

/// How long a lease has to live, and on request its keys, to who may read them.
pub(super) async fn time_to_live(
    session: Session,
    request: LeaseTimeToLiveRequest,
) -> Result<LeaseTimeToLiveResponse, Status> {
    let lease = LeaseId(request.id);
    let server =
        if request.keys { session.for_keys_of(vec![lease], Access::Read).await? } else { session.for_users().await? };
    let known = match server.lease_time_to_live(lease, request.keys).await {
        Err(ServerError::Rejected(Rejection::LeaseNotFound)) => None,
        // This member stopped leading while it looked.
        Err(ServerError::Rejected(Rejection::NotPrimaryLessor)) => return Err(Rejection::LeaderChanged.into()),
        known => known?,
    };
    let mut answer = LeaseTimeToLiveResponse { id: request.id, ttl: UNKNOWN_LEASE_TTL, ..Default::default() };
    if let Some(LeaseLife { remaining, granted, keys }) = known {
        // Those that the leader knows may be more than those that were looked at here.
        let reading = session.reading().await?;
        keys.iter().try_for_each(|key| reading.check(key, &Bytes::new()))?;
        (answer.ttl, answer.granted_ttl, answer.keys) = (remaining, granted, keys);
    }
    answer.header = Some(session.header_now());
    Ok(answer)
}

/// All leases this member knows, to who may read all keys of them.
pub(super) async fn leases(session: Session, _: LeaseLeasesRequest) -> Result<LeaseLeasesResponse, Status> {
    let leases = session.for_everybody().leases();
    session.for_keys_of(leases.clone(), Access::Read).await?;
    let leases = leases.into_iter().map(|lease| LeaseStatus { id: lease.0 }).collect();
    Ok(LeaseLeasesResponse { header: Some(session.header_now()), leases })
}
