//! The thread that owns the write-ahead log. It takes everything queued, appends it, syncs once, and reports.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Clock as _,
    disk::FileDirectory,
    metrics,
    raft::Input,
    wal::{Wal, WalError},
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

fn serve(wal: &mut Wal<FileDirectory>, orders: &mut Vec<WalOrder>, shared: &Shared) -> Result<(), WalError> {
    if let Some(number) = carry_out(wal, orders, |wal| timed_sync(wal, shared))? {
        shared.order_raft(RaftOrder::Input(Box::new(Input::Synced(number))));
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
