//! Every checksum in a data directory, from the log to the state, ours or etcd's.
//!
//! All parts are looked at, whatever is found in one of them. Everything is only read, also where it could be written; of the
//! state, a likeness in the directory for temporary files is opened as a start opens it.

use std::{
    env,
    error::Error,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process,
};

use super::{Import, OfflineError, examine, foreign::is_there, resident::log_in};
use crate::{
    apply::{Applier, ApplyOptions, Position, Proof, position},
    clock::{Chance as _, SystemChance},
    disk::{Directory as _, FileDirectory},
    etcdfile::{snap, v2json},
    membership::Version,
    server::{DataDir, datadir::DataDirError, generations::Generations},
    storage::{Engine as _, FjallEngine, FjallOptions, StorageError},
    types::{LogIndex, MemberId},
    wal::{self, Survey},
};

/// What was looked at, and what was found: a summary, or what is wrong and what to do about it.
#[derive(Debug)]
pub struct Check {
    /// A file or a directory.
    pub path: PathBuf,
    /// A summary, or the damage.
    pub found: Result<String, OfflineError>,
}

/// Looks at every part of the data directory `root`, which no process may use.
///
/// # Errors
/// A directory that is neither ours nor etcd's, or in use. What is damaged is in the answer.
pub fn verify(root: &Path, wal_dir: Option<&Path>, server_version: Version) -> Result<Vec<Check>, OfflineError> {
    if is_there(&root.join("member/snap/db"))? {
        return verify_etcds(root, wal_dir, server_version);
    }
    let Some(log) = log_in(root)? else { return Err(OfflineError::NotOurs(root.to_owned())) };
    let _lock = DataDir::lock_for_reading(root)?;
    let log = wal_dir.map_or(log, Path::to_owned);
    let (state, position) = state(root, server_version)?;
    let (found, survey) = match wal::survey(&FileDirectory::read_only(&log)) {
        Ok(survey) => (Ok(told(&survey)), Some(survey)),
        Err(cause) => (Err(cause.into()), None),
    };
    let mut checks = vec![Check { path: log, found }];
    if let (Some(survey), Some(position)) = (survey, position) {
        checks.push(Check { path: root.to_owned(), found: together(&survey, &position) });
    }
    checks.push(state);
    checks.extend(snaps(&root.join("member/snap")));
    Ok(checks)
}

/// Whether `root` holds a member of ours.
///
/// # Errors
/// [`DataDirError::HandedOn`], markers that cannot be read.
pub fn is_ours(root: &Path) -> Result<bool, OfflineError> {
    Ok(DataDir::log_of(root)?.is_some())
}

/// The version of the cluster that the member in `root`, one of ours, belongs to.
///
/// # Errors
/// A directory in use, a state that cannot be opened.
pub fn cluster_version(root: &Path, server_version: Version) -> Result<Option<Version>, OfflineError> {
    let _lock = DataDir::lock_for_reading(root)?;
    let scratch = Scratch::new()?;
    let engine = scratch.look(&live(root)?)?;
    let applier = Applier::open(engine, ApplyOptions::new(MemberId(0), server_version))?;
    Ok(applier.published().cluster.version())
}

fn live(root: &Path) -> Result<PathBuf, DataDirError> {
    let missing = || DataDirError::Torn { present: root.join("FORMAT"), missing: root.join("member/state/CURRENT") };
    Generations::new(root.join("member/state")).live()?.ok_or_else(missing)
}

/// A directory for temporary files (`TMPDIR`) that goes when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, OfflineError> {
        let path = env::temp_dir().join(format!("quorateutl-{}-{:016x}", process::id(), SystemChance.next_u64()));
        DirBuilder::new().mode(0o700).create(&path).map_err(OfflineError::io("creating", &path))?;
        Ok(Self(path))
    }

    fn likeness(&self) -> PathBuf {
        self.0.join("state")
    }

    /// The state in `path`, opened without a write there.
    fn look(&self, path: &Path) -> Result<FjallEngine, StorageError> {
        FjallEngine::look(path, &self.likeness(), &FjallOptions::default())
    }

    /// What is wrong with the likeness of the state in `path`, with the names that its files have there.
    fn said_of(&self, path: &Path, cause: &OfflineError) -> OfflineError {
        OfflineError::Looked(with_causes(cause).replace(&*self.likeness().to_string_lossy(), &path.to_string_lossy()))
    }
}

