//! Whether the files of several members form one cluster: `config check a.conf b.conf c.conf`. Every mistake between two
//! files is told with its place in both.

use std::{ffi::OsString, fs, path::PathBuf};

use quorate::{cli, config::Sources};
use serde_json::Value as Json;
use tempfile::TempDir;

/// The files of a cluster's members.
struct Files {
    place: TempDir,
    names: Vec<String>,
}

impl Files {
    /// The deployment guide's three, as `1.conf`, `2.conf` and `3.conf`.
    fn of_the_guide() -> Self {
        let mut files = Self { place: tempfile::tempdir().expect("a directory"), names: Vec::new() };
        for number in 1..=3 {
            let text = fs::read_to_string(format!("tests/config/field/guide_etcd{number}.env")).expect("read");
            files.write(&format!("{number}.conf"), &text);
        }
        files
    }

    fn write(&mut self, name: &str, text: &str) {
        fs::write(self.place.path().join(name), text).expect("written");
        if !self.names.iter().any(|own| own == name) {
            self.names.push(name.to_owned());
        }
    }

    /// Puts one text in the place of another, which is there.
    fn edit(&mut self, name: &str, old: &str, new: &str) {
        let path = self.path(name);
        let text = fs::read_to_string(&path).expect("read");
        assert!(text.contains(old), "{name} holds {old}");
        fs::write(path, text.replace(old, new)).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Exit code and output of the check, without the directory.
    fn check(&self, more: &[&str]) -> (u8, String) {
        let mut args: Vec<OsString> = vec!["check".into()];
        args.extend(more.iter().map(OsString::from));
        args.extend(self.names.iter().map(|name| self.path(name).into_os_string()));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = cli::config::run_on(&Sources::default(), &args, &mut out, &mut err);
        assert!(err.is_empty(), "{}", String::from_utf8_lossy(&err));
        let out = String::from_utf8(out).expect("text");
        (code, out.replace(&format!("{}/", self.place.path().display()), ""))
    }

    /// The findings between files, without the remarks that each file gets for itself.
    fn findings(&self) -> Vec<String> {
        let (_, out) = self.check(&[]);
        let lines = out.lines().filter(|line| line.starts_with("error: ") || line.contains(".conf:"));
        lines.map(str::to_owned).collect()
    }
}

#[test]
fn the_guides_three_form_one_cluster() {
    let (code, out) = Files::of_the_guide().check(&[]);
    assert_eq!((code, out.lines().last()), (0, Some("the 3 configurations are valid and form one cluster")));
    assert_eq!(Files::of_the_guide().findings(), Vec::<String>::new());
}

#[test]
fn every_mistake_between_two_files_names_both_places() {
    let list = "etcd1=http://10.5.12.16:2380,etcd2=http://10.5.12.17:2380,etcd3=http://10.5.12.18:2380";
    let cases: [(&str, &str, &str, &[&str]); 9] = [
        (
            "2.conf",
            "\"etcd-cluster\"",
            "\"etcd-clutser\"",
            &["error: 2.conf:8: ETCD_INITIAL_CLUSTER_TOKEN=etcd-clutser: all members need the same (1.conf:8: \
               ETCD_INITIAL_CLUSTER_TOKEN=etcd-cluster); correct: ETCD_INITIAL_CLUSTER_TOKEN=etcd-cluster"],
        ),
        (
            "3.conf",
            ",etcd2=http://10.5.12.17:2380",
            "",
            &[
                "error: 3.conf:6: ETCD_INITIAL_CLUSTER=etcd1=http://10.5.12.16:2380,etcd3=http://10.5.12.18:2380: leaves out \
               etcd2=http://10.5.12.17:2380 (1.conf:6: ETCD_INITIAL_CLUSTER={LIST}); correct: ETCD_INITIAL_CLUSTER={LIST}",
            ],
        ),
        (
            "1.conf",
            "etcd3=http://10.5.12.18:2380",
            "etcd3=http://10.5.12.19:2380",
            &["error: 1.conf:6: ETCD_INITIAL_CLUSTER=etcd1=http://10.5.12.16:2380,etcd2=http://10.5.12.17:2380,\
               etcd3=http://10.5.12.19:2380: expects etcd3=http://10.5.12.19:2380, which advertises other peer URLs \
               (3.conf:5: ETCD_INITIAL_ADVERTISE_PEER_URLS=http://10.5.12.18:2380)"],
        ),
        (
            "2.conf",
            "CLIENT_URLS=\"http://10.5.12.17:2379\"",
            "CLIENT_URLS=\"http://10.5.12.16:2379\"",
            &[
                "error: 2.conf:9: ETCD_ADVERTISE_CLIENT_URLS=http://10.5.12.16:2379: http://10.5.12.16:2379 is the address of \
                 two members (1.conf:9: ETCD_ADVERTISE_CLIENT_URLS=http://10.5.12.16:2379)",
                "warning: 2.conf:9: ETCD_ADVERTISE_CLIENT_URLS=http://10.5.12.16:2379: http://10.5.12.16:2379 is not \
                 listened to, only its port at other addresses (2.conf:3: \
                 ETCD_LISTEN_CLIENT_URLS=http://10.5.12.17:2379,http://127.0.0.1:2379)",
            ],
        ),
        (
            "3.conf",
            "STATE=\"new\"",
            "STATE=\"existing\"",
            &[
                "warning: 3.conf:7: ETCD_INITIAL_CLUSTER_STATE=existing: joins a cluster that another file founds: right only \
               if that one is running (1.conf:7: ETCD_INITIAL_CLUSTER_STATE=new)",
            ],
        ),
        (
            "1.conf",
            "LISTEN_PEER_URLS=\"http://10.5.12.16:2380\"",
            "LISTEN_PEER_URLS=\"http://127.0.0.1:2380\"",
            &[
                "warning: 1.conf:5: ETCD_INITIAL_ADVERTISE_PEER_URLS=http://10.5.12.16:2380: http://10.5.12.16:2380 is not \
               listened to, only its port at other addresses (1.conf:4: ETCD_LISTEN_PEER_URLS=http://127.0.0.1:2380)",
            ],
        ),
        (
            "1.conf",
            "CLIENT_URLS=\"http://10.5.12.16:2379\"",
            "CLIENT_URLS=\"http://127.0.0.1:2379\"",
            &[
                "warning: 1.conf:9: ETCD_ADVERTISE_CLIENT_URLS=http://127.0.0.1:2379: http://127.0.0.1:2379 is no address at \
               which another host reaches this one (2.conf:9: ETCD_ADVERTISE_CLIENT_URLS=http://10.5.12.17:2379)",
            ],
        ),
        (
            "3.conf",
            "ETCD_NAME=etcd3\n",
            "ETCD_NAME=etcd3\nETCD_ELECTION_TIMEOUT=5000\n",
            &[
                "warning: 3.conf:2: ETCD_ELECTION_TIMEOUT=5000: all members need the same (1.conf: ETCD_ELECTION_TIMEOUT=1000 \
               (by default)); correct: ETCD_ELECTION_TIMEOUT=1000",
            ],
        ),
        (
            "2.conf",
            "ETCD_NAME=etcd2",
            "ETCD_NAME=etcd1",
            &[
                "error: 2.conf:6: ETCD_INITIAL_CLUSTER={LIST}: --initial-cluster has etcd1=http://10.5.12.16:2380 but missing \
                 from --initial-advertise-peer-urls=http://10.5.12.17:2380 (resolved urls: \"http://10.5.12.17:2380\" != \
                 \"http://10.5.12.16:2380\"); list the same URLs for etcd1 in --initial-cluster as in \
                 --initial-advertise-peer-urls",
                "warning: 1.conf:6: initial-cluster: no file for the member etcd2=http://10.5.12.17:2380 was given",
            ],
        ),
    ];
    for (name, old, new, expected) in cases {
        let mut files = Files::of_the_guide();
        files.edit(name, old, new);
        let expected: Vec<String> = expected.iter().map(|line| line.replace("{LIST}", list)).collect();
        assert_eq!(files.findings(), expected, "{new}");
        let is_wrong = expected.iter().any(|line| line.starts_with("error: "));
        assert_eq!(files.check(&[]).0, u8::from(is_wrong), "{new}");
    }
}

#[test]
fn two_members_of_one_name_are_told() {
    let mut files = Files::of_the_guide();
    let second = fs::read_to_string(files.path("2.conf")).expect("read").replace("10.5.12.17", "10.5.12.20");
    files.write("4.conf", &second);
    let said = files.findings();
    assert!(
        said.contains(
            &"error: 4.conf:1: ETCD_NAME=etcd2: two members are called \"etcd2\" (2.conf:1: ETCD_NAME=etcd2)"
                .to_owned()
        ),
        "{said:#?}"
    );
}

#[test]
fn members_of_one_host_share_neither_directory_nor_port() {
    let member = |name: &str, peer: u16, client: u16, dir: &str| {
        format!(
            "name = \"{name}\"\ndata-dir = \"{dir}\"\nlisten-peer-urls = \"http://127.0.0.1:{peer}\"\n\
             initial-advertise-peer-urls = \"http://127.0.0.1:{peer}\"\nlisten-client-urls = \"http://127.0.0.1:{client}\"\n\
             advertise-client-urls = \"http://127.0.0.1:{client}\"\n\
             initial-cluster = {{ a = \"http://127.0.0.1:2380\", b = \"http://127.0.0.1:2480\" }}\n"
        )
    };
    let mut files = Files { place: tempfile::tempdir().expect("a directory"), names: Vec::new() };
    files.write("a.toml", &member("a", 2380, 2379, "/var/lib/a"));
    files.write("b.toml", &member("b", 2480, 2479, "/var/lib/b"));
    assert_eq!(files.check(&[]).0, 0, "{}", files.check(&[]).1);
    files.write("b.toml", &member("b", 2480, 2379, "/var/lib/a"));
    let (code, out) = files.check(&[]);
    assert_eq!(code, 1);
    for line in [
        "error: b.toml:2: data-dir = /var/lib/a: two members of one host have one data directory (a.toml:2: data-dir = /var/lib/a)",
        "error: b.toml:5: listen-client-urls = http://127.0.0.1:2379: http://127.0.0.1:2379 is taken by another member of \
         this host (a.toml:5: listen-client-urls = http://127.0.0.1:2379)",
    ] {
        assert!(out.lines().any(|said| said == line), "{line} in\n{out}");
    }
}

/// One of the two would start, and the other would find its port taken.
#[test]
fn one_host_has_every_port_once_whatever_it_is_called() {
    let member = |name: &str, host: &str, peer: u16, client: &str, more: &str| {
        format!(
            "name = \"{name}\"\ndata-dir = \"/var/lib/{name}\"\nlisten-peer-urls = \"http://{host}:{peer}\"\n\
             initial-advertise-peer-urls = \"http://{host}:{peer}\"\nlisten-client-urls = \"{client}\"\n\
             advertise-client-urls = \"http://{host}:{peer}\"\n\
             initial-cluster = {{ a = \"http://localhost:2380\", b = \"http://127.0.0.1:2480\" }}\n{more}"
        )
    };
    for (first, second, more, is_taken) in [
        ("http://localhost:2379", "http://127.0.0.1:2379", "", true),
        ("http://localhost:2379", "http://[::1]:2379", "", false),
        ("http://127.0.0.1:2379", "http://127.0.0.2:2379", "", false),
        ("http://localhost:2379", "http://127.0.0.1:2479", "", false),
        ("http://127.0.0.1:2379", "http://0.0.0.0:2379", "", true),
        ("http://[::]:2379", "http://127.0.0.1:2379", "", true),
        ("http://localhost:2379", "http://127.0.0.1:2380", "", true),
        ("http://localhost:2379", "http://127.0.0.1:2479", "listen-metrics-urls = \"http://127.0.0.1:2379\"\n", true),
    ] {
        let mut files = Files { place: tempfile::tempdir().expect("a directory"), names: Vec::new() };
        files.write("a.toml", &member("a", "localhost", 2380, first, ""));
        files.write("b.toml", &member("b", "127.0.0.1", 2480, second, more));
        let (code, out) = files.check(&[]);
        assert_eq!(code == 1, is_taken, "{first} {second} {more}\n{out}");
        assert_eq!(out.contains(" is taken by another member of this host (a.toml:"), is_taken, "{out}");
    }
}

/// Copied from the neighbour and forgotten: its host has no such address, and the member would not start.
#[test]
fn a_member_that_listens_at_another_ones_address_is_told() {
    let mut files = Files::of_the_guide();
    files.edit("2.conf", "LISTEN_PEER_URLS=\"http://10.5.12.17:2380\"", "LISTEN_PEER_URLS=\"http://10.5.12.16:2380\"");
    let line = "error: 2.conf:4: ETCD_LISTEN_PEER_URLS=http://10.5.12.16:2380: http://10.5.12.16:2380 is the address of \
                another member (1.conf:5: ETCD_INITIAL_ADVERTISE_PEER_URLS=http://10.5.12.16:2380)";
    assert!(files.findings().contains(&line.to_owned()), "{:#?}", files.findings());
    assert_eq!(files.check(&[]).0, 1);
}

#[test]
fn files_of_any_form_are_held_against_each_other() {
    let mut files = Files::of_the_guide();
    for (name, form, file) in [("2.yml", "yaml", "2.conf"), ("3.flags", "flags", "3.conf")] {
        let args: Vec<OsString> = vec!["convert".into(), "--to".into(), form.into(), files.path(file).into()];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(cli::config::run_on(&Sources::default(), &args, &mut out, &mut err), 0);
        files.names.retain(|own| own != file);
        files.write(name, &String::from_utf8(out).expect("text"));
    }
    assert_eq!(files.check(&[]).0, 0, "{}", files.check(&[]).1);
    files.edit("3.flags", "--initial-cluster-token=etcd-cluster", "--initial-cluster-token=other");
    let (_, out) = files.check(&[]);
    let line = "error: 3.flags:8: --initial-cluster-token=other: all members need the same (1.conf:8: \
                ETCD_INITIAL_CLUSTER_TOKEN=etcd-cluster); correct: --initial-cluster-token=etcd-cluster";
    assert!(out.lines().any(|said| said == line), "{out}");
}

#[test]
fn findings_are_machine_readable() {
    let mut files = Files::of_the_guide();
    files.edit("2.conf", "\"etcd-cluster\"", "\"x\"");
    let (code, out) = files.check(&["--format=json"]);
    let report: Json = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &report["valid"], &report["members"]), (1, &false.into(), &3.into()));
    let findings = report["findings"].as_array().expect("a list");
    let finding = findings.iter().find(|finding| finding["severity"] == "error").expect("the planted mistake");
    assert_eq!(finding["option"], "initial-cluster-token");
    assert_eq!((&finding["origin"]["file"], &finding["origin"]["line"]), (&"2.conf".into(), &8.into()));
    assert_eq!((&finding["other"]["file"], &finding["other"]["line"]), (&"1.conf".into(), &8.into()));
    assert_eq!(finding["remedy"], "write ETCD_INITIAL_CLUSTER_TOKEN=etcd-cluster");
}

#[test]
fn a_broken_file_does_not_hide_the_others() {
    let mut files = Files::of_the_guide();
    files.edit("1.conf", "STATE=\"new\"", "STATE=\"neu\"");
    files.edit("3.conf", "\"etcd-cluster\"", "\"x\"");
    let said = files.findings();
    assert!(said[0].starts_with("error: 1.conf:7: ETCD_INITIAL_CLUSTER_STATE=neu: "), "{said:#?}");
    assert!(said.iter().any(|line| line.starts_with("error: 3.conf:8: ETCD_INITIAL_CLUSTER_TOKEN=x: ")), "{said:#?}");
}
