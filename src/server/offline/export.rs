//! Our member as one of etcd's, or its state as a snapshot file.

use std::{
    fs,
    io::ErrorKind,
    iter,
    path::{Path, PathBuf},
};

use super::{
    Building, OfflineError, Source,
    building::{Owner, check_apart},
    fence::Note,
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
pub fn export(source: &Source<'_>, data_dir: &Path, wal_dir: Option<&Path>) -> Result<ExportReport, OfflineError> {
    let resident = Resident::open(source.from, source.from_wal_dir, source.server_version)?;
    check_apart(iter::once(source.from).chain(source.from_wal_dir), iter::once(data_dir).chain(wal_dir))?;
    let building = Building::begin(data_dir, wal_dir, Owner::Etcd)?;
    write_database(&building.snap(), DATABASE, &resident)?;
    write_log(&building, &resident)?;
    let mut report = report(&resident)?;
    let back = |data_dir: &str| format!("quorateutl import {data_dir} --data-dir DIR");
    let note = Note {
        identity: report.identity,
        was: "of Quorate for",
        became: "It was handed to etcd",
        owners: ["Quorate", "etcd"],
        back: &back,
    };
    report.kept = Some(building.take_over(source.from, "exported", data_dir, &note)?);
    Ok(report)
}

/// Writes the state as a snapshot file, whole or not at all; what was there of that name is replaced. The directory stays as
/// it is, and need not be writable.
///
/// # Errors
/// [`OfflineError`].
pub fn export_snapshot(source: &Source<'_>, file: &Path) -> Result<ExportReport, OfflineError> {
    let resident = Resident::look(source.from, source.from_wal_dir, source.server_version)?;
    check_apart(iter::once(source.from).chain(source.from_wal_dir), [file])?;
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
