//! The rows of the key space, and how etcd would spell them.
//!
//! | table | key | value |
//! |---|---|---|
//! | `Live` | user key | main, sub, then a put |
//! | `Version` | escaped user key, main and sub descending | a put, or the mark of a tombstone |
//! | `Revision` | main, sub | flags, superseded revision, length and sum of etcd's row, running digest, user key |
//! | `LeaseKey` | lease, user key | nothing |
//!
//! A put is flags, create revision, version, lease, value. Numbers are varints unless a key needs their order.

use bytes::{Buf, Bytes};
use prost::Message;

use crate::{
    codec::{crc, key, varint},
    pb::mvccpb::KeyValue,
    storage::{StorageError, Table},
    types::Revision,
};

/// What one put stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) create: i64,
    pub(super) version: i64,
    pub(super) lease: i64,
    pub(super) value: Bytes,
}

/// A version of a key, with the revision that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) modified: Revision,
    pub(super) put: Put,
}

/// One change, without what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    /// The change removed the key.
    pub(super) tombstone: bool,
    /// The change began a new life of the key.
    pub(super) creates: bool,
    /// The living version that the change replaced or removed.
    pub(super) supersedes: Option<Revision>,
    /// Length of etcd's row: key and value.
    pub(super) len: u64,
    /// CRC-32C of etcd's row: key, then value.
    pub(super) crc: u32,
    /// The running digest of all changes up to and including this one.
    pub(super) digest: u64,
    pub(super) key: Bytes,
}

const HAS_LEASE: u8 = 1;
const TOMBSTONE: u8 = 0x80;

const CREATES: u8 = 1;
const SUPERSEDES: u8 = 2;

impl Put {
    fn len(&self) -> usize {
        let lease = if self.lease == 0 { 0 } else { varint::len(self.lease.cast_unsigned()) };
        1 + number_len(self.create) + number_len(self.version) + lease + self.value.len()
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(if self.lease == 0 { 0 } else { HAS_LEASE });
        put_number(self.create, out);
        put_number(self.version, out);
        if self.lease != 0 {
            put_number(self.lease, out);
        }
        out.extend_from_slice(&self.value);
    }

    /// The value of a `Version` row.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        self.encode_into(&mut out);
        out
    }

    /// Reads the put that `rest` is, the end of `row`; the value shares its memory.
    fn decode(mut row: Bytes, rest: usize) -> Option<Self> {
        row.advance(row.len().checked_sub(rest)?);
        let (flags, mut rest) = row.split_first()?;
        let create = take_number(&mut rest)?;
        let version = take_number(&mut rest)?;
        let lease = match *flags {
            0 => 0,
            HAS_LEASE => take_number(&mut rest)?,
            _ => return None,
        };
        let header = row.len() - rest.len();
        row.advance(header);
        Some(Self { create, version, lease, value: row })
    }
}

impl Version {
    /// The value of a `Live` row.
    pub(super) fn encode_live(&self) -> Bytes {
        let Revision { main, sub } = self.modified;
        let mut out = Vec::with_capacity(number_len(main) + number_len(sub) + self.put.len());
        put_number(main, &mut out);
        put_number(sub, &mut out);
        self.put.encode_into(&mut out);
        out.into()
    }

    /// Reads the value of the `Live` row of `key`.
    pub(super) fn decode_live(key: &[u8], row: Bytes) -> Result<Self, StorageError> {
        Self::read_live(row).ok_or_else(|| StorageError::corrupt(Table::Live, key, "the version does not decode"))
    }

    fn read_live(row: Bytes) -> Option<Self> {
        let mut rest = row.as_ref();
        let modified = Revision { main: take_number(&mut rest)?, sub: take_number(&mut rest)? };
        let rest = rest.len();
        Some(Self { modified, put: Put::decode(row, rest)? })
    }

    /// The value of a `Version` row.
    pub(super) fn encode_superseded(&self) -> Bytes {
        self.put.encode().into()
    }

    /// The pair as clients see it.
    pub(super) fn key_value(&self, key: Bytes) -> KeyValue {
        self.clone().into_key_value(key)
    }

    /// The pair as clients see it.
    pub(super) fn into_key_value(self, key: Bytes) -> KeyValue {
        let Self { modified, put: Put { create, version, lease, value } } = self;
        KeyValue { key, create_revision: create, mod_revision: modified.main, version, value, lease }
    }
}

/// The value of the `Version` row of a tombstone.
pub(super) fn tombstone() -> Bytes {
    Bytes::from_static(&[TOMBSTONE])
}

