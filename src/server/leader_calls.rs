//! What only the leader can answer: other members ask it through its peer URLs.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::{
    metrics,
    raft::Role,
    transport::ask::{self, AskError, Target},
    types::{LeaseId, Rejection},
};

use super::{
    Handle, ServerError,
    handle::LOOK_AGAIN,
    leadership::Trust,
    lease_office::{RenewStep, Renewal},
};

/// Pause between two questions to a leader that did not answer (etcd's).
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// How long a lease still lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseLife {
    /// Whole seconds left; negative once it is overdue.
    pub remaining: i64,
    /// Granted seconds.
    pub granted: i64,
    /// Its keys, if they were asked for.
    pub keys: Vec<Bytes>,
}

impl Handle {
    /// Whether this member leads.
    pub fn leads(&self) -> bool {
        self.shared.standing().role == Role::Leader
    }

    /// Whether this member still leads. One whose ticks stalled asks the others: while it slept they may have elected
    /// another, who counts on.
    pub(super) async fn still_leads(&self) -> bool {
        let shared = &*self.shared;
        // Asked in this order: a thread that has woken has raised its doubt before.
        let asleep = shared.is_asleep();
        match shared.doubts.weigh(self.leads(), asleep) {
            Trust::Leads => true,
            Trust::Follows => false,
            Trust::Ask(doubts) => {
                let confirmed = self.read_index().await.is_ok();
                if confirmed {
                    shared.doubts.settle(doubts);
                }
                confirmed && self.leads()
            }
        }
    }

    /// Restarts the countdown of `lease`: its full time to live in seconds, or zero if it does not exist any more.
    ///
    /// # Errors
    /// [`Rejection::NoLeader`] if nobody led in time, [`Rejection::TimeoutApply`], [`Rejection::Timeout`].
    pub async fn lease_renew(&self, lease: LeaseId) -> Result<i64, ServerError> {
        let renewed = match self.lease_renew_here(lease).await {
            Err(ServerError::Rejected(Rejection::NotPrimaryLessor)) => {
                let ask =
                    |url: String, patience| async move { ask::lease_renew(self.target(&url, patience), lease).await };
                self.ask_leader(ask).await
            }
            here => here,
        };
        match renewed {
            Err(ServerError::Rejected(Rejection::LeaseNotFound)) => Ok(0),
            renewed => renewed,
        }
    }

    /// [`Handle::lease_renew`] on the leader. A leader that has not applied an entry of its term yet keeps no countdowns,
    /// and is waited for.
    ///
    /// # Errors
    /// [`Rejection::LeaseNotFound`]; [`Rejection::NotPrimaryLessor`] on other members; as [`Handle::lease_renew`].
    pub async fn lease_renew_here(&self, lease: LeaseId) -> Result<i64, ServerError> {
        let renewed = timeout(self.shared.tunables().request_timeout, self.renew_while_leading(lease)).await;
        renewed.unwrap_or_else(|_| Err(Rejection::Timeout.into()))
    }

    async fn renew_while_leading(&self, lease: LeaseId) -> Result<i64, ServerError> {
        let mut renewal = Renewal::new(lease);
        while self.still_leads().await {
            let step = renewal.attempt(&mut self.shared.lessor(), self.shared.now());
            match step {
                RenewStep::Renewed(ttl) => {
                    metrics::LEASE_RENEWED.inc();
                    return Ok(ttl);
                }
                RenewStep::Record(ttl, request) => {
                    metrics::LEASE_RENEWED.inc();
                    return self.propose(*request).await.map(|_| ttl);
                }
                RenewStep::CatchUp => self.catch_up().await?,
                RenewStep::LookAgain => sleep(LOOK_AGAIN).await,
                RenewStep::Refused(why) => return Err(why.into()),
            }
        }
        Err(Rejection::NotPrimaryLessor.into())
    }

    /// How long `lease` still lives; `None` if it does not exist.
    ///
    /// # Errors
    /// As [`Handle::lease_renew`].
    pub async fn lease_time_to_live(&self, lease: LeaseId, keys: bool) -> Result<Option<LeaseLife>, ServerError> {
        let here = self.lease_time_to_live_here(lease, keys).await;
        if !matches!(here, Err(ServerError::Rejected(Rejection::NotPrimaryLessor))) {
            return here;
        }
        let ask = |url: String, patience| async move {
            ask::lease_time_to_live(self.target(&url, patience), lease, keys).await
        };
        match self.ask_leader(ask).await {
            Ok(life) => Ok(Some(LeaseLife { remaining: life.ttl, granted: life.granted_ttl, keys: life.keys })),
            Err(ServerError::Rejected(Rejection::LeaseNotFound)) => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// [`Handle::lease_time_to_live`] on the leader.
    ///
    /// # Errors
    /// [`Rejection::NotPrimaryLessor`] on other members; as [`Handle::lease_renew`].
    pub async fn lease_time_to_live_here(&self, lease: LeaseId, keys: bool) -> Result<Option<LeaseLife>, ServerError> {
        if !self.leads() {
            return Err(Rejection::NotPrimaryLessor.into());
        }
        self.catch_up().await?;
        let look = timeout(self.shared.tunables().request_timeout, self.look_while_leading(lease)).await;
        let Some((remaining, granted)) = look.unwrap_or(Err(Rejection::Timeout.into()))? else { return Ok(None) };
        let view = self.published().view.clone();
        let keys = if keys { self.blocking(move || Ok(view.lease_keys(lease)?)).await? } else { Vec::new() };
        Ok(Some(LeaseLife { remaining, granted, keys }))
    }

    async fn look_while_leading(&self, lease: LeaseId) -> Result<Option<(i64, i64)>, ServerError> {
        while self.leads() {
            let remaining = self.shared.lessor().remaining(lease, self.shared.now());
            match remaining.map(|remaining| (remaining.seconds, remaining.granted)) {
                None => return Ok(None),
                Some((Some(seconds), granted)) => return Ok(Some((seconds, granted))),
                Some((None, _)) => sleep(LOOK_AGAIN).await,
            }
        }
        Err(Rejection::NotPrimaryLessor.into())
    }

    /// Puts a question to whoever leads, until there is an answer in clients' words or the time for a request is over.
    /// The question is given a peer URL and the time there is.
    pub(super) async fn ask_leader<T, F>(&self, question: impl Fn(String, Duration) -> F) -> Result<T, ServerError>
    where
        F: Future<Output = Result<T, AskError>>,
    {
        let patience = self.shared.tunables().request_timeout;
        let asked = timeout(patience, async {
            loop {
                for url in self.leader_urls().await? {
                    match question(url, patience).await {
                        Ok(answer) => return Ok(answer),
                        Err(AskError::Rejected(why)) => return Err(why.into()),
                        Err(why) => tracing::debug!(%why, "the leader did not answer a forwarded request"),
                    }
                }
                sleep(ASK_AGAIN).await;
            }
        });
        let unanswered = || if self.has_leader() { Rejection::Timeout } else { Rejection::NoLeader };
        asked.await.unwrap_or_else(|_| Err(unanswered().into()))
    }

    /// A peer URL to ask.
    pub(super) fn target<'a>(&'a self, url: &'a str, patience: Duration) -> Target<'a> {
        Target { url, dialler: &self.shared.options.dialler, patience }
    }

    async fn leader_urls(&self) -> Result<Vec<String>, Rejection> {
        self.await_leader().await?;
        let leader = self.shared.standing().leader.unwrap_or_default();
        Ok(self.shared.peers().remove(&leader).unwrap_or_default())
    }
}
