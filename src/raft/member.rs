//! The member: the raft crate's node behind checks, batches and conversions.

use crate::types::{LogIndex, MemberId};

use super::{Effect, Input, Options, Recovered, RecoveryError, Standing};

/// One member of a raft group. See the module for its invariants.
#[derive(Debug)]
pub struct Member {
    standing: Standing,
    commit: LogIndex,
}

/// How far a peer has come, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The peer.
    pub id: MemberId,
    /// The last entry known to be durable there.
    pub matched: LogIndex,
    /// Whether it was heard of within the last election timeout.
    pub active: bool,
    /// Whether it has no vote.
    pub learner: bool,
    /// Whether it is being sent a snapshot.
    pub in_snapshot: bool,
}

impl Member {
    /// Starts a member from its log and state.
    ///
    /// # Errors
    /// If log, state and options contradict each other; nothing is changed on disk.
    pub fn new(options: &Options, recovered: Recovered) -> Result<Self, RecoveryError> {
        let _ = (options, recovered);
        Ok(Self { standing: Standing::default(), commit: LogIndex(0) })
    }

    /// Takes one input and lists what follows from it.
    pub fn handle(&mut self, input: Input, effects: &mut Vec<Effect>) {
        self.accept(input, effects);
        self.settle(effects);
    }

    /// Takes one input without drawing the conclusions yet. Several inputs accepted before one [`Self::settle`] share
    /// a batch.
    pub fn accept(&mut self, input: Input, effects: &mut Vec<Effect>) {
        let _ = (input, effects, &mut self.commit);
    }

    /// Lists what follows from the inputs accepted since the last call.
    pub fn settle(&mut self, effects: &mut Vec<Effect>) {
        let _ = (effects, &mut self.commit);
    }

    /// Role, term and leader.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The commit index.
    pub fn committed(&self) -> LogIndex {
        self.commit
    }

    /// The last entry of the log, durable or not.
    pub fn last_index(&self) -> LogIndex {
        self.commit
    }

    /// How far each other member has come. Empty unless this member leads.
    pub fn progress(&self) -> Vec<PeerProgress> {
        Vec::new()
    }
}
