//! Holds the code to its own picture: modules stand on floors, build only on the floors beneath them, and every outside
//! crate has one home.
//!
//! The test reads the sources as text. It strips comments, literals and test code, collects every path that starts with
//! `crate::`, and compares what it finds with the tables below. A new module must be given a floor here before it
//! compiles into anything; the self-tests at the end prove that the reader sees what it should.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by floor, lowest first.
const FLOORS: [&[&str]; 7] = [
    &["types", "pb", "codec", "clock", "metrics", "disk"],
    &["storage", "wal", "etcdfile", "config", "tls", "audit"],
    &["raft", "mvcc", "lease", "auth", "membership", "watch", "v2store", "concurrency"],
    &["apply"],
    &["server", "transport", "client", "spans"],
    &["api", "discovery", "proxy"],
    &["daemon", "cli"],
];

/// The only edges allowed within one floor. `clock` speaks in the units of `types`; the daemon's executable carries the
/// sub-commands of `cli`; the gRPC proxy speaks with its clients through the wire of `api`.
const SAME_FLOOR: [(&str, &str); 6] = [
    ("watch", "mvcc"),
    ("server", "transport"),
    ("clock", "types"),
    ("daemon", "cli"),
    ("proxy", "api"),
    ("discovery", "api"),
];

/// Outside crates and the only modules that may name them.
const HOMES: [(&str, &[&str]); 19] = [
    ("fjall", &["storage"]),
    ("raft", &["raft"]),
    ("tonic", &["pb", "api", "transport", "client", "proxy", "spans"]),
    ("axum", &["api"]),
    ("figment", &["config"]),
    ("systemd", &["daemon"]),
    ("clap", &["config", "cli"]),
    ("rustls", &["tls"]),
    ("tokio_rustls", &["tls"]),
    ("rustls_native_certs", &["tls"]),
    ("webpki", &["tls"]),
    ("x509_parser", &["tls"]),
    ("rcgen", &["tls"]),
    ("ratatui", &["cli"]),
    ("ring", &["tls"]),
    ("p521", &["tls"]),
    ("opentelemetry", &["spans"]),
    ("opentelemetry_proto", &["spans"]),
    ("opentelemetry_sdk", &["spans"]),
];

/// Floors whose modules are plain synchronous values.
const SYNCHRONOUS: [usize; 3] = [0, 2, 3];
/// Floor 0 modules that exist to wrap what the others may not touch: time, chance, files, generated service code.
const WRAPPERS: [&str; 3] = ["clock", "disk", "pb"];
/// What a synchronous module may not name.
const FORBIDDEN: [&str; 8] = [
    "std::thread",
    "std::net",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio::",
    "getrandom::",
    "rand::",
    "async fn",
];

/// The only files that read the wall clock, and what for. It may jump by hours at any time.
const WALL_CLOCK: [(&str, &str); 19] = [
    ("api/audit/mod.rs", "lines of the audit log"),
    ("api/v3/slow.rs", "a log line: when a slow call began"),
    ("audit/aside.rs", "how long ago a log file was set aside, of which its own time tells"),
    ("cli/config/certificates.rs", "whether a certificate has ended"),
    ("cli/ctl/doctor/look.rs", "how far the clocks of members are from this machine's"),
    ("cli/log.rs", "log lines"),
    ("clock/mod.rs", "the clock itself"),
    ("daemon/logging.rs", "log lines"),
    ("discovery/service/mod.rs", "the page: how long ago a member registered"),
    ("discovery/service/v3.rs", "what the page shows: when a member registered"),
    ("server/apply_thread.rs", "a metric: when history was last compacted"),
    ("server/login.rs", "the end of a JSON web token, a time of day that all who read it compare"),
    (
        "server/reconfigure.rs",
        "the identifier of a new member; one that was there before is refused by all members alike",
    ),
    (
        "server/snapshots/scheduled.rs",
        "what a snapshot file is called, and after a start how long ago the last one was taken",
    ),
    ("server/v2/mod.rs", "when nodes of the v2 tree expire: clients are told a time of day"),
    ("tls/expiry.rs", "whether a certificate ends soon"),
    ("tls/kept.rs", "whether a file was changed just now"),
    ("tls/selfsigned.rs", "the dates in a certificate"),
    ("transport/probe.rs", "the answer to a probe, and the warning that clocks differ"),
];

