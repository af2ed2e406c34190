//! What etcd keeps in its database: ten buckets, and the few rows that say where the rest stands.
//!
//! This page knows names, lengths and JSON-free values. What the rows of members, versions and the key space mean belongs
//! to the modules that own them.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::bbolt::{BboltError, Reader};
use crate::{
    codec::crc,
    disk::{DiskFile, SECTOR_BYTES},
};

/// A bucket of etcd's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Raised alarms, as keys.
    Alarm,
    /// `authEnabled`, `authRevision`.
    Auth,
    /// Roles by name.
    AuthRoles,
    /// Users by name.
    AuthUsers,
    /// `clusterVersion`, `downgrade`.
    Cluster,
    /// Every change by revision.
    Key,
    /// Leases by identifier.
    Lease,
    /// Members by hexadecimal identifier, as JSON.
    Members,
    /// Removed members by hexadecimal identifier.
    MembersRemoved,
    /// Where the state stands, by name.
    Meta,
}

impl Bucket {
    /// Every bucket, in the order of the file.
    pub const ALL: [Self; 10] = [
        Self::Alarm,
        Self::Auth,
        Self::AuthRoles,
        Self::AuthUsers,
        Self::Cluster,
        Self::Key,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Meta,
    ];

    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Auth => "auth",
            Self::AuthRoles => "authRoles",
            Self::AuthUsers => "authUsers",
            Self::Cluster => "cluster",
            Self::Key => "key",
            Self::Lease => "lease",
            Self::Members => "members",
            Self::MembersRemoved => "members_removed",
            Self::Meta => "meta",
        }
    }

    /// The bucket of this name.
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|bucket| bucket.name().as_bytes() == name)
    }
}

/// Row of [`Bucket::Meta`]: index of the last applied entry.
pub const INDEX_KEY: &str = "consistent_index";
/// Row of [`Bucket::Meta`]: term of the last applied entry.
pub const TERM_KEY: &str = "term";
/// Row of [`Bucket::Meta`]: the version the file was made for, from 3.6 on.
pub const STORAGE_VERSION_KEY: &str = "storageVersion";
/// Row of [`Bucket::Auth`]: one byte, 1 for on.
pub const AUTH_ENABLED_KEY: &str = "authEnabled";
/// Row of [`Bucket::Auth`]: how often users and roles were changed.
pub const AUTH_REVISION_KEY: &str = "authRevision";
/// What etcd writes as [`AUTH_REVISION_KEY`] into a new database.
pub const AUTH_REVISION_FIRST: u64 = 1;
/// Rows that [`Bucket::Meta`] is read for; etcd knows six.
pub(super) const META_ROWS_MAX: usize = 64;
/// Bytes of the checksum behind the pages of a snapshot file.
pub const TRAILER_BYTES: u64 = 32;
/// The same, as the length of a slice.
const SUM_LEN: usize = 32;
/// Bytes that are summed at a time.
const SUM_BYTES: usize = 1 << 20;

/// Why a file is no database of etcd's that could be taken.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// The file itself is damaged or cannot be read or written.
    #[error(transparent)]
    File(#[from] BboltError),
    /// A bucket that no version of etcd up to 3.7 has.
    #[error("the database has a bucket \"{0}\", which is unknown here: it may hold state that would be lost")]
    UnknownBucket(String),
    /// No key space.
    #[error("the database has no bucket {0}: it is not etcd's")]
    NoBucket(&'static str),
    /// A row that does not decode.
    #[error("row {key} of bucket {bucket} is damaged", bucket = bucket.name())]
    Row {
        /// Where.
        bucket: Bucket,
        /// Which.
        key: &'static str,
    },
    /// A row that etcd does not write.
    #[error("row {key} of bucket {bucket} is damaged: {what}")]
    Change {
        /// The bucket's name.
        bucket: String,
        /// The row's key, escaped for printing.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A database of etcd 3.4 or older.
    #[error("the database does not say at which index and term it stands; start it once with etcd 3.5 or newer")]
    NoPosition,
    /// The checksum behind the pages is not that of the pages.
    #[error("the snapshot file is damaged: its SHA-256 is not the one it carries")]
    Sum,
    /// There is no checksum behind the pages, or something else is.
    #[error(
        "the file has {extra} bytes behind its pages instead of a SHA-256 of 32; a database copied from a data directory has no checksum"
    )]
    NoSum {
        /// Bytes behind the pages.
        extra: u64,
    },
}

