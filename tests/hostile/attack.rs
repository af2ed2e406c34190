//! Connections that begin something and do not end it.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{
    frames::{PREFACE, SETTINGS, headers},
    target::{Port, Target},
};

/// Connections begun at a time.
const BEGUN_AT_A_TIME: usize = 64;
/// Longest wait for the daemon to take a connection: more wait than the system's queue holds.
const CONNECTS_WITHIN: Duration = Duration::from_secs(30);
/// The pause between two bytes of a request that drips.
const DRIP: Duration = Duration::from_millis(500);
/// Written at a time of a body without end.
const PIECE_BYTES: usize = 1 << 16;
/// Longest wait for the answer to a body, or for room to write more of it.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// What a connection begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Nothing at all.
    Nothing,
    /// The first bytes of a TLS handshake.
    Handshake,
    /// The first lines of an HTTP/1 request.
    Head,
    /// The preface of HTTP/2.
    Preface,
    /// A header block on HTTP/2.
    Headers,
    /// Calls whose messages do not come.
    Streams,
    /// A whole request, a byte at a time.
    Drops,
}

const HEAD: &[u8] = b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Le";
/// A handshake record that promises more than it has.
const HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 1, 2, 3, 4];
/// Streams that one connection begins.
const STREAMS: u32 = 8;

impl Kind {
    fn opening(self) -> Vec<u8> {
        match self {
            Self::Nothing | Self::Drops => Vec::new(),
            Self::Handshake => HELLO.to_vec(),
            Self::Head => HEAD.to_vec(),
            Self::Preface => [PREFACE, SETTINGS].concat(),
            Self::Headers => {
                let frame = headers(1, "/etcdserverpb.KV/Put", false);
                [PREFACE, SETTINGS, frame.get(..frame.len() / 2).unwrap_or_default()].concat()
            }
            Self::Streams => {
                let mut bytes = [PREFACE, SETTINGS].concat();
                for stream in 0..STREAMS {
                    bytes.extend(headers(2 * stream + 1, "/etcdserverpb.KV/Put", true));
                    // Five bytes of a message that says it has a kilobyte.
                    bytes.extend([0, 0, 5, 0, 0, 0, 0, 0]);
                    bytes.push(u8::try_from(2 * stream + 1).unwrap_or(1));
                    bytes.extend([0, 0, 0, 4, 0]);
                }
                bytes
            }
        }
    }
}

/// A connection that is held as long as this lives.
pub(crate) struct Held(AbortHandle);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// So many connections, of every kind at every listener where it fits.
pub(crate) async fn stall(target: &Target, count: usize) -> Vec<Held> {
    let plain = [Kind::Nothing, Kind::Head, Kind::Preface, Kind::Headers, Kind::Streams];
    let encrypted = [Kind::Nothing, Kind::Handshake];
    let pairs = Port::ALL.iter().flat_map(|port| {
        let kinds: &[Kind] = if *port == Port::Encrypted { &encrypted } else { &plain };
        kinds.iter().map(|kind| (*port, *kind)).collect::<Vec<_>>()
    });
    let pairs: Vec<_> = pairs.collect();
    let mut held = Vec::new();
    for (number, (port, kind)) in pairs.iter().enumerate() {
        let share = count * (number + 1) / pairs.len() - count * number / pairs.len();
        held.extend(hold(target, *port, *kind, share).await);
    }
    held
}

/// So many connections of one kind at one listener. Those that the daemon ends are counted by it.
pub(crate) async fn hold(target: &Target, port: Port, kind: Kind, count: usize) -> Vec<Held> {
    let address = target.address(port);
    let room = Arc::new(tokio::sync::Semaphore::new(BEGUN_AT_A_TIME));
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let turn = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        let connection = tokio::spawn(async move {
            let begun = timeout(CONNECTS_WITHIN, TcpStream::connect(address)).await;
            let Ok(Ok(mut stream)) = begun else { return };
            let opened = stream.write_all(&kind.opening()).await;
            drop(turn);
            if opened.is_ok() && matches!(kind, Kind::Drops) {
                drip(&mut stream).await;
            }
            // Until the daemon has had enough.
            let mut heard = [0; 512];
            while stream.read(&mut heard).await.is_ok_and(|read| read > 0) {}
        });
        held.push(Held(connection.abort_handle()));
    }
    // All of them have begun when every turn is back.
    let all = u32::try_from(BEGUN_AT_A_TIME).expect("a small number");
    drop(room.acquire_many(all).await.expect("it is never closed"));
    held
}

