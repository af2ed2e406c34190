//! The loads, in the order they run against one daemon.

use crate::load::{self, Latencies};
use crate::process::{self, Usage};
use crate::report::{Figure, Measured};
use crate::support::daemon::{Daemon, READY_LIMIT};
use crate::support::grpc::{self, Client};
use crate::support::program::{self, Program};
use crate::support::{now, random::Random};
use crate::wire::{self, Wire};
use bytes::Bytes;
use prost::Message;
use quorate::pb::etcdserverpb::{
    self as pb, Compare, RequestOp, compare::TargetUnion, request_op::Request, watch_request::RequestUnion,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Bytes of every value.
pub(crate) const VALUE_BYTES: usize = 256;
/// Keys that puts and gets choose from.
pub(crate) const KEYS: u64 = 100_000;
/// Keys of the large database.
const KEYS_LARGE: u64 = 1_000_000;
/// Keys put by one transaction while loading, below the limit of operations.
const KEYS_A_TXN: u64 = 100;
/// Clients of every load that does not say otherwise.
const CLIENTS: usize = 64;
/// Keys of one list.
const LIST_KEYS: u64 = 500;
/// Watchers of the fan-out, and the streams that carry them.
const WATCHERS: u64 = 1_000;
const WATCH_STREAMS: u64 = 50;
/// One answer in so many is decoded and looked at. Every one has to say that its call succeeded.
pub(crate) const SAMPLE: u64 = 16;
/// How long an idle daemon is left alone before it is looked at.
const IDLE: Duration = Duration::from_secs(3);

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Idle,
    Put1,
    Put64,
    Put1000,
    Get1,
    Get,
    SerializableGet,
    Txn,
    List,
    Grant,
    KeepAlive,
    Watch,
    Load,
    Count,
    Restart,
}

impl Case {
    pub(crate) const ALL: [Self; 15] = [
        Self::Idle,
        Self::Put1,
        Self::Put64,
        Self::Put1000,
        Self::Get1,
        Self::Get,
        Self::SerializableGet,
        Self::Txn,
        Self::List,
        Self::Grant,
        Self::KeepAlive,
        Self::Watch,
        Self::Load,
        Self::Count,
        Self::Restart,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Put1 => "put1",
            Self::Put64 => "put64",
            Self::Put1000 => "put1000",
            Self::Get1 => "get1",
            Self::Get => "get",
            Self::SerializableGet => "sget",
            Self::Txn => "txn",
            Self::List => "list",
            Self::Grant => "grant",
            Self::KeepAlive => "keepalive",
            Self::Watch => "watch",
            Self::Load => "load1m",
            Self::Count => "count1m",
            Self::Restart => "restart1m",
        }
    }

    /// Whether it runs against the database of a million keys.
    fn is_large(self) -> bool {
        matches!(self, Self::Load | Self::Count | Self::Restart)
    }
}

/// Makes everything smaller, for a look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub divisor: u64,
}

impl Scale {
    pub(crate) fn of(self, number: u64) -> u64 {
        (number / self.divisor.max(1)).max(1)
    }
}

