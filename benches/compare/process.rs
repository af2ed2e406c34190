//! What the kernel says about a process: CPU, memory and bytes written.

use std::fs;
use std::iter::Sum;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Counters of a process since its start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub cpu: Duration,
    /// Bytes the process caused to be written to the disk, page cache included once.
    pub written_bytes: u64,
}

impl Usage {
    /// Reads the counters of process `pid`; `"self"` is the bench.
    ///
    /// # Panics
    /// If there is no such process.
    pub(crate) fn of(pid: &str) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
        // The second field is the name in parentheses and may hold anything; the numbers follow its last parenthesis.
        let numbers = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 =
            numbers.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let cpu = Duration::from_nanos(ticks * 1_000_000_000 / ticks_per_second());
        Self { cpu, written_bytes: field(pid, "io", "write_bytes:") }
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(earlier.cpu), written_bytes: self.written_bytes - earlier.written_bytes }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            cpu: sum.cpu + one.cpu,
            written_bytes: sum.written_bytes + one.written_bytes,
        })
    }
}

/// Resident memory of process `pid` in bytes.
pub(crate) fn resident_bytes(pid: &str) -> u64 {
    field(pid, "status", "VmRSS:") * 1_024
}

fn field(pid: &str, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn ticks_per_second() -> u64 {
    static TICKS: OnceLock<u64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        let output = Command::new("getconf").arg("CLK_TCK").output().expect("getconf is part of every system");
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(100)
    })
}
