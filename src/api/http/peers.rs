//! The peer port: everything under `/raft` for the transport, and what members ask of each other besides.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode},
    response::Response,
};

use super::{
    debug,
    plain::{self, any_method, get_only, not_found},
};
use crate::{api::Api, membership::Member};

/// Carries the cluster's identifier in hexadecimal, so that a member of another cluster notices.
const CLUSTER_HEADER: &str = "x-etcd-cluster-id";

pub(super) fn router(api: &Arc<Api>) -> Router {
    Router::new()
        .route("/raft", any_method(api, raft))
        .route("/raft/{*path}", any_method(api, raft))
        .route("/members", get_only(api, members))
        .route("/version", get_only(api, debug::version))
        .fallback(not_found)
}

/// What the transport answers.
async fn raft(api: Arc<Api>, request: Request) -> Response {
    match api.server().transport() {
        Some(transport) => transport.serve(request).await.map(Body::new),
        None => plain::text(StatusCode::SERVICE_UNAVAILABLE, "the member is not connected"),
    }
}

/// The members as a JSON list, ordered by identifier.
async fn members(api: Arc<Api>, _: Request) -> Response {
    with_cluster(&api, plain::body("application/json", members_json(api.server().published().cluster.members())))
}

fn members_json<'a>(members: impl Iterator<Item = &'a Member>) -> String {
    let members: Vec<String> = members.map(Member::to_json).collect();
    format!("[{}]\n", members.join(","))
}

fn with_cluster(api: &Api, mut response: Response) -> Response {
    if let Ok(id) = HeaderValue::from_str(&api.identity().cluster.to_string()) {
        response.headers_mut().insert(CLUSTER_HEADER, id);
    }
    response
}
