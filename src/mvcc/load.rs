//! Rows of etcd's bucket `key`, turned into ours and loaded in bulk.
//!
//! etcd's rows come in the order of their revisions; ours are wanted in the order of our tables, and say of every change
//! what it superseded. So the versions are sorted by key, newest first, where the version after one is what it superseded.
//! They are read twice: once for the `Live` table, which also gives every row of the later tables, and once for the
//! `Version` table. What the later tables hold is small and sorted a second time; the running digest is added at the end,
//! when changes are back in their order.
//!
//! Memory: two sorters, whatever the size of the file.

use std::collections::{BTreeMap, btree_map};

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use thiserror::Error;

use super::{
    REVISION_BUMPED_MAX, REVISION_MAX,
    counts::Chunker,
    digest,
    rows::{self, Put, Trace, Version},
    store::{BUMPED, FINISHED, FIRST, SCHEDULED, meta_main, meta_value},
};
use crate::{
    codec::crc,
    disk::Directory,
    pb::mvccpb::KeyValue,
    storage::{Engine, Row, Sorted, Sorter, StorageError, Table, sorter::Merge},
    types::{KEY_BYTES_MAX, Revision},
};

/// Bytes before a version between the sorts: length and checksum of etcd's row.
const SUM_BYTES: usize = 12;
/// The memory of the sorter for the later tables, as a part of that for the versions.
const REST_SHARE: usize = 4;

/// Why rows of etcd's were not taken.
#[derive(Debug, Clone, Error)]
pub enum ImportError {
    /// The file is damaged, or not etcd's.
    #[error("row {key} of the bucket `key`: {what}")]
    Row {
        /// The row's key, escaped for printing.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Too few revisions would be left.
    #[error(
        "the last revision is {last}: it cannot be raised by {count}, only up to {REVISION_BUMPED_MAX}; choose a smaller \
         --bump-revision, a thousand million is plenty"
    )]
    Revision {
        /// The last one in the file.
        last: i64,
        /// How many were to be passed over.
        count: u64,
    },
    /// This member's store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Takes etcd's rows in their order, and every other row in any order, and loads an empty engine with all of them.
#[derive(Debug)]
pub struct Loader<D: Directory> {
    versions: Sorter<D>,
    rest: Sorter<D>,
    /// The rows of `Meta`, which stand before all others.
    head: BTreeMap<Bytes, Bytes>,
    check: RowCheck,
    /// The newest row without a value.
    bumped: Option<Revision>,
    scratch: Vec<u8>,
}

impl<D: Directory> Loader<D> {
    /// A loader that keeps what memory does not hold in `directory`, and takes about `memory_bytes` itself.
    pub fn new(directory: &D, memory_bytes: usize) -> Self {
        let rest_bytes = memory_bytes / REST_SHARE;
        Self {
            versions: Sorter::new(directory.clone(), "versions", memory_bytes - rest_bytes),
            rest: Sorter::new(directory.clone(), "rest", rest_bytes),
            head: BTreeMap::new(),
            check: RowCheck::default(),
            bumped: None,
            scratch: Vec::new(),
        }
    }

    /// Takes a row of a table that is not the key space's own. The rows of etcd's bucket `meta` that name compactions
    /// ([`super::COMPACTION_ROWS`]) belong into `Meta` as they are.
    ///
    /// # Errors
    /// On failure to write.
    pub fn row(&mut self, table: Table, key: &[u8], value: Bytes) -> Result<(), StorageError> {
        if table == Table::Meta {
            self.head.insert(table.key(key), value);
            return Ok(());
        }
        debug_assert!(table >= Table::Lease && table != Table::LeaseKey, "{table:?} is made from the bucket `key`");
        self.rest.push(&[&[table.prefix()], key], &[&value])
    }

    /// Takes a row of the bucket `key`, checked by [`RowCheck`].
    ///
    /// # Errors
    /// [`ImportError::Row`], failure to write.
    pub fn change(&mut self, row_key: &[u8], value: Bytes) -> Result<(), ImportError> {
        let Checked { at, tombstone, sum, pair } = self.check.row(row_key, value)?;
        Ok(match pair {
            None => self.bump(at, sum),
            Some(pair) => self.push_version(at, tombstone, sum, pair),
        }?)
    }

