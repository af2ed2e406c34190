//! The thread that owns the write-ahead log. It takes everything queued, appends it, syncs once, and reports.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Clock as _,
    disk::FileDirectory,
    metrics,
    pb::walpb,
    raft::{Input, LogBatch},
    types::LogIndex,
    wal::{Wal, WalError},
};

use super::{
    ServerFailure,
    inbox::Taken,
    raft_thread::RaftOrder,
    shared::{Shared, Thread},
};

/// A sync slower than this is worth an operator's attention (etcd's threshold).
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// What others want of the log thread.
#[derive(Debug)]
pub(super) enum WalOrder {
    /// One round of the protocol.
    Batch(LogBatch),
    /// The state is durable at this snapshot: record it, and let go of segments behind `release`.
    Snapshot {
        /// The record.
        mark: walpb::Snapshot,
        /// Entries up to here are no longer needed.
        release: LogIndex,
        /// Whole segments kept beyond that.
        segments_kept: usize,
    },
}

/// Runs until the inbox is closed and empty, or the disk fails. A failed write or sync is final: what the page cache
/// holds afterwards is unknown, so the member stops without acknowledging anything more.
pub(super) fn run(mut wal: Wal<FileDirectory>, shared: &Arc<Shared>) {
    let mut orders = Vec::new();
    while shared.wal.take(&mut orders, None) != Taken::Closed {
        let busy = shared.pulse(Thread::Wal);
        if let Err(cause) = carry_out(&mut wal, &mut orders, shared) {
            return shared.fail(ServerFailure::Wal(cause));
        }
        drop(busy);
    }
    if let Err(cause) = wal.sync() {
        shared.fail(ServerFailure::Wal(cause));
    }
}

fn carry_out(wal: &mut Wal<FileDirectory>, orders: &mut Vec<WalOrder>, shared: &Shared) -> Result<(), WalError> {
    let mut promised = None;
    for order in orders.drain(..) {
        match order {
            WalOrder::Batch(batch) => {
                wal.append(&batch.entries, batch.hard_state.as_ref())?;
                promised = batch.must_sync.then_some(batch.number).or(promised);
            }
            WalOrder::Snapshot { mark, release, segments_kept } => {
                wal.mark_snapshot(&mark)?;
                let released = wal.release(release, segments_kept)?;
                tracing::info!(index = mark.index, term = mark.term, released, "saved snapshot");
            }
        }
    }
    let Some(number) = promised else { return wal.flush() };
    timed_sync(wal, shared)?;
    shared.order_raft(RaftOrder::Input(Box::new(Input::Synced(number))));
    Ok(())
}

fn timed_sync(wal: &mut Wal<FileDirectory>, shared: &Shared) -> Result<(), WalError> {
    let started = shared.clock.monotonic();
    wal.sync()?;
    let took = shared.clock.monotonic().saturating_sub(started);
    metrics::WAL_FSYNC.observe(took);
    if took > SLOW_SYNC {
        tracing::warn!(took = ?took, expected_duration = ?SLOW_SYNC, "slow fdatasync");
    }
    Ok(())
}
