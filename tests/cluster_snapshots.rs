//! Members that were away for longer than the log reaches back, and newcomers: they are brought up to date by a snapshot,
//! whoever is killed meanwhile.

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use prost::Message as _;
use quorate::pb::{
    etcdserverpb::{self as pb, watch_request::RequestUnion},
    raftpb::{Message, MessageType, Snapshot, SnapshotMetadata},
};
use support::{
    cluster::{Cluster, PATIENCE},
    daemon::Daemon,
    grpc::{self, Client},
    program::Program,
    random::Random,
    setting, wait_for,
};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::ReceiverStream;

/// The log is compacted often, and keeps next to nothing.
const FORGETFUL: [&str; 2] = ["--snapshot-count=100", "--snapshot-catchup-entries=10"];
/// Writers at a time.
const WRITERS: u64 = 8;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn member(cluster: &Cluster, number: usize) -> &Daemon {
    cluster.members.get(number).expect("a member of this number")
}

/// Writes `count` values of `bytes` bytes through member `number`.
fn load(runtime: &Runtime, cluster: &Cluster, number: usize, count: u64, bytes: usize) {
    let endpoint = member(cluster, number).endpoint();
    runtime.block_on(async {
        let client = Client::connect(&endpoint).await.expect("the member serves");
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let mut kv = client.kv.clone();
            tasks.spawn(async move {
                let mut random = Random::new(writer);
                for key in (0..count).filter(|key| key % WRITERS == writer) {
                    let value: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| random.bits().to_le_bytes()).collect();
                    kv.put(grpc::put(format!("key-{key:08}"), value)).await.expect("a put");
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("a writer");
        }
    });
}

async fn hash(endpoint: &str) -> Option<(i64, u32)> {
    let mut client = Client::connect(endpoint).await.ok()?;
    let answer = client.maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.ok()?.into_inner();
    Some((answer.hash_revision, answer.hash))
}

/// Waits until all members are at one revision with one hash.
fn agree(runtime: &Runtime, cluster: &Cluster) {
    let mut found = Vec::new();
    let agreed = wait_for(2 * PATIENCE, || {
        let endpoints = cluster.members.iter().map(Daemon::endpoint);
        found = endpoints.map(|endpoint| runtime.block_on(hash(&endpoint))).collect();
        found.iter().all(|hash| hash.is_some() && Some(hash) == found.first()).then_some(())
    });
    assert!(agreed.is_some(), "the members do not agree: {found:?}\n{}", logs(cluster));
}

fn logs(cluster: &Cluster) -> String {
    let end = |member: &Daemon| {
        let log = member.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    };
    cluster.members.iter().map(end).collect::<Vec<_>>().join("\n---\n")
}

fn wait_for_log(cluster: &Cluster, number: usize, text: &str) {
    let said = wait_for(2 * PATIENCE, || member(cluster, number).log().contains(text).then_some(()));
    assert!(said.is_some(), "member {number} does not say {text:?}\n{}", logs(cluster));
}

/// The generations of the state in a member's directory, and what is in its scratch directory.
fn leftovers(cluster: &Cluster, number: usize) -> (usize, usize) {
    let count = |path: &str, is: fn(&str) -> bool| {
        let entries = std::fs::read_dir(member(cluster, number).data_dir().join(path)).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_str().is_some_and(is)).count()
    };
    (count("member/state", |name| name.parse::<u64>().is_ok()), count("member/scratch", |_| true))
}

fn await_tidy(cluster: &Cluster, number: usize) {
    let mut found = (0, 0);
    let tidy = wait_for(PATIENCE, || {
        found = leftovers(cluster, number);
        (found == (1, 0)).then_some(())
    });
    assert!(tidy.is_some(), "{found:?} generations and scratch files are left");
}

/// A watch on every key from `start` on, and the revisions it has shown.
async fn watch(
    endpoint: &str,
    start: i64,
) -> (tokio::sync::mpsc::Sender<pb::WatchRequest>, tonic::Streaming<pb::WatchResponse>) {
    let mut client = Client::connect(endpoint).await.expect("the member serves");
    let (open, requests) = tokio::sync::mpsc::channel(1);
    let create =
        pb::WatchCreateRequest { key: "k".into(), range_end: "l".into(), start_revision: start, ..Default::default() };
    open.send(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })
        .await
        .expect("an open stream");
    let responses = client.watch.watch(ReceiverStream::new(requests)).await.expect("a watch").into_inner();
    (open, responses)
}

