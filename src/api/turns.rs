//! Turns at the processors for slow work, shared out among users.
//!
//! Everybody's work waits in the line of his user, and the lines take turns. So who guesses one user's password delays the
//! others by one guess at a time. A line is bounded: where it is full, whoever comes takes the place of somebody drawn by
//! lot, so that a right password among many guesses has its chance, however fast they come.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{
    clock::{Chance as _, SystemChance},
    types::Rejection,
};

/// Work that waits in one line; more than a user's clients need who all come back at once.
const LINE_MAX: usize = 64;

/// A number of turns.
#[derive(Debug)]
pub(super) struct Turns(Mutex<Lines>);

#[derive(Debug)]
struct Lines {
    free: usize,
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
        Arc::new(Self(Mutex::new(Lines { free: number, waiting: HashMap::new(), order: VecDeque::new() })))
    }

    /// Waits for a turn in the line of `user`.
    ///
    /// # Errors
    /// [`Rejection::TooManyRequests`] if the line is too long.
    pub(super) async fn wait(self: &Arc<Self>, user: &str) -> Result<Turn, Rejection> {
        let waiting = {
            let mut lines = self.lock();
            if lines.free > 0 {
                lines.free -= 1;
                return Ok(Turn { turns: Arc::clone(self) });
            }
            lines.enter(user)
        };
        waiting.await.map_err(|_| Rejection::TooManyRequests)
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn enter(&mut self, user: &str) -> oneshot::Receiver<Turn> {
        let (given, waiting) = oneshot::channel();
        if !self.waiting.contains_key(user) {
            self.order.push_back(user.to_owned());
        }
        let line = self.waiting.entry(user.to_owned()).or_default();
        line.retain(|waiting| !waiting.is_closed());
        if line.len() >= LINE_MAX {
            let unlucky = SystemChance.below(line.len() as u64);
            drop(line.remove(usize::try_from(unlucky).unwrap_or(0)));
        }
        line.push_back(given);
        waiting
    }

    /// Who has the next turn; if nobody waits it is free.
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
        self.free += 1;
        None
    }
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
        let mut waiting: Waiting<'a> = Box::pin(turns.wait(user));
        assert!(poll!(&mut waiting).is_pending());
        waiting
    }

    #[tokio::test]
    async fn lines_take_turns() {
        let turns = Turns::new(1);
        let first = turns.wait("guessed").await.unwrap();
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
        let first = turns.wait("a").await.unwrap();
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
        let _first = turns.wait("a").await.unwrap();
        let mut line = Vec::new();
        for _ in 0..=LINE_MAX {
            line.push(waiting(&turns, "a").await);
        }
        let mut refused = 0;
        for waiting in &mut line {
            if let std::task::Poll::Ready(outcome) = poll!(waiting) {
                assert_eq!(outcome.map(drop), Err(Rejection::TooManyRequests));
                refused += 1;
            }
        }
        assert_eq!(refused, 1);
    }
}
