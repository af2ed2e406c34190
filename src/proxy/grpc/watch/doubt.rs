//! Whether a member that knows less than others did lags, or its cluster went back.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;
use tokio::time::sleep;

use super::{RANGE, Shared, is_passing};
use crate::{
    pb::etcdserverpb::{RangeRequest, WatchCreateRequest},
    proxy::grpc::{
        identity::header_of,
        upstream::{Outgoing, Token},
    },
};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before it is put again.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks for the present, in the name of somebody who watches, until the cluster answers. One question is under way at a time.
pub(super) async fn settle(shared: Arc<Shared>, token: Option<Token>, watched: WatchCreateRequest) {
    if shared.is_doubted.swap(true, Ordering::AcqRel) {
        return;
    }
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = ask(&shared, token, watched) => {}
    }
    shared.is_doubted.store(false, Ordering::Release);
}

async fn ask(shared: &Shared, token: Option<Token>, watched: WatchCreateRequest) {
    let identity = shared.upstream.identity();
    let era = identity.era();
    let key = if watched.key.is_empty() { Bytes::from_static(b"\0") } else { watched.key };
    let present =
        RangeRequest { key, range_end: watched.range_end, limit: 1, count_only: true, ..RangeRequest::default() };
    let present: Bytes = present.encode_to_vec().into();
    while identity.era() == era {
        let mark = identity.mark();
        let call = Outgoing::with_leader(token.as_ref()).until(PATIENCE);
        match shared.upstream.unary(&RANGE, &call, present.clone(), true).await {
            Ok(answer) => {
                if let Some(header) = header_of(&answer) {
                    identity.see_present(&header, mark);
                }
                return;
            }
            Err(status) if is_passing(&status) => sleep(PAUSE).await,
            // Whoever watched may not read any more: somebody else will ask.
            Err(_) => return,
        }
    }
}
