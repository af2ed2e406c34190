//! Snapshot files: what any tool saves from any member, every tool reads alike, and a member restored from it tells the
//! same history.

#![allow(clippy::indexing_slicing, reason = "what is not there fails the test")]

#[path = "support/mod.rs"]
mod support;

use nix::sys::socket::{Backlog, listen};
use quorate::pb::etcdserverpb as pb;
use quorate::server::CLIENT_SNAPSHOTS_MAX;
use sha2::{Digest as _, Sha256};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::cluster::Cluster;
use support::daemon::Daemon;
use support::grpc::{self, Client};
use support::offline::{Ending, block_on, connect, run, story, succeed, text, write_history};
use support::program::Program;
use support::{http, wait_for};

/// The longest message with a piece of a snapshot, as in etcd.
const PIECE_BYTES: usize = 32 << 10;
const FORMS: [&str; 5] = ["simple", "table", "json", "fields", "protobuf"];
const PATIENCE: Duration = Duration::from_secs(30);

/// What the offline tools say of a file, in every form.
fn statuses(tool: &Program, file: &Path) -> Vec<Ending> {
    FORMS.iter().map(|form| run(tool, &["snapshot", "status", text(file), "-w", form])).collect()
}

fn revision_of(file: &Path) -> i64 {
    let status = succeed(&Program::quorateutl(), &["snapshot", "status", text(file), "-w", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    status["revision"].as_i64().expect("a revision")
}

/// Writes as fast as it can until it is told to stop.
async fn keep_writing(endpoint: &str, stop: &AtomicBool, written: &AtomicU64) {
    let mut client = Client::connect(endpoint).await.expect("the member answers");
    while !stop.load(Ordering::Relaxed) {
        let number = written.fetch_add(1, Ordering::Relaxed);
        client.kv.put(grpc::put(format!("busy/{}", number % 50), vec![1; 500])).await.expect("a put");
    }
}

/// Saves a snapshot of `daemon` with `tool` while clients write; how many writes there were meanwhile.
fn save_under_writes(tool: &Program, daemon: &Daemon, file: &Path) -> u64 {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| block_on(keep_writing(&daemon.endpoint(), &stop, &written)));
        wait_for(PATIENCE, || (written.load(Ordering::Relaxed) > 20).then_some(())).expect("writes");
        let before = written.load(Ordering::Relaxed);
        let said = succeed(tool, &["--endpoints", &daemon.endpoint(), "snapshot", "save", text(file)]);
        let meanwhile = written.load(Ordering::Relaxed) - before;
        stop.store(true, Ordering::Relaxed);
        assert!(said.starts_with(&format!("Snapshot saved at {}\n", text(file))), "{}: {said}", tool.name);
        meanwhile
    })
}

#[test]
fn our_snapshot_saved_under_writes_is_served_by_etcd() {
    for (minor, [etcd, etcdctl, etcdutl]) in Program::etcd_minors() {
        let daemon = Daemon::start(&Program::subject(), &[&format!("--compat-version={minor}")]);
        block_on(async { write_history(&mut connect(&daemon).await).await });
        for tool in [etcdctl, Program::quoratectl()] {
            let home = tempfile::tempdir().expect("a directory");
            let file = home.path().join("snapshot.db");
            let meanwhile = save_under_writes(&tool, &daemon, &file);
            println!("{} writes while {} saved", meanwhile, tool.name);
            assert_eq!(statuses(&Program::quorateutl(), &file), statuses(&Program::etcdutl(), &file));
            let restored = restore(&etcdutl, &etcd, &file);
            let revision = revision_of(&file);
            let [ours, theirs] = [&daemon, &restored]
                .map(|member| block_on(async { story(&mut connect(member).await, revision).await }));
            assert_eq!(ours, theirs, "{}", etcd.name);
            assert!(ours.1 == 150 && ours.2.iter().any(|(_, keys)| !keys.is_empty()), "too short a history: {ours:?}");
        }
    }
}

