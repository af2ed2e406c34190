//! `quorate gateway start`: the life of a TCP gateway.
//!
//! options → where the members are → bind → `READY=1` → run → `STOPPING=1` → exit. It is ready as soon as it listens: members
//! may come later.

use std::{ffi::OsString, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use futures_util::FutureExt as _;
use tokio::{net::TcpListener, select};

use crate::{
    cli::gateway::{GatewayOptions, read},
    config::Sources,
    discovery::dns::Srv,
    proxy::{
        endpoints::{Endpoint, Endpoints, Recovery, source::Lists},
        gateway::{self, Gateway},
    },
};

use super::{
    Tasks,
    domain::Search,
    lifecycle::Ending,
    sockets,
    standin::{self, Signals, Wish},
    systemd::{self, State},
};

/// The delay that stands for none: etcd takes zero for a default, too.
const RETRY_DELAY_DEFAULT: Duration = Duration::from_mins(1);
/// How long open connections may take to end.
const DRAIN: Duration = Duration::from_millis(200);
/// Descriptors of one connection: to the client, and to the member.
const DESCRIPTORS_PER_CONNECTION: usize = 2;

/// Does what the words behind `gateway` say.
pub(super) fn main(sources: &Sources, words: &[OsString]) -> ExitCode {
    standin::carry_out(read(words), |options| {
        standin::start_log()?;
        standin::run(sources, |descriptors| serve(options, descriptors / DESCRIPTORS_PER_CONNECTION))
    })
}

async fn serve(options: &GatewayOptions, connections_max: usize) -> Result<Ending> {
    let mut signals = Signals::watch()?;
    let lists = options.endpoints_file.clone().map(|path| Lists::new(path, parse));
    let found = find_endpoints(options, lists.as_deref()).await?;
    gateway::check_endpoints(&found, &options.listen_addr).await?;
    let own = gateway::listen_address(&options.listen_addr).await?;
    let endpoints = Endpoints::new(Recovery::AfterTest(retry_delay(options)));
    endpoints.replace(&found);
    let gateway = Gateway::new(Arc::clone(&endpoints), own, connections_max);
    let mut tasks = Tasks::default();
    start(&mut tasks, &gateway, &endpoints, lists.as_ref(), listener(own)?);
    tracing::info!(endpoints = ?names(&found), "ready to proxy client requests");
    systemd::notify(&[State::Ready, State::Status(status(&gateway, &endpoints))]);
    loop {
        select! {
            wish = signals.next() => match wish {
                Wish::Reload => standin::reload(async { lists.as_deref().map(Lists::read_now) }).await.unwrap_or_default(),
                Wish::End(signal) => {
                    systemd::notify(&[State::Stopping, State::Status("stopping".to_owned())]);
                    tasks.shut_down(DRAIN).await;
                    return Ok(Ending::Signal(signal));
                }
            },
            ended = tasks.first_end() => return Err(anyhow!("{ended}")),
        }
    }
}

fn start(
    tasks: &mut Tasks,
    gateway: &Arc<Gateway>,
    endpoints: &Arc<Endpoints>,
    lists: Option<&Arc<Lists>>,
    listener: TcpListener,
) {
    let stop = tasks.stop();
    tasks.start("listener", Arc::clone(gateway).serve(listener, stop.clone()).map(Ok));
    tasks.start("tests of endpoints", Arc::clone(gateway).keep_testing(stop.clone()).map(Ok));
    if let Some(lists) = lists {
        tasks.start("list of endpoints", Arc::clone(lists).follow(Arc::clone(endpoints), stop.clone()).map(Ok));
    }
    let (gateway, endpoints) = (Arc::clone(gateway), Arc::clone(endpoints));
    tasks.start("status", standin::report_status(move || status(&gateway, &endpoints), stop.clone()));
    tasks.start("watchdog", standin::feed_watchdog(stop));
}

/// Where the members are: what DNS says, else the file, else the flag.
async fn find_endpoints(options: &GatewayOptions, lists: Option<&Lists>) -> Result<Vec<Endpoint>> {
    let discovered = if options.discovery_srv.is_empty() { Vec::new() } else { srv_endpoints(options).await? };
    if !discovered.is_empty() {
        return Ok(discovered);
    }
    match lists {
        Some(lists) => Ok(lists.read().await?),
        None => Ok(options.endpoints.iter().map(|text| gateway::parse_endpoint(text)).collect::<Result<_, _>>()?),
    }
}

async fn srv_endpoints(options: &GatewayOptions) -> Result<Vec<Endpoint>> {
    let search = Search {
        domain: options.discovery_srv.clone(),
        suffix: options.discovery_srv_name.clone(),
        insecure: options.insecure_discovery,
        ca: options.trusted_ca.clone(),
    };
    let endpoint = |(_, record): (String, Srv)| Endpoint {
        address: format!("{}:{}", record.target, record.port),
        priority: record.priority,
        weight: record.weight,
    };
    Ok(search.members().await?.into_iter().map(endpoint).collect())
}

fn parse(text: &str) -> Result<Endpoint, String> {
    gateway::parse_endpoint(text).map_err(|error| error.to_string())
}

fn retry_delay(options: &GatewayOptions) -> Duration {
    if options.retry_delay.is_zero() { RETRY_DELAY_DEFAULT } else { options.retry_delay }
}

fn listener(own: SocketAddr) -> Result<TcpListener> {
    TcpListener::from_std(sockets::bind_address(own)?).context("listening")
}

fn names(list: &[Endpoint]) -> Vec<&str> {
    list.iter().map(|endpoint| endpoint.address.as_str()).collect()
}

fn status(gateway: &Gateway, endpoints: &Endpoints) -> String {
    let (active, all) = (endpoints.available().len(), endpoints.all().len());
    format!("{active} of {all} endpoints active, {} connections", gateway.connections())
}
