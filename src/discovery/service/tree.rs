//! What the tree of a token answers, in the shapes of etcd's v2 API: clients of discovery read nothing else.

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use serde::Serialize;

use super::token::{Node as Place, Token};

/// Where the public service keeps its tokens, which answers and causes name.
pub(super) const REGISTRY: &str = "/_etcd/registry";
/// The header with the index of the store.
pub(super) const INDEX: HeaderName = HeaderName::from_static("x-etcd-index");

/// The key of a node as answers name it.
pub(super) fn key(token: &Token, place: &Place) -> String {
    format!("{REGISTRY}/{token}{}", place.path())
}

/// One answer, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// Headers of the answer; the length is added by whoever sends it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A change or a read that went well.
    pub(super) fn event(status: StatusCode, index: u64, event: &Event) -> Self {
        Self::json(status, index, event)
    }

    /// A refusal in v2's words.
    pub(super) fn refusal(refusal: &Refusal) -> Self {
        Self::json(refusal.status(), refusal.index, &refusal.shape())
    }

    /// A wait that ended without an event: clients ask again at once.
    pub(super) fn nothing_yet(index: Option<u64>) -> Self {
        let index = index.map(|index| (INDEX, index.into()));
        let headers = std::iter::once(json_type()).chain(index).collect();
        Self { status: StatusCode::OK, headers, body: Bytes::new() }
    }

    /// What no client asks for.
    pub(super) fn wrong_method(allowed: &'static str) -> Self {
        let headers = vec![text_type(), (ALLOW, HeaderValue::from_static(allowed))];
        Self { status: StatusCode::METHOD_NOT_ALLOWED, headers, body: Bytes::from_static(b"Method Not Allowed\n") }
    }

    /// A plain text.
    pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self { status, headers: vec![text_type()], body: text.into() }
    }

    fn json(status: StatusCode, index: u64, shape: &impl Serialize) -> Self {
        let headers = vec![json_type(), (INDEX, index.into())];
        Self { status, headers, body: go_json(shape).into() }
    }

    /// The same with one more header.
    #[must_use]
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

fn json_type() -> (HeaderName, HeaderValue) {
    (CONTENT_TYPE, HeaderValue::from_static("application/json"))
}

fn text_type() -> (HeaderName, HeaderValue) {
    (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))
}

/// JSON on one line, with the characters escaped that Go escapes.
fn go_json(shape: &impl Serialize) -> String {
    // The shapes are ours and have nothing in them that JSON cannot say.
    let mut text = serde_json::to_string(shape).unwrap_or_default();
    for (from, to) in
        [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")]
    {
        if text.contains(from) {
            text = text.replace(from, to);
        }
    }
    text.push('\n');
    text
}

/// What happened to a node, or what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Event {
    pub(super) action: &'static str,
    pub(super) node: Shown,
    #[serde(rename = "prevNode", skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<Shown>,
}

impl Event {
    pub(super) fn get(node: Shown) -> Self {
        Self { action: "get", node, before: None }
    }
}

/// A node as answers show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Shown {
    pub(super) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) dir: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) nodes: Vec<Self>,
    #[serde(rename = "modifiedIndex")]
    pub(super) modified: u64,
    #[serde(rename = "createdIndex")]
    pub(super) created: u64,
}

/// Why a request to the tree was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) why: Why,
    pub(super) cause: String,
    pub(super) index: u64,
}

/// The errors of etcd's v2 API that the tree knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    KeyNotFound,
    NotAFile,
    KeyExists,
    TooManyMembers,
    /// The founders of a cluster that is complete are not changed.
    Complete,
    /// From one address.
    TooManyRequests,
    BadIndex,
    InvalidField,
    InvalidForm,
    Internal,
}

#[derive(Serialize)]
struct RefusalShape<'a> {
    #[serde(rename = "errorCode")]
    code: u16,
    message: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cause: &'a str,
    index: u64,
}

impl Refusal {
    /// A request that cannot be understood: no store was asked.
    pub(super) fn of_request(why: Why, cause: impl Into<String>) -> Self {
        Self { why, cause: cause.into(), index: 0 }
    }

    fn status(&self) -> StatusCode {
        match self.why {
            Why::KeyNotFound => StatusCode::NOT_FOUND,
            Why::NotAFile | Why::Complete => StatusCode::FORBIDDEN,
            Why::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Why::KeyExists => StatusCode::PRECONDITION_FAILED,
            // etcd says 500. Clients try again after both, and 503 tells load balancers that it passes.
            Why::Internal => StatusCode::SERVICE_UNAVAILABLE,
            Why::TooManyMembers | Why::BadIndex | Why::InvalidField | Why::InvalidForm => StatusCode::BAD_REQUEST,
        }
    }

    fn shape(&self) -> RefusalShape<'_> {
        let (code, message) = match self.why {
            Why::KeyNotFound => (100, "Key not found"),
            Why::NotAFile => (102, "Not a file"),
            Why::TooManyMembers => (103, "Reached the max number of peers in the cluster"),
            Why::KeyExists => (105, "Key already exists"),
            Why::Complete => (107, "Root is read only"),
            Why::BadIndex => (203, "The given index in POST form is not a number"),
            Why::InvalidField => (209, "Invalid field"),
            Why::InvalidForm => (210, "Invalid POST form"),
            // etcd's for what passes; the status says more.
            Why::Internal | Why::TooManyRequests => (300, "Raft Internal Error"),
        };
        RefusalShape { code, message, cause: &self.cause, index: self.index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &Reply) -> &str {
        std::str::from_utf8(&reply.body).unwrap()
    }

    #[test]
    fn answers_have_etcds_shapes() {
        let leaf = Shown { key: "/a".into(), value: Some("x=<&>".into()), modified: 4, created: 3, ..Shown::default() };
        let event = Event { action: "set", before: Some(leaf.clone()), node: leaf };
        assert_eq!(
            text(&Reply::event(StatusCode::OK, 4, &event)),
            "{\"action\":\"set\",\"node\":{\"key\":\"/a\",\"value\":\"x=\\u003c\\u0026\\u003e\",\"modifiedIndex\":4,\"createdIndex\":3},\
             \"prevNode\":{\"key\":\"/a\",\"value\":\"x=\\u003c\\u0026\\u003e\",\"modifiedIndex\":4,\"createdIndex\":3}}\n"
        );
        let empty = Shown { key: "/d".into(), dir: true, modified: 1, created: 1, ..Shown::default() };
        assert_eq!(
            text(&Reply::event(StatusCode::OK, 4, &Event::get(empty))),
            "{\"action\":\"get\",\"node\":{\"key\":\"/d\",\"dir\":true,\"modifiedIndex\":1,\"createdIndex\":1}}\n"
        );
    }

    #[test]
    fn refusals_are_json_so_that_clients_know_what_they_talk_to() {
        let reply = Reply::refusal(&Refusal { why: Why::KeyNotFound, cause: "/_etcd/registry/a".into(), index: 7 });
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
        assert_eq!(
            text(&reply),
            "{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/_etcd/registry/a\",\"index\":7}\n"
        );
        assert!(reply.headers.contains(&(INDEX, HeaderValue::from(7))));
    }
}