/// One source file without comments, literals and test code.
struct Source {
    module: String,
    path: PathBuf,
    text: String,
}

#[test]
fn every_module_has_a_floor() {
    let missing: BTreeSet<_> = sources().into_iter().map(|s| s.module).filter(|m| floor(m).is_none()).collect();
    assert!(missing.is_empty(), "modules without a floor in tests/floors.rs: {missing:?}");
}

#[test]
fn modules_build_only_on_lower_floors() {
    let wrong: Vec<_> = edges(&sources())
        .into_iter()
        .filter(|((from, to), _)| !allowed(from, to))
        .map(|((from, to), path)| format!("{from} -> {to} in {}", path.display()))
        .collect();
    assert!(wrong.is_empty(), "edges against the floors:\n{}", wrong.join("\n"));
}

#[test]
fn modules_form_no_cycle() {
    let mut edges: BTreeSet<_> = edges(&sources()).into_keys().collect();
    loop {
        let sources: BTreeSet<_> = edges.iter().map(|(from, _)| from.clone()).collect();
        let before = edges.len();
        edges.retain(|(_, to)| sources.contains(to));
        if edges.len() == before {
            break;
        }
    }
    assert!(edges.is_empty(), "modules on a cycle or behind one: {edges:?}");
}

#[test]
fn outside_crates_stay_at_home() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, homes) in HOMES {
            if names_crate(&source.text, name) && !homes.contains(&source.module.as_str()) {
                wrong.push(format!("{name} in {} (home: {homes:?})", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "outside crates away from home:\n{}", wrong.join("\n"));
}

#[test]
fn every_dependency_has_a_row_in_the_architecture() {
    let read = |name: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a text");
    let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
    let page = read("ARCHITECTURE.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let told: Vec<&str> = rows.flat_map(|names| names.split(", ")).collect();
    let of = |table: &toml::Table, key: &str| -> Vec<String> {
        table.get(key).and_then(toml::Value::as_table).map(|names| names.keys().cloned().collect()).unwrap_or_default()
    };
    let kinds = ["dependencies", "build-dependencies", "dev-dependencies"];
    let mut missing: Vec<String> = kinds.iter().flat_map(|kind| of(&manifest, kind)).collect();
    missing.retain(|name| !told.contains(&name.as_str()));
    assert!(missing.is_empty(), "dependencies without a row: {missing:?}");
}

#[test]
fn deciding_floors_are_synchronous() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| decides(&s.module)) {
        for word in FORBIDDEN.iter().filter(|word| names_path(&source.text, word)) {
            wrong.push(format!("`{word}` in {}", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "clock, chance, sockets or tasks on floors {SYNCHRONOUS:?}:\n{}", wrong.join("\n"));
}

/// Whoever sets a clock moves nothing but what is shown: time to live, elections and time-outs count on the other clock.
#[test]
fn wall_clock_decides_nothing() {
    let reads_it = |source: &&Source| source.text.contains(".wall()") || names_path(&source.text, "SystemTime::now");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let found: Vec<_> = sources().iter().filter(reads_it).map(|s| inner(&root, &s.path)).collect();
    let known: Vec<_> = WALL_CLOCK.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(found, known, "files that read the wall clock, and those that may");
}

/// A line break that is taken out of a literal without its `\` leaves the indentation in what people read.
#[test]
fn messages_have_no_runs_of_blanks() {
    let mut wrong = Vec::new();
    for path in files() {
        let text = fs::read_to_string(&path).expect("sources are UTF-8");
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let spaced = literals(code).into_iter().filter(|literal| has_run_of_blanks(literal));
        wrong.extend(spaced.map(|literal| format!("{}: {literal}", path.display())));
    }
    assert!(wrong.is_empty(), "runs of blanks in what people read:\n{}", wrong.join("\n"));
}

/// Whether words of one line are more than one blank apart. Columns are not words: what is put into them begins with a `{`.
fn has_run_of_blanks(literal: &str) -> bool {
    let ends_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ",;.)".contains(c);
    let begins_word = |c: char| c.is_ascii_alphabetic() || "({-".contains(c);
    literal.match_indices("  ").any(|(at, _)| {
        let (before, behind) = literal.split_at(at);
        before.ends_with(ends_word) && behind.trim_start_matches(' ').starts_with(begins_word)
    })
}

/// The contents of the double-quoted literals in `text`, as the compiler reads their line ends.
fn literals(text: &str) -> Vec<String> {
    let (mut found, mut rest, mut before) = (Vec::new(), text, None);
    while let Some(next) = rest.chars().next() {
        let length = literal_length(rest, before).max(next.len_utf8());
        let (piece, tail) = rest.split_at(length);
        if let Some(quoted) = piece.strip_prefix('"').and_then(|piece| piece.strip_suffix('"')) {
            found.push(continued(quoted).replace("\\n", "\n"));
        }
        (rest, before) = (tail, piece.chars().next_back());
    }
    found
}

/// `literal` without what a `\` at the end of a line takes away.
fn continued(literal: &str) -> String {
    let mut lines = literal.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

fn inner(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).expect("collected under root").to_string_lossy().into_owned()
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|names| names.contains(&module))
}

fn allowed(from: &str, to: &str) -> bool {
    from == to || floor(from) > floor(to) || SAME_FLOOR.contains(&(from, to))
}

fn decides(module: &str) -> bool {
    floor(module).is_some_and(|floor| SYNCHRONOUS.contains(&floor)) && !WRAPPERS.contains(&module)
}

/// Every edge between modules, with one file that holds it.
fn edges(sources: &[Source]) -> BTreeMap<(String, String), PathBuf> {
    let mut found = BTreeMap::new();
    for source in sources {
        for target in crate_paths(&source.text).into_iter().filter(|to| floor(to).is_some() && *to != source.module) {
            found.insert((source.module.clone(), target), source.path.clone());
        }
    }
    found
}

/// Reads every module under `src/`; the binaries and `lib.rs` stand above all floors and are left out.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    files().into_iter().filter_map(|path| read(&root, path)).collect()
}

/// Every file of Rust under `src/`, in their order.
fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(!files.is_empty(), "no sources under {}", root.display());
    files
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(root: &Path, path: PathBuf) -> Option<Source> {
    let inner = path.strip_prefix(root).expect("collected under root");
    let first = inner.components().next().expect("a file has a name").as_os_str().to_string_lossy().into_owned();
    let module = first.trim_end_matches(".rs").to_owned();
    let is_test = inner.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests.rs" | "tests")));
    if is_test || ["lib", "main", "bin"].contains(&module.as_str()) {
        return None;
    }
    let text = without_tests(&without_comments(&fs::read_to_string(&path).expect("sources are UTF-8")));
    Some(Source { module, path, text })
}

/// Blanks comments, string and character literals, so that prose is not taken for code.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skip = literal_length(rest, out.chars().next_back());
        if skip > 0 {
            out.push(' ');
            rest = rest.get(skip..).unwrap_or_default();
        } else {
            out.push(next);
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
        }
    }
    out
}

