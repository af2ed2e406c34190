//! What the timer of the packages runs: a snapshot of the member, checked, and the oldest ones gone. How systemd starts it is
//! tried in `tests/support/package.sh`.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};
use support::daemon::Daemon;
use support::program::Program;
use support::{cluster::ctl, http};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/backup.sh");

#[test]
fn snapshots_are_taken_checked_and_restored() {
    let world = World::start();
    assert_eq!(ctl(&world.daemon.endpoint(), &["put", "k", "v"]).as_deref(), Ok("OK"));
    let said = told(&world.run(&[]));
    let [file] = world.kept().try_into().expect("one file");
    assert!(said.contains(&format!("saved {}: ", file.display())), "{said}");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    let restored = world.place.path().join("restored");
    let mut restore = Program::quorateutl().command();
    let [snapshot, data] = [&file, &restored].map(|path| path.to_str().expect("text"));
    restore.args(["snapshot", "restore", snapshot, "--data-dir", data]);
    let restored = restore.output().expect("the tool starts");
    assert!(restored.status.success(), "{restored:?}");
}

#[test]
fn the_newest_are_kept_and_nothing_else_is_touched() {
    let world = World::start();
    let old = |day: u32| world.backups().join(format!("quorate-202001{day:02}T000000Z.db"));
    for day in 1..=4 {
        fs::write(old(day), "").expect("written");
    }
    fs::write(world.backups().join("of-somebody-else.db"), "").expect("written");
    told(&world.run(&[("BACKUP_KEEP", "3")]));
    assert_eq!(world.kept().len(), 3);
    assert_eq!((1..=4).map(|day| old(day).exists()).collect::<Vec<_>>(), [false, false, true, true]);
    // These two are a day old and more.
    let long_ago = Command::new("touch").args(["-d", "3 days ago"]).args([old(3), old(4)]).status();
    assert!(long_ago.expect("touch runs").success());
    let before = world.kept();
    told(&world.run(&[("BACKUP_KEEP", "0"), ("BACKUP_KEEP_DAYS", "2")]));
    let after = world.kept();
    assert!(after.len() <= 2 && !after.contains(&old(3)) && !after.contains(&old(4)), "{before:?} {after:?}");
    assert!(world.backups().join("of-somebody-else.db").exists());
    let slip = world.run(&[("BACKUP_KEEP", "3x")]);
    assert!(!slip.status.success() && error(&slip).contains("BACKUP_KEEP=3x is no number"), "{slip:?}");
    assert_eq!(world.kept(), after);
    // Whole, and decimal whatever they begin with.
    let old = |number: &str| told(&world.run(&[("BACKUP_KEEP", number), ("BACKUP_KEEP_DAYS", "08")]));
    assert!(old("009").contains("saved "));
    let long = world.run(&[("BACKUP_KEEP", "99999999999999999999")]);
    assert!(!long.status.success() && error(&long).contains("is too large"), "{long:?}");
}

#[test]
fn names_in_the_future_are_told_and_cost_nothing() {
    let world = World::start();
    let [past, near, far] =
        ["20200101", "29980101", "29990101"].map(|day| world.backups().join(format!("quorate-{day}T000000Z.db")));
    for path in [&past, &near, &far] {
        fs::write(path, "").expect("written");
    }
    let taken = world.run(&[("BACKUP_KEEP", "1")]);
    let said = told(&taken);
    let kept = world.kept();
    let [new, rest @ ..] = kept.as_slice() else { panic!("nothing is kept") };
    assert!(said.contains(&format!("saved {}: ", new.display())), "{said} {kept:?}");
    assert_eq!(rest, [near, far]);
    assert!(error(&taken).contains("2 files in"), "{taken:?}");
}

