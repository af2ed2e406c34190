//! Members that change hands: a real etcd's data directory becomes ours and goes back, after kills under load, alone and in
//! a cluster that goes on meanwhile. Nothing that was acknowledged is lost, hashes are equal at each step.

#![allow(clippy::indexing_slicing, reason = "what is not there fails the test")]

#[path = "support/mod.rs"]
mod support;

use quorate::pb::etcdserverpb as pb;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use support::cluster::Cluster;
use support::daemon::Daemon;
use support::grpc::{self, Client};
use support::offline::{block_on, connect, run, story, succeed, text, write_history};
use support::program::Program;
use support::{http, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);
/// Writes of a load before the kill.
const WRITES: i64 = 150;

/// Writes until the member dies; the last revision that was acknowledged.
async fn write_until_death(endpoint: &str, acknowledged: &AtomicI64) {
    let mut client = Client::connect(endpoint).await.expect("the member answers");
    for number in 0.. {
        let put = grpc::put(format!("load/{}", number % 40), vec![b'l'; 300]);
        let Ok(done) = client.kv.put(put).await else { return };
        let revision = done.into_inner().header.expect("a header").revision;
        acknowledged.fetch_max(revision, Ordering::Relaxed);
    }
}

/// Kills `daemon` while two clients write; the last revision that was acknowledged.
fn kill_under_load(daemon: &mut Daemon) -> i64 {
    let (acknowledged, endpoint) = (AtomicI64::new(0), daemon.endpoint());
    let before = revision(daemon);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| block_on(write_until_death(&endpoint, &acknowledged)));
        }
        let written = || (acknowledged.load(Ordering::Relaxed) > before + WRITES).then_some(());
        wait_for(PATIENCE, written).expect("writes");
        daemon.kill();
    });
    acknowledged.into_inner()
}

fn revision(daemon: &Daemon) -> i64 {
    let asked = async { connect(daemon).await.kv.range(grpc::get("none")).await.expect("an answer").into_inner() };
    block_on(asked).header.expect("a header").revision
}

fn told(daemon: &Daemon, revision: i64) -> (u32, i64, Vec<(i64, Vec<String>)>) {
    block_on(async { story(&mut connect(daemon).await, revision).await })
}

/// Identifiers of cluster and member.
fn identity(daemon: &Daemon) -> (u64, u64) {
    let asked = async { connect(daemon).await.maintenance.status(pb::StatusRequest {}).await.expect("an answer") };
    let header = block_on(asked).into_inner().header.expect("a header");
    (header.cluster_id, header.member_id)
}

/// A daemon that takes the place of `other`: its addresses, and a directory of its own.
fn successor(program: &Program, other: &Daemon, arguments: &[&str]) -> Daemon {
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), program, arguments);
    (daemon.client, daemon.peer) = (other.client, other.peer);
    daemon
}

fn import(from: &Path, to: &Path, more: &[&str]) -> serde_json::Value {
    let words = ["import", text(from), "--data-dir", text(to), "-w", "json"];
    serde_json::from_str(&succeed(&Program::quorateutl(), &[&words[..], more].concat())).expect("JSON")
}

fn export(from: &Path, to: &Path, more: &[&str]) -> serde_json::Value {
    let words = ["export", "--data-dir", text(from), "--to-data-dir", text(to), "-w", "json"];
    serde_json::from_str(&succeed(&Program::quorateutl(), &[&words[..], more].concat())).expect("JSON")
}

/// Every file below `directory`, with its length and the hash of its contents.
fn contents(directory: &Path) -> BTreeMap<PathBuf, (usize, u32)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = std::fs::read(&path).expect("a file");
            found.insert(path, (bytes.len(), crc32c::crc32c(&bytes)));
        }
    }
    found
}

/// Starts `daemon` on a directory that it must refuse; what it says.
fn refused(daemon: &mut Daemon) -> String {
    daemon.spawn();
    let status = wait_for(PATIENCE, || daemon.exited()).expect("it ends");
    assert!(!status.success(), "{}", daemon.log());
    daemon.kill();
    daemon.log()
}

