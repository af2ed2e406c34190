//! `etcdserverpb.Watch`: one stream carries many watchers.
//!
//! The member's watch hub decides what each watcher gets and encodes it; here the messages are passed on, as many at a
//! time as are ready. A client that does not read stops this loop, not the hub: its watchers then catch up from storage.

use super::{Session, decode_streamed, session::Watchers};
use crate::{
    api::{
        status::Status,
        wire::{Inbound, Outbound},
    },
    clock::Stopwatch,
    metrics,
    pb::etcdserverpb::WatchRequest,
    types::Rejection,
};

/// Serves one stream of watchers.
pub(super) async fn watch(session: &Session, inbound: Inbound, outbound: &mut Outbound) -> Result<(), Status> {
    session.admit_stream()?;
    let watchers = session.watching();
    tokio::select! {
        ended = pump(session, watchers, inbound, outbound) => ended,
        cut = session.cut() => Err(cut),
    }
}

async fn pump(
    session: &Session,
    watchers: Watchers<'_>,
    mut inbound: Inbound,
    outbound: &mut Outbound,
) -> Result<(), Status> {
    let mut asking = true;
    loop {
        tokio::select! {
            request = inbound.next(), if asking => match request.map_err(gone)? {
                Some(request) => ask(session, &watchers, decode_streamed(request)?).await?,
                // The client may stop asking and go on listening.
                None => asking = false,
            },
            frames = watchers.recv() => {
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

async fn ask(session: &Session, watchers: &Watchers<'_>, request: WatchRequest) -> Result<(), Status> {
    let step = session.step(&request);
    let refusal = watchers.send(request).await?;
    if let Some(step) = step {
        step.end(&refusal.map_or(Ok(()), |why| Err(why.into())));
    }
    Ok(())
}

/// A client that goes away ends its stream in the watch service's own words.
fn gone(status: Status) -> Status {
    if status == Status::canceled() { Rejection::WatchCanceled.into() } else { status }
}
