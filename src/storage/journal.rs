//! Reads fjall's journals before fjall does.
//!
//! fjall takes a journal for complete up to the first record it cannot read and drops the rest, refuses a journal whose
//! end lost some of its sectors with the power, and protects everything of a batch but its sequence number. So a flipped
//! bit could hide a batch in the middle, or put it above later ones. Every batch of ours therefore carries its number,
//! under fjall's checksum, and before a state is believed:
//!
//! - the batches of all journals have numbers without a gap and sequence numbers that ascend;
//! - only the newest journal may end within a batch; there the rest is cut off (what is more than an interrupted write
//!   stays beside it), which leaves an earlier state that the log leads on from;
//! - no batch is missing between the table files and the first one that is not in them ([`Journals::check`]).
//!
//! The format is that of fjall 3: a batch is a start (item count, sequence number), its items, and an end with the XXH3 of
//! the items; zeros follow the last batch.

use std::{
    fs::{self, File},
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3Default;

use super::StorageError;

/// Under this key every batch carries its number (u64 BE, from 1). Below the tables, and hidden from readers.
pub(super) const NUMBER_KEY: [u8; 1] = [0];

/// Read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Tag, item count, sequence number.
const START_BYTES: usize = 13;
/// Tag, kind, compression, keyspace, and the lengths of key, value and stored value.
const ITEM_BYTES: usize = 21;
/// Tag, checksum, trailer.
const END_BYTES: usize = 13;
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
/// What every end ends with.
const TRAILER: [u8; 4] = *b"FJL\x03";
/// Put, deletion, weak deletion.
const KIND_MAX: u8 = 2;

/// The batches in the journals of one state.
#[derive(Debug, Default)]
pub(super) struct Journals {
    /// Oldest first.
    runs: Vec<Run>,
}

/// Batches whose sequence numbers and numbers both grow by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    seqno: u64,
    number: u64,
    length: u64,
}

impl Run {
    fn last(self) -> (u64, u64) {
        let steps = self.length.saturating_sub(1);
        (self.seqno.saturating_add(steps), self.number.saturating_add(steps))
    }
}

/// One batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batch {
    seqno: u64,
    number: u64,
}

/// What stands at a place of a journal.
enum Step {
    Batch(Batch),
    /// Nothing more but zeros, if anything.
    End,
    /// No batch; how far one had to read to see that.
    Broken {
        seen: u64,
        what: &'static str,
    },
}

impl Journals {
    /// Reads the journals in `directory`, and cuts off what an interrupted write has left at the end of the newest.
    ///
    /// # Errors
    /// [`StorageError::Damaged`], with nothing changed, or a failure to read or cut.
    pub(super) fn read(directory: &Path) -> Result<Self, StorageError> {
        let mut journals = Self::default();
        let paths = list(directory).map_err(|cause| StorageError::engine(directory, "listing its journals", cause))?;
        let newest = paths.len().saturating_sub(1);
        for (position, path) in paths.iter().enumerate() {
            let failed = |cause| StorageError::engine(path, "reading its journal", cause);
            let mut reader = Reader::new(path).map_err(failed)?;
            loop {
                let at = reader.position;
                match reader.step().map_err(failed)? {
                    Step::Batch(batch) => journals.push(batch).map_err(|what| damaged(path, at, what))?,
                    Step::End => break,
                    Step::Broken { what, .. } if position < newest => return Err(damaged(path, at, what)),
                    Step::Broken { seen, what } => {
                        cut(path, at, seen, what)
                            .map_err(|cause| StorageError::engine(path, "mending its journal", cause))?;
                        break;
                    }
                }
            }
        }
        Ok(journals)
    }

