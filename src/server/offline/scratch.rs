//! What is only looked at: a likeness of a state, opened as a start opens it, in the directory for temporary files.

use std::{
    env,
    error::Error,
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process,
};

use nix::unistd::geteuid;

use super::{OfflineError, held::Held};
use crate::{
    clock::{Chance as _, SystemChance},
    server::{datadir::DataDirError, generations::Generations},
    storage::{FjallEngine, FjallOptions, StorageError},
};

/// The live generation of the state in `root`.
///
/// # Errors
/// One that is not there, a marker that cannot be read.
pub(super) fn live(root: &Path) -> Result<PathBuf, DataDirError> {
    let missing = || DataDirError::Torn { present: root.join("FORMAT"), missing: root.join("member/state/CURRENT") };
    Generations::new(root.join("member/state")).live()?.ok_or_else(missing)
}

/// A directory for temporary files (`TMPDIR`) that goes when this is dropped, and when the next one is made if this process was
/// killed: until then it is locked.
pub(super) struct Scratch {
    path: PathBuf,
    _held: Held,
}

impl Scratch {
    pub(super) fn new() -> Result<Self, OfflineError> {
        Self::new_in(&env::temp_dir())
    }

    fn new_in(directory: &Path) -> Result<Self, OfflineError> {
        for path in left_in(directory) {
            remove_abandoned(&path);
        }
        loop {
            let path = directory.join(format!("{SCRATCH_PREFIX}{}-{:016x}", process::id(), SystemChance.next_u64()));
            DirBuilder::new().mode(0o700).create(&path).map_err(OfflineError::io("creating", &path))?;
            // Between the two, another process may have taken it for abandoned.
            if let Some(held) = Held::hold(&path) {
                return Ok(Self { path, _held: held });
            }
        }
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

/// What the names of such directories begin with.
const SCRATCH_PREFIX: &str = "quorateutl-";

/// Such directories that this user has made.
fn left_in(directory: &Path) -> Vec<PathBuf> {
    let is_left = |entry: &fs::DirEntry| {
        let is_scratch = entry.file_name().to_string_lossy().starts_with(SCRATCH_PREFIX);
        let is_own = |metadata: fs::Metadata| metadata.is_dir() && metadata.uid() == geteuid().as_raw();
        is_scratch && entry.metadata().is_ok_and(is_own)
    };
    fs::read_dir(directory).into_iter().flatten().flatten().filter(is_left).map(|entry| entry.path()).collect()
}

fn remove_abandoned(path: &Path) {
    let Some(_held) = Held::take(path) else { return };
    tracing::info!(path = %path.display(), "removing what an interrupted run has left");
    if let Err(cause) = fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %cause, "cannot remove what an interrupted run has left; remove it by hand");
    }
}

fn with_causes(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
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
    fn what_a_killed_process_has_left_goes_with_the_next_one() {
        let home = tempfile::tempdir().unwrap();
        let names = || fs::read_dir(home.path()).unwrap().count();
        let left = home.path().join("quorateutl-1-00ff");
        fs::create_dir_all(left.join("state")).unwrap();
        fs::write(left.join("state/copy"), "x").unwrap();
        fs::write(home.path().join("quorateutl-notes"), "").unwrap();
        let first = Scratch::new_in(home.path()).unwrap();
        assert!(!left.exists() && first.path.is_dir() && names() == 2);
        let second = Scratch::new_in(home.path()).unwrap();
        assert!(first.path.is_dir(), "somebody is at work in it");
        drop((first, second));
        assert_eq!(names(), 1);
    }
}
