//! The queue in front of a thread: many senders, one receiver that takes everything waiting at once.
//!
//! Taking whole batches is what makes group commit natural: what arrives during an fsync is the next batch.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Why an item was not taken in. The caller gets it back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused<T> {
    /// The receiver lags; the capacity is used up.
    Full(T),
    /// The receiver is gone, or shutting down.
    Closed(T),
}

/// What ended a [`Inbox::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// At least one item was moved out.
    Items,
    /// Nothing arrived in time.
    TimedOut,
    /// Closed, and nothing is left.
    Closed,
}

/// A bounded queue. Senders never block: a full queue refuses, and the sender's own policy decides.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    queue: Mutex<Queue<T>>,
    arrived: Condvar,
    capacity: usize,
}

#[expect(clippy::struct_excessive_bools, reason = "each is true or false whatever the others are")]
#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<T>,
    closed: bool,
    /// Whether the receiver sleeps: a wake-up is a system call, and a busy receiver needs none.
    asleep: bool,
    /// Whether the receiver is to come round although nothing is queued.
    nudged: bool,
    /// Whether somebody is on the way who will take what is queued.
    visitor: bool,
}

impl<T> Queue<T> {
    fn is_idle(&self) -> bool {
        self.items.is_empty() && !self.closed && !self.nudged
    }
}

