//! The thread that owns the write-ahead log. It takes everything queued, appends it, syncs once, and reports.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Clock as _,
    disk::FileDirectory,
    metrics,
    raft::Input,
    wal::{Filler, Wal, WalError},
};

use super::{
    ServerFailure,
    durability::{WalOrder, carry_out},
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
        if let Err(cause) = serve(&mut wal, &mut orders, shared) {
            return shared.fail(ServerFailure::Wal(cause));
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
fn serve(wal: &mut Wal<FileDirectory>, orders: &mut Vec<WalOrder>, shared: &Shared) -> Result<(), WalError> {
    // 1. What is proposed while the disk works waits for this thread, and wakes nobody.
    shared.raft.announce();
    // 2. What was proposed since the batch was made joins it.
    if shared.raft.carry_out_if_any().is_some_and(|committed| committed > 0) {
        shared.apply.wake();
    }
    shared.wal.drain(orders);
    // 3. Everything becomes durable.
    let synced = carry_out(wal, orders, |wal| timed_sync(wal, shared))?;
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
