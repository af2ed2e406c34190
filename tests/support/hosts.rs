//! The hosts of a cluster on one machine: network and mount namespaces with addresses of their own behind one bridge, a
//! `/data/etcd` each, packets that get lost and disks that stall.
//!
//! Nothing of it has a name outside: every namespace lives as long as a process that we hold, and that process dies with
//! the test's thread. So nothing is left behind, not even by a killed test, and tests run beside each other with the
//! same addresses. The thread that makes the hosts stands on the bridge, with every thread and process it starts from
//! then on: it reaches the hosts, and nothing else.

use super::program::target_dir;
use super::wait_for;
use nix::sched::{CloneFlags, setns};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Most hosts there can be: as many as the largest cluster has members.
pub const HOSTS_MAX: usize = 7;
/// The last part of the first host's address; the others follow.
const FIRST_HOST: u8 = 16;
/// The longest a disk may be stalled; it goes on by itself then, whatever has become of the test.
const STALL_MAX: Duration = Duration::from_mins(1);
/// Longest wait for a stalled disk to have stopped.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// What lies under a host's `/data/etcd`.
#[derive(Clone, Copy, Debug)]
pub enum Disk {
    /// A directory on the machine's disk.
    Plain,
    /// A file system of so many megabytes whose syncs can be stalled.
    Stallable(u32),
}

/// Hosts behind one bridge.
pub struct Hosts {
    each: Vec<Host>,
    /// Holds the bridge.
    _switch: Holder,
    /// Where the test's thread came from, and returns to.
    home: File,
    directory: tempfile::TempDir,
}

impl Hosts {
    /// Makes `count` hosts and puts the current thread on their bridge.
    ///
    /// # Panics
    /// If the machine does not allow it; the message says which command failed.
    pub fn new(count: usize, disk: Disk) -> Self {
        assert!(count <= HOSTS_MAX, "{count} hosts; there are addresses for {HOSTS_MAX}");
        assert!(nix::unistd::geteuid().is_root(), "hosts are namespaces, which root makes: run this test as root");
        let home = File::open("/proc/thread-self/ns/net").expect("/proc is mounted");
        let parent = target_dir().join("tmp");
        let directory = tempfile::Builder::new().prefix("hosts-").tempdir_in(parent).expect("a temporary directory");
        let switch = Holder::switch();
        switch.enter();
        run("ip link add bridge type bridge && ip addr add 10.5.12.1/24 dev bridge && ip link set bridge up");
        let each = (0..count).map(|number| Host::new(number, disk, directory.path())).collect();
        Self { each, _switch: switch, home, directory }
    }

    pub fn len(&self) -> usize {
        self.each.len()
    }

    /// Host `number`, counted from 0.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn host(&self, number: usize) -> &Host {
        self.each.get(number).expect("a host of this cluster")
    }

    /// A directory for whoever uses these hosts, which vanishes with them.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Loses every packet from one host to another, in this direction alone.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        let address = self.host(from).address;
        self.change(to, |faults| faults.deaf_to.extend([address]));
    }

    /// Loses every packet between the hosts of `side` and all others.
    pub fn partition(&mut self, side: &[usize]) {
        for inside in side {
            for outside in (0..self.len()).filter(|number| !side.contains(number)) {
                self.cut_one_way(*inside, outside);
                self.cut_one_way(outside, *inside);
            }
        }
    }

    /// Loses so many of a hundred packets that arrive at `host` from other hosts.
    pub fn lose(&mut self, host: usize, percent: u8) {
        self.change(host, |faults| faults.lost_percent = percent);
    }

    /// Ends every fault of the network.
    pub fn heal(&mut self) {
        for host in 0..self.len() {
            self.change(host, |faults| *faults = Faults::default());
            self.host(host).run("tc qdisc del dev eth0 root 2>/dev/null || true");
        }
    }

    fn change(&mut self, host: usize, change: impl FnOnce(&mut Faults)) {
        let host = self.each.get_mut(host).expect("a host of this cluster");
        change(&mut host.faults);
        host.run_with_input("nft -f -", &host.faults.rules());
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            eprintln!("the test's thread stays on its bridge: {error}");
        }
    }
}

/// One host.
pub struct Host {
    pub address: Ipv4Addr,
    holder: Holder,
    faults: Faults,
}

impl Host {
    fn new(number: usize, disk: Disk, parent: &Path) -> Self {
        let last = FIRST_HOST + u8::try_from(number).expect("few hosts");
        let address = Ipv4Addr::new(10, 5, 12, last);
        let holder = Holder::host(&parent.join(last.to_string()), disk);
        let pid = holder.pid();
        run(&format!(
            "ip link add port{last} type veth peer name eth0 netns {pid} && ip link set port{last} master bridge up"
        ));
        let host = Self { address, holder, faults: Faults::default() };
        host.run(&format!("ip addr add {address}/24 dev eth0 && ip link set eth0 up"));
        host
    }

