//! Questions that several callers ask at once, asked once.
//!
//! Invariant: whoever asks gets an answer to a question that was put after it asked. So callers that come while a question
//! is under way share the next one.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

/// Questions under way, by what they ask.
#[derive(Debug)]
pub(super) struct Rounds<K, V> {
    gates: Mutex<HashMap<K, Entry<V>>>,
}

/// A gate and how many callers stand before it; the last one that leaves takes it away.
#[derive(Debug)]
struct Entry<V> {
    gate: Arc<Gate<V>>,
    callers: usize,
}

#[derive(Debug)]
struct Gate<V> {
    /// Held while a question is under way.
    running: tokio::sync::Mutex<()>,
    /// The question that has not begun yet.
    waiting: Mutex<Option<Arc<OnceCell<V>>>>,
}

impl<V> Default for Gate<V> {
    fn default() -> Self {
        Self { running: tokio::sync::Mutex::default(), waiting: Mutex::default() }
    }
}

impl<V> Default for Entry<V> {
    fn default() -> Self {
        Self { gate: Arc::default(), callers: 0 }
    }
}

impl<K, V> Default for Rounds<K, V> {
    fn default() -> Self {
        Self { gates: Mutex::default() }
    }
}

impl<K: Eq + Hash, V: Clone> Rounds<K, V> {
    /// The answer to a question put from now on: by this caller through `put`, or by another one. Where the caller that puts
    /// it is gone, the next of those that wait does.
    pub(super) async fn ask<F: Future<Output = V>>(&self, question: K, put: impl FnOnce() -> F) -> V
    where
        K: Clone,
    {
        let caller = self.come(question);
        let gate = &caller.gate;
        let round = Arc::clone(gate.waiting.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
        let begun = async {
            let _turn = gate.running.lock().await;
            // From here on it would be too late for others to join.
            gate.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
            put().await
        };
        round.get_or_init(|| begun).await.clone()
    }

    fn come(&self, question: K) -> Caller<'_, K, V>
    where
        K: Clone,
    {
        let mut gates = self.lock();
        let entry = gates.entry(question.clone()).or_default();
        entry.callers += 1;
        Caller { rounds: self, question, gate: Arc::clone(&entry.gate) }
    }
}

impl<K, V> Rounds<K, V> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Entry<V>>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for an answer, or gave up when dropped.
struct Caller<'a, K: Eq + Hash, V> {
    rounds: &'a Rounds<K, V>,
    question: K,
    gate: Arc<Gate<V>>,
}

impl<K: Eq + Hash, V> Drop for Caller<'_, K, V> {
    fn drop(&mut self) {
        let mut gates = self.rounds.lock();
        let Some(entry) = gates.get_mut(&self.question) else { return };
        entry.callers -= 1;
        if entry.callers == 0 {
            gates.remove(&self.question);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use futures_util::{FutureExt as _, future::join_all};
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn callers_that_come_together_share_one_question() {
        let (rounds, asked) = (Rounds::<u8, usize>::default(), AtomicUsize::new(0));
        let ask = |delay: u64| {
            let (rounds, asked) = (&rounds, &asked);
            async move {
                sleep(Duration::from_millis(delay)).await;
                let put = || async move {
                    let number = asked.fetch_add(1, Ordering::SeqCst);
                    sleep(Duration::from_millis(100)).await;
                    number
                };
                rounds.ask(1, put).await
            }
        };
        let answers = join_all([ask(0), ask(10), ask(20), ask(30), ask(110)]).await;
        assert_eq!(answers, [0, 1, 1, 1, 2], "who comes late gets an answer that is as new");
        assert!(rounds.lock().is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_leaves_the_question_to_the_next() {
        let rounds = Rounds::<u8, &str>::default();
        let slow = rounds.ask(1, || async {
            sleep(Duration::from_hours(1)).await;
            "never"
        });
        let given_up = tokio::time::timeout(Duration::from_millis(50), slow);
        let next = async {
            sleep(Duration::from_millis(10)).await;
            rounds.ask(1, || async { "answer" }).await
        };
        let (given_up, next) = tokio::join!(given_up, next);
        assert!(given_up.is_err());
        assert_eq!(next, "answer");
    }

    type Asking = std::pin::Pin<Box<dyn Future<Output = Ends> + Send>>;

    /// An answer that ends another caller when it is dropped: in the middle of its own caller's leaving.
    #[derive(Clone)]
    struct Ends(Arc<Mutex<Option<Asking>>>);

    impl Drop for Ends {
        fn drop(&mut self) {
            let other = self.0.lock().unwrap().take();
            drop(other);
        }
    }

    #[tokio::test]
    async fn callers_that_leave_at_the_same_time_leave_nothing_behind() {
        let rounds = Arc::new(Rounds::<u8, Ends>::default());
        let ends = Ends(Arc::default());
        let (of_first, of_other) = (ends.clone(), Arc::clone(&rounds));
        let (go, gone) = tokio::sync::oneshot::channel();
        let mut first = Box::pin(rounds.ask(1, || async {
            gone.await.unwrap();
            of_first
        }));
        assert!((&mut first).now_or_never().is_none());
        let mut other: Asking = Box::pin(async move { of_other.ask(1, std::future::pending).await });
        assert!((&mut other).now_or_never().is_none());
        *ends.0.lock().unwrap() = Some(other);
        go.send(()).unwrap();
        let answer = first.await;
        assert!(answer.0.lock().unwrap().is_none(), "the other one has left in between");
        assert!(rounds.lock().is_empty(), "nothing is kept");
    }
}
