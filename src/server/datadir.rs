//! The data directory: who may use it, what it holds, and which generation of the state is live.
//!
//! ```text
//! <data-dir>/            0700
//!   LOCK                 exclusively locked while a process uses the directory
//!   FORMAT               "quorate <version>"
//!   REGISTRATION         what a discovery service was told, until there is a member (`discovery::registration`)
//!   member/wal/          the log, unless --wal-dir moves it
//!   member/snap/         .snap files
//!   member/state/<n>/    the replicated state; CURRENT names the live n (`generations`)
//!   member/scratch/      databases on their way to and from etcd; nothing that outlives the process
//!   snapshots/           snapshots that the member takes by itself, unless --snapshot-dir moves them (`snapshots::scheduled`)
//! ```
//!
//! Invariants: FORMAT is written before anything else and never changes meaning; a name is durable before anything
//! builds on what it names.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{generations::Generations, offline::find_fence};
use crate::{config::SCHEDULED_SNAPSHOTS, disk::Locker};

/// Version of the directory's layout, and the only one this program reads.
const FORMAT_VERSION: u32 = 1;
/// Names the log's directory once the log exists.
const FOUNDED: &str = "member/FOUNDED";
/// Exclusively locked while a process uses the directory.
const LOCK: &str = "LOCK";
/// Says whose the directory is, and in which layout.
const FORMAT: &str = "FORMAT";
/// A member that is being made by the offline tool.
const UNFINISHED: &str = "member.partial";
const FORMAT_MAGIC: &str = "quorate";
/// What is ours in a data directory; `fixtures` are certificates that the daemon has made for itself.
const AT_THE_TOP: [&str; 9] = [
    LOCK,
    FORMAT,
    "FORMAT.tmp",
    "REGISTRATION",
    "REGISTRATION.tmp",
    "member",
    "fixtures",
    "proxy",
    SCHEDULED_SNAPSHOTS,
];
const STATE: &str = "member/state";
const SCRATCH: &str = "member/scratch";
/// FORMAT and CURRENT are one short line; more is not ours.
const MARKER_BYTES_MAX: u64 = 64;
/// Longest path the system takes.
const PATH_BYTES_MAX: u64 = 4_096;

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// An operation on a path failed.
    #[error("{action} {path}: check the path, its owner and permissions, and the free space")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// Another process holds the lock.
    #[error(
        "data directory {} is in use by another process{}: stop that process, or give this member its own --data-dir",
        path.display(),
        told(holder.as_ref())
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, if it can be seen.
        holder: Option<Locker>,
    },
    /// An etcd data directory.
    #[error(
        "data directory {path} holds the data of etcd (member/snap/db): take them over with `quorateutl import {path} --data-dir NEW` and start with NEW, or give this member an empty --data-dir"
    )]
    Etcd {
        /// The directory.
        path: PathBuf,
    },
    /// A format of the future, or no format of ours.
    #[error(
        "{path} says {found:?}, and this version reads \"quorate {FORMAT_VERSION}\": use the version that wrote the directory, or an empty --data-dir"
    )]
    Format {
        /// The FORMAT file.
        path: PathBuf,
        /// Its first line.
        found: String,
    },
    /// Files of a member without the marker that says whose they are.
    #[error(
        "data directory {path} has a member/, but {path}/FORMAT is missing: restore the directory from a backup, or remove this member from the cluster and add it again with an empty --data-dir"
    )]
    Unmarked {
        /// The directory.
        path: PathBuf,
    },
    /// A directory that was handed on.
    #[error("data directory {} was handed on; {} says where to and how it comes back", path.display(), note.display())]
    HandedOn {
        /// The directory.
        path: PathBuf,
        /// The note in it.
        note: PathBuf,
    },
    /// Something that the offline tool began and did not finish.
    #[error(
        "{path} is what a restore or an import has left that was interrupted: remove the whole data directory, and begin again"
    )]
    Unfinished {
        /// The unfinished part.
        path: PathBuf,
    },
    /// A CURRENT that is not the number of a generation.
    #[error(
        "{path} is damaged: it says {found:?} and not which state is in use; check the disk, then restore the directory from a backup, or remove this member from the cluster and add it again with an empty --data-dir"
    )]
    Marker {
        /// The CURRENT file.
        path: PathBuf,
        /// Its line.
        found: String,
    },
    /// One of log and state is there without the other.
    #[error(
        "{present} exists but {missing} does not: restore the missing part from a backup (was --wal-dir changed?), or remove this member from the cluster and add it again with an empty --data-dir"
    )]
    Torn {
        /// What is there.
        present: PathBuf,
        /// What is not.
        missing: PathBuf,
    },
}

