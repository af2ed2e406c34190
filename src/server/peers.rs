//! The member as its transport sees it.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use futures_util::future::BoxFuture;

use crate::{
    clock::Clock as _,
    membership::{Member, Version},
    pb::raftpb::{Message, MessageType},
    raft::Input,
    transport::{Busy, Capabilities, Local, SnapshotBody, SnapshotForm, SnapshotRefusal},
    types::{ClusterId, MemberId},
};

use super::{inbox::Refused, raft_thread::RaftOrder, shared::Shared, snapshots::Snapshots};

impl Local for Shared {
    fn member(&self) -> MemberId {
        self.identity.member
    }

    fn cluster(&self) -> ClusterId {
        self.identity.cluster
    }

    fn version(&self) -> Version {
        self.options.version
    }

    fn peer_urls(&self) -> Vec<String> {
        self.options.peer_urls.clone()
    }

    fn is_removed(&self, id: MemberId) -> bool {
        self.published().cluster.is_removed(id)
    }

    fn receive(&self, message: Message) -> Result<(), Busy> {
        self.v2.on_received(&message, self.clock.monotonic());
        let arrival = self.arrivals.admit(message)?;
        match self.bring_raft(RaftOrder::Arrived(arrival)) {
            // A member that stops hears nobody any more.
            Ok(()) | Err(Refused::Closed(_)) => Ok(()),
            Err(Refused::Full(_)) => Err(Busy),
        }
    }

    fn unreachable(&self, peer: MemberId) {
        self.v2.on_lost(peer);
        self.order_raft(RaftOrder::Input(Box::new(Input::Unreachable(peer))));
    }

    fn undelivered(&self, proposal: Message) {
        self.order_raft(RaftOrder::Input(Box::new(Input::Undelivered(Box::new(proposal)))));
    }

    fn gone(&self, peer: MemberId) {
        self.order_raft(RaftOrder::Input(Box::new(Input::Gone(peer))));
    }

    fn told_removed(&self, by: MemberId) {
        self.removal_told_by.lock().unwrap_or_else(PoisonError::into_inner).insert(by);
        self.removal_told.notify_one();
    }

    fn receive_snapshot(
        self: Arc<Self>,
        message: Message,
        form: SnapshotForm,
        body: SnapshotBody,
    ) -> BoxFuture<'static, Result<(), SnapshotRefusal>> {
        Snapshots::receive(self, message, form, body)
    }
}

impl Shared {
    /// Hands messages to the transport, snapshots to those who make them. Called by the raft thread at its work.
    pub(super) fn send(self: &Arc<Self>, messages: Vec<Message>) {
        let (snapshots, messages): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| message.r#type() == MessageType::MsgSnap);
        let (messages, kept): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| self.may_send(message));
        if let Some(transport) = &*self.transport.load() {
            self.v2.on_sent(&messages, self.clock.monotonic());
            transport.send(messages);
        }
        for message in &kept {
            self.keep_back(MemberId(message.to));
        }
        for message in &snapshots {
            self.snapshots.send(self, message);
        }
    }

    /// Tells the transport who the peers are.
    pub(super) fn update_peers(&self) {
        if let Some(transport) = &*self.transport.load() {
            transport.set_peers(self.peers());
        }
    }

    /// The peer URLs of all members. Until this member is part of the state it has applied, those count too that it was
    /// told to join.
    pub(super) fn peers(&self) -> BTreeMap<MemberId, Vec<String>> {
        let cluster = &self.published().cluster;
        let joining = cluster.member(self.identity.member).is_none();
        let told = self.remotes.iter().filter(|member| joining && !cluster.is_removed(member.id));
        let urls = |member: &Member| (member.id, member.peer_urls.clone());
        told.chain(cluster.members()).map(urls).collect()
    }

    /// What `peer` can do; nothing if it was never heard of.
    pub(super) fn capabilities(&self, peer: MemberId) -> Option<Capabilities> {
        self.transport.load().as_ref()?.capabilities(peer)
    }

    /// Whether `peer` is a member of etcd, as far as this member has heard.
    pub(super) fn is_foreign(&self, peer: MemberId) -> bool {
        self.capabilities(peer).is_some_and(|capabilities| !capabilities.quorate)
    }

    /// Whether a member of etcd takes part, as far as this member has heard.
    pub(super) fn is_mixed(&self) -> bool {
        self.peers().into_keys().any(|id| id != self.identity.member && self.is_foreign(id))
    }
}
