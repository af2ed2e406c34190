//! The replicated state as values, and the rows they are read from.

use std::{collections::HashSet, sync::Arc};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{
    Alarms, ApplyOptions, OpenError,
    digest::{Digest, EntryDigest},
};
use crate::{
    auth::Auth,
    lease::LeaseRow,
    membership::{Bucket, CONFIGURATION_KEY, Cluster, ClusterRows, DOWNGRADE_KEY, Row, VERSION_KEY, Version},
    mvcc::Store,
    pb::raftpb::Entry,
    storage::{Batch, Read, StorageError, Table},
    types::{ClusterId, LeaseId, LogIndex, Term},
    v2store::History,
};

/// Where the state stands ([`Position`]); a row of ours, for what etcd keeps under `consistent_index` and `term`.
pub(super) const POSITION_KEY: &str = "position";
/// The cluster this state belongs to; a row of ours.
pub(super) const CLUSTER_ID_KEY: &str = "clusterId";
/// What entries have changed so far ([`Digest`]); a row of ours. Without it the digest begins where the state stands.
pub(super) const DIGEST_KEY: &str = "digest";

/// Where a state stands: in one row, so that whatever becomes of a disk, it is known whether the others belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The last applied entry.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The revision of the key space there.
    pub revision: i64,
    /// The last entry that says anything, which tells two logs apart even if indexes and terms do not.
    pub proof: Proof,
}

/// An entry and the CRC-32C of its data; zeros if there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Its index.
    pub index: LogIndex,
    /// The checksum.
    pub crc: u32,
}

impl Proof {
    /// What `entry` proves.
    pub fn of(entry: &Entry) -> Self {
        Self { index: LogIndex(entry.index), crc: crc32c::crc32c(&entry.data) }
    }
}

impl Default for Position {
    fn default() -> Self {
        Self { index: LogIndex(0), term: Term(0), revision: FIRST_REVISION, proof: Proof::default() }
    }
}

/// The revision of an empty key space.
const FIRST_REVISION: i64 = 1;

impl Position {
    pub(super) fn encode(&self) -> Bytes {
        let mut row = BytesMut::with_capacity(POSITION_BYTES);
        row.put_u64(self.index.0);
        row.put_u64(self.term.0);
        row.put_i64(self.revision);
        row.put_u64(self.proof.index.0);
        row.put_u32(self.proof.crc);
        row.freeze()
    }

    fn decode(mut row: Bytes) -> Option<Self> {
        (row.len() == POSITION_BYTES).then(|| Self {
            index: LogIndex(row.get_u64()),
            term: Term(row.get_u64()),
            revision: row.get_i64(),
            proof: Proof { index: LogIndex(row.get_u64()), crc: row.get_u32() },
        })
    }
}

const POSITION_BYTES: usize = 36;

/// Everything that entries change.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: ApplyOptions,
    pub(super) applied: LogIndex,
    pub(super) term: Term,
    pub(super) proof: Proof,
    pub(super) store: Store,
    pub(super) cluster: Arc<Cluster>,
    pub(super) alarms: Arc<Alarms>,
    pub(super) auth: Arc<Auth>,
    /// Which leases exist: the keys of the lease table.
    pub(super) leases: HashSet<LeaseId>,
    /// What was changed by whole entries.
    pub(super) digest: Digest,
    /// What is being changed by the entry at work.
    pub(super) entry: EntryDigest,
    /// How much of the past of the v2 tree its rows hold.
    pub(super) v2_history: History,
    /// Bytes on this member's disk, for the quota alone.
    pub(super) disk_bytes: u64,
}

impl State {
    /// Reads the state from its rows.
    pub(super) fn read(rows: &impl Read, options: ApplyOptions) -> Result<Self, OpenError> {
        let auth = Auth::read(rows)?;
        let cluster = read_cluster(rows)?;
        check_version(cluster.version(), options.server_version)?;
        let leases = lease_rows(rows)?.into_iter().map(|lease| lease.id).collect();
        let position = position(rows)?;
        let store = Store::open(rows)?;
        if store.revision() != position.revision {
            return Err(OpenError::Torn {
                index: position.index,
                recorded: position.revision,
                found: store.revision(),
            });
        }
        Ok(Self {
            options,
            applied: position.index,
            term: position.term,
            proof: position.proof,
            store,
            cluster: Arc::new(cluster),
            alarms: Arc::new(read_alarms(rows)?),
            auth: Arc::new(auth),
            leases,
            digest: digest(rows, position.index)?,
            entry: EntryDigest::default(),
            v2_history: History::default(),
            disk_bytes: 0,
        })
    }

    /// Writes where this state stands in the log.
    pub(super) fn write_position<R: Read>(&self, batch: &mut Batch<R>) {
        let (index, term, revision, proof) = (self.applied, self.term, self.store.revision(), self.proof);
        let position = Position { index, term, revision, proof };
        batch.put_row(Table::Meta, POSITION_KEY.as_bytes(), position.encode());
        batch.put_row(Table::Meta, DIGEST_KEY.as_bytes(), self.digest.encode());
    }

