//! Reads segments record by record, checks the chain, and finds where the log ends.

use prost::Message as _;

use crate::{
    disk::{Directory, DiskFile},
    pb::{raftpb, walpb},
    types::{ClusterId, LogIndex, MemberId},
};

use super::{
    Metadata, Repair, WalError,
    map::{Map, Place},
    record::{self, Frame, LENGTH_BYTES},
    segment::Segment,
};

/// Read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Walks through the frames of one segment with little memory: a chunk, or the largest record.
pub(super) struct Frames<F: DiskFile> {
    file: F,
    size: u64,
    buffer: Vec<u8>,
    /// Where in the buffer the next frame begins.
    position: usize,
    /// Where in the file the buffer begins.
    base: u64,
}

/// What stands next in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A record and the bytes of its frame.
    Record { kind: i64, crc: u32, data: &'a [u8], length: usize },
    /// The end of the data.
    End,
    /// A frame that reaches beyond the end of the file.
    Short,
    /// Something that is not a record. The frame has this many bytes, 0 if that is not known.
    Broken(usize, &'static str),
}

impl<F: DiskFile> Frames<F> {
    pub(super) fn new(file: F, offset: u64) -> std::io::Result<Self> {
        let size = file.size()?;
        Ok(Self { file, size, buffer: Vec::new(), position: 0, base: offset })
    }

    /// Where the next frame begins.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.position as u64
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.position..).unwrap_or_default()
    }

    /// Looks at the next frame without passing it.
    pub(super) fn peek(&mut self) -> std::io::Result<Step<'_>> {
        while let Some(wanted) = self.missing() {
            if self.size.saturating_sub(self.offset()) < wanted as u64 {
                break;
            }
            self.fill(wanted)?;
        }
        Ok(match record::decode_frame(self.rest()) {
            Frame::Record { kind, crc, data, length } => Step::Record { kind, crc, data, length },
            Frame::Broken(length, what) => Step::Broken(length, what),
            Frame::Short(_) => Step::Short,
            Frame::End if self.rest().is_empty() && self.offset() < self.size => Step::Short,
            Frame::End => Step::End,
        })
    }

    /// How many bytes from the next frame on would show more of it than the buffer holds.
    fn missing(&self) -> Option<usize> {
        match record::decode_frame(self.rest()) {
            Frame::End if self.rest().is_empty() => Some(LENGTH_BYTES),
            Frame::Short(wanted) => Some(wanted),
            _ => None,
        }
    }

    /// Makes at least `wanted` bytes, which the file has, available from the next frame on.
    fn fill(&mut self, wanted: usize) -> std::io::Result<()> {
        self.buffer.drain(..self.position);
        self.base += self.position as u64;
        self.position = 0;
        let held = self.buffer.len();
        self.buffer.resize(wanted.max(CHUNK_BYTES), 0);
        let fresh = self.buffer.get_mut(held..).unwrap_or_default();
        let read = self.file.read_at(fresh, self.base + held as u64)?;
        self.buffer.truncate(held + read);
        if held + read < wanted {
            // It shrank meanwhile: it ends here.
            self.size = self.base + (held + read) as u64;
        }
        Ok(())
    }

    /// Passes a frame of this length.
    pub(super) fn pass(&mut self, length: usize) {
        self.position = self.buffer.len().min(self.position + length);
    }

    /// Whether the frame ahead was only partly written: some sector of it is all zeros.
    fn is_torn(&self, length: usize) -> bool {
        let start = self.offset() + LENGTH_BYTES as u64;
        let body = self.rest().get(LENGTH_BYTES..length).unwrap_or_default();
        let sector = crate::disk::SECTOR_BYTES;
        let to_boundary = sector - usize::try_from(start % sector as u64).unwrap_or(0);
        let (head, rest) = body.split_at(to_boundary.min(body.len()));
        let is_zero = |part: &[u8]| !part.is_empty() && part.iter().all(|byte| *byte == 0);
        is_zero(head) || rest.chunks(sector).any(is_zero)
    }
}

/// Length, type, CRC and the head of the data: what a frame holds that its checksum does not protect.
const HEAD_BYTES: usize = 24;

