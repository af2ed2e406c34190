//! etcd's database, from a real etcd to us and back: every row, every hash, every lease must be the same.
//!
//! `DATABASE_OPS=n` makes the histories longer, `DATABASE_SEED=n` chooses others.

#[path = "support/mod.rs"]
mod support;

use bytes::Bytes;
use prost::Message as _;
use quorate::apply::{Applier, ApplyOptions, exchange};
use quorate::disk::{Directory as _, FileDirectory, OpenFile};
use quorate::etcdfile::{bbolt, database, summary};
use quorate::membership::{Founding, Version};
use quorate::pb::etcdserverpb::{self as pb, InternalRaftRequest, request_op::Request as Op};
use quorate::pb::membershippb::ClusterVersionSetRequest;
use quorate::pb::raftpb::{Entry, EntryType};
use quorate::storage::{FjallEngine, FjallOptions, MemoryEngine};
use quorate::types::{ClusterId, LeaseId, MemberId};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use support::daemon::{self, Daemon};
use support::grpc::Client;
use support::program::Program;
use support::random::Random;
use support::{setting, wait_for};

/// Requests of a history.
const OPS: u64 = 1_500;
/// Different keys of a history.
const KEYS: u8 = 60;
/// The leases of a history.
const LEASES: std::ops::RangeInclusive<i64> = 1..=5;
/// Seconds a lease lives: none ends during a test.
const TTL: i64 = 9_000;
/// So many revisions lie between two that are hashed from the file alone.
const HASHES_STEP: usize = 17;
/// A value that takes hundreds of pages.
const LARGE_BYTES: usize = 1_500_000;
/// Longest wait until etcd has written the version of its database, which it looks at every few seconds.
const VERSION_LIMIT: Duration = Duration::from_secs(30);
const OWN: Version = Version::minor(3, 7);

/// One request of a history.
#[derive(Clone, Debug)]
enum Request {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(i64),
    Revoke(i64),
}

/// Makes histories; the revision a compaction goes to is told by who plays it.
struct History {
    random: Random,
    revoked: i64,
}

impl History {
    fn new(salt: u64) -> Self {
        Self { random: Random::new(setting::<u64>("DATABASE_SEED", 1) ^ salt), revoked: 0 }
    }

    fn next(&mut self, revision: i64) -> Request {
        match self.random.below(1_000) {
            0..3 => Request::Put(pb::PutRequest { value: vec![7; LARGE_BYTES].into(), ..self.put() }),
            3..7 if revision > 400 => Request::Compact(self.random.between(revision - 400, revision - 100)),
            12..14 if self.revoked + 2 < *LEASES.end() => {
                self.revoked += 1;
                Request::Revoke(self.revoked)
            }
            14..200 => Request::Delete(self.delete()),
            200..450 => {
                let ops = (0..=self.random.below(4)).map(|_| self.op()).collect();
                Request::Txn(pb::TxnRequest { success: ops, ..Default::default() })
            }
            _ => Request::Put(self.put()),
        }
    }

    fn op(&mut self) -> pb::RequestOp {
        let op = if self.random.chance(30) {
            Op::RequestDeleteRange(self.delete())
        } else {
            // etcd refuses a transaction that puts a key twice: each put has a key of its own.
            Op::RequestPut(pb::PutRequest { key: format!("txn/{}", self.random.bits()).into(), ..self.put() })
        };
        pb::RequestOp { request: Some(op) }
    }

    fn put(&mut self) -> pb::PutRequest {
        let lease = if self.random.chance(20) { self.random.between(self.revoked + 1, *LEASES.end()) } else { 0 };
        let length = self.random.index(200);
        pb::PutRequest { key: self.key(), value: self.random.bytes(length).into(), lease, ..Default::default() }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key: self.key(), ..Default::default() }
    }

    fn key(&mut self) -> Bytes {
        let number = u8::try_from(self.random.below(KEYS.into())).expect("few keys");
        // Some keys hold the bytes that our tables escape.
        if number.is_multiple_of(7) { vec![b'k', 0, number].into() } else { format!("key/{number}").into() }
    }
}

/// A real etcd with a history.
struct Original {
    daemon: Daemon,
    client: Client,
}

/// What can be asked of a state, at all its revisions.
#[derive(Debug, PartialEq)]
struct Story {
    revision: i64,
    compact_revision: i64,
    hashes: BTreeMap<i64, u32>,
    leases: BTreeMap<i64, Option<Vec<Bytes>>>,
}

