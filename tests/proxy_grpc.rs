//! `quorate grpc-proxy start` before real clusters, of our members and of etcd's: the real etcdctl through it, watches that
//! cost the cluster few, members that die, a cluster that is away, namespaces, registrations, clients that do not read.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use nix::sys::signal::Signal;
use quorate::pb::{
    etcdserverpb::{
        CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, RangeRequest, RequestOp,
        TxnRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
        request_op, watch_request::RequestUnion,
    },
    mvccpb::Event,
};
use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};
use support::{
    cluster::{Cluster, PATIENCE},
    daemon::{Daemon, free_ports},
    grpc::{Client, get, put},
    http,
    mask::Mask,
    now,
    program::Program,
    standin::StandIn,
    wait_for,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

const READY: &str = "started gRPC proxy";
/// Long enough for a response that must not come to have come.
const SILENCE: Duration = Duration::from_millis(300);

/// A proxy before `endpoints`, and where it listens.
fn proxy(endpoints: &str, more: &[&str]) -> (StandIn, SocketAddr) {
    let [address] = free_ports();
    let (listen, endpoints) = (format!("--listen-addr={address}"), format!("--endpoints={endpoints}"));
    let advertised = format!("--advertise-client-url={address}");
    let words = [&["grpc-proxy", "start", &listen, &endpoints, &advertised], more].concat();
    (StandIn::start(&Program::subject().path, &words, READY), address)
}

fn endpoints(cluster: &Cluster) -> String {
    cluster.members.iter().map(|member| member.client.to_string()).collect::<Vec<_>>().join(",")
}

async fn dial(address: SocketAddr) -> Client {
    Client::connect(&format!("http://{address}")).await.unwrap()
}

/// One stream of watchers.
struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Watch {
    /// Opens a stream with its first watcher, and returns what the proxy said to that.
    async fn open(client: &mut Client, first: WatchCreateRequest) -> (Self, WatchResponse) {
        Self::open_with(client, first, None).await
    }

    /// As [`open`](Self::open), on a stream that may ask for a leader.
    async fn open_with(
        client: &mut Client,
        first: WatchCreateRequest,
        has_leader: Option<&'static str>,
    ) -> (Self, WatchResponse) {
        let (requests, receiver) = mpsc::channel(64);
        requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(first)) }).await.unwrap();
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        if let Some(has_leader) = has_leader {
            request.metadata_mut().insert("hasleader", has_leader.parse().unwrap());
        }
        let responses = timeout(PATIENCE, client.watch.watch(request)).await;
        let mut watch = Self { requests, responses: responses.expect("a stream in time").unwrap().into_inner() };
        let created = watch.next().await;
        (watch, created)
    }

    async fn ask(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn next(&mut self) -> WatchResponse {
        timeout(PATIENCE, self.responses.message()).await.expect("a response in time").unwrap().expect("a response")
    }

    async fn expect_silence(&mut self) {
        if let Ok(response) = timeout(SILENCE, self.responses.message()).await {
            panic!("unexpected {response:?}");
        }
    }

    /// Waits for the end that the proxy makes when another cluster is behind it.
    async fn expect_other_cluster(&mut self) {
        let ended = timeout(PATIENCE, self.responses.message()).await.expect("it ends in time").unwrap_err();
        assert_eq!(ended.code(), Code::Unavailable, "{ended}");
        assert!(ended.message().contains("founded or restored anew"), "{ended}");
    }

    /// The next `count` events, whatever responses they come in.
    async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.append(&mut self.next().await.events);
        }
        assert_eq!(events.len(), count);
        events
    }
}

fn watch(key: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: key.to_owned().into(), ..WatchCreateRequest::default() }
}

fn keys(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| String::from_utf8_lossy(&event.kv.as_ref().unwrap().key).into_owned()).collect()
}

fn revisions(events: &[Event]) -> Vec<i64> {
    events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect()
}

