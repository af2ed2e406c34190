//! Finding the cluster in the life of the daemon: when it is looked for, what the service manager hears meanwhile, and how
//! the search ends.
//!
//! Invariants: nothing is looked for where a member has been; there is no `member/` in the data directory before the
//! founders are known; a signal ends the search at once.

use std::{
    net::ToSocketAddrs as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    time::interval,
};

use crate::{
    config::{self, BootstrapMethod, Config, DiscoveryV3, InitialCluster},
    discovery::{
        Access, Cause, DiscoveryError, Founders, Op, Outcome, Own, Progress, Registration, V2, V3,
        dns::Resolver,
        srv::{Domain, Found},
    },
    server::DataDir,
    tls::{Dialler, DiallerOptions, Identity, PairFiles, Trust},
};

use super::{
    lifecycle::{EXTENSION, Ending},
    settings,
    systemd::{self, State},
};

/// How often the service manager is told that a search goes on; several times in each extension it is given.
const REMINDER: Duration = Duration::from_secs(10);

/// How a search ended.
pub(super) enum Discovered {
    /// This node is one of them.
    Founders {
        /// All of them.
        founders: Founders,
        /// The name that certificates of the others have to carry, if it is not that of their hosts.
        server_name: Option<String>,
    },
    /// The cluster has these members already, and this node is to stand in for them as a proxy.
    Full(InitialCluster),
    /// By this signal.
    Stopped(i32),
}

/// Whether the cluster is still to be found: not where a member has been, whatever is left of it.
///
/// # Errors
/// A marker that cannot be read.
pub(super) fn is_needed(config: &Config, dir: &DataDir) -> Result<bool> {
    let token = match &config.bootstrap.method {
        BootstrapMethod::Static(_) => return Ok(false),
        BootstrapMethod::DnsSrv { .. } => None,
        BootstrapMethod::DiscoveryV2 { url, .. } => Some(url),
        BootstrapMethod::DiscoveryV3(v3) => Some(&v3.token),
    };
    let was_here = config.member.is_initialized() || dir.is_founded()?;
    if let Some(token) = token.filter(|_| was_here) {
        let wal_dir = config.member.wal_dir();
        tracing::warn!(
            discovery_token = token,
            wal_dir = %wal_dir.display(),
            "discovery token is ignored since cluster already initialized; valid logs are found"
        );
    }
    Ok(!was_here)
}

/// Looks for the cluster until it is found or a signal comes.
///
/// # Errors
/// Whatever ends the search for good.
pub(super) async fn search(config: &Config) -> Result<Discovered> {
    let mut terminate = signal(SignalKind::terminate()).context("watching signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching signals")?;
    let status = Status::default();
    let tell = |progress: Progress| status.tell(progress.to_string());
    let searching = find(config, &tell);
    tokio::pin!(searching);
    let mut remind = interval(REMINDER);
    let stopped = loop {
        select! {
            found = &mut searching => return found,
            _ = terminate.recv() => break SignalKind::terminate(),
            _ = interrupt.recv() => break SignalKind::interrupt(),
            _ = remind.tick() => status.repeat(),
        }
    };
    tracing::info!(signal = stopped.as_raw_value(), "received signal; the search for the cluster ends");
    systemd::notify(&[State::Stopping, State::Status("stopping".to_owned())]);
    Ok(Discovered::Stopped(stopped.as_raw_value()))
}

/// The last thing the service manager was told.
#[derive(Default)]
struct Status {
    line: Mutex<String>,
}

impl Status {
    fn tell(&self, line: String) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
        self.repeat();
    }

    fn repeat(&self) {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner).clone();
        systemd::notify(&[State::Extend(EXTENSION), State::Status(line)]);
    }
}

async fn find(config: &Config, tell: &(dyn Fn(Progress) + Send + Sync)) -> Result<Discovered> {
    let own = Own { name: config.member.name.clone(), peer_urls: settings::texts(&config.advertise.peer) };
    let found: Result<Discovered> = match &config.bootstrap.method {
        BootstrapMethod::Static(_) => bail!("a static cluster is not looked for"),
        BootstrapMethod::DnsSrv { domain, service } => {
            tell(Progress::Asking(format!("the name servers for {domain}")));
            let domain = Domain { domain: domain.clone(), suffix: service.clone() };
            by_srv(config, &domain, &own).await
        }
        BootstrapMethod::DiscoveryV2 { url, proxy, fall_back_to_proxy } => {
            let outcome = by_v2(config, url, proxy.as_deref(), &own, tell).await;
            outcome
                .and_then(|outcome| settle(outcome, *fall_back_to_proxy))
                .map_err(|cause| explained(config, url, cause).into())
        }
        BootstrapMethod::DiscoveryV3(v3) => {
            let outcome = by_v3(config, v3, &own, tell).await;
            outcome
                .and_then(|outcome| settle(outcome, false))
                .map_err(|cause| explained(config, &v3.token, cause).into())
        }
    };
    found
}

/// The peer URLs of a cluster, for a node that is none of its members. A cluster that is not complete is waited for.
///
/// # Errors
/// Whatever ends the search for good.
pub(super) async fn peers(config: &Config) -> Result<Vec<String>> {
    match &config.bootstrap.method {
        BootstrapMethod::Static(members) => Ok(peer_urls(members)),
        BootstrapMethod::DnsSrv { domain, service } => {
            let domain = Domain { domain: domain.clone(), suffix: service.clone() };
            Ok(domain.peers(&Resolver::of_system()).await?)
        }
        BootstrapMethod::DiscoveryV2 { url, proxy, .. } => {
            let status = Status::default();
            let tell = |progress: Progress| status.tell(progress.to_string());
            let listed = async { V2::new(url, proxy.as_deref(), &tell)?.members().await?.members() };
            listed.await.map(|members| peer_urls(&members)).map_err(|cause| explained(config, url, cause).into())
        }
        BootstrapMethod::DiscoveryV3(_) => {
            bail!("v3 discovery tells a proxy nothing: name the members with --initial-cluster")
        }
    }
}

