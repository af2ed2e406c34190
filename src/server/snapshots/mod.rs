//! Snapshots on their way between members, and to clients.
//!
//! Raft asks for a snapshot to be sent ([`Snapshots::send`]), the transport brings one that is received
//! ([`Snapshots::receive`]). Both return at once; rows are read and loaded in threads of their own. A client reads one
//! as etcd's database ([`super::Handle::snapshot`]).
//!
//! A received snapshot is staged: loaded into a generation of its own, durably, beside the live one. Only then raft hears
//! of it, and if raft takes it the log's thread installs it ([`super::durability::install`]) and the owner of the state
//! goes on with it. Invariants: one snapshot at a time is received or installed ([`turns`]); nothing of one that is not installed
//! stays on the disk; entries that a receiver will need stay in the log, as far as [`holds`] allows.

mod budget;
mod clients;
mod export;
mod holds;
mod receive;
mod scheduled;
mod send;
mod shelf;
mod space;
mod turns;

use std::{
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::runtime::Handle;

use crate::{
    apply::{Applier, ApplyOptions},
    disk::FileDirectory,
    lease::LeaseRow,
    storage::FjallEngine,
};

use super::{Options, datadir::DataDir, durability::Mark, generations::Generations, open};

use budget::Budget;
use clients::Readers;
pub use clients::{CLIENT_SNAPSHOTS_MAX, ClientSnapshot, SnapshotError};
use export::Exports;
use holds::Holds;
pub(super) use holds::Reach;
pub use scheduled::{Schedule, save_snapshots};
use send::Sources;
pub use shelf::Keep;
use space::NoRoom;
use turns::{Turn, Turns};

/// How often a thread looks whether nobody reads a replaced state any more.
const RETIRE_POLL: Duration = Duration::from_millis(100);

/// What sends and receives snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    place: Place,
    /// Where tasks run; nothing before the daemon has connected the member.
    runtime: OnceLock<Handle>,
    holds: Holds,
    /// What those share that go to members, and those that are made for clients.
    for_members: Budget,
    for_clients: Budget,
    sources: Sources,
    exports: Exports,
    readers: Readers,
    turns: Turns,
    /// What the log's thread is about to install.
    staged: Mutex<Option<Box<Staged>>>,
}

/// Where snapshots are kept, and how they are opened.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) generations: Generations,
    /// `.snap` files.
    pub(super) snap: FileDirectory,
    scratch: PathBuf,
    apply: ApplyOptions,
    options: Options,
}

/// A received snapshot that is durable, and opened, in a generation of its own.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) generation: PathBuf,
    pub(super) engine: FjallEngine,
    pub(super) applier: Applier<FjallEngine>,
    pub(super) leases: Vec<LeaseRow>,
    pub(super) mark: Mark,
    /// No other snapshot is received while there is this one.
    _turn: Turn,
}

impl Place {
    pub(super) fn new(dir: &DataDir, options: &Options, identity: super::Identity) -> Self {
        Self {
            generations: dir.generations(),
            snap: FileDirectory::new(dir.snap()),
            scratch: dir.scratch(),
            apply: ApplyOptions { member: identity.member, ..open::settings(options).apply },
            options: options.clone(),
        }
    }
}

impl Snapshots {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            runtime: OnceLock::new(),
            holds: Holds::default(),
            for_members: Budget::of_members(),
            for_clients: Budget::of_clients(),
            sources: Sources::default(),
            exports: Exports::default(),
            readers: Readers::new(),
            turns: Turns::new(),
            staged: Mutex::default(),
        }
    }

    /// Tasks run here from now on.
    pub(super) fn connect(&self, runtime: Handle) {
        // A second runtime is that of a second connection, which serves as well as the first.
        drop(self.runtime.set(runtime));
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether `bytes` more can be written beside the state.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), NoRoom> {
        space::check(&self.place, bytes)
    }

    /// What receivers of snapshots keep in the log.
    pub(super) fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Hands a staged snapshot that raft has taken to the log's thread.
    pub(super) fn hand_over(&self, staged: Box<Staged>) {
        *self.staged.lock().unwrap_or_else(PoisonError::into_inner) = Some(staged);
    }

    /// For the log's thread: what was handed over.
    pub(super) fn take_over(&self) -> Option<Box<Staged>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Removes a staged snapshot that raft does not want.
    pub(super) fn discard(&self, staged: Box<Staged>) {
        let Staged { generation, engine, applier, .. } = *staged;
        drop(applier);
        self.retire(generation, engine);
    }

    /// Removes a generation that is not live, in the background, once nobody reads it any more. What a stop leaves of it
    /// the next start removes.
    pub(super) fn retire(&self, generation: PathBuf, engine: FjallEngine) {
        let generations = self.place.generations.clone();
        let retired = super::spawn_behind("state-retire", move || {
            while !engine.is_unused() {
                std::thread::sleep(RETIRE_POLL);
            }
            drop(engine);
            if let Err(cause) = generations.remove(&generation) {
                tracing::warn!(path = ?generation, %cause, "cannot remove a replaced state; the next start will");
            }
        });
        if let Err(cause) = retired {
            tracing::warn!(%cause, "no thread to remove a replaced state; the next start will");
        }
    }
}
