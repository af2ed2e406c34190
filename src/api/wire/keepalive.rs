//! Clients that ping too often are told so and disconnected.
//!
//! The HTTP/2 library answers pings by itself and does not tell of them, so this wrapper reads the frame headers that
//! pass through the connection. The rule is gRPC's: a ping counts against the client if it follows the last one sooner
//! than allowed, or sooner than two hours while no call runs; after anything was sent on a call the count starts anew;
//! the third strike ends the connection with `ENHANCE_YOUR_CALM` and the words the clients' libraries look for.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::{self, Clock as _};

/// Strikes a client is forgiven.
const STRIKES_MAX: u32 = 2;
/// Least time between pings while no call runs.
const IDLE_PING_MIN: Duration = Duration::from_hours(2);
/// Bytes a client sends before its first frame.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;
const REASON: &[u8] = b"too_many_pings";

/// Watches the pings on one connection.
#[derive(Debug)]
pub(crate) struct PingGuard<I> {
    io: I,
    inbound: Frames,
    outbound: Frames,
    rule: PingRule,
    /// Whether calls run on this connection; its driver says so.
    busy: Arc<AtomicBool>,
    last_stream: u32,
}

impl<I> PingGuard<I> {
    /// Guards a connection of which nothing was read. The flag is to be kept true while calls run.
    pub(crate) fn new(io: I, ping_min: Duration) -> (Self, Arc<AtomicBool>) {
        let busy = Arc::new(AtomicBool::new(false));
        let guard = Self {
            io,
            inbound: Frames::after(PREFACE_BYTES),
            outbound: Frames::after(0),
            rule: PingRule { ping_min, last: None, strikes: 0 },
            busy: Arc::clone(&busy),
            last_stream: 0,
        };
        (guard, busy)
    }

    /// Looks at what was received; true if the client went too far.
    fn received(&mut self, bytes: &[u8]) -> bool {
        let Self { inbound, rule, busy, last_stream, .. } = self;
        let mut too_many = false;
        inbound.feed(bytes, |frame| match frame.kind {
            PING if frame.flags & ACK == 0 => {
                too_many |= rule.ping(clock::system().monotonic(), busy.load(Ordering::Relaxed));
            }
            HEADERS => *last_stream = frame.stream.max(*last_stream),
            _ => {}
        });
        too_many
    }

    fn sent(&mut self, bytes: &[u8]) {
        let Self { outbound, rule, .. } = self;
        outbound.feed(bytes, |frame| {
            if matches!(frame.kind, DATA | HEADERS) {
                rule.forgive();
            }
        });
    }
}

impl<I: AsyncWrite + Unpin> PingGuard<I> {
    /// Tells the client why it is disconnected, if no frame of ours is half sent and the socket takes it.
    fn say_goodbye(&mut self, context: &mut Context<'_>) {
        if self.outbound.at_boundary() {
            let frame = goaway(self.last_stream);
            // Whether or not it could be sent, the connection ends here.
            drop(Pin::new(&mut self.io).poll_write(context, &frame));
        }
    }
}

fn goaway(last_stream: u32) -> Vec<u8> {
    let body_bytes = u8::try_from(8 + REASON.len()).expect("a short reason");
    let mut frame = vec![0, 0, body_bytes, GOAWAY, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&last_stream.to_be_bytes());
    frame.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend_from_slice(REASON);
    frame
}

/// When a ping is one too many.
#[derive(Debug)]
struct PingRule {
    ping_min: Duration,
    /// The last ping, by the monotonic clock.
    last: Option<Duration>,
    strikes: u32,
}

impl PingRule {
    /// Notes a ping at `now`; true if it is one too many.
    fn ping(&mut self, now: Duration, busy: bool) -> bool {
        let least = if busy { self.ping_min } else { IDLE_PING_MIN };
        if self.last.is_some_and(|last| now < last + least) {
            self.strikes += 1;
        }
        self.last = Some(now);
        self.strikes > STRIKES_MAX
    }

