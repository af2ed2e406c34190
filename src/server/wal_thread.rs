//! The thread that owns the write-ahead log. It takes everything queued, appends it, syncs once, and reports.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Clock as _,
    disk::FileDirectory,
    metrics,
    raft::{Input, LogBatch},
    wal::{Filler, Wal, WalError},
};

use super::{
    ServerFailure,
    apply_thread::ApplyOrder,
    durability::{self, WalOrder, carry_out},
    inbox::Taken,
    raft_thread::RaftOrder,
    shared::{Shared, Thread},
};

/// A sync slower than this is worth an operator's attention (etcd's threshold).
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// So few committed entries are applied by this thread, if the log has nothing else to do.
const LONELY_ENTRIES_MAX: usize = 8;

/// Runs until the inbox is closed and empty, or the disk fails. A failed write or sync is final: what the page cache
/// holds afterwards is unknown, so the member stops without acknowledging anything more.
pub(super) fn run(mut wal: Wal<FileDirectory>, shared: &Arc<Shared>) {
    let mut orders = Vec::new();
    while shared.wal.take(&mut orders, None) != Taken::Closed {
        let busy = shared.pulse(Thread::Wal);
        if let Err(failure) = serve(&mut wal, &mut orders, shared) {
            return shared.fail(failure);
        }
        drop(busy);
    }
    if let Err(cause) = wal.sync() {
        shared.fail(ServerFailure::Wal(cause));
    }
}

/// Keeps zeros ahead of the log, until that is dropped. Without them a sync takes longer, and nothing else.
pub(super) fn fill(filler: Filler<FileDirectory>) {
    if let Err(cause) = filler.run() {
        tracing::warn!(%cause, "cannot write zeros ahead of the write-ahead log; its syncs may take longer");
    }
}

/// One round. The order of the steps is what makes small loads quick and large ones batches.
fn serve(wal: &mut Wal<FileDirectory>, orders: &mut Vec<WalOrder>, shared: &Shared) -> Result<(), ServerFailure> {
    // 1. What is proposed while the disk works waits for this thread, and wakes nobody.
    shared.raft.announce();
    // 2. What was proposed since the batch was made joins it.
    if shared.raft.carry_out_if_any().is_some_and(|committed| committed > 0) {
        shared.apply.wake();
    }
    shared.wal.drain(orders);
    // 3. Everything becomes durable.
    let synced = write(wal, orders, shared)?;
    // 4. Raft hears it, and makes the next batch of what was proposed meanwhile.
    let committed = shared.raft.visit(synced.map(|number| RaftOrder::Input(Box::new(Input::Synced(number)))));
    // 5. A lonely entry is applied here and now. Beside a next batch, or if it takes longer, its own thread applies.
    let lonely = committed.is_some_and(|committed| committed <= LONELY_ENTRIES_MAX) && shared.wal.is_empty();
    if lonely {
        shared.apply_here();
    } else {
        shared.apply.wake();
    }
    Ok(())
}

/// Everything ordered, up to its end; a received snapshot, of which there is hardly ever one, on its own.
fn write(
    wal: &mut Wal<FileDirectory>,
    orders: &mut Vec<WalOrder>,
    shared: &Shared,
) -> Result<Option<u64>, ServerFailure> {
    let mut promised = None;
    while let Some(at) = orders.iter().position(WalOrder::is_install) {
        let behind = orders.split_off(at + 1);
        let snapshot = orders.pop();
        promised = sync_all(wal, orders, shared)?.or(promised);
        if let Some(WalOrder::Batch(batch)) = snapshot {
            promised = install(wal, &batch, shared)?.or(promised);
        }
        orders.extend(behind);
    }
    Ok(sync_all(wal, orders, shared)?.or(promised))
}

fn sync_all(
    wal: &mut Wal<FileDirectory>,
    orders: &mut Vec<WalOrder>,
    shared: &Shared,
) -> Result<Option<u64>, ServerFailure> {
    carry_out(wal, orders, |wal| timed_sync(wal, shared)).map_err(ServerFailure::Wal)
}

/// A received snapshot becomes durable. The owner of the state finds it before the entries that follow it.
fn install(wal: &mut Wal<FileDirectory>, batch: &LogBatch, shared: &Shared) -> Result<Option<u64>, ServerFailure> {
    let staged = shared.snapshots.take_over().ok_or(ServerFailure::UnexpectedSnapshot)?;
    let place = shared.snapshots.place();
    metrics::SNAPSHOT_APPLY_IN_PROGRESS.set(1);
    let live = || place.generations.make_live(&staged.generation);
    let files_kept = shared.options.snapshots_max;
    let synced =
        durability::install(wal, &place.snap, batch, &staged.mark, files_kept, |wal| timed_sync(wal, shared), live);
    let synced = synced.map_err(ServerFailure::Install)?;
    shared.order_apply_quietly(ApplyOrder::Install(staged));
    Ok(synced)
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
