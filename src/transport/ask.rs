//! Plain questions to a peer URL: for joining, forwarding and comparing.
//!
//! Each question is one request on a connection of its own, with one deadline for everything. The statuses are judged
//! as etcd's members judge them (peer protocol, §2.6, §5.3).

use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::AUTHORIZATION, header::CONTENT_TYPE};
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::timeout;

use super::{
    connect::{Connection, full},
    headers::{CLUSTER, member},
};
use crate::{
    membership::{Member, Version},
    pb::{
        etcdserverpb::{
            LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
        },
        leasepb::{LeaseInternalRequest, LeaseInternalResponse},
    },
    tls::Dialler,
    types::{ClusterId, LeaseId, MemberId, Rejection},
};

/// Longest answer taken: a lease may have a great many keys.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest text of a refusal that is kept.
const REFUSAL_CHARS_MAX: usize = 1024;

/// Whom to ask.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// A peer URL, `http://host:port` or `https://host:port`; for [`member_urls`] a client URL.
    pub url: &'a str,
    /// Dials the URL if it wants TLS.
    pub dialler: &'a Dialler,
    /// Time for dialling, asking and the whole answer.
    pub patience: Duration,
}

/// Why a question has no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody answered in time.
    #[error("asking {url}")]
    Connection {
        /// Where.
        url: String,
        /// What failed.
        #[source]
        cause: io::Error,
    },
    /// A refusal in words that clients know.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Any other refusal. 408 from a lease question means that the peer lags behind its own log.
    #[error("{url} answered {status}: {text}")]
    Refused {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it said, without the line end.
        text: String,
    },
    /// An answer that makes no sense.
    #[error("{url} gave an answer that cannot be read: {reason}")]
    Garbled {
        /// Where.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a member says about its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The members it knows.
    pub members: Vec<Member>,
}

/// The versions a member names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Its own.
    pub server: Version,
    /// The cluster's, once one is agreed on.
    pub cluster: Option<Version>,
}

/// A member's hash of its key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The member's current revision.
    pub current_revision: i64,
    /// The hash.
    pub hash: u32,
    /// Where history began when the hash was made.
    pub compact_revision: i64,
    /// What was hashed; 0 from members of etcd before 3.6.
    pub hash_revision: i64,
}

/// Who belongs to the cluster.
///
/// # Errors
/// [`AskError`]; an answer without the cluster's identifier is garbled.
pub async fn members(target: Target<'_>) -> Result<Members, AskError> {
    let answer = ask(target, Method::GET, "/members", HeaderMap::new(), Bytes::new()).await?.expect_ok(target)?;
    let cluster = answer.headers.get(CLUSTER).and_then(|id| id.to_str().ok()).and_then(member);
    let MemberId(cluster) = cluster.ok_or_else(|| target.garbled("it names no cluster"))?;
    Ok(Members { cluster: ClusterId(cluster), members: read_members(target, &answer.body)? })
}

/// Where one member is, as its cluster says to clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct MemberUrls {
    /// For members.
    #[serde(default, rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// For clients; none before it has started.
    #[serde(default, rename = "clientURLs")]
    pub client_urls: Vec<String>,
}

/// Who belongs to the cluster, asked at a client URL: by the v2 API, else by the JSON gateway.
///
/// # Errors
/// [`AskError`] of the last attempt.
pub async fn member_urls(target: Target<'_>) -> Result<Vec<MemberUrls>, AskError> {
    #[derive(Deserialize)]
    struct Json {
        members: Vec<MemberUrls>,
    }
    let v2 = ask(target, Method::GET, "/v2/members", HeaderMap::new(), Bytes::new()).await?;
    let answer = if v2.status == StatusCode::OK {
        v2
    } else {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        ask(target, Method::POST, "/v3/cluster/member/list", headers, Bytes::from_static(b"{}"))
            .await?
            .expect_ok(target)?
    };
    Ok(read_json::<Json>(target, &answer.body)?.members)
}

