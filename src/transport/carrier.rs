//! The transport of one member.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::Stream;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Capabilities, Local, ResponseBody, SnapshotForm,
    deliver::{is_snapshot, travels},
    headers::Caller,
    inbound::{self, Budget},
    incoming,
    outbox::StreamKind,
    peer::{Peer, Shared, millis},
    pipeline, probe,
    processes::Process,
    serve, snapshot_send,
};
use crate::{
    clock::{self, Chance as _},
    pb::raftpb::{EntryType, Message},
    tls::Dialler,
    types::MemberId,
};

/// Most senders remembered that are not members, oldest forgotten first. One that is about to become a member says
/// who it is ten times a second.
const REMOTES_MAX: usize = 16;
/// Snapshots being sent at once, as in etcd.
const SNAPSHOTS_SENDING_MAX: usize = 16;

/// What can be set about a transport.
#[derive(Clone, Debug)]
pub struct TransportOptions {
    /// The election timeout: a dialled connection must be up within a second more than this, as in etcd.
    pub election_timeout: Duration,
    /// Dials peer URLs that want TLS.
    pub dialler: Dialler,
}

/// Why a snapshot did not reach its receiver.
#[derive(Debug, Error)]
pub enum SendError {
    /// The message is no snapshot, or addressed to nobody this transport knows.
    #[error("no snapshot can be sent to member {0}: it is not among the peers")]
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
        /// What it said.
        text: String,
    },
}

/// Carries messages between one member and its peers. Made once per start, shared by everybody who sends.
#[derive(Debug)]
pub struct Transport {
    shared: Arc<Shared>,
    directory: ArcSwap<Directory>,
    /// Held while the directory is replaced.
    changing: Mutex<()>,
    budget: Budget,
    sending: Semaphore,
}

/// Everybody this member can send to.
#[derive(Clone, Debug, Default)]
struct Directory {
    members: BTreeMap<MemberId, Arc<Peer>>,
    /// Senders that are not members (yet), oldest first. Answered by single requests; nobody dials them.
    remotes: Vec<Arc<Peer>>,
}

impl Directory {
    fn find(&self, id: MemberId) -> Option<&Arc<Peer>> {
        self.members.get(&id).or_else(|| self.remote(id))
    }

    fn remote(&self, id: MemberId) -> Option<&Arc<Peer>> {
        self.remotes.iter().find(|remote| remote.id == id)
    }
}

