//! Certificates, keys, authorities and revocation lists are exchanged under three members and their clients, who do not notice,
//! except for the one whose certificate was revoked.
//!
//! The files are exchanged as Kubernetes does it: a link to a directory with all of them is swapped.

mod support;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use support::{
    certificates::{Authority, Pair, replace},
    cluster::{Cluster, PATIENCE},
    daemon::Daemon,
    now,
    program::Program,
    wait_for,
};

const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];
/// What is in use is looked at this often, and a change is in force.
const LOOK: Duration = Duration::from_secs(1);
/// Clients that write at a time, each with a connection for each key.
const WRITERS: usize = 2;

/// A directory whose files are exchanged together.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        for name in ["ca.pem", "crl", "tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), place.path(name)).expect("a link");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// From now on these are the files.
    fn exchange(&self, version: &str, authorities: &[&Authority], pair: &Pair, revoked: &Path) {
        let own = self.path(version);
        fs::create_dir(&own).expect("a directory");
        let bundle: Vec<u8> = authorities.iter().flat_map(|one| fs::read(one.file()).expect("a file")).collect();
        fs::write(own.join("ca.pem"), bundle).expect("written");
        for (from, name) in [(pair.cert.as_path(), "tls.crt"), (&pair.key, "tls.key"), (revoked, "crl")] {
            fs::copy(from, own.join(name)).expect("a copy");
        }
        symlink(version, self.path("..new")).expect("a link");
        fs::rename(self.path("..new"), self.path("..data")).expect("a swap");
    }

    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        let mut flags = Vec::new();
        for prefix in ["", "peer-"] {
            flags.push(format!("--{prefix}cert-file={}", path("tls.crt")));
            flags.push(format!("--{prefix}key-file={}", path("tls.key")));
            flags.push(format!("--{prefix}trusted-ca-file={}", path("ca.pem")));
        }
        flags.push(format!("--client-crl-file={}", path("crl")));
        flags.push(format!("--peer-crl-file={}", path("crl")));
        flags
    }
}

/// Three members that show these files to each other, and to clients that want it.
fn start(flags: &[String]) -> Cluster {
    let mut cluster = Cluster::found_over("https", []);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    for _ in 0..3 {
        cluster.prepare(&flags);
    }
    let list = cluster.initial_cluster();
    for member in &mut cluster.members {
        member.add_argument(format!("--initial-cluster={list}"));
        member.add_argument(format!("--listen-client-urls=http://{0},https://{0}", member.client));
        member.spawn();
    }
    for member in &mut cluster.members {
        assert!(member.wait_ready(PATIENCE), "{}", member.log());
    }
    cluster
}

/// A client with a certificate, that believes the authorities in a file.
struct Client {
    endpoints: String,
    pair: Pair,
    authorities: PathBuf,
}

impl Client {
    fn put(&self, key: &str) -> Result<(), String> {
        let output = Command::new(Program::quoratectl().path)
            .arg(format!("--endpoints={}", self.endpoints))
            .arg(format!("--cacert={}", self.authorities.display()))
            .args(self.pair.client_flags())
            .args(["--dial-timeout=5s", "--command-timeout=10s", "put", key, "value"])
            .output()
            .expect("quoratectl starts");
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// Whether a connection is let in at all.
    fn knocks(&self, url: &str) -> bool {
        let [cert, key] = [&self.pair.cert, &self.pair.key];
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "10", "--cacert"])
            .arg(&self.authorities)
            .arg("--cert")
            .arg(cert)
            .arg("--key")
            .arg(key)
            .arg(format!("{url}/version"))
            .output()
            .expect("curl is installed: apt-get install curl");
        output.status.success()
    }
}

