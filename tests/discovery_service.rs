//! The discovery service as clients meet it: over HTTP, with real etcds as the nodes that find each other, and with every
//! kind of store behind it.

mod support;

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quorate::tls::{PairFiles, SelfSigned, self_signed};
use serde_json::Value;
use support::{
    daemon::{Daemon, READY_LIMIT, STOP_LIMIT, ended_by, free_ports, tail},
    now,
    program::Program,
    wait_for,
};
use tempfile::TempDir;

/// Longest wait for one answer; waits of the service end before.
const ANSWER_LIMIT: Duration = Duration::from_secs(70);
/// Longest wait until three nodes have formed a cluster.
const CLUSTER_LIMIT: Duration = Duration::from_mins(1);
const SIGTERM: i32 = 15;
/// A token that nobody has made.
const STRANGE: &str = "0123456789abcdef0123456789abcdef";

/// A process with a log, which dies with the thread that started it.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(program: &Program, arguments: &[String], variables: &[(&str, &str)], log: PathBuf) -> Self {
        let file = File::create(&log).expect("a log");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&program.path)
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a handle"))
            .stderr(file)
            .spawn();
        Self { child: child.unwrap_or_else(|error| panic!("{} does not start: {error}", program.name)), log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    fn terminate(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
        wait_for(STOP_LIMIT, || self.exited()).unwrap_or_else(|| panic!("it does not end:\n{}", self.log()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already; waiting reaps it either way.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A running service.
struct Discovery {
    process: Process,
    address: SocketAddr,
    arguments: Vec<String>,
    dir: TempDir,
    starts: usize,
}

impl Discovery {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let [address] = free_ports();
        let dir = tempfile::tempdir().expect("a directory");
        let mut words = vec!["discovery".to_owned(), format!("--listen-urls=http://{address}"), data_dir(dir.path())];
        words.extend(arguments.iter().map(ToString::to_string));
        let process = Process::start(&Program::subject(), &words, variables, dir.path().join("log.0"));
        let mut service = Self { process, address, arguments: words, dir, starts: 1 };
        service.await_ready();
        service
    }

    fn await_ready(&mut self) {
        let ready = wait_for(READY_LIMIT, || {
            assert!(self.process.exited().is_none(), "it ended:\n{}", self.process.log());
            get(self.address, "/health").filter(|answer| answer.status == 200)
        });
        assert!(ready.is_some(), "it is not ready:\n{}", tail(&self.process.log(), 4_000));
    }

    fn restart(&mut self) {
        let log = self.dir.path().join(format!("log.{}", self.starts));
        self.process = Process::start(&Program::subject(), &self.arguments, &[], log);
        self.starts += 1;
        self.await_ready();
    }

    fn token(&self) -> String {
        new_token(self.address, 3)
    }
}

fn data_dir(dir: &Path) -> String {
    format!("--data-dir={}", dir.join("data").display())
}

/// One answer.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What stands at a place of its JSON; null if nothing does.
    fn at(&self, place: &str) -> Value {
        self.json().pointer(place).cloned().unwrap_or_default()
    }

    fn header(&self, name: &str) -> &str {
        let line = self.headers.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then_some(value.trim())
        });
        line.unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// The index of the store.
    fn index(&self) -> u64 {
        self.header("x-etcd-index").parse().expect("a number")
    }
}

/// Sends bytes and reads the answer to its end; `None` if there is nobody.
fn exchange(address: SocketAddr, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).ok()?;
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Some(Answer { status, headers: head.to_owned(), body })
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        whole.push_str(rest.get(..size).unwrap_or_default());
        body = rest.get(size..).unwrap_or_default().trim_start_matches("\r\n");
    }
    whole
}

fn request(address: SocketAddr, method: &str, path: &str, form: &str) -> Option<Answer> {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    exchange(address, format!("{head}{kind}Content-Length: {}\r\n\r\n{form}", form.len()).as_bytes())
}

fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    request(address, "GET", path, "")
}

