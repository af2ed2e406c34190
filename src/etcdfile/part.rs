//! A snapshot file while it is written: under another name, for its owner alone, until it is whole and durable.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    bbolt::{BboltError, Reader},
    database::{self, DatabaseError, SealCheck},
};
use crate::disk::{BEHIND_BYTES, OpenFile, write_behind};

/// What stands behind the name of a file that is not whole yet.
pub const PART_SUFFIX: &str = ".part";

/// Why there is no file.
#[derive(Debug, Error)]
pub enum PartError {
    /// It cannot be created.
    #[error("could not open {} ({cause})", path.display())]
    Open {
        /// Where.
        path: PathBuf,
        #[expect(missing_docs, reason = "the text shows it")]
        cause: io::Error,
    },
    /// It cannot be written on.
    #[error("could not write {} ({cause})", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        #[expect(missing_docs, reason = "the text shows it")]
        cause: io::Error,
    },
    /// What was written ends in no checksum.
    #[error("sha256 checksum not found [bytes: {bytes}]")]
    NoSum {
        /// Its length.
        bytes: u64,
    },
    /// What was written is not what the checksum says.
    #[error(transparent)]
    Sum(#[from] DatabaseError),
    /// It cannot be made durable.
    #[error("could not sync {} ({cause})", path.display())]
    Sync {
        /// Where.
        path: PathBuf,
        #[expect(missing_docs, reason = "the text shows it")]
        cause: io::Error,
    },
    /// It cannot be given its name.
    #[error("could not rename {} to {} ({cause})", from.display(), to.display())]
    Rename {
        /// Where it is.
        from: PathBuf,
        /// Where it was to be.
        to: PathBuf,
        #[expect(missing_docs, reason = "the text shows it")]
        cause: io::Error,
    },
}

impl PartError {
    /// What the system said, if it was asked.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Open { cause, .. }
            | Self::Write { cause, .. }
            | Self::Sync { cause, .. }
            | Self::Rename { cause, .. } => Some(cause),
            Self::NoSum { .. } | Self::Sum(_) => None,
        }
    }
}

/// A file that is not whole yet. It is gone unless it was finished.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    file: File,
    check: SealCheck,
    /// Bytes that the system has begun to write.
    behind: u64,
}

impl Part {
    /// Begins the file that is to be `path`. What an earlier attempt has left of it goes.
    ///
    /// # Errors
    /// [`PartError::Open`].
    pub fn create(path: &Path) -> Result<Self, PartError> {
        let path = PathBuf::from(OsString::from_iter([path.as_os_str(), PART_SUFFIX.as_ref()]));
        let failed = |cause| PartError::Open { path: path.clone(), cause };
        // What an earlier attempt has left may be readable for others.
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        Ok(Self { path, file, check: SealCheck::default(), behind: 0 })
    }

    /// Writes the next piece.
    ///
    /// # Errors
    /// [`PartError::Write`].
    pub fn write(&mut self, piece: &[u8]) -> Result<(), PartError> {
        self.check.update(piece);
        self.file.write_all(piece).map_err(|cause| PartError::Write { path: self.path.clone(), cause })?;
        let end = self.check.bytes();
        if end - self.behind >= BEHIND_BYTES {
            write_behind(&self.file, self.behind..end);
            self.behind = end;
        }
        Ok(())
    }

    /// Checks what was written against the checksum at its end and makes it durable.
    ///
    /// # Errors
    /// [`PartError::NoSum`], [`PartError::Sum`], [`PartError::Sync`].
    pub fn seal(&mut self) -> Result<(), PartError> {
        let check = std::mem::take(&mut self.check);
        let bytes = check.bytes();
        if !database::has_seal(bytes) {
            return Err(PartError::NoSum { bytes });
        }
        check.finish()?;
        self.file.sync_all().map_err(|cause| PartError::Sync { path: self.path.clone(), cause })
    }

