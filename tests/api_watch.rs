//! Watch streams as etcd's clients see them on one member: ids, starts, contents, progress, cancellation. The same file
//! runs against the real etcd with `SUBJECT_BIN`.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use quorate::pb::{
    etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
        RequestOp, TxnRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
        WatchResponse, request_op::Request, watch_request::RequestUnion,
    },
    mvccpb::{Event, KeyValue},
};
use support::{
    daemon::Daemon,
    grpc::{Client, put},
    program::Program,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for a response that must not come to have come.
const SILENCE: Duration = Duration::from_millis(400);
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

async fn member(arguments: &[&str]) -> (Daemon, Client) {
    let daemon = Daemon::start(&Program::subject(), arguments);
    let client = Client::connect(&daemon.endpoint()).await.unwrap();
    (daemon, client)
}

/// One stream of watchers.
struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Watch {
    async fn open(client: &mut Client) -> Self {
        let (requests, receiver) = mpsc::channel(64);
        let responses = client.watch.watch(ReceiverStream::new(receiver));
        // The server sends its headers with the first response, so the first request goes first.
        let warm_up = WatchProgressRequest {};
        requests.send(WatchRequest { request_union: Some(RequestUnion::ProgressRequest(warm_up)) }).await.unwrap();
        let first = WatchCreateRequest { key: "warm-up".into(), watch_id: i64::MAX, ..Default::default() };
        requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(first)) }).await.unwrap();
        let responses = timeout(PATIENCE, responses).await.unwrap().unwrap().into_inner();
        let mut watch = Self { requests, responses };
        assert!(watch.next().await.created);
        watch.cancel(i64::MAX).await;
        assert!(watch.next().await.canceled);
        watch
    }

    async fn ask(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn cancel(&self, watch_id: i64) {
        self.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await;
    }

    async fn ask_progress(&self) {
        self.ask(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    }

    async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.ask(RequestUnion::CreateRequest(request)).await;
        self.next().await
    }

    async fn next(&mut self) -> WatchResponse {
        timeout(PATIENCE, self.responses.message()).await.expect("a response in time").unwrap().expect("a response")
    }

    async fn expect_silence(&mut self) {
        if let Ok(response) = timeout(SILENCE, self.responses.message()).await {
            panic!("unexpected {response:?}");
        }
    }

    /// Responses until `count` events have come.
    async fn events(&mut self, count: usize) -> Vec<WatchResponse> {
        let (mut responses, mut seen) = (Vec::new(), 0);
        while seen < count {
            responses.push(self.next().await);
            seen += responses.last().unwrap().events.len();
        }
        assert_eq!(seen, count, "{responses:?}");
        responses
    }
}

fn key(key: impl Into<Bytes>) -> WatchCreateRequest {
    WatchCreateRequest { key: key.into(), ..Default::default() }
}

fn everything() -> WatchCreateRequest {
    WatchCreateRequest { key: Bytes::from_static(b"\0"), range_end: Bytes::from_static(b"\0"), ..Default::default() }
}

fn revision(response: &WatchResponse) -> i64 {
    response.header.unwrap().revision
}

fn kv(event: &Event) -> &KeyValue {
    event.kv.as_ref().unwrap()
}

fn mod_revisions(responses: &[WatchResponse]) -> Vec<i64> {
    responses.iter().flat_map(|response| &response.events).map(|event| kv(event).mod_revision).collect()
}

async fn write(client: &mut Client, request: PutRequest) -> i64 {
    client.kv.put(request).await.unwrap().into_inner().header.unwrap().revision
}

async fn delete(client: &mut Client, key: &'static str) -> i64 {
    let request = DeleteRangeRequest { key: key.into(), ..Default::default() };
    client.kv.delete_range(request).await.unwrap().into_inner().header.unwrap().revision
}

