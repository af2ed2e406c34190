//! Messages between members whose connections come and go.

use bytes::Bytes;
use http::Method;

use super::*;
use crate::{
    pb::raftpb::Entry,
    transport::{
        connect::{Connection, full},
        headers,
        patience::Patience,
    },
};
use MessageType::{MsgApp, MsgHeartbeat, MsgProp, MsgSnap, MsgVote};

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_deliver_in_order() {
    let nodes = Node::start_all(3).await;
    connected(&nodes).await;
    for (from, to) in [(0, 1), (0, 2), (1, 2), (2, 0)] {
        for batch in 0..50 {
            nodes[from].send(&nodes[to], MsgApp, batch * 20..batch * 20 + 20);
            nodes[from].send(&nodes[to], MsgVote, [batch]);
        }
        let received = &nodes[to].member;
        until("all appends", || received.received(MsgApp).len() == 1000).await;
        until("all votes", || received.received(MsgVote).len() == 50).await;
        assert_eq!(received.received(MsgApp), (0..1000).collect::<Vec<_>>());
        assert_eq!(received.received(MsgVote), (0..50).collect::<Vec<_>>());
        received.received.lock().unwrap().clear();
    }
    assert_eq!(nodes[0].transport.capabilities(MemberId(2)), Some(Capabilities::OWN));
    assert_eq!(nodes[0].transport.capabilities(MemberId(9)), None);
    assert_eq!(nodes[0].member.unreachable.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_arrive_byte_for_byte_whatever_their_length() {
    let nodes = Node::start_all(2).await;
    connected(&nodes).await;
    let sent: Vec<Message> = [0, 10, 5_000, 1_500_000, 100, 70_000, 0, 1]
        .into_iter()
        .zip(7..)
        .map(|(length, index)| {
            let data = Bytes::from(vec![u8::try_from(index).unwrap(); length]);
            let entry = Entry { r#type: 0, term: 1, index: index + 1, data };
            Message { entries: vec![entry], commit: index, ..nodes[0].message(&nodes[1], MsgApp, index) }
        })
        .collect();
    nodes[0].transport.send(sent.clone());
    until("all appends", || nodes[1].member.received(MsgApp).len() == sent.len()).await;
    assert_eq!(*nodes[1].member.received.lock().unwrap(), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_passes_a_jam_of_appends() {
    let nodes = Node::start_all(2).await;
    connected(&nodes).await;
    nodes[1].member.jammed.store(true, Ordering::SeqCst);
    let entry = Entry { term: 1, index: 1, data: Bytes::from(vec![0; 1 << 20]), ..Default::default() };
    let append = Message { entries: vec![entry], ..nodes[0].message(&nodes[1], MsgApp, 0) };
    for _ in 0..200 {
        nodes[0].transport.send(vec![append.clone()]);
    }
    until("the drop is reported", || nodes[0].member.unreachable.load(Ordering::SeqCst) > 0).await;
    nodes[0].send(&nodes[1], MsgHeartbeat, [1]);
    let waited = tokio::time::timeout(
        Duration::from_secs(1),
        until("the heartbeat", || nodes[1].member.received(MsgHeartbeat) == [1]),
    );
    waited.await.expect("a heartbeat waits for no append");
    assert!(nodes[1].member.received(MsgApp).is_empty());
    nodes[1].member.jammed.store(false, Ordering::SeqCst);
    until("appends flow again", || !nodes[1].member.received(MsgApp).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_streams_are_reported_and_dialled_again() {
    let nodes = Node::start_all(2).await;
    connected(&nodes).await;
    nodes[0].cut.send(()).unwrap();
    until("the break is reported", || nodes[0].member.unreachable.load(Ordering::SeqCst) >= 2).await;
    until("connected again", || {
        nodes[0].send(&nodes[1], MsgApp, [5]);
        !nodes[1].member.received(MsgApp).is_empty()
    })
    .await;
    connected(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_where_nobody_listens_has_gone() {
    let node = Node::start(1).await;
    let vacant = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let urls = vec![format!("http://{vacant}"), format!("http://{}", deaf.local_addr().unwrap())];
    node.transport.set_peers([(MemberId(2), urls.clone())].into());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(node.member.gone.load(Ordering::SeqCst), 0, "somebody listens at one of its URLs");
    node.transport.set_peers([(MemberId(2), vec![urls[0].clone()])].into());
    drop(deaf);
    until("it has gone", || node.member.gone.load(Ordering::SeqCst) > 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_come_back_from_where_nobody_listens() {
    let nodes = [Node::start(1).await, Node::start(2).await];
    let vacant = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    nodes[0].transport.set_peers([(MemberId(2), vec![format!("http://{vacant}")])].into());
    nodes[0].send(&nodes[1], MsgProp, 0..10);
    nodes[0].send(&nodes[1], MsgVote, 0..10);
    until("they come back", || nodes[0].member.undelivered.load(Ordering::SeqCst) == 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_dialled_gets_single_requests() {
    let nodes = [Node::start(1).await, Node::start(2).await];
    nodes[0].transport.set_peers([(MemberId(2), vec!["http://127.0.0.1:1".into(), nodes[1].url.clone()])].into());
    until("a vote by either URL", || {
        nodes[0].send(&nodes[1], MsgVote, [3]);
        !nodes[1].member.received(MsgVote).is_empty()
    })
    .await;
    assert_eq!(nodes[0].transport.active_since(MemberId(2)), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_is_no_member_yet_can_be_answered() {
    let nodes = [Node::start(1).await, Node::start(2).await];
    // The joiner knows the member, who does not know it: its dialling makes it known.
    nodes[1].transport.set_peers([(MemberId(1), vec![nodes[0].url.clone()])].into());
    until("an append to the joiner", || {
        nodes[0].send(&nodes[1], MsgApp, [4]);
        !nodes[1].member.received(MsgApp).is_empty()
    })
    .await;
    assert_eq!(nodes[0].transport.capabilities(MemberId(2)), Some(Capabilities::OWN));
    assert_eq!(nodes[1].transport.active_since(MemberId(1)), None);
    introduce(&nodes);
    connected(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_members_are_told_by_410_and_cut_off() {
    let nodes = Node::start_all(2).await;
    connected(&nodes).await;
    nodes[0].send(&nodes[1], MsgApp, [8]);
    nodes[0].member.removed.lock().unwrap().insert(MemberId(2));
    nodes[0].transport.set_peers(BTreeMap::new());
    until("the last append", || nodes[1].member.received(MsgApp) == [8]).await;
    until("the removal", || nodes[1].member.told_removed.load(Ordering::SeqCst) > 0).await;
    assert_eq!(nodes[1].transport.active_since(MemberId(1)), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_travel_stays() {
    let nodes = Node::start_all(2).await;
    connected(&nodes).await;
    let forged = Message { from: 7, ..nodes[0].message(&nodes[1], MsgVote, 1) };
    let joint =
        Message { entries: vec![Entry { r#type: 2, ..Default::default() }], ..nodes[0].message(&nodes[1], MsgProp, 2) };
    let local = nodes[0].message(&nodes[1], MessageType::MsgHup, 3);
    let unknown = Message { r#type: 19, ..local.clone() };
    let snapshot = nodes[0].message(&nodes[1], MsgSnap, 4);
    let nobody = Message { to: 0, ..nodes[0].message(&nodes[1], MsgVote, 5) };
    let last = nodes[0].message(&nodes[1], MsgVote, 6);
    nodes[0].transport.send(vec![forged, joint, local, unknown, snapshot, nobody, last.clone()]);
    until("the good one", || !nodes[1].member.received.lock().unwrap().is_empty()).await;
    assert_eq!(*nodes[1].member.received.lock().unwrap(), [last]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_stream_ends_the_first() {
    let nodes = [Node::start(1).await, Node::start(2).await];
    nodes[0].transport.set_peers([(MemberId(2), vec!["http://127.0.0.1:1".into()])].into());
    let open = async || {
        let mut connection = Connection::dial(&nodes[0].url, &Dialler::default(), PATIENCE).await.unwrap();
        let headers = headers::stream_request(&*nodes[1].member, MemberId(1));
        let answer = connection.send(Method::GET, "/raft/stream/msgapp/2", headers, full("")).await.unwrap();
        assert_eq!(answer.status(), 200);
        (connection, answer.into_body())
    };
    let (mut first, mut first_body) = open().await;
    let (mut second, mut second_body) = open().await;
    let mut patience = Patience::new(PATIENCE);
    assert_eq!(first.piece(&mut first_body, &mut patience).await.unwrap(), None);
    nodes[0].send(&nodes[1], MsgApp, [1]);
    let piece = second.piece(&mut second_body, &mut patience).await.unwrap().unwrap();
    assert_eq!(piece[0], 2, "a full message");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_stream_shows_that_it_lives() {
    let nodes = [Node::start(1).await, Node::start(2).await];
    nodes[0].transport.set_peers([(MemberId(2), vec!["http://127.0.0.1:1".into()])].into());
    for (path, heartbeat) in [("msgapp", &[0][..]), ("message", &[0, 0, 0, 0, 0, 0, 0, 2, 8, 8])] {
        let mut connection = Connection::dial(&nodes[0].url, &Dialler::default(), PATIENCE).await.unwrap();
        let headers = headers::stream_request(&*nodes[1].member, MemberId(1));
        let answer = connection.send(Method::GET, &format!("/raft/stream/{path}/2"), headers, full("")).await.unwrap();
        let mut body = answer.into_body();
        let piece = connection.piece(&mut body, &mut Patience::new(PATIENCE)).await.unwrap().unwrap();
        assert_eq!(piece, heartbeat);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_transport_ends_all() {
    let nodes = Node::start_all(2).await;
    connected(&nodes).await;
    nodes[0].transport.stop();
    nodes[0].transport.stopped().await;
    until("the other notices", || nodes[1].transport.active_since(MemberId(1)).is_none()).await;
    nodes[0].send(&nodes[1], MsgVote, [1]);
    assert!(nodes[1].member.received(MsgVote).is_empty());
}
