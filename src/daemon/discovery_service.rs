//! `quorate discovery`: options → logging → bind → open the member inside, or reach the cluster → `READY=1` → serve →
//! `STOPPING=1` → end the waits → stop the member.
//!
//! The member inside is an ordinary one, alone in its cluster and without listeners: its data directory is a member's, and
//! `quorate --name discovery --data-dir …` opens it. The same service is a guest on the client port of any member that
//! is told so ([`guest`]); it then keeps its tokens in that member's cluster.

use std::{ffi::OsString, path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Error, Result, bail};
use futures_util::{FutureExt as _, future::BoxFuture};
use http::Response;
use tokio::{
    runtime::Runtime,
    select,
    sync::Semaphore,
    time::{interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Guest, Visit},
    cli::discovery::{self, Asked, Store, ToStore},
    client::{self, Client},
    config::{self, Config, ListenUrl, Sources},
    discovery::service::{self, LIFETIME_DEFAULT, Origin, Registry, Service, Source, V2, V3},
    server::{self, DataDir, Handle, Server},
    tls::{Acceptor, AcceptorOptions, Dialler, DiallerOptions, Identity, PairFiles, Rules, Trust},
};

use super::{
    descriptors::Descriptors,
    lifecycle::{self, DRAIN, EXTENSION, Ending, LISTENER, REMINDER, start_duty},
    logging::{self, FATAL},
    settings,
    sockets::{self, Inherited, Socket},
    standin::{Signals, Wish},
    systemd::{self, State},
    tasks::Tasks,
};

/// Options of the member inside: it names itself, and forgets the past of tokens that are gone.
const MEMBER_FLAGS: [&str; 3] =
    ["--name=discovery", "--auto-compaction-mode=periodic", "--auto-compaction-retention=1h"];

/// Serves until a signal or a failure.
pub(super) fn main(sources: &Sources, words: &[OsString]) -> ExitCode {
    let asked = match discovery::read(sources, words) {
        Ok(asked) => asked,
        Err(answer) => return answer.give(),
    };
    let config = match member_config(sources, &asked) {
        Ok(config) => config,
        Err(errors) => return super::refuse(sources, &errors),
    };
    if let Err(error) = logging::start(&settings::log_options(&config)) {
        super::report(&format!("{error:#}\n"));
        return ExitCode::FAILURE;
    }
    for name in &asked.unknown {
        tracing::warn!(name, "unrecognized environment variable");
    }
    match run(asked, &config) {
        Ok(ending) => ending.finish(),
        Err(error) => {
            tracing::error!(target: FATAL, error = %format!("{error:#}"), "the discovery service failed");
            ExitCode::FAILURE
        }
    }
}

/// What the daemon's own options say for this service; whatever stands in `ETCD_*` is meant for another process.
fn member_config(sources: &Sources, asked: &Asked) -> Result<Config, config::ConfigErrors> {
    let mut args: Vec<OsString> = MEMBER_FLAGS.iter().map(OsString::from).collect();
    args.extend(asked.daemon_flags.iter().cloned());
    if let Store::Embedded(dir) = &asked.store {
        args.extend(["--data-dir".into(), dir.clone().into_os_string()]);
    }
    let sources = Sources { program: sources.program.clone(), args, ..Sources::default() };
    config::load(&sources).map(|loaded| loaded.config)
}

fn run(asked: Asked, config: &Config) -> Result<Ending> {
    let runtime = lifecycle::start_runtime(config)?;
    let signals = {
        let _guard = runtime.enter();
        Signals::watch()?
    };
    let descriptors = Descriptors::of_process()?;
    let acceptor = asked.shown.clone().map(acceptor).transpose()?;
    let dialler = asked.to_store.clone().map(dialler).transpose()?;
    let sockets = bind(&asked.listen)?;
    let member = match &asked.store {
        Store::Embedded(dir) => Some(open_member(config, dir, descriptors)?),
        Store::V3(_) | Store::V2(_) => None,
    };
    let parts = Parts { sockets, acceptor, dialler, places: descriptors.places.clients, signals };
    let ending = runtime.block_on(serve(&runtime, asked, parts, member.as_ref()));
    let failed = member.as_ref().and_then(Server::failure).map(server::ServerFailure::explained);
    let dir = member.map(Server::shut_down);
    runtime.shutdown_timeout(Duration::ZERO);
    // As the daemon does: to close the state could take seconds, and the next start needs nothing of it.
    std::mem::forget(dir);
    match failed {
        Some(why) => bail!("the member that keeps the tokens failed: {why}"),
        None => ending,
    }
}

