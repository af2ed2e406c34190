//! Room on the disk: what snapshots are written to leaves some to the log and everybody else.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Place;

/// Free space that snapshots leave to the log and everybody else.
const FREE_BYTES_MIN: u64 = 128 << 20;
/// So often the free space is looked up.
const LOOK_BYTES: u64 = 16 << 20;

/// There is no room for a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{needed} bytes are needed and {free} are free: make room on the disk of {}", path.display())]
pub(in crate::server) struct NoRoom {
    path: PathBuf,
    needed: u64,
    free: u64,
}

/// Whether `bytes` more can be written.
///
/// # Errors
/// [`NoRoom`]. A system that does not tell its free space has room.
pub(super) fn check(place: &Place, bytes: u64) -> Result<(), NoRoom> {
    check_at(place.generations.path(), bytes)
}

/// [`check`] of any directory.
///
/// # Errors
/// As [`check`].
pub(super) fn check_at(path: &Path, bytes: u64) -> Result<(), NoRoom> {
    let needed = bytes.saturating_add(FREE_BYTES_MIN);
    match free_bytes(path) {
        Some(free) if free < needed => Err(NoRoom { path: path.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

/// Bytes that are free at `path`; nothing if the system does not say.
fn free_bytes(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    // The width of these fields differs between systems.
    #[expect(clippy::useless_conversion, reason = "the fields are narrower on some systems")]
    let (blocks, size) = (u64::from(stat.blocks_available()), u64::from(stat.fragment_size()));
    blocks.checked_mul(size)
}

/// When to look again while a file grows.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Bytes that may be written before.
    left: u64,
}

impl Looks {
    /// Calls `look` for the next [`LOOK_BYTES`] if `bytes` more are not covered by the last look.
    ///
    /// # Errors
    /// Those of `look`.
    pub(super) fn cover<E>(&mut self, bytes: u64, look: impl FnOnce(u64) -> Result<(), E>) -> Result<(), E> {
        if self.left < bytes {
            let ahead = LOOK_BYTES.max(bytes);
            look(ahead)?;
            self.left = ahead;
        }
        self.left -= bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_covered_by_a_look() {
        let (mut looks, mut covered, mut written) = (Looks::default(), 0, 0);
        for bytes in [1, LOOK_BYTES - 1, 1, LOOK_BYTES, 3 * LOOK_BYTES, 7] {
            let look = |ahead| {
                covered = written + ahead;
                Ok::<(), ()>(())
            };
            looks.cover(bytes, look).unwrap();
            written += bytes;
            assert!(written <= covered && covered <= written + LOOK_BYTES, "{written} of {covered}");
        }
        assert_eq!(looks.cover(LOOK_BYTES, |_| Err("full")), Err("full"));
        assert_eq!(looks.cover(LOOK_BYTES, |_| Err("still full")), Err("still full"), "it is looked again");
    }
}
