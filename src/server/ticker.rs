//! When the raft thread ticks, and how a sleep shows.

use std::time::Duration;

/// A member that slept for longer than this (a stopped process, a suspended machine) goes on from now instead of
/// ticking through the time it missed, which would only start elections, and doubts that it still leads (etcd's limit).
const TICKS_CAUGHT_UP_MAX: u32 = 3;

/// Counts ticks. Times are those of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Ticker {
    tick: Duration,
    next: Duration,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// So many ticks.
    pub ticks: u32,
    /// The thread slept for too long to make up for all of it: it may have been deposed meanwhile.
    pub slept: bool,
}

impl Ticker {
    /// The first tick comes one `tick` after `now`.
    pub fn new(tick: Duration, now: Duration) -> Self {
        Self { tick, next: now + tick }
    }

    /// How long there is nothing to do.
    pub fn wait(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now)
    }

    /// The ticks that are due, once.
    pub fn due(&mut self, now: Duration) -> Due {
        let slept = now > self.next + self.tick * TICKS_CAUGHT_UP_MAX;
        if slept {
            self.next = now;
        }
        let mut ticks = 0;
        while now >= self.next {
            ticks += 1;
            self.next += self.tick;
        }
        Due { ticks, slept }
    }
}

/// Whether a raft thread that was last seen at work `silence` ago sleeps, and may not know yet that it was deposed.
pub fn is_asleep(silence: Duration, tick: Duration) -> bool {
    silence > tick * TICKS_CAUGHT_UP_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn short_delays_are_made_up_for() {
        let mut ticker = Ticker::new(TICK, Duration::ZERO);
        assert_eq!(ticker.due(TICK / 2), Due { ticks: 0, slept: false });
        assert_eq!(ticker.wait(TICK / 2), TICK / 2);
        assert_eq!(ticker.due(TICK), Due { ticks: 1, slept: false });
        assert_eq!(ticker.due(5 * TICK), Due { ticks: 4, slept: false });
        assert_eq!(ticker.wait(5 * TICK), TICK);
    }

    #[test]
    fn sleep_is_one_tick_and_a_doubt() {
        let mut ticker = Ticker::new(TICK, Duration::ZERO);
        let late = 4 * TICK + Duration::from_millis(1);
        assert_eq!(ticker.due(late), Due { ticks: 1, slept: true });
        assert_eq!(ticker.wait(late), TICK);
        assert!(is_asleep(late, TICK) && !is_asleep(3 * TICK, TICK));
    }
}
