//! One other member: where it is, what waits for it, and how the connections to it are.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Capabilities, Local,
    connect::Connection,
    headers::Introduction,
    outbox::{Outbox, StreamKind},
    processes::{Process, Processes},
    reports::{Reports, STEADY_AFTER, Suppressed, Topic},
};
use crate::{
    metrics::{self, Counter, Gauge},
    pb::raftpb::Message,
    tls::Dialler,
    types::MemberId,
};

/// Single requests that one member may have open here: etcd uses four connections, which may meet their successors.
const POSTS_MAX: usize = 8;
/// Snapshots that one member may be sending here.
const SNAPSHOTS_MAX: usize = 2;
/// What dialling may take beyond one election timeout, as in etcd.
const DIAL_PATIENCE_BASE: Duration = Duration::from_secs(1);

/// What every task of a transport needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) local: Arc<dyn Local>,
    /// By which peers know this process from another one with the same member's data.
    pub(super) process: Process,
    /// Milliseconds of one election timeout.
    pub(super) election_ms: AtomicU64,
    /// Dials peer URLs that want TLS.
    pub(super) dialler: Dialler,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Shared {
    /// How long dialling may take.
    pub(super) fn dial_patience(&self) -> Duration {
        DIAL_PATIENCE_BASE + Duration::from_millis(self.election_ms.load(Ordering::Relaxed))
    }

    pub(super) fn set_election_timeout(&self, timeout: Duration) {
        self.election_ms.store(millis(timeout), Ordering::Relaxed);
    }
}

