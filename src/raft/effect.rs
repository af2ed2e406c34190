//! What a member can want done.

use thiserror::Error;

use crate::{
    pb::raftpb,
    types::{LogIndex, MemberId, RequestId, Term},
};

/// Everything a member can want done, performed in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write this to the log. Batches are written in the order of their numbers; see [`LogBatch`].
    Persist(LogBatch),
    /// Hand these to the transport, in order. A `MsgSnap` carries metadata only: the driver makes a fresh snapshot at
    /// an index not below it, puts its own metadata in, sends it and reports [`super::Input::SnapshotSent`].
    Send(Vec<raftpb::Message>),
    /// These entries are committed and durable here: apply them, in order, then report [`super::Input::Applied`].
    Apply(Vec<raftpb::Entry>),
    /// The read of this context is linearizable once `index` is applied.
    ReadReady {
        /// The context given with [`super::Input::ReadIndex`].
        context: RequestId,
        /// Wait for this index to be applied.
        index: LogIndex,
    },
    /// This read will not be answered: too many are waiting. Nothing is known about the leader.
    ReadLost(RequestId),
    /// Role, term or leader have changed.
    Standing {
        /// Before.
        from: Standing,
        /// Now.
        to: Standing,
    },
    /// The commit index has advanced.
    Committed(LogIndex),
    /// These proposals were not appended and never will be.
    Dropped {
        /// The identifiers given with the proposals.
        ids: Vec<RequestId>,
        /// Why.
        reason: DropReason,
    },
    /// The raft configuration after the configuration change at `index`; voters and learners in ascending order.
    Configured {
        /// The entry that changed it.
        index: LogIndex,
        /// The configuration from here on.
        conf_state: raftpb::ConfState,
    },
    /// Read entries back from the log files for a peer that lags, and answer with [`super::Input::Fetched`].
    Fetch(FetchRequest),
    /// A peer's message was thrown away unread.
    Refused {
        /// The sender it names.
        from: MemberId,
        /// What is wrong with it.
        reason: RefuseReason,
    },
    /// A leader knows that this member acknowledged entries its log no longer has. Going on would break promises made
    /// to the cluster: stop the member; it has to be removed from the cluster and added again.
    LogLost {
        /// What this member once acknowledged.
        acknowledged: LogIndex,
        /// Where its log ends now.
        last: LogIndex,
    },
}

/// What one round of the protocol wants on disk, in this order: snapshot, entries, hard state.
///
/// If `must_sync` is set the driver reports [`super::Input::Synced`] with `number` once the batch and all before it
/// are durable (one sync may cover many batches). Otherwise the batch may stay in the page cache and needs no report.
///
/// With a snapshot, the state machine must have installed it durably before the batch counts as synced (the order of
/// steps is in `ARCHITECTURE.md`), and [`super::Input::Applied`] of its index follows the report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogBatch {
    /// Rises with every batch that must be synced, not contiguously; 0 for others.
    pub number: u64,
    /// A snapshot received from the leader: replaces the state and the whole log before `entries`.
    pub snapshot: Option<raftpb::Snapshot>,
    /// Entries to append. The first may stand before the log's end: everything from its index on is replaced.
    pub entries: Vec<raftpb::Entry>,
    /// Term, vote and commit, if one of them changed.
    pub hard_state: Option<raftpb::HardState>,
    /// Whether promises depend on this batch.
    pub must_sync: bool,
}

/// Entries wanted back from the log files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// Identifies the request.
    pub number: u64,
    /// The first entry wanted.
    pub first: LogIndex,
    /// The last entry wanted.
    pub last: LogIndex,
    /// Stop after the entry that makes the encoded entries exceed this.
    pub bytes_max: usize,
}

/// What a member is to its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether an election would succeed.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Who leads, as this member sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The current term.
    pub term: Term,
    /// This member's role in it.
    pub role: Role,
    /// The leader, if known.
    pub leader: Option<MemberId>,
}

/// Why a proposal was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DropReason {
    /// Nobody leads.
    #[error("no leader to take the proposal")]
    NoLeader,
    /// Leadership is being handed over, or this member was removed.
    #[error("leadership is being transferred")]
    Transferring,
    /// This member does not lead, or not in the term that the proposal is for.
    #[error("this member is not the leader of the proposal's term")]
    Deposed,
    /// The state machine is too far behind the log.
    #[error("too many entries wait to be applied")]
    Overloaded,
    /// Not a configuration change etcd knows.
    #[error("not a valid configuration change")]
    InvalidChange,
}

/// Why a peer's message was thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RefuseReason {
    /// A type that never travels, or one nobody knows.
    #[error("message type {0} does not travel between members")]
    Type(i32),
    /// Sender or receiver make no sense.
    #[error("message is not from a peer to this member")]
    Address,
    /// A field contradicts the type of the message.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// A configuration change this member cannot execute.
    #[error("joint configuration changes are not supported")]
    JointChange,
    /// The state machine is too far behind the log; the sender tries again.
    #[error("too many entries wait to be applied")]
    Overloaded,
    /// This member was removed and takes no more proposals.
    #[error("this member is leaving the cluster")]
    Leaving,
    /// The log is waiting for its disk; no election is started meanwhile.
    #[error("the log waits for its disk")]
    DiskStalled,
}
