//! Leadership that moves because somebody wants it to.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::{
    raft::Input,
    types::{MemberId, Rejection},
};

use super::{Handle, ServerError, handle::LOOK_AGAIN, raft_thread::RaftOrder};

impl Handle {
    /// Hands leadership to `to` and waits until it leads.
    ///
    /// # Errors
    /// [`Rejection::NotLeader`] unless this member leads, [`Rejection::BadLeaderTransferee`] unless `to` votes,
    /// [`Rejection::TimeoutLeaderTransfer`].
    pub async fn move_leader(&self, to: MemberId) -> Result<(), ServerError> {
        if self.shared.standing().leader != Some(self.member_id()) {
            return Err(Rejection::NotLeader.into());
        }
        if self.published().cluster.member(to).is_none_or(|member| member.is_learner) {
            return Err(Rejection::BadLeaderTransferee.into());
        }
        tracing::info!(from = %self.member_id(), %to, "leadership transfer starting");
        self.transfer(to, self.shared.tunables().request_timeout).await?;
        tracing::info!(from = %self.member_id(), %to, "leadership transfer finished");
        Ok(())
    }

    /// Hands leadership to the member that is best prepared, because this one is about to stop. Takes an election
    /// timeout at most: after that the others elect a leader by themselves.
    pub async fn hand_over(&self) {
        if !self.leads() {
            return;
        }
        if self.published().cluster.configuration().voters.len() == 1 {
            tracing::info!("skipped leadership transfer for single voting member cluster");
            return;
        }
        let Ok(Some(to)) = self.survey().await.map(|survey| survey.successor) else {
            tracing::warn!("skipped leadership transfer: no other voting member is active");
            return;
        };
        match self.transfer(to, self.shared.tunables().election).await {
            Ok(()) => tracing::info!(from = %self.member_id(), %to, "leadership transferred before the stop"),
            Err(why) => tracing::warn!(%to, %why, "failed to transfer leadership before the stop"),
        }
    }

    async fn transfer(&self, to: MemberId, patience: Duration) -> Result<(), Rejection> {
        self.shared.order_raft(RaftOrder::Input(Box::new(Input::TransferLeader(to))));
        let transferred = async {
            while self.shared.standing().leader != Some(to) {
                sleep(LOOK_AGAIN).await;
            }
        };
        tokio::select! {
            transferred = timeout(patience, transferred) => transferred.map_err(|_| Rejection::TimeoutLeaderTransfer),
            () = self.stopped() => Err(Rejection::Stopped),
        }
    }
}
