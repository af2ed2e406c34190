//! Where entries are, sparsely: a few bytes per [`POINT_DISTANCE_BYTES`] of log.

use crate::{
    types::{LogIndex, Term},
    wal::TermRun,
};

use super::segment::Segment;

/// Log between two points, at least. A reader skips at most this much, and 16 MiB of log cost 10 KiB of map.
const POINT_DISTANCE_BYTES: u64 = 64 << 10;

/// A place where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: Segment,
    pub(super) offset: u64,
    /// The running CRC before the record.
    pub(super) crc: u32,
}

/// The place of an entry. Entries up to the next point follow it in order, among other records; where the next point
/// replaces some of them, those from its index on are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) index: u64,
    pub(super) place: Place,
}

/// The readable part of the log: positions, terms, and places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    /// The position before the first entry; its term if it is known.
    pub(super) start: (u64, Option<u64>),
    pub(super) last: u64,
    pub(super) terms: Vec<TermRun>,
    points: Vec<Point>,
}

impl Map {
    /// An empty log after this position.
    pub(super) fn after(index: u64, term: Option<u64>) -> Self {
        Self { start: (index, term), last: index, ..Self::default() }
    }

    /// Notes an entry that follows the last one or replaces an earlier one with everything after it. False if neither
    /// holds: there is a gap, or it stands before the start.
    pub(super) fn put(&mut self, index: u64, term: u64, place: Place) -> bool {
        if index <= self.start.0 || index > self.last.saturating_add(1) {
            return false;
        }
        let replaces = index <= self.last;
        if replaces {
            self.points.retain(|point| point.index < index);
            self.terms.retain(|run| run.first.0 < index);
        }
        self.last = index;
        if self.terms.last().is_none_or(|run| run.term.0 != term) {
            self.terms.push(TermRun { first: LogIndex(index), term: Term(term) });
        }
        if replaces || self.points.last().is_none_or(|last| is_far(last.place, place)) {
            self.points.push(Point { index, place });
        }
        true
    }

    /// The term at `index`; `None` if it is not known.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.start.0 {
            return self.start.1;
        }
        if index < self.start.0 || index > self.last {
            return None;
        }
        self.terms.iter().rfind(|run| run.first.0 <= index).map(|run| run.term.0)
    }

    /// The point before the entry at `index`, and the one after that.
    pub(super) fn around(&self, index: u64) -> Option<(Point, Option<Point>)> {
        let after = self.points.partition_point(|point| point.index <= index);
        let before = self.points.get(after.checked_sub(1)?)?;
        Some((*before, self.points.get(after).copied()))
    }

    /// Forgets what is in segments before `segment`.
    pub(super) fn forget_before(&mut self, segment: Segment) {
        self.points.retain(|point| point.place.segment >= segment);
    }
}

fn is_far(from: Place, to: Place) -> bool {
    from.segment != to.segment || to.offset >= from.offset.saturating_add(POINT_DISTANCE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(sequence: u64, offset: u64) -> Place {
        Place { segment: Segment { sequence, first: 0 }, offset, crc: 0 }
    }

    #[test]
    fn points_stand_apart_but_at_every_segment_and_replacement() {
        let mut map = Map::after(0, Some(0));
        for (index, term, place) in [
            (1, 1, place(0, 0)),
            (2, 1, place(0, 100)),
            (3, 1, place(0, POINT_DISTANCE_BYTES)),
            (4, 1, place(1, 0)),
            (5, 1, place(1, 100)),
            (3, 2, place(1, 200)),
        ] {
            assert!(map.put(index, term, place));
        }
        let indexes: Vec<_> = map.points.iter().map(|point| (point.index, point.place.offset)).collect();
        assert_eq!(indexes, [(1, 0), (3, 200)]);
        assert_eq!((map.last, map.term(2), map.term(3), map.term(4)), (3, Some(1), Some(2), None));
        assert_eq!(map.around(2).unwrap().0.index, 1);
        assert_eq!(map.around(2).unwrap().1.unwrap().index, 3);
        assert_eq!(map.around(0), None);
    }

    #[test]
    fn gaps_and_entries_before_the_start_are_not_taken() {
        let mut map = Map::after(5, None);
        assert!(!map.put(7, 1, place(0, 0)));
        assert!(!map.put(5, 1, place(0, 0)));
        assert!(map.put(6, 1, place(0, 0)));
    }
}
