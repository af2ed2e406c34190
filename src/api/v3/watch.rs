//! `etcdserverpb.Watch`: one stream carries many watchers.
//!
//! The member's watch hub decides what each watcher gets and encodes it; here the messages are passed on, as many at a
//! time as are ready. A client that does not read stops this loop, not the hub: its watchers then catch up from storage.

use std::sync::Arc;

use super::{Call, decode_streamed};
use crate::{
    api::{
        Api,
        status::Status,
        wire::{Inbound, Outbound},
    },
    clock::Stopwatch,
    metrics,
    server::WatchStream,
    types::Rejection,
};

/// Serves one stream of watchers.
pub(super) async fn watch(api: Arc<Api>, call: &Call, inbound: Inbound, outbound: &mut Outbound) -> Result<(), Status> {
    api.admit_stream(call)?;
    let stream = api.server().watch_open();
    tokio::select! {
        ended = pump(stream, inbound, outbound) => ended,
        cut = api.cut(call) => Err(cut),
    }
}

async fn pump(stream: WatchStream, mut inbound: Inbound, outbound: &mut Outbound) -> Result<(), Status> {
    let mut asking = true;
    loop {
        tokio::select! {
            request = inbound.next(), if asking => match request.map_err(gone)? {
                Some(request) => stream.send(decode_streamed(request)?).await?,
                // The client may stop asking and go on listening.
                None => asking = false,
            },
            frames = stream.recv() => {
                let frames = frames.ok_or(Rejection::Stopped)?;
                let watch = Stopwatch::start();
                let sent = outbound.send_frames(&frames).await;
                metrics::WATCH_SEND.observe(watch.elapsed());
                if sent.is_err() {
                    metrics::STREAM_FAILURES.with(["watch", "send"]).inc();
                    return Err(Rejection::WatchCanceled.into());
                }
            }
            () = outbound.closed() => return Err(Rejection::WatchCanceled.into()),
        }
    }
}

/// A client that goes away ends its stream in the watch service's own words.
fn gone(status: Status) -> Status {
    if status == Status::canceled() { Rejection::WatchCanceled.into() } else { status }
}