#[test]
fn everything_is_exchanged_under_load_and_the_revoked_client_is_shut_out() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let (old, new) = (first.issue("member", &HOSTS), second.issue("member", &HOSTS));
    let (good, bad) = (first.issue("good", &[]), first.issue("bad", &[]));
    let [none, _] = first.revoke("none", &[]);
    let [revoked, _] = first.revoke("bad", &[&bad]);
    let place = Place::new();
    place.exchange("v1", &[&first], &old, &none);
    let mut cluster = start(&place.flags());
    let urls: Vec<String> = cluster.members.iter().map(|member| format!("https://{}", member.client)).collect();
    let of = |pair: &Pair| Client { endpoints: urls.join(","), pair: pair.clone(), authorities: place.path("ca.pem") };
    let (is_over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (is_over, done, writer) = (&is_over, &done, of(&good));
    let failed: Vec<String> = thread::scope(|scope| {
        let write = |number: usize| {
            let writer = &writer;
            move || {
                let mut failed = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let key = format!("{number}/{}", done.fetch_add(1, Ordering::Relaxed));
                    failed.extend(writer.put(&key).err());
                }
                failed
            }
        };
        let writers: Vec<_> = (0..WRITERS).map(|number| scope.spawn(write(number))).collect();
        let intruder = of(&bad);
        assert!(urls.iter().all(|url| intruder.knocks(url)), "nothing is revoked yet");
        thread::sleep(LOOK);
        place.exchange("v2", &[&first, &second], &old, &none);
        thread::sleep(LOOK);
        place.exchange("v3", &[&first, &second], &new, &none);
        thread::sleep(LOOK);
        place.exchange("v4", &[&first, &second], &new, &revoked);
        let begun = now();
        assert!(urls.iter().all(|url| !intruder.knocks(url)), "it counts for the next connection");
        assert!(begun.elapsed() < LOOK, "{:?}", begun.elapsed());
        thread::sleep(LOOK);
        is_over.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().expect("it ends")).collect()
    });
    assert_eq!(failed, [""; 0], "of {}", done.load(Ordering::Relaxed));
    assert!(done.load(Ordering::Relaxed) > 20, "{}", done.load(Ordering::Relaxed));
    // Nobody has been disconnected; who comes back is dialled, and dials, with the new certificates.
    let leader = cluster.leader();
    cluster.members[leader].kill();
    place.exchange("v5", &[&first, &second], &new, &revoked);
    cluster.members[leader].restart();
    cluster.ctl_until(leader, &["put", "key", "value"]);
    let log = cluster.members[leader].log();
    assert!(!log.contains("rejected connection"), "{log}");
}

/// A pair that is written one file after the other, and files that are no certificates for a while.
#[test]
fn files_that_cannot_be_used_leave_the_last_good_ones_in_force_and_are_told_once() {
    let authority = Authority::new("ca");
    let (old, new) = (authority.issue("old", &HOSTS), authority.issue("new", &HOSTS));
    let directory = tempfile::tempdir().expect("a directory");
    let pair = Pair { cert: directory.path().join("tls.crt"), key: directory.path().join("tls.key") };
    fs::copy(&old.cert, &pair.cert).expect("a copy");
    fs::copy(&old.key, &pair.key).expect("a copy");
    let flags: Vec<String> = pair.flags("--").into();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), &Program::subject(), &flags);
    daemon.client_scheme = "https";
    daemon.spawn();
    assert!(daemon.wait_ready(PATIENCE), "{}", daemon.log());
    let client = Client { endpoints: String::new(), pair: old.clone(), authorities: authority.file() };
    let told = |text: &str| daemon.log().lines().filter(|line| line.contains(text)).count();
    fs::copy(&new.cert, &pair.cert).expect("a copy");
    let complaint = "cannot use a changed certificate: the last good one stays in force";
    // Nobody connects meanwhile.
    assert!(wait_for(PATIENCE, || (told(complaint) > 0).then_some(())).is_some(), "{}", daemon.log());
    for _ in 0..5 {
        assert!(client.knocks(&daemon.endpoint()));
    }
    assert_eq!((told(complaint), told("private key does not match public key: it is not the key of")), (1, 1));
    fs::copy(&new.key, &pair.key).expect("a copy");
    assert!(client.knocks(&daemon.endpoint()));
    assert_eq!(told("read a new certificate"), 1, "{}", daemon.log());
    for (number, text) in ["", "-----BEGIN CERTIFICATE-----\nAAAA", "\u{0}\u{1}"].into_iter().enumerate() {
        replace(&pair.cert, text.as_bytes());
        assert!(client.knocks(&daemon.endpoint()));
        assert_eq!(told(complaint), number + 2, "{}", daemon.log());
    }
    fs::remove_file(&pair.cert).expect("removed");
    assert!(client.knocks(&daemon.endpoint()));
    fs::copy(&old.cert, &pair.cert).expect("a copy");
    fs::copy(&old.key, &pair.key).expect("a copy");
    assert!(client.knocks(&daemon.endpoint()));
}
