//! What tests of files and directories share: tools that are run to their end, and a history that can be told again.

use super::daemon::Daemon;
use super::grpc::{self, Client};
use super::program::Program;
use quorate::pb::etcdserverpb as pb;
use std::path::Path;

/// The leases of a history.
pub const LEASES: std::ops::RangeInclusive<i64> = 1..=3;

/// How a tool ended: exit code, standard output, the lines of standard error that say `Error:`.
#[derive(Debug, PartialEq, Eq)]
pub struct Ending {
    pub code: Option<i32>,
    pub out: String,
    pub errors: Vec<String>,
}

pub fn run(tool: &Program, words: &[&str]) -> Ending {
    let output = tool.command().args(words).output().expect("the tool starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut errors: Vec<_> = said.lines().filter(|line| line.starts_with("Error:")).map(str::to_owned).collect();
    // etcdutl says some twice.
    errors.dedup();
    Ending { code: output.status.code(), out: String::from_utf8_lossy(&output.stdout).into_owned(), errors }
}

pub fn succeed(tool: &Program, words: &[&str]) -> String {
    let ending = run(tool, words);
    assert_eq!(ending.code, Some(0), "{} {words:?}: {ending:?}", tool.name);
    ending.out
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// A member with keys of several versions, deleted ones, leases with keys, a compaction.
pub async fn write_history(client: &mut Client) {
    for id in LEASES {
        client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 9_000, id }).await.expect("a lease");
    }
    for number in 0..300_i64 {
        let key = format!("key/{}", number % 40);
        if number % 7 == 3 {
            let delete = pb::DeleteRangeRequest { key: key.into(), ..Default::default() };
            client.kv.delete_range(delete).await.expect("a delete");
        } else {
            let lease = if number % 5 == 0 { number % 3 + 1 } else { 0 };
            let value = vec![b'v'; usize::try_from(number * 11).expect("not negative")];
            client.kv.put(pb::PutRequest { lease, ..grpc::put(key, value) }).await.expect("a put");
        }
    }
    let compaction = pb::CompactionRequest { revision: 150, physical: true };
    client.kv.compact(compaction).await.expect("a compaction");
}

pub async fn connect(daemon: &Daemon) -> Client {
    Client::connect(&daemon.endpoint()).await.expect("the member answers")
}

/// The hash at `revision`, and the leases with their keys among those of the history.
pub async fn story(client: &mut Client, revision: i64) -> (u32, i64, Vec<(i64, Vec<String>)>) {
    let hash = client.maintenance.hash_kv(pb::HashKvRequest { revision }).await.expect("a hash").into_inner();
    let mut leases = Vec::new();
    for id in LEASES {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        let found = client.lease.lease_time_to_live(request).await.expect("an answer").into_inner();
        let keys = found.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned());
        let mut keys: Vec<_> = keys.filter(|key| key.starts_with("key/")).collect();
        keys.sort();
        leases.push((found.granted_ttl, keys));
    }
    (hash.hash, hash.compact_revision, leases)
}