    /// Reads a sealed file as `snapshot status` does, every page, every row and the checksum, and returns the hash that it
    /// shows. What it needs of memory does not grow with the file.
    ///
    /// # Errors
    /// [`DatabaseError`]: the disk gives back something else than was written.
    pub fn read_back(&self) -> Result<u32, DatabaseError> {
        let reader = Reader::open(OpenFile::read_only(&self.path).map_err(BboltError::io("open"))?)?;
        database::check_buckets(&reader)?;
        let hash = database::hash(&reader)?;
        database::check_seal(&reader)?;
        Ok(hash)
    }

    /// Gives a sealed file its name, durably.
    ///
    /// # Errors
    /// [`PartError::Rename`].
    pub fn rename(self, path: &Path) -> Result<(), PartError> {
        let renamed = fs::rename(&self.path, path).and_then(|()| sync_directory(path));
        renamed.map_err(|cause| PartError::Rename { from: self.path.clone(), to: path.to_owned(), cause })
    }
}

/// Makes the name of a file durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

impl Drop for Part {
    fn drop(&mut self) {
        // Of a finished file there is no part.
        fs::remove_file(&self.path).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use sha2::{Digest as _, Sha256};

    use super::*;

    fn saved(path: &Path, bytes: &[u8]) -> Result<(), PartError> {
        let mut part = Part::create(path)?;
        bytes.chunks(1_000).try_for_each(|piece| part.write(piece))?;
        part.seal()?;
        part.rename(path)
    }

    #[test]
    fn only_a_whole_snapshot_gets_its_name() {
        let home = tempfile::tempdir().unwrap();
        let (path, part) = (home.path().join("s.db"), home.path().join("s.db.part"));
        fs::write(&part, "of an earlier attempt").unwrap();
        let pages = vec![5; 4_096];
        let whole = [&pages[..], &Sha256::digest(&pages)].concat();
        saved(&path, &whole).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let refused = |bytes: &[u8]| saved(&path, bytes).unwrap_err();
        assert_eq!(refused(&pages).to_string(), "sha256 checksum not found [bytes: 4096]");
        let mut damaged = whole.clone();
        damaged[7] ^= 1;
        assert!(matches!(refused(&damaged), PartError::Sum(_)));
        assert_eq!((fs::read(&path).unwrap(), part.exists()), (whole, false), "what was there stays");
        let refusal = Part::create(&home.path().join("absent/s.db")).unwrap_err();
        let text = refusal.to_string();
        assert!(text.starts_with("could not open ") && text.contains("absent/s.db.part"), "{text}");
        assert_eq!(refusal.io().map(io::Error::kind), Some(io::ErrorKind::NotFound));
    }

    /// The system writes pieces before they are synced: none is lost or put elsewhere by that.
    #[test]
    fn what_is_written_behind_the_writer_is_what_was_written() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s.db");
        let bytes: Vec<u8> = (0..251).cycle().take(5 * usize::try_from(BEHIND_BYTES).unwrap()).collect();
        let mut part = Part::create(&path).unwrap();
        let mut behind = Vec::new();
        for piece in bytes.chunks(100_000) {
            part.write(piece).unwrap();
            behind.push(part.behind);
        }
        behind.dedup();
        assert!(behind.len() > 4 && behind.windows(2).all(|two| two[1] - two[0] >= BEHIND_BYTES), "{behind:?}");
        assert_eq!(fs::read(&part.path).unwrap(), bytes);
    }

    /// A disk that is full at the `n`-th write.
    #[test]
    fn a_write_that_fails_is_told_whichever_it_is() {
        for n in [0, 1, 4] {
            let home = tempfile::tempdir().unwrap();
            let mut part = Part::create(&home.path().join("s.db")).unwrap();
            let piece = vec![7; usize::try_from(BEHIND_BYTES).unwrap()];
            for _ in 0..n {
                part.write(&piece).unwrap();
            }
            part.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
            let failed = part.write(&piece).unwrap_err();
            assert!(matches!(failed, PartError::Write { .. }), "{failed}");
            assert_eq!(failed.io().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
            assert!(failed.to_string().contains("s.db.part"), "{failed}");
            let path = part.path.clone();
            drop(part);
            assert!(!path.exists(), "nothing is left that could be taken for a snapshot");
        }
    }
}
