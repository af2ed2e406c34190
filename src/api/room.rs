//! Places for connections, and who gives way when there are none left.
//!
//! A connection that has not asked for anything yet can be cut without harm: its client does as if it had come a moment too
//! late. So thousands of them that say nothing, or drip, keep nobody out. Those on which HTTP/2 is spoken go last:
//! connecting ahead of time is a habit of gRPC clients.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio_util::sync::CancellationToken;

/// The places of one kind of listeners.
#[derive(Debug)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    silent: Mutex<Silent>,
}

/// Connections that have not asked for anything, in the order in which they give way.
#[derive(Debug, Default)]
struct Silent {
    last: u64,
    cuts: BTreeMap<Rank, CancellationToken>,
    /// How many have been told to give way and have not gone yet, and how many wait for their places.
    leaving: usize,
    waiting: usize,
}

impl Silent {
    /// Tells the next one to give way, if too few are on their way for those who wait.
    fn make_way(&mut self) {
        if self.leaving < self.waiting
            && let Some((_, cut)) = self.cuts.pop_first()
        {
            cut.cancel();
            self.leaving += 1;
        }
    }
}

/// Whether HTTP/2 is spoken on it, and the connection's number.
type Rank = (bool, u64);

impl Room {
    pub(super) fn new(places: usize) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { places, silent: Mutex::default() })
    }

    /// The next place; where there is none, the connection that is first to give way loses its own.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => return Some(place),
            Err(TryAcquireError::Closed) => return None,
            Err(TryAcquireError::NoPermits) => {}
        }
        let _waits = Waits::begin(self);
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// A connection takes a place, and has not asked for anything yet.
    pub(super) fn seat(self: &Arc<Self>, place: OwnedSemaphorePermit) -> Seat {
        let cut = CancellationToken::new();
        let mut silent = self.silent();
        silent.last += 1;
        let number = silent.last;
        silent.cuts.insert((false, number), cut.clone());
        // Whoever waits while all others have asked waits for it.
        silent.make_way();
        drop(silent);
        Seat { room: Arc::clone(self), number, cut, _place: place }
    }

    fn silent(&self) -> std::sync::MutexGuard<'_, Silent> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That somebody waits for a place.
struct Waits<'a>(&'a Room);

impl<'a> Waits<'a> {
    fn begin(room: &'a Room) -> Self {
        let mut silent = room.silent();
        silent.waiting += 1;
        silent.make_way();
        drop(silent);
        Self(room)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.silent().waiting -= 1;
    }
}

/// The place of a connection, for as long as anything of it is left: a WebSocket outlives the connection that it came from.
#[derive(Debug)]
pub(super) struct Seat {
    room: Arc<Room>,
    number: u64,
    cut: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Seat {
    /// Waits until the connection has to give way; for ever, once it has asked for something.
    pub(super) async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// Its client has begun to speak HTTP/2.
    pub(super) fn speaks(&self) {
        let mut silent = self.room.silent();
        if let Some(cut) = silent.cuts.remove(&(false, self.number)) {
            silent.cuts.insert((true, self.number), cut);
        }
    }

    /// It has asked.
    pub(super) fn end(&self) {
        let mut silent = self.room.silent();
        for speaks in [false, true] {
            silent.cuts.remove(&(speaks, self.number));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.end();
        if self.cut.is_cancelled() {
            self.room.silent().leaving -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_longest_silent_gives_way_and_nobody_who_has_asked() {
        let (room, [asked, old, young]) = full().await;
        asked.end();
        assert!(room.place().now_or_never().is_none(), "there is no place before one has given way");
        assert!(old.cut().now_or_never().is_some());
        assert!(asked.cut().now_or_never().is_none() && young.cut().now_or_never().is_none());
        drop(old);
        assert!(room.place().now_or_never().is_some());
        assert!(young.cut().now_or_never().is_none(), "nobody gives way where there is a place");
    }

    #[tokio::test]
    async fn whoever_has_begun_to_speak_outlasts_those_who_have_not() {
        let (room, [idle, mute]) = full().await;
        idle.speaks();
        for _ in 0..3 {
            assert!(room.place().now_or_never().is_none(), "who waits again has only one give way");
        }
        assert!(mute.cut().now_or_never().is_some() && idle.cut().now_or_never().is_none());
        drop(mute);
        let _next = room.place().await.unwrap();
        assert!(room.place().now_or_never().is_none());
        assert!(idle.cut().now_or_never().is_some(), "it gives way when there is nobody else");
    }

    #[tokio::test]
    async fn a_newcomer_gives_way_to_those_who_waited_behind_others() {
        let (room, [one, other]) = full().await;
        one.end();
        other.end();
        let (mut first, mut second) = (Box::pin(room.place()), Box::pin(room.place()));
        assert!(futures_util::poll!(&mut first).is_pending() && futures_util::poll!(&mut second).is_pending());
        drop(one);
        let newcomer = room.seat(first.await.unwrap());
        assert!(newcomer.cut().now_or_never().is_some());
        drop(newcomer);
        assert!(second.await.is_some());
    }

    /// A room without a free place, and who has them.
    async fn full<const PLACES: usize>() -> (Arc<Room>, [Seat; PLACES]) {
        let room = Room::new(PLACES);
        let mut seats = Vec::new();
        for _ in 0..PLACES {
            seats.push(room.seat(room.place().await.unwrap()));
        }
        (room, seats.try_into().unwrap())
    }
}
