//! The messages a call sends to its client, under the client's flow control.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use tokio::sync::mpsc;

use super::{Encoding, PREFIX_BYTES, encoding::GRPC_ENCODING, prefix};
use crate::{
    api::status::Status,
    metrics::{self, GrpcMethod},
    watch::Frame,
};

/// Messages are joined until they reach this size, then handed to the connection.
const BATCH_BYTES: usize = 64 * 1024;

/// The client went away: nothing more can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl From<Gone> for Status {
    fn from(_: Gone) -> Self {
        Self::canceled()
    }
}

/// Where the answers of a call go.
#[derive(Debug)]
pub(crate) struct Outbound {
    sink: Sink,
    encoding: Encoding,
    counters: &'static GrpcMethod,
}

#[derive(Debug)]
enum Sink {
    /// Nothing sent yet, not even headers.
    Unopened(SendResponse<Bytes>),
    Open(SendStream<Bytes>),
    /// The JSON gateway.
    Channel(mpsc::Sender<Bytes>),
}

impl Outbound {
    /// Towards the client of an HTTP/2 stream.
    pub(crate) fn http2(respond: SendResponse<Bytes>, encoding: Encoding, counters: &'static GrpcMethod) -> Self {
        Self { sink: Sink::Unopened(respond), encoding, counters }
    }

    /// Towards a caller within.
    pub(crate) fn channel(sender: mpsc::Sender<Bytes>, counters: &'static GrpcMethod) -> Self {
        Self { sink: Sink::Channel(sender), encoding: Encoding::Identity, counters }
    }

    /// Sends one encoded message, waiting while the client's window is closed.
    ///
    /// # Errors
    /// If the client went away.
    pub(crate) async fn send(&mut self, message: Bytes) -> Result<(), Gone> {
        self.count(1, message.len());
        if let Sink::Channel(sender) = &self.sink {
            return sender.send(message).await.map_err(|_| Gone);
        }
        let mut frame = BytesMut::new();
        let copy = |out: &mut BytesMut| out.extend_from_slice(&message);
        self.encoding.frame(message.len(), copy, &mut frame).map_err(|_| Gone)?;
        write(self.open()?, frame.freeze()).await
    }

    /// Sends watch responses, as many at a time as make a batch.
    ///
    /// # Errors
    /// If the client went away.
    pub(crate) async fn send_frames(&mut self, frames: &[Frame]) -> Result<(), Gone> {
        let mut batch = BytesMut::new();
        for frame in frames {
            let bytes = frame.encoded_len();
            self.count(1, bytes);
            if let Sink::Channel(sender) = &self.sink {
                let mut message = BytesMut::with_capacity(bytes);
                frame.encode(&mut message);
                sender.send(message.freeze()).await.map_err(|_| Gone)?;
                continue;
            }
            self.encoding.frame(bytes, |out| frame.encode(out), &mut batch).map_err(|_| Gone)?;
            if batch.len() >= BATCH_BYTES {
                write(self.open()?, batch.split().freeze()).await?;
            }
        }
        if batch.is_empty() { Ok(()) } else { write(self.open()?, batch.freeze()).await }
    }

    /// Begins a message whose parts follow through [`Outbound::send_part`]. It is never compressed.
    ///
    /// # Errors
    /// If the client went away.
    pub(crate) async fn begin_parts(&mut self, message_bytes: u32) -> Result<(), Gone> {
        self.count(1, usize::try_from(message_bytes).unwrap_or(usize::MAX));
        let head = Bytes::copy_from_slice(&prefix(message_bytes));
        write(self.open()?, head).await
    }

    /// Sends a part of the message begun last.
    ///
    /// # Errors
    /// If the client went away.
    pub(crate) async fn send_part(&mut self, part: Bytes) -> Result<(), Gone> {
        write(self.open()?, part).await
    }

    /// Resolves when the client has gone away.
    pub(crate) async fn closed(&mut self) {
        match &mut self.sink {
            Sink::Channel(sender) => sender.closed().await,
            _ => poll_fn(|context| self.poll_reset(context)).await,
        }
    }

    fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.sink {
            Sink::Unopened(respond) => respond.poll_reset(context).map(drop),
            Sink::Open(stream) => stream.poll_reset(context).map(drop),
            Sink::Channel(_) => Poll::Pending,
        }
    }

    /// The stream, its headers sent.
    fn open(&mut self) -> Result<&mut SendStream<Bytes>, Gone> {
        if let Sink::Unopened(respond) = &mut self.sink {
            self.sink = Sink::Open(respond.send_response(headers(self.encoding), false).map_err(|_| Gone)?);
        }
        match &mut self.sink {
            Sink::Open(stream) => Ok(stream),
            _ => Err(Gone),
        }
    }

    /// Ends the call with its status; nothing happens if the client is gone.
    pub(crate) fn finish(self, outcome: &Result<(), Status>) {
        let sent = match self.sink {
            Sink::Unopened(mut respond) => match outcome {
                Ok(()) => respond
                    .send_response(headers(self.encoding), false)
                    .and_then(|mut stream| stream.send_trailers(trailers(outcome))),
                Err(status) => respond.send_response(refusal(status), true).map(drop),
            },
            Sink::Open(mut stream) => stream.send_trailers(trailers(outcome)),
            Sink::Channel(_) => Ok(()),
        };
        // A client that is gone does not hear how its call ended.
        drop(sent);
    }

    fn count(&self, messages: u64, bytes: usize) {
        self.counters.on_sent(messages);
        metrics::CLIENT_SENT_BYTES.add(bytes as u64);
    }
}

/// Answers a unary call whose message is at hand: headers, message and trailers in one go.
pub(crate) fn answer(
    respond: &mut SendResponse<Bytes>,
    frame: Bytes,
    encoding: Encoding,
    counters: &'static GrpcMethod,
) {
    counters.on_sent(1);
    metrics::CLIENT_SENT_BYTES.add((frame.len() - PREFIX_BYTES.min(frame.len())) as u64);
    let sent = respond.send_response(headers(encoding), false).and_then(|mut stream| {
        stream.send_data(encoding.reframe(frame), false)?;
        stream.send_trailers(trailers(&Ok(())))
    });
    // A client that is gone does not want its answer.
    drop(sent);
}

/// Refuses a call before anything was sent.
pub(crate) fn refuse(respond: &mut SendResponse<Bytes>, status: &Status) {
    drop(respond.send_response(refusal(status), true));
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";

fn headers(encoding: Encoding) -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    if let Some(encoding) = encoding.header() {
        response.headers_mut().insert(GRPC_ENCODING, encoding);
    }
    response
}

/// Headers and trailers in one, for a call without messages.
fn refusal(status: &Status) -> Response<()> {
    let mut response = headers(Encoding::Identity);
    response.headers_mut().insert(GRPC_STATUS, status.header_code());
    response.headers_mut().insert(GRPC_MESSAGE, status.header_message());
    response
}

fn trailers(outcome: &Result<(), Status>) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    match outcome {
        Ok(()) => {
            trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        }
        Err(status) => {
            trailers.insert(GRPC_STATUS, status.header_code());
            trailers.insert(GRPC_MESSAGE, status.header_message());
        }
    }
    trailers
}

/// Sends `data` piece by piece as the client opens its window.
pub(super) async fn write(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), Gone> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = poll_fn(|context| poll_capacity(stream, context)).await?;
        let piece = data.split_to(capacity.min(data.len()));
        stream.send_data(piece, false).map_err(|_| Gone)?;
    }
    Ok(())
}

/// Bytes that may be sent now, at least one. Ends when the client resets the stream.
fn poll_capacity(stream: &mut SendStream<Bytes>, context: &mut Context<'_>) -> Poll<Result<usize, Gone>> {
    loop {
        let capacity = stream.capacity();
        if capacity > 0 {
            return Poll::Ready(Ok(capacity));
        }
        // Only a change of the capacity is reported; it may be a change to zero.
        match ready!(stream.poll_capacity(context)) {
            Some(Ok(_)) => {}
            _ => return Poll::Ready(Err(Gone)),
        }
    }
}
