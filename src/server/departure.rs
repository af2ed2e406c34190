//! A member that was removed, or that its peers do not know: it must stop and say why, instead of waiting for ever.

use std::{collections::BTreeSet, mem, sync::PoisonError, time::Duration};

use anyhow::Error;
use futures_util::future::join_all;
use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::{
    transport::ask::{self, Members},
    types::{ClusterId, MemberId},
};

use super::{Handle, ServerFailure};

/// How long a removed member goes on, so that the others and its own clients hear of it (etcd's).
const FAREWELL: Duration = Duration::from_secs(1);
/// Time a peer has to tell who belongs to the cluster.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two investigations.
const INVESTIGATE_AGAIN: Duration = Duration::from_secs(1);

/// How often a removal that nobody confirms is told again.
const TOLD_AGAIN_AFTER: Duration = Duration::from_mins(10);
/// So often in a row it must stay unconfirmed before it is told: the others may only lag.
const UNCONFIRMED_MIN: u32 = 2;

/// What to do with a member that was removed.
pub const REMOVED_REMEDY: &str = "its data directory is of no more use; delete it, run `member add` and start with \
     --initial-cluster-state=existing to take part again";

/// Why a member finds no place in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Trouble {
    /// Everybody who answers belongs to another cluster.
    #[error(
        "cluster ID mismatch: {url} belongs to cluster {theirs}, but this member's data to cluster {own}: the members were started with different --initial-cluster or --initial-cluster-token, or this data directory is that of an earlier cluster; correct the options and start with an empty --data-dir"
    )]
    OtherCluster {
        /// Who says so.
        url: String,
        /// Its cluster.
        theirs: ClusterId,
        /// This member's.
        own: ClusterId,
    },
    /// Everybody who answers knows a cluster without this member.
    #[error(
        "the member {member} has been permanently removed from the cluster: {remedy}",
        remedy = REMOVED_REMEDY
    )]
    Removed {
        /// This member.
        member: MemberId,
    },
    /// The cluster knows another member at this one's peer URL.
    #[error(
        "member ID mismatch: the data directory belongs to member {member}, which is not part of the cluster any more, and {url} is that of member {other}: the directory is stale; delete it and start with --initial-cluster-state=existing"
    )]
    Replaced {
        /// This member.
        member: MemberId,
        /// Its peer URL.
        url: String,
        /// Who has it now.
        other: MemberId,
    },
}

/// What the peers say.
#[derive(Debug, Default)]
struct Testimony {
    /// Of this member's cluster, and they list it.
    with_us: usize,
    /// Of this member's cluster, and they do not.
    without_us: usize,
    foreign: Option<(String, ClusterId)>,
    replaced: Option<(String, MemberId)>,
}

impl Handle {
    /// What keeps this member out of its cluster, as far as its peers can tell. One answer of a peer that lags can
    /// mislead: act on [`Trouble::Removed`] only when it is still there a while later.
    pub async fn trouble(&self) -> Option<Trouble> {
        let (own, member) = (self.cluster_id(), self.member_id());
        let Testimony { with_us, without_us, foreign, replaced } = self.testimony().await;
        match (with_us, without_us, foreign, replaced) {
            (0, 0, Some((url, theirs)), _) => Some(Trouble::OtherCluster { url, theirs, own }),
            (0, 1.., _, Some((url, other))) => Some(Trouble::Replaced { member, url, other }),
            (0, 1.., _, None) => Some(Trouble::Removed { member }),
            _ => None,
        }
    }

    async fn testimony(&self) -> Testimony {
        let own = self.member_id();
        let peers = self.shared.peers().into_iter().filter(|(id, _)| *id != own);
        let ask = |(_, urls): (MemberId, Vec<String>)| async move {
            for url in urls {
                if let Ok(answer) = ask::members(self.target(&url, PATIENCE)).await {
                    return Some((url, answer));
                }
            }
            None
        };
        let mut testimony = Testimony::default();
        for (url, answer) in join_all(peers.map(ask)).await.into_iter().flatten() {
            self.hear(&mut testimony, url, &answer);
        }
        testimony
    }

