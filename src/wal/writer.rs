//! Appends to the log.

use std::{
    collections::VecDeque,
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    disk::{Directory, DiskFile},
    pb::{raftpb, walpb},
    types::{LogIndex, Term},
};

use super::{
    Filler, Log, Metadata, Options, RECORD_BYTES_MAX, Repair, TermRun, WalError,
    ahead::Ahead,
    map::{Map, Place},
    reader::Reader,
    record::Encoder,
    scan::{self, Scan},
    segment::{self, Segment},
};

/// A batch is written when it has grown to here, so that a large one needs no buffer of its size.
const WRITE_BYTES: usize = 1 << 20;
/// A buffer that a large entry has blown up is given back.
const BUFFER_BYTES_KEPT: usize = 4 * WRITE_BYTES;
/// The next segment is written under this name before it gets its own.
const TEMPORARY: &str = "0.tmp";

/// A log open for appending. Belongs to one thread.
#[derive(Debug)]
pub struct Wal<D: Directory> {
    directory: D,
    options: Options,
    metadata: Metadata,
    /// The last hard state appended: repeated at the head of each segment.
    state: raftpb::HardState,
    /// Shared with readers.
    map: Arc<Mutex<Map>>,
    /// Where the log ends, buffer excluded.
    tail: Place,
    file: D::File,
    /// Older segments, locked, oldest first.
    older: VecDeque<(Segment, D::File)>,
    encoder: Encoder,
    /// Shared with the filler, if there is one.
    ahead: Arc<Ahead>,
    /// Whether something was written since the last sync.
    dirty: bool,
    poisoned: bool,
}

