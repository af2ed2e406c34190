//! One number for everything that entries have changed, cheap enough to be always there.
//!
//! Each entry has a digest of its own: of its place and of what it changed, from the sums that are made of rows anyway. The
//! running digest is their sum. So it does not depend on how entries are grouped, and what two members have changed from
//! one entry to another can be compared even if their digests begin at different entries: the differences must be equal.
//!
//! A difference proves that two members went apart. What may differ without harm is left out: times to live, which depend
//! on a member's options; raft's configuration, which founders have before their log says so; what remains of leases.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::{
    pb::raftpb::Entry,
    storage::Table,
    types::{LogIndex, Term},
};

/// Grows when the digest is made of other things: different forms cannot be compared.
pub const DIGEST_FORM: u32 = 1;
const DIGEST_BYTES: usize = 16;

/// What was changed by the entries after one up to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// The entry behind which it begins: none, or the one at which the state came from an etcd database.
    pub since: LogIndex,
    /// The sum of the digests of the entries.
    pub sum: u64,
}

impl Digest {
    /// Of no entry after `index`.
    pub(super) fn begin(index: LogIndex) -> Self {
        Self { since: index, sum: 0 }
    }

    pub(super) fn add(&mut self, entry: EntryDigest) {
        self.sum = self.sum.wrapping_add(entry.0);
    }

    pub(super) fn encode(self) -> Bytes {
        let mut row = BytesMut::with_capacity(DIGEST_BYTES);
        row.put_u64(self.since.0);
        row.put_u64(self.sum);
        row.freeze()
    }

    pub(super) fn decode(mut row: Bytes) -> Option<Self> {
        (row.len() == DIGEST_BYTES).then(|| Self { since: LogIndex(row.get_u64()), sum: row.get_u64() })
    }
}

/// The digest of one entry, in the making.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EntryDigest(u64);

impl EntryDigest {
    /// Of an entry that changes nothing.
    pub(super) fn of(entry: &Entry) -> Self {
        let mut digest = Self(0);
        digest.number(LogIndex(entry.index).0);
        digest.number(Term(entry.term).0);
        digest
    }

    pub(super) fn number(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }

    /// A row that was set, or removed.
    pub(super) fn row(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        self.number(u64::from(table.prefix()) << 1 | u64::from(value.is_some()));
        for part in [key, value.unwrap_or_default()] {
            self.number((u64::try_from(part.len()).unwrap_or(u64::MAX) << 32) | u64::from(crc32c::crc32c(part)));
        }
    }
}

/// Spreads every bit over all others: the finish of the generator `SplitMix64`.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(index: u64, rows: &[(&str, Option<&str>)]) -> EntryDigest {
        let mut digest = EntryDigest::of(&Entry { index, term: 1, ..Entry::default() });
        for (key, value) in rows {
            digest.row(Table::Alarm, key.as_bytes(), value.map(str::as_bytes));
        }
        digest
    }

    #[test]
    fn entry_is_known_by_its_place_its_rows_and_their_order() {
        let (a, b) = (("a", Some("1")), ("b", None));
        let different = [of(1, &[]), of(2, &[]), of(1, &[a]), of(1, &[b]), of(1, &[a, b]), of(1, &[b, a])];
        for (number, one) in different.iter().enumerate() {
            assert!(different.iter().skip(number + 1).all(|other| other.0 != one.0), "{number}");
        }
        assert_ne!(of(1, &[("a", Some(""))]).0, of(1, &[("a", None)]).0);
    }

    #[test]
    fn differences_are_equal_wherever_digests_begin() {
        let (mut whole, mut late) = (Digest::default(), Digest::begin(LogIndex(1)));
        whole.add(of(1, &[("a", None)]));
        let apart = whole.sum.wrapping_sub(late.sum);
        for index in 2..9 {
            whole.add(of(index, &[]));
            late.add(of(index, &[]));
            assert_eq!(whole.sum.wrapping_sub(late.sum), apart);
        }
        assert_eq!(Digest::decode(late.encode()), Some(late));
        assert_eq!(Digest::decode(late.encode().slice(1..)), None);
    }
}
