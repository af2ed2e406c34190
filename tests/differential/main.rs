//! One seeded stream of requests, sent in lockstep to the daemon under test and to the real etcd: every answer, every
//! refusal, every revision, every event and the hash of the whole history must be equal.
//!
//! `make test` runs the short form. `DIFF_OPS=1000000` makes it long, `DIFF_SEED=n` replays one stream exactly,
//! `SUBJECT_BIN=path` compares another executable. A failure prints the seed, the position and the requests before it.

mod generate;
mod send;
#[path = "../support/mod.rs"]
mod support;
mod ties;

use generate::{Generator, Op};
use quorate::pb::etcdserverpb::HashKvRequest;
use send::{Events, Outcome, Side};
use std::collections::{BTreeMap, VecDeque};
use support::daemon::{self, Daemon};
use support::program::Program;
use support::{random::Random, setting};

/// Requests of the short form.
const OPS: u64 = 20_000;
/// Requests between two comparisons of hash and events.
const CHECK_EVERY: u64 = 200;
/// Requests shown before the one that differs.
const CONTEXT: usize = 6;
/// Longest text of one request or answer shown.
const SHOWN_CHARS: usize = 4_000;
/// Longest run of one character shown.
const RUN_CHARS: usize = 8;
/// Neither side waits for the disk, a crash is not part of this test; and neither runs out of space.
const FLAGS: [&str; 2] = ["--unsafe-no-fsync", "--quota-backend-bytes=8589934592"];

/// Compaction points whose hash etcd remembers.
const REMEMBERED: usize = 10;

/// Where the answers may differ on purpose. The stream holds no other such request, so this is the whole list:
/// keys over 32 000 bytes are refused by us and are never generated; `RangeStream` may cut its chunks elsewhere, so the
/// merged answer is compared; pairs that a sort holds equal stand in no defined order (see `ties`); ids of members and
/// clusters, terms and remaining seconds are compared by being there; and at the points it compacted to last, etcd may
/// answer `HashKV` with the hash it took while it compacted (see `Compactions`).
const DELIBERATE: &str = "the hash etcd remembers of its last ten compactions";

/// The compactions accepted last, each with the one before it.
///
/// etcd visits every row at or below the point it compacts to, hashes them by the way as they were before, and answers for
/// that point from memory for a while, even when it is compacted away. Our compaction visits only what changed since the
/// one before, so that there is no such hash to remember: we answer for what is there, relative to the newest compaction,
/// as etcd does after a restart. Nothing but exactly this is let pass.
#[derive(Default)]
struct Compactions {
    points: VecDeque<(i64, i64)>,
}

impl Compactions {
    fn accepted(&mut self, revision: i64) {
        let before = self.points.back().map_or(-1, |(revision, _)| *revision);
        self.points.push_back((revision, before));
        if self.points.len() > REMEMBERED {
            self.points.pop_front();
        }
    }

    /// Whether etcd answers from memory, and we for what is there.
    fn explain(&self, op: &Op, ours: &Outcome, theirs: &Outcome) -> bool {
        let Op::HashKv(HashKvRequest { revision }) = op else { return false };
        let Some((_, before)) = self.points.iter().find(|(point, _)| point == revision) else { return false };
        let is_newest = self.points.back().is_some_and(|(newest, _)| newest == revision);
        let relative_to = |compacted: i64| format!("compact_revision: {compacted}, hash_revision: {revision} }}");
        let ours_is_right = if is_newest {
            ours.text.ends_with(&relative_to(*revision)) && ours.revision == theirs.revision
        } else {
            ours.text == "OutOfRange: etcdserver: mvcc: required revision has been compacted"
        };
        ours_is_right && theirs.text.ends_with(&relative_to(*before))
    }
}

