//! Who votes in a member of etcd's, as etcd itself finds out when it starts: by the snapshot file that its log goes on from, and the
//! changes in the log behind that.
//!
//! The database says so, too. But one that etcd's tool has restored from a snapshot names those of the cluster it came from,
//! until the first change.

use std::io;

use super::{OfflineError, entries};
use crate::{
    disk::FileDirectory,
    etcdfile::{
        snap::{self, SnapError},
        v2json,
    },
    membership::{Attributes, Cluster, LEARNERS_MAX_DEFAULT, Member, MemberChange},
    pb::{
        raftpb::{ConfState, Entry, EntryType},
        walpb,
    },
    types::LogIndex,
    wal,
};

/// Raft's configuration behind the entry `at`; nothing if the snapshot file for `base`, from which the log goes on, cannot be
/// read.
///
/// # Errors
/// A change that does not decode, and failure to read.
pub(super) fn voters(
    snaps: &FileDirectory,
    log: &wal::Reader<FileDirectory>,
    base: &walpb::Snapshot,
    at: LogIndex,
) -> Result<Option<ConfState>, OfflineError> {
    let Some(mut cluster) = begun_with(snaps, base)? else { return Ok(None) };
    entries(log, LogIndex(base.index), at, |entries| {
        for entry in entries.iter().filter(|entry| entry.r#type == i32::from(EntryType::EntryConfChange)) {
            follow(&mut cluster, entry)?;
        }
        Ok(())
    })?;
    Ok(Some(cluster.configuration().clone()))
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

/// Carries out a change, unless all members have refused it.
fn follow(cluster: &mut Cluster, entry: &Entry) -> Result<(), OfflineError> {
    let failed = |cause| OfflineError::Entry { index: LogIndex(entry.index), cause };
    let (_, change) = MemberChange::decode(entry.data.clone()).map_err(|cause| failed(cause.into()))?;
    if cluster.check(&change, LEARNERS_MAX_DEFAULT).is_ok() {
        cluster.apply(&change);
    }
    Ok(())
}
