//! Telling HTTP/2 with prior knowledge from HTTP/1 on one plain-text port.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::timeout,
};

/// What every HTTP/2 client sends first (RFC 9113, §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The two protocols a client may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Reads until the first bytes that only one of the protocols can begin with, and hands back the connection as if
/// nothing had been read.
///
/// # Errors
/// What reading failed with; `UnexpectedEof` if the client closed without sending anything.
pub(crate) async fn sniff<I: AsyncRead + Unpin>(mut io: I) -> io::Result<(Protocol, Prefixed<I>)> {
    let mut read = BytesMut::with_capacity(PREFACE.len());
    let protocol = loop {
        let room = PREFACE.len() - read.len();
        if io.read_buf(&mut (&mut read).limit(room)).await? == 0 {
            if read.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            break Protocol::Http1;
        }
        if !PREFACE.starts_with(&read) {
            break Protocol::Http1;
        }
        if read.len() == PREFACE.len() {
            break Protocol::Http2;
        }
    };
    Ok((protocol, Prefixed { prefix: read.freeze(), io }))
}

/// [`sniff`], unless the client takes longer than `patience` to say so much: the HTTP library would wait for ever.
///
/// # Errors
/// As [`sniff`]; `TimedOut`.
pub(crate) async fn sniff_within<I: AsyncRead + Unpin>(
    patience: Duration,
    io: I,
) -> io::Result<(Protocol, Prefixed<I>)> {
    timeout(patience, sniff(io)).await?
}

/// [`sniff_within`] for a client with whom HTTP/2 or HTTP/1 was agreed on, or nothing: what was agreed counts, and has to
/// be begun as soon.
///
/// # Errors
/// As [`sniff_within`].
pub(crate) async fn begun_within<I: AsyncRead + Unpin>(
    patience: Duration,
    io: I,
    http2: Option<bool>,
) -> io::Result<(Protocol, Prefixed<I>)> {
    let (sniffed, io) = sniff_within(patience, io).await?;
    let agreed = |http2| if http2 { Protocol::Http2 } else { Protocol::Http1 };
    Ok((http2.map_or(sniffed, agreed), io))
}

/// A connection whose first bytes were read ahead.
#[derive(Debug)]
pub struct Prefixed<I> {
    prefix: Bytes,
    io: I,
}

impl<I> Prefixed<I> {
    /// A connection of which `prefix` was read.
    pub(crate) fn behind(prefix: Bytes, io: I) -> Self {
        Self { prefix, io }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Prefixed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let bytes = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(self.prefix.get(..bytes).unwrap_or_default());
        self.prefix.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Prefixed<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn sniffed(sent: &[u8]) -> (Protocol, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(256);
        client.write_all(sent).await.unwrap();
        drop(client);
        let (protocol, mut io) = sniff(server).await.unwrap();
        let mut seen = Vec::new();
        io.read_to_end(&mut seen).await.unwrap();
        (protocol, seen)
    }

    #[tokio::test]
    async fn the_preface_means_http2_and_is_read_again() {
        let mut sent = PREFACE.to_vec();
        sent.extend_from_slice(b"\0\0\0\x04\0\0\0\0\0");
        assert_eq!(sniffed(&sent).await, (Protocol::Http2, sent));
    }

    #[tokio::test]
    async fn anything_else_is_http1() {
        for sent in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/1.1\r\n\r\n", b"P"] {
            assert_eq!(sniffed(sent).await, (Protocol::Http1, sent.to_vec()));
        }
    }

    #[tokio::test]
    async fn a_silent_client_is_no_connection() {
        let (client, server) = tokio::io::duplex(16);
        drop(client);
        assert_eq!(sniff(server).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn who_says_nothing_or_not_enough_is_not_waited_for() {
        for said in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM"] {
            for agreed in [None, Some(true)] {
                let (mut client, io) = tokio::io::duplex(1024);
                client.write_all(said).await.unwrap();
                let error = begun_within(Duration::from_millis(20), io, agreed).await.map(drop).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{agreed:?}: {:?}", String::from_utf8_lossy(said));
            }
        }
    }

    #[tokio::test]
    async fn what_was_agreed_on_counts() {
        for agreed in [Protocol::Http1, Protocol::Http2] {
            let (mut client, io) = tokio::io::duplex(1024);
            client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            let http2 = Some(agreed == Protocol::Http2);
            assert_eq!(begun_within(Duration::from_secs(5), io, http2).await.unwrap().0, agreed);
        }
    }
}