fn asked(address: SocketAddr, method: &str, path: &str, form: &str) -> Answer {
    request(address, method, path, form).unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

/// The path of a new token.
fn new_token(address: SocketAddr, size: u32) -> String {
    let answer = asked(address, "GET", &format!("/new?size={size}"), "");
    assert_eq!(answer.status, 200, "{answer:?}");
    let token = answer.body.strip_prefix(&format!("http://{address}/")).unwrap_or_else(|| panic!("{answer:?}"));
    assert!(token.len() == 32 && token.bytes().all(|digit| digit.is_ascii_hexdigit()), "{answer:?}");
    format!("/{token}")
}

/// Everything a client of discovery does, and everybody hears the same whatever keeps the tokens.
fn tells_its_story(address: SocketAddr) {
    let token = new_token(address, 3);
    let key = format!("/_etcd/registry{token}");
    let size = asked(address, "GET", &format!("{token}/_config/size?quorum=false&recursive=false&sorted=false"), "");
    assert_eq!((size.status, size.at("/node/value")), (200, Value::from("3")), "{size:?}");
    assert_eq!(size.at("/node/key"), format!("{key}/_config/size"));

    let empty = asked(address, "GET", &token, "");
    assert_eq!((empty.status, empty.at("/node/dir")), (200, Value::Bool(true)), "{empty:?}");
    assert!(empty.at("/node/nodes").is_null(), "hidden nodes are not listed: {empty:?}");

    let put = |id: &str, value: &str| {
        asked(address, "PUT", &format!("{token}/{id}?prevExist=false"), &format!("value={value}"))
    };
    let first = put("b2", "m2%3Dhttp%3A%2F%2F10.0.0.2%3A2380");
    assert_eq!(first.status, 201, "{first:?}");
    let created = first.at("/node/createdIndex").as_u64().expect("an index");
    assert_eq!(first.at("/action"), "create");
    assert_eq!(first.at("/node/value"), "m2=http://10.0.0.2:2380");
    assert_eq!(first.at("/node/key"), format!("{key}/b2"));
    assert!(first.at("/prevNode").is_null() && first.index() >= created, "{first:?}");

    let own = asked(address, "GET", &format!("{token}/b2?recursive=false&wait=true&waitIndex={created}"), "");
    assert_eq!((own.status, own.at("/node/createdIndex").as_u64()), (200, Some(created)), "{own:?}");

    let again = put("b2", "other");
    assert_eq!((again.status, again.at("/errorCode").as_u64()), (412, Some(105)), "{again:?}");
    assert_eq!(again.at("/cause"), format!("{key}/b2"));

    let seen = asked(address, "GET", &token, "").index();
    let path = format!("{token}?recursive=true&wait=true&waitIndex={}", seen + 1);
    let waiting = thread::spawn(move || asked(address, "GET", &path, ""));
    thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished(), "there was nothing to tell yet");
    assert_eq!(put("a1", "m1%3Dhttp%3A%2F%2F10.0.0.1%3A2380").status, 201);
    let told = waiting.join().expect("an answer");
    assert_eq!((told.status, told.at("/node/key")), (200, Value::from(format!("{key}/a1"))), "{told:?}");
    let modified = told.at("/node/modifiedIndex").as_u64().expect("an index");
    assert!(modified > seen, "{told:?}");

    let list = asked(address, "GET", &token, "");
    let mut nodes: Vec<_> = list.at("/node/nodes").as_array().expect("members").clone();
    nodes.sort_by_key(|node| node.get("createdIndex").and_then(Value::as_u64));
    let names: Vec<_> = nodes
        .iter()
        .map(|node| node.get("key").and_then(Value::as_str).and_then(|key| key.rsplit('/').next()))
        .collect();
    assert_eq!(names, [Some("b2"), Some("a1")], "{list:?}");

    let gone = asked(address, "DELETE", &format!("{token}/b2"), "");
    assert_eq!((gone.status, gone.at("/action")), (200, Value::from("delete")), "{gone:?}");
    assert_eq!(gone.at("/prevNode/value"), "m2=http://10.0.0.2:2380", "{gone:?}");
    let missing = asked(address, "GET", &format!("{token}/b2"), "");
    assert_eq!((missing.status, missing.at("/errorCode").as_u64()), (404, Some(100)), "{missing:?}");
    assert_eq!(asked(address, "DELETE", &format!("{token}/b2"), "").status, 404);
    assert_eq!(put("b2", "back").status, 201, "who was removed may come back");
    let set = asked(address, "PUT", &format!("{token}/b2"), "value=changed");
    assert_eq!((set.status, set.at("/prevNode/value")), (200, Value::from("back")), "{set:?}");

    for (method, path) in [
        ("GET", format!("/{STRANGE}")),
        ("GET", format!("/{STRANGE}/_config/size")),
        ("PUT", format!("/{STRANGE}/a1?prevExist=false")),
    ] {
        let strange = asked(address, method, &path, "value=x");
        assert_eq!(
            (strange.status, strange.at("/errorCode").as_u64()),
            (404, Some(100)),
            "{method} {path}: {strange:?}"
        );
    }
    let page = asked(address, "GET", &format!("/?token={}", token.trim_start_matches('/')), "");
    assert!(page.status == 200 && page.body.contains("2 of 3 members have registered, 1 is missing"), "{}", page.body);
}

