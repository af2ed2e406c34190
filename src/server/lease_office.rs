//! What a leader does about leases: renewals, revocations and checkpoints, decided without waiting for anybody.
//!
//! Whoever drives this has made sure that the member still leads ([`super::leadership::Doubts::weigh`]).

use crate::{
    apply::{Applied, Effect, Response},
    lease::{CHECKPOINTS_MAX, Lessor, RenewError, Renewed},
    pb::etcdserverpb::{InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest},
    raft::{Role, Standing},
    types::{LeaseId, Rejection, Ticks},
};

/// A client's wish to keep a lease alive.
#[derive(Debug)]
pub struct Renewal {
    lease: LeaseId,
    /// Whether everything committed before it is applied here.
    caught_up: bool,
}

/// How a renewal goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum RenewStep {
    /// It is done: the seconds the lease has.
    Renewed(i64),
    /// It is done, and the lease was checkpointed: the client hears the seconds once this request is applied, so that a
    /// later leader does not count on from the checkpoint.
    Record(i64, Box<InternalRaftRequest>),
    /// The grant may be committed and on its way here: try again once what is committed now is applied.
    CatchUp,
    /// A revocation or a checkpoint is on its way, or the countdowns have not begun: look again soon.
    LookAgain,
    /// It is not renewed.
    Refused(Rejection),
}

impl Renewal {
    /// Of `lease`.
    pub fn new(lease: LeaseId) -> Self {
        Self { lease, caught_up: false }
    }

    /// One attempt, on a member that leads.
    pub fn attempt(&mut self, lessor: &mut Lessor, now: Ticks) -> RenewStep {
        match lessor.renew(self.lease, now) {
            Ok(Renewed { ttl, clear_checkpoint: false }) => RenewStep::Renewed(ttl),
            Ok(Renewed { ttl, clear_checkpoint: true }) => {
                let whole = LeaseCheckpoint { id: self.lease.0, remaining_ttl: 0 };
                RenewStep::Record(ttl, Box::new(recording(vec![whole])))
            }
            Err(RenewError::Unknown(why)) if self.caught_up => RenewStep::Refused(why),
            Err(RenewError::Unknown(_)) => {
                self.caught_up = true;
                RenewStep::CatchUp
            }
            Err(RenewError::Expired | RenewError::NotPrimary | RenewError::Recording) => RenewStep::LookAgain,
        }
    }
}

/// The leases that have run out, each with its revocation. They may be proposed in the term of this call alone: what this
/// leader wants to revoke, a later one may have seen renewed. Call every [`crate::lease::SCAN_INTERVAL_MS`] on a member
/// that leads.
pub fn revocations(lessor: &mut Lessor, now: Ticks) -> Vec<(LeaseId, InternalRaftRequest)> {
    let revocation = |lease: LeaseId| {
        let lease_revoke = Some(LeaseRevokeRequest { id: lease.0 });
        (lease, InternalRaftRequest { lease_revoke, ..Default::default() })
    };
    lessor.expired(now).into_iter().map(revocation).collect()
}

/// Remaining times on their way into the log. Their leases are not renewed before they are applied or given up.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    leases: Vec<LeaseId>,
    /// What records them, in the term of [`checkpoint`] alone.
    pub request: InternalRaftRequest,
}

/// The remaining times to record now, if there are any. Call it as [`revocations`].
pub fn checkpoint(lessor: &mut Lessor, now: Ticks) -> Option<Checkpoint> {
    let due = lessor.due_checkpoints(now, CHECKPOINTS_MAX);
    let leases: Vec<LeaseId> = due.iter().map(|(lease, _)| *lease).collect();
    let record = |(lease, remaining_ttl): (LeaseId, i64)| LeaseCheckpoint { id: lease.0, remaining_ttl };
    let request = recording(due.into_iter().map(record).collect());
    (!leases.is_empty()).then_some(Checkpoint { leases, request })
}

impl Checkpoint {
    /// It was not applied, as far as anybody was told. After a time-out it may still come.
    pub fn failed(self, why: Option<Rejection>, lessor: &mut Lessor, now: Ticks) {
        if why != Some(Rejection::Timeout) {
            lessor.not_checkpointed(self.leases, now);
        }
    }
}

fn recording(checkpoints: Vec<LeaseCheckpoint>) -> InternalRaftRequest {
    let lease_checkpoint = Some(LeaseCheckpointRequest { checkpoints });
    InternalRaftRequest { lease_checkpoint, ..Default::default() }
}

/// Whether [`note`] has anything to say of an applied entry.
pub fn concerns(entry: &Applied) -> bool {
    let is_of_leases = |effect: &Effect| {
        matches!(effect, Effect::LeaseGranted { .. } | Effect::LeaseRevoked(_) | Effect::LeaseCheckpointed { .. })
    };
    matches!(entry.outcome, Ok(Response::NewLeader)) || entry.effects.iter().any(is_of_leases)
}

