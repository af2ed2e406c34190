//! How members are reached: the one place where every proxy opens its connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Uri, uri::Authority};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use crate::tls::{self, Protocol};

/// Seconds after which a silent connection is asked for a sign of life, and between two such questions; as Go's.
const KEEPALIVE_SECONDS: u32 = 15;

/// What is read and written, whatever carries it.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Opens connections to members.
#[derive(Clone, Debug)]
pub struct Dialler {
    /// How long finding the address and connecting may take together.
    pub patience: Duration,
    /// Where this proxy itself listens: a connection that leads there would go round for ever.
    pub own: Arc<[SocketAddr]>,
}

impl Dialler {
    /// Connects to a member's URL, and shakes hands by `tls` to speak `protocol` if it is an encrypted one.
    ///
    /// # Errors
    /// As [`Dialler::dial`]; a handshake that failed in the words of etcd.
    pub async fn dial_url(&self, url: &Uri, tls: &tls::Dialler, protocol: Protocol) -> io::Result<Box<dyn Io>> {
        let authority = url.authority().map_or("", Authority::as_str);
        let stream = self.dial(authority).await?;
        match url.scheme_str() {
            Some("http") => Ok(Box::new(stream)),
            Some("https") => {
                let shaken =
                    timeout(self.patience, tls.connect(url.host().unwrap_or_default(), protocol, stream)).await;
                let shaken = shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                Ok(Box::new(shaken.map_err(|cause| io::Error::new(cause.kind(), tls::words(&cause)))?))
            }
            _ => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{url}: the scheme is none that members have")))
            }
        }
    }

    /// Connects to `host:port`.
    ///
    /// # Errors
    /// In the words of Go's dialler, with the address.
    pub async fn dial(&self, address: &str) -> io::Result<TcpStream> {
        let connected = timeout(self.patience, connect(address)).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = stream.map_err(|cause| explained(address, &cause))?;
        if self.own.iter().any(|own| leads_to(&stream, *own)) {
            let what = format!("dial tcp {address}: this is where the proxy itself listens: name a member instead");
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, what));
        }
        tune(&stream);
        Ok(stream)
    }
}

/// Tries the addresses of a name one by one.
async fn connect(address: &str) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "no such host");
    for found in lookup_host(address).await? {
        match TcpStream::connect(found).await {
            Ok(stream) => return Ok(stream),
            Err(cause) => failure = cause,
        }
    }
    Err(failure)
}

/// Both settings are improvements; a socket that refuses them still works.
pub(super) fn tune(stream: &TcpStream) {
    let keepalive = || {
        setsockopt(stream, sockopt::KeepAlive, &true)?;
        setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_SECONDS)?;
        setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_SECONDS)
    };
    if let Err(error) = stream.set_nodelay(true).and(keepalive().map_err(Into::into)) {
        tracing::debug!(%error, "cannot tune a connection");
    }
}

/// Whether a connection leads to `own`: one to this very machine comes from the address that it goes to.
fn leads_to(stream: &TcpStream, own: SocketAddr) -> bool {
    let (Ok(here), Ok(there)) = (stream.local_addr(), stream.peer_addr()) else { return false };
    let listens_there = own.ip() == there.ip() || (own.ip().is_unspecified() && here.ip() == there.ip());
    listens_there && own.port() == there.port()
}

/// A failure in the words of Go's dialler.
fn explained(address: &str, cause: &io::Error) -> io::Error {
    let words = match cause.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => cause.to_string(),
    };
    io::Error::new(cause.kind(), format!("dial tcp {address}: {words}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn failures_name_the_address_and_what_happened() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let dialler = Dialler { patience: PATIENCE, own: Arc::new([]) };
        let error = dialler.dial(&free).await.unwrap_err();
        assert_eq!(error.to_string(), format!("dial tcp {free}: connect: connection refused"));
        let error = dialler.dial("nobody.invalid:1").await.unwrap_err();
        assert!(error.to_string().starts_with("dial tcp nobody.invalid:1: "), "{error}");
    }

    #[tokio::test]
    async fn a_proxy_does_not_dial_itself() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for own in [address, SocketAddr::from(([0, 0, 0, 0], address.port()))] {
            let dialler = Dialler { patience: PATIENCE, own: Arc::new([own]) };
            let error = dialler.dial(&address.to_string()).await.unwrap_err();
            assert!(error.to_string().contains("this is where the proxy itself listens"), "{error}");
        }
        let dialler = Dialler { patience: PATIENCE, own: Arc::new([SocketAddr::from(([0, 0, 0, 0], 1))]) };
        dialler.dial(&address.to_string()).await.unwrap();
    }
}
