//! Traces of calls: a collector hears of the same spans from us as from etcd, with the same names, fields, ends and parents. And
//! what the log says of calls that take long, whoever traces.

mod support;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, Span, span::SpanKind},
};
use quorate::pb::etcdserverpb::{
    self as pb, compare::TargetUnion, request_op::Request as Op, watch_request::RequestUnion,
};
use support::{
    daemon::Daemon,
    grpc::{Client, get, put},
    http,
    program::Program,
    wait_for,
};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Longest wait for spans: those of a member that stops are sent as it goes.
const PATIENCE: Duration = Duration::from_secs(20);
/// A trace that a client has begun.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENTS_SPAN: &str = "b7ad6b7169203331";

/// Whatever was sent.
#[derive(Clone, Default)]
struct Collector {
    heard: Arc<Mutex<Vec<ResourceSpans>>>,
    /// One span of the first batch.
    rejects: bool,
}

/// Why.
const REJECTED: &str = "one span too many";

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut heard = self.heard.lock().expect("no test panics with it");
        let rejects = self.rejects && heard.is_empty();
        heard.extend(request.into_inner().resource_spans);
        let why = || ExportTracePartialSuccess { rejected_spans: 1, error_message: REJECTED.to_owned() };
        Ok(Response::new(ExportTraceServiceResponse { partial_success: rejects.then(why) }))
    }
}

impl Collector {
    /// Listens, as long as `runtime` lives.
    fn start(runtime: &Runtime) -> (Self, SocketAddr) {
        Self::start_with(runtime, Self::default())
    }

