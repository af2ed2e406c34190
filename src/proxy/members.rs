//! Who the members are: asked again and again, at their peer ports first.
//!
//! A question goes to all known peer URLs, a few at a time; the first usable answer wins. Where none comes (a firewall
//! before the peer ports, for one) the client ports are asked, by the v2 API and by the v3 gateway. What is found replaces
//! the peer URLs in the proxy's directory and the endpoints, in a new order, and clears what was known of their failures.
//!
//! Invariants: an answer that is missing or useless changes nothing, so that a cluster that was away is found again; the
//! number of questions under way and the time of each are bounded.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::{select, sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    directory::Directory,
    endpoints::{Endpoint, Endpoints},
};
use crate::{
    clock::{Chance as _, SystemChance},
    config::{Scheme, Url},
    tls::Dialler,
    transport::ask::{self, MemberUrls, Target},
    types::with_causes,
};

/// How long one member may take to answer (etcd's limit).
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Questions under way at a time.
const QUESTIONS_MAX: usize = 4;
/// How often the members are looked for while nobody answers (etcd's, for intervals that are not shorter).
const LOST_INTERVAL: Duration = Duration::from_secs(1);

/// What dials members that want TLS.
#[derive(Clone, Debug)]
pub struct Diallers {
    /// At their peer URLs.
    pub peers: Dialler,
    /// At their client URLs.
    pub clients: Dialler,
}

/// The members of the cluster, as far as this proxy knows.
#[derive(Debug)]
pub struct Members {
    directory: Directory,
    /// Where questions go: what was found last, then what was configured.
    peers: Mutex<Vec<String>>,
    configured: Vec<String>,
    endpoints: Arc<Endpoints>,
    diallers: Diallers,
    /// Whether the last question had an answer, so that a change is told once.
    is_found: AtomicBool,
    asked: Notify,
}

impl Members {
    /// Members that are to be found at `stored` or, if nobody is there any more, at `configured`.
    pub fn new(
        directory: Directory,
        stored: Option<Vec<String>>,
        configured: Vec<String>,
        endpoints: Arc<Endpoints>,
        diallers: Diallers,
    ) -> Arc<Self> {
        let peers = stored.unwrap_or_else(|| configured.clone());
        let (peers, is_found, asked) = (Mutex::new(peers), AtomicBool::new(true), Notify::new());
        Arc::new(Self { directory, peers, configured, endpoints, diallers, is_found, asked })
    }

    /// Asks once. `true` if the members were found.
    pub async fn refresh(&self) -> bool {
        let Some(found) = self.find().await else {
            if self.is_found.swap(false, Ordering::Relaxed) {
                tracing::warn!(
                    peers = ?self.peers(),
                    "proxy: could not retrieve cluster information from the given urls: it is asked for again every second"
                );
            }
            return false;
        };
        let is_first = !self.is_found.swap(true, Ordering::Relaxed) || self.endpoints.all().is_empty();
        self.take_over(&found);
        if is_first {
            tracing::info!("endpoints found {:?}", self.addresses());
        }
        true
    }

    /// Asks every `interval`, every second while nobody answers, and at [`Members::refresh_now`], until `stop` is cancelled.
    pub async fn keep(self: Arc<Self>, interval: Duration, stop: CancellationToken) {
        let interval = interval.max(Duration::from_millis(1));
        loop {
            let pause = if self.endpoints.available().is_empty() { interval.min(LOST_INTERVAL) } else { interval };
            let early = async {
                // Whoever finds the last endpoint dead shortens the wait.
                let mut changes = self.endpoints.changes();
                loop {
                    if pause > LOST_INTERVAL && self.endpoints.available().is_empty() {
                        return sleep(LOST_INTERVAL).await;
                    }
                    if changes.changed().await.is_err() {
                        return std::future::pending().await;
                    }
                }
            };
            select! {
                () = stop.cancelled() => return,
                () = self.asked.notified() => {}
                () = early => {}
                () = sleep(pause) => {}
            }
            select! {
                () = stop.cancelled() => return,
                _ = self.refresh() => {}
            }
        }
    }

    /// Has the members asked at once, as somebody who sent SIGHUP expects.
    pub fn refresh_now(&self) {
        self.asked.notify_one();
    }

    async fn find(&self) -> Option<Vec<MemberUrls>> {
        let mut peers = self.peers();
        peers.extend(self.configured.iter().filter(|url| !peers.contains(url)).cloned().collect::<Vec<_>>());
        let Diallers { peers: to_peers, clients: to_clients } = &self.diallers;
        let asked = stream::iter(peers).map(|url| of_peer(url, to_peers)).buffer_unordered(QUESTIONS_MAX);
        if let Some(found) = first(asked).await {
            return Some(found);
        }
        let asked = stream::iter(self.addresses()).map(|url| of_client_port(url, to_clients));
        first(asked.buffer_unordered(QUESTIONS_MAX)).await
    }

