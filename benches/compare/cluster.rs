//! Three members on loopback: what a write and a read cost all of them together, and how long nobody can write when the
//! leader dies.

use crate::cases::{KEYS, SAMPLE, Scale, VALUE_BYTES, figures, found, key, micros, scattered};
use crate::load;
use crate::process::{self, Usage};
use crate::report::{Figure, Measured};
use crate::support::daemon::{Daemon, READY_LIMIT};
use crate::support::grpc::{self, Client};
use crate::support::program::{self, Program};
use crate::support::traffic::Probe;
use crate::support::{now, random::Random, wait_for};
use crate::wire::{self, Wire};
use bytes::Bytes;
use prost::Message;
use quorate::pb::etcdserverpb::{self as pb, StatusResponse};
use std::time::Duration;

const MEMBERS: usize = 3;
/// Clients of the read.
const CLIENTS: usize = 64;
/// How often the leader is killed.
const KILLS: u64 = 20;
/// Longest wait until all members follow one leader.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterCase {
    Put1,
    Put64,
    Put1000,
    Get,
    Kill,
}

impl ClusterCase {
    pub(crate) const ALL: [Self; 5] = [Self::Put1, Self::Put64, Self::Put1000, Self::Get, Self::Kill];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put1 => "c3put1",
            Self::Put64 => "c3put64",
            Self::Put1000 => "c3put1000",
            Self::Get => "c3get",
            Self::Kill => "c3kill",
        }
    }
}

