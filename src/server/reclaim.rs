//! Space is given back beside everything else: once at a time, for all who have asked by then. Nobody is kept from reading or
//! writing meanwhile.
//!
//! Whoever asks waits for a moment, so that a small state is seen to be small as soon as the call is answered; a large one is
//! written anew behind the answer, because a client's deadline tells nothing of how long that takes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Error;
use tokio::{select, sync::watch, time::timeout};

use crate::{clock::Clock as _, metrics, storage::Engine as _, types::Rejection};

use super::{Handle, ServerError};

/// Longest time that a call to give space back takes: clients of etcd give up after five seconds unless they are told to wait.
const RECLAIM_PATIENCE: Duration = Duration::from_secs(2);

/// Who wants space given back, and up to whom that was done.
#[derive(Debug)]
pub(super) struct Reclaims {
    /// Times that somebody has asked.
    asked: watch::Sender<u64>,
    done: watch::Sender<Done>,
}

/// How the last piece of work ended.
#[derive(Clone, Debug, Default)]
struct Done {
    /// All who asked up to here were served by it.
    asked: u64,
    failure: Option<ServerError>,
}

impl Default for Reclaims {
    fn default() -> Self {
        Self { asked: watch::Sender::new(0), done: watch::Sender::new(Done::default()) }
    }
}

impl Reclaims {
    /// Asks for it; the number is for [`Reclaims::outcome`].
    pub(super) fn ask(&self) -> u64 {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        number
    }

    /// Whether somebody has asked for what is not done yet.
    pub(super) fn is_busy(&self) -> bool {
        *self.asked.borrow() > self.done.borrow().asked
    }

    async fn next(&self, served: u64) -> u64 {
        let mut asked = self.asked.subscribe();
        // The sender lives as long as this borrow.
        asked.wait_for(|asked| *asked > served).await.map_or(served, |asked| *asked)
    }

    fn end(&self, asked: u64, failure: Option<ServerError>) {
        self.done.send_replace(Done { asked, failure });
    }

    async fn outcome(&self, number: u64) -> Result<(), ServerError> {
        let mut done = self.done.subscribe();
        let done = done.wait_for(|done| done.asked >= number).await.map_err(|_| Rejection::Stopped)?;
        done.failure.clone().map_or(Ok(()), Err)
    }
}

impl Handle {
    /// Gives back the space of everything that is removed, once an accepted compaction has removed it. Returns when that is
    /// done, or after a moment while it goes on.
    ///
    /// # Errors
    /// What ended it within that moment: [`ServerError::NoRoom`], or an engine that failed; the member then stops.
    pub async fn reclaim(&self) -> Result<(), ServerError> {
        let reclaims = &self.shared.reclaims;
        let number = reclaims.ask();
        select! {
            outcome = timeout(RECLAIM_PATIENCE, reclaims.outcome(number)) => outcome.unwrap_or(Ok(())),
            () = self.stopped() => Err(Rejection::Stopped.into()),
        }
    }
}

/// Gives space back as long as somebody asks.
///
/// # Errors
/// Never; what fails is told to those who asked, and logged.
pub async fn give_space_back(handle: Handle) -> Result<(), Error> {
    let shared = &handle.shared;
    let mut served = 0;
    loop {
        select! {
            asked = shared.reclaims.next(served) => served = asked,
            () = handle.stopped() => return Ok(()),
        }
        let begun = shared.clock.monotonic();
        metrics::DEFRAG_INFLIGHT.set(1);
        let outcome = write_anew(&handle).await;
        metrics::DEFRAG_INFLIGHT.set(0);
        let took = shared.clock.monotonic().saturating_sub(begun);
        metrics::BACKEND_DEFRAG.observe(took);
        match &outcome {
            Ok(()) => tracing::info!(took = ?took, bytes = handle.status().db_size, "gave space of the state back"),
            Err(cause) => tracing::warn!(took = ?took, %cause, "space of the state was not given back"),
        }
        shared.reclaims.end(served, outcome.err());
    }
}

/// Writes the files of the state anew without what is not needed. A disk that fills up on the way would stop the member.
async fn write_anew(handle: &Handle) -> Result<(), ServerError> {
    handle.await_compaction().await?;
    let shared = &handle.shared;
    let room = shared.snapshots.check_room(shared.in_use_bytes.load(Ordering::Relaxed));
    room.map_err(|cause| ServerError::NoRoom(format!("to give space back the state is written anew: {cause}")))?;
    let (engine, shared) = (shared.engine(), Arc::clone(shared));
    let reclaim = move || {
        engine.reclaim()?;
        shared.look_up_size(&engine);
        Ok(())
    };
    handle.blocking(reclaim).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_piece_of_work_serves_all_who_asked_before_it() {
        let reclaims = Reclaims::default();
        assert!(!reclaims.is_busy());
        let (first, second) = (reclaims.ask(), reclaims.ask());
        let begun = reclaims.next(0).await;
        let late = reclaims.ask();
        reclaims.end(begun, Some(Rejection::Stopped.into()));
        for number in [first, second] {
            let outcome = reclaims.outcome(number).await;
            assert!(matches!(outcome, Err(ServerError::Rejected(Rejection::Stopped))), "{outcome:?}");
        }
        assert!(reclaims.is_busy(), "who asks while the work is under way may have removed more");
        let waited = timeout(Duration::from_millis(20), reclaims.outcome(late)).await;
        assert!(waited.is_err());
        reclaims.end(reclaims.next(begun).await, None);
        assert!(reclaims.outcome(late).await.is_ok() && !reclaims.is_busy());
    }
}