    /// Only the `Revision` table knows of such a row.
    fn bump(&mut self, at: Revision, (len, crc): (u64, u32)) -> Result<(), StorageError> {
        let supersedes = self.bumped.replace(at);
        let trace = Trace { tombstone: false, creates: false, supersedes, len, crc, digest: 0, key: Bytes::new() };
        self.head.insert(Table::Meta.key(BUMPED), meta_value(at.main));
        self.rest.push(&[&rows::revision_key(at)], &[&trace.encode()])
    }

    fn push_version(
        &mut self,
        at: Revision,
        tombstone: bool,
        (len, crc): (u64, u32),
        pair: KeyValue,
    ) -> Result<(), StorageError> {
        let KeyValue { key, create_revision: create, mod_revision: _, version, value, lease } = pair;
        self.scratch.clear();
        self.scratch.put_u64_le(len);
        self.scratch.put_u32_le(crc);
        let row_key = rows::version_key(&key, at);
        if tombstone {
            return self.versions.push(&[&row_key], &[&self.scratch, &rows::tombstone()]);
        }
        let header = Put { create, version, lease, value: Bytes::new() }.encode();
        self.versions.push(&[&row_key], &[&self.scratch, &header, &value])
    }

    /// Passes over `count` revisions and marks everything up to there as compacted, once all rows were taken: who has seen
    /// revisions behind those of the file is told that they are compacted, and never meets other changes at them. The row
    /// left behind is etcd's, without a value. Returns the new revision.
    ///
    /// # Errors
    /// [`ImportError::Revision`], failure to write.
    pub fn skip_revisions(&mut self, count: u64) -> Result<i64, ImportError> {
        let last = self.check.last.map_or(0, |last| last.main);
        let main = i64::try_from(count)
            .ok()
            .and_then(|count| last.checked_add(count))
            .filter(|main| *main <= REVISION_BUMPED_MAX);
        let main = main.ok_or(ImportError::Revision { last, count })?;
        let mut row_key = Vec::new();
        rows::etcd_key(Revision { main, sub: 0 }, false, &mut row_key);
        self.change(&row_key, Bytes::new())?;
        self.head.insert(Table::Meta.key(SCHEDULED), meta_value(main));
        Ok(main)
    }

    /// The revision that a store opened on all of it will stand at.
    pub fn revision(&self) -> i64 {
        let compacted = |name| self.head.get(&Table::Meta.key(name)).and_then(meta_main).unwrap_or(FIRST);
        let changed = self.check.revision();
        [SCHEDULED, FINISHED].map(compacted).into_iter().fold(changed, i64::max)
    }

    /// Loads everything into `engine`, which is empty, and makes it durable there.
    ///
    /// # Errors
    /// Failures of the engine and of reading back. The engine is useless then.
    pub fn load<E: Engine>(self, engine: &E) -> Result<(), StorageError> {
        let versions = self.versions.finish()?;
        let head = self.head.into_iter();
        engine.ingest(&mut Loading { versions, rest: Some(self.rest), stage: Stage::Head(head) })
    }
}

/// Reads rows of the bucket `key` in their order and believes nothing of them.
#[derive(Debug, Default)]
pub struct RowCheck {
    last: Option<Revision>,
    scratch: Vec<u8>,
}

/// A sound row of the bucket `key`.
#[derive(Debug)]
pub struct Checked {
    at: Revision,
    tombstone: bool,
    /// Length and checksum of the row.
    sum: (u64, u32),
    /// Nothing for a row without a value.
    pair: Option<KeyValue>,
}

impl RowCheck {
    /// Checks the next row. An empty value is what `snapshot restore --bump-revision` leaves behind: to etcd it
    /// is a version of the empty key, which nobody can read or remove, and which is hashed.
    ///
    /// # Errors
    /// [`ImportError::Row`] if the row does not decode, is out of order, or is not spelled as etcd spells it: it would be
    /// hashed and handed on in another spelling.
    pub fn row(&mut self, row_key: &[u8], value: Bytes) -> Result<Checked, ImportError> {
        let bad = |what| ImportError::Row { key: row_key.escape_ascii().to_string(), what };
        let (at, tombstone) = split_key(row_key).ok_or_else(|| bad("the key is not a revision"))?;
        if self.last.is_some_and(|last| at <= last) {
            return Err(bad("the revision is not above that of the row before"));
        }
        self.last = Some(at);
        let sum = ((row_key.len() + value.len()) as u64, crc::append(crc::append(0, row_key), &value));
        if value.is_empty() {
            return if tombstone {
                Err(bad("a tombstone has no key"))
            } else {
                Ok(Checked { at, tombstone, sum, pair: None })
            };
        }
        let pair = KeyValue::decode(value).map_err(|_| bad("the value is not a pair"))?;
        check_pair(&pair, at, tombstone).map_err(bad)?;
        if rows::etcd_sum(at, tombstone, &pair, &mut self.scratch) != sum {
            return Err(bad("the pair is not spelled as etcd spells it"));
        }
        Ok(Checked { at, tombstone, sum, pair: Some(pair) })
    }