/// A metric without labels.
fn metric(address: SocketAddr, path: &str, name: &str) -> Option<u64> {
    let page = http::get(address, path).ok()?.body;
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Watches that a member serves.
fn watches_at(member: &Daemon) -> u64 {
    metric(member.client, "/metrics", "etcd_debugging_mvcc_watcher_total").expect("a member counts its watchers")
}

/// What the real etcdctl prints, standard error without log lines, and its exit code.
fn etcdctl(address: SocketAddr, line: &str, input: &str) -> String {
    let mut command = Command::new("timeout");
    command.arg("30").arg(&Program::etcdctl().path).arg(format!("--endpoints={address}")).args(line.split(' '));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("timeout runs: apt-get install coreutils brings it");
    // A command that does not read its input may be over already.
    drop(child.stdin.take().expect("piped").write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let complaints: String = said.lines().filter(|line| !line.starts_with('{')).flat_map(|line| [line, "\n"]).collect();
    let code = output.status.code().unwrap_or(-1);
    format!("{}{complaints}[exit {code}]", String::from_utf8_lossy(&output.stdout))
}

/// Every command of etcdctl that a member answers, with its standard input. LEASE stands for the lease granted last.
const COMMANDS: &[(&str, &str)] = &[
    ("put greeting hello", ""),
    ("put --prev-kv greeting again", ""),
    ("put piped", "from standard input"),
    ("get greeting", ""),
    ("get greeting -w json", ""),
    ("get greeting --rev=2 -w simple", ""),
    ("get greeting --consistency=s", ""),
    ("get greeting --consistency=s -w json", ""),
    ("put list/a 3", ""),
    ("put list/b 2", ""),
    ("put list/c 1", ""),
    ("get --prefix list/", ""),
    ("get --prefix list/ --consistency=s", ""),
    ("get --prefix list/ --limit=2 -w json", ""),
    ("get --prefix list/ --sort-by=VALUE --order=ASCEND", ""),
    ("get --prefix list/ --count-only -w fields", ""),
    ("get --from-key list/b", ""),
    ("del list/a", ""),
    ("get --prefix list/ --consistency=s", ""),
    ("del --prev-kv --prefix list/ -w json", ""),
    ("get --prefix list/ --consistency=s", ""),
    ("del nothing", ""),
    ("txn", "value(\"greeting\") = \"again\"\n\nput txn yes\nget greeting\n\nput txn no\n\n"),
    ("txn -w json", "version(\"greeting\") > \"5\"\n\nput txn yes\n\ndel txn\nget greeting\n\n"),
    ("get txn --consistency=s", ""),
    ("lease grant 600", ""),
    ("put leased value --lease=LEASE", ""),
    ("lease timetolive LEASE --keys", ""),
    ("lease list", ""),
    ("lease keep-alive --once LEASE", ""),
    ("lease revoke LEASE", ""),
    ("lease timetolive LEASE", ""),
    ("lease revoke 4242", ""),
    ("get leased --consistency=s", ""),
    ("put a b --lease=4242", ""),
    ("compaction 4 --physical", ""),
    ("compaction 4", ""),
    ("compaction 4000", ""),
    ("get greeting --rev=2", ""),
    ("get greeting --rev=2 --consistency=s", ""),
    ("get greeting --rev=4000", ""),
    ("get greeting --consistency=s", ""),
    ("put --ignore-value greeting", ""),
    ("put --ignore-lease nothing value", ""),
    ("endpoint health", ""),
    ("endpoint hashkv", ""),
    ("member list", ""),
    ("member add broken --peer-urls=not-a-url", ""),
    ("member update MEMBER --peer-urls=http://localhost:12345", ""),
    ("member remove 4242", ""),
    ("member promote MEMBER", ""),
    ("alarm list", ""),
    ("alarm disarm", ""),
    ("move-leader 4242", ""),
    ("defrag", ""),
    ("auth status", ""),
    ("role get nobody", ""),
    ("user list", ""),
];

/// These have no meaning for members of this version yet.
const FOR_ETCD: &[(&str, &str)] = &[
    ("lock mutex echo held", ""),
    ("elect -l one", ""),
    ("role add reader", ""),
    ("role grant-permission reader read --prefix list/", ""),
    ("user add root:secret", ""),
    ("user add guest:secret", ""),
    ("user grant-role root root", ""),
    ("user grant-role guest reader", ""),
    ("user get guest --detail", ""),
    ("auth enable", ""),
    ("get greeting", ""),
    ("get greeting --user=guest:secret", ""),
    ("get greeting --user=root:secret --consistency=s", ""),
    ("get greeting --user=guest:secret --consistency=s", ""),
    ("get --prefix list/ --user=guest:secret", ""),
    ("put greeting stolen --user=guest:secret", ""),
    ("get greeting --user=guest:wrong", ""),
    ("watch greeting --user=guest:secret", ""),
    ("auth disable --user=root:secret", ""),
    ("get greeting", ""),
];

/// One side of a comparison: etcdctl at a member, or at a proxy before another.
struct Side<'a> {
    member: &'a Daemon,
    address: SocketAddr,
    mask: Mask,
    id: String,
    lease: String,
}

impl<'a> Side<'a> {
    fn new(member: &'a Daemon, address: SocketAddr) -> Self {
        let mask = Mask::of(member);
        let id = mask.member().to_owned();
        Self { member, address, mask, id, lease: String::new() }
    }

    fn say(&mut self, line: &str, input: &str) -> String {
        let line = line.replace("LEASE", &self.lease).replace("MEMBER", &self.id);
        let said = etcdctl(self.address, &line, input);
        if let Some((id, _)) = said.strip_prefix("lease ").and_then(|rest| rest.split_once(" granted")) {
            id.clone_into(&mut self.lease);
            self.mask.add_lease(i64::from_str_radix(id, 16).unwrap());
        }
        let said = said.replace(&self.address.to_string(), &self.member.client.to_string());
        // Of a refused watch a proxy tells the reason alone, as etcd's does; so its clients know it again.
        let said =
            said.replace("watch was canceled (rpc error: code = PermissionDenied desc = ", "watch was canceled (");
        let said = self.mask.apply(&said);
        // What takes its time, what is counted down or drawn, and hashes of what was drawn.
        let said = said.replace("  ", " ");
        [
            ("CLIENT, ", ","),
            ("took = ", "\n"),
            ("took ", " "),
            ("remaining(", ")"),
            ("mutex/", "\n"),
            ("one/", "\n"),
            ("hash\":", ","),
        ]
        .iter()
        .fold(said, |said, (mark, end)| without(&said, mark, end))
    }
}

/// Takes out what stands between every `mark` and the `end` behind it.
fn without(text: &str, mark: &str, end: &str) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(mark);
        out.push_str(part.find(end).and_then(|at| part.get(at..)).unwrap_or_default());
    }
    out
}

