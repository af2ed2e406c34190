//! etcd's checks of `HashKV`: before a member serves, on the leader every so often, and at compactions.
//!
//! Rules, intervals and texts are etcd's. One thing is not: in a cluster with members of etcd no alarm is raised on our
//! word. There the check at compactions stops this member if it is the one that is wrong, and [`super::mixed`] takes the
//! place of the periodic check.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Error;
use futures_util::future::join_all;
use thiserror::Error;
use tokio::select;

use crate::{
    mvcc::{HashKv, ReadError},
    tls::Dialler,
    transport::ask::{self, AskError, Target},
    types::{ClusterId, MemberId, Rejection},
};

use super::{
    Difference, Handle, Opened, ServerError, ServerFailure,
    duties::Every,
    joining::with_cause,
    verdict::{Verdict, judge},
};

/// Status of a member that belongs to another cluster than the question.
const OTHER_CLUSTER: u16 = 412;

/// Why a member does not begin to serve. The first words are etcd's.
#[derive(Debug, Error)]
pub enum InitialCheckError {
    /// A peer has another key space.
    #[error(
        "{member} found data inconsistency with peers: at revision {revision} its hash is {own:08x}, and that of member {peer} {theirs:08x}; remove the member from the cluster, delete its data directory and add it again, or, if it is the other one that is wrong, start this one without the feature gate InitialCorruptCheck"
    )]
    Inconsistent {
        /// This member.
        member: MemberId,
        /// What was compared.
        revision: i64,
        /// This member's hash.
        own: u32,
        /// The first that contradicts.
        peer: MemberId,
        /// Its hash.
        theirs: u32,
    },
    /// This member's own store.
    #[error("{0} failed to fetch hash: check the disk of the data directory, then start the member again")]
    Unreadable(MemberId, #[source] ReadError),
}

/// The other members, and how to ask them.
#[derive(Debug)]
struct Peers {
    own: MemberId,
    cluster: ClusterId,
    patience: Duration,
    dialler: Dialler,
    urls: BTreeMap<MemberId, Vec<String>>,
}

/// What one of them said.
#[derive(Debug)]
struct PeerHash {
    id: MemberId,
    urls: Vec<String>,
    hash: Option<ask::HashKv>,
    /// Why the last of its URLs did not tell it.
    failure: Option<AskError>,
}

impl Peers {
    /// The hashes at `revision`. Everybody is asked at once.
    async fn hashes(&self, revision: i64) -> Vec<PeerHash> {
        let peers = self.urls.iter().filter(|(id, urls)| **id != self.own && !urls.is_empty());
        join_all(peers.map(|(id, urls)| self.hash(*id, urls, revision))).await
    }

    async fn hash(&self, id: MemberId, urls: &[String], revision: i64) -> PeerHash {
        let mut said = PeerHash { id, urls: urls.to_vec(), hash: None, failure: None };
        for url in urls {
            let target = Target { url, dialler: &self.dialler, patience: self.patience };
            match ask::hash_kv(target, self.cluster, revision).await {
                Ok(hash) => return PeerHash { hash: Some(hash), ..said },
                Err(why) => {
                    tracing::warn!(
                        local_member_id = %self.own,
                        requested_revision = revision,
                        remote_peer_endpoint = url,
                        error = with_cause(&why),
                        "failed hash kv request"
                    );
                    said.failure = Some(why);
                }
            }
        }
        said
    }
}

/// Compares a member that was there before with its peers, before it serves anybody. Peers that do not answer, lag, or
/// have compacted otherwise decide nothing.
///
/// # Errors
/// [`InitialCheckError`].
pub async fn check_initially(opened: &Opened, patience: Duration, dialler: Dialler) -> Result<(), InitialCheckError> {
    let own = opened.identity.member;
    tracing::info!(local_member_id = %own, timeout = ?patience, "starting initial corruption check");
    let state = opened.applier.published();
    let hash = state.view.hash_kv(0).map_err(|cause| InitialCheckError::Unreadable(own, cause))?;
    let urls = state.cluster.members().map(|member| (member.id, member.peer_urls.clone())).collect();
    let peers = Peers { own, cluster: opened.identity.cluster, patience, dialler, urls };
    let mut inconsistent = None;
    for peer in peers.hashes(hash.revision).await {
        if let Some(theirs) = contradiction(own, &hash, &peer) {
            inconsistent.get_or_insert((peer.id, theirs));
        }
    }
    if let Some((peer, theirs)) = inconsistent {
        let (revision, own_hash) = (hash.revision, hash.hash);
        return Err(InitialCheckError::Inconsistent { member: own, revision, own: own_hash, peer, theirs });
    }
    tracing::info!(local_member_id = %own, "initial corruption checking passed; no corruption");
    Ok(())
}

