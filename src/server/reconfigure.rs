//! Changes of the membership: asked for by clients, checked here, agreed on through the log.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::timeout};

use crate::{
    apply::Response,
    clock::Clock as _,
    membership::{Cluster, Member, MemberChange, added_member_id, check_peer_urls, reconfig},
    metrics,
    raft::Input,
    transport::ask,
    types::{MemberId, Rejection},
};

use super::{
    Handle, ServerError,
    inbox::Refused,
    raft_thread::{RaftOrder, Survey},
    shared::PROPOSAL_SHARE_BYTES_MIN,
};

/// For how long a member must have been connected to count towards the quorum.
const HEALTH_INTERVAL: Duration = Duration::from_millis(reconfig::HEALTH_INTERVAL_MS);

impl Handle {
    /// Adds a member: the new member and the cluster it is part of.
    ///
    /// # Errors
    /// [`Rejection::BadMemberUrls`]; what the strict check and applying say; [`Rejection::Timeout`] if the outcome is
    /// unknown.
    pub async fn member_add(&self, urls: &[String], learner: bool) -> Result<(Member, Arc<Cluster>), ServerError> {
        let peer_urls = check_peer_urls(urls)?;
        let id = added_member_id(&peer_urls, self.shared.clock.wall().as_secs());
        if self.shared.options.strict_reconfig {
            reconfig::may_add(&self.published().cluster, learner, &self.connected())?;
        }
        let member = Member { id, peer_urls, is_learner: learner, ..Member::default() };
        let cluster = self.change_members(MemberChange::add(member.clone())).await?;
        Ok((member, cluster))
    }

    /// Removes a member for good: the cluster without it.
    ///
    /// # Errors
    /// As [`Handle::member_add`].
    pub async fn member_remove(&self, id: MemberId) -> Result<Arc<Cluster>, ServerError> {
        if self.shared.options.strict_reconfig {
            let active = id == self.member_id() || self.connected_for(id).is_some();
            reconfig::may_remove(&self.published().cluster, id, active, &self.connected())?;
        }
        self.change_members(MemberChange::Remove(id)).await
    }

    /// Moves a member to other peer URLs: the cluster afterwards.
    ///
    /// # Errors
    /// As [`Handle::member_add`].
    pub async fn member_update(&self, id: MemberId, urls: &[String]) -> Result<Arc<Cluster>, ServerError> {
        let peer_urls = check_peer_urls(urls)?;
        self.change_members(MemberChange::Update { id, peer_urls }).await
    }

    /// Gives a learner its vote; other members ask the leader, who alone knows whether it is ready.
    ///
    /// # Errors
    /// [`Rejection::MemberNotFound`], [`Rejection::NotLearner`], [`Rejection::LearnerNotReady`] and what the strict check
    /// says; [`Rejection::NoLeader`], [`Rejection::Timeout`].
    pub async fn member_promote(&self, id: MemberId) -> Result<Vec<Member>, ServerError> {
        let here = match self.member_promote_here(id).await {
            Err(ServerError::Rejected(Rejection::NotLeader)) => {
                let ask =
                    |url: String, patience| async move { ask::promote(self.target(&url, patience), id, None).await };
                return self.ask_leader(ask).await;
            }
            here => here,
        };
        match &here {
            Ok(_) => metrics::LEARNER_PROMOTE_SUCCESSES.inc(),
            Err(why) => metrics::LEARNER_PROMOTE_FAILURES.with([&why.to_string()]).inc(),
        }
        here
    }

    /// [`Handle::member_promote`] on the leader.
    ///
    /// # Errors
    /// [`Rejection::NotLeader`] on any other member.
    pub async fn member_promote_here(&self, id: MemberId) -> Result<Vec<Member>, ServerError> {
        if !self.leads() {
            return Err(Rejection::NotLeader.into());
        }
        self.catch_up().await?;
        let Survey { last, peers, .. } = self.survey().await?;
        let matched = peers.iter().find(|peer| peer.id == id).map_or(0, |peer| peer.matched.0);
        let strict = self.shared.options.strict_reconfig;
        reconfig::may_promote(&self.published().cluster, id, matched, last.0, strict)?;
        let cluster = self.change_members(MemberChange::Promote(id)).await?;
        Ok(cluster.members().cloned().collect())
    }

    /// Appends a change and waits until it is applied. The raft of a leader takes one at a time; one that came while
    /// another was pending is lost, and its caller hears that the outcome is unknown.
    async fn change_members(&self, change: MemberChange) -> Result<Arc<Cluster>, ServerError> {
        let outcome = timeout(self.shared.tunables().request_timeout, self.submit_change(change)).await;
        match outcome.unwrap_or(Err(Rejection::Timeout.into()))? {
            Response::Members(cluster) => Ok(cluster),
            other => unreachable!("a configuration change is answered by {other:?}"),
        }
    }

    async fn submit_change(&self, change: MemberChange) -> Result<Response, ServerError> {
        let shared = &*self.shared;
        self.await_leader().await?;
        let share = u32::try_from(PROPOSAL_SHARE_BYTES_MIN).unwrap_or(u32::MAX);
        let share = Arc::clone(&shared.shares).acquire_many_owned(share).await.map_err(|_| Rejection::Stopped)?;
        let id = shared.ids.next();
        let answer = shared.waiters.register(id, share);
        let change = change.encode(id);
        match shared.bring_raft(RaftOrder::Input(Box::new(Input::ProposeConfChange { id, change }))) {
            Ok(()) => {}
            Err(Refused::Full(_)) => return Err(Rejection::TooManyRequests.into()),
            Err(Refused::Closed(_)) => return Err(Rejection::Stopped.into()),
        }
        Ok(answer.await.map_err(|_| Rejection::Stopped)??)
    }

    /// How far the members have come.
    pub(super) async fn survey(&self) -> Result<Survey, Rejection> {
        let (asker, answer) = oneshot::channel();
        self.shared.bring_raft(RaftOrder::Survey(asker)).map_err(|_| Rejection::Stopped)?;
        answer.await.map_err(|_| Rejection::Stopped)
    }

    /// How long a peer has been connected; `None` while it is not.
    pub(super) fn connected_for(&self, peer: MemberId) -> Option<Duration> {
        self.transport()?.active_since(peer)
    }

    /// How many other members are connected.
    pub fn peers_connected(&self) -> usize {
        let peers = self.shared.peers().into_keys().filter(|id| *id != self.member_id());
        peers.filter(|id| self.connected_for(*id).is_some()).count()
    }

    /// The members that count as healthy: this one, and those connected for long enough.
    fn connected(&self) -> BTreeSet<MemberId> {
        let own = self.member_id();
        let long =
            |id: &MemberId| *id == own || self.connected_for(*id).is_some_and(|connected| connected >= HEALTH_INTERVAL);
        self.published().cluster.members().map(|member| member.id).filter(long).collect()
    }
}
