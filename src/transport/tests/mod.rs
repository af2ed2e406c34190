//! Transports talk to each other, and to callers who mean no good, over loopback.

mod ask;
mod hostile;
mod records;
mod rules;
mod snapshots;
mod streams;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Handle, task::JoinSet};

use super::*;
use crate::{
    membership::Version,
    pb::raftpb::{Message, MessageType},
    tls::Dialler,
    types::{ClusterId, MemberId},
};

/// A member that writes down what it is told.
#[derive(Debug)]
pub(super) struct Member {
    id: MemberId,
    urls: Mutex<Vec<String>>,
    removed: Mutex<BTreeSet<MemberId>>,
    received: Mutex<Vec<Message>>,
    /// Takes no appends while set.
    jammed: AtomicBool,
    unreachable: AtomicUsize,
    undelivered: AtomicUsize,
    gone: AtomicUsize,
    told_removed: AtomicUsize,
    snapshots: Mutex<Vec<Received>>,
    /// Refuses snapshots while set.
    refuses: AtomicBool,
}

/// A snapshot as it arrived.
#[derive(Debug)]
struct Received {
    message: Message,
    form: SnapshotForm,
    data: Result<Vec<u8>, std::io::ErrorKind>,
}

impl Member {
    pub(super) fn new(id: u64) -> Arc<Self> {
        Arc::new(Self {
            id: MemberId(id),
            urls: Mutex::default(),
            removed: Mutex::default(),
            received: Mutex::default(),
            jammed: AtomicBool::new(false),
            unreachable: AtomicUsize::new(0),
            undelivered: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            told_removed: AtomicUsize::new(0),
            snapshots: Mutex::default(),
            refuses: AtomicBool::new(false),
        })
    }

    fn received(&self, kind: MessageType) -> Vec<u64> {
        let received = self.received.lock().unwrap();
        received.iter().filter(|message| message.r#type() == kind).map(|message| message.index).collect()
    }
}

impl Local for Member {
    fn member(&self) -> MemberId {
        self.id
    }
    fn cluster(&self) -> ClusterId {
        ClusterId(0xc1)
    }
    fn version(&self) -> Version {
        Version { major: 3, minor: 7, patch: 1 }
    }
    fn peer_urls(&self) -> Vec<String> {
        self.urls.lock().unwrap().clone()
    }
    fn is_removed(&self, id: MemberId) -> bool {
        self.removed.lock().unwrap().contains(&id)
    }
    fn receive(&self, message: Message) -> Result<(), Busy> {
        if message.r#type() == MessageType::MsgApp && self.jammed.load(Ordering::SeqCst) {
            return Err(Busy);
        }
        self.received.lock().unwrap().push(message);
        Ok(())
    }
    fn unreachable(&self, _: MemberId) {
        self.unreachable.fetch_add(1, Ordering::SeqCst);
    }

    fn undelivered(&self, proposal: Message) {
        assert_eq!(proposal.r#type(), MessageType::MsgProp);
        self.undelivered.fetch_add(1, Ordering::SeqCst);
    }

    fn gone(&self, _: MemberId) {
        self.gone.fetch_add(1, Ordering::SeqCst);
    }
    fn told_removed(&self, _: MemberId) {
        self.told_removed.fetch_add(1, Ordering::SeqCst);
    }
    fn receive_snapshot(
        self: Arc<Self>,
        message: Message,
        form: SnapshotForm,
        mut body: SnapshotBody,
    ) -> BoxFuture<'static, Result<(), SnapshotRefusal>> {
        Box::pin(async move {
            let mut data = Vec::new();
            let ended = loop {
                match body.piece().await {
                    Ok(Some(piece)) => data.extend_from_slice(&piece),
                    Ok(None) => break Ok(data),
                    Err(error) => break Err(error.kind()),
                }
            };
            let refused = ended.is_err() || self.refuses.load(Ordering::SeqCst);
            self.snapshots.lock().unwrap().push(Received { message, form, data: ended });
            if refused { Err(SnapshotRefusal::Save("no room".into())) } else { Ok(()) }
        })
    }
}

/// A transport behind a listener.
struct Node {
    member: Arc<Member>,
    transport: Arc<Transport>,
    url: String,
    address: SocketAddr,
    /// Cuts off every connection to this node when something is sent.
    cut: tokio::sync::watch::Sender<()>,
    _server: JoinSet<()>,
}

impl Node {
    async fn start(id: u64) -> Self {
        let member = Member::new(id);
        let options = TransportOptions { election_timeout: Duration::from_secs(1), dialler: Dialler::default() };
        let transport = Transport::new(Arc::<Member>::clone(&member), options, Handle::current());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{address}");
        *member.urls.lock().unwrap() = vec![url.clone()];
        let (cut, cuts) = tokio::sync::watch::channel(());
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&transport), cuts));
        Self { member, transport, url, address, cut, _server: server }
    }

    async fn start_all(count: u64) -> Vec<Self> {
        let mut nodes = Vec::new();
        for id in 1..=count {
            nodes.push(Self::start(id).await);
        }
        introduce(&nodes);
        nodes
    }

    fn id(&self) -> MemberId {
        self.member.id
    }

    fn send(&self, to: &Self, kind: MessageType, indexes: impl IntoIterator<Item = u64>) {
        self.transport.send(indexes.into_iter().map(|index| self.message(to, kind, index)).collect());
    }

    fn message(&self, to: &Self, kind: MessageType, index: u64) -> Message {
        Message {
            r#type: kind.into(),
            from: self.id().0,
            to: to.id().0,
            term: 1,
            log_term: 1,
            index,
            ..Default::default()
        }
    }
}

/// Tells every node of all nodes.
fn introduce(nodes: &[Node]) {
    let peers: BTreeMap<_, _> = nodes.iter().map(|node| (node.id(), vec![node.url.clone()])).collect();
    for node in nodes {
        node.transport.set_peers(peers.clone());
    }
}

/// Waits until every node has both of its streams from every other.
async fn connected(nodes: &[Node]) {
    for node in nodes {
        for other in nodes.iter().filter(|other| other.id() != node.id()) {
            until("connected", || node.transport.active_since(other.id()).is_some()).await;
        }
    }
}

async fn serve(listener: TcpListener, transport: Arc<Transport>, cuts: tokio::sync::watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        let (io, _) = listener.accept().await.unwrap();
        let (transport, mut cuts) = (Arc::clone(&transport), cuts.clone());
        connections.spawn(async move {
            let service = service_fn(|request: http::Request<Incoming>| {
                let transport = Arc::clone(&transport);
                async move { Ok::<_, Infallible>(transport.serve(request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service);
            cuts.mark_unchanged();
            tokio::select! {
                _ = connection => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

/// Waits for something that happens soon, or never.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain: {what}");
}
