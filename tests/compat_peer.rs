//! The transport in a cluster with the real etcd: a member that does nothing but vote and acknowledge makes etcd elect,
//! replicate and serve, so that every kind of message crosses in both directions.

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use quorate::{
    membership::{Version, cluster_id, founding_member_id},
    pb::raftpb::{Entry, Message, MessageType},
    tls::Dialler,
    transport::{
        Busy, Capabilities, Local, SnapshotBody, SnapshotForm, SnapshotRefusal, Transport, TransportOptions, ask,
    },
    types::{ClusterId, MemberId},
};
use support::{daemon::Daemon, program::Program, wait_for};
use tokio::{net::TcpListener, runtime::Handle};

const LIMIT: Duration = Duration::from_secs(20);
/// The token etcd uses unless told otherwise.
const TOKEN: &str = "etcd-cluster";
/// Entries that every founding member of two has from the start.
const FOUNDING_ENTRIES: u64 = 2;

/// A member without a log: grants every vote and acknowledges every append.
#[derive(Debug)]
struct Voter {
    id: MemberId,
    cluster: ClusterId,
    url: String,
    transport: OnceLock<Weak<Transport>>,
    acknowledged: AtomicU64,
    received: Mutex<Vec<Message>>,
}

impl Voter {
    fn answer(&self, message: &Message) -> Option<Message> {
        let answer = Message { to: message.from, from: self.id.0, term: message.term, ..Message::default() };
        let with_type = |kind: MessageType| Message { r#type: kind.into(), ..answer.clone() };
        match message.r#type() {
            MessageType::MsgPreVote => Some(with_type(MessageType::MsgPreVoteResp)),
            MessageType::MsgVote => Some(with_type(MessageType::MsgVoteResp)),
            MessageType::MsgHeartbeat => {
                Some(Message { context: message.context.clone(), ..with_type(MessageType::MsgHeartbeatResp) })
            }
            MessageType::MsgApp => Some(self.acknowledge(message, with_type(MessageType::MsgAppResp))),
            _ => None,
        }
    }

    fn acknowledge(&self, message: &Message, answer: Message) -> Message {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        if message.index > acknowledged {
            return Message { index: message.index, reject: true, reject_hint: acknowledged, ..answer };
        }
        let last = message.entries.last().map_or(message.index, |entry| entry.index);
        self.acknowledged.fetch_max(last, Ordering::SeqCst);
        Message { index: last, ..answer }
    }

    fn count(&self, kind: MessageType) -> usize {
        self.received
            .lock()
            .expect("no test thread has panicked")
            .iter()
            .filter(|message| message.r#type() == kind)
            .count()
    }
}

impl Local for Voter {
    fn member(&self) -> MemberId {
        self.id
    }
    fn cluster(&self) -> ClusterId {
        self.cluster
    }
    fn version(&self) -> Version {
        Version { major: 3, minor: 7, patch: 1 }
    }
    fn peer_urls(&self) -> Vec<String> {
        vec![self.url.clone()]
    }
    fn is_removed(&self, _: MemberId) -> bool {
        false
    }
    fn receive(&self, message: Message) -> Result<(), Busy> {
        let answer = self.answer(&message);
        self.received.lock().expect("no test thread has panicked").push(message);
        if let Some(transport) = self.transport.get().and_then(Weak::upgrade) {
            transport.send(answer.into_iter().collect());
        }
        Ok(())
    }
    fn unreachable(&self, _: MemberId) {}
    fn undelivered(&self, _: Message) {}
    fn gone(&self, _: MemberId) {}
    fn told_removed(&self, by: MemberId) {
        panic!("{by} says that we were removed");
    }
    fn receive_snapshot(
        self: Arc<Self>,
        _: Message,
        _: SnapshotForm,
        _: SnapshotBody,
    ) -> BoxFuture<'static, Result<(), SnapshotRefusal>> {
        Box::pin(async { Err(SnapshotRefusal::Process("no snapshot is wanted here".into())) })
    }
}

#[test]
fn etcd_elects_and_replicates_with_our_transport_as_its_peer() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let our_url = format!("http://{}", listener.local_addr().expect("etcd answers"));
    let mut etcd = Daemon::prepare(&std::env::temp_dir(), &Program::etcd(), &[]);
    let etcd_url = format!("http://{}", etcd.peer);
    etcd.add_argument(format!("--initial-cluster=m1={etcd_url},m2={our_url}"));
    let (them, us) = (founding_member_id(&[&etcd_url], TOKEN), founding_member_id(&[&our_url], TOKEN));
    let (voter, transport) = start(&runtime, listener, us, cluster_id([them, us]), our_url);
    transport.set_peers([(them, vec![etcd_url.clone()])].into());
    etcd.spawn();

    assert!(etcd.wait_ready(LIMIT), "etcd finds no quorum:\n{}", etcd.log());
    for kind in [MessageType::MsgPreVote, MessageType::MsgVote, MessageType::MsgApp, MessageType::MsgHeartbeat] {
        assert!(voter.count(kind) > 0, "no {kind:?} came");
    }
    wait_for(LIMIT, || transport.active_since(them)).expect("both of our streams are up");
    assert_eq!(transport.capabilities(them), Some(Capabilities::default()), "etcd claims nothing of ours");
    both_streams_are_up_on_their_side(&etcd);
    replicates(&etcd, &voter);
    understands_our_appends(&transport, &voter, them);
    questions_are_answered(&runtime, &etcd_url, them);
}