impl DataDirError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |cause| Self::Io { action, path, cause }
    }
}

/// A locked data directory. The lock lasts as long as this value.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    wal: PathBuf,
    _lock: File,
}

impl DataDir {
    /// [`DataDir::claim`], then [`DataDir::prepare`].
    ///
    /// # Errors
    /// Every [`DataDirError`].
    pub fn open(root: &Path, wal_dir: Option<&Path>) -> Result<Self, DataDirError> {
        let dir = Self::claim(root, wal_dir)?;
        dir.prepare()?;
        Ok(dir)
    }

    /// Locks `root`, creating it with mode 0700 if needed, and checks whose it is. There is no `member/` in it until
    /// [`DataDir::prepare`]: a node that is still looking for its cluster may end as something else.
    ///
    /// # Errors
    /// Every [`DataDirError`]; nothing of a foreign directory is changed beyond the lock file.
    pub fn claim(root: &Path, wal_dir: Option<&Path>) -> Result<Self, DataDirError> {
        create(root)?;
        if root.join("member/snap/db").exists() {
            return Err(DataDirError::Etcd { path: root.to_owned() });
        }
        if let Some(note) = find_fence(root) {
            return Err(DataDirError::HandedOn { path: root.to_owned(), note });
        }
        let lock = lock(root)?;
        let unfinished = Self::unfinished_path(root);
        if unfinished.exists() {
            return Err(DataDirError::Unfinished { path: unfinished });
        }
        check_format(root)?;
        let wal = wal_dir.map_or_else(|| root.join("member/wal"), Path::to_owned);
        Ok(Self { root: root.to_owned(), wal, _lock: lock })
    }