/// Reads events up to `last` and returns their revisions; the compact revision if the watch is cancelled for it.
async fn revisions_to(responses: &mut tonic::Streaming<pb::WatchResponse>, last: i64) -> Result<Vec<i64>, i64> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|seen| *seen < last) {
        let response = tokio::time::timeout(PATIENCE, responses.message()).await;
        let response = response.expect("an event in time").expect("an open watch").expect("more events");
        if response.canceled {
            return Err(response.compact_revision);
        }
        seen.extend(response.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision));
    }
    Ok(seen)
}

/// A follower sleeps while the log goes past it. It goes on from a snapshot without a restart: its watchers are shown every
/// event they missed, or told that it is compacted, its readers see the newest state, and it takes writes.
/// A thousand values of this size do not fit into the buffers of a connection, where a sleeper finds what was sent.
const FILLING_BYTES: usize = 20_000;
/// Until a leader has given up a stream that takes nothing, and what waited for it.
const STREAMS_GIVEN_UP: Duration = Duration::from_secs(7);

#[test]
fn follower_that_slept_goes_on_from_a_snapshot() {
    let (runtime, cluster) = (runtime(), Cluster::start(3, &FORGETFUL));
    let leader = cluster.leader();
    let sleeper = (leader + 1) % 3;
    load(&runtime, &cluster, leader, 50, 100);
    agree(&runtime, &cluster);
    let endpoint = cluster.members[sleeper].endpoint();
    let before = runtime.block_on(hash(&endpoint)).unwrap().0;
    let mut synced = runtime.block_on(watch(&endpoint, 0));
    let mut lagging = runtime.block_on(watch(&endpoint, 2));
    runtime.block_on(async {
        assert!(synced.1.message().await.unwrap().unwrap().created);
        assert_eq!(revisions_to(&mut lagging.1, before).await.unwrap(), (2..=before).collect::<Vec<_>>());
    });
    let lease = cluster.ctl(leader, &["lease", "grant", "600"]).unwrap();
    cluster.members[sleeper].signal("STOP");
    load(&runtime, &cluster, leader, 1_000, FILLING_BYTES);
    std::thread::sleep(STREAMS_GIVEN_UP);
    let later = cluster.ctl(leader, &["lease", "grant", "700"]).unwrap();
    cluster.members[sleeper].signal("CONT");
    wait_for_log(&cluster, sleeper, "the state is that of a received snapshot");
    agree(&runtime, &cluster);
    let after = runtime.block_on(hash(&endpoint)).unwrap().0;
    assert_eq!(after, before + 1_000);
    for watcher in [&mut synced, &mut lagging] {
        let seen = runtime.block_on(revisions_to(&mut watcher.1, after)).unwrap();
        assert_eq!(seen, (before + 1..=after).collect::<Vec<_>>(), "every event once and in order");
    }
    for lease in [lease, later] {
        let id = lease.split_whitespace().nth(1).unwrap();
        assert!(cluster.ctl(sleeper, &["lease", "list"]).unwrap().contains(id), "{lease}");
    }
    await_tidy(&cluster, sleeper);

    // Once more, and this time what a watcher stands at is compacted away meanwhile.
    cluster.members[sleeper].signal("STOP");
    load(&runtime, &cluster, leader, 1_000, 1_000);
    let compacted = (after + 900).to_string();
    cluster.ctl(leader, &["compact", &compacted, "--physical"]).unwrap();
    load(&runtime, &cluster, leader, 300, 1_000);
    cluster.members[sleeper].signal("CONT");
    let told = runtime.block_on(revisions_to(&mut synced.1, after + 1_300));
    assert!(told == Err(after + 900) || told == Ok((after + 1..=after + 1_300).collect()), "{told:?}");
    agree(&runtime, &cluster);
    cluster.ctl(sleeper, &["put", "k", "through the sleeper"]).unwrap();
    agree(&runtime, &cluster);
    await_tidy(&cluster, sleeper);
}

#[test]
fn restarted_member_and_newcomer_start_from_a_snapshot() {
    let (runtime, mut cluster) = (runtime(), Cluster::start(3, &FORGETFUL));
    let leader = cluster.leader();
    let away = (leader + 1) % 3;
    cluster.members[away].kill();
    load(&runtime, &cluster, leader, 1_000, 1_000);
    cluster.members[away].restart();
    wait_for_log(&cluster, away, "the state is that of a received snapshot");
    agree(&runtime, &cluster);
    await_tidy(&cluster, away);
    // What it has installed, it finds again.
    cluster.members[away].kill();
    load(&runtime, &cluster, leader, 20, 10);
    cluster.members[away].restart();
    agree(&runtime, &cluster);

    let new = cluster.prepare(&FORGETFUL);
    let urls = format!("--peer-urls=http://{}", cluster.members[new].peer);
    let added = cluster.ctl_until(leader, &["member", "add", "m4", &urls, "--learner"]);
    let id = added.split_whitespace().nth(1).unwrap().to_owned();
    cluster.join(new);
    wait_for_log(&cluster, new, "the state is that of a received snapshot");
    await_tidy(&cluster, new);
    // A learner answers no questions about its hash.
    cluster.ctl_until(leader, &["member", "promote", &id]);
    cluster.ctl(new, &["put", "k", "through the newcomer"]).unwrap();
    agree(&runtime, &cluster);
}

