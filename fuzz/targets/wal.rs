//! Any bytes in the place of a log are a log or a named refusal, and what opens once opens again to the same contents.
//!
//! The first byte chooses: even, the rest is the segment as it stands; odd, the rest is damage done to a sound log, three
//! bytes each: position and a mask; so that the reader is reached behind the checksums too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate::disk::{Directory as _, DiskFile as _, MemoryDirectory};
use quorate::pb::raftpb::{Entry, HardState};
use quorate::types::{ClusterId, LogIndex, MemberId, Term};
use quorate::wal::{self, Metadata, Options, Wal, decode_frame};

const SEGMENT: &str = "0000000000000000-0000000000000000.wal";
const START: (LogIndex, Term) = (LogIndex(0), Term(0));
const OPTIONS: Options = Options { segment_bytes: 4_096, unsafe_no_fsync: true };

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let directory = MemoryDirectory::default();
    if choice % 2 == 0 {
        let _ = decode_frame(rest);
        place(&directory, rest);
    } else {
        write_log(&directory, usize::from(*choice));
        damage(&directory, rest);
    }
    read(&directory);
});

fn place(directory: &MemoryDirectory, bytes: &[u8]) {
    let file = directory.create(SEGMENT).expect("memory");
    file.write_at(bytes, 0).expect("memory");
}

/// A log of a few entries, its sizes depending on `seed`.
fn write_log(directory: &MemoryDirectory, seed: usize) {
    let metadata = Metadata { member: MemberId(1), cluster: ClusterId(2) };
    let mut log = Wal::create(directory.clone(), metadata, &OPTIONS).expect("memory");
    for index in 1..=8 {
        let size = seed * 7 % 500 * index;
        let entry = Entry { term: 1, index: index as u64, data: vec![7; size].into(), ..Entry::default() };
        let state = HardState { term: 1, vote: 1, commit: index as u64 - 1 };
        log.append(&[entry], Some(&state)).expect("memory");
        log.sync().expect("memory");
    }
}

/// Flips bytes of the last segment, or cuts it where a mask is zero.
fn damage(directory: &MemoryDirectory, changes: &[u8]) {
    let name = directory.names().expect("memory").into_iter().rfind(|name| name.ends_with(".wal")).expect("a segment");
    for change in changes.chunks_exact(3) {
        let &[high, low, mask] = change else { unreachable!("chunks of three") };
        let position = usize::from(high) * 256 + usize::from(low);
        if mask == 0 {
            directory.open(&name).expect("memory").set_size(position as u64).expect("memory");
        } else {
            directory.corrupt(&name, position, |byte| byte ^ mask);
        }
    }
}

fn read(directory: &MemoryDirectory) {
    drop(wal::survey(directory));
    let Ok((log, found)) = Wal::open(directory.clone(), START, &OPTIONS) else { return };
    let entries =
        |log: &Wal<MemoryDirectory>| log.reader().entries(LogIndex(found.start.0.0 + 1), found.last, usize::MAX);
    let before = entries(&log).expect("an opened log holds the entries it tells of");
    drop(log);
    let (log, again) = Wal::open(directory.clone(), START, &OPTIONS).expect("what opened once opens again");
    assert_eq!((again.last, &again.terms, &again.hard_state), (found.last, &found.terms, &found.hard_state));
    assert_eq!(entries(&log).expect("as before"), before);
}
