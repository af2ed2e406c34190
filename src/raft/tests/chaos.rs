//! Random trouble, then peace: nothing that was applied is lost, and the group comes back to life.

use crate::{pb::raftpb::ConfChangeType, raft::Input, types::MemberId};

use super::world::World;

const SEEDS: u64 = 24;
const STEPS: usize = 2500;

fn trouble(world: &mut World) {
    let ids = world.ids();
    let id = world.chance.pick(&ids).unwrap();
    match world.chance.below(1000) {
        0..50 => world.tick(&ids),
        50..80 => world.tick(&[id]),
        80..530 => deliver_some(world),
        530..800 if !world.nodes[&id].stalled => {
            let n = world.chance.below(4);
            world.sync(id, usize::try_from(n).unwrap());
        }
        800..900 => world.propose(id),
        900..940 => world.read(id),
        940..943 => world.crash(id),
        943..950 if world.nodes[&id].member.is_none() => world.start(id),
        950..951 => part(world, &ids),
        951..960 => world.partition.clear(),
        960..961 => world.nodes.get_mut(&id).unwrap().stalled = true,
        961..964 => world.nodes.get_mut(&id).unwrap().stalled = false,
        964..980 => world.persist_machine(id, 3),
        980..984 => world.input(id, Input::TransferLeader(MemberId(ids[0]))),
        984..986 => world.input(id, Input::Campaign),
        986..1000 => change(world, id),
        _ => {}
    }
}

/// Messages are lost, doubled and overtake one another.
fn deliver_some(world: &mut World) {
    for _ in 0..4 {
        let n = world.network.len() as u64;
        if n == 0 {
            return;
        }
        let pick = usize::try_from(world.chance.below(n)).unwrap();
        let message = world.network.swap_remove(pick);
        if world.chance.percent(3) {
            world.network.push(message.clone());
        }
        if world.chance.percent(5) {
            world.lose(&message);
        } else {
            world.deliver(message);
        }
    }
}

fn part(world: &mut World, ids: &[u64]) {
    let (mut left, mut right) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for id in ids {
        if world.chance.percent(50) { &mut left } else { &mut right }.insert(*id);
    }
    world.partition = vec![left, right];
}

fn change(world: &mut World, id: u64) {
    let kinds = [
        ConfChangeType::ConfChangeAddNode,
        ConfChangeType::ConfChangeAddLearnerNode,
        ConfChangeType::ConfChangeUpdateNode,
        ConfChangeType::ConfChangeRemoveNode,
    ];
    let kind = world.chance.pick(&kinds).unwrap();
    let target = 6 + world.chance.below(4);
    let voters = &world.nodes[&id].machine.voters;
    if kind == ConfChangeType::ConfChangeRemoveNode && voters.len() == 2 {
        // If the one that stays crashes before it has stored the commit, it may need the vote of the other, gone one.
        return;
    }
    if !world.nodes.contains_key(&target) {
        world.join(target);
    }
    world.propose_change(id, kind, target);
}

fn heal(world: &mut World) {
    world.partition.clear();
    for id in world.ids() {
        world.nodes.get_mut(&id).unwrap().stalled = false;
        if world.nodes[&id].member.is_none() {
            world.start(id);
        }
    }
    world.run(80);
}

fn chaos(members: u64, seed: u64) {
    let mut world = World::new(seed, members);
    world.kept_bytes_max = if seed.is_multiple_of(2) { 600 } else { 1 << 20 };
    for _ in 0..STEPS {
        trouble(&mut world);
        assert!(world.network.len() < 100_000);
    }
    heal(&mut world);
    let leader = world.leader().unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
    world.propose(leader);
    world.read(leader);
    world.run(20);
    world.assert_agreement();
    let waiting = world.reads_waiting();
    assert_eq!(waiting, 0, "seed {seed}: reads wait for ever");
    assert!(world.reads_answered > 0);
}

#[test]
fn a_single_member_survives_trouble() {
    (0..SEEDS).for_each(|seed| chaos(1, seed));
}

#[test]
fn three_members_survive_trouble() {
    (0..SEEDS).for_each(|seed| chaos(3, seed));
}

#[test]
fn five_members_survive_trouble() {
    (0..SEEDS).for_each(|seed| chaos(5, seed));
}

#[test]
fn one_seed_gives_one_trace() {
    let trace = |seed| {
        let mut world = World::new(seed, 3);
        (0..STEPS).for_each(|_| trouble(&mut world));
        world.events
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
