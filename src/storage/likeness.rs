//! A state to look at without changing it.
//!
//! fjall cannot open files without writing beside them. So it is given a directory of its own, in which table files, which
//! are never written again, are links to those that are looked at, and everything else is a copy: journals of at most some
//! hundred megabytes, and small files.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use super::manifest::TABLES;
use crate::disk::private_directories;

/// Makes `to`, which is missing, a likeness of the state in `from`.
///
/// # Errors
/// Those of the operating system.
pub(super) fn make(from: &Path, to: &Path) -> io::Result<()> {
    // Its tables are found from anywhere.
    fill(&fs::canonicalize(from)?, to)
}

fn fill(from: &Path, to: &Path) -> io::Result<()> {
    private_directories().create(to)?;
    let are_tables = from.file_name().is_some_and(|name| name == TABLES);
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, likeness) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            fill(&path, &likeness)?;
        } else if are_tables {
            symlink(&path, &likeness)?;
        } else {
            fs::copy(&path, &likeness)?;
        }
    }
    Ok(())
}
