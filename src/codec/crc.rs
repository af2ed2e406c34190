//! CRC-32C (Castagnoli) of byte strings that are not at hand, from the checksums of their parts.
//!
//! A CRC is the remainder of a polynomial: appending `n` bytes multiplies what came before by x^(8n) and adds the rest.
//! So the checksum of `A` followed by `B` needs only both checksums and the length of `B`. Polynomials over GF(2) are
//! held bit-reversed, as the checksum itself: the highest bit is the coefficient of x^0.

/// The Castagnoli polynomial without its highest term, bit-reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// Lengths whose factor is remembered.
const REMEMBERED_MAX: usize = 4096;

/// The checksum of `bytes` after bytes whose checksum is `crc` (0 at the beginning).
pub fn append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// Joins checksums, remembering the factors of common lengths.
#[derive(Clone, Debug)]
pub struct Joiner {
    /// The factor of each length; zero where it is not known yet (no factor is zero).
    factors: Vec<u32>,
}

impl Default for Joiner {
    fn default() -> Self {
        Self { factors: vec![0; REMEMBERED_MAX] }
    }
}

impl Joiner {
    /// The checksum of two byte strings in sequence, `second` being that of the latter, `len` bytes long.
    pub fn join(&mut self, first: u32, second: u32, len: u64) -> u32 {
        multiply(self.factor(len), first) ^ second
    }

    fn factor(&mut self, len: u64) -> u32 {
        let remembered = usize::try_from(len).ok().and_then(|len| self.factors.get_mut(len));
        match remembered {
            Some(factor) if *factor != 0 => *factor,
            Some(factor) => {
                *factor = power(len);
                *factor
            }
            None => power(len),
        }
    }
}

/// x^(8n) modulo the polynomial.
fn power(mut n: u64) -> u32 {
    let mut result = ONE;
    let mut square = ONE >> 8; // x^8
    while n > 0 {
        if n & 1 == 1 {
            result = multiply(result, square);
        }
        square = multiply(square, square);
        n >>= 1;
    }
    result
}

/// x^0.
const ONE: u32 = 1 << 31;

/// The product of two polynomials modulo the polynomial.
fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for bit in (0..32).rev() {
        // Without branches, which would be mispredicted half of the time.
        product ^= b & 0_u32.wrapping_sub((a >> bit) & 1);
        b = (b >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(b & 1));
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn joined_checksum_is_the_checksum_of_the_joined(
            first in proptest::collection::vec(any::<u8>(), 0..100),
            second in proptest::collection::vec(any::<u8>(), 0..6000),
        ) {
            let whole = append(append(0, &first), &second);
            let parts = (append(0, &first), append(0, &second));
            let mut joiner = Joiner::default();
            let len = second.len() as u64;
            prop_assert_eq!(joiner.join(parts.0, parts.1, len), whole);
            prop_assert_eq!(joiner.join(parts.0, parts.1, len), whole);
        }
    }
}
