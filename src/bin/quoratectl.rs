//! The client of Quorate and etcd clusters; called `etcdctl` it takes the place of etcd's.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate::cli::ctl::main(std::env::args_os())
}
