//! The first entries of a new cluster's log, as `membership` writes them, without learning what they mean.

use bytes::Bytes;
use prost::Message as _;

use crate::{pb::raftpb, types::MemberId};

/// What a founding member writes to its log before it starts.
pub(super) struct Founding {
    /// One configuration change per founding member.
    pub(super) entries: Vec<raftpb::Entry>,
    /// Term 1, no vote, all of them committed.
    pub(super) hard_state: raftpb::HardState,
}

/// Builds the founding entries exactly as etcd does, so that the log is a valid etcd log from its first entry on:
/// entries 1 to n of term 1 add one voter each, ordered by member ID, with change ID 0.
///
/// `members` gives each founding member and its JSON, name included. The order does not matter.
pub(super) fn founding(members: &[(MemberId, Bytes)]) -> Founding {
    let mut members = members.to_vec();
    members.sort_by_key(|(id, _)| *id);
    let entries: Vec<_> = (1..).zip(&members).map(|(index, (id, json))| founding_entry(index, *id, json)).collect();
    let commit = entries.last().map_or(0, |entry| entry.index);
    Founding { entries, hard_state: raftpb::HardState { term: 1, vote: 0, commit } }
}

fn founding_entry(index: u64, id: MemberId, json: &Bytes) -> raftpb::Entry {
    let change = raftpb::ConfChange {
        id: 0,
        r#type: raftpb::ConfChangeType::ConfChangeAddNode.into(),
        node_id: id.0,
        context: json.clone(),
    };
    raftpb::Entry {
        r#type: raftpb::EntryType::EntryConfChange.into(),
        term: 1,
        index,
        data: change.encode_to_vec().into(),
    }
}
