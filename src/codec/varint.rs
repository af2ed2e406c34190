//! Unsigned numbers in as few bytes as they need, seven bits each, least significant first (as protobuf's).

/// Most bytes a number takes.
pub const BYTES_MAX: usize = 10;

/// Appends `number`.
pub fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(low_bits(number) | 0x80);
        number >>= 7;
    }
    out.push(low_bits(number));
}

/// Takes a number off the front of `bytes`; nothing if they end early or hold more than 64 bits.
pub fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for (index, byte) in bytes.iter().take(BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shifted = bits << (7 * index);
        if shifted >> (7 * index) != bits {
            return None;
        }
        number |= shifted;
        if *byte < 0x80 {
            *bytes = bytes.get(index + 1..)?;
            return Some(number);
        }
    }
    None
}

/// Bytes that `number` takes.
pub const fn len(number: u64) -> usize {
    // One byte for every seven bits begun, and one for zero.
    let bits = 64 - (number | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn low_bits(number: u64) -> u8 {
    (number & 0x7f) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back_in_the_stated_length(number in prop_oneof![any::<u64>(), 0..300_u64], tail in any::<u8>()) {
            let mut out = Vec::new();
            put(number, &mut out);
            prop_assert_eq!(out.len(), len(number));
            out.push(tail);
            let mut bytes = out.as_slice();
            prop_assert_eq!(take(&mut bytes), Some(number));
            prop_assert_eq!(bytes, &[tail]);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            take(&mut bytes.as_slice());
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        let mut bytes: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert_eq!(take(&mut bytes), None);
    }
}
