//! The v3 services as JSON over HTTP, below `/v3/`.
//!
//! The gateway is a client of the methods in this process: it turns JSON into an encoded request, calls the method as
//! gRPC does, and shows the answer as JSON. Messages are mapped canonically; names are the proto names.

mod decode;
mod range;
mod routes;
mod schema;
mod split;
mod stream;
mod websocket;
mod websocket_frame;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method as HttpMethod,
        header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    response::Response,
};
use bytes::{Buf as _, Bytes};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;

use super::{
    Api,
    audit::{Caller, Entry, Via},
    http::plain,
    status::Status,
    v3::{self, Call, Handler, Reply},
    wire::{PREFIX_BYTES, Tally},
};
use crate::{metrics, types::Code};
use routes::Route;

/// Request headers with this prefix become metadata without it.
const METADATA_PREFIX: &str = "grpc-metadata-";
/// Metadata by which calls of the gateway are known.
const GATEWAY_MARK: HeaderName = HeaderName::from_static("grpcgateway-accept");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ANSWER_METADATA: HeaderName = HeaderName::from_static("grpc-metadata-content-type");

/// Reads the JSON body of a request to `path` (below `/v3/`) into the encoded message its method takes.
///
/// # Errors
/// `NotFound` for a path without a method, `InvalidArgument` for JSON that is not the message.
pub fn decode_json(path: &str, json: &[u8]) -> Result<Bytes, Status> {
    let route = routes::find(path).ok_or_else(not_found)?;
    to_message(route, json)
}

fn to_message(route: &Route, json: &[u8]) -> Result<Bytes, Status> {
    let message = decode::decode(route.request, json);
    message.map(Bytes::from).map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))
}

fn not_found() -> Status {
    Status::new(Code::NotFound, "Not Found")
}

/// Answers a request below `/v3/`.
pub(super) async fn serve(api: Arc<Api>, request: Request) -> Response {
    if websocket::is_asked_for(request.headers()) {
        return websocket::serve(api, request);
    }
    let path = plain::unescaped(request.uri().path());
    let Some(route) = routes::find(path.strip_prefix("/v3/").unwrap_or_default()) else { return refusal(&not_found()) };
    if request.method() != HttpMethod::POST {
        return refusal(&Status::unimplemented("Method Not Allowed"));
    }
    let caller = Caller::of_http(&request, Via::Gateway);
    let (head, body) = request.into_parts();
    // What is refused on the way to the method, or given up there, has a line as well.
    let entry = api.audit.get().map(|audit| Entry::begin(audit, caller.clone(), route.method().path));
    let answer = match call(&head.headers).map(|call| call.of(caller).told_by(entry.clone())) {
        Ok(call) if matches!(route.method().handler, Handler::Unary(_)) => unary(api, route, call, body).await,
        Ok(call) => return stream::serve(api, route, call, body).await,
        Err(status) => Err(status),
    };
    if let Some(entry) = entry.filter(|_| answer.is_err()) {
        entry.end(&answer, &[]);
    }
    answer.unwrap_or_else(|status| refusal(&status))
}

/// `/v3` alone is not a path of the gateway but leads there.
pub(super) async fn redirect(request: Request) -> Response {
    plain::redirect(request.method(), "/v3/")
}

/// The metadata of a call from the headers of its HTTP request.
fn call(headers: &HeaderMap) -> Result<Call, Status> {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(METADATA_PREFIX)
            && let Ok(key) = HeaderName::try_from(key)
        {
            metadata.append(key, value.clone());
        }
    }
    for name in [AUTHORIZATION, GRPC_TIMEOUT] {
        if let Some(value) = headers.get(&name) {
            metadata.insert(name, value.clone());
        }
    }
    let accept = headers.get(ACCEPT).cloned().unwrap_or(HeaderValue::from_static("*/*"));
    metadata.insert(GATEWAY_MARK, accept);
    let call = Call::new(metadata);
    if call.timeout().is_err() {
        let given = headers.get(GRPC_TIMEOUT).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let text = format!("invalid grpc-timeout: {}", given.unwrap_or_default());
        return Err(Status::new(Code::InvalidArgument, text));
    }
    Ok(call)
}