#[test]
fn what_fails_takes_nothing_with_it_and_says_what_to_do() {
    let mut world = World::start();
    let old = world.backups().join("quorate-20200101T000000Z.db");
    fs::write(&old, "").expect("written");
    // Where nothing can be written, whoever tries.
    let lock = world.backups().join(".lock");
    fs::create_dir(&lock).expect("made");
    let closed = world.run(&[]);
    assert!(!closed.status.success() && error(&closed).contains("cannot write to"), "{closed:?}");
    fs::remove_dir(&lock).expect("removed");
    // The disk gives back something else.
    world.replace("quorateutl", "echo damaged >&2; exit 1");
    let damaged = world.run(&[]);
    assert!(!damaged.status.success() && error(&damaged).contains("check the disk of"), "{damaged:?}");
    world.replace("quorateutl", "sleep 5");
    let mut first = world.command(&[]).spawn().expect("sh starts");
    assert!(support::wait_for(std::time::Duration::from_secs(10), || lock.exists().then_some(())).is_some());
    std::thread::sleep(std::time::Duration::from_millis(500));
    let second = world.run(&[]);
    assert!(error(&second).contains("another backup to") && !second.status.success(), "{second:?}");
    first.wait().expect("it ends");
    fs::remove_file(world.programs().join("quorateutl")).expect("removed");
    let missing = world.run(&[]);
    assert!(error(&missing).contains("install the package quorate-tools"), "{missing:?}");
    world.replace("quorateutl", "");
    let kept = world.kept();
    world.daemon.kill();
    let away = world.run(&[("ETCDCTL_DIAL_TIMEOUT", "1s"), ("ETCDCTL_COMMAND_TIMEOUT", "3s")]);
    assert!(!away.status.success() && error(&away).contains("those before are kept"), "{away:?}");
    assert_eq!(world.kept(), kept);
    assert!(kept.contains(&old), "{kept:?}");
    let names = fs::read_dir(world.backups()).expect("a directory").map(|entry| entry.expect("a name").file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains(".new")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn shellcheck_has_nothing_to_say() {
    let checked = Command::new("shellcheck").arg(SCRIPT).output();
    let checked = checked.unwrap_or_else(|error| panic!("{error}: apt-get install shellcheck"));
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// A daemon, a directory for its snapshots, and one of programs.
struct World {
    daemon: Daemon,
    place: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let daemon = Daemon::start(&Program::subject(), &[]);
        let world = Self { daemon, place: tempfile::tempdir().expect("a directory") };
        assert_eq!(http::get(world.daemon.client, "/health").expect("an answer").status, 200);
        for directory in [world.backups(), world.programs()] {
            fs::create_dir(directory).expect("made");
        }
        for program in [Program::quoratectl(), Program::quorateutl()] {
            let name = program.path.file_name().expect("a name");
            symlink(&program.path, world.programs().join(name)).expect("linked");
        }
        world
    }

    fn backups(&self) -> PathBuf {
        self.place.path().join("backups")
    }

    fn programs(&self) -> PathBuf {
        self.place.path().join("bin")
    }

    /// Puts a script in the place of a program.
    fn replace(&self, name: &str, script: &str) {
        let path = self.programs().join(name);
        fs::remove_file(&path).unwrap_or_default();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
    }

    fn command(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new("sh");
        command.arg(SCRIPT).env("PATH", format!("{}:/usr/bin:/bin", self.programs().display()));
        command.env("BACKUP_DIR", self.backups()).env("ETCDCTL_ENDPOINTS", self.daemon.endpoint());
        command.envs(variables.iter().copied());
        command
    }

    fn run(&self, variables: &[(&str, &str)]) -> Output {
        self.command(variables).output().expect("sh starts")
    }

    /// The snapshots there are, oldest first.
    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.backups()).expect("a directory").map(|entry| entry.expect("a name").path());
        let is_one = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("quorate-2") && path.extension().is_some_and(|extension| extension == "db")
        };
        let mut kept: Vec<_> = entries.filter(is_one).collect();
        kept.sort();
        kept
    }
}

fn told(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
