//! Why fjall's own worker ended.
//!
//! The error of that thread goes nowhere but to the `log` facade; whoever writes next learns from fjall only that something
//! failed earlier. This is the one listener there, and it keeps the last such report of the process.

use std::sync::{Arc, Mutex, Once, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// What fjall's records are called by; `fjall::worker_pool` is one.
const SOURCE: &str = "fjall";
/// Longest report that is kept.
const REPORT_CHARS_MAX: usize = 1_024;

static LAST: Mutex<Option<Arc<str>>> = Mutex::new(None);

struct Listener;

/// Listens from now on, if nobody else in this process does.
pub(super) fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        if log::set_logger(&Listener).is_ok() {
            log::set_max_level(LevelFilter::Error);
        }
    });
}

/// The last failure that fjall reported.
pub(super) fn last() -> Option<Arc<str>> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Log for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() == Level::Error && metadata.target().split("::").next() == Some(SOURCE)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let report: String = record.args().to_string().chars().take(REPORT_CHARS_MAX).collect();
            *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.into());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::StorageError;

    /// "an earlier write or sync failed" was the last line of a member whose disk was full.
    #[test]
    fn cause_of_a_worker_that_ended_is_told_to_whoever_writes_next() {
        listen();
        log::error!(target: "fjall::worker_pool", "Worker #0 crashed: StorageFull");
        log::error!(target: "elsewhere", "nothing of ours");
        log::warn!(target: "fjall::worker_pool", "no failure");
        let text = StorageError::of_fjall(Path::new("/state/1"), "writing", fjall::Error::Poisoned).with_causes();
        // Tests of damage beside this one may have made a worker end, too.
        assert!(
            text.starts_with(
                "state store: writing failed in /state/1: an earlier write or sync failed: Worker #0 crashed: "
            ),
            "{text}"
        );
    }
}