/// An etcd that serves the restored file.
fn restore(tool: &Program, etcd: &Program, file: &Path) -> Daemon {
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), etcd, &["--unsafe-no-fsync"]);
    let cluster = format!("m1=http://{}", daemon.peer);
    restore_into(tool, &daemon, file, "m1", &cluster, &[]);
    daemon.restart();
    daemon
}

#[test]
fn our_client_saves_from_etcd_and_refuses_in_the_same_words() {
    let etcd = Daemon::start(&Program::etcd(), &["--unsafe-no-fsync"]);
    block_on(async { write_history(&mut connect(&etcd).await).await });
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("snapshot.db");
    save_under_writes(&Program::quoratectl(), &etcd, &file);
    assert_eq!(std::fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
    assert!(!home.path().join("snapshot.db.part").exists(), "the part is left");
    assert_eq!(statuses(&Program::quorateutl(), &file), statuses(&Program::etcdutl(), &file));

    let absent = home.path().join("absent/snapshot.db");
    let endpoint = etcd.endpoint();
    let two = format!("{endpoint},{endpoint}");
    for words in [
        vec!["--endpoints", &endpoint, "snapshot", "save"],
        vec!["--endpoints", &endpoint, "snapshot", "save", "a", "b"],
        vec!["--endpoints", &two, "snapshot", "save", text(&file)],
    ] {
        let [ours, theirs] = [Program::quoratectl(), Program::etcdctl()].map(|tool| run(&tool, &words));
        assert!(ours == theirs && ours.code != Some(0), "{words:?}: {ours:?}, {theirs:?}");
    }
    let refused = run(&Program::quoratectl(), &["--endpoints", &endpoint, "snapshot", "save", text(&absent)]);
    assert!(refused.code == Some(5) && refused.errors[0].contains("absent/snapshot.db.part"), "{refused:?}");
}

/// etcd's client waits for ever, as ours did.
#[test]
fn our_client_gives_up_an_endpoint_that_is_not_there() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("snapshot.db");
    let closed =
        TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr()).expect("a free port").to_string();
    // The system drops what comes to a full queue, as a firewall does.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listen(&silent, Backlog::new(0).expect("a length")).expect("a shorter queue");
    let silent = (silent.local_addr().expect("an address").to_string(), silent);
    let _filling = TcpStream::connect(&silent.0).expect("a place in the queue");
    // The system takes the connection, and nobody ever answers.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mute = (mute.local_addr().expect("an address").to_string(), mute);
    for (endpoint, what, why) in [
        (&closed, "connection to", "connect: connection refused"),
        (&silent.0, "connection to", "context deadline exceeded"),
        (&mute.0, "answer from", "it takes connections and says nothing"),
    ] {
        let words = ["--endpoints", endpoint, "--dial-timeout", "300ms", "snapshot", "save", text(&file)];
        let ending = run(&Program::quoratectl(), &words);
        let said = format!("Error: no {what} {endpoint} within the --dial-timeout of 300ms: ");
        assert!(
            ending.code == Some(5) && ending.errors.len() == 1 && ending.errors[0].starts_with(&said),
            "{ending:?}"
        );
        assert!(ending.errors[0].contains(why), "{ending:?}");
    }
    assert_eq!(std::fs::read_dir(home.path()).expect("the directory").count(), 0, "nothing is left");
}

/// Takes one connection to `member`, and falls silent when so many bytes have come from there.
fn silent_after(bytes: usize, member: SocketAddr) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        let (near, _) = listener.accept().expect("a client");
        let far = TcpStream::connect(member).expect("the member");
        let (mut from, mut to) = (near.try_clone().expect("a handle"), far.try_clone().expect("a handle"));
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let (mut from, mut to) = (far.try_clone().expect("a handle"), near.try_clone().expect("a handle"));
        let (mut buffer, mut passed) = (vec![0; 16 << 10], 0);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            passed += count;
            if passed < bytes && to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
    });
    endpoint
}

