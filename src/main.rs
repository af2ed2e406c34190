//! The daemon: as `quorate`, or under etcd's name.

use std::process::ExitCode;

use quorate::{cli, config::Sources, daemon};

/// Requests of a thousand clients come and go on several threads: glibc's allocator keeps what they leave in each thread's
/// arena and fragments over time. How much jemalloc keeps is said in `.cargo/config.toml`.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let sources = Sources::of_process();
    cli::completion::answer_for_daemon(&sources).unwrap_or_else(|| daemon::main(&sources, cli::config::run))
}
