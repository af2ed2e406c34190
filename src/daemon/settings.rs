//! From the configuration to what each part of the daemon wants to know.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use tracing::Level;

use crate::{
    api::{self, AllowList, ServeOptions},
    audit,
    auth::{Jwt, TokenKind},
    config::{
        self, Allowed, AuditLog, AutoCompaction, BootstrapMethod, Config, LogFormat, LogLevel, LogOutput,
        TokenProvider, Url,
    },
    discovery::Founders,
    server::{self, Bootstrap, Keep, Policy, SNAPSHOT_BYTES_DEFAULT, Schedule, Tunables},
    spans,
    tls::{Dialler, jws::key_file},
};

use super::{descriptors::Descriptors, logging};

/// Blocks of the state kept in memory. Small on purpose: the page cache holds the files anyway, and idle memory is what
/// users look at first.
const CACHE_BYTES: u64 = 16 << 20;

/// Most log files that are set aside: each is renamed when another one joins them.
const LOG_FILES_MAX: u32 = 1_000;
const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// How the member behaves.
///
/// # Errors
/// A reported version that is no version, which only a defect in the table of versions can cause.
pub(super) fn server_options(
    config: &Config,
    descriptors: Descriptors,
    dialler: Dialler,
) -> anyhow::Result<server::Options> {
    Ok(server::Options {
        name: config.member.name.clone(),
        client_urls: texts(&config.advertise.client),
        peer_urls: texts(&config.advertise.peer),
        version: config.compat.version().parse()?,
        advance_first_election: config.raft.advance_first_election,
        pre_vote: config.raft.pre_vote,
        snapshot_bytes: SNAPSHOT_BYTES_DEFAULT,
        snapshots_max: config.storage.snapshots_max,
        snapshot_dir: config.snapshot_dir(),
        progress_interval: config.watch.progress_interval,
        learners_max: config.member.learners_max,
        strict_reconfig: config.member.strict_reconfig_check,
        downgrade_check: config.integrity.downgrade_check,
        dialler,
        lease_checkpoints: config.gates.lease_checkpoint,
        tokens: tokens(&config.auth)?,
        unsafe_no_fsync: config.storage.unsafe_no_fsync,
        cache_bytes: CACHE_BYTES,
        files_max: descriptors.state_files,
        tunables: tunables(config),
    })
}

/// Which tokens the member takes.
///
/// # Errors
/// [`auth::JwtError`].
fn tokens(auth: &config::Auth) -> anyhow::Result<TokenKind> {
    Ok(match &auth.token {
        TokenProvider::None => TokenKind::None,
        TokenProvider::Simple => TokenKind::Simple(auth.token_ttl),
        TokenProvider::Jwt(options) => {
            let unknown = Jwt::unknown_options(options);
            if !unknown.is_empty() {
                tracing::warn!(keys = ?unknown, "unknown JWT options");
            }
            TokenKind::Jwt(Arc::new(Jwt::new(options, key_file).context("auth-token")?))
        }
    })
}

/// What the running member takes new values of.
pub(super) fn tunables(config: &Config) -> Tunables {
    Tunables {
        tick: config.raft.heartbeat,
        election: config.raft.election,
        request_timeout: config.raft.request_timeout(),
        request_bytes_max: config.limits.request_bytes_max,
        quota_bytes: config.storage.quota.limit_bytes(),
        lifts_no_space: config.storage.lifts_no_space,
        snapshot_entries: config.storage.snapshot_entries,
        catchup_entries: config.storage.catchup_entries,
        compaction_batch_max: config.storage.compaction_batch_max,
        compaction_pause: config.storage.compaction_pause,
        auto_compaction: match config.storage.auto_compaction {
            AutoCompaction::Off => None,
            AutoCompaction::Periodic(age) => Some(Policy::Periodic(age)),
            AutoCompaction::Revision(kept) => Some(Policy::Revisions(kept)),
        },
        snapshots: config.storage.scheduled.period.map(|period| Schedule {
            period,
            keep: Keep { files_max: config.storage.scheduled.files_max, age_max: config.storage.scheduled.age_max },
        }),
        warn_apply: config.watch.warn_apply,
        corrupt_check: config.integrity.corrupt_check,
        compact_hash_check: config.gates.compact_hash_check.then_some(config.integrity.compact_hash_check),
    }
}

