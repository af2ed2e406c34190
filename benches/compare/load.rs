//! Closed-loop load: so many clients, each sending its next request when the last is answered.

use crate::support::grpc::Client;
use crate::support::now;
use crate::wire::Wire;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::{task::JoinSet, time::sleep_until};
use tonic::Status;

/// Most connections of one load; more clients share them, as the real client's processes would.
const CONNECTIONS_MAX: usize = 64;

/// What one load took.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    pub elapsed: Duration,
    /// Sorted.
    pub each: Vec<Duration>,
}

impl Latencies {
    pub(crate) fn of(elapsed: Duration, mut each: Vec<Duration>) -> Self {
        each.sort_unstable();
        Self { elapsed, each }
    }

    /// The latency that `percent` of the requests stay within.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        self.each
            .get((self.each.len() * percent / 100).min(self.each.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

/// Opens the connections for the calls of `clients` clients.
///
/// # Panics
/// If nothing listens at `endpoint`.
pub(crate) async fn connect(endpoint: &str, clients: usize) -> Vec<Wire> {
    let mut connections = Vec::new();
    for _ in 0..clients.min(CONNECTIONS_MAX) {
        connections.push(Wire::connect(endpoint).await);
    }
    connections
}

/// Opens the connections for the streams of `clients` clients.
///
/// # Panics
/// If nothing listens at `endpoint`.
pub(crate) async fn connect_streams(endpoint: &str, clients: usize) -> Vec<Client> {
    let mut connections = Vec::new();
    for _ in 0..clients.min(CONNECTIONS_MAX) {
        connections.push(Client::connect(endpoint).await.expect("the daemon listens"));
    }
    connections
}

/// Which part of all clients come before this one.
#[expect(clippy::cast_precision_loss, reason = "a count of clients")]
fn share(number: usize, clients: usize) -> f64 {
    number as f64 / clients as f64
}

/// Runs `requests` requests from `clients` clients; `send` gets a client and the number of the request.
///
/// # Panics
/// If a request fails: a load with errors measures nothing.
pub(crate) async fn drive<C, S, F>(connections: &[C], clients: usize, requests: u64, send: S) -> Latencies
where
    C: Clone + Send + 'static,
    S: Fn(C, u64) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let started = now();
    for connection in connections.iter().cycle().take(clients) {
        tasks.spawn(one_client(connection.clone(), Arc::clone(&next), requests, send.clone()));
    }
    let mut each = Vec::new();
    while let Some(done) = tasks.join_next().await {
        each.extend(done.expect("a client does not panic"));
    }
    Latencies::of(started.elapsed(), each)
}

async fn one_client<C, S, F>(connection: C, next: Arc<AtomicU64>, requests: u64, send: S) -> Vec<Duration>
where
    C: Clone,
    S: Fn(C, u64) -> F,
    F: Future<Output = Result<(), Status>>,
{
    let mut latencies = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= requests {
            return latencies;
        }
        let started = now();
        let answer = send(connection.clone(), number).await;
        latencies.push(started.elapsed());
        answer.unwrap_or_else(|status| panic!("request {number} failed: {status}"));
    }
}

/// Requests of so many clients until a moment, as fast as they are answered, or so many a second if that is slower. Latencies
/// are counted from when a request is sent.
///
/// # Panics
/// If a request fails.
pub(crate) async fn drive_until<S, F>(
    connections: &[Wire],
    clients: usize,
    per_second: Option<u32>,
    until: Instant,
    send: S,
) -> Latencies
where
    S: Fn(Wire, usize) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let started = now();
    let pace = per_second.map(|rate| Duration::from_secs(1) * u32::try_from(clients).expect("some clients") / rate);
    let mut tasks = JoinSet::new();
    for (number, connection) in connections.iter().cycle().take(clients).cloned().enumerate() {
        let send = send.clone();
        tasks.spawn(async move {
            let mut each = Vec::new();
            // Clients that all began at once would send all of a turn in one moment.
            let mut due = started + pace.unwrap_or_default().mul_f64(share(number, clients));
            for turn in 0.. {
                if let Some(pace) = pace {
                    sleep_until(due.max(now()).into()).await;
                    due += pace;
                }
                let begun = now();
                if begun >= until {
                    break;
                }
                let answer = send(connection.clone(), number + turn * clients).await;
                each.push(begun.elapsed());
                answer.unwrap_or_else(|status| panic!("a request failed: {status}"));
            }
            each
        });
    }
    let mut each = Vec::new();
    while let Some(done) = tasks.join_next().await {
        each.extend(done.expect("a client does not panic"));
    }
    Latencies::of(started.elapsed(), each)
}
