//! Strict reconfiguration: would this change endanger the quorum? Asked before a change is proposed.
//!
//! The rules are those of etcd 3.7. `connected` is the set of members that have been connected for
//! [`HEALTH_INTERVAL_MS`] without a break, the asking member always included.

use std::collections::BTreeSet;

use super::{Cluster, Member};
use crate::types::{MemberId, Rejection};

/// How long a member must have been connected to count, in milliseconds.
pub const HEALTH_INTERVAL_MS: u64 = 5_000;
/// A learner may be promoted once it has this share of the leader's log, in percent.
pub const LEARNER_READY_PERCENT: u64 = 90;

/// Whether a member may be added now.
///
/// # Errors
/// [`Rejection::NotEnoughStarted`] if the enlarged cluster could lose its quorum to members that never started,
/// [`Rejection::UnhealthyCluster`] if too few voters are connected.
pub fn may_add(cluster: &Cluster, learner: bool, connected: &BTreeSet<MemberId>) -> Result<(), Rejection> {
    let voters: Vec<&Member> = cluster.voters().collect();
    let started = count_started(&voters);
    let enlarged = voters.len() + 1;
    // One started voter may always get company: that is how a cluster grows out of a restored member.
    let grows_from_one = voters.len() == 1 && started == 1;
    if !learner && !grows_from_one && started < quorum(enlarged) {
        return Err(Rejection::NotEnoughStarted);
    }
    let healthy = voters.len() == 1 || count_connected(&voters, connected) >= quorum(enlarged);
    if healthy { Ok(()) } else { Err(Rejection::UnhealthyCluster) }
}

/// Whether `id` may be removed now. `active` tells whether it is connected at all, for however short a time.
///
/// # Errors
/// [`Rejection::NotEnoughStarted`] if the rest has no quorum of started voters (so the last voter stays),
/// [`Rejection::UnhealthyCluster`] if the rest has no quorum of connected voters.
pub fn may_remove(
    cluster: &Cluster,
    id: MemberId,
    active: bool,
    connected: &BTreeSet<MemberId>,
) -> Result<(), Rejection> {
    if cluster.member(id).is_some_and(|member| member.is_learner) {
        return Ok(());
    }
    let voters: Vec<&Member> = cluster.voters().collect();
    let rest: Vec<&Member> = voters.iter().copied().filter(|member| member.id != id).collect();
    if count_started(&rest) < quorum(rest.len()) {
        return Err(Rejection::NotEnoughStarted);
    }
    let left = count_connected(&voters, connected).saturating_sub(1);
    let healthy = !active || left >= quorum(voters.len().saturating_sub(1));
    if healthy { Ok(()) } else { Err(Rejection::UnhealthyCluster) }
}

