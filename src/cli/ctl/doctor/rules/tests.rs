//! Every mistake planted in a cluster that is well.

use std::{collections::BTreeSet, time::Duration};

use super::{
    super::{
        super::metrics::Samples,
        facts::{Cluster, Seat, Trouble},
        look::METRICS,
    },
    judge,
};
use crate::{
    pb::etcdserverpb::{AlarmMember, AlarmType, DowngradeInfo, HashKvResponse, Member, ResponseHeader, StatusResponse},
    tls::Certificate,
};

const NOW: Duration = Duration::from_hours(24 * 365 * 50);
const DAY: Duration = Duration::from_hours(24);

/// Three members that are well.
fn well() -> Cluster {
    let members: Vec<Member> = (1..=3).map(member).collect();
    let seats = (1..=3).map(|id| seat(id, &members)).collect();
    let given = (1..=3).map(endpoint).collect();
    Cluster { now: NOW, given, seats, members, has_credentials: false }
}

fn endpoint(id: u64) -> String {
    format!("http://10.0.0.{id}:2379")
}

fn member(id: u64) -> Member {
    Member {
        id,
        name: format!("m{id}"),
        peer_ur_ls: vec![format!("http://10.0.0.{id}:2380")],
        client_ur_ls: vec![endpoint(id)],
        is_learner: false,
    }
}

fn seat(id: u64, members: &[Member]) -> Seat {
    let header = ResponseHeader { cluster_id: 7, member_id: id, revision: 9, raft_term: 2 };
    let status = StatusResponse {
        header: Some(header),
        version: "3.7.1".to_owned(),
        db_size: 200 << 20,
        db_size_in_use: 190 << 20,
        leader: 1,
        raft_index: 10_000,
        raft_term: 2,
        raft_applied_index: 10_000,
        ..StatusResponse::default()
    };
    Seat { endpoint: endpoint(id), is_given: true, status: Some(status), members: members.to_vec(), ..Seat::default() }
}

impl Cluster {
    fn second(&mut self) -> &mut Seat {
        &mut self.seats[1]
    }

    fn status(&mut self) -> &mut StatusResponse {
        self.second().status.as_mut().unwrap()
    }

    fn measure(&mut self, text: &str) {
        self.second().samples = Samples::read(text, METRICS);
    }

    fn silence(&mut self, trouble: Trouble) {
        *self.second() = Seat { status: None, trouble: Some(trouble), ..self.second().clone() };
    }
}

fn certificate() -> Certificate {
    Certificate {
        common_name: String::new(),
        dns_names: vec!["*.example.com".to_owned()],
        addresses: vec!["10.0.0.2".parse().unwrap()],
        not_before: NOW.saturating_sub(DAY),
        not_after: NOW + 100 * DAY,
        is_ca: false,
        between_max: None,
        uses: crate::tls::Uses::default(),
    }
}

fn histogram(name: &str, fast: u32, slow: u32) -> String {
    format!(
        "{name}_bucket{{le=\"0.001\"}} {fast}\n{name}_bucket{{le=\"0.5\"}} {slow}\n{name}_bucket{{le=\"+Inf\"}} {slow}\n"
    )
}

type Plant = fn(&mut Cluster);

