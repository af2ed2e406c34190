//! In a cluster with members of etcd: whether this member's key space is theirs.
//!
//! A member of etcd knows no digest, and one that leads raises an alarm for the whole cluster as soon as its own checks find
//! a member of ours to be wrong. So every member of ours compares itself with all others by `HashKV`, whoever leads, at
//! least once a minute, and stops when it is the one that is wrong.
//!
//! Before a peer is asked it answers a linearizable read, and this member makes one after the answers: each has then applied
//! all that the other had. So a revision that one has and the other has not is proof of a difference, too.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::Error;
use futures_util::future::join_all;
use tokio::{select, time::sleep};

use crate::{
    clock::Clock as _,
    mvcc::HashKv,
    transport::ask::{self, AskError, Target},
    types::{MemberId, Rejection},
};

use super::{
    Handle, ServerError,
    joining::with_cause,
    verdict::{Verdict, judge},
};

/// Longest time between two comparisons: members of etcd look as often, unless they are told otherwise.
const INTERVAL_MAX: Duration = Duration::from_mins(1);
/// Time until another attempt when nobody could be compared with: all compact at the moment, or there is no quorum.
const RETRY: Duration = Duration::from_secs(5);
/// How often to look whether a comparison is due, and the pause before a difference is looked at once more.
const LOOK: Duration = Duration::from_secs(1);
/// Time a peer has for each of its answers: a member of etcd reads all its rows for one.
const PATIENCE: Duration = Duration::from_secs(30);

/// In what the key spaces of two members differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// At one revision they have different hashes.
    Hash {
        /// The revision.
        revision: i64,
        /// This member's hash.
        own: u32,
        /// The other's.
        theirs: u32,
    },
    /// The other has not reached this member's revision with the same entries.
    Beyond {
        /// This member's revision.
        own: i64,
    },
    /// The other was at a higher revision with the same entries.
    Behind {
        /// This member's revision.
        own: i64,
        /// The other's.
        theirs: i64,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash { revision, own, theirs } => {
                write!(f, "at revision {revision} its hash is {own:08x} instead of {theirs:08x}")
            }
            Self::Beyond { own } => {
                write!(f, "it is at revision {own}, which the same entries have not brought the other to")
            }
            Self::Behind { own, theirs } => {
                write!(f, "it is at revision {own}, and the same entries have brought the other to {theirs}")
            }
        }
    }
}

/// What a peer said when it was asked for its hash at this member's revision.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Hash(ask::HashKv),
    NotReached,
}

/// Whether a peer agrees; nothing if its answer and ours are relative to different compactions. `reached` is the revision
/// of this member after the answer.
fn compare(own: &HashKv, reached: i64, answer: Answer) -> Option<Result<(), Difference>> {
    let theirs = match answer {
        Answer::NotReached => return Some(Err(Difference::Beyond { own: own.revision })),
        Answer::Hash(theirs) => theirs,
    };
    if theirs.current_revision > reached {
        return Some(Err(Difference::Behind { own: reached, theirs: theirs.current_revision }));
    }
    if theirs.compact_revision != own.compact_revision {
        return None;
    }
    let difference = Difference::Hash { revision: own.revision, own: own.hash, theirs: theirs.hash };
    Some(if theirs.hash == own.hash { Ok(()) } else { Err(difference) })
}

/// Compares this member with all others for as long as it runs, whenever a member of etcd takes part.
///
/// # Errors
/// Never.
pub async fn compare_hashes(handle: Handle) -> Result<(), Error> {
    let mut due = Duration::ZERO;
    loop {
        select! {
            () = sleep(LOOK) => {}
            () = handle.stopped() => return Ok(()),
        }
        if handle.shared.is_mixed() && handle.shared.clock.monotonic() >= due {
            let verdict = handle.compare_keys().await.unwrap_or_else(|why| {
                tracing::info!(%why, "failed to compare the key space with those of the other members");
                None
            });
            let interval = handle.shared.tunables().corrupt_check.unwrap_or(INTERVAL_MAX).min(INTERVAL_MAX);
            due = handle.shared.clock.monotonic() + if verdict.is_some() { interval } else { RETRY };
        }
    }
}

impl Handle {
    /// Stops this member if it is wrong and still is when it looks again. Nothing if nobody could be compared with.
    pub(super) async fn compare_keys(&self) -> Result<Option<Verdict>, ServerError> {
        let mut said = self.key_spaces().await?;
        if said.values().any(Result::is_err) {
            sleep(LOOK).await;
            said = self.key_spaces().await?;
        }
        if said.is_empty() {
            return Ok(None);
        }
        let differences: BTreeMap<MemberId, Difference> =
            said.iter().filter_map(|(peer, said)| Some((*peer, said.clone().err()?))).collect();
        said.insert(self.member_id(), Ok(()));
        let verdict = judge(&said, self.published().cluster.members().count());
        if verdict != Verdict::Agreed {
            for (peer, difference) in &differences {
                tracing::error!(own_member = %self.member_id(), %peer, %difference, "the key spaces of two members differ");
            }
            self.stop_if_keys_are_wrong(&verdict, &differences);
        }
        Ok(Some(verdict))
    }

    /// What those say that this member can be compared with.
    async fn key_spaces(&self) -> Result<BTreeMap<MemberId, Result<(), Difference>>, ServerError> {
        // Asked as peers are: of a compaction that is remembered both tell the hash taken then.
        let own = self.hash_kv(self.published().view.revision()).await?;
        let mut peers = self.shared.peers();
        peers.remove(&self.member_id());
        let answers = join_all(peers.values().map(|urls| self.key_space_of(urls, own.revision))).await;
        self.read_index().await?;
        let reached = self.published().view.revision();
        let answers = peers.into_keys().zip(answers);
        Ok(answers.filter_map(|(peer, answer)| Some((peer, compare(&own, reached, answer?)?))).collect())
    }

    async fn key_space_of(&self, urls: &[String], revision: i64) -> Option<Answer> {
        for url in urls {
            match self.ask_key_space(self.target(url, PATIENCE), revision).await {
                Ok(hash) => return Some(Answer::Hash(hash)),
                Err(AskError::Rejected(Rejection::FutureRevision)) => return Some(Answer::NotReached),
                Err(why) => tracing::info!(url, why = with_cause(&why), "a member does not tell its hash"),
            }
        }
        None
    }

    async fn ask_key_space(&self, target: Target<'_>, revision: i64) -> Result<ask::HashKv, AskError> {
        // Of the answers a member gives on its peer URL, this one comes after a linearizable read.
        ask::downgrade_enabled(target).await?;
        ask::hash_kv(target, self.cluster_id(), revision).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_is_proof_and_everything_else_decides_nothing() {
        let own = HashKv { hash: 7, revision: 10, compact_revision: 4, current_revision: 10 };
        let theirs = |current_revision, compact_revision, hash| {
            Answer::Hash(ask::HashKv { current_revision, hash, compact_revision, hash_revision: 0 })
        };
        for (answer, expected) in [
            (theirs(10, 4, 7), Some(Ok(()))),
            (theirs(12, 4, 7), Some(Ok(()))),
            (theirs(12, 6, 9), None),
            (theirs(10, 4, 9), Some(Err(Difference::Hash { revision: 10, own: 7, theirs: 9 }))),
            (theirs(13, 6, 9), Some(Err(Difference::Behind { own: 12, theirs: 13 }))),
            (Answer::NotReached, Some(Err(Difference::Beyond { own: 10 }))),
        ] {
            assert_eq!(compare(&own, 12, answer), expected, "{answer:?}");
        }
    }
}
