//! From a valid configuration to a serving member and back.

use std::{
    net::ToSocketAddrs as _,
    num::NonZero,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use anyhow::{Context as _, Error, Result, anyhow};
use tokio::{
    runtime::{Builder, Runtime},
    select,
    signal::unix::{Signal, SignalKind, signal},
    time::{interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, Api, Beside, Places, Serves},
    audit::Audit,
    clock::{self, Stopwatch},
    config::{self, ClusterState, Config, ListenUrl, Role, TokenProvider},
    discovery::Founders,
    metrics,
    server::{self, Bootstrap, DataDir, Handle, REMOVED_REMEDY, Server, ServerFailure, Trouble},
    spans::Spans,
    tls::{self, Acceptor},
};

use super::{
    descriptors::Descriptors,
    discovery::{self, Discovered},
    discovery_service,
    logging::FATAL,
    proxy::{self, Found},
    reload::Reloading,
    secure::Secure,
    settings,
    sockets::{self, Inherited, Socket},
    systemd::{self, State},
    tasks::{Ended, Tasks},
};

/// How long the peer port may take to close: what is open there is cut.
const DRAIN_PEERS: Duration = Duration::from_millis(100);
/// How long open calls and background duties may take to end: callers expect an exit within 1.5 s of SIGTERM.
pub(super) const DRAIN: Duration = Duration::from_millis(700);
/// How long the last spans and the last lines of the audit log may take together, and lines at least.
const DRAIN_WITNESSES: Duration = Duration::from_millis(300);
const DRAIN_AUDIT_MIN: Duration = Duration::from_millis(50);
/// How often the service manager hears how the member stands.
pub(super) const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// By how much the start-up time-out is extended at a time, while recovering or waiting for a quorum.
pub(super) const EXTENSION: Duration = Duration::from_secs(30);
/// How often a member that waits for its quorum says so.
pub(super) const REMINDER: Duration = Duration::from_secs(3);
/// A thread at one piece of work for this long is stuck, whatever the watchdog's period is.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(10);

/// The name of every part that accepts connections.
pub(super) const LISTENER: &str = "listener";
/// The exit code of SIGQUIT, as of every Go program.
const QUIT_CODE: i32 = 2;

/// How a run ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By this signal; the process dies by it, as etcd does.
    Signal(i32),
    /// The cluster removed this member.
    Removed,
}

impl Ending {
    /// Ends the process accordingly. Process 1 cannot die by a signal and exits with 0.
    pub fn finish(self) -> ExitCode {
        if let Self::Signal(signal) = self
            && std::process::id() != 1
        {
            // Comes back only if the signal could not be raised.
            drop(signal_hook::low_level::emulate_default_handler(signal));
        }
        ExitCode::SUCCESS
    }
}

/// A member that had started ended by itself; with all causes in one line.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub(super) struct Stopped {
    /// What the last log record says.
    pub(super) message: &'static str,
    cause: String,
}

impl Stopped {
    fn member(cause: String) -> Self {
        Self { message: "the member stopped", cause }
    }

    /// A part that ended although nobody had asked it to; for a listener in etcd's words.
    pub(super) fn part(ended: &Ended) -> Self {
        let message = if ended.name == LISTENER { "listener failed" } else { "the member stopped" };
        Self { message, cause: ended.to_string() }
    }
}

