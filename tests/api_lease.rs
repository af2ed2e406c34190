//! Leases and maintenance calls as etcd's clients see them on one member. The same file runs against the real etcd with
//! `SUBJECT_BIN`.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::time::Duration;

use quorate::pb::etcdserverpb::{
    AlarmMember, AlarmRequest, CompactionRequest, DefragmentRequest, HashKvRequest, HashRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    MemberListRequest, MoveLeaderRequest, PutRequest, StatusRequest, StatusResponse,
};
use support::{
    daemon::Daemon,
    grpc::{Client, get, put},
    now,
    program::Program,
    random::Random,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, metadata::MetadataValue};

const PATIENCE: Duration = Duration::from_secs(10);
const NO_LEASE: &str = "etcdserver: requested lease not found";

async fn member(arguments: &[&str]) -> (Daemon, Client) {
    let daemon = Daemon::start(&Program::subject(), arguments);
    let client = Client::connect(&daemon.endpoint()).await.unwrap();
    (daemon, client)
}

fn refusal<T: std::fmt::Debug>(outcome: Result<tonic::Response<T>, Status>) -> (Code, String) {
    let status = outcome.expect_err("the call is refused");
    (status.code(), status.message().to_owned())
}

async fn grant(client: &mut Client, id: i64, ttl: i64) -> (i64, i64) {
    let answer = client.lease.lease_grant(LeaseGrantRequest { ttl, id }).await.unwrap().into_inner();
    assert_eq!(answer.error, "");
    (answer.id, answer.ttl)
}

async fn keep_alive(client: &mut Client, ids: &[i64]) -> Vec<LeaseKeepAliveResponse> {
    let (requests, receiver) = mpsc::channel(16);
    for id in ids {
        requests.send(LeaseKeepAliveRequest { id: *id }).await.unwrap();
    }
    let call = client.lease.lease_keep_alive(ReceiverStream::new(receiver));
    let mut stream = timeout(PATIENCE, call).await.unwrap().unwrap().into_inner();
    let mut answers = Vec::new();
    for _ in ids {
        answers.push(timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap());
    }
    drop(requests);
    assert_eq!(timeout(PATIENCE, stream.message()).await.unwrap().unwrap(), None, "the stream ends well");
    answers
}

#[tokio::test]
async fn grants_pick_clamp_and_refuse() {
    let (_daemon, mut client) = member(&[]).await;
    let (id, ttl) = grant(&mut client, 0, 100).await;
    assert!(id > 0 && ttl == 100);
    for wanted in [1, 0, -5] {
        assert_eq!(grant(&mut client, 0, wanted).await.1, 2);
    }
    assert_eq!(grant(&mut client, 7, 9_000_000_000).await, (7, 9_000_000_000));
    assert_eq!(grant(&mut client, -7, 60).await, (-7, 60));
    let twice = client.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 7 }).await;
    assert_eq!(refusal(twice), (Code::FailedPrecondition, "etcdserver: lease already exists".into()));
    let long = client.lease.lease_grant(LeaseGrantRequest { ttl: 9_000_000_001, id: 8 }).await;
    assert_eq!(refusal(long), (Code::OutOfRange, "etcdserver: too large lease TTL".into()));
    let leases = client.lease.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert_eq!(leases.header.unwrap().revision, 1);
    let mut ids: Vec<i64> = leases.leases.into_iter().map(|lease| lease.id).collect();
    ids.sort_unstable();
    assert_eq!((ids.len(), ids.first(), ids.contains(&7)), (6, Some(&-7), true));
}

#[tokio::test]
async fn keepalives_answer_each_request_in_order() {
    let (_daemon, mut client) = member(&[]).await;
    grant(&mut client, 7, 60).await;
    let answers = keep_alive(&mut client, &[7, 404, 7]).await;
    let seen: Vec<(i64, i64)> = answers.iter().map(|answer| (answer.id, answer.ttl)).collect();
    assert_eq!(seen, [(7, 60), (404, 0), (7, 60)]);
    assert!(answers.iter().all(|answer| answer.header.unwrap().revision == 1));
}