#[test]
fn our_client_gives_up_a_member_that_falls_silent() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("snapshot.db");
    let ours = Daemon::start(&Program::subject(), &[]);
    let value = vec![7; 1 << 20];
    for key in ["a", "b", "c"] {
        block_on(async { connect(&ours).await.kv.put(grpc::put(key, value.clone())).await.expect("a put") });
    }
    let endpoint = silent_after(1 << 20, ours.client);
    let words = ["--endpoints", &endpoint, "--keepalive-timeout", "1s", "snapshot", "save", text(&file)];
    let ending = run(&Program::quoratectl(), &words);
    assert!(ending.code == Some(5) && ending.errors.len() == 1, "{ending:?}");
    assert!(ending.errors[0].contains("error reading a body from connection"), "{ending:?}");
    assert_eq!(std::fs::read_dir(home.path()).expect("the directory").count(), 0, "nothing is left");
}

#[test]
fn offline_tools_say_the_same_of_etcds_files() {
    let mut etcd = Daemon::start(&Program::etcd(), &["--unsafe-no-fsync"]);
    let empty = etcd.directory().join("empty.db");
    let save =
        |file: &Path| succeed(&Program::etcdctl(), &["--endpoints", &etcd.endpoint(), "snapshot", "save", text(file)]);
    save(&empty);
    block_on(async { write_history(&mut connect(&etcd).await).await });
    let full = etcd.directory().join("full.db");
    save(&full);
    etcd.terminate();
    let database = etcd.data_dir().join("member/snap/db");
    let bumped = bumped(&full);
    for file in [&empty, &full, &database, &bumped.data_dir().join("member/snap/db")] {
        assert_eq!(statuses(&Program::quorateutl(), file), statuses(&Program::etcdutl(), file), "{}", file.display());
        for words in [
            ["-w", "json"],
            ["-w", "table"],
            ["-w", "fields"],
            ["-w", "protobuf"],
            ["--rev", "200"],
            ["--rev", "149"],
            ["--rev", "150"],
            ["--rev", "9999"],
        ] {
            let [ours, theirs] = [Program::quorateutl(), Program::etcdutl()].map(|tool| hash_kv(&tool, file, &words));
            assert_eq!(ours, theirs, "{} {words:?}", file.display());
        }
    }
    let (absent, words) = (etcd.directory().join("absent"), ["snapshot", "status"]);
    for words in [&words[..], &["hashkv"], &["hashkv", text(&absent)], &["snapshot", "status", text(&absent)]] {
        let [ours, theirs] = [Program::quorateutl(), Program::etcdutl()].map(|tool| run(&tool, words));
        assert!(ours == theirs && ours.code != Some(0), "{words:?}: {ours:?}, {theirs:?}");
    }
}

/// An etcd's directory, restored from `file` with all of its history compacted away.
fn bumped(file: &Path) -> Daemon {
    let daemon = Daemon::prepare(&std::env::temp_dir(), &Program::etcd(), &[]);
    let data = daemon.data_dir();
    let words = ["snapshot", "restore", text(file), "--data-dir", text(&data)];
    succeed(&Program::etcdutl(), &[&words[..], &["--bump-revision", "1000", "--mark-compacted"]].concat());
    daemon
}

/// `hashkv` of a copy: etcd's tool finishes compactions in the file.
fn hash_kv(tool: &Program, file: &Path, words: &[&str]) -> Ending {
    let home = tempfile::tempdir().expect("a directory");
    let copy = home.path().join("copy.db");
    std::fs::copy(file, &copy).expect("a copy");
    run(tool, &[&["hashkv", text(&copy)], words].concat())
}

