//! The command lines of the client and of the offline tool.
//!
//! Commands, flags and their help are rows of one table (`table`): the parser, the help pages and the usage texts
//! are read from it. What users and scripts of etcd's tools depend on is kept: flags, texts, formats, exit codes.
//! The offline work itself and the talking to members happen on lower floors. Floor 6.
//!
//! Invariants:
//! - Answers go to standard output, everything else to standard error.
//! - A command fails with exactly one `Error:` line, and its exit code says of what kind the failure was.

pub mod completion;
pub mod config;
pub mod ctl;
mod ctl2;
pub mod discovery;
mod failure;
pub mod gateway;
mod general;
mod go_text;
pub mod grpc_proxy;
mod help;
mod log;
pub mod manual;
mod output;
mod parse;
mod password;
mod speak;
mod standin;
mod table;
pub mod utl;

use std::{ffi::OsString, path::Path, process::ExitCode};

use failure::{Exit, Failure};
use parse::{Call, HELP};
use speak::{complain, say};
use table::Command;

/// The name a program goes by, which decides whose words it prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Program {
    /// The name in usage texts.
    name: &'static str,
    /// The version to report.
    version: &'static str,
}

impl Program {
    /// `theirs` if the program was called by that name, else `ours`. Looks at the last part of the path only.
    fn called(argv0: Option<&OsString>, ours: &'static str, theirs: &'static str) -> Self {
        let called = argv0.and_then(|path| Path::new(path).file_name());
        if called.is_some_and(|name| name == theirs) {
            Self { name: theirs, version: ETCD_VERSION }
        } else {
            Self { name: ours, version: env!("CARGO_PKG_VERSION") }
        }
    }
}

/// Runs the command that `words` name and reports how it ended.
fn run(program: Program, root: &'static Command, words: Vec<OsString>) -> ExitCode {
    if completion::is_question(&words) {
        return completion::answer_for_tool(root, &words);
    }
    match parse::parse(program, root, words).and_then(dispatch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

/// A word that is no command is an error only at the top; below, it gets the help page of where it stands.
fn dispatch(call: Call) -> Result<(), Failure> {
    let Some((root, command)) = call.path.first().zip(call.path.last()) else { return Ok(()) };
    let word = call.argument_texts().into_iter().next().filter(|_| call.path.len() == 1);
    match (command.run, word) {
        (Some(run), None) if !call.flags.switch(&HELP) => perform(run(call)),
        (_, Some(word)) if !call.flags.switch(&HELP) => {
            Err(Failure::new(Exit::Error, help::unknown_command(call.program, root, &word)))
        }
        _ => Ok(say(format_args!("{}", help::page(call.program, &call.path)))?),
    }
}

/// One thread is enough: a command waits for the cluster, for a line, or for a child, and rarely for two of them.
fn perform(running: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(running);
    // A child that is still being waited for must not hold up the end.
    runtime.shutdown_background();
    outcome
}

fn report(failure: &Failure) -> ExitCode {
    if let Some(message) = &failure.message {
        complain(format_args!("Error: {message}"));
    }
    if let Some(usage) = &failure.usage {
        complain(usage);
    }
    ExitCode::from(failure.exit.code())
}

/// The version of etcd whose command lines these are.
const ETCD_VERSION: &str = "3.7.1";
/// The version of the API that the tools speak.
const API_VERSION: &str = "3.7";
/// The version of the API that the client speaks when the environment asks for the old one.
const API_VERSION_2: &str = "2";

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: Program = Program { name: "tool", version: "" };
    static LEASE: Command = Command { name: "lease", commands: &[GRANT], ..Command::EMPTY };
    const GRANT: Command = Command { name: "grant", ..Command::EMPTY };
    static ROOT: Command = Command {
        name: "tool",
        commands: &[Command { name: "lease", commands: &[GRANT], ..Command::EMPTY }],
        ..Command::EMPTY
    };

    fn call(path: Vec<&'static Command>, word: &str) -> Call {
        Call { program: PROGRAM, path, flags: parse::Flags::default(), arguments: vec![word.into()], words: vec![] }
    }

    #[test]
    fn a_word_that_is_no_command_is_an_error_only_at_the_top() {
        let refused = dispatch(call(vec![&ROOT], "foo")).unwrap_err();
        let text = "unknown command \"foo\" for \"tool\"\nRun 'tool --help' for usage.";
        assert_eq!((refused.exit, refused.message.as_deref()), (Exit::Error, Some(text)));
        assert_eq!(dispatch(call(vec![&ROOT, &LEASE], "foo")), Ok(()));
    }

    #[test]
    fn the_name_called_by_decides_the_version_told() {
        let called = |argv0: &str| Program::called(Some(&argv0.into()), "quoratectl", "etcdctl");
        assert_eq!(called("/usr/bin/etcdctl"), Program { name: "etcdctl", version: "3.7.1" });
        assert_eq!(called("quoratectl").name, "quoratectl");
        assert_eq!(called("/opt/etcdctl/other").name, "quoratectl");
    }
}
