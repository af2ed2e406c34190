//! Answers of the v2 key space, as far as discovery reads them.

use serde::Deserialize;
use thiserror::Error;

use super::census::Registered;

/// Error codes of etcd's v2 API.
pub(super) const KEY_NOT_FOUND: i64 = 100;
pub(super) const TOO_MANY_MEMBERS: i64 = 103;
pub(super) const NODE_EXISTS: i64 = 105;
pub(super) const INDEX_CLEARED: i64 = 401;

/// A key or directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Node {
    #[serde(default)]
    pub(super) value: String,
    #[serde(default)]
    nodes: Vec<Child>,
}

/// What stands in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Child {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    created_index: u64,
}

/// What the key space refuses with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Error)]
#[serde(rename_all = "camelCase")]
#[error("{error_code}: {message} ({cause}) [{index}]")]
pub struct Refusal {
    /// etcd's code.
    #[serde(default)]
    pub error_code: i64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    cause: String,
    #[serde(default)]
    index: u64,
}

#[derive(Deserialize)]
struct Success {
    node: Node,
}

/// Reads the body of an answer whose status tells success.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn read(body: &[u8]) -> Result<Node, String> {
    serde_json::from_slice::<Success>(body).map(|success| success.node).map_err(|error| shown(body, &error))
}

/// Reads the body of an answer whose status tells a refusal.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn read_refusal(body: &[u8]) -> Result<Refusal, String> {
    serde_json::from_slice(body).map_err(|error| shown(body, &error))
}

fn shown(body: &[u8], error: &serde_json::Error) -> String {
    let text: String = String::from_utf8_lossy(body).trim().chars().take(SHOWN_CHARS_MAX).collect();
    format!("it says {text:?} ({error})")
}

impl Node {
    /// The registrations in a token's directory; its configuration is none.
    pub(super) fn registered(self) -> Vec<Registered> {
        let one = |child: Child| Registered {
            id: last_part(&child.key).to_owned(),
            entry: child.value.trim().to_owned(),
            created: child.created_index,
        };
        self.nodes.into_iter().map(one).filter(|one| one.id != CONFIG).collect()
    }
}

fn last_part(key: &str) -> &str {
    key.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// What a token's directory holds besides members.
const CONFIG: &str = "_config";
/// Longest part of a foreign answer that a message repeats.
const SHOWN_CHARS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn listing_has_members_and_no_configuration() {
        let body = br#"{"action":"get","node":{"key":"/d/t","dir":true,"nodes":[
            {"key":"/d/t/b","value":" b=http://b:1 ","createdIndex":7,"modifiedIndex":7},
            {"key":"/d/t/_config","dir":true,"createdIndex":3}]}}"#;
        let registered = read(body).unwrap().registered();
        let expected = Registered { id: "b".to_owned(), entry: "b=http://b:1".to_owned(), created: 7 };
        assert_eq!(registered, [expected]);
    }

    #[test]
    fn refusals_read_as_etcd_prints_them() {
        let body = br#"{"errorCode":100,"message":"Key not found","cause":"/discovery","index":12}"#;
        assert_eq!(read_refusal(body).unwrap().to_string(), "100: Key not found (/discovery) [12]");
    }

    #[test]
    fn what_is_no_answer_is_shown() {
        let why = read(b"<html>404</html>").unwrap_err();
        assert!(why.starts_with("it says \"<html>404</html>\""), "{why}");
        assert!(read(b"{}").is_err());
        assert!(read_refusal(b"unable to GET token").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(read(&body).map(Node::registered));
            drop(read_refusal(&body));
        }
    }
}