#[test]
fn the_member_inside_keeps_tokens() {
    tells_its_story(Discovery::start(&[]).address);
}

#[test]
fn a_cluster_of_etcd_keeps_tokens_by_its_v3_api() {
    let etcd = Daemon::start(&Program::etcd(), &[]);
    tells_its_story(Discovery::start(&["--endpoints", &etcd.client.to_string()]).address);
}

#[test]
fn a_cluster_of_ours_keeps_tokens_by_its_v3_api() {
    let member = Daemon::start(&Program::subject(), &[]);
    tells_its_story(Discovery::start(&["--endpoints", &member.endpoint()]).address);
}

#[test]
fn a_cluster_of_etcd_keeps_tokens_by_its_v2_api() {
    let etcd = Daemon::start(&Program::etcd_3_5_1(), &["--enable-v2"]);
    let service = Discovery::start(&["--etcd", &etcd.endpoint(), "--min-age=1h"]);
    tells_its_story(service.address);
    let kept = asked(etcd.client, "GET", "/v2/keys/_etcd/registry?recursive=true", "");
    assert!(kept.body.contains("\"ttl\":3"), "tokens have a lifetime there: {kept:?}");
}

#[test]
fn any_member_serves_it_on_its_client_port_when_told_so() {
    let member = Daemon::start(&Program::subject(), &["--discovery-service"]);
    tells_its_story(member.client);
    let health = asked(member.client, "GET", "/health", "");
    assert!(health.body.contains("\"health\":\"true\""), "probes are the member's own: {health:?}");
    let plain = Daemon::start(&Program::subject(), &[]);
    assert_eq!(asked(plain.client, "GET", "/new", "").status, 404, "nobody serves it unasked");
}

/// A real etcd with TLS and both APIs.
fn etcd_with_tls(dir: &Path, pair: &PairFiles) -> (Process, String) {
    let [client, peer] = free_ports();
    let (url, peer) = (format!("https://{client}"), format!("http://{peer}"));
    let arguments = [
        ("data-dir", dir.join("data").display().to_string()),
        ("listen-client-urls", url.clone()),
        ("advertise-client-urls", url.clone()),
        ("cert-file", pair.cert.display().to_string()),
        ("key-file", pair.key.display().to_string()),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer.clone()),
        ("initial-cluster", format!("default={peer}")),
        ("enable-v2", "true".to_owned()),
    ];
    let arguments = arguments.map(|(flag, value)| format!("--{flag}={value}"));
    (Process::start(&Program::etcd_3_5_1(), &arguments, &[], dir.join("etcd.log")), url)
}