#[test]
fn damaged_files_are_refused_by_name() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    block_on(async { write_history(&mut connect(&daemon).await).await });
    let file = daemon.directory().join("snapshot.db");
    succeed(&Program::quoratectl(), &["--endpoints", &daemon.endpoint(), "snapshot", "save", text(&file)]);
    let whole = std::fs::read(&file).expect("the file");
    let mut damaged = vec![Vec::new(), b"hello".to_vec(), vec![0; 20_000], vec![0xff; 20_000]];
    damaged.extend(
        [1, 31, 32, 33, 4_096, whole.len() / 2, whole.len() - 100].map(|cut| whole[..whole.len() - cut].to_vec()),
    );
    let step = whole.len() / 40;
    damaged.extend((0..40).map(|number| {
        let mut bytes = whole.clone();
        bytes[2 * 4_096 + number * (step - 300)] ^= 1 << (number % 8);
        bytes
    }));
    for (number, bytes) in damaged.iter().enumerate() {
        std::fs::write(&file, bytes).expect("a file");
        for words in [&["snapshot", "status"][..], &["hashkv"]] {
            let ending = run(&Program::quorateutl(), &[words, &[text(&file)]].concat());
            // Without its last 32 bytes a file is a database that was copied.
            let unsealed = bytes.len() + 32 == whole.len();
            let refused = ending.code == Some(1) && ending.errors.len() == 1 && ending.out.is_empty();
            assert!(refused != unsealed, "{number} {words:?}: {ending:?}");
        }
    }
    let directory = run(&Program::quorateutl(), &["hashkv", text(daemon.directory())]);
    assert!(directory.code == Some(1) && directory.errors[0].ends_with("is not a file"), "{directory:?}");
}

/// The messages of one snapshot.
async fn messages(client: &mut Client) -> Result<Vec<pb::SnapshotResponse>, tonic::Status> {
    let mut stream = client.maintenance.snapshot(pb::SnapshotRequest {}).await?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

#[test]
fn messages_are_cut_as_etcds() {
    for program in [Program::subject(), Program::etcd()] {
        let daemon = Daemon::start(&program, &[]);
        let messages = block_on(async {
            let mut client = connect(&daemon).await;
            write_history(&mut client).await;
            messages(&mut client).await.expect("a snapshot")
        });
        let (last, pieces) = messages.split_last().expect("messages");
        let bytes = pieces.concat_blobs();
        assert_eq!(last.blob.as_ref(), Sha256::digest(&bytes).as_slice(), "{}", program.name);
        let mut left = bytes.len();
        for (number, piece) in pieces.iter().enumerate() {
            let whole = piece.blob.len() == PIECE_BYTES || number + 1 == pieces.len();
            left -= piece.blob.len();
            assert!(whole && piece.remaining_bytes == left as u64, "{}: piece {number}", program.name);
        }
        let same = |message: &pb::SnapshotResponse| message.version == "3.7.0" && message.header.is_none();
        assert!(messages.iter().all(same) && last.remaining_bytes == 0 && bytes.len() % 4_096 == 0, "{}", program.name);
    }
}

/// The bytes that messages carry.
trait Blobs {
    fn concat_blobs(&self) -> Vec<u8>;
}

impl Blobs for [pb::SnapshotResponse] {
    fn concat_blobs(&self) -> Vec<u8> {
        self.iter().flat_map(|message| message.blob.iter().copied()).collect()
    }
}

/// Clients that do not read keep their turns, and nothing on the disk that outlives them.
#[test]
fn readers_are_bounded_and_leave_nothing() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    block_on(async {
        let mut client = connect(&daemon).await;
        for number in 0..24 {
            client.kv.put(grpc::put(format!("large/{number}"), vec![number; 1 << 20])).await.expect("a put");
        }
        let mut held = Vec::new();
        for _ in 0..CLIENT_SNAPSHOTS_MAX {
            let mut other = connect(&daemon).await;
            let mut stream = other.maintenance.snapshot(pb::SnapshotRequest {}).await.expect("a turn").into_inner();
            stream.message().await.expect("a piece").expect("a piece");
            held.push((stream, other));
        }
        let refused = messages(&mut client).await.expect_err("a turn too many");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
        assert!(refused.message().contains("try again later"), "{refused:?}");
        let scratch = daemon.data_dir().join("member/scratch");
        assert_eq!(std::fs::read_dir(scratch).expect("the directory").count(), 0, "files have names");
        drop(held);
    });
    let again = wait_for(PATIENCE, || block_on(async { messages(&mut connect(&daemon).await).await.ok() }));
    assert!(again.expect("turns come back").len() > 24 * 32);
}

