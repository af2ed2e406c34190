//! The published state as etcd's database, in a file without a name.
//!
//! Members of etcd and clients read the same file if it is new enough for both. Invariants: one is written at a time, as
//! long as somebody waits for it; nothing of one outlives its last reader, or the process.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    apply::exchange::{self, ExchangeError},
    clock::Clock as _,
    disk::{Directory, DiskFile, FileDirectory, write_behind},
    membership::Version,
    metrics,
    pb::raftpb::Snapshot,
    storage::Engine as _,
    types::LogIndex,
};

use super::{
    super::{State, shared::Shared},
    Snapshots,
    budget::Pace,
    send::{self, Behind},
    space::{self, Looks, NoRoom},
};

type File = <FileDirectory as Directory>::File;

/// Why there is no database.
#[derive(Debug, Error)]
pub(super) enum ExportError {
    #[error(transparent)]
    Behind(#[from] Behind),
    #[error("no room for the state as etcd's database: {0}")]
    NoRoom(#[from] NoRoom),
    #[error("creating a file for the state as etcd's database")]
    Create(#[source] io::Error),
    #[error("writing the state as etcd's database")]
    Write(#[source] ExchangeError),
    #[error("starting a thread that writes the state as etcd's database")]
    Thread(#[source] io::Error),
    #[error("the thread that writes the state as etcd's database panicked")]
    Panicked,
}

/// What readers can share.
#[derive(Debug, Default)]
pub(super) struct Exports {
    /// The newest database. Locked while one is written.
    newest: Arc<tokio::sync::Mutex<Weak<Exported>>>,
}

/// A state as etcd's database.
#[derive(Debug)]
pub(super) struct Exported {
    file: File,
    bytes: u64,
    since: Duration,
    revision: i64,
    /// What goes before it between members.
    head: Snapshot,
    version: Option<Version>,
}

impl Exported {
    /// The last entry that it includes.
    pub(super) fn index(&self) -> LogIndex {
        LogIndex(self.head.metadata.as_ref().map_or(0, |metadata| metadata.index))
    }

    /// The last revision in it.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What goes before it between members.
    pub(super) fn head(&self) -> &Snapshot {
        &self.head
    }

    /// The version that it says it is made for.
    pub(super) fn version(&self) -> Option<Version> {
        self.version
    }

    /// Its bytes, in blocks of this size.
    pub(super) fn blocks(&self, block_bytes: usize) -> impl Iterator<Item = io::Result<Bytes>> {
        let mut offset = 0;
        std::iter::from_fn(move || {
            let left = usize::try_from(self.bytes - offset).unwrap_or(usize::MAX);
            let mut block = vec![0; left.min(block_bytes)];
            if block.is_empty() {
                return None;
            }
            let filled = self.fill(&mut block, offset);
            offset += block.len() as u64;
            Some(filled.map(|()| block.into()))
        })
    }

    fn fill(&self, block: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.file.read_at(block, offset)?;
        if read == block.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Snapshots {
    /// A state at or above `index` as a database, the one that others read if it is new enough. Writing it ends soon
    /// after this is dropped.
    pub(super) async fn database(&self, shared: &Arc<Shared>, index: LogIndex) -> Result<Arc<Exported>, ExportError> {
        let mut newest = Arc::clone(&self.exports.newest).lock_owned().await;
        let now = shared.clock.monotonic();
        let usable = |exported: &Arc<Exported>| exported.index() >= index && now < exported.since + send::SHARED_FOR;
        if let Some(exported) = newest.upgrade().filter(usable) {
            return Ok(exported);
        }
        let given_up = CancellationToken::new();
        let _waiting = given_up.clone().drop_guard();
        let (state, shared) = (self.source(shared, index)?, Arc::clone(shared));
        let (done, fresh) = oneshot::channel();
        // The thread holds the lock to its end: one that is given up is not joined by the next.
        let export = move || {
            let written = export(&shared, &state, given_up);
            *newest = written.as_ref().map_or_else(|_| Weak::new(), Arc::downgrade);
            drop((newest, state));
            // Nobody listens any more if it was given up.
            drop(done.send(written));
        };
        super::super::spawn_behind("snapshot-export", export).map_err(ExportError::Thread)?;
        fresh.await.map_err(|_| ExportError::Panicked)?
    }
}

/// Writes `state` as a database, at the pace of clients' snapshots, if there is room.
fn export(shared: &Arc<Shared>, state: &State, given_up: CancellationToken) -> Result<Arc<Exported>, ExportError> {
    // An estimate: nothing is begun that cannot be finished, and what turns out longer is given up on the way.
    let place = &shared.snapshots.place;
    space::check(place, shared.in_use_bytes.load(Ordering::Relaxed).min(shared.engine().disk_bytes()))?;
    let since = shared.clock.monotonic();
    let no_room = Arc::new(OnceLock::new());
    let file = nameless(&FileDirectory::new(&place.scratch), state.applied, since).map_err(ExportError::Create)?;
    let file = Paced {
        file,
        shared: Arc::clone(shared),
        pace: Mutex::new(Pace::for_clients(shared)),
        looks: Mutex::default(),
        no_room: Arc::clone(&no_room),
        given_up,
    };
    let written = exchange::export(state, file);
    let written = written.map_err(|cause| no_room.get().cloned().map_or(ExportError::Write(cause), Into::into))?;
    metrics::BACKEND_SNAPSHOT.observe(shared.clock.monotonic().saturating_sub(since));
    Ok(Arc::new(Exported {
        file: written.file.file,
        bytes: written.bytes,
        since,
        revision: state.view.revision(),
        head: send::head_of(state),
        version: exchange::storage_version(state),
    }))
}

/// A file that is gone with its last reader, even if the process is killed.
fn nameless(scratch: &FileDirectory, applied: LogIndex, since: Duration) -> io::Result<File> {
    let name = format!("{:016x}-{}.db", applied.0, since.as_nanos());
    let file = scratch.create(&name)?;
    scratch.remove(&name)?;
    Ok(file)
}

/// A file that is written at the pace of clients' snapshots, as long as there is room and somebody waits for it.
struct Paced {
    file: File,
    shared: Arc<Shared>,
    pace: Mutex<Pace>,
    looks: Mutex<Looks>,
    /// Why it was given up.
    no_room: Arc<OnceLock<NoRoom>>,
    given_up: CancellationToken,
}

impl Paced {
    fn check_room(&self, bytes: u64) -> io::Result<()> {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let covered = looks.cover(bytes, |ahead| space::check(&self.shared.snapshots.place, ahead));
        covered.map_err(|cause| {
            let text = cause.to_string();
            self.no_room.get_or_init(|| cause);
            io::Error::new(io::ErrorKind::StorageFull, text)
        })
    }
}

impl DiskFile for Paced {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.given_up.is_cancelled() {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        self.check_room(bytes.len() as u64)?;
        self.file.write_at(bytes, offset)?;
        write_behind(&self.file, offset..offset + bytes.len() as u64);
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = pace.due(&self.shared, bytes.len());
        pace.rest(&self.shared, rest);
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.file.allocate(size)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.file.set_size(size)
    }

    /// What has no name does not outlive the process, so that nothing of it need reach the disk; and those who sync the log
    /// meanwhile would wait for all of it.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_has_no_name_and_is_read_in_blocks() {
        let home = tempfile::tempdir().unwrap();
        let scratch = FileDirectory::new(home.path());
        let file = nameless(&scratch, LogIndex(7), Duration::from_secs(1)).unwrap();
        assert_eq!(scratch.names().unwrap(), [""; 0]);
        file.write_at(b"0123456789", 0).unwrap();
        let mut exported =
            Exported { file, bytes: 9, since: Duration::ZERO, revision: 0, head: Snapshot::default(), version: None };
        let read = |exported: &Exported| exported.blocks(4).collect::<io::Result<Vec<_>>>();
        assert_eq!(read(&exported).unwrap(), ["0123", "4567", "8"]);
        exported.bytes = 11;
        assert_eq!(read(&exported).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