/// Whether the learner `id` may get its vote now. `learner_match` and `leader_match` are their positions in the log.
///
/// # Errors
/// [`Rejection::MemberNotFound`], [`Rejection::NotLearner`], [`Rejection::LearnerNotReady`] if it lags, and with
/// `strict` [`Rejection::NotEnoughStarted`].
pub fn may_promote(
    cluster: &Cluster,
    id: MemberId,
    learner_match: u64,
    leader_match: u64,
    strict: bool,
) -> Result<(), Rejection> {
    let member = cluster.member(id).ok_or(Rejection::MemberNotFound)?;
    if !member.is_learner {
        return Err(Rejection::NotLearner);
    }
    if u128::from(learner_match) * 100 < u128::from(leader_match) * u128::from(LEARNER_READY_PERCENT) {
        return Err(Rejection::LearnerNotReady);
    }
    let voters: Vec<&Member> = cluster.voters().collect();
    let enough = count_started(&voters) + 1 >= quorum(voters.len() + 1);
    if enough || !strict { Ok(()) } else { Err(Rejection::NotEnoughStarted) }
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

fn count_started(members: &[&Member]) -> usize {
    members.iter().filter(|member| member.is_started()).count()
}

fn count_connected(members: &[&Member], connected: &BTreeSet<MemberId>) -> usize {
    members.iter().filter(|member| connected.contains(&member.id)).count()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Attributes, MemberChange,
            cluster::tests::{cluster, member},
        },
        *,
    };

    fn ids(list: &[u64]) -> BTreeSet<MemberId> {
        list.iter().map(|id| MemberId(*id)).collect()
    }

    fn with_unstarted(mut cluster: Cluster, id: u64, learner: bool) -> Cluster {
        let unstarted = Member { attributes: Attributes::default(), ..member(id, learner) };
        cluster.apply(&MemberChange::add(unstarted));
        cluster
    }

    #[test]
    fn one_started_voter_may_get_company_but_not_twice() {
        assert_eq!(may_add(&cluster(1), false, &ids(&[1])), Ok(()));
        let grown = with_unstarted(cluster(1), 2, false);
        assert_eq!(may_add(&grown, false, &ids(&[1])), Err(Rejection::NotEnoughStarted));
    }

    #[test]
    fn adding_needs_a_connected_quorum_of_the_enlarged_cluster() {
        assert_eq!(may_add(&cluster(3), false, &ids(&[1, 2])), Err(Rejection::UnhealthyCluster));
        assert_eq!(may_add(&cluster(3), true, &ids(&[1, 2])), Err(Rejection::UnhealthyCluster));
        assert_eq!(may_add(&cluster(3), false, &ids(&[1, 2, 3])), Ok(()));
        assert_eq!(may_add(&cluster(5), false, &ids(&[1, 2, 3, 4])), Ok(()));
    }

    #[test]
    fn learner_needs_no_started_quorum() {
        let grown = with_unstarted(cluster(2), 3, false);
        assert_eq!(may_add(&grown, false, &ids(&[1, 2, 3])), Err(Rejection::NotEnoughStarted));
        assert_eq!(may_add(&grown, true, &ids(&[1, 2, 3])), Ok(()));
    }

    #[test]
    fn last_voter_stays() {
        assert_eq!(may_remove(&cluster(1), MemberId(1), true, &ids(&[1])), Err(Rejection::NotEnoughStarted));
    }

    #[test]
    fn removal_must_leave_started_and_connected_quorums() {
        assert_eq!(may_remove(&cluster(3), MemberId(3), true, &ids(&[1, 2, 3])), Ok(()));
        assert_eq!(may_remove(&cluster(3), MemberId(2), true, &ids(&[1, 2])), Err(Rejection::UnhealthyCluster));
        assert_eq!(may_remove(&cluster(3), MemberId(3), false, &ids(&[1, 2])), Ok(()), "a dead member may go");
        let grown = with_unstarted(cluster(2), 3, false);
        let refused = may_remove(&grown, MemberId(2), true, &ids(&[1, 2, 3]));
        assert_eq!(refused, Err(Rejection::NotEnoughStarted));
        assert_eq!(may_remove(&grown, MemberId(3), false, &ids(&[1, 2])), Ok(()));
    }

    #[test]
    fn learner_may_always_be_removed() {
        let grown = with_unstarted(cluster(1), 2, true);
        assert_eq!(may_remove(&grown, MemberId(2), true, &ids(&[1])), Ok(()));
    }

    #[test]
    fn promotion_needs_nine_tenths_of_the_log() {
        let grown = with_unstarted(cluster(1), 2, true);
        let promote = |id, matched| may_promote(&grown, MemberId(id), matched, 1000, true);
        assert_eq!(promote(2, 899), Err(Rejection::LearnerNotReady));
        assert_eq!(promote(2, 900), Ok(()));
        assert_eq!(promote(1, 900), Err(Rejection::NotLearner));
        assert_eq!(promote(9, 900), Err(Rejection::MemberNotFound));
    }

    #[test]
    fn promotion_counts_the_learner_as_started() {
        let grown = with_unstarted(with_unstarted(cluster(1), 2, false), 3, true);
        assert_eq!(may_promote(&grown, MemberId(3), 10, 10, true), Ok(()));
        let worse = with_unstarted(with_unstarted(grown, 4, false), 5, false);
        assert_eq!(may_promote(&worse, MemberId(3), 10, 10, true), Err(Rejection::NotEnoughStarted));
        assert_eq!(may_promote(&worse, MemberId(3), 10, 10, false), Ok(()));
    }
}
