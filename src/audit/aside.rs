//! Files that are full are set aside: those of the audit log, and those of the log.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use flate2::{Compression, write::GzEncoder};

use crate::clock::{self, Clock as _};

/// What the name of a compressed file ends in.
const PACKED: &str = ".gz";
/// What a file may be called that was set aside.
const FORMS: [&str; 2] = ["", PACKED];

/// Sets a file aside: `FILE` becomes `FILE.1`, `FILE.1` becomes `FILE.2`, and what would be beyond the last one goes, as does
/// what is there since more of them were kept. With none to keep the file itself goes. One that is not there is fine. A
/// compressed one is moved as any other.
///
/// It is `FILE.0` on the way, so that nothing older goes where it cannot be moved itself. One of that name was left by a kill:
/// it goes first, and `FILE` next time; with none to keep both go.
///
/// # Errors
/// What cannot be moved. The file has its name still, or again.
pub fn set_aside(place: &Path, files_max: u32) -> io::Result<()> {
    if files_max == 0 {
        none_is_fine(fs::remove_file(place))?;
        none_is_fine(fs::remove_file(numbered(place, 0, "")))?;
    } else {
        let moving = numbered(place, 0, "");
        if !moving.exists() {
            match fs::rename(place, &moving) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                moved => moved?,
            }
        }
        make_way(place, files_max).and_then(|()| fs::rename(&moving, numbered(place, 1, ""))).inspect_err(|_| {
            // Back, unless somebody has begun another one meanwhile.
            if !place.exists() {
                fs::rename(&moving, place).unwrap_or_default();
            }
        })?;
    }
    remove_beyond(place, files_max);
    Ok(())
}

fn make_way(place: &Path, files_max: u32) -> io::Result<()> {
    // The next one may be of the other form, and would not take its place.
    for form in FORMS {
        none_is_fine(fs::remove_file(numbered(place, files_max, form)))?;
    }
    for number in (1..files_max).rev() {
        for form in FORMS {
            none_is_fine(fs::rename(numbered(place, number, form), numbered(place, number + 1, form)))?;
        }
    }
    Ok(())
}

/// Removes files with higher numbers, up to the first gap: what others have put there may have any number.
fn remove_beyond(place: &Path, files_max: u32) {
    for number in files_max.saturating_add(1)..u32::MAX {
        if !remove(place, number) {
            return;
        }
    }
}

/// Removes files that were set aside so long ago, as their times tell.
pub fn remove_older(place: &Path, age_max: Duration) {
    let now = UNIX_EPOCH + clock::system().wall();
    for number in 1..u32::MAX {
        let modified = FORMS.map(|form| fs::metadata(numbered(place, number, form)).and_then(|known| known.modified()));
        let Some(newest) = modified.into_iter().flatten().max() else { return };
        if now.duration_since(newest).is_ok_and(|age| age > age_max) && !remove(place, number) {
            return;
        }
    }
}

/// Removes the file with this number, whatever its form; whether it is worth while to look for the next one.
fn remove(place: &Path, number: u32) -> bool {
    let mut was_there = false;
    for form in FORMS {
        let surplus = numbered(place, number, form);
        match fs::remove_file(&surplus) {
            Ok(()) => {
                was_there = true;
                tracing::info!(path = %surplus.display(), "removed an old log file");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %surplus.display(), %error, "an old log file stays");
                return false;
            }
        }
    }
    was_there
}

/// Compresses what was set aside last, if it is there. It is `FILE.gz.part` until it is whole; what a kill leaves of that name is
/// written over by the next one. Takes a second for a hundred megabytes.
///
/// # Errors
/// What cannot be read or written; the file is there as it was.
pub fn compress(place: &Path) -> io::Result<()> {
    let plain = numbered(place, 1, "");
    let mut from = match File::open(&plain) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let part = with(place, &format!("{PACKED}.part"));
    let to = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&part)?;
    let mut packing = GzEncoder::new(to, Compression::default());
    let packed = io::copy(&mut from, &mut packing).and_then(|_| packing.finish()).and_then(|to| to.sync_all());
    if let Err(error) = packed {
        none_is_fine(fs::remove_file(&part))?;
        return Err(error);
    }
    fs::rename(&part, numbered(place, 1, PACKED))?;
    fs::remove_file(&plain)
}