/// Where a database stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Index of the last applied entry; not zero.
    pub index: u64,
    /// Its term; not zero.
    pub term: u64,
    /// The version the file was made for; nothing up to 3.5.
    pub storage_version: Option<String>,
}

/// Whether all buckets are known, and the key space is there.
///
/// # Errors
/// [`DatabaseError::UnknownBucket`], [`DatabaseError::NoBucket`], and what is wrong with the file.
pub fn check_buckets<F: DiskFile>(reader: &Reader<F>) -> Result<(), DatabaseError> {
    let names = reader.bucket_names()?;
    if let Some(name) = names.iter().find(|name| Bucket::named(name).is_none()) {
        return Err(DatabaseError::UnknownBucket(name.escape_ascii().to_string()));
    }
    let needed = [Bucket::Key, Bucket::Meta].map(Bucket::name);
    let missing = needed.into_iter().find(|needed| !names.iter().any(|name| name == needed.as_bytes()));
    missing.map_or(Ok(()), |name| Err(DatabaseError::NoBucket(name)))
}

/// Where the database stands.
///
/// # Errors
/// [`DatabaseError::NoPosition`], [`DatabaseError::Row`], and what is wrong with the file.
pub fn position<F: DiskFile>(reader: &Reader<F>) -> Result<Position, DatabaseError> {
    let position = stated_position(reader)?;
    let stands = position.index != 0 && position.term != 0;
    if stands { Ok(position) } else { Err(DatabaseError::NoPosition) }
}

/// What the database says of where it stands, zeros where it does not say.
///
/// # Errors
/// [`DatabaseError::Row`], and what is wrong with the file.
pub fn stated_position<F: DiskFile>(reader: &Reader<F>) -> Result<Position, DatabaseError> {
    let mut position = Position::default();
    for row in reader.bucket(Bucket::Meta.name().as_bytes())?.take(META_ROWS_MAX) {
        let row = row?;
        match row.key.as_ref() {
            key if key == INDEX_KEY.as_bytes() => position.index = number(&row.value, INDEX_KEY)?,
            key if key == TERM_KEY.as_bytes() => position.term = number(&row.value, TERM_KEY)?,
            key if key == STORAGE_VERSION_KEY.as_bytes() => {
                position.storage_version = Some(text(row.value, STORAGE_VERSION_KEY)?);
            }
            _ => {}
        }
    }
    Ok(position)
}

fn number(value: &Bytes, key: &'static str) -> Result<u64, DatabaseError> {
    let bytes = value.as_ref().try_into();
    bytes.map(u64::from_be_bytes).map_err(|_| DatabaseError::Row { bucket: Bucket::Meta, key })
}

fn text(value: Bytes, key: &'static str) -> Result<String, DatabaseError> {
    String::from_utf8(value.into()).map_err(|_| DatabaseError::Row { bucket: Bucket::Meta, key })
}

/// The hash that `etcdutl snapshot status` prints: CRC-32C over each bucket's name and its rows.
///
/// # Errors
/// What is wrong with the file.
pub fn hash<F: DiskFile>(reader: &Reader<F>) -> Result<u32, DatabaseError> {
    let mut sum = 0;
    for name in reader.bucket_names()? {
        sum = crc::append(sum, &name);
        for row in reader.bucket(&name)? {
            let row = row?;
            sum = crc::append(crc::append(sum, &row.key), &row.value);
        }
    }
    Ok(sum)
}