/// What a run begins with.
struct Parts {
    sockets: Vec<(ListenUrl, Socket)>,
    /// For https URLs.
    acceptor: Option<Acceptor>,
    /// For the cluster that keeps the tokens.
    dialler: Option<Dialler>,
    /// Connections at a time.
    places: usize,
    signals: Signals,
}

fn acceptor(shown: PairFiles) -> Result<Acceptor> {
    let acceptor = Identity::read(shown)
        .and_then(|identity| Acceptor::new(AcceptorOptions { identity, clients: None, rules: Rules::default() }));
    acceptor.context("setting up TLS with --cert-file and --key-file")
}

fn dialler(tls: ToStore) -> Result<Dialler> {
    let identity = tls.shown.map(Identity::read).transpose().context("reading --cert and --key")?;
    let trust = Some(tls.authorities.map_or(Trust::System, Trust::File));
    Dialler::new(DiallerOptions { identity, trust, ..DiallerOptions::default() }).context("reading --cacert")
}

fn bind(urls: &[ListenUrl]) -> Result<Vec<(ListenUrl, Socket)>> {
    let mut inherited = Inherited::of_process();
    let bound = urls.iter().map(|url| Ok((url.clone(), sockets::bind(url, &mut inherited)?))).collect();
    for address in inherited.unused() {
        tracing::warn!(%address, "systemd passed a socket that --listen-urls does not name; it is not served");
    }
    bound
}

/// Opens or founds the member that keeps the tokens.
fn open_member(config: &Config, dir: &Path, descriptors: Descriptors) -> Result<Server> {
    let mut options = settings::server_options(config, descriptors, Dialler::default())?;
    // Lifetimes of tokens are leases: how far they have come outlives a restart.
    options.lease_checkpoints = true;
    systemd::notify(&[State::Status("recovering".to_owned()), State::Extend(EXTENSION)]);
    let dir = DataDir::open(dir, None)?;
    let opened = server::open(dir, &options, &settings::bootstrap(config, None))?;
    Server::start(opened, options).context("starting the threads of the member that keeps the tokens")
}

async fn serve(runtime: &Runtime, asked: Asked, mut parts: Parts, member: Option<&Server>) -> Result<Ending> {
    let mut tasks = Tasks::default();
    let transport = member.map(|server| server.connect(runtime.handle().clone()));
    let handle = member.map(Server::handle);
    if let Some(handle) = &handle {
        start_member_duties(&mut tasks, handle);
        select! {
            joined = lifecycle::join(handle) => joined?,
            signal = ended_by(&mut parts.signals) => return Ok(stop(tasks, signal).await),
            ended = tasks.first_end() => bail!("{ended}"),
        }
    }
    let place = place_of(&asked.store);
    let registry = registry(asked.store, parts.dialler, asked.lifetime, handle.as_ref()).await?;
    let service = Service::new(registry, asked.service, tasks.stop());
    let urls = start_listeners(&mut tasks, (parts.sockets, parts.acceptor), &service, parts.places)?;
    start_watchdog(&mut tasks, handle.as_ref());
    tasks.start(
        "readiness",
        tell_ready(Arc::clone(&service), format!("serving on {urls}; tokens are kept {place}"), tasks.stop()),
    );
    let signal = select! {
        signal = ended_by(&mut parts.signals) => signal,
        () = stopped(handle.as_ref()) => 0,
        ended = tasks.first_end() => bail!("{ended}"),
    };
    let ending = stop(tasks, signal).await;
    if let Some(transport) = transport {
        transport.stop();
    }
    Ok(ending)
}

/// What the daemon does for a member, as far as one that is alone needs it.
fn start_member_duties(tasks: &mut Tasks, handle: &Handle) {
    start_duty(tasks, "lease expiry", server::expire_leases(handle.clone()));
    start_duty(tasks, "auto compaction", server::compact_by_itself(handle.clone()));
    start_duty(tasks, "housekeeping", server::keep_house(handle.clone()));
    start_duty(tasks, "version", server::negotiate_version(handle.clone()));
}

async fn stopped(handle: Option<&Handle>) {
    match handle {
        Some(handle) => handle.stopped().await,
        None => std::future::pending().await,
    }
}

fn place_of(store: &Store) -> String {
    match store {
        Store::Embedded(dir) => format!("in {}", dir.display()),
        Store::V3(options) => format!("in the cluster at {}", options.endpoints.join(",")),
        Store::V2(members) => {
            let members: Vec<&str> = members.iter().map(|member| member.authority.as_str()).collect();
            format!("by the v2 API of the cluster at {}", members.join(","))
        }
    }
}