/// Runs a member until a signal or a failure.
pub(super) fn run(config: &Config, reloading: Reloading) -> Result<Ending> {
    let runtime = start_runtime(config)?;
    // Watched from here on: it must not end a member that is still recovering.
    let hangup = {
        let _guard = runtime.enter();
        signal(SignalKind::hangup()).context("watching signals")?
    };
    export_settings(config);
    if let Role::Proxy(mode) = config.role()? {
        if config.audit.is_some() || config.tracing.is_some() {
            tracing::warn!("a proxy neither writes an audit log nor traces calls: the members behind it do");
        }
        return proxy::run(runtime, config, (hangup, reloading), Found::Configured(mode));
    }
    check_own_entry(config)?;
    let descriptors = Descriptors::of_process()?;
    let dir = DataDir::claim(&config.member.data_dir, config.member.wal_dir_dedicated.as_deref())?;
    let secure = Secure::of(config)?;
    let witnesses = Witnesses::of(config, &runtime)?;
    let mut options = settings::server_options(config, descriptors, secure.dialler.clone())?;
    systemd::notify(&[State::Status("recovering".to_owned()), State::Extend(EXTENSION)]);
    let mut listeners = None;
    let mut founders = None;
    if discovery::is_needed(config, &dir)? {
        // Bound before anybody is told of this member, who could not listen.
        listeners = Some(Listeners::bind(config, descriptors.places, &secure)?);
        match runtime.block_on(discovery::search(config)) {
            Ok(Discovered::Founders { founders: all, server_name }) => {
                founders = Some(all);
                if let Some(name) = server_name {
                    options.dialler = options.dialler.named(&name);
                }
            }
            Ok(Discovered::Full(members)) => {
                // The directory is the proxy's from here on.
                drop(dir);
                let found = Found::Full { members, listeners: listeners.map(Box::new), secure };
                return proxy::run(runtime, config, (hangup, reloading), found);
            }
            ended => {
                // Who still looks up a name is not waited for.
                runtime.shutdown_timeout(Duration::ZERO);
                return discovery::ending(ended);
            }
        }
    }
    dir.prepare()?;
    let bootstrap = runtime.block_on(bootstrap(config, &options, founders))?;
    // Bound first: a member founded by a start that then cannot listen would keep the URLs of that start.
    let listeners = listeners.map_or_else(|| Listeners::bind(config, descriptors.places, &secure), Ok)?;
    let opened = server::open(dir, &options, &bootstrap)?;
    discovery::forget(config);
    tracing::info!(
        local_member_id = %opened.identity.member,
        cluster_id = %opened.identity.cluster,
        "{}", if opened.restarted { "restarting local member" } else { "starting local member" }
    );
    if opened.restarted && config.gates.initial_corrupt_check {
        runtime.block_on(server::check_initially(
            &opened,
            options.tunables.request_timeout,
            options.dialler.clone(),
        ))?;
    }
    let server = Server::start(opened, options).context("starting the member's threads")?;
    let ending =
        runtime.block_on(serve(&runtime, config, &server, (listeners, witnesses.clone()), (hangup, reloading)));
    tracing::info!(name = config.member.name, "closing etcd server");
    let failed = server.failure().map(describe);
    let handle = server.handle();
    let dir = server.shut_down();
    // Behind the last call.
    witnesses.close(runtime);
    // The state is left open until the process ends: to close it would be to wait for a merge or a flush under way, which
    // can take seconds, and leaves nothing that the next start needs.
    std::mem::forget((handle, dir));
    tracing::info!(name = config.member.name, "closed etcd server");
    match failed {
        Some(Removal::Removed) => Ok(Ending::Removed),
        Some(Removal::Failed(text)) => Err(Stopped::member(text).into()),
        None => ending,
    }
}

pub(super) fn start_runtime(config: &Config) -> Result<Runtime> {
    let threads = config.threads.or_else(|| available_parallelism().ok()).map_or(1, NonZero::get);
    let started = AtomicUsize::new(0);
    // Workers are started first, and for good. Whoever counts threads by their names is to find as many as he asked for.
    let name = move || if started.fetch_add(1, Ordering::Relaxed) < threads { "worker" } else { "blocking" }.to_owned();
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name_fn(name)
        .enable_all()
        .build()
        .context("starting tokio")
}

fn export_settings(config: &Config) {
    metrics::set_extensive(config.metrics.extensive);
    for (gate, on) in config::gates::states(&config.gates) {
        metrics::FEATURE_ENABLED.with([gate.name, gate.stage.name()]).set(i64::from(on));
    }
}

/// A founding member compares its own entry with what it advertises, host names by their addresses (etcd's rule).
fn check_own_entry(config: &Config) -> Result<()> {
    if config.member.is_initialized() {
        return Ok(());
    }
    let lookup = |host: &str| {
        let addresses = (host, 0).to_socket_addrs().ok()?;
        Some(addresses.map(|address| address.ip()).collect())
    };
    Ok(config::check_own_entry(config, &lookup)?)
}

