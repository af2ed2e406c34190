//! What other members may ask of the peer port without being part of the cluster: who belongs to it, and which version
//! it runs.

use std::sync::Arc;

use axum::{Router, extract::Request, http::HeaderValue, response::Response};

use super::{
    debug,
    plain::{self, get_only, not_found},
};
use crate::{api::Api, membership::Member};

/// Carries the cluster's identifier in hexadecimal, so that a member of another cluster notices.
const CLUSTER_HEADER: &str = "x-etcd-cluster-id";

pub(super) fn router(api: &Arc<Api>) -> Router {
    Router::new()
        .route("/members", get_only(api, members))
        .route("/version", get_only(api, debug::version))
        .fallback(not_found)
}

/// The members as a JSON list, ordered by identifier.
async fn members(api: Arc<Api>, _: Request) -> Response {
    let published = api.server().published();
    let members: Vec<String> = published.cluster.members().map(Member::to_json).collect();
    let mut response = plain::body("application/json", format!("[{}]\n", members.join(",")));
    if let Ok(id) = HeaderValue::from_str(&api.identity().cluster.to_string()) {
        response.headers_mut().insert(CLUSTER_HEADER, id);
    }
    response
}
