//! What a client port does with connections that misbehave, and at the end. The same file runs against the real etcd with
//! `SUBJECT_BIN`, but for two of its tests: etcd does not stop while
//! a client that has sent nothing stays connected, and does not describe its services.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use support::{daemon::Daemon, grpc::Client, program::Program};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const PATIENCE: Duration = Duration::from_secs(10);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
const GOAWAY: u8 = 7;

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(daemon.client).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything the server sends until it closes the connection.
fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    match stream.read_to_end(&mut heard) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => heard,
    }
}

/// The payloads of the frames of one kind.
fn frames(mut bytes: &[u8], kind: u8) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while bytes.len() >= 9 {
        let length = usize::from(bytes[1]) * 256 + usize::from(bytes[2]);
        if bytes[3] == kind {
            found.push(&bytes[9..9 + length]);
        }
        bytes = &bytes[9 + length..];
    }
    found
}

#[test]
fn pinging_too_often_is_answered_with_the_words_clients_know() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    let mut stream = connect(&daemon);
    stream.write_all(&[PREFACE, SETTINGS].concat()).unwrap();
    stream.write_all(&PING.repeat(10)).unwrap();
    let heard = read_all(&mut stream);
    let goodbyes = frames(&heard, GOAWAY);
    let last = goodbyes.last().expect("a GOAWAY frame");
    assert_eq!((&last[4..8], &last[8..]), (&[0, 0, 0, 11][..], &b"too_many_pings"[..]));
}

#[test]
fn pinging_seldom_is_fine() {
    let daemon = Daemon::start(&Program::subject(), &["--grpc-keepalive-min-time=1ms"]);
    let mut stream = connect(&daemon);
    stream.write_all(&[PREFACE, SETTINGS].concat()).unwrap();
    stream.write_all(&PING.repeat(2)).unwrap();
    let mut answers = 0;
    let mut buffer = [0; 1024];
    while answers < 2 {
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the connection stays");
        answers += frames(&buffer[..read], 6).len();
    }
}

#[test]
fn nonsense_ends_its_own_connection_only() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    for nonsense in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GARBAGE\r\n\r\n", &[PREFACE, &[0xff; 64]].concat()] {
        let mut stream = connect(&daemon);
        stream.write_all(nonsense).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        read_all(&mut stream);
    }
    assert_eq!(support::http::get(daemon.client, "/health").unwrap().status, 200);
}