#[test]
fn answers_are_those_of_etcd() {
    let seed = setting("DIFF_SEED", 1);
    let (ours, theirs) = (Daemon::start(&Program::subject(), &FLAGS), Daemon::start(&Program::etcd(), &FLAGS));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = runtime.block_on(async {
        let sides = [Side::connect(&ours.endpoint()).await, Side::connect(&theirs.endpoint()).await];
        Lockstep::new(seed, sides).run(setting("DIFF_OPS", OPS)).await
    });
    if let Err(report) = done {
        panic!("{report}\nlog of the subject:\n{}", daemon::tail(&ours.log(), 2_000));
    }
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

/// Both sides and the stream they share.
struct Lockstep {
    seed: u64,
    generator: Generator,
    sides: [Side; 2],
    recent: VecDeque<String>,
    compactions: Compactions,
    /// Answers that differed as `Compactions` explains.
    explained: u64,
    /// Requests accepted and refused, by kind.
    answered: BTreeMap<&'static str, [u64; 2]>,
}

impl Lockstep {
    fn new(seed: u64, sides: [Side; 2]) -> Self {
        let generator = Generator::new(Random::new(seed));
        let (recent, compactions, answered) = (VecDeque::new(), Compactions::default(), BTreeMap::new());
        Self { seed, generator, sides, recent, compactions, explained: 0, answered }
    }

    async fn run(mut self, ops: u64) -> Result<(), String> {
        for at in 0..ops {
            if at % CHECK_EVERY == CHECK_EVERY - 1 {
                self.step(at, Op::hash_now()).await?;
                self.compare_events(at).await?;
            }
            let op = self.generator.next_op();
            if matches!(op, Op::Compact(_)) {
                // Earlier values of the events still on their way would be gone on the faster side alone.
                self.compare_events(at).await?;
            }
            self.step(at, op).await?;
        }
        self.compare_events(ops).await?;
        let Self { seed, explained, answered, .. } = &self;
        println!("{ops} requests, seed {seed}, all alike; accepted and refused: {answered:?}");
        println!("{explained} times {DELIBERATE}");
        let one_sided: Vec<_> = self.answered.iter().filter(|(_, [accepted, _])| *accepted == 0).collect();
        assert!(one_sided.is_empty() || ops < OPS, "a stream that only fails proves little: {one_sided:?}");
        Ok(())
    }

    async fn step(&mut self, at: u64, op: Op) -> Result<(), String> {
        let [ours, theirs] = &mut self.sides;
        let (got, expected) = tokio::join!(ours.send(&op), theirs.send(&op));
        if got != expected {
            if !self.compactions.explain(&op, &got, &expected) {
                return Err(self.report(at, &format!("{op:?}"), &got.text, &expected.text));
            }
            self.explained += 1;
        }
        if let Op::Compact(request) = &op
            && expected.accepted
        {
            self.compactions.accepted(request.revision);
        }
        let [accepted, refused] = self.answered.entry(op.kind()).or_default();
        *(if expected.accepted { accepted } else { refused }) += 1;
        self.generator.learn(&op, &expected);
        self.recent.push_back(format!("{op:?}"));
        if self.recent.len() > CONTEXT {
            self.recent.pop_front();
        }
        Ok(())
    }

    async fn compare_events(&mut self, at: u64) -> Result<(), String> {
        let revision = self.generator.revision();
        let [ours, theirs] = &mut self.sides;
        let (got, expected): (Events, Events) =
            tokio::join!(ours.events_until(revision), theirs.events_until(revision));
        if got == expected {
            return Ok(());
        }
        let first = got.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(got.len().min(expected.len()));
        let show = |events: &Events| format!("{} events, at {first}: {:?}", events.len(), events.get(first));
        Err(self.report(at, &format!("events up to revision {revision}"), &show(&got), &show(&expected)))
    }

    fn report(&self, at: u64, request: &str, got: &str, expected: &str) -> String {
        let recent: Vec<_> = self.recent.iter().map(|op| format!("  {}", shown(op, 0))).collect();
        let differs =
            got.bytes().zip(expected.bytes()).position(|(a, b)| a != b).unwrap_or(got.len().min(expected.len()));
        format!(
            "DIFF_SEED={} request {at} differs at character {differs} (known difference: {DELIBERATE})\nbefore:\n{}\nrequest:\n  {}\nours:\n  {}\netcd:\n  {}",
            self.seed,
            recent.join("\n"),
            shown(request, 0),
            shown(got, differs),
            shown(expected, differs),
        )
    }
}

/// A window of `text` around the character `at`, long runs of one character cut short.
fn shown(text: &str, at: usize) -> String {
    let from = at.saturating_sub(SHOWN_CHARS / 2);
    let (mut last, mut run) = (None, 0);
    let short = text.chars().skip(from).filter(|c| {
        run = if last.replace(*c) == Some(*c) { run + 1 } else { 0 };
        run < RUN_CHARS
    });
    short.take(SHOWN_CHARS).collect()
}
