//! Command lines of the daemon's commands that stand in for a cluster: a word, and behind it `start` with its flags.

use std::{ffi::OsString, process::ExitCode};

use super::{
    Program,
    failure::{Exit, Failure},
    help,
    parse::{self, Call, HELP},
    report,
    speak::say,
    table::Command,
};

/// Reads the words behind the command that `name` is, `quorate gateway` for instance.
///
/// # Errors
/// The exit code, after everything was said: help was asked for, or the words are wrong.
pub(super) fn read(name: &'static str, root: &'static Command, words: &[OsString]) -> Result<Call, ExitCode> {
    let program = Program { name, version: env!("CARGO_PKG_VERSION") };
    let call = parse::parse(program, root, words.to_vec()).map_err(|failure| report(&failure))?;
    if call.path.len() < 2 || call.flags.switch(&HELP) {
        return Err(explain(&call));
    }
    if let Some(word) = call.argument_texts().first() {
        let text = format!("unknown command {word:?} for \"{name} start\"");
        return Err(report(&Failure::new(Exit::Error, text)));
    }
    Ok(call)
}

/// The help page; a word that is no command is told of.
fn explain(call: &Call) -> ExitCode {
    let Some((root, command)) = call.path.first().zip(call.path.last()) else { return ExitCode::FAILURE };
    if let Some(word) = call.argument_texts().first().filter(|_| call.path.len() == 1) {
        return report(&Failure::new(Exit::Error, help::unknown_command(call.program, root, word)));
    }
    let said = say(format_args!("{}\n\n{}", command.about, help::usage(call.program, &call.path)));
    said.map_or_else(|error| report(&error.into()), |()| ExitCode::SUCCESS)
}
