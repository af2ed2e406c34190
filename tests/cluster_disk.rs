//! The disk under a member stands still while everything else works: no sync returns for seconds. On the leader that costs
//! one handover, on a follower nothing.
//!
//! The disk is a file system in a file of another file system, which is frozen; writes then go into memory, as they do on
//! a real disk, and syncs wait. `make test` runs a few short stalls; `make cluster` runs `ROUNDS` of 1 to 30 seconds.

mod support;

use std::{thread::sleep, time::Duration};

use support::{
    deployment::Deployment,
    faults::{Fault, campaign},
    hosts::Disk,
    now,
    random::Random,
    setting,
};

/// Room for all that a member keeps of its log.
const DISK_MEGABYTES: u32 = 1_500;
const STALL_SECONDS_MAX: u64 = 4;

struct SlowDisk {
    random: Random,
    seconds_max: u64,
}

impl Fault for SlowDisk {
    fn name(&self) -> &'static str {
        "disk stall"
    }

    fn strike(&mut self, cluster: &mut Deployment, member: usize, resumed: &mut dyn FnMut()) {
        let lasts = Duration::from_millis(1_000 + self.random.below(self.seconds_max.saturating_sub(1) * 1_000 + 1));
        let stall = cluster.hosts.host(member).stall_disk();
        let began = now();
        // Who waits for the disk to move waits for its whole stall: the disk has to move meanwhile.
        std::thread::scope(|scope| {
            scope.spawn(move || {
                sleep(lasts.saturating_sub(began.elapsed()));
                drop(stall);
            });
            resumed();
        });
    }

    fn answers_clients(&self) -> bool {
        true
    }

    fn disk(&self) -> Disk {
        Disk::Stallable(DISK_MEGABYTES)
    }
}

#[test]
fn a_stalled_disk_costs_one_handover() {
    let seconds_max = setting("STALL_SECONDS", STALL_SECONDS_MAX);
    campaign(&mut SlowDisk { random: Random::new(setting("CLUSTER_SEED", 1)), seconds_max }, 4);
}
