//! How a member that lost its cluster goes on alone with what it has (`force-new-cluster`): by configuration changes at
//! the end of its log that it declares committed.
//!
//! etcd gives up what its log does not show to be committed. Here the log learns late what is, and what was acknowledged
//! may stand behind that: everything this member has is kept. Nobody is left who could have agreed on anything else.

use prost::Message as _;

use crate::{
    disk::Directory,
    membership::{ChangeError, Cluster, Member, MemberChange},
    pb::raftpb::{Entry, EntryType, HardState},
    types::{MemberId, RequestId},
    wal::{Wal, WalError},
};

/// What turns the cluster, as it is after `entries`, into one of `own` alone, with a vote. Nothing if it is that.
///
/// # Errors
/// A change in the log that cannot be read.
pub(super) fn changes(
    cluster: &Cluster,
    entries: &[Entry],
    own: MemberId,
    peer_urls: &[String],
) -> Result<Vec<MemberChange>, ChangeError> {
    let mut cluster = cluster.clone();
    for entry in entries.iter().filter(|entry| entry.r#type() == EntryType::EntryConfChange) {
        let (_, change) = MemberChange::decode(entry.data.clone())?;
        if cluster.check(&change, usize::MAX).is_ok() {
            cluster.apply(&change);
        }
    }
    // This member first: raft must never be left without a voter.
    let mut changes = match cluster.member(own) {
        None => vec![MemberChange::add(Member { id: own, peer_urls: peer_urls.to_vec(), ..Member::default() })],
        Some(member) if member.is_learner => vec![MemberChange::Promote(own)],
        Some(_) => Vec::new(),
    };
    let others = cluster.members().map(|member| member.id).filter(|id| *id != own);
    changes.extend(others.map(MemberChange::Remove));
    Ok(changes)
}

/// Writes them at the end of the log, up to which `hard_state` says that everything is committed.
///
/// # Errors
/// [`WalError`].
pub(super) fn write<D: Directory>(
    wal: &mut Wal<D>,
    changes: &[MemberChange],
    hard_state: HardState,
) -> Result<(), WalError> {
    let entry = |(index, change): (u64, &MemberChange)| {
        let data = change.encode(RequestId(0)).encode_to_vec().into();
        Entry { r#type: EntryType::EntryConfChange.into(), term: hard_state.term, index, data }
    };
    let entries: Vec<Entry> = (hard_state.commit + 1..).zip(changes).map(entry).collect();
    let commit = entries.last().map_or(hard_state.commit, |last| last.index);
    wal.append(&entries, Some(&HardState { commit, ..hard_state }))?;
    wal.sync()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, is_learner: bool) -> Member {
        let peer_urls = vec![format!("http://h{id}:1")];
        Member { id: MemberId(id), peer_urls, is_learner, ..Member::default() }
    }

    fn cluster(members: &[Member]) -> Cluster {
        let mut cluster = Cluster::default();
        for member in members {
            cluster.apply(&MemberChange::add(member.clone()));
        }
        cluster
    }

    #[test]
    fn voter_removes_the_others_and_learner_takes_a_vote_first() {
        let three = cluster(&[member(1, false), member(2, false), member(3, true)]);
        let left = |own| changes(&three, &[], MemberId(own), &[]).unwrap();
        assert_eq!(left(1), [2, 3].map(|id| MemberChange::Remove(MemberId(id))));
        assert_eq!(left(3)[0], MemberChange::Promote(MemberId(3)));
        assert_eq!(changes(&cluster(&[member(1, false)]), &[], MemberId(1), &[]).unwrap(), []);
    }

    #[test]
    fn changes_in_the_log_that_are_not_applied_yet_count() {
        let data = MemberChange::add(member(2, false)).encode(RequestId(7)).encode_to_vec().into();
        let added = Entry { r#type: EntryType::EntryConfChange.into(), index: 9, data, ..Entry::default() };
        let found = changes(&cluster(&[member(1, false)]), &[added], MemberId(1), &[]).unwrap();
        assert_eq!(found, [MemberChange::Remove(MemberId(2))]);
    }
}