    /// A command that will run on this host and die with the test's thread.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "--",
            "nsenter",
            "--net",
            "--mount",
            "--target",
            &self.holder.pid(),
            "--",
        ]);
        command.arg(program);
        command
    }

    /// Does `work` in a thread that stands on this host: the sockets it makes are the host's.
    ///
    /// # Panics
    /// If `work` does.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let on_host = || {
            self.holder.enter();
            work()
        };
        std::thread::scope(|scope| scope.spawn(on_host).join().expect("the work on the host does not panic"))
    }

    /// Runs a line of shell on this host to its end.
    ///
    /// # Panics
    /// If it fails, with what it printed.
    pub fn run(&self, line: &str) {
        self.run_with_input(line, "");
    }

    fn run_with_input(&self, line: &str, input: &str) {
        let mut command = self.command(Path::new("sh"));
        finish(command.args(["-ec", line]), line, input);
    }

    /// Delays what leaves this host by `delay`, give or take `jitter`. False if the kernel cannot (`sch_netem`).
    pub fn delay(&self, delay: Duration, jitter: Duration) -> bool {
        let (delay, jitter) = (delay.as_millis(), jitter.as_millis());
        let line = format!("tc qdisc replace dev eth0 root netem delay {delay}ms {jitter}ms");
        let output = self.command(Path::new("sh")).args(["-ec", &line]).output().expect("sh runs");
        output.status.success()
    }

    /// Lets every sync of `/data/etcd` wait until the answer is dropped, but no longer than a minute.
    ///
    /// # Panics
    /// If the disk is not [`Disk::Stallable`].
    pub fn stall_disk(&self) -> Stall<'_> {
        let line = format!("fsfreeze -f /lower && echo frozen && sleep {} && fsfreeze -u /lower", STALL_MAX.as_secs());
        // Not bound to the test's thread: whoever waits for a frozen disk cannot even be killed.
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.holder.pid(), "sh", "-ec", &line]);
        let mut freezer = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("nsenter runs");
        assert_eq!(first_line(&mut freezer), "frozen", "the disk of {} does not freeze", self.address);
        Stall { host: self, freezer }
    }

    /// Forgets what is under `/data/etcd`.
    pub fn wipe(&self) {
        self.run("find /data/etcd -mindepth 1 -delete");
    }
}

/// A disk at a standstill.
pub struct Stall<'a> {
    host: &'a Host,
    freezer: Child,
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        // The sleep inside is left to end by itself, in vain.
        drop(self.freezer.kill());
        drop(self.freezer.wait());
        let thawed = || {
            let status = self.host.command(Path::new("fsfreeze")).args(["-u", "/lower"]).status();
            status.is_ok_and(|status| status.success()).then_some(())
        };
        if wait_for(FREEZE_LIMIT, thawed).is_none() {
            eprintln!("the disk of {} stays frozen", self.host.address);
        }
    }
}

/// What the network does to packets that arrive at a host. They are lost on arrival, so that no sender is told.
#[derive(Debug, Default)]
struct Faults {
    deaf_to: BTreeSet<Ipv4Addr>,
    lost_percent: u8,
}

impl Faults {
    fn rules(&self) -> String {
        let mut rules = ARRIVAL.to_owned();
        for sender in &self.deaf_to {
            writeln!(rules, "ip saddr {sender} drop").expect("a string takes everything");
        }
        if self.lost_percent > 0 {
            let percent = self.lost_percent;
            let peers = "ip saddr 10.5.12.16-10.5.12.22";
            writeln!(rules, "{peers} numgen random mod 100 < {percent} drop").expect("a string takes everything");
        }
        rules.push_str("}\n}\n");
        rules
    }
}

/// How the rules of a host begin, in one transaction with what they replace.
const ARRIVAL: &str = "flush ruleset\ntable ip faults {\nchain arrival {\ntype filter hook input priority 0;\n";

/// The process that keeps namespaces alive.
struct Holder {
    process: Child,
}

impl Holder {
    fn switch() -> Self {
        Self::start(Command::new("setpriv").args(UNSHARE).args(["sh", "-ec"]).arg(SWITCH))
    }

    fn host(directory: &Path, disk: Disk) -> Self {
        let (root, store) = (directory.join("root"), directory.join("store"));
        for made in [&root, &store] {
            std::fs::create_dir_all(made).expect("our own directory");
        }
        let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "support", "host.sh"].iter().collect();
        let mut command = Command::new("setpriv");
        command.args(UNSHARE).arg(script).args([root, store]);
        if let Disk::Stallable(megabytes) = disk {
            command.arg(megabytes.to_string());
        }
        Self::start(&mut command)
    }

    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("setpriv runs");
        if first_line(&mut process) != "ready" {
            drop(process.kill());
            let mut said = String::new();
            if let Some(mut errors) = process.stderr.take() {
                drop(errors.read_to_string(&mut said));
            }
            drop(process.wait());
            panic!("no namespaces for a host ({command:?}): {said}");
        }
        Self { process }
    }

    fn pid(&self) -> String {
        self.process.id().to_string()
    }

    /// Moves the current thread into the network namespace.
    fn enter(&self) {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).expect("the holder lives");
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

const UNSHARE: [&str; 8] = ["--pdeathsig", "KILL", "--", "unshare", "--net", "--mount", "--propagation", "private"];
const SWITCH: &str = "ip link set lo up; echo ready; exec sleep infinity";

/// The first line a process prints; empty if it ends without one.
fn first_line(process: &mut Child) -> String {
    let mut line = String::new();
    if let Some(output) = process.stdout.as_mut() {
        drop(BufReader::new(output).read_line(&mut line));
    }
    line.trim_end().to_owned()
}

fn run(line: &str) {
    finish(Command::new("sh").args(["-ec", line]), line, "");
}

fn finish(command: &mut Command, line: &str, input: &str) {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{line}: {error}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A command that ends without reading its input says why by its status.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().expect("a child ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {}{said}", String::from_utf8_lossy(&output.stdout));
}
