//! A data directory in the making.
//!
//! Everything is built under other names, `member.partial` and, for a log with a directory of its own, `<wal-dir>.partial`,
//! and renamed when it is durable. A failure on the way removes all of it, the directories that were made for it included.
//! What was left by a kill in between is removed when it is begun again: nobody holds it any more. Until then the daemon
//! refuses the directory, because of `member.partial`; etcd, which would not look for that, because of a file called `member`.

use std::{
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
};

use super::{
    super::{
        datadir::{self, DataDir},
        generations::Generations,
    },
    OfflineError,
    fence::{Fence, Note, absolute, exchange},
    held::Held,
};
use crate::{
    disk::FileDirectory,
    storage::{FjallEngine, FjallOptions},
};

/// What keeps etcd from starting on a directory that is not complete.
const INCOMPLETE: &str = "An export from Quorate to this directory was begun and is not complete. Export again, or remove the directory:\n\
    quorateutl export. What was exported is where it was, or the file called member there tells where it is.";
/// How that begins.
const INCOMPLETE_MARK: &str = "An export from Quorate to this directory was begun and is not complete.";
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
    _lock: Option<File>,
    held: Vec<Held>,
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
    /// Begins in `root`, which is missing or empty. `wal`, if given and not the usual place, must be missing. What an interrupted
    /// process has left in both is removed.
    ///
    /// # Errors
    /// [`OfflineError::NotEmpty`], [`OfflineError::WalDirExists`], [`OfflineError::SameDirectory`], failure to write.
    pub(in crate::server) fn begin(root: &Path, wal: Option<&Path>, owner: Owner) -> Result<Self, OfflineError> {
        let wal = log_apart(root, wal)?;
        let abandoned = check(root, wal.as_deref())?;
        let made = missing(root).chain(wal.as_deref().and_then(Path::parent).into_iter().flat_map(missing)).collect();
        let mut leftovers = Leftovers { made, ours: Vec::new() };
        datadir::create(root)?;
        let lock_path = DataDir::lock_path(root);
        let lock = match owner {
            Owner::Quorate => Some(DataDir::lock_alone(root)?),
            Owner::Etcd => lock_path.exists().then(|| DataDir::lock_alone(root)).transpose()?,
        };
        abandoned.remove()?;
        let lock = match owner {
            Owner::Quorate => {
                leftovers.ours.extend([lock_path, DataDir::format_path(root)]);
                lock
            }
            Owner::Etcd => {
                remove(&lock_path)?;
                None
            }
        };
        let mut building = Self { root: root.to_owned(), owner, wal, leftovers, _lock: lock, held: Vec::new() };
        if owner == Owner::Etcd {
            building.leftovers.ours.push(building.complete());
            datadir::replace(&building.complete(), INCOMPLETE)?;
        }
        for path in [building.member(), building.wal_directory(), building.member().join("snap")] {
            building.leftovers.ours.push(path.clone());
            datadir::create(&path)?;
            building.hold(&path)?;
        }
        Ok(building)
    }

    fn hold(&mut self, path: &Path) -> Result<(), OfflineError> {
        let held = Held::hold(path).ok_or_else(|| OfflineError::NotEmpty(self.root.clone()))?;
        self.held.push(held);
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
        fs::rename(from, to).map_err(OfflineError::io("renaming", from))?;
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
            told(path, fs::remove_dir(path));
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

/// What an interrupted process has left. Nobody takes it for his own meanwhile.
#[derive(Debug, Default)]
struct Abandoned {
    paths: Vec<PathBuf>,
    held: Vec<Held>,
}

impl Abandoned {
    /// Adds the directory `path`, if that is what it is.
    fn add(&mut self, path: PathBuf) -> bool {
        let taken = Held::take(&path);
        let is_taken = taken.is_some();
        self.held.extend(taken);
        self.paths.extend(is_taken.then_some(path));
        is_taken
    }

    fn remove(self) -> Result<(), OfflineError> {
        for path in &self.paths {
            tracing::info!(path = %path.display(), "removing what was begun here and interrupted");
            remove(path)?;
        }
        Ok(())
    }
}

/// What is in the way of a beginning, all of which an interrupted process has left.
fn check(root: &Path, wal: Option<&Path>) -> Result<Abandoned, OfflineError> {
    let not_empty = || OfflineError::NotEmpty(root.to_owned());
    let mut abandoned = Abandoned::default();
    let log_in_the_making = wal.map(partial);
    if root.symlink_metadata().is_ok() {
        let entries = fs::read_dir(root).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(|_| not_empty())?;
        let mut paths: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
        paths.retain(|path| Some(absolute(path)) != log_in_the_making);
        let is_abandoned = paths.is_empty()
            || (paths.iter().all(|path| is_of_making(root, path)) && abandoned.add(DataDir::unfinished_path(root)));
        if !is_abandoned {
            return Err(not_empty());
        }
        abandoned.paths.extend(paths.into_iter().filter(|path| path.is_file() && *path != DataDir::lock_path(root)));
    }
    let Some((wal, unfinished)) = wal.zip(log_in_the_making) else { return Ok(abandoned) };
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    if is_there(wal) || (is_there(&unfinished) && !abandoned.add(unfinished)) {
        return Err(OfflineError::WalDirExists(wal.to_owned()));
    }
    Ok(abandoned)
}

/// Whether `path`, which is in `root`, is there only while a directory is being made.
fn is_of_making(root: &Path, path: &Path) -> bool {
    let (lock, format) = (DataDir::lock_path(root), DataDir::format_path(root));
    let is_note = || fs::read_to_string(path).is_ok_and(|text| text.starts_with(INCOMPLETE_MARK));
    let (complete, begun) = (root.join("member"), DataDir::unfinished_path(root));
    [lock, format.with_extension("tmp"), format, begun].iter().any(|own| own == path)
        || [complete.with_extension("tmp"), complete].iter().any(|own| own == path) && is_note()
}

fn remove(path: &Path) -> Result<(), OfflineError> {
    let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match gone {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(OfflineError::io("removing", path)(cause)),
        _ => Ok(()),
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
    fn what_a_killed_process_has_left_goes_when_it_is_begun_again() {
        let home = tempfile::tempdir().unwrap();
        let (root, wal) = (home.path().join("data"), home.path().join("log"));
        let left = |names: &[&str]| {
            for name in names {
                fs::create_dir_all(home.path().join(name).parent().unwrap()).unwrap();
                fs::write(home.path().join(name), INCOMPLETE).unwrap();
            }
        };
        let ours = ["data/LOCK", "data/FORMAT", "data/member.partial/snap/a", "log.partial/b"];
        let etcds = ["data/member", "data/member.partial/snap/a"];
        for (names_left, owner) in
            [(&ours[..], Owner::Quorate), (&etcds, Owner::Etcd), (&ours, Owner::Etcd), (&etcds, Owner::Quorate)]
        {
            left(names_left);
            let building = Building::begin(&root, Some(&wal), owner).unwrap();
            assert_eq!(fs::read_dir(root.join("member.partial/snap")).unwrap().count(), 0, "{owner:?}");
            for again in [Owner::Quorate, Owner::Etcd] {
                Building::begin(&root, None, again).unwrap_err();
            }
            Building::begin(&home.path().join("other"), Some(&wal), owner).unwrap_err();
            assert!(root.join("member.partial").is_dir() && home.path().join("log.partial").is_dir());
            drop(building);
            assert_eq!(names(&root), [""; 0], "{owner:?}");
        }
        left(&["data/member.partial/a", "data/kept"]);
        assert!(matches!(Building::begin(&root, None, Owner::Quorate), Err(OfflineError::NotEmpty(_))));
        left(&["data/member/a"]);
        fs::remove_file(root.join("kept")).unwrap();
        assert!(matches!(Building::begin(&root, None, Owner::Etcd), Err(OfflineError::NotEmpty(_))));
        assert!(root.join("member.partial/a").is_file() && root.join("member/a").is_file());
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
        fs::write(wal.join("kept"), "").unwrap();
        building.finish().unwrap_err();
        assert_eq!((names(home.path()), names(&wal)), (vec!["log".to_owned()], vec!["kept".to_owned()]));
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
