//! `diff` and `history` tell the past as far as it is kept, at our daemon and at etcd alike.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use support::{daemon::Daemon, program::Program};

/// Output, what was told beside it, and the exit code.
fn ctl(daemon: &Daemon, words: &[&str]) -> (String, String, i32) {
    let mut command = Program::quoratectl().command();
    let output = command.args(["--endpoints", &daemon.endpoint()]).args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

fn said(daemon: &Daemon, words: &[&str]) -> String {
    let (stdout, stderr, exit) = ctl(daemon, words);
    assert_eq!((stderr.as_str(), exit), ("", 0), "{words:?}");
    stdout
}

fn refused(daemon: &Daemon, words: &[&str]) -> String {
    let (stdout, stderr, exit) = ctl(daemon, words);
    assert_eq!((stdout.as_str(), exit), ("", 1), "{words:?}");
    // Before it the client tells in a log line what the member answered, as etcd's does.
    stderr.lines().last().unwrap_or_default().to_owned()
}

/// Revisions 2 to 9.
const WRITES: [&[&str]; 8] = [
    &["put", "a", "1"],
    &["put", "b", "1"],
    &["put", "a", "2"],
    &["put", "c", "1"],
    &["del", "b"],
    &["put", "a", "2"],
    &["del", "a"],
    &["put", "a", "3"],
];

fn tells_the_past(program: &Program) {
    let daemon = Daemon::start(program, &[]);
    for words in WRITES {
        said(&daemon, words);
    }
    let history = "2, created, 1, 0000000000000000, \"1\"\n4, changed, 2, 0000000000000000, \"2\"\n\
                   7, changed, 3, 0000000000000000, \"2\"\n8, deleted\n9, created, 1, 0000000000000000, \"3\"\n";
    assert_eq!(said(&daemon, &["history", "a"]), history);
    assert_eq!(said(&daemon, &["history", "b"]), "3, created, 1, 0000000000000000, \"1\"\n6, deleted\n");
    assert_eq!(said(&daemon, &["history", "nothing"]), "");
    let json = said(&daemon, &["history", "b", "-w", "json"]);
    let last = r#"{"type":1,"kv":{"key":"Yg==","mod_revision":6}}"#;
    assert_eq!(json.lines().last(), Some(last));

    assert_eq!(said(&daemon, &["diff", "3", "5"]), "~ \"a\" = \"1\" -> \"2\"\n+ \"c\" = \"1\"\n");
    assert_eq!(said(&daemon, &["diff", "5", "3"]), "~ \"a\" = \"2\" -> \"1\"\n- \"c\" = \"1\"\n");
    assert_eq!(said(&daemon, &["diff", "5", "0", "--keys-only"]), "~ \"a\"\n- \"b\"\n");
    assert_eq!(said(&daemon, &["diff", "3", "0", "c"]), "+ \"c\" = \"1\"\n");
    assert_eq!(said(&daemon, &["diff", "5", "5"]), "");
    let json = said(&daemon, &["diff", "5", "6", "-w", "json"]);
    let removed = r#"{"change":"removed","before":{"key":"Yg==","create_revision":3,"mod_revision":3,"version":1,"value":"MQ=="}}"#;
    assert_eq!(json.trim_end(), removed);
    let future = refused(&daemon, &["diff", "5", "10"]);
    assert_eq!(future, "Error: revision 10 is still to come: the present one is 9");

    said(&daemon, &["compaction", "7"]);
    let (rest, note, exit) = ctl(&daemon, &["history", "a"]);
    let kept = "7, changed, 3, 0000000000000000, \"2\"\n8, deleted\n9, created, 1, 0000000000000000, \"3\"\n";
    assert_eq!((rest.as_str(), exit), (kept, 0));
    let compacted = "changes before revision 7 have been compacted\n";
    assert_eq!(note, compacted);
    // Nothing was shown of a key that has not changed since.
    let kept = ("5, created, 1, 0000000000000000, \"1\"\n".to_owned(), compacted.to_owned(), 0);
    assert_eq!(ctl(&daemon, &["history", "c"]), kept);
    assert_eq!(ctl(&daemon, &["history", "b"]), (String::new(), compacted.to_owned(), 0));
    assert_eq!(said(&daemon, &["diff", "7", "9"]), "~ \"a\" = \"2\" -> \"3\"\n");
    let gone = refused(&daemon, &["diff", "5", "9"]);
    assert_eq!(gone, "Error: revision 5 has been compacted: the oldest one that can be read is 7");
    said(&daemon, &["put", "c", "2"]);
    let kept = kept.0 + "10, changed, 2, 0000000000000000, \"2\"\n";
    assert_eq!(ctl(&daemon, &["history", "c"]), (kept, compacted.to_owned(), 0));
}

/// Takes one connection to `daemon`, whose history is compacted a little further each time before the client is heard.
fn compacting(daemon: &Daemon, revisions: std::ops::Range<i64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (endpoint, direct) = (listener.local_addr().unwrap().to_string(), daemon.endpoint());
    let member = daemon.client;
    thread::spawn(move || {
        let near = listener.accept().unwrap().0;
        let far = TcpStream::connect(member).unwrap();
        let (mut from, mut to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from, &mut to));
        let (mut from, mut to, mut revisions) = (near, far, revisions);
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if let Some(revision) = revisions.next() {
                let words = ["--endpoints", &direct, "compaction", &revision.to_string()];
                assert!(Program::quoratectl().command().args(words).output().unwrap().status.success());
            }
            to.write_all(buffer.get(..count).unwrap()).unwrap();
        }
    });
    endpoint
}

/// What was to be read is compacted meanwhile, again and again: that was an error, or the end in silence.
#[test]
fn a_history_begins_anew_when_it_is_compacted_meanwhile() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    for value in 2..=40 {
        said(&daemon, &["put", "a", &value.to_string()]);
    }
    let endpoint = compacting(&daemon, 3..30);
    let output = Program::quoratectl().command().args(["--endpoints", &endpoint, "history", "a"]).output().unwrap();
    let [told, notes] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{notes}");
    assert!(notes.matches("have been compacted").count() > 1, "{notes}");
    let shown: Vec<i64> = told.lines().map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
    assert!(shown.is_sorted_by(|one, next| one < next) && shown.last() == Some(&40), "{told}");
    let last: i64 = notes.lines().last().unwrap().split(' ').nth(3).unwrap().parse().unwrap();
    assert!((last..=40).all(|revision| shown.contains(&revision)), "{notes}{told}");
}

#[test]
fn our_daemon_tells_the_past() {
    tells_the_past(&Program::subject());
}

#[test]
fn etcd_tells_the_past_alike() {
    tells_the_past(&Program::etcd());
}

/// More keys than a page holds.
#[test]
fn long_differences_are_told_whole() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    let lines: Vec<String> = (0..100).map(|n| format!("put k/{n:04} v\n")).collect();
    for hundred in 0..12 {
        let block = lines.concat().replace("k/", &format!("k/{hundred:02}/"));
        let mut command = Program::quoratectl().command();
        command.args(["--endpoints", &daemon.endpoint(), "txn"]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("\n{block}\n\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(said(&daemon, &["diff", "1", "0", "--keys-only", "k/"]).lines().count(), 1_200);
    assert_eq!(said(&daemon, &["diff", "2", "13", "--keys-only"]).lines().count(), 1_100);
}
