//! Whether disks, networks and hosts are up to what they have to do.

use std::time::Duration;

use super::{super::facts::Cluster, Found, Rule};
use crate::cli::go_text;

pub(super) const RULES: &[Rule] = &[slow_log, slow_commits, slow_network, slow_applies, slow_answers, descriptors];

/// Syncs of the log, which every write waits for.
fn slow_log(cluster: &Cluster, found: &mut Found) {
    let name = "etcd_disk_wal_fsync_duration_seconds";
    each_slow(cluster, name, LOG_SYNC_MAX, |at, took| {
        found.warning(
            "slow-log",
            format_args!("one in a hundred syncs of the log of {at} takes {took} or longer"),
            "give its wal-dir a faster disk, of its own if others use this one",
        );
    });
}

/// Commits of the database.
fn slow_commits(cluster: &Cluster, found: &mut Found) {
    let name = "etcd_disk_backend_commit_duration_seconds";
    each_slow(cluster, name, COMMIT_MAX, |at, took| {
        found.warning(
            "slow-commits",
            format_args!("one in a hundred commits of the database of {at} takes {took} or longer"),
            "give its data-dir a faster disk",
        );
    });
}

/// Round trips between members.
fn slow_network(cluster: &Cluster, found: &mut Found) {
    let name = "etcd_network_peer_round_trip_time_seconds";
    each_slow(cluster, name, ROUND_TRIP_MAX, |at, took| {
        found.warning(
            "slow-network",
            format_args!("one in a hundred round trips from {at} to other members takes {took} or longer"),
            "raise heartbeat-interval and election-timeout on all members, or bring them closer together",
        );
    });
}

/// Tells of every member of whose `name` one in a hundred takes `limit` or longer.
fn each_slow(cluster: &Cluster, name: &str, limit: Duration, mut tell: impl FnMut(&str, String)) {
    for (seat, _) in cluster.answering() {
        let histogram = seat.samples.histogram(name, "");
        let slow = histogram.quantile(0.99).map(Duration::from_secs_f64).filter(|took| *took >= limit);
        if let Some(took) = slow.filter(|_| histogram.count() >= SAMPLES_MIN) {
            tell(&seat.endpoint, format!("{} ms", took.as_millis()));
        }
    }
}

/// Entries that took long to carry out.
fn slow_applies(cluster: &Cluster, found: &mut Found) {
    for (seat, _) in cluster.answering() {
        let value = |name| seat.samples.value(name).unwrap_or(0.0);
        let (slow, all) = (value("etcd_server_slow_apply_total"), value("etcd_server_proposals_applied_total"));
        if slow >= SLOW_APPLIES_MIN && slow > all * SLOW_APPLIES_SHARE_MAX {
            found.warning(
                "slow-applies",
                format_args!("{} has carried out {slow} of {all} requests slowly", seat.endpoint),
                "look for large ranges and transactions, and at its disk and processor",
            );
        }
    }
}

/// Members that take long to say anything.
fn slow_answers(cluster: &Cluster, found: &mut Found) {
    for (seat, _) in cluster.answering().into_iter().filter(|(seat, _)| seat.took >= ANSWER_MAX) {
        found.warning(
            "slow-answers",
            format_args!("{} took {} to tell its status", seat.endpoint, go_text::duration(seat.took)),
            "look at the network to it and at its processor",
        );
    }
}

/// Processes that soon cannot open anything more.
fn descriptors(cluster: &Cluster, found: &mut Found) {
    for (seat, _) in cluster.answering() {
        let value = |name| seat.samples.value(name).unwrap_or(0.0);
        let (open, most) = (value("process_open_fds"), value("process_max_fds"));
        if most > 0.0 && open > most * DESCRIPTORS_SHARE_MAX {
            found.warning(
                "descriptors-low",
                format_args!("{} has {open} of {most} file descriptors open", seat.endpoint),
                "raise LimitNOFILE of its unit, and look for clients that never close connections",
            );
        }
    }
}

/// A log on a disk that is made for it syncs sooner (etcd's advice).
const LOG_SYNC_MAX: Duration = Duration::from_millis(10);
/// A database on such a disk commits sooner (etcd's advice).
const COMMIT_MAX: Duration = Duration::from_millis(25);
/// Longer round trips do not suit the default time between heartbeats.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(100);
/// Fewer measurements say nothing.
const SAMPLES_MIN: f64 = 100.0;
/// Fewer slow ones are chance.
const SLOW_APPLIES_MIN: f64 = 10.0;
/// The share of slow ones that is worth a word.
const SLOW_APPLIES_SHARE_MAX: f64 = 0.01;
/// A status takes no longer, unless something is in the way.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The share of descriptors that may be open.
const DESCRIPTORS_SHARE_MAX: f64 = 0.8;