    fn push(&mut self, batch: Batch) -> Result<(), &'static str> {
        let Some(run) = self.runs.last_mut() else {
            self.runs.push(Run { seqno: batch.seqno, number: batch.number, length: 1 });
            return Ok(());
        };
        let (seqno, number) = run.last();
        if batch.number != number + 1 {
            return Err("the batch does not follow the one before it");
        }
        if batch.seqno <= seqno || batch.seqno >= SEQNO_MAX {
            return Err("the sequence number of the batch is out of order");
        }
        if batch.seqno == seqno + 1 {
            run.length += 1;
        } else {
            self.runs.push(Run { seqno: batch.seqno, number: batch.number, length: 1 });
        }
        Ok(())
    }

    /// Compares the journals with what was opened: `flushed` is the newest sequence number in table files, `in_tables` the
    /// number of the newest batch in them, `newest` that of the newest batch of all.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn check(&self, flushed: Option<u64>, in_tables: u64, newest: u64) -> Result<(), &'static str> {
        let last = self.runs.last().map_or(0, |run| run.last().1);
        if newest != last.max(in_tables) {
            return Err("the newest batch of its journals is not the newest of the state");
        }
        if self.runs.first().is_some_and(|run| run.number > in_tables + 1) {
            return Err("batches are missing between its table files and its journals");
        }
        // fjall takes a batch for flushed by its sequence number alone.
        let taken = |run: &Run| flushed.map_or(0, |flushed| (flushed + 1).saturating_sub(run.seqno).min(run.length));
        let misjudged = self.runs.iter().any(|run| {
            let first_kept = run.number + taken(run);
            first_kept > in_tables + 1 && taken(run) > 0 || first_kept <= in_tables && taken(run) < run.length
        });
        if misjudged { Err("its journals and its table files disagree on what is flushed") } else { Ok(()) }
    }
}

/// fjall keeps the highest bit for itself.
const SEQNO_MAX: u64 = 1 << 63;

fn damaged(path: &Path, offset: u64, what: &'static str) -> StorageError {
    StorageError::Damaged { path: path.to_owned(), what: format!("at offset {offset}, {what}") }
}

/// The journals, oldest first.
pub(super) fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        found.extend(number.filter(|_| is_journal).map(|number| (number, path)));
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Cuts a journal off at `at`. What follows `seen` is zeros if the write of the batch was interrupted by the end of the
/// process; otherwise the power went, or the file is damaged, and what is cut off is kept.
fn cut(path: &Path, at: u64, seen: u64, what: &'static str) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    if let Some(end) = end_of_data(&mut file, seen)? {
        let kept = path.with_extension(format!("jnl.{at}.broken"));
        file.seek(SeekFrom::Start(at))?;
        let mut copy = File::create(&kept)?;
        io::copy(&mut (&mut file).take(end - at), &mut copy)?;
        copy.flush()?;
        copy.sync_all()?;
        tracing::warn!(
            ?path,
            offset = at,
            what,
            ?kept,
            "cut off the broken end of a journal of the state; what was in it is applied again from the log"
        );
    }
    file.set_len(at)?;
    file.sync_all()?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Where the last byte at or after `from` that is not zero ends, if there is one.
fn end_of_data(file: &mut File, from: u64) -> io::Result<Option<u64>> {
    let mut end = None;
    let mut position = file.seek(SeekFrom::Start(from))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut chunk)?;
        let data = chunk.get(..read).unwrap_or_default();
        if read == 0 {
            return Ok(end);
        }
        if !is_zero(data) {
            let length = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            end = Some(position + length as u64);
        }
        position += read as u64;
    }
}

/// Whether all bytes are zeros; by comparison with zeros, which is fast without optimization, too.
fn is_zero(data: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    data.chunks(ZEROS.len()).all(|part| ZEROS.get(..part.len()) == Some(part))
}

/// Walks through one journal.
struct Reader {
    file: BufReader<File>,
    size: u64,
    /// Where the next byte comes from.
    position: u64,
}

