//! Zeros written ahead of the log's end.
//!
//! The first write into space that is only reserved changes metadata, and its sync waits for the file system's journal;
//! bytes that replace written zeros are synced alone, in two thirds of the time. So a [`Filler`], in a thread of its own,
//! keeps some written zeros ahead of where the log ends. That doubles what the log writes, so it is done only while
//! little is synced at a time: a single client waits for its sync, whereas large batches share one among many.
//!
//! Invariants:
//! - Zeros are never written where the log is: the writer says how far it will reach before it writes, and waits while
//!   zeros are being written there.
//! - Zeros promise nothing and change nothing: reserved space reads as zeros, too, whatever a crash leaves of them.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::disk::{Directory, DiskFile};

use super::segment::Segment;

/// Written at once. A sync of the log waits for at most so much besides its own.
const CHUNK_BYTES: u64 = 256 << 10;
/// Zeros ahead of the log's end. A fraction of a second of the heaviest load; the space is reserved anyway.
const AHEAD_BYTES: u64 = 4 << 20;
/// The filler sleeps until no more than this is left of them.
const LOW_BYTES: u64 = 2 << 20;
/// No zeros are written while more than this is synced at a time, on average.
const BATCH_BYTES_MAX: u64 = 4 << 10;
/// Batches that the average looks back on.
const BATCHES_AVERAGED: u64 = 8;
/// File systems convert whole blocks.
const BLOCK_BYTES: u64 = 4096;

/// What the writer and its filler know of each other.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The segment the log ends in; none while it is being closed.
    segment: Option<Segment>,
    /// What is written or about to be.
    tail: u64,
    /// Running average of how far one batch reaches.
    batch_bytes: u64,
    /// Zeros are written up to here.
    filled: u64,
    /// Reserved up to here.
    limit: u64,
    /// Where the chunk begins that is being written.
    filling: Option<u64>,
    closed: bool,
}

/// Writes zeros ahead of one log, until that is dropped.
#[derive(Debug)]
pub struct Filler<D: Directory> {
    directory: D,
    ahead: Arc<Ahead>,
    file: Option<(Segment, D::File)>,
}

impl Ahead {
    /// The log goes on in `segment`, whose first `tail` bytes are written and whose first `limit` are reserved.
    pub(super) fn begin(&self, segment: Segment, tail: u64, limit: u64) {
        let mut state = self.lock();
        let State { filling, batch_bytes, .. } = *state;
        *state = State { segment: Some(segment), tail, batch_bytes, filled: tail, limit, filling, closed: false };
        self.changed.notify_all();
    }

    /// The log will be written up to `end`. Waits while zeros are being written before it.
    pub(super) fn reach(&self, end: u64) {
        let mut state = self.wait_while(|state| state.filling.is_some_and(|start| start < end));
        state.advance(end);
        let low = state.is_low();
        drop(state);
        if low {
            self.changed.notify_all();
        }
    }

    /// The segment is about to be closed: no zeros are written into it any more.
    pub(super) fn retire(&self) {
        let mut state = self.wait_while(|state| state.filling.is_some());
        state.segment = None;
    }

    /// There is no log any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, busy: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.lock(), |state| busy(state)).unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn advance(&mut self, end: u64) {
        let batch = end.saturating_sub(self.tail);
        self.batch_bytes = (self.batch_bytes * (BATCHES_AVERAGED - 1) + batch) / BATCHES_AVERAGED;
        self.tail = end;
    }

    /// The next chunk, if zeros are missing and worth their writing: its segment, begin and length.
    fn next_chunk(&self) -> Option<(Segment, u64, u64)> {
        if self.batch_bytes > BATCH_BYTES_MAX {
            return None;
        }
        let segment = self.segment?;
        let start = self.filled.max(self.tail).next_multiple_of(BLOCK_BYTES);
        let end = (start + CHUNK_BYTES).min(self.limit / BLOCK_BYTES * BLOCK_BYTES);
        (start < self.tail + AHEAD_BYTES && start < end).then(|| (segment, start, end - start))
    }

    fn is_low(&self) -> bool {
        self.next_chunk().is_some_and(|(_, start, _)| start < self.tail + LOW_BYTES)
    }
}

impl<D: Directory> Filler<D> {
    pub(super) fn new(directory: D, ahead: Arc<Ahead>) -> Self {
        Self { directory, ahead, file: None }
    }

