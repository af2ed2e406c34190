//! The executables that tests start: ours, and the real etcd with its tools.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The newest releases of etcd's older minor versions.
const ETCD_3_5: &str = "3.5.35";
const ETCD_3_6: &str = "3.6.16";

/// An executable and the name it goes by in messages.
#[derive(Clone, Debug)]
pub struct Program {
    pub name: String,
    pub path: PathBuf,
    /// Environment variables it is started with besides the test's own.
    pub variables: Vec<(&'static str, &'static str)>,
}

impl Program {
    pub fn new(name: &str, path: impl Into<PathBuf>) -> Self {
        Self { name: name.to_owned(), path: path.into(), variables: Vec::new() }
    }

    /// An etcd that checks its own promises as its developers do, and its directory when it stops, and dies of what it finds.
    #[must_use]
    pub fn checking_itself(mut self) -> Self {
        self.variables.push(("ETCD_VERIFY", "all"));
        self
    }

    /// The daemon under test: ours, or what `SUBJECT_BIN` names.
    pub fn subject() -> Self {
        match std::env::var_os("SUBJECT_BIN").filter(|path| !path.is_empty()) {
            Some(path) => Self::new("subject", path),
            None => Self::new("quorate", env!("CARGO_BIN_EXE_quorate")),
        }
    }

    /// The daemons that a bench compares: ours first, or the one side that `BENCH_SUBJECT` names.
    pub fn compared() -> Vec<Self> {
        let chosen: String = super::setting("BENCH_SUBJECT", "both".to_owned());
        let ours = (chosen != "etcd").then(Self::subject);
        ours.into_iter().chain((chosen != "ours").then(Self::etcd)).collect()
    }

    /// Our client tool.
    pub fn quoratectl() -> Self {
        Self::new("quoratectl", env!("CARGO_BIN_EXE_quoratectl"))
    }

    /// Our offline tool.
    pub fn quorateutl() -> Self {
        Self::new("quorateutl", env!("CARGO_BIN_EXE_quorateutl"))
    }

    /// The real etcd 3.7.1.
    pub fn etcd() -> Self {
        Self::new("etcd", oracle().join("bin/etcd"))
    }

    /// The real etcdctl 3.7.1.
    pub fn etcdctl() -> Self {
        Self::new("etcdctl 3.7.1", oracle().join("bin/etcdctl"))
    }

    /// The real etcdutl 3.7.1.
    pub fn etcdutl() -> Self {
        Self::new("etcdutl 3.7.1", oracle().join("bin/etcdutl"))
    }

    /// etcd, etcdctl of the newest 3.5.
    pub fn etcd_3_5() -> [Self; 2] {
        let [etcd, etcdctl, _] = Self::of_oracle("3.5", &older_oracle("3.5", ETCD_3_5));
        [etcd, etcdctl]
    }

    /// etcd, etcdctl and etcdutl of each minor version, by its name: 3.7, and with `ETCD_MINORS=1` the newest 3.6 and 3.5 too.
    pub fn etcd_minors() -> Vec<(&'static str, [Self; 3])> {
        let of = |minor, dir: &Path| (minor, Self::of_oracle(minor, dir));
        let mut minors = vec![of("3.7", oracle())];
        if super::setting("ETCD_MINORS", 0) != 0 {
            minors.push(of("3.6", &older_oracle("3.6", ETCD_3_6)));
            minors.push(of("3.5", &older_oracle("3.5", ETCD_3_5)));
        }
        minors
    }

    fn of_oracle(minor: &str, dir: &Path) -> [Self; 3] {
        ["etcd", "etcdctl", "etcdutl"].map(|name| Self::new(&format!("{name} {minor}"), dir.join("bin").join(name)))
    }

    /// The etcd 3.5.1 that other people have packed: older than it should be.
    pub fn etcd_3_5_1() -> Self {
        Self::new("etcd 3.5.1", clients_with("etcd_351").join("etcd-3.5.1"))
    }

    pub fn command(&self) -> Command {
        Command::new(&self.path)
    }
}

/// The build directory that holds everything fetched or built for tests.
pub fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's tmp lies in its target directory").to_owned()
}

/// The directory of the real etcd: `ORACLE_DIR`, or `target/oracle`, built there by the first test that asks.
///
/// # Panics
/// If it is not there and cannot be built; the message says what to install.
pub fn oracle() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = oracle_dir();
        run_script("tests/support/oracle.sh", &[dir.clone().into_os_string()]);
        dir
    })
}

/// The directory of an older etcd, such as `target/oracle-3.5`, built there when it is not there. That takes minutes, so only
/// long forms of tests ask for it.
///
/// # Panics
/// As [`oracle`].
fn older_oracle(minor: &str, release: &str) -> PathBuf {
    let dir = target_dir().join(format!("oracle-{minor}"));
    run_script("tests/support/oracle.sh", &[dir.clone().into_os_string(), release.into()]);
    dir
}

fn oracle_dir() -> PathBuf {
    std::env::var_os("ORACLE_DIR").map_or_else(|| target_dir().join("oracle"), PathBuf::from)
}

/// Runs a script of this repository to its end.
///
/// # Panics
/// If it fails, with what it printed.
pub fn run_script(script: &str, arguments: &[OsString]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join(script));
    let output = command.args(arguments).current_dir(root).env("ORACLE_DIR", oracle_dir()).output();
    let output = output.unwrap_or_else(|error| panic!("{script} does not start: {error}"));
    assert!(
        output.status.success(),
        "{script} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The directory of built client programs, brought up to date by the first test that asks.
///
/// # Panics
/// If they cannot be built.
pub fn clients() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = target_dir().join("clients");
        oracle();
        run_script("tests/clients/build.sh", &[dir.clone().into_os_string()]);
        dir
    })
}

/// The same directory, with one part of it brought up to date: what the parts are, tells `tests/clients/build.sh`.
///
/// # Panics
/// As [`clients`].
pub fn clients_with(part: &str) -> PathBuf {
    let dir = target_dir().join("clients");
    run_script("tests/clients/build.sh", &[dir.clone().into_os_string(), part.into()]);
    dir
}
