//! `etcdserverpb.Maintenance`.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Call, Reply, call, decode,
    kv::{propose, unexpected},
};
use crate::{
    api::{
        Api,
        status::Status,
        wire::{Inbound, Outbound},
    },
    apply::Response,
    pb::etcdserverpb::{
        AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeInfo, DowngradeRequest,
        DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, InternalRaftRequest,
        MoveLeaderRequest, MoveLeaderResponse, StatusRequest, StatusResponse, alarm_request::AlarmAction,
        downgrade_request::DowngradeAction,
    },
    server::State,
    types::{MemberId, Rejection},
};

/// Lists, raises or clears alarms. All of it goes through the log, listing included.
pub(super) async fn alarm(api: Arc<Api>, _: Call, request: AlarmRequest) -> Result<AlarmResponse, Status> {
    AlarmAction::try_from(request.action).map_err(|_| Rejection::UnknownAlarmAction)?;
    match propose(&api, "Alarm", InternalRaftRequest { alarm: Some(request), ..Default::default() }).await? {
        Response::Alarm(mut answer) => {
            answer.header = Some(api.header_now());
            Ok(answer)
        }
        other => Err(unexpected(&other)),
    }
}

/// What this member knows about itself; learners answer too.
pub(super) async fn status(api: Arc<Api>, call: Call, request: Bytes) -> Result<Reply, Status> {
    let StatusRequest {} = decode(request)?;
    api.admit(&call, call::UNARY, true)?;
    Ok(Reply::of(&status_of(&api)))
}

fn status_of(api: &Api) -> StatusResponse {
    let status = api.server().status();
    let published = api.server().published();
    let no_leader = status.leader.is_none().then(|| Rejection::NoLeader.to_string());
    let alarms = published.alarms.list(None).into_iter().map(|alarm| {
        let kind = AlarmType::try_from(alarm.alarm).unwrap_or(AlarmType::None);
        format!("memberID:{} alarm:{}", alarm.member_id, kind.as_str_name())
    });
    let downgrade = published.cluster.downgrade().target;
    StatusResponse {
        header: Some(api.header(published.view.revision())),
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

/// Space falls free by itself, but in its own time: this gives it back at once.
pub(super) async fn defragment(
    api: Arc<Api>,
    _: Call,
    DefragmentRequest {}: DefragmentRequest,
) -> Result<DefragmentResponse, Status> {
    api.server().reclaim().await?;
    Ok(DefragmentResponse::default())
}

/// Hashes the whole state.
pub(super) async fn hash(api: Arc<Api>, _: Call, HashRequest {}: HashRequest) -> Result<HashResponse, Status> {
    let (hash, revision) = api.server().hash().await?;
    Ok(HashResponse { header: Some(api.header(revision)), hash })
}

/// Hashes the key space at a revision.
pub(super) async fn hash_kv(api: Arc<Api>, _: Call, request: HashKvRequest) -> Result<HashKvResponse, Status> {
    let hash = api.server().hash_kv(request.revision).await?;
    Ok(HashKvResponse {
        header: Some(api.header(hash.current_revision)),
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        hash_revision: hash.revision,
    })
}

/// Streams the state as a database file; learners answer too.
pub(super) async fn snapshot(api: Arc<Api>, call: &Call, _: Inbound, _: &mut Outbound) -> Result<(), Status> {
    api.admit(call, call::STREAM, true)?;
    Err(Status::unimplemented("quorate: this version does not write snapshots for clients"))
}

/// Hands leadership to another member.
pub(super) async fn move_leader(
    api: Arc<Api>,
    _: Call,
    request: MoveLeaderRequest,
) -> Result<MoveLeaderResponse, Status> {
    api.server().move_leader(MemberId(request.target_id)).await?;
    Ok(MoveLeaderResponse::default())
}

/// Prepares the cluster for an older version, or takes that back.
pub(super) async fn downgrade(api: Arc<Api>, _: Call, request: DowngradeRequest) -> Result<DowngradeResponse, Status> {
    let server = api.server();
    let version = match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate) => server.downgrade_validate(&request.version).await?,
        Ok(DowngradeAction::Enable) => server.downgrade_enable(&request.version).await?,
        Ok(DowngradeAction::Cancel) => server.downgrade_cancel().await?,
        Err(_) => return Err(Status::unknown("etcdserver: unknown method")),
    };
    let version = format!("{}.{}", version.major, version.minor);
    Ok(DowngradeResponse { header: Some(api.header_now()), version })
}
