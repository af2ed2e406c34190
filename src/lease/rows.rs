//! A lease as etcd's bucket stores it.

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use crate::{pb::leasepb, types::LeaseId};

/// The stored half of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// Never zero.
    pub id: LeaseId,
    /// The granted time to live in seconds.
    pub ttl: i64,
    /// Seconds left at the last checkpoint; zero if there was none since the last renewal.
    pub remaining: i64,
}

/// A lease row that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("lease row {key} is damaged")]
pub struct LeaseRowError {
    /// The row's key, escaped for printing.
    pub key: String,
}

impl LeaseRow {
    /// The row's key: the identifier, big endian.
    pub fn key_of(id: LeaseId) -> [u8; 8] {
        id.0.to_be_bytes()
    }

    /// The row's value, byte for byte etcd's.
    pub fn value(&self) -> Bytes {
        let Self { id, ttl, remaining } = *self;
        leasepb::Lease { id: id.0, ttl, remaining_ttl: remaining }.encode_to_vec().into()
    }

    /// # Errors
    /// [`LeaseRowError`] if key and value do not belong together or do not decode.
    pub fn read(key: &[u8], value: &[u8]) -> Result<Self, LeaseRowError> {
        let row = leasepb::Lease::decode(value).ok().filter(|lease| lease.id.to_be_bytes() == key);
        let leasepb::Lease { id, ttl, remaining_ttl } =
            row.ok_or_else(|| LeaseRowError { key: key.escape_ascii().to_string() })?;
        Ok(Self { id: LeaseId(id), ttl, remaining: remaining_ttl })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_is_etcds() {
        let row = LeaseRow { id: LeaseId(0x1234), ttl: 60, remaining: 0 };
        assert_eq!(LeaseRow::key_of(row.id), [0, 0, 0, 0, 0, 0, 0x12, 0x34]);
        assert_eq!(row.value().as_ref(), [0x08, 0xb4, 0x24, 0x10, 60]);
        assert_eq!(LeaseRow::read(&LeaseRow::key_of(row.id), &row.value()), Ok(row));
    }

    #[test]
    fn negative_identifiers_are_legal() {
        let row = LeaseRow { id: LeaseId(-2), ttl: 60, remaining: 7 };
        assert_eq!(LeaseRow::key_of(row.id), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(LeaseRow::read(&LeaseRow::key_of(row.id), &row.value()), Ok(row));
    }

    #[test]
    fn damaged_row_is_named() {
        let row = LeaseRow { id: LeaseId(1), ttl: 60, remaining: 0 };
        let refused = LeaseRow::read(&LeaseRow::key_of(LeaseId(2)), &row.value()).unwrap_err();
        assert_eq!(refused.to_string(), r"lease row \x00\x00\x00\x00\x00\x00\x00\x02 is damaged");
        assert!(LeaseRow::read(&[1], b"\xff").is_err());
    }
}
