//! What is only looked at: a likeness of a state, opened as a start opens it, in the directory for temporary files.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

use super::OfflineError;
use crate::{
    clock::{Chance as _, SystemChance},
    disk::private_directories,
    server::{datadir::DataDirError, generations::Generations},
    storage::{FjallEngine, FjallOptions, StorageError},
    types::with_causes,
};

/// The live generation of the state in `root`.
///
/// # Errors
/// One that is not there, a marker that cannot be read.
pub(super) fn live(root: &Path) -> Result<PathBuf, DataDirError> {
    let missing = || DataDirError::Torn { present: root.join("FORMAT"), missing: root.join("member/state/CURRENT") };
    Generations::new(root.join("member/state")).live()?.ok_or_else(missing)
}

/// A directory for temporary files (`TMPDIR`) that goes when this is dropped.
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(super) fn new() -> Result<Self, OfflineError> {
        Self::new_in(&env::temp_dir())
    }

    fn new_in(directory: &Path) -> Result<Self, OfflineError> {
        let path = directory.join(format!("quorateutl-{}-{:016x}", process::id(), SystemChance.next_u64()));
        private_directories().create(&path).map_err(OfflineError::io("creating", &path))?;
        Ok(Self { path })
    }

    fn likeness(&self) -> PathBuf {
        self.path.join("state")
    }

    /// The state in `path`, opened without a write there.
    pub(super) fn look(&self, path: &Path) -> Result<FjallEngine, StorageError> {
        FjallEngine::look(path, &self.likeness(), &FjallOptions::default())
    }

    /// What is wrong with the likeness of the state in `path`, with the names that its files have there.
    pub(super) fn said_of(&self, path: &Path, cause: &OfflineError) -> OfflineError {
        OfflineError::Looked(with_causes(cause).replace(&*self.likeness().to_string_lossy(), &path.to_string_lossy()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(cause) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %cause, "cannot remove what was copied; remove it by hand");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_alone() {
        let home = tempfile::tempdir().unwrap();
        let names = || fs::read_dir(home.path()).unwrap().count();
        fs::create_dir(home.path().join("quorateutl-1-00ff")).unwrap();
        let first = Scratch::new_in(home.path()).unwrap();
        let second = Scratch::new_in(home.path()).unwrap();
        assert_eq!(names(), 3);
        drop((first, second));
        assert_eq!(names(), 1, "what others have called so stays");
    }
}
