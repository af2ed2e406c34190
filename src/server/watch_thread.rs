//! The thread that owns the watch hub, the thread that reads the past for it, and the streams between hub and clients.
//!
//! Back-pressure: the hub counts what each stream's client has not taken yet and turns watchers of a slow stream into
//! cursors, so that an [`Outbox`] holds at most the hub's room plus the answers to requests; and a client that does not
//! take its answers is not allowed further requests ([`ANSWERS_MAX`]).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::Ordering,
        mpsc::{self, SyncSender},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    clock::Clock as _,
    metrics,
    mvcc::Changes,
    pb::etcdserverpb::WatchRequest,
    types::{Rejection, Ticks},
    watch::{CatchUp, Delivery, Frame, Header, Hub, Past, ROOM_BYTES, ROOM_RESPONSES, StreamId},
};

use super::{ServerFailure, inbox::Taken, shared::Shared};

/// Frames a client may leave untaken before its next request has to wait.
const ANSWERS_MAX: usize = 1_024;
/// Up to so many streams are counted whenever something happens, so that the last change is always shown.
const STREAMS_COUNTED_ALWAYS: usize = 64;
/// How often the counts of streams and watchers are shown.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// The jitter of progress notifications, as a share of their interval.
const PROGRESS_JITTER_PERCENT: u64 = 10;

/// Tells the streams of a member apart.
type Token = u64;

/// What others want of the watch thread.
#[derive(Debug)]
pub(super) enum WatchOrder {
    /// New revisions, and the compact revision behind them.
    Changes(Vec<Arc<Changes>>, i64),
    /// The state jumped to this revision, with this compact revision.
    Skipped(i64, i64),
    /// A new stream.
    Open(Token, Arc<Outbox>),
    /// A client's request.
    Request(Token, WatchRequest),
    /// A watch the client may not have.
    Refuse(Token, String),
    /// A client that was short of room has taken frames.
    Taken(Token),
    /// A client is gone.
    Close(Token),
    /// A piece of the past was read.
    CaughtUp(CatchUp, Past),
    /// The round of pieces is complete.
    RoundDone,
}

/// What waits for one stream's client.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<OutboxState>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct OutboxState {
    frames: Vec<Frame>,
    /// Responses taken by the client and not yet returned to the hub as room.
    taken: usize,
    taken_bytes: usize,
    /// Deliveries not yet returned to the hub as room.
    unreturned: usize,
    unreturned_bytes: usize,
    /// The hub is running out of room: tell it at once when the client takes something.
    hungry: bool,
    ended: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One watch stream: requests in, frames out. Ends when dropped.
#[derive(Debug)]
pub struct WatchStream {
    token: Token,
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
}

impl WatchStream {
    pub(super) fn open(shared: &Arc<Shared>) -> Self {
        shared.streams_open.fetch_add(1, Ordering::SeqCst);
        let (token, outbox) = (shared.next_stream.fetch_add(1, Ordering::Relaxed), Arc::new(Outbox::default()));
        let stream = Self { token, outbox: Arc::clone(&outbox), shared: Arc::clone(shared) };
        if shared.watch.push(WatchOrder::Open(token, outbox)).is_err() {
            stream.outbox.lock().ended = true;
        }
        stream
    }

    /// Hands one request to the hub, after the client has taken enough of its earlier answers. Safe to cancel before it
    /// completes: the request is then not handed over.
    ///
    /// # Errors
    /// [`Rejection::Stopped`].
    pub async fn send(&self, request: WatchRequest) -> Result<(), Rejection> {
        self.room_for_answer().await;
        self.shared.watch.push(WatchOrder::Request(self.token, request)).map_err(|_| Rejection::Stopped)
    }

    /// Answers a create request with a refusal, in its place among the answers.
    ///
    /// # Errors
    /// [`Rejection::Stopped`].
    pub async fn refuse(&self, reason: String) -> Result<(), Rejection> {
        self.room_for_answer().await;
        self.shared.watch.push(WatchOrder::Refuse(self.token, reason)).map_err(|_| Rejection::Stopped)
    }

    async fn room_for_answer(&self) {
        loop {
            let emptied = self.outbox.emptied.notified();
            let full = {
                let state = self.outbox.lock();
                state.frames.len() >= ANSWERS_MAX && !state.ended
            };
            if !full {
                return;
            }
            emptied.await;
        }
    }

    /// Everything that waits for the client, in order, at least one frame; `None` once the member stops. Safe to cancel.
    pub async fn recv(&self) -> Option<Vec<Frame>> {
        loop {
            let filled = self.outbox.filled.notified();
            match self.take() {
                Some(frames) if frames.is_empty() => filled.await,
                taken => return taken,
            }
        }
    }