    /// The main revision of the last row; 1 if there was none.
    pub fn revision(&self) -> i64 {
        self.last.map_or(FIRST, |last| last.main)
    }
}

/// A tombstone says nothing but its key, and a pair knows its own revision.
fn check_pair(pair: &KeyValue, at: Revision, tombstone: bool) -> Result<(), &'static str> {
    if pair.key.is_empty() {
        return Err("the pair has no key");
    }
    if pair.key.len() > KEY_BYTES_MAX {
        return Err("the key is longer than 32000 bytes, which this store cannot hold");
    }
    if tombstone && *pair != rows::etcd_tombstone(pair.key.clone()) {
        return Err("a tombstone has a value");
    }
    if !tombstone && pair.mod_revision != at.main {
        return Err("the pair says that it was written at another revision");
    }
    Ok(())
}

/// Reads etcd's key of a change: its revision, and whether it is a tombstone.
fn split_key(row_key: &[u8]) -> Option<(Revision, bool)> {
    let (main, rest) = row_key.split_first_chunk()?;
    let (sub, mark) = rest.strip_prefix(b"_")?.split_first_chunk()?;
    let revision = Revision { main: i64::from_be_bytes(*main), sub: i64::from_be_bytes(*sub) };
    let tombstone = match mark {
        [] => false,
        [b't'] => true,
        _ => return None,
    };
    ((1..=REVISION_MAX).contains(&revision.main) && revision.sub >= 0).then_some((revision, tombstone))
}

/// All rows in the order of our tables, made as they are asked for.
struct Loading<D: Directory> {
    versions: Sorted<D>,
    /// Rows of the later tables, until they are read.
    rest: Option<Sorter<D>>,
    stage: Stage<D>,
}

enum Stage<D: Directory> {
    Head(btree_map::IntoIter<Bytes, Bytes>),
    Living(Pass<D>, Chunker),
    Past(Pass<D>),
    /// The running digest of the changes given so far.
    Rest(Merge<D>, u64),
}

impl<D: Directory> Loading<D> {
    fn step(&mut self) -> Result<Option<Row>, StorageError> {
        loop {
            let row = match &mut self.stage {
                Stage::Head(rows) => rows.next(),
                Stage::Living(pass, chunks) => next_living(pass, chunks, self.rest.as_mut())?,
                Stage::Past(pass) => next_past(pass)?,
                Stage::Rest(rows, digest) => return rows.next().map(|row| finish_row(row?, digest)).transpose(),
            };
            if row.is_some() {
                return Ok(row);
            }
            self.next_stage()?;
        }
    }

    fn next_stage(&mut self) -> Result<(), StorageError> {
        self.stage = match &self.stage {
            Stage::Head(_) => Stage::Living(Pass::new(self.versions.merge())?, Chunker::default()),
            Stage::Living(..) => Stage::Past(Pass::new(self.versions.merge())?),
            Stage::Past(_) | Stage::Rest(..) => {
                let rest = self.rest.take().map(Sorter::finish).transpose()?;
                Stage::Rest(rest.map_or_else(Merge::empty, |rest| rest.merge()), 0)
            }
        };
        Ok(())
    }
}

