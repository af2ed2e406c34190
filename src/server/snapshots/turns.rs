//! Whose snapshot this member is receiving.
//!
//! A snapshot has its turn from its first byte until it is installed or given up; others wait in line, not for long.
//! Invariants: one turn at a time; a turn ends at once when somebody waits and raft would pass over what it brings, and
//! soon when somebody waits and its body hardly comes; once its body is whole it gives way to nobody.
//!
//! A sender sends one snapshot at a time, so the older of two from one sender is dead; but to end it at once, without
//! looking at what it brings, would let two senders that both are nobody's friends, or one that calls again and again,
//! take the turn from each other and from everybody else.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    raft::Standing,
    types::{MemberId, Term},
};

/// Longest wait for a turn. The transport bounds how many wait: two for each member, and two strangers.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// How often a body that others wait for is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The least it brings between two looks, unless it waits for this member's disk.
const LEAST_BYTES: usize = 64 << 10;

/// Why a snapshot has no turn, or has lost it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum NoTurn {
    #[error("it is of term {term}, and this member is in term {current}")]
    OldTerm { term: Term, current: Term },
    #[error("{leader} leads term {term}, not {from}")]
    NotLeading { from: MemberId, term: Term, leader: MemberId },
    #[error("another snapshot is being received or installed")]
    Taken,
    #[error("another one waited, and this one hardly came or was of a leader that is none any more")]
    Displaced,
}

/// Gives turns, one at a time.
#[derive(Debug)]
pub(super) struct Turns {
    place: Arc<Semaphore>,
    /// Who had the place last.
    holder: Mutex<Option<Arc<Claim>>>,
}

/// A turn; over when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    claim: Arc<Claim>,
    _place: OwnedSemaphorePermit,
}

