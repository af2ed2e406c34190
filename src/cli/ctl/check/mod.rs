//! `check`: whether a cluster stands a load, and what a load costs a member.
//!
//! Both checks write keys below a prefix of their own and delete them again. Answers go to standard output, progress to
//! standard error, if that is a terminal.

mod bar;
mod load;
mod report;

use std::{fmt, time::Duration};

use futures_util::future::try_join_all;
use tokio::{signal, time::Instant};

use super::{
    super::{
        failure::{Exit, Failure},
        go_text,
        parse::Call,
        speak::say,
        table::{Command, Flag, Group, Running, Values},
    },
    global::{self, Settings},
    keys::Span,
    metrics, session,
};
use crate::{
    client::{Client, ClientError},
    pb::etcdserverpb::{CompactionRequest, DefragmentRequest, DeleteRangeRequest, RangeRequest},
};
use bar::Bar;
use load::{Load, Pace, Shape};
use report::Report;

const LOAD: Flag = Flag::text("load", "s", "how much to write: small (s), medium (m), large (l) or xLarge (xl)")
    .values(Values::Words(&["small", "medium", "large", "xLarge"]));
const AUTO_COMPACT: Flag = Flag::switch("auto-compact", "compact what was written and deleted at the end");
const AUTO_DEFRAG: Flag = Flag::switch("auto-defrag", "defragment the members at the end");
const PERF_PREFIX: Flag = Flag::text("prefix", "/etcdctl-check-perf/", "what the keys that are written begin with");
const DURATION: Flag = Flag::duration("duration", "1m0s", "how long to write");
const SCALE_PREFIX: Flag =
    Flag::text("prefix", "/etcdctl-check-datascale/", "what the keys that are written begin with");