impl<F: DiskFile> Frames<F> {
    /// Whether the frame ahead is a record that was written whole, after which the running CRC was `crc`, but for one bit.
    /// No interrupted write does that, unless the bit is the only one of a sector that was not written.
    fn is_one_bit_off(&mut self, crc: u32) -> std::io::Result<bool> {
        let wanted = (HEAD_BYTES + crate::disk::SECTOR_BYTES) as u64;
        let wanted = usize::try_from(wanted.min(self.size.saturating_sub(self.offset()))).unwrap_or(0);
        if self.rest().len() < wanted {
            self.fill(wanted)?;
        }
        if let Frame::Record { crc: expected, data, .. } = record::decode_frame(self.rest())
            && let Some(byte) = record::byte_of_one_bit(data, crc32c::crc32c_append(crc, data), expected)
            && !self.is_unwritten(data.as_ptr().addr() - self.rest().as_ptr().addr() + byte)
        {
            return Ok(true);
        }
        for bit in 0..HEAD_BYTES * 8 {
            if self.is_unwritten(bit / 8) {
                continue;
            }
            self.flip(bit);
            let is_whole = self.is_whole(crc);
            self.flip(bit);
            if is_whole? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this byte, counted from the frame ahead, may be in a sector that was never written: from the frame or the
    /// sector's beginning on there are only zeros.
    fn is_unwritten(&self, byte: usize) -> bool {
        let sector = crate::disk::SECTOR_BYTES;
        let start = usize::try_from(self.offset() % sector as u64).unwrap_or(0);
        let first = (start + byte) / sector * sector;
        let part = first.saturating_sub(start)..(first + sector - start).min(self.rest().len());
        self.rest().get(part).unwrap_or_default().iter().all(|byte| *byte == 0)
    }

    fn flip(&mut self, bit: usize) {
        if let Some(byte) = self.buffer.get_mut(self.position + bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }

    fn is_whole(&mut self, crc: u32) -> std::io::Result<bool> {
        // Every record begins with its type.
        if self.rest().get(LENGTH_BYTES) != Some(&TYPE_TAG) {
            return Ok(false);
        }
        let step = self.peek()?;
        let Step::Record { crc: expected, data, .. } = step else { return Ok(false) };
        Ok(!data.is_empty() && crc32c::crc32c_append(crc, data) == expected)
    }
}

/// The first byte of a record: the field with its type.
const TYPE_TAG: u8 = 1 << 3;

/// Everything a scan learns.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) metadata: Metadata,
    pub(super) hard_state: raftpb::HardState,
    pub(super) snapshots: Vec<walpb::Snapshot>,
    pub(super) map: Map,
    /// Where the next record goes.
    pub(super) end: Place,
    /// What has to be cut off before, and why it may be.
    pub(super) repair: Option<Repair>,
}

/// The log as it was before a snapshot mark that replaces it, in case the mark turns out to be half written.
#[derive(Debug)]
struct Suspended {
    mark: walpb::Snapshot,
    place: Place,
    map: Map,
    marks: usize,
    hard_state: raftpb::HardState,
}

/// Builds a [`Scan`] from records.
#[derive(Debug)]
struct Builder<'a, D: Directory> {
    directory: &'a D,
    reserved: u64,
    metadata: Option<Metadata>,
    hard_state: raftpb::HardState,
    snapshots: Vec<walpb::Snapshot>,
    map: Option<Map>,
    crc: u32,
    suspended: Option<Suspended>,
}

/// Reads `segments` in order. `applied` is what the state machine holds, durably; a snapshot mark beyond it and beyond
/// every commit index is the beginning of a batch that was never finished.
///
/// The last segment was made `reserved` bytes long, and only what follows the last whole record there can be half written.
pub(super) fn scan<D: Directory>(
    directory: &D,
    segments: &[Segment],
    applied: u64,
    reserved: u64,
) -> Result<Scan, WalError> {
    let mut builder = Builder {
        directory,
        reserved,
        metadata: None,
        hard_state: raftpb::HardState::default(),
        snapshots: Vec::new(),
        map: None,
        crc: 0,
        suspended: None,
    };
    let mut end = None;
    for (position, segment) in segments.iter().enumerate() {
        let is_last = position + 1 == segments.len();
        end = Some(builder.segment(*segment, is_last)?);
    }
    let (end, repair) = end.ok_or_else(|| WalError::Missing { path: directory.path("") })?;
    builder.finish(end, repair, applied)
}

impl<D: Directory> Builder<'_, D> {
    fn segment(&mut self, segment: Segment, is_last: bool) -> Result<(Place, Option<Repair>), WalError> {
        let name = segment.name();
        let io = |cause| WalError::io("read", self.directory.path(&name), cause);
        let file = self.directory.open(&name).map_err(io)?;
        let mut frames = Frames::new(file, 0).map_err(io)?;
        // A segment gets its name after its head is durable: only what follows the metadata can be half written.
        let mut headed = false;
        loop {
            let place = Place { segment, offset: frames.offset(), crc: self.crc };
            let io = |cause| WalError::io("read", self.directory.path(&name), cause);
            let (torn, what) = match frames.peek().map_err(io)? {
                Step::End if place.offset == 0 => return Err(self.corrupt(place, "it is empty")),
                Step::End => (true, None),
                Step::Short => (frames.size >= self.reserved, Some("it ends within a record")),
                Step::Broken(length, what) => (frames.is_torn(length), Some(what)),
                Step::Record { kind, crc, data, length } => {
                    if kind == i64::from(record::CRC) || crc32c::crc32c_append(self.crc, data) == crc {
                        self.record(kind, crc, data, place, headed)?;
                        headed |= kind == i64::from(record::METADATA);
                        frames.pass(length);
                        continue;
                    }
                    (frames.is_torn(length), Some("its checksum does not match"))
                }
            };
            return match what {
                _ if is_last && frames.is_one_bit_off(self.crc).map_err(io)? => {
                    Err(self.corrupt(place, "a bit of a record is not as it was written"))
                }
                None => Ok((place, None)),
                Some(what) if is_last && headed && torn => Ok((place, Some(cut_at(place, what)))),
                Some(what) => Err(self.corrupt(place, what)),
            };
        }
    }

