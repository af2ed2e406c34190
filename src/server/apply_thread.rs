//! The replicated state at its desk, and the thread that owns it. It applies what is committed, publishes the result, answers those who
//! wait, and removes compacted history between groups of entries.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    apply::{Applied, Applier, ApplyError, CompactionProgress, Effect},
    clock::Clock as _,
    lease::Lessor,
    metrics,
    mvcc::Changes,
    pb::raftpb::{ConfChange, ConfChangeType, Entry},
    raft::{Change, Input},
    storage::{Engine as _, FjallEngine},
    types::{LogIndex, MemberId},
};

use super::{
    ServerFailure,
    desk::Work,
    inbox::{Refused, Taken},
    keeper::Keeper,
    lease_office, lessor_options, op_counts,
    raft_thread::RaftOrder,
    shared::{Place, Shared, Thread},
    snapshots::Staged,
    watch_thread::WatchOrder,
};

/// Entries applied in one batch of the engine: enough to share its cost, few enough that the first caller of a burst
/// does not wait for the last.
const ENTRIES_PER_GROUP_MAX: usize = 512;
/// Bytes of entries in one batch of the engine.
const BYTES_PER_GROUP_MAX: usize = 8 << 20;

/// Changes that may wait for the hub while nobody watches.
const UNTOLD_MAX: usize = 16;

/// What others want of the apply thread.
#[derive(Debug)]
pub(super) enum ApplyOrder {
    /// Committed entries, in order.
    Entries(Vec<Entry>),
    /// A received snapshot, durable and live on the disk: go on from there.
    Install(Box<Staged>),
}

/// Runs until the desk is closed and empty, or applying fails: from then on this member would diverge. Compacted history
/// is removed by this thread alone: passers-by, who apply what they have brought about, have no time for it.
pub(super) fn run(shared: &Shared) {
    let mut compaction_due = Some(Duration::ZERO);
    loop {
        let patience = compaction_due.map(|due| due.saturating_sub(shared.clock.monotonic()));
        if shared.apply.wait(patience) == Taken::Closed {
            break;
        }
        let busy = shared.pulse(Thread::Apply);
        let next = shared
            .apply
            .work(|work, outcome| outcome.and_then(|()| work.compact_if_due()).map(|()| work.compaction_due));
        drop(busy);
        match next {
            Some(Ok(due)) => compaction_due = due,
            Some(Err(failure)) => {
                shared.fail(failure);
                break;
            }
            None => break,
        }
    }
    shared.apply.give_up();
}

/// The replicated state and what happens to it.
pub(super) struct ApplyWork {
    applier: Applier<FjallEngine>,
    keeper: Keeper,
    shared: Arc<Shared>,
    /// When the next step of removing compacted history may run; `None` while there is nothing to remove. A start
    /// resumes what an earlier one left.
    compaction_due: Option<Duration>,
    /// When the compaction at work was accepted, or resumed.
    compaction_begun: Duration,
    /// Changes that the hub's thread was not woken for.
    untold: usize,
    /// The end of the log at the start. Tokens that entries up to there assign went with the process before, or may have
    /// ended long ago.
    before: LogIndex,
    failed: bool,
}

impl Work for ApplyWork {
    type Order = ApplyOrder;
    type Outcome = Result<(), ServerFailure>;

    fn work(&mut self, orders: &mut Vec<ApplyOrder>) -> Self::Outcome {
        // Nothing may be applied on top of half an entry.
        if self.failed {
            orders.clear();
            return Ok(());
        }
        let outcome = self.carry_out(orders);
        if outcome.is_err() {
            (self.failed, self.compaction_due) = (true, None);
        }
        outcome
    }
}

impl ApplyWork {
    /// `before` is the end of the log that was there already.
    pub(super) fn new(applier: Applier<FjallEngine>, keeper: Keeper, shared: Arc<Shared>, before: LogIndex) -> Self {
        let compaction_begun = shared.clock.monotonic();
        let compaction_due = Some(Duration::ZERO);
        Self { applier, keeper, shared, compaction_due, compaction_begun, untold: 0, before, failed: false }
    }