async fn registry(
    store: Store,
    dialler: Option<Dialler>,
    lifetime: Option<Duration>,
    handle: Option<&Handle>,
) -> Result<Box<dyn Registry>> {
    Ok(match (store, handle) {
        (Store::V2(members), _) => Box::new(V2::new(members, dialler.unwrap_or_default(), lifetime)),
        (Store::V3(options), _) => {
            let options = client::Options { tls: dialler, ..options };
            let client = Client::connect(options).await.context("reaching the cluster of --endpoints")?;
            Box::new(V3::new(client, lifetime))
        }
        (Store::Embedded(_), Some(handle)) => Box::new(V3::new(handle.clone(), lifetime)),
        (Store::Embedded(dir), None) => bail!("the member in {} was not opened", dir.display()),
    })
}

fn start_listeners(
    tasks: &mut Tasks,
    (sockets, acceptor): (Vec<(ListenUrl, Socket)>, Option<Acceptor>),
    service: &Arc<Service>,
    places: usize,
) -> Result<String> {
    let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
    let urls: Vec<_> = sockets.iter().map(|(url, _)| url.url.as_str().to_owned()).collect();
    for (url, socket) in sockets {
        let context = || format!("serving {}", url.url);
        let source = match socket {
            Socket::Tcp(listener) => Source::Tcp(tokio::net::TcpListener::from_std(listener).with_context(context)?),
            Socket::Unix(listener) => Source::Unix(tokio::net::UnixListener::from_std(listener).with_context(context)?),
        };
        tracing::info!(address = url.url.as_str(), "serving the discovery service");
        let acceptor = acceptor.as_ref().filter(|_| url.url.scheme().is_tls()).map(Acceptor::for_listener);
        let running = service::serve(source, acceptor, Arc::clone(service), Arc::clone(&places), tasks.stop());
        tasks.start(LISTENER, running.map(Ok));
    }
    Ok(urls.join(","))
}

/// Feeds the watchdog: as the daemon does for the member inside, and else as long as tasks run at all.
fn start_watchdog(tasks: &mut Tasks, handle: Option<&Handle>) {
    let Some(period) = systemd::watchdog_period() else { return };
    match handle {
        Some(handle) => tasks.start("watchdog", lifecycle::feed_watchdog(handle.clone(), period, tasks.stop())),
        None => start_duty(tasks, "watchdog", beat(period)),
    }
}

async fn beat(period: Duration) -> Result<(), Error> {
    let mut beat = interval(period / 2);
    loop {
        beat.tick().await;
        systemd::notify(&[State::Watchdog]);
    }
}

/// Tells the service manager that the service works, once its store has answered; until then it asks for time.
async fn tell_ready(service: Arc<Service>, line: String, stop: CancellationToken) -> Result<(), Error> {
    while let Err(error) = service.check().await {
        tracing::warn!(%error, "waiting for the store of the discovery service");
        systemd::notify(&[State::Extend(EXTENSION), State::Status(format!("waiting: {error}"))]);
        select! {
            () = sleep(REMINDER) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
    tracing::info!("{line}");
    tracing::info!("ready to serve discovery requests");
    systemd::notify(&[State::Ready, State::Status(line)]);
    stop.cancelled().await;
    Ok(())
}

async fn stop(tasks: Tasks, signal: i32) -> Ending {
    tracing::info!(signal, "the discovery service stops");
    systemd::notify(&[State::Stopping, State::Status("stopping".to_owned())]);
    let busy = tasks.shut_down(DRAIN).await;
    if busy > 0 {
        tracing::warn!(busy, "parts were still busy when the time to drain was over");
    }
    Ending::Signal(signal)
}

/// The next signal that asks for an end.
async fn ended_by(signals: &mut Signals) -> i32 {
    loop {
        match signals.next().await {
            Wish::End(signal) => return signal,
            Wish::Reload => tracing::info!("nothing is reloaded: restart the service to change its options"),
        }
    }
}

/// The service on the client port of a member.
#[derive(Debug)]
struct OnMember(Arc<Service>);

/// The service for the client port of the member behind `handle`; its tokens are keys of that member's cluster.
pub(super) fn guest(handle: &Handle, stop: CancellationToken) -> Box<dyn Guest> {
    let registry = Box::new(V3::new(handle.clone(), Some(LIFETIME_DEFAULT)));
    Box::new(OnMember(Service::new(registry, service::Options::default(), stop)))
}

impl Guest for OnMember {
    fn wants(&self, path: &str) -> bool {
        Service::wants(path)
    }

    fn answer(&self, visit: Visit) -> BoxFuture<'static, Response<http_body_util::Full<bytes::Bytes>>> {
        let (service, origin) = (Arc::clone(&self.0), Origin { address: visit.from, secure: visit.secure });
        async move { service.answer(visit.request, origin).await }.boxed()
    }
}
