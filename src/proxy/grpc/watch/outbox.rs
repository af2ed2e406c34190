//! What waits for the client of one watch stream.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::watch::{Frame, ROOM_BYTES, ROOM_RESPONSES};

/// Responses of one stream on their way from the hub to the client. The hub looks for room before it puts events in;
/// other responses are few, because each of them answers a request.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<Frame>,
    /// Responses and bytes of events put in and not yet taken over by the connection.
    responses: usize,
    bytes: usize,
    /// Those among them that the stream's task has taken out and is sending.
    sending: (usize, usize),
    /// Watchers have been turned into cursors and wait for room.
    is_hungry: bool,
    end: Option<End>,
}

/// Why a stream ends from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It asked for a leader and there is none.
    NoLeader,
    /// The proxy stops.
    Stopped,
    /// The cluster is another one now: the revisions its watchers stand at mean nothing there.
    OtherCluster,
}

/// What a stream's task finds.
#[derive(Debug)]
pub(super) enum Taken {
    /// Responses, in order.
    Frames(Vec<Frame>),
    /// The stream is over.
    End(End),
}

impl Outbox {
    /// Whether events may be put in. If not, the stream's task says when there is room again.
    pub(super) fn has_room(&self) -> bool {
        let mut state = self.lock();
        let has_room = state.responses < ROOM_RESPONSES && state.bytes < ROOM_BYTES;
        state.is_hungry |= !has_room;
        has_room
    }

    /// Puts one response in, as the frames it is sent in.
    pub(super) fn put(&self, frames: impl IntoIterator<Item = Frame>, event_bytes: usize) {
        let mut state = self.lock();
        state.frames.extend(frames);
        state.responses += 1;
        state.bytes += event_bytes;
        drop(state);
        self.filled.notify_one();
    }

    /// Ends the stream; what waits is not sent any more.
    pub(super) fn end(&self, end: End) {
        self.lock().end = Some(end);
        self.filled.notify_one();
    }

    /// Everything that waits, at least one response. Safe to cancel.
    pub(super) async fn take(&self) -> Taken {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if let Some(end) = state.end {
                    return Taken::End(end);
                }
                if !state.frames.is_empty() {
                    state.sending = (state.responses, state.bytes);
                    return Taken::Frames(mem::take(&mut state.frames));
                }
            }
            filled.await;
        }
    }

    /// What was taken last has been sent. `true` if watchers wait for the room.
    pub(super) fn sent(&self) -> bool {
        let mut state = self.lock();
        let (responses, bytes) = mem::take(&mut state.sending);
        state.responses -= responses;
        state.bytes -= bytes;
        mem::take(&mut state.is_hungry)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits, as messages.
    #[cfg(test)]
    pub(super) fn drain(&self) -> Vec<crate::pb::etcdserverpb::WatchResponse> {
        let mut state = self.lock();
        state.sending = (state.responses, state.bytes);
        let frames = mem::take(&mut state.frames);
        drop(state);
        frames.iter().map(Frame::to_response).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pb::etcdserverpb::ResponseHeader, watch::Body};

    fn frames() -> impl Iterator<Item = Frame> {
        Body::Progress.frames(ResponseHeader::default(), 1, usize::MAX)
    }

    #[tokio::test]
    async fn room_comes_back_when_what_was_taken_is_sent() {
        let outbox = Outbox::default();
        for _ in 0..ROOM_RESPONSES {
            assert!(outbox.has_room());
            outbox.put(frames(), 0);
        }
        assert!(!outbox.has_room());
        let Taken::Frames(taken) = outbox.take().await else { panic!("frames wait") };
        assert_eq!(taken.len(), ROOM_RESPONSES);
        assert!(!outbox.has_room(), "they are on their way still");
        assert!(outbox.sent(), "somebody waits");
        assert!(outbox.has_room() && !outbox.sent());
    }

    #[tokio::test]
    async fn an_ended_stream_hears_nothing_else() {
        let outbox = Outbox::default();
        outbox.put(frames(), 0);
        outbox.end(End::NoLeader);
        assert!(matches!(outbox.take().await, Taken::End(End::NoLeader)));
    }
}
