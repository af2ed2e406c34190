//! Damaged data directories. A member writes, is killed, and one file of its directory gets a flipped bit, loses its end,
//! or is removed.
//! Whatever file that is, the next start serves exactly what was acknowledged, or it says in one line which file is
//! damaged and what to do, and exits with 1; damage found later is answered with `DataLoss`. Never another state, never
//! a panic.
//!
//! `make test` runs a few rounds; `DAMAGE_ROUNDS=500` makes it long, `DAMAGE_SEED=n` damages elsewhere.

mod support;

use quorate::pb::etcdserverpb as pb;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::daemon::{Daemon, tail};
use support::grpc::{self, Client};
use support::program::Program;
use support::{random::Random, setting};
use tonic::{Code, Status};

/// Rounds of the short form: each kind of file two or three times.
const ROUNDS: u64 = 32;
/// Snapshots often, so that there are several `.snap` files and marks in the log.
const FLAGS: [&str; 1] = ["--snapshot-count=100"];
/// Longest wait for a start to serve or to refuse.
const START_LIMIT: Duration = Duration::from_secs(30);
/// One of these must be in a refusal: the way out.
const REMEDIES: [&str; 6] =
    ["restore", "add it again", "move it away", "use the version", "another", "an empty --data-dir"];

/// Everything a client can see.
#[derive(Debug, PartialEq)]
struct Seen {
    revision: i64,
    now: pb::RangeResponse,
    before: pb::RangeResponse,
    hash: (u32, i64),
    leases: Vec<pb::LeaseStatus>,
}

#[test]
fn a_damaged_file_is_harmless_or_refused() {
    let mut random = Random::new(setting("DAMAGE_SEED", 1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut daemon = Daemon::start(&Program::subject(), &FLAGS);
    let expected = runtime.block_on(write(&daemon));
    daemon.kill();
    let original = daemon.directory().join("original");
    copy(&daemon.data_dir(), &original);
    let kinds = files_by_kind(&original);
    let mut table: BTreeMap<(String, &str, &str), u64> = BTreeMap::new();
    for round in 0..setting("DAMAGE_ROUNDS", ROUNDS) {
        let (kind, paths) = &kinds[usize::try_from(round).expect("small") % kinds.len()];
        let path = random.pick(paths).clone();
        copy(&original, &daemon.data_dir());
        let how = damage(&daemon.data_dir().join(&path), &mut random);
        let outcome = start(&mut daemon, &runtime, &expected);
        let log = daemon.log();
        let what = format!("round {round}: {} {how}: {outcome:?}\n{}", path.display(), tail(&log, 3_000));
        let outcome = outcome.unwrap_or_else(|why| panic!("{why}: {what}"));
        assert!(!log.contains("panic"), "PANIC: {what}");
        *table.entry((kind.clone(), how, outcome)).or_default() += 1;
    }
    for ((kind, how, outcome), count) in table {
        println!("{kind:<14} {how:<9} {outcome:<9} {count:>5}");
    }
}

/// Starts on the damaged directory and looks at what is served, if it is served.
fn start(daemon: &mut Daemon, runtime: &tokio::runtime::Runtime, expected: &Seen) -> Result<&'static str, String> {
    daemon.spawn();
    let outcome = if daemon.wait_ready(START_LIMIT) {
        match runtime.block_on(look(daemon, expected)) {
            Ok(seen) if seen == *expected => Ok("harmless"),
            Ok(_) => Err("DIFFERENT".to_owned()),
            Err(status) if status.code() == Code::DataLoss => explained(&daemon.log()).map(|()| "data loss"),
            Err(status) => Err(format!("a reader got {status}")),
        }
    } else {
        match daemon.exited().map(|status| status.code()) {
            Some(Some(1)) => explained(&daemon.log()).map(|()| "refused"),
            other => Err(format!("ended with {other:?}")),
        }
    };
    daemon.kill();
    outcome
}

/// An error names a file and the way out.
fn explained(log: &str) -> Result<(), String> {
    let is_told = |line: &str| line.contains("/data/") && REMEDIES.iter().any(|remedy| line.contains(remedy));
    if log.lines().any(is_told) { Ok(()) } else { Err("no line names a file and the way out".to_owned()) }
}

/// Makes a history with everything in it, table files and unflushed rows, snapshots and marks.
async fn write(daemon: &Daemon) -> Seen {
    let mut client = Client::connect(&daemon.endpoint()).await.expect("the daemon serves");
    let grant = pb::LeaseGrantRequest { ttl: 100_000, id: 77 };
    client.lease.lease_grant(grant).await.expect("a lease");
    for number in 0..700_u64 {
        let lease = if number % 50 == 0 { 77 } else { 0 };
        let value = format!("{number}-").repeat(20);
        let put = pb::PutRequest { lease, ..grpc::put(format!("key{}", number % 90), value) };
        client.kv.put(put).await.expect("a put");
        if number % 13 == 0 {
            let key = format!("key{}", number % 45).into();
            let delete = pb::DeleteRangeRequest { key, ..Default::default() };
            client.kv.delete_range(delete).await.expect("a delete");
        }
        if number == 300 {
            let compact = pb::CompactionRequest { revision: 150, physical: true };
            client.kv.compact(compact).await.expect("a compaction");
            client.maintenance.defragment(pb::DefragmentRequest {}).await.expect("a defragmentation");
        }
    }
    let revision =
        client.kv.range(everything(0)).await.expect("a range").into_inner().header.expect("a header").revision;
    see(&mut client, revision).await.expect("nothing is damaged")
}

async fn look(daemon: &Daemon, expected: &Seen) -> Result<Seen, Status> {
    let mut client = Client::connect(&daemon.endpoint()).await.expect("the daemon serves");
    see(&mut client, expected.revision).await
}

fn everything(revision: i64) -> pb::RangeRequest {
    pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), revision, ..Default::default() }
}

