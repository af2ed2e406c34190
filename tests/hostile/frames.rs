//! Frames of HTTP/2 and messages of gRPC, by hand and by lot.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    support::random::Random,
    target::{Port, Target},
};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: u8 = 7;
/// Frames written on one connection.
const BATCH: usize = 100;
/// Connections at a time.
const SIDE_BY_SIDE: usize = 8;
/// Longest wait for the end of a connection that was told nonsense.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// Longest payload that is really sent.
const PAYLOAD_BYTES: u64 = 64;

/// The first frame of a call: a header block of literals, without compression.
pub(crate) fn headers(stream: u32, path: &str, whole: bool) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in
        [(":path", path), (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers")]
    {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    frame(1, if whole { 4 } else { 0 }, stream, &block)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What was sent, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) frames: usize,
    pub(crate) connections: usize,
    /// Connections that were ended with a reason.
    pub(crate) refused: u64,
}

/// Sends `count` frames that are wrong in all kinds of ways.
pub(crate) async fn flood(target: &Target, count: usize) -> Sent {
    let address = target.address(Port::Client);
    let batches = count.div_ceil(BATCH);
    let workers: Vec<_> = (0..SIDE_BY_SIDE)
        .map(|worker| {
            tokio::spawn(async move {
                let mut random = Random::new(worker as u64 + 1);
                let mut sent = Sent::default();
                for _ in (worker..batches).step_by(SIDE_BY_SIDE) {
                    let bytes: Vec<u8> = (0..BATCH).flat_map(|_| malformed(&mut random)).collect();
                    sent.frames += BATCH;
                    sent.connections += 1;
                    sent.refused += u64::from(is_refused(address, &bytes).await);
                }
                sent
            })
        })
        .collect();
    let mut all = Sent::default();
    for worker in workers {
        let sent = worker.await.expect("the worker ends");
        all.frames += sent.frames;
        all.connections += sent.connections;
        all.refused += sent.refused;
    }
    all
}

/// Whether the connection was ended with a reason other than good order.
async fn is_refused(address: std::net::SocketAddr, bytes: &[u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    // The daemon may hang up before it has heard everything.
    drop(stream.write_all(&[PREFACE, SETTINGS, bytes].concat()).await);
    drop(stream.shutdown().await);
    let mut heard = Vec::new();
    drop(timeout(ENDS_WITHIN, stream.read_to_end(&mut heard)).await);
    goodbye(&heard).is_some_and(|code| code != 0)
}

/// The code of the last GOAWAY.
fn goodbye(mut bytes: &[u8]) -> Option<u32> {
    let mut code = None;
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = rest.get(..length)?;
        if head[3] == GOAWAY {
            code = payload.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        }
        bytes = rest.get(length..)?;
    }
    code
}

/// A frame that is wrong in one of many ways.
fn malformed(random: &mut Random) -> Vec<u8> {
    let length = usize::try_from(random.below(PAYLOAD_BYTES)).expect("a short payload");
    let payload = random.bytes(length);
    let [kind, flags, ..] = random.bits().to_le_bytes();
    let stream = u32::try_from(random.below(16)).expect("a small number");
    match random.below(8) {
        // Anything.
        0 => random.bytes(length + 9),
        // Of a kind that exists, with anything in it.
        1 => frame(kind % 10, flags, stream, &payload),
        // A length that is not allowed, or not true.
        2 => [&[0xff, 0xff, 0xff, kind % 10, flags][..], &stream.to_be_bytes(), &payload].concat(),
        // For a stream that is not there: data, resets, windows, continuations.
        3 => frame(*random.pick(&[0, 3, 8, 9]), 0, 2 * stream + 101, &payload),
        // Settings that mean nothing, or too much.
        4 => frame(4, 0, 0, &[0, *random.pick(&[1, 2, 3, 4, 5, 6]), 0xff, 0xff, 0xff, 0xff]),
        // A window of nothing.
        5 => frame(8, 0, stream, &[0; 4]),
        // A header block that is none.
        6 => frame(1, 4, 2 * stream + 1, &payload),
        // A call that is reset at once.
        _ => {
            let stream = 2 * stream + 1;
            [headers(stream, "/etcdserverpb.KV/Range", true), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
        }
    }
}

/// Sends `count` calls whose message is malformed, on one connection after the other; how many were answered.
pub(crate) async fn messages(target: &Target, count: usize) -> u64 {
    let mut random = Random::new(7);
    let mut answered = 0;
    for _ in 0..count.div_ceil(BATCH) {
        let mut stream = TcpStream::connect(target.address(Port::Client)).await.expect("the listener accepts");
        let mut bytes = [PREFACE, SETTINGS].concat();
        for call in 0..u32::try_from(BATCH).expect("a small number") {
            let path = random.pick(&["/etcdserverpb.KV/Put", "/etcdserverpb.KV/Txn", "/etcdserverpb.Lease/LeaseGrant"]);
            bytes.extend(headers(2 * call + 1, path, true));
            bytes.extend(frame(0, 1, 2 * call + 1, &message(&mut random)));
        }
        bytes.extend([0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        stream.write_all(&bytes).await.expect("the daemon reads");
        answered += trailers(&mut stream).await;
    }
    answered
}

/// A message that is cut off, of no known compression, or no message at all.
fn message(random: &mut Random) -> Vec<u8> {
    let garbage = [&[0x0f][..], &random.bytes(8)].concat();
    match random.below(3) {
        0 => [&[0, 0, 0, 0, 200][..], &garbage].concat(),
        1 => [&[1, 0, 0, 0, 9][..], &garbage].concat(),
        _ => [&[0, 0, 0, 0, 9][..], &garbage].concat(),
    }
}

/// Answers until all calls of a batch have ended.
async fn trailers(stream: &mut TcpStream) -> u64 {
    let (mut ended, mut bytes) = (0, Vec::new());
    while ended < BATCH as u64 {
        let read = timeout(ENDS_WITHIN * 5, stream.read_buf(&mut bytes)).await;
        assert!(matches!(read, Ok(Ok(1..))), "{ended} of {BATCH} calls answered: {read:?}");
        while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if rest.len() < length {
                break;
            }
            // The end of a stream, in its headers.
            ended += u64::from(head[3] == 1 && head[4] & 1 == 1);
            bytes.drain(..9 + length);
        }
    }
    ended
}
