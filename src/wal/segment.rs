//! Names of segments: `<sequence>-<first index>.wal`, both as sixteen hexadecimal digits.

use crate::disk::Directory;

use super::WalError;

/// One file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    /// From 0, without gaps among the files present.
    pub(super) sequence: u64,
    /// The index of the first entry that may be inside.
    pub(super) first: u64,
}

impl Segment {
    pub(super) fn name(self) -> String {
        format!("{:016x}-{:016x}.wal", self.sequence, self.first)
    }

    fn parse(name: &str) -> Option<Self> {
        let (sequence, first) = name.strip_suffix(".wal")?.split_once('-')?;
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16);
        let segment = Self { sequence: number(sequence)?, first: number(first)? };
        (segment.name() == name).then_some(segment)
    }
}

/// All segments, oldest first. Other files are not looked at.
pub(super) fn list<D: Directory>(directory: &D) -> Result<Vec<Segment>, WalError> {
    let names = directory.names().map_err(|cause| WalError::io("list", directory.path(""), cause))?;
    let mut segments: Vec<_> = names.iter().filter_map(|name| Segment::parse(name)).collect();
    segments.sort_unstable();
    for pair in segments.windows(2) {
        if let [before, after] = pair
            && after.sequence != before.sequence + 1
        {
            return Err(WalError::MissingSegment {
                before: directory.path(&before.name()),
                after: directory.path(&after.name()),
            });
        }
    }
    Ok(segments)
}

/// The position among `segments` of the last one that may hold the entry after `index`.
pub(super) fn holding(segments: &[Segment], index: u64) -> Option<usize> {
    segments.iter().rposition(|segment| segment.first <= index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDirectory;

    fn directory(names: &[&str]) -> MemoryDirectory {
        let directory = MemoryDirectory::default();
        for name in names {
            directory.create(name).unwrap();
        }
        directory
    }

    #[test]
    fn names_are_etcds() {
        let segment = Segment { sequence: 1, first: 0xabc };
        assert_eq!(segment.name(), "0000000000000001-0000000000000abc.wal");
        assert_eq!(Segment::parse(&segment.name()), Some(segment));
        for wrong in [
            "0.tmp",
            "1-2.wal",
            "0000000000000001-0000000000000ABC.wal",
            "0000000000000001-0000000000000abc.wal.broken",
        ] {
            assert_eq!(Segment::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn other_files_are_left_alone_and_gaps_are_refused() {
        let first = "0000000000000003-0000000000000000.wal";
        let second = "0000000000000004-0000000000000064.wal";
        let third = "0000000000000006-00000000000000c8.wal";
        assert_eq!(list(&directory(&["0.tmp", second, first, "notes"])).unwrap().len(), 2);
        assert!(matches!(list(&directory(&[first, second, third])), Err(WalError::MissingSegment { .. })));
    }

    #[test]
    fn reading_starts_at_the_last_segment_that_may_hold_the_next_entry() {
        let segments = [0, 100, 100, 200].map(|first| Segment { sequence: 0, first });
        assert_eq!(holding(&segments, 0), Some(0));
        assert_eq!(holding(&segments, 99), Some(0));
        assert_eq!(holding(&segments, 100), Some(2));
        assert_eq!(holding(&segments, 500), Some(3));
        assert_eq!(holding(&segments[1..], 50), None);
    }
}
