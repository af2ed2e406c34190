//! `quorate grpc-proxy start`: the life of a gRPC proxy.
//!
//! options → where the members are → bind → `READY=1` → run → `STOPPING=1` → drain → exit. It is ready as soon as it listens:
//! members may come later.

use std::{
    ffi::OsString,
    net::{SocketAddr, ToSocketAddrs as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::FutureExt as _;
use tokio::{net::TcpListener, select};

use crate::{
    api::{Beside, Keepalive, Secure, Serves},
    cli::grpc_proxy::{GrpcProxyOptions, ProxyTls, read},
    client,
    config::Sources,
    discovery::dns::Srv,
    proxy::{
        endpoints::{Endpoint, Endpoints, source::Lists},
        grpc::{self, Options, Proxy, RECOVERY},
    },
    tls::{
        self, Acceptor, AcceptorOptions, AllowedNames, Certificate, Clients, Dialler, DiallerOptions, Identity,
        PairFiles, PeerNames, SelfSigned, TlsError, Trust, self_signed,
    },
    types::GRPC_OVERHEAD_BYTES,
};

use super::{
    Tasks,
    domain::Search,
    lifecycle::{Ending, keep_certificates, start_duty},
    sockets,
    standin::{self, Signals, Wish},
    systemd::{self, State},
};

/// How long parts that were told to stop may take.
const DRAIN: Duration = Duration::from_millis(200);

/// Does what the words behind `grpc-proxy` say.
pub(super) fn main(sources: &Sources, words: &[OsString]) -> ExitCode {
    standin::carry_out(read(words), |options| {
        let log = standin::start_log()?;
        if options.debug {
            log.set_level(tracing::Level::DEBUG)?;
        }
        standin::run(sources, |connections_max| serve(options, connections_max))
    })
}

async fn serve(options: &GrpcProxyOptions, connections_max: usize) -> Result<Ending> {
    let mut signals = Signals::watch()?;
    let lists = options.endpoints_file.clone().map(|path| Lists::new(path, parse));
    let endpoints = Endpoints::new(RECOVERY);
    endpoints.replace(&find_endpoints(options, lists.as_deref()).await?);
    let tls = Secured::of(options)?;
    let listeners = bind(options)?;
    let mut tasks = Tasks::default();
    let proxy = grpc::start(Arc::clone(&endpoints), proxy_options(options, &tls, connections_max), tasks.stop());
    start(&mut tasks, &proxy, &endpoints, lists.as_ref(), listeners, tls.acceptor.as_ref());
    tracing::info!(address = options.listen_addr, "started gRPC proxy");
    systemd::notify(&[State::Ready, State::Status(status(&endpoints))]);
    loop {
        select! {
            wish = signals.next() => match wish {
                Wish::Reload => standin::reload(async { lists.as_deref().map(Lists::read_now) }).await.unwrap_or_default(),
                Wish::End(signal) => {
                    systemd::notify(&[State::Stopping, State::Status("stopping".to_owned())]);
                    tasks.shut_down(DRAIN).await;
                    proxy.drained().await;
                    return Ok(Ending::Signal(signal));
                }
            },
            ended = tasks.first_end() => return Err(anyhow!("{ended}")),
        }
    }
}

fn start(
    tasks: &mut Tasks,
    proxy: &Proxy,
    endpoints: &Arc<Endpoints>,
    lists: Option<&Arc<Lists>>,
    listeners: Vec<(TcpListener, bool)>,
    acceptor: Option<&Acceptor>,
) {
    let stop = tasks.stop();
    for (listener, is_encrypted) in listeners {
        let (proxy, acceptor) = (proxy.clone(), acceptor.filter(|_| is_encrypted).cloned());
        let serving = async move {
            match acceptor {
                Some(acceptor) => {
                    proxy.serve(Secure::new(listener, &acceptor, Beside::Nothing, Serves::Everything)).await;
                }
                None => proxy.serve(listener).await,
            }
        };
        tasks.start("listener", serving.map(Ok));
    }
    if let Some(lists) = lists {
        tasks.start("list of endpoints", Arc::clone(lists).follow(Arc::clone(endpoints), stop.clone()).map(Ok));
    }
    let endpoints = Arc::clone(endpoints);
    tasks.start("status", standin::report_status(move || status(&endpoints), stop.clone()));
    start_duty(tasks, "certificates", keep_certificates());
    tasks.start("watchdog", standin::feed_watchdog(stop));
}

/// Where the members are: what DNS says, else the file, else the flag.
async fn find_endpoints(options: &GrpcProxyOptions, lists: Option<&Lists>) -> Result<Vec<Endpoint>> {
    let discovered = if options.discovery_srv.is_empty() { Vec::new() } else { srv_endpoints(options).await? };
    if !discovered.is_empty() {
        return Ok(discovered);
    }
    if let Some(lists) = lists {
        return Ok(lists.read().await?);
    }
    let parsed = options.endpoints.iter().map(|text| parse(text).map_err(|reason| anyhow!("--endpoints: {reason}")));
    let endpoints: Vec<Endpoint> = parsed.collect::<Result<_>>()?;
    if endpoints.is_empty() {
        bail!("--endpoints names nobody: write --endpoints=127.0.0.1:2379");
    }
    Ok(endpoints)
}

async fn srv_endpoints(options: &GrpcProxyOptions) -> Result<Vec<Endpoint>> {
    let search = Search {
        domain: options.discovery_srv.clone(),
        suffix: options.discovery_srv_name.clone(),
        insecure: options.insecure_discovery,
        ca: options.tls.ca.clone(),
    };
    let endpoint =
        |(url, record): (String, Srv)| Endpoint { address: url, priority: record.priority, weight: record.weight };
    Ok(search.members().await?.into_iter().map(endpoint).collect())
}

/// Reads one endpoint as clients write it.
fn parse(text: &str) -> Result<Endpoint, String> {
    let parsed = client::Endpoint::parse_all(&[text.to_owned()]).map_err(|error| error.to_string())?;
    for endpoint in &parsed {
        client::connect_lazily(endpoint, &client::Options::default()).map_err(|error| error.to_string())?;
    }
    Ok(Endpoint::new(text))
}

/// The listener of clients, and the one of metrics if there is one; each with whether it is encrypted.
fn bind(options: &GrpcProxyOptions) -> Result<Vec<(TcpListener, bool)>> {
    let is_encrypted = options.tls.listen_pair.is_some() || options.tls.generated_years.is_some();
    let mut listeners = vec![(listener("listen-addr", &options.listen_addr)?, is_encrypted)];
    let metrics = options.metrics_addr.as_str();
    let address = |text: &str| listener("metrics-addr", text.trim_end_matches('/'));
    match metrics.split_once("://") {
        _ if metrics.is_empty() => {}
        None => listeners.push((address(metrics)?, false)),
        Some(("http", text)) => listeners.push((address(text)?, false)),
        Some(("https", text)) if is_encrypted => listeners.push((address(text)?, true)),
        Some(_) => {
            bail!("--metrics-addr={metrics}: write http://127.0.0.1:2381, or https with --cert-file and --key-file")
        }
    }
    Ok(listeners)
}

/// Encryption of what the proxy listens on and dials.
struct Secured {
    acceptor: Option<Acceptor>,
    /// For members; `None` encrypts only where an endpoint says so.
    dialler: Option<Dialler>,
    /// For the proxy itself.
    own: Option<Dialler>,
}

impl Secured {
    /// Reads certificates, keys and authorities, and makes the certificate that is to be made.
    fn of(options: &GrpcProxyOptions) -> Result<Self> {
        let tls = &options.tls;
        if let Some(pair) = &tls.pair {
            nameless(pair)?;
        }
        let pair = match (&tls.listen_pair, tls.generated_years) {
            (Some(pair), _) => Some(pair.clone()),
            (None, Some(years)) => Some(generate(options, years)?),
            (None, None) => None,
        };
        let own =
            DiallerOptions { identity: pair.clone().map(Identity::read).transpose()?, ..DiallerOptions::default() };
        // The proxy knows itself, whoever signed its certificate.
        let own = pair.is_some().then(|| Dialler::new(own)).transpose()?;
        let acceptor =
            pair.map(|pair| acceptor(tls, pair)).transpose().context("setting up TLS of client listeners")?;
        Ok(Self { acceptor, dialler: dialler(tls).context("setting up TLS of connections to members")?, own })
    }
}

/// Members take the common name of a client's certificate for a user: with one in the proxy's certificate every client of
/// the proxy would be that user.
fn nameless(pair: &PairFiles) -> Result<()> {
    let Some(der) = tls::certificates(&pair.cert)?.into_iter().next() else { return Ok(()) };
    let name = Certificate::read(&der).map_err(|reason| anyhow!("{}: {reason}", pair.cert.display()))?.common_name;
    if !name.is_empty() {
        bail!(
            "cert has non empty Common Name ({name}): {}: members would take every client for that user; make one without",
            pair.cert.display()
        );
    }
    Ok(())
}

fn generate(options: &GrpcProxyOptions, years: u32) -> Result<PairFiles> {
    let directory = options.tls.data_dir.join("fixtures").join("proxy");
    let host = options.listen_addr.rsplit_once(':').map_or(options.listen_addr.as_str(), |(host, _)| host);
    let hosts = [host.trim_matches(['[', ']']).to_owned()];
    self_signed(SelfSigned { directory: &directory, hosts: &hosts, years }).context("--auto-tls")
}

fn acceptor(tls: &ProxyTls, pair: PairFiles) -> Result<Acceptor, TlsError> {
    let trust = tls.clients_ca.clone().map(Trust::File);
    let clients = trust.map(|trust| Clients {
        trust,
        names: AllowedNames::Any,
        from: PeerNames::Any,
        revoked: tls.revoked_clients.clone(),
    });
    Acceptor::new(AcceptorOptions { identity: Identity::read(pair)?, clients, rules: tls.rules.clone() })
}

fn dialler(tls: &ProxyTls) -> Result<Option<Dialler>, TlsError> {
    if tls.pair.is_none() && tls.ca.is_none() && !tls.is_unverified {
        return Ok(None);
    }
    if tls.is_unverified {
        tracing::warn!(
            "--insecure-skip-tls-verify was given, this grpc proxy process skips authentication of etcd server TLS certificates. \
             This option should be enabled only for testing purposes."
        );
    }
    let trust = (!tls.is_unverified).then(|| tls.ca.clone().map_or(Trust::System, Trust::File));
    let identity = tls.pair.clone().map(Identity::read).transpose()?;
    Dialler::new(DiallerOptions { identity, trust, ..DiallerOptions::default() }).map(Some)
}

fn listener(flag: &str, address: &str) -> Result<TcpListener> {
    TcpListener::from_std(sockets::bind_address(own_address(flag, address)?)?).context("listening")
}

/// An address of this machine; without a host it means all of them.
fn own_address(flag: &str, text: &str) -> Result<SocketAddr> {
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let found = whole.to_socket_addrs().with_context(|| format!("--{flag}={text} is no address: write host:port"))?;
    found.into_iter().next().ok_or_else(|| anyhow!("--{flag}={text} has no address"))
}

fn proxy_options(options: &GrpcProxyOptions, tls: &Secured, connections_max: usize) -> Options {
    let defaults = Options::default();
    Options {
        namespace: options.namespace.clone(),
        advertised: options.advertised.clone(),
        resolver_prefix: options.resolver_prefix.clone(),
        resolver_ttl: options.resolver_ttl,
        host: host(),
        request_bytes_max: options.send_bytes_max.saturating_add(GRPC_OVERHEAD_BYTES),
        concurrent_streams_max: options.concurrent_streams_max,
        connections_max,
        keepalive: Keepalive {
            client_min: options.keepalive_min,
            interval: Some(options.keepalive_interval).filter(|interval| !interval.is_zero()),
            timeout: options.keepalive_timeout,
        },
        client: client::Options {
            keepalive_time: options.dial_keepalive_time,
            keepalive_timeout: options.dial_keepalive_timeout,
            request_bytes_max: options.send_bytes_max,
            response_bytes_max: options.receive_bytes_max,
            tls: tls.dialler.clone(),
            ..defaults.client
        },
        own_tls: tls.own.clone(),
        sync_interval: options.sync_interval,
    }
}

/// This host's name, for people; nothing depends on it.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn status(endpoints: &Endpoints) -> String {
    format!("{} of {} endpoints active", endpoints.available().len(), endpoints.all().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn endpoints_are_those_of_clients() {
        for text in ["127.0.0.1:2379", "http://localhost:2379", "https://a:1", "unix:///run/q.sock"] {
            assert_eq!(parse(text).unwrap().address, text);
        }
        for text in ["localhost", "http://a"] {
            assert!(parse(text).unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn an_address_may_leave_out_the_host() {
        assert_eq!(own_address("listen-addr", ":1").unwrap().to_string(), "0.0.0.0:1");
        assert!(own_address("listen-addr", "nowhere").unwrap_err().to_string().starts_with("--listen-addr=nowhere"));
    }
}