impl<D: Directory> Iterator for Loading<D> {
    type Item = Result<Row, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// The next row of `Live`. What the changes passed on the way say in later tables goes to `rest`.
fn next_living<D: Directory>(
    pass: &mut Pass<D>,
    chunks: &mut Chunker,
    rest: Option<&mut Sorter<D>>,
) -> Result<Option<Row>, StorageError> {
    let Some(rest) = rest else { return Ok(None) };
    while let Some(Step { version, newest, supersedes }) = pass.step()? {
        let trace = version.trace(supersedes);
        rest.push(&[&rows::revision_key(version.at)], &[&trace.encode()])?;
        let Some(put) = version.put.filter(|_| newest) else { continue };
        if put.lease != 0 {
            rest.push(&[&rows::lease_key(put.lease, &version.key)], &[])?;
        }
        push_chunk(rest, chunks.add(&version.key))?;
        let live = Version { modified: version.at, put };
        return Ok(Some((Table::Live.key(&version.key), live.encode_live())));
    }
    push_chunk(rest, std::mem::take(chunks).end())?;
    Ok(None)
}

fn push_chunk<D: Directory>(rest: &mut Sorter<D>, chunk: Option<(Bytes, Bytes)>) -> Result<(), StorageError> {
    let Some((start, keys)) = chunk else { return Ok(()) };
    rest.push(&[&[Table::Count.prefix()], &start], &[&keys])
}

/// The next row of `Version`.
fn next_past<D: Directory>(pass: &mut Pass<D>) -> Result<Option<Row>, StorageError> {
    while let Some(Step { version, newest, .. }) = pass.step()? {
        if !(newest && version.put.is_some()) {
            return Ok(Some((version.row_key, version.value)));
        }
    }
    Ok(None)
}

/// Adds the running digest to a change; every other row is as it should be.
fn finish_row((key, value): Row, digest: &mut u64) -> Result<Row, StorageError> {
    if key.first() != Some(&Table::Revision.prefix()) {
        return Ok((key, value));
    }
    let mut trace = Trace::decode(rows::split_revision_key(&key)?, value)?;
    *digest = digest::extend(*digest, trace.len, trace.crc);
    trace.digest = *digest;
    Ok((key, trace.encode()))
}

/// One reading of the versions, key by key and newest first.
struct Pass<D: Directory> {
    merge: Merge<D>,
    next: Option<Stored>,
    /// The key of the version before.
    key: Option<Bytes>,
}

/// A version and its neighbours.
struct Step {
    version: Stored,
    /// Nothing newer is known of the key.
    newest: bool,
    /// The living version before it.
    supersedes: Option<Revision>,
}

impl<D: Directory> Pass<D> {
    fn new(mut merge: Merge<D>) -> Result<Self, StorageError> {
        let next = Self::read(&mut merge)?;
        Ok(Self { merge, next, key: None })
    }

    fn read(merge: &mut Merge<D>) -> Result<Option<Stored>, StorageError> {
        merge.next().map(|row| Stored::read(row?)).transpose()
    }

    fn step(&mut self) -> Result<Option<Step>, StorageError> {
        let Some(version) = self.next.take() else { return Ok(None) };
        self.next = Self::read(&mut self.merge)?;
        let older = self.next.as_ref().filter(|older| older.key == version.key && older.put.is_some());
        let supersedes = older.map(|older| older.at);
        let newest = self.key.as_ref() != Some(&version.key);
        self.key = Some(version.key.clone());
        Ok(Some(Step { version, newest, supersedes }))
    }
}

/// A version as it lies between the sorts.
struct Stored {
    row_key: Bytes,
    key: Bytes,
    at: Revision,
    len: u64,
    crc: u32,
    /// The value of a `Version` row.
    value: Bytes,
    /// Nothing for a tombstone.
    put: Option<Put>,
}

impl Stored {
    fn read((row_key, mut value): Row) -> Result<Self, StorageError> {
        let (key, at) = rows::split_version_key(&row_key)?;
        if value.len() < SUM_BYTES {
            return Err(StorageError::corrupt(Table::Version, &row_key, "the row to be loaded is too short"));
        }
        let (len, crc) = (value.get_u64_le(), value.get_u32_le());
        let put = rows::decode_superseded(&row_key, value.clone())?;
        Ok(Self { row_key, key, at, len, crc, value, put })
    }

    /// What the `Revision` table says of it, without the digest.
    fn trace(&self, supersedes: Option<Revision>) -> Trace {
        let tombstone = self.put.is_none();
        let (creates, key) = (!tombstone && supersedes.is_none(), self.key.clone());
        Trace { tombstone, creates, supersedes, len: self.len, crc: self.crc, digest: 0, key }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        disk::MemoryDirectory,
        mvcc::{
            COMPACTION_ROWS, EtcdRow, HistoryLimits,
            harness::{Member, in_memory, put},
        },
        pb::etcdserverpb::PutRequest,
        storage::{MemoryEngine, Read},
        types::{KeyRange, LeaseId},
    };

