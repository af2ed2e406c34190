//! A queue together with what works it off.
//!
//! A desk has a thread of its own, which sleeps until orders come. To wake it costs two switches of context, many times
//! what a small order costs. So a passer-by who finds nobody at work may carry out everything that waits: it holds the
//! lock of the work while it does, and the owner takes the same lock.
//!
//! Invariants: orders leave the queue only under the lock of the work, so that they are carried out in their order,
//! whoever does it; an order that is queued is carried out by the one who queued it, or the owner is woken, or an
//! announced visitor comes.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, TryLockError},
    time::Duration,
};

use super::inbox::{Inbox, Refused, Taken};

/// What can be done at a desk.
pub(super) trait Work: Send {
    /// What others want done.
    type Order: Send;
    /// What the one who did it has to know.
    type Outcome;

    /// Carries out `orders`, in their order, and empties the list. Nothing in here may wait for the thread of another
    /// desk or, at the raft desk, for a disk.
    fn work(&mut self, orders: &mut Vec<Self::Order>) -> Self::Outcome;
}

/// A queue and its work.
pub(super) struct Desk<W: Work> {
    inbox: Inbox<W::Order>,
    seat: Mutex<Option<Seated<W>>>,
}

struct Seated<W: Work> {
    work: W,
    /// Kept for its memory.
    orders: Vec<W::Order>,
}

impl<W: Work> Desk<W> {
    /// A desk for at most `capacity` orders, nobody's yet.
    pub(super) fn new(capacity: usize) -> Self {
        Self { inbox: Inbox::new(capacity), seat: Mutex::new(None) }
    }

    /// Gives the desk its work. Orders wait until then.
    pub(super) fn take_up(&self, work: W) {
        *self.lock() = Some(Seated { work, orders: Vec::new() });
    }

    /// Ends the work: whatever is queued from now on is not carried out.
    pub(super) fn give_up(&self) {
        let ended = self.lock().take();
        drop(ended);
    }

    /// Queues `order` and wakes the owner.
    ///
    /// # Errors
    /// As [`Inbox::push`].
    pub(super) fn push(&self, order: W::Order) -> Result<(), Refused<W::Order>> {
        self.inbox.push(order)
    }

    /// Queues `order` for whoever comes next.
    ///
    /// # Errors
    /// As [`Inbox::push`].
    pub(super) fn push_quietly(&self, order: W::Order) -> Result<(), Refused<W::Order>> {
        self.inbox.push_quietly(order)
    }

    /// Queues `order`, and carries out what waits if nobody is at work: the outcome then, nothing if the owner does it.
    ///
    /// # Errors
    /// As [`Inbox::push`].
    pub(super) fn bring(&self, order: W::Order) -> Result<Option<W::Outcome>, Refused<W::Order>> {
        self.inbox.push_quietly(order)?;
        Ok(self.carry_out_or_wake())
    }

    /// As [`Desk::bring`], but leaves the order to the visitor if one is announced.
    ///
    /// # Errors
    /// As [`Inbox::push`].
    pub(super) fn bring_or_leave(&self, order: W::Order) -> Result<Option<W::Outcome>, Refused<W::Order>> {
        if self.inbox.push_for_visitor(order)? { Ok(None) } else { Ok(self.carry_out_or_wake()) }
    }

    /// Announces the caller's [`Desk::visit`].
    pub(super) fn announce(&self) {
        self.inbox.announce();
    }

    /// Comes as announced, with `order` or without.
    pub(super) fn visit(&self, order: Option<W::Order>) -> Option<W::Outcome> {
        // A desk that takes no more orders wants none.
        let closed = order.is_some_and(|order| self.inbox.push_quietly(order).is_err());
        self.inbox.arrive();
        if closed { None } else { self.carry_out_if_any() }
    }