/// Runs `chosen` against a fresh cluster of `program`.
pub(crate) fn run(
    program: &Program,
    chosen: &[ClusterCase],
    scale: Scale,
    mut report: impl FnMut(&'static str, Measured),
) {
    if chosen.is_empty() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut bench = Trio::start(program, scale);
    for case in chosen {
        eprintln!("  {}", case.name());
        let measured = match case {
            ClusterCase::Put1 => runtime.block_on(bench.put(1, 3_000)),
            ClusterCase::Put64 => runtime.block_on(bench.put(64, 20_000)),
            ClusterCase::Put1000 => runtime.block_on(bench.put(1_000, 40_000)),
            ClusterCase::Get => runtime.block_on(bench.get(40_000)),
            ClusterCase::Kill => bench.kill(),
        };
        report(case.name(), measured);
    }
}

/// A cluster under load.
struct Trio {
    members: Vec<Daemon>,
    scale: Scale,
    value: Bytes,
}

impl Trio {
    fn start(program: &Program, scale: Scale) -> Self {
        let place = program::target_dir().join("tmp");
        let mut members: Vec<Daemon> = (0..MEMBERS).map(|_| Daemon::prepare(&place, program, &crate::FLAGS)).collect();
        let entry = |(number, member): (usize, &Daemon)| format!("m{number}=http://{}", member.peer);
        let list = members.iter().enumerate().map(entry).collect::<Vec<_>>().join(",");
        for (number, member) in members.iter_mut().enumerate() {
            member.add_argument(format!("--name=m{number}"));
            member.add_argument(format!("--initial-cluster={list}"));
            member.spawn();
        }
        for member in &mut members {
            assert!(member.wait_ready(READY_LIMIT), "no cluster of {}:\n{}", program.name, member.log());
        }
        Self { members, scale, value: Random::new(1).bytes(VALUE_BYTES).into() }
    }

    fn usage(&self) -> [Usage; 2] {
        [self.members.iter().map(|member| Usage::of(&member.pid().to_string())).sum(), Usage::of("self")]
    }

    fn resident_bytes(&self) -> u64 {
        self.members.iter().map(|member| process::resident_bytes(&member.pid().to_string())).sum()
    }

    /// Connections to all members in turn, the leader first, so that a single client speaks with it.
    async fn connect(&self, clients: usize) -> Vec<Wire> {
        let leader = self.leader();
        let turn = (0..MEMBERS).filter_map(|offset| self.members.get((leader + offset) % MEMBERS));
        let mut each = Vec::new();
        for member in turn.take(clients) {
            each.push(load::connect(&member.endpoint(), clients.div_ceil(MEMBERS)).await.into_iter());
        }
        let mut connections = Vec::new();
        while let Some(connection) = each.first_mut().and_then(Iterator::next) {
            connections.push(connection);
            connections.extend(each.iter_mut().skip(1).filter_map(Iterator::next));
        }
        connections
    }

    /// The number of the member that all follow.
    ///
    /// # Panics
    /// If they do not agree in time.
    fn leader(&self) -> usize {
        std::thread::scope(|scope| {
            // A runtime may not wait inside another.
            let asked = scope.spawn(|| wait_for(SETTLE_LIMIT, || self.leader_now()));
            asked.join().ok().flatten().expect("three members find a leader")
        })
    }

    fn leader_now(&self) -> Option<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let ask = async |member: &Daemon| {
            let mut client = Client::connect(&member.endpoint()).await.ok()?;
            client.maintenance.status(pb::StatusRequest {}).await.ok().map(tonic::Response::into_inner)
        };
        let states: Option<Vec<StatusResponse>> =
            self.members.iter().map(|member| runtime.block_on(ask(member))).collect();
        let states = states?;
        let leader = states.first().map(|status| status.leader).filter(|leader| *leader != 0)?;
        let agreed = states.iter().all(|status| status.leader == leader);
        let is_leader = |status: &StatusResponse| status.header.as_ref().is_some_and(|own| own.member_id == leader);
        agreed.then(|| states.iter().position(is_leader)).flatten()
    }

    /// Warms up with a tenth, then measures a closed loop over all members; `check` looks at a sample of the answers.
    async fn calls<Q, A>(
        &self,
        (clients, requests): (usize, u64),
        path: &'static str,
        request: impl Fn(u64) -> Q + Clone + Send + 'static,
        check: fn(A) -> Result<(), tonic::Status>,
    ) -> Measured
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let connections = self.connect(clients).await;
        let requests = self.scale.of(requests);
        let send = move |mut client: Wire, number| {
            let frame = wire::framed(&request(number));
            async move {
                let answer = client.call(path, frame).await?;
                if number % SAMPLE == 0 { check(wire::unframed(answer)?) } else { Ok(()) }
            }
        };
        load::drive(&connections, clients, (requests / 10).max(1), send.clone()).await;
        let before = self.usage();
        let latencies = load::drive(&connections, clients, requests, send).await;
        figures(&latencies, requests, before, self.usage(), self.resident_bytes())
    }

    async fn put(&self, clients: usize, requests: u64) -> Measured {
        let (value, keys) = (self.value.clone(), self.scale.of(KEYS));
        let request = move |number| grpc::put(key(scattered(number, keys)), value.clone());
        let check =
            |answer: pb::PutResponse| found(usize::from(answer.header.is_some_and(|header| header.revision > 1)), 1);
        self.calls((clients, requests), wire::PUT, request, check).await
    }

    /// Linearizable reads of one key, through all members.
    async fn get(&self, requests: u64) -> Measured {
        let mut client = Client::connect(&self.members.first().expect("three members").endpoint()).await;
        let client = client.as_mut().expect("the member listens");
        client.kv.put(grpc::put(key(0), self.value.clone())).await.expect("a put");
        let check = |answer: pb::RangeResponse| found(answer.kvs.len(), 1);
        self.calls((CLIENTS, requests), wire::RANGE, |_| grpc::get(key(0)), check).await
    }

    /// Kills the leader again and again, and waits for the first write that others serve.
    fn kill(&mut self) -> Measured {
        let mut times = Vec::new();
        for round in 0..self.scale.of(KILLS) {
            times.push(self.one_kill(round));
        }
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1));
        let millis = |percent| micros(at(percent).copied().unwrap_or_default()) / 1_000.0;
        vec![(Figure::FirstWriteMedianMillis, millis(50)), (Figure::FirstWriteWorstMillis, millis(100))]
    }

    fn one_kill(&mut self, round: u64) -> Duration {
        let leader = self.leader();
        let others = self.members.iter().enumerate().filter(|(number, _)| *number != leader);
        let endpoints: Vec<String> = others.map(|(_, member)| member.endpoint()).collect();
        let probe = Probe::start(&endpoints, &format!("kill/{round}"));
        probe.first_write(now());
        let since = now();
        let victim = self.members.get_mut(leader).expect("a member");
        victim.kill();
        let took = probe.first_write(since);
        drop(probe.stop());
        victim.restart();
        took
    }
}
