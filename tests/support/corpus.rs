//! Configurations to try, each a file; what is to be said of it stands beside it, as `NAME.expected`.

use std::{fs, path::PathBuf};

/// The configurations of a directory of the package, by name.
pub(crate) fn configurations(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the corpus");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension != "expected"));
    paths.sort();
    paths
}
