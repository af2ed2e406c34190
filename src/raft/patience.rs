//! How long a member waits for a leader before it stands for election itself.
//!
//! The raft crate draws that time from the thread's own chance, which nobody can repeat. Here it is drawn from a seed, at
//! the moments at which the crate draws: with every new term, role or leader, but for a candidate that only asks whether
//! it might win.

use std::ops::Range;

use ::raft::{Raft, StateRole, Storage};

use crate::clock::{Chance as _, SeededChance};

/// Draws election timeouts.
#[derive(Debug)]
pub(super) struct Patience {
    ticks: Range<usize>,
    chance: SeededChance,
    /// Term, role and leader of the last draw.
    drawn_in: Option<(u64, StateRole, u64)>,
}

impl Patience {
    /// Timeouts within `ticks`, which is not empty.
    pub(super) fn new(ticks: Range<usize>, seed: u64) -> Self {
        Self { ticks, chance: SeededChance::new(seed), drawn_in: None }
    }

    /// The longest there is.
    pub(super) fn most(&self) -> usize {
        self.ticks.end.saturating_sub(1)
    }

    /// Takes the place of what the crate has drawn since the last call. Called before anybody can see that.
    pub(super) fn redraw(&mut self, raft: &mut Raft<impl Storage>) {
        let now = (raft.term, raft.state, raft.leader_id);
        if self.drawn_in.replace(now) == Some(now) || raft.state == StateRole::PreCandidate {
            return;
        }
        let drawn = usize::try_from(self.chance.below(self.ticks.len() as u64)).unwrap_or(0);
        raft.set_randomized_election_timeout(self.ticks.start + drawn);
    }
}
