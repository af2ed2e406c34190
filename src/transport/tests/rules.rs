//! The statuses and texts that members of etcd act upon.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use prost::Message as _;

use super::*;
use crate::transport::{
    connect::{Connection, full},
    headers,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// A caller that is a member, so far as its headers go.
struct Caller {
    node: Node,
    member: Arc<Member>,
}

impl Caller {
    async fn new() -> Self {
        let (node, member) = (Node::start(1).await, Member::new(2));
        *member.urls.lock().unwrap() = vec!["http://127.0.0.1:1".into()];
        node.transport.set_peers([(MemberId(2), vec!["http://127.0.0.1:1".into()])].into());
        Self { node, member }
    }

    fn headers(&self) -> HeaderMap {
        headers::stream_request(&*self.member, MemberId(1))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: impl Into<bytes::Bytes>,
    ) -> (u16, String) {
        let mut connection = Connection::dial(&self.node.url, &Dialler::default(), PATIENCE).await.unwrap();
        let answer = connection.send(method, path, headers, full(body)).await.unwrap();
        if path != "/raft/probing" && answer.status() != 404 {
            assert_eq!(answer.headers()["x-etcd-cluster-id"], "c1");
            assert_eq!(answer.headers()["x-server-version"], "3.7.1");
        }
        let status = answer.status().as_u16();
        if status == 200 {
            return (status, String::new());
        }
        let text = connection.whole(answer.into_body(), 1 << 20, PATIENCE).await.unwrap();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }

    async fn get(&self, path: &str, headers: HeaderMap) -> (u16, String) {
        self.ask(Method::GET, path, headers, "").await
    }

    async fn post(&self, message: &Message) -> (u16, String) {
        self.ask(Method::POST, "/raft", self.headers(), message.encode_to_vec()).await
    }

    fn with(&self, name: &'static str, value: &'static str) -> HeaderMap {
        let mut headers = self.headers();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        headers
    }
}

fn answer(status: u16, text: &str) -> (u16, String) {
    (status, format!("{text}\n"))
}

#[tokio::test]
async fn streams_are_refused_in_etcds_order_and_words() {
    let caller = Caller::new().await;
    caller.node.member.removed.lock().unwrap().insert(MemberId(3));
    let path = "/raft/stream/msgapp/2";
    let post = caller.ask(Method::POST, path, HeaderMap::new(), "").await;
    assert_eq!(post, answer(405, "Method Not Allowed"));
    assert_eq!(caller.get(path, HeaderMap::new()).await, answer(412, "incompatible version"));
    let other = caller.with("x-etcd-cluster-id", "c2");
    assert_eq!(caller.get("/raft/stream/nonsense/3", other).await, answer(412, "cluster ID mismatch"));
    for path in ["/raft/stream/nonsense/2", "/raft/stream/msgapp", "/raft/stream/msgapp/x/2"] {
        assert_eq!(caller.get(path, caller.headers()).await, answer(404, "invalid path"), "{path}");
    }
    assert_eq!(caller.get("/raft/stream/message/xyz", caller.headers()).await, answer(404, "invalid from"));
    let removed = caller.get("/raft/stream/message/3", caller.with("x-raft-to", "9")).await;
    assert_eq!(removed, answer(410, "removed member"));
    let stranger = caller.get("/raft/stream/message/4", caller.with("x-raft-to", "9")).await;
    assert_eq!(stranger, answer(404, "error sender not found"));
    assert_eq!(caller.get(path, caller.with("x-raft-to", "9")).await, answer(412, "to field mismatch"));
    assert_eq!(caller.get(path, caller.headers()).await.0, 200);
    assert_eq!(caller.get("/raft/elsewhere", caller.headers()).await, answer(404, "404 page not found"));
}

#[tokio::test]
async fn messages_are_taken_or_refused_and_only_removal_is_called_403() {
    let caller = Caller::new().await;
    caller.node.member.removed.lock().unwrap().insert(MemberId(3));
    let vote = Message { r#type: MessageType::MsgVote.into(), from: 2, to: 1, term: 1, ..Default::default() };
    assert_eq!(caller.post(&vote).await, (204, String::new()));
    assert_eq!(caller.node.member.received.lock().unwrap().as_slice(), std::slice::from_ref(&vote));
    let removed = caller.post(&Message { from: 3, ..vote.clone() }).await;
    assert_eq!(removed, (403, r#"{"message":"cannot process message from removed member"}"#.into()));
    for wrong in [
        Message { to: 9, ..vote.clone() },
        Message { from: 4, ..vote.clone() },
        Message { from: 0, ..vote.clone() },
        Message { r#type: MessageType::MsgSnap.into(), ..vote.clone() },
        Message { r#type: MessageType::MsgHup.into(), ..vote.clone() },
        Message { r#type: 23, ..vote },
    ] {
        assert_eq!(caller.post(&wrong).await.0, 400, "{wrong:?}");
    }
    let nonsense = caller.ask(Method::POST, "/raft", caller.headers(), "\u{1}\u{1}\u{1}").await;
    assert_eq!(nonsense, answer(400, "error unmarshalling raft message"));
    let other = caller.ask(Method::POST, "/raft", caller.with("x-etcd-cluster-id", "c2"), "").await;
    assert_eq!(other, answer(412, "cluster ID mismatch"));
    let got = caller.get("/raft", caller.headers()).await;
    assert_eq!(got, answer(405, "Method Not Allowed"));
    assert_eq!(caller.node.member.received.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn probing_needs_no_headers() {
    let caller = Caller::new().await;
    assert_eq!(caller.get("/raft/probing", HeaderMap::new()).await.0, 200);
}
