//! The engine on disk: one fjall keyspace, all tables in it.
//!
//! One keyspace, because fjall makes each keyspace durable on its own: two could be torn apart by a power cut.
//!
//! fjall's journal is written through a buffer and synced by [`Engine::persist`] alone: the write-ahead log is the redo
//! log, and a killed process finds its newest commits there. fjall syncs the journal before it flushes a memtable, so a
//! state after a crash is always a prefix of the commits.
//!
//! What fjall does not check of its own files is checked before it opens them (`inventory`, `journal`, `manifest`): a
//! damaged state is refused, or it is an earlier one of its states, never another.
//!
//! Memtables are handed to the flush by a thread of ours, and not by fjall's own size check: that one queues a message for
//! every commit above the limit, and a full queue stops the worker that would empty it. Merging has a thread of ours, too
//! (`background`).

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use fjall::{AbstractTree as _, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use xxhash_rust::xxh3::Xxh3;

use super::{
    Engine, KEY_BYTES_MAX, Read, Row, Scan, StorageError, Usage, Writes,
    background::{self, Files, Worker},
    bounds, format, inventory,
    journal::{Journals, NUMBER_KEY},
    likeness, manifest, reports, writes,
};

/// The one keyspace.
const KEYSPACE: &str = "state";
/// Blocks kept in memory unless configured otherwise. Filled by use, so an idle member does not pay for it.
pub const CACHE_BYTES_DEFAULT: u64 = 32 << 20;
/// Writes kept in memory until they are flushed, unless configured otherwise. Up to four such tables wait for the flush.
pub const MEMTABLE_BYTES_DEFAULT: u64 = 16 << 20;
/// Journals are kept below this: one that is written (fjall begins a new one at 64 MB) and one whose rows are flushed.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;
/// Table files that are kept open, unless configured otherwise. The usual limit of a process is 1024.
pub const FILES_MAX_DEFAULT: usize = 400;
/// fjall's background threads: they only flush.
const FLUSHERS: usize = 1;
/// A memtable so many times its size is replaced by the writer itself, which then waits.
const OVERFULL: u64 = 4;

/// Sizes of the on-disk engine.
#[derive(Clone, Debug)]
pub struct FjallOptions {
    /// Bytes of blocks kept in memory.
    pub cache_bytes: u64,
    /// Bytes of writes kept in memory before they are flushed to a table file.
    pub memtable_bytes: u64,
    /// Table files that are kept open.
    pub files_max: usize,
}

impl Default for FjallOptions {
    fn default() -> Self {
        Self { cache_bytes: CACHE_BYTES_DEFAULT, memtable_bytes: MEMTABLE_BYTES_DEFAULT, files_max: FILES_MAX_DEFAULT }
    }
}

/// The state on disk. Cheap to clone; the files are closed with the last clone and the last snapshot.
#[derive(Clone)]
pub struct FjallEngine(Arc<Inner>);

struct Inner {
    // Dropped in this order: the rotator uses the merger, and both use the files.
    rotator: Worker,
    merger: Worker,
    files: Arc<Files>,
    /// Number of the newest batch; held while one is committed, so that numbers follow the order of the journal.
    newest: Mutex<u64>,
    poison: Poison,
}

/// What the merger does.
type Merge = fn(&Files, &background::Signal) -> Result<(), fjall::Error>;
/// The first failure, once there was one.
type Poison = Arc<OnceLock<Arc<str>>>;

/// What the engine held at one moment. As long as it lives, memory and files it needs are kept: not for long.
#[derive(Clone)]
pub struct FjallSnapshot {
    snapshot: Arc<fjall::Snapshot>,
    keyspace: Keyspace,
}

impl std::fmt::Debug for FjallSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallSnapshot").field("sequence", &self.snapshot.seqno()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FjallEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallEngine").field("path", &self.0.files.path).finish_non_exhaustive()
    }
}