impl Original {
    async fn new() -> Self {
        let daemon = Daemon::start(&Program::etcd(), &["--unsafe-no-fsync"]);
        let client = Client::connect(&daemon.endpoint()).await.expect("etcd answers");
        Self { daemon, client }
    }

    async fn play(&mut self, history: &mut History, ops: u64) {
        for id in LEASES {
            let grant = pb::LeaseGrantRequest { ttl: TTL, id };
            self.client.lease.lease_grant(grant).await.expect("a lease");
        }
        for _ in 0..ops {
            let revision = self.revision().await;
            let done = match history.next(revision) {
                Request::Put(put) => self.client.kv.put(put).await.map(drop),
                Request::Delete(delete) => self.client.kv.delete_range(delete).await.map(drop),
                Request::Txn(txn) => self.client.kv.txn(txn).await.map(drop),
                Request::Compact(revision) => self.compact(revision).await,
                Request::Revoke(id) => self.client.lease.lease_revoke(pb::LeaseRevokeRequest { id }).await.map(drop),
            };
            assert!(
                done.as_ref().is_ok_and(|()| true) || format!("{done:?}").contains("has been compacted"),
                "{done:?}"
            );
        }
    }

    async fn compact(&mut self, revision: i64) -> Result<(), tonic::Status> {
        let request = pb::CompactionRequest { revision, physical: true };
        self.client.kv.compact(request).await.map(drop)
    }

    async fn revision(&mut self) -> i64 {
        let now = self.client.kv.range(support::grpc::get("none")).await.expect("etcd answers").into_inner();
        now.header.expect("a header").revision
    }

    async fn story(&mut self) -> Story {
        let now = self.hash(0).await.expect("a hash");
        let revision = now.header.expect("a header").revision;
        // At its last compactions etcd remembers hashes that count from the compaction before.
        let mut hashes = BTreeMap::from([(revision, now.hash)]);
        for past in now.compact_revision.max(1)..revision {
            let hash = self.hash(past).await.expect("a hash");
            if hash.compact_revision == now.compact_revision {
                hashes.insert(past, hash.hash);
            }
        }
        let mut leases = BTreeMap::new();
        for id in LEASES {
            let request = pb::LeaseTimeToLiveRequest { id, keys: true };
            let found = self.client.lease.lease_time_to_live(request).await.expect("an answer").into_inner();
            leases.insert(id, (found.ttl > 0).then(|| sorted(found.keys)));
        }
        Story { revision, compact_revision: now.compact_revision, hashes, leases }
    }

    async fn hash(&mut self, revision: i64) -> Result<pb::HashKvResponse, tonic::Status> {
        Ok(self.client.maintenance.hash_kv(pb::HashKvRequest { revision }).await?.into_inner())
    }
}

fn sorted(mut keys: Vec<Bytes>) -> Vec<Bytes> {
    keys.sort();
    keys
}

fn options() -> ApplyOptions {
    ApplyOptions {
        member: MemberId(1),
        server_version: OWN,
        lease_ttl_min: 2,
        learners_max: Some(1),
        quota_bytes: None,
    }
}

/// What our state says, asked for what `asked` was.
fn story_of<E: quorate::storage::Engine>(applier: &Applier<E>, asked: &Story) -> Story {
    let view = applier.published().view;
    let leases = applier.leases().expect("sound leases");
    let exists = |id: i64| leases.iter().any(|lease| lease.id == LeaseId(id));
    Story {
        revision: view.revision(),
        compact_revision: view.compact_revision(),
        hashes: asked.hashes.keys().map(|at| (*at, view.hash_kv(*at).expect("a kept revision").hash)).collect(),
        leases: LEASES
            .map(|id| (id, exists(id).then(|| sorted(view.lease_keys(LeaseId(id)).expect("sound rows")))))
            .collect(),
    }
}

fn import<E: quorate::storage::Engine>(file: OpenFile, engine: E, scratch: &Path) -> Applier<E> {
    let options_ = exchange::ImportOptions {
        cluster: ClusterId(7),
        server_version: OWN,
        index: None,
        configuration: None,
        memory_bytes: 1 << 20,
    };
    let done = exchange::import(file, &engine, &FileDirectory::new(scratch), &options_).expect("a sound database");
    let applier = Applier::open(engine, options()).expect("a sound state");
    let published = applier.published();
    assert_eq!((published.applied, published.term), (done.applied, done.term));
    published.view.verify().expect("tables that agree");
    applier
}