/// Bytes of the comment or literal that `rest` begins with; 0 if it begins with code.
fn literal_length(rest: &str, before: Option<char>) -> usize {
    let inside_word = before.is_some_and(is_word);
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    if rest.starts_with('"') {
        return quoted_length(rest);
    }
    if !inside_word && (rest.starts_with("r\"") || rest.starts_with("r#\"")) {
        let close = if rest.starts_with("r#") { "\"#" } else { "\"" };
        let open = close.len() + 1;
        return rest.get(open..).and_then(|body| body.find(close)).map_or(rest.len(), |end| open + end + close.len());
    }
    character_length(rest)
}

/// Bytes of the double-quoted literal at the start of `rest`.
fn quoted_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Bytes of the character literal at the start of `rest`; a lifetime is none.
fn character_length(rest: &str) -> usize {
    let mut chars = rest.char_indices();
    if chars.next().map(|(_, c)| c) != Some('\'') {
        return 0;
    }
    match chars.next() {
        Some((_, '\\')) => rest.get(3..).and_then(|tail| tail.find('\'')).map_or(0, |end| 3 + end + 1),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

/// Removes every item behind a `#[cfg(test)]`.
fn without_tests(text: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let (code, tail) = rest.split_at(at);
        out.push_str(code);
        let tail = tail.trim_start_matches(MARK);
        rest = tail.get(item_length(tail)..).unwrap_or_default();
    }
    out + rest
}

/// Bytes up to the end of the first item in `text`: its `;` or its closing brace.
fn item_length(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// First segments of every path that starts with `crate::`, groups included.
fn crate_paths(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, mark) in text.match_indices("crate::") {
        if text.get(..at).and_then(|head| head.chars().next_back()).is_some_and(|c| is_word(c) || c == '$') {
            continue;
        }
        let tail = text.get(at + mark.len()..).unwrap_or_default();
        match tail.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group)),
            None => found.extend(word(tail)),
        }
    }
    found
}

