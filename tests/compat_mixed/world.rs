//! A cluster of both kinds: founded, changed, led, killed, and compared.

use super::{
    clients::{self, Hash, Pair},
    load::{self, Load},
    send::Side,
    support::{
        cluster::{Cluster, PATIENCE},
        grpc::{self, Client},
        http,
        program::Program,
        random::Random,
        setting, wait_for,
    },
};
use std::cell::Cell;
use std::thread::sleep;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// The log is compacted often, and keeps next to nothing.
const OURS: [&str; 2] = ["--snapshot-count=100", "--snapshot-catchup-entries=10"];
const ETCD_3_7: &[&str] = &[
    "--snapshot-count=100",
    "--snapshot-catchup-entries=10",
    "--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true",
    "--compact-hash-check-time=2s",
    "--corrupt-check-time=1s",
];
const ETCD_3_5: &[&str] = &[
    "--snapshot-count=100",
    "--experimental-snapshot-catchup-entries=10",
    "--experimental-initial-corrupt-check=true",
    "--experimental-compact-hash-check-enabled=true",
    "--experimental-compact-hash-check-time=2s",
    "--experimental-corrupt-check-time=1s",
];
/// Longest trouble: three election timeouts.
const TROUBLE_MILLIS_MAX: u64 = 3_000;
/// How often something is tried that a leader must not be disturbed in.
const UNDISTURBED_ATTEMPTS: usize = 5;
/// Writers at a time that fill the key space.
const FILLERS: u64 = 8;

/// A release of etcd with its client.
pub(crate) struct Release {
    pub(crate) etcd: Program,
    etcdctl: Program,
    /// The version of a cluster with members of this release.
    pub(crate) version: &'static str,
    arguments: &'static [&'static str],
    /// What ours must pass for, so that a member of this release can join them.
    compat: &'static str,
}

impl Release {
    pub(crate) fn newest() -> Self {
        let (etcd, etcdctl) = (Program::etcd().checking_itself(), Program::etcdctl());
        Self { etcd, etcdctl, version: "3.7.0", arguments: ETCD_3_7, compat: "--compat-version=3.7" }
    }

    /// Whether its members check the ranges of transactions that others have proposed.
    pub(crate) fn checks_ranges(&self) -> bool {
        self.version == "3.7.0"
    }

    /// The releases to play with.
    pub(crate) fn wanted() -> Vec<Self> {
        let mut wanted = vec![Self::newest()];
        if setting("MIXED_WITH_3_5", 0) != 0 {
            let [etcd, etcdctl] = Program::etcd_3_5();
            let etcd = etcd.checking_itself();
            let (version, compat) = ("3.5.0", "--compat-version=3.5");
            wanted.push(Self { etcd, etcdctl, version, arguments: ETCD_3_5, compat });
        }
        wanted
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Etcd,
    Ours,
}

/// The leader dies while another is away: the third has the longer log, and only the one that was away can vote for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Election {
    pub(crate) dies: usize,
    pub(crate) is_away: usize,
    pub(crate) wins: usize,
}

/// What can happen to a member.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Kill,
    Stop,
    Pause,
    Lead,
}

/// A cluster whose members are counted from 0, those that have left included.
pub(crate) struct World<'a> {
    pub(crate) cluster: Cluster,
    pub(crate) kinds: Vec<Kind>,
    release: &'a Release,
    runtime: Runtime,
    /// Whether ours pass for the release.
    passes: bool,
    /// The first revision whose events nobody has compacted.
    first: i64,
    /// Keys are used by one caller each.
    calls: Cell<u64>,
}

impl<'a> World<'a> {
    /// # Panics
    /// If the founders do not form a cluster in time.
    pub(crate) fn found(release: &'a Release, founders: &[Kind]) -> Self {
        let passes = !founders.contains(&Kind::Etcd);
        let founders: Vec<(Kind, Program, Vec<&str>)> = founders
            .iter()
            .map(|kind| {
                let (program, arguments) = start_of(*kind, release, passes);
                (*kind, program, arguments)
            })
            .collect();
        let bare: Vec<_> =
            founders.iter().map(|(_, program, arguments)| (program.clone(), arguments.clone())).collect();
        Self {
            cluster: found_bare(&bare),
            kinds: founders.iter().map(|(kind, ..)| *kind).collect(),
            release,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime"),
            passes,
            first: 2,
            calls: Cell::new(0),
        }
    }

