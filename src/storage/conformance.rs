//! What every engine must do, asked of both.

use std::ops::Bound;

use bytes::Bytes;
use tempfile::TempDir;

use super::{Engine, FjallEngine, FjallOptions, KEY_BYTES_MAX, MemoryEngine, Read, Row, StorageError, Table, Writes};

/// Small enough that a test flushes and merges many times.
const SMALL: FjallOptions = FjallOptions { cache_bytes: 1 << 20, memtable_bytes: 16 << 10, files_max: 100 };

fn on_disk() -> (TempDir, FjallEngine) {
    let directory = tempfile::tempdir().unwrap();
    let engine = FjallEngine::open(&directory.path().join("state"), &SMALL).unwrap();
    (directory, engine)
}

fn key(number: u32) -> Bytes {
    Table::V2.key(&number.to_be_bytes())
}

fn put(number: u32, value: &str) -> Writes {
    let mut writes = Writes::default();
    writes.put(key(number), Bytes::copy_from_slice(value.as_bytes()));
    writes
}

fn all(read: &impl Read) -> Vec<Row> {
    read.scan(Bound::Unbounded, Bound::Unbounded).map(Result::unwrap).collect()
}

fn snapshots_do_not_change(engine: &impl Engine) {
    engine.commit(put(1, "old")).unwrap();
    let before = engine.snapshot();
    let mut writes = put(1, "new");
    writes.delete(key(2));
    writes.put(key(3), Bytes::from_static(b"three"));
    engine.commit(writes).unwrap();
    assert_eq!(all(&before), [(key(1), Bytes::from_static(b"old"))]);
    assert_eq!(before.get(&key(3)).unwrap(), None);
    let after = engine.snapshot();
    assert_eq!(after.get(&key(1)).unwrap().unwrap(), "new");
    assert_eq!(after.row(Table::V2, &3_u32.to_be_bytes()).unwrap().unwrap(), "three");
    let mut delete = Writes::default();
    delete.delete(key(1));
    engine.commit(delete).unwrap();
    assert_eq!(after.get(&key(1)).unwrap().unwrap(), "new");
    assert_eq!(engine.snapshot().get(&key(1)).unwrap(), None);
}

fn scans_follow_bounds_both_ways(engine: &impl Engine) {
    for number in 0..300 {
        engine.commit(put(number, "x")).unwrap();
    }
    let snapshot = engine.snapshot();
    let (from, to) = (key(10), key(200));
    let bounds = (Bound::Excluded(from.as_ref()), Bound::Included(to.as_ref()));
    let up: Vec<_> = snapshot.scan(bounds.0, bounds.1).map(|row| row.unwrap().0).collect();
    let mut down: Vec<_> = snapshot.scan_back(bounds.0, bounds.1).map(|row| row.unwrap().0).collect();
    down.reverse();
    assert_eq!(up, (11..=200).map(key).collect::<Vec<_>>());
    assert_eq!(down, up);
    assert_eq!(snapshot.rows(Table::V2).count(), 300);
    assert_eq!(snapshot.rows(Table::Meta).count(), 0);
    assert_eq!(snapshot.scan(Bound::Included(&to), Bound::Excluded(&from)).count(), 0);
}

fn long_keys_never_reach_the_engine(engine: &impl Engine) {
    engine.commit(put(1, "x")).unwrap();
    let snapshot = engine.snapshot();
    let long = vec![0xff; KEY_BYTES_MAX + 1];
    assert_eq!(snapshot.get(&long).unwrap(), None);
    assert_eq!(snapshot.get(&[]).unwrap(), None);
    assert_eq!(snapshot.scan(Bound::Unbounded, Bound::Excluded(&long)).count(), 1);
    assert_eq!(snapshot.scan_back(Bound::Included(&long), Bound::Unbounded).count(), 0);

    let mut writes = Writes::default();
    writes.put(long.into(), Bytes::new());
    assert!(matches!(engine.commit(writes), Err(StorageError::KeyTooLong { bytes: 65_536, table: 0xff })));
}

fn first_failure_is_final_and_named(engine: &impl Engine) {
    let mut writes = Writes::default();
    writes.put(Bytes::new(), Bytes::new());
    assert!(engine.commit(writes).is_err());
    for refused in [engine.commit(put(1, "x")), engine.persist()] {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("key of 0 bytes") && text.contains("restart"), "{text}");
    }
}

fn rows_load_in_bulk_if_they_ascend(engine: &impl Engine) {
    let rows = [1, 2, 3].map(|number| (key(number), Bytes::from_static(b"value")));
    engine.ingest(&mut rows.iter().cloned().map(Ok)).unwrap();
    assert_eq!(all(&engine.snapshot()), rows);
    let refused = engine.ingest(&mut [9, 8].into_iter().map(|number| Ok((key(number), Bytes::new()))));
    assert!(matches!(refused, Err(StorageError::OutOfOrder { .. })));
    let failing = StorageError::ValueTooLong { bytes: 1 };
    assert!(engine.ingest(&mut std::iter::once(Err(failing))).is_err());
}

macro_rules! asked_of_both {
    ($($rule:ident)*) => {$(
        mod $rule {
            #[test]
            fn in_memory() {
                super::$rule(&super::MemoryEngine::new());
            }

            #[test]
            fn on_disk() {
                let (_directory, engine) = super::on_disk();
                super::$rule(&engine);
            }
        }
    )*};
}
asked_of_both!(
    rows_load_in_bulk_if_they_ascend
    snapshots_do_not_change
    scans_follow_bounds_both_ways
    long_keys_never_reach_the_engine
    first_failure_is_final_and_named
);

