//! The gateway behind a WebSocket, for browsers that watch.
//!
//! A socket on any path below `/v3/` is a call to that path: messages of the client make the body of the request, lines
//! of the answer become messages. The token travels as a subprotocol (`Bearer, <token>`) or in a cookie, because a
//! browser's socket has no headers of its own.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            AUTHORIZATION, CONNECTION, COOKIE, ORIGIN, REFERER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
            SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
        },
    },
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest as _, Sha1};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, WriteHalf},
    select,
    sync::mpsc,
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    json_bytes_max,
    websocket_frame::{Frame, Opcode, Reader, encode},
};
use crate::api::{Api, CommonName, Local, Remote, room::Seat};

/// What proves that the server has understood the handshake (RFC 6455, §1.3).
const HANDSHAKE: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const BEARER: &str = "Bearer";
/// Time a client has for the first message behind the handshake, as long as for the head of a request.
const MESSAGE_PATIENCE: Duration = Duration::from_mins(5);
/// Messages of the client read ahead of the call.
const MESSAGES_MAX: usize = 4;
/// Answers to pings waiting to be written; more pings than that go unanswered, as the standard allows.
const PONGS_MAX: usize = 4;

type Socket = TokioIo<Upgraded>;

/// Whether the client wants a WebSocket.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    let lists = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
    };
    lists(CONNECTION, "upgrade") && lists(UPGRADE, "websocket")
}

/// Agrees to a socket and runs the call behind it beside the connection.
pub(super) fn serve(api: Arc<Api>, mut request: Request) -> Response {
    let Some(response) = handshake(request.headers()) else {
        return Response::builder().status(StatusCode::BAD_REQUEST).body(Body::empty()).unwrap_or_default();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    // The socket keeps the place of its connection.
    let seat = request.extensions_mut().remove::<Arc<Seat>>();
    let (messages, body) = mpsc::channel(MESSAGES_MAX);
    let call = inner(&request, Body::from_stream(ReceiverStream::new(body)));
    let sockets = api.sockets.clone();
    sockets.spawn(async move {
        // A socket that breaks ends its call; the client knows.
        if let Err(error) = run(api, upgrade, call, messages).await {
            tracing::debug!(%error, "a WebSocket broke");
        }
        drop(seat);
    });
    response
}

/// The answer that turns the connection into a socket.
fn handshake(headers: &HeaderMap) -> Option<Response> {
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    if headers.get(SEC_WEBSOCKET_VERSION)? != "13" {
        return None;
    }
    let proof = Sha1::new().chain_update(key.as_bytes()).chain_update(HANDSHAKE).finalize();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::try_from(STANDARD.encode(proof)).ok()?);
    if subprotocol_token(headers).is_some() {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BEARER));
    }
    Some(response)
}

fn subprotocol_token(headers: &HeaderMap) -> Option<&str> {
    let (bearer, token) = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.split_once(',')?;
    (bearer.trim() == BEARER).then(|| token.trim())
}

fn cookie_token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get(COOKIE)?.to_str().ok()?;
    cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix("token="))
}

/// The call behind the socket.
fn inner(request: &Request, body: Body) -> Request {
    let mut call = Request::new(body);
    *call.method_mut() = Method::POST;
    *call.uri_mut() = request.uri().clone();
    for name in [ORIGIN, REFERER] {
        if let Some(value) = request.headers().get(&name) {
            call.headers_mut().insert(name, value.clone());
        }
    }
    let known = request.extensions();
    known.get::<Remote>().map(|remote| call.extensions_mut().insert(*remote));
    known.get::<Local>().map(|local| call.extensions_mut().insert(*local));
    known.get::<CommonName>().map(|name| call.extensions_mut().insert(name.clone()));
    let token = subprotocol_token(request.headers()).or_else(|| cookie_token(request.headers()));
    if let Some(value) = token.and_then(|token| HeaderValue::try_from(format!("{BEARER} {token}")).ok()) {
        call.headers_mut().insert(AUTHORIZATION, value);
    }
    call
}

type Messages = mpsc::Sender<Result<Bytes, io::Error>>;

async fn run(api: Arc<Api>, upgrade: OnUpgrade, call: Request, messages: Messages) -> io::Result<()> {
    let socket = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
    let (reader, writer) = tokio::io::split(socket);
    let (pongs_in, pongs) = mpsc::channel(PONGS_MAX);
    let bounds = Bounds { message_bytes: json_bytes_max(&api), first_within: MESSAGE_PATIENCE };
    // Boxed, for this call may be what serves it: the type would contain itself.
    let answer = Box::pin(super::serve(Arc::clone(&api), call));
    tokio::select! {
        read = read(reader, bounds, messages, pongs_in) => read,
        written = write(writer, answer, pongs) => written,
    }
}

/// What a client may send, and has to.
struct Bounds {
    /// Longest message.
    message_bytes: usize,
    first_within: Duration,
}

