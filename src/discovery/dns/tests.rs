//! The resolver against servers that behave and servers that lie.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

pub(crate) use super::message::tests::{Given, answer};
use super::{Fault, Resolver, Settings, Srv};

const NAME: &str = "_etcd-server._tcp.example.com";
const OWNER: &str = "_etcd-server._tcp.example.com.";
const RECORD: Given = Given::Srv(OWNER, 2380, "a.example.com.");

fn record() -> Vec<Srv> {
    vec![Srv { priority: 1, weight: 2, target: "a.example.com".to_owned(), port: 2380 }]
}

/// A name server that sends what `reply` makes of each question, one datagram after the other.
pub(crate) async fn server(reply: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a server of this test alone")]
    let task = tokio::spawn(async move {
        let mut question = vec![0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            for datagram in reply(&question[..length]) {
                socket.send_to(&datagram, from).await.unwrap();
            }
        }
    });
    (address, task)
}

fn resolver(servers: &[SocketAddr]) -> Resolver {
    let timeout = Duration::from_millis(300);
    Resolver::new(Settings { timeout, attempts: 1, ..Settings::new(servers.to_vec()) })
}

#[tokio::test]
async fn records_come_from_the_server() {
    let (address, _server) = server(|question| vec![answer(question, &[RECORD], |_| {})]).await;
    assert_eq!(resolver(&[address]).srv(NAME).await, Ok(record()));
}

#[tokio::test]
async fn lies_are_passed_over_until_the_truth_comes() {
    let lies = |question: &[u8]| {
        let wrong_number = answer(question, &[Given::Srv(OWNER, 1, "evil.example.")], |header| {
            header.set_id(header.id().wrapping_add(1));
        });
        vec![b"nonsense".to_vec(), wrong_number, answer(question, &[RECORD], |_| {})]
    };
    let (address, _server) = server(lies).await;
    assert_eq!(resolver(&[address]).srv(NAME).await, Ok(record()));
}

#[tokio::test]
async fn nobody_waits_for_a_server_that_only_lies() {
    let (address, _server) = server(|_| vec![b"nonsense".to_vec(); 100]).await;
    let error = resolver(&[address]).srv(NAME).await.unwrap_err();
    assert!(matches!(error.fault, Fault::Unreachable(_) | Fault::Timeout), "{error}");
}

#[tokio::test]
async fn a_server_that_fails_or_is_silent_gives_way_to_the_next() {
    let misbehaving =
        |question: &[u8]| vec![answer(question, &[], |header| header.set_rcode(domain::base::iana::Rcode::SERVFAIL))];
    let (failing, _one) = server(misbehaving).await;
    let (silent, _two) = server(|_| Vec::new()).await;
    let (knowing, _three) = server(|question| vec![answer(question, &[RECORD], |_| {})]).await;
    assert_eq!(resolver(&[failing, silent, knowing]).srv(NAME).await, Ok(record()));
    let error = resolver(&[silent, failing]).srv(NAME).await.unwrap_err();
    assert_eq!(error.to_string(), format!("lookup {NAME} on {failing}: server misbehaving"));
    let error = resolver(&[silent]).srv(NAME).await.unwrap_err();
    assert_eq!(error.to_string(), format!("lookup {NAME} on {silent}: i/o timeout"));
}

#[tokio::test]
async fn what_does_not_exist_is_said_in_the_words_of_go() {
    let (address, _server) =
        server(|question| vec![answer(question, &[], |header| header.set_rcode(domain::base::iana::Rcode::NXDOMAIN))])
            .await;
    let error = resolver(&[address]).srv(NAME).await.unwrap_err();
    assert_eq!(error.to_string(), format!("lookup {NAME} on {address}: no such host"));
}

#[tokio::test]
async fn what_does_not_fit_a_datagram_is_asked_for_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    let both = async {
        let mut question = vec![0; 512];
        let (length, from) = socket.recv_from(&mut question).await.unwrap();
        let cut = answer(&question[..length], &[], |header| header.set_tc(true));
        socket.send_to(&cut, from).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut question).await.unwrap();
        let whole = answer(&question, &[RECORD], |_| {});
        stream.write_u16(u16::try_from(whole.len()).unwrap()).await.unwrap();
        stream.write_all(&whole).await.unwrap();
    };
    let resolver = resolver(&[address]);
    let (found, ()) = tokio::join!(resolver.srv(NAME), both);
    assert_eq!(found, Ok(record()));
}