#[test]
fn power_cut_keeps_what_was_persisted() {
    let engine = MemoryEngine::new();
    engine.commit(put(1, "one")).unwrap();
    engine.commit(put(2, "two")).unwrap();
    engine.persist().unwrap();
    let pinned = engine.snapshot();
    let mut lost = put(1, "later");
    lost.delete(key(2));
    engine.commit(lost).unwrap();
    engine.commit(put(3, "three")).unwrap();

    assert_eq!(all(&engine.crash().snapshot()), all(&pinned));
    let kinder = engine.crash_keeping(1).snapshot();
    assert_eq!(all(&kinder), [(key(1), Bytes::from_static(b"later"))]);
    assert_eq!(all(&engine.crash_keeping(9).snapshot()), all(&engine.snapshot()));
}

#[test]
fn killed_process_leaves_its_commits_to_the_next_power_cut() {
    let engine = MemoryEngine::new();
    engine.commit(put(1, "one")).unwrap();
    engine.persist().unwrap();
    engine.commit(put(2, "two")).unwrap();
    let killed = engine.kill();
    assert_eq!((killed.unpersisted(), all(&killed.snapshot())), (1, all(&engine.snapshot())));
    assert_eq!(killed.crash().snapshot().get(&key(2)).unwrap(), None);
}

#[test]
fn ordered_failures_come_at_their_turn() {
    let engine = MemoryEngine::new();
    engine.fail_commit(2);
    engine.commit(put(1, "one")).unwrap();
    assert!(engine.commit(put(2, "two")).unwrap_err().to_string().contains("writing"));
    assert!(matches!(engine.persist(), Err(StorageError::Poisoned { .. })));
    let engine = engine.crash();
    engine.fail_persist(1);
    engine.commit(put(1, "one")).unwrap();
    assert!(engine.persist().is_err());
    assert_eq!(engine.crash().snapshot().get(&key(1)).unwrap(), None);
}

#[test]
fn memory_engine_counts_its_bytes() {
    let engine = MemoryEngine::new();
    engine.commit(put(1, "12345")).unwrap();
    engine.commit(put(1, "123")).unwrap();
    engine.commit(put(2, "1")).unwrap();
    assert_eq!(engine.disk_bytes(), 5 + 3 + 5 + 1);
    let mut delete = Writes::default();
    delete.delete(key(1));
    engine.commit(delete).unwrap();
    assert_eq!(engine.disk_bytes(), 5 + 1);
}

#[test]
fn state_on_disk_survives_flushes_merges_and_reopening() {
    let (directory, engine) = on_disk();
    let path = directory.path().join("state");
    for round in 0..40 {
        for number in 0..50 {
            engine.commit(put(number, &format!("{round:>100}"))).unwrap();
        }
    }
    engine.persist().unwrap();
    let before = all(&engine.snapshot());
    assert_eq!(engine.verify().unwrap(), 50);
    assert!(engine.disk_bytes() > 0);
    drop(engine);
    let engine = FjallEngine::open(&path, &SMALL).unwrap();
    assert_eq!(all(&engine.snapshot()), before);
}

#[test]
fn rows_that_are_deleted_are_not_in_use_until_they_are_merged_away() {
    let (_directory, engine) = on_disk();
    (0..2000).for_each(|number| engine.commit(put(number, &incompressible(number))).unwrap());
    engine.reclaim().unwrap();
    let full = engine.usage();
    assert!(full.table_rows >= 2000 && full.table_bytes > 0, "{full:?}");
    assert_eq!(full.bytes_in_use(full.table_rows), full.disk_bytes, "everything is needed: {full:?}");
    for number in 0..1800 {
        let mut delete = Writes::default();
        delete.delete(key(number));
        engine.commit(delete).unwrap();
    }
    let after = engine.usage();
    assert!(after.bytes_in_use(200) * 2 < full.disk_bytes, "{after:?}");
    engine.reclaim().unwrap();
    let merged = engine.usage();
    assert!(merged.disk_bytes * 2 < full.disk_bytes, "{merged:?}");
    assert!(merged.bytes_in_use(200) * 10 > merged.disk_bytes * 9, "{merged:?}");
}

/// Digits that no compression shortens much.
fn incompressible(number: u32) -> String {
    let mut seed = u128::from(number) + 1;
    let mut next = || {
        seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).rotate_left(41);
        format!("{seed:032x}")
    };
    (0..16).map(|_| next()).collect()
}

#[test]
fn rows_loaded_in_bulk_are_there_after_reopening() {
    let (directory, engine) = on_disk();
    let path = directory.path().join("state");
    engine.ingest(&mut (0..5000).map(|number| Ok((key(number), Bytes::from_static(b"value"))))).unwrap();
    engine.commit(put(7, "changed")).unwrap();
    engine.persist().unwrap();
    drop(engine);
    let engine = FjallEngine::open(&path, &SMALL).unwrap();
    assert_eq!(engine.verify().unwrap(), 5000);
    assert_eq!(engine.snapshot().get(&key(7)).unwrap().unwrap(), "changed");
}

/// A copy of the files of a running engine is what a killed process leaves. The memtable is not full, so that no file
/// changes while it is copied.
#[test]
fn killed_process_leaves_a_prefix_of_the_commits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let engine = FjallEngine::open(&path, &FjallOptions::default()).unwrap();
    for round in 0..30 {
        for number in 0..20 {
            engine.commit(put(round * 20 + number, &format!("{round:>200}"))).unwrap();
        }
        if round == 20 {
            engine.persist().unwrap();
        }
    }
    let copy = directory.path().join("copy");
    copy_files(&path, &copy);
    let found = FjallEngine::open(&copy, &SMALL).unwrap();
    let rows = all(&found.snapshot());
    assert!(rows.len() >= 21 * 20, "{}", rows.len());
    assert_eq!(rows, all(&engine.snapshot())[..rows.len()]);
}

fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
