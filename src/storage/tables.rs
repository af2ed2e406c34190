//! The tables of the one key space, by prefix byte. The bytes are part of the on-disk format and never change.

use bytes::{BufMut, Bytes, BytesMut};

/// A table of the replicated state. The comments name the key after the prefix byte, and the owner of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// A name; `mvcc` (compaction), `apply` (applied index, conf state), `membership` (versions, ids).
    Meta = 0x01,
    /// The user key as it is; `mvcc`. The newest version of every living key.
    Live = 0x10,
    /// Escaped user key, main and sub descending; `mvcc`. Superseded versions and tombstones.
    Version = 0x11,
    /// Main, sub ascending; `mvcc`. One row for every change that compaction has not removed.
    Revision = 0x12,
    /// First key of a chunk of neighbouring keys; `mvcc`. The number of living keys in the chunk.
    Count = 0x13,
    /// Lease ID (u64 BE), as etcd's bucket; `lease`.
    Lease = 0x20,
    /// Lease ID (u64 BE), user key; `mvcc`. The keys attached to a lease.
    LeaseKey = 0x21,
    /// Encoded `AlarmMember`, as etcd's bucket; `apply`.
    Alarm = 0x30,
    /// Member ID as etcd's bucket spells it; `membership`.
    Member = 0x31,
    /// Member ID as etcd's bucket spells it; `membership`.
    Removed = 0x32,
    /// `clusterVersion`, `downgrade`, as etcd's bucket; `membership`.
    Cluster = 0x33,
    /// `authEnabled`, `authRevision`, as etcd's bucket; `auth`.
    Auth = 0x40,
    /// User name, as etcd's bucket; `auth`.
    AuthUser = 0x41,
    /// Role name, as etcd's bucket; `auth`.
    AuthRole = 0x42,
    /// v2 tree; `v2store`.
    V2 = 0x50,
}

impl Table {
    /// Every table, in the order of its prefix byte.
    pub const ALL: [Self; 15] = [
        Self::Meta,
        Self::Live,
        Self::Version,
        Self::Revision,
        Self::Count,
        Self::Lease,
        Self::LeaseKey,
        Self::Alarm,
        Self::Member,
        Self::Removed,
        Self::Cluster,
        Self::Auth,
        Self::AuthUser,
        Self::AuthRole,
        Self::V2,
    ];

    /// The byte every key of the table begins with.
    pub const fn prefix(self) -> u8 {
        self as u8
    }

    /// The full key of the row `rest`.
    pub fn key(self, rest: &[u8]) -> Bytes {
        let mut key = BytesMut::with_capacity(rest.len() + 1);
        key.put_u8(self.prefix());
        key.put_slice(rest);
        key.freeze()
    }

    /// First possible key, and first key behind the table.
    pub const fn bounds(self) -> ([u8; 1], [u8; 1]) {
        ([self.prefix()], [self.prefix() + 1])
    }
}
