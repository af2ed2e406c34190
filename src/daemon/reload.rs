//! A new configuration for the running daemon: read again at SIGHUP, or when a file of it has changed.
//!
//! Everything is read and checked as at a start; what can fail is done first, then the live options are applied together.
//! A mistake anywhere leaves every running value as it was. A changed option that needs a restart is named and waits; it
//! keeps nothing else from being applied, because it is right and the next start takes it.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Error, Result};
use tokio::{
    select,
    signal::unix::Signal,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Api,
    config::{Change, Changes, Config, Loaded, Loudness, Notice, Reread, Rereader, Settings, Sources},
    metrics,
};

use super::{
    lifecycle::Status,
    log_notice, logging, settings,
    watch::{LOOK_INTERVAL, Look, Watch},
};

/// How often files are read again that change while they are read; then they are taken as they are.
const READ_ATTEMPTS: usize = 3;

/// Why the configuration is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    /// SIGHUP: somebody wants it so.
    Hangup,
    /// A file has changed and rests.
    File,
}

impl Trigger {
    fn name(self) -> &'static str {
        match self {
            Self::Hangup => "SIGHUP",
            Self::File => "a changed file",
        }
    }
}

/// What runs and takes over a new configuration.
pub(super) trait Subject: Send + Sync + 'static {
    /// Takes over what is live of `config`; it cannot fail.
    fn apply(&self, config: &Config);
    /// A reload begins; `true` if its end has to be told.
    fn reload_begins(&self) -> bool;
    /// It has ended, with the first line of why it was refused; `is_told` is what [`Subject::reload_begins`] said.
    fn reload_ended(&self, refusal: Option<String>, is_told: bool);
}

/// A member.
impl Subject for (Arc<Api>, Arc<Status>) {
    fn apply(&self, config: &Config) {
        self.0.set_options(settings::serve_options(config));
        // As those of the log: whatever rotates them has moved them away.
        self.0.reopen_audit();
        self.0.server().tune(settings::tunables(config));
    }

    fn reload_begins(&self) -> bool {
        self.1.reload_begins()
    }

    fn reload_ended(&self, refusal: Option<String>, is_told: bool) {
        self.1.reload_ended(refusal, is_told);
    }
}

/// What the daemon was started with and has taken over since.
#[derive(Debug)]
pub(super) struct Reloading {
    reader: Arc<Rereader>,
    files: Vec<PathBuf>,
    watch: Watch,
    log: logging::Control,
    config: Config,
    settings: Settings,
    /// Warnings that were logged already.
    told: Vec<Notice>,
}

impl Reloading {
    /// Takes down what the files are like at the start that came to `loaded`.
    pub(super) fn new(sources: Sources, loaded: Loaded, log: logging::Control) -> Self {
        let (reader, notices) = Rereader::new(sources, &loaded);
        notices.iter().for_each(log_notice);
        let files = reader.files();
        let watch = Watch::new(Look::at(&files));
        let Loaded { config, settings, notices: told, .. } = loaded;
        Self { reader: Arc::new(reader), files, watch, log, config, settings, told }
    }

