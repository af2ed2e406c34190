//! etcd's rows, made from ours. The way back is `load`.
//!
//! etcd's bucket `key` holds one row for every change: the revision (17 bytes, 18 for a tombstone) and the pair. Ours are
//! not spelled that way, but say the same, so the rows come out byte for byte; each is compared with the checksum taken
//! when it was written.

use bytes::Bytes;
use prost::Message;

use super::{
    rows,
    rows::Trace,
    state::{Changes, State},
    store,
};
use crate::{
    codec::crc,
    storage::{Read, StorageError, Table},
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
        let value = if trace.is_bump() {
            Bytes::new()
        } else if trace.tombstone {
            rows::etcd_tombstone(trace.key.clone()).encode_to_vec().into()
        } else {
            let written = self.state.written_at(&trace.key, at)?;
            let written = written.ok_or_else(|| bad("what the change wrote is not there"))?;
            written.into_key_value(trace.key.clone()).encode_to_vec().into()
        };
        let mut key = Vec::with_capacity(18);
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

/// The rows of etcd's bucket `meta` that name compactions, as our `Meta` table has them.
pub const COMPACTION_ROWS: [&[u8]; 2] = [store::SCHEDULED, store::FINISHED];
