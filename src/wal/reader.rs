//! Reads entries back while the log is being written, and looks at logs of others.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    disk::Directory,
    pb::{raftpb, walpb},
    types::LogIndex,
};

use super::{
    Metadata, Repair, WalError,
    map::Map,
    scan::{self, Collector},
    segment,
};

/// Reads entries back from the files. Clones share the map of the log with its writer.
///
/// Only entries that are durable may be asked for: what the state machine has applied.
#[derive(Clone, Debug)]
pub struct Reader<D: Directory> {
    directory: D,
    map: Arc<Mutex<Map>>,
}

impl<D: Directory> Reader<D> {
    pub(super) fn new(directory: D, map: Arc<Mutex<Map>>) -> Self {
        Self { directory, map }
    }

    /// Entries from `first` to `last`, at most; stops after the entry that makes their encoded size exceed
    /// `bytes_max`. At least one entry, unless `first` is after `last`.
    ///
    /// # Errors
    /// [`WalError::Gone`] if the log does not reach that far, or [`WalError::Corrupt`].
    pub fn entries(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Result<Vec<raftpb::Entry>, WalError> {
        let mut entries = Vec::new();
        let mut collector = Collector { next: first.0, last: last.0, bytes_left: bytes_max, entries: &mut entries };
        while !collector.is_done() {
            let next = collector.next;
            let around = {
                let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
                map.around(next)
                    .filter(|_| next <= map.last)
                    .map(|(from, to)| (from, to.map_or(map.last + 1, |to| to.index)))
            };
            let (from, limit) = around.ok_or(WalError::Gone { index: LogIndex(next) })?;
            collector.collect(&self.directory, from.place, limit)?;
        }
        Ok(entries)
    }
}

/// What a log holds, read from its first segment to its last without changing or locking anything: for tools and for
/// taking over a directory of etcd's.
#[derive(Clone, Debug)]
pub struct Survey<D: Directory> {
    /// Whose it is.
    pub metadata: Metadata,
    /// The last hard state.
    pub hard_state: raftpb::HardState,
    /// Every snapshot mark, in order of writing. Those above the commit index do not count.
    pub snapshots: Vec<walpb::Snapshot>,
    /// The first readable entry.
    pub first: LogIndex,
    /// The last entry; before `first` if there is none.
    pub last: LogIndex,
    /// What is torn at its end.
    pub torn: Option<Repair>,
    /// Reads its entries.
    pub reader: Reader<D>,
}

/// Reads a whole log that nobody writes.
///
/// # Errors
/// If there is none, or it is damaged other than at its end.
pub fn survey<D: Directory>(directory: &D) -> Result<Survey<D>, WalError> {
    let segments = segment::list(directory)?;
    let scan = scan::scan(directory, &segments, 0, 0)?;
    let (first, last) = (LogIndex(scan.map.start.0.saturating_add(1)), LogIndex(scan.map.last));
    let reader = Reader::new(directory.clone(), Arc::new(Mutex::new(scan.map)));
    let (metadata, hard_state, snapshots, torn) = (scan.metadata, scan.hard_state, scan.snapshots, scan.repair);
    Ok(Survey { metadata, hard_state, snapshots, first, last, torn, reader })
}
