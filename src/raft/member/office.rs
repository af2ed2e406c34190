//! How a member leaves office, a leader whose disk is stalled and a member that was removed, and how others succeed one
//! whose process has ended.

use ::raft::StateRole;

use crate::types::MemberId;

use super::{Change, Member, Unsynced, convert};

/// Heartbeats that must be missing beside, before a leader is believed to have gone: one that cannot be dialled from
/// here may still be heard.
const HEARTBEATS_MISSED_MIN: u64 = 2;
/// Ticks between the successors' elections, so that they do not split the votes. The first comes after as many, when
/// the others have noticed too.
const SUCCESSION_TICKS: usize = 2;

impl Member {
    /// The leader's process has probably ended. Instead of waiting for an election timeout its heirs stop protecting
    /// its office now (they would ignore votes) and campaign one after the other, in the order of their identifiers. If
    /// it still leads, nothing happens: those that hear it ignore pre-votes.
    pub(super) fn gone(&mut self, peer: MemberId) {
        let raft = &mut self.node.raft;
        let silent_ticks = (raft.election_elapsed as u64).saturating_mul(self.election_ticks) / self.crate_ticks;
        let heard_lately = silent_ticks < HEARTBEATS_MISSED_MIN;
        if raft.state != StateRole::Follower || raft.leader_id != peer.0 || heard_lately {
            return;
        }
        let before = self.conf_state.voters.iter().filter(|id| **id < raft.id && **id != peer.0).count();
        let timeout = raft.election_timeout();
        let wait = SUCCESSION_TICKS.saturating_mul(before + 1);
        let least = (timeout + wait).min(self.patience.most());
        if raft.randomized_election_timeout() < least {
            raft.set_randomized_election_timeout(least);
        }
        let elapsed = raft.randomized_election_timeout().saturating_sub(wait).max(timeout);
        raft.election_elapsed = raft.election_elapsed.max(elapsed);
    }

    pub(super) fn is_stalled(&self, batch: &Unsynced) -> bool {
        self.now.saturating_sub(batch.since) >= self.election_ticks
    }

    /// A leader whose disk has not answered for an election timeout commits nothing more with its own voice, and
    /// applies nothing. It hands over to the best peer; failing that for another election timeout it steps down, so
    /// that its heartbeats no longer keep the others from electing. Alone, it has nobody to hand over to.
    pub(super) fn check_stall(&mut self) {
        let stalled = self.unsynced.front().is_some_and(|batch| self.is_stalled(batch));
        if !stalled || self.node.raft.prs().is_singleton() {
            return;
        }
        match self.handing_over_since {
            None => {
                self.handing_over_since = Some(self.now);
                if let Some(successor) = self.best_successor() {
                    self.node.transfer_leader(successor.0);
                }
            }
            Some(since) if self.now.saturating_sub(since) >= self.election_ticks => self.step_down(),
            Some(_) => {}
        }
    }

    fn step_down(&mut self) {
        self.handing_over_since = None;
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, ::raft::INVALID_ID);
    }

    /// A member that is removed stays in its own configuration until the others know of the removal. If it went at
    /// once and its log were the longest, the others could need its vote, be denied it, and never elect a leader.
    /// Configurations that differ by one member have overlapping quorums, so this is safe as long as nothing further
    /// changes; no proposals are taken meanwhile.
    pub(super) fn leave_if_known(&mut self) {
        if self.leaving.is_some_and(|index| self.leader_commit >= index || self.quorum_knows(index)) {
            self.leave();
        }
    }

    /// Whether a majority of the voters that remain has told this leader of a commit index at or after `index`.
    fn quorum_knows(&self, index: u64) -> bool {
        let remaining = &self.conf_state.voters;
        let peers = remaining.iter().filter_map(|id| self.node.raft.prs().get(*id));
        let knowing = peers.filter(|progress| progress.committed_index >= index).count();
        self.leads() && 2 * knowing > remaining.len()
    }

    pub(super) fn hand_over_before_leaving(&mut self) {
        if self.leaving.is_some()
            && self.node.raft.lead_transferee.is_none()
            && let Some(successor) = self.best_successor()
        {
            self.node.transfer_leader(successor.0);
        }
    }

    /// Carries out the removal of this member, if one waits. It stops leading or asking for votes first: the raft
    /// crate panics when a leader outside of its configuration counts itself.
    pub(super) fn leave(&mut self) {
        if self.leaving.take().is_none() {
            return;
        }
        if self.node.raft.state != StateRole::Follower {
            self.wake_successor();
            self.step_down();
        }
        if let Some(change) = convert::change_in(Change::Remove(MemberId(self.node.raft.id))) {
            self.reconfigure(&change);
        }
    }

    /// Lets the best peer elect itself at once, if it has the whole log.
    fn wake_successor(&mut self) {
        let last = self.last_index();
        let successor = self.best_successor();
        if let Some(peer) = self.progress().into_iter().find(|peer| Some(peer.id) == successor && peer.matched == last)
        {
            self.node.raft.send_timeout_now(peer.id.0);
        }
    }
}
