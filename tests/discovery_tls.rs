//! Discovery over TLS: a service whose certificate the system trusts, directly and by way of an HTTP proxy, and one whose
//! authority is named.

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use support::{
    certificates::Authority,
    daemon::{Daemon, READY_LIMIT},
    discovery::{expect_refusal, node, wait_log, wait_ready},
    program::Program,
};

/// Whom the certificates of these tests name.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

/// A service that shows a certificate of `authority`.
fn service(authority: &Authority, program: &Program, more: &[&str]) -> Daemon {
    let pair = authority.issue("server", &HOSTS).flags("--");
    let flags: Vec<&str> = pair.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let mut service = Daemon::prepare(&std::env::temp_dir(), program, &flags);
    service.client_scheme = "https";
    service.spawn();
    assert!(service.wait_ready(READY_LIMIT), "it does not serve:\n{}", service.log());
    service
}

/// Our daemon on a system that trusts `authority` alone.
fn trusting(authority: &Authority) -> Program {
    let mut program = Program::subject();
    program.variables.push(("SSL_CERT_FILE", authority.file().display().to_string().leak()));
    program
}

/// A token for one member at a v2 service.
fn v2_token(authority: &Authority, service: &Daemon) -> String {
    let url = format!("{}/v2/keys/discovery/T", service.endpoint());
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-f", "-X", "PUT", "-d", "value=1", &format!("{url}/_config/size"), "--cacert"]);
    let output = curl.arg(authority.file()).output().expect("curl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    url
}

/// An HTTP proxy that makes tunnels, and how many it has made.
fn proxy() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (address, made) = (listener.local_addr().expect("bound"), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&made);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let count = Arc::clone(&count);
            thread::spawn(move || {
                let mut client = stream.expect("accepted");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    client.read_exact(&mut byte).expect("a head");
                    head.extend(byte);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let place = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
                let server = TcpStream::connect(place.expect("a tunnel is asked for")).expect("it serves");
                count.fetch_add(1, Ordering::SeqCst);
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").expect("sent");
                let (other_client, other_server) =
                    (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
                let up = thread::spawn(move || carry(other_client, server));
                carry(other_server, client);
                up.join().expect("no panic");
            });
        }
    });
    (address, made)
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    // Either side may have gone.
    drop(std::io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}

#[test]
fn service_that_the_system_trusts_is_asked_directly_and_through_a_proxy() {
    let authority = Authority::new("ca");
    let service = service(&authority, &Program::etcd_3_5_1(), &["--enable-v2"]);
    let discovery = format!("--discovery={}", v2_token(&authority, &service));
    let (proxy, made) = proxy();
    let by_proxy = format!("--discovery-proxy={proxy}");

    let mut stranger = node(&trusting(&Authority::new("other")), "m1", &[&discovery]);
    stranger.spawn();
    wait_log(&mut stranger, "x509: certificate signed by unknown authority");
    assert!(stranger.log().contains("retry connecting to discovery service"), "{}", stranger.log());
    stranger.kill();

    let mut member = node(&trusting(&authority), "m1", &[&discovery, &by_proxy]);
    member.spawn();
    wait_ready(&mut member);
    assert!(made.load(Ordering::SeqCst) >= 4, "size and list twice, and the registration go through the proxy");
    let mut late = node(&trusting(&authority), "m2", &[&discovery, "--discovery-fallback=exit"]);
    late.spawn();
    expect_refusal(&mut late, "discovery: cluster is full");
}

#[test]
fn cluster_that_is_asked_is_known_by_the_authority_that_is_named() {
    let authority = Authority::new("ca");
    let client = authority.issue("client", &HOSTS);
    let ca = authority.file().display().to_string();
    let demanding = ["--client-cert-auth", &format!("--trusted-ca-file={ca}")];
    let service = service(&authority, &Program::etcd(), &demanding);
    let certificates = [
        format!("--cacert={ca}"),
        format!("--cert={}", client.cert.display()),
        format!("--key={}", client.key.display()),
        format!("--endpoints={}", service.endpoint()),
    ];
    let put =
        Program::etcdctl().command().args(&certificates).args(["put", "/_etcd/registry/T/_config/size", "1"]).output();
    assert!(put.expect("etcdctl runs").status.success());
    let endpoints = format!("--discovery-endpoints={}", service.endpoint());
    let files = [
        format!("--discovery-cacert={ca}"),
        format!("--discovery-cert={}", client.cert.display()),
        format!("--discovery-key={}", client.key.display()),
    ];
    let common = ["--discovery-token=T", &endpoints, "--discovery-insecure-transport=false"];

    let mut nobody = node(&Program::subject(), "m1", &[&common[..], &["--discovery-request-timeout=1s"]].concat());
    nobody.spawn();
    wait_log(&mut nobody, "retry connecting to discovery service");
    assert!(!nobody.data_dir().join("REGISTRATION").exists(), "nobody was told");
    nobody.kill();

    let mut member = node(&Program::subject(), "m1", &common);
    for file in files {
        member.add_argument(file);
    }
    member.spawn();
    wait_ready(&mut member);
}

#[test]
fn certificates_that_are_not_there_end_the_start() {
    let words = ["--discovery-token=T", "--discovery-endpoints=127.0.0.1:1", "--discovery-cacert=/absent"];
    let mut member = node(&Program::subject(), "m1", &words);
    member.spawn();
    expect_refusal(&mut member, "setting up TLS for discovery: open /absent: no such file or directory");
}