#[tokio::test]
async fn time_to_live_tells_the_rest_and_the_keys() {
    let (_daemon, mut client) = member(&[]).await;
    grant(&mut client, 7, 60).await;
    for key in ["b", "a"] {
        client.kv.put(PutRequest { lease: 7, ..put(key, "") }).await.unwrap();
    }
    let mut ask = async |id, keys| {
        client.lease.lease_time_to_live(LeaseTimeToLiveRequest { id, keys }).await.unwrap().into_inner()
    };
    let answer = ask(7, true).await;
    assert!((50..=60).contains(&answer.ttl), "{}", answer.ttl);
    assert_eq!((answer.id, answer.granted_ttl, answer.header.unwrap().revision), (7, 60, 3));
    let mut keys = answer.keys;
    keys.sort_unstable();
    assert_eq!(keys, ["a", "b"]);
    assert!(ask(7, false).await.keys.is_empty());
    let unknown = ask(8, true).await;
    assert_eq!((unknown.id, unknown.ttl, unknown.granted_ttl, unknown.keys.len()), (8, -1, 0, 0));
}

#[tokio::test]
async fn revoking_deletes_the_keys_under_one_revision() {
    let (_daemon, mut client) = member(&[]).await;
    let unknown = client.lease.lease_revoke(LeaseRevokeRequest { id: 7 }).await;
    assert_eq!(refusal(unknown), (Code::NotFound, NO_LEASE.into()));
    grant(&mut client, 7, 60).await;
    grant(&mut client, 8, 60).await;
    for key in ["a", "b"] {
        client.kv.put(PutRequest { lease: 7, ..put(key, "") }).await.unwrap();
    }
    let revoked = client.lease.lease_revoke(LeaseRevokeRequest { id: 7 }).await.unwrap().into_inner();
    assert_eq!(revoked.header.unwrap().revision, 4);
    let bare = client.lease.lease_revoke(LeaseRevokeRequest { id: 8 }).await.unwrap().into_inner();
    assert_eq!(bare.header.unwrap().revision, 4, "no key, no revision");
    assert_eq!(client.kv.range(get("a")).await.unwrap().into_inner().count, 0);
    let late = client.kv.put(PutRequest { lease: 7, ..put("a", "") }).await;
    assert_eq!(refusal(late), (Code::NotFound, NO_LEASE.into()));
}

#[tokio::test]
async fn leases_run_out_late_and_never_early() {
    let (_daemon, mut client) = member(&[]).await;
    grant(&mut client, 7, 2).await;
    client.kv.put(PutRequest { lease: 7, ..put("k", "") }).await.unwrap();
    keep_alive(&mut client, &[7]).await;
    let renewed = now();
    while client.kv.range(get("k")).await.unwrap().into_inner().count > 0 {
        assert!(renewed.elapsed() < PATIENCE, "the key outlives its lease");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(renewed.elapsed() >= Duration::from_millis(1_900), "gone after {:?}", renewed.elapsed());
    assert_eq!(keep_alive(&mut client, &[7]).await[0].ttl, 0);
}

#[tokio::test]
async fn leases_and_their_keys_survive_a_restart() {
    let (mut daemon, mut client) = member(&[]).await;
    grant(&mut client, 7, 600).await;
    client.kv.put(PutRequest { lease: 7, ..put("k", "") }).await.unwrap();
    daemon.terminate();
    daemon.restart();
    let mut client = Client::connect(&daemon.endpoint()).await.unwrap();
    let request = LeaseTimeToLiveRequest { id: 7, keys: true };
    let kept = client.lease.lease_time_to_live(request).await.unwrap().into_inner();
    assert_eq!((kept.granted_ttl, kept.keys), (600, vec!["k".into()]));
    assert!(kept.ttl > 500, "{}", kept.ttl);
}

#[tokio::test]
async fn status_describes_the_member() {
    let (_daemon, mut client) = member(&[]).await;
    client.kv.put(put("k", "v")).await.unwrap();
    let list = client.cluster.member_list(MemberListRequest { linearizable: true }).await.unwrap().into_inner();
    let member = &list.members[0];
    assert_eq!((&member.name[..], member.client_ur_ls.len(), member.is_learner), ("m1", 1, false));
    let status = client.maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.header.unwrap().revision, 2);
    assert!(status.version.starts_with("3.7."), "{}", status.version);
    assert_eq!((status.leader, status.is_learner, status.errors.len()), (member.id, false, 0));
    assert!(status.db_size > 0 && status.db_size_in_use > 0 && status.db_size_in_use <= status.db_size);
    assert!(status.raft_index >= status.raft_applied_index && status.raft_applied_index > 0 && status.raft_term > 1);
    assert_eq!((&status.storage_version[..], status.db_size_quota), ("3.7.0", 2_147_483_648));
    assert_eq!(status.downgrade_info.map(|info| info.enabled), Some(false));
}

