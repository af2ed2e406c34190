//! What process tests and benches share: daemons under test, the real etcd to compare with, raw clients, seeded chance.
//!
//! Every process started here dies with the value that owns it, and with the thread that started it should the test
//! be killed. Ports are free loopback ports, directories are temporary; tests run beside each other.

#![allow(dead_code, unreachable_pub, reason = "every test file includes this module and uses its own part of it")]

pub mod certificates;
pub mod cluster;
pub mod corpus;
pub mod daemon;
pub mod deployment;
pub mod discovery;
pub mod faults;
pub mod gateway;
pub mod grpc;
pub mod hosts;
pub mod http;
pub mod kubernetes;
pub mod linear;
pub mod mask;
pub mod offline;
pub mod program;
pub mod random;
pub mod session;
pub mod standin;
pub mod traffic;
pub mod v2;

use std::ffi::OsStr;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The monotonic clock of the tests themselves.
#[expect(clippy::disallowed_methods, reason = "tests wait for real processes; the daemon's clock is not theirs")]
pub fn now() -> Instant {
    Instant::now()
}

/// Calls `probe` every few milliseconds until it answers; `None` after `limit`.
pub fn wait_for<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + limit;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The number in environment variable `name`, or `default`. Long forms of tests are asked for this way.
///
/// # Panics
/// If the variable is set and is no number.
pub fn setting<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var_os(name).as_deref().and_then(OsStr::to_str) {
        None | Some("") => default,
        Some(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    }
}
