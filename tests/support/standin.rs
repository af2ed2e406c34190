//! One process that stands in for a cluster (a gateway or a proxy), with a directory of its own.

use super::daemon::tail;
use super::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Longest wait for a line of its log, and for its end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running process. Dropping it kills it; it also dies with the thread that started it.
pub struct StandIn {
    child: Child,
    directory: tempfile::TempDir,
}

impl StandIn {
    /// Starts `program` with these words and waits until its log has `ready`.
    ///
    /// # Panics
    /// If it does not, with its log.
    pub fn start(program: &Path, words: &[&str], ready: &str) -> Self {
        let standin = Self::spawn(program, words);
        standin.wait_log(ready);
        standin
    }

    /// Starts `program` and returns at once.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(program: &Path, words: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("quorate-test-").tempdir().expect("a temporary directory");
        let log = File::create(directory.path().join("log")).expect("our own directory");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(words)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle"))
            .stderr(log)
            .spawn()
            .expect("setpriv runs: apt-get install util-linux brings it");
        Self { child, directory }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed.
    pub fn log(&self) -> String {
        fs::read(self.directory.path().join("log"))
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// Waits until its log has `text`.
    ///
    /// # Panics
    /// If it has not for long.
    pub fn wait_log(&self, text: &str) {
        let found = wait_for(PATIENCE, || self.log().contains(text).then_some(()));
        assert!(found.is_some(), "{text:?} is not in\n{}", tail(&self.log(), 4_000));
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If there is no such process any more.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")), signal)
            .expect("the process is there");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn wait_end(&mut self) -> ExitStatus {
        let ended = wait_for(PATIENCE, || self.child.try_wait().ok().flatten());
        ended.unwrap_or_else(|| panic!("it does not end:\n{}", tail(&self.log(), 4_000)))
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the process that stands in said:\n{}", tail(&self.log(), 4_000));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
