//! The replicated state as etcd's database, both ways.
//!
//! An export writes the state at its applied index; an import fills an empty engine, ready to be opened by
//! [`super::Applier`]. Rows that etcd and we spell alike travel as they are; those of the key space are made by `mvcc`.
//! What is not in the file (the cluster's identifier) comes with the call, and the version of the file follows from the
//! cluster's.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use bytes::Bytes;
use thiserror::Error;

use super::{
    OpenError, Published,
    state::{self, POSITION_KEY, Position, Proof},
};
use crate::{
    auth::Auth,
    disk::{Directory, DiskFile},
    etcdfile::{
        bbolt::{BboltError, Reader, Row, Writer, Written},
        database::{self, AUTH_REVISION_FIRST, AUTH_REVISION_KEY, Bucket, DatabaseError, INDEX_KEY, TERM_KEY},
        v2json::{self, TreeError},
    },
    membership::{self, CONFIGURATION_KEY, Cluster, Founding, VERSION_KEY, Version},
    mvcc::{COMPACTION_ROWS, ImportError, Loader, RowCheck, Store},
    pb::raftpb::ConfState,
    storage::{Engine, MemoryEngine, Read, StorageError, Table, Writes},
    types::{ClusterId, LogIndex, Term},
};

/// The first version whose databases say which version they are made for.
const VERSIONED_SINCE: Version = Version::minor(3, 6);

/// What an import is told, because the file does not say it.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions<'c> {
    /// The cluster the state belongs to.
    pub cluster: ClusterId,
    /// The etcd version this member reports: neither the cluster nor the file may be above it.
    pub server_version: Version,
    /// Where the file must stand, if the snapshot it came with has said so.
    pub index: Option<LogIndex>,
    /// Raft's configuration there, if it is known better than by the file.
    pub configuration: Option<&'c ConfState>,
    /// Memory for sorting ([`crate::storage::sorter::SORT_BYTES_DEFAULT`]).
    pub memory_bytes: usize,
}

/// A new cluster that begins with the state in a file.
#[derive(Clone, Copy, Debug)]
pub struct Refounding<'f> {
    /// Its members, who take the place of those in the file.
    pub founding: &'f Founding,
    /// The etcd version its members report at most: neither the cluster nor the file may be above it.
    pub server_version: Version,
    /// Revisions to pass over ([`Loader::skip_revisions`]).
    pub revisions_skipped: Option<u64>,
    /// Memory for sorting.
    pub memory_bytes: usize,
}

/// What an import has brought.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The last entry that the state includes.
    pub applied: LogIndex,
    /// Its term.
    pub term: Term,
    /// Members, versions, and raft's configuration at that entry.
    pub cluster: Arc<Cluster>,
}

/// Why a database was not taken or not written.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// The file is damaged, not etcd's, or cannot be read or written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Rows of the key space that cannot be taken, or a failing store.
    #[error(transparent)]
    Rows(#[from] ImportError),
    /// A state that this version cannot serve.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file was made for a version above ours.
    #[error("the database is made for etcd {found}, but this member speaks {own}; take a newer version of it")]
    TooNew {
        /// As the file spells it.
        found: String,
        /// What this member reports.
        own: Version,
    },
    /// The file stands elsewhere than its sender said.
    #[error("the database stands at index {found}, but the snapshot it came with is one of index {expected}")]
    OtherIndex {
        /// In the file.
        found: LogIndex,
        /// In the snapshot's metadata.
        expected: LogIndex,
    },
    /// There is a state already.
    #[error("the store that the database is to be loaded into is not empty")]
    NotEmpty,
    /// No entry has been applied: etcd takes no such database.
    #[error("nothing has been applied yet: there is no state to be handed on")]
    Nothing,
    /// Keys of the v2 API are here, and etcd's database has no place for them.
    #[error(
        "the cluster holds keys of the v2 API, which etcd's database has no place for and members of etcd cannot take; delete \
         them first"
    )]
    V2KeysHere,
    /// Keys of the v2 API.
    #[error(
        "the cluster holds keys of the v2 API of etcd, which are not taken over; remove or migrate them with etcd 3.5 first"
    )]
    V2Keys,
    /// The v2 tree does not parse.
    #[error("the v2 tree of the snapshot is damaged")]
    Tree(#[from] TreeError),
}

impl From<BboltError> for ExchangeError {
    fn from(error: BboltError) -> Self {
        Self::Database(error.into())
    }
}

