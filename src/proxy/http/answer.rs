//! Answers that the proxy gives itself.

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};

use super::body::{Body, whole};

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";
/// The codes that gRPC knows.
#[derive(Clone, Copy, Debug)]
pub(super) enum GrpcCode {
    /// Nobody serves that here.
    Unimplemented = 12,
    /// Nobody answers now: trying again may help.
    Unavailable = 14,
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(whole(""));
    *response.status_mut() = status;
    response
}

/// A body of the given media type.
pub(super) fn of_type(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A failure of the proxy, in the form of etcd's.
pub(super) fn failure(status: StatusCode, message: &str) -> Response<Body> {
    of_type(status, "application/json", serde_json::json!({ "message": message }).to_string())
}

/// The answer to another method than `GET`.
pub(super) fn not_allowed() -> Response<Body> {
    let mut response =
        of_type(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "Method Not Allowed\n".into());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

/// The end of a gRPC call that never began.
pub(super) fn grpc(code: GrpcCode, message: &str) -> Response<Body> {
    let mut response = empty(StatusCode::OK);
    *response.headers_mut() = grpc_trailers(code, message);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// What ends a gRPC call.
pub(super) fn grpc_trailers(code: GrpcCode, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from(code as u16));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(message)) {
        trailers.insert(GRPC_MESSAGE, message);
    }
    trailers
}

/// As gRPC wants its messages: printable ASCII, everything else escaped.
fn percent_encoded(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'%' | 0..=0x1f | 0x7f..=0xff => format!("%{byte:02X}"),
        byte => char::from(byte).to_string(),
    };
    text.bytes().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_grpc_are_escaped() {
        let trailers = grpc_trailers(GrpcCode::Unavailable, "50% \u{e4}\n");
        assert_eq!(trailers["grpc-status"], "14");
        assert_eq!(trailers["grpc-message"], "50%25 %C3%A4%0A");
    }
}
