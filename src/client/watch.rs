//! Watches over one shared stream, continued after every loss of the connection.
//!
//! Invariants:
//! - Watches are created on a stream one after another, because only the order of the answers tells which is which.
//! - A watch that is created again asks for the revision behind the last one delivered.
//! - After its last delivery, the cancelled one, a watch is forgotten.

use std::{collections::VecDeque, time::Duration};

use tokio::time;
use tonic::Code;

use super::{Client, ClientError, stream::Duplex};
use crate::pb::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};

/// Names a watch of one [`Watcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchKey(pub u64);

/// Something a watch has to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Which watch.
    pub watch: WatchKey,
    /// The response, its fragments joined. Never a `created` one.
    pub response: WatchResponse,
    /// Why the watch is over; `None` while it goes on, and when the member ended it without a reason.
    pub error: Option<ClientError>,
    /// Whether this was the last delivery of the watch.
    pub over: bool,
}

/// All watches of one caller.
#[derive(Debug)]
pub struct Watcher {
    client: Client,
    stream: Option<Duplex<WatchRequest, WatchResponse>>,
    book: Book,
    ready: VecDeque<Delivery>,
    backoff: Duration,
}

impl Client {
    /// Starts without any watch. Only members that have a leader serve the watches.
    pub fn watcher(&self) -> Watcher {
        Watcher {
            client: self.clone(),
            stream: None,
            book: Book::default(),
            ready: VecDeque::new(),
            backoff: BACKOFF_MIN,
        }
    }
}

impl Watcher {
    /// Adds a watch; it starts once [`Watcher::next`] is awaited.
    pub fn watch(&mut self, request: WatchCreateRequest) -> WatchKey {
        self.book.add(request)
    }

    /// Asks for the progress of all watches, which comes as a delivery without events to each.
    pub fn request_progress(&mut self) {
        self.book.outgoing.push_back(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    }

    /// The next delivery; waits for ever when there is no watch. May be cancelled and awaited again at any time.
    pub async fn next(&mut self) -> Delivery {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return delivery;
            }
            if self.book.is_idle() {
                std::future::pending::<()>().await;
            }
            if let Err(error) = self.step().await {
                self.on_failure(error).await;
            }
        }
    }

    /// Opens the stream, or sends what waits, or receives one response.
    async fn step(&mut self) -> Result<(), ClientError> {
        let Some(stream) = &mut self.stream else { return self.open().await };
        if let Some(request) = self.book.next_request() {
            // The permit comes first, so that a cancelled wait loses no request.
            if let Ok(permit) = stream.requests.reserve().await {
                self.book.sent(&request);
                permit.send(WatchRequest { request_union: Some(request) });
                return Ok(());
            }
        }
        let response = stream.answers.next().await?.ok_or_else(stream_ended)?;
        self.backoff = BACKOFF_MIN;
        self.ready.extend(self.book.receive(response));
        Ok(())
    }

    async fn open(&mut self) -> Result<(), ClientError> {
        self.book.start_over();
        let Some(first) = self.book.next_request() else { return Ok(()) };
        let request = WatchRequest { request_union: Some(first.clone()) };
        self.stream = Some(self.client.duplex("/etcdserverpb.Watch/Watch", true, &request).await?);
        self.book.sent(&first);
        Ok(())
    }

    /// Tries again after a passing failure; ends every watch after any other.
    async fn on_failure(&mut self, error: ClientError) {
        self.stream = None;
        if is_final(&error) {
            self.ready.extend(self.book.end_all(&error));
            return;
        }
        time::sleep(self.backoff).await;
        self.backoff = self.backoff.mul_f64(BACKOFF_GROWTH).min(BACKOFF_MAX);
    }
}

/// What the watches are waiting for; knows nothing of streams.
#[derive(Debug, Default)]
struct Book {
    next_key: u64,
    watches: Vec<Watch>,
    /// Keys of the watches the stream does not know yet, in order. The first may have been asked for.
    starting: VecDeque<WatchKey>,
    asked: bool,
    outgoing: VecDeque<RequestUnion>,
}

#[derive(Debug)]
struct Watch {
    key: WatchKey,
    request: WatchCreateRequest,
    /// The member's number for it on the present stream.
    id: Option<i64>,
    /// Events of a response whose last fragment is still to come.
    fragments: Option<WatchResponse>,
}

impl Book {
    fn add(&mut self, request: WatchCreateRequest) -> WatchKey {
        let key = WatchKey(self.next_key);
        self.next_key += 1;
        self.watches.push(Watch { key, request, id: None, fragments: None });
        self.starting.push_back(key);
        key
    }

    fn is_idle(&self) -> bool {
        self.watches.is_empty() && self.outgoing.is_empty()
    }

