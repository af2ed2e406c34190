//! One HTTP/2 connection: accepts its requests and runs their calls.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream as _, future::BoxFuture, stream::FuturesUnordered};
use h2::{
    Ping, PingPong, RecvStream,
    server::{Connection, SendResponse},
};
use http::{HeaderMap, Method as HttpMethod, Request, StatusCode, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

use super::{Encoding, Inbound, Outbound, PingGuard, Tally, inbound, outbound};
use crate::api::{
    Service,
    options::{Keepalive, Serves},
    status::Status,
    v3::{self, Call, Handler, Method, Reply},
};

/// Bytes of one stream a client may send before the call takes them: a put of common size travels without a pause.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Longest list of request headers: a token of several kilobytes fits.
const HEADER_LIST_BYTES: u32 = 64 * 1024;
/// Bytes queued for sending on one stream before its call waits.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// What answers the requests of HTTP/2 connections: a member, or a proxy in front of one.
pub(crate) trait Http2Service: Send + Sync + 'static {
    /// The rules for pings, and how many streams one connection may have.
    fn limits(&self) -> (Keepalive, u32);

    /// Answers one request.
    fn answer(
        self: Arc<Self>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> impl Future<Output = ()> + Send + 'static;
}

impl Http2Service for Service {
    fn limits(&self) -> (Keepalive, u32) {
        let options = self.api.options();
        (options.keepalive, options.concurrent_streams_max)
    }

    fn answer(
        self: Arc<Self>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> impl Future<Output = ()> + Send + 'static {
        serve_request(self, request, respond)
    }
}

/// Serves the connection until the client leaves, it breaks, or `stop` is cancelled and its calls have ended.
///
/// # Errors
/// What broke the connection.
pub(crate) async fn serve_http2<I, S>(io: I, service: Arc<S>, stop: CancellationToken) -> Result<(), h2::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Http2Service,
{
    let (keepalive, streams_max) = service.limits();
    let (io, busy) = PingGuard::new(io, keepalive.client_min);
    let mut connection = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(streams_max)
        .handshake(io)
        .await?;
    let pings = connection.ping_pong();
    let driver = Driver { connection, calls: FuturesUnordered::new(), service, busy };
    tokio::select! {
        ended = driver.run(stop) => ended,
        // The client is gone without a word; dropping the connection tells its calls.
        () = ping(pings, keepalive.interval, keepalive.timeout) => Ok(()),
    }
}

/// Pings the client every `interval`; ends when one stays unanswered for `timeout`.
async fn ping(pings: Option<PingPong>, interval: Option<Duration>, timeout: Duration) {
    let (Some(mut pings), Some(interval)) = (pings, interval) else { return std::future::pending().await };
    loop {
        tokio::time::sleep(interval).await;
        match tokio::time::timeout(timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // A broken connection ends by itself.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return,
        }
    }
}

struct Driver<I, S> {
    connection: Connection<I, Bytes>,
    calls: FuturesUnordered<BoxFuture<'static, ()>>,
    service: Arc<S>,
    busy: Arc<AtomicBool>,
}

impl<I: AsyncRead + AsyncWrite + Unpin, S: Http2Service> Driver<I, S> {
    async fn run(mut self, stop: CancellationToken) -> Result<(), h2::Error> {
        let mut stopped = Box::pin(stop.cancelled_owned());
        let mut draining = false;
        poll_fn(|context| {
            if !draining && stopped.poll_unpin(context).is_ready() {
                draining = true;
                self.connection.graceful_shutdown();
            }
            self.poll(context)
        })
        .await
    }

    /// Reads requests, writes answers and advances calls until all of them wait.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            match self.connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond, context),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending if self.advance(context) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Starts a call; what it can do at once is done here.
    fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>, context: &mut Context<'_>) {
        let mut call = Arc::clone(&self.service).answer(request, respond).boxed();
        if call.poll_unpin(context).is_pending() {
            self.calls.push(call);
            self.busy.store(true, Ordering::Relaxed);
        }
    }

    /// Whether any call has ended. The connection must be polled after that: what the call wrote waits in it.
    fn advance(&mut self, context: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(())) = Pin::new(&mut self.calls).poll_next(context) {
            any = true;
        }
        if any && self.calls.is_empty() {
            self.busy.store(false, Ordering::Relaxed);
        }
        any
    }
}

/// The one gRPC service that a library serves, as part of the HTTP side.
const REFLECTION: &str = "/grpc.reflection.";

async fn serve_request(service: Arc<Service>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let (head, body) = request.into_parts();
    let by_hand = !head.uri.path().starts_with(REFLECTION);
    if by_hand && service.serves.grpc() && is_grpc(&head.headers) && head.method == HttpMethod::POST {
        serve_call(&service, head.uri.path(), head.headers, body, respond).await;
    } else {
        serve_http(&service, Request::from_parts(head, body), respond).await;
    }
}

/// Whether the content type is gRPC's, with or without the name of a codec.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return false };
    content_type
        .as_bytes()
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

