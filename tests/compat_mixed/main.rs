//! Members of etcd and members of ours in one cluster, as there are while a running cluster moves over: who joins by whose
//! snapshot, who leads, who is killed, and what clients see of it. Members of etcd compare their hash with everybody's all
//! the time (initial, periodic and compaction checks), so that they would raise the CORRUPT alarm.
//!
//! `make test` plays each story once with etcd 3.7.1. `make interop` plays it `MIXED_ROUNDS` times, and with the newest
//! etcd 3.5 as well (`MIXED_WITH_3_5=1`). `MIXED_SEED=n` begins elsewhere, `MIXED_OPS=n` makes the stream of requests long.

#![expect(clippy::indexing_slicing, reason = "members are counted by the tests that made them")]

mod clients;
#[allow(dead_code, reason = "the differential test uses all of it")]
#[path = "../differential/generate.rs"]
mod generate;
mod load;
#[path = "../differential/send.rs"]
mod send;
#[path = "../support/mod.rs"]
mod support;
#[path = "../differential/ties.rs"]
mod ties;
mod world;

use generate::{Generator, Op};
use load::Load;
use send::{Events, Side};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use support::{program::Program, random::Random, setting, traffic::Traffic};
use world::{Election, Kind, Release, World};

/// Writes that take every log far beyond what it keeps.
const MANY: u64 = 600;

/// Requests of the stream that both kinds apply, and between two comparisons.
const OPS: u64 = 1_500;
const CHECK_EVERY: u64 = 300;
/// Troubles that one cluster lives through.
const TROUBLES: u64 = 5;

/// Plays `story` as often, and with as many releases of etcd, as is asked for; it is told the number of the round.
fn play(story: impl Fn(&Release, u64)) {
    for release in Release::wanted() {
        for round in 0..setting("MIXED_ROUNDS", 1) {
            println!("round {round} with {}", release.etcd.name);
            story(&release, round);
        }
    }
}

/// The story that moves a member in: etcd adds it, sends it its snapshot, promotes it, and goes on with it through
/// restarts of everybody.
#[test]
fn a_member_of_ours_joins_a_running_etcd_cluster() {
    play(|release, _| {
        let mut world = World::found(release, &[Kind::Etcd; 3]);
        world.fill(0, MANY);
        world.cluster.ctl(0, &["lease", "grant", "600"]).expect("a lease");
        world.compact(0, 200);
        let load = Load::start(world.endpoints());

        let ours = world.add(Kind::Ours, 1);
        world.wait_for_log(ours, "the state is that of a received snapshot");
        world.promote(ours, 0);
        load.use_only(world.endpoints());
        for other in 0..3 {
            world.serves(ours, other);
        }
        world.agree();
        assert_eq!(world.leases(0), world.leases(ours));
        world.wait_for_version(release.version);
        // The leader of etcd says so itself, once a second.
        world.lead(0);
        world.wait_for_log(0, "\"number-of-peers-checked\":3");

        // Everybody goes and comes back, in order and at once.
        world.cluster.members[ours].terminate();
        world.cluster.members[ours].restart();
        world.serves(ours, 0);
        for number in 0..4 {
            world.cluster.members[number].kill();
            world.serves((number + 1) % 4, (number + 2) % 4);
            world.cluster.members[number].restart();
            world.agree();
        }
        // Away for long: by a snapshot, or by entries if etcd keeps them for somebody whom it has just sent one.
        world.cluster.members[ours].kill();
        world.fill(0, MANY);
        world.cluster.members[ours].restart();
        world.serves(ours, 1);
        world.finish(load);
    });
}

