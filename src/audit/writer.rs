//! The thread that writes lines. Nobody waits for it but who stops the daemon, and he not for long.

use std::{io, sync::Arc, time::Duration};

use super::{
    AuditError, Rotation, TELL_INTERVAL,
    file::{Open, Target, set_aside},
    queue::{Lines, Queue},
};
use crate::{clock::Stopwatch, metrics};

/// How long a disk that has failed is left alone. Lines wait in the queue meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The end of a line.
const END: u8 = b'\n';

#[derive(Debug)]
pub(super) struct Writer {
    target: Target,
    rotation: Option<Rotation>,
    queue: Arc<Queue>,
    /// Nothing after a failure.
    open: Option<Open>,
    /// The last line written has no end.
    torn: bool,
    troubles: Troubles,
}

/// What the log has said of failures.
#[derive(Debug, Default)]
struct Troubles {
    told: Option<Stopwatch>,
    untold: u64,
    /// Since the last success.
    failing: bool,
}

impl Writer {
    pub(super) fn open(target: Target, rotation: Option<Rotation>, queue: Arc<Queue>) -> Result<Self, AuditError> {
        let open = Some(Open::of(&target)?);
        Ok(Self { target, rotation, queue, open, torn: false, troubles: Troubles::default() })
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(&mut self) {
        let queue = Arc::clone(&self.queue);
        let mut lines = Lines::default();
        while let Some(reopen) = queue.take(&mut lines) {
            if reopen {
                self.open = None;
            }
            self.write_all(&lines);
        }
        queue.end();
    }

    /// Writes what can be written, and counts.
    fn write_all(&mut self, lines: &Lines) {
        let mut written = 0;
        let outcome = self.write(lines.text.as_bytes(), &mut written);
        metrics::AUDIT_RECORDS.with(["written"]).add(written);
        match outcome {
            Ok(()) => self.troubles.end(),
            Err(error) => {
                let failed = lines.count.saturating_sub(written);
                metrics::AUDIT_RECORDS.with(["failed"]).add(failed);
                self.open = None;
                self.troubles.tell(&error, failed);
                self.queue.rest(RETRY_INTERVAL);
            }
        }
    }

    fn write(&mut self, mut text: &[u8], written: &mut u64) -> Result<(), AuditError> {
        while !text.is_empty() {
            let (piece, rest) = text.split_at(self.room(text)?);
            self.write_piece(piece, written)?;
            text = rest;
        }
        Ok(())
    }

    /// How much of `text` the file has room for, in whole lines; one that is full is set aside first.
    fn room(&mut self, text: &[u8]) -> Result<usize, AuditError> {
        let bytes = self.opened()?.bytes();
        let (Some(rotation), Some(bytes)) = (self.rotation, bytes) else { return Ok(text.len()) };
        let left = usize::try_from(rotation.bytes_max.saturating_sub(bytes)).unwrap_or(usize::MAX);
        let lines =
            text.get(..left).map_or(text.len(), |fitting| end_of(fitting.iter().rposition(|byte| *byte == END)));
        if lines > 0 {
            return Ok(lines);
        }
        if bytes > 0 {
            self.rotate(rotation);
        }
        // A line that is longer than a whole file may be has one of its own.
        Ok(end_of(text.iter().position(|byte| *byte == END)))
    }

    /// What cannot be set aside goes on: a long file is better than none.
    fn rotate(&mut self, rotation: Rotation) {
        let Target::File(path) = &self.target else { return };
        match set_aside(path, rotation.files_max) {
            Ok(()) => self.open = None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the audit log could not be rotated; it grows on");
                self.open.iter_mut().for_each(Open::forget_bytes);
            }
        }
    }

    /// Writes whole lines.
    fn write_piece(&mut self, piece: &[u8], written: &mut u64) -> Result<(), AuditError> {
        let torn = std::mem::take(&mut self.torn);
        let open = self.opened()?;
        if torn && open.bytes() != Some(0) {
            // What was torn is counted as lost already.
            let (_, ended) = put(open, &[END]);
            self.torn = ended.is_err();
            ended.map_err(AuditError::Write)?;
        }
        let (bytes, outcome) = put(self.opened()?, piece);
        let done = piece.get(..bytes).unwrap_or(piece);
        *written += done.split(|byte| *byte == END).skip(1).count() as u64;
        self.torn = done.last().is_some_and(|last| *last != END);
        outcome.map_err(AuditError::Write)
    }