impl<D: Directory> Wal<D> {
    /// Whether `directory` holds a log.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn exists(directory: &D) -> Result<bool, WalError> {
        Ok(!segment::list(directory)?.is_empty())
    }

    /// Creates the first segment, durably.
    ///
    /// # Errors
    /// [`WalError::Exists`] if there is a log already, or on failure to write.
    pub fn create(directory: D, metadata: Metadata, options: &Options) -> Result<Self, WalError> {
        if Self::exists(&directory)? {
            return Err(WalError::Exists { path: directory.path("") });
        }
        let segment = Segment { sequence: 0, first: 0 };
        let mut encoder = Encoder::default();
        encoder.crc_record();
        encoder.metadata(metadata.member.0, metadata.cluster.0);
        encoder.snapshot(&walpb::Snapshot::default());
        let file = create_segment(&directory, segment, &encoder.buffer, options)?;
        let tail = Place { segment, offset: encoder.buffer.len() as u64, crc: encoder.crc };
        encoder.buffer.clear();
        let ahead = Arc::new(Ahead::default());
        ahead.begin(segment, tail.offset, fill_limit(options));
        Ok(Self {
            directory,
            options: options.clone(),
            metadata,
            state: raftpb::HardState::default(),
            map: Arc::new(Mutex::new(Map::after(0, Some(0)))),
            tail,
            file,
            older: VecDeque::new(),
            encoder,
            ahead,
            dirty: false,
            poisoned: false,
        })
    }

    /// Opens the log to go on after `applied`, the position (and its term) of the durable state: locks every segment,
    /// reads from the one that holds what follows, and repairs a torn end.
    ///
    /// # Errors
    /// If the log is damaged, foreign, locked, starts after `applied` or contradicts its term.
    /// [`WalError::SnapshotAhead`] tells to finish installing a snapshot first.
    pub fn open(directory: D, applied: (LogIndex, Term), options: &Options) -> Result<(Self, Log), WalError> {
        let segments = segment::list(&directory)?;
        let mut locked = lock_all(&directory, &segments)?;
        let from = segment::holding(&segments, applied.0.0).unwrap_or(0);
        // A segment gets its name when its space is durably reserved: one that ends within a record before that lost its end.
        let reserved = if options.unsafe_no_fsync { 0 } else { options.segment_bytes };
        let scan = scan::scan(&directory, segments.get(from..).unwrap_or_default(), applied.0.0, reserved)?;
        let log = described(&scan, applied)?;
        check_end(&directory, &log, applied.0)?;
        let (_, file) = locked.pop_back().ok_or_else(|| WalError::Missing { path: directory.path("") })?;
        if let Some(repair) = &scan.repair {
            keep_broken(&directory, &file, repair)?;
        }
        clear_tail(&directory, &file, scan.end, options)?;
        let encoder = Encoder { crc: scan.end.crc, ..Encoder::default() };
        let ahead = Arc::new(Ahead::default());
        ahead.begin(scan.end.segment, scan.end.offset, fill_limit(options));
        let wal = Self {
            directory,
            options: options.clone(),
            metadata: scan.metadata,
            state: scan.hard_state,
            map: Arc::new(Mutex::new(scan.map)),
            tail: scan.end,
            file,
            older: locked,
            encoder,
            ahead,
            dirty: false,
            poisoned: false,
        };
        Ok((wal, log))
    }

    /// Adds entries, then the hard state, to the batch being built. The first entry may replace earlier ones.
    ///
    /// # Errors
    /// If the log is poisoned or a write fails: a large batch is written as it grows. [`WalError::Gone`] if the first
    /// entry leaves a gap, [`WalError::TooLong`] for an entry no reader would accept; both poison the log too, for
    /// what follows would build on entries that are not there.
    pub fn append(&mut self, entries: &[raftpb::Entry], state: Option<&raftpb::HardState>) -> Result<(), WalError> {
        self.check_poison()?;
        for entry in entries {
            self.append_entry(entry)?;
            if self.encoder.buffer.len() >= WRITE_BYTES {
                self.flush()?;
            }
        }
        if let Some(state) = state {
            self.state = *state;
            self.encoder.state(state);
        }
        Ok(())
    }

    fn append_entry(&mut self, entry: &raftpb::Entry) -> Result<(), WalError> {
        if entry.data.len() > RECORD_BYTES_MAX - 64 {
            self.poisoned = true;
            return Err(WalError::TooLong { bytes: entry.data.len() });
        }
        let place = self.next_place();
        if !self.lock_map().put(entry.index, entry.term, place) {
            self.poisoned = true;
            return Err(WalError::Gone { index: LogIndex(entry.index.saturating_sub(1)) });
        }
        self.encoder.entry(entry);
        Ok(())
    }

    /// Adds a snapshot mark: the state at this index is durable outside the log. If the log does not hold this entry
    /// in this term, it begins anew after it; add a hard state that commits it to the same batch.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn mark_snapshot(&mut self, mark: &walpb::Snapshot) -> Result<(), WalError> {
        self.check_poison()?;
        self.encoder.snapshot(mark);
        let mut map = self.lock_map();
        if map.term(mark.index) != Some(mark.term) && mark.index >= map.start.0 {
            *map = Map::after(mark.index, Some(mark.term));
        }
        Ok(())
    }

    /// Writes the batch without making it durable (a hard state of which only the commit index changed).
    ///
    /// # Errors
    /// On failure to write, which poisons the log.
    pub fn flush(&mut self) -> Result<(), WalError> {
        self.check_poison()?;
        if self.encoder.buffer.is_empty() {
            return Ok(());
        }
        self.dirty = true;
        self.ahead.reach(self.next_place().offset);
        let written = self.file.write_at(&self.encoder.buffer, self.tail.offset);
        self.poisoning("write", written)?;
        self.tail = self.next_place();
        self.encoder.buffer.clear();
        self.encoder.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(())
    }

    /// Writes the batch and makes everything appended so far durable: one write, one `fdatasync`.
    ///
    /// # Errors
    /// On failure to write or sync, which poisons the log: the kernel may have dropped what it could not write.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.flush()?;
        if self.dirty {
            self.sync_file()?;
        }
        if self.tail.offset >= self.options.segment_bytes {
            self.cut()?;
        }
        Ok(())
    }

    fn sync_file(&mut self) -> Result<(), WalError> {
        if !self.options.unsafe_no_fsync {
            let synced = self.file.sync();
            self.poisoning("sync", synced)?;
        }
        self.dirty = false;
        Ok(())
    }

    /// Closes the last segment, whose contents are durable, and goes on in a new one.
    fn cut(&mut self) -> Result<(), WalError> {
        self.ahead.retire();
        let sealed = self.file.set_size(self.tail.offset);
        self.poisoning("truncate", sealed)?;
        self.sync_file()?;
        let first = self.lock_map().last.saturating_add(1);
        let segment = Segment { sequence: self.tail.segment.sequence + 1, first };
        self.encoder.crc_record();
        self.encoder.metadata(self.metadata.member.0, self.metadata.cluster.0);
        if self.state != raftpb::HardState::default() {
            self.encoder.state(&self.state);
        }
        let created = create_segment(&self.directory, segment, &self.encoder.buffer, &self.options);
        self.poisoned |= created.is_err();
        let older = (self.tail.segment, mem::replace(&mut self.file, created?));
        self.older.push_back(older);
        self.tail = Place { segment, offset: self.encoder.buffer.len() as u64, crc: self.encoder.crc };
        self.encoder.buffer.clear();
        self.ahead.begin(segment, self.tail.offset, fill_limit(&self.options));
        Ok(())
    }

    /// Removes segments that hold nothing after `index`, oldest first, as long as more than `keep` remain. Returns
    /// how many were removed.
    ///
    /// `index` must not exceed what the state machine holds durably, for a restart reads the log from there.
    ///
    /// # Errors
    /// On failure to remove; the log stays usable.
    pub fn release(&mut self, index: LogIndex, keep: usize) -> Result<usize, WalError> {
        let mut segments: Vec<_> = self.older.iter().map(|(segment, _)| *segment).collect();
        segments.push(self.tail.segment);
        let unneeded = segment::holding(&segments, index.0).unwrap_or(0);
        let surplus = segments.len().saturating_sub(keep.max(1));
        let mut removed = 0;
        while removed < unneeded.min(surplus)
            && let Some((segment, lock)) = self.older.pop_front()
        {
            let name = segment.name();
            let io = |cause| WalError::io("remove", self.directory.path(&name), cause);
            self.directory.remove(&name).map_err(io)?;
            drop(lock);
            removed += 1;
        }
        if removed > 0 {
            let oldest = self.older.front().map_or(self.tail.segment, |(segment, _)| *segment);
            self.lock_map().forget_before(oldest);
            self.directory.sync().map_err(|cause| WalError::io("sync", self.directory.path(""), cause))?;
        }
        Ok(removed)
    }

    /// A reader for another thread.
    pub fn reader(&self) -> Reader<D> {
        Reader::new(self.directory.clone(), Arc::clone(&self.map))
    }

    /// What writes zeros ahead of this log, for a thread of its own.
    pub fn filler(&self) -> Filler<D> {
        Filler::new(self.directory.clone(), Arc::clone(&self.ahead))
    }

    /// Whose log it is.
    pub fn metadata(&self) -> Metadata {
        self.metadata
    }

    /// Files of the log.
    pub fn segments(&self) -> usize {
        self.older.len() + 1
    }

    fn lock_map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the next record goes once the buffer is written.
    fn next_place(&self) -> Place {
        let offset = self.tail.offset + self.encoder.buffer.len() as u64;
        Place { segment: self.tail.segment, offset, crc: self.encoder.crc }
    }

    fn check_poison(&self) -> Result<(), WalError> {
        if self.poisoned {
            return Err(WalError::Poisoned { path: self.directory.path(&self.tail.segment.name()) });
        }
        Ok(())
    }

    fn poisoning(&mut self, action: &'static str, result: io::Result<()>) -> Result<(), WalError> {
        result.map_err(|cause| {
            self.poisoned = true;
            WalError::io(action, self.directory.path(&self.tail.segment.name()), cause)
        })
    }
}

