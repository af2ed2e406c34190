//! Snapshots that a member takes by itself (`snapshot-schedule`): the file that `snapshot save` gives, in a directory.
//!
//! Invariants: one is taken at a time, in memory that does not grow with the state; a file has its name only after it was
//! synced and read back whole; one that fails takes none of those before with it. When the next is due follows from the names
//! of the files, so that restarts neither skip one nor take one each.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Error;
use thiserror::Error as ThisError;
use tokio::{select, sync::oneshot};

use crate::{
    clock::Clock as _,
    etcdfile::{
        database::{DatabaseError, TRAILER_BYTES},
        part::{Part, PartError},
    },
    metrics,
    types::with_causes,
};

use super::{
    super::{Handle, duties, shared::Shared},
    budget::Pace,
    clients::{SnapshotError, sealed},
    export::Exported,
    shelf::{Keep, Shelf, Volume},
    space::{self, Looks, NoRoom},
};

/// Longest time until one that failed is tried again.
const RETRY: Duration = Duration::from_mins(5);

/// When snapshots are taken, and which are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// `snapshot-schedule`: from the beginning of one to that of the next.
    pub period: Duration,
    /// `snapshot-keep` and `snapshot-keep-time`.
    pub keep: Keep,
}

/// Why there is no snapshot.
#[derive(Debug, ThisError)]
enum SaveError {
    #[error(transparent)]
    Export(#[from] SnapshotError),
    #[error("cannot use the directory {}: {cause}", path.display())]
    Directory { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error(transparent)]
    Part(#[from] PartError),
    #[error("{} is not what was written: {}", path.display(), with_causes(cause))]
    Verify { path: PathBuf, cause: DatabaseError },
    #[error("reading the state: {0}")]
    Read(io::Error),
    #[error("starting a thread that writes it: {0}")]
    Thread(io::Error),
    #[error("the thread that writes it panicked")]
    Panicked,
    #[error("the member stops")]
    Stopping,
}

impl SaveError {
    /// What an operator can do about it.
    fn remedy(&self) -> &'static str {
        let cause = match self {
            Self::Directory { cause, .. } => Some(cause),
            Self::Part(part) => part.io(),
            Self::NoRoom(_) | Self::Export(SnapshotError::NoRoom(_)) => return MAKE_ROOM,
            Self::Verify { .. } => return "check that disk: it gives back other bytes than it was given",
            _ => None,
        };
        match cause.map(io::Error::kind) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge) => MAKE_ROOM,
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                "let the daemon's user write there (in a unit also ReadWritePaths=), or name another directory: snapshot-dir"
            }
            Some(_) => "see to that directory, or name another one: snapshot-dir",
            None => "nothing if it goes by itself: it is tried again",
        }
    }
}

const MAKE_ROOM: &str =
    "make room on that disk, keep fewer (snapshot-keep), or name a directory on another one: snapshot-dir";

/// A file that is whole.
struct Saved {
    path: PathBuf,
    bytes: u64,
    /// What `quorateutl snapshot status` calls the hash of it.
    hash: u32,
}

/// Takes snapshots by the schedule, if there is one.
///
/// # Errors
/// Never; one that fails is logged, counted, and tried again.
pub async fn save_snapshots(handle: Handle) -> Result<(), Error> {
    let shared = &handle.shared;
    if !duties::until_current(&handle).await {
        return Ok(());
    }
    let shelf = Shelf::new(&shared.options.snapshot_dir, handle.member_id());
    let mut tuned = shared.tuned.subscribe();
    let (mut period, mut due) = (None, None);
    loop {
        let schedule = shared.tunables().snapshots;
        if schedule.map(|schedule| schedule.period) != period {
            period = schedule.map(|schedule| schedule.period);
            metrics::SCHEDULED_SNAPSHOT_PERIOD.set_count(period.map_or(0, |period| period.as_secs().max(1)));
            due = match period {
                Some(period) => Some(first_due(shared, &shelf, period).await),
                None => None,
            };
        }
        let patience = due.map(|due: Duration| due.saturating_sub(shared.clock.monotonic()));
        select! {
            () = duties::sleep_for(patience) => {}
            _ = tuned.changed() => continue,
            () = handle.stopped() => return Ok(()),
        }
        let Some(Schedule { period, keep }) = schedule else { continue };
        let begun = shared.clock.monotonic();
        let is_done = take(shared, &shelf, keep).await;
        due = Some(begun + if is_done { period } else { period.min(RETRY) });
    }
}

/// When the first one is due: a period after the newest there is, or at once.
async fn first_due(shared: &Arc<Shared>, shelf: &Shelf, period: Duration) -> Duration {
    let (now, wall) = (shared.clock.monotonic(), shared.clock.wall());
    let listed = shelf.clone();
    let newest = tokio::task::spawn_blocking(move || {
        let newest = listed.volumes().ok()?.pop()?;
        let bytes = std::fs::metadata(&newest.path).map_or(0, |metadata| metadata.len());
        Some((newest, bytes))
    });
    // Of a directory that cannot be read, taking one tells.
    let Some((newest, bytes)) = newest.await.ok().flatten() else { return now };
    note(&newest, bytes);
    now + period.saturating_sub(wall.saturating_sub(newest.taken))
}