impl From<StorageError> for ExchangeError {
    fn from(error: StorageError) -> Self {
        Self::Rows(error.into())
    }
}

/// Writes `published` as etcd's database into `file`, which is empty, and syncs it.
///
/// All ten buckets are there, as etcd would write them at this index. A snapshot file needs [`database::seal`] besides.
///
/// # Errors
/// [`ExchangeError::Nothing`], [`ExchangeError::V2KeysHere`]; damage of the state, failure to write.
pub fn export<S: Read, F: DiskFile>(published: &Published<S>, file: F) -> Result<Written<F>, ExchangeError> {
    if published.applied.0 == 0 || published.term.0 == 0 {
        return Err(ExchangeError::Nothing);
    }
    if published.v2().has_user_data()? {
        return Err(ExchangeError::V2KeysHere);
    }
    let mut writer = Writer::new(file);
    for bucket in Bucket::ALL {
        writer.bucket(bucket.name())?;
        write_bucket(published, bucket, &mut writer)?;
    }
    Ok(writer.finish()?)
}

fn write_bucket<S: Read, F: DiskFile>(
    published: &Published<S>,
    bucket: Bucket,
    writer: &mut Writer<F>,
) -> Result<(), ExchangeError> {
    let snapshot = published.view.snapshot();
    match bucket {
        Bucket::Key => write_rows(writer, published.view.etcd_rows()),
        Bucket::Meta => write_rows(writer, meta_rows(published)?.into_iter().map(Ok)),
        Bucket::Auth => write_rows(writer, auth_rows(snapshot)?.into_iter().map(Ok)),
        _ => table_of(bucket).map_or(Ok(()), |table| write_rows(writer, snapshot.rows(table))),
    }
}

fn write_rows<F: DiskFile>(
    writer: &mut Writer<F>,
    rows: impl Iterator<Item = Result<(Bytes, Bytes), StorageError>>,
) -> Result<(), ExchangeError> {
    for row in rows {
        let (key, value) = row?;
        writer.put(key, value)?;
    }
    Ok(())
}

/// What we keep of `meta`, where the state stands, and the version that follows from the cluster's.
fn meta_rows<S: Read>(published: &Published<S>) -> Result<BTreeMap<Bytes, Bytes>, StorageError> {
    let snapshot = published.view.snapshot();
    let stands = [(INDEX_KEY, published.applied.0), (TERM_KEY, published.term.0)];
    let mut rows: BTreeMap<_, _> = stands.map(|(key, value)| (key.into(), state::number(value))).into();
    for name in kept_of_meta() {
        rows.extend(snapshot.row(Table::Meta, name)?.map(|value| (Bytes::from_static(name), value)));
    }
    if let Some(version) = storage_version(published) {
        let name = Bytes::from_static(database::STORAGE_VERSION_KEY.as_bytes());
        rows.insert(name, version.to_string().into());
    }
    Ok(rows)
}

/// The version that a database of `published` says it is made for; one of etcd 3.5 says none.
pub fn storage_version<S>(published: &Published<S>) -> Option<Version> {
    let version = published.cluster.version().filter(|version| *version >= VERSIONED_SINCE);
    version.map(Version::without_patch)
}

/// The rows of `meta` that are the same here and there.
fn kept_of_meta() -> impl Iterator<Item = &'static [u8]> {
    [CONFIGURATION_KEY.as_bytes()].into_iter().chain(COMPACTION_ROWS)
}

/// etcd gives every new database a revision of users and roles.
fn auth_rows(snapshot: &impl Read) -> Result<BTreeMap<Bytes, Bytes>, StorageError> {
    let mut rows = snapshot.rows(Table::Auth).collect::<Result<BTreeMap<_, _>, _>>()?;
    let first = || Bytes::copy_from_slice(&AUTH_REVISION_FIRST.to_be_bytes());
    rows.entry(Bytes::from_static(AUTH_REVISION_KEY.as_bytes())).or_insert_with(first);
    Ok(rows)
}

