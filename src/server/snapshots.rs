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
#[derive(Debug, Default)]
pub(super) struct Snapshots;

impl Snapshots {
    /// Raft wants a snapshot sent to `message.to`. Its end is reported with [`Input::SnapshotSent`], whatever it is.
    ///
    /// Called by the raft thread at its work: nothing in here may wait.
    pub(super) fn send(&self, shared: &Arc<Shared>, message: &Message) {
        let to = MemberId(message.to);
        tracing::debug!(%to, "this version sends no snapshots");
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
        let from = MemberId(message.from);
        let refusal = SnapshotRefusal::Save(format!("this version takes no snapshots, not even of member {from}"));
        Box::pin(std::future::ready(Err(refusal)))
    }
}
