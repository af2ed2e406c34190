//! The daemon: as `quorate`, or under etcd's name.

use std::process::ExitCode;

use quorate::{cli, config::Sources, daemon};

fn main() -> ExitCode {
    daemon::main(&Sources::of_process(), cli::config::run)
}
