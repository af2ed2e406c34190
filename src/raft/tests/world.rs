//! Members with disks, state machines and a network, all in one thread and all from one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use prost::Message as _;

use crate::{
    pb::raftpb,
    raft::{Change, Effect, Fetched, Input, LogBatch, Member, Options, Proposal, Role, Standing},
    types::{LogIndex, MemberId, RequestId},
};

use super::{disk::Disk, founding::founding};

/// A seeded source of chance (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n
    }

    pub(super) fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let n = u64::try_from(from.len()).unwrap();
        (n > 0).then(|| from[usize::try_from(self.below(n)).unwrap()])
    }
}

/// What a member has applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Machine {
    pub(super) applied: u64,
    pub(super) term: u64,
    pub(super) payloads: Vec<Bytes>,
    pub(super) voters: BTreeSet<u64>,
    pub(super) learners: BTreeSet<u64>,
    /// A removed number never comes back.
    pub(super) removed: BTreeSet<u64>,
}

impl Machine {
    pub(super) fn conf_state(&self) -> raftpb::ConfState {
        raftpb::ConfState {
            voters: self.voters.iter().copied().collect(),
            learners: self.learners.iter().copied().collect(),
            ..Default::default()
        }
    }

    /// The rules of membership, reduced to what raft sees of them.
    fn decide(&mut self, change: &raftpb::ConfChange) -> Change {
        let node = change.node_id;
        let member = MemberId(node);
        match raftpb::ConfChangeType::try_from(change.r#type).unwrap() {
            _ if self.removed.contains(&node) => Change::None,
            raftpb::ConfChangeType::ConfChangeAddNode if !self.voters.contains(&node) => {
                self.learners.remove(&node);
                self.voters.insert(node);
                Change::AddVoter(member)
            }
            raftpb::ConfChangeType::ConfChangeAddLearnerNode if !self.knows(node) => {
                self.learners.insert(node);
                Change::AddLearner(member)
            }
            raftpb::ConfChangeType::ConfChangeRemoveNode if self.knows(node) && !self.is_last(node) => {
                self.learners.remove(&node);
                self.voters.remove(&node);
                self.removed.insert(node);
                Change::Remove(member)
            }
            _ => Change::None,
        }
    }

    fn knows(&self, node: u64) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    fn is_last(&self, node: u64) -> bool {
        self.voters.len() == 1 && self.voters.contains(&node)
    }
}

pub(super) struct Node {
    pub(super) member: Option<Member>,
    pub(super) machine: Machine,
    disk: Disk,
    /// Batches on their way to the disk, oldest first.
    pending: Vec<LogBatch>,
    pub(super) stalled: bool,
}

/// The state a snapshot message stands for.
fn received(snapshots: &[Machine], snapshot: &raftpb::Snapshot) -> Machine {
    let number = u64::from_be_bytes(snapshot.data.as_ref().try_into().unwrap());
    snapshots[usize::try_from(number).unwrap()].clone()
}

/// A group of members and what is known about them from the outside.
pub(super) struct World {
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) chance: Chance,
    pub(super) network: Vec<raftpb::Message>,
    /// Groups of members that hear one another; empty means everybody.
    pub(super) partition: Vec<BTreeSet<u64>>,
    /// What happened since the last look.
    pub(super) events: Vec<String>,
    pub(super) kept_bytes_max: usize,
    inputs: VecDeque<(u64, Input)>,
    busy: bool,
    snapshots: Vec<Machine>,
    /// Every entry any member applied, by index.
    applied: BTreeMap<u64, raftpb::Entry>,
    /// The configuration after each change, by index.
    configurations: BTreeMap<u64, raftpb::ConfState>,
    leaders: BTreeMap<u64, u64>,
    /// Reads that wait, with what was committed anywhere when they came.
    reads: BTreeMap<(u64, RequestId), u64>,
    pub(super) reads_answered: u64,
    proposals: u64,
}

