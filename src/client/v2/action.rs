//! One request of the v2 API, before it is known which endpoint it goes to.

use std::{collections::BTreeMap, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, Method,
    header::{AUTHORIZATION, CONTENT_TYPE},
};

use super::{Endpoint, connection::Request};
use crate::config::go::quote;

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Action {
    method: Method,
    /// Below the path of the endpoint, not escaped; `None` once an endpoint has said where to go.
    path: Option<Vec<u8>>,
    query: Form,
    /// What is sent, with its type.
    body: Option<Vec<u8>>,
    content_type: Option<&'static str>,
    /// Whether the answer may take as long as it likes.
    pub(super) waits: bool,
    /// Whether it may be sent to one endpoint only.
    pub(super) is_once: bool,
}

impl Action {
    pub(super) fn new(method: Method, path: impl Into<Vec<u8>>) -> Self {
        Self {
            method,
            path: Some(path.into()),
            query: Form::default(),
            body: None,
            content_type: None,
            waits: false,
            is_once: false,
        }
    }

    pub(super) fn get(path: impl Into<Vec<u8>>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn query(self, query: Form) -> Self {
        Self { query, ..self }
    }

    /// Sends a form; without any fields it is still sent.
    pub(super) fn form(self, form: &Form) -> Self {
        Self { body: Some(form.encoded().into_bytes()), ..self }.typed("application/x-www-form-urlencoded")
    }

    pub(super) fn json(self, text: Vec<u8>) -> Self {
        Self { body: Some(text), ..self }.typed("application/json")
    }

    pub(super) fn typed(self, content_type: &'static str) -> Self {
        Self { content_type: Some(content_type), ..self }
    }

    pub(super) fn waiting(self) -> Self {
        Self { waits: true, ..self }
    }

    pub(super) fn once(self, is_once: bool) -> Self {
        Self { is_once, ..self }
    }

    /// The same request for the place an endpoint has sent us to.
    pub(super) fn redirected(&self) -> Self {
        Self { path: None, ..self.clone() }
    }

    /// Path and query at `endpoint`, escaped.
    pub(super) fn target(&self, endpoint: &Endpoint) -> String {
        let Some(path) = &self.path else {
            let path = if endpoint.path.is_empty() { "/" } else { endpoint.path.as_str() };
            return with_query(path.to_owned(), endpoint.query());
        };
        let whole = [endpoint.path.as_bytes(), path].concat();
        with_query(escaped(&canonical(&whole), PATH_UNESCAPED), &self.query.encoded())
    }

    /// What is sent to `endpoint`.
    pub(super) fn request(&self, endpoint: &Endpoint, credentials: Option<&(String, String)>) -> Request {
        Request {
            method: self.method.clone(),
            target: self.target(endpoint),
            headers: self.headers(credentials),
            body: self.body.clone(),
        }
    }

    fn headers(&self, credentials: Option<&(String, String)>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = self.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let basic = credentials.map(|(name, password)| STANDARD.encode(format!("{name}:{password}")));
        // Base64 fits into every header.
        if let Some(value) = basic.and_then(|text| HeaderValue::from_str(&format!("Basic {text}")).ok()) {
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    /// The command line of curl that sends this request.
    pub(super) fn as_curl(&self, endpoint: &Endpoint, target: &str) -> String {
        let url = if endpoint.host.is_empty() {
            endpoint.to_string()
        } else {
            format!("{}://{}{target}", endpoint.scheme, endpoint.host)
        };
        let data = self.body.as_ref().map(|body| format!(" -d {}", quote(&String::from_utf8_lossy(body))));
        format!("curl -X {} {url}{}", self.method, data.unwrap_or_default())
    }
}

fn with_query(path: String, query: &str) -> String {
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

/// Fields of a form or a query, sent in the order of their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Form(BTreeMap<&'static str, Vec<u8>>);

impl Form {
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    /// The same with a field that is sent only if it has a value.
    pub(super) fn with_some(self, name: &'static str, value: Option<impl Into<Vec<u8>>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn encoded(&self) -> String {
        let pairs = self.0.iter().map(|(name, value)| format!("{name}={}", escaped(value, FORM_UNESCAPED)));
        pairs.collect::<Vec<_>>().join("&").replace("%20", "+")
    }
}

/// A path as the store knows it: it begins with a slash, and has no empty components, no `.` and no `..`.
pub fn canonical_path(path: &str) -> String {
    String::from_utf8_lossy(&canonical(path.as_bytes())).into_owned()
}

/// A path that begins with a slash, without empty components, `.` and `..`. A slash at its end stays.
fn canonical(path: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            other => components.push(other),
        }
    }
    let mut clean: Vec<u8> = components.iter().flat_map(|component| [b"/", *component].concat()).collect();
    if clean.is_empty() || path.ends_with(b"/") {
        clean.push(b'/');
    }
    clean
}

/// `bytes` with everything escaped but letters, digits and what is in `unescaped`.
fn escaped(bytes: &[u8], unescaped: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || unescaped.contains(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            write!(text, "%{byte:02X}").unwrap_or_default();
        }
    }
    text
}

/// What Go leaves alone in a path.
const PATH_UNESCAPED: &[u8] = b"-_.~$&+,/:;=@";
/// What Go leaves alone in a form.
const FORM_UNESCAPED: &[u8] = b"-_.~";

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str, path: &str) -> String {
        Action::get(path).target(&Endpoint::parse(url).unwrap())
    }

    #[test]
    fn paths_are_cleaned_and_escaped() {
        assert_eq!(target("http://a:1", "/v2/keys/a//b/../c d?"), "/v2/keys/a/c%20d%3F");
        assert_eq!(target("http://a:1/x/", "/v2/keys/é%"), "/x/v2/keys/%C3%A9%25");
        assert_eq!(target("http://a:1", "/v2/keys/d/"), "/v2/keys/d/");
        assert_eq!(target("http://a:1", "/../.."), "/");
    }

    #[test]
    fn forms_are_sorted_and_escaped() {
        let form = Form::default().with("value", "a b+c&d").with("ttl", "5").with_some("none", None::<&str>);
        assert_eq!(form.encoded(), "ttl=5&value=a+b%2Bc%26d");
    }

    #[test]
    fn a_redirection_takes_its_own_path_and_query() {
        let endpoint = Endpoint::parse("http://b:2/y?z=1").unwrap();
        let action = Action::get("/v2/keys/a").query(Form::default().with("dir", "true"));
        assert_eq!(action.redirected().target(&endpoint), "/y?z=1");
    }

    #[test]
    fn requests_are_told_as_command_lines() {
        let endpoint = Endpoint::parse("http://a:1").unwrap();
        let action = Action::new(Method::PUT, "/v2/keys/k").form(&Form::default().with("value", "\"x\""));
        let line = action.as_curl(&endpoint, &action.target(&endpoint));
        assert_eq!(line, "curl -X PUT http://a:1/v2/keys/k -d \"value=%22x%22\"");
    }
}
