//! The v2 API over HTTP: keys, members, statistics, machines.
//!
//! What clients see follows etcd word for word: status, headers, JSON and the order in which a request is checked. Who may do
//! what is asked of [`auth`] before anything else is done with a request of keys or members.
//!
//! Two things are etcd's only in part: numbers of `/v2/stats/store` begin with the member, and a stream that begins in the
//! past tells all of it before it goes on, where etcd's tells one event and falls silent.

pub(super) mod auth;
mod form;
mod json;
mod keys;
mod members;
mod scribes;
mod stats;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{ALLOW, CONTENT_TYPE},
    },
    middleware::{Next, from_fn},
    response::Response,
};

use super::{
    Api, audit,
    http::plain::{self, any_method},
};
use crate::v2store::Path;

pub(super) use form::{Room, unescaped_path};
pub(super) use keys::ETCD_INDEX;
pub(super) use scribes::Scribes;

const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");

/// Everything under `/v2`.
pub(super) fn router(api: &Arc<Api>) -> Router {
    let router = Router::new()
        .route("/v2/keys", any_method(api, keys::serve))
        .route("/v2/keys/", any_method(api, keys::serve))
        .route("/v2/keys/{*path}", any_method(api, keys::serve))
        .route("/v2/members", any_method(api, members::serve))
        .route("/v2/members/", any_method(api, members::serve))
        .route("/v2/members/{*path}", any_method(api, members::serve))
        .route("/v2/machines", any_method(api, machines))
        .route("/v2/stats/self", any_method(api, stats::own))
        .route("/v2/stats/leader", any_method(api, stats::leader))
        .route("/v2/stats/store", any_method(api, stats::store))
        .merge(auth::router(api));
    if api.audit.get().is_none() {
        return router;
    }
    let api = Arc::clone(api);
    router.layer(from_fn(move |request, next: Next| {
        let api = Arc::clone(&api);
        async move { audit::audited(&api, audit::Via::V2, request, |request| next.run(request)).await }
    }))
}

/// Sends those elsewhere whose path begins here or leads here and is not clean, as the Go of those days did: for good, and judged by
/// the path with its escapes undone.
pub(super) fn moved(request: &Request) -> Option<Response> {
    let path = form::unescaped_path(request.uri().path());
    let mut clean = Path::clean(&path).as_bytes().to_vec();
    if path.ends_with(b"/") && clean != b"/" {
        clean.push(b'/');
    }
    if clean == path || ![&clean, &path].iter().any(|path| path.starts_with(b"/v2/")) {
        return None;
    }
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = form::escaped_path(&clean) + &query;
    Some(plain::redirect_with(StatusCode::MOVED_PERMANENTLY, request.method(), &location))
}

/// Where clients reach the members, as text.
async fn machines(api: Arc<Api>, request: Request) -> Response {
    if let Some(refusal) = wrong_method(&request, &[Method::GET, Method::HEAD]) {
        return refusal;
    }
    let state = api.server().published();
    let mut urls: Vec<&str> =
        state.cluster.members().flat_map(|member| &member.attributes.client_urls).map(String::as_str).collect();
    urls.sort_unstable();
    plain::body("text/plain; charset=utf-8", urls.join(", "))
}

/// The answer to a method that is none of these.
fn wrong_method(request: &Request, allowed: &[Method]) -> Option<Response> {
    if allowed.contains(request.method()) {
        return None;
    }
    let mut response = plain::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    if let Ok(names) = HeaderValue::from_str(&names.join(",")) {
        response.headers_mut().insert(ALLOW, names);
    }
    Some(response)
}

fn with_cluster_id(api: &Api, mut response: Response) -> Response {
    if let Ok(id) = HeaderValue::from_str(&api.identity().cluster.to_string()) {
        response.headers_mut().insert(CLUSTER_ID, id);
    }
    response
}

fn json_body(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A refusal of anything but keys.
fn message(status: StatusCode, text: &str) -> Response {
    let mut body = b"{\"message\":".to_vec();
    json::string(text.as_bytes(), &mut body);
    body.push(b'}');
    json_body(status, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_not_clean_have_moved() {
        let location = |uri: &str| {
            let moved = moved(&Request::get(uri).body(Body::empty()).unwrap())?;
            assert_eq!(moved.status(), StatusCode::MOVED_PERMANENTLY);
            Some(moved.headers()["location"].to_str().unwrap().to_owned())
        };
        for (uri, clean) in [
            ("/v2/keys//a?b=//", "/v2/keys/a?b=//"),
            ("/v2//keys/a/", "/v2/keys/a/"),
            ("/v2/keys/x%2F..%2Fy%20z", "/v2/keys/y%20z"),
            ("/x/../v2/keys/%C3%A4;+", "/v2/keys/%C3%A4;+"),
            ("/v2/keys/..", "/v2"),
        ] {
            assert_eq!(location(uri).as_deref(), Some(clean), "{uri}");
        }
        for uri in ["/v2/keys/a%20b/", "/v2/keys", "//v3/kv", "/"] {
            assert_eq!(location(uri), None, "{uri}");
        }
    }
}
