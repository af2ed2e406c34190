//! `v3lockpb.Lock`.

use bytes::Bytes;

use super::{
    Session,
    contest::{Waiting, as_heard, enter, lease_of, served, turn},
    kv,
};
use crate::{
    api::status::Status,
    concurrency::Line,
    pb::{
        etcdserverpb::DeleteRangeRequest,
        v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse},
    },
};

/// Waits for a lock.
pub(super) async fn lock(session: Session, request: LockRequest) -> Result<LockResponse, Status> {
    served(&session, acquire(&session, request)).await
}

async fn acquire(session: &Session, request: LockRequest) -> Result<LockResponse, Status> {
    let lease = lease_of(session, request.lease).await?;
    let line = Line::of(&request.name);
    let (entered, header) = enter(session, &line, lease, Bytes::new()).await?;
    let place = entered.place;
    if entered.is_first {
        return Ok(LockResponse { header, key: place.key });
    }
    let waiting = Waiting::begin(session, &place);
    turn(session, &line, &place).await?;
    // The lease may have ended meanwhile, and the place with it.
    let answer = kv::read(session, place.read()).await?;
    waiting.keep();
    if !place.is_kept(&answer) {
        return Err(Status::unknown("mutex: session is expired"));
    }
    Ok(LockResponse { header: answer.header, key: place.key })
}

/// Gives up a lock; one that nobody has is given up, too.
pub(super) async fn unlock(session: Session, request: UnlockRequest) -> Result<UnlockResponse, Status> {
    let request = DeleteRangeRequest { key: request.key, ..Default::default() };
    let deleted = kv::delete_range(session, request).await.map_err(as_heard)?;
    Ok(UnlockResponse { header: deleted.header })
}
