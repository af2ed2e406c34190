//! One client that writes all the time, one key after the other, through whichever members there are.

use super::support::{
    grpc::{self, Client},
    now,
};
use quorate::pb::mvccpb::KeyValue;
use std::collections::HashMap;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two writes.
const PACE: Duration = Duration::from_millis(10);
/// How long one member has to answer before the next one is asked.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// Before the next attempt after one that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long a write is tried again before the cluster counts as down.
const PATIENCE: Duration = Duration::from_secs(40);

/// A writer at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    endpoints: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<Written>,
}

/// What was acknowledged: the revision of each key, in the order of writing.
pub(crate) struct Written {
    revisions: Vec<i64>,
    pub(crate) slowest: Duration,
}

impl Load {
    /// # Panics
    /// If there is no thread for it.
    pub(crate) fn start(endpoints: Vec<String>) -> Self {
        let (stop, endpoints) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(endpoints)));
        let (flag, list) = (Arc::clone(&stop), Arc::clone(&endpoints));
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(write_until(&flag, &list))
        };
        Self { stop, endpoints, thread: std::thread::Builder::new().spawn(work).expect("a thread") }
    }

    /// From the next attempt on these are written through, and no others.
    ///
    /// # Panics
    /// If the writer panicked.
    pub(crate) fn use_only(&self, endpoints: Vec<String>) {
        *self.endpoints.lock().expect("no panic") = endpoints;
    }

    /// Ends it.
    ///
    /// # Panics
    /// If a write was not acknowledged for long, or in the wrong order.
    pub(crate) fn stop(self) -> Written {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("every write is acknowledged in time and in order")
    }
}

impl Written {
    pub(crate) fn count(&self) -> usize {
        self.revisions.len()
    }

    /// Looks for every acknowledged write in what one member has.
    ///
    /// # Panics
    /// If one is missing, or older than it was said to be.
    pub(crate) fn check(&self, found: &[KeyValue], whose: usize) {
        let there: HashMap<&[u8], i64> = found.iter().map(|kv| (kv.key.as_ref(), kv.mod_revision)).collect();
        for (number, revision) in self.revisions.iter().enumerate() {
            let seen = there.get(key_of(number).as_bytes()).copied();
            // An attempt that was given up may have been carried out after the one that was acknowledged.
            assert!(seen >= Some(*revision), "write {number} at {revision} is {seen:?} on member {whose}");
        }
    }
}

/// What all keys of the load begin with.
pub(crate) const PREFIX: &str = "load/";

fn key_of(number: usize) -> String {
    format!("{PREFIX}{number:08}")
}

async fn write_until(stop: &AtomicBool, endpoints: &Mutex<Vec<String>>) -> Written {
    let mut written = Written { revisions: Vec::new(), slowest: Duration::ZERO };
    let mut connections = HashMap::new();
    while !stop.load(Ordering::SeqCst) {
        let began = now();
        let revision = write(written.count(), endpoints, &mut connections).await;
        let before = written.revisions.last().copied().unwrap_or_default();
        assert!(revision > before, "write {} is at {revision}, behind {before}", written.count());
        written.revisions.push(revision);
        written.slowest = written.slowest.max(began.elapsed());
        tokio::time::sleep(PACE).await;
    }
    written
}

/// Writes one key and returns its revision, however often that takes.
async fn write(number: usize, endpoints: &Mutex<Vec<String>>, connections: &mut HashMap<String, Client>) -> i64 {
    let began = now();
    for attempt in number.. {
        let endpoint = {
            let endpoints = endpoints.lock().expect("no panic");
            endpoints.get(attempt % endpoints.len()).cloned().expect("a remainder")
        };
        let mut client = connections.entry(endpoint.clone()).or_insert_with(|| Client::lazy(&endpoint)).clone();
        let put = client.kv.put(grpc::put(key_of(number), number.to_string()));
        let refusal = match tokio::time::timeout(ATTEMPT_LIMIT, put).await {
            Ok(Ok(answer)) => return answer.into_inner().header.expect("a header").revision,
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => format!("no answer in {ATTEMPT_LIMIT:?}"),
        };
        assert!(began.elapsed() < PATIENCE, "write {number} through {endpoint} fails for good: {refusal}");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    unreachable!("attempts do not end")
}