pub(super) const CHECK: Command = Command {
    name: "check",
    arguments: "<subcommand>",
    about: "Measures what a cluster stands",
    group: Group::Utility,
    commands: &[
        Command {
            name: "perf",
            arguments: "[options]",
            about: "Checks whether the cluster writes as fast as a load wants it",
            details: "Writes at a steady rate for a minute and judges what came of it.\n\n\
                      Writes each second, by how many clients: small 150 by 50, medium 1000 by 200, large 8000 by 500,\n\
                      xLarge 15000 by 1000. It fails if less than nine tenths of them were carried out, if one took more\n\
                      than half a second, or if times spread by more than 100 ms. The keys are deleted at the end.",
            flags: &[LOAD, PERF_PREFIX, AUTO_COMPACT, AUTO_DEFRAG, DURATION],
            run: Some(perf),
            ..Command::EMPTY
        },
        Command {
            name: "datascale",
            arguments: "[options]",
            about: "Checks how much memory the first endpoint takes for a number of keys",
            details: "Writes keys and tells by how much the memory of the first endpoint has grown.\n\n\
                      Keys, by how many clients: small 10000 by 50, medium 100000 by 200, large 1000000 by 500, xLarge\n\
                      3000000 by 1000, with 1024 bytes each. The keys are deleted at the end.",
            flags: &[LOAD, SCALE_PREFIX, AUTO_COMPACT, AUTO_DEFRAG],
            run: Some(datascale),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn perf(mut call: Call) -> Running {
    Box::pin(async move {
        let load = Load::named(call.flags.text(&LOAD))?;
        let check = Check::open(&mut call, &PERF_PREFIX, load.clients).await?;
        let quoted = go_text::quote(check.prefix.as_bytes());
        let hint = format!("prefix {quoted} has keys. Delete with 'etcdctl del --prefix {}' first", check.prefix);
        check.must_be_empty(&hint).await?;
        let duration = call.flags.duration(&DURATION);
        let pace = Pace::of(load.writes_per_second, duration);
        let writing = load::write(&check.clients, &check.prefix, Shape::PERF, &pace);
        let begun = Instant::now();
        let bar = Bar::begin(duration.as_secs());
        let report = bar.during(until_interrupted(writing, &pace), || begun.elapsed().as_secs()).await;
        match check.delete(Some(CLEANING_LIMIT)).await {
            Ok(revision) => check.compact(revision).await?,
            Err(why) => {
                let error = why.message.unwrap_or_default();
                say(format_args!("FAIL: Cleanup failed during key deletion: ERROR({error})\n"))?;
            }
        }
        check.defragment().await?;
        judge(&report, load.writes_per_second)
    })
}

/// The report of `writing`, which ends early when the process is interrupted.
async fn until_interrupted(writing: impl Future<Output = Report>, pace: &Pace) -> Report {
    let mut writing = std::pin::pin!(writing);
    tokio::select! {
        report = &mut writing => return report,
        _ = signal::ctrl_c() => pace.end(),
    }
    writing.await
}

/// Says how it went.
fn judge(report: &Report, wanted_per_second: u32) -> Result<(), Failure> {
    let mut passed = tell_errors(report)?;
    let rate = report.per_second();
    let rounded = report.whole_per_second() + 1;
    let mut tell = |is_good: bool, good: fmt::Arguments, bad: fmt::Arguments| {
        passed = passed && is_good;
        say(if is_good { good } else { bad })
    };
    tell(
        rate / f64::from(wanted_per_second) > RATE_SHARE_MIN,
        format_args!("PASS: Throughput is {rounded} writes/s\n"),
        format_args!("FAIL: Throughput too low: {rounded} writes/s\n"),
    )?;
    let (slowest, deviation) = (report.slowest(), report.deviation());
    tell(
        slowest <= SLOWEST_SECONDS_MAX,
        format_args!("PASS: Slowest request took {slowest:.6}s\n"),
        format_args!("Slowest request took too long: {slowest:.6}s\n"),
    )?;
    tell(
        deviation <= DEVIATION_SECONDS_MAX,
        format_args!("PASS: Stddev is {deviation:.6}s\n"),
        format_args!("Stddev too high: {deviation:.6}s\n"),
    )?;
    say(format_args!("{}\n", if passed { "PASS" } else { "FAIL" }))?;
    if passed { Ok(()) } else { Err(Failure::reported(Exit::Error)) }
}

/// Tells what went wrong; true if nothing did.
fn tell_errors(report: &Report) -> Result<bool, Failure> {
    if report.errors().is_empty() {
        return Ok(true);
    }
    say(format_args!("FAIL: too many errors\n"))?;
    for (error, count) in report.errors() {
        say(format_args!("FAIL: ERROR({error}) -> {count}\n"))?;
    }
    Ok(false)
}

fn datascale(mut call: Call) -> Running {
    Box::pin(async move {
        let load = Load::named(call.flags.text(&LOAD))?;
        let check = Check::open(&mut call, &SCALE_PREFIX, load.clients).await?;
        let quoted = go_text::quote(check.prefix.as_bytes());
        let hint = format!("prefix {quoted} has keys. Delete with etcdctl del --prefix {} first", check.prefix);
        check.must_be_empty(&hint).await?;
        let before = check.resident_bytes("before").await?;
        say(format_args!(
            "Start data scale check for work load [{} key-value pairs, {} bytes per key-value, {} concurrent clients].\n",
            load.keys,
            Shape::DATASCALE.bytes(),
            load.clients
        ))?;
        let pace = Pace::count(load.keys);
        let writing = load::write(&check.clients, &check.prefix, Shape::DATASCALE, &pace);
        let report = Bar::begin(load.keys).during(writing, || pace.begun()).await;
        let after = check.resident_bytes("after").await?;
        check.compact(check.delete(None).await?).await?;
        check.defragment().await?;
        if !tell_errors(&report)? {
            return Err(Failure::reported(Exit::Error));
        }
        let megabytes = (after - before) / (1024.0 * 1024.0);
        Ok(say(format_args!("PASS: Approximate system memory used : {megabytes:.2} MB.\n"))?)
    })
}

/// A check that is going to write.
struct Check {
    settings: Settings,
    clients: Vec<Client>,
    prefix: String,
    compacts: bool,
    defragments: bool,
}

impl Check {
    /// Connects as many clients.
    async fn open(call: &mut Call, prefix: &Flag, clients: usize) -> Result<Self, Failure> {
        let settings = session::settings(call)?;
        global::check_limits(&call.flags)?;
        let endpoints = || settings.client.endpoints.clone();
        let clients = try_join_all((0..clients).map(|_| session::connect(&settings, endpoints()))).await?;
        Ok(Self {
            clients,
            prefix: call.flags.text(prefix).to_owned(),
            compacts: call.flags.switch(&AUTO_COMPACT),
            defragments: call.flags.switch(&AUTO_DEFRAG),
            settings,
        })
    }

    fn first(&self) -> Result<&Client, Failure> {
        self.clients.first().ok_or_else(|| Failure::new(Exit::BadConnection, ClientError::NoEndpoints))
    }

    fn span(&self) -> Span {
        Span::of_prefix(self.prefix.as_bytes())
    }

    /// Refuses a prefix that somebody uses.
    async fn must_be_empty(&self, hint: &str) -> Result<(), Failure> {
        let Span { key, range_end } = self.span();
        let request = RangeRequest { key, range_end, limit: 1, ..RangeRequest::default() };
        let found = self.first()?.call(request, None).await?;
        if found.kvs.is_empty() { Ok(()) } else { Err(Failure::new(Exit::BadInput, hint)) }
    }

    /// What the first endpoint occupies; `when` tells the operator at which time it could not be read.
    async fn resident_bytes(&self, when: &str) -> Result<f64, Failure> {
        let endpoint = self.settings.client.endpoints.first().map_or("", String::as_str);
        let why = match metrics::read(endpoint, &self.settings, &[RESIDENT]).await {
            Ok(samples) => match samples.value(RESIDENT) {
                Some(bytes) if bytes > 0.0 => return Ok(bytes),
                _ => format!("could not find: {RESIDENT}"),
            },
            Err(error) => format!("fetch error: {error}"),
        };
        say(format_args!("{why}\nFAIL: Could not read {RESIDENT} {when} the put operations.\n"))?;
        Err(Failure::reported(Exit::Error))
    }

    /// Deletes what was written; tells the revision of that.
    async fn delete(&self, limit: Option<Duration>) -> Result<i64, Failure> {
        let Span { key, range_end } = self.span();
        let request = DeleteRangeRequest { key, range_end, prev_kv: false };
        let deleted = self.first()?.call(request, limit).await?;
        Ok(deleted.header.map_or(0, |header| header.revision))
    }

    /// Compacts up to `revision`, if that is asked for.
    async fn compact(&self, revision: i64) -> Result<(), Failure> {
        if !self.compacts {
            return Ok(());
        }
        say(format_args!("Compacting with revision {revision}\n"))?;
        self.first()?.call(CompactionRequest { revision, physical: true }, Some(CLEANING_LIMIT)).await?;
        Ok(say(format_args!("Compacted with revision {revision}\n"))?)
    }

    async fn defragment(&self) -> Result<(), Failure> {
        let endpoints = if self.defragments { &self.settings.client.endpoints[..] } else { &[] };
        for endpoint in endpoints {
            let quoted = go_text::quote(endpoint.as_bytes());
            say(format_args!("Defragmenting {quoted}\n"))?;
            let client = session::connect(&self.settings, vec![endpoint.clone()]).await?;
            client.call(DefragmentRequest {}, Some(CLEANING_LIMIT)).await?;
            say(format_args!("Defragmented {quoted}\n"))?;
        }
        Ok(())
    }
}

/// Time for each request of the cleaning up.
const CLEANING_LIMIT: Duration = Duration::from_secs(30);
/// The metric that tells what a process occupies.
const RESIDENT: &str = "process_resident_memory_bytes";
/// A cluster passes that carries out more than this share of what is wanted.
const RATE_SHARE_MIN: f64 = 0.9;
/// A cluster passes whose slowest write took no longer.
const SLOWEST_SECONDS_MAX: f64 = 0.5;
/// A cluster passes whose times have no greater standard deviation.
const DEVIATION_SECONDS_MAX: f64 = 0.1;
