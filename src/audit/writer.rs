//! The thread that writes lines. Nobody waits for it but who stops the daemon, and he not for long.

use std::{io, sync::Arc, time::Duration};

use super::{
    AuditError, Rotation, TELL_INTERVAL,
    aside::set_aside,
    file::{Open, Target},
    queue::{Lines, Queue},
};
use crate::{clock::Stopwatch, metrics};

/// How long a disk that has failed is left alone. Lines wait in the queue meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// So often at most it is looked whether the file still has its name.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The end of a line.
pub(super) const END: u8 = b'\n';

#[derive(Debug)]
pub(super) struct Writer {
    target: Target,
    rotation: Option<Rotation>,
    queue: Arc<Queue>,
    /// Nothing after a failure.
    open: Option<Open>,
    /// The last line has no end.
    torn: bool,
    /// When it was looked last whether the file still has its name.
    looked: Option<Stopwatch>,
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
        let troubles = Troubles::default();
        let mut writer = Self { target, rotation, queue, open: None, torn: false, looked: None, troubles };
        writer.opened()?;
        Ok(writer)
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
        self.troubles.tell_rest();
        queue.end();
    }

    /// Writes what can be written, and counts.
    fn write_all(&mut self, lines: &Lines) {
        self.look();
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

    /// Lets go of a file that somebody has moved away or removed, without a word.
    fn look(&mut self) {
        if self.looked.is_some_and(|last| last.elapsed() < LOOK_INTERVAL) {
            return;
        }
        self.looked = Some(Stopwatch::start());
        if let (Some(open), Target::File(path)) = (&mut self.open, &self.target)
            && !open.is_in_place(path)
        {
            self.open = None;
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
        let filled = self.opened()?.fills().map(|(_, bytes)| bytes);
        let (Some(rotation), Some(bytes)) = (self.rotation, filled) else { return Ok(text.len()) };
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
        if let (Some(open), Target::File(path)) = (&mut self.open, &self.target)
            && !open.is_in_place(path)
        {
            // What bears the name now is somebody else's.
            self.open = None;
            return;
        }
        let Some((place, _)) = self.open.as_ref().and_then(Open::fills) else { return };
        match set_aside(place, rotation.files_max) {
            Ok(()) => self.open = None,
            Err(error) => {
                tracing::warn!(path = %place.display(), %error, "the audit log could not be rotated; it grows on");
                self.open.iter_mut().for_each(Open::forget_bytes);
            }
        }
    }

    /// Writes whole lines.
    fn write_piece(&mut self, piece: &[u8], written: &mut u64) -> Result<(), AuditError> {
        self.opened()?;
        if self.torn {
            // Whoever tore it has counted it as lost, or counts no more.
            let (_, ended) = put(self.opened()?, &[END]);
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
            none => {
                let open = Open::of(&self.target)?;
                // Of a pipe nobody knows more than what was written to it last.
                self.torn = open.is_torn().unwrap_or(self.torn);
                Ok(none.insert(open))
            }
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

    /// There will be no other time.
    fn tell_rest(&mut self) {
        let records = std::mem::take(&mut self.untold);
        if records > 0 {
            tracing::warn!(records, "more records of the audit log were lost until the end");
        }
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
    fn what_a_killed_process_has_left_spoils_no_line() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        fs::write(&path, "1\ntor").unwrap();
        writer(path.clone(), None).write_all(&lines(&["2\n"]));
        writer(path.clone(), None).write_all(&lines(&["3\n"]));
        assert_eq!(fs::read_to_string(path).unwrap(), "1\ntor\n2\n3\n");
    }

    #[test]
    fn a_line_that_a_pipe_took_half_of_is_ended() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let queue = Arc::new(Queue::default());
        // Nobody rests.
        queue.close(Duration::ZERO);
        let mut writer = Writer::open(Target::File(path), None, queue).unwrap();
        writer.open.as_ref().unwrap().refuse_to_wait();
        // Not a multiple of what a pipe takes, so that one of the lines is torn.
        let line = format!("{}\n", "l".repeat(6_999));
        writer.write_all(&lines(&[&line.repeat(20)]));
        assert!(writer.torn && writer.troubles.failing);
        let mut taken = vec![0; 1 << 16];
        std::io::Read::read_exact(&mut reader, &mut taken).unwrap();
        writer.write_all(&lines(&["2\n"]));
        assert_ne!(taken.last(), Some(&END));
        let mut next = [0; 3];
        std::io::Read::read_exact(&mut reader, &mut next).unwrap();
        assert_eq!(&next, b"\n2\n");
    }

    #[test]
    fn a_file_that_somebody_has_moved_is_followed_by_another() {
        let place = tempfile::tempdir().unwrap();
        let (path, moved) = (place.path().join("a"), place.path().join("moved"));
        let mut writer = writer(path.clone(), None);
        writer.write_all(&lines(&["1\n"]));
        fs::rename(&path, &moved).unwrap();
        writer.write_all(&lines(&["2\n"]));
        assert_eq!(fs::read_to_string(&moved).unwrap(), "1\n2\n", "it was looked at a moment ago");
        writer.looked = None;
        writer.write_all(&lines(&["3\n"]));
        assert_eq!(fs::read_to_string(path).unwrap(), "3\n");
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
