//! Leases: their stored rows and their countdowns.
//!
//! Whether a lease exists is replicated: a row, granted and revoked through the log. How long it still lives is not:
//! the leader alone keeps countdowns, in a [`Lessor`] that hears of every applied grant, revocation and checkpoint and
//! is told the time. Expiry is therefore late, never early, relative to the last acknowledged renewal.
//!
//! Left to others: proposing revocations and checkpoints, forwarding to the leader (`server`), writing rows (`apply`),
//! attached keys (`mvcc`).
//!
//! Invariants:
//! - a member that does not lead reports no lease as expired and renews none;
//! - a new leader gives every lease its full or checkpointed time again, plus the extension it is told;
//! - an expired lease is never renewed, even before its revocation is applied;
//! - a scan costs what it returns, not the number of leases.

mod lessor;
mod rows;

pub use lessor::{
    CHECKPOINT_INTERVAL_MS, CHECKPOINTS_MAX, EXPIRED_PER_SCAN_MAX, EXPIRIES_PER_SECOND_MAX, Lessor, LessorOptions,
    Remaining, RenewError, Renewed, SCAN_INTERVAL_MS, SPREAD_FROM_LEASES,
};
pub use rows::{LeaseRow, LeaseRowError};

/// The shortest time to live a lease can get, in whole seconds: one and a half election timeouts, rounded up, so that
/// a lease survives a change of leader. It enters the stored row: equal election timeouts on all members give equal rows.
pub fn ttl_min_seconds(election_ms: u64) -> i64 {
    let ms = election_ms.saturating_mul(3) / 2;
    i64::try_from(ms.div_ceil(1000)).unwrap_or(i64::MAX)
}

/// [`ttl_min_seconds`] of etcd's election timeout.
pub const TTL_MIN_SECONDS_DEFAULT: i64 = 2;

#[cfg(test)]
mod tests {
    use super::{TTL_MIN_SECONDS_DEFAULT, ttl_min_seconds};

    #[test]
    fn shortest_ttl_is_one_and_a_half_election_timeouts_rounded_up() {
        assert_eq!([1000, 1333, 1334, 5000, 100].map(ttl_min_seconds), [2, 2, 3, 8, 1]);
        assert_eq!(ttl_min_seconds(1000), TTL_MIN_SECONDS_DEFAULT);
    }
}
