//! The first entries of a new cluster's log.

use bytes::Bytes;
use prost::Message as _;

use crate::{pb::raftpb, types::MemberId};

/// What a founding member writes to its log before it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Founding {
    /// One configuration change per founding member.
    pub entries: Vec<raftpb::Entry>,
    /// Term 1, no vote, all of them committed.
    pub hard_state: raftpb::HardState,
}

/// Builds the founding entries exactly as etcd does, so that the log is a valid etcd log from its first entry on:
/// entries 1 to n of term 1 add one voter each, ordered by member ID, with change ID 0.
///
/// `members` gives each founding member and its JSON, name included. The order does not matter.
pub fn founding(members: &[(MemberId, Bytes)]) -> Founding {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn founding_entries_are_ordered_by_member() {
        let json = |name: &str| Bytes::from(format!("{{\"name\":\"{name}\"}}"));
        let Founding { entries, hard_state } = founding(&[(MemberId(9), json("b")), (MemberId(3), json("a"))]);
        assert_eq!(hard_state, raftpb::HardState { term: 1, vote: 0, commit: 2 });
        let decoded: Vec<_> =
            entries.iter().map(|entry| raftpb::ConfChange::decode(entry.data.clone()).unwrap().node_id).collect();
        assert_eq!(decoded, [3, 9]);
        assert_eq!(entries.iter().map(|entry| (entry.index, entry.term)).collect::<Vec<_>>(), [(1, 1), (2, 1)]);
    }
}
