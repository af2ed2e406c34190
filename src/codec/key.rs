//! Keys that sort as their parts do.
//!
//! A user key that something follows is escaped: a zero byte becomes `00 ff`, and `00 01` ends the key. Then the escaped
//! forms of two keys compare as the keys themselves do, whatever follows, and none is a prefix of another.

use bytes::Bytes;

/// What ends an escaped key.
const END: [u8; 2] = [0, 1];
/// What a zero byte inside a key becomes.
const ZERO: [u8; 2] = [0, 0xff];

/// Appends the escaped form of `key`, end mark included; at most twice its length and two bytes.
pub fn escape_into(key: &[u8], out: &mut Vec<u8>) {
    let mut parts = key.split(|byte| *byte == 0);
    out.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        out.extend_from_slice(&ZERO);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&END);
}

/// Splits `bytes` into the key escaped at its beginning and what follows the end mark; nothing if there is no end mark.
/// A key without zero bytes shares memory with `bytes`.
pub fn unescape(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let first = bytes.iter().position(|byte| *byte == 0)?;
    if bytes.get(first..first + 2)? == END {
        return Some((bytes.slice(..first), bytes.slice(first + 2..)));
    }
    let mut key = Vec::with_capacity(bytes.len());
    let mut rest = bytes.as_ref();
    loop {
        let zero = rest.iter().position(|byte| *byte == 0)?;
        key.extend_from_slice(rest.get(..zero)?);
        let mark = rest.get(zero..zero + 2)?;
        rest = rest.get(zero + 2..)?;
        match mark {
            mark if mark == END => return Some((key.into(), bytes.slice(bytes.len() - rest.len()..))),
            mark if mark == ZERO => key.push(0),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(key: &[u8], tail: &[u8]) -> Bytes {
        let mut out = Vec::new();
        escape_into(key, &mut out);
        out.extend_from_slice(tail);
        out.into()
    }

    /// Keys rich in the bytes that matter to the escaping.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()], 0..8)
    }

    proptest! {
        #[test]
        fn escaped_keys_come_back_with_what_follows(key in key(), tail in key()) {
            let (back, rest) = unescape(&escaped(&key, &tail)).unwrap();
            prop_assert_eq!(back, key);
            prop_assert_eq!(rest, tail);
        }

        #[test]
        fn escaped_keys_sort_as_the_keys(a in key(), b in key(), tail_a in key(), tail_b in key()) {
            if a != b {
                prop_assert_eq!(escaped(&a, &tail_a).cmp(&escaped(&b, &tail_b)), a.cmp(&b));
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in key()) {
            unescape(&bytes.into());
        }
    }
}