fn note(newest: &Volume, bytes: u64) {
    metrics::SCHEDULED_SNAPSHOT_LAST.set_count(newest.taken.as_secs());
    metrics::SCHEDULED_SNAPSHOT_BYTES.set_count(bytes);
}

/// Takes one; false if that failed.
async fn take(shared: &Arc<Shared>, shelf: &Shelf, keep: Keep) -> bool {
    let (begun, wall) = (shared.clock.monotonic(), shared.clock.wall());
    let outcome = save(shared, shelf, wall).await;
    let took = shared.clock.monotonic().saturating_sub(begun);
    match outcome {
        Ok(Saved { path, bytes, hash }) => {
            let hash = format!("{hash:x}");
            tracing::info!(path = %path.display(), bytes, hash, took = ?took, "took a scheduled snapshot and read it back");
            note(&Volume { taken: wall, path }, bytes);
            tidy(shelf, wall, keep).await;
            true
        }
        Err(SaveError::Stopping) => false,
        Err(cause) => {
            metrics::SCHEDULED_SNAPSHOT_FAILURES.inc();
            let (directory, remedy) = (shelf.path().display(), cause.remedy());
            tracing::error!(%directory, %cause, remedy, "failed to take a scheduled snapshot; those before are kept");
            false
        }
    }
}

async fn tidy(shelf: &Shelf, now: Duration, keep: Keep) {
    let tidied = shelf.clone();
    let outcome = tokio::task::spawn_blocking(move || tidied.tidy(now, keep)).await;
    let kept = match outcome {
        Ok(Ok(kept)) => kept,
        Ok(Err(cause)) => vec![(shelf.path().to_owned(), cause)],
        // The runtime ends.
        Err(_) => return,
    };
    for (path, cause) in kept {
        tracing::warn!(path = %path.display(), %cause, "cannot remove an old scheduled snapshot; remove it by hand");
    }
}

async fn save(shared: &Arc<Shared>, shelf: &Shelf, wall: Duration) -> Result<Saved, SaveError> {
    let prepared = shelf.clone();
    let unusable = |cause| SaveError::Directory { path: shelf.path().to_owned(), cause };
    // A directory that cannot be used costs no export.
    let prepared = tokio::task::spawn_blocking(move || prepared.prepare()).await.map_err(|_| SaveError::Stopping)?;
    prepared.map_err(unusable)?;
    let exported = shared.snapshots.database(shared, shared.applied()).await.map_err(SnapshotError::from)?;
    let path = shelf.place(wall, exported.revision());
    let shared = Arc::clone(shared);
    let (done, written) = oneshot::channel();
    // Nobody listens any more if the runtime has ended.
    let write = move || drop(done.send(write(&shared, &exported, path)));
    super::super::spawn_behind("snapshot-writer", write).map_err(SaveError::Thread)?;
    written.await.map_err(|_| SaveError::Panicked)?
}

/// Writes the file at the pace of clients' snapshots, and reads it back before it gets its name.
fn write(shared: &Shared, exported: &Exported, path: PathBuf) -> Result<Saved, SaveError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    space::check_at(directory, exported.bytes())?;
    let (mut part, mut looks) = (Part::create(&path)?, Looks::default());
    let mut pace = Pace::for_clients(shared);
    for block in sealed(exported) {
        let block = block.map_err(SaveError::Read)?;
        if shared.is_stopping() {
            return Err(SaveError::Stopping);
        }
        looks.cover(block.len() as u64, |ahead| space::check_at(directory, ahead))?;
        part.write(&block)?;
        let rest = pace.due(shared, block.len());
        pace.rest(shared, rest);
    }
    part.seal()?;
    let hash = part.read_back().map_err(|cause| SaveError::Verify { path: path.clone(), cause })?;
    let bytes = exported.bytes() + TRAILER_BYTES;
    part.rename(&path)?;
    Ok(Saved { path, bytes, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do() {
        let directory = |kind: io::ErrorKind| SaveError::Directory { path: "/backup".into(), cause: kind.into() };
        assert!(directory(io::ErrorKind::ReadOnlyFilesystem).remedy().contains("ReadWritePaths="));
        assert!(directory(io::ErrorKind::StorageFull).remedy().contains("snapshot-keep"));
        assert!(directory(io::ErrorKind::NotADirectory).remedy().contains("snapshot-dir"));
        let full = PartError::Write { path: "/backup/x".into(), cause: io::ErrorKind::StorageFull.into() };
        assert_eq!(SaveError::from(full).remedy(), MAKE_ROOM);
        assert_eq!(SaveError::Export(SnapshotError::NoRoom(String::new())).remedy(), MAKE_ROOM);
        let text = directory(io::ErrorKind::PermissionDenied).to_string();
        assert_eq!(text, "cannot use the directory /backup: permission denied");
    }
}
