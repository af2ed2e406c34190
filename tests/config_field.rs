//! Configurations as they stand in the field, each in `tests/config/field`, load with the meaning etcd gives them, and
//! survive the way through every form. What each means and what is to be said of it stands beside it, as `NAME.expected`;
//! `UPDATE_EXPECTED=1` writes it anew.

#[path = "support/corpus.rs"]
mod corpus;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use corpus::configurations;
use quorate::{cli, config::Sources};
use tempfile::TempDir;

const FIELD: &str = "tests/config/field";

/// What a command says: its exit code, its answer, its remarks.
struct Said {
    code: u8,
    out: String,
    err: String,
}

fn config(words: &[&str]) -> Said {
    let args: Vec<OsString> = words.iter().map(OsString::from).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::config::run_on(&Sources::default(), &args, &mut out, &mut err);
    Said { code, out: String::from_utf8(out).expect("text"), err: String::from_utf8(err).expect("text") }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

/// What a file sets, whatever its form; equal texts are equal configurations.
fn meaning(path: &Path) -> String {
    let said = config(&["show", "--set", "--format=json", text(path)]);
    assert_eq!(said.code, 0, "{}: {}", path.display(), said.err);
    said.out
}

#[test]
fn every_file_of_the_field_loads_with_its_meaning() {
    let paths = configurations(FIELD);
    assert!(paths.len() >= 30, "{} files", paths.len());
    for path in paths {
        let shown = config(&["show", "--set", "--origin", text(&path)]);
        assert_eq!(shown.code, 0, "{}: {}", path.display(), shown.err);
        let checked = config(&["check", text(&path)]);
        let lacks = checked.out.lines().filter(|line| line.starts_with("error: "));
        assert!(lacks.clone().all(|line| line.contains("does not have")), "{}: {}", path.display(), checked.out);
        assert_eq!(checked.code, u8::from(lacks.count() > 0), "{}: {}", path.display(), checked.out);
        let said = format!("$ config show --set --origin\n{}\n$ config check\n{}", shown.out, checked.out);
        let expected = path.with_file_name(format!("{}.expected", path.file_name().expect("a file").display()));
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &said).expect("written");
        }
        assert_eq!(said, fs::read_to_string(&expected).expect("an expectation"), "{}", path.display());
    }
}

/// Writes `from` in another form and gives the file, or what that form has no place for.
fn converted(from: &Path, to: &str, place: &TempDir, step: usize) -> Result<PathBuf, String> {
    let said = config(&["convert", "--to", to, text(from)]);
    if said.code != 0 {
        assert!(
            said.out.is_empty() && said.err.lines().all(|line| line.ends_with("; choose another form")),
            "{}",
            said.err
        );
        return Err(said.err);
    }
    let path = place.path().join(format!("{step}.{to}"));
    fs::write(&path, said.out).expect("written");
    Ok(path)
}

/// Forms in turn: every step from one to another is among them.
const ROUND: [&str; 21] = [
    "env", "json", "flags", "json", "yaml", "json", "toml", "json", "env", "flags", "yaml", "flags", "toml", "flags",
    "env", "yaml", "toml", "yaml", "env", "toml", "env",
];

/// Every form in turn, the one that loses something skipped; the same is set at every step.
fn goes_round(path: &Path) -> Vec<String> {
    let place = tempfile::tempdir().expect("a directory");
    let meant = meaning(path);
    let (mut at, mut lost) = (path.to_owned(), Vec::new());
    for (step, to) in ROUND.iter().enumerate() {
        match converted(&at, to, &place, step) {
            Ok(next) => {
                assert_eq!(
                    meaning(&next),
                    meant,
                    "{} as {to}:\n{}",
                    path.display(),
                    fs::read_to_string(&next).expect("text")
                );
                at = next;
            }
            Err(why) => lost.push(why),
        }
    }
    lost
}

#[test]
fn every_file_of_the_field_goes_round_through_every_form() {
    for path in configurations(FIELD) {
        let lost = goes_round(&path);
        let holds_empty_values = path.ends_with("quorate_cluster.toml");
        assert_eq!(lost.is_empty(), !holds_empty_values, "{}: {lost:?}", path.display());
    }
}

#[test]
fn the_round_goes_from_every_form_to_every_other() {
    let steps: BTreeSet<_> = ROUND.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let forms: BTreeSet<_> = ROUND.into_iter().collect();
    assert_eq!((forms.len(), steps.len()), (5, 5 * 4));
}

#[test]
fn broken_files_are_not_converted() {
    let mut seen = 0;
    for entry in fs::read_dir("tests/config/broken").expect("the corpus") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "expected") {
            continue;
        }
        let said = config(&["convert", "--to=toml", text(&path)]);
        let is_whole = said.code == 0 && config(&["check", text(&path)]).out.contains("does not have");
        assert!(
            is_whole || (said.out.is_empty() && said.err.starts_with("error: ")),
            "{}: {}",
            path.display(),
            said.err
        );
        seen += 1;
    }
    assert!(seen >= 40, "{seen} files");
}