    fn hear(&self, testimony: &mut Testimony, url: String, answer: &Members) {
        if answer.cluster != self.cluster_id() {
            testimony.foreign.get_or_insert((url, answer.cluster));
        } else if answer.members.iter().any(|member| member.id == self.member_id()) {
            testimony.with_us += 1;
        } else {
            testimony.without_us += 1;
            let own_urls = &self.shared.options.peer_urls;
            let taken = answer.members.iter().find_map(|member| {
                let url = member.peer_urls.iter().find(|url| own_urls.contains(url))?;
                Some((url.clone(), member.id))
            });
            testimony.replaced = testimony.replaced.take().or(taken);
        }
    }

    /// Whether what a peer says is true: that this member was removed. Two members who do not know it are proof, for an
    /// identifier never comes back; so is one if nobody else answers.
    async fn is_confirmed(&self) -> bool {
        let Testimony { with_us, without_us, .. } = self.testimony().await;
        without_us >= 2 || (without_us == 1 && with_us == 0)
    }

    fn leave(&self) {
        self.shared.fail(ServerFailure::Removed(self.member_id()));
    }
}

/// When a removal that nobody confirms is worth a line in the log.
#[derive(Debug, Default)]
struct Doubt {
    unconfirmed: u32,
    told_at: Option<Instant>,
    /// Who said so when the log was last told.
    told_by: BTreeSet<MemberId>,
}

impl Doubt {
    /// These members say that this one was removed, and the others do not. Returns whether the log is to be told: at once
    /// if it was not told of all of them, rarely if it was.
    fn note(&mut self, told_by: &BTreeSet<MemberId>, now: Instant) -> bool {
        self.unconfirmed = self.unconfirmed.saturating_add(1);
        let is_due = self.told_at.is_none_or(|at| now.duration_since(at) >= TOLD_AGAIN_AFTER);
        let tells = self.unconfirmed >= UNCONFIRMED_MIN && (is_due || !told_by.is_subset(&self.told_by));
        if tells {
            self.told_at = Some(now);
            self.told_by.extend(told_by);
        }
        tells
    }
}

fn report_unconfirmed(told_by: &BTreeSet<MemberId>) {
    let told_by = told_by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    tracing::warn!(
        told_by,
        "a peer says that this member was removed, and the others do not confirm it: this member goes on. The peer may have \
         been started with --force-new-cluster or from a backup, and then has a cluster of its own. Keep one of the two: \
         stop the members of the other one, delete their data directories, run `member add` for each and start it with \
         --initial-cluster-state=existing"
    );
}

/// Stops a member that was removed: a while after its removal is applied here, or when a peer says so and others
/// confirm it.
///
/// # Errors
/// Never.
pub async fn watch_removal(handle: Handle) -> Result<(), Error> {
    let shared = &handle.shared;
    let mut doubt = Doubt::default();
    loop {
        tokio::select! {
            () = shared.removed.notified() => {
                sleep(FAREWELL).await;
                handle.leave();
            }
            () = shared.removal_told.notified() => {
                let told_by = mem::take(&mut *shared.removal_told_by.lock().unwrap_or_else(PoisonError::into_inner));
                if handle.is_confirmed().await {
                    handle.leave();
                } else if doubt.note(&told_by, Instant::now()) {
                    report_unconfirmed(&told_by);
                }
                sleep(INVESTIGATE_AGAIN).await;
            }
            () = handle.stopped() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often the log is told of what `told_by` says once a second for an hour.
    fn told_in_an_hour(doubt: &mut Doubt, start: Instant, told_by: &[u64]) -> usize {
        let told_by = told_by.iter().copied().map(MemberId).collect();
        (0..3600).filter(|at| doubt.note(&told_by, start + Duration::from_secs(*at))).count()
    }

    /// After `--force-new-cluster` the old members said so once a second, for ever.
    #[test]
    fn a_removal_nobody_confirms_is_told_rarely() {
        assert_eq!(told_in_an_hour(&mut Doubt::default(), Instant::now(), &[1]), 6);
    }

    #[test]
    fn another_witness_is_told_of_at_once_and_a_single_answer_never() {
        let (mut doubt, start) = (Doubt::default(), Instant::now());
        assert!(!doubt.note(&[MemberId(1)].into(), start), "the others may lag");
        assert!(doubt.note(&[MemberId(1)].into(), start));
        assert!(doubt.note(&[MemberId(1), MemberId(2)].into(), start));
        assert!(!doubt.note(&[MemberId(2)].into(), start));
    }
}
