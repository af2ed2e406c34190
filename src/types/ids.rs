//! Identifiers and positions.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Position in the raft log, from 1. Zero stands before the first entry (raft paper, §5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

/// A raft term, from 1. Zero means that no election was ever held (raft paper, §5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// A member of the cluster. Never zero for a real member; printed in hexadecimal, as etcd does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// The cluster itself. Printed in hexadecimal, as etcd does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

/// A lease. Zero means "no lease"; negative identifiers are legal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// Ties an entry of the log to the caller that waits for it; unique across members and restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Milliseconds of a member's monotonic clock since it started. The only time the synchronous floors know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(pub u64);

/// One change of the key space: `main` counts changing requests, `sub` the changes inside one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The store's revision, from 1 (an empty store) upwards.
    pub main: i64,
    /// Position inside the request, from 0.
    pub sub: i64,
}

impl From<Duration> for Ticks {
    /// Whole milliseconds of a monotonic clock.
    fn from(time: Duration) -> Self {
        Self(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}

macro_rules! shown {
    ($($name:ident: $format:literal),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    )*};
}
shown!(LogIndex: "{}", Term: "{}", MemberId: "{:x}", ClusterId: "{:x}", LeaseId: "{:x}", RequestId: "{}", Ticks: "{} ms");

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.main, self.sub)
    }
}

/// Generates etcd's request identifiers: the low 16 bits of the member ID, 40 bits that tell one start of it from another,
/// then a counter (etcd `pkg/idutil`). Lock free; the counter overflows into the bits before it, as etcd's does.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    suffix: AtomicU64,
}

impl RequestIds {
    /// `start` must differ between two starts of one member. etcd takes the time, which repeats itself when a clock is set
    /// back: an entry of an earlier life that is applied late would then be taken for one of this life. Chance does not
    /// depend on the clock, and 2^40 starts are enough for the few whose entries can still be on their way.
    pub fn new(member: MemberId, start: u64) -> Self {
        let suffix = (start & ((1 << 40) - 1)) << 8;
        Self { prefix: member.0 << 48, suffix: AtomicU64::new(suffix) }
    }

    /// The next identifier, never zero.
    pub fn next(&self) -> RequestId {
        let suffix = self.suffix.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        RequestId(self.prefix | (suffix & ((1 << 48) - 1)))
    }

    /// A lease identifier: positive, from the same sequence.
    pub fn next_lease(&self) -> LeaseId {
        LeaseId(i64::try_from(self.next().0 & (u64::MAX >> 1)).unwrap_or(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_carry_member_start_and_count() {
        let ids = RequestIds::new(MemberId(0x1234_5678_9abc_def0), 0x0100_0000_0001);
        assert_eq!(ids.next(), RequestId(0xdef0_0000_0000_0101));
        assert_eq!(ids.next(), RequestId(0xdef0_0000_0000_0102));
        assert_eq!(ids.next_lease(), LeaseId(0x5ef0_0000_0000_0103));
    }
}