fn none_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn numbered(path: &Path, number: u32, form: &str) -> PathBuf {
    with(path, &format!(".{number}{form}"))
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn files_are_set_aside_one_behind_the_other() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("audit.log");
        for text in ["1", "2", "3", "4"] {
            fs::write(&path, text).unwrap();
            set_aside(&path, 2).unwrap();
        }
        let read = |number| fs::read_to_string(numbered(&path, number, "")).ok();
        assert_eq!([read(1), read(2), read(3)], [Some("4".to_owned()), Some("3".to_owned()), None]);
        for number in [3, 4, 6] {
            fs::write(numbered(&path, number, ""), "of others").unwrap();
        }
        fs::write(&path, "5").unwrap();
        set_aside(&path, 1).unwrap();
        assert_eq!([read(1).as_deref(), read(2).as_deref(), read(4).as_deref()], [Some("5"), None, None]);
        assert_eq!(read(6).as_deref(), Some("of others"), "behind a gap nothing is touched");
        fs::write(&path, "6").unwrap();
        fs::write(numbered(&path, 0, ""), "left by a kill").unwrap();
        set_aside(&path, 0).unwrap();
        assert_eq!((path.exists(), read(0), read(1)), (false, None, None));
        set_aside(&path, 0).unwrap();
    }

    #[test]
    fn what_cannot_be_moved_costs_nothing_older() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("audit.log");
        let read = |number| fs::read_to_string(numbered(&path, number, "")).ok();
        for number in 1..=2 {
            fs::write(numbered(&path, number, ""), number.to_string()).unwrap();
        }
        set_aside(&path, 2).unwrap();
        assert_eq!([read(1).as_deref(), read(2).as_deref()], [Some("1"), Some("2")], "there is nothing to set aside");
        fs::create_dir(numbered(&path, 3, "")).unwrap();
        fs::write(&path, "new").unwrap();
        set_aside(&path, 3).unwrap_err();
        assert_eq!([read(1).as_deref(), read(2).as_deref()], [Some("1"), Some("2")]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        fs::write(numbered(&path, 0, ""), "left by a kill").unwrap();
        set_aside(&path, 2).unwrap();
        assert_eq!([read(1).as_deref(), read(2).as_deref()], [Some("left by a kill"), Some("1")]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn compressed_files_have_their_places_among_the_others() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.log");
        for (text, is_packed) in [("1", true), ("2", true), ("3", false), ("4", true)] {
            fs::write(&path, text).unwrap();
            set_aside(&path, 3).unwrap();
            if is_packed {
                compress(&path).unwrap();
            }
        }
        let mut names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a.log.1.gz", "a.log.2", "a.log.3.gz"], "the oldest has gone, and nothing is left over");
        let mut text = String::new();
        GzDecoder::new(File::open(place.path().join("a.log.3.gz")).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "2");
        fs::write(&path, "5").unwrap();
        set_aside(&path, 1).unwrap();
        assert_eq!(
            fs::read_dir(place.path()).unwrap().count(),
            1,
            "with fewer to keep the others go, whatever their form"
        );
        compress(&path).unwrap();
        compress(&path).unwrap();
    }

    #[test]
    fn what_is_too_old_goes() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.log");
        let day = Duration::from_hours(24);
        for (number, form, age) in [(1, "", 0), (2, "", 1), (3, PACKED, 3), (4, "", 3)] {
            let file = File::create(numbered(&path, number, form)).unwrap();
            file.set_modified(UNIX_EPOCH + clock::system().wall().saturating_sub(age * day)).unwrap();
        }
        remove_older(&path, 2 * day);
        let is_there = |number, form| numbered(&path, number, form).exists();
        assert_eq!(
            [is_there(1, ""), is_there(2, ""), is_there(3, PACKED), is_there(4, "")],
            [true, true, false, false]
        );
    }
}
