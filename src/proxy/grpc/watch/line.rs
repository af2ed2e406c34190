//! A stream of watches to the cluster: opened again after every loss, each watch from where it was.
//!
//! Invariants: watches are created in order and the cluster answers in that order, which is how its numbers are known; what
//! the cluster says is handed to the hub with all events of a revision together, whatever fragments they came in.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::uri::PathAndQuery;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::sleep,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic_prost::ProstCodec;

use super::{
    Shared, doubt,
    feed::{Line, revision_of},
    hub::{Hub, Order},
};
use crate::{
    api::status::Status,
    pb::{
        etcdserverpb::{
            WatchCancelRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
        },
        mvccpb::Event,
    },
    proxy::grpc::{
        identity::other_cluster,
        upstream::{Outgoing, status_of, text_of},
    },
    types::{Code, KeyRange, Rejection},
    watch::{NO_WATCHER, slab::Key},
};

/// Requests a stream holds until the member reads them; more wait as orders.
const REQUESTS_QUEUED_MAX: usize = 64;
/// Bytes of keys and values that one line keeps while the rest of their revision is still to come. A transaction of as many
/// operations as members take by default replaces at most 192 MiB of values; members may be told to take more.
const FRAGMENTS_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Pause before a broken stream is opened again.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Longest such pause.
const BACKOFF_MAX: Duration = Duration::from_millis(250);
const WATCH: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");

/// Orders for one line. As many as there are feeds at most, and one for progress.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct InboxState {
    orders: VecDeque<Order>,
    /// Nobody reads them any more.
    is_closed: bool,
}

impl Inbox {
    /// `false` if the line has ended: it needs a new one.
    pub(super) fn push(&self, order: Order) -> bool {
        let mut state = self.lock();
        if state.is_closed {
            return false;
        }
        let is_repeated = matches!(order, Order::Progress(_)) && state.orders.contains(&order);
        if !is_repeated {
            state.orders.push_back(order);
        }
        drop(state);
        self.filled.notify_one();
        true
    }

    fn take(&self) -> VecDeque<Order> {
        mem::take(&mut self.lock().orders)
    }

    /// Ends the line if there is nothing to do.
    fn close_if_empty(&self) -> bool {
        let mut state = self.lock();
        state.is_closed = state.orders.is_empty();
        state.is_closed
    }

    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a line knows of its watches; knows nothing of connections.
#[derive(Debug, Default)]
struct Book {
    /// Feeds that are to be opened, in order.
    wanted: VecDeque<Key>,
    /// Those that were asked for, in order; nothing in place of one that was given up since.
    asked: VecDeque<Option<Key>>,
    /// The cluster's numbers.
    ids: HashMap<i64, Key>,
    numbers: HashMap<Key, i64>,
    cancels: VecDeque<i64>,
    wants_progress: bool,
    /// Revisions whose last fragment is still to come.
    fragments: HashMap<i64, Vec<Event>>,
    fragments_bytes: usize,
}

/// A revision is longer than what may be kept of all.
#[derive(Debug, PartialEq)]
struct TooLong;

impl Book {
    fn take(&mut self, order: &Order) {
        match order {
            Order::Open(_, feed) => self.wanted.push_back(*feed),
            Order::Close(_, feed) => self.give_up(*feed),
            Order::Progress(_) => self.wants_progress = true,
        }
    }

    fn give_up(&mut self, feed: Key) {
        self.wanted.retain(|wanted| *wanted != feed);
        self.asked.iter_mut().filter(|asked| **asked == Some(feed)).for_each(|asked| *asked = None);
        if let Some(id) = self.numbers.remove(&feed) {
            self.ids.remove(&id);
            self.take_fragments(id);
            self.cancels.push_back(id);
        }
    }

    fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.numbers.is_empty() && self.asked.iter().all(Option::is_none)
    }

    /// A new stream knows no watch.
    fn start_over(&mut self) {
        let known: Vec<Key> = self.numbers.drain().map(|(feed, _)| feed).collect();
        let asked = mem::take(&mut self.asked);
        self.wanted = known.into_iter().chain(asked.into_iter().flatten()).chain(mem::take(&mut self.wanted)).collect();
        self.ids.clear();
        self.cancels.clear();
        self.fragments.clear();
        self.fragments_bytes = 0;
    }

