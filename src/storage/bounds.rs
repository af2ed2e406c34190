//! Bounds of scans, made safe for an engine.

use std::ops::Bound;

use super::KEY_BYTES_MAX;

/// A lower and an upper bound.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The same interval in bounds that an engine can take: no key above [`KEY_BYTES_MAX`], never reversed; nothing if no key
/// can lie between them.
pub(super) fn clamp<'a>(lower: Bound<&'a [u8]>, upper: Bound<&'a [u8]>) -> Option<Bounds<'a>> {
    let lower = match lower {
        // Stored keys are no longer than the cut, so what lies above a longer key lies above its cut, itself excluded.
        Bound::Included(key) | Bound::Excluded(key) if key.len() > KEY_BYTES_MAX => {
            key.get(..KEY_BYTES_MAX).map_or(Bound::Unbounded, Bound::Excluded)
        }
        other => other,
    };
    let upper = match upper {
        Bound::Included(key) | Bound::Excluded(key) if key.len() > KEY_BYTES_MAX => {
            key.get(..KEY_BYTES_MAX).map_or(Bound::Unbounded, Bound::Included)
        }
        other => other,
    };
    (!is_empty(lower, upper)).then_some((lower, upper))
}

fn is_empty(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    match (lower, upper) {
        (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
        (Bound::Included(lower) | Bound::Excluded(lower), Bound::Included(upper) | Bound::Excluded(upper)) => {
            lower >= upper
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_cut_without_losing_or_adding_rows() {
        let long = vec![7; KEY_BYTES_MAX + 5];
        let cut = &long[..KEY_BYTES_MAX];
        let (lower, upper) = clamp(Bound::Included(&long), Bound::Unbounded).unwrap();
        assert_eq!((lower, upper), (Bound::Excluded(cut), Bound::Unbounded));
        let (lower, upper) = clamp(Bound::Unbounded, Bound::Excluded(&long)).unwrap();
        assert_eq!((lower, upper), (Bound::Unbounded, Bound::Included(cut)));
        assert_eq!(clamp(Bound::Included(&long), Bound::Excluded(&long)), None);
    }

    #[test]
    fn reversed_bounds_are_empty() {
        assert!(clamp(Bound::Included(b"b"), Bound::Excluded(b"a")).is_none());
        assert!(clamp(Bound::Included(b"a"), Bound::Excluded(b"a")).is_none());
        assert!(clamp(Bound::Excluded(b"a"), Bound::Included(b"a")).is_none());
        assert!(clamp(Bound::Included(b"a"), Bound::Included(b"a")).is_some());
    }
}
