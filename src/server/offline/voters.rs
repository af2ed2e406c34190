//! Who votes in a member of etcd's, as etcd itself finds out when it starts: by the snapshot file that its log goes on from, and the
//! changes in the log behind that.
//!
//! The database says so, too. But one that etcd's tool has restored from a snapshot names those of the cluster it came from,
//! until the first change, and in etcd 3.5 it may be behind.
//!
//! How many learners a cluster may have stands in neither, and a learner beyond was refused by all members. Whether one was, the
//! database tells: whoever has become a member is among its members or among those that were removed.

use std::{collections::BTreeSet, io};

use super::{OfflineError, entries};
use crate::{
    apply::exchange::ExchangeError,
    disk::{FileDirectory, OpenFile},
    etcdfile::{
        bbolt::Reader,
        database::Bucket,
        snap::{self, SnapError},
        v2json,
    },
    membership::{Attributes, Cluster, Member, MemberChange},
    pb::{
        raftpb::{ConfState, EntryType},
        walpb,
    },
    types::{LogIndex, MemberId},
    wal,
};

/// Rows of the database's members that are read.
const MEMBERS_MAX: usize = 4_096;

/// Who is known to have become a member.
#[derive(Debug, Default)]
pub(super) struct Known {
    members: BTreeSet<u64>,
    removed: BTreeSet<u64>,
}

impl Known {
    /// What a database says.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn read(database: OpenFile) -> Result<Self, OfflineError> {
        let reader = Reader::open(database).map_err(ExchangeError::from)?;
        let ids = |bucket: Bucket| -> Result<_, ExchangeError> {
            let mut ids = BTreeSet::new();
            for row in reader.bucket(bucket.name().as_bytes())?.take(MEMBERS_MAX) {
                let key = row?.key;
                ids.extend(std::str::from_utf8(&key).ok().and_then(|key| u64::from_str_radix(key, 16).ok()));
            }
            Ok(ids)
        };
        Ok(Self { members: ids(Bucket::Members)?, removed: ids(Bucket::MembersRemoved)? })
    }
}

/// Who votes behind the entry `at`; nothing if the snapshot file for `base`, from which the log goes on, cannot be read.
///
/// # Errors
/// [`OfflineError::NoVoter`], a change that does not decode, and failure to read.
pub(super) fn voters(
    snaps: &FileDirectory,
    log: &wal::Reader<FileDirectory>,
    base: &walpb::Snapshot,
    at: LogIndex,
    known: &Known,
) -> Result<Option<ConfState>, OfflineError> {
    let Some(cluster) = begun_with(snaps, base)? else { return Ok(None) };
    let changes = changes(log, LogIndex(base.index), at)?.into_iter().map(|(_, change)| change);
    follow(cluster, &changes.collect::<Vec<_>>(), known).map(Some)
}

/// The changes of members behind `after`, up to and including `last`.
///
/// # Errors
/// A change that does not decode, and failure to read.
pub(super) fn changes(
    log: &wal::Reader<FileDirectory>,
    after: LogIndex,
    last: LogIndex,
) -> Result<Vec<(LogIndex, MemberChange)>, OfflineError> {
    let mut changes = Vec::new();
    entries(log, after, last, |entries| {
        for entry in entries.iter().filter(|entry| entry.r#type == i32::from(EntryType::EntryConfChange)) {
            let index = LogIndex(entry.index);
            let failed = |cause| OfflineError::Entry { index, cause };
            let (_, change) = MemberChange::decode(entry.data.clone()).map_err(|cause| failed(cause.into()))?;
            changes.push((index, change));
        }
        Ok(())
    })?;
    Ok(changes)
}

