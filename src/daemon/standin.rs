//! What the commands that stand in for a cluster have in common: their threads, signals, and words for systemd.

use std::{future::Future, process::ExitCode, time::Duration};

use anyhow::{Context as _, Error, Result};
use tokio::{
    runtime::{Builder, Runtime},
    select,
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::{clock, config::Sources};

use super::{
    descriptors::Descriptors,
    lifecycle::Ending,
    logging, report,
    systemd::{self, State},
};

/// How often the service manager hears how things stand.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Records of a command that has no options for them, as etcd writes them.
///
/// # Errors
/// A second call.
pub(super) fn start_log() -> Result<logging::Control> {
    logging::start(&logging::Options {
        level: Level::INFO,
        shape: logging::Shape::Json,
        outputs: vec![logging::Output::Stderr],
        rotation: None,
    })
}

/// Threads for everything such a command does, one for each processor.
///
/// # Errors
/// If the system has none to give.
pub(super) fn start_runtime() -> Result<Runtime> {
    Builder::new_multi_thread().thread_name("worker").enable_all().build().context("starting tokio")
}

/// Runs a command whose options were read, or not, to its end.
pub(super) fn carry_out<O>(options: Result<O, ExitCode>, run: impl FnOnce(&O) -> Result<Ending>) -> ExitCode {
    let options = match options {
        Ok(options) => options,
        Err(code) => return code,
    };
    match run(&options) {
        Ok(ending) => ending.finish(),
        Err(error) => {
            report(&format!("{error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Serves on threads of its own until `served` ends; what it is given is the number of connections there may be.
///
/// # Errors
/// What serving ends with, or a lack of threads or descriptors.
pub(super) fn run<F>(sources: &Sources, served: impl FnOnce(usize) -> F) -> Result<Ending>
where
    F: Future<Output = Result<Ending>>,
{
    let arguments: Vec<_> = sources.args.iter().map(|argument| argument.to_string_lossy()).collect();
    tracing::info!(args = ?arguments, "Running: ");
    let connections_max = Descriptors::of_process()?.places.clients;
    let runtime = start_runtime()?;
    let ending = runtime.block_on(served(connections_max));
    runtime.shutdown_timeout(Duration::ZERO);
    ending
}

/// What a supervisor or an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// An orderly end, by this signal.
    End(i32),
    /// To have everything that can change read again.
    Reload,
}

/// The signals of a command that stands in for a cluster. SIGQUIT ends it as it ends any process.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Watches them from here on.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub(super) fn watch() -> Result<Self> {
        let open = |kind| signal(kind).context("watching signals");
        Ok(Self {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            hangup: open(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Wish {
        select! {
            _ = self.terminate.recv() => Wish::End(SignalKind::terminate().as_raw_value()),
            _ = self.interrupt.recv() => Wish::End(SignalKind::interrupt().as_raw_value()),
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}

/// Tells the service manager how things stand, whenever that has changed, until `stop` is cancelled.
pub(super) async fn report_status(line: impl Fn() -> String, stop: CancellationToken) -> Result<(), Error> {
    let mut last = line();
    loop {
        select! {
            () = sleep(STATUS_INTERVAL) => {}
            () = stop.cancelled() => return Ok(()),
        }
        let now = line();
        if now != last {
            systemd::notify(&[State::Status(now.clone())]);
            last = now;
        }
    }
}

/// Feeds the watchdog of systemd, if there is one, twice per period: as long as tasks are run at all.
pub(super) async fn feed_watchdog(stop: CancellationToken) -> Result<(), Error> {
    let Some(period) = systemd::watchdog_period() else {
        stop.cancelled().await;
        return Ok(());
    };
    loop {
        systemd::notify(&[State::Watchdog]);
        select! {
            () = sleep(period / 2) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Tells the service manager that a reload begins; `true`: its end has to be told.
pub(super) fn tell_reload() -> bool {
    systemd::notify(&[State::Reloading, State::Monotonic(clock::since_boot())]);
    true
}

/// Tells the service manager of a reload, around `work`.
pub(super) async fn reload<T>(work: impl Future<Output = T>) -> T {
    tell_reload();
    let outcome = work.await;
    systemd::notify(&[State::Ready]);
    outcome
}