/// The countdowns learn what an applied entry means. The first entry of a leader's term starts them on that leader, which
/// gives every lease `extend_ms` more, for the time in which nobody could renew it.
pub fn note(lessor: &mut Lessor, entry: &Applied, standing: Standing, now: Ticks, extend_ms: u64) {
    let in_office = standing.role == Role::Leader && standing.term == entry.term;
    if in_office && matches!(entry.outcome, Ok(Response::NewLeader)) {
        lessor.promote(now, extend_ms);
    }
    for effect in &entry.effects {
        match effect {
            Effect::LeaseGranted { id, ttl } => lessor.granted(*id, *ttl, now),
            Effect::LeaseRevoked(id) => lessor.revoked(*id),
            Effect::LeaseCheckpointed { id, remaining } => lessor.checkpointed(*id, *remaining, now),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        apply::Digest,
        lease::{LeaseRow, LessorOptions},
        types::{LogIndex, Term},
    };

    const LEASE: LeaseId = LeaseId(7);

    /// The only lease lives for ten seconds, and is checkpointed every second.
    fn lessor() -> Lessor {
        let options = LessorOptions { retry_ms: 1_000, checkpoint_ms: Some(1_000) };
        Lessor::new(options, [LeaseRow { id: LEASE, ttl: 10, remaining: 0 }])
    }

    fn leader(term: u64) -> Standing {
        Standing { role: Role::Leader, term: Term(term), ..Standing::default() }
    }

    fn entry(term: u64, outcome: Result<Response, Rejection>, effects: Vec<Effect>) -> Applied {
        let (index, term, digest) = (LogIndex(1), Term(term), Digest::default());
        Applied { index, term, request: None, operation: None, outcome, changes: None, effects, digest }
    }

    fn in_office() -> Lessor {
        let mut lessor = lessor();
        note(&mut lessor, &entry(2, Ok(Response::NewLeader), Vec::new()), leader(2), Ticks(0), 0);
        lessor
    }

    #[test]
    fn countdowns_start_with_the_first_entry_of_the_own_term() {
        let first = |term, standing| {
            let mut lessor = lessor();
            note(&mut lessor, &entry(term, Ok(Response::NewLeader), Vec::new()), standing, Ticks(0), 0);
            lessor.is_primary()
        };
        assert!(first(2, leader(2)));
        assert!(!first(1, leader(2)), "of a leader before");
        assert!(!first(2, Standing { term: Term(2), ..Standing::default() }), "of another leader");
    }

    #[test]
    fn renewal_of_a_lease_that_nobody_knows_looks_twice() {
        let mut lessor = in_office();
        let mut renewal = Renewal::new(LeaseId(8));
        assert_eq!(renewal.attempt(&mut lessor, Ticks(0)), RenewStep::CatchUp);
        assert_eq!(renewal.attempt(&mut lessor, Ticks(0)), RenewStep::Refused(Rejection::LeaseNotFound));
        let granted = vec![Effect::LeaseGranted { id: LeaseId(8), ttl: 5 }];
        note(&mut lessor, &entry(2, Ok(Response::NewLeader), granted), leader(2), Ticks(0), 0);
        assert_eq!(renewal.attempt(&mut lessor, Ticks(0)), RenewStep::Renewed(5));
    }

    #[test]
    fn renewal_waits_for_a_checkpoint_and_clears_it() {
        let mut lessor = in_office();
        let due = checkpoint(&mut lessor, Ticks(2_000)).expect("it lost two seconds");
        let mut renewal = Renewal::new(LEASE);
        assert_eq!(renewal.attempt(&mut lessor, Ticks(2_000)), RenewStep::LookAgain);
        let recorded = vec![Effect::LeaseCheckpointed { id: LEASE, remaining: 8 }];
        note(&mut lessor, &entry(2, Ok(Response::NewLeader), recorded), leader(2), Ticks(2_100), 0);
        let cleared = Box::new(recording(vec![LeaseCheckpoint { id: LEASE.0, remaining_ttl: 0 }]));
        assert_eq!(renewal.attempt(&mut lessor, Ticks(2_100)), RenewStep::Record(10, cleared));
        assert_eq!(due.request, recording(vec![LeaseCheckpoint { id: LEASE.0, remaining_ttl: 8 }]));
    }

    #[test]
    fn checkpoint_that_may_still_come_holds_renewals_back() {
        for (why, step) in
            [(Rejection::Timeout, RenewStep::LookAgain), (Rejection::ProposalDropped, RenewStep::Renewed(10))]
        {
            let mut lessor = in_office();
            let due = checkpoint(&mut lessor, Ticks(2_000)).expect("it lost two seconds");
            due.failed(Some(why), &mut lessor, Ticks(2_000));
            assert_eq!(Renewal::new(LEASE).attempt(&mut lessor, Ticks(2_000)), step, "{why:?}");
        }
    }

    #[test]
    fn expired_lease_is_revoked_and_not_renewed() {
        let mut lessor = in_office();
        assert_eq!(revocations(&mut lessor, Ticks(9_999)), []);
        let expired = revocations(&mut lessor, Ticks(10_000));
        assert_eq!(expired.iter().map(|(lease, _)| *lease).collect::<Vec<_>>(), [LEASE]);
        assert_eq!(Renewal::new(LEASE).attempt(&mut lessor, Ticks(10_000)), RenewStep::LookAgain);
        note(
            &mut lessor,
            &entry(2, Ok(Response::NewLeader), vec![Effect::LeaseRevoked(LEASE)]),
            leader(2),
            Ticks(0),
            0,
        );
        let mut renewal = Renewal { lease: LEASE, caught_up: true };
        assert_eq!(renewal.attempt(&mut lessor, Ticks(10_000)), RenewStep::Refused(Rejection::LeaseNotFound));
    }
}
