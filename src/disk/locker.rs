//! Who locks a file? Linux tells in `/proc`.
//!
//! Only what is certain is told. What cannot be seen, from another namespace or as another user, is `None`.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// A process that locks a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locker {
    /// Its number.
    pub process: u32,
    program: Option<String>,
    /// The unit of systemd that it belongs to.
    unit: Option<String>,
}

impl Locker {
    /// The one process that locks `file` for itself. Only the inode is compared: some file systems show another device.
    pub fn of(file: &Path) -> Option<Self> {
        let inode = fs::metadata(file).ok()?.ino().to_string();
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let mut lockers = locks.lines().filter_map(|line| {
            // 1: FLOCK  ADVISORY  WRITE 2437 fe:00:9183 0 EOF
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, "FLOCK", _, "WRITE", pid, place, ..] = words.as_slice() else { return None };
            (place.rsplit(':').next()? == inode).then(|| pid.parse().ok())?
        });
        // Those of another namespace of processes have the number 0.
        let process = lockers.next().filter(|process| *process > 0)?;
        lockers.all(|other| other == process).then(|| Self::number(process))
    }

    fn number(process: u32) -> Self {
        let told = |name: &str| fs::read_to_string(PathBuf::from(format!("/proc/{process}")).join(name)).ok();
        let program = told("comm").map(|name| name.trim_end().to_owned());
        Self { process, program, unit: told("cgroup").as_deref().and_then(unit) }
    }
}

/// The unit in what `/proc/PID/cgroup` says.
fn unit(groups: &str) -> Option<String> {
    let last = groups.lines().next()?.rsplit('/').next()?;
    last.ends_with(".service").then(|| last.to_owned())
}

impl fmt::Display for Locker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { process, program, unit } = self;
        write!(f, "process {process}")?;
        if let Some(program) = program {
            write!(f, ", {program}")?;
        }
        unit.as_ref().map_or(Ok(()), |unit| write!(f, ": `systemctl stop {unit}` stops it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_locks_a_file_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Locker::of(file.path()), None);
        file.as_file().lock().unwrap();
        let locker = Locker::of(file.path()).unwrap();
        assert_eq!(locker.process, std::process::id());
        assert!(locker.to_string().starts_with(&format!("process {}, ", std::process::id())), "{locker}");
    }

    #[test]
    fn units_are_told_from_other_groups() {
        assert_eq!(unit("0::/system.slice/quorate.service\n").as_deref(), Some("quorate.service"));
        assert_eq!(
            unit("0::/system.slice/system-quorate.slice/quorate@a.service\n").as_deref(),
            Some("quorate@a.service")
        );
        assert_eq!((unit("0::/user.slice/session-1.scope\n"), unit("0::/\n"), unit("")), (None, None, None));
        let locker = Locker { process: 7, program: Some("etcd".to_owned()), unit: Some("etcd.service".to_owned()) };
        assert_eq!(locker.to_string(), "process 7, etcd: `systemctl stop etcd.service` stops it");
    }
}
