//! Bugs put in on purpose. Each sits in what the simulator does in place of threads, disks, sockets and clocks, where the
//! real member would have it in the code that the simulator replaces, or is damage that a bug deeper down would do.

/// A known bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The log's thread reports a batch durable that it has only written.
    AcknowledgesBeforeSync,
    /// A lone voter counts its own entries as durable when they are made (etcd 3.5.0 to 3.5.2).
    LosesWritesAlone,
    /// A read of the leader does not ask whether it still leads.
    SkipsReadIndex,
    /// After a pause a leader trusts its office for a while.
    ReadsStaleAfterPause,
    /// A start finds the position of the state one entry too low, and applies that entry again.
    AppliesTwice,
    /// The hard state is written without its vote.
    LosesVotes,
    /// A power failure takes the newest commits of the state, but not its position.
    ReusesRevisions,
    /// A member with a long queue leaves out what an entry says (etcd 3.5.0 to 3.5.2).
    DivergesUnderLoad,
    /// A power failure during a compaction takes a row that is still needed.
    DivergesOnCompactionCrash,
    /// A watcher misses the events that are applied together with a compaction.
    DropsEventAtCompaction,
    /// A progress response overtakes the events that wait for the client.
    ProgressAheadOfEvents,
    /// A watcher gets two responses in the wrong order.
    WatchTravelsInTime,
    /// A watcher gets a response twice.
    DuplicatesEvents,
    /// Responses that do not fit a busy stream are dropped.
    LosesEventsOfBusyStream,
    /// A deletion at the compacted revision is left out of the past, as etcd once did.
    LosesDeletionAtCompaction,
    /// A read of a compacted revision in a transaction is carried out on members that still have it, as etcd once did.
    ReadsCompactedInTxn,
    /// A received snapshot is acknowledged before it is durable.
    AcknowledgesSnapshotEarly,
    /// A new leader does not start the countdowns anew.
    ForgetsToExtendLeases,
    /// A renewal leaves the checkpoint from which a later leader counts on.
    LeavesCheckpoints,
    /// A leader answers when it has appended, not when the entry is applied.
    AnswersBeforeCommit,
    /// Raft gives a learner a vote.
    CountsLearners,
}

impl Bug {
    pub(crate) const ALL: [Self; 21] = [
        Self::AcknowledgesBeforeSync,
        Self::LosesWritesAlone,
        Self::SkipsReadIndex,
        Self::ReadsStaleAfterPause,
        Self::AppliesTwice,
        Self::LosesVotes,
        Self::ReusesRevisions,
        Self::DivergesUnderLoad,
        Self::DivergesOnCompactionCrash,
        Self::DropsEventAtCompaction,
        Self::ProgressAheadOfEvents,
        Self::WatchTravelsInTime,
        Self::DuplicatesEvents,
        Self::LosesEventsOfBusyStream,
        Self::LosesDeletionAtCompaction,
        Self::ReadsCompactedInTxn,
        Self::AcknowledgesSnapshotEarly,
        Self::ForgetsToExtendLeases,
        Self::LeavesCheckpoints,
        Self::AnswersBeforeCommit,
        Self::CountsLearners,
    ];

    /// The number of members among which it can show.
    pub(crate) fn members(self) -> usize {
        if self == Self::LosesWritesAlone { 1 } else { 3 }
    }
}