    /// Joins fragments, as far as all events of a revision go together: what may be continued is kept, up to `bytes_max`.
    fn whole(&mut self, response: &mut WatchResponse, bytes_max: usize) -> Result<(), TooLong> {
        let id = response.watch_id;
        let mut begun = self.take_fragments(id);
        begun.append(&mut response.events);
        response.events = begun;
        if !response.fragment {
            return Ok(());
        }
        let last = response.events.last().map_or(0, revision_of);
        let rest = response.events.split_off(response.events.partition_point(|event| revision_of(event) < last));
        self.fragments_bytes += weight(&rest);
        self.fragments.insert(id, rest);
        if self.fragments_bytes > bytes_max { Err(TooLong) } else { Ok(()) }
    }

    fn take_fragments(&mut self, id: i64) -> Vec<Event> {
        let events = self.fragments.remove(&id).unwrap_or_default();
        self.fragments_bytes -= weight(&events);
        events
    }

    /// The feed that a created response is about, numbered from now on.
    fn created(&mut self, response: &WatchResponse) -> Option<Key> {
        let Some(feed) = self.asked.pop_front().flatten() else {
            if !response.canceled {
                self.cancels.push_back(response.watch_id);
            }
            return None;
        };
        if !response.canceled {
            self.ids.insert(response.watch_id, feed);
            self.numbers.insert(feed, response.watch_id);
        }
        Some(feed)
    }

    fn forget(&mut self, id: i64) -> Option<Key> {
        let feed = self.ids.remove(&id)?;
        self.numbers.remove(&feed);
        self.take_fragments(id);
        Some(feed)
    }
}

/// Bytes of keys and values.
fn weight(events: &[Event]) -> usize {
    let pairs = events.iter().flat_map(|event| event.kv.iter().chain(&event.prev_kv));
    pairs.map(|kv| kv.key.len() + kv.value.len()).sum()
}

/// Serves `line` until nobody needs it.
pub(super) async fn run(shared: Arc<Shared>, line: Line, inbox: Arc<Inbox>) {
    let mut runner = Runner { shared, line, inbox, book: Book::default(), backoff: BACKOFF_MIN, leaderless: 0 };
    loop {
        runner.take_orders();
        if runner.book.is_idle() {
            if runner.inbox.close_if_empty() {
                return;
            }
            continue;
        }
        match runner.serve().await {
            Ok(()) => {}
            Err(status) => runner.on_failure(&status).await,
        }
    }
}

struct Runner {
    shared: Arc<Shared>,
    line: Line,
    inbox: Arc<Inbox>,
    book: Book,
    backoff: Duration,
    /// Members in a row that had no leader.
    leaderless: usize,
}

impl Runner {
    fn take_orders(&mut self) {
        for order in self.inbox.take() {
            self.book.take(&order);
        }
    }

    /// Opens a stream and works on it. Returns when there is nothing left to do.
    async fn serve(&mut self) -> Result<(), Status> {
        self.book.start_over();
        let mut eras = self.shared.upstream.identity().eras();
        let Some(first) = self.next_request() else { return Ok(()) };
        let mut sender = None;
        let call = Outgoing::with_leader(self.line.token.as_ref());
        let mut answers = self
            .shared
            .upstream
            .open(&WATCH, &call, ProstCodec::<WatchRequest, WatchResponse>::default, || {
                let (requests, receiver) = mpsc::channel(REQUESTS_QUEUED_MAX);
                sender = Some(requests);
                tokio_stream::once(first.clone()).chain(ReceiverStream::new(receiver))
            })
            .await?;
        let Some(sender) = sender else { return Ok(()) };
        loop {
            while let Ok(permit) = sender.try_reserve() {
                let Some(request) = self.next_request() else { break };
                permit.send(request);
            }
            if self.book.is_idle() && self.book.cancels.is_empty() {
                return Ok(());
            }
            tokio::select! {
                () = self.inbox.filled.notified() => self.take_orders(),
                answer = answers.message() => match answer {
                    Ok(Some(response)) => {
                        self.see(&response, &eras)?;
                        self.receive(response);
                    }
                    Ok(None) => return Err(Status::new(Code::Unavailable, "the member ended the stream")),
                    Err(status) => return Err(status_of(&status)),
                },
                _ = eras.changed() => return Err(other_cluster()),
                // The member reads again.
                permit = sender.reserve(), if sender.capacity() == 0 => drop(permit),
            }
        }
    }

