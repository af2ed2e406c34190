//! Tells one member that was started again from two processes that use one member's identifier at a time.
//!
//! Every process draws a number and names it when it opens a stream. After a restart the old number is never heard again.
//! Where numbers come back in turns, both processes run: the data directory was copied, or is used twice.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// The number of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process(pub(super) u64);

/// Most processes remembered of one member.
const RECENT_MAX: usize = 4;
/// A request that was under way when its process ended can arrive late, and make one return or two. So many are none.
const RETURNS_MIN: u32 = 4;
/// Returns further apart than this do not belong together.
const RETURNS_WITHIN: Duration = Duration::from_secs(30);

/// The processes that have lately opened streams as one member, the last of them at the end.
#[derive(Debug, Default)]
pub(super) struct Processes {
    recent: VecDeque<Process>,
    returns: u32,
    last_return: Option<Instant>,
}

impl Processes {
    /// `process` opens a stream. Returns whether another one does so, too, by turns.
    pub(super) fn note(&mut self, process: Process, now: Instant) -> bool {
        if self.last_return.is_some_and(|last| now.duration_since(last) > RETURNS_WITHIN) {
            (self.returns, self.last_return) = (0, None);
        }
        if self.recent.back() != Some(&process) {
            let known = self.recent.iter().position(|known| *known == process);
            if let Some(at) = known {
                self.recent.remove(at);
                self.returns = self.returns.saturating_add(1);
                self.last_return = Some(now);
            }
            self.recent.push_back(process);
            if self.recent.len() > RECENT_MAX {
                self.recent.pop_front();
            }
        }
        self.returns >= RETURNS_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_restarts_is_never_two() {
        let (mut processes, now) = (Processes::default(), Instant::now());
        assert!((0..100).flat_map(|at| [Process(at); 10]).all(|process| !processes.note(process, now)));
        assert_eq!(processes.recent.len(), RECENT_MAX);
    }

    #[test]
    fn a_late_request_of_the_process_before_makes_not_two() {
        let (mut processes, now) = (Processes::default(), Instant::now());
        let turns = [1, 1, 2, 1, 2, 2].map(|at| processes.note(Process(at), now));
        assert_eq!(turns, [false; 6]);
    }

    #[test]
    fn processes_that_take_turns_are_two_while_they_do() {
        for count in 2..=u64::try_from(RECENT_MAX).unwrap() {
            let (mut processes, now) = (Processes::default(), Instant::now());
            let last = (0..20).map(|at| processes.note(Process(at % count), now)).last();
            assert_eq!(last, Some(true), "{count}");
            assert!(!processes.note(Process(19 % count), now + RETURNS_WITHIN + Duration::from_secs(1)));
        }
    }
}