/// The hash of `peer` if it contradicts; whatever else is remarkable about it goes to the log.
fn contradiction(own: MemberId, hash: &HashKv, peer: &PeerHash) -> Option<u32> {
    let Some(theirs) = &peer.hash else {
        if let Some(text) = peer.failure.as_ref().and_then(reason) {
            tell(text, own, hash, peer);
        }
        return None;
    };
    if theirs.hash == hash.hash {
        return None;
    }
    if theirs.compact_revision != hash.compact_revision {
        tell("found different compact revision values from remote peer", own, hash, peer);
        return None;
    }
    tell("found different hash values from remote peer", own, hash, peer);
    Some(theirs.hash)
}

fn reason(failure: &AskError) -> Option<&'static str> {
    match failure {
        AskError::Rejected(Rejection::FutureRevision) => Some("cannot fetch hash from slow remote peer"),
        AskError::Rejected(Rejection::Compacted) => Some("cannot fetch hash from remote peer; local member is behind"),
        AskError::Refused { status: OTHER_CLUSTER, .. } => Some("cluster ID mismatch"),
        _ => None,
    }
}

fn tell(text: &str, own: MemberId, hash: &HashKv, peer: &PeerHash) {
    let theirs = peer.hash.as_ref();
    tracing::warn!(
        local_member_id = %own,
        local_member_revision = hash.revision,
        local_member_compact_revision = hash.compact_revision,
        local_member_hash = hash.hash,
        remote_peer_id = %peer.id,
        remote_peer_endpoints = peer.urls.join(","),
        remote_peer_revision = theirs.map(|theirs| theirs.current_revision),
        remote_peer_compact_revision = theirs.map(|theirs| theirs.compact_revision),
        remote_peer_hash = theirs.map(|theirs| theirs.hash),
        "{text}"
    );
}

/// Compares the key spaces of all members every `corrupt-check-time`, on the leader.
///
/// # Errors
/// Never; a check that fails is told, and made again.
pub async fn check_hashes(handle: Handle) -> Result<(), Error> {
    let mut tuned = handle.shared.tuned.subscribe();
    let mut check = Every::default();
    loop {
        let period = handle.shared.tunables().corrupt_check;
        if check.set(period) {
            let member = handle.member_id();
            if let Some(period) = period {
                tracing::info!(local_member_id = %member, interval = ?period, "enabled corruption checking");
            } else {
                tracing::info!(local_member_id = %member, "disabled corruption checking");
            }
        }
        select! {
            () = check.due() => {}
            _ = tuned.changed() => continue,
            () = handle.stopped() => return Ok(()),
        }
        if handle.leads() && !handle.shared.is_mixed() {
            handle.check_now().await.unwrap_or_else(|why| tracing::warn!(%why, "failed to check hash KV"));
        }
    }
}

/// Compares the hashes of compactions every `compact-hash-check-time`, on the leader.
///
/// # Errors
/// Never.
pub async fn check_compactions(handle: Handle) -> Result<(), Error> {
    let mut tuned = handle.shared.tuned.subscribe();
    let (mut check, mut checked) = (Every::default(), 0);
    loop {
        check.set(handle.shared.tunables().compact_hash_check);
        select! {
            () = check.due() => {}
            _ = tuned.changed() => continue,
            () = handle.stopped() => return Ok(()),
        }
        if handle.leads() {
            checked = handle.check_compactions_above(checked).await;
        }
    }
}

impl Handle {
    fn peers_to_ask(&self) -> Peers {
        Peers {
            own: self.member_id(),
            cluster: self.cluster_id(),
            patience: self.shared.tunables().request_timeout,
            dialler: self.shared.options.dialler.clone(),
            urls: self.shared.peers(),
        }
    }

    /// One alarm at most comes of one check, as in etcd.
    async fn check_now(&self) -> Result<(), ServerError> {
        let before = self.hash_kv(0).await?;
        let peers = self.peers_to_ask().hashes(before.revision).await;
        self.read_index().await?;
        let after = self.hash_kv(0).await?;
        let own = (!is_stable(&before, &after)).then(|| self.member_id());
        let wrong = peers.iter().filter(|peer| contradicts(&before, &after, peer)).map(|peer| peer.id);
        let wrong: Vec<MemberId> = own.into_iter().chain(wrong).collect();
        self.raise_corrupt(wrong.get(..1).unwrap_or_default()).await;
        let checked = peers.iter().filter(|peer| peer.hash.is_some()).count();
        tracing::info!(number_of_peers_checked = checked, "finished peer corruption check");
        Ok(())
    }