fn with_causes(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(cause) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = ?self.0, %cause, "cannot remove what was copied; remove it by hand");
        }
    }
}

/// etcd's pages, rows and log, as an import would read them.
fn verify_etcds(root: &Path, wal_dir: Option<&Path>, server_version: Version) -> Result<Vec<Check>, OfflineError> {
    let order = Import { from: root, from_wal_dir: wal_dir, server_version };
    let found = match examine(&order) {
        Err(cause) if cause.is_of_access() => return Err(cause),
        examined => examined.map(|report| {
            let (last, revision, hash) = (report.last, report.hash.revision, report.hash.hash);
            format!("etcd's log and database are sound: entries up to {last}, revision {revision}, hash {hash}")
        }),
    };
    let mut checks = vec![Check { path: root.to_owned(), found }];
    checks.extend(snaps(&root.join("member/snap")));
    Ok(checks)
}

fn told(survey: &Survey<FileDirectory>) -> String {
    let Survey { first, last, torn, .. } = survey;
    let torn = torn.as_ref().map_or_else(String::new, |torn| {
        format!("; {} is torn at offset {}, which the next start repairs", torn.file, torn.offset)
    });
    format!("the log is sound: entries {first} to {last}{torn}")
}

/// The live generation of the state: its files, its rows, and the rows against each other.
fn state(root: &Path, server_version: Version) -> Result<(Check, Option<Position>), OfflineError> {
    let path = match live(root) {
        Ok(path) => path,
        Err(cause) => return Ok((Check { path: root.join("member/state"), found: Err(cause.into()) }, None)),
    };
    let scratch = Scratch::new()?;
    let looked = || -> Result<(String, Position), OfflineError> {
        let engine = scratch.look(&path)?;
        let rows = engine.verify()?;
        let applier = Applier::open(engine.clone(), ApplyOptions::new(MemberId(0), server_version))?;
        let view = applier.published().view;
        let verified = view.verify()?;
        let position = position(&engine.snapshot()).map_err(crate::apply::ApplyError::from)?;
        let (index, revision) = (position.index, position.revision);
        let text =
            format!("the state is sound: entry {index}, revision {revision}, {} keys, {rows} rows", verified.keys);
        Ok((text, position))
    };
    match looked() {
        Ok((text, position)) => Ok((Check { path, found: Ok(text) }, Some(position))),
        // That says nothing of the state.
        Err(OfflineError::Storage(cause)) if cause.is_of_room() => Err(cause.into()),
        Err(cause) => {
            let found = Err(scratch.said_of(&path, &cause));
            Ok((Check { path, found }, None))
        }
    }
}

/// Whether log and state are of one member.
fn together(survey: &Survey<FileDirectory>, position: &Position) -> Result<String, OfflineError> {
    let Position { index, proof, .. } = position;
    if index.0 > survey.last.0 || index.0 + 1 < survey.first.0 {
        return Err(OfflineError::Apart { state: *index, first: survey.first, last: survey.last });
    }
    if (survey.first..=survey.last).contains(&proof.index) {
        let entries = survey.reader.entries(proof.index, proof.index, usize::MAX)?;
        if entries.iter().any(|entry| Proof::of(entry) != *proof) {
            return Err(OfflineError::Apart { state: *index, first: survey.first, last: survey.last });
        }
    }
    let behind = survey.last.0 - index.0;
    Ok(format!("log and state belong together: {behind} entries are applied at the next start"))
}

/// Every snapshot file.
fn snaps(directory: &Path) -> Vec<Check> {
    let snaps = FileDirectory::read_only(directory);
    let names = match snap::list(&snaps) {
        Ok(names) => names,
        Err(cause) => return vec![Check { path: directory.to_owned(), found: Err(cause.into()) }],
    };
    names.iter().map(|name| Check { path: snaps.path(name), found: snapshot(&snaps, name) }).collect()
}

fn snapshot(snaps: &FileDirectory, name: &str) -> Result<String, OfflineError> {
    let snapshot = snap::read(snaps, name)?;
    v2json::read(&snapshot.data).map_err(|_| OfflineError::Tree(snaps.path(name)))?;
    let index = LogIndex(snapshot.metadata.unwrap_or_default().index);
    Ok(format!("the snapshot file is sound: entry {index}"))
}
