//! The client of the v2 API: `ETCDCTL_API=2 quoratectl`, and `etcdctl` when called by that name.
//!
//! Commands, flags, texts, forms and exit codes are those of etcdctl 3.5, the last that had them. Command lines follow the
//! rules of Go's `flag` package (`parse`), which differ from those of the v3 client: global flags stand before the
//! command only, and one dash is as good as two.
//!
//! Invariants:
//! - Commands on keys connect before they look at their arguments, all others afterwards, as in etcdctl.
//! - Every call but a watch ends within `--total-timeout`.

mod auth;
mod backup;
mod global;
mod health;
mod help;
mod member;
mod output;
mod parse;
mod read;
mod role;
mod session;
mod user;
mod watch;
mod write;

use std::{ffi::OsString, process::ExitCode};

use super::{
    Program, completion,
    failure::{Exit, Failure},
    perform, report,
    speak::say,
    table::Command,
};
use parse::Understood;

/// Whether the environment asks for the v2 API. Without a word from it, the v3 API is meant.
pub(super) fn is_asked_for() -> bool {
    std::env::var_os(VERSION_VARIABLE).is_some_and(|version| version == "2")
}

/// Runs the client with the words behind its name.
pub(super) fn main(program: Program, words: Vec<OsString>) -> ExitCode {
    if completion::is_question(&words) {
        return completion::answer_for_tool(&ROOT, &words);
    }
    match obey(parse::understand(program, &ROOT, words)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn obey(understood: Understood) -> Result<(), Failure> {
    match understood {
        Understood::Call(call) => match call.path.last().and_then(|command| command.run) {
            Some(run) => perform(run(call)),
            None => Ok(()),
        },
        Understood::Page(page) => Ok(say(format_args!("{page}"))?),
        Understood::NoPage(name) => Err(Failure::bare(Exit::NO_HELP, format_args!("No help topic for '{name}'"))),
        Understood::Misuse { complaint, page } => {
            say(format_args!("{page}"))?;
            Err(Failure::bare(Exit::Error, complaint))
        }
    }
}

pub(super) static ROOT: Command = Command {
    name: "quoratectl",
    about: "The command-line client for the v2 API of Quorate and etcd clusters.",
    flags: &[parse::VERSION],
    inherited: global::FLAGS,
    // Help pages list them in this order.
    commands: &[
        backup::BACKUP,
        health::CLUSTER_HEALTH,
        write::MK,
        write::MKDIR,
        write::RM,
        write::RMDIR,
        read::GET,
        read::LS,
        write::SET,
        write::SETDIR,
        write::UPDATE,
        write::UPDATEDIR,
        watch::WATCH,
        watch::EXEC_WATCH,
        member::MEMBER,
        user::USER,
        role::ROLE,
        auth::AUTH,
    ],
    ..Command::EMPTY
};

const VERSION_VARIABLE: &str = "ETCDCTL_API";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::tests::check;

    #[test]
    fn the_table_is_sound() {
        check(&ROOT);
    }

    #[test]
    fn what_is_not_known_has_no_help() {
        let failure = obey(Understood::NoPage("x".to_owned())).unwrap_err();
        assert_eq!((failure.exit.code(), failure.usage.as_deref()), (3, Some("No help topic for 'x'")));
    }
}
