//! Encrypted listeners.
//!
//! The first byte tells a handshake from plain text. Plain text is served where an `http` URL stands beside the `https` one
//! of the same address; elsewhere HTTP hears what Go's servers tell it, and everything else is cut off.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::TryFutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::timeout,
};

use super::{
    Serves,
    listen::{Accept, Accepted, Ends, Source},
    wire::Prefixed,
};
use crate::{
    clock::Sparingly,
    metrics,
    tls::{Acceptor, HANDSHAKE_PATIENCE, Rejected, ServerStream, words},
};

/// With what every TLS connection begins: the type of a record that carries a handshake (RFC 8446, §5.1).
const HANDSHAKE: u8 = 22;
/// What Go's servers know HTTP by: five bytes, as many as the head of a record has.
const METHODS: [&[u8]; 5] = [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"];
/// What they answer.
const PLAIN_REFUSED: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// So often at most a listener tells of rejected connections. etcd tells of each; whoever can connect could fill a disk.
const REJECTION_INTERVAL: Duration = Duration::from_secs(1);

/// What is done with plain text on an encrypted listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// It is refused.
    Nothing,
    /// It is served: there is a URL without TLS for the same address.
    PlainText,
}

/// A listener whose connections are encrypted.
#[derive(Debug)]
pub struct Secure<S> {
    source: S,
    acceptor: Acceptor,
    beside: Beside,
    rejections: Arc<Rejections>,
}

impl<S: Source> Secure<S> {
    /// Encrypts what comes from `source`, on a listener for `serves`.
    pub fn new(source: S, acceptor: &Acceptor, beside: Beside, serves: Serves) -> Self {
        let (endpoint, message) = match serves {
            Serves::Peers => ("peer", "rejected connection on peer endpoint"),
            _ => ("client", "rejected connection on client endpoint"),
        };
        let rejections = Arc::new(Rejections { endpoint, message, told: Sparingly::every(REJECTION_INTERVAL) });
        Self { source, acceptor: acceptor.for_listener(), beside, rejections }
    }
}

impl<S: Source> Accept for Secure<S> {
    type Io = Maybe<S::Io>;
    type Ready = Pin<Box<dyn Future<Output = io::Result<Accepted<Self::Io>>> + Send>>;

    async fn accept(&mut self) -> io::Result<Self::Ready> {
        let (io, ends) = self.source.next().await?;
        let (acceptor, beside, rejections) = (self.acceptor.clone(), self.beside, Arc::clone(&self.rejections));
        Ok(Box::pin(async move {
            let made = establish(io, ends, &acceptor, beside).await;
            made.map_err(|rejected| rejections.tell(ends.from, rejected))
        }))
    }
}

async fn establish<I>(
    mut io: I,
    Ends { from: remote, at }: Ends,
    acceptor: &Acceptor,
    beside: Beside,
) -> Result<Accepted<Maybe<I>>, Rejected>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let from = remote.map(|remote| remote.ip());
    let turn = acceptor.turn(from).await?;
    let first = turn.within(timeout(HANDSHAKE_PATIENCE, first_byte(&mut io)).map_err(io::Error::from)).await??;
    let is_handshake = first.first() == Some(&HANDSHAKE);
    let mut io = Prefixed::behind(first, io);
    if is_handshake {
        let stream = acceptor.accept_with(turn, io, from).await?;
        let (http2, common_name) = (stream.http2(), stream.common_name().map(Arc::from));
        let io = Maybe::Encrypted(Box::new(stream));
        return Ok(Accepted { http2, common_name, io, secure: true, from: remote, at });
    }
    if beside == Beside::PlainText {
        return Ok(Accepted { io: Maybe::Plain(io), http2: None, secure: false, from: remote, at, common_name: None });
    }
    // Whether the answer arrives makes no difference to the refusal.
    drop(turn.within(timeout(HANDSHAKE_PATIENCE, refuse_plain(&mut io)).map_err(io::Error::from)).await);
    Err(io::Error::other("tls: first record does not look like a TLS handshake").into())
}

async fn first_byte<I: AsyncRead + Unpin>(io: &mut I) -> io::Result<Bytes> {
    let mut first = BytesMut::zeroed(1);
    io.read_exact(&mut first).await?;
    Ok(first.freeze())
}

async fn refuse_plain<I: AsyncRead + AsyncWrite + Unpin>(io: &mut I) -> io::Result<()> {
    let mut head = [0; 5];
    io.read_exact(&mut head).await?;
    if METHODS.contains(&head.as_slice()) {
        io.write_all(PLAIN_REFUSED).await?;
        io.shutdown().await?;
    }
    Ok(())
}

/// Tells the log of rejected connections.
#[derive(Debug)]
struct Rejections {
    endpoint: &'static str,
    message: &'static str,
    told: Sparingly,
}

impl Rejections {
    /// A client that says nothing at all, as a balancer's check of the port does, is nothing to tell.
    fn tell(&self, remote: Option<SocketAddr>, rejected: Rejected) -> io::Error {
        metrics::HANDSHAKES_FAILED.with([self.endpoint, rejected.reason()]).inc();
        let Rejected { server_name, cause } = rejected;
        let is_silence = cause.kind() == io::ErrorKind::UnexpectedEof && server_name.is_empty();
        if let Some(suppressed) = (!is_silence).then(|| self.told.turn()).flatten() {
            let remote = remote.map_or_else(|| "@".to_owned(), |remote| remote.to_string());
            let error = words(&cause);
            let message = self.message;
            tracing::warn!(
                remote_addr = remote,
                server_name,
                error,
                suppressed = (suppressed > 0).then_some(suppressed),
                "{message}"
            );
        }
        cause
    }
}

/// A connection that may be encrypted.
#[derive(Debug)]
pub enum Maybe<I> {
    /// It is not.
    Plain(Prefixed<I>),
    /// It is.
    Encrypted(Box<ServerStream<Prefixed<I>>>),
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Maybe<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_read(context, buffer),
            Self::Encrypted(io) => Pin::new(io).poll_read(context, buffer),
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Maybe<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_write(context, data),
            Self::Encrypted(io) => Pin::new(io).poll_write(context, data),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(context, data),
            Self::Encrypted(io) => Pin::new(io).poll_write_vectored(context, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Encrypted(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_flush(context),
            Self::Encrypted(io) => Pin::new(io).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_shutdown(context),
            Self::Encrypted(io) => Pin::new(io).poll_shutdown(context),
        }
    }
}