#[test]
fn keys_of_the_v2_api_are_not_left_out_in_silence() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    let put = http::put_form(daemon.client, "/v2/keys/config", "value=1").expect("an answer");
    assert_eq!(put.status, 201, "{put:?}");
    let refused = block_on(async { messages(&mut connect(&daemon).await).await }).expect_err("no snapshot");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("keys of the v2 API"), "{refused:?}");
    let file = daemon.directory().join("snapshot.db");
    let saved = run(&Program::quoratectl(), &["--endpoints", &daemon.endpoint(), "snapshot", "save", text(&file)]);
    assert!(saved.code == Some(5) && saved.errors[0].contains("keys of the v2 API"), "{saved:?}");
    let names = std::fs::read_dir(daemon.directory()).expect("the directory").flatten().map(|entry| entry.file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().starts_with("snapshot")), "something is left");
}

#[test]
fn a_learner_gives_snapshots() {
    let mut cluster = Cluster::start(1, &[]);
    let learner = cluster.prepare(&[]);
    let peer = format!("http://{}", cluster.members[learner].peer);
    cluster.ctl_until(0, &["member", "add", "m2", "--learner", "--peer-urls", &peer]);
    cluster.join(learner);
    cluster.ctl_until(0, &["put", "key", "value"]);
    let caught_up = wait_for(PATIENCE, || {
        let file = cluster.members[learner].directory().join("snapshot.db");
        succeed(
            &Program::etcdctl(),
            &["--endpoints", &cluster.members[learner].endpoint(), "snapshot", "save", text(&file)],
        );
        (revision_of(&file) == 2).then_some(())
    });
    assert!(caught_up.is_some(), "the learner's snapshot lacks the key");
}

/// Users and roles, which no hash covers.
const ACCOUNTS: [&[&str]; 5] = [
    &["role", "add", "reader"],
    &["role", "grant-permission", "reader", "read", "key/", "--prefix"],
    &["user", "add", "guest", "--no-password"],
    &["user", "grant-role", "guest", "reader"],
    &["user", "add", "other", "--new-user-password", "secret"],
];

/// What is asked of users and roles.
const QUESTIONS: [&[&str]; 4] =
    [&["user", "list"], &["role", "list"], &["user", "get", "guest"], &["role", "get", "reader"]];

fn accounts(daemon: &Daemon) -> Vec<String> {
    let endpoint = daemon.endpoint();
    QUESTIONS.map(|words| succeed(&Program::etcdctl(), &[&["--endpoints", &endpoint], words].concat())).into()
}

/// A snapshot of an etcd with a history and users.
fn their_snapshot(etcd: &Program, file: &Path) -> Daemon {
    let etcd = Daemon::start(etcd, &["--unsafe-no-fsync"]);
    block_on(async { write_history(&mut connect(&etcd).await).await });
    for words in ACCOUNTS {
        succeed(&Program::etcdctl(), &[&["--endpoints", &etcd.endpoint()], words].concat());
    }
    succeed(&Program::etcdctl(), &["--endpoints", &etcd.endpoint(), "snapshot", "save", text(file)]);
    etcd
}

/// Restores `file` into the directory of `daemon` with `tool`, as the member `name` of `cluster`.
fn restore_into(tool: &Program, daemon: &Daemon, file: &Path, name: &str, cluster: &str, more: &[&str]) {
    let (peer, data) = (format!("http://{}", daemon.peer), daemon.data_dir());
    let words = ["snapshot", "restore", text(file), "--data-dir", text(&data), "--name", name];
    let founded = ["--initial-cluster", cluster, "--initial-advertise-peer-urls", &peer];
    succeed(tool, &[&words[..], &founded, more].concat());
}

/// Who the members are: identifiers are computed, so two tools must come to the same ones.
fn membership(daemon: &Daemon) -> serde_json::Value {
    let words = ["--endpoints", &daemon.endpoint(), "member", "list", "-w", "json"];
    let mut list: serde_json::Value = serde_json::from_str(&succeed(&Program::etcdctl(), &words)).expect("JSON");
    let (header, members) = (list["header"]["cluster_id"].take(), list["members"].take());
    let member =
        |member: &serde_json::Value| (member["ID"].clone(), member["name"].clone(), member["peerURLs"].clone());
    serde_json::json!([header, members.as_array().expect("members").iter().map(member).collect::<Vec<_>>()])
}

