//! The client against members that answer what a test tells them to.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::TcpListener, sync::oneshot, task::JoinSet};
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};

use super::{Client, Options};
use crate::pb::{
    etcdserverpb::{
        self as pb,
        kv_server::{Kv, KvServer},
        watch_server::{Watch, WatchServer},
    },
    mvccpb::{Event, KeyValue},
};

/// What a member answers next, and what it was asked.
#[derive(Clone, Debug, Default)]
struct Member {
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    /// Refusals to come before everything goes well.
    refusals: VecDeque<(Code, &'static str)>,
    /// One list of responses per stream to come; a stream ends after its list.
    streams: VecDeque<Vec<pb::WatchResponse>>,
    /// Answers nothing.
    hangs: bool,
    asked: Vec<String>,
}

impl Member {
    fn refusing(refusals: &[(Code, &'static str)]) -> Self {
        let member = Self::default();
        member.script.lock().unwrap().refusals = refusals.iter().copied().collect();
        member
    }

    fn asked(&self) -> Vec<String> {
        self.script.lock().unwrap().asked.clone()
    }

    fn answer<R: Default>(&self, asked: &str) -> Result<Response<R>, Status> {
        let mut script = self.script.lock().unwrap();
        script.asked.push(asked.to_owned());
        match script.refusals.pop_front() {
            Some((code, text)) => Err(Status::new(code, text)),
            None => Ok(Response::new(R::default())),
        }
    }
}

type Responses<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

#[tonic::async_trait]
impl Kv for Member {
    type RangeStreamStream = Responses<pb::RangeStreamResponse>;

    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let version = request.metadata().get("client-api-version").map(|version| version.to_str().unwrap().to_owned());
        self.answer::<()>(&format!("range {}", version.unwrap_or_default()))?;
        Ok(Response::new(pb::RangeResponse { count: 300, ..pb::RangeResponse::default() }))
    }

    async fn range_stream(&self, _: Request<pb::RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn put(&self, _: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let hangs = self.script.lock().unwrap().hangs;
        if hangs {
            std::future::pending::<()>().await;
        }
        self.answer("put")
    }

    async fn delete_range(
        &self,
        _: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.answer("delete")
    }

    async fn txn(&self, _: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        self.answer("txn")
    }

    async fn compact(&self, _: Request<pb::CompactionRequest>) -> Result<Response<pb::CompactionResponse>, Status> {
        self.answer("compact")
    }
}

#[tonic::async_trait]
impl Watch for Member {
    type WatchStream = Responses<pb::WatchResponse>;

    /// Answers the first request of the stream with its list, then breaks off as a dying member does.
    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let leader = request.metadata().contains_key("hasleader");
        let first = request.into_inner().message().await?.and_then(|request| request.request_union);
        let Some(pb::watch_request::RequestUnion::CreateRequest(create)) = first else {
            return Err(Status::invalid_argument("a watch begins with its creation"));
        };
        let mut script = self.script.lock().unwrap();
        script.asked.push(format!("watch from {} leader {leader}", create.start_revision));
        let responses = script.streams.pop_front().unwrap_or_default();
        let broken = std::iter::once(Err(Status::unavailable("going away")));
        Ok(Response::new(Box::pin(tokio_stream::iter(responses.into_iter().map(Ok)).chain(tokio_stream::iter(broken)))))
    }
}

/// Members being served; they stop with it.
#[derive(Default)]
struct Cluster {
    servers: JoinSet<()>,
    endpoints: Vec<String>,
    /// Dropping one stops a server, its connections included.
    stops: Vec<oneshot::Sender<()>>,
}

impl Cluster {
    async fn serve(&mut self, member: &Member) {
        self.serve_at("127.0.0.1:0", member).await;
    }

    async fn serve_at(&mut self, address: &str, member: &Member) {
        let listener = TcpListener::bind(address).await.unwrap();
        self.endpoints.push(listener.local_addr().unwrap().to_string());
        let (stop, stopped) = oneshot::channel::<()>();
        self.stops.push(stop);
        let served = Server::builder()
            .add_service(KvServer::new(member.clone()))
            .add_service(WatchServer::new(member.clone()))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async { drop(stopped.await) });
        self.servers.spawn(async { served.await.unwrap() });
    }

    async fn stop(&mut self) {
        self.stops.clear();
        while self.servers.join_next().await.is_some() {}
    }

