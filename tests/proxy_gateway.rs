//! `quorate gateway start` before real clusters: whatever bytes clients and members exchange go through, members may die and
//! come back, the list of members may change, and all of them may be away.

mod support;

use nix::sys::signal::Signal;
use std::{
    fs,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};
use support::{
    cluster::{Cluster, PATIENCE},
    daemon::{Daemon, free_ports},
    http,
    program::Program,
    standin::StandIn,
    wait_for,
};

const READY: &str = "ready to proxy client requests";
/// The words of etcdctl that make it answer or give up soon.
const QUICK: [&str; 2] = ["--dial-timeout=1s", "--command-timeout=3s"];

/// A gateway before `endpoints` and where it listens.
fn gateway(endpoints: &[String], more: &[&str]) -> (StandIn, SocketAddr) {
    let [address] = free_ports();
    let (listen, endpoints) = (format!("--listen-addr={address}"), format!("--endpoints={}", endpoints.join(",")));
    let words = [&["gateway", "start", &listen, &endpoints, "--retry-delay=500ms"], more].concat();
    (StandIn::start(&Program::subject().path, &words, READY), address)
}

/// Runs the real etcdctl against the gateway.
fn etcdctl(address: SocketAddr, words: &[&str]) -> Output {
    let mut command = Program::etcdctl().command();
    command.args(["--endpoints", &address.to_string()]).args(QUICK).args(words);
    command.output().expect("etcdctl starts")
}

