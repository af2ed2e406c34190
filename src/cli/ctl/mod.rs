//! The client: `quoratectl`, and `etcdctl` when called by that name.
//!
//! Each file holds the rows of the command table for its commands and what they do. Arguments are checked before
//! anything is connected to, so that a mistyped command fails the same with and without a cluster.

mod alarm;
mod argify;
mod compare;
mod endpoint;
mod global;
mod handing;
mod keys;
mod kv;
mod lease;
mod member;
mod session;
mod txn;
mod watch;

use std::{ffi::OsString, process::ExitCode};

use super::{Program, completion, general, run, table::Command};

/// Runs the client with the words it was called with, its own name first.
pub fn main(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let program = Program::called(words.next().as_ref(), "quoratectl", "etcdctl");
    run(program, &ROOT, words.collect())
}

pub(super) static ROOT: Command = Command {
    name: "quoratectl",
    about: "The command-line client of Quorate and etcd clusters.",
    inherited: global::FLAGS,
    // Suggestions come in this order.
    commands: &[
        kv::GET,
        kv::PUT,
        kv::DEL,
        txn::TXN,
        kv::COMPACTION,
        alarm::ALARM,
        endpoint::DEFRAG,
        endpoint::ENDPOINT,
        handing::MOVE_LEADER,
        watch::WATCH,
        completion::COMPLETION,
        general::VERSION,
        lease::LEASE,
        member::MEMBER,
        handing::DOWNGRADE,
        general::OPTIONS,
        general::HELP,
    ],
    ..Command::EMPTY
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::tests::check;

    #[test]
    fn the_table_is_sound() {
        check(&ROOT);
    }
}
