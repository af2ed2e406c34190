//! The guide's cluster: three environment files, three hosts with their own `/data/etcd`, nothing else typed.

mod support;

use std::process::Output;

use support::{
    deployment::{Deployment, guide_file},
    hosts::Disk,
    mask,
    program::Program,
};

/// What the guide's identifiers come to, whoever computes them.
const MEMBERS: &str = "\
4af0ee06790807a3, started, etcd3, http://10.5.12.18:2380, http://10.5.12.18:2379, false
a86aa10cb167174d, started, etcd2, http://10.5.12.17:2380, http://10.5.12.17:2379, false
db71a9afbf54c17a, started, etcd1, http://10.5.12.16:2380, http://10.5.12.16:2379, false
";
const IDS: [u64; 3] = [0xdb71_a9af_bf54_c17a, 0xa86a_a10c_b167_174d, 0x4af0_ee06_7908_07a3];
const CLUSTER: u64 = 0xebf7_9ee1_b5a7_1cad;
const ALL: [usize; 3] = [0, 1, 2];

/// The guide's file of its first host, letter by letter.
const FIRST_FILE: &str = include_str!("guide/etcd.conf");

#[test]
fn three_hosts_form_the_guides_cluster() {
    assert_eq!(guide_file(0, 3), FIRST_FILE);
    let mut cluster = Deployment::start(&Program::subject(), 3, Disk::Plain);
    let leader = cluster.settle();
    is_the_guides_cluster(&cluster, leader);
    all_see_what_one_wrote(&cluster, "before");

    for number in ALL {
        cluster.signal(number, nix::sys::signal::Signal::SIGTERM);
    }
    for number in ALL {
        cluster.wait_end(number);
        for (name, value) in CHANGED {
            cluster.set(number, name, value);
        }
        let renamed = format!("etcd{}=http://10.5.12.{}:2380", number + 1, 16 + number);
        cluster.set(number, "ETCD_INITIAL_CLUSTER", &renamed);
        cluster.spawn(number);
    }
    for number in ALL {
        cluster.wait_ready(number);
    }
    let leader = cluster.settle();
    is_the_guides_cluster(&cluster, leader);
    assert_eq!(value_of(&cluster, "before"), "1");
    all_see_what_one_wrote(&cluster, "after");
    cluster.assert_equal_states();
}

/// What an initialised directory makes meaningless.
const CHANGED: [(&str, &str); 2] =
    [("ETCD_INITIAL_CLUSTER_TOKEN", "another"), ("ETCD_INITIAL_CLUSTER_STATE", "existing")];

fn is_the_guides_cluster(cluster: &Deployment, leader: usize) {
    assert_eq!(printed(&cluster.etcdctl(&ALL, &["member", "list"])), MEMBERS);
    let health = printed(&cluster.etcdctl(&ALL, &["endpoint", "health", "-w", "json"]));
    assert_eq!(health.matches("\"health\":true").count(), 3, "{health}");
    let status = printed(&cluster.etcdctl(&ALL, &["endpoint", "status", "-w", "json"]));
    let mut members: Vec<&str> = status.split("\"Endpoint\":").skip(1).collect();
    members.sort_unstable();
    assert_eq!(members.len(), 3, "{status}");
    for (member, id) in members.iter().zip(IDS) {
        let number = |field| mask::number_after(member, field);
        assert_eq!((number("cluster_id"), number("member_id")), (Some(CLUSTER), Some(id)), "{status}");
        assert_eq!(number("leader"), IDS.get(leader).copied(), "{status}");
    }
}

fn all_see_what_one_wrote(cluster: &Deployment, key: &str) {
    printed(&cluster.etcdctl(&[2], &["put", key, "1"]));
    for number in ALL {
        let read = cluster.etcdctl(&[number], &["get", key, "--print-value-only"]);
        assert_eq!(printed(&read).trim(), "1", "etcd{}", number + 1);
    }
}

fn value_of(cluster: &Deployment, key: &str) -> String {
    printed(&cluster.etcdctl(&ALL, &["get", key, "--print-value-only"])).trim().to_owned()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "etcdctl: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
