//! Streams from one peer: dialled by this member, read until they break, dialled again.

use std::{future::pending, io, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    codec::{CodecError, MessageDecoder, MsgAppDecoder},
    connect::{Connection, full},
    deliver::deliver,
    headers::{self, Introduction},
    outbox::StreamKind,
    pace::asks,
    patience::Patience,
    peer::Peer,
    reports::{STEADY_AFTER, Topic},
};
use crate::pb::raftpb::Message;

/// A stream that says nothing for so long is dead; its writer sends a heartbeat three times as often.
pub(super) const READ_PATIENCE: Duration = Duration::from_secs(5);
/// A stream is dialled at most once in this time, as in etcd.
const DIAL_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longest text of a refusal that is read.
pub(super) const REFUSAL_BYTES_MAX: usize = 4 * 1024;

/// Why a stream ended. It is dialled again whatever the reason.
#[derive(Debug, Error)]
pub(super) enum StreamEnd {
    #[error("the connection broke")]
    Connection(#[from] io::Error),
    #[error("refused: {status} {text}")]
    Refused { status: StatusCode, text: String },
    #[error("the peer sends nonsense: check that its URL is that of a member and that no proxy is between")]
    Nonsense(#[from] CodecError),
    #[error("closed by the peer, whose log may say why")]
    Closed,
}

impl StreamEnd {
    /// Whether there is a host but nobody listens.
    fn met_nobody(&self) -> bool {
        matches!(self, Self::Connection(cause) if cause.kind() == io::ErrorKind::ConnectionRefused)
    }

    fn topic(&self) -> Topic {
        match self {
            Self::Connection(_) => Topic::Broken,
            Self::Refused { .. } => Topic::Refused,
            Self::Nonsense(_) => Topic::Nonsense,
            Self::Closed => Topic::Closed,
        }
    }
}

/// Keeps the stream of `kind` from `peer` up until the peer is gone.
pub(super) async fn keep(peer: Arc<Peer>, kind: StreamKind) {
    loop {
        let next_dial = Instant::now() + DIAL_INTERVAL_MIN;
        let attempt = async {
            let end = read(&peer, kind).await;
            peer.set_link(kind, false);
            report(&peer, kind, &end);
            sleep_until(next_dial).await;
        };
        tokio::select! {
            () = attempt => {}
            () = peer.stop.cancelled() => return peer.set_link(kind, false),
        }
    }
}

/// One connection, from dialling to its end.
async fn read(peer: &Peer, kind: StreamKind) -> StreamEnd {
    let url = peer.url();
    let opened = open(peer, kind, &url).await;
    peer.note_dial(&url, opened.as_ref().is_err_and(StreamEnd::met_nobody));
    let (mut connection, body) = match opened {
        Ok(opened) => opened,
        Err(end) => {
            peer.pass_over(&url);
            return end;
        }
    };
    peer.set_link(kind, true);
    let settling = async {
        sleep(STEADY_AFTER).await;
        peer.settle();
        pending().await
    };
    tokio::select! {
        biased;
        read = read_all(peer, kind, &mut connection, body) => read.err().unwrap_or(StreamEnd::Closed),
        never = settling => never,
    }
}

async fn open(peer: &Peer, kind: StreamKind, url: &str) -> Result<(Connection, Incoming), StreamEnd> {
    let local = &*peer.shared().local;
    let mut connection = peer.dial(url).await?;
    let path = format!("{}{}", kind.path(), local.member());
    let mut headers = headers::stream_request(local, peer.id);
    headers::name_process(&mut headers, peer.shared().process);
    let answer = connection.send(Method::GET, &path, headers, full(""));
    let answer = timeout(READ_PATIENCE, answer).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let status = answer.status();
    if status == StatusCode::OK {
        peer.heard(Introduction::read(answer.headers()));
        if answer.headers().contains_key(headers::CONTESTED) {
            peer.heard_of_rival();
        }
        return Ok((connection, answer.into_body()));
    }
    if status == StatusCode::GONE {
        local.told_removed(peer.id);
    }
    Err(StreamEnd::Refused { status, text: refusal(&mut connection, answer.into_body()).await })
}

/// What a peer says in refusing, without the line end.
pub(super) async fn refusal(connection: &mut Connection, body: Incoming) -> String {
    let text = connection.whole(body, REFUSAL_BYTES_MAX, READ_PATIENCE).await.unwrap_or_default();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

/// Decodes either kind of stream.
enum Decoder {
    MsgApp(MsgAppDecoder),
    Message(MessageDecoder),
}

impl Decoder {
    fn new(peer: &Peer, kind: StreamKind) -> Self {
        match kind {
            StreamKind::MsgApp => Self::MsgApp(MsgAppDecoder::new(peer.id, peer.shared().local.member())),
            StreamKind::Message => Self::Message(MessageDecoder::default()),
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        match self {
            Self::MsgApp(decoder) => decoder.extend(bytes),
            Self::Message(decoder) => decoder.extend(bytes),
        }
    }

    fn next(&mut self) -> Result<Option<Message>, CodecError> {
        match self {
            Self::MsgApp(decoder) => decoder.next(),
            Self::Message(decoder) => decoder.next(),
        }
    }
}

async fn read_all(
    peer: &Peer,
    kind: StreamKind,
    connection: &mut Connection,
    mut body: Incoming,
) -> Result<(), StreamEnd> {
    let mut decoder = Decoder::new(peer, kind);
    let mut patience = Patience::new(READ_PATIENCE);
    while let Some(piece) = connection.piece(&mut body, &mut patience).await? {
        peer.counters.received_bytes.add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        decoder.extend(&piece);
        while let Some(message) = decoder.next()? {
            if asks(&message) {
                peer.outbox.asked();
            }
            if let Err(reason) = deliver(&*peer.shared().local, Some(peer.id), message).await {
                peer.counters.received_failures.inc();
                tracing::debug!(peer = %peer.id, %reason, "dropped a message from a peer");
            }
        }
    }
    Ok(())
}

/// Logs why a stream ended, as often as [`Peer::tell`] allows.
fn report(peer: &Peer, kind: StreamKind, end: &StreamEnd) {
    let cause = std::error::Error::source(end).map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = format!("{end}{cause}");
    if let Some(suppressed) = peer.tell(end.topic(), Some(&text)) {
        let suppressed = suppressed.field();
        tracing::warn!(peer = %peer.id, stream = kind.path(), reason = text, suppressed, "no stream from a peer");
    }
}