    /// Serves until `stop` is cancelled.
    ///
    /// # Errors
    /// Never; what fails is told, and tried again with the next change.
    pub(super) async fn run(
        mut self,
        subject: impl Subject,
        mut hangup: Signal,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangup.recv() => self.reload(Trigger::Hangup, &subject).await,
                _ = look.tick() => {
                    if self.is_due().await {
                        self.reload(Trigger::File, &subject).await;
                    }
                }
            }
        }
    }

    /// Whether a file has changed and is worth reading.
    async fn is_due(&mut self) -> bool {
        let look = self.look().await;
        let Some(change) = self.watch.sees(look) else { return false };
        let Some(path) = self.watch.taken().emptied_since(&change.before) else { return true };
        tracing::warn!(
            path = %path.display(),
            "a file of the configuration is empty or gone, as it is while somebody writes it anew: it is read when there is \
             something in it, or at SIGHUP"
        );
        false
    }

    /// A file system that does not answer must not hold up the others who use this thread.
    async fn look(&self) -> Look {
        let files = self.files.clone();
        spawn_blocking(move || Look::at(&files)).await.unwrap_or_default()
    }

    async fn reload(&mut self, trigger: Trigger, subject: &impl Subject) {
        let is_told = subject.reload_begins();
        let outcome = self.take_over(trigger, subject).await;
        let (result, refusal) = match outcome {
            Ok(()) => ("applied", None),
            Err(error) => {
                let why = format!("{error:#}");
                tracing::error!(
                    trigger = trigger.name(),
                    errors = why,
                    "the configuration was not reloaded: every running value is kept"
                );
                ("rejected", why.lines().next().map(str::to_owned))
            }
        };
        metrics::CONFIG_RELOADS.with([result]).inc();
        subject.reload_ended(refusal, is_told);
    }

    /// All or nothing: what can fail comes before what takes effect.
    async fn take_over(&mut self, trigger: Trigger, subject: &impl Subject) -> Result<()> {
        let Reread { loaded, remarks } = self.read().await?;
        let changes = self.settings.changes(&loaded.settings);
        let config = self.config.with_live(&loaded.config);
        let log = settings::log_options(&config);
        let level = log.level;
        let outputs = spawn_blocking(move || logging::open(&log)).await.context("opening the log outputs")??;
        let was = settings::log_options(&self.config).level;
        // 1. More is logged from here on, or less from the end on, so that the record of the reload is in any case.
        if level > was {
            self.log.set_level(level)?;
        }
        // 2. The rest, nothing of which can fail.
        self.log.set_outputs(outputs);
        metrics::set_extensive(config.metrics.extensive);
        subject.apply(&config);
        // 3. It is told, once.
        loaded.notices.iter().filter(|notice| self.is_new(notice)).for_each(log_notice);
        record(trigger, &changes, &remarks);
        if level < was
            && let Err(error) = self.log.set_level(level)
        {
            tracing::error!(error = %format!("{error:#}"), "the log level stays as it was");
        }
        (self.settings, self.told, self.config) = (self.settings.with_live(&loaded.settings), loaded.notices, config);
        Ok(())
    }

    /// Reads all files; once more if they change meanwhile.
    async fn read(&mut self) -> Result<Reread> {
        let mut before = self.look().await;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (reader, running) = (Arc::clone(&self.reader), self.config.clone());
            let reread = spawn_blocking(move || reader.read(&running)).await.context("reading the configuration")?;
            let after = self.look().await;
            if before == after || attempts >= READ_ATTEMPTS {
                // What came while they were read is found by the next look.
                self.watch = Watch::new(before);
                return Ok(reread?);
            }
            before = after;
        }
    }

    fn is_new(&self, notice: &Notice) -> bool {
        notice.level == Loudness::Warn && !self.told.contains(notice)
    }
}

/// The one record of a reload: each option with its old and new value, and where the new one stands.
fn record(trigger: Trigger, changes: &Changes, remarks: &[String]) {
    let list = |changes: &[Change]| changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let (applied, waiting, remarks) = (list(&changes.live), list(&changes.restart), remarks.join("; "));
    let message = match (changes.live.is_empty(), changes.restart.is_empty()) {
        (false, true) => "the configuration was reloaded",
        (false, false) => {
            "the configuration was reloaded; some of it needs a restart, and the running values are kept there"
        }
        (true, false) => {
            "the configuration was read again: what has changed needs a restart, and the running values are kept"
        }
        (true, true) => "the configuration was read again: nothing has changed",
    };
    let trigger = trigger.name();
    if waiting.is_empty() && remarks.is_empty() {
        tracing::info!(trigger, applied, needs_restart = waiting, remarks, "{message}");
    } else {
        tracing::warn!(trigger, applied, needs_restart = waiting, remarks, "{message}");
    }
}