    fn carry_out(&mut self, orders: &mut Vec<ApplyOrder>) -> Result<(), ServerFailure> {
        let mut entries = Vec::new();
        for order in orders.drain(..) {
            match order {
                ApplyOrder::Entries(more) if entries.is_empty() => entries = more,
                ApplyOrder::Entries(more) => entries.extend(more),
                ApplyOrder::Install(staged) => {
                    self.apply_all(&mem::take(&mut entries))?;
                    self.install(*staged);
                }
            }
        }
        self.apply_all(&entries)
    }

    /// Goes on with the state of a received snapshot. The order of the steps is that of [`Self::apply_group`].
    fn install(&mut self, staged: Staged) {
        let Staged { generation, engine, applier, leases, .. } = staged;
        // 1. The rows are durable already. Whoever reads the old ones may finish.
        let old = mem::replace(&mut self.applier, applier);
        self.shared.disk_bytes.store(engine.disk_bytes(), Ordering::Relaxed);
        let replaced = self.shared.replace_engine(Place { engine, generation: Some(generation) });
        // 2. Lease countdowns are a leader's, and a leader is sent no snapshots. What was passed over may have changed the
        //    password of any user, so all of them log in again.
        *self.shared.lessor() = Lessor::new(lessor_options(&self.shared.options), leases);
        self.shared.tokens().forget_all();
        // 3. Watchers go on through the past of the new state, or are told that it is compacted.
        let state = self.applier.published();
        let (index, revision, compacted) = (state.applied, state.view.revision(), state.view.compact_revision());
        self.order_watch(WatchOrder::Skipped(revision, compacted));
        self.take_cluster_version(false);
        self.shared.digests.begin(state.applied, state.digest);
        self.shared.hashes.forget();
        // 4. Readers see it, and the transport whom it may speak with.
        self.shared.publish(state);
        self.shared.update_peers();
        self.shared.v2.installed();
        // 5. Raft hears it. What the snapshot began to remove goes on being removed.
        self.shared.order_raft_quietly(RaftOrder::Input(Box::new(Input::Applied(index))));
        self.keeper.installed();
        self.compaction_begun = self.shared.clock.monotonic();
        self.compaction_due = Some(self.compaction_begun);
        self.shared.apply.nudge();
        // 6. The old state goes once nobody reads it.
        drop(old);
        if let Some(generation) = &replaced.generation {
            self.shared.snapshots.retire(generation.clone(), replaced.engine.clone());
        }
        metrics::SNAPSHOT_APPLY_IN_PROGRESS.set(0);
        tracing::info!(%index, revision, "the state is that of a received snapshot");
    }

    fn apply_all(&mut self, entries: &[Entry]) -> Result<(), ServerFailure> {
        let mut rest = entries;
        while !rest.is_empty() {
            let (group, later) = rest.split_at(group_length(rest));
            self.apply_group(group)?;
            rest = later;
        }
        Ok(())
    }

    /// The order of the steps is what clients rely on.
    fn apply_group(&mut self, group: &[Entry]) -> Result<(), ServerFailure> {
        let started = self.shared.clock.monotonic();
        // 1. Rows, applied index included, in one atomic batch.
        self.applier.observe_disk(self.shared.disk_bytes.load(Ordering::Relaxed));
        let tunables = self.shared.tunables();
        self.applier.tune(tunables.quota_bytes, tunables.lease_ttl_min());
        let mut applied = self.applier.apply(group).map_err(|cause| self.stopped_by(cause))?;
        // 2. Raft and lease countdowns learn what the entries mean before anybody can act on the answers.
        for entry in &applied {
            self.take_effects(entry);
            op_counts::count(entry);
        }
        // 3. The watch hub has the events before any reader can see the revision, so that no created watcher misses one.
        //    It tells nobody of them before step 4.
        let changes: Vec<Arc<Changes>> = applied.iter_mut().filter_map(|entry| entry.changes.take()).collect();
        let state = self.applier.published();
        let last = state.applied;
        let compacted = applied.iter().flat_map(|entry| &entry.effects).any(is_compaction);
        if !changes.is_empty() || compacted {
            self.tell_watchers(changes, state.view.compact_revision());
        }
        self.shared.digests.note(&applied);
        if compacted {
            self.shared.want_hashes(&self.shared.published(), &state, &applied);
        }
        // 4. Readers see the state, and the transport whom it may speak with: it answers by what is published.
        self.shared.publish(state);
        if applied.iter().flat_map(|entry| &entry.effects).any(|effect| *effect == Effect::MembersChanged) {
            self.shared.update_peers();
        }
        self.shared.v2.applied(&applied);
        // 5. Writers hear their answers.
        let runs = op_counts::runs(&applied);
        self.answer(applied);
        self.shared.order_raft_quietly(RaftOrder::Input(Box::new(Input::Applied(last))));
        self.keeper.applied(group.len(), group.iter().map(|entry| entry.data.len()).sum());
        let took = self.shared.clock.monotonic().saturating_sub(started);
        op_counts::observe(&runs, took);
        self.warn_if_slow(took, group.len());
        Ok(())
    }