/// What a member without data begins with, after its peers were asked whether it may. One that has data needs nothing.
async fn bootstrap(config: &Config, options: &server::Options, founders: Option<Founders>) -> Result<Bootstrap> {
    let mut bootstrap = settings::bootstrap(config, founders);
    if config.member.is_initialized() {
        return Ok(bootstrap);
    }
    match config.bootstrap.state {
        ClusterState::New => server::check_not_bootstrapped(&options.dialler, &bootstrap, &options.name).await?,
        ClusterState::Existing => {
            let (listed, name) = (&bootstrap.initial_cluster, bootstrap.listed(&options.name));
            let found = server::find_cluster(&options.dialler, listed, name, options.version).await?;
            bootstrap.joining = Some(found);
        }
    }
    Ok(bootstrap)
}

enum Removal {
    Removed,
    Failed(String),
}

fn describe(failure: &ServerFailure) -> Removal {
    match failure {
        ServerFailure::Removed(member) => {
            tracing::warn!(%member, "the member has been permanently removed from the cluster: {REMOVED_REMEDY}");
            Removal::Removed
        }
        failure => Removal::Failed(failure.explained()),
    }
}

/// Everything bound before the member starts, so that a wrong address is found at once.
pub(super) struct Listeners {
    pub(super) client: Vec<Listener>,
    pub(super) client_http: Vec<Listener>,
    pub(super) metrics: Vec<Listener>,
    peer: Vec<Listener>,
    /// For the connections of all of them.
    pub(super) places: Places,
}

/// One socket, and what is served there.
pub(super) struct Listener {
    /// One URL, or those with and without TLS of one address.
    pub(super) urls: Vec<ListenUrl>,
    pub(super) socket: Socket,
    /// Encrypts, if a URL wants it.
    pub(super) acceptor: Option<Acceptor>,
}

impl Listener {
    pub(super) fn beside(&self) -> Beside {
        let is_plain = |url: &ListenUrl| !url.url.scheme().is_tls();
        if self.urls.iter().any(is_plain) { Beside::PlainText } else { Beside::Nothing }
    }
}

impl Listeners {
    fn bind(config: &Config, places: Places, secure: &Secure) -> Result<Self> {
        Self::bind_with(config, &config.listen.peer, places, secure)
    }

    /// Those of a node that is no member: nothing listens for peers.
    pub(super) fn bind_clients(config: &Config, places: Places, secure: &Secure) -> Result<Self> {
        Self::bind_with(config, &[], places, secure)
    }

    fn bind_with(config: &Config, peer_urls: &[ListenUrl], places: Places, secure: &Secure) -> Result<Self> {
        let mut inherited = Inherited::of_process();
        let mut bind = |urls: &[ListenUrl], acceptor: &Option<Acceptor>| -> Result<Vec<Listener>> {
            let mut listeners: Vec<Listener> = Vec::new();
            for url in urls {
                let acceptor = acceptor.clone().filter(|_| url.url.scheme().is_tls());
                if let Some(same) =
                    listeners.iter_mut().find(|other| other.urls.iter().all(|url_| url_.bind == url.bind))
                {
                    same.urls.push(url.clone());
                    same.acceptor = same.acceptor.take().or(acceptor);
                    continue;
                }
                let socket = sockets::bind(url, &mut inherited)?;
                listeners.push(Listener { urls: vec![url.clone()], socket, acceptor });
            }
            Ok(listeners)
        };
        tracing::info!(listen_peer_urls = joined(peer_urls), "configuring peer listeners");
        let peer = bind(peer_urls, &secure.peer)?;
        tracing::info!(listen_client_urls = joined(&config.listen.client), "configuring client listeners");
        let listeners = Self {
            peer,
            client: bind(&config.listen.client, &secure.client)?,
            client_http: bind(&config.listen.client_http, &secure.client)?,
            metrics: bind(&config.listen.metrics, &secure.client)?,
            places,
        };
        for address in inherited.unused() {
            tracing::warn!(%address, "systemd passed a socket that no listen option names; it is not served");
        }
        Ok(listeners)
    }
}

pub(super) fn joined(urls: &[ListenUrl]) -> String {
    urls.iter().map(|url| url.url.as_str()).collect::<Vec<_>>().join(",")
}

/// Who is told of every call.
#[derive(Clone, Default)]
struct Witnesses {
    audit: Option<Arc<Audit>>,
    spans: Option<Arc<Spans>>,
}