/// A running cluster of etcd becomes one of ours: member by member, under load, every revision in its place.
#[test]
fn a_running_etcd_cluster_moves_over_member_by_member() {
    play(|release, _| {
        let mut world = World::found(release, &[Kind::Etcd; 3]);
        world.fill(0, MANY);
        world.compact(0, 100);
        let load = Load::start(world.endpoints());
        for old in 0..3 {
            // Whoever is asked to add it, etcd or one of ours, whoever leads.
            let asked = world.running().into_iter().next_back().expect("somebody runs");
            let new = world.add(Kind::Ours, asked);
            world.promote(new, asked);
            world.serves(new, old);
            load.use_only(world.endpoints_without(old));
            world.remove(old, new);
            world.serves(new, world.running()[0]);
            world.agree();
        }
        assert!(world.running().iter().all(|number| world.kinds[*number] == Kind::Ours));
        world.wait_for_version("3.7.0");
        for number in world.running() {
            world.cluster.members[number].terminate();
            world.cluster.members[number].restart();
        }
        world.finish(load);
    });
}

/// The way back, or in: a member of etcd joins a cluster of ours, whose log reaches back no further than a snapshot.
#[test]
fn a_member_of_etcd_joins_a_cluster_of_ours() {
    play(|release, _| {
        let mut world = World::found(release, &[Kind::Ours; 3]);
        world.fill(0, MANY);
        world.cluster.ctl(0, &["lease", "grant", "600"]).expect("a lease");
        world.compact(0, 200);
        let load = Load::start(world.endpoints());

        let etcd = world.add(Kind::Etcd, 1);
        world.wait_for_any_log("sent a snapshot");
        world.promote(etcd, 2);
        load.use_only(world.endpoints());
        for other in 0..3 {
            world.serves(etcd, other);
            world.serves(other, etcd);
        }
        world.agree();
        assert_eq!(world.leases(0), world.leases(etcd));

        world.cluster.members[etcd].kill();
        world.fill(0, MANY);
        world.cluster.members[etcd].restart();
        world.serves(etcd, 0);
        world.lead(etcd);
        world.serves(0, etcd);
        world.agree();
        world.remove(etcd, 0);
        world.finish(load);
    });
}

/// Leadership goes to and fro between etcd and us: handed over, lost by a kill, won with the vote of the other kind. What
/// clients see of it stays linearizable.
#[test]
fn leadership_moves_between_etcd_and_us() {
    const OURS: usize = 2;
    play(|release, _| {
        let mut world = World::found(release, &[Kind::Etcd, Kind::Etcd, Kind::Ours]);
        let traffic = Traffic::start(&world.endpoints(), "mixed", setting("MIXED_SEED", 1));
        for to in [OURS, 0, OURS, 1, OURS] {
            world.lead(to);
            world.serves(to, (to + 1) % 3);
            world.serves((to + 1) % 3, (to + 2) % 3);
        }
        // A leader of ours dies; a leader of etcd dies, and only one of ours can follow; and the other way about.
        world.elect(Election { dies: OURS, is_away: 0, wins: 1 });
        world.elect(Election { dies: 0, is_away: 1, wins: OURS });
        world.elect(Election { dies: 1, is_away: OURS, wins: 0 });
        traffic.stop().check(&world.endpoints());
        world.finish_without_load();
    });
}

/// What a leader of ours owes to followers of etcd: entries, snapshots, leases that end in time; and its place when it
/// is told to go.
#[test]
fn members_of_etcd_follow_a_leader_of_ours() {
    const OURS: usize = 2;
    play(|release, _| {
        let mut world = World::found(release, &[Kind::Etcd, Kind::Etcd, Kind::Ours]);
        world.lead(OURS);
        world.agree();

        // Five entries behind: the stream brings them.
        world.cluster.members[0].kill();
        world.fill(OURS, 5);
        world.cluster.members[0].restart();
        world.agree();
        assert!(!world.log(OURS).contains("sent a snapshot"), "five entries are sent as entries");

        world.cluster.members[0].kill();
        world.fill(OURS, MANY);
        world.compact(OURS, 300);
        world.cluster.members[0].restart();
        world.wait_for_log(OURS, "sent a snapshot");
        world.agree();
        // It has become the file of that member, which starts from it again.
        world.cluster.members[0].terminate();
        world.cluster.members[0].restart();
        world.agree();

        world.under(OURS, || world.lease_ends_in_time(0, 1));
        world.under(OURS, || world.lease_ends_in_time(1, OURS));

        world.remove(OURS, 0);
        world.serves(0, 1);
        world.finish_without_load();
    });
}

