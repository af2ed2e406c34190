//! Single requests for messages that no stream can carry: to a peer that has not dialled yet, and to senders that are
//! not members yet.

use std::{io, sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use prost::Message as _;
use tokio::time::{Instant, timeout};

use super::{
    connect::{Connection, full},
    headers,
    incoming::{READ_PATIENCE, REFUSAL_BYTES_MAX},
    peer::Peer,
};
use crate::pb::raftpb::{Message, MessageType};

/// Connections for single requests to one peer, as in etcd.
pub(super) const CONNECTIONS: usize = 4;
/// A peer closes an idle connection after five seconds.
const REUSED_WITHIN: Duration = Duration::from_secs(4);
/// Time for a request and its answer: the receiver answers once raft has taken the message.
const POST_PATIENCE: Duration = Duration::from_secs(5);

/// A connection that was used before.
#[derive(Debug)]
struct Kept {
    connection: Connection,
    url: String,
    since: Instant,
}

/// Sends what no stream can carry, one message at a time, until the peer is gone.
pub(super) async fn run(peer: Arc<Peer>) {
    let mut kept = None;
    loop {
        let message = tokio::select! {
            message = peer.outbox.next_unattached() => message,
            () = peer.stop.cancelled() => return,
        };
        let sent = tokio::select! {
            sent = post(&peer, &mut kept, &message) => sent,
            () = peer.stop.cancelled() => return,
        };
        if let Err(Failure { cause, unsent }) = sent {
            tracing::debug!(peer = %peer.id, error = %cause, "a message to a peer is lost");
            peer.lost();
            if unsent && is_proposal(&message) {
                peer.shared().local.undelivered(message);
            }
        }
    }
}

/// Why a message was not taken.
struct Failure {
    cause: io::Error,
    /// Whether nothing of it has left, so that it cannot have arrived.
    unsent: bool,
}

fn is_proposal(message: &Message) -> bool {
    message.r#type() == MessageType::MsgProp
}

/// A connection that was used before may break while it is used again, and then nobody knows whether the message arrived:
/// it is sent once more. Not a proposal, which would be carried out twice: it has a connection of its own.
async fn post(peer: &Peer, kept: &mut Option<Kept>, message: &Message) -> Result<(), Failure> {
    let url = peer.url();
    let reusable = kept.take().filter(|kept| kept.since.elapsed() < REUSED_WITHIN && kept.url == url);
    let reusable = reusable.filter(|_| !is_proposal(message));
    if let Some(Kept { connection, .. }) = reusable
        && let Ok(connection) = post_on(peer, connection, message).await
    {
        *kept = Some(Kept { connection, url, since: Instant::now() });
        return Ok(());
    }
    let failed = |unsent| {
        let url = &url;
        move |cause| {
            peer.pass_over(url);
            Failure { cause, unsent }
        }
    };
    let dialled = peer.dial(&url).await.map_err(failed(true))?;
    let connection = post_on(peer, dialled, message).await.map_err(failed(false))?;
    *kept = Some(Kept { connection, url, since: Instant::now() });
    Ok(())
}

async fn post_on(peer: &Peer, mut connection: Connection, message: &Message) -> io::Result<Connection> {
    let local = &*peer.shared().local;
    let bytes = message.encode_to_vec();
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mut headers = headers::request(local);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
    let answer = connection.send(Method::POST, "/raft", headers, full(bytes));
    let answer = timeout(POST_PATIENCE, answer).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let status = answer.status();
    let text = connection.whole(answer.into_body(), REFUSAL_BYTES_MAX, READ_PATIENCE).await?;
    match status {
        StatusCode::NO_CONTENT => {
            peer.counters.sent_bytes.add(length);
            return Ok(connection);
        }
        StatusCode::FORBIDDEN => local.told_removed(peer.id),
        _ => {}
    }
    Err(io::Error::other(format!("refused: {status} {}", String::from_utf8_lossy(&text).trim_end())))
}
