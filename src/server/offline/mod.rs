//! Data directories that are made, read and handed on while no member runs: the work of the offline tool.
//!
//! Invariants:
//! - A directory is there as a whole or not at all: it is built beside its names and gets them last (`building`). What
//!   fails takes away all it has made; what a killed process leaves is not taken for a member.
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
mod verify;

pub use error::OfflineError;
pub use export::{Export, ExportReport, export, export_snapshot};
pub use import::{Import, ImportReport, examine, import};
pub use restore::{Restore, restore};
pub use verify::{Check, cluster_version, is_ours, verify};

pub(super) use building::Building;
pub(super) use fence::find as find_fence;

use crate::{disk::FileDirectory, pb::raftpb::Entry, types::LogIndex, wal};

/// Entries are read so many bytes at a time.
const CHUNK_BYTES: usize = 4 << 20;

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
