//! The countdowns, kept by the leader alone.

use std::collections::{BTreeSet, HashMap};

use thiserror::Error;

use super::LeaseRow;
use crate::types::{LeaseId, Rejection, Ticks};

/// How often the leader looks for expired leases, in milliseconds.
pub const SCAN_INTERVAL_MS: u64 = 500;
/// Most leases one scan reports: 1 000 revocations a second.
pub const EXPIRED_PER_SCAN_MAX: usize = 500;
/// From this number of leases on, a new leader spreads their expiries.
pub const SPREAD_FROM_LEASES: usize = 1_000;
/// Most leases that expire within one second after a spread; below the rate of revocations, so that leases which
/// pile up do not take all of it.
pub const EXPIRIES_PER_SECOND_MAX: usize = 750;
/// How often a long lease is checkpointed unless configured otherwise, in milliseconds.
pub const CHECKPOINT_INTERVAL_MS: u64 = 300_000;
/// Most checkpoints in one entry of the log.
pub const CHECKPOINTS_MAX: usize = 1_000;

/// What a [`Lessor`] needs to know beforehand.
#[derive(Clone, Copy, Debug)]
pub struct LessorOptions {
    /// When an expired lease that was reported but not revoked is reported again, in milliseconds: the request timeout.
    pub retry_ms: u64,
    /// How often the remaining time of long leases is recorded, in milliseconds; `None` switches checkpoints off.
    pub checkpoint_ms: Option<u64>,
}

/// All leases of the cluster, and on the leader their countdowns.
#[derive(Debug)]
pub struct Lessor {
    options: LessorOptions,
    leases: HashMap<LeaseId, Lease>,
    /// Present while this member leads.
    primary: Option<Primary>,
}

/// A renewed lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The full time to live, in seconds.
    pub ttl: i64,
    /// The lease was checkpointed: propose a checkpoint of zero, so that a later leader gives it its full time.
    pub clear_checkpoint: bool,
}

/// Why a lease was not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RenewError {
    /// This member keeps no countdowns: ask the leader.
    #[error("not a primary lessor")]
    NotPrimary,
    /// No such lease; the client hears TTL 0.
    #[error(transparent)]
    Unknown(#[from] Rejection),
    /// Expired, but the revocation is not applied yet: answer TTL 0 once it is, or ask the new leader if this member
    /// stops leading before that.
    #[error("the lease has expired and is about to be revoked")]
    Expired,
    /// Its remaining time is on its way through the log and would follow the renewal: try again once it is applied.
    #[error("the remaining time of the lease is being recorded")]
    Recording,
}

/// How long a lease still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Whole seconds left, rounded towards zero: negative once it is overdue by a second. `None` on a member that
    /// does not lead.
    pub seconds: Option<i64>,
    /// The granted time to live in seconds.
    pub granted: i64,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: i64,
    /// Seconds, from the last checkpoint; zero means the full time.
    remaining: i64,
    /// When it expires. Meaningless while this member does not lead.
    expiry: Ticks,
    /// Its place in the queue: the expiry, or later after it was reported.
    due: Ticks,
    /// Its place among the checkpoints to come.
    checkpoint: Option<Ticks>,
    /// A checkpoint is on its way through the log. Whoever renewed now would be cut short by it after a change of leader.
    recording: bool,
}

#[derive(Debug, Default)]
struct Primary {
    expiries: BTreeSet<(Ticks, LeaseId)>,
    checkpoints: BTreeSet<(Ticks, LeaseId)>,
}

impl Lessor {
    /// A lessor that knows the stored leases and does not lead.
    pub fn new(options: LessorOptions, stored: impl IntoIterator<Item = LeaseRow>) -> Self {
        let leases = stored.into_iter().map(|LeaseRow { id, ttl, remaining }| (id, Lease::new(ttl, remaining)));
        Self { options, leases: leases.collect(), primary: None }
    }