    /// Carries out what waits if there is something and nobody is at work. Wakes the owner if somebody is: who works
    /// may have emptied the queue before the last order came.
    pub(super) fn carry_out_if_any(&self) -> Option<W::Outcome> {
        if self.inbox.is_empty() { None } else { self.carry_out_or_wake() }
    }

    fn carry_out_or_wake(&self) -> Option<W::Outcome> {
        match self.seat.try_lock() {
            Ok(mut seat) => self.carry_out(&mut seat),
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => {
                self.wake();
                None
            }
        }
    }

    fn carry_out(&self, seat: &mut Option<Seated<W>>) -> Option<W::Outcome> {
        let Seated { work, orders } = seat.as_mut()?;
        self.inbox.drain(orders);
        Some(work.work(orders))
    }

    /// Wakes the owner if something waits.
    pub(super) fn wake(&self) {
        self.inbox.wake_for_items();
    }

    /// Makes the owner come round although nothing waits.
    pub(super) fn nudge(&self) {
        self.inbox.nudge();
    }

    /// For the owner: waits for an order, up to `patience` (`None`: for ever).
    pub(super) fn wait(&self, patience: Option<Duration>) -> Taken {
        self.inbox.wait(patience)
    }

    /// For the owner: carries out what waits, then `also`. Nothing once the work has ended.
    ///
    /// # Panics
    /// If a passer-by panicked at work: a broken invariant must not end with its thread alone.
    pub(super) fn work<R>(&self, also: impl FnOnce(&mut W, W::Outcome) -> R) -> Option<R> {
        let mut seat = self.lock();
        let outcome = self.carry_out(&mut seat)?;
        seat.as_mut().map(|seated| also(&mut seated.work, outcome))
    }

