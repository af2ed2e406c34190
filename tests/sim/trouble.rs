//! Trouble, and the peace behind it.

use std::collections::BTreeSet;

use quorate::membership::{Attributes, Member, MemberChange, added_member_id, reconfig};
use quorate::raft::Input;
use quorate::server::Identity;
use quorate::server::recovery::{Bootstrap, Joining};
use quorate::types::MemberId;

use crate::host::{Life, MS, SECOND, Time};
use crate::simulated::Wrong;
use crate::world::{CHAOS, Event, World, url};

/// Machines there may be, those of removed members included.
const HOSTS_MAX: usize = 10;
/// By this time of peace everybody has heard of every removal.
const NEWS: Time = 5 * SECOND;
/// Members there may be.
const MEMBERS_MAX: usize = 7;

impl World {
    /// One piece of trouble, and when the next is due.
    pub(crate) fn trouble(&mut self) -> Result<(), Wrong> {
        self.start_members_without_machines();
        if self.now >= CHAOS {
            self.heal();
            return Ok(());
        }
        let pause = self.random.below(2 * self.habits.calm) + 1;
        self.at(pause, Event::Trouble);
        // A leader that comes back from somewhere is worth more trouble than others.
        let favoured = self.random.chance(35);
        let leader = self.leader().filter(|_| favoured);
        let anybody = self.random.index(self.hosts.len());
        let host = leader.unwrap_or(anybody);
        match self.random.below(100) {
            0..16 => self.crash(host),
            16..24 => self.fail_a_disk(host),
            24..32 => self.pause(host),
            32..40 => self.stall(host),
            40..56 => self.part(),
            56..66 => self.net.mend(),
            66..76 => self.hand_over(host)?,
            76..92 => self.reconfigure()?,
            _ => self.slow_down(host),
        }
        Ok(())
    }

    /// The machine of a member that leads, or thinks that it does.
    fn leader(&self) -> Option<usize> {
        (0..self.hosts.len())
            .rev()
            .find(|host| self.hosts[*host].life.as_ref().is_some_and(|life| life.process.leads()))
    }

    fn crash(&mut self, host: usize) {
        if let Some(life) = self.hosts[host].life.take() {
            self.end_life(&life);
            self.lose_power(host, "between two steps");
        }
    }

    /// The power fails at one of the next operations of a disk.
    fn fail_a_disk(&mut self, host: usize) {
        let n = self.random.below(20);
        let disk = &self.hosts[host].disk;
        match self.random.below(10) {
            0..6 => disk.wal.fail_after(n),
            6..7 => disk.snap.fail_after(n % 6),
            7..8 => disk.engine.fail_persist(1 + n % 2),
            _ => disk.engine.fail_commit(1 + n),
        }
    }

    fn pause(&mut self, host: usize) {
        let long = 200 * MS + self.random.below(4 * SECOND);
        self.count("pauses");
        self.hosts[host].paused_until = self.now + long;
        if let Some(life) = &mut self.hosts[host].life {
            life.resumed_at = self.now + long;
        }
        self.note(|world| format!("{} pauses for {} ms", world.hosts[host].name, long / MS));
    }

    fn stall(&mut self, host: usize) {
        let long = 300 * MS + self.random.below(5 * SECOND);
        self.count("stalled disks");
        self.hosts[host].stalled_until = self.now + long;
        self.note(|world| format!("the disk of {} stalls for {} ms", world.hosts[host].name, long / MS));
    }

    fn slow_down(&mut self, host: usize) {
        let by = 20 * MS + self.random.below(400 * MS);
        for other in 0..self.hosts.len() {
            self.net.slow_down(host, other, by);
            self.net.slow_down(other, host, by);
        }
        self.count("slow links");
    }

    fn part(&mut self) {
        let n = self.hosts.len();
        let some: BTreeSet<usize> = match self.random.below(3) {
            0 => BTreeSet::from([self.random.index(n)]),
            1 => self.leader().into_iter().collect(),
            _ => (0..n).filter(|_| self.random.chance(50)).collect(),
        };
        let kind = self.random.below(3);
        for inside in &some {
            for outside in (0..n).filter(|host| !some.contains(host)) {
                if kind != 0 {
                    self.net.cut(*inside, outside);
                }
                if kind != 1 {
                    self.net.cut(outside, *inside);
                }
            }
        }
        self.count(if kind == 2 { "partitions" } else { "partitions in one direction" });
        self.note(|_| format!("parted: {some:?}, kind {kind}"));
    }

    /// Whoever leads is asked to hand over, unless there is peace.
    pub(crate) fn hand_over_office(&mut self) -> Result<(), Wrong> {
        match self.leader().filter(|_| !self.healing) {
            Some(leader) => self.hand_over(leader),
            None => Ok(()),
        }
    }

    fn hand_over(&mut self, host: usize) -> Result<(), Wrong> {
        let to = self.hosts[self.random.index(self.hosts.len())].member;
        self.count("transfers of leadership asked for");
        self.with(host, None, |_, life| {
            life.process.tell(Input::TransferLeader(to));
            Ok(())
        })
    }

    // -------------------------------------------------------------------------------------------------- membership