    /// This member leads and has applied an entry of its term: every lease begins again with its full or checkpointed
    /// time plus `extend_ms` (the election timeout). From [`SPREAD_FROM_LEASES`] leases on, at most
    /// [`EXPIRIES_PER_SECOND_MAX`] of them expire within any second.
    ///
    /// Nothing happens if this member keeps countdowns already: a later entry without content, which stands where a
    /// change of configuration was refused, must not let leases be renewed whose revocation is on its way.
    pub fn promote(&mut self, now: Ticks, extend_ms: u64) {
        if self.is_primary() {
            return;
        }
        self.primary = Some(Primary::default());
        self.leases.values_mut().for_each(|lease| lease.recording = false);
        let mut order: Vec<(Ticks, LeaseId)> =
            self.leases.iter().map(|(id, lease)| (lease.full_expiry(now, extend_ms), *id)).collect();
        order.sort_unstable();
        if order.len() >= SPREAD_FROM_LEASES {
            spread(&mut order);
        }
        for (expiry, id) in order {
            self.start(id, expiry);
            self.schedule_checkpoint(id, now);
        }
    }

    /// This member no longer leads: countdowns stop.
    pub fn demote(&mut self) {
        self.primary = None;
    }

    /// Whether this member keeps countdowns.
    pub fn is_primary(&self) -> bool {
        self.primary.is_some()
    }

    /// A grant was applied.
    pub fn granted(&mut self, id: LeaseId, ttl: i64, now: Ticks) {
        let lease = Lease::new(ttl, 0);
        let expiry = lease.full_expiry(now, 0);
        self.forget(id);
        self.leases.insert(id, lease);
        self.start(id, expiry);
        self.schedule_checkpoint(id, now);
    }

    /// A revocation was applied.
    pub fn revoked(&mut self, id: LeaseId) {
        self.forget(id);
    }

    /// A checkpoint was applied: a later leader starts from `remaining` seconds (zero: from the full time).
    pub fn checkpointed(&mut self, id: LeaseId, remaining: i64, now: Ticks) {
        if let Some(lease) = self.leases.get_mut(&id) {
            (lease.remaining, lease.recording) = (remaining, false);
            self.schedule_checkpoint(id, now);
        }
    }

    /// Restarts the countdown of `id` with its full time.
    ///
    /// # Errors
    /// [`RenewError`]; an expired lease is not renewed even if its revocation is still on its way.
    pub fn renew(&mut self, id: LeaseId, now: Ticks) -> Result<Renewed, RenewError> {
        if !self.is_primary() {
            return Err(RenewError::NotPrimary);
        }
        let lease = self.leases.get_mut(&id).ok_or(RenewError::Unknown(Rejection::LeaseNotFound))?;
        if lease.expiry <= now {
            return Err(RenewError::Expired);
        }
        if lease.recording {
            return Err(RenewError::Recording);
        }
        let clear_checkpoint = self.options.checkpoint_ms.is_some() && lease.remaining > 0;
        let ttl = lease.ttl;
        let expiry = Ticks(now.0.saturating_add(Lease::milliseconds(ttl)));
        self.start(id, expiry);
        Ok(Renewed { ttl, clear_checkpoint })
    }

    /// The leases to revoke now, at most [`EXPIRED_PER_SCAN_MAX`], the longest overdue first. Each is reported again
    /// after the retry interval if it is not revoked by then. Call every [`SCAN_INTERVAL_MS`].
    pub fn expired(&mut self, now: Ticks) -> Vec<LeaseId> {
        let retry = Ticks(now.0.saturating_add(self.options.retry_ms.max(1)));
        let Some(primary) = self.primary.as_mut() else { return Vec::new() };
        let ids: Vec<LeaseId> = due(&primary.expiries, now, EXPIRED_PER_SCAN_MAX);
        for id in &ids {
            if let Some(lease) = self.leases.get_mut(id) {
                primary.expiries.remove(&(lease.due, *id));
                lease.due = retry;
                primary.expiries.insert((retry, *id));
            }
        }
        ids
    }

