//! The thread that reads entries back from the log's files for peers that lag, so that the raft thread never does.

use crate::{
    disk::FileDirectory,
    raft::{FetchRequest, Fetched, Input},
    wal::{Reader, WalError},
};

use super::{inbox::Taken, raft_thread::RaftOrder, shared::Shared};

/// Requests that may wait. Raft has one for each peer that lags.
pub(super) const REQUESTS_MAX: usize = 256;

/// Runs until the inbox is closed.
pub(super) fn run(reader: &Reader<FileDirectory>, shared: &Shared) {
    let mut requests = Vec::new();
    while shared.fetches.take(&mut requests, None) != Taken::Closed {
        for request in requests.drain(..) {
            let fetched = fetch(reader, request);
            shared.order_raft(RaftOrder::Input(Box::new(Input::Fetched(fetched))));
        }
    }
}

/// Entries that cannot be read make the peer that needs them get a snapshot.
fn fetch(reader: &Reader<FileDirectory>, request: FetchRequest) -> Fetched {
    let FetchRequest { number, first, last, bytes_max } = request;
    let entries = match reader.entries(first, last, bytes_max) {
        Ok(entries) => Some(entries),
        Err(WalError::Gone { .. }) => None,
        Err(cause) => {
            tracing::error!(%first, %cause, "cannot read entries back for a peer; it will be sent a snapshot");
            None
        }
    };
    Fetched { number, entries }
}
