//! One connection per endpoint, and which of them takes the next call.
//!
//! A task per endpoint connects, and connects again after a loss, so that an endpoint which does not answer holds up
//! nobody. Invariant: a channel handed out was connected when it was put up; the caller reports it when it is not.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet, time};
use tonic::transport::{Channel, Endpoint as Target};

use super::{
    ClientError, Options,
    dial::{Encrypted, Handshake, TCP_KEEPALIVE_IDLE, TCP_KEEPALIVE_INTERVAL, TCP_KEEPALIVE_PROBES},
    endpoint::{Address, Endpoint},
};

/// The connections of one client.
#[derive(Debug)]
pub(super) struct Balancer {
    shared: Arc<Shared>,
    /// Ends with the client.
    _connectors: JoinSet<()>,
}

/// A channel and the slot it came from.
pub(super) struct Picked {
    slot: usize,
    pub(super) channel: Channel,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes callers that wait for a connection.
    up: Notify,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    endpoint: Endpoint,
    /// Wakes the connector when its channel was reported lost.
    lost: Notify,
}

#[derive(Debug)]
struct State {
    channels: Vec<Option<Channel>>,
    next: usize,
    last_failure: Option<String>,
}

impl Balancer {
    /// Starts connecting to all `endpoints`. One that is no address is never up, as in etcd's client; that all are is
    /// an error.
    pub(super) fn start(endpoints: Vec<Endpoint>, options: &Options) -> Result<Self, ClientError> {
        let mut targets = Vec::new();
        let mut bad = None;
        for (slot, endpoint) in endpoints.iter().enumerate() {
            let encrypted = Encrypted::for_endpoint(endpoint, options.tls.as_ref());
            match target(endpoint, encrypted.is_some(), options) {
                Ok(target) => targets.push((slot, Way { target, encrypted })),
                Err(error) => bad = bad.or(Some(error)),
            }
        }
        if let Some(error) = bad.filter(|_| targets.is_empty()) {
            return Err(error);
        }
        let state = State { channels: vec![None; endpoints.len()], next: 0, last_failure: None };
        let slots = endpoints.into_iter().map(|endpoint| Slot { endpoint, lost: Notify::new() }).collect();
        let shared = Arc::new(Shared { state: Mutex::new(state), up: Notify::new(), slots });
        let mut connectors = JoinSet::new();
        for (slot, way) in targets {
            connectors.spawn(keep_connected(Arc::clone(&shared), slot, way));
        }
        Ok(Self { shared, _connectors: connectors })
    }

    pub(super) fn len(&self) -> usize {
        self.shared.slots.len()
    }

    /// The address the log lines name the client by.
    pub(super) fn first_authority(&self) -> &str {
        self.shared.slots.first().map_or("", |slot| slot.endpoint.authority())
    }

    /// The next endpoint that is up, in turn; waits until there is one.
    pub(super) async fn pick(&self) -> Picked {
        loop {
            let up = self.shared.up.notified();
            if let Some(picked) = self.shared.lock().next() {
                return picked;
            }
            up.await;
        }
    }

    /// Takes a channel out of service after a call found it without connection.
    pub(super) fn report_lost(&self, picked: &Picked, failure: String) {
        let mut state = self.shared.lock();
        if let Some(channel) = state.channels.get_mut(picked.slot) {
            *channel = None;
        }
        state.last_failure = Some(failure);
        drop(state);
        if let Some(slot) = self.shared.slots.get(picked.slot) {
            slot.lost.notify_one();
        }
    }

    /// Why there is no connection, if none was made yet.
    pub(super) fn last_failure(&self) -> Option<String> {
        self.shared.lock().last_failure.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_up(&self, slot: usize, connected: Channel) {
        let mut state = self.lock();
        if let Some(channel) = state.channels.get_mut(slot) {
            *channel = Some(connected);
        }
        state.last_failure = None;
        drop(state);
        self.up.notify_waiters();
    }
}

impl State {
    /// Round robin over the slots that are up.
    fn next(&mut self) -> Option<Picked> {
        let count = self.channels.len();
        let slot = (0..count)
            .map(|step| (self.next + step) % count)
            .find(|slot| self.channels.get(*slot).is_some_and(Option::is_some))?;
        self.next = (slot + 1) % count;
        let channel = self.channels.get(slot).cloned().flatten()?;
        Some(Picked { slot, channel })
    }
}

/// How an endpoint is connected to.
struct Way {
    target: Target,
    encrypted: Option<Encrypted>,
}

impl Way {
    async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        match &self.encrypted {
            None => self.target.connect().await,
            Some(encrypted) => self.target.connect_with_connector(encrypted.clone()).await,
        }
    }
}

/// Connects `slot` for as long as the client lives.
async fn keep_connected(shared: Arc<Shared>, slot: usize, way: Way) {
    let Some(Slot { lost, endpoint }) = shared.slots.get(slot) else { return };
    let mut wait = RECONNECT_WAIT_MIN;
    loop {
        match way.connect().await {
            Ok(channel) => {
                wait = RECONNECT_WAIT_MIN;
                shared.put_up(slot, channel);
                lost.notified().await;
            }
            Err(error) => shared.lock().last_failure = Some(dial_failure(endpoint, &error)),
        }
        time::sleep(wait).await;
        wait = wait.saturating_mul(2).min(RECONNECT_WAIT_MAX);
    }
}

/// The failure in the words etcd's client logs it with.
fn dial_failure(endpoint: &Endpoint, error: &tonic::transport::Error) -> String {
    let mut root: &dyn std::error::Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    if let Some(handshake) = find::<Handshake>(error) {
        return format!("connection error: desc = \"transport: authentication handshake failed: {handshake}\"");
    }
    let cause = io_words(root);
    let network = match endpoint.address {
        Address::Tcp(_) => "tcp",
        Address::Unix(_) => "unix",
    };
    let authority = endpoint.authority();
    format!("connection error: desc = \"transport: Error while dialing: dial {network} {authority}: {cause}\"")
}

