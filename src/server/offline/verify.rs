//! Every checksum in a data directory, from the log to the state, ours or etcd's.
//!
//! All parts are looked at, whatever is found in one of them. Everything is only read, also where it could be written; of the
//! state, a likeness in the directory for temporary files is opened as a start opens it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    OfflineError, Source, examine,
    foreign::is_there,
    of_entries,
    resident::{log_in, together},
    scratch::{Scratch, live},
};
use crate::{
    apply::{Applier, ApplyOptions, Position, position},
    disk::{Directory as _, FileDirectory},
    etcdfile::{snap, v2json},
    membership::Version,
    server::DataDir,
    storage::Engine as _,
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
    for part in [DataDir::format_path(root), DataDir::lock_path(root), root.join("member")] {
        check_access(&part)?;
    }
    let Some(log) = log_in(root)? else { return Err(OfflineError::NotOurs(root.to_owned())) };
    let _lock = DataDir::lock_for_reading(root)?;
    let log = wal_dir.map_or(log, Path::to_owned);
    check_access(&log)?;
    let (state, position) = state(root, server_version)?;
    let (found, survey) = match wal::survey(&FileDirectory::read_only(&log)) {
        Ok(survey) => (Ok(told(&survey)), Some(survey)),
        Err(cause) => (Err(cause.into()), None),
    };
    let mut checks = vec![Check { path: log, found }];
    if let (Some(survey), Some(position)) = (survey, position) {
        checks.push(Check { path: root.to_owned(), found: together(&survey, &position).map(due) });
    }
    checks.push(state);
    checks.extend(snaps(&root.join("member/snap")));
    Ok(checks)
}

/// Whether `path` and everything below it may be read, as far as it is there: what may not says nothing of its state.
///
/// # Errors
/// [`OfflineError::Forbidden`] for the first thing that may not.
fn check_access(path: &Path) -> Result<(), OfflineError> {
    let forbidden = |cause: &io::Error| cause.kind() == io::ErrorKind::PermissionDenied;
    let opened = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::read_dir(path).map(Some),
        Ok(metadata) if metadata.is_file() => File::open(path).map(|_| None),
        other => other.map(|_| None),
    };
    let entries = match opened {
        Err(cause) if forbidden(&cause) => return Err(OfflineError::unread(path)(cause)),
        // Whoever looks at it tells what else is wrong with it.
        opened => opened.unwrap_or_default(),
    };
    // A link may lead anywhere, back included.
    let is_own = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| !kind.is_symlink());
    let mut own = entries.into_iter().flatten().flatten().filter(is_own);
    own.try_for_each(|entry| check_access(&entry.path()))
}

/// Whether `root` holds a member of ours.
///
/// # Errors
/// [`OfflineError::Directory`] for one that was handed on, markers that cannot be read.
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

/// etcd's pages, rows and log, as an import would read them.
fn verify_etcds(root: &Path, wal_dir: Option<&Path>, server_version: Version) -> Result<Vec<Check>, OfflineError> {
    let source = Source { from: root, from_wal_dir: wal_dir, server_version };
    let found = match examine(&source) {
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
    format!("the log is sound: {}{torn}", of_entries(*first, *last))
}

fn due(behind: u64) -> String {
    let due = match behind {
        0 => "no entry is to be applied".to_owned(),
        1 => "1 entry is applied".to_owned(),
        behind => format!("{behind} entries are applied"),
    };
    format!("log and state belong together: {due} at the next start")
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
