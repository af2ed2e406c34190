//! The shells take the completion scripts, and offer what the programs answer.

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use support::program::Program;
use tempfile::TempDir;

/// Every program by its own name and by etcd's.
const NAMES: [(&str, &str); 3] = [("quorate", "etcd"), ("quoratectl", "etcdctl"), ("quorateutl", "etcdutl")];

/// A directory with the programs under both names.
fn programs() -> TempDir {
    let built = Program::subject().path;
    let dir = tempfile::tempdir().expect("a directory");
    for (own, theirs) in NAMES {
        let program = built.with_file_name(own);
        for name in [own, theirs] {
            std::os::unix::fs::symlink(&program, dir.path().join(name)).expect("a link");
        }
    }
    dir
}

/// What a command printed; it has to succeed and to say nothing else.
fn output(command: &mut Command) -> String {
    let tool = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{tool}: {error}; tests/support/deps.sh test installs it"));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.is_empty(), "{command:?}: {} {told}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// Writes the script of a program into the directory of the programs.
fn script(dir: &Path, name: &str, shell: &str) -> std::path::PathBuf {
    let text = output(Command::new(dir.join(name)).args(["completion", shell]));
    let path = dir.join(format!("{name}.{shell}"));
    fs::write(&path, text).expect("written");
    path
}

/// What bash offers when `line` is typed.
fn bash_offers(dir: &Path, line: &str) -> Vec<String> {
    let name = line.split(' ').next().expect("a name");
    let script = script(dir, name, "bash");
    // As bash calls the function: the command, the word so far as bash parts words, the word before.
    let ask = r#"
        set -u
        . "$1"
        COMP_LINE=$2 COMP_POINT=${#2}
        word=${2##*[ =:]}
        "_$3" "$3" "$word" "" && printf '%s\n' ${COMPREPLY[@]+"${COMPREPLY[@]}"}
    "#;
    let path = format!("{}:{}", dir.display(), support::setting("PATH", String::new()));
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", ask, "bash"]).arg(script).args([line, name]).env("PATH", path);
    output(&mut command).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_offers_commands_flags_and_values_under_every_name() {
    let dir = programs();
    for (line, expected) in [
        ("quoratectl le", vec!["lease"]),
        ("etcdctl endpoint h", vec!["health", "hashkv"]),
        ("etcdctl get foo --print", vec!["--print-value-only"]),
        ("quoratectl --endpoints a,b -w js", vec!["json"]),
        ("quoratectl get --write-out=ta", vec!["table"]),
        ("quoratectl get ", vec![]),
        ("quorateutl vers", vec!["version"]),
        ("etcdutl completion ", vec!["bash", "fish", "powershell", "zsh"]),
        ("quorate config ch", vec!["check"]),
        ("quorate --log-level wa", vec!["warn"]),
        ("etcd --listen-client", vec!["--listen-client-urls", "--listen-client-http-urls"]),
    ] {
        assert_eq!(bash_offers(dir.path(), line), expected, "{line}");
    }
}

#[test]
fn zsh_and_fish_read_their_scripts() {
    let dir = programs();
    for (own, theirs) in NAMES {
        for name in [own, theirs] {
            assert_eq!(output(Command::new("zsh").arg("-n").arg(script(dir.path(), name, "zsh"))), "");
            assert_eq!(output(Command::new("fish").arg("-n").arg(script(dir.path(), name, "fish"))), "");
        }
    }
}

/// There is no PowerShell to run it here: that it is the program's, whole, and asks as the others do.
#[test]
fn powershell_has_a_script_under_every_name() {
    let dir = programs();
    for (own, theirs) in NAMES {
        for name in [own, theirs] {
            for (flags, question) in [(&[][..], " __complete "), (&["--no-descriptions"], " __completeNoDesc ")] {
                let text = output(Command::new(dir.path().join(name)).args(["completion", "powershell"]).args(flags));
                let registers = format!("Register-ArgumentCompleter -Native -CommandName '{name}'");
                assert!(text.contains(&registers) && text.contains(question), "{text}");
                for [open, close] in [['{', '}'], ['(', ')'], ['[', ']']] {
                    assert_eq!(text.matches(open).count(), text.matches(close).count(), "{text}");
                }
            }
        }
    }
}

#[test]
fn fish_offers_with_what_each_does() {
    let dir = programs();
    let ask = format!("source {}; complete -C 'quoratectl lea'", script(dir.path(), "quoratectl", "fish").display());
    let path = format!("{}:{}", dir.path().display(), support::setting("PATH", String::new()));
    let mut command = Command::new("fish");
    command.args(["--no-config", "-c", &ask]).env("PATH", path).env("HOME", dir.path());
    let offers = output(&mut command);
    assert!(offers.starts_with("lease\t") && offers.lines().count() == 1, "{offers}");
}

#[test]
fn a_shell_without_a_script_is_refused_by_the_daemon() {
    let dir = programs();
    let refused = Command::new(dir.path().join("quorate")).args(["completion", "tcsh"]).output().expect("runs");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && told.contains("quorate completion bash|fish|powershell|zsh"), "{told}");
}

#[test]
fn a_shell_without_a_script_is_refused_by_the_tools_as_by_etcds() {
    let dir = programs();
    for (name, words, expected) in [
        ("etcdctl", &["tcsh"][..], "Error: invalid argument \"tcsh\" for \"etcdctl completion\"\nUsage:\n"),
        ("quorateutl", &["tcsh"], "Error: invalid argument \"tcsh\" for \"quorateutl completion\"\nUsage:\n"),
        ("etcdutl", &[], "Error: accepts 1 arg(s), received 0\nUsage:\n"),
        ("quoratectl", &["bash", "zsh"], "Error: accepts 1 arg(s), received 2\nUsage:\n"),
    ] {
        let refused = Command::new(dir.path().join(name)).arg("completion").args(words).output().expect("runs");
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{refused:?}");
        assert!(told.starts_with(expected), "{name} {words:?}: {told}");
    }
}
