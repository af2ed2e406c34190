//! `/v2/auth`: users, roles and the switch, and who may do what with keys and members.
//!
//! These users are the v2 API's own and nobody else's: those of the v3 API are not asked about keys of the v2 tree, nor the
//! other way round. What is known of them are nodes of the tree beside the users' keys, as etcd keeps them ([`records`]),
//! so that they are agreed on, copied and restored like everything in it. Requests are checked where they are received, as
//! etcd does, not where they are applied.
//!
//! Two things are better than etcd's, and nothing that was right becomes wrong by them: a password that was right is
//! remembered for as long as its hash stands ([`crate::api::passwords`]), and names that are no names are refused, where etcd's
//! connection breaks.

mod access;
mod json;
mod records;
mod roles;
mod users;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{Method, StatusCode},
    response::Response,
};

use super::{keys, message, with_cluster_id, wrong_method};
use crate::{
    api::{Api, http::plain, http::plain::any_method},
    server::v2::V2Error,
};
pub(super) use access::{Asker, may_change_members, may_use_keys};
use records::Records;

const PREFIX: &str = "/v2/auth";
/// The role that may do everything, and the user who always has it.
const ROOT: &str = "root";
/// The role of those who do not say who they are.
const GUEST: &str = "guest";

/// What a member remembers of users besides what is in the tree.
#[derive(Debug, Default)]
pub(in crate::api) struct Auth {
    records: records::Prepared,
}

/// Why a request about users was not carried out.
#[derive(Debug)]
enum Refusal {
    /// Told as it is.
    Told(StatusCode, String),
    /// The tree's own.
    Tree(V2Error),
}

impl Refusal {
    /// A refusal about users and roles, which all begin alike.
    fn auth(status: StatusCode, text: &str) -> Self {
        Self::Told(status, format!("auth: {text}"))
    }

    fn response(&self) -> Response {
        match self {
            Self::Told(status, text) => message(*status, text),
            Self::Tree(why @ V2Error::Store(_)) => keys::refusal(why),
            Self::Tree(why @ V2Error::Unavailable(_)) => message(StatusCode::SERVICE_UNAVAILABLE, &why.to_string()),
            Self::Tree(why) => {
                tracing::warn!(%why, "a request about users of the v2 API failed");
                message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
            }
        }
    }
}

impl From<V2Error> for Refusal {
    fn from(error: V2Error) -> Self {
        Self::Tree(error)
    }
}

/// Everything under `/v2/auth`.
pub(super) fn router(api: &Arc<Api>) -> Router {
    Router::new()
        .route("/v2/auth/enable", any_method(api, switch))
        .route("/v2/auth/users", any_method(api, users::serve))
        .route("/v2/auth/users/", any_method(api, users::serve))
        .route("/v2/auth/users/{*name}", any_method(api, users::serve))
        .route("/v2/auth/roles", any_method(api, roles::serve))
        .route("/v2/auth/roles/", any_method(api, roles::serve))
        .route("/v2/auth/roles/{*name}", any_method(api, roles::serve))
}

/// Whether requests are checked, and from when on.
async fn switch(api: Arc<Api>, request: Request) -> Response {
    let refusal = not_yet(&api).or_else(|| wrong_method(&request, &[Method::GET, Method::PUT, Method::DELETE]));
    if let Some(refusal) = refusal {
        return refusal;
    }
    if request.method() != Method::GET && !access::is_root(&api, &Asker::of(&request)).await {
        return unauthorized();
    }
    let records = Records::of(&api);
    let outcome = match *request.method() {
        Method::GET => {
            let enabled = records.enabled().await;
            Ok(json::line(StatusCode::OK, format!("{{\"enabled\":{enabled}}}").into()))
        }
        Method::PUT => enable(&records).await.map(|()| done()),
        _ => disable(&records).await.map(|()| done()),
    };
    finish(&api, outcome)
}

async fn enable(records: &Records<'_>) -> Result<(), Refusal> {
    if records.enabled().await {
        return Err(Refusal::auth(StatusCode::CONFLICT, "already enabled"));
    }
    if records.user(ROOT, true).await.is_err() {
        return Err(Refusal::auth(StatusCode::CONFLICT, "No root user available, please create one"));
    }
    if records.role(GUEST, true).await.is_err() {
        records.create_role(&roles::Role::all(GUEST)).await?;
    }
    records.set_enabled(true).await
}

async fn disable(records: &Records<'_>) -> Result<(), Refusal> {
    if !records.enabled().await {
        return Err(Refusal::auth(StatusCode::CONFLICT, "already disabled"));
    }
    records.set_enabled(false).await
}

/// Lets root alone ask about users or roles, in etcd's order of checks: the name in the path, or nothing for all of them,
/// and the request.
async fn admitted(api: &Api, request: Request) -> Result<(Option<String>, Request), Box<Response>> {
    if let Some(refusal) = not_yet(api) {
        return Err(refusal.into());
    }
    let name = named(&request).map_err(|refusal| refusal.response())?;
    let allowed: &[Method] = if name.is_some() { &[Method::GET, Method::PUT, Method::DELETE] } else { &[Method::GET] };
    if let Some(refusal) = wrong_method(&request, allowed) {
        return Err(refusal.into());
    }
    if access::is_root(api, &Asker::of(&request)).await { Ok((name, request)) } else { Err(unauthorized().into()) }
}

/// The name in the path of a request behind the kind of thing, or the refusal of a path with more in it.
fn named(request: &Request) -> Result<Option<String>, Refusal> {
    let path = plain::unescaped(request.uri().path().strip_prefix(PREFIX).unwrap_or_default());
    let mut parts = path.split('/').filter(|part| !part.is_empty()).skip(1);
    match (parts.next(), parts.next()) {
        (name, None) => Ok(name.map(str::to_owned)),
        _ => Err(Refusal::Told(StatusCode::BAD_REQUEST, "Invalid path".to_owned())),
    }
}

/// The answer while nobody knows which version the cluster has, as etcd's.
fn not_yet(api: &Api) -> Option<Response> {
    let decided = api.server().published().cluster.version().is_some();
    let text = "Not capable of accessing auth feature during rolling upgrades.";
    (!decided).then(|| message(StatusCode::INTERNAL_SERVER_ERROR, text))
}

fn unauthorized() -> Response {
    message(StatusCode::UNAUTHORIZED, "Insufficient credentials")
}

fn done() -> Response {
    json::empty()
}

fn finish(api: &Api, outcome: Result<Response, Refusal>) -> Response {
    with_cluster_id(api, outcome.unwrap_or_else(|refusal| refusal.response()))
}
