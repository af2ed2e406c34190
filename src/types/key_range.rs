//! The interval rule shared by ranges, deletes, compares, watches and permissions.

use bytes::Bytes;

/// A set of neighbouring keys, in bytewise order, as etcd's `key` and `range_end` spell it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyRange {
    /// The first key that can be inside.
    pub start: Bytes,
    /// Where the interval ends.
    pub end: KeyEnd,
}

/// The upper side of a [`KeyRange`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyEnd {
    /// Exactly the start key.
    Single,
    /// All keys below this one.
    Before(Bytes),
    /// No upper bound.
    Open,
}

impl KeyRange {
    /// Reads the pair as etcd does: an empty end means the single key, one zero byte means "from here on".
    pub fn new(key: Bytes, range_end: &Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => KeyEnd::Single,
            [0] => KeyEnd::Open,
            _ => KeyEnd::Before(range_end.clone()),
        };
        Self { start: key, end }
    }

    /// Exactly one key.
    pub fn single(key: Bytes) -> Self {
        Self { start: key, end: KeyEnd::Single }
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            KeyEnd::Single => self.start == key,
            KeyEnd::Before(end) => self.start.as_ref() <= key && key < end.as_ref(),
            KeyEnd::Open => self.start.as_ref() <= key,
        }
    }

    /// Whether no key can lie inside.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, KeyEnd::Before(end) if end.as_ref() <= self.start.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static [u8], end: &'static [u8]) -> KeyRange {
        KeyRange::new(Bytes::from_static(key), &Bytes::from_static(end))
    }

    #[test]
    fn empty_end_is_the_single_key() {
        assert!(range(b"a", b"").contains(b"a"));
        assert!(!range(b"a", b"").contains(b"ab"));
    }

    #[test]
    fn zero_end_is_open() {
        assert!(range(b"a", b"\0").contains(b"\xff\xff"));
        assert!(!range(b"b", b"\0").contains(b"a"));
        assert!(range(b"\0", b"\0").contains(b"\0"));
    }

    #[test]
    fn end_at_or_below_start_is_empty() {
        assert!(range(b"b", b"a").is_empty());
        assert!(range(b"b", b"b").is_empty());
        assert!(!range(b"b", b"c").is_empty());
    }
}
