//! Small answers.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderValue, Method, StatusCode, Uri,
        header::{ALLOW, CONNECTION, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS},
    },
    response::Response,
    routing::{MethodRouter, any},
};

use crate::api::Api;

/// A text with a status, in the form of Go's `http.Error`: one line, and browsers told not to guess.
pub(in crate::api) fn text(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer that sends a client elsewhere, in the form of Go's `http.Redirect`.
pub(in crate::api) fn redirect(method: &Method, location: &str) -> Response {
    redirect_with(StatusCode::TEMPORARY_REDIRECT, method, location)
}

/// As [`redirect`], with another status.
pub(in crate::api) fn redirect_with(status: StatusCode, method: &Method, location: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if matches!(*method, Method::GET | Method::HEAD) {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    if *method == Method::GET {
        let shown = ESCAPES.iter().fold(location.to_owned(), |text, (from, to)| text.replace(from, to));
        let name = status.canonical_reason().unwrap_or_default();
        *response.body_mut() = Body::from(format!("<a href=\"{shown}\">{name}</a>.\n\n"));
    }
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// What may not stand in HTML as it is.
const ESCAPES: [(&str, &str); 5] = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&#34;"), ("'", "&#39;")];

/// Where a request should have gone whose path has empty parts or dots (Go's `ServeMux`, which takes escapes for text and
/// escapes them once more); `None` if it has none.
pub(super) fn cleaned(uri: &Uri) -> Option<String> {
    let path = uri.path();
    if !path.starts_with('/') || !(path.contains("//") || path.contains("/.")) {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    let clean = format!("/{}{end}", parts.join("/"));
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    (clean != path).then(|| clean.replace('%', "%25") + &query)
}

/// A body of the given media type.
pub(in crate::api) fn body(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The answer of Go's server to what it cannot read.
pub(super) fn bad_request() -> Response {
    let mut response = body("text/plain; charset=utf-8", "400 Bad Request");
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The answer for paths nobody serves.
pub(super) async fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found")
}

/// A route that answers whatever the method.
pub(in crate::api) fn any_method<F, R>(api: &Arc<Api>, answer: F) -> MethodRouter
where
    F: Fn(Arc<Api>, Request) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response> + Send,
{
    let api = Arc::clone(api);
    any(move |request: Request| answer.clone()(Arc::clone(&api), request))
}

/// A route that answers `GET` and nothing else.
pub(super) fn get_only<F, R>(api: &Arc<Api>, answer: F) -> MethodRouter
where
    F: Fn(Arc<Api>, Request) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response> + Send,
{
    one_method(api, Method::GET, answer)
}

/// A route that answers `POST` and nothing else.
pub(super) fn post_only<F, R>(api: &Arc<Api>, answer: F) -> MethodRouter
where
    F: Fn(Arc<Api>, Request) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response> + Send,
{
    one_method(api, Method::POST, answer)
}

fn one_method<F, R>(api: &Arc<Api>, method: Method, answer: F) -> MethodRouter
where
    F: Fn(Arc<Api>, Request) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response> + Send,
{
    any_method(api, move |api, request| {
        let (answer, method) = (answer.clone(), method.clone());
        async move { if request.method() == method { answer(api, request).await } else { not_allowed(&method) } }
    })
}

fn not_allowed(but: &Method) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    if let Ok(allowed) = HeaderValue::from_str(but.as_str()) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// The decoded values of a query parameter, in order.
pub(super) fn query<'a>(request: &'a Request, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

/// Undoes form encoding; what is no escape stays as it is.
fn decode(text: &str) -> String {
    unescaped(&text.replace('+', " "))
}

/// Undoes all escapes; what is none stays as it is.
pub(in crate::api) fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        if let Some((byte, behind)) = escape(part) {
            bytes.push(byte);
            bytes.extend_from_slice(behind.as_bytes());
        } else {
            bytes.push(b'%');
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A path as routes are written: escapes that are not needed are undone, as Go's `ServeMux` reads each part of it. `None`
/// if something in it looks like an escape and is none, which Go's server refuses.
pub(super) fn plainly_written(path: &str) -> Option<String> {
    let mut parts = path.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match escape(part)? {
            (byte, behind) if is_plain(byte) => {
                plain.push(char::from(byte));
                plain.push_str(behind);
            }
            _ => {
                plain.push('%');
                plain.push_str(part);
            }
        }
    }
    Some(plain)
}

/// The same URI with another path.
pub(super) fn set_path(uri: &mut Uri, path: &str) {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{path}{query}").parse().ok();
    if let Ok(changed) = Uri::from_parts(parts) {
        *uri = changed;
    }
}

/// What may stand in one part of a path (RFC 3986, §3.3).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// The byte that is meant by what stands behind a `%`, and the rest.
fn escape(behind_percent: &str) -> Option<(u8, &str)> {
    let (digits, behind) = behind_percent.split_at_checked(2)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    Some((u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(uri: &str, name: &str) -> Vec<String> {
        let request = Request::get(uri).body(Body::empty()).unwrap();
        query(&request, name).collect()
    }

    #[test]
    fn paths_are_cleaned_as_go_does() {
        let cleaned = |uri: &str| cleaned(&uri.parse().unwrap());
        for (path, clean) in [
            ("//version", "/version"),
            ("/v3//kv/range?x=//", "/v3/kv/range?x=//"),
            ("/a/./b/../c/", "/a/c/"),
            ("/../..", "/"),
            ("//", "/"),
            ("/a/.", "/a"),
            ("//k%76?x=%76", "/k%2576?x=%76"),
        ] {
            assert_eq!(cleaned(path).as_deref(), Some(clean), "{path}");
        }
        for path in ["/", "/version", "/v3/", "/.well-known/x", "/a..b/c.d"] {
            assert_eq!(cleaned(path), None, "{path}");
        }
    }

    #[test]
    fn only_the_path_is_replaced() {
        let replaced = |uri: &str, path: &str| {
            let mut uri: Uri = uri.parse().unwrap();
            set_path(&mut uri, path);
            uri.to_string()
        };
        assert_eq!(replaced("/v3beta/kv/range?x=1", "/v3/kv/range"), "/v3/kv/range?x=1");
        assert_eq!(replaced("http://h:1/a", "/v3/b"), "http://h:1/v3/b");
    }

    #[test]
    fn escapes_are_undone_where_they_are_not_needed() {
        for (path, plain) in [
            ("/v3/k%76/range", "/v3/kv/range"),
            ("/%76%33%2F/%2e%2E/%25/%C3%A4/%20", "/v3%2F/../%25/%C3%A4/%20"),
            ("/", "/"),
        ] {
            assert_eq!(plainly_written(path).as_deref(), Some(plain), "{path}");
        }
        for path in ["/%", "/%7", "/%zz", "/%+7", "/a%7\u{e4}"] {
            assert_eq!(plainly_written(path), None, "{path}");
        }
        assert_eq!(unescaped("/v3/kv%2Frange%zz%C3%A4"), "/v3/kv/range%zz\u{e4}");
    }

    #[test]
    fn query_parameters_repeat_and_are_decoded() {
        assert_eq!(values("/readyz?exclude=a&exclude=b%5F+c&verbose", "exclude"), ["a", "b_ c"]);
        assert_eq!(values("/readyz?verbose", "verbose"), [""]);
        assert_eq!(values("/readyz", "verbose"), Vec::<String>::new());
        assert_eq!(values("/x?a=%zz%4", "a"), ["%zz%4"]);
    }
}
