//! Accepting connections: a bounded number at a time, until told to stop.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    select,
    sync::Semaphore,
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::dial;
use crate::clock::Stopwatch;

/// How long accepting pauses after the system refused it for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// So often at most the log says that connections are refused.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(30);

/// Where connections come from.
pub trait Accept: Send {
    /// What is read and written.
    type Io: Send + 'static;

    /// Waits for the next connection; with the client's address, if it has one.
    ///
    /// # Errors
    /// What accepting failed with; it is tried again.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, Option<IpAddr>)>> + Send;
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Option<IpAddr>)> {
        let (io, client) = TcpListener::accept(self).await?;
        dial::tune(&io);
        Ok((io, Some(SocketAddr::ip(&client).to_canonical())))
    }
}

impl Accept for UnixListener {
    type Io = UnixStream;

    async fn accept(&mut self) -> io::Result<(UnixStream, Option<IpAddr>)> {
        let (io, _) = UnixListener::accept(self).await?;
        Ok((io, None))
    }
}

/// Serves every connection of `listener` with `serve` until `stop` is cancelled; then waits for those that are open as long
/// as `grace` and cuts the rest. As long as there is no place for another connection none is accepted: it waits in the
/// system's queue.
pub(super) async fn each<L, S, F>(
    mut listener: L,
    places: &Arc<Semaphore>,
    serve: S,
    stop: CancellationToken,
    grace: Duration,
) where
    L: Accept,
    S: Fn(L::Io, Option<IpAddr>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut warned: Option<Stopwatch> = None;
    loop {
        let next = async {
            let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?, place))
        };
        select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = next => match accepted {
                Ok(((io, client), place)) => {
                    let running = serve(io, client);
                    connections.spawn(async move {
                        running.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    if warned.as_ref().is_none_or(|since| since.elapsed() > REFUSAL_INTERVAL) {
                        warned = Some(Stopwatch::start());
                        tracing::warn!(%error, "cannot accept connections; they wait");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = timeout(grace, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        connections.shutdown().await;
    }
}

/// A panic in a connection is a defect; it ends that connection alone.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended by a defect of this program");
    }
}