    /// The remaining times to record now, in seconds rounded up, at most `max` of them. Until each is applied
    /// ([`Lessor::checkpointed`]) or given up ([`Lessor::not_checkpointed`]) its lease is not renewed.
    pub fn due_checkpoints(&mut self, now: Ticks, max: usize) -> Vec<(LeaseId, i64)> {
        let Some(primary) = self.primary.as_mut() else { return Vec::new() };
        let ids = due(&primary.checkpoints, now, max);
        let mut records = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(lease) = self.leases.get_mut(&id) else { continue };
            if let Some(place) = lease.checkpoint.take() {
                primary.checkpoints.remove(&(place, id));
            }
            let record = lease.checkpoint_seconds(now);
            lease.recording |= record.is_some();
            records.extend(record.map(|remaining| (id, remaining)));
        }
        records
    }

    /// Checkpoints of these leases will never be applied.
    pub fn not_checkpointed(&mut self, ids: impl IntoIterator<Item = LeaseId>, now: Ticks) {
        for id in ids {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.recording = false;
                self.schedule_checkpoint(id, now);
            }
        }
    }

    /// How long `id` still lives; `None` if there is no such lease.
    pub fn remaining(&self, id: LeaseId, now: Ticks) -> Option<Remaining> {
        let lease = self.leases.get(&id)?;
        let seconds = self.is_primary().then(|| signed_ms(lease.expiry, now) / 1000);
        Some(Remaining { seconds, granted: lease.ttl })
    }

    /// Whether the lease is known here.
    pub fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// All leases: on the leader the next to expire first, elsewhere by identifier.
    pub fn leases(&self) -> Vec<LeaseId> {
        let expiry = |lease: &Lease| if self.is_primary() { lease.expiry } else { Ticks(0) };
        let mut order: Vec<_> = self.leases.iter().map(|(id, lease)| (expiry(lease), *id)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, id)| id).collect()
    }

    /// Number of leases.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there is no lease at all.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Begins or moves a countdown, if this member leads.
    fn start(&mut self, id: LeaseId, expiry: Ticks) {
        let (Some(primary), Some(lease)) = (self.primary.as_mut(), self.leases.get_mut(&id)) else { return };
        primary.expiries.remove(&(lease.due, id));
        primary.expiries.insert((expiry, id));
        (lease.expiry, lease.due) = (expiry, expiry);
    }

    /// Plans the next checkpoint of a lease that outlives the interval.
    fn schedule_checkpoint(&mut self, id: LeaseId, now: Ticks) {
        let (Some(primary), Some(interval)) = (self.primary.as_mut(), self.options.checkpoint_ms) else { return };
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if let Some(place) = lease.checkpoint.take() {
            primary.checkpoints.remove(&(place, id));
        }
        if lease.full_seconds() > interval / 1000 {
            let place = Ticks(now.0.saturating_add(interval));
            lease.checkpoint = Some(place);
            primary.checkpoints.insert((place, id));
        }
    }

    fn forget(&mut self, id: LeaseId) {
        let (Some(lease), primary) = (self.leases.remove(&id), self.primary.as_mut()) else { return };
        if let Some(primary) = primary {
            primary.expiries.remove(&(lease.due, id));
            lease.checkpoint.map(|place| primary.checkpoints.remove(&(place, id)));
        }
    }
}

impl Lease {
    fn new(ttl: i64, remaining: i64) -> Self {
        Self { ttl, remaining, expiry: Ticks(0), due: Ticks(0), checkpoint: None, recording: false }
    }

    /// Seconds a fresh countdown has.
    fn full_seconds(&self) -> u64 {
        let seconds = if self.remaining > 0 { self.remaining } else { self.ttl };
        u64::try_from(seconds).unwrap_or(0)
    }

    fn milliseconds(seconds: i64) -> u64 {
        u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
    }

    fn full_expiry(&self, now: Ticks, extend_ms: u64) -> Ticks {
        let countdown = self.full_seconds().saturating_mul(1000);
        Ticks(now.0.saturating_add(countdown).saturating_add(extend_ms))
    }

    /// What to record; nothing for an expired lease or one that has not lost a second yet.
    fn checkpoint_seconds(&self, now: Ticks) -> Option<i64> {
        let left = self.expiry.0.checked_sub(now.0).filter(|ms| *ms > 0)?;
        let seconds = i64::try_from(left.div_ceil(1000)).unwrap_or(i64::MAX);
        (seconds < self.ttl).then_some(seconds)
    }
}

/// The first `max` members of `queue` that are due.
fn due(queue: &BTreeSet<(Ticks, LeaseId)>, now: Ticks, max: usize) -> Vec<LeaseId> {
    queue.iter().take_while(|(due, _)| *due <= now).take(max).map(|(_, id)| *id).collect()
}