    async fn client(&self) -> Client {
        let endpoints = self.endpoints.clone();
        Client::connect(Options { endpoints, ..Options::default() }).await.unwrap()
    }
}

async fn alone(member: &Member) -> (Cluster, Client) {
    let mut cluster = Cluster::default();
    cluster.serve(member).await;
    let client = cluster.client().await;
    (cluster, client)
}

const LIMIT: Option<Duration> = Some(Duration::from_secs(10));
const BUSY: (Code, &str) = (Code::Unavailable, "etcdserver: leader changed");

#[tokio::test]
async fn a_read_is_repeated_until_the_cluster_is_available() {
    let member = Member::refusing(&[BUSY, BUSY, BUSY]);
    let (_cluster, client) = alone(&member).await;
    client.call(pb::RangeRequest::default(), LIMIT).await.unwrap();
    assert_eq!(member.asked(), ["range 3.7"; 4]);
}

#[tokio::test]
async fn a_write_is_sent_once_whatever_comes_back() {
    let member = Member::refusing(&[BUSY]);
    let (_cluster, client) = alone(&member).await;
    let error = client.call(pb::PutRequest::default(), LIMIT).await.unwrap_err();
    assert_eq!(error.to_string(), "etcdserver: leader changed");
    assert_eq!(member.asked(), ["put"]);
}

#[tokio::test]
async fn a_refusal_is_not_repeated() {
    let refusal = (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    let member = Member::refusing(&[refusal]);
    let (_cluster, client) = alone(&member).await;
    assert!(client.call(pb::RangeRequest::default(), LIMIT).await.unwrap_err().is_refusal(refusal.1));
    assert_eq!(member.asked().len(), 1);
}

#[tokio::test]
async fn an_endpoint_nobody_listens_on_holds_up_nobody() {
    let member = Member::default();
    let mut cluster = Cluster::default();
    cluster.serve(&member).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    cluster.endpoints.insert(0, closed.to_string());
    let client = cluster.client().await;
    for _ in 0..3 {
        client.call(pb::PutRequest::default(), LIMIT).await.unwrap();
    }
    assert_eq!(member.asked(), ["put"; 3]);
}

#[tokio::test]
async fn a_read_survives_a_member_that_hangs_up() {
    let member = Member::default();
    let mut cluster = Cluster::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    cluster.endpoints.push(listener.local_addr().unwrap().to_string());
    cluster.serve(&member).await;
    cluster.servers.spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            // Enough for the greeting; what follows is cut off.
            let mut greeting = [0; 64];
            connection.read_exact(&mut greeting).await.map(drop).unwrap_or_default();
        }
    });
    let client = cluster.client().await;
    for _ in 0..8 {
        client.call(pb::RangeRequest::default(), LIMIT).await.unwrap();
    }
    assert_eq!(member.asked(), ["range 3.7"; 8]);
}

#[tokio::test]
async fn a_learner_sends_the_call_elsewhere() {
    let learner = (Code::FailedPrecondition, "etcdserver: rpc not supported for learner");
    let (first, second) = (Member::refusing(&[learner]), Member::refusing(&[learner]));
    let mut cluster = Cluster::default();
    cluster.serve(&first).await;
    cluster.serve(&second).await;
    cluster.client().await.call(pb::PutRequest::default(), LIMIT).await.unwrap();
    assert!(!first.asked().is_empty() || !second.asked().is_empty());
    assert!(first.asked().len() + second.asked().len() >= 2, "the learner was not asked alone");
}

#[tokio::test]
async fn a_member_that_was_lost_is_found_again() {
    let member = Member::default();
    let (mut cluster, client) = alone(&member).await;
    client.call(pb::PutRequest::default(), LIMIT).await.unwrap();
    let address = cluster.endpoints.first().cloned().unwrap();
    cluster.stop().await;
    let short = Some(Duration::from_millis(300));
    let error = client.call(pb::RangeRequest::default(), short).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    cluster.serve_at(&address, &member).await;
    client.call(pb::RangeRequest::default(), LIMIT).await.unwrap();
    assert_eq!(member.asked(), ["put", "range 3.7"]);
}

/// It was told as a connection that broke, where etcdctl says what it is.
#[tokio::test]
async fn a_call_without_an_answer_ends_as_out_of_time() {
    let member = Member::default();
    member.script.lock().unwrap().hangs = true;
    let (_cluster, client) = alone(&member).await;
    for millis in 20..40 {
        let error = client.call(pb::PutRequest::default(), Some(Duration::from_millis(millis))).await.unwrap_err();
        assert_eq!(error.to_string(), "context deadline exceeded");
    }
}

#[tokio::test]
async fn an_answer_above_the_limit_is_told_in_the_words_of_etcd() {
    let member = Member::default();
    let mut cluster = Cluster::default();
    cluster.serve(&member).await;
    let options = Options { endpoints: cluster.endpoints.clone(), response_bytes_max: 2, ..Options::default() };
    let error = Client::connect(options).await.unwrap().call(pb::RangeRequest::default(), LIMIT).await.unwrap_err();
    let text = "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (3 vs. 2)";
    assert_eq!(error.to_string(), text);
}

fn header(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader { revision, ..pb::ResponseHeader::default() }
}

fn created(revision: i64) -> pb::WatchResponse {
    pb::WatchResponse { created: true, header: Some(header(revision)), ..pb::WatchResponse::default() }
}

fn changed(revision: i64) -> pb::WatchResponse {
    let kv = Some(KeyValue { mod_revision: revision, ..KeyValue::default() });
    let events = vec![Event { kv, ..Event::default() }];
    pb::WatchResponse { header: Some(header(revision)), events, ..pb::WatchResponse::default() }
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_when_the_stream_breaks() {
    let member = Member::default();
    member.script.lock().unwrap().streams =
        [vec![created(4), changed(5)], vec![], vec![created(9), changed(7), changed(8)]].into();
    let (_cluster, client) = alone(&member).await;
    let mut watcher = client.watcher();
    watcher.watch(pb::WatchCreateRequest::default());
    let mut revisions = Vec::new();
    for _ in 0..3 {
        let delivery = watcher.next().await;
        revisions.extend(delivery.response.events.iter().filter_map(|event| Some(event.kv.as_ref()?.mod_revision)));
    }
    assert_eq!(revisions, [5, 7, 8]);
    let asked = ["watch from 0 leader true", "watch from 6 leader true", "watch from 6 leader true"];
    assert_eq!(member.asked(), asked);
}
