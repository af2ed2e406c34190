//! What outlives a process, and how much of it.

use std::fmt;

use quorate::disk::{Loss, MemoryDirectory};
use quorate::storage::MemoryEngine;

use crate::support::random::Random;

/// Log, snapshot files and state of one machine.
#[derive(Default)]
pub struct Disk {
    pub wal: MemoryDirectory,
    pub snap: MemoryDirectory,
    pub engine: MemoryEngine,
}

/// What a failure has taken.
pub struct Lost {
    /// Nothing but the process itself, or what was not synced, more or less kindly.
    pub loss: Option<Loss>,
    /// Commits of the state that were not durable, and how many of them are still there when sectors are torn.
    unpersisted: u64,
    kept: u64,
}

impl Disk {
    /// Takes away what was not durable: the process alone is killed, or the power is cut.
    pub fn lose_power(&mut self, random: &mut Random) -> Lost {
        let seed = random.bits();
        let loss = match random.below(100) {
            0..20 => None,
            20..45 => Some(Loss::All),
            45..55 => Some(Loss::Nothing),
            _ => Some(Loss::Torn(seed)),
        };
        let unpersisted = self.engine.unpersisted();
        let kept = random.below(unpersisted + 1);
        self.engine = match loss {
            None => self.engine.kill(),
            Some(Loss::All) => self.engine.crash(),
            Some(Loss::Nothing) => self.engine.crash_keeping(u64::MAX),
            Some(Loss::Torn(_)) => self.engine.crash_keeping(kept),
        };
        for directory in [&self.wal, &self.snap] {
            loss.map_or_else(|| directory.kill(), |loss| directory.crash(loss));
        }
        Lost { loss, unpersisted, kept }
    }

    /// No operation fails any more.
    pub fn mend(&self) {
        self.wal.fail_after(u64::MAX);
        self.snap.fail_after(u64::MAX);
        self.engine.fail_commit(u64::MAX);
        self.engine.fail_persist(u64::MAX);
    }
}

impl Lost {
    /// As it is counted.
    pub fn kind(&self) -> &'static str {
        match self.loss {
            None => "kills of the process alone",
            Some(Loss::All) => "losses of everything not synced",
            Some(Loss::Nothing) => "losses of nothing",
            Some(Loss::Torn(_)) => "losses of torn sectors",
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lost {:?}, kept {} of {} commits", self.loss, self.kept, self.unpersisted)
    }
}
