//! Lines between those who make them and the thread that writes them.
//!
//! They lie one behind the other in one buffer, which the thread takes whole: a lock is held for the copy of a line, and
//! nothing is allocated for each.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{QUEUE_BYTES_MAX, QUEUE_READS_BYTES_MAX, QUEUE_STRANGERS_BYTES_MAX, Weight};

/// What the buffers keep of their memory when they are empty.
const KEPT_BYTES: usize = 256 << 10;

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// The thread may go on: there is a line, or it is to end.
    filled: Condvar,
    /// The thread has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Lines,
    /// What strangers have of the text.
    strangers_bytes: usize,
    /// In the hands of the thread.
    taken: u64,
    reopen: bool,
    closed: bool,
    ended: bool,
}

/// Why a line was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Full,
    Closed,
}

/// Whole lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) text: String,
    pub(super) count: u64,
}

impl Queue {
    /// Adds a line, unless more would wait then than may of its weight.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn push(&self, line: &str, weight: Weight) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.closed {
            return Err(Refusal::Closed);
        }
        let all = state.lines.text.len() + line.len();
        let strangers = state.strangers_bytes + if weight == Weight::Stranger { line.len() } else { 0 };
        let has_room = match weight {
            Weight::Read => all <= QUEUE_READS_BYTES_MAX,
            Weight::Stranger => strangers <= QUEUE_STRANGERS_BYTES_MAX && all <= QUEUE_BYTES_MAX,
            Weight::Always => all <= QUEUE_BYTES_MAX,
        };
        if !has_room {
            return Err(Refusal::Full);
        }
        let was_empty = state.lines.text.is_empty();
        state.strangers_bytes = strangers;
        state.lines.text.push_str(line);
        state.lines.count += 1;
        drop(state);
        // A thread that is at work looks again by itself, and waking costs a system call.
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for lines and puts all of them into `lines`, whose memory is used again. `None` at the end; else whether the file
    /// is to be opened anew first.
    pub(super) fn take(&self, lines: &mut Lines) -> Option<bool> {
        lines.text.clear();
        lines.text.shrink_to(KEPT_BYTES);
        lines.count = 0;
        let waiting = |state: &mut State| state.lines.count == 0 && !state.closed;
        let mut state = self.filled.wait_while(self.state(), waiting).unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(lines, &mut state.lines);
        state.strangers_bytes = 0;
        state.taken = lines.count;
        (lines.count > 0).then(|| std::mem::take(&mut state.reopen))
    }

    pub(super) fn reopen(&self) {
        self.state().reopen = true;
    }

    /// Rests, until the end at most: `true` if that has come.
    pub(super) fn rest(&self, time: Duration) -> bool {
        let resting = |state: &mut State| !state.closed;
        let rested = self.filled.wait_timeout_while(self.state(), time, resting);
        rested.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// The thread ends.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.ended.notify_all();
    }

    /// Takes no more lines, and waits for the thread to end; so many lines are left if it does not.
    pub(super) fn close(&self, patience: Duration) -> Option<u64> {
        let mut state = self.state();
        state.closed = true;
        self.filled.notify_all();
        let running = |state: &mut State| !state.ended;
        state = self.ended.wait_timeout_while(state, patience, running).unwrap_or_else(PoisonError::into_inner).0;
        (!state.ended).then_some(state.lines.count + state.taken)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn lines_beyond_the_bound_are_refused_and_those_within_are_kept() {
        let queue = Queue::default();
        let half = format!("{}\n", "r".repeat(QUEUE_READS_BYTES_MAX / 2 - 1));
        assert_eq!(queue.push(&half, Weight::Read), Ok(()));
        assert_eq!(queue.push(&half, Weight::Read), Ok(()));
        assert_eq!(queue.push("\n", Weight::Read), Err(Refusal::Full));
        assert_eq!(queue.push("\n", Weight::Always), Ok(()), "a line of more weight has more room");
        let mut lines = Lines::default();
        assert_eq!(queue.take(&mut lines), Some(false));
        assert_eq!((lines.text.len(), lines.count), (QUEUE_READS_BYTES_MAX + 1, 3));
        assert_eq!(queue.push(&half, Weight::Read), Ok(()), "what was taken makes room");
    }

    #[test]
    fn strangers_push_out_nobody() {
        let queue = Queue::default();
        let line = format!("{}\n", "s".repeat(1_023));
        let fill = |weight| (0..1 << 20).take_while(|_| queue.push(&line, weight).is_ok()).count() * line.len();
        assert_eq!(fill(Weight::Stranger), QUEUE_STRANGERS_BYTES_MAX);
        assert_eq!(fill(Weight::Read), QUEUE_READS_BYTES_MAX - QUEUE_STRANGERS_BYTES_MAX, "readers have room left");
        assert_eq!(fill(Weight::Always), QUEUE_BYTES_MAX - QUEUE_READS_BYTES_MAX, "and who writes has as much as ever");
        queue.take(&mut Lines::default());
        assert_eq!(fill(Weight::Read), QUEUE_READS_BYTES_MAX);
        assert_eq!(fill(Weight::Stranger), QUEUE_STRANGERS_BYTES_MAX, "readers do not push out strangers");
        queue.take(&mut Lines::default());
        assert_eq!(fill(Weight::Always), QUEUE_BYTES_MAX);
        assert_eq!(queue.push(&line, Weight::Stranger), Err(Refusal::Full), "the bound of all is theirs, too");
    }

    #[test]
    fn the_end_comes_behind_the_last_line() {
        let queue = Arc::new(Queue::default());
        queue.push("1\n", Weight::Always).unwrap();
        queue.reopen();
        let thread = thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                let mut lines = Lines::default();
                assert_eq!(queue.take(&mut lines), Some(true));
                assert_eq!(queue.take(&mut lines), None);
                assert!(queue.rest(Duration::from_mins(1)), "nobody rests after the end");
                queue.end();
            }
        });
        assert_eq!(queue.close(Duration::from_secs(10)), None);
        assert_eq!(queue.push("2\n", Weight::Always), Err(Refusal::Closed));
        thread.join().unwrap();
    }

    #[test]
    fn a_thread_that_does_not_end_is_left_with_its_lines() {
        let queue = Queue::default();
        queue.push("1\n", Weight::Always).unwrap();
        queue.take(&mut Lines::default());
        queue.push("2\n", Weight::Always).unwrap();
        assert_eq!(queue.close(Duration::from_millis(1)), Some(2));
    }
}
