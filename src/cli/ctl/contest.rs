//! Standing in line for a lock or an office from outside: the lease that holds the place, and the wait for one's turn.

use std::{io, pin::pin};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Fuse, FusedFuture},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

use super::{
    super::failure::{Exit, Failure},
    session::Session,
};
use crate::{
    client::{Client, ClientError, Delivery},
    concurrency::{self, Entered, Line, Place, TTL_SECONDS_DEFAULT},
    pb::etcdserverpb::{LeaseGrantRequest, RangeResponse, ResponseHeader, TxnResponse, WatchResponse},
    types::LeaseId,
};

/// A lease of one's own. It is renewed during whatever this is told to wait for, and left to end by itself afterwards, as
/// etcdctl does.
pub(super) struct Tenure {
    pub(super) lease: LeaseId,
    renewing: Fuse<BoxFuture<'static, ()>>,
}

impl Tenure {
    /// Begins with a lease of `ttl` seconds.
    ///
    /// # Errors
    /// What the cluster answered.
    pub(super) async fn begin(session: &Session, mut ttl: i64) -> Result<Self, ClientError> {
        if ttl <= 0 {
            ttl = TTL_SECONDS_DEFAULT;
            warn!("current-session-ttl" = ttl, "WithTTL(): TTL should be > 0, preserving current TTL");
        }
        let lease = LeaseId(session.client.call(LeaseGrantRequest { ttl, id: 0 }, None).await?.id);
        let mut answers = session.keep_alive(lease);
        let renewing = async move { while answers.next().await.is_some() {} };
        Ok(Self { lease, renewing: renewing.boxed().fuse() })
    }

    /// Waits for `work`, also beyond the end of the lease.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        tokio::select! {
            outcome = &mut work => return outcome,
            () = self.lost() => {}
        }
        work.await
    }

    /// Resolves when the lease is gone.
    pub(super) async fn lost(&mut self) {
        if !self.renewing.is_terminated() {
            (&mut self.renewing).await;
        }
    }
}

/// The signals that ask the process to end. From the beginning of this on none of them ends it.
pub(super) struct Interruption {
    int: Signal,
    term: Signal,
}

impl Interruption {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system does not deliver signals.
    pub(super) fn begin() -> io::Result<Self> {
        Ok(Self { int: signal(SignalKind::interrupt())?, term: signal(SignalKind::terminate())? })
    }

    /// Resolves with the next signal.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }

    /// The outcome of `work`, or that of work broken off, after a signal.
    pub(super) async fn or<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            outcome = work => outcome,
            () = self.wait() => Err(failure("context canceled")),
        }
    }
}

/// Takes a place in `line`.
///
/// # Errors
/// What the cluster answered.
pub(super) async fn enter(
    client: &Client,
    line: &Line,
    lease: LeaseId,
    value: Bytes,
) -> Result<(Entered, TxnResponse), Failure> {
    let answer = client.call(line.enter(lease, value), None).await?;
    let entered = Entered::read(line.key(lease), &answer);
    let entered = entered.ok_or_else(|| failure("the member answered something else than it was asked"))?;
    Ok((entered, answer))
}

/// Waits until it is the turn of `place`; the answer tells whether it is still there.
///
/// # Errors
/// What the cluster answered.
pub(super) async fn turn(client: &Client, line: &Line, place: &Place) -> Result<RangeResponse, Failure> {
    loop {
        let answer = client.call(line.last_before(place.created), None).await?;
        let Some(older) = answer.kvs.first() else { break };
        let mut watcher = client.watcher();
        watcher.watch(concurrency::deletion(older.key.clone(), revision(answer.header)));
        while news(watcher.next().await)?.is_some_and(|news| news.events.is_empty()) {}
    }
    Ok(client.call(place.read(), None).await?)
}

/// The response of a delivery, nothing if the past its watch would begin with is compacted.
///
/// # Errors
/// Why the watch is over.
pub(super) fn news(delivery: Delivery) -> Result<Option<WatchResponse>, Failure> {
    match (delivery.response.compact_revision, delivery.over, delivery.error) {
        (0, false, _) => Ok(Some(delivery.response)),
        (0, true, Some(error)) => Err(error.into()),
        (0, true, None) => Err(failure("lost watcher waiting for delete")),
        _ => Ok(None),
    }
}

/// The revision in a header.
pub(super) fn revision(header: Option<ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// A failure of these commands.
pub(super) fn failure(message: &str) -> Failure {
    Failure::new(Exit::Error, message)
}