#[test]
fn a_killed_member_becomes_ours_and_goes_back() {
    let minors = Program::etcd_minors().into_iter().map(|(minor, [etcd, ..])| (minor, etcd));
    for (minor, etcd) in minors.chain([("3.5", Program::etcd_3_5_1())]) {
        // 1. An etcd that is killed while it writes, with snapshots in its log.
        let mut first = Daemon::start(&etcd, &["--snapshot-count=150"]);
        block_on(async { write_history(&mut connect(&first).await).await });
        let at = revision(&first);
        let (story, identity_before) = (told(&first, at), identity(&first));
        let acknowledged = kill_under_load(&mut first);

        // 2. A check changes nothing; the import does, and etcd is fenced off.
        let before = contents(first.directory());
        let check = run(&Program::quorateutl(), &["import", text(&first.data_dir()), "--check", "-w", "json"]);
        assert_eq!(check.code, Some(0), "{check:?}");
        assert_eq!(contents(first.directory()), before);
        let mut ours = successor(&Program::subject(), &first, &[&format!("--compat-version={minor}")]);
        let report = import(&first.data_dir(), &ours.data_dir(), &[]);
        let checked: serde_json::Value = serde_json::from_str(&check.out).expect("JSON");
        assert_eq!((&checked["commit"], &checked["hash"]), (&report["commit"], &report["hash"]));
        assert!(first.data_dir().join("member.imported/snap/db").is_file(), "nothing is deleted");
        refused(&mut first);

        // 3. Nothing is lost, and clients meet whom they know.
        ours.restart();
        assert_eq!(told(&ours, at), story, "{}", etcd.name);
        assert_eq!(identity(&ours), identity_before);
        assert!(revision(&ours) >= acknowledged, "{}: acknowledged {acknowledged}", etcd.name);

        // 4. And back, after another kill.
        let acknowledged = kill_under_load(&mut ours);
        let mut back = successor(&etcd, &ours, &[]);
        let wal = back.directory().join("log");
        let report = export(&ours.data_dir(), &back.data_dir(), &["--wal-dir", text(&wal)]);
        back.add_argument(format!("--wal-dir={}", text(&wal)));
        let log = refused(&mut ours);
        assert!(log.contains("was handed on"), "{log}");
        back.restart();
        assert_eq!(told(&back, at), story, "{}", etcd.name);
        assert_eq!(identity(&back), identity_before);
        let exported = told(&back, report["revision"].as_i64().expect("a revision")).0;
        assert_eq!(Some(u64::from(exported)), report["hash"].as_u64(), "{}", etcd.name);
        assert!(revision(&back) >= acknowledged, "{}: acknowledged {acknowledged}", etcd.name);
        block_on(async { connect(&back).await.kv.put(grpc::put("a", "b")).await.expect("a put") });
        back.terminate();
        back.restart();

        // 5. Once more, from a directory of our own making, with its log elsewhere.
        back.terminate();
        let mut again = successor(&Program::subject(), &back, &[&format!("--compat-version={minor}")]);
        import(&back.data_dir(), &again.data_dir(), &["--from-wal-dir", text(&wal)]);
        again.restart();
        assert_eq!(told(&again, at), story, "{}", etcd.name);
    }
}

/// Writes to any member until told to stop; how many writes were acknowledged.
async fn write_to_any(endpoints: &[String], stop: &AtomicBool) -> usize {
    let mut clients: Vec<_> = endpoints.iter().map(|endpoint| Client::lazy(endpoint)).collect();
    let (mut written, mut next) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let client = &mut clients[next];
        let put = client.kv.put(grpc::put(format!("any/{}", written % 30), vec![b'a'; 200]));
        match tokio::time::timeout(Duration::from_secs(3), put).await {
            Ok(Ok(_)) => written += 1,
            _ => next = (next + 1) % endpoints.len(),
        }
    }
    written
}

/// Waits until all members have the same hash at a revision of now.
fn agree(members: &[&Daemon]) {
    let revision = revision(members[0]);
    let agreed = wait_for(PATIENCE, || {
        let hash = async |daemon: &&Daemon| {
            let mut client = Client::connect(&daemon.endpoint()).await.ok()?;
            Some(client.maintenance.hash_kv(pb::HashKvRequest { revision }).await.ok()?.into_inner().hash)
        };
        let hashes: Vec<_> = members.iter().map(|member| block_on(hash(member))).collect();
        (hashes[0].is_some() && hashes.iter().all(|hash| *hash == hashes[0])).then_some(())
    });
    assert!(agreed.is_some(), "members differ at revision {revision}");
}

