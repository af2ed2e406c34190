//! The life of a node that stands in for its cluster: `--proxy`, a data directory that says so, or a cluster that was full.
//!
//! options → lock the data directory → bind → look for the members → `READY=1` → run → `STOPPING=1` → stop accepting → exit.
//! It is ready as soon as it listens: members may come later. Nothing listens at the peer URLs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;
use tokio::{runtime::Runtime, select, signal::unix::Signal, time::timeout};

use crate::{
    api::Beside,
    config::{BootstrapMethod, Config, InitialCluster, ProxyMode},
    proxy::{
        Accept,
        directory::Directory,
        endpoints::{Endpoints, Recovery},
        http::{self, Encryption, Node, NodeOptions, Serves},
        members::{Diallers, Members},
    },
};

use super::{
    Tasks,
    descriptors::Descriptors,
    discovery,
    lifecycle::{Ending, Listener, Listeners, Stopped, joined, keep_certificates, start_duty},
    reload::{Reloading, Subject},
    secure::{self, Secure},
    sockets::Socket,
    standin::{self, Signals, Wish},
    systemd::{self, State},
};

/// How long the members may take to be found before clients are served anyway.
const FIRST_LOOK_PATIENCE: Duration = Duration::from_secs(10);
/// By how much the start-up time-out is extended for that.
const EXTENSION: Duration = Duration::from_secs(30);
/// How long open requests may take to end: callers expect an exit within 1.5 s of SIGTERM.
const DRAIN: Duration = Duration::from_millis(700);
/// Descriptors of one client: its connection, and one to a member.
const DESCRIPTORS_PER_CLIENT: usize = 2;

/// How the node knows its cluster.
pub(super) enum Found {
    /// By its directory, or by its options.
    Configured(ProxyMode),
    /// By discovery: the cluster has all its members, and this node is none of them.
    Full {
        /// The members.
        members: InitialCluster,
        /// What was bound before that was known.
        listeners: Option<Box<Listeners>>,
        /// How it is encrypted.
        secure: Secure,
    },
}

/// Runs the node until a signal.
///
/// # Errors
/// What kept it from starting.
pub(super) fn run(
    runtime: Runtime,
    config: &Config,
    (hangup, reloading): (Signal, Reloading),
    found: Found,
) -> Result<Ending> {
    let ending = runtime.block_on(async {
        let mut signals = Signals::watch()?;
        let proxy = select! {
            proxy = Proxy::prepare(config, found) => proxy?,
            signal = end(&mut signals, None) => return Ok(Ending::Signal(signal)),
        };
        let mut tasks = Tasks::default();
        let subject = Live { node: Arc::clone(&proxy.node), mode: proxy.mode };
        tasks.start("reload", reloading.run(subject, hangup, tasks.stop()));
        proxy.serve(tasks, signals).await
    });
    runtime.shutdown_timeout(Duration::ZERO);
    tracing::info!(name = config.member.name, "closed the proxy");
    ending
}

/// A node that is ready to be served.
struct Proxy {
    mode: ProxyMode,
    node: Arc<Node>,
    members: Arc<Members>,
    endpoints: Arc<Endpoints>,
    listeners: Vec<(Listener, Serves)>,
    refresh_interval: Duration,
}

impl Proxy {
    async fn prepare(config: &Config, found: Found) -> Result<Self> {
        let places = Descriptors::of_process()?.places;
        let directory = Directory::open(&config.member.data_dir)?;
        let stored = directory.read()?;
        let (mode, secure, listeners, peers) = match found {
            Found::Configured(mode) => {
                let secure = Secure::of(config)?;
                let listeners = Listeners::bind_clients(config, places, &secure)?;
                (mode, secure, listeners, configured_peers(config, stored.is_some()).await?)
            }
            Found::Full { members, listeners, secure } => {
                let listeners =
                    listeners.map_or_else(|| Listeners::bind_clients(config, places, &secure), |bound| Ok(*bound))?;
                (ProxyMode::On, secure, listeners, discovery::peer_urls(&members))
            }
        };
        if let Some(urls) = &stored {
            tracing::info!("proxy: using peer urls {urls:?} from cluster file {:?}", directory.file());
        } else {
            tracing::info!("proxy: using peer urls {peers:?}");
            directory.write(&peers)?;
        }
        let listeners = by_service(listeners);
        let own = listeners.iter().filter_map(|(listener, _)| address(&listener.socket)).collect();
        let endpoints = Endpoints::new(Recovery::AfterWait(config.legacy.proxy_failure_wait));
        let clients = secure::member_dialler(config, &secure.dialler)?;
        let connections_max = places.clients / DESCRIPTORS_PER_CLIENT;
        let options = node_options(config, mode);
        let node = Node::new(Arc::clone(&endpoints), options, clients.clone(), own, connections_max);
        let diallers = Diallers { peers: secure.dialler, clients };
        let members = Members::new(directory, stored, peers, Arc::clone(&endpoints), diallers);
        let refresh_interval = config.legacy.proxy_refresh_interval;
        Ok(Self { mode, node, members, endpoints, listeners, refresh_interval })
    }

