//! From a data directory to a member that can run: locks, paths and the engine of the real thing around [`recovery`].

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::{
    apply::{Applier, ApplyOptions},
    clock::{Chance as _, SystemChance},
    disk::FileDirectory,
    lease::LeaseRow,
    membership::{ChangeError, FoundingError},
    raft::{self, Member, RecoveryError},
    storage::{Engine as _, FjallEngine, FjallOptions, StorageError},
    types::{ClusterId, LogIndex, MemberId},
    wal::{self, Wal, WalError},
};

use super::{
    DataDir, DataDirError, Identity, Options, REMOVED_REMEDY,
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
    /// The members it was told to join.
    pub(super) remotes: Vec<crate::membership::Member>,
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
    /// A configuration change in the log that cannot be read.
    #[error("forcing a new cluster from the log in {path}")]
    Change {
        /// The log's directory.
        path: PathBuf,
        /// What failed.
        #[source]
        cause: ChangeError,
    },
    /// The cluster removed this member.
    #[error(
        "the member {0} has been permanently removed from the cluster: {remedy}",
        remedy = REMOVED_REMEDY
    )]
    Removed(MemberId),
    /// The state holds nothing, or not the snapshot that the log goes on from.
    #[error(
        "the state in {state} is empty or lost: it has applied {applied}, and the log in {path} has entries up to {last}; restore the whole data directory from a backup, or remove this member from the cluster and add it again with an empty data directory"
    )]
    StateLost {
        /// The state's directory.
        state: PathBuf,
        /// The log's directory.
        path: PathBuf,
        /// The last entry in the state.
        applied: LogIndex,
        /// The last entry of the log, as far as is known.
        last: LogIndex,
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
    /// The log of one life of a member next to the state of another.
    #[error(
        "entry {index} of the log in {path} is not the one that the state in {state} has applied: they come from different members, or one of them from a backup; put the log and the state of one member together again, or remove this member from the cluster and add it again with an empty data directory"
    )]
    OtherLog {
        /// The log's directory.
        path: PathBuf,
        /// The state's directory.
        state: PathBuf,
        /// The entry.
        index: LogIndex,
    },
}

/// Opens what `dir` holds, founding a member first if it holds none. `bootstrap` is not looked at once a log exists.
///
/// # Errors
/// Every [`OpenError`]. A start that fails half way leaves a directory the next start can use.
pub fn open(dir: DataDir, options: &Options, bootstrap: &Bootstrap) -> Result<Opened, OpenError> {
    let has_log = dir.has_log();
    if !has_log && dir.is_founded()? {
        return Err(dir.torn(true).into());
    }
    let (parts, engine) = if has_log { resumed(&dir, options, bootstrap) } else { begun(&dir, options, bootstrap) }?;
    let Parts { identity, restarted, applier, leases, wal, member } = parts;
    if applier.published().cluster.is_removed(identity.member) {
        return Err(OpenError::Removed(identity.member));
    }
    dir.mark_founded()?;
    let snap = FileDirectory::new(dir.snap());
    let remotes = bootstrap.remotes(restarted);
    Ok(Opened { identity, restarted, dir, engine, applier, leases, wal, member, snap, remotes })
}

type Found = (Parts<FjallEngine, FileDirectory>, FjallEngine);

/// A member that was here before.
fn resumed(dir: &DataDir, options: &Options, bootstrap: &Bootstrap) -> Result<Found, OpenError> {
    let on_disk = OnDisk { dir, engine: engine_options(options) };
    recovery::resume(&on_disk, FileDirectory::new(dir.wal()), &settings(options), bootstrap)
}

/// A member that is founded, or joins.
fn begun(dir: &DataDir, options: &Options, bootstrap: &Bootstrap) -> Result<Found, OpenError> {
    if bootstrap.joining.is_none() {
        bootstrap.founder(&options.name).map_err(|cause| placed(cause, dir, Path::new("")))?;
    }
    let (state, engine) = first_state(dir, options)?;
    dir.create_wal()?;
    let (log, settings) = (FileDirectory::new(dir.wal()), settings(options));
    let parts = match &bootstrap.joining {
        Some(joining) => recovery::join(engine.clone(), log, &settings, joining.identity),
        None => recovery::found(engine.clone(), log, &settings, bootstrap, &options.name),
    };
    Ok((parts.map_err(|cause| placed(cause, dir, &state))?, engine))
}

/// The generations in a data directory, as a start finds them.
pub(super) struct OnDisk<'a> {
    pub(super) dir: &'a DataDir,
    pub(super) engine: FjallOptions,
}

