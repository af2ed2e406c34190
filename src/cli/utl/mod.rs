//! The offline tool: `quorateutl`, and `etcdutl` when called by that name.
//!
//! So far it tells its version and completes command lines. Commands on snapshots and data directories are refused by name, so that nobody takes
//! silence for success.

use std::{ffi::OsString, process::ExitCode};

use super::{
    Program, completion,
    failure::{Exit, Failure},
    general, report, run,
    table::{Command, Flag, Values},
};

const WRITE_OUT: Flag =
    Flag::text("write-out", "simple", "form of the answers: fields, json, protobuf, simple or table")
        .short('w')
        .values(Values::FORMS);
const TIMEOUT: Flag =
    Flag::duration("timeout", "10s", "time to wait for the lock of a data directory, 0 means for ever");

pub(super) static ROOT: Command = Command {
    name: "quorateutl",
    about: "The offline tool for data directories and snapshots of Quorate and etcd.",
    inherited: &[WRITE_OUT, TIMEOUT],
    commands: &[completion::COMPLETION, general::VERSION, general::OPTIONS, general::HELP],
    ..Command::EMPTY
};

/// Runs the offline tool with the words it was called with, its own name first.
pub fn main(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let program = Program::called(words.next().as_ref(), "quorateutl", "etcdutl");
    let words: Vec<_> = words.collect();
    if completion::is_question(&words) {
        return run(program, &ROOT, words);
    }
    match refuse_missing(&words) {
        Ok(()) => run(program, &ROOT, words),
        Err(failure) => report(&failure),
    }
}

fn refuse_missing(words: &[OsString]) -> Result<(), Failure> {
    let missing = words.iter().filter_map(|word| word.to_str()).find(|word| MISSING.contains(word));
    missing.map_or(Ok(()), |name| {
        let text = format!("the command \"{name}\" is not part of this build yet; nothing was done");
        Err(Failure::new(Exit::Error, text))
    })
}

/// Commands of etcd's offline tool that are still to come.
const MISSING: [&str; 5] = ["snapshot", "defrag", "hashkv", "migrate", "backup"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::tests::check;

    #[test]
    fn the_table_is_sound() {
        check(&ROOT);
    }

    #[test]
    fn what_is_missing_says_so() {
        let refused = refuse_missing(&["-w".into(), "json".into(), "snapshot".into(), "status".into()]).unwrap_err();
        assert!(refused.exit == Exit::Error && refused.message.unwrap().contains("\"snapshot\" is not part"));
        assert_eq!(refuse_missing(&["version".into()]), Ok(()));
    }
}