/// Appends the SHA-256 of the first `bytes` of `file`, all its pages, and syncs it: then it is a snapshot file.
///
/// # Errors
/// On failure to read or write.
pub fn seal<F: DiskFile>(file: &F, bytes: u64) -> Result<(), DatabaseError> {
    let sum = sha256(file, bytes)?;
    file.write_at(&sum, bytes).map_err(BboltError::io("write"))?;
    Ok(file.sync().map_err(BboltError::io("sync"))?)
}

/// Checks the SHA-256 behind the pages of a snapshot file.
///
/// # Errors
/// [`DatabaseError::NoSum`], [`DatabaseError::Sum`], failure to read.
pub fn check_seal<F: DiskFile>(reader: &Reader<F>) -> Result<(), DatabaseError> {
    let (file, bytes) = (reader.file(), reader.bytes());
    let extra = file.size().map_err(BboltError::io("measure"))?.saturating_sub(bytes);
    if extra != TRAILER_BYTES {
        return Err(DatabaseError::NoSum { extra });
    }
    let mut carried = [0; 32];
    file.read_at(&mut carried, bytes).map_err(BboltError::io("read"))?;
    if sha256(file, bytes)? == carried { Ok(()) } else { Err(DatabaseError::Sum) }
}

/// The SHA-256 that a snapshot file carries at its end, and the one of everything before. Nothing for a file whose length is
/// that of whole sectors: a database that was copied.
///
/// # Errors
/// Failure to read.
pub fn seals<F: DiskFile>(file: &F) -> Result<Option<(Seal, Seal)>, DatabaseError> {
    let size = file.size().map_err(BboltError::io("measure"))?;
    let Some(bytes) = size.checked_sub(TRAILER_BYTES).filter(|_| has_seal(size)) else { return Ok(None) };
    let mut carried = [0; SUM_LEN];
    file.read_at(&mut carried, bytes).map_err(BboltError::io("read"))?;
    Ok(Some((carried, sha256(file, bytes)?)))
}

/// A SHA-256.
pub type Seal = [u8; SUM_LEN];

/// Checks a snapshot file as it comes, piece by piece.
#[derive(Debug, Default)]
pub struct SealCheck {
    sum: Sha256,
    /// The last bytes, which may be the checksum.
    tail: Vec<u8>,
    bytes: u64,
}

impl SealCheck {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.tail.extend_from_slice(piece);
        let summed = self.tail.len().saturating_sub(SUM_LEN);
        self.sum.update(self.tail.get(..summed).unwrap_or_default());
        self.tail.drain(..summed);
    }

    /// Bytes that have come.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether they end in the SHA-256 of those before.
    ///
    /// # Errors
    /// [`DatabaseError::Sum`].
    pub fn finish(self) -> Result<(), DatabaseError> {
        if self.sum.finalize().as_slice() == self.tail { Ok(()) } else { Err(DatabaseError::Sum) }
    }
}

/// Whether a file of this length ends in a checksum: pages are multiples of a sector.
pub fn has_seal(file_bytes: u64) -> bool {
    file_bytes % SECTOR_BYTES as u64 == TRAILER_BYTES
}