/// Delays sorted expiries, never advancing one, until any two that are [`EXPIRIES_PER_SECOND_MAX`] places apart are at
/// least a second apart.
fn spread(order: &mut [(Ticks, LeaseId)]) {
    let mut placed: Vec<Ticks> = Vec::with_capacity(order.len());
    for (place, (expiry, _)) in order.iter_mut().enumerate() {
        let earlier = place.checked_sub(EXPIRIES_PER_SECOND_MAX).and_then(|place| placed.get(place));
        let earliest = earlier.map_or(Ticks(0), |ticks| Ticks(ticks.0.saturating_add(1000)));
        *expiry = (*expiry).max(earliest);
        placed.push(*expiry);
    }
}

fn signed_ms(later: Ticks, earlier: Ticks) -> i64 {
    i64::try_from(i128::from(later.0) - i128::from(earlier.0)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: LessorOptions = LessorOptions { retry_ms: 7_000, checkpoint_ms: None };
    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(-5);

    fn leading(leases: &[(LeaseId, i64)]) -> Lessor {
        leading_with(OPTIONS, leases)
    }

    fn leading_with(options: LessorOptions, leases: &[(LeaseId, i64)]) -> Lessor {
        let mut lessor = Lessor::new(options, []);
        lessor.promote(Ticks(0), 0);
        for (id, ttl) in leases {
            lessor.granted(*id, *ttl, Ticks(0));
        }
        lessor
    }

    fn seconds(lessor: &Lessor, id: LeaseId, now: u64) -> Option<i64> {
        lessor.remaining(id, Ticks(now)).and_then(|remaining| remaining.seconds)
    }

    #[test]
    fn lease_expires_after_its_ttl_and_not_before() {
        let mut lessor = leading(&[(A, 2)]);
        assert!(lessor.expired(Ticks(1_999)).is_empty());
        assert_eq!(lessor.expired(Ticks(2_000)), [A]);
    }

    #[test]
    fn reported_lease_is_reported_again_after_the_retry_interval() {
        let mut lessor = leading(&[(A, 2)]);
        assert_eq!(lessor.expired(Ticks(2_000)), [A]);
        assert!(lessor.expired(Ticks(8_999)).is_empty());
        assert_eq!(lessor.expired(Ticks(9_000)), [A]);
        lessor.revoked(A);
        assert!(lessor.expired(Ticks(99_000)).is_empty());
        assert!(!lessor.contains(A));
    }

    #[test]
    fn renewal_gives_the_full_ttl() {
        let mut lessor = leading(&[(A, 5)]);
        assert_eq!(lessor.renew(A, Ticks(4_999)), Ok(Renewed { ttl: 5, clear_checkpoint: false }));
        assert!(lessor.expired(Ticks(9_998)).is_empty());
        assert_eq!(lessor.expired(Ticks(9_999)), [A]);
    }

    #[test]
    fn unknown_lease_is_not_renewed() {
        assert_eq!(leading(&[]).renew(A, Ticks(0)), Err(RenewError::Unknown(Rejection::LeaseNotFound)));
    }

    #[test]
    fn expired_lease_refuses_renewal_before_it_is_revoked() {
        let mut lessor = leading(&[(A, 2)]);
        assert_eq!(lessor.renew(A, Ticks(2_000)), Err(RenewError::Expired));
        lessor.expired(Ticks(2_000));
        assert_eq!(lessor.renew(A, Ticks(2_500)), Err(RenewError::Expired));
    }

    #[test]
    fn member_that_does_not_lead_neither_renews_nor_expires() {
        let mut lessor = Lessor::new(OPTIONS, [LeaseRow { id: A, ttl: 2, remaining: 0 }]);
        lessor.granted(B, 2, Ticks(0));
        assert_eq!(lessor.renew(A, Ticks(0)), Err(RenewError::NotPrimary));
        assert!(lessor.expired(Ticks(1_000_000)).is_empty());
        assert_eq!(lessor.remaining(A, Ticks(0)), Some(Remaining { seconds: None, granted: 2 }));
        assert_eq!(lessor.leases(), [B, A]);
    }

    #[test]
    fn new_leader_gives_full_time_plus_extension() {
        let mut lessor = leading(&[(A, 5)]);
        lessor.demote();
        lessor.promote(Ticks(4_900), 1_000);
        assert!(lessor.expired(Ticks(10_899)).is_empty());
        assert_eq!(lessor.expired(Ticks(10_900)), [A]);
    }

    #[test]
    fn countdowns_of_a_leader_do_not_begin_anew_within_its_term() {
        let mut lessor = leading(&[(A, 5)]);
        assert_eq!(lessor.expired(Ticks(5_000)), [A]);
        lessor.promote(Ticks(5_001), 1_000);
        assert_eq!(lessor.renew(A, Ticks(5_002)), Err(RenewError::Expired));
        lessor.demote();
        lessor.promote(Ticks(5_003), 1_000);
        assert!(lessor.renew(A, Ticks(5_004)).is_ok());
    }

    #[test]
    fn new_leader_starts_from_the_checkpoint() {
        let mut lessor = Lessor::new(OPTIONS, [LeaseRow { id: A, ttl: 100, remaining: 30 }]);
        lessor.promote(Ticks(0), 1_000);
        assert_eq!(seconds(&lessor, A, 0), Some(31));
        assert_eq!(lessor.renew(A, Ticks(0)).unwrap().ttl, 100);
        assert_eq!(seconds(&lessor, A, 0), Some(100));
    }

    #[test]
    fn restart_keeps_leases_with_their_full_time() {
        let mut lessor = Lessor::new(OPTIONS, [A, B].map(|id| LeaseRow { id, ttl: 10, remaining: 0 }));
        lessor.promote(Ticks(500), 0);
        assert_eq!((seconds(&lessor, A, 500), seconds(&lessor, B, 500)), (Some(10), Some(10)));
    }

    #[test]
    fn remaining_seconds_round_towards_zero() {
        let lessor = leading(&[(A, 2)]);
        let at = |now| seconds(&lessor, A, now).unwrap();
        assert_eq!([at(0), at(1), at(1_001), at(2_500), at(3_000), at(3_999)], [2, 1, 0, 0, -1, -1]);
        assert_eq!(lessor.remaining(B, Ticks(0)), None);
    }

    #[test]
    fn leases_are_listed_next_to_expire_first() {
        let mut lessor = leading(&[(A, 20), (B, 10)]);
        assert_eq!(lessor.leases(), [B, A]);
        lessor.renew(B, Ticks(9_000)).unwrap();
        lessor.renew(A, Ticks(1)).unwrap();
        assert_eq!(lessor.leases(), [B, A]);
        lessor.renew(B, Ticks(10_002)).unwrap();
        assert_eq!(lessor.leases(), [A, B]);
    }

    #[test]
    fn scan_is_bounded_and_takes_the_longest_overdue_first() {
        let many: Vec<_> = (1..=1_200).map(|id| (LeaseId(id), 2)).collect();
        let mut lessor = leading(&many);
        lessor.granted(LeaseId(5_000), 1, Ticks(0));
        let first = lessor.expired(Ticks(10_000));
        assert_eq!((first.len(), first[0]), (EXPIRED_PER_SCAN_MAX, LeaseId(5_000)));
        assert_eq!(lessor.expired(Ticks(10_000)).len(), EXPIRED_PER_SCAN_MAX);
        assert_eq!(lessor.expired(Ticks(10_000)).len(), 201);
    }

    fn most_within_a_second(lessor: &Lessor) -> usize {
        let mut expiries: Vec<u64> = lessor.leases.values().map(|lease| lease.expiry.0).collect();
        expiries.sort_unstable();
        (0..expiries.len())
            .map(|i| expiries[i..].iter().take_while(|e| **e < expiries[i] + 1000).count())
            .max()
            .unwrap()
    }

    #[test]
    fn many_leases_are_spread_after_promotion_and_never_shortened() {
        let rows = |count| (1..=count).map(|id| LeaseRow { id: LeaseId(id), ttl: 10 + id % 2, remaining: 0 });
        let mut lessor = Lessor::new(OPTIONS, rows(5_000));
        lessor.promote(Ticks(0), 0);
        assert_eq!(most_within_a_second(&lessor), EXPIRIES_PER_SECOND_MAX);
        assert!(lessor.leases.values().all(|lease| lease.expiry >= lease.full_expiry(Ticks(0), 0)));
        let mut few = Lessor::new(OPTIONS, rows(999));
        few.promote(Ticks(0), 0);
        assert!(few.leases.values().all(|lease| lease.expiry == lease.full_expiry(Ticks(0), 0)));
    }

    const CHECKPOINTING: LessorOptions = LessorOptions { checkpoint_ms: Some(CHECKPOINT_INTERVAL_MS), ..OPTIONS };

    #[test]
    fn long_leases_are_checkpointed_and_scheduled_again() {
        let mut lessor = leading_with(CHECKPOINTING, &[(A, 1_000), (B, 300)]);
        assert!(lessor.due_checkpoints(Ticks(299_999), CHECKPOINTS_MAX).is_empty());
        assert_eq!(lessor.due_checkpoints(Ticks(300_500), CHECKPOINTS_MAX), [(A, 700)]);
        assert!(lessor.due_checkpoints(Ticks(300_500), CHECKPOINTS_MAX).is_empty());
        lessor.checkpointed(A, 700, Ticks(300_600));
        assert_eq!(lessor.due_checkpoints(Ticks(600_600), CHECKPOINTS_MAX), [(A, 400)]);
    }

    #[test]
    fn checkpoint_does_not_shorten_the_running_countdown() {
        let mut lessor = leading_with(CHECKPOINTING, &[(A, 1_000)]);
        lessor.checkpointed(A, 700, Ticks(0));
        assert_eq!(seconds(&lessor, A, 0), Some(1_000));
    }

    #[test]
    fn renewal_clears_the_checkpoint() {
        let mut lessor = leading_with(CHECKPOINTING, &[(A, 1_000)]);
        lessor.checkpointed(A, 700, Ticks(0));
        assert_eq!(lessor.renew(A, Ticks(1)), Ok(Renewed { ttl: 1_000, clear_checkpoint: true }));
        assert_eq!(seconds(&lessor, A, 1), Some(1_000));
        assert_eq!(lessor.renew(A, Ticks(2)), Ok(Renewed { ttl: 1_000, clear_checkpoint: true }), "not yet cleared");
        lessor.checkpointed(A, 0, Ticks(3));
        assert_eq!(lessor.renew(A, Ticks(4)), Ok(Renewed { ttl: 1_000, clear_checkpoint: false }));
    }

    #[test]
    fn nothing_is_renewed_while_a_checkpoint_is_on_its_way() {
        let mut lessor = leading_with(CHECKPOINTING, &[(A, 1_000)]);
        assert_eq!(lessor.due_checkpoints(Ticks(300_500), CHECKPOINTS_MAX), [(A, 700)]);
        assert_eq!(lessor.renew(A, Ticks(300_501)), Err(RenewError::Recording));
        lessor.checkpointed(A, 700, Ticks(300_502));
        assert_eq!(lessor.renew(A, Ticks(300_503)), Ok(Renewed { ttl: 1_000, clear_checkpoint: true }));
        lessor.checkpointed(A, 0, Ticks(300_504));
        assert_eq!(lessor.due_checkpoints(Ticks(600_504), CHECKPOINTS_MAX), [(A, 700)]);
        lessor.not_checkpointed([A], Ticks(600_505));
        assert_eq!(lessor.renew(A, Ticks(600_506)), Ok(Renewed { ttl: 1_000, clear_checkpoint: false }));
    }

    #[test]
    fn checkpoints_of_one_call_are_bounded() {
        let many: Vec<_> = (1..=30).map(|id| (LeaseId(id), 1_000)).collect();
        let mut lessor = leading_with(CHECKPOINTING, &many);
        assert_eq!(lessor.due_checkpoints(Ticks(300_000), 20).len(), 20);
        assert_eq!(lessor.due_checkpoints(Ticks(300_000), 20).len(), 10);
        assert!(lessor.due_checkpoints(Ticks(300_000), 20).is_empty());
    }

    #[test]
    fn granting_a_known_lease_again_replaces_it() {
        let mut lessor = leading(&[(A, 2)]);
        lessor.granted(A, 50, Ticks(0));
        assert!(lessor.expired(Ticks(3_000)).is_empty());
        assert_eq!(lessor.len(), 1);
    }
}