impl Witnesses {
    fn of(config: &Config, runtime: &Runtime) -> Result<Self> {
        let _guard = runtime.enter();
        let audit = settings::audit_options(config).map(Audit::start).transpose()?;
        let spans = settings::span_settings(config).map(|settings| Spans::export(&settings)).transpose();
        let spans =
            spans.map_err(|error| anyhow!("{error}: --distributed-tracing-address is HOST:PORT of a collector"))?;
        Ok(Self { audit, spans: spans.map(Arc::new) })
    }

    fn watch(self, api: &Api) {
        if let Some(audit) = self.audit {
            api.set_audit(audit);
        }
        if let Some(spans) = self.spans {
            api.set_spans(spans);
        }
    }

    /// Hands on what is left, and ends the runtime, which spans leave through. Whether all of it arrived each tells by itself.
    /// Lines are written meanwhile, so that whoever waits for the collector waits for the disk as well.
    fn close(self, runtime: Runtime) {
        let begun = Stopwatch::start();
        if let Some(spans) = &self.spans {
            spans.send_rest();
        }
        // The last lines and spans are those of calls that are cut here.
        runtime.shutdown_timeout(Duration::ZERO);
        if let Some(spans) = &self.spans {
            spans.tell_lost();
        }
        let patience = DRAIN_WITNESSES.saturating_sub(begun.elapsed()).max(DRAIN_AUDIT_MIN);
        self.audit.map(|audit| audit.close(patience));
    }
}

/// Serves until the member stops, then lets go of its peers: they are needed for as long as clients wait for answers.
async fn serve(
    runtime: &Runtime,
    config: &Config,
    server: &Server,
    listeners: (Listeners, Witnesses),
    reloading: (Signal, Reloading),
) -> Result<Ending> {
    let _guard = runtime.enter();
    let transport = server.connect(runtime.handle().clone());
    let mut peers = Tasks::default();
    let ending = serve_all(config, server, listeners, reloading, &mut peers).await;
    transport.stop();
    peers.shut_down(DRAIN_PEERS).await;
    ending
}

async fn serve_all(
    config: &Config,
    server: &Server,
    (listeners, witnesses): (Listeners, Witnesses),
    (hangup, reloading): (Signal, Reloading),
    peers: &mut Tasks,
) -> Result<Ending> {
    let handle = server.handle();
    let mut signals = Signals::new(handle.clone())?;
    let mut tasks = Tasks::default();
    let api = Api::new(handle.clone(), settings::serve_options(config), listeners.places, tasks.stop());
    if config.http.discovery_service {
        api.set_guest(discovery_service::guest(&handle, tasks.stop()));
    }
    witnesses.watch(&api);
    let status = Arc::new(Status::new(handle.clone()));
    tasks.start("reload", reloading.run((Arc::clone(&api), Arc::clone(&status)), hangup, tasks.stop()));
    for listener in listeners.peer {
        tracing::info!(address = joined(&listener.urls), "serving peer traffic");
        serve_socket(peers, &api, listener, Serves::Peers)?;
    }
    for listener in listeners.metrics {
        tracing::info!(address = joined(&listener.urls), "serving metrics");
        serve_socket(&mut tasks, &api, listener, Serves::Metrics)?;
    }
    start_duties(&mut tasks, &handle, &status);
    let joined = select! {
        joined = join(&handle) => joined.map(|()| None),
        ended = tasks.first_end() => Err(anyhow!("{ended}")),
        ended = peers.first_end() => Err(anyhow!("{ended}")),
        signal = signals.next() => Ok(Some(signal)),
        () = handle.stopped() => Ok(None),
    }?;
    if let Some(signal) = joined {
        return Ok(stop(&handle, tasks, signal).await);
    }
    warn_of_simple_tokens(config);
    let everything = if listeners.client_http.is_empty() { Serves::Everything } else { Serves::Grpc };
    for listener in listeners.client {
        listener.urls.iter().for_each(|url| announce(url, "grpc+http"));
        serve_socket(&mut tasks, &api, listener, everything)?;
    }
    for listener in listeners.client_http {
        listener.urls.iter().for_each(|url| announce(url, "http"));
        serve_socket(&mut tasks, &api, listener, Serves::Http)?;
    }
    tell_ready(&status);
    let signal = select! {
        signal = signals.next() => Some(signal),
        () = handle.stopped() => None,
        ended = tasks.first_end() => return Err(Stopped::part(&ended).into()),
        ended = peers.first_end() => return Err(Stopped::part(&ended).into()),
    };
    Ok(stop(&handle, tasks, signal.unwrap_or_default()).await)
}

