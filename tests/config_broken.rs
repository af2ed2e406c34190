//! Every broken configuration of `tests/config/broken` is refused with exit code 1 and one clear line per mistake. What is
//! said stands beside each file, as `NAME.expected`; `UPDATE_EXPECTED=1` writes it anew.

#[path = "support/corpus.rs"]
mod corpus;

use std::{ffi::OsString, fs, path::Path};

use corpus::configurations;
use quorate::{
    cli,
    config::{FILE_BYTES_MAX, Sources},
};

const BROKEN: &str = "tests/config/broken";

/// Runs `config check` on one file, in an empty environment.
fn check(path: &Path) -> (u8, String) {
    let args: Vec<OsString> = vec!["check".into(), path.into()];
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::config::run_on(&Sources::default(), &args, &mut out, &mut err);
    assert_eq!(String::from_utf8_lossy(&err), "", "{}", path.display());
    (code, String::from_utf8(out).expect("text"))
}

#[test]
fn every_broken_file_gets_one_clear_line_per_mistake() {
    let paths = configurations(BROKEN);
    assert!(paths.len() >= 40, "{} files", paths.len());
    for path in paths {
        let (code, out) = check(&path);
        assert_eq!(code, 1, "{}: {out}", path.display());
        let errors = out.lines().filter(|line| line.starts_with("error: ")).count();
        let verdict = if errors == 1 { "1 mistake".to_owned() } else { format!("{errors} mistakes") };
        assert!(out.ends_with(&format!("the configuration is invalid: {verdict}\n")), "{}: {out}", path.display());
        let expected = path.with_file_name(format!("{}.expected", path.file_name().expect("a file").display()));
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &out).expect("written");
        }
        assert_eq!(out, fs::read_to_string(&expected).expect("an expectation"), "{}", path.display());
    }
}

#[test]
fn an_oversized_file_is_refused_by_its_named_limit() {
    let place = tempfile::tempdir().expect("a directory");
    for (name, line) in [("big.env", "# comment\n"), ("big.toml", "# comment\n"), ("big.yml", "# comment\n")] {
        let path = place.path().join(name);
        fs::write(&path, line.repeat(FILE_BYTES_MAX / line.len())).expect("written");
        assert_eq!(check(&path).0, 0, "as large as allowed");
        fs::write(&path, line.repeat(FILE_BYTES_MAX / line.len() + 1)).expect("written");
        let expected = format!("error: {}: the file is larger than {FILE_BYTES_MAX} bytes\n", path.display());
        assert_eq!(check(&path), (1, expected + "the configuration is invalid: 1 mistake\n"));
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let place = tempfile::tempdir().expect("a directory");
    for name in ["missing.env", "missing.toml", "missing.yml"] {
        let path = place.path().join(name);
        let shown = path.display();
        let expected = format!("error: {shown}: open {shown}: no such file or directory\n");
        assert_eq!(check(&path), (1, expected + "the configuration is invalid: 1 mistake\n"));
    }
    assert_eq!(check(place.path()).0, 1);
    for name in ["pipe.env", "pipe.toml", "pipe.yml"] {
        let path = place.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
        let shown = path.display();
        let expected = format!("error: {shown}: read {shown}: is a named pipe\n");
        assert_eq!(check(&path), (1, expected + "the configuration is invalid: 1 mistake\n"));
    }
}

#[test]
fn a_file_whose_name_begins_with_a_dash_may_be_missing() {
    let args: Vec<OsString> = vec!["check".into(), "--env-file=-/nowhere/etcd.conf".into()];
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(cli::config::run_on(&Sources::default(), &args, &mut out, &mut err), 0);
}