/// Reads the value of a `Version` row: what the put stored, or nothing for a tombstone.
pub(super) fn decode_superseded(row_key: &[u8], row: Bytes) -> Result<Option<Put>, StorageError> {
    if row.as_ref() == [TOMBSTONE] {
        return Ok(None);
    }
    let whole = row.len();
    let put = Put::decode(row, whole);
    put.map(Some).ok_or_else(|| StorageError::corrupt(Table::Version, row_key, "the version does not decode"))
}

impl Trace {
    /// By how much the change raised the number of living keys. The tombstone that a file from elsewhere begins with
    /// removed nothing.
    pub(super) fn growth(&self) -> i64 {
        i64::from(self.creates) - i64::from(self.tombstone && self.supersedes.is_some())
    }

    /// Whether it is no change of a key, but the mark of `snapshot restore --bump-revision`, which has no version.
    pub(super) fn is_bump(&self) -> bool {
        self.key.is_empty()
    }

    /// The value of a `Revision` row.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(40 + self.key.len());
        out.push(
            u8::from(self.creates) * CREATES
                + u8::from(self.supersedes.is_some()) * SUPERSEDES
                + u8::from(self.tombstone) * TOMBSTONE,
        );
        if let Some(Revision { main, sub }) = self.supersedes {
            put_number(main, &mut out);
            put_number(sub, &mut out);
        }
        varint::put(self.len, &mut out);
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&self.digest.to_le_bytes());
        out.extend_from_slice(&self.key);
        out.into()
    }

    /// Reads the value of the `Revision` row at `revision`.
    pub(super) fn decode(revision: Revision, row: Bytes) -> Result<Self, StorageError> {
        Self::read(row).ok_or_else(|| {
            StorageError::corrupt(Table::Revision, revision.to_string().as_bytes(), "it does not decode")
        })
    }

    fn read(mut row: Bytes) -> Option<Self> {
        let (flags, mut rest) = row.split_first()?;
        if flags & !(CREATES | SUPERSEDES | TOMBSTONE) != 0 {
            return None;
        }
        let supersedes = match flags & SUPERSEDES {
            0 => None,
            _ => Some(Revision { main: take_number(&mut rest)?, sub: take_number(&mut rest)? }),
        };
        let len = varint::take(&mut rest)?;
        let (crc, rest) = rest.split_first_chunk()?;
        let (digest, rest) = rest.split_first_chunk()?;
        let (tombstone, creates) = (flags & TOMBSTONE != 0, flags & CREATES != 0);
        let (crc, digest) = (u32::from_le_bytes(*crc), u64::from_le_bytes(*digest));
        let header = row.len() - rest.len();
        row.advance(header);
        Some(Self { tombstone, creates, supersedes, len, crc, digest, key: row })
    }
}

/// Key of the `Version` row of `key` written at `revision`.
pub(super) fn version_key(key: &[u8], revision: Revision) -> Bytes {
    let mut out = version_prefix(key);
    out.extend_from_slice(&(!revision.main.cast_unsigned()).to_be_bytes());
    out.extend_from_slice(&(!revision.sub.cast_unsigned()).to_be_bytes());
    out.into()
}

/// What the keys of all `Version` rows of `key` begin with.
pub(super) fn version_prefix(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 20);
    out.push(Table::Version.prefix());
    key::escape_into(key, &mut out);
    out
}

/// First key of the `Version` table whose user key is `key` or above.
pub(super) fn version_from(key: &[u8]) -> Vec<u8> {
    version_prefix(key)
}

/// Splits the key of a `Version` row into user key and revision.
pub(super) fn split_version_key(row_key: &Bytes) -> Result<(Bytes, Revision), StorageError> {
    let split = || {
        let (key, rest) = key::unescape(&row_key.slice(1.min(row_key.len())..))?;
        let (main, rest) = rest.split_first_chunk()?;
        let sub = rest.try_into().ok()?;
        let number = |bytes: [u8; 8]| (!u64::from_be_bytes(bytes)).cast_signed();
        Some((key, Revision { main: number(*main), sub: number(sub) }))
    };
    split().ok_or_else(|| StorageError::corrupt(Table::Version, row_key, "the key does not decode"))
}

/// Key of the `Revision` row at `revision`.
pub(super) fn revision_key(revision: Revision) -> [u8; 17] {
    let mut key = [Table::Revision.prefix(); 17];
    let (main, sub) = (revision.main.to_be_bytes(), revision.sub.to_be_bytes());
    for (to, from) in key.iter_mut().skip(1).zip(main.iter().chain(&sub)) {
        *to = *from;
    }
    key
}

/// Reads the key of a `Revision` row.
pub(super) fn split_revision_key(row_key: &[u8]) -> Result<Revision, StorageError> {
    let split = || {
        let (main, rest) = row_key.get(1..)?.split_first_chunk()?;
        Some(Revision { main: i64::from_be_bytes(*main), sub: i64::from_be_bytes(rest.try_into().ok()?) })
    };
    split().ok_or_else(|| StorageError::corrupt(Table::Revision, row_key, "the key does not decode"))
}