#[test]
fn their_snapshot_is_served_by_us() {
    let minors = Program::etcd_minors().into_iter().map(|(minor, [etcd, ..])| (minor, etcd));
    for (minor, etcd) in minors.chain([("3.5", Program::etcd_3_5_1())]) {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("snapshot.db");
        let original = their_snapshot(&etcd, &file);
        let compat = format!("--compat-version={minor}");
        let mut ours = Daemon::prepare(&std::env::temp_dir(), &Program::subject(), &[&compat]);
        restore_into(&Program::quorateutl(), &ours, &file, "m1", &format!("m1=http://{}", ours.peer), &[]);
        ours.restart();
        let revision = revision_of(&file);
        let [restored, first] =
            [&ours, &original].map(|member| block_on(async { story(&mut connect(member).await, revision).await }));
        assert_eq!(restored, first, "{}", etcd.name);
        assert_eq!(accounts(&ours), accounts(&original), "{}", etcd.name);
        block_on(async { connect(&ours).await.kv.put(grpc::put("key/new", "1")).await.expect("a put") });
        ours.kill();
        ours.restart();
        let now = block_on(async { connect(&ours).await.kv.range(grpc::get("key/new")).await.expect("an answer") });
        assert_eq!(now.into_inner().kvs[0].mod_revision, revision + 1, "{}", etcd.name);
    }
}

#[test]
fn members_restored_from_one_file_are_one_cluster_as_etcds_would_be() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("snapshot.db");
    let original = their_snapshot(&Program::etcd(), &file);
    let mut ours = [(); 3].map(|()| Daemon::prepare(&std::env::temp_dir(), &Program::subject(), &[]));
    let names = ["a", "b", "c"];
    let cluster = names.iter().zip(&ours).map(|(name, daemon)| format!("{name}=http://{}", daemon.peer));
    let cluster = cluster.collect::<Vec<_>>().join(",");
    let bump = ["--initial-cluster-token", "again", "--bump-revision", "5000", "--mark-compacted"];
    for (name, daemon) in names.iter().zip(&mut ours) {
        let wal = daemon.directory().join("log");
        restore_into(
            &Program::quorateutl(),
            daemon,
            &file,
            name,
            &cluster,
            &[&bump[..], &["--wal-dir", text(&wal)]].concat(),
        );
        daemon.add_argument(format!("--name={name}"));
        daemon.add_argument(format!("--wal-dir={}", text(&wal)));
        daemon.spawn();
    }
    for daemon in &mut ours {
        assert!(daemon.wait_ready(PATIENCE), "{}", daemon.log());
    }
    // The same by etcd's tool, to be served by one of its three: it tells its members without a quorum, too.
    let theirs = Daemon::prepare(&std::env::temp_dir(), &Program::etcd(), &[]);
    let (data, peer) = (theirs.data_dir(), format!("http://{}", ours[0].peer));
    let words = ["snapshot", "restore", text(&file), "--data-dir", text(&data), "--name", "a", "-w", "json"];
    let founded = ["--initial-cluster", &cluster, "--initial-advertise-peer-urls", &peer];
    succeed(&Program::etcdutl(), &[&words[..], &founded, &bump].concat());
    let database = theirs.data_dir().join("member/snap/db");
    let hash = hash_kv(&Program::etcdutl(), &database, &["-w", "json"]);
    let hash: serde_json::Value = serde_json::from_str(&hash.out).expect("JSON");
    let revision = revision_of(&file) + 5_000;
    for daemon in &ours {
        let told = block_on(async { story(&mut connect(daemon).await, revision).await });
        assert_eq!(
            (told.0, told.1),
            (u32::try_from(hash["hash"].as_u64().expect("a hash")).expect("32 bits"), revision)
        );
        assert_eq!(accounts(daemon), accounts(&original));
        assert_eq!(membership(daemon), membership(&ours[0]));
    }
    // Identifiers come from addresses and the token: a fresh cluster of etcd's on them has them, too.
    let ids = membership(&ours[0]);
    for daemon in &mut ours {
        daemon.kill();
    }
    let fresh = names.iter().zip(&ours).map(|(name, ours)| {
        let mut daemon = Daemon::prepare(&std::env::temp_dir(), &Program::etcd(), &["--unsafe-no-fsync"]);
        daemon.peer = ours.peer;
        daemon.add_argument(format!("--name={name}"));
        daemon.add_argument(format!("--initial-cluster={cluster}"));
        daemon.add_argument("--initial-cluster-token=again".to_owned());
        daemon.spawn();
        daemon
    });
    let mut fresh: Vec<_> = fresh.collect();
    assert!(fresh[0].wait_ready(PATIENCE), "{}", fresh[0].log());
    assert_eq!(membership(&fresh[0]), ids);
}