/// Loads etcd's database from `file` into `engine`, which is empty, and makes it durable there. What memory does not hold
/// is sorted in `scratch`. The caller opens the engine with [`super::Applier`] as after any start.
///
/// Everything is checked: the pages, the buckets, versions, members, leases, alarms, every row of the key space.
///
/// # Errors
/// [`ExchangeError`]; the engine is useless then and must be removed.
pub fn import<E: Engine, F: DiskFile, D: Directory>(
    file: F,
    engine: &E,
    scratch: &D,
    options: &ImportOptions<'_>,
) -> Result<Imported, ExchangeError> {
    check_empty(engine)?;
    let reader = Reader::open(file)?;
    let own = options.server_version;
    let (index, term) = check_position(&reader, options)?;
    let mut loader = Loader::new(scratch, options.memory_bytes);
    for row in reader.rows()? {
        let row = row?;
        if options.configuration.is_none() || !is_configuration(&row) {
            take(&mut loader, row, own)?;
        }
    }
    if let Some(row) = options.configuration.map(membership::configuration_row) {
        loader.row(Table::Meta, &row.key, row.value.unwrap_or_default())?;
    }
    // No entry of our log led here: there is none to tell it by.
    let position = Position { index, term, revision: loader.revision(), proof: Proof::default() };
    finish(loader, engine, options.cluster, &position)?;
    imported(&engine.snapshot(), own)
}

/// Loads etcd's database from `file` into `engine` as [`import`] does, for a new cluster: keys, leases, users, roles, alarms
/// and versions as they are, members and their removals those of its founding. The state stands behind the founding's
/// entries, wherever the file stood.
///
/// # Errors
/// [`ExchangeError`]; the engine is useless then and must be removed.
pub fn refound<E: Engine, F: DiskFile, D: Directory>(
    file: F,
    engine: &E,
    scratch: &D,
    refounding: &Refounding<'_>,
) -> Result<Imported, ExchangeError> {
    check_empty(engine)?;
    let reader = Reader::open(file)?;
    let Refounding { founding, server_version: own, revisions_skipped, memory_bytes } = *refounding;
    database::check_buckets(&reader)?;
    check_storage_version(&database::stated_position(&reader)?, own)?;
    let mut loader = Loader::new(scratch, memory_bytes);
    for row in reader.rows()? {
        let row = row?;
        if !is_of_cluster(&row) {
            take(&mut loader, row, own)?;
        }
    }
    if let Some(count) = revisions_skipped {
        loader.skip_revisions(count)?;
    }
    for row in founding.cluster().to_rows() {
        let table = state::table_of(row.bucket);
        loader.row(table, &row.key, row.value.unwrap_or_default())?;
    }
    let (index, proof) = founding.entries().last().map(|last| (last.index, Proof::of(last))).unwrap_or_default();
    let position = Position { index: LogIndex(index), term: Term(1), revision: loader.revision(), proof };
    finish(loader, engine, founding.cluster_id(), &position)?;
    imported(&engine.snapshot(), own)
}

/// Whether a row says who the members of a cluster are.
fn is_of_cluster(row: &Row) -> bool {
    match Bucket::named(&row.bucket) {
        Some(Bucket::Members | Bucket::MembersRemoved) => true,
        Some(Bucket::Meta) => is_configuration(row),
        _ => false,
    }
}

fn is_configuration(row: &Row) -> bool {
    Bucket::named(&row.bucket) == Some(Bucket::Meta) && row.key == CONFIGURATION_KEY
}

fn check_empty(engine: &impl Engine) -> Result<(), ExchangeError> {
    let first = engine.snapshot().scan(Bound::Unbounded, Bound::Unbounded).next().is_some();
    if first { Err(ExchangeError::NotEmpty) } else { Ok(()) }
}

/// Loads what was taken, with the rows that only we have.
fn finish<D: Directory>(
    mut loader: Loader<D>,
    engine: &impl Engine,
    cluster: ClusterId,
    position: &Position,
) -> Result<(), StorageError> {
    loader.row(Table::Meta, state::CLUSTER_ID_KEY.as_bytes(), state::number(cluster.0))?;
    loader.row(Table::Meta, POSITION_KEY.as_bytes(), position.encode())?;
    loader.load(engine)
}

/// Reads all of etcd's database and checks what [`import`] would check, without loading its key space. Says what an import
/// would bring.
///
/// # Errors
/// [`ExchangeError`].
pub fn examine<F: DiskFile>(reader: &Reader<F>, options: &ImportOptions<'_>) -> Result<Imported, ExchangeError> {
    let (index, term) = check_position(reader, options)?;
    let (engine, mut writes, mut changes) = (MemoryEngine::default(), Writes::default(), RowCheck::default());
    for row in reader.rows()? {
        let Row { bucket, key, value } = row?;
        match known(&bucket)? {
            Bucket::Key => drop(changes.row(&key, value)?),
            bucket => {
                check_row(bucket, &key, &value, options.server_version)?;
                let kept = bucket != Bucket::Meta || kept_of_meta().any(|kept| kept == key);
                table_of(bucket)
                    .filter(|_| kept)
                    .into_iter()
                    .for_each(|table| writes.put_row(table, &key, value.clone()));
            }
        }
    }
    if let Some(row) = options.configuration.map(membership::configuration_row) {
        writes.put_row(Table::Meta, &row.key, row.value.unwrap_or_default());
    }
    let position = Position { index, term, revision: changes.revision(), proof: Proof::default() };
    writes.put_row(Table::Meta, state::CLUSTER_ID_KEY.as_bytes(), state::number(options.cluster.0));
    writes.put_row(Table::Meta, POSITION_KEY.as_bytes(), position.encode());
    engine.commit(writes)?;
    imported(&engine.snapshot(), options.server_version)
}