fn answer(address: SocketAddr, words: &[&str]) -> Option<String> {
    let output = etcdctl(address, words);
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn endpoints(cluster: &Cluster) -> Vec<String> {
    cluster.members.iter().map(|member| member.client.to_string()).collect()
}

#[test]
fn clients_work_through_it_and_a_killed_member_is_passed_over() {
    let mut cluster = Cluster::start(3, &[]);
    let (gateway, address) = gateway(&endpoints(&cluster), &[]);
    assert_eq!(answer(address, &["put", "k", "v"]).as_deref(), Some("OK\n"));
    assert_eq!(answer(address, &["get", "k"]).as_deref(), Some("k\nv\n"));
    let health = http::get(address, "/health").expect("plain HTTP goes through, too");
    assert_eq!((health.status, health.body.contains("true")), (200, true));
    // A watch lives on one connection; what happens later reaches it.
    let seen = tempfile::NamedTempFile::new().expect("a file");
    let mut watch = Program::etcdctl().command();
    let mut watch = watch
        .args(["--endpoints", &address.to_string(), "watch", "w"])
        .stdout(seen.reopen().expect("it is there"))
        .spawn()
        .expect("etcdctl starts");
    wait_for(PATIENCE, || {
        answer(address, &["put", "w", "seen"]);
        (metric(&cluster, "etcd_debugging_mvcc_watcher_total") > 0).then_some(())
    })
    .expect("the watch arrives");
    answer(address, &["put", "w", "last"]).expect("a put");
    let has_seen = || fs::read_to_string(seen.path()).is_ok_and(|seen| seen.contains("last"));
    wait_for(PATIENCE, || has_seen().then_some(())).expect("it comes through the gateway");
    watch.kill().and_then(|()| watch.wait()).expect("ours");

    cluster.members[0].kill();
    // Once it was found dead nobody meets it, and whoever found it was passed on.
    for _ in 0..6 {
        assert_eq!(answer(address, &["get", "k"]).as_deref(), Some("k\nv\n"), "{}", gateway.log());
    }
    gateway.wait_log("deactivated endpoint");
    gateway.wait_log("failed to activate endpoint");
    cluster.members[0].restart();
    gateway.wait_log(r#""msg":"activated""#);
}

/// The sum of a metric over all members.
fn metric(cluster: &Cluster, name: &str) -> u64 {
    let of = |member: &Daemon| {
        let page = http::get(member.client, "/metrics").ok()?;
        page.body.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    cluster.members.iter().filter_map(of).sum()
}

#[test]
fn the_whole_cluster_may_go_and_come_back() {
    let mut cluster = Cluster::start(1, &[]);
    let (gateway, address) = gateway(&endpoints(&cluster), &[]);
    assert!(answer(address, &["put", "k", "v"]).is_some());
    cluster.members[0].kill();
    assert!(answer(address, &["get", "k"]).is_none());
    let closed = http::get(address, "/health").expect_err("the connection is closed at once, without a word");
    assert!(closed.kind() != std::io::ErrorKind::WouldBlock, "{closed}");
    cluster.members[0].restart();
    gateway.wait_log(r#""msg":"activated""#);
    assert_eq!(answer(address, &["get", "k"]).as_deref(), Some("k\nv\n"));
}

#[test]
fn the_list_of_members_changes_while_it_runs() {
    let (first, second) = (Cluster::start(1, &[]), Cluster::start(1, &[]));
    let (one, two) = (endpoints(&first).join(","), endpoints(&second).join(","));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("members");
    fs::write(&file, format!("# the old one\n{one}\n")).expect("written");
    let [address] = free_ports();
    let (listen, list) = (format!("--listen-addr={address}"), format!("--endpoints-file={}", file.display()));
    let words = ["gateway", "start", &listen, &list];
    let gateway = StandIn::start(&Program::subject().path, &words, READY);
    assert!(answer(address, &["put", "which", "first"]).is_some());
    assert!(cluster_put(&second, "second"));

    fs::write(&file, "nonsense\n").expect("written");
    gateway.signal(Signal::SIGHUP);
    gateway.wait_log("error parsing endpoint");
    assert_eq!(answer(address, &["get", "which"]).as_deref(), Some("which\nfirst\n"), "a wrong list changes nothing");

    fs::write(&file, format!("{two}\n")).expect("written");
    gateway.signal(Signal::SIGHUP);
    gateway.wait_log("the endpoints have changed");
    assert_eq!(answer(address, &["get", "which"]).as_deref(), Some("which\nsecond\n"));

    // Without a signal it is found by itself.
    fs::write(&file, format!("{one}\n")).expect("written");
    let back = || answer(address, &["get", "which"]).filter(|said| said == "which\nfirst\n");
    assert!(wait_for(PATIENCE, back).is_some(), "{}", gateway.log());
}

fn cluster_put(cluster: &Cluster, value: &str) -> bool {
    cluster.ctl(0, &["put", "which", value]).is_ok()
}

#[test]
fn a_real_etcd_and_bytes_of_any_kind_pass() {
    let etcd = Daemon::start(&Program::etcd(), &[]);
    let (_gateway, address) = gateway(&[etcd.endpoint()], &[]);
    assert_eq!(answer(address, &["put", "k", "v"]).as_deref(), Some("OK\n"));
    let value = "x".repeat(1 << 20);
    let large = Command::new(Program::etcdctl().path)
        .args(["--endpoints", &address.to_string(), "put", "large"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            use std::io::Write as _;
            child.stdin.take().expect("piped").write_all(value.as_bytes())?;
            child.wait_with_output()
        });
    assert!(large.expect("etcdctl runs").status.success());
    let read = answer(address, &["get", "large", "--print-value-only"]).expect("a large answer");
    assert_eq!(read.trim_end().len(), value.len());
}

#[test]
fn what_makes_no_sense_is_refused_in_etcds_words() {
    let refusal = |program: &Path, words: &[&str]| {
        let output = Command::new(program).args(["gateway", "start"]).args(words).output().expect("it starts");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let cases: [(&[&str], &str); 4] = [
        (&["--endpoints=nonsense"], "error parsing endpoint \"nonsense\""),
        (&["--listen-addr=nonsense"], "failed to validate listen address: nonsense"),
        (
            &["--listen-addr=127.0.0.1:23790", "--endpoints=127.0.0.1:23790"],
            "SRV or endpoint (127.0.0.1:23790->127.0.0.1:23790) should not resolve to the gateway listen addr (127.0.0.1:23790)",
        ),
        (&["--endpoints=nobody.invalid:1"], "failed to resolve endpoint host: nobody.invalid"),
    ];
    for (words, text) in cases {
        let (own, theirs) = (refusal(&Program::subject().path, words), refusal(&Program::etcd().path, words));
        assert!(own.0 == Some(1) && own.1.contains(text), "{own:?}");
        // What Go prints with %d->%s:%d of an address list may name the port twice; the sentence is the same.
        assert!(theirs.0 == Some(1) && theirs.1.contains(text.split("->").next().unwrap_or(text)), "{theirs:?}");
    }
    let (code, text) = refusal(&Program::subject().path, &["--retry-delay=soon"]);
    assert!(code == Some(1) && text.contains("retry-delay"), "{text}");
    let [taken] = free_ports();
    let _held = std::net::TcpListener::bind(taken).expect("it was free");
    let (code, text) = refusal(&Program::subject().path, &[&format!("--listen-addr={taken}")]);
    assert!(code == Some(1) && text.contains("bind: address already in use"), "{text}");
}

#[test]
fn it_ends_by_the_signal_and_tells_systemd() {
    let [nobody] = free_ports();
    let (mut gateway, _) = gateway(&[nobody.to_string()], &[]);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_end().signal(), Some(Signal::SIGTERM as i32));

    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).expect("bound");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let [listen] = free_ports();
    let words =
        ["gateway", "start", &format!("--listen-addr={listen}"), &format!("--endpoints={nobody}")].map(str::to_owned);
    let script = format!("NOTIFY_SOCKET={} exec \"$0\" \"$@\"", socket.display());
    let program = Program::subject().path.to_string_lossy().into_owned();
    let mut all = vec!["-c", &script, &program];
    all.extend(words.iter().map(String::as_str));
    let mut gateway = StandIn::start(Path::new("/bin/sh"), &all, READY);
    let heard = || {
        let mut bytes = [0; 1024];
        let count = manager.recv(&mut bytes).expect("systemd hears of it");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let ready = heard();
    assert!(ready.contains("READY=1") && ready.contains("STATUS=1 of 1 endpoints active"), "{ready}");
    gateway.signal(Signal::SIGHUP);
    let reloading = heard();
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(heard().contains("READY=1"));
    gateway.signal(Signal::SIGTERM);
    assert!(heard().contains("STOPPING=1"));
    gateway.wait_end();
}