/// What is wrong, by the name it is told by, and how it comes to be.
const MISTAKES: &[(&str, Plant)] = &[
    ("unreachable-endpoint", |c| c.silence(Trouble::Silent("connection refused".to_owned()))),
    ("unreachable-member", |c| {
        c.silence(Trouble::Silent("connection refused".to_owned()));
        c.second().is_given = false;
    }),
    ("tls-expected", |c| c.silence(Trouble::WantsTls)),
    ("plain-expected", |c| c.silence(Trouble::WantsPlain)),
    ("handshake-failed", |c| c.silence(Trouble::Handshake("x509: certificate signed by unknown authority".to_owned()))),
    ("peer-port", |c| c.silence(Trouble::PeerPort)),
    ("no-member", |c| c.silence(Trouble::Other("rpc error".to_owned()))),
    ("login-needed", |c| c.second().read_error = Some("etcdserver: user name is empty".to_owned())),
    ("login-refused", |c| {
        c.has_credentials = true;
        c.second().read_error = Some("etcdserver: invalid auth token".to_owned());
    }),
    ("unspecified-advertised", |c| c.members[1].client_ur_ls.push("http://0.0.0.0:2379".to_owned())),
    ("loopback-advertised", |c| c.members[1].client_ur_ls.push("http://127.0.0.1:2379".to_owned())),
    ("nothing-advertised", |c| c.members[1].client_ur_ls.clear()),
    ("shared-url", |c| c.members[1].client_ur_ls.push(endpoint(1))),
    ("duplicate-endpoint", |c| c.given.push("10.0.0.2:2379".to_owned())),
    ("same-member", |c| {
        c.given.push("http://node2:2379".to_owned());
        let seat = Seat { endpoint: "http://node2:2379".to_owned(), ..c.second().clone() };
        c.seats.push(seat);
    }),
    ("mixed-schemes", |c| c.members[1].client_ur_ls.push("https://10.0.0.2:2381".to_owned())),
    ("missing-endpoints", |c| drop(c.given.pop())),
    ("certificate-ends", |c| c.second().certificate = Some(Certificate { not_after: NOW + DAY, ..certificate() })),
    ("certificate-ended", |c| {
        c.second().certificate = Some(Certificate { not_after: NOW.saturating_sub(DAY / 2), ..certificate() });
    }),
    ("certificate-not-yet", |c| c.second().certificate = Some(Certificate { not_before: NOW + DAY, ..certificate() })),
    ("certificate-names", |c| c.second().certificate = Some(Certificate { addresses: Vec::new(), ..certificate() })),
    ("clock-off", |c| c.second().clock_ahead_seconds = Some(-12.0)),
    ("different-clusters", |c| c.status().header.as_mut().unwrap().cluster_id = 8),
    ("members-differ", |c| drop(c.second().members.pop())),
    ("not-a-member", |c| c.status().header.as_mut().unwrap().member_id = 9),
    ("no-leader", |c| c.status().leader = 0),
    ("no-quorum", |c| c.second().read_error = Some("etcdserver: request timed out".to_owned())),
    ("leaders-differ", |c| c.status().leader = 3),
    ("even-members", |c| {
        let fourth = Member { client_ur_ls: vec![endpoint(3)], ..member(4) };
        c.members.push(fourth);
        let members = c.members.clone();
        c.seats.iter_mut().for_each(|seat| seat.members.clone_from(&members));
        c.members[3].client_ur_ls = vec![endpoint(4)];
        c.given.push(endpoint(4));
    }),
    ("single-member", |c| {
        c.members.truncate(1);
        c.seats.truncate(1);
        c.seats[0].members.truncate(1);
    }),
    ("many-members", |c| {
        c.members.extend((4..=9).map(member));
        c.given.extend((4..=9).map(endpoint));
        let members = c.members.clone();
        c.seats.iter_mut().for_each(|seat| seat.members.clone_from(&members));
    }),
    ("unstarted-member", |c| {
        c.members[1].name.clear();
        c.members[1].client_ur_ls.clear();
    }),
    ("versions-differ", |c| c.status().version = "3.6.0".to_owned()),
    ("downgrade-pending", |c| {
        c.status().downgrade_info = Some(DowngradeInfo { enabled: true, target_version: "3.6.0".to_owned() });
    }),
    ("alarm-nospace", |c| {
        c.second().alarms = vec![AlarmMember { member_id: 2, alarm: AlarmType::Nospace.into() }];
    }),
    ("alarm-corrupt", |c| {
        c.second().alarms = vec![AlarmMember { member_id: 2, alarm: AlarmType::Corrupt.into() }];
    }),
    ("quota-near", |c| c.status().db_size_quota = 220 << 20),
    ("member-lags", |c| {
        c.status().raft_index = 4_000;
        c.status().raft_applied_index = 4_000;
    }),
    ("learner-lags", |c| {
        c.status().is_learner = true;
        c.status().raft_index = 4_000;
        c.status().raft_applied_index = 4_000;
    }),
    ("applies-lag", |c| c.status().raft_applied_index = 4_000),
    ("sizes-differ", |c| {
        c.status().db_size = 600 << 20;
        c.status().db_size_in_use = 500 << 20;
    }),
    ("fragmented", |c| c.status().db_size_in_use = 20 << 20),
    ("hashes-differ", |c| {
        for (number, seat) in (0..).zip(&mut c.seats) {
            let hash = if number == 1 { 8 } else { 7 };
            seat.hash = Some(HashKvResponse { hash, compact_revision: 3, ..HashKvResponse::default() });
        }
    }),
    ("slow-log", |c| c.measure(&histogram("etcd_disk_wal_fsync_duration_seconds", 900, 1_000))),
    ("slow-commits", |c| c.measure(&histogram("etcd_disk_backend_commit_duration_seconds", 900, 1_000))),
    ("slow-network", |c| c.measure(&histogram("etcd_network_peer_round_trip_time_seconds", 900, 1_000))),
    ("slow-applies", |c| {
        c.measure("etcd_server_slow_apply_total 200\netcd_server_proposals_applied_total 1000\n");
    }),
    ("slow-answers", |c| c.second().took = Duration::from_secs(2)),
    ("descriptors-low", |c| c.measure("process_open_fds 950\nprocess_max_fds 1000\n")),
];

fn codes(cluster: &Cluster) -> Vec<&'static str> {
    judge(cluster).into_iter().map(|finding| finding.code).collect()
}

#[test]
fn a_cluster_that_is_well_has_no_findings() {
    assert_eq!(judge(&well()), []);
    let mut measured = well();
    let fast = histogram("etcd_disk_wal_fsync_duration_seconds", 1_000, 1_000);
    let rest = "etcd_server_slow_apply_total 3\netcd_server_proposals_applied_total 9\nprocess_open_fds 9\n\
                process_max_fds 1000\netcd_server_quota_backend_bytes 2147483648\n";
    measured.measure(&(fast + rest));
    measured.second().certificate = Some(certificate());
    measured.second().clock_ahead_seconds = Some(1.0);
    assert_eq!(judge(&measured), []);
}

#[test]
fn every_mistake_is_found_alone() {
    for (code, plant) in MISTAKES {
        let mut cluster = well();
        plant(&mut cluster);
        assert_eq!(codes(&cluster), [*code]);
        let finding = judge(&cluster).remove(0);
        assert!(!finding.cause.is_empty() && !finding.remedy.is_empty() && !finding.cause.contains('\n'), "{code}");
    }
}

#[test]
fn mistakes_have_names_of_their_own() {
    let names: BTreeSet<_> = MISTAKES.iter().map(|(code, _)| code).collect();
    assert_eq!(names.len(), MISTAKES.len());
    assert!(names.len() >= 40, "{}", names.len());
}

#[test]
fn members_that_run_on_one_machine_may_advertise_loopback() {
    let mut cluster = well();
    for (id, member) in (1..).zip(&mut cluster.members) {
        member.client_ur_ls = vec![format!("http://127.0.0.1:{id}2379")];
    }
    cluster.given = cluster.members.iter().flat_map(|member| member.client_ur_ls.clone()).collect();
    assert_eq!(codes(&cluster), Vec::<&str>::new());
}
