//! Data directories that are made, read and handed on while no member runs: the work of the offline tool.
//!
//! Invariants:
//! - A directory is there as a whole or not at all: it is built beside its names and gets them last (`building`). What
//!   fails takes away all it has made, and nothing else; what a killed process leaves is not taken for a member.
//! - Whoever has handed a directory on leaves a fence in it, so that the same member never runs twice (`fence`).
//! - Nothing of a directory that is read is deleted.

mod building;
mod error;
mod export;
mod fence;
mod foreign;
mod import;
mod resident;
mod restore;
mod scratch;
mod verify;
mod voters;

use std::path::Path;

pub use error::OfflineError;
pub use export::{ExportReport, export, export_snapshot};
pub use import::{ImportReport, examine, import};
pub use restore::{Restore, restore};
pub use verify::{Check, cluster_version, is_ours, verify};

pub(super) use building::Building;
pub(super) use fence::find as find_fence;

use crate::{disk::FileDirectory, membership::Version, pb::raftpb::Entry, types::LogIndex, wal};

/// A member that is to be read, or handed on.
#[derive(Clone, Copy, Debug)]
pub struct Source<'s> {
    /// Its data directory.
    pub from: &'s Path,
    /// Where its log is, if not where it should be.
    pub from_wal_dir: Option<&'s Path>,
    /// The etcd version that our members report at most.
    pub server_version: Version,
}

/// Entries are read so many bytes at a time.
const CHUNK_BYTES: usize = 4 << 20;

/// Which entries a log has.
fn of_entries(first: LogIndex, last: LogIndex) -> String {
    match last.0.checked_sub(first.0) {
        None => "no entries".to_owned(),
        Some(0) => format!("entry {first}"),
        Some(_) => format!("entries {first} to {last}"),
    }
}

/// Gives the entries of `log` behind `after`, up to and including `last`, in pieces, to `take`.
///
/// # Errors
/// Those of `take`, and a log that is damaged.
fn entries(
    log: &wal::Reader<FileDirectory>,
    after: LogIndex,
    last: LogIndex,
    mut take: impl FnMut(&[Entry]) -> Result<(), OfflineError>,
) -> Result<(), OfflineError> {
    let mut next = after.0.saturating_add(1);
    while next <= last.0 {
        let entries = log.entries(LogIndex(next), last, CHUNK_BYTES)?;
        take(&entries)?;
        next = next.saturating_add(entries.len() as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_told_as_they_are() {
        let told = |first, last| of_entries(LogIndex(first), LogIndex(last));
        assert_eq!([told(2, 1), told(2, 2), told(2, 3)], ["no entries", "entry 2", "entries 2 to 3"]);
    }
}
