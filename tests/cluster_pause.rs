//! Members stand still under load, as a process does whose machine swaps or whose hypervisor moves it: the leader and its
//! followers in turn. When they wake up, nothing they say may contradict what happened meanwhile.
//!
//! `make test` runs a few short rounds; `make cluster` runs `ROUNDS` of `PAUSE_SECONDS`.

mod support;

use std::{thread::sleep, time::Duration};

use nix::sys::signal::Signal;
use support::{
    deployment::Deployment,
    faults::{Fault, campaign},
    setting,
};

/// Longer than the longest election, so that a paused leader has a successor when it wakes up.
const PAUSE_SECONDS: u64 = 3;

struct Pause;

impl Fault for Pause {
    fn name(&self) -> &'static str {
        "pause"
    }

    fn strike(&mut self, cluster: &mut Deployment, member: usize, resumed: &mut dyn FnMut()) {
        cluster.signal(member, Signal::SIGSTOP);
        resumed();
        sleep(Duration::from_secs(setting("PAUSE_SECONDS", PAUSE_SECONDS)));
        cluster.signal(member, Signal::SIGCONT);
    }
}

#[test]
fn a_paused_member_costs_one_election() {
    campaign(&mut Pause, 4);
}
