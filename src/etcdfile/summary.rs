//! What etcd's offline tool says of a database, read from the file alone: nothing is loaded.
//!
//! Memory: less than a hundred bytes for each key that lives, however long keys and values are.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
};

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;

use super::{
    bbolt::{Reader, Row},
    database::{Bucket, DatabaseError, META_ROWS_MAX, STORAGE_VERSION_KEY},
};
use crate::{codec::crc, disk::DiskFile, pb::mvccpb::KeyValue, types::Revision};

/// Rows of [`Bucket::Meta`]: the compactions that were accepted and finished last.
const COMPACTIONS: [&[u8]; 2] = [b"scheduledCompactRev", b"finishedCompactRev"];
/// The compact revision of a store that never was compacted.
const NEVER: i64 = -1;
/// The revision of an empty store.
const FIRST: i64 = 1;

/// What a snapshot file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// CRC-32C over each bucket's name and its rows.
    pub hash: u32,
    /// The last revision in it; 0 if there is none.
    pub revision: i64,
    /// The keys that live.
    pub keys: u64,
    /// Bytes of all pages.
    pub bytes: u64,
    /// The version the file was made for; empty up to 3.5.
    pub version: String,
}

/// The hash of the key space in a file, as a member that served the file would answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHash {
    /// CRC-32C as `HashKV` has it.
    pub hash: u32,
    /// The revision hashed.
    pub revision: i64,
    /// The compaction the hash is relative to; −1 if there was none.
    pub compact_revision: i64,
}

/// Why there is no hash.
#[derive(Debug, Error)]
pub enum FileHashError {
    /// The file is damaged, or not etcd's.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The history up to there is gone.
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    /// The file ends before.
    #[error("mvcc: required revision is a future revision")]
    Future,
}

/// Reads the whole file once, checking its tree.
///
/// # Errors
/// What is wrong with the file.
pub fn summarize<F: DiskFile>(reader: &Reader<F>) -> Result<Summary, DatabaseError> {
    let mut summary = Summary { bytes: reader.bytes(), ..Summary::default() };
    let (mut living, mut last) = (Living::default(), None);
    let mut names = reader.bucket_names()?.into_iter();
    for row in reader.rows()? {
        let row = row?;
        // Buckets without rows count by their names.
        while last.as_ref() != Some(&row.bucket)
            && let Some(name) = names.next()
        {
            summary.hash = crc::append(summary.hash, &name);
            last = Some(name);
        }
        summary.hash = crc::append(crc::append(summary.hash, &row.key), &row.value);
        match Bucket::named(&row.bucket) {
            Some(Bucket::Key) => {
                let change = Change::read(&row)?;
                summary.revision = change.at.main;
                living.see(&change);
            }
            Some(Bucket::Meta) if row.key == STORAGE_VERSION_KEY => summary.version = version(&row.value),
            _ => {}
        }
    }
    summary.hash = names.fold(summary.hash, |hash, name| crc::append(hash, &name));
    summary.keys = living.keys.len() as u64;
    Ok(summary)
}

/// The text of a version; nothing if it is none.
fn version(value: &[u8]) -> String {
    let is_version = |text: &&str| text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(is_part);
    std::str::from_utf8(value).ok().filter(is_version).unwrap_or_default().to_owned()
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".+-".contains(&byte)
}

/// Hashes the key space at `revision` (0: the last one).
///
/// Which rows count is told where members hash ([`crate::mvcc`]): all up to the revision, of those up to the compaction
/// only what lives at the revision, and all if nothing does; no tombstone at the compaction itself.
///
/// # Errors
/// [`FileHashError`].
pub fn hash_kv<F: DiskFile>(reader: &Reader<F>, revision: i64) -> Result<FileHash, FileHashError> {
    let [scheduled, finished] = compactions(reader)?;
    let compacted = scheduled.max(finished);
    let (mut living, mut last) = (Living::default(), FIRST.max(compacted));
    for change in changes(reader)? {
        let (change, _) = change?;
        last = last.max(change.at.main);
        if revision == 0 || change.at.main <= revision {
            living.see(&change);
        }
    }
    if (1..compacted).contains(&revision) {
        return Err(FileHashError::Compacted);
    }
    if revision > last {
        return Err(FileHashError::Future);
    }
    let revision = if revision == 0 { last } else { revision };
    let mut hash = crc::append(0, Bucket::Key.name().as_bytes());
    for change in changes(reader)? {
        let (change, row) = change?;
        let Revision { main, .. } = change.at;
        let kept = main > compacted || living.keys.is_empty() || living.is_last(&change);
        if main <= revision && kept && !(main == compacted && change.tombstone) {
            hash = crc::append(crc::append(hash, &row.key), &row.value);
        }
    }
    Ok(FileHash { hash, revision, compact_revision: compacted })
}

