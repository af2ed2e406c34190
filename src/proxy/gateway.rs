//! The TCP gateway: bytes from a client to one of the members and back, whatever they mean.
//!
//! An endpoint that cannot be reached is left alone and tested once per retry delay; when none is left a client's connection
//! is closed at once. A side that has said everything (a TCP half-close) may still hear the answer.
//!
//! Invariants: connections are bounded in number, the bytes of each by two buffers; a connection whose other side is gone
//! without a word ends by TCP's keepalive, and one whose client says nothing, or stays when its member has gone, soon.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, copy_buf},
    net::{TcpListener, TcpStream, lookup_host},
    select,
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    accept,
    dial::Dialler,
    endpoints::{Endpoint, Endpoints},
};

/// How long a member may take to accept a connection. etcd's gateway waits as long as the system does, minutes.
pub const DIAL_PATIENCE: Duration = Duration::from_secs(5);
/// How long clients may keep a place for nothing.
const PATIENCE: Patience = Patience { first: Duration::from_mins(5), rest: Duration::from_mins(1) };
/// Bytes on the way, for each direction of a connection.
const BUFFER_BYTES: usize = 16 * 1024;

/// Why a gateway does not start, in etcd's words.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Without `host:port`.
    #[error("error parsing endpoint {0:?}: write host:port")]
    BadEndpoint(String),
    /// None at all.
    #[error("no endpoints found: name at least one with --endpoints or --endpoints-file")]
    NoEndpoints,
    /// Without `host:port`.
    #[error("failed to validate listen address: {0}: write address:port")]
    BadListenAddress(String),
    /// A name the system does not know.
    #[error("failed to resolve listen host: {0}: write an address of this machine")]
    UnknownListenHost(String),
    /// A name the system does not know.
    #[error("failed to resolve endpoint host: {0}: check the name, or write an address")]
    UnknownEndpointHost(String),
    /// It would talk to itself.
    #[error(
        "SRV or endpoint ({endpoint}->{address}) should not resolve to the gateway listen addr ({listen}): name a member, or \
         listen elsewhere with --listen-addr"
    )]
    Itself {
        /// As given.
        endpoint: String,
        /// What it means.
        address: SocketAddr,
        /// As given.
        listen: String,
    },
}

/// Reads one endpoint: `host:port`, with or without a scheme in front, which means nothing to bytes.
///
/// # Errors
/// etcd's text.
pub fn parse_endpoint(text: &str) -> Result<Endpoint, GatewayError> {
    let bare = match text.split_once("://") {
        Some((_, rest)) => rest.split(['/', '?', '#']).next().unwrap_or_default(),
        None => text,
    };
    if split_host_port(bare).is_none() {
        return Err(GatewayError::BadEndpoint(text.to_owned()));
    }
    Ok(Endpoint::new(bare))
}

/// Host without brackets, and port.
fn split_host_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = inner.or_else(|| (!host.contains([':', '[', ']'])).then_some(host))?;
    Some((host, port.parse().ok()?))
}

/// The address to listen on.
///
/// # Errors
/// etcd's texts.
pub async fn listen_address(listen: &str) -> Result<SocketAddr, GatewayError> {
    let bad = || GatewayError::BadListenAddress(listen.to_owned());
    let (host, port) = split_host_port(listen).ok_or_else(bad)?;
    let host = if host.is_empty() { "::" } else { host };
    let found = lookup_host((host, port)).await.ok().and_then(|mut found| found.next());
    found.ok_or_else(|| GatewayError::UnknownListenHost(host.to_owned()))
}

/// Checks that no endpoint is the gateway itself and that the system knows all of them, as etcd does at a start.
///
/// # Errors
/// etcd's texts.
pub async fn check_endpoints(list: &[Endpoint], listen: &str) -> Result<(), GatewayError> {
    let own = listen_address(listen).await?;
    if list.is_empty() {
        return Err(GatewayError::NoEndpoints);
    }
    for endpoint in list {
        let unknown = |_| {
            let host = split_host_port(&endpoint.address).map_or("", |(host, _)| host);
            GatewayError::UnknownEndpointHost(host.to_owned())
        };
        let mut found = lookup_host(&endpoint.address).await.map_err(unknown)?;
        if let Some(address) = found.find(|address| *address == own) {
            let (endpoint, listen) = (endpoint.address.clone(), listen.to_owned());
            return Err(GatewayError::Itself { endpoint, address, listen });
        }
    }
    Ok(())
}

