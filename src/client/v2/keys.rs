//! Keys: reading, writing, removing, watching.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use tokio::time::sleep;

use super::{
    Answer, Cluster, V2Error,
    action::{Action, Form},
};

/// What the store answered about a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Response {
    /// What was done: `get`, `set`, `create`, `update`, `delete`, `expire`, `compareAndSwap`, `compareAndDelete`.
    pub action: String,
    /// The node afterwards.
    pub node: Node,
    /// The node before, if it was changed.
    #[serde(rename = "prevNode")]
    pub previous: Option<Node>,
    /// The index of the store when it answered.
    #[serde(skip)]
    pub index: u64,
}

/// A key with its value, or a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Node {
    /// The whole path; empty for the root.
    pub key: String,
    /// Whether it is a directory.
    pub dir: bool,
    /// Empty for a directory.
    pub value: String,
    /// What is in a directory.
    pub nodes: Option<Vec<Node>>,
    /// The index at which it was created.
    pub created_index: u64,
    /// The index of its last change.
    pub modified_index: u64,
    /// When it goes, as the member wrote it (RFC 3339).
    pub expiration: Option<String>,
    /// Seconds until then; 0 if it stays.
    pub ttl: i64,
}

/// How to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// With everything below.
    pub recursive: bool,
    /// In the order of the keys.
    pub sorted: bool,
    /// What a quorum has agreed on.
    pub quorum: bool,
}

/// What must be true of a key for a write to happen.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// Its value; empty means any.
    pub value: Vec<u8>,
    /// The index of its last change; 0 means any.
    pub index: u64,
    /// Whether there is one.
    pub exists: Option<bool>,
}

/// How to write.
#[derive(Clone, Debug, Default)]
pub struct Writing {
    /// When to do it at all.
    pub condition: Condition,
    /// Seconds until the key goes; 0 lets it stay.
    pub ttl_seconds: u64,
    /// Make a directory.
    pub dir: bool,
}

/// How to remove.
#[derive(Clone, Debug, Default)]
pub struct Deletion {
    /// When to do it at all.
    pub condition: Condition,
    /// With everything below.
    pub recursive: bool,
    /// Also an empty directory.
    pub dir: bool,
}

/// A watch under way.
#[derive(Clone, Debug)]
pub struct Watch {
    key: Vec<u8>,
    recursive: bool,
    /// The first index to hear of; 0 means from now on.
    index: u64,
}

impl Watch {
    /// Watches `key`, from behind the index `after` on or, if that is 0, from now on.
    pub fn new(key: &[u8], after: u64, recursive: bool) -> Self {
        Self { key: key.to_vec(), recursive, index: if after == 0 { 0 } else { after.wrapping_add(1) } }
    }

    fn action(&self) -> Action {
        let query = Form::default().with("wait", "true").with("waitIndex", self.index.to_string());
        Action::get(path(&self.key)).query(query.with("recursive", self.recursive.to_string())).waiting()
    }
}

impl Cluster {
    /// Reads a key or lists a directory.
    ///
    /// # Errors
    /// What the store answered, or why nobody did.
    pub async fn get(&mut self, key: &[u8], reading: Reading) -> Result<Response, V2Error> {
        let query = Form::default()
            .with("recursive", reading.recursive.to_string())
            .with("sorted", reading.sorted.to_string())
            .with("quorum", reading.quorum.to_string());
        understood(&self.perform(&Action::get(path(key)).query(query)).await?)
    }

