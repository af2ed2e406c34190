//! From a data directory to the parts of a member: found a new one, or recover the one that is there.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{
    apply::{self, Applier, ApplyError, ApplyOptions},
    disk::FileDirectory,
    lease::{LeaseRow, LeaseRowError, ttl_min_seconds},
    membership::{Founding, FoundingError},
    raft::{self, Member, Recovered, RecoveryError},
    storage::{Engine as _, FjallEngine, FjallOptions, Read as _, StorageError, Table},
    types::{ClusterId, LogIndex, MemberId, Term},
    wal::{self, Wal, WalError},
};

use super::{DataDir, DataDirError, Identity, Options};

/// How a member without data becomes one.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// `initial-cluster`: every founding member's peer URLs, by name.
    pub initial_cluster: BTreeMap<String, Vec<String>>,
    /// `initial-cluster-token`.
    pub token: String,
}

/// The parts of a member, not yet running.
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

/// Why the state cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// The engine.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The state machine.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A lease.
    #[error(transparent)]
    Lease(#[from] LeaseRowError),
}

/// Opens what `dir` holds, founding a member first if it holds none. `bootstrap` is not looked at once a log exists.
///
/// # Errors
/// Every [`OpenError`]. A start that fails half way leaves a directory the next start can use.
pub fn open(dir: DataDir, options: &Options, bootstrap: &Bootstrap) -> Result<Opened, OpenError> {
    if dir.has_log() { restart(dir, options, bootstrap) } else { found(dir, options, bootstrap) }
}

/// The log is created last: until it exists, nothing was promised to anybody and founding starts over.
fn found(dir: DataDir, options: &Options, bootstrap: &Bootstrap) -> Result<Opened, OpenError> {
    let founding = Founding::new(&bootstrap.initial_cluster, &bootstrap.token)?;
    let own = founding.named(&options.name).ok_or_else(|| OpenError::NotFounding(options.name.clone()))?;
    let identity = Identity { member: own.id, cluster: founding.cluster_id() };
    let mut state = OpenState::open(dir.live_state_or_new()?, identity.member, options)?;
    if state.applied_anything() {
        return Err(dir.torn(true).into());
    }
    state.establish(&founding)?;
    let metadata = wal::Metadata { member: identity.member, cluster: identity.cluster };
    let mut wal = Wal::create(wal_directory(&dir)?, metadata, &wal_options(options)).map_err(wal_error(&dir))?;
    write_founding(&mut wal, &founding).map_err(wal_error(&dir))?;
    let recovered = Recovered {
        hard_state: founding.hard_state(),
        conf_state: founding.configuration(),
        last: LogIndex(founding.hard_state().commit),
        entries: founding.entries(),
        terms: vec![wal::TermRun { first: LogIndex(1), term: Term(1) }],
        ..Recovered::default()
    };
    assemble(Parts { dir, options, identity, restarted: false, state, wal, recovered })
}

fn restart(dir: DataDir, options: &Options, bootstrap: &Bootstrap) -> Result<Opened, OpenError> {
    let path = dir.live_state()?.ok_or_else(|| dir.torn(false))?;
    let engine = OpenState::engine(&path, options)?;
    let position = position_of(&path, &engine)?;
    let (mut wal, log) = Wal::open(wal_directory(&dir)?, position, &wal_options(options)).map_err(wal_error(&dir))?;
    if let Some(repair) = &log.repaired {
        tracing::warn!(file = repair.file, offset = repair.offset, "repaired the torn end of the write-ahead log");
    }
    let identity = Identity { member: log.metadata.member, cluster: log.metadata.cluster };
    let mut state = OpenState::new(path, engine, identity.member, options)?;
    if log.last.0 == 0 && !state.applied_anything() {
        // A first start ended between creating the log and writing the founding entries.
        let founding = Founding::new(&bootstrap.initial_cluster, &bootstrap.token)?;
        if founding.cluster_id() == identity.cluster {
            state.establish(&founding)?;
            write_founding(&mut wal, &founding).map_err(wal_error(&dir))?;
            drop((wal, state));
            return restart(dir, options, bootstrap);
        }
    }
    let stored = state.applier.published().cluster.id();
    if stored != identity.cluster {
        return Err(OpenError::Mixed { path: dir.wal().to_owned(), log: identity.cluster, state: stored });
    }
    let first = LogIndex(position.0.0 + 1);
    let entries = wal.reader().entries(first, log.last, usize::MAX).map_err(wal_error(&dir))?;
    let recovered = Recovered {
        hard_state: log.hard_state,
        conf_state: state.applier.published().cluster.configuration().clone(),
        applied: position.0,
        start: log.start,
        last: log.last,
        terms: log.terms,
        entries,
    };
    assemble(Parts { dir, options, identity, restarted: true, state, wal, recovered })
}

