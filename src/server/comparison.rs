//! Whether the members of our kind have the same state, twice a second and by default.
//!
//! The leader asks the others for their newest digests and compares them with its own at the same entries. A difference is
//! proof: whoever contradicts a majority gets etcd's CORRUPT alarm, which stops all writes. In a cluster with members of
//! etcd nobody raises an alarm on our word alone; there every member of ours compares itself with a leader of ours, or with all
//! of our kind if a member of etcd leads, and the one that is wrong stops. Who that is, members of etcd help to find out
//! ([`super::mixed`]).
//!
//! Digests that begin at different entries are some number apart, and must stay so. That number is taken from the oldest
//! entry that both remember, by every member and long before it may come to lead: what went wrong under one leader is
//! found by the next.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Error;
use futures_util::future::join_all;
use tokio::time::sleep;

use crate::{
    apply::{AlarmKind, Digest},
    clock::Clock as _,
    pb::etcdserverpb::{AlarmRequest, AlarmType, InternalRaftRequest, alarm_request::AlarmAction},
    transport::ask,
    types::{LogIndex, MemberId},
};

use super::{
    Handle, ServerError, ServerFailure,
    digests::{Point, Testimony},
    verdict::{Verdict, judge},
};

/// Pause between two rounds: a difference is known within a second of the first entry that makes it.
const INTERVAL: Duration = Duration::from_millis(500);
/// Time a peer has to answer; less than a pause, so that a silent one delays nothing.
const PATIENCE: Duration = Duration::from_millis(400);
/// While nothing new is applied and all agree, members are asked this seldom, and so they are by those that do not lead. A
/// difference among members of etcd is looked into this often.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

/// A peer's digest beside this member's, at the same entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Finding {
    index: u64,
    own: Digest,
    theirs: Digest,
    /// Zero if they agree; members that went the same wrong way have the same number.
    apart: u64,
}

/// What is known from earlier rounds.
#[derive(Debug, Default)]
struct Comparison {
    /// For peers whose digest begins at another entry than ours: the difference that must stay.
    bases: BTreeMap<MemberId, Base>,
    /// Where all peers agreed last, and when by the member's clock.
    settled: Option<(LogIndex, Duration)>,
    /// When this member, while it did not lead, asked all others.
    learned: Option<Duration>,
    /// When a difference was last looked into, in a cluster with members of etcd.
    looked_into: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Base {
    own_since: LogIndex,
    their_since: LogIndex,
    apart: u64,
}

impl Comparison {
    /// How far `peer` is from where it should be.
    fn apart(&mut self, peer: MemberId, own: Digest, theirs: Digest) -> u64 {
        let apart = own.sum.wrapping_sub(theirs.sum);
        if own.since == theirs.since {
            return apart;
        }
        let now = Base { own_since: own.since, their_since: theirs.since, apart };
        let base = self.bases.entry(peer).or_insert(now);
        if (base.own_since, base.their_since) != (own.since, theirs.since) {
            *base = now;
        }
        apart.wrapping_sub(base.apart)
    }

    fn is_idle(&self, applied: LogIndex, now: Duration) -> bool {
        self.settled.is_some_and(|(index, at)| index == applied && now.saturating_sub(at) < IDLE_INTERVAL)
    }

    /// One round: asks `peers` and looks again before it says that any is wrong.
    async fn round(&mut self, handle: &Handle, peers: &[MemberId]) {
        let (applied, now) = (handle.published().applied, handle.shared.clock.monotonic());
        if self.is_idle(applied, now) {
            return;
        }
        let mut findings = self.ask(handle, peers).await;
        if findings.values().any(|finding| finding.apart != 0) {
            findings = self.ask(handle, peers).await;
        }
        let all_here = findings.len() == peers.len() && findings.values().all(|found| found.index == applied.0);
        let verdict = handle.judge(&findings);
        self.settled = (all_here && verdict == Verdict::Agreed).then_some((applied, now));
        if verdict == Verdict::Agreed {
            return;
        }
        findings.retain(|_, finding| finding.apart != 0);
        if !handle.shared.is_mixed() {
            handle.raise_if_new(&verdict, &findings).await;
        } else if is_due(&mut self.looked_into, now) {
            handle.stop_if_wrong(&verdict, &findings).await;
        }
    }

    /// Learns how far the digests of others are apart from ours, so that this member can judge them once it leads.
    async fn learn(&mut self, handle: &Handle) {
        if is_due(&mut self.learned, handle.shared.clock.monotonic()) {
            self.ask(handle, &handle.digest_peers()).await;
        }
    }

    async fn ask(&mut self, handle: &Handle, peers: &[MemberId]) -> BTreeMap<MemberId, Finding> {
        let answers = join_all(peers.iter().map(|peer| handle.points_of(*peer))).await;
        let own_at = |index| handle.digest_at(index);
        let answers = peers.iter().zip(answers);
        answers.filter_map(|(peer, points)| Some((*peer, self.find(*peer, &points, own_at)?))).collect()
    }