    fn start_with(runtime: &Runtime, collector: Self) -> (Self, SocketAddr) {
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    fn resources(&self) -> Vec<ResourceSpans> {
        self.heard.lock().expect("no test panics with it").clone()
    }

    fn spans(&self) -> Vec<Span> {
        let scopes = self.resources().into_iter().flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// What is said of each span, in order of the words; spans of `names` alone.
    fn told(&self, names: &[&str]) -> Vec<String> {
        let spans = self.spans();
        let by_id: BTreeMap<_, _> = spans.iter().map(|span| (span.span_id.clone(), span.name.clone())).collect();
        let parent = |span: &Span| match by_id.get(&span.parent_span_id) {
            Some(name) => name.clone(),
            None if span.parent_span_id.is_empty() => "nobody".to_owned(),
            None => format!("{} of {}", hex(&span.parent_span_id), hex(&span.trace_id)),
        };
        let told = |span: &Span| {
            let status = span.status.as_ref().map_or(0, |status| status.code);
            let fields = fields(&span.attributes);
            format!("{} kind {} within {} status {status} {fields}", span.name, span.kind, parent(span))
        };
        // What a member asks itself when it is asked for its health belongs to no call.
        let of_calls = |span: &&Span| span.kind() == SpanKind::Server || !span.parent_span_id.is_empty();
        let is_compared = |span: &&Span| names.contains(&span.name.as_str());
        let mut told: Vec<_> = spans.iter().filter(of_calls).filter(is_compared).map(told).collect();
        told.sort();
        told
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// All but the port at which the call arrived, which no two members share.
fn fields(fields: &[KeyValue]) -> String {
    let compared = fields.iter().filter(|field| field.key != "server.port");
    let mut fields: Vec<_> = compared.map(|field| format!("{}={}", field.key, shown(field.value.as_ref()))).collect();
    fields.sort();
    fields.join(" ")
}

fn shown(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => format!("{text:?}"),
        Some(Value::BoolValue(is)) => is.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("a field of another kind: {other:?}"),
    }
}

/// A member that traces every call, to `collector`.
fn start(program: &Program, collector: SocketAddr, samples: u32) -> Daemon {
    let [address, rate] = [
        format!("--distributed-tracing-address={collector}"),
        format!("--distributed-tracing-sampling-rate={samples}"),
    ];
    let named = ["--distributed-tracing-service-name=store", "--distributed-tracing-instance-id=one"];
    Daemon::start(program, &[&["--enable-distributed-tracing", &address, &rate], &named[..]].concat())
}

/// A request of a client that traces, or has decided not to.
fn traced<M>(message: M, flags: &str) -> Request<M> {
    let mut request = Request::new(message);
    let parent = format!("00-{TRACE}-{CLIENTS_SPAN}-{flags}").parse().expect("ASCII");
    request.metadata_mut().insert("traceparent", parent);
    request
}

/// Calls of all kinds for which there are spans.
async fn call(daemon: &Daemon) {
    let mut client = Client::connect(&daemon.endpoint()).await.expect("it listens");
    client.kv.put(traced(put("key/a", "geheim"), "01")).await.expect("a put");
    let range = pb::RangeRequest { range_end: "key/z".into(), limit: 5, keys_only: true, ..get("key/") };
    client.kv.range(traced(range, "01")).await.expect("a range");
    let operation = |request| pb::RequestOp { request: Some(request) };
    let txn = pb::TxnRequest {
        compare: vec![pb::Compare {
            key: "key/a".into(),
            target_union: Some(TargetUnion::Version(1)),
            ..Default::default()
        }],
        success: vec![operation(Op::RequestPut(put("key/b", "geheim")))],
        failure: vec![operation(Op::RequestRange(get("key/b")))],
    };
    client.kv.txn(traced(txn, "01")).await.expect("a transaction");
    let delete = pb::DeleteRangeRequest { key: "key/b".into(), ..Default::default() };
    client.kv.delete_range(traced(delete, "01")).await.expect("a delete");
    let compact = pb::CompactionRequest { revision: 1_000, physical: true };
    client.kv.compact(traced(compact, "01")).await.expect_err("a revision of the future");
    let grant = pb::LeaseGrantRequest { id: 77, ttl: 600 };
    client.lease.lease_grant(traced(grant, "01")).await.expect("a lease");
    client.lease.lease_revoke(traced(pb::LeaseRevokeRequest { id: 77 }, "01")).await.expect("revoked");
    client.kv.put(traced(put("key/unseen", "geheim"), "00")).await.expect("a put that is not sampled");
    watch(&mut client).await;
    http::post(daemon.client, "/v3/kv/put", r#"{"key":"anNvbg==","value":"Z2VoZWlt"}"#).expect("a put in JSON");
}

/// Watches until the watch is created, and hangs up.
async fn watch(client: &mut Client) {
    let create = pb::WatchCreateRequest { key: "key/".into(), range_end: "key0".into(), ..Default::default() };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let mut answers =
        client.watch.watch(traced(tokio_stream::once(request), "01")).await.expect("a watch").into_inner();
    while let Some(answer) = answers.message().await.expect("an answer") {
        if answer.created {
            break;
        }
    }
}

/// What is compared, and how many spans there are of it.
const NAMES: [&str; 15] = [
    "etcdserverpb.KV/Put",
    "etcdserverpb.KV/Range",
    "etcdserverpb.KV/Txn",
    "etcdserverpb.KV/DeleteRange",
    "etcdserverpb.KV/Compact",
    "etcdserverpb.Lease/LeaseGrant",
    "etcdserverpb.Lease/LeaseRevoke",
    "put",
    "range",
    "txn",
    "delete_range",
    "compact",
    "lease_grant",
    "lease_revoke",
    "etcdserverpb.Watch/Watch",
];

#[test]
fn a_collector_hears_the_same_from_us_as_from_etcd() {
    let runtime = Runtime::new().expect("a runtime");
    let [ours, theirs] = [Program::subject(), Program::etcd()].map(|program| {
        let (collector, address) = Collector::start(&runtime);
        let mut daemon = start(&program, address, 1_000_000);
        runtime.block_on(call(&daemon));
        daemon.terminate();
        let arrived = wait_for(PATIENCE, || (!collector.told(&["lease_revoke"]).is_empty()).then_some(()));
        assert!(arrived.is_some(), "{}: no spans: {}", program.name, daemon.log());
        collector
    });
    let (our_spans, their_spans) = (ours.told(&NAMES), theirs.told(&NAMES));
    assert_eq!(our_spans, their_spans);
    assert!(our_spans.len() >= NAMES.len(), "{our_spans:#?}");
    let resource = |collector: &Collector| {
        let resources = collector.resources();
        resources.iter().filter_map(|spans| spans.resource.as_ref()).map(|own| fields(&own.attributes)).next()
    };
    assert_eq!(resource(&ours), resource(&theirs));
    let all = format!("{:?}", ours.resources());
    assert!(!all.contains("geheim") && !all.contains("unseen"), "{all}");
}

#[test]
fn without_a_share_only_clients_decide_and_no_collector_is_no_harm() {
    let runtime = Runtime::new().expect("a runtime");
    let (collector, address) = Collector::start(&runtime);
    let mut daemon = start(&Program::subject(), address, 0);
    runtime.block_on(async {
        let mut client = Client::connect(&daemon.endpoint()).await.expect("it listens");
        client.kv.put(put("nobody/asked", "1")).await.expect("a put");
        client.kv.put(traced(put("asked", "1"), "01")).await.expect("a put");
    });
    daemon.terminate();
    let puts = wait_for(PATIENCE, || Some(collector.told(&["put"])).filter(|puts| !puts.is_empty()));
    let puts = puts.unwrap_or_else(|| panic!("no spans: {}", daemon.log()));
    assert_eq!(puts, ["put kind 1 within etcdserverpb.KV/Put status 0 key=\"asked\""]);

    let nobody = SocketAddr::from(([127, 0, 0, 1], support::daemon::free_ports::<1>()[0].port()));
    let mut daemon = start(&Program::subject(), nobody, 1_000_000);
    runtime.block_on(async {
        let client = Client::connect(&daemon.endpoint()).await.expect("it listens");
        // More than may wait for the collector.
        for round in 0..3 {
            let puts = (0..1_000).map(|number| {
                let mut kv = client.kv.clone();
                async move { kv.put(put(format!("key/{round}/{number}"), "1")).await.expect("a put") }
            });
            futures_util::future::join_all(puts).await;
        }
    });
    let told =
        wait_for(PATIENCE, || daemon.log().contains("spans were lost: the collector does not take them").then_some(()));
    assert!(told.is_some(), "{}", daemon.log());
    let all = metric(&daemon, "failed") + metric(&daemon, "dropped");
    assert!(all > 0 && metric(&daemon, "sent") == 0, "{all} lost");
    daemon.terminate();
    assert!(!daemon.log().contains("panic"), "{}", daemon.log());
}

/// The value of the metric with this result; it is there from the start.
fn metric(daemon: &Daemon, result: &str) -> u64 {
    let text = http::get(daemon.client, "/metrics").expect("metrics").body;
    let row = format!("quorate_spans_total{{result=\"{result}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&row)).expect("a row");
    count.parse().expect("a number")
}

/// A collector that accepts connections and says nothing: spans are dropped when no more may wait, which the log and a metric
/// tell, and a stop waits for it no longer than for one that is not there.
#[test]
fn a_collector_that_says_nothing_is_noticed() {
    let runtime = Runtime::new().expect("a runtime");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = tempfile::tempdir().expect("a directory");
    let pipe = place.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("a reader");
    let flags = [
        "--enable-distributed-tracing".to_owned(),
        format!("--distributed-tracing-address={}", silent.local_addr().expect("an address")),
        "--distributed-tracing-sampling-rate=1000000".to_owned(),
        // Nobody reads that either.
        format!("--audit-log={}", pipe.display()),
    ];
    let mut daemon = Daemon::start(&Program::subject(), &flags.each_ref().map(String::as_str));
    runtime.block_on(async {
        let client = Client::connect(&daemon.endpoint()).await.expect("it listens");
        for round in 0..4 {
            let puts = (0..1_000).map(|number| {
                let mut kv = client.kv.clone();
                async move { kv.put(put(format!("key/{round}/{number}"), "1")).await.expect("a put") }
            });
            futures_util::future::join_all(puts).await;
        }
    });
    assert!(metric(&daemon, "dropped") > 0, "{}", daemon.log());
    assert!(daemon.log().contains("spans were dropped"), "{}", daemon.log());
    let (_, took) = daemon.terminate();
    assert!(took < Duration::from_millis(1_300), "{took:?}: {}", daemon.log());
    let count = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["spans"].as_u64();
    let at_the_stop = |line: &&str| line.contains("not every span has reached the collector");
    assert_eq!(daemon.log().lines().filter(at_the_stop).count(), 1, "{}", daemon.log());
    // Each call is two spans.
    let told: u64 = daemon.log().lines().filter_map(count).sum();
    assert!(told >= 8_000, "{told} spans are told of: {}", daemon.log());
    assert!(daemon.log().contains("the audit log could not be written to its end"), "{}", daemon.log());
    drop(reader);
}

/// What a collector takes and rejects all the same is lost, and the log has its reason.
#[test]
fn what_a_collector_rejects_is_lost() {
    let runtime = Runtime::new().expect("a runtime");
    let (_, address) = Collector::start_with(&runtime, Collector { rejects: true, ..Collector::default() });
    let daemon = start(&Program::subject(), address, 1_000_000);
    runtime.block_on(async {
        let mut client = Client::connect(&daemon.endpoint()).await.expect("it listens");
        client.kv.put(put("key/a", "geheim")).await.expect("a put");
    });
    let told = wait_for(PATIENCE, || daemon.log().contains("the collector does not take them").then_some(()));
    assert!(told.is_some() && daemon.log().contains(REJECTED), "{}", daemon.log());
    assert_eq!(metric(&daemon, "failed"), 1);
    assert!(metric(&daemon, "sent") > 0);
}

/// A call that takes longer than it should is told of in the log, in etcd's words and without its values; one in time is not.
#[test]
fn slow_calls_are_told_of() {
    let runtime = Runtime::new().expect("a runtime");
    let call = |daemon: &Daemon| {
        runtime.block_on(async {
            let mut client = Client::connect(&daemon.endpoint()).await.expect("it listens");
            client.kv.put(put("key/a", "geheim")).await.expect("a put");
            let range = pb::RangeRequest { range_end: "key/z".into(), ..get("key/") };
            assert_eq!(client.kv.range(range).await.expect("a range").into_inner().count, 1);
        });
    };
    let daemon = Daemon::start(&Program::subject(), &["--warning-unary-request-duration=1ns"]);
    call(&daemon);
    let told = |method: &str| {
        let line = |line: &&str| line.contains("request stats") && line.contains(method);
        let found = wait_for(PATIENCE, || daemon.log().lines().find(|one| line(one)).map(str::to_owned));
        let found = found.unwrap_or_else(|| panic!("nothing of {method}: {}", daemon.log()));
        serde_json::from_str::<serde_json::Value>(&found).unwrap_or_else(|error| panic!("{error}: {found}"))
    };
    let put = told("/etcdserverpb.KV/Put");
    assert_eq!((put["level"].as_str(), put["msg"].as_str()), (Some("warn"), Some("request stats")));
    assert_eq!((put["request count"].as_i64(), put["response count"].as_i64()), (Some(1), Some(0)));
    assert_eq!(
        (put["request size"].as_i64(), put["request content"].as_str()),
        (Some(15), Some("key:\"key/a\" value_size:6 "))
    );
    assert!(put["remote"].as_str().is_some_and(|remote| remote.starts_with("127.0.0.1:")), "{put}");
    assert!(put["time spent"].as_str().is_some_and(|time| time.ends_with('s')), "{put}");
    let begun = put["start time"].as_str().expect("a time");
    assert!(humantime::parse_rfc3339(begun).is_ok(), "{begun}");
    let range = told("/etcdserverpb.KV/Range");
    assert_eq!((range["request count"].as_i64(), range["response count"].as_i64()), (Some(0), Some(1)));
    assert_eq!(range["request content"].as_str(), Some("key:\"key/\" range_end:\"key/z\""));
    assert!(!daemon.log().contains("geheim"), "{}", daemon.log());

    let daemon = Daemon::start(&Program::subject(), &["--warning-unary-request-duration=1h"]);
    call(&daemon);
    assert!(!daemon.log().contains("request stats"), "{}", daemon.log());
}

/// What a member shows of the requests of slow calls, in the order in which they came. How many spaces stand between two fields
/// etcd decides by how it was built.
fn contents(program: &Program, runtime: &Runtime) -> Vec<String> {
    let daemon = Daemon::start(program, &["--warning-unary-request-duration=1ns"]);
    runtime.block_on(slow_calls(&daemon));
    let content = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).ok()?;
        let field = |name: &str| record.get(name)?.as_str();
        let is_of_keys = field("msg") == Some("request stats") && field("response type")?.contains(".KV/");
        let content = field("request content").filter(|_| is_of_keys)?;
        Some(content.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let contents = || daemon.log().lines().filter_map(content).collect::<Vec<_>>();
    let found = wait_for(PATIENCE, || Some(contents()).filter(|contents| contents.len() >= SLOW_CALLS));
    found.unwrap_or_else(|| panic!("{}: {}", program.name, daemon.log()))
}

/// How many of them are about keys.
const SLOW_CALLS: usize = 8;

/// Requests with everything that can be said in them.
async fn slow_calls(daemon: &Daemon) {
    let mut client = Client::connect(&daemon.endpoint()).await.expect("it listens");
    client.lease.lease_grant(pb::LeaseGrantRequest { id: 77, ttl: 600 }).await.expect("a lease");
    let odd = "größe/\"\\\n\u{85}".as_bytes().iter().copied().chain([0xff, 0x07]).collect::<Vec<u8>>();
    let leased = pb::PutRequest { lease: 77, prev_kv: true, ..put(odd.clone(), "geheim") };
    client.kv.put(leased).await.expect("a put");
    let as_it_is = pb::PutRequest { ignore_value: true, ignore_lease: true, ..put(odd.clone(), "") };
    client.kv.put(as_it_is).await.expect("a put that changes nothing");
    let range = pb::RangeRequest {
        range_end: "z".into(),
        limit: 5,
        revision: 2,
        sort_order: 2,
        sort_target: 3,
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 1,
        max_mod_revision: 9,
        min_create_revision: 2,
        max_create_revision: 8,
        ..get(odd.clone())
    };
    client.kv.range(range.clone()).await.expect("a range");
    client.kv.range(pb::RangeRequest { revision: 99, ..get("a") }).await.expect_err("a revision of the future");
    let compare = |result, target, union| pb::Compare {
        result,
        target,
        key: odd.clone().into(),
        target_union: Some(union),
        range_end: "z".into(),
    };
    let operation = |request| pb::RequestOp { request: Some(request) };
    let delete = pb::DeleteRangeRequest { key: "b".into(), range_end: "c".into(), prev_kv: true };
    let inner =
        pb::TxnRequest { success: vec![operation(Op::RequestPut(put("inner", "geheim")))], ..Default::default() };
    let txn = pb::TxnRequest {
        compare: vec![
            compare(0, 0, TargetUnion::Version(0)),
            compare(1, 1, TargetUnion::CreateRevision(3)),
            compare(2, 2, TargetUnion::ModRevision(4)),
            compare(3, 3, TargetUnion::Value("geheim".into())),
            compare(0, 3, TargetUnion::Value("".into())),
            compare(0, 4, TargetUnion::Lease(77)),
        ],
        success: vec![operation(Op::RequestPut(put("other", "geheim"))), operation(Op::RequestTxn(inner))],
        failure: vec![operation(Op::RequestRange(range)), operation(Op::RequestDeleteRange(delete.clone()))],
    };
    client.kv.txn(txn).await.expect("a transaction");
    client.kv.txn(pb::TxnRequest::default()).await.expect("an empty one");
    client.kv.delete_range(delete).await.expect("a delete");
    client.kv.compact(pb::CompactionRequest { revision: 2, physical: true }).await.expect("compacted");
}

#[test]
fn slow_calls_are_shown_as_by_etcd() {
    let runtime = Runtime::new().expect("a runtime");
    let [ours, theirs] = [Program::subject(), Program::etcd()].map(|program| contents(&program, &runtime));
    assert_eq!(ours, theirs);
    assert!(ours.iter().all(|content| !content.contains("geheim")), "{ours:#?}");
}