fn compare(program: &Program, commands: &[&[(&str, &str)]]) {
    let (direct, behind) = (Daemon::start(program, &[]), Daemon::start(program, &[]));
    // Without an address of its own a proxy shows the members.
    let (_proxy, address) = proxy(&behind.client.to_string(), &["--advertise-client-url="]);
    let mut sides = [Side::new(&direct, direct.client), Side::new(&behind, address)];
    let mut differences = Vec::new();
    for (line, input) in commands.iter().copied().flatten() {
        let [expected, got] = sides.each_mut().map(|side| side.say(line, input));
        if got != expected {
            differences.push(format!("$ {line}\nthrough the proxy:\n{got}\nat a member:\n{expected}\n"));
        }
    }
    assert!(differences.is_empty(), "{} commands differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn etcdctl_says_the_same_before_our_member() {
    compare(&Program::subject(), &[COMMANDS]);
}

#[test]
fn etcdctl_says_the_same_before_etcd() {
    compare(&Program::etcd(), &[COMMANDS, FOR_ETCD]);
}

/// Before both kinds of member: as many watches as keys, and every client gets every event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_client_watches_on_ten_keys_cost_ten() {
    for program in [Program::subject(), Program::etcd()] {
        let member = Daemon::start(&program, &[]);
        let (proxy, address) = proxy(&member.client.to_string(), &[]);
        let mut watches = Vec::new();
        for _ in 0..20 {
            let mut client = dial(address).await;
            for number in 0..50 {
                let (watch, created) = Watch::open(&mut client, watch(&format!("key{}", number % 10))).await;
                assert!(created.created && !created.canceled, "{created:?}");
                watches.push((watch, number % 10));
            }
        }
        assert_eq!(watches_at(&member), 10, "{}", program.name);
        let mut writer = dial(address).await;
        for number in 0..10 {
            for value in ["one", "two", "three"] {
                writer.kv.put(put(format!("key{number}"), value)).await.unwrap();
            }
        }
        for (watch, number) in &mut watches {
            let events = watch.events(3).await;
            assert!(keys(&events).iter().all(|key| *key == format!("key{number}")));
            assert!(events.iter().all(|event| event.prev_kv.is_none()));
        }
        assert_eq!(watches_at(&member), 10, "{}", program.name);
        let coalesced = metric(address, "/proxy/metrics", "etcd_grpc_proxy_watchers_coalescing_total");
        assert_eq!(coalesced, Some(990), "{}", proxy.log());
        assert!(metric(address, "/proxy/metrics", "etcd_grpc_proxy_events_coalescing_total").unwrap() >= 2_970);
        drop(watches);
        assert!(wait_for(PATIENCE, || (watches_at(&member) == 0).then_some(())).is_some());
    }
}

#[tokio::test]
async fn watchers_get_what_they_asked_for() {
    let member = Daemon::start(&Program::subject(), &[]);
    let (_proxy, address) = proxy(&member.client.to_string(), &[]);
    let mut client = dial(address).await;
    for value in ["a", "b", "c"] {
        client.kv.put(put("k", value)).await.unwrap();
    }
    // The past, the present and the future of one key.
    let (mut past, created) = Watch::open(&mut client, WatchCreateRequest { start_revision: 3, ..watch("k") }).await;
    assert_eq!(created.header.unwrap().revision, 4);
    assert_eq!(revisions(&past.events(2).await), [3, 4]);
    let (mut now, created) =
        Watch::open(&mut client, WatchCreateRequest { watch_id: 7, prev_kv: true, ..watch("k") }).await;
    assert_eq!((created.watch_id, created.header.unwrap().revision), (7, 4));
    let (mut later, _) = Watch::open(&mut client, WatchCreateRequest { start_revision: 6, ..watch("k") }).await;
    client.kv.put(put("k", "d")).await.unwrap();
    client.kv.put(put("k", "e")).await.unwrap();
    assert_eq!(revisions(&past.events(2).await), [5, 6]);
    let events = now.events(2).await;
    assert_eq!(events[1].prev_kv.as_ref().unwrap().value, "d");
    assert_eq!(revisions(&later.events(1).await), [6]);
    // How far it is, and the end.
    now.ask(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    let progress = now.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision, progress.events.len()), (-1, 6, 0));
    now.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 7 })).await;
    let canceled = now.next().await;
    assert!(canceled.canceled && canceled.watch_id == 7, "{canceled:?}");
    client.kv.put(put("k", "f")).await.unwrap();
    now.expect_silence().await;
}