impl World {
    /// `members` founders numbered from 1, not yet started when `seed` has to vary their patience.
    pub(super) fn new(seed: u64, members: u64) -> Self {
        let mut world = Self {
            nodes: BTreeMap::new(),
            chance: Chance(seed),
            network: Vec::new(),
            partition: Vec::new(),
            events: Vec::new(),
            kept_bytes_max: 1 << 20,
            inputs: VecDeque::new(),
            busy: false,
            snapshots: Vec::new(),
            applied: BTreeMap::new(),
            configurations: BTreeMap::new(),
            leaders: BTreeMap::new(),
            reads: BTreeMap::new(),
            reads_answered: 0,
            proposals: 0,
        };
        let founders: Vec<_> = (1..=members).map(|id| (MemberId(id), Bytes::from_static(b"{}"))).collect();
        let founding = founding(&founders);
        for id in 1..=members {
            world.add(id, Disk::new(id, &founding.entries, founding.hard_state));
        }
        world
    }

    fn add(&mut self, id: u64, disk: Disk) {
        let machine = disk.machine.clone();
        self.nodes.insert(id, Node { member: None, machine, disk, pending: Vec::new(), stalled: false });
        self.start(id);
    }

    /// A new member with an empty log.
    pub(super) fn join(&mut self, id: u64) {
        self.add(id, Disk::new(id, &[], raftpb::HardState::default()));
    }

    /// Starts a member from what is on its disk.
    pub(super) fn start(&mut self, id: u64) {
        let kept_bytes_max = self.kept_bytes_max;
        let node = self.nodes.get_mut(&id).unwrap();
        let patience = 10 + usize::try_from(id % 10).unwrap();
        let options =
            Options { election_jitter: Some(patience..patience + 1), kept_bytes_max, ..Options::new(MemberId(id)) };
        let recovered = node.disk.recover();
        node.machine = node.disk.machine.clone();
        node.member = Some(Member::new(&options, recovered).unwrap());
        let mut effects = Vec::new();
        node.member.as_mut().unwrap().settle(&mut effects);
        self.perform(id, effects);
    }

    /// Cuts a member's power while some of its batches are on their way to the disk.
    pub(super) fn crash(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        if node.member.take().is_none() {
            return;
        }
        node.stalled = false;
        let on_their_way = self.chance.below(u64::try_from(node.pending.len()).unwrap() + 1);
        node.pending.truncate(usize::try_from(on_their_way).unwrap());
        let batches = std::mem::take(&mut node.pending);
        let snapshots = &self.snapshots;
        node.disk.crash(&batches, &|snapshot| received(snapshots, snapshot), &mut self.chance);
        self.reads.retain(|(reader, _), _| *reader != id);
    }

    /// The state machine's own disk catches up with it, and the log before `keep` entries goes.
    pub(super) fn persist_machine(&mut self, id: u64, keep: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        if !node.pending.is_empty() || node.member.is_none() || node.machine.applied == 0 {
            return;
        }
        let compact = node.machine.applied.saturating_sub(keep);
        node.disk.persist(&node.machine, compact);
        self.input(id, Input::Compact(LogIndex(compact)));
    }

    /// Hands an input over, and what its effects give rise to after it.
    pub(super) fn input(&mut self, id: u64, input: Input) {
        self.inputs.push_back((id, input));
        if std::mem::replace(&mut self.busy, true) {
            return;
        }
        while let Some((id, input)) = self.inputs.pop_front() {
            let mut effects = Vec::new();
            if let Some(member) = self.nodes.get_mut(&id).and_then(|node| node.member.as_mut()) {
                member.handle(input, &mut effects);
            }
            self.perform(id, effects);
        }
        self.busy = false;
    }

