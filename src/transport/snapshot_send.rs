//! Sending one snapshot: a request whose body is the data.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderValue, Method, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use super::{
    SendError, SnapshotForm,
    codec::envelope,
    connect::{Connection, RequestBody},
    headers,
    incoming::refusal,
    peer::Peer,
};
use crate::{clock::Stopwatch, metrics, pb::raftpb::Message};

/// Time in which at least one piece must leave while there is data: a receiver that writes to a slow disk pauses, too.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(30);
/// Time a receiver has for the answer once it has all data: it brings it to its disk first.
const ANSWER_PATIENCE: Duration = Duration::from_mins(10);
/// How often progress is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What has left of a body.
#[derive(Debug, Default)]
struct Progress {
    pieces: AtomicU64,
    complete: AtomicBool,
}

/// Sends `message` and `data` to `peer` and waits until it has taken them.
pub(super) async fn send(
    peer: &Peer,
    message: &Message,
    form: SnapshotForm,
    data: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<(), SendError> {
    let to = peer.id.to_string();
    let inflight = metrics::SNAPSHOT_SEND_INFLIGHTS.with([&to]);
    let begun = Stopwatch::start();
    inflight.inc();
    let _landed = Landed(inflight);
    let sent = attempt(peer, message, form, data).await;
    if sent.is_ok() {
        metrics::SNAPSHOT_SEND_SUCCESS.with([&to]).inc();
        metrics::SNAPSHOT_SEND_DURATION.with([&to]).observe(begun.elapsed());
    } else {
        metrics::SNAPSHOT_SEND_FAILURES.with([&to]).inc();
        peer.counters.sent_failures.inc();
    }
    sent
}

/// Counts a snapshot as ended, also when its sending is given up.
struct Landed(Arc<metrics::Gauge>);

impl Drop for Landed {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn attempt(
    peer: &Peer,
    message: &Message,
    form: SnapshotForm,
    data: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<(), SendError> {
    let url = peer.url();
    let failed = |cause| {
        peer.pass_over(&url);
        SendError::Connection { url: url.clone(), cause }
    };
    let mut connection = peer.dial(&url).await.map_err(failed)?;
    let answer = request(peer, &mut connection, message, form, data).await.map_err(failed)?;
    let status = answer.status();
    if status == StatusCode::NO_CONTENT {
        return Ok(());
    }
    if status == StatusCode::FORBIDDEN {
        peer.shared().local.told_removed(peer.id);
    }
    let text = refusal(&mut connection, answer.into_body()).await;
    Err(SendError::Refused { peer: peer.id, status: status.as_u16(), text })
}

async fn request(
    peer: &Peer,
    connection: &mut Connection,
    message: &Message,
    form: SnapshotForm,
    data: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> io::Result<Response<Incoming>> {
    let mut headers = headers::request(&*peer.shared().local);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if form == SnapshotForm::Native {
        headers.insert(headers::SNAPSHOT_FORM, headers::NATIVE);
    }
    let progress = Arc::new(Progress::default());
    let body = body(peer, envelope(message), data, Arc::clone(&progress));
    tokio::select! {
        answer = connection.send(Method::POST, "/raft/snapshot", headers, body) => answer,
        () = stalled(&progress) => Err(io::Error::new(io::ErrorKind::TimedOut, "the receiver makes no progress")),
        () = peer.stop.cancelled() => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer was removed")),
    }
}

fn body(
    peer: &Peer,
    envelope: Bytes,
    data: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    progress: Arc<Progress>,
) -> RequestBody {
    let sent = Arc::clone(&peer.counters.sent_bytes);
    let noted = Arc::clone(&progress);
    let pieces = stream::once(async { Ok(envelope) }).chain(data).inspect(move |piece| {
        let bytes = piece.as_ref().map_or(0, Bytes::len);
        sent.add(u64::try_from(bytes).unwrap_or(u64::MAX));
        noted.pieces.fetch_add(1, Ordering::Relaxed);
    });
    let pieces = ToEnd { pieces: Box::pin(pieces), progress };
    StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

/// Notes when the last piece has been handed over.
struct ToEnd<S> {
    pieces: Pin<Box<S>>,
    progress: Arc<Progress>,
}

impl<S: Stream<Item = io::Result<Bytes>>> Stream for ToEnd<S> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = std::task::ready!(self.pieces.as_mut().poll_next(context));
        if piece.is_none() {
            self.progress.complete.store(true, Ordering::Relaxed);
        }
        Poll::Ready(piece)
    }
}

/// Resolves when the receiver takes no more data, or does not answer.
async fn stalled(progress: &Progress) {
    let mut seen = 0;
    let mut since = Instant::now();
    loop {
        sleep(LOOK_INTERVAL).await;
        // The end counts as one more piece, so that the time for the answer begins there.
        let complete = progress.complete.load(Ordering::Relaxed);
        let now = progress.pieces.load(Ordering::Relaxed) + u64::from(complete);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if since.elapsed() >= if complete { ANSWER_PATIENCE } else { PROGRESS_PATIENCE } {
            return;
        }
    }
}