/// Runs `chosen` against fresh daemons of `program`, one for the small database and one for the large.
pub(crate) fn run(program: &Program, chosen: &[Case], scale: Scale, mut report: impl FnMut(&'static str, Measured)) {
    let (large, small): (Vec<Case>, Vec<Case>) = chosen.iter().partition(|case| case.is_large());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if !small.is_empty() {
        let mut bench = Bench::start(program, scale);
        for case in small {
            eprintln!("  {}", case.name());
            let measured = runtime.block_on(bench.small(case));
            report(case.name(), measured);
        }
    }
    if !large.is_empty() {
        let mut bench = Bench::start(program, scale);
        eprintln!("  {} keys", scale.of(KEYS_LARGE));
        let loaded = runtime.block_on(bench.load_large());
        report(Case::Load.name(), loaded);
        if large.contains(&Case::Count) {
            report(Case::Count.name(), runtime.block_on(bench.count()));
        }
        if large.contains(&Case::Restart) {
            report(Case::Restart.name(), bench.restart());
        }
    }
}

/// One daemon under load.
struct Bench {
    daemon: Daemon,
    scale: Scale,
    value: Bytes,
    filled: bool,
}

impl Bench {
    fn start(program: &Program, scale: Scale) -> Self {
        // Beside the build, on a real disk: the system's temporary directory may be memory.
        let daemon = Daemon::start_in(&program::target_dir().join("tmp"), program, &crate::FLAGS);
        let value = Random::new(1).bytes(VALUE_BYTES).into();
        Self { daemon, scale, value, filled: false }
    }

    fn pid(&self) -> String {
        self.daemon.pid().to_string()
    }

    async fn small(&mut self, case: Case) -> Measured {
        match case {
            Case::Idle => {
                tokio::time::sleep(IDLE).await;
                vec![(Figure::ResidentMegabytes, self.resident_megabytes())]
            }
            Case::Put1 => self.put(1, 4_000).await,
            Case::Put64 => self.put(64, 40_000).await,
            Case::Put1000 => self.put(1_000, 60_000).await,
            Case::Get1 => self.get(1, 10_000, false).await,
            Case::Get => self.get(CLIENTS, 60_000, false).await,
            Case::SerializableGet => self.get(CLIENTS, 60_000, true).await,
            Case::Txn => self.txn().await,
            Case::List => self.list().await,
            Case::Grant => self.grant().await,
            Case::KeepAlive => self.keep_alive().await,
            Case::Watch => self.watch().await,
            Case::Load | Case::Count | Case::Restart => Vec::new(),
        }
    }

    /// Warms up with a tenth, then measures a closed loop of `requests` requests.
    async fn closed<C, S, F>(&self, connections: &[C], clients: usize, requests: u64, send: S) -> Measured
    where
        C: Clone + Send + 'static,
        S: Fn(C, u64) -> F + Clone + Send + 'static,
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let requests = self.scale.of(requests);
        load::drive(connections, clients, (requests / 10).max(1), send.clone()).await;
        let before = self.usage();
        let latencies = load::drive(connections, clients, requests, send).await;
        self.measured(&latencies, requests, before)
    }

    /// Measures calls of the method at `path`: `request` makes the request of a number, `check` looks at a sample of
    /// the answers.
    async fn calls<Q, A>(
        &self,
        (clients, requests): (usize, u64),
        path: &'static str,
        request: impl Fn(u64) -> Q + Clone + Send + 'static,
        check: impl Fn(A) -> Result<(), Status> + Clone + Send + 'static,
    ) -> Measured
    where
        Q: Message,
        A: Message + Default,
    {
        let connections = load::connect(&self.daemon.endpoint(), clients).await;
        let send = move |mut client: Wire, number| {
            let (frame, check) = (wire::framed(&request(number)), check.clone());
            async move {
                let answer = client.call(path, frame).await?;
                if number % SAMPLE == 0 { check(wire::unframed(answer)?) } else { Ok(()) }
            }
        };
        self.closed(&connections, clients, requests, send).await
    }

    fn usage(&self) -> [Usage; 2] {
        [Usage::of(&self.pid()), Usage::of("self")]
    }

    /// Figures of a load of `operations` operations, whose counters began at `before`.
    fn measured(&self, latencies: &Latencies, operations: u64, before: [Usage; 2]) -> Measured {
        figures(latencies, operations, before, self.usage(), process::resident_bytes(&self.pid()))
    }

    #[expect(clippy::cast_precision_loss, reason = "figures are printed with three digits")]
    fn resident_megabytes(&self) -> f64 {
        process::resident_bytes(&self.pid()) as f64 / 1e6
    }

    async fn put(&mut self, clients: usize, requests: u64) -> Measured {
        let (value, keys) = (self.value.clone(), self.scale.of(KEYS));
        let request = move |number| grpc::put(key(scattered(number, keys)), value.clone());
        self.calls((clients, requests), wire::PUT, request, |answer: pb::PutResponse| {
            found(usize::from(answer.header.is_some_and(|header| header.revision > 1)), 1)
        })
        .await
    }

    async fn get(&mut self, clients: usize, requests: u64, serializable: bool) -> Measured {
        self.fill().await;
        let keys = self.scale.of(KEYS);
        let request = move |number| pb::RangeRequest { serializable, ..grpc::get(key(scattered(number, keys))) };
        self.calls((clients, requests), wire::RANGE, request, |answer: pb::RangeResponse| found(answer.kvs.len(), 1))
            .await
    }

    /// Compares the version of a key, puts it, reads it back.
    async fn txn(&mut self) -> Measured {
        self.fill().await;
        let (value, keys) = (self.value.clone(), self.scale.of(KEYS));
        let request = move |number| {
            let key = key(scattered(number, keys));
            let target_union = Some(TargetUnion::Version(0));
            let compare = vec![Compare { result: 1, target: 0, key: key.clone(), target_union, ..Default::default() }];
            let success =
                [Request::RequestPut(grpc::put(key.clone(), value.clone())), Request::RequestRange(grpc::get(key))];
            let success = success.map(|request| RequestOp { request: Some(request) }).into();
            pb::TxnRequest { compare, success, ..Default::default() }
        };
        self.calls((CLIENTS, 30_000), wire::TXN, request, |answer: pb::TxnResponse| found(answer.responses.len(), 2))
            .await
    }

    async fn list(&mut self) -> Measured {
        self.fill().await;
        let span = self.scale.of(KEYS).saturating_sub(LIST_KEYS);
        let request = move |number| pb::RangeRequest {
            key: key(scattered(number, span)),
            range_end: Bytes::from_static(b"l"),
            limit: LIST_KEYS.cast_signed(),
            ..Default::default()
        };
        self.calls((8, 3_000), wire::RANGE, request, |answer: pb::RangeResponse| found(answer.kvs.len(), 500)).await
    }

    async fn grant(&mut self) -> Measured {
        let request = |_| pb::LeaseGrantRequest { ttl: 3_600, id: 0 };
        self.calls((CLIENTS, 20_000), wire::GRANT, request, |answer: pb::LeaseGrantResponse| {
            found(usize::from(answer.id != 0), 1)
        })
        .await
    }

    /// Every client keeps a lease of its own alive over a stream of its own.
    async fn keep_alive(&mut self) -> Measured {
        let connections = load::connect_streams(&self.daemon.endpoint(), CLIENTS).await;
        let mut streams = Vec::new();
        for connection in &connections {
            streams.push(Arc::new(Mutex::new(Renewals::open(connection.clone()).await.expect("a keepalive stream"))));
        }
        self.closed(&connections, CLIENTS, 100_000, move |_, number| {
            let count = u64::try_from(streams.len()).unwrap_or(1);
            let stream = usize::try_from(number % count).ok().and_then(|at| streams.get(at)).cloned();
            async move { stream.ok_or_else(ended)?.lock().await.renew().await }
        })
        .await
    }

    /// One writer, a thousand watchers of the same key; an operation is one event delivered to one watcher, and its
    /// latency counts from before the put.
    async fn watch(&mut self) -> Measured {
        let streams = self.scale.of(WATCH_STREAMS);
        let connections = load::connect_streams(&self.daemon.endpoint(), usize::try_from(streams).unwrap_or(1)).await;
        let mut fans = Vec::new();
        for connection in &connections {
            let watchers = WATCHERS / WATCH_STREAMS;
            fans.push(Fan::open(connection.clone(), watchers).await.expect("a watch stream"));
        }
        let mut writer = connections.first().expect("at least one connection").clone();
        let mut latencies = Vec::new();
        let before = self.usage();
        let started = now();
        let puts = 200;
        for _ in 0..puts {
            let sent = now();
            let put = writer.kv.put(grpc::put(&b"watched"[..], self.value.clone()));
            let mut tasks = JoinSet::new();
            for mut fan in fans.drain(..) {
                tasks.spawn(async move {
                    fan.next_round().await.expect("the watch goes on");
                    (fan, sent.elapsed())
                });
            }
            put.await.expect("a put");
            while let Some(done) = tasks.join_next().await {
                let (fan, latency) = done.expect("a watcher does not panic");
                latencies.push(latency);
                fans.push(fan);
            }
        }
        let delivered = puts * streams * (WATCHERS / WATCH_STREAMS);
        self.measured(&Latencies::of(started.elapsed(), latencies), delivered, before)
    }

    /// Puts the keys that gets and lists look for.
    async fn fill(&mut self) {
        if !self.filled {
            self.put_all(self.scale.of(KEYS)).await;
            self.filled = true;
        }
    }

    async fn put_all(&self, keys: u64) -> Latencies {
        let connections = load::connect(&self.daemon.endpoint(), 16).await;
        let value = self.value.clone();
        load::drive(&connections, 16, keys.div_ceil(KEYS_A_TXN), move |mut client: Wire, number| {
            let first = number * KEYS_A_TXN;
            let puts = (first..keys.min(first + KEYS_A_TXN)).map(|number| grpc::put(key(number), value.clone()));
            let success = puts.map(|put| RequestOp { request: Some(Request::RequestPut(put)) }).collect();
            let frame = wire::framed(&pb::TxnRequest { success, ..Default::default() });
            async move { client.call(wire::TXN, frame).await.map(drop) }
        })
        .await
    }

    async fn load_large(&mut self) -> Measured {
        let (keys, before) = (self.scale.of(KEYS_LARGE), self.usage());
        let latencies = self.put_all(keys).await;
        tokio::time::sleep(IDLE).await;
        self.measured(&latencies, keys, before)
    }

    async fn count(&mut self) -> Measured {
        let keys = usize::try_from(self.scale.of(KEYS_LARGE)).unwrap_or(usize::MAX);
        let request = |_| pb::RangeRequest {
            key: Bytes::from_static(b"k"),
            range_end: Bytes::from_static(b"l"),
            count_only: true,
            ..Default::default()
        };
        self.calls((8, 100), wire::RANGE, request, move |answer: pb::RangeResponse| {
            found(usize::try_from(answer.count).unwrap_or(0), keys)
        })
        .await
    }

    /// Stops the daemon, starts it on the same directory and waits until it serves.
    fn restart(&mut self) -> Measured {
        self.daemon.terminate();
        let started = now();
        self.daemon.spawn();
        assert!(self.daemon.wait_ready(READY_LIMIT), "not ready in {READY_LIMIT:?} after a restart");
        let ready = started.elapsed();
        std::thread::sleep(IDLE);
        vec![(Figure::ReadyMillis, micros(ready) / 1_000.0), (Figure::ResidentMegabytes, self.resident_megabytes())]
    }
}

