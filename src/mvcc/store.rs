//! The single writer's side.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{Change, REVISION_MAX, ReadError, View, counts::Counts, rows, rows::Trace};
use crate::{
    storage::{Batch, Read, StorageError, Table},
    types::{Rejection, Revision},
};

/// Row of the `Meta` table: the compaction accepted last, as etcd spells it.
pub(super) const SCHEDULED: &[u8] = b"scheduledCompactRev";
/// Row of the `Meta` table: the compaction whose rows are gone, as etcd spells it.
pub(super) const FINISHED: &[u8] = b"finishedCompactRev";
/// Row of the `Meta` table: the newest revision that `snapshot restore --bump-revision` made, if an imported file had one.
/// To etcd a version of the empty key lives there; here only the `Revision` table knows of it.
pub(super) const BUMPED: &[u8] = b"bumpedRev";
/// The revision of a store that was never compacted.
pub(super) const NEVER: i64 = -1;
/// The revision of an empty store.
pub(super) const FIRST: i64 = 1;

/// The single writer's value: where the key space stands, and what is worth keeping in memory about it.
///
/// It changes only through [`Change`] and [`Store::compact`], together with a batch. A batch that is thrown away leaves it
/// ahead of the rows: then it must be thrown away too, and opened again.
#[derive(Debug)]
pub struct Store {
    pub(super) revision: i64,
    compact_revision: i64,
    pub(super) digest: u64,
    /// The changes since [`Store::take_changed`].
    pub(super) changed: u64,
    pub(super) counts: Arc<Counts>,
    /// Where rows are spelled out to be summed.
    pub(super) scratch: Vec<u8>,
}

impl Store {
    /// Rebuilds the value from the rows in `read`; an empty state stands at revision 1, never compacted (−1).
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] on rows that do not decode.
    pub fn open(read: &impl Read) -> Result<Self, StorageError> {
        let newest = newest_change(read)?;
        let (scheduled, finished) = (meta_revision(read, SCHEDULED)?, meta_revision(read, FINISHED)?);
        let compact_revision = scheduled.max(finished).unwrap_or(NEVER);
        let (changed, digest) = newest.map_or((FIRST, 0), |(revision, trace)| (revision.main, trace.digest));
        Ok(Self {
            revision: changed.max(compact_revision).max(FIRST),
            compact_revision,
            digest,
            changed: 0,
            counts: Arc::new(Counts::load(read)?),
            scratch: Vec::new(),
        })
    }

    /// The current revision, from 1.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The revision of the newest accepted compaction; −1 if there was none.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// One number for the changes since the last call, whatever came before them; zero for none.
    pub fn take_changed(&mut self) -> u64 {
        std::mem::take(&mut self.changed)
    }

    /// Begins one request. Everything the batch holds already is visible to it.
    pub fn begin<'a, R: Read>(&'a mut self, batch: &'a mut Batch<R>) -> Change<'a, R> {
        Change::new(self, batch)
    }

    /// The read state over `snapshot`, which must hold exactly what this store has written so far.
    pub fn view<S: Read>(&self, snapshot: S) -> View<S> {
        View::new(snapshot, self.revision, self.compact_revision, self.digest, Arc::clone(&self.counts))
    }

    /// Accepts a compaction at `revision`: reads below it fail from now on; [`super::Compactor`] removes the rows.
    ///
    /// # Errors
    /// [`Rejection::Compacted`], [`Rejection::FutureRevision`].
    pub fn compact<R: Read>(&mut self, batch: &mut Batch<R>, revision: i64) -> Result<(), ReadError> {
        if revision <= self.compact_revision {
            return Err(Rejection::Compacted.into());
        }
        if revision > self.revision {
            return Err(Rejection::FutureRevision.into());
        }
        self.compact_revision = revision;
        batch.put_row(Table::Meta, SCHEDULED, meta_value(revision));
        Ok(())
    }
}

/// The last row of the `Revision` table. Compaction never removes it: either the version it wrote lives, or it is a
/// tombstone that no accepted compaction lies above.
fn newest_change(read: &impl Read) -> Result<Option<(Revision, Trace)>, StorageError> {
    let (lower, upper) = Table::Revision.bounds();
    let Some(row) = read.scan_back(Bound::Included(&lower), Bound::Excluded(&upper)).next() else { return Ok(None) };
    let (row_key, value) = row?;
    let revision = rows::split_revision_key(&row_key)?;
    if revision.main > REVISION_MAX {
        return Err(StorageError::corrupt(Table::Revision, &row_key, "no change can have this revision"));
    }
    Ok(Some((revision, Trace::decode(revision, value)?)))
}

/// The revision that a row of the `Meta` table holds in etcd's 17 bytes.
pub(super) fn meta_revision(read: &impl Read, name: &[u8]) -> Result<Option<i64>, StorageError> {
    let Some(value) = read.row(Table::Meta, name)? else { return Ok(None) };
    let main = meta_main(&value);
    main.map(Some).ok_or_else(|| StorageError::corrupt(Table::Meta, name, "the revision does not decode"))
}

/// The main revision in etcd's 17 bytes.
pub(super) fn meta_main(value: &Bytes) -> Option<i64> {
    let main = value.first_chunk().copied().map(i64::from_be_bytes);
    main.filter(|main| value.len() == 17 && *main <= REVISION_MAX)
}

/// etcd's 17 bytes of a revision with sub 0.
pub(super) fn meta_value(main: i64) -> Bytes {
    let mut value = Vec::with_capacity(17);
    rows::etcd_key(Revision { main, sub: 0 }, false, &mut value);
    value.into()
}
