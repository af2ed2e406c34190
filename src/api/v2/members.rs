//! `/v2/members`.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE},
    response::Response,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{auth, json_body, message, with_cluster_id, wrong_method};
use crate::{
    api::{Api, http::plain},
    config::{Url, UrlParts},
    membership::Member,
    server::ServerError,
    types::{MemberId, Rejection},
};

const PREFIX: &str = "/v2/members";
const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::DELETE, Method::PUT];
/// Longest description of a member.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Time for it to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// Answers a request of members.
pub(super) async fn serve(api: Arc<Api>, request: Request) -> Response {
    if let Some(refusal) = wrong_method(&request, &METHODS) {
        return refusal;
    }
    if request.method() != Method::GET && !auth::may_change_members(&api, &auth::Asker::of(&request)).await {
        return message(StatusCode::UNAUTHORIZED, "Insufficient credentials");
    }
    let rest = request.uri().path().strip_prefix(PREFIX).unwrap_or_default();
    let rest = plain::unescaped(rest.strip_prefix('/').unwrap_or(rest));
    let answer = match *request.method() {
        Method::GET => Ok(show(&api, &rest)),
        Method::POST => add(&api, request).await,
        Method::PUT => update(&api, &rest, request).await,
        _ => remove(&api, &rest).await,
    };
    with_cluster_id(&api, answer.unwrap_or_else(|refusal| *refusal))
}

fn show(api: &Api, what: &str) -> Response {
    let state = api.server().published();
    match what {
        "" => {
            let members: Vec<Value> = state.cluster.members().map(member_json).collect();
            line(StatusCode::OK, &json!({ "members": members }))
        }
        "leader" => {
            let leader = api.server().status().leader.and_then(|leader| state.cluster.member(leader));
            let during_election = || message(StatusCode::SERVICE_UNAVAILABLE, "During election");
            leader.map_or_else(during_election, |leader| line(StatusCode::OK, &member_json(leader)))
        }
        _ => message(StatusCode::NOT_FOUND, "Not found"),
    }
}

/// Users of the third API are not known here, so while they are asked for their names nobody changes members here.
fn check_v3_users(api: &Api) -> Result<(), Box<Response>> {
    if api.server().published().auth.enabled() {
        return Err(refusal(&Rejection::UserNameEmpty.into(), None).into());
    }
    Ok(())
}

async fn add(api: &Api, request: Request) -> Result<Response, Box<Response>> {
    let urls = peer_urls(request).await?;
    check_v3_users(api)?;
    match api.server().member_add(&urls, false).await {
        Ok((member, _)) => Ok(line(StatusCode::CREATED, &member_json(&member))),
        Err(why) => Err(refusal(&why, None).into()),
    }
}

async fn update(api: &Api, id: &str, request: Request) -> Result<Response, Box<Response>> {
    let id = member_id(id)?;
    let urls = peer_urls(request).await?;
    check_v3_users(api)?;
    let outcome = api.server().member_update(id, &urls).await;
    if api.server().published().cluster.is_removed(id) {
        return Err(failure().into());
    }
    outcome.map(|_| done()).map_err(|why| refusal(&why, Some(id)).into())
}

async fn remove(api: &Api, id: &str) -> Result<Response, Box<Response>> {
    let id = member_id(id)?;
    if api.server().published().cluster.is_removed(id) {
        return Err(message(StatusCode::GONE, &format!("Member permanently removed: {id}")).into());
    }
    check_v3_users(api)?;
    let outcome = api.server().member_remove(id).await;
    outcome.map(|_| done()).map_err(|why| refusal(&why, Some(id)).into())
}

fn done() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn failure() -> Response {
    message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
}

fn refusal(why: &ServerError, id: Option<MemberId>) -> Response {
    let conflict = |text| message(StatusCode::CONFLICT, text);
    match (why, id) {
        (ServerError::Rejected(Rejection::MemberExists), None) => conflict("membership: ID exists"),
        (ServerError::Rejected(Rejection::PeerUrlExists), _) => conflict("membership: peerURL exists"),
        (ServerError::Rejected(why @ Rejection::BadMemberUrls), _) => {
            message(StatusCode::BAD_REQUEST, &why.to_string())
        }
        (ServerError::Rejected(Rejection::MemberNotFound), Some(id)) => no_such_member(&id.to_string()),
        _ => {
            tracing::warn!(%why, "a member cannot be changed");
            failure()
        }
    }
}

