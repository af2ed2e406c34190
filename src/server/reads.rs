//! Linearizable reads: rounds of read index shared by everybody who waits at the same moment.
//!
//! A caller joins the list of those waiting; the raft thread takes the whole list into one round. When raft has confirmed
//! the round's index, its callers wait for that index to be applied. A caller that arrives during a round joins the next,
//! which starts when that one is confirmed or given up.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::types::{LogIndex, Rejection, RequestId};

/// Readers by how far they have come. Every one of them is handed back once: when it may read, or when it has to hear why
/// not.
#[derive(Debug)]
pub struct Rounds<R> {
    /// Not yet in a round.
    waiting: Vec<R>,
    /// In a round raft has not confirmed.
    open: BTreeMap<RequestId, Vec<R>>,
    /// Confirmed at an index that is not applied yet.
    applying: BTreeMap<LogIndex, Vec<R>>,
}

/// What came of an attempt to start a round.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// The round that raft has to confirm. `None` if nobody is left, or a round is under way, whose end is the time to try
    /// again.
    pub round: Option<RequestId>,
    /// Earlier rounds whose readers have all given up: raft can forget them.
    pub abandoned: Vec<RequestId>,
}

impl<R> Default for Rounds<R> {
    fn default() -> Self {
        Self { waiting: Vec::new(), open: BTreeMap::new(), applying: BTreeMap::new() }
    }
}

impl<R> Rounds<R> {
    /// Joins the next round. The flag says whether the raft thread has to be told: true for the first in line.
    pub fn join(&mut self, reader: R) -> bool {
        self.waiting.push(reader);
        self.waiting.len() == 1
    }

    /// Starts round `context` with everybody waiting.
    pub fn start(&mut self, context: RequestId, has_given_up: impl Fn(&R) -> bool) -> Started {
        let is_abandoned = |readers: &mut Vec<R>| readers.iter().all(&has_given_up);
        let abandoned = self.open.extract_if(.., |_, readers| is_abandoned(readers)).map(|(round, _)| round).collect();
        if !self.open.is_empty() {
            return Started { round: None, abandoned };
        }
        let mut readers = mem::take(&mut self.waiting);
        readers.retain(|reader| !has_given_up(reader));
        if readers.is_empty() {
            return Started { round: None, abandoned };
        }
        self.open.insert(context, readers);
        Started { round: Some(context), abandoned }
    }

    /// Raft has confirmed the round: its readers may go on once `index` is applied. Returns those who may go on at once,
    /// where `applied` is.
    pub fn confirm(&mut self, context: RequestId, index: LogIndex, applied: LogIndex) -> Vec<R> {
        let Some(mut readers) = self.open.remove(&context) else { return Vec::new() };
        if index <= applied {
            return readers;
        }
        self.applying.entry(index).or_default().append(&mut readers);
        Vec::new()
    }

    /// The state now includes `index`. Returns who may go on.
    pub fn applied(&mut self, index: LogIndex) -> impl Iterator<Item = R> + use<R> {
        let later = self.applying.split_off(&LogIndex(index.0 + 1));
        mem::replace(&mut self.applying, later).into_values().flatten()
    }

    /// Gives one round up.
    pub fn fail_round(&mut self, context: RequestId) -> Vec<R> {
        self.open.remove(&context).unwrap_or_default()
    }

    /// Gives up every round that is not confirmed, because the leader that would confirm it is gone.
    pub fn fail_rounds(&mut self) -> impl Iterator<Item = R> + use<R> {
        mem::take(&mut self.open).into_values().flatten()
    }
}

/// How a read ended before it could start.
pub(super) type Confirmed = Result<(), Rejection>;

type Reader = oneshot::Sender<Confirmed>;

/// The readers of a running member.
#[derive(Debug, Default)]
pub(super) struct Reads {
    rounds: Mutex<Rounds<Reader>>,
}

impl Reads {
    /// As [`Rounds::join`].
    pub(super) fn join(&self) -> (oneshot::Receiver<Confirmed>, bool) {
        let (sender, receiver) = oneshot::channel();
        let first = self.lock().join(sender);
        (receiver, first)
    }

    /// As [`Rounds::start`].
    pub(super) fn start_round(&self, context: RequestId) -> Started {
        self.lock().start(context, Reader::is_closed)
    }

    /// As [`Rounds::confirm`]. `applied` is asked under the lock that [`Reads::applied`] takes, so that no reader misses
    /// its index.
    pub(super) fn confirm(&self, context: RequestId, index: LogIndex, applied: impl Fn() -> LogIndex) {
        let mut rounds = self.lock();
        let ready = rounds.confirm(context, index, applied());
        drop(rounds);
        answer(ready, Ok(()));
    }

    /// The state now includes `index`, and readers have been given it.
    pub(super) fn applied(&self, index: LogIndex) {
        let ready = self.lock().applied(index);
        answer(ready, Ok(()));
    }

    /// As [`Rounds::fail_rounds`].
    pub(super) fn fail_rounds(&self, why: Rejection) {
        let readers = self.lock().fail_rounds();
        answer(readers, Err(why));
    }

    /// As [`Rounds::fail_round`].
    pub(super) fn fail_round(&self, context: RequestId, why: Rejection) {
        let readers = self.lock().fail_round(context);
        answer(readers, Err(why));
    }

    /// Ends everything; the member stops.
    pub(super) fn fail_all(&self, why: Rejection) {
        let Rounds { waiting, open, applying } = mem::take(&mut *self.lock());
        answer(waiting, Err(why));
        answer(open.into_values().chain(applying.into_values()).flatten(), Err(why));
    }

    fn lock(&self) -> MutexGuard<'_, Rounds<Reader>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Readers that went away hear nothing.
fn answer(readers: impl IntoIterator<Item = Reader>, how: Confirmed) {
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
        assert_eq!(reads.start_round(RequestId(1)).round, Some(RequestId(1)));
        let (mut late, first) = reads.join();
        assert!(first, "the next round has to be asked for");
        assert_eq!(reads.start_round(RequestId(2)), Started::default(), "one round at a time");
        reads.confirm(RequestId(1), LogIndex(5), || LogIndex(5));
        assert_eq!((one.try_recv(), two.try_recv()), (Ok(Ok(())), Ok(Ok(()))));
        assert!(late.try_recv().is_err());
        assert_eq!(reads.start_round(RequestId(3)).round, Some(RequestId(3)));
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
        assert_eq!(reads.start_round(RequestId(1)), Started::default(), "nobody is left");
        let (reader, _) = reads.join();
        reads.start_round(RequestId(2));
        drop(reader);
        let (_kept, _) = reads.join();
        let started = Started { round: Some(RequestId(3)), abandoned: vec![RequestId(2)] };
        assert_eq!(reads.start_round(RequestId(3)), started);
    }
}
