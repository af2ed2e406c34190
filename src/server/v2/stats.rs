//! What was done to this member's tree, as `/v2/stats/store` tells it: since the start of the member, unlike in etcd, which
//! keeps such numbers in its snapshots.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    metrics,
    v2store::{Action, Depth, Error, ErrorCode, Outcome},
};

/// Counters of one operation.
#[derive(Debug, Default)]
pub struct Tally {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    fn count(&self, success: bool) {
        let counter = if success { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were: that succeeded, that failed.
    pub fn get(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// Counters of all operations.
#[derive(Debug, Default)]
pub struct StoreStats {
    /// Reads.
    pub gets: Tally,
    /// Puts without a condition.
    pub sets: Tally,
    /// Deletions without a condition.
    pub deletes: Tally,
    /// Puts where something was.
    pub updates: Tally,
    /// Puts where nothing was.
    pub creates: Tally,
    /// Puts where something certain was.
    pub swaps: Tally,
    /// Deletions where something certain was.
    pub compared_deletes: Tally,
    expired: AtomicU64,
}

impl StoreStats {
    /// Nodes that ran out.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    pub(super) fn count_read(&self, success: bool, depth: Depth) {
        self.gets.count(success);
        let name = if depth == Depth::All { "getRecursive" } else { "get" };
        metrics::STORE_READS.with([name]).inc();
        if !success {
            metrics::STORE_READS_FAILED.with([name]).inc();
        }
    }

    pub(super) fn count(&self, outcome: &Outcome) {
        let action = counted_as(outcome);
        let Some(tally) = self.tally(action) else {
            let expired = u64::try_from(outcome.told.len()).unwrap_or(u64::MAX);
            self.expired.fetch_add(expired, Ordering::Relaxed);
            return metrics::STORE_EXPIRES.add(expired);
        };
        let success = matches!(outcome.answer, Some(Ok(_)));
        tally.count(success);
        // Below a file, which etcd counts twice.
        let below_file = matches!(&outcome.answer, Some(Err(Error { code: ErrorCode::NotDir, .. })));
        if action == Action::Create && below_file {
            self.sets.count(false);
        }
        metrics::STORE_WRITES.with([action.name()]).inc();
        if !success {
            metrics::STORE_WRITES_FAILED.with([action.name()]).inc();
        }
    }

    fn tally(&self, action: Action) -> Option<&Tally> {
        Some(match action {
            Action::Set => &self.sets,
            Action::Create => &self.creates,
            Action::Update => &self.updates,
            Action::CompareAndSwap => &self.swaps,
            Action::Delete => &self.deletes,
            Action::CompareAndDelete => &self.compared_deletes,
            Action::Get | Action::Expire => return None,
        })
    }
}

/// Users are updated on a condition here, and without one in etcd.
fn counted_as(outcome: &Outcome) -> Action {
    match (outcome.action, &outcome.answer) {
        (Action::CompareAndSwap, Some(Ok(event))) if event.node.key.is_of_users() => Action::Update,
        (action, _) => action,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::v2store::{Event, Path, Shown};

    fn outcome(action: Action, answer: Result<Arc<Event>, Error>) -> Outcome {
        Outcome { action, answer: Some(answer), told: Vec::new(), digest: 0 }
    }

    /// etcd's `internalCreate` counts a failed set besides what failed.
    #[test]
    fn creation_below_a_file_is_a_failed_set_too() {
        let stats = StoreStats::default();
        for code in [ErrorCode::NotDir, ErrorCode::NodeExist] {
            stats.count(&outcome(Action::Create, Err(Error::new(code, "/a", 4))));
        }
        stats.count(&outcome(Action::Set, Err(Error::new(ErrorCode::NotDir, "/a", 4))));
        assert_eq!((stats.creates.get(), stats.sets.get()), ((0, 2), (0, 2)));
    }

    #[test]
    fn condition_on_a_user_is_not_counted() {
        let stats = StoreStats::default();
        for path in [b"/2/users/u".as_slice(), b"/1/2/users/u"] {
            let key = Path::clean(path);
            let node = Shown { key, value: None, dir: false, expiration: 0, ttl: 0, modified: 5, created: 4 };
            let event = Event { action: Action::CompareAndSwap, node, previous: None, index: 5, refresh: false };
            stats.count(&outcome(Action::CompareAndSwap, Ok(Arc::new(event))));
        }
        assert_eq!((stats.updates.get(), stats.swaps.get()), ((1, 0), (1, 0)));
    }
}
