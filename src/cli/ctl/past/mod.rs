//! `diff` and `history`: what the history that a cluster still has can tell.
//!
//! Both show what they find while they read, a page or a response at a time: neither holds more of the past than that.

mod diff;
mod history;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

pub(super) use diff::DIFF;
pub(super) use history::HISTORY;

use super::{super::failure::Failure, session::Session};
use crate::{
    client::{ClientError, Delivery, Watcher},
    pb::etcdserverpb::{RangeRequest, WatchCreateRequest},
};

/// The present revision; `key` is one that the user may read.
async fn present(session: &Session, key: Bytes) -> Result<i64, ClientError> {
    let answer = session.call(RangeRequest { key, ..RangeRequest::default() }).await?;
    Ok(answer.header.map_or(0, |header| header.revision))
}

/// The oldest revision that can be read: what was before is compacted. Only a watch of the past is told it.
async fn oldest(session: &Session, key: Bytes) -> Result<i64, Failure> {
    let mut watcher = session.client.watcher();
    watcher.watch(WatchCreateRequest { key, start_revision: 1, ..WatchCreateRequest::default() });
    let delivery = next(&mut watcher, session.settings.command_timeout).await?;
    match (delivery.response.compact_revision, delivery.error) {
        (0, None) => Ok(1),
        (0, Some(error)) => Err(error.into()),
        (revision, _) => Ok(revision),
    }
}

/// The next delivery within `limit`. A watch that has nothing to say is asked how far it is until it tells: while it is
/// behind, a member of etcd leaves the question unanswered.
async fn next(watcher: &mut Watcher, limit: Duration) -> Result<Delivery, ClientError> {
    let asking = async {
        loop {
            if let Ok(delivery) = timeout(PROGRESS_INTERVAL, watcher.next()).await {
                return delivery;
            }
            watcher.request_progress();
        }
    };
    timeout(limit, asking).await.map_err(|_| ClientError::DeadlineExceeded { waiting_for: None })
}

/// Silence after which a watch is asked how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);
/// How a member refuses to read a revision that is no more.
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