#[test]
fn an_encrypted_service_names_https_urls_and_speaks_tls_with_its_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let hosts = ["127.0.0.1".to_owned()];
    let pair = self_signed(SelfSigned { directory: dir.path(), hosts: &hosts, years: 1 }).expect("a pair");
    let (cert, key) = (pair.cert.display().to_string(), pair.key.display().to_string());
    let (etcd, store) = etcd_with_tls(dir.path(), &pair);
    let curl = |url: &str, more: &[&str]| {
        let output = Command::new("curl").args(["--silent", "--cacert", &cert]).args(more).arg(url).output();
        let output = output.unwrap_or_else(|error| panic!("curl: {error}; apt-get install curl brings it"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for kind in ["endpoints", "etcd"] {
        let [address] = free_ports();
        let base = format!("https://{address}");
        let flags =
            [("listen-urls", &base), ("cert-file", &cert), ("key-file", &key), (kind, &store), ("cacert", &cert)];
        let words = flags.map(|(flag, value)| format!("--{flag}={value}"));
        let words: Vec<_> = std::iter::once("discovery".to_owned()).chain(words).collect();
        let service = Process::start(&Program::subject(), &words, &[], dir.path().join("service.log"));
        let ready = wait_for(READY_LIMIT, || (curl(&format!("{base}/health"), &[]) == "OK").then_some(()));
        assert!(ready.is_some(), "{}{}", tail(&service.log(), 2_000), tail(&etcd.log(), 2_000));
        let token = curl(&format!("{base}/new"), &[]);
        assert!(token.starts_with(&base), "{token}");
        let put = curl(&format!("{token}/a1?prevExist=false"), &["-X", "PUT", "-d", "value=m=http://a:1"]);
        assert!(put.contains("\"action\":\"create\""), "{put}");
        assert!(curl(&token, &[]).contains("m=http://a:1"));
        assert_eq!(curl(&token.replace("https:", "http:"), &[]), "", "plain text is not served there");
    }
}

/// A real etcd that is told nothing but where to find the others.
fn node(dir: &Path, name: &str, url: &str, fallback: &str) -> (Process, SocketAddr) {
    let [client, peer] = free_ports();
    let arguments = [
        ("name", name.to_owned()),
        ("data-dir", dir.join(name).display().to_string()),
        ("listen-client-urls", format!("http://{client}")),
        ("advertise-client-urls", format!("http://{client}")),
        ("listen-peer-urls", format!("http://{peer}")),
        ("initial-advertise-peer-urls", format!("http://{peer}")),
        ("discovery", url.to_owned()),
        ("discovery-fallback", fallback.to_owned()),
    ];
    let arguments = arguments.map(|(flag, value)| format!("--{flag}={value}"));
    let process = Process::start(&Program::etcd_3_5_1(), &arguments, &[], dir.join(format!("{name}.log")));
    (process, client)
}

#[test]
fn three_real_etcds_find_each_other_and_a_fourth_is_one_too_many() {
    let service = Discovery::start(&[]);
    let (dir, token) = (tempfile::tempdir().expect("a directory"), service.token());
    let url = format!("http://{}{token}", service.address);
    let nodes: Vec<_> = ["n1", "n2", "n3"].iter().map(|name| node(dir.path(), name, &url, "proxy")).collect();
    for (process, client) in &nodes {
        let healthy = wait_for(CLUSTER_LIMIT, || {
            get(*client, "/health").filter(|answer| answer.body.contains("\"health\":\"true\""))
        });
        assert!(healthy.is_some(), "{}", tail(&process.log(), 4_000));
    }
    let members = asked(nodes[0].1, "POST", "/v3/cluster/member/list", "{}");
    for name in ["n1", "n2", "n3"] {
        assert!(members.body.contains(&format!("\"name\":\"{name}\"")), "{members:?}");
    }
    let page = asked(service.address, "GET", &format!("/?token={}", &token[1..]), "");
    assert!(page.body.contains("All 3 members have registered"), "{}", page.body);

    let (mut fourth, _) = node(dir.path(), "n4", &url, "exit");
    let status = wait_for(CLUSTER_LIMIT, || fourth.exited()).expect("it gives up");
    assert_eq!(status.code(), Some(1));
    assert!(fourth.log().contains("discovery: cluster is full"), "{}", tail(&fourth.log(), 2_000));

    // A node that lost its data registers again, and is told what etcd tells it.
    drop(nodes.into_iter().next());
    fs::remove_dir_all(dir.path().join("n1")).expect("its data go");
    let (mut unknown, _) = node(dir.path(), "n5", &format!("http://{}/{STRANGE}", service.address), "exit");
    assert_eq!(wait_for(CLUSTER_LIMIT, || unknown.exited()).expect("it gives up").code(), Some(1));
    assert!(unknown.log().contains("100: Key not found (/_etcd/registry/"), "{}", tail(&unknown.log(), 2_000));
}

#[test]
fn tokens_outlive_a_restart_and_a_kill() {
    let mut service = Discovery::start(&[]);
    let token = service.token();
    let put = |service: &Discovery, id: &str| {
        asked(service.address, "PUT", &format!("{token}/{id}?prevExist=false"), "value=x").status
    };
    assert_eq!(put(&service, "a1"), 201);
    assert!(ended_by(service.process.terminate(), SIGTERM), "{}", service.process.log());
    service.restart();
    assert_eq!((put(&service, "a1"), put(&service, "b2")), (412, 201));
    drop(service.process.child.kill());
    service.process.child.wait().expect("it ends");
    service.restart();
    assert_eq!((put(&service, "a1"), put(&service, "b2")), (412, 412));
    assert_eq!(asked(service.address, "GET", &format!("{token}/_config/size"), "").at("/node/value"), "3");
}

#[test]
fn a_stop_ends_waits_with_the_answer_that_makes_clients_ask_again() {
    let mut service = Discovery::start(&[]);
    let (address, token) = (service.address, service.token());
    let waiting = thread::spawn(move || asked(address, "GET", &format!("{token}?recursive=true&wait=true"), ""));
    thread::sleep(Duration::from_millis(300));
    let asked_to_stop = now();
    assert!(ended_by(service.process.terminate(), SIGTERM));
    assert!(asked_to_stop.elapsed() < Duration::from_secs(5), "{:?}", asked_to_stop.elapsed());
    let told = waiting.join().expect("an answer");
    assert_eq!((told.status, told.body.as_str()), (200, ""), "{told:?}");
}

#[test]
fn abandoned_tokens_go_and_registrations_keep_them() {
    let service = Discovery::start(&["--min-age=4s"]);
    let (abandoned, alive) = (service.token(), service.token());
    let is_there = |token: &str| asked(service.address, "GET", token, "").status == 200;
    let begun = now();
    let gone = wait_for(Duration::from_secs(30), || {
        let kept = asked(service.address, "PUT", &format!("{alive}/a1"), "value=x");
        assert!(kept.status < 300, "{kept:?}");
        thread::sleep(Duration::from_millis(500));
        (!is_there(&abandoned)).then_some(())
    });
    assert!(gone.is_some(), "an abandoned token stays");
    assert!(begun.elapsed() >= Duration::from_secs(3), "it went too early: {:?}", begun.elapsed());
    assert!(is_there(&alive), "a token in use has gone");
    let page = asked(service.address, "GET", &format!("/?token={}", &abandoned[1..]), "");
    assert!(page.status == 404 && page.body.contains("There is no such token"), "{page:?}");
    assert!(
        wait_for(Duration::from_secs(30), || (!is_there(&alive)).then_some(())).is_some(),
        "nobody renews it any more"
    );
}

#[test]
fn one_address_makes_so_many_tokens_in_a_minute() {
    let service = Discovery::start(&["--new-per-minute=5", "--tokens-max=1000"]);
    for _ in 0..5 {
        service.token();
    }
    let refused = asked(service.address, "GET", "/new", "");
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!((1..=60).contains(&refused.header("retry-after").parse::<u64>().expect("seconds")), "{refused:?}");
    let by_page = asked(service.address, "POST", "/", "size=3");
    assert!(by_page.status == 429 && by_page.body.contains("<!DOCTYPE html>"), "{by_page:?}");
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let service = Discovery::start(&["--public-url=https://discovery.example.com/d/"]);
    let made = asked(service.address, "POST", "/", "size=2");
    assert_eq!(made.status, 303, "{made:?}");
    let location = made.header("location").to_owned();
    let hostile = "value=%3Cimg+src%3Dhttp%3A%2F%2Fevil.example%2Fx%3E";
    let token = location.strip_prefix("/?token=").expect("a token");
    assert_eq!(asked(service.address, "PUT", &format!("/{token}/a1"), hostile).status, 201);
    let page = asked(service.address, "GET", &location, "");
    assert!(page.body.contains(&format!("--discovery https://discovery.example.com/d/{token}")), "{}", page.body);
    assert!(!page.body.contains("<img") && page.body.contains("&lt;img src"), "{}", page.body);
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"), "{page:?}");
    for (at, _) in page.body.match_indices("://") {
        let before = page.body.get(..at).unwrap_or_default();
        assert!(!before.ends_with("=\"http") && !before.ends_with("=\"https"), "{}", page.body);
    }
}

#[test]
fn nonsense_and_slowness_harm_nobody_else() {
    let service = Discovery::start(&[]);
    let token = service.token();
    let mut held = Vec::new();
    for beginning in ["", "GET / HT", "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"] {
        for _ in 0..50 {
            let mut stream = TcpStream::connect(service.address).expect("a place");
            stream.write_all(beginning.as_bytes()).expect("it takes it");
            held.push(stream);
        }
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(1_000));
    let raw: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"\0\0\0\0",
        long.as_bytes(),
        many.as_bytes(),
        b"GET /%00%ff%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ];
    for bytes in raw {
        let answer = exchange(service.address, bytes);
        assert!(answer.as_ref().is_none_or(|answer| (400..500).contains(&answer.status)), "{answer:?}");
    }
    for (method, path, form, status) in [
        ("GET", "/new?size=-1", "", 400),
        ("PUT", "/new", "size=1e3", 400),
        ("GET", "/../../etc/passwd", "", 404),
        ("GET", "/0123456789ABCDEF0123456789ABCDEF", "", 404),
        ("TRACE", "/", "", 405),
        ("PUT", &format!("{token}/_config/size"), "value=9", 405),
        ("PUT", &format!("{token}/_hidden"), "value=9", 404),
        ("PUT", &format!("{token}/a%2Fb"), "value=9", 404),
        ("PUT", &format!("{token}/a1?ttl=1"), "value=9", 400),
        ("PUT", &token, "value=9", 403),
        ("GET", &format!("{token}?wait=true&waitIndex=18446744073709551616"), "", 400),
        ("GET", &format!("{token}?wait=true&stream=true"), "", 400),
        ("PUT", &format!("{token}/a1"), &"a".repeat(20_000), 400),
    ] {
        let answer = asked(service.address, method, path, form);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    }
    assert_eq!(asked(service.address, "GET", &token, "").status, 200);
    drop(held);
}

#[test]
fn the_service_manager_hears_when_it_is_ready_and_when_it_stops() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(READY_LIMIT)).expect("a time-out");
    let path = path.display().to_string();
    let mut service = Discovery::start_with(&[], &[("NOTIFY_SOCKET", &path)]);
    let heard = |wanted: &str| {
        let mut datagram = [0; 4096];
        loop {
            let length = socket.recv(&mut datagram).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
            if text.lines().any(|line| line == wanted) {
                return text;
            }
        }
    };
    let ready = heard("READY=1");
    assert!(ready.contains(&format!("STATUS=serving on http://{}; tokens are kept in ", service.address)), "{ready}");
    service.process.terminate();
    heard("STOPPING=1");
}

