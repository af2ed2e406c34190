//! The directories under `examples/` and the first page: what their READMEs tell to type is typed, and what they say is
//! seen is seen.
//!
//! Every ` ```console ` block of a README is a dialogue: `$ ` begins a command, what follows is what it prints, `…` stands for
//! any text and a line of `…` for any lines. All commands of a README go to one shell, in a copy of the directories and in
//! network and process namespaces of their own, so that the ports are those of the README, tests run beside each
//! other and nothing outlives them. Blocks of other kinds are for systemd and Prometheus, which are not here: the
//! unit files are tried by the tests of the packages, and `prometheus.yml` is read by `monitoring.rs`.

mod support;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use support::program::Program;

/// Directories, and the tools besides our own that their commands call, with the Debian packages that have them.
const DIRECTORIES: [(&str, &[(&str, &str)]); 9] = [
    ("single-member", &[]),
    ("three-members", &[]),
    ("several-on-one-host", &[]),
    ("socket-activation", &[("systemd-socket-activate", "systemd")]),
    ("haproxy", &[("haproxy", "haproxy")]),
    ("nginx", &[("nginx", "nginx-light libnginx-mod-stream")]),
    ("monitoring", &[]),
    ("tls", &[("openssl", "openssl")]),
    ("discovery", &[]),
];
/// What every dialogue needs.
const TOOLS: [(&str, &str); 4] =
    [("curl", "curl"), ("ip", "iproute2"), ("unshare", "util-linux"), ("timeout", "coreutils")];
/// Longest time for one README, in seconds.
const LIMIT: &str = "60";
/// What a shell prints before and after the status of each command.
const MARK: &str = "\u{1}";
/// Stands for any text in what a README promises.
const ANY: &str = "…";

#[test]
fn single_member() {
    follow("single-member");
}

#[test]
fn three_members() {
    follow("three-members");
}

#[test]
fn several_on_one_host() {
    follow("several-on-one-host");
}

#[test]
fn socket_activation() {
    follow("socket-activation");
}

#[test]
fn haproxy() {
    follow("haproxy");
}

#[test]
fn nginx() {
    follow("nginx");
}

#[test]
fn discovery() {
    follow("discovery");
}

#[test]
fn monitoring() {
    follow("monitoring");
}

#[test]
fn tls() {
    follow("tls");
}

#[test]
fn first_page() {
    // What installing the package does, or `make run` in another terminal.
    let member = "quorate --data-dir member >member.log 2>&1 & disown; \
        curl --silent --fail --retry 30 --retry-connrefused --retry-delay 1 http://127.0.0.1:2379/health >health";
    converse("README.md", "", member, &[("etcdctl", "etcd-client")]);
}

#[test]
fn every_directory_is_followed_and_tells_its_four_parts() {
    let entries = fs::read_dir(root().join("examples")).expect("examples are there");
    let directories = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_dir());
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    for directory in directories {
        let name = directory.file_name().to_string_lossy().into_owned();
        assert!(DIRECTORIES.iter().any(|(known, _)| *known == name), "no test follows examples/{name}");
        let packed = format!("[\"examples/{name}/*\", \"usr/share/doc/quorate/examples/{name}/\"");
        assert!(manifest.contains(&packed), "the deb lacks examples/{name}");
        let packed = format!("source = \"examples/{name}/*\", dest = \"/usr/share/doc/quorate/examples/{name}/\"");
        assert!(manifest.contains(&packed), "the rpm lacks examples/{name}");
        assert!(!directory.path().join("main.rs").exists(), "examples/{name}: cargo would build it");
        let readme = fs::read_to_string(directory.path().join("README.md"));
        let readme = readme.unwrap_or_else(|error| panic!("examples/{name}/README.md: {error}"));
        for part in ["# ", "## Start", "## See", "## End"] {
            assert!(readme.lines().any(|line| line.starts_with(part)), "examples/{name}/README.md has no {part:?}");
        }
    }
}

#[test]
fn what_differs_from_the_readme_is_found() {
    let all = |promised: &[&str], printed: &str| matches(promised, &printed.lines().collect::<Vec<_>>());
    assert!(all(&["took …ms", "…", "end"], "took 5ms\none\ntwo\nend") && all(&["…", "end"], "end") && all(&[], ""));
    assert!(!all(&["end"], "end\nmore") && !all(&["took …ms"], "took 5s") && !all(&["end"], "") && !all(&[], "more"));
    let dialogue = dialogue("```sh\n$ no\n```\n```console\n$ one \\\n  two\nprinted\n$ three\n```\n");
    assert_eq!(dialogue, [("one \\\n  two".to_owned(), vec!["printed"]), ("three".to_owned(), vec![])]);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Commands and what they promise to print.
fn dialogue(readme: &str) -> Vec<(String, Vec<&str>)> {
    let mut dialogue: Vec<(String, Vec<&str>)> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            dialogue.push((command.to_owned(), Vec::new()));
        } else if let (true, Some((command, printed))) = (inside, dialogue.last_mut()) {
            if command.ends_with('\\') {
                command.push('\n');
                command.push_str(line);
            } else {
                printed.push(line);
            }
        }
    }
    dialogue
}

