//! A data directory in the making.
//!
//! Everything is built under other names, `member.partial` and, for a log with a directory of its own, `<wal-dir>.partial`,
//! and renamed when it is durable. A failure on the way removes all of it, the directories that were made for it included.
//! After a kill in between the daemon refuses the directory, because of `member.partial`; etcd, which would not look for that,
//! because of a file called `member`. Nothing that was there before is ever removed, whatever its name is: what a killed process
//! has left is named, and removed by whoever knows that it is that.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, Metadata, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use super::{
    super::{
        datadir::{self, DataDir},
        generations::Generations,
    },
    OfflineError,
    fence::{Fence, Note, absolute, exchange, rename_to_free},
};
use crate::{
    disk::FileDirectory,
    storage::{FjallEngine, FjallOptions},
};

/// What keeps etcd from starting on a directory that is not complete.
const INCOMPLETE: &str = "An export from Quorate to this directory was begun and is not complete. Remove the directory and export again:\n\
    quorateutl export. What was exported is where it was, or the file called member there tells where it is.";
/// Everything in a data directory is its user's alone.
const DIRECTORY_MODE: u32 = 0o700;
/// What is in a directory in which one has begun and not finished.
const OF_ONE_BEGUN: [&str; 5] = ["LOCK", "FORMAT", "FORMAT.tmp", "member", "member.partial"];
/// The ending of what is not complete.
const PARTIAL: &str = "partial";

/// Whose directory it will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Owner {
    /// Our daemon's.
    Quorate,
    /// etcd's.
    Etcd,
}

/// A data directory in the making. Unless it is finished, dropping it removes everything.
#[derive(Debug)]
pub(in crate::server) struct Building {
    root: PathBuf,
    owner: Owner,
    /// A directory of its own for the log.
    wal: Option<PathBuf>,
    leftovers: Leftovers,
    /// Nobody else begins here.
    _turn: File,
    _lock: Option<File>,
}

/// What goes if this fails.
#[derive(Debug)]
struct Leftovers {
    /// Directories that were missing and were made, the outermost first.
    made: Vec<PathBuf>,
    /// Everything else.
    ours: Vec<PathBuf>,
}

impl Building {
    /// Begins in `root`, which is missing or empty. `wal`, if given and not the usual place, must be missing.
    ///
    /// # Errors
    /// [`OfflineError::NotEmpty`], [`OfflineError::WalDirExists`], [`OfflineError::SameDirectory`], [`OfflineError::Begun`],
    /// [`OfflineError::InUse`], failure to write.
    pub(in crate::server) fn begin(root: &Path, wal: Option<&Path>, owner: Owner) -> Result<Self, OfflineError> {
        let wal = log_apart(root, wal)?;
        check(root, wal.as_deref())?;
        let made = missing(root).chain(wal.as_deref().and_then(Path::parent).into_iter().flat_map(missing)).collect();
        let mut leftovers = Leftovers { made, ours: Vec::new() };
        datadir::create(root)?;
        // What was made is of use to whoever has begun in it.
        let turn = turn(root).inspect_err(|_| leftovers.made.clear())?;
        // Somebody may have begun, and even finished, before it was this one's turn.
        check(root, wal.as_deref())?;
        let lock = if owner == Owner::Quorate { Some(DataDir::lock_alone(root)?) } else { None };
        let mut building = Self { root: root.to_owned(), owner, wal, leftovers, _turn: turn, _lock: lock };
        match owner {
            Owner::Quorate => {
                building.leftovers.ours.extend([DataDir::lock_path(root), DataDir::format_path(root)]);
            }
            Owner::Etcd => {
                datadir::replace(&building.complete(), INCOMPLETE)?;
                building.leftovers.ours.push(building.complete());
            }
        }
        for path in [building.member(), building.wal_directory(), building.member().join("snap")] {
            building.make(path)?;
        }
        Ok(building)
    }

    /// Makes a directory that was not there.
    fn make(&mut self, path: PathBuf) -> Result<(), OfflineError> {
        if let Some(parent) = path.parent() {
            datadir::create(parent)?;
        }
        DirBuilder::new().mode(DIRECTORY_MODE).create(&path).map_err(OfflineError::io("creating", &path))?;
        self.leftovers.ours.push(path);
        Ok(())
    }

    /// What will be `member/`.
    pub(in crate::server) fn member(&self) -> PathBuf {
        DataDir::unfinished_path(&self.root)
    }

