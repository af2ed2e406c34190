//! Who votes in a member of etcd's, as etcd itself finds out when it starts: by the snapshot file that its log goes on from, and the
//! changes in the log behind that.
//!
//! The database says so, too. But one that etcd's tool has restored from a snapshot names those of the cluster it came from,
//! until the first change, and in etcd 3.5 it may be behind.
//!
//! How many learners a cluster may have stands in neither; a change that went beyond was refused by all members. It is the number
//! with which the log leads to the members that the database has.

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
    types::LogIndex,
    wal,
};

/// How many learners a cluster may have, the likeliest first: of a number that nobody reached nobody was refused.
const LEARNERS_MAX: [usize; 9] = [usize::MAX, 8, 7, 6, 5, 4, 3, 2, 1];
/// Rows of the database's members that are read.
const MEMBERS_MAX: usize = 4_096;

/// Who votes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Voters {
    /// Raft's configuration.
    pub(super) configuration: ConfState,
    /// How many learners there may be.
    pub(super) learners_max: usize,
}

/// Who votes behind the entry `at`; nothing if the snapshot file for `base`, from which the log goes on, cannot be read.
/// `members` are those of the database.
///
/// # Errors
/// A change that does not decode, and failure to read.
pub(super) fn voters(
    snaps: &FileDirectory,
    log: &wal::Reader<FileDirectory>,
    base: &walpb::Snapshot,
    at: LogIndex,
    members: &BTreeSet<u64>,
) -> Result<Option<Voters>, OfflineError> {
    let Some(begun) = begun_with(snaps, base)? else { return Ok(None) };
    let mut changes = Vec::new();
    entries(log, LogIndex(base.index), at, |entries| {
        for entry in entries.iter().filter(|entry| entry.r#type == i32::from(EntryType::EntryConfChange)) {
            let failed = |cause| OfflineError::Entry { index: LogIndex(entry.index), cause };
            changes.push(MemberChange::decode(entry.data.clone()).map_err(|cause| failed(cause.into()))?.1);
        }
        Ok(())
    })?;
    Ok(Some(likeliest(&begun, &changes, members)))
}

/// Where the changes lead to the members there are; else to some of them, with as few of the changes refused as may be.
fn likeliest(begun: &Cluster, changes: &[MemberChange], members: &BTreeSet<u64>) -> Voters {
    let followed = |learners_max| {
        let mut cluster = begun.clone();
        for change in changes {
            if cluster.check(change, learners_max).is_ok() {
                cluster.apply(change);
            }
        }
        Voters { configuration: cluster.configuration().clone(), learners_max }
    };
    let all = |voters: &Voters| -> BTreeSet<u64> {
        let ConfState { voters, learners, .. } = &voters.configuration;
        voters.iter().chain(learners).copied().collect()
    };
    let candidates = LEARNERS_MAX.map(followed);
    let exact = candidates.iter().find(|voters| all(voters) == *members);
    let fitting = exact.or_else(|| candidates.iter().find(|voters| all(voters).is_subset(members)));
    fitting.or(candidates.first()).cloned().unwrap_or_else(|| followed(usize::MAX))
}

/// The members of a database.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn members(database: OpenFile) -> Result<BTreeSet<u64>, OfflineError> {
    let reader = Reader::open(database).map_err(ExchangeError::from)?;
    let mut members = BTreeSet::new();
    for row in reader.bucket(Bucket::Members.name().as_bytes()).map_err(ExchangeError::from)?.take(MEMBERS_MAX) {
        let key = row.map_err(ExchangeError::from)?.key;
        members.extend(std::str::from_utf8(&key).ok().and_then(|key| u64::from_str_radix(key, 16).ok()));
    }
    Ok(members)
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
    use crate::types::MemberId;

    fn add(id: u64, is_learner: bool) -> MemberChange {
        let attributes = Attributes { name: String::new(), client_urls: Vec::new() };
        let peer_urls = vec![format!("http://h{id}:1")];
        MemberChange::add(Member { id: MemberId(id), peer_urls, is_learner, attributes })
    }

    fn led(changes: &[MemberChange], members: &[u64]) -> (Vec<u64>, Vec<u64>) {
        let found = likeliest(&Cluster::default(), changes, &members.iter().copied().collect());
        (found.configuration.voters, found.configuration.learners)
    }

    /// Two voters of three that one of them does not know of would agree without it.
    #[test]
    fn nobody_is_left_out_who_was_a_learner_beside_another_one() {
        let changes = [add(1, false), add(2, true), add(3, true), MemberChange::Promote(MemberId(3))];
        assert_eq!(led(&changes, &[1, 2, 3]), (vec![1, 3], vec![2]));
        assert_eq!(led(&changes, &[1, 2, 3, 9]), (vec![1, 3], vec![2]), "a database may be behind");
    }

    #[test]
    fn who_was_refused_is_no_member() {
        let changes = [add(1, false), add(2, true), add(3, true), MemberChange::Promote(MemberId(2))];
        assert_eq!(led(&changes, &[1, 2]), (vec![1, 2], vec![]));
        assert_eq!(led(&changes, &[7]), (vec![1, 2], vec![3]), "it is for others to say that it does not fit");
    }
}