    /// A new stream knows no watch.
    fn start_over(&mut self) {
        self.asked = false;
        self.starting = self.watches.iter().map(|watch| watch.key).collect();
        for watch in &mut self.watches {
            watch.id = None;
            watch.fragments = None;
        }
    }

    /// What to send next. Stays the same until [`Book::sent`] confirms it.
    fn next_request(&self) -> Option<RequestUnion> {
        if !self.asked
            && let Some(key) = self.starting.front()
            && let Some(watch) = self.watches.iter().find(|watch| watch.key == *key)
        {
            return Some(RequestUnion::CreateRequest(watch.request.clone()));
        }
        self.outgoing.front().cloned()
    }

    fn sent(&mut self, request: &RequestUnion) {
        match request {
            RequestUnion::CreateRequest(_) => self.asked = true,
            RequestUnion::CancelRequest(_) | RequestUnion::ProgressRequest(_) => drop(self.outgoing.pop_front()),
        }
    }

    fn receive(&mut self, response: WatchResponse) -> Vec<Delivery> {
        if response.created {
            self.created(&response).into_iter().collect()
        } else if response.watch_id == BROADCAST && !response.canceled {
            self.watches.iter_mut().filter_map(|watch| watch.deliver(response.clone())).collect()
        } else {
            self.receive_one(response).into_iter().collect()
        }
    }

    fn created(&mut self, response: &WatchResponse) -> Option<Delivery> {
        let key = self.starting.pop_front()?;
        self.asked = false;
        if response.canceled {
            let error = ClientError::WatchEnded { reason: response.cancel_reason.clone() };
            return self.end(key, ended(), Some(error));
        }
        let watch = self.watches.iter_mut().find(|watch| watch.key == key)?;
        watch.id = Some(response.watch_id);
        if watch.request.start_revision == 0 {
            watch.request.start_revision = header_revision(response) + 1;
        }
        None
    }

    fn receive_one(&mut self, response: WatchResponse) -> Option<Delivery> {
        let watch = self.watches.iter_mut().find(|watch| watch.id == Some(response.watch_id))?;
        let key = watch.key;
        match (response.canceled, response.compact_revision) {
            (true, 0) => self.end(key, response, None),
            (_, 0) => watch.deliver(response),
            (_, _) => {
                let text = "etcdserver: mvcc: required revision has been compacted";
                self.end(key, response, Some(ClientError::from_parts(Code::OutOfRange, text)))
            }
        }
    }

    fn end(&mut self, key: WatchKey, response: WatchResponse, error: Option<ClientError>) -> Option<Delivery> {
        let before = self.watches.len();
        self.watches.retain(|watch| watch.key != key);
        self.starting.retain(|starting| *starting != key);
        (self.watches.len() < before).then_some(Delivery { watch: key, response, error, over: true })
    }

    fn end_all(&mut self, error: &ClientError) -> Vec<Delivery> {
        self.starting.clear();
        self.outgoing.clear();
        self.watches
            .drain(..)
            .map(|watch| Delivery { watch: watch.key, response: ended(), error: Some(error.clone()), over: true })
            .collect()
    }
}

impl Watch {
    /// Joins fragments and moves the revision to continue from.
    fn deliver(&mut self, mut response: WatchResponse) -> Option<Delivery> {
        if let Some(mut whole) = self.fragments.take() {
            whole.events.append(&mut response.events);
            whole.fragment = response.fragment;
            response = whole;
        }
        if response.fragment {
            self.fragments = Some(response);
            return None;
        }
        let last_event = response.events.last().and_then(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
        self.request.start_revision = last_event.unwrap_or_else(|| header_revision(&response)) + 1;
        Some(Delivery { watch: self.key, response, error: None, over: false })
    }
}

/// The last response of a watch that ended otherwise than by a response of its own.
fn ended() -> WatchResponse {
    WatchResponse { canceled: true, ..WatchResponse::default() }
}

fn header_revision(response: &WatchResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}

fn stream_ended() -> ClientError {
    ClientError::from_parts(Code::Unavailable, "the member ended the stream")
}

/// Whether opening the stream again would not help.
fn is_final(error: &ClientError) -> bool {
    !matches!(error.code(), Code::Unavailable | Code::Internal) || error.is_refusal("etcdserver: no leader")
}

/// The watch number of a progress answer meant for all watches of the stream.
const BROADCAST: i64 = -1;
/// Pause before a broken stream is opened again.
const BACKOFF_MIN: Duration = Duration::from_millis(1);
/// Longest such pause.
const BACKOFF_MAX: Duration = Duration::from_millis(100);
/// What the pause is multiplied with after each failure.
const BACKOFF_GROWTH: f64 = 1.25;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::{
        etcdserverpb::ResponseHeader,
        mvccpb::{Event, KeyValue},
    };

