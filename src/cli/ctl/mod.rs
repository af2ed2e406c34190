//! The client: `quoratectl`, and `etcdctl` when called by that name.
//!
//! Each file holds the rows of the command table for its commands and what they do. Arguments are checked before
//! anything is connected to, so that a mistyped command fails the same with and without a cluster.

mod alarm;
mod argify;
mod auth;
mod check;
mod compare;
mod contest;
mod doctor;
mod elect;
mod endpoint;
mod global;
mod handing;
mod keys;
mod kv;
mod lease;
mod lock;
mod member;
mod metrics;
mod mirror;
mod past;
mod role;
mod session;
mod snapshot;
mod top;
mod txn;
mod user;
mod watch;

use std::{ffi::OsString, process::ExitCode};

use super::{Program, completion, ctl2, general, run, table::Command};

/// Runs the client with the words it was called with, its own name first. The environment may ask for that of the v2 API.
pub fn main(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let program = Program::called(words.next().as_ref(), "quoratectl", "etcdctl");
    if ctl2::is_asked_for() { ctl2::main(program, words.collect()) } else { run(program, &ROOT, words.collect()) }
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
        snapshot::SNAPSHOT,
        mirror::MAKE_MIRROR,
        lock::LOCK,
        elect::ELECT,
        auth::AUTH,
        user::USER,
        role::ROLE,
        check::CHECK,
        handing::DOWNGRADE,
        doctor::DOCTOR,
        top::TOP,
        past::DIFF,
        past::HISTORY,
        general::OPTIONS,
        Command { beginnings: &["h"], ..general::HELP },
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
