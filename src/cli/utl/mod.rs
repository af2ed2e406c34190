//! The offline tool: `quorateutl`, and `etcdutl` when called by that name.
//!
//! It reads and makes files and directories that no member uses ([`crate::server::offline`]). Commands of etcd's that are not
//! here are refused by name, so that nobody takes silence for success.

mod export;
mod file;
mod import;
mod restore;
mod snapshot;
mod verify;

use std::{ffi::OsString, path::Path, process::ExitCode};

use super::{
    Program, completion,
    failure::{Exit, Failure},
    general,
    output::{Facts, Format, Style},
    parse::Call,
    report, run,
    table::{Command, Flag, Values},
};
use crate::{
    membership::Version,
    server::{Identity, offline::Source},
};

const WRITE_OUT: Flag =
    Flag::text("write-out", "simple", "form of the answers: fields, json, protobuf, simple or table")
        .short('w')
        .values(Values::FORMS);
const TIMEOUT: Flag =
    Flag::duration("timeout", "10s", "time to wait for the lock of a file or a data directory, 0 means for ever");

pub(super) static ROOT: Command = Command {
    name: "quorateutl",
    about: "The offline tool for data directories and snapshots of Quorate and etcd.",
    inherited: &[WRITE_OUT, TIMEOUT],
    commands: &[
        snapshot::HASH_KV,
        snapshot::SNAPSHOT,
        import::IMPORT,
        export::EXPORT,
        verify::VERIFY,
        verify::DEFRAG,
        verify::MIGRATE,
        completion::COMPLETION,
        general::VERSION,
        general::OPTIONS,
        general::HELP,
    ],
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

/// How the answer to `call` is to be shown.
fn style(call: &Call) -> Result<Style, Failure> {
    let format = Format::named(call.flags.text(&WRITE_OUT));
    let format = format.ok_or_else(|| Failure::new(Exit::BadFeature, "unsupported output format"))?;
    Ok(Style { format, hex: false, values_only: false })
}

/// How facts are to be shown: what cannot be shown is refused before anything is done.
fn style_of_facts(call: &Call) -> Result<Style, Failure> {
    let style = style(call)?;
    match style.format {
        Format::Table | Format::Protobuf => {
            let text = format_args!("{} not supported as output format", call.flags.text(&WRITE_OUT)).to_string();
            Err(Failure::new(Exit::BadFeature, text))
        }
        Format::Simple | Format::Fields | Format::Json => Ok(style),
    }
}

/// The member in a data directory.
fn source<'s>(from: &'s Path, from_wal_dir: Option<&'s Path>) -> Source<'s> {
    Source { from, from_wal_dir, server_version: restore::newest_version() }
}

/// What a report on a member begins with.
fn of_member(identity: &Identity, name: Option<&str>, version: Option<Version>, members: usize) -> Facts {
    let mut facts = Facts::default();
    facts.text("Member", identity.member);
    if let Some(name) = name {
        facts.text("Name", name);
    }
    facts.text("Cluster", identity.cluster);
    facts.text("Version", version.map(|version| version.to_string()).unwrap_or_default());
    facts.number("Members", members as u64);
    facts
}

fn add_hash(facts: &mut Facts, revision: i64, hash: u32) {
    facts.number("Revision", u64::try_from(revision).unwrap_or(0));
    facts.number("Hash", hash.into());
}

/// A version without its patch.
fn short(version: Version) -> String {
    format!("{}.{}", version.major, version.minor)
}

/// Looks at the first word that is a command: behind it, the same words may name files.
fn refuse_missing(words: &[OsString]) -> Result<(), Failure> {
    let is_built = |word: &str| ROOT.commands.iter().any(|command| command.name == word);
    let mut commands = words.iter().filter_map(|word| word.to_str());
    let first = commands.find(|word| MISSING.contains(word) || is_built(word));
    first.filter(|word| MISSING.contains(word)).map_or(Ok(()), |name| {
        let text = format!("the command \"{name}\" is not part of this build yet; nothing was done");
        Err(Failure::new(Exit::Error, text))
    })
}

/// Commands of etcd's offline tool that are not here: a copy of its v2 store.
const MISSING: [&str; 1] = ["backup"];

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
        let refused = refuse_missing(&["-w".into(), "json".into(), "backup".into()]).unwrap_err();
        assert!(refused.exit == Exit::Error && refused.message.unwrap().contains("\"backup\" is not part"));
        assert_eq!(refuse_missing(&["version".into()]), Ok(()));
        assert_eq!(refuse_missing(&["hashkv".into(), "backup".into()]), Ok(()), "a file");
    }
}
