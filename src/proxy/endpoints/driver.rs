//! A [`Pool`] that all connections of a proxy share, driven by the system's clock.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{select, sync::watch, time};
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Clock as _, SystemChance};

use super::{Asked, Endpoint, Pool, Recovery};

/// Tests that run at a time, so that a list of dead endpoints does not become a flood.
const TESTS_MAX: usize = 16;
/// How long one test may take. A member that needs longer to take a connection is no help to clients.
const TEST_PATIENCE: Duration = Duration::from_secs(5);

/// The endpoints of one proxy. Every call takes a lock for a few lines and never waits.
#[derive(Debug)]
pub struct Endpoints {
    pool: Mutex<Pool>,
    /// Counts changes of the list and of anybody's health.
    version: watch::Sender<u64>,
}

impl Endpoints {
    /// No endpoints yet; those that will fail come back by `recovery`.
    pub fn new(recovery: Recovery) -> Arc<Self> {
        Arc::new(Self { pool: Mutex::new(Pool::new(recovery)), version: watch::Sender::new(0) })
    }

    /// Takes over a new list, as [`Pool::replace`] does. `true` if anything changed.
    pub fn replace(&self, list: &[Endpoint]) -> bool {
        let changed = self.lock().replace(list);
        self.tell(changed)
    }

    /// Takes over a new list in its order, as [`Pool::rearrange`] does.
    pub fn rearrange(&self, list: &[Endpoint]) -> bool {
        let changed = self.lock().rearrange(list);
        self.tell(changed)
    }

    /// Whom to ask in turn; see [`Pool::pick`].
    pub fn pick(&self) -> Option<Arc<Endpoint>> {
        self.lock().pick(now(), &mut SystemChance)
    }