/// The compactions in the file, in the order of [`COMPACTIONS`].
fn compactions<F: DiskFile>(reader: &Reader<F>) -> Result<[i64; 2], DatabaseError> {
    let mut found = [NEVER; 2];
    for row in reader.bucket(Bucket::Meta.name().as_bytes())?.take(META_ROWS_MAX) {
        let row = row?;
        let slots = COMPACTIONS.iter().zip(&mut found).filter(|(name, _)| row.key == **name);
        for (_, slot) in slots {
            *slot = revision(&row.value).ok_or_else(|| damaged(&row, "its value is not a revision"))?.main;
        }
    }
    Ok(found)
}

/// The changes of the key space, each with its row.
fn changes<F: DiskFile>(
    reader: &Reader<F>,
) -> Result<impl Iterator<Item = Result<(Change, Row), DatabaseError>>, DatabaseError> {
    let rows = reader.bucket(Bucket::Key.name().as_bytes())?;
    Ok(rows.map(|row| {
        let row = row?;
        Ok((Change::read(&row)?, row))
    }))
}

/// One row of the key space.
#[derive(Debug)]
struct Change {
    at: Revision,
    tombstone: bool,
    key: Bytes,
}

impl Change {
    fn read(row: &Row) -> Result<Self, DatabaseError> {
        let (at, tombstone) = match row.key.split_last_chunk() {
            Some((at, [b't'])) if at.len() == REVISION_BYTES => (revision(at), true),
            _ => (revision(&row.key), false),
        };
        let at = at.ok_or_else(|| damaged(row, "its key is not a revision"))?;
        let value = row.value.clone();
        let pair = KeyValue::decode(value).map_err(|_| damaged(row, "its value is not a pair"))?;
        Ok(Self { at, tombstone, key: pair.key })
    }
}

fn damaged(row: &Row, what: &'static str) -> DatabaseError {
    DatabaseError::Change {
        bucket: row.bucket.escape_ascii().to_string(),
        key: row.key.escape_ascii().to_string(),
        what,
    }
}

/// Bytes of a revision in the file: two numbers and a stroke between them.
const REVISION_BYTES: usize = 17;

fn revision(bytes: &[u8]) -> Option<Revision> {
    let (main, rest) = bytes.split_first_chunk()?;
    let sub = rest.strip_prefix(b"_")?.try_into().ok()?;
    Some(Revision { main: i64::from_be_bytes(*main), sub: i64::from_be_bytes(sub) })
}

/// The keys that live, and the change that wrote each. 128 bits stand for a key, drawn anew each time, so that nobody
/// makes two keys meet.
#[derive(Debug, Default)]
struct Living {
    states: [RandomState; 2],
    keys: HashMap<[u64; 2], Revision>,
}

impl Living {
    fn see(&mut self, change: &Change) {
        let name = self.name(&change.key);
        if change.tombstone {
            self.keys.remove(&name);
        } else {
            self.keys.insert(name, change.at);
        }
    }

    fn is_last(&self, change: &Change) -> bool {
        self.keys.get(&self.name(&change.key)) == Some(&change.at)
    }

