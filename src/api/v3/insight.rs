//! `quorate.Insight`: what etcd has no service for.

use bytes::Bytes;

use super::{Reply, Session, call, decode};
use crate::{
    api::{
        hot::{Tally, Told},
        status::Status,
    },
    pb::quorate::{HotClient, HotPrefix, HotRequest, HotResponse},
};

/// Names keys and who uses them, and is therefore for those who may read everything. Learners answer too.
pub(super) async fn hot(session: Session, request: Bytes) -> Result<Reply, Status> {
    session.tell(&decode::<HotRequest>(request)?);
    session.admit(call::UNARY, true)?;
    session.for_admins().await?;
    let Told { window, prefixes, clients } = session.hot();
    let prefixes = prefixes.into_iter().map(|(prefix, tally)| {
        let Tally { requests, writes, .. } = tally;
        HotPrefix { prefix: Bytes::copy_from_slice(&prefix), requests, writes }
    });
    let clients = clients.into_iter().map(|(address, Tally { requests, .. })| {
        // What Go's programs show of a socket file.
        let address = address.map_or_else(|| "@".to_owned(), |address| address.to_string());
        HotClient { address, requests }
    });
    Ok(Reply::of(&HotResponse {
        header: Some(session.header_now()),
        window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
        prefixes: prefixes.collect(),
        clients: clients.collect(),
    }))
}
