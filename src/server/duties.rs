//! What a member does without being asked: publish itself, revoke expired leases, compact by itself, raise alarms.
//!
//! Each duty is one loop that ends when the member stops. Duties propose through [`Handle`] like any client, so nothing
//! here touches the replicated state directly.

use std::time::Duration;

use anyhow::Error;
use futures_util::{StreamExt as _, stream};
use tokio::{
    select,
    time::{Interval, MissedTickBehavior, interval, sleep},
};

use crate::{
    apply::Response,
    clock::Clock as _,
    lease::SCAN_INTERVAL_MS,
    membership::negotiate,
    metrics,
    pb::{
        etcdserverpb::{CompactionRequest, InternalRaftRequest},
        membershippb::{Attributes, ClusterMemberAttrSetRequest},
    },
    raft::Role,
    types::{LeaseId, Rejection, Term, Ticks},
};

use super::{Handle, ServerError, auto_compact::AutoCompactor, handle::LOOK_AGAIN, lease_office};

/// Revocations under way at a time (etcd's limit).
const REVOCATIONS_IN_FLIGHT_MAX: usize = 16;
/// Pause before an attempt that failed is made again.
const RETRY: Duration = Duration::from_millis(500);
/// How often callers that gave up are forgotten.
const SWEEP: Duration = Duration::from_secs(5);

/// Publishes name and client URLs of this member. Returns once the member is part of its cluster, the cluster has a
/// version, and a linearizable read has been answered: a learner then has everything that was there when it asked.
///
/// # Errors
/// Only when the member stops first.
pub async fn join(handle: &Handle) -> Result<(), ServerError> {
    until(handle, || handle.published().cluster.member(handle.member_id()).is_some()).await?;
    until_publishable(handle).await?;
    publish(handle).await?;
    tracing::info!(
        local_member_id = %handle.member_id(),
        cluster_id = %handle.cluster_id(),
        publish_timeout = ?handle.shared.tunables().request_timeout,
        "published local member to cluster through raft"
    );
    until(handle, || handle.published().cluster.version().is_some()).await?;
    until_done(handle, || handle.read_index()).await
}

async fn until_publishable(handle: &Handle) -> Result<(), ServerError> {
    let state = handle.published();
    if negotiate::can_publish(&state.cluster) {
        return Ok(());
    }
    let cluster_version = state.cluster.version().map(|version| version.to_string());
    tracing::warn!(
        cluster_version,
        "waiting: some members are older than etcd 3.5 and would not survive that this one is published; update them"
    );
    until(handle, || negotiate::can_publish(&handle.published().cluster)).await
}

/// Tried until it is applied, and once per start, as etcd does: whatever the log says of this member later, such as what
/// an earlier start of it has proposed, is not contradicted before the next start.
///
/// Nothing is proposed for a member that the log does not know yet: members of etcd would not survive it.
async fn publish(handle: &Handle) -> Result<(), ServerError> {
    let options = &handle.shared.options;
    let attributes = Attributes { name: options.name.clone(), client_urls: options.client_urls.clone() };
    let request = ClusterMemberAttrSetRequest { member_id: handle.member_id().0, member_attributes: Some(attributes) };
    let request = InternalRaftRequest { cluster_member_attr_set: Some(request), ..Default::default() };
    insist(handle, || request.clone()).await
}

/// Waits until `condition` holds, or the member stops.
async fn until(handle: &Handle, condition: impl Fn() -> bool) -> Result<(), ServerError> {
    while !condition() {
        select! {
            () = sleep(LOOK_AGAIN) => {}
            () = handle.stopped() => return Err(Rejection::Stopped.into()),
        }
    }
    Ok(())
}

async fn insist(handle: &Handle, request: impl Fn() -> InternalRaftRequest) -> Result<(), ServerError> {
    until_done(handle, || async { handle.propose(request()).await.map(|_: Response| ()) }).await
}

/// Tries until it works or the member stops; time-outs and changes of leader are what trying again is for.
async fn until_done<F: Future<Output = Result<(), ServerError>>>(
    handle: &Handle,
    attempt: impl Fn() -> F,
) -> Result<(), ServerError> {
    loop {
        let outcome = select! {
            outcome = attempt() => outcome,
            () = handle.stopped() => return Err(Rejection::Stopped.into()),
        };
        match outcome {
            Ok(()) => return Ok(()),
            Err(ServerError::Rejected(why)) => {
                tracing::warn!(%why, "waiting for the cluster: this member has no quorum yet, or its request timed out");
                sleep(RETRY).await;
            }
            Err(cause @ (ServerError::Storage(_) | ServerError::NoRoom(_))) => return Err(cause),
        }
    }
}

/// Waits until this member has what its cluster has, without a word: [`join`] tells of it. False if the member stops first.
pub(super) async fn until_current(handle: &Handle) -> bool {
    loop {
        let outcome = select! {
            outcome = handle.read_index() => outcome,
            () = handle.stopped() => return false,
        };
        if outcome.is_ok() {
            return true;
        }
        select! {
            () = sleep(RETRY) => {}
            () = handle.stopped() => return false,
        }
    }
}

