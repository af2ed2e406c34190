//! The network: who hears whom, and how late.

use std::collections::{BTreeMap, BTreeSet};

use crate::host::{MS, Time};
use crate::support::random::Random;

/// Links between machines, each in one direction.
pub(crate) struct Net {
    cut: BTreeSet<(usize, usize)>,
    /// Links that take longer.
    slow: BTreeMap<(usize, usize), Time>,
    /// Messages in a thousand.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// One message in a thousand of these is very late.
    late: u64,
    least: Time,
    spread: Time,
}

impl Net {
    pub(crate) fn any(random: &mut Random) -> Self {
        Self {
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            loss: *random.pick(&[0, 0, 10, 50]),
            duplication: *random.pick(&[0, 10, 50]),
            late: *random.pick(&[0, 20, 100]),
            least: 50 + random.below(2 * MS),
            spread: *random.pick(&[200, 2 * MS, 20 * MS]),
        }
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    pub(crate) fn slow_down(&mut self, from: usize, to: usize, by: Time) {
        self.slow.insert((from, to), by);
    }

    /// Links are whole and quick again.
    pub(crate) fn mend(&mut self) {
        self.cut.clear();
        self.slow.clear();
    }

    /// Nothing is lost from now on.
    pub(crate) fn heal(&mut self) {
        self.mend();
        (self.loss, self.duplication, self.late) = (0, 0, 0);
        self.spread = self.spread.min(2 * MS);
    }

    pub(crate) fn delay(&self, from: usize, to: usize, random: &mut Random) -> Time {
        let usual = self.least + random.below(self.spread) + self.slow.get(&(from, to)).copied().unwrap_or(0);
        if random.below(1000) < self.late { usual * 10 } else { usual }
    }
}
