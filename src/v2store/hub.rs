//! Who waits for which events.

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;

use super::{Event, Path, Told};

/// Watchers a member has at most; each costs a connection besides.
pub const WATCHERS_MAX: usize = 100_000;

/// What somebody wants to be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Where.
    pub path: Path,
    /// Everything below it, too.
    pub recursive: bool,
    /// Every event, not only the first.
    pub stream: bool,
}

impl Watch {
    /// Whether an event of the past is one of those (etcd's rule, which differs from that of live events: hidden nodes
    /// are told of, and a directory that went concerns every place whose path begins as its own does).
    pub(super) fn matched(&self, event: &Event) -> bool {
        if event.refresh {
            return false;
        }
        let key = &event.node.key;
        *key == self.path
            || (self.recursive && key.is_below(&self.path))
            || (event.removes_directory() && self.path.as_bytes().starts_with(key.as_bytes()))
    }
}

/// Where a watcher's events go.
pub trait Sink {
    /// Takes an event; `false` if there is no room: the watcher is dropped, because it would miss this one.
    fn offer(&self, event: &Arc<Event>) -> bool;
}

/// Names a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatcherId(u64);

/// There are as many watchers as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many watchers: this member has {WATCHERS_MAX}, which is the limit")]
pub struct Full;

/// All watchers of a member.
#[derive(Debug)]
pub struct Hub<S> {
    watchers: BTreeMap<Path, BTreeMap<WatcherId, Watcher<S>>>,
    count: usize,
    last_id: u64,
}

#[derive(Debug)]
struct Watcher<S> {
    recursive: bool,
    stream: bool,
    /// Events before this index do not concern it.
    since: u64,
    sink: S,
}

impl<S> Default for Hub<S> {
    fn default() -> Self {
        Self { watchers: BTreeMap::new(), count: 0, last_id: 0 }
    }
}

impl<S: Sink> Hub<S> {
    /// How many watchers wait.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a watcher of the events from `since` on.
    ///
    /// # Errors
    /// [`Full`].
    pub fn register(&mut self, watch: &Watch, since: u64, sink: S) -> Result<WatcherId, Full> {
        if self.count >= WATCHERS_MAX {
            return Err(Full);
        }
        self.count += 1;
        self.last_id += 1;
        let id = WatcherId(self.last_id);
        let Watch { recursive, stream, .. } = *watch;
        let watcher = Watcher { recursive, stream, since, sink };
        self.watchers.entry(watch.path.clone()).or_default().insert(id, watcher);
        Ok(id)
    }

    /// Takes a watcher out. Harmless if it is gone.
    pub fn remove(&mut self, path: &Path, id: WatcherId) {
        let Some(here) = self.watchers.get_mut(path) else { return };
        if here.remove(&id).is_some() {
            self.count -= 1;
        }
        if here.is_empty() {
            self.watchers.remove(path);
        }
    }

    /// Tells everybody whom an event concerns: those who watch its place, or something above it; and those who watch what
    /// is gone with it. A stream at the very place that is gone is told twice, as by etcd.
    pub fn tell(&mut self, told: &Told) {
        let Told { event, removed } = told;
        if event.refresh || self.count == 0 {
            return;
        }
        for path in removed {
            self.tell_at(path, event, true);
        }
        for step in event.node.key.way() {
            self.tell_at(&step, event, false);
        }
    }

    /// Lets all watchers go: the store has become another one, and what happened in between nobody knows.
    pub fn clear(&mut self) {
        self.watchers.clear();
        self.count = 0;
    }

    fn tell_at(&mut self, path: &Path, event: &Arc<Event>, removed: bool) {
        let Some(here) = self.watchers.get_mut(path) else { return };
        let at_place = event.node.key == *path;
        if !at_place && event.node.key.is_hidden_from(path) {
            return;
        }
        let before = here.len();
        here.retain(|_, watcher| watcher.tell(event, at_place || removed));
        self.count -= before - here.len();
        if here.is_empty() {
            self.watchers.remove(path);
        }
    }
}

impl<S: Sink> Watcher<S> {
    /// Whether it stays.
    fn tell(&self, event: &Arc<Event>, concerned: bool) -> bool {
        let wanted = (self.recursive || concerned) && event.index >= self.since;
        !wanted || (self.sink.offer(event) && self.stream)
    }
}