    /// What `member/` is called in the end.
    fn complete(&self) -> PathBuf {
        self.root.join("member")
    }

    /// Where the log is written.
    pub(in crate::server) fn log(&self) -> FileDirectory {
        FileDirectory::new(self.wal_directory())
    }

    /// Where snapshot files are written.
    pub(in crate::server) fn snap(&self) -> FileDirectory {
        FileDirectory::new(self.member().join("snap"))
    }

    fn wal_directory(&self) -> PathBuf {
        self.wal.as_deref().map_or_else(|| self.member().join("wal"), partial)
    }

    /// Fills a new state, makes it durable and the live one.
    ///
    /// # Errors
    /// Those of `fill`, and failure to write.
    pub(in crate::server) fn state<T>(
        &self,
        fill: impl FnOnce(&FjallEngine, &FileDirectory) -> Result<T, OfflineError>,
    ) -> Result<T, OfflineError> {
        let (state, scratch) = (self.member().join("state"), self.member().join("scratch"));
        for path in [&state, &scratch] {
            datadir::create(path)?;
        }
        let generations = Generations::new(state);
        let generation = generations.create()?;
        let engine = FjallEngine::open(&generation, &FjallOptions::default())?;
        let filled = fill(&engine, &FileDirectory::new(&scratch))?;
        drop(engine);
        generations.make_live(&generation)?;
        fs::remove_dir_all(&scratch).map_err(OfflineError::io("removing", &scratch))?;
        Ok(filled)
    }

    /// Gives everything its name, durably.
    ///
    /// # Errors
    /// [`OfflineError::Io`]; then nothing is left.
    pub(in crate::server) fn finish(mut self) -> Result<(), OfflineError> {
        let (member, complete) = (self.member(), self.complete());
        // 1. Everything is durable under the names it has.
        if self.owner == Owner::Quorate {
            let log = self.wal.clone().unwrap_or_else(|| absolute(&complete.join("wal")));
            datadir::replace(&member.join("FOUNDED"), &log.to_string_lossy().replace('\n', " "))?;
            datadir::write_format(&self.root)?;
        }
        datadir::sync_tree(&member).map_err(OfflineError::io("syncing", &member))?;
        // 2. The log, which nobody looks for without a member.
        if let Some(log) = self.wal.clone() {
            let unfinished = self.wal_directory();
            datadir::sync_tree(&unfinished).map_err(OfflineError::io("syncing", &unfinished))?;
            self.rename(&unfinished, &log)?;
        }
        // 3. The member.
        match self.owner {
            Owner::Quorate => self.rename(&member, &complete)?,
            Owner::Etcd => {
                exchange(&member, &complete).map_err(OfflineError::io("renaming", &member))?;
                datadir::sync_parent(&complete)?;
            }
        }
        self.leftovers.ours.clear();
        self.leftovers.made.clear();
        if self.owner == Owner::Etcd {
            // The file that has kept etcd away; it may stay.
            told(&member, fs::remove_file(&member));
        }
        Ok(())
    }

    /// Finishes, in place of the member in `root`, around which a fence is raised before there is a second one. Returns where
    /// that one's data are then.
    ///
    /// # Errors
    /// [`OfflineError::Io`]; then everything is as it was.
    pub(super) fn take_over(
        self,
        root: &Path,
        ending: &str,
        data_dir: &Path,
        note: &Note<'_>,
    ) -> Result<PathBuf, OfflineError> {
        let fence = Fence::raise(root, ending, |kept| note.text(root, kept, data_dir))?;
        let kept = fence.kept().to_owned();
        match self.finish() {
            Ok(()) => Ok(kept),
            Err(cause) => {
                fence.lower();
                Err(cause)
            }
        }
    }

    /// Gives what was made here its name. Until that has happened, what has the name is somebody else's.
    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), OfflineError> {
        rename_to_free(from, to).map_err(OfflineError::io("renaming", from))?;
        self.leftovers.ours.push(to.to_owned());
        Ok(datadir::sync_parent(to)?)
    }
}

/// Whether what is to be made lies outside of what it is made from, which is set aside before it gets its name.
///
/// # Errors
/// [`OfflineError::Inside`].
pub(super) fn check_apart<'a>(
    sources: impl IntoIterator<Item = &'a Path>,
    targets: impl IntoIterator<Item = &'a Path>,
) -> Result<(), OfflineError> {
    let sources: Vec<_> = sources.into_iter().map(|source| (source, place(source))).collect();
    for target in targets {
        let there = place(target);
        if let Some((source, _)) = sources.iter().find(|(_, around)| there.starts_with(around)) {
            return Err(OfflineError::Inside { target: target.to_owned(), source_directory: (*source).to_owned() });
        }
    }
    Ok(())
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        for path in self.ours.iter().rev() {
            let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            told(path, gone);
        }
        for path in self.made.iter().rev() {
            match fs::remove_dir(path) {
                // Somebody else uses it by now.
                Err(cause) if cause.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                gone => told(path, gone),
            }
        }
    }
}

