//! Turns at shaking hands: how many handshakes of a listener go on at a time, and who of many has one.
//!
//! A handshake that stalls keeps its turn until somebody else needs it. Where all are taken, whoever comes from an address with
//! fewer than others takes one from the address that has the most, the oldest one; and anybody takes the oldest one that has
//! stalled. Everybody else waits, a bounded number. So nobody can keep others out from one address, and from many only for a
//! moment.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use super::HANDSHAKE_PATIENCE;
use crate::clock::Stopwatch;

/// Handshakes of one listener that may be under way at a time. Each keeps at most some 64 KiB of certificates, so all of
/// them at most 16 MiB.
pub const HANDSHAKES_MAX: usize = 256;
/// Connections of one listener that may wait for a turn: each is a descriptor and a few hundred bytes.
const WAITING_MAX: usize = 4096;
/// A handshake that is not done by then has stalled, as far as others need its turn: one takes two ways there and back.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// How often who waits looks whether a turn has stalled meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The turns of one listener.
#[derive(Debug)]
pub(super) struct Turns {
    table: Mutex<Table>,
    freed: Notify,
    since: Stopwatch,
}

/// A turn; it is given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    number: u64,
    cut_off: CancellationToken,
}

impl Turns {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), freed: Notify::new(), since: Stopwatch::start() })
    }

    /// The next turn for somebody from there (`None` on a socket file), at the latest after [`HANDSHAKE_PATIENCE`].
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`], and [`io::ErrorKind::ConnectionAborted`] if too many wait already.
    pub(super) async fn take(self: &Arc<Self>, from: Option<IpAddr>) -> io::Result<Turn> {
        let origin = from.map(origin);
        if let Some(turn) = self.try_take(origin) {
            return Ok(turn);
        }
        let _place = Place::at(self)?;
        timeout(HANDSHAKE_PATIENCE, self.wait(origin)).await.map_err(|_| io::ErrorKind::TimedOut.into())
    }

    async fn wait(self: &Arc<Self>, origin: Option<IpAddr>) -> Turn {
        loop {
            // Whether a turn was freed or time has passed makes no difference to what follows.
            drop(timeout(LOOK_INTERVAL, self.freed.notified()).await);
            if let Some(turn) = self.try_take(origin) {
                return turn;
            }
        }
    }

    fn try_take(self: &Arc<Self>, origin: Option<IpAddr>) -> Option<Turn> {
        let (number, cut_off) = self.table().take(origin, self.since.elapsed())?;
        Some(Turn { turns: Arc::clone(self), number, cut_off })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Goes on with a handshake for as long as it may.
    ///
    /// # Errors
    /// What it failed with, or [`io::ErrorKind::ConnectionAborted`] if somebody else took the turn.
    pub async fn within<T, E: From<io::Error>>(&self, shaking: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        tokio::select! {
            biased;
            done = shaking => done,
            () = self.cut_off.cancelled() => Err(no_room().into()),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.table().give_back(self.number);
        self.turns.freed.notify_one();
    }
}

fn no_room() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "tls: the handshake was cut off: too many are under way")
}

/// A place among those who wait.
struct Place<'t>(&'t Turns);

impl<'t> Place<'t> {
    fn at(turns: &'t Turns) -> io::Result<Self> {
        let mut table = turns.table();
        if table.waiting >= WAITING_MAX {
            return Err(no_room());
        }
        table.waiting += 1;
        Ok(Self(turns))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.table().waiting -= 1;
    }
}

/// Who has a turn.
#[derive(Debug, Default)]
struct Table {
    /// The oldest first.
    held: VecDeque<Held>,
    by_origin: HashMap<Option<IpAddr>, usize>,
    waiting: usize,
    next: u64,
}

#[derive(Debug)]
struct Held {
    number: u64,
    origin: Option<IpAddr>,
    since: Duration,
    cut_off: CancellationToken,
}

impl Table {
    /// A turn at `now` for somebody from there, who otherwise has to wait. The one it is taken from is told.
    fn take(&mut self, origin: Option<IpAddr>, now: Duration) -> Option<(u64, CancellationToken)> {
        if self.held.len() >= HANDSHAKES_MAX {
            let oldest = self.longest_of_most(origin).or_else(|| self.stalled(now))?;
            self.remove(oldest)?.cut_off.cancel();
        }
        self.next += 1;
        let (number, cut_off) = (self.next, CancellationToken::new());
        self.held.push_back(Held { number, origin, since: now, cut_off: cut_off.clone() });
        *self.by_origin.entry(origin).or_default() += 1;
        Some((number, cut_off))
    }

    /// The oldest turn of the origin with the most, if that is left with no fewer than this one will have.
    fn longest_of_most(&self, origin: Option<IpAddr>) -> Option<usize> {
        let own = self.by_origin.get(&origin).copied().unwrap_or(0);
        let (most, count) = self.by_origin.iter().max_by_key(|(_, count)| **count)?;
        let is_fair = *count > own + 1;
        is_fair.then(|| self.held.iter().position(|held| held.origin == *most))?
    }

    /// The oldest turn of all, if it has stalled.
    fn stalled(&self, now: Duration) -> Option<usize> {
        self.held.front().filter(|oldest| now.saturating_sub(oldest.since) >= STALLED_AFTER).map(|_| 0)
    }

    fn give_back(&mut self, number: u64) {
        if let Some(at) = self.held.iter().position(|held| held.number == number) {
            self.remove(at);
        }
    }

    fn remove(&mut self, at: usize) -> Option<Held> {
        let held = self.held.remove(at)?;
        if let Some(count) = self.by_origin.get_mut(&held.origin) {
            *count -= 1;
            if *count == 0 {
                self.by_origin.remove(&held.origin);
            }
        }
        Some(held)
    }
}

/// Whoever has one address of IPv6 has all with its first half.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> Option<IpAddr> {
        (last > 0).then(|| [10, 0, 0, last].into())
    }

    fn full_of(origin: Option<IpAddr>) -> (Table, Vec<CancellationToken>) {
        let mut table = Table::default();
        let tokens = (0..HANDSHAKES_MAX).map(|_| table.take(origin, Duration::ZERO).unwrap().1).collect();
        (table, tokens)
    }

    #[test]
    fn who_has_fewer_takes_from_who_has_most() {
        let (mut table, tokens) = full_of(from(1));
        for number in 0..HANDSHAKES_MAX / 2 {
            assert!(table.take(from(2), Duration::ZERO).is_some(), "{number}");
            assert!(tokens[number].is_cancelled() && !tokens[number + 1].is_cancelled(), "the oldest goes first");
        }
        assert!(table.take(from(2), Duration::ZERO).is_none() && table.take(from(1), Duration::ZERO).is_none());
        assert!(table.take(from(3), Duration::ZERO).is_some());
        assert_eq!((table.held.len(), table.by_origin.values().sum::<usize>()), (HANDSHAKES_MAX, HANDSHAKES_MAX));
    }

    #[test]
    fn a_stalled_one_makes_room_for_anybody() {
        let (mut table, tokens) = full_of(from(1));
        assert!(table.take(from(1), STALLED_AFTER / 2).is_none());
        assert!(table.take(from(1), STALLED_AFTER).is_some() && tokens[0].is_cancelled());
        table.give_back(5);
        assert!(table.take(from(1), Duration::ZERO).is_some());
    }

    #[test]
    fn an_address_of_ipv6_is_its_network() {
        let of = |text: &str| origin(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::1"), of("2001:db8:1:2:ffff::7"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[tokio::test]
    async fn who_waits_gets_what_is_given_back() {
        let turns = Turns::new();
        let mut held = Vec::new();
        for _ in 0..HANDSHAKES_MAX {
            held.push(turns.take(from(1)).await.unwrap());
        }
        let waiting = turns.take(from(1));
        tokio::pin!(waiting);
        assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err());
        drop(held.pop());
        held.push(timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap());
        assert_eq!(turns.table().waiting, 0);
        let rude = turns.take(from(2)).await.unwrap();
        let cut_off = held[0].within(std::future::pending::<io::Result<()>>()).await.unwrap_err();
        assert_eq!(cut_off.kind(), io::ErrorKind::ConnectionAborted);
        drop(rude);
    }
}
