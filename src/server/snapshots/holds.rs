//! What the log keeps for members that are being brought up to date by a snapshot.
//!
//! A receiver needs every entry behind its snapshot. They stay while it is sent, and for a while after it has arrived,
//! but not for ever: a receiver that lets too many or too long ones pass by gets another snapshot.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::types::{LogIndex, MemberId};

/// How long entries stay after a snapshot has arrived, as in etcd: it is installed, and the receiver catches up.
const KEPT_AFTER_ARRIVAL: Duration = Duration::from_secs(30);
/// Entries that stay for one receiver.
const ENTRIES_MAX: u64 = 4_000_000;
/// Their bytes: sixteen files of the log.
const BYTES_MAX: u64 = 1 << 30;

/// How far the log has come.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::server) struct Reach {
    /// The last applied entry.
    pub(in crate::server) applied: LogIndex,
    /// Bytes of entries applied since the start.
    pub(in crate::server) bytes: u64,
}

/// The receivers.
#[derive(Debug, Default)]
pub(in crate::server) struct Holds {
    receivers: Mutex<BTreeMap<MemberId, Hold>>,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    from: Reach,
    /// Nothing while the snapshot is being sent.
    until: Option<Duration>,
}

impl Holds {
    /// From now on `receiver` needs everything behind `from`.
    pub(super) fn begin(&self, receiver: MemberId, from: Reach) {
        self.lock().insert(receiver, Hold { from, until: None });
    }

    /// Its snapshot has arrived.
    pub(super) fn arrived(&self, receiver: MemberId, now: Duration) {
        if let Some(hold) = self.lock().get_mut(&receiver) {
            hold.until = Some(now + KEPT_AFTER_ARRIVAL);
        }
    }

    /// Its snapshot will not arrive.
    pub(super) fn end(&self, receiver: MemberId) {
        self.lock().remove(&receiver);
    }

    /// Up to where entries may go, as far as receivers are concerned; nothing if there are none.
    pub(in crate::server) fn limit(&self, now: Duration, reach: Reach) -> Option<LogIndex> {
        let mut receivers = self.lock();
        receivers.retain(|_, hold| hold.lasts(now, reach));
        receivers.values().map(|hold| hold.from.applied).min()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MemberId, Hold>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    fn lasts(&self, now: Duration, reach: Reach) -> bool {
        self.until.is_none_or(|until| now < until)
            && reach.applied.0.saturating_sub(self.from.applied.0) <= ENTRIES_MAX
            && reach.bytes.saturating_sub(self.from.bytes) <= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reach(applied: u64, bytes: u64) -> Reach {
        Reach { applied: LogIndex(applied), bytes }
    }

    #[test]
    fn entries_stay_until_the_slowest_receiver_had_its_time() {
        let holds = Holds::default();
        assert_eq!(holds.limit(SECOND, reach(100, 0)), None);
        holds.begin(MemberId(1), reach(50, 0));
        holds.begin(MemberId(2), reach(70, 0));
        assert_eq!(holds.limit(1_000 * SECOND, reach(100, 0)), Some(LogIndex(50)));
        holds.arrived(MemberId(1), 10 * SECOND);
        assert_eq!(holds.limit(39 * SECOND, reach(100, 0)), Some(LogIndex(50)));
        assert_eq!(holds.limit(40 * SECOND, reach(100, 0)), Some(LogIndex(70)));
        holds.end(MemberId(2));
        assert_eq!(holds.limit(40 * SECOND, reach(100, 0)), None);
    }

    #[test]
    fn too_many_and_too_long_entries_go() {
        for beyond in [reach(50 + ENTRIES_MAX + 1, 0), reach(51, BYTES_MAX + 8)] {
            let holds = Holds::default();
            holds.begin(MemberId(1), reach(50, 7));
            assert_eq!(holds.limit(SECOND, reach(50 + ENTRIES_MAX, 7 + BYTES_MAX)), Some(LogIndex(50)));
            assert_eq!(holds.limit(SECOND, beyond), None);
        }
    }
}
