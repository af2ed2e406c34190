//! Questions to members, answered as etcd's members answer them.

use std::sync::LazyLock;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;

use super::*;
use crate::{
    pb::{
        etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveResponse},
        leasepb::{LeaseInternalRequest, LeaseInternalResponse},
    },
    transport::ask::{self, AskError, HashKv, Target},
    types::{LeaseId, Rejection},
};

/// Request lines and bodies.
type Asked = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A peer port that gives one answer to everything, and keeps what it was asked.
struct Oracle {
    url: String,
    asked: Asked,
    _server: JoinSet<()>,
}

fn target(url: &str, patience: Duration) -> Target<'_> {
    static DIALLER: LazyLock<Dialler> = LazyLock::new(Dialler::default);
    Target { url, dialler: &DIALLER, patience }
}

impl Oracle {
    async fn new(status: u16, body: impl Into<Bytes>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (body, asked) = (body.into(), Arc::default());
        let mut server = JoinSet::new();
        server.spawn(answer_all(listener, status, body, Arc::clone(&asked)));
        Self { url, asked, _server: server }
    }

    fn target(&self) -> Target<'_> {
        target(&self.url, Duration::from_secs(5))
    }

    fn asked(&self) -> (String, Vec<u8>) {
        self.asked.lock().unwrap().pop().unwrap()
    }
}

async fn answer_all(listener: TcpListener, status: u16, body: Bytes, asked: Asked) {
    loop {
        let (io, _) = listener.accept().await.unwrap();
        let service = service_fn(|request: http::Request<Incoming>| {
            let (body, asked) = (body.clone(), Arc::clone(&asked));
            async move {
                let line = format!("{} {}", request.method(), request.uri());
                let question = request.into_body().collect().await.unwrap().to_bytes().to_vec();
                asked.lock().unwrap().push((line, question));
                let answer = http::Response::builder().status(status).header("X-Etcd-Cluster-ID", "ebf79ee1b5a71cad");
                Ok::<_, Infallible>(answer.body(Full::new(body)).unwrap())
            }
        });
        drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await);
    }
}

#[tokio::test]
async fn members_come_with_their_cluster() {
    let json = r#"[{"id":18446744073709551615,"peerURLs":["http://a:1"],"name":"n","clientURLs":["http://a:2"]}]"#;
    let oracle = Oracle::new(200, format!("{json}\n")).await;
    let found = ask::members(oracle.target()).await.unwrap();
    assert_eq!((found.cluster, found.members[0].id), (ClusterId(0xebf7_9ee1_b5a7_1cad), MemberId(u64::MAX)));
    assert_eq!(found.members[0].attributes.name, "n");
    assert_eq!(oracle.asked().0, "GET /members");
}

