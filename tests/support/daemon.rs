//! One daemon process on free loopback ports in a temporary directory.

use super::program::Program;
use super::{http, now, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Longest wait until a started daemon serves.
pub const READY_LIMIT: Duration = Duration::from_mins(1);
/// Longest wait for the end of a daemon asked to stop.
pub const STOP_LIMIT: Duration = Duration::from_secs(20);
/// The substring every etcd logs once it serves.
pub const READY_LINE: &str = "ready to serve client requests";
/// Starts tried when another process takes a port between our choosing it and the daemon's binding it.
const PORT_ATTEMPTS: usize = 5;

/// A running (or killed and restartable) single-member cluster.
///
/// Dropping it kills the process and removes its directory. It also dies with the *thread* that started it, so start
/// it from the test's own thread.
pub struct Daemon {
    program: Program,
    arguments: Vec<String>,
    directory: tempfile::TempDir,
    pub client: SocketAddr,
    pub peer: SocketAddr,
    /// `http`, or `https` where the flags say how.
    pub client_scheme: &'static str,
    /// As `client_scheme`, between members.
    pub peer_scheme: &'static str,
    child: Option<Child>,
    starts: usize,
}

impl Daemon {
    /// Starts `program` with further flags behind the usual ones and waits until it serves.
    ///
    /// # Panics
    /// If it does not serve in time; the message holds the end of its log.
    pub fn start(program: &Program, arguments: &[&str]) -> Self {
        Self::start_in(&std::env::temp_dir(), program, arguments)
    }

    /// Like [`start`](Self::start), with the temporary directory below `parent`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_in(parent: &Path, program: &Program, arguments: &[&str]) -> Self {
        for _ in 1..PORT_ATTEMPTS {
            let mut daemon = Self::prepare(parent, program, arguments);
            match daemon.launch() {
                Ok(()) => return daemon,
                Err(log) if log.contains("address already in use") => {}
                Err(log) => panic!("{} does not become ready:\n{log}", program.name),
            }
        }
        panic!("{}: no free port in {PORT_ATTEMPTS} attempts", program.name)
    }

    /// Chooses ports and a directory without starting anything.
    ///
    /// # Panics
    /// If there is no free port or no temporary directory.
    pub fn prepare(parent: &Path, program: &Program, arguments: &[&str]) -> Self {
        let [client, peer] = free_ports();
        let directory =
            tempfile::Builder::new().prefix("quorate-test-").tempdir_in(parent).expect("temporary directory");
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let program = program.clone();
        let [client_scheme, peer_scheme] = ["http"; 2];
        Self { program, arguments, directory, client, peer, client_scheme, peer_scheme, child: None, starts: 0 }
    }

    /// Adds a flag that could only be written once the ports were known; it stands behind all others.
    pub fn add_argument(&mut self, argument: String) {
        self.arguments.push(argument);
    }

    /// Starts the process again on the same directory and ports and waits until it serves.
    ///
    /// # Panics
    /// If it still runs, or does not serve in time.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "stop the daemon before starting it again");
        if let Err(log) = self.launch() {
            panic!("{} does not become ready after a restart:\n{log}", self.program.name);
        }
    }

    fn launch(&mut self) -> Result<(), String> {
        self.spawn();
        if self.wait_ready(READY_LIMIT) {
            return Ok(());
        }
        self.kill();
        Err(tail(&self.log(), 4_000).to_owned())
    }

    /// Starts the process and returns at once.
    ///
    /// # Panics
    /// If the executable cannot be started.
    pub fn spawn(&mut self) {
        self.starts += 1;
        let log = File::create(self.log_path()).expect("log file in our own directory");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program.path)
            .args(self.flags())
            .args(&self.arguments)
            .envs(self.program.variables.iter().copied())
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle"))
            .stderr(log)
            .spawn();
        self.child =
            Some(child.unwrap_or_else(|error| panic!("{} does not start: {error}", self.program.path.display())));
    }

    fn flags(&self) -> Vec<String> {
        let (client, peer) = (self.endpoint(), format!("{}://{}", self.peer_scheme, self.peer));
        [
            ("name", "m1"),
            ("data-dir", &self.data_dir().to_string_lossy()),
            ("listen-client-urls", &client),
            ("advertise-client-urls", &client),
            ("listen-peer-urls", &peer),
            ("initial-advertise-peer-urls", &peer),
            ("initial-cluster", &format!("m1={peer}")),
        ]
        .map(|(flag, value)| format!("--{flag}={value}"))
        .into()
    }

    /// Waits until the daemon answers `/health`, unless that is encrypted, and has logged that it is ready; false after `limit` or its death.
    pub fn wait_ready(&mut self, limit: Duration) -> bool {
        let ready = wait_for(limit, || {
            if self.exited().is_some() {
                return Some(false);
            }
            // Its state can be found to differ before it is first asked here.
            let told = [r#""health":"true""#, "ALARM CORRUPT"];
            let serves = self.client_scheme == "https"
                || http::get(self.client, "/health")
                    .is_ok_and(|answer| told.iter().any(|told| answer.body.contains(told)));
            (serves && self.log().contains(READY_LINE)).then_some(true)
        });
        ready == Some(true)
    }

    /// The base URL clients dial.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.client_scheme, self.client)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The daemon's working directory, removed with it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join(format!("log.{}", self.starts))
    }

    /// What the current process has printed so far.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The process id.
    ///
    /// # Panics
    /// If the daemon is not running.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// Whether the process was started and neither killed nor waited for since.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// The exit status, once the process has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Sends `signal` (a name such as `TERM` or `STOP`).
    ///
    /// # Panics
    /// If the daemon is not running.
    pub fn signal(&self, signal: &str) {
        let number: Signal = format!("SIG{signal}").parse().expect("a signal");
        let pid = i32::try_from(self.pid()).expect("a process id");
        kill(Pid::from_raw(pid), number).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
    }

    /// Kills the process as a power cut would, as far as processes can.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already; waiting reaps it either way.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Asks the process to stop and returns how it ended and after how long.
    ///
    /// # Panics
    /// If it has not ended within [`STOP_LIMIT`].
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        self.signal("TERM");
        let asked = now();
        let status = wait_for(STOP_LIMIT, || self.exited());
        let took = asked.elapsed();
        let status =
            status.unwrap_or_else(|| panic!("still running {STOP_LIMIT:?} after TERM:\n{}", tail(&self.log(), 4_000)));
        self.child = None;
        (status, took)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether the process died of `signal`, or exited with the code shells report for that.
