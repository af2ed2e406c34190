//! The tables, compared with each other.
//!
//! Nothing here is needed to run. It proves that the invariants of the module hold: for a test, for an operator who asks,
//! and before a state is handed to somebody else.

use bytes::Bytes;

use super::{
    counts::Counts,
    rows::{self, Trace, Version},
    state::State,
};
use crate::{
    storage::{Read, StorageError, Table},
    types::Revision,
};

/// What a sound state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Living keys.
    pub keys: u64,
    /// Changes that compaction has not removed.
    pub changes: u64,
    /// Keys attached to leases.
    pub attached: u64,
}

/// Walks every table once, and looks up its counterpart of every row.
pub(super) fn verify<R: Read>(state: State<'_, R>) -> Result<Verified, StorageError> {
    let keys = verify_living(state)?;
    let old = verify_superseded(state)?;
    let changes = count_changes(state)?;
    if changes != keys.found + old {
        return Err(StorageError::corrupt(Table::Revision, b"", "there are changes whose version is not there"));
    }
    if count(state, Table::LeaseKey)? != keys.attached {
        return Err(StorageError::corrupt(Table::LeaseKey, b"", "keys are attached that do not say so"));
    }
    verify_counts(state)?;
    Ok(Verified { keys: keys.found, changes, attached: keys.attached })
}

#[derive(Default)]
struct Living {
    found: u64,
    attached: u64,
}

fn verify_living<R: Read>(state: State<'_, R>) -> Result<Living, StorageError> {
    let mut living = Living::default();
    let mut scratch = Vec::new();
    for row in state.read.rows(Table::Live) {
        let (key, value) = row?;
        let version = Version::decode_live(&key, value)?;
        living.found += 1;
        let lease = version.put.lease;
        if lease != 0 {
            living.attached += 1;
            let attached = state.read.get(&rows::lease_key(lease, &key))?;
            attached.ok_or_else(|| StorageError::corrupt(Table::Live, &key, "the key is not attached to its lease"))?;
        }
        let trace = trace_of(state, &key, version.modified)?;
        let (modified, pair) = (version.modified, version.into_key_value(key.clone()));
        check_sum(&trace, rows::etcd_sum(modified, false, &pair, &mut scratch), Table::Live, &key)?;
    }
    Ok(living)
}

fn verify_superseded<R: Read>(state: State<'_, R>) -> Result<u64, StorageError> {
    let (mut found, mut scratch) = (0, Vec::new());
    let (lower, upper) = Table::Version.bounds();
    let bounds = (std::ops::Bound::Included(lower.as_slice()), std::ops::Bound::Excluded(upper.as_slice()));
    for row in state.read.scan(bounds.0, bounds.1) {
        let (row_key, value) = row?;
        let (key, modified) = rows::split_version_key(&row_key)?;
        let trace = trace_of(state, &key, modified)?;
        let put = rows::decode_superseded(&row_key, value)?;
        let tombstone = put.is_none();
        let pair = match put {
            Some(put) => Version { modified, put }.into_key_value(key.clone()),
            None => rows::etcd_tombstone(key.clone()),
        };
        check_sum(&trace, rows::etcd_sum(modified, tombstone, &pair, &mut scratch), Table::Version, &row_key)?;
        found += 1;
    }
    Ok(found)
}

/// The change that wrote a version of `key`.
fn trace_of<R: Read>(state: State<'_, R>, key: &Bytes, modified: Revision) -> Result<Trace, StorageError> {
    let bad = |what| StorageError::corrupt(Table::Revision, modified.to_string().as_bytes(), what);
    let row =
        state.read.get(&rows::revision_key(modified))?.ok_or_else(|| bad("the change of a version is not there"))?;
    let trace = Trace::decode(modified, row)?;
    if trace.key == *key { Ok(trace) } else { Err(bad("the change is one of another key")) }
}

