//! Our member as one of etcd's, or its state as a snapshot file.

use std::{
    fs,
    io::ErrorKind,
    iter,
    path::{Path, PathBuf},
};

use super::{
    Building, OfflineError,
    building::{Owner, check_apart},
    fence::{Fence, absolute},
    resident::Resident,
};
use crate::{
    apply::exchange,
    disk::{Directory as _, FileDirectory},
    etcdfile::database,
    membership::Version,
    pb::walpb,
    server::{
        Identity,
        durability::{self, Mark},
    },
    types::LogIndex,
    wal::{self, Wal},
};

/// Which member is to be handed to etcd.
#[derive(Clone, Debug)]
pub struct Export<'e> {
    /// Our data directory.
    pub from: &'e Path,
    /// Where its log is, if not where it was made.
    pub from_wal_dir: Option<&'e Path>,
    /// The etcd version that our members report at most.
    pub server_version: Version,
}

/// What was handed to etcd.
#[derive(Clone, Debug)]
pub struct ExportReport {
    /// Who the member is.
    pub identity: Identity,
    /// The last entry that the database includes.
    pub index: LogIndex,
    /// The last entry of the log.
    pub last: LogIndex,
    /// The revision of the key space, and its hash.
    pub revision: i64,
    /// The hash of the key space there.
    pub hash: u32,
    /// The version of the cluster: no older etcd takes it.
    pub version: Option<Version>,
    /// The members of the cluster.
    pub members: usize,
    /// Where our data are now; nothing if they stayed where they were.
    pub kept: Option<PathBuf>,
}

/// Makes a data directory of etcd's of ours, and then fences ours.
///
/// # Errors
/// [`OfflineError`]; then there is no new directory, and ours is as a start would have left it.
pub fn export(order: &Export<'_>, data_dir: &Path, wal_dir: Option<&Path>) -> Result<ExportReport, OfflineError> {
    let resident = open(order)?;
    check_apart(iter::once(order.from).chain(order.from_wal_dir), iter::once(data_dir).chain(wal_dir))?;
    let building = Building::begin(data_dir, wal_dir, Owner::Etcd)?;
    write_database(&building.snap(), DATABASE, &resident)?;
    write_log(&building, &resident)?;
    let mut report = report(&resident)?;
    let fence = Fence::raise(order.from, "exported", |kept| note(order.from, kept, data_dir, &report))?;
    report.kept = Some(fence.kept().to_owned());
    match building.finish() {
        Ok(()) => Ok(report),
        Err(cause) => {
            fence.lower();
            Err(cause)
        }
    }
}

/// Writes the state as a snapshot file, whole or not at all; what was there of that name is replaced. The directory stays as
/// it is.
///
/// # Errors
/// [`OfflineError`].
pub fn export_snapshot(order: &Export<'_>, file: &Path) -> Result<ExportReport, OfflineError> {
    let resident = open(order)?;
    check_apart(iter::once(order.from).chain(order.from_wal_dir), [file])?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (directory, part) = (FileDirectory::new(parent), format!("{name}.part"));
    let written = || -> Result<(), OfflineError> {
        // What an earlier attempt has left may be readable for others, or lead elsewhere.
        match fs::remove_file(directory.path(&part)) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                return Err(OfflineError::io("removing", &directory.path(&part))(cause));
            }
            _ => {}
        }
        let (to, bytes) = write_database(&directory, &part, &resident)?;
        database::seal(&to, bytes).map_err(exchange::ExchangeError::from)?;
        directory.rename(&part, &name).and_then(|()| directory.sync()).map_err(OfflineError::io("renaming", file))
    };
    written().inspect_err(|_| drop(fs::remove_file(directory.path(&part))))?;
    report(&resident)
}

/// etcd's database.
const DATABASE: &str = "db";

fn open(order: &Export<'_>) -> Result<Resident, OfflineError> {
    Resident::open(order.from, order.from_wal_dir, order.server_version)
}

fn write_database(
    directory: &FileDirectory,
    name: &str,
    resident: &Resident,
) -> Result<(crate::disk::OpenFile, u64), OfflineError> {
    let file = directory.create(name).map_err(OfflineError::io("creating", &directory.path(name)))?;
    let written = exchange::export(&resident.state(), file)?;
    Ok((written.file, written.bytes))
}

/// A snapshot at the state, which the hard state commits, and the entries behind it.
fn write_log(building: &Building, resident: &Resident) -> Result<(), OfflineError> {
    let Identity { member, cluster } = resident.identity;
    let mut log = Wal::create(building.log(), wal::Metadata { member, cluster }, &wal::Options::default())?;
    let mark: Mark = resident.mark();
    let record: walpb::Snapshot = durability::write_file(&building.snap(), &mark, None)?;
    log.append(&[], Some(&resident.hard_state))?;
    log.mark_snapshot(&record)?;
    resident.entries(|entries| {
        log.append(entries, None)?;
        Ok(log.sync()?)
    })?;
    Ok(log.sync()?)
}

fn report(resident: &Resident) -> Result<ExportReport, OfflineError> {
    let state = resident.state();
    let hash = state.view.hash_kv(0)?;
    Ok(ExportReport {
        identity: resident.identity,
        index: state.applied,
        last: resident.last,
        revision: hash.revision,
        hash: hash.hash,
        version: state.cluster.version(),
        members: state.cluster.members().len(),
        kept: None,
    })
}

/// What stands where our daemon looks for its data.
fn note(root: &Path, kept: &Path, data_dir: &Path, report: &ExportReport) -> String {
    let Identity { member, cluster } = report.identity;
    let [root, kept, data_dir] = [root, kept, data_dir].map(absolute);
    let (root, kept, data_dir) = (root.display(), kept.display(), data_dir.display());
    format!(
        "This was the data directory of Quorate for member {member} of cluster {cluster}. It was handed to etcd:\n\
         the member lives in {data_dir} now. What was here is in\n\
         {kept}, unchanged.\n\n\
         This is a file so that Quorate does not start: a member that falls back behind what it has acknowledged\n\
         can cost its cluster data.\n\n\
         The way back, if etcd was never started on the new directory:\n    \
         rm {root}/member && mv {kept} {root}/member\n\
         and otherwise, with etcd stopped, into a new directory for Quorate:\n    \
         quorateutl import {data_dir} --data-dir DIR"
    )
}