    /// Makes room for a member.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn prepare(&self) -> Result<(), DataDirError> {
        let root = self.root.as_path();
        clear(&root.join(SCRATCH))?;
        for path in [root.join("member"), root.join("member/snap"), root.join(STATE), root.join(SCRATCH)] {
            create(&path)?;
        }
        // Names a killed process has left behind unsynced are built upon from here on.
        for path in [root.to_owned(), root.join("member"), root.join(STATE)] {
            sync_directory(&path).map_err(DataDirError::io("syncing", &path))?;
        }
        self.warn_open_permissions();
        self.warn_foreign();
        Ok(())
    }

    /// Locks `root` for a process that is no member and leaves everything else there alone; it is created with mode 0700 if
    /// needed. The lock lasts as long as the file is open.
    ///
    /// # Errors
    /// [`DataDirError::Io`] and [`DataDirError::InUse`].
    pub fn lock_alone(root: &Path) -> Result<File, DataDirError> {
        create(root)?;
        lock(root)
    }

    /// Keeps processes that would change `root` away from it while it is read; nothing in there is written, nor need it be
    /// possible. Several may read. Nothing if nobody ever used the directory.
    ///
    /// # Errors
    /// [`DataDirError::Io`] and [`DataDirError::InUse`].
    pub fn lock_for_reading(root: &Path) -> Result<Option<File>, DataDirError> {
        let path = Self::lock_path(root);
        match File::open(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(DataDirError::io("opening", &path)(cause)),
            Ok(file) => {
                let taken = file.try_lock_shared();
                locked(root, file, taken).map(Some)
            }
        }
    }

    /// Whether a process uses `root` now, without changing anything there. A directory that cannot be looked at counts as
    /// unused.
    pub fn is_in_use(root: &Path) -> bool {
        let lock = File::open(Self::lock_path(root));
        // Shared: two who ask at a time do not see each other.
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }

    /// The file that is locked by who uses `root`.
    pub fn lock_path(root: &Path) -> PathBuf {
        root.join(LOCK)
    }

    /// Where the log was when a member was founded in `root`; nothing if it is no directory of ours, or has no member yet.
    /// Changes nothing.
    ///
    /// # Errors
    /// [`DataDirError::HandedOn`], markers that cannot be read.
    pub fn log_of(root: &Path) -> Result<Option<PathBuf>, DataDirError> {
        if let Some(note) = find_fence(root) {
            return Err(DataDirError::HandedOn { path: root.to_owned(), note });
        }
        let ours = read_marker(&Self::format_path(root))?.is_some();
        let founded = read_path(&root.join(FOUNDED))?;
        Ok(founded.filter(|_| ours).map(PathBuf::from))
    }

    /// The file that says whose `root` is.
    pub(super) fn format_path(root: &Path) -> PathBuf {
        root.join(FORMAT)
    }

    /// What `member/` is called until it is complete.
    pub(super) fn unfinished_path(root: &Path) -> PathBuf {
        root.join(UNFINISHED)
    }

    /// Where the log's segments are.
    pub fn wal(&self) -> &Path {
        &self.wal
    }

    /// Where `.snap` files are.
    pub fn snap(&self) -> PathBuf {
        self.root.join("member/snap")
    }

    /// Creates the log's directory with mode 0700 if it is not there.
    ///
    /// # Errors
    /// A directory that cannot be created.
    pub fn create_wal(&self) -> Result<(), DataDirError> {
        create(&self.wal)
    }

    /// Whether a member was founded here: the log is created last.
    pub fn has_log(&self) -> bool {
        fs::read_dir(&self.wal).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "wal"))
        })
    }

    /// Whether a log was ever complete here. From then on a missing log is damage, whatever the state says: what it had
    /// applied may have been lost together with it.
    ///
    /// # Errors
    /// A marker that cannot be read.
    pub fn is_founded(&self) -> Result<bool, DataDirError> {
        Ok(read_marker(&self.root.join(FOUNDED))?.is_some())
    }

    /// Records, durably, that the log is complete.
    ///
    /// # Errors
    /// A marker that cannot be written.
    pub fn mark_founded(&self) -> Result<(), DataDirError> {
        if self.is_founded()? {
            return Ok(());
        }
        // Whoever reads it may do so from another directory.
        let wal = std::path::absolute(&self.wal).unwrap_or_else(|_| self.wal.clone());
        replace(&self.root.join(FOUNDED), &wal.to_string_lossy().replace('\n', " "))
    }

    /// The generations of the state.
    pub(super) fn generations(&self) -> Generations {
        Generations::new(self.root.join(STATE))
    }

    /// Where files are that nobody needs after a start; everything in it is removed then.
    pub(super) fn scratch(&self) -> PathBuf {
        self.root.join(SCRATCH)
    }

    /// The error for a directory of which only one half is left.
    pub fn torn(&self, log_is_missing: bool) -> DataDirError {
        let (log, state) = (self.wal.clone(), self.root.join(STATE));
        if log_is_missing {
            DataDirError::Torn { present: state, missing: log }
        } else {
            DataDirError::Torn { present: log, missing: state }
        }
    }

    /// Names everything that is not ours and is left alone: a backup gone astray, or what somebody hoped would be read.
    fn warn_foreign(&self) {
        for path in self.foreign() {
            tracing::warn!(?path, "ignored a file in the data directory that is not ours");
        }
    }

    fn foreign(&self) -> Vec<PathBuf> {
        let plain = |known: &'static [&'static str]| move |name: &str| known.contains(&name);
        let ends =
            |endings: &'static [&'static str]| move |name: &str| endings.iter().any(|ending| name.ends_with(ending));
        let member = self.root.join("member");
        // A log that was given a directory of its own may have it in here.
        let at_the_top = |name: &str| AT_THE_TOP.contains(&name) || self.wal.starts_with(self.root.join(name));
        let generation = |name: &str| name.parse::<u64>().is_ok() || ["CURRENT", "CURRENT.tmp"].contains(&name);
        let mut foreign = others(&self.root, at_the_top);
        foreign.extend(others(&member, plain(&["wal", "snap", "state", "scratch", "FOUNDED", "FOUNDED.tmp"])));
        foreign.extend(others(&member.join("snap"), ends(&[".snap", ".broken", ".tmp"])));
        foreign.extend(others(&self.wal, ends(&[".wal", ".broken", ".tmp"])));
        foreign.extend(others(&self.root.join(STATE), generation));
        foreign
    }

    fn warn_open_permissions(&self) {
        let mode = fs::metadata(&self.root).map_or(0o700, |metadata| metadata.permissions().mode() & 0o777);
        if mode != 0o700 {
            tracing::warn!(
                "check file permission: directory {:?} exists, but the permission is {:?}. The recommended permission is \"-rwx------\" to prevent possible unprivileged access to the data",
                self.root,
                format!("{mode:o}")
            );
        }
    }
}