    /// Little enough that the histories here are sorted on the disk.
    const MEMORY_BYTES: usize = 300;

    fn exported(member: &Member<MemoryEngine>) -> Vec<EtcdRow> {
        member.view().etcd_rows().map(Result::unwrap).collect()
    }

    fn loader() -> Loader<MemoryDirectory> {
        Loader::new(&MemoryDirectory::default(), MEMORY_BYTES)
    }

    fn loaded(rows: &[EtcdRow], meta: &[(&[u8], Bytes)]) -> Member<MemoryEngine> {
        let mut loader = loader();
        for (key, value) in meta {
            loader.row(Table::Meta, key, value.clone()).unwrap();
        }
        for (key, value) in rows {
            loader.change(key, value.clone()).unwrap();
        }
        let engine = MemoryEngine::new();
        loader.load(&engine).unwrap();
        Member::open(engine)
    }

    /// What `meta` of `member` says of compactions.
    fn compactions(member: &Member<MemoryEngine>) -> Vec<(&'static [u8], Bytes)> {
        let snapshot = member.engine.snapshot();
        let value = |name: &'static [u8]| Some((name, snapshot.row(Table::Meta, name).unwrap()?));
        COMPACTION_ROWS.into_iter().filter_map(value).collect()
    }

    /// A member with some history, compacted in the middle.
    fn some_history() -> Member<MemoryEngine> {
        let mut member = in_memory();
        for round in 0..5 {
            for key in ["a", "b\0", "c"] {
                member.put(key, &format!("{key}{round}"));
            }
            member.delete("b\0", "c");
        }
        attach(&mut member, "leased", 7);
        member.compact(13);
        member
    }

    fn attach(member: &mut Member<MemoryEngine>, key: &str, lease: i64) {
        let leased = PutRequest { lease, ..put(key, "") };
        member.change(|change| change.put(&leased, &|_| true)).0.unwrap();
    }

    /// Whether nobody can tell the copy from the original.
    fn compare(copy: &Member<MemoryEngine>, member: &Member<MemoryEngine>) {
        assert_eq!(exported(copy), exported(member));
        let (view, copied) = (member.view(), copy.view());
        assert_eq!((copied.revision(), copied.compact_revision()), (view.revision(), view.compact_revision()));
        for revision in view.compact_revision().max(1)..=view.revision() {
            assert_eq!(copied.hash_kv(revision).unwrap(), view.hash_kv(revision).unwrap());
            assert_eq!(copy.list("\0", "\0", revision), member.list("\0", "\0", revision));
        }
        assert_eq!(copied.keys(), view.keys());
        assert_eq!(copied.lease_keys(LeaseId(7)).unwrap(), view.lease_keys(LeaseId(7)).unwrap());
        assert_eq!(copied.verify().unwrap(), view.verify().unwrap());
        let all = KeyRange::new(Bytes::from_static(b"\0"), &Bytes::from_static(b"\0"));
        let limits = HistoryLimits { revisions_max: 999, bytes_max: 99_999, rows_max: 999, prev_kv: true };
        let from = view.compact_revision().max(1);
        assert_eq!(copied.history(&all, from, limits).unwrap(), view.history(&all, from, limits).unwrap());
    }

    #[test]
    fn rows_that_went_through_etcds_form_are_the_same() {
        let member = some_history();
        let mut copy = loaded(&exported(&member), &compactions(&member));
        compare(&copy, &member);
        assert_eq!(copy.view().lease_keys(LeaseId(7)).unwrap(), ["leased"]);
        copy.put("d", "after");
        copy.compact(18);
        copy.view().verify().unwrap();
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(u8),
        Attach(u8),
        Delete(u8),
        Compact(u8),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            6 => (0..9_u8).prop_map(Op::Put),
            2 => (0..9_u8).prop_map(Op::Attach),
            3 => (0..9_u8).prop_map(Op::Delete),
            1 => any::<u8>().prop_map(Op::Compact),
        ];
        prop::collection::vec(op, 0..60)
    }

