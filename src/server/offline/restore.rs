//! A new cluster from the state in a snapshot file.

use std::path::Path;

use super::{Building, OfflineError, building::Owner};
use crate::{
    apply::exchange::{self, Imported, Refounding},
    disk::DiskFile,
    membership::{Founding, Version},
    pb::raftpb::HardState,
    server::{
        Bootstrap, Identity,
        durability::{self, Mark},
    },
    storage::sorter::SORT_BYTES_DEFAULT,
    wal::{self, Wal},
};

/// What is to be made of a snapshot file.
#[derive(Clone, Debug)]
pub struct Restore<'r> {
    /// The data directory, missing or empty.
    pub data_dir: &'r Path,
    /// A directory of its own for the log, missing.
    pub wal_dir: Option<&'r Path>,
    /// Which of the founding members the directory is for.
    pub name: &'r str,
    /// The founding members.
    pub bootstrap: &'r Bootstrap,
    /// The etcd version that members report at most.
    pub server_version: Version,
    /// Revisions to pass over ([`Refounding::revisions_skipped`]).
    pub revisions_skipped: Option<u64>,
}

/// Makes the data directory of one founding member. Its cluster begins with the keys, leases, users, roles and alarms in
/// `file`, and with members of its own. The same file and options make the directories of the others.
///
/// # Errors
/// [`OfflineError`]; then nothing is left.
pub fn restore<F: DiskFile>(file: F, order: &Restore<'_>) -> Result<Identity, OfflineError> {
    let (founding, identity) = order.bootstrap.founder(order.name)?;
    let building = Building::begin(order.data_dir, order.wal_dir, Owner::Quorate)?;
    let refounding = Refounding {
        founding: &founding,
        server_version: order.server_version,
        revisions_skipped: order.revisions_skipped,
        memory_bytes: SORT_BYTES_DEFAULT,
    };
    let loaded = building.state(|engine, scratch| Ok(exchange::refound(file, engine, scratch, &refounding)?))?;
    write_log(&building, &founding, identity, loaded)?;
    building.finish()?;
    Ok(identity)
}

/// The founding entries, committed, and the mark of a snapshot that stands for them.
fn write_log(
    building: &Building,
    founding: &Founding,
    identity: Identity,
    loaded: Imported,
) -> Result<(), OfflineError> {
    let metadata = wal::Metadata { member: identity.member, cluster: identity.cluster };
    let mut log = Wal::create(building.log(), metadata, &wal::Options::default())?;
    // As etcd's tool writes it: the first founder has the vote of a term in which nobody leads.
    let vote = founding.members().next().map_or(0, |member| member.id.0);
    log.append(&founding.entries(), Some(&HardState { vote, ..founding.hard_state() }))?;
    let Imported { applied: index, term, cluster } = loaded;
    let mark = durability::write_file(&building.snap(), &Mark { index, term, cluster }, None)?;
    log.mark_snapshot(&mark)?;
    Ok(log.sync()?)
}
