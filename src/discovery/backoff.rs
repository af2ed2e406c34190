//! How long to wait before a service that could not be reached is asked again: etcd's steps. They begin anew with every
//! question that was answered.

use std::time::Duration;

/// Steps after which the pause does not grow any more.
const STEPS_MAX: u32 = 8;

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure: 2, 4, 8 … 256 s, and 256 s from then on.
    pub(super) fn next(&mut self) -> Duration {
        self.failures = (self.failures + 1).min(STEPS_MAX);
        Duration::from_secs(1 << self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..10).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
    }
}
