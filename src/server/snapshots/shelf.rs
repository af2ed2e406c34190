//! The directory of a member's scheduled snapshots: what its files are called, and which of them are kept.
//!
//! Several members may share one, so each looks only at files that carry its own ID. Times are in the names: a copy of the
//! directory to another disk keeps them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use crate::{disk::private_directories, etcdfile::part::PART_SUFFIX, types::MemberId};

/// What stands before the time in a name, together with the member's ID.
const PREFIX: &str = "snapshot-";
/// What stands behind the revision.
const SUFFIX: &str = ".db";

/// The end of the year 9999: a later time has no name.
const TIME_MAX: Duration = Duration::from_secs(253_402_300_799);

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    path: PathBuf,
    member: MemberId,
}

/// Which files stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// `snapshot-keep`: so many, the newest first; `None` for any number.
    pub files_max: Option<usize>,
    /// `snapshot-keep-time`: those that are younger; `None` for any age.
    pub age_max: Option<Duration>,
}

/// One snapshot of this member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Volume {
    /// When it was begun, since 1970.
    pub(super) taken: Duration,
    pub(super) path: PathBuf,
}

impl Shelf {
    pub(super) fn new(path: &Path, member: MemberId) -> Self {
        Self { path: path.to_owned(), member }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory for its owner alone, unless it is there, and removes what a killed process has left in it.
    pub(super) fn prepare(&self) -> io::Result<()> {
        private_directories().recursive(true).create(&self.path)?;
        for path in self.files()? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.strip_suffix(PART_SUFFIX).is_some_and(|name| self.read_name(name).is_some()) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// The place of a snapshot that is taken now.
    pub(super) fn place(&self, now: Duration, revision: i64) -> PathBuf {
        let at = UNIX_EPOCH.checked_add(now.min(TIME_MAX)).unwrap_or(UNIX_EPOCH);
        let time = humantime::format_rfc3339_seconds(at).to_string().replace(['-', ':'], "");
        self.path.join(format!("{PREFIX}{:016x}-{time}-{revision}{SUFFIX}", self.member.0))
    }

    /// The snapshots of this member, oldest first. Of a directory that is not there, none.
    pub(super) fn volumes(&self) -> io::Result<Vec<Volume>> {
        let mut volumes: Vec<Volume> = self.files()?.into_iter().filter_map(|path| self.read(path)).collect();
        volumes.sort();
        Ok(volumes)
    }

    /// Removes what is not to be kept; the newest always is. Those of a time that has not come are neither counted nor removed:
    /// the clock was wrong once, and the one just taken would make room for them. Returns those that could not be removed.
    pub(super) fn tidy(&self, now: Duration, keep: Keep) -> io::Result<Vec<(PathBuf, io::Error)>> {
        let (volumes, early): (Vec<_>, Vec<_>) = self.volumes()?.into_iter().partition(|volume| volume.taken <= now);
        if let Some(Volume { path, .. }) = early.first() {
            tracing::warn!(files = early.len(), first = %path.display(), "snapshots are named after a time that has not come: rename or remove them by hand");
        }
        let surplus = keep.files_max.map_or(0, |files_max| volumes.len().saturating_sub(files_max.max(1)));
        let is_old = |volume: &Volume| keep.age_max.is_some_and(|age_max| now.saturating_sub(volume.taken) > age_max);
        let last = volumes.len().saturating_sub(1);
        let gone = volumes.into_iter().take(last).enumerate().filter(|(at, volume)| *at < surplus || is_old(volume));
        let removed = gone.map(|(_, volume)| (fs::remove_file(&volume.path), volume.path));
        Ok(removed.filter_map(|(outcome, path)| Some((path, outcome.err()?))).collect())
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(&self.path) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(cause) => Err(cause),
        }
    }

    fn read(&self, path: PathBuf) -> Option<Volume> {
        let taken = self.read_name(path.file_name()?.to_str()?)?;
        Some(Volume { taken, path })
    }

    /// When the snapshot of this name was taken, if it is one of this member.
    fn read_name(&self, name: &str) -> Option<Duration> {
        let rest = name.strip_prefix(PREFIX)?.strip_prefix(&format!("{:016x}-", self.member.0))?;
        let (time, revision) = rest.strip_suffix(SUFFIX)?.split_once('-')?;
        revision.parse::<i64>().ok()?;
        // Back from 20261130T080500Z.
        let part = |range| time.get(range);
        let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
        let (hour, minute, second) = (part(9..11)?, part(11..13)?, part(13..16)?);
        let at = humantime::parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}")).ok()?;
        at.duration_since(UNIX_EPOCH).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const NOW: Duration = Duration::from_secs(1_796_027_105);

    fn shelf(home: &tempfile::TempDir, member: u64) -> Shelf {
        Shelf::new(&home.path().join("snapshots"), MemberId(member))
    }

    fn put(shelf: &Shelf, hours_ago: u32, revision: i64) -> PathBuf {
        let path = shelf.place(NOW.saturating_sub(HOUR * hours_ago), revision);
        fs::write(&path, "").unwrap();
        path
    }

    fn left(shelf: &Shelf) -> Vec<u64> {
        shelf.volumes().unwrap().iter().map(|volume| NOW.saturating_sub(volume.taken).as_secs() / 3_600).collect()
    }

    #[test]
    fn names_tell_member_time_and_revision_and_are_read_back() {
        let home = tempfile::tempdir().unwrap();
        let shelf = shelf(&home, 0xab);
        assert_eq!(shelf.volumes().unwrap(), [], "there is no directory yet");
        shelf.prepare().unwrap();
        assert_eq!(fs::metadata(shelf.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let path = put(&shelf, 0, 77);
        assert!(path.ends_with("snapshots/snapshot-00000000000000ab-20261130T082505Z-77.db"), "{path:?}");
        assert_eq!(shelf.volumes().unwrap(), [Volume { taken: NOW, path }]);
    }

    #[test]
    fn only_leftovers_of_this_member_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let (own, other) = (shelf(&home, 1), shelf(&home, 2));
        own.prepare().unwrap();
        let part = |shelf: &Shelf| PathBuf::from(format!("{}{PART_SUFFIX}", shelf.place(NOW, 5).display()));
        let foreign = own.path().join("mine.db.part");
        for path in [&part(&own), &part(&other), &foreign] {
            fs::write(path, "").unwrap();
        }
        own.prepare().unwrap();
        assert_eq!([&part(&own), &part(&other), &foreign].map(|path| path.exists()), [false, true, true]);
    }

    #[test]
    fn the_newest_stay_and_never_none() {
        let home = tempfile::tempdir().unwrap();
        let (own, other) = (shelf(&home, 1), shelf(&home, 2));
        own.prepare().unwrap();
        put(&other, 9, 1);
        fs::write(own.path().join("notes.txt"), "").unwrap();
        for hours in [0, 1, 2, 5, 9] {
            put(&own, hours, 1);
        }
        let keep = |files_max, age_max| own.tidy(NOW, Keep { files_max, age_max }).unwrap().len();
        assert_eq!((keep(None, None), left(&own)), (0, vec![9, 5, 2, 1, 0]));
        assert_eq!((keep(Some(4), None), left(&own)), (0, vec![5, 2, 1, 0]));
        assert_eq!((keep(Some(4), Some(HOUR)), left(&own)), (0, vec![1, 0]));
        assert_eq!((keep(Some(1), None), left(&own)), (0, vec![0]));
        let later = own.tidy(NOW + 99 * HOUR, Keep { files_max: Some(1), age_max: Some(HOUR) });
        assert_eq!((later.unwrap().len(), left(&own)), (0, vec![0]), "an old one is better than none");
        assert_eq!((left(&other), own.path().join("notes.txt").exists()), (vec![9], true));
    }

    #[test]
    fn one_just_taken_makes_no_room_for_those_of_a_time_to_come() {
        let home = tempfile::tempdir().unwrap();
        let shelf = shelf(&home, 1);
        shelf.prepare().unwrap();
        let (taken, old) = (put(&shelf, 0, 9), put(&shelf, 5, 8));
        let early: Vec<_> = [100, 200].map(|hours| shelf.place(NOW + HOUR * hours, 7)).into();
        for path in &early {
            fs::write(path, "").unwrap();
        }
        let keep = Keep { files_max: Some(1), age_max: None };
        assert!(shelf.tidy(NOW, keep).unwrap().is_empty());
        assert!(taken.exists() && !old.exists() && early.iter().all(|path| path.exists()));
    }
}
