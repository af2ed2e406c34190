//! What can go wrong in an engine.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use crate::types::with_causes;

/// A failure of this member's own disk or memory of it; other members do not share it.
#[derive(Debug, Clone, Error)]
pub enum StorageError {
    /// The engine failed at `action`.
    #[error("state store: {action} failed in {path}")]
    Engine {
        /// The directory, or the file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The engine's own report.
        #[source]
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// An earlier write or sync failed; what is on disk is known only after a restart.
    #[error("state store: refused, because an earlier write failed ({first}); restart the member")]
    Poisoned {
        /// The failure that poisoned the store.
        first: Arc<str>,
    },
    /// A key the engine cannot hold.
    #[error("state store: key of {bytes} bytes in table {table:#04x}, the store can hold {max}", max = super::KEY_BYTES_MAX)]
    KeyTooLong {
        /// Length of the key, table prefix included.
        bytes: usize,
        /// Prefix byte of the table.
        table: u8,
    },
    /// A value the engine cannot hold.
    #[error("state store: value of {bytes} bytes, the store can hold {max}", max = super::VALUE_BYTES_MAX)]
    ValueTooLong {
        /// Length of the value.
        bytes: usize,
    },
    /// The rows to load in bulk did not come to their end.
    #[error("state store: the rows to load cannot be read")]
    Source(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Rows to load in bulk that do not ascend.
    #[error("state store: rows to load are out of order at key {key}")]
    OutOfOrder {
        /// The key that is not above the one before it, escaped for printing.
        key: String,
    },
    /// A row that does not decode, or rows that contradict each other.
    #[error("state store: table {table:?} holds a bad row at key {key}: {what}")]
    Corrupt {
        /// The table.
        table: super::Table,
        /// The row's key, escaped for printing.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Files of the engine are not what was written to them.
    #[error(
        "state store: {path} is damaged: {what}; check the disk, then remove this member from the cluster and add it \
         again with an empty data directory, or restore the data directory from a backup"
    )]
    Damaged {
        /// The file, or the directory if the engine does not say which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A directory that is not a state of ours, or one of a format this version does not know.
    #[error("state store: {path} {what}")]
    Format {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
}

impl StorageError {
    /// A bad row of `table`.
    pub fn corrupt(table: super::Table, key: &[u8], what: &'static str) -> Self {
        Self::Corrupt { table, key: key.escape_ascii().to_string(), what }
    }

    /// A failure at the files in `path`, or at this one.
    pub fn engine(path: &Path, action: &'static str, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Engine { path: path.to_owned(), action, cause: Arc::new(cause) }
    }

    /// Whether there was no room to write.
    pub fn is_of_room(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let Self::Engine { cause, .. } = self else { return false };
        let cause = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(cause, Some(StorageFull | QuotaExceeded | ReadOnlyFilesystem))
    }

    /// A failure reported by fjall at `action` on the files in `path`, in words.
    pub(super) fn of_fjall(path: &Path, action: &'static str, cause: fjall::Error) -> Self {
        let what = match cause {
            fjall::Error::Io(cause) | fjall::Error::Storage(fjall::LsmError::Io(cause)) => {
                if !is_damage(&cause) {
                    return Self::engine(path, action, cause);
                }
                format!("{action}, a file ends too early or does not parse")
            }
            fjall::Error::Poisoned => {
                let first = super::reports::last().map(|report| format!(": {report}")).unwrap_or_default();
                let text = format!("an earlier write or sync failed{first}");
                return Self::engine(path, action, io::Error::other(text));
            }
            fjall::Error::Locked => return Self::engine(path, action, io::Error::other("another process uses it")),
            fjall::Error::Storage(fjall::LsmError::ChecksumMismatch { .. }) => {
                format!("{action}, the checksum of a block does not match")
            }
            fjall::Error::JournalRecovery(_) => format!("{action}, a journal holds a broken batch"),
            fjall::Error::InvalidVersion(_) | fjall::Error::Storage(fjall::LsmError::InvalidVersion(_)) => {
                format!("{action}, a file is in an unknown format")
            }
            fjall::Error::Unrecoverable | fjall::Error::Storage(fjall::LsmError::Unrecoverable) => {
                format!("{action}, files are missing or damaged")
            }
            _ => format!("{action}, a file does not parse"),
        };
        Self::Damaged { path: path.to_owned(), what }
    }

    /// Whether what was stored is not what is there, so that waiting and trying again does not help.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Corrupt { .. })
    }

    /// The error and its causes on one line.
    pub fn with_causes(&self) -> String {
        with_causes(self)
    }
}

/// An invalid input is a place in a file that cannot be: the engine seeks its trailers back from the end, ahead of the start of a file cut short.
fn is_damage(cause: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    matches!(cause.kind(), UnexpectedEof | InvalidData | InvalidInput | NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "state store: writing failed: No space left on device" did not say where.
    #[test]
    fn failures_name_their_directory() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let path = Path::new("/var/lib/member/state/1");
        for cause in
            [fjall::Error::Io(full()), fjall::Error::Poisoned, fjall::Error::Locked, fjall::Error::Unrecoverable]
        {
            let text = StorageError::of_fjall(path, "writing", cause).with_causes();
            assert!(text.contains("writing") && text.contains("/var/lib/member/state/1"), "{text}");
        }
        let text = StorageError::of_fjall(path, "writing", full().into()).with_causes();
        assert_eq!(text, format!("state store: writing failed in {}: {}", path.display(), full()));
    }
}
