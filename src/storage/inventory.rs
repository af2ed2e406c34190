//! The files that fjall takes for granted in its directory, and those that a killed process leaves there.
//!
//! Where there is no `version`, fjall begins a new database beside whatever else is there. Where there is no journal, it
//! begins one and counts sequence numbers from zero again, so that rows of the table files hide what is written later.
//! Both are refused before fjall sees the directory: it writes a first journal, then `version`, and from then on there is
//! always a journal.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{StorageError, journal, manifest};

/// Written when a database is complete enough to be opened.
const VERSION: &str = "version";
/// How the names of the files begin that become `current` of a tree, and how many letters or digits follow.
const UNFINISHED: &str = ".tmp";
const UNFINISHED_RANDOM: usize = 6;

/// Checks that the state in `directory`, if there is one, has all its parts.
///
/// # Errors
/// [`StorageError::Damaged`], or a failure to read.
pub(super) fn check(directory: &Path) -> Result<(), StorageError> {
    let failed = |cause| StorageError::engine(directory, "listing its files", cause);
    let version = directory.join(VERSION);
    let has_version = version.try_exists().map_err(failed)?;
    let has_journals = !journal::list(directory).map_err(failed)?.is_empty();
    let has_trees = !manifest::trees(directory).map_err(failed)?.is_empty();
    let damaged = |path: PathBuf, what: &str| Err(StorageError::Damaged { path, what: what.to_owned() });
    match (has_version, has_journals) {
        (false, false) if !has_trees => Ok(()),
        (false, _) => damaged(version, "it is missing beside the journals and tables that it belongs to"),
        (true, false) => {
            damaged(directory.to_owned(), "its journals (*.jnl) are missing, and with them its newest rows")
        }
        (true, true) => Ok(()),
    }
}

/// Removes what writes have left that were interrupted. What cannot be removed does no harm.
pub(super) fn clear(directory: &Path) {
    for tree in manifest::trees(directory).unwrap_or_default() {
        for path in unfinished(&tree).unwrap_or_default() {
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(?path, "removed what an interrupted write has left"),
                Err(cause) => tracing::warn!(?path, %cause, "cannot remove what an interrupted write has left"),
            }
        }
    }
}

fn unfinished(tree: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        let is_one = entry.file_name().to_str().is_some_and(is_unfinished) && entry.file_type()?.is_file();
        found.extend(is_one.then(|| entry.path()));
    }
    Ok(found)
}

fn is_unfinished(name: &str) -> bool {
    let random = name.strip_prefix(UNFINISHED);
    random.is_some_and(|random| random.len() == UNFINISHED_RANDOM && random.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::storage::{Engine, FjallEngine, FjallOptions, Read, Table, Writes};

    fn open(path: &Path) -> Result<FjallEngine, StorageError> {
        FjallEngine::open(path, &FjallOptions::default())
    }

    fn put(engine: &FjallEngine, value: &'static str) {
        let mut writes = Writes::default();
        writes.put_row(Table::V2, b"key", Bytes::from_static(value.as_bytes()));
        engine.commit(writes).unwrap();
    }

    /// A state with table files and a journal.
    fn state(path: &Path) {
        let engine = open(path).unwrap();
        (0..100).for_each(|_| put(&engine, "old"));
        engine.reclaim().unwrap();
    }

    fn remove_journals(path: &Path) {
        journal::list(path).unwrap().into_iter().for_each(|journal| fs::remove_file(journal).unwrap());
    }

    /// Such a state was opened, and sequence numbers began anew: rows of the table files hid what was written after that.
    #[test]
    fn state_without_its_journals_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        state(&path);
        remove_journals(&path);
        let text = open(&path).unwrap_err().to_string();
        assert!(
            text.contains(path.to_str().unwrap()) && text.contains("journals") && text.contains("restore"),
            "{text}"
        );
        assert!(journal::list(&path).unwrap().is_empty(), "nothing was changed");
    }

    /// With a journal named 0.jnl this said "File exists"; without one, fjall began a second keyspace beside the first.
    #[test]
    fn state_without_its_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        state(&path);
        fs::remove_file(path.join(VERSION)).unwrap();
        let refused = || open(&path).unwrap_err().to_string();
        assert!(
            refused().contains("version is damaged: it is missing") && refused().contains("restore"),
            "{}",
            refused()
        );
        remove_journals(&path);
        assert!(refused().contains("version is damaged: it is missing"), "{}", refused());
        fs::remove_dir_all(path.join("keyspaces")).unwrap();
        open(&path).unwrap();
    }

    #[test]
    fn what_interrupted_writes_have_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        state(&path);
        let tree = manifest::trees(&path).unwrap().pop().unwrap();
        let names = [".tmpAb3xY9", ".tmpAb3xY", ".tmpAb3xY-", "tmpAb3xY9", ".tmpAb3xY99"];
        for name in names {
            fs::write(tree.join(name), "x").unwrap();
        }
        fs::create_dir(tree.join(".tmpfolder")).unwrap();
        let engine = open(&path).unwrap();
        let left: Vec<bool> = names.iter().map(|name| tree.join(name).exists()).collect();
        assert_eq!(left, [false, true, true, true, true]);
        assert!(tree.join(".tmpfolder").exists());
        assert_eq!(engine.snapshot().row(Table::V2, b"key").unwrap().unwrap(), "old");
    }
}
