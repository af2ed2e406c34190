//! Turns at the processors for slow work, shared out among hosts, and each host's among the users whom it names.
//!
//! Everybody's work waits in the line of his user at his host. The hosts take turns, and at each host the lines do. So who
//! guesses one user's password delays the others by one guess at a time, and who guesses names as well delays his own host
//! alone. A line is bounded, and so are those of a host: where there is no place, whoever comes takes that of somebody drawn
//! by lot, so that a right password among many guesses has its chance, however fast they come. Nothing of this depends on
//! whether there is such a user: it would tell who floods the lines.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{
    clock::{Chance as _, SystemChance},
    types::Rejection,
};

/// Work that waits in one line; more than a user's clients need who all come back at once.
const LINE_MAX: usize = 64;
/// Lines of one host; more than the users of a proxy who all come back at once.
const LINES_MAX: usize = 256;

/// A number of turns.
#[derive(Debug)]
pub(super) struct Turns(Mutex<Hosts>);

/// Where work comes from; nothing for socket files and this process.
type Host = Option<IpAddr>;

#[derive(Debug)]
struct Hosts {
    free: usize,
    waiting: HashMap<Host, Lines>,
    /// Whose turn is next; every host for which somebody waits once.
    order: VecDeque<Host>,
}

/// The lines of one host.
#[derive(Debug, Default)]
struct Lines {
    waiting: HashMap<String, VecDeque<oneshot::Sender<Turn>>>,
    /// Whose line is next; every line that is not empty once.
    order: VecDeque<String>,
}

/// One turn, given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
}

impl Turns {
    /// `number` turns at a time.
    pub(super) fn new(number: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Hosts { free: number, waiting: HashMap::new(), order: VecDeque::new() })))
    }

    /// Waits for a turn in the line of `user` at the host `from`.
    ///
    /// # Errors
    /// [`Rejection::TooManyRequests`] if too much waits.
    pub(super) async fn wait(self: &Arc<Self>, from: Option<IpAddr>, user: &str) -> Result<Turn, Rejection> {
        let waiting = {
            let mut hosts = self.lock();
            if hosts.free > 0 {
                hosts.free -= 1;
                return Ok(Turn { turns: Arc::clone(self) });
            }
            hosts.enter(from, user)
        };
        waiting.await.map_err(|_| Rejection::TooManyRequests)
    }

    fn lock(&self) -> MutexGuard<'_, Hosts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hosts {
    fn enter(&mut self, from: Host, user: &str) -> oneshot::Receiver<Turn> {
        if !self.waiting.contains_key(&from) {
            self.order.push_back(from);
        }
        self.waiting.entry(from).or_default().enter(user)
    }

    /// Who has the next turn; if nobody waits it is free.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(from) = self.order.pop_front() {
            let Some(lines) = self.waiting.get_mut(&from) else { continue };
            let first = lines.next();
            if lines.order.is_empty() {
                self.waiting.remove(&from);
            } else {
                self.order.push_back(from);
            }
            if first.is_some() {
                return first;
            }
        }
        self.free += 1;
        None
    }
}

impl Lines {
    fn enter(&mut self, user: &str) -> oneshot::Receiver<Turn> {
        let (given, waiting) = oneshot::channel();
        if !self.waiting.contains_key(user) {
            self.make_room();
            self.order.push_back(user.to_owned());
        }
        let line = self.waiting.entry(user.to_owned()).or_default();
        line.retain(|waiting| !waiting.is_closed());
        if line.len() >= LINE_MAX {
            drop(line.remove(lot(line.len())));
        }
        line.push_back(given);
        waiting
    }

    /// Room for another line: those who wait in one that is drawn are sent away.
    fn make_room(&mut self) {
        if self.order.len() >= LINES_MAX
            && let Some(unlucky) = self.order.remove(lot(self.order.len()))
        {
            self.waiting.remove(&unlucky);
        }
    }

    /// The next one who still waits.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(user) = self.order.pop_front() {
            let Some(line) = self.waiting.get_mut(&user) else { continue };
            let first = std::iter::from_fn(|| line.pop_front()).find(|waiting| !waiting.is_closed());
            if line.is_empty() {
                self.waiting.remove(&user);
            } else {
                self.order.push_back(user);
            }
            if first.is_some() {
                return first;
            }
        }
        None
    }
}