/// Raft's configuration behind the changes.
fn follow(mut cluster: Cluster, changes: &[MemberChange], known: &Known) -> Result<ConfState, OfflineError> {
    // etcd proposes none for who is no learner; a database of 3.5 may lack who was promoted.
    let promoted = |id| changes.contains(&MemberChange::Promote(id));
    let has_come = |id: MemberId| known.members.contains(&id.0) || known.removed.contains(&id.0) || promoted(id);
    for change in changes {
        let was_refused = change.adds_learner() && !has_come(change.id());
        if !was_refused && cluster.check(change, usize::MAX).is_ok() {
            cluster.apply(change);
        }
    }
    let configuration = cluster.configuration().clone();
    let has_place = |id: &u64| configuration.voters.contains(id) || configuration.learners.contains(id);
    // One that was removed may have stayed in a database of 3.5.
    match known.members.iter().find(|id| !has_place(id) && !cluster.is_removed(MemberId(**id))) {
        Some(id) => Err(OfflineError::NoVoter(MemberId(*id))),
        None => Ok(configuration),
    }
}

/// The cluster where the log begins: nobody is in it before the first entry.
fn begun_with(snaps: &FileDirectory, base: &walpb::Snapshot) -> Result<Option<Cluster>, OfflineError> {
    if base.index == 0 {
        return Ok(Some(Cluster::default()));
    }
    let snapshot = match snap::read(snaps, &snap::name(base.term, base.index)) {
        Err(SnapError::Damaged { .. }) => return Ok(None),
        Err(SnapError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let (Ok(tree), Some(configuration)) =
        (v2json::read(&snapshot.data), snapshot.metadata.and_then(|metadata| metadata.conf_state))
    else {
        return Ok(None);
    };
    Ok(Some(Cluster::of(tree.members.into_iter().map(member), tree.removed, configuration)))
}

fn member(member: v2json::TreeMember) -> Member {
    let v2json::TreeMember { id, peer_urls, is_learner, attributes } = member;
    let (name, client_urls) = attributes.unwrap_or_default();
    Member { id, peer_urls, is_learner, attributes: Attributes { name, client_urls } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(id: u64, is_learner: bool) -> MemberChange {
        let attributes = Attributes { name: String::new(), client_urls: Vec::new() };
        let peer_urls = vec![format!("http://h{id}:1")];
        MemberChange::add(Member { id: MemberId(id), peer_urls, is_learner, attributes })
    }

    fn led(changes: &[MemberChange], members: &[u64], removed: &[u64]) -> Result<(Vec<u64>, Vec<u64>), String> {
        let [members, removed] = [members, removed].map(|ids| ids.iter().copied().collect());
        let found = follow(Cluster::default(), changes, &Known { members, removed });
        found.map(|found| (found.voters, found.learners)).map_err(|error| error.to_string())
    }

    fn promote(id: u64) -> MemberChange {
        MemberChange::Promote(MemberId(id))
    }

    /// Two voters of three that one of them does not know of would agree without it.
    #[test]
    fn nobody_is_left_out_who_was_a_learner_beside_another_one() {
        let changes = [add(1, false), add(2, true), add(3, true), promote(3)];
        assert_eq!(led(&changes, &[1, 2, 3], &[]), Ok((vec![1, 3], vec![2])));
        assert_eq!(led(&changes, &[1, 2], &[]), Ok((vec![1, 3], vec![2])), "a database of 3.5 may lack one");
        let raised = [add(1, false), add(2, true), add(3, true), add(4, true), promote(2), promote(4)];
        assert_eq!(
            led(&raised, &[1, 2, 4], &[]),
            Ok((vec![1, 2, 4], vec![])),
            "3 was refused, then there could be more"
        );
    }

    #[test]
    fn who_was_refused_or_removed_has_no_vote() {
        let changes = [add(1, false), add(2, true), add(3, true), promote(2)];
        assert_eq!(led(&changes, &[1, 2], &[]), Ok((vec![1, 2], vec![])));
        let removed = [add(1, false), add(2, true), MemberChange::Remove(MemberId(2)), add(3, true)];
        assert_eq!(led(&removed, &[1, 3], &[2]), Ok((vec![1], vec![3])));
        assert!(led(&changes, &[1, 2, 9], &[]).unwrap_err().contains('9'), "nobody knows how it came");
    }
}