impl recovery::Generations for OnDisk<'_> {
    type Engine = FjallEngine;
    type Name = PathBuf;
    type Error = OpenError;

    fn live(&self) -> Result<(PathBuf, FjallEngine), OpenError> {
        let state = self.dir.generations().live()?.ok_or_else(|| self.dir.torn(false))?;
        let engine = open_with(&state, &self.engine)?;
        Ok((state, engine))
    }

    fn others(&self) -> Result<Vec<PathBuf>, OpenError> {
        let generations = self.dir.generations();
        let live = generations.live()?;
        Ok(generations.all()?.into_iter().rev().filter(|state| Some(state) != live.as_ref()).collect())
    }

    fn open(&self, name: &PathBuf) -> Result<FjallEngine, OpenError> {
        open_with(name, &self.engine)
    }

    fn make_live(&self, name: &PathBuf) -> Result<(), OpenError> {
        Ok(self.dir.generations().make_live(name)?)
    }

    fn remove(&self, name: &PathBuf) {
        match self.dir.generations().remove(name) {
            Ok(()) => tracing::info!(path = ?name, "removed a state that is not the live one"),
            Err(cause) => tracing::warn!(path = ?name, %cause, "cannot remove a state that is not the live one"),
        }
    }

    fn failed(&self, name: &PathBuf, cause: PartsError) -> OpenError {
        placed(cause, self.dir, name)
    }
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
        PartsError::OtherLog { index } => OpenError::OtherLog { path, state: state.to_owned(), index },
        PartsError::Change(cause) => OpenError::Change { path, cause },
        PartsError::StateLost { applied, last } => {
            OpenError::StateLost { state: state.to_owned(), path, applied, last }
        }
        PartsError::Mixed { log, state } => OpenError::Mixed { path, log, state },
    }
}

/// The state to found a member in. An engine that is killed while it makes its files may not be able to open them again,
/// so a generation becomes the live one when it is complete, and one that cannot be opened before is left behind.
fn first_state(dir: &DataDir, options: &Options) -> Result<(PathBuf, FjallEngine), OpenError> {
    let generations = dir.generations();
    if let Some(state) = generations.live()? {
        let engine = open_engine(&state, options)?;
        return Ok((state, engine));
    }
    for state in generations.all()? {
        match open_engine(&state, options) {
            Ok(engine) => return live(dir, state, engine),
            Err(cause) => tracing::warn!(path = ?state, %cause, "left a state behind that was never finished"),
        }
    }
    let state = generations.create()?;
    let engine = open_engine(&state, options)?;
    live(dir, state, engine)
}

fn live(dir: &DataDir, state: PathBuf, engine: FjallEngine) -> Result<(PathBuf, FjallEngine), OpenError> {
    engine.persist().map_err(|cause| OpenError::State { path: state.clone(), cause: cause.into() })?;
    dir.generations().make_live(&state)?;
    Ok((state, engine))
}

pub(super) fn open_engine(path: &Path, options: &Options) -> Result<FjallEngine, OpenError> {
    open_with(path, &engine_options(options))
}

fn engine_options(options: &Options) -> FjallOptions {
    FjallOptions { cache_bytes: options.cache_bytes, files_max: options.files_max, ..FjallOptions::default() }
}

fn open_with(path: &Path, options: &FjallOptions) -> Result<FjallEngine, OpenError> {
    let failed = |cause: StorageError| OpenError::State { path: path.to_owned(), cause: cause.into() };
    FjallEngine::open(path, options).map_err(failed)
}

/// Everything but the member's identifier, which the log tells.
pub(super) fn settings(options: &Options) -> Settings {
    Settings {
        raft: raft_options(options),
        apply: ApplyOptions {
            member: MemberId(0),
            server_version: options.version,
            lease_ttl_min: options.tunables.lease_ttl_min(),
            learners_max: Some(options.learners_max),
            quota_bytes: options.tunables.quota_bytes,
        },
        wal: wal::Options { unsafe_no_fsync: options.unsafe_no_fsync, ..wal::Options::default() },
    }
}

