//! Between our wire types and those of the raft crate, field by field.
//!
//! Fields only the raft crate knows (`commit_term`, `priority`, `request_snapshot`, an entry's `context`) stay at
//! their defaults on the way in and are left behind on the way out: etcd would drop them or reject the message.

use ::raft::eraftpb;

use crate::{pb::raftpb, types::MemberId};

use super::{Change, Role};

/// The raft crate's name for a type that may come from a peer; `None` for local and unknown ones.
pub(super) fn peer_message_type(wire: i32) -> Option<eraftpb::MessageType> {
    use eraftpb::MessageType as To;
    use raftpb::MessageType as From;
    Some(match From::try_from(wire).ok()? {
        From::MsgProp => To::MsgPropose,
        From::MsgApp => To::MsgAppend,
        From::MsgAppResp => To::MsgAppendResponse,
        From::MsgVote => To::MsgRequestVote,
        From::MsgVoteResp => To::MsgRequestVoteResponse,
        From::MsgSnap => To::MsgSnapshot,
        From::MsgHeartbeat => To::MsgHeartbeat,
        From::MsgHeartbeatResp => To::MsgHeartbeatResponse,
        From::MsgTransferLeader => To::MsgTransferLeader,
        From::MsgTimeoutNow => To::MsgTimeoutNow,
        From::MsgReadIndex => To::MsgReadIndex,
        From::MsgReadIndexResp => To::MsgReadIndexResp,
        From::MsgPreVote => To::MsgRequestPreVote,
        From::MsgPreVoteResp => To::MsgRequestPreVoteResponse,
        From::MsgHup | From::MsgBeat | From::MsgUnreachable | From::MsgSnapStatus | From::MsgCheckQuorum => {
            return None;
        }
    })
}

/// The number of a type on the wire.
fn wire_message_type(from: eraftpb::MessageType) -> i32 {
    use eraftpb::MessageType as From;
    use raftpb::MessageType as To;
    let wire = match from {
        From::MsgHup => To::MsgHup,
        From::MsgBeat => To::MsgBeat,
        From::MsgPropose => To::MsgProp,
        From::MsgAppend => To::MsgApp,
        From::MsgAppendResponse => To::MsgAppResp,
        From::MsgRequestVote => To::MsgVote,
        From::MsgRequestVoteResponse => To::MsgVoteResp,
        From::MsgSnapshot => To::MsgSnap,
        From::MsgHeartbeat => To::MsgHeartbeat,
        From::MsgHeartbeatResponse => To::MsgHeartbeatResp,
        From::MsgUnreachable => To::MsgUnreachable,
        From::MsgSnapStatus => To::MsgSnapStatus,
        From::MsgCheckQuorum => To::MsgCheckQuorum,
        From::MsgTransferLeader => To::MsgTransferLeader,
        From::MsgTimeoutNow => To::MsgTimeoutNow,
        From::MsgReadIndex => To::MsgReadIndex,
        From::MsgReadIndexResp => To::MsgReadIndexResp,
        From::MsgRequestPreVote => To::MsgPreVote,
        From::MsgRequestPreVoteResponse => To::MsgPreVoteResp,
    };
    wire.into()
}

/// A checked message from a peer. `kind` is what [`peer_message_type`] made of its type.
pub(super) fn message_in(from: raftpb::Message, kind: eraftpb::MessageType) -> eraftpb::Message {
    let mut to = eraftpb::Message::default();
    to.set_msg_type(kind);
    to.to = from.to;
    to.from = from.from;
    to.term = from.term;
    to.log_term = from.log_term;
    to.index = from.index;
    to.set_entries(from.entries.into_iter().map(entry_in).collect());
    to.commit = from.commit;
    if let Some(snapshot) = from.snapshot {
        to.set_snapshot(snapshot_in(snapshot));
    }
    to.reject = from.reject;
    to.reject_hint = from.reject_hint;
    to.context = from.context;
    to
}

/// A message for a peer.
pub(super) fn message_out(mut from: eraftpb::Message) -> raftpb::Message {
    raftpb::Message {
        r#type: wire_message_type(from.get_msg_type()),
        to: from.to,
        from: from.from,
        term: from.term,
        log_term: from.log_term,
        index: from.index,
        entries: from.take_entries().into_iter().map(entry_out).collect(),
        commit: from.commit,
        snapshot: from.snapshot.take().map(snapshot_out),
        reject: from.reject,
        reject_hint: from.reject_hint,
        context: from.take_context(),
    }
}

/// An entry whose type was checked to be normal or a simple configuration change.
pub(super) fn entry_in(from: raftpb::Entry) -> eraftpb::Entry {
    let mut to = eraftpb::Entry::default();
    if from.r#type == i32::from(raftpb::EntryType::EntryConfChange) {
        to.set_entry_type(eraftpb::EntryType::EntryConfChange);
    }
    to.term = from.term;
    to.index = from.index;
    to.data = from.data;
    to
}