/// Clients in Rust do so, and the frame may cross the answer.
#[test]
fn any_number_of_calls_may_end_in_a_frame_of_their_own() {
    const CALLS: u32 = 100;
    let daemon = Daemon::start(&Program::subject(), &[]);
    let mut stream = connect(&daemon);
    let window = frame(8, 0, 0, &[0x3f, 0xff, 0xff, 0xff]);
    stream.write_all(&[PREFACE, SETTINGS, &window].concat()).unwrap();
    let head = call_headers(&daemon.client.to_string(), "/etcdserverpb.KV/Range");
    let message = [0, 0, 0, 0, 3, 0x0a, 1, b'k'];
    for round in 0..20 {
        let calls = (0..CALLS).map(|call| (round * CALLS + call) * 2 + 1);
        let begun = calls.clone().flat_map(|id| [frame(1, 4, id, &head), frame(0, 0, id, &message)].concat());
        stream.write_all(&begun.collect::<Vec<_>>()).unwrap();
        let mut answered = 0;
        while answered < CALLS {
            let (kind, flags, payload) = read_frame(&mut stream);
            assert_ne!(kind, GOAWAY, "round {round}: {:?}", String::from_utf8_lossy(&payload));
            answered += u32::from(kind == 1 && flags & 1 == 1);
        }
        stream.write_all(&calls.flat_map(|id| frame(0, 1, id, &[])).collect::<Vec<_>>()).unwrap();
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Kind, flags and payload.
fn read_frame(stream: &mut TcpStream) -> (u8, u8, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    let mut payload = vec![0; usize::from(head[1]) * 256 + usize::from(head[2])];
    stream.read_exact(&mut payload).unwrap();
    (head[3], head[4], payload)
}

/// HPACK, all of it literal.
fn call_headers(authority: &str, path: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let post_over_http = [0x83, 0x86];
    let (path, authority) = ([vec![4], text(path)].concat(), [vec![1], text(authority)].concat());
    let content_type = [vec![0x0f, 16], text("application/grpc")].concat();
    let te = [vec![0], text("te"), text("trailers")].concat();
    [&post_over_http[..], &path, &authority, &content_type, &te].concat()
}

#[tokio::test]
async fn a_stopping_member_lets_its_streams_go() {
    let mut daemon = Daemon::start(&Program::subject(), &[]);
    let mut client = Client::connect(&daemon.endpoint()).await.unwrap();
    let (requests, receiver) = mpsc::channel(1);
    let create = quorate::pb::etcdserverpb::WatchCreateRequest { key: "k".into(), ..Default::default() };
    let create = quorate::pb::etcdserverpb::watch_request::RequestUnion::CreateRequest(create);
    let create = quorate::pb::etcdserverpb::WatchRequest { request_union: Some(create) };
    requests.send(create).await.unwrap();
    let mut stream = client.watch.watch(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().created);
    let idle = connect(&daemon);
    let stopper = std::thread::spawn(move || daemon.terminate().1);
    let ended = tokio::time::timeout(PATIENCE, stream.message()).await.unwrap();
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    let took = tokio::task::spawn_blocking(|| stopper.join().unwrap()).await.unwrap();
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop(idle);
}

#[tokio::test]
async fn the_services_describe_themselves() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };

    let daemon = Daemon::start(&Program::subject(), &[]);
    let client = Client::connect(&daemon.endpoint()).await.unwrap();
    let ask = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut reflection = ServerReflectionClient::new(client.channel);
    let answers = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let mut answers = answers.into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<&str> = list.service.iter().map(|service| &service.name[..]).collect();
    for name in ["etcdserverpb.KV", "etcdserverpb.Watch", "v3lockpb.Lock"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(answers.message().await.unwrap(), None, "the stream ends well");
}

#[tokio::test]
async fn health_is_told_to_those_who_ask_for_the_whole_server() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    let daemon = Daemon::start(&Program::subject(), &[]);
    let client = Client::connect(&daemon.endpoint()).await.unwrap();
    let mut health = HealthClient::new(client.channel);
    let request = |service: &str| HealthCheckRequest { service: service.into() };
    assert_eq!(health.check(request("")).await.unwrap().into_inner().status, 1);
    let unknown = health.check(request("etcdserverpb.KV")).await.unwrap_err();
    assert_eq!((unknown.code(), unknown.message()), (tonic::Code::NotFound, "unknown service"));
    let mut watch = health.watch(request("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    let mut watch = health.watch(request("nope")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 3);
}

/// One gRPC call by hand: what was announced, whether the frame says it is compressed, its payload. Returns the answer's
/// announced encoding, its body, code and message.
async fn call(daemon: &Daemon, path: &str, encoding: &str, flag: u8, payload: &[u8]) -> Heard {
    let stream = tokio::net::TcpStream::connect(daemon.client).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let request = http::Request::post(format!("http://{}{path}", daemon.client))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", encoding);
    let (response, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    let mut frame = vec![flag];
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    body.send_data(frame.into(), true).unwrap();
    tokio::select! {
        heard = hear(response) => heard,
        ended = connection => panic!("the connection ends before the call does: {ended:?}"),
    }
}

async fn hear(response: h2::client::ResponseFuture) -> Heard {
    let (head, mut body) = response.await.unwrap().into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        bytes.extend(data.unwrap());
    }
    let trailers = body.trailers().await.unwrap().unwrap_or(head.headers.clone());
    let text = |headers: &http::HeaderMap, name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    Heard {
        encoding: text(&head.headers, "grpc-encoding"),
        body: bytes,
        code: text(&trailers, "grpc-status").unwrap().parse().unwrap(),
        message: text(&trailers, "grpc-message").unwrap_or_default(),
    }
}

struct Heard {
    encoding: Option<String>,
    body: Vec<u8>,
    code: i32,
    message: String,
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
    packed
}

#[tokio::test]
async fn messages_that_cannot_be_decoded_are_refused_in_etcds_words() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    let calls = [
        ("/etcdserverpb.KV/Range", "grpc: error unmarshalling request: "),
        ("/etcdserverpb.KV/RangeStream", "grpc: failed to unmarshal the received message: "),
        ("/etcdserverpb.Lease/LeaseKeepAlive", "grpc: failed to unmarshal the received message: "),
        ("/etcdserverpb.Watch/Watch", "grpc: failed to unmarshal the received message: "),
    ];
    for (path, complaint) in calls {
        let heard = call(&daemon, path, "identity", 0, b"\xff").await;
        // Some builds of etcd write a no-break space here, so that nobody relies on the text.
        let message = heard.message.replace("%C2%A0", " ");
        let expected = format!("{complaint}proto: cannot parse invalid wire-format data");
        assert_eq!((heard.code, message), (13, expected), "{path}");
    }
}

#[tokio::test]
async fn requests_in_gzip_are_answered_in_gzip() {
    use prost::Message as _;
    use quorate::pb::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse, PutResponse};

    fn answer<M: prost::Message + Default>(heard: &Heard) -> M {
        assert_eq!((heard.code, heard.encoding.as_deref()), (0, Some("gzip")), "{}", heard.message);
        assert_eq!(heard.body[0], 1, "the flag of a compressed message");
        let mut message = Vec::new();
        flate2::read::GzDecoder::new(&heard.body[5..]).read_to_end(&mut message).unwrap();
        M::decode(&message[..]).unwrap()
    }

    let daemon = Daemon::start(&Program::subject(), &[]);
    let put = support::grpc::put("k", "v".repeat(10_000)).encode_to_vec();
    let path = "/etcdserverpb.KV/Put";
    for (flag, payload) in [(1, gzip(&put)), (0, put.clone())] {
        let revision =
            answer::<PutResponse>(&call(&daemon, path, "gzip", flag, &payload).await).header.unwrap().revision;
        assert_eq!(revision, 2 + i64::from(flag == 0));
    }
    let half = put.len() / 2;
    let in_two = [gzip(&put[..half]), gzip(&put[half..])].concat();
    assert_eq!(call(&daemon, path, "gzip", 1, &in_two).await.code, 0, "gzip streams may be joined");

    let refusals = [
        ("gzip", 1, gzip(&vec![0; 3_000_000]), 8, "grpc: received message after decompression larger than max 2097152"),
        ("gzip", 1, put.clone(), 13, "grpc: failed to decompress the message: gzip: invalid header"),
        ("deflate", 1, put.clone(), 12, "grpc: Decompressor is not installed for grpc-encoding \"deflate\""),
        ("identity", 1, put.clone(), 13, "grpc: compressed flag set with identity or empty encoding"),
        ("gzip", 2, put.clone(), 13, "grpc: received unexpected payload format 2"),
    ];
    for (encoding, flag, payload, code, message) in refusals {
        let heard = call(&daemon, path, encoding, flag, &payload).await;
        assert_eq!((heard.code, &heard.message[..]), (code, message));
    }

    let renewal = gzip(&LeaseKeepAliveRequest { id: 7 }.encode_to_vec());
    let heard = call(&daemon, "/etcdserverpb.Lease/LeaseKeepAlive", "gzip", 1, &renewal).await;
    assert_eq!(answer::<LeaseKeepAliveResponse>(&heard).id, 7, "streams too");
}
