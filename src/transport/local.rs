//! What a transport needs of the member it works for.

use std::{fmt::Debug, sync::Arc};

use futures_util::future::BoxFuture;
use thiserror::Error;

use super::{SnapshotBody, SnapshotForm};
use crate::{
    membership::Version,
    pb::raftpb,
    types::{ClusterId, MemberId},
};

/// The member a transport works for.
///
/// Every method returns at once and none may block: they are called from tasks that serve many connections, and
/// [`Local::unreachable`] also from the thread that called [`super::Transport::send`].
pub trait Local: Debug + Send + Sync + 'static {
    /// This member.
    fn member(&self) -> MemberId;

    /// Its cluster.
    fn cluster(&self) -> ClusterId;

    /// The version of etcd it reports, three numbers.
    fn version(&self) -> Version;

    /// Its own peer URLs as advertised; sent with every request, so that a member that does not know us can answer.
    fn peer_urls(&self) -> Vec<String>;

    /// Whether `id` was removed from the cluster, by the applied state. The only ground for answering 403 or 410, which
    /// make a member of etcd stop for good.
    fn is_removed(&self, id: MemberId) -> bool;

    /// Takes a message from a peer. It is addressed to this member, comes from the peer it names, is of a type that
    /// may travel and is no snapshot; everything else about it is still unchecked.
    ///
    /// # Errors
    /// [`Busy`] if the queue for messages of its class is full. A proposal is then lost, as in etcd; an append is offered
    /// again for a short while before it is lost.
    fn receive(&self, message: raftpb::Message) -> Result<(), Busy>;

    /// A message to `peer` was dropped, or the connection to it broke while it may have had some under way.
    fn unreachable(&self, peer: MemberId);

    /// This proposal for another member was not sent, not even in part: it has not arrived and never will. It may be sent
    /// elsewhere.
    fn undelivered(&self, proposal: raftpb::Message);

    /// Nobody listens at any URL of `peer`, and no stream from it is up. Told again while it stays so.
    fn gone(&self, peer: MemberId);

    /// A peer answered that this member was removed. A hint: confirm it elsewhere before acting on it.
    fn told_removed(&self, by: MemberId);

    /// Takes a snapshot whose body is to be read to its end; resolves once it is staged durably and raft has it.
    ///
    /// `message` is a `MsgSnap` from the peer it names, to this member. A body that breaks off, or pauses for longer
    /// than a peer may, ends with an error; nothing of it may be kept then.
    ///
    /// # Errors
    /// Why it is not taken; the sender is told and may try again.
    fn receive_snapshot(
        self: Arc<Self>,
        message: raftpb::Message,
        form: SnapshotForm,
        body: SnapshotBody,
    ) -> BoxFuture<'static, Result<(), SnapshotRefusal>>;
}

/// The queue for messages of this class is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many messages are waiting")]
pub struct Busy;

/// Why a snapshot was not taken. The texts are shown to the sender inside etcd's own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SnapshotRefusal {
    /// Its data could not be received or stored.
    #[error("failed to save KV snapshot ({0})")]
    Save(String),
    /// Raft did not take it.
    #[error("failed to process raft message ({0})")]
    Process(String),
}
