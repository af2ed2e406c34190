//! Members lose the others, or hear them without being heard, or the other way round, or lose every fifth packet, while
//! their clients still reach them: the leader and its followers in turn.
//!
//! `make test` runs a few rounds; `make cluster` runs `ROUNDS`.

mod support;

use std::{thread::sleep, time::Duration};

use support::{
    deployment::Deployment,
    faults::{Fault, campaign},
};

/// How long the network stays broken after the majority serves again.
const HOLD: Duration = Duration::from_secs(2);
/// A bad network, on which a cluster still has to work.
const LOST_PERCENT: u8 = 20;
const DELAY: Duration = Duration::from_millis(50);

/// How a member is cut off.
#[derive(Clone, Copy)]
enum Cut {
    Both,
    /// Nobody hears it.
    Mute,
    /// It hears nobody.
    Deaf,
    /// Every fifth packet is lost on its way in, and what it sends is late where the kernel can delay packets.
    Lossy,
}

impl Fault for Cut {
    fn name(&self) -> &'static str {
        match self {
            Self::Both => "isolation",
            Self::Mute => "muteness",
            Self::Deaf => "deafness",
            Self::Lossy => "lossy network",
        }
    }

    fn strike(&mut self, cluster: &mut Deployment, member: usize, resumed: &mut dyn FnMut()) {
        let others: Vec<usize> = cluster.running().into_iter().filter(|other| *other != member).collect();
        match self {
            Self::Both => cluster.hosts.partition(&[member]),
            Self::Mute => others.iter().for_each(|other| cluster.hosts.cut_one_way(member, *other)),
            Self::Deaf => others.iter().for_each(|other| cluster.hosts.cut_one_way(*other, member)),
            Self::Lossy => {
                cluster.hosts.lose(member, LOST_PERCENT);
                if !cluster.hosts.host(member).delay(DELAY, DELAY / 2) {
                    println!("this kernel has no sch_netem: packets are lost, but not late");
                }
            }
        }
        resumed();
        sleep(HOLD);
        cluster.hosts.heal();
    }
}

#[test]
fn a_member_cut_off_costs_one_election() {
    campaign(&mut Cut::Both, 2);
}

#[test]
fn a_member_nobody_hears_costs_one_election() {
    campaign(&mut Cut::Mute, 2);
}

#[test]
fn a_member_that_hears_nobody_costs_one_election() {
    campaign(&mut Cut::Deaf, 2);
}

#[test]
fn a_bad_network_is_slow_and_nothing_else() {
    campaign(&mut Cut::Lossy, 2);
}
