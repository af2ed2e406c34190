//! etcd's rows, made from ours and turned into ours.
//!
//! etcd's bucket `key` holds one row for every change: the revision (17 bytes, 18 for a tombstone) and the pair. Ours are
//! not spelled that way, but say the same, so the rows come out byte for byte; each is compared with the checksum taken
//! when it was written. The way in is that of any change, except that the revision comes with the row.

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use super::{
    Store, rows,
    rows::{Put, Trace},
    state::{Changes, State},
    store,
    write::Writer,
};
use crate::{
    codec::crc,
    pb::mvccpb::KeyValue,
    storage::{Batch, Read, StorageError, Table},
    types::Revision,
};

/// A row of etcd's bucket `key`: its key and its value.
pub type EtcdRow = (Bytes, Bytes);

/// Rows as etcd has them, in their order. A compaction that is accepted and not finished may have left some that are
/// about to go, as in etcd.
pub struct EtcdRows<'a, S> {
    state: State<'a, S>,
    changes: Changes<'a>,
}

impl<'a, S: Read> EtcdRows<'a, S> {
    pub(super) fn new(state: State<'a, S>) -> Self {
        Self { state, changes: state.changes(Revision::default(), state.revision) }
    }

    fn row(&self, at: Revision, trace: &Trace) -> Result<EtcdRow, StorageError> {
        let bad = |what| StorageError::corrupt(Table::Revision, at.to_string().as_bytes(), what);
        let pair = if trace.tombstone {
            rows::etcd_tombstone(trace.key.clone())
        } else {
            let written = self.state.written_at(&trace.key, at)?;
            written.ok_or_else(|| bad("what the change wrote is not there"))?.into_key_value(trace.key.clone())
        };
        let (mut key, value) = (Vec::with_capacity(18), Bytes::from(pair.encode_to_vec()));
        rows::etcd_key(at, trace.tombstone, &mut key);
        if crc::append(crc::append(0, &key), &value) != trace.crc {
            return Err(bad("what the change wrote has another checksum"));
        }
        Ok((key.into(), value))
    }
}

impl<S: Read> Iterator for EtcdRows<'_, S> {
    type Item = Result<EtcdRow, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let change = self.changes.next()?;
        Some(change.and_then(|(at, trace)| self.row(at, &trace)))
    }
}

/// Why a row of etcd's was not taken.
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
    /// This member's store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Takes etcd's rows into a store, in their order.
///
/// The rows of etcd's bucket `meta` that name compactions (`scheduledCompactRev`, `finishedCompactRev`) belong into the
/// `Meta` table as they are, before the store is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Importer {
    last: Option<Revision>,
}

impl Importer {
    /// An importer that has seen no row.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one row. An empty value, which `snapshot restore --bump-revision` leaves behind, moves the revision only.
    ///
    /// # Errors
    /// [`ImportError::Row`] if the row does not decode or is out of order.
    pub fn take<R: Read>(
        &mut self,
        store: &mut Store,
        batch: &mut Batch<R>,
        row_key: &[u8],
        value: Bytes,
    ) -> Result<(), ImportError> {
        let bad = |what| ImportError::Row { key: row_key.escape_ascii().to_string(), what };
        let (at, tombstone) = split_key(row_key).ok_or_else(|| bad("the key is not a revision"))?;
        if self.last.is_some_and(|last| at <= last) {
            return Err(bad("the revision is not above that of the row before"));
        }
        self.last = Some(at);
        store.revision = store.revision.max(at.main);
        if value.is_empty() {
            return Ok(());
        }
        let pair = KeyValue::decode(value).map_err(|_| bad("the value is not a pair"))?;
        if pair.key.is_empty() {
            return Err(bad("the pair has no key"));
        }
        Ok(write(&mut Writer { store, batch }, at, tombstone, pair)?)
    }
}

fn write<R: Read>(
    writer: &mut Writer<'_, R>,
    at: Revision,
    tombstone: bool,
    pair: KeyValue,
) -> Result<(), StorageError> {
    let old = writer.state(at.main).newest(&pair.key)?;
    if tombstone {
        return writer.remove(&pair.key, at, old.as_ref());
    }
    let KeyValue { key, create_revision: create, mod_revision: _, version, value, lease } = pair;
    writer.replace(&key, at, old.as_ref(), Put { create, version, lease, value }).map(drop)
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
    (revision.main > 0 && revision.sub >= 0).then_some((revision, tombstone))
}