    /// Refuses orders from now on; what is queued is still carried out.
    pub(super) fn close(&self) {
        self.inbox.close();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Seated<W>>> {
        self.seat.lock().unwrap_or_else(|_| panic!("somebody panicked at work"))
    }
}

impl<W: Work> fmt::Debug for Desk<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
        mpsc,
    };

    use super::*;

    #[derive(Default)]
    struct Ledger(Vec<u32>);

    impl Work for Ledger {
        type Order = u32;
        type Outcome = usize;

        fn work(&mut self, orders: &mut Vec<u32>) -> usize {
            let before = self.0.len();
            self.0.append(orders);
            self.0.len() - before
        }
    }

    fn desk() -> Desk<Ledger> {
        let desk = Desk::new(8);
        desk.take_up(Ledger::default());
        desk
    }

    fn done(desk: &Desk<Ledger>) -> Vec<u32> {
        desk.work(|ledger, _| ledger.0.clone()).unwrap()
    }

    #[test]
    fn who_brings_an_order_to_an_idle_desk_carries_out_everything_that_waits() {
        let desk = desk();
        desk.push_quietly(1).unwrap();
        assert_eq!(desk.bring(2), Ok(Some(2)));
        assert_eq!(done(&desk), [1, 2]);
    }

    #[test]
    fn order_brought_to_a_busy_desk_wakes_its_owner() {
        let desk = Arc::new(desk());
        let seat = desk.lock();
        let owner = Arc::clone(&desk);
        let owner = std::thread::spawn(move || {
            let woken = owner.wait(None);
            (woken, done(&owner))
        });
        assert_eq!(desk.bring(1), Ok(None));
        drop(seat);
        assert_eq!(owner.join().unwrap(), (Taken::Items, vec![1]));
    }

    #[test]
    fn orders_are_left_to_a_visitor_only_while_one_is_announced() {
        let desk = desk();
        desk.announce();
        assert_eq!(desk.bring_or_leave(1), Ok(None));
        assert_eq!(desk.visit(Some(2)), Some(2));
        assert_eq!(desk.bring_or_leave(3), Ok(Some(1)));
        assert_eq!(done(&desk), [1, 2, 3]);
    }

    #[test]
    fn visitor_who_finds_the_desk_busy_wakes_the_owner_for_what_was_left() {
        let desk = Arc::new(desk());
        desk.announce();
        desk.bring_or_leave(1).unwrap();
        let seat = desk.lock();
        let owner = Arc::clone(&desk);
        let owner = std::thread::spawn(move || owner.wait(None));
        assert_eq!(desk.visit(None), None);
        drop(seat);
        assert_eq!(owner.join().unwrap(), Taken::Items);
        assert_eq!(done(&desk), [1]);
    }

    #[test]
    fn nudged_owner_comes_round_once() {
        let desk = desk();
        desk.nudge();
        assert_eq!(desk.wait(None), Taken::TimedOut);
        assert_eq!(desk.wait(Some(Duration::ZERO)), Taken::TimedOut);
    }

    #[test]
    fn nothing_is_carried_out_once_the_work_has_ended() {
        let desk = desk();
        desk.give_up();
        assert_eq!(desk.bring(1), Ok(None));
        assert_eq!(desk.work(|_, _| ()), None);
    }

    /// In every round some customers and perhaps a visitor come at the same moment, and nobody after them: an order that
    /// is lost or forgotten is never answered.
    #[test]
    fn no_order_is_lost_or_waits_for_ever_whoever_comes_when() {
        let ways: [fn(&Desk<Clerk>, usize); 4] = [
            |desk, customer| {
                desk.bring(customer).unwrap();
            },
            |desk, customer| {
                desk.bring_or_leave(customer).unwrap();
            },
            |desk, customer| desk.push(customer).unwrap(),
            |desk, customer| {
                desk.push_quietly(customer).unwrap();
                desk.carry_out_if_any();
            },
        ];
        let (senders, receivers): (Vec<_>, Vec<_>) = ways.iter().map(|_| mpsc::sync_channel(1)).unzip();
        let desk = Desk::new(ways.len());
        desk.take_up(Clerk { answers: senders });
        let (start, lost) = (Barrier::new(ways.len() + 1), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let (desk, start, lost) = (&desk, &start, &lost);
            scope.spawn(move || while desk.wait(None) != Taken::Closed && desk.work(|_, ()| ()).is_some() {});
            for (customer, (bring, answers)) in ways.into_iter().zip(receivers).enumerate() {
                scope.spawn(move || {
                    // After a loss the rounds pass without orders, so that nobody waits at the start for ever.
                    each_round(start, lost, |round| {
                        if (round % 15 + 1) & (1 << customer) != 0 {
                            // Not quite at the same moment: somebody may just have been woken, or be about to leave.
                            (0..round * (customer + 1) % 97 * 8).for_each(|_| std::hint::spin_loop());
                            bring(desk, customer);
                            lost.fetch_or(answers.recv_timeout(Duration::from_secs(5)).is_err(), Ordering::AcqRel);
                        }
                    });
                    start.wait();
                });
            }
            each_round(start, lost, |round| {
                if round / 15 % 2 == 1 {
                    desk.announce();
                    std::thread::yield_now();
                    desk.visit(None);
                }
            });
            start.wait();
            desk.close();
        });
        assert!(!lost.into_inner(), "an order was not carried out");
        assert!(desk.inbox.is_empty());
    }

    fn each_round(start: &Barrier, lost: &AtomicBool, come: impl Fn(usize)) {
        for round in 0..6_000 {
            start.wait();
            if !lost.load(Ordering::Acquire) {
                come(round);
            }
        }
    }

    /// Tells every customer that the order is carried out.
    struct Clerk {
        answers: Vec<mpsc::SyncSender<()>>,
    }

    impl Work for Clerk {
        type Order = usize;
        type Outcome = ();

        fn work(&mut self, orders: &mut Vec<usize>) {
            for customer in orders.drain(..) {
                // Who has given up after a loss is gone.
                self.answers[customer].send(()).ok();
                // Others come while somebody is at work.
                std::thread::yield_now();
            }
        }
    }
}