    fn take(&self) -> Option<Vec<Frame>> {
        let mut state = self.outbox.lock();
        let frames = std::mem::take(&mut state.frames);
        if frames.is_empty() && state.ended {
            return None;
        }
        let hungry = !frames.is_empty() && std::mem::take(&mut state.hungry);
        state.taken = state.unreturned;
        state.taken_bytes = state.unreturned_bytes;
        drop(state);
        self.outbox.emptied.notify_one();
        if hungry {
            // A full inbox only delays the room until the next delivery.
            drop(self.shared.watch.push(WatchOrder::Taken(self.token)));
        }
        Some(frames)
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        if self.shared.watch.push(WatchOrder::Close(self.token)).is_err() && !self.shared.is_stopping() {
            self.shared.fail(ServerFailure::Overrun { thread: "watch" });
        }
        self.shared.streams_open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs until the inbox is closed.
pub(super) fn run(shared: Arc<Shared>) {
    // One round of pieces of the past is read at a time, so the channel holds one.
    let (rounds, to_read) = mpsc::sync_channel::<Vec<CatchUp>>(1);
    let for_reader = Arc::clone(&shared);
    let reader = super::spawn("watch-past", move || {
        for round in to_read {
            read_round(&for_reader, round);
        }
    });
    if let Err(cause) = reader {
        return shared.fail(ServerFailure::Thread(cause));
    }
    let hub = first_hub(&shared);
    WatchThread {
        hub,
        streams: HashMap::new(),
        tokens: HashMap::new(),
        rounds,
        reading: false,
        next_stats: Duration::ZERO,
        shared,
    }
    .run();
}

/// No state is held beyond the call: a held one keeps every row the store replaces from then on.
fn first_hub(shared: &Shared) -> Hub {
    let state = shared.published();
    Hub::new(state.view.revision(), state.view.compact_revision())
}

/// Reads from the newest state. If that is older than what the hub has, which it is for an instant around each group of
/// entries, the hub asks again.
fn read_round(shared: &Shared, round: Vec<CatchUp>) {
    let state = shared.published();
    for item in round {
        let past = match item.read(&state.view) {
            Ok(past) => past,
            Err(cause) => return shared.fail(ServerFailure::Watch(cause)),
        };
        // Closed means that the member stops; full cannot be, since one round is bounded.
        drop(shared.watch.push(WatchOrder::CaughtUp(item, past)));
    }
    drop(shared.watch.push(WatchOrder::RoundDone));
}

struct WatchThread {
    hub: Hub,
    streams: HashMap<Token, (StreamId, Arc<Outbox>)>,
    tokens: HashMap<StreamId, Token>,
    rounds: SyncSender<Vec<CatchUp>>,
    /// A round is on its way.
    reading: bool,
    next_stats: Duration,
    shared: Arc<Shared>,
}

impl WatchThread {
    fn run(&mut self) {
        let (mut orders, mut deliveries) = (Vec::new(), Vec::new());
        loop {
            let patience = self.patience();
            if self.shared.watch.take(&mut orders, patience) == Taken::Closed {
                break;
            }
            for order in orders.drain(..) {
                self.carry_out(order, &mut deliveries);
            }
            self.hub.tick(self.shared.now(), &mut deliveries);
            self.await_published();
            self.perform(&mut deliveries);
            self.catch_up(&mut deliveries);
            self.perform(&mut deliveries);
            self.show_stats();
        }
        self.end_streams();
    }

    /// Waits until readers see what the hub knows, so that whoever is told of a revision finds it in every later read. The
    /// apply thread publishes a state right after it told the hub of it; most often it has done so by now.
    fn await_published(&self) {
        while self.shared.published().view.revision() < self.hub.revision() && !self.shared.is_stopping() {
            std::thread::yield_now();
        }
    }

    /// How long there is nothing to do. A watcher served from memory may need more than one round, and nobody reports
    /// the end of such a round.
    fn patience(&self) -> Option<Duration> {
        if self.can_catch_up() {
            return Some(Duration::ZERO);
        }
        self.hub.next_tick().map(|due| self.until(due))
    }

    fn can_catch_up(&self) -> bool {
        !self.reading && self.hub.has_work()
    }

    fn until(&self, due: Ticks) -> Duration {
        Duration::from_millis(due.0.saturating_sub(self.shared.now().0))
    }

    fn carry_out(&mut self, order: WatchOrder, out: &mut Vec<Delivery>) {
        match order {
            WatchOrder::Changes(changes, compact_revision) => self.changes(changes, compact_revision, out),
            WatchOrder::Skipped(revision, compact_revision) => self.hub.skip_to(revision, compact_revision),
            WatchOrder::Open(token, outbox) => self.open(token, outbox),
            WatchOrder::Request(token, request) => {
                if let Some(stream) = self.stream_of(token) {
                    self.hub.request(stream, request, out);
                }
            }
            WatchOrder::Refuse(token, reason) => {
                if let Some(stream) = self.stream_of(token) {
                    self.hub.refuse(stream, reason.into(), out);
                }
            }
            WatchOrder::Taken(token) => self.return_room(token),
            WatchOrder::Close(token) => self.close(token),
            WatchOrder::CaughtUp(item, past) => self.hub.caught_up(item, past, out),
            WatchOrder::RoundDone => self.reading = false,
        }
    }

    fn changes(&mut self, changes: Vec<Arc<Changes>>, compact_revision: i64, out: &mut Vec<Delivery>) {
        for change in changes {
            self.hub.changes(change, out);
        }
        self.hub.compacted(compact_revision);
    }

    fn open(&mut self, token: Token, outbox: Arc<Outbox>) {
        let interval = u64::try_from(self.shared.options.progress_interval.as_millis()).unwrap_or(u64::MAX);
        let jitter = spread(token) % (interval.saturating_mul(PROGRESS_JITTER_PERCENT) / 100).max(1);
        let stream = self.hub.open(self.shared.now(), interval.saturating_add(jitter));
        self.streams.insert(token, (stream, outbox));
        self.tokens.insert(stream, token);
    }

    fn close(&mut self, token: Token) {
        if let Some((stream, _)) = self.streams.remove(&token) {
            self.tokens.remove(&stream);
            self.hub.close(stream);
        }
    }

    fn stream_of(&self, token: Token) -> Option<StreamId> {
        self.streams.get(&token).map(|(stream, _)| *stream)
    }

    /// Serves watchers that are behind, one round at a time.
    fn catch_up(&mut self, out: &mut Vec<Delivery>) {
        if !self.can_catch_up() {
            return;
        }
        let round = self.hub.plan(out);
        if !round.is_empty() {
            self.reading = self.rounds.try_send(round).is_ok();
        }
    }

    /// Puts deliveries into their outboxes, one lock for each run of one stream.
    fn perform(&mut self, deliveries: &mut Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        let header = Header {
            cluster_id: self.shared.identity.cluster.0,
            member_id: self.shared.identity.member.0,
            raft_term: self.shared.published().term.0,
        };
        let split_at = self.shared.tunables().request_bytes_max + crate::types::GRPC_OVERHEAD_BYTES;
        let mut rest = deliveries.drain(..).peekable();
        while let Some(first) = rest.next() {
            let stream = first.stream;
            let Some(token) = self.tokens.get(&stream).copied() else { continue };
            let Some((_, outbox)) = self.streams.get(&token) else { continue };
            let mut state = outbox.lock();
            let mut next = Some(first);
            while let Some(delivery) = next {
                state.unreturned += 1;
                state.unreturned_bytes += delivery.event_bytes();
                state.frames.extend(delivery.frames(header, split_at));
                next = rest.next_if(|delivery| delivery.stream == stream);
            }
            state.hungry = state.unreturned >= HUNGRY_RESPONSES || state.unreturned_bytes >= HUNGRY_BYTES;
            let returned = (std::mem::take(&mut state.taken), std::mem::take(&mut state.taken_bytes));
            state.unreturned -= returned.0;
            state.unreturned_bytes -= returned.1;
            drop(state);
            outbox.filled.notify_one();
            self.hub.return_room(stream, returned.0, returned.1);
        }
    }

    fn return_room(&mut self, token: Token) {
        let Some((stream, outbox)) = self.streams.get(&token) else { return };
        let mut state = outbox.lock();
        let (responses, bytes) = (std::mem::take(&mut state.taken), std::mem::take(&mut state.taken_bytes));
        state.unreturned -= responses;
        state.unreturned_bytes -= bytes;
        drop(state);
        self.hub.return_room(*stream, responses, bytes);
    }

    /// With many streams at most once a second: counting costs one step per stream.
    fn show_stats(&mut self) {
        let now = self.shared.clock.monotonic();
        if now < self.next_stats && self.streams.len() > STREAMS_COUNTED_ALWAYS {
            return;
        }
        self.next_stats = now + STATS_INTERVAL;
        let stats = self.hub.stats();
        metrics::WATCH_STREAMS.set_count(stats.streams as u64);
        metrics::WATCHERS.set_count(stats.watchers as u64);
        metrics::SLOW_WATCHERS.set_count(stats.unsynced as u64);
    }

    fn end_streams(&mut self) {
        for (_, outbox) in self.streams.values() {
            outbox.lock().ended = true;
            outbox.filled.notify_one();
            outbox.emptied.notify_one();
        }
    }
}

/// From here on, room taken by the client is returned at once instead of with the next delivery. It lies below the room
/// that a stream is allowed while it catches up, a quarter of the whole: above it a stream could wait for room that
/// nobody returns.
const HUNGRY_RESPONSES: usize = ROOM_RESPONSES / 2;
const HUNGRY_BYTES: usize = ROOM_BYTES / 8;

/// Scatters consecutive numbers (the finalizer of splitmix64).
fn spread(token: Token) -> u64 {
    let mixed = (token ^ (token >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 1
}