#[test]
fn members_of_a_live_cluster_change_hands_and_it_goes_on() {
    let arguments = ["--snapshot-count=100"];
    let mut cluster = Cluster::start_of(&Program::etcd(), 3, &arguments);
    block_on(async { write_history(&mut connect(&cluster.members[0]).await).await });
    let (stop, list) = (AtomicBool::new(false), cluster.initial_cluster());
    let endpoints: Vec<_> = cluster.members.iter().map(Daemon::endpoint).collect();
    let identities: Vec<_> = cluster.members.iter().map(identity).collect();
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| block_on(write_to_any(&endpoints, &stop)));
        // Two of three become ours, one after the other, each killed while it takes part; the first goes back.
        for (number, to_etcd) in [(0, false), (1, false), (0, true)] {
            let old = &mut cluster.members[number];
            old.kill();
            let program = if to_etcd { Program::etcd() } else { Program::subject() };
            let mut new = successor(&program, old, &[]);
            for argument in [format!("--name=m{}", number + 1), format!("--initial-cluster={list}")] {
                new.add_argument(argument);
            }
            if to_etcd {
                export(&old.data_dir(), &new.data_dir(), &[]);
            } else {
                import(&old.data_dir(), &new.data_dir(), &[]);
            }
            new.restart();
            assert_eq!(identity(&new), identities[number]);
            cluster.members[number] = new;
            agree(&cluster.members.iter().collect::<Vec<_>>());
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer")
    });
    assert!(written > 20, "{written} writes");
    agree(&cluster.members.iter().collect::<Vec<_>>());
}

/// etcd's tool leaves the voters of the cluster in the database that the snapshot was taken of: such a member was refused.
#[test]
fn a_member_that_etcd_has_restored_becomes_ours() {
    let first = Daemon::start(&Program::etcd(), &["--unsafe-no-fsync"]);
    block_on(async { write_history(&mut connect(&first).await).await });
    let file = first.directory().join("snapshot.db");
    succeed(&Program::etcdctl(), &["--endpoints", &first.endpoint(), "snapshot", "save", text(&file)]);
    let at = revision(&first);
    let keys = told(&first, at).2;
    for has_run in [false, true] {
        let mut restored = Daemon::prepare(&std::env::temp_dir(), &Program::etcd(), &["--snapshot-count=100"]);
        let (data, peer) = (restored.data_dir(), format!("http://{}", restored.peer));
        let words = ["snapshot", "restore", text(&file), "--data-dir", text(&data), "--name", "m1"];
        let founded = ["--initial-cluster", &format!("m1={peer}"), "--initial-advertise-peer-urls", &peer];
        succeed(&Program::etcdutl(), &[&words[..], &founded].concat());
        if has_run {
            restored.restart();
            kill_under_load(&mut restored);
        }
        let mut ours = successor(&Program::subject(), &restored, &[]);
        let report = import(&data, &ours.data_dir(), &[]);
        assert_eq!(report["members"].as_u64(), Some(1), "{report}");
        ours.restart();
        assert_eq!(told(&ours, at).2, keys, "has run: {has_run}");
        block_on(async { connect(&ours).await.kv.put(grpc::put("a", "b")).await.expect("a put") });
    }
}