/// Removes what an earlier process has left behind.
fn clear(path: &Path) -> Result<(), DataDirError> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(DataDirError::io("removing", path)(cause)),
        _ => Ok(()),
    }
}

/// What is in `directory` and not ours.
fn others(directory: &Path, is_ours: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_other = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Every file system of its own has this one.
        name != "lost+found" && !is_ours(name)
    };
    paths.filter(is_other).collect()
}

/// Creates a directory with everything above it that is missing, durably.
pub(super) fn create(path: &Path) -> Result<(), DataDirError> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(DataDirError::io("creating directory", path))?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match sync_directory(parent) {
            // One may create things in a directory one may not read.
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced.map_err(DataDirError::io("syncing", parent))?,
        }
    }
    Ok(())
}

/// Makes the name of `path` durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), DataDirError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_directory(parent).map_err(DataDirError::io("syncing", parent))
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the names in a directory and all below it durable.
pub(super) fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_directory(path)
}

fn lock(root: &Path) -> Result<File, DataDirError> {
    let path = DataDir::lock_path(root);
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(DataDirError::io("opening", &path))?;
    let taken = file.try_lock();
    locked(root, file, taken)
}

/// What came of the attempt to lock `file` for `root`.
fn locked(root: &Path, file: File, taken: Result<(), fs::TryLockError>) -> Result<File, DataDirError> {
    let path = DataDir::lock_path(root);
    match taken {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(DataDirError::InUse { path: root.to_owned(), holder: Locker::of(&path) })
        }
        Err(fs::TryLockError::Error(cause)) => Err(DataDirError::io("locking", &path)(cause)),
    }
}

/// Who has it, in brackets, if that is known.
pub(super) fn told(holder: Option<&Locker>) -> String {
    holder.map_or_else(String::new, |holder| format!(" ({holder})"))
}

fn format_line() -> String {
    format!("{FORMAT_MAGIC} {FORMAT_VERSION}")
}

/// Says that `root` is ours.
pub(super) fn write_format(root: &Path) -> Result<(), DataDirError> {
    replace(&DataDir::format_path(root), &format_line())
}

fn check_format(root: &Path) -> Result<(), DataDirError> {
    let path = DataDir::format_path(root);
    let expected = format_line();
    match read_marker(&path)? {
        Some(line) if line == expected => Ok(()),
        Some(found) => Err(DataDirError::Format { path, found }),
        None if root.join("member").exists() => Err(DataDirError::Unmarked { path: root.to_owned() }),
        None => replace(&path, &expected),
    }
}

/// The file's line without its end, `None` if there is no file. What is not a short text reads as what it is, escaped.
pub(super) fn read_marker(path: &Path) -> Result<Option<String>, DataDirError> {
    read_line(path, MARKER_BYTES_MAX)
}

/// As [`read_marker`], of a file that holds a path.
fn read_path(path: &Path) -> Result<Option<String>, DataDirError> {
    read_line(path, PATH_BYTES_MAX)
}

