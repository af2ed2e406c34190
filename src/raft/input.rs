//! What can happen to a member.

use bytes::Bytes;

use crate::{
    pb::raftpb,
    types::{LogIndex, MemberId, RequestId, Term},
};

/// Everything that can happen to a member. Time is one more input.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// One tick of the configured length (100 ms unless `heartbeat-interval` says otherwise) has passed.
    Tick,
    /// Lets the election timeout run down by this many ticks at once (`initial-election-tick-advance`), never far
    /// enough to start an election by itself. Ignored by a leader.
    AdvanceElection(usize),
    /// An election timeout has so many ticks from now on.
    ElectionTicks(u32),
    /// A peer's message, not yet checked.
    FromPeer(Box<raftpb::Message>),
    /// Payloads to append, in this order. Whatever cannot be taken comes back as [`super::Effect::Dropped`]; what a
    /// follower forwards can still be lost on its way without notice.
    Propose(Vec<Proposal>),
    /// A configuration change to append. Whether it takes effect is decided when it is applied.
    ProposeConfChange {
        /// Ties a refusal to the proposal.
        id: RequestId,
        /// The change in etcd's numbers; its context is kept as it is.
        change: raftpb::ConfChange,
    },
    /// Asks for an index such that a read after applying it is linearizable. The context must be unique across
    /// members and restarts: use a request ID. Held and retried until answered or cancelled.
    ReadIndex(RequestId),
    /// Nobody waits for this read any more.
    CancelRead(RequestId),
    /// The batch of this number and all before it are durable.
    Synced(u64),
    /// The state machine has applied every entry up to here, configuration changes among them handed over first.
    Applied(LogIndex),
    /// What applying the configuration change at `index` decided.
    ApplyConfChange {
        /// The entry's position.
        index: LogIndex,
        /// Its outcome.
        change: Change,
    },
    /// Entries up to here are no longer needed: a peer further behind gets a snapshot. Bounded by what is applied.
    Compact(LogIndex),
    /// Answers [`super::Effect::Fetch`].
    Fetched(Fetched),
    /// Asks the leader to hand over to this member.
    TransferLeader(MemberId),
    /// Starts an election now, if this member may.
    Campaign,
    /// A proposal that this member has forwarded, and that has not left it: nothing of it was sent.
    Undelivered(Box<raftpb::Message>),
    /// A message to this peer could not be delivered.
    Unreachable(MemberId),
    /// Nobody listens any more where this peer listened: its process has probably ended. Told again while it stays so.
    Gone(MemberId),
    /// The transfer of a snapshot to this peer has ended.
    SnapshotSent {
        /// The receiver.
        to: MemberId,
        /// Whether the receiver has taken it.
        delivered: bool,
    },
}

/// One opaque payload to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Comes back if the proposal is dropped; not part of the entry.
    pub id: RequestId,
    /// The entry's data.
    pub payload: Bytes,
    /// The term whose leader alone may append it: it is never forwarded, and dropped once this member does not lead in
    /// this term. `None`: whoever leads.
    pub only_in: Option<Term>,
}

impl Proposal {
    /// For whoever leads.
    pub fn new(id: RequestId, payload: impl Into<Bytes>) -> Self {
        Self { id, payload: payload.into(), only_in: None }
    }
}

/// The outcome of applying a configuration change, as the raft configuration sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a voter, or promotes a learner.
    AddVoter(MemberId),
    /// Adds a learner.
    AddLearner(MemberId),
    /// Removes a voter or a learner.
    Remove(MemberId),
    /// The configuration stays: an update of addresses, or a change that was refused.
    None,
}

/// Entries read back from the log files.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// The number of the [`super::FetchRequest`].
    pub number: u64,
    /// The entries from the first one asked for, without gaps, fewer than asked for if their bytes add up; `None` if
    /// they are gone or unreadable, which makes the peer that needs them get a snapshot.
    pub entries: Option<Vec<raftpb::Entry>>,
}