    /// Keeps zeros ahead until the log is dropped.
    ///
    /// # Errors
    /// The first failure to write. The log goes on without zeros.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            drop(self.ahead.wait_while(|state| !state.closed && !state.is_low()));
            while self.step()? {}
            if self.ahead.lock().closed {
                return Ok(());
            }
        }
    }

    /// Writes one chunk, durably; false if none is missing.
    ///
    /// # Errors
    /// On failure to write.
    pub fn step(&mut self) -> io::Result<bool> {
        let mut state = self.ahead.lock();
        let Some((segment, start, length)) = state.next_chunk().filter(|_| !state.closed) else { return Ok(false) };
        state.filling = Some(start);
        drop(state);
        let written = self.write(segment, start, length);
        let mut state = self.ahead.lock();
        state.filling = None;
        state.filled = start + length;
        drop(state);
        self.ahead.changed.notify_all();
        written.map(|()| true)
    }

    fn write(&mut self, segment: Segment, start: u64, length: u64) -> io::Result<()> {
        if self.file.as_ref().is_none_or(|(open, _)| *open != segment) {
            self.file = Some((segment, self.directory.open(&segment.name())?));
        }
        let zeros = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        match &self.file {
            Some((_, file)) => file.write_at(&zeros, start).and_then(|()| file.sync()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDirectory;

    const SEGMENT: Segment = Segment { sequence: 0, first: 0 };
    const LIMIT: u64 = 8 << 20;

    fn filler() -> (Arc<Ahead>, Filler<MemoryDirectory>) {
        let directory = MemoryDirectory::default();
        directory.create(&SEGMENT.name()).unwrap().allocate(LIMIT).unwrap();
        let ahead = Arc::new(Ahead::default());
        (Arc::clone(&ahead), Filler::new(directory, ahead))
    }

    fn fill(filler: &mut Filler<MemoryDirectory>) -> usize {
        std::iter::from_fn(|| filler.step().unwrap().then_some(())).count()
    }

    #[test]
    fn zeros_are_kept_a_little_ahead_of_the_end_and_within_what_is_reserved() {
        let (ahead, mut filler) = filler();
        assert_eq!(fill(&mut filler), 0);
        ahead.begin(SEGMENT, 100, LIMIT);
        assert_eq!(fill(&mut filler) as u64, AHEAD_BYTES / CHUNK_BYTES);
        ahead.reach(CHUNK_BYTES);
        ahead.lock().batch_bytes = 0;
        assert!(!ahead.lock().is_low());
        ahead.reach(LIMIT - 100);
        ahead.lock().batch_bytes = 0;
        assert_eq!(fill(&mut filler), 0, "less than a block is left");
        assert!(!ahead.lock().is_low(), "and the filler sleeps");
    }

    #[test]
    fn zeros_begin_after_what_the_log_has_written() {
        let (ahead, mut filler) = filler();
        ahead.begin(SEGMENT, 0, LIMIT);
        let file = filler.directory.open(&SEGMENT.name()).unwrap();
        for end in [1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * CHUNK_BYTES + 7] {
            ahead.reach(end);
            ahead.lock().batch_bytes = 0;
            file.write_at(&vec![7; usize::try_from(end).unwrap()], 0).unwrap();
            fill(&mut filler);
            let contents = filler.directory.contents(&SEGMENT.name()).unwrap();
            assert_eq!(contents.iter().position(|byte| *byte != 7), usize::try_from(end).ok());
        }
    }

    #[test]
    fn no_zeros_are_written_while_much_is_synced_at_a_time() {
        let (ahead, mut filler) = filler();
        ahead.begin(SEGMENT, 0, LIMIT);
        let batch = 2 * BATCH_BYTES_MAX;
        (1..=20).for_each(|batches| ahead.reach(batches * batch));
        assert!(!ahead.lock().is_low(), "and the filler sleeps");
        assert_eq!(fill(&mut filler), 0);
        (1..=20).for_each(|entry| ahead.reach(20 * batch + entry));
        assert!(ahead.lock().is_low(), "and the filler wakes");
        assert_eq!(fill(&mut filler) as u64, AHEAD_BYTES / CHUNK_BYTES);
    }

    #[test]
    fn closed_segment_gets_no_zeros() {
        let (ahead, mut filler) = filler();
        ahead.begin(SEGMENT, 0, LIMIT);
        ahead.retire();
        assert_eq!(fill(&mut filler), 0);
    }

    #[test]
    fn writer_waits_for_zeros_that_are_being_written_where_it_will_write() {
        let (ahead, _) = filler();
        ahead.begin(SEGMENT, 0, LIMIT);
        ahead.lock().filling = Some(BLOCK_BYTES);
        ahead.reach(BLOCK_BYTES);
        let writer = Arc::clone(&ahead);
        let writer = std::thread::spawn(move || writer.reach(BLOCK_BYTES + 1));
        assert_eq!(ahead.lock().tail, BLOCK_BYTES);
        ahead.lock().filling = None;
        ahead.changed.notify_all();
        writer.join().unwrap();
        assert_eq!(ahead.lock().tail, BLOCK_BYTES + 1);
    }

    #[test]
    fn filler_ends_with_its_log() {
        let (ahead, filler) = filler();
        ahead.begin(SEGMENT, 0, LIMIT);
        let thread = std::thread::spawn(move || filler.run());
        ahead.close();
        thread.join().unwrap().unwrap();
    }
}