/// All peer URLs of a cluster.
pub(super) fn peer_urls(members: &InitialCluster) -> Vec<String> {
    members.0.values().flatten().map(|url| url.as_str().to_owned()).collect()
}

async fn by_v2(
    config: &Config,
    url: &str,
    proxy: Option<&str>,
    own: &Own,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Outcome, Cause> {
    let mut registration = Registration::open(&config.member.data_dir)?;
    V2::new(url, proxy, tell)?.join(own, &mut registration).await
}

async fn by_v3(
    config: &Config,
    v3: &DiscoveryV3,
    own: &Own,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Outcome, Cause> {
    tracing::info!("Bootstrapping cluster using v3 discovery.");
    let mut registration = Registration::open(&config.member.data_dir)?;
    let access = Access {
        token: v3.token.clone(),
        endpoints: v3.endpoints.clone(),
        dial_timeout: v3.dial_timeout,
        request_timeout: v3.request_timeout,
        keepalive_time: v3.keepalive_time,
        keepalive_timeout: v3.keepalive_timeout,
        user: v3.user.clone(),
        password: v3.password.clone(),
        tls: dialler(v3)?,
    };
    V3::connect(access, tell).await?.join(own, &mut registration).await
}

/// What encrypts the way to the cluster that is asked, decided as in etcd's client.
fn dialler(v3: &DiscoveryV3) -> Result<Option<Dialler>, Cause> {
    let has_files = v3.pair.is_some() || v3.ca.is_some();
    if !has_files && !v3.insecure_skip_tls_verify && v3.insecure_transport {
        return Ok(None);
    }
    let pair = v3.pair.as_ref().map(|pair| PairFiles::new(&pair.cert, &pair.key));
    let trust = v3.ca.clone().map_or(Trust::System, Trust::File);
    let trust = (!v3.insecure_skip_tls_verify).then_some(trust);
    let identity = pair.map(Identity::read).transpose();
    let dialler =
        identity.and_then(|identity| Dialler::new(DiallerOptions { identity, trust, ..DiallerOptions::default() }));
    dialler.map(Some).map_err(Cause::Tls)
}

fn settle(outcome: Outcome, fall_back: bool) -> Result<Discovered, Cause> {
    match outcome {
        Outcome::Founders(founders) => Ok(Discovered::Founders { founders, server_name: None }),
        Outcome::Full(listed) if fall_back => Ok(Discovered::Full(listed.members()?)),
        Outcome::Full(_) => Err(Cause::Full),
    }
}

/// Members found by a domain show certificates of that domain, unless an authority of their own is named (etcd's rule).
async fn by_srv(config: &Config, domain: &Domain, own: &Own) -> Result<Discovered> {
    let Found { founders, has_tls } = domain.founders(&Resolver::of_system(), own, &config.bootstrap.token).await?;
    let listed = founders.listed().map_err(anyhow::Error::msg)?;
    let lookup = |host: &str| Some((host, 0).to_socket_addrs().ok()?.map(|address| address.ip()).collect());
    config::check_entry(config, &listed, &founders.own, &lookup)?;
    let server_name = Some(domain.domain.clone()).filter(|_| has_tls && config.tls.peer.trusted_ca.is_none());
    Ok(Discovered::Founders { founders, server_name })
}

/// Says what etcd says when a search has failed.
fn explained(config: &Config, token: &str, cause: Cause) -> DiscoveryError {
    let error = DiscoveryError { op: Op::Join, cause };
    match &error.cause {
        Cause::DuplicateId { .. } => {
            let name = &config.member.name;
            tracing::warn!(name, discovery_token = token, "member has been registered with discovery service");
            let data_dir = config.member.data_dir.display();
            tracing::warn!(%data_dir, "but could not find valid cluster configuration");
            tracing::warn!("check data dir if previous bootstrap succeeded");
            tracing::warn!("or use a new discovery token if previous bootstrap failed");
        }
        Cause::DuplicateName { .. } => {
            tracing::warn!(discovery_token = token, "member with duplicated name has already been registered");
            tracing::warn!("cURL the discovery token URL for details");
            tracing::warn!("do not reuse discovery token; generate a new one to bootstrap a cluster");
        }
        _ => {
            tracing::warn!(discovery_token = token, "failed to bootstrap; discovery token was already used");
            tracing::warn!("do not reuse discovery token; generate a new one to bootstrap a cluster");
        }
    }
    error
}

/// How the process ends after a search that has found nobody to go on with.
///
/// # Errors
/// Why the search failed.
pub(super) fn ending(ended: Result<Discovered>) -> Result<Ending> {
    match ended? {
        Discovered::Stopped(signal) => Ok(Ending::Signal(signal)),
        Discovered::Founders { .. } | Discovered::Full(_) => bail!("a search that has found members is not over"),
    }
}

/// Forgets what was registered: there is a member now, and its log says who it is.
pub(super) fn forget(config: &Config) {
    let forgotten = Registration::open(&config.member.data_dir).and_then(|mut registration| registration.forget());
    if let Err(error) = forgotten {
        tracing::warn!(%error, "what was registered for discovery stays in the data directory, without effect");
    }
}