/// The cause of this type, which may be wrapped in an input or output error.
fn find<'e, E: std::error::Error + 'static>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e E> {
    let inner = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
    let here = error.downcast_ref::<E>().or_else(|| inner.and_then(|inner| inner.downcast_ref::<E>()));
    here.or_else(|| error.source().and_then(find::<E>))
}

fn io_words(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionRefused) => "connect: connection refused".to_owned(),
        Some(std::io::ErrorKind::NotFound) => "connect: no such file or directory".to_owned(),
        Some(std::io::ErrorKind::TimedOut) => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

/// A connection to `endpoint` that is made when it is first needed, and again after a loss. Must run inside a tokio runtime.
///
/// # Errors
/// [`ClientError::BadEndpoint`].
pub fn connect_lazily(endpoint: &Endpoint, options: &Options) -> Result<Channel, ClientError> {
    let encrypted = Encrypted::for_endpoint(endpoint, options.tls.as_ref());
    let target = target(endpoint, encrypted.is_some(), options)?.connect_timeout(options.dial_timeout);
    Ok(match encrypted {
        None => target.connect_lazy(),
        Some(encrypted) => target.connect_with_connector_lazy(encrypted),
    })
}

fn target(endpoint: &Endpoint, encrypted: bool, options: &Options) -> Result<Target, ClientError> {
    let uri = match &endpoint.address {
        Address::Tcp(authority) if encrypted => format!("https://{authority}"),
        Address::Tcp(authority) => format!("http://{authority}"),
        // Its connector knows the path.
        Address::Unix(_) if encrypted => "https://localhost".to_owned(),
        Address::Unix(path) => format!("unix://{path}"),
    };
    let bad = |error: tonic::transport::Error| ClientError::BadEndpoint {
        endpoint: endpoint.text.clone(),
        reason: std::error::Error::source(&error).unwrap_or(&error).to_string(),
    };
    if matches!(endpoint.address, Address::Tcp(_)) && !has_port(endpoint.authority()) {
        let reason = "it has no port".to_owned();
        return Err(ClientError::BadEndpoint { endpoint: endpoint.text.clone(), reason });
    }
    let target = Target::from_shared(uri)
        .map_err(bad)?
        .connect_timeout(CONNECT_TIMEOUT)
        // Pings go where calls wait; a connection that waits for calls is looked after by the system alone.
        .tcp_keepalive(Some(TCP_KEEPALIVE_IDLE))
        .tcp_keepalive_interval(Some(TCP_KEEPALIVE_INTERVAL))
        .tcp_keepalive_retries(Some(TCP_KEEPALIVE_PROBES))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    Ok(if options.keepalive_time.is_zero() {
        target
    } else {
        let interval = options.keepalive_time.max(KEEPALIVE_TIME_MIN);
        target.http2_keep_alive_interval(interval).keep_alive_timeout(options.keepalive_timeout)
    })
}

fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// Longest time one attempt to connect may take, as in etcd's client.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause before the first new attempt to connect; a restarting member is back within a few of these.
const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two attempts to connect.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Members close connections that ping more often than every 5 s; gRPC's Go clients stay above this.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);
/// What a member may send on one stream before it is read: a default-sized answer in one flight.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// What a member may send on all streams of a connection before it is read.
const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    fn state(up: &[bool]) -> State {
        let channel = || Target::from_static("http://127.0.0.1:1").connect_lazy();
        State { channels: up.iter().map(|up| up.then(channel)).collect(), next: 0, last_failure: None }
    }

    fn slots(state: &mut State, picks: usize) -> Vec<Option<usize>> {
        (0..picks).map(|_| state.next().map(|picked| picked.slot)).collect()
    }

    #[tokio::test]
    async fn calls_go_round_the_endpoints_that_are_up() {
        assert_eq!(slots(&mut state(&[true, false, true]), 4), [Some(0), Some(2), Some(0), Some(2)]);
        assert_eq!(slots(&mut state(&[false, false]), 1), [None]);
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_in_the_words_of_etcd() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let endpoint = Endpoint::parse(&closed.to_string());
        let error = target(&endpoint, false, &Options::default()).unwrap().connect().await.unwrap_err();
        assert_eq!(
            dial_failure(&endpoint, &error),
            format!(
                "connection error: desc = \"transport: Error while dialing: dial tcp {closed}: connect: connection refused\""
            )
        );
    }

    #[test]
    fn connections_are_kept_alive_unless_told_otherwise() {
        let target = target(&Endpoint::parse("127.0.0.1:1"), false, &Options::default()).unwrap();
        assert_eq!(target.get_tcp_keepalive(), Some(TCP_KEEPALIVE_IDLE));
        assert_eq!(target.get_tcp_keepalive_interval(), Some(TCP_KEEPALIVE_INTERVAL));
        assert_eq!(target.get_tcp_keepalive_retries(), Some(TCP_KEEPALIVE_PROBES));
        assert!(Options::default().keepalive_time >= KEEPALIVE_TIME_MIN, "and pinged while calls wait");
    }

    #[test]
    fn an_endpoint_that_is_no_address_is_named() {
        for text in ["localhost", "a b:1", "http://127.0.0.1"] {
            let error = target(&Endpoint::parse(text), false, &Options::default()).unwrap_err();
            assert!(error.to_string().starts_with(&format!("endpoint {text:?} is not an address")), "{error}");
        }
    }
}
