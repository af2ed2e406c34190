//! One seeded stream of v2 requests, sent in lockstep to the daemon under test and to the real etcd 3.5.1, the last kind
//! that serves them: every status, header and body must be equal, every event of every watch, and what the sweep of
//! expired keys leaves.
//!
//! `V2_OPS=100000` makes it long, `DIFF_SEED=n` replays one stream exactly, `SUBJECT_BIN=path` compares another
//! executable, `V2_UNMASK=name` compares what that mask takes out, too, and `V2_DIFFERENCES=20` goes on after the first. A
//! failure prints the seed, the position and the requests before it.

#![expect(clippy::explicit_auto_deref, reason = "without it a list of texts would be taken for a list of unsized ones")]

mod accounts;
mod compare;
mod exchange;
mod generate;
mod script;
#[path = "../support/mod.rs"]
mod support;

use compare::{MASKED, Reduced};
use exchange::{Answer, Ask, Connection, Incoming};
use generate::{BRIEF_SECONDS_MIN, Generator, Op};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use support::daemon::{self, Daemon};
use support::mask::{Mask, without_numbers};
use support::program::Program;
use support::{now, random::Random, setting, wait_for};

/// Requests of the form that `make test` runs.
const OPS: u64 = 10_000;
/// Requests between two looks at the open watches.
const CHECK_EVERY: u64 = 20;
/// Watches open at a time.
const WATCHES_MAX: usize = 16;
/// Longest wait until both sides have told the same events.
const EVENTS_LIMIT: Duration = Duration::from_secs(10);
/// A pause in which everything that is still to come has come.
const QUIET: Duration = Duration::from_millis(300);
/// One request in so many begins a time in which writes may expire.
const BRIEF_EVERY: u64 = 1_800;
/// How long such a time lasts. Nothing written in it has expired at its end, however long one request takes.
const BRIEF_TRAFFIC: Duration = Duration::from_millis(700);
/// The sweep comes by twice a second.
const SWEEP: Duration = Duration::from_millis(700);
/// Differences at a time at which something may have expired on one side alone, because the machine stood still.
const STALLS_MAX: u64 = 3;
/// Requests between two lines that tell how far it is.
const PROGRESS_EVERY: u64 = 1_000;
/// Requests shown before the one that differs.
const CONTEXT: usize = 8;
/// Longest text of one request or answer shown.
const SHOWN_CHARS: usize = 3_000;

/// Neither side waits for the disk, a crash is not part of this test.
const FLAGS: [&str; 2] = ["--unsafe-no-fsync", "--enable-v2=true"];

#[test]
fn answers_are_those_of_etcd() {
    let ops = setting("V2_OPS", OPS);
    let sides = [Side::start(&Program::subject()), Side::start(&Program::etcd_3_5_1())];
    let mut lockstep = Lockstep::new(setting("DIFF_SEED", 1), sides);
    if let Err(report) = lockstep.run(ops) {
        let log = lockstep.sides[0].daemon.log();
        panic!("{report}\nlog of the subject:\n{}", daemon::tail(&log, 2_000));
    }
    lockstep.tell(ops);
}

/// The comparison sees one write that one side alone has got: etcd is compared with itself.
#[test]
fn a_planted_difference_is_found() {
    let sides = [(); 2].map(|()| Side::start(&Program::etcd_3_5_1()));
    let mut lockstep = Lockstep::new(3, sides);
    lockstep.run_random(0..60).expect("etcd differs from itself");
    let planted = Ask::new("PUT", "/v2/keys/_planted").with_form("value=1");
    lockstep.sides[0].connection.send(&planted, str::to_owned);
    assert_eq!(lockstep.sides[0].connection.receive("PUT").status, 201);
    let report = lockstep.run_random(60..120).expect_err("one write more is a difference");
    assert!(report.contains("x-etcd-index"), "{report}");
}

#[test]
fn generator_is_a_function_of_its_seed() {
    let stream = |seed| {
        let mut generator = Generator::new(Random::new(seed));
        (0..500).map(|_| format!("{:?}", generator.next_op())).collect::<Vec<_>>()
    };
    assert_eq!(stream(7), stream(7));
    assert_ne!(stream(7), stream(8));
}

