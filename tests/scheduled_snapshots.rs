//! Snapshots that a member takes by itself: files that restore, checked, so many of them, by the schedule and no other; one that
//! fails says so and takes none of those before with it.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;
use support::cluster::{Cluster, ctl};
use support::daemon::Daemon;
use support::program::Program;
use support::{http, wait_for};

/// Longest wait for a snapshot, or for what is told of one.
const PATIENCE: Duration = Duration::from_secs(30);
const FAILURES: &str = "quorate_scheduled_snapshot_failures_total";
const LAST: &str = "quorate_scheduled_snapshot_last_success_timestamp_seconds";
const BYTES: &str = "quorate_scheduled_snapshot_size_bytes";
const PERIOD: &str = "quorate_scheduled_snapshot_period_seconds";

#[test]
fn files_are_those_of_snapshot_save_and_the_newest_are_kept() {
    let daemon = Daemon::start(&Program::subject(), &["--snapshot-schedule=1s", "--snapshot-keep=3"]);
    let place = daemon.data_dir().join("snapshots");
    for number in 0..40 {
        put(&daemon, &format!("key{number}"));
    }
    let first = wait_for(PATIENCE, || kept(&place).first().cloned()).expect("a snapshot");
    assert!(wait_for(PATIENCE, || (!first.exists()).then_some(())).is_some(), "it makes room: {:?}", kept(&place));
    assert!(kept(&place).len() <= 3, "{:?}", kept(&place));
    assert_eq!(mode(&place), 0o700);
    let newest = wait_for(PATIENCE, || copy_of_newest(&place, daemon.directory())).expect("a snapshot");
    assert_eq!(mode(&newest), 0o600);
    for (tool, words) in [(Program::quorateutl(), "snapshot status"), (Program::etcdutl(), "snapshot status")] {
        let said = run(tool.command().args(words.split(' ')).arg(&newest));
        assert!(said.contains("41,") || said.contains("40,"), "{}: {said}", tool.name);
    }
    let hash = field(&run(Program::quorateutl().command().args(["snapshot", "status"]).arg(&newest)), 0);
    assert!(daemon.log().contains(&format!("\"hash\":\"{hash}\"")), "{hash} in\n{}", daemon.log());
    let restored = daemon.directory().join("restored");
    run(Program::quorateutl().command().args(["snapshot", "restore"]).arg(&newest).arg("--data-dir").arg(&restored));
    assert!(restored.join("member").is_dir());
    assert_eq!(metric(&daemon, PERIOD), 1);
    assert_eq!(metric(&daemon, FAILURES), 0);
    let age = unix_now().checked_sub(metric(&daemon, LAST));
    assert!(age.is_some_and(|age| age < 30), "the last one is {age:?} seconds old");
    assert!(metric(&daemon, BYTES) > 4096);
}

/// When the next is due is told by the files: a restart takes none, and makes up for what was missed.
#[test]
fn restarts_neither_skip_nor_add_one() {
    let mut daemon = Daemon::start(&Program::subject(), &["--snapshot-schedule=1h"]);
    let place = daemon.data_dir().join("snapshots");
    let first = wait_for(PATIENCE, || kept(&place).first().cloned()).expect("the first is due at once");
    daemon.terminate();
    let leftover = PathBuf::from(format!("{}.part", first.display()));
    fs::write(&leftover, "of a process that was killed").expect("written");
    daemon.restart();
    sleep(Duration::from_secs(3));
    assert_eq!(kept(&place), std::slice::from_ref(&first));
    assert!(metric(&daemon, LAST) > 0, "what was taken before counts");
    daemon.terminate();
    // Two hours pass: the name says when it was taken.
    let name = first.file_name().and_then(|name| name.to_str()).expect("a name");
    let (head, rest) = name.split_at("snapshot-0123456789abcdef-".len());
    let (_, revision) = rest.split_once('-').expect("a revision");
    let old = place.join(format!("{head}20200101T000000Z-{revision}"));
    fs::rename(&first, &old).expect("renamed");
    daemon.restart();
    let both = wait_for(PATIENCE, || Some(kept(&place)).filter(|kept| kept.len() == 2));
    assert_eq!(both.expect("one was missed").first(), Some(&old));
    assert!(!leftover.exists(), "nobody else will remove it");
}

/// Nothing can be written: that is told, counted, and over when the directory is back.
#[test]
fn a_directory_that_cannot_be_used_is_told_and_costs_no_file() {
    let home = tempfile::tempdir().expect("a directory");
    let place = home.path().join("backup");
    let flags = ["--snapshot-schedule=1s".to_owned(), format!("--snapshot-dir={}", place.display())];
    let daemon = Daemon::start(&Program::subject(), &flags.each_ref().map(String::as_str));
    wait_for(PATIENCE, || kept(&place).first().cloned()).expect("a snapshot");
    let aside = home.path().join("aside");
    fs::rename(&place, &aside).expect("renamed");
    fs::write(&place, "no directory").expect("written");
    let failed = wait_for(PATIENCE, || (metric(&daemon, FAILURES) >= 1).then_some(()));
    assert!(failed.is_some(), "{}", daemon.log());
    let log = daemon.log();
    let record = log.lines().find(|line| line.contains("failed to take a scheduled snapshot")).expect("a record");
    for told in [r#""level":"error""#, &place.to_string_lossy(), "snapshot-dir", "those before are kept"] {
        assert!(record.contains(told), "{told:?} in {record}");
    }
    assert!(!kept(&aside).is_empty());
    put(&daemon, "the member goes on");
    fs::remove_file(&place).expect("removed");
    let failures = metric(&daemon, FAILURES);
    wait_for(PATIENCE, || kept(&place).first().cloned()).expect("it is made anew");
    sleep(Duration::from_secs(2));
    assert_eq!(metric(&daemon, FAILURES), failures);
}

