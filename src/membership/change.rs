//! One configuration change and its form in the log.

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use super::{Member, json::Object, member::MemberJson};
use crate::{
    pb::raftpb::{ConfChange, ConfChangeType},
    types::{MemberId, RequestId},
};

/// A change of the membership. Travels as etcd's `ConfChange` with a JSON context, one change at a time, never joint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new member. `learner` is what raft is told; etcd keeps the flag of the member itself apart from it.
    Add {
        /// The member as it will be stored.
        member: Member,
        /// Whether raft gives it no vote.
        learner: bool,
    },
    /// A learner gets its vote.
    Promote(MemberId),
    /// A member moves to other peer URLs; nothing else about it changes.
    Update {
        /// The member that moves.
        id: MemberId,
        /// All its peer URLs from now on.
        peer_urls: Vec<String>,
    },
    /// A member leaves for good.
    Remove(MemberId),
}

/// A configuration change that cannot be executed as it stands. Skipping it could give members different quorums.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The entry's bytes are no `ConfChange`.
    #[error("the configuration change does not decode")]
    Message(#[from] prost::DecodeError),
    /// The context is no member.
    #[error("the context of the configuration change is not a member in JSON")]
    Context(#[from] serde_json::Error),
    /// A change type this version does not know.
    #[error("configuration change of unknown type {0}")]
    Type(i32),
    /// Envelope and context disagree about the member.
    #[error("the configuration change is about member {node} but its context describes member {context}")]
    Mismatch {
        /// From the envelope.
        node: MemberId,
        /// From the JSON context.
        context: MemberId,
    },
}

impl MemberChange {
    /// Adds `member`, as a learner if it says so.
    pub fn add(member: Member) -> Self {
        let learner = member.is_learner;
        Self::Add { member, learner }
    }

    /// The member it is about.
    pub fn id(&self) -> MemberId {
        match self {
            Self::Add { member, .. } => member.id,
            Self::Promote(id) | Self::Update { id, .. } | Self::Remove(id) => *id,
        }
    }

    /// Whether the change raises the number of learners.
    pub fn adds_learner(&self) -> bool {
        matches!(self, Self::Add { member, learner: true } if member.is_learner)
    }

    /// The change as etcd writes it; `request` ties it to the caller that waits.
    pub fn encode(&self, request: RequestId) -> ConfChange {
        let (kind, context) = match self {
            Self::Add { member, learner: false } => (ConfChangeType::ConfChangeAddNode, member.to_json()),
            Self::Add { member, learner: true } => (ConfChangeType::ConfChangeAddLearnerNode, member.to_json()),
            Self::Promote(id) => (ConfChangeType::ConfChangeAddNode, promotion(*id)),
            Self::Update { id, peer_urls } => (ConfChangeType::ConfChangeUpdateNode, update(*id, peer_urls)),
            Self::Remove(_) => (ConfChangeType::ConfChangeRemoveNode, String::new()),
        };
        ConfChange { id: request.0, r#type: kind.into(), node_id: self.id().0, context: context.into() }
    }

    /// Reads a committed entry's data.
    ///
    /// # Errors
    /// [`ChangeError`]; the member must stop, since going on could give it another quorum than the others.
    pub fn decode(data: Bytes) -> Result<(RequestId, Self), ChangeError> {
        let message = ConfChange::decode(data)?;
        let request = RequestId(message.id);
        Self::from_message(&message).map(|change| (request, change))
    }

    /// What raft has to do about an accepted change: nothing for a move to other URLs.
    pub fn for_raft(&self) -> Option<ConfChange> {
        let kind = match self {
            Self::Add { learner: true, .. } => ConfChangeType::ConfChangeAddLearnerNode,
            Self::Add { .. } | Self::Promote(_) => ConfChangeType::ConfChangeAddNode,
            Self::Remove(_) => ConfChangeType::ConfChangeRemoveNode,
            Self::Update { .. } => return None,
        };
        Some(ConfChange { r#type: kind.into(), node_id: self.id().0, ..ConfChange::default() })
    }

    fn from_message(message: &ConfChange) -> Result<Self, ChangeError> {
        let id = MemberId(message.node_id);
        let kind = ConfChangeType::try_from(message.r#type).map_err(|_| ChangeError::Type(message.r#type))?;
        if kind == ConfChangeType::ConfChangeRemoveNode {
            return Ok(Self::Remove(id));
        }
        let context: MemberJson = serde_json::from_slice(&message.context)?;
        if context.id != id.0 {
            return Err(ChangeError::Mismatch { node: id, context: MemberId(context.id) });
        }
        let learner = kind == ConfChangeType::ConfChangeAddLearnerNode;
        Ok(match kind {
            ConfChangeType::ConfChangeUpdateNode => {
                Self::Update { id, peer_urls: context.peer_urls.unwrap_or_default() }
            }
            _ if context.is_promote => Self::Promote(id),
            _ => Self::Add { member: context.into(), learner },
        })
    }
}

fn promotion(id: MemberId) -> String {
    Object::new().number("id", id.0).texts("peerURLs", None).flag("isPromote", true).end()
}

fn update(id: MemberId, peer_urls: &[String]) -> String {
    Object::new().number("id", id.0).texts("peerURLs", Some(peer_urls)).end()
}

#[cfg(test)]
mod tests {
    use super::{super::cluster::tests::member, *};

    fn context(change: &MemberChange) -> (i32, String) {
        let message = change.encode(RequestId(5));
        (message.r#type, String::from_utf8(message.context.to_vec()).unwrap())
    }

    fn fresh(id: u64, learner: bool) -> Member {
        Member { attributes: super::super::Attributes::default(), ..member(id, learner) }
    }

    #[test]
    fn changes_are_written_as_etcd_writes_them() {
        let voter = MemberChange::add(fresh(3, false));
        let learner = MemberChange::add(fresh(3, true));
        assert_eq!(context(&voter), (0, r#"{"id":3,"peerURLs":["http://h3:1"]}"#.into()));
        assert_eq!(context(&learner), (3, r#"{"id":3,"peerURLs":["http://h3:1"],"isLearner":true}"#.into()));
        let promote = r#"{"id":3,"peerURLs":null,"isPromote":true}"#;
        assert_eq!(context(&MemberChange::Promote(MemberId(3))), (0, promote.into()));
        assert_eq!(context(&MemberChange::Remove(MemberId(3))), (1, String::new()));
        let update = MemberChange::Update { id: MemberId(3), peer_urls: vec!["http://x:1".into()] };
        assert_eq!(context(&update), (2, r#"{"id":3,"peerURLs":["http://x:1"]}"#.into()));
    }

    #[test]
    fn every_change_survives_the_log() {
        for change in [
            MemberChange::add(fresh(1, false)),
            MemberChange::add(fresh(1, true)),
            MemberChange::add(member(1, false)),
            MemberChange::Promote(MemberId(2)),
            MemberChange::Update { id: MemberId(3), peer_urls: vec!["http://x:1".into()] },
            MemberChange::Remove(MemberId(4)),
        ] {
            let data = change.encode(RequestId(9)).encode_to_vec();
            assert_eq!(MemberChange::decode(data.into()).unwrap(), (RequestId(9), change));
        }
    }

    #[test]
    fn envelope_and_context_must_agree() {
        let message = ConfChange { node_id: 4, ..MemberChange::Promote(MemberId(3)).encode(RequestId(1)) };
        let refused = MemberChange::decode(message.encode_to_vec().into());
        assert!(matches!(refused, Err(ChangeError::Mismatch { node: MemberId(4), context: MemberId(3) })));
    }

    #[test]
    fn garbage_is_refused() {
        let unknown = ConfChange { r#type: 9, ..ConfChange::default() };
        assert!(matches!(MemberChange::decode(unknown.encode_to_vec().into()), Err(ChangeError::Type(9))));
        let no_context = ConfChange { node_id: 1, ..ConfChange::default() };
        assert!(matches!(MemberChange::decode(no_context.encode_to_vec().into()), Err(ChangeError::Context(_))));
        assert!(matches!(MemberChange::decode(Bytes::from_static(b"\xff")), Err(ChangeError::Message(_))));
    }

    #[test]
    fn raft_hears_nothing_of_new_urls() {
        assert_eq!(MemberChange::Update { id: MemberId(3), peer_urls: vec![] }.for_raft(), None);
        let promote = MemberChange::Promote(MemberId(3)).for_raft().unwrap();
        assert_eq!((promote.r#type(), promote.node_id), (ConfChangeType::ConfChangeAddNode, 3));
    }
}
