//! A database file that is read where it lies.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::super::{
    failure::{Exit, Failure},
    parse::Call,
    table::Flag,
};
use crate::{
    disk::{DiskFile as _, OpenFile, SECTOR_BYTES},
    etcdfile::{
        bbolt::{BboltError, Reader},
        database::{self, DatabaseError},
    },
    types::with_causes,
};

/// How often the lock of a file is tried.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The path that is the only argument.
pub(super) fn path(call: &Call) -> Option<PathBuf> {
    let [path] = call.arguments.as_slice() else { return None };
    Some(path.into())
}

/// The path that a flag names, if it names one.
pub(super) fn given(call: &Call, flag: &Flag) -> Option<PathBuf> {
    Some(call.flags.text(flag)).filter(|text| !text.is_empty()).map(PathBuf::from)
}

/// Refuses a path at which there is no file to read.
///
/// # Errors
/// A [`Failure`] in the words of etcd's tool.
pub(super) fn check(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|cause| failed(format_args!("stat {shown}: {}", in_go(&cause))))?;
    if metadata.is_file() { Ok(()) } else { Err(failed(format_args!("{shown} is not a file"))) }
}

/// Opens a database for reading. A member that uses it holds its lock: it is waited for as long as `patience`, zero
/// meaning for ever.
///
/// # Errors
/// A [`Failure`] for a file that is locked, or none of etcd's.
pub(super) async fn open(path: &Path, patience: Duration) -> Result<Reader<OpenFile>, Failure> {
    Reader::open(lock(path, patience).await?).map_err(|cause| failed(with_causes(&cause)))
}

/// Opens a file for reading and shares its lock, as [`open`] does, whatever it is.
///
/// # Errors
/// A [`Failure`] for a file that cannot be read, or is locked.
pub(super) async fn lock(path: &Path, patience: Duration) -> Result<OpenFile, Failure> {
    let shown = path.display();
    let file = OpenFile::read_only(path).map_err(|cause| failed(format_args!("open {shown}: {}", in_go(&cause))))?;
    let locked = async {
        while !file.try_lock_shared()? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok::<_, io::Error>(())
    };
    if patience.is_zero() {
        locked.await?;
    } else {
        let limit = tokio::time::timeout(patience, locked).await;
        limit.map_err(|_| {
            failed(format_args!("timeout: a running member holds {shown}; stop it, or read a snapshot of it"))
        })??;
    }
    Ok(file)
}

/// Checks the SHA-256 of a file that has one: damage inside of a value shows nowhere else. A database that was copied has
/// none, and may have whole sectors behind its pages.
///
/// # Errors
/// A [`Failure`] that says so.
pub(super) fn check_sum(reader: &Reader<OpenFile>) -> Result<(), Failure> {
    let extra = reader.file().size()?.saturating_sub(reader.bytes());
    if extra % SECTOR_BYTES as u64 == 0 {
        return Ok(());
    }
    database::check_seal(reader).map_err(|cause| damaged(&cause))
}

/// What etcd's tool says before it names what is wrong.
pub(super) fn damaged(error: &DatabaseError) -> Failure {
    let text = with_causes(error);
    match error {
        DatabaseError::File(BboltError::Io { .. }) => failed(text),
        _ => failed(format_args!("snapshot file integrity check failed. 1 errors found.\n{text}")),
    }
}

pub(super) fn failed(text: impl Display) -> Failure {
    Failure::new(Exit::Error, text)
}

fn in_go(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