async fn unary(api: Arc<Api>, route: &'static Route, call: Call, body: Body) -> Result<Response, Status> {
    let _turn = api.json_turn().await?;
    let message = to_message(route, &read(&api, body).await?)?;
    let method = route.method();
    let tally = Tally::start(method.counters);
    let answer = match check_size(&api, &message) {
        Ok(()) => {
            method.counters.on_received();
            metrics::CLIENT_RECEIVED_BYTES.add(message.len() as u64);
            v3::unary(Arc::clone(&api), method, call, message).await
        }
        Err(status) => Err(status),
    };
    tally.end(&answer);
    match answer? {
        Reply::Whole(mut frame) => {
            frame.advance(PREFIX_BYTES.min(frame.len()));
            method.counters.on_sent(1);
            metrics::CLIENT_SENT_BYTES.add(frame.len() as u64);
            Ok(answer_with((route.to_json)(frame).map_err(Status::unknown)?))
        }
        Reply::Parts(parts) => Ok(answer_with(range::body(*parts))),
    }
}

fn answer_with(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(ANSWER_METADATA, HeaderValue::from_static("application/grpc"));
    response
}

/// The whole body, which may be as long as base64 makes the longest message.
async fn read(api: &Api, body: Body) -> Result<Bytes, Status> {
    let collected = Limited::new(body, json_bytes_max(api)).collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            too_large(json_bytes_max(api) + 1, json_bytes_max(api))
        } else {
            Status::new(Code::InvalidArgument, error.to_string())
        }
    })
}

fn json_bytes_max(api: &Api) -> usize {
    api.options().message_bytes_max().saturating_mul(2)
}

fn check_size(api: &Api, message: &Bytes) -> Result<(), Status> {
    let most = api.options().message_bytes_max();
    if message.len() > most { Err(too_large(message.len(), most)) } else { Ok(()) }
}

fn too_large(bytes: usize, most: usize) -> Status {
    Status::new(Code::ResourceExhausted, format!("grpc: received message larger than max ({bytes} vs. {most})"))
}

/// The body of an error.
fn error_json(status: &Status) -> serde_json::Value {
    json!({ "code": status.code() as i32, "message": status.message() })
}

fn refusal(status: &Status) -> Response {
    let mut response = Response::new(Body::from(error_json(status).to_string()));
    *response.status_mut() = status.http();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status.code() == Code::Unauthenticated {
        response.headers_mut().insert(WWW_AUTHENTICATE, status.header_message());
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn headers_become_metadata() {
        let headers = HeaderMap::from_iter([
            (HeaderName::from_static("grpc-metadata-hasleader"), HeaderValue::from_static("true")),
            (HeaderName::from_static("hasleader"), HeaderValue::from_static("false")),
        ]);
        assert!(call(&headers).unwrap().wants_leader());
        let bad = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static("soon"))]);
        let refused = Status::new(Code::InvalidArgument, "invalid grpc-timeout: soon");
        assert_eq!(call(&bad).unwrap_err(), refused);
    }

    #[tokio::test]
    async fn errors_are_code_and_message() {
        let response = refusal(&Status::unimplemented("Method Not Allowed"));
        assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"code":12,"message":"Method Not Allowed"}"#);
        let response = refusal(&Status::new(Code::Unauthenticated, "etcdserver: invalid auth token"));
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "etcdserver: invalid auth token");
    }

    #[test]
    fn json_is_decoded_by_path() {
        assert_eq!(decode_json("kv/put", br#"{"key":"Zm9v"}"#).unwrap(), &b"\x0a\x03foo"[..]);
        assert_eq!(decode_json("kv/get", b"{}").unwrap_err().http(), StatusCode::NOT_FOUND);
        assert_eq!(decode_json("kv/put", b"{").unwrap_err().http(), StatusCode::BAD_REQUEST);
    }
}
