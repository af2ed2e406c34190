//! The NOSPACE alarm of this member: raised when its quota is exceeded, lifted when its reason is gone (`nospace-disarm`).
//!
//! Both go through the log as a client's would, so members of etcd apply them. Invariants: a member lifts no alarm but its own
//! NOSPACE, and only one that its quota may have raised; between an alarm and the next the state grows by a tenth of the quota.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Error;
use tokio::{
    select,
    time::{MissedTickBehavior, interval},
};

use crate::{
    apply::AlarmKind,
    clock::Clock as _,
    pb::etcdserverpb::{AlarmRequest, AlarmType, InternalRaftRequest, alarm_request::AlarmAction},
};

use super::{Handle, ServerError, duties};

/// The alarm stays until this share of the quota is free again: at its very edge, alarm and writes would take turns.
const LIFT_FREE_PERCENT: u64 = 10;
/// How often the size is looked at while the alarm is up.
const LOOK: Duration = Duration::from_secs(1);
/// Shortest time between two attempts to give back what the quota misses: readers of old states may keep it.
const RECLAIM_PAUSE: Duration = Duration::from_mins(1);

/// Whether this member's quota may be the reason for its alarm: nobody can tell that of one that was there at the start.
#[derive(Debug)]
pub(super) struct ByQuota(AtomicBool);