/// Whoever leads and whatever happens, what clients see is linearizable, and the kinds agree in the end.
#[test]
fn clusters_of_both_kinds_live_through_trouble() {
    play(|release, round| {
        let clusters = [[Kind::Etcd, Kind::Etcd, Kind::Ours], [Kind::Ours, Kind::Etcd, Kind::Ours]];
        for (seed, kinds) in (setting("MIXED_SEED", 1) + 2 * round..).zip(clusters) {
            let mut world = World::found(release, &kinds);
            let (mut random, traffic) = (Random::new(seed), Traffic::start(&world.endpoints(), "trouble", seed));
            for _ in 0..TROUBLES {
                world.trouble(&mut random);
            }
            let history = traffic.stop();
            println!("{} acknowledged, {} unknown", history.acknowledged(), history.unknown());
            history.check(&world.endpoints());
            world.finish_without_load();
        }
    });
}

/// Before etcd 3.7 a member leaves the reads out of a transaction that another one has proposed, and carries out what that
/// one refuses for a read of the compacted past or of the future. Such a transaction must not leave a member of ours.
#[test]
fn a_transaction_that_reads_what_is_not_there_changes_nothing_anywhere() {
    const OURS: usize = 2;
    play(|release, _| {
        let mut world = World::found(release, &[Kind::Etcd, Kind::Etcd, Kind::Ours]);
        world.fill(OURS, 20);
        world.compact(OURS, 10);
        for leader in [0, OURS] {
            world.lead(leader);
            for (revision, why) in [(5, "has been compacted"), (1_000_000, "is a future revision")] {
                let refusal = world.block_on(clients::put_and_read(&world.endpoints()[OURS], revision));
                assert!(refusal.as_ref().is_some_and(|said| said.contains(why)), "{refusal:?}");
            }
            assert_eq!(world.block_on(clients::put_and_read(&world.endpoints()[OURS], 12)), None, "it is there");
            world.agree();
        }
        world.finish_without_load();
    });
}

/// Clients may say more than any member knows. Members of etcd pass that on without a look, and so a log holds it: one of
/// ours keeps it there, carries out the rest like everybody else, and does so again when it starts from its log.
#[test]
fn what_no_member_knows_of_a_request_changes_nothing() {
    const OURS: usize = 2;
    play(|release, _| {
        let mut world = World::found(release, &[Kind::Etcd, Kind::Etcd, Kind::Ours]);
        for leader in [0, OURS] {
            world.lead(leader);
            for (number, endpoint) in world.endpoints().iter().enumerate() {
                let keys = [format!("news/{leader}/{number}/alone"), format!("news/{leader}/{number}/inside")];
                world.block_on(clients::put_news(endpoint, [&keys[0], &keys[1]]));
            }
            world.agree();
        }
        assert!(holds(&world.cluster.members[OURS].data_dir().join("member/wal"), clients::NEWS));
        world.cluster.members[OURS].kill();
        world.cluster.members[OURS].restart();
        world.agree();
        let found = world.block_on(clients::below(&world.endpoints()[OURS], "news/"));
        let keys: Vec<_> = found.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
        assert_eq!(keys.len(), 12, "{keys:?}");
        world.finish_without_load();
    });
}

/// Whether a file in `folder` holds `text`.
fn holds(folder: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    let mut contents = files.map(|file| std::fs::read(file).expect("a readable file"));
    contents.any(|content| content.windows(text.len()).any(|window| window == text.as_bytes()))
}

