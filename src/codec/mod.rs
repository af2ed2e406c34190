//! Encodings that more than one module needs: order-preserving keys, varints, sums of joined byte strings.

pub mod key;