    /// An operator asks the leader for a change of the membership, under etcd's strict rules.
    fn reconfigure(&mut self) -> Result<(), Wrong> {
        let Some(leader) = self.leader() else { return Ok(()) };
        self.with(leader, None, |world, life| {
            world.propose_change(life);
            Ok(())
        })
    }

    fn propose_change(&mut self, life: &mut Life) {
        let cluster = life.cluster();
        let connected = self.connected();
        let learner = cluster.members().find(|member| member.is_learner).map(|member| member.id);
        let voters: Vec<MemberId> = cluster.voters().map(|member| member.id).collect();
        let change = match self.random.below(100) {
            0..45 if learner.is_none() => {
                let as_learner = self.random.chance(70);
                let room = self.hosts.len() < HOSTS_MAX && cluster.members().len() < MEMBERS_MAX;
                if !room || reconfig::may_add(&cluster, as_learner, &connected).is_err() {
                    return;
                }
                let peer_urls = vec![url(&format!("m{}", self.hosts.len()))];
                let id = added_member_id(&peer_urls, self.now / SECOND);
                MemberChange::add(Member { id, peer_urls, is_learner: as_learner, attributes: Attributes::default() })
            }
            0..80 if learner.is_some() => {
                let Some(id) = learner else { return };
                let matched = life
                    .process
                    .driver
                    .member()
                    .progress()
                    .into_iter()
                    .find(|peer| peer.id == id)
                    .map_or(0, |p| p.matched.0);
                if reconfig::may_promote(&cluster, id, matched, life.log.last(), true).is_err() {
                    return;
                }
                MemberChange::Promote(id)
            }
            _ => {
                let everybody: Vec<MemberId> = cluster.members().map(|member| member.id).collect();
                let id = *self.random.pick(&everybody);
                let is_voter = voters.contains(&id);
                // The last but one can never be told whether it may go: the other might need its vote.
                if (is_voter && voters.len() <= 2)
                    || reconfig::may_remove(&cluster, id, connected.contains(&id), &connected).is_err()
                {
                    return;
                }
                MemberChange::Remove(id)
            }
        };
        self.count("membership changes proposed");
        self.note(|world| format!("{} is asked for {change:?}", world.hosts[life.host].name));
        let id = life.process.ids.next();
        life.process.tell(Input::ProposeConfChange { id, change: change.encode(id) });
    }

    /// Members whose machines run and hear the others, as far as anybody can tell.
    fn connected(&self) -> BTreeSet<MemberId> {
        let n = self.hosts.len();
        let hears = |host: usize| (0..n).all(|other| !self.net.is_cut(host, other) && !self.net.is_cut(other, host));
        let runs = |host: &usize| !self.hosts[*host].is_paused(self.now) && hears(*host);
        // The leader itself is being asked, and so it is not in its place.
        let up = (0..n).filter(|host| !self.hosts[*host].gone).filter(runs);
        up.map(|host| self.hosts[host].member).collect()
    }

    /// Whoever was added gets a machine.
    fn start_members_without_machines(&mut self) {
        let Some(cluster) = self.newest_cluster() else { return };
        for member in cluster.members() {
            if self.hosts.iter().any(|host| host.member == member.id) {
                continue;
            }
            let number = self.hosts.len();
            let name = format!("m{number}");
            let members: Vec<Member> = cluster.members().cloned().collect();
            let urls = |member: &Member| (member.id.to_string(), member.peer_urls.clone());
            let initial_cluster = members.iter().map(urls).collect();
            let joining = Some(Joining { identity: Identity { member: member.id, cluster: cluster.id() }, members });
            let bootstrap = Bootstrap { joining, ..Bootstrap::new(initial_cluster, "joined") };
            self.count("members joined");
            self.note(|_| format!("{name} joins as {}", member.id));
            self.add_host(name, bootstrap, member.id);
        }
    }

    fn newest_cluster(&self) -> Option<std::sync::Arc<quorate::membership::Cluster>> {
        let lives = self.hosts.iter().filter_map(|host| host.life.as_ref());
        lives.map(|life| life.process.applier.published()).max_by_key(|state| state.applied).map(|state| state.cluster)
    }

    // -------------------------------------------------------------------------------------------------------- peace

    /// Everything works again; whoever belongs to the cluster runs.
    fn heal(&mut self) {
        if !self.healing {
            self.note(|_| "peace".to_owned());
            self.healing = true;
            self.net.heal();
            for host in 0..self.hosts.len() {
                let this = &mut self.hosts[host];
                this.paused_until = this.paused_until.min(self.now);
                this.stalled_until = 0;
                this.disk.mend();
            }
            self.at(SECOND, Event::Look);
        }
        self.end_removed_members();
        // A change that was proposed before may still be applied: whom it adds needs a machine.
        self.at(SECOND, Event::Trouble);
        for host in 0..self.hosts.len() {
            self.at(1, Event::Start(host));
        }
    }

    /// Whoever was removed while it was away hears of it from its peers, or from its operator.
    fn end_removed_members(&mut self) {
        if self.now < CHAOS + NEWS {
            return;
        }
        for host in 0..self.hosts.len() {
            if self.oracle.model.is_removed(self.hosts[host].member.0) {
                self.hosts[host].gone = true;
                if let Some(life) = self.hosts[host].life.take() {
                    self.end_life(&life);
                }
            }
        }
    }
}