/// Key of the `LeaseKey` row that attaches `key` to `lease`.
pub(super) fn lease_key(lease: i64, key: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(9 + key.len());
    out.push(Table::LeaseKey.prefix());
    out.extend_from_slice(&lease.to_be_bytes());
    out.extend_from_slice(key);
    out.into()
}

/// The key etcd gives a change in its bucket `key`: 17 bytes, or 18 for a tombstone.
pub(super) fn etcd_key(revision: Revision, tombstone: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&revision.main.to_be_bytes());
    out.push(b'_');
    out.extend_from_slice(&revision.sub.to_be_bytes());
    if tombstone {
        out.push(b't');
    }
}

/// The value etcd stores for a tombstone of `key`.
pub(super) fn etcd_tombstone(key: Bytes) -> KeyValue {
    KeyValue { key, ..KeyValue::default() }
}

/// Length and CRC-32C of the row that etcd stores for a change, computed in `scratch`.
pub(super) fn etcd_sum(revision: Revision, tombstone: bool, pair: &KeyValue, scratch: &mut Vec<u8>) -> (u64, u32) {
    scratch.clear();
    etcd_key(revision, tombstone, scratch);
    // Encoding into a vector cannot run out of space.
    let encoded = pair.encode(scratch);
    debug_assert!(encoded.is_ok(), "a vector grows");
    (scratch.len() as u64, crc::append(0, scratch))
}

fn number_len(number: i64) -> usize {
    varint::len(number.cast_unsigned())
}

fn put_number(number: i64, out: &mut Vec<u8>) {
    varint::put(number.cast_unsigned(), out);
}

fn take_number(bytes: &mut &[u8]) -> Option<i64> {
    varint::take(bytes).map(u64::cast_signed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn revision() -> impl Strategy<Value = Revision> {
        (0..i64::MAX, 0..1000_i64).prop_map(|(main, sub)| Revision { main, sub })
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
    }

    proptest! {
        #[test]
        fn rows_come_back(
            modified in revision(), create in any::<i64>(), version in any::<i64>(), lease in any::<i64>(),
            key in bytes(), value in bytes(), supersedes in proptest::option::of(revision()), creates in any::<bool>(),
        ) {
            let whole = Version { modified, put: Put { create, version, lease, value } };
            prop_assert_eq!(&Version::decode_live(&key, whole.encode_live()).unwrap(), &whole);
            prop_assert_eq!(decode_superseded(&key, whole.encode_superseded()).unwrap(), Some(whole.put.clone()));
            prop_assert_eq!(split_version_key(&version_key(&key, modified)).unwrap(), (key.clone(), modified));
            prop_assert_eq!(split_revision_key(&revision_key(modified)).unwrap(), modified);
            let trace = Trace {
                tombstone: !creates, creates, supersedes, len: 300, crc: 7, digest: create.cast_unsigned(), key,
            };
            prop_assert_eq!(Trace::decode(modified, trace.encode()).unwrap(), trace);
        }

        #[test]
        fn any_bytes_are_survived(row in bytes()) {
            drop((Version::decode_live(b"k", row.clone()), decode_superseded(b"k", row.clone()), split_version_key(&row)));
            drop((Trace::decode(Revision::default(), row.clone()), split_revision_key(&row)));
        }

        #[test]
        fn newer_versions_come_first_and_keys_stay_together(a in revision(), b in revision(), key in bytes()) {
            prop_assert_eq!(version_key(&key, a).cmp(&version_key(&key, b)), b.cmp(&a));
            prop_assert_eq!(revision_key(a).cmp(&revision_key(b)), a.cmp(&b));
        }
    }

    #[test]
    fn tombstone_is_no_put() {
        assert_eq!(decode_superseded(b"k", tombstone()).unwrap(), None);
    }

    #[test]
    fn etcd_rows_leave_out_what_is_zero() {
        let pair = KeyValue { key: "k".into(), create_revision: 2, mod_revision: 3, version: 1, ..KeyValue::default() };
        let mut row = Vec::new();
        etcd_key(Revision { main: 3, sub: 0 }, false, &mut row);
        let key_len = row.len();
        row.extend(pair.encode_to_vec());
        assert_eq!(key_len, 17);
        assert_eq!(&row[key_len..], b"\x0a\x01k\x10\x02\x18\x03\x20\x01");
        let sum = etcd_sum(Revision { main: 3, sub: 0 }, false, &pair, &mut Vec::new());
        assert_eq!(sum, (row.len() as u64, crc::append(0, &row)));
    }
}
