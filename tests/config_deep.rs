//! What `config check --deep` says of addresses that are taken: by somebody else, or by the very member that is looked at.

use std::{
    ffi::OsString,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use quorate::{cli, config::Sources, server::DataDir};

/// Exit code and output for a member that serves clients at `url`, with its data in `dir`.
fn check(dir: &Path, url: &str) -> (u8, String) {
    check_with(dir, url, &[])
}

/// [`check`] with more flags.
fn check_with(dir: &Path, url: &str, more: &[&str]) -> (u8, String) {
    let flags = [
        "--name=a",
        "--listen-peer-urls=http://127.0.0.1:0",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=a=http://127.0.0.1:2380",
        &format!("--listen-client-urls={url}"),
        &format!("--advertise-client-urls={url}"),
        &format!("--data-dir={}", dir.display()),
    ];
    let args: Vec<OsString> = ["check", "--deep"].iter().chain(&flags).chain(more).map(OsString::from).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::config::run_on(&Sources::default(), &args, &mut out, &mut err);
    assert!(err.is_empty(), "{}", String::from_utf8_lossy(&err));
    (code, String::from_utf8(out).expect("text"))
}

fn line(out: &str) -> &str {
    out.lines().find(|line| line.contains("listen-client-urls: ")).unwrap_or_else(|| panic!("no line in\n{out}"))
}

/// A system that knows `localhost` as `::1`, too, names that first: the daemon binds 127.0.0.1 all the same.
#[test]
fn localhost_is_tried_where_the_daemon_listens() {
    let place = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://localhost:{}", taken.local_addr().expect("bound").port());
    let (code, out) = check(place.path(), &url);
    assert_eq!(code, 1, "{out}");
    assert!(line(&out).starts_with(&format!("error: listen-client-urls: {url}: address already in use")), "{out}");
}

/// After an edit: the member runs, and somebody else has the address that it is to get.
#[test]
fn the_address_of_another_process_is_not_the_running_members() {
    let place = tempfile::tempdir().expect("a directory");
    drop(DataDir::open(place.path(), None).expect("a new directory"));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", taken.local_addr().expect("bound"));
    // The other side of the pipe ends it with this test.
    let mut member = Command::new("flock");
    member.arg(DataDir::lock_path(place.path())).arg("cat").stdin(Stdio::piped());
    let mut member = member.spawn().expect("util-linux is there");
    while !DataDir::is_in_use(place.path()) {
        assert_eq!(member.try_wait().expect("our child"), None);
        sleep(Duration::from_millis(10));
    }
    let (code, out) = check(place.path(), &url);
    drop(member.stdin.take());
    member.wait().expect("our child");
    let expected = format!(
        "error: listen-client-urls: {url}: address already in use, not by the member that runs in this data directory"
    );
    assert_eq!((code, line(&out)), (1, expected.as_str()), "{out}");
}

/// "Check, then reload" is how a running member is changed.
#[test]
fn the_addresses_of_the_running_member_are_its_own() {
    let place = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", taken.local_addr().expect("bound"));
    let member = DataDir::open(place.path(), None).expect("a new directory");
    let (code, out) = check(place.path(), &url);
    assert_eq!(code, 0, "{out}");
    let expected = format!("ok: listen-client-urls: {url} is in use by the running member of this data directory");
    assert_eq!(line(&out), expected, "{out}");
    drop(member);
    let (code, out) = check(place.path(), &url);
    let expected =
        format!("error: listen-client-urls: {url}: address already in use, and no member runs in this data directory");
    assert_eq!((code, line(&out)), (1, expected.as_str()), "{out}");
}

/// Nobody looks at the directory of snapshots that are not taken; of those that are, it is told before the first one fails.
#[test]
fn the_directory_of_scheduled_snapshots_is_looked_at() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("data");
    let backup = place.path().join("backup");
    std::fs::write(&backup, "no directory").expect("written");
    let named = format!("--snapshot-dir={}", backup.display());
    let url = "http://127.0.0.1:0";
    let (_, out) = check_with(&data, url, &[&named]);
    assert!(!out.contains("snapshot-dir"), "{out}");
    let (code, out) = check_with(&data, url, &[&named, "--snapshot-schedule=6h"]);
    assert!(out.contains(&format!("error: snapshot-dir: {} is no directory", backup.display())), "{out}");
    assert_eq!(code, 1);
    let (_, out) = check_with(&data, url, &["--snapshot-schedule=6h"]);
    let made = format!("snapshot-dir: {} can be made in", data.join("snapshots").display());
    assert!(out.contains(&made), "{out}");
    assert!(!data.exists() && !out.contains("error: snapshot-dir"), "{out}");
}

/// Where the audit log cannot be written, a start would fail.
#[test]
fn the_place_of_the_audit_log_is_looked_at() {
    let place = tempfile::tempdir().expect("a directory");
    let (data, url) = (place.path().join("data"), "http://127.0.0.1:0");
    let said = |path: &Path| check_with(&data, url, &[&format!("--audit-log={}", path.display())]);
    let (code, out) = said(&place.path().join("a/b/audit.log"));
    let told = format!("error: audit-log: {} cannot be written", place.path().join("a/b/audit.log").display());
    assert!(code == 1 && out.contains(&told) && out.contains("make the directory above it"), "{out}");
    let (code, out) = said(place.path());
    assert!(code == 1 && out.contains("name a file, not a directory"), "{out}");
    let (_, out) = said(&place.path().join("a/audit.log"));
    assert!(out.contains(&format!("audit.log can be made in {}", place.path().display())), "{out}");
    assert_eq!(std::fs::read_dir(place.path()).expect("readable").count(), 0, "nothing is left");
}

/// What can be written and is no audit log all the same: names that were meant otherwise, and places that are something else's.
#[test]
fn a_place_of_the_audit_log_that_cannot_be_meant_is_told() {
    let place = tempfile::tempdir().expect("a directory");
    let (data, url) = (place.path().join("data"), "http://127.0.0.1:0");
    let said = |path: &str, more: &[&str]| {
        let (_, out) = check_with(&data, url, &[&[format!("--audit-log={path}").as_str()], more].concat());
        let told = out.lines().filter(|line| line.contains("audit-log: ") && !line.starts_with("ok: "));
        told.map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    let file = |name: &str| place.path().join(name).display().to_string();
    assert_eq!(said(&file("audit.log"), &[]), "");
    let told = said("STDOUT", &[]);
    let expected = "warning: audit-log: STDOUT is a file in the directory in which the daemon is started; write the whole path of a \
                    file; for a stream, stdout or stderr in small letters";
    assert_eq!(told, expected);
    nix::unistd::mkfifo(&place.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let told = said(&file("pipe"), &[]);
    assert!(told.starts_with("warning: ") && told.ends_with("; start its reader ahead of the daemon"), "{told}");
    std::os::unix::fs::symlink(place.path(), place.path().join("link")).expect("a link");
    let told = said(&file("link/x.log"), &[&format!("--log-outputs={}", file("x.log"))]);
    assert!(told.starts_with("error: ") && told.contains("is where the log goes, too (--log-outputs)"), "{told}");
    let told = said(&file("link/data/audit.log"), &[]);
    assert!(told.contains("holds the member's data and nothing else; name a file elsewhere"), "{told}");
}
