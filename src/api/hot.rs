//! Which prefixes of keys and which clients most requests are about lately.
//!
//! Requests about keys are counted in windows of time, the last of which that is over is told of; behind a pause, the one that has
//! begun. A window keeps so many names and no more,
//! whatever clients ask: the least of them gives way to a new one, and what is told is what a name has had since it came
//! ("Efficient computation of frequent and top-k elements in data streams", 2005). Nobody waits to count: who finds another one
//! at it leaves his request out.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::audit::Audited;
use crate::{
    clock::{self, Clock as _},
    mvcc::check,
    pb::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, request_op::Request,
    },
};

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

/// A request about keys.
pub(super) trait Aimed {
    /// What it is about.
    fn aim(&self) -> Aim<'_>;
}

impl Aimed for PutRequest {
    fn aim(&self) -> Aim<'_> {
        Aim { key: &self.key, writes: true }
    }
}

impl Aimed for DeleteRangeRequest {
    fn aim(&self) -> Aim<'_> {
        Aim { key: &self.key, writes: true }
    }
}

impl Aimed for RangeRequest {
    fn aim(&self) -> Aim<'_> {
        Aim { key: &self.key, writes: false }
    }
}

impl Aimed for WatchCreateRequest {
    fn aim(&self) -> Aim<'_> {
        Aim { key: &self.key, writes: false }
    }
}

impl Aimed for TxnRequest {
    fn aim(&self) -> Aim<'_> {
        let mut operations = self.success.iter().chain(&self.failure);
        let key = operations.find_map(key_of).or(self.compare.first().map(|compare| compare.key.as_ref()));
        Aim { key: key.unwrap_or_default(), writes: !check::is_read_only(self) }
    }
}

fn key_of(operation: &RequestOp) -> Option<&[u8]> {
    match operation.request.as_ref()? {
        Request::RequestPut(put) => Some(put.aim().key),
        Request::RequestRange(range) => Some(range.aim().key),
        Request::RequestDeleteRange(delete) => Some(delete.aim().key),
        Request::RequestTxn(txn) => Some(txn.aim().key),
    }
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
    prefixes: Top<Box<[u8]>>,
    /// Nothing is a client on a socket file.
    clients: Top<Option<IpAddr>>,
}

/// What is told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Told {
    /// Most first, in this time.
    pub(super) window: Duration,
    pub(super) prefixes: Vec<(Box<[u8]>, Tally)>,
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
    /// Counts a request.
    pub(super) fn count(&self, request: &impl Audited, from: Option<SocketAddr>) {
        let Some(aim) = request.aimed().map(Aimed::aim) else { return };
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
    tallies: HashMap<K, Tally>,
}

impl<K> Default for Top<K> {
    fn default() -> Self {
        Self { tallies: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> Top<K> {
    fn count<Q: Eq + Hash + ToOwned + ?Sized>(&mut self, name: &Q, writes: bool)
    where
        K: Borrow<Q> + From<Q::Owned>,
    {
        if let Some(tally) = self.tallies.get_mut(name) {
            tally.add(writes);
            return;
        }
        let before = if self.tallies.len() < NAMES_MAX { 0 } else { self.make_room() };
        let mut tally = Tally { before, ..Tally::default() };
        tally.add(writes);
        self.tallies.insert(name.to_owned().into(), tally);
    }

    /// Lets the least go, and tells what it had.
    fn make_room(&mut self) -> u64 {
        let least = self.tallies.iter().min_by_key(|(_, tally)| tally.weight());
        let Some((name, had)) = least.map(|(name, tally)| (name.clone(), tally.weight())) else { return 0 };
        self.tallies.remove(&name);
        had
    }

    fn most(&self) -> Vec<(K, Tally)> {
        let mut most: Vec<_> = self.tallies.iter().map(|(name, tally)| (name.clone(), *tally)).collect();
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
        let shown = |(name, tally): &(Box<[u8]>, Tally)| {
            (String::from_utf8_lossy(name).into_owned(), tally.requests, tally.writes)
        };
        told.prefixes.iter().map(shown).collect()
    }

    #[test]
    fn keys_are_told_of_by_what_stands_in_front_of_their_last_slash() {
        assert_eq!(prefix_of(b"/registry/pods/default/a"), b"/registry/pods/default/");
        assert_eq!(prefix_of(b"/registry/pods/"), b"/registry/pods/");
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
        assert_eq!((windows.now.prefixes.tallies.len(), told.prefixes.len()), (NAMES_MAX, TOLD_MAX));
        assert_eq!(names(&told).first(), Some(&("/often/".to_owned(), 2_000, 0)));
        assert!(
            names(&told).iter().skip(1).all(|(_, requests, _)| *requests < 20),
            "nothing is told that was not counted"
        );
    }
}
