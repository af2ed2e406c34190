//! Any bytes in the place of a database are rows in order or a named refusal; whatever is read is written and read again
//! alike, and whatever is imported can be served, exported and imported again.
//!
//! The first byte chooses: even, the rest is put behind a sound first meta page as pages; odd, the rest is damage done to
//! a sound file of etcd's shape, four bytes each: page, position and a value; so that the reader and the import are
//! reached behind the checksum.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use quorate::apply::{Applier, ApplyOptions, exchange};
use quorate::disk::{Directory as _, DiskFile as _, MemoryDirectory, MemoryFile};
use quorate::etcdfile::bbolt::{Reader, Row, Writer};
use quorate::etcdfile::database::{self, Bucket};
use quorate::membership::{Founding, Version};
use quorate::storage::MemoryEngine;
use quorate::types::{ClusterId, MemberId};

const PAGE_BYTES: usize = 4_096;
const OWN: Version = Version::minor(3, 7);
const OPTIONS: exchange::ImportOptions = exchange::ImportOptions {
    cluster: ClusterId(1),
    server_version: OWN,
    index: None,
    configuration: None,
    memory_bytes: 2_000,
};

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let directory = MemoryDirectory::default();
    let file = sound(&directory, usize::from(*choice / 2));
    if choice % 2 == 0 {
        file.write_at(rest, 2 * PAGE_BYTES as u64).expect("memory");
    } else {
        damage(&file, rest);
    }
    read(directory.open("db").expect("memory"));
    let examined = examine(directory.open("db").expect("memory"));
    refound(directory.open("db").expect("memory"), examined);
    import(file, examined);
});

/// A database with a row in most buckets, and keys enough for branches.
fn sound(directory: &MemoryDirectory, keys: usize) -> MemoryFile {
    let mut writer = Writer::new(directory.create("db").expect("memory"));
    for bucket in Bucket::ALL {
        writer.bucket(bucket.name()).expect("in order");
        for (key, value) in rows_of(bucket, keys) {
            writer.put(key, value).expect("in order");
        }
    }
    writer.finish().expect("memory").file
}

fn rows_of(bucket: Bucket, keys: usize) -> Vec<(Bytes, Bytes)> {
    let named = |key: &'static str, value: &'static [u8]| (Bytes::from(key), Bytes::from_static(value));
    const NUMBER: &[u8] = b"\0\0\0\0\0\0\0\x09";
    match bucket {
        Bucket::Alarm => vec![named("\x08\x01\x10\x01", b"")],
        Bucket::Auth => vec![named("authRevision", NUMBER)],
        Bucket::Cluster => vec![named("clusterVersion", b"3.6.0")],
        Bucket::Key => (0..keys).map(change).collect(),
        Bucket::Lease => vec![(Bytes::from_static(NUMBER), Bytes::from_static(b"\x08\x09\x10\x3c"))],
        Bucket::Members => vec![named("1", br#"{"id":1,"peerURLs":["http://h1:1"]}"#)],
        Bucket::MembersRemoved => vec![named("2", b"removed")],
        Bucket::Meta => vec![
            named("confState", br#"{"voters":[1],"auto_leave":false}"#),
            named("consistent_index", NUMBER),
            named("term", NUMBER),
        ],
        Bucket::AuthRoles | Bucket::AuthUsers => Vec::new(),
    }
}

/// Puts of few keys in turn, and now and then a tombstone.
fn change(number: usize) -> (Bytes, Bytes) {
    let revision = number as u8 + 2;
    let mut key = [b"\0\0\0\0\0\0\0".as_slice(), &[revision], b"_\0\0\0\0\0\0\0\0"].concat();
    let name = b'a' + (number % 5) as u8;
    if number % 4 == 3 {
        key.push(b't');
        return (key.into(), vec![0x0a, 1, name].into());
    }
    let filler = 60;
    let value = [&[0x0a, 1, name, 0x18, revision & 0x7f, 0x2a, filler][..], &vec![b'v'; filler.into()]].concat();
    (key.into(), value.into())
}

fn damage(file: &MemoryFile, changes: &[u8]) {
    for change in changes.chunks_exact(4) {
        let &[page, high, low, value] = change else { unreachable!("chunks of four") };
        let at = (2 + usize::from(page) % 8) * PAGE_BYTES + (usize::from(high) * 256 + usize::from(low)) % PAGE_BYTES;
        file.write_at(&[value], at as u64).expect("memory");
    }
}

fn read(file: MemoryFile) {
    let Ok(reader) = Reader::open(file) else { return };
    let Ok(rows) = reader.rows().and_then(|rows| rows.collect::<Result<Vec<Row>, _>>()) else { return };
    let _ = (database::position(&reader), database::check_buckets(&reader), database::check_seal(&reader));
    let names = reader.bucket_names().expect("all rows were read");
    let directory = MemoryDirectory::default();
    let mut writer = Writer::new(directory.create("copy").expect("memory"));
    for name in names {
        writer.bucket(name.clone()).expect("in order");
        for row in rows.iter().filter(|row| row.bucket == name) {
            writer.put(row.key.clone(), row.value.clone()).expect("in order");
        }
    }
    let copy = Reader::open(writer.finish().expect("memory").file).expect("just written");
    let again = copy.rows().expect("just written").collect::<Result<Vec<_>, _>>().expect("just written");
    assert_eq!(again, rows);
    assert_eq!(database::hash(&copy).expect("sound"), database::hash(&reader).expect("sound"));
}

/// Whether an examination finds nothing wrong.
fn examine(file: MemoryFile) -> bool {
    Reader::open(file).is_ok_and(|reader| exchange::examine(&reader, &OPTIONS).is_ok())
}

/// What can be examined can be the beginning of a new cluster.
fn refound(file: MemoryFile, examined: bool) {
    let founding = Founding::new(&[("n".to_owned(), vec!["http://n:1".to_owned()])].into(), "t").expect("sound");
    let refounding =
        exchange::Refounding { founding: &founding, server_version: OWN, revisions_skipped: None, memory_bytes: 2_000 };
    let engine = MemoryEngine::new();
    let done = exchange::refound(file, &engine, &MemoryDirectory::default(), &refounding);
    assert!(!examined || done.is_ok());
    if done.is_ok() {
        let applier = Applier::open(engine, ApplyOptions::new(MemberId(1), OWN)).expect("a state that was made opens");
        applier.published().view.verify().expect("a state that was made is sound");
    }
}

fn import(file: MemoryFile, examined: bool) {
    let first = imported(file);
    assert_eq!(first.is_some(), examined);
    let Some(first) = first else { return };
    let published = first.published();
    published.view.verify().expect("an imported state is sound");
    let export = || {
        let file = MemoryDirectory::default().create("db").expect("memory");
        exchange::export(&published, file).expect("an imported state can be exported").file
    };
    let second = imported(export()).expect("what was exported can be imported").published();
    assert_eq!(second.view.hash_kv(0).expect("the newest"), published.view.hash_kv(0).expect("the newest"));
    assert_eq!((second.applied, second.term, second.cluster), (published.applied, published.term, published.cluster));
}

fn imported(file: MemoryFile) -> Option<Applier<MemoryEngine>> {
    let engine = MemoryEngine::new();
    exchange::import(file, &engine, &MemoryDirectory::default(), &OPTIONS).ok()?;
    let own =
        ApplyOptions { member: MemberId(1), server_version: OWN, lease_ttl_min: 2, learners_max: 1, quota_bytes: None };
    Some(Applier::open(engine, own).expect("an imported state opens"))
}
