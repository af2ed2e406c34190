//! Checks the manifests of fjall's trees against their checksums before fjall reads them.
//!
//! fjall writes a checksum of the manifest into `current` and never looks at it again; of a damaged manifest it believes
//! what parses, removes table files that are not in it, and panics at what does not parse. And a tree without `current` is
//! removed as one whose making was interrupted, whatever it holds.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_128;

use super::StorageError;

/// The directory of the trees.
const TREES: &str = "keyspaces";
/// Names the manifest that counts: version (u64), XXH3-128 of the file (u128), kind of checksum (zero), little endian.
const CURRENT: &str = "current";
const CURRENT_BYTES: usize = 25;
/// The directory of a tree's table files.
pub(super) const TABLES: &str = "tables";

/// Checks every tree of the state in `directory`, if there are any.
///
/// # Errors
/// [`StorageError::Damaged`], or a failure to read.
pub(super) fn check(directory: &Path) -> Result<(), StorageError> {
    let trees = trees(directory).map_err(|cause| StorageError::engine(directory, "listing its trees", cause))?;
    trees.iter().try_for_each(|tree| check_tree(tree))
}

/// The directories of the trees in `directory`, by name.
pub(super) fn trees(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let listed = match fs::read_dir(directory.join(TREES)) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(found),
        listed => listed?,
    };
    for entry in listed {
        let entry = entry?;
        found.extend(entry.file_type()?.is_dir().then(|| entry.path()));
    }
    found.sort_unstable();
    Ok(found)
}

fn check_tree(tree: &Path) -> Result<(), StorageError> {
    let path = tree.join(CURRENT);
    let current = match fs::read(&path) {
        Ok(current) => current,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return check_unmade(tree),
        Err(cause) => return Err(StorageError::engine(&path, "reading which manifest counts", cause)),
    };
    let damaged = |path: PathBuf, what: &str| StorageError::Damaged { path, what: what.to_owned() };
    let Some((version, sum)) = parse(&current) else {
        return Err(damaged(path, "it does not parse"));
    };
    let manifest = tree.join(format!("v{version}"));
    match fs::read(&manifest) {
        Ok(contents) if xxh3_128(&contents) == sum => Ok(()),
        Ok(_) => Err(damaged(manifest, "its checksum does not match that in the file `current`")),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            Err(damaged(path, "it names a manifest that is not there"))
        }
        Err(cause) => Err(StorageError::engine(&manifest, "reading its manifest", cause)),
    }
}

fn parse(current: &[u8]) -> Option<(u64, u128)> {
    let current: &[u8; CURRENT_BYTES] = current.try_into().ok()?;
    let (version, rest) = current.split_first_chunk::<8>()?;
    let (sum, kind) = rest.split_first_chunk::<16>()?;
    (kind == [0]).then(|| (u64::from_le_bytes(*version), u128::from_le_bytes(*sum)))
}

/// A tree without a manifest may only be one that was never finished.
fn check_unmade(tree: &Path) -> Result<(), StorageError> {
    let holds_tables = fs::read_dir(tree.join(TABLES)).is_ok_and(|mut tables| tables.next().is_some());
    let what = "its file `current` is missing, but it holds table files".to_owned();
    if holds_tables { Err(StorageError::Damaged { path: tree.to_owned(), what }) } else { Ok(()) }
}