    fn create(start_revision: i64) -> WatchCreateRequest {
        WatchCreateRequest { start_revision, ..WatchCreateRequest::default() }
    }

    fn header(revision: i64) -> ResponseHeader {
        ResponseHeader { revision, ..ResponseHeader::default() }
    }

    fn created(watch_id: i64, revision: i64) -> WatchResponse {
        WatchResponse { watch_id, created: true, header: Some(header(revision)), ..WatchResponse::default() }
    }

    fn events(watch_id: i64, revisions: &[i64]) -> WatchResponse {
        let event = |revision: &i64| Event {
            kv: Some(KeyValue { mod_revision: *revision, ..KeyValue::default() }),
            ..Event::default()
        };
        let last = revisions.last().copied().unwrap_or(0);
        WatchResponse {
            watch_id,
            header: Some(header(last)),
            events: revisions.iter().map(event).collect(),
            ..WatchResponse::default()
        }
    }

    /// Confirms whatever the book wants to send and returns the start revision of a create request.
    fn ask(book: &mut Book) -> Option<i64> {
        let request = book.next_request()?;
        book.sent(&request);
        match request {
            RequestUnion::CreateRequest(create) => Some(create.start_revision),
            _ => None,
        }
    }

    #[test]
    fn watches_start_one_after_another() {
        let mut book = Book::default();
        book.add(create(5));
        let second = book.add(create(7));
        assert_eq!(ask(&mut book), Some(5));
        assert_eq!(book.next_request(), None, "the first is not confirmed yet");
        assert_eq!(book.receive(created(0, 9)), []);
        assert_eq!(ask(&mut book), Some(7));
        book.receive(created(1, 9));
        let delivered = book.receive(events(1, &[7, 8]));
        assert_eq!(delivered.iter().map(|delivery| delivery.watch).collect::<Vec<_>>(), [second]);
    }

    #[test]
    fn a_lost_stream_continues_behind_the_last_delivery() {
        let mut book = Book::default();
        book.add(create(0));
        ask(&mut book);
        book.receive(created(0, 9));
        book.start_over();
        assert_eq!(ask(&mut book), Some(10), "a watch of the present misses nothing written meanwhile");
        book.receive(created(0, 9));
        book.receive(events(0, &[10, 12]));
        book.start_over();
        assert_eq!(ask(&mut book), Some(13));
    }

    #[test]
    fn fragments_arrive_as_one_response() {
        let mut book = Book::default();
        book.add(create(1));
        ask(&mut book);
        book.receive(created(0, 9));
        let first = WatchResponse { fragment: true, ..events(0, &[1, 2]) };
        assert_eq!(book.receive(first), []);
        let whole = book.receive(events(0, &[3]));
        assert_eq!(whole[0].response.events.len(), 3);
        assert!(!whole[0].response.fragment);
    }

    #[test]
    fn progress_reaches_every_watch() {
        let mut book = Book::default();
        for id in 0..2 {
            book.add(create(1));
            ask(&mut book);
            book.receive(created(id, 9));
        }
        let progress = WatchResponse { watch_id: BROADCAST, header: Some(header(9)), ..WatchResponse::default() };
        assert_eq!(book.receive(progress).len(), 2);
    }

    #[test]
    fn a_compacted_watch_ends_with_the_reason() {
        let mut book = Book::default();
        book.add(create(1));
        ask(&mut book);
        book.receive(created(0, 9));
        let compacted = WatchResponse { canceled: true, compact_revision: 5, ..WatchResponse::default() };
        let delivered = book.receive(compacted);
        let error = delivered[0].error.as_ref().map(ToString::to_string);
        assert_eq!(error.as_deref(), Some("etcdserver: mvcc: required revision has been compacted"));
        assert!(delivered[0].over && book.is_idle());
    }

    #[test]
    fn a_refused_watch_ends_with_the_members_words() {
        let mut book = Book::default();
        book.add(create(1));
        ask(&mut book);
        let reason = "etcdserver: permission denied".to_owned();
        let refused = WatchResponse { canceled: true, cancel_reason: reason.clone(), ..created(-1, 0) };
        let delivered = book.receive(refused);
        assert_eq!(delivered[0].error.as_ref().map(ToString::to_string), Some(reason));
    }

    #[test]
    fn only_a_member_without_leader_or_a_refusal_ends_all_watches() {
        assert!(is_final(&ClientError::from_parts(Code::Unavailable, "etcdserver: no leader")));
        assert!(is_final(&ClientError::from_parts(Code::PermissionDenied, "etcdserver: permission denied")));
        assert!(!is_final(&ClientError::from_parts(Code::Unavailable, "etcdserver: server stopped")));
    }
}
