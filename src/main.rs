//! The daemon: as `quorate`, or under etcd's name.

use std::process::ExitCode;

use quorate::{config::Sources, daemon};

fn main() -> ExitCode {
    daemon::main(&Sources::of_process())
}