/// More than the engine keeps in memory, of which a compaction leaves one value.
#[tokio::test]
async fn what_a_compaction_has_freed_is_not_in_use() {
    const VALUES: i64 = 60;
    const VALUE_BYTES: i64 = 1 << 20;
    let (_daemon, mut client) = member(&[]).await;
    for number in 0..VALUES {
        let value = Random::new(number.unsigned_abs()).bytes(1 << 20);
        client.kv.put(put("k", value)).await.unwrap();
    }
    let full = settled(&mut client, |status| status.db_size > VALUES / 2 * VALUE_BYTES).await;
    assert!(full.db_size_in_use > full.db_size / 2, "everything can be read: {full:?}");
    let compaction = CompactionRequest { revision: VALUES + 1, physical: true };
    client.kv.compact(compaction).await.unwrap();
    let status = settled(&mut client, |status| status.db_size_in_use < full.db_size / 2).await;
    assert!(status.db_size_in_use >= VALUE_BYTES && status.db_size_in_use <= status.db_size, "{status:?}");
    client.maintenance.defragment(DefragmentRequest {}).await.unwrap();
    let status = settled(&mut client, |status| status.db_size < 4 * VALUE_BYTES).await;
    assert!(status.db_size_in_use > status.db_size / 2, "{status:?}");
}

/// The status once it is as expected: sizes are looked up twice a second.
async fn settled(client: &mut Client, is_expected: impl Fn(&StatusResponse) -> bool) -> StatusResponse {
    let begun = now();
    loop {
        let status = client.maintenance.status(StatusRequest {}).await.unwrap().into_inner();
        if is_expected(&status) {
            return status;
        }
        assert!(begun.elapsed() < PATIENCE, "{status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn alarms_are_raised_listed_and_cleared() {
    let (_daemon, mut client) = member(&[]).await;
    let mut ask = async |action, member_id, alarm| {
        let answer = client.maintenance.alarm(AlarmRequest { action, member_id, alarm }).await.unwrap().into_inner();
        assert_eq!(answer.header.unwrap().revision, 1);
        answer.alarms.into_iter().map(|AlarmMember { member_id, alarm }| (member_id, alarm)).collect::<Vec<_>>()
    };
    assert_eq!(ask(0, 0, 0).await, []);
    assert_eq!(ask(1, 5, 0).await, [], "there is no alarm of no kind");
    assert_eq!(ask(1, 5, 1).await, [(5, 1)]);
    assert_eq!(ask(1, 5, 1).await, [(5, 1)], "raising twice is raising once");
    assert_eq!(ask(1, 6, 2).await, [(6, 2)]);
    let mut listed = ask(0, 0, 0).await;
    listed.sort_unstable();
    assert_eq!(listed, [(5, 1), (6, 2)]);
    assert_eq!(ask(0, 9, 2).await, [(6, 2)], "the member does not matter when listing");
    assert_eq!(ask(2, 0, 1).await, [], "zero is a member of its own");
    assert_eq!(ask(2, 6, 2).await, [(6, 2)]);
    assert_eq!(ask(0, 0, 0).await, [(5, 1)]);

    let no_space = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned());
    assert_eq!(refusal(client.kv.put(put("k", "v")).await), no_space);
    let status = client.maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors.len(), 1);
    // The spacing between the two parts is not etcd's to promise.
    let words: Vec<&str> = status.errors[0].split_whitespace().collect();
    assert_eq!(words, ["memberID:5", "alarm:NOSPACE"]);
    let clear = AlarmRequest { action: 2, member_id: 5, alarm: 1 };
    client.maintenance.alarm(clear).await.unwrap();
    client.kv.put(put("k", "v")).await.unwrap();
}

