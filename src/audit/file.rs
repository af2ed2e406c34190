//! Where lines go.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::stat::fstat,
};

use super::{AuditError, writer::END};

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
pub(super) struct Open {
    file: File,
    /// Where it is a regular file.
    regular: Option<Regular>,
}

#[derive(Debug)]
struct Regular {
    identity: Identity,
    /// Its own name, behind all links; nothing where it is not to be set aside.
    place: Option<PathBuf>,
    bytes: u64,
    /// Somebody was ended in the middle of its last line.
    is_torn: bool,
}

/// What tells a file from all others, whatever their names are: device and number.
type Identity = (u64, u64);

impl Open {
    pub(super) fn of(target: &Target) -> Result<Self, AuditError> {
        match target {
            Target::Stderr => Self::of_stream(io::stderr().as_fd()),
            Target::Stdout => Self::of_stream(io::stdout().as_fd()),
            Target::File(path) => {
                let opened = open(path).and_then(|file| Self::of_file(file, Some(path)));
                opened.map_err(|cause| AuditError::Open { path: path.clone(), remedy: remedy(&cause), cause })
            }
        }
    }

    fn of_stream(stream: BorrowedFd<'_>) -> Result<Self, AuditError> {
        let file = stream.try_clone_to_owned().map(File::from);
        file.and_then(|file| Self::of_file(file, None)).map_err(AuditError::Write)
    }

    /// A file, and the name that it has if it has one.
    fn of_file(file: File, path: Option<&Path>) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let identity = identity(&metadata);
        let streams = streams_to(identity);
        if path.is_some() && metadata.is_file() && streams.iter().any(|flags| !flags.contains(OFlag::O_APPEND)) {
            // What goes there by the stream lies at a place of its own in the file, over what is written here.
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "standard output or standard error goes there"));
        }
        let regular = metadata.is_file().then(|| Regular {
            place: path.and_then(|path| place_of(path, &metadata)),
            is_torn: ends_torn(&file, metadata.len()),
            bytes: metadata.len(),
            identity,
        });
        Ok(Self { file, regular })
    }

    /// Whether the last line has no end, where that can be looked up.
    pub(super) fn is_torn(&self) -> Option<bool> {
        self.regular.as_ref().map(|regular| regular.is_torn)
    }

    /// Writes as much as the system takes at once.
    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let written = self.file.write(text)?;
        if let Some(regular) = &mut self.regular {
            regular.bytes += written as u64;
        }
        Ok(written)
    }

    /// The name and the length of a file that can be set aside.
    pub(super) fn fills(&self) -> Option<(&Path, u64)> {
        let regular = self.regular.as_ref()?;
        Some((regular.place.as_deref()?, regular.bytes))
    }

    /// Counts from zero: what could not be set aside is tried again when as much has been written once more.
    pub(super) fn forget_bytes(&mut self) {
        if let Some(regular) = &mut self.regular {
            regular.bytes = 0;
        }
    }

    /// Whether `path` still leads to this file. Of one that was cut the length is what it is now.
    pub(super) fn is_in_place(&mut self, path: &Path) -> bool {
        let Some(regular) = &mut self.regular else { return true };
        match fs::metadata(path) {
            Ok(metadata) => {
                regular.bytes = regular.bytes.min(metadata.len());
                identity(&metadata) == regular.identity
            }
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }
}

#[cfg(test)]
impl Open {
    /// What cannot be written at once fails.
    pub(super) fn refuse_to_wait(&self) {
        fcntl(&self.file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    }
}

fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// How standard output and standard error of this process write to a file, where they go to that one.
fn streams_to(identity: Identity) -> Vec<OFlag> {
    let flags = |stream: BorrowedFd<'_>| {
        let goes_there = fstat(stream).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == identity);
        goes_there.then(|| OFlag::from_bits_retain(fcntl(stream, FcntlArg::F_GETFL).unwrap_or_default()))
    };
    [flags(io::stdout().as_fd()), flags(io::stderr().as_fd())].into_iter().flatten().collect()
}

/// The name by which a file can be set aside, behind all links; nothing for what is no file, or what standard output or standard
/// error go to, which would go with it.
pub fn place_of(path: &Path, metadata: &fs::Metadata) -> Option<PathBuf> {
    let can_be = metadata.is_file() && streams_to(identity(metadata)).is_empty();
    if can_be { own_name(path) } else { None }
}

