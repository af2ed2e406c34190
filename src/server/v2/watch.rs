//! Waiting for events: those of the past come from rows, those that are still to come from the apply thread.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{select, sync::mpsc};

use super::V2Error;
use crate::{
    metrics,
    server::{Handle, ServerError},
    v2store::{Event, Hub, Path, Sink, Told, Watch, WatcherId},
};

/// Events that wait for a client that reads slowly; one more ends its stream (etcd's number).
const EVENTS_WAITING_MAX: usize = 100;
/// Keys and values of such events, of more than one: they wait until the client goes, even if its stream has ended. etcd has
/// no such bound; an event holds up to two values of 10 MiB.
const EVENTS_WAITING_BYTES_MAX: usize = 16 << 20;

/// Whoever waits at this member.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    hub: Mutex<Hub<Feed>>,
}

/// The way of events to one watcher.
#[derive(Debug)]
struct Feed {
    events: mpsc::Sender<Arc<Event>>,
    /// Bytes of the events that wait. Added to under the lock of the hub alone.
    waiting: Arc<AtomicUsize>,
}

/// The end of that way.
#[derive(Debug)]
struct Fed {
    events: mpsc::Receiver<Arc<Event>>,
    waiting: Arc<AtomicUsize>,
}

impl Feed {
    /// A way with room for so many events.
    fn new(events_max: usize) -> (Self, Fed) {
        let (sender, events) = mpsc::channel(events_max);
        let waiting = Arc::<AtomicUsize>::default();
        (Self { events: sender, waiting: Arc::clone(&waiting) }, Fed { events, waiting })
    }
}

impl Sink for Feed {
    fn offer(&self, event: &Arc<Event>) -> bool {
        let (bytes, waiting) = (event.bytes(), self.waiting.load(Ordering::Relaxed));
        if waiting > 0 && waiting.saturating_add(bytes) > EVENTS_WAITING_BYTES_MAX {
            return false;
        }
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        self.events.try_send(Arc::clone(event)).is_ok()
    }
}

impl Fed {
    /// The next event; nothing once there will be none.
    async fn next(&mut self) -> Option<Arc<Event>> {
        let event = self.events.recv().await?;
        self.waiting.fetch_sub(event.bytes(), Ordering::Relaxed);
        Some(event)
    }
}

impl Watchers {
    fn hub(&self) -> MutexGuard<'_, Hub<Feed>> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.hub().len()
    }

    pub(super) fn tell(&self, told: &[Told]) {
        if told.is_empty() {
            return;
        }
        let mut hub = self.hub();
        for told in told {
            hub.tell(told);
        }
        note_count(&hub);
    }

    pub(super) fn clear(&self) {
        let mut hub = self.hub();
        hub.clear();
        note_count(&hub);
    }
}

fn note_count(hub: &Hub<Feed>) {
    metrics::STORE_WATCHERS.set(i64::try_from(hub.len()).unwrap_or(i64::MAX));
}

/// A watcher. Dropping it ends the watch.
#[derive(Debug)]
pub struct V2Watch {
    place: Place,
    watch: Watch,
    /// Where the store stood when the watch began.
    index: u64,
    /// The next index to look for in the past; behind [`Self::index`] there is none left.
    past: u64,
    /// An event of the past that was found when the watch began.
    first: Option<Event>,
    fed: Fed,
}

/// A watcher's place among the others.
#[derive(Debug)]
struct Place {
    handle: Handle,
    path: Path,
    id: WatcherId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut hub = self.handle.shared.v2.watchers.hub();
        hub.remove(&self.path, self.id);
        note_count(&hub);
    }
}

impl Handle {
    /// Begins to watch, from the event `since` on; zero means the next.
    ///
    /// # Errors
    /// [`V2Error::Store`] if events from there on are no longer kept; [`V2Error::TooManyWatchers`]; a store that cannot be
    /// read.
    pub async fn v2_watch(&self, watch: Watch, since: u64) -> Result<V2Watch, V2Error> {
        metrics::STORE_WATCH_REQUESTS.inc();
        let handle = self.clone();
        let begun = self.blocking(move || handle.begin_watch(watch, since));
        let mut begun = begun.await??;
        begun.first = begun.look_back().await?;
        Ok(begun)
    }

