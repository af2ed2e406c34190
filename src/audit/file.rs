//! Where lines go.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::AuditError;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, appended to, created with mode 0600, in a directory that is made with mode 0700 if the one above it is there.
    File(PathBuf),
}

/// A target that is open.
#[derive(Debug)]
pub(super) enum Open {
    Stderr,
    Stdout,
    File {
        file: File,
        /// Its length; nothing of what has none, such as a pipe.
        bytes: Option<u64>,
    },
}

impl Open {
    pub(super) fn of(target: &Target) -> Result<Self, AuditError> {
        match target {
            Target::Stderr => Ok(Self::Stderr),
            Target::Stdout => Ok(Self::Stdout),
            Target::File(path) => {
                let opened = open(path).and_then(|file| {
                    let metadata = file.metadata()?;
                    Ok(Self::File { bytes: metadata.is_file().then_some(metadata.len()), file })
                });
                opened.map_err(|cause| AuditError::Open { path: path.clone(), remedy: remedy(&cause), cause })
            }
        }
    }

    /// Writes as much as the system takes at once.
    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match self {
            // Whole, so that lines of the log do not come between.
            Self::Stderr => io::stderr().lock().write_all(text).map(|()| text.len()),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text).and_then(|()| stdout.flush()).map(|()| text.len())
            }
            Self::File { file, bytes } => {
                let written = file.write(text)?;
                if let Some(bytes) = bytes {
                    *bytes += written as u64;
                }
                Ok(written)
            }
        }
    }

    /// The length of a file that can be set aside.
    pub(super) fn bytes(&self) -> Option<u64> {
        if let Self::File { bytes, .. } = self { *bytes } else { None }
    }

    /// Counts from zero: what could not be set aside is tried again when as much has been written once more.
    pub(super) fn forget_bytes(&mut self) {
        if let Self::File { bytes: Some(bytes), .. } = self {
            *bytes = 0;
        }
    }
}

/// Opens a file without waiting for anybody: a pipe that nobody reads is refused. Writing waits then, on the thread that is
/// there for it.
fn open(path: &Path) -> io::Result<File> {
    let options = || {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(flags.bits()).open(path)
    };
    let file = match options() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directory_of(path)?;
            options()?
        }
        opened => opened?,
    };
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}

/// One directory is made, not the ones above it: more would be a mistake in the path.
fn make_directory_of(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => DirBuilder::new().mode(0o700).create(parent),
        None => Ok(()),
    }
}

/// What to do about a file that cannot be opened.
pub(super) fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => "make the directory above it, or name a file in one that exists",
        io::ErrorKind::PermissionDenied => {
            "let the user of the daemon write there; under systemd, a path outside /var/log/quorate needs ReadWritePaths="
        }
        io::ErrorKind::IsADirectory => "name a file, not a directory",
        io::ErrorKind::ReadOnlyFilesystem => "under systemd, a path outside /var/log/quorate needs ReadWritePaths=",
        _ if cause.raw_os_error() == Some(nix::errno::Errno::ENXIO as i32) => {
            "nobody reads this pipe: start its reader first"
        }
        _ => "name a file that can be written",
    }
}

/// Looks whether `path` could be opened, and changes nothing: what there is to say, or why not and what to do.
///
/// # Errors
/// Why it could not, and what to do.
pub fn check(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let absolute = std::path::absolute(path).map_err(|error| format!("{shown} is no path: {error}"))?;
    let why = |error: &io::Error| format!("{shown} cannot be written: {error}; {}", remedy(error));
    match fs::metadata(&absolute) {
        Ok(metadata) if metadata.is_dir() => Err(why(&io::ErrorKind::IsADirectory.into())),
        Ok(_) => match nix::unistd::access(&absolute, nix::unistd::AccessFlags::W_OK) {
            Ok(()) => Ok(format!("{shown} can be written")),
            Err(errno) => Err(why(&errno.into())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut above = absolute.ancestors().skip(1).take(2);
            let place = above.find(|place| place.is_dir()).ok_or_else(|| why(&error))?;
            let flags = nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK;
            nix::unistd::access(place, flags).map_err(|errno| why(&errno.into()))?;
            Ok(format!("{shown} can be made in {}", place.display()))
        }
        Err(error) => Err(why(&error)),
    }
}

/// Sets a file aside: `FILE` becomes `FILE.1`, `FILE.1` becomes `FILE.2`, and what would be beyond the last one goes. With none
/// to keep the file itself goes.
pub(super) fn set_aside(path: &Path, files_max: u32) -> io::Result<()> {
    if files_max == 0 {
        return fs::remove_file(path);
    }
    for number in (1..files_max).rev() {
        match fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(path, 1))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn a_file_is_its_users_alone_and_its_directory_is_made() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("audit/audit.log");
        assert!(check(&path).unwrap().ends_with(&format!("can be made in {}", place.path().display())));
        let mut opened = Open::of(&Target::File(path.clone())).unwrap();
        assert_eq!(opened.write(b"a\n").unwrap(), 2);
        assert_eq!(opened.bytes(), Some(2));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(check(&path).unwrap().ends_with("can be written"));
        assert_eq!(Open::of(&Target::File(path)).unwrap().bytes(), Some(2));
    }

    #[test]
    fn what_cannot_be_opened_is_told_with_a_remedy() {
        let place = tempfile::tempdir().unwrap();
        let refused = |path: PathBuf| {
            let told = check(&path);
            let error = Open::of(&Target::File(path)).unwrap_err();
            (error.to_string(), told)
        };
        let (error, told) = refused(place.path().to_owned());
        assert!(error.ends_with("(--audit-log): name a file, not a directory"), "{error}");
        assert!(told.unwrap_err().contains("name a file, not a directory"));
        let (error, told) = refused(place.path().join("a/b/audit.log"));
        assert!(error.contains("make the directory above it"), "{error}");
        assert!(told.unwrap_err().contains("make the directory above it"));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing is left");
        let pipe = place.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let (error, _) = refused(pipe);
        assert!(error.ends_with("nobody reads this pipe: start its reader first"), "{error}");
    }

    #[test]
    fn files_are_set_aside_one_behind_the_other() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("audit.log");
        for text in ["1", "2", "3", "4"] {
            fs::write(&path, text).unwrap();
            set_aside(&path, 2).unwrap();
        }
        let read = |number| fs::read_to_string(numbered(&path, number)).ok();
        assert_eq!([read(1), read(2), read(3)], [Some("4".to_owned()), Some("3".to_owned()), None]);
        fs::write(&path, "5").unwrap();
        set_aside(&path, 0).unwrap();
        assert_eq!((path.exists(), read(1).as_deref()), (false, Some("4")));
    }
}
