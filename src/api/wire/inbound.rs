//! The messages a client sends on one call.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::RecvStream;
use tokio::sync::mpsc;

use super::{Encoding, PREFIX_BYTES};
use crate::{
    api::status::Status,
    metrics::{self, GrpcMethod},
    types::Code,
};

/// Longest wait for the frame that ends the client's side of a call which has its answer.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(1);
/// What a client may still send until then.
const REST_BYTES_MAX: usize = 64 * 1024;

/// Where the messages of a call come from.
#[derive(Debug)]
pub(crate) struct Inbound {
    source: Source,
    counters: &'static GrpcMethod,
}

#[derive(Debug)]
enum Source {
    Http2 {
        body: RecvStream,
        frames: Frames,
    },
    /// The JSON gateway, which has decoded and checked them already.
    Channel(mpsc::Receiver<Result<Bytes, Status>>),
}

impl Inbound {
    /// Messages of at most `message_bytes_max` from an HTTP/2 stream.
    pub(crate) fn http2(
        body: RecvStream,
        encoding: Encoding,
        message_bytes_max: usize,
        counters: &'static GrpcMethod,
    ) -> Self {
        Self { source: Source::Http2 { body, frames: Frames::new(encoding, message_bytes_max) }, counters }
    }

    /// Messages from within.
    pub(crate) fn channel(messages: mpsc::Receiver<Result<Bytes, Status>>, counters: &'static GrpcMethod) -> Self {
        Self { source: Source::Channel(messages), counters }
    }

    /// The next message, or nothing once the client has said that no more follow.
    ///
    /// # Errors
    /// `Canceled` if the client went away, `ResourceExhausted` for a message above the limit, packed or not, `Internal`
    /// for a broken frame. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let message = match &mut self.source {
            Source::Http2 { body, frames } => next_frame(body, frames).await?,
            Source::Channel(messages) => messages.recv().await.transpose()?,
        };
        if let Some(message) = &message {
            self.counters.on_received();
            metrics::CLIENT_RECEIVED_BYTES.add(message.len() as u64);
        }
        Ok(message)
    }

    /// Waits until the client has said that no more follow, for a call that has its answer.
    pub(crate) async fn finish(self) {
        if let Source::Http2 { body, .. } = self.source {
            finish(body).await;
        }
    }
}

/// Reads `body` to its end, to nothing, within bounds. Clients end their side in a frame of its own, perhaps behind the
/// answer; a stream that is dropped before is reset, and of frames for streams that it has forgotten the HTTP/2 library
/// bears a thousand, then ends the connection with all its calls.
pub(crate) async fn finish(mut body: RecvStream) {
    if body.is_end_stream() {
        return;
    }
    let rest = async {
        let mut rest_bytes = 0;
        while let Some(Ok(chunk)) = body.data().await {
            rest_bytes += chunk.len();
            if rest_bytes > REST_BYTES_MAX || body.flow_control().release_capacity(chunk.len()).is_err() {
                return;
            }
        }
    };
    // Who has not ended by now is reset.
    drop(tokio::time::timeout(END_PATIENCE, rest).await);
}

async fn next_frame(body: &mut RecvStream, frames: &mut Frames) -> Result<Option<Bytes>, Status> {
    loop {
        if let Some(message) = frames.take()? {
            return Ok(Some(message));
        }
        match body.data().await {
            Some(Ok(chunk)) => {
                // The window reopens at once: what is kept is bounded by the limit on messages.
                body.flow_control().release_capacity(chunk.len()).map_err(|_| Status::canceled())?;
                frames.push(chunk);
            }
            Some(Err(_)) => return Err(Status::canceled()),
            None => return frames.end(),
        }
    }
}

/// Cuts a byte stream into messages; a message that arrives in one piece is not copied.
#[derive(Debug)]
struct Frames {
    /// Received and whole, as far as it goes; only while `partial` is empty.
    ready: Bytes,
    /// The begin of a frame whose rest has not arrived.
    partial: BytesMut,
    encoding: Encoding,
    message_bytes_max: usize,
}

impl Frames {
    fn new(encoding: Encoding, message_bytes_max: usize) -> Self {
        Self { ready: Bytes::new(), partial: BytesMut::new(), encoding, message_bytes_max }
    }