/// Every mask hides something that would be a difference without it, and all of them together hide it.
#[test]
fn masks_are_needed() {
    let headers = |index: u32| {
        let names = ["content-length", "date", "x-raft-index", "x-raft-term"];
        names.map(|name| (name.to_owned(), index.to_string())).into()
    };
    let answer = |index: u32, body: String| Answer { status: 200, headers: headers(index), body, complete: true };
    let body = |index: u32, nodes: &str| {
        let time = format!(r#""ttl":{index},"expiration":"1970-01-01T00:00:0{index}Z""#);
        format!(r#"{{{time},"nodes":[{nodes}],"uptime":"{index}","startTime":"{index}"}}"#)
    };
    let (a, b) = (r#"{"key":"/a"}"#, r#"{"key":"/b"}"#);
    let usual = [answer(1, body(1, &[a, b].join(","))), answer(2, body(2, &[b, a].join(",")))];
    let versions = ["3.5.1", "3.7.1"].map(|version| answer(1, format!(r#"{{"etcdserver":"{version}"}}"#)));
    let past = [1, 9].map(|index| answer(1, format!(r#"{{"ttl":{index}}}"#)));
    for mask in MASKED {
        let ([one, two], target) = match mask.name {
            "etcdserver, etcdcluster, storage" => (&versions, "/version"),
            "ttl of the past" => (&past, "/v2/keys?wait=true&waitIndex=1"),
            _ => (&usual, "/v2/keys"),
        };
        let ask = Ask::new("GET", target);
        let alike = |without| {
            let reduced = |answer| Reduced::new(&ask, answer, &Mask::default(), without);
            reduced(one).agrees(&reduced(two))
        };
        assert!(alike(None), "{target}");
        assert!(!alike(Some(mask.name)), "{} ({}) hides nothing", mask.name, mask.reason);
    }
}

/// One daemon and how it is spoken with.
struct Side {
    daemon: Daemon,
    connection: Connection,
    names: Mask,
    member: String,
    /// Counters of the store at the beginning, which start-up and probes have moved.
    counted: BTreeMap<String, i64>,
}

impl Side {
    fn start(program: &Program) -> Self {
        let daemon = Daemon::start(program, &FLAGS);
        let (names, connection) = (Mask::of(&daemon), Connection::new(daemon.client));
        let mut side = Self { member: names.member().to_owned(), names, connection, daemon, counted: BTreeMap::new() };
        side.begin_counting();
        side
    }

    fn restart(&mut self) {
        self.daemon.terminate();
        self.daemon.restart();
        self.connection = Connection::new(self.daemon.client);
        self.begin_counting();
    }

    fn send(&mut self, ask: &Ask) {
        let (member, client, peer) = (&self.member, self.daemon.client.to_string(), self.daemon.peer.to_string());
        self.connection
            .send(ask, |text| text.replace("MEMBER", member).replace("CLIENT", &client).replace("PEER", &peer));
    }

    fn ask(&mut self, ask: &Ask) -> Answer {
        self.send(ask);
        self.connection.receive(ask.method)
    }

    fn counters(&mut self) -> (Answer, BTreeMap<String, i64>) {
        let answer = self.ask(&Ask::new("GET", "/v2/stats/store"));
        let counters = serde_json::from_str(&answer.body).unwrap_or_default();
        (answer, counters)
    }

    fn begin_counting(&mut self) {
        self.counted = self.counters().1;
    }

    /// What was counted since the beginning, behind the answer without its numbers. Successes and failures are added up:
    /// etcd takes a comparison that fails, and other refusals, for successes. Reads are left out, because each side looks
    /// at its users, and answers probes, in its own way; so are updates, which in etcd those of members count among, and
    /// watchers, because a connection that was closed is noticed later.
    fn counters_since(&mut self) -> (Ask, Answer) {
        let (mut answer, counters) = self.counters();
        for name in counters.keys() {
            answer.body = without_numbers(&answer.body, name);
        }
        let of = |counters: &BTreeMap<String, i64>, name: &str| counters.get(name).copied().unwrap_or_default();
        let since = |name: &str| of(&counters, name) - of(&self.counted, name);
        let kinds = ["sets", "delete", "create", "compareAndSwap", "compareAndDelete"];
        let both = kinds.map(|kind| since(&format!("{kind}Success")) + since(&format!("{kind}Fail")));
        answer.body = format!("{}\n{kinds:?}: {both:?}, expired: {}", answer.body, since("expireCount"));
        (Ask::new("GET", "/v2/stats/store"), answer)
    }

    fn index(&mut self) -> String {
        let answer = self.ask(&Ask::new("GET", "/v2/keys"));
        answer.header("x-etcd-index").unwrap_or_default().to_owned()
    }
}

/// A watch that is open on both sides.
struct Watch {
    ask: Ask,
    incoming: [Incoming; 2],
    /// The sides have told different things, which was told once.
    given_up: bool,
}

/// Both sides and the stream they share.
struct Lockstep {
    seed: u64,
    generator: Generator,
    random: Random,
    sides: [Side; 2],
    watches: Vec<Watch>,
    recent: VecDeque<String>,
    /// Since when writes may expire, and until when the last of them will have.
    brief: Option<(Instant, Instant)>,
    stalls: u64,
    /// The mask that is left out; empty: none.
    without: String,
    differences: Vec<String>,
    began: Instant,
    /// Answers by method and status.
    answered: BTreeMap<(&'static str, u16), u64>,
    events: u64,
    sweeps: u64,
    /// Updates of directories, which were not sent.
    left_out: u64,
}

impl Lockstep {
    fn new(seed: u64, sides: [Side; 2]) -> Self {
        Self {
            seed,
            generator: Generator::new(Random::new(seed)),
            random: Random::new(!seed),
            sides,
            watches: Vec::new(),
            recent: VecDeque::new(),
            brief: None,
            stalls: 0,
            without: setting("V2_UNMASK", String::new()),
            differences: Vec::new(),
            began: now(),
            answered: BTreeMap::new(),
            events: 0,
            sweeps: 0,
            left_out: 0,
        }
    }

    /// The script, then the stream with a restart in its middle, and last what costs the quorum.
    fn run(&mut self, ops: u64) -> Result<(), String> {
        for (at, op) in script::ops().into_iter().enumerate() {
            self.step(at as u64, op)?;
        }
        self.compare_all(0)?;
        self.run_random(0..ops / 2)?;
        self.settle(ops / 2)?;
        self.compare_all(ops / 2)?;
        self.watches.clear();
        self.sides.iter_mut().for_each(Side::restart);
        self.run_random(ops / 2..ops)?;
        self.settle(ops)?;
        self.compare_all(ops)?;
        self.verdict()
    }

    fn run_random(&mut self, range: std::ops::Range<u64>) -> Result<(), String> {
        for at in range {
            if at % PROGRESS_EVERY == 0 {
                println!("{at} after {:?}", self.began.elapsed());
            }
            if self.random.below(BRIEF_EVERY) == 0 {
                self.generator.brief = true;
            }
            if self.brief.is_some_and(|(since, _)| since.elapsed() > BRIEF_TRAFFIC) {
                self.settle(at)?;
            }
            if at % CHECK_EVERY == CHECK_EVERY - 1 {
                self.compare_events(at)?;
            }
            let op = self.generator.next_op();
            self.step(at, op)?;
        }
        Ok(())
    }

    fn step(&mut self, at: u64, op: Op) -> Result<(), String> {
        match op {
            Op::Ask(ask) => self.ask(at, &ask),
            Op::Brief(ask, seconds) => {
                let asked = now();
                self.ask(at, &ask)?;
                let (since, until) = self.brief.unwrap_or((asked, asked));
                self.brief = Some((since, until.max(now() + Duration::from_secs(seconds))));
                if seconds == 0 { self.settle(at) } else { Ok(()) }
            }
            Op::Watch(ask) => self.watch(at, ask),
            Op::GiveUp(number) => {
                self.compare_events(at)?;
                if number < self.watches.len() {
                    self.watches.remove(number);
                }
                Ok(())
            }
            Op::Counters => self.compare_counters(at),
        }
    }

    fn ask(&mut self, at: u64, ask: &Ask) -> Result<(), String> {
        if self.would_update_directory(at, ask)? {
            self.left_out += 1;
            return Ok(());
        }
        let [ours, theirs] = &mut self.sides;
        ours.send(ask);
        theirs.send(ask);
        let answers = [ours.connection.receive(ask.method), theirs.connection.receive(ask.method)];
        self.compare(at, ask, &answers)?;
        self.generator.learn(ask, &answers[1]);
        *self.answered.entry((ask.method, answers[1].status)).or_default() += 1;
        self.remember(ask);
        Ok(())
    }

    /// Whether the request updates a directory without a value. That changes its time to live in etcd 3.3 and here, while
    /// 3.4 and 3.5 answer 500 (their check of a write's outcome was meant for files): from then on nothing would be alike.
    /// Who holds us to the right answer is `tests/compat_v2_clients.rs`.
    fn would_update_directory(&mut self, at: u64, ask: &Ask) -> Result<bool, String> {
        if !ask.may_update_without_value() {
            return Ok(false);
        }
        let path = ask.target.split('?').next().unwrap_or_default();
        let look = Ask { headers: ask.headers.clone(), ..Ask::new("GET", path) };
        let answers = self.sides.each_mut().map(|side| side.ask(&look));
        self.compare(at, &look, &answers)?;
        let found: serde_json::Value = serde_json::from_str(&answers[1].body).unwrap_or_default();
        Ok(found.pointer("/node/dir").is_some_and(|dir| dir == true) || answers[1].status == 401)
    }

    fn compare(&mut self, at: u64, ask: &Ask, answers: &[Answer; 2]) -> Result<(), String> {
        let [got, expected] = self.reduced(ask, answers);
        // Two sides that do not answer are not alike: then the request says nothing.
        if got.agrees(&expected) && answers[1].status != 0 {
            return Ok(());
        }
        // Something may have expired here and not there: such a difference proves nothing, if it goes away.
        let patience = Duration::from_secs(BRIEF_SECONDS_MIN).saturating_sub(Duration::from_millis(100));
        if self.brief.is_some_and(|(since, _)| since.elapsed() > patience) && self.stalls < STALLS_MAX {
            self.stalls += 1;
            return Ok(());
        }
        self.differ(at, ask, &got.shown(), &expected.shown())
    }

    fn reduced(&self, ask: &Ask, answers: &[Answer; 2]) -> [Reduced; 2] {
        let without = Some(self.without.as_str()).filter(|name| !name.is_empty());
        let ([ours, theirs], [got, expected]) = (&self.sides, answers);
        [Reduced::new(ask, got, &ours.names, without), Reduced::new(ask, expected, &theirs.names, without)]
    }

    fn remember(&mut self, ask: &Ask) {
        self.recent.push_back(shown_ask(ask));
        if self.recent.len() > CONTEXT {
            self.recent.pop_front();
        }
    }

    /// Opens a watch on both sides; what is answered at once is compared with the others.
    fn watch(&mut self, at: u64, ask: Ask) -> Result<(), String> {
        if self.watches.len() >= WATCHES_MAX {
            self.compare_events(at)?;
            if self.watches.len() >= WATCHES_MAX {
                let oldest = self.random.index(self.watches.len());
                self.watches.remove(oldest);
            }
        }
        for side in &mut self.sides {
            side.send(&ask);
        }
        let incoming = self.sides.each_mut().map(|side| side.connection.detach(ask.method));
        match incoming {
            [Ok(ours), Ok(theirs)] => {
                self.remember(&ask);
                self.watches.push(Watch { ask, incoming: [ours, theirs], given_up: false });
                Ok(())
            }
            both => {
                let told = both.map(|side| side.map_or_else(|error| error.to_string(), |_| "an answer".to_owned()));
                self.differ(at, &ask, &told[0], &told[1])
            }
        }
    }

    /// Holds what every open watch has told so far against the other side's; those whose answer is complete are over.
    fn compare_events(&mut self, at: u64) -> Result<(), String> {
        let (mut watches, mut failed) = (std::mem::take(&mut self.watches), Vec::new());
        for watch in &mut watches {
            let mut last = None;
            let agreed = wait_for(EVENTS_LIMIT, || {
                watch.incoming.iter_mut().for_each(Incoming::poll);
                if watch.incoming.iter().all(|side| !side.fresh) {
                    return Some(());
                }
                let [Some(ours), Some(theirs)] = watch.incoming.each_ref().map(Incoming::so_far) else { return None };
                let [got, expected] = self.reduced(&watch.ask, &[ours, theirs]);
                let agrees = got.agrees(&expected) || goes_on_where_etcd_stops(&watch.ask, &got, &expected);
                last = Some((got, expected));
                agrees.then_some(())
            });
            if agreed.is_none() {
                let shown = last.map_or_else(Default::default, |(got, expected)| (got.shown(), expected.shown()));
                failed.push((watch.ask.clone(), shown));
                watch.given_up = true;
                continue;
            }
            let answer = watch.incoming[1].so_far().filter(|_| watch.incoming[1].fresh);
            self.events += answer.map_or(0, |answer| answer.body.matches("{\"action\"").count() as u64);
            // What a stream has told need not be compared again, but one of the past is compared as a whole.
            let forget = watch.ask.target.contains("stream=true") && !watch.ask.target.contains("waitIndex=");
            watch.incoming.iter_mut().for_each(|side| side.settled(forget));
        }
        let is_over = |watch: &Watch| watch.given_up || watch.incoming.iter().all(Incoming::is_complete);
        let (over, open): (Vec<_>, Vec<_>) = watches.into_iter().partition(is_over);
        for answer in over.iter().filter_map(|watch| watch.incoming[1].so_far()) {
            *self.answered.entry(("watch", answer.status)).or_default() += 1;
        }
        self.watches = open;
        failed.iter().try_for_each(|(ask, (got, expected))| self.differ(at, ask, got, expected))
    }

    /// Waits until what was written with a short time to live is gone, on both sides alike.
    fn settle(&mut self, at: u64) -> Result<(), String> {
        self.generator.brief = false;
        let Some((_, until)) = self.brief.take() else { return Ok(()) };
        self.sweeps += 1;
        std::thread::sleep((until + SWEEP).saturating_duration_since(now()));
        let mut indexes = [String::new(), String::new()];
        let alike = wait_for(EVENTS_LIMIT, || {
            indexes = self.sides.each_mut().map(Side::index);
            (indexes[0] == indexes[1]).then_some(())
        });
        let tree = Ask::new("GET", "/v2/keys?recursive=true&sorted=true");
        if alike.is_none() {
            self.differ(at, &tree, &format!("index {}", indexes[0]), &format!("index {}", indexes[1]))?;
        }
        self.ask(at, &tree)?;
        self.compare_events(at)
    }

    /// The whole tree, the counters, and that no watch tells anything more.
    fn compare_all(&mut self, at: u64) -> Result<(), String> {
        self.ask(at, &Ask::new("GET", "/v2/keys?recursive=true&sorted=true"))?;
        self.compare_counters(at)?;
        std::thread::sleep(QUIET);
        self.compare_events(at)
    }

    fn compare_counters(&mut self, at: u64) -> Result<(), String> {
        let [(ask, ours), (_, theirs)] = self.sides.each_mut().map(Side::counters_since);
        self.compare(at, &ask, &[ours, theirs])
    }

    /// Takes down a difference; that is the end, unless `V2_DIFFERENCES` asks for more of them.
    fn differ(&mut self, at: u64, ask: &Ask, got: &str, expected: &str) -> Result<(), String> {
        let report = self.report(at, ask, got, expected);
        self.differences.push(report);
        if self.differences.len() < setting("V2_DIFFERENCES", 1) { Ok(()) } else { self.verdict() }
    }

    fn verdict(&self) -> Result<(), String> {
        if self.differences.is_empty() { Ok(()) } else { Err(self.differences.join("\n\n")) }
    }

    fn report(&self, at: u64, ask: &Ask, got: &str, expected: &str) -> String {
        let differs = got.chars().zip(expected.chars()).position(|(a, b)| a != b);
        let differs = differs.unwrap_or(got.chars().count().min(expected.chars().count()));
        let recent: Vec<_> = self.recent.iter().map(|ask| format!("  {ask}\n")).collect();
        let recent = recent.concat();
        let masks: Vec<_> = MASKED.iter().map(|mask| mask.name).collect();
        format!(
            "DIFF_SEED={} request {at} differs at character {differs} (masked: {masks:?})\nbefore:\n{recent}request:\n  {}\nours:\n  {}\netcd:\n  {}",
            self.seed,
            shown_ask(ask),
            shown(got, differs),
            shown(expected, differs),
        )
    }

    fn tell(&self, ops: u64) {
        let Self { seed, answered, events, sweeps, stalls, left_out, .. } = self;
        println!("{ops} requests behind the script, seed {seed}, all alike; by method and status: {answered:?}");
        println!("{events} events told to watches, {sweeps} times everything brief expired, {stalls} stalls");
        println!("{left_out} updates of directories left out");
        for mask in MASKED {
            println!("masked: {}: {}", mask.name, mask.reason);
        }
        assert!(ops < OPS || (*events > 50 && *sweeps > 5), "a stream without events proves little");
    }
}

/// A stream that begins in the past ends, in etcd, after the first event it tells, while the connection stays open.
/// Ours goes on. Nothing but exactly this is let pass.
fn goes_on_where_etcd_stops(ask: &Ask, ours: &Reduced, theirs: &Reduced) -> bool {
    let stream = ask.target.contains("stream=true") && ask.target.contains("waitIndex=");
    let told = theirs.text.strip_suffix("(goes on)");
    stream
        && told.is_some_and(|told| told.ends_with('\n') && told.contains("{\"action\"") && ours.text.starts_with(told))
}

fn shown_ask(ask: &Ask) -> String {
    let headers: Vec<_> = ask.headers.iter().map(|(name, value)| format!(" [{name}: {value}]")).collect();
    let body = String::from_utf8_lossy(&ask.body);
    shown(&format!("{} {}{} {body}", ask.method, ask.target, headers.concat()), 0)
}

/// A window of `text` around the character `at`.
fn shown(text: &str, at: usize) -> String {
    text.chars().skip(at.saturating_sub(SHOWN_CHARS / 2)).take(SHOWN_CHARS).collect()
}
