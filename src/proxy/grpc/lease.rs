//! `etcdserverpb.Lease`: renewals of many clients on one stream to the cluster.
//!
//! Invariants: of one lease one renewal is under way at a time; a renewal that was answered a moment ago answers again, a
//! moment being so short that a client which renews three times in a TTL still has half of it left when it renews next.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Streaming;
use tonic_prost::ProstCodec;

use super::{
    identity::other_cluster,
    namespace::Namespace,
    rounds::Rounds,
    upstream::{Outgoing, Picked, Upstream, status_of},
};
use crate::{
    api::{
        decode,
        status::Status,
        wire::{Inbound, Outbound},
    },
    pb::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseTimeToLiveResponse},
    types::{Code, Rejection},
};

const KEEP_ALIVE: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
const REVOKE: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseRevoke");
const TIME_TO_LIVE: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseTimeToLive");
/// Renewals that wait for the stream; further clients wait with theirs.
const RENEWALS_QUEUED_MAX: usize = 1_024;
/// How long an answer counts, as a part of the TTL.
const FRESH_PARTS_OF_TTL: u32 = 6;
/// Answers remembered; beyond that, those that do not count any more are forgotten.
const ANSWERS_MAX: usize = 16_384;
/// Longest wait for a renewal; the client's lease is in danger by then, and it must hear that somebody does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a member may owe the answer to a renewal before the stream moves to another one. A client waits long enough for
/// two that are silent.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Pause before a broken stream is opened again.
const BACKOFF: Duration = Duration::from_millis(100);

