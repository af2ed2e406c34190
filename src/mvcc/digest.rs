//! One number for all changes so far.
//!
//! Every row of the `Revision` table holds the digest of all changes up to its own. Two members that applied the same
//! changes from the same beginning have the same digest at the same revision; a difference proves that one of them went
//! astray at or before it. It follows from etcd's sums of rows, so it does not depend on how rows are stored.

/// The digest after one more change, whose row in etcd has `len` bytes and the checksum `crc`.
pub(super) fn extend(digest: u64, len: u64, crc: u32) -> u64 {
    // A multiplicative hash: the constant is 2^64 divided by the golden ratio, and odd.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = (digest ^ u64::from(crc) ^ (len << 32)).wrapping_mul(SPREAD);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_depends_on_every_change_and_their_order() {
        let one_two = extend(extend(0, 30, 1), 30, 2);
        assert_ne!(one_two, extend(extend(0, 30, 2), 30, 1));
        assert_ne!(one_two, extend(extend(0, 31, 1), 30, 2));
        assert_ne!(one_two, extend(0, 30, 2));
    }
}