    async fn serve(self, mut tasks: Tasks, mut signals: Signals) -> Result<Ending> {
        let Self { node, members, endpoints, listeners, refresh_interval, mode: _ } = self;
        systemd::notify(&[State::Extend(EXTENSION), State::Status("looking for the members".to_owned())]);
        select! {
            // Whether they were found is told by whoever looks.
            _ = timeout(FIRST_LOOK_PATIENCE, members.refresh()) => {}
            signal = end(&mut signals, Some(&members)) => return Ok(stop(tasks, signal).await),
        }
        for (listener, serves) in listeners {
            serve_socket(&mut tasks, &node, listener, serves)?;
        }
        tasks.start("members", Arc::clone(&members).keep(refresh_interval, tasks.stop()).map(Ok));
        let line = move || status(&endpoints);
        tracing::info!("proxy: this node passes the v2 and the v3 API through");
        systemd::notify(&[State::Ready, State::Status(line())]);
        tasks.start("status", standin::report_status(line, tasks.stop()));
        start_duty(&mut tasks, "certificates", keep_certificates());
        tasks.start("watchdog", standin::feed_watchdog(tasks.stop()));
        select! {
            signal = end(&mut signals, Some(&members)) => Ok(stop(tasks, signal).await),
            ended = tasks.first_end() => Err(Stopped::part(&ended).into()),
        }
    }
}

/// The peer URLs that the options lead to. Where some are known already nobody is asked for them.
async fn configured_peers(config: &Config, is_known: bool) -> Result<Vec<String>> {
    match &config.bootstrap.method {
        BootstrapMethod::Static(members) => Ok(discovery::peer_urls(members)),
        _ if is_known => {
            tracing::warn!("discovery is ignored: the members were found before");
            Ok(Vec::new())
        }
        _ => discovery::peers(config).await,
    }
}

fn by_service(listeners: Listeners) -> Vec<(Listener, Serves)> {
    let Listeners { client, client_http, metrics, .. } = listeners;
    let everything = client.into_iter().chain(client_http).map(|listener| (listener, Serves::Everything));
    everything.chain(metrics.into_iter().map(|listener| (listener, Serves::Metrics))).collect()
}

/// The signal that asks for an end. One that asks for a reload has the members looked for at once.
async fn end(signals: &mut Signals, members: Option<&Members>) -> i32 {
    loop {
        match (signals.next().await, members) {
            (Wish::Reload, Some(members)) => members.refresh_now(),
            (Wish::Reload, None) => {}
            (Wish::End(signal), _) => return signal,
        }
    }
}

async fn stop(tasks: Tasks, signal: i32) -> Ending {
    tracing::info!(signal, "received signal; shutting down");
    systemd::notify(&[State::Stopping, State::Status("stopping".to_owned())]);
    let busy = tasks.shut_down(DRAIN).await;
    if busy > 0 {
        tracing::warn!(busy, "parts were still busy when the time to drain was over");
    }
    Ending::Signal(signal)
}

fn address(socket: &Socket) -> Option<SocketAddr> {
    match socket {
        Socket::Tcp(listener) => listener.local_addr().ok(),
        Socket::Unix(_) => None,
    }
}

fn serve_socket(tasks: &mut Tasks, node: &Arc<Node>, listener: Listener, serves: Serves) -> Result<()> {
    let beside = listener.beside();
    let Listener { urls, socket, acceptor } = listener;
    let encryption = acceptor
        .map(|acceptor| Encryption { acceptor: acceptor.for_listener(), plain_too: beside == Beside::PlainText });
    let why = || format!("serving {}", joined(&urls));
    match socket {
        Socket::Tcp(socket) => {
            let socket = tokio::net::TcpListener::from_std(socket).with_context(why)?;
            start_listener(tasks, node, socket, serves, encryption);
        }
        Socket::Unix(socket) => {
            let socket = tokio::net::UnixListener::from_std(socket).with_context(why)?;
            start_listener(tasks, node, socket, serves, encryption);
        }
    }
    if serves == Serves::Everything {
        tracing::info!("ready to serve client requests");
        tracing::info!("proxy: listening for client requests on {}", joined(&urls));
    }
    Ok(())
}

fn start_listener<L>(tasks: &mut Tasks, node: &Arc<Node>, listener: L, serves: Serves, encryption: Option<Encryption>)
where
    L: Accept + 'static,
    L::Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let serving = http::serve(listener, Arc::clone(node), serves, encryption, tasks.stop());
    tasks.start("listener", serving.map(Ok));
}

fn status(endpoints: &Endpoints) -> String {
    format!("proxy: {} of {} client URLs of members available", endpoints.available().len(), endpoints.all().len())
}

/// What takes over a new configuration.
struct Live {
    node: Arc<Node>,
    mode: ProxyMode,
}

impl Subject for Live {
    fn apply(&self, config: &Config) {
        self.node.set_options(node_options(config, self.mode));
    }

    fn reload_begins(&self) -> bool {
        standin::tell_reload()
    }

    fn reload_ended(&self, refusal: Option<String>, _: bool) {
        let refusal = refusal.map(|why| State::Status(format!("reload rejected: {why}")));
        systemd::notify(&[Some(State::Ready), refusal].into_iter().flatten().collect::<Vec<_>>());
    }
}

/// The options of the node.
fn node_options(config: &Config, mode: ProxyMode) -> NodeOptions {
    NodeOptions {
        mode,
        failure_wait: config.legacy.proxy_failure_wait,
        dial_timeout: config.legacy.proxy_dial_timeout,
        write_timeout: config.legacy.proxy_write_timeout,
        read_timeout: config.legacy.proxy_read_timeout,
        cors: config.http.cors.clone(),
        concurrent_streams_max: config.limits.concurrent_streams_max,
        ping: config.keepalive.ping.clone(),
        version: config.compat.version(),
    }
}