    /// Compares at every entry that both know, from the oldest on; what counts in the end is the newest.
    fn find(&mut self, peer: MemberId, points: &[Point], own_at: impl Fn(u64) -> Option<Digest>) -> Option<Finding> {
        let known = points.iter().filter_map(|point| Some((point.index, (own_at(point.index)?, point.digest()))));
        let known: BTreeMap<u64, (Digest, Digest)> = known.collect();
        let mut newest = None;
        for (index, (own, theirs)) in known {
            newest = Some(Finding { index, own, theirs, apart: self.apart(peer, own, theirs) });
        }
        newest
    }
}

/// Whether the last time is long enough ago; `now` is the last time then.
fn is_due(last: &mut Option<Duration>, now: Duration) -> bool {
    let due = last.is_none_or(|at| now.saturating_sub(at) >= IDLE_INTERVAL);
    *last = if due { Some(now) } else { *last };
    due
}

impl Handle {
    /// The other members that tell their digests.
    fn digest_peers(&self) -> Vec<MemberId> {
        let tells = |id: &MemberId| self.shared.capabilities(*id).is_some_and(|able| able.digest);
        self.shared.peers().into_keys().filter(|id| *id != self.member_id()).filter(tells).collect()
    }

    /// Whom this member compares itself with.
    fn compared_peers(&self) -> Vec<MemberId> {
        let mut peers = self.digest_peers();
        if !self.leads() {
            let (mixed, leader) = (self.shared.is_mixed(), self.shared.standing().leader);
            let ours = leader.filter(|leader| peers.contains(leader));
            peers.retain(|peer| mixed && ours.is_none_or(|leader| leader == *peer));
        }
        peers
    }

    /// What `peer` says; nothing if it does not.
    async fn points_of(&self, peer: MemberId) -> Vec<Point> {
        let path = self.digest_path();
        for url in self.shared.peers().remove(&peer).unwrap_or_default() {
            match ask::get(self.target(&url, PATIENCE), self.cluster_id(), &path).await {
                Ok(answer) => return Testimony::read(&answer, peer).unwrap_or_default(),
                Err(why) => tracing::debug!(url, %why, "a member does not tell its digest"),
            }
        }
        Vec::new()
    }

    fn judge(&self, findings: &BTreeMap<MemberId, Finding>) -> Verdict {
        let mut said: BTreeMap<MemberId, u64> = findings.iter().map(|(id, found)| (*id, found.apart)).collect();
        said.insert(self.member_id(), 0);
        judge(&said, self.published().cluster.members().count())
    }

    async fn raise_if_new(&self, verdict: &Verdict, apart: &BTreeMap<MemberId, Finding>) {
        let alarmed = match verdict {
            Verdict::Against(members) => members.clone(),
            // etcd's way to say that somebody is wrong.
            _ => vec![MemberId(0)],
        };
        if !alarmed.iter().all(|member| self.is_alarmed(*member)) {
            self.tell(apart);
            self.raise_corrupt(&alarmed).await;
        }
    }

    fn tell(&self, apart: &BTreeMap<MemberId, Finding>) {
        for (peer, found) in apart {
            let (own, theirs) = (format!("{:016x}", found.own.sum), format!("{:016x}", found.theirs.sum));
            let (index, own_member) = (found.index, self.member_id());
            tracing::error!(index, %own_member, own, %peer, theirs, "the states of two members differ");
        }
    }

    /// Members of etcd are asked first, who know no digests but have a majority together with whoever is right. They cannot
    /// help if the difference is none of the key space.
    async fn stop_if_wrong(&self, verdict: &Verdict, apart: &BTreeMap<MemberId, Finding>) {
        self.tell(apart);
        match self.compare_keys().await {
            Ok(Some(Verdict::Against(_))) => return,
            Ok(_) => {}
            Err(why) => tracing::debug!(%why, "failed to compare the key space with those of the other members"),
        }
        if self.is_wrong(verdict, apart.keys().copied())
            && let Some((peer, found)) = apart.iter().next()
        {
            let (index, own, theirs) = (LogIndex(found.index), found.own.sum, found.theirs.sum);
            self.shared.fail(ServerFailure::Diverged { index, own, peer: *peer, theirs });
        }
    }

    /// Whether it is this member that is wrong, of it and those it differs from. Without a majority a leader of ours is
    /// right; members of etcd always are.
    pub(super) fn is_wrong(&self, verdict: &Verdict, mut apart: impl Iterator<Item = MemberId>) -> bool {
        let leader = self.shared.standing().leader;
        match verdict {
            Verdict::Agreed => false,
            Verdict::Against(members) => members.contains(&self.member_id()),
            Verdict::Undecided => apart.any(|peer| Some(peer) == leader || self.shared.is_foreign(peer)),
        }
    }

