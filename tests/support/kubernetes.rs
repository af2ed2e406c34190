//! What the apiservers of a Kubernetes cluster do to three members, everything over TLS. The load is a program around etcd's
//! own Go client (`tests/clients/go/kubernetes`), which checks what it is told.

use super::certificates::{Authority, Pair};
use super::cluster::{Cluster, PATIENCE};
use super::program::{self, Program};
use serde::Deserialize;
use std::process::{Command, Stdio};

const MEMBERS: usize = 3;
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];
/// What a Kubernetes cluster sets, and times of elections for machines that are busy with other things, too.
const FLAGS: [&str; 5] = [
    "--watch-progress-notify-interval=5s",
    "--client-cert-auth",
    "--peer-client-cert-auth",
    "--heartbeat-interval=500",
    "--election-timeout=5000",
];
/// How much longer than its load the program may take, to fill the cluster and to compare at the end, in seconds.
const ROUND_SECONDS: u64 = 180;

/// The kinds of requests that are made, and `watch`: the way of an object from its writer to a cache.
pub const KINDS: [&str; 13] = [
    "create",
    "update",
    "delete",
    "conflict",
    "get",
    "event",
    "heartbeat",
    "list page",
    "count",
    "lease grant",
    "compact txn",
    "compact",
    "watch",
];

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How long it lasts.
    pub seconds: u64,
    pub pods: u64,
    pub nodes: u64,
    /// How long an event lives at least.
    pub event_seconds: u64,
    /// How often each apiserver tries to compact.
    pub compact_seconds: u64,
    /// How long a controller lives that comes and goes.
    pub visit_seconds: u64,
}

impl Load {
    /// Everything happens within some seconds.
    pub const SHORT: Self =
        Self { seconds: 10, pods: 1_200, nodes: 50, event_seconds: 3, compact_seconds: 3, visit_seconds: 2 };

    /// A cluster of some size for this long.
    pub fn long(seconds: u64) -> Self {
        Self { seconds, pods: 5_000, nodes: 100, event_seconds: 60, compact_seconds: 30, visit_seconds: 10 }
    }
}

/// What one kind of requests has shown.
#[derive(Clone, Debug, Deserialize)]
pub struct Kind {
    pub name: String,
    pub count: u64,
    pub p50_micros: u32,
    pub p99_micros: u32,
}

/// What a load has shown that found no mistake.
#[derive(Clone, Debug, Deserialize)]
pub struct Outcome {
    pub seconds: u64,
    pub kinds: Vec<Kind>,
    /// Caches that were followed to the end, and those of controllers that came and went.
    pub caches: u64,
    pub visits: u64,
    /// Events that all of them were told.
    pub events: u64,
    /// Those of them that told of the end of a lease.
    pub expired: u64,
    /// Progress responses ahead of events that they promise to follow. etcd's member sends one to a watch that was just created
    /// if others on the stream had asked for it before.
    pub early: u64,
    /// Objects in all caches at the end.
    pub objects: u64,
}

impl Outcome {
    /// What the requests of a kind have shown; nothing if there was none.
    pub fn of(&self, kind: &str) -> Option<&Kind> {
        self.kinds.iter().find(|one| one.name == kind)
    }
}

/// Three members and who may speak with them.
pub struct Trio {
    pub cluster: Cluster,
    authority: Authority,
    client: Pair,
}

impl Trio {
    /// Three members of `program` with TLS for clients and peers.
    ///
    /// # Panics
    /// If they do not form a cluster in time.
    pub fn start(program: &Program) -> Self {
        let authority = Authority::new("kubernetes");
        let (member, client) = (authority.issue("member", &HOSTS), authority.issue("apiserver", &[]));
        let mut flags: Vec<String> = FLAGS.map(str::to_owned).into();
        for prefix in ["--", "--peer-"] {
            flags.extend(member.flags(prefix));
            flags.push(format!("{prefix}trusted-ca-file={}", authority.file().display()));
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut cluster = Cluster::found_over("https", []);
        for _ in 0..MEMBERS {
            cluster.prepare_of(program, &flags);
        }
        let list = cluster.initial_cluster();
        for member in &mut cluster.members {
            member.client_scheme = "https";
            member.add_argument(format!("--initial-cluster={list}"));
            member.spawn();
        }
        for member in &mut cluster.members {
            assert!(member.wait_ready(PATIENCE), "no cluster of {}:\n{}", program.name, member.log());
        }
        Self { cluster, authority, client }
    }

    /// Puts `load` on the cluster.
    ///
    /// # Panics
    /// If a client fails, or is told something wrong; the message says which and what.
    pub fn run(&self, load: Load) -> Outcome {
        let endpoints: Vec<_> = self.cluster.members.iter().map(super::daemon::Daemon::endpoint).collect();
        let [cert, key] = self.client.client_flags();
        let output = Command::new("timeout")
            .arg((load.seconds + ROUND_SECONDS).to_string())
            .arg(program::clients_with("go_kubernetes").join("go-kubernetes"))
            .arg(format!("--endpoints={}", endpoints.join(",")))
            .arg(format!("--cacert={}", self.authority.file().display()))
            .args([cert, key])
            .args([format!("--seconds={}", load.seconds), format!("--pods={}", load.pods)])
            .args([format!("--nodes={}", load.nodes), format!("--event-seconds={}", load.event_seconds)])
            .args([format!("--compact-every={}s", load.compact_seconds), format!("--visit={}s", load.visit_seconds)])
            .stdin(Stdio::null())
            .output()
            .expect("timeout is part of every system");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}{}", output.status, self.cluster.ends_of_logs());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}
