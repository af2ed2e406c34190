//! The audit log: who asked what of which key, from where, and what came of it. One JSON object a line.
//!
//! `api` puts the lines together and hands them to an [`Audit`]; one thread writes them to a file, or to standard output
//! or error. Left to others: what a line tells (`api`), where it goes (`config`), when it begins and ends (`daemon`).
//!
//! Invariants:
//! - Who hands over a line waits for a lock of a few instructions and for nothing else, whatever the disk does.
//! - What waits for the disk is at most twice [`QUEUE_BYTES_MAX`]; every line beyond is counted as dropped.
//! - A disk that fails costs lines, which are counted, and nothing else.
//! - A line is written whole, or is followed by a line feed of its own: one that is torn, by whomever, spoils no other.

mod aside;
mod fields;
mod file;
mod queue;
mod writer;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use thiserror::Error;

pub use aside::{compress, remove_older, set_aside};
pub use fields::{Fields, TEXT_BYTES_MAX};
pub use file::{Target, check, place_of};

use crate::{
    clock::{Chance as _, SeededChance, Stopwatch, SystemChance},
    metrics,
};
use queue::{Queue, Refusal};
use writer::Writer;

/// Lines that wait for the disk, in bytes: some ten thousand, a second of a busy member. The thread holds as many again
/// while it writes them.
pub const QUEUE_BYTES_MAX: usize = 4 << 20;
/// What reads may fill of the queue, so that no flood of them pushes out what was changed, or refused.
pub const QUEUE_READS_BYTES_MAX: usize = QUEUE_BYTES_MAX / 2;
/// What refused requests of strangers may fill of it: whoever has no password can ask as often as he likes, and is to push
/// out nothing that others did.
pub const QUEUE_STRANGERS_BYTES_MAX: usize = QUEUE_BYTES_MAX / 8;
/// So often at most the log says that lines are lost.
const TELL_INTERVAL: Duration = Duration::from_secs(30);
/// What shares of reads are counted in.
pub const PER_MILLION: u32 = 1_000_000;

/// Where lines go, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where to.
    pub target: Target,
    /// Of a million successful reads so many are kept.
    pub reads_per_million: u32,
    /// When a file is set aside; never if there is none.
    pub rotation: Option<Rotation>,
}

/// When a file is set aside, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file that would become longer is set aside: as `FILE.1`, and what was `FILE.1` as `FILE.2`.
    pub bytes_max: u64,
    /// So many of them are kept.
    pub files_max: u32,
}

/// Why there is no audit log.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The file cannot be opened.
    #[error("opening the audit log {} (--audit-log): {remedy}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// Lines cannot be written.
    #[error("writing the audit log")]
    Write(#[source] io::Error),
    /// There is no thread to write it.
    #[error("starting the thread of the audit log")]
    Thread(#[source] io::Error),
}

/// How a line is treated that there may be too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Somebody has read something.
    Read,
    /// Somebody whom nobody knows was refused, or wanted nothing any more.
    Stranger,
    /// Somebody has changed something, may have, or was not allowed to.
    Always,
}

/// A running audit log.
pub struct Audit {
    queue: Arc<Queue>,
    reads_per_million: u32,
    reads: AtomicU64,
    dropping: Mutex<Dropping>,
}

/// What the log has said of lines that were dropped.
#[derive(Debug, Default)]
struct Dropping {
    told: Option<Stopwatch>,
    untold: u64,
    /// Among them.
    untold_of_strangers: u64,
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("reads_per_million", &self.reads_per_million).finish_non_exhaustive()
    }
}