#[test]
fn a_store_that_is_away_is_waited_for_and_told() {
    let mut etcd = Daemon::start(&Program::etcd(), &[]);
    let service = Discovery::start(&["--endpoints", &etcd.endpoint()]);
    let token = service.token();
    etcd.kill();
    let away = asked(service.address, "GET", &token, "");
    assert_eq!((away.status, away.at("/errorCode").as_u64()), (503, Some(300)), "{away:?}");
    etcd.restart();
    let back = wait_for(READY_LIMIT, || get(service.address, &token).filter(|answer| answer.status == 200));
    assert!(back.is_some(), "{}", tail(&service.process.log(), 2_000));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_begins() {
    let dir = tempfile::tempdir().expect("a directory");
    for (arguments, code, text) in [
        (vec!["--bogus"], 2, "unknown flag: --bogus"),
        (vec!["--listen-urls=https://127.0.0.1:1"], 1, "needs --cert-file"),
        (vec!["--etcd=http://h:1", "--endpoints=h:1"], 1, "two stores"),
        (vec!["--min-age=soon"], 2, "--min-age"),
        (vec!["--help"], 0, "--new-per-minute"),
    ] {
        let output = Command::new(Program::subject().path).arg("discovery").args(&arguments).current_dir(&dir).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(code) && said.contains(text), "{arguments:?}: {:?} {said}", output.status);
    }
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "nothing was written");
}
