//! What leaves a member before, and what only after its disk has answered.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use crate::{
    pb::raftpb,
    raft::{Change, DropReason, Effect, Input, LogBatch, Member, Options, Proposal, Recovered, RefuseReason, Role},
    types::{LogIndex, MemberId, RequestId, Term},
};

use super::founding::founding;

/// Member 1 of a group, with everything it wanted done so far.
struct Alone {
    member: Member,
    effects: Vec<Effect>,
}

impl Alone {
    /// A founder among `voters`, with its founding entries applied.
    fn among(voters: u64) -> Self {
        Self::with(voters, &Options::new(MemberId(1)))
    }

    fn with(voters: u64, options: &Options) -> Self {
        let mut alone = Self::founding(voters, options);
        alone.apply_founding(voters);
        alone
    }

    /// Before its founding entries are applied.
    fn founding(voters: u64, options: &Options) -> Self {
        let members: Vec<_> = (1..=voters).map(|id| (MemberId(id), Bytes::from_static(b"{}"))).collect();
        let founding = founding(&members);
        let election_jitter = options.election_jitter.clone().or(Some(10..11));
        let options = Options { election_jitter, ..options.clone() };
        let member = Member::new(&options, Recovered::unapplied(founding.hard_state, founding.entries)).unwrap();
        let mut alone = Self { member, effects: Vec::new() };
        alone.member.settle(&mut alone.effects);
        alone
    }

    fn apply_founding(&mut self, voters: u64) -> Vec<Effect> {
        for id in 1..=voters {
            self.take(Input::ApplyConfChange { index: LogIndex(id), change: Change::AddVoter(MemberId(id)) });
        }
        self.take(Input::Applied(LogIndex(voters)))
    }

    /// Takes an input and returns what it leads to.
    fn take(&mut self, input: Input) -> Vec<Effect> {
        self.effects.clear();
        self.member.handle(input, &mut self.effects);
        self.effects.clone()
    }

    fn hear(&mut self, message: raftpb::Message) -> Vec<Effect> {
        self.take(Input::FromPeer(Box::new(raftpb::Message { to: 1, ..message })))
    }

    fn tick(&mut self, n: usize) -> Vec<Effect> {
        (0..n).flat_map(|_| self.take(Input::Tick)).collect()
    }

    /// A leader of three whose first entry is committed and applied.
    fn leader() -> Self {
        let mut alone = Self::among(3);
        alone.take(Input::Campaign);
        let batch = only_batch(&alone.hear(answer(raftpb::MessageType::MsgPreVoteResp, 2, 2)));
        alone.take(Input::Synced(batch.number));
        let batch = only_batch(&alone.hear(answer(raftpb::MessageType::MsgVoteResp, 2, 2)));
        alone.take(Input::Synced(batch.number));
        alone.hear(raftpb::Message { index: 4, ..answer(raftpb::MessageType::MsgAppResp, 2, 2) });
        alone.take(Input::Applied(LogIndex(4)));
        assert_eq!(alone.member.standing().role, Role::Leader);
        assert_eq!(alone.member.committed(), LogIndex(4));
        alone
    }

    /// A follower of member 2 in term 2 that has heard its first entry.
    fn follower() -> Self {
        let mut alone = Self::among(3);
        let batch = only_batch(&alone.hear(append(3, 1, &[(4, 2)])));
        alone.take(Input::Synced(batch.number));
        alone
    }
}

