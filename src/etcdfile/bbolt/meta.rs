//! The meta pages, and which of them counts.

use bytes::{Buf, BufMut};

use super::{
    BboltError,
    layout::{HEADER_BYTES, Header, META},
};
use crate::disk::DiskFile;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// In the place of the free list's page: there is none, and whoever wants to write finds the free pages by a walk.
const NO_FREE_LIST: u64 = u64::MAX;
/// Bytes that the checksum covers.
const SUMMED_BYTES: usize = 56;
/// Bytes from the page's beginning to the checksum's end.
const META_BYTES: usize = HEADER_BYTES + SUMMED_BYTES + 8;
/// Smallest and largest page of a file, as powers of two: 1 KiB, and 64 KiB, the largest of any machine etcd runs on.
const PAGE_BITS: std::ops::RangeInclusive<u32> = 10..=16;
/// The first pages that can hold a tree.
pub(super) const FIRST_PAGE: u64 = 2;

/// What a meta page says of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_bytes: u32,
    /// Page of the tree of buckets.
    pub(super) root: u64,
    /// Number of pages in use.
    pub(super) pages: u64,
    pub(super) transaction: u64,
}

impl Meta {
    /// The meta page of `file` that counts.
    pub(super) fn find<F: DiskFile>(file: &F) -> Result<Self, BboltError> {
        let size = file.size().map_err(BboltError::io("measure"))?;
        let metas = Self::candidates(file)?;
        let newest = metas.into_iter().max_by_key(|meta| meta.transaction).ok_or(BboltError::NoMeta)?;
        match newest.pages.checked_mul(newest.page_bytes.into()) {
            Some(need) if need <= size => newest.check(),
            need => Err(BboltError::Truncated { have: size, need: need.unwrap_or(u64::MAX) }),
        }
    }

    /// The first meta page, which tells where the second one is, or wherever a second one can be.
    fn candidates<F: DiskFile>(file: &F) -> Result<Vec<Self>, BboltError> {
        let at = |bits: u32| Ok(Self::load(file, 1 << bits)?.filter(|meta| meta.page_bytes == 1 << bits));
        if let Some(first) = Self::load(file, 0)? {
            let second = at(first.page_bytes.ilog2())?;
            return Ok([first].into_iter().chain(second).collect());
        }
        PAGE_BITS.filter_map(|bits| at(bits).transpose()).collect()
    }

    fn load<F: DiskFile>(file: &F, offset: u64) -> Result<Option<Self>, BboltError> {
        let mut bytes = [0; META_BYTES];
        let read = file.read_at(&mut bytes, offset).map_err(BboltError::io("read"))?;
        Ok(bytes.get(..read).and_then(Self::read))
    }

    /// Reads the page in `bytes`; nothing if it is no valid meta page.
    fn read(bytes: &[u8]) -> Option<Self> {
        let header = Header::read(bytes)?;
        let mut summed = bytes.get(HEADER_BYTES..HEADER_BYTES + SUMMED_BYTES)?;
        let sum = u64::from_le_bytes(bytes.get(HEADER_BYTES + SUMMED_BYTES..META_BYTES)?.try_into().ok()?);
        let sound = header.flags == META && fnv(summed) == sum;
        let known = summed.get_u32_le() == MAGIC && summed.get_u32_le() == VERSION;
        let page_bytes = summed.get_u32_le();
        summed.advance(4); // flags, always zero
        let root = summed.get_u64_le();
        summed.advance(16); // the root bucket's sequence, always zero; where the free list is, which is not looked at
        let (pages, transaction) = (summed.get_u64_le(), summed.get_u64_le());
        let meta = Self { page_bytes, root, pages, transaction };
        (sound && known && meta.has_page_size()).then_some(meta)
    }

    fn has_page_size(&self) -> bool {
        self.page_bytes.is_power_of_two() && PAGE_BITS.contains(&self.page_bytes.ilog2())
    }

    fn check(self) -> Result<Self, BboltError> {
        if (FIRST_PAGE..self.pages).contains(&self.root) {
            return Ok(self);
        }
        let page = self.transaction % 2;
        Err(BboltError::Page { page, what: "the root of the tree is not among the pages" })
    }

    /// The page that holds this.
    pub(super) fn to_page(self) -> Vec<u8> {
        let mut page = Vec::with_capacity(self.page_bytes as usize);
        Header { id: self.transaction % 2, flags: META, count: 0, overflow: 0 }.put(&mut page);
        page.put_u32_le(MAGIC);
        page.put_u32_le(VERSION);
        page.put_u32_le(self.page_bytes);
        page.put_u32_le(0);
        page.put_u64_le(self.root);
        page.put_u64_le(0);
        page.put_u64_le(NO_FREE_LIST);
        page.put_u64_le(self.pages);
        page.put_u64_le(self.transaction);
        let sum = fnv(page.get(HEADER_BYTES..).unwrap_or_default());
        page.put_u64_le(sum);
        page.resize(self.page_bytes as usize, 0);
        page
    }
}

/// FNV-1a of 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes.iter().fold(BASIS, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_fnv_1a() {
        // The vectors of the algorithm's authors.
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn page_reads_as_written() {
        let meta = Meta { page_bytes: 4_096, root: 7, pages: 9, transaction: 2 };
        assert_eq!(Meta::read(&meta.to_page()), Some(meta));
        let mut damaged = meta.to_page();
        damaged[40] ^= 1;
        assert_eq!(Meta::read(&damaged), None);
    }
}