/// Follows the README of a directory of `examples/`, which ends what it starts.
fn follow(name: &str) {
    let tools = DIRECTORIES.iter().find(|(known, _)| *known == name).expect("a directory of the table").1;
    let directory = format!("examples/{name}");
    let left = converse(&format!("{directory}/README.md"), &directory, "true", tools);
    assert_eq!(left, "/proc/1", "examples/{name}/README.md leaves processes behind");
}

/// Runs all commands of a README in order, in a copy of `examples/`, and compares what each prints; the processes left.
fn converse(file: &str, directory: &str, before: &str, tools: &[(&str, &str)]) -> String {
    for (tool, package) in TOOLS.iter().chain(tools) {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", tool]).env("PATH", path()).output();
        let found = found.expect("a shell").status.success();
        assert!(found, "{tool} is missing: apt-get install {package}");
    }
    let readme = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let dialogue = dialogue(&readme);
    assert!(dialogue.len() > 3, "{file} has too few commands");
    let copy = tempfile::Builder::new().prefix("quorate-example-").tempdir().expect("a temporary directory");
    // With what the links of a directory point at: outside the tree they would lead nowhere.
    let copied = Command::new("cp").arg("-RL").arg(root().join("examples")).arg(copy.path()).status();
    assert!(copied.expect("cp starts").success(), "examples cannot be copied");

    let output = shell(&script(before, &dialogue), &copy.path().join(directory));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut parts = printed.split(MARK);
    for (command, promised) in &dialogue {
        let printed: Vec<_> = parts.next().unwrap_or_default().trim_matches('\n').lines().collect();
        let status = parts.next().unwrap_or("no status: the shell ended or took too long");
        let context = format!("{file}: {command}\nprinted: {printed:#?}\n{said}");
        assert_eq!(status, "0", "{context}");
        assert!(matches(trim(promised), &printed), "promised: {promised:#?}\n{context}");
    }
    parts.next().unwrap_or_default().trim().to_owned()
}

/// The commands for one shell, with its job control as at a terminal, and at last the processes that are there.
fn script(before: &str, dialogue: &[(String, Vec<&str>)]) -> String {
    let before = format!("set -m; ip link set lo up; {before}\n");
    let marked =
        |(command, _): &(String, Vec<&str>)| format!("{command}\nstatus=$?; printf '\\n{MARK}%s{MARK}' \"$status\"\n");
    before + &dialogue.iter().map(marked).collect::<Vec<_>>().concat() + "echo /proc/[0-9]*\n"
}

fn shell(script: &str, directory: &Path) -> std::process::Output {
    // The outer two end everything should the test die or wait too long: the shell is the init of its namespace.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "timeout", "--signal", "KILL", LIMIT]);
    command.args(["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["bash", "--norc", "-c", script]).current_dir(directory);
    command.env("PATH", path()).env("TMPDIR", directory);
    command.stdin(Stdio::null()).output().expect("util-linux is there")
}

/// Our programs before those of the system, and those that only root has in its path.
fn path() -> OsString {
    let own = [Program::subject(), Program::quoratectl()].map(|program| program.path.parent().map(Path::to_owned));
    let system = std::env::var_os("PATH").unwrap_or_default();
    let system = std::env::split_paths(&system).chain(["/usr/sbin".into(), "/sbin".into()]);
    std::env::join_paths(own.into_iter().flatten().chain(system)).expect("no colon in the path of the build")
}

/// Without the empty lines at the end.
fn trim<'a, 'b>(mut lines: &'a [&'b str]) -> &'a [&'b str] {
    while let Some((&"", rest)) = lines.split_last() {
        lines = rest;
    }
    lines
}

fn matches(promised: &[&str], printed: &[&str]) -> bool {
    match promised.split_first() {
        None => printed.is_empty(),
        Some((&ANY, rest)) => {
            (0..=printed.len()).any(|skip| printed.get(skip..).is_some_and(|left| matches(rest, left)))
        }
        Some((line, rest)) => {
            printed.split_first().is_some_and(|(first, left)| like(line, first) && matches(rest, left))
        }
    }
}

/// Whether a line is what a README promises, `…` being any text.
fn like(promised: &str, printed: &str) -> bool {
    match promised.split_once(ANY) {
        None => promised == printed,
        Some((before, after)) => printed.strip_prefix(before).is_some_and(|left| {
            left.char_indices()
                .map(|(at, _)| at)
                .chain([left.len()])
                .any(|at| left.get(at..).is_some_and(|left| like(after, left)))
        }),
    }
}
