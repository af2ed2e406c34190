//! Watches of many clients on few watches of the cluster.
//!
//! The [`Hub`](hub::Hub) decides: clients that watch the same keys share one watch on the cluster, whatever they want of its
//! events; who comes late is given what the shared watch has kept, or a watch of its own until the two meet; who does not
//! read turns into a number, the revision to go on from. A [`line`] carries such watches, and each client's stream has an
//! [`Outbox`](outbox::Outbox). Before a client watches, the cluster is asked whether it may, and for the revision that is
//! "now"; requests that come together share one question.
//!
//! Invariants: a watcher gets every matching event from its start on, in order, once, all events of a revision in one
//! response; nothing about a watcher precedes its `created` response or follows its `canceled` one; a client that does not
//! read holds up nobody and costs no more than its outbox.

mod doubt;
mod feed;
mod hub;
mod line;
mod outbox;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use http::{HeaderMap, uri::PathAndQuery};
use prost::Message as _;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    cache::Cache,
    identity::other_cluster,
    namespace::Namespace,
    rounds::Rounds,
    upstream::{Outgoing, Token, Upstream, text_of},
};
use crate::{
    api::{
        Call, decode,
        status::Status,
        wire::{Inbound, Outbound},
    },
    pb::etcdserverpb::{RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, watch_request::RequestUnion},
    types::Rejection,
    watch::slab::Key,
};
use feed::Line;
use hub::{Hub, Order};
use line::Inbox;
use outbox::{End, Outbox, Taken};

/// Requests of one stream that may be under way; a client that asks for more is not read until one is done.
const STEPS_MAX: usize = 64;
const RANGE: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.KV/Range");

/// Serves the watches of all clients.
#[derive(Debug)]
pub(super) struct Watches {
    shared: Arc<Shared>,
    checks: Rounds<Check, Result<Present, Status>>,
    namespace: Namespace,
}

/// Who watches.
#[derive(Debug)]
pub(super) struct Client {
    token: Option<Token>,
    call: Outgoing,
    wants_leader: bool,
}

impl Client {
    /// The client whose call has these headers, and how long it waits. Nothing else of them is kept.
    ///
    /// # Errors
    /// `Internal` for a time that cannot be read.
    pub(super) fn of(headers: HeaderMap) -> Result<(Self, Option<Duration>), Status> {
        let (token, call) = (Token::of(&headers), Outgoing::of(&headers, None));
        let known = Call::new(headers);
        Ok((Self { token, call, wants_leader: known.wants_leader() }, known.timeout()?))
    }
}

/// What may be asked once for several clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Check {
    key: Bytes,
    range_end: Bytes,
    token: Option<Token>,
}

/// The revision of the store, and the era of the cluster that told it.
#[derive(Clone, Copy, Debug)]
struct Present {
    revision: i64,
    era: u64,
}

/// What clients' streams and lines share.
#[derive(Debug)]
pub(super) struct Shared {
    hub: Mutex<Hub>,
    lines: Mutex<HashMap<Line, Arc<Inbox>>>,
    running: TaskTracker,
    upstream: Arc<Upstream>,
    cache: Arc<Cache>,
    /// Somebody is finding out whether the cluster went back.
    is_doubted: AtomicBool,
    stop: CancellationToken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the hub decide, and hands out what it orders.
    fn act<T>(self: &Arc<Self>, decide: impl FnOnce(&mut Hub) -> T) -> T {
        let mut hub = self.lock();
        let outcome = decide(&mut hub);
        let orders = hub.take_orders();
        if orders.is_empty() {
            return outcome;
        }
        // Taken before the hub is let go: orders reach their lines in the order they were given.
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        drop(hub);
        for order in orders {
            self.hand_out(&mut lines, &order);
        }
        outcome
    }

    fn hand_out(self: &Arc<Self>, lines: &mut HashMap<Line, Arc<Inbox>>, order: &Order) {
        let (Order::Open(line, _) | Order::Close(line, _) | Order::Progress(line)) = order;
        if lines.get(line).is_some_and(|inbox| inbox.push(order.clone())) {
            return;
        }
        // Nothing is open on a line that has ended.
        let Order::Open(line, _) = order else { return };
        lines.retain(|_, inbox| Arc::strong_count(inbox) > 1);
        let inbox = Arc::new(Inbox::default());
        inbox.push(order.clone());
        lines.insert(line.clone(), Arc::clone(&inbox));
        let (stop, running) = (self.stop.clone(), line::run(Arc::clone(self), line.clone(), inbox));
        self.running.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = running => {}
            }
        });
    }
}

/// The stream of a client, ended when dropped.
struct Stream {
    shared: Arc<Shared>,
    key: Key,
    outbox: Arc<Outbox>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.act(|hub| hub.close(self.key));
    }
}

/// A client's request, ready to be carried out.
enum Step {
    Create(WatchCreateRequest, Present),
    Refuse(String),
    Cancel(i64),
    Progress,
    Nothing,
    /// The cluster could not be asked.
    Fail(Status),
}

impl Watches {
    /// Watches on the cluster behind `upstream`.
    pub(super) fn new(
        upstream: Arc<Upstream>,
        cache: Arc<Cache>,
        namespace: Namespace,
        stop: CancellationToken,
    ) -> Self {
        let shared = Shared {
            hub: Mutex::default(),
            lines: Mutex::default(),
            running: TaskTracker::new(),
            upstream,
            cache,
            is_doubted: AtomicBool::new(false),
            stop,
        };
        let shared = Arc::new(shared);
        let ending = Arc::clone(&shared);
        shared.running.spawn(async move {
            let mut eras = ending.upstream.identity().eras();
            loop {
                tokio::select! {
                    () = ending.stop.cancelled() => return ending.act(Hub::stop),
                    _ = eras.changed() => ending.act(Hub::start_over),
                }
            }
        });
        Self { shared, checks: Rounds::default(), namespace }
    }

