//! The leanest client that watches: HTTP/2 by hand, its answers looked at where they lie, so that the load costs little
//! beside what is measured. Windows are opened wide once, header blocks are passed over, messages are counted.

use bytes::{Buf as _, BufMut as _, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, decode_key, decode_varint},
};
use quorate::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request::RequestUnion};
use std::{collections::HashMap, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// The flag and the length before every gRPC message.
const PREFIX_BYTES: usize = 5;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// Bytes a server may send on a stream, and on the connection on top of what the standard grants: more than any run has.
const WINDOW_BYTES: u32 = (1 << 31) - 1;
const DEFAULT_WINDOW_BYTES: u32 = 65_535;
/// Read at a time.
const READ_BYTES: usize = 64 * 1024;

/// What has arrived at a client since it told last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrived {
    /// Watches that were created.
    pub(crate) created: usize,
    /// Events.
    pub(crate) events: usize,
}

/// One connection and its watch streams.
#[derive(Debug)]
pub(crate) struct Watcher {
    socket: TcpStream,
    authority: String,
    next_stream: u32,
    outgoing: BytesMut,
}

impl Watcher {
    /// Dials the proxy.
    ///
    /// # Panics
    /// If nobody listens.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("the proxy listens");
        socket.set_nodelay(true).expect("a socket has options");
        let mut outgoing = BytesMut::from(PREFACE);
        let mut settings = BytesMut::new();
        settings.put_u16(INITIAL_WINDOW_SIZE);
        settings.put_u32(WINDOW_BYTES);
        put_frame(&mut outgoing, SETTINGS, 0, 0, &settings);
        put_frame(&mut outgoing, WINDOW_UPDATE, 0, 0, &(WINDOW_BYTES - DEFAULT_WINDOW_BYTES).to_be_bytes());
        Self { socket, authority: address.to_string(), next_stream: 1, outgoing }
    }

    /// Opens a stream that watches `keys`.
    pub(crate) fn open(&mut self, keys: impl Iterator<Item = String>) {
        let (stream, outgoing) = (self.next_stream, &mut self.outgoing);
        self.next_stream += 2;
        let mut block = BytesMut::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/etcdserverpb.Watch/Watch"),
            (":authority", &*self.authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            put_header(&mut block, name, value);
        }
        put_frame(outgoing, HEADERS, END_HEADERS, stream, &block);
        for key in keys {
            let create = WatchCreateRequest { key: key.into(), ..WatchCreateRequest::default() };
            let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            let mut message = BytesMut::new();
            message.put_u8(0);
            message.put_u32(u32::try_from(create.encoded_len()).expect("a short message"));
            create.encode(&mut message).expect("the buffer grows");
            put_frame(outgoing, DATA, 0, stream, &message);
        }
    }

    /// Reads until the proxy hangs up or nobody listens; tells what has arrived.
    ///
    /// # Panics
    /// If a stream or a watch ends.
    pub(crate) async fn listen(mut self, arrived: mpsc::Sender<Arrived>) {
        let mut incoming = BytesMut::with_capacity(READ_BYTES);
        let mut partial: HashMap<u32, BytesMut> = HashMap::new();
        loop {
            if !self.outgoing.is_empty() {
                self.socket.write_all_buf(&mut self.outgoing).await.expect("the connection lives");
            }
            incoming.reserve(READ_BYTES);
            if self.socket.read_buf(&mut incoming).await.is_ok_and(|bytes| bytes == 0) {
                return;
            }
            let mut now = Arrived::default();
            while let Some(frame) = Frame::take(&mut incoming) {
                self.look_at(frame, &mut partial, &mut now);
            }
            if now.created + now.events > 0 && arrived.send(now).await.is_err() {
                return;
            }
        }
    }

    fn look_at(&mut self, mut frame: Frame, partial: &mut HashMap<u32, BytesMut>, now: &mut Arrived) {
        match frame.kind {
            DATA => {
                let partial = partial.entry(frame.stream).or_default();
                if partial.is_empty() {
                    count(&mut frame.payload, now);
                    *partial = frame.payload;
                } else {
                    partial.extend_from_slice(&frame.payload);
                    count(partial, now);
                }
            }
            SETTINGS if frame.flags & ACK == 0 => put_frame(&mut self.outgoing, SETTINGS, ACK, 0, &[]),
            PING if frame.flags & ACK == 0 => put_frame(&mut self.outgoing, PING, ACK, 0, &frame.payload),
            RST_STREAM | GOAWAY => panic!("a stream has ended: {frame:?}"),
            _ => {}
        }
    }
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: BytesMut,
}

impl Frame {
    /// The first whole frame of `incoming`.
    fn take(incoming: &mut BytesMut) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = *incoming.first_chunk::<FRAME_HEADER_BYTES>()?;
        let payload_bytes = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        if incoming.len() < FRAME_HEADER_BYTES + payload_bytes {
            return None;
        }
        incoming.advance(FRAME_HEADER_BYTES);
        Some(Self { kind, flags, stream: u32::from_be_bytes(stream), payload: incoming.split_to(payload_bytes) })
    }
}

/// Counts the whole messages of `buffer` and passes over them.
fn count(buffer: &mut BytesMut, now: &mut Arrived) {
    while let Some([_, length @ ..]) = buffer.first_chunk::<PREFIX_BYTES>() {
        let whole = PREFIX_BYTES + usize::try_from(u32::from_be_bytes(*length)).expect("a message fits into memory");
        let Some(message) = buffer.get(PREFIX_BYTES..whole) else { return };
        look_into(message, now);
        buffer.advance(whole);
    }
}

/// Counts what one `WatchResponse` says.
fn look_into(mut message: &[u8], now: &mut Arrived) {
    const CREATED: u32 = 3;
    const CANCELED: u32 = 4;
    const EVENTS: u32 = 11;
    while message.has_remaining() {
        let (field, kind) = decode_key(&mut message).expect("a response");
        assert!(field != CANCELED, "a watch was cancelled");
        now.created += usize::from(field == CREATED);
        now.events += usize::from(field == EVENTS);
        let number = decode_varint(&mut message).expect("a number or a length");
        if kind == WireType::LengthDelimited {
            message.advance(usize::try_from(number).expect("a length"));
        }
    }
}

fn put_frame(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, length @ ..] = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    out.put_slice(&length);
    out.put_slice(&[kind, flags]);
    out.put_u32(stream);
    out.put_slice(payload);
}

/// A header by its name, not to be remembered (RFC 7541, §6.2.2).
fn put_header(out: &mut BytesMut, name: &str, value: &str) {
    out.put_u8(0);
    for text in [name, value] {
        // Lengths below 127 are one byte.
        out.put_u8(u8::try_from(text.len()).expect("a short text"));
        out.put_slice(text.as_bytes());
    }
}
