//! The member under attack, what it says of itself, and a healthy client of it.

use std::{fs, net::SocketAddr, time::Duration};

use futures_util::future::join_all;

use super::support::{
    certificates::Authority,
    daemon::{Daemon, free_ports},
    grpc::{Client, put},
    http, mask, now,
    program::Program,
    setting,
};

/// Healthy clients that put side by side.
const CLIENTS: usize = 4;

/// A listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// For clients, plain.
    Client,
    /// For clients, encrypted.
    Encrypted,
    /// For other members.
    Peer,
    /// For metrics.
    Metrics,
}

impl Port {
    pub(crate) const ALL: [Self; 4] = [Self::Client, Self::Encrypted, Self::Peer, Self::Metrics];
}

/// A member with listeners of all kinds.
pub(crate) struct Target {
    daemon: Daemon,
    encrypted: SocketAddr,
    metrics: SocketAddr,
    // Its files are read as long as the member runs.
    _authority: Authority,
}

impl Target {
    pub(crate) fn start() -> Self {
        let authority = Authority::new("ca");
        let [encrypted, metrics] = free_ports();
        let mut flags: Vec<String> = authority.issue("server", &["127.0.0.1"]).flags("--").into();
        flags.push(format!("--listen-metrics-urls=http://{metrics}"));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut daemon = Daemon::prepare(&std::env::temp_dir(), &Program::subject(), &flags);
        daemon.add_argument(format!("--listen-client-urls=http://{},https://{encrypted}", daemon.client));
        daemon.spawn();
        assert!(daemon.wait_ready(super::support::daemon::READY_LIMIT), "{}", daemon.log());
        Self { daemon, encrypted, metrics, _authority: authority }
    }

    pub(crate) fn address(&self, port: Port) -> SocketAddr {
        match port {
            Port::Client => self.daemon.client,
            Port::Encrypted => self.encrypted,
            Port::Peer => self.daemon.peer,
            Port::Metrics => self.metrics,
        }
    }

    /// The id of the cluster, as peers name it.
    pub(crate) fn cluster(&self) -> String {
        let status = http::post(self.daemon.client, "/v3/maintenance/status", "{}").expect("the gateway answers").body;
        format!("{:x}", mask::number_after(&status, "cluster_id").expect("the id of the cluster"))
    }

    /// Resident memory, in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).expect("the daemon runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.daemon.pid())).expect("the daemon runs").count()
    }

    /// The sum of the series of a metric that have such a label.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        self.sum(|line| line.starts_with(name) && line.contains(&format!("\"{label}\"")))
    }

    /// Calls that ended with an error.
    pub(crate) fn refused_calls(&self) -> u64 {
        self.sum(|line| line.starts_with("grpc_server_handled_total") && !line.contains("grpc_code=\"OK\""))
    }

    /// Everything that was refused.
    pub(crate) fn refusals(&self) -> u64 {
        let refused = |line: &str| line.starts_with("quorate_http_responses_total") && line.contains("code=\"4");
        self.refused_calls() + self.sum(refused) + self.sum(|line| line.starts_with("quorate_connections_cut_total"))
    }

    fn sum(&self, counts: impl Fn(&str) -> bool) -> u64 {
        let text = http::get(self.metrics, "/metrics").expect("the metrics listener answers").body;
        let numbers = text.lines().filter(|line| counts(line)).filter_map(|line| line.rsplit_once(' '));
        numbers.map(|(_, number)| number.parse::<u64>().expect("a count")).sum()
    }

    /// Puts of several clients, each with its time; a put that fails, fails the test. They have a thread of their own: what
    /// they wait for is the member, not the attack. Connecting and the first put are a time of their own: whoever comes while
    /// thousands do waits for his turn.
    pub(crate) async fn healthy(&self) -> Times {
        let (endpoint, length) = (self.daemon.endpoint(), Duration::from_secs(setting("HOSTILE_SECONDS", 2)));
        let load = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(join_all((0..CLIENTS).map(|number| puts(&endpoint, number, length))))
        });
        let clients = load.await.expect("the clients end");
        let first = clients.iter().map(|(first, _)| *first).max().unwrap_or_default();
        let mut later = clients.into_iter().flat_map(|(_, later)| later).collect::<Vec<_>>();
        later.sort_unstable();
        Times { first, later }
    }
}

/// What one client puts one after the other: the time until it is first answered, and the time of each put from then on.
async fn puts(endpoint: &str, number: usize, length: Duration) -> (Duration, Vec<Duration>) {
    let (comes, mut times) = (now(), Vec::new());
    let mut client = Client::connect(endpoint).await.expect("a healthy client connects");
    let request = || put(format!("healthy/{number}"), vec![b'x'; 256]);
    client.kv.put(request()).await.expect("a healthy client is served");
    let first = comes.elapsed();
    while comes.elapsed() < length {
        let began = now();
        client.kv.put(request()).await.expect("a healthy client is served");
        times.push(began.elapsed());
    }
    (first, times)
}

/// How long requests took.
pub(crate) struct Times {
    /// The longest that a client waited for its first answer.
    first: Duration,
    /// All others, in order.
    later: Vec<Duration>,
}

impl Times {
    fn at(&self, percent: usize) -> Duration {
        let last = self.later.len().saturating_sub(1);
        self.later.get(last * percent / 100).copied().unwrap_or_default()
    }

    /// Median and p99, and how they compare.
    pub(crate) fn against(&self, alone: &Self) -> String {
        let shown = |name: &str, ours: Duration, theirs: Duration| {
            format!("{name} {ours:.1?} ({:.2} of {theirs:.1?} alone)", ours.as_secs_f64() / theirs.as_secs_f64())
        };
        let part = |percent| shown(&format!("p{percent}"), self.at(percent), alone.at(percent));
        format!("{}, {}, {}", part(50), part(99), shown("first", self.first, alone.first))
    }
}