fn written(place: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = place.path().join(name);
    fs::write(&path, text).expect("written");
    path
}

#[test]
fn what_is_hard_to_write_goes_round() {
    let place = tempfile::tempdir().expect("a directory");
    let toml = "name = \"it's a \\\"name\\\" \\\\ #1 ; $HOME `x` %h é\"\ninitial-cluster-token = \"two\\nlines\\tand \\u2028\"\n\
                data-dir = \" leading and trailing \"\nwal-dir = \"=\"\npre-vote = false\nquota-backend-bytes = -9223372036854775808\n\
                max-concurrent-streams = 4294967295\ngrpc-keepalive-min-time = \"1ns\"\ncorrupt-check-time = 0\n\
                grpc-keepalive-interval = \"2562047h47m16.854775807s\"\n\
                listen-peer-urls = [\"http://[::1]:1\", \"http://127.0.0.1:2\"]\nlog-outputs = [\"/a b\", \"/c'd\"]\n\
                log-rotation-config-json = '{\"maxsize\": 1}'\nfeature-gates = { AllBeta = false, LeaseCheckpoint = true }\n";
    let path = written(&place, "hard.toml", toml);
    assert_eq!(goes_round(&path), Vec::<String>::new());
}

#[test]
fn what_a_form_cannot_hold_is_said_and_nothing_is_written() {
    let place = tempfile::tempdir().expect("a directory");
    let path = written(&place, "a.toml", "auth-token = \"\"\nname = \"a\\u0007\"\nwal-dir = \"\"\n");
    let said = config(&["convert", "--to=env", text(&path)]);
    let at = path.display();
    let expected = format!(
        "error: {at}:2: name: an environment file cannot hold control characters; choose another form\n\
         error: {at}:1: auth-token: an environment file cannot hold an empty value; choose another form\n"
    );
    assert_eq!((said.code, said.out.as_str(), said.err), (1, "", expected));
    let large = written(&place, "b.yml", "snapshot-count: 18446744073709551615\n");
    assert!(config(&["convert", "--to=toml", text(&large)]).err.contains("TOML has no integers as large as this"));
    assert_eq!(config(&["convert", "--to=env", text(&large)]).out, "ETCD_SNAPSHOT_COUNT=18446744073709551615\n");
}

#[test]
fn what_is_left_out_or_added_is_named() {
    let place = tempfile::tempdir().expect("a directory");
    let env = written(&place, "a.conf", "ETCD_NAME=a\nETCD_SNAPSHOT_COUNTER=5\nETCD_DEBUG=false\nNAME=x\n");
    let at = env.display();
    let said = config(&["convert", "--to=toml", text(&env)]);
    assert_eq!((said.code, said.out.as_str()), (0, "name = \"a\"\n"));
    for part in [
        format!("note: unrecognized environment variable (environment-variable=ETCD_SNAPSHOT_COUNTER=5, origin={at}:2"),
        format!("note: variable without ETCD_ in front has no effect (origin={at}:4"),
        format!("note: {at}:3: debug is left out: it changes nothing"),
    ] {
        assert!(said.err.contains(&part), "{part} in {}", said.err);
    }
    let yaml = written(&place, "b.yml", "listen-client-urls: http://127.0.0.1:1\nwal-dir: ''\n");
    let said = config(&["convert", "--to=env", text(&yaml)]);
    let expected = "ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:1\nETCD_ADVERTISE_CLIENT_URLS=http://localhost:2379\n";
    assert_eq!((said.code, said.out.as_str()), (0, expected));
    assert!(said.err.contains("advertise-client-urls is written although nothing sets it"), "{}", said.err);
    assert!(said.err.contains("wal-dir is left out: empty is its default"), "{}", said.err);
    let flags = config(&["convert", "--to=yaml", "--raft-read-timeout=7s"]);
    assert_eq!(flags.out, "raft-read-timeout: 7000000000\n");
    assert_eq!(flags.err, "note: raft-read-timeout: etcd has no key for it in this file; only quorate reads it\n");
}

#[test]
fn old_names_become_todays() {
    let said = config(&["convert", "--to=env", "--debug", "--experimental-initial-corrupt-check", "--ca-file=/x"]);
    let expected = "ETCD_FEATURE_GATES=InitialCorruptCheck=true\nETCD_CLIENT_CERT_AUTH=true\nETCD_TRUSTED_CA_FILE=/x\nETCD_LOG_LEVEL=debug\n";
    assert_eq!((said.code, said.out.as_str()), (0, expected));
}

#[test]
fn misuse_ends_with_2() {
    for words in [
        &["convert"][..],
        &["convert", "--to=xml"],
        &["convert", "--to=env", "a", "b"],
        &["schema", "x"],
        &["show", "--from=x", "a"],
    ] {
        let said = config(words);
        assert_eq!((said.code, said.out.as_str(), said.err.is_empty()), (2, "", false), "{words:?}");
    }
}