fn told(path: &Path, removed: io::Result<()>) {
    match removed {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %cause, "cannot remove what was begun; remove it by hand");
        }
        _ => {}
    }
}

/// Where the log is to be, if not in its usual place inside of `root`.
fn log_apart(root: &Path, wal: Option<&Path>) -> Result<Option<PathBuf>, OfflineError> {
    let Some(wal) = wal else { return Ok(None) };
    let (root, there) = (place(root), place(wal));
    let member = root.join("member");
    if there == member.join("wal") {
        return Ok(None);
    }
    if there == root || there.starts_with(member) || there.starts_with(DataDir::unfinished_path(&root)) {
        return Err(OfflineError::SameDirectory(wal.to_owned()));
    }
    Ok(Some(absolute(wal)))
}

/// Which directory `path` means, however it is written: links are followed as far as they are there.
fn place(path: &Path) -> PathBuf {
    absolute(path).components().fold(PathBuf::new(), |mut so_far, component| {
        if component == Component::ParentDir {
            so_far.pop();
        } else {
            so_far.push(component);
        }
        fs::canonicalize(&so_far).unwrap_or(so_far)
    })
}

/// The right to begin in `root`, which one process has at a time.
fn turn(root: &Path) -> Result<File, OfflineError> {
    let file = File::open(root).map_err(OfflineError::io("opening", root))?;
    let in_use = || Err(OfflineError::InUse { path: root.to_owned(), holder: None });
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => in_use(),
        // One that has failed meanwhile took its directory with it; the lock on that one keeps nobody away.
        Ok(()) if !is_at(&file, root) => in_use(),
        // Where directories have no locks, all that is made is still made by one alone.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Whether `path` still means what was opened as `file`.
fn is_at(file: &File, path: &Path) -> bool {
    let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
    file.metadata().map(place).ok() == fs::metadata(path).map(place).ok()
}

fn check(root: &Path, wal: Option<&Path>) -> Result<(), OfflineError> {
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    let not_empty = || OfflineError::NotEmpty(root.to_owned());
    if is_there(root) {
        let names = fs::read_dir(root).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        let names: Vec<OsString> = names.map_err(|_| not_empty())?;
        let unfinished = DataDir::unfinished_path(root);
        if is_there(&unfinished) {
            let nothing_else = names.iter().all(|name| OF_ONE_BEGUN.iter().any(|begun| name == begun));
            let remove = if nothing_else { root.to_owned() } else { unfinished.clone() };
            return Err(OfflineError::Begun { unfinished, remove });
        }
        if !names.is_empty() {
            return Err(not_empty());
        }
    }
    let Some(wal) = wal else { return Ok(()) };
    let unfinished = partial(wal);
    if is_there(wal) {
        Err(OfflineError::WalDirExists(wal.to_owned()))
    } else if is_there(&unfinished) {
        Err(OfflineError::Begun { remove: unfinished.clone(), unfinished })
    } else {
        Ok(())
    }
}

/// The directories down to `path` that are not there, the outermost first.
fn missing(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let all = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
    let mut missing: Vec<_> = all.map(Path::to_owned).collect();
    missing.reverse();
    missing.into_iter()
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(PARTIAL);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{super::datadir::DataDirError, resident::log_in},
        *,
    };

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_not_finished_goes_with_all_that_was_made_for_it() {
        let home = tempfile::tempdir().unwrap();
        let (root, wal) = (home.path().join("a/b/data"), home.path().join("logs/m1"));
        let building = Building::begin(&root, Some(&wal), Owner::Quorate).unwrap();
        assert!(root.join("member.partial").is_dir() && home.path().join("logs/m1.partial").is_dir());
        drop(building);
        assert_eq!(names(home.path()), [""; 0]);
        fs::create_dir(home.path().join("data")).unwrap();
        drop(Building::begin(&home.path().join("data"), None, Owner::Quorate).unwrap());
        assert_eq!(names(&home.path().join("data")), [""; 0], "what was there stays");
    }

    #[test]
    fn what_is_there_stays_whatever_its_name_is() {
        let home = tempfile::tempdir().unwrap();
        let (root, wal) = (home.path().join("data"), home.path().join("log"));
        let kept = ["data/member.partial/a", "log.partial/b", "other/LOCK"].map(|name| home.path().join(name));
        for path in &kept {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "kept").unwrap();
        }
        let new = home.path().join("new");
        for owner in [Owner::Quorate, Owner::Etcd] {
            for (root, wal) in [(&root, None), (&new, Some(wal.as_path()))] {
                let refused = Building::begin(root, wal, owner).unwrap_err().to_string();
                assert!(refused.contains(".partial") && refused.contains(" and begin again"), "{refused}");
            }
            let refused = Building::begin(&home.path().join("other"), None, owner);
            assert!(matches!(refused, Err(OfflineError::NotEmpty(_))), "{refused:?}");
            assert!(kept.iter().all(|path| path.is_file()) && !new.exists());
        }
    }

    #[test]
    fn two_do_not_begin_at_one_place() {
        let home = tempfile::tempdir().unwrap();
        let (root, wal) = (home.path().join("data"), home.path().join("log"));
        fs::create_dir(&root).unwrap();
        let held = turn(&root).unwrap();
        for owner in [Owner::Quorate, Owner::Etcd] {
            let refused = Building::begin(&root, None, owner);
            assert!(matches!(refused, Err(OfflineError::InUse { .. })), "{refused:?}");
        }
        drop(held);
        let first = Building::begin(&root, Some(&wal), Owner::Quorate).unwrap();
        for owner in [Owner::Quorate, Owner::Etcd] {
            Building::begin(&root, None, owner).unwrap_err();
            Building::begin(&home.path().join("other"), Some(&wal), owner).unwrap_err();
        }
        first.finish().unwrap();
        assert_eq!(
            (names(&root.join("member")), names(home.path())),
            (vec!["FOUNDED".to_owned(), "snap".to_owned()], vec!["data".to_owned(), "log".to_owned()])
        );
    }

    #[test]
    fn a_turn_in_a_directory_that_went_is_none() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("data");
        fs::create_dir(&root).unwrap();
        let opened = File::open(&root).unwrap();
        assert!(is_at(&opened, &root));
        fs::remove_dir(&root).unwrap();
        assert!(!is_at(&opened, &root), "nothing is there");
        fs::create_dir(&root).unwrap();
        assert!(!is_at(&opened, &root), "another one is there");
    }

    #[test]
    fn made_directories_that_others_use_stay() {
        let home = tempfile::tempdir().unwrap();
        let building = Building::begin(&home.path().join("a/b"), None, Owner::Quorate).unwrap();
        fs::write(home.path().join("a/other"), "").unwrap();
        drop(building);
        assert_eq!(names(&home.path().join("a")), ["other"]);
    }

    #[test]
    fn what_is_to_be_removed_is_all_that_an_interrupted_one_has_left() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("data");
        for owner in [Owner::Quorate, Owner::Etcd] {
            let mut killed = Building::begin(&root, None, owner).unwrap();
            killed.leftovers.ours.clear();
            killed.leftovers.made.clear();
            drop(killed);
            let begun = |path: &Path| {
                let refused = Building::begin(&root, None, owner).unwrap_err();
                assert!(matches!(&refused, OfflineError::Begun { remove, .. } if remove == path), "{refused}");
            };
            begun(&root);
            fs::write(root.join("mine"), "").unwrap();
            begun(&root.join("member.partial"));
            fs::remove_dir_all(&root).unwrap();
        }
    }

    #[test]
    fn finished_directory_has_its_names() {
        let home = tempfile::tempdir().unwrap();
        let (root, wal) = (home.path().join("data"), home.path().join("logs/m1"));
        let building = Building::begin(&root, Some(&wal), Owner::Quorate).unwrap();
        building.state(|_, _| Ok(())).unwrap();
        building.finish().unwrap();
        assert_eq!(names(&root), ["FORMAT", "LOCK", "member"]);
        assert_eq!(names(&root.join("member")), ["FOUNDED", "snap", "state"]);
        assert!(wal.is_dir() && DataDir::claim(&root, Some(&wal)).unwrap().is_founded().unwrap());
    }

    #[test]
    fn etcd_cannot_start_on_what_is_not_finished() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("data");
        let building = Building::begin(&root, None, Owner::Etcd).unwrap();
        assert!(root.join("member").is_file(), "no directory of that name can be made");
        building.finish().unwrap();
        assert_eq!(names(&root), ["member"]);
        assert!(root.join("member/snap").is_dir());
        let other = home.path().join("other");
        drop(Building::begin(&other, None, Owner::Etcd).unwrap());
        assert!(!other.exists());
    }

    #[test]
    fn a_copy_has_a_log_of_its_own() {
        let home = tempfile::tempdir().unwrap();
        let [first, copy, apart, log] = ["first", "copy", "apart", "log"].map(|name| home.path().join(name));
        for (root, wal) in [(&first, None), (&apart, Some(log.as_path()))] {
            Building::begin(root, wal, Owner::Quorate).unwrap().finish().unwrap();
        }
        fs::create_dir_all(copy.join("member/wal")).unwrap();
        for file in ["FORMAT", "member/FOUNDED"] {
            fs::copy(first.join(file), copy.join(file)).unwrap();
        }
        assert_eq!(log_in(&first).unwrap(), Some(first.join("member/wal")));
        assert_eq!(log_in(&copy).unwrap(), Some(copy.join("member/wal")));
        assert_eq!(log_in(&apart).unwrap(), Some(log));
    }

    #[test]
    fn a_directory_is_the_same_however_it_is_written() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("data");
        for same in ["data", "./data", "data/", "data/member/..", "other/../data", "data/member", "data/member/snap"] {
            let refused = Building::begin(&root, Some(&home.path().join(same)), Owner::Quorate);
            assert!(matches!(refused, Err(OfflineError::SameDirectory(_))), "{same}: {refused:?}");
        }
        std::os::unix::fs::symlink(home.path(), home.path().join("link")).unwrap();
        assert!(log_apart(&root, Some(&home.path().join("link/data"))).is_err());
        for usual in ["data/member/wal", "link/./data/member/wal"] {
            let wal = home.path().join(usual);
            Building::begin(&root, Some(&wal), Owner::Quorate).unwrap().finish().unwrap();
            assert_eq!(names(&root.join("member")), ["FOUNDED", "snap", "wal"], "{usual}");
            fs::remove_dir_all(&root).unwrap();
        }
    }

    #[test]
    fn directories_in_use_are_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("data");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("mine"), "").unwrap();
        let text = Building::begin(&root, None, Owner::Quorate).unwrap_err().to_string();
        assert_eq!(text, format!("data-dir {root:?} not empty or could not be read"));
        let (new, file) = (home.path().join("new"), root.join("mine"));
        let text = Building::begin(&new, Some(&file), Owner::Etcd).unwrap_err().to_string();
        assert_eq!(text, format!("wal-dir {file:?} exists"));
        assert!(Building::begin(&new, Some(&new), Owner::Etcd).is_err() && !new.exists());
        assert!(Building::begin(&file, None, Owner::Etcd).is_err());
    }

    #[test]
    fn daemon_refuses_what_a_killed_tool_has_left() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("data");
        fs::create_dir_all(DataDir::unfinished_path(&root)).unwrap();
        let refused = DataDir::claim(&root, None).unwrap_err();
        assert!(matches!(refused, DataDirError::Unfinished { .. }), "{refused}");
    }

    #[test]
    fn what_appears_where_it_is_to_go_is_not_removed() {
        let home = tempfile::tempdir().unwrap();
        let (root, wal) = (home.path().join("data"), home.path().join("log"));
        let building = Building::begin(&root, Some(&wal), Owner::Quorate).unwrap();
        building.state(|_, _| Ok(())).unwrap();
        fs::create_dir(&wal).unwrap();
        building.finish().unwrap_err();
        assert_eq!(
            (names(home.path()), names(&wal)),
            (vec!["log".to_owned()], Vec::new()),
            "an empty one stays as well"
        );
    }

    #[test]
    fn nothing_is_made_inside_of_what_it_is_made_from() {
        let home = tempfile::tempdir().unwrap();
        let [from, link] = ["from", "link"].map(|name| home.path().join(name));
        fs::create_dir(&from).unwrap();
        std::os::unix::fs::symlink(&from, &link).unwrap();
        for inside in
            [from.clone(), from.join("member.imported"), link.join("new/deep"), home.path().join("x/../from/y")]
        {
            assert!(check_apart([from.as_path()], [inside.as_path()]).is_err(), "{}", inside.display());
        }
        for outside in ["from.new", "other"] {
            check_apart([from.as_path()], [home.path().join(outside).as_path()]).unwrap();
        }
    }
}
