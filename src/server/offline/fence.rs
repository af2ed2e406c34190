//! A fence around what was handed on.
//!
//! `member/` of the old directory is renamed, and a file of its name tells what has become of it. Neither etcd nor our daemon
//! can make a directory of that name then, so neither starts; nothing is deleted, and the file tells the way back. The file is
//! written first and the two change their names at once: a directory without `member` would be taken for a new one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};

use super::{
    super::{Identity, datadir},
    OfflineError,
};

/// The directory that a member keeps its data in, or the file that says where they are.
const MEMBER: &str = "member";
/// So many names are tried for what was `member/`.
const NAMES_MAX: usize = 1_000;

/// A fence that can be taken away again, as long as nobody was told of what is behind it.
#[derive(Debug)]
pub(super) struct Fence {
    note: PathBuf,
    kept: PathBuf,
}

/// What stands where a member was.
pub(super) struct Note<'n> {
    pub(super) identity: Identity,
    /// Whose it was, in words before it.
    pub(super) was: &'n str,
    /// What has become of it.
    pub(super) became: &'n str,
    /// Whose it was, and whose it is.
    pub(super) owners: [&'n str; 2],
    /// The command that makes a new directory for the former owner of the one that is named.
    pub(super) back: &'n dyn Fn(&str) -> String,
}

impl Note<'_> {
    /// The note in `root` on a member that lives in `data_dir` now, and whose old data are in `kept`.
    pub(super) fn text(&self, root: &Path, kept: &Path, data_dir: &Path) -> String {
        let Self { identity: Identity { member, cluster }, was, became, owners: [old, new], back } = self;
        let [root, kept, data_dir] = [root, kept, data_dir].map(|path| absolute(path).display().to_string());
        let back = back(&data_dir);
        format!(
            "This was the data directory {was} member {member} of cluster {cluster}. {became}:\n\
             the member lives in {data_dir} now. What was here is in\n\
             {kept}, unchanged.\n\n\
             This is a file so that {old} does not start: a member that falls back behind what it has acknowledged\n\
             can cost its cluster data.\n\n\
             The way back, if {new} was never started on the new directory:\n    \
             rm {root}/member && mv {kept} {root}/member\n\
             and otherwise, with {new} stopped, into a new directory for {old}:\n    \
             {back}"
        )
    }
}

/// A path as a note names it, which is read from anywhere.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Lets two files or directories change their names, at once where the file system can.
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE) {
        // A kill between these leaves one of them under a third name, which says what it is.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            let mut aside = other.as_os_str().to_owned();
            aside.push(".aside");
            fs::rename(other, &aside)?;
            fs::rename(one, other)?;
            fs::rename(&aside, one)
        }
        exchanged => Ok(exchanged?),
    }
}

/// Gives `from` the name `to`, which nobody has. Where the file system cannot tell, an empty directory of that name goes.
pub(super) fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EINVAL | Errno::ENOSYS) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

/// The note in `root`, if it was handed on.
pub(in crate::server) fn find(root: &Path) -> Option<PathBuf> {
    Some(root.join(MEMBER)).filter(|note| note.is_file())
}

impl Fence {
    /// Renames `member/` in `root` to `member.<ending>`, or to the first such name with a number that is free, and puts the note
    /// in its place that `text` makes of the new path.
    ///
    /// # Errors
    /// [`OfflineError::Io`]; then everything is as it was.
    pub(super) fn raise(root: &Path, ending: &str, text: impl FnOnce(&Path) -> String) -> Result<Self, OfflineError> {
        let note = root.join(MEMBER);
        let names = (1..=NAMES_MAX).map(|number| match number {
            1 => format!("{MEMBER}.{ending}"),
            number => format!("{MEMBER}.{ending}.{number}"),
        });
        let free = names.map(|name| root.join(name)).find(|path| path.symlink_metadata().is_err());
        let kept = free.ok_or_else(|| OfflineError::NotEmpty(root.to_owned()))?;
        datadir::replace(&kept, &text(&kept))?;
        let exchanged = exchange(&note, &kept).map_err(OfflineError::io("renaming", &note));
        let exchanged = exchanged.and_then(|()| Ok(datadir::sync_parent(&note)?));
        if exchanged.is_err() && kept.is_file() {
            // Nobody was told of it.
            drop(fs::remove_file(&kept));
        }
        exchanged.map(|()| Self { note, kept })
    }

    /// Where the data are.
    pub(super) fn kept(&self) -> &Path {
        &self.kept
    }

    /// Puts everything back.
    pub(super) fn lower(self) {
        let lowered = || {
            exchange(&self.note, &self.kept)?;
            fs::remove_file(&self.kept)
        };
        if let Err(cause) = lowered() {
            let (kept, note) = (self.kept.display(), self.note.display());
            tracing::warn!(%kept, %note, %cause, "cannot put the old directory back; rename it by hand");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fence_keeps_everything_and_can_be_lowered() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("member/snap")).unwrap();
        fs::create_dir(root.path().join("member.imported")).unwrap();
        let fence = Fence::raise(root.path(), "imported", |kept| format!("see {}", kept.display())).unwrap();
        let kept = root.path().join("member.imported.2");
        assert_eq!(fence.kept(), kept);
        let note = find(root.path()).unwrap();
        assert_eq!(fs::read_to_string(note).unwrap(), format!("see {}\n", kept.display()));
        fence.lower();
        assert!(root.path().join("member/snap").is_dir() && find(root.path()).is_none() && !kept.exists());
    }
}
