//! A client that hangs up is noticed, whatever it has said before.
//!
//! The HTTP/1 library does not read while a request is answered and another one waits behind it. A client that sends two
//! requests and goes away would so keep its connection for as long as the first answer takes: for ever, where that is a
//! watch. Here somebody else reads on meanwhile, within bounds, as etcd's HTTP library does.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Bytes that are read ahead of the library.
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// Read at a time.
const PIECE_BYTES: usize = 4 * 1024;
/// How long a request goes on whose client has said all it had to say, with other requests behind it that were not looked
/// at yet: those that are answered at once still are.
const ENDED_PATIENCE: Duration = Duration::from_secs(5);
/// How long nobody may look at what a client has said, once that is more than is read ahead.
const FULL_PATIENCE: Duration = Duration::from_mins(2);

/// A connection as the HTTP library reads and writes it.
#[derive(Debug)]
pub(crate) struct Watched<I> {
    line: Arc<Mutex<Line<I>>>,
}

/// Looks whether the client is still there.
#[derive(Debug)]
pub(crate) struct Lookout<I> {
    line: Arc<Mutex<Line<I>>>,
    patience: Patience,
    /// Set while the client has hung up, or has said more than is read.
    waiting: Option<Pin<Box<Sleep>>>,
}

/// [`ENDED_PATIENCE`] and [`FULL_PATIENCE`].
#[derive(Clone, Copy, Debug)]
struct Patience {
    ended: Duration,
    full: Duration,
}

#[derive(Debug)]
struct Line<I> {
    io: I,
    ahead: BytesMut,
    /// The library waits for bytes: it hears itself of an end.
    is_reading: bool,
    /// It has taken bytes that were read ahead.
    has_taken: bool,
    has_ended: bool,
}

/// What there is to see.
enum Sight {
    Nothing,
    /// No more bytes follow.
    Ended,
    /// More was said than is read ahead.
    Full,
    Broken,
}

/// Watches over `io`.
pub(crate) fn watched<I>(io: I) -> (Watched<I>, Lookout<I>) {
    let line = Line { io, ahead: BytesMut::new(), is_reading: false, has_taken: false, has_ended: false };
    let line = Arc::new(Mutex::new(line));
    let patience = Patience { ended: ENDED_PATIENCE, full: FULL_PATIENCE };
    (Watched { line: Arc::clone(&line) }, Lookout { line, patience, waiting: None })
}

impl<I> Watched<I> {
    fn lock(&self) -> MutexGuard<'_, Line<I>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: AsyncRead + Unpin> Lookout<I> {
    /// What `serving` the connection comes to; nothing if its client is gone before.
    pub(crate) async fn unless_gone<T>(mut self, serving: impl Future<Output = T>) -> Option<T> {
        let mut serving = std::pin::pin!(serving);
        poll_fn(|context| {
            self.lock().is_reading = false;
            match serving.as_mut().poll(context) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending => self.poll_gone(context).map(|()| None),
            }
        })
        .await
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (sight, has_taken) = {
            let mut line = self.lock();
            (line.look(context), std::mem::take(&mut line.has_taken))
        };
        if has_taken {
            self.waiting = None;
        }
        let patience = match sight {
            Sight::Nothing => {
                self.waiting = None;
                return Poll::Pending;
            }
            Sight::Broken => return Poll::Ready(()),
            Sight::Ended => self.patience.ended,
            Sight::Full => self.patience.full,
        };
        self.waiting.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(context)
    }

    fn lock(&self) -> MutexGuard<'_, Line<I>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: AsyncRead + Unpin> Line<I> {
    fn look(&mut self, context: &mut Context<'_>) -> Sight {
        if self.is_reading {
            return Sight::Nothing;
        }
        while !self.has_ended && self.ahead.len() < AHEAD_BYTES_MAX {
            let mut piece = [0; PIECE_BYTES];
            let mut piece = ReadBuf::new(&mut piece);
            match Pin::new(&mut self.io).poll_read(context, &mut piece) {
                Poll::Pending => return Sight::Nothing,
                Poll::Ready(Err(_)) => return Sight::Broken,
                Poll::Ready(Ok(())) if piece.filled().is_empty() => self.has_ended = true,
                Poll::Ready(Ok(())) => self.ahead.extend_from_slice(piece.filled()),
            }
        }
        if self.has_ended { Sight::Ended } else { Sight::Full }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut line = self.lock();
        if !line.ahead.is_empty() {
            let bytes = line.ahead.len().min(into.remaining());
            into.put_slice(line.ahead.get(..bytes).unwrap_or_default());
            line.ahead.advance(bytes);
            line.has_taken = true;
            return Poll::Ready(Ok(()));
        }
        if line.has_ended {
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut line.io).poll_read(context, into);
        line.is_reading = read.is_pending();
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        time::timeout,
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_hours(1);

    /// Reads `bytes`, then nothing more for ever.
    async fn busy_after<T>(mut io: Watched<DuplexStream>, bytes: usize) -> T {
        let mut read = vec![0; bytes];
        io.read_exact(&mut read).await.unwrap();
        std::future::pending().await
    }

    #[tokio::test]
    async fn who_hangs_up_behind_a_second_request_is_noticed() {
        let (mut client, server) = duplex(1024);
        let (io, lookout) = watched(server);
        client.write_all(b"first, second").await.unwrap();
        drop(client);
        let lookout = Lookout { patience: Patience { ended: SHORT, full: LONG }, ..lookout };
        assert_eq!(lookout.unless_gone(busy_after(io, 5)).await, None::<()>);
    }

    #[tokio::test]
    async fn who_only_waits_is_left_in_peace() {
        let (mut client, server) = duplex(1024);
        let (io, lookout) = watched(server);
        client.write_all(b"first, second").await.unwrap();
        let lookout = Lookout { patience: Patience { ended: SHORT, full: SHORT }, ..lookout };
        assert!(timeout(4 * SHORT, lookout.unless_gone(busy_after::<()>(io, 5))).await.is_err());
    }

    #[tokio::test]
    async fn who_says_more_than_anybody_reads_is_not_waited_for_for_ever() {
        let (mut client, server) = duplex(2 * AHEAD_BYTES_MAX);
        let (io, lookout) = watched(server);
        client.write_all(&vec![0; AHEAD_BYTES_MAX + 5]).await.unwrap();
        let lookout = Lookout { patience: Patience { ended: LONG, full: SHORT }, ..lookout };
        assert_eq!(lookout.unless_gone(busy_after(io, 5)).await, None::<()>);
    }

    #[tokio::test]
    async fn all_that_was_said_is_read_in_order_and_then_the_end() {
        let (mut client, server) = duplex(64);
        let (mut io, lookout) = watched(server);
        let said: Vec<u8> = (0..=u8::MAX).cycle().take(10_000).collect();
        let sent = said.clone();
        let talking = async move { client.write_all(&sent).await.unwrap() };
        let reading = async {
            let mut heard = Vec::new();
            loop {
                // Looks away now and then, so that some of it is read ahead.
                sleep(Duration::from_millis(1)).await;
                let mut piece = [0; 100];
                match io.read(&mut piece).await.unwrap() {
                    0 => return heard,
                    bytes => heard.extend_from_slice(&piece[..bytes]),
                }
            }
        };
        let (heard, ()) = tokio::join!(lookout.unless_gone(reading), talking);
        assert_eq!(heard, Some(said));
    }
}
