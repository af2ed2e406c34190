//! A log file, and how it gives way to another one (`enable-log-rotation`).
//!
//! Whoever logs writes and counts, and nothing else: a file that is full is set aside by a thread, as those of the audit log are,
//! and written on until there is another one. So it becomes a little longer than it may be, and nobody waits for a disk that
//! renames, or for a processor that compresses.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::audit;

/// When a log file is set aside, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file that is as long.
    pub bytes_max: u64,
    /// So many of them are kept, beside the one that is written.
    pub files_max: u32,
    /// For so long at most.
    pub age_max: Option<Duration>,
    /// Compressed.
    pub compress: bool,
}

/// A log file.
#[derive(Clone, Debug)]
pub(super) struct LogFile(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    rotation: Option<Rotation>,
    open: Mutex<Open>,
    /// A thread is at it.
    is_rotating: AtomicBool,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl LogFile {
    /// # Errors
    /// A file that cannot be opened.
    pub(super) fn open(path: PathBuf, rotation: Option<Rotation>) -> Result<Self> {
        let open = Mutex::new(open(&path)?);
        Ok(Self(Arc::new(Shared { path, rotation, open, is_rotating: AtomicBool::new(false) })))
    }

    /// Writes a line.
    pub(super) fn write(&self, line: &[u8]) -> io::Result<()> {
        let Self(shared) = self;
        let bytes = {
            let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.file.write_all(line)?;
            open.bytes += line.len() as u64;
            open.bytes
        };
        if shared.rotation.as_ref().is_some_and(|rotation| bytes >= rotation.bytes_max) {
            self.make_way();
        }
        Ok(())
    }

    fn make_way(&self) {
        let Self(shared) = self;
        if shared.is_rotating.swap(true, Ordering::AcqRel) {
            return;
        }
        let rotating = Arc::clone(shared);
        let begun = thread::Builder::new().name("log-rotation".to_owned()).spawn(move || {
            rotating.rotate();
            rotating.is_rotating.store(false, Ordering::Release);
        });
        if begun.is_err() {
            // The next line tries again.
            shared.is_rotating.store(false, Ordering::Release);
        }
    }
}

impl Shared {
    /// What is logged here comes by [`LogFile::write`], and is why nothing is locked meanwhile.
    fn rotate(&self) {
        let Some(rotation) = &self.rotation else { return };
        let bytes = match self.set_aside(rotation) {
            Ok(()) => return,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(path = %self.path.display(), error, "the log file could not be rotated; it grows on");
                // Tried again when as much has been written once more.
                0
            }
        };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).bytes = bytes;
    }

    fn set_aside(&self, rotation: &Rotation) -> Result<()> {
        let metadata = self.path.metadata().context("looking for it")?;
        let place =
            audit::place_of(&self.path, &metadata).context("it is no file, or a stream of the process goes there")?;
        audit::set_aside(&place, rotation.files_max).context("setting it aside")?;
        let open = open(&self.path)?;
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open;
        if let Some(age_max) = rotation.age_max {
            audit::remove_older(&place, age_max);
        }
        if rotation.compress
            && let Err(error) = audit::compress(&place)
        {
            tracing::warn!(path = %place.display(), %error, "a log file that was set aside could not be compressed");
        }
        Ok(())
    }
}

/// Appended to, created with mode 0600.
fn open(path: &std::path::Path) -> Result<Open> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let opened = opened.and_then(|file| Ok(Open { bytes: file.metadata()?.len(), file }));
    opened.with_context(|| format!("opening the log file {} (--log-outputs)", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Waits for the thread.
    fn rotated(log: &LogFile) {
        while log.0.is_rotating.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }

    #[test]
    fn a_file_that_is_full_is_set_aside_and_compressed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let rotation = Rotation { bytes_max: 10, files_max: 2, age_max: Some(Duration::from_hours(1)), compress: true };
        let log = LogFile::open(path.clone(), Some(rotation)).unwrap();
        for number in 0..8 {
            log.write(format!("line {number}\n").as_bytes()).unwrap();
            rotated(&log);
        }
        let mut names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1.gz", "log.2.gz"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        log.write(b"line 8\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 8\n");
    }

    #[test]
    fn one_that_cannot_be_set_aside_grows_on() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        fs::create_dir(place.path().join("log.1")).unwrap();
        let rotation = Rotation { bytes_max: 1, files_max: 1, age_max: None, compress: false };
        let log = LogFile::open(path.clone(), Some(rotation)).unwrap();
        for line in ["1\n", "2\n"] {
            log.write(line.as_bytes()).unwrap();
            rotated(&log);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n");
    }
}