async fn see(client: &mut Client, revision: i64) -> Result<Seen, Status> {
    let mut now = client.kv.range(everything(0)).await?.into_inner();
    let mut before = client.kv.range(everything(revision / 2)).await?.into_inner();
    let hash = client.maintenance.hash_kv(pb::HashKvRequest { revision }).await?.into_inner();
    let leases = client.lease.lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner().leases;
    let revision = now.header.take().map_or(0, |header| header.revision);
    before.header = None;
    Ok(Seen { revision, now, before, hash: (hash.hash, hash.compact_revision), leases })
}

/// Copies a directory over another; what is only reserved in it stays holes.
fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("our own directory");
    }
    let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp {} {}", from.display(), to.display());
}

fn files_by_kind(directory: &Path) -> Vec<(String, Vec<PathBuf>)> {
    let mut found = Vec::new();
    list(directory, &mut found);
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in found {
        let relative = path.strip_prefix(directory).expect("it is inside").to_owned();
        kinds.entry(kind(&relative)).or_default().push(relative);
    }
    kinds.into_iter().collect()
}

fn list(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("our own directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(&path, found);
        } else if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0) {
            found.push(path);
        }
    }
    found.sort();
}

fn kind(path: &Path) -> String {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("wal") => "log segment".to_owned(),
        Some("snap") => ".snap".to_owned(),
        Some("jnl") => "journal".to_owned(),
        _ if path.parent().is_some_and(|parent| parent.ends_with("tables")) => "table file".to_owned(),
        _ if name.strip_prefix('v').is_some_and(|rest| rest.parse::<u64>().is_ok()) => "manifest".to_owned(),
        _ => name,
    }
}

/// Flips a bit before the zeros at a file's end, cuts the file off there, or removes it; says which.
fn damage(path: &Path, random: &mut Random) -> &'static str {
    let mut bytes = fs::read(path).expect("our own file");
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1);
    let (how, position) = (random.below(5), random.index(used));
    match how {
        0 => bytes.truncate(position),
        1 => {
            fs::remove_file(path).expect("our own file");
            return "removed";
        }
        _ => {
            if let Some(byte) = bytes.get_mut(position) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
    fs::write(path, bytes).expect("our own file");
    if how == 0 { "truncated" } else { "flipped" }
}
