//! The version a cluster has agreed on: the leader raises it to what all members speak, and lowers it when an operator
//! has asked for a downgrade.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Error;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    membership::{Version, negotiate},
    pb::{
        etcdserverpb::InternalRaftRequest,
        membershippb::{ClusterVersionSetRequest, DowngradeInfoSetRequest},
    },
    transport::ask,
    types::{MemberId, Rejection},
};

use super::{Handle, ServerError};

/// How often the leader asks all members for their versions (etcd's interval).
const INTERVAL: Duration = Duration::from_secs(4);
/// How often a new leader looks whether a young cluster has a version.
const YOUNG_INTERVAL: Duration = Duration::from_millis(100);
/// How long the first leader of a cluster waits for founders that are a little late.
const FOUNDERS_PATIENCE: Duration = Duration::from_secs(1);
/// How long a member may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the members say they are; nothing for those that do not answer.
type Versions = BTreeMap<MemberId, Option<Version>>;

impl Handle {
    /// Whether `target` is where the cluster can be downgraded to: the cluster's version.
    ///
    /// # Errors
    /// [`Rejection::BadDowngradeVersion`], [`Rejection::ClusterVersionUnavailable`],
    /// [`Rejection::InvalidDowngradeTarget`], [`Rejection::DowngradeInProgress`], and those of a linearizable read.
    pub async fn downgrade_validate(&self, target: &str) -> Result<Version, ServerError> {
        self.downgrade_target(target).await.map(|(cluster, _)| cluster)
    }

    /// Allows a downgrade to `target`: the cluster's version.
    ///
    /// # Errors
    /// As [`Handle::downgrade_validate`] and [`Handle::propose`].
    pub async fn downgrade_enable(&self, target: &str) -> Result<Version, ServerError> {
        let (cluster, target) = self.downgrade_target(target).await?;
        tracing::info!(cluster_version = %cluster, target_version = %target, "downgrade enabled");
        self.set_downgrade(Some(target)).await?;
        Ok(cluster)
    }

    /// Ends a downgrade. That there was none is no error.
    ///
    /// # Errors
    /// [`Rejection::ClusterVersionUnavailable`].
    pub async fn downgrade_cancel(&self) -> Result<Version, ServerError> {
        if let Err(why) = self.cancel_downgrade().await {
            tracing::error!(%why, "failed to cancel downgrade");
        }
        self.published().cluster.version().ok_or_else(|| Rejection::ClusterVersionUnavailable.into())
    }

    async fn cancel_downgrade(&self) -> Result<(), ServerError> {
        self.read_index().await?;
        if self.published().cluster.downgrade().target.is_some() {
            self.set_downgrade(None).await?;
        }
        Ok(())
    }

    async fn downgrade_target(&self, target: &str) -> Result<(Version, Version), ServerError> {
        let target = Version::parse_target(target).map_err(|_| Rejection::BadDowngradeVersion)?;
        if self.published().cluster.version().is_none() {
            return Err(Rejection::ClusterVersionUnavailable.into());
        }
        self.read_index().await?;
        let cluster = &self.published().cluster;
        let version = cluster.version().ok_or(Rejection::ClusterVersionUnavailable)?;
        if version.downgrade_target() != Some(target) {
            return Err(Rejection::InvalidDowngradeTarget.into());
        }
        if cluster.downgrade().target.is_some() {
            return Err(Rejection::DowngradeInProgress.into());
        }
        Ok((version, target))
    }

    async fn set_downgrade(&self, target: Option<Version>) -> Result<(), ServerError> {
        let ver = target.map(|target| target.to_string()).unwrap_or_default();
        let set = DowngradeInfoSetRequest { enabled: target.is_some(), ver };
        let request = InternalRaftRequest { downgrade_info_set: Some(set), ..Default::default() };
        self.propose(request).await.map(|_| ())
    }

    async fn set_cluster_version(&self, version: Version) -> Result<(), ServerError> {
        let set = ClusterVersionSetRequest { ver: version.to_string() };
        self.propose(InternalRaftRequest { cluster_version_set: Some(set), ..Default::default() }).await.map(|_| ())
    }

    /// Asks all members for their versions.
    async fn versions(&self) -> Versions {
        let own = self.member_id();
        let ask = |(id, urls): (MemberId, Vec<String>)| async move {
            let version = if id == own { Some(self.shared.options.version) } else { self.version_of(&urls).await };
            (id, version)
        };
        join_all(self.shared.peers().into_iter().map(ask)).await.into_iter().collect()
    }

    async fn version_of(&self, urls: &[String]) -> Option<Version> {
        for url in urls {
            match ask::version(self.target(url, PATIENCE)).await {
                Ok(versions) => return Some(versions.server),
                Err(why) => tracing::debug!(url, %why, "a member does not tell its version"),
            }
        }
        None
    }
}

/// Keeps the cluster's version where it belongs, on the leader.
///
/// # Errors
/// Never; what fails is tried again.
pub async fn negotiate_version(handle: Handle) -> Result<(), Error> {
    let mut next = Instant::now();
    let mut young_since = None;
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            () = handle.stopped() => return Ok(()),
        }
        let young = handle.leads() && handle.published().cluster.version().is_none();
        young_since = young_since.filter(|_| young).or(young.then(Instant::now));
        if handle.leads() {
            decide(&handle, young_since.is_some_and(|since| since.elapsed() < FOUNDERS_PATIENCE)).await;
        }
        next = Instant::now() + if handle.published().cluster.version().is_none() { YOUNG_INTERVAL } else { INTERVAL };
    }
}

/// With `all`, nothing is decided until every member has told its version.
async fn decide(handle: &Handle, all: bool) {
    let versions = handle.versions().await;
    if all && versions.values().any(Option::is_none) {
        return;
    }
    let cluster = handle.published().cluster.clone();
    let Some(version) = negotiate::cluster_version(&cluster, versions.values().copied()) else { return };
    tracing::info!(cluster_version = %version, "setting the cluster version");
    if let Err(why) = handle.set_cluster_version(version).await {
        tracing::warn!(cluster_version = %version, %why, "failed to set the cluster version");
    }
}

/// Ends a downgrade once every member runs the version it leads to, on the leader.
///
/// # Errors
/// Never; what fails is tried again.
pub async fn watch_downgrade(handle: Handle) -> Result<(), Error> {
    loop {
        tokio::select! {
            () = sleep(handle.shared.options.downgrade_check) => {}
            () = handle.stopped() => return Ok(()),
        }
        let Some(target) = handle.published().cluster.downgrade().target.filter(|_| handle.leads()) else { continue };
        if negotiate::all_at(target, handle.versions().await.values().copied()) {
            tracing::info!(cluster_version = %target, "the cluster has been downgraded");
            handle
                .downgrade_cancel()
                .await
                .map_or_else(|why| tracing::warn!(%why, "failed to end the downgrade"), drop);
        }
    }
}
