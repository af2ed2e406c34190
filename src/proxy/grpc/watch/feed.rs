//! One watch on the cluster, and what it has delivered lately.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    mvcc::Changes,
    pb::mvccpb::Event,
    proxy::grpc::upstream::Token,
    watch::{Batch, Run, slab::Key},
};

/// Responses kept for clients that join a little late.
const RECENT_BATCHES_MAX: usize = 256;
/// Bytes of keys and values kept for them.
const RECENT_BYTES_MAX: usize = 256 * 1024;

/// Which of the proxy's streams to the cluster carries a watch: one for each user, and for the past one of its own, so that a
/// long history holds up nobody's present.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub(super) token: Option<Token>,
    pub(super) is_past: bool,
}

/// A watch on the cluster that clients share.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) interest: Key,
    pub(super) line: Line,
    /// The revision that it delivers next, or one below that.
    pub(super) next: i64,
    /// The revision of the store when it began; behind that, it is in the present.
    pub(super) horizon: i64,
    pub(super) watchers: Vec<Key>,
    recent: VecDeque<Batch>,
    recent_bytes: usize,
    /// Everything from this revision on is in `recent`, up to `next`.
    recent_from: i64,
}

impl Feed {
    pub(super) fn new(interest: Key, line: Line, start: i64, horizon: i64) -> Self {
        Self {
            interest,
            line,
            next: start,
            horizon,
            watchers: Vec::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_from: start,
        }
    }

    /// Whether it has delivered everything from before it began.
    pub(super) fn is_in_the_present(&self) -> bool {
        self.next > self.horizon
    }

    /// The first revision that whoever joins now can still get.
    pub(super) fn reaches_back_to(&self) -> i64 {
        self.recent_from
    }

    /// Takes over what the cluster delivered, to be found by [`Feed::latest`]; `false` if all of it was here before.
    pub(super) fn accept(&mut self, mut events: Vec<Event>) -> bool {
        // After a loss of the stream the cluster may repeat itself.
        events.retain(|event| revision_of(event) >= self.next);
        let Some(revision) = events.last().map(revision_of) else { return false };
        self.next = revision + 1;
        let batch = Batch::new(Arc::new(Changes { revision, events }));
        self.recent_bytes += batch.weight();
        self.recent.push_back(batch);
        true
    }

    /// What was accepted last, until [`Feed::forget`].
    pub(super) fn latest(&self) -> Option<&Batch> {
        self.recent.back()
    }

    /// Gives up what is too old to be kept, if this feed may keep `bytes_max`.
    pub(super) fn forget(&mut self, bytes_max: usize) {
        let bytes_max = bytes_max.min(RECENT_BYTES_MAX);
        while self.recent.len() > RECENT_BATCHES_MAX || self.recent_bytes > bytes_max {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.weight();
            self.recent_from = oldest.revision() + 1;
        }
    }

    /// Nothing happened up to and including `revision`.
    pub(super) fn skip_to(&mut self, revision: i64) {
        self.next = self.next.max(revision.saturating_add(1));
    }

    /// What is kept from `revision` on.
    pub(super) fn since(&self, revision: i64) -> impl Iterator<Item = &Batch> {
        self.recent.iter().filter(move |batch| batch.revision() >= revision)
    }
}

/// The events of `batch` from `revision` on.
pub(super) fn run_from(batch: &Batch, revision: i64) -> Run {
    let events = batch.events();
    let count = |events: usize| u32::try_from(events).unwrap_or(u32::MAX);
    let start = match events.first() {
        Some(first) if revision_of(first) < revision => events.partition_point(|event| revision_of(event) < revision),
        _ => 0,
    };
    Run { start: count(start), end: count(events.len()) }
}

/// The revision an event belongs to.
pub(super) fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pb::mvccpb::KeyValue, watch::slab::Slab};

    fn event(revision: i64, bytes: usize) -> Event {
        let kv = KeyValue { mod_revision: revision, value: vec![0; bytes].into(), ..KeyValue::default() };
        Event { kv: Some(kv), ..Event::default() }
    }

    fn feed(start: i64) -> Feed {
        Feed::new(Slab::default().insert(()), Line { token: None, is_past: false }, start, start - 1)
    }

    #[test]
    fn what_is_repeated_is_left_out() {
        let mut feed = feed(5);
        assert!(feed.accept(vec![event(4, 1), event(5, 1), event(7, 1)]));
        let kept: Vec<i64> = feed.latest().unwrap().events().iter().map(revision_of).collect();
        assert_eq!(kept, [5, 7]);
        assert!(!feed.accept(vec![event(7, 1)]));
        assert_eq!(feed.next, 8);
        feed.skip_to(20);
        feed.skip_to(10);
        assert_eq!((feed.next, feed.reaches_back_to()), (21, 5));
    }

    #[test]
    fn what_is_kept_is_bounded_and_has_no_gaps() {
        let mut feed = feed(1);
        for revision in 1..=2 * i64::try_from(RECENT_BATCHES_MAX).unwrap() {
            feed.accept(vec![event(revision, 1)]);
            feed.forget(usize::MAX);
        }
        assert_eq!(feed.recent.len(), RECENT_BATCHES_MAX);
        assert_eq!(feed.since(0).next().unwrap().revision(), feed.reaches_back_to());
        feed.forget(10);
        assert_eq!((feed.recent.len(), feed.reaches_back_to(), feed.next), (10, 503, 513));
        feed.accept(vec![event(10_000, 2 * RECENT_BYTES_MAX)]);
        feed.forget(usize::MAX);
        assert_eq!((feed.recent.len(), feed.reaches_back_to()), (0, 10_001));
    }

    #[test]
    fn a_run_begins_with_the_revision_asked_for() {
        let events = vec![event(3, 1), event(3, 1), event(5, 1), event(9, 1)];
        let batch = Batch::new(Arc::new(Changes { revision: 9, events }));
        let starts: Vec<u32> = [0, 3, 4, 5, 9, 10].map(|from| run_from(&batch, from).start).into();
        assert_eq!(starts, [0, 0, 2, 2, 3, 4]);
    }
}
