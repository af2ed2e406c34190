//! A resolver for SRV records, which the system's own functions do not ask for.
//!
//! It asks the servers of `/etc/resolv.conf` as they are: over UDP, over TCP if an answer was cut, each in turn, as often
//! and as long as that file says. Addresses of hosts are for the system to find, which has other sources than DNS.
//!
//! Invariants: an answer counts only if it comes from the server that was asked and repeats the question and its random
//! number; aliases are followed within one answer and not for ever; what comes out are host names, and not too many.

mod message;
mod settings;

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use message::{Query, Reply};
pub use settings::Settings;

/// Longest datagram that is read. Larger ones are cut by the system, which makes them unreadable.
const DATAGRAM_BYTES_MAX: usize = 4096;
/// Answers to something else that are passed over while the right one is awaited.
const STRAYS_MAX: usize = 64;

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Srv {
    /// Smaller is better.
    pub priority: u16,
    /// Share among those of one priority.
    pub weight: u16,
    /// The host, without a dot at its end.
    pub target: String,
    /// The port.
    pub port: u16,
}

/// A name could not be looked up; in the words of Go's resolver.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("lookup {name}{}: {fault}", .server.map_or_else(String::new, |server| format!(" on {server}")))]
pub struct LookupError {
    /// The name.
    pub name: String,
    /// The server that was asked last.
    pub server: Option<SocketAddr>,
    /// What is wrong.
    pub fault: Fault,
}

impl LookupError {
    /// Whether whoever was asked knows that there is nothing; whatever else is wrong may be otherwise the next time.
    pub fn is_certain(&self) -> bool {
        matches!(self.fault, Fault::NoSuchHost | Fault::BadName)
    }
}

/// Why a name could not be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such record, and whoever says so knows.
    NoSuchHost,
    /// The server did not answer in time.
    Timeout,
    /// The server refuses, or has failed itself.
    Misbehaving,
    /// What the server says cannot be.
    Malformed(&'static str),
    /// The server cannot be reached.
    Unreachable(String),
    /// The name is none.
    BadName,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchHost => f.write_str("no such host"),
            Self::Timeout => f.write_str("i/o timeout"),
            Self::Misbehaving => f.write_str("server misbehaving"),
            Self::Malformed(what) => write!(f, "DNS response contained {what}"),
            Self::Unreachable(why) => f.write_str(why),
            Self::BadName => f.write_str("invalid domain name"),
        }
    }
}

/// Asks name servers.
#[derive(Clone, Debug)]
pub struct Resolver {
    settings: Settings,
}

impl Resolver {
    /// A resolver that asks as `settings` say.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// The system's resolver.
    pub fn of_system() -> Self {
        Self::new(Settings::of_system())
    }

    /// The SRV records of `name`, in no order.
    ///
    /// # Errors
    /// [`LookupError`]; no records at all are [`Fault::NoSuchHost`].
    pub async fn srv(&self, name: &str) -> Result<Vec<Srv>, LookupError> {
        let mut first = None;
        for candidate in self.settings.candidates(name) {
            match self.ask_all(&candidate).await {
                Ok(records) => return Ok(records),
                Err(error) if error.fault == Fault::NoSuchHost => first = first.or(Some(error)),
                Err(error) => return Err(LookupError { name: name.to_owned(), ..error }),
            }
        }
        let none = LookupError { name: name.to_owned(), server: None, fault: Fault::NoSuchHost };
        Err(first.map_or(none, |error| LookupError { name: name.to_owned(), ..error }))
    }

    /// Every server in turn, as often as it may be asked, until one knows.
    async fn ask_all(&self, name: &str) -> Result<Vec<Srv>, LookupError> {
        let error = |server, fault| LookupError { name: name.to_owned(), server, fault };
        let mut last = error(None, Fault::Timeout);
        for _ in 0..self.settings.attempts {
            for server in &self.settings.servers {
                match self.ask(*server, name).await {
                    Ok(records) => return Ok(records),
                    Err(fault @ (Fault::NoSuchHost | Fault::BadName)) => return Err(error(Some(*server), fault)),
                    Err(fault) => last = error(Some(*server), fault),
                }
            }
        }
        Err(last)
    }

    async fn ask(&self, server: SocketAddr, name: &str) -> Result<Vec<Srv>, Fault> {
        // Chance is what keeps others from answering in the server's place.
        let number = getrandom::u32().map_err(|error| Fault::Unreachable(error.to_string()))?;
        let query = Query::srv(name, u16::try_from(number & 0xffff).unwrap_or(0)).ok_or(Fault::BadName)?;
        if !self.settings.use_tcp {
            match self.limited(over_udp(server, &query)).await? {
                Reply::Cut => {}
                Reply::Records(records) => return Ok(records),
                Reply::Fault(fault) => return Err(fault),
            }
        }
        match self.limited(over_tcp(server, &query)).await? {
            Reply::Cut => Err(Fault::Malformed("less than it says")),
            Reply::Records(records) => Ok(records),
            Reply::Fault(fault) => Err(fault),
        }
    }

    async fn limited(&self, asking: impl Future<Output = io::Result<Reply>>) -> Result<Reply, Fault> {
        match timeout(self.settings.timeout, asking).await {
            Err(_) => Err(Fault::Timeout),
            Ok(Err(error)) => Err(Fault::Unreachable(error.to_string())),
            Ok(Ok(reply)) => Ok(reply),
        }
    }
}

async fn over_udp(server: SocketAddr, query: &Query) -> io::Result<Reply> {
    let own: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Connected: the system drops what others send.
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(server).await?;
    socket.send(query.bytes()).await?;
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    for _ in 0..STRAYS_MAX {
        let length = socket.recv(&mut datagram).await?;
        let reply = query.read(datagram.get(..length).unwrap_or_default());
        if let Some(reply) = reply {
            return Ok(reply);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "too many answers to other questions"))
}

async fn over_tcp(server: SocketAddr, query: &Query) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.bytes().len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query.bytes()].concat()).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    query.read(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"))
}

#[cfg(test)]
pub(crate) mod tests;