    fn push(&mut self, chunk: Bytes) {
        if self.ready.is_empty() && self.partial.is_empty() {
            self.ready = chunk;
        } else {
            self.partial.extend_from_slice(&std::mem::take(&mut self.ready));
            self.partial.extend_from_slice(&chunk);
        }
    }

    /// The next whole message.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        if !self.partial.is_empty() {
            if self.frame_bytes(&self.partial)?.is_none_or(|bytes| bytes > self.partial.len()) {
                return Ok(None);
            }
            self.ready = std::mem::take(&mut self.partial).freeze();
        }
        match self.frame_bytes(&self.ready)? {
            Some(bytes) if bytes <= self.ready.len() => {
                let mut frame = self.ready.split_to(bytes);
                let flag = frame.get_u8();
                frame.advance(PREFIX_BYTES - 1);
                Encoding::open(flag, frame, self.message_bytes_max).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Length of the frame at the begin of `buffer`, prefix included, once the prefix is there.
    fn frame_bytes(&self, buffer: &[u8]) -> Result<Option<usize>, Status> {
        let Some(([flag, length @ ..], _)) = buffer.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let message_bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if message_bytes > self.message_bytes_max {
            let text =
                format!("grpc: received message larger than max ({message_bytes} vs. {})", self.message_bytes_max);
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        self.encoding.check_flag(*flag)?;
        Ok(Some(PREFIX_BYTES + message_bytes))
    }

    /// What the end of the stream means.
    fn end(&self) -> Result<Option<Bytes>, Status> {
        if self.ready.is_empty() && self.partial.is_empty() {
            return Ok(None);
        }
        Err(Status::new(Code::Internal, "unexpected EOF"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::wire::prefix;

    fn frame(message: &[u8]) -> Vec<u8> {
        let mut frame = prefix(u32::try_from(message.len()).unwrap()).to_vec();
        frame.extend_from_slice(message);
        frame
    }

    #[test]
    fn a_message_above_the_limit_is_refused_from_its_length() {
        let mut frames = Frames::new(Encoding::Identity, 10);
        frames.push(Bytes::copy_from_slice(&prefix(11)));
        let status = frames.take().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "grpc: received message larger than max (11 vs. 10)");
    }

    #[test]
    fn a_compressed_message_needs_a_call_that_announced_it() {
        let mut frames = Frames::new(Encoding::Identity, 10);
        frames.push(Bytes::from_static(&[1, 0, 0, 0, 1]));
        assert_eq!(frames.take().unwrap_err().code(), Code::Internal);
        let mut frames = Frames::new(Encoding::Gzip, 40);
        for message in [&b"packed"[..], b"as well"] {
            let frame = Bytes::from(frame(message));
            frames.push(Encoding::Gzip.reframe(frame.clone()));
            frames.push(frame);
            assert_eq!(frames.take(), Ok(Some(Bytes::copy_from_slice(message))));
            assert_eq!(frames.take(), Ok(Some(Bytes::copy_from_slice(message))));
        }
    }

    #[test]
    fn an_end_inside_a_frame_is_an_error() {
        let mut frames = Frames::new(Encoding::Identity, 10);
        assert_eq!(frames.end(), Ok(None));
        frames.push(Bytes::from_static(&[0, 0]));
        assert_eq!(frames.take(), Ok(None));
        assert_eq!(frames.end().unwrap_err().code(), Code::Internal);
    }

    proptest! {
        #[test]
        fn messages_survive_any_cutting(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 1_usize..20,
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
            let mut frames = Frames::new(Encoding::Identity, 40);
            let mut seen = Vec::new();
            for chunk in stream.chunks(cut) {
                frames.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = frames.take().unwrap() {
                    seen.push(message.to_vec());
                }
            }
            prop_assert_eq!(seen, messages);
            prop_assert_eq!(frames.end(), Ok(None));
        }

        #[test]
        fn any_bytes_are_cut_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut frames = Frames::new(Encoding::Gzip, 20);
            frames.push(Bytes::from(bytes));
            while let Ok(Some(message)) = frames.take() {
                prop_assert!(message.len() <= 20);
            }
        }
    }
}
