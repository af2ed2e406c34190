//! From a data directory to a member that can run: locks, paths and the engine of the real thing around [`recovery`].

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::{
    apply::{Applier, ApplyOptions},
    disk::FileDirectory,
    lease::{LeaseRow, ttl_min_seconds},
    membership::FoundingError,
    raft::{self, Member, RecoveryError},
    storage::{FjallEngine, FjallOptions, StorageError},
    types::{ClusterId, MemberId},
    wal::{self, Wal, WalError},
};

use super::{
    DataDir, DataDirError, Identity, Options,
    recovery::{self, Bootstrap, Parts, PartsError, Settings, StateError},
};

/// A member on its data directory, not yet running.
#[derive(Debug)]
pub struct Opened {
    /// Who it is.
    pub identity: Identity,
    /// Whether it was here before.
    pub restarted: bool,
    pub(super) dir: DataDir,
    pub(super) engine: FjallEngine,
    pub(super) applier: Applier<FjallEngine>,
    pub(super) leases: Vec<LeaseRow>,
    pub(super) wal: Wal<FileDirectory>,
    pub(super) member: Member,
    pub(super) snap: FileDirectory,
}

/// Why a member cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The founding members.
    #[error(transparent)]
    Founding(#[from] FoundingError),
    /// `name` is not among the founding members.
    #[error(
        "couldn't find local name {0:?} in the initial cluster configuration: add {0:?}=URL to --initial-cluster, or correct --name"
    )]
    NotFounding(String),
    /// The state.
    #[error("opening the state in {path}")]
    State {
        /// Its directory.
        path: PathBuf,
        /// What failed.
        #[source]
        cause: StateError,
    },
    /// The log.
    #[error("opening the write-ahead log in {path}")]
    Wal {
        /// Its directory.
        path: PathBuf,
        /// What failed.
        #[source]
        cause: WalError,
    },
    /// Log and state contradict each other.
    #[error("recovering the member in {path}")]
    Recovery {
        /// The log's directory.
        path: PathBuf,
        /// What failed.
        #[source]
        cause: RecoveryError,
    },
    /// The log of one member next to the state of another.
    #[error(
        "the log in {path} belongs to cluster {log} but the state to cluster {state}: they come from different members (was --wal-dir changed?)"
    )]
    Mixed {
        /// The log's directory.
        path: PathBuf,
        /// The log's cluster.
        log: ClusterId,
        /// The state's cluster.
        state: ClusterId,
    },
}

/// Opens what `dir` holds, founding a member first if it holds none. `bootstrap` is not looked at once a log exists.
///
/// # Errors
/// Every [`OpenError`]. A start that fails half way leaves a directory the next start can use.
pub fn open(dir: DataDir, options: &Options, bootstrap: &Bootstrap) -> Result<Opened, OpenError> {
    let has_log = dir.has_log();
    let state = if has_log {
        dir.live_state()?.ok_or_else(|| dir.torn(false))?
    } else {
        bootstrap.founder(&options.name).map_err(|cause| placed(cause, &dir, Path::new("")))?;
        dir.live_state_or_new()?
    };
    let engine = open_engine(&state, options)?;
    dir.create_wal()?;
    let (log, settings) = (FileDirectory::new(dir.wal()), settings(options));
    let parts = if has_log {
        recovery::restart(engine.clone(), log, &settings, bootstrap)
    } else {
        recovery::found(engine.clone(), log, &settings, bootstrap, &options.name)
    };
    let Parts { identity, restarted, applier, leases, wal, member } =
        parts.map_err(|cause| placed(cause, &dir, &state))?;
    let snap = FileDirectory::new(dir.snap());
    Ok(Opened { identity, restarted, dir, engine, applier, leases, wal, member, snap })
}

/// Says where it happened.
fn placed(cause: PartsError, dir: &DataDir, state: &Path) -> OpenError {
    let path = dir.wal().to_owned();
    match cause {
        PartsError::Founding(cause) => cause.into(),
        PartsError::NotFounding(name) => OpenError::NotFounding(name),
        PartsError::LogMissing => dir.torn(true).into(),
        PartsError::State(cause) => OpenError::State { path: state.to_owned(), cause },
        PartsError::Wal(cause) => OpenError::Wal { path, cause },
        PartsError::Recovery(cause) => OpenError::Recovery { path, cause },
        PartsError::Mixed { log, state } => OpenError::Mixed { path, log, state },
    }
}

fn open_engine(path: &Path, options: &Options) -> Result<FjallEngine, OpenError> {
    let fjall = FjallOptions { cache_bytes: options.cache_bytes, ..FjallOptions::default() };
    let failed = |cause: StorageError| OpenError::State { path: path.to_owned(), cause: cause.into() };
    FjallEngine::open(path, &fjall).map_err(failed)
}

/// Everything but the member's identifier, which the log tells.
fn settings(options: &Options) -> Settings {
    Settings {
        raft: raft_options(options),
        apply: ApplyOptions {
            member: MemberId(0),
            server_version: options.version,
            lease_ttl_min: ttl_min_seconds(u64::try_from(options.election.as_millis()).unwrap_or(u64::MAX)),
            learners_max: options.learners_max,
            quota_bytes: options.quota_bytes,
        },
        wal: wal::Options { unsafe_no_fsync: options.unsafe_no_fsync, ..wal::Options::default() },
    }
}

fn raft_options(options: &Options) -> raft::Options {
    let ticks = options.election.as_millis() / options.tick.as_millis().max(1);
    raft::Options {
        election_ticks: usize::try_from(ticks).unwrap_or(raft::ELECTION_TICKS_DEFAULT),
        pre_vote: options.pre_vote,
        ..raft::Options::new(MemberId(0))
    }
}