/// The requests of the differential test, sensible, at an edge and wrong, each through a member picked at random, whoever
/// leads: every member shows the same events with the same earlier values, and has the same state.
///
/// Before etcd 3.7 all of them go through ours: members of etcd diverge among themselves when one of them proposes a
/// transaction that reads a compacted revision.
#[test]
fn both_kinds_apply_the_same_stream_of_requests() {
    const OURS: usize = 1;
    play(|release, round| {
        let mut world = World::found(release, &[Kind::Etcd, Kind::Ours, Kind::Etcd]);
        let seed = setting("MIXED_SEED", 1) + round;
        let (mut random, mut generator) = (Random::new(seed), Generator::new(Random::new(seed)));
        let mut sides = world.sides();
        let mut tally = BTreeMap::<&str, u64>::new();
        for number in 0..setting("MIXED_OPS", OPS) {
            if number % CHECK_EVERY == 0 {
                world.lead(random.index(sides.len()));
                world.settle(&[0]);
                world.agree();
            }
            let op = generator.next_op();
            if matches!(op, Op::Compact(_)) {
                // What events have replaced would be gone where they are shown later.
                equal_events(&world, &mut sides, generator.revision());
            }
            let side = if release.checks_ranges() { random.index(sides.len()) } else { OURS };
            let outcome = world.block_on(sides[side].send(&op));
            generator.learn(&op, &outcome);
            *tally.entry(op.kind()).or_default() += u64::from(outcome.accepted);
        }
        println!("accepted, by kind: {tally:?}");
        assert!(tally.values().all(|accepted| *accepted > 0), "a stream that only fails proves little: {tally:?}");
        equal_events(&world, &mut sides, generator.revision());
        world.settle(&[0]);
        world.agree();
        world.finish_running();
    });
}

fn equal_events(world: &World<'_>, sides: &mut [Side], revision: i64) {
    let seen: Vec<Events> = sides.iter_mut().map(|side| world.block_on(side.events_until(revision))).collect();
    for (number, events) in seen.iter().enumerate() {
        let first = events.iter().zip(&seen[0]).position(|(one, other)| one != other);
        let show = |events: &Events| first.and_then(|first| events.get(first).cloned());
        let difference = || format!("of member {number}: {:?} instead of {:?}", show(events), show(&seen[0]));
        assert!(*events == seen[0], "{} and {} events; {}", events.len(), seen[0].len(), difference());
    }
}

/// The cluster's version goes down when that is allowed and up again when it is called off, whoever leads.
#[test]
fn a_downgrade_is_allowed_and_called_off_under_either_leader() {
    let release = Release::newest();
    let mut world = World::found(&release, &[Kind::Etcd, Kind::Etcd, Kind::Ours]);
    for leader in [0, 2] {
        world.lead(leader);
        world.etcdctl_until(&world.endpoints()[1], &["downgrade", "enable", "3.6"]);
        world.wait_for_version("3.6.0");
        world.serves(0, 2);
        world.etcdctl_until(&world.endpoints()[2], &["downgrade", "cancel"]);
        world.wait_for_version("3.7.0");
        world.serves(2, 1);
    }
    world.finish_without_load();
}

/// A release that is older than it should be is told of, once, and spoken with.
#[test]
fn an_etcd_older_than_it_should_be_is_warned_about_and_served() {
    let cluster = world::found_bare(&[(Program::etcd_3_5_1(), Vec::new()), (Program::subject(), Vec::new())]);
    cluster.ctl_until(0, &["put", "a", "through the old one"]);
    assert_eq!(cluster.ctl(1, &["get", "a", "--print-value-only"]).expect("a get"), "through the old one");
    cluster.ctl_until(1, &["put", "a", "through ours"]);
    assert_eq!(cluster.ctl(0, &["get", "a", "--print-value-only"]).expect("a get"), "through ours");
    // Streams are dialled again and again meanwhile, both ways.
    std::thread::sleep(Duration::from_secs(2));
    let warned = |log: &str| log.lines().filter(|line| line.contains("update it to 3.5.33 or newer")).count();
    assert_eq!(warned(&cluster.members[1].log()), 1, "{}", cluster.members[1].log());
}
