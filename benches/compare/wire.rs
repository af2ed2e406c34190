//! The leanest client there is: unary calls over a bare HTTP/2 connection, so that the load costs little beside what
//! is measured. Every answer is read to its end and has to say that the call succeeded.

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Uri};
use prost::Message;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Status;

/// Bytes the server may send before it hears more: the longest answer of a load fits.
const WINDOW_BYTES: u32 = 16 << 20;
/// The flag and the length before every gRPC message.
const PREFIX_BYTES: usize = 5;

/// The methods that loads call.
pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(crate) const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";

/// A connection, or one client's share of it.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    sender: SendRequest<Bytes>,
    headers: Arc<HeaderMap>,
    common: Arc<Common>,
}

/// What all clients of a connection share.
#[derive(Debug)]
struct Common {
    authority: Authority,
    /// What moves the connection's bytes, as long as it has clients.
    _driver: JoinSet<()>,
}

impl Wire {
    /// Dials `endpoint`, a base URL.
    ///
    /// # Panics
    /// If nothing that speaks HTTP/2 listens there.
    pub(crate) async fn connect(endpoint: &str) -> Self {
        let authority: Authority = endpoint.trim_start_matches("http://").parse().expect("an address");
        let stream = TcpStream::connect(authority.as_str()).await.expect("the daemon listens");
        stream.set_nodelay(true).expect("a socket has options");
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(stream)
            .await
            .expect("the daemon speaks HTTP/2");
        let mut driver = JoinSet::new();
        // A broken connection is told by the calls on it.
        driver.spawn(async move { drop(connection.await) });
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        Self { sender, headers: headers.into(), common: Arc::new(Common { authority, _driver: driver }) }
    }

    /// A client of the same connection that shows `token` with every call.
    ///
    /// # Panics
    /// If that is no token.
    pub(crate) fn with_token(mut self, token: &str) -> Self {
        let headers = Arc::make_mut(&mut self.headers);
        headers.insert("token", HeaderValue::from_str(token).expect("a token is a word"));
        self
    }

    /// Sends one framed message and returns the framed answer.
    ///
    /// # Errors
    /// If the connection fails, or the call ends with any status but success.
    pub(crate) async fn call(&mut self, path: &'static str, frame: Bytes) -> Result<Bytes, Status> {
        let mut request = Request::post(self.uri(path)?).body(()).map_err(broken)?;
        request.headers_mut().clone_from(&self.headers);
        std::future::poll_fn(|context| self.sender.poll_ready(context)).await.map_err(broken)?;
        let (response, mut body) = self.sender.send_request(request, false).map_err(broken)?;
        body.send_data(frame, true).map_err(broken)?;
        answer(response).await
    }

    fn uri(&self, path: &'static str) -> Result<Uri, Status> {
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.common.authority.clone())
            .path_and_query(PathAndQuery::from_static(path))
            .build()
            .map_err(broken)
    }
}

async fn answer(response: ResponseFuture) -> Result<Bytes, Status> {
    let (head, mut body) = response.await.map_err(broken)?.into_parts();
    let mut whole = Bytes::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(broken)?;
        body.flow_control().release_capacity(piece.len()).map_err(broken)?;
        whole = if whole.is_empty() { piece } else { [whole, piece].concat().into() };
    }
    let trailers = body.trailers().await.map_err(broken)?;
    // A call that fails at once has its status among the headers.
    let trailers = trailers.unwrap_or(head.headers);
    match trailers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"0") => Ok(whole),
        status => Err(Status::unknown(format!("{status:?}: {:?}", trailers.get("grpc-message")))),
    }
}

/// `message` as it travels.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("a load sends short messages"));
    message.encode(&mut frame).expect("the buffer grows");
    frame.freeze()
}

/// The message in `frame`.
///
/// # Errors
/// If it is not whole or not that message.
pub(crate) fn unframed<M: Message + Default>(mut frame: Bytes) -> Result<M, Status> {
    if frame.len() < PREFIX_BYTES {
        return Err(Status::internal("an answer without a message"));
    }
    M::decode(frame.split_off(PREFIX_BYTES)).map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}
