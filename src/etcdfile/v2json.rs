//! The membership as the v2 JSON tree that a `.snap` file carries.
//!
//! etcd 3.5 and 3.6 read members, removed members and the cluster version from it when they start, and panic on a tree
//! they cannot parse; 3.7 only writes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::MemberId;

/// One member as the tree knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeMember {
    /// Its identifier.
    pub id: MemberId,
    /// Where peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// Name and client URLs, once published.
    pub attributes: Option<(String, Vec<String>)>,
}

/// What the tree says of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Members by ascending identifier.
    pub members: Vec<TreeMember>,
    /// Members that were removed, by ascending identifier.
    pub removed: Vec<MemberId>,
    /// The cluster version, like `3.5.0`.
    pub version: Option<String>,
}

/// The tree does not parse.
#[derive(Debug, Error)]
pub enum TreeError {
    /// Not the JSON etcd writes.
    #[error("the v2 tree is not valid JSON")]
    Json(#[from] serde_json::Error),
    /// A member that cannot be understood.
    #[error("the v2 tree has a malformed entry {path}")]
    Entry {
        /// Where in the tree.
        path: String,
    },
}

const NEVER: &str = "0001-01-01T00:00:00Z";
/// Every node was made by one change: nobody reads the indexes of this part of the tree.
const INDEX: u64 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Store {
    root: Node,
    current_index: u64,
    current_version: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    path: String,
    created_index: u64,
    modified_index: u64,
    expire_time: String,
    value: String,
    /// `None` for a leaf.
    children: Option<BTreeMap<String, Node>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RaftAttributes {
    #[serde(rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Attributes {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", skip_serializing_if = "Option::is_none")]
    client_urls: Option<Vec<String>>,
}

/// The tree as etcd reads it.
pub fn write(tree: &Tree) -> Vec<u8> {
    let members = tree.members.iter().map(|member| (member.id.to_string(), member_node(member)));
    let removed = tree.removed.iter().map(|id| (id.to_string(), leaf(format!("/0/removed_members/{id}"), "")));
    let mut own = BTreeMap::from([
        ("members".to_owned(), folder("/0/members", members.collect())),
        ("removed_members".to_owned(), folder("/0/removed_members", removed.collect())),
    ]);
    if let Some(version) = &tree.version {
        own.insert("version".to_owned(), leaf("/0/version".to_owned(), version));
    }
    let top = [("0".to_owned(), folder("/0", own)), ("1".to_owned(), folder("/1", BTreeMap::new()))];
    let store = Store { root: folder("/", BTreeMap::from(top)), current_index: INDEX, current_version: 2 };
    json(&store).into_bytes()
}

/// Reads a tree etcd has written.
///
/// # Errors
/// If it does not parse. What a [`Tree`] does not hold is not looked at.
pub fn read(bytes: &[u8]) -> Result<Tree, TreeError> {
    let store: Store = serde_json::from_slice(bytes)?;
    let own = store.root.child("0");
    let children = |name| own.and_then(|own: &Node| own.child(name)).into_iter().flat_map(Node::children);
    let mut tree = Tree {
        members: children("members").map(|(name, node)| member(name, node)).collect::<Result<_, _>>()?,
        removed: children("removed_members").map(|(name, node)| id(name, node)).collect::<Result<_, _>>()?,
        version: own.and_then(|own| own.child("version")).map(|node| node.value.clone()),
    };
    tree.members.sort_by_key(|member| member.id);
    tree.removed.sort_unstable();
    Ok(tree)
}

/// Whether users keep keys in a tree etcd has written (the v2 API).
///
/// # Errors
/// If it does not parse.
pub fn holds_user_keys(bytes: &[u8]) -> Result<bool, TreeError> {
    let store: Store = serde_json::from_slice(bytes)?;
    Ok(store.root.child("1").is_some_and(|user| user.children().next().is_some()))
}

impl Node {
    fn child(&self, name: &str) -> Option<&Self> {
        self.children.as_ref()?.get(name)
    }

    fn children(&self) -> impl Iterator<Item = (&String, &Self)> {
        self.children.iter().flatten()
    }
}

fn node(path: String, value: &str, children: Option<BTreeMap<String, Node>>) -> Node {
    Node { path, created_index: 1, modified_index: 1, expire_time: NEVER.to_owned(), value: value.to_owned(), children }
}

fn folder(path: &str, children: BTreeMap<String, Node>) -> Node {
    node(path.to_owned(), "", Some(children))
}

fn leaf(path: String, value: &str) -> Node {
    node(path, value, None)
}

fn member_node(member: &TreeMember) -> Node {
    let path = format!("/0/members/{}", member.id);
    let raft = RaftAttributes { peer_urls: Some(member.peer_urls.clone()), is_learner: member.is_learner };
    let mut children =
        BTreeMap::from([("raftAttributes".to_owned(), leaf(format!("{path}/raftAttributes"), &json(&raft)))]);
    if let Some((name, urls)) = &member.attributes {
        let attributes = Attributes { name: name.clone(), client_urls: Some(urls.clone()) };
        children.insert("attributes".to_owned(), leaf(format!("{path}/attributes"), &json(&attributes)));
    }
    folder(&path, children)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers and maps with string keys can always be written")
}

fn id(name: &str, node: &Node) -> Result<MemberId, TreeError> {
    u64::from_str_radix(name, 16).map(MemberId).map_err(|_| TreeError::Entry { path: node.path.clone() })
}

fn member(name: &str, node: &Node) -> Result<TreeMember, TreeError> {
    let raft = node.child("raftAttributes").ok_or_else(|| TreeError::Entry { path: node.path.clone() })?;
    let raft: RaftAttributes = serde_json::from_str(&raft.value)?;
    let published = node.child("attributes").map(|attributes| serde_json::from_str::<Attributes>(&attributes.value));
    let attributes = published.transpose()?.map(|found| (found.name, found.client_urls.unwrap_or_default()));
    let peer_urls = raft.peer_urls.unwrap_or_default();
    Ok(TreeMember { id: id(name, node)?, peer_urls, is_learner: raft.is_learner, attributes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree() -> Tree {
        let voter = TreeMember {
            id: MemberId(0x2c90_2495_a3d3_72c7),
            peer_urls: vec!["http://127.0.0.1:2380".to_owned()],
            is_learner: false,
            attributes: Some(("n1".to_owned(), vec!["http://127.0.0.1:2379".to_owned()])),
        };
        let learner = TreeMember {
            id: MemberId(0x9),
            peer_urls: vec!["http://10.0.0.9:2380".to_owned()],
            is_learner: true,
            attributes: None,
        };
        Tree { members: vec![learner, voter], removed: vec![MemberId(0xab)], version: Some("3.5.0".to_owned()) }
    }

    #[test]
    fn the_tree_has_etcds_shape() {
        let json: serde_json::Value = serde_json::from_slice(&write(&tree())).unwrap();
        assert_eq!((&json["CurrentIndex"], &json["CurrentVersion"]), (&1.into(), &2.into()));
        let own = &json["Root"]["Children"]["0"];
        let attributes = &own["Children"]["members"]["Children"]["2c902495a3d372c7"]["Children"]["attributes"];
        assert_eq!(attributes["Value"], r#"{"name":"n1","clientURLs":["http://127.0.0.1:2379"]}"#);
        assert_eq!(attributes["Path"], "/0/members/2c902495a3d372c7/attributes");
        assert_eq!(attributes["Children"], serde_json::Value::Null);
        assert_eq!(attributes["ExpireTime"], "0001-01-01T00:00:00Z");
        let learner = &own["Children"]["members"]["Children"]["9"]["Children"];
        assert_eq!(learner["raftAttributes"]["Value"], r#"{"peerURLs":["http://10.0.0.9:2380"],"isLearner":true}"#);
        assert_eq!(learner["attributes"], serde_json::Value::Null);
        assert_eq!(own["Children"]["removed_members"]["Children"]["ab"]["Value"], "");
        assert_eq!(own["Children"]["version"]["Value"], "3.5.0");
        assert_eq!(json["Root"]["Children"]["1"]["Children"], serde_json::json!({}));
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&write(&tree())).unwrap(), tree());
    }

    #[test]
    fn a_tree_of_etcd_is_read() {
        // As etcd 3.4 wrote it, without its event history.
        let json = br#"{"Root":{"Path":"/","CreatedIndex":0,"ModifiedIndex":0,"ExpireTime":"0001-01-01T00:00:00Z","Value":"",
            "Children":{"0":{"Path":"/0","Value":"","Children":{"members":{"Path":"/0/members","Value":"","Children":{
            "2c902495a3d372c7":{"Path":"/0/members/2c902495a3d372c7","Value":"","Children":{"attributes":{"Path":"a","Value":
            "{\"name\":\"n1\",\"clientURLs\":[\"http://127.0.0.1:34379\"]}","Children":null},"raftAttributes":{"Path":"r","Value":
            "{\"peerURLs\":[\"http://127.0.0.1:34380\"]}","Children":null}}}}},"version":{"Path":"/0/version","Value":"3.4.0",
            "Children":null}}},"1":{"Path":"/1","Value":"","Children":{"mine":{"Path":"/1/mine","Value":"x","Children":null}}}}},
            "WatcherHub":{"EventHistory":{}},"CurrentIndex":3,"Stats":{"getsSuccess":0},"CurrentVersion":2}"#;
        let tree = read(json).unwrap();
        assert_eq!(tree.members.len(), 1);
        assert_eq!(tree.members[0].attributes.as_ref().unwrap().0, "n1");
        assert_eq!(tree.version.as_deref(), Some("3.4.0"));
        assert!(holds_user_keys(json).unwrap());
        assert!(!holds_user_keys(&write(&super::tests::tree())).unwrap());
    }

    #[test]
    fn malformed_members_are_named() {
        let json = String::from_utf8(write(&tree())).unwrap();
        let broken = json.replace("\"2c902495a3d372c7\":", "\"no number\":");
        assert!(matches!(read(broken.as_bytes()), Err(TreeError::Entry { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(read(&bytes).is_err());
        }
    }
}
