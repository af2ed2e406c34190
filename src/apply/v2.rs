//! Requests of the v2 API: the tree is `v2store`'s, its place in the log and its count of the members' part are here.

use std::sync::Arc;

use super::{
    Published, Response,
    execute::{Outcome, Refused},
    state::State,
};
use crate::{
    membership::Cluster,
    storage::{Batch, Read, StorageError},
    v2store::{self, Change, Tree},
};

/// Changes that etcd has made to a member's part of its tree when it was added, has published itself, and was removed.
const CHANGES_OF_REMOVED: u64 = 3;

impl State {
    /// Carries out a request of the v2 API. Alarms and the quota were asked about it by the member that took it from its
    /// client; here they would part members of different versions.
    pub(super) fn v2<R: Read>(&mut self, batch: &mut Batch<R>, request: &v2store::Request) -> Result<Outcome, Refused> {
        let before = index_before(&self.cluster);
        let outcome = Change::carry_out(batch, &mut self.v2_history, before, request)?;
        if outcome.digest != 0 {
            self.entry.number(outcome.digest);
        }
        Ok(Response::V2(Arc::new(outcome)).into())
    }

    /// Members or versions have changed, which etcd keeps in the same tree.
    pub(super) fn note_members_part<R: Read>(&mut self, batch: &mut Batch<R>) -> Result<(), StorageError> {
        let digest = v2store::note_internal(batch)?;
        if digest != 0 {
            self.entry.number(digest);
        }
        Ok(())
    }
}

impl<S: Read> Published<S> {
    /// The tree of the v2 API.
    pub fn v2(&self) -> Tree<'_, S> {
        Tree::new(self.view.snapshot(), index_before(&self.cluster))
    }
}

/// Where the index of the v2 API stands before its first request: at the number of changes that have made the members' part
/// what it is. It follows from the state alone, so that members agree on it whenever they began to serve this API; and the
/// first key of a new single member has the index that it has in etcd.
fn index_before(cluster: &Cluster) -> u64 {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let published = cluster.members().filter(|member| member.is_started()).count();
    count(cluster.members().len())
        + count(published)
        + CHANGES_OF_REMOVED * count(cluster.removed().len())
        + u64::from(cluster.version().is_some())
}
