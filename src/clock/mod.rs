//! Time and chance, handed in as values so that tests and the simulator own them.
//!
//! The only places of the program that ask the operating system for the time or for random bytes are in this file.
//! Invariants: [`Clock::monotonic`] never goes back; [`Clock::wall`] may jump either way and orders nothing.

use std::{
    fmt,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use nix::time::{ClockId, clock_gettime};

/// What time it is, by two clocks.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Time since the clock was made. Never goes back.
    fn monotonic(&self) -> Duration;

    /// Time since the Unix epoch, for what is shown or stored; zero if the machine's clock stands before it.
    fn wall(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time is zero now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn wall(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug, Default)]
pub struct ManualClock {
    monotonic_ms: AtomicU64,
    wall_ms: AtomicU64,
}

impl ManualClock {
    /// A clock at monotonic zero that shows `wall`, cut to milliseconds.
    pub fn at(wall: Duration) -> Self {
        let clock = Self::default();
        clock.set_wall(wall);
        clock
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let by = millis(by);
        self.monotonic_ms.fetch_add(by, Ordering::SeqCst);
        self.wall_ms.fetch_add(by, Ordering::SeqCst);
    }

    /// Sets the wall clock alone, as an administrator or NTP would.
    pub fn set_wall(&self, wall: Duration) {
        self.wall_ms.store(millis(wall), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Duration {
        Duration::from_millis(self.wall_ms.load(Ordering::SeqCst))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The clock of this process, started at its first use.
pub fn system() -> &'static SystemClock {
    static SYSTEM: OnceLock<SystemClock> = OnceLock::new();
    SYSTEM.get_or_init(SystemClock::new)
}

/// The time of the system's monotonic clock, which a service manager compares with its own.
pub fn since_boot() -> Duration {
    // The clock is there on every system that this program runs on; zero is before everything.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// Measures how long something took, for metrics and log lines; never for decisions of the synchronous floors.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    begun: Duration,
}

impl Stopwatch {
    /// Starts measuring.
    pub fn start() -> Self {
        Self { begun: system().monotonic() }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        system().monotonic().saturating_sub(self.begun)
    }

    /// Time from the start of this one to that of a later one.
    pub fn until(&self, later: &Self) -> Duration {
        later.begun.saturating_sub(self.begun)
    }
}

/// Says when the log may be told again of what others can cause at will: whoever can connect could fill a disk.
#[derive(Debug)]
pub struct Sparingly {
    interval: Duration,
    told: Mutex<Told>,
}

/// Since when the log was told last, and of how many it was not.
#[derive(Debug)]
struct Told {
    last: Option<Stopwatch>,
    suppressed: u64,
}

impl Sparingly {
    /// One record in `interval` at most.
    pub const fn every(interval: Duration) -> Self {
        Self { interval, told: Mutex::new(Told { last: None, suppressed: 0 }) }
    }

    /// How many were not told since the last time; `None` if it is not time for another record.
    pub fn turn(&self) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| last.elapsed() < self.interval) {
            told.suppressed += 1;
            return None;
        }
        told.last = Some(Stopwatch::start());
        Some(std::mem::take(&mut told.suppressed))
    }
}

/// A source of chance.
pub trait Chance: fmt::Debug + Send {
    /// The next 64 random bits.
    fn next_u64(&mut self) -> u64;

    /// A number below `bound`, 0 for a bound of 0. The bias is below `bound` in 2^64.
    fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

/// The operating system's randomness, fit for secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    /// # Panics
    /// If the operating system has no randomness to give: no secret made after that would be one.
    fn next_u64(&mut self) -> u64 {
        getrandom::u64().expect("the operating system gives random bytes")
    }
}

/// A repeatable sequence (`SplitMix64`): one seed, one sequence. Not fit for secrets.
#[derive(Clone, Debug)]
pub struct SeededChance {
    state: u64,
}

impl SeededChance {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }
}

impl Chance for SeededChance {
    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(Duration::from_secs(1_000));
        assert_eq!((clock.monotonic(), clock.wall()), (Duration::ZERO, Duration::from_secs(1_000)));
        clock.advance(Duration::from_millis(1_500));
        assert_eq!((clock.monotonic(), clock.wall()), (Duration::from_millis(1_500), Duration::from_millis(1_001_500)));
        clock.set_wall(Duration::from_secs(5));
        assert_eq!((clock.monotonic(), clock.wall()), (Duration::from_millis(1_500), Duration::from_secs(5)));
    }

    #[test]
    fn what_is_told_sparingly_says_how_much_was_not() {
        let hourly = Sparingly::every(Duration::from_hours(1));
        assert_eq!([hourly.turn(), hourly.turn(), hourly.turn()], [Some(0), None, None]);
        let always = Sparingly { interval: Duration::ZERO, ..hourly };
        assert_eq!([always.turn(), always.turn()], [Some(2), Some(0)]);
    }

    #[test]
    fn system_clock_never_goes_back() {
        let before = system().monotonic();
        assert!(system().monotonic() >= before);
        assert!(system().wall() > Duration::from_secs(1_600_000_000));
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let draw = |seed| {
            let mut chance = SeededChance::new(seed);
            [chance.next_u64(), chance.next_u64(), chance.below(10)]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((0..100).map(|seed| SeededChance::new(seed).below(3)).all(|drawn| drawn < 3));
        assert_eq!(SeededChance::new(1).below(0), 0);
    }
}
