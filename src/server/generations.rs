//! The generations of the state in a data directory: `member/state/<n>`, of which CURRENT names the live one.
//!
//! A received snapshot becomes a generation beside the live one, and replaces it at once ([`super::durability::install`]).
//!
//! Invariants: CURRENT is replaced by rename and names a complete generation; only what CURRENT does not name, durably, is
//! ever removed: a start syncs the directory first, in which a killed process may have renamed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::datadir::{DataDirError, create, read_marker, replace, sync_tree};

/// The generations in one directory.
#[derive(Clone, Debug)]
pub(super) struct Generations {
    state: PathBuf,
}

impl Generations {
    /// Those in `state`, which exists.
    pub(super) fn new(state: PathBuf) -> Self {
        Self { state }
    }

    /// The directory they are in.
    pub(super) fn path(&self) -> &Path {
        &self.state
    }

    /// The live generation's directory, if one was ever made.
    ///
    /// # Errors
    /// An unreadable CURRENT, or one that names nothing.
    pub(super) fn live(&self) -> Result<Option<PathBuf>, DataDirError> {
        let marker = self.marker();
        let Some(line) = read_marker(&marker)? else { return Ok(None) };
        if line.parse::<u64>().is_err() {
            return Err(DataDirError::Marker { path: marker, found: line });
        }
        let path = self.state.join(&line);
        if !path.is_dir() {
            return Err(DataDirError::Torn { present: marker, missing: path });
        }
        Ok(Some(path))
    }

    /// The directories of all generations, oldest first, whether CURRENT names them or not.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub(super) fn all(&self) -> Result<Vec<PathBuf>, DataDirError> {
        let listed = || -> io::Result<Vec<u64>> {
            let mut numbers = Vec::new();
            for entry in fs::read_dir(&self.state)? {
                numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
            }
            numbers.sort_unstable();
            Ok(numbers)
        };
        let numbers = listed().map_err(DataDirError::io("reading", &self.state))?;
        Ok(numbers.into_iter().map(|number| self.state.join(number.to_string())).collect())
    }

    /// A new, empty generation beside those there are.
    ///
    /// # Errors
    /// A directory that cannot be read or written.
    pub(super) fn create(&self) -> Result<PathBuf, DataDirError> {
        let number =
            |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let last: u64 = self.all()?.last().and_then(number).unwrap_or(0);
        let path = self.state.join(last.saturating_add(1).to_string());
        create(&path)?;
        Ok(path)
    }

    /// Makes the names of a generation's files durable.
    ///
    /// # Errors
    /// A directory that cannot be synced.
    pub(super) fn sync(generation: &Path) -> Result<(), DataDirError> {
        sync_tree(generation).map_err(DataDirError::io("syncing", generation))
    }

    /// Makes a generation whose files are complete and durable the live one.
    ///
    /// # Errors
    /// A directory that cannot be synced, or a CURRENT that cannot be written.
    pub(super) fn make_live(&self, generation: &Path) -> Result<(), DataDirError> {
        Self::sync(generation)?;
        let name = generation.file_name().unwrap_or_default().to_string_lossy();
        replace(&self.marker(), &name)
    }

    /// Removes a generation that is not, or no longer, the live one.
    ///
    /// # Errors
    /// A CURRENT that cannot be read, or files that cannot be removed.
    pub(super) fn remove(&self, generation: &Path) -> Result<(), DataDirError> {
        if self.live()?.as_deref() == Some(generation) {
            return Ok(());
        }
        fs::remove_dir_all(generation).map_err(DataDirError::io("removing", generation))
    }

    fn marker(&self) -> PathBuf {
        self.state.join("CURRENT")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_current_names_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let generations = Generations::new(root.path().to_owned());
        let (first, second) = (generations.create().unwrap(), generations.create().unwrap());
        generations.make_live(&first).unwrap();
        generations.remove(&first).unwrap();
        generations.remove(&second).unwrap();
        assert_eq!(generations.all().unwrap(), std::slice::from_ref(&first));
        assert_eq!(generations.live().unwrap(), Some(first));
    }
}
