//! Callers waiting for their entry to be applied, by request ID.
//!
//! A waiter leaves exactly once: answered when its entry is applied, or dropped when raft refused the proposal, or swept
//! when its caller has given up. Until then it holds its share of the bytes in flight, so that what is queued between
//! proposal and apply stays bounded even when callers time out.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::types::RequestId;

/// Enough that callers on a few dozen cores seldom meet on one lock.
const SHARDS: usize = 16;

/// The waiting callers; `T` is what they get.
#[derive(Debug)]
pub(super) struct Waiters<T> {
    shards: [Mutex<HashMap<RequestId, Waiter<T>>>; SHARDS],
}

#[derive(Debug)]
struct Waiter<T> {
    reply: oneshot::Sender<T>,
    _share: OwnedSemaphorePermit,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(HashMap::new())) }
    }
}

impl<T> Waiters<T> {
    /// Registers `id`; the receiver resolves with the answer, or with an error once the proposal is known to be lost.
    pub(super) fn register(&self, id: RequestId, share: OwnedSemaphorePermit) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        self.shard(id).insert(id, Waiter { reply, _share: share });
        answer
    }

    /// Answers `id` if somebody still waits for it; `answer` is only made then.
    pub(super) fn answer(&self, id: RequestId, answer: impl FnOnce() -> T) {
        let waiter = self.shard(id).remove(&id);
        if let Some(waiter) = waiter
            && !waiter.reply.is_closed()
        {
            // The caller may give up between the check and here; then nobody wants the answer.
            drop(waiter.reply.send(answer()));
        }
    }

    /// Forgets callers that gave up waiting, whose entries may never be applied.
    pub(super) fn sweep(&self) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, waiter| !waiter.reply.is_closed());
        }
    }

    fn shard(&self, id: RequestId) -> MutexGuard<'_, HashMap<RequestId, Waiter<T>>> {
        let index = usize::try_from(id.0 % SHARDS as u64).unwrap_or(0);
        let shard = self.shards.get(index).unwrap_or_else(|| unreachable!("the remainder is below the shard count"));
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn answer_frees_the_share() {
        let shares = Arc::new(Semaphore::new(1));
        let waiters = Waiters::default();
        let mut answer = waiters.register(RequestId(7), shares.clone().try_acquire_owned().unwrap());
        assert_eq!(shares.available_permits(), 0);
        waiters.answer(RequestId(7), || "done");
        assert_eq!(answer.try_recv().unwrap(), "done");
        assert_eq!(shares.available_permits(), 1);
    }

    #[test]
    fn sweep_forgets_only_those_who_gave_up() {
        let shares = Arc::new(Semaphore::new(2));
        let waiters = Waiters::default();
        let patient = waiters.register(RequestId(1), shares.clone().try_acquire_owned().unwrap());
        drop(waiters.register(RequestId(2), shares.clone().try_acquire_owned().unwrap()));
        waiters.sweep();
        assert_eq!(shares.available_permits(), 1);
        waiters.answer(RequestId(1), || ());
        patient.blocking_recv().unwrap();
    }
}