async fn serve_call(
    service: &Service,
    path: &str,
    headers: HeaderMap,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
) {
    let (method, encoding) = match v3::find(path).and_then(|method| Ok((method, Encoding::of(&headers)?))) {
        Ok(known) => known,
        Err(status) => {
            outbound::refuse(&mut respond, &status);
            return inbound::finish(body).await;
        }
    };
    let inbound = Inbound::http2(body, encoding, service.api.options().message_bytes_max(), method.counters);
    let call = Call::new(headers).of(service.caller());
    match method.handler {
        Handler::Unary(_) => serve_unary(service, (method, encoding), call, inbound, respond).await,
        Handler::Stream(_) => {
            let tally = Tally::start(method.counters);
            let mut outbound = Outbound::http2(respond, encoding, method.counters);
            let outcome = v3::stream(Arc::clone(&service.api), method, call, inbound, &mut outbound).await;
            tally.end(&outcome);
            outbound.finish(&outcome);
        }
    }
}

async fn serve_unary(
    service: &Service,
    (method, encoding): (&'static Method, Encoding),
    call: Call,
    mut inbound: Inbound,
    mut respond: SendResponse<Bytes>,
) {
    let tally = Tally::start(method.counters);
    let work = async {
        let Some(request) = inbound.next().await? else {
            return Err(Status::unknown("EOF"));
        };
        v3::unary(Arc::clone(&service.api), method, call, request).await
    };
    // A client that resets its stream takes the call with it; the tally counts that as cancelled.
    let Some(reply) = unless_reset(work, &mut respond).await else { return };
    match reply {
        Ok(Reply::Whole(frame)) => {
            tally.end(&Ok::<(), Status>(()));
            outbound::answer(&mut respond, frame, encoding, method.counters);
        }
        Ok(Reply::Parts(parts)) => {
            let mut outbound = Outbound::http2(respond, encoding, method.counters);
            let outcome = parts.send(&mut outbound).await;
            tally.end(&outcome);
            outbound.finish(&outcome);
        }
        Err(status) => {
            outbound::refuse(&mut respond, &status);
            tally.end(&Err::<(), Status>(status));
        }
    }
    inbound.finish().await;
}

/// The outcome of `work`, or nothing if the client reset the stream first.
pub(crate) async fn unless_reset<T>(work: impl Future<Output = T>, respond: &mut SendResponse<Bytes>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => respond.poll_reset(context).map(|_| None),
    })
    .await
}

/// Hands a request that is not gRPC to the HTTP side.
async fn serve_http(service: &Service, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    if service.serves == Serves::Grpc && !request.uri().path().starts_with(REFLECTION) {
        let mut refusal = http::Response::new(());
        *refusal.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        drop(respond.send_response(refusal, true));
        return;
    }
    let (back, unread) = oneshot::channel();
    let request = request.map(|body| Body::new(Http2Body { body: Some(body), back: Some(back) }));
    let Some(response) = unless_reset(service.http(request), &mut respond).await else { return };
    let (head, body) = response.into_parts();
    if send_http(http::Response::from_parts(head, ()), body, respond).await.is_err() {
        tracing::debug!("a client left before it had its answer");
        return;
    }
    // A stream whose body was not read would be reset, and the client might not look at its answer.
    if let Ok(Ok(body)) = tokio::time::timeout(inbound::END_PATIENCE, unread).await {
        inbound::finish(body).await;
    }
}

/// Sends an answer that is not gRPC, as fast as the client takes it.
///
/// # Errors
/// If the client went away.
pub(crate) async fn send_plain(
    head: http::Response<()>,
    body: Bytes,
    respond: SendResponse<Bytes>,
) -> Result<(), outbound::Gone> {
    send_http(head, Body::from(body), respond).await
}

async fn send_http(
    head: http::Response<()>,
    mut body: Body,
    mut respond: SendResponse<Bytes>,
) -> Result<(), outbound::Gone> {
    let mut stream = respond.send_response(head, false).map_err(|_| outbound::Gone)?;
    loop {
        let frame = {
            let mut next = body.frame();
            let reset = poll_fn(|context| match next.poll_unpin(context) {
                Poll::Ready(frame) => Poll::Ready(Some(frame)),
                Poll::Pending => stream.poll_reset(context).map(|_| None),
            });
            reset.await.ok_or(outbound::Gone)?
        };
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => outbound::write(&mut stream, data).await?,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return stream.send_trailers(trailers).map_err(|_| outbound::Gone);
                }
            },
            Some(Err(_)) => {
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
                return Err(outbound::Gone);
            }
            None => return stream.send_data(Bytes::new(), true).map_err(|_| outbound::Gone),
        }
    }
}

/// The body of an HTTP/2 request as the HTTP side reads it, who gives it back when it has read enough.
struct Http2Body {
    body: Option<RecvStream>,
    back: Option<oneshot::Sender<RecvStream>>,
}

impl http_body::Body for Http2Body {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Some(data) = std::task::ready!(body.poll_data(context)) else { return Poll::Ready(None) };
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(RecvStream::is_end_stream)
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Nobody waits for it once the client has gone.
            drop(back.send(body));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let grpc = |content_type| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            is_grpc(&headers)
        };
        assert!(grpc("application/grpc"));
        assert!(grpc("application/grpc+proto"));
        assert!(grpc("application/grpc;charset=utf-8"));
        assert!(!grpc("application/grpc-web"));
        assert!(!grpc("application/json"));
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
