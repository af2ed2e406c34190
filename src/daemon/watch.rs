//! When files have changed, and rest.
//!
//! They are looked at every so often by what the system says of the file that a path leads to, whatever way it leads there:
//! a rename, a symbolic link that was swapped (Kubernetes' `..data`) and a network file system all show. A change counts
//! once the next look finds nothing new, so that a file that is being written is left alone.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often files are looked at. A change is taken over after two looks.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What tells one state of a file from another; nothing if there is none.
type Stamp = Option<FileStamp>;

/// Whatever its content does, one of these changes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds of the last write.
    modified: (i64, i64),
    /// The same of the last change of anything about it: who sets the time of a write back changes this.
    changed: (i64, i64),
}

/// What was seen of all files at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Look(Vec<(PathBuf, Stamp)>);

impl Look {
    /// Looks at the files now. It may wait for a disk.
    pub(super) fn at(paths: &[PathBuf]) -> Self {
        Self(paths.iter().map(|path| (path.clone(), stamp(path))).collect())
    }

    /// A file that `before` had something in and that is empty or gone, as a file is for a moment that is written anew.
    pub(super) fn emptied_since(&self, before: &Self) -> Option<&Path> {
        let held = |path: &Path| before.0.iter().any(|(own, stamp)| own == path && has_content(*stamp));
        let emptied = self.0.iter().find(|(path, stamp)| !has_content(*stamp) && held(path));
        emptied.map(|(path, _)| path.as_path())
    }
}

fn has_content(stamp: Stamp) -> bool {
    stamp.is_some_and(|stamp| stamp.bytes > 0)
}

fn stamp(path: &Path) -> Stamp {
    let data = fs::metadata(path).ok()?;
    Some(FileStamp {
        device: data.dev(),
        inode: data.ino(),
        bytes: data.len(),
        modified: (data.mtime(), data.mtime_nsec()),
        changed: (data.ctime(), data.ctime_nsec()),
    })
}

/// What was taken over, and what was seen since.
#[derive(Debug, Default)]
pub(super) struct Watch {
    taken: Look,
    seen: Look,
}

impl Watch {
    /// What `look` shows is taken over.
    pub(super) fn new(look: Look) -> Self {
        Self { taken: look.clone(), seen: look }
    }

    /// Whether `look` shows a change that rests since the look before. It counts as taken over from then on.
    pub(super) fn sees(&mut self, look: Look) -> Option<Change> {
        let rests = look == self.seen;
        self.seen = look.clone();
        if !rests || look == self.taken {
            return None;
        }
        let before = std::mem::replace(&mut self.taken, look);
        Some(Change { before })
    }

    /// What was taken over last.
    pub(super) fn taken(&self) -> &Look {
        &self.taken
    }
}

/// A change that rests.
#[derive(Debug)]
pub(super) struct Change {
    /// What was taken over before it.
    pub(super) before: Look,
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory"))
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).expect("written");
        }

        fn look(&self) -> Look {
            Look::at(&[self.path("file")])
        }
    }

    #[test]
    fn a_change_counts_when_it_rests_and_once() {
        let place = Place::new();
        place.write("file", "a");
        let mut watch = Watch::new(place.look());
        assert!(watch.sees(place.look()).is_none(), "nothing has changed");
        place.write("file", "ab");
        assert!(watch.sees(place.look()).is_none(), "it may be half written");
        place.write("file", "abc");
        assert!(watch.sees(place.look()).is_none(), "it was");
        assert!(watch.sees(place.look()).is_some());
        assert!(watch.sees(place.look()).is_none(), "it was taken over");
    }

    #[test]
    fn renames_and_swapped_links_are_changes() {
        let place = Place::new();
        for version in ["one", "two"] {
            fs::create_dir(place.path(version)).expect("made");
            place.write(&format!("{version}/file"), "same size");
        }
        std::os::unix::fs::symlink("one", place.path("..data")).expect("linked");
        std::os::unix::fs::symlink("..data/file", place.path("file")).expect("linked");
        let mut watch = Watch::new(place.look());
        std::os::unix::fs::symlink("two", place.path("..tmp")).expect("linked");
        fs::rename(place.path("..tmp"), place.path("..data")).expect("swapped");
        assert!(watch.sees(place.look()).is_none() && watch.sees(place.look()).is_some(), "a swapped link");
        place.write("new", "same size");
        fs::rename(place.path("new"), place.path("two/file")).expect("renamed");
        assert!(watch.sees(place.look()).is_none() && watch.sees(place.look()).is_some(), "a rename");
    }

    #[test]
    fn what_is_empty_or_gone_was_not_always() {
        let place = Place::new();
        place.write("file", "text");
        let full = place.look();
        place.write("file", "");
        let empty = place.look();
        assert_eq!(empty.emptied_since(&full), Some(place.path("file").as_path()));
        assert_eq!((empty.emptied_since(&empty), full.emptied_since(&empty)), (None, None));
        fs::remove_file(place.path("file")).expect("removed");
        assert!(place.look().emptied_since(&full).is_some());
    }
}
