//! How keys and flags name ranges.

use bytes::Bytes;

use crate::cli::failure::Failure;

/// What a command reads or deletes: the two ends of a range as the API spells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) key: Bytes,
    pub(super) range_end: Bytes,
}

impl Span {
    /// Reads a key and an optional end; `prefix` and `from_key` are the flags of those names.
    ///
    /// # Errors
    /// A [`Failure`] if the flags contradict each other or the arguments.
    pub(super) fn of(arguments: &[Vec<u8>], prefix: bool, from_key: bool) -> Result<Self, Failure> {
        if prefix && from_key {
            return Err(Failure::bad_arguments(
                "`--prefix` and `--from-key` cannot be set at the same time, choose one",
            ));
        }
        let (Some(key), end) = (arguments.first(), arguments.get(1)) else {
            return Ok(Self { key: Bytes::new(), range_end: Bytes::new() });
        };
        match end {
            Some(_) if prefix || from_key => Err(Failure::bad_arguments(
                "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
            )),
            Some(end) => Ok(Self { key: key.clone().into(), range_end: end.clone().into() }),
            None if from_key => Ok(Self { key: or_first(key), range_end: OPEN }),
            None if prefix => Ok(Self::of_prefix(key)),
            None => Ok(Self { key: key.clone().into(), range_end: Bytes::new() }),
        }
    }

    /// All keys that begin with `prefix`.
    pub(super) fn of_prefix(prefix: &[u8]) -> Self {
        let range_end = if prefix.is_empty() { OPEN } else { prefix_end(prefix) };
        Self { key: or_first(prefix), range_end }
    }
}

/// The empty key cannot be asked for; the first one that can is a zero byte.
fn or_first(key: &[u8]) -> Bytes {
    if key.is_empty() { OPEN } else { Bytes::copy_from_slice(key) }
}

/// The first key behind all that begin with `prefix`; the open end if there is none.
pub(super) fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end.into();
        }
    }
    OPEN
}

/// One zero byte: the first key, and as an end, no end.
const OPEN: Bytes = Bytes::from_static(b"\0");

#[cfg(test)]
mod tests {
    use super::*;

    fn span(arguments: &[&str], prefix: bool, from_key: bool) -> Result<(Bytes, Bytes), String> {
        let arguments: Vec<_> = arguments.iter().map(|text| text.as_bytes().to_vec()).collect();
        let span = Span::of(&arguments, prefix, from_key).map_err(|failure| failure.message.unwrap_or_default())?;
        Ok((span.key, span.range_end))
    }

    fn ends(key: &'static str, end: &'static str) -> (Bytes, Bytes) {
        (key.into(), end.into())
    }

    #[test]
    fn flags_widen_a_key_to_a_range() {
        assert_eq!(span(&["a"], false, false), Ok(ends("a", "")));
        assert_eq!(span(&["a", "c", "ignored"], false, false), Ok(ends("a", "c")));
        assert_eq!(span(&["a"], true, false), Ok(ends("a", "b")));
        assert_eq!(span(&["a"], false, true), Ok(ends("a", "\0")));
        assert_eq!(span(&[""], true, false), Ok(ends("\0", "\0")));
        assert_eq!(span(&[""], false, true), Ok(ends("\0", "\0")));
        assert_eq!(span(&[""], false, false), Ok(ends("", "")));
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(span(&["a"], true, true).unwrap_err().starts_with("`--prefix` and `--from-key` cannot"));
        assert!(span(&["a", "b"], true, false).unwrap_err().starts_with("too many arguments"));
    }

    #[test]
    fn the_end_of_a_prefix_skips_bytes_that_cannot_grow() {
        assert_eq!(prefix_end(b"a\xff"), "b");
        assert_eq!(prefix_end(b"\xff\xff"), OPEN);
    }
}