/// The renewals of all clients.
#[derive(Debug)]
pub(super) struct Leases {
    upstream: Arc<Upstream>,
    namespace: Namespace,
    renewals: mpsc::Sender<Renewal>,
    rounds: Rounds<i64, Result<LeaseKeepAliveResponse, Status>>,
    answers: Mutex<HashMap<i64, Answer>>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Answer {
    response: LeaseKeepAliveResponse,
    fresh_until: Instant,
    /// Of the cluster that gave it.
    era: u64,
}

/// A lease, and who waits for it to be renewed.
type Renewal = (i64, oneshot::Sender<LeaseKeepAliveResponse>);

impl Leases {
    /// Starts what carries the renewals, until `stop` is cancelled.
    pub(super) fn start(
        upstream: Arc<Upstream>,
        namespace: Namespace,
        running: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (renewals, to_carry) = mpsc::channel(RENEWALS_QUEUED_MAX);
        let carrier = carry(Arc::clone(&upstream), to_carry);
        let stopped = stop.clone();
        running.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = carrier => {}
            }
        });
        Self { upstream, namespace, renewals, rounds: Rounds::default(), answers: Mutex::default(), stop }
    }

    /// Renews leases for one client, one answer per request, in order.
    ///
    /// # Errors
    /// How it ended.
    pub(super) async fn keep_alive(&self, mut inbound: Inbound, outbound: &mut Outbound) -> Result<(), Status> {
        loop {
            let request = tokio::select! {
                request = inbound.next() => request?,
                () = outbound.closed() => return Err(Status::canceled()),
                () = self.stop.cancelled() => return Err(Rejection::Stopped.into()),
            };
            let Some(request) = request else { return Ok(()) };
            let request: LeaseKeepAliveRequest = decode(request)?;
            let answer = tokio::select! {
                answer = self.renew(request.id) => answer?,
                () = outbound.closed() => return Err(Status::canceled()),
            };
            outbound.send(answer.encode_to_vec().into()).await?;
        }
    }

    /// Revokes a lease.
    ///
    /// # Errors
    /// What the cluster says.
    pub(super) async fn revoke(&self, call: &Outgoing, request: Bytes) -> Result<Bytes, Status> {
        let LeaseRevokeRequest { id } = decode(request.clone())?;
        let answer = self.upstream.unary(&REVOKE, call, request, true).await;
        self.lock().remove(&id);
        answer
    }

    /// How long a lease has to live, and on request the keys that the client may see.
    ///
    /// # Errors
    /// What the cluster says.
    pub(super) async fn time_to_live(&self, call: &Outgoing, request: Bytes) -> Result<Bytes, Status> {
        let answer = self.upstream.unary(&TIME_TO_LIVE, call, request, true).await?;
        if self.namespace.is_empty() {
            return Ok(answer);
        }
        let mut answer: LeaseTimeToLiveResponse = decode(answer)?;
        self.namespace.strip_lease(&mut answer);
        Ok(answer.encode_to_vec().into())
    }

    /// Renews a lease, or says what was said a moment ago.
    ///
    /// # Errors
    /// What the cluster says, or that it does not answer.
    pub(super) async fn renew(&self, lease: i64) -> Result<LeaseKeepAliveResponse, Status> {
        let (now, era) = (Instant::now(), self.upstream.identity().era());
        let counts = |answer: &&Answer| now < answer.fresh_until && answer.era == era;
        if let Some(answer) = self.lock().get(&lease).filter(counts) {
            return Ok(answer.response);
        }
        self.rounds.ask(lease, || Box::pin(self.renew_upstream(lease))).await
    }

    async fn renew_upstream(&self, lease: i64) -> Result<LeaseKeepAliveResponse, Status> {
        let (answered, answer) = oneshot::channel();
        let asked = Instant::now();
        let sent_and_answered = async {
            self.renewals.send((lease, answered)).await.map_err(|_| Status::from(Rejection::Stopped))?;
            answer.await.map_err(|_| Status::from(Rejection::Stopped))
        };
        let response = tokio::time::timeout(PATIENCE, sent_and_answered)
            .await
            .unwrap_or_else(|_| Err(Status::new(Code::Unavailable, "etcdserver: request timed out")))?;
        self.remember(lease, response, asked);
        Ok(response)
    }

    fn remember(&self, lease: i64, response: LeaseKeepAliveResponse, asked: Instant) {
        let mut answers = self.lock();
        let Some(ttl) = u64::try_from(response.ttl).ok().filter(|ttl| *ttl > 0).map(Duration::from_secs) else {
            answers.remove(&lease);
            return;
        };
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, answer| answer.fresh_until > asked);
        }
        if answers.len() < ANSWERS_MAX {
            let (fresh_until, era) = (asked + ttl / FRESH_PARTS_OF_TTL, self.upstream.identity().era());
            answers.insert(lease, Answer { response, fresh_until, era });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries renewals over one stream, opened when there is one to carry, and again after a loss: a renewal that was not
/// answered is sent once more, which harms nobody.
async fn carry(upstream: Arc<Upstream>, mut renewals: mpsc::Receiver<Renewal>) {
    let mut waiting: HashMap<i64, oneshot::Sender<LeaseKeepAliveResponse>> = HashMap::new();
    loop {
        waiting.retain(|_, waits| !waits.is_closed());
        if waiting.is_empty() {
            let Some((lease, waits)) = renewals.recv().await else { return };
            waiting.insert(lease, waits);
        }
        match carry_on_one(&upstream, &mut renewals, &mut waiting).await {
            Ok(()) => return,
            Err(status) => {
                tracing::debug!(code = ?status.code(), message = status.message(), "the stream of lease renewals broke");
                sleep(BACKOFF).await;
            }
        }
    }
}

async fn carry_on_one(
    upstream: &Upstream,
    renewals: &mut mpsc::Receiver<Renewal>,
    waiting: &mut HashMap<i64, oneshot::Sender<LeaseKeepAliveResponse>>,
) -> Result<(), Status> {
    let mut eras = upstream.identity().eras();
    let (mut answers, member, sender) = open(upstream, waiting.keys().copied()).await?;
    let mut heard = Instant::now();
    loop {
        // The room comes first, so that no renewal is taken that cannot be sent.
        let next = async {
            let permit = sender.reserve().await.map_err(|_| broken())?;
            Ok::<_, Status>(renewals.recv().await.map(|renewal| (permit, renewal)))
        };
        let owes = !waiting.is_empty();
        tokio::select! {
            answer = answers.message() => {
                let answer = answer.map_err(|status| status_of(&status))?.ok_or_else(broken)?;
                heard = Instant::now();
                if let Some(header) = &answer.header {
                    upstream.identity().see(header);
                }
                if let Some(waits) = waiting.remove(&answer.id) {
                    // Whoever waited may have given up.
                    waits.send(answer).unwrap_or_default();
                }
            }
            next = next => {
                let Some((permit, (id, waits))) = next? else { return Ok(()) };
                if !owes {
                    heard = Instant::now();
                }
                waiting.insert(id, waits);
                permit.send(LeaseKeepAliveRequest { id });
            }
            () = sleep_until(heard + SILENCE_MAX), if owes => {
                upstream.give_up(&member, SILENCE_MAX);
                return Err(silent());
            }
            _ = eras.changed() => return Err(other_cluster()),
        }
    }
}

/// A stream to a member, the one that answered, and the way to ask it more.
type Opened = (Streaming<LeaseKeepAliveResponse>, Picked, mpsc::Sender<LeaseKeepAliveRequest>);

/// Opens a stream with what waits to be renewed.
async fn open(upstream: &Upstream, leases: impl Iterator<Item = i64>) -> Result<Opened, Status> {
    let first: Vec<LeaseKeepAliveRequest> = leases.map(|id| LeaseKeepAliveRequest { id }).collect();
    let mut sender = None;
    let call = Outgoing::with_leader(None);
    let codec = ProstCodec::<LeaseKeepAliveRequest, LeaseKeepAliveResponse>::default;
    let requests = || {
        let (requests, receiver) = mpsc::channel(RENEWALS_QUEUED_MAX);
        sender = Some(requests);
        tokio_stream::iter(first.clone()).chain(ReceiverStream::new(receiver))
    };
    let (answers, member) = upstream.open_within(&KEEP_ALIVE, &call, codec, requests, SILENCE_MAX).await?;
    Ok((answers, member, sender.ok_or_else(broken)?))
}

fn broken() -> Status {
    Status::new(Code::Unavailable, "the member ended the stream")
}

fn silent() -> Status {
    Status::new(Code::Unavailable, "the member does not answer")
}