fn no_such_member(id: &str) -> Response {
    message(StatusCode::NOT_FOUND, &format!("No such member: {id}"))
}

fn member_id(text: &str) -> Result<MemberId, Box<Response>> {
    if text.is_empty() {
        return Err(plain::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed").into());
    }
    let digits = !text.starts_with('+');
    u64::from_str_radix(text, 16).ok().filter(|_| digits).map(MemberId).ok_or_else(|| no_such_member(text).into())
}

/// The peer URLs that a client gives a member.
async fn peer_urls(request: Request) -> Result<Vec<String>, Box<Response>> {
    let (head, body) = request.into_parts();
    check_media_type(&head.headers)?;
    let bad = |text: &str| Box::new(message(StatusCode::BAD_REQUEST, text));
    let body = read(body).await.map_err(|text| bad(&text))?;
    let described: Value = serde_json::from_slice(&body).map_err(|error| bad(&complaint(&body, &error)))?;
    let urls = described_urls(&described).map_err(|text| bad(&text))?;
    check_urls(&urls).map_err(|text| bad(&text))?;
    Ok(urls)
}

async fn read(body: Body) -> Result<Bytes, String> {
    let collected = timeout(BODY_PATIENCE, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let collected = collected.map_err(|_| "the body did not arrive in time".to_owned())?;
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
}

/// The URLs in a description, whose field may be written in any case, as Go reads it.
fn described_urls(described: &Value) -> Result<Vec<String>, String> {
    let is_field = |(name, _): &(&String, &Value)| name.eq_ignore_ascii_case("peerURLs");
    let urls = match described {
        Value::Object(fields) => fields.iter().rev().find(is_field).map_or(&Value::Null, |(_, urls)| urls),
        Value::Null => &Value::Null,
        _ => return Err(wrong_kind(described)),
    };
    match urls {
        Value::Null => Ok(Vec::new()),
        Value::Array(urls) => {
            let text = |url: &Value| url.as_str().map(str::to_owned).ok_or_else(|| wrong_kind(described));
            urls.iter().map(text).collect()
        }
        _ => Err(wrong_kind(described)),
    }
}

/// What Go says of text that is no JSON, or not of that kind; of other mistakes what our own reader says.
fn complaint(body: &[u8], error: &serde_json::Error) -> String {
    let first = body.iter().copied().find(|byte| !byte.is_ascii_whitespace()).map_or(' ', char::from);
    match serde_json::from_slice::<Value>(body) {
        Ok(described) => wrong_kind(&described),
        Err(_) if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(_) if !"{[\"-0123456789tfn".contains(first) => {
            format!("invalid character '{first}' looking for beginning of value")
        }
        Err(_) => error.to_string(),
    }
}

fn wrong_kind(described: &Value) -> String {
    let urls = described.get("peerURLs");
    let element = urls.and_then(Value::as_array).and_then(|urls| urls.iter().find(|url| !url.is_string()));
    let (found, place, wanted) = match (urls, element) {
        (_, Some(element)) => (element, "Go struct field .peerURLs", "string"),
        (Some(urls), None) => (urls, "Go struct field .peerURLs", "[]string"),
        (None, None) => (described, "Go value", "struct { PeerURLs []string \"json:\\\"peerURLs\\\"\" }"),
    };
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {kind} into {place} of type {wanted}")
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Box<Response>> {
    let given = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let given = given.unwrap_or_default();
    let media = given.split_once(';').map_or(given.clone(), |(media, _)| media.to_lowercase().trim().to_owned());
    if media == "application/json" {
        return Ok(());
    }
    let text = format!("Bad Content-Type {media}, accept application/json");
    Err(message(StatusCode::UNSUPPORTED_MEDIA_TYPE, &text).into())
}

/// Says what is wrong with the first URL that is, in etcd's words.
fn check_urls(urls: &[String]) -> Result<(), String> {
    if urls.is_empty() {
        return Err("no valid URLs given".to_owned());
    }
    urls.iter().map(|url| url.trim()).try_for_each(check_url)
}

fn check_url(url: &str) -> Result<(), String> {
    if !Url::parse(url)?.scheme().is_unix() {
        return Ok(());
    }
    // The etcd that had this API asked of socket files what it asked of addresses.
    let parts = UrlParts::split(url)?;
    if !has_port(parts.host) {
        return Err(format!("URL address does not have the form \"host:port\": {url}"));
    }
    if parts.path.is_empty() { Ok(()) } else { Err(format!("URL must not contain a path: {url}")) }
}

fn has_port(host: &str) -> bool {
    let behind_address = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    behind_address.matches(':').count() == 1
}

fn member_json(member: &Member) -> Value {
    json!({
        "id": member.id.to_string(),
        "name": member.attributes.name,
        "peerURLs": member.peer_urls,
        "clientURLs": member.attributes.client_urls,
    })
}

fn line(status: StatusCode, value: &Value) -> Response {
    json_body(status, format!("{value}\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_no_description_is_told_in_gos_words() {
        let of = |body: &str| {
            let error = serde_json::from_str::<BTreeMap<String, Vec<String>>>(body).unwrap_err();
            complaint(body.as_bytes(), &error)
        };
        assert_eq!(of(""), "unexpected end of JSON input");
        assert_eq!(of(" x"), "invalid character 'x' looking for beginning of value");
        let field = "json: cannot unmarshal string into Go struct field .peerURLs of type []string";
        assert_eq!(of(r#"{"peerURLs":"x"}"#), field);
        let element = "json: cannot unmarshal number into Go struct field .peerURLs of type string";
        assert_eq!(of(r#"{"peerURLs":["a",1]}"#), element);
    }

    #[test]
    fn descriptions_are_read_as_go_reads_them() {
        let of = |body: &str| described_urls(&serde_json::from_str(body).unwrap());
        assert_eq!(of(r#"{"x":1,"PeerUrls":["a"]}"#), Ok(vec!["a".to_owned()]));
        assert_eq!(of("null"), Ok(Vec::new()));
        assert_eq!(of(r#"{"peerURLs":null}"#), Ok(Vec::new()));
        let array =
            "json: cannot unmarshal array into Go value of type struct { PeerURLs []string \"json:\\\"peerURLs\\\"\" }";
        assert_eq!(of("[]").unwrap_err(), array);
    }

    #[test]
    fn urls_are_refused_in_etcds_words() {
        let check = |url: &str| check_urls(&[url.to_owned()]).unwrap_err();
        assert_eq!(check_urls(&[]).unwrap_err(), "no valid URLs given");
        assert_eq!(check("ftp://a:1"), "URL scheme must be http, https, unix, or unixs: ftp://a:1");
        assert_eq!(check("10.0.0.1:1"), "parse \"10.0.0.1:1\": first path segment in URL cannot contain colon");
        assert_eq!(check("http://a"), "URL address does not have the form \"host:port\": http://a");
        assert_eq!(check("http://a:1/"), "URL must not contain a path: http://a:1/");
        assert_eq!(check("http://a:b"), "parse \"http://a:b\": invalid port \":b\" after host");
        assert_eq!(check("http://a b:1"), "parse \"http://a b:1\": invalid character \" \" in host name");
        assert_eq!(check("http://%zz:1"), "parse \"http://%zz:1\": invalid URL escape \"%zz\"");
        assert_eq!(check("unix://a"), "URL address does not have the form \"host:port\": unix://a");
        assert_eq!(check("unixs://a:1/b"), "URL must not contain a path: unixs://a:1/b");
        for fine in ["http://a:1", "https://[::1]:2380", "unix://x:0", " http://a:1 "] {
            assert_eq!(check_urls(&[fine.to_owned()]), Ok(()), "{fine}");
        }
    }
}