/// Refuses a snapshot's v2 tree in which users keep keys. An empty one is that of a peer that writes none.
///
/// # Errors
/// [`ExchangeError::V2Keys`], [`ExchangeError::Tree`].
pub fn check_tree(tree: &[u8]) -> Result<(), ExchangeError> {
    if !tree.is_empty() && v2json::holds_user_keys(tree)? { Err(ExchangeError::V2Keys) } else { Ok(()) }
}

/// Where the file stands, which must be where it should, and whether its version is one of ours.
fn check_position<F: DiskFile>(
    reader: &Reader<F>,
    options: &ImportOptions<'_>,
) -> Result<(LogIndex, Term), ExchangeError> {
    database::check_buckets(reader)?;
    let position = database::position(reader)?;
    let (found, own) = (LogIndex(position.index), options.server_version);
    if let Some(expected) = options.index.filter(|expected| *expected != found) {
        return Err(ExchangeError::OtherIndex { found, expected });
    }
    check_storage_version(&position, own)?;
    Ok((found, Term(position.term)))
}

fn check_storage_version(position: &database::Position, own: Version) -> Result<(), ExchangeError> {
    let speaks = |text: &&String| text.parse().is_ok_and(|version| state::speaks(own, version));
    match position.storage_version.as_ref().filter(|text| !speaks(text)) {
        Some(found) => Err(ExchangeError::TooNew { found: found.clone(), own }),
        None => Ok(()),
    }
}

fn take<D: Directory>(loader: &mut Loader<D>, row: Row, own: Version) -> Result<(), ExchangeError> {
    let Row { bucket, key, value } = row;
    let bucket = known(&bucket)?;
    check_row(bucket, &key, &value, own)?;
    match table_of(bucket) {
        _ if bucket == Bucket::Meta && !kept_of_meta().any(|kept| kept == key) => Ok(()),
        Some(table) => Ok(loader.row(table, &key, value)?),
        None => Ok(loader.change(&key, value)?),
    }
}

fn known(name: &[u8]) -> Result<Bucket, DatabaseError> {
    Bucket::named(name).ok_or_else(|| DatabaseError::UnknownBucket(name.escape_ascii().to_string()))
}

/// What can be refused before the large bucket has been read, which these stand before.
fn check_row(bucket: Bucket, key: &[u8], value: &Bytes, own: Version) -> Result<(), OpenError> {
    match bucket {
        Bucket::Cluster if key == VERSION_KEY.as_bytes() => {
            let version = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            state::check_version(version, own)
        }
        _ => Ok(()),
    }
}

/// What was loaded, read and checked as a start would.
fn imported(rows: &impl Read, own: Version) -> Result<Imported, ExchangeError> {
    Auth::read(rows).map_err(OpenError::from)?;
    let cluster = state::read_cluster(rows)?;
    state::check_version(cluster.version(), own)?;
    state::lease_rows(rows)?;
    state::read_alarms(rows)?;
    Store::open(rows)?;
    let Position { index, term, .. } = state::position(rows)?;
    Ok(Imported { applied: index, term, cluster: Arc::new(cluster) })
}

/// Where a bucket's rows are here; the key space has tables of its own.
fn table_of(bucket: Bucket) -> Option<Table> {
    Some(match bucket {
        Bucket::Key => return None,
        Bucket::Alarm => Table::Alarm,
        Bucket::Auth => Table::Auth,
        Bucket::AuthRoles => Table::AuthRole,
        Bucket::AuthUsers => Table::AuthUser,
        Bucket::Cluster => Table::Cluster,
        Bucket::Lease => Table::Lease,
        Bucket::Members => Table::Member,
        Bucket::MembersRemoved => Table::Removed,
        Bucket::Meta => Table::Meta,
    })
}