/// How long a client may keep its place.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Before either side says anything: as long as members have for the head of a request.
    first: Duration,
    /// When its member has said everything.
    rest: Duration,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    endpoints: Arc<Endpoints>,
    dialler: Dialler,
    places: Arc<Semaphore>,
    places_max: usize,
}

impl Gateway {
    /// Between clients and `endpoints`, for at most `connections_max` connections at a time; others wait in the system's
    /// queue. `own` is where it listens.
    pub fn new(endpoints: Arc<Endpoints>, own: SocketAddr, connections_max: usize) -> Arc<Self> {
        let places_max = connections_max.clamp(1, Semaphore::MAX_PERMITS);
        let dialler = Dialler { patience: DIAL_PATIENCE, own: Arc::new([own]) };
        Arc::new(Self { endpoints, dialler, places: Arc::new(Semaphore::new(places_max)), places_max })
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.places_max.saturating_sub(self.places.available_permits())
    }

    /// Serves one listener until `stop` is cancelled; then cuts what is open, because it would never end by itself.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let connect = |client: TcpStream, _| {
            let gateway = Arc::clone(&self);
            async move { gateway.connect(client).await }
        };
        accept::each(listener, &self.places, connect, stop, Duration::ZERO).await;
    }

    /// Tests failed endpoints once per retry delay, until `stop` is cancelled.
    pub async fn keep_testing(self: Arc<Self>, stop: CancellationToken) {
        let test = |endpoint: Arc<Endpoint>| {
            let dialler = self.dialler.clone();
            async move { dialler.dial(&endpoint.address).await.map(drop) }
        };
        self.endpoints.keep_testing(test, stop).await;
    }

    async fn connect(&self, mut client: TcpStream) {
        let Some(mut member) = self.reach().await else { return };
        if let Err(error) = carry(&mut client, &mut member, PATIENCE).await {
            tracing::debug!(%error, "a connection broke");
        }
    }

    /// A connection to the next endpoint that takes one; nothing when there is none left.
    async fn reach(&self) -> Option<TcpStream> {
        loop {
            let endpoint = self.endpoints.pick()?;
            match self.dialler.dial(&endpoint.address).await {
                Ok(stream) => return Some(stream),
                Err(error) => self.endpoints.report_failed(&endpoint, &error),
            }
        }
    }
}

/// Carries bytes both ways until both sides have said everything, or the client keeps its place for nothing.
async fn carry(client: &mut TcpStream, member: &mut TcpStream, patience: Patience) -> io::Result<()> {
    let (mut client_byte, mut member_byte) = ([0], [0]);
    let begun = async {
        select! {
            begun = client.peek(&mut client_byte) => begun,
            begun = member.peek(&mut member_byte) => begun,
        }
    };
    timeout(patience.first, begun).await??;
    let ((from_client, to_client), (from_member, to_member)) = (client.split(), member.split());
    let (mut asking, mut answering) = (pin!(pass_on(from_client, to_member)), pin!(pass_on(from_member, to_client)));
    select! {
        asked = &mut asking => {
            asked?;
            answering.await
        }
        answered = &mut answering => {
            answered?;
            timeout(patience.rest, asking).await?
        }
    }
}

