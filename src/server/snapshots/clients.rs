//! Snapshots for clients: the state as etcd's database and the SHA-256 of it, in pieces.
//!
//! Invariants: so many are read at a time and no more, and so many files take room on the disk; what is read is one
//! state, which includes everything that was applied when the client asked; a snapshot that ends early ends in an error.

use std::{io, sync::Arc};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{apply::exchange::ExchangeError, mvcc::ImportError, storage::StorageError, types::with_causes};

use super::{
    super::Handle,
    budget::Pace,
    export::{ExportError, Exported},
    send::{BLOCKS_AHEAD, pass_on},
};

/// Clients that read a snapshot of one member at a time.
pub const CLIENT_SNAPSHOTS_MAX: usize = 4;
/// Longest piece, as in etcd.
const PIECE_BYTES: usize = 32 << 10;
/// What is read at a time.
const BLOCK_BYTES: usize = 8 * PIECE_BYTES;

/// Why a client has no snapshot.
#[derive(Clone, Debug, Error)]
pub enum SnapshotError {
    /// There are enough readers.
    #[error(
        "quorate: {CLIENT_SNAPSHOTS_MAX} clients are reading a snapshot of this member, and no more may at a time; try again later, or ask another member"
    )]
    Busy,
    /// A file that leaves them out would be taken for a whole backup.
    #[error(
        "quorate: the cluster holds keys of the v2 API, which a snapshot file of etcd has no place for; copy them to v3 keys and delete them first"
    )]
    V2Keys,
    /// The disk is too full for a copy of the state.
    #[error("quorate: {0}")]
    NoRoom(String),
    /// This member's store cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Anything else.
    #[error("quorate: {0}")]
    Failed(String),
}

impl From<ExportError> for SnapshotError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Write(ExchangeError::V2KeysHere) => Self::V2Keys,
            ExportError::Write(ExchangeError::Rows(ImportError::Storage(cause))) => Self::Storage(cause),
            ExportError::NoRoom(_) => Self::NoRoom(error.to_string()),
            _ => Self::Failed(with_causes(&error)),
        }
    }
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        Self::Failed(format!("reading the written snapshot: {error}"))
    }
}

/// Who reads.
#[derive(Debug)]
pub(super) struct Readers {
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(CLIENT_SNAPSHOTS_MAX)) }
    }

    fn turn(&self) -> Result<OwnedSemaphorePermit, SnapshotError> {
        Arc::clone(&self.turns).try_acquire_owned().map_err(|_| SnapshotError::Busy)
    }
}

/// A snapshot being read. Dropped, it is given up.
#[derive(Debug)]
pub struct ClientSnapshot {
    bytes: u64,
    version: String,
    blocks: mpsc::Receiver<io::Result<Bytes>>,
    /// What was read and not handed out.
    block: Bytes,
    /// What is still to be handed out.
    left: u64,
}

impl ClientSnapshot {
    /// The length of the database.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The version that the database says it is made for; empty up to 3.5.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The next piece and how many bytes of the database are behind it. The last piece is the SHA-256 of all before.
    ///
    /// # Errors
    /// A snapshot that could not be read to its end.
    pub async fn next(&mut self) -> Result<Option<(Bytes, u64)>, SnapshotError> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.block.is_empty() {
            let ended = || SnapshotError::Failed("the thread that reads the written snapshot panicked".to_owned());
            self.block = self.blocks.recv().await.ok_or_else(ended)??;
        }
        let piece = self.block.split_to(PIECE_BYTES.min(self.block.len()));
        self.left = self.left.saturating_sub(piece.len() as u64);
        Ok(Some((piece, self.left.saturating_sub(SUM_BYTES))))
    }
}

/// Bytes of a SHA-256.
const SUM_BYTES: u64 = 32;

impl Handle {
    /// The state as etcd's database, with everything that is applied now. Writes go on meanwhile.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn snapshot(&self) -> Result<ClientSnapshot, SnapshotError> {
        let snapshots = &self.shared.snapshots;
        let turn = snapshots.readers.turn()?;
        let exported = snapshots.database(&self.shared, self.shared.applied()).await?;
        let (bytes, version) = (exported.bytes(), exported.version());
        let (to, blocks) = mpsc::channel(BLOCKS_AHEAD);
        let shared = Arc::clone(&self.shared);
        let read = move || {
            pass_on(&shared, Pace::for_clients(&shared), sealed(&exported), &to);
            drop(turn);
        };
        super::super::spawn_behind("snapshot-reader", read).map_err(ExportError::Thread)?;
        let version = version.map(|version| version.to_string()).unwrap_or_default();
        Ok(ClientSnapshot { bytes, version, blocks, block: Bytes::new(), left: bytes + SUM_BYTES })
    }
}

/// The database, and the SHA-256 of it.
pub(super) fn sealed(exported: &Exported) -> impl Iterator<Item = io::Result<Bytes>> {
    let (mut blocks, mut sum) = (exported.blocks(BLOCK_BYTES), Some(Sha256::new()));
    std::iter::from_fn(move || match blocks.next() {
        Some(block) => {
            if let (Some(sum), Ok(block)) = (&mut sum, &block) {
                sum.update(block);
            }
            Some(block)
        }
        None => sum.take().map(|sum| Ok(Bytes::copy_from_slice(&sum.finalize()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(blocks: &[&[u8]], bytes: u64) -> ClientSnapshot {
        let (to, from) = mpsc::channel(blocks.len().max(1));
        for block in blocks {
            to.try_send(Ok(Bytes::copy_from_slice(block))).unwrap();
        }
        ClientSnapshot { bytes, version: String::new(), blocks: from, block: Bytes::new(), left: bytes + SUM_BYTES }
    }

    #[tokio::test]
    async fn pieces_are_as_long_as_in_etcd_and_count_down() {
        let (block, sum) = (vec![1; PIECE_BYTES + 7], [2; 32]);
        let mut reading = reading(&[&block, &sum], PIECE_BYTES as u64 + 7);
        let mut seen = Vec::new();
        while let Some((piece, left)) = reading.next().await.unwrap() {
            seen.push((piece.len(), left));
        }
        assert_eq!(seen, [(PIECE_BYTES, 7), (7, 0), (32, 0)]);
    }

    #[tokio::test]
    async fn a_snapshot_without_its_end_is_an_error() {
        let mut reading = reading(&[&[1; 10]], 10);
        assert_eq!(reading.next().await.unwrap().unwrap().1, 0);
        assert!(matches!(reading.next().await, Err(SnapshotError::Failed(_))));
    }

    #[test]
    fn readers_are_counted() {
        let readers = Readers::new();
        let turns: Vec<_> = (0..CLIENT_SNAPSHOTS_MAX).map(|_| readers.turn().unwrap()).collect();
        let refusal = readers.turn().unwrap_err().to_string();
        assert!(refusal.starts_with("quorate: 4 clients are reading"), "{refusal}");
        drop(turns);
        assert!(readers.turn().is_ok());
    }
}