    fn opened(&mut self) -> Result<&mut Open, AuditError> {
        match &mut self.open {
            Some(open) => Ok(open),
            none => Ok(none.insert(Open::of(&self.target)?)),
        }
    }
}

/// Writes `text`; how much of it was written, and why not all.
fn put(open: &mut Open, text: &[u8]) -> (usize, io::Result<()>) {
    let mut done = 0;
    while let Some(rest) = text.get(done..).filter(|rest| !rest.is_empty()) {
        match open.write(rest) {
            Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
            Ok(bytes) => done += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}

/// Where what follows a line feed begins; the begin if there is none.
fn end_of(line_feed: Option<usize>) -> usize {
    line_feed.map_or(0, |at| at + 1)
}

impl Troubles {
    fn tell(&mut self, error: &AuditError, records: u64) {
        self.failing = true;
        self.untold += records;
        if self.told.is_some_and(|told| told.elapsed() < TELL_INTERVAL) {
            return;
        }
        self.told = Some(Stopwatch::start());
        let records = std::mem::take(&mut self.untold);
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%error, cause, records, "records of the audit log were lost; it is tried again every second");
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.failing) {
            let lost_since = std::mem::take(&mut self.untold);
            tracing::info!(lost_since, "the audit log is written again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    fn lines(texts: &[&str]) -> Lines {
        Lines { text: texts.concat(), count: texts.len() as u64 }
    }

    fn writer(path: PathBuf, rotation: Option<Rotation>) -> Writer {
        Writer::open(Target::File(path), rotation, Arc::default()).unwrap()
    }

    #[test]
    fn files_hold_whole_lines_and_no_more_than_they_may() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let mut writer = writer(path.clone(), Some(Rotation { bytes_max: 10, files_max: 9 }));
        writer.write_all(&lines(&["123\n", "456\n", "789\n"]));
        writer.write_all(&lines(&["longer than a file\n", "1\n"]));
        let read = |name: &str| fs::read_to_string(place.path().join(name)).unwrap();
        assert_eq!(["a.3", "a.2", "a.1", "a"].map(read), ["123\n456\n", "789\n", "longer than a file\n", "1\n"]);
    }

    #[test]
    fn a_file_that_cannot_be_set_aside_is_written_on() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        fs::create_dir(place.path().join("a.1")).unwrap();
        let mut writer = writer(path.clone(), Some(Rotation { bytes_max: 4, files_max: 1 }));
        for line in ["1\n", "2\n", "3\n", "4\n"] {
            writer.write_all(&lines(&[line]));
        }
        assert_eq!(fs::read_to_string(path).unwrap(), "1\n2\n3\n4\n");
    }

    #[test]
    fn what_follows_a_torn_line_is_a_line() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let mut writer = writer(path.clone(), None);
        let mut written = 0;
        writer.write_piece(b"1\ntor", &mut written).unwrap();
        writer.write_piece(b"2\n", &mut written).unwrap();
        assert_eq!(written, 2);
        assert_eq!(fs::read_to_string(path).unwrap(), "1\ntor\n2\n");
    }

    #[test]
    fn a_full_disk_costs_lines_and_is_tried_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let queue = Arc::new(Queue::default());
        // Nobody rests.
        queue.close(Duration::ZERO);
        let mut writer = Writer::open(Target::File(path.clone()), None, queue).unwrap();
        writer.write_all(&lines(&["1\n"]));
        assert!(writer.open.is_none() && writer.troubles.failing);
        fs::remove_file(&path).unwrap();
        writer.write_all(&lines(&["2\n"]));
        assert_eq!(fs::read_to_string(path).unwrap(), "2\n");
        assert!(!writer.troubles.failing);
    }
}