/// Part of the cluster, published, and able to answer a linearizable read. A member whose peers have no place for it
/// ends here instead of waiting for ever.
pub(super) async fn join(handle: &Handle) -> Result<()> {
    let mut suspicion = None;
    let mut remind = interval(REMINDER);
    remind.reset();
    let joined = server::join(handle);
    tokio::pin!(joined);
    loop {
        select! {
            outcome = &mut joined => return outcome.context("joining the cluster"),
            _ = remind.tick() => {
                let waiting = waiting_line(handle);
                tracing::warn!("{waiting}");
                systemd::notify(&[State::Extend(EXTENSION), State::Status(waiting)]);
                let trouble = if handle.has_leader() { None } else { handle.trouble().await };
                if let Some(trouble) = trouble.clone().filter(|trouble| is_certain(trouble, suspicion.as_ref())) {
                    return Err(trouble.into());
                }
                suspicion = trouble;
            }
        }
    }
}

/// What a single answer of a peer that lags could suggest has to be there twice.
fn is_certain(trouble: &Trouble, before: Option<&Trouble>) -> bool {
    matches!(trouble, Trouble::OtherCluster { .. }) || before == Some(trouble)
}

/// What a member that has not joined yet waits for.
fn waiting_line(handle: &Handle) -> String {
    if handle.has_leader() {
        return format!("catching up: applied {} of {}", handle.status().applied_index, handle.status().commit_index);
    }
    let state = handle.published();
    let voters = state.cluster.configuration().voters.len();
    let reached = match handle.peers_connected() {
        0 => "only itself".to_owned(),
        others => format!("itself and {others} more"),
    };
    format!("waiting for a leader: a quorum is {} of {voters} members, and this one reaches {reached}", voters / 2 + 1)
}

fn start_duties(tasks: &mut Tasks, handle: &Handle, status: &Arc<Status>) {
    start_duty(tasks, "lease expiry", server::expire_leases(handle.clone()));
    start_duty(tasks, "auto compaction", server::compact_by_itself(handle.clone()));
    start_duty(tasks, "v2 expiry", server::expire_v2_nodes(handle.clone()));
    start_duty(tasks, "housekeeping", server::keep_house(handle.clone()));
    start_duty(tasks, "scheduled snapshots", server::save_snapshots(handle.clone()));
    start_duty(tasks, "space", server::give_space_back(handle.clone()));
    start_duty(tasks, "space alarm", server::lift_no_space(handle.clone()));
    start_duty(tasks, "version", server::negotiate_version(handle.clone()));
    start_duty(tasks, "downgrade", server::watch_downgrade(handle.clone()));
    start_duty(tasks, "digest comparison", server::compare_digests(handle.clone()));
    start_duty(tasks, "compaction hashes", server::hash_compactions(handle.clone()));
    start_duty(tasks, "hash check", server::check_hashes(handle.clone()));
    start_duty(tasks, "compaction hash check", server::check_compactions(handle.clone()));
    start_duty(tasks, "hash comparison", server::compare_hashes(handle.clone()));
    start_duty(tasks, "certificates", keep_certificates());
    start_duty(tasks, "removal", server::watch_removal(handle.clone()));
    tasks.start("status", report_status(Arc::clone(status), tasks.stop()));
    if let Some(period) = systemd::watchdog_period() {
        tasks.start("watchdog", feed_watchdog(handle.clone(), period, tasks.stop()));
    }
}

/// Duties end with the member; a stop ends them at once, wherever they are: what they do is safe to leave undone.
pub(super) fn start_duty(
    tasks: &mut Tasks,
    name: &'static str,
    duty: impl Future<Output = Result<(), Error>> + Send + 'static,
) {
    let stop = tasks.stop();
    tasks.start(name, async move {
        select! {
            outcome = duty => outcome,
            () = stop.cancelled() => Ok(()),
        }
    });
}