/// The log is kept for a while for those who were sent a snapshot. Only a restart makes a member forget them at once.
fn forget_receivers(cluster: &mut Cluster) {
    for member in &mut cluster.members {
        member.terminate();
        member.restart();
    }
}

/// `kill -9` of whoever receives and of whoever sends, at any moment of a transfer.
#[test]
fn broken_transfers_are_begun_anew() {
    let (runtime, mut cluster) = (runtime(), Cluster::start(3, &FORGETFUL));
    let mut random = Random::new(setting("SNAPSHOT_SEED", 1));
    load(&runtime, &cluster, cluster.leader(), 600, 100_000);
    for round in 0..setting("SNAPSHOT_ROUNDS", 4) {
        forget_receivers(&mut cluster);
        let leader = cluster.leader();
        let receiver = (leader + 1) % 3;
        cluster.members[receiver].kill();
        load(&runtime, &cluster, leader, 300, 1_000);
        cluster.members[receiver].spawn();
        let begun =
            wait_for(PATIENCE, || cluster.members[receiver].log().contains("receiving a snapshot").then_some(()));
        assert!(begun.is_some(), "no snapshot comes in round {round}\n{}", logs(&cluster));
        std::thread::sleep(Duration::from_millis(random.below(2_500)));
        let victim = if round % 2 == 0 { receiver } else { leader };
        cluster.members[victim].kill();
        cluster.members[victim].restart();
        assert!(cluster.members[receiver].wait_ready(2 * PATIENCE), "{}", logs(&cluster));
        agree(&runtime, &cluster);
        (0..3).for_each(|number| await_tidy(&cluster, number));
    }
}

/// Begins a snapshot and brings a byte of its body every second, until it is refused. True if it was.
fn drip(to: SocketAddr, request: &[u8], stop: &AtomicBool) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(request)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut answer = [0; 1_024];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(b"1\r\nx\r\n")?;
        match stream.read(&mut answer) {
            Ok(bytes) => return Ok(bytes > 0),
            Err(cause) if matches!(cause.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(false)
}

/// Four senders that speak as the leader bring a byte a second each. The one place for a snapshot was theirs for as long
/// as they liked, and a member that had been away never came back.
#[test]
fn snapshots_that_drip_do_not_keep_a_member_away() {
    let (runtime, mut cluster) = (runtime(), Cluster::start(3, &FORGETFUL));
    let leader = cluster.leader();
    let away = (leader + 1) % 3;
    let cluster_id = cluster.cluster_id(leader).expect("it runs");
    let metadata = Some(SnapshotMetadata { conf_state: None, index: 1 << 30, term: 2 });
    let message = Message {
        r#type: MessageType::MsgSnap.into(),
        from: cluster.id(leader).expect("it runs"),
        to: cluster.id(away).expect("it runs"),
        term: cluster.term(leader).expect("it runs"),
        snapshot: Some(Snapshot { data: bytes::Bytes::new(), metadata }),
        ..Default::default()
    };
    let message = message.encode_to_vec();
    let begin = [&(message.len() as u64).to_be_bytes()[..], &message, &[0xed; 200]].concat();
    let head = format!(
        "POST /raft/snapshot HTTP/1.1\r\nHost: x\r\nX-Server-Version: 3.7.1\r\nX-Min-Cluster-Version: 3.0.0\r\n\
         X-Etcd-Cluster-ID: {cluster_id:x}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        begin.len()
    );
    let request = [head.as_bytes(), &begin, b"\r\n"].concat();
    cluster.members[away].kill();
    load(&runtime, &cluster, leader, 350, 1_000);
    let (stop, refused, to) = (AtomicBool::new(false), AtomicUsize::new(0), cluster.members[away].peer);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    match drip(to, &request, &stop) {
                        Ok(true) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                        _ => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            });
        }
        cluster.members[away].spawn();
        let back = cluster.members[away].wait_ready(PATIENCE);
        let installed = cluster.members[away].log().contains("the state is that of a received snapshot");
        stop.store(true, Ordering::Relaxed);
        assert!(back && installed, "{}", logs(&cluster));
    });
    assert!(refused.load(Ordering::Relaxed) > 0, "nobody dripped");
    agree(&runtime, &cluster);
    await_tidy(&cluster, away);
}

