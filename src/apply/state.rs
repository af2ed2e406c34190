//! The replicated state as values, and the rows they are read from.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;

use super::{Alarms, ApplyOptions, OpenError};
use crate::{
    lease::LeaseRow,
    membership::{Bucket, CONFIGURATION_KEY, Cluster, ClusterRows, DOWNGRADE_KEY, Row, VERSION_KEY, Version},
    mvcc::Store,
    storage::{Batch, Read, StorageError, Table},
    types::{ClusterId, LeaseId, LogIndex, Term},
};

/// Index of the last applied entry, as etcd's `meta` bucket names it.
const INDEX_KEY: &str = "consistent_index";
/// Term of the last applied entry, as etcd's `meta` bucket names it.
const TERM_KEY: &str = "term";
/// The cluster this state belongs to; a row of ours.
const CLUSTER_ID_KEY: &str = "clusterId";
const AUTH_ENABLED_KEY: &str = "authEnabled";

/// Everything that entries change.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: ApplyOptions,
    pub(super) applied: LogIndex,
    pub(super) term: Term,
    pub(super) store: Store,
    pub(super) cluster: Arc<Cluster>,
    pub(super) alarms: Arc<Alarms>,
    /// Which leases exist: the keys of the lease table.
    pub(super) leases: HashSet<LeaseId>,
    /// Bytes on this member's disk, for the quota alone.
    pub(super) disk_bytes: u64,
}

impl State {
    /// Reads the state from its rows.
    pub(super) fn read(rows: &impl Read, options: ApplyOptions) -> Result<Self, OpenError> {
        check_auth(rows)?;
        let cluster = read_cluster(rows)?;
        check_version(cluster.version(), options.server_version)?;
        let leases = lease_rows(rows)?.into_iter().map(|lease| lease.id).collect();
        let (applied, term) = position(rows)?;
        Ok(Self {
            options,
            applied,
            term,
            store: Store::open(rows)?,
            cluster: Arc::new(cluster),
            alarms: Arc::new(read_alarms(rows)?),
            leases,
            disk_bytes: 0,
        })
    }

    /// Writes where this state stands in the log.
    pub(super) fn write_position<R: Read>(&self, batch: &mut Batch<R>) {
        batch.put_row(Table::Meta, INDEX_KEY.as_bytes(), number(self.applied.0));
        batch.put_row(Table::Meta, TERM_KEY.as_bytes(), number(self.term.0));
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

/// Index and term of the last entry the stored state includes; zeros for a fresh one.
///
/// # Errors
/// [`OpenError`] if they are damaged or cannot be read.
pub fn position(rows: &impl Read) -> Result<(LogIndex, Term), OpenError> {
    let index = read_number(rows, INDEX_KEY)?.unwrap_or(0);
    Ok((LogIndex(index), Term(read_number(rows, TERM_KEY)?.unwrap_or(0))))
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

fn check_version(cluster: Option<Version>, own: Version) -> Result<(), OpenError> {
    match cluster {
        Some(cluster) if !speaks(own, cluster) => Err(OpenError::VersionTooOld { cluster, own }),
        _ => Ok(()),
    }
}

fn check_auth(rows: &impl Read) -> Result<(), OpenError> {
    let enabled = rows.row(Table::Auth, AUTH_ENABLED_KEY.as_bytes())?.is_some_and(|value| value.as_ref() == [1]);
    let named = rows.rows(Table::AuthUser).chain(rows.rows(Table::AuthRole)).next().transpose()?.is_some();
    if enabled || named { Err(OpenError::Auth) } else { Ok(()) }
}

fn read_cluster(rows: &impl Read) -> Result<Cluster, OpenError> {
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

fn read_alarms(rows: &impl Read) -> Result<Alarms, OpenError> {
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

fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

fn table_of(bucket: Bucket) -> Table {
    match bucket {
        Bucket::Members => Table::Member,
        Bucket::MembersRemoved => Table::Removed,
        Bucket::Cluster => Table::Cluster,
        Bucket::Meta => Table::Meta,
    }
}