    fn take_over(&self, found: &[MemberUrls]) {
        let peers: Vec<String> = found.iter().flat_map(|member| member.peer_urls.clone()).collect();
        let old = std::mem::replace(&mut *self.peers.lock().unwrap_or_else(PoisonError::into_inner), peers.clone());
        if old != peers {
            match self.directory.write(&peers) {
                Ok(()) => tracing::info!("proxy: updated peer urls in cluster file from {old:?} to {peers:?}"),
                Err(error) => tracing::error!(error = %with_causes(&error), "the next start will not know the members"),
            }
        }
        self.endpoints.rearrange(&shuffled(endpoints_of(found)));
        self.endpoints.forgive();
    }

    fn peers(&self) -> Vec<String> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn addresses(&self) -> Vec<String> {
        self.endpoints.all().iter().map(|endpoint| endpoint.address.clone()).collect()
    }
}

/// The first answer, whoever gives it.
async fn first(answers: impl Stream<Item = Option<Vec<MemberUrls>>>) -> Option<Vec<MemberUrls>> {
    std::pin::pin!(answers.filter_map(std::future::ready)).next().await
}

async fn of_peer(url: String, dialler: &Dialler) -> Option<Vec<MemberUrls>> {
    let target = Target { url: &url, dialler, patience: ANSWER_PATIENCE };
    let found = ask::members(target).await.inspect_err(|error| unanswered(&url, error)).ok()?;
    let urls = |member: crate::membership::Member| MemberUrls {
        peer_urls: member.peer_urls,
        client_urls: member.attributes.client_urls,
    };
    usable(found.members.into_iter().map(urls).collect())
}

async fn of_client_port(url: String, dialler: &Dialler) -> Option<Vec<MemberUrls>> {
    let target = Target { url: &url, dialler, patience: ANSWER_PATIENCE };
    usable(ask::member_urls(target).await.inspect_err(|error| unanswered(&url, error)).ok()?)
}

fn unanswered(url: &str, error: &ask::AskError) {
    tracing::debug!(url, error = %with_causes(error), "a member does not say who the members are");
}

/// A cluster has members, and they have peers.
fn usable(found: Vec<MemberUrls>) -> Option<Vec<MemberUrls>> {
    found.iter().any(|member| !member.peer_urls.is_empty()).then_some(found)
}

/// The client URLs of all members that a proxy can dial.
fn endpoints_of(found: &[MemberUrls]) -> Vec<Endpoint> {
    let urls: BTreeSet<&str> = found.iter().flat_map(|member| member.client_urls.iter().map(String::as_str)).collect();
    let dialled = |url: &&str| Url::parse(url).is_ok_and(|url| matches!(url.scheme(), Scheme::Http | Scheme::Https));
    urls.into_iter().filter(dialled).map(Endpoint::new).collect()
}

/// In an order of this proxy's own, so that not all of them ask the same member.
fn shuffled(mut list: Vec<Endpoint>) -> Vec<Endpoint> {
    for end in (1..list.len()).rev() {
        let other = usize::try_from(SystemChance.below(end as u64 + 1)).unwrap_or_default();
        list.swap(end, other);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(peer: &[&str], client: &[&str]) -> MemberUrls {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        MemberUrls { peer_urls: texts(peer), client_urls: texts(client) }
    }

    #[test]
    fn every_client_url_that_can_be_dialled_is_an_endpoint() {
        let found = [
            member(&["http://p:1"], &["http://a:1", "https://a:2", "unix://x:0"]),
            member(&["http://q:1"], &["http://a:1", "nonsense"]),
            member(&["http://r:1"], &[]),
        ];
        let addresses: Vec<_> = endpoints_of(&found).into_iter().map(|endpoint| endpoint.address).collect();
        assert_eq!(addresses, ["http://a:1", "https://a:2"]);
    }

    #[test]
    fn shuffling_loses_nobody() {
        let list: Vec<Endpoint> = (0..20).map(|number| Endpoint::new(number.to_string())).collect();
        let mut back = shuffled(list.clone());
        back.sort();
        let mut sorted = list;
        sorted.sort();
        assert_eq!(back, sorted);
    }

    #[test]
    fn an_answer_without_members_is_none() {
        assert_eq!(usable(vec![]), None);
        assert_eq!(usable(vec![member(&[], &["http://a:1"])]), None);
        assert!(usable(vec![member(&["http://p:1"], &[])]).is_some());
    }

    #[tokio::test]
    async fn a_cluster_that_is_away_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let endpoints = Endpoints::new(super::super::endpoints::Recovery::AfterWait(Duration::from_secs(5)));
        endpoints.replace(&[Endpoint::new("http://127.0.0.1:1")]);
        let own = Directory::open(dir.path()).unwrap();
        own.write(&["http://127.0.0.1:2".to_owned()]).unwrap();
        let stored = own.read().unwrap();
        let members = Members::new(
            own,
            stored,
            vec!["http://127.0.0.1:3".to_owned()],
            Arc::clone(&endpoints),
            Diallers { peers: Dialler::default(), clients: Dialler::default() },
        );
        assert!(!members.refresh().await);
        assert_eq!(members.addresses(), ["http://127.0.0.1:1"]);
        assert_eq!(members.peers(), ["http://127.0.0.1:2"]);
    }
}