fn read_line(path: &Path, bytes_max: u64) -> Result<Option<String>, DataDirError> {
    use std::io::Read as _;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(DataDirError::io("opening", path)(cause)),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).map_err(DataDirError::io("reading", path))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(Some(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
}

/// Writes one line durably: a temporary file, fsync, rename, fsync of the directory.
pub(super) fn replace(path: &Path, line: &str) -> Result<(), DataDirError> {
    let temporary = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(line.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), sync_directory)
    };
    // A marker that could not be written is no file that anybody looks for.
    let written = write().inspect_err(|_| drop(fs::remove_file(&temporary)));
    written.map_err(DataDirError::io("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_process_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::open(root.path(), None).unwrap();
        let second = DataDir::open(root.path(), None).unwrap_err();
        let told = format!("is in use by another process (process {}, ", std::process::id());
        assert!(second.to_string().contains(&told), "{second}");
        assert!(DataDir::is_in_use(root.path()));
        assert!(matches!(DataDir::lock_for_reading(root.path()), Err(DataDirError::InUse { .. })));
        drop(first);
        assert!(!DataDir::is_in_use(root.path()) && !DataDir::is_in_use(&root.path().join("none")));
        let readers = [(); 2].map(|()| DataDir::lock_for_reading(root.path()).unwrap());
        assert!(readers.iter().all(Option::is_some));
        assert!(matches!(DataDir::open(root.path(), None), Err(DataDirError::InUse { .. })));
        drop(readers);
        DataDir::open(root.path(), None).unwrap();
    }

    #[test]
    fn marker_that_cannot_be_written_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("MARKER/full")).unwrap();
        replace(&root.path().join("MARKER"), "line").unwrap_err();
        assert!(!root.path().join("MARKER.tmp").exists());
    }

    #[test]
    fn newer_format_is_refused_and_untouched() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("FORMAT"), "quorate 2\n").unwrap();
        let error = DataDir::open(root.path(), None).unwrap_err();
        assert!(error.to_string().contains("\"quorate 2\""), "{error}");
        assert!(!root.path().join("member").exists());
    }

    #[test]
    fn etcds_directory_is_refused_and_untouched() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("member/snap")).unwrap();
        fs::write(root.path().join("member/snap/db"), b"bbolt").unwrap();
        let error = DataDir::open(root.path(), None).unwrap_err();
        assert!(matches!(error, DataDirError::Etcd { .. }), "{error}");
        assert!(!root.path().join("FORMAT").exists());
    }

    #[test]
    fn new_directory_is_private_and_gets_its_first_generation() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("data");
        let dir = DataDir::open(&root, None).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(dir.generations().live().unwrap(), None);
        assert!(!dir.has_log());
        let state = dir.generations().create().unwrap();
        assert_eq!(dir.generations().live().unwrap(), None, "it is not complete");
        dir.generations().make_live(&state).unwrap();
        drop(dir);
        let dir = DataDir::open(&root, None).unwrap();
        assert_eq!(dir.generations().live().unwrap(), Some(state.clone()));
        assert_eq!(
            (dir.generations().all().unwrap(), state),
            (vec![root.join("member/state/1")], root.join("member/state/1"))
        );
        assert_eq!(dir.generations().create().unwrap(), root.join("member/state/2"));
    }

    /// The daemon called the snapshots that it had taken itself not its own.
    #[test]
    fn what_is_not_ours_is_told_from_our_snapshots_and_our_log() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path(), Some(&root.path().join("logs/m1"))).unwrap();
        for name in [SCHEDULED_SNAPSHOTS, "logs", "lost+found", "backup"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        assert_eq!(dir.foreign(), [root.path().join("backup")]);
    }

    #[test]
    fn founding_is_remembered_without_the_log() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path(), None).unwrap();
        assert!(!dir.is_founded().unwrap());
        dir.mark_founded().unwrap();
        drop(dir);
        assert!(DataDir::open(root.path(), None).unwrap().is_founded().unwrap());
    }

    /// Where the log is was kept as it was typed, which says nothing to who calls the offline tool from elsewhere.
    #[test]
    fn where_the_log_is_can_be_read_from_everywhere() {
        let root = tempfile::tempdir().unwrap();
        let up: PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
        let relative = up.join(root.path().strip_prefix("/").unwrap());
        let dir = DataDir::open(&relative, Some(&relative.join("log"))).unwrap();
        dir.create_wal().unwrap();
        dir.mark_founded().unwrap();
        let told = DataDir::log_of(root.path()).unwrap().unwrap();
        assert!(told.is_absolute(), "{told:?}");
        assert_eq!(fs::canonicalize(told).unwrap(), fs::canonicalize(root.path().join("log")).unwrap());
        fs::write(root.path().join(FOUNDED), "logs/m1\n").unwrap();
        assert_eq!(DataDir::log_of(root.path()).unwrap(), Some("logs/m1".into()), "older versions wrote it so");
    }

    #[test]
    fn current_that_names_nothing_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path(), None).unwrap();
        fs::write(root.path().join("member/state/CURRENT"), "../../etc\n").unwrap();
        assert!(matches!(dir.generations().live().unwrap_err(), DataDirError::Marker { .. }));
        fs::write(root.path().join("member/state/CURRENT"), "7\n").unwrap();
        assert!(matches!(dir.generations().live().unwrap_err(), DataDirError::Torn { .. }));
    }

    /// An emptied CURRENT was reported as if `member/state/` were missing, which is there for all to see.
    #[test]
    fn emptied_current_is_said_to_be_damaged() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path(), None).unwrap();
        fs::write(root.path().join("member/state/CURRENT"), "").unwrap();
        let text = dir.generations().live().unwrap_err().to_string();
        assert!(text.contains("member/state/CURRENT is damaged"), "{text}");
    }
}