    /// What is published is looked up under the lock that is taken to tell watchers of anything newer.
    fn begin_watch(&self, watch: Watch, since: u64) -> Result<Result<V2Watch, V2Error>, ServerError> {
        let room = if watch.stream { EVENTS_WAITING_MAX } else { 1 };
        let (feed, arriving) = Feed::new(room);
        let mut hub = self.shared.v2.watchers.hub();
        let index = self.published().v2().index()?;
        let past = if since == 0 { index + 1 } else { since };
        let id = match hub.register(&watch, past.max(index + 1), feed) {
            Ok(id) => id,
            Err(full) => return Ok(Err(full.into())),
        };
        note_count(&hub);
        drop(hub);
        let place = Place { handle: self.clone(), path: watch.path.clone(), id };
        Ok(Ok(V2Watch { place, watch, index, past, first: None, fed: arriving }))
    }
}

impl V2Watch {
    /// The index of the store when the watch began.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The next event. Nothing once there will be none: the one event of a watcher that is no stream was told, the client
    /// reads too slowly, the state was replaced, or the member stops.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        let event = match self.first.take() {
            Some(event) => Some(Arc::new(event)),
            None => self.look_back().await.ok()?.map(Arc::new),
        };
        if event.is_some() {
            return event;
        }
        select! {
            biased;
            event = self.fed.next() => event,
            () = self.place.handle.stopped() => None,
        }
    }

    /// The next event of the past. A watcher that is no stream then waits for nothing else.
    async fn look_back(&mut self) -> Result<Option<Event>, V2Error> {
        if self.past > self.index {
            return Ok(None);
        }
        let (state, watch, past, last) = (self.place.handle.published(), self.watch.clone(), self.past, self.index);
        let look = move || Ok(state.v2().event_since(&watch, past, last)?);
        let found = self.place.handle.blocking(look).await??;
        self.past = found.as_ref().map_or(last, |event| event.index) + 1;
        if found.is_some() && !self.watch.stream {
            self.fed.events.close();
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v2store::{Action, Shown};

    fn event(bytes: usize) -> Arc<Event> {
        let key = Path::clean(b"/1/a");
        let value = Some(vec![0; bytes - key.as_bytes().len()].into());
        let node = Shown { key, value, dir: false, expiration: 0, ttl: 0, modified: 1, created: 1 };
        Arc::new(Event { action: Action::Set, node, previous: None, index: 1, refresh: false })
    }

    /// A stream that nobody read once kept a hundred events of any length.
    #[tokio::test]
    async fn what_waits_for_a_slow_reader_is_bounded_in_bytes() {
        let (feed, mut arriving) = Feed::new(EVENTS_WAITING_MAX);
        let half = event(EVENTS_WAITING_BYTES_MAX / 2);
        assert!(feed.offer(&half) && feed.offer(&half));
        assert!(!feed.offer(&event(10)), "as many bytes as may wait do");
        assert_eq!(arriving.next().await.as_ref(), Some(&half));
        assert!(feed.offer(&event(10)), "what was read does not wait");
        arriving.next().await.unwrap();
        arriving.next().await.unwrap();
        assert!(feed.offer(&event(2 * EVENTS_WAITING_BYTES_MAX)), "one event may be of any length");
        assert!(!feed.offer(&event(10)));
    }

    #[tokio::test]
    async fn what_waits_for_a_slow_reader_is_bounded_in_number() {
        let (feed, _fed) = Feed::new(EVENTS_WAITING_MAX);
        let small = event(10);
        assert!((0..EVENTS_WAITING_MAX).all(|_| feed.offer(&small)));
        assert!(!feed.offer(&small));
    }
}
