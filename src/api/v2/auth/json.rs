//! JSON of users and roles, read as loosely as Go reads it and written as Go writes it.

use std::time::Duration;

use axum::{body::Body, extract::Request, http::StatusCode, response::Response};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::Refusal;
use crate::api::v2::{json, json_body};

/// Longest description of a user or role.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Time for it to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// A JSON object read as Go reads it into a structure: names in any case, the last one counts, `null` is nothing.
#[derive(Debug, Default)]
pub(super) struct Object(Map<String, Value>);

/// What is there is not what should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Told(StatusCode::BAD_REQUEST, "Invalid JSON in request body.".to_owned())
    }
}

impl Object {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// No JSON, too much of it, or none in time.
    pub(super) async fn receive(request: Request) -> Result<Self, Malformed> {
        let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
        let body = timeout(BODY_PATIENCE, body).await.map_err(|_| Malformed)?.map_err(|_| Malformed)?.to_bytes();
        Self::parse(&body)
    }

    /// The first value in `text`; what stands behind it does not count.
    ///
    /// # Errors
    /// It is no object.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let text = String::from_utf8_lossy(text);
        match serde_json::Deserializer::from_str(&text).into_iter().next() {
            Some(Ok(value)) => Self::of(value),
            _ => Err(Malformed),
        }
    }

    fn of(value: Value) -> Result<Self, Malformed> {
        match value {
            Value::Object(object) => Ok(Self(object)),
            Value::Null => Ok(Self::default()),
            _ => Err(Malformed),
        }
    }

    /// The value of a field, if there is one.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// A text; none is an empty one.
    ///
    /// # Errors
    /// Something else.
    pub(super) fn text(&self, name: &str) -> Result<String, Malformed> {
        text(self.get(name).unwrap_or(&Value::Null))
    }

    /// A list of texts, if there is one.
    ///
    /// # Errors
    /// Something else.
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Malformed> {
        match self.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(values)) => values.iter().map(text).collect::<Result<_, _>>().map(Some),
            Some(_) => Err(Malformed),
        }
    }

    /// An object inside, if there is one.
    ///
    /// # Errors
    /// Something else.
    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, Malformed> {
        match self.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Self::of(value.clone()).map(Some),
        }
    }
}

fn text(value: &Value) -> Result<String, Malformed> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(Malformed),
    }
}

/// Appends a text.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    json::string(text.as_bytes(), out);
}

/// Appends a list of texts; one that was never given is `null`.
pub(super) fn write_texts(texts: Option<&[String]>, out: &mut Vec<u8>) {
    let Some(texts) = texts else { return out.extend_from_slice(b"null") };
    write_list(texts, out, |text, out| write_text(text, out));
}

/// Appends a list.
pub(super) fn write_list<T>(items: &[T], out: &mut Vec<u8>, write: impl Fn(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

/// An answer of one line.
pub(super) fn line(status: StatusCode, mut body: Vec<u8>) -> Response {
    body.push(b'\n');
    json_body(status, body)
}

/// An answer that says nothing, in JSON.
pub(super) fn empty() -> Response {
    json_body(StatusCode::OK, Body::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_any_case_and_what_is_behind_does_not_count() {
        let object = Object::parse(br#" {"User":"a","USER":"b","roles":null,"x":1} trailing"#).unwrap();
        assert_eq!(object.text("user"), Ok("b".to_owned()));
        assert_eq!(object.texts("roles"), Ok(None));
        assert_eq!(object.text("x"), Err(Malformed));
        assert_eq!(object.text("missing"), Ok(String::new()));
    }

    #[test]
    fn only_objects_and_nothing_are_objects() {
        assert!(Object::parse(b"null").is_ok());
        for text in ["", "[]", "\"a\"", "{", "{\"a\":1,}", "1"] {
            assert!(Object::parse(text.as_bytes()).is_err(), "{text}");
        }
        // As deep as a body is long: refused, and no stack runs over.
        assert!(Object::parse("[".repeat(BODY_BYTES_MAX).as_bytes()).is_err());
    }

    #[test]
    fn lists_that_were_never_given_are_null() {
        let of = |texts: Option<&[String]>| {
            let mut out = Vec::new();
            write_texts(texts, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(of(None), "null");
        assert_eq!(of(Some(&[])), "[]");
        assert_eq!(of(Some(&["/a&*".to_owned(), "b".to_owned()])), r#"["/a\u0026*","b"]"#);
    }
}