impl Audit {
    /// Opens the file and starts the thread that writes to it.
    ///
    /// # Errors
    /// A file that cannot be opened: a mistake in its name is found at a start, not in a year.
    pub fn start(options: Options) -> Result<Arc<Self>, AuditError> {
        let Options { target, reads_per_million, rotation } = options;
        let queue = Arc::new(Queue::default());
        let mut writer = Writer::open(target, rotation, Arc::clone(&queue))?;
        // Known from the start on, so that an alert has something to compare with.
        for result in ["written", "dropped", "stranger", "failed"] {
            metrics::AUDIT_RECORDS.with([result]);
        }
        thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run()).map_err(AuditError::Thread)?;
        let reads = AtomicU64::new(SystemChance.next_u64());
        Ok(Arc::new(Self { queue, reads_per_million, reads, dropping: Mutex::default() }))
    }

    /// Whether the line of a successful read is to be kept; asked once for each.
    pub fn keeps_read(&self) -> bool {
        match self.reads_per_million {
            0 => false,
            PER_MILLION.. => true,
            // By chance, so that no rhythm of the clients decides which of them are seen, and nobody knows before.
            share => {
                let turn = self.reads.fetch_add(1, Ordering::Relaxed);
                SeededChance::new(turn).below(u64::from(PER_MILLION)) < u64::from(share)
            }
        }
    }

    /// Hands over a line, which ends with its line feed. Never waits for the disk.
    pub fn record(&self, line: &str, weight: Weight) {
        let Err(refusal) = self.queue.push(line, weight) else { return };
        let is_strangers = weight == Weight::Stranger;
        metrics::AUDIT_RECORDS.with([if is_strangers { "stranger" } else { "dropped" }]).inc();
        if refusal == Refusal::Full {
            self.tell_dropped(is_strangers);
        }
    }

    fn tell_dropped(&self, is_strangers: bool) {
        let mut dropping = self.dropping.lock().unwrap_or_else(PoisonError::into_inner);
        dropping.untold += 1;
        dropping.untold_of_strangers += u64::from(is_strangers);
        if dropping.told.is_some_and(|told| told.elapsed() < TELL_INTERVAL) {
            return;
        }
        dropping.told = Some(Stopwatch::start());
        drop(dropping);
        self.tell_untold();
    }

    /// Tells how many were dropped since the last time, if any were.
    fn tell_untold(&self) {
        let (records, of_strangers) = {
            let mut dropping = self.dropping.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut dropping.untold), std::mem::take(&mut dropping.untold_of_strangers))
        };
        if records > 0 {
            tracing::warn!(
                records,
                of_strangers,
                "records of the audit log were dropped: what they are written to takes them more slowly than they come"
            );
        }
    }

    /// Has the file opened again by its name before the next line: whoever rotates logs has put another one there.
    pub fn reopen(&self) {
        self.queue.reopen();
    }

    /// Has everything written that is there, and ends; `false` if that was not done within `patience`. What comes from now
    /// on is dropped. May be called on a thread that may wait only.
    pub fn close(&self, patience: Duration) -> bool {
        let left = self.queue.close(patience);
        // There will be no other time.
        self.tell_untold();
        if let Some(records) = left {
            metrics::AUDIT_RECORDS.with(["dropped"]).add(records);
            tracing::warn!(records, ?patience, "the audit log could not be written to its end");
        }
        left.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn audit(reads_per_million: u32) -> (tempfile::TempDir, PathBuf, Arc<Audit>) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("audit.log");
        let options = Options { target: Target::File(path.clone()), reads_per_million, rotation: None };
        let audit = Audit::start(options).unwrap();
        (place, path, audit)
    }

    #[test]
    fn lines_are_there_in_order_when_it_is_closed() {
        let (_place, path, audit) = audit(PER_MILLION);
        let lines: Vec<String> = (0..1_000).map(|number| format!("{number}\n")).collect();
        for line in &lines {
            audit.record(line, Weight::Always);
        }
        assert!(audit.close(Duration::from_secs(10)));
        audit.record("too late\n", Weight::Always);
        assert_eq!(fs::read_to_string(path).unwrap(), lines.concat());
    }

    #[test]
    fn about_as_many_reads_are_kept_as_asked_for() {
        let kept = |share: u32| {
            let (_place, _path, audit) = audit(share);
            (0..10_000).filter(|_| audit.keeps_read()).count()
        };
        assert_eq!((kept(0), kept(PER_MILLION)), (0, 10_000));
        let tenth = kept(PER_MILLION / 10);
        assert!((800..1_200).contains(&tenth), "{tenth} of 10000");
    }
}