/// One lease and the stream that keeps it alive.
struct Renewals {
    lease: i64,
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    responses: Streaming<pb::LeaseKeepAliveResponse>,
}

impl Renewals {
    async fn open(mut client: Client) -> Result<Self, Status> {
        let lease = client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 3_600, id: 0 }).await?.into_inner().id;
        let (requests, stream) = mpsc::channel(1);
        requests.send(pb::LeaseKeepAliveRequest { id: lease }).await.map_err(|_| ended())?;
        let mut responses = client.lease.lease_keep_alive(ReceiverStream::new(stream)).await?.into_inner();
        responses.message().await?.ok_or_else(ended)?;
        Ok(Self { lease, requests, responses })
    }

    async fn renew(&mut self) -> Result<(), Status> {
        self.requests.send(pb::LeaseKeepAliveRequest { id: self.lease }).await.map_err(|_| ended())?;
        self.responses.message().await?.ok_or_else(ended).map(drop)
    }
}

/// One stream with several watchers of the same key.
struct Fan {
    watchers: u64,
    /// Dropping the sender would half-close the stream.
    _requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Fan {
    async fn open(mut client: Client, watchers: u64) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(usize::try_from(watchers).unwrap_or(1));
        for _ in 0..watchers {
            let create = pb::WatchCreateRequest { key: Bytes::from_static(b"watched"), ..Default::default() };
            let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            requests.send(request).await.map_err(|_| ended())?;
        }
        let mut responses = client.watch.watch(ReceiverStream::new(stream)).await?.into_inner();
        for _ in 0..watchers {
            let created = responses.message().await?.ok_or_else(ended)?.created;
            found(usize::from(created), 1)?;
        }
        Ok(Self { watchers, _requests: requests, responses })
    }

