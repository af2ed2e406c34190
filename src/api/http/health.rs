//! `/health`: the oldest of the health checks, and the one most load balancers know.

use std::sync::Arc;

use axum::{extract::Request, http::StatusCode, response::Response};
use serde_json::json;

use super::plain::{self, query};
use crate::{
    api::{Api, status::Status},
    metrics,
    pb::etcdserverpb::AlarmType,
    server::ServerError,
};

/// Alarms first, then the leader, then a read.
pub(super) async fn health(api: Arc<Api>, request: Request) -> Response {
    let serializable = query(&request, "serializable").next().is_some_and(|value| value == "true");
    let excluded: Vec<String> = query(&request, "exclude").collect();
    match check(&api, serializable, &excluded).await {
        Ok(()) => {
            metrics::HEALTH_SUCCESS.inc();
            plain::body("text/plain; charset=utf-8", report("true", ""))
        }
        Err(reason) => {
            metrics::HEALTH_FAILURES.inc();
            plain::text(StatusCode::SERVICE_UNAVAILABLE, &report("false", &reason))
        }
    }
}

fn report(health: &str, reason: &str) -> String {
    json!({ "health": health, "reason": reason }).to_string()
}

async fn check(api: &Api, serializable: bool, excluded: &[String]) -> Result<(), String> {
    if let Some(alarm) = first_alarm(api, excluded) {
        return Err(format!("ALARM {alarm}"));
    }
    if !serializable && !api.server().has_leader() {
        return Err("RAFT NO LEADER".into());
    }
    read(api, serializable).await.map_err(|error| format!("RANGE ERROR:{error}"))
}

fn first_alarm(api: &Api, excluded: &[String]) -> Option<&'static str> {
    let raised = api.server().published().alarms.list(None);
    let names = raised.into_iter().map(|alarm| match AlarmType::try_from(alarm.alarm) {
        Ok(AlarmType::Nospace) => "NOSPACE",
        Ok(AlarmType::Corrupt) => "CORRUPT",
        _ => "UNKNOWN",
    });
    names.into_iter().find(|name| !excluded.iter().any(|excluded| excluded == name))
}

/// A read as a client would make it; the state's own answer does not matter.
pub(super) async fn read(api: &Api, serializable: bool) -> Result<(), String> {
    use crate::pb::etcdserverpb::RangeRequest;

    if !serializable {
        api.server().read_index().await.map_err(|error: ServerError| error.to_string())?;
    }
    let view = api.server().published().view.clone();
    let probe = RangeRequest { key: "health".into(), limit: 1, keys_only: true, ..Default::default() };
    let read = api.blocking(move || view.range(&probe)).await.and_then(|read| read.map_err(Status::from));
    read.map(drop).map_err(|status| status.message().to_owned())
}
