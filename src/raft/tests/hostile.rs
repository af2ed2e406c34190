//! Whatever a peer sends, and in whatever order the disk and the state machine answer, a member does not panic.

use bytes::Bytes;
use proptest::prelude::*;

use crate::{
    pb::raftpb,
    raft::{Change, Effect, Fetched, Input, Member, Options, Proposal, Recovered},
    types::{LogIndex, MemberId, RequestId},
};

use super::founding::founding;

/// Numbers that meet one another, and a few that meet nothing.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0_u64..12, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn entries() -> impl Strategy<Value = Vec<raftpb::Entry>> {
    let ascending = (number(), number(), 0..6_usize).prop_map(|(first, term, count)| {
        let entry = |offset: u64| raftpb::Entry { term, index: first.wrapping_add(offset), ..Default::default() };
        (0..count as u64).map(entry).collect()
    });
    let entry = (0..4, number(), number(), prop::collection::vec(any::<u8>(), 0..6))
        .prop_map(|(r#type, term, index, data)| raftpb::Entry { r#type, term, index, data: data.into() });
    prop_oneof![3 => ascending, 1 => prop::collection::vec(entry, 0..3)]
}

fn snapshot() -> impl Strategy<Value = Option<raftpb::Snapshot>> {
    let ids = || prop::collection::vec(0_u64..5, 0..4);
    let metadata = (number(), number(), ids(), ids()).prop_map(|(index, term, voters, learners)| {
        let conf_state = raftpb::ConfState { voters, learners, ..Default::default() };
        raftpb::SnapshotMetadata { conf_state: Some(conf_state), index, term }
    });
    prop::option::of(metadata.prop_map(|metadata| raftpb::Snapshot { data: Bytes::new(), metadata: Some(metadata) }))
}

fn message() -> impl Strategy<Value = raftpb::Message> {
    let head = (0..20, 1_u64..4, number(), number(), number());
    let tail = (entries(), number(), snapshot(), any::<bool>(), number(), prop::collection::vec(any::<u8>(), 0..9));
    (head, tail).prop_map(|((r#type, from, term, log_term, index), tail)| {
        let (entries, commit, snapshot, reject, reject_hint, context) = tail;
        let context = context.into();
        raftpb::Message {
            r#type,
            to: 1,
            from,
            term,
            log_term,
            index,
            entries,
            commit,
            snapshot,
            reject,
            reject_hint,
            context,
        }
    })
}

/// What happens to the member, apart from messages.
#[derive(Clone, Debug)]
enum Event {
    Hear(Box<raftpb::Message>),
    Ticks(usize),
    Sync,
    Apply,
    Work(u64),
    Other(Input),
}

fn event() -> impl Strategy<Value = Event> {
    let proposal = Proposal::new(RequestId(1), Bytes::from_static(b"payload"));
    let change = |r#type, node_id| raftpb::ConfChange { r#type, node_id, ..Default::default() };
    let other = prop_oneof![
        Just(Input::Propose(vec![proposal])),
        (0..5, 0_u64..5)
            .prop_map(move |(kind, node)| Input::ProposeConfChange { id: RequestId(2), change: change(kind, node) }),
        Just(Input::ReadIndex(RequestId(3))),
        Just(Input::Campaign),
        (0_u64..5).prop_map(|to| Input::TransferLeader(MemberId(to))),
        (0_u64..5).prop_map(|to| Input::Unreachable(MemberId(to))),
        (0_u64..5).prop_map(|to| {
            let entries = vec![raftpb::Entry { data: Bytes::from_static(b"payload"), ..Default::default() }];
            let kind = raftpb::MessageType::MsgProp.into();
            Input::Undelivered(Box::new(raftpb::Message { r#type: kind, from: 1, to, entries, ..Default::default() }))
        }),
        (0_u64..5).prop_map(|peer| Input::Gone(MemberId(peer))),
        (0_u64..5, any::<bool>()).prop_map(|(to, delivered)| Input::SnapshotSent { to: MemberId(to), delivered }),
        number().prop_map(|index| Input::Compact(LogIndex(index))),
        number().prop_map(|number| Input::Fetched(Fetched { number, entries: None })),
        any::<usize>().prop_map(Input::AdvanceElection),
        any::<u32>().prop_map(Input::ElectionTicks),
    ];
    prop_oneof![
        12 => message().prop_map(|message| Event::Hear(Box::new(message))),
        2 => (1..25_usize).prop_map(Event::Ticks),
        3 => Just(Event::Sync),
        3 => Just(Event::Apply),
        3 => (0_u64..5).prop_map(Event::Work),
        4 => other.prop_map(Event::Other),
    ]
}

/// A member whose disk and state machine answer when told to.
struct Victim {
    member: Member,
    effects: Vec<Effect>,
    unsynced: Vec<u64>,
    unapplied: Vec<Input>,
}

impl Victim {
    fn among(voters: u64) -> Self {
        let members: Vec<_> = (1..=voters).map(|id| (MemberId(id), Bytes::from_static(b"{}"))).collect();
        let founding = founding(&members);
        let options = Options { kept_bytes_max: 0, unapplied_bytes_max: 4000, ..Options::new(MemberId(1)) };
        let member = Member::new(&options, Recovered::unapplied(founding.hard_state, founding.entries)).unwrap();
        let mut victim = Self { member, effects: Vec::new(), unsynced: Vec::new(), unapplied: Vec::new() };
        victim.member.settle(&mut victim.effects);
        victim.note_effects();
        victim.apply();
        victim
    }

    fn take(&mut self, input: Input) {
        self.member.handle(input, &mut self.effects);
        self.note_effects();
    }

    fn note_effects(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Persist(batch) => {
                    self.unsynced.extend(batch.must_sync.then_some(batch.number));
                    let metadata = batch.snapshot.and_then(|snapshot| snapshot.metadata);
                    self.unapplied.extend(metadata.map(|metadata| Input::Applied(LogIndex(metadata.index))));
                }
                Effect::Apply(entries) => {
                    for entry in entries {
                        let index = LogIndex(entry.index);
                        let change = Change::AddVoter(MemberId(entry.index % 4 + 1));
                        self.unapplied.extend((entry.r#type == 1).then_some(Input::ApplyConfChange { index, change }));
                        self.unapplied.push(Input::Applied(index));
                    }
                }
                _ => {}
            }
        }
    }

    fn apply(&mut self) {
        for input in std::mem::take(&mut self.unapplied) {
            self.take(input);
        }
    }

    fn sync(&mut self) {
        for number in std::mem::take(&mut self.unsynced) {
            self.take(Input::Synced(number));
        }
    }

    /// Becomes the leader, if the others were to vote for it.
    fn win(&mut self) {
        self.take(Input::Campaign);
        for kind in [raftpb::MessageType::MsgPreVoteResp, raftpb::MessageType::MsgVoteResp] {
            self.sync();
            for from in [2, 3] {
                let term = self.member.standing().term.0 + u64::from(kind == raftpb::MessageType::MsgPreVoteResp);
                let vote = raftpb::Message { r#type: kind.into(), to: 1, from, term, ..Default::default() };
                self.take(Input::FromPeer(Box::new(vote)));
            }
        }
    }

    fn suffer(&mut self, event: Event) {
        match event {
            Event::Hear(message) => self.take(Input::FromPeer(message)),
            Event::Ticks(n) => (0..n).for_each(|_| self.take(Input::Tick)),
            Event::Sync => self.sync(),
            Event::Apply => self.apply(),
            Event::Work(0) => self.win(),
            Event::Work(n) => self.take(Input::Applied(LogIndex(n))),
            Event::Other(input) => self.take(input),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_a_peer_sends_makes_a_member_panic(
        voters in 1_u64..4, events in prop::collection::vec(event(), 1..80)
    ) {
        let mut victim = Victim::among(voters);
        for event in events {
            victim.suffer(event);
        }
        prop_assert!(victim.member.committed() <= victim.member.last_index());
    }
}
