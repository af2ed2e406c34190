//! What a peer's message must satisfy before the raft crate sees it.
//!
//! The raft crate trusts its input and panics where an invariant breaks; etcd's does too. Here a message that no
//! correct member sends is turned away with a reason.

use ::raft::eraftpb;
use prost::Message as _;

use crate::{pb::raftpb, types::LogIndex};

use super::{RefuseReason, convert};

/// What the checks need to know of the member.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each read by one rule")]
pub(super) struct View {
    pub(super) id: u64,
    pub(super) term: u64,
    pub(super) leads: bool,
    /// The log's end, durable or not.
    pub(super) last: u64,
    /// Whether too many entries wait to be applied.
    pub(super) overloaded: bool,
    /// Whether the member was removed and hands over.
    pub(super) leaving: bool,
    /// Whether a batch waits for the disk.
    pub(super) unsynced: bool,
    /// Whether too many reads of peers wait for a quorum.
    pub(super) reads_full: bool,
}

/// Why a message does not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// It is thrown away.
    Away(RefuseReason),
    /// It proves that our log lost acknowledged entries: this index was acknowledged.
    LogLost(LogIndex),
}

/// No honest cluster counts this far; sums with it cannot overflow.
const NUMBER_MAX: u64 = 1 << 62;

type Checked = Result<(), RefuseReason>;

/// Checks a message and converts it.
pub(super) fn admit(view: View, mut message: raftpb::Message) -> Result<eraftpb::Message, Turned> {
    let kind = convert::peer_message_type(message.r#type).ok_or(Turned::Away(RefuseReason::Type(message.r#type)))?;
    check(view, kind, &mut message).map_err(Turned::Away)?;
    if kind == eraftpb::MessageType::MsgHeartbeat && message.term >= view.term && message.commit > view.last {
        return Err(Turned::LogLost(LogIndex(message.commit)));
    }
    Ok(convert::message_in(message, kind))
}

fn check(view: View, kind: eraftpb::MessageType, message: &mut raftpb::Message) -> Checked {
    use eraftpb::MessageType as Kind;
    if message.to != view.id || message.from == 0 || message.from == view.id {
        return Err(RefuseReason::Address);
    }
    let entries = message.entries.iter().map(|entry| entry.index.max(entry.term)).max().unwrap_or(0);
    let numbers = [message.term, message.log_term, message.index, message.commit, message.reject_hint, entries];
    require(numbers.iter().all(|number| *number < NUMBER_MAX), "an impossible term or index")?;
    check_term(view, kind, message)?;
    match kind {
        Kind::MsgPropose => check_proposal(view, message),
        Kind::MsgAppend => check_append(view, message),
        Kind::MsgAppendResponse => check_answer(view, message),
        Kind::MsgSnapshot => check_snapshot(message),
        Kind::MsgReadIndex if view.reads_full => Err(RefuseReason::Overloaded),
        Kind::MsgReadIndex | Kind::MsgReadIndexResp => {
            require(message.entries.len() == 1, "a read carries one context")?;
            check_types(&message.entries)
        }
        Kind::MsgTimeoutNow if view.unsynced => Err(RefuseReason::DiskStalled),
        _ => {
            message.entries.clear();
            Ok(())
        }
    }
}

fn require(holds: bool, what: &'static str) -> Checked {
    holds.then_some(()).ok_or(RefuseReason::Malformed(what))
}

/// Forwarded proposals and reads travel without a term, everything else with one. A forwarded request to transfer
/// leadership may carry one, but only a leader survives it.
fn check_term(view: View, kind: eraftpb::MessageType, message: &raftpb::Message) -> Checked {
    use eraftpb::MessageType as Kind;
    match kind {
        Kind::MsgPropose | Kind::MsgReadIndex => require(message.term == 0, "a forwarded request has no term"),
        Kind::MsgTransferLeader => require(message.term == 0 || view.leads, "only a leader can hand over"),
        _ => require(message.term != 0, "the term is missing"),
    }
}

/// Bodies of configuration changes are decoded here and encoded anew, so that the raft crate's parser meets only
/// bytes of our making.
fn check_proposal(view: View, message: &mut raftpb::Message) -> Checked {
    require(!message.entries.is_empty(), "a proposal without entries")?;
    check_types(&message.entries)?;
    for entry in &mut message.entries {
        if entry.r#type == i32::from(raftpb::EntryType::EntryConfChange) {
            entry.data = reencoded(&entry.data)?;
        }
    }
    match (view.overloaded, view.leaving) {
        (true, _) => Err(RefuseReason::Overloaded),
        (_, true) => Err(RefuseReason::Leaving),
        _ => Ok(()),
    }
}