impl FjallEngine {
    /// Opens the state in `path`, or creates an empty one if `path` is missing or empty.
    ///
    /// # Errors
    /// [`StorageError::Format`] if `path` holds something else or a newer format; [`StorageError::Damaged`] if its files
    /// are not what was written; [`StorageError::Engine`] if it cannot be read.
    pub fn open(path: &Path, options: &FjallOptions) -> Result<Self, StorageError> {
        Self::open_with(path, options, Files::merge)
    }

    fn open_with(path: &Path, options: &FjallOptions, merge: Merge) -> Result<Self, StorageError> {
        format::claim(path)?;
        inventory::check(path)?;
        manifest::check(path)?;
        let journals = Journals::read(path)?;
        inventory::clear(path);
        let opened = catch_unwind(AssertUnwindSafe(|| open_files(path, options)));
        let files = opened.unwrap_or_else(|panic| Err(not_understood(path, panic.as_ref())))?;
        let newest = files.check(&journals)?;
        Self::start(Arc::new(files), newest, merge)
    }

    /// Opens a likeness of the state in `path` to look at. Nothing there is written, and it must not change as long as this
    /// is in use; `scratch`, a directory that is missing, is filled with copies of its journals.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn look(path: &Path, scratch: &Path, options: &FjallOptions) -> Result<Self, StorageError> {
        if !path.join(format::FORMAT_FILE).is_file() {
            let what = format!("there is no `{}` in it", format::FORMAT_FILE);
            return Err(StorageError::Damaged { path: path.to_owned(), what });
        }
        let failed = |cause| {
            StorageError::engine(path, "copying its journals to the directory for temporary files (TMPDIR)", cause)
        };
        likeness::make(path, scratch).map_err(failed)?;
        Self::open_with(scratch, options, |_, _| Ok(()))
    }

    /// Starts the background threads.
    fn start(files: Arc<Files>, newest: u64, merge: Merge) -> Result<Self, StorageError> {
        reports::listen();
        let poison = Poison::default();
        let failed = || {
            let (poison, files) = (Arc::clone(&poison), Arc::clone(&files));
            move |cause| remember(&poison, &files.error("keeping its files in order", cause))
        };
        let started = |worker: io::Result<Worker>| {
            worker.map_err(|cause| StorageError::engine(&files.path, "starting a thread", cause))
        };
        let merging = Arc::clone(&files);
        let merger = started(Worker::start("state-merger", move |signal| merge(&merging, signal), failed()))?;
        let (rotating, signal) = (Arc::clone(&files), merger.signal());
        let rotator = started(Worker::start("state-rotator", move |_| rotating.rotate(&signal), failed()))?;
        Ok(Self(Arc::new(Inner { rotator, merger, files, newest: Mutex::new(newest), poison })))
    }

    /// The directory of its files.
    pub fn path(&self) -> &Path {
        &self.0.files.path
    }

    /// Snapshots that are held. Rows replaced after the oldest of them stay in memory and on disk.
    pub fn open_snapshots(&self) -> usize {
        self.0.files.database.supervisor.snapshot_tracker.open_snapshots()
    }

    /// Whether this is the last one of its clones, and no snapshot is held: nobody reads it any more.
    pub fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && self.open_snapshots() == 0
    }

    /// Reads every table file and compares it with its checksum, then every row, and returns the number of rows.
    ///
    /// # Errors
    /// The first damage found.
    pub fn verify(&self) -> Result<u64, StorageError> {
        for table in self.0.files.keyspace.tree.current_version().iter_tables() {
            check_table(&table.path, table.checksum().into_u128())?;
        }
        let snapshot = self.snapshot();
        let rows = snapshot.scan(Bound::Unbounded, Bound::Unbounded);
        rows.map(|row| row.map(|_| 1)).sum()
    }

    /// Remembers the first failure, and reports this one, unless it only says that there was one.
    fn poisoned(&self, action: &'static str, cause: fjall::Error) -> StorageError {
        if matches!(cause, fjall::Error::Poisoned)
            && let Err(first) = self.check_poison()
        {
            return first;
        }
        let error = self.0.files.error(action, cause);
        remember(&self.0.poison, &error);
        error
    }

    fn check_poison(&self) -> Result<(), StorageError> {
        self.0.poison.get().map_or(Ok(()), |first| Err(StorageError::Poisoned { first: first.clone() }))
    }

    /// Sees to it that a full memtable is replaced.
    fn rotate_when_full(&self) -> Result<(), StorageError> {
        let Inner { rotator, merger, files, newest: _, poison: _ } = self.0.as_ref();
        let bytes = files.memtable_len();
        if bytes > files.memtable_bytes.saturating_mul(OVERFULL) {
            files.rotate(&merger.signal()).map_err(|cause| self.poisoned("flushing", cause))?;
        } else if bytes > files.memtable_bytes {
            rotator.wake();
        }
        Ok(())
    }
}