fn raft_options(options: &Options) -> raft::Options {
    raft::Options {
        election_ticks: options.tunables.election_ticks() as usize,
        pre_vote: options.pre_vote,
        election_seed: SystemChance.next_u64(),
        ..raft::Options::new(MemberId(0))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, time::Duration};

    use super::*;
    use crate::{
        membership::Version,
        server::{APPLY_GAP_MAX, Tunables},
        tls::Dialler,
    };

    fn options() -> Options {
        Options {
            name: "a".to_owned(),
            client_urls: Vec::new(),
            peer_urls: Vec::new(),
            version: Version::minor(3, 7),
            advance_first_election: true,
            pre_vote: true,
            snapshot_bytes: 64 << 20,
            snapshots_max: Some(5),
            snapshot_dir: PathBuf::from("snapshots"),
            progress_interval: Duration::from_mins(10),
            learners_max: 1,
            strict_reconfig: true,
            downgrade_check: Duration::from_secs(5),
            dialler: Dialler::default(),
            lease_checkpoints: false,
            tokens: crate::auth::TokenKind::None,
            unsafe_no_fsync: false,
            cache_bytes: 1 << 20,
            files_max: 100,
            tunables: Tunables {
                tick: Duration::from_millis(100),
                election: Duration::from_secs(1),
                request_timeout: Duration::from_secs(7),
                request_bytes_max: 1 << 20,
                quota_bytes: None,
                lifts_no_space: true,
                snapshots: None,
                snapshot_entries: 10_000,
                catchup_entries: APPLY_GAP_MAX,
                compaction_batch_max: 1000,
                compaction_pause: Duration::from_millis(10),
                auto_compaction: None,
                warn_apply: Duration::from_millis(100),
                corrupt_check: None,
                compact_hash_check: None,
            },
        }
    }

    fn opened(root: &Path) -> Result<Opened, OpenError> {
        let urls = vec!["http://127.0.0.1:2380".to_owned()];
        let initial_cluster = BTreeMap::from([("a".to_owned(), urls)]);
        let bootstrap =
            Bootstrap { initial_cluster, token: "t".to_owned(), joining: None, alone_at: None, listed_as: None };
        open(DataDir::open(root, None).unwrap(), &options(), &bootstrap)
    }

    /// A first start that was killed while the engine made its files left a directory that no later start could open:
    /// the engine refuses what it has begun, and CURRENT named it already.
    #[test]
    fn state_whose_making_was_interrupted_is_left_behind() {
        for leftovers in [&["STATE-FORMAT.tmp"][..], &["STATE-FORMAT", "lock", "0.jnl"], &[]] {
            let root = tempfile::tempdir().unwrap();
            let unfinished = DataDir::open(root.path(), None).unwrap().generations().create().unwrap();
            for name in leftovers {
                fs::write(unfinished.join(name), if *name == "STATE-FORMAT" { "quorate state 2\n" } else { "" })
                    .unwrap();
            }
            let first = opened(root.path()).unwrap();
            assert!(!first.restarted);
            let expected = if leftovers.is_empty() { unfinished } else { root.path().join("member/state/2") };
            assert_eq!(first.dir.generations().live().unwrap(), Some(expected));
            drop(first);
            assert!(opened(root.path()).unwrap().restarted);
        }
    }

    /// It was said to belong to cluster 0, as if --wal-dir were wrong.
    #[test]
    fn log_whose_state_is_gone_is_told_so() {
        for empties in [true, false] {
            let root = tempfile::tempdir().unwrap();
            drop(opened(root.path()).unwrap());
            let state = root.path().join("member/state/1");
            if empties {
                fs::remove_dir_all(&state).unwrap();
                fs::create_dir(&state).unwrap();
            } else {
                fs::remove_file(state.join("0.jnl")).unwrap();
            }
            let error = anyhow::Error::from(opened(root.path()).unwrap_err());
            let text = format!("{error:#}");
            let told = if empties {
                "empty or lost: it has applied 0, and the log in"
            } else {
                "journals (*.jnl) are missing"
            };
            assert!(text.contains(told) && text.contains(state.to_str().unwrap()), "{text}");
            assert!(text.contains("remove this member from the cluster and add it"), "{text}");
            assert_eq!(text.contains("entries up to 1;"), empties, "{text}");
        }
    }

    #[test]
    fn state_that_lost_its_log_is_not_founded_upon() {
        let root = tempfile::tempdir().unwrap();
        let mut first = opened(root.path()).unwrap();
        let entry = crate::pb::raftpb::Entry { index: 1, term: 1, ..Default::default() };
        first.applier.apply(&[entry]).unwrap();
        crate::storage::Engine::persist(&first.engine).unwrap();
        drop(first);
        fs::remove_dir_all(root.path().join("member/wal")).unwrap();
        for current_is_lost in [false, true] {
            if current_is_lost {
                fs::remove_file(root.path().join("member/state/CURRENT")).unwrap();
            }
            let error = opened(root.path()).unwrap_err();
            assert!(matches!(error, OpenError::DataDir(DataDirError::Torn { .. })), "{error}");
        }
    }
}
