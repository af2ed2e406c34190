//! Linearizable reads: rounds of read index shared by everybody who waits at the same moment.
//!
//! A caller joins the list of those waiting; the raft thread takes the whole list into one round. When raft has confirmed
//! the round's index, its callers wait for that index to be applied. A caller that arrives during a round joins the next,
//! which starts when that one is confirmed or given up.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::types::{LogIndex, Rejection, RequestId};

/// How a read ended before it could start.
pub(super) type Confirmed = Result<(), Rejection>;

/// Readers by how far they have come.
#[derive(Debug, Default)]
pub(super) struct Reads {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Not yet in a round.
    waiting: Vec<oneshot::Sender<Confirmed>>,
    /// In a round raft has not confirmed.
    rounds: BTreeMap<RequestId, Vec<oneshot::Sender<Confirmed>>>,
    /// Confirmed at an index that is not applied yet.
    applying: BTreeMap<LogIndex, Vec<oneshot::Sender<Confirmed>>>,
}

impl Reads {
    /// Joins the next round. The flag says whether the raft thread has to be told: true for the first in line.
    pub(super) fn join(&self) -> (oneshot::Receiver<Confirmed>, bool) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        let first = state.waiting.is_empty();
        state.waiting.push(sender);
        (receiver, first)
    }

    /// Starts a round with everybody waiting; false if nobody is left, or a round is under way, whose end is the time to
    /// try again. Earlier rounds whose callers all gave up are returned, so that raft can forget them.
    pub(super) fn start_round(&self, context: RequestId) -> (bool, Vec<RequestId>) {
        let mut state = self.lock();
        let abandoned: Vec<RequestId> = state
            .rounds
            .iter()
            .filter(|(_, readers)| readers.iter().all(oneshot::Sender::is_closed))
            .map(|(id, _)| *id)
            .collect();
        for id in &abandoned {
            state.rounds.remove(id);
        }
        if !state.rounds.is_empty() {
            return (false, abandoned);
        }
        let mut readers = std::mem::take(&mut state.waiting);
        readers.retain(|reader| !reader.is_closed());
        let any = !readers.is_empty();
        if any {
            state.rounds.insert(context, readers);
        }
        (any, abandoned)
    }

    /// Raft has confirmed the round: its readers may go on once `index` is applied. `applied` is asked under the lock
    /// that [`Reads::applied`] takes, so that no reader misses its index.
    pub(super) fn confirm(&self, context: RequestId, index: LogIndex, applied: impl Fn() -> LogIndex) {
        let mut state = self.lock();
        let Some(mut readers) = state.rounds.remove(&context) else { return };
        if index <= applied() {
            drop(state);
            return answer(readers, Ok(()));
        }
        state.applying.entry(index).or_default().append(&mut readers);
    }

    /// The state now includes `index`, and readers have been given it.
    pub(super) fn applied(&self, index: LogIndex) {
        let mut state = self.lock();
        if state.applying.is_empty() {
            return;
        }
        let later = state.applying.split_off(&LogIndex(index.0 + 1));
        let ready = std::mem::replace(&mut state.applying, later);
        drop(state);
        answer(ready.into_values().flatten(), Ok(()));
    }

    /// Ends every round that is not confirmed, because the leader that would confirm it is gone.
    pub(super) fn fail_rounds(&self, why: Rejection) {
        let rounds = std::mem::take(&mut self.lock().rounds);
        answer(rounds.into_values().flatten(), Err(why));
    }

    /// Ends one round.
    pub(super) fn fail_round(&self, context: RequestId, why: Rejection) {
        let readers = self.lock().rounds.remove(&context);
        answer(readers.into_iter().flatten(), Err(why));
    }

    /// Ends everything; the member stops.
    pub(super) fn fail_all(&self, why: Rejection) {
        let state = std::mem::take(&mut *self.lock());
        answer(state.waiting, Err(why));
        answer(state.rounds.into_values().chain(state.applying.into_values()).flatten(), Err(why));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Readers that went away hear nothing.
fn answer(readers: impl IntoIterator<Item = oneshot::Sender<Confirmed>>, how: Confirmed) {
    for reader in readers {
        let gone = reader.send(how).is_err();
        if gone {
            tracing::trace!("a reader gave up before its round was confirmed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_waiting_shares_one_round() {
        let reads = Reads::default();
        let (mut one, first) = reads.join();
        let (mut two, second) = reads.join();
        assert!(first && !second);
        assert!(reads.start_round(RequestId(1)).0);
        let (mut late, first) = reads.join();
        assert!(first, "the next round has to be asked for");
        assert!(!reads.start_round(RequestId(2)).0, "one round at a time");
        reads.confirm(RequestId(1), LogIndex(5), || LogIndex(5));
        assert_eq!((one.try_recv(), two.try_recv()), (Ok(Ok(())), Ok(Ok(()))));
        assert!(late.try_recv().is_err());
        assert!(reads.start_round(RequestId(3)).0);
        reads.confirm(RequestId(3), LogIndex(5), || LogIndex(5));
        assert_eq!(late.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn reader_waits_until_its_index_is_applied() {
        let reads = Reads::default();
        let (mut reader, _) = reads.join();
        reads.start_round(RequestId(1));
        reads.confirm(RequestId(1), LogIndex(7), || LogIndex(5));
        reads.applied(LogIndex(6));
        assert!(reader.try_recv().is_err());
        reads.applied(LogIndex(7));
        assert_eq!(reader.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn change_of_leader_ends_only_unconfirmed_rounds() {
        let reads = Reads::default();
        let (mut confirmed, _) = reads.join();
        reads.start_round(RequestId(1));
        reads.confirm(RequestId(1), LogIndex(7), || LogIndex(0));
        let (mut open, _) = reads.join();
        reads.start_round(RequestId(2));
        reads.fail_rounds(Rejection::LeaderChanged);
        assert_eq!(open.try_recv(), Ok(Err(Rejection::LeaderChanged)));
        reads.applied(LogIndex(7));
        assert_eq!(confirmed.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn abandoned_rounds_are_reported_once() {
        let reads = Reads::default();
        drop(reads.join());
        assert!(!reads.start_round(RequestId(1)).0, "nobody is left");
        let (reader, _) = reads.join();
        reads.start_round(RequestId(2));
        drop(reader);
        let (_kept, _) = reads.join();
        assert_eq!(reads.start_round(RequestId(3)), (true, vec![RequestId(2)]));
    }
}