impl Default for ByQuota {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl ByQuota {
    fn set(&self, by_quota: bool) {
        self.0.store(by_quota, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Handle {
    /// Raises this member's NOSPACE alarm, once.
    pub(super) async fn raise_no_space(&self) -> Result<(), ServerError> {
        self.shared.alarm_by_quota.set(true);
        if self.has_no_space_alarm() {
            return Ok(());
        }
        tracing::warn!(quota = self.shared.tunables().quota_bytes, "alarm raised: the database space is exceeded");
        let raised = self.propose_no_space(AlarmAction::Activate).await;
        // Meanwhile somebody may have found the one before gone.
        self.shared.alarm_by_quota.set(true);
        raised
    }

    fn has_no_space_alarm(&self) -> bool {
        let raised = self.published().alarms.list(Some(AlarmKind::NoSpace));
        raised.iter().any(|alarm| alarm.member_id == self.member_id().0)
    }

    async fn propose_no_space(&self, action: AlarmAction) -> Result<(), ServerError> {
        let alarm =
            AlarmRequest { action: action.into(), member_id: self.member_id().0, alarm: AlarmType::Nospace.into() };
        self.propose(InternalRaftRequest { alarm: Some(alarm), ..Default::default() }).await.map(|_| ())
    }
}

/// Lifts this member's NOSPACE alarm when there is space again, and sees to it that what was removed becomes space.
///
/// # Errors
/// Never; what fails is tried again.
pub async fn lift_no_space(handle: Handle) -> Result<(), Error> {
    let shared = &handle.shared;
    // What is up before the log was carried out may be another one tomorrow.
    if !duties::until_current(&handle).await {
        return Ok(());
    }
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut relief, mut was_up) = (Relief::default(), true);
    loop {
        select! {
            _ = look.tick() => {}
            () = handle.stopped() => return Ok(()),
        }
        let is_up = handle.has_no_space_alarm();
        if was_up && !is_up {
            shared.alarm_by_quota.set(false);
            relief = Relief::default();
        }
        was_up = is_up;
        let tunables = shared.tunables();
        if !is_up || !tunables.lifts_no_space || !shared.alarm_by_quota.get() || shared.reclaims.is_busy() {
            continue;
        }
        let status = handle.status();
        let look = Look {
            disk_bytes: status.db_size,
            in_use_bytes: status.db_size_in_use,
            compacted: *shared.compacted.borrow(),
            quota: tunables.quota_bytes,
        };
        match relief.judge(shared.clock.monotonic(), look) {
            Step::Wait => {}
            Step::Reclaim => {
                shared.reclaims.ask();
            }
            Step::Lift => lift(&handle).await,
        }
    }
}

async fn lift(handle: &Handle) {
    let status = handle.status();
    match handle.propose_no_space(AlarmAction::Deactivate).await {
        Ok(()) => tracing::info!(
            db_size = status.db_size,
            quota = status.quota,
            "alarm lifted: the database is back under its quota"
        ),
        Err(why) => tracing::warn!(%why, "failed to lift the NOSPACE alarm; trying again"),
    }
}

/// What to do about the alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing: the space is needed.
    Wait,
    /// Have the files written anew.
    Reclaim,
    /// Take it back.
    Lift,
}

/// What the decision is made of.
#[derive(Clone, Copy, Debug)]
struct Look {
    disk_bytes: u64,
    /// An estimate, and no lower than what is true: it goes by rows, whose lengths differ, and knows nothing of those in memory.
    in_use_bytes: u64,
    /// The last revision at which a compaction finished.
    compacted: i64,
    quota: Option<u64>,
}

/// Decides when one alarm may go.
#[derive(Debug, Default)]
struct Relief {
    /// When files may be written anew.
    reclaim_from: Duration,
    /// The compaction that had finished when they were last.
    compacted: i64,
}

impl Relief {
    fn judge(&mut self, now: Duration, look: Look) -> Step {
        let Some(quota) = look.quota else { return Step::Lift };
        let low = quota - quota.div_ceil(100 / LIFT_FREE_PERCENT);
        if look.disk_bytes <= low {
            return Step::Lift;
        }
        let may_help = look.in_use_bytes <= low || look.compacted > self.compacted;
        if !may_help || now < self.reclaim_from {
            return Step::Wait;
        }
        (self.reclaim_from, self.compacted) = (now + RECLAIM_PAUSE, look.compacted);
        Step::Reclaim
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(disk_bytes: u64, in_use_bytes: u64, quota: Option<u64>) -> Look {
        Look { disk_bytes, in_use_bytes, compacted: 0, quota }
    }

    #[test]
    fn alarm_goes_when_a_tenth_of_the_quota_is_free() {
        let mut relief = Relief::default();
        let mut judge = |disk, quota| relief.judge(Duration::ZERO, look(disk, disk, quota));
        assert_eq!(judge(1_000, Some(1_000)), Step::Wait);
        assert_eq!(judge(901, Some(1_000)), Step::Wait, "at the edge they would take turns");
        assert_eq!(judge(900, Some(1_000)), Step::Lift);
        assert_eq!(judge(1_000, Some(2_000)), Step::Lift, "a raised quota");
        assert_eq!(judge(1_000, None), Step::Lift, "no quota");
        assert_eq!(judge(1, Some(1)), Step::Wait, "no space is ever under a quota of one");
    }

    #[test]
    fn what_is_not_in_use_is_given_back_and_not_all_the_time() {
        let mut relief = Relief::default();
        let now = Duration::from_secs(5);
        let mut judge = |now, in_use| relief.judge(now, look(1_000, in_use, Some(1_000)));
        assert_eq!(judge(now, 950), Step::Wait, "it would not help");
        assert_eq!(judge(now, 900), Step::Reclaim);
        assert_eq!(judge(now + RECLAIM_PAUSE / 2, 10), Step::Wait);
        assert_eq!(judge(now + RECLAIM_PAUSE, 10), Step::Reclaim);
    }

    #[test]
    fn each_compaction_may_have_freed_more_than_the_estimate_tells() {
        let mut relief = Relief::default();
        let mut judge = |seconds, compacted| {
            let look = Look { compacted, ..look(1_000, 1_000, Some(1_000)) };
            relief.judge(Duration::from_secs(seconds), look)
        };
        assert_eq!(judge(1, 7), Step::Reclaim);
        assert_eq!(judge(1_000, 7), Step::Wait, "that was done");
        assert_eq!(judge(1_000, 8), Step::Reclaim);
        assert_eq!(judge(1_001, 9), Step::Wait);
    }
}