/// The founding members: those that were discovered, else those that the options list.
pub(super) fn bootstrap(config: &Config, discovered: Option<Founders>) -> Bootstrap {
    let alone_at = config.member.force_new_cluster.then(|| texts(&config.advertise.peer));
    if let Some(Founders { members, token, own }) = discovered {
        return Bootstrap { initial_cluster: members, token, joining: None, alone_at, listed_as: Some(own) };
    }
    let initial_cluster = match &config.bootstrap.method {
        BootstrapMethod::Static(members) => members.0.iter().map(|(name, urls)| (name.clone(), texts(urls))).collect(),
        _ => BTreeMap::new(),
    };
    Bootstrap { initial_cluster, token: config.bootstrap.token.clone(), joining: None, alone_at, listed_as: None }
}

/// What the client listeners serve.
pub(super) fn serve_options(config: &Config) -> ServeOptions {
    ServeOptions {
        request_bytes_max: config.limits.request_bytes_max,
        txn_ops_max: config.limits.txn_ops_max,
        concurrent_streams_max: config.limits.concurrent_streams_max,
        keepalive: api::Keepalive {
            client_min: config.keepalive.min_time,
            interval: config.keepalive.ping.as_ref().map(|ping| ping.interval),
            timeout: config.keepalive.ping.as_ref().map_or_else(Default::default, |ping| ping.timeout),
        },
        gateway: config.http.gateway,
        client_cert_auth: config.tls.client.client_cert_auth,
        bcrypt_cost: config.auth.bcrypt_cost,
        v2: config.legacy.enable_v2,
        cors: allow_list(&config.http.cors),
        host_whitelist: allow_list(&config.http.host_whitelist),
        election_timeout: config.raft.election,
        request_timeout: config.raft.request_timeout(),
        warn_unary: config.watch.warn_unary,
    }
}

/// The audit log, if there is one.
pub(super) fn audit_options(config: &Config) -> Option<audit::Options> {
    let AuditLog { output, reads_per_million, file_bytes_max, files_max } = config.audit.as_ref()?;
    let target = match output {
        LogOutput::Stdout => audit::Target::Stdout,
        LogOutput::Stderr | LogOutput::Journal => audit::Target::Stderr,
        LogOutput::File(path) => audit::Target::File(path.clone()),
    };
    let rotation = file_bytes_max.map(|bytes_max| audit::Rotation { bytes_max, files_max: *files_max });
    Some(audit::Options { target, reads_per_million: *reads_per_million, rotation })
}

/// Where spans of calls go, if anywhere.
pub(super) fn span_settings(config: &Config) -> Option<spans::Settings> {
    let tracing = config.tracing.clone()?;
    Some(spans::Settings {
        address: tracing.address,
        service: tracing.service_name,
        instance: tracing.instance_id,
        samples_per_million: tracing.samples_per_million,
    })
}

/// Where log records go, and which.
pub(super) fn log_options(config: &Config) -> logging::Options {
    logging::Options {
        level: match config.log.level {
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Info => Level::INFO,
            LogLevel::Warn => Level::WARN,
            LogLevel::Error | LogLevel::Panic | LogLevel::Fatal => Level::ERROR,
        },
        shape: match config.log.format {
            LogFormat::Json => logging::Shape::Json,
            LogFormat::Console => logging::Shape::Console,
        },
        outputs: config.log.outputs.iter().map(log_output).collect(),
        rotation: config.log.rotation.as_ref().map(log_rotation),
    }
}

fn log_rotation(rotation: &config::Rotation) -> logging::Rotation {
    let config::Rotation { size_mb_max, age_days_max, backups_max, compress } = *rotation;
    let most = LOG_FILES_MAX;
    logging::Rotation {
        bytes_max: size_mb_max.saturating_mul(1 << 20),
        files_max: u32::try_from(backups_max).ok().filter(|files| *files > 0).map_or(most, |files| files.min(most)),
        age_max: (age_days_max > 0).then(|| Duration::from_secs(age_days_max.saturating_mul(SECONDS_PER_DAY))),
        compress,
    }
}

fn log_output(output: &LogOutput) -> logging::Output {
    match output {
        LogOutput::Stdout => logging::Output::Stdout,
        LogOutput::Stderr => logging::Output::Stderr,
        LogOutput::Journal => logging::Output::Journal,
        LogOutput::File(path) => logging::Output::File(path.clone()),
    }
}

fn allow_list(allowed: &Allowed) -> AllowList {
    match allowed {
        Allowed::Any => AllowList::Any,
        Allowed::Only(names) => AllowList::Only(names.iter().cloned().collect()),
    }
}

pub(super) fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_owned()).collect()
}
