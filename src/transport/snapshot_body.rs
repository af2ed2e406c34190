//! The data of a snapshot on its way.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};

/// How the data of a snapshot is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotForm {
    /// A bbolt file, as etcd sends and reads it.
    Bbolt,
    /// The sorted rows of our own state. Only between members that announced
    /// [`super::Capabilities::native_snapshot`].
    Native,
}

/// The data of a snapshot being received, piece by piece.
///
/// It ends with `None` only when the sender said that this was all; a connection that breaks off yields
/// [`io::ErrorKind::UnexpectedEof`], and a sender that pauses for too long [`io::ErrorKind::TimedOut`].
pub struct SnapshotBody(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>);

impl SnapshotBody {
    /// A body that yields what `pieces` does.
    pub fn new(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self(Box::pin(pieces))
    }

    /// `first`, then what `pieces` yield.
    pub(super) fn behind(first: Bytes, pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        let first = (!first.is_empty()).then_some(Ok(first));
        Self::new(stream::iter(first).chain(pieces))
    }

    /// The next piece, `None` after the last.
    ///
    /// # Errors
    /// As described at [`SnapshotBody`].
    pub async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        self.0.next().await.transpose()
    }
}

impl Stream for SnapshotBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl fmt::Debug for SnapshotBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotBody").finish_non_exhaustive()
    }
}
