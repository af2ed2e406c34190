//! One request on one connection.

use std::{
    error::Error as _,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Response, header::HOST};
use http_body::Body as _;
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;

use super::{Answer, Attempt, Endpoint, dial};
use crate::tls::{self, Dialler};

/// Longest answer that is read, in bytes: a whole tree that fits in the memory of a member.
pub const ANSWER_BYTES_MAX: usize = 1 << 30;

/// What is sent.
pub(super) struct Request {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
}

/// A connection at work. It moves only while one of its methods is awaited.
pub(super) struct Driver {
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    has_ended: bool,
}

/// Dials, sends the request and waits for the head of its answer. There is no other limit than that on dialling.
///
/// # Errors
/// What went wrong, in the words of Go's client.
pub(super) async fn begin(
    endpoint: &Endpoint,
    request: Request,
    dial_limit: Duration,
    tls: &Dialler,
) -> Result<(Driver, Response<Incoming>), Attempt> {
    let io = dial::dial(endpoint, dial_limit, tls).await?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(io)).await.map_err(|error| broken(&error))?;
    let mut driver = Driver { connection: Box::pin(connection), has_ended: false };
    let request = request.into_http(&endpoint.host)?;
    let response = driver.drive(requests.send_request(request)).await.map_err(|error| broken(&error))?;
    Ok((driver, response))
}

/// Reads the rest of an answer.
///
/// # Errors
/// If the connection breaks, or the answer is longer than [`ANSWER_BYTES_MAX`].
pub(super) async fn finish(mut driver: Driver, response: Response<Incoming>) -> Result<Answer, Attempt> {
    let (head, mut incoming) = response.into_parts();
    let mut body = BytesMut::new();
    while let Some(frame) = driver.drive(poll_fn(|context| Pin::new(&mut incoming).poll_frame(context))).await {
        let Ok(piece) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(Attempt::other(format_args!("the answer is longer than {ANSWER_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    Ok(Answer { status: head.status, headers: head.headers, body: body.freeze() })
}

impl Request {
    fn into_http(self, host: &str) -> Result<http::Request<Full<Bytes>>, Attempt> {
        let mut request = http::Request::new(Full::new(Bytes::from(self.body.unwrap_or_default())));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.target.parse().map_err(Attempt::other)?;
        *request.headers_mut() = self.headers;
        request.headers_mut().insert(HOST, HeaderValue::from_str(host).map_err(Attempt::other)?);
        Ok(request)
    }
}

impl Driver {
    fn poll(&mut self, context: &mut Context<'_>) {
        // Its error reaches whoever waits for the answer, too.
        self.has_ended = self.has_ended || self.connection.as_mut().poll(context).is_ready();
    }

    async fn drive<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        poll_fn(|context| -> Poll<T> {
            self.poll(context);
            future.as_mut().poll(context)
        })
        .await
    }
}

/// What broke a connection that was made.
fn broken(error: &hyper::Error) -> Attempt {
    if error.is_parse() {
        return Attempt::other("net/http: HTTP/1.x transport connection broken: malformed HTTP response");
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(error) if error.raw_os_error().is_some() => {
            Attempt::connection(format_args!("read tcp: read: {}", dial::reason(error)))
        }
        // What TLS found is told as this kind.
        Some(error) if error.kind() == io::ErrorKind::InvalidData => Attempt::other(tls::words(error)),
        _ if error.is_body_write_aborted() || error.is_incomplete_message() => Attempt::other("EOF"),
        _ => Attempt::other("unexpected EOF"),
    }
}