    /// An accepted compaction concerns watchers too: those whose past it takes are cancelled.
    /// While nobody watches, single changes wait for a few others: to wake the hub's thread costs more than they do.
    fn tell_watchers(&mut self, changes: Vec<Arc<Changes>>, compact_revision: i64) {
        let few = changes.len() <= 1;
        let order = WatchOrder::Changes(changes, compact_revision);
        if !few || self.untold >= UNTOLD_MAX || self.shared.is_watched() {
            self.untold = 0;
            return self.order_watch(order);
        }
        self.untold += 1;
        self.check_told(&self.shared.watch.push_quietly(order));
        // Who has begun to watch meanwhile may have found the queue empty.
        if self.shared.is_watched() {
            self.shared.watch.wake_for_items();
        }
    }

    fn order_watch(&self, order: WatchOrder) {
        self.check_told(&self.shared.watch.push(order));
    }

    fn check_told(&self, told: &Result<(), Refused<WatchOrder>>) {
        if told.is_err() && !self.shared.is_stopping() {
            self.shared.fail(ServerFailure::Overrun { thread: "watch" });
        }
    }

    fn take_effects(&mut self, entry: &Applied) {
        if lease_office::concerns(entry) {
            let extend_ms = u64::try_from(self.shared.tunables().election.as_millis()).unwrap_or(u64::MAX);
            let mut lessor = self.shared.lessor();
            // Under the lock that who is deposed takes after it: countdowns never begin behind their end.
            let standing = self.shared.standing();
            lease_office::note(&mut lessor, entry, standing, self.shared.now(), extend_ms);
        }
        for effect in &entry.effects {
            self.take_effect(entry.index, effect);
        }
    }

    fn take_effect(&mut self, index: LogIndex, effect: &Effect) {
        match effect {
            Effect::LeaseGranted { ttl, .. } => {
                metrics::LEASE_GRANTED.inc();
                metrics::LEASE_TTL.observe(Duration::from_secs(ttl.unsigned_abs()));
            }
            Effect::LeaseRevoked(_) => metrics::LEASE_REVOKED.inc(),
            Effect::ConfChange(change) => {
                let change = change.as_ref().map_or(Change::None, raft_change);
                self.shared.order_raft(RaftOrder::Input(Box::new(Input::ApplyConfChange { index, change })));
            }
            Effect::RemovedSelf(_) => self.shared.removed.notify_one(),
            Effect::CompactionRequested { revision } => {
                tracing::info!(compact_revision = revision, "scheduled compaction");
                let now = self.shared.clock.monotonic();
                if self.compaction_due.replace(now).is_none() {
                    self.compaction_begun = now;
                    self.shared.apply.nudge();
                }
            }
            Effect::TokenAssigned { .. } if index <= self.before => {}
            Effect::TokenAssigned { user, token } => {
                self.shared.tokens().assign(user, token.clone(), self.shared.now());
            }
            Effect::UserForgotten(user) => self.shared.tokens().forget_user(user),
            Effect::TokensForgotten => self.shared.tokens().forget_all(),
            Effect::QuotaExceeded => self.shared.quota_exceeded.notify_one(),
            Effect::ClusterVersionChanged { lowered } => self.take_cluster_version(*lowered),
            Effect::LeaseCheckpointed { .. }
            | Effect::MembersChanged
            | Effect::DowngradeChanged
            | Effect::AlarmsChanged => {}
        }
    }

