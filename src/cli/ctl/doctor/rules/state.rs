//! The state of the members: how far each is, how large, and whether they hold the same.

use super::{
    super::facts::{Cluster, Seat, id},
    Found, Rule, list,
};
use crate::{
    cli::go_text,
    pb::etcdserverpb::{AlarmType, StatusResponse},
};

pub(super) const RULES: &[Rule] = &[alarms, quota, behind, applies_behind, sizes_differ, fragmented, hashes_differ];

/// What members have raised themselves.
fn alarms(cluster: &Cluster, found: &mut Found) {
    for alarm in cluster.seats.iter().flat_map(|seat| &seat.alarms) {
        let member = alarm.member_id;
        match alarm.alarm() {
            AlarmType::Nospace => found.error(
                "alarm-nospace",
                format_args!("member {member:x} refuses writes: its database has reached the quota"),
                "compact, defragment, perhaps raise quota-backend-bytes, then call `alarm disarm`",
            ),
            AlarmType::Corrupt => found.error(
                "alarm-corrupt",
                format_args!("the state of member {member:x} differs from that of the others"),
                "remove it, and add it anew with an empty data directory",
            ),
            AlarmType::None => {}
        }
    }
}

/// Databases that are near what they may have.
fn quota(cluster: &Cluster, found: &mut Found) {
    for (seat, status) in cluster.answering() {
        let told = u64::try_from(status.db_size_quota).unwrap_or(0);
        let metric = || seat.samples.value("etcd_server_quota_backend_bytes").and_then(whole);
        let quota = if told > 0 { told } else { metric().filter(|quota| *quota > 0).unwrap_or(QUOTA_BYTES_DEFAULT) };
        let size = bytes(status.db_size);
        let percent = size.saturating_mul(100) / quota;
        if percent >= QUOTA_PERCENT_MAX {
            found.warning(
                "quota-near",
                format_args!(
                    "the database of {} takes {percent}% of its quota of {}",
                    seat.endpoint,
                    go_text::size(quota)
                ),
                "compact and defragment, or raise quota-backend-bytes",
            );
        }
    }
}

fn whole(value: f64) -> Option<u64> {
    // Numbers of bytes are whole, and far below what a double cannot tell apart.
    format!("{value:.0}").parse().ok()
}

/// Members whose log ends before that of the leader.
fn behind(cluster: &Cluster, found: &mut Found) {
    let Some(leader) = cluster.leader() else { return };
    for (seat, status) in cluster.answering() {
        let gap = leader.raft_index.saturating_sub(status.raft_index);
        let at = &seat.endpoint;
        if gap <= GAP_ENTRIES_MAX {
            continue;
        }
        if status.is_learner {
            found.warning(
                "learner-lags",
                format_args!("the learner at {at} is {gap} entries behind the leader"),
                "wait until it has caught up before `member promote`; look at its disk and network if it does not",
            );
        } else {
            found.warning(
                "member-lags",
                format_args!("the member at {at} is {gap} entries behind the leader"),
                "look at its disk and at the network between them",
            );
        }
    }
}

/// Members that know of entries and have not carried them out.
fn applies_behind(cluster: &Cluster, found: &mut Found) {
    for (seat, status) in cluster.answering() {
        let gap = status.raft_index.saturating_sub(status.raft_applied_index);
        if gap > GAP_ENTRIES_MAX {
            found.warning(
                "applies-lag",
                format_args!("{} has {gap} entries still to carry out", seat.endpoint),
                "look at its disk; it refuses writes with \"too many requests\" until then",
            );
        }
    }
}

/// Databases of one state whose sizes are far apart.
fn sizes_differ(cluster: &Cluster, found: &mut Found) {
    let answers = cluster.answering();
    let size = |status: &StatusResponse| bytes(status.db_size);
    let smallest = answers.iter().map(|(_, status)| size(status)).min().unwrap_or(0);
    for (seat, status) in answers {
        let size = size(status);
        if size > smallest.saturating_mul(SIZE_FACTOR_MAX) && size - smallest > SIZE_DIFFERENCE_BYTES_MIN {
            let (large, small) = (go_text::size(size), go_text::size(smallest));
            found.warning(
                "sizes-differ",
                format_args!("the database of {} takes {large}, another one {small}", seat.endpoint),
                "defragment it; if that does not help, compare histories with `doctor --hashes`",
            );
        }
    }
}

/// Files that are mostly empty.
fn fragmented(cluster: &Cluster, found: &mut Found) {
    for (seat, status) in cluster.answering() {
        let (size, used) = (bytes(status.db_size), bytes(status.db_size_in_use));
        if used > 0 && used.saturating_mul(2) < size && size > FRAGMENTED_BYTES_MIN {
            let (size, used) = (go_text::size(size), go_text::size(used));
            found.hint(
                "fragmented",
                format_args!("the database of {} takes {size}, of which {used} are in use", seat.endpoint),
                "call `defrag` for it while others serve",
            );
        }
    }
}

/// Histories that are not the same, as after a restore of some members alone.
fn hashes_differ(cluster: &Cluster, found: &mut Found) {
    let hashed: Vec<(&Seat, (u32, i64))> = cluster
        .seats
        .iter()
        .filter_map(|seat| Some((seat, seat.hash.as_ref().map(|hash| (hash.hash, hash.compact_revision))?)))
        .collect();
    let Some((first, (_, compacted))) = hashed.first() else { return };
    let comparable = hashed.iter().filter(|(_, (_, other))| other == compacted);
    let apart: Vec<&str> = comparable
        .filter(|(seat, _)| seat.hash.as_ref().map(|hash| hash.hash) != first.hash.as_ref().map(|hash| hash.hash))
        .map(|(seat, _)| seat.endpoint.as_str())
        .collect();
    if !apart.is_empty() {
        let members = list(cluster.answering().iter().map(|(_, status)| format!("{:x}", id(status))));
        found.error(
            "hashes-differ",
            format_args!("{} and {} hold different histories (members {members})", list(apart), first.endpoint),
            "find the one that differs from the majority, remove it, and add it anew with an empty data directory",
        );
    }
}

fn bytes(size: i64) -> u64 {
    u64::try_from(size).unwrap_or(0)
}

/// The quota of a member that has no other.
const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;
/// A database is to stay below this share of its quota.
const QUOTA_PERCENT_MAX: u64 = 80;
/// A member further behind needs longer than a moment; as many entries make it refuse writes.
const GAP_ENTRIES_MAX: u64 = 5_000;
/// Databases of one state may differ by this factor,
const SIZE_FACTOR_MAX: u64 = 2;
/// or by this many bytes.
const SIZE_DIFFERENCE_BYTES_MIN: u64 = 100 << 20;
/// A smaller file is not worth the time.
const FRAGMENTED_BYTES_MIN: u64 = 100 << 20;
