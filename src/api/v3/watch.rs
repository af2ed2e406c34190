//! `etcdserverpb.Watch`: one stream carries many watchers.
//!
//! The member's watch hub decides what each watcher gets and encodes it; here the messages are passed on, as many at a
//! time as are ready. A client that does not read stops this loop, not the hub: its watchers then catch up from storage.

use std::{collections::VecDeque, sync::Arc};

use super::{Session, decode_streamed, session::Watchers};
use crate::{
    api::{
        audit::{Entry, Step, WatchEnded},
        status::Status,
        wire::{Inbound, Outbound},
    },
    clock::Stopwatch,
    metrics,
    pb::etcdserverpb::{WatchRequest, watch_request::RequestUnion},
    types::{Code, Rejection},
    watch::Frame,
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
    let mut told = Told { entry: session.entry(), asked: VecDeque::new() };
    loop {
        tokio::select! {
            request = inbound.next(), if asking => match request.map_err(gone)? {
                Some(request) => ask(session, &watchers, &mut told, decode_streamed(request)?).await?,
                // The client may stop asking and go on listening.
                None => asking = false,
            },
            frames = watchers.recv() => {
                let frames = frames.ok_or(Rejection::Stopped)?;
                told.answered(&frames);
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

async fn ask(
    session: &Session,
    watchers: &Watchers<'_>,
    told: &mut Told<'_>,
    request: WatchRequest,
) -> Result<(), Status> {
    let step = session.step(&request);
    let is_answered = matches!(request.request_union, Some(RequestUnion::CreateRequest(_)));
    let refusal = watchers.send(request).await?;
    match step {
        Some(step) if is_answered => told.asked(step, refusal),
        Some(step) => step.end(&Ok(())),
        None => {}
    }
    Ok(())
}

/// What the audit log is told of watches: that they were created, or why not, is known when the answer comes.
struct Told<'a> {
    entry: Option<&'a Arc<Entry>>,
    /// Those that were asked for and not answered yet, in order; nothing for one of which all has been said.
    asked: VecDeque<Option<Step>>,
}

impl Told<'_> {
    fn asked(&mut self, step: Step, refusal: Option<Rejection>) {
        let step = match refusal {
            None => Some(step),
            Some(why) => {
                step.end(&Err::<(), _>(why.into()));
                None
            }
        };
        self.asked.push_back(step);
    }

    fn answered(&mut self, frames: &[Frame]) {
        let Some(entry) = self.entry else { return };
        for frame in frames {
            if let Some(created) = frame.creation() {
                match (self.asked.pop_front().flatten(), created) {
                    (Some(step), Ok(watch)) => step.created(watch),
                    (Some(step), Err(why)) => step.end(&Err::<(), _>(refused(why))),
                    (None, _) => {}
                }
            } else if let Some((watch, why)) = frame.loss() {
                entry.step(&WatchEnded(watch)).end(&Err::<(), _>(refused(why)));
            }
        }
    }
}

/// A client that did not wait has asked all the same.
impl Drop for Told<'_> {
    fn drop(&mut self) {
        for step in self.asked.drain(..).flatten() {
            step.end(&Err::<(), _>(Rejection::WatchCanceled.into()));
        }
    }
}

/// Why the server keeps no watcher. Clients are told the reason alone; the code is the one that comes closest.
fn refused(why: &str) -> Status {
    if why.is_empty() || why == Rejection::Compacted.to_string() {
        return Rejection::Compacted.into();
    }
    Status::new(Code::InvalidArgument, why.to_owned())
}

/// A client that goes away ends its stream in the watch service's own words.
fn gone(status: Status) -> Status {
    if status == Status::canceled() { Rejection::WatchCanceled.into() } else { status }
}