pub fn ended_by(status: ExitStatus, signal: i32) -> bool {
    status.signal() == Some(signal) || status.code() == Some(128 + signal)
}

/// Where ports are looked for: below those that the kernel gives to connections, so that none takes a port between its
/// choice and its use.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// How many of them are tried.
const PORTS_TRIED_MAX: usize = 1_000;

/// Distinct free loopback ports, held open together while they are chosen.
///
/// # Panics
/// If loopback has no free port.
pub fn free_ports<const N: usize>() -> [SocketAddr; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| listener());
    listeners.map(|listener| listener.local_addr().expect("a listener has an address"))
}

fn listener() -> TcpListener {
    use std::hash::{BuildHasher as _, RandomState};
    let random = || u16::try_from(RandomState::new().hash_one(()) % u64::from(PORTS.end - PORTS.start)).unwrap_or(0);
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, PORTS.start + random())).ok();
    (0..PORTS_TRIED_MAX).find_map(bind).expect("a free loopback port")
}

/// The last `bytes` of `text`, cut at a line.
pub fn tail(text: &str, bytes: usize) -> &str {
    let start = text.len().saturating_sub(bytes);
    let from = text.bytes().enumerate().skip(start).find(|(_, byte)| *byte == b'\n').map_or(0, |(at, _)| at + 1);
    text.get(if start == 0 { 0 } else { from }..).unwrap_or(text)
}
