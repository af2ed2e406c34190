//! Encrypted connections to endpoints.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tonic::{codegen::Service, transport::Uri};

use super::endpoint::{Address, Endpoint, Security};
use crate::tls::{ClientStream, Dialler, Protocol, words};

/// Whom a socket file leads to.
const LOCALHOST: &str = "localhost";

/// Silence on a connection after which the system asks whether the other side is there, as members do of their clients.
pub(super) const TCP_KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time between such questions while none is answered.
pub(super) const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Questions that may stay unanswered before the connection is given up.
pub(super) const TCP_KEEPALIVE_PROBES: u32 = 3;

/// A connection that notices when the other side has gone without a word.
async fn connect(authority: &str) -> io::Result<TcpStream> {
    let io = TcpStream::connect(authority).await?;
    io.set_nodelay(true)?;
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    setsockopt(&io, sockopt::KeepAlive, &true)?;
    setsockopt(&io, sockopt::TcpKeepIdle, &seconds(TCP_KEEPALIVE_IDLE))?;
    setsockopt(&io, sockopt::TcpKeepInterval, &seconds(TCP_KEEPALIVE_INTERVAL))?;
    setsockopt(&io, sockopt::TcpKeepCount, &TCP_KEEPALIVE_PROBES)?;
    Ok(io)
}

/// Connects to one endpoint with TLS.
#[derive(Clone, Debug)]
pub(super) struct Encrypted {
    address: Address,
    dialler: Dialler,
}

impl Encrypted {
    /// The way to `endpoint`, if it is to be encrypted; `configured` is what certificates were given.
    pub(super) fn for_endpoint(endpoint: &Endpoint, configured: Option<&Dialler>) -> Option<Self> {
        let dialler = match endpoint.security {
            Security::Clear => return None,
            Security::AsConfigured => configured?.clone(),
            Security::Required => configured.cloned().unwrap_or_default(),
        };
        Some(Self { address: endpoint.address.clone(), dialler })
    }

    async fn connect(self) -> io::Result<TokioIo<Stream>> {
        let shaken = match &self.address {
            Address::Tcp(authority) => {
                let io = connect(authority).await?;
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                self.dialler.connect(host, Protocol::Http2, io).await.map(|io| Stream::Tcp(Box::new(io)))
            }
            Address::Unix(path) => {
                let io = UnixStream::connect(path).await?;
                self.dialler.connect(LOCALHOST, Protocol::Http2, io).await.map(|io| Stream::Unix(Box::new(io)))
            }
        };
        shaken.map(TokioIo::new).map_err(|error| io::Error::other(Handshake(words(&error))))
    }
}

/// A handshake failed, in the words of etcd.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Handshake(String);

impl Service<Uri> for Encrypted {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// An encrypted connection of either kind.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(Box<ClientStream<TcpStream>>),
    Unix(Box<ClientStream<UnixStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(io) => Pin::new(io).poll_read(context, buffer),
            Self::Unix(io) => Pin::new(io).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(io) => Pin::new(io).poll_write(context, data),
            Self::Unix(io) => Pin::new(io).poll_write(context, data),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(io) => Pin::new(io).poll_flush(context),
            Self::Unix(io) => Pin::new(io).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(context),
            Self::Unix(io) => Pin::new(io).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;

    use super::*;

    #[tokio::test]
    async fn the_system_looks_after_connections_without_calls() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let io = connect(&listener.local_addr().unwrap().to_string()).await.unwrap();
        assert!(getsockopt(&io, sockopt::KeepAlive).unwrap());
        let seconds = [
            getsockopt(&io, sockopt::TcpKeepIdle).unwrap(),
            getsockopt(&io, sockopt::TcpKeepInterval).unwrap(),
            getsockopt(&io, sockopt::TcpKeepCount).unwrap(),
        ];
        assert_eq!(seconds, [30, 10, 3]);
    }
}