#[tokio::test]
async fn a_corrupt_cluster_is_read_only() {
    let (_daemon, mut client) = member(&[]).await;
    client.kv.put(put("k", "v")).await.unwrap();
    client.maintenance.alarm(AlarmRequest { action: 1, member_id: 5, alarm: 2 }).await.unwrap();
    let corrupt = (Code::DataLoss, "etcdserver: corrupt cluster".to_owned());
    assert_eq!(refusal(client.kv.put(put("k", "w")).await), corrupt);
    let grant = client.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 7 }).await;
    assert_eq!(refusal(grant), corrupt);
    assert_eq!(client.kv.range(get("k")).await.unwrap().into_inner().count, 1);
}

#[tokio::test]
async fn hashes_follow_the_contents() {
    let (_daemon, mut client) = member(&[]).await;
    client.kv.put(put("k", "1")).await.unwrap();
    let mut hash = async |revision| client.maintenance.hash_kv(HashKvRequest { revision }).await;
    let first = hash(0).await.unwrap().into_inner();
    assert_eq!((first.compact_revision, first.hash_revision, first.header.unwrap().revision), (-1, 2, 2));
    let future = (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision".to_owned());
    assert_eq!(refusal(hash(3).await), future);
    client.kv.put(put("k", "2")).await.unwrap();
    let mut hash = async |revision| client.maintenance.hash_kv(HashKvRequest { revision }).await;
    assert_ne!(hash(3).await.unwrap().into_inner().hash, first.hash);
    assert_eq!(hash(2).await.unwrap().into_inner().hash, first.hash);
    let whole = client.maintenance.hash(HashRequest {}).await.unwrap().into_inner();
    assert_eq!(whole.header.unwrap().revision, 3);
}

#[tokio::test]
async fn leadership_goes_to_voters_only() {
    let (_daemon, mut client) = member(&[]).await;
    let unknown = client.maintenance.move_leader(MoveLeaderRequest { target_id: 5 }).await;
    assert_eq!(refusal(unknown), (Code::FailedPrecondition, "etcdserver: bad leader transferee".into()));
    let own = client.kv.range(get("k")).await.unwrap().into_inner().header.unwrap().member_id;
    let moved = client.maintenance.move_leader(MoveLeaderRequest { target_id: own }).await.unwrap().into_inner();
    assert_eq!(moved.header, None);
}

#[tokio::test]
async fn metadata_is_looked_at_before_the_request() {
    let (_daemon, mut client) = member(&[]).await;
    let mut request = Request::new(get(""));
    let not_text = MetadataValue::try_from(&b"\xff\xfe"[..]).unwrap();
    request.metadata_mut().insert("client-api-version", not_text);
    let refused = client.kv.range(request).await;
    assert_eq!(refusal(refused), (Code::InvalidArgument, "etcdserver: invalid client api version".into()));
    let mut request = Request::new(get("k"));
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    client.kv.range(request).await.unwrap();
}

#[tokio::test]
async fn unknown_paths_are_unimplemented() {
    let (_daemon, client) = member(&[]).await;
    let call = async |path: &'static str| {
        let mut grpc = tonic::client::Grpc::new(client.channel.clone());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<StatusRequest, StatusRequest>::default();
        refusal(grpc.unary(Request::new(StatusRequest {}), path.parse().unwrap(), codec).await)
    };
    let unimplemented = |text: &str| (Code::Unimplemented, text.to_owned());
    let unknown_method = unimplemented("unknown method Nope for service etcdserverpb.KV");
    assert_eq!(call("/etcdserverpb.KV/Nope").await, unknown_method);
    assert_eq!(call("/nope.KV/Range").await, unimplemented("unknown service nope.KV"));
}
