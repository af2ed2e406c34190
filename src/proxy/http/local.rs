//! What the node answers for itself.

use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;
use tokio::time::timeout;

use super::{
    Node, answer,
    body::{self, Body},
};
use crate::metrics;

/// How long one member may take to say how it is.
const HEALTH_PATIENCE: Duration = Duration::from_secs(2);
/// Longest such answer.
const HEALTH_BYTES_MAX: usize = 64 << 10;
const JSON: &str = "application/json";

/// `/metrics`: the node's own.
pub(super) fn metrics() -> Response<Body> {
    answer::of_type(StatusCode::OK, metrics::CONTENT_TYPE, metrics::exposition())
}

/// `/v2/config/local/proxy`: where requests go now.
pub(super) fn endpoints(node: &Node) -> Response<Body> {
    let available = node.endpoints().available();
    let addresses: Vec<&str> = available.iter().map(|endpoint| endpoint.address.as_str()).collect();
    answer::of_type(StatusCode::OK, JSON, format!("{}\n", json!({ "endpoints": addresses })))
}

/// `/health`: healthy as long as one member is, in that member's words.
pub(super) async fn health(node: &Node, path_and_query: &str) -> Response<Body> {
    let mut said = None;
    for endpoint in node.endpoints().available() {
        let url = format!("{}{path_and_query}", endpoint.address);
        match timeout(HEALTH_PATIENCE, ask(node, &url)).await {
            Ok(Some((StatusCode::OK, text))) => return answer::of_type(StatusCode::OK, JSON, text),
            Ok(Some((_, text))) => said = Some(text),
            Ok(None) | Err(_) => node.endpoints().report_failed(&endpoint, &"it does not say how it is"),
        }
    }
    let nobody = || json!({ "health": "false", "reason": "no member answers" }).to_string();
    answer::of_type(StatusCode::SERVICE_UNAVAILABLE, JSON, said.unwrap_or_else(nobody))
}

async fn ask(node: &Node, url: &str) -> Option<(StatusCode, String)> {
    let request = Request::builder().method(Method::GET).uri(url).body(body::whole("")).ok()?;
    let (head, body) = node.send(request).await.ok()?.into_parts();
    let bytes = Limited::new(body, HEALTH_BYTES_MAX).collect().await.ok()?.to_bytes();
    Some((head.status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// `/version` while no member answers: the version that is imitated, of no cluster.
pub(super) fn version(node: &Node) -> Response<Body> {
    let text = json!({ "etcdserver": node.options().version, "etcdcluster": "not_decided" }).to_string();
    answer::of_type(StatusCode::OK, JSON, text)
}