    /// Compares what is remembered of compactions above `checked`, the newest first, until one could be compared with
    /// everybody. Up to where the next check need not look.
    async fn check_compactions_above(&self, mut checked: i64) -> i64 {
        let (own, peers) = (self.member_id(), self.peers_to_ask());
        tracing::info!(local_member_id = %own, timeout = ?peers.patience, "starting compact hash check");
        let hashes = self.shared.hashes.newest_first();
        let mut looked_at = 0;
        for hash in hashes.iter().take_while(|hash| hash.revision > checked) {
            looked_at += 1;
            let answers = peers.hashes(hash.revision).await;
            if answers.is_empty() {
                continue;
            }
            let said = comparable(own, hash, &answers);
            let verdict = judge(&said, answers.len() + 1);
            if verdict != Verdict::Agreed {
                self.act_on_compaction(hash, &verdict, &said).await;
                break;
            }
            if said.len() == answers.len() + 1 {
                let (revision, compact_revision) = (hash.revision, hash.compact_revision);
                let number_of_peers_checked = answers.len();
                tracing::info!(
                    number_of_peers_checked,
                    revision,
                    compact_revision,
                    "successfully checked hash on whole cluster"
                );
                checked = hash.revision;
                break;
            }
            tracing::warn!(
                number_of_peers_checked = said.len() - 1,
                number_of_peers = answers.len(),
                revision = hash.revision,
                compact_revision = hash.compact_revision,
                "skipped revision in compaction hash check; was not able to check all peers"
            );
        }
        tracing::info!(number_of_hashes_checked = looked_at, "finished compaction hash check");
        checked
    }

    async fn act_on_compaction(&self, hash: &HashKv, verdict: &Verdict, said: &BTreeMap<MemberId, u32>) {
        tell_mismatch(self.member_id(), hash, verdict, said);
        if self.shared.is_mixed() {
            let against = said.iter().filter(|(_, theirs)| **theirs != hash.hash);
            let differences = against.map(|(peer, theirs)| {
                (*peer, Difference::Hash { revision: hash.revision, own: hash.hash, theirs: *theirs })
            });
            return self.stop_if_keys_are_wrong(verdict, &differences.collect());
        }
        match verdict {
            Verdict::Against(members) => self.raise_corrupt(members).await,
            _ => self.raise_corrupt(&[MemberId(0)]).await,
        }
    }

    /// Stops this member if, of it and those it differs from, it is the one that is wrong.
    pub(super) fn stop_if_keys_are_wrong(&self, verdict: &Verdict, differences: &BTreeMap<MemberId, Difference>) {
        if self.is_wrong(verdict, differences.keys().copied())
            && let Some((peer, difference)) = differences.iter().next()
        {
            self.shared.fail(ServerFailure::DivergedKeys { peer: *peer, difference: difference.clone() });
        }
    }
}

/// Whether this member says the same of the same revision twice.
fn is_stable(before: &HashKv, after: &HashKv) -> bool {
    let comparable = (before.revision, before.compact_revision) == (after.revision, after.compact_revision);
    if comparable && before.hash != after.hash {
        tracing::warn!(
            revision_1 = before.revision,
            compact_revision_1 = before.compact_revision,
            hash_1 = before.hash,
            revision_2 = after.revision,
            compact_revision_2 = after.compact_revision,
            hash_2 = after.hash,
            "found hash mismatch"
        );
        return false;
    }
    true
}

/// Whether a follower says what it cannot say if its key space is the leader's: asked between `before` and `after`, which
/// is of a time when the leader had applied everything that the follower had.
fn contradicts(before: &HashKv, after: &HashKv, peer: &PeerHash) -> bool {
    let Some(theirs) = peer.hash else { return false };
    let (follower_peer_id, follower_compact_revision) = (peer.id, theirs.compact_revision);
    let leader_compact_revision = after.compact_revision;
    let ahead = theirs.current_revision > after.current_revision;
    if ahead {
        let (leader_revision, follower_revision) = (after.current_revision, theirs.current_revision);
        tracing::warn!(leader_revision, follower_revision, %follower_peer_id, "revision from follower must be less than or equal to leader's");
    }
    let compacted_ahead = follower_compact_revision > leader_compact_revision;
    if compacted_ahead {
        tracing::warn!(leader_compact_revision, follower_compact_revision, %follower_peer_id, "compact revision from follower must be less than or equal to leader's");
    }
    let differs = follower_compact_revision == before.compact_revision && theirs.hash != before.hash;
    if differs {
        let (leader_hash, follower_hash) = (before.hash, theirs.hash);
        tracing::warn!(leader_compact_revision, leader_hash, follower_compact_revision, follower_hash, %follower_peer_id, "same compact revision then hashes must match");
    }
    ahead || compacted_ahead || differs
}

