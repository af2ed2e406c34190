//! Callers and peers that mean no good, spoken to byte by byte.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

const HEADERS: &str = "Host: x\r\nX-Server-Version: 3.7.1\r\nX-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: c1\r\n";

/// Sends `request` and returns the status line and the rest.
async fn say(node: &Node, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\n{HEADERS}{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_hostile_envelope_is_refused_before_it_arrives() {
    let node = Node::start(1).await;
    for length in [u64::MAX, 64 * 1024 * 1024 + 1] {
        let head = format!("POST /raft/snapshot HTTP/1.1\r\n{HEADERS}Content-Length: 999999999\r\n\r\n");
        let answer = say(&node, &[head.as_bytes(), &length.to_be_bytes()].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("failed to decode raft message ("), "{answer}");
    }
    let wrong = post("/raft/snapshot", "", &[0, 0, 0, 0, 0, 0, 0, 2, 8, 3]);
    assert!(say(&node, &wrong).await.contains("wrong raft message type\n"));
    assert!(node.member.snapshots.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_body_that_stops_is_given_up_after_five_seconds() {
    let node = Node::start(1).await;
    let head = format!("POST /raft HTTP/1.1\r\n{HEADERS}Content-Length: 100\r\n\r\nabc");
    let answer = say(&node, head.as_bytes()).await;
    assert!(answer.contains("error reading raft message"), "{answer}");
}

/// Reads requests, answers votes, and breaks off at proposals; returns how many of them came.
async fn hear_out(listener: tokio::net::TcpListener, proposals: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let proposals = Arc::clone(&proposals);
        connections.spawn(async move { hear_one(stream, &proposals).await });
    }
}

async fn hear_one(mut stream: TcpStream, proposals: &AtomicUsize) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let (head, body) = loop {
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
                let length = head.split_once("content-length: ")?.1.lines().next()?.parse::<usize>().ok()?;
                if bytes.len() >= end + 4 + length {
                    break (head, bytes.split_off(end + 4));
                }
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        bytes.clear();
        if !head.starts_with("post /raft ") {
            return None;
        }
        let message = <Message as prost::Message>::decode(body.as_slice()).ok()?;
        if message.r#type() == MessageType::MsgProp {
            proposals.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok()?;
    }
}

/// A request whose connection broke was sent once more on another one, and a proposal was carried out twice if the peer had
/// taken it already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_is_sent_once_whatever_becomes_of_its_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let proposals = Arc::new(AtomicUsize::new(0));
    let mut server = JoinSet::new();
    server.spawn(hear_out(listener, Arc::clone(&proposals)));
    let nodes = [Node::start(1).await, Node::start(2).await];
    nodes[0].transport.set_peers([(MemberId(2), vec![url])].into());
    // Every connection for single requests has been used when the proposals come.
    nodes[0].send(&nodes[1], MessageType::MsgVote, 0..16);
    tokio::time::sleep(Duration::from_millis(500)).await;
    nodes[0].send(&nodes[1], MessageType::MsgProp, 0..8);
    until("all proposals are heard", || proposals.load(Ordering::SeqCst) >= 8).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(proposals.load(Ordering::SeqCst), 8);
    assert_eq!(nodes[0].member.undelivered.load(Ordering::SeqCst), 0, "they may have arrived");
}

#[tokio::test]
async fn strangers_share_a_few_places_and_members_keep_theirs() {
    let node = Node::start(1).await;
    node.transport.set_peers([(MemberId(2), vec!["http://127.0.0.1:1".into()])].into());
    let open = format!("POST /raft HTTP/1.1\r\n{HEADERS}Content-Length: 100\r\n\r\n");
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(open.as_bytes()).await.unwrap();
        held.push(stream);
    }
    until("a stranger too many", || node.transport.budget().unknown_posts.available_permits() == 0).await;
    assert!(say(&node, &post("/raft", "", b"")).await.starts_with("HTTP/1.1 503"));
    let vote = prost::Message::encode_to_vec(&Message { r#type: 5, from: 2, to: 1, ..Default::default() });
    assert!(say(&node, &post("/raft", "X-Server-From: 2\r\n", &vote)).await.starts_with("HTTP/1.1 204"));
}

#[tokio::test]
async fn a_crowd_of_strangers_is_not_remembered() {
    let node = Node::start(1).await;
    for stranger in 16..100 {
        let headers = format!("X-Server-From: {stranger:x}\r\nX-PeerURLs: http://127.0.0.1:{stranger}\r\n");
        say(&node, &post("/raft", &headers, b"")).await;
    }
    let remembered = (16..100).filter(|id| node.transport.capabilities(MemberId(*id)).is_some()).count();
    assert_eq!(remembered, 16);
    assert!(node.transport.capabilities(MemberId(99)).is_some(), "the newest stay");
}

/// A peer that accepts streams and answers them with `body`.
async fn evil_peer(body: &'static [u8]) -> (String, JoinSet<()>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&accepted);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            stream.write_all(body).await.unwrap();
            held.push(stream);
        }
    });
    (url, tasks, accepted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_on_a_stream_ends_it_and_is_dialled_again_at_a_limited_rate() {
    let node = Node::start(1).await;
    let begun = tokio::time::Instant::now();
    let (url, _tasks, accepted) =
        evil_peer(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n\x01\xff\xff\xff\xff\xff\xff\xff\xff").await;
    node.transport.set_peers([(MemberId(2), vec![url])].into());
    until("several attempts", || accepted.load(Ordering::SeqCst) >= 8).await;
    // Two streams, each at most once in 100 ms.
    let most = 2 * (begun.elapsed().as_millis() / 100 + 1) as usize;
    assert!(accepted.load(Ordering::SeqCst) <= most, "more than {most} dials");
    assert!(node.member.received.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_accepts_and_says_nothing_is_given_up() {
    let node = Node::start(1).await;
    let (url, _tasks, accepted) = evil_peer(b"").await;
    node.transport.set_peers([(MemberId(2), vec![url])].into());
    until("a second round of streams", || accepted.load(Ordering::SeqCst) >= 5).await;
    assert_eq!(node.transport.active_since(MemberId(2)), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_or_an_error_is_no_stream() {
    let node = Node::start(1).await;
    let (url, _tasks, accepted) = evil_peer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    node.transport.set_peers([(MemberId(2), vec![url])].into());
    until("several attempts", || accepted.load(Ordering::SeqCst) >= 6).await;
    assert_eq!(node.transport.active_since(MemberId(2)), None);
    assert_eq!(node.transport.capabilities(MemberId(2)), None);
}