/// What is known of a turn by those who wait for its end.
#[derive(Debug)]
pub(super) struct Claim {
    from: MemberId,
    term: Term,
    phase: Mutex<Phase>,
    displaced: CancellationToken,
    bytes: AtomicUsize,
    /// Whether the network is waited for, and not the disk.
    idle: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Coming,
    Whole,
    Displaced,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { place: Arc::new(Semaphore::new(1)), holder: Mutex::default() }
    }

    /// A turn for a snapshot that `from` sends in `term`; `standing` tells where this member stands in raft.
    ///
    /// # Errors
    /// [`NoTurn`].
    pub(super) async fn take(
        &self,
        from: MemberId,
        term: Term,
        standing: impl Fn() -> Standing,
    ) -> Result<Turn, NoTurn> {
        check(from, term, standing())?;
        let place = timeout(WAIT_MAX, Arc::clone(&self.place).acquire_owned());
        let place = tokio::select! {
            biased;
            place = place => place.ok().and_then(Result::ok).ok_or(NoTurn::Taken)?,
            why = self.contest(&standing) => return Err(why),
        };
        let claim = Arc::new(Claim {
            from,
            term,
            phase: Mutex::new(Phase::Coming),
            displaced: CancellationToken::new(),
            bytes: AtomicUsize::new(0),
            idle: AtomicBool::new(true),
        });
        *self.lock() = Some(Arc::clone(&claim));
        Ok(Turn { claim, _place: place })
    }

    /// Ends turns that are not worth waiting for; resolves when there is one that gives way to nobody.
    async fn contest(&self, standing: &impl Fn() -> Standing) -> NoTurn {
        let mut seen = None;
        loop {
            let holder = self.lock().clone();
            if let Some(holder) = &holder {
                let again = seen.as_ref().filter(|(claim, _)| Arc::ptr_eq(claim, holder));
                let hardly_comes = again.is_some_and(|(_, bytes)| holder.hardly_comes_since(*bytes));
                let outdated = check(holder.from, holder.term, standing()).is_err();
                if holder.is_whole() || ((outdated || hardly_comes) && !holder.displace()) {
                    return NoTurn::Taken;
                }
            }
            seen = holder.map(|holder| (Arc::clone(&holder), holder.bytes.load(Ordering::Relaxed)));
            sleep(LOOK_EVERY).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Claim>>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    pub(super) fn claim(&self) -> &Arc<Claim> {
        &self.claim
    }
}

impl Claim {
    /// So much of the body came, and goes to the disk.
    pub(super) fn came(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.idle.store(false, Ordering::Relaxed);
    }

    /// The disk has it, and more is waited for.
    pub(super) fn wait(&self) {
        self.idle.store(true, Ordering::Relaxed);
    }

    /// All of the body is here: from now on nobody takes the turn away. Fails if somebody has.
    pub(super) fn settle(&self) -> Result<(), NoTurn> {
        let mut phase = self.phase();
        if *phase == Phase::Displaced {
            return Err(NoTurn::Displaced);
        }
        *phase = Phase::Whole;
        Ok(())
    }

    /// Resolves once the turn has been taken away.
    pub(super) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }

    fn hardly_comes_since(&self, bytes: usize) -> bool {
        let came = self.bytes.load(Ordering::Relaxed).wrapping_sub(bytes);
        came < LEAST_BYTES && self.idle.load(Ordering::Relaxed)
    }

    fn is_whole(&self) -> bool {
        *self.phase() == Phase::Whole
    }

    /// Whether it gives way, now or before.
    fn displace(&self) -> bool {
        let mut phase = self.phase();
        if *phase == Phase::Whole {
            return false;
        }
        *phase = Phase::Displaced;
        self.displaced.cancel();
        true
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether raft would take a snapshot that `from` sends in `term`.
///
/// A sender that is no member known here is not refused for that, as it is not by etcd: its entry may be among those that
/// this member lacks, and if all members it knows were replaced meanwhile, only a stranger can bring it up to date. The
/// term decides: raft passes over what is of an older one, and a term has one leader, so that nobody but the one this
/// member follows can have a snapshot of its term.
pub(super) fn check(from: MemberId, term: Term, standing: Standing) -> Result<(), NoTurn> {
    if term < standing.term {
        return Err(NoTurn::OldTerm { term, current: standing.term });
    }
    match standing.leader {
        Some(leader) if term == standing.term && leader != from => Err(NoTurn::NotLeading { from, term, leader }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Role;

    const ONE: MemberId = MemberId(1);
    const TWO: MemberId = MemberId(2);

    fn following(leader: Option<MemberId>, term: u64) -> Standing {
        Standing { term: Term(term), role: Role::Follower, leader }
    }

    /// One byte, and then another one, as long as it has its turn.
    async fn drip(turn: Turn) {
        let claim = turn.claim();
        let dripping = async {
            loop {
                claim.came(1);
                claim.wait();
                sleep(LOOK_EVERY / 4).await;
            }
        };
        tokio::select! {
            () = dripping => {}
            () = claim.displaced() => assert_eq!(claim.settle(), Err(NoTurn::Displaced)),
        }
    }

    #[tokio::test]
    async fn a_snapshot_that_hardly_comes_gives_way_to_those_who_wait() {
        let (turns, standing) = (Turns::new(), || following(Some(ONE), 2));
        let first = turns.take(ONE, Term(2), standing).await.unwrap();
        let others = async {
            let next = async || drip(turns.take(ONE, Term(2), standing).await.unwrap()).await;
            let last = async { turns.take(ONE, Term(2), standing).await.unwrap() };
            tokio::join!(next(), last).1
        };
        let ((), last) = tokio::join!(drip(first), others);
        assert_eq!(last.claim().settle(), Ok(()));
    }

    #[tokio::test]
    async fn a_snapshot_that_comes_or_waits_for_the_disk_keeps_its_turn() {
        let (turns, standing) = (Turns::new(), || following(Some(ONE), 2));
        for (bytes, idle) in [(LEAST_BYTES, true), (1, false)] {
            let first = turns.take(ONE, Term(2), standing).await.unwrap();
            let coming = async {
                sleep(LOOK_EVERY / 2).await;
                first.claim().came(bytes);
                if idle {
                    first.claim().wait();
                }
                sleep(LOOK_EVERY).await;
                first.claim().settle().unwrap();
            };
            let (second, ()) = tokio::join!(turns.take(ONE, Term(2), standing), coming);
            assert_eq!(second.unwrap_err(), NoTurn::Taken);
        }
    }

    #[tokio::test]
    async fn a_new_leader_does_not_wait_for_what_raft_would_pass_over() {
        let turns = Turns::new();
        let first = turns.take(ONE, Term(2), || following(Some(ONE), 2)).await.unwrap();
        let begun = tokio::time::Instant::now();
        let second = turns.take(TWO, Term(3), || following(Some(TWO), 3));
        let (second, ()) = tokio::join!(second, drip(first));
        assert!(begun.elapsed() < LOOK_EVERY);
        second.unwrap().claim().settle().unwrap();
    }

    #[tokio::test]
    async fn a_whole_snapshot_keeps_its_turn() {
        let turns = Turns::new();
        let first = turns.take(ONE, Term(2), || following(Some(ONE), 2)).await.unwrap();
        first.claim().settle().unwrap();
        for (from, term) in [(ONE, 2), (TWO, 3)] {
            let taken = turns.take(from, Term(term), || following(Some(from), term)).await;
            assert_eq!(taken.unwrap_err(), NoTurn::Taken);
        }
        drop(first);
        turns.take(TWO, Term(3), || following(Some(TWO), 3)).await.unwrap();
    }

    #[test]
    fn the_term_decides_who_may_send() {
        let old = NoTurn::OldTerm { term: Term(4), current: Term(5) };
        assert_eq!(check(ONE, Term(4), following(Some(ONE), 5)), Err(old));
        assert_eq!(check(ONE, Term(5), following(Some(ONE), 5)), Ok(()));
        assert_eq!(check(TWO, Term(5), following(None, 5)), Ok(()), "who leads is not known here yet");
        let other = NoTurn::NotLeading { from: TWO, term: Term(5), leader: ONE };
        assert_eq!(check(TWO, Term(5), following(Some(ONE), 5)), Err(other));
        assert_eq!(check(TWO, Term(6), following(Some(ONE), 5)), Ok(()), "a leader nobody here has heard of");
    }
}