fn export<E: quorate::storage::Engine>(applier: &Applier<E>, directory: &Path) -> bbolt::Written<OpenFile> {
    let file = FileDirectory::new(directory).create("export.db").expect("a file");
    exchange::export(&applier.published(), file).expect("a sound state")
}

fn rows(file: OpenFile) -> Vec<bbolt::Row> {
    let reader = bbolt::Reader::open(file).expect("a sound file");
    reader.rows().expect("a sound root").collect::<Result<_, _>>().expect("sound rows")
}

/// The database of a stopped etcd, copied to `directory`.
fn database_of(original: &mut Daemon, directory: &Path) -> OpenFile {
    original.terminate();
    std::fs::copy(original.data_dir().join("member/snap/db"), directory.join("etcd.db")).expect("a copy");
    FileDirectory::new(directory).open("etcd.db").expect("the copy")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

#[test]
fn etcds_database_is_taken_and_handed_back_row_by_row() {
    let home = tempfile::tempdir().expect("a directory");
    let (mut daemon, story) = block_on(async {
        let mut original = Original::new().await;
        original.play(&mut History::new(0), setting("DATABASE_OPS", OPS)).await;
        let story = original.story().await;
        (original.daemon, story)
    });
    let versioned = wait_for(VERSION_LIMIT, || daemon.log().contains("storage version").then_some(()));
    println!("{} revisions compared, version in the database: {}", story.hashes.len(), versioned.is_some());
    assert!(story.hashes.len() > 5 && story.compact_revision > 1, "the history is too short: {story:?}");
    let file = database_of(&mut daemon, home.path());
    let theirs = rows(FileDirectory::new(home.path()).open("etcd.db").expect("the copy"));

    let state = FjallEngine::open(&home.path().join("state"), &FjallOptions::default()).expect("an empty state");
    let applier = import(file, state, home.path());
    assert_eq!(story_of(&applier, &story), story);
    let again = rows(export(&applier, home.path()).file);
    for (ours, theirs) in again.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(again.len(), theirs.len());
    assert!(!home.path().join("versions.sort").exists(), "scratch files are removed");
}

/// Our own state, made by entries.
struct Own {
    applier: Applier<MemoryEngine>,
    index: u64,
}

impl Own {
    fn new(peer: &str) -> Self {
        let members = BTreeMap::from([("m1".to_owned(), vec![peer.to_owned()])]);
        let founding = Founding::new(&members, "etcd-cluster").expect("one member");
        let mut applier = Applier::open(MemoryEngine::new(), options()).expect("an empty state");
        applier.establish(founding.cluster_id(), &founding.configuration()).expect("a new cluster");
        applier.apply(&founding.entries()).expect("founding entries");
        let mut own = Self { applier, index: 1 };
        let version = ClusterVersionSetRequest { ver: "3.7.0".to_owned() };
        own.apply(InternalRaftRequest { cluster_version_set: Some(version), ..Default::default() });
        own
    }

    fn apply(&mut self, request: InternalRaftRequest) {
        self.index += 1;
        let header = Some(pb::RequestHeader { id: self.index, ..Default::default() });
        let data = InternalRaftRequest { header, ..request }.encode_to_vec().into();
        let entry = Entry { r#type: EntryType::EntryNormal.into(), term: 2, index: self.index, data };
        self.applier.apply(&[entry]).expect("an entry of ours");
    }

    fn play(&mut self, history: &mut History, ops: u64) {
        for id in LEASES {
            let grant = pb::LeaseGrantRequest { ttl: TTL, id };
            self.apply(InternalRaftRequest { lease_grant: Some(grant), ..Default::default() });
        }
        for _ in 0..ops {
            let request = history.next(self.applier.published().view.revision());
            let mut entry = InternalRaftRequest::default();
            match request {
                Request::Put(put) => entry.put = Some(put),
                Request::Delete(delete) => entry.delete_range = Some(delete),
                Request::Txn(txn) => entry.txn = Some(txn),
                Request::Compact(revision) => {
                    entry.compaction = Some(pb::CompactionRequest { revision, physical: false });
                }
                Request::Revoke(id) => entry.lease_revoke = Some(pb::LeaseRevokeRequest { id }),
            }
            self.apply(entry);
            while self.applier.compact_some(10_000).expect("a step") != quorate::apply::CompactionProgress::Idle {}
        }
    }

    fn story(&self) -> Story {
        let view = self.applier.published().view;
        let kept = view.compact_revision().max(1)..=view.revision();
        let asked = Story {
            revision: 0,
            compact_revision: 0,
            hashes: kept.map(|revision| (revision, 0)).collect(),
            leases: BTreeMap::new(),
        };
        story_of(&self.applier, &asked)
    }
}

fn etcdutl(arguments: &[&str]) -> String {
    let output = Program::etcdutl().command().args(arguments).output().expect("etcdutl starts");
    assert!(output.status.success(), "etcdutl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

#[test]
fn our_snapshot_is_accepted_and_restored_by_etcdutl() {
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), &Program::etcd(), &["--unsafe-no-fsync"]);
    let peer = format!("http://{}", daemon.peer);
    let mut own = Own::new(&peer);
    own.play(&mut History::new(1), setting("DATABASE_OPS", OPS));
    let bbolt::Written { file, bytes } = export(&own.applier, daemon.directory());
    database::seal(&file, bytes).expect("a sealed file");
    let reader = bbolt::Reader::open(file).expect("a sound file");
    database::check_seal(&reader).expect("the checksum just written");
    let (hash, view) = (database::hash(&reader).expect("a hash"), own.applier.published().view);

    let path = daemon.directory().join("export.db");
    let status = etcdutl(&["snapshot", "status", "-w", "json", text(&path)]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let expected = serde_json::json!({"hash": hash, "revision": view.revision(), "totalKey": view.keys(),
        "totalSize": bytes, "version": "3.7.0"});
    assert_eq!(status, expected);

    let cluster = format!("m1={peer}");
    let data = daemon.data_dir();
    let restore = ["snapshot", "restore", text(&path), "--data-dir", text(&data), "--name", "m1"];
    let founded = ["--initial-cluster", &cluster, "--initial-advertise-peer-urls", &peer];
    etcdutl(&[restore.as_slice(), &founded].concat());
    daemon.restart();
    let restored = block_on(async {
        let client = Client::connect(&daemon.endpoint()).await.expect("etcd answers");
        let mut restored = Original { daemon, client };
        (restored.story().await, daemon::tail(&restored.daemon.log(), 2_000).to_owned())
    });
    let ours = own.story();
    println!("{} revisions compared", ours.hashes.len());
    assert_eq!(restored.0, ours, "{}", restored.1);
    for (revision, hash) in ours.hashes.iter().step_by(HASHES_STEP) {
        let expected = summary::FileHash { hash: *hash, revision: *revision, compact_revision: ours.compact_revision };
        assert_eq!(summary::hash_kv(&reader, *revision).expect("a hash"), expected, "read from the file");
    }
}

/// `snapshot restore --bump-revision` leaves a row without a value behind.
#[test]
fn bumped_database_is_taken() {
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), &Program::etcd(), &["--unsafe-no-fsync"]);
    let peer = format!("http://{}", daemon.peer);
    let mut own = Own::new(&peer);
    own.play(&mut History::new(2), 200);
    let bbolt::Written { file, bytes } = export(&own.applier, daemon.directory());
    database::seal(&file, bytes).expect("a sealed file");
    let (path, data, cluster) = (daemon.directory().join("export.db"), daemon.data_dir(), format!("m1={peer}"));
    let restore = ["snapshot", "restore", text(&path), "--data-dir", text(&data), "--name", "m1"];
    let founded = ["--initial-cluster", &cluster, "--initial-advertise-peer-urls", &peer];
    etcdutl(&[restore.as_slice(), &founded, &["--bump-revision", "1000", "--mark-compacted"]].concat());
    daemon.restart();
    let home = tempfile::tempdir().expect("a directory");
    let (mut daemon, story) = block_on(async {
        let client = Client::connect(&daemon.endpoint()).await.expect("etcd answers");
        let mut restored = Original { daemon, client };
        for value in ["after", "the bump"] {
            restored.client.kv.put(support::grpc::put("key", value)).await.expect("a put");
        }
        let revision = restored.revision().await;
        restored.compact(revision - 1).await.expect("a compaction");
        let story = restored.story().await;
        (restored.daemon, story)
    });
    let file = database_of(&mut daemon, home.path());
    let applier = import(file, MemoryEngine::new(), home.path());
    assert_eq!(story_of(&applier, &story), story);
}