fn start(
    runtime: &tokio::runtime::Runtime,
    listener: TcpListener,
    id: MemberId,
    cluster: ClusterId,
    url: String,
) -> (Arc<Voter>, Arc<Transport>) {
    let voter = Arc::new(Voter {
        id,
        cluster,
        url,
        transport: OnceLock::new(),
        acknowledged: AtomicU64::new(FOUNDING_ENTRIES),
        received: Mutex::default(),
    });
    let options = TransportOptions { election_timeout: Duration::from_secs(1), dialler: Dialler::default() };
    let transport = Transport::new(Arc::<Voter>::clone(&voter), options, runtime.handle().clone());
    voter.transport.set(Arc::downgrade(&transport)).expect("set once");
    runtime.spawn(serve(listener, Arc::clone(&transport), runtime.handle().clone()));
    (voter, transport)
}

async fn serve(listener: TcpListener, transport: Arc<Transport>, runtime: Handle) {
    while let Ok((io, _)) = listener.accept().await {
        let transport = Arc::clone(&transport);
        runtime.spawn(async move {
            let service = service_fn(|request: http::Request<Incoming>| {
                let transport = Arc::clone(&transport);
                async move { Ok::<_, Infallible>(answer(&transport, request).await) }
            });
            // A peer closes its connections as it likes.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await);
        });
    }
}

async fn answer(
    transport: &Transport,
    request: http::Request<Incoming>,
) -> http::Response<UnsyncBoxBody<Bytes, Infallible>> {
    if request.uri().path() == "/version" {
        let versions = r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided"}"#;
        return http::Response::new(Full::from(versions).boxed_unsync());
    }
    transport.serve(request).await.map(BodyExt::boxed_unsync)
}

fn both_streams_are_up_on_their_side(etcd: &Daemon) {
    for stream in ["stream MsgApp v2", "stream Message"] {
        let up = |log: &str| {
            let line = |line: &&str| line.contains("established TCP streaming connection") && line.contains(stream);
            log.lines().filter(line).count() >= 2
        };
        wait_for(LIMIT, || up(&etcd.log()).then_some(())).unwrap_or_else(|| panic!("no {stream}:\n{}", etcd.log()));
    }
}

fn replicates(etcd: &Daemon, voter: &Voter) {
    let value = "v".repeat(100_000);
    for key in ["a", "b"] {
        let put = Program::etcdctl().command().args(["--endpoints", &etcd.endpoint(), "put", key, &value]).output();
        assert!(put.expect("etcdctl runs").status.success(), "{}", etcd.log());
    }
    let received = voter.received.lock().expect("no test thread has panicked");
    let whole = |entry: &&Entry| entry.data.windows(value.len()).any(|data| data == value.as_bytes());
    assert_eq!(received.iter().flat_map(|message| &message.entries).filter(whole).count(), 2);
}

/// A member of etcd answers an append of an older term with its own term, which shows that it was decoded: one in full,
/// one short. The second waits for the answer to the first, for of the answers that etcd has ready at one moment only the
/// last one leaves.
fn understands_our_appends(transport: &Transport, voter: &Voter, them: MemberId) {
    let append = |index| Message {
        r#type: MessageType::MsgApp.into(),
        to: them.0,
        from: voter.id.0,
        term: 1,
        log_term: 1,
        index,
        entries: vec![Entry { term: 1, index: index + 1, data: Bytes::from(vec![7; 10_000]), ..Entry::default() }],
        ..Message::default()
    };
    for index in [2, 3] {
        let before = voter.count(MessageType::MsgAppResp);
        transport.send(vec![append(index)]);
        let answered = wait_for(LIMIT, || (voter.count(MessageType::MsgAppResp) > before).then_some(()));
        answered.unwrap_or_else(|| panic!("etcd answers the append after {index}"));
    }
}

fn questions_are_answered(runtime: &tokio::runtime::Runtime, url: &str, them: MemberId) {
    let dialler = Dialler::default();
    let target = ask::Target { url, dialler: &dialler, patience: LIMIT };
    runtime.block_on(async {
        let found = ask::members(target).await.expect("etcd answers");
        assert!(found.members.iter().any(|member| member.id == them));
        assert_eq!(ask::version(target).await.expect("etcd answers").server, Version { major: 3, minor: 7, patch: 1 });
        assert!(!ask::downgrade_enabled(target).await.expect("etcd answers"));
        let hash = ask::hash_kv(target, found.cluster, 0).await.expect("etcd answers");
        assert_eq!((hash.current_revision, hash.hash_revision), (3, 3));
        let future = ask::hash_kv(target, found.cluster, 99).await;
        assert_eq!(
            future.expect_err("etcd refuses").to_string(),
            "etcdserver: mvcc: required revision is a future revision"
        );
        let other = ask::hash_kv(target, ClusterId(1), 0).await;
        assert!(matches!(other, Err(ask::AskError::Refused { status: 412, .. })), "{other:?}");
        let lease = ask::lease_renew(target, quorate::types::LeaseId(77)).await;
        assert_eq!(lease.expect_err("etcd refuses").to_string(), "etcdserver: requested lease not found");
        let promoted = ask::promote(target, MemberId(9), None).await;
        assert_eq!(promoted.expect_err("etcd refuses").to_string(), "etcdserver: member not found");
        let voter = ask::promote(target, them, None).await;
        assert_eq!(voter.expect_err("etcd refuses").to_string(), "etcdserver: can only promote a learner member");
    });
}
