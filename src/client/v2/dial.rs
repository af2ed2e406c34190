//! The one place where a connection is made.

use std::{fmt::Display, io, time::Duration};

use nix::errno::Errno;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};

use super::{Attempt, Endpoint};
use crate::tls::{self, Dialler, Protocol};

/// What HTTP is spoken over.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Connects to an endpoint within `limit`, and shakes hands with one that wants it within as much again.
///
/// # Errors
/// The words of Go's dialler, or that the scheme is none that can be dialled.
pub(super) async fn dial(endpoint: &Endpoint, limit: Duration, tls: &Dialler) -> Result<Box<dyn Io>, Attempt> {
    let host = endpoint.host.as_str();
    match endpoint.scheme.as_str() {
        "http" | "https" | "unix" | "unixs" if host.is_empty() => Err(Attempt::other("http: no Host in request URL")),
        "http" => Ok(Box::new(tcp(&with_port(host, 80), limit).await?)),
        "unix" => Ok(Box::new(unix(host).await?)),
        "https" => encrypted(tls, host, tcp(&with_port(host, 443), limit).await?, limit).await,
        "unixs" => encrypted(tls, host, unix(host).await?, limit).await,
        scheme => Err(Attempt::other(format_args!("unsupported protocol scheme {scheme:?}"))),
    }
}

/// The host with the scheme's own port, if it has none.
fn with_port(host: &str, port: u16) -> String {
    let behind_brackets = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
    if behind_brackets.contains(':') { host.to_owned() } else { format!("{host}:{port}") }
}

/// Tries every address of the host; the failure told is that of the first.
async fn tcp(host: &str, limit: Duration) -> Result<TcpStream, Attempt> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let addresses = lookup_host(host).await.map_err(|_| unknown(name))?;
    let mut failure = None;
    for address in addresses {
        let connected = timeout(limit, TcpStream::connect(address)).await;
        match connected {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = failure.or(Some(refused("tcp", address, &error))),
            Err(_) => failure = failure.or(Some(Attempt::connection(format_args!("dial tcp {address}: i/o timeout")))),
        }
    }
    Err(failure.unwrap_or_else(|| unknown(name)))
}

async fn encrypted(tls: &Dialler, host: &str, io: impl Io + 'static, limit: Duration) -> Result<Box<dyn Io>, Attempt> {
    let authority = with_port(host, 0);
    let name = authority.rsplit_once(':').map_or(host, |(name, _)| name);
    match timeout(limit, tls.connect(name, Protocol::Unnamed, io)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(Attempt::other(tls::words(&error))),
        Err(_) => Err(Attempt::other("net/http: TLS handshake timeout")),
    }
}

async fn unix(path: &str) -> Result<UnixStream, Attempt> {
    UnixStream::connect(path).await.map_err(|error| refused("unix", path, &error))
}

fn unknown(name: &str) -> Attempt {
    Attempt::connection(format_args!("dial tcp: lookup {name}: no such host"))
}

fn refused(network: &str, address: impl Display, error: &io::Error) -> Attempt {
    Attempt::connection(format_args!("dial {network} {address}: connect: {}", reason(error)))
}

/// What the system says, in small letters as Go prints it.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_owned());
    let mut letters = text.chars();
    letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn failure(url: &str) -> String {
        let dialled = dial(&Endpoint::parse(url).unwrap(), Duration::from_secs(5), &Dialler::default()).await;
        dialled.err().map(|attempt| attempt.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn failures_use_the_words_of_go() {
        assert_eq!(failure("http://127.0.0.1:1").await, "dial tcp 127.0.0.1:1: connect: connection refused");
        assert_eq!(failure("unix://nowhere:1").await, "dial unix nowhere:1: connect: no such file or directory");
        assert_eq!(failure("http://").await, "http: no Host in request URL");
        assert_eq!(failure("localhost:1").await, "unsupported protocol scheme \"localhost\"");
    }

    #[test]
    fn a_scheme_has_its_own_port() {
        assert_eq!(with_port("a", 80), "a:80");
        assert_eq!(with_port("[::1]", 80), "[::1]:80");
        assert_eq!(with_port("[::1]:1", 80), "[::1]:1");
    }
}
