//! The log against a directory that crashes, decays and fails; and against bytes etcd wrote.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::disk::{Directory as _, DiskFile as _, FileDirectory, Loss, MemoryDirectory};

const METADATA: Metadata = Metadata { member: MemberId(0x1234), cluster: ClusterId(0xabcd) };
const START: (LogIndex, Term) = (LogIndex(0), Term(0));

fn small() -> Options {
    Options { segment_bytes: 4096, unsafe_no_fsync: false }
}

fn entry(index: u64, term: u64) -> raftpb::Entry {
    raftpb::Entry { index, term, data: Bytes::from(format!("payload {index} of term {term}")), ..Default::default() }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<raftpb::Entry> {
    range.map(|index| entry(index, term)).collect()
}

fn state(term: u64, commit: u64) -> raftpb::HardState {
    raftpb::HardState { term, vote: 0x1234, commit }
}

fn mark(index: u64, term: u64) -> walpb::Snapshot {
    walpb::Snapshot { index, term, conf_state: None }
}

fn create(options: &Options) -> (MemoryDirectory, Wal<MemoryDirectory>) {
    let directory = MemoryDirectory::default();
    let wal = Wal::create(directory.clone(), METADATA, options).unwrap();
    (directory, wal)
}

fn open(directory: &MemoryDirectory, applied: (u64, u64)) -> Result<(Wal<MemoryDirectory>, Log), WalError> {
    Wal::open(directory.clone(), (LogIndex(applied.0), Term(applied.1)), &small())
}

fn save(wal: &mut Wal<MemoryDirectory>, entries: &[raftpb::Entry], state: raftpb::HardState) {
    wal.append(entries, Some(&state)).unwrap();
    wal.sync().unwrap();
}

fn all(wal: &Wal<MemoryDirectory>, log: &Log) -> Vec<raftpb::Entry> {
    wal.reader().entries(LogIndex(log.start.0.0 + 1), log.last, usize::MAX).unwrap()
}

fn last_segment(directory: &MemoryDirectory) -> String {
    directory.names().unwrap().into_iter().rfind(|name| name.len() == 37).unwrap()
}

/// Where the data of a segment ends.
fn data_end(directory: &MemoryDirectory, name: &str) -> usize {
    let contents = directory.contents(name).unwrap();
    let mut offset = 0;
    while let Frame::Record { length, .. } = decode_frame(&contents[offset..]) {
        offset += length;
    }
    offset
}

#[test]
fn a_new_log_is_empty_and_reserved() {
    let (directory, wal) = create(&Options::default());
    drop(wal);
    assert_eq!(directory.names().unwrap(), ["0000000000000000-0000000000000000.wal"]);
    assert_eq!(directory.contents(&last_segment(&directory)).unwrap().len(), 64_000_000);
    let (_, log) = open(&directory, (0, 0)).unwrap();
    assert_eq!((log.metadata, log.start, log.last), (METADATA, START, LogIndex(0)));
    assert_eq!((log.hard_state, log.snapshots), (raftpb::HardState::default(), vec![mark(0, 0)]));
    let again = Wal::create(directory.clone(), METADATA, &small());
    assert!(matches!(again, Err(WalError::Exists { .. })));
}

#[test]
fn what_was_synced_survives_a_power_failure_and_nothing_else() {
    let (directory, mut wal) = create(&small());
    save(&mut wal, &entries(1..=3, 1), state(1, 2));
    wal.append(&entries(4..=5, 1), Some(&state(1, 5))).unwrap();
    wal.flush().unwrap();
    directory.crash(Loss::All);
    drop(wal);
    let (wal, log) = open(&directory, (0, 0)).unwrap();
    assert_eq!((log.last, log.hard_state), (LogIndex(3), state(1, 2)));
    assert_eq!(all(&wal, &log), entries(1..=3, 1));
}

#[test]
fn many_batches_take_one_write_and_one_sync() {
    let (directory, mut wal) = create(&small());
    let before = directory.syncs();
    for index in 1..=20 {
        wal.append(&[entry(index, 1)], Some(&state(1, index - 1))).unwrap();
    }
    wal.sync().unwrap();
    assert_eq!(directory.syncs(), before + 1);
    wal.sync().unwrap();
    assert_eq!(directory.syncs(), before + 1, "nothing to do");
}

#[test]
fn without_fsync_nothing_is_synced() {
    let (directory, mut wal) = create(&Options { unsafe_no_fsync: true, ..small() });
    save(&mut wal, &entries(1..=300, 1), state(1, 1));
    assert_eq!(directory.syncs(), 0);
}

#[test]
fn full_segments_are_closed_and_the_next_repeats_metadata_and_state() {
    let (directory, mut wal) = create(&small());
    for index in 1..=200 {
        save(&mut wal, &[entry(index, 1)], state(1, index));
    }
    assert!(wal.segments() > 3);
    drop(wal);
    let names = directory.names().unwrap();
    for name in names.split_last().unwrap().1 {
        let size = directory.contents(name).unwrap().len();
        assert_eq!(data_end(&directory, name), size, "{name} ends with its data");
        assert!(size >= 4096);
    }
    let last = directory.contents(&last_segment(&directory)).unwrap();
    let mut kinds = Vec::new();
    let mut offset = 0;
    while let Frame::Record { kind, length, .. } = decode_frame(&last[offset..]) {
        kinds.push(kind);
        offset += length;
    }
    assert_eq!(kinds[..3], [i64::from(record::CRC), i64::from(record::METADATA), i64::from(record::STATE)]);
    let (wal, log) = open(&directory, (0, 0)).unwrap();
    assert_eq!(all(&wal, &log), entries(1..=200, 1));
    assert_eq!(log.hard_state, state(1, 200));
}

#[test]
fn reading_starts_at_the_segment_that_holds_what_follows() {
    let (directory, mut wal) = create(&small());
    for index in 1..=200 {
        let term = 1 + u64::from(index >= 80);
        save(&mut wal, &[entry(index, term)], state(term, index));
    }
    drop(wal);
    let (wal, log) = open(&directory, (150, 2)).unwrap();
    assert!(log.start.0.0 > 80 && log.start.0.0 <= 150, "{:?}", log.start);
    assert_eq!((log.start.1, log.last), (Term(2), LogIndex(200)));
    assert_eq!(all(&wal, &log), entries(log.start.0.0 + 1..=200, 2));
    let error = open(&directory, (150, 1)).unwrap_err();
    assert!(matches!(error, WalError::Locked { .. }), "{error}");
    drop(wal);
    let error = open(&directory, (150, 1)).unwrap_err();
    assert!(matches!(error, WalError::OtherHistory { .. }), "{error}");
}

#[test]
fn replaced_entries_are_gone() {
    let (directory, mut wal) = create(&small());
    save(&mut wal, &entries(1..=60, 1), state(1, 10));
    save(&mut wal, &entries(20..=30, 2), state(2, 10));
    save(&mut wal, &entries(25..=26, 3), state(3, 10));
    let expected: Vec<_> = [entries(1..=19, 1), entries(20..=24, 2), entries(25..=26, 3)].concat();
    assert_eq!(wal.reader().entries(LogIndex(1), LogIndex(26), usize::MAX).unwrap(), expected);
    drop(wal);
    let (wal, log) = open(&directory, (0, 0)).unwrap();
    assert_eq!(all(&wal, &log), expected);
    let runs: Vec<_> = log.terms.iter().map(|run| (run.first.0, run.term.0)).collect();
    assert_eq!(runs, [(1, 1), (20, 2), (25, 3)]);
}

#[test]
fn appending_goes_on_after_a_restart() {
    let (directory, mut wal) = create(&small());
    save(&mut wal, &entries(1..=10, 1), state(1, 10));
    drop(wal);
    let (mut wal, _) = open(&directory, (0, 0)).unwrap();
    save(&mut wal, &entries(11..=150, 1), state(1, 10));
    drop(wal);
    let (wal, log) = open(&directory, (0, 0)).unwrap();
    assert_eq!(all(&wal, &log), entries(1..=150, 1));
}

#[test]
fn a_gap_is_refused_and_poisons() {
    let (_, mut wal) = create(&small());
    assert!(matches!(wal.append(&[entry(2, 1)], None), Err(WalError::Gone { .. })));
    assert!(matches!(wal.append(&[entry(1, 1)], None), Err(WalError::Poisoned { .. })));
}

#[test]
fn a_failed_write_or_sync_is_final() {
    for n in 0..2 {
        let (directory, mut wal) = create(&small());
        save(&mut wal, &entries(1..=3, 1), state(1, 1));
        directory.fail_after(n);
        wal.append(&[entry(4, 1)], None).unwrap();
        assert!(matches!(wal.sync(), Err(WalError::Io { .. })));
        directory.crash(Loss::All);
        assert!(matches!(wal.sync(), Err(WalError::Poisoned { .. })));
        assert!(matches!(wal.append(&[], None), Err(WalError::Poisoned { .. })));
        drop(wal);
        let (_, log) = open(&directory, (0, 0)).unwrap();
        assert_eq!(log.last, LogIndex(3));
    }
}

#[test]
fn a_failure_at_any_step_of_a_new_segment_loses_nothing() {
    for n in 0..12 {
        let (directory, mut wal) = create(&small());
        let mut synced = 0;
        directory.fail_after(2 * 40 + n);
        while synced < 1000 {
            if wal.append(&[entry(synced + 1, 1)], Some(&state(1, synced))).and_then(|()| wal.sync()).is_err() {
                break;
            }
            synced += 1;
        }
        assert!(synced < 1000);
        directory.crash(Loss::All);
        drop(wal);
        let (mut wal, log) = open(&directory, (0, 0)).unwrap();
        assert!(log.last.0 >= synced && log.last.0 <= synced + 1, "{n}: {:?} {synced}", log.last);
        save(&mut wal, &entries(log.last.0 + 1..=log.last.0 + 200, 1), state(1, synced));
    }
}

#[test]
fn zeros_written_ahead_change_no_byte_and_survive_the_change_of_segments() {
    let options = Options { segment_bytes: 16 << 10, ..small() };
    let ((plain, mut alone), (other, mut wal)) = (create(&options), create(&options));
    let mut filler = wal.filler();
    let mut chunks = 0;
    for index in 1..=600 {
        save(&mut alone, &[entry(index, 1)], state(1, index));
        save(&mut wal, &[entry(index, 1)], state(1, index));
        while filler.step().unwrap() {
            chunks += 1;
        }
    }
    assert!(wal.segments() > 1 && chunks >= wal.segments());
    for name in plain.names().unwrap() {
        assert!(plain.contents(&name) == other.contents(&name), "{name}");
    }
}

#[test]
fn released_segments_go_oldest_first_and_some_stay() {
    let (directory, mut wal) = create(&small());
    for index in 1..=300 {
        save(&mut wal, &[entry(index, 1)], state(1, index));
    }
    let before = wal.segments();
    assert_eq!(wal.release(LogIndex(300), usize::MAX).unwrap(), 0);
    assert_eq!(wal.release(LogIndex(20), 1).unwrap(), 0);
    let removed = wal.release(LogIndex(150), 1).unwrap();
    assert!(removed > 0 && wal.segments() == before - removed);
    assert!(matches!(wal.reader().entries(LogIndex(1), LogIndex(5), 1), Err(WalError::Gone { .. })));
    assert_eq!(wal.reader().entries(LogIndex(151), LogIndex(300), usize::MAX).unwrap(), entries(151..=300, 1));
    assert_eq!(wal.release(LogIndex(300), 2).unwrap(), before - removed - 2);
    drop(wal);
    let error = open(&directory, (0, 0)).unwrap_err();
    assert!(matches!(error, WalError::StartsAfter { .. }), "{error}");
    let (_, log) = open(&directory, (300, 1)).unwrap();
    assert_eq!(log.last, LogIndex(300));
}

#[test]
fn a_reader_stops_at_its_limit_but_gives_one_entry() {
    let (_, mut wal) = create(&small());
    save(&mut wal, &entries(1..=50, 1), state(1, 50));
    let reader = wal.reader();
    let read = |first, last, bytes| reader.entries(LogIndex(first), LogIndex(last), bytes).unwrap().len();
    assert_eq!(read(1, 50, 0), 1);
    assert_eq!(read(5, 50, 0), 1);
    assert_eq!(read(5, 50, 100), 3);
    assert_eq!(read(5, 7, usize::MAX), 3);
    assert_eq!(read(7, 5, usize::MAX), 0);
    assert!(matches!(reader.entries(LogIndex(50), LogIndex(51), usize::MAX), Err(WalError::Gone { .. })));
}

#[test]
fn a_torn_end_is_cut_off_and_kept_beside() {
    let (directory, mut wal) = create(&small());
    save(&mut wal, &entries(1..=3, 1), state(1, 3));
    let end = data_end(&directory, &last_segment(&directory));
    let large = raftpb::Entry { data: vec![7; 3000].into(), ..entry(4, 1) };
    save(&mut wal, &[large], state(1, 3));
    drop(wal);
    // One sector of the large record never reached the disk.
    for offset in 1024..1536 {
        directory.corrupt(&last_segment(&directory), offset, |_| 0);
    }
    let (mut wal, log) = open(&directory, (0, 0)).unwrap();
    let name = last_segment(&directory);
    let repair = log.repaired.clone().unwrap();
    assert_eq!((repair.file.as_str(), repair.offset), (name.as_str(), end as u64));
    assert_eq!(log.last, LogIndex(3));
    assert!(directory.contents(&format!("{name}.broken")).unwrap()[end..].contains(&7));
    assert!(directory.contents(&name).unwrap()[end..].iter().all(|byte| *byte == 0));
    save(&mut wal, &entries(4..=5, 2), state(2, 3));
    drop(wal);
    let (wal, log) = open(&directory, (0, 0)).unwrap();
    assert_eq!(log.repaired, None);
    assert_eq!(all(&wal, &log), [entries(1..=3, 1), entries(4..=5, 2)].concat());
}

#[test]
fn damage_that_no_interrupted_write_explains_is_refused() {
    let (directory, mut wal) = create(&small());
    save(&mut wal, &entries(1..=30, 1), state(1, 3));
    drop(wal);
    let name = last_segment(&directory);
    let end = data_end(&directory, &name);
    for offset in [30, 100, end / 2, end - 60] {
        directory.corrupt(&name, offset, |byte| byte ^ 0x40);
        let error = open(&directory, (0, 0)).unwrap_err();
        assert!(matches!(error, WalError::Corrupt { .. }), "at {offset}: {error}");
        directory.corrupt(&name, offset, |byte| byte ^ 0x40);
    }
    open(&directory, (0, 0)).unwrap();
}

/// The head is durable before the segment gets its name: an end within it was once "repaired" to an empty file, which
/// the next start refused.
#[test]
fn a_damaged_head_is_refused_and_left_as_it_is() {
    for size in [3, 14, 20] {
        let (directory, wal) = create(&small());
        drop(wal);
        let name = last_segment(&directory);
        directory.open(&name).unwrap().set_size(size).unwrap();
        let refused = open(&directory, (0, 0)).unwrap_err();
        assert!(matches!(refused, WalError::Corrupt { .. }), "{refused}");
        assert_eq!(directory.open(&name).unwrap().size().unwrap(), size);
        assert_eq!(directory.names().unwrap(), [name]);
    }
}

#[test]
fn an_end_before_the_states_position_is_refused_and_left_as_it_is() {
    let (directory, mut wal) = create(&small());
    save(&mut wal, &entries(1..=8, 1), state(1, 8));
    let large = raftpb::Entry { data: vec![7; 2000].into(), ..entry(9, 1) };
    save(&mut wal, &[large], state(1, 9));
    drop(wal);
    let name = last_segment(&directory);
    for offset in 1024..1536 {
        directory.corrupt(&name, offset, |_| 0);
    }
    let before = directory.contents(&name).unwrap();
    let refused = open(&directory, (9, 1)).unwrap_err();
    assert!(refused.to_string().contains("before entries that the state has applied"), "{refused}");
    assert_eq!((directory.contents(&name).unwrap(), directory.names().unwrap()), (before, vec![name]));
    let (_, log) = open(&directory, (8, 1)).unwrap();
    assert!(log.repaired.is_some(), "without them it is an interrupted write");
}

/// The space of a segment is reserved before it gets its name: a log cut in half lost what was promised, and was once
/// taken for an interrupted write.
#[test]
fn a_segment_that_lost_its_end_is_refused_and_left_as_it_is() {
    let (directory, mut wal) = create(&small());
    save(&mut wal, &entries(1..=9, 1), state(1, 9));
    drop(wal);
    let name = last_segment(&directory);
    let half = data_end(&directory, &name) as u64 / 2 + 1;
    directory.open(&name).unwrap().set_size(half).unwrap();
    for applied in [(0, 0), (9, 1)] {
        let refused = open(&directory, applied).unwrap_err();
        assert!(refused.to_string().contains("ends within a record"), "{refused}");
        assert_eq!(directory.open(&name).unwrap().size().unwrap(), half);
    }
}

/// A flipped bit in a length made the rest of the log a record that reaches beyond the end, or nothing at all, and so an
/// interrupted write: what was acknowledged was cut off. The types of records are under no checksum either.
#[test]
fn no_flipped_bit_loses_an_entry() {
    let (directory, mut wal) = create(&small());
    for index in 1..=12 {
        let large = raftpb::Entry { data: vec![0; 40 * usize::try_from(index).unwrap()].into(), ..entry(index, 2) };
        save(&mut wal, &[large], state(2, index - 1));
    }
    let written = wal.reader().entries(LogIndex(1), LogIndex(12), usize::MAX).unwrap();
    drop(wal);
    let name = last_segment(&directory);
    let mut harmless = 0;
    for bit in 0..data_end(&directory, &name) * 8 {
        directory.corrupt(&name, bit / 8, |byte| byte ^ 1 << (bit % 8));
        let survivors = open(&directory, (0, 0)).map(|(wal, log)| {
            assert_eq!(log.hard_state, state(2, 11), "bit {bit}");
            all(&wal, &log)
        });
        match survivors {
            Ok(entries) => {
                assert_eq!(entries, written, "bit {bit}");
                harmless += 1;
            }
            Err(error) => assert!(error.to_string().contains("add it again"), "bit {bit}: {error}"),
        }
        directory.corrupt(&name, bit / 8, |byte| byte ^ 1 << (bit % 8));
    }
    println!("{harmless} bits that mean nothing");
}

#[test]
fn a_torn_record_in_an_older_segment_is_refused() {
    let (directory, mut wal) = create(&small());
    for index in 1..=200 {
        save(&mut wal, &[entry(index, 1)], state(1, index));
    }
    drop(wal);
    let first = directory.names().unwrap()[0].clone();
    for offset in 1024..1536 {
        directory.corrupt(&first, offset, |_| 0);
    }
    let error = open(&directory, (0, 0)).unwrap_err();
    assert!(matches!(error, WalError::Corrupt { offset, .. } if offset < 1536), "{error}");
    // A state that needs nothing from there does not mind.
    open(&directory, (200, 1)).unwrap();
}

#[test]
fn foreign_and_newer_files_are_refused() {
    let with = |build: &dyn Fn(&mut record::Encoder)| {
        let mut encoder = record::Encoder::default();
        build(&mut encoder);
        let directory = MemoryDirectory::default();
        let file = directory.create("0000000000000000-0000000000000000.wal").unwrap();
        file.write_at(&encoder.buffer, 0).unwrap();
        open(&directory, (0, 0)).unwrap_err()
    };
    let error = with(&|encoder| encoder.metadata(1, 2));
    assert!(error.to_string().contains("not a segment of a log"), "{error}");
    let error = with(&|encoder| encoder.crc_record());
    assert!(error.to_string().contains("has no metadata"), "{error}");
    let error = with(&|encoder| {
        encoder.crc_record();
        encoder.metadata(1, 2);
        encoder.metadata(1, 3);
    });
    assert!(error.to_string().contains("another member"), "{error}");
    let error = with(&|encoder| {
        encoder.crc_record();
        encoder.metadata(1, 2);
        encoder.record(9, b"from the future", &[]);
    });
    assert!(matches!(error, WalError::UnknownRecord { kind: 9, .. }), "{error}");
    let empty = MemoryDirectory::default();
    assert!(matches!(open(&empty, (0, 0)), Err(WalError::Missing { .. })));
}

#[test]
fn a_received_snapshot_begins_the_log_anew() {
    let (directory, mut wal) = create(&small());
    save(&mut wal, &entries(1..=120, 1), state(1, 5));
    wal.mark_snapshot(&mark(100, 7)).unwrap();
    save(&mut wal, &entries(101..=102, 7), state(7, 100));
    assert_eq!(wal.reader().entries(LogIndex(101), LogIndex(102), usize::MAX).unwrap(), entries(101..=102, 7));
    assert!(wal.reader().entries(LogIndex(100), LogIndex(102), usize::MAX).is_err());
    drop(wal);
    let error = open(&directory, (5, 1)).unwrap_err();
    let WalError::SnapshotAhead { index, term, .. } = error else { panic!("{error}") };
    assert_eq!((index, term), (LogIndex(100), Term(7)));
    let (wal, log) = open(&directory, (100, 7)).unwrap();
    assert_eq!((log.start, log.last), ((LogIndex(100), Term(7)), LogIndex(102)));
    assert_eq!(all(&wal, &log), entries(101..=102, 7));
}

#[test]
fn a_snapshot_whose_batch_was_not_finished_was_never_received() {
    let (directory, mut wal) = create(&small());
    save(&mut wal, &entries(1..=20, 1), state(1, 5));
    wal.mark_snapshot(&mark(100, 7)).unwrap();
    wal.append(&entries(101..=102, 7), None).unwrap();
    wal.flush().unwrap();
    drop(wal);
    let (mut wal, log) = open(&directory, (5, 1)).unwrap();
    assert!(log.repaired.is_some());
    assert_eq!((log.start, log.last, log.hard_state), (START, LogIndex(20), state(1, 5)));
    assert_eq!(log.snapshots, [mark(0, 0)]);
    save(&mut wal, &entries(21..=130, 2), state(2, 130));
    drop(wal);
    let (wal, log) = open(&directory, (5, 1)).unwrap();
    assert_eq!(all(&wal, &log), [entries(1..=20, 1), entries(21..=130, 2)].concat());
}

#[test]
fn a_mark_of_our_own_state_changes_nothing() {
    let (directory, mut wal) = create(&small());
    for index in 1..=100 {
        save(&mut wal, &[entry(index, 1)], state(1, index));
        if index % 30 == 0 {
            wal.mark_snapshot(&mark(index - 10, 1)).unwrap();
            wal.sync().unwrap();
        }
    }
    wal.release(LogIndex(80), 1).unwrap();
    drop(wal);
    let (wal, log) = open(&directory, (90, 1)).unwrap();
    assert_eq!(log.last, LogIndex(100));
    assert_eq!(all(&wal, &log), entries(log.start.0.0 + 1..=100, 1));
}

#[test]
fn a_segment_that_begins_with_an_older_mark_is_read() {
    let (directory, mut wal) = create(&small());
    while wal.segments() < 3 {
        let index = wal.lock_last() + 1;
        save(&mut wal, &[entry(index, 1)], state(1, index));
    }
    let last = wal.lock_last();
    wal.mark_snapshot(&mark(last - 5, 1)).unwrap();
    save(&mut wal, &entries(last + 1..=last + 3, 1), state(1, last));
    drop(wal);
    let (wal, log) = open(&directory, (last + 1, 1)).unwrap();
    // The term before its first entry is not in the segment, so that entry serves as the start.
    assert_eq!((log.start, log.last), ((LogIndex(last + 1), Term(1)), LogIndex(last + 3)));
    assert_eq!(all(&wal, &log), entries(last + 2..=last + 3, 1));
}

#[test]
fn the_operating_systems_files_do_as_well() {
    let home = tempfile::tempdir().unwrap();
    let directory = FileDirectory::new(home.path());
    let mut wal = Wal::create(directory.clone(), METADATA, &small()).unwrap();
    for index in 1..=200 {
        wal.append(&[entry(index, 1)], Some(&state(1, index))).unwrap();
        wal.sync().unwrap();
    }
    assert_eq!(wal.reader().entries(LogIndex(1), LogIndex(200), usize::MAX).unwrap(), entries(1..=200, 1));
    assert!(wal.release(LogIndex(100), 1).unwrap() > 0);
    let open = || Wal::open(directory.clone(), (LogIndex(150), Term(1)), &small());
    assert!(matches!(open(), Err(WalError::Locked { .. })));
    drop(wal);
    let (wal, log) = open().unwrap();
    assert_eq!((log.metadata, log.last, log.hard_state), (METADATA, LogIndex(200), state(1, 200)));
    assert_eq!(wal.reader().entries(LogIndex(151), log.last, usize::MAX).unwrap(), entries(151..=200, 1));
}

#[test]
fn a_survey_changes_nothing_and_takes_no_lock() {
    let (directory, mut wal) = create(&small());
    save(&mut wal, &entries(1..=100, 1), state(1, 50));
    let survey = survey(&directory).unwrap();
    assert_eq!((survey.metadata, survey.first, survey.last), (METADATA, LogIndex(1), LogIndex(100)));
    assert_eq!(survey.hard_state, state(1, 50));
    assert_eq!(survey.reader.entries(LogIndex(1), LogIndex(100), usize::MAX).unwrap(), entries(1..=100, 1));
    save(&mut wal, &entries(101..=102, 1), state(1, 50));
}

/// The first records of a member of etcd 3.7.1 with one founder, up to its second entry, as it wrote them: entries
/// leave out a type of zero, and hard states do not leave out a vote of zero.
const ETCD: &str = "\
    040000000000008408041000000000001e000000000000820801109bc3f5f70f1a1408e79dafbcaea1aabb5c10aceb81f98eb1c0b7530000\
    0e00000000000082080510f1cdd1b40f1a040800100000006c00000000000084080210a3bceebd0e1a62080110011801225a100018e79daf\
    bcaea1aabb5c224c7b226964223a363636323639383536333034303639333939312c227065657255524c73223a5b22687474703a2f2f3132\
    372e302e302e313a3333333830225d2c226e616d65223a226e31227d000000001000000000000000080310aecceb92091a06080110001801\
    1800000000000000080310a5ddb9d3061a0e080210e79dafbcaea1aabb5c18010e000000000000820802108fa698fe031a04100218020000";

fn etcd_bytes() -> Vec<u8> {
    let digits: Vec<_> = ETCD.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

#[test]
fn a_log_of_etcd_is_read_and_gone_on_with() {
    let directory = MemoryDirectory::default();
    directory.create("0000000000000000-0000000000000000.wal").unwrap().write_at(&etcd_bytes(), 0).unwrap();
    let (mut wal, log) = open(&directory, (0, 0)).unwrap();
    assert_eq!(log.repaired, None);
    assert_eq!(log.metadata.member, MemberId(6_662_698_563_040_693_991));
    assert_eq!((log.last, log.hard_state.term, log.hard_state.commit), (LogIndex(2), 2, 1));
    let read = all(&wal, &log);
    assert_eq!(read[0].r#type(), raftpb::EntryType::EntryConfChange);
    assert_eq!(read[1], raftpb::Entry { term: 2, index: 2, ..Default::default() });
    save(&mut wal, &[entry(3, 2)], state(2, 2));
    drop(wal);
    assert_eq!(open(&directory, (0, 0)).unwrap().1.last, LogIndex(3));
}

#[test]
fn what_we_write_is_what_etcd_3_5_writes() {
    let directory = MemoryDirectory::default();
    directory.create("0000000000000000-0000000000000000.wal").unwrap().write_at(&etcd_bytes(), 0).unwrap();
    let survey = survey(&directory).unwrap();
    let copy = MemoryDirectory::default();
    let mut wal = Wal::create(copy.clone(), survey.metadata, &small()).unwrap();
    let read = survey.reader.entries(LogIndex(1), LogIndex(1), usize::MAX).unwrap();
    wal.append(&read, Some(&raftpb::HardState { term: 1, vote: 0, commit: 1 })).unwrap();
    wal.append(&[], Some(&raftpb::HardState { term: 2, vote: survey.metadata.member.0, commit: 1 })).unwrap();
    wal.sync().unwrap();
    // The same up to the first normal entry, whose type 3.7 leaves out and 3.5 and 3.6 write.
    let (ours, theirs) = (copy.contents(&last_segment(&copy)).unwrap(), etcd_bytes());
    assert_eq!(ours[..0x100], theirs[..0x100]);
}

/// One step of a writer.
#[derive(Clone, Debug)]
enum Action {
    Append { back: u64, count: u64, sync: bool },
    Commit,
    Restart,
    Crash(Loss),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let loss = prop_oneof![Just(Loss::All), Just(Loss::Nothing), any::<u64>().prop_map(Loss::Torn)];
    let action = prop_oneof![
        8 => (0_u64..4, 1_u64..12, any::<bool>()).prop_map(|(back, count, sync)| Action::Append { back, count, sync }),
        2 => Just(Action::Commit),
        1 => Just(Action::Restart),
        2 => loss.prop_map(Action::Crash),
    ];
    prop::collection::vec(action, 1..40)
}

/// What a log must hold at least, and what it may hold.
#[derive(Default)]
struct Model {
    /// As of the last sync.
    synced: Vec<raftpb::Entry>,
    written: Vec<raftpb::Entry>,
    term: u64,
}

impl Model {
    fn append(&mut self, back: u64, count: u64) -> Vec<raftpb::Entry> {
        self.term += 1;
        let keep = self.written.len().saturating_sub(usize::try_from(back).unwrap());
        self.written.truncate(keep);
        let first = keep as u64 + 1;
        let fresh: Vec<_> = (first..first + count).map(|index| entry(index, self.term)).collect();
        self.written.extend(fresh.iter().cloned());
        fresh
    }
}

proptest! {
    /// Whatever happens between, a log holds all that was synced unless something written later replaced it, and
    /// nothing that was not written.
    #[test]
    fn synced_entries_survive_any_crash(actions in actions()) {
        let (directory, mut wal) = create(&small());
        let mut model = Model::default();
        for action in actions {
            match action {
                Action::Append { back, count, sync } => {
                    let fresh = model.append(back, count);
                    wal.append(&fresh, Some(&state(model.term, 0))).unwrap();
                    if sync {
                        wal.sync().unwrap();
                        model.synced = model.written.clone();
                    } else {
                        wal.flush().unwrap();
                    }
                }
                Action::Commit => {
                    wal.append(&[], Some(&state(model.term.max(1), 0))).unwrap();
                    wal.flush().unwrap();
                }
                Action::Restart | Action::Crash(_) => {
                    if let Action::Crash(loss) = action {
                        directory.crash(loss);
                    }
                    drop(wal);
                    let (reopened, log) = open(&directory, (0, 0)).unwrap();
                    wal = reopened;
                    let read = all(&wal, &log);
                    let common = model.synced.iter().zip(&model.written).take_while(|(a, b)| a == b).count();
                    prop_assert!(read.len() >= common, "{} of {}", read.len(), common);
                    for entry in &read {
                        let position = usize::try_from(entry.index).unwrap() - 1;
                        let known = [&model.synced, &model.written].iter().any(|list| list.get(position) == Some(entry))
                            || entry.term < model.term;
                        prop_assert!(known, "{entry:?}");
                    }
                    prop_assert!(read.windows(2).all(|pair| pair[0].term <= pair[1].term));
                    if matches!(action, Action::Restart) {
                        prop_assert_eq!(&read, &model.written);
                    }
                    model.written = read.clone();
                    model.synced = read;
                }
            }
        }
    }

    /// Any damage to any byte is noticed, or hits nothing that is read.
    #[test]
    fn no_damage_goes_unnoticed(at in 0.0_f64..1.0, flip in 1_u8..=255) {
        let (directory, mut wal) = create(&small());
        save(&mut wal, &entries(1..=40, 1), state(1, 40));
        drop(wal);
        let name = last_segment(&directory);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place")]
        let offset = (data_end(&directory, &name) as f64 * at) as usize;
        directory.corrupt(&name, offset, |byte| byte ^ flip);
        match open(&directory, (0, 0)) {
            Err(_) => {}
            Ok((wal, log)) => {
                // A length field turned into zero ends the log; the commit index shows that something is missing.
                let read = all(&wal, &log);
                prop_assert_eq!(&read[..], &entries(1..=40, 1)[..read.len()]);
            }
        }
    }

    /// Any bytes after a valid head are read without panic and without trust in their lengths.
    #[test]
    fn any_bytes_as_a_segment_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..2000), headed in any::<bool>()) {
        let mut encoder = record::Encoder::default();
        if headed {
            encoder.crc_record();
            encoder.metadata(1, 2);
        }
        encoder.buffer.extend_from_slice(&bytes);
        let directory = MemoryDirectory::default();
        directory.create("0000000000000000-0000000000000000.wal").unwrap().write_at(&encoder.buffer, 0).unwrap();
        if let Ok((wal, log)) = open(&directory, (0, 0)) {
            let _read = wal.reader().entries(LogIndex(log.start.0.0 + 1), log.last, usize::MAX);
        }
    }
}
