//! Snapshots between members, whole and broken.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::*;

fn pieces(count: usize) -> Vec<Bytes> {
    (0..count).map(|number| Bytes::from(vec![u8::try_from(number % 251).unwrap(); 50_000])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_arrives_whole_in_either_form() {
    let nodes = Node::start_all(2).await;
    for form in [SnapshotForm::Native, SnapshotForm::Bbolt] {
        for (from, to) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
            let sent = pieces(60);
            let message = from.message(to, MessageType::MsgSnap, 7);
            let body = stream::iter(sent.clone()).map(Ok);
            from.transport.send_snapshot(message.clone(), form, body).await.unwrap();
            let received = to.member.snapshots.lock().unwrap().pop().unwrap();
            assert_eq!((received.message, received.form), (message, form));
            assert_eq!(received.data.unwrap(), sent.concat());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_snapshot_is_one_too() {
    let nodes = Node::start_all(2).await;
    let message = nodes[0].message(&nodes[1], MessageType::MsgSnap, 7);
    nodes[0].transport.send_snapshot(message, SnapshotForm::Native, stream::empty()).await.unwrap();
    assert_eq!(nodes[1].member.snapshots.lock().unwrap()[0].data, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_breaks_off_is_seen_as_such() {
    let nodes = Node::start_all(2).await;
    let message = nodes[0].message(&nodes[1], MessageType::MsgSnap, 7);
    let body = stream::iter(pieces(20)).map(Ok).chain(stream::iter([Err(io::ErrorKind::Other.into())]));
    let sent = nodes[0].transport.send_snapshot(message, SnapshotForm::Native, body).await;
    assert!(matches!(sent, Err(SendError::Connection { .. })), "{sent:?}");
    until("the receiver notices", || !nodes[1].member.snapshots.lock().unwrap().is_empty()).await;
    assert_eq!(nodes[1].member.snapshots.lock().unwrap()[0].data, Err(io::ErrorKind::UnexpectedEof));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_pauses_is_given_up() {
    let nodes = Node::start_all(2).await;
    let message = nodes[0].message(&nodes[1], MessageType::MsgSnap, 7);
    let body = stream::iter(pieces(1)).map(Ok).chain(stream::pending());
    let sent = nodes[0].transport.send_snapshot(message, SnapshotForm::Native, body).await;
    let Err(SendError::Refused { status: 500, text, .. }) = sent else { panic!("{sent:?}") };
    assert_eq!(text, "failed to save KV snapshot (no room)");
    assert_eq!(nodes[1].member.snapshots.lock().unwrap()[0].data, Err(io::ErrorKind::TimedOut));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_reach_the_sender() {
    let nodes = Node::start_all(2).await;
    let message = nodes[0].message(&nodes[1], MessageType::MsgSnap, 7);
    let send = async |message: &Message| {
        nodes[0].transport.send_snapshot(message.clone(), SnapshotForm::Bbolt, stream::empty()).await
    };
    nodes[1].member.refuses.store(true, Ordering::SeqCst);
    assert!(matches!(send(&message).await, Err(SendError::Refused { status: 500, .. })));
    nodes[1].member.removed.lock().unwrap().insert(MemberId(1));
    assert!(matches!(send(&message).await, Err(SendError::Refused { status: 403, .. })));
    assert!(nodes[0].member.told_removed.load(Ordering::SeqCst) > 0);
    let vote = nodes[0].message(&nodes[1], MessageType::MsgVote, 7);
    assert!(matches!(send(&vote).await, Err(SendError::UnknownPeer(_))));
    assert!(matches!(send(&Message { to: 9, ..message }).await, Err(SendError::UnknownPeer(MemberId(9)))));
}