/// The checksum covers everything a version says, its tombstone mark included.
fn check_sum(trace: &Trace, sum: (u64, u32), table: Table, key: &[u8]) -> Result<(), StorageError> {
    if (trace.len, trace.crc) == sum {
        return Ok(());
    }
    Err(StorageError::corrupt(table, key, "the version has another checksum than its change"))
}

/// Whether the chunks count what they should, in memory and in their table.
fn verify_counts<R: Read>(state: State<'_, R>) -> Result<(), StorageError> {
    let stored = Counts::load(state.read)?;
    let mut chunks = stored.chunks();
    if chunks != state.counts.chunks() {
        return Err(StorageError::corrupt(Table::Count, b"", "the chunks are not those in memory"));
    }
    chunks.reverse();
    for row in state.read.rows(Table::Live) {
        let (key, _) = row?;
        while chunks.len() > 1 && chunks.get(chunks.len() - 2).is_some_and(|(start, _)| *start <= key) {
            check_empty(chunks.pop())?;
        }
        let counted = chunks.last_mut().and_then(|(_, keys)| keys.checked_sub(1).map(|left| *keys = left));
        counted.ok_or_else(|| StorageError::corrupt(Table::Count, &key, "the chunk of the key counts too few keys"))?;
    }
    chunks.into_iter().try_for_each(|chunk| check_empty(Some(chunk)))
}

fn check_empty(chunk: Option<(Bytes, u32)>) -> Result<(), StorageError> {
    match chunk {
        Some((start, 1..)) => Err(StorageError::corrupt(Table::Count, &start, "the chunk counts too many keys")),
        _ => Ok(()),
    }
}

/// The changes that have a version.
fn count_changes<R: Read>(state: State<'_, R>) -> Result<u64, StorageError> {
    let changes = state.changes(Revision::default(), state.revision);
    changes.map(|change| change.map(|(_, trace)| u64::from(!trace.is_bump()))).sum()
}

fn count<R: Read>(state: State<'_, R>, table: Table) -> Result<u64, StorageError> {
    state.read.rows(table).map(|row| row.map(|_| 1)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mvcc::harness::{Member, in_memory},
        storage::{Engine, MemoryEngine, Writes},
    };

    fn member() -> Member<MemoryEngine> {
        let mut member = in_memory();
        for number in 0..20 {
            member.put(&format!("key{number}"), "value");
        }
        member.put("key1", "other");
        member.delete("key2", "");
        member
    }

    /// What is found after `damage`.
    fn finding(damage: impl FnOnce(&mut Writes)) -> String {
        let member = member();
        let mut writes = Writes::default();
        damage(&mut writes);
        member.engine.commit(writes).unwrap();
        member.view().verify().unwrap_err().to_string()
    }

    #[test]
    fn sound_state_is_found_sound() {
        assert_eq!(member().view().verify().unwrap(), Verified { keys: 19, changes: 22, attached: 0 });
    }

    #[test]
    fn rows_that_contradict_each_other_are_found() {
        let put = |table: Table, key: &'static [u8], value: Bytes| {
            move |writes: &mut Writes| writes.put_row(table, key, value)
        };
        let delete = |table: Table, key: Bytes| move |writes: &mut Writes| writes.delete_row(table, &key);
        let other = Version {
            modified: Revision { main: 22, sub: 0 },
            put: rows::Put { create: 3, version: 2, lease: 0, value: "forged".into() },
        };
        assert!(finding(put(Table::Live, b"key1", other.encode_live())).contains("checksum"));
        assert!(finding(delete(Table::Live, "key5".into())).contains("not there"));
        let first = Revision { main: 2, sub: 0 };
        assert!(
            finding(delete(Table::Revision, rows::revision_key(first).to_vec()[1..].to_vec().into()))
                .contains("not there")
        );
        assert!(finding(put(Table::LeaseKey, b"\0\0\0\0\0\0\0\x01key3", Bytes::new())).contains("attached"));
        assert!(finding(put(Table::Count, b"", Bytes::from_static(&[3]))).contains("chunks"));
    }
}
