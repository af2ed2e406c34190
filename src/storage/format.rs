//! The file that says whose directory a state is, and in which format.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::StorageError;

/// Name of the file, beside the engine's own files.
pub const FORMAT_FILE: &str = "STATE-FORMAT";
/// What it holds up to the version number.
const MAGIC: &str = "quorate state ";
/// The version this code writes and reads.
const VERSION: u32 = 2;

/// Makes sure that `path` is a state directory of a known format; marks it as one if it is missing or empty.
///
/// # Errors
/// [`StorageError::Format`] if it holds something else or a newer format.
pub(super) fn claim(path: &Path) -> Result<(), StorageError> {
    let marker = path.join(FORMAT_FILE);
    match fs::read(&marker) {
        Ok(text) => check(marker, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, &marker),
        Err(error) => Err(StorageError::engine(&marker, "reading its format file", error)),
    }
}

fn check(marker: PathBuf, text: &[u8]) -> Result<(), StorageError> {
    let text = String::from_utf8_lossy(text);
    let version = text.strip_prefix(MAGIC).and_then(|rest| rest.trim_end().parse::<u32>().ok());
    let what = match version {
        Some(VERSION) => return Ok(()),
        Some(version) => format!(
            "says format {version}, and this version reads format {VERSION}; start the version that wrote it, or save a \
             snapshot with that version and restore it with this one into an empty data directory"
        ),
        None => format!(
            "does not begin with `{MAGIC}`, so the directory is not a state of this program; move it away, or choose \
             another data directory"
        ),
    };
    Err(StorageError::Format { path: marker, what })
}

fn create(path: &Path, marker: &Path) -> Result<(), StorageError> {
    let failed = |error| StorageError::engine(path, "creating its directory", error);
    fs::create_dir_all(path).map_err(failed)?;
    if fs::read_dir(path).map_err(failed)?.next().is_some() {
        let what = format!(
            "holds files but no `{FORMAT_FILE}`, so it is not a state of this program; move it away, or choose another \
             data directory"
        );
        return Err(StorageError::Format { path: path.to_owned(), what });
    }
    write_synced(marker, &format!("{MAGIC}{VERSION}\n")).map_err(failed)?;
    fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Writes a file that is either whole or not there: under another name first, which is then changed.
fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = fs::File::create_new(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        claim(path).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_directory_is_claimed_and_known_again() {
        let directory = tempfile::tempdir().unwrap();
        claim(directory.path()).unwrap();
        claim(directory.path()).unwrap();
        claim(&directory.path().join("new/deep")).unwrap();
    }

    #[test]
    fn foreign_directory_is_refused_with_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("db"), "something").unwrap();
        let text = refusal(directory.path());
        assert!(text.contains("not a state of this program") && text.contains("another data directory"), "{text}");
    }

    #[test]
    fn newer_format_is_refused_with_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FORMAT_FILE), "quorate state 3\n").unwrap();
        let text = refusal(directory.path());
        assert!(text.contains("says format 3") && text.contains("snapshot"), "{text}");
        fs::write(directory.path().join(FORMAT_FILE), [0xff, 0]).unwrap();
        assert!(refusal(directory.path()).contains("does not begin with"));
    }
}
