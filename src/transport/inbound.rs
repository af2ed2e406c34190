//! Bodies of requests from peers, read under limits.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body::Body as _;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{codec::MESSAGE_BYTES_MAX, incoming::READ_PATIENCE, patience::Patience};
use crate::metrics::Counter;

/// Time for the whole body of a single message, however steadily it trickles.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// The least that a body brings in each [`LEAST_IN`] that this member waits for it: below that it is as good as dead, and
/// keeps better ones from their place. Less than the least our own senders send, a block of this size in [`READ_PATIENCE`].
const LEAST_BYTES: usize = 256 * 1024;
/// See [`LEAST_BYTES`].
const LEAST_IN: Duration = Duration::from_secs(30);
/// Bytes of memory one permit of [`Budget`] stands for.
const PERMIT_BYTES: usize = 64 * 1024;
/// Memory for the bodies of single messages being received from known senders.
const KNOWN_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;
/// The same from unknown senders, all together.
const UNKNOWN_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Single requests that unknown senders may have open, all together.
const UNKNOWN_POSTS_MAX: usize = 8;
/// Snapshots that unknown senders may be sending, all together: a leader that this member does not know yet.
const UNKNOWN_SNAPSHOTS_MAX: usize = 2;

/// A request's body, whatever the server makes of it.
pub(super) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// Hides what kind of body a server hands over.
pub(super) fn erase<B>(body: B) -> RequestBody
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    body.map_err(|error| io::Error::new(io::ErrorKind::UnexpectedEof, error)).boxed_unsync()
}

/// What requests may take of this member at once.
#[derive(Debug)]
pub(super) struct Budget {
    known_bytes: Arc<Semaphore>,
    unknown_bytes: Arc<Semaphore>,
    pub(super) unknown_posts: Arc<Semaphore>,
    pub(super) unknown_snapshots: Arc<Semaphore>,
}

impl Budget {
    pub(super) fn new() -> Self {
        let bytes = |max: usize| Arc::new(Semaphore::new(max / PERMIT_BYTES + 1));
        Self {
            known_bytes: bytes(KNOWN_BYTES_MAX),
            unknown_bytes: bytes(UNKNOWN_BYTES_MAX),
            unknown_posts: Arc::new(Semaphore::new(UNKNOWN_POSTS_MAX)),
            unknown_snapshots: Arc::new(Semaphore::new(UNKNOWN_SNAPSHOTS_MAX)),
        }
    }

    /// Memory for one body from a known or an unknown sender, none of it taken yet.
    pub(super) fn bytes(&self, known: bool) -> Allowance {
        let of = if known { &self.known_bytes } else { &self.unknown_bytes };
        Allowance { of: Arc::clone(of), taken: None, bytes: 0 }
    }
}

/// Memory taken from a [`Budget`] as a body arrives, and given back when this is dropped.
#[derive(Debug)]
pub(super) struct Allowance {
    of: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Allowance {
    /// Makes sure that `bytes` are covered.
    fn cover(&mut self, bytes: usize) -> io::Result<()> {
        while self.bytes < bytes {
            let permit = Arc::clone(&self.of).try_acquire_owned();
            let permit = permit.map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
            match &mut self.taken {
                Some(taken) => taken.merge(permit),
                None => self.taken = Some(permit),
            }
            self.bytes += PERMIT_BYTES;
        }
        Ok(())
    }
}

/// How fast a body comes. The time that somebody else takes with what came does not count.
#[derive(Debug, Default)]
struct Rate {
    waiting_since: Option<Instant>,
    waited: Duration,
    bytes: usize,
}

impl Rate {
    /// Nothing came yet.
    fn wait(&mut self) {
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    /// Something came. False if all of it came too slowly.
    fn came(&mut self, bytes: usize) -> bool {
        let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.count(waited, bytes)
    }

    fn count(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < LEAST_IN {
            return true;
        }
        let enough = self.bytes >= LEAST_BYTES;
        *self = Self::default();
        enough
    }
}

/// Pieces of a body as they arrive, without a pause of more than [`READ_PATIENCE`] and at the least rate of
/// [`LEAST_BYTES`].
#[derive(Debug)]
pub(super) struct Pieces {
    body: RequestBody,
    patience: Patience,
    rate: Rate,
    received: Arc<Counter>,
    ended: bool,
}

impl Pieces {
    /// `received` counts the bytes.
    pub(super) fn new(body: RequestBody, received: Arc<Counter>) -> Self {
        Self { body, patience: Patience::new(READ_PATIENCE), rate: Rate::default(), received, ended: false }
    }

    /// The next piece, `None` after the last.
    ///
    /// # Errors
    /// If the body breaks off, pauses, or comes too slowly.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|context| self.poll(context)).await
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`Pieces::next`]; [`io::ErrorKind::InvalidData`] if it is longer than a message may be,
    /// [`io::ErrorKind::OutOfMemory`] if too much is being received at once.
    pub(super) async fn whole(mut self, mut allowance: Allowance) -> io::Result<Bytes> {
        let reading = async {
            let mut whole = BytesMut::new();
            while let Some(piece) = self.next().await? {
                let length = whole.len() + piece.len();
                if length > MESSAGE_BYTES_MAX {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                allowance.cover(length)?;
                whole.extend_from_slice(&piece);
            }
            Ok(whole.freeze())
        };
        timeout(BODY_PATIENCE, reading).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        while !self.ended {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                self.rate.wait();
                return self.patience.poll_over(context).map(|()| {
                    self.ended = true;
                    Err(io::Error::new(io::ErrorKind::TimedOut, "the sender paused for too long"))
                });
            };
            self.patience.renew();
            let Some(frame) = frame.transpose().inspect_err(|_| self.ended = true)? else {
                self.ended = true;
                break;
            };
            if let Ok(data) = frame.into_data() {
                if !self.rate.came(data.len()) {
                    self.ended = true;
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the sender is too slow")));
                }
                self.received.add(u64::try_from(data.len()).unwrap_or(u64::MAX));
                return Poll::Ready(Ok(Some(data)));
            }
        }
        Poll::Ready(Ok(None))
    }
}

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context).map(io::Result::transpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte a second kept every other snapshot from a member for ever.
    #[test]
    fn a_drip_ends_by_itself_and_a_slow_line_does_not() {
        let second = Duration::from_secs(1);
        let mut drip = Rate::default();
        let lasted = (1..=60).find(|_| !drip.count(second, 1));
        assert_eq!(lasted, Some(30));
        let mut slow = Rate::default();
        assert!((0..600).all(|_| slow.count(5 * second, LEAST_BYTES)), "our own slowest");
        let mut late = Rate::default();
        assert!((0..29).all(|_| late.count(second, LEAST_BYTES / 10)));
        assert!((0..29).all(|_| late.count(second, 0)), "what came counts for all of its time");
    }

    #[test]
    fn time_taken_with_what_came_does_not_count() {
        let mut rate = Rate::default();
        for _ in 0..3 {
            assert!(rate.came(1), "it was there at once");
        }
        assert_eq!((rate.waited, rate.bytes), (Duration::ZERO, 3));
    }
}
