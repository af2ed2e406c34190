//! The peer port: everything under `/raft` for the transport, and what members ask of each other besides.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode},
    response::Response,
};
use bytes::Bytes;
use prost::Message;
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    debug,
    plain::{self, any_method, get_only, not_found, post_only},
};
use crate::{
    api::Api,
    membership::Member,
    mvcc::HashKv,
    pb::{
        etcdserverpb::{
            LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
            ResponseHeader,
        },
        leasepb::{LeaseInternalRequest, LeaseInternalResponse},
    },
    server::{LeaseLife, ServerError},
    types::{LeaseId, MemberId, Rejection},
};

/// Carries the cluster's identifier in hexadecimal, so that a member of another cluster notices.
const CLUSTER_HEADER: &str = "x-etcd-cluster-id";
/// Longest question about a lease (etcd's limit).
const QUESTION_BYTES_MAX: usize = 64 << 10;
/// Time for the body of a question.
const QUESTION_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn router(api: &Arc<Api>) -> Router {
    Router::new()
        .route("/raft", any_method(api, raft))
        .route("/raft/{*path}", any_method(api, raft))
        .route("/members", get_only(api, members))
        .route("/members/promote/{id}", post_only(api, promote))
        .route("/version", get_only(api, debug::version))
        .route("/leases", post_only(api, renew))
        .route("/leases/internal", post_only(api, time_to_live))
        .route("/members/hashkv", get_only(api, hash_kv))
        .route("/members/digest", get_only(api, digest))
        .route("/downgrade/enabled", get_only(api, downgrade_enabled))
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

/// Whether the question is meant for a member of this cluster: it names it, or none.
fn is_for_us(api: &Api, request: &Request) -> bool {
    let named = request.headers().get(CLUSTER_HEADER);
    named.is_none_or(|id| id.as_bytes() == api.identity().cluster.to_string().as_bytes())
}

fn other_cluster(api: &Api) -> Response {
    with_cluster(api, plain::text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch"))
}

/// Hashes the key space at the revision that the body names; the texts are etcd's, which looks for them.
async fn hash_kv(api: Arc<Api>, request: Request) -> Response {
    #[derive(Deserialize)]
    struct Question {
        #[serde(default)]
        revision: i64,
    }
    if !is_for_us(&api, &request) {
        return other_cluster(&api);
    }
    let refuse = |text: &str| plain::text(StatusCode::BAD_REQUEST, text);
    let answer = match body_of(request).await.map(|body| serde_json::from_slice(&body)) {
        Err(refusal) => *refusal,
        Ok(Err(_)) => refuse("error unmarshalling request"),
        Ok(Ok(Question { revision })) => match api.server().hash_kv(revision).await {
            Ok(hash) => plain::body("application/json", hash_json(&hash)),
            Err(why) => refuse(why.to_string().trim_start_matches("etcdserver: ")),
        },
    };
    with_cluster(&api, answer)
}

/// As Go writes it: zeros are left out, and of the header everything but the revision.
fn hash_json(hash: &HashKv) -> String {
    let numbers =
        [("hash", hash.hash.into()), ("compact_revision", hash.compact_revision), ("hash_revision", hash.revision)];
    let told = numbers.iter().filter(|(_, number)| *number != 0).map(|(name, number)| format!(",\"{name}\":{number}"));
    format!("{{\"header\":{{\"revision\":{}}}{}}}\n", hash.current_revision, told.collect::<String>())
}

/// What this member says of its state to members of its kind.
async fn digest(api: Arc<Api>, request: Request) -> Response {
    if !is_for_us(&api, &request) {
        return other_cluster(&api);
    }
    with_cluster(
        &api,
        plain::body("application/json", api.server().digest_json(request.uri().query().unwrap_or_default())),
    )
}

/// Promotes a learner for a member that does not lead.
async fn promote(api: Arc<Api>, request: Request) -> Response {
    let id = request.uri().path().rsplit('/').next().and_then(|id| id.parse().ok());
    let Some(id) = id else { return with_cluster(&api, not_found().await) };
    let answer = match api.server().member_promote_here(MemberId(id)).await {
        Ok(members) => plain::body("application/json", members_json(members.iter())),
        Err(ServerError::Rejected(Rejection::MemberNotFound)) => {
            plain::text(StatusCode::NOT_FOUND, "membership: ID not found")
        }
        Err(ServerError::Rejected(Rejection::NotLearner)) => {
            plain::text(StatusCode::PRECONDITION_FAILED, "membership: can only promote a learner member")
        }
        Err(ServerError::Rejected(why @ Rejection::LearnerNotReady)) => {
            plain::text(StatusCode::PRECONDITION_FAILED, &why.to_string())
        }
        Err(why) => {
            tracing::warn!(%why, "failed to promote a member for a peer");
            let mut answer = plain::body("application/json", r#"{"message":"Internal Server Error"}"#);
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        }
    };
    with_cluster(&api, answer)
}

/// Renews a lease for a member that does not lead.
async fn renew(api: Arc<Api>, request: Request) -> Response {
    let question: LeaseKeepAliveRequest = match question(request).await {
        Ok(question) => question,
        Err(refusal) => return *refusal,
    };
    match api.server().lease_renew_here(LeaseId(question.id)).await {
        Ok(ttl) => protobuf(&LeaseKeepAliveResponse { header: None, id: question.id, ttl }),
        Err(why) => lease_refusal(&why, StatusCode::BAD_REQUEST),
    }
}

/// Tells a member that does not lead how long a lease still lives.
async fn time_to_live(api: Arc<Api>, request: Request) -> Response {
    let question: LeaseInternalRequest = match question(request).await {
        Ok(question) => question,
        Err(refusal) => return *refusal,
    };
    let LeaseTimeToLiveRequest { id, keys } = question.lease_time_to_live_request.unwrap_or_default();
    match api.server().lease_time_to_live_here(LeaseId(id), keys).await {
        Ok(Some(LeaseLife { remaining, granted, keys })) => {
            let header = Some(ResponseHeader::default());
            let life = LeaseTimeToLiveResponse { header, id, ttl: remaining, granted_ttl: granted, keys };
            protobuf(&LeaseInternalResponse { lease_time_to_live_response: Some(life) })
        }
        Ok(None) => lease_refusal(&Rejection::LeaseNotFound.into(), StatusCode::NOT_FOUND),
        Err(why) => lease_refusal(&why, StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// A lease question in protobuf.
async fn question<M: Message + Default>(request: Request) -> Result<M, Box<Response>> {
    let body = body_of(request).await?;
    M::decode(body).map_err(|_| Box::new(plain::text(StatusCode::BAD_REQUEST, "error unmarshalling request")))
}

async fn body_of(request: Request) -> Result<Bytes, Box<Response>> {
    let body = timeout(QUESTION_PATIENCE, axum::body::to_bytes(request.into_body(), QUESTION_BYTES_MAX)).await;
    let refuse = |status, text| Err(Box::new(plain::text(status, text)));
    match body {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => refuse(StatusCode::PAYLOAD_TOO_LARGE, "request body too large"),
        Err(_) => refuse(StatusCode::BAD_REQUEST, "error reading body"),
    }
}

fn protobuf(answer: &impl Message) -> Response {
    plain::body("application/protobuf", answer.encode_to_vec())
}

fn lease_refusal(why: &ServerError, other: StatusCode) -> Response {
    match why {
        ServerError::Rejected(Rejection::LeaseNotFound) => plain::text(StatusCode::NOT_FOUND, "lease not found"),
        ServerError::Rejected(Rejection::TimeoutApply) => {
            plain::text(StatusCode::REQUEST_TIMEOUT, "waiting for node to catch up its applied index has timed out")
        }
        why => plain::text(other, &why.to_string()),
    }
}

/// Whether a downgrade is going on, for a newcomer.
async fn downgrade_enabled(api: Arc<Api>, _: Request) -> Response {
    let answer = match api.server().read_index().await {
        Ok(()) => {
            let enabled = api.server().published().cluster.downgrade().target.is_some();
            plain::body("text/plain", enabled.to_string())
        }
        Err(why) => plain::text(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed linearized read: {why}")),
    };
    with_cluster(&api, answer)
}
