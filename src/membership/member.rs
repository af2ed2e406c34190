//! One member as the cluster knows it, with its stored form.

use serde::Deserialize;

use super::json::Object;
use crate::{pb, types::MemberId};

/// A member: what the configuration change said (identifier, peer URLs, learner) and what it published itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Never zero, never reused.
    pub id: MemberId,
    /// Where its peers reach it, in the order given.
    pub peer_urls: Vec<String>,
    /// Receives the log but has no vote.
    pub is_learner: bool,
    /// What the member published about itself; empty until it has started.
    pub attributes: Attributes,
}

/// What a member publishes about itself once it has started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The human-readable name.
    pub name: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

/// The JSON of a member, as read: every field may be missing or `null`.
#[derive(Deserialize)]
pub(super) struct MemberJson {
    #[serde(default)]
    pub(super) id: u64,
    #[serde(default, rename = "peerURLs")]
    pub(super) peer_urls: Option<Vec<String>>,
    #[serde(default, rename = "isLearner")]
    pub(super) is_learner: bool,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default, rename = "clientURLs")]
    pub(super) client_urls: Option<Vec<String>>,
    #[serde(default, rename = "isPromote")]
    pub(super) is_promote: bool,
}

#[derive(Deserialize)]
struct AttributesJson {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
}

impl Member {
    /// Whether the member has published its name, which it does once it takes part.
    pub fn is_started(&self) -> bool {
        !self.attributes.name.is_empty()
    }

    /// The stored form, byte for byte etcd's: empty fields left out except `id` and `peerURLs`.
    pub fn to_json(&self) -> String {
        self.json().end()
    }

    /// # Errors
    /// If `json` is not a member in etcd's form.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<MemberJson>(json).map(Self::from)
    }

    pub(super) fn json(&self) -> Object {
        let Self { id, peer_urls, is_learner, attributes: Attributes { name, client_urls } } = self;
        Object::new()
            .number("id", id.0)
            .texts("peerURLs", (!peer_urls.is_empty()).then_some(peer_urls))
            .unless(!is_learner, |json| json.flag("isLearner", true))
            .unless(name.is_empty(), |json| json.text("name", name))
            .unless(client_urls.is_empty(), |json| json.texts("clientURLs", Some(client_urls)))
    }
}

impl Attributes {
    /// Reads the value that etcd 3.5 writes under `/0/members/<id>/attributes`.
    ///
    /// # Errors
    /// If `json` is not an object of name and client URLs.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        let AttributesJson { name, client_urls } = serde_json::from_slice(json)?;
        Ok(Self { name, client_urls: client_urls.unwrap_or_default() })
    }
}

impl From<MemberJson> for Member {
    fn from(json: MemberJson) -> Self {
        let attributes = Attributes { name: json.name, client_urls: json.client_urls.unwrap_or_default() };
        let peer_urls = json.peer_urls.unwrap_or_default();
        Self { id: MemberId(json.id), peer_urls, is_learner: json.is_learner, attributes }
    }
}

impl From<pb::membershippb::Attributes> for Attributes {
    fn from(message: pb::membershippb::Attributes) -> Self {
        Self { name: message.name, client_urls: message.client_urls }
    }
}

impl From<Attributes> for pb::membershippb::Attributes {
    fn from(attributes: Attributes) -> Self {
        Self { name: attributes.name, client_urls: attributes.client_urls }
    }
}

impl From<&Member> for pb::etcdserverpb::Member {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id.0,
            name: member.attributes.name.clone(),
            peer_ur_ls: member.peer_urls.clone(),
            client_ur_ls: member.attributes.client_urls.clone(),
            is_learner: member.is_learner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member { id: MemberId(7), peer_urls: vec!["http://a:1".into()], ..Member::default() }
    }

    #[test]
    fn empty_fields_are_left_out_of_the_stored_form() {
        assert_eq!(member().to_json(), r#"{"id":7,"peerURLs":["http://a:1"]}"#);
    }

    #[test]
    fn fields_are_stored_in_etcds_order() {
        let attributes = Attributes { name: "m7".into(), client_urls: vec!["http://a:2".into()] };
        let full = Member { is_learner: true, attributes, ..member() };
        let json = r#"{"id":7,"peerURLs":["http://a:1"],"isLearner":true,"name":"m7","clientURLs":["http://a:2"]}"#;
        assert_eq!(full.to_json(), json);
        assert_eq!(Member::from_json(json.as_bytes()).unwrap(), full);
    }

    #[test]
    fn missing_peer_urls_are_null() {
        let bare = Member { id: MemberId(u64::MAX), ..Member::default() };
        assert_eq!(bare.to_json(), r#"{"id":18446744073709551615,"peerURLs":null}"#);
        assert_eq!(Member::from_json(bare.to_json().as_bytes()).unwrap(), bare);
    }

    #[test]
    fn attributes_of_etcd_3_5_are_read() {
        let attributes = Attributes::from_json(br#"{"name":"n","clientURLs":["http://c:1"]}"#).unwrap();
        assert_eq!(attributes, Attributes { name: "n".into(), client_urls: vec!["http://c:1".into()] });
        assert!(Attributes::from_json(b"[").is_err());
    }
}