/// Passes on what one side says, and that it has said everything.
async fn pass_on(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    copy_buf(&mut BufReader::with_capacity(BUFFER_BYTES, from), &mut to).await?;
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, task::JoinSet};

    use super::*;
    use crate::proxy::endpoints::Recovery;

    const LONG: Duration = Duration::from_hours(1);

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    /// A gateway before `endpoints`, and where it listens. It ends with the test's runtime.
    async fn gateway(endpoints: &[String], connections_max: usize) -> (Arc<Gateway>, String, JoinSet<()>) {
        let pool = Endpoints::new(Recovery::AfterTest(LONG));
        pool.replace(&endpoints.iter().map(Endpoint::new).collect::<Vec<_>>());
        let (listener, address) = listener().await;
        let gateway = Gateway::new(pool, listener.local_addr().unwrap(), connections_max);
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&gateway).serve(listener, CancellationToken::new()));
        (gateway, address, running)
    }

    #[tokio::test]
    async fn a_client_that_has_said_everything_hears_the_answer() {
        let (member, at) = listener().await;
        let (_, address, _running) = gateway(&[at], 8).await;
        let answering = async {
            let (mut stream, _) = member.accept().await.unwrap();
            let mut asked = String::new();
            stream.read_to_string(&mut asked).await.unwrap();
            stream.write_all(format!("{asked} indeed").as_bytes()).await.unwrap();
        };
        let asking = async {
            let mut client = TcpStream::connect(&address).await.unwrap();
            client.write_all(b"so").await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert_eq!(tokio::join!(answering, asking).1, "so indeed");
    }

    /// A client and a member with a gateway between them that has little patience, and how that ends.
    async fn between(first_ms: u64, rest_ms: u64) -> (TcpStream, TcpStream, JoinSet<io::Result<()>>) {
        let pair = async || {
            let (listener, address) = listener().await;
            let (near, far) = tokio::join!(TcpStream::connect(&address), listener.accept());
            (near.unwrap(), far.unwrap().0)
        };
        let ((client, mut of_client), (member, mut of_member)) = (pair().await, pair().await);
        let patience = Patience { first: Duration::from_millis(first_ms), rest: Duration::from_millis(rest_ms) };
        let mut running = JoinSet::new();
        running.spawn(async move { carry(&mut of_client, &mut of_member, patience).await });
        (client, member, running)
    }

    #[tokio::test]
    async fn who_says_nothing_gives_his_place_back() {
        let (mut client, mut member, mut running) = between(20, 3_600_000).await;
        let ended = running.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert_eq!((client.read(&mut [0]).await.unwrap(), member.read(&mut [0]).await.unwrap()), (0, 0));
    }

    #[tokio::test]
    async fn who_has_begun_may_take_any_time_until_his_member_goes() {
        let (mut client, mut member, mut running) = between(20, 20).await;
        client.write_all(b"so").await.unwrap();
        member.read_exact(&mut [0; 2]).await.unwrap();
        assert!(timeout(Duration::from_millis(100), running.join_next()).await.is_err());
        drop(member);
        let ended = running.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_dead_endpoint_is_passed_over_and_nobody_left_closes_the_connection() {
        let (member, at) = listener().await;
        let (dead, nowhere) = listener().await;
        drop(dead);
        let (gateway, address, _running) = gateway(&[nowhere, at.clone()], 8).await;
        for _ in 0..3 {
            let client = TcpStream::connect(&address).await.unwrap();
            member.accept().await.unwrap();
            drop(client);
        }
        let left: Vec<_> = gateway.endpoints.available().iter().map(|one| one.address.clone()).collect();
        assert_eq!(left, [at]);
        drop(member);
        let mut client = TcpStream::connect(&address).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert!(gateway.endpoints.available().is_empty());
    }

    #[tokio::test]
    async fn connections_beyond_the_bound_wait() {
        let (member, at) = listener().await;
        let (gateway, address, _running) = gateway(&[at], 1).await;
        let first = TcpStream::connect(&address).await.unwrap();
        let held = member.accept().await.unwrap();
        let _second = TcpStream::connect(&address).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), member.accept()).await;
        assert!(early.is_err() && gateway.connections() == 1);
        drop((first, held));
        member.accept().await.unwrap();
    }

    #[test]
    fn endpoints_are_host_and_port_whatever_stands_before() {
        let address = |text: &str| parse_endpoint(text).map(|endpoint| endpoint.address).map_err(|e| e.to_string());
        assert_eq!(address("https://a:1/x").as_deref(), Ok("a:1"));
        assert_eq!(address("[::1]:2379").as_deref(), Ok("[::1]:2379"));
        for bad in ["a", "a:x", "::1:2", "", "http://a"] {
            assert!(address(bad).unwrap_err().starts_with(&format!("error parsing endpoint {bad:?}")), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_start_is_refused_in_etcds_words() {
        let of = |text: &str| vec![Endpoint::new(text)];
        let refusal =
            async |list: Vec<Endpoint>, listen: &str| check_endpoints(&list, listen).await.unwrap_err().to_string();
        let itself = refusal(of("127.0.0.1:23790"), "127.0.0.1:23790").await;
        assert!(itself.starts_with(
            "SRV or endpoint (127.0.0.1:23790->127.0.0.1:23790) should not resolve to the gateway listen addr \
             (127.0.0.1:23790)"
        ));
        assert!(
            refusal(of("a.invalid:1"), "127.0.0.1:2").await.starts_with("failed to resolve endpoint host: a.invalid")
        );
        assert!(
            refusal(of("127.0.0.1:1"), "127.0.0.1").await.starts_with("failed to validate listen address: 127.0.0.1")
        );
        assert!(
            refusal(of("127.0.0.1:1"), "b.invalid:1").await.starts_with("failed to resolve listen host: b.invalid")
        );
        assert!(refusal(vec![], "127.0.0.1:2").await.starts_with("no endpoints found"));
        check_endpoints(&of("127.0.0.1:1"), "127.0.0.1:2").await.unwrap();
    }
}
