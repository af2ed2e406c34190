//! `etcdserverpb.Maintenance`.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::time::timeout;

use super::{Reply, Session, call, decode, kv::unexpected, only_request};
use crate::{
    api::{
        status::Status,
        wire::{Inbound, Outbound},
    },
    apply::Response,
    pb::etcdserverpb::{
        AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeInfo, DowngradeRequest,
        DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, InternalRaftRequest,
        MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
        alarm_request::AlarmAction, downgrade_request::DowngradeAction,
    },
    server::{Handle, State},
    types::{Code, MemberId, Rejection},
};

/// Lists, raises or clears alarms. All of it goes through the log, listing included.
pub(super) async fn alarm(session: Session, request: AlarmRequest) -> Result<AlarmResponse, Status> {
    match AlarmAction::try_from(request.action) {
        Ok(AlarmAction::Get) => session.for_users().await?,
        _ => session.for_admins().await?,
    };
    AlarmAction::try_from(request.action).map_err(|_| Rejection::UnknownAlarmAction)?;
    match session.propose("Alarm", InternalRaftRequest { alarm: Some(request), ..Default::default() }).await? {
        Response::Alarm(mut answer) => {
            answer.header = Some(session.header_now());
            Ok(answer)
        }
        other => Err(unexpected(&other)),
    }
}

/// What this member knows about itself; learners answer too.
pub(super) async fn status(session: Session, request: Bytes) -> Result<Reply, Status> {
    let request: StatusRequest = decode(request)?;
    session.tell(&request);
    session.admit(call::UNARY, true)?;
    let server = session.for_users().await?;
    Ok(Reply::of(&status_of(&session, server)))
}

fn status_of(session: &Session, server: &Handle) -> StatusResponse {
    let (status, published) = (server.status(), server.published());
    let no_leader = status.leader.is_none().then(|| Rejection::NoLeader.to_string());
    let alarms = published.alarms.list(None).into_iter().map(|alarm| {
        let kind = AlarmType::try_from(alarm.alarm).unwrap_or(AlarmType::None);
        format!("memberID:{} alarm:{}", alarm.member_id, kind.as_str_name())
    });
    let downgrade = published.cluster.downgrade().target;
    StatusResponse {
        header: Some(session.header(published.view.revision())),
        version: status.version.to_string(),
        db_size: signed(status.db_size),
        leader: status.leader.unwrap_or_default().0,
        raft_index: status.commit_index.0,
        raft_term: status.term.0,
        raft_applied_index: status.applied_index.0,
        errors: no_leader.into_iter().chain(alarms).collect(),
        db_size_in_use: signed(status.db_size_in_use),
        is_learner: status.is_learner,
        storage_version: storage_version(&published),
        db_size_quota: status.quota.map_or(NO_QUOTA, signed),
        downgrade_info: Some(DowngradeInfo {
            enabled: downgrade.is_some(),
            target_version: downgrade.map(|version| version.to_string()).unwrap_or_default(),
        }),
    }
}

/// What is shown as the quota of a member without one.
const NO_QUOTA: i64 = -1;

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The version of the stored state, which follows that of the cluster: `x.y.0`, empty while undecided.
fn storage_version(state: &State) -> String {
    state.cluster.version().map(|version| format!("{}.{}.0", version.major, version.minor)).unwrap_or_default()
}

/// Space falls free by itself, but in its own time: this has it given back at once, behind the answer if there is much of it.
pub(super) async fn defragment(
    session: Session,
    DefragmentRequest {}: DefragmentRequest,
) -> Result<DefragmentResponse, Status> {
    session.for_admins().await?.reclaim().await?;
    Ok(DefragmentResponse::default())
}

/// Hashes the whole state.
pub(super) async fn hash(session: Session, HashRequest {}: HashRequest) -> Result<HashResponse, Status> {
    let (hash, revision) = session.for_admins().await?.hash().await?;
    Ok(HashResponse { header: Some(session.header(revision)), hash })
}

/// Hashes the key space at a revision.
pub(super) async fn hash_kv(session: Session, request: HashKvRequest) -> Result<HashKvResponse, Status> {
    let hash = session.for_admins().await?.hash_kv(request.revision).await?;
    Ok(HashKvResponse {
        header: Some(session.header(hash.current_revision)),
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        hash_revision: hash.revision,
    })
}

/// Streams the state as etcd's database, and the SHA-256 of it; learners answer too.
pub(super) async fn snapshot(session: &Session, mut inbound: Inbound, outbound: &mut Outbound) -> Result<(), Status> {
    let SnapshotRequest {} = only_request(session, &mut inbound).await?;
    session.admit(call::STREAM, true)?;
    let server = session.for_admins().await?;
    tokio::select! {
        sent = send_snapshot(server, outbound) => sent,
        cut = session.cut() => Err(cut),
    }
}

async fn send_snapshot(server: &Handle, outbound: &mut Outbound) -> Result<(), Status> {
    let mut snapshot = tokio::select! {
        snapshot = server.snapshot() => snapshot?,
        () = outbound.closed() => return Err(Status::canceled()),
    };
    let bytes = snapshot.bytes();
    tracing::info!(bytes, version = snapshot.version(), "sending database snapshot to client");
    while let Some((blob, remaining_bytes)) = snapshot.next().await? {
        let version = snapshot.version().to_owned();
        let message = SnapshotResponse { header: None, remaining_bytes, blob, version }.encode_to_vec();
        timeout(SNAPSHOT_STALL_MAX, outbound.send(message.into())).await.map_err(|_| stalled())??;
    }
    tracing::info!(bytes, "successfully sent database snapshot to client");
    Ok(())
}

/// Longest time that a client may take nothing of its snapshot: others wait for its turn, and the disk for its room.
const SNAPSHOT_STALL_MAX: Duration = Duration::from_mins(2);

fn stalled() -> Status {
    let seconds = SNAPSHOT_STALL_MAX.as_secs();
    let text = format!("quorate: the client has taken nothing of the snapshot for {seconds} seconds; ask for it again");
    Status::new(Code::DeadlineExceeded, text)
}

/// Hands leadership to another member.
pub(super) async fn move_leader(session: Session, request: MoveLeaderRequest) -> Result<MoveLeaderResponse, Status> {
    session.for_admins().await?.move_leader(MemberId(request.target_id)).await?;
    Ok(MoveLeaderResponse::default())
}

/// Prepares the cluster for an older version, or takes that back.
pub(super) async fn downgrade(session: Session, request: DowngradeRequest) -> Result<DowngradeResponse, Status> {
    let server = session.for_admins().await?;
    let version = match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate) => server.downgrade_validate(&request.version).await?,
        Ok(DowngradeAction::Enable) => server.downgrade_enable(&request.version).await?,
        Ok(DowngradeAction::Cancel) => server.downgrade_cancel().await?,
        Err(_) => return Err(Status::unknown("etcdserver: unknown method")),
    };
    let version = format!("{}.{}", version.major, version.minor);
    Ok(DowngradeResponse { header: Some(session.header_now()), version })
}