impl<D: Directory> Drop for Wal<D> {
    fn drop(&mut self) {
        self.ahead.close();
    }
}

/// How far a segment gets zeros. They make syncs quicker, so who does not sync needs none.
fn fill_limit(options: &Options) -> u64 {
    if options.unsafe_no_fsync { 0 } else { options.segment_bytes }
}

/// Writes a segment's head under a temporary name, then gives it its own: it is there wholly or not at all.
fn create_segment<D: Directory>(
    directory: &D,
    segment: Segment,
    head: &[u8],
    options: &Options,
) -> Result<D::File, WalError> {
    let path = directory.path(&segment.name());
    let failed = |action| {
        let path = path.clone();
        move |cause| WalError::io(action, path, cause)
    };
    let file = directory.create(TEMPORARY).map_err(failed("create"))?;
    file.allocate(options.segment_bytes).map_err(failed("reserve space for"))?;
    file.write_at(head, 0).map_err(failed("write"))?;
    if !options.unsafe_no_fsync {
        file.sync().map_err(failed("sync"))?;
    }
    if !file.try_lock().map_err(failed("lock"))? {
        return Err(WalError::Locked { path: directory.path(TEMPORARY) });
    }
    directory.rename(TEMPORARY, &segment.name()).map_err(failed("rename"))?;
    if !options.unsafe_no_fsync {
        directory.sync().map_err(failed("sync"))?;
    }
    Ok(file)
}

