//! The membership as the v2 JSON tree that a `.snap` file carries.

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