/// The rows of etcd's bucket `meta` that name compactions, as our `Meta` table has them.
pub const COMPACTION_ROWS: [&[u8]; 2] = [store::SCHEDULED, store::FINISHED];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mvcc::harness::{Member, in_memory},
        storage::{Engine, MemoryEngine, Writes},
        types::{KeyRange, LeaseId},
    };

    fn exported(member: &Member<MemoryEngine>) -> Vec<EtcdRow> {
        member.view().etcd_rows().map(Result::unwrap).collect()
    }

    fn imported(rows: &[EtcdRow], meta: Writes) -> Member<MemoryEngine> {
        let engine = MemoryEngine::new();
        engine.commit(meta).unwrap();
        let mut member = Member::open(engine);
        let mut importer = Importer::new();
        let mut batch = Batch::new(member.engine.snapshot());
        for (key, value) in rows {
            importer.take(&mut member.store, &mut batch, key, value.clone()).unwrap();
        }
        member.engine.commit(batch.into_writes()).unwrap();
        member
    }

    /// A member with some history, compacted in the middle.
    fn some_history() -> (Member<MemoryEngine>, Writes) {
        let mut member = in_memory();
        for round in 0..5 {
            for key in ["a", "b\0", "c"] {
                member.put(key, &format!("{key}{round}"));
            }
            member.delete("b\0", "c");
        }
        let leased = crate::pb::etcdserverpb::PutRequest { lease: 7, ..crate::mvcc::harness::put("leased", "") };
        member.change(|change| change.put(&leased, &|_| true)).0.unwrap();
        member.compact(13);
        let mut meta = Writes::default();
        for name in COMPACTION_ROWS {
            meta.put_row(Table::Meta, name, member.engine.snapshot().row(Table::Meta, name).unwrap().unwrap());
        }
        (member, meta)
    }

    #[test]
    fn rows_that_went_through_etcds_form_are_the_same() {
        let (member, meta) = some_history();
        let rows = exported(&member);
        let copy = imported(&rows, meta);
        assert_eq!(exported(&copy), rows);
        let (view, copied) = (member.view(), copy.view());
        assert_eq!((copied.revision(), copied.compact_revision()), (view.revision(), view.compact_revision()));
        for revision in 13..=view.revision() {
            assert_eq!(copied.hash_kv(revision).unwrap(), view.hash_kv(revision).unwrap());
            assert_eq!(copy.list("\0", "\0", revision), member.list("\0", "\0", revision));
        }
        assert_eq!(copied.keys(), view.keys());
        assert_eq!(copied.lease_keys(LeaseId(7)).unwrap(), ["leased"]);
        copied.verify().unwrap();
        let all = KeyRange::new(Bytes::from_static(b"\0"), &Bytes::from_static(b"\0"));
        let limits = crate::mvcc::HistoryLimits { revisions_max: 99, bytes_max: 9999, rows_max: 99, prev_kv: true };
        assert_eq!(copied.history(&all, 13, limits).unwrap(), view.history(&all, 13, limits).unwrap());
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
        let mut meta = Writes::default();
        meta.put_row(Table::Meta, store::FINISHED, store::meta_value(3));
        let copy = imported(&rows, meta);
        assert_eq!(copy.hash(3), member.hash(3));
        assert_eq!(copy.view().keys(), 0);
    }

    #[test]
    fn bumped_revision_is_kept() {
        let rows = [(Bytes::from_static(b"\0\0\0\0\0\0\x03\xe8_\0\0\0\0\0\0\0\0"), Bytes::new())];
        assert_eq!(imported(&rows, Writes::default()).store.revision(), 1000);
    }

    #[test]
    fn damaged_rows_are_named() {
        let mut member = in_memory();
        let good = b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0".as_slice();
        let pair = Bytes::from_static(b"\n\x01a");
        let mut importer = Importer::new();
        let mut take = |key: &[u8], value: &Bytes| {
            let mut batch = Batch::new(member.engine.snapshot());
            importer.take(&mut member.store, &mut batch, key, value.clone()).unwrap_err().to_string()
        };
        assert!(take(b"short", &pair).contains("row short of the bucket `key`: the key is not a revision"));
        assert!(take(&[good, b"x"].concat(), &pair).contains("not a revision"));
        assert!(take(good, &Bytes::from_static(b"\xff")).contains("not a pair"));
        assert!(take(good, &pair).contains("not above"));
        assert!(take(b"\0\0\0\0\0\0\0\x03_\0\0\0\0\0\0\0\0", &Bytes::from_static(b"\x10\x02")).contains("no key"));
    }
}