#[tokio::test]
async fn ids_count_up_and_may_be_chosen_once() {
    let (_daemon, mut client) = member(&[]).await;
    let mut watch = Watch::open(&mut client).await;
    let created = watch.create(key("k")).await;
    assert!(created.created && !created.canceled && created.events.is_empty());
    assert_eq!((created.watch_id, revision(&created)), (0, 1));
    assert_eq!(watch.create(key("k")).await.watch_id, 1);
    let chosen = WatchCreateRequest { watch_id: 2, ..key("k") };
    assert_eq!(watch.create(chosen.clone()).await.watch_id, 2);
    assert_eq!(watch.create(key("k")).await.watch_id, 3);
    let again = watch.create(chosen.clone()).await;
    assert_eq!((again.created, again.canceled, again.watch_id), (true, true, -1));
    assert_eq!(again.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    watch.cancel(2).await;
    let canceled = watch.next().await;
    assert_eq!((canceled.canceled, canceled.watch_id, &canceled.cancel_reason[..]), (true, 2, ""));
    assert_eq!(watch.create(chosen).await.watch_id, 2, "the id is free again");
    assert_eq!(watch.create(WatchCreateRequest { watch_id: -9, ..key("k") }).await.watch_id, -9);
}

#[tokio::test]
async fn refusals_leave_the_stream_alone() {
    let (_daemon, mut client) = member(&[]).await;
    let mut watch = Watch::open(&mut client).await;
    let refused = watch.create(WatchCreateRequest { start_revision: -1, ..key("k") }).await;
    assert_eq!((refused.created, refused.canceled, refused.watch_id), (true, true, -1));
    assert_eq!(refused.cancel_reason, COMPACTED);
    for end in ["k", "j"] {
        let refused = watch.create(WatchCreateRequest { range_end: end.into(), ..key("k") }).await;
        assert_eq!((refused.created, refused.canceled, refused.watch_id), (true, true, -1));
        assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");
    }
    watch.cancel(77).await;
    watch.requests.send(WatchRequest::default()).await.unwrap();
    assert_eq!(watch.create(key("k")).await.watch_id, 0);
    write(&mut client, put("k", "v")).await;
    assert_eq!(watch.events(1).await.len(), 1);
}

#[tokio::test]
async fn events_show_what_happened() {
    let (_daemon, mut client) = member(&[]).await;
    let mut watch = Watch::open(&mut client).await;
    write(&mut client, put("k", "before")).await;
    watch.create(WatchCreateRequest { watch_id: 1, ..key("k") }).await;
    watch.create(WatchCreateRequest { watch_id: 2, prev_kv: true, ..key("k") }).await;
    watch.create(WatchCreateRequest { watch_id: 3, filters: vec![0], ..key("k") }).await;
    watch.create(WatchCreateRequest { watch_id: 4, filters: vec![1], ..everything() }).await;
    watch.create(WatchCreateRequest { watch_id: 5, filters: vec![0, 1], ..everything() }).await;
    let put_at = write(&mut client, put("k", "now")).await;
    let deleted_at = delete(&mut client, "k").await;
    let born_at = write(&mut client, put("k", "again")).await;
    write(&mut client, put("other", "x")).await;

    let responses = watch.events(3 + 3 + 1 + 3).await;
    let of = |id| responses.iter().filter(move |response| response.watch_id == id).collect::<Vec<_>>();
    let events = |id| of(id).into_iter().flat_map(|response| response.events.clone()).collect::<Vec<_>>();
    assert!(of(1).iter().all(|response| revision(response) == kv(&response.events[0]).mod_revision));
    let plain = events(1);
    assert_eq!(kv(&plain[0]).value, "now");
    assert_eq!((kv(&plain[0]).version, kv(&plain[0]).create_revision, kv(&plain[0]).mod_revision), (2, 2, put_at));
    let gone = KeyValue { key: "k".into(), mod_revision: deleted_at, ..Default::default() };
    assert_eq!((plain[1].r#type, kv(&plain[1])), (1, &gone));
    assert!(plain.iter().all(|event| event.prev_kv.is_none()));
    let previous: Vec<Option<Bytes>> =
        events(2).into_iter().map(|event| event.prev_kv.map(|previous| previous.value)).collect();
    assert_eq!(previous, [Some("before".into()), Some("now".into()), None]);
    assert_eq!(events(3).iter().map(|event| kv(event).mod_revision).collect::<Vec<_>>(), [deleted_at]);
    let puts: Vec<i64> = events(4).iter().map(|event| kv(event).mod_revision).collect();
    assert_eq!(puts, [put_at, born_at, born_at + 1]);
    watch.expect_silence().await;
}

#[tokio::test]
async fn history_comes_first_and_completely() {
    let (_daemon, mut client) = member(&[]).await;
    for number in 0..20 {
        write(&mut client, put("k", number.to_string())).await;
    }
    let mut watch = Watch::open(&mut client).await;
    watch.create(WatchCreateRequest { start_revision: 5, ..key("k") }).await;
    assert_eq!(mod_revisions(&watch.events(17).await), (5..=21).collect::<Vec<_>>());
    write(&mut client, put("k", "live")).await;
    assert_eq!(mod_revisions(&watch.events(1).await), [22]);

    watch.create(WatchCreateRequest { start_revision: 25, watch_id: 9, ..key("k") }).await;
    watch.cancel(0).await;
    assert!(watch.next().await.canceled);
    for _ in 0..4 {
        write(&mut client, put("k", "v")).await;
    }
    assert_eq!(mod_revisions(&watch.events(2).await), [25, 26], "nothing before the start");
    watch.expect_silence().await;
}

#[tokio::test]
async fn long_history_comes_in_several_responses() {
    let (_daemon, mut client) = member(&[]).await;
    for number in 0..1_100 {
        write(&mut client, put("k", number.to_string())).await;
    }
    let mut watch = Watch::open(&mut client).await;
    watch.create(WatchCreateRequest { start_revision: 2, ..key("k") }).await;
    let responses = watch.events(1_100).await;
    assert!(responses.len() >= 2);
    assert!(responses.iter().all(|response| revision(response) == 1_101));
    assert_eq!(mod_revisions(&responses), (2..=1_101).collect::<Vec<_>>());
}

#[tokio::test]
async fn compacted_history_cancels() {
    let (_daemon, mut client) = member(&[]).await;
    for value in ["1", "2", "3", "4"] {
        write(&mut client, put("k", value)).await;
    }
    client.kv.compact(CompactionRequest { revision: 4, physical: true }).await.unwrap();
    let mut watch = Watch::open(&mut client).await;
    let created = watch.create(WatchCreateRequest { start_revision: 3, ..key("k") }).await;
    assert!(created.created && !created.canceled);
    let canceled = watch.next().await;
    assert_eq!((canceled.canceled, canceled.watch_id, canceled.compact_revision), (true, 0, 4));
    assert_eq!((revision(&canceled), &canceled.cancel_reason[..]), (0, ""));
    watch.create(WatchCreateRequest { start_revision: 4, prev_kv: true, ..key("k") }).await;
    let events = watch.events(2).await;
    assert_eq!(mod_revisions(&events), [4, 5]);
    let previous: Vec<bool> =
        events.iter().flat_map(|response| &response.events).map(|event| event.prev_kv.is_some()).collect();
    assert_eq!(previous, [false, true], "what was before the compaction is gone");
}

/// A compaction-cancelled watcher has not got everything: a progress answer for the stream would tell its client otherwise.
#[tokio::test]
async fn no_progress_is_told_while_a_watcher_canceled_by_compaction_keeps_its_id() {
    let (_daemon, mut client) = member(&[]).await;
    for value in ["1", "2", "3"] {
        write(&mut client, put("k", value)).await;
    }
    client.kv.compact(CompactionRequest { revision: 4, physical: true }).await.unwrap();
    let mut watch = Watch::open(&mut client).await;
    watch.create(WatchCreateRequest { start_revision: 2, ..key("k") }).await;
    assert_eq!(watch.next().await.compact_revision, 4);
    watch.ask_progress().await;
    watch.expect_silence().await;
    assert_eq!(watch.create(key("k")).await.watch_id, 1);
    watch.ask_progress().await;
    watch.expect_silence().await;
    watch.cancel(0).await;
    assert!(watch.next().await.canceled);
    watch.ask_progress().await;
    let progress = watch.next().await;
    assert_eq!((progress.watch_id, revision(&progress)), (-1, 4));
}

/// Recent revisions are served from memory, a piece at a time. A watcher that needed more than one piece used to get the
/// rest only when something else happened on the member.
#[tokio::test]
async fn an_idle_member_serves_the_past_to_its_end_from_every_distance() {
    const WRITES: i64 = 2_100;
    let (_daemon, mut client) = member(&["--unsafe-no-fsync"]).await;
    for _ in 0..WRITES {
        write(&mut client, put("k", "")).await;
    }
    let mut watch = Watch::open(&mut client).await;
    let last = WRITES + 1;
    for behind in (999..=1_026).chain([1, 500, 1_999, 2_000, 2_001, 2_048, 2_099]) {
        let created = watch.create(WatchCreateRequest { start_revision: last - behind, ..key("k") }).await;
        let responses = watch.events(usize::try_from(behind + 1).unwrap()).await;
        assert_eq!(mod_revisions(&responses), (last - behind..=last).collect::<Vec<_>>(), "{behind} behind");
        watch.cancel(created.watch_id).await;
        assert!(watch.next().await.canceled);
    }
}

/// Events used to leave an instant before readers saw their revision: a client that read at once after an event could
/// miss what the event had told it.
#[tokio::test]
async fn what_a_watcher_was_told_every_later_read_finds() {
    let (daemon, mut client) = member(&["--unsafe-no-fsync"]).await;
    let mut watch = Watch::open(&mut client).await;
    watch.create(key("k")).await;
    let mut writer = Client::connect(&daemon.endpoint()).await.unwrap();
    for round in 0..500 {
        let told_and_read = async {
            let told = revision(&watch.next().await);
            let read = RangeRequest { key: "k".into(), serializable: round % 2 == 0, ..Default::default() };
            (told, client.kv.range(read).await.unwrap().into_inner())
        };
        let (_, (told, read)) = tokio::join!(write(&mut writer, put("k", "")), told_and_read);
        assert_eq!(read.kvs.first().map(|kv| kv.mod_revision), Some(told), "round {round}");
        assert!(read.header.unwrap().revision >= told);
    }
}

#[tokio::test]
async fn intervals_are_those_of_ranges() {
    let (_daemon, mut client) = member(&[]).await;
    let mut watch = Watch::open(&mut client).await;
    let interval = |id, start: &'static [u8], end: &'static [u8]| WatchCreateRequest {
        watch_id: id,
        range_end: Bytes::from_static(end),
        ..key(Bytes::from_static(start))
    };
    for request in [
        interval(1, b"a", b"c"),
        interval(2, b"b", b"\0"),
        interval(3, b"", b"\0"),
        interval(4, b"", b""),
        interval(5, b"\0", b"\0"),
    ] {
        assert!(!watch.create(request).await.canceled);
    }
    for name in [&b"\0"[..], b"a", b"b", b"c"] {
        write(&mut client, put(name, "")).await;
    }
    let responses = watch.events(2 + 2 + 4 + 1 + 4).await;
    let of = |id| {
        let mine = responses.iter().filter(move |response| response.watch_id == id);
        mine.flat_map(|response| &response.events).map(|event| kv(event).key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(1), ["a", "b"]);
    assert_eq!(of(2), ["b", "c"]);
    assert_eq!(of(3), ["\0", "a", "b", "c"]);
    assert_eq!(of(4), ["\0"]);
    assert_eq!(of(5), ["\0", "a", "b", "c"]);
}

#[tokio::test]
async fn a_transaction_is_one_response_in_its_own_order() {
    let (_daemon, mut client) = member(&[]).await;
    write(&mut client, put("c", "")).await;
    let mut watch = Watch::open(&mut client).await;
    watch.create(everything()).await;
    let delete = DeleteRangeRequest { key: "c".into(), ..Default::default() };
    let success = [
        Request::RequestPut(put("z", "1")),
        Request::RequestPut(put("a", "1")),
        Request::RequestDeleteRange(delete),
        Request::RequestPut(put("b", "1")),
    ];
    let success = success.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
    client.kv.txn(TxnRequest { success, ..Default::default() }).await.unwrap();
    let response = watch.next().await;
    let keys: Vec<&Bytes> = response.events.iter().map(|event| &kv(event).key).collect();
    assert_eq!(keys, ["z", "a", "c", "b"]);
    assert!(response.events.iter().all(|event| kv(event).mod_revision == 3));
}

#[tokio::test]
async fn leases_end_with_deletes() {
    let (_daemon, mut client) = member(&[]).await;
    client.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 5 }).await.unwrap();
    client.lease.lease_grant(LeaseGrantRequest { ttl: 1, id: 6 }).await.unwrap();
    let mut watch = Watch::open(&mut client).await;
    watch.create(everything()).await;
    write(&mut client, PutRequest { lease: 5, ..put("b", "") }).await;
    write(&mut client, PutRequest { lease: 5, ..put("a", "") }).await;
    write(&mut client, PutRequest { lease: 6, ..put("short", "") }).await;
    watch.events(3).await;
    client.lease.lease_revoke(LeaseRevokeRequest { id: 5 }).await.unwrap();
    let gone = watch.next().await;
    let keys: Vec<(i32, &Bytes)> = gone.events.iter().map(|event| (event.r#type, &kv(event).key)).collect();
    assert_eq!(keys, [(1, &"a".into()), (1, &"b".into())]);
    let expired = watch.next().await;
    assert_eq!((expired.events[0].r#type, &kv(&expired.events[0]).key[..]), (1, &b"short"[..]));
}

#[tokio::test]
async fn large_responses_are_split_for_those_who_ask() {
    let (_daemon, mut client) = member(&["--max-request-bytes=4000000"]).await;
    let value = vec![b'v'; 1_200_000];
    let big = ["a", "b", "c"].map(|name| Request::RequestPut(put(name, value.clone())));
    for request in big {
        let success = vec![RequestOp { request: Some(request) }];
        client.kv.txn(TxnRequest { success, ..Default::default() }).await.unwrap();
    }
    let mut watch = Watch::open(&mut client).await;
    watch.create(WatchCreateRequest { start_revision: 2, ..everything() }).await;
    let whole = watch.events(3).await;
    assert!(whole.iter().all(|response| !response.fragment));
    watch.create(WatchCreateRequest { start_revision: 2, fragment: true, watch_id: 8, ..everything() }).await;
    let pieces = watch.events(3).await;
    assert_eq!(mod_revisions(&pieces), [2, 3, 4]);
    assert!(!pieces.last().unwrap().fragment, "the last piece says so");
}

#[tokio::test]
async fn one_revision_of_many_events_is_split_into_fragments() {
    let (_daemon, mut client) = member(&["--max-request-bytes=1000000"]).await;
    let mut watch = Watch::open(&mut client).await;
    watch.create(WatchCreateRequest { fragment: true, prev_kv: true, ..everything() }).await;
    watch.create(WatchCreateRequest { prev_kv: true, ..everything() }).await;
    let puts = || {
        let put = |number: u32| Request::RequestPut(put(format!("k{number}"), vec![b'v'; 9_000]));
        let success = (0..100).map(|number| RequestOp { request: Some(put(number)) }).collect();
        TxnRequest { success, ..Default::default() }
    };
    client.kv.txn(puts()).await.unwrap();
    watch.events(200).await;
    client.kv.txn(puts()).await.unwrap();
    let responses = watch.events(200).await;
    let fragments: Vec<&WatchResponse> = responses.iter().filter(|response| response.watch_id == 0).collect();
    assert!(fragments.len() >= 2, "{}", fragments.len());
    assert!(fragments.iter().rev().skip(1).all(|response| response.fragment));
    assert!(!fragments.last().unwrap().fragment);
    assert_eq!(fragments.iter().map(|response| response.events.len()).sum::<usize>(), 100);
    let whole: Vec<&WatchResponse> = responses.iter().filter(|response| response.watch_id == 1).collect();
    assert_eq!((whole.len(), whole[0].events.len(), whole[0].fragment), (1, 100, false));
}

#[tokio::test]
async fn canceled_watchers_get_nothing_and_others_go_on() {
    let (_daemon, mut client) = member(&[]).await;
    let mut watch = Watch::open(&mut client).await;
    watch.create(key("k")).await;
    watch.create(key("k")).await;
    watch.cancel(0).await;
    let canceled = watch.next().await;
    assert_eq!((canceled.canceled, canceled.watch_id), (true, 0));
    write(&mut client, put("k", "v")).await;
    let event = watch.next().await;
    assert_eq!((event.watch_id, event.events.len()), (1, 1));
    watch.expect_silence().await;
}

#[tokio::test]
async fn progress_is_told_on_request_when_all_are_in_sync() {
    let (_daemon, mut client) = member(&[]).await;
    let mut watch = Watch::open(&mut client).await;
    watch.ask_progress().await;
    watch.expect_silence().await;
    watch.create(key("k")).await;
    write(&mut client, put("elsewhere", "v")).await;
    watch.ask_progress().await;
    let progress = watch.next().await;
    assert_eq!((progress.watch_id, progress.events.len(), revision(&progress)), (-1, 0, 2));
    assert!(!progress.created && !progress.canceled);
    for number in 0..50 {
        write(&mut client, put("k", number.to_string())).await;
        watch.ask_progress().await;
    }
    let mut delivered = 2;
    while delivered < 52 {
        let response = watch.next().await;
        match response.events.last() {
            Some(event) => delivered = kv(event).mod_revision,
            None => assert!(revision(&response) <= delivered, "progress overtook an event"),
        }
    }
    watch.create(WatchCreateRequest { start_revision: 1_000, ..key("k") }).await;
    while timeout(SILENCE, watch.responses.message()).await.is_ok() {}
    watch.ask_progress().await;
    watch.expect_silence().await;
}

#[tokio::test]
async fn progress_is_told_by_the_clock_to_quiet_watchers() {
    let flag = "--watch-progress-notify-interval=500ms";
    let (_daemon, mut client) = member(&[flag]).await;
    let mut watch = Watch::open(&mut client).await;
    watch.create(WatchCreateRequest { progress_notify: true, ..key("k") }).await;
    watch.create(key("k")).await;
    write(&mut client, put("elsewhere", "v")).await;
    let mut progress = watch.next().await;
    if revision(&progress) == 1 {
        progress = watch.next().await;
    }
    assert_eq!((progress.watch_id, progress.events.len(), revision(&progress)), (0, 0, 2));
    assert_eq!(watch.next().await.watch_id, 0, "and again, to nobody else");
}

#[tokio::test]
async fn a_client_that_stops_asking_goes_on_listening() {
    let (_daemon, mut client) = member(&[]).await;
    let mut watch = Watch::open(&mut client).await;
    watch.create(key("k")).await;
    let Watch { requests, mut responses } = watch;
    drop(requests);
    for number in 0..3 {
        write(&mut client, put("k", number.to_string())).await;
    }
    let mut seen = 0;
    while seen < 3 {
        seen += timeout(PATIENCE, responses.message()).await.unwrap().unwrap().unwrap().events.len();
    }
}

#[tokio::test]
async fn slow_readers_lose_nothing() {
    let (_daemon, mut client) = member(&[]).await;
    let mut watch = Watch::open(&mut client).await;
    watch.create(key("k")).await;
    let value = vec![b'v'; 100_000];
    for _ in 0..300 {
        write(&mut client, put("k", value.clone())).await;
    }
    assert_eq!(mod_revisions(&watch.events(300).await), (2..=301).collect::<Vec<_>>());
}