fn position_of(path: &Path, engine: &FjallEngine) -> Result<(LogIndex, Term), OpenError> {
    let position = apply::position(&engine.snapshot()).map_err(|cause| StateError::Apply(cause.into()));
    position.map_err(|cause| OpenError::State { path: path.to_owned(), cause })
}

struct Parts<'a> {
    dir: DataDir,
    options: &'a Options,
    identity: Identity,
    restarted: bool,
    state: OpenState,
    wal: Wal<FileDirectory>,
    recovered: Recovered,
}

fn assemble(parts: Parts<'_>) -> Result<Opened, OpenError> {
    let Parts { dir, options, identity, restarted, state, wal, recovered } = parts;
    let member = Member::new(&raft_options(options, identity.member), recovered)
        .map_err(|cause| OpenError::Recovery { path: dir.wal().to_owned(), cause })?;
    let snap = FileDirectory::new(dir.snap());
    let OpenState { engine, applier, leases, .. } = state;
    Ok(Opened { identity, restarted, dir, engine, applier, leases, wal, member, snap })
}

struct OpenState {
    path: PathBuf,
    engine: FjallEngine,
    applier: Applier<FjallEngine>,
    leases: Vec<LeaseRow>,
}

impl OpenState {
    fn open(path: PathBuf, member: MemberId, options: &Options) -> Result<Self, OpenError> {
        let engine = Self::engine(&path, options)?;
        Self::new(path, engine, member, options)
    }

    fn engine(path: &Path, options: &Options) -> Result<FjallEngine, OpenError> {
        let fjall = FjallOptions { cache_bytes: options.cache_bytes, ..FjallOptions::default() };
        let failed = |cause: StorageError| OpenError::State { path: path.to_owned(), cause: cause.into() };
        FjallEngine::open(path, &fjall).map_err(failed)
    }

    fn new(path: PathBuf, engine: FjallEngine, member: MemberId, options: &Options) -> Result<Self, OpenError> {
        let opened = || -> Result<_, StateError> {
            let leases = stored_leases(&engine)?;
            Ok((leases, Applier::open(engine.clone(), apply_options(options, member))?))
        };
        let (leases, applier) = opened().map_err(|cause| OpenError::State { path: path.clone(), cause })?;
        Ok(Self { path, engine, applier, leases })
    }

    fn applied_anything(&self) -> bool {
        self.applier.published().applied.0 > 0
    }

    fn establish(&mut self, founding: &Founding) -> Result<(), OpenError> {
        let mut establish = || -> Result<(), StateError> {
            self.applier.establish(founding.cluster_id(), &founding.configuration())?;
            Ok(self.engine.persist()?)
        };
        establish().map_err(|cause| OpenError::State { path: self.path.clone(), cause })
    }
}

fn stored_leases(engine: &FjallEngine) -> Result<Vec<LeaseRow>, StateError> {
    let snapshot = engine.snapshot();
    let mut leases = Vec::new();
    for row in snapshot.rows(Table::Lease) {
        let (key, value) = row?;
        leases.push(LeaseRow::read(&key, &value)?);
    }
    Ok(leases)
}

fn write_founding(wal: &mut Wal<FileDirectory>, founding: &Founding) -> Result<(), WalError> {
    wal.append(&founding.entries(), Some(&founding.hard_state()))?;
    wal.sync()
}

fn wal_directory(dir: &DataDir) -> Result<FileDirectory, DataDirError> {
    dir.create_wal()?;
    Ok(FileDirectory::new(dir.wal()))
}

fn wal_error(dir: &DataDir) -> impl Fn(WalError) -> OpenError {
    let path = dir.wal().to_owned();
    move |cause| OpenError::Wal { path: path.clone(), cause }
}

fn wal_options(options: &Options) -> wal::Options {
    wal::Options { unsafe_no_fsync: options.unsafe_no_fsync, ..wal::Options::default() }
}

fn apply_options(options: &Options, member: MemberId) -> ApplyOptions {
    ApplyOptions {
        member,
        server_version: options.version,
        lease_ttl_min: ttl_min_seconds(u64::try_from(options.election.as_millis()).unwrap_or(u64::MAX)),
        learners_max: options.learners_max,
        quota_bytes: options.quota_bytes,
    }
}

fn raft_options(options: &Options, member: MemberId) -> raft::Options {
    let ticks = options.election.as_millis() / options.tick.as_millis().max(1);
    raft::Options {
        election_ticks: usize::try_from(ticks).unwrap_or(raft::ELECTION_TICKS_DEFAULT),
        pre_vote: options.pre_vote,
        ..raft::Options::new(member)
    }
}