/// Compares a table file with its checksum: reading rows tells of damage, too, but not in which file.
fn check_table(path: &Path, sum: u128) -> Result<(), StorageError> {
    let read = || -> io::Result<u128> {
        let (mut file, mut hash, mut chunk) = (File::open(path)?, Xxh3::new(), vec![0; CHUNK_BYTES]);
        loop {
            let length = file.read(&mut chunk)?;
            if length == 0 {
                return Ok(hash.digest128());
            }
            hash.update(chunk.get(..length).unwrap_or_default());
        }
    };
    let found = read().map_err(|cause| StorageError::engine(path, "reading a table file", cause))?;
    let what = || "the checksum of the table file does not match".to_owned();
    if found == sum { Ok(()) } else { Err(StorageError::Damaged { path: path.to_owned(), what: what() }) }
}

/// Bytes of a table file that are read at a time.
const CHUNK_BYTES: usize = 1 << 20;

fn open_files(path: &Path, options: &FjallOptions) -> Result<Files, StorageError> {
    let database = Database::builder(path)
        .cache_size(options.cache_bytes)
        .journal_compression(CompressionType::None)
        .manual_journal_persist(true)
        .max_cached_files(Some(options.files_max))
        .max_journaling_size(JOURNAL_BYTES_MAX)
        .worker_threads(FLUSHERS)
        .open()
        .map_err(|cause| StorageError::of_fjall(path, "opening it", cause))?;
    let keyspace = database
        .keyspace(KEYSPACE, keyspace_options)
        .map_err(|cause| StorageError::of_fjall(path, "opening its keyspace", cause))?;
    Ok(Files { path: path.to_owned(), database, keyspace, memtable_bytes: options.memtable_bytes })
}

/// fjall panics at some of what it does not expect in its files.
fn not_understood(path: &Path, panic: &(dyn std::any::Any + Send)) -> StorageError {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let what = format!("its files do not make sense ({})", text.unwrap_or("no reason given"));
    StorageError::Damaged { path: path.to_owned(), what }
}

impl Files {
    /// Whether the opened files hold every batch they should; returns the number of the newest.
    fn check(&self, journals: &Journals) -> Result<u64, StorageError> {
        let number = |seqno| {
            let row = self.keyspace.tree.get(NUMBER_KEY, seqno);
            let row = row.map_err(|cause| self.error("reading the number of a batch", cause.into()))?;
            Ok(row.and_then(|row| row.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes))
        };
        let flushed = self.keyspace.tree.get_highest_persisted_seqno();
        let newest = number(u64::MAX)?;
        let in_tables = flushed.map_or(Ok(0), |flushed| number(flushed + 1))?;
        let checked = journals.check(flushed, in_tables, newest);
        checked.map_err(|what| StorageError::Damaged { path: self.path.clone(), what: what.to_owned() })?;
        Ok(newest)
    }
}

fn remember(poison: &OnceLock<Arc<str>>, error: &StorageError) {
    poison.get_or_init(|| error.with_causes().into());
}

fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(u64::MAX)
        .compaction_strategy(background::never())
}

impl Engine for FjallEngine {
    type Snapshot = FjallSnapshot;

    fn snapshot(&self) -> FjallSnapshot {
        FjallSnapshot { snapshot: Arc::new(self.0.files.database.snapshot()), keyspace: self.0.files.keyspace.clone() }
    }