/// As long as the log reaches back, it is read: thousands of entries, more than memory keeps.
#[test]
fn log_on_the_disk_brings_a_member_up_to_date() {
    let arguments = ["--snapshot-count=1000000", "--snapshot-catchup-entries=1000000"];
    let (runtime, mut cluster) = (runtime(), Cluster::start(3, &arguments));
    let leader = cluster.leader();
    let away = (leader + 1) % 3;
    cluster.members[away].kill();
    load(&runtime, &cluster, leader, 4_000, 10_000);
    cluster.members[away].restart();
    agree(&runtime, &cluster);
    assert!(!cluster.members[away].log().contains("receiving a snapshot"), "{}", logs(&cluster));
}

/// Between etcd and us a snapshot is etcd's database, whoever sends it.
#[test]
fn snapshots_cross_between_etcd_and_us() {
    for (old, new) in [(Program::subject(), Program::etcd()), (Program::etcd(), Program::subject())] {
        let (runtime, mut cluster) = (runtime(), Cluster::start_of(&old, 1, &FORGETFUL));
        load(&runtime, &cluster, 0, 1_000, 1_000);
        cluster.ctl(0, &["lease", "grant", "600"]).unwrap();
        cluster.ctl(0, &["compact", "500", "--physical"]).unwrap();
        let newcomer = cluster.prepare_of(&new, &FORGETFUL);
        let urls = format!("--peer-urls=http://{}", cluster.members[newcomer].peer);
        cluster.ctl_until(0, &["member", "add", "m2", &urls]);
        cluster.join(newcomer);
        agree(&runtime, &cluster);
        cluster.ctl_until(newcomer, &["put", "k", "through the newcomer"]);
        agree(&runtime, &cluster);
        assert_eq!(cluster.ctl(0, &["lease", "list"]), cluster.ctl(newcomer, &["lease", "list"]));
        let heard = cluster.members.iter().any(|member| member.log().contains("a snapshot"));
        assert!(heard, "no snapshot was sent\n{}", logs(&cluster));
    }
}

/// A disk of its own, in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, megabytes: u64) -> Self {
        std::fs::create_dir_all(&at).expect("a directory");
        let size = format!("size={megabytes}m,mode=700");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).status();
        assert!(status.is_ok_and(|status| status.success()), "cannot mount {}", at.display());
        Self(at)
    }

    fn free(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.0).expect("a mounted disk");
        stat.blocks_available() * stat.fragment_size()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// A leader wrote its state as a database for a member of etcd until its own disk was full, again and again, and died of it.
#[test]
fn leader_without_room_for_a_database_says_so_and_leaves_room_for_itself() {
    const LEFT_FREE: u64 = 128 << 20;
    let (runtime, mut cluster) = (runtime(), Cluster::found(std::iter::empty()));
    cluster.prepare(&FORGETFUL);
    let disk = SmallDisk::mount(cluster.members[0].data_dir().clone(), 1_500);
    let list = cluster.initial_cluster();
    cluster.members[0].add_argument(format!("--initial-cluster={list}"));
    cluster.members[0].restart();
    load(&runtime, &cluster, 0, 500, 100_000);
    let filler = disk.0.join("filler");
    let file = std::fs::File::create(&filler).expect("room for it");
    let rest = disk.free() - LEFT_FREE - (30 << 20);
    nix::fcntl::posix_fallocate(file, 0, rest.try_into().expect("a length")).expect("room for it");

    let newcomer = cluster.prepare_of(&Program::etcd(), &FORGETFUL);
    let urls = format!("--peer-urls=http://{}", cluster.members[newcomer].peer);
    cluster.ctl_until(0, &["member", "add", "m2", &urls, "--learner"]);
    cluster.begin(newcomer, "m2", &cluster.initial_cluster(), "existing");
    wait_for_log(&cluster, 0, "make room on the disk of");
    let begun = support::now();
    while begun.elapsed() < Duration::from_secs(6) {
        assert!(disk.free() > LEFT_FREE, "{} bytes are free\n{}", disk.free(), logs(&cluster));
        std::thread::sleep(Duration::from_millis(20));
    }
    let attempts = member(&cluster, 0).log().matches("make room on the disk of").count();
    assert!(attempts <= 6, "{attempts} attempts");
    cluster.ctl(0, &["put", "k", "it still leads"]).unwrap();

    std::fs::remove_file(filler).expect("it was there");
    wait_for_log(&cluster, 0, "sent a snapshot");
    await_tidy(&cluster, 0);
}
