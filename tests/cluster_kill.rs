//! Members are killed under load, the leader and its followers in turn, and come back on their directories.
//!
//! `make test` runs a few rounds; `make cluster` runs `ROUNDS` on clusters of `CLUSTER_SIZES` and compares with etcd.

mod support;

use support::{
    deployment::Deployment,
    faults::{Fault, campaign},
};

struct Kill;

impl Fault for Kill {
    fn name(&self) -> &'static str {
        "kill -9"
    }

    fn strike(&mut self, cluster: &mut Deployment, member: usize, resumed: &mut dyn FnMut()) {
        cluster.kill(member);
        resumed();
        cluster.restart(member);
    }
}

#[test]
fn a_killed_member_costs_one_election() {
    campaign(&mut Kill, 4);
}
