//! Hashes that etcd computed, and the paths that must not change them.

use super::harness::{Member, in_memory, on_disk};
use crate::storage::Engine;

const NAMES: [&str; 7] = ["alice", "bob", "celine", "dominik", "eve", "frederica", "gorge"];

fn pick(index: usize) -> &'static str {
    if index % 142 == 30 {
        "zenek"
    } else if index % 71 == 30 {
        "xavery"
    } else {
        NAMES[index % NAMES.len()]
    }
}

fn put_all(member: &mut Member<impl Engine>, indices: impl Iterator<Item = usize>) {
    for index in indices {
        member.put(pick(index), &index.to_string());
    }
}

const RUN_A: [u32; 19] = [
    4_082_599_214,
    2_279_933_401,
    3_284_231_217,
    126_286_495,
    900_108_730,
    2_475_485_232,
    1_226_296_507,
    2_503_661_030,
    4_155_130_747,
    106_915_399,
    406_914_006,
    1_882_211_381,
    806_177_088,
    664_311_366,
    1_496_914_449,
    2_434_525_091,
    3_988_652_253,
    1_122_462_288,
    724_436_716,
];

const RUN_B: [u32; 19] = [
    1_913_897_190,
    224_860_069,
    1_565_167_519,
    1_566_261_620,
    2_037_173_024,
    691_659_396,
    2_713_730_748,
    3_919_322_507,
    769_967_540,
    2_909_194_793,
    1_576_921_157,
    4_067_701_532,
    2_226_384_237,
    2_923_408_134,
    2_680_329_256,
    1_546_717_673,
    2_713_657_846,
    1_046_575_299,
    2_017_735_779,
];

/// Hash, compact revision and revision of each round: at a revision in the middle.
fn run_a(member: &mut Member<impl Engine>, mut compact: impl FnMut(usize) -> bool) -> Vec<(u32, i64, i64)> {
    let mut seen = Vec::new();
    let mut start = 0;
    while start < 1210 {
        put_all(member, start..=start + 71);
        let revision = i64::try_from(start).unwrap() + 35;
        let hash = member.hash(revision);
        seen.push((hash.hash, hash.compact_revision, hash.revision));
        member.schedule(revision).unwrap();
        while compact(start) && member.compact_step(7) {}
        start += 71;
    }
    put_all(member, start..=start + 1210);
    let hash = member.hash(i64::try_from(start).unwrap() + 605);
    seen.push((hash.hash, hash.compact_revision, hash.revision));
    seen
}

fn check_run_a(seen: &[(u32, i64, i64)]) {
    assert_eq!(seen.iter().map(|(hash, ..)| *hash).collect::<Vec<_>>(), RUN_A);
    let revisions: Vec<_> = seen.iter().map(|(_, compacted, revision)| (*compacted, *revision)).collect();
    assert_eq!(revisions[..3], [(-1, 35), (35, 106), (106, 177)]);
    assert_eq!(revisions[18], (1242, 1883));
}

#[test]
fn hashes_at_past_revisions_are_etcds() {
    check_run_a(&run_a(&mut in_memory(), |_| true));
}

#[test]
fn hashes_do_not_depend_on_how_far_a_compaction_got() {
    check_run_a(&run_a(&mut in_memory(), |_| false));
    check_run_a(&run_a(&mut in_memory(), |start| start % 142 == 0));
    let mut left = 0;
    let some_steps = move |_| {
        left = (left + 1) % 4;
        left != 0
    };
    check_run_a(&run_a(&mut in_memory(), some_steps));
}

#[test]
fn hashes_of_a_member_on_disk_are_etcds() {
    let (_directory, mut member) = on_disk();
    check_run_a(&run_a(&mut member, |_| true));
}

#[test]
fn hashes_at_the_newest_revision_are_etcds() {
    let mut member = in_memory();
    let mut seen = Vec::new();
    let mut start = 0;
    while start < 1210 {
        put_all(&mut member, start..=start + 71);
        seen.push(member.hash(0));
        member.compact(member.store.revision());
        start += 71;
    }
    put_all(&mut member, start..=start + 1210);
    seen.push(member.hash(0));
    assert_eq!(seen.iter().map(|hash| hash.hash).collect::<Vec<_>>(), RUN_B);
    let revisions: Vec<_> = seen.iter().map(|hash| (hash.compact_revision, hash.revision)).collect();
    assert_eq!(revisions[..2], [(-1, 73), (73, 145)]);
}
