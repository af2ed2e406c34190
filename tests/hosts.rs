//! The hosts that clusters are tested on do what they are told: packets are lost in the direction that was asked for and
//! no other, and a stalled disk keeps syncs waiting and nothing else.

mod support;

use std::{net::UdpSocket, thread::sleep, time::Duration};

use support::{
    hosts::{Disk, Hosts},
    now,
};

/// A packet that has not arrived by then is lost.
const ARRIVAL_LIMIT: Duration = Duration::from_millis(300);
const PORT: u16 = 999;

#[test]
fn packets_are_lost_where_and_when_it_was_asked_for() {
    let mut hosts = Hosts::new(3, Disk::Plain);
    let sockets: Vec<UdpSocket> = (0..3).map(|number| socket(&hosts, number)).collect();
    let reaches = |hosts: &Hosts| {
        let mut pairs = Vec::new();
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            sockets[from].send_to(b"x", (hosts.host(to).address, PORT)).unwrap();
            if sockets[to].recv_from(&mut [0; 8]).is_ok() {
                pairs.push((from, to));
            }
        }
        pairs
    };
    let all = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
    assert_eq!(reaches(&hosts), all);
    hosts.cut_one_way(0, 1);
    assert_eq!(reaches(&hosts), all[1..]);
    hosts.heal();
    hosts.partition(&[0]);
    assert_eq!(reaches(&hosts), all[4..]);
    hosts.heal();
    assert_eq!(reaches(&hosts), all);
}

#[test]
fn about_as_many_packets_are_lost_as_was_asked_for() {
    let mut hosts = Hosts::new(2, Disk::Plain);
    let (from, to) = (socket(&hosts, 0), socket(&hosts, 1));
    hosts.lose(1, 50);
    for _ in 0..200 {
        from.send_to(b"x", (hosts.host(1).address, PORT)).unwrap();
    }
    let arrived = std::iter::from_fn(|| to.recv_from(&mut [0; 8]).ok()).count();
    assert!((50..150).contains(&arrived), "{arrived} of 200");
}

#[test]
fn a_stalled_disk_keeps_syncs_waiting_and_nothing_else() {
    let hosts = Hosts::new(1, Disk::Stallable(200));
    let (host, stalled_for) = (hosts.host(0), Duration::from_secs(2));
    let write = |name: &str, sync: &str| {
        let began = now();
        host.run(&format!("dd if=/dev/zero of=/data/etcd/{name} bs=4k count=1 {sync} 2>&1"));
        began.elapsed()
    };
    let before = write("before", "conv=fsync");
    assert!(before < stalled_for, "{before:?}");
    let stall = host.stall_disk();
    let (plain, synced) = std::thread::scope(|scope| {
        let plain = scope.spawn(|| write("plain", "")).join().unwrap();
        let synced = scope.spawn(|| write("synced", "conv=fsync"));
        sleep(stalled_for);
        drop(stall);
        (plain, synced.join().unwrap())
    });
    assert!(plain < stalled_for / 2, "a write without a sync took {plain:?}");
    assert!(synced > stalled_for / 2, "a sync took {synced:?}");
}

fn socket(hosts: &Hosts, number: usize) -> UdpSocket {
    let host = hosts.host(number);
    let socket = host.inside(|| UdpSocket::bind((host.address, PORT)).expect("a free port: the host is new"));
    socket.set_read_timeout(Some(ARRIVAL_LIMIT)).expect("a time-out");
    socket
}