/// First segments of the members of a `{a::b, c, d::{e}}` group, given behind its opening brace.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0_usize;
    let mut fresh = true;
    for (at, c) in group.char_indices() {
        match c {
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            '{' => depth += 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && is_word(c) => {
                heads.extend(word(group.get(at..).unwrap_or_default()));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| is_word(*c)).collect();
    (!word.is_empty()).then_some(word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `text` names the outside crate `name`: in a `use`, or as the head of a path that nothing local shadows.
fn names_crate(text: &str, name: &str) -> bool {
    let uses = [format!("use {name}::"), format!("use {name};"), format!("use ::{name}"), format!("use {name} as ")];
    if uses.iter().any(|pattern| text.contains(pattern)) {
        return true;
    }
    names_path(text, &format!("{name}::")) && !shadowed(text, name)
}

/// Whether the file declares a module `name` or imports one from this crate.
fn shadowed(text: &str, name: &str) -> bool {
    let imported = text.split(';').any(|statement| {
        let from_here = ["use crate::", "use super::", "use self::"].iter().any(|start| statement.contains(start));
        from_here && statement.split(|c| !is_word(c)).any(|part| part == name)
    });
    imported || text.contains(&format!("mod {name};")) || text.contains(&format!("mod {name} {{"))
}

/// Whether `path` occurs in `text` on its own, not as the tail of a longer path or word.
fn names_path(text: &str, path: &str) -> bool {
    text.match_indices(path).any(|(at, _)| {
        let before = text.get(..at).unwrap_or_default().chars().next_back();
        before.is_none_or(|c| !is_word(c) && c != ':' && c != '.')
    })
}

#[test]
fn reader_sees_plain_grouped_and_inline_paths() {
    let text =
        "use crate::storage::Engine; use crate::{types::{Term, Revision}, pb, wal::Wal}; let x = crate::mvcc::a();";
    assert_eq!(crate_paths(text), ["storage", "types", "pb", "wal", "mvcc"].map(String::from).into());
}

#[test]
fn reader_skips_prose_literals_and_test_code() {
    let text = r#"
        /// [`crate::daemon::X`]
        const A: &str = "crate::api \" crate::api";
        fn f<'a>(c: char) -> bool { c == '"' || c == '\'' } // crate::cli
        #[cfg(test)]
        mod tests { use crate::server::S; fn g() { {} } }
        use crate::types::Term;
    "#;
    assert_eq!(crate_paths(&without_tests(&without_comments(text))), ["types"].map(String::from).into());
}

#[test]
fn reader_sees_blanks_inside_messages_alone() {
    let text = "f(\"one \\\n      two\\n    three\", '\"', \"{a:3}   {b}\"); // \"no  message\"\ng(\"or the\n    member\", \"or the    member\")";
    let found = literals(text);
    assert_eq!(found, ["one two\n    three", "{a:3}   {b}", "or the\n    member", "or the    member"]);
    let spaced: Vec<_> = found.iter().filter(|literal| has_run_of_blanks(literal)).collect();
    assert_eq!(spaced, ["or the    member"]);
}

#[test]
fn upward_and_sideways_edges_are_refused() {
    assert!(!allowed("mvcc", "apply"), "upward");
    assert!(!allowed("raft", "mvcc"), "sideways");
    assert!(!allowed("mvcc", "watch"), "the allowed pair has a direction");
    assert!(allowed("watch", "mvcc") && allowed("server", "transport") && allowed("apply", "types"));
}

#[test]
fn a_local_module_is_not_the_crate_of_the_same_name() {
    assert!(names_crate("use raft::RawNode;", "raft"));
    assert!(names_crate("let x = raft::Config::default();", "raft"));
    assert!(!names_crate("use crate::raft; fn f(m: raft::Member) {}", "raft"));
    assert!(!names_crate("use crate::pb::raft::Entry; fn f() { crate::raft::go() }", "raft"));
}