#[test]
fn what_cannot_be_taken_over_is_left_alone() {
    let home = tempfile::tempdir().expect("a directory");
    let out = home.path().join("out/data");
    let tool = Program::quorateutl();
    let refuse = |words: &[&str], why: &str| {
        let ending = run(&tool, words);
        let failed = ending.code.is_some_and(|code| code != 0) && ending.errors.len() == 1 && ending.out.is_empty();
        assert!(failed && ending.errors[0].contains(why), "{words:?}: {ending:?}");
        assert!(!home.path().join("out").exists(), "{words:?}: something is left");
    };
    let mut etcd = Daemon::start(&Program::etcd(), &["--unsafe-no-fsync"]);
    block_on(async { write_history(&mut connect(&etcd).await).await });
    let data = etcd.data_dir();
    let take = ["import", text(&data), "--data-dir", text(&out)];
    refuse(&take, "is in use by another process");
    etcd.terminate();
    let before = contents(etcd.directory());

    // Contradictions.
    refuse(&["import"], "exactly one argument");
    refuse(&["import", text(&data)], "requires --data-dir");
    refuse(&[&take[..], &["--name", "x"]].concat(), "--name is for snapshot files");
    refuse(&[&take[..], &["--wal-dir", text(&out)]].concat(), "is the data directory itself");
    refuse(&[&take[..], &["--from-wal-dir", text(home.path())]].concat(), "no write-ahead log");
    refuse(&["import", text(home.path()), "--data-dir", text(&out)], "holds no data of etcd");
    refuse(&["import", text(&data), "--data-dir", text(etcd.directory())], "not empty");
    refuse(&["export", "--data-dir", text(&data), "--to-data-dir", text(&out)], "holds no member of Quorate");
    refuse(&[&take[..], &["-w", "table"]].concat(), "table not supported as output format");
    refuse(&["export", "--data-dir", text(&data)], "requires --data-dir, and one of");
    refuse(
        &["export", "--data-dir", text(&data), "--to-snapshot", text(&out), "--wal-dir", "w"],
        "--wal-dir goes with",
    );

    // Damage, in the database and in the log.
    let database = data.join("member/snap/db");
    let whole = std::fs::read(&database).expect("the database");
    let first_log = data.join("member/wal/0000000000000000-0000000000000000.wal");
    let log = std::fs::read(&first_log).expect("the log");
    for cut in [100, whole.len() / 2, whole.len() - 4_096] {
        std::fs::write(&database, &whole[..cut]).expect("a file");
        refuse(&take, "");
        refuse(&["import", text(&data), "--check"], "");
    }
    for number in 0..12 {
        let mut damaged = whole.clone();
        damaged[2 * 4_096 + number * (whole.len() / 12 - 800)] ^= 0xff;
        std::fs::write(&database, &damaged).expect("a file");
        // A byte of a page that is free, or behind the rows of a page, is missed by nobody.
        let ending = run(&tool, &["import", text(&data), "--check"]);
        assert!(ending.code == Some(0) || (ending.code == Some(1) && ending.errors.len() == 1), "{ending:?}");
    }
    std::fs::write(&database, &whole).expect("a file");
    let mut damaged = log.clone();
    damaged[300] ^= 1;
    std::fs::write(&first_log, &damaged).expect("a file");
    refuse(&take, "is damaged at offset");
    std::fs::write(&first_log, &log).expect("a file");
    assert_eq!(contents(etcd.directory()), before, "something was changed");
}

#[test]
fn keys_of_the_v2_api_are_not_left_behind_in_silence() {
    let mut etcd = Daemon::start(&Program::etcd_3_5_1(), &["--unsafe-no-fsync", "--enable-v2"]);
    let put = http::put_form(etcd.client, "/v2/keys/config", "value=1").expect("an answer");
    assert_eq!(put.status, 201, "{put:?}");
    etcd.terminate();
    let out = etcd.directory().join("out");
    for words in [&["--data-dir", text(&out)][..], &["--check"]] {
        let ending = run(&Program::quorateutl(), &[&["import", text(&etcd.data_dir())], words].concat());
        assert!(ending.code == Some(1) && ending.errors[0].contains("v2"), "{ending:?}");
    }
    assert!(!out.exists() && etcd.data_dir().join("member").is_dir());
}

#[test]
fn a_stopped_member_gives_a_snapshot() {
    let mut ours = Daemon::start(&Program::subject(), &[]);
    block_on(async { write_history(&mut connect(&ours).await).await });
    let now = revision(&ours);
    let hash = told(&ours, now).0;
    ours.kill();
    let (data, file) = (ours.data_dir(), ours.directory().join("snapshot.db"));
    let words = ["export", "--data-dir", text(&data), "--to-snapshot", text(&file), "-w", "json"];
    let report: serde_json::Value = serde_json::from_str(&succeed(&Program::quorateutl(), &words)).expect("JSON");
    assert_eq!((report["revision"].as_i64(), report["hash"].as_u64()), (Some(now), Some(hash.into())));
    let [status, theirs] = [Program::quorateutl(), Program::etcdutl()]
        .map(|tool| succeed(&tool, &["snapshot", "status", text(&file), "-w", "json"]));
    assert_eq!(status, theirs);
    ours.restart();
    assert_eq!(told(&ours, now).0, hash, "the directory stays as it is");
}

/// The largest table file of the state in `directory`.
fn largest_table(directory: &Path) -> PathBuf {
    let is_table = |path: &Path| path.parent().is_some_and(|parent| parent.ends_with("tables"));
    let tables = contents(directory).into_iter().filter(|(path, _)| is_table(path));
    tables.max_by_key(|(_, (bytes, _))| *bytes).expect("tables").0
}

/// Verifies `directory`: exit code, and what was said.
fn verified(directory: &Path) -> (Option<i32>, String) {
    let ending = run(&Program::quorateutl(), &["verify", text(directory)]);
    (ending.code, [ending.out, ending.errors.join("\n")].concat())
}

