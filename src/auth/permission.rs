//! Intervals of keys, as permissions and requests spell them.
//!
//! An interval reaches from its begin up to its end, the end left out. A bound without a byte stands behind all keys.

use std::cmp::Ordering;

use bytes::Bytes;

/// Keys from the first bound up to the second.
pub(super) type Interval = (Bytes, Bytes);

/// Disjoint intervals, none touching another, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Intervals(Vec<Interval>);

impl Intervals {
    /// The union of `intervals`.
    pub(super) fn of(intervals: impl Iterator<Item = Interval>) -> Self {
        let mut sorted: Vec<_> = intervals.filter(|(begin, end)| compare(begin, end).is_lt()).collect();
        sorted.sort_by(|left, right| compare(&left.0, &right.0));
        let mut merged: Vec<Interval> = Vec::new();
        for (begin, end) in sorted {
            match merged.last_mut().filter(|(_, reached)| compare(&begin, reached).is_le()) {
                Some((_, reached)) if compare(reached, &end).is_lt() => *reached = end,
                Some(_) => {}
                None => merged.push((begin, end)),
            }
        }
        Self(merged)
    }

    /// Whether all of `interval` is inside. Of one that ends before it begins, which holds no key, only the begin counts,
    /// as in etcd.
    pub(super) fn cover(&self, (begin, end): &Interval) -> bool {
        let behind = self.0.partition_point(|(from, _)| compare(from, begin).is_le());
        let found = behind.checked_sub(1).and_then(|at| self.0.get(at));
        found.is_some_and(|(_, to)| compare(begin, to).is_lt() && compare(end, to).is_le())
    }
}

/// Reads a key and the end of a range as etcd does.
pub(super) fn interval_of(key: &Bytes, range_end: &Bytes) -> Interval {
    let end = match range_end.as_ref() {
        [] => [key.as_ref(), &[0]].concat().into(),
        [0] => Bytes::new(),
        _ => range_end.clone(),
    };
    (key.clone(), end)
}

/// Whether a permission for these keys can be granted.
pub(super) fn is_valid(key: &Bytes, range_end: &Bytes) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end.as_ref() == [0] || key < range_end)
}

fn compare(left: &[u8], right: &[u8]) -> Ordering {
    left.is_empty().cmp(&right.is_empty()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(key: &str, range_end: &str) -> Interval {
        interval_of(&Bytes::copy_from_slice(key.as_bytes()), &Bytes::copy_from_slice(range_end.as_bytes()))
    }

    fn intervals(pairs: &[(&str, &str)]) -> Intervals {
        Intervals::of(pairs.iter().map(|(key, end)| interval(key, end)))
    }

    #[test]
    fn neighbours_add_up_and_gaps_do_not() {
        let held = intervals(&[("c", "e"), ("a", "c"), ("f", "g"), ("b", "d")]);
        assert!(held.cover(&interval("a", "e")));
        assert!(held.cover(&interval("f", "")));
        assert!(
            !held.cover(&interval("a", "f")) && !held.cover(&interval("e", "")) && !held.cover(&interval("d", "g"))
        );
    }

    #[test]
    fn a_point_covers_one_key() {
        let held = intervals(&[("a", "")]);
        assert!(held.cover(&interval("a", "")) && held.cover(&interval("a", "a\0")));
        assert!(!held.cover(&interval("a", "b")) && !held.cover(&interval("a\0", "")));
    }

    #[test]
    fn one_zero_byte_is_the_end_of_all_keys_on_both_sides() {
        let held = intervals(&[("b", "\0")]);
        assert!(held.cover(&interval("b", "\0")) && held.cover(&interval("zz", "")) && held.cover(&interval("c", "d")));
        assert!(!held.cover(&interval("a", "\0")));
        assert!(!intervals(&[("b", "\u{7f}")]).cover(&interval("b", "\0")));
    }

    #[test]
    fn no_key_stands_behind_all_keys() {
        assert!(!intervals(&[("\0", "\0")]).cover(&interval("", "")));
        assert!(!intervals(&[("", "\0")]).cover(&interval("a", "")));
    }

    #[test]
    fn of_a_reversed_interval_the_begin_counts() {
        let held = intervals(&[("b", "d")]);
        assert!(held.cover(&interval("c", "a")));
        assert!(!held.cover(&interval("a", "\u{1}")) && !held.cover(&interval("d", "a")));
    }

    #[test]
    fn granted_ranges_have_a_key_and_go_upwards() {
        let valid = |key: &'static str, end: &'static str| is_valid(&Bytes::from(key), &Bytes::from(end));
        assert!(valid("a", "") && valid("a", "b") && valid("b", "\0"));
        assert!(!valid("", "") && !valid("", "\0") && !valid("a", "a") && !valid("b", "a"));
    }

    fn small_key() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!['\0', 'a', 'b']), 1..3).prop_map(|chars| chars.iter().collect())
    }

    fn small_range() -> impl Strategy<Value = (String, String)> {
        (small_key(), prop_oneof![Just(String::new()), Just("\0".to_owned()), small_key()])
    }

    /// All keys of up to three letters, and one behind them for those without end.
    fn all_keys() -> Vec<Vec<u8>> {
        let mut keys = vec![Vec::new()];
        for _ in 0..3 {
            let longer = keys.iter().flat_map(|key| b"\0ab".map(|letter| [key.as_slice(), &[letter]].concat()));
            keys.extend(longer.collect::<Vec<_>>());
        }
        keys.retain(|key| !key.is_empty());
        keys.push(vec![0xff]);
        keys.sort();
        keys.dedup();
        keys
    }

    fn contains((begin, end): &Interval, key: &[u8]) -> bool {
        begin.as_ref() <= key && (end.is_empty() || key < end.as_ref())
    }

    proptest! {
        /// Key by key: bounds have two letters at most, so that between two of them lies a key of three, or none at all.
        #[test]
        fn union_covers_what_its_parts_cover_together(
            parts in prop::collection::vec(small_range(), 0..5),
            asked in small_range(),
        ) {
            let parts: Vec<_> = parts.iter().map(|(key, end)| interval(key, end)).collect();
            let asked = interval(&asked.0, &asked.1);
            prop_assume!(compare(&asked.0, &asked.1).is_lt());
            let merged = Intervals::of(parts.iter().cloned());
            let keys = all_keys();
            let inside = |key: &&Vec<u8>| contains(&asked, key);
            let expected = keys.iter().filter(inside).all(|key| parts.iter().any(|part| contains(part, key)));
            prop_assert_eq!(merged.cover(&asked), expected);
        }
    }
}