fn reencoded(body: &bytes::Bytes) -> Result<bytes::Bytes, RefuseReason> {
    let malformed = RefuseReason::Malformed("a configuration change that does not parse");
    let change = raftpb::ConfChange::decode(body.clone()).map_err(|_| malformed)?;
    if is_known(&change) { Ok(change.encode_to_vec().into()) } else { Err(malformed) }
}

/// Whether the change is one of etcd's four.
pub(super) fn is_known(change: &raftpb::ConfChange) -> bool {
    raftpb::ConfChangeType::try_from(change.r#type).is_ok()
}

fn check_types(entries: &[raftpb::Entry]) -> Checked {
    entries.iter().try_for_each(|entry| match raftpb::EntryType::try_from(entry.r#type) {
        Ok(raftpb::EntryType::EntryNormal | raftpb::EntryType::EntryConfChange) => Ok(()),
        Ok(raftpb::EntryType::EntryConfChangeV2) => Err(RefuseReason::JointChange),
        Err(_) => Err(RefuseReason::Malformed("an entry of unknown type")),
    })
}

/// Entries must follow the position they are anchored at, without gaps and without falling terms.
fn check_append(view: View, message: &raftpb::Message) -> Checked {
    require((message.index == 0) == (message.log_term == 0), "an anchor without index or term")?;
    check_types(&message.entries)?;
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in &message.entries {
        require(index.checked_add(1) == Some(entry.index), "entries with a gap")?;
        require(entry.term >= term.max(1) && entry.term <= message.term, "entries with falling terms")?;
        (index, term) = (entry.index, entry.term);
    }
    require(term <= message.term, "an anchor from the future")?;
    if view.overloaded && !message.entries.is_empty() { Err(RefuseReason::Overloaded) } else { Ok(()) }
}

/// A follower of this term cannot be ahead of its leader.
fn check_answer(view: View, message: &mut raftpb::Message) -> Checked {
    message.entries.clear();
    if !view.leads || message.term != view.term {
        return Ok(());
    }
    require(message.index <= view.last && message.reject_hint <= view.last, "an answer ahead of the leader's log")
}

fn check_snapshot(message: &mut raftpb::Message) -> Checked {
    message.entries.clear();
    let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    let Some(metadata) = metadata else { return Err(RefuseReason::Malformed("a snapshot without metadata")) };
    require(metadata.index > 0 && metadata.index < NUMBER_MAX, "a snapshot without an index")?;
    require(metadata.term > 0 && metadata.term <= message.term, "a snapshot of an impossible term")?;
    let conf_state = metadata.conf_state.as_ref();
    let usable = conf_state.is_some_and(|conf_state| check_conf_state(conf_state).is_ok() && has_voters(conf_state));
    require(usable, "a snapshot with an unusable configuration")
}

fn has_voters(conf_state: &raftpb::ConfState) -> bool {
    !conf_state.voters.is_empty()
}

/// Whether the raft crate can run with this configuration: no joint one, nobody twice, nobody without a number.
pub(super) fn check_conf_state(conf_state: &raftpb::ConfState) -> Result<(), &'static str> {
    let raftpb::ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = conf_state;
    if !voters_outgoing.is_empty() || !learners_next.is_empty() || *auto_leave {
        return Err("it is a joint configuration, which etcd's servers never write");
    }
    let mut ids: Vec<_> = voters.iter().chain(learners).collect();
    ids.sort_unstable();
    if ids.first() == Some(&&0) {
        return Err("a member has the number 0");
    }
    ids.dedup();
    if ids.len() == voters.len() + learners.len() { Ok(()) } else { Err("a member appears twice") }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const VIEW: View = View {
        id: 1,
        term: 5,
        leads: false,
        last: 10,
        overloaded: false,
        leaving: false,
        unsynced: false,
        reads_full: false,
    };

    fn message(kind: raftpb::MessageType) -> raftpb::Message {
        raftpb::Message { r#type: kind.into(), to: 1, from: 2, term: 5, ..Default::default() }
    }

    fn entry(index: u64, term: u64) -> raftpb::Entry {
        raftpb::Entry { index, term, ..Default::default() }
    }

    fn refused(view: View, message: raftpb::Message) -> RefuseReason {
        match admit(view, message).unwrap_err() {
            Turned::Away(reason) => reason,
            Turned::LogLost(_) => panic!("unexpected"),
        }
    }

    fn assert_malformed(view: View, message: raftpb::Message) {
        let reason = refused(view, message);
        assert!(matches!(reason, RefuseReason::Malformed(_)), "{reason}");
    }

    #[test]
    fn local_and_unknown_types_stay_out() {
        for kind in [0, 1, 10, 11, 12, 19, 23, -1, i32::MAX] {
            let message = raftpb::Message { r#type: kind, ..message(raftpb::MessageType::MsgHup) };
            assert_eq!(refused(VIEW, message), RefuseReason::Type(kind));
        }
    }

    #[test]
    fn messages_are_from_another_member_to_this_one() {
        let good = message(raftpb::MessageType::MsgHeartbeat);
        admit(VIEW, good.clone()).unwrap();
        for (to, from) in [(2, 2), (0, 2), (1, 0), (1, 1)] {
            assert_eq!(refused(VIEW, raftpb::Message { to, from, ..good.clone() }), RefuseReason::Address);
        }
    }

    #[test]
    fn forwarded_requests_travel_without_a_term_and_others_with_one() {
        let entries = vec![entry(0, 0)];
        for kind in [raftpb::MessageType::MsgProp, raftpb::MessageType::MsgReadIndex] {
            let forwarded = raftpb::Message { entries: entries.clone(), ..message(kind) };
            assert_malformed(VIEW, forwarded.clone());
            admit(VIEW, raftpb::Message { term: 0, ..forwarded }).unwrap();
        }
        assert_malformed(VIEW, raftpb::Message { term: 0, ..message(raftpb::MessageType::MsgHeartbeat) });
        assert_malformed(VIEW, message(raftpb::MessageType::MsgTransferLeader));
        admit(View { leads: true, ..VIEW }, message(raftpb::MessageType::MsgTransferLeader)).unwrap();
    }

    #[test]
    fn a_proposal_without_entries_is_dropped() {
        assert_malformed(VIEW, raftpb::Message { term: 0, ..message(raftpb::MessageType::MsgProp) });
    }

    #[test]
    fn a_read_carries_exactly_one_context() {
        for count in [0, 2] {
            let entries = vec![entry(0, 0); count];
            let read = message(raftpb::MessageType::MsgReadIndex);
            assert_malformed(VIEW, raftpb::Message { term: 0, entries: entries.clone(), ..read });
            assert_malformed(VIEW, raftpb::Message { entries, ..message(raftpb::MessageType::MsgReadIndexResp) });
        }
    }

    #[test]
    fn forwarded_configuration_changes_are_encoded_anew() {
        // The change type twice, and an unknown field: valid for any parser, but not what we would write.
        let body = Bytes::from_static(&[0x10, 0, 0x10, 3, 0x18, 7, 0x78, 1]);
        let change = raftpb::Entry { r#type: 1, data: body, ..Default::default() };
        let proposal = raftpb::Message { term: 0, entries: vec![change], ..message(raftpb::MessageType::MsgProp) };
        let admitted = admit(VIEW, proposal).unwrap();
        assert_eq!(admitted.get_entries()[0].data.as_ref(), [0x10, 3, 0x18, 7]);
    }

    #[test]
    fn unparsable_and_joint_configuration_changes_stay_out() {
        let with = |kind: i32, data: &'static [u8]| raftpb::Message {
            term: 0,
            entries: vec![raftpb::Entry { r#type: kind, data: Bytes::from_static(data), ..Default::default() }],
            ..message(raftpb::MessageType::MsgProp)
        };
        assert_malformed(VIEW, with(1, &[0xff]));
        assert_malformed(VIEW, with(1, &[0x10, 4]));
        assert_malformed(VIEW, with(7, &[]));
        assert_eq!(refused(VIEW, with(2, &[])), RefuseReason::JointChange);
    }

    #[test]
    fn appended_entries_follow_their_anchor() {
        let append = |index, log_term, entries| raftpb::Message {
            index,
            log_term,
            entries,
            ..message(raftpb::MessageType::MsgApp)
        };
        admit(VIEW, append(0, 0, vec![entry(1, 1), entry(2, 5)])).unwrap();
        admit(VIEW, append(10, 4, vec![entry(11, 4)])).unwrap();
        for bad in [
            append(12, 0, vec![entry(13, 5)]),
            append(0, 3, vec![]),
            append(10, 4, vec![entry(12, 4)]),
            append(10, 4, vec![entry(11, 3)]),
            append(10, 4, vec![entry(11, 6)]),
            append(10, 6, vec![]),
            append(u64::MAX, 4, vec![entry(0, 4)]),
            append(NUMBER_MAX, 4, vec![]),
            append(0, 0, vec![entry(1, 0)]),
        ] {
            assert_malformed(VIEW, bad);
        }
    }

    #[test]
    fn a_leader_believes_no_answer_ahead_of_its_log() {
        let leader = View { leads: true, ..VIEW };
        let answer = raftpb::Message { index: 11, ..message(raftpb::MessageType::MsgAppResp) };
        assert_malformed(leader, answer.clone());
        admit(VIEW, answer.clone()).unwrap();
        assert_malformed(leader, raftpb::Message { index: 3, reject: true, reject_hint: 11, ..answer });
    }

    #[test]
    fn a_heartbeat_beyond_the_log_proves_that_it_lost_entries() {
        let heartbeat = raftpb::Message { commit: 11, ..message(raftpb::MessageType::MsgHeartbeat) };
        assert_eq!(admit(VIEW, heartbeat.clone()).unwrap_err(), Turned::LogLost(LogIndex(11)));
        admit(VIEW, raftpb::Message { term: 4, ..heartbeat }).unwrap();
    }

    #[test]
    fn snapshots_need_position_and_configuration() {
        let snapshot = |index, term, voters: &[u64], learners: &[u64]| {
            let conf_state =
                raftpb::ConfState { voters: voters.to_vec(), learners: learners.to_vec(), ..Default::default() };
            let metadata = raftpb::SnapshotMetadata { conf_state: Some(conf_state), index, term };
            let snapshot = raftpb::Snapshot { metadata: Some(metadata), data: Bytes::new() };
            raftpb::Message { snapshot: Some(snapshot), ..message(raftpb::MessageType::MsgSnap) }
        };
        admit(VIEW, snapshot(20, 5, &[2, 1], &[3])).unwrap();
        for bad in [
            snapshot(0, 5, &[1], &[]),
            snapshot(u64::MAX, 5, &[1], &[]),
            snapshot(20, 0, &[1], &[]),
            snapshot(20, 6, &[1], &[]),
            snapshot(20, 5, &[], &[1]),
            snapshot(20, 5, &[1, 2], &[2]),
            snapshot(20, 5, &[0], &[]),
            message(raftpb::MessageType::MsgSnap),
        ] {
            assert_malformed(VIEW, bad);
        }
    }

    #[test]
    fn overload_and_a_stalled_disk_turn_away_what_would_add_to_them() {
        let busy = View { overloaded: true, unsynced: true, reads_full: true, ..VIEW };
        let append = raftpb::Message { entries: vec![entry(1, 5)], ..message(raftpb::MessageType::MsgApp) };
        assert_eq!(refused(busy, append), RefuseReason::Overloaded);
        admit(busy, message(raftpb::MessageType::MsgApp)).unwrap();
        assert_eq!(refused(busy, message(raftpb::MessageType::MsgTimeoutNow)), RefuseReason::DiskStalled);
        let read =
            raftpb::Message { term: 0, entries: vec![entry(0, 0)], ..message(raftpb::MessageType::MsgReadIndex) };
        assert_eq!(refused(busy, read), RefuseReason::Overloaded);
    }

    proptest! {
        #[test]
        fn any_bytes_that_parse_as_a_message_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = raftpb::Message::decode(bytes.as_slice()) {
                let kind = convert::peer_message_type(message.r#type);
                prop_assert!(kind.is_some() || admit(VIEW, message).is_err());
            }
        }
    }
}