    /// The numbers of those that run.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.cluster.members.len()).filter(|number| self.cluster.members[*number].is_running()).collect()
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.running().into_iter().map(|number| self.endpoint(number)).collect()
    }

    pub(crate) fn endpoints_without(&self, left_out: usize) -> Vec<String> {
        self.running().into_iter().filter(|number| *number != left_out).map(|number| self.endpoint(number)).collect()
    }

    fn endpoint(&self, number: usize) -> String {
        self.cluster.members[number].endpoint()
    }

    pub(crate) fn log(&self, number: usize) -> String {
        self.cluster.members[number].log()
    }

    /// The end of every log, for the message of a failure.
    fn logs(&self) -> String {
        let end = |log: String| {
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        };
        let logs = self.cluster.members.iter().enumerate();
        let logs =
            logs.map(|(number, member)| format!("--- {number} ({:?})\n{}", self.kinds[number], end(member.log())));
        logs.collect::<Vec<_>>().join("\n")
    }

    /// # Panics
    /// If the member does not say it in time.
    pub(crate) fn wait_for_log(&self, number: usize, text: &str) {
        let said = wait_for(2 * PATIENCE, || self.log(number).contains(text).then_some(()));
        assert!(said.is_some(), "member {number} does not say {text:?}\n{}", self.logs());
    }

    /// # Panics
    /// If nobody says it in time.
    pub(crate) fn wait_for_any_log(&self, text: &str) {
        let said = || self.cluster.members.iter().any(|member| member.log().contains(text));
        assert!(wait_for(2 * PATIENCE, || said().then_some(())).is_some(), "nobody says {text:?}\n{}", self.logs());
    }

    /// # Panics
    /// If the cluster does not agree on `version` in time.
    pub(crate) fn wait_for_version(&self, version: &str) {
        let told = format!("\"etcdcluster\":\"{version}\"");
        for number in self.running() {
            let address = self.cluster.members[number].client;
            let is_told = || http::get(address, "/version").is_ok_and(|answer| answer.body.contains(&told));
            assert!(wait_for(PATIENCE, || is_told().then_some(())).is_some(), "no {version}\n{}", self.logs());
        }
    }

    /// Runs the release's etcdctl against `endpoints` until it succeeds; what it printed.
    ///
    /// # Panics
    /// If it does not in time.
    pub(crate) fn etcdctl_until(&self, endpoints: &str, words: &[&str]) -> String {
        let mut said = String::new();
        let printed = wait_for(PATIENCE, || {
            let output = self.release.etcdctl.command().args(["--endpoints", endpoints]).args(words).output();
            let output = output.expect("etcdctl starts");
            said = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        });
        printed.unwrap_or_else(|| panic!("etcdctl {words:?} does not succeed: {said}\n{}", self.logs()))
    }

    /// The identifier of a running member as clients write it.
    fn id(&self, number: usize) -> String {
        let id = wait_for(PATIENCE, || self.cluster.id(number));
        format!("{:x}", id.unwrap_or_else(|| panic!("member {number} does not tell who it is\n{}", self.logs())))
    }

    /// Adds a learner by etcd's client and waits until it serves.
    ///
    /// # Panics
    /// If it does not in time.
    pub(crate) fn add(&mut self, kind: Kind, asked: usize) -> usize {
        let (program, arguments) = start_of(kind, self.release, self.passes);
        let number = self.cluster.prepare_of(&program, &arguments);
        self.kinds.push(kind);
        let (name, urls) =
            (format!("m{}", number + 1), format!("--peer-urls=http://{}", self.cluster.members[number].peer));
        self.etcdctl_until(&self.endpoint(asked), &["member", "add", &name, &urls, "--learner"]);
        self.cluster.join(number);
        number
    }

    /// Gives a learner its vote by etcd's client.
    ///
    /// # Panics
    /// If it does not get it in time.
    pub(crate) fn promote(&self, number: usize, asked: usize) {
        self.etcdctl_until(&self.endpoint(asked), &["member", "promote", &self.id(number)]);
    }

    /// Removes a member by etcd's client and waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub(crate) fn remove(&mut self, number: usize, asked: usize) {
        self.etcdctl_until(&self.endpoint(asked), &["member", "remove", &self.id(number)]);
        let ended = wait_for(PATIENCE, || self.cluster.members[number].exited());
        assert!(ended.is_some(), "a removed member goes on\n{}", self.logs());
        self.cluster.retire(number);
    }

    /// Lets `to` lead, by etcd's client.
    ///
    /// # Panics
    /// If it does not in time.
    pub(crate) fn lead(&self, to: usize) {
        if self.cluster.leader() != to {
            self.etcdctl_until(&self.endpoints().join(","), &["move-leader", &self.id(to)]);
        }
        let leads = wait_for(PATIENCE, || (self.cluster.leader_of(to) == Some(to)).then_some(()));
        assert!(leads.is_some(), "member {to} does not lead\n{}", self.logs());
    }

    /// Does something while member `number` leads; again, should a busy machine have cost it its office meanwhile.
    ///
    /// # Panics
    /// If it does not lead for long enough.
    pub(crate) fn under(&self, number: usize, work: impl Fn()) {
        let led = (0..UNDISTURBED_ATTEMPTS).any(|_| {
            self.lead(number);
            let term = self.cluster.term(number);
            work();
            (self.cluster.leader(), self.cluster.term(number)) == (number, term)
        });
        assert!(led, "member {number} does not stay in office\n{}", self.logs());
    }

    /// # Panics
    /// If somebody else is elected, or nobody.
    pub(crate) fn elect(&mut self, Election { dies, is_away, wins }: Election) {
        self.lead(dies);
        // One that is merely stopped finds what it missed in the buffers of its sockets.
        self.cluster.members[is_away].kill();
        for value in ["1", "2", "3"] {
            self.cluster.ctl_until(dies, &["put", "while/one/is/away", value]);
        }
        self.cluster.members[dies].kill();
        self.cluster.members[is_away].spawn();
        let elected = wait_for(PATIENCE, || self.cluster.leader_of(wins));
        assert_eq!(elected, Some(wins), "{}", self.logs());
        assert!(self.cluster.members[is_away].wait_ready(PATIENCE), "{}", self.logs());
        self.serves(wins, is_away);
        self.serves(is_away, wins);
        self.cluster.members[dies].restart();
        self.agree();
    }

    /// Something happens to a member, to the one that leads half of the time, and passes.
    ///
    /// # Panics
    /// If the cluster does not take writes through every member afterwards.
    pub(crate) fn trouble(&mut self, random: &mut Random) {
        let leader = self.cluster.leader();
        let victim = if random.chance(50) { leader } else { random.index(self.kinds.len()) };
        let a_while = Duration::from_millis(random.below(TROUBLE_MILLIS_MAX));
        let what = random.pick(&[Trouble::Kill, Trouble::Stop, Trouble::Pause, Trouble::Lead]);
        println!("{what:?} {victim} ({:?}) for {a_while:?}; {leader} leads", self.kinds[victim]);
        match what {
            Trouble::Lead => {
                self.lead(victim);
                sleep(a_while);
            }
            Trouble::Pause => {
                self.cluster.members[victim].signal("STOP");
                sleep(a_while);
                self.cluster.members[victim].signal("CONT");
            }
            Trouble::Kill | Trouble::Stop => {
                if matches!(what, Trouble::Stop) {
                    self.cluster.members[victim].terminate();
                } else {
                    self.cluster.members[victim].kill();
                }
                sleep(a_while);
                self.cluster.members[victim].restart();
            }
        }
        self.settle(&self.running());
    }

    fn prefix(&self, what: &str) -> String {
        self.calls.set(self.calls.get() + 1);
        format!("{what}/{}/", self.calls.get())
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A connection with a watch to everybody, in order.
    pub(crate) fn sides(&self) -> Vec<Side> {
        self.endpoints().iter().map(|endpoint| self.block_on(Side::connect(endpoint))).collect()
    }

    /// Waits until these members take writes: one whose leader has just died gives the first of them up.
    pub(crate) fn settle(&self, numbers: &[usize]) {
        for number in numbers {
            self.cluster.ctl_until(*number, &["put", "settled", &number.to_string()]);
        }
    }

    /// Checks everything that clients ask of member `number`, with `other` as the witness.
    ///
    /// # Panics
    /// If anything fails.
    pub(crate) fn serves(&self, number: usize, other: usize) {
        self.settle(&[number, other]);
        let [asked, other] = [number, other].map(|number| self.endpoint(number));
        let prefix = self.prefix("served");
        self.runtime.block_on(async { Pair::connect(&asked, &other, prefix).await.check().await });
    }

    /// Checks that a lease that `asked` grants and `other` keeps alive ends in time.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn lease_ends_in_time(&self, asked: usize, other: usize) {
        let [asked, other] = [asked, other].map(|number| self.endpoint(number));
        let prefix = self.prefix("ends");
        self.runtime.block_on(async { Pair::connect(&asked, &other, prefix).await.lease_ends_in_time().await });
    }

    /// Writes `count` keys through member `number`.
    ///
    /// # Panics
    /// If a write fails.
    pub(crate) fn fill(&self, number: usize, count: u64) {
        self.settle(&[number]);
        let (endpoint, prefix) = (self.endpoint(number), self.prefix("fill"));
        self.runtime.block_on(async {
            let client = Client::connect(&endpoint).await.expect("it serves");
            let mut tasks = JoinSet::new();
            for filler in 0..FILLERS {
                let (mut kv, prefix) = (client.kv.clone(), prefix.clone());
                tasks.spawn(async move {
                    for key in (0..count).filter(|key| key % FILLERS == filler) {
                        kv.put(grpc::put(format!("{prefix}{key}"), vec![b'v'; 200])).await.expect("a put");
                    }
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended.expect("a writer");
            }
        });
    }

    /// Compacts the key space, before anything is watched.
    ///
    /// # Panics
    /// If it fails.
    pub(crate) fn compact(&mut self, number: usize, revision: i64) {
        self.cluster.ctl_until(number, &["compact", &revision.to_string(), "--physical"]);
        self.first = revision + 1;
    }

    pub(crate) fn leases(&self, number: usize) -> Vec<String> {
        let printed = self.cluster.ctl_until(number, &["lease", "list"]);
        let mut lines: Vec<String> = printed.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn hash(&self, number: usize, revision: i64) -> Hash {
        let endpoint = self.endpoint(number);
        let hash = wait_for(2 * PATIENCE, || self.runtime.block_on(clients::hash(&endpoint, revision)));
        hash.unwrap_or_else(|| panic!("no hash of member {number} at {revision}\n{}", self.logs()))
    }

    /// Waits until everybody has what the first one has now, and compares; the revision.
    ///
    /// # Panics
    /// If the hashes differ, or somebody raised an alarm.
    pub(crate) fn agree(&self) -> i64 {
        let running = self.running();
        let revision = running.iter().map(|number| self.hash(*number, 0).newest).max().expect("somebody runs");
        let found: Vec<(usize, Hash)> = running.iter().map(|number| (*number, self.hash(*number, revision))).collect();
        let said = |hash: &Hash| (hash.compacted, hash.sum);
        let equal = found.windows(2).all(|two| said(&two[0].1) == said(&two[1].1));
        assert!(equal, "at {revision} the members differ: {found:?}\n{}", self.logs());
        let alarms = self.cluster.ctl_until(running[0], &["alarm", "list"]);
        assert_eq!(alarms, "", "{}", self.logs());
        revision
    }

    /// Ends a story: see [`World::finish_without_load`]; and everything that was acknowledged is everywhere.
    ///
    /// # Panics
    /// If not.
    pub(crate) fn finish(&mut self, load: Load) {
        let written = load.stop();
        println!("{} writes, the slowest after {:?}", written.count(), written.slowest);
        self.finish_without_load();
        for number in self.running() {
            let found = self.runtime.block_on(clients::below(&self.endpoint(number), load::PREFIX));
            written.check(&found, number);
        }
    }

    /// Everybody still runs, has the same state with the same past, and no revision is missing in it.
    ///
    /// # Panics
    /// If not.
    pub(crate) fn finish_without_load(&mut self) {
        let last = self.agree();
        let running = self.running();
        let past_of = |number: usize| self.runtime.block_on(clients::past(&self.endpoint(number), self.first, last));
        let expected = past_of(running[0]);
        let mut revisions: Vec<i64> = expected.iter().map(|(revision, _)| *revision).collect();
        revisions.dedup();
        assert_eq!(revisions, (self.first..=last).collect::<Vec<_>>(), "every revision once and in order");
        for number in &running[1..] {
            assert!(past_of(*number) == expected, "member {number} shows another past than member {}", running[0]);
        }
        self.finish_running();
    }

    /// Ends a story in which everybody must have lived.
    ///
    /// # Panics
    /// If somebody has not.
    pub(crate) fn finish_running(&mut self) {
        for number in self.running() {
            assert_eq!(self.cluster.members[number].exited(), None, "{}", self.logs());
        }
    }
}

/// Founds a cluster of these.
///
/// # Panics
/// If they do not form one in time.
pub(crate) fn found_bare(founders: &[(Program, Vec<&str>)]) -> Cluster {
    Cluster::found(founders.iter().map(|(program, arguments)| (program, arguments.as_slice())))
}

fn start_of(kind: Kind, release: &Release, passes: bool) -> (Program, Vec<&'static str>) {
    match kind {
        Kind::Etcd => (release.etcd.clone(), release.arguments.to_vec()),
        Kind::Ours => {
            let compat = passes.then_some(release.compat);
            (Program::subject(), OURS.into_iter().chain(compat).collect())
        }
    }
}
