//! The operating system's files.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    ops::Range,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{DirBuilderExt as _, FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{PosixFadviseAdvice, posix_fadvise},
};

use super::{Directory, DiskFile};

/// A directory of the operating system. Must exist.
#[derive(Clone, Debug)]
pub struct FileDirectory {
    path: PathBuf,
    /// Whether files are opened for writing, too.
    writes: bool,
}

/// A file of the operating system.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
}

impl FileDirectory {
    /// Refers to `path` without looking at it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writes: true }
    }

    /// The same for who only reads: the file system may be one that cannot be written.
    pub fn read_only(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writes: false }
    }
}

impl OpenFile {
    /// Opens a file that is only read.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn read_only(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)? })
    }

    /// Takes the lock that others may share, as long as they only read. False if somebody has it for themselves.
    /// Released on drop.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn try_lock_shared(&self) -> io::Result<bool> {
        taken(self.file.try_lock_shared())
    }
}

/// Makes directories that are their owner's alone.
pub fn private_directories() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Bytes after which [`write_behind`] is worth a call, and no more: whoever syncs a file meanwhile waits for what the disk has
/// been given just before.
pub const BEHIND_BYTES: u64 = 256 << 10;

/// Lets the system begin to write what lies in `range` of `file`, and forget it once it is written. All at once at the end, it
/// would keep everybody waiting who syncs a file on that disk, the log of a member among them.
pub fn write_behind(file: &impl AsFd, range: Range<u64>) {
    let (from, bytes) = (i64::try_from(range.start), i64::try_from(range.end.saturating_sub(range.start)));
    if let (Ok(from), Ok(bytes)) = (from, bytes) {
        // Advice, which no file system has to take.
        posix_fadvise(file, from, bytes, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap_or_default();
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn taken(outcome: Result<(), TryLockError>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Directory for FileDirectory {
    type File = OpenFile;

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<OpenFile> {
        let file = OpenOptions::new().read(true).write(self.writes).open(self.path(name))?;
        Ok(OpenFile { file })
    }

    fn create(&self, name: &str) -> io::Result<OpenFile> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(self.path(name))?;
        Ok(OpenFile { file })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl DiskFile for OpenFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while !buffer.is_empty() {
            match self.file.read_at(buffer, offset) {
                Ok(0) => break,
                Ok(n) => {
                    read += n;
                    offset += n as u64;
                    buffer = buffer.get_mut(n..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let length = i64::try_from(size).map_err(io::Error::other)?;
        match nix::fcntl::posix_fallocate(&self.file, 0, length) {
            Ok(()) => Ok(()),
            Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => self.file.set_len(size),
            Err(errno) => Err(errno.into()),
        }
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        taken(self.file.try_lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_is_short() {
        let home = tempfile::tempdir().unwrap();
        let directory = FileDirectory::new(home.path());
        let file = directory.create("a").unwrap();
        file.write_at(b"abc", 2).unwrap();
        let mut buffer = [9; 8];
        assert_eq!(file.read_at(&mut buffer, 1).unwrap(), 4);
        assert_eq!(buffer, *b"\0abc\x09\x09\x09\x09");
        assert_eq!(directory.names().unwrap(), ["a"]);
    }

    #[test]
    fn allocated_space_reads_as_zeros() {
        let home = tempfile::tempdir().unwrap();
        let file = FileDirectory::new(home.path()).create("a").unwrap();
        file.write_at(b"abc", 0).unwrap();
        file.allocate(8).unwrap();
        assert_eq!(file.size().unwrap(), 8);
        let mut buffer = [9; 8];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 8);
        assert_eq!(buffer, *b"abc\0\0\0\0\0");
    }

    #[test]
    fn a_second_handle_cannot_take_the_lock() {
        let home = tempfile::tempdir().unwrap();
        let directory = FileDirectory::new(home.path());
        let first = directory.create("a").unwrap();
        let second = directory.open("a").unwrap();
        assert!(first.try_lock().unwrap());
        assert!(!second.try_lock().unwrap());
        drop(first);
        assert!(second.try_lock().unwrap());
        let reads = [(); 2].map(|()| OpenFile::read_only(&directory.path("a")).unwrap());
        assert_eq!(reads.each_ref().map(|file| file.try_lock_shared().unwrap()), [false; 2]);
        drop(second);
        assert_eq!(reads.each_ref().map(|file| file.try_lock_shared().unwrap()), [true; 2]);
    }
}