    fn corrupt(&self, place: Place, what: &'static str) -> WalError {
        WalError::Corrupt { path: self.directory.path(&place.segment.name()), offset: place.offset, what }
    }

    /// Takes in one record whose checksum holds. That is one of its data alone: a type that was changed must show in what
    /// the data mean, and in the order of the records at the head of a segment.
    fn record(&mut self, kind: i64, crc: u32, data: &[u8], place: Place, headed: bool) -> Result<(), WalError> {
        let known = u8::try_from(kind).unwrap_or(0);
        if place.offset == 0 && known != record::CRC {
            return Err(self.corrupt(place, "it does not begin with a checksum record: not a segment of a log"));
        }
        if !headed && matches!(known, record::STATE | record::ENTRY | record::SNAPSHOT) {
            return Err(self.corrupt(place, "its head has no metadata"));
        }
        match known {
            record::CRC => return self.chain(crc, place),
            record::METADATA => self.metadata(data, place)?,
            record::STATE => {
                let unparsable = || self.corrupt(place, "its hard state does not parse");
                self.hard_state = record::hard_state(data).ok_or_else(unparsable)?;
                self.commit_suspended();
            }
            record::ENTRY => self.entry(data, place)?,
            record::SNAPSHOT => self.mark(data, place)?,
            _ => {
                let path = self.directory.path(&place.segment.name());
                return Err(WalError::UnknownRecord { path, offset: place.offset, kind });
            }
        }
        self.crc = crc;
        Ok(())
    }

    /// A segment repeats the running CRC of the one before; the first one read is believed.
    fn chain(&mut self, crc: u32, place: Place) -> Result<(), WalError> {
        if self.crc != 0 && self.crc != crc {
            return Err(self.corrupt(place, "its checksum does not continue the segment before"));
        }
        self.crc = crc;
        Ok(())
    }

    fn metadata(&mut self, data: &[u8], place: Place) -> Result<(), WalError> {
        let (member, cluster) =
            record::metadata(data).ok_or_else(|| self.corrupt(place, "its metadata does not parse"))?;
        let metadata = Metadata { member: MemberId(member), cluster: ClusterId(cluster) };
        if *self.metadata.get_or_insert(metadata) != metadata {
            return Err(self.corrupt(place, "it belongs to another member than the segment before"));
        }
        Ok(())
    }

    fn entry(&mut self, data: &[u8], place: Place) -> Result<(), WalError> {
        let (term, index) = record::entry_head(data).ok_or_else(|| self.corrupt(place, "its entry does not parse"))?;
        let map = self.map.get_or_insert_with(|| Map::after(index - 1, None));
        let replaces_unread = index <= map.start.0 && map.start.1.is_none();
        let follows_unread = map.last == map.start.0 && index > map.last + 1;
        if replaces_unread || follows_unread {
            // The entries before it are in an earlier segment: the log that is read begins here.
            *map = Map::after(index - 1, None);
        }
        if map.put(index, term, place) { Ok(()) } else { Err(self.corrupt(place, "its entry leaves a gap")) }
    }

