//! Who the members are, and whether they agree on it.

use std::collections::BTreeSet;

use super::{
    super::facts::{Cluster, LOGIN_ERRORS, id},
    Found, Rule, list,
};
use crate::pb::etcdserverpb::Member;

pub(super) const RULES: &[Rule] =
    &[different_clusters, different_lists, leaderless, leaders_differ, sizes, unstarted, versions, downgrade];

/// Endpoints that lead to members of several clusters.
fn different_clusters(cluster: &Cluster, found: &mut Found) {
    if clusters(cluster).len() > 1 {
        let each = cluster
            .answering()
            .into_iter()
            .filter_map(|(seat, status)| Some(format!("{} to {:x}", seat.endpoint, status.header?.cluster_id)));
        found.error(
            "different-clusters",
            format_args!("endpoints belong to different clusters: {}", list(each)),
            "name the endpoints of one; a member that was restored by itself has to leave its data and join again",
        );
    }
}

fn clusters(cluster: &Cluster) -> BTreeSet<u64> {
    cluster.answering().iter().filter_map(|(_, status)| Some(status.header?.cluster_id)).collect()
}

/// Members whose lists of members differ, as after a snapshot was restored on some of them.
fn different_lists(cluster: &Cluster, found: &mut Found) {
    if clusters(cluster).len() > 1 {
        return;
    }
    for (seat, status) in cluster.answering() {
        let own: BTreeSet<u64> = seat.members.iter().map(|member| member.id).collect();
        let first: BTreeSet<u64> = cluster.members.iter().map(|member| member.id).collect();
        let at = &seat.endpoint;
        if !own.is_empty() && own != first {
            found.error(
                "members-differ",
                format_args!("{at} knows other members than the others do"),
                "if it was restored from a snapshot or removed, have it leave its data and join again",
            );
        } else if !own.is_empty() && !own.contains(&id(status)) {
            found.error(
                "not-a-member",
                format_args!("the member at {at} is not in its own list"),
                "it was removed: stop it, and add it anew with an empty data directory",
            );
        }
    }
}

/// No leader, or none that gets through.
fn leaderless(cluster: &Cluster, found: &mut Found) {
    for (seat, status) in cluster.answering() {
        let at = &seat.endpoint;
        let why = seat.read_error.as_deref();
        if status.leader == 0 {
            found.error(
                "no-leader",
                format_args!("the member at {at} knows no leader"),
                "start more members until a majority runs, and let them reach each other at their peer URLs",
            );
        } else if let Some(why) = why.filter(|why| !LOGIN_ERRORS.contains(why)) {
            found.error(
                "no-quorum",
                format_args!("{at} cannot read what a majority agrees on: {why}"),
                "start more members until a majority runs, and let them reach each other at their peer URLs",
            );
        }
    }
}

/// Members of one term that name different leaders.
fn leaders_differ(cluster: &Cluster, found: &mut Found) {
    let answers = cluster.answering();
    let leaders: BTreeSet<u64> =
        answers.iter().map(|(_, status)| status.leader).filter(|leader| *leader != 0).collect();
    let terms: BTreeSet<u64> = answers.iter().map(|(_, status)| status.raft_term).collect();
    if leaders.len() > 1 && clusters(cluster).len() == 1 {
        let leaders = list(leaders.iter().map(|leader| format!("{leader:x}")));
        found.error(
            "leaders-differ",
            format_args!("members name different leaders: {leaders}, terms {}", list(&terms)),
            "look again in a moment; if it stays, members do not reach each other at their peer URLs",
        );
    }
}

/// Numbers of members that buy nothing.
fn sizes(cluster: &Cluster, found: &mut Found) {
    let voters = cluster.members.iter().filter(|member| !member.is_learner).count();
    match voters {
        0 => {}
        1 => found.hint("single-member", "the cluster has one voting member: no failure is survived", "add two more"),
        even if even % 2 == 0 => found.warning(
            "even-members",
            format_args!("{even} voting members survive no more failures than {} do", even - 1),
            "add one, or remove one",
        ),
        many if many > VOTERS_MAX => found.hint(
            "many-members",
            format_args!("every write waits for a majority of {many} voting members"),
            "make it five or seven, and the others learners",
        ),
        _ => {}
    }
}

/// More voters than this cost more than they give.
const VOTERS_MAX: usize = 7;

/// Members that were added and never came.
fn unstarted(cluster: &Cluster, found: &mut Found) {
    for Member { id, peer_ur_ls, .. } in cluster.members.iter().filter(|member| member.name.is_empty()) {
        found.warning(
            "unstarted-member",
            format_args!("member {id:x} at {} was added and never started", list(peer_ur_ls)),
            "start it with initial-cluster-state existing, or remove it: it counts for the majority",
        );
    }
}

/// Members of different versions.
fn versions(cluster: &Cluster, found: &mut Found) {
    let versions: BTreeSet<&str> = cluster.answering().iter().map(|(_, status)| status.version.as_str()).collect();
    if versions.len() > 1 {
        let each =
            cluster.answering().into_iter().map(|(seat, status)| format!("{} {}", seat.endpoint, status.version));
        found.warning(
            "versions-differ",
            format_args!("members run different versions: {}", list(each)),
            "bring all to one version",
        );
    }
}

/// A downgrade that somebody began.
fn downgrade(cluster: &Cluster, found: &mut Found) {
    let target = cluster.answering().into_iter().find_map(|(_, status)| {
        status.downgrade_info.clone().filter(|downgrade| downgrade.enabled).map(|downgrade| downgrade.target_version)
    });
    if let Some(target) = target {
        found.warning(
            "downgrade-pending",
            format_args!("a downgrade to {target} was enabled and has not ended"),
            "bring every member to that version, or call `downgrade cancel`",
        );
    }
}