    fn name(&self, key: &[u8]) -> [u64; 2] {
        let [first, second] = &self.states;
        [first, second].map(|state| state.hash_one(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::{Directory as _, MemoryDirectory, MemoryFile},
        etcdfile::bbolt::Writer,
    };

    fn at(main: u8, mark: &[u8]) -> Bytes {
        [&[0, 0, 0, 0, 0, 0, 0, main][..], b"_\0\0\0\0\0\0\0\0", mark].concat().into()
    }

    fn pair(key: &'static [u8]) -> Bytes {
        KeyValue { key: Bytes::from_static(key), ..KeyValue::default() }.encode_to_vec().into()
    }

    fn reader(changes: &[(Bytes, Bytes)], meta: &[(&'static str, Bytes)]) -> Reader<MemoryFile> {
        let mut writer = Writer::new(MemoryDirectory::default().create("db").unwrap());
        writer.bucket("alarm").unwrap();
        writer.bucket("key").unwrap();
        for (key, value) in changes {
            writer.put(key.clone(), value.clone()).unwrap();
        }
        writer.bucket("meta").unwrap();
        for (key, value) in meta {
            writer.put(Bytes::from_static(key.as_bytes()), value.clone()).unwrap();
        }
        writer.bucket("zz").unwrap();
        Reader::open(writer.finish().unwrap().file).unwrap()
    }

    /// a, b, a again, b gone, a bump.
    fn history() -> Vec<(Bytes, Bytes)> {
        let rows = [(2, b"".as_slice(), pair(b"a")), (3, b"", pair(b"b")), (4, b"", pair(b"a")), (5, b"t", pair(b"b"))];
        let mut rows: Vec<_> = rows.into_iter().map(|(main, mark, value)| (at(main, mark), value)).collect();
        rows.push((at(9, b""), Bytes::new()));
        rows
    }

    fn hash_of(rows: &[&(Bytes, Bytes)]) -> u32 {
        rows.iter().fold(crc::append(0, b"key"), |hash, (key, value)| crc::append(crc::append(hash, key), value))
    }

    #[test]
    fn summary_counts_living_keys_and_hashes_every_name() {
        let reader = reader(&history(), &[("storageVersion", Bytes::from_static(b"3.7.0"))]);
        let summary = summarize(&reader).unwrap();
        assert_eq!(summary.hash, crate::etcdfile::database::hash(&reader).unwrap());
        assert_eq!((summary.revision, summary.keys, summary.version.as_str()), (9, 2, "3.7.0"), "a, and the bump's");
        assert_eq!(summary.bytes, reader.bytes());
    }

    #[test]
    fn what_is_no_version_is_not_printed() {
        assert_eq!(
            ["3.7.0-rc.1", "", "3\x1b[1m", "v3"].map(|text| version(text.as_bytes())),
            ["3.7.0-rc.1", "", "", ""]
        );
    }

    #[test]
    fn rows_at_a_compaction_count_while_they_live() {
        let rows = history();
        let compacted = |main| [("finishedCompactRev", at(main, b""))];
        let hash = |reader: &Reader<_>, revision| hash_kv(reader, revision).unwrap();
        let never = reader(&rows, &[]);
        assert_eq!(hash(&never, 0).hash, hash_of(&rows.iter().collect::<Vec<_>>()));
        assert_eq!((hash(&never, 0).revision, hash(&never, 0).compact_revision), (9, -1));
        assert_eq!(hash(&never, 3).hash, hash_of(&[&rows[0], &rows[1]]));
        let done = reader(&rows, &compacted(5));
        assert_eq!(hash(&done, 5).hash, hash_of(&[&rows[2]]), "the tombstone is skipped");
        let scheduled = reader(&rows, &[("finishedCompactRev", at(2, b"")), ("scheduledCompactRev", at(3, b""))]);
        let expected = FileHash { hash: hash_of(&[&rows[0], &rows[1]]), revision: 3, compact_revision: 3 };
        assert_eq!(hash(&scheduled, 3), expected);
    }

    #[test]
    fn revisions_outside_of_the_file_are_refused() {
        let reader = reader(&history(), &[("scheduledCompactRev", at(5, b""))]);
        assert!(matches!(hash_kv(&reader, 4), Err(FileHashError::Compacted)));
        assert!(matches!(hash_kv(&reader, 10), Err(FileHashError::Future)));
        assert_eq!(hash_kv(&reader, -1).unwrap().hash, hash_of(&[]));
    }

    #[test]
    fn rows_that_are_none_are_named() {
        for (key, value) in
            [(Bytes::from_static(b"k"), Bytes::new()), (at(2, b"x"), pair(b"a")), (at(2, b""), "\x0a".into())]
        {
            let reader = reader(&[(key, value)], &[]);
            let refusals = [summarize(&reader).unwrap_err().to_string(), hash_kv(&reader, 0).unwrap_err().to_string()];
            assert!(refusals.iter().all(|text| text.contains("of bucket key is damaged: its ")), "{refusals:?}");
        }
        let reader = reader(&[], &[("finishedCompactRev", "x".into())]);
        assert!(hash_kv(&reader, 0).unwrap_err().to_string().contains("finishedCompactRev of bucket meta is damaged"));
    }
}
