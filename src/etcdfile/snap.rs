//! `<term>-<index>.snap`: a raft snapshot's metadata and data under a checksum.
//!
//! Invariants:
//! - A file is there wholly or not at all: it is written under another name, synced and renamed.
//! - An unreadable file is set aside as `.broken` and never stands in the way of an older, readable one.

use std::{io, path::PathBuf};

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;

use crate::{
    clock::Stopwatch,
    disk::{Directory, DiskFile},
    metrics,
    pb::{raftpb, walpb},
};

/// Longest file that is read: its data is the v2 tree, a few kilobytes unless somebody keeps data in it.
pub const SNAP_BYTES_MAX: u64 = 1 << 30;
/// How many files etcd keeps.
pub const SNAP_FILES_KEPT: usize = 5;

/// What stands before the name of a file that is being written; etcd removes such files when it starts.
const TEMPORARY_PREFIX: &str = "tmp-";

/// A snapshot file could not be read or written.
#[derive(Debug, Error)]
pub enum SnapError {
    /// The operating system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its answer.
        #[source]
        cause: io::Error,
    },
    /// The file is not what its writer wrote.
    #[error("{} is damaged: {what}; it is set aside, and an older one is used", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

fn io_error<D: Directory>(directory: &D, action: &'static str, name: &str) -> impl Fn(io::Error) -> SnapError + use<D> {
    let path = directory.path(name);
    move |cause| SnapError::Io { action, path: path.clone(), cause }
}

/// The name of the file for a snapshot at this position.
pub fn name(term: u64, index: u64) -> String {
    format!("{term:016x}-{index:016x}.snap")
}

/// Writes `snapshot` durably under its name, and returns the name.
///
/// # Errors
/// On failure to write, sync or rename.
pub fn write<D: Directory>(directory: &D, snapshot: &raftpb::Snapshot) -> Result<String, SnapError> {
    let begun = Stopwatch::start();
    let metadata = snapshot.metadata.clone().unwrap_or_default();
    let name = name(metadata.term, metadata.index);
    let data = Bytes::from(snapshot.encode_to_vec());
    let file = walpb::SnapFile { crc: crc32c::crc32c(&data), data };
    let bytes = file.encode_to_vec();
    metrics::SNAP_SAVE_ENCODING.observe(begun.elapsed());
    let temporary = format!("{TEMPORARY_PREFIX}{name}");
    let put = || {
        let to = directory.create(&temporary)?;
        to.write_at(&bytes, 0)?;
        let written = Stopwatch::start();
        to.sync()?;
        metrics::SNAP_FSYNC.observe(written.elapsed());
        directory.rename(&temporary, &name)?;
        directory.sync()
    };
    put().map_err(io_error(directory, "write", &name))?;
    metrics::SNAP_SAVE.observe(begun.elapsed());
    Ok(name)
}