    /// Called before the state that has the version is published. A lower version asks for a snapshot, so that an older
    /// member finds none of the entries it does not know.
    fn take_cluster_version(&mut self, lowered: bool) {
        let Some(to) = self.applier.published().cluster.version() else { return };
        match self.shared.published().cluster.version() {
            None => tracing::info!(cluster_version = %to, "set initial cluster version"),
            Some(from) if from == to => return,
            Some(from) => {
                metrics::CLUSTER_VERSION.with([&format!("{}.{}", from.major, from.minor)]).set(0);
                tracing::info!(%from, %to, "updated cluster version");
            }
        }
        tracing::info!(cluster_version = %to, "enabled capabilities for version");
        metrics::CLUSTER_VERSION.with([&format!("{}.{}", to.major, to.minor)]).set(1);
        if lowered {
            self.keeper.mark();
        }
    }

    fn answer(&self, applied: Vec<Applied>) {
        for entry in applied {
            if let Some(request) = entry.request {
                self.shared.waiters.answer(request, || entry.outcome);
            }
        }
    }

    fn compact_if_due(&mut self) -> Result<(), ServerFailure> {
        let now = self.shared.clock.monotonic();
        if self.compaction_due.is_none_or(|due| due > now) {
            return Ok(());
        }
        let rows = self.shared.tunables().compaction_batch_max;
        let progress = self.applier.compact_some(rows).map_err(|cause| self.stopped_by(cause))?;
        metrics::COMPACTION_PAUSE.observe(self.shared.clock.monotonic().saturating_sub(now));
        match progress {
            CompactionProgress::Working => self.compaction_due = Some(now + self.shared.tunables().compaction_pause),
            progress @ (CompactionProgress::Idle | CompactionProgress::Finished(_)) => self.end_compaction(progress),
        }
        Ok(())
    }

    fn end_compaction(&mut self, progress: CompactionProgress) {
        self.compaction_due = None;
        if let CompactionProgress::Finished(revision) = progress {
            tracing::info!(compact_revision = revision, "finished scheduled compaction");
            metrics::COMPACTION_TOTAL.observe(self.shared.clock.monotonic().saturating_sub(self.compaction_begun));
            metrics::COMPACTION_LAST.set_count(self.shared.clock.wall().as_secs());
        }
        // The removed rows are gone for readers of the new state only.
        self.shared.publish(self.applier.published());
        self.shared.compacted.send_replace(self.applier.published().view.compact_revision());
    }

    fn stopped_by(&self, cause: ApplyError) -> ServerFailure {
        match cause {
            // The disk has nothing to do with it.
            ApplyError::Entry { .. } | ApplyError::VersionTooOld { .. } => ServerFailure::Unservable(cause),
            cause => ServerFailure::Apply { path: self.applier.engine().path().to_owned(), cause },
        }
    }

    fn warn_if_slow(&self, took: Duration, entries: usize) {
        metrics::BACKEND_COMMIT.observe(took);
        let expected = self.shared.tunables().warn_apply;
        if took > expected {
            metrics::SLOW_APPLY.inc();
            tracing::warn!(took = ?took, expected_duration = ?expected, entries, "apply request took too long");
        }
    }
}

/// How many of the first entries make one batch: at least one.
fn group_length(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += entry.data.len();
        bytes <= BYTES_PER_GROUP_MAX
    };
    entries.iter().take(ENTRIES_PER_GROUP_MAX).take_while(fits).count().max(1)
}

/// What raft is told about a configuration change that took effect.
pub fn raft_change(change: &ConfChange) -> Change {
    let member = MemberId(change.node_id);
    match change.r#type() {
        ConfChangeType::ConfChangeAddNode => Change::AddVoter(member),
        ConfChangeType::ConfChangeAddLearnerNode => Change::AddLearner(member),
        ConfChangeType::ConfChangeRemoveNode => Change::Remove(member),
        ConfChangeType::ConfChangeUpdateNode => Change::None,
    }
}

fn is_compaction(effect: &Effect) -> bool {
    matches!(effect, Effect::CompactionRequested { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_is_bounded_in_entries_and_bytes_and_never_empty() {
        let entry = |bytes: usize| Entry { data: vec![0; bytes].into(), ..Entry::default() };
        assert_eq!(group_length(&[entry(BYTES_PER_GROUP_MAX + 1), entry(1)]), 1);
        assert_eq!(group_length(&[entry(BYTES_PER_GROUP_MAX), entry(1)]), 1);
        assert_eq!(group_length(&vec![entry(1); ENTRIES_PER_GROUP_MAX + 5]), ENTRIES_PER_GROUP_MAX);
    }
}