    pub(super) fn is_alarmed(&self, member: MemberId) -> bool {
        let raised = self.published().alarms.list(Some(AlarmKind::Corrupt));
        raised.iter().any(|alarm| alarm.member_id == member.0)
    }

    /// Raises the CORRUPT alarm for those that have it not.
    pub(super) async fn raise_corrupt(&self, members: &[MemberId]) {
        for member in members.iter().filter(|member| !self.is_alarmed(**member)) {
            match self.propose_corrupt(*member).await {
                Ok(()) => tracing::error!(%member, "alarm raised: the data of the cluster is corrupt"),
                Err(why) => tracing::warn!(%member, %why, "failed to raise the CORRUPT alarm"),
            }
        }
    }

    async fn propose_corrupt(&self, member: MemberId) -> Result<(), ServerError> {
        let (action, alarm) = (AlarmAction::Activate.into(), AlarmType::Corrupt.into());
        let alarm = AlarmRequest { action, member_id: member.0, alarm };
        self.propose(InternalRaftRequest { alarm: Some(alarm), ..Default::default() }).await.map(|_| ())
    }
}

/// Compares digests for as long as the member runs.
///
/// # Errors
/// Never.
pub async fn compare_digests(handle: Handle) -> Result<(), Error> {
    let mut comparison = Comparison::default();
    loop {
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = handle.stopped() => return Ok(()),
        }
        let (peers, members) = (handle.compared_peers(), handle.shared.peers());
        comparison.bases.retain(|peer, _| members.contains_key(peer));
        if peers.is_empty() {
            comparison.settled = None;
        } else {
            comparison.round(&handle, &peers).await;
        }
        if !handle.leads() {
            comparison.learn(&handle).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(since: u64, sum: u64) -> Digest {
        Digest { since: LogIndex(since), sum }
    }

    #[test]
    fn digests_with_one_beginning_must_be_equal() {
        let mut comparison = Comparison::default();
        assert_eq!(comparison.apart(MemberId(2), digest(0, 9), digest(0, 9)), 0);
        assert_eq!(comparison.apart(MemberId(2), digest(0, 9), digest(0, 4)), 5);
    }

    #[test]
    fn digests_with_two_beginnings_must_keep_their_difference() {
        let mut comparison = Comparison::default();
        let peer = MemberId(2);
        assert_eq!(comparison.apart(peer, digest(0, 100), digest(7, 40)), 0, "nothing to compare with yet");
        assert_eq!(comparison.apart(peer, digest(0, 30), digest(7, 30_u64.wrapping_sub(60))), 0);
        assert_eq!(comparison.apart(peer, digest(0, 130), digest(7, 71)), u64::MAX);
        assert_eq!(comparison.apart(MemberId(3), digest(0, 130), digest(7, 71)), 0, "another peer");
        assert_eq!(comparison.apart(peer, digest(0, 130), digest(9, 5)), 0, "it took a snapshot meanwhile");
        assert_eq!(comparison.apart(peer, digest(0, 131), digest(9, 5)), 1);
    }
    /// A member whose digest begins at entry 7 went apart by 5 behind entry 20. Whoever compares itself with it for the
    /// first time at entry 30 finds that, from what both remember of before.
    #[test]
    fn what_went_wrong_before_the_first_comparison_is_found() {
        let own_at = |index| (10..=30).contains(&index).then(|| digest(0, 1000 + index));
        let theirs = |index, wrong| Point::new(LogIndex(index), digest(7, 400 + index + wrong));
        let mut comparison = Comparison::default();
        let told = [theirs(30, 5), theirs(24, 5), theirs(7, 0), theirs(12, 0)];
        let found = comparison.find(MemberId(2), &told, own_at).unwrap();
        assert_eq!((found.index, found.apart), (30, 5_u64.wrapping_neg()));
        let unknown = comparison.find(MemberId(2), &[theirs(7, 0), theirs(31, 0)], own_at);
        assert_eq!(unknown, None);
        let found = Comparison::default().find(MemberId(2), &[theirs(30, 5)], own_at).unwrap();
        assert_eq!(found.apart, 0, "nothing else is remembered");
    }

    /// What was learned before a member came to lead is not given up for an older entry, nor for a newer one.
    #[test]
    fn what_was_learned_once_stays() {
        let mut comparison = Comparison::default();
        let theirs = |index, wrong| Point::new(LogIndex(index), digest(7, 400 + index + wrong));
        comparison.find(MemberId(2), &[theirs(15, 0)], |index| Some(digest(0, 1000 + index)));
        let told = [theirs(30, 5), theirs(24, 5)];
        let found = comparison.find(MemberId(2), &told, |index| Some(digest(0, 1000 + index))).unwrap();
        assert_eq!((found.index, found.apart), (30, 5_u64.wrapping_neg()));
    }
}