/// Reads one file.
///
/// # Errors
/// If it cannot be read, or is damaged.
pub fn read<D: Directory>(directory: &D, name: &str) -> Result<raftpb::Snapshot, SnapError> {
    let failed = io_error(directory, "read", name);
    let damaged = |what| SnapError::Damaged { path: directory.path(name), what };
    let file = directory.open(name).map_err(&failed)?;
    let size = file.size().map_err(&failed)?;
    if size > SNAP_BYTES_MAX {
        return Err(damaged("it is too long"));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let read = file.read_at(&mut bytes, 0).map_err(&failed)?;
    bytes.truncate(read);
    let file = walpb::SnapFile::decode(Bytes::from(bytes)).map_err(|_| damaged("it does not parse"))?;
    if file.crc == 0 || file.data.is_empty() {
        return Err(damaged("it is empty"));
    }
    if file.crc != crc32c::crc32c(&file.data) {
        return Err(damaged("its checksum does not match"));
    }
    raftpb::Snapshot::decode(file.data).map_err(|_| damaged("its snapshot does not parse"))
}

/// The names of all snapshot files, newest first.
///
/// # Errors
/// If the directory cannot be listed.
pub fn list<D: Directory>(directory: &D) -> Result<Vec<String>, SnapError> {
    let mut names = directory.names().map_err(io_error(directory, "list", ""))?;
    names.retain(|found| position(found).is_some_and(|(term, index)| *found == name(term, index)));
    names.reverse();
    Ok(names)
}

fn position(name: &str) -> Option<(u64, u64)> {
    let (term, index) = name.strip_suffix(".snap")?.split_once('-')?;
    Some((u64::from_str_radix(term, 16).ok()?, u64::from_str_radix(index, 16).ok()?))
}

/// The newest readable snapshot that `accept` takes. Damaged files on the way to it are renamed to `.broken` and their
/// names returned.
///
/// # Errors
/// If the directory cannot be listed or a file cannot be read or renamed.
pub fn newest<D: Directory>(
    directory: &D,
    accept: impl Fn(&raftpb::SnapshotMetadata) -> bool,
) -> Result<(Option<raftpb::Snapshot>, Vec<String>), SnapError> {
    let mut broken = Vec::new();
    for name in list(directory)? {
        match read(directory, &name) {
            Ok(snapshot) if accept(&snapshot.metadata.clone().unwrap_or_default()) => {
                return Ok((Some(snapshot), broken));
            }
            Ok(_) => {}
            Err(SnapError::Damaged { .. }) => {
                let aside = format!("{name}.broken");
                directory.rename(&name, &aside).map_err(io_error(directory, "set aside", &name))?;
                broken.push(name);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((None, broken))
}

/// Removes all but the newest `keep` files, and what interrupted writes have left. Returns how many files went.
///
/// # Errors
/// On failure to list or remove.
pub fn prune<D: Directory>(directory: &D, keep: usize) -> Result<usize, SnapError> {
    let mut names = directory.names().map_err(io_error(directory, "list", ""))?;
    names.retain(|name| name.starts_with(TEMPORARY_PREFIX));
    names.extend(list(directory)?.into_iter().skip(keep));
    for name in &names {
        directory.remove(name).map_err(io_error(directory, "remove", name))?;
    }
    Ok(names.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::{Loss, MemoryDirectory};

    fn snapshot(term: u64, index: u64) -> raftpb::Snapshot {
        let conf_state = raftpb::ConfState { voters: vec![1, 2], ..Default::default() };
        let metadata = raftpb::SnapshotMetadata { conf_state: Some(conf_state), index, term };
        raftpb::Snapshot { data: Bytes::from_static(b"{}"), metadata: Some(metadata) }
    }

    fn index(found: Option<&raftpb::Snapshot>) -> Option<u64> {
        found.and_then(|snapshot| snapshot.metadata.as_ref()).map(|metadata| metadata.index)
    }

    #[test]
    fn what_is_written_is_read_after_a_crash() {
        let directory = MemoryDirectory::default();
        assert_eq!(write(&directory, &snapshot(2, 12)).unwrap(), "0000000000000002-000000000000000c.snap");
        directory.crash(Loss::All);
        let (found, broken) = newest(&directory, |_| true).unwrap();
        assert_eq!(found.unwrap(), snapshot(2, 12));
        assert_eq!(broken, Vec::<String>::new());
    }

    #[test]
    fn a_write_that_fails_leaves_the_older_file_in_place() {
        const RENAMED: u64 = 4;
        for n in 0..=RENAMED {
            let directory = MemoryDirectory::default();
            write(&directory, &snapshot(1, 5)).unwrap();
            directory.fail_after(n);
            write(&directory, &snapshot(1, 9)).unwrap_err();
            directory.crash(Loss::Torn(n));
            let (found, broken) = newest(&directory, |_| true).unwrap();
            let found = index(found.as_ref());
            // Once it has its name only the sync of the name is missing: the new one can be there, and then wholly.
            assert!(found == Some(5) || (n == RENAMED && found == Some(9)), "{found:?} after {n}");
            assert_eq!(broken.len(), 0);
            prune(&directory, 5).unwrap();
            assert_eq!(directory.names().unwrap().len(), list(&directory).unwrap().len(), "only snapshots are left");
            assert!(list(&directory).unwrap().contains(&name(1, 5)));
        }
    }

    #[test]
    fn damaged_files_are_set_aside_and_the_next_one_is_taken() {
        let directory = MemoryDirectory::default();
        for (term, index) in [(1, 5), (1, 9), (2, 7)] {
            write(&directory, &snapshot(term, index)).unwrap();
        }
        directory.corrupt(&name(2, 7), 12, |byte| byte ^ 1);
        let (found, broken) = newest(&directory, |_| true).unwrap();
        assert_eq!((index(found.as_ref()), broken), (Some(9), vec![name(2, 7)]));
        assert!(directory.names().unwrap().contains(&format!("{}.broken", name(2, 7))));
        let (found, _) = newest(&directory, |metadata| metadata.index < 9).unwrap();
        assert_eq!(index(found.as_ref()), Some(5));
        assert_eq!(index(newest(&directory, |_| false).unwrap().0.as_ref()), None);
    }

    #[test]
    fn only_the_newest_are_kept() {
        let directory = MemoryDirectory::default();
        directory.create("db").unwrap();
        for index in 1..=7 {
            write(&directory, &snapshot(1, index)).unwrap();
        }
        assert_eq!(prune(&directory, SNAP_FILES_KEPT).unwrap(), 2);
        assert_eq!(list(&directory).unwrap().last(), Some(&name(1, 3)));
        assert!(directory.names().unwrap().contains(&"db".to_owned()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let directory = MemoryDirectory::default();
            directory.create(&name(1, 1)).unwrap().write_at(&bytes, 0).unwrap();
            prop_assert!(newest(&directory, |_| true).unwrap().1.len() <= 1);
        }
    }
}
