//! Directories and files behind a trait, so that what must survive a crash can be tested without one.
//!
//! [`FileDirectory`] is the operating system's; [`MemoryDirectory`] keeps the page cache and the disk apart and can
//! lose power. The traits are as narrow as the log and the snapshot files need.
//!
//! Invariants:
//! - Only what was synced is promised to survive: contents after a sync of the file, names after a sync of the
//!   directory. Everything else may survive wholly, in part (by sectors of [`SECTOR_BYTES`]) or not at all.
//! - A failed sync is final. Nobody retries one: the kernel may have dropped the dirty pages.

use std::{io, path::PathBuf};

mod file;
mod locker;
mod memory;

pub use file::{BEHIND_BYTES, FileDirectory, OpenFile, private_directories, write_behind};
pub use locker::Locker;
pub use memory::{Loss, MemoryDirectory, MemoryFile};

/// The unit a disk writes at once. A torn write leaves whole sectors old or new.
pub const SECTOR_BYTES: usize = 512;

/// One directory of plain files. Errors are those of the operating system.
#[expect(clippy::missing_errors_doc, reason = "every method has the same errors")]
pub trait Directory: Clone + Send + Sync + 'static {
    /// Its files.
    type File: DiskFile;

    /// The names of its files, in bytewise order. Names that are not UTF-8 are left out.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Creates an empty file, replacing what was there; mode 0600.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name, replacing what was there. Durable after [`Directory::sync`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable after [`Directory::sync`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync(&self) -> io::Result<()>;
    /// Where a file of this name is, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// One open file. Errors are those of the operating system.
#[expect(clippy::missing_errors_doc, reason = "every method has the same errors")]
pub trait DiskFile: Send + Sync + 'static {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills as much of `buffer` as there is from `offset` on, and returns how much; less only at the file's end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, growing the file if need be.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Grows the file to `size` bytes of zeros and reserves their space.
    fn allocate(&self, size: u64) -> io::Result<()>;
    /// Cuts the file, or grows it with zeros that take no space.
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Makes contents and size durable.
    fn sync(&self) -> io::Result<()>;
    /// Takes the exclusive lock other processes look for. False if one of them holds it. Released on drop.
    fn try_lock(&self) -> io::Result<bool>;
}