impl Reader {
    fn new(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file: BufReader::with_capacity(CHUNK_BYTES, file), size, position: 0 })
    }

    /// Reads what stands next.
    fn step(&mut self) -> io::Result<Step> {
        match self.batch() {
            Ok(Some(batch)) => Ok(Step::Batch(batch)),
            Ok(None) => self.end(),
            Err(Stop::Broken(what)) => Ok(Step::Broken { seen: self.position, what }),
            Err(Stop::Io(cause)) if cause.kind() == ErrorKind::UnexpectedEof => {
                Ok(Step::Broken { seen: self.size, what: "it ends within a batch" })
            }
            Err(Stop::Io(cause)) => Err(cause),
        }
    }

    /// There is no batch here: only zeros may follow.
    fn end(&mut self) -> io::Result<Step> {
        let seen = self.position;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = self.file.read(&mut chunk)?;
            if read == 0 {
                return Ok(Step::End);
            }
            if !is_zero(chunk.get(..read).unwrap_or_default()) {
                return Ok(Step::Broken { seen, what: "something other than a batch follows" });
            }
        }
    }

    /// The next batch, or nothing before a zero or the end of the file.
    fn batch(&mut self) -> Result<Option<Batch>, Stop> {
        let mut tag = [0];
        if self.file.read(&mut tag)? == 0 || tag == [0] {
            return Ok(None);
        }
        self.position += 1;
        let rest: [u8; START_BYTES - 1] = self.array()?;
        let (items, seqno) = rest.split_at(4);
        if tag != [START] {
            return Err(Stop::Broken("it holds something other than a batch"));
        }
        let (mut sum, mut number) = (Xxh3Default::new(), None);
        for _ in 0..little(items) {
            number = self.item(&mut sum)?.or(number);
        }
        self.finish(sum.digest())?;
        let number = number.ok_or(Stop::Broken("the batch has no number"))?;
        Ok(Some(Batch { seqno: little(seqno), number }))
    }

    /// Passes an item; its value if it is the number of the batch.
    fn item(&mut self, sum: &mut Xxh3Default) -> Result<Option<u64>, Stop> {
        let head: [u8; ITEM_BYTES] = self.array()?;
        let [tag, kind, compression, ..] = head;
        let lengths = head.get(11..).unwrap_or_default();
        let (key_bytes, values) = lengths.split_at(2);
        let (value, stored) = values.split_at(4);
        if tag != ITEM || kind > KIND_MAX || compression != 0 || value != stored {
            return Err(Stop::Broken("an item of the batch does not parse"));
        }
        sum.update(&head);
        let (key_bytes, value_bytes) = (little(key_bytes), little(value));
        if (key_bytes, value_bytes) != (1, 8) {
            self.pass(key_bytes + value_bytes, sum)?;
            return Ok(None);
        }
        let pair: [u8; 9] = self.array()?;
        sum.update(&pair);
        let [key, value @ ..] = pair;
        Ok((kind == 0 && [key] == NUMBER_KEY).then(|| u64::from_be_bytes(value)))
    }

    fn finish(&mut self, sum: u64) -> Result<(), Stop> {
        let end: [u8; END_BYTES] = self.array()?;
        let (head, trailer) = end.split_at(9);
        let (tag, stored) = head.split_at(1);
        if tag != [END] || trailer != TRAILER {
            return Err(Stop::Broken("the end of the batch does not parse"));
        }
        if little(stored) == sum { Ok(()) } else { Err(Stop::Broken("the checksum of the batch does not match")) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.position += N as u64;
        Ok(bytes)
    }

    /// Passes bytes that are under the checksum.
    fn pass(&mut self, length: u64, sum: &mut Xxh3Default) -> Result<(), Stop> {
        use std::io::BufRead as _;
        if self.size.saturating_sub(self.position) < length {
            return Err(Stop::Io(ErrorKind::UnexpectedEof.into()));
        }
        let mut left = length;
        while left > 0 {
            let buffer = self.file.fill_buf()?;
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get(..wanted).unwrap_or_default();
            if part.is_empty() {
                return Err(Stop::Io(ErrorKind::UnexpectedEof.into()));
            }
            sum.update(part);
            self.file.consume(wanted);
            left -= wanted as u64;
        }
        self.position += length;
        Ok(())
    }
}

/// Why there is no batch.
enum Stop {
    Broken(&'static str),
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Makes two journals of the only one in a state that nobody uses: a full one and the one that is written.
#[cfg(test)]
pub(super) fn split(directory: &Path) {
    let paths = list(directory).unwrap();
    let [path] = paths.as_slice() else { panic!("one journal, not {paths:?}") };
    let (mut reader, mut ends) = (Reader::new(path).unwrap(), vec![0]);
    while let Step::Batch(_) = reader.step().unwrap() {
        ends.push(usize::try_from(reader.position).unwrap());
    }
    let bytes = fs::read(path).unwrap();
    let (middle, end) = (ends[ends.len() / 3], ends[ends.len() - 1]);
    let number: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    fs::write(directory.join(format!("{}.jnl", number + 1)), &bytes[middle..end]).unwrap();
    fs::write(path, &bytes[..middle]).unwrap();
}
