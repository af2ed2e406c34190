//! The rows of the tree.
//!
//! ```text
//! n  escaped path of the parent, name     node               children of a directory stand together, by name
//! t  expiry (i64, order-preserving), path of the node    -    what expires next stands first
//! e  index (u64 BE)                       event
//! i                                       index of the last change (u64 BE)
//! o                                       oldest index to be watched from (u64 BE), once events were too many bytes
//! q  member (u64 BE)                      -                  members that are known to understand such requests
//! ```

use std::ops::Bound;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message;

use super::{Nanos, Path};
use crate::{
    codec::key::escape_into,
    storage::{Read, StorageError, Table},
    types::MemberId,
};

const NODE: u8 = b'n';
const EXPIRY: u8 = b't';
const EVENT: u8 = b'e';
const MEMBER: u8 = b'q';
/// The row that says where the store stands. Without it no request of the v2 API was ever carried out.
pub(super) const INDEX: &[u8] = b"i";
/// The row that says which events are gone because they were too many bytes.
pub(super) const OLDEST: &[u8] = b"o";
/// Turns an order of signed numbers into one of unsigned ones.
const SIGN: u64 = 1 << 63;

/// A node as it is stored.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(uint64, tag = "1")]
    pub(super) created: u64,
    #[prost(uint64, tag = "2")]
    pub(super) modified: u64,
    /// Zero: it stays.
    #[prost(sint64, tag = "3")]
    pub(super) expiration: Nanos,
    #[prost(bool, tag = "4")]
    pub(super) dir: bool,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) value: Bytes,
}

impl Node {
    pub(super) fn directory(index: u64, expiration: Nanos) -> Self {
        Self { created: index, modified: index, expiration, dir: true, value: Bytes::new() }
    }

    pub(super) fn file(value: Bytes, index: u64, expiration: Nanos) -> Self {
        Self { created: index, modified: index, expiration, dir: false, value }
    }

    /// What is left when only its place matters.
    pub(super) fn without_value(self) -> Self {
        Self { value: Bytes::new(), ..self }
    }

    pub(super) fn read(key: &[u8], row: Bytes) -> Result<Self, StorageError> {
        Self::decode(row).map_err(|_| damaged(key))
    }
}

pub(super) fn damaged(key: &[u8]) -> StorageError {
    StorageError::corrupt(Table::V2, key, "a row of the v2 tree does not decode")
}

/// The row of a node.
pub(super) fn node_key(path: &Path) -> Vec<u8> {
    let (parent, name) = path.split();
    let mut key = children_key(parent);
    key.extend_from_slice(name);
    key
}

/// What the rows of all children of `directory` begin with.
fn children_key(directory: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(directory.len() + 16);
    key.push(NODE);
    escape_into(directory, &mut key);
    key
}

/// The children of a directory, by name: all of them, or those behind one.
pub(super) fn children<'a>(
    rows: &'a impl Read,
    directory: &'a Path,
    after: Option<&Path>,
) -> impl Iterator<Item = Result<(Path, Node), StorageError>> + 'a {
    let first = Table::V2.key(&children_key(directory.as_bytes()));
    let after = after.map(|child| Table::V2.key(&node_key(child)));
    // The end mark of the escaped path is the last byte, and is not the highest.
    let mut behind = first.to_vec();
    if let Some(last) = behind.last_mut() {
        *last += 1;
    }
    let lower = after.as_ref().map_or(Bound::Included(first.as_ref()), |after| Bound::Excluded(after.as_ref()));
    let found = rows.scan(lower, Bound::Excluded(&behind));
    found.map(move |row| {
        let (key, value) = row?;
        let name = key.get(first.len()..).unwrap_or_default();
        Ok((directory.child(name), Node::read(&key, value)?))
    })
}

/// The row of a node that expires.
pub(super) fn expiry_key(expiration: Nanos, path: &Path) -> Vec<u8> {
    let mut key = vec![EXPIRY];
    key.put_u64(expiration.cast_unsigned() ^ SIGN);
    key.extend_from_slice(path.as_bytes());
    key
}

/// What expires, in that order.
pub(super) fn expiries(rows: &impl Read) -> impl Iterator<Item = Result<(Nanos, Path), StorageError>> {
    let (first, behind) = (Table::V2.key(&[EXPIRY]), Table::V2.key(&[EXPIRY + 1]));
    let found = rows.scan(Bound::Included(&first), Bound::Excluded(&behind));
    found.map(move |row| {
        let (key, _) = row?;
        let mut rest = key.slice(first.len()..);
        if rest.len() <= size_of::<u64>() {
            return Err(damaged(&key));
        }
        let expiration = (rest.get_u64() ^ SIGN).cast_signed();
        Ok((expiration, Path::stored(rest)))
    })
}

/// The row of the event of an index.
pub(super) fn event_key(index: u64) -> Vec<u8> {
    let mut key = vec![EVENT];
    key.put_u64(index);
    key
}

/// The rows of the events from one index on, in order.
pub(super) fn events(rows: &impl Read, from: u64) -> impl Iterator<Item = Result<(Bytes, Bytes), StorageError>> + '_ {
    let (first, behind) = (Table::V2.key(&event_key(from)), Table::V2.key(&[EVENT + 1]));
    rows.scan(Bound::Included(&first), Bound::Excluded(&behind))
}

/// The rows of all events, the newest first.
pub(super) fn events_back(rows: &impl Read) -> impl Iterator<Item = Result<(Bytes, Bytes), StorageError>> + '_ {
    let (first, behind) = (Table::V2.key(&[EVENT]), Table::V2.key(&[EVENT + 1]));
    rows.scan_back(Bound::Included(&first), Bound::Excluded(&behind))
}

/// The index of the event whose row has this key.
pub(super) fn event_index(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|number| u64::from_be_bytes(*number))
}

/// The row of a member that understands requests of the v2 API.
pub(super) fn member_key(member: MemberId) -> Vec<u8> {
    let mut key = vec![MEMBER];
    key.put_u64(member.0);
    key
}

/// Where the store stands, if anything was ever carried out.
pub(super) fn index(rows: &impl Read) -> Result<Option<u64>, StorageError> {
    number(rows, INDEX)
}

/// The oldest index that the number of bytes has left; zero if they never were too many.
pub(super) fn oldest(rows: &impl Read) -> Result<u64, StorageError> {
    Ok(number(rows, OLDEST)?.unwrap_or_default())
}

fn number(rows: &impl Read, key: &[u8]) -> Result<Option<u64>, StorageError> {
    let Some(row) = rows.row(Table::V2, key)? else { return Ok(None) };
    let number = row.as_ref().try_into().map_err(|_| damaged(key))?;
    Ok(Some(u64::from_be_bytes(number)))
}
