//! What the services of locks and of elections have in common: entering a line of keys, waiting for one's turn in it.
//!
//! A caller who waits costs its task and one watcher that hears of a single deletion. Nothing is remembered here: all there
//! is to know are the keys, and whoever loses a member asks another one, with the same lease, and has the same place.
//!
//! As in etcd, these services are clients of the others, which shows in what they fail with: all codes but those of time and
//! cancellation are `Unknown`.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::runtime;

use super::{Session, kv, lease, session::Watchers};
use crate::{
    api::status::Status,
    concurrency::{self, Entered, Line, Place, TTL_SECONDS_DEFAULT},
    pb::etcdserverpb::{
        LeaseGrantRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
        WatchResponse, watch_request::RequestUnion,
    },
    types::{Code, LeaseId, Rejection},
    watch::Frame,
};

/// The outcome of `work` in the words of these services, or `Stopped` once the member shuts down: who waits for a turn may
/// have to wait for ever.
pub(super) async fn served<T>(session: &Session, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::select! {
        outcome = work => outcome.map_err(as_heard),
        () = session.stopping() => Err(Rejection::Stopped.into()),
    }
}

/// A failure as a client of etcd passes it on.
pub(super) fn as_heard(status: Status) -> Status {
    match status.code() {
        Code::Canceled | Code::DeadlineExceeded => status,
        _ => Status::unknown(status.message().to_owned()),
    }
}

/// The lease of a caller; who brings none gets one that nobody renews.
pub(super) async fn lease_of(session: &Session, lease: i64) -> Result<LeaseId, Status> {
    if lease != 0 {
        return Ok(LeaseId(lease));
    }
    let request = LeaseGrantRequest { ttl: TTL_SECONDS_DEFAULT, id: 0 };
    lease::grant_to(session, request).await.map(|granted| LeaseId(granted.id))
}

/// Takes a place in `line`, or finds the one that `lease` has.
pub(super) async fn enter(
    session: &Session,
    line: &Line,
    lease: LeaseId,
    value: Bytes,
) -> Result<(Entered, Option<ResponseHeader>), Status> {
    let answer = change(session, line.enter(lease, value)).await?;
    let entered = Entered::read(line.key(lease), &answer);
    let entered =
        entered.ok_or_else(|| Status::unknown(format!("apply answered with {} responses", answer.responses.len())))?;
    Ok((entered, answer.header))
}

/// Carries out a transaction.
pub(super) async fn change(session: &Session, request: TxnRequest) -> Result<TxnResponse, Status> {
    kv::carry_out_txn(session, request).await
}

/// Waits until no key of `line` is older than the place.
pub(super) async fn turn(session: &Session, line: &Line, place: &Place) -> Result<(), Status> {
    loop {
        let answer = kv::read(session, line.last_before(place.created)).await?;
        let Some(older) = answer.kvs.first() else { return Ok(()) };
        let mut watching =
            Watching::begin(session, concurrency::deletion(older.key.clone(), revision(&answer))).await?;
        // A watch that cannot go on for a compaction says nothing of the key: it is read again.
        while watching.next().await?.is_some_and(|response| response.events.is_empty()) {}
    }
}

/// The revision an answer was read at.
pub(super) fn revision(answer: &RangeResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}

/// Gives up a place when dropped, unless it is to be kept: a call whose client goes away is dropped where it waits.
#[derive(Debug)]
pub(super) struct Waiting {
    session: Session,
    place: Option<Place>,
}

impl Waiting {
    /// From now on the place is given up with the call.
    pub(super) fn begin(session: &Session, place: &Place) -> Self {
        Self { session: session.clone(), place: Some(place.clone()) }
    }

    /// The place is kept.
    pub(super) fn keep(mut self) {
        self.place = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some((place, runtime)) = self.place.take().zip(runtime::Handle::try_current().ok()) else { return };
        let session = self.session.clone();
        // Without an outcome the key stays until its lease ends, as that of a client that died does.
        runtime.spawn(async move {
            if let Err(status) = change(&session, place.leave()).await {
                tracing::debug!(error = status.message(), "a place in a line outlives its call");
            }
        });
    }
}

/// One watcher of this process. What it was told waits in the room that the hub gives every stream, and nowhere else.
#[derive(Debug)]
pub(super) struct Watching {
    watchers: Watchers<'static>,
    frames: VecDeque<Frame>,
}

impl Watching {
    pub(super) async fn begin(session: &Session, create: WatchCreateRequest) -> Result<Self, Status> {
        let watchers = session.watching_on();
        // One that is refused hears so where the others hear of events.
        watchers.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await?;
        Ok(Self { watchers, frames: VecDeque::new() })
    }

    /// The next response with news, nothing if the past it would begin with is compacted. Safe to cancel.
    ///
    /// # Errors
    /// [`Rejection::Stopped`], or why the watcher was refused.
    pub(super) async fn next(&mut self) -> Result<Option<WatchResponse>, Status> {
        loop {
            let Some(frame) = self.frames.pop_front() else {
                self.frames = self.watchers.recv().await.ok_or(Rejection::Stopped)?.into();
                continue;
            };
            let response = frame.to_response();
            match (response.compact_revision, response.canceled, response.created) {
                (0, false, false) => return Ok(Some(response)),
                (0, false, true) => {}
                (0, true, _) => return Err(Status::unknown(response.cancel_reason)),
                _ => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_lose_their_codes_but_those_of_time_and_cancellation() {
        let heard = as_heard(Rejection::LeaseNotFound.into());
        assert_eq!((heard.code(), heard.message()), (Code::Unknown, "etcdserver: requested lease not found"));
        assert_eq!(as_heard(Status::deadline_exceeded()).code(), Code::DeadlineExceeded);
        assert_eq!(as_heard(Status::canceled()).code(), Code::Canceled);
    }
}