    /// Writes a key or makes a directory, which has no value. What must not exist before is sent to one endpoint only.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn set(&mut self, key: &[u8], value: &[u8], writing: &Writing) -> Result<Response, V2Error> {
        let condition = &writing.condition;
        let previous = some(&condition.value).filter(|_| !writing.dir);
        let query = Form::default()
            .with_some("dir", writing.dir.then_some("true"))
            .with_some("prevValue", previous)
            .with_some("prevIndex", index(condition.index))
            .with_some("prevExist", condition.exists.map(|exists| exists.to_string()));
        let form = Form::default()
            .with_some("value", (!writing.dir).then_some(value))
            .with_some("ttl", index(writing.ttl_seconds));
        let action = Action::new(Method::PUT, path(key)).query(query).form(&form);
        understood(&self.perform(&action.once(condition.exists == Some(false))).await?)
    }

    /// Makes a key in a directory, named so that it comes behind all made before.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn create_in_order(&mut self, dir: &[u8], value: &[u8], ttl_seconds: u64) -> Result<Response, V2Error> {
        let form = Form::default().with("value", value).with_some("ttl", index(ttl_seconds));
        understood(&self.perform(&Action::new(Method::POST, path(dir)).form(&form)).await?)
    }

    /// Removes a key or a directory. It is sent to one endpoint only.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn delete(&mut self, key: &[u8], deletion: &Deletion) -> Result<Response, V2Error> {
        let query = Form::default()
            .with_some("prevValue", some(&deletion.condition.value))
            .with_some("prevIndex", index(deletion.condition.index))
            .with_some("dir", deletion.dir.then_some("true"))
            .with_some("recursive", deletion.recursive.then_some("true"));
        let action = Action::new(Method::DELETE, path(key)).query(query).typed("application/x-www-form-urlencoded");
        understood(&self.perform(&action.once(true)).await?)
    }

    /// Waits for the next change of what is watched.
    ///
    /// # Errors
    /// As [`get`](Self::get). A member that stops meanwhile is no error: another is asked.
    pub async fn next(&mut self, watch: &mut Watch) -> Result<Response, V2Error> {
        loop {
            match understood(&self.perform(&watch.action()).await?) {
                Err(V2Error::Empty) => sleep(PAUSE_AFTER_NOTHING).await,
                Ok(response) => {
                    watch.index = response.node.modified_index.wrapping_add(1);
                    return Ok(response);
                }
                failed => return failed,
            }
        }
    }
}

fn path(key: &[u8]) -> Vec<u8> {
    [b"/v2/keys/", key].concat()
}

/// A number that is sent unless it is 0.
fn index(number: u64) -> Option<String> {
    (number != 0).then(|| number.to_string())
}

fn some(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

fn understood(answer: &Answer) -> Result<Response, V2Error> {
    match answer.status {
        StatusCode::OK | StatusCode::CREATED if answer.body.is_empty() => Err(V2Error::Empty),
        StatusCode::OK | StatusCode::CREATED => {
            let response: Response = serde_json::from_slice(&answer.body).map_err(|_| V2Error::InvalidAnswer)?;
            Ok(Response { index: store_index(&answer.headers)?, ..response })
        }
        _ => Err(refused(&answer.body)),
    }
}

fn store_index(headers: &HeaderMap) -> Result<u64, V2Error> {
    let Some(value) = headers.get("x-etcd-index") else { return Ok(0) };
    value.to_str().ok().and_then(|text| text.parse().ok()).ok_or(V2Error::InvalidAnswer)
}

/// The body of a refusal.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Refused {
    error_code: i64,
    message: String,
    cause: String,
    index: u64,
}

fn refused(body: &[u8]) -> V2Error {
    serde_json::from_slice(body).map_or(V2Error::InvalidAnswer, |refused: Refused| V2Error::Store {
        code: refused.error_code,
        message: refused.message,
        cause: refused.cause,
        index: refused.index,
    })
}

/// Rest before the next try when a watch was ended without a word.
const PAUSE_AFTER_NOTHING: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, index: &str, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("x-etcd-index", index.parse().unwrap());
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: body.to_owned().into() }
    }

    #[test]
    fn an_event_is_understood_whole() {
        let body = r#"{"action":"set","node":{"key":"/a","value":"1","expiration":"t","ttl":5,"modifiedIndex":7,"createdIndex":6},"prevNode":{"key":"/a","dir":true}}"#;
        let response = understood(&answer(201, "9", body)).unwrap();
        assert_eq!((response.action.as_str(), response.index), ("set", 9));
        let node = Node {
            key: "/a".into(),
            value: "1".into(),
            created_index: 6,
            modified_index: 7,
            expiration: Some("t".into()),
            ttl: 5,
            ..Node::default()
        };
        assert_eq!((response.node, response.previous.map(|node| node.dir)), (node, Some(true)));
    }

    #[test]
    fn refusals_tell_code_cause_and_index() {
        let body = r#"{"errorCode":100,"message":"Key not found","cause":"/a","index":3}"#;
        assert_eq!(understood(&answer(404, "3", body)).unwrap_err().to_string(), "100: Key not found (/a) [3]");
        assert_eq!(understood(&answer(404, "3", "404 page not found")), Err(V2Error::InvalidAnswer));
        assert_eq!(understood(&answer(200, "3", "")), Err(V2Error::Empty));
        assert_eq!(understood(&answer(200, "x", "{}")), Err(V2Error::InvalidAnswer));
    }

    #[test]
    fn a_watch_begins_behind_the_index_it_is_given() {
        assert_eq!((Watch::new(b"/a", 0, false).index, Watch::new(b"/a", 4, true).index), (0, 5));
    }
}
