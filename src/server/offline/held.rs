//! Directories that somebody is at work in: each is locked as long as its process lives, so that what a killed process has left is
//! told from what another one needs.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// A directory that is held, where the file system has locks for directories.
#[derive(Debug)]
pub(super) struct Held(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] Option<File>);

impl Held {
    /// Holds the directory at `path`, which was made just now; nothing if another process has taken it for abandoned meanwhile.
    /// Where directories have no locks, nobody takes them for abandoned.
    pub(super) fn hold(path: &Path) -> Option<Self> {
        let file = match File::open(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => return Some(Self(None)),
            Ok(file) => file,
        };
        match file.try_lock() {
            Ok(()) => is_still(&file, path).then_some(Self(Some(file))),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(_)) => Some(Self(None)),
        }
    }

    /// Takes the directory at `path` if nobody holds it.
    pub(super) fn take(path: &Path) -> Option<Self> {
        let is_directory = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let file = is_directory.then(|| File::open(path).ok()).flatten()?;
        file.try_lock().ok().map(|()| Self(Some(file)))
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    let [one, other] = [file.metadata(), fs::metadata(path)].map(|metadata| metadata.ok().map(|found| found.ino()));
    one.is_some() && one == other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        assert!(Held::take(&path).is_none() && Held::hold(&path).is_none());
        fs::create_dir(&path).unwrap();
        let held = Held::hold(&path).unwrap();
        assert!(Held::take(&path).is_none());
        drop(held);
        let taken = Held::take(&path).unwrap();
        assert!(Held::hold(&path).is_none(), "it is going to be removed");
        drop(taken);
        std::os::unix::fs::symlink(&path, directory.path().join("link")).unwrap();
        assert!(Held::take(&directory.path().join("link")).is_none());
    }
}