    /// As [`Endpoints::pick`], but waits until there is somebody.
    pub async fn wait_for_one(&self) -> Arc<Endpoint> {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            if let Some(endpoint) = self.pick() {
                return endpoint;
            }
            // Where time alone brings endpoints back, no change is told.
            let next = self.lock().next_due().map(|due| due.saturating_sub(now()));
            let over = time::sleep(next.unwrap_or(TEST_PATIENCE).clamp(Duration::from_millis(1), TEST_PATIENCE));
            select! {
                _ = changes.changed() => {}
                () = over => {}
            }
        }
    }

    /// Everybody who may be asked, always in the same order.
    pub fn available(&self) -> Vec<Arc<Endpoint>> {
        self.lock().available(now())
    }

    /// Every endpoint, whether it answers or not.
    pub fn all(&self) -> Vec<Arc<Endpoint>> {
        self.lock().all()
    }

    /// `endpoint` did not answer: it is left alone for a while. Told in the log once.
    pub fn report_failed(&self, endpoint: &Arc<Endpoint>, cause: &dyn fmt::Display) {
        let (is_news, recovery) = {
            let mut pool = self.lock();
            (pool.failed(endpoint, now()), pool.recovery())
        };
        if self.tell(is_news) {
            let (address, interval) = (endpoint.address.as_str(), recovery.wait());
            match recovery {
                Recovery::AfterTest(_) => tracing::warn!(address, ?interval, error = %cause, "deactivated endpoint"),
                Recovery::AfterWait(_) => {
                    tracing::warn!(endpoint = address, ?interval, error = %cause, "marked endpoint unavailable");
                }
            }
        }
    }

    /// `endpoint` answered.
    pub fn report_answered(&self, endpoint: &Arc<Endpoint>) {
        let is_news = self.lock().answered(endpoint, now());
        if self.tell(is_news) {
            tracing::info!(endpoint = endpoint.address, "marked endpoint available");
        }
    }

    /// `endpoint` took a connection, and has not answered yet.
    pub fn report_reached(&self, endpoint: &Arc<Endpoint>) {
        let is_news = self.lock().reached(endpoint);
        if self.tell(is_news) {
            tracing::info!(endpoint = endpoint.address, "marked endpoint available");
        }
    }

    /// A request goes to `endpoint`; what comes of it is told to the answer.
    pub fn ask(&self, endpoint: &Arc<Endpoint>) -> Asked<'_> {
        Asked::new(self, endpoint, now())
    }

    /// `endpoint` was asked at `since` and says nothing; see [`Pool::silent`].
    pub(super) fn report_silent(&self, endpoint: &Arc<Endpoint>, since: Duration) {
        let now = now();
        let is_news = self.lock().silent(endpoint, since, now);
        if self.tell(is_news) {
            let (endpoint, silence) = (endpoint.address.as_str(), now.saturating_sub(since));
            tracing::warn!(endpoint, ?silence, "marked endpoint unavailable: it takes requests and does not answer");
        }
    }

    /// Forgets every failure, as after a list that is newer than they are.
    pub fn forgive(&self) {
        self.lock().forgive();
        self.tell(true);
    }

    /// How failed endpoints come back from now on.
    pub fn set_recovery(&self, recovery: Recovery) {
        self.lock().set_recovery(recovery);
        self.tell(true);
    }

    /// A number that grows with every change of the list or of anybody's health.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Tests failed endpoints when their wait is over ([`Recovery::AfterTest`]), until `stop` is cancelled.
    pub async fn keep_testing<T, F>(&self, test: T, stop: CancellationToken)
    where
        T: Fn(Arc<Endpoint>) -> F,
        F: Future<Output = io::Result<()>>,
    {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            let next = self.lock().next_due();
            let pause = async {
                match next {
                    Some(due) => time::sleep(due.saturating_sub(now())).await,
                    None => std::future::pending().await,
                }
            };
            select! {
                () = stop.cancelled() => return,
                _ = changes.changed() => continue,
                () = pause => {}
            }
            let due = self.lock().due(now());
            let tests = stream::iter(due).for_each_concurrent(TESTS_MAX, |endpoint| self.test_one(endpoint, &test));
            select! {
                () = stop.cancelled() => return,
                () = tests => {}
            }
        }
    }

    async fn test_one<T, F>(&self, endpoint: Arc<Endpoint>, test: &T)
    where
        T: Fn(Arc<Endpoint>) -> F,
        F: Future<Output = io::Result<()>>,
    {
        let outcome = time::timeout(TEST_PATIENCE, test(Arc::clone(&endpoint))).await;
        let address = endpoint.address.as_str();
        match outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(()) => {
                if self.lock().answered(&endpoint, now()) {
                    tracing::info!(address, "activated");
                }
            }
            Err(error) => {
                self.lock().failed(&endpoint, now());
                tracing::warn!(address, %error, "failed to activate endpoint (stay inactive for another interval)");
            }
        }
        self.tell(true);
    }

    /// Wakes whoever waits for a change; hands `changed` back.
    fn tell(&self, changed: bool) -> bool {
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn now() -> Duration {
    clock::system().monotonic()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_test_brings_an_endpoint_back_and_those_who_wait_hear_of_it() {
        let endpoints = Endpoints::new(Recovery::AfterTest(SOON));
        endpoints.replace(&[Endpoint::new("a")]);
        let a = endpoints.pick().unwrap();
        endpoints.report_failed(&a, &"refused");
        assert!(endpoints.pick().is_none());
        let tests = AtomicUsize::new(0);
        let test = |_| async {
            // The first test finds it dead still.
            if tests.fetch_add(1, Ordering::SeqCst) == 0 {
                Err(io::ErrorKind::ConnectionRefused.into())
            } else {
                Ok(())
            }
        };
        let stop = CancellationToken::new();
        select! {
            () = endpoints.keep_testing(test, stop.clone()) => panic!("ended by itself"),
            back = endpoints.wait_for_one() => assert_eq!(back.address, "a"),
        }
        assert_eq!(tests.load(Ordering::SeqCst), 2);
        stop.cancel();
        endpoints.keep_testing(test, stop).await;
    }

    #[tokio::test]
    async fn time_alone_brings_an_endpoint_back_where_that_is_the_rule() {
        let endpoints = Endpoints::new(Recovery::AfterWait(SOON));
        endpoints.replace(&[Endpoint::new("a")]);
        let a = endpoints.pick().unwrap();
        endpoints.report_failed(&a, &"refused");
        assert!(endpoints.pick().is_none());
        assert_eq!(endpoints.wait_for_one().await, a);
    }

    #[tokio::test]
    async fn a_new_list_ends_the_wait() {
        let endpoints = Endpoints::new(Recovery::AfterTest(Duration::from_hours(1)));
        let (found, ()) = tokio::join!(endpoints.wait_for_one(), async {
            tokio::task::yield_now().await;
            endpoints.replace(&[Endpoint::new("b")]);
        });
        assert_eq!(found.address, "b");
    }
}