impl Transport {
    /// A transport without peers; its tasks run on `runtime`.
    pub fn new(local: Arc<dyn Local>, options: TransportOptions, runtime: tokio::runtime::Handle) -> Arc<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Arc::new(Self {
            shared: Arc::new(Shared {
                local,
                process: Process(clock::SystemChance.next_u64()),
                election_ms: AtomicU64::new(millis(options.election_timeout)),
                dialler: options.dialler,
                runtime,
                tasks,
                stop,
            }),
            directory: ArcSwap::default(),
            changing: Mutex::default(),
            budget: Budget::new(),
            sending: Semaphore::new(SNAPSHOTS_SENDING_MAX),
        })
    }

    /// The election timeout is another one from now on.
    pub fn set_election_timeout(&self, timeout: Duration) {
        self.shared.set_election_timeout(timeout);
    }

    /// Replaces the peers and their URLs; this member may be among them and is left out. Called at the start and after
    /// every applied change of membership. Peers that stay keep their connections; what waits for a peer that goes
    /// is still sent if its streams are up.
    pub fn set_peers(&self, mut peers: BTreeMap<MemberId, Vec<String>>) {
        peers.remove(&self.shared.local.member());
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.directory.load_full();
        let members = peers.into_iter().map(|(id, urls)| (id, self.member(&old, id, urls))).collect();
        let (known, remotes) =
            old.remotes.iter().cloned().partition(|remote| BTreeMap::contains_key(&members, &remote.id));
        self.directory.store(Arc::new(Directory { members, remotes }));
        let gone = old.members.values().filter(|peer| self.peer(peer.id).is_none()).cloned();
        gone.chain::<Vec<_>>(known).for_each(|peer| {
            peer.show_known(self.peer(peer.id).is_some());
            peer.close();
        });
    }

    /// The peer that is there already, told its URLs, or a new one with its tasks started.
    fn member(&self, old: &Directory, id: MemberId, urls: Vec<String>) -> Arc<Peer> {
        if let Some(peer) = old.members.get(&id) {
            peer.set_urls(urls);
            return Arc::clone(peer);
        }
        let peer = Peer::new(id, urls, &self.shared);
        if let Some(remote) = old.remote(id) {
            peer.inherit(remote);
        }
        peer.show_known(true);
        self.start(incoming::keep(Arc::clone(&peer), StreamKind::MsgApp));
        self.start(incoming::keep(Arc::clone(&peer), StreamKind::Message));
        self.start(probe::run(Arc::clone(&peer)));
        self.start_pipeline(&peer);
        peer
    }

    fn start_pipeline(&self, peer: &Arc<Peer>) {
        for _ in 0..pipeline::CONNECTIONS {
            self.start(pipeline::run(Arc::clone(peer)));
        }
    }

    fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.tasks.spawn_on(task, &self.shared.runtime);
    }

    /// Takes messages for peers, in order for each peer. Never waits: called from the raft thread.
    ///
    /// Messages to nobody known, of types that never travel, and snapshots ([`Transport::send_snapshot`]) are dropped.
    /// A message that finds its queue full is dropped, and its receiver reported unreachable once per call.
    pub fn send(&self, mut messages: Vec<Message>) {
        // Stable, so that the order of the messages to one peer stays.
        messages.sort_by_key(|message| message.to);
        let directory = self.directory.load();
        let mut messages = messages.into_iter().filter(|message| self.may_travel(message)).peekable();
        while let Some(to) = messages.peek().map(|message| message.to) {
            let group = std::iter::from_fn(|| messages.next_if(|message| message.to == to));
            match directory.find(MemberId(to)) {
                Some(peer) => peer.send(group),
                None => group.for_each(drop),
            }
        }
    }

    /// What would harm a peer never leaves: local types, other people's messages, joint configuration changes.
    fn may_travel(&self, message: &Message) -> bool {
        let joint = i32::from(EntryType::EntryConfChangeV2);
        travels(message)
            && !is_snapshot(message)
            && message.from == self.shared.local.member().0
            && message.entries.iter().all(|entry| entry.r#type != joint)
    }

    /// How long `peer` has been connected without a break, both of the streams it is dialled for; `None` while it is
    /// not.
    pub fn active_since(&self, peer: MemberId) -> Option<Duration> {
        self.peer(peer)?.active_since()
    }

    /// What `peer` can do; `None` if it was never heard of, nothing if it is a member of etcd.
    pub fn capabilities(&self, peer: MemberId) -> Option<Capabilities> {
        self.directory.load().find(peer)?.capabilities()
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
        message: Message,
        form: SnapshotForm,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), SendError> {
        let to = MemberId(message.to);
        let peer = self.directory.load().find(to).cloned();
        let peer = peer.filter(|_| is_snapshot(&message)).ok_or(SendError::UnknownPeer(to))?;
        let _sending = self.sending.try_acquire().map_err(|_| SendError::Busy)?;
        snapshot_send::send(&peer, &message, form, body).await
    }

    /// Answers a request to `/raft`, `/raft/stream/…`, `/raft/snapshot` or `/raft/probing`; anything else is not found.
    ///
    /// An answer that opens a stream has a body that goes on until the peer goes away; the connection must drop it then.
    pub async fn serve<B>(&self, request: http::Request<B>) -> http::Response<ResponseBody>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        serve::serve(self, request.map(inbound::erase)).await
    }

    /// Ends every stream and task. Nothing is sent or received afterwards.
    pub fn stop(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.stop.cancel();
        let old = self.directory.swap(Arc::default());
        old.members.values().chain(&old.remotes).for_each(|peer| peer.close());
        self.shared.tasks.close();
    }

    /// Waits until all tasks have ended after [`Transport::stop`].
    pub async fn stopped(&self) {
        self.shared.tasks.wait().await;
    }

    /// Remembers a sender that is not a member: the way back to one that does not know yet that it is about to join.
    pub(super) fn meet(&self, caller: &Caller) {
        let Some(from) = caller.from else { return };
        if let Some(known) = self.directory.load().find(from) {
            return known.heard(caller.introduction);
        }
        let local = &self.shared.local;
        if caller.peer_urls.is_empty() || from == local.member() || local.is_removed(from) {
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut directory = Directory::clone(&self.directory.load());
        if directory.find(from).is_some() || self.shared.stop.is_cancelled() {
            return;
        }
        let remote = Peer::new(from, caller.peer_urls.clone(), &self.shared);
        remote.heard(caller.introduction);
        self.start_pipeline(&remote);
        let forgotten = (directory.remotes.len() >= REMOTES_MAX).then(|| directory.remotes.remove(0));
        directory.remotes.push(remote);
        self.directory.store(Arc::new(directory));
        if let Some(remote) = forgotten {
            remote.close();
        }
    }

    /// The member with this identifier, if it is a peer.
    pub(super) fn peer(&self, id: MemberId) -> Option<Arc<Peer>> {
        self.directory.load().members.get(&id).cloned()
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.stop();
    }
}
