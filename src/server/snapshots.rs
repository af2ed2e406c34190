//! Snapshots on their way between members.
//!
//! Raft asks for a snapshot to be sent ([`Snapshots::send`]), the transport brings one that is received
//! ([`Snapshots::receive`]). Both return at once.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{
    pb::raftpb::Message,
    raft::Input,
    transport::{SnapshotBody, SnapshotForm, SnapshotRefusal},
    types::MemberId,
};

use super::{raft_thread::RaftOrder, shared::Shared};

/// What sends and receives snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// Why none can be sent or taken.
    absence: &'static str,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { absence: "this version sends and takes no snapshots" }
    }
}

impl Snapshots {
    /// Raft wants a snapshot sent to `message.to`. Its end is reported with [`Input::SnapshotSent`], whatever it is.
    ///
    /// Called by the raft thread at its work: nothing in here may wait.
    pub(super) fn send(&self, shared: &Arc<Shared>, message: &Message) {
        let to = MemberId(message.to);
        tracing::debug!(%to, reason = self.absence, "a peer needs a snapshot");
        shared.order_raft(RaftOrder::Input(Box::new(Input::SnapshotSent { to, delivered: false })));
    }

    /// A snapshot is arriving; resolves once it is staged durably and raft has it.
    pub(super) fn receive(
        &self,
        _shared: Arc<Shared>,
        message: Message,
        _form: SnapshotForm,
        _body: SnapshotBody,
    ) -> BoxFuture<'static, Result<(), SnapshotRefusal>> {
        let absence = self.absence;
        Box::pin(async move {
            let from = MemberId(message.from);
            drop(message);
            Err(SnapshotRefusal::Save(format!("{absence}, not even of member {from}")))
        })
    }
}
