//! The local node (`--proxy on|readonly`): v2 and v3 clients on one port before a real etcd that still has v2, before our own
//! daemons, and before members that misbehave; it survives restarts as what it is, and a cluster that goes away.

mod support;

use nix::sys::signal::Signal;
use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};
use support::{
    certificates::Authority,
    cluster::{Cluster, PATIENCE},
    daemon::{Daemon, free_ports},
    discovery, http,
    program::{self, Program},
    wait_for,
};

/// A node before the members whose peer URLs `initial_cluster` names, started and serving.
fn node(initial_cluster: &str, more: &[&str]) -> Daemon {
    let mut node = Daemon::prepare(&std::env::temp_dir(), &Program::subject(), more);
    node.add_argument(format!("--initial-cluster={initial_cluster}"));
    node.spawn();
    assert!(node.wait_ready(PATIENCE), "the node does not serve:\n{}", node.log());
    node
}

fn old_etcd(size: usize) -> Cluster {
    Cluster::start_of(&Program::etcd_3_5_1(), size, &["--enable-v2"])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs curl and returns status, headers and body in one text.
fn curl(words: &[&str]) -> String {
    let output = Command::new("curl").args(["-sS", "-i", "-m", "20"]).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("curl: {error}; apt-get install curl brings it"));
    text(&output.stdout).replace('\r', "")
}

fn etcdctl_v2(node: &Daemon, words: &[&str]) -> Output {
    let mut command = Command::new(program::clients().join("etcdctl-3.5.1"));
    command.env("ETCDCTL_API", "2").args(["--no-sync", "--endpoints", &node.endpoint()]).args(words);
    command.output().expect("etcdctl starts")
}

fn etcdctl(node: &Daemon, words: &[&str]) -> Output {
    let mut command = Program::etcdctl().command();
    command.args(["--endpoints", &node.client.to_string(), "--command-timeout=5s"]).args(words);
    command.output().expect("etcdctl starts")
}

fn says(output: &Output, expected: &str) {
    let said = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.0.contains(expected), "{expected:?} in {said:?}");
}

/// A command or a connection whose lines can be waited for.
struct Lines {
    source: Source,
    lines: mpsc::Receiver<String>,
}

enum Source {
    Child(Child),
    Stream(TcpStream),
}

impl Lines {
    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let out = child.stdout.take().expect("piped");
        Self { source: Source::Child(child), lines: Self::read(out) }
    }

    /// The answer to one `GET`, as it comes.
    fn of_stream(address: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).expect("written");
        let lines = Self::read(stream.try_clone().expect("a file handle"));
        Self { source: Source::Stream(stream), lines }
    }

    fn read(out: impl Read + Send + 'static) -> mpsc::Receiver<String> {
        let (sender, lines) = mpsc::sync_channel(1_000);
        let out = BufReader::new(out);
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        lines
    }

    fn wait(&self, expected: &str, limit: Duration) -> bool {
        let next = || self.lines.try_recv().ok().filter(|line| line.contains(expected));
        wait_for(limit, next).is_some()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        match &mut self.source {
            Source::Child(child) => {
                drop(child.kill());
                drop(child.wait());
            }
            Source::Stream(stream) => drop(stream.shutdown(Shutdown::Both)),
        }
    }
}

