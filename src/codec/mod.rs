//! Encodings that more than one module needs: order-preserving keys, varints, checksums of joined byte strings.

pub mod crc;
pub mod key;
pub mod varint;
