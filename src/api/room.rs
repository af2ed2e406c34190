//! Places for connections, and who gives way when there are none left.
//!
//! A connection that has not asked for anything yet can be cut without harm: its client does as if it had come a moment too
//! late. So thousands of them that say nothing, or drip, keep nobody out.

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

/// Connections that have not asked for anything, the oldest first.
#[derive(Debug, Default)]
struct Silent {
    last: u64,
    cuts: BTreeMap<u64, CancellationToken>,
}

impl Room {
    pub(super) fn new(places: usize) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { places, silent: Mutex::default() })
    }

    /// The next place; where there is none, the connection that has been silent for longest loses its own.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => return Some(place),
            Err(TryAcquireError::Closed) => return None,
            Err(TryAcquireError::NoPermits) => {}
        }
        if let Some((_, cut)) = self.silent().cuts.pop_first() {
            cut.cancel();
        }
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Notes a connection that has not asked for anything yet.
    pub(super) fn silence(self: &Arc<Self>) -> Silence {
        let cut = CancellationToken::new();
        let mut silent = self.silent();
        silent.last += 1;
        let number = silent.last;
        silent.cuts.insert(number, cut.clone());
        drop(silent);
        Silence { room: Arc::clone(self), number, cut }
    }

    fn silent(&self) -> std::sync::MutexGuard<'_, Silent> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That a connection has not asked for anything yet.
#[derive(Debug)]
pub(super) struct Silence {
    room: Arc<Room>,
    number: u64,
    cut: CancellationToken,
}

impl Silence {
    /// Waits until the connection has to give way; for ever, once it has asked for something.
    pub(super) async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// It has asked.
    pub(super) fn end(&self) {
        self.room.silent().cuts.remove(&self.number);
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_longest_silent_gives_way_and_nobody_who_has_asked() {
        let room = Room::new(3);
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(room.place().await.unwrap());
        }
        let [asked, old, young] = [room.silence(), room.silence(), room.silence()];
        asked.end();
        assert!(room.place().now_or_never().is_none(), "there is no place before one has given way");
        assert!(old.cut().now_or_never().is_some());
        assert!(asked.cut().now_or_never().is_none() && young.cut().now_or_never().is_none());
        drop((places.pop(), old));
        assert!(room.place().now_or_never().is_some());
        assert!(young.cut().now_or_never().is_none(), "nobody gives way where there is a place");
    }
}