#[test]
fn v2_clients_work_through_it_and_streams_are_not_held_up() {
    let cluster = old_etcd(3);
    let node = node(&cluster.initial_cluster(), &["--proxy=on"]);
    let keys = format!("{}/v2/keys/", node.endpoint());
    let endpoints = http::get(node.client, "/v2/config/local/proxy").expect("an answer");
    for member in &cluster.members {
        assert!(endpoints.body.contains(&format!("\"{}\"", member.endpoint())), "{endpoints:?}");
    }
    assert!(endpoints.body.starts_with("{\"endpoints\":[") && endpoints.body.ends_with("]}\n"), "{endpoints:?}");
    let refused = curl(&["-X", "POST", &format!("{}/v2/config/local/proxy", node.endpoint())]);
    assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("Allow: GET"), "{refused}");

    let put = curl(&["-X", "PUT", &format!("{keys}a"), "-d", "value=one two"]);
    assert!(put.starts_with("HTTP/1.1 201") && put.contains("X-Etcd-Index: "), "{put}");
    assert!(curl(&[&format!("{keys}a?quorum=true")]).contains(r#""value":"one two""#));
    assert!(curl(&[&format!("{keys}nobody")]).contains(r#""errorCode":100"#));
    says(&etcdctl_v2(&node, &["set", "/dir/b", "2"]), "2");
    says(&etcdctl_v2(&node, &["ls", "--recursive", "/"]), "/dir/b");
    says(&etcdctl_v2(&node, &["member", "list"]), "peerURLs=");
    assert!(curl(&["--http2-prior-knowledge", &format!("{keys}a")]).contains(r#""value":"one two""#), "HTTP/2, too");

    // Events arrive when they happen, and the head of the answer before any does.
    let stream = Lines::of_stream(node.client, "/v2/keys/w?wait=true&stream=true&recursive=true");
    assert!(stream.wait("HTTP/1.1 200", PATIENCE), "the head of a stream is held up");
    assert!(stream.wait("X-Etcd-Index: ", PATIENCE), "headers are spelled as etcd does");
    for value in ["first", "second"] {
        curl(&["-X", "PUT", &format!("{keys}w/x"), "-d", &format!("value={value}")]);
        assert!(stream.wait(value, Duration::from_secs(5)), "{value} is held up");
    }
    // Who goes takes his wait at the member with him.
    let waiters = || -> u64 {
        let of = |member: &Daemon| {
            let page = http::get(member.client, "/metrics").expect("metrics").body;
            let line = page.lines().find_map(|line| line.strip_prefix("etcd_debugging_store_watchers "));
            line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or_default()
        };
        cluster.members.iter().map(of).sum()
    };
    assert!(wait_for(PATIENCE, || (waiters() == 1).then_some(())).is_some(), "{} waiters", waiters());
    drop(stream);
    assert!(wait_for(PATIENCE, || (waiters() == 0).then_some(())).is_some(), "{} waiters are left", waiters());
    let page = http::get(node.client, "/metrics").expect("its own").body;
    assert!(page.contains("etcd_proxy_handled_total{code=\"201\",method=\"PUT\"}"), "{page}");
}

#[test]
fn v3_clients_work_through_it_as_well() {
    // The real etcd, because it has all of the v3 API.
    let cluster = Cluster::start_of(&Program::etcd(), 3, &[]);
    let node = node(&cluster.initial_cluster(), &["--proxy=on"]);
    says(&etcdctl(&node, &["put", "k", "v"]), "OK");
    says(&etcdctl(&node, &["get", "k"]), "v");
    says(&etcdctl(&node, &["endpoint", "status", "-w", "json"]), "leader");
    says(&etcdctl(&node, &["endpoint", "health"]), "127.0.0.1");
    says(&etcdctl(&node, &["member", "list"]), "started");
    let json = http::post(node.client, "/v3/kv/range", r#"{"key":"aw=="}"#).expect("an answer");
    assert!(json.status == 200 && json.body.contains("\"value\":\"dg==\""), "{json:?}");
    let version = http::get(node.client, "/version").expect("an answer");
    assert!(version.body.contains("etcdserver"), "{version:?}");

    let endpoint = node.client.to_string();
    let watch = Lines::of(Program::etcdctl().command().args(["--endpoints", &endpoint, "watch", "--prefix", "w/"]));
    let arrives = |value: &str| {
        wait_for(PATIENCE, || {
            etcdctl(&node, &["put", "w/x", value]);
            watch.wait(value, Duration::from_millis(500)).then_some(())
        })
    };
    assert!(arrives("first").is_some(), "a watch hears nothing:\n{}", node.log());
    let lease = text(&etcdctl(&node, &["lease", "grant", "60"]).stdout);
    let lease = lease.split_whitespace().nth(1).expect("an identifier").to_owned();
    says(&etcdctl(&node, &["lease", "keep-alive", "--once", &lease]), "keepalived");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("snapshot").to_string_lossy().into_owned();
    let big = "x".repeat(100_000);
    for number in 0..60 {
        says(&etcdctl(&node, &["put", &format!("big/{number}"), &big]), "OK");
    }
    says(&etcdctl(&node, &["snapshot", "save", &file]), "");
    assert!(fs::metadata(&file).expect("saved").len() > 5_000_000);
    says(&etcdctl(&node, &["get", "--prefix", "big/", "--keys-only"]), "big/59");
    // What a member refuses is refused alike, and a call nobody serves is told as such.
    let refused = etcdctl(&node, &["lease", "revoke", "4242"]);
    assert!(text(&refused.stderr).contains("requested lease not found"), "{refused:?}");
}

#[test]
fn members_die_one_by_one_and_come_back() {
    let mut cluster = Cluster::start(3, &[]);
    let node = node(&cluster.initial_cluster(), &["--proxy=on", "--proxy-failure-wait=1000"]);
    let endpoint = node.client.to_string();
    says(&etcdctl(&node, &["put", "k", "v"]), "OK");
    let watch = Lines::of(Program::etcdctl().command().args(["--endpoints", &endpoint, "watch", "w"]));
    let arrives = |value: &str| {
        wait_for(PATIENCE, || {
            etcdctl(&node, &["put", "w", value]);
            watch.wait(value, Duration::from_millis(500)).then_some(())
        })
    };
    assert!(arrives("before").is_some());
    for member in 0..3 {
        cluster.members[member].kill();
        // The first call may find the member dead while the cluster elects; none but it waits for that.
        let works = wait_for(PATIENCE, || etcdctl(&node, &["put", "k", "v"]).status.success().then_some(()));
        assert!(works.is_some(), "{}", node.log());
        assert_eq!(http::get(node.client, "/health").expect("an answer").status, 200);
        assert!(
            arrives(&format!("without {member}")).is_some(),
            "the watch ended with member {member}:\n{}",
            node.log()
        );
        cluster.members[member].restart();
    }
}

/// A member whose process stands still takes whatever it is sent, and answers nothing.
#[test]
fn a_member_that_stands_still_holds_up_one_request() {
    let cluster = Cluster::start(3, &[]);
    let node = node(&cluster.initial_cluster(), &["--proxy=on"]);
    let key = format!("{}/v2/keys/a", node.endpoint());
    assert!(curl(&["-X", "PUT", &key, "-d", "value=1"]).starts_with("HTTP/1.1 201"));
    let listed = http::get(node.client, "/v2/config/local/proxy").expect("its own").body;
    let first = (0..3).min_by_key(|number| listed.find(&cluster.members[*number].endpoint())).expect("three");
    cluster.members[first].signal("STOP");
    assert!(!curl(&["-m", "2", &key]).contains("HTTP/1.1"), "{listed}");
    for _ in 0..3 {
        assert!(curl(&["-m", "10", &key]).contains(r#""value":"1""#), "{listed}\n{}", node.log());
    }
    cluster.members[first].signal("CONT");
}

#[test]
fn the_whole_cluster_may_go_and_come_back() {
    let mut cluster = old_etcd(1);
    let node = node(&cluster.initial_cluster(), &["--proxy=on", "--proxy-failure-wait=60000"]);
    let key = format!("{}/v2/keys/a", node.endpoint());
    assert!(curl(&["-X", "PUT", &key, "-d", "value=1"]).starts_with("HTTP/1.1 201"));
    cluster.members[0].kill();
    let first = curl(&[&key]);
    assert!(first.starts_with("HTTP/1.1 502"), "{first}");
    assert!(first.ends_with(r#"{"message":"httpproxy: unable to get response from 1 endpoint(s)"}"#), "{first}");
    let then = curl(&[&key]);
    assert!(then.starts_with("HTTP/1.1 503"), "{then}");
    assert!(then.ends_with(r#"{"message":"httpproxy: zero endpoints currently available"}"#), "{then}");
    let health = http::get(node.client, "/health").expect("its own");
    assert!(health.status == 503 && health.body.contains(r#""health":"false""#), "{health:?}");
    assert!(http::get(node.client, "/version").expect("its own").body.contains("not_decided"));
    let refused = etcdctl(&node, &["get", "a"]);
    assert!(!refused.status.success(), "{refused:?}");
    cluster.members[0].restart();
    let back = || curl(&[&key]).contains(r#""value":"1""#).then_some(());
    assert!(wait_for(Duration::from_secs(5), back).is_some(), "not found again:\n{}", node.log());
    says(&etcdctl(&node, &["put", "a", "b"]), "OK");
}

#[test]
fn a_read_only_node_writes_nothing() {
    let cluster = old_etcd(1);
    let node = node(&cluster.initial_cluster(), &["--proxy=readonly"]);
    let key = format!("{}/v2/keys/a", node.endpoint());
    assert!(curl(&[&key]).contains(r#""errorCode":100"#));
    for method in ["PUT", "DELETE", "OPTIONS", "POST"] {
        let refused = curl(&["-X", method, &key]);
        assert!(refused.starts_with("HTTP/1.1 501") && refused.ends_with("\n\n"), "{method}: {refused}");
    }
    assert!(curl(&["-I", &key]).starts_with("HTTP/1.1 501"));
    assert!(etcdctl(&node, &["get", "a"]).status.success());
    let refused = etcdctl(&node, &["put", "a", "b"]);
    assert!(text(&refused.stderr).contains("this proxy is read-only"), "{refused:?}");
}

#[test]
fn it_stays_a_proxy_over_restarts_and_is_promoted_by_hand() {
    let mut cluster = Cluster::start(1, &[]);
    let mut node = node(&cluster.initial_cluster(), &["--proxy=on"]);
    let file = node.data_dir().join("proxy/cluster");
    let peers = format!(r#"{{"PeerURLs":["http://{}"]}}"#, cluster.members[0].peer);
    assert_eq!(fs::read_to_string(&file).expect("written"), peers);
    let (status, took) = node.terminate();
    assert!(
        status.signal() == Some(Signal::SIGTERM as i32) && took < Duration::from_millis(1_500),
        "{status} {took:?}"
    );

    // The directory decides, and what it holds is asked before what is configured.
    let [nobody] = free_ports();
    node.add_argument("--proxy=off".to_owned());
    node.add_argument(format!("--initial-cluster=m1=http://{nobody}"));
    node.restart();
    assert!(node.log().contains("the server is already initialized as proxy before, starting as etcd proxy..."));
    assert!(node.log().contains("proxy: using peer urls"), "{}", node.log());
    says(&etcdctl(&node, &["put", "k", "v"]), "OK");

    // The members change; the file follows.
    let second = cluster.prepare(&[]);
    let peer = format!("http://{}", cluster.members[second].peer);
    cluster.ctl(0, &["member", "add", "m2", "--peer-urls", &peer]).expect("added");
    cluster.join(second);
    node.signal("HUP");
    let both = || fs::read_to_string(&file).ok().filter(|text| text.contains(&peer));
    assert!(wait_for(PATIENCE, both).is_some(), "{}", node.log());

    // Both directories: without a log `member/` is what etcd leaves, with one nobody knows what the node is.
    node.terminate();
    let wal = node.data_dir().join("member/wal");
    fs::create_dir_all(&wal).expect("made");
    node.restart();
    says(&etcdctl(&node, &["get", "k"]), "v");
    node.terminate();
    fs::write(wal.join("0000000000000000-0000000000000000.wal"), "").expect("written");
    node.spawn();
    let ended = wait_for(PATIENCE, || node.exited()).expect("it ends");
    assert_eq!(ended.code(), Some(1));
    assert!(node.log().contains("invalid datadir. Both member and proxy directories exist."), "{}", node.log());
    node.kill();

    // Promotion: the cluster has a place, the directory is empty, the list is whole.
    fs::remove_dir_all(node.data_dir().join("member")).expect("removed");
    fs::remove_dir_all(node.data_dir().join("proxy")).expect("removed");
    let own = format!("http://{}", node.peer);
    // A member that has just joined counts as healthy after a while.
    cluster.ctl_until(0, &["member", "add", "node", "--peer-urls", &own]);
    node.add_argument("--name=node".to_owned());
    node.add_argument("--initial-cluster-state=existing".to_owned());
    node.add_argument(format!("--initial-cluster={},node={own}", cluster.initial_cluster()));
    node.restart();
    says(&etcdctl(&node, &["get", "k"]), "v");
    assert!(node.data_dir().join("member").exists());
    // From here on the directory says member, whatever the flag says.
    node.terminate();
    node.add_argument("--proxy=on".to_owned());
    node.restart();
    assert!(node.log().contains("starting as etcd member..."));
}

#[test]
fn who_comes_too_late_becomes_a_proxy_and_stays_one() {
    let service = discovery::v2_service();
    let url = discovery::v2_token(&service, "T", "1");
    let flag = format!("--discovery={url}");
    let mut founder = discovery::node(&Program::subject(), "m1", &[&flag]);
    founder.spawn();
    discovery::wait_ready(&mut founder);
    let mut late = discovery::node(&Program::subject(), "m2", &[&flag]);
    late.spawn();
    assert!(late.wait_ready(PATIENCE), "the late node does not serve:\n{}", late.log());
    assert!(late.data_dir().join("proxy/cluster").exists() && !late.data_dir().join("member").exists());
    let key = format!("{}/v2/keys/a", late.endpoint());
    assert!(curl(&["-X", "PUT", &key, "-d", "value=1"]).starts_with("HTTP/1.1 201"), "{}", late.log());
    says(&etcdctl(&late, &["put", "k", "v"]), "OK");

    // Nobody has to tell it again, and it registers nowhere.
    drop(service);
    late.terminate();
    late.restart();
    assert!(late.log().contains("starting as etcd proxy..."), "{}", late.log());
    assert!(curl(&[&key]).contains(r#""value":"1""#));
    says(&etcdctl(&late, &["get", "k"]), "v");
}

#[test]
fn members_and_clients_may_want_certificates() {
    let authority = Authority::new("ca");
    let pair = authority.issue("node", &["127.0.0.1"]);
    let trusted = format!("--trusted-ca-file={}", authority.file().display());
    let encrypted = |daemon: &mut Daemon, listen: String, advertise: String| {
        let urls = [format!("--listen-client-urls={listen}"), format!("--advertise-client-urls={advertise}")];
        for argument in urls.into_iter().chain(pair.flags("--")).chain([trusted.clone()]) {
            daemon.add_argument(argument);
        }
        daemon.spawn();
    };
    let mut member = Daemon::prepare(&std::env::temp_dir(), &Program::subject(), &[]);
    let url = format!("https://{}", member.client);
    encrypted(&mut member, url.clone(), url);
    discovery::wait_log(&mut member, "ready to serve client requests");
    let mut node = Daemon::prepare(&std::env::temp_dir(), &Program::subject(), &["--proxy=on"]);
    node.add_argument(format!("--initial-cluster=m1=http://{}", member.peer));
    let (plain, tls) = (node.endpoint(), format!("https://{}", node.client));
    encrypted(&mut node, format!("{plain},{tls}"), tls.clone());
    assert!(node.wait_ready(PATIENCE), "the node does not serve:\n{}", node.log());

    says(&etcdctl(&node, &["put", "k", "v"]), "OK");
    let certificate = [vec![format!("--cacert={}", authority.file().display())], pair.client_flags().to_vec()].concat();
    let mut command = Program::etcdctl().command();
    let output =
        command.args(["--endpoints", &tls, "--command-timeout=5s"]).args(&certificate).args(["get", "k"]).output();
    says(&output.expect("etcdctl starts"), "v");
    let paths = [authority.file(), pair.cert.clone(), pair.key.clone()].map(|path| path.to_string_lossy().into_owned());
    let [ca, cert, key] = paths.each_ref();
    let said = curl(&[
        "--cacert",
        ca,
        "--cert",
        cert,
        "--key",
        key,
        "-X",
        "PUT",
        &format!("{tls}/v2/keys/a"),
        "-d",
        "value=1",
    ]);
    assert!(said.contains(r#""value":"1""#), "{said}\n{}", node.log());
    let refused = curl(&["--cacert", ca, &format!("{tls}/v2/keys/a")]);
    assert!(!refused.contains(r#""value""#), "without a certificate: {refused}");
}

/// A member that answers who the members are (itself, and `other`) and hands every other request to `answer`, which may end the
/// connection without a word.
fn fake_member(
    other: Option<SocketAddr>,
    answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let answer = std::sync::Arc::new(answer);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = std::sync::Arc::clone(&answer);
            thread::spawn(move || {
                let mut request = Vec::new();
                let mut piece = [0; 4096];
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(count) if count > 0 => request.extend_from_slice(piece.get(..count).unwrap_or_default()),
                        _ => return,
                    }
                }
                let request = text(&request);
                let body = if request.starts_with("GET /members ") {
                    let clients = [Some(address), other].into_iter().flatten();
                    let clients: Vec<String> = clients.map(|client| format!("\"http://{client}\"")).collect();
                    let urls = format!(r#""peerURLs":["http://{address}"],"clientURLs":[{}]"#, clients.join(","));
                    Some(format!(r#"[{{"id":1,"name":"a",{urls}}}]"#))
                } else if request.starts_with("GET /health ") {
                    Some(r#"{"health":"true"}"#.to_owned())
                } else {
                    answer(&request)
                };
                let Some(body) = body else { return };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: 7\r\nConnection: close\r\nKeep-Alive: timeout=5\r\n\
                     Content-Length: {}\r\n\r\n",
                    body.len()
                );
                drop(stream.write_all((head + &body).as_bytes()));
            });
        }
    });
    address
}

#[test]
fn headers_are_passed_as_etcds_proxy_does() {
    let member = fake_member(None, |request| Some(request.to_lowercase()));
    let node = node(&format!("m1=http://{member}"), &["--proxy=on"]);
    let url = format!("{}/v2/keys/a%2Fb?x=%20", node.endpoint());
    let said = curl(&[
        "-u",
        "root:secret",
        "-H",
        "X-Forwarded-For: 10.1.1.1",
        "-H",
        "Connection: X-Mine",
        "-H",
        "X-Mine: 1",
        "-H",
        "TE: trailers",
        "-H",
        "Proxy-Authorization: x",
        "-H",
        "Host: etcd.example",
        &url,
    ]);
    let (head, seen) = said.split_once("\n\n").expect("head and body");
    assert!(seen.starts_with("get /v2/keys/a%2fb?x=%20 http/1.1"), "{seen}");
    for line in ["x-forwarded-for: 10.1.1.1, 127.0.0.1", "authorization: basic", "x-mine: 1", "host: etcd.example"] {
        assert!(seen.contains(line), "{line} in {seen}");
    }
    for line in ["te: ", "proxy-authorization", "connection: x-mine"] {
        assert!(!seen.contains(line), "{line} in {seen}");
    }
    assert!(!head.contains("Keep-Alive"), "{head}");
    let preflight = curl(&["-X", "OPTIONS", &url]);
    assert!(
        preflight.starts_with("HTTP/1.1 200") && preflight.contains("Access-Control-Allow-Origin: *"),
        "{preflight}"
    );
}

#[test]
fn a_write_that_may_have_happened_is_not_sent_again() {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let breaks_off = || {
        let asked = std::sync::Arc::clone(&asked);
        move |_: &str| {
            asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            None
        }
    };
    let other = fake_member(None, breaks_off());
    let member = fake_member(Some(other), breaks_off());
    let node = node(&format!("m1=http://{member}"), &["--proxy=on", "--proxy-failure-wait=1"]);
    let known = http::get(node.client, "/v2/config/local/proxy").expect("an answer").body;
    assert!(known.contains(&member.to_string()) && known.contains(&other.to_string()), "{known}");
    let key = format!("{}/v2/keys/a", node.endpoint());
    let said = curl(&["-X", "PUT", &key, "-d", "value=1"]);
    assert!(said.starts_with("HTTP/1.1 502") && said.contains("from 1 endpoint(s)"), "{said}");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1, "one member was asked, once");
    // Whoever only reads is sent on.
    let said = curl(&[&key]);
    assert!(said.starts_with("HTTP/1.1 502") && said.contains("from 2 endpoint(s)"), "{said}");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 3);
}

#[test]
fn it_tells_systemd_how_it_stands() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).expect("bound");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let mut program = Program::subject();
    program.variables.push(("NOTIFY_SOCKET", socket.to_string_lossy().into_owned().leak()));
    let [nobody] = free_ports();
    let mut node = Daemon::prepare(&std::env::temp_dir(), &program, &["--proxy=on"]);
    node.add_argument(format!("--initial-cluster=m1=http://{nobody}"));
    node.spawn();
    let heard = |wanted: &str| {
        let mut bytes = [0; 1024];
        let mut told = || {
            let count = manager.recv(&mut bytes).expect("systemd hears of it");
            text(&bytes[..count])
        };
        while !told().contains(wanted) {}
    };
    heard("EXTEND_TIMEOUT_USEC");
    heard("READY=1");
    node.signal("HUP");
    heard("RELOADING=1");
    heard("READY=1");
    node.terminate();
    heard("STOPPING=1");
}