    fn act(member: &mut Member<MemoryEngine>, op: &Op) {
        let key = |number: &u8| format!("k{}{number}", "\0".repeat(usize::from(number % 3)));
        match op {
            Op::Put(number) => member.put(&key(number), "value"),
            Op::Attach(number) => attach(member, &key(number), 7),
            Op::Delete(number) => member.delete(&key(number), ""),
            Op::Compact(share) => {
                let (from, to) = (member.view().compact_revision().max(0), member.view().revision());
                let target = from + (to - from) * i64::from(*share) / 255;
                if target > from {
                    member.compact(target);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn copy_goes_on_as_the_original(before in ops(), after in ops()) {
            let mut member = in_memory();
            for op in &before {
                act(&mut member, op);
            }
            let mut copy = loaded(&exported(&member), &compactions(&member));
            compare(&copy, &member);
            for op in &after {
                act(&mut member, op);
                act(&mut copy, op);
            }
            compare(&copy, &member);
        }
    }

    #[test]
    fn file_may_begin_with_a_tombstone() {
        let mut member = in_memory();
        member.put("a", "1");
        member.delete("a", "");
        member.compact(3);
        let rows = exported(&member);
        assert_eq!(
            rows,
            [(Bytes::from_static(b"\0\0\0\0\0\0\0\x03_\0\0\0\0\0\0\0\0t"), Bytes::from_static(b"\n\x01a"))]
        );
        let copy = loaded(&rows, &compactions(&member));
        assert_eq!(copy.hash(3), member.hash(3));
        assert_eq!(copy.view().keys(), 0);
    }

    #[test]
    fn bumped_revision_is_kept_and_hashed() {
        let mut member = in_memory();
        member.put("a", "1");
        let bumped = |main: i64| (meta_value(main), Bytes::new());
        let rows = [exported(&member), vec![bumped(1_000), bumped(2_000)]].concat();
        let mut copy = loaded(&rows, &[(SCHEDULED, meta_value(2_000))]);
        assert_eq!((copy.store.revision(), copy.view().keys()), (2_000, 1));
        assert_eq!(exported(&copy), rows);
        while copy.compact_step(3) {}
        let rest = [rows[0].clone(), bumped(2_000)];
        assert_eq!(exported(&copy), rest);
        copy.view().verify().unwrap();
        let all =
            rest.iter().fold(crc::append(0, b"key"), |sum, (key, value)| crc::append(crc::append(sum, key), value));
        assert_eq!(copy.hash(2_000).hash, all);
        // Even when every key is gone something lives, so that etcd leaves out what does not.
        copy.delete("a", "");
        let left = [bumped(2_000).0, exported(&copy)[2].0.clone(), exported(&copy)[2].1.clone()];
        assert_eq!(copy.hash(2_001).hash, left.iter().fold(crc::append(0, b"key"), |sum, part| crc::append(sum, part)));
        assert_eq!(Member::open(copy.engine.clone()).hash(2_001), copy.hash(2_001));
    }

    #[test]
    fn damaged_rows_are_named() {
        let good = b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0".as_slice();
        let pair = b"\n\x01a\x18\x02".as_slice();
        let refusal =
            |key: &[u8], value: &[u8]| loader().change(key, Bytes::copy_from_slice(value)).unwrap_err().to_string();
        loader().change(good, Bytes::from_static(b"\n\x01a\x18\x02")).unwrap();
        assert!(refusal(b"short", pair).contains("row short of the bucket `key`: the key is not a revision"));
        assert!(refusal(&[good, b"x"].concat(), pair).contains("not a revision"));
        assert!(refusal(good, b"\xff").contains("not a pair"));
        assert!(refusal(good, b"\x18\x02").contains("no key"));
        assert!(refusal(good, b"\n\x01a\x18\x03").contains("another revision"));
        assert!(refusal(good, b"\n\x01a\x10\0\x18\x02").contains("not spelled"));
        assert!(refusal(&[good, b"t"].concat(), pair).contains("tombstone has a value"));
        assert!(refusal(&[good, b"t"].concat(), b"").contains("tombstone has no key"));
        let mut loader = loader();
        loader.change(good, Bytes::copy_from_slice(pair)).unwrap();
        assert!(loader.change(good, Bytes::copy_from_slice(pair)).unwrap_err().to_string().contains("not above"));
    }
}
