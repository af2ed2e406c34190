//! Small answers.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderValue, Method, StatusCode, Uri,
        header::{ALLOW, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS},
    },
    response::Response,
    routing::{MethodRouter, any},
};

use crate::api::Api;

/// A text with a status, in the form of Go's `http.Error`: one line, and browsers told not to guess.
pub(super) fn text(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer that sends a client elsewhere, in the form of Go's `http.Redirect`.
pub(in crate::api) fn redirect(method: &Method, location: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if matches!(*method, Method::GET | Method::HEAD) {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    if *method == Method::GET {
        let shown = ESCAPES.iter().fold(location.to_owned(), |text, (from, to)| text.replace(from, to));
        *response.body_mut() = Body::from(format!("<a href=\"{shown}\">Temporary Redirect</a>.\n\n"));
    }
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// What may not stand in HTML as it is.
const ESCAPES: [(&str, &str); 5] = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&#34;"), ("'", "&#39;")];

/// Where a request should have gone whose path has empty parts or dots (Go's `ServeMux`); `None` if it has none.
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
    (clean != path).then(|| clean + &query)
}

/// A body of the given media type.
pub(super) fn body(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The answer for paths nobody serves.
pub(super) async fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found")
}

/// A route that answers whatever the method.
pub(super) fn any_method<F, R>(api: &Arc<Api>, answer: F) -> MethodRouter
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
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| after.get(..2).and_then(hex)).flatten();
        let (byte, next) = match (first, escaped) {
            (_, Some(byte)) => (byte, after.get(2..).unwrap_or_default()),
            (b'+', None) => (b' ', after),
            (first, None) => (*first, after),
        };
        bytes.push(byte);
        rest = next;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(digits, 16).ok()
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
        ] {
            assert_eq!(cleaned(path).as_deref(), Some(clean), "{path}");
        }
        for path in ["/", "/version", "/v3/", "/.well-known/x", "/a..b/c.d"] {
            assert_eq!(cleaned(path), None, "{path}");
        }
    }

    #[test]
    fn query_parameters_repeat_and_are_decoded() {
        assert_eq!(values("/readyz?exclude=a&exclude=b%5F+c&verbose", "exclude"), ["a", "b_ c"]);
        assert_eq!(values("/readyz?verbose", "verbose"), [""]);
        assert_eq!(values("/readyz", "verbose"), Vec::<String>::new());
        assert_eq!(values("/x?a=%zz%4", "a"), ["%zz%4"]);
    }
}
