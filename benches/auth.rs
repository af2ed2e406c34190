//! What does it cost to log in, and to say with every request who one is? One member of each kind in turn, with users whose
//! passwords are hashed at the default cost and were right before, and each kind of token.
//!
//! For each kind of token: `login` is as many logins as the member can do; `put` as many puts by users as it can do. `paced put`
//! is the latency of a few puts a second that go on by themselves, then `+logins` beside a number of logins a second (as many
//! of them as the member can do), then `+flood` beside as many as it can do.
//!
//! `BENCH_KINDS=simple,ES512` chooses kinds of tokens, `BENCH_RUNS=3` is the number of runs (3), `BENCH_SECONDS=3` the length of
//! each load, `BENCH_LOGINS=1000` the logins a second, `BENCH_SUBJECT=ours|etcd` one side only, `SUBJECT_BIN=path` another
//! executable in our place. One thread makes the load, and a second one that beside it, so that the member has the rest of the
//! machine.

#[allow(dead_code, reason = "shared with another bench, and each uses its own part")]
#[path = "compare/load.rs"]
mod load;
#[allow(dead_code, reason = "shared with another bench, and each uses its own part")]
#[path = "compare/process.rs"]
mod process;
#[allow(dead_code, reason = "shared with another bench, and each uses its own part")]
#[path = "compare/report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;
#[allow(dead_code, reason = "shared with another bench, and each uses its own part")]
#[path = "compare/wire.rs"]
mod wire;

use bytes::Bytes;
use load::{Latencies, drive_until};
use process::Usage;
use quorate::pb::etcdserverpb::{self as pb, auth_client::AuthClient};
use report::{Figure, Measured, Report};
use std::{
    future::Future,
    path::Path,
    process::Command,
    thread::{self, JoinHandle},
    time::Duration,
};
use support::{
    daemon::Daemon,
    grpc::{self, Client},
    now,
    program::{self, Program},
    random::Random,
    setting,
};
use tonic::Status;
use wire::Wire;

/// Users that log in, by turns.
const USERS: usize = 8;
/// Clients of loads that are as fast as the member.
const CLIENTS: usize = 64;
/// Clients of the puts that go on by themselves, and how many they are.
const PACED_CLIENTS: usize = 8;
const PUTS_PER_SECOND: u32 = 400;
/// Logins a second beside them, unless said otherwise.
const LOGINS_PER_SECOND: u32 = 1_000;
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
const VALUE_BYTES: usize = 256;
const KEYS: u64 = 1_000;
const PASSWORD: &str = "a password of some length";

/// A kind of tokens and what its figures are called.
struct Kind {
    name: &'static str,
    /// What openssl makes its keys of.
    key: &'static str,
    /// Names of the cases: logins, puts, puts of a few, beside logins, beside a flood of them.
    cases: [&'static str; 5],
}

macro_rules! kind {
    ($name:literal, $key:literal) => {
        Kind {
            name: $name,
            key: $key,
            cases: [
                concat!($name, " login"),
                concat!($name, " put"),
                concat!($name, " paced put"),
                concat!($name, " +logins"),
                concat!($name, " +flood"),
            ],
        }
    };
}

const KINDS: [Kind; 5] = [
    kind!("simple", ""),
    kind!("RS256", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048"),
    kind!("ES256", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
    kind!("EdDSA", "-algorithm ED25519"),
    kind!("ES512", "-algorithm EC -pkeyopt ec_paramgen_curve:P-521"),
];

fn main() {
    let chosen: String = setting("BENCH_KINDS", String::new());
    let is_chosen = |kind: &&Kind| chosen.is_empty() || chosen.split(',').any(|name| name == kind.name);
    let subjects = Program::compared();
    let mut report = Report::new(subjects.iter().map(|subject| subject.name.clone()).collect());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for run in 1..=setting("BENCH_RUNS", 3) {
        for kind in KINDS.iter().filter(is_chosen) {
            // Turn and turn about, so that both sides meet the same moods of the machine.
            for (side, subject) in subjects.iter().enumerate() {
                eprintln!("run {run}: {} with tokens of kind {}", subject.name, kind.name);
                let bench = runtime.block_on(Bench::start(subject, kind));
                runtime.block_on(bench.measure(kind, |case, measured| report.add(side, case, measured)));
            }
        }
    }
    print!("{}", report.table());
    let file = program::target_dir().join("auth.csv");
    std::fs::write(&file, report.csv()).expect("the target directory is ours");
    println!("every run: {}", file.display());
}

/// A member that asks who somebody is, and clients who say it.
struct Bench {
    daemon: Daemon,
    seconds: Duration,
    /// Connections of who logs in.
    strangers: Vec<Wire>,
    /// Connections of who has a token.
    users: Vec<Wire>,
    value: Bytes,
    _keys: tempfile::TempDir,
}

impl Bench {
    async fn start(program: &Program, kind: &Kind) -> Self {
        let keys = tempfile::tempdir().expect("a directory");
        let place = program::target_dir().join("tmp");
        let daemon = Daemon::start_in(&place, program, &[&token_flag(kind, keys.path())]);
        let endpoint = daemon.endpoint();
        let tokens = make_users(&endpoint).await;
        let strangers = load::connect(&endpoint, CLIENTS).await;
        let mut users = Vec::new();
        for (connection, token) in load::connect(&endpoint, CLIENTS).await.into_iter().zip(tokens.iter().cycle()) {
            users.push(connection.with_token(token));
        }
        let seconds = Duration::from_secs(setting("BENCH_SECONDS", 3));
        Self { daemon, seconds, strangers, users, value: Random::new(1).bytes(VALUE_BYTES).into(), _keys: keys }
    }

    async fn measure(&self, kind: &Kind, mut report: impl FnMut(&'static str, Measured)) {
        let [login, put, alone, beside, flooded] = kind.cases;
        // Whoever comes first finds nothing warm.
        self.puts(CLIENTS, None).await;
        report(login, self.used(self.logins(CLIENTS, None)).await);
        report(put, self.used(self.puts(CLIENTS, None)).await);
        report(alone, latency(&self.paced().await));
        let logins = Some(setting("BENCH_LOGINS", LOGINS_PER_SECOND));
        for (case, pace) in [(beside, logins), (flooded, None)] {
            let beside = self.logins_beside(pace);
            let puts = self.paced().await;
            let logins = beside.join().expect("who logs in does not panic");
            let mut measured = latency(&puts);
            measured.push((Figure::PerSecondBeside, per_second(&logins)));
            report(case, measured);
        }
    }

    async fn paced(&self) -> Latencies {
        self.puts(PACED_CLIENTS, Some(PUTS_PER_SECOND)).await
    }

    async fn logins(&self, clients: usize, per_second: Option<u32>) -> Latencies {
        logins(&self.strangers, clients, per_second, self.seconds).await
    }

    /// Logins of a thread of their own, so that what is measured meanwhile does not wait for who makes them.
    fn logins_beside(&self, per_second: Option<u32>) -> JoinHandle<Latencies> {
        let (endpoint, seconds) = (self.daemon.endpoint(), self.seconds);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let strangers = load::connect(&endpoint, CLIENTS).await;
                logins(&strangers, CLIENTS, per_second, seconds).await
            })
        })
    }

