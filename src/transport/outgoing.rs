//! A stream to one peer: the endless body of an answer.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep};

use super::{
    codec::{MsgAppEncoder, Pieces, encode_heartbeat, encode_message},
    outbox::{StreamKind, Taken},
    pace::NEWS_WAIT_MAX,
    peer::Peer,
};
use crate::pb::raftpb::Message;

/// How often a stream says that it lives: three times within a reader's deadline of five seconds.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(5_000 / 3);
/// A batch buffer that grew beyond this is given back.
const IDLE_BATCH_MESSAGES_MAX: usize = 256;

/// Carries one kind of messages to one peer, everything that waits in one piece, until it is replaced or dropped.
#[derive(Debug)]
pub(super) struct Outgoing {
    peer: Arc<Peer>,
    kind: StreamKind,
    serial: u64,
    msgapp: MsgAppEncoder,
    pieces: Pieces,
    ready: VecDeque<Bytes>,
    batch: Vec<Message>,
    heartbeat: Interval,
    rest: Rest,
}

/// After a rest a stream looks for what was not worth a call.
#[derive(Debug)]
struct Rest {
    sleep: Pin<Box<Sleep>>,
    begun: bool,
}

impl Rest {
    fn new() -> Self {
        Self { sleep: Box::pin(sleep(Duration::ZERO)), begun: false }
    }

    /// Begins a rest, unless one has begun.
    fn begin(&mut self, context: &mut Context<'_>) {
        if !self.begun {
            self.begun = true;
            self.sleep.as_mut().reset(Instant::now() + NEWS_WAIT_MAX);
            if self.sleep.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
    }

    /// Whether a rest is over, once for each.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let over = self.begun && self.sleep.as_mut().poll(context).is_ready();
        self.begun &= !over;
        over
    }
}

impl Outgoing {
    /// Becomes the stream of `kind` to `peer` in place of the one before.
    pub(super) fn attach(peer: Arc<Peer>, kind: StreamKind) -> Self {
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT_INTERVAL, HEARTBEAT_INTERVAL);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            serial: peer.outbox.attach(kind),
            peer,
            kind,
            msgapp: MsgAppEncoder::default(),
            pieces: Pieces::default(),
            ready: VecDeque::new(),
            batch: Vec::new(),
            heartbeat,
            rest: Rest::new(),
        }
    }

    fn encode_batch(&mut self) {
        for message in self.batch.drain(..) {
            match self.kind {
                StreamKind::MsgApp => self.msgapp.encode(&message, &mut self.pieces),
                StreamKind::Message => encode_message(&message, &mut self.pieces),
            }
        }
        self.batch.shrink_to(IDLE_BATCH_MESSAGES_MAX);
    }

    fn encode_heartbeat(&mut self) {
        match self.kind {
            StreamKind::MsgApp => MsgAppEncoder::heartbeat(&mut self.pieces),
            StreamKind::Message => encode_heartbeat(&mut self.pieces),
        }
    }

    /// Hands out what was encoded.
    fn piece(&mut self) -> Option<Bytes> {
        let bytes = u64::try_from(self.pieces.len()).unwrap_or(u64::MAX);
        if bytes > 0 {
            self.peer.counters.sent_bytes.add(bytes);
            self.ready.extend(self.pieces.take());
        }
        self.ready.pop_front()
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(piece) = this.ready.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let as_promised = this.rest.is_over(context);
        match this.peer.outbox.take(this.kind, this.serial, as_promised, &mut this.batch, context.waker()) {
            Taken::Messages => this.encode_batch(),
            Taken::End => return Poll::Ready(None),
            nothing => {
                if nothing == Taken::NothingYet {
                    this.rest.begin(context);
                }
                std::task::ready!(this.heartbeat.poll_tick(context));
                this.encode_heartbeat();
            }
        }
        Poll::Ready(this.piece().map(|piece| Ok(Frame::data(piece))))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if self.peer.outbox.detach(self.kind, self.serial) {
            self.peer.lost();
        }
    }
}