/// Which version the member and the cluster are at.
///
/// # Errors
/// [`AskError`].
pub async fn version(target: Target<'_>) -> Result<Versions, AskError> {
    #[derive(Deserialize)]
    struct Json {
        etcdserver: String,
        #[serde(default)]
        etcdcluster: String,
    }
    let answer = ask(target, Method::GET, "/version", HeaderMap::new(), Bytes::new()).await?.expect_ok(target)?;
    let Json { etcdserver, etcdcluster } = read_json(target, &answer.body)?;
    let server = etcdserver.parse().map_err(|error| target.garbled(error))?;
    Ok(Versions { server, cluster: etcdcluster.parse().ok() })
}

/// Whether a downgrade is under way.
///
/// # Errors
/// [`AskError`]; 404 from members older than 3.5.
pub async fn downgrade_enabled(target: Target<'_>) -> Result<bool, AskError> {
    let answer = ask(target, Method::GET, "/downgrade/enabled", HeaderMap::new(), Bytes::new()).await?;
    match answer.expect_ok(target)?.body.trim_ascii() {
        b"true" => Ok(true),
        b"false" => Ok(false),
        other => Err(target.garbled(String::from_utf8_lossy(other))),
    }
}

/// Asks the leader to renew a lease; its full TTL in seconds.
///
/// # Errors
/// [`Rejection::LeaseNotFound`], and [`AskError::Refused`] if the peer does not lead or lags.
pub async fn lease_renew(target: Target<'_>, lease: LeaseId) -> Result<i64, AskError> {
    let question = LeaseKeepAliveRequest { id: lease.0 };
    let answer = lease_question(target, "/leases", question.encode_to_vec()).await?;
    let answer = LeaseKeepAliveResponse::decode(answer).map_err(|error| target.garbled(error))?;
    if answer.id != lease.0 {
        return Err(target.garbled("it speaks of another lease"));
    }
    Ok(answer.ttl)
}

/// Asks the leader how long a lease still lives.
///
/// # Errors
/// As [`lease_renew`].
pub async fn lease_time_to_live(
    target: Target<'_>,
    lease: LeaseId,
    with_keys: bool,
) -> Result<LeaseTimeToLiveResponse, AskError> {
    let question = LeaseTimeToLiveRequest { id: lease.0, keys: with_keys };
    let question = LeaseInternalRequest { lease_time_to_live_request: Some(question) };
    let answer = lease_question(target, "/leases/internal", question.encode_to_vec()).await?;
    let answer = LeaseInternalResponse::decode(answer).map_err(|error| target.garbled(error))?;
    let answer = answer.lease_time_to_live_response.unwrap_or_default();
    if answer.id != lease.0 {
        return Err(target.garbled("it speaks of another lease"));
    }
    Ok(answer)
}

async fn lease_question(target: Target<'_>, path: &str, body: Vec<u8>) -> Result<Bytes, AskError> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/protobuf"))]);
    let answer = ask(target, Method::POST, path, headers, body.into()).await?;
    if answer.status == StatusCode::NOT_FOUND && answer.text() == "lease not found" {
        return Err(Rejection::LeaseNotFound.into());
    }
    Ok(answer.expect_ok(target)?.body)
}

/// Asks the leader to promote a learner; the members afterwards. `token` is the caller's, if there is one.
///
/// # Errors
/// [`Rejection::MemberNotFound`], [`Rejection::NotLearner`] and [`Rejection::LearnerNotReady`] are final; after
/// anything else asking again may help.
pub async fn promote(target: Target<'_>, id: MemberId, token: Option<&str>) -> Result<Vec<Member>, AskError> {
    let token = token.and_then(|token| HeaderValue::from_str(token).ok());
    let headers = HeaderMap::from_iter(token.map(|token| (AUTHORIZATION, token)));
    let path = format!("/members/promote/{}", id.0);
    let answer = ask(target, Method::POST, &path, headers, Bytes::new()).await?;
    let text = answer.text();
    let says = |rejection: Rejection, internal: &str| text.contains(internal) || text.contains(&rejection.to_string());
    match answer.status {
        StatusCode::NOT_FOUND if text.contains("membership: ID not found") => Err(Rejection::MemberNotFound.into()),
        StatusCode::PRECONDITION_FAILED
            if says(Rejection::NotLearner, "membership: can only promote a learner member") =>
        {
            // The text of the other refusal begins with the same words.
            let lags = text.contains(&Rejection::LearnerNotReady.to_string());
            Err(if lags { Rejection::LearnerNotReady } else { Rejection::NotLearner }.into())
        }
        _ => read_members(target, &answer.expect_ok(target)?.body),
    }
}