    /// Serves the stream of one client.
    ///
    /// # Errors
    /// How it ended.
    pub(super) async fn serve(
        &self,
        client: &Client,
        mut inbound: Inbound,
        outbound: &mut Outbound,
    ) -> Result<(), Status> {
        let outbox = Arc::new(Outbox::default());
        let open = |hub: &mut Hub| hub.open(Arc::clone(&outbox), client.token.clone(), client.wants_leader);
        let key = self.shared.act(open)?;
        let stream = Stream { shared: Arc::clone(&self.shared), key, outbox };
        // Boxed, because the queue keeps room for one of them even while it is empty.
        let mut steps: FuturesOrdered<BoxFuture<'_, Step>> = FuturesOrdered::new();
        let mut asking = true;
        loop {
            tokio::select! {
                request = inbound.next(), if asking && steps.len() < STEPS_MAX => match request.map_err(gone)? {
                    Some(request) => steps.push_back(self.prepare(client, decode(request)?).boxed()),
                    // The client may stop asking and go on listening.
                    None => asking = false,
                },
                Some(step) = steps.next() => self.carry_out(&stream, step)?,
                taken = stream.outbox.take() => self.send(&stream, taken, outbound).await?,
                () = outbound.closed() => return Err(Rejection::WatchCanceled.into()),
            }
        }
    }

    async fn send(&self, stream: &Stream, taken: Taken, outbound: &mut Outbound) -> Result<(), Status> {
        let frames = match taken {
            Taken::Frames(frames) => frames,
            Taken::End(End::NoLeader) => return Err(Rejection::NoLeader.into()),
            Taken::End(End::Stopped) => return Err(Rejection::Stopped.into()),
            Taken::End(End::OtherCluster) => return Err(other_cluster()),
        };
        if self.namespace.is_empty() {
            outbound.send_frames(&frames).await.map_err(|_| Status::from(Rejection::WatchCanceled))?;
        } else {
            for frame in &frames {
                let mut response = frame.to_response();
                self.namespace.strip_watch(&mut response);
                let sent = outbound.send(response.encode_to_vec().into()).await;
                sent.map_err(|_| Status::from(Rejection::WatchCanceled))?;
            }
        }
        if stream.outbox.sent() {
            self.shared.act(|hub| hub.return_room(stream.key));
        }
        Ok(())
    }

    /// Asks the cluster what has to be known before a request can be carried out.
    async fn prepare(&self, client: &Client, request: WatchRequest) -> Step {
        let create = match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.namespace.prefix_watch(create),
            Some(RequestUnion::CancelRequest(cancel)) => return Step::Cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => return Step::Progress,
            None => return Step::Nothing,
        };
        if let Some(objection) = Hub::objection(&create) {
            return Step::Refuse(objection);
        }
        let token = client.token.clone();
        let check = Check { key: create.key.clone(), range_end: create.range_end.clone(), token };
        // Boxed, because all but one of those that ask together only wait.
        match self.checks.ask(check.clone(), || Box::pin(self.ask(check, &client.call))).await {
            Ok(present) => Step::Create(create, present),
            Err(status) if is_passing(&status) => Step::Fail(status),
            Err(status) => Step::Refuse(text_of(&status)),
        }
    }

    fn carry_out(&self, stream: &Stream, step: Step) -> Result<(), Status> {
        let key = stream.key;
        match step {
            // What was "now" in another cluster is no revision of this one.
            Step::Create(_, present) if present.era != self.shared.upstream.identity().era() => {
                return Err(other_cluster());
            }
            Step::Create(create, present) => self.shared.act(|hub| hub.create(key, &create, present.revision)),
            Step::Refuse(reason) => self.shared.act(|hub| hub.refuse(key, reason.into())),
            Step::Cancel(id) => self.shared.act(|hub| hub.cancel(key, id)),
            Step::Progress => self.shared.act(|hub| hub.progress(key)),
            Step::Nothing => {}
            Step::Fail(status) => return Err(status),
        }
        Ok(())
    }

    /// The revision of the store, if whoever asks may read these keys.
    async fn ask(&self, check: Check, call: &Outgoing) -> Result<Present, Status> {
        let key = if check.key.is_empty() { Bytes::from_static(b"\0") } else { check.key };
        let request = RangeRequest {
            key,
            range_end: check.range_end,
            limit: 1,
            serializable: true,
            count_only: true,
            ..RangeRequest::default()
        };
        let answer = self.shared.upstream.unary(&RANGE, call, request.encode_to_vec().into(), true).await?;
        let era = self.shared.upstream.identity().era();
        let answer: RangeResponse = decode(answer)?;
        Ok(Present { revision: answer.header.map_or(0, |header| header.revision), era })
    }
}

/// Whether the same request can succeed a moment later: then the stream ends, and the client tries again, as it does at a
/// member.
fn is_passing(status: &Status) -> bool {
    use crate::types::Code::{Canceled, DeadlineExceeded, Unavailable};
    matches!(status.code(), Unavailable | DeadlineExceeded | Canceled)
}

/// A client that goes away ends its stream in the watch service's own words.
fn gone(status: Status) -> Status {
    if status == Status::canceled() { Rejection::WatchCanceled.into() } else { status }
}