/// Flips a bit in the middle of `file`, looks, and puts it back.
fn with_damage(directory: &Path, file: &Path, at: usize) -> String {
    let whole = std::fs::read(file).expect("a file");
    let mut damaged = whole.clone();
    damaged[at] ^= 4;
    std::fs::write(file, damaged).expect("a file");
    let (code, said) = verified(directory);
    std::fs::write(file, whole).expect("a file");
    assert!(code == Some(1) && said.contains(text(file)), "{}: {said}", file.display());
    said
}

/// The words of `quorateutl`, called where `directory` cannot be written.
fn on_read_only_mount(directory: &Path, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" && shift && exec \"$@\"";
    command.args(["sh", "-c", script, "sh", text(directory)]).arg(&Program::quorateutl().path).args(words);
    let output = command.output().expect("util-linux is there");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// A running member's directory was called damaged, and one on a mount that is read-only could not be looked at.
#[test]
fn what_is_only_read_need_not_be_writable() {
    let mut ours = Daemon::start(&Program::subject(), &["--snapshot-count=100"]);
    let mut etcd = Daemon::start(&Program::etcd(), &["--unsafe-no-fsync"]);
    for daemon in [&ours, &etcd] {
        block_on(async { write_history(&mut connect(daemon).await).await });
    }
    let (data, theirs) = (ours.data_dir(), etcd.data_dir());
    let [verify_ours, verify_theirs] = [&data, &theirs].map(|directory| ["verify", text(directory)]);
    let check = ["import", "--check", text(&theirs)];
    let looks = |daemon: &Daemon, words: &[&str]| on_read_only_mount(daemon.directory(), words);
    for (daemon, words) in [(&ours, &verify_ours[..]), (&etcd, &verify_theirs), (&etcd, &check)] {
        let (code, said) = looks(daemon, words);
        let holder = format!("is in use by another process (process {}, ", daemon.pid());
        assert!(code == Some(1) && said.contains(&holder) && !said.contains("damaged"), "{words:?}: {said}");
        assert!(said.contains("stop that process first") && !said.contains("--data-dir"), "{words:?}: {said}");
    }
    ours.kill();
    etcd.kill();
    let before = [&ours, &etcd].map(|daemon| contents(daemon.directory()));
    for (daemon, words) in [(&ours, &verify_ours[..]), (&etcd, &verify_theirs), (&etcd, &check)] {
        let (code, said) = looks(daemon, words);
        assert!(
            code == Some(0) && (said.contains("sound") || said.contains("nothing was written")),
            "{words:?}: {said}"
        );
    }
    assert_eq!(verified(&data).0, Some(0));
    // A snapshot of it, too.
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("snapshot.db");
    let words = ["export", "--data-dir", text(&data), "--to-snapshot", text(&file), "-w", "json"];
    let (code, said) = looks(&ours, &words);
    assert_eq!(code, Some(0), "{said}");
    let report: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert!(before == [&ours, &etcd].map(|daemon| contents(daemon.directory())), "something was written");
    ours.restart();
    let now = revision(&ours);
    assert_eq!((report["revision"].as_i64(), report["hash"].as_u64()), (Some(now), Some(told(&ours, now).0.into())));
    succeed(&Program::etcdutl(), &["snapshot", "status", text(&file)]);
}

/// Such a directory was said to hold no data.
#[test]
fn who_may_not_read_a_directory_hears_who_may() {
    if !nix::unistd::geteuid().is_root() {
        // Whoever owns everything here may read it.
        return;
    }
    let nobodys = |path: &Path| nix::unistd::chown(path, Some(65_534.into()), None).expect("root may");
    let refused = |words: &[&str], path: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-dac_override,-dac_read_search", "--"]);
        let output = command.arg(&Program::quorateutl().path).args(words).output().expect("util-linux is there");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let expected = format!("{} may not be read: run this as root, or as nobody, whose it is: ", text(path));
        assert!(output.status.code() == Some(1) && said.contains(&expected), "{words:?}: {said}");
        assert!(said.contains("Permission denied") && !said.contains("damaged"), "{said}");
    };
    let mut etcd = Daemon::start(&Program::etcd(), &["--unsafe-no-fsync"]);
    etcd.terminate();
    let data = etcd.data_dir();
    nobodys(&data);
    for words in [&["import", "--check", text(&data)][..], &["verify", text(&data)]] {
        refused(words, &data.join("member/snap/db"));
    }
    // Parts of ours that somebody else has written were called damaged.
    let mut ours = Daemon::start(&Program::subject(), &["--snapshot-count=10"]);
    block_on(async { write_history(&mut connect(&ours).await).await });
    ours.terminate();
    let data = ours.data_dir();
    let first = |directory: &str| contents(&data.join(directory)).into_keys().next().expect("a file");
    for part in [data.join("FORMAT"), data.join("member/state"), first("member/wal"), first("member/snap")] {
        let before = std::fs::metadata(&part).expect("it is there").permissions();
        let mode = if part.is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(&part, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("root may");
        nobodys(&part);
        refused(&["verify", text(&data)], &part);
        nix::unistd::chown(&part, Some(0.into()), None).expect("root may");
        std::fs::set_permissions(&part, before).expect("root may");
    }
    assert_eq!(verified(&data).0, Some(0));
}

#[test]
fn damage_is_named_with_file_and_remedy() {
    let mut first = Daemon::start(&Program::subject(), &["--snapshot-count=100"]);
    block_on(async { write_history(&mut connect(&first).await).await });
    let file = first.directory().join("snapshot.db");
    succeed(&Program::etcdctl(), &["--endpoints", &first.endpoint(), "snapshot", "save", text(&file)]);
    assert!(verified(&first.data_dir()).1.contains("in use by another process"));
    let story = told(&first, revision(&first));
    first.terminate();
    let (code, said) = verified(&first.data_dir());
    assert!(code == Some(0) && said.contains("the log is sound") && said.contains("belong together"), "{said}");
    let log = contents(&first.data_dir().join("member/wal")).into_keys().next().expect("a log");
    assert!(with_damage(&first.data_dir(), &log, 300).contains("is damaged at offset"));
    let snap = contents(&first.data_dir().join("member/snap")).into_keys().next().expect("a snapshot file");
    assert!(with_damage(&first.data_dir(), &snap, 100).contains("is damaged"));

    // What is restored lies in files of its tables.
    let mut second = successor(&Program::subject(), &first, &[]);
    let (data, peer) = (second.data_dir(), format!("http://{}", second.peer));
    let words = ["snapshot", "restore", text(&file), "--data-dir", text(&data), "--name", "m1"];
    let cluster = format!("m1={peer}");
    let founded = ["--initial-cluster", &cluster, "--initial-advertise-peer-urls", &peer];
    succeed(&Program::quorateutl(), &[&words[..], &founded].concat());
    assert_eq!(verified(&data).0, Some(0));
    let table = largest_table(&data.join("member/state"));
    let middle = std::fs::metadata(&table).expect("a file").len() / 2;
    with_damage(&data, &table, usize::try_from(middle).expect("a length"));
    second.restart();
    assert_eq!(told(&second, revision(&second)), story, "verifying has changed something");

    // etcd's, too.
    let mut etcd = Daemon::start(&Program::etcd(), &["--unsafe-no-fsync"]);
    block_on(async { write_history(&mut connect(&etcd).await).await });
    etcd.kill();
    let (code, said) = verified(&etcd.data_dir());
    assert!(code == Some(0) && said.contains("etcd's log and database are sound"), "{said}");
}

#[test]
fn commands_without_work_say_so_in_etcds_words() {
    let mut ours = Daemon::start(&Program::subject(), &[]);
    ours.terminate();
    let (data, absent) = (ours.data_dir(), ours.directory().join("absent"));
    let (data, absent) = (text(&data), text(&absent));
    for words in [
        &["defrag"][..],
        &["defrag", "--data-dir", absent],
        &["migrate"],
        &["migrate", "--data-dir", absent],
        &["migrate", "--data-dir", absent, "--target-version", "3"],
        &["migrate", "--data-dir", absent, "--target-version", "3.4"],
        &["migrate", "--data-dir", absent, "--target-version", "3.6"],
    ] {
        let [own, theirs] = [Program::quorateutl(), Program::etcdutl()].map(|tool| run(&tool, words));
        assert!(own == theirs && own.code != Some(0), "{words:?}: {own:?}, {theirs:?}");
    }
    let done = Program::quorateutl().command().args(["defrag", "--data-dir", data]).output().expect("the tool starts");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && said.contains("gives back the space"), "{said}");
    let migrate = |version| run(&Program::quorateutl(), &["migrate", "--data-dir", data, "--target-version", version]);
    assert_eq!(migrate("3.7").code, Some(0));
    let refused = migrate("3.6");
    assert!(
        refused.code == Some(1) && refused.errors[0].contains("`quoratectl downgrade enable` lowers it to 3.6"),
        "{refused:?}"
    );
}