    fn commit(&self, writes: Writes) -> Result<(), StorageError> {
        self.check_poison()?;
        writes.check_sizes().inspect_err(|error| remember(&self.0.poison, error))?;
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.0.files.database.clone(), writes.len() + 1);
        for (key, value) in writes.into_rows() {
            match value {
                Some(value) => batch.insert(&self.0.files.keyspace, key, value),
                None => batch.remove(&self.0.files.keyspace, key),
            }
        }
        {
            let mut newest = self.0.newest.lock().unwrap_or_else(PoisonError::into_inner);
            *newest += 1;
            batch.insert(&self.0.files.keyspace, NUMBER_KEY, newest.to_be_bytes());
            batch.commit().map_err(|cause| self.poisoned("writing", cause))?;
        }
        self.rotate_when_full()
    }

    fn persist(&self) -> Result<(), StorageError> {
        self.check_poison()?;
        let synced = self.0.files.sync_ahead();
        synced.map_err(|cause| self.poisoned("syncing", cause))?;
        self.0.files.database.persist(PersistMode::SyncAll).map_err(|cause| self.poisoned("syncing", cause))
    }

    fn ingest(&self, rows: &mut dyn Iterator<Item = Result<Row, StorageError>>) -> Result<(), StorageError> {
        let failed = |cause| self.poisoned("loading rows", cause);
        let mut last = Bytes::new();
        let mut ingestion = self.0.files.keyspace.start_ingestion().map_err(failed)?;
        for row in rows {
            let row = row?;
            writes::check_next(&row, &mut last)?;
            ingestion.write(row.0, row.1).map_err(failed)?;
        }
        ingestion.finish().map_err(failed)?;
        self.0.merger.wake();
        self.persist()
    }

    fn reclaim(&self) -> Result<(), StorageError> {
        self.commit(Writes::default())?;
        let reclaimed = self.0.files.reclaim();
        reclaimed.map_err(|cause| self.poisoned("giving space back", cause))?;
        self.persist()
    }

    fn disk_bytes(&self) -> u64 {
        self.0.files.keyspace.disk_space() + self.0.files.database.write_buffer_size()
    }

    fn usage(&self) -> Usage {
        let tree = &self.0.files.keyspace.tree;
        let (mut items, mut deletes) = (0, 0);
        for table in tree.current_version().iter_tables() {
            items += table.metadata.item_count;
            deletes += table.metadata.tombstone_count;
        }
        let in_memory = (tree.approximate_len() as u64).saturating_sub(items);
        Usage {
            disk_bytes: self.disk_bytes(),
            table_bytes: tree.disk_space(),
            table_rows: items.saturating_sub(deletes),
            hidden_rows_max: deletes + in_memory,
        }
    }
}

impl FjallSnapshot {
    fn range(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Option<fjall::Iter> {
        let lower = if matches!(lower, Bound::Unbounded) { Bound::Excluded(&NUMBER_KEY[..]) } else { lower };
        let bounds = bounds::clamp(lower, upper)?;
        Some(self.snapshot.range::<&[u8], _>(&self.keyspace, bounds))
    }

    fn row(&self, guard: fjall::Guard) -> Result<Row, StorageError> {
        let (key, value) = guard.into_inner().map_err(|cause| self.error("reading rows", cause))?;
        Ok((key.into(), value.into()))
    }

    fn error(&self, action: &'static str, cause: fjall::Error) -> StorageError {
        StorageError::of_fjall(self.keyspace.path(), action, cause)
    }
}

impl Read for FjallSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        let value = self.snapshot.get(&self.keyspace, key);
        Ok(value.map_err(|cause| self.error("reading a row", cause))?.map(Bytes::from))
    }

    fn scan(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Scan<'_> {
        Box::new(self.range(lower, upper).into_iter().flatten().map(|guard| self.row(guard)))
    }

    fn scan_back(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Scan<'_> {
        Box::new(self.range(lower, upper).into_iter().flat_map(Iterator::rev).map(|guard| self.row(guard)))
    }
}