    /// A snapshot mark changes nothing if the log holds its entry. Otherwise the log begins anew after it, once a
    /// hard state has committed it.
    fn mark(&mut self, data: &[u8], place: Place) -> Result<(), WalError> {
        let mark =
            walpb::Snapshot::decode(data).map_err(|_| self.corrupt(place, "its snapshot mark does not parse"))?;
        let (index, term) = (mark.index, mark.term);
        self.snapshots.push(mark.clone());
        let Some(map) = &mut self.map else {
            self.map = Some(Map::after(index, Some(term)));
            return Ok(());
        };
        if map.start == (index, None) {
            map.start.1 = Some(term);
        }
        if map.term(index) == Some(term) || index < map.start.0 {
            return Ok(());
        }
        let map = std::mem::replace(map, Map::after(index, Some(term)));
        let hard_state = self.hard_state;
        let marks = self.snapshots.len() - 1;
        self.suspended.get_or_insert(Suspended { mark, place, map, marks, hard_state });
        self.commit_suspended();
        Ok(())
    }

    fn commit_suspended(&mut self) {
        let commit = self.hard_state.commit;
        if self.suspended.as_ref().is_some_and(|suspended| suspended.mark.index <= commit) {
            self.suspended = None;
        }
    }

    fn finish(mut self, end: Place, repair: Option<Repair>, applied: u64) -> Result<Scan, WalError> {
        let (mut end, mut cut) = (end, repair);
        if let Some(suspended) = self.suspended.take().filter(|suspended| suspended.mark.index > applied) {
            if suspended.place.segment != end.segment {
                return Err(self.corrupt(suspended.place, "its snapshot mark was never committed"));
            }
            end = suspended.place;
            cut = Some(cut_at(end, "it ends within a batch that begins with a snapshot"));
            self.map = Some(suspended.map);
            self.snapshots.truncate(suspended.marks);
            self.hard_state = suspended.hard_state;
        }
        let metadata = self.metadata.ok_or_else(|| self.corrupt(end, "it has no metadata"))?;
        let map = self.map.unwrap_or_default();
        Ok(Scan { metadata, hard_state: self.hard_state, snapshots: self.snapshots, map, end, repair: cut })
    }
}

fn cut_at(place: Place, what: &'static str) -> Repair {
    Repair { file: place.segment.name(), offset: place.offset, what }
}

/// Reads the entries a reader asked for, between two points of the map.
pub(super) struct Collector<'a> {
    pub(super) next: u64,
    pub(super) last: u64,
    pub(super) bytes_left: usize,
    pub(super) entries: &'a mut Vec<raftpb::Entry>,
}

impl Collector<'_> {
    pub(super) fn is_done(&self) -> bool {
        self.next > self.last || (self.bytes_left == 0 && !self.entries.is_empty())
    }

    /// Collects from `from` on, entries below `limit` only, until the segment's data end.
    pub(super) fn collect<D: Directory>(&mut self, directory: &D, from: Place, limit: u64) -> Result<(), WalError> {
        let name = from.segment.name();
        let io = |cause: std::io::Error| match cause.kind() {
            std::io::ErrorKind::NotFound => WalError::Gone { index: LogIndex(self.next) },
            _ => WalError::io("read", directory.path(&name), cause),
        };
        let file = directory.open(&name).map_err(io)?;
        let mut frames = Frames::new(file, from.offset).map_err(io)?;
        let mut crc = from.crc;
        while !self.is_done() && self.next < limit {
            let offset = frames.offset();
            let corrupt = |what| WalError::Corrupt { path: directory.path(&name), offset, what };
            let step = frames.peek().map_err(|cause| WalError::io("read", directory.path(&name), cause))?;
            let Step::Record { kind, crc: expected, data, length } = step else {
                return Err(corrupt("an entry that was written is missing"));
            };
            crc = crc32c::crc32c_append(crc, data);
            if crc != expected {
                return Err(corrupt("its checksum does not match"));
            }
            if kind == i64::from(record::ENTRY) {
                let entry = raftpb::Entry::decode(data).map_err(|_| corrupt("its entry does not parse"))?;
                self.take(entry, length);
            }
            frames.pass(length);
        }
        Ok(())
    }

    fn take(&mut self, entry: raftpb::Entry, bytes: usize) {
        if entry.index == self.next {
            self.next += 1;
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
            self.entries.push(entry);
        }
    }
}