#[test]
fn restores_are_refused_in_the_same_words_and_leave_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("snapshot.db");
    drop(their_snapshot(&Program::etcd(), &file));
    let whole = std::fs::read(&file).expect("the file");
    let other = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let (flipped, bare) = (other("flipped.db", &flipped), other("bare.db", &whole[..whole.len() - 32]));
    let full = home.path().join("full");
    std::fs::create_dir(&full).expect("a directory");
    std::fs::write(full.join("mine"), "").expect("a file");
    let (out, absent) = (home.path().join("out/data"), home.path().join("absent.db"));
    let (out, file, full) = (text(&out), text(&file), text(&full));
    let before = tree(home.path());
    for words in [
        &[][..],
        &[file, file],
        &[file, "--data-dir", out, "--mark-compacted"],
        &[file, "--data-dir", out, "--bump-revision", "5"],
        &[file, "--data-dir", out, "--bump-revision", "18446744073709551615"],
        &[file, "--data-dir", out, "--bump-revision", "18446744073709551616"],
        &[file, "--data-dir", out, "--bump-revision", "-5"],
        &[file, "--data-dir", full],
        &[file, "--data-dir", out, "--wal-dir", full],
        &[text(&absent), "--data-dir", out],
        &[text(&flipped), "--data-dir", out],
        &[text(&bare), "--data-dir", out],
        &[file, "--data-dir", out, "--name", "x"],
        &[file, "--data-dir", out, "--initial-cluster", "default=http://localhost:1"],
        &[file, "--data-dir", out, "--initial-cluster", "default=http://localhost:2380,b=http://localhost:2380"],
        &[file, "--data-dir", out, "--initial-cluster", "default=localhost"],
        &[file, "--data-dir", out, "--initial-advertise-peer-urls", "http://localhost:2380/x"],
    ] {
        let [ours, theirs] = [Program::quorateutl(), Program::etcdutl()].map(|tool| {
            let ending = run(&tool, &[&["snapshot", "restore"], words].concat());
            let left = home.path().join("out");
            assert!(!(tool.name == "quorateutl" && left.exists()), "{words:?}: something is left");
            drop(std::fs::remove_dir_all(left));
            ending
        });
        assert!(ours == theirs && ours.code != Some(0), "{words:?}: {ours:?}, {theirs:?}");
    }
    // Beyond the last revision etcd's tool goes round, to negative ones.
    for count in ["9223372036854775807", "18446744073709551615"] {
        let bump = ["--bump-revision", count, "--mark-compacted"];
        let words = [&["snapshot", "restore", file, "--data-dir", out][..], &bump].concat();
        let ending = run(&Program::quorateutl(), &words);
        assert!(ending.code == Some(1) && ending.errors[0].contains("a thousand million is plenty"), "{ending:?}");
    }
    for bytes in [&whole[..1_000], &whole[..whole.len() / 2], b"", b"hello"] {
        let damaged = other("damaged.db", bytes);
        let ending = run(
            &Program::quorateutl(),
            &["snapshot", "restore", text(&damaged), "--data-dir", out, "--skip-hash-check"],
        );
        assert!(ending.code == Some(1) && ending.errors.len() == 1, "{ending:?}");
        std::fs::remove_file(damaged).expect("the file");
    }
    assert_eq!(tree(home.path()), before, "something is left");
}

/// Every path below `directory`.
fn tree(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries
        .flat_map(|path| if path.is_dir() { [vec![path.clone()], tree(&path)].concat() } else { vec![path] })
        .collect();
    paths.sort();
    paths
}