fn sha256<F: DiskFile>(file: &F, bytes: u64) -> Result<[u8; 32], BboltError> {
    let (mut sum, mut at, mut buffer) = (Sha256::new(), 0, vec![0; SUM_BYTES]);
    while at < bytes {
        let wanted = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(SUM_BYTES);
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let read = file.read_at(part, at).map_err(BboltError::io("read"))?;
        if read < wanted {
            return Err(BboltError::Truncated { have: at + read as u64, need: bytes });
        }
        sum.update(part);
        at += wanted as u64;
    }
    Ok(sum.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::{Directory, MemoryDirectory, MemoryFile},
        etcdfile::bbolt::Writer,
    };

    fn written(rows: &[(&'static str, &'static str, &'static [u8])]) -> (MemoryDirectory, MemoryFile) {
        let directory = MemoryDirectory::default();
        let mut writer = Writer::new(directory.create("db").unwrap());
        let mut last = "";
        for (bucket, key, value) in rows {
            if *bucket != last {
                writer.bucket(*bucket).unwrap();
                last = bucket;
            }
            if !key.is_empty() {
                writer.put(Bytes::from_static(key.as_bytes()), Bytes::from_static(value)).unwrap();
            }
        }
        (directory, writer.finish().unwrap().file)
    }

    fn reader(rows: &[(&'static str, &'static str, &'static [u8])]) -> Reader<MemoryFile> {
        Reader::open(written(rows).1).unwrap()
    }

    const SEVEN: &[u8] = b"\0\0\0\0\0\0\0\x07";

    #[test]
    fn names_ascend_as_in_the_file() {
        assert!(Bucket::ALL.is_sorted_by_key(|bucket| bucket.name()));
        assert!(Bucket::ALL.into_iter().all(|bucket| Bucket::named(bucket.name().as_bytes()) == Some(bucket)));
        assert_eq!(Bucket::named(b"keys"), None);
    }

    #[test]
    fn foreign_buckets_are_refused() {
        check_buckets(&reader(&[("key", "", b""), ("meta", "", b"")])).unwrap();
        let refusal = |rows: &[_]| check_buckets(&reader(rows)).unwrap_err().to_string();
        assert!(refusal(&[("key", "", b""), ("meta", "", b""), ("x", "", b"")]).contains("a bucket \"x\""));
        assert!(refusal(&[("key", "", b"")]).contains("no bucket meta"));
    }

    #[test]
    fn position_must_be_there() {
        let rows = [("meta", INDEX_KEY, SEVEN), ("meta", STORAGE_VERSION_KEY, b"3.6.0"), ("meta", TERM_KEY, SEVEN)];
        let found = position(&reader(&rows)).unwrap();
        assert_eq!(found, Position { index: 7, term: 7, storage_version: Some("3.6.0".to_owned()) });
        let refusal = |rows: &[_]| position(&reader(rows)).unwrap_err().to_string();
        assert!(refusal(&[("meta", INDEX_KEY, SEVEN)]).contains("start it once with etcd 3.5"));
        assert!(refusal(&[("meta", INDEX_KEY, b"7")]).contains("row consistent_index of bucket meta is damaged"));
    }

    #[test]
    fn hash_is_over_names_and_rows() {
        let rows = [("alarm", "", b"".as_slice()), ("meta", "k", b"v")];
        assert_eq!(hash(&reader(&rows)).unwrap(), crc::append(0, b"alarmmetakv"));
    }

    #[test]
    fn sealed_file_is_checked() {
        let (directory, file) = written(&[("meta", INDEX_KEY, SEVEN)]);
        let reader = Reader::open(file).unwrap();
        assert!(matches!(check_seal(&reader), Err(DatabaseError::NoSum { extra: 0 })));
        assert_eq!(seals(reader.file()).unwrap(), None);
        seal(reader.file(), reader.bytes()).unwrap();
        check_seal(&reader).unwrap();
        assert_eq!(reader.file().size().unwrap() % 512, 32);
        assert!(seals(reader.file()).unwrap().is_some_and(|(carried, computed)| carried == computed));
        directory.corrupt("db", 9_000, |byte| byte ^ 1);
        assert!(matches!(check_seal(&reader), Err(DatabaseError::Sum)));
    }

    #[test]
    fn seal_is_checked_as_it_comes_whatever_the_pieces() {
        let pages = vec![7; 2_048];
        let sealed = [&pages[..], &Sha256::digest(&pages)].concat();
        let check = |file: &[u8], piece: usize| {
            let mut check = SealCheck::default();
            file.chunks(piece).for_each(|piece| check.update(piece));
            (check.bytes(), check.finish().is_ok())
        };
        for piece in [1, 31, 32, 33, 2_048, 5_000] {
            assert_eq!(check(&sealed, piece), (2_080, true), "{piece}");
            assert_eq!(check(&sealed[1..], piece), (2_079, false), "{piece}");
        }
        assert_eq!([check(&[], 1), check(&sealed[..2_048], 9)], [(0, false), (2_048, false)]);
        assert_eq!([0, 32, 2_048, 2_080, 2_081].map(has_seal), [false, true, false, true, false]);
    }
}
