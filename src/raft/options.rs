//! How a member is set up, and what it starts from.

use thiserror::Error;

use crate::{
    pb::raftpb,
    types::{LogIndex, MemberId, Term},
    wal::TermRun,
};

/// Ticks between a leader's heartbeats.
pub const HEARTBEAT_TICKS_DEFAULT: usize = 1;
/// Ticks without a leader before an election.
pub const ELECTION_TICKS_DEFAULT: usize = 10;
/// Entries not yet applied may hold this many bytes in memory before proposals and appends are refused: at 50 MB/s
/// of writes the state machine may lag by more than two seconds.
pub const UNAPPLIED_BYTES_MAX_DEFAULT: usize = 128 << 20;
/// Applied entries kept in memory for followers that lag a little; older ones are read back from the log files.
pub const KEPT_BYTES_MAX_DEFAULT: usize = 8 << 20;

/// How a member behaves. Ticks must be the same on every member of a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// This member.
    pub id: MemberId,
    /// See [`HEARTBEAT_TICKS_DEFAULT`].
    pub heartbeat_ticks: usize,
    /// See [`ELECTION_TICKS_DEFAULT`]. Must exceed `heartbeat_ticks`.
    pub election_ticks: usize,
    /// The random part of the election timeout: at least `start`, below `end`; `None` means one to two election
    /// timeouts. It is drawn anew with every term, role and leader.
    pub election_jitter: Option<std::ops::Range<usize>>,
    /// What it is drawn from, together with `id`: another one for each start, so that two starts have nothing in common.
    pub election_seed: u64,
    /// Ask before starting an election, so that a member coming back does not disturb the cluster.
    pub pre_vote: bool,
    /// See [`UNAPPLIED_BYTES_MAX_DEFAULT`].
    pub unapplied_bytes_max: usize,
    /// See [`KEPT_BYTES_MAX_DEFAULT`].
    pub kept_bytes_max: usize,
}

impl Options {
    /// etcd's defaults for this member.
    pub fn new(id: MemberId) -> Self {
        Self {
            id,
            heartbeat_ticks: HEARTBEAT_TICKS_DEFAULT,
            election_ticks: ELECTION_TICKS_DEFAULT,
            election_jitter: None,
            election_seed: 0,
            pre_vote: true,
            unapplied_bytes_max: UNAPPLIED_BYTES_MAX_DEFAULT,
            kept_bytes_max: KEPT_BYTES_MAX_DEFAULT,
        }
    }
}

/// What a member starts from: the state machine's position and the log behind it.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The last hard state of the log. A commit index below `applied` is raised: it need not have been synced.
    pub hard_state: raftpb::HardState,
    /// The configuration at `applied`. Empty when nothing was applied: the founding entries fill it.
    pub conf_state: raftpb::ConfState,
    /// The state machine has applied, durably, everything up to here.
    pub applied: LogIndex,
    /// Where the log starts: the last entry (or snapshot) *before* the first readable one, with its term. Zeros for a
    /// log that is complete.
    pub start: (LogIndex, Term),
    /// Terms of the entries after `start`, oldest first.
    pub terms: Vec<TermRun>,
    /// The last entry; the same as `start` if there is none.
    pub last: LogIndex,
    /// Entries up to the last without gaps, beginning at or before `applied + 1`; earlier ones stay on disk.
    pub entries: Vec<raftpb::Entry>,
}

impl Recovered {
    /// A complete log of which nothing was applied: a new cluster's founding entries, or nothing for a new member of
    /// an old cluster.
    pub fn unapplied(hard_state: raftpb::HardState, entries: Vec<raftpb::Entry>) -> Self {
        let mut terms: Vec<TermRun> = Vec::new();
        for entry in &entries {
            if terms.last().is_none_or(|run| run.term.0 != entry.term) {
                terms.push(TermRun { first: LogIndex(entry.index), term: Term(entry.term) });
            }
        }
        let last = LogIndex(entries.last().map_or(0, |entry| entry.index));
        Self { hard_state, terms, last, entries, ..Self::default() }
    }
}

/// The recovered log and state contradict each other, or raft.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RecoveryError {
    /// Options that cannot work.
    #[error("raft options: {0}")]
    Options(String),
    /// The log ends before what the state machine has applied.
    #[error(
        "the state has applied entry {applied} but the log ends at {last}: the log lost its end; \
         remove this member from the cluster and add it again, or restore from a snapshot"
    )]
    LogBehindState {
        /// The state's position.
        applied: LogIndex,
        /// The log's end.
        last: LogIndex,
    },
    /// The log starts after what the state machine needs next.
    #[error(
        "the log starts after entry {start} but the state has applied only {applied}: entries between them are gone; \
         remove this member from the cluster and add it again, or restore from a snapshot"
    )]
    StateBehindLog {
        /// The state's position.
        applied: LogIndex,
        /// What the log starts after.
        start: LogIndex,
    },
    /// The log lost committed entries.
    #[error(
        "entry {commit} was committed but the log ends at {last}: the log lost acknowledged entries; \
         remove this member from the cluster and add it again, or restore from a snapshot"
    )]
    CommitBeyondLog {
        /// The hard state's commit index.
        commit: LogIndex,
        /// The log's end.
        last: LogIndex,
    },
    /// Entries do not follow one another.
    #[error("log entry {index} of term {term} does not follow the entry before it: {what}")]
    Entry {
        /// The offending entry.
        index: LogIndex,
        /// Its term.
        term: Term,
        /// The rule it breaks.
        what: &'static str,
    },
    /// A configuration this member cannot run with.
    #[error("the stored raft configuration cannot be used: {0}")]
    ConfState(String),
}