/// Certificates are looked at for as long as the process lives, whether or not anybody connects.
pub(super) async fn keep_certificates() -> Result<(), Error> {
    tls::keep_up().await;
    Ok(())
}

/// Callers that start etcd with `--log-level=warn` see none of the records below and take this one for readiness.
fn warn_of_simple_tokens(config: &Config) {
    if config.auth.token == TokenProvider::Simple {
        tracing::warn!("simple token is not cryptographically signed");
    }
}

fn announce(url: &ListenUrl, traffic: &str) {
    tracing::info!("ready to serve client requests");
    let address = url.url.as_str();
    if url.url.scheme().is_tls() {
        tracing::info!(traffic, address, "serving client traffic securely");
    } else {
        tracing::info!(traffic, address, "serving client traffic insecurely; this is strongly discouraged!");
    }
}

fn serve_socket(tasks: &mut Tasks, api: &Arc<Api>, listener: Listener, serves: Serves) -> Result<()> {
    let beside = listener.beside();
    let Listener { urls, socket, acceptor } = listener;
    let why = || format!("serving {}", joined(&urls));
    match socket {
        Socket::Tcp(socket) => {
            let socket = tokio::net::TcpListener::from_std(socket).with_context(why)?;
            start_listener(tasks, api, socket, acceptor.map(|acceptor| (acceptor, beside)), serves);
        }
        Socket::Unix(socket) => {
            let socket = tokio::net::UnixListener::from_std(socket).with_context(why)?;
            start_listener(tasks, api, socket, acceptor.map(|acceptor| (acceptor, beside)), serves);
        }
    }
    Ok(())
}

fn start_listener<L>(tasks: &mut Tasks, api: &Arc<Api>, listener: L, secure: Option<(Acceptor, Beside)>, serves: Serves)
where
    L: api::Accept + api::Source + 'static,
{
    let (api, stop) = (Arc::clone(api), tasks.stop());
    tasks.start(LISTENER, async move {
        match secure {
            Some((acceptor, beside)) => {
                api::serve(api::Secure::new(listener, &acceptor, beside, serves), api, serves, stop).await;
            }
            None => api::serve(listener, api, serves, stop).await,
        }
        Ok(())
    });
}

fn tell_ready(status: &Status) {
    tracing::info!("notifying init daemon");
    if status.become_ready() {
        tracing::info!("successfully notified init daemon");
    }
}

pub(super) fn status_line(handle: &Handle) -> String {
    let status = handle.status();
    let role = match status.leader {
        Some(leader) if leader == status.member_id => "leader",
        Some(_) if status.is_learner => "learner",
        Some(_) => "follower",
        None => "no leader",
    };
    format!("{role}, term {}, applied {}", status.term, status.applied_index)
}

/// What the service manager is told about how the member stands.
#[derive(Debug)]
pub(super) struct Status {
    handle: Handle,
    is_ready: AtomicBool,
    /// Why the last reload was refused, until one is not.
    refusal: Mutex<Option<String>>,
}

impl Status {
    fn new(handle: Handle) -> Self {
        Self { handle, is_ready: AtomicBool::new(false), refusal: Mutex::default() }
    }

    /// Tells that the start is complete; `true` if a service manager heard it.
    fn become_ready(&self) -> bool {
        self.is_ready.store(true, Ordering::SeqCst);
        systemd::notify(&[State::Ready, State::Status(self.line())])
    }

    /// A reload begins. Nobody is told before the start is complete, because the end of a reload would read as that.
    pub(super) fn reload_begins(&self) -> bool {
        let is_ready = self.is_ready.load(Ordering::SeqCst);
        if is_ready {
            let status = State::Status("reading the configuration again".to_owned());
            systemd::notify(&[State::Reloading, State::Monotonic(clock::since_boot()), status]);
        }
        is_ready
    }

    /// It has ended; `is_told` is what [`Status::reload_begins`] said.
    pub(super) fn reload_ended(&self, refusal: Option<String>, is_told: bool) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        if is_told {
            systemd::notify(&[State::Ready, State::Status(self.line())]);
        }
    }

    fn line(&self) -> String {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = refusal.as_ref().map_or_else(String::new, |why| format!("; reload rejected: {why}"));
        status_line(&self.handle) + &refusal
    }
}