/// The milliseconds of a time-out, as [`Shared`] keeps them.
pub(super) fn millis(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

/// One other member.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: MemberId,
    pub(super) outbox: Outbox,
    pub(super) stop: CancellationToken,
    pub(super) counters: Counters,
    /// Bounds the single requests of this member.
    pub(super) posts: Arc<Semaphore>,
    /// Bounds the snapshots of this member.
    pub(super) snapshots: Arc<Semaphore>,
    urls: Mutex<Urls>,
    link: Mutex<Link>,
    processes: Mutex<Processes>,
    reports: Mutex<Reports>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Urls {
    list: Vec<String>,
    at: usize,
    /// Those where nobody listened at the last dial.
    vacant: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Link {
    msgapp: bool,
    message: bool,
    since: Option<Instant>,
    introduction: Option<Introduction>,
}

impl Link {
    fn any(&self) -> bool {
        self.msgapp || self.message
    }
}

/// The instruments of one peer, found once.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) sent_bytes: Arc<Counter>,
    pub(super) sent_failures: Arc<Counter>,
    pub(super) received_bytes: Arc<Counter>,
    pub(super) received_failures: Arc<Counter>,
    known: Arc<Gauge>,
    active: Arc<Gauge>,
    disconnected: Arc<Counter>,
}

impl Counters {
    fn of(local: MemberId, peer: MemberId) -> Self {
        let (local, peer) = (local.to_string(), peer.to_string());
        Self {
            sent_bytes: metrics::PEER_SENT_BYTES.with([&peer]),
            sent_failures: metrics::PEER_SENT_FAILURES.with([&peer]),
            received_bytes: metrics::PEER_RECEIVED_BYTES.with([&peer]),
            received_failures: metrics::PEER_RECEIVED_FAILURES.with([&peer]),
            known: metrics::KNOWN_PEERS.with([&local, &peer]),
            active: metrics::ACTIVE_PEERS.with([&local, &peer]),
            disconnected: metrics::DISCONNECTED_PEERS.with([&local, &peer]),
        }
    }
}

impl Peer {
    /// A peer without connections.
    pub(super) fn new(id: MemberId, urls: Vec<String>, shared: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            id,
            outbox: Outbox::default(),
            stop: shared.stop.child_token(),
            counters: Counters::of(shared.local.member(), id),
            posts: Arc::new(Semaphore::new(POSTS_MAX)),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
            urls: Mutex::new(Urls { list: urls, at: 0, vacant: BTreeSet::new() }),
            link: Mutex::default(),
            processes: Mutex::default(),
            reports: Mutex::default(),
            shared: Arc::clone(shared),
        })
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Dials one of this peer's URLs.
    ///
    /// # Errors
    /// As [`Connection::dial`].
    pub(super) async fn dial(&self, url: &str) -> io::Result<Connection> {
        Connection::dial(url, &self.shared.dialler, self.shared.dial_patience()).await
    }

    /// Queues messages for this peer, and tells raft if one of them found no room.
    pub(super) fn send(&self, messages: impl Iterator<Item = Message>) {
        if !self.outbox.push(messages) {
            self.lost();
        }
    }

    /// A message to this peer did not arrive.
    pub(super) fn lost(&self) {
        self.counters.sent_failures.inc();
        self.shared.local.unreachable(self.id);
    }

    /// The URL to dial now.
    pub(super) fn url(&self) -> String {
        let urls = lock(&self.urls);
        urls.list.get(urls.at).cloned().unwrap_or_default()
    }

    /// `url` did not work: the next dial goes to the one behind it.
    pub(super) fn pass_over(&self, url: &str) {
        let mut urls = lock(&self.urls);
        if urls.list.get(urls.at).is_some_and(|current| current == url) {
            urls.at = (urls.at + 1) % urls.list.len();
        }
    }

    /// Whether a dial of `url` met a host where nobody listens. If that is so at all URLs, and no stream is up, the
    /// member is told.
    pub(super) fn note_dial(&self, url: &str, vacant: bool) {
        let mut urls = lock(&self.urls);
        let nowhere = if vacant {
            urls.vacant.insert(url.to_owned());
            urls.list.iter().all(|url| urls.vacant.contains(url))
        } else {
            urls.vacant.remove(url);
            false
        };
        drop(urls);
        if nowhere && !lock(&self.link).any() {
            self.shared.local.gone(self.id);
        }
    }

    /// Replaces the URLs; connections stay.
    pub(super) fn set_urls(&self, list: Vec<String>) {
        let mut urls = lock(&self.urls);
        if urls.list != list {
            *urls = Urls { list, at: 0, vacant: BTreeSet::new() };
        }
    }

    /// Whether the log is to be told of something that happened, as [`Reports::note`].
    pub(super) fn tell(&self, topic: Topic, condition: Option<&str>) -> Option<Suppressed> {
        lock(&self.reports).note(topic, condition, Instant::now())
    }

    /// One of the streams dialled by this member is up, or down.
    pub(super) fn set_link(&self, kind: StreamKind, up: bool) {
        if up {
            lock(&self.reports).stream_is_up();
        }
        let mut link = lock(&self.link);
        match kind {
            StreamKind::MsgApp => link.msgapp = up,
            StreamKind::Message => link.message = up,
        }
        let active = link.msgapp && link.message;
        if active == link.since.is_some() {
            return;
        }
        link.since = active.then(Instant::now);
        drop(link);
        self.counters.active.set(active.into());
        if active {
            if let Some(suppressed) = self.tell(Topic::Connected, None) {
                self.report_connected(suppressed);
            }
            return;
        }
        self.counters.disconnected.inc();
        if let Some(suppressed) = self.tell(Topic::Lost, None) {
            tracing::info!(peer = %self.id, suppressed = suppressed.field(), "the connection to a peer is lost");
        }
    }

    fn report_connected(&self, suppressed: Suppressed) {
        tracing::info!(peer = %self.id, suppressed = suppressed.field(), "connected to a peer");
    }

    /// One of the streams has been up for [`STEADY_AFTER`]. If both have, the peer is well.
    pub(super) fn settle(&self) {
        if self.active_since().is_some_and(|since| since >= STEADY_AFTER)
            && let Some(suppressed) = lock(&self.reports).settle()
        {
            self.report_connected(suppressed);
        }
    }

    /// A process opens a stream as this peer. Returns whether another one does so by turns, of which the log is told.
    pub(super) fn is_contested(&self, process: Process) -> bool {
        let contested = lock(&self.processes).note(process, Instant::now());
        if contested && let Some(suppressed) = self.tell(Topic::Contested, None) {
            tracing::error!(
                peer = %self.id,
                suppressed = suppressed.field(),
                "another process answers with this peer's ID: two run with its data and take its streams from each other; stop \
                 the one whose data directory is the copy, and delete that directory; another member needs an empty one and \
                 `member add`"
            );
        }
        contested
    }

    /// The peer says that another process opens streams as this member.
    pub(super) fn heard_of_rival(&self) {
        if let Some(suppressed) = self.tell(Topic::Contested, None) {
            tracing::error!(
                told_by = %self.id,
                suppressed = suppressed.field(),
                "another process answers with this member's ID: it runs with a copy of this data directory, or this one is \
                 the copy; stop the one that runs with the copy, and delete that directory; another member needs an empty one \
                 and `member add`"
            );
        }
    }

    /// How long both streams have been up.
    pub(super) fn active_since(&self) -> Option<Duration> {
        lock(&self.link).since.map(|since| since.elapsed())
    }

    /// The peer has said what it is. An etcd that should be updated is told of, once, and spoken with all the same.
    pub(super) fn heard(&self, introduction: Introduction) {
        let before = lock(&self.link).introduction.replace(introduction);
        if before != Some(introduction)
            && let Some((version, to)) = introduction.update_due()
            && self.tell(Topic::Outdated, Some(&version.to_string())).is_some()
        {
            tracing::warn!(
                peer = %self.id,
                %version,
                "the peer is an etcd that may apply some requests differently: update it to {to} or newer"
            );
        }
    }

    /// What `other`, which is the same peer, has heard.
    pub(super) fn inherit(&self, other: &Self) {
        let introduction = lock(&other.link).introduction;
        lock(&self.link).introduction = introduction;
    }

    pub(super) fn capabilities(&self) -> Option<Capabilities> {
        lock(&self.link).introduction.map(|introduction| introduction.capabilities)
    }

    /// Counts this peer among those that are configured.
    pub(super) fn show_known(&self, known: bool) {
        self.counters.known.set(known.into());
    }

    /// Ends the tasks; streams end when they have sent what waits.
    pub(super) fn close(&self) {
        self.outbox.close();
        self.stop.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