fn answer(kind: raftpb::MessageType, from: u64, term: u64) -> raftpb::Message {
    raftpb::Message { r#type: kind.into(), from, term, ..Default::default() }
}

/// Member 2, leader of term 2, appends entries after `index`.
fn append(index: u64, log_term: u64, entries: &[(u64, u64)]) -> raftpb::Message {
    let entry = |(index, term): &(u64, u64)| raftpb::Entry { index: *index, term: *term, ..Default::default() };
    let entries = entries.iter().map(entry).collect();
    raftpb::Message { index, log_term, entries, ..answer(raftpb::MessageType::MsgApp, 2, 2) }
}

fn proposal(id: u64) -> Proposal {
    Proposal::new(RequestId(id), Bytes::from_static(b"payload"))
}

fn batches(effects: &[Effect]) -> Vec<LogBatch> {
    let batch = |effect: &Effect| match effect {
        Effect::Persist(batch) => Some(batch.clone()),
        _ => None,
    };
    effects.iter().filter_map(batch).collect()
}

fn only_batch(effects: &[Effect]) -> LogBatch {
    let batches = batches(effects);
    assert_eq!(batches.len(), 1, "{effects:?}");
    batches[0].clone()
}

/// Types and receivers of what is sent, ordered.
fn sent(effects: &[Effect]) -> Vec<(raftpb::MessageType, u64)> {
    let messages = effects.iter().filter_map(|effect| match effect {
        Effect::Send(messages) => Some(messages),
        _ => None,
    });
    let mut sent: Vec<_> = messages.flatten().map(|message| (message.r#type(), message.to)).collect();
    sent.sort_unstable();
    sent
}

fn applied(effects: &[Effect]) -> Vec<u64> {
    let entries = effects.iter().filter_map(|effect| match effect {
        Effect::Apply(entries) => Some(entries),
        _ => None,
    });
    entries.flatten().map(|entry| entry.index).collect()
}

use raftpb::MessageType as Kind;

#[test]
fn a_leader_replicates_before_its_own_disk_and_commits_after_a_quorum_of_disks() {
    let mut leader = Alone::leader();
    let effects = leader.take(Input::Propose(vec![proposal(1)]));
    let batch = only_batch(&effects);
    assert!(batch.must_sync);
    assert_eq!(sent(&effects), [(Kind::MsgApp, 2)], "member 3 was never heard of and is only probed");
    let effects = leader.hear(raftpb::Message { index: 5, ..answer(Kind::MsgAppResp, 2, 2) });
    assert!(applied(&effects).is_empty(), "one disk of three");
    let effects = leader.take(Input::Synced(batch.number));
    assert_eq!(applied(&effects), [5]);
    assert!(effects.contains(&Effect::Committed(LogIndex(5))));
}

#[test]
fn a_follower_acknowledges_only_what_is_durable() {
    let mut follower = Alone::follower();
    let effects = follower.hear(append(4, 2, &[(5, 2)]));
    let batch = only_batch(&effects);
    assert_eq!(sent(&effects), []);
    // The same entry once more: nothing to write, and still nothing to promise.
    assert_eq!(sent(&follower.hear(append(4, 2, &[(5, 2)]))), []);
    assert_eq!(sent(&follower.take(Input::Synced(batch.number))), [(Kind::MsgAppResp, 2)]);
}

#[test]
fn answers_that_promise_nothing_do_not_wait_for_the_disk() {
    let mut follower = Alone::follower();
    follower.hear(append(4, 2, &[(5, 2)]));
    let heartbeat = raftpb::Message { context: Bytes::from_static(b"context8"), ..answer(Kind::MsgHeartbeat, 2, 2) };
    assert_eq!(sent(&follower.hear(heartbeat)), [(Kind::MsgHeartbeatResp, 2)]);
    assert_eq!(sent(&follower.hear(append(9, 2, &[]))), [(Kind::MsgAppResp, 2)], "a refusal");
    assert_eq!(sent(&follower.take(Input::ReadIndex(RequestId(7)))), [(Kind::MsgReadIndex, 2)]);
    assert_eq!(sent(&follower.take(Input::Propose(vec![proposal(1)]))), [(Kind::MsgProp, 2)]);
}

#[test]
fn a_vote_leaves_after_it_is_durable() {
    let mut voter = Alone::among(3);
    let request = raftpb::Message { index: 9, log_term: 1, ..answer(Kind::MsgVote, 3, 5) };
    let effects = voter.hear(request);
    let batch = only_batch(&effects);
    assert_eq!(batch.hard_state, Some(raftpb::HardState { term: 5, vote: 3, commit: 3 }));
    assert!(batch.must_sync);
    assert_eq!(sent(&effects), []);
    assert_eq!(sent(&voter.take(Input::Synced(batch.number))), [(Kind::MsgVoteResp, 3)]);
}

/// Asked at once, as at every first start, it was refused, and the member stood idle until its election timeout.
#[test]
fn a_founder_asked_to_stand_does_so_once_its_founding_entries_are_applied() {
    let mut founder = Alone::founding(1, &Options::new(MemberId(1)));
    assert_eq!(founder.take(Input::Campaign), []);
    only_batch(&founder.apply_founding(1));
    assert_eq!(founder.member.standing().role, Role::Leader);
}

#[test]
fn a_single_voter_sends_nothing_before_its_vote_for_itself_is_durable() {
    let mut single = Alone::among(1);
    single.take(Input::ApplyConfChange { index: LogIndex(1), change: Change::AddLearner(MemberId(2)) });
    let effects = single.take(Input::Campaign);
    let batch = only_batch(&effects);
    assert_eq!(single.member.standing().role, Role::Leader);
    assert_eq!(sent(&effects), [], "it could come back and lead the same term with other entries");
    let effects = single.take(Input::Propose(vec![proposal(1)]));
    assert_eq!(sent(&effects), []);
    let effects = single.take(Input::Synced(batch.number));
    assert_eq!(sent(&effects), [(Kind::MsgApp, 2)]);
}

#[test]
fn one_report_covers_all_batches_before_it() {
    let mut follower = Alone::follower();
    follower.hear(append(4, 2, &[(5, 2)]));
    follower.hear(append(5, 2, &[(6, 2)]));
    let batch = only_batch(&follower.hear(append(6, 2, &[(7, 2)])));
    let effects = follower.take(Input::Synced(batch.number));
    assert_eq!(sent(&effects), [(Kind::MsgAppResp, 2)], "the last acknowledgement includes the others");
    let commit = raftpb::Message { commit: 7, ..append(7, 2, &[]) };
    assert_eq!(applied(&follower.hear(commit)), [4, 5, 6, 7]);
}

#[test]
fn a_commit_index_alone_waits_for_the_next_batch() {
    let mut follower = Alone::follower();
    let effects = follower.hear(raftpb::Message { commit: 4, ..append(4, 2, &[]) });
    assert_eq!(batches(&effects), []);
    assert_eq!(applied(&effects), [4]);
    let batch = only_batch(&follower.hear(append(4, 2, &[(5, 2)])));
    assert!(batch.must_sync);
    assert_eq!(batch.hard_state, Some(raftpb::HardState { term: 2, vote: 0, commit: 4 }));
}

#[test]
fn a_commit_index_without_company_is_written_unsynced() {
    let mut follower = Alone::follower();
    follower.hear(raftpb::Message { commit: 4, ..append(4, 2, &[]) });
    assert_eq!(batches(&follower.tick(9)), []);
    let batch = only_batch(
        &follower.hear(answer(Kind::MsgHeartbeat, 2, 2)).into_iter().chain(follower.tick(1)).collect::<Vec<_>>(),
    );
    assert!(!batch.must_sync);
    assert_eq!(batch.hard_state.unwrap().commit, 4);
    assert_eq!(batches(&follower.tick(5)), []);
}

#[test]
fn no_election_starts_while_the_disk_is_silent() {
    let mut follower = Alone::follower();
    let batch = only_batch(&follower.hear(append(4, 2, &[(5, 2)])));
    assert_eq!(sent(&follower.tick(100)), []);
    assert_eq!(sent(&follower.take(Input::Campaign)), []);
    let refused = Effect::Refused { from: MemberId(2), reason: RefuseReason::DiskStalled };
    assert_eq!(follower.hear(answer(Kind::MsgTimeoutNow, 2, 2)), [refused]);
    follower.take(Input::Synced(batch.number));
    assert_eq!(sent(&follower.tick(1)), [(Kind::MsgPreVote, 2), (Kind::MsgPreVote, 3)]);
}

#[test]
fn no_election_starts_before_a_received_snapshot_is_applied() {
    let mut follower = Alone::follower();
    let conf_state = raftpb::ConfState { voters: vec![1, 2, 3], ..Default::default() };
    let metadata = raftpb::SnapshotMetadata { conf_state: Some(conf_state), index: 50, term: 2 };
    let snapshot = raftpb::Snapshot { data: Bytes::new(), metadata: Some(metadata) };
    let effects = follower.hear(raftpb::Message { snapshot: Some(snapshot), ..answer(Kind::MsgSnap, 2, 2) });
    let batch = only_batch(&effects);
    assert_eq!(batch.snapshot.unwrap().metadata.unwrap().index, 50);
    assert_eq!(sent(&effects), []);
    assert_eq!(sent(&follower.take(Input::Synced(batch.number))), [(Kind::MsgAppResp, 2)]);
    assert_eq!(sent(&follower.tick(100)), []);
    follower.take(Input::Applied(LogIndex(50)));
    assert_eq!(sent(&follower.tick(1)), [(Kind::MsgPreVote, 2), (Kind::MsgPreVote, 3)]);
}

#[test]
fn a_snapshot_may_be_applied_before_its_batch_is_reported() {
    let mut follower = Alone::follower();
    let conf_state = raftpb::ConfState { voters: vec![1, 2, 3], ..Default::default() };
    let metadata = raftpb::SnapshotMetadata { conf_state: Some(conf_state), index: 50, term: 2 };
    let snapshot = raftpb::Snapshot { data: Bytes::new(), metadata: Some(metadata) };
    let effects = follower.hear(raftpb::Message { snapshot: Some(snapshot), ..answer(Kind::MsgSnap, 2, 2) });
    follower.take(Input::Applied(LogIndex(50)));
    follower.take(Input::Synced(only_batch(&effects).number));
    let batch = only_batch(&follower.hear(append(50, 2, &[(51, 2)])));
    follower.take(Input::Synced(batch.number));
    assert_eq!(applied(&follower.hear(raftpb::Message { commit: 51, ..append(51, 2, &[]) })), [51]);
}

#[test]
fn changes_from_before_a_snapshot_do_not_undo_what_it_brought() {
    let mut follower = Alone::follower();
    let conf_state = raftpb::ConfState { voters: vec![1, 2, 3, 4], ..Default::default() };
    let metadata = raftpb::SnapshotMetadata { conf_state: Some(conf_state), index: 50, term: 2 };
    let snapshot = raftpb::Snapshot { data: Bytes::new(), metadata: Some(metadata) };
    follower.hear(raftpb::Message { snapshot: Some(snapshot), ..answer(Kind::MsgSnap, 2, 2) });
    let late = |index, change| Input::ApplyConfChange { index: LogIndex(index), change };
    assert_eq!(follower.take(late(4, Change::AddLearner(MemberId(4)))), [], "it was promoted since");
    let effects = follower.take(late(51, Change::Remove(MemberId(2))));
    let conf_state = raftpb::ConfState { voters: vec![1, 3, 4], ..Default::default() };
    assert_eq!(effects, [Effect::Configured { index: LogIndex(51), conf_state }]);
}

#[test]
fn configuration_changes_travel_in_etcds_numbers() {
    let mut leader = Alone::leader();
    let change = raftpb::ConfChange {
        id: 9,
        r#type: raftpb::ConfChangeType::ConfChangeAddLearnerNode.into(),
        node_id: 4,
        context: Bytes::from_static(b"{}"),
    };
    let effects = leader.take(Input::ProposeConfChange { id: RequestId(1), change: change.clone() });
    let entry = only_batch(&effects).entries[0].clone();
    assert_eq!(entry.r#type(), raftpb::EntryType::EntryConfChange);
    assert_eq!(raftpb::ConfChange::decode(entry.data).unwrap(), change);
    // A second one before the first is applied gives way to an empty entry.
    let effects = leader.take(Input::ProposeConfChange { id: RequestId(2), change: change.clone() });
    assert_eq!(only_batch(&effects).entries[0].r#type(), raftpb::EntryType::EntryNormal);
    let unknown = raftpb::ConfChange { r#type: 4, ..change };
    let effects = leader.take(Input::ProposeConfChange { id: RequestId(3), change: unknown });
    assert_eq!(effects, [Effect::Dropped { ids: vec![RequestId(3)], reason: DropReason::InvalidChange }]);
}

#[test]
fn proposals_that_cannot_be_taken_come_back() {
    let mut alone = Alone::among(3);
    let dropped = |reason| vec![Effect::Dropped { ids: vec![RequestId(1), RequestId(2)], reason }];
    let both = || Input::Propose(vec![proposal(1), proposal(2)]);
    assert_eq!(alone.take(both()), dropped(DropReason::NoLeader));
    let mut leader = Alone::leader();
    leader.take(Input::TransferLeader(MemberId(3)));
    assert_eq!(leader.take(both()), dropped(DropReason::Transferring));
}

#[test]
fn what_a_leader_alone_may_want_dies_with_its_term() {
    let ours = |term| Input::Propose(vec![Proposal { only_in: Some(Term(term)), ..proposal(1) }, proposal(2)]);
    let deposed = Effect::Dropped { ids: vec![RequestId(1)], reason: DropReason::Deposed };
    assert_eq!(only_batch(&Alone::leader().take(ours(2))).entries.len(), 2);
    let effects = Alone::leader().take(ours(1));
    assert!(effects.contains(&deposed), "an earlier term of its own: {effects:?}");
    assert_eq!(only_batch(&effects).entries.len(), 1);
    let effects = Alone::follower().take(ours(2));
    assert!(effects.contains(&deposed), "{effects:?}");
    assert_eq!(sent(&effects), [(Kind::MsgProp, 2)], "the other one is forwarded");
}

#[test]
fn too_many_unapplied_entries_turn_proposals_and_appends_away() {
    let options = Options { unapplied_bytes_max: 100, ..Options::new(MemberId(1)) };
    let mut single = Alone::with(1, &options);
    let batch = only_batch(&single.take(Input::Campaign));
    let effects = single.take(Input::Propose(vec![proposal(1)]));
    assert_eq!(effects, [Effect::Dropped { ids: vec![RequestId(1)], reason: DropReason::Overloaded }]);
    single.take(Input::Synced(batch.number));
    single.take(Input::Applied(LogIndex(2)));
    assert_eq!(batches(&single.take(Input::Propose(vec![proposal(1)]))).len(), 1);

    let mut follower = Alone::with(3, &options);
    follower.hear(append(3, 1, &[(4, 2)]));
    let refused = Effect::Refused { from: MemberId(2), reason: RefuseReason::Overloaded };
    assert_eq!(follower.hear(append(4, 2, &[(5, 2)])), [refused]);
}

#[test]
fn forwarded_payloads_travel_in_messages_of_bounded_size() {
    let mut follower = Alone::follower();
    let large = |id| Proposal::new(RequestId(id), Bytes::from(vec![0; 700 << 10]));
    let effects = follower.take(Input::Propose((1..=3).map(large).collect()));
    assert_eq!(sent(&effects), [(Kind::MsgProp, 2); 3]);
    let effects = follower.take(Input::Propose((1..=3).map(proposal).collect()));
    assert_eq!(sent(&effects), [(Kind::MsgProp, 2)]);
}

/// The leader's commit index for a follower that has everything up to `index`, without entries.
fn commit(index: u64, commit: u64) -> raftpb::Message {
    raftpb::Message { commit, ..append(index, 2, &[]) }
}

#[test]
fn news_of_a_commit_are_answered_only_if_the_leader_may_miss_an_acknowledgement() {
    let mut follower = Alone::follower();
    assert_eq!(sent(&follower.hear(commit(4, 4))), [], "entry 4 was acknowledged when it was durable");
    assert_eq!(follower.member.committed(), LogIndex(4));
    assert_eq!(sent(&follower.hear(commit(4, 4))), [(Kind::MsgAppResp, 2)], "no news: a question");
    let batch = only_batch(&follower.hear(append(4, 2, &[(5, 2)])));
    assert_eq!(sent(&follower.hear(commit(5, 5))), []);
    assert_eq!(sent(&follower.take(Input::Synced(batch.number))), [(Kind::MsgAppResp, 2)]);
}

#[test]
fn news_of_a_commit_beyond_what_was_acknowledged_are_answered() {
    let mut alone = Alone::among(3);
    let batch = only_batch(&alone.hear(raftpb::Message { commit: 0, ..append(3, 1, &[]) }));
    let promised = alone.take(Input::Synced(batch.number));
    assert_eq!(sent(&promised), [(Kind::MsgAppResp, 2)], "the founding entries were never acknowledged in this term");
}

fn read_request(from: u64, context: u64) -> raftpb::Message {
    let entries = vec![raftpb::Entry { data: Bytes::copy_from_slice(&context.to_be_bytes()), ..Default::default() }];
    raftpb::Message { entries, ..answer(Kind::MsgReadIndex, from, 0) }
}

fn confirmed(context: u64) -> raftpb::Message {
    let context = Bytes::copy_from_slice(&context.to_be_bytes());
    raftpb::Message { context, ..answer(Kind::MsgHeartbeatResp, 2, 2) }
}

#[test]
fn reads_that_come_during_a_round_share_the_next() {
    let mut leader = Alone::leader();
    let asked = [(Kind::MsgHeartbeat, 2), (Kind::MsgHeartbeat, 3)];
    assert_eq!(sent(&leader.take(Input::ReadIndex(RequestId(1)))), asked);
    assert_eq!(sent(&leader.take(Input::ReadIndex(RequestId(2)))), []);
    assert_eq!(sent(&leader.hear(read_request(3, 3))), []);
    assert_eq!(sent(&leader.hear(read_request(2, 4))), []);
    let effects = leader.hear(confirmed(1));
    assert!(effects.contains(&Effect::ReadReady { context: RequestId(1), index: LogIndex(4) }), "{effects:?}");
    assert_eq!(sent(&effects), asked, "one question for the three that waited");
    let question = effects.iter().find_map(|effect| match effect {
        Effect::Send(messages) => messages.iter().find(|message| message.r#type() == Kind::MsgHeartbeat),
        _ => None,
    });
    let context = question.unwrap().context.clone();
    let effects = leader.hear(raftpb::Message { context, ..answer(Kind::MsgHeartbeatResp, 2, 2) });
    assert!(effects.contains(&Effect::ReadReady { context: RequestId(2), index: LogIndex(4) }), "{effects:?}");
    assert_eq!(sent(&effects), [(Kind::MsgReadIndexResp, 2), (Kind::MsgReadIndexResp, 3)]);
}

#[test]
fn reads_behind_a_lost_round_wait_for_a_tick() {
    let mut leader = Alone::leader();
    leader.take(Input::ReadIndex(RequestId(1)));
    assert_eq!(sent(&leader.take(Input::ReadIndex(RequestId(2)))), []);
    leader.tick(1);
    let effects = leader.hear(confirmed(2));
    let ready = |id| Effect::ReadReady { context: RequestId(id), index: LogIndex(4) };
    assert!(effects.contains(&ready(1)) && effects.contains(&ready(2)), "{effects:?}");
}

#[test]
fn heirs_of_a_leader_that_has_gone_campaign_early() {
    let options = Options { election_jitter: Some(10..20), ..Options::new(MemberId(1)) };
    let mut heir = Alone::with(3, &options);
    let batch = only_batch(&heir.hear(answer(Kind::MsgHeartbeat, 2, 2)));
    heir.take(Input::Synced(batch.number));
    let vote = raftpb::Message { index: 9, log_term: 2, ..answer(Kind::MsgPreVote, 3, 3) };
    heir.take(Input::Gone(MemberId(2)));
    assert_eq!(sent(&heir.hear(vote.clone())), [], "it was heard a moment ago");
    heir.tick(2);
    heir.take(Input::Gone(MemberId(3)));
    assert_eq!(sent(&heir.hear(vote.clone())), [], "another member has gone");
    heir.take(Input::Gone(MemberId(2)));
    assert_eq!(sent(&heir.hear(vote)), [(Kind::MsgPreVoteResp, 3)]);
    assert_eq!(sent(&heir.tick(1)), []);
    assert_eq!(sent(&heir.tick(1)), [(Kind::MsgPreVote, 2), (Kind::MsgPreVote, 3)]);
}

#[test]
fn who_hears_a_leader_waits_for_it_though_it_cannot_be_dialled() {
    let mut follower = Alone::follower();
    for _ in 0..20 {
        follower.hear(answer(Kind::MsgHeartbeat, 2, 2));
        follower.tick(1);
        follower.take(Input::Gone(MemberId(2)));
        let effects = follower.tick(1);
        assert_eq!(sent(&effects), []);
    }
}

#[test]
fn a_proposal_that_did_not_get_away_goes_to_the_next_leader() {
    let mut follower = Alone::follower();
    let effects = follower.take(Input::Propose(vec![proposal(7)]));
    let [Effect::Send(messages)] = effects.as_slice() else { panic!("{effects:?}") };
    let [forwarded] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!((forwarded.r#type(), forwarded.to), (Kind::MsgProp, 2));
    assert_eq!(sent(&follower.take(Input::Undelivered(Box::new(forwarded.clone())))), []);
    assert_eq!(sent(&follower.tick(3)), [], "not to the leader that was not reached");
    let heard = follower.hear(answer(Kind::MsgHeartbeat, 3, 3));
    assert!(sent(&heard).contains(&(Kind::MsgProp, 3)), "{heard:?}");
    let again = follower.hear(answer(Kind::MsgHeartbeat, 3, 3));
    assert!(!sent(&again).contains(&(Kind::MsgProp, 3)), "once");
}

#[test]
fn a_log_that_lost_acknowledged_entries_is_noticed() {
    let mut follower = Alone::follower();
    let heartbeat = raftpb::Message { commit: 9, ..answer(Kind::MsgHeartbeat, 2, 2) };
    let lost = Effect::LogLost { acknowledged: LogIndex(9), last: LogIndex(4) };
    assert_eq!(follower.hear(heartbeat), [lost]);
}

#[test]
fn a_member_that_waits_at_the_start_can_be_made_impatient_but_not_a_candidate() {
    let mut alone = Alone::among(3);
    assert_eq!(alone.take(Input::AdvanceElection(1000)), []);
    assert_eq!(sent(&alone.take(Input::Tick)), [(Kind::MsgPreVote, 2), (Kind::MsgPreVote, 3)]);
}

/// Ticks before each of several elections that nobody answers, with an election timeout of ten ticks at the start and
/// `election_ticks` from then on.
fn waits(election_seed: u64, election_ticks: u32) -> Vec<usize> {
    let options =
        Options { election_jitter: Some(10..20), election_seed, pre_vote: false, ..Options::new(MemberId(1)) };
    let mut alone = Alone::with(3, &options);
    alone.take(Input::ElectionTicks(election_ticks));
    let wait = |_| {
        let mut waited = 0;
        loop {
            waited += 1;
            let effects = alone.take(Input::Tick);
            for batch in batches(&effects) {
                alone.take(Input::Synced(batch.number));
            }
            if effects.iter().any(|effect| matches!(effect, Effect::Standing { .. })) {
                return waited;
            }
        }
    };
    (0..100).map(wait).collect()
}

/// With one patience for all its elections, a member whose log is too short can stand first every time, and with every
/// new term keep those from standing who could win.
#[test]
fn patience_is_drawn_anew_for_each_election_from_the_seed() {
    let drawn = waits(7, 10);
    assert_eq!(drawn, waits(7, 10));
    assert_ne!(drawn, waits(8, 10));
    let distinct: BTreeSet<usize> = drawn.into_iter().collect();
    assert_eq!(distinct, (10..20).collect());
}

/// The raft crate counts to what an election timeout was at the start.
#[test]
fn an_election_timeout_that_changes_is_kept_by_whoever_waits_for_a_leader() {
    let drawn = waits(7, 10);
    let scaled = |ticks: usize| waits(7, u32::try_from(ticks).unwrap()).into_iter().zip(&drawn);
    for ticks in [5, 7, 13, 20, 100] {
        for (waited, drawn) in scaled(ticks) {
            let due = drawn * ticks / 10;
            assert!(waited.abs_diff(due) <= 1 + ticks / 10, "{waited} instead of {due} with {ticks}");
        }
    }
}

#[test]
fn an_election_timeout_that_changes_leaves_heartbeats_alone_and_moves_the_end_of_an_office() {
    for ticks in [5, 10, 30, 100] {
        let mut leader = Alone::leader();
        leader.take(Input::ElectionTicks(u32::try_from(ticks).unwrap()));
        let mut office = 0;
        // Nobody answers: it steps down at the second look whether anybody does, or at the first.
        loop {
            office += 1;
            let effects = leader.take(Input::Tick);
            if effects.iter().any(|effect| matches!(effect, Effect::Standing { .. })) {
                break;
            }
            let heartbeats = sent(&effects).iter().filter(|(kind, _)| *kind == Kind::MsgHeartbeat).count();
            assert_eq!(heartbeats, 2, "with tick {office} of an election timeout of {ticks}");
        }
        assert!((ticks - ticks / 10..=2 * ticks + 1).contains(&office), "{office} ticks with {ticks}");
    }
}

#[test]
fn several_inputs_share_a_batch() {
    let mut leader = Alone::leader();
    let mut effects = Vec::new();
    for id in 1..=3 {
        leader.member.accept(Input::Propose(vec![proposal(id)]), &mut effects);
    }
    assert_eq!(effects, []);
    leader.member.settle(&mut effects);
    assert_eq!(only_batch(&effects).entries.len(), 3);
}

#[test]
fn progress_names_the_best_successor() {
    let leader = Alone::leader();
    let progress = leader.member.progress();
    assert_eq!(progress.iter().map(|peer| (peer.id.0, peer.matched.0)).collect::<Vec<_>>(), [(2, 4), (3, 0)]);
    assert_eq!(leader.member.best_successor(), Some(MemberId(2)));
    assert_eq!(Alone::follower().member.best_successor(), None);
}