    fn perform(&mut self, id: u64, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist(batch) => self.nodes.get_mut(&id).unwrap().pending.push(batch),
                Effect::Send(messages) => self.send(id, messages),
                Effect::Apply(entries) => self.apply(id, entries),
                Effect::ReadReady { context, index } => self.read_ready(id, context, index.0),
                Effect::Standing { to, .. } => self.standing(id, to),
                Effect::Fetch(request) => {
                    self.event(id, &format!("fetches {} to {}", request.first, request.last));
                    let entries = self.nodes[&id].disk.fetch(request.first, request.last, request.bytes_max);
                    self.input(id, Input::Fetched(Fetched { number: request.number, entries }));
                }
                Effect::Dropped { ids, reason } => {
                    for dropped in ids {
                        self.event(id, &format!("dropped {dropped}: {reason}"));
                    }
                }
                Effect::Configured { index, conf_state } => {
                    assert_eq!(conf_state, self.configurations[&index.0], "m{id} at {index}");
                    let text = format!("voters {:?} learners {:?}", conf_state.voters, conf_state.learners);
                    self.event(id, &text);
                }
                Effect::Refused { from, reason } => self.event(id, &format!("refused m{from}: {reason}")),
                Effect::ReadLost(context) => self.event(id, &format!("read {context} lost")),
                Effect::LogLost { acknowledged, last } => panic!("m{id} lost its log: {acknowledged} {last}"),
                Effect::Committed(_) => {}
            }
        }
    }

    fn event(&mut self, id: u64, text: &str) {
        self.events.push(format!("m{id}: {text}"));
    }

    fn standing(&mut self, id: u64, to: Standing) {
        let text = match (to.role, to.leader) {
            (Role::Leader, _) => {
                let other = self.leaders.insert(to.term.0, id);
                assert!(other.is_none_or(|other| other == id), "two leaders of term {}", to.term);
                format!("leads term {}", to.term)
            }
            (Role::Follower, Some(leader)) => format!("follows m{leader} in term {}", to.term),
            (Role::Follower, None) => format!("has no leader in term {}", to.term),
            (Role::PreCandidate, _) => format!("asks for pre-votes in term {}", to.term),
            (Role::Candidate, _) => format!("asks for votes in term {}", to.term),
        };
        self.event(id, &text);
    }

    fn send(&mut self, id: u64, messages: Vec<raftpb::Message>) {
        for mut message in messages {
            if let Some(metadata) = message.snapshot.as_mut().and_then(|snapshot| snapshot.metadata.as_mut()) {
                let machine = self.nodes[&id].machine.clone();
                assert!(machine.applied >= metadata.index, "the snapshot is ahead of the state machine");
                metadata.index = machine.applied;
                metadata.term = machine.term;
                metadata.conf_state = Some(machine.conf_state());
                let number = self.snapshots.len() as u64;
                self.snapshots.push(machine);
                message.snapshot.as_mut().unwrap().data = number.to_be_bytes().to_vec().into();
            }
            self.network.push(message);
        }
    }

    fn apply(&mut self, id: u64, entries: Vec<raftpb::Entry>) {
        let last = entries.last().unwrap().index;
        for entry in entries {
            let node = self.nodes.get_mut(&id).unwrap();
            assert_eq!(entry.index, node.machine.applied + 1, "m{id} applies in order");
            assert!(node.disk.holds(&entry), "m{id} applies entry {} before it is durable", entry.index);
            node.machine.applied = entry.index;
            node.machine.term = entry.term;
            let known = self.applied.entry(entry.index).or_insert_with(|| entry.clone());
            assert_eq!(*known, entry, "m{id} applies another entry than a peer");
            if entry.r#type == 1 {
                let change = raftpb::ConfChange::decode(entry.data.clone()).unwrap();
                let change = node.machine.decide(&change);
                self.configurations.insert(entry.index, node.machine.conf_state());
                self.input(id, Input::ApplyConfChange { index: LogIndex(entry.index), change });
            } else if !entry.data.is_empty() {
                node.machine.payloads.push(entry.data);
            }
        }
        self.input(id, Input::Applied(LogIndex(last)));
    }

    pub(super) fn propose(&mut self, id: u64) {
        self.proposals += 1;
        let payload = Bytes::from(format!("payload {}", self.proposals));
        self.input(id, Input::Propose(vec![Proposal::new(RequestId(self.proposals), payload)]));
    }

    pub(super) fn propose_change(&mut self, id: u64, kind: raftpb::ConfChangeType, node: u64) {
        self.proposals += 1;
        let context = Bytes::from_static(b"{\"id\":7}");
        let change = raftpb::ConfChange { id: self.proposals, r#type: kind.into(), node_id: node, context };
        self.input(id, Input::ProposeConfChange { id: RequestId(self.proposals), change });
    }

    /// What any member knows to be committed.
    fn committed(&self) -> u64 {
        self.applied.keys().next_back().copied().unwrap_or(0)
    }

    pub(super) fn read(&mut self, id: u64) {
        if self.nodes[&id].member.is_none() {
            return;
        }
        self.proposals += 1;
        let context = RequestId(id << 48 | self.proposals);
        let committed = self.committed();
        self.reads.insert((id, context), committed);
        self.input(id, Input::ReadIndex(context));
    }

    fn read_ready(&mut self, id: u64, context: RequestId, index: u64) {
        let committed = self.reads.remove(&(id, context)).expect("a read is answered once");
        assert!(index >= committed, "m{id}: read at {index} misses what was applied at {committed}");
        self.reads_answered += 1;
        self.event(id, &format!("read ready at {index}"));
    }

    /// Reads of members of the group that wait.
    pub(super) fn reads_waiting(&self) -> usize {
        let newest = self.newest();
        self.reads.keys().filter(|(id, _)| newest.knows(*id)).count()
    }

    fn newest(&self) -> &Machine {
        self.nodes.values().map(|node| &node.machine).max_by_key(|machine| machine.applied).unwrap()
    }

    /// The disk of `id` finishes the first `n` batches.
    pub(super) fn sync(&mut self, id: u64, n: usize) {
        let node = self.nodes.get_mut(&id).unwrap();
        let batches: Vec<_> = node.pending.drain(..n.min(node.pending.len())).collect();
        if batches.is_empty() {
            return;
        }
        let snapshots = &self.snapshots;
        let installed = node.disk.sync(&batches, &|snapshot| received(snapshots, snapshot));
        if let Some(machine) = &installed {
            node.machine = machine.clone();
        }
        if let Some(batch) = batches.iter().rfind(|batch| batch.must_sync) {
            self.input(id, Input::Synced(batch.number));
        }
        if let Some(machine) = installed {
            self.event(id, &format!("installed a snapshot at {}", machine.applied));
            self.input(id, Input::Applied(LogIndex(machine.applied)));
        }
    }

    pub(super) fn sync_all(&mut self) {
        for id in self.ids() {
            while !self.nodes[&id].stalled && !self.nodes[&id].pending.is_empty() {
                self.sync(id, usize::MAX);
            }
        }
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    fn connected(&self, a: u64, b: u64) -> bool {
        self.partition.is_empty() || self.partition.iter().any(|group| group.contains(&a) && group.contains(&b))
    }

    /// Hands one message to its receiver, if it can be reached.
    pub(super) fn deliver(&mut self, message: raftpb::Message) {
        let (from, to) = (message.from, message.to);
        let reachable = self.connected(from, to) && self.nodes.get(&to).is_some_and(|node| node.member.is_some());
        if !reachable {
            self.lose(&message);
            return self.input(from, Input::Unreachable(MemberId(to)));
        }
        let is_snapshot = message.snapshot.is_some();
        self.input(to, Input::FromPeer(Box::new(message)));
        if is_snapshot {
            self.input(from, Input::SnapshotSent { to: MemberId(to), delivered: true });
        }
    }

    /// A message gets lost. The sender of a snapshot always hears of it.
    pub(super) fn lose(&mut self, message: &raftpb::Message) {
        if message.snapshot.is_some() {
            self.input(message.from, Input::SnapshotSent { to: MemberId(message.to), delivered: false });
        }
    }

    /// Delivers and syncs until nothing moves.
    pub(super) fn settle(&mut self) {
        loop {
            self.sync_all();
            if self.network.is_empty() {
                return;
            }
            for message in std::mem::take(&mut self.network) {
                self.deliver(message);
            }
        }
    }

    pub(super) fn tick(&mut self, ids: &[u64]) {
        for id in ids {
            self.input(*id, Input::Tick);
        }
    }

    /// Ticks everybody and lets everything settle, `n` times.
    pub(super) fn run(&mut self, n: usize) {
        for _ in 0..n {
            self.tick(&self.ids());
            self.settle();
        }
    }

    pub(super) fn leader(&self) -> Option<u64> {
        let leads = |node: &&u64| self.nodes[*node].member.as_ref().is_some_and(|m| m.standing().role == Role::Leader);
        let leaders: Vec<_> = self.nodes.keys().filter(leads).collect();
        leaders.into_iter().max_by_key(|id| self.nodes[*id].member.as_ref().unwrap().standing().term).copied()
    }

    /// All members that run and belong to the group have applied everything anybody applied.
    pub(super) fn assert_agreement(&self) {
        let newest = self.newest();
        for (id, node) in self.nodes.iter().filter(|(id, node)| node.member.is_some() && newest.knows(**id)) {
            assert_eq!(node.machine, *newest, "m{id}");
        }
        assert_eq!(newest.applied, self.committed());
    }
}