/// Hands messages to the call until the client closes the socket, or does not begin.
async fn read(
    mut socket: impl AsyncRead + Unpin,
    bounds: Bounds,
    messages: Messages,
    pongs: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut frames = Reader::new(bounds.message_bytes);
    let mut buffer = BytesMut::new();
    let (mut silence, mut has_begun) = (std::pin::pin!(sleep(bounds.first_within)), false);
    loop {
        while let Some(Frame { opcode, last, mut payload }) = frames.next(&mut buffer).map_err(io::Error::other)? {
            match opcode {
                Opcode::Close => return Ok(()),
                Opcode::Ping => drop(pongs.try_send(payload.freeze())),
                Opcode::Pong => {}
                Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                    has_begun = true;
                    if last {
                        payload.extend_from_slice(b"\n");
                    }
                    // A call that takes no more ends the socket through its answer.
                    if messages.send(Ok(payload.freeze())).await.is_err() {
                        return std::future::pending().await;
                    }
                }
            }
        }
        select! {
            read = socket.read_buf(&mut buffer) => if read? == 0 {
                return Ok(());
            },
            () = &mut silence, if !has_begun => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Writes each line of the answer as a message, then closes the socket.
async fn write(
    mut socket: WriteHalf<Socket>,
    answer: impl Future<Output = Response>,
    mut pongs: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let mut answer = std::pin::pin!(answer);
    let mut body = loop {
        tokio::select! {
            response = &mut answer => break response.into_body(),
            Some(ping) = pongs.recv() => socket.write_all(&encode(Opcode::Pong, &ping)).await?,
        }
    };
    let mut text = BytesMut::new();
    loop {
        tokio::select! {
            Some(ping) = pongs.recv() => socket.write_all(&encode(Opcode::Pong, &ping)).await?,
            frame = body.frame() => {
                let Some(frame) = frame else { break };
                if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                    text.extend_from_slice(&data);
                }
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line = text.split_to(end + 1);
                    socket.write_all(&encode(Opcode::Text, line.trim_ascii_end())).await?;
                }
                socket.flush().await?;
            }
        }
    }
    if !text.is_empty() {
        socket.write_all(&encode(Opcode::Text, &text)).await?;
    }
    socket.write_all(&encode(Opcode::Close, &NORMAL_CLOSURE.to_be_bytes())).await?;
    socket.shutdown().await
}

/// The reason of a socket that has done its work (RFC 6455, §7.4.1).
const NORMAL_CLOSURE: u16 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(axum::http::HeaderName, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    /// What comes of a socket on which a client says this and leaves it at that; nothing if it is waited for.
    async fn heard(said: &[u8]) -> Option<io::Result<()>> {
        let (mut client, socket) = tokio::io::duplex(1024);
        client.write_all(said).await.unwrap();
        let bounds = Bounds { message_bytes: 100, first_within: Duration::from_millis(20) };
        let ((messages, _body), (pongs, _answers)) = (mpsc::channel(1), mpsc::channel(1));
        tokio::time::timeout(Duration::from_millis(100), read(socket, bounds, messages, pongs)).await.ok()
    }

    #[tokio::test]
    async fn a_socket_without_a_first_message_is_not_waited_for() {
        let masked = |opcode: u8, payload: &[u8]| {
            [&[0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0], payload].concat()
        };
        let text = masked(1, b"{}");
        for said in [&b""[..], &text[..3], &masked(9, b"ping")] {
            let ended = heard(said).await.expect("it ends").unwrap_err();
            assert_eq!(ended.kind(), io::ErrorKind::TimedOut, "{said:?}");
        }
        assert!(heard(&text).await.is_none(), "who has begun may take any time");
    }

    #[test]
    fn the_handshake_is_that_of_the_standard() {
        let asked = headers(&[
            (CONNECTION, "keep-alive, Upgrade"),
            (UPGRADE, "WebSocket"),
            (SEC_WEBSOCKET_VERSION, "13"),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ]);
        assert!(is_asked_for(&asked));
        let response = handshake(&asked).unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!response.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
        assert!(handshake(&headers(&[(SEC_WEBSOCKET_KEY, "x"), (SEC_WEBSOCKET_VERSION, "8")])).is_none());
        assert!(!is_asked_for(&headers(&[(UPGRADE, "h2c"), (CONNECTION, "Upgrade")])));
    }

    #[test]
    fn tokens_come_as_subprotocol_or_cookie() {
        let token = |lines: &[_]| {
            let mut request = Request::new(Body::empty());
            *request.headers_mut() = headers(lines);
            let call = inner(&request, Body::empty());
            call.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(token(&[(SEC_WEBSOCKET_PROTOCOL, "Bearer, abc.1")]), Some("Bearer abc.1".into()));
        assert_eq!(token(&[(COOKIE, "a=b; token=xyz")]), Some("Bearer xyz".into()));
        assert_eq!(token(&[(SEC_WEBSOCKET_PROTOCOL, "chat, abc")]), None);
    }
}