/// The hashes that are relative to the same compaction as ours, and ours.
fn comparable(own: MemberId, hash: &HashKv, answers: &[PeerHash]) -> BTreeMap<MemberId, u32> {
    let mut said = BTreeMap::from([(own, hash.hash)]);
    for peer in answers {
        let reason = match peer.hash {
            None => "no response".to_owned(),
            Some(theirs) if theirs.compact_revision == hash.compact_revision => {
                said.insert(peer.id, theirs.hash);
                continue;
            }
            Some(theirs) => format!(
                "the peer's CompactRevision {} doesn't match leader's CompactRevision {}",
                theirs.compact_revision, hash.compact_revision
            ),
        };
        tracing::warn!(number_of_peers = answers.len(), leader_id = %own, peer_id = %peer.id, reason, "Skipped peer's hash");
    }
    said
}

fn tell_mismatch(own: MemberId, hash: &HashKv, verdict: &Verdict, said: &BTreeMap<MemberId, u32>) {
    let quorum_exist = matches!(verdict, Verdict::Against(_));
    if !quorum_exist {
        tracing::error!(
            leader_id = %own,
            leader_revision = hash.revision,
            leader_compact_revision = hash.compact_revision,
            leader_hash = hash.hash,
            "Detected compaction hash mismatch but cannot identify the corrupted members, so intentionally set the memberID as 0"
        );
    }
    for (peer, peer_hash) in said {
        if matches!(verdict, Verdict::Against(wrong) if !wrong.contains(peer)) {
            continue;
        }
        tracing::error!(
            leader_id = %own,
            leader_revision = hash.revision,
            leader_compact_revision = hash.compact_revision,
            leader_hash = hash.hash,
            peer_hash,
            peer_ids = %peer,
            quorum_exist,
            "Detected compaction hash mismatch"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(revision: i64, compact_revision: i64, hash: u32) -> HashKv {
        HashKv { hash, revision, compact_revision, current_revision: revision }
    }

    fn peer(current_revision: i64, compact_revision: i64, hash: u32) -> PeerHash {
        let hash = ask::HashKv { current_revision, hash, compact_revision, hash_revision: 0 };
        PeerHash { id: MemberId(2), urls: Vec::new(), hash: Some(hash), failure: None }
    }

    fn silent(failure: Option<AskError>) -> PeerHash {
        PeerHash { id: MemberId(3), urls: Vec::new(), hash: None, failure }
    }

    #[test]
    fn follower_is_wrong_only_in_what_it_cannot_say() {
        let (before, after) = (own(10, 4, 7), own(12, 6, 8));
        for (said, wrong) in [
            (peer(10, 4, 7), false),
            (peer(12, 6, 9), false),
            (peer(10, 3, 9), false),
            (silent(None), false),
            (peer(10, 4, 9), true),
            (peer(13, 6, 8), true),
            (peer(12, 7, 8), true),
        ] {
            assert_eq!(contradicts(&before, &after, &said), wrong, "{said:?}");
        }
    }

    #[test]
    fn own_hash_may_change_only_with_the_store() {
        assert!(is_stable(&own(10, 4, 7), &own(10, 4, 7)) && is_stable(&own(10, 4, 7), &own(11, 4, 8)));
        assert!(is_stable(&own(10, 4, 7), &own(10, 5, 8)));
        assert!(!is_stable(&own(10, 4, 7), &own(10, 4, 8)));
    }

    #[test]
    fn member_begins_to_serve_unless_an_equal_question_has_another_answer() {
        let hash = own(10, 4, 7);
        let contradicts = |said: &PeerHash| contradiction(MemberId(1), &hash, said);
        assert_eq!(contradicts(&peer(10, 4, 9)), Some(9));
        for said in [peer(10, 4, 7), peer(12, 6, 9), silent(Some(Rejection::FutureRevision.into()))] {
            assert_eq!(contradicts(&said), None, "{said:?}");
        }
    }

    #[test]
    fn only_hashes_relative_to_one_compaction_are_compared() {
        let said = comparable(MemberId(1), &own(10, 4, 7), &[peer(11, 4, 9), silent(None)]);
        assert_eq!(said, BTreeMap::from([(MemberId(1), 7), (MemberId(2), 9)]));
        let said = comparable(MemberId(1), &own(10, 4, 7), &[peer(11, 5, 9)]);
        assert_eq!(said, BTreeMap::from([(MemberId(1), 7)]));
    }
}