#[tokio::test]
async fn a_compacted_past_is_told_and_the_present_goes_on() {
    for program in [Program::subject(), Program::etcd()] {
        let member = Daemon::start(&program, &[]);
        let (_proxy, address) = proxy(&member.client.to_string(), &[]);
        let mut client = dial(address).await;
        for value in ["a", "b", "c", "d"] {
            client.kv.put(put("k", value)).await.unwrap();
        }
        let (mut present, _) = Watch::open(&mut client, watch("k")).await;
        client.kv.compact(CompactionRequest { revision: 4, physical: true }).await.unwrap();
        let (mut past, created) =
            Watch::open(&mut client, WatchCreateRequest { start_revision: 2, ..watch("k") }).await;
        assert!(created.created && !created.canceled);
        let ended = past.next().await;
        assert!(ended.canceled && ended.compact_revision == 4, "{ended:?}");
        client.kv.put(put("k", "e")).await.unwrap();
        assert_eq!(present.events(1).await.len(), 1);
        let stale = RangeRequest { revision: 2, serializable: true, ..get("k") };
        assert_eq!(client.kv.range(stale).await.unwrap_err().code(), Code::OutOfRange);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_and_loses_nothing() {
    const EVENTS: usize = 400;
    let member = Daemon::start(&Program::subject(), &[]);
    let (proxy, address) = proxy(&member.client.to_string(), &[]);
    let (mut slow_client, mut quick_client) = (dial(address).await, dial(address).await);
    let (mut slow, _) = Watch::open(&mut slow_client, watch("k")).await;
    let (mut quick, _) = Watch::open(&mut quick_client, watch("k")).await;
    let before = resident_bytes(&proxy);
    let value = "v".repeat(256 * 1024);
    for _ in 0..EVENTS {
        quick_client.kv.put(put("k", value.clone())).await.unwrap();
        quick.events(1).await;
    }
    // A hundred megabytes went by.
    let grown = resident_bytes(&proxy).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes for a client that does not read");
    assert_eq!(watches_at(&member), 1, "it costs no watch while it does not read");
    let events = slow.events(EVENTS).await;
    let expected: Vec<i64> = (2..).take(EVENTS).collect();
    assert_eq!(revisions(&events), expected);
    quick_client.kv.put(put("k", "last")).await.unwrap();
    assert_eq!((slow.events(1).await.len(), quick.events(1).await.len()), (1, 1));
    assert!(wait_for(PATIENCE, || (watches_at(&member) == 1).then_some(())).is_some(), "they have met again");
}

fn resident_bytes(proxy: &StandIn) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1_024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_die_and_nobody_misses_an_event() {
    let mut cluster = Cluster::start(3, &[]);
    let (proxy, address) = proxy(&endpoints(&cluster), &[]);
    let mut client = dial(address).await;
    let (mut watched, _) = Watch::open(&mut client, watch("k")).await;
    let mut written = Vec::new();
    for round in 0..3 {
        for value in 0..20 {
            let answer = write(&mut client, &format!("{round}.{value}"), &proxy).await;
            written.push(answer);
        }
        cluster.members[round].kill();
        for value in 20..40 {
            written.push(write(&mut client, &format!("{round}.{value}"), &proxy).await);
        }
        cluster.members[round].restart();
    }
    let mut seen = Vec::new();
    while seen.last() < written.last() {
        seen.extend(revisions(&watched.next().await.events));
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "in order, and each once: {seen:?}");
    assert!(written.iter().all(|revision| seen.contains(revision)), "what was written was seen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_streams_that_asked_for_a_leader_end_without_one() {
    let mut cluster = Cluster::start(3, &[]);
    let (proxy, address) = proxy(&endpoints(&cluster), &[]);
    let mut client = dial(address).await;
    let (mut asks, _) = Watch::open_with(&mut client, watch("k"), Some("true")).await;
    let (mut waits, _) = Watch::open(&mut client, watch("k")).await;
    for member in [0, 1] {
        cluster.members[member].kill();
    }
    let ended = timeout(PATIENCE, asks.responses.message()).await.expect("it ends in time").unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: no leader"));
    waits.expect_silence().await;
    for member in [0, 1] {
        cluster.members[member].restart();
    }
    write(&mut client, "after", &proxy).await;
    assert_eq!(waits.events(1).await[0].kv.as_ref().unwrap().value, "after");
}

/// A write that is sent until somebody takes it: whether a write of a dying member counts, nobody knows.
async fn write(client: &mut Client, value: &str, proxy: &StandIn) -> i64 {
    let deadline = now() + PATIENCE;
    loop {
        match client.kv.put(put("k", value.to_owned())).await {
            Ok(answer) => return answer.into_inner().header.unwrap().revision,
            Err(status) => {
                assert!(matches!(status.code(), Code::Unavailable | Code::Unknown), "{status}");
                assert!(now() < deadline, "{status}: {}", proxy.log());
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_cluster_may_go_and_come_back() {
    let mut cluster = Cluster::start(1, &[]);
    let (_proxy, address) = proxy(&endpoints(&cluster), &[]);
    let mut client = dial(address).await;
    let lease = client.lease.lease_grant(LeaseGrantRequest { ttl: 600, id: 0 }).await.unwrap().into_inner().id;
    let (mut watched, _) = Watch::open(&mut client, watch("k")).await;
    client.kv.put(put("k", "before")).await.unwrap();
    watched.events(1).await;
    assert_eq!(http::get(address, "/health").unwrap().status, 200);
    cluster.members[0].kill();
    let asked = now();
    let refused = client.kv.range(get("k")).await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(20), "an answer comes in time");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let mut short = tonic::Request::new(get("k"));
    short.set_timeout(Duration::from_millis(300));
    assert!(matches!(client.kv.range(short).await.unwrap_err().code(), Code::DeadlineExceeded | Code::Cancelled));
    assert_eq!(http::get(address, "/health").unwrap().status, 503);
    watched.expect_silence().await;
    cluster.members[0].restart();
    write_again(&mut client).await;
    let events = watched.events(1).await;
    assert_eq!(events[0].kv.as_ref().unwrap().value, "after");
    let renewal = tokio_stream::once(LeaseKeepAliveRequest { id: lease });
    let mut renewed = client.lease.lease_keep_alive(renewal).await.unwrap().into_inner();
    assert_eq!(renewed.message().await.unwrap().unwrap().ttl, 600);
    assert_eq!(http::get(address, "/health").unwrap().status, 200);
}

/// A cluster that starts from nothing behind a running proxy: under another number, or at lower revisions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_may_take_the_place_of_the_first() {
    for (program, is_renamed) in
        [(Program::subject(), true), (Program::subject(), false), (Program::etcd(), true), (Program::etcd(), false)]
    {
        let mut member = Daemon::start(&program, &[]);
        let (proxy, address) = proxy(&member.client.to_string(), &[]);
        let mut client = dial(address).await;
        let stale = || RangeRequest { serializable: true, ..get("k") };
        for value in 0..20 {
            client.kv.put(put("k", value.to_string())).await.unwrap();
        }
        assert_eq!(client.kv.range(stale()).await.unwrap().into_inner().kvs[0].value, "19");
        let (mut watched, created) = Watch::open(&mut client, watch("k")).await;
        assert_eq!(created.header.unwrap().revision, 21);
        member.kill();
        fs::remove_dir_all(member.data_dir()).unwrap();
        if is_renamed {
            member.add_argument("--initial-cluster-token=another".to_owned());
        }
        member.restart();
        let mut direct = dial(member.client).await;
        direct.kv.put(put("k", "new")).await.unwrap();
        watched.expect_other_cluster().await;
        let read = client.kv.range(stale()).await.unwrap().into_inner();
        assert_eq!(read.kvs[0].value, "new", "{}: nothing of the old one is told", proxy.log());
        let (mut watched, created) = Watch::open(&mut client, watch("k")).await;
        assert_eq!(created.header.unwrap().revision, 2);
        direct.kv.put(put("k", "newer")).await.unwrap();
        assert_eq!(revisions(&watched.events(1).await), [3], "{}", program.name);
        // What is read is kept again.
        let hits = || metric(address, "/proxy/metrics", "etcd_grpc_proxy_cache_hits_total").unwrap();
        let before = hits();
        for _ in 0..2 {
            assert_eq!(client.kv.range(stale()).await.unwrap().into_inner().kvs[0].value, "newer");
        }
        assert!(hits() > before, "{}", program.name);
    }
}

/// A member whose process stands still takes whatever it is sent, and answers nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_leave_a_member_that_falls_silent() {
    let cluster = Cluster::start(3, &[]);
    let (proxy, address) = proxy(&endpoints(&cluster), &[]);
    let mut client = dial(address).await;
    let lease = client.lease.lease_grant(LeaseGrantRequest { ttl: 30, id: 0 }).await.unwrap().into_inner().id;
    let before = renew(&mut client, lease).await.unwrap();
    let member_id = before.header.unwrap().member_id;
    let silent = (0..3).find(|number| cluster.id(*number) == Some(member_id)).expect("one of the members");
    cluster.members[silent].signal("STOP");
    // An answer of a moment ago is an answer: a sixth of the TTL.
    sleep(Duration::from_secs(6)).await;
    let renewed = timeout(Duration::from_secs(20), async {
        loop {
            match renew(&mut client, lease).await {
                Ok(answer) => return answer,
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
            }
        }
    });
    let renewed = renewed.await.unwrap_or_else(|_| panic!("no renewal in time:\n{}", proxy.log()));
    assert_eq!(renewed.ttl, 30);
    assert_ne!(renewed.header.unwrap().member_id, member_id);
    cluster.members[silent].signal("CONT");
}

async fn renew(client: &mut Client, lease: i64) -> Result<LeaseKeepAliveResponse, tonic::Status> {
    let renewal = tokio_stream::once(LeaseKeepAliveRequest { id: lease });
    let mut answers = client.lease.lease_keep_alive(renewal).await?.into_inner();
    answers.message().await.map(|answer| answer.expect("an answer"))
}

/// Revisions too long for one message of a member arrive whole, and each with its own response.
#[tokio::test]
async fn long_revisions_arrive_whole() {
    for program in [Program::subject(), Program::etcd()] {
        let member = Daemon::start(&program, &[]);
        let (_proxy, address) = proxy(&member.client.to_string(), &[]);
        let mut client = dial(address).await;
        for round in 0..3 {
            let value = round.to_string().repeat(100 * 1024);
            let pair = |number: usize| RequestOp {
                request: Some(request_op::Request::RequestPut(put(format!("long/{number}"), value.clone()))),
            };
            let request = TxnRequest { success: (0..14).map(pair).collect(), ..TxnRequest::default() };
            client.kv.txn(request).await.unwrap();
        }
        // Pairs before included, a member needs several messages for what is watched here.
        let all = WatchCreateRequest { range_end: "long0".into(), start_revision: 2, ..watch("long/") };
        let (mut watched, _) = Watch::open(&mut client, all).await;
        let mut seen = Vec::new();
        while seen.len() < 3 * 14 {
            let events = watched.next().await.events;
            let last = revisions(&events).last().copied();
            assert_ne!(seen.last().copied(), revisions(&events).first().copied(), "a revision is not torn");
            seen.extend(revisions(&events));
            assert_eq!(seen.iter().filter(|revision| Some(**revision) == last).count(), 14);
        }
    }
}

/// A client that asks for much and reads nothing.
#[tokio::test]
async fn answers_over_http2_that_nobody_reads_are_bounded() {
    const ASKED: usize = 100;
    let member = Daemon::start(&Program::subject(), &[]);
    let (_proxy, address) = proxy(&member.client.to_string(), &[]);
    let io = tokio::net::TcpStream::connect(address).await.unwrap();
    let (requests, connection) =
        h2::client::Builder::new().initial_window_size(1).handshake::<_, bytes::Bytes>(io).await.unwrap();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(connection);
    let mut answers = Vec::new();
    let mut requests = requests;
    for _ in 0..ASKED {
        requests = requests.ready().await.unwrap();
        let request = ::http::Request::get(format!("http://{address}/proxy/metrics")).body(()).unwrap();
        answers.push(requests.send_request(request, true).unwrap().0);
    }
    let mut statuses = Vec::new();
    for answer in answers {
        let answer = timeout(PATIENCE, answer).await.expect("an answer in time").unwrap();
        statuses.push((answer.status().as_u16(), answer));
    }
    let served = statuses.iter().filter(|(status, _)| *status == 200).count();
    let refused = statuses.iter().filter(|(status, _)| *status == 503).count();
    assert_eq!((served, refused), (64, ASKED - 64));
    assert_eq!(dial(address).await.kv.range(get("k")).await.unwrap().into_inner().count, 0, "others are served");
}

async fn write_again(client: &mut Client) {
    let deadline = now() + PATIENCE;
    while client.kv.put(put("k", "after")).await.is_err() {
        assert!(now() < deadline, "the cluster is back");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn stale_answers_are_kept_until_somebody_who_passes_by_changes_them() {
    let member = Daemon::start(&Program::subject(), &[]);
    let (_proxy, address) = proxy(&member.client.to_string(), &[]);
    let (mut client, mut direct) = (dial(address).await, dial(member.client).await);
    let stale = || RangeRequest { serializable: true, ..get("k") };
    let hits = || metric(address, "/proxy/metrics", "etcd_grpc_proxy_cache_hits_total").unwrap();
    let value =
        |answer: tonic::Response<quorate::pb::etcdserverpb::RangeResponse>| answer.into_inner().kvs[0].value.clone();
    client.kv.put(put("k", "one")).await.unwrap();
    assert_eq!(value(client.kv.range(get("k")).await.unwrap()), "one");
    assert_eq!((value(client.kv.range(stale()).await.unwrap()), hits()), ("one".into(), 1));
    direct.kv.put(put("k", "two")).await.unwrap();
    assert_eq!((value(client.kv.range(stale()).await.unwrap()), hits()), ("one".into(), 2), "nobody passed by");
    assert_eq!(value(client.kv.range(get("k")).await.unwrap()), "two", "what may not be stale is not");
    client.kv.put(put("k", "three")).await.unwrap();
    assert_eq!((value(client.kv.range(stale()).await.unwrap()), hits()), ("three".into(), 2));
    // A change that a watch tells of counts as well.
    let (mut watched, _) = Watch::open(&mut client, watch("k")).await;
    direct.kv.put(put("k", "four")).await.unwrap();
    watched.events(1).await;
    assert_eq!(value(client.kv.range(stale()).await.unwrap()), "four");
    assert_eq!(metric(address, "/proxy/metrics", "etcd_grpc_proxy_cache_keys_total"), Some(1));
}

#[tokio::test]
async fn renewals_of_one_lease_are_shared() {
    let member = Daemon::start(&Program::subject(), &[]);
    let (_proxy, address) = proxy(&member.client.to_string(), &[]);
    let mut client = dial(address).await;
    let lease = client.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 0 }).await.unwrap().into_inner().id;
    for _ in 0..200 {
        let renewal = tokio_stream::once(LeaseKeepAliveRequest { id: lease });
        let mut renewed = client.lease.lease_keep_alive(renewal).await.unwrap().into_inner();
        let answer = renewed.message().await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl), (lease, 60));
    }
    let renewed = metric(member.client, "/metrics", "etcd_debugging_lease_renewed_total").unwrap();
    assert!(renewed < 5, "{renewed} renewals reached the member");
    client.lease.lease_revoke(quorate::pb::etcdserverpb::LeaseRevokeRequest { id: lease }).await.unwrap();
    let renewal = tokio_stream::once(LeaseKeepAliveRequest { id: lease });
    let mut renewed = client.lease.lease_keep_alive(renewal).await.unwrap().into_inner();
    assert_eq!(renewed.message().await.unwrap().unwrap().ttl, 0, "a lease that is gone is told");
}

#[tokio::test]
async fn a_namespace_is_all_that_its_clients_see() {
    let member = Daemon::start(&Program::subject(), &[]);
    let (_proxy, address) = proxy(&member.client.to_string(), &["--namespace=team/"]);
    let (mut client, mut direct) = (dial(address).await, dial(member.client).await);
    for key in ["before", "team0", "zz"] {
        direct.kv.put(put(key, "theirs")).await.unwrap();
    }
    let all = WatchCreateRequest { range_end: "\0".into(), ..watch("\0") };
    let (mut watched, _) = Watch::open(&mut client, all).await;
    for (line, expected) in [
        ("put k v", "OK\n[exit 0]"),
        ("get k", "k\nv\n[exit 0]"),
        ("get --from-key k", "k\nv\n[exit 0]"),
        ("get --prefix --keys-only ", "k\n\n[exit 0]"),
        ("del k --prev-kv", "1\nk\nv\n[exit 0]"),
    ] {
        assert_eq!(etcdctl(address, line, ""), expected, "{line}");
    }
    let said = etcdctl(address, "txn", "version(\"k\") = \"0\"\n\nput k again\nget k\n\n\n");
    assert_eq!(said, "SUCCESS\n\nOK\n\nk\nagain\n[exit 0]");
    direct.kv.put(put("team/direct", "v")).await.unwrap();
    assert_eq!(keys(&watched.events(4).await), ["k", "k", "k", "direct"]);
    assert_eq!(direct.kv.range(get("team/k")).await.unwrap().into_inner().kvs[0].value, "again");
    let refused = client.kv.put(put("", "v")).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: key is not provided");
}

#[test]
fn a_proxy_registers_itself_and_is_the_member_that_clients_see() {
    let member = Daemon::start(&Program::subject(), &[]);
    let endpoint = member.client.to_string();
    let registered = ["--resolver-prefix=proxies", "--resolver-ttl=5"];
    let (mut first, one) = proxy(&endpoint, &registered);
    let (_second, two) = proxy(&endpoint, &registered);
    let count = |count| {
        wait_for(PATIENCE, || {
            let said = etcdctl(member.client, "get --prefix proxies/ --keys-only", "");
            (said.matches("proxies/").count() == count).then_some(said)
        })
    };
    let said = count(2).expect("both register");
    assert!(said.contains(&format!("proxies/{one}")) && said.contains(&format!("proxies/{two}")), "{said}");
    let value = etcdctl(member.client, &format!("get proxies/{one} --print-value-only"), "");
    assert!(value.starts_with(&format!(r#"{{"Op":0,"Addr":"{one}","Metadata":"{{\"name\":\""#)), "{value}");
    let list = etcdctl(one, "member list", "");
    assert!(list.contains(&one.to_string()) && list.contains(&two.to_string()), "{list}");
    assert_eq!(list.lines().filter(|line| line.starts_with("0, started, ")).count(), 2, "{list}");
    // Who stops takes its registration back at once.
    first.signal(Signal::SIGTERM);
    first.wait_end();
    count(1).expect("one is left");
    // Without a prefix a proxy shows itself alone.
    let (_alone, three) = proxy(&endpoint, &[]);
    let list = etcdctl(three, "member list", "");
    assert!(list.contains(&three.to_string()) && !list.contains(&one.to_string()), "{list}");
}

#[tokio::test]
async fn the_list_of_members_changes_while_it_runs() {
    let (first, second) = (Daemon::start(&Program::subject(), &[]), Daemon::start(&Program::subject(), &[]));
    for (member, name) in [(&first, "first"), (&second, "second")] {
        dial(member.client).await.kv.put(put("which", name)).await.unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("members");
    fs::write(&file, format!("{}\n", first.client)).unwrap();
    let (proxy, address) = proxy("127.0.0.1:1", &[&format!("--endpoints-file={}", file.display())]);
    let mut client = dial(address).await;
    let (mut watched, _) = Watch::open(&mut client, watch("which")).await;
    assert_eq!(client.kv.range(get("which")).await.unwrap().into_inner().kvs[0].value, "first");
    fs::write(&file, format!("{}\n", second.client)).unwrap();
    proxy.signal(Signal::SIGHUP);
    proxy.wait_log("the endpoints have changed");
    assert_eq!(client.kv.range(get("which")).await.unwrap().into_inner().kvs[0].value, "second");
    // It is another cluster: revisions of the one before mean nothing there.
    watched.expect_other_cluster().await;
    drop(first);
    let (mut watched, _) = Watch::open(&mut client, watch("which")).await;
    client.kv.put(put("which", "last")).await.unwrap();
    assert_eq!(watched.events(1).await[0].kv.as_ref().unwrap().value, "last");
}

#[test]
fn health_and_metrics_are_the_clusters_and_its_own() {
    let member = Daemon::start(&Program::subject(), &[]);
    let [metrics] = free_ports();
    let (mut proxy, address) = proxy(&member.client.to_string(), &[&format!("--metrics-addr=http://{metrics}")]);
    for address in [address, metrics] {
        let health = http::get(address, "/health").unwrap();
        assert_eq!((health.status, health.body.as_str()), (200, r#"{"health":"true","reason":""}"#));
        let health = http::get(address, "/proxy/health").unwrap();
        assert_eq!((health.status, health.body.as_str()), (200, r#"{"health":"true","reason":""}"#));
        assert!(http::get(address, "/metrics").unwrap().body.contains("etcd_server_has_leader 1"), "the member's");
        let own = http::get(address, "/proxy/metrics").unwrap().body;
        assert!(own.contains("etcd_grpc_proxy_cache_keys_total ") && !own.contains("etcd_server_has_leader"), "{own}");
        assert_eq!(http::get(address, "/version").unwrap().status, 404);
    }
    proxy.signal(Signal::SIGTERM);
    assert!(support::daemon::ended_by(proxy.wait_end(), 15));
}

/// One proxy that clients and another proxy reach by TLS alone.
#[test]
fn connections_to_it_and_from_it_are_encrypted() {
    let member = Daemon::start(&Program::subject(), &[]);
    let dir = tempfile::tempdir().unwrap();
    let data_dir = format!("--data-dir={}", dir.path().display());
    let (_inner, inner) = proxy(&member.client.to_string(), &["--auto-tls", &data_dir]);
    let ca = format!("--cacert={}", dir.path().join("fixtures/proxy/cert.pem").display());
    let said = etcdctl(inner, &format!("{ca} --endpoints=https://{inner} put k v"), "");
    assert_eq!(said, "OK\n[exit 0]");
    assert!(etcdctl(inner, "--command-timeout=1s get k", "").ends_with("[exit 1]"), "plain text is not served");
    let (_outer, outer) = proxy(&format!("https://{inner}"), &[&ca]);
    assert_eq!(etcdctl(outer, "get k", ""), "k\nv\n[exit 0]");
    assert_eq!(http::get(outer, "/health").unwrap().status, 200);
    let (_stranger, stranger) = proxy(&format!("https://{inner}"), &[]);
    assert_eq!(http::get(stranger, "/health").unwrap().status, 503, "a certificate that nobody knows is not trusted");
}
