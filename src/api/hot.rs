//! Which prefixes of keys and which clients most requests are about lately.
//!
//! Requests about keys, of both APIs, are counted in windows of time, the last of which that is over is told of; behind a pause,
//! the one that has begun. A window keeps so many names and no more,
//! whatever clients ask: the least of them gives way to a new one, and what is told is what a name has had since it came
//! ("Efficient computation of frequent and top-k elements in data streams", 2005). Nobody waits to count: who finds another one
//! at it leaves his request out.

use std::{
    borrow::Borrow,
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::clock::{self, Clock as _};

/// A window of time.
const WINDOW: Duration = Duration::from_secs(5);
/// The least that a window which is not over is told as: a few requests in a moment are no rate.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// Names that a window keeps.
const NAMES_MAX: usize = 256;
/// Names that are told of.
const TOLD_MAX: usize = 16;
/// What is looked at of a key.
const KEY_BYTES_MAX: usize = 128;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aim<'a> {
    /// Its key, of several the first.
    pub(super) key: &'a [u8],
    pub(super) writes: bool,
}

/// Counts requests.
#[derive(Debug, Default)]
pub(super) struct Hot {
    windows: Mutex<Windows>,
}

#[derive(Debug, Default)]
struct Windows {
    begun: Duration,
    now: Counts,
    last: Option<(Duration, Counts)>,
}

#[derive(Debug, Default)]
struct Counts {
    prefixes: Top<Arc<[u8]>>,
    /// Nothing is a client on a socket file.
    clients: Top<Option<IpAddr>>,
}

/// What is told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Told {
    /// Most first, in this time.
    pub(super) window: Duration,
    pub(super) prefixes: Vec<(Arc<[u8]>, Tally)>,
    pub(super) clients: Vec<(Option<IpAddr>, Tally)>,
}

/// Requests with one name, since it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) writes: u64,
    /// What those had for whom it came.
    before: u64,
}

impl Hot {
    /// Counts a request, if it is about keys.
    pub(super) fn count(&self, aim: Option<Aim<'_>>, from: Option<SocketAddr>) {
        let Some(aim) = aim else { return };
        if let Ok(mut windows) = self.windows.try_lock() {
            windows.count(clock::system().monotonic(), aim, from.map(|from| from.ip().to_canonical()));
        }
    }

