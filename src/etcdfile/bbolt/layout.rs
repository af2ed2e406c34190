//! Pages and their elements as bytes, little-endian.

use bytes::{Buf, BufMut, Bytes};

/// Bytes of a page's header.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of an element in a page's table.
pub(super) const ELEMENT_BYTES: usize = 16;
/// Bytes before the page that an inline bucket's value holds: root page (zero) and sequence.
pub(super) const BUCKET_BYTES: usize = 16;
/// Flag of a page whose elements point at pages.
pub(super) const BRANCH: u16 = 0x01;
/// Flag of a page whose elements are rows.
pub(super) const LEAF: u16 = 0x02;
/// Flag of a meta page.
pub(super) const META: u16 = 0x04;
/// Flag of an element whose value is a bucket.
pub(super) const BUCKET: u32 = 0x01;

/// What a page says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u64,
    pub(super) flags: u16,
    pub(super) count: u16,
    /// Further pages that belong to this one.
    pub(super) overflow: u32,
}

impl Header {
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= HEADER_BYTES).then(|| Self {
            id: bytes.get_u64_le(),
            flags: bytes.get_u16_le(),
            count: bytes.get_u16_le(),
            overflow: bytes.get_u32_le(),
        })
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.put_u64_le(self.id);
        out.put_u16_le(self.flags);
        out.put_u16_le(self.count);
        out.put_u32_le(self.overflow);
    }

    /// Bytes of header and element table.
    pub(super) fn table_end(self) -> usize {
        HEADER_BYTES + ELEMENT_BYTES * usize::from(self.count)
    }
}

/// An element of a branch page. `at` counts from the element's own beginning to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BranchElement {
    pub(super) at: u32,
    pub(super) key_len: u32,
    pub(super) child: u64,
}

/// An element of a leaf page. `at` counts from the element's own beginning to its key, which the value follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeafElement {
    pub(super) flags: u32,
    pub(super) at: u32,
    pub(super) key_len: u32,
    pub(super) value_len: u32,
}

impl BranchElement {
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= ELEMENT_BYTES).then(|| Self {
            at: bytes.get_u32_le(),
            key_len: bytes.get_u32_le(),
            child: bytes.get_u64_le(),
        })
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.put_u32_le(self.at);
        out.put_u32_le(self.key_len);
        out.put_u64_le(self.child);
    }
}

impl LeafElement {
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= ELEMENT_BYTES).then(|| Self {
            flags: bytes.get_u32_le(),
            at: bytes.get_u32_le(),
            key_len: bytes.get_u32_le(),
            value_len: bytes.get_u32_le(),
        })
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.put_u32_le(self.flags);
        out.put_u32_le(self.at);
        out.put_u32_le(self.key_len);
        out.put_u32_le(self.value_len);
    }
}

/// The value of a bucket's element: its root page, and a sequence that etcd does not use.
pub(super) fn bucket_value(root: u64) -> Bytes {
    let mut value = Vec::with_capacity(BUCKET_BYTES);
    value.put_u64_le(root);
    value.put_u64_le(0);
    value.into()
}

/// The root page of a bucket; zero for one that follows inline.
pub(super) fn bucket_root(mut value: &[u8]) -> Option<u64> {
    (value.len() >= BUCKET_BYTES).then(|| value.get_u64_le())
}
