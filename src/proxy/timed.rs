//! A connection whose other side may keep nobody waiting for longer than agreed.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Limits for each read and each write.
#[derive(Debug)]
pub(super) struct Timed<I> {
    io: I,
    read: Limit,
    write: Limit,
}

/// How long one operation may take; for ever without a patience.
#[derive(Debug)]
struct Limit {
    patience: Option<Duration>,
    running: Option<Pin<Box<Sleep>>>,
}

impl Limit {
    fn of(patience: Duration) -> Self {
        Self { patience: (!patience.is_zero()).then_some(patience), running: None }
    }

    /// Goes on waiting, unless that took too long already.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let Some(patience) = self.patience else { return Poll::Pending };
        let running = self.running.get_or_insert_with(|| Box::pin(sleep(patience)));
        running.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I> Timed<I> {
    /// Zero stands for no limit.
    pub(super) fn new(io: I, read: Duration, write: Duration) -> Self {
        Self { io, read: Limit::of(read), write: Limit::of(write) }
    }

    fn written<T>(&mut self, done: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if done.is_pending() {
            return self.write.wait(context);
        }
        self.write.running = None;
        done
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Timed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_read(context, buffer);
        if done.is_pending() {
            return self.read.wait(context);
        }
        self.read.running = None;
        done
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Timed<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write(context, data);
        self.written(done, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write_vectored(context, data);
        self.written(done, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_flush(context);
        self.written(done, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn each_read_and_write_has_its_time() {
        let (mut other, io) = tokio::io::duplex(4);
        let mut timed = Timed::new(io, SHORT, SHORT);
        other.write_all(b"ab").await.unwrap();
        assert_eq!(timed.read_u8().await.unwrap(), b'a');
        assert_eq!(timed.read_u8().await.unwrap(), b'b');
        assert_eq!(timed.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(timed.write_all(b"too much").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
