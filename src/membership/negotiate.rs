//! Which version a cluster should agree on.

use super::{Cluster, Version};

/// What a cluster begins with in which not all members have told their version.
const VERSION_MIN: Version = Version::minor(3, 0);
/// The first version in which members are published by requests of their own.
const PUBLISHING_SINCE: Version = Version::minor(3, 5);

/// What the leader should propose as the cluster's version, given what its members said; nothing if it is right, or if
/// that cannot be known.
pub fn cluster_version(cluster: &Cluster, told: impl IntoIterator<Item = Option<Version>>) -> Option<Version> {
    let lowest = lowest(told).map(Version::without_patch);
    let Some(current) = cluster.version() else { return Some(lowest.unwrap_or(VERSION_MIN)) };
    let lowest = lowest?;
    match cluster.downgrade().target {
        Some(target) => (current.downgrade_target() == Some(target)).then_some(target),
        None => (lowest > current && lowest.major == current.major).then_some(lowest),
    }
}

/// Whether every member survives an entry that publishes a member as a request of its own, which etcd has since 3.5 and
/// before which older ones panic. What a cluster begins with says nothing of its members.
pub fn can_publish(cluster: &Cluster) -> bool {
    cluster.version().is_none_or(|version| version >= PUBLISHING_SINCE || version == VERSION_MIN)
}

/// Whether every member runs the minor version of `target`.
pub fn all_at(target: Version, told: impl IntoIterator<Item = Option<Version>>) -> bool {
    told.into_iter().all(|version| version.is_some_and(|version| version.without_patch() == target.without_patch()))
}

/// Nothing if a member did not tell.
fn lowest(told: impl IntoIterator<Item = Option<Version>>) -> Option<Version> {
    let told: Option<Vec<Version>> = told.into_iter().collect();
    told?.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::{super::Downgrade, *};

    fn told(versions: &[&str]) -> Vec<Option<Version>> {
        versions.iter().map(|version| version.parse().ok()).collect()
    }

    fn at(version: &str) -> Cluster {
        let mut cluster = Cluster::default();
        cluster.set_version(version.parse().unwrap());
        cluster
    }

    #[test]
    fn young_cluster_begins_with_the_lowest_version_of_its_members() {
        let young = Cluster::default();
        assert_eq!(cluster_version(&young, told(&["3.7.1", "3.6.14"])), Some(Version::minor(3, 6)));
        assert_eq!(cluster_version(&young, told(&["3.7.1", "silent"])), Some(VERSION_MIN));
    }

    #[test]
    fn version_rises_when_all_members_speak_a_higher_one_and_never_falls() {
        let cluster = at("3.6.0");
        assert_eq!(cluster_version(&cluster, told(&["3.7.1", "3.7.0"])), Some(Version::minor(3, 7)));
        assert_eq!(cluster_version(&cluster, told(&["3.7.1", "3.6.14"])), None);
        assert_eq!(cluster_version(&cluster, told(&["3.7.1", "silent"])), None);
        assert_eq!(cluster_version(&at("3.7.0"), told(&["3.6.14"])), None);
        assert_eq!(cluster_version(&cluster, told(&["4.0.0"])), None);
    }

    #[test]
    fn downgrade_lowers_the_version_by_one_minor() {
        let mut cluster = at("3.7.0");
        cluster.set_downgrade(Downgrade { target: Some(Version::minor(3, 6)) });
        assert_eq!(cluster_version(&cluster, told(&["3.7.1"])), Some(Version::minor(3, 6)));
        assert_eq!(cluster_version(&cluster, told(&["silent"])), None);
        cluster.set_version(Version::minor(3, 6));
        assert_eq!(cluster_version(&cluster, told(&["3.7.1"])), None, "it is there");
    }

    #[test]
    fn nobody_is_published_among_members_that_would_not_survive_it() {
        assert!(can_publish(&Cluster::default()));
        let published = ["3.0.0", "3.3.0", "3.4.0", "3.5.0", "3.7.0"].map(|version| can_publish(&at(version)));
        assert_eq!(published, [true, false, false, true, true]);
    }

    #[test]
    fn downgrade_is_complete_when_everybody_runs_the_target() {
        let target = Version::minor(3, 6);
        assert!(all_at(target, told(&["3.6.14", "3.6.6"])));
        assert!(!all_at(target, told(&["3.6.14", "3.7.1"])));
        assert!(!all_at(target, told(&["3.6.14", "silent"])));
    }
}
