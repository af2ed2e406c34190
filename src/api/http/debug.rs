//! `/version`, `/metrics`, `/debug/vars`.

use std::sync::Arc;

use axum::{extract::Request, response::Response};
use bytes::Bytes;
use serde_json::json;

use super::plain;
use crate::{
    api::Api,
    clock::{self, Clock as _},
    metrics,
    pb::etcdserverpb::{AlarmType, RangeRequest},
    server::State,
    types::MemberId,
};

/// What stands where etcd names its Go version.
const COMPILER: &str = concat!("rust", env!("CARGO_PKG_RUST_VERSION"));

/// Versions of the member, the cluster and the stored state.
pub(super) async fn version(api: Arc<Api>, _: Request) -> Response {
    let cluster = api.server().published().cluster.version();
    let agreed = cluster.map(|version| format!("{}.{}.0", version.major, version.minor));
    let versions = json!({
        "etcdserver": api.server().status().version.to_string(),
        "etcdcluster": agreed.as_deref().unwrap_or("not_decided"),
        "storage": agreed.as_deref().unwrap_or("unknown"),
    });
    plain::body("application/json", versions.to_string())
}

/// The instruments, those taken from the state brought up to date first.
pub(super) async fn metrics(api: Arc<Api>, _: Request) -> Response {
    refresh(&api);
    if let Some(keys) = count_keys(&api).await {
        metrics::MVCC_KEYS.set(keys);
    }
    let text = counted(metrics::exposition);
    plain::body(metrics::CONTENT_TYPE, text)
}

/// Counts what `show` shows as Go's library counts it: after it was shown.
fn counted(show: fn() -> String) -> String {
    for code in ["200", "500", "503"] {
        drop(metrics::SCRAPES.with([code]));
    }
    metrics::SCRAPES_IN_FLIGHT.inc();
    let text = show();
    metrics::SCRAPES_IN_FLIGHT.dec();
    metrics::SCRAPES.with(["200"]).inc();
    text
}

/// Alarms that were raised and no longer are show as zero.
fn refresh_alarms(state: &State) {
    metrics::ALARMS.each(|_, alarm| alarm.set(0));
    for alarm in state.alarms.list(None) {
        let kind = AlarmType::try_from(alarm.alarm).unwrap_or(AlarmType::None);
        metrics::ALARMS.with([kind.as_str_name(), &MemberId(alarm.member_id).to_string()]).set(1);
    }
}

fn refresh(api: &Api) {
    let status = api.server().status();
    let published = api.server().published();
    metrics::HAS_LEADER.set(i64::from(status.leader.is_some()));
    metrics::IS_LEADER.set(i64::from(status.leader == Some(api.identity().member)));
    metrics::IS_LEARNER.set(i64::from(status.is_learner));
    metrics::PROPOSALS_COMMITTED.set_count(status.commit_index.0);
    metrics::PROPOSALS_APPLIED.set_count(status.applied_index.0);
    metrics::DB_TOTAL_BYTES.set_count(status.db_size);
    metrics::DB_IN_USE_BYTES.set_count(status.db_size_in_use);
    metrics::QUOTA_BYTES.set_count(status.quota.unwrap_or_default());
    metrics::MVCC_REVISION.set(published.view.revision());
    metrics::MVCC_COMPACT_REVISION.set(published.view.compact_revision());
    let own = api.identity().member.to_string();
    metrics::SERVER_ID.with([&own]).set(1);
    for member in published.cluster.members() {
        metrics::KNOWN_PEERS.with([&own, &member.id.to_string()]).set(1);
    }
    refresh_alarms(&published);
    metrics::SERVER_RUNTIME.with([COMPILER]).set(1);
    metrics::SERVER_VERSION.with([&status.version.to_string()]).set(1);
    if let Some(version) = published.cluster.version() {
        metrics::CLUSTER_VERSION.with([&format!("{}.{}", version.major, version.minor)]).set(1);
    }
}

/// Counting takes few reads: the state keeps counts of neighbouring keys.
async fn count_keys(api: &Api) -> Option<i64> {
    let view = api.server().published().view.clone();
    let everything = Bytes::from_static(b"\0");
    let count =
        RangeRequest { key: everything.clone(), range_end: everything, count_only: true, ..RangeRequest::default() };
    api.blocking(move || view.range(&count)).await.ok()?.ok().map(|answer| answer.count)
}

/// A few numbers of the process, in the shape of Go's `expvar`.
pub(super) async fn vars(api: Arc<Api>, _: Request) -> Response {
    let vars = json!({
        "cmdline": std::env::args().collect::<Vec<_>>(),
        "file_descriptor_limit": metrics::OS_FD_LIMIT.get(),
        "memstats": {},
        "raft.status": {
            "id": api.identity().member.to_string(),
            "term": api.server().status().term.0,
            "commit": api.server().status().commit_index.0,
            "applied": api.server().status().applied_index.0,
        },
        "uptime_seconds": clock::system().monotonic().as_secs(),
    });
    plain::body("application/json; charset=utf-8", vars.to_string())
}
