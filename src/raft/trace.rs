//! Carries the raft crate's log lines over to `tracing`.
//!
//! Changes of role, term and leader are effects of their own; these lines are for debugging, and kept below them.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

#[derive(Debug)]
struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{}", record.msg()),
            Level::Warning => tracing::warn!(target: "raft", "{}", record.msg()),
            Level::Info => tracing::debug!(target: "raft", "{}", record.msg()),
            Level::Debug | Level::Trace => {}
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        level.is_at_least(Level::Info)
    }
}

/// A logger for the raft crate.
pub(super) fn logger() -> Logger {
    Logger::root(ToTracing, o!())
}
