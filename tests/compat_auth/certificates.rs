//! Users by the common name of a certificate, at a member of ours and at one of etcd.

use std::{path::Path, process::Command};

use super::support::{
    certificates::{Authority, Pair},
    daemon::{Daemon, READY_LIMIT},
    program::Program,
};

const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

/// A member that asks clients for certificates, and the story of users who show theirs.
fn story(program: &Program, authority: &Authority, server: &Pair) -> Vec<String> {
    let ca = format!("--trusted-ca-file={}", authority.file().display());
    let mut flags = server.flags("--").to_vec();
    flags.extend([ca, "--client-cert-auth".to_owned(), "--bcrypt-cost=4".to_owned()]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), program, &flags);
    daemon.client_scheme = "https";
    daemon.spawn();
    assert!(daemon.wait_ready(READY_LIMIT), "it does not serve:\n{}", daemon.log());
    let endpoint = daemon.endpoint();
    let ctl = |pair: &Pair, words: &str| {
        let mut command = Command::new(Program::etcdctl().path);
        command.args([format!("--endpoints={endpoint}"), format!("--cacert={}", authority.file().display())]);
        let output = command.args(pair.client_flags()).args(words.split(' ')).output().expect("etcdctl starts");
        let last = |text: &[u8]| String::from_utf8_lossy(text).trim_end().lines().last().unwrap_or_default().to_owned();
        format!(
            "{words}: {} {}",
            last(&output.stdout),
            last(&output.stderr).split("error\":").last().unwrap_or_default()
        )
    };
    let [root, u, stranger] = ["root", "u", "stranger"].map(|name| authority.issue(name, &HOSTS));
    let mut told = Vec::new();
    for words in [
        "user add root --no-password",
        "user grant-role root root",
        "role add root",
        "user add u:secret",
        "user add v:secret",
        "role add r",
        "role grant-permission r readwrite k",
        "user grant-role u r",
        "auth enable",
        "put k 1",
        "put other 1",
    ] {
        told.push(ctl(&root, words));
    }
    for pair in [&u, &stranger, &root] {
        for words in [
            "get k",
            "get other",
            "put k 2",
            "user list",
            "user get u",
            "member list --consistency=s --write-out=json --hex",
            "lease grant 100",
            "auth status",
            // A token counts for more than a certificate.
            "get k --user=v:secret",
            "get k --user=u:secret",
        ] {
            if !words.starts_with("member") && !words.starts_with("lease") {
                told.push(ctl(pair, words));
            } else {
                told.push(ctl(pair, words).contains("user name is empty").to_string());
            }
        }
        told.push(json(&endpoint, &authority.file(), pair));
    }
    told
}

/// What comes as JSON comes from nobody, whatever certificate its proxy has shown.
fn json(endpoint: &str, ca: &Path, pair: &Pair) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "-H", "Accept: */*", "-d", r#"{"key":"aw=="}"#]);
    curl.arg("--cacert").arg(ca).arg("--cert").arg(&pair.cert).arg("--key").arg(&pair.key);
    let output =
        curl.arg(format!("{endpoint}/v3/kv/range")).output().expect("curl, which apt-get install curl installs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn certificates_name_users_as_at_etcd() {
    let authority = Authority::new("ca");
    let server = authority.issue("server", &HOSTS);
    let [ours, theirs] = [Program::subject(), Program::etcd()].map(|program| story(&program, &authority, &server));
    assert_eq!(ours, theirs);
    println!("{} commands answered alike", ours.len());
}