/// Asks for the hash of the key space at `revision`, 0 for the current one.
///
/// # Errors
/// [`Rejection::Compacted`] and [`Rejection::FutureRevision`]; 412 from a member of another cluster.
pub async fn hash_kv(target: Target<'_>, cluster: ClusterId, revision: i64) -> Result<HashKv, AskError> {
    #[derive(Default, Deserialize)]
    struct Header {
        #[serde(default)]
        revision: i64,
    }
    #[derive(Deserialize)]
    struct Json {
        #[serde(default)]
        header: Header,
        #[serde(default)]
        hash: u32,
        #[serde(default)]
        compact_revision: i64,
        #[serde(default)]
        hash_revision: i64,
    }
    let question = json!({ "revision": revision }).to_string();
    let answer = ask(target, Method::GET, "/members/hashkv", of_cluster(cluster), question.into()).await?;
    let text = answer.text();
    let refused = [Rejection::Compacted, Rejection::FutureRevision]
        .into_iter()
        .find(|refusal| text.contains(refusal.to_string().trim_start_matches("etcdserver: ")));
    if let Some(refusal) = refused.filter(|_| answer.status == StatusCode::BAD_REQUEST) {
        return Err(refusal.into());
    }
    let Json { header, hash, compact_revision, hash_revision } = read_json(target, &answer.expect_ok(target)?.body)?;
    Ok(HashKv { current_revision: header.revision, hash, compact_revision, hash_revision })
}

/// Asks anything else with a `GET` of `path`: what our own members offer beyond etcd. `cluster` is named, so that a
/// member of another one can refuse.
///
/// # Errors
/// [`AskError::Refused`] for every status but 200.
pub async fn get(target: Target<'_>, cluster: ClusterId, path: &str) -> Result<Bytes, AskError> {
    Ok(ask(target, Method::GET, path, of_cluster(cluster), Bytes::new()).await?.expect_ok(target)?.body)
}

fn of_cluster(cluster: ClusterId) -> HeaderMap {
    HeaderMap::from_iter(HeaderValue::from_str(&cluster.to_string()).ok().map(|id| (CLUSTER, id)))
}

/// A whole answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// The body as the text of a refusal.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().chars().take(REFUSAL_CHARS_MAX).collect()
    }

    fn expect_ok(self, target: Target<'_>) -> Result<Self, AskError> {
        if self.status == StatusCode::OK {
            return Ok(self);
        }
        Err(AskError::Refused { url: target.url.to_owned(), status: self.status.as_u16(), text: self.text() })
    }
}

impl Target<'_> {
    fn garbled(&self, reason: impl std::fmt::Display) -> AskError {
        AskError::Garbled { url: self.url.to_owned(), reason: reason.to_string() }
    }
}

async fn ask(
    target: Target<'_>,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer, AskError> {
    let asking = async {
        let mut connection = Connection::dial(target.url, target.dialler, target.patience).await?;
        let answer = connection.send(method, path, headers, full(body)).await?;
        let (parts, body) = answer.into_parts();
        let body = connection.whole(body, ANSWER_BYTES_MAX, target.patience).await?;
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    };
    let answered = timeout(target.patience, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    answered.map_err(|cause| AskError::Connection { url: target.url.to_owned(), cause })
}

fn read_members(target: Target<'_>, json: &[u8]) -> Result<Vec<Member>, AskError> {
    let members: Vec<Value> = read_json(target, json)?;
    let read = |member: Value| Member::from_json(member.to_string().as_bytes()).map_err(|error| target.garbled(error));
    members.into_iter().map(read).collect()
}

fn read_json<'a, T: Deserialize<'a>>(target: Target<'_>, json: &'a [u8]) -> Result<T, AskError> {
    serde_json::from_slice(json).map_err(|error| target.garbled(error))
}
