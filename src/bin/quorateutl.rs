//! The offline tool of Quorate; called `etcdutl` it takes the place of etcd's.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate::cli::utl::main(std::env::args_os())
}
