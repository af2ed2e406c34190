//! The transport of one member.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::Stream;
use thiserror::Error;

use super::{Capabilities, Local, ResponseBody, SnapshotForm};
use crate::{pb::raftpb, types::MemberId};

/// What can be set about a transport.
#[derive(Clone, Copy, Debug)]
pub struct TransportOptions {
    /// The election timeout: a dialled connection must be up within a second more than this, as in etcd.
    pub election_timeout: Duration,
}

/// Why a snapshot did not reach its receiver.
#[derive(Debug, Error)]
pub enum SendError {
    /// The message is no snapshot, or addressed to nobody this transport knows.
    #[error("member {0} is not among the peers")]
    UnknownPeer(MemberId),
    /// Too many snapshots are being sent.
    #[error("too many snapshots are being sent")]
    Busy,
    /// The connection could not be made, or broke.
    #[error("sending a snapshot to {url}")]
    Connection {
        /// Where.
        url: String,
        /// What broke.
        #[source]
        cause: io::Error,
    },
    /// The receiver answered with a refusal.
    #[error("member {peer} refused the snapshot: {status} {text}")]
    Refused {
        /// The receiver.
        peer: MemberId,
        /// The HTTP status.
        status: u16,
        /// Its first words.
        text: String,
    },
}

/// Carries messages between one member and its peers. Made once per start, shared by everybody who sends.
#[derive(Debug)]
pub struct Transport {
    local: Arc<dyn Local>,
    options: TransportOptions,
    runtime: tokio::runtime::Handle,
}

impl Transport {
    /// A transport without peers; its tasks run on `runtime`.
    pub fn new(local: Arc<dyn Local>, options: TransportOptions, runtime: tokio::runtime::Handle) -> Arc<Self> {
        Arc::new(Self { local, options, runtime })
    }

    /// Replaces the peers and their URLs; this member may be among them and is left out. Called at the start and after
    /// every applied change of membership. Peers that stay keep their connections; what waits for a peer that goes
    /// is still sent if its streams are up.
    pub fn set_peers(&self, peers: BTreeMap<MemberId, Vec<String>>) {
        todo!("{peers:?} {:?} {:?} {:?}", self.local, self.options, self.runtime)
    }

    /// Takes messages for peers, in order for each peer. Never waits: called from the raft thread.
    ///
    /// Messages to nobody known, of types that never travel, and snapshots ([`Transport::send_snapshot`]) are dropped.
    /// A message that finds its queue full is dropped, and its receiver reported unreachable once per call.
    pub fn send(&self, messages: Vec<raftpb::Message>) {
        todo!("{messages:?}")
    }

    /// How long `peer` has been connected without a break; `None` while it is not.
    pub fn active_since(&self, peer: MemberId) -> Option<Duration> {
        todo!("{peer}")
    }

    /// What `peer` can do; `None` if it was never heard of, nothing if it is a member of etcd.
    pub fn capabilities(&self, peer: MemberId) -> Option<Capabilities> {
        todo!("{peer}")
    }

    /// Sends a snapshot to `message.to` and waits until the receiver has taken it.
    ///
    /// `body` must not pause for longer than five seconds: a receiver gives up then. If it yields an error the receiver
    /// sees a body that breaks off.
    ///
    /// # Errors
    /// [`SendError`]. Whatever it is, the receiver may have taken the snapshot all the same.
    pub async fn send_snapshot(
        &self,
        message: raftpb::Message,
        form: SnapshotForm,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), SendError> {
        todo!("{message:?} {form:?} {}", std::any::type_name_of_val(&body))
    }

    /// Answers a request to `/raft`, `/raft/stream/…`, `/raft/snapshot` or `/raft/probing`; anything else is not found.
    ///
    /// An answer that opens a stream has a body that goes on until the peer goes away; the connection must drop it then.
    pub async fn serve<B>(self: &Arc<Self>, request: http::Request<B>) -> http::Response<ResponseBody>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        todo!("{}", request.uri())
    }

    /// Ends every connection and task. Nothing is sent or received afterwards.
    pub fn stop(&self) {
        todo!()
    }
}