#[tokio::test]
async fn versions_may_be_undecided() {
    let oracle = Oracle::new(200, r#"{"etcdserver":"3.5.33","etcdcluster":"not_decided"}"#).await;
    let versions = ask::version(oracle.target()).await.unwrap();
    assert_eq!((versions.server.to_string().as_str(), versions.cluster), ("3.5.33", None));
    let garbled = Oracle::new(200, "{}").await;
    assert!(matches!(ask::version(garbled.target()).await, Err(AskError::Garbled { .. })));
    let downgrade = Oracle::new(200, "true").await;
    assert!(ask::downgrade_enabled(downgrade.target()).await.unwrap());
}

#[tokio::test]
async fn leases_are_asked_about_in_protobuf() {
    let answer = LeaseKeepAliveResponse { id: 7, ttl: 30, ..Default::default() };
    let oracle = Oracle::new(200, answer.encode_to_vec()).await;
    assert_eq!(ask::lease_renew(oracle.target(), LeaseId(7)).await.unwrap(), 30);
    let (line, question) = oracle.asked();
    assert_eq!((line.as_str(), question), ("POST /leases", LeaseKeepAliveRequest { id: 7 }.encode_to_vec()));
    assert!(ask::lease_renew(oracle.target(), LeaseId(8)).await.is_err(), "an answer about another lease");

    let inner =
        LeaseTimeToLiveResponse { id: 7, ttl: 3, granted_ttl: 30, keys: vec!["k".into()], ..Default::default() };
    let answer = LeaseInternalResponse { lease_time_to_live_response: Some(inner.clone()) };
    let oracle = Oracle::new(200, answer.encode_to_vec()).await;
    assert_eq!(ask::lease_time_to_live(oracle.target(), LeaseId(7), true).await.unwrap(), inner);
    let (line, question) = oracle.asked();
    let question = LeaseInternalRequest::decode(&*question).unwrap().lease_time_to_live_request.unwrap();
    assert_eq!((line.as_str(), question.id, question.keys), ("POST /leases/internal", 7, true));

    let gone = Oracle::new(404, "lease not found\n").await;
    let refused = ask::lease_renew(gone.target(), LeaseId(7)).await;
    assert!(matches!(refused, Err(AskError::Rejected(Rejection::LeaseNotFound))));
    let lags = Oracle::new(408, "waiting for node to catch up its applied index has timed out\n").await;
    assert!(matches!(ask::lease_renew(lags.target(), LeaseId(7)).await, Err(AskError::Refused { status: 408, .. })));
}

#[tokio::test]
async fn promotion_knows_which_refusals_are_final() {
    for (status, text, refusal) in [
        (404, "membership: ID not found", Rejection::MemberNotFound),
        (412, "membership: can only promote a learner member", Rejection::NotLearner),
        (412, "etcdserver: can only promote a learner member which is in sync with leader", Rejection::LearnerNotReady),
    ] {
        let oracle = Oracle::new(status, format!("{text}\n")).await;
        let refused = ask::promote(oracle.target(), MemberId(16), None).await;
        assert!(matches!(refused, Err(AskError::Rejected(found)) if found == refusal), "{text}: {refused:?}");
        assert_eq!(oracle.asked().0, "POST /members/promote/16");
    }
    let oracle = Oracle::new(500, r#"{"message":"Internal Server Error"}"#).await;
    let refused = ask::promote(oracle.target(), MemberId(16), Some("token")).await;
    assert!(matches!(refused, Err(AskError::Refused { status: 500, .. })));
}

#[tokio::test]
async fn hashes_are_asked_for_by_a_get_with_a_body() {
    let json = r#"{"header":{"revision":9},"hash":4082599214,"compact_revision":-1,"hash_revision":5}"#;
    let oracle = Oracle::new(200, json).await;
    let hash = ask::hash_kv(oracle.target(), ClusterId(1), 5).await.unwrap();
    let expected = HashKv { current_revision: 9, hash: 4_082_599_214, compact_revision: -1, hash_revision: 5 };
    assert_eq!(hash, expected);
    assert_eq!(oracle.asked(), ("GET /members/hashkv".into(), br#"{"revision":5}"#.to_vec()));
    let compacted = Oracle::new(400, "mvcc: required revision has been compacted\n").await;
    let refused = ask::hash_kv(compacted.target(), ClusterId(1), 5).await;
    assert!(matches!(refused, Err(AskError::Rejected(Rejection::Compacted))));
}

#[tokio::test]
async fn nobody_and_silence_are_told_apart_from_answers() {
    let nobody = target("http://127.0.0.1:1", Duration::from_millis(500));
    assert!(matches!(ask::version(nobody).await, Err(AskError::Connection { .. })));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = target(&url, Duration::from_millis(300));
    let Err(AskError::Connection { cause, .. }) = ask::version(silent).await else { panic!("no time-out") };
    assert_eq!(cause.kind(), std::io::ErrorKind::TimedOut);
    for nowhere in ["https://127.0.0.1:1", "unixs:///absent", "ftp://127.0.0.1:1"] {
        let nowhere = target(nowhere, Duration::from_millis(300));
        assert!(matches!(ask::version(nowhere).await, Err(AskError::Connection { .. })));
    }
}
