//! `process_*`: what the operating system says about this process, read anew for every scrape.
//!
//! Files that are missing or look different (no Linux, no `/proc`) leave their samples out.

use std::fs;

use nix::{
    sys::{
        resource::{Resource, UsageWho, getrlimit, getrusage},
        time::TimeValLike as _,
    },
    unistd::{SysconfVar, sysconf},
};

use super::{
    Described, OS_FD_LIMIT, OS_FD_USED,
    text::{float, head, sample},
};

/// Clock ticks per second in `/proc`: the kernel fixed what it shows to programs at 100.
const PROC_TICKS_PER_SECOND: f64 = 100.0;

/// Updates the gauges of the host's table rows.
pub(super) fn refresh() {
    if let Some(open) = open_descriptors() {
        OS_FD_USED.set_count(open);
    }
    if let Some(most) = descriptors_max() {
        OS_FD_LIMIT.set_count(most);
    }
}

/// What is told of the process, and how it is found out.
struct Row {
    described: Described,
    value: fn() -> Option<f64>,
}

const fn row(name: &'static str, kind: &'static str, help: &'static str, value: fn() -> Option<f64>) -> Row {
    Row { described: Described { name, kind, labels: &[], help, versions: "3.3" }, value }
}

static ROWS: [Row; 9] = [
    row("process_cpu_seconds_total", "counter", "Processor time used, by user and system.", cpu_seconds),
    row("process_max_fds", "gauge", "Most file descriptors that may be open.", || descriptors_max().map(float)),
    Row { described: NETWORK_RECEIVED, value: || network_bytes().map(|(received, _)| received) },
    Row { described: NETWORK_SENT, value: || network_bytes().map(|(_, sent)| sent) },
    row("process_open_fds", "gauge", "Open file descriptors.", || open_descriptors().map(float)),
    row("process_resident_memory_bytes", "gauge", "Memory held in RAM.", || {
        memory_bytes().map(|(_, resident)| resident)
    }),
    row("process_start_time_seconds", "gauge", "Unix time at which the process began.", start_time),
    row("process_virtual_memory_bytes", "gauge", "Address space in use.", || memory_bytes().map(|(size, _)| size)),
    row("process_virtual_memory_max_bytes", "gauge", "Most address space allowed.", address_space_max),
];
const NETWORK_RECEIVED: Described = Described {
    name: "process_network_receive_bytes_total",
    kind: "counter",
    labels: &[],
    help: "Bytes received over the network by this host, or by the network namespace of the process.",
    versions: "3.6",
};
const NETWORK_SENT: Described = Described {
    name: "process_network_transmit_bytes_total",
    help: "Bytes sent over the network by this host, or by the network namespace of the process.",
    ..NETWORK_RECEIVED
};

/// Every `process_*` name, read or not.
pub(super) fn described() -> impl Iterator<Item = Described> {
    ROWS.iter().map(|row| row.described)
}

/// Every `process_*` name with its text.
pub(super) fn collect() -> Vec<(&'static str, String)> {
    let shown = |row: &Row| {
        let (Described { name, kind, help, .. }, mut out) = (row.described, String::new());
        head(name, help, kind, &mut out);
        sample(name, "", (row.value)()?, &mut out);
        Some((name, out))
    };
    ROWS.iter().filter_map(shown).collect()
}

/// Received and sent over IP.
fn network_bytes() -> Option<(f64, f64)> {
    let table = fs::read_to_string("/proc/self/net/netstat").ok()?;
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next()?.split(' '), lines.next()?.split(' '));
    let columns: Vec<(&str, &str)> = names.zip(values).collect();
    let column = |name| columns.iter().find(|(known, _)| *known == name)?.1.parse().ok();
    Some((float(column("InOctets")?), float(column("OutOctets")?)))
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    u64::try_from(micros).ok().map(|micros| float(micros) / 1e6)
}

/// Address space and resident memory.
fn memory_bytes() -> Option<(f64, f64)> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let page_bytes = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
    let mut sizes = pages.split(' ').map_while(|size| size.trim().parse::<u64>().ok());
    Some((float(sizes.next()? * page_bytes), float(sizes.next()? * page_bytes)))
}

fn open_descriptors() -> Option<u64> {
    fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64)
}

fn descriptors_max() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft)
}

fn address_space_max() -> Option<f64> {
    getrlimit(Resource::RLIMIT_AS).ok().map(|(soft, _)| float(soft))
}

/// The boot time plus what field 22 of `/proc/self/stat` says (the fields follow the command's closing parenthesis).
fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let after_boot: f64 = fields.split(' ').nth(19)?.parse().ok()?;
    let kernel = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = kernel.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + after_boot / PROC_TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_describes_itself() {
        let names: Vec<_> = collect().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), ROWS.len(), "{names:?}");
        assert!(cpu_seconds() > Some(0.0));
        assert!(network_bytes().is_some());
        assert!(memory_bytes().is_some_and(|(size, resident)| size >= resident && resident > 0.0));
        assert!(start_time() > Some(1.6e9));
    }
}