/// A disk of its own that fills up: what is there stays, nothing half is left, and the member does not notice.
#[test]
fn a_full_disk_keeps_what_is_there() {
    let home = tempfile::tempdir().expect("a directory");
    let place = home.path().join("disk");
    fs::create_dir(&place).expect("made");
    let disk = Tmpfs::mount(&place, "160m");
    let flags = ["--snapshot-schedule=1s".to_owned(), format!("--snapshot-dir={}", place.display())];
    let daemon = Daemon::start(&Program::subject(), &flags.each_ref().map(String::as_str));
    wait_for(PATIENCE, || kept(&place).first().cloned()).expect("a snapshot");
    fs::write(place.join("of-somebody-else"), vec![1; 64 << 20]).expect("written");
    let failed = wait_for(PATIENCE, || (metric(&daemon, FAILURES) >= 1).then_some(()));
    assert!(failed.is_some(), "{}", daemon.log());
    let log = daemon.log();
    assert!(log.contains("make room on that disk") && log.contains("bytes are needed and"), "{log}");
    let names = fs::read_dir(&place).expect("a directory").map(|entry| entry.expect("a name").file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().ends_with(".part")).count(), 0);
    assert!(!kept(&place).is_empty());
    put(&daemon, "the member goes on");
    fs::remove_file(place.join("of-somebody-else")).expect("removed");
    disk.read_only();
    let before = metric(&daemon, FAILURES);
    assert!(wait_for(PATIENCE, || (metric(&daemon, FAILURES) > before).then_some(())).is_some());
    assert!(
        wait_for(PATIENCE, || daemon.log().contains("ReadWritePaths=").then_some(())).is_some(),
        "{}",
        daemon.log()
    );
}

/// Members may share a directory; who has no schedule takes none.
#[test]
fn only_members_with_a_schedule_take_any() {
    let home = tempfile::tempdir().expect("a directory");
    let flags = [
        format!("--snapshot-dir={}", home.path().display()),
        "--snapshot-schedule=1s".to_owned(),
        "--snapshot-keep=2".to_owned(),
    ];
    let with = flags.each_ref().map(String::as_str);
    let (subject, without) = (Program::subject(), [with[0]]);
    let cluster = Cluster::found([(&subject, &with[..]), (&subject, &with[..]), (&subject, &without[..])]);
    let ids = [0, 1, 2].map(|number| format!("snapshot-{:016x}-", cluster.id(number).expect("an ID")));
    let of = |id: &str| {
        let name = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(id));
        kept(home.path()).iter().filter(|path| name(path)).count()
    };
    let both = wait_for(PATIENCE, || (of(&ids[0]) == 2 && of(&ids[1]) == 2).then_some(()));
    assert!(both.is_some(), "{:?}", kept(home.path()));
    assert_eq!(of(&ids[2]), 0);
    assert!(kept(home.path()).len() <= 6, "each keeps its own: {:?}", kept(home.path()));
}

fn put(daemon: &Daemon, key: &str) {
    assert_eq!(ctl(&daemon.endpoint(), &["put", key, "value"]).as_deref(), Ok("OK"));
}

/// The snapshots there are, oldest first.
fn kept(place: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
    let mut kept: Vec<_> = entries.map(|entry| entry.expect("a name").path()).collect();
    kept.retain(|path| path.extension().is_some_and(|extension| extension == "db"));
    kept.sort();
    kept
}

/// The member may remove a file any time.
fn copy_of_newest(place: &Path, to: &Path) -> Option<PathBuf> {
    let newest = kept(place).pop()?;
    let copy = to.join("copy.db");
    fs::copy(newest, &copy).ok()?;
    Some(copy)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the tool starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn field(line: &str, at: usize) -> String {
    line.split(',').nth(at).unwrap_or_default().trim().to_owned()
}

/// A metric that counts whole things; large ones are written with an exponent.
fn metric(daemon: &Daemon, name: &str) -> u64 {
    let text = http::get(daemon.client, "/metrics").expect("metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    let value: f64 = line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}"));
    format!("{value:.0}").parse().expect("a whole number")
}

fn unix_now() -> u64 {
    let text = run(Command::new("date").arg("+%s"));
    text.trim().parse().expect("seconds")
}

/// A small disk; unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(place: &Path, size: &str) -> Self {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(place));
        Self(place.to_owned())
    }

    /// Waits for a moment in which nothing is written.
    fn read_only(&self) {
        let mut remount = Command::new("mount");
        remount.args(["-o", "remount,ro"]).arg(&self.0);
        let done = wait_for(PATIENCE, || remount.output().expect("mount runs").status.success().then_some(()));
        assert!(done.is_some(), "{remount:?}");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: the member may hold a file of it.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}