/// Revokes leases that have run out, on the leader.
///
/// # Errors
/// Never; a revocation that fails is tried again by a later scan.
pub async fn expire_leases(handle: Handle) -> Result<(), Error> {
    let shared = &handle.shared;
    let mut scan = interval(Duration::from_millis(SCAN_INTERVAL_MS));
    scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        select! {
            _ = scan.tick() => {}
            () = handle.stopped() => return Ok(()),
        }
        if !handle.still_leads().await {
            continue;
        }
        let (term, now) = (shared.standing().term, shared.now());
        let expired = lease_office::revocations(&mut shared.lessor(), now);
        metrics::LEASE_EXPIRED.add(u64::try_from(expired.len()).unwrap_or(u64::MAX));
        revoke(&handle, expired, term).await;
        checkpoint(&handle, now, term).await;
    }
}

async fn revoke(handle: &Handle, expired: Vec<(LeaseId, InternalRaftRequest)>, term: Term) {
    let revocations = stream::iter(expired).map(|(lease, request)| async move {
        if let Err(why) = handle.propose_in_term(request, term).await {
            tracing::warn!(lease_id = %lease, %why, "failed to revoke lease");
        }
    });
    revocations.buffer_unordered(REVOCATIONS_IN_FLIGHT_MAX).collect::<()>().await;
}

async fn checkpoint(handle: &Handle, now: Ticks, term: Term) {
    let due = lease_office::checkpoint(&mut handle.shared.lessor(), now);
    let Some(checkpoint) = due else { return };
    if let Err(why) = handle.propose_in_term(checkpoint.request.clone(), term).await {
        tracing::warn!(%why, "failed to checkpoint leases");
        let why = if let ServerError::Rejected(why) = why { Some(why) } else { None };
        checkpoint.failed(why, &mut handle.shared.lessor(), now);
    }
}

/// Proposes compactions by age or number of revisions, on the leader.
///
/// # Errors
/// Never; a compaction that fails is made up for by the next.
pub async fn compact_by_itself(handle: Handle) -> Result<(), Error> {
    let shared = &handle.shared;
    let mut tuned = shared.tuned.subscribe();
    let mut policy = shared.tunables().auto_compaction;
    let mut compactor = policy.map(|policy| AutoCompactor::new(policy, shared.clock.monotonic()));
    loop {
        let patience = compactor.as_ref().map(|compactor| compactor.patience(shared.clock.monotonic()));
        select! {
            () = sleep_for(patience) => {}
            _ = tuned.changed() => {}
            () = handle.stopped() => return Ok(()),
        }
        let newest = shared.tunables().auto_compaction;
        if newest != policy {
            // What was seen under another policy says nothing of this one's times.
            policy = newest;
            compactor = policy.map(|policy| AutoCompactor::new(policy, shared.clock.monotonic()));
        }
        let Some(compactor) = &mut compactor else { continue };
        let target = compactor.tick(shared.clock.monotonic(), handle.published().view.revision());
        if let Some(revision) = target
            && shared.standing().role == Role::Leader
        {
            auto_compact(&handle, revision).await;
        }
    }
}

/// Without a time for ever.
pub(super) async fn sleep_for(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Something to do every so often, or never; how often may change.
#[derive(Debug, Default)]
pub(super) struct Every {
    period: Option<Duration>,
    due: Option<Interval>,
}

impl Every {
    /// Counts anew if the period is another one; false if it is not.
    pub(super) fn set(&mut self, period: Option<Duration>) -> bool {
        if period == self.period {
            return false;
        }
        self.period = period;
        self.due = period.map(|period| {
            let mut due = interval(period);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            due.reset();
            due
        });
        true
    }

    /// Waits until it is time. Nothing is lost when dropped.
    pub(super) async fn due(&mut self) {
        match &mut self.due {
            Some(due) => drop(due.tick().await),
            None => std::future::pending().await,
        }
    }
}

async fn auto_compact(handle: &Handle, revision: i64) {
    tracing::info!(revision, "starting auto compaction");
    match handle.compact(CompactionRequest { revision, physical: false }).await {
        Ok(_) => tracing::info!(revision, "completed auto compaction"),
        Err(ServerError::Rejected(Rejection::Compacted)) => {}
        Err(why) => tracing::warn!(revision, %why, "failed auto compaction"),
    }
}

/// Raises the alarm that apply asks for, and forgets callers that gave up.
///
/// # Errors
/// Never.
pub async fn keep_house(handle: Handle) -> Result<(), Error> {
    let mut sweep = interval(SWEEP);
    loop {
        select! {
            _ = sweep.tick() => handle.shared.waiters.sweep(),
            () = handle.shared.quota_exceeded.notified() => {
                if let Err(why) = handle.raise_no_space().await {
                    tracing::warn!(%why, "failed to raise the NOSPACE alarm");
                }
            }
            () = handle.stopped() => return Ok(()),
        }
    }
}