    /// Writes rows about the cluster for the entry at work.
    pub(super) fn write_cluster<R: Read>(&mut self, batch: &mut Batch<R>, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            // Founders have raft's configuration before their log says so; newcomers have not.
            if row.bucket != Bucket::Meta {
                self.entry.row(table_of(row.bucket), &row.key, row.value.as_deref());
            }
            write_rows(batch, [row]);
        }
    }
}

/// Writes rows about the cluster.
pub(super) fn write_rows<R: Read>(batch: &mut Batch<R>, rows: impl IntoIterator<Item = Row>) {
    for Row { bucket, key, value } in rows {
        let table = table_of(bucket);
        match value {
            Some(value) => batch.put_row(table, &key, value),
            None => batch.delete_row(table, &key),
        }
    }
}

/// Writes which cluster a state belongs to.
pub(super) fn write_cluster_id<R: Read>(batch: &mut Batch<R>, id: ClusterId) {
    batch.put_row(Table::Meta, CLUSTER_ID_KEY.as_bytes(), number(id.0));
}

/// Where the stored state stands.
///
/// # Errors
/// [`OpenError`] if its row is damaged or cannot be read.
pub fn position(rows: &impl Read) -> Result<Position, OpenError> {
    let row = rows.row(Table::Meta, POSITION_KEY.as_bytes())?;
    row.map_or(Ok(Position::default()), |row| Position::decode(row).ok_or(OpenError::Meta(POSITION_KEY)))
}

/// The stored digest, or one that begins at `index`, where a state without it stands.
fn digest(rows: &impl Read, index: LogIndex) -> Result<Digest, OpenError> {
    let row = rows.row(Table::Meta, DIGEST_KEY.as_bytes())?;
    row.map_or(Ok(Digest::begin(index)), |row| Digest::decode(row).ok_or(OpenError::Meta(DIGEST_KEY)))
}

/// Every stored lease, by identifier.
pub(super) fn lease_rows(rows: &impl Read) -> Result<Vec<LeaseRow>, OpenError> {
    rows.rows(Table::Lease)
        .map(|row| {
            let (key, value) = row?;
            Ok(LeaseRow::read(&key, &value)?)
        })
        .collect()
}

/// A member must speak at least the version its cluster has agreed on; patch levels do not matter.
pub(super) fn speaks(own: Version, cluster: Version) -> bool {
    own.without_patch() >= cluster.without_patch()
}

/// Whether this member may be one of a cluster at this version.
pub(super) fn check_version(cluster: Option<Version>, own: Version) -> Result<(), OpenError> {
    match cluster {
        Some(cluster) if !speaks(own, cluster) => Err(OpenError::VersionTooOld { cluster, own }),
        _ => Ok(()),
    }
}

pub(super) fn read_cluster(rows: &impl Read) -> Result<Cluster, OpenError> {
    let id = ClusterId(read_number(rows, CLUSTER_ID_KEY)?.unwrap_or(0));
    let named = |bucket, key: &str| rows.row(table_of(bucket), key.as_bytes());
    let stored = ClusterRows {
        members: rows.rows(Table::Member).collect::<Result<_, StorageError>>()?,
        removed: rows.rows(Table::Removed).map(|row| Ok(row?.0)).collect::<Result<_, StorageError>>()?,
        configuration: named(Bucket::Meta, CONFIGURATION_KEY)?,
        version: named(Bucket::Cluster, VERSION_KEY)?,
        downgrade: named(Bucket::Cluster, DOWNGRADE_KEY)?,
    };
    Ok(Cluster::from_rows(id, &stored)?)
}

pub(super) fn read_alarms(rows: &impl Read) -> Result<Alarms, OpenError> {
    let mut alarms = Alarms::default();
    for row in rows.rows(Table::Alarm) {
        let (key, _) = row?;
        if !alarms.read_row(&key) {
            return Err(OpenError::Alarm(key.escape_ascii().to_string()));
        }
    }
    Ok(alarms)
}

fn read_number(rows: &impl Read, key: &'static str) -> Result<Option<u64>, OpenError> {
    let value = rows.row(Table::Meta, key.as_bytes())?;
    let parse = |value: Bytes| value.as_ref().try_into().map(u64::from_be_bytes).map_err(|_| OpenError::Meta(key));
    value.map(parse).transpose()
}

pub(super) fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

pub(super) fn table_of(bucket: Bucket) -> Table {
    match bucket {
        Bucket::Members => Table::Member,
        Bucket::MembersRemoved => Table::Removed,
        Bucket::Cluster => Table::Cluster,
        Bucket::Meta => Table::Meta,
    }
}