    /// Something was sent on a call: measuring the path by pings is then welcome.
    fn forgive(&mut self) {
        self.strikes = 0;
        self.last = None;
    }
}

/// Finds the frames in a stream of bytes that arrives in any pieces.
#[derive(Debug)]
struct Frames {
    /// Bytes to pass over before the next header.
    skip: usize,
    header: [u8; HEADER_BYTES],
    have: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frames {
    fn after(skip: usize) -> Self {
        Self { skip, header: [0; HEADER_BYTES], have: 0 }
    }

    fn at_boundary(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = bytes.get(passed..).unwrap_or_default();
            let Some(missing) = self.header.get_mut(self.have..) else { return };
            let taken = missing.len().min(bytes.len());
            let (head, rest) = bytes.split_at(taken);
            missing.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
            self.have += taken;
            bytes = rest;
            if self.have == HEADER_BYTES {
                seen(self.frame());
            }
        }
    }

    /// Reads the complete header and moves on to the body.
    fn frame(&mut self) -> Frame {
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        self.skip = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        self.have = 0;
        Frame { kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for PingGuard<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        if self.received(buffer.filled().get(before..).unwrap_or_default()) {
            self.say_goodbye(context);
            buffer.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too_many_pings")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for PingGuard<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.io).poll_write(context, data))?;
        self.sent(data.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.io).poll_write_vectored(context, data))?;
        let mut left = written;
        for slice in data {
            let taken = left.min(slice.len());
            self.sent(slice.get(..taken).unwrap_or_default());
            left -= taken;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rule() -> PingRule {
        PingRule { ping_min: 5 * SECOND, last: None, strikes: 0 }
    }

    #[test]
    fn the_third_hasty_ping_is_one_too_many() {
        let mut rule = rule();
        let verdicts = [0, 1, 2, 3].map(|second| rule.ping(second * SECOND, true));
        assert_eq!(verdicts, [false, false, false, true]);
    }

    #[test]
    fn patient_pings_never_count_while_calls_run() {
        let mut rule = rule();
        assert!((0..20).all(|ping| !rule.ping(ping * 5 * SECOND, true)));
    }

    #[test]
    fn idle_connections_may_hardly_ping_at_all() {
        let mut rule = rule();
        let verdicts = [0, 60, 120, 180].map(|second| rule.ping(second * SECOND, false));
        assert_eq!(verdicts, [false, false, false, true]);
    }

    #[test]
    fn an_answer_forgives() {
        let mut rule = rule();
        for second in 0..20 {
            assert!(!rule.ping(second * SECOND, true));
            rule.forgive();
        }
    }

    fn ping() -> Vec<u8> {
        vec![0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    }

    #[test]
    fn frames_are_found_in_any_pieces() {
        let mut stream = vec![0; PREFACE_BYTES];
        stream.extend([0, 0, 3, HEADERS, 4, 0x80, 0, 0, 7, 9, 9, 9]);
        stream.extend(ping());
        for piece in 1..stream.len() {
            let mut frames = Frames::after(PREFACE_BYTES);
            let mut seen = Vec::new();
            stream.chunks(piece).for_each(|chunk| frames.feed(chunk, |frame| seen.push(frame)));
            let headers = Frame { kind: HEADERS, flags: 4, stream: 7 };
            assert_eq!(seen, [headers, Frame { kind: PING, flags: 0, stream: 0 }], "pieces of {piece}");
            assert!(frames.at_boundary());
        }
    }

    #[tokio::test]
    async fn a_client_that_pings_too_often_hears_why() {
        let (mut client, server) = tokio::io::duplex(4096);
        let (mut guard, _busy) = PingGuard::new(server, 5 * SECOND);
        client.write_all(&[0; PREFACE_BYTES]).await.unwrap();
        for _ in 0..4 {
            client.write_all(&ping()).await.unwrap();
        }
        let error = guard.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "too_many_pings");
        drop(guard);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, goaway(0));
    }
}