    /// Waits until every watcher got one more event.
    async fn next_round(&mut self) -> Result<(), Status> {
        let mut events = 0;
        while events < self.watchers {
            let response = self.responses.message().await?.ok_or_else(ended)?;
            events += u64::try_from(response.events.len()).unwrap_or(0);
        }
        Ok(())
    }
}

/// Figures of a load of `operations` operations: what the server and the loader had used before and after it, and the
/// memory that the server holds then.
#[expect(clippy::cast_precision_loss, reason = "figures are printed with three digits")]
pub(crate) fn figures(
    latencies: &Latencies,
    operations: u64,
    before: [Usage; 2],
    after: [Usage; 2],
    resident_bytes: u64,
) -> Measured {
    let ([server_before, loader_before], [server, loader]) = (before, after);
    let (server, loader) = (server.since(server_before), loader.since(loader_before));
    let operations = operations as f64;
    vec![
        (Figure::PerSecond, operations / latencies.elapsed.as_secs_f64()),
        (Figure::MedianMicros, micros(latencies.percentile(50))),
        (Figure::P99Micros, micros(latencies.percentile(99))),
        (Figure::CpuMicros, micros(server.cpu) / operations),
        (Figure::WrittenBytes, server.written_bytes as f64 / operations),
        (Figure::ResidentMegabytes, resident_bytes as f64 / 1e6),
        (Figure::LoaderCpuMicros, micros(loader.cpu) / operations),
    ]
}

pub(crate) fn key(number: u64) -> Bytes {
    Bytes::from(format!("key/{number:010}"))
}

/// The `number`-th of a sequence that visits 0..`end` in no order a cache could follow.
pub(crate) fn scattered(number: u64, end: u64) -> u64 {
    Random::new(number).below(end)
}

/// An answer that holds less than it should would make a fast daemon of a wrong one.
pub(crate) fn found(got: usize, expected: usize) -> Result<(), Status> {
    if got == expected { Ok(()) } else { Err(Status::internal(format!("{got} found, {expected} expected"))) }
}

fn ended() -> Status {
    Status::internal("the stream ended")
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