async fn report_status(status: Arc<Status>, stop: CancellationToken) -> Result<(), Error> {
    let handle = &status.handle;
    let mut last = String::new();
    loop {
        select! {
            () = sleep(STATUS_INTERVAL) => {}
            () = stop.cancelled() => return Ok(()),
            () = handle.stopped() => return Ok(()),
        }
        let line = status.line();
        if line != last && handle.has_leader() {
            systemd::notify(&[State::Status(line.clone())]);
            last = line;
        }
    }
}

/// Feeds the watchdog twice per period while raft, log and apply threads each progress or are idle.
pub(super) async fn feed_watchdog(handle: Handle, period: Duration, stop: CancellationToken) -> Result<(), Error> {
    let mut beat = interval(period / 2);
    let patience = PROGRESS_PATIENCE.min(period);
    loop {
        select! {
            _ = beat.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        match handle.stuck(patience) {
            None => drop(systemd::notify(&[State::Watchdog])),
            Some(thread) => tracing::error!(thread, ?patience, "a thread makes no progress; the watchdog is not fed"),
        }
    }
}

async fn stop(handle: &Handle, tasks: Tasks, signal: i32) -> Ending {
    if signal != 0 {
        let name = if signal == SignalKind::interrupt().as_raw_value() { "interrupt" } else { "terminated" };
        tracing::info!(signal = name, "received signal; shutting down");
    }
    systemd::notify(&[State::Stopping, State::Status("stopping".to_owned())]);
    // Clients are served meanwhile: what they write goes to the new leader.
    handle.hand_over().await;
    let busy = tasks.shut_down(DRAIN).await;
    if busy > 0 {
        tracing::warn!(busy, "parts were still busy when the time to drain was over");
    }
    Ending::Signal(signal)
}

/// The signals a supervisor or an operator sends.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    handle: Handle,
}

impl Signals {
    fn new(handle: Handle) -> Result<Self> {
        let open = |kind| signal(kind).context("watching signals");
        Ok(Self {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            quit: open(SignalKind::quit())?,
            handle,
        })
    }

    /// The next signal that asks for an orderly end.
    async fn next(&mut self) -> i32 {
        select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.quit.recv() => quit(&self.handle),
        }
    }
}

/// Ends at once, as a crash would, and says what the member was at.
fn quit(handle: &Handle) -> ! {
    let stuck = handle.stuck(Duration::ZERO).unwrap_or("none");
    tracing::error!(target: FATAL, signal = "quit", status = status_line(handle), busy = stuck, "received signal; quitting");
    std::process::exit(QUIT_CODE)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::{
        audit::{self, Target, Weight},
        spans::Settings,
    };

    /// What a busy machine may take on top, much less than a second wait of the same length.
    const LATENESS_MAX: Duration = Duration::from_millis(150);

    /// A collector that says nothing and an audit log that nobody reads are waited for together.
    #[test]
    fn the_last_spans_and_lines_take_no_longer_than_they_may() {
        let runtime = Runtime::new().unwrap();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = tempfile::tempdir().unwrap();
        let pipe = place.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let audit = audit::Options { target: Target::File(pipe), reads_per_million: 0, rotation: None };
        let address = silent.local_addr().unwrap().to_string();
        let settings =
            Settings { address, service: "etcd".to_owned(), instance: String::new(), samples_per_million: 1_000_000 };
        let spans = {
            let _guard = runtime.enter();
            Spans::export(&settings).unwrap()
        };
        drop(spans.call("/etcdserverpb.KV/Put", &HeaderMap::new(), None));
        let audit = Audit::start(audit).unwrap();
        for _ in 0..2_000 {
            audit.record(&format!("{}\n", "x".repeat(100)), Weight::Always);
        }
        let witnesses = Witnesses { audit: Some(audit), spans: Some(Arc::new(spans)) };
        let begun = Stopwatch::start();
        witnesses.close(runtime);
        let took = begun.elapsed();
        assert!(took >= DRAIN_WITNESSES, "the collector was waited for: {took:?}");
        assert!(took < DRAIN_WITNESSES + DRAIN_AUDIT_MIN + LATENESS_MAX, "{took:?}");
    }
}