/// An entry for the log, the state machine or a peer.
pub(super) fn entry_out(mut from: eraftpb::Entry) -> raftpb::Entry {
    let kind = match from.get_entry_type() {
        eraftpb::EntryType::EntryNormal => raftpb::EntryType::EntryNormal,
        eraftpb::EntryType::EntryConfChange => raftpb::EntryType::EntryConfChange,
        eraftpb::EntryType::EntryConfChangeV2 => raftpb::EntryType::EntryConfChangeV2,
    };
    raftpb::Entry { r#type: kind.into(), term: from.term, index: from.index, data: from.take_data() }
}

fn snapshot_in(from: raftpb::Snapshot) -> eraftpb::Snapshot {
    let metadata = from.metadata.unwrap_or_default();
    let mut to = eraftpb::Snapshot { data: from.data, ..Default::default() };
    to.mut_metadata().index = metadata.index;
    to.mut_metadata().term = metadata.term;
    to.mut_metadata().set_conf_state(conf_state_in(metadata.conf_state.unwrap_or_default()));
    to
}

/// A snapshot with its metadata.
pub(super) fn snapshot_out(mut from: eraftpb::Snapshot) -> raftpb::Snapshot {
    let mut metadata = from.take_metadata();
    raftpb::Snapshot {
        data: from.take_data(),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(conf_state_out(metadata.take_conf_state())),
            index: metadata.index,
            term: metadata.term,
        }),
    }
}

/// A configuration for the raft crate.
pub(super) fn conf_state_in(from: raftpb::ConfState) -> eraftpb::ConfState {
    let raftpb::ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = from;
    eraftpb::ConfState { voters, learners, voters_outgoing, learners_next, auto_leave, ..Default::default() }
}

/// A configuration with its members in ascending order, so that equal configurations have equal bytes.
pub(super) fn conf_state_out(from: eraftpb::ConfState) -> raftpb::ConfState {
    let sorted = |mut ids: Vec<u64>| {
        ids.sort_unstable();
        ids
    };
    raftpb::ConfState {
        voters: sorted(from.voters),
        learners: sorted(from.learners),
        voters_outgoing: sorted(from.voters_outgoing),
        learners_next: sorted(from.learners_next),
        auto_leave: from.auto_leave,
    }
}

/// A hard state for the log.
pub(super) fn hard_state_out(from: &eraftpb::HardState) -> raftpb::HardState {
    raftpb::HardState { term: from.term, vote: from.vote, commit: from.commit }
}

/// A hard state for the raft crate.
pub(super) fn hard_state_in(from: raftpb::HardState) -> eraftpb::HardState {
    let raftpb::HardState { term, vote, commit } = from;
    eraftpb::HardState { term, vote, commit, ..Default::default() }
}

/// The raft crate's single change for what applying a configuration change decided; `None` if nothing changes.
pub(super) fn change_in(change: Change) -> Option<eraftpb::ConfChangeV2> {
    use eraftpb::ConfChangeType as Kind;
    let (kind, MemberId(node)) = match change {
        Change::AddVoter(member) => (Kind::AddNode, member),
        Change::AddLearner(member) => (Kind::AddLearnerNode, member),
        Change::Remove(member) => (Kind::RemoveNode, member),
        Change::None => return None,
    };
    let mut single = eraftpb::ConfChangeSingle::default();
    single.set_change_type(kind);
    single.node_id = node;
    let mut changes = eraftpb::ConfChangeV2::default();
    changes.mut_changes().push(single);
    Some(changes)
}

/// The role in our words.
pub(super) fn role_out(from: ::raft::StateRole) -> Role {
    match from {
        ::raft::StateRole::Follower => Role::Follower,
        ::raft::StateRole::PreCandidate => Role::PreCandidate,
        ::raft::StateRole::Candidate => Role::Candidate,
        ::raft::StateRole::Leader => Role::Leader,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn full_message(kind: raftpb::MessageType) -> raftpb::Message {
        let entry = raftpb::Entry { r#type: 1, term: 4, index: 9, data: Bytes::from_static(b"data") };
        let conf_state = raftpb::ConfState { voters: vec![1, 2], learners: vec![3], ..Default::default() };
        let metadata = raftpb::SnapshotMetadata { conf_state: Some(conf_state), index: 7, term: 3 };
        raftpb::Message {
            r#type: kind.into(),
            to: 1,
            from: 2,
            term: 5,
            log_term: 4,
            index: 8,
            entries: vec![entry],
            commit: 6,
            snapshot: Some(raftpb::Snapshot { data: Bytes::from_static(b"snap"), metadata: Some(metadata) }),
            reject: true,
            reject_hint: 10,
            context: Bytes::from_static(b"context"),
        }
    }

    #[test]
    fn every_field_survives_both_ways() {
        for number in 0..=18 {
            let message = full_message(raftpb::MessageType::try_from(number).unwrap());
            match peer_message_type(number) {
                Some(kind) => assert_eq!(message_out(message_in(message.clone(), kind)), message),
                None => assert!(matches!(number, 0 | 1 | 10 | 11 | 12)),
            }
        }
    }

    #[test]
    fn unknown_types_have_no_name() {
        assert_eq!(peer_message_type(19), None);
        assert_eq!(peer_message_type(-1), None);
    }

    #[test]
    fn learner_is_added_by_its_raft_crate_number_not_by_etcds() {
        let change = change_in(Change::AddLearner(MemberId(7))).unwrap();
        assert_eq!(change.get_changes()[0].get_change_type(), eraftpb::ConfChangeType::AddLearnerNode);
        assert_eq!(change_in(Change::None), None);
    }
}