    /// What most requests were about.
    pub(super) fn told(&self) -> Told {
        self.windows().told(clock::system().monotonic())
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Windows {
    fn count(&mut self, now: Duration, aim: Aim<'_>, from: Option<IpAddr>) {
        self.turn(now);
        self.now.prefixes.count(prefix_of(aim.key), aim.writes);
        self.now.clients.count(&from, aim.writes);
    }

    /// Begins another window if this one is over. One that nobody has ended in time is too old to be told of.
    fn turn(&mut self, now: Duration) {
        let age = now.saturating_sub(self.begun);
        if age >= WINDOW {
            self.begun = now;
            let over = std::mem::take(&mut self.now);
            self.last = (age < 2 * WINDOW).then_some((age, over));
        }
    }

    fn told(&mut self, now: Duration) -> Told {
        self.turn(now);
        match &self.last {
            Some((window, counts)) => counts.told(*window),
            None => self.now.told(now.saturating_sub(self.begun).max(WINDOW_MIN)),
        }
    }
}

impl Counts {
    fn told(&self, window: Duration) -> Told {
        Told { window, prefixes: self.prefixes.most(), clients: self.clients.most() }
    }
}

/// A key up to its last slash; all of one without any.
fn prefix_of(key: &[u8]) -> &[u8] {
    let head = key.get(..KEY_BYTES_MAX).unwrap_or(key);
    let slash = head.iter().rposition(|byte| *byte == b'/');
    slash.and_then(|at| head.get(..=at)).unwrap_or(head)
}

/// Names with most requests.
#[derive(Debug)]
struct Top<K> {
    places: HashMap<K, usize>,
    kept: Vec<(K, Tally)>,
    /// Every place once, with the weight that it had when somebody looked: no more than it has now. So whoever looks for the least
    /// corrects those that have grown, once for each time that they have, and passes over no smaller one.
    least: BinaryHeap<Reverse<(u64, usize)>>,
    #[cfg(test)]
    looks: usize,
}

impl<K> Default for Top<K> {
    fn default() -> Self {
        Self {
            places: HashMap::new(),
            kept: Vec::new(),
            least: BinaryHeap::new(),
            #[cfg(test)]
            looks: 0,
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Top<K> {
    fn count<Q: Eq + Hash + ToOwned + ?Sized>(&mut self, name: &Q, writes: bool)
    where
        K: Borrow<Q> + From<Q::Owned>,
    {
        let known = self.places.get(name).and_then(|place| self.kept.get_mut(*place));
        match known {
            Some((_, tally)) => tally.add(writes),
            None => self.begin(name.to_owned().into(), writes),
        }
    }

    fn begin(&mut self, name: K, writes: bool) {
        let mut tally = Tally::default();
        if self.kept.len() < NAMES_MAX {
            tally.add(writes);
            self.least.push(Reverse((tally.weight(), self.kept.len())));
            self.places.insert(name.clone(), self.kept.len());
            self.kept.push((name, tally));
        } else if let Some((place, had)) = self.find_least()
            && let Some(kept) = self.kept.get_mut(place)
        {
            tally.before = had;
            tally.add(writes);
            self.places.remove(&kept.0);
            self.places.insert(name.clone(), place);
            *kept = (name, tally);
        }
    }

    /// The place of the least, and what it had.
    fn find_least(&mut self) -> Option<(usize, u64)> {
        loop {
            #[cfg(test)]
            {
                self.looks += 1;
            }
            let mut least = self.least.peek_mut()?;
            let Reverse((weight, place)) = *least;
            let grown = self.kept.get(place)?.1.weight();
            if grown == weight {
                // As the next one begins.
                *least = Reverse((weight + 1, place));
                return Some((place, weight));
            }
            *least = Reverse((grown, place));
        }
    }

    fn most(&self) -> Vec<(K, Tally)> {
        let mut most = self.kept.clone();
        most.sort_unstable_by(|(name, one), (other, two)| {
            two.requests.cmp(&one.requests).then_with(|| name.cmp(other))
        });
        most.truncate(TOLD_MAX);
        most
    }
}

impl Tally {
    fn add(&mut self, writes: bool) {
        self.requests += 1;
        self.writes += u64::from(writes);
    }

    /// What it is kept for: so many requests it may have had.
    fn weight(&self) -> u64 {
        self.before + self.requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn names(told: &Told) -> Vec<(String, u64, u64)> {
        let shown = |(name, tally): &(Arc<[u8]>, Tally)| {
            (String::from_utf8_lossy(name).into_owned(), tally.requests, tally.writes)
        };
        told.prefixes.iter().map(shown).collect()
    }

    #[test]
    fn keys_are_told_of_by_what_stands_in_front_of_their_last_slash() {
        assert_eq!(prefix_of(b"/registry/pods/default/a"), b"/registry/pods/default/");
        assert_eq!(prefix_of(b"/registry/pods/"), b"/registry/pods/");
        assert_eq!(prefix_of(b"/v2/keys/app/x"), b"/v2/keys/app/");
        assert_eq!(prefix_of(b"plain"), b"plain");
        assert_eq!(prefix_of(&[b'k'; KEY_BYTES_MAX + 1]), [b'k'; KEY_BYTES_MAX]);
        assert_eq!(prefix_of(b""), b"");
    }

    #[test]
    fn the_last_window_is_told_and_then_forgotten() {
        let mut windows = Windows::default();
        let client = Some(IpAddr::from([10, 0, 0, 1]));
        let count = |windows: &mut Windows, at, key: &str, writes| {
            windows.count(at, Aim { key: key.as_bytes(), writes }, client);
        };
        for key in ["/a/1", "/a/2", "/b/1"] {
            count(&mut windows, SECOND, key, key == "/a/1");
        }
        let first = windows.told(2 * SECOND);
        assert_eq!(first.window, 2 * SECOND, "the first one is told before it is over");
        assert_eq!(names(&first), [("/a/".to_owned(), 2, 1), ("/b/".to_owned(), 1, 0)]);
        assert_eq!(first.clients, [(client, Tally { requests: 3, writes: 1, before: 0 })]);
        count(&mut windows, WINDOW, "/c/1", true);
        assert_eq!(names(&windows.told(WINDOW + SECOND)).len(), 2, "the second one is not over");
        assert_eq!(names(&windows.told(2 * WINDOW)), [("/c/".to_owned(), 1, 1)]);
        assert_eq!(names(&windows.told(3 * WINDOW)), []);
        count(&mut windows, 3 * WINDOW, "/d/1", true);
        assert_eq!(names(&windows.told(9 * WINDOW)), [], "it is long ago");
        count(&mut windows, 20 * WINDOW, "/e/1", true);
        let again = windows.told(20 * WINDOW);
        assert_eq!((names(&again), again.window), (vec![("/e/".to_owned(), 1, 1)], WINDOW_MIN), "it has begun anew");
    }

    #[test]
    fn a_frequent_name_is_found_among_more_than_are_kept() {
        let mut windows = Windows::default();
        for number in 0..20_000_u32 {
            let (one, often) = (format!("/{number}/"), b"/often/key".as_slice());
            let key = if number % 10 == 0 { often } else { one.as_bytes() };
            windows.count(Duration::ZERO, Aim { key, writes: false }, None);
        }
        let told = windows.told(SECOND);
        assert_eq!((windows.now.prefixes.kept.len(), told.prefixes.len()), (NAMES_MAX, TOLD_MAX));
        assert_eq!(names(&told).first(), Some(&("/often/".to_owned(), 2_000, 0)));
        assert!(
            names(&told).iter().skip(1).all(|(_, requests, _)| *requests < 20),
            "nothing is told that was not counted"
        );
    }

    #[test]
    fn names_that_come_once_each_cost_as_much_as_any() {
        let mut top = Top::<Arc<[u8]>>::default();
        for number in 0..20_000_u32 {
            top.count(number.to_string().as_bytes(), false);
            // Whoever makes the least ones grow pays for that by himself.
            top.count(number.to_string().as_bytes(), false);
        }
        assert_eq!((top.kept.len(), top.places.len(), top.least.len()), (NAMES_MAX, NAMES_MAX, NAMES_MAX));
        assert!(top.looks <= 2 * 20_000, "{} looks", top.looks);
        let total: u64 = top.kept.iter().map(|(_, tally)| tally.weight()).sum();
        assert_eq!(total, 40_000, "each request has one place");
    }
}
