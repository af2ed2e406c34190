//! The daemon's life: options → logging → lock the data directory → discovery, if asked for → open the state → bind → join
//! → `READY=1` → run → `STOPPING=1` → stop accepting → drain → sync → exit.
//!
//! Left to others: what a member does (`server`), what clients may ask (`api`), what options mean (`config`).
//!
//! Invariants: `READY=1` is sent once, after this member is part of a cluster with a leader and has answered a
//! linearizable read; nothing is written to the data directory before it is locked; the watchdog is fed only while the
//! member's threads make progress.

mod descriptors;
mod discovery;
mod discovery_service;
mod domain;
mod gateway;
mod grpc_proxy;
mod lifecycle;
mod log_file;
pub mod logging;
mod proxy;
mod reload;
mod secure;
mod settings;
mod sockets;
mod standin;
pub mod systemd;
mod tasks;
mod watch;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

pub use lifecycle::Ending;
use lifecycle::Stopped;
use logging::FATAL;
use reload::Reloading;
pub use tasks::{Ended, Tasks};

use crate::config::{self, Command, Config, ConfigErrors, Loaded, Loudness, Notice, Role, Sources};

/// Does what the command line of the daemon's binary says; `config` carries out `config check` and `config show`.
pub fn main(sources: &Sources, config: impl FnOnce(&Sources, &[OsString]) -> ExitCode) -> ExitCode {
    match config::command(sources) {
        Err(errors) => refuse(sources, &errors),
        Ok(Command::Serve) => serve(sources),
        Ok(Command::Version(compat)) => print(&config::version_text(compat, sources.called_as_etcd())),
        Ok(Command::Help) => print(&config::help_text()),
        Ok(Command::Config(arguments)) => config(sources, &arguments),
        Ok(Command::Gateway(words)) => gateway::main(sources, &words),
        Ok(Command::GrpcProxy(words)) => grpc_proxy::main(sources, &words),
        Ok(Command::Discovery(arguments)) => discovery_service::main(sources, &arguments),
    }
}

fn serve(sources: &Sources) -> ExitCode {
    let loaded = match config::load(sources) {
        Ok(loaded) => loaded,
        Err(errors) => return refuse(sources, &errors),
    };
    let log = match logging::start(&settings::log_options(&loaded.config)) {
        Ok(log) => log,
        Err(error) => {
            report(&format!("{error:#}\n"));
            return ExitCode::FAILURE;
        }
    };
    log_start(sources, &loaded);
    log_role(&loaded.config);
    let config = loaded.config.clone();
    match lifecycle::run(&config, Reloading::new(sources.clone(), loaded, log)) {
        Ok(ending) => ending.finish(),
        Err(error) => {
            // etcd's text for every failed start, whatever failed; callers wait for it.
            let message = error.downcast_ref::<Stopped>().map_or("discovery failed", |stopped| stopped.message);
            tracing::error!(target: FATAL, error = %format!("{error:#}"), "{message}");
            ExitCode::FAILURE
        }
    }
}

fn log_start(sources: &Sources, loaded: &Loaded) {
    let arguments = sources.args.iter().map(|argument| argument.to_string_lossy());
    let arguments: Vec<_> = std::iter::once(sources.program.to_string_lossy()).chain(arguments).collect();
    tracing::info!(args = ?arguments, "Running: ");
    loaded.notices.iter().for_each(log_notice);
    let config = &loaded.config;
    tracing::info!(
        etcd_version = config.compat.version(),
        name = config.member.name,
        data_dir = %config.member.data_dir.display(),
        wal_dir = %config.member.wal_dir().display(),
        member_initialized = config.member.is_initialized(),
        heartbeat_interval = ?config.raft.heartbeat,
        election_timeout = ?config.raft.election,
        snapshot_count = config.storage.snapshot_entries,
        snapshot_catchup_entries = config.storage.catchup_entries,
        quota_backend_bytes = config.storage.quota.limit_bytes(),
        max_request_bytes = config.limits.request_bytes_max,
        max_concurrent_streams = config.limits.concurrent_streams_max,
        pre_vote = config.raft.pre_vote,
        initial_cluster_token = config.bootstrap.token,
        initial_corrupt_check = config.gates.initial_corrupt_check,
        corrupt_check_time_interval = ?config.integrity.corrupt_check.unwrap_or_default(),
        compact_check_time_enabled = config.gates.compact_hash_check,
        compact_check_time_interval = ?config.integrity.compact_hash_check,
        "starting an etcd server"
    );
}

/// Where the data directory decides against the options, that is told.
fn log_role(config: &Config) {
    let kind = match config.role() {
        Ok(Role::Member) => "member",
        Ok(Role::Proxy(_)) => "proxy",
        Err(_) => return,
    };
    if (kind == "proxy") != config.legacy.proxy.is_some() {
        tracing::info!("the server is already initialized as {kind} before, starting as etcd {kind}...");
    }
}

fn log_notice(notice: &Notice) {
    let fields: Vec<String> = notice.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let details = (!fields.is_empty()).then(|| fields.join(" "));
    match notice.level {
        Loudness::Info => tracing::info!(details, "{}", notice.message),
        Loudness::Warn => tracing::warn!(details, "{}", notice.message),
    }
}

/// Every mistake on a line of its own, on standard error, then the warnings: one may name the cause.
fn refuse(sources: &Sources, errors: &ConfigErrors) -> ExitCode {
    let warnings = errors.warnings().map(|warning| format!("warning: {warning}"));
    let lines: Vec<String> = std::iter::once(errors.to_string()).chain(warnings).collect();
    let mut text = lines.join("\n") + "\n";
    if errors.exit_code() == 2 {
        text.push_str(&config::usage_text(&sources.program.to_string_lossy()));
    }
    report(&text);
    ExitCode::from(errors.exit_code())
}

/// Standard error may be closed; the exit code still tells.
fn report(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