fn lock_all<D: Directory>(directory: &D, segments: &[Segment]) -> Result<VecDeque<(Segment, D::File)>, WalError> {
    let lock = |segment: &Segment| {
        let path = directory.path(&segment.name());
        let file = directory.open(&segment.name()).map_err(|cause| WalError::io("open", path.clone(), cause))?;
        match file.try_lock() {
            Ok(true) => Ok((*segment, file)),
            Ok(false) => Err(WalError::Locked { path }),
            Err(cause) => Err(WalError::io("lock", path, cause)),
        }
    };
    segments.iter().map(lock).collect()
}

/// Checks the log against the state machine's position and describes it.
/// The state never gets ahead of what the log has synced, so an interrupted write cannot have taken entries the state
/// holds: such an end is damage, and is left as it is.
fn check_end<D: Directory>(directory: &D, log: &Log, applied: LogIndex) -> Result<(), WalError> {
    match &log.repaired {
        Some(Repair { file, offset, .. }) if log.last < applied => Err(WalError::Corrupt {
            path: directory.path(file),
            offset: *offset,
            what: "it ends before entries that the state has applied",
        }),
        _ => Ok(()),
    }
}

fn described(scan: &Scan, applied: (LogIndex, Term)) -> Result<Log, WalError> {
    let (index, term) = (applied.0.0, applied.1.0);
    let map = &scan.map;
    if map.start.0 > index {
        let start = LogIndex(map.start.0);
        let installed = scan.snapshots.iter().rfind(|mark| mark.index == map.start.0);
        return Err(match (installed, map.start.1) {
            (Some(_), Some(term)) => WalError::SnapshotAhead { index: start, term: Term(term), applied: applied.0 },
            _ => WalError::StartsAfter { start, applied: applied.0 },
        });
    }
    if let Some(log) = map.term(index).filter(|log| *log != term) {
        return Err(WalError::OtherHistory { index: applied.0, log: Term(log), state: applied.1 });
    }
    let (start, terms) = with_known_start(map, index, term);
    Ok(Log {
        metadata: scan.metadata,
        hard_state: scan.hard_state,
        start: (LogIndex(start.0), Term(start.1)),
        terms,
        last: LogIndex(map.last),
        snapshots: scan.snapshots.clone(),
        repaired: scan.repair.clone(),
    })
}

/// If the term before the first entry is not known, the state machine may know it; otherwise the first entry itself
/// serves as the start.
fn with_known_start(map: &Map, applied: u64, term: u64) -> ((u64, u64), Vec<TermRun>) {
    let mut terms = map.terms.clone();
    match (map.start, terms.first_mut()) {
        ((index, Some(term)), _) => ((index, term), terms),
        ((index, None), Some(first)) if index < applied => {
            let start = (index + 1, first.term.0);
            first.first = LogIndex(index + 2);
            let is_alone = map.last == index + 1 || terms.get(1).is_some_and(|next| next.first.0 == index + 2);
            (start, terms.split_off(usize::from(is_alone)))
        }
        ((index, None), _) => ((index, term), terms),
    }
}

/// Keeps a copy of a segment whose end will be cut off.
fn keep_broken<D: Directory>(directory: &D, file: &D::File, repair: &Repair) -> Result<(), WalError> {
    const CHUNK_BYTES: usize = 1 << 20;
    let name = format!("{}.broken", repair.file);
    let copy = || -> io::Result<()> {
        let to = directory.create(&name)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        loop {
            let read = file.read_at(&mut chunk, offset)?;
            if read == 0 {
                break;
            }
            to.write_at(chunk.get(..read).unwrap_or_default(), offset)?;
            offset += read as u64;
        }
        to.sync()?;
        directory.sync()
    };
    copy().map_err(|cause| WalError::io("write", directory.path(&name), cause))
}

/// Makes everything after the log's end zeros, and what stands before it durable: leftovers of an interrupted write
/// would be read as records once something is written before them.
fn clear_tail<D: Directory>(directory: &D, file: &D::File, end: Place, options: &Options) -> Result<(), WalError> {
    let clear = || {
        file.set_size(end.offset)?;
        file.allocate(options.segment_bytes.max(end.offset))?;
        file.sync()?;
        directory.sync()
    };
    clear().map_err(|cause| WalError::io("prepare", directory.path(&end.segment.name()), cause))
}

#[cfg(test)]
impl<D: Directory> Wal<D> {
    pub(super) fn lock_last(&self) -> u64 {
        self.lock_map().last
    }
}