/// One of so many.
fn lot(number: usize) -> usize {
    usize::try_from(SystemChance.below(number as u64)).unwrap_or(0)
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = self.turns.lock().next();
        if let Some(next) = next {
            // Whoever left meanwhile gives it back by dropping it.
            drop(next.send(Self { turns: Arc::clone(&self.turns) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::Pin};

    use futures_util::poll;

    use super::*;

    type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Turn, Rejection>> + 'a>>;

    async fn waiting<'a>(turns: &'a Arc<Turns>, user: &'a str) -> Waiting<'a> {
        waiting_at(turns, None, user).await
    }

    async fn waiting_at<'a>(turns: &'a Arc<Turns>, from: Host, user: &'a str) -> Waiting<'a> {
        let mut waiting: Waiting<'a> = Box::pin(turns.wait(from, user));
        assert!(poll!(&mut waiting).is_pending());
        waiting
    }

    #[tokio::test]
    async fn lines_take_turns() {
        let turns = Turns::new(1);
        let first = turns.wait(None, "guessed").await.unwrap();
        let mut guesses = Vec::new();
        for _ in 0..3 {
            guesses.push(waiting(&turns, "guessed").await);
        }
        let mut other = waiting(&turns, "other").await;
        drop(first);
        assert!(poll!(&mut other).is_pending());
        let guess = guesses.remove(0).await.unwrap();
        drop(guess);
        drop(other.await.unwrap());
        drop(guesses.remove(0).await.unwrap());
        drop(guesses.remove(0).await.unwrap());
        assert_eq!(turns.lock().free, 1);
        assert!(turns.lock().waiting.is_empty() && turns.lock().order.is_empty());
    }

    #[tokio::test]
    async fn who_leaves_is_passed_over() {
        let turns = Turns::new(1);
        let first = turns.wait(None, "a").await.unwrap();
        let left = waiting(&turns, "a").await;
        let stays = waiting(&turns, "b").await;
        drop(left);
        drop(first);
        let second = stays.await.unwrap();
        let told = waiting(&turns, "a").await;
        drop(second);
        // The turn is on its way when its receiver leaves.
        drop(told);
        assert_eq!(turns.lock().free, 1);
    }

    #[tokio::test]
    async fn a_full_line_gives_places_away_by_lot() {
        let turns = Turns::new(1);
        let _first = turns.wait(None, "a").await.unwrap();
        let mut line = Vec::new();
        for _ in 0..=LINE_MAX {
            line.push(waiting(&turns, "a").await);
        }
        assert_eq!(refused(&mut line).await, 1);
    }

    /// How many of them have lost their places.
    async fn refused(waiting: &mut [Waiting<'_>]) -> usize {
        let mut refused = 0;
        for waiting in waiting {
            if let std::task::Poll::Ready(outcome) = poll!(waiting) {
                assert_eq!(outcome.map(drop), Err(Rejection::TooManyRequests));
                refused += 1;
            }
        }
        refused
    }

    #[tokio::test]
    async fn who_makes_names_up_delays_his_own_host_alone_and_has_a_bounded_number_of_them() {
        let turns = Turns::new(1);
        let first = turns.wait(None, "a").await.unwrap();
        let host = |number| Some(IpAddr::from([192, 0, 2, number]));
        let names: Vec<_> = (0..=LINES_MAX).map(|number| format!("made-up-{number}")).collect();
        let mut guesses = Vec::new();
        for name in &names {
            guesses.push(waiting_at(&turns, host(1), name).await);
        }
        assert_eq!(refused(&mut guesses).await, 1);
        let mut known = waiting_at(&turns, host(2), "u").await;
        drop(first);
        assert!(poll!(&mut known).is_pending(), "the other host came first");
        guesses.clear();
        drop(known.await.unwrap());
        assert_eq!(turns.lock().free, 1);
        assert!(turns.lock().waiting.is_empty() && turns.lock().order.is_empty());
    }
}