    /// What to send next. What is returned counts as sent.
    fn next_request(&mut self) -> Option<WatchRequest> {
        let request = |union| Some(WatchRequest { request_union: Some(union) });
        if let Some(watch_id) = self.book.cancels.pop_front() {
            return request(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
        }
        while let Some(feed) = self.book.wanted.pop_front() {
            if let Some(create) = self.shared.lock().request_of(feed) {
                self.book.asked.push_back(Some(feed));
                return request(RequestUnion::CreateRequest(create));
            }
        }
        if mem::take(&mut self.book.wants_progress) {
            return request(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        }
        None
    }

    /// What comes from another cluster than this stream was opened for is not taken.
    fn see(&self, response: &WatchResponse, eras: &watch::Receiver<u64>) -> Result<(), Status> {
        let identity = self.shared.upstream.identity();
        let is_over = || eras.has_changed().unwrap_or(true);
        if is_over() {
            return Err(other_cluster());
        }
        let Some(header) = &response.header else { return Ok(()) };
        let mark = identity.mark();
        identity.see(header);
        if is_over() {
            return Err(other_cluster());
        }
        if response.created && mark.is_ahead_of(header) {
            self.doubt();
        }
        Ok(())
    }

    /// A member that is behind what was heard before lags, or its cluster was restored from a backup.
    fn doubt(&self) {
        let Some(feed) = self.book.asked.front().copied().flatten() else { return };
        let Some(request) = self.shared.lock().request_of(feed) else { return };
        let (shared, token) = (Arc::clone(&self.shared), self.line.token.clone());
        self.shared.running.spawn(doubt::settle(shared, token, request));
    }

    fn receive(&mut self, response: WatchResponse) {
        (self.backoff, self.leaderless) = (BACKOFF_MIN, 0);
        let ended = match (response.created, response.canceled) {
            (true, canceled) => self.book.created(&response).filter(|_| canceled),
            (false, true) => self.book.forget(response.watch_id),
            (false, false) => return self.hand_over(response),
        };
        if let Some(feed) = ended {
            self.end(feed, &response);
        }
    }

    fn hand_over(&mut self, mut response: WatchResponse) {
        if response.watch_id == NO_WATCHER {
            let header = response.header.unwrap_or_default();
            return self.shared.act(|hub| hub.is_complete(&self.line, header));
        }
        let Some(feed) = self.book.ids.get(&response.watch_id).copied() else { return };
        if self.book.whole(&mut response, FRAGMENTS_BYTES_MAX).is_err() {
            return self.give_up_too_long(feed);
        }
        let WatchResponse { header, events, fragment, .. } = response;
        let header = header.unwrap_or_default();
        if events.is_empty() {
            // Something happens, only it is not all there.
            if !fragment {
                self.shared.act(|hub| hub.is_quiet(feed, header));
            }
            return;
        }
        for kv in events.iter().filter_map(|event| event.kv.as_ref()) {
            self.shared.cache.invalidate(&KeyRange::single(kv.key.clone()), kv.mod_revision);
        }
        self.shared.act(|hub| hub.deliver(feed, header, events));
    }

    /// Opened again, the watch would come to the same revision: its watchers end, the others of the line go on.
    fn give_up_too_long(&mut self, feed: Key) {
        let reason =
            format!("quorate: a revision is longer than the {FRAGMENTS_BYTES_MAX} bytes that this proxy keeps of it");
        tracing::error!(reason, "cannot go on with a watch: give its clients the address of a member");
        self.book.give_up(feed);
        self.shared.act(|hub| hub.refused(feed, &reason));
    }

    fn end(&self, feed: Key, response: &WatchResponse) {
        match response.compact_revision {
            0 if response.cancel_reason == Rejection::Compacted.to_string() => {
                self.shared.act(|hub| hub.compacted(feed, response.header.unwrap_or_default().revision));
            }
            0 => self.shared.act(|hub| hub.refused(feed, &response.cancel_reason)),
            compact_revision => self.shared.act(|hub| hub.compacted(feed, compact_revision)),
        }
    }

    /// Goes on after a pause; where the cluster knows the caller no longer, ends every watch with its words.
    async fn on_failure(&mut self, status: &Status) {
        if is_final(status) {
            self.book.start_over();
            self.take_orders();
            for feed in mem::take(&mut self.book.wanted) {
                self.shared.act(|hub| hub.refused(feed, &text_of(status)));
            }
            return;
        }
        // One member alone may be cut off from the others.
        self.leaderless = if *status == Rejection::NoLeader.into() { self.leaderless + 1 } else { 0 };
        if self.leaderless >= self.shared.upstream.endpoints().all().len().max(1) {
            self.shared.act(Hub::is_leaderless);
        }
        tracing::debug!(code = ?status.code(), message = status.message(), "a stream of watches to the cluster broke");
        sleep(self.backoff).await;
        self.backoff = self.backoff.saturating_mul(2).min(BACKOFF_MAX);
    }
}

/// Whether opening the stream again would not help.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pb::mvccpb::KeyValue, watch::slab::Slab};

    fn created(watch_id: i64) -> WatchResponse {
        WatchResponse { watch_id, created: true, ..WatchResponse::default() }
    }

    fn line() -> Line {
        Line { token: None, is_past: false }
    }

    #[test]
    fn numbers_follow_the_order_of_the_requests() {
        let (mut book, mut feeds) = (Book::default(), Slab::default());
        let [a, b, c] = [(); 3].map(|()| feeds.insert(()));
        book.asked.extend([Some(a), Some(b), Some(c)]);
        book.take(&Order::Close(line(), b));
        assert_eq!(
            [book.created(&created(7)), book.created(&created(8)), book.created(&created(9))],
            [Some(a), None, Some(c)]
        );
        assert_eq!(book.cancels, [8], "what was given up while it was asked for is cancelled");
        book.take(&Order::Close(line(), a));
        assert_eq!((book.cancels.len(), book.is_idle()), (2, false));
        book.start_over();
        assert_eq!((book.wanted.len(), book.cancels.len()), (1, 0));
        book.take(&Order::Close(line(), c));
        assert!(book.is_idle());
    }

    fn event(mod_revision: i64, bytes: usize) -> Event {
        let kv = KeyValue { mod_revision, value: vec![0; bytes].into(), ..KeyValue::default() };
        Event { kv: Some(kv.clone()), prev_kv: Some(kv), ..Event::default() }
    }

    fn part(watch_id: i64, fragment: bool, revisions: &[i64]) -> WatchResponse {
        let events = revisions.iter().map(|revision| event(*revision, 1)).collect();
        WatchResponse { watch_id, fragment, events, ..WatchResponse::default() }
    }

    /// The revisions that are handed on.
    fn joined(book: &mut Book, mut part: WatchResponse) -> Vec<i64> {
        book.whole(&mut part, usize::MAX).unwrap();
        part.events.iter().map(revision_of).collect()
    }

    #[test]
    fn a_revision_is_joined_for_each_watch_and_nothing_else_is_kept() {
        let mut book = Book::default();
        assert!(joined(&mut book, part(1, true, &[3])).is_empty());
        assert_eq!(joined(&mut book, part(2, true, &[3, 4, 4])), [3]);
        assert_eq!(joined(&mut book, part(1, true, &[3, 5])), [3, 3]);
        assert_eq!(joined(&mut book, part(1, false, &[5])), [5, 5]);
        assert_eq!(joined(&mut book, part(2, false, &[])), [4, 4]);
        assert!(book.fragments.is_empty() && book.fragments_bytes == 0);
    }

    #[test]
    fn what_is_kept_of_revisions_is_bounded() {
        let (mut book, mut feeds) = (Book::default(), Slab::default());
        let feed = feeds.insert(());
        book.asked.push_back(Some(feed));
        book.created(&created(1));
        let long = |revision| WatchResponse { events: vec![event(revision, 300)], ..part(1, true, &[]) };
        for revision in 3..10 {
            book.whole(&mut long(revision), 1_000).expect("each revision fits, however many there are");
        }
        assert_eq!(book.whole(&mut long(9), 1_000), Err(TooLong));
        book.take(&Order::Close(line(), feed));
        assert_eq!((book.fragments.len(), book.fragments_bytes), (0, 0));
    }

    #[test]
    fn an_idle_line_ends_and_takes_no_more_orders() {
        let inbox = Inbox::default();
        assert!(inbox.push(Order::Progress(line())) && inbox.push(Order::Progress(line())));
        assert!(!inbox.close_if_empty());
        assert_eq!(inbox.take().len(), 1);
        assert!(inbox.close_if_empty());
        assert!(!inbox.push(Order::Progress(line())));
    }
}