async fn drip(stream: &mut TcpStream) {
    for byte in HEAD.iter().chain(std::iter::repeat_n(&b'1', 100_000)) {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        sleep(DRIP).await;
    }
}

/// A request whose body is too long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body {
    pub(crate) name: &'static str,
    port: Port,
    /// Everything before the body.
    head: &'static str,
    /// Whether its length is told beforehand, or it comes in chunks.
    chunked: bool,
    /// The first bytes of it.
    begins: &'static [u8],
}

const fn told(name: &'static str, port: Port, head: &'static str) -> Body {
    Body { name, port, head, chunked: false, begins: b"{\"key\":\"" }
}

const fn in_chunks(name: &'static str, port: Port, head: &'static str) -> Body {
    Body { name, port, head, chunked: true, begins: b"{\"key\":\"" }
}

pub(crate) const BODIES: &[Body] = &[
    told("JSON, length told", Port::Client, "POST /v3/kv/put HTTP/1.1\r\n"),
    in_chunks("JSON, in chunks", Port::Client, "POST /v3/kv/put HTTP/1.1\r\n"),
    in_chunks("JSON stream, in chunks", Port::Client, "POST /v3/watch HTTP/1.1\r\n"),
    told(
        "v2 form, length told",
        Port::Client,
        "PUT /v2/keys/a HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n",
    ),
    in_chunks(
        "v2 form, in chunks",
        Port::Client,
        "PUT /v2/keys/a HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n",
    ),
    told("raft message, length told", Port::Peer, "POST /raft HTTP/1.1\r\nX-Server-Version: 3.7.1\r\n"),
    in_chunks("raft message, in chunks", Port::Peer, "POST /raft HTTP/1.1\r\nX-Server-Version: 3.7.1\r\n"),
    in_chunks("snapshot, in chunks", Port::Peer, "POST /raft/snapshot HTTP/1.1\r\nX-Server-Version: 3.7.1\r\n"),
];

/// Sends a body until it is refused; how much of it was taken, and the first line of the answer.
pub(crate) async fn send_endless(target: &Target, body: &'static Body, bytes: u64) -> (u64, Option<String>) {
    let stream = TcpStream::connect(target.address(body.port)).await.expect("the listener accepts");
    let (mut answers, mut requests) = stream.into_split();
    let length =
        if body.chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {bytes}") };
    let cluster = format!("X-Etcd-Cluster-ID: {}\r\nX-Min-Cluster-Version: 3.0.0", target.cluster());
    let head = format!("{}Host: x\r\n{cluster}\r\n{length}\r\n\r\n", body.head);
    let sending = tokio::spawn(async move {
        let mut taken = 0;
        let piece = piece(body);
        if requests.write_all(head.as_bytes()).await.is_err() {
            return taken;
        }
        while taken < bytes {
            match timeout(ANSWERS_WITHIN, requests.write_all(&piece)).await {
                Ok(Ok(())) => taken += PIECE_BYTES as u64,
                _ => break,
            }
        }
        taken
    });
    let mut answer = Vec::new();
    let answered = timeout(ANSWERS_WITHIN * 3, answers.read_buf(&mut answer)).await;
    let line = String::from_utf8_lossy(&answer).lines().next().map(str::to_owned);
    drop(answers);
    drop(answered);
    (sending.await.expect("the sender ends"), line)
}

fn piece(body: &Body) -> Vec<u8> {
    let mut bytes = body.begins.to_vec();
    bytes.resize(PIECE_BYTES, b'A');
    if body.chunked { [format!("{PIECE_BYTES:x}\r\n").as_bytes(), &bytes, b"\r\n"].concat() } else { bytes }
}
