//! The Election and Lock services and the commands `lock` and `elect`: the same steps against our daemon and against the real
//! etcd, and with our client and the real etcdctl, must be answered alike.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    fmt::Debug,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quorate::pb::{
    etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, RangeRequest},
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
        election_client::ElectionClient,
    },
    v3lockpb::{LockRequest, LockResponse, UnlockRequest, lock_client::LockClient},
};
use support::{
    daemon::Daemon,
    grpc::{Client, get},
    http,
    mask::Mask,
    program::Program,
    wait_for,
};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status, Streaming, transport::Channel};

/// Longest wait for anything that is to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long somebody must have waited to be believed that it waits.
const A_WHILE: Duration = Duration::from_millis(300);

/// Every service of one member, and what was heard of it.
struct Talk {
    client: Client,
    election: ElectionClient<Channel>,
    lock: LockClient<Channel>,
    heard: Vec<String>,
}

/// An outcome without what is transport's: metadata of answers and errors.
fn outcome<T: Debug>(outcome: Result<Response<T>, Status>) -> String {
    match outcome {
        Ok(answer) => format!("{:?}", answer.into_inner()),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

impl Talk {
    async fn begin(daemon: &Daemon) -> Self {
        let client = Client::connect(&daemon.endpoint()).await.unwrap();
        let (election, lock) = (ElectionClient::new(client.channel.clone()), LockClient::new(client.channel.clone()));
        let mut talk = Self { client, election, lock, heard: Vec::new() };
        for lease in 0x71..=0x79 {
            talk.grant(lease).await;
        }
        talk
    }

    fn note<T: Debug>(&mut self, what: &str, answer: Result<Response<T>, Status>) {
        self.heard.push(format!("{what}: {}", outcome(answer)));
    }

    async fn grant(&mut self, id: i64) {
        self.client.lease.lease_grant(LeaseGrantRequest { ttl: 600, id }).await.unwrap();
    }

    async fn revoke(&mut self, id: i64) {
        self.client.lease.lease_revoke(LeaseRevokeRequest { id }).await.unwrap();
    }

    async fn campaign(&mut self, lease: i64, value: &str) {
        let answer = self.election.campaign(stand("e", lease, value)).await;
        self.note("campaign", answer);
    }

    fn campaign_aside(&self, name: &str, lease: i64, value: &str) -> Aside<CampaignResponse> {
        let (mut election, request) = (self.election.clone(), stand(name, lease, value));
        aside(async move { election.campaign(request).await })
    }

    async fn leader(&mut self, name: &'static str) {
        let answer = self.election.leader(LeaderRequest { name: name.into() }).await;
        self.note("leader", answer);
    }

    /// Nothing comes of it, not even the stream, before somebody leads.
    fn observe(&self, name: &'static str) -> JoinHandle<Streaming<LeaderResponse>> {
        let mut election = self.election.clone();
        aside(async move { election.observe(LeaderRequest { name: name.into() }).await.unwrap().into_inner() })
    }

    async fn seen(&mut self, stream: &mut Streaming<LeaderResponse>) {
        let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("a leader is told of");
        self.heard.push(format!("observed: {message:?}"));
    }

    async fn proclaim(&mut self, leader: Option<LeaderKey>, value: &'static str) {
        let answer = self.election.proclaim(ProclaimRequest { leader, value: value.into() }).await;
        self.note("proclaim", answer);
    }

    async fn resign(&mut self, leader: Option<LeaderKey>) {
        let answer = self.election.resign(ResignRequest { leader }).await;
        self.note("resign", answer);
    }

    async fn lock(&mut self, lease: i64) {
        let answer = self.lock.lock(LockRequest { name: "l".into(), lease }).await;
        self.note("lock", answer);
    }

    fn lock_aside(&self, lease: i64) -> Aside<LockResponse> {
        let mut lock = self.lock.clone();
        aside(async move { lock.lock(LockRequest { name: "l".into(), lease }).await })
    }

    async fn unlock(&mut self, key: &'static str) {
        let answer = self.lock.unlock(UnlockRequest { key: key.into() }).await;
        self.note("unlock", answer);
    }

    async fn count(&mut self, prefix: &str) -> i64 {
        let end = format!("{}0", prefix.trim_end_matches('/'));
        let request = RangeRequest { range_end: end.into(), count_only: true, ..get(prefix.to_owned()) };
        self.client.kv.range(request).await.unwrap().into_inner().count
    }

    /// Waits until so many keys are in line.
    async fn until(&mut self, prefix: &str, keys: i64) {
        let deadline = support::now() + PATIENCE;
        while self.count(prefix).await != keys {
            assert!(support::now() < deadline, "never {keys} keys below {prefix}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

type Aside<T> = JoinHandle<Result<Response<T>, Status>>;

fn stand(name: &str, lease: i64, value: &str) -> CampaignRequest {
    CampaignRequest { name: name.to_owned().into(), lease, value: value.to_owned().into() }
}

fn leader_key(lease: i64, rev: i64) -> LeaderKey {
    LeaderKey { name: "e".into(), key: format!("e/{lease:x}").into(), rev, lease }
}

/// Has `call` wait beside the test.
#[expect(clippy::disallowed_methods, reason = "tests have no `Tasks`; the runtime of the test ends what is left")]
fn aside<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(call)
}

async fn done<T>(aside: Aside<T>) -> Result<Response<T>, Status> {
    tokio::time::timeout(PATIENCE, aside).await.expect("its turn comes").unwrap()
}

/// Both daemons, masked; what `walk` hears from them must be equal.
async fn compare(walk: impl AsyncFn(&mut Talk)) -> [Talk; 2] {
    let daemons = [Daemon::start(&Program::subject(), &[]), Daemon::start(&Program::etcd(), &[])];
    let mut talks = Vec::new();
    for daemon in &daemons {
        let mask = Mask::of(daemon);
        let mut talk = Talk::begin(daemon).await;
        walk(&mut talk).await;
        talk.heard = talk.heard.iter().map(|line| mask.apply(line)).collect();
        talks.push(talk);
    }
    let [ours, theirs] = <[Talk; 2]>::try_from(talks).ok().unwrap();
    println!("{}", theirs.heard.join("\n"));
    for (got, expected) in ours.heard.iter().zip(&theirs.heard) {
        assert_eq!(got, expected);
    }
    assert_eq!(ours.heard.len(), theirs.heard.len());
    assert!(!ours.heard.is_empty());
    [ours, theirs]
}

#[tokio::test]
async fn elections_are_answered_alike() {
    compare(async |talk| {
        talk.leader("e").await;
        talk.campaign(0x71, "a").await;
        talk.leader("e").await;
        talk.campaign(0x71, "a").await;
        talk.campaign(0x71, "b").await;
        let mut observed = talk.observe("e").await.unwrap();
        talk.seen(&mut observed).await;
        talk.proclaim(Some(leader_key(0x71, 2)), "c").await;
        talk.seen(&mut observed).await;
        for bad in [Some(leader_key(0x71, 3)), Some(leader_key(0x72, 2)), None] {
            talk.proclaim(bad.clone(), "d").await;
            talk.resign(bad).await;
        }
        let nameless = LeaderKey { key: "".into(), ..leader_key(0x71, 2) };
        talk.proclaim(Some(nameless.clone()), "d").await;
        talk.resign(Some(nameless)).await;
        let leaseless = LeaderKey { lease: 0x999, ..leader_key(0x71, 2) };
        talk.proclaim(Some(leaseless), "d").await;
        let renamed = LeaderKey { name: "other".into(), ..leader_key(0x71, 2) };
        talk.proclaim(Some(renamed), "d").await;
        talk.seen(&mut observed).await;
        talk.campaign(0x999, "nobody").await;
        talk.leader("other").await;
    })
    .await;
}

#[tokio::test]
async fn leaders_follow_each_other_in_the_order_they_came() {
    compare(async |talk| {
        let observed = talk.observe("e");
        tokio::time::sleep(A_WHILE).await;
        assert!(!observed.is_finished());
        talk.campaign(0x71, "a").await;
        let mut observed = observed.await.unwrap();
        talk.seen(&mut observed).await;
        let second = talk.campaign_aside("e", 0x72, "b");
        talk.until("e/", 2).await;
        let third = talk.campaign_aside("e", 0x73, "c");
        talk.until("e/", 3).await;
        tokio::time::sleep(A_WHILE).await;
        assert!(!second.is_finished() && !third.is_finished());
        talk.resign(Some(leader_key(0x71, 2))).await;
        let elected = done(second).await;
        talk.note("second", elected);
        talk.seen(&mut observed).await;
        assert!(!third.is_finished());
        talk.revoke(0x72).await;
        let elected = done(third).await;
        talk.note("third", elected);
        talk.seen(&mut observed).await;
        talk.revoke(0x73).await;
        talk.leader("e").await;
        talk.campaign(0x74, "d").await;
        talk.seen(&mut observed).await;
    })
    .await;
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_the_line() {
    compare(async |talk| {
        talk.campaign(0x71, "a").await;
        let gone = talk.campaign_aside("e", 0x72, "b");
        talk.until("e/", 2).await;
        gone.abort();
        talk.until("e/", 1).await;
        talk.lock(0x71).await;
        let gone = talk.lock_aside(0x72);
        talk.until("l/", 2).await;
        gone.abort();
        talk.until("l/", 1).await;
        let mut late = Request::new(LockRequest { name: "l".into(), lease: 0x73 });
        late.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
        let code = talk.lock.lock(late).await.map_err(|status| status.code()).map(|_| ());
        assert!(matches!(code, Err(Code::DeadlineExceeded | Code::Cancelled)), "{code:?}");
        talk.until("l/", 1).await;
        let left = format!("{} {}", talk.count("e/").await, talk.count("l/").await);
        talk.heard.push(left);
    })
    .await;
}

#[tokio::test]
async fn locks_are_answered_alike_and_taken_in_order() {
    compare(async |talk| {
        talk.lock(0x71).await;
        talk.lock(0x71).await;
        let second = talk.lock_aside(0x72);
        talk.until("l/", 2).await;
        let third = talk.lock_aside(0x73);
        talk.until("l/", 3).await;
        let fourth = talk.lock_aside(0x74);
        talk.until("l/", 4).await;
        tokio::time::sleep(A_WHILE).await;
        assert!(!second.is_finished() && !third.is_finished() && !fourth.is_finished());
        // The third one loses its lease while it waits; nobody else notices.
        talk.revoke(0x73).await;
        talk.unlock("l/71").await;
        let locked = done(second).await;
        talk.note("second", locked);
        assert!(!fourth.is_finished());
        talk.unlock("l/72").await;
        let locked = done(fourth).await;
        talk.note("fourth", locked);
        let expired = done(third).await;
        talk.note("third", expired);
        for key in ["l/72", "l/none", ""] {
            talk.unlock(key).await;
        }
        talk.lock(0x999).await;
    })
    .await;
}

/// A lease of zero means a new one, whose number is chance.
#[tokio::test]
async fn who_brings_no_lease_gets_one_of_a_minute() {
    compare(async |talk| {
        let locked = talk.lock.lock(LockRequest { name: "l".into(), lease: 0 }).await.unwrap().into_inner();
        let key = String::from_utf8(locked.key.to_vec()).unwrap();
        let lease = i64::from_str_radix(key.strip_prefix("l/").unwrap(), 16).unwrap();
        let life = quorate::pb::etcdserverpb::LeaseTimeToLiveRequest { id: lease, keys: true };
        let life = talk.client.lease.lease_time_to_live(life).await.unwrap().into_inner();
        talk.heard.push(format!("{} {}", life.granted_ttl, life.keys == [key]));
        let elected = talk.election.campaign(stand("e", 0, "a")).await.unwrap().into_inner().leader.unwrap();
        talk.heard.push(format!("{} {}", elected.rev, elected.key == format!("e/{:x}", elected.lease)));
    })
    .await;
}

/// etcd calls somebody elected whose key is gone with its lease; so the next one is elected, too. Ours refuses it.
#[tokio::test]
async fn nobody_is_elected_without_a_key() {
    let outcomes = [Program::subject(), Program::etcd()].map(|program| async move {
        let daemon = Daemon::start(&program, &[]);
        let mut talk = Talk::begin(&daemon).await;
        talk.campaign(0x71, "a").await;
        let second = talk.campaign_aside("e", 0x72, "b");
        talk.until("e/", 2).await;
        talk.revoke(0x72).await;
        talk.resign(Some(leader_key(0x71, 2))).await;
        done(second).await.map(drop).map_err(|status| (status.code(), status.message().to_owned()))
    });
    let [ours, theirs] = outcomes;
    assert_eq!(ours.await, Err((Code::Unknown, "election: not leader".to_owned())));
    assert_eq!(theirs.await, Ok(()));
}

/// Path and body; one fresh member answers these in order.
const STEPS: &[(&str, &str)] = &[
    ("lease/grant", r#"{"ID":"113","TTL":"600"}"#),
    ("lease/grant", r#"{"ID":"114","TTL":"600"}"#),
    ("lock/lock", r#"{"name":"bA==","lease":"113"}"#),
    ("lock/lock", r#"{"name":"bA==","lease":113}"#),
    ("lock/lock", r#"{"name":"bA==","lease":"999"}"#),
    ("lock/unlock", r#"{"key":"bC83MQ=="}"#),
    ("lock/unlock", r#"{"key":"bC83MQ=="}"#),
    ("lock/unlock", "{}"),
    ("election/leader", r#"{"name":"ZQ=="}"#),
    ("election/campaign", r#"{"name":"ZQ==","lease":"113","value":"YQ=="}"#),
    ("election/leader", r#"{"name":"ZQ=="}"#),
    ("election/proclaim", r#"{"leader":{"name":"ZQ==","key":"ZS83MQ==","rev":"4","lease":"113"},"value":"Yg=="}"#),
    ("election/leader", r#"{"name":"ZQ=="}"#),
    ("election/proclaim", r#"{"leader":{"name":"ZQ==","key":"ZS83MQ==","rev":"9","lease":"113"},"value":"Yg=="}"#),
    ("election/proclaim", r#"{"value":"Yg=="}"#),
    ("election/resign", r#"{"value":"Yg=="}"#),
    ("election/resign", r#"{"leader":{"name":"ZQ==","key":"ZS83MQ==","rev":"9","lease":"113"}}"#),
    ("election/observe", r#"{"name":"ZQ=="}"#),
    ("election/resign", r#"{"leader":{"name":"ZQ==","key":"ZS83MQ==","rev":"4","lease":"113"}}"#),
    ("election/leader", r#"{"name":"ZQ=="}"#),
    ("kv/range", r#"{"key":"AA==","range_end":"AA=="}"#),
];

#[test]
fn the_gateway_answers_alike() {
    let daemons = [Daemon::start(&Program::subject(), &[]), Daemon::start(&Program::etcd(), &[])];
    let masks = daemons.each_ref().map(Mask::of);
    for (path, body) in STEPS {
        let [ours, theirs] = [0, 1].map(|side| masks[side].apply(&curl(&daemons[side], path, body)).replace(' ', ""));
        println!("{path} {body}: {theirs}");
        assert_eq!(ours, theirs, "{path} {body}");
    }
}

/// Status and body; a stream is read for two seconds.
fn curl(daemon: &Daemon, path: &str, body: &str) -> String {
    let seconds = if path.ends_with("observe") { "2" } else { "20" };
    let output = Command::new("curl")
        .args(["--silent", "--no-buffer", "--max-time", seconds, "--write-out", "\n[%{http_code}]", "--data", body])
        .arg(format!("{}/v3/{path}", daemon.endpoint()))
        .stdin(Stdio::null())
        .output();
    String::from_utf8_lossy(&output.expect("curl is installed").stdout).into_owned()
}

/// A client of the gateway that goes away takes its place in the line with it.
#[test]
fn the_gateway_waits_no_longer_than_its_client() {
    for program in [Program::subject(), Program::etcd()] {
        let daemon = Daemon::start(&program, &[]);
        let keys = || {
            let body = r#"{"key":"bC8=","range_end":"bDA=","count_only":true}"#;
            support::mask::number_after(&http::post(daemon.client, "/v3/kv/range", body).unwrap().body, "count")
        };
        curl(&daemon, "lock/lock", r#"{"name":"bA=="}"#);
        assert_eq!(keys(), Some(1));
        let mut waiting = Command::new("curl")
            .args(["--silent", "--data", r#"{"name":"bA=="}"#, &format!("{}/v3/lock/lock", daemon.endpoint())])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(PATIENCE, || (keys() == Some(2)).then_some(())).expect("it waits");
        waiting.kill().unwrap();
        waiting.wait().unwrap();
        wait_for(PATIENCE, || (keys() == Some(1)).then_some(())).expect("it has left the line");
    }
}

/// Words of the tool that end by themselves.
const COMMANDS: &[&[&str]] = &[
    &["lock"],
    &["lock", "l", "echo", "held"],
    &["lock", "l", "--", "sh", "-c", "exit 3"],
    &["lock", "l", "--", "sh", "-c", "echo out; echo err >&2; kill -9 $$"],
    &["lock", "l", "--", "sh", "-c", "echo $ETCD_LOCK_KEY; test $ETCD_LOCK_REV -gt 1; cat"],
    &["lock", "l", "--ttl", "3", "--", "true"],
    &["lock", "l", "--ttl", "-1", "true"],
    &["lock", "l", "--ttl", "x", "true"],
    &["lock", "l", "no-such-program"],
    &["lock", "l", "/no/such/program"],
    &["lock", "l", "sh", "-c", "true"],
    &["elect"],
    &["elect", "e"],
    &["elect", "-l", "e", "x"],
    &["elect", "e", "x", "y"],
    &["get", "--prefix", ""],
];

/// One tool at one daemon.
struct Tool<'a> {
    path: PathBuf,
    daemon: &'a Daemon,
}

/// The tool at work, with a file it prints to.
struct Running {
    child: Child,
    out: PathBuf,
}

impl Tool<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.path);
        command.arg(format!("--endpoints={}", self.daemon.client)).args(words).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().expect("the tool starts");
        let said = String::from_utf8_lossy(&output.stderr);
        // Help is in words of our own.
        let said: Vec<_> =
            said.lines().take_while(|line| *line != "Usage:").filter(|line| !line.starts_with('{')).collect();
        let out = without_leases(&String::from_utf8_lossy(&output.stdout));
        format!("{words:?}\n{out}{said:?} [{:?}]\n", output.status.code())
    }

    fn begin(&self, name: &str, words: &[&str]) -> Running {
        let out = self.daemon.directory().join(name);
        let file = File::create(&out).unwrap();
        let errors = file.try_clone().unwrap();
        Running { child: self.command(words).stdout(file).stderr(errors).spawn().expect("the tool starts"), out }
    }

    /// How many keys there are.
    fn keys(&self) -> usize {
        let output = self.command(&["get", "--prefix", "", "--keys-only"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.is_empty()).count()
    }

    fn until_keys(&self, keys: usize) {
        wait_for(PATIENCE, || (self.keys() == keys).then_some(())).expect("the line gets as long as it should");
    }
}

impl Running {
    fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.out).unwrap();
        without_leases(
            &text.lines().filter(|line| !line.starts_with('{')).map(|line| line.to_owned() + "\n").collect::<String>(),
        )
    }

    fn until(&self, lines: usize) {
        wait_for(PATIENCE, || (self.said().lines().count() >= lines).then_some(()))
            .unwrap_or_else(|| panic!("only said {}", self.said()));
    }

    /// What it printed, and the exit code after the signal.
    fn end(mut self, signal: Signal) -> String {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        self.finish()
    }

    fn finish(&mut self) -> String {
        let status = wait_for(PATIENCE, || self.child.try_wait().unwrap()).expect("it ends");
        format!("{}[{:?}]\n", self.said(), status.code())
    }
}

/// Leases are chance: what stands behind the slash of a key.
fn without_leases(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once('/') {
        Some((name, lease)) if lease.len() > 8 && lease.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            format!("{name}/LEASE\n")
        }
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// Everything one tool has to say at one daemon.
fn story(tool: &Tool) -> String {
    let mut story: String = COMMANDS.iter().map(|words| tool.run(words)).collect();
    // Two hold, one gives up, one gets it.
    let holder = tool.begin("holder", &["lock", "l"]);
    holder.until(1);
    let impatient = tool.begin("impatient", &["lock", "l"]);
    tool.until_keys(2);
    let mut next = tool.begin("next", &["lock", "l", "echo", "mine"]);
    tool.until_keys(3);
    story += &impatient.end(Signal::SIGINT);
    tool.until_keys(2);
    story += &holder.end(Signal::SIGTERM);
    story += &next.finish();
    tool.until_keys(0);
    let listener = tool.begin("listener", &["elect", "-l", "e"]);
    let first = tool.begin("first", &["elect", "e", "a"]);
    first.until(2);
    listener.until(2);
    let second = tool.begin("second", &["elect", "e", "b"]);
    tool.until_keys(2);
    let third = tool.begin("third", &["elect", "e", "c"]);
    tool.until_keys(3);
    story += &third.end(Signal::SIGTERM);
    tool.until_keys(2);
    story += &first.end(Signal::SIGINT);
    second.until(2);
    listener.until(4);
    story += &second.end(Signal::SIGTERM);
    tool.until_keys(0);
    story += &listener.end(Signal::SIGTERM);
    story
}

/// Our client under the name that makes it print as etcdctl does.
fn ours_called_etcdctl() -> PathBuf {
    let link = Path::new(env!("CARGO_TARGET_TMPDIR")).join("etcdctl");
    // Another run may have made it; what counts is that it is there.
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_quoratectl"), &link).unwrap_or_default();
    link
}

#[test]
fn both_clients_say_the_same_at_both_daemons() {
    let daemons = [Daemon::start(&Program::etcd(), &[]), Daemon::start(&Program::subject(), &[])];
    let tools = [Program::etcdctl().path, ours_called_etcdctl()];
    let expected = story(&Tool { path: tools[0].clone(), daemon: &daemons[0] });
    println!("{expected}");
    for (tool, daemon) in [(0, 1), (1, 1), (1, 0)] {
        let got = story(&Tool { path: tools[tool].clone(), daemon: &daemons[daemon] });
        if let Some(difference) = support::mask::difference(&got, &expected) {
            panic!("tool {tool} at daemon {daemon}: {difference}");
        }
    }
}

/// A lock whose lease is revoked is lost, and its holder says so at its next renewal.
#[test]
fn a_lost_lease_ends_who_holds() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    for path in [Program::etcdctl().path, ours_called_etcdctl()] {
        let tool = Tool { path, daemon: &daemon };
        let mut holder = tool.begin("holder", &["lock", "l", "--ttl", "3"]);
        holder.until(1);
        let leases = http::post(daemon.client, "/v3/lease/leases", "{}").unwrap().body;
        let lease = support::mask::number_after(&leases, "ID").unwrap();
        http::post(daemon.client, "/v3/lease/revoke", &format!(r#"{{"ID":"{lease}"}}"#)).unwrap();
        let said = holder.finish();
        assert!(said.ends_with("Error: session expired\n[Some(1)]\n"), "{said}");
    }
}