impl<T> Inbox<T> {
    /// A queue of at most `capacity` items.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            queue: Mutex::new(Queue {
                items: VecDeque::new(),
                closed: false,
                asleep: false,
                nudged: false,
                visitor: false,
            }),
            arrived: Condvar::new(),
            capacity,
        }
    }

    /// Queues `item` behind all others.
    ///
    /// # Errors
    /// Hands the item back when the queue is full or closed.
    pub(super) fn push(&self, item: T) -> Result<(), Refused<T>> {
        let queue = self.enqueue(item)?;
        self.wake(queue);
        Ok(())
    }

    /// As [`Inbox::push`], without waking the receiver: it finds the item when it comes round for another reason.
    ///
    /// # Errors
    /// As [`Inbox::push`].
    pub(super) fn push_quietly(&self, item: T) -> Result<(), Refused<T>> {
        self.enqueue(item).map(drop)
    }

    /// As [`Inbox::push_quietly`]; true if a visitor is announced who will take the item.
    ///
    /// # Errors
    /// As [`Inbox::push`].
    pub(super) fn push_for_visitor(&self, item: T) -> Result<bool, Refused<T>> {
        self.enqueue(item).map(|queue| queue.visitor)
    }

    /// Somebody will come and take what is queued.
    pub(super) fn announce(&self) {
        self.lock().visitor = true;
    }

    /// The visitor is here: what is queued from now on is not left to it.
    pub(super) fn arrive(&self) {
        self.lock().visitor = false;
    }

    /// Wakes the receiver if something is queued.
    pub(super) fn wake_for_items(&self) {
        let queue = self.lock();
        if !queue.items.is_empty() {
            self.wake(queue);
        }
    }

    /// Lets the receiver come round once although nothing is queued.
    pub(super) fn nudge(&self) {
        let mut queue = self.lock();
        queue.nudged = true;
        self.wake(queue);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue<T>>) {
        let asleep = std::mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            self.arrived.notify_one();
        }
    }

    fn enqueue(&self, item: T) -> Result<MutexGuard<'_, Queue<T>>, Refused<T>> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(Refused::Closed(item));
        }
        if queue.items.len() >= self.capacity {
            return Err(Refused::Full(item));
        }
        queue.items.push_back(item);
        Ok(queue)
    }

    /// Moves everything queued into `into`, waiting up to `patience` for the first item (`None`: for ever).
    pub(super) fn take(&self, into: &mut Vec<T>, patience: Option<Duration>) -> Taken {
        let mut queue = self.await_item(patience);
        let taken = outcome(&queue);
        into.extend(queue.items.drain(..));
        taken
    }

    /// Waits as [`Inbox::take`] does, and leaves what arrived where it is.
    pub(super) fn wait(&self, patience: Option<Duration>) -> Taken {
        outcome(&self.await_item(patience))
    }

    /// Moves everything queued into `into`.
    pub(super) fn drain(&self, into: &mut Vec<T>) {
        into.extend(self.lock().items.drain(..));
    }

    fn await_item(&self, patience: Option<Duration>) -> MutexGuard<'_, Queue<T>> {
        let mut queue = self.lock();
        if queue.is_idle() {
            queue = self.sleep(queue, patience);
            queue.asleep = false;
        }
        queue.nudged = false;
        queue
    }

    /// Refuses what comes from now on; what is queued is still taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    fn sleep<'a>(&self, queue: MutexGuard<'a, Queue<T>>, patience: Option<Duration>) -> MutexGuard<'a, Queue<T>> {
        // Who was woken for an item that somebody else took sleeps on, and has to be woken again.
        let idle = |queue: &mut Queue<T>| {
            queue.asleep = queue.is_idle();
            queue.asleep
        };
        match patience {
            None => self.arrived.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                self.arrived.wait_timeout_while(queue, patience, idle).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// The queue is whole after every statement, so a sender's panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outcome<T>(queue: &Queue<T>) -> Taken {
    match (queue.items.is_empty(), queue.closed) {
        (false, _) => Taken::Items,
        (true, true) => Taken::Closed,
        (true, false) => Taken::TimedOut,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn everything_waiting_is_taken_at_once_and_in_order() {
        let inbox = Inbox::new(8);
        (0..3).for_each(|item| inbox.push(item).unwrap());
        let mut taken = Vec::new();
        assert_eq!(inbox.take(&mut taken, None), Taken::Items);
        assert_eq!(taken, [0, 1, 2]);
        assert_eq!(inbox.take(&mut taken, Some(Duration::ZERO)), Taken::TimedOut);
    }

    #[test]
    fn full_queue_hands_the_item_back() {
        let inbox = Inbox::new(1);
        inbox.push(1).unwrap();
        assert_eq!(inbox.push(2), Err(Refused::Full(2)));
    }

    #[test]
    fn closing_refuses_new_items_and_drains_old_ones() {
        let inbox = Inbox::new(8);
        inbox.push(1).unwrap();
        inbox.close();
        assert_eq!(inbox.push(2), Err(Refused::Closed(2)));
        let mut taken = Vec::new();
        assert_eq!(inbox.take(&mut taken, None), Taken::Items);
        assert_eq!(inbox.take(&mut taken, None), Taken::Closed);
    }

    /// A receiver woken for an item that a passer-by had taken slept on as one that nobody has to wake: the next item
    /// waited for ever.
    #[test]
    fn receiver_woken_for_nothing_sleeps_as_one_to_be_woken() {
        let inbox = Arc::new(Inbox::new(8));
        let receiver = Arc::clone(&inbox);
        let receiver = std::thread::spawn(move || receiver.wait(None));
        let await_sleep = || {
            (0..5_000).any(|_| {
                std::thread::sleep(Duration::from_millis(1));
                inbox.lock().asleep
            })
        };
        assert!(await_sleep());
        inbox.wake(inbox.lock());
        assert!(await_sleep());
        inbox.push(7).unwrap();
        assert_eq!(receiver.join().unwrap(), Taken::Items);
    }

    #[test]
    fn sleeping_receiver_is_woken_by_an_item() {
        let inbox = Arc::new(Inbox::new(8));
        let sender = Arc::clone(&inbox);
        let receiver = std::thread::spawn(move || {
            let mut taken = Vec::new();
            inbox.take(&mut taken, None);
            taken
        });
        sender.push(7).unwrap();
        assert_eq!(receiver.join().unwrap(), [7]);
    }
}