/// The name of a file behind all links. None for a descriptor of a process: whatever the file is called, it is the same one.
fn own_name(path: &Path) -> Option<PathBuf> {
    let directory = fs::canonicalize(std::path::absolute(path).ok()?.parent()?).ok()?;
    if directory.starts_with("/proc") { None } else { fs::canonicalize(path).ok() }
}

/// Whether a file of this length ends in the middle of a line. One that cannot be read is taken for such: an empty line
/// harms less than one that stands behind half of another.
fn ends_torn(file: &File, bytes: u64) -> bool {
    let Some(last) = bytes.checked_sub(1) else { return false };
    let mut end = [0];
    let again = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()));
    again.and_then(|file| file.read_exact_at(&mut end, last)).is_err() || end != [END]
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

/// One directory is made, not the ones above it: more would be a mistake in the path. Where it is there, a link leads to
/// nowhere, and that is what opening says.
fn make_directory_of(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    match DirBuilder::new().mode(0o700).create(parent) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
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
        io::ErrorKind::ResourceBusy => "name another file, or say stdout or stderr to write where that stream goes",
        _ if cause.raw_os_error() == Some(nix::errno::Errno::ENXIO as i32) => {
            "nobody reads this pipe, or it is a socket: start its reader first, or say stdout or stderr for such a stream"
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;
    use crate::audit::set_aside;

    #[test]
    fn a_file_is_its_users_alone_and_its_directory_is_made() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("audit/audit.log");
        assert!(check(&path).unwrap().ends_with(&format!("can be made in {}", place.path().display())));
        let mut opened = Open::of(&Target::File(path.clone())).unwrap();
        assert_eq!(opened.write(b"a\n").unwrap(), 2);
        assert_eq!(opened.fills(), Some((path.canonicalize().unwrap().as_path(), 2)));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(check(&path).unwrap().ends_with("can be written"));
        assert_eq!(Open::of(&Target::File(path)).unwrap().fills().map(|(_, bytes)| bytes), Some(2));
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
        assert!(error.ends_with("or say stdout or stderr for such a stream"), "{error}");
    }

    #[test]
    fn a_link_is_followed_and_stays() {
        let place = tempfile::tempdir().unwrap();
        let (real, link) = (place.path().join("real.log"), place.path().join("link.log"));
        std::os::unix::fs::symlink("real.log", &link).unwrap();
        let mut opened = Open::of(&Target::File(link.clone())).unwrap();
        opened.write(b"1\n").unwrap();
        let (own, _) = opened.fills().unwrap();
        set_aside(own, 1).unwrap();
        assert_eq!(fs::read_to_string(place.path().join("real.log.1")).unwrap(), "1\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && !real.exists());
    }

    #[test]
    fn what_standard_streams_go_to_is_not_set_aside() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let file = File::create(&path).unwrap();
        assert!(streams_to(identity(&file.metadata().unwrap())).is_empty());
        let stdout = fstat(io::stdout().as_fd()).unwrap();
        assert!(!streams_to((stdout.st_dev, stdout.st_ino)).is_empty());
        assert_eq!(own_name(&path), path.canonicalize().ok());
        let descriptor = PathBuf::from(format!("/dev/fd/{}", file.as_raw_fd()));
        let opened = Open::of(&Target::File(descriptor.clone())).unwrap();
        assert_eq!((own_name(&descriptor), opened.fills()), (None, None), "it has this name whatever the file's is");
        let null = Open::of(&Target::File("/dev/null".into())).unwrap();
        assert_eq!((null.fills(), null.is_torn()), (None, None));
    }

    #[test]
    fn a_file_that_was_moved_or_cut_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let mut opened = Open::of(&Target::File(path.clone())).unwrap();
        opened.write(b"123\n").unwrap();
        assert!(opened.is_in_place(&path));
        fs::write(&path, "").unwrap();
        assert!(opened.is_in_place(&path));
        assert_eq!(opened.fills().map(|(_, bytes)| bytes), Some(0));
        fs::rename(&path, place.path().join("b")).unwrap();
        assert!(!opened.is_in_place(&path));
        fs::write(&path, "").unwrap();
        assert!(!opened.is_in_place(&path), "it is another one");
    }
}