    async fn puts(&self, clients: usize, per_second: Option<u32>) -> Latencies {
        let value = self.value.clone();
        let put = move |mut client: Wire, number: usize| {
            let frame = wire::framed(&grpc::put(format!("key/{:06}", number as u64 % KEYS), value.clone()));
            async move { client.call(wire::PUT, frame).await.map(drop) }
        };
        drive_until(&self.users, clients, per_second, now() + self.seconds, put).await
    }

    /// What a load has shown, and what it cost the member.
    async fn used(&self, load: impl Future<Output = Latencies>) -> Measured {
        let pid = self.daemon.pid().to_string();
        let before = Usage::of(&pid);
        let latencies = load.await;
        let cpu = Usage::of(&pid).since(before).cpu.as_secs_f64() / count(&latencies);
        let mut measured = vec![(Figure::PerSecond, per_second(&latencies))];
        measured.push((Figure::PerSecondAndCore, 1.0 / cpu));
        measured.push((Figure::CpuMicros, cpu * 1e6));
        measured.extend(latency(&latencies));
        measured
    }
}

/// Logins of users by turns.
async fn logins(connections: &[Wire], clients: usize, per_second: Option<u32>, time: Duration) -> Latencies {
    let login = move |mut client: Wire, number: usize| async move {
        let (name, password) = (user(number % USERS), PASSWORD.to_owned());
        let answer = client.call(AUTHENTICATE, wire::framed(&pb::AuthenticateRequest { name, password })).await?;
        let answer: pb::AuthenticateResponse = wire::unframed(answer)?;
        if answer.token.is_empty() { Err(Status::internal("no token")) } else { Ok(()) }
    };
    drive_until(connections, clients, per_second, now() + time, login).await
}

fn latency(latencies: &Latencies) -> Measured {
    let micros = |percent| latencies.percentile(percent).as_secs_f64() * 1e6;
    vec![(Figure::MedianMicros, micros(50)), (Figure::P99Micros, micros(99))]
}

fn per_second(latencies: &Latencies) -> f64 {
    count(latencies) / latencies.elapsed.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a count of a bench")]
fn count(latencies: &Latencies) -> f64 {
    latencies.each.len() as f64
}

fn user(number: usize) -> String {
    format!("user{number}")
}

/// The flag that asks for this kind of tokens, with keys that are made for it.
fn token_flag(kind: &Kind, directory: &Path) -> String {
    if kind.key.is_empty() {
        return format!("--auth-token={}", kind.name);
    }
    let [private, public] = ["private.pem", "public.pem"].map(|name| directory.join(name).display().to_string());
    openssl(&format!("genpkey {} -out {private}", kind.key));
    openssl(&format!("pkey -in {private} -pubout -out {public}"));
    format!("--auth-token=jwt,pub-key={public},priv-key={private},sign-method={},ttl=1h", kind.name)
}

fn openssl(words: &str) {
    let output = Command::new("openssl").args(words.split(' ')).output().expect("apt-get install openssl");
    assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Users that may do everything with keys, and authentication. Returns a token of each, which also makes their passwords known
/// to be right.
async fn make_users(endpoint: &str) -> Vec<String> {
    let client = Client::connect(endpoint).await.expect("the member serves");
    let mut auth = AuthClient::new(client.channel);
    let role = "root".to_owned();
    auth.role_add(pb::AuthRoleAddRequest { name: role.clone() }).await.expect("a role");
    for name in (0..USERS).map(user).chain([role.clone()]) {
        let add = pb::AuthUserAddRequest { name: name.clone(), password: PASSWORD.to_owned(), ..Default::default() };
        auth.user_add(add).await.expect("a user");
        auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: name, role: role.clone() }).await.expect("a grant");
    }
    auth.auth_enable(pb::AuthEnableRequest {}).await.expect("authentication");
    let mut tokens = Vec::new();
    for name in (0..USERS).map(user) {
        let login = pb::AuthenticateRequest { name, password: PASSWORD.to_owned() };
        tokens.push(auth.authenticate(login).await.expect("a token").into_inner().token);
    }
    tokens
}
